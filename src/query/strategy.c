/*
 * strategy.c
 *		Finds how a view is kept up to date, and splits a grouped query into keys and
 *		aggregates.
 *
 * append: no aggregate, the rows are kept.  merge: GROUP BY, or aggregates over
 * everything; one partial state per group and aggregate is kept, and merged by the
 * aggregate's combine function.  The planner's own rule says which aggregates merge:
 * those that could run in parallel workers (a combine function; serial functions where
 * the state is of type internal; no DISTINCT or ORDER BY).
 *
 * The split is a function of the query alone, so that the columns of the materialized
 * table, the delta plan and the user's view agree without anything being stored.
 */
#include "query/analyze_internal.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "query/aggregate_state.h"
#include "query/session.h"
#include "query/window.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* a unique index has at most this many columns */
#define MAX_KEYS	INDEX_MAX_KEYS

typedef struct CollectContext
{
	int			level;			/* sub-selects around the node */
	List	   *aggrefs;
} CollectContext;

static bool collect_aggrefs(Node *node, CollectContext *context);

void
sx_split_query(Query *query, SxAnalysis *a)
{
	CollectContext context = {0};
	TargetEntry *session = NULL;
	ListCell   *lc;

	a->query = query;
	a->keys = NIL;
	a->session = false;
	a->aggrefs = NIL;
	if (!query->hasAggs && query->groupClause == NIL)
	{
		a->strategy = SX_APPEND;
		return;
	}

	a->strategy = SX_MERGE;
	foreach(lc, query->groupClause)
	{
		TargetEntry *tle = get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), query->targetList);

		if (sx_is_session_call((Node *) tle->expr) && session == NULL)
			session = tle;
		else
			a->keys = lappend(a->keys, tle);
	}
	/* last, so that the sessions of a group stand together in the index, in the order of time */
	if (session != NULL)
	{
		a->keys = lappend(a->keys, session);
		a->session = true;
	}
	collect_aggrefs((Node *) query->targetList, &context);
	collect_aggrefs(query->havingQual, &context);
	a->aggrefs = context.aggrefs;
}

SxAnalysis *
sx_analyze_stored(Oid queryid, Oid streamid)
{
	SxAnalysis *a = palloc0(sizeof(SxAnalysis));
	Relation	view = table_open(queryid, AccessShareLock);
	Query	   *query = copyObject(get_view_query(view));

	table_close(view, NoLock);
	SxFlattenGroupEntry(query);
	sx_split_query(query, a);
	a->streamid = streamid;
	return a;
}

/* the distinct aggregates of the outermost query, as seen from there */
static bool
collect_aggrefs(Node *node, CollectContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == context->level)
	{
		Node	   *aggref = copyObject(node);

		if (context->level > 0)
			IncrementVarSublevelsUp(aggref, -context->level, context->level);
		context->aggrefs = list_append_unique(context->aggrefs, aggref);
		return false;
	}
	if (IsA(node, Query))
	{
		bool		result;

		context->level++;
		result = query_tree_walker((Query *) node, collect_aggrefs, context, 0);
		context->level--;
		return result;
	}
	return expression_tree_walker(node, collect_aggrefs, context);
}

void
sx_check_keys(Query *query, SxAnalysis *a)
{
	ListCell   *lc;

	if (list_length(a->keys) > MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("a continuous view cannot have more than %d columns in GROUP BY", MAX_KEYS),
				 errdetail("The query has %d.", list_length(a->keys)),
				 errhint("Group by one row value or array of several columns.")));

	foreach(lc, query->groupClause)
	{
		SortGroupClause *sgc = lfirst_node(SortGroupClause, lc);
		Node	   *expr = get_sortgroupclause_expr(sgc, query->targetList);
		Oid			type = exprType(expr);
		TypeCacheEntry *tc = lookup_type_cache(type, TYPECACHE_EQ_OPR | TYPECACHE_CMP_PROC |
											   TYPECACHE_HASH_PROC | TYPECACHE_BTREE_OPFAMILY |
											   TYPECACHE_HASH_OPFAMILY);

		sx_check_window(eval_const_expressions(NULL, expr));
		if (get_typtype(type) == TYPTYPE_PSEUDO)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("a key of a continuous view cannot have pseudo-type %s", format_type_be(type)),
					 errhint("List the columns one by one in GROUP BY.")));
		if (!OidIsValid(tc->btree_opf) || !OidIsValid(tc->cmp_proc) ||
			!OidIsValid(tc->hash_opf) || !OidIsValid(tc->hash_proc) || !sgc->hashable ||
			sgc->eqop != tc->eq_opr)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("type %s cannot be a key of a continuous view", format_type_be(type)),
					 errdetail("A key needs a default btree and a default hash operator class."),
					 errhint("Group by a cast, for example to text.")));
	}
}

void
sx_check_aggregates(SxAnalysis *a)
{
	ListCell   *lc;

	foreach(lc, a->aggrefs)
	{
		Aggref	   *aggref = lfirst_node(Aggref, lc);
		char	   *name = format_procedure(aggref->aggfnoid);
		HeapTuple	tuple;
		Form_pg_aggregate agg;

		if (aggref->aggkind != AGGKIND_NORMAL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("ordered-set aggregate %s cannot be kept up to date", name),
					 errdetail("It needs all rows of a group at once."),
					 errhint("Use an aggregate that merges, such as a sketch (tdigest), or group more finely and compute it when reading.")));
		if (aggref->aggdistinct != NIL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("aggregate %s with DISTINCT cannot be kept up to date", name),
					 errdetail("It needs all rows of a group at once."),
					 errhint("Add the argument to GROUP BY and aggregate when reading, or use a sketch such as hll.")));
		if (aggref->aggorder != NIL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("aggregate %s with ORDER BY cannot be kept up to date", name),
					 errdetail("It needs all rows of a group at once."),
					 errhint("Leave out ORDER BY inside the aggregate.")));

		tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for aggregate %u", aggref->aggfnoid);
		agg = (Form_pg_aggregate) GETSTRUCT(tuple);
		if (!OidIsValid(agg->aggcombinefn))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("aggregate %s cannot be kept up to date", name),
					 errdetail("It has no combine function."),
					 errhint("Use an aggregate with a combine function (COMBINEFUNC), such as count, sum, avg, min, max, bool_and, stddev or corr, or leave out the aggregate to keep the rows.")));
		if (agg->aggtranstype == INTERNALOID &&
			(!OidIsValid(agg->aggserialfn) || !OidIsValid(agg->aggdeserialfn)))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("aggregate %s cannot be kept up to date", name),
					 errdetail("Its state has type internal and it has no serialization functions."),
					 errhint("Use an aggregate with SERIALFUNC and DESERIALFUNC.")));
		ReleaseSysCache(tuple);

		/* looks up all its functions, and checks that the user may execute them */
		(void) sx_agg_from_aggref(aggref, CurrentMemoryContext);
	}
}
