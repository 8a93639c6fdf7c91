/*
 * plan_run.c
 *		Locks and runs delta plans, and keeps them until something they depend on changes.
 *
 * Invalidation callbacks only mark a plan stale; it is dropped and built again at its
 * next use.  The check comes after the locks are taken, because taking them is what
 * delivers invalidations.
 *
 * A run is ExecutorStart to ExecutorEnd each time: four microseconds for one row, while
 * a rescan would replay the old hash table.
 *
 * Locks: AccessShareLock on everything in the range table, until the transaction ends.
 * With wait = false nothing here ever waits for a lock, also when a plan has to be built:
 * what the planner will open is found and locked first, conditionally.
 */
#include "query/plan_internal.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "query/analyze.h"
#include "query/session.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* from here on the plan for many rows is used */
#define MANY_FROM	700

typedef struct Receiver
{
	DestReceiver pub;
	SxPlan	   *plan;
	SxRowSink	sink;
	void	   *arg;
	MemoryContext caller;		/* the sink runs in it */
	MemoryContext scratch;		/* reset for each row */
	TupleTableSlot *row;
} Receiver;

/* in the midst of it */
static QueryDesc *running = NULL;

/* What is found and locked before a plan is built */
typedef struct LockWalk
{
	Oid			stream;
	bool		wait;
	Oid			blocked_by;		/* the relation whose lock is not free */
	List	   *seen;
} LockWalk;

static dlist_head all_plans = DLIST_STATIC_INIT(all_plans);
static bool callbacks_registered = false;

static void forget_plan(void *arg);
static void relation_changed(Datum arg, Oid relid);
static void object_changed(Datum arg, int cacheid, uint32 hashvalue);
static void anything_changed(Datum arg, int cacheid, uint32 hashvalue);
static void refresh(SxPlan *plan);
static void build_all(SxPlan *plan);
static bool lock_for_build(SxPlan *plan, bool wait, Oid *blocked_by);
static bool lookup_walker(Node *node, SxViewDef *def);
static bool lock_walker(Node *node, LockWalk *walk);
static bool lock_relation_tree(Oid relid, LockWalk *walk);
static bool lock_one(Oid relid, LockWalk *walk);
static bool lock_built(SxBuiltPlan *built, bool wait, Oid *blocked_by);
static SxPlanVariant variant_for(SxBatch *batch);
static void run_on(SxPlan *plan, PlannedStmt *stmt, SxBatch *batch, SxRowSink sink, void *arg);
static void run(SxPlan *plan, PlannedStmt *stmt, void (*started) (void *arg), SxRowSink sink, void *arg);
static void receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo);
static bool receive_row(TupleTableSlot *slot, DestReceiver *self);
static void receiver_shutdown(DestReceiver *self);
static void run_as(SxRunAs *r, Oid role);
static void set_setting(const char *name, const char *value);

SxPlan *
sx_plan_create(SxViewInfo *info)
{
	SxPlan	   *plan = MemoryContextAllocZero(info->context, sizeof(SxPlan));
	MemoryContextCallback *callback = MemoryContextAllocZero(info->context, sizeof(MemoryContextCallback));

	if (!callbacks_registered)
	{
		static const int kinds[] = {NAMESPACEOID, OPEROID, AMOPOPID, AUTHOID, FOREIGNSERVEROID,
		FOREIGNDATAWRAPPEROID};

		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, object_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, object_changed, (Datum) 0);
		for (int i = 0; i < lengthof(kinds); i++)
			CacheRegisterSyscacheCallback(kinds[i], anything_changed, (Datum) 0);
		callbacks_registered = true;
	}

	plan->info = info;
	plan->own_key = info->closed_key;
	if (info->def->strategy == SX_MERGE && info->nkeys == 1 &&
		sx_analyze_stored(info->def->queryid, info->def->streamid)->keys == NIL)
	{
		plan->own_key = 0;
		plan->own_value = true;
	}
	dlist_push_tail(&all_plans, &plan->node);
	callback->func = forget_plan;
	callback->arg = plan;
	MemoryContextRegisterResetCallback(info->context, callback);
	return plan;
}

static void
forget_plan(void *arg)
{
	dlist_delete(&((SxPlan *) arg)->node);
}

/* ---- invalidation: flags only ---- */

static void
relation_changed(Datum arg, Oid relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_plans)
	{
		SxPlan	   *plan = dlist_container(SxPlan, node, iter.cur);

		for (int i = 0; i < SX_PLAN_KEPT && !plan->stale; i++)
			if (plan->plans[i].context != NULL &&
				(relid == InvalidOid || list_member_oid(plan->plans[i].stmt->relationOids, relid)))
				plan->stale = true;
	}
}

static void
object_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_plans)
	{
		SxPlan	   *plan = dlist_container(SxPlan, node, iter.cur);

		for (int i = 0; i < SX_PLAN_KEPT && !plan->stale; i++)
		{
			ListCell   *lc;

			if (plan->plans[i].context == NULL)
				continue;
			foreach(lc, plan->plans[i].stmt->invalItems)
			{
				PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

				if (item->cacheId == cacheid && (hashvalue == 0 || item->hashValue == hashvalue))
					plan->stale = true;
			}
		}
	}
}

static void
anything_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_plans)
		dlist_container(SxPlan, node, iter.cur)->stale = true;
}

void
sx_plan_forget(SxBuiltPlan *built)
{
	if (built->context != NULL)
		MemoryContextDelete(built->context);
	built->context = NULL;
	built->stmt = NULL;
	built->relations = NIL;
	built->columns = NULL;
}

static void
refresh(SxPlan *plan)
{
	if (!plan->stale)
		return;
	for (int i = 0; i < SX_PLAN_KEPT; i++)
		sx_plan_forget(&plan->plans[i]);
	plan->stale = false;
}

/* ---- locks ---- */

bool
sx_plan_lock(SxPlan *plan, bool wait, Oid *blocked_by)
{
	for (;;)
	{
		refresh(plan);
		if (plan->plans[0].context == NULL)
		{
			if (!lock_for_build(plan, wait, blocked_by))
				return false;
		}
		else
		{
			for (int i = 0; i < SX_PLAN_KEPT; i++)
				if (!lock_built(&plan->plans[i], wait, blocked_by))
					return false;
		}
		if (!plan->stale)
			return true;
	}
}

static bool
lock_built(SxBuiltPlan *built, bool wait, Oid *blocked_by)
{
	ListCell   *lc;

	foreach(lc, built->relations)
	{
		Oid			relid = lfirst_oid(lc);

		if (wait)
			LockRelationOid(relid, AccessShareLock);
		else if (!ConditionalLockRelationOid(relid, AccessShareLock))
		{
			if (blocked_by != NULL)
				*blocked_by = relid;
			return false;
		}
	}
	return true;
}

static bool
lock_for_build(SxPlan *plan, bool wait, Oid *blocked_by)
{
	LockWalk	walk = {0};

	walk.stream = plan->info->def->streamid;
	walk.wait = wait;
	if (lock_one(plan->info->def->queryid, &walk) &&
		!lock_walker((Node *) sx_plan_query(plan, SX_PLAN_FEW), &walk))
		return true;
	if (blocked_by != NULL)
		*blocked_by = walk.blocked_by;
	return false;
}

bool
sx_plan_has_lookups(SxPlan *plan)
{
	return lookup_walker((Node *) sx_plan_query(plan, SX_PLAN_FEW), plan->info->def);
}

/* nothing between the rows and their groups */
bool
sx_plan_keeps_rows(SxPlan *plan)
{
	for (int i = 0; i < SX_PLAN_KEPT; i++)
	{
		Plan	   *p = plan->plans[i].stmt->planTree;

		while (IsA(p, Agg) || IsA(p, Sort))
			p = p->lefttree;
		if (!sx_is_delta_scan(p))
			return false;
	}
	return true;
}

Bitmapset *
sx_plan_columns(SxPlan *plan, Bitmapset *columns)
{
	for (int i = 0; i < SX_PLAN_KEPT; i++)
		columns = bms_add_members(columns, plan->plans[i].columns);
	return columns;
}

static bool
lookup_walker(Node *node, SxViewDef *def)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		ListCell   *lc;

		foreach(lc, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			/* a view's query names the view itself, as OLD and NEW */
			if (rte->rtekind == RTE_RELATION && rte->relid != def->streamid && rte->relid != def->queryid)
				return true;
		}
		return query_tree_walker((Query *) node, lookup_walker, def, 0);
	}
	return expression_tree_walker(node, lookup_walker, def);
}

/* true: stop, a lock is not free */
static bool
lock_walker(Node *node, LockWalk *walk)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		ListCell   *lc;

		foreach(lc, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_RELATION && !lock_relation_tree(rte->relid, walk))
				return true;
		}
		return query_tree_walker((Query *) node, lock_walker, walk, 0);
	}
	return expression_tree_walker(node, lock_walker, walk);
}

/* the relation, its indexes, its children, and what a view reads */
static bool
lock_relation_tree(Oid relid, LockWalk *walk)
{
	char		relkind;
	Relation	rel;
	ListCell   *lc;
	List	   *indexes;
	bool		result = true;

	if (list_member_oid(walk->seen, relid))
		return true;
	check_stack_depth();
	walk->seen = lappend_oid(walk->seen, relid);
	if (!lock_one(relid, walk))
		return false;

	relkind = get_rel_relkind(relid);
	if (relkind == RELKIND_VIEW)
	{
		Query	   *query;

		/* the old and new entries of the stored query itself are not expanded */
		rel = relation_open(relid, NoLock);
		query = copyObject(get_view_query(rel));
		relation_close(rel, NoLock);
		return !lock_walker((Node *) query, walk);
	}
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE &&
		relkind != RELKIND_MATVIEW)
		return true;

	rel = relation_open(relid, NoLock);
	indexes = RelationGetIndexList(rel);
	relation_close(rel, NoLock);
	foreach(lc, indexes)
		result = result && lock_one(lfirst_oid(lc), walk);
	if (relid != walk->stream && relkind != RELKIND_MATVIEW)
	{
		foreach(lc, find_inheritance_children(relid, NoLock))
			result = result && lock_relation_tree(lfirst_oid(lc), walk);
	}
	return result;
}

static bool
lock_one(Oid relid, LockWalk *walk)
{
	if (walk->wait)
		LockRelationOid(relid, AccessShareLock);
	else if (!ConditionalLockRelationOid(relid, AccessShareLock))
	{
		walk->blocked_by = relid;
		return false;
	}
	return true;
}

/* ---- running ---- */

void
sx_plan_run(SxPlan *plan, SxBatch *batch, SxRowSink sink, void *arg)
{
	build_all(plan);
	run_on(plan, plan->plans[variant_for(batch)].stmt, batch, sink, arg);
}

static void
run_on(SxPlan *plan, PlannedStmt *stmt, SxBatch *batch, SxRowSink sink, void *arg)
{
	SxBatch    *outer = sx_delta_batch;

	PG_TRY();
	{
		sx_delta_batch = batch;
		run(plan, stmt, NULL, sink, arg);
	}
	PG_FINALLY();
	{
		sx_delta_batch = outer;
	}
	PG_END_TRY();
}

/*
 * All variants, so that no later run has to wait for the lock of an index that only the
 * other one opens.  The locks are mostly held already and cost little.
 */
static void
build_all(SxPlan *plan)
{
	LockRelationOid(plan->info->def->streamid, AccessShareLock);
	for (;;)
	{
		(void) sx_plan_lock(plan, true, NULL);
		if (plan->plans[0].context != NULL)
			return;
		/* the first one last: it says that all are there */
		for (int i = SX_PLAN_KEPT - 1; i >= 0; i--)
		{
			sx_plan_forget(&plan->plans[i]);
			sx_plan_build(plan, i, NULL, &plan->plans[i]);
		}
	}
}

void
sx_plan_run_history(SxPlan *plan, void (*started) (void *arg), SxRowSink sink, void *arg)
{
	SxBuiltPlan built = {0};

	LockRelationOid(plan->info->def->streamid, AccessShareLock);
	(void) sx_plan_lock(plan, true, NULL);
	sx_plan_build(plan, SX_PLAN_HISTORY, NULL, &built);
	run(plan, built.stmt, started, sink, arg);
	sx_plan_forget(&built);
}

double
sx_plan_history_cost(SxPlan *plan)
{
	SxBuiltPlan built = {0};
	double		cost;

	LockRelationOid(plan->info->def->streamid, AccessShareLock);
	(void) sx_plan_lock(plan, true, NULL);
	sx_plan_build(plan, SX_PLAN_HISTORY, NULL, &built);
	cost = built.stmt->planTree->total_cost;
	sx_plan_forget(&built);
	return cost;
}

double
sx_plan_range_groups(SxPlan *plan, const SxPartSize *part)
{
	SxBuiltPlan built = {0};
	Agg		   *agg;
	double		groups;

	LockRelationOid(plan->info->def->streamid, AccessShareLock);
	(void) sx_plan_lock(plan, true, NULL);
	sx_plan_build(plan, SX_PLAN_RANGES, part, &built);
	agg = (Agg *) built.stmt->planTree;
	groups = agg->plan.plan_rows;
	for (int i = 0; IsA(agg, Agg) && i < agg->numCols; i++)
	{
		TargetEntry *key = list_nth_node(TargetEntry, outerPlan(agg)->targetlist, agg->grpColIdx[i] - 1);

		if (!IsA(key->expr, Var))
			groups = 0;
	}
	sx_plan_forget(&built);
	return groups;
}

void
sx_plan_run_between(SxPlan *plan, const Datum *from, const Datum *to, SxRowSink sink, void *arg)
{
	plan->from = from;
	plan->to = to;
	sx_plan_run_history(plan, NULL, sink, arg);
	plan->from = plan->to = NULL;
}

void
sx_plan_run_ranges(SxPlan *plan, SxRanges *ranges, const SxPartSize *part, SxRowSink sink, void *arg)
{
	SxBuiltPlan built = {0};
	SxRanges   *outer = sx_ranges;

	LockRelationOid(plan->info->def->streamid, AccessShareLock);
	(void) sx_plan_lock(plan, true, NULL);
	PG_TRY();
	{
		sx_ranges = ranges;
		sx_plan_build(plan, SX_PLAN_RANGES, part, &built);
		run(plan, built.stmt, NULL, sink, arg);
	}
	PG_FINALLY();
	{
		sx_ranges = outer;
		sx_plan_forget(&built);
	}
	PG_END_TRY();
}

/*
 * How many groups the hash tables of a plan hold that runs in this process: those of parallel workers are taken to hold as many
 * as this one's; -1: there is none here, or some are on disk.
 */
double
sx_plan_groups_so_far(void)
{
	PlanState  *node = running ? running->planstate : NULL;
	int			processes = 1;

	while (node != NULL && !IsA(node, AggState))
	{
		if (IsA(node, SubqueryScanState))
			return -1;
		if (IsA(node, GatherState))
		{
			if (!((GatherState *) node)->need_to_scan_locally)
				return -1;
			processes += ((GatherState *) node)->nworkers_launched;
		}
		node = outerPlanState(node);
	}
	if (node == NULL || ((AggState *) node)->aggstrategy != AGG_HASHED || ((AggState *) node)->hash_ever_spilled)
		return -1;
	return (double) processes * ((AggState *) node)->hash_ngroups_current;
}

static SxPlanVariant
variant_for(SxBatch *batch)
{
	uint64		rows = batch->nrows;

	if (rows > batch->from)
		rows = Min(rows - batch->from, batch->limit);
	else
		rows = 0;
	return rows < MANY_FROM ? SX_PLAN_FEW : SX_PLAN_MANY;
}

static void
run(SxPlan *plan, PlannedStmt *stmt, void (*started) (void *arg), SxRowSink sink, void *arg)
{
	Receiver	receiver = {0};
	QueryDesc  *desc;
	QueryDesc  *outer = running;
	bool		session_allowed = sx_session_allowed;

	receiver.pub.receiveSlot = receive_row;
	receiver.pub.rStartup = receiver_startup;
	receiver.pub.rShutdown = receiver_shutdown;
	receiver.pub.rDestroy = receiver_shutdown;
	receiver.pub.mydest = DestNone;
	receiver.plan = plan;
	receiver.sink = sink;
	receiver.arg = arg;
	receiver.caller = CurrentMemoryContext;
	receiver.scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext delta row",
											 ALLOCSET_SMALL_SIZES);
	receiver.row = MakeSingleTupleTableSlot(plan->info->desc, &TTSOpsVirtual);

	desc = CreateQueryDesc(stmt, "streamext delta query", GetActiveSnapshot(), InvalidSnapshot,
						   &receiver.pub, NULL, NULL, 0);
	PG_TRY();
	{
		sx_session_allowed = true;
		ExecutorStart(desc, 0);
		if (started)
			started(arg);
		running = desc;
		SxExecutorRun(desc);
		ExecutorFinish(desc);
	}
	PG_FINALLY();
	{
		running = outer;
		sx_session_allowed = session_allowed;
	}
	PG_END_TRY();
	ExecutorEnd(desc);
	FreeQueryDesc(desc);

	ExecDropSingleTupleTableSlot(receiver.row);
	MemoryContextDelete(receiver.scratch);
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receiver_shutdown(DestReceiver *self)
{
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Receiver   *r = (Receiver *) self;
	SxViewInfo *info = r->plan->info;
	TupleTableSlot *row = r->row;
	int			own_key = r->plan->own_key;
	int			natts = info->desc->natts - info->nresults;
	int			from = 0;
	MemoryContext old;

	MemoryContextReset(r->scratch);
	slot_getallattrs(slot);
	ExecClearTuple(row);
	old = MemoryContextSwitchTo(r->scratch);
	for (int i = 0; i < natts; i++)
	{
		int			column = info->naggs > 0 && i >= info->nkeys ? info->states[i - info->nkeys] : i;
		Datum		value;
		bool		isnull;

		if (i == own_key)
		{
			row->tts_values[i] = BoolGetDatum(r->plan->own_value);
			row->tts_isnull[i] = false;
			continue;
		}
		value = slot->tts_values[from];
		isnull = slot->tts_isnull[from++];
		if (info->naggs > 0 && i >= info->nkeys)
			value = sx_agg_wrap(info->aggs[i - info->nkeys], value, isnull);
		row->tts_values[column] = value;
		row->tts_isnull[column] = isnull;
	}
	for (int i = 0; i < info->nresults; i++)
		row->tts_isnull[info->nkeys + info->results[i]] = true;
	ExecStoreVirtualTuple(row);
	MemoryContextSwitchTo(r->caller);
	r->sink(r->arg, row);
	MemoryContextSwitchTo(old);
	return true;
}

char *
sx_plan_explain(SxPlan *plan)
{
	ExplainState *es = NewExplainState();
	SxBatch    *outer = sx_delta_batch;
	SxFileMap  *map = sx_file_map_create(CurrentMemoryContext);
	QueryDesc  *desc;

	build_all(plan);
	es->costs = false;
	es->format = EXPLAIN_FORMAT_TEXT;
	PG_TRY();
	{
		sx_delta_batch = sx_batch_create(map, plan->info->def->streamid, NULL, 0, 0);
		desc = CreateQueryDesc(plan->plans[SX_PLAN_FEW].stmt, "streamext delta query",
							   GetActiveSnapshot(), InvalidSnapshot, None_Receiver, NULL, NULL, 0);
		ExecutorStart(desc, EXEC_FLAG_EXPLAIN_ONLY);
		ExplainBeginOutput(es);
		ExplainPrintPlan(es, desc);
		ExplainEndOutput(es);
		ExecutorEnd(desc);
		FreeQueryDesc(desc);
	}
	PG_FINALLY();
	{
		sx_delta_batch = outer;
	}
	PG_END_TRY();
	sx_file_map_destroy(map);

	if (es->str->len > 0 && es->str->data[es->str->len - 1] == '\n')
		es->str->data[--es->str->len] = '\0';
	return es->str->data;
}

/* ---- identity and settings ---- */

void
sx_run_as_begin(SxRunAs *r, const SxViewDef *def)
{
	ListCell   *lc;

	run_as(r, def->owner);
	set_setting("search_path", "pg_catalog, pg_temp");
	foreach(lc, def->settings)
	{
		char	   *setting = lfirst(lc);
		char	   *equals = strchr(setting, '=');
		char		name[NAMEDATALEN];

		if (equals == NULL || equals - setting >= NAMEDATALEN)
			continue;
		memcpy(name, setting, equals - setting);
		name[equals - setting] = '\0';
		set_setting(name, equals + 1);
	}
}

void
sx_run_as_table_owner(SxRunAs *r, Oid relid)
{
	run_as(r, sx_table_owner(relid));
}

static void
run_as(SxRunAs *r, Oid role)
{
	GetUserIdAndSecContext(&r->save_userid, &r->save_sec_context);
	SetUserIdAndSecContext(role, r->save_sec_context | SECURITY_RESTRICTED_OPERATION);
	r->save_nestlevel = NewGUCNestLevel();
}

void
sx_run_as_end(SxRunAs *r)
{
	AtEOXact_GUC(false, r->save_nestlevel);
	SetUserIdAndSecContext(r->save_userid, r->save_sec_context);
}

/* mostly it has the value: a worker's views share their settings */
static void
set_setting(const char *name, const char *value)
{
	const char *now = GetConfigOption(name, true, false);

	if (now != NULL && strcmp(now, value) == 0)
		return;
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

Oid
sx_table_owner(Oid relid)
{
	HeapTuple	tup = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tup))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	owner = ((Form_pg_class) GETSTRUCT(tup))->relowner;
	ReleaseSysCache(tup);
	return owner;
}
