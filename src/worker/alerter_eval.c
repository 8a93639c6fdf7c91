/*
 * alerter_eval.c
 *		Looks whether groups satisfy the conditions of alerts, and reports those that do.
 *
 * Three kinds of transactions, so that user code and our own writes do not meet:
 *	 groups	   read only, as the view's owner: their rows are put together (live/group_scan.c)
 *	 one per alert	read only, as the view's owner, with a time limit: the internal view runs over these rows;
 *			   what satisfies the condition and was not reported yet becomes JSON
 *	 reports   if there are any, as ourselves, without user code: rows in streamext.alert_fired and the
 *			   NOTIFYs
 *
 * What the second found may have been dropped by the time of the third, or reported (no: we are alone, but the
 * unique key does not depend on that).  A crash before the last commit leaves nothing: the group is found
 * again.  After it the NOTIFY is the server's business: sessions that listen get it, others do not.
 *
 * Locks are tried, not waited for, where a command on the view or the alert may hold them.
 */
#include "worker/alerter_internal.h"

#include "access/xact.h"
#include "catalog/definitions.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "live/group_scan.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "testing/stop_points.h"

/* see commands/async.c */
#define MAX_PAYLOAD		(BLCKSZ - NAMEDATALEN - 128 - 1)
/* how often a snapshot is taken that is too old for what is live */
#define SNAPSHOT_TRIES	10

static SxGroupRows *collect(AlertedView *av, AlertGroups *groups, MemoryContext mcxt, SxViewDef **def,
							AlertResult *result, ErrorData **error);
static bool lock_view(AlertedView *av);
static AlertResult evaluate(SxDb *db, AlertedView *av, Alert *alert, SxViewDef *def, SxGroupRows *rows,
							MemoryContext mcxt);
static List *satisfied(Alert *alert, SxViewDef *def, SxGroupRows *rows, MemoryContext mcxt);
static AlertResult report(Alert *alert, MemoryContext mcxt);
static char *payload(const Alert *alert, const char *view, const SxAlertRow *row, int64 id);
static void blame(SxDb *db, Oid alertid);

AlertResult
sx_alerter_look(SxDb *db, AlertedView *av, List *alerts, AlertGroups *groups, MemoryContext mcxt)
{
	SxGroupRows *rows = NULL;
	SxViewDef  *def = NULL;
	AlertResult result = ALERT_DONE;
	ErrorData  *error = NULL;
	ListCell   *lc;

	for (int tries = 0; tries < SNAPSHOT_TRIES; tries++)
	{
		rows = collect(av, groups, mcxt, &def, &result, &error);
		if (result != ALERT_FAILED || error->sqlerrcode != ERRCODE_SNAPSHOT_TOO_OLD)
			break;
	}
	if (result == ALERT_FAILED)
		foreach(lc, alerts)
			sx_alerter_failed(lfirst(lc), error->message);
	if (result != ALERT_DONE)
		return result;
	SX_STOP_POINT_OF(alerter_collected, av->viewid);

	if (rows == NULL || rows->nrows == 0)
		return ALERT_DONE;
	foreach(lc, alerts)
	{
		Alert	   *alert = lfirst(lc);

		result = evaluate(db, av, alert, def, rows, mcxt);
		if (result == ALERT_DONE && alert->reports != NIL)
			result = report(alert, mcxt);
		alert->reports = NIL;
		if (result == ALERT_LOCKED)
			sx_alerter_postpone(alert);
	}
	return ALERT_DONE;
}

/* as they are now; NULL: there is nothing to be read yet */
static SxGroupRows *
collect(AlertedView *av, AlertGroups *groups, MemoryContext mcxt, SxViewDef **def, AlertResult *result,
		ErrorData **error)
{
	SxGroupRows *volatile rows = NULL;

	*result = ALERT_DONE;
	PG_TRY();
	{
		SxViewContext vc;
		SxStoredPosition *position = NULL;

		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		sx_view_context_push(&vc, av->viewid, "reading for alerts");
		if (!lock_view(av))
			*result = ALERT_LOCKED;
		else if ((*def = sx_catalog_view(av->viewid)) != NULL && (*def)->matid == av->matid)
			position = sx_catalog_position(av->viewid);
		/* rows of a restored table are another database's, those of a part of history not the groups yet */
		if (position && position->ours && !sx_is_in_history(position))
		{
			SxViewDef  *copy;
			SxRunAs		as;
			ListCell   *lc;

			MemoryContextSwitchTo(mcxt);
			copy = palloc(sizeof(SxViewDef));
			*copy = **def;
			copy->settings = NIL;
			foreach(lc, (*def)->settings)
				copy->settings = lappend(copy->settings, pstrdup(lfirst(lc)));
			*def = copy;

			sx_budget_start(sx_budget_of_flush(SX_ALERT_ROWS));
			sx_run_as_begin(&as, copy);
			if (groups->rows)
				rows = sx_groups_of_rows(av->matid, groups->rows->nrows, groups->rows->rows, groups->rows->hashes);
			else
				rows = sx_groups_of_blocks(av->matid, groups->block, SX_ALERT_ROWS, &groups->next);
			sx_run_as_end(&as);
			(void) sx_budget_stop();
			if (sx_budget_exceeded())
				ereport(ERROR,
						(errcode(ERRCODE_QUERY_CANCELED),
						 errmsg("reading the view took too long")));
		}
		sx_view_context_pop(&vc);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		*error = sx_worker_recover(mcxt);
		(void) sx_budget_stop();
		*result = ALERT_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(mcxt);
	return rows;
}

static bool
lock_view(AlertedView *av)
{
	if (!ConditionalLockRelationOid(av->viewid, AccessShareLock) ||
		!ConditionalLockRelationOid(av->matid, AccessShareLock))
		return false;
	AcceptInvalidationMessages();
	/* dropped: the catalog will say so */
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(av->matid));
}

/* who is to blame if this process has to end */
static void
blame(SxDb *db, Oid alertid)
{
	SpinLockAcquire(&db->mutex);
	db->blamed_alert = alertid;
	SpinLockRelease(&db->mutex);
}

/* what is to be reported goes to alert->reports */
static AlertResult
evaluate(SxDb *db, AlertedView *av, Alert *alert, SxViewDef *def, SxGroupRows *rows, MemoryContext mcxt)
{
	volatile AlertResult result = ALERT_DONE;

	blame(db, alert->def.alertid);
	PG_TRY();
	{
		SxViewContext vc;

		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		sx_view_context_push(&vc, alert->def.viewid, "evaluating an alert on");
		if (!ConditionalLockRelationOid(alert->def.alertid, AccessShareLock) || !lock_view(av))
			result = ALERT_LOCKED;
		else if (sx_catalog_alert(alert->def.alertid) != NULL)
		{
			SxRunAs		as;

			sx_budget_start(sx_budget_of_flush(rows->nrows));
			sx_run_as_begin(&as, def);
			alert->reports = satisfied(alert, def, rows, mcxt);
			sx_run_as_end(&as);
			(void) sx_budget_stop();
			/* the condition may have caught the cancel */
			if (sx_budget_exceeded())
				ereport(ERROR,
						(errcode(ERRCODE_QUERY_CANCELED),
						 errmsg("canceling statement due to user request")));
		}
		sx_view_context_pop(&vc);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(mcxt);

		(void) sx_budget_stop();
		sx_group_rows = NULL;
		sx_alerter_failed(alert, sx_budget_exceeded() ? "its condition takes too long" : error->message);
		result = ALERT_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(mcxt);
	blame(db, InvalidOid);
	SX_STOP_POINT_OF(alert_evaluated, alert->def.viewid);
	return result;
}

/* of SxAlertRow *, in mcxt: groups that satisfy the condition and have not been reported */
static List *
satisfied(Alert *alert, SxViewDef *def, SxGroupRows *rows, MemoryContext mcxt)
{
	List	   *reports = NIL;
	SxAlertRows *columns = NULL;
	MemoryContext scratch;
	int			result;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	/* plans are made while it is set */
	sx_group_rows = rows;
	if (alert->plan == NULL)
	{
		char	   *sql = psprintf("SELECT * FROM %s", quote_qualified_identifier(SX_SCHEMA, get_rel_name(alert->def.alertid)));
		SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);

		if (plan == NULL)
			elog(ERROR, "could not prepare an alert's condition: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		alert->plan = plan;
	}
	result = SPI_execute_plan(alert->plan, NULL, NULL, true, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not evaluate an alert's condition: %s", SPI_result_code_string(result));
	sx_group_rows = NULL;

	scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext alert row", ALLOCSET_DEFAULT_SIZES);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		SxAlertRow *row;

		CHECK_FOR_INTERRUPTS();
		if (columns == NULL)
			columns = sx_alert_rows(def);
		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		row = sx_alert_row(columns, alert->def.alertid, tuple, SPI_tuptable->tupdesc, true);
		if (!sx_catalog_alert_fired(alert->def.alertid, row->key))
		{
			MemoryContextSwitchTo(mcxt);
			reports = lappend(reports, sx_alert_row(columns, alert->def.alertid, tuple, SPI_tuptable->tupdesc, false));
		}
	}
	SPI_finish();
	return reports;
}

/* ---- reports ---- */

static AlertResult
report(Alert *alert, MemoryContext mcxt)
{
	volatile AlertResult result = ALERT_DONE;

	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		/* whoever drops it waits for us, or has done so */
		if (!ConditionalLockRelationOid(alert->def.alertid, AccessShareLock))
			result = ALERT_LOCKED;
		else if (sx_catalog_alert(alert->def.alertid) != NULL)
		{
			char	   *view = quote_qualified_identifier(get_namespace_name(get_rel_namespace(alert->def.viewid)),
														  get_rel_name(alert->def.viewid));
			ListCell   *lc;

			foreach(lc, alert->reports)
			{
				SxAlertRow *row = lfirst(lc);

				CHECK_FOR_INTERRUPTS();
				if (sx_catalog_alert_fired(row->alertid, row->key))
					continue;
				row->at = GetCurrentTimestamp();
				Async_Notify(alert->def.channel, payload(alert, view, row, sx_catalog_insert_fired(row)));
			}
			SX_STOP_POINT_OF(alert_written, alert->def.viewid);
		}
		PopActiveSnapshot();
		CommitTransactionCommand();
		SX_STOP_POINT_OF(alert_committed, alert->def.viewid);
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(mcxt);

		sx_alerter_failed(alert, error->message);
		result = ALERT_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(mcxt);
	return result;
}

/* with the whole row, or if that is too long with the keys; whoever gets neither finds them by the id */
static char *
payload(const Alert *alert, const char *view, const SxAlertRow *row, int64 id)
{
	const char *const names[] = {"row", "group", NULL};
	const char *const values[] = {row->row, row->group, NULL};
	StringInfoData head;
	char		at[MAXDATELEN + 1];

	initStringInfo(&head);
	appendStringInfo(&head, "{\"id\": " INT64_FORMAT ", \"alert\": ", id);
	escape_json(&head, alert->def.name);
	appendStringInfoString(&head, ", \"view\": ");
	escape_json(&head, view);
	JsonEncodeDateTime(at, TimestampTzGetDatum(row->at), TIMESTAMPTZOID, NULL);
	appendStringInfo(&head, ", \"at\": \"%s\"", at);
	for (int i = 0; names[i] != NULL; i++)
		if (head.len + strlen(names[i]) + strlen(values[i]) + 7 <= MAX_PAYLOAD)
		{
			appendStringInfo(&head, ", \"%s\": %s", names[i], values[i]);
			break;
		}
	appendStringInfoChar(&head, '}');
	return head.data;
}
