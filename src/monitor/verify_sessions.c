/*
 * verify_sessions.c
 *		What a view of sessions must show, computed from the raw rows.
 *
 * Run by hand, a query with session() is an error: it does not say by itself which rows are one
 * session.  So the view's history is computed as for a new view, by its own plan, which groups by the
 * session that each row would be alone.  These are sorted by group and time, and those that overlap
 * are put together.  The result has the form of the materialized table, and takes its place in the
 * query of the view, so that HAVING and expressions are the view's own.
 *
 * What is shared with the view is the plan, the order of ranges and the aggregates' combine functions;
 * not live state, the writing of the table, and reading.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "live/merge.h"
#include "monitor/verify_sessions.h"
#include "query/plan.h"

/* in place of the materialized table */
#define ROWS_NAME "streamext_sessions"

static void keep_row(void *arg, TupleTableSlot *row);
static Tuplestorestate *unite(SxViewInfo *info, Tuplestorestate *rows);
static void put_session(Tuplestorestate *sessions, SxViewInfo *info, TupleTableSlot *session, TupleTableSlot *full);
static Query *view_query(SxViewInfo *info, double nrows);

Tuplestorestate *
sx_recompute_sessions(SxViewInfo *info, Snapshot snapshot, TupleDesc desc)
{
	Tuplestorestate *alone = tuplestore_begin_heap(false, false, work_mem);
	Tuplestorestate *sessions;
	Tuplestorestate *result = tuplestore_begin_heap(false, false, work_mem);
	EphemeralNamedRelation rows = palloc0(sizeof(EphemeralNamedRelationData));
	QueryEnvironment *environment = create_queryEnv();
	DestReceiver *receiver = CreateDestReceiver(DestTuplestore);
	PlannedStmt *stmt;
	QueryDesc  *query;

	PushActiveSnapshot(snapshot);
	sx_plan_run_history(sx_plan_create(info), NULL, keep_row, alone);
	sessions = unite(info, alone);
	tuplestore_end(alone);

	rows->md.name = ROWS_NAME;
	rows->md.reliddesc = InvalidOid;
	rows->md.tupdesc = info->desc;
	rows->md.enrtype = ENR_NAMED_TUPLESTORE;
	rows->md.enrtuples = tuplestore_tuple_count(sessions);
	rows->reldata = sessions;
	register_ENR(environment, rows);
	stmt = pg_plan_query(view_query(info, rows->md.enrtuples), "streamext verify", 0, NULL);
	SetTuplestoreDestReceiverParams(receiver, result, CurrentMemoryContext, true, desc,
									"the view's query has other columns than the view");
	query = CreateQueryDesc(stmt, "streamext verify", snapshot, InvalidSnapshot, receiver, NULL, environment, 0);
	ExecutorStart(query, 0);
	SxExecutorRun(query);
	ExecutorFinish(query);
	ExecutorEnd(query);
	FreeQueryDesc(query);
	receiver->rDestroy(receiver);
	tuplestore_end(sessions);
	PopActiveSnapshot();
	return result;
}

static void
keep_row(void *arg, TupleTableSlot *row)
{
	tuplestore_puttupleslot((Tuplestorestate *) arg, row);
}

/* rows of one group that overlap become one */
static Tuplestorestate *
unite(SxViewInfo *info, Tuplestorestate *rows)
{
	Tuplestorestate *result = tuplestore_begin_heap(false, false, work_mem);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext verify sessions",
												  ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *row = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *session = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *sum = MakeSingleTupleTableSlot(info->desc, &TTSOpsVirtual);
	Tuplesortstate *sort = sx_sort_rows(info, rows, info->session_key, true, work_mem, row);
	SxSpan		span = {0};

	while (tuplesort_gettupleslot(sort, true, false, row, NULL))
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);
		SxSpan		next = sx_row_span(info, row);

		CHECK_FOR_INTERRUPTS();
		if (!TTS_EMPTY(session) && sx_keys_equal(info, session, row) && sx_spans_meet(&span, &next))
		{
			sx_combine_rows(info, session, row, sum);
			MemoryContextSwitchTo(old);
			ExecStoreMinimalTuple(sx_flatten_row(info, sum), session, true);
			ExecClearTuple(sum);
			span = sx_span_union(&span, &next);
			for (int i = 0; i < info->naggs; i++)
				sx_agg_reset(info->aggs[i]);
		}
		else
		{
			MemoryContextSwitchTo(old);
			if (!TTS_EMPTY(session))
				put_session(result, info, session, sum);
			ExecCopySlot(session, row);
			span = next;
		}
		MemoryContextReset(scratch);
	}
	if (!TTS_EMPTY(session))
		put_session(result, info, session, sum);
	tuplesort_end(sort);
	ExecDropSingleTupleTableSlot(row);
	ExecDropSingleTupleTableSlot(session);
	ExecDropSingleTupleTableSlot(sum);
	MemoryContextDelete(scratch);
	return result;
}

/* as the table would have it; what it leaves in the current context is small */
static void
put_session(Tuplestorestate *sessions, SxViewInfo *info, TupleTableSlot *session, TupleTableSlot *full)
{
	ExecCopySlot(full, session);
	sx_compute_results(info, full, NULL);
	tuplestore_puttupleslot(sessions, full);
	ExecClearTuple(full);
}

/* the query of the view, with the rows in place of the table */
static Query *
view_query(SxViewInfo *info, double nrows)
{
	Relation	view = table_open(info->def->viewid, AccessShareLock);
	Query	   *query = copyObject(get_view_query(view));
	List	   *rewritten;
	ListCell   *lc;

	table_close(view, NoLock);
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind != RTE_RELATION || rte->relid != info->def->matid)
			continue;
		rte->rtekind = RTE_NAMEDTUPLESTORE;
		rte->relid = InvalidOid;
		rte->relkind = 0;
		rte->rellockmode = 0;
		rte->inh = false;
		rte->enrname = ROWS_NAME;
		rte->enrtuples = nrows;
		SxDropPermissions(rte);
		for (int i = 0; i < info->desc->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(info->desc, i);

			rte->coltypes = lappend_oid(rte->coltypes, att->atttypid);
			rte->coltypmods = lappend_int(rte->coltypmods, att->atttypmod);
			rte->colcollations = lappend_oid(rte->colcollations, att->attcollation);
		}
	}
	AcquireRewriteLocks(query, true, false);
	rewritten = QueryRewrite(query);
	if (list_length(rewritten) != 1)
		elog(ERROR, "unexpected rewrite result of a SELECT");
	return linitial_node(Query, rewritten);
}
