/*
 * file_marks.c
 *		How tables of streams got their files, and which views are stopped.
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
 * Tables are written without triggers, like all of our catalog; see definitions.c.
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

#include "catalog/definitions.h"
#include "catalog/file_marks.h"

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

/* columns of streamext.view_stop */
enum
{
	STOP_VIEW = 1,
	STOP_REASON,
	STOP_AT,
	STOP_NCOLUMNS = STOP_AT
};

static Relation open_table(const char *name, LOCKMODE lockmode);
static SysScanDesc scan_table(Relation rel, const char *index, Oid value);
static SxFileMark *read_mark(HeapTuple tup, TupleDesc desc);
static Datum column(HeapTuple tup, int attno, TupleDesc desc);

/* NULL without the extension, or while it is being dropped */
static Relation
open_table(const char *name, LOCKMODE lockmode)
{
	Oid			relid = sx_catalog_table_oid(name);

	return OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;
}

/* the first column of each table is the key */
static SysScanDesc
scan_table(Relation rel, const char *index, Oid value)
{
	Oid			indexid = sx_catalog_table_oid(index);
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(value));
	return systable_beginscan(rel, indexid, OidIsValid(indexid) &&
							  SearchSysCacheExists1(RELOID, ObjectIdGetDatum(indexid)), NULL, 1, &key);
}

static Datum
column(HeapTuple tup, int attno, TupleDesc desc)
{
	bool		isnull;

	return heap_getattr(tup, attno, desc, &isnull);
}

static SxFileMark *
read_mark(HeapTuple tup, TupleDesc desc)
{
	SxFileMark *mark = palloc0(sizeof(SxFileMark));

	mark->leaf = DatumGetObjectId(column(tup, MARK_LEAF, desc));
	mark->kind = DatumGetChar(column(tup, MARK_KIND, desc));
	mark->xid = U64FromFullTransactionId(DatumGetFullTransactionId(column(tup, MARK_XID, desc)));
	SxFileTablespace(mark->old_file) = DatumGetObjectId(column(tup, MARK_OLD_SPACE, desc));
	SxFileDb(mark->old_file) = MyDatabaseId;
	SxFileNumber(mark->old_file) = DatumGetObjectId(column(tup, MARK_OLD_FILE, desc));
	SxFileTablespace(mark->file) = DatumGetObjectId(column(tup, MARK_SPACE, desc));
	SxFileDb(mark->file) = MyDatabaseId;
	SxFileNumber(mark->file) = DatumGetObjectId(column(tup, MARK_FILE, desc));
	mark->writer = U64FromFullTransactionId(DatumGetFullTransactionId(column(tup, MARK_WRITER, desc)));
	mark->last_block = (BlockNumber) DatumGetInt64(column(tup, MARK_LAST_BLOCK, desc));
	mark->last_offset = (OffsetNumber) DatumGetInt32(column(tup, MARK_LAST_OFFSET, desc));
	return mark;
}

List *
sx_catalog_file_marks(Oid leaf)
{
	Relation	rel = open_table("file_mark", AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tup;
	List	   *marks = NIL;

	if (rel == NULL)
		return NIL;
	scan = scan_table(rel, "file_mark_leaf_idx", leaf);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
		marks = lappend(marks, read_mark(tup, RelationGetDescr(rel)));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return marks;
}

/* no CommandCounterIncrement: core may be in the middle of a command */
void
sx_catalog_add_file_mark(const SxFileMark *mark)
{
	Relation	rel = table_open(sx_catalog_table_oid("file_mark"), RowExclusiveLock);
	Datum		values[MARK_NCOLUMNS];
	bool		nulls[MARK_NCOLUMNS] = {0};
	HeapTuple	tup;

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
	tup = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	CatalogTupleInsert(rel, tup);
	heap_freetuple(tup);
	table_close(rel, RowExclusiveLock);
}

void
sx_catalog_delete_file_marks(Oid leaf, bool (*drop) (const SxFileMark *mark, void *arg), void *arg)
{
	Relation	rel = open_table("file_mark", RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tup;

	if (rel == NULL)
		return;
	scan = scan_table(rel, "file_mark_leaf_idx", leaf);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		if (drop == NULL || drop(read_mark(tup, RelationGetDescr(rel)), arg))
			CatalogTupleDelete(rel, &tup->t_self);
	}
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
}

bool
sx_file_mark_covers(const SxFileMark *mark, uint64 next, TransactionId xmin,
					BlockNumber block, OffsetNumber off)
{
	return xmin == (TransactionId) mark->writer &&
		next - mark->writer < UINT64CONST(0x100000000) &&
		(block < mark->last_block || (block == mark->last_block && off <= mark->last_offset));
}

/* ---- stopped views ---- */

char *
sx_catalog_stop_reason(Oid viewid, TimestampTz *at)
{
	Relation	rel = open_table("view_stop", AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tup;
	char	   *reason = NULL;

	if (rel == NULL)
		return NULL;
	scan = scan_table(rel, "view_stop_pkey", viewid);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		reason = TextDatumGetCString(column(tup, STOP_REASON, RelationGetDescr(rel)));
		if (at)
			*at = DatumGetTimestampTz(column(tup, STOP_AT, RelationGetDescr(rel)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return reason;
}

void
sx_catalog_stop_view(Oid viewid, const char *reason)
{
	Relation	rel;
	Datum		values[STOP_NCOLUMNS];
	bool		nulls[STOP_NCOLUMNS] = {0};
	HeapTuple	tup;

	if (sx_catalog_stop_reason(viewid, NULL) != NULL)
		return;
	rel = table_open(sx_catalog_table_oid("view_stop"), RowExclusiveLock);
	values[STOP_VIEW - 1] = ObjectIdGetDatum(viewid);
	values[STOP_REASON - 1] = CStringGetTextDatum(reason);
	values[STOP_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	tup = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	CatalogTupleInsert(rel, tup);
	heap_freetuple(tup);
	table_close(rel, RowExclusiveLock);
	sx_catalog_announce();
	CommandCounterIncrement();
}

void
sx_catalog_end_stop(Oid viewid)
{
	Relation	rel = open_table("view_stop", RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tup;

	if (rel == NULL)
		return;
	scan = scan_table(rel, "view_stop_pkey", viewid);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
		CatalogTupleDelete(rel, &tup->t_self);
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
	sx_catalog_announce();
	CommandCounterIncrement();
}
