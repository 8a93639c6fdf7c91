/*
 * valid.c
 *		The condition that rows of a stream must meet, declared with create_stream(valid => ...).
 *
 * It is kept as an internal view, SELECT true FROM stream WHERE condition, so that PostgreSQL itself follows
 * renames, keeps dependencies and dumps it.  Like a CHECK constraint it sees one row, and null passes.
 *
 * Whoever owns the table writes the condition, for everybody's views on it.  So it runs as the owner of the
 * table, never as a view's owner, in transactions of its own (worker/entrance.c), and under the settings of its
 * declaration: one row is valid or not for all views alike.
 *
 * A process keeps the planned expression until something that it depends on changes; what the catalogs say of the
 * stream is read again after any change of ours.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "query/alert_def.h"
#include "query/analyze_internal.h"
#include "query/valid.h"

/* pg_attribute.attgenerated of columns that are in no row */
#define GENERATED_VIRTUAL	'v'

struct SxValid
{
	Oid			streamid;
	Oid			conditionid;
	SxViewDef	as;				/* owner and settings only */
	MemoryContext context;
	CachedExpression *expr;		/* NULL: not made yet */
	AttrNumber	natts;
};

/* What this process knows of a stream */
typedef struct Known
{
	Oid			streamid;		/* hash key */
	uint64		changes;		/* as of this many */
	SxValid    *valid;
} Known;

static HTAB *known_streams = NULL;
static uint64 changes = 1;

static void check_columns(Query *query, Oid streamid);
static bool check_column(Node *node, void *context);
static void catalog_changed(void);
static SxValid *make_valid(const SxStreamDef *stream);
static void forget_valid(SxValid *valid);
static Expr *read_condition(Oid conditionid, Oid streamid);

/* ---- declaring ---- */

Oid
sx_valid_create_condition(Oid streamid, const char *condition)
{
	SelectStmt *select = makeNode(SelectStmt);
	ResTarget  *target = makeNode(ResTarget);
	A_Const    *yes = makeNode(A_Const);
	RawStmt    *raw = makeNode(RawStmt);
	Oid			schema = sx_catalog_schema_oid();
	Oid			owner = sx_table_owner(streamid);
	Oid			save_userid;
	int			save_sec_context;
	char		name[NAMEDATALEN];
	ErrorContextCallback callback;
	Query	   *query;
	Oid			result;

	yes->val.boolval.type = T_Boolean;
	yes->val.boolval.boolval = true;
	yes->location = -1;
	target->name = "valid";
	target->val = (Node *) yes;
	target->location = -1;
	select->targetList = list_make1(target);
	select->fromClause = list_make1(makeRangeVar(get_namespace_name(get_rel_namespace(streamid)),
												 get_rel_name(streamid), -1));
	sx_condition_errors_begin(&callback, condition);
	select->whereClause = sx_parse_condition(condition, "amount >= 0 AND user_id IS NOT NULL");
	raw->stmt = (Node *) select;
	query = parse_analyze_fixedparams(raw, condition, NULL, 0, NULL);
	sx_condition_errors_end(&callback);
	if (query->hasSubLinks)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a stream's condition cannot contain a sub-select"),
				 errdetail("It sees one row of the stream, as a CHECK constraint does."),
				 errhint("Filter by another table in the continuous view's query.")));
	check_columns(query, streamid);
	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(owner, save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	sx_check_stream_functions(query);
	SetUserIdAndSecContext(save_userid, save_sec_context);

	do
	{
		snprintf(name, sizeof(name), "valid_" INT64_FORMAT,
				 nextval_internal(get_relname_relid("view_id_seq", schema), false));
	} while (OidIsValid(get_relname_relid(name, schema)));

	/* as for a view's internal relations: view_def.c */
	SetUserIdAndSecContext(sx_catalog_extension_owner(), save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	result = sx_create_internal_view(query, list_make1("valid"), name, owner);
	SetUserIdAndSecContext(save_userid, save_sec_context);
	sx_catalog_condition_depends(result, streamid);
	return result;
}

/* only what stands in the row */
static void
check_columns(Query *query, Oid streamid)
{
	(void) expression_tree_walker((Node *) query->jointree, check_column, &streamid);
}

static bool
check_column(Node *node, void *context)
{
	Oid			streamid = *(Oid *) context;
	Var		   *var = (Var *) node;
	HeapTuple	tup;

	if (node == NULL)
		return false;
	if (!IsA(node, Var))
		return expression_tree_walker(node, check_column, context);
	if (var->varattno < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a stream's condition cannot use system column \"%s\"",
						get_attname(streamid, var->varattno, false)),
				 errhint("Use columns of the table.")));
	if (var->varattno == 0)
		return false;
	tup = SearchSysCacheAttNum(streamid, var->varattno);
	if (HeapTupleIsValid(tup))
	{
		if (((Form_pg_attribute) GETSTRUCT(tup))->attgenerated == GENERATED_VIRTUAL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a stream's condition cannot use virtual generated column \"%s\"",
							get_attname(streamid, var->varattno, false)),
					 errhint("Write its expression instead, or make the column STORED.")));
		ReleaseSysCache(tup);
	}
	return false;
}

void
sx_valid_drop_condition(Oid conditionid)
{
	ObjectAddress address;

	ObjectAddressSet(address, RelationRelationId, conditionid);
	performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
}

char *
sx_valid_text(const SxStreamDef *stream)
{
	Expr	   *expr;

	/* a lock that is not free is that of whoever drops it: not worth waiting for */
	if (!OidIsValid(stream->conditionid) || !ConditionalLockRelationOid(stream->conditionid, AccessShareLock))
		return NULL;
	expr = read_condition(stream->conditionid, stream->streamid);
	if (expr == NULL)
		return NULL;
	return deparse_expression((Node *) expr, deparse_context_for(get_rel_name(stream->streamid), stream->streamid),
							  false, false);
}

/*
 * The WHERE of the internal view, with the stream as relation 1; NULL if the view is gone.  The caller has a lock
 * on it.
 */
static Expr *
read_condition(Oid conditionid, Oid streamid)
{
	Relation	view = try_relation_open(conditionid, AccessShareLock);
	Query	   *query;
	RangeTblRef *from;
	Node	   *result;

	if (view == NULL)
		return NULL;
	query = view->rd_rel->relkind == RELKIND_VIEW ? get_view_query(view) : NULL;
	from = query != NULL && list_length(query->jointree->fromlist) == 1 ? linitial(query->jointree->fromlist) : NULL;
	if (from == NULL || !IsA(from, RangeTblRef) || query->jointree->quals == NULL ||
		((RangeTblEntry *) list_nth(query->rtable, from->rtindex - 1))->relid != streamid ||
		exprType(query->jointree->quals) != BOOLOID || query->hasSubLinks)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("internal view \"%s\" is not a condition of stream \"%s\"",
						RelationGetRelationName(view), get_rel_name(streamid)),
				 errhint("Declare the condition again: streamext.alter_stream(valid => ...).")));
	result = copyObject(query->jointree->quals);
	if (from->rtindex != 1)
		ChangeVarNodes(result, from->rtindex, 1, 0);
	relation_close(view, NoLock);
	return (Expr *) result;
}

/* ---- what the process knows ---- */

static void
catalog_changed(void)
{
	changes++;
}

bool
sx_valid_may_exist(Oid streamid)
{
	Known	   *known;

	if (known_streams == NULL)
		return true;
	known = hash_search(known_streams, &streamid, HASH_FIND, NULL);
	return known == NULL || known->changes != changes || known->valid != NULL;
}

SxValid *
sx_valid_of_stream(Oid streamid)
{
	Known	   *known;
	SxStreamDef *stream;
	SxValid    *old;
	uint64		as_of;
	bool		found;

	if (known_streams == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(Known);
		sx_catalog_on_change(catalog_changed);
		known_streams = hash_create("streamext conditions of streams", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	known = hash_search(known_streams, &streamid, HASH_ENTER, &found);
	if (!found)
	{
		known->changes = 0;
		known->valid = NULL;
	}
	if (known->changes == changes)
		return known->valid;

	as_of = changes;
	stream = sx_catalog_stream(streamid);
	old = known->valid;
	if (stream == NULL || !OidIsValid(stream->conditionid))
		known->valid = NULL;
	else if (old == NULL || old->conditionid != stream->conditionid)
		known->valid = make_valid(stream);
	if (old != NULL && old != known->valid)
		forget_valid(old);
	known->changes = as_of;
	return known->valid;
}

static SxValid *
make_valid(const SxStreamDef *stream)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "streamext condition of a stream",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SxValid    *valid = palloc0(sizeof(SxValid));
	ListCell   *lc;

	valid->context = context;
	valid->streamid = stream->streamid;
	valid->conditionid = stream->conditionid;
	foreach(lc, stream->condition_settings)
		valid->as.settings = lappend(valid->as.settings, pstrdup(lfirst(lc)));
	MemoryContextSwitchTo(old);
	return valid;
}

static void
forget_valid(SxValid *valid)
{
	if (valid->expr != NULL)
		FreeCachedExpression(valid->expr);
	MemoryContextDelete(valid->context);
}

/* ---- evaluating ---- */

bool
sx_valid_begin(SxValidRun *run, SxValid *valid)
{
	MemoryContext old;
	Bitmapset  *attrs = NULL;
	Expr	   *expr;
	int			attr = -1;

	run->valid = valid;
	valid->as.owner = sx_table_owner(valid->streamid);
	sx_run_as_begin(&run->as, &valid->as);
	if (valid->expr != NULL && !valid->expr->is_valid)
	{
		FreeCachedExpression(valid->expr);
		valid->expr = NULL;
	}
	if (valid->expr == NULL)
	{
		/* whoever holds the lock drops it */
		if (!ConditionalLockRelationOid(valid->conditionid, AccessShareLock))
		{
			sx_run_as_end(&run->as);
			return false;
		}
		expr = read_condition(valid->conditionid, valid->streamid);
		if (expr == NULL)
			expr = (Expr *) makeBoolConst(true, false);
		pull_varattnos((Node *) expr, 1, &attrs);
		valid->natts = 0;
		while ((attr = bms_next_member(attrs, attr)) >= 0)
		{
			AttrNumber	attno = attr + FirstLowInvalidHeapAttributeNumber;

			valid->natts = attno == InvalidAttrNumber ? MaxAttrNumber : Max(valid->natts, attno);
		}
		valid->expr = GetCachedExpression((Node *) expr);
	}
	run->natts = valid->natts;
	run->estate = CreateExecutorState();
	run->econtext = GetPerTupleExprContext(run->estate);
	old = MemoryContextSwitchTo(run->estate->es_query_cxt);
	run->state = ExecInitExpr((Expr *) valid->expr->expr, NULL);
	MemoryContextSwitchTo(old);
	return true;
}

bool
sx_valid_test(SxValidRun *run, TupleTableSlot *slot)
{
	ResetExprContext(run->econtext);
	run->econtext->ecxt_scantuple = slot;
	return ExecCheck(run->state, run->econtext);
}

void
sx_valid_end(SxValidRun *run)
{
	FreeExecutorState(run->estate);
	sx_run_as_end(&run->as);
}

char *
sx_valid_message(SxValidRun *run)
{
	SxStreamDef stream = {.streamid = run->valid->streamid,.conditionid = run->valid->conditionid};
	char	   *text = sx_valid_text(&stream);

	return text ? psprintf("the row fails the condition of the stream: %s", text) :
		pstrdup("the row fails the condition of the stream");
}

char *
sx_valid_failure(Oid streamid, HeapTuple row)
{
	SxValid    *valid = sx_valid_of_stream(streamid);
	SxValidRun	run;
	Relation	stream;
	TupleTableSlot *slot;
	char	   *message = NULL;

	if (valid == NULL)
		return NULL;
	if (!sx_valid_begin(&run, valid))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the condition of stream \"%s\" is being changed", get_rel_name(streamid))));
	stream = table_open(streamid, AccessShareLock);
	slot = MakeSingleTupleTableSlot(RelationGetDescr(stream), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(row, slot, false);
	if (!sx_valid_test(&run, slot))
		message = sx_valid_message(&run);
	ExecDropSingleTupleTableSlot(slot);
	table_close(stream, NoLock);
	sx_valid_end(&run);
	return message;
}
