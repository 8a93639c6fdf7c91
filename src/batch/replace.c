/*
 * replace.c
 *		SQL: REFRESH MATERIALIZED VIEW, streamext.replace_view() and cancel_replace(): makes the hidden
 *		view that is to take a view's place; see replace.h.
 *
 * What would keep the swap from succeeding is refused here, before anything is built: columns that differ, indexes
 * that cannot be kept, sinks that would be fed from another stream.  While a replacement is being built the view's
 * columns, options, owner and indexes stay as they are (sx_refuse_while_replaced).
 *
 * Locking: ShareUpdateExclusiveLock on the visible view, which conflicts with itself and with what changes it.
 */
#include "batch/replace.h"

#include "access/reloptions.h"
#include "access/table.h"
#include "access/tupdesc.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "commands/tablespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "rewrite/rewriteHandler.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "capture/event_time.h"
#include "catalog/sinks.h"
#include "ddl/ddl.h"
#include "ddl/ddl_internal.h"
#include "query/view_def.h"
#include "worker/worker.h"
#include "testing/stop_points.h"

/* a rebuild that has failed so often in a row is given up by the command that waits for it */
#define MOST_FAILURES	3

PG_FUNCTION_INFO_V1(sx_replace_view);
PG_FUNCTION_INFO_V1(sx_cancel_replace);

static Oid	begin(const SxViewDef *def, Query *query, List *names, const SxViewOptions *options, bool force);
static void check_expired(const SxViewDef *def, const SxViewDef *hidden);
static SxViewDef *lock_view(Oid viewid);
static SxViewOptions options_of(const SxViewDef *def);
static IntoClause *into_of(const SxViewDef *def, List *names);
static List *stored_options(HeapTuple tup);
static List *column_names(Oid relid);
static void check_columns(const SxViewDef *def, Oid hidden);
static bool is_same_query(const SxViewDef *def, Query *query);
static void check_sinks(const SxViewDef *def, const SxViewDef *hidden);

/* replace_view(view regclass, query text, force boolean): true if there is something to do */
Datum
sx_replace_view(PG_FUNCTION_ARGS)
{
	char	   *select = text_to_cstring(PG_GETARG_TEXT_PP(1));
	SxViewDef  *def = sx_view_for_user(PG_GETARG_OID(0), true);
	SxViewOptions options;
	RawStmt    *raw = makeNode(RawStmt);
	Query	   *query;

	PreventCommandIfReadOnly("streamext.replace_view()");
	PreventCommandIfParallelMode("streamext.replace_view()");
	PreventCommandDuringRecovery("streamext.replace_view()");
	def = lock_view(def->viewid);
	raw->stmt = (Node *) sx_parse_select(select);
	query = parse_analyze_fixedparams(raw, select, NULL, 0, NULL);
	if (!PG_GETARG_BOOL(2) && is_same_query(def, query))
	{
		ereport(NOTICE,
				(errmsg("continuous view \"%s\" has this definition already", get_rel_name(def->viewid))));
		PG_RETURN_BOOL(false);
	}
	options = options_of(def);
	(void) begin(def, query, NIL, &options, PG_GETARG_BOOL(2));
	PG_RETURN_BOOL(true);
}

/* cancel_replace(view regclass): false if no replacement was being built */
Datum
sx_cancel_replace(PG_FUNCTION_ARGS)
{
	SxViewDef  *def = sx_view_for_user(PG_GETARG_OID(0), true);
	SxViewDef  *hidden;

	PreventCommandIfReadOnly("streamext.cancel_replace()");
	PreventCommandIfParallelMode("streamext.cancel_replace()");
	PreventCommandDuringRecovery("streamext.cancel_replace()");
	LockRelationOid(def->viewid, ShareUpdateExclusiveLock);
	hidden = sx_catalog_replacement_of(def->viewid);
	if (hidden == NULL)
		PG_RETURN_BOOL(false);
	sx_drop_hidden(hidden);
	PG_RETURN_BOOL(true);
}

void
sx_drop_hidden(const SxViewDef *hidden)
{
	ObjectAddresses *objects = new_object_addresses();
	Oid			relids[] = {hidden->viewid, hidden->queryid, hidden->matid};

	for (int i = 0; i < lengthof(relids); i++)
	{
		ObjectAddress address;

		LockRelationOid(relids[i], AccessExclusiveLock);
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relids[i])))
			return;				/* somebody was faster */
		ObjectAddressSet(address, RelationRelationId, relids[i]);
		add_exact_object_address(&address, objects);
	}
	performMultipleDeletions(objects, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	free_object_addresses(objects);
}

Oid
sx_refresh_begin(const SxViewDef *given)
{
	SxViewDef  *def = lock_view(given->viewid);
	SxViewOptions options = options_of(def);
	Query	   *query = sx_view_stored_query(def->queryid);

	AcquireRewriteLocks(query, true, false);
	options.stream = def->streamid;
	options.settings = def->settings;
	return begin(def, query, column_names(def->viewid), &options, false);
}

static SxViewDef *
lock_view(Oid viewid)
{
	SxViewDef  *def;

	LockRelationOid(viewid, ShareUpdateExclusiveLock);
	def = sx_view_for_user(viewid, true);
	if (OidIsValid(def->replaces))
		sx_refuse_internal(def, viewid);
	sx_refuse_while_replaced(def);
	return def;
}

void
sx_refuse_while_replaced(const SxViewDef *def)
{
	if (sx_catalog_replacement_of(def->viewid) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("continuous view \"%s\" is being rebuilt or replaced", get_rel_name(def->viewid)),
				 errhint("Wait with SELECT streamext.wait_for(%s), or give it up with SELECT streamext.cancel_replace(%s).",
						 sx_argument_to_type(def->viewid), sx_argument_to_type(def->viewid))));
}

static Oid
begin(const SxViewDef *def, Query *query, List *names, const SxViewOptions *options, bool force)
{
	Oid			save_userid;
	int			save_sec_context;
	ObjectAddress address;
	SxViewDef  *hidden;

	/* from here on the slot keeps what the new view has not read */
	sx_worker_require();
	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(def->owner, save_sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	address = sx_view_create(into_of(def, names), query, options);
	CommandCounterIncrement();
	hidden = sx_catalog_view(address.objectId);
	check_columns(def, hidden->viewid);
	check_sinks(def, hidden);
	/* expressions of indexes are the owner's, too */
	sx_copy_indexes(def, hidden);
	sx_copy_column_settings(def, hidden);
	SetUserIdAndSecContext(save_userid, save_sec_context);
	if (!force)
		check_expired(def, hidden);
	SX_STOP_POINT_OF(replace_begun, def->viewid);
	return hidden->viewid;
}

static SxViewOptions
options_of(const SxViewDef *def)
{
	SxViewOptions options = {0};

	options.on_close = def->on_close;
	options.flush_interval = def->flush_interval;
	options.retention = def->retention;
	options.replaces = def->viewid;
	return options;
}

/* stored as the view's table is */
static IntoClause *
into_of(const SxViewDef *def, List *names)
{
	IntoClause *into = makeNode(IntoClause);
	Oid			tablespace = get_rel_tablespace(def->matid);
	HeapTuple	tup = SearchSysCache1(RELOID, ObjectIdGetDatum(def->matid));
	Oid			toastid;
	ListCell   *lc;

	into->rel = makeRangeVar(SX_SCHEMA, pstrdup(get_rel_name(def->viewid)), -1);
	into->colNames = names;
	into->onCommit = ONCOMMIT_NOOP;
	if (OidIsValid(tablespace))
		into->tableSpaceName = get_tablespace_name(tablespace);
	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for relation %u", def->matid);
	into->options = stored_options(tup);
	toastid = ((Form_pg_class) GETSTRUCT(tup))->reltoastrelid;
	ReleaseSysCache(tup);
	tup = SearchSysCache1(RELOID, ObjectIdGetDatum(toastid));
	if (HeapTupleIsValid(tup))
	{
		List	   *options = stored_options(tup);

		foreach(lc, options)
			lfirst_node(DefElem, lc)->defnamespace = pstrdup("toast");
		into->options = list_concat(into->options, options);
		ReleaseSysCache(tup);
	}
	return into;
}

/* of a table: its row in pg_class */
static List *
stored_options(HeapTuple tup)
{
	bool		isnull;
	Datum		options = SysCacheGetAttr(RELOID, tup, Anum_pg_class_reloptions, &isnull);

	return isnull ? NIL : untransformRelOptions(options);
}

static List *
column_names(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	List	   *names = NIL;

	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
		names = lappend(names, makeString(pstrdup(NameStr(TupleDescAttr(RelationGetDescr(rel), i)->attname))));
	table_close(rel, NoLock);
	return names;
}

/* as CREATE OR REPLACE VIEW: what depends on the view, and its grants, go by its columns */
static void
check_columns(const SxViewDef *def, Oid hidden)
{
	Relation	rel = table_open(def->viewid, AccessShareLock);
	Relation	other = table_open(hidden, AccessShareLock);
	TupleDesc	before = RelationGetDescr(rel);
	TupleDesc	after = RelationGetDescr(other);

	if (after->natts < before->natts)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("cannot drop columns from continuous view \"%s\"", RelationGetRelationName(rel)),
				 errdetail("The new definition has %d columns, the view has %d.", after->natts, before->natts),
				 errhint("Keep the columns and add new ones at the end, or create another view.")));
	for (int i = 0; i < before->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(before, i);
		Form_pg_attribute b = TupleDescAttr(after, i);

		if (strcmp(NameStr(a->attname), NameStr(b->attname)) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("cannot change name of view column \"%s\" to \"%s\"",
							NameStr(a->attname), NameStr(b->attname)),
					 errhint("Use ALTER VIEW ... RENAME COLUMN ... to change name of view column instead.")));
		if (a->atttypid != b->atttypid || a->atttypmod != b->atttypmod)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("cannot change data type of view column \"%s\" from %s to %s", NameStr(a->attname),
							format_type_with_typemod(a->atttypid, a->atttypmod),
							format_type_with_typemod(b->atttypid, b->atttypmod)),
					 errhint("Cast the expression to the type that the column has, or create another view.")));
		if (a->attcollation != b->attcollation)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("cannot change collation of view column \"%s\" from \"%s\" to \"%s\"", NameStr(a->attname),
							get_collation_name(a->attcollation), get_collation_name(b->attcollation))));
	}
	table_close(other, NoLock);
	table_close(rel, NoLock);
}

/* what has been passed on goes by the stream's time */
static void
check_sinks(const SxViewDef *def, const SxViewDef *hidden)
{
	ListCell   *lc;

	foreach(lc, sx_catalog_sinks(def->viewid))
	{
		SxSink	   *sink = lfirst(lc);

		if (def->streamid != hidden->streamid)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("continuous view \"%s\" has sinks, so its stream cannot be replaced", get_rel_name(def->viewid)),
					 errhint("Remove them first with SELECT streamext.drop_sink(%s, %s).", sx_argument_to_type(def->viewid),
							 sx_argument_to_type(sink->target))));
	}
}

/* what the view has of rows that are gone cannot be had again */
static void
check_expired(const SxViewDef *def, const SxViewDef *hidden)
{
	int64		expired;
	char	   *name = get_rel_name(def->viewid);

	/* until we commit: whoever lets rows expire looks for views after he has noted it */
	sx_catalog_lock_stream(def->streamid);
	expired = sx_catalog_expired_until(def->streamid);
	if (expired == SX_TIME_NONE || hidden->streamid != def->streamid)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("continuous view \"%s\" cannot be built from the rows of its stream any more", name),
			 errdetail("Rows of stream \"%s\" before %s have expired.", get_rel_name(def->streamid),
					   sx_event_time_text(expired, sx_catalog_stream(def->streamid)->time.type)),
			 errhint("CALL streamext.backfill() computes later windows anew. SELECT streamext.replace_view(%s, query, force => true) builds the view from what is there.",
					 sx_argument_to_type(def->viewid))));
}

/* with the view's names for the columns, which may have been renamed since the query was stored */
static bool
is_same_query(const SxViewDef *def, Query *query)
{
	Query	   *stored = sx_view_stored_query(def->queryid);
	List	   *names = column_names(def->viewid);
	ListCell   *name = list_head(names);
	ListCell   *lc;

	foreach(lc, stored->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		tle->resname = strVal(lfirst(name));
		name = lnext(names, name);
	}
	return strcmp(pg_get_querydef(stored, false), pg_get_querydef(copyObject(query), false)) == 0;
}

/* ---- REFRESH waits ---- */

void
sx_refresh_wait(Oid viewid, Oid old_matid, Oid hidden)
{
	SxViewDef  *def;

	for (;;)
	{
		SxDb	   *db = sx_my_db();
		SxView	   *v;
		char		error[sizeof(v->last_error)] = "";
		bool		stuck = false;

		CHECK_FOR_INTERRUPTS();
		StartTransactionCommand();
		def = sx_catalog_view(hidden);
		CommitTransactionCommand();
		if (def == NULL)
			break;
		v = db ? sx_view_by_id(db, hidden) : NULL;
		if (v != NULL)
		{
			SpinLockAcquire(&db->mutex);
			stuck = v->swap_stuck;
			if (stuck || (v->state == SX_VIEW_FAILED && v->failures >= MOST_FAILURES))
				memcpy(error, v->last_error, sizeof(error));
			SpinLockRelease(&db->mutex);
		}
		if (stuck)
		{
			StartTransactionCommand();
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("continuous view \"%s\" is rebuilt, but the new contents cannot take their place",
							get_rel_name(viewid)),
					 errdetail_internal("%s", error),
					 errhint("The view goes on as it was. Remove what is in the way: it is tried again every few seconds. Or give it up with SELECT streamext.cancel_replace(%s).",
							 sx_argument_to_type(viewid))));
		}
		if (error[0] != '\0')
		{
			StartTransactionCommand();
			def = sx_catalog_view(hidden);
			if (def != NULL)
				sx_drop_hidden(def);
			CommitTransactionCommand();
			StartTransactionCommand();
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("could not rebuild continuous view \"%s\"", get_rel_name(viewid)),
					 errdetail_internal("%s", error),
					 errhint("The view is as it was.")));
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 50, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}

	/* it is gone: has it taken its place? */
	StartTransactionCommand();
	def = sx_catalog_view(viewid);
	if (def == NULL || def->matid == old_matid)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("rebuilding the continuous view was given up"),
				 errdetail(def == NULL ? "The view has been dropped." : "Somebody has called streamext.cancel_replace().")));
	CommitTransactionCommand();
}
