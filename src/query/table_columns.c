/*
 * table_columns.c
 *		The columns of a materialized table: which there are, and what they are called.
 *
 * Keys come first, then for each aggregate its result, where that is stored, or its state, and at the end the states of stored
 * results (view_info.h).  Columns have the names that they have in the view, as far as they can: whoever looks at the
 * table, or at a plan, finds what he knows.
 */
#include "query/view_def_internal.h"

#include "catalog/heap.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"

#include "query/aggregate_state.h"

static void add_state(List **columns, SxAnalysis *a, List *names, Aggref *aggref);
static void add_column(List **columns, const char *wanted, const char *kind,
					   Oid type, int32 typmod, Oid collation, List *reserved);
static char *output_name_of(SxAnalysis *a, List *names, Node *expr, TargetEntry *key);
static bool name_is_taken(List *columns, const char *name);

List *
sx_table_columns(SxAnalysis *a, List *names, bool panes)
{
	List	   *columns = NIL;
	ListCell   *lc;

	if (a->strategy == SX_APPEND)
	{
		ListCell   *name = list_head(names);

		foreach(lc, a->query->targetList)
		{
			Node	   *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

			if (lfirst_node(TargetEntry, lc)->resjunk)
				continue;
			add_column(&columns, lfirst(name), "column", exprType(expr), exprTypmod(expr),
					   exprCollation(expr), names);
			name = lnext(names, name);
		}
		return columns;
	}

	if (a->keys == NIL)
		add_column(&columns, "singleton",
				   "key", BOOLOID, -1, InvalidOid, names);
	foreach(lc, a->keys)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Node	   *expr = (Node *) tle->expr;

		add_column(&columns, output_name_of(a, names, NULL, tle), "key",
				   exprType(expr), exprTypmod(expr), exprCollation(expr), names);
	}
	if (panes)
		add_column(&columns, "closed", "key", BOOLOID, -1, InvalidOid, names);
	foreach(lc, a->aggrefs)
	{
		Aggref	   *aggref = lfirst_node(Aggref, lc);

		if (sx_stores_result(aggref, panes))
			add_column(&columns, output_name_of(a, names, (Node *) aggref, NULL), "result",
					   aggref->aggtype, -1, InvalidOid, names);
		else
			add_state(&columns, a, names, aggref);
	}
	foreach(lc, a->aggrefs)
	{
		if (sx_stores_result(lfirst_node(Aggref, lc), panes))
			add_state(&columns, a, names, lfirst_node(Aggref, lc));
	}
	return columns;
}

static void
add_state(List **columns, SxAnalysis *a, List *names, Aggref *aggref)
{
	SxAgg	   *agg = sx_agg_from_aggref(aggref, CurrentMemoryContext);
	Oid			type = sx_agg_storage_type(agg);
	Oid			collation = InvalidOid;

	/* the state's column carries the collation that the aggregate's functions use */
	if (type_is_collatable(type))
		collation = OidIsValid(aggref->inputcollid) ? aggref->inputcollid : get_typcollation(type);
	add_column(columns,
			   sx_agg_plain(agg) ? output_name_of(a, names, (Node *) aggref, NULL) : NULL,
			   "state", type, -1, collation, names);
}

/* windows are put together from panes by their states */
bool
sx_stores_result(Aggref *aggref, bool panes)
{
	return !panes && sx_agg_stores_result(sx_agg_from_aggref(aggref, CurrentMemoryContext));
}

/* the name of the output column that is exactly this aggregate or key, or NULL */
static char *
output_name_of(SxAnalysis *a, List *names, Node *expr, TargetEntry *key)
{
	ListCell   *lc;
	int			i = 0;

	foreach(lc, a->query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		if (key != NULL ? tle->resno == key->resno : equal(tle->expr, expr))
			return list_nth(names, i);
		i++;
	}
	return NULL;
}

/* wanted NULL, taken or not allowed in a table: <kind>_<i>; reserved: the user's names */
static void
add_column(List **columns, const char *wanted, const char *kind,
		   Oid type, int32 typmod, Oid collation, List *reserved)
{
	SxTableColumn	   *column = palloc(sizeof(SxTableColumn));
	int			number = list_length(*columns) + 1;
	ListCell   *lc;

	if (wanted != NULL && SystemAttributeByName(wanted) == NULL && !name_is_taken(*columns, wanted))
		column->name = pstrdup(wanted);
	else
	{
		bool		taken;

		column->name = psprintf("%s_%d", kind, number);
		do
		{
			taken = name_is_taken(*columns, column->name);
			foreach(lc, reserved)
				taken |= strcmp(lfirst(lc), column->name) == 0;
			if (taken)
				column->name = psprintf("%s_", column->name);
		} while (taken);
	}
	if (type_is_collatable(type) && !OidIsValid(collation))
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_COLLATION),
				 errmsg("could not determine which collation to use for column \"%s\" of the continuous view",
						column->name),
				 errhint("Use the COLLATE clause to set the collation explicitly.")));
	column->type = type;
	column->typmod = typmod;
	column->collation = type_is_collatable(type) ? collation : InvalidOid;
	*columns = lappend(*columns, column);
}

static bool
name_is_taken(List *columns, const char *name)
{
	ListCell   *lc;

	foreach(lc, columns)
	{
		if (strcmp(((SxTableColumn *) lfirst(lc))->name, name) == 0)
			return true;
	}
	return false;
}
