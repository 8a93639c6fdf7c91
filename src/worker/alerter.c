/*
 * alerter.c
 *		The alerter of a database: finds groups that satisfy an alert's condition.  It runs while there
 *		are alerts.
 *
 * Two ways lead to a group:
 *	 changes	the consumer lists the entries that each cycle changed (live/live_changes.h) and wakes us;
 *				we look at just these groups.  This is what makes alerts fast.
 *	 a scan		of all live entries and then of the whole table, in small parts, between which changes go on
 *				to be looked at.  This is what makes them complete: it is due whenever groups may have
 *				changed without being listed.
 *
 * A scan is due when an alert is new, when we start, when a view joins the others (a builder may have written its
 * table), when a builder has written, or a session (retry_dead_letters), when a flush may have stored that windows
 * have closed (of a view with emit = on_close), when lists were lost because we were late or memory was short, and
 * after a failure.  So nothing about what has been looked at needs to be stored: a crash of any process leads to a
 * scan.  That a group is reported once is the business of streamext.alert_fired, whose row is written in the
 * transaction of the NOTIFY.
 *
 * Why nothing is missed: let a group's row in the view change for the last time.  If the change is live and
 * listed, we look at it.  If it is live and was there before the view was tracked, the scan that tracking
 * begins with finds the entry, or its generation was flushed meanwhile, and then the scan of the table, which comes
 * after, finds the row.  A row that a flush moves to a part of the table that the scan has passed
 * was live and listed, or found live, before.
 *
 * Scans take at most a tenth of the time, so that a table that a builder writes all the time is not
 * scanned all the time.
 *
 * Isolation: conditions run here and nowhere else; the consumer only adds to a list, flusher and builders do
 * nothing but set a latch.  A run has a time limit (budget.c); a condition that will not end ends this process with
 * it, which is noted in shared memory.  A failed alert is left alone for a while, which doubles each time.
 */
#include "worker/alerter_internal.h"

#include "access/xact.h"
#include "catalog/definitions.h"
#include "live/live_read.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* first and longest pause of an alert that fails */
#define FIRST_PAUSE_MS		200
#define LONGEST_PAUSE_MS	60000
/* one that had to be ended with this process */
#define DEADLY_FAILURES		5
/* a scan may take one part in so many of the time */
#define SCAN_DIVISOR		10
#define LONGEST_SCAN_PAUSE_MS	60000
/* how often a lock is tried */
#define LOCK_PAUSE_MS		50
#define REPORT_MS			1000
/* how often we look though nobody has woken us */
#define LONGEST_SLEEP_MS	10000

static volatile bool catalog_stale;
static List *views = NIL;		/* of AlertedView *, in TopMemoryContext */

static void report_statistics(TimestampTz *wake_at);
static void alerter_exit(int code, Datum arg);
static void catalog_changed(void);
static void take_blame(SxDb *db);
static void load_alerts(SxDb *db);
static AlertedView *find_view(Oid viewid);
static void add_alert(const SxAlertDef *def, Oid matid);
static void forget_gone(SxDb *db);
static void leave(SxDb *db);
static bool serve(SxDb *db, AlertedView *av, MemoryContext turn, TimestampTz *wake_at);
static void follow_state(SxDb *db, AlertedView *av);
static bool look_at_changes(SxDb *db, AlertedView *av, MemoryContext turn);
static bool scan_part(SxDb *db, AlertedView *av, Alert *alert, MemoryContext turn);
static void want_scan(AlertedView *av);
static void begin_scan(Alert *alert);
static void end_scan(Alert *alert);
static void earlier(TimestampTz *wake_at, TimestampTz at);

void
sx_alerter_main(Datum arg)
{
	SxWorkerArg wa = sx_worker_start();
	SxDb	   *db = sx_db_lookup(wa.dboid, false);
	MemoryContext turn;

	if (db == NULL || !sx_take_place(db, SX_ALERTER))
		proc_exit(0);
	before_shmem_exit(alerter_exit, PointerGetDatum(db));
	SX_STOP_POINT(alerter_started);

	/* conditions run over rows that we put together: group_scan.c */
	sx_live_read_disabled = true;
	sx_catalog_on_change(catalog_changed);
	catalog_stale = true;

	turn = AllocSetContextCreate(TopMemoryContext, "streamext alerter", ALLOCSET_DEFAULT_SIZES);
	take_blame(db);
	for (;;)
	{
		TimestampTz wake_at = TimestampTzPlusMilliseconds(sx_now(), LONGEST_SLEEP_MS);
		bool		wanted;
		bool		busy = false;
		ListCell   *lc;

		sx_worker_check();
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		/* whatever is told us from here on is looked at in this turn or the next */
		ResetLatch(MyLatch);

		SpinLockAcquire(&db->mutex);
		wanted = db->wanted && !db->closing;
		SpinLockRelease(&db->mutex);
		if (!wanted)
			proc_exit(0);

		StartTransactionCommand();
		AcceptInvalidationMessages();
		CommitTransactionCommand();
		MemoryContextSwitchTo(turn);
		if (catalog_stale)
		{
			catalog_stale = false;
			load_alerts(db);
		}
		if (views == NIL)
			leave(db);

		foreach(lc, views)
			busy |= serve(db, lfirst(lc), turn, &wake_at);
		report_statistics(&wake_at);
		if (!busy && !catalog_stale)
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 Max(TimestampDifferenceMilliseconds(sx_now(), wake_at), 0), PG_WAIT_EXTENSION);
	}
}

/*
 * Autovacuum goes by what we report.  Not forced, that waits for another transaction to end, which may be
 * never; forced, it would be done each time a row changes.
 */
static void
report_statistics(TimestampTz *wake_at)
{
	static TimestampTz reported = 0;
	TimestampTz now = sx_now();

	if (TimestampDifferenceExceeds(reported, now, REPORT_MS))
	{
		(void) pgstat_report_stat(true);
		reported = now;
	}
	else if (pgstat_report_stat(false) > 0)
		earlier(wake_at, TimestampTzPlusMilliseconds(reported, REPORT_MS + 1));
}

static void
alerter_exit(int code, Datum arg)
{
	SxDb	   *db = (SxDb *) DatumGetPointer(arg);
	bool		deadly = sx_budget_is_deadly();

	if (deadly)
		ereport(LOG,
				(errmsg("streamext alerter ends because the condition of alert with OID %u does not end when it is canceled",
						db->blamed_alert)));
	LWLockReleaseAll();
	sx_live_untrack(db, InvalidOid);
	if (!deadly)
	{
		SpinLockAcquire(&db->mutex);
		db->blamed_alert = InvalidOid;
		SpinLockRelease(&db->mutex);
	}
	sx_leave_place(db, SX_ALERTER);
	ConditionVariableBroadcast(&db->published_cv);
	sx_wake_launcher();
}

static void
catalog_changed(void)
{
	catalog_stale = true;
}

/* our predecessor had to end because of this alert: it waits longest */
static void
take_blame(SxDb *db)
{
	Oid			blamed;
	ListCell   *lc;
	ListCell   *lc2;

	SpinLockAcquire(&db->mutex);
	blamed = db->blamed_alert;
	db->blamed_alert = InvalidOid;
	SpinLockRelease(&db->mutex);
	if (!OidIsValid(blamed))
		return;
	catalog_stale = false;
	load_alerts(db);
	foreach(lc, views)
		foreach(lc2, ((AlertedView *) lfirst(lc))->alerts)
		{
			Alert	   *alert = lfirst(lc2);

			if (alert->def.alertid != blamed)
				continue;
			alert->failures = Max(alert->failures, DEADLY_FAILURES);
			sx_alerter_failed(alert, "its condition does not end when it is canceled");
		}
}

/* ---- what there is ---- */

static void
load_alerts(SxDb *db)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *defs = NIL;
	ListCell   *lc;
	ListCell   *lc2;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (sx_catalog_exists())
		defs = sx_catalog_alerts(InvalidOid);

	foreach(lc, views)
		foreach(lc2, ((AlertedView *) lfirst(lc))->alerts)
			((Alert *) lfirst(lc2))->gone = true;
	foreach(lc, defs)
	{
		SxAlertDef *def = lfirst(lc);
		SxViewDef  *view = sx_catalog_view(def->viewid);
		AlertedView *av = find_view(def->viewid);
		bool		known = false;

		if (view == NULL)
			continue;
		/* replaced: all of it is new */
		if (av != NULL && av->matid != view->matid)
		{
			av->matid = view->matid;
			want_scan(av);
		}
		foreach(lc2, av ? av->alerts : NIL)
		{
			Alert	   *alert = lfirst(lc2);

			if (alert->def.alertid == def->alertid)
			{
				alert->gone = false;
				known = true;
			}
		}
		if (!known)
			add_alert(def, view->matid);
		find_view(def->viewid)->on_close = view->on_close;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	forget_gone(db);
}

static AlertedView *
find_view(Oid viewid)
{
	ListCell   *lc;

	foreach(lc, views)
		if (((AlertedView *) lfirst(lc))->viewid == viewid)
			return lfirst(lc);
	return NULL;
}

/* in a transaction */
static void
add_alert(const SxAlertDef *def, Oid matid)
{
	AlertedView *av = find_view(def->viewid);
	SxAlertError *error = sx_catalog_alert_error(def->alertid);
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "streamext alert", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Alert	   *alert = palloc0(sizeof(Alert));

	alert->context = context;
	alert->def = *def;
	alert->def.name = pstrdup(def->name);
	alert->def.channel = pstrdup(def->channel);
	alert->active = true;
	alert->scan_due = true;
	if (error)
	{
		/* what failed before does so again, most likely: not at once */
		alert->active = false;
		alert->failures = error->failures;
		alert->retry_at = TimestampTzPlusMilliseconds(sx_now(), FIRST_PAUSE_MS);
	}

	MemoryContextSwitchTo(TopMemoryContext);
	if (av == NULL)
	{
		av = palloc0(sizeof(AlertedView));
		av->viewid = def->viewid;
		av->matid = matid;
		views = lappend(views, av);
	}
	av->alerts = lappend(av->alerts, alert);
	MemoryContextSwitchTo(old);
}

static void
forget_gone(SxDb *db)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, views)
	{
		AlertedView *av = lfirst(lc);

		foreach(lc2, av->alerts)
		{
			Alert	   *alert = lfirst(lc2);

			if (!alert->gone)
				continue;
			if (alert->plan)
				SPI_freeplan(alert->plan);
			MemoryContextDelete(alert->context);
			av->alerts = foreach_delete_current(av->alerts, lc2);
		}
		if (av->alerts != NIL)
			continue;
		sx_live_untrack(db, av->viewid);
		pfree(av);
		views = foreach_delete_current(views, lc);
	}
	MemoryContextSwitchTo(old);
}

/*
 * No alert is left.  Whoever creates one makes the consumer load the catalog, which then says that we are
 * wanted: so that is taken back before we look once more.
 */
static void
leave(SxDb *db)
{
	SpinLockAcquire(&db->mutex);
	db->alerts_wanted = false;
	SpinLockRelease(&db->mutex);
	InvalidateSystemCaches();
	load_alerts(db);
	if (views == NIL)
	{
		SX_STOP_POINT(alerter_leaves);
		proc_exit(0);
	}
	SpinLockAcquire(&db->mutex);
	db->alerts_wanted = true;
	SpinLockRelease(&db->mutex);
}

/* ---- what is to be looked at ---- */

static void
earlier(TimestampTz *wake_at, TimestampTz at)
{
	*wake_at = Min(*wake_at, at);
}

/* one step for each thing that is due; true: there may be more at once */
static bool
serve(SxDb *db, AlertedView *av, MemoryContext turn, TimestampTz *wake_at)
{
	TimestampTz now = sx_now();
	bool		busy = false;
	ListCell   *lc;

	if (av->retry_at > now)
	{
		earlier(wake_at, av->retry_at);
		return false;
	}
	foreach(lc, av->alerts)
	{
		Alert	   *alert = lfirst(lc);

		if (alert->active)
			continue;
		if (alert->retry_at > now)
		{
			earlier(wake_at, alert->retry_at);
			continue;
		}
		alert->active = true;
		alert->scan_due = true;
		alert->scan_at = 0;
	}

	follow_state(db, av);
	if (av->track.live)
		busy = look_at_changes(db, av, turn);
	foreach(lc, av->alerts)
	{
		Alert	   *alert = lfirst(lc);

		if (alert->active && alert->scan_due && !alert->scanning)
		{
			if (alert->scan_at > now)
				earlier(wake_at, alert->scan_at);
			else
				begin_scan(alert);
		}
		if (alert->active && alert->scanning)
			busy |= scan_part(db, av, alert, turn);
		if (!alert->active)
			earlier(wake_at, alert->retry_at);
	}
	if (av->retry_at > now)
	{
		earlier(wake_at, av->retry_at);
		return false;
	}
	return busy;
}

/* did the view join the others or leave them, has a builder or session written, or may windows have closed? */
static void
follow_state(SxDb *db, AlertedView *av)
{
	SxLiveTrack before = av->track;
	SxView	   *v;
	int64		flushes = 0;
	uint64		written = 0;

	if (!before.live || sx_live_is_gone(db, av->viewid, &before))
	{
		if (sx_live_track(db, av->viewid, &av->track))
		{
			SX_STOP_POINT_OF(alerter_tracked, av->viewid);
			want_scan(av);
			return;
		}
		if (before.live)
			want_scan(av);
	}

	SpinLockAcquire(&db->mutex);
	v = sx_view_by_id(db, av->viewid);
	if (v)
	{
		written = v->sessions_wrote;
		/* flushes of what is live change nothing, unless they store that windows have closed */
		flushes = av->track.live && !av->on_close ? av->flushes : v->flushes;
	}
	SpinLockRelease(&db->mutex);
	if (flushes != av->flushes || written != av->sessions_wrote)
		want_scan(av);
	av->flushes = flushes;
	av->sessions_wrote = written;
}

static bool
look_at_changes(SxDb *db, AlertedView *av, MemoryContext turn)
{
	SxLiveTrack reached = av->track;
	SxLiveRows	rows;
	AlertGroups groups = {0};
	List	   *active = NIL;
	ListCell   *lc;

	if (!sx_live_has_changed(db, av->viewid, &av->track))
		return false;
	if (!sx_live_changes(db, av->viewid, &reached, SX_ALERT_ROWS, &rows))
	{
		/* some are lost: begin again with what is there */
		av->track.live = false;
		return true;
	}
	foreach(lc, av->alerts)
		if (((Alert *) lfirst(lc))->active)
			active = lappend(active, lfirst(lc));
	if (rows.nrows > 0 && active != NIL)
	{
		groups.rows = &rows;
		if (sx_alerter_look(db, av, active, &groups, turn) == ALERT_LOCKED)
		{
			av->retry_at = TimestampTzPlusMilliseconds(sx_now(), LOCK_PAUSE_MS);
			return false;
		}
	}
	/* alerts that failed look at everything when they are tried again */
	av->track = reached;
	sx_live_changes_done(db, av->viewid, &reached);
	return rows.more;
}

static void
want_scan(AlertedView *av)
{
	ListCell   *lc;

	foreach(lc, av->alerts)
	{
		Alert	   *alert = lfirst(lc);

		/* after the one under way: a table that is written all the time must be scanned to its end, too */
		alert->scan_due = true;
		if (alert->scanning && !alert->in_table)
			memset(&alert->cursor, 0, sizeof(alert->cursor));
	}
}

static void
begin_scan(Alert *alert)
{
	alert->scan_due = false;
	alert->scanning = true;
	alert->in_table = false;
	memset(&alert->cursor, 0, sizeof(alert->cursor));
	alert->block = 0;
	alert->scan_us = 0;
}

static void
end_scan(Alert *alert)
{
	int64		pause = Min(alert->scan_us * SCAN_DIVISOR / 1000, LONGEST_SCAN_PAUSE_MS);

	alert->scanning = false;
	alert->scan_at = TimestampTzPlusMilliseconds(sx_now(), pause);
	if (alert->failures > 0)
		sx_alerter_recovered(alert);
}

static bool
scan_part(SxDb *db, AlertedView *av, Alert *alert, MemoryContext turn)
{
	TimestampTz started = sx_now();
	SxLiveCursor reached = alert->cursor;
	SxLiveRows	rows;
	AlertGroups groups = {0};
	AlertResult result;

	memset(&rows, 0, sizeof(rows));
	if (!alert->in_table)
	{
		/* what is not live is in the table */
		if (av->track.live && !sx_live_all(db, av->viewid, &av->track, &reached, SX_ALERT_ROWS, &rows))
		{
			av->track.live = false;
			return true;
		}
		groups.rows = &rows;
	}
	else
		groups.block = alert->block;

	result = groups.rows != NULL && rows.nrows == 0 ? ALERT_DONE :
		sx_alerter_look(db, av, list_make1(alert), &groups, turn);
	alert->scan_us += sx_now() - started;
	if (result == ALERT_LOCKED)
	{
		av->retry_at = TimestampTzPlusMilliseconds(sx_now(), LOCK_PAUSE_MS);
		return false;
	}
	if (result == ALERT_FAILED || !alert->active)
		return false;
	if (!alert->in_table)
	{
		alert->cursor = reached;
		alert->in_table = !rows.more;
		return true;
	}
	alert->block = groups.next;
	if (groups.next == 0)
		end_scan(alert);
	return alert->scanning;
}

/* ---- failures ---- */

void
sx_alerter_postpone(Alert *alert)
{
	alert->active = false;
	alert->scanning = false;
	alert->scan_due = true;
	alert->retry_at = TimestampTzPlusMilliseconds(sx_now(), FIRST_PAUSE_MS);
}

void
sx_alerter_failed(Alert *alert, const char *message)
{
	MemoryContext caller = CurrentMemoryContext;
	int			pause = FIRST_PAUSE_MS;

	for (int i = 0; i < alert->failures && pause < LONGEST_PAUSE_MS; i++)
		pause *= 2;
	alert->failures++;
	alert->active = false;
	alert->scanning = false;
	alert->scan_due = true;
	alert->retry_at = TimestampTzPlusMilliseconds(sx_now(), Min(pause, LONGEST_PAUSE_MS));
	sx_worker_log(LOG, "alert \"%s\" failed: %s", alert->def.name, message);

	/* the user sees it, too; if that is not possible now, with the next failure */
	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		if (ConditionalLockRelationOid(alert->def.alertid, AccessShareLock) &&
			sx_catalog_alert(alert->def.alertid) != NULL)
		{
			SxAlertError error;

			error.alertid = alert->def.alertid;
			error.failures = alert->failures;
			error.message = unconstify(char *, message);
			error.at = GetCurrentTimestamp();
			sx_catalog_store_alert_error(&error);
			SX_STOP_POINT(alert_failed);
		}
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(caller);

		sx_worker_log(LOG, "could not note that alert \"%s\" failed: %s", alert->def.name, error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
}

void
sx_alerter_recovered(Alert *alert)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		sx_catalog_delete_alert_error(alert->def.alertid);
		PopActiveSnapshot();
		CommitTransactionCommand();
		alert->failures = 0;
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(caller);

		/* the next scan tries again */
		alert->scan_due = true;
		sx_worker_log(LOG, "could not note that alert \"%s\" goes on: %s", alert->def.name, error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
}
