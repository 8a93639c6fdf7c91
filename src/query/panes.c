/*
 * panes.c
 *		Views that group by hop(): which they are, and the SQL that makes windows of their panes.
 *
 * The SQL is put together as text, from names that are qualified and quoted and from constants of the view's
 * own query, and given to the parser: the trees would say the same at ten times the length.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_func.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/regproc.h"

#include "query/aggregate_state.h"
#include "query/panes.h"
#include "query/window_key.h"

/* The parts of a statement over panes p and their windows h */
typedef struct PaneText
{
	char	   *table;			/* qualified */
	char	   *names;			/* all columns of the table */
	char	   *windows;		/* what gives a window's row */
	char	   *groups;			/* GROUP BY of that */
	char	   *from;			/* FROM of that */
	char	   *window;			/* the table's column */
	char	   *closed;			/* likewise */
	char	   *type;			/* of the window */
} PaneText;

static FuncExpr *hop_call(Expr *key);
static PaneText *make_text(Oid matid, FuncExpr *hop, int window_key, List *aggrefs);
static char *merge_call(Aggref *aggref, const char *state);
static char *constant(Node *node);
static char *column_name(SxViewInfo *info, int column);

bool
sx_keeps_panes(SxAnalysis *a)
{
	SxStreamDef *stream = sx_catalog_stream(a->streamid);
	Expr	   *window;
	Expr	   *own;
	FuncExpr   *hop;
	int			key;

	if (stream == NULL || a->strategy != SX_MERGE || stream->time.late != SX_LATE_MERGE ||
		list_length(a->keys) >= INDEX_MAX_KEYS)
		return false;
	key = sx_find_window_key(a, &stream->time, &window);
	if (key < 0)
		return false;
	/* several keys that return sets go in step, so that panes would meet other values than their windows */
	for (int i = 0; i < list_length(a->keys); i++)
		if (i != key && expression_returns_set((Node *) list_nth_node(TargetEntry, a->keys, i)->expr))
			return false;
	/* of this query itself, not of a sub-select */
	own = list_nth_node(TargetEntry, a->keys, key)->expr;
	if (hop_call((Expr *) eval_const_expressions(NULL, (Node *) own)) == NULL)
		return false;
	hop = hop_call(window);
	/* a pane's start is an event time, and windows without overlap are panes themselves */
	return hop != NULL && IsA(linitial(hop->args), Param) && !equal(lsecond(hop->args), lthird(hop->args));
}

/* NULL: it is something else */
static FuncExpr *
hop_call(Expr *key)
{
	FuncExpr   *call = (FuncExpr *) key;
	char	   *name;

	if (!IsA(key, FuncExpr) || get_func_namespace(call->funcid) != sx_catalog_schema_oid())
		return NULL;
	name = get_func_name(call->funcid);
	return name != NULL && strcmp(name, "hop") == 0 ? call : NULL;
}

Expr *
sx_pane_of_key(Expr *key)
{
	/* arguments by name take their places */
	FuncExpr   *hop = hop_call((Expr *) eval_const_expressions(NULL, (Node *) key));
	Oid		   *types;
	int			ntypes;

	if (hop == NULL)
		elog(ERROR, "the window of a view with panes is not hop()");
	(void) get_func_signature(hop->funcid, &types, &ntypes);
	return (Expr *) makeFuncExpr(LookupFuncName(list_make2(makeString(SX_SCHEMA), makeString("hop_pane")),
												ntypes, types, false),
								 hop->funcresulttype, hop->args, InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

Query *
sx_panes_query(SxAnalysis *a, Oid matid)
{
	SxStreamDef *stream = sx_catalog_stream(a->streamid);
	Expr	   *window;
	int			key = sx_find_window_key(a, &stream->time, &window);
	PaneText   *t = make_text(matid, hop_call(window), key, a->aggrefs);
	char	   *boundary = psprintf(SX_SCHEMA ".pane_boundary(%s::pg_catalog.regclass, NULL::%s)",
									quote_literal_cstr(t->table), t->type);
	char	   *sql = psprintf("SELECT %s FROM %s p WHERE p.%s AND p.%s OPERATOR(pg_catalog.<) %s "
							   "UNION ALL SELECT %s FROM %s WHERE NOT p.%s AND p.%s OPERATOR(pg_catalog.>=) %s "
							   "AND h.w OPERATOR(pg_catalog.>=) %s GROUP BY %s",
							   t->names, t->table, t->closed, t->window, boundary,
							   t->windows, t->from, t->closed, t->window, boundary,
							   boundary, t->groups);
	Query	   *query = parse_analyze_fixedparams(linitial_node(RawStmt, raw_parser(sql, RAW_PARSE_DEFAULT)), sql,
												  NULL, 0, NULL);
	Query	   *open = lsecond_node(RangeTblEntry, query->rtable)->subquery;
	ListCell   *lc;
	int			n = 0;

	/* a state's type may not show the collation that its functions go by */
	foreach(lc, open->targetList)
	{
		Aggref	   *merge = (Aggref *) lfirst_node(TargetEntry, lc)->expr;

		if (IsA(merge, Aggref))
			merge->inputcollid = list_nth_node(Aggref, a->aggrefs, n++)->inputcollid;
	}
	return query;
}

char *
sx_panes_in_order(SxViewInfo *info, bool first)
{
	char	   *window = column_name(info, info->window_key);
	StringInfoData order;

	initStringInfo(&order);
	for (int i = 0; i < info->closed_key; i++)
	{
		if (i != info->window_key)
			appendStringInfo(&order, "p.%s, ", column_name(info, i));
	}
	return psprintf("SELECT * FROM ONLY %s p WHERE NOT p.%s AND p.%s OPERATOR(pg_catalog.<) $1%s ORDER BY %sp.%s",
					quote_qualified_identifier(SX_SCHEMA, get_rel_name(info->def->matid)),
					column_name(info, info->closed_key), window,
					first ? "" : psprintf(" AND p.%s OPERATOR(pg_catalog.>=) $2", window),
					order.data, window);
}

static char *
column_name(SxViewInfo *info, int column)
{
	return pstrdup(quote_identifier(NameStr(TupleDescAttr(info->desc, column)->attname)));
}

static PaneText *
make_text(Oid matid, FuncExpr *hop, int window_key, List *aggrefs)
{
	PaneText   *t = palloc0(sizeof(PaneText));
	Relation	mat = table_open(matid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(mat);
	int			nkeys = desc->natts - list_length(aggrefs) - 1;
	StringInfoData names;
	StringInfoData windows;
	StringInfoData groups;
	StringInfoData call;
	ListCell   *lc;

	initStringInfo(&names);
	initStringInfo(&windows);
	initStringInfo(&groups);
	initStringInfo(&call);
	for (int i = 0; i < desc->natts; i++)
	{
		const char *name = quote_identifier(NameStr(TupleDescAttr(desc, i)->attname));
		const char *comma = i > 0 ? ", " : "";

		appendStringInfo(&names, "%sp.%s", comma, name);
		if (i == nkeys)
			appendStringInfo(&windows, "%strue", comma);
		else if (i > nkeys)
			appendStringInfo(&windows, "%s%s", comma, merge_call(list_nth(aggrefs, i - nkeys - 1), psprintf("p.%s", name)));
		else
		{
			const char *key = i == window_key ? "h.w" : psprintf("p.%s", name);

			appendStringInfo(&windows, "%s%s", comma, key);
			appendStringInfo(&groups, "%s%s", comma, key);
		}
	}
	t->table = quote_qualified_identifier(SX_SCHEMA, RelationGetRelationName(mat));
	t->names = names.data;
	t->windows = windows.data;
	t->groups = groups.data;
	t->window = pstrdup(quote_identifier(NameStr(TupleDescAttr(desc, window_key)->attname)));
	t->closed = pstrdup(quote_identifier(NameStr(TupleDescAttr(desc, nkeys)->attname)));
	t->type = format_type_be_qualified(TupleDescAttr(desc, window_key)->atttypid);
	table_close(mat, NoLock);

	for_each_from(lc, hop->args, 1)
		appendStringInfo(&call, ", %s", constant(lfirst(lc)));
	t->from = psprintf("%s p, LATERAL " SX_SCHEMA ".hop(p.%s%s) h(w)", t->table, t->window, call.data);
	return t;
}

static char *
merge_call(Aggref *aggref, const char *state)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	appendStringInfo(&buf, SX_SCHEMA ".merge(%s::pg_catalog.regprocedure, %s",
					 quote_literal_cstr(format_procedure_qualified(aggref->aggfnoid)), state);
	if (sx_agg_is_polymorphic(aggref->aggfnoid))
	{
		foreach(lc, aggref->aggargtypes)
			appendStringInfo(&buf, ", NULL::%s", format_type_be_qualified(lfirst_oid(lc)));
	}
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

static char *
constant(Node *node)
{
	Const	   *value = castNode(Const, node);
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(value->consttype, &output, &varlena);
	return psprintf("%s::%s", value->constisnull ? "NULL" :
					quote_literal_cstr(OidOutputFunctionCall(output, value->constvalue)),
					format_type_be_qualified(value->consttype));
}
