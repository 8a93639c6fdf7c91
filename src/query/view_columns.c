/*
 * view_columns.c
 *		The columns of a continuous view, and what stands behind them.
 *
 * All is read from the stored definition of the user's view, so that renamed columns are found by their
 * present names.
 */
#include "postgres.h"

#include "access/table.h"
#include "nodes/parsenodes.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "query/view_columns.h"

static bool stands_for_table(RangeTblEntry *rte, Oid matid);

Node *
sx_view_column_expr(const SxViewDef *def, const char *colname)
{
	Relation	view = table_open(def->viewid, AccessShareLock);
	Query	   *query = copyObject(get_view_query(view));
	AttrNumber	attno = get_attnum(def->viewid, colname);
	int			rti;
	Node	   *expr;

	table_close(view, NoLock);
	if (attno == InvalidAttrNumber || attno > list_length(query->targetList))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of continuous view \"%s\" does not exist",
						colname, get_rel_name(def->viewid))));
	expr = (Node *) list_nth_node(TargetEntry, query->targetList, attno - 1)->expr;

	/* the stored rule may have other entries in front */
	rti = sx_view_table_rti(query, def->matid);
	if (rti != 1)
		ChangeVarNodes(expr, rti, 1, 0);
	return expr;
}

int
sx_view_table_rti(Query *query, Oid matid)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		if (stands_for_table(lfirst_node(RangeTblEntry, lc), matid))
			return foreach_current_index(lc) + 1;
	}
	elog(ERROR, "materialized table with OID %u is missing from the definition of its view", matid);
	return 0;
}

/* panes are put together in a sub-select that has the table's columns */
static bool
stands_for_table(RangeTblEntry *rte, Oid matid)
{
	ListCell   *lc;

	if (rte->rtekind == RTE_RELATION)
		return rte->relid == matid;
	if (rte->rtekind != RTE_SUBQUERY)
		return false;
	foreach(lc, rte->subquery->rtable)
	{
		if (stands_for_table(lfirst_node(RangeTblEntry, lc), matid))
			return true;
	}
	return false;
}

List *
sx_view_columns(const SxViewDef *def)
{
	Relation	view = table_open(def->viewid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(view);
	List	   *names = NIL;

	for (int i = 0; i < desc->natts; i++)
		names = lappend(names, pstrdup(NameStr(TupleDescAttr(desc, i)->attname)));
	table_close(view, NoLock);
	return names;
}

char *
sx_view_key_column(const SxViewDef *def, int key)
{
	ListCell   *lc;

	foreach(lc, sx_view_columns(def))
	{
		Node	   *expr = sx_view_column_expr(def, lfirst(lc));

		if (IsA(expr, Var) && ((Var *) expr)->varno == 1 && ((Var *) expr)->varattno == key + 1)
			return lfirst(lc);
	}
	return NULL;
}
