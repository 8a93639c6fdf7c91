/*
 * alert_def.c
 *		An alert's condition as an internal view, and its rows as reports.
 *
 * A condition is an expression over one row of the view, evaluated when the row has changed.  So it may
 * contain what a continuous view may (functions.c): what depends on the clock or the session would become
 * true without any row changing, and nobody would look.  The same goes for sub-selects.
 *
 * The key of a report is a digest of the group's keys in which equal keys give equal bytes: of the value's text
 * where equality means that, else (numeric, float, citext, nondeterministic collations ...) of its extended
 * hash, which agrees with equality.  It fits an index whatever the size of the keys, and nobody can choose
 * keys that hide behind others.
 */
#include "query/alert_def.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "commands/tablecmds.h"
#include "commands/view.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "query/analyze_internal.h"
#include "query/view_columns.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

/* two of them make 128 bits */
#define FIRST_SEED	UINT64CONST(0x5374726561)
#define SECOND_SEED UINT64CONST(0x6d65787421)

static void point_into_condition(void *arg);
static void refuse_sub_selects(Query *query);
static bool find_sub_select(Node *node, void *context);
static AttrNumber key_column(Query *query, Oid matid, AttrNumber key);
static bool has_no_keys(const SxViewDef *view, TupleDesc matdesc);
static void append_key(StringInfo buf, Form_pg_attribute att, Datum value, bool isnull);
static bool equal_means_same(TypeCacheEntry *type, Oid collation);
static char *json_of(TupleDesc desc, Datum *values, bool *isnull);

/* ---- the condition ---- */

Oid
sx_alert_create_condition(const SxViewDef *view, const char *condition)
{
	SelectStmt *select = makeNode(SelectStmt);
	ColumnRef  *star = makeNode(ColumnRef);
	ResTarget  *target = makeNode(ResTarget);
	RawStmt    *raw = makeNode(RawStmt);
	Oid			schema = sx_catalog_schema_oid();
	Oid			owner = view->owner;
	Oid			save_userid;
	int			save_sec_context;
	char		name[NAMEDATALEN];
	ErrorContextCallback callback;
	Query	   *query;
	List	   *names = NIL;
	ListCell   *lc;
	Oid			result;

	star->fields = list_make1(makeNode(A_Star));
	star->location = -1;
	target->val = (Node *) star;
	target->location = -1;
	select->targetList = list_make1(target);
	select->fromClause = list_make1(makeRangeVar(get_namespace_name(get_rel_namespace(view->viewid)),
												 get_rel_name(view->viewid), -1));
	sx_condition_errors_begin(&callback, condition);
	select->whereClause = sx_parse_condition(condition, "n > 10 OR amount > 1000");
	raw->stmt = (Node *) select;
	query = parse_analyze_fixedparams(raw, condition, NULL, 0, NULL);
	sx_condition_errors_end(&callback);
	refuse_sub_selects(query);
	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(owner, save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	sx_check_alert_functions(query);
	SetUserIdAndSecContext(save_userid, save_sec_context);

	foreach(lc, query->targetList)
		names = lappend(names, lfirst_node(TargetEntry, lc)->resname);
	do
	{
		snprintf(name, sizeof(name), "alert_" INT64_FORMAT,
				 nextval_internal(get_relname_relid("view_id_seq", schema), false));
	} while (OidIsValid(get_relname_relid(name, schema)));

	/* as for a view's internal relations: view_def.c */
	SetUserIdAndSecContext(sx_catalog_extension_owner(), save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	result = sx_create_internal_view(query, names, name, owner);
	SetUserIdAndSecContext(save_userid, save_sec_context);
	return result;
}

/* positions in errors are those in the condition, not in the caller's statement */
void
sx_condition_errors_begin(ErrorContextCallback *callback, const char *condition)
{
	callback->callback = point_into_condition;
	callback->arg = unconstify(char *, condition);
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

void
sx_condition_errors_end(ErrorContextCallback *callback)
{
	error_context_stack = callback->previous;
}

static void
point_into_condition(void *arg)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(arg);
	}
}

/* the text is parsed as one expression, never pasted */
Node *
sx_parse_condition(const char *condition, const char *example)
{
	List	   *raw = raw_parser(condition, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *stmt = castNode(SelectStmt, linitial_node(RawStmt, raw)->stmt);

	if (list_length(stmt->targetList) != 1 || stmt->distinctClause != NIL || stmt->fromClause != NIL ||
		stmt->whereClause != NULL || stmt->groupClause != NIL || stmt->havingClause != NULL ||
		stmt->windowClause != NIL || stmt->valuesLists != NIL || stmt->sortClause != NIL ||
		stmt->limitCount != NULL || stmt->limitOffset != NULL || stmt->lockingClause != NIL ||
		stmt->withClause != NULL || stmt->op != SETOP_NONE ||
		linitial_node(ResTarget, stmt->targetList)->name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("condition must be one expression"),
				 errhint("Write it as in WHERE, such as: %s.", example)));
	return linitial_node(ResTarget, stmt->targetList)->val;
}

static void
refuse_sub_selects(Query *query)
{
	if (find_sub_select((Node *) query->jointree, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an alert's condition cannot contain a sub-select"),
				 errdetail("It is evaluated when a group changes, not when other tables do."),
				 errhint("Join the other table in the continuous view's query.")));
}

static bool
find_sub_select(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		return true;
	return expression_tree_walker(node, find_sub_select, context);
}

/* ---- the keys ---- */

void
sx_alert_check_keys(const SxViewDef *view)
{
	if (view->strategy != SX_MERGE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("continuous view \"%s\" has no groups", get_rel_name(view->viewid)),
				 errdetail("An alert is sent once per group; this view keeps rows."),
				 errhint("Create the alert on a view with GROUP BY: the rows' key, for example.")));
	if (sx_analyze_stored(view->queryid, view->streamid)->session)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("alerts are not supported on a continuous view with session()"),
				 errdetail("An alert is sent once per group; sessions grow and become one, so they are no groups to tell apart."),
				 errhint("Create the alert on a view with GROUP BY over the other columns or tumble().")));
	(void) sx_alert_rows(view);
}

static bool
has_no_keys(const SxViewDef *view, TupleDesc matdesc)
{
	return view->nkeys == 1 && TupleDescAttr(matdesc, 0)->atttypid == BOOLOID &&
		strcmp(NameStr(TupleDescAttr(matdesc, 0)->attname), "singleton") == 0 &&
		TupleDescAttr(matdesc, 0)->attnotnull;
}

SxAlertRows *
sx_alert_rows(const SxViewDef *view)
{
	SxAlertRows *rows = palloc0(sizeof(SxAlertRows));
	Relation	rel = table_open(view->viewid, AccessShareLock);
	Relation	mat = table_open(view->matid, AccessShareLock);
	TupleDesc	matdesc = RelationGetDescr(mat);
	Query	   *query = get_view_query(rel);

	rows->view = palloc(sizeof(SxViewDef));
	*rows->view = *view;
	rows->nkeys = has_no_keys(view, matdesc) ? 0 : view->nkeys - (view->panes ? 1 : 0);
	rows->column = palloc(sizeof(AttrNumber) * (rows->nkeys + 1));
	rows->rowdesc = CreateTupleDescCopy(RelationGetDescr(rel));
	rows->rowdesc->tdtypeid = RECORDOID;
	rows->rowdesc->tdtypmod = -1;
	rows->rowdesc = BlessTupleDesc(rows->rowdesc);
	rows->groupdesc = CreateTemplateTupleDesc(rows->nkeys);
	for (int i = 0; i < rows->nkeys; i++)
	{
		rows->column[i] = key_column(query, view->matid, i + 1);
		if (rows->column[i] == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("group key %d of continuous view \"%s\" is not in its SELECT list",
							i + 1, RelationGetRelationName(rel)),
					 errdetail("An alert names the group that it is about."),
					 errhint("Create the view again with all GROUP BY expressions in its SELECT list.")));
		TupleDescCopyEntry(rows->groupdesc, i + 1, rows->rowdesc, rows->column[i]);
	}
	rows->groupdesc = BlessTupleDesc(rows->groupdesc);
	table_close(mat, NoLock);
	table_close(rel, NoLock);
	return rows;
}

/* the column of the user's view that is just this one of the table */
static AttrNumber
key_column(Query *query, Oid matid, AttrNumber key)
{
	int			rti = sx_view_table_rti(query, matid);
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) tle->expr;

		if (!tle->resjunk && IsA(var, Var) && var->varlevelsup == 0 && var->varattno == key && var->varno == rti)
			return tle->resno;
	}
	return InvalidAttrNumber;
}

/* ---- reports ---- */

SxAlertRow *
sx_alert_row(SxAlertRows *rows, Oid alertid, HeapTuple tuple, TupleDesc desc, bool key_only)
{
	SxAlertRow *row = palloc0(sizeof(SxAlertRow));
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *isnull = palloc(sizeof(bool) * desc->natts);
	Datum	   *keys = palloc(sizeof(Datum) * (rows->nkeys + 1));
	bool	   *keynull = palloc(sizeof(bool) * (rows->nkeys + 1));
	StringInfoData buf;

	if (desc->natts != rows->rowdesc->natts)
		elog(ERROR, "an alert's internal view has another number of columns than its continuous view");
	heap_deform_tuple(tuple, desc, values, isnull);
	initStringInfo(&buf);
	appendStringInfoSpaces(&buf, VARHDRSZ);
	for (int i = 0; i < rows->nkeys; i++)
	{
		keys[i] = values[rows->column[i] - 1];
		keynull[i] = isnull[rows->column[i] - 1];
		append_key(&buf, TupleDescAttr(rows->groupdesc, i), keys[i], keynull[i]);
	}
	SET_VARSIZE(buf.data, buf.len);
	row->alertid = alertid;
	row->key = DatumGetByteaPP(DirectFunctionCall1(sha256_bytea, PointerGetDatum(buf.data)));
	if (!key_only)
	{
		row->group = rows->nkeys == 0 ? pstrdup("{}") : json_of(rows->groupdesc, keys, keynull);
		row->row = json_of(rows->rowdesc, values, isnull);
	}
	return row;
}

/* each with its length, so that no two rows of keys run into each other */
static void
append_key(StringInfo buf, Form_pg_attribute att, Datum value, bool isnull)
{
	TypeCacheEntry *type;
	uint32		length = 0;

	if (isnull)
	{
		appendStringInfoChar(buf, 'n');
		return;
	}
	type = lookup_type_cache(att->atttypid, TYPECACHE_BTREE_OPFAMILY | TYPECACHE_HASH_EXTENDED_PROC_FINFO);
	if (!equal_means_same(type, att->attcollation) && OidIsValid(type->hash_extended_proc_finfo.fn_oid))
	{
		uint64		hash[2];

		hash[0] = DatumGetUInt64(FunctionCall2Coll(&type->hash_extended_proc_finfo, att->attcollation,
												   value, UInt64GetDatum(FIRST_SEED)));
		hash[1] = DatumGetUInt64(FunctionCall2Coll(&type->hash_extended_proc_finfo, att->attcollation,
												   value, UInt64GetDatum(SECOND_SEED)));
		appendStringInfoChar(buf, 'h');
		appendBinaryStringInfo(buf, (char *) hash, sizeof(hash));
	}
	else
	{
		Oid			output;
		bool		varlena;
		char	   *text;

		getTypeOutputInfo(att->atttypid, &output, &varlena);
		text = OidOutputFunctionCall(output, value);
		length = strlen(text);
		appendStringInfoChar(buf, 't');
		appendBinaryStringInfo(buf, (char *) &length, sizeof(length));
		appendBinaryStringInfo(buf, text, length);
	}
}

/* btree knows, for deduplication */
static bool
equal_means_same(TypeCacheEntry *type, Oid collation)
{
	Oid			proc;

	if (!OidIsValid(type->btree_opf))
		return true;
	proc = get_opfamily_proc(type->btree_opf, type->btree_opintype, type->btree_opintype, BTEQUALIMAGE_PROC);
	return OidIsValid(proc) &&
		DatumGetBool(OidFunctionCall1Coll(proc, collation, ObjectIdGetDatum(type->btree_opintype)));
}

static char *
json_of(TupleDesc desc, Datum *values, bool *isnull)
{
	HeapTuple	tuple = heap_form_tuple(desc, values, isnull);

	return TextDatumGetCString(DirectFunctionCall1(row_to_json, heap_copy_tuple_as_datum(tuple, desc)));
}
