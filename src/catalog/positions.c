/*
 * positions.c
 *		Where a view stands: streamext.view_position, and what it has lost on the way there,
 *		streamext.lost_interval.
 *
 * A position is written by one process at a time, under a lock on the view's materialized table,
 * and in the transaction that writes the rows it belongs to.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "catalog/catalog_internal.h"

/* columns of streamext.view_position */
enum
{
	POS_VIEW = 1,
	POS_POSITION,
	POS_START_LSN,
	POS_TIMELINE,
	POS_SEQ,
	POS_FILE_RELS,
	POS_FILE_NODES,
	POS_ROWS_CONSUMED,
	POS_DATABASE,
	POS_WRITER,
	POS_STORED_AT,
	POS_WAL_ONLY,
	POS_COMPLETE_AT,
	POS_SCAN_POSITION,
	POS_SCAN_AT,
	POS_SCAN_RELS,
	POS_SCAN_NODES,
	POS_SCAN_FILE,
	POS_SCAN_BLOCK,
	POS_SCAN_BLOCKS,
	POS_SCAN_ROWS,
	POS_SCAN_TIME_ATTNO,
	POS_SCAN_LATEST,
	POS_OPEN_ROWS,
	POS_BUILT_BY,
	POS_WATERMARK,
	POS_LATE_ROWS,
	POS_DROPPED_ROWS,
	POS_FUTURE_ROWS,
	POS_REMOVED_UNTIL,
	POS_CLOSED_UNTIL,
	POS_NCOLUMNS = POS_CLOSED_UNTIL
};

/* columns of streamext.lost_interval */
enum
{
	LOST_VIEW = 1,
	LOST_FROM,
	LOST_UNTIL,
	LOST_ROWS,
	LOST_WHY,
	LOST_NOTICED_AT,
	LOST_NCOLUMNS = LOST_NOTICED_AT
};

static SxStoredPosition *read_position(Relation rel, HeapTuple tup);
static SxStoredScan *read_scan(Relation rel, HeapTuple tup);
static int	read_oid_array(Datum array, Oid **values);
static Datum make_oid_array(const Oid *values, int n);
static int64 *read_int8_array(Datum array, int expected);
static Datum make_int8_array(const int64 *values, int n);

SxStoredPosition *
sx_catalog_position(Oid viewid)
{
	return sx_catalog_position_at(viewid, NULL);
}

SxStoredPosition *
sx_catalog_position_at(Oid viewid, Snapshot snapshot)
{
	SxRows		rows;
	HeapTuple	tup;
	SxStoredPosition *pos = NULL;

	sx_rows_open(&rows, SX_REL_VIEW_POSITION, SX_REL_VIEW_POSITION_PKEY, POS_VIEW, viewid, snapshot, AccessShareLock);
	tup = sx_rows_next(&rows);
	if (HeapTupleIsValid(tup))
		pos = read_position(rows.rel, tup);
	sx_rows_close(&rows);
	return pos;
}

static SxStoredPosition *
read_position(Relation rel, HeapTuple tup)
{
	SxStoredPosition *pos = palloc0(sizeof(SxStoredPosition));
	uint64		writer;
	int			nnodes;
	Datum		open_rows;
	bool		isnull;

	pos->viewid = DatumGetObjectId(sx_column(tup, POS_VIEW, rel));
	pos->position = sx_position_from_datum(sx_column(tup, POS_POSITION, rel));
	pos->start_lsn = DatumGetLSN(sx_column(tup, POS_START_LSN, rel));
	pos->timeline = (uint32) DatumGetInt32(sx_column(tup, POS_TIMELINE, rel));
	pos->seq = (uint64) DatumGetInt64(sx_column(tup, POS_SEQ, rel));
	pos->nfiles = read_oid_array(sx_column(tup, POS_FILE_RELS, rel), &pos->file_rels);
	nnodes = read_oid_array(sx_column(tup, POS_FILE_NODES, rel), &pos->file_nodes);
	if (nnodes != pos->nfiles)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("row of streamext.view_position for view %u has %d relations but %d files",
						pos->viewid, pos->nfiles, nnodes)));
	pos->counts.rows = DatumGetInt64(sx_column(tup, POS_ROWS_CONSUMED, rel));
	pos->counts.late = DatumGetInt64(sx_column(tup, POS_LATE_ROWS, rel));
	pos->counts.dropped = DatumGetInt64(sx_column(tup, POS_DROPPED_ROWS, rel));
	pos->counts.future = DatumGetInt64(sx_column(tup, POS_FUTURE_ROWS, rel));
	pos->watermark = DatumGetInt64(sx_column(tup, POS_WATERMARK, rel));
	pos->removed_until = DatumGetInt64(sx_column(tup, POS_REMOVED_UNTIL, rel));
	pos->closed_until = DatumGetInt64(sx_column(tup, POS_CLOSED_UNTIL, rel));
	pos->position->wal_only = DatumGetBool(sx_column(tup, POS_WAL_ONLY, rel));
	pos->complete_at = DatumGetTimestampTz(sx_column(tup, POS_COMPLETE_AT, rel));
	if (!heap_attisnull(tup, POS_SCAN_POSITION, RelationGetDescr(rel)))
		pos->scan = read_scan(rel, tup);
	open_rows = heap_getattr(tup, POS_OPEN_ROWS, RelationGetDescr(rel), &isnull);
	if (!isnull)
		pos->open_rows = DatumGetByteaPCopy(open_rows);
	pos->built_by = U64FromFullTransactionId(DatumGetFullTransactionId(sx_column(tup, POS_BUILT_BY, rel)));

	/*
	 * The raw xmin outlives freezing but not dump, restore or a hand-written copy.  Only its
	 * 32 bits are stored with the row: comparing those is right however old the row is, while
	 * widening it is not.
	 */
	writer = U64FromFullTransactionId(DatumGetFullTransactionId(sx_column(tup, POS_WRITER, rel)));
	pos->writer = HeapTupleHeaderGetRawXmin(tup->t_data);
	pos->ours = DatumGetObjectId(sx_column(tup, POS_DATABASE, rel)) == MyDatabaseId &&
		(TransactionId) writer == HeapTupleHeaderGetRawXmin(tup->t_data) &&
		writer < U64FromFullTransactionId(ReadNextFullTransactionId());
	return pos;
}

static SxStoredScan *
read_scan(Relation rel, HeapTuple tup)
{
	SxStoredScan *scan = palloc0(sizeof(SxStoredScan));

	scan->upto = sx_position_from_datum(sx_column(tup, POS_SCAN_POSITION, rel));
	scan->at = DatumGetTimestampTz(sx_column(tup, POS_SCAN_AT, rel));
	scan->nfiles = read_oid_array(sx_column(tup, POS_SCAN_RELS, rel), &scan->rels);
	if (read_oid_array(sx_column(tup, POS_SCAN_NODES, rel), &scan->nodes) != scan->nfiles)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("row of streamext.view_position names %d relations to scan but not as many files",
						scan->nfiles)));
	scan->file = DatumGetInt32(sx_column(tup, POS_SCAN_FILE, rel));
	scan->block = (uint32) DatumGetInt64(sx_column(tup, POS_SCAN_BLOCK, rel));
	if (!heap_attisnull(tup, POS_SCAN_BLOCKS, RelationGetDescr(rel)))
	{
		scan->blocks = read_int8_array(sx_column(tup, POS_SCAN_BLOCKS, rel), scan->nfiles);
		scan->rows = DatumGetInt64(sx_column(tup, POS_SCAN_ROWS, rel));
		scan->time_attno = DatumGetInt16(sx_column(tup, POS_SCAN_TIME_ATTNO, rel));
		scan->latest = DatumGetInt64(sx_column(tup, POS_SCAN_LATEST, rel));
	}
	return scan;
}

void
sx_catalog_store_position(const SxStoredPosition *pos)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tup;
	Datum		values[POS_NCOLUMNS];
	bool		nulls[POS_NCOLUMNS] = {0};
	bool		replace[POS_NCOLUMNS];

	sx_must_exist();
	values[POS_VIEW - 1] = ObjectIdGetDatum(pos->viewid);
	values[POS_POSITION - 1] = sx_position_to_datum(pos->position);
	values[POS_START_LSN - 1] = LSNGetDatum(pos->start_lsn);
	values[POS_TIMELINE - 1] = Int32GetDatum((int32) GetWALInsertionTimeLine());
	values[POS_SEQ - 1] = Int64GetDatum((int64) pos->seq);
	values[POS_FILE_RELS - 1] = make_oid_array(pos->file_rels, pos->nfiles);
	values[POS_FILE_NODES - 1] = make_oid_array(pos->file_nodes, pos->nfiles);
	values[POS_ROWS_CONSUMED - 1] = Int64GetDatum(pos->counts.rows);
	values[POS_LATE_ROWS - 1] = Int64GetDatum(pos->counts.late);
	values[POS_DROPPED_ROWS - 1] = Int64GetDatum(pos->counts.dropped);
	values[POS_FUTURE_ROWS - 1] = Int64GetDatum(pos->counts.future);
	values[POS_WATERMARK - 1] = Int64GetDatum(pos->watermark);
	values[POS_REMOVED_UNTIL - 1] = Int64GetDatum(pos->removed_until);
	values[POS_CLOSED_UNTIL - 1] = Int64GetDatum(pos->closed_until);
	values[POS_DATABASE - 1] = ObjectIdGetDatum(MyDatabaseId);
	/* the id that becomes the row's xmin: a sub-transaction's, if we are in one */
	values[POS_WRITER - 1] = FullTransactionIdGetDatum(GetCurrentFullTransactionId());
	values[POS_STORED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[POS_WAL_ONLY - 1] = BoolGetDatum(pos->position->wal_only);
	values[POS_COMPLETE_AT - 1] = TimestampTzGetDatum(pos->complete_at != 0 ? pos->complete_at :
													  GetCurrentTransactionStartTimestamp());
	for (int column = POS_SCAN_POSITION; column <= POS_SCAN_LATEST; column++)
	{
		values[column - 1] = (Datum) 0;
		nulls[column - 1] = true;
	}
	if (pos->scan != NULL)
	{
		for (int column = POS_SCAN_POSITION; column <= POS_SCAN_BLOCK; column++)
			nulls[column - 1] = false;
		values[POS_SCAN_POSITION - 1] = sx_position_to_datum(pos->scan->upto);
		values[POS_SCAN_AT - 1] = TimestampTzGetDatum(pos->scan->at);
		values[POS_SCAN_RELS - 1] = make_oid_array(pos->scan->rels, pos->scan->nfiles);
		values[POS_SCAN_NODES - 1] = make_oid_array(pos->scan->nodes, pos->scan->nfiles);
		values[POS_SCAN_FILE - 1] = Int32GetDatum(pos->scan->file);
		values[POS_SCAN_BLOCK - 1] = Int64GetDatum((int64) pos->scan->block);
	}
	if (sx_is_in_history(pos))
	{
		for (int column = POS_SCAN_BLOCKS; column <= POS_SCAN_LATEST; column++)
			nulls[column - 1] = false;
		values[POS_SCAN_BLOCKS - 1] = make_int8_array(pos->scan->blocks, pos->scan->nfiles);
		values[POS_SCAN_ROWS - 1] = Int64GetDatum(pos->scan->rows);
		values[POS_SCAN_TIME_ATTNO - 1] = Int16GetDatum(pos->scan->time_attno);
		values[POS_SCAN_LATEST - 1] = Int64GetDatum(pos->scan->latest);
	}
	memset(replace, true, sizeof(replace));
	nulls[POS_OPEN_ROWS - 1] = pos->open_rows == NULL;
	values[POS_OPEN_ROWS - 1] = PointerGetDatum(pos->open_rows);
	replace[POS_OPEN_ROWS - 1] = pos->new_open_rows;
	values[POS_BUILT_BY - 1] = FullTransactionIdGetDatum(pos->built_by != 0 ? FullTransactionIdFromU64(pos->built_by) :
														 GetTopFullTransactionId());

	rel = table_open(sx_our_relation(SX_REL_VIEW_POSITION), RowExclusiveLock);
	scan = sx_scan_by_oid(rel, SX_REL_VIEW_POSITION_PKEY, POS_VIEW, pos->viewid, NULL);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		/* one step after the other: rows written from an older position would count twice */
		if (DatumGetInt64(sx_column(tup, POS_SEQ, rel)) != (int64) pos->seq - 1)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the position of the continuous view was changed by another process")));
		tup = heap_modify_tuple(tup, RelationGetDescr(rel), values, nulls, replace);
		CatalogTupleUpdate(rel, &tup->t_self, tup);
	}
	else
	{
		/* what this continues is gone: the view begins anew */
		if (pos->seq > 1)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the position of the continuous view was removed by another process")));
		tup = heap_form_tuple(RelationGetDescr(rel), values, nulls);
		CatalogTupleInsert(rel, tup);
	}
	heap_freetuple(tup);
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
}

uint64
sx_scan_blocks(const SxStoredScan *scan, uint64 *done)
{
	uint64		all = 0;

	*done = 0;
	for (int i = 0; i < scan->nfiles; i++)
	{
		all += scan->blocks[i];
		if (i <= scan->file)
			*done += scan->blocks[i] - (i == scan->file ? scan->block : 0);
	}
	return all;
}

void
sx_catalog_delete_position(Oid viewid)
{
	sx_delete_by_oid(SX_REL_VIEW_POSITION, SX_REL_VIEW_POSITION_PKEY, POS_VIEW, viewid);
}

void
sx_catalog_move_position(Oid from, Oid to)
{
	SxRows		rows;
	HeapTuple	tup;
	Datum		values[POS_NCOLUMNS] = {0};
	bool		nulls[POS_NCOLUMNS] = {0};
	bool		replace[POS_NCOLUMNS] = {0};

	values[POS_VIEW - 1] = ObjectIdGetDatum(to);
	/* a position is ours by its row's xmin */
	values[POS_WRITER - 1] = FullTransactionIdGetDatum(GetCurrentFullTransactionId());
	replace[POS_VIEW - 1] = replace[POS_WRITER - 1] = true;
	sx_rows_open(&rows, SX_REL_VIEW_POSITION, SX_REL_VIEW_POSITION_PKEY, POS_VIEW, from, NULL, RowExclusiveLock);
	tup = sx_rows_next(&rows);
	if (HeapTupleIsValid(tup))
	{
		tup = heap_modify_tuple(tup, RelationGetDescr(rows.rel), values, nulls, replace);
		CatalogTupleUpdate(rows.rel, &tup->t_self, tup);
	}
	sx_rows_close(&rows);
}

void
sx_catalog_add_lost_interval(const SxViewDef *def, TimestampTz from, TimestampTz until,
							 int64 rows, const char *why)
{
	Datum		values[LOST_NCOLUMNS] = {0};
	bool		nulls[LOST_NCOLUMNS] = {0};
	char	   *since = pstrdup(timestamptz_to_str(from));

	sx_must_exist();
	values[LOST_VIEW - 1] = ObjectIdGetDatum(def->viewid);
	values[LOST_FROM - 1] = TimestampTzGetDatum(from);
	values[LOST_UNTIL - 1] = TimestampTzGetDatum(Max(from, until));
	values[LOST_ROWS - 1] = Int64GetDatum(rows);
	nulls[LOST_ROWS - 1] = rows < 0;
	values[LOST_WHY - 1] = CStringGetTextDatum(why);
	values[LOST_NOTICED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());

	sx_insert_row(SX_REL_LOST_INTERVAL, values, nulls);

	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 rows < 0 ?
			 errmsg("rows of stream \"%s\" may be missing in continuous view \"%s\": those committed between %s and %s that were updated or deleted, and vacuumed",
					get_rel_name(def->streamid), get_rel_name(def->viewid), since, timestamptz_to_str(until)) :
			 errmsg(INT64_FORMAT " rows of stream \"%s\" are missing in continuous view \"%s\": committed between %s and %s, then updated or deleted, and vacuumed",
					rows, get_rel_name(def->streamid), get_rel_name(def->viewid), since, timestamptz_to_str(until)),
			 errdetail_internal("%s", why)));
}

static int
read_oid_array(Datum array, Oid **values)
{
	Datum	   *elems;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(array), OIDOID, sizeof(Oid), true, TYPALIGN_INT,
					  &elems, &nulls, &n);
	*values = palloc(sizeof(Oid) * Max(n, 1));
	for (int i = 0; i < n; i++)
		(*values)[i] = nulls[i] ? InvalidOid : DatumGetObjectId(elems[i]);
	return n;
}

static Datum
make_oid_array(const Oid *values, int n)
{
	Datum	   *elems = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elems[i] = ObjectIdGetDatum(values[i]);
	return PointerGetDatum(construct_array(elems, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

static int64 *
read_int8_array(Datum array, int expected)
{
	Datum	   *elems;
	bool	   *nulls;
	int			n;
	int64	   *values;

	deconstruct_array(DatumGetArrayTypeP(array), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &elems, &nulls, &n);
	if (n != expected)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("row of streamext.view_position has sizes of %d files instead of %d", n, expected)));
	values = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
		values[i] = nulls[i] ? 0 : DatumGetInt64(elems[i]);
	return values;
}

static Datum
make_int8_array(const int64 *values, int n)
{
	Datum	   *elems = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elems[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(elems, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
