/*
 * expire.c
 *		SQL: CALL streamext.expire(stream, older_than): removes raw rows that all views have.
 *
 *	 1	a snapshot S
 *	 2	wait, holding no lock, until everything that was committed before is in the tables of all views on the
 *		stream, on what it is a partition of and on its partitions
 *	 3	note the limit with these streams (stream_def.expired_until), and commit: from here on their raw rows
 *		before the limit are not complete, wherever this ends
 *	 4	partitions of a range of the event time that lies before the limit go as a whole, one to a transaction;
 *		their DROP or DETACH waits for the views once more, with the writers kept out (stream_ddl.c)
 *	 5	from other leaves, rows with an earlier event time that S sees are deleted, in one pass by block, in
 *		batches that are committed.  So a row that came since 1 is left for the next time.
 *
 * Everything is done by ordinary commands as the caller, whose privileges they check and whose triggers
 * they fire.  An error or a crash leaves what is committed; the next call goes on.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "partitioning/partbounds.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "capture/event_time.h"
#include "capture/position.h"
#include "ddl/ddl_internal.h"
#include "moment.h"
#include "testing/stop_points.h"

/* rows of a page that matter, for the size of a step */
#define ROWS_PER_BLOCK	100
#define MAX_STEP		128
#define MAX_BATCH_ROWS	1000000
/* blocks without such rows that one transaction goes through */
#define MAX_BLOCKS		16384
/* how often progress is told */
#define PROGRESS_MS		5000

typedef struct Expire
{
	Oid			streamid;
	char	   *name;			/* of the stream */
	char	   *event_time;
	Oid			type;
	int64		limit;			/* rows with an earlier event time go */
	Datum		last;			/* the last value of the type that is earlier */
	char	   *limit_text;
	int			batch_rows;
	bool		detach;
	SxPosition *seen;			/* S */
	int64		rows;
	int			partitions;
	TimestampTz told_at;
} Expire;

/* What is to be done with a table of the stream's */
typedef struct Part
{
	Oid			relid;
	bool		whole;			/* all its rows go */
} Part;

PG_FUNCTION_INFO_V1(sx_expire_interval);
PG_FUNCTION_INFO_V1(sx_expire_timestamptz);
PG_FUNCTION_INFO_V1(sx_expire_number);

static void check_call(FunctionCallInfo fcinfo);
static Expire *begin(FunctionCallInfo fcinfo, const char *what, bool number);
static int64 lowest_watermark(Oid streamid, int64 watermark);
static void run(Expire *x, int64 limit);
static void note_limit(Expire *x, List *streams);
static List *find_parts(Expire *x, Oid relid, List *parts);
static void find_place(Expire *x, Oid parent, Oid child, bool *before, bool *after);
static bool bound_before(Expire *x, List *datums, int nkeys, bool upper);
static void remove_partition(Expire *x, Oid relid);
static void delete_rows(Expire *x, Oid leaf);
static BlockNumber find_rows(Expire *x, Relation rel, BlockNumber from, ArrayType **tids);
static bool is_part(Expire *x, Oid relid);
static char *qualified_name(Oid relid);

Datum
sx_expire_interval(PG_FUNCTION_ARGS)
{
	Expire	   *x;
	Interval	zero = {0};
	Interval   *span;
	int64		now;

	check_call(fcinfo);
	span = PG_GETARG_INTERVAL_P(1);
	if (DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(span), IntervalPGetDatum(&zero))) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("older_than must be positive"),
				 errhint("Use an interval such as '90 days', or a timestamp.")));
	x = begin(fcinfo, "an interval", false);
	now = lowest_watermark(x->streamid, sx_event_time_now(x->type));
	if (now != SX_TIME_NONE && now != SX_TIME_END)
	{
		/* months are those of the calendar */
		if (x->type == TIMESTAMPTZOID)
			now = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(now),
														  IntervalPGetDatum(span)));
		else
			now = DatumGetTimestamp(DirectFunctionCall2(timestamp_mi_interval, TimestampGetDatum(now),
														IntervalPGetDatum(span)));
	}
	run(x, now);
	PG_RETURN_VOID();
}

Datum
sx_expire_timestamptz(PG_FUNCTION_ARGS)
{
	Expire	   *x;
	TimestampTz limit;

	check_call(fcinfo);
	limit = PG_GETARG_TIMESTAMPTZ(1);
	if (TIMESTAMP_NOT_FINITE(limit))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("older_than must be finite")));
	x = begin(fcinfo, "a timestamp", false);
	if (x->type != TIMESTAMPTZOID)
		limit = DatumGetTimestamp(DirectFunctionCall1(timestamptz_timestamp, TimestampTzGetDatum(limit)));
	run(x, limit);
	PG_RETURN_VOID();
}

Datum
sx_expire_number(PG_FUNCTION_ARGS)
{
	check_call(fcinfo);
	run(begin(fcinfo, "a number", true), PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

/* ---- arguments ---- */

static void
check_call(FunctionCallInfo fcinfo)
{
	static const char *const names[] = {"stream", "older_than", "batch_rows", "detach"};

	sx_require_preload();
	PreventCommandIfReadOnly("streamext.expire()");
	PreventCommandDuringRecovery("streamext.expire()");
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) || castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("streamext.expire() cannot run inside a transaction block or a function"),
				 errdetail("It commits after each batch of rows."),
				 errhint("CALL it as a statement of its own.")));
	for (int i = 0; i < lengthof(names); i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", names[i])));
	}
}

static Expire *
begin(FunctionCallInfo fcinfo, const char *what, bool number)
{
	Expire	   *x;
	SxStreamDef *stream;
	Oid			streamid = PG_GETARG_OID(0);
	char	   *name;
	AclResult	result;

	/* what is allocated from here on survives commits */
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	x = palloc0(sizeof(Expire));
	x->streamid = streamid;
	x->batch_rows = PG_GETARG_INT32(2);
	x->detach = PG_GETARG_BOOL(3);
	name = get_rel_name(streamid);
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", streamid)));
	result = pg_class_aclcheck(streamid, GetUserId(), ACL_DELETE);
	if (result == ACLCHECK_OK)
		result = pg_class_aclcheck(streamid, GetUserId(), ACL_SELECT);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, get_relkind_objtype(get_rel_relkind(streamid)), name);
	if (x->batch_rows < 1 || x->batch_rows > MAX_BATCH_ROWS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch_rows must be between 1 and %d", MAX_BATCH_ROWS)));
	stream = sx_catalog_stream(streamid);
	if (stream == NULL || stream->time.attno == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" is not a stream with an event time", name),
				 errdetail("Rows are expired by their event time."),
				 errhint("SELECT streamext.%s(%s, event_time => 'column');", stream && stream->declared ? "alter_stream" : "create_stream",
						 quote_literal_cstr(qualified_name(streamid)))));
	if (number != (stream->time.type == INT8OID))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("older_than is %s, but the event time of stream \"%s\" has type %s", what, name,
						format_type_be(stream->time.type)),
				 number ? errhint("Use an interval such as interval '90 days', or a timestamp.") :
				 errhint("Use a number.")));
	x->name = pstrdup(name);
	x->event_time = pstrdup(NameStr(stream->event_time));
	x->type = stream->time.type;
	return x;
}

/* of the stream's views; `watermark` if that is earlier */
static int64
lowest_watermark(Oid streamid, int64 watermark)
{
	ListCell   *lc;

	foreach(lc, sx_catalog_views_of_stream(streamid))
	{
		SxStoredPosition *stored = sx_catalog_position(((SxViewDef *) lfirst(lc))->viewid);

		watermark = Min(watermark, stored != NULL && stored->ours ? stored->watermark : SX_TIME_NONE);
	}
	return watermark;
}

/* ---- the steps ---- */

static void
run(Expire *x, int64 limit)
{
	List	   *streams;
	List	   *parts;
	ListCell   *lc;
	Snapshot	snapshot;
	MemoryContext context = CurrentMemoryContext;

	/* a date before the limit may be of a day that is not over */
	if (x->type == DATEOID && limit != SX_TIME_NONE && limit != SX_TIME_END)
		limit = limit / USECS_PER_DAY * USECS_PER_DAY - (limit % USECS_PER_DAY < 0 ? USECS_PER_DAY : 0);
	x->limit = limit;
	if (limit == SX_TIME_NONE || limit == SX_TIME_END || !sx_event_time_value(limit - 1, x->type, &x->last))
	{
		ereport(NOTICE,
				(errmsg("nothing of stream \"%s\" is to expire: no event time is known to be over", x->name)));
		SPI_finish();
		return;
	}
	x->limit_text = sx_event_time_text(limit, x->type);

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	x->seen = sx_position_from_snapshot(snapshot);
	UnregisterSnapshot(snapshot);

	streams = list_append_unique_oid(sx_streams_of_tree(x->streamid), x->streamid);
	sx_require_flushed(streams, "streamext.expire()");
	SX_STOP_POINT(expire_flushed);
	note_limit(x, streams);
	parts = find_parts(x, x->streamid, NIL);
	SPI_commit();
	MemoryContextSwitchTo(context);
	SX_STOP_POINT(expire_noted);

	x->told_at = sx_now();
	foreach(lc, parts)
	{
		Part	   *part = lfirst(lc);

		if (part->whole)
			remove_partition(x, part->relid);
		else
			delete_rows(x, part->relid);
		MemoryContextSwitchTo(context);
	}
	ereport(NOTICE,
			(errmsg("removed " INT64_FORMAT " rows and %d partitions of stream \"%s\" before %s",
					x->rows, x->partitions, x->name, x->limit_text)));
	SPI_finish();
}

/* another stream may have declared another column of the same rows */
static void
note_limit(Expire *x, List *streams)
{
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, streams)
	{
		SxStreamDef *stream;

		/* whoever begins to rebuild a view has this until he commits, and looks at the note under it */
		sx_catalog_lock_stream(lfirst_oid(lc));
		foreach(lc2, sx_catalog_views_of_stream(lfirst_oid(lc)))
		{
			SxViewDef  *def = lfirst(lc2);
			SxStoredPosition *stored = sx_catalog_position(def->viewid);

			if (stored == NULL || sx_is_in_history(stored))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_IN_USE),
						 errmsg("a continuous view on stream \"%s\" is being built", get_rel_name(def->streamid)),
						 errhint("Wait with SELECT streamext.wait_for(), and try again.")));
		}
		stream = sx_catalog_stream(lfirst_oid(lc));
		if (stream != NULL)
			sx_catalog_set_expired_until(stream->streamid,
										 strcmp(NameStr(stream->event_time), x->event_time) == 0 ? x->limit : SX_TIME_END);
	}
}

/* ---- partitions ---- */

static List *
find_parts(Expire *x, Oid relid, List *parts)
{
	Part	   *part;
	ListCell   *lc;

	check_stack_depth();
	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
	{
		part = palloc0(sizeof(Part));
		part->relid = relid;
		return lappend(parts, part);
	}
	foreach(lc, find_inheritance_children(relid, AccessShareLock))
	{
		Oid			child = lfirst_oid(lc);
		bool		before;
		bool		after;

		find_place(x, relid, child, &before, &after);
		if (after)
			continue;
		/* who may not drop it may still delete its rows */
		if (before && SxClassOwnerCheck(child, GetUserId()))
		{
			part = palloc0(sizeof(Part));
			part->relid = child;
			part->whole = true;
			parts = lappend(parts, part);
		}
		else
			parts = find_parts(x, child, parts);
	}
	return parts;
}

/* do all rows that the partition can hold lie before the limit, or none? */
static void
find_place(Expire *x, Oid parent, Oid child, bool *before, bool *after)
{
	Relation	rel = table_open(parent, AccessShareLock);
	PartitionKey key = RelationGetPartitionKey(rel);
	HeapTuple	tup = SearchSysCache1(RELOID, ObjectIdGetDatum(child));
	PartitionBoundSpec *bound;
	Datum		value;
	bool		isnull;

	*before = *after = false;
	value = HeapTupleIsValid(tup) ? SysCacheGetAttr(RELOID, tup, Anum_pg_class_relpartbound, &isnull) : (Datum) 0;
	if (HeapTupleIsValid(tup) && !isnull && key->strategy == PARTITION_STRATEGY_RANGE && key->partattrs[0] != 0 &&
		strcmp(get_attname(parent, key->partattrs[0], false), x->event_time) == 0)
	{
		bound = castNode(PartitionBoundSpec, stringToNode(TextDatumGetCString(value)));
		if (!bound->is_default)
		{
			*before = bound_before(x, bound->upperdatums, key->partnatts, true);
			*after = !bound_before(x, bound->lowerdatums, key->partnatts, false);
		}
	}
	if (HeapTupleIsValid(tup))
		ReleaseSysCache(tup);
	table_close(rel, NoLock);
}

/*
 * Upper: is every event time below this bound before the limit?  With further keys, those equal to its own are below
 * it, too.  Lower: is one that is not below this bound before the limit?
 */
static bool
bound_before(Expire *x, List *datums, int nkeys, bool upper)
{
	PartitionRangeDatum *datum = linitial_node(PartitionRangeDatum, datums);
	int64		bound;

	if (datum->kind != PARTITION_RANGE_DATUM_VALUE)
		return datum->kind == PARTITION_RANGE_DATUM_MINVALUE;
	bound = sx_event_time(castNode(Const, datum->value)->constvalue, x->type);
	return bound < x->limit || (upper && nkeys == 1 && bound == x->limit);
}

static void
remove_partition(Expire *x, Oid relid)
{
	char	   *name;
	char	   *sql;

	PushActiveSnapshot(GetTransactionSnapshot());
	if (!is_part(x, relid))
	{
		PopActiveSnapshot();
		return;
	}
	name = qualified_name(relid);
	sql = x->detach ? psprintf("ALTER TABLE %s DETACH PARTITION %s", qualified_name(get_partition_parent(relid, false)), name) :
		psprintf("DROP TABLE %s", name);
	PopActiveSnapshot();
	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not remove a partition");
	SX_STOP_POINT(expire_dropped);
	SPI_commit();
	x->partitions++;
	ereport(NOTICE,
			(errmsg("%s partition %s", x->detach ? "detached" : "dropped", name)));
}

/* it may have been detached or dropped since we looked */
static bool
is_part(Expire *x, Oid relid)
{
	if (get_rel_name(relid) == NULL)
		return false;
	return relid == x->streamid ||
		(get_rel_relispartition(relid) && list_member_oid(get_partition_ancestors(relid), x->streamid));
}

/* ---- rows ---- */

static void
delete_rows(Expire *x, Oid leaf)
{
	Oid			argtypes[2] = {TIDARRAYOID, x->type};
	int64		before = x->rows;
	char	   *name = NULL;
	BlockNumber from = 0;

	while (from != InvalidBlockNumber)
	{
		Relation	rel;
		ArrayType  *tids = NULL;

		CHECK_FOR_INTERRUPTS();
		/* a position of ours: of rows that it sees, some may be gone by now */
		PushActiveSnapshot(sx_position_to_snapshot(x->seen));
		rel = is_part(x, leaf) ? try_table_open(leaf, RowExclusiveLock) : NULL;
		if (rel == NULL || rel->rd_rel->relkind != RELKIND_RELATION)
		{
			PopActiveSnapshot();
			SPI_commit();
			return;
		}
		if (name == NULL)
			name = qualified_name(leaf);
		from = find_rows(x, rel, from, &tids);
		PopActiveSnapshot();
		if (tids != NULL)
		{
			Datum		values[2];
			char	   *sql = psprintf("DELETE FROM ONLY %s WHERE ctid OPERATOR(pg_catalog.=) ANY ($1) AND %s OPERATOR(pg_catalog.<=) $2",
									   name, quote_identifier(x->event_time));

			values[0] = PointerGetDatum(tids);
			values[1] = x->last;
			/* one that has been updated to a later time meanwhile stays */
			if (SPI_execute_with_args(sql, 2, argtypes, values, NULL, false, 0) != SPI_OK_DELETE)
				elog(ERROR, "could not delete old rows");
			x->rows += SPI_processed;
			pfree(tids);
			pfree(sql);
			SX_STOP_POINT(expire_deleted);
		}
		table_close(rel, NoLock);
		SPI_commit();
		if (from != InvalidBlockNumber && TimestampDifferenceExceeds(x->told_at, sx_now(), PROGRESS_MS))
		{
			x->told_at = sx_now();
			ereport(NOTICE,
					(errmsg("deleted " INT64_FORMAT " rows of table %s so far", x->rows - before, name)));
		}
	}
	if (x->rows > before)
		ereport(NOTICE,
				(errmsg("deleted " INT64_FORMAT " rows of table %s", x->rows - before, name)));
}

/* about a batch of them; returns the next block, InvalidBlockNumber at the end */
static BlockNumber
find_rows(Expire *x, Relation rel, BlockNumber from, ArrayType **tids)
{
	BlockNumber end = RelationGetNumberOfBlocks(rel);
	BlockNumber step = Max(1, Min(MAX_STEP, x->batch_rows / ROWS_PER_BLOCK));
	BlockNumber first = from;
	AttrNumber	attno = get_attnum(RelationGetRelid(rel), x->event_time);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Datum	   *found;
	ItemPointer items;
	int			n = 0;

	found = palloc(sizeof(Datum) * (x->batch_rows + (Size) step * MaxHeapTuplesPerPage));
	items = palloc(sizeof(ItemPointerData) * (x->batch_rows + (Size) step * MaxHeapTuplesPerPage));
	while (from < end && n < x->batch_rows && from - first < MAX_BLOCKS)
	{
		ItemPointerData mintid;
		ItemPointerData maxtid;
		TableScanDesc scan;
		BlockNumber last = Min(from + step, end) - 1;

		ItemPointerSet(&mintid, from, FirstOffsetNumber);
		ItemPointerSet(&maxtid, last, MaxOffsetNumber);
		scan = table_beginscan_tidrange(rel, GetActiveSnapshot(), &mintid, &maxtid);
		while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
		{
			bool		isnull;
			Datum		value = slot_getattr(slot, attno, &isnull);

			CHECK_FOR_INTERRUPTS();
			if (isnull || sx_event_time(value, x->type) >= x->limit)
				continue;
			items[n] = slot->tts_tid;
			found[n] = PointerGetDatum(&items[n]);
			n++;
		}
		table_endscan(scan);
		from = last + 1;
	}
	ExecDropSingleTupleTableSlot(slot);
	if (n > 0)
		*tids = construct_array(found, n, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT);
	pfree(found);
	pfree(items);
	return from < end ? from : InvalidBlockNumber;
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}
