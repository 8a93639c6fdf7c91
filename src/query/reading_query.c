/*
 * reading_query.c
 *		The query of the view that users read, over the materialized table.
 *
 * It is built as a Query tree: the user's target list, in which whatever
 * equals a group key becomes a column of the table and each aggregate becomes the column of its
 * result, or a call of streamext.finalize on its state.  The join with an empty select keeps the view
 * from being updatable and is removed by the planner.
 */
#include "query/view_def_internal.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parse_relation.h"
#include "query/aggregate_state.h"
#include "query/panes.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"

/* What turns the user's expressions into ones over the materialized table */
typedef struct ReadContext
{
	ParseState *pstate;
	int			varno;			/* of the materialized table */
	List	   *keys;			/* expressions without join aliases */
	List	   *aggrefs;		/* without join aliases */
	List	   *columns;		/* of SxTableColumn * */
	int			firstkey;		/* column number of the first key */
	int			firstagg;		/* of the first aggregate */
	bool		panes;
	int			level;
} ReadContext;

static Node *reading_expression(Node *node, ReadContext *context);
static Var *table_column(ReadContext *context, int attno);
static Node *finalize_call(Aggref *aggref, Var *state);

/* SELECT … FROM mat, (SELECT) live WHERE having ORDER BY … */
Query *
sx_reading_query(SxAnalysis *a, List *names, List *columns, Relation mat, bool panes)
{
	Query	   *query = makeNode(Query);
	Query	   *user = copyObject(a->query);
	Query	   *empty = makeNode(Query);
	ReadContext context = {0};
	ParseNamespaceItem *item;
	ListCell   *name = list_head(names);
	ListCell   *lc;
	int			column = 0;

	context.pstate = make_parsestate(NULL);
	if (panes)
		item = addRangeTableEntryForSubquery(context.pstate, sx_panes_query(a, RelationGetRelid(mat)),
											 makeAlias("windows", NIL), false, true);
	else
		item = addRangeTableEntryForRelation(context.pstate, mat, AccessShareLock, NULL, true, true);
	addNSItemToQuery(context.pstate, item, true, true, true);
	context.varno = item->p_rtindex;
	context.columns = columns;
	context.firstkey = 1;
	context.firstagg = Max(list_length(a->keys), 1) + (panes ? 2 : 1);
	context.panes = panes;

	empty->commandType = CMD_SELECT;
	empty->querySource = QSRC_ORIGINAL;
	empty->canSetTag = true;
	empty->jointree = makeFromExpr(NIL, NULL);
	item = addRangeTableEntryForSubquery(context.pstate, empty, makeAlias("live", NIL), false, true);
	addNSItemToQuery(context.pstate, item, true, true, true);

	/* compare expressions as they are below the names that JOIN USING gives */
	SxFlattenGroupEntry(user);
	foreach(lc, a->keys)
		context.keys = lappend(context.keys,
							   SxFlattenAliases(user, (Node *) copyObject(lfirst_node(TargetEntry, lc)->expr)));
	foreach(lc, a->aggrefs)
		context.aggrefs = lappend(context.aggrefs,
								  SxFlattenAliases(user, (Node *) copyObject(lfirst(lc))));

	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->limitOption = LIMIT_OPTION_COUNT;
	query->sortClause = user->sortClause;
	foreach(lc, user->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		bool		sorts = tle->ressortgroupref != 0 &&
			get_sortgroupref_clause_noerr(tle->ressortgroupref, user->sortClause) != NULL;

		if (tle->resjunk && !sorts)
			continue;			/* a key that is not put out */
		if (!sorts)
			tle->ressortgroupref = 0;
		if (!tle->resjunk)
		{
			tle->resname = lfirst(name);
			name = lnext(names, name);
		}
		column++;
		if (a->strategy == SX_APPEND)
			tle->expr = (Expr *) table_column(&context, column);
		else
			tle->expr = (Expr *) reading_expression(SxFlattenAliases(user, (Node *) tle->expr), &context);
		tle->resno = column;
		tle->resorigtbl = InvalidOid;
		tle->resorigcol = 0;
		query->targetList = lappend(query->targetList, tle);
	}
	if (a->strategy == SX_MERGE && user->havingQual != NULL)
		query->jointree = makeFromExpr(context.pstate->p_joinlist,
									   reading_expression(SxFlattenAliases(user, user->havingQual), &context));
	else
		query->jointree = makeFromExpr(context.pstate->p_joinlist, NULL);
	query->hasSubLinks = checkExprHasSubLink((Node *) query->targetList) ||
		checkExprHasSubLink(query->jointree->quals);
	SxQueryTakeTables(query, context.pstate);
	return query;
}

Query *
sx_view_stored_query(Oid viewid)
{
	Relation	view = table_open(viewid, AccessShareLock);
	Query	   *query = copyObject(get_view_query(view));

	table_close(view, NoLock);
	/* what the rule's OLD and NEW stand for is added again when it is stored */
	while (linitial_node(RangeTblEntry, query->rtable)->rtekind == RTE_RELATION &&
		   linitial_node(RangeTblEntry, query->rtable)->relid == viewid)
	{
		query->rtable = list_delete_first(query->rtable);
		OffsetVarNodes((Node *) query, -1, 0);
	}
	return query;
}

static Node *
reading_expression(Node *node, ReadContext *context)
{
	Node	   *here = node;
	ListCell   *lc;
	int			i;

	if (node == NULL)
		return NULL;

	/* what belongs to the outermost query, seen from there */
	if (context->level > 0 &&
		((IsA(node, Var) && ((Var *) node)->varlevelsup == context->level) ||
		 (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == context->level)))
	{
		here = copyObject(node);
		IncrementVarSublevelsUp(here, -context->level, context->level);
	}
	if (context->level == 0 || here != node)
	{
		i = 0;
		foreach(lc, context->keys)
		{
			if (equal(lfirst(lc), here))
				return (Node *) table_column(context, context->firstkey + i);
			i++;
		}
		i = 0;
		foreach(lc, context->aggrefs)
		{
			if (equal(lfirst(lc), here))
			{
				Var		   *column = table_column(context, context->firstagg + i);

				if (sx_stores_result((Aggref *) lfirst(lc), context->panes))
					return (Node *) column;
				return finalize_call((Aggref *) lfirst(lc), column);
			}
			i++;
		}
	}
	if ((IsA(node, Var) && ((Var *) node)->varlevelsup == context->level) ||
		(IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == context->level))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an expression of the SELECT list or HAVING uses a column that is not in GROUP BY")));

	if (IsA(node, Query))
	{
		Query	   *result;

		context->level++;
		result = query_tree_mutator((Query *) node, reading_expression, context, 0);
		context->level--;
		return (Node *) result;
	}
	return expression_tree_mutator(node, reading_expression, context);
}

static Var *
table_column(ReadContext *context, int attno)
{
	SxTableColumn	   *column = list_nth(context->columns, attno - 1);
	Var		   *var = makeVar(context->varno, attno, column->type, column->typmod, column->collation, 0);

	markVarForSelectPriv(context->pstate, var);
	var->varlevelsup = context->level;
	return var;
}

/* finalize('aggregate'::regprocedure, state, NULL::result[, NULL::argument …]), or the state itself */
static Node *
finalize_call(Aggref *aggref, Var *state)
{
	static const Oid types[] = {REGPROCEDUREOID, ANYOID, ANYELEMENTOID, ANYOID};
	SxAgg	   *agg = sx_agg_from_aggref(aggref, CurrentMemoryContext);
	bool		polymorphic = sx_agg_is_polymorphic(aggref->aggfnoid);
	Oid			funcid;
	List	   *args;
	ListCell   *lc;

	if (sx_agg_plain(agg))
		return (Node *) state;

	funcid = LookupFuncName(list_make2(makeString(SX_SCHEMA), makeString("finalize")),
							polymorphic ? 4 : 3, types, false);
	args = list_make3(makeConst(REGPROCEDUREOID, -1, InvalidOid, sizeof(Oid),
								ObjectIdGetDatum(aggref->aggfnoid), false, true),
					  state,
					  makeNullConst(aggref->aggtype, -1, aggref->aggcollid));
	if (polymorphic)
	{
		foreach(lc, aggref->aggargtypes)
			args = lappend(args, makeNullConst(lfirst_oid(lc), -1, get_typcollation(lfirst_oid(lc))));
	}
	return (Node *) makeFuncExpr(funcid, aggref->aggtype, args, aggref->aggcollid,
								 aggref->inputcollid, COERCE_EXPLICIT_CALL);
}
