/*
 * view_windows.c
 *		What a view does with windows of event time beside computing them: shows only those that have closed (emit = on_close),
 *		finds them by an index, forgets old ones (retention).
 */
#include "query/view_def_internal.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/view.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "query/view_columns.h"
#include "query/window_key.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

static Node *is_final_call(SxAnalysis *a, Oid matid, int varno);
static Oid	is_final_function(void);
static bool is_call_of_is_final(Node *node, Oid matid);

/*
 * emit = on_close: the view shows only what streamext.is_final() says has closed.  The stored query gets or
 * loses that condition; all else stays as it is.
 */
void
sx_view_set_emit(const SxViewDef *def, bool on_close)
{
	SxAnalysis *a = sx_analyze_stored(def->queryid, def->streamid);
	Query	   *query;
	List	   *quals = NIL;
	int			varno;
	ListCell   *lc;

	LockRelationOid(def->viewid, AccessExclusiveLock);
	query = sx_view_stored_query(def->viewid);
	varno = sx_view_table_rti(query, def->matid);
	foreach(lc, make_ands_implicit((Expr *) query->jointree->quals))
	{
		if (!is_call_of_is_final(lfirst(lc), def->matid))
			quals = lappend(quals, lfirst(lc));
	}
	if (on_close)
		quals = lappend(quals, is_final_call(a, def->matid, varno));
	query->jointree->quals = quals == NIL ? NULL : (Node *) make_ands_explicit(quals);
	StoreViewQuery(def->viewid, query, true);
	CommandCounterIncrement();
}

static Node *
is_final_call(SxAnalysis *a, Oid matid, int varno)
{
	int			key = sx_needed_window(a, "\"streamext.emit\" = \"on_close\"");
	Node	   *expr = (Node *) list_nth_node(TargetEntry, a->keys, key)->expr;

	return (Node *) makeFuncExpr(is_final_function(), BOOLOID,
								 list_make2(makeConst(REGCLASSOID, -1, InvalidOid, sizeof(Oid),
													  ObjectIdGetDatum(matid), false, true),
											makeVar(varno, key + 1, exprType(expr), exprTypmod(expr),
													exprCollation(expr), 0)),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/*
 * Old windows are found by an index; when the window is the first key, that of the keys serves.
 */
void
sx_view_prepare_retention(const SxViewDef *def)
{
	SxAnalysis *a = sx_analyze_stored(def->queryid, def->streamid);
	int			key = sx_needed_window(a, "\"streamext.retention\"");
	SxStreamDef *stream = sx_catalog_stream(a->streamid);

	if (stream->time.type == INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"streamext.retention\" needs an event time of type timestamptz, timestamp or date"),
				 errdetail("Column \"%s\" has type bigint, which has no unit of time.", NameStr(stream->event_time)),
				 errhint("Leave it out, or declare another column as event_time.")));
	sx_view_index_window(def, key, a->session && key == list_length(a->keys) - 1);
}

/*
 * Sessions are found by their ends.  Whoever drops the index makes removing and appending slow, not wrong.
 */
void
sx_view_index_window(const SxViewDef *def, int key, bool session)
{
	Relation	mat = table_open(def->matid, ShareLock);
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(mat), key);
	IndexStmt  *stmt = makeNode(IndexStmt);
	IndexElem  *elem = makeNode(IndexElem);
	bool		indexed = false;
	ListCell   *lc;

	if (session)
		elem->expr = (Node *) makeFuncExpr(F_UPPER_ANYRANGE, get_range_subtype(att->atttypid),
										   list_make1(makeVar(1, key + 1, att->atttypid, att->atttypmod,
															  att->attcollation, 0)),
										   InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	else
		elem->name = pstrdup(NameStr(att->attname));
	foreach(lc, RelationGetIndexList(mat))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		AttrNumber	first = index->rd_index->indkey.values[0];

		indexed |= index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) &&
			(session ? first == 0 && equal(linitial(RelationGetIndexExpressions(index)), elem->expr) :
			 first == key + 1);
		index_close(index, NoLock);
	}
	table_close(mat, NoLock);
	if (indexed)
		return;

	stmt->relation = makeRangeVar(SX_SCHEMA, get_rel_name(def->matid), -1);
	stmt->accessMethod = pstrdup("btree");
	stmt->transformed = true;
	elem->ordering = SORTBY_DEFAULT;
	elem->nulls_ordering = SORTBY_NULLS_DEFAULT;
	stmt->indexParams = list_make1(elem);
	SxDefineIndex(def->matid, stmt);
	CommandCounterIncrement();
}

/* the key that is the view's window */
int
sx_needed_window(SxAnalysis *a, const char *what)
{
	SxStreamDef *stream = sx_catalog_stream(a->streamid);
	Expr	   *window;
	int			key = stream ? sx_find_window_key(a, &stream->time, &window) : -1;

	if (key < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s needs windows of event time", what),
				 stream == NULL || stream->time.attno == InvalidAttrNumber ?
				 errdetail("Stream \"%s\" has no event time.", get_rel_name(a->streamid)) :
				 errdetail("The query does not group by a window of column \"%s\".", NameStr(stream->event_time)),
				 stream == NULL || stream->time.attno == InvalidAttrNumber ?
				 errhint("Declare it first with streamext.create_stream() or streamext.alter_stream().") :
				 errhint("Group by streamext.tumble(), streamext.hop() or streamext.session() on it.")));
	return key;
}

static Oid
is_final_function(void)
{
	static const Oid types[] = {REGCLASSOID, ANYELEMENTOID};

	return LookupFuncName(list_make2(makeString(SX_SCHEMA), makeString("is_final")), 2, types, false);
}

static bool
is_call_of_is_final(Node *node, Oid matid)
{
	FuncExpr   *f = (FuncExpr *) node;
	Const	   *arg;

	if (!IsA(node, FuncExpr) || f->funcid != is_final_function())
		return false;
	arg = linitial(f->args);
	return IsA(arg, Const) && DatumGetObjectId(arg->constvalue) == matid;
}
