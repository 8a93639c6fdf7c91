/*
 * verify.c
 *		streamext.verify(view): compares a view with its query run on the raw rows.
 *
 * Both must stand at the same set of transactions.  The view is flushed; then one snapshot
 * gives its stored position and its materialized rows, which change in one transaction, and
 * live state is left out.  The query runs with a snapshot made from that position.
 *
 * The results are compared as multisets: both are sorted, columns that are floats last, and
 * merged.  Floats that differ by rounding are equal: sums depend on the order of the rows.
 * Columns of types without an order are compared by their text.
 *
 * The query and everything that handles its values run as the view's owner, inside SxRunAs;
 * the caller gets rows that reading the view would show as well.  Rows that were updated or
 * deleted, which a view does not follow, show up as differences, and so do dead letters, but for rows that
 * fail the stream's condition: those are left out of the query (query/row_filter.c).
 *
 * Of sessions the query says only which rows are compared; verify_sessions.c puts them together.
 *
 * Nothing is written, and no lock is held but those of reading.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/sortsupport.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "capture/event_time.h"
#include "ddl/ddl.h"
#include "live/live_read.h"
#include "monitor/verify_sessions.h"
#include "query/plan.h"
#include "query/row_json.h"
#include "query/row_filter.h"
#include "query/view_columns.h"
#include "query/window_key.h"
#include "time/final.h"
#include "worker/worker.h"

/* rows fetched at a time */
#define FETCH_COUNT		1000
/* relative difference of floats that counts as rounding */
#define FLOAT8_TOLERANCE	1e-9
#define FLOAT4_TOLERANCE	1e-4

/* How a result's columns are compared */
typedef struct Comparison
{
	TupleDesc	desc;			/* of the view */
	TupleDesc	sort_desc;		/* the same, columns without an order as text */
	FmgrInfo   *out;			/* [natts] output function of those; fn_oid 0: as it is */
	int			nkeys;			/* = natts: floats last */
	AttrNumber *attnums;		/* [nkeys] */
	Oid		   *sortops;
	Oid		   *collations;
	bool	   *nulls_first;
	SortSupport sort;			/* [nkeys] */
	double	   *tolerance;		/* [nkeys], 0: exact */
	FmgrInfo	to_jsonb;		/* of a row of sort_desc */
	SxWindows  *removed;		/* rows of these windows do not count; NULL: all do */
	AttrNumber	window;			/* in this column */
} Comparison;

PG_FUNCTION_INFO_V1(sx_verify);

static void note_other_conditions(const SxViewDef *def, const SxStoredPosition *stored);
static Comparison *make_comparison(Oid viewid);
static Tuplesortstate *begin_sort(Comparison *cmp);
static Tuplesortstate *run_sorted(Comparison *cmp, Oid relid, Snapshot snapshot);
static int64 expired_until(const SxViewDef *def);
static void leave_out_removed(Comparison *cmp, const SxViewDef *def, int64 removed_until);
static bool next_row(Comparison *cmp, Tuplesortstate *sort, TupleTableSlot *slot);
static Tuplesortstate *run_on_valid(Comparison *cmp, const SxViewDef *def, Snapshot snapshot);
static Tuplesortstate *run_query(Comparison *cmp, const SxViewDef *def, Snapshot snapshot);
static void put_sorted(Comparison *cmp, Tuplesortstate *sort, TupleTableSlot *slot);
static int	compare_rows(Comparison *cmp, TupleTableSlot *a, TupleTableSlot *b);
static int	compare_floats(Oid type, Datum a, Datum b, double tolerance);
static void put_difference(ReturnSetInfo *rsinfo, Comparison *cmp, const char *source,
						   TupleTableSlot *slot);

Datum
sx_verify(PG_FUNCTION_ARGS)
{
	Oid			viewid = PG_GETARG_OID(0);
	SxViewDef  *def = sx_view_for_user(viewid, false);
	ReturnSetInfo *rsinfo;
	SxStoredPosition *stored;
	Snapshot	now;
	Snapshot	at_position;
	SxRunAs		run_as;
	int64		expired;
	Comparison *cmp;
	Tuplesortstate *in_view;
	Tuplesortstate *in_query;
	TupleTableSlot *view_slot;
	TupleTableSlot *query_slot;
	bool		more_view;
	bool		more_query;
	char	   *blocker = NULL;
	char	   *name = get_rel_name(viewid);

	InitMaterializedSRF(fcinfo, 0);
	rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot verify a continuous view during recovery"),
				 errhint("Verify it on the primary.")));
	if (!def->with_data)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot verify continuous view \"%s\"", name),
				 errdetail("It was created WITH NO DATA: it leaves out rows that its query on the raw rows counts.")));
	/* the statement's snapshot, which is older, holds the rows that the position will see */
	if (!sx_wait(viewid, sx_wait_timeout, true, &blocker))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" did not catch up within %d ms", name, sx_wait_timeout),
				 blocker ? errdetail("%s", blocker) : 0,
				 errhint("See reason in streamext.status, or raise streamext.wait_timeout.")));

	now = RegisterSnapshot(GetLatestSnapshot());
	stored = sx_catalog_position_at(viewid, now);
	if (stored == NULL || !stored->ours)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" has no stored position yet", name),
				 errhint("Wait until its state in streamext.status is live.")));
	if (stored->scan != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" is being brought up by a scan of its stream", name),
				 errhint("Wait until its state in streamext.status is live.")));
	at_position = sx_position_to_snapshot(stored->position);

	sx_run_as_begin(&run_as, def);
	cmp = make_comparison(viewid);
	expired = expired_until(def);
	leave_out_removed(cmp, def, Max(stored->removed_until, expired));
	in_view = NULL;
	/* a view that shows closed windows only is compared as a whole */
	sx_live_read_disabled = sx_all_is_final = true;
	PG_TRY();
	{
		in_view = run_sorted(cmp, viewid, now);
	}
	PG_FINALLY();
	{
		sx_live_read_disabled = sx_all_is_final = false;
	}
	PG_END_TRY();
	note_other_conditions(def, stored);
	in_query = run_on_valid(cmp, def, at_position);

	view_slot = MakeSingleTupleTableSlot(cmp->sort_desc, &TTSOpsMinimalTuple);
	query_slot = MakeSingleTupleTableSlot(cmp->sort_desc, &TTSOpsMinimalTuple);
	more_view = next_row(cmp, in_view, view_slot);
	more_query = next_row(cmp, in_query, query_slot);
	while (more_view || more_query)
	{
		int			order;

		CHECK_FOR_INTERRUPTS();
		if (!more_view)
			order = 1;
		else if (!more_query)
			order = -1;
		else
			order = compare_rows(cmp, view_slot, query_slot);

		if (order < 0)
			put_difference(rsinfo, cmp, "view", view_slot);
		else if (order > 0)
			put_difference(rsinfo, cmp, "query", query_slot);
		if (order <= 0)
			more_view = next_row(cmp, in_view, view_slot);
		if (order >= 0)
			more_query = next_row(cmp, in_query, query_slot);
	}
	ExecDropSingleTupleTableSlot(view_slot);
	ExecDropSingleTupleTableSlot(query_slot);
	tuplesort_end(in_view);
	tuplesort_end(in_query);
	sx_run_as_end(&run_as);
	UnregisterSnapshot(now);
	return (Datum) 0;
}

/* which rows were judged by which condition, nobody has written down */
static void
note_other_conditions(const SxViewDef *def, const SxStoredPosition *stored)
{
	SxStreamDef *stream = sx_catalog_stream(def->streamid);

	if (stream != NULL && stream->condition_by > stored->built_by)
		ereport(NOTICE,
				(errmsg("the condition of stream \"%s\" was changed after continuous view \"%s\" was built",
						get_rel_name(def->streamid), get_rel_name(def->viewid)),
				 errdetail("Rows that were read before were judged by the condition of that time: they may differ.")));
}

static Comparison *
make_comparison(Oid viewid)
{
	Comparison *cmp = palloc0(sizeof(Comparison));
	Relation	rel = relation_open(viewid, AccessShareLock);
	int			natts;

	cmp->desc = CreateTupleDescCopy(RelationGetDescr(rel));
	relation_close(rel, AccessShareLock);
	natts = cmp->desc->natts;
	cmp->sort_desc = CreateTupleDescCopy(cmp->desc);
	cmp->out = palloc0(sizeof(FmgrInfo) * Max(natts, 1));
	cmp->attnums = palloc(sizeof(AttrNumber) * Max(natts, 1));
	cmp->sortops = palloc(sizeof(Oid) * Max(natts, 1));
	cmp->collations = palloc(sizeof(Oid) * Max(natts, 1));
	cmp->nulls_first = palloc0(sizeof(bool) * Max(natts, 1));
	cmp->sort = palloc0(sizeof(SortSupportData) * Max(natts, 1));
	cmp->tolerance = palloc0(sizeof(double) * Max(natts, 1));

	/* first pass: all but floats; second pass: floats */
	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(cmp->sort_desc, i);
			bool		is_float = att->atttypid == FLOAT4OID || att->atttypid == FLOAT8OID;
			Oid			collation = att->attcollation;
			Oid			ltop;
			int			k = cmp->nkeys;

			if (is_float != (pass == 1))
				continue;
			ltop = lookup_type_cache(att->atttypid, TYPECACHE_LT_OPR)->lt_opr;
			if (!OidIsValid(ltop))
			{
				Oid			out;
				bool		varlena;

				getTypeOutputInfo(att->atttypid, &out, &varlena);
				fmgr_info(out, &cmp->out[i]);
				TupleDescInitEntry(cmp->sort_desc, i + 1, NameStr(TupleDescAttr(cmp->desc, i)->attname),
								   TEXTOID, -1, 0);
				TupleDescInitEntryCollation(cmp->sort_desc, i + 1, C_COLLATION_OID);
				ltop = lookup_type_cache(TEXTOID, TYPECACHE_LT_OPR)->lt_opr;
				collation = C_COLLATION_OID;
			}
			cmp->attnums[k] = i + 1;
			cmp->sortops[k] = ltop;
			cmp->collations[k] = collation;
			if (is_float)
				cmp->tolerance[k] = att->atttypid == FLOAT4OID ? FLOAT4_TOLERANCE : FLOAT8_TOLERANCE;
			cmp->sort[k].ssup_cxt = CurrentMemoryContext;
			cmp->sort[k].ssup_collation = collation;
			cmp->sort[k].ssup_nulls_first = false;
			cmp->sort[k].ssup_attno = i + 1;
			PrepareSortSupportFromOrderingOp(ltop, &cmp->sort[k]);
			cmp->nkeys++;
		}
	}

	cmp->sort_desc->tdtypeid = RECORDOID;
	cmp->sort_desc->tdtypmod = -1;
	cmp->sort_desc = BlessTupleDesc(cmp->sort_desc);
	sx_row_json_function(&cmp->to_jsonb, cmp->sort_desc);
	return cmp;
}

/* raw rows that are gone, the view keeps; windows that had ended by then cannot be compared */
static int64
expired_until(const SxViewDef *def)
{
	SxStreamDef *stream = sx_catalog_stream(def->streamid);

	if (stream == NULL || stream->expired_until == SX_TIME_NONE)
		return SX_TIME_NONE;
	ereport(NOTICE,
			(errmsg("raw rows of stream \"%s\" before %s are gone", get_rel_name(def->streamid),
					sx_event_time_text(stream->expired_until, stream->time.type)),
			 errdetail("Windows that had ended by then are not compared; everything else that has counted such rows differs.")));
	return stream->expired_until;
}

/* windows past the view's retention: some may still be in its table, and the raw rows of some may be there */
static void
leave_out_removed(Comparison *cmp, const SxViewDef *def, int64 removed_until)
{
	SxViewInfo *info;
	char	   *column;

	if (removed_until == SX_TIME_NONE)
		return;
	info = sx_view_info_create(def, CurrentMemoryContext);
	column = info->window_key >= 0 ? sx_view_key_column(def, info->window_key) : NULL;
	if (column == NULL)
		return;
	cmp->window = get_attnum(def->viewid, column);
	cmp->removed = sx_windows_create(info, CurrentMemoryContext);
	(void) sx_windows_set_time(cmp->removed, removed_until);
}

/* the next row that counts; false: there is none */
static bool
next_row(Comparison *cmp, Tuplesortstate *sort, TupleTableSlot *slot)
{
	while (tuplesort_gettupleslot(sort, true, false, slot, NULL))
	{
		bool		isnull;
		Datum		window;

		if (cmp->removed == NULL)
			return true;
		window = slot_getattr(slot, cmp->window, &isnull);
		if (!sx_window_is_closed(cmp->removed, window, isnull))
			return true;
	}
	return false;
}

static Tuplesortstate *
begin_sort(Comparison *cmp)
{
	return tuplesort_begin_heap(cmp->sort_desc, cmp->nkeys, cmp->attnums, cmp->sortops,
								cmp->collations, cmp->nulls_first, work_mem, NULL,
								TUPLESORT_NONE);
}

/* without rows that fail the stream's condition */
static Tuplesortstate *
run_on_valid(Comparison *cmp, const SxViewDef *def, Snapshot snapshot)
{
	SxRowFilter *filter = sx_row_filter_create(def->streamid, snapshot, NULL, NULL);
	Tuplesortstate *volatile result = NULL;

	PG_TRY();
	{
		sx_row_filter_begin(filter);
		result = run_query(cmp, def, snapshot);
	}
	PG_FINALLY();
	{
		sx_row_filter_end();
	}
	PG_END_TRY();
	return result;
}

/* the view's query; which rows are one session, no query by itself says */
static Tuplesortstate *
run_query(Comparison *cmp, const SxViewDef *def, Snapshot snapshot)
{
	SxViewInfo *info = sx_view_info_create(def, CurrentMemoryContext);
	Tuplesortstate *sort;
	Tuplestorestate *rows;
	TupleTableSlot *row;
	TupleTableSlot *slot;
	MemoryContext row_context;

	if (info->session_key < 0)
	{
		sx_view_info_destroy(info);
		return run_sorted(cmp, def->queryid, snapshot);
	}

	sx_all_is_final = true;
	PG_TRY();
	{
		rows = sx_recompute_sessions(info, snapshot, cmp->desc);
	}
	PG_FINALLY();
	{
		sx_all_is_final = false;
	}
	PG_END_TRY();
	row = MakeSingleTupleTableSlot(cmp->desc, &TTSOpsMinimalTuple);
	slot = MakeSingleTupleTableSlot(cmp->sort_desc, &TTSOpsVirtual);
	row_context = AllocSetContextCreate(CurrentMemoryContext, "streamext verify row", ALLOCSET_DEFAULT_SIZES);
	sort = begin_sort(cmp);
	while (tuplestore_gettupleslot(rows, true, false, row))
	{
		MemoryContext old = MemoryContextSwitchTo(row_context);

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(row);
		ExecClearTuple(slot);
		memcpy(slot->tts_values, row->tts_values, sizeof(Datum) * cmp->desc->natts);
		memcpy(slot->tts_isnull, row->tts_isnull, sizeof(bool) * cmp->desc->natts);
		put_sorted(cmp, sort, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row_context);
	}
	ExecDropSingleTupleTableSlot(row);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(row_context);
	tuplestore_end(rows);
	sx_view_info_destroy(info);
	tuplesort_performsort(sort);
	return sort;
}

/* the slot's values are those of the view: columns without an order become text */
static void
put_sorted(Comparison *cmp, Tuplesortstate *sort, TupleTableSlot *slot)
{
	for (int i = 0; i < cmp->desc->natts; i++)
	{
		if (!slot->tts_isnull[i] && OidIsValid(cmp->out[i].fn_oid))
			slot->tts_values[i] = CStringGetTextDatum(OutputFunctionCall(&cmp->out[i], slot->tts_values[i]));
	}
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(sort, slot);
}

/* all rows of a relation as this snapshot sees them */
static Tuplesortstate *
run_sorted(Comparison *cmp, Oid relid, Snapshot snapshot)
{
	Tuplesortstate *sort;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(cmp->sort_desc, &TTSOpsVirtual);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "streamext verify row",
													  ALLOCSET_DEFAULT_SIZES);
	int			natts = cmp->desc->natts;
	StringInfoData sql;
	SPIPlanPtr	plan;
	Portal		portal;

	sort = begin_sort(cmp);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM %s",
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
												get_rel_name(relid)));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PushActiveSnapshot(snapshot);
	plan = SPI_prepare(sql.data, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	/* read-only: it takes the active snapshot */
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_COUNT);
		if (SPI_processed == 0)
			break;
		if (SPI_tuptable->tupdesc->natts != natts)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("relation \"%s\" has %d columns, expected %d",
							get_rel_name(relid), SPI_tuptable->tupdesc->natts, natts)));
		for (uint64 row = 0; row < SPI_processed; row++)
		{
			MemoryContext old;

			CHECK_FOR_INTERRUPTS();
			MemoryContextReset(row_context);
			old = MemoryContextSwitchTo(row_context);
			ExecClearTuple(slot);
			heap_deform_tuple(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
							  slot->tts_values, slot->tts_isnull);
			put_sorted(cmp, sort, slot);
			MemoryContextSwitchTo(old);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	PopActiveSnapshot();
	SPI_finish();

	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(row_context);
	tuplesort_performsort(sort);
	return sort;
}

static int
compare_rows(Comparison *cmp, TupleTableSlot *a, TupleTableSlot *b)
{
	slot_getallattrs(a);
	slot_getallattrs(b);
	for (int k = 0; k < cmp->nkeys; k++)
	{
		int			i = cmp->attnums[k] - 1;
		int			order;

		if (cmp->tolerance[k] > 0 && !a->tts_isnull[i] && !b->tts_isnull[i])
			order = compare_floats(TupleDescAttr(cmp->desc, i)->atttypid,
								   a->tts_values[i], b->tts_values[i], cmp->tolerance[k]);
		else
			order = ApplySortComparator(a->tts_values[i], a->tts_isnull[i],
										b->tts_values[i], b->tts_isnull[i], &cmp->sort[k]);
		if (order != 0)
			return order;
	}
	return 0;
}

static int
compare_floats(Oid type, Datum a, Datum b, double tolerance)
{
	double		x = type == FLOAT4OID ? DatumGetFloat4(a) : DatumGetFloat8(a);
	double		y = type == FLOAT4OID ? DatumGetFloat4(b) : DatumGetFloat8(b);

	/* NaN sorts last and equals itself, as in SQL */
	if (isnan(x) || isnan(y))
		return (int) isnan(x) - (int) isnan(y);
	if (x == y || (!isinf(x) && !isinf(y) &&
				   fabs(x - y) <= tolerance * Max(1.0, Max(fabs(x), fabs(y)))))
		return 0;
	return x < y ? -1 : 1;
}

static void
put_difference(ReturnSetInfo *rsinfo, Comparison *cmp, const char *source, TupleTableSlot *slot)
{
	Datum		values[2];
	bool		nulls[2] = {false, false};
	HeapTuple	tup;

	slot_getallattrs(slot);
	tup = heap_form_tuple(cmp->sort_desc, slot->tts_values, slot->tts_isnull);
	values[0] = CStringGetTextDatum(source);
	values[1] = FunctionCall1(&cmp->to_jsonb, heap_copy_tuple_as_datum(tup, cmp->sort_desc));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	pfree(DatumGetPointer(values[1]));
	heap_freetuple(tup);
}
