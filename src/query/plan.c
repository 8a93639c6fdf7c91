/*
 * plan.c
 *		Builds delta plans: the view's own plan over just a batch of rows, as a partial
 *		aggregate.
 *
 * The delta query is the stored query with the group keys and the bare aggregates as
 * its target list; HAVING, ORDER BY and expressions over aggregates belong to the
 * reading view.  The planner plans it as any query, with two changes made in hooks,
 * which know a build by a static pointer that is set only around our own call of the
 * planner:
 *
 *	 set_rel_pathlist	the stream's paths give way to the delta scan, or for a part of
 *						history to the range scan
 *	 create_upper_paths	the grouping's paths give way to one Agg with
 *						AGGSPLIT_INITIAL_SERIAL; for history, where it is cheaper, to
 *						one in each of several processes, whose groups are combined
 *						by whoever writes them, as those of several chunks are
 *
 * In delta plans the stream is planned as one plain table (no inheritance, relkind of
 * a table), because a partitioned table's paths are made from its partitions after the
 * hook has run, and a partitioned table without them is planned as empty.
 *
 * The grouping is by the query's GROUP BY as given.  The planner drops columns that a
 * primary key determines; rows of a stream that were deleted, with the same key, still
 * count, so that rule does not hold here.
 *
 * A finished plan is checked (top node, column types, no other scan of the stream), so
 * that a planner of another version that does it differently is an error and not a
 * wrong result.
 */
#include "query/plan_internal.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/plancat.h"
#include "optimizer/planner.h"
#include "optimizer/prep.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "capture/range_scan.h"
#include "query/analyze_internal.h"
#include "query/panes.h"
#include "query/plain_trunc.h"
#include "query/row_filter.h"
#include "query/session.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/selfuncs.h"
#include "utils/typcache.h"

/* rows that the two kept variants are planned for */
#define FEW_ROWS	10
#define MANY_ROWS	50000
/* to combine a group that a parallel worker has put out with the others' costs as much as so many rows */
#define COMBINE_ROWS	100

/* The build that is going on in this process, or NULL */
typedef struct Build
{
	Oid			stream;
	bool		delta;			/* replace the stream's paths */
	bool		ranges;			/* by a range scan */
	double		rows;
	double		blocks;
	double		groups;			/* as seen before; 0: not known */
	SxPlan	   *bounds;			/* add its bounds of the event time; or NULL */
	bool		group;			/* replace the grouping's paths */
	List	   *groupClause;	/* as given */
} Build;

/* What a finished plan reads */
typedef struct PlanUse
{
	PlannedStmt *stmt;
	List	   *family;			/* the stream, its partitions and parents */
	bool		delta;
	int			deltascans;
	Bitmapset  *columns;		/* of the stream, that they need */
	List	   *indexes;
} PlanUse;

static Build *current_build = NULL;

static set_rel_pathlist_hook_type prev_set_rel_pathlist = NULL;
static create_upper_paths_hook_type prev_create_upper_paths = NULL;
static get_relation_info_hook_type prev_get_relation_info = NULL;
static planner_hook_type prev_planner = NULL;

static const char *setting(SxViewDef *def, const char *name);
static bool prepare_entries(Node *node, Build *build);
static void add_bounds(Query *query, int varno, SxPlan *plan);
static void check_row_security(Query *query);
static bool check_row_security_walker(Node *node, void *context);
static void set_relation_info(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel);
static void set_pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte);
static void set_upper_paths(PlannerInfo *root, UpperRelationKind stage, RelOptInfo *input_rel,
							RelOptInfo *output_rel, void *extra);
static Path *group_path(PlannerInfo *root, RelOptInfo *input_rel, Path *input, RelOptInfo *output_rel,
						PathTarget *target, double groups);
static Path *parallel_group_path(PlannerInfo *root, RelOptInfo *input_rel, RelOptInfo *output_rel,
								 PathTarget *target, double groups);
static bool has_computed_keys(List *keys);
static Path *label_group_columns(PlannerInfo *root, RelOptInfo *input_rel, Path *path);
static PathTarget *partial_target(PathTarget *target);
static PlannedStmt *plan_other(Query *parse, const char *query_string, int cursorOptions,
							   ParamListInfo boundParams);
static void check_plan(SxPlan *plan, PlannedStmt *stmt, Build *build, PlanUse *use);
static void give_room(PlannedStmt *stmt);
static void check_columns(SxPlan *plan, List *targetlist);
static void look_at_plan(Plan *node, PlanUse *use);
static void look_at_plans(List *nodes, PlanUse *use);
static List *relations_to_lock(PlannedStmt *stmt, Oid stream, Oid queryid, List *indexes);

void
sx_plan_init(void)
{
	prev_get_relation_info = get_relation_info_hook;
	get_relation_info_hook = set_relation_info;
	prev_set_rel_pathlist = set_rel_pathlist_hook;
	set_rel_pathlist_hook = set_pathlist;
	prev_create_upper_paths = create_upper_paths_hook;
	create_upper_paths_hook = set_upper_paths;
	prev_planner = planner_hook;
	planner_hook = plan_other;
}

Query *
sx_plan_query(SxPlan *plan, SxPlanVariant variant)
{
	SxViewDef  *def = plan->info->def;
	Relation	view = table_open(def->queryid, AccessShareLock);
	Query	   *query = copyObject(get_view_query(view));
	SxAnalysis	a = {0};
	List	   *tlist = NIL;
	ListCell   *lc;

	table_close(view, NoLock);
	SxFlattenGroupEntry(query);
	sx_split_query(query, &a);
	if (a.strategy != def->strategy)
		elog(ERROR, "query of continuous view \"%s\" does not fit its strategy", get_rel_name(def->viewid));

	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->sortClause = NIL;
	if (a.strategy == SX_MERGE)
	{
		foreach(lc, a.keys)
		{
			TargetEntry *tle = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));

			tle->resno = list_length(tlist) + 1;
			tle->resjunk = false;
			if (def->panes && list_length(tlist) == plan->info->window_key)
				tle->expr = sx_pane_of_key(tle->expr);
			tlist = lappend(tlist, tle);
		}
		foreach(lc, a.aggrefs)
			tlist = lappend(tlist, makeTargetEntry((Expr *) lfirst(lc), list_length(tlist) + 1,
												   psprintf("state_%d", list_length(tlist) + 1), false));
		query->targetList = tlist;
		query->havingQual = NULL;
		query->hasTargetSRFs = expression_returns_set((Node *) tlist);
	}
	return query;
}

void
sx_plan_build(SxPlan *plan, SxPlanVariant variant, const SxPartSize *part, SxBuiltPlan *result)
{
	SxViewDef  *def = plan->info->def;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext plan build",
												  ALLOCSET_DEFAULT_SIZES);
	Query	   *query;
	List	   *rewritten;
	PlannedStmt *stmt;
	PlanUse		use = {0};
	Build		build = {0};
	Build	   *outer = current_build;
	bool		session_allowed = sx_session_allowed;

	MemoryContextSwitchTo(scratch);
	query = sx_plan_query(plan, variant);
	build.stream = def->streamid;
	build.delta = variant != SX_PLAN_HISTORY;
	build.ranges = variant == SX_PLAN_RANGES;
	if (build.ranges)
	{
		build.rows = part->rows;
		build.blocks = part->blocks;
		build.groups = part->groups;
	}
	else
	{
		build.rows = variant == SX_PLAN_FEW ? FEW_ROWS : MANY_ROWS;
		build.blocks = build.rows / 100;
	}
	build.group = def->strategy == SX_MERGE;
	build.bounds = variant == SX_PLAN_HISTORY && (plan->from != NULL || plan->to != NULL) ? plan : NULL;

	AcquireRewriteLocks(query, true, false);
	rewritten = QueryRewrite(query);
	if (list_length(rewritten) != 1)
		elog(ERROR, "unexpected rewrite result of a SELECT");
	query = linitial_node(Query, rewritten);
	check_row_security(query);
	prepare_entries((Node *) query, &build);
	if (build.delta)
		query = sx_plain_trunc(query, setting(def, "TimeZone"));
	else
		(void) sx_row_filter_apply(query);
	build.groupClause = copyObject(query->groupClause);

	PG_TRY();
	{
		current_build = &build;
		sx_session_allowed = true;
		/* not through planner_hook: others would not know what to make of it */
		stmt = standard_planner(query, "streamext delta query", build.ranges ? CURSOR_OPT_PARALLEL_OK : 0, NULL);
	}
	PG_FINALLY();
	{
		current_build = outer;
		sx_session_allowed = session_allowed;
	}
	PG_END_TRY();

	/* over few rows it never pays, whatever the costs say */
	if (variant != SX_PLAN_HISTORY && variant != SX_PLAN_RANGES)
		stmt->jitFlags = PGJIT_NONE;
	stmt->queryId = UINT64CONST(0);
	check_plan(plan, stmt, &build, &use);
	if (build.ranges)
		give_room(stmt);

	result->context = AllocSetContextCreate(plan->info->context, "streamext plan", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(result->context);
	result->stmt = copyObject(stmt);
	result->relations = relations_to_lock(result->stmt, def->streamid, def->queryid, use.indexes);
	result->columns = bms_copy(use.columns);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
}

/* as pinned at CREATE; NULL: it is not */
static const char *
setting(SxViewDef *def, const char *name)
{
	size_t		len = strlen(name);
	ListCell   *lc;

	foreach(lc, def->settings)
	{
		const char *text = lfirst(lc);

		if (strncmp(text, name, len) == 0 && text[len] == '=')
			return text + len + 1;
	}
	return NULL;
}

/* the stream's entry, wherever the rewriter left it: one plain table */
static bool
prepare_entries(Node *node, Build *build)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		ListCell   *lc;

		foreach(lc, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (build->delta && rte->rtekind == RTE_RELATION && rte->relid == build->stream)
			{
				rte->inh = false;
				rte->relkind = RELKIND_RELATION;
			}
			else if (build->bounds != NULL && rte->rtekind == RTE_RELATION && rte->relid == build->stream)
				add_bounds((Query *) node, foreach_current_index(lc) + 1, build->bounds);
		}
		return query_tree_walker((Query *) node, prepare_entries, build, 0);
	}
	return expression_tree_walker(node, prepare_entries, build);
}

/* conditions on the stream's event time, which its indexes and partitions may serve */
static void
add_bounds(Query *query, int varno, SxPlan *plan)
{
	const SxStreamTime *time = &plan->info->time;
	TypeCacheEntry *type = lookup_type_cache(time->type, TYPECACHE_BTREE_OPFAMILY);
	const Datum *values[] = {plan->from, plan->to};
	const int	strategies[] = {BTGreaterEqualStrategyNumber, BTLessStrategyNumber};

	for (int i = 0; i < lengthof(values); i++)
	{
		Oid			op = get_opfamily_member(type->btree_opf, time->type, time->type, strategies[i]);
		Var		   *column = makeVar(varno, time->attno, time->type, -1, InvalidOid, 0);
		Const	   *bound;

		if (values[i] == NULL)
			continue;
		bound = makeConst(time->type, -1, InvalidOid, type->typlen, *values[i], false, type->typbyval);
		query->jointree->quals = make_and_qual(query->jointree->quals,
											   (Node *) make_opclause(op, BOOLOID, false, (Expr *) column, (Expr *) bound,
																	  InvalidOid, InvalidOid));
	}
}

static void
check_row_security(Query *query)
{
	check_row_security_walker((Node *) query, NULL);
}

/* a policy that came after CREATE: what it lets through is not what the view has counted */
static bool
check_row_security_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		ListCell   *lc;

		foreach(lc, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_RELATION && rte->relkind != RELKIND_VIEW &&
				check_enable_rls(rte->relid, SxCheckAsUser((Query *) node, rte), true) == RLS_ENABLED)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("row security of table \"%s\" applies to the owner of the continuous view",
								get_rel_name(rte->relid)),
						 errhint("Give the owner BYPASSRLS, or disable row security on the table.")));
		}
		return query_tree_walker((Query *) node, check_row_security_walker, context, 0);
	}
	return expression_tree_walker(node, check_row_security_walker, context);
}

/* a query that a function runs while we plan is not ours */
static PlannedStmt *
plan_other(Query *parse, const char *query_string, int cursorOptions, ParamListInfo boundParams)
{
	Build	   *outer = current_build;
	PlannedStmt *result;

	if (outer == NULL)
		(void) sx_row_filter_apply(parse);
	if (outer == NULL)
		return prev_planner ? prev_planner(parse, query_string, cursorOptions, boundParams) :
			standard_planner(parse, query_string, cursorOptions, boundParams);

	current_build = NULL;
	PG_TRY();
	{
		result = prev_planner ? prev_planner(parse, query_string, cursorOptions, boundParams) :
			standard_planner(parse, query_string, cursorOptions, boundParams);
	}
	PG_FINALLY();
	{
		current_build = outer;
	}
	PG_END_TRY();
	return result;
}

/* the stream has as many rows as the batch, or part */
static void
set_relation_info(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel)
{
	if (prev_get_relation_info)
		prev_get_relation_info(root, relid, inhparent, rel);
	if (current_build == NULL || !current_build->delta || relid != current_build->stream)
		return;

	rel->tuples = current_build->rows;
	rel->pages = Max(1, current_build->blocks);
	rel->allvisfrac = 0;
	rel->indexlist = NIL;
}

static void
set_pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	Path	   *path;
	bool		whole;
	int			workers = 0;

	if (prev_set_rel_pathlist)
		prev_set_rel_pathlist(root, rel, rti, rte);
	if (current_build == NULL || !current_build->delta ||
		rte->rtekind != RTE_RELATION || rte->relid != current_build->stream ||
		IS_DUMMY_REL(rel))
		return;

	/* what groups by hash takes what it needs out of the rows */
	whole = current_build->group && root->query_level == 1 && bms_membership(root->all_baserels) == BMS_SINGLETON;
	path = current_build->ranges ? sx_range_scan_path(root, rel, whole, 0) :
		sx_delta_scan_path(root, rel, rel->rows, whole);
	if (!bms_is_empty(rel->lateral_relids))
		path->param_info = get_baserel_parampathinfo(root, rel, rel->lateral_relids);
	rel->pathlist = list_make1(path);
	rel->partial_pathlist = NIL;
	if (current_build->ranges && rel->consider_parallel && bms_is_empty(rel->lateral_relids))
		workers = compute_parallel_worker(rel, rel->pages, -1, max_parallel_workers_per_gather);
	if (workers > 0)
		add_partial_path(rel, sx_range_scan_path(root, rel, whole, workers));
	else
		rel->consider_parallel = false;
}

static void
set_upper_paths(PlannerInfo *root, UpperRelationKind stage, RelOptInfo *input_rel,
				RelOptInfo *output_rel, void *extra)
{
	PathTarget *target;
	Path	   *path;
	Path	   *parallel;
	double		groups = current_build ? current_build->groups : 0;

	if (prev_create_upper_paths)
		prev_create_upper_paths(root, stage, input_rel, output_rel, extra);
	if (current_build == NULL || !current_build->group || stage != UPPERREL_GROUP_AGG ||
		root->query_level != 1 || root->parent_root != NULL)
		return;

	target = partial_target(output_rel->reltarget);
	path = group_path(root, input_rel, input_rel->cheapest_total_path, output_rel, target, groups);
	parallel = parallel_group_path(root, input_rel, output_rel, target, groups);
	output_rel->pathlist = list_make1(parallel != NULL && parallel->total_cost < path->total_cost ? parallel : path);
	output_rel->partial_pathlist = NIL;
}

static Path *
group_path(PlannerInfo *root, RelOptInfo *input_rel, Path *input, RelOptInfo *output_rel, PathTarget *target, double groups)
{
	List	   *clause = current_build->groupClause;
	AggClauseCosts costs;

	MemSet(&costs, 0, sizeof(costs));
	get_agg_clause_costs(root, AGGSPLIT_INITIAL_SERIAL, &costs);
	if (clause == NIL)
		groups = 1;
	else if (groups == 0)
		groups = estimate_num_groups(root, get_sortgrouplist_exprs(clause, root->processed_tlist), input->rows, NULL, NULL);
	return (Path *) create_agg_path(root, output_rel, label_group_columns(root, input_rel, input), target,
									clause == NIL ? AGG_PLAIN : AGG_HASHED, AGGSPLIT_INITIAL_SERIAL, clause, NIL,
									&costs, Min(groups, clamp_row_est(input->rows)));
}

/*
 * NULL: not possible, or not known to be any good.  The planner takes a window of each time for another one, which would make
 * receiving the groups dearer than anything.
 */
static Path *
parallel_group_path(PlannerInfo *root, RelOptInfo *input_rel, RelOptInfo *output_rel, PathTarget *target, double groups)
{
	Path	   *path;
	double		rows;

	if (!output_rel->consider_parallel || input_rel->partial_pathlist == NIL ||
		(groups == 0 && has_computed_keys(get_sortgrouplist_exprs(current_build->groupClause, root->processed_tlist))))
		return NULL;
	path = group_path(root, input_rel, linitial(input_rel->partial_pathlist), output_rel, target, groups);
	rows = path->rows * path->parallel_workers;
	path = (Path *) create_gather_path(root, output_rel, path, target, NULL, &rows);
	path->total_cost += rows * COMBINE_ROWS * cpu_tuple_cost;
	return path;
}

static bool
has_computed_keys(List *keys)
{
	ListCell   *lc;

	foreach(lc, keys)
		if (!IsA(lfirst(lc), Var))
			return true;
	return false;
}

/*
 * Columns that the planner dropped from GROUP BY are still in the input, as they are in
 * the target list, but without the number by which Agg finds them.
 */
static Path *
label_group_columns(PlannerInfo *root, RelOptInfo *input_rel, Path *path)
{
	PathTarget *target = copy_pathtarget(path->pathtarget);
	bool		changed = false;
	ListCell   *lc;

	if (target->sortgrouprefs == NULL)
		target->sortgrouprefs = palloc0(sizeof(Index) * Max(1, list_length(target->exprs)));
	foreach(lc, current_build->groupClause)
	{
		Index		ref = lfirst_node(SortGroupClause, lc)->tleSortGroupRef;
		TargetEntry *key = get_sortgroupref_tle(ref, root->processed_tlist);
		bool		labelled = false;
		int			found = -1;
		int			i = 0;
		ListCell   *lx;

		foreach(lx, target->exprs)
		{
			if (target->sortgrouprefs[i] == ref)
				labelled = true;
			else if (target->sortgrouprefs[i] == 0 && found < 0 && equal(key->expr, lfirst(lx)))
				found = i;
			i++;
		}
		if (labelled)
			continue;
		if (found < 0)
			elog(ERROR, "column of GROUP BY is missing in the delta plan");
		target->sortgrouprefs[found] = ref;
		changed = true;
	}
	if (!changed)
		return path;
	return (Path *) create_projection_path(root, input_rel, path, target);
}

static PathTarget *
partial_target(PathTarget *target)
{
	PathTarget *partial = copy_pathtarget(target);
	ListCell   *lc;

	foreach(lc, partial->exprs)
	{
		Aggref	   *aggref = (Aggref *) lfirst(lc);

		if (IsA(aggref, Aggref))
		{
			Aggref	   *copy = makeNode(Aggref);

			memcpy(copy, aggref, sizeof(Aggref));
			mark_partial_aggref(copy, AGGSPLIT_INITIAL_SERIAL);
			lfirst(lc) = copy;
		}
	}
	return partial;
}

static void
check_plan(SxPlan *plan, PlannedStmt *stmt, Build *build, PlanUse *use)
{
	SxViewDef  *def = plan->info->def;

	if (def->strategy == SX_MERGE)
	{
		Agg		   *agg = (Agg *) stmt->planTree;

		if (IsA(agg, Gather))
			agg = (Agg *) outerPlan(agg);
		if (!IsA(agg, Agg) || agg->aggsplit != AGGSPLIT_INITIAL_SERIAL ||
			agg->numCols != list_length(build->groupClause) || agg->plan.qual != NIL)
			elog(ERROR, "delta plan of continuous view \"%s\" is not a partial aggregate",
				 get_rel_name(def->viewid));
	}
	check_columns(plan, stmt->planTree->targetlist);

	use->stmt = stmt;
	use->delta = build->delta;
	use->family = find_all_inheritors(def->streamid, NoLock, NULL);
	if (get_rel_relispartition(def->streamid))
		use->family = list_concat(use->family, get_partition_ancestors(def->streamid));
	look_at_plan(stmt->planTree, use);
	look_at_plans(stmt->subplans, use);
	if (use->deltascans > 1)
		elog(ERROR, "delta plan of continuous view \"%s\" reads its stream more than once",
			 get_rel_name(def->viewid));
}

/* in a hash table that is half full a group is found sooner than in one with as many places as groups */
static void
give_room(PlannedStmt *stmt)
{
	Plan	   *node = stmt->planTree;

	if (IsA(node, Gather))
		node = outerPlan(node);
	if (IsA(node, Agg) && ((Agg *) node)->numGroups < LONG_MAX / 2)
		((Agg *) node)->numGroups *= 2;
}

static void
check_columns(SxPlan *plan, List *targetlist)
{
	TupleDesc	desc = plan->info->desc;
	int			natts = desc->natts - plan->info->nresults;
	int			attno = plan->own_key == 0 ? 1 : 0;
	ListCell   *lc;

	foreach(lc, targetlist)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Oid			type = exprType((Node *) tle->expr);
		Oid			wanted;

		if (tle->resjunk)
			continue;
		if (attno >= natts)
			elog(ERROR, "delta plan of continuous view \"%s\" has too many columns",
				 get_rel_name(plan->info->def->viewid));
		if (attno >= plan->info->nkeys && plan->info->def->strategy == SX_MERGE)
			wanted = sx_agg_partial_type(plan->info->aggs[attno - plan->info->nkeys]);
		else
			wanted = TupleDescAttr(desc, attno)->atttypid;
		if (type != wanted)
			elog(ERROR, "column %d of the delta plan of continuous view \"%s\" has type %u and not %u",
				 attno + 1, get_rel_name(plan->info->def->viewid), type, wanted);
		attno++;
		if (attno == plan->own_key)
			attno++;
	}
	if (attno != natts)
		elog(ERROR, "delta plan of continuous view \"%s\" has too few columns",
			 get_rel_name(plan->info->def->viewid));
}

static void
look_at_plans(List *nodes, PlanUse *use)
{
	ListCell   *lc;

	foreach(lc, nodes)
		look_at_plan(lfirst(lc), use);
}

static void
look_at_plan(Plan *node, PlanUse *use)
{
	Index		scanrelid = 0;

	if (node == NULL)
		return;
	check_stack_depth();

	switch (nodeTag(node))
	{
		case T_SeqScan:
		case T_SampleScan:
		case T_TidScan:
		case T_TidRangeScan:
		case T_BitmapHeapScan:
			scanrelid = ((Scan *) node)->scanrelid;
			break;
		case T_IndexScan:
			scanrelid = ((Scan *) node)->scanrelid;
			use->indexes = list_append_unique_oid(use->indexes, ((IndexScan *) node)->indexid);
			break;
		case T_IndexOnlyScan:
			scanrelid = ((Scan *) node)->scanrelid;
			use->indexes = list_append_unique_oid(use->indexes, ((IndexOnlyScan *) node)->indexid);
			break;
		case T_BitmapIndexScan:
			use->indexes = list_append_unique_oid(use->indexes, ((BitmapIndexScan *) node)->indexid);
			break;
		case T_ForeignScan:
			scanrelid = ((Scan *) node)->scanrelid;
			break;
		case T_CustomScan:
			if (sx_is_delta_scan(node) || sx_is_range_scan(node))
			{
				use->deltascans++;
				if (sx_is_delta_scan(node))
					use->columns = sx_delta_scan_columns(node, use->columns);
			}
			else
				scanrelid = ((Scan *) node)->scanrelid;
			look_at_plans(((CustomScan *) node)->custom_plans, use);
			break;
		case T_Append:
			look_at_plans(((Append *) node)->appendplans, use);
			break;
		case T_MergeAppend:
			look_at_plans(((MergeAppend *) node)->mergeplans, use);
			break;
		case T_BitmapAnd:
			look_at_plans(((BitmapAnd *) node)->bitmapplans, use);
			break;
		case T_BitmapOr:
			look_at_plans(((BitmapOr *) node)->bitmapplans, use);
			break;
		case T_SubqueryScan:
			look_at_plan(((SubqueryScan *) node)->subplan, use);
			break;
		default:
			break;
	}
	if (scanrelid > 0 && use->delta &&
		list_member_oid(use->family, rt_fetch(scanrelid, use->stmt->rtable)->relid))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the stream \"%s\" is also read as a lookup",
						get_rel_name(rt_fetch(scanrelid, use->stmt->rtable)->relid)),
				 errdetail("A view or a partition that the query uses contains it.")));

	look_at_plan(node->lefttree, use);
	look_at_plan(node->righttree, use);
}

/*
 * Tables before their indexes, as everybody locks them.  The query of the view itself, which stands in the range
 * table for its rule, is not read.
 */
static List *
relations_to_lock(PlannedStmt *stmt, Oid stream, Oid queryid, List *indexes)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, stmt->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && rte->relid != stream && rte->relid != queryid)
			result = list_append_unique_oid(result, rte->relid);
	}
	foreach(lc, indexes)
		result = list_append_unique_oid(result, lfirst_oid(lc));
	return result;
}
