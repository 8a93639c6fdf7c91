/*
 * alert_functions.c
 *		SQL: streamext.create_alert, drop_alert; and the trigger that sees restored alerts.
 *
 * create_alert first waits until the view has all that is committed, and notes the groups that satisfy the
 * condition then: they are not reported.  What becomes true between this and the commit is, because the alerter
 * begins with a look at the whole view.  So every group is either noted here or reported, and none twice.
 *
 * Locking: ShareUpdateExclusiveLock on the user's view, as for any change of its definition; dropping
 * takes AccessExclusiveLock on the internal view, which the alerter holds while it writes a report.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog/alerts.h"
#include "ddl/ddl.h"
#include "query/alert_def.h"
#include "query/plan.h"
#include "worker/worker.h"
#include "testing/stop_points.h"

PG_FUNCTION_INFO_V1(sx_create_alert);
PG_FUNCTION_INFO_V1(sx_drop_alert);
PG_FUNCTION_INFO_V1(sx_alert_restored);
PG_FUNCTION_INFO_V1(sx_alerter_runs);

/* rows fetched at a time */
#define FETCH_ROWS	1000

static char *text_argument(FunctionCallInfo fcinfo, int n, const char *name);
static void check_names(const char *name, const char *channel);
static void wait_for_view(const SxViewDef *view);
static void note_satisfied(const SxViewDef *view, Oid alertid);
static void prevent(const char *function);

static void
prevent(const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);
}

Datum
sx_create_alert(PG_FUNCTION_ARGS)
{
	SxAlertDef	def;
	SxViewDef  *view;
	char	   *condition;

	prevent("streamext.create_alert()");
	def.name = text_argument(fcinfo, 0, "name");
	condition = text_argument(fcinfo, 2, "condition");
	def.channel = text_argument(fcinfo, 3, "channel");
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("view must not be null")));
	def.viewid = PG_GETARG_OID(1);

	(void) sx_view_for_user(def.viewid, true);
	check_names(def.name, def.channel);
	/* one change of the view's definition at a time */
	LockRelationOid(def.viewid, ShareUpdateExclusiveLock);
	view = sx_view_for_user(def.viewid, true);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("streamext.create_alert() must see what is committed now"),
				 errhint("Call it in a transaction of isolation level READ COMMITTED.")));
	sx_alert_check_keys(view);

	def.alertid = sx_alert_create_condition(view, condition);
	SX_STOP_POINT_OF(alert_condition, def.viewid);
	wait_for_view(view);
	sx_catalog_insert_alert(&def);
	CommandCounterIncrement();
	note_satisfied(view, def.alertid);
	SX_STOP_POINT_OF(alert_created, def.viewid);
	PG_RETURN_VOID();
}

static char *
text_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static void
check_names(const char *name, const char *channel)
{
	if (name[0] == '\0' || strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of an alert must have between 1 and %d bytes", NAMEDATALEN - 1)));
	if (channel[0] == '\0' || strlen(channel) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channel must have between 1 and %d bytes", NAMEDATALEN - 1),
				 errhint("It is the name in LISTEN.")));
	if (sx_catalog_alert_by_name(name) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("alert \"%s\" already exists", name),
				 errhint("Choose another name, or SELECT streamext.drop_alert(%s) first.", quote_literal_cstr(name))));
}

/* so that it is certain what was there before */
static void
wait_for_view(const SxViewDef *view)
{
	char	   *blocker = NULL;
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(view->matid));
	bool		own;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", view->matid);
	/* nobody else knows it yet */
	own = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data)) &&
		sx_catalog_position(view->viewid) == NULL;
	ReleaseSysCache(tuple);
	if (own)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot create an alert in the transaction that creates its view"),
				 errhint("COMMIT first.")));
	if (!sx_wait(view->viewid, sx_wait_timeout, false, &blocker))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" did not catch up within streamext.wait_timeout (%d ms)",
						get_rel_name(view->viewid), sx_wait_timeout),
				 blocker ? errdetail_internal("%s", blocker) : 0,
				 errhint("Create the alert when the view follows: see streamext.status.")));
}

/* the groups that satisfy the condition now, in one statement that sees all that is committed */
static void
note_satisfied(const SxViewDef *view, Oid alertid)
{
	SxAlertRows *rows = sx_alert_rows(view);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "streamext alert rows", ALLOCSET_DEFAULT_SIZES);
	SxRunAs		as;
	char	   *sql;
	SPIPlanPtr	plan;
	Portal		portal;

	PushActiveSnapshot(GetTransactionSnapshot());
	sql = psprintf("SELECT * FROM %s", quote_qualified_identifier(SX_SCHEMA, get_rel_name(alertid)));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	sx_run_as_begin(&as, view);
	if ((plan = SPI_prepare(sql, 0, NULL)) == NULL)
		elog(ERROR, "could not prepare an alert's condition: %s", SPI_result_code_string(SPI_result));
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(context);
			SxAlertRow *row;

			CHECK_FOR_INTERRUPTS();
			row = sx_alert_row(rows, alertid, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, true);
			(void) sx_catalog_insert_fired(row);
			MemoryContextSwitchTo(old);
			MemoryContextReset(context);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	sx_run_as_end(&as);
	SPI_finish();
	PopActiveSnapshot();
	MemoryContextDelete(context);
}

Datum
sx_drop_alert(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	SxAlertDef *def;
	ObjectAddress address;

	prevent("streamext.drop_alert()");
	sx_require_preload();
	def = sx_catalog_alert_by_name(name);
	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("alert \"%s\" does not exist", name),
				 errhint("SELECT alert FROM streamext.alert_status lists them.")));
	if (!SxClassOwnerCheck(def->viewid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, get_rel_name(def->viewid));
	LockRelationOid(def->viewid, ShareUpdateExclusiveLock);
	LockRelationOid(def->alertid, AccessExclusiveLock);
	if (sx_catalog_alert(def->alertid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("alert \"%s\" does not exist", name)));
	/* the object access hook deletes what is stored of it */
	ObjectAddressSet(address, RelationRelationId, def->alertid);
	performDeletion(&address, DROP_RESTRICT, 0);
	SX_STOP_POINT_OF(alert_dropped, def->viewid);
	PG_RETURN_VOID();
}

Datum
sx_alerter_runs(PG_FUNCTION_ARGS)
{
	SxDb	   *db = sx_my_db();

	PG_RETURN_BOOL(db != NULL && db->places[SX_ALERTER].pid != 0);
}

/* a row trigger for inserts into streamext.alert_def, by pg_restore */
Datum
sx_alert_restored(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != sx_catalog_table_oid("alert_def"))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("alert_restored is a row trigger for inserts into streamext.alert_def")));
	sx_catalog_announce();
	sx_worker_announce();
	return PointerGetDatum(trigger->tg_trigtuple);
}
