/*
 * file_marks.c
 *		How tables of streams got their files, and which became partitions of streams or left them.
 *
 * A table of a stream gets a new file by a command that passes our hooks, which note it in
 * streamext.file_mark in the same transaction, or behind our back.  Of the former we know
 * what the new file contains:
 *	- rows keep their transactions (VACUUM FULL, CLUSTER, SET TABLESPACE), so that a scan
 *	  can tell what is new;
 *	- the file is empty at first (TRUNCATE), all rows before having been read;
 *	- all rows have the id of the rewriting transaction (ALTER COLUMN TYPE ...): those up to
 *	  the last row that the rewrite wrote were there before, those behind it are new.
 *	  A heap that was just written is filled at its end only, and a transaction's own
 *	  rows cannot be vacuumed before it ends.
 * Of the latter nothing is certain; what follows from that is in worker/cycle.c.
 *
 * Marks of transactions that all views have consumed are deleted when the next is made.
 *
 * Of a partition that was attached or detached, a snapshot tells what was in it then.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "catalog/catalog_internal.h"
#include "catalog/file_marks.h"

/* columns of streamext.attach_mark */
enum
{
	ATTACH_LEAF = 1,
	ATTACH_STREAM,
	ATTACH_KIND,
	ATTACH_SNAPSHOT,
	ATTACH_NCOLUMNS = ATTACH_SNAPSHOT
};

/* columns of streamext.file_mark */
enum
{
	MARK_LEAF = 1,
	MARK_KIND,
	MARK_XID,
	MARK_OLD_SPACE,
	MARK_OLD_FILE,
	MARK_SPACE,
	MARK_FILE,
	MARK_WRITER,
	MARK_LAST_BLOCK,
	MARK_LAST_OFFSET,
	MARK_NCOLUMNS = MARK_LAST_OFFSET
};

static SxFileMark *read_mark(HeapTuple tup, Relation rel);

static SxFileMark *
read_mark(HeapTuple tup, Relation rel)
{
	SxFileMark *mark = palloc0(sizeof(SxFileMark));

	mark->leaf = DatumGetObjectId(sx_column(tup, MARK_LEAF, rel));
	mark->kind = DatumGetChar(sx_column(tup, MARK_KIND, rel));
	mark->xid = U64FromFullTransactionId(DatumGetFullTransactionId(sx_column(tup, MARK_XID, rel)));
	SxFileTablespace(mark->old_file) = DatumGetObjectId(sx_column(tup, MARK_OLD_SPACE, rel));
	SxFileDb(mark->old_file) = MyDatabaseId;
	SxFileNumber(mark->old_file) = DatumGetObjectId(sx_column(tup, MARK_OLD_FILE, rel));
	SxFileTablespace(mark->file) = DatumGetObjectId(sx_column(tup, MARK_SPACE, rel));
	SxFileDb(mark->file) = MyDatabaseId;
	SxFileNumber(mark->file) = DatumGetObjectId(sx_column(tup, MARK_FILE, rel));
	mark->writer = U64FromFullTransactionId(DatumGetFullTransactionId(sx_column(tup, MARK_WRITER, rel)));
	mark->last_block = (BlockNumber) DatumGetInt64(sx_column(tup, MARK_LAST_BLOCK, rel));
	mark->last_offset = (OffsetNumber) DatumGetInt32(sx_column(tup, MARK_LAST_OFFSET, rel));
	return mark;
}

List *
sx_catalog_file_marks(Oid leaf)
{
	SxRows		rows;
	HeapTuple	tup;
	List	   *marks = NIL;

	sx_rows_open(&rows, SX_REL_FILE_MARK, SX_REL_FILE_MARK_LEAF_IDX, MARK_LEAF, leaf, NULL, AccessShareLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
		marks = lappend(marks, read_mark(tup, rows.rel));
	sx_rows_close(&rows);
	return marks;
}

/* no CommandCounterIncrement: core may be in the middle of a command */
void
sx_catalog_add_file_mark(const SxFileMark *mark)
{
	Datum		values[MARK_NCOLUMNS];
	bool		nulls[MARK_NCOLUMNS] = {0};

	values[MARK_LEAF - 1] = ObjectIdGetDatum(mark->leaf);
	values[MARK_KIND - 1] = CharGetDatum(mark->kind);
	values[MARK_XID - 1] = FullTransactionIdGetDatum(FullTransactionIdFromU64(mark->xid));
	values[MARK_OLD_SPACE - 1] = ObjectIdGetDatum(SxFileTablespace(mark->old_file));
	values[MARK_OLD_FILE - 1] = ObjectIdGetDatum(SxFileNumber(mark->old_file));
	values[MARK_SPACE - 1] = ObjectIdGetDatum(SxFileTablespace(mark->file));
	values[MARK_FILE - 1] = ObjectIdGetDatum(SxFileNumber(mark->file));
	values[MARK_WRITER - 1] = FullTransactionIdGetDatum(FullTransactionIdFromU64(mark->writer));
	values[MARK_LAST_BLOCK - 1] = Int64GetDatum((int64) mark->last_block);
	values[MARK_LAST_OFFSET - 1] = Int32GetDatum((int32) mark->last_offset);
	sx_insert_row(SX_REL_FILE_MARK, values, nulls);
}

void
sx_catalog_delete_file_marks(Oid leaf, bool (*drop) (const SxFileMark *mark, void *arg), void *arg)
{
	SxRows		rows;
	HeapTuple	tup;

	sx_rows_open(&rows, SX_REL_FILE_MARK, SX_REL_FILE_MARK_LEAF_IDX, MARK_LEAF, leaf, NULL, RowExclusiveLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
	{
		if (drop == NULL || drop(read_mark(tup, rows.rel), arg))
			CatalogTupleDelete(rows.rel, &tup->t_self);
	}
	sx_rows_close(&rows);
}

bool
sx_file_mark_covers(const SxFileMark *mark, uint64 next, TransactionId xmin,
					BlockNumber block, OffsetNumber off)
{
	return xmin == (TransactionId) mark->writer &&
		next - mark->writer < UINT64CONST(0x100000000) &&
		(block < mark->last_block || (block == mark->last_block && off <= mark->last_offset));
}

/* ---- partitions that came or went ---- */

List *
sx_catalog_marks(Oid leaf)
{
	SxRows		rows;
	HeapTuple	tup;
	List	   *marks = NIL;

	sx_rows_open(&rows, SX_REL_ATTACH_MARK, SX_REL_ATTACH_MARK_LEAF_IDX, ATTACH_LEAF, leaf, NULL, AccessShareLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
	{
		SxAttachMark *mark = palloc(sizeof(SxAttachMark));

		mark->leaf = leaf;
		mark->stream = DatumGetObjectId(sx_column(tup, ATTACH_STREAM, rows.rel));
		mark->attached = DatumGetChar(sx_column(tup, ATTACH_KIND, rows.rel)) == 'a';
		mark->snapshot = sx_position_from_datum(sx_column(tup, ATTACH_SNAPSHOT, rows.rel));
		mark->xid = HeapTupleHeaderGetXmin(tup->t_data);
		marks = lappend(marks, mark);
	}
	sx_rows_close(&rows);
	return marks;
}

/* one mark per leaf, stream and kind: the latest */
void
sx_catalog_add_mark(Oid leaf, Oid stream, bool attached, const SxPosition *snapshot)
{
	SxRows		rows;
	HeapTuple	tup;
	char		kind = attached ? 'a' : 'd';
	Datum		values[ATTACH_NCOLUMNS];
	bool		nulls[ATTACH_NCOLUMNS] = {0};

	sx_must_exist();
	values[ATTACH_LEAF - 1] = ObjectIdGetDatum(leaf);
	values[ATTACH_STREAM - 1] = ObjectIdGetDatum(stream);
	values[ATTACH_KIND - 1] = CharGetDatum(kind);
	values[ATTACH_SNAPSHOT - 1] = sx_position_to_datum(snapshot);

	sx_rows_open(&rows, SX_REL_ATTACH_MARK, SX_REL_ATTACH_MARK_LEAF_IDX, ATTACH_LEAF, leaf, NULL, RowExclusiveLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
	{
		if (DatumGetObjectId(sx_column(tup, ATTACH_STREAM, rows.rel)) == stream &&
			DatumGetChar(sx_column(tup, ATTACH_KIND, rows.rel)) == kind)
			CatalogTupleDelete(rows.rel, &tup->t_self);
	}
	sx_rows_close(&rows);
	sx_insert_row(SX_REL_ATTACH_MARK, values, nulls);
	sx_catalog_announce();
	CommandCounterIncrement();
}

void
sx_catalog_delete_marks(Oid leaf)
{
	sx_delete_by_oid(SX_REL_ATTACH_MARK, SX_REL_ATTACH_MARK_LEAF_IDX, ATTACH_LEAF, leaf);
}
