/*
 * live_read.c
 *		Planning the read of a materialized table: every path gets a read node on top.
 *
 * The node (live_read_exec.c) lets rows without a live group pass, in the order of the path
 * below, and merges the live ones in by that order.  So all paths stay as useful as they
 * are on a plain table: predicates, parameterized index scans, ORDER BY, LIMIT.  The path
 * below returns whole rows; its quals stay where they are, and the node has a copy for the
 * live rows.
 *
 * A plan does not depend on what is live or on the transaction's isolation: it may be
 * cached.  What a read may add is decided when it starts.
 *
 * UPDATE, DELETE, MERGE and row locks on other tables re-fetch the rows of those they are
 * joined with by ctid, which live rows do not have.  So in such statements the user's view
 * is kept a subquery, whose rows are carried along as a whole (see protect_subqueries).
 */
#include "live/live_read_internal.h"

#include "access/nbtree.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/definitions.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planner.h"
#include "optimizer/restrictinfo.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

bool		sx_live_read_disabled = false;

static set_rel_pathlist_hook_type prev_set_rel_pathlist_hook = NULL;
static planner_hook_type prev_planner_hook = NULL;

static PlannedStmt *plan_statement(Query *parse, const char *query_string, int cursor_options,
								   ParamListInfo params);
static bool protect_subqueries(Node *node, void *context);
static void set_paths(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte);
static bool is_materialized_table(Oid relid);
static bool needs_system_columns(RelOptInfo *rel, Index rti);
static PathTarget *whole_row_target(PlannerInfo *root, Index rti, Oid relid);
static bool use_path(PlannerInfo *root, Path *path, PathTarget *target);
static Path *wrap_path(RelOptInfo *rel, Path *child);
static Expr *sort_expression(RelOptInfo *rel, PathKey *pathkey, Oid *operator);
static Plan *make_plan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist,
					   List *clauses, List *children);
static bool keys_only(SxReadView *view, Index rti, Node *expr);
static void find_key_filter(PlannerInfo *root, SxReadView *view, Index rti, Node *clause, int qual,
							List **filters, List **functions);
static bool has_exec_param(Node *node, void *context);

static const CustomPathMethods path_methods = {
	.CustomName = "StreamextRead",
	.PlanCustomPath = make_plan
};

void
sx_live_read_init(void)
{
	RegisterCustomScanMethods(&sx_read_scan_methods);
	prev_set_rel_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = set_paths;
	prev_planner_hook = planner_hook;
	planner_hook = plan_statement;
	sx_read_statement_init();
}

/* cheap for all other tables: one lookup in the system cache */
static bool
is_materialized_table(Oid relid)
{
	Oid			schema;

	if (sx_shared == NULL || sx_live_read_disabled)
		return false;
	schema = sx_catalog_schema_oid();
	return OidIsValid(schema) && get_rel_namespace(relid) == schema;
}

/* ---- statements that re-fetch rows ---- */

static PlannedStmt *
plan_statement(Query *parse, const char *query_string, int cursor_options, ParamListInfo params)
{
	if (sx_shared != NULL && !sx_live_read_disabled && parse->commandType != CMD_UTILITY &&
		OidIsValid(sx_catalog_schema_oid()))
	{
		bool		inside = false;

		(void) protect_subqueries((Node *) parse, &inside);
	}
	if (prev_planner_hook)
		return prev_planner_hook(parse, query_string, cursor_options, params);
	return standard_planner(parse, query_string, cursor_options, params);
}

/*
 * Below a query that re-fetches rows, a subquery that reads one of our tables is marked as
 * one with row locks of its own: that is not pulled up, and otherwise means nothing as long as
 * there are none.
 */
static bool
protect_subqueries(Node *node, void *context)
{
	bool	   *inside = context;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		bool		before = *inside;
		ListCell   *lc;

		if (*inside && query->commandType == CMD_SELECT && !query->hasForUpdate)
			foreach(lc, query->rtable)
			{
				RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

				if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_RELATION &&
					is_materialized_table(rte->relid) && sx_read_view(rte->relid) != NULL)
					query->hasForUpdate = true;
			}
		if (query->rowMarks != NIL || query->commandType == CMD_UPDATE ||
			query->commandType == CMD_DELETE || query->commandType == CMD_MERGE)
			*inside = true;
		(void) query_tree_walker(query, protect_subqueries, context, 0);
		*inside = before;
		return false;
	}
	return expression_tree_walker(node, protect_subqueries, context);
}

/* ---- paths ---- */

static void
set_paths(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	SxReadView *view;
	PathTarget *target;
	List	   *children = rel->pathlist;
	ListCell   *lc;

	if (prev_set_rel_pathlist_hook)
		prev_set_rel_pathlist_hook(root, rel, rti, rte);

	if (rte->rtekind != RTE_RELATION || rte->relkind != RELKIND_RELATION ||
		!is_materialized_table(rte->relid))
		return;
	if ((rel->reloptkind != RELOPT_BASEREL && rel->reloptkind != RELOPT_OTHER_MEMBER_REL) ||
		IS_DUMMY_REL(rel) || rte->tablesample != NULL)
		return;
	view = sx_read_view(rte->relid);
	if (view == NULL || bms_is_member(rti, root->all_result_relids))
		return;

	foreach(lc, root->rowMarks)
	{
		PlanRowMark *rc = lfirst_node(PlanRowMark, lc);

		if (rc->rti != rti)
			continue;
		if (rc->strength != LCS_NONE)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot lock rows of continuous view \"%s\"", get_rel_name(view->def->viewid)),
					 errdetail("Rows of a continuous view are results, some of which are not in a table yet."),
					 errhint("Leave the view out of the FOR UPDATE or FOR SHARE clause: FOR UPDATE OF other_table.")));
		/* our table is named itself in a statement that re-fetches its rows by ctid */
		return;
	}
	/* a live row has no ctid, so who asks for one means the table */
	if (needs_system_columns(rel, rti))
		return;

	target = whole_row_target(root, rti, rte->relid);
	children = rel->pathlist;
	rel->pathlist = NIL;
	rel->partial_pathlist = NIL;
	rel->consider_parallel = false;
	foreach(lc, children)
	{
		Path	   *child = lfirst(lc);

		if (use_path(root, child, target))
			add_path(rel, wrap_path(rel, child));
	}
	if (rel->pathlist == NIL)
	{
		Path	   *child = create_seqscan_path(root, rel, rel->lateral_relids, 0);

		child->pathtarget = target;
		add_path(rel, wrap_path(rel, child));
	}
}

static bool
needs_system_columns(RelOptInfo *rel, Index rti)
{
	Bitmapset  *attrs = NULL;
	ListCell   *lc;
	int			attr = -1;

	for (int i = rel->min_attr; i < 0; i++)
		if (!bms_is_empty(rel->attr_needed[i - rel->min_attr]))
			return true;
	foreach(lc, rel->baserestrictinfo)
		pull_varattnos((Node *) lfirst_node(RestrictInfo, lc)->clause, rti, &attrs);
	while ((attr = bms_next_member(attrs, attr)) >= 0)
		if (attr + FirstLowInvalidHeapAttributeNumber < 0)
			return true;
	return false;
}

/* all columns in order, as they are in the table: what a scan returns without projecting */
static PathTarget *
whole_row_target(PlannerInfo *root, Index rti, Oid relid)
{
	Relation	rel = table_open(relid, NoLock);
	TupleDesc	desc = RelationGetDescr(rel);
	PathTarget *target = create_empty_pathtarget();

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Expr	   *expr;

		if (att->attisdropped)
			expr = (Expr *) makeNullConst(INT4OID, -1, InvalidOid);
		else
			expr = (Expr *) makeVar(rti, i + 1, att->atttypid, att->atttypmod, att->attcollation, 0);
		add_column_to_pathtarget(target, expr, 0);
	}
	table_close(rel, NoLock);
	return set_pathtarget_cost_width(root, target);
}

/* makes the path return whole rows; false: not a kind of path we know */
static bool
use_path(PlannerInfo *root, Path *path, PathTarget *target)
{
	switch (path->pathtype)
	{
		case T_IndexOnlyScan:
			/* the states are not in the index */
			path->pathtype = T_IndexScan;
			if (path->param_info == NULL)
				cost_index((IndexPath *) path, root, 1.0, false);
			break;
		case T_SeqScan:
		case T_IndexScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
			break;
		default:
			return false;
	}
	if (path->parallel_aware)
		return false;
	path->pathtarget = target;
	return true;
}

static Path *
wrap_path(RelOptInfo *rel, Path *child)
{
	CustomPath *path = makeNode(CustomPath);
	ListCell   *lc;

	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.param_info = child->param_info;
	path->path.parallel_aware = false;
	path->path.parallel_safe = false;
	path->path.parallel_workers = 0;
	path->path.rows = child->rows;
	path->path.startup_cost = child->startup_cost + cpu_operator_cost;
	path->path.total_cost = child->total_cost + cpu_operator_cost * (child->rows + 1);

	/* in this order as far as a live row's place in it can be computed */
	foreach(lc, child->pathkeys)
	{
		Oid			operator;

		if (sort_expression(rel, lfirst_node(PathKey, lc), &operator) == NULL)
			break;
		path->path.pathkeys = lappend(path->path.pathkeys, lfirst(lc));
	}
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->custom_paths = list_make1(child);
	path->methods = &path_methods;
	return &path->path;
}

/* what a pathkey sorts by, over this relation's columns alone; NULL: not to be had */
static Expr *
sort_expression(RelOptInfo *rel, PathKey *pathkey, Oid *operator)
{
	EquivalenceClass *ec = pathkey->pk_eclass;
	ListCell   *lc;

	while (ec->ec_merged)
		ec = ec->ec_merged;
	if (ec->ec_has_volatile || rel->reloptkind != RELOPT_BASEREL)
		return NULL;
	foreach(lc, ec->ec_members)
	{
		EquivalenceMember *em = lfirst_node(EquivalenceMember, lc);

		if (em->em_is_child || bms_is_empty(em->em_relids) || !bms_is_subset(em->em_relids, rel->relids))
			continue;
		*operator = SxPathKeyOperator(pathkey, em->em_datatype);
		if (OidIsValid(*operator))
			return em->em_expr;
	}
	return NULL;
}

/* ---- the plan ---- */

static Plan *
make_plan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses, List *children)
{
	CustomScan *scan = makeNode(CustomScan);
	Oid			matid = planner_rt_fetch(rel->relid, root)->relid;
	SxReadView *view = sx_read_view(matid);
	List	   *quals = NIL;
	List	   *prefilter = NIL;
	List	   *filters = NIL;
	List	   *functions = NIL;
	List	   *sort = NIL;
	List	   *operators = NIL;
	List	   *collations = NIL;
	List	   *nulls_first = NIL;
	Index		min_security = PG_UINT32_MAX;
	bool		stream = true;
	bool		keys_sort = true;
	ListCell   *lc;

	if (view == NULL)
		elog(ERROR, "continuous view of table with OID %u is gone", matid);

	/* pseudoconstant clauses are a gate above this node */
	foreach(lc, clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);

		if (!rinfo->pseudoconstant)
			min_security = Min(min_security, rinfo->security_level);
	}
	foreach(lc, clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		Node	   *clause = (Node *) rinfo->clause;
		bool		keys;

		if (rinfo->pseudoconstant)
			continue;
		keys = keys_only(view, rel->relid, clause);
		stream &= keys;

		/* a leaky clause must not be tried before those that guard rows from it */
		prefilter = lappend_int(prefilter,
								keys && (rinfo->leakproof || rinfo->security_level == min_security));
		find_key_filter(root, view, rel->relid, clause, list_length(quals), &filters, &functions);
		quals = lappend(quals, clause);
	}

	foreach(lc, path->path.pathkeys)
	{
		PathKey    *pathkey = lfirst_node(PathKey, lc);
		EquivalenceClass *ec = pathkey->pk_eclass;
		Oid			operator;
		Expr	   *expr = sort_expression(rel, pathkey, &operator);

		while (ec->ec_merged)
			ec = ec->ec_merged;
		keys_sort &= keys_only(view, rel->relid, (Node *) expr);
		sort = lappend(sort, expr);
		operators = lappend_oid(operators, operator);
		collations = lappend_oid(collations, ec->ec_collation);
		nulls_first = lappend_int(nulls_first, pathkey->pk_nulls_first);
	}

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = NIL;
	scan->scan.scanrelid = rel->relid;
	scan->flags = path->flags;
	scan->custom_plans = children;
	scan->custom_exprs = list_make2(quals, sort);
	scan->custom_private = list_make5(list_make1_oid(matid),
									  list_make5_int(stream && sort == NIL && view->session_key < 0, keys_sort,
													 view->def->nkeys, view->session_key,
													 contain_subplans((Node *) scan->custom_exprs)),
									  prefilter, filters, functions);
	scan->custom_private = lappend(scan->custom_private, operators);
	scan->custom_private = lappend(scan->custom_private, collations);
	scan->custom_private = lappend(scan->custom_private, nulls_first);
	scan->methods = &sx_read_scan_methods;
	return &scan->scan.plan;
}

/*
 * Does the expression have the same value for a group's live row as for its row in the table?
 * So if it is computed from keys, and equal keys are the same bytes (numeric 1.0 and 1.00 are
 * equal and not the same).
 */
static bool
keys_only(SxReadView *view, Index rti, Node *expr)
{
	Bitmapset  *attrs = NULL;
	int			attr = -1;

	if (view->def->nkeys == 0)
		return false;
	pull_varattnos(expr, rti, &attrs);
	while ((attr = bms_next_member(attrs, attr)) >= 0)
	{
		int			attno = attr + FirstLowInvalidHeapAttributeNumber;

		if (attno <= 0 || attno > view->def->nkeys || !view->exact[attno - 1])
			return false;
	}
	return !contain_volatile_functions(expr) && !contain_subplans(expr);
}

/*
 * key = value: the operator's hash function for the key's side must be the one that the
 * entries' hashes were made with; the other side's then agrees with it, also across types.
 */
static void
find_key_filter(PlannerInfo *root, SxReadView *view, Index rti, Node *clause, int qual,
				List **filters, List **functions)
{
	OpExpr	   *op = (OpExpr *) clause;

	if (!IsA(clause, OpExpr) || list_length(op->args) != 2)
		return;
	for (int side = 0; side < 2; side++)
	{
		Node	   *key = list_nth(op->args, side);
		Node	   *value = list_nth(op->args, 1 - side);
		Var		   *var;
		TypeCacheEntry *type;
		RegProcedure hash[2];
		bool		runtime;

		while (IsA(key, RelabelType))
			key = (Node *) ((RelabelType *) key)->arg;
		var = (Var *) key;
		if (!IsA(key, Var) || var->varno != rti || var->varlevelsup != 0 ||
			var->varattno <= 0 || var->varattno > view->def->nkeys ||
			var->varattno - 1 == view->session_key)
			continue;
		if (bms_is_member(rti, pull_varnos(root, value)) ||
			contain_volatile_functions(value) || contain_subplans(value))
			continue;
		type = lookup_type_cache(var->vartype, TYPECACHE_HASH_PROC);
		if (!get_op_hash_functions(op->opno, &hash[0], &hash[1]) || hash[side] != type->hash_proc)
			continue;
		/* only deterministic collations make the same hash of the same bytes */
		if (op->inputcollid != var->varcollid &&
			((OidIsValid(op->inputcollid) && !get_collation_isdeterministic(op->inputcollid)) ||
			 (OidIsValid(var->varcollid) && !get_collation_isdeterministic(var->varcollid))))
			continue;

		runtime = contain_var_clause(value) || has_exec_param(value, NULL);
		*filters = lappend_int(*filters, qual);
		*filters = lappend_int(*filters, 1 - side);
		*filters = lappend_int(*filters, var->varattno - 1);
		*filters = lappend_int(*filters, runtime);
		*functions = lappend_oid(*functions, hash[1 - side]);
		return;
	}
}

static bool
has_exec_param(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
		return ((Param *) node)->paramkind != PARAM_EXTERN;
	if (IsA(node, PlaceHolderVar))
		return true;
	return expression_tree_walker(node, has_exec_param, context);
}
