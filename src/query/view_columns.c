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

Node *
sx_view_column_expr(const SxViewDef *def, const char *colname)
{
	Relation	view = table_open(def->viewid, AccessShareLock);
	Query	   *query = copyObject(get_view_query(view));
	AttrNumber	attno = get_attnum(def->viewid, colname);
	int			rti = 0;
	ListCell   *lc;
	Node	   *expr;

	table_close(view, NoLock);
	if (attno == InvalidAttrNumber || attno > list_length(query->targetList))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of continuous view \"%s\" does not exist",
						colname, get_rel_name(def->viewid))));
	expr = (Node *) list_nth_node(TargetEntry, query->targetList, attno - 1)->expr;

	/* the stored rule may have other entries in front */
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		rti++;
		if (rte->rtekind == RTE_RELATION && rte->relid == def->matid)
		{
			if (rti != 1)
				ChangeVarNodes(expr, rti, 1, 0);
			return expr;
		}
	}
	elog(ERROR, "materialized table of continuous view \"%s\" is missing from its definition",
		 get_rel_name(def->viewid));
	return NULL;
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
