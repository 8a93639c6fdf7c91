/*
 * wake.c
 *		What ordinary backends do with the workers: waking the consumer at commit, asking
 *		for workers, waiting for views, stopping workers before a database goes.
 */
#include "worker/worker_internal.h"

#include <signal.h>

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/definitions.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* longest wait for workers to start or stop */
#define START_TIMEOUT_MS	15000
#define STOP_TIMEOUT_MS		4000

/* what this transaction has announced; undone or carried out at its end */
static SxDb *required_db = NULL;
static bool creates = false;	/* a view */
static List *closed_dbs = NIL;	/* of SxDb *, in TopMemoryContext */
static List *written_views = NIL;	/* OIDs, in TopMemoryContext */
static bool exit_hook_registered = false;

static void xact_callback(XactEvent event, void *arg);
static void require(SxDb *db);
static void end_require(void);
static void tell_written(void);
static void begin_close(SxDb *db);
static void end_close(void);
static void at_exit(int code, Datum arg);
static void register_exit_hook(void);
static bool wait_more(SxDb *db, TimestampTz deadline);
static SxDb *wait_for_database(TimestampTz deadline);
static bool view_is_at(SxDb *db, SxView *v, uint64 cycle, uint64 turn, XLogRecPtr lsn);
static char *describe_blocker(SxDb *db, SxView *v);
static void stop_workers(SxDb *db);
static void end_builders(SxDb *db);
static void end_process(pid_t pid);

void
sx_wake_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
}

/*
 * After a commit that wrote WAL, and only if the consumer sleeps, its latch is set: all
 * that a writer ever does for us.  XactLastCommitEnd keeps its value through read-only
 * transactions, hence the comparison.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	static XLogRecPtr last_commit = InvalidXLogRecPtr;

	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			/* the slot moves on after PREPARE, past what a view that nobody knows yet needs */
			if (creates)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has created a continuous view")));
			/* nobody would tell of it at COMMIT PREPARED */
			if (written_views != NIL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has retried dead letters")));
			return;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			break;
		default:
			return;
	}

	if (required_db)
		end_require();
	if (closed_dbs != NIL)
		end_close();
	if (written_views != NIL)
	{
		if (event == XACT_EVENT_COMMIT)
			tell_written();
		list_free(written_views);
		written_views = NIL;
	}

	if (event == XACT_EVENT_COMMIT && XactLastCommitEnd != last_commit)
	{
		SxDb	   *db;

		last_commit = XactLastCommitEnd;
		if (sx_is_worker || (db = sx_my_db()) == NULL)
			return;
		if (pg_atomic_read_u32(&db->consumer_sleeps) != 0 &&
			pg_atomic_exchange_u32(&db->consumer_sleeps, 0) != 0)
			sx_wake(db, SX_CONSUMER);
	}
}

void
sx_note_table_write(Oid viewid)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	written_views = list_append_unique_oid(written_views, viewid);
	MemoryContextSwitchTo(old);
}

static void
tell_written(void)
{
	SxDb	   *db = sx_my_db();
	ListCell   *lc;

	if (db == NULL)
		return;
	foreach(lc, written_views)
	{
		SxView	   *v = sx_view_by_id(db, lfirst_oid(lc));

		if (v == NULL)
			continue;
		SpinLockAcquire(&db->mutex);
		v->sessions_wrote++;
		SpinLockRelease(&db->mutex);
	}
	sx_wake(db, SX_ALERTER);
}

static void
register_exit_hook(void)
{
	if (!exit_hook_registered)
	{
		before_shmem_exit(at_exit, 0);
		exit_hook_registered = true;
	}
}

static void
at_exit(int code, Datum arg)
{
	if (required_db)
		end_require();
	if (closed_dbs != NIL)
		end_close();
}

/*
 * A count, because several commands may want the workers of one database gone at once, and a
 * list, because one transaction may rename several databases.
 */
static void
begin_close(SxDb *db)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	register_exit_hook();
	closed_dbs = lappend(closed_dbs, db);
	MemoryContextSwitchTo(old);
	SpinLockAcquire(&db->mutex);
	db->closing++;
	SpinLockRelease(&db->mutex);
}

/* the launcher looks whether the database is still there before it starts anything */
static void
end_close(void)
{
	ListCell   *lc;

	sx_shared->sweep_wanted = true;
	foreach(lc, closed_dbs)
	{
		SxDb	   *db = lfirst(lc);

		SpinLockAcquire(&db->mutex);
		db->closing--;
		SpinLockRelease(&db->mutex);
	}
	list_free(closed_dbs);
	closed_dbs = NIL;
	sx_wake_launcher();
}

static void
end_require(void)
{
	pg_atomic_fetch_add_u32(&required_db->require_epoch, 1);
	pg_atomic_fetch_sub_u32(&required_db->requirers, 1);
	sx_wake(required_db, SX_CONSUMER);
	sx_wake_launcher();
	required_db = NULL;
	creates = false;
}

static void
require(SxDb *db)
{
	register_exit_hook();
	if (required_db == NULL)
	{
		pg_atomic_fetch_add_u32(&db->requirers, 1);
		required_db = db;
	}
}

/*
 * Until the end of this transaction VACUUM leaves what is there now, updated or deleted meanwhile: for a transaction that reads
 * what a position sees which is stored after this.
 */
void
sx_worker_hold_horizon(void)
{
	SxDb	   *db = sx_my_db();

	if (db != NULL)
		require(db);
}

bool
sx_worker_holds(uint64 xmin)
{
	SxDb	   *db = sx_my_db();
	TransactionId held = InvalidTransactionId;

	if (db != NULL)
	{
		SpinLockAcquire(&db->mutex);
		held = db->slot_xmin;
		SpinLockRelease(&db->mutex);
	}
	return TransactionIdIsNormal(held) && !TransactionIdFollows(held, (TransactionId) xmin);
}

/*
 * A transaction that creates a view: the workers run and the slot protects from here on,
 * and keep doing so until the transaction has ended and its views are known.
 */
void
sx_worker_require(void)
{
	SxDb	   *db;
	TimestampTz deadline;

	sx_require_preload();
	db = sx_db_lookup(MyDatabaseId, true);
	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases with continuous views"),
				 errdetail("streamext.max_databases is %d.", sx_max_databases),
				 errhint("Raise streamext.max_databases in postgresql.conf and restart the server.")));
	CheckSlotRequirements();

	require(db);
	creates = true;

	deadline = TimestampTzPlusMilliseconds(sx_now(), START_TIMEOUT_MS);
	ConditionVariablePrepareToSleep(&db->published_cv);
	for (;;)
	{
		bool		ready;
		char		problem[sizeof(db->problem)];

		SpinLockAcquire(&db->mutex);
		db->wanted = true;
		ready = db->slot_ready && db->places[SX_FLUSHER].pid != 0;
		memcpy(problem, db->problem, sizeof(problem));
		SpinLockRelease(&db->mutex);
		if (ready)
			break;
		if (problem[0] != '\0')
		{
			ConditionVariableCancelSleep();
			/* the next attempt starts without it */
			SpinLockAcquire(&db->mutex);
			db->problem[0] = '\0';
			SpinLockRelease(&db->mutex);
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("could not start the workers of streamext"),
					 errdetail_internal("%s", problem)));
		}
		sx_wake_launcher();
		if (!wait_more(db, deadline))
		{
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("the workers of streamext did not start within %d s", START_TIMEOUT_MS / 1000),
					 errhint("Look into the server log; raise max_worker_processes and max_replication_slots in postgresql.conf if they are exhausted.")));
		}
	}
	ConditionVariableCancelSleep();
}

void
sx_worker_announce(void)
{
	SxDb	   *db = sx_db_lookup(MyDatabaseId, true);

	if (db == NULL)
	{
		if (sx_shared != NULL)
			ereport(WARNING,
					(errmsg("the continuous views of this database are not kept up to date"),
					 errdetail("streamext.max_databases is %d.", sx_max_databases),
					 errhint("Raise streamext.max_databases in postgresql.conf and restart the server.")));
		return;
	}
	require(db);
	creates = true;
	SpinLockAcquire(&db->mutex);
	db->wanted = true;
	SpinLockRelease(&db->mutex);
	sx_wake_launcher();
}

/* sleeps until something changes; false when the deadline has passed */
static bool
wait_more(SxDb *db, TimestampTz deadline)
{
	long		left = TimestampDifferenceMilliseconds(sx_now(), deadline);

	if (left <= 0)
		return false;
	ConditionVariableTimedSleep(&db->published_cv, Min(left, 1000), PG_WAIT_EXTENSION);
	CHECK_FOR_INTERRUPTS();
	return true;
}

/*
 * Has the view consumed every commit below lsn, in a cycle that began after `cycle`?  Or, if a
 * builder follows WAL for it, in one of the builders' turns that began after `turn`?
 */
static bool
view_is_at(SxDb *db, SxView *v, uint64 cycle, uint64 turn, XLogRecPtr lsn)
{
	bool		done = false;

	switch (v->state)
	{
		case SX_VIEW_LIVE:
			return pg_atomic_read_u64(&db->cycle_published) > cycle &&
				pg_atomic_read_u64(&db->consumed_lsn) >= lsn;
		case SX_VIEW_BUILDING:
			/* one that is on its way to the others is waited for until it is there */
			if (!v->slow)
				return false;
			SpinLockAcquire(&db->mutex);
			done = v->turn_done > turn && v->turn_lsn >= lsn;
			/* otherwise it is to begin one now */
			v->turn_wanted = Max(v->turn_wanted, turn + 1);
			SpinLockRelease(&db->mutex);
			return done;
		default:
			return false;
	}
}

static char *
describe_blocker(SxDb *db, SxView *v)
{
	char		reason[sizeof(v->reason)];
	char	   *name = get_rel_name(v->viewid);

	SpinLockAcquire(&db->mutex);
	memcpy(reason, v->reason, sizeof(reason));
	SpinLockRelease(&db->mutex);
	if (name == NULL)
		name = "?";
	if (reason[0] == '\0')
		strlcpy(reason, "it is behind", sizeof(reason));
	return psprintf("Continuous view \"%s\" has not read all rows: %s.", name, reason);
}

/* after a start of the server the launcher needs a moment to find the databases with views */
static SxDb *
wait_for_database(TimestampTz deadline)
{
	SxDb	   *db;

	if (sx_shared == NULL || wal_level < WAL_LEVEL_REPLICA || RecoveryInProgress())
		return NULL;
	while ((db = sx_my_db()) == NULL)
	{
		long		left = TimestampDifferenceMilliseconds(sx_now(), deadline);

		if (left <= 0)
			return NULL;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(left, 100), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return db;
}

/* those that are still to be waited for */
static List *
filter(List *views, bool (*needed) (Oid viewid))
{
	List	   *left = NIL;
	ListCell   *lc;

	if (needed == NULL)
		return views;
	/* nothing else that we do while we wait looks for them */
	AcceptInvalidationMessages();
	foreach(lc, views)
		if (needed(lfirst_oid(lc)))
			left = lappend_oid(left, lfirst_oid(lc));
	return left;
}

/* a view may be dropped while it is waited for, or be a hidden one that takes its place */
static bool
is_there(Oid viewid)
{
	return get_rel_name(viewid) != NULL;
}

/*
 * The one wait: for these views to have consumed (flushed: and written) everything that was
 * committed before the call.  A consumer's cycle that starts after the call takes a snapshot that
 * sees all of it.  Those that are not needed (any more) are left out.
 */
static bool
wait_views(List *views, int timeout_ms, bool flushed, bool (*needed) (Oid viewid), char **blocker)
{
	SxDb	   *db = sx_my_db();
	TimestampTz deadline;
	ListCell   *lc;
	uint64		cycle;
	uint64		turn;
	uint64		request = 0;
	uint64		requested_lives = 0;
	XLogRecPtr	lsn;

	if (blocker)
		*blocker = NULL;
	views = filter(views, needed);
	if (views == NIL)
		return true;

	deadline = TimestampTzPlusMilliseconds(sx_now(), timeout_ms);
	if (db == NULL || RecoveryInProgress())
		db = wait_for_database(deadline);
	if (db == NULL)
	{
		if (blocker)
			*blocker = pstrdup("The workers of streamext do not run in this database.");
		return false;
	}

	/* what committed asynchronously is not read before it is flushed, which nobody else may do soon */
	lsn = sx_wal_flush_to_end();
	pg_memory_barrier();
	cycle = pg_atomic_read_u64(&db->cycle_started);
	turn = pg_atomic_read_u64(&db->turns);

	ConditionVariablePrepareToSleep(&db->published_cv);
	for (;;)
	{
		SxView	   *behind = NULL;
		Oid			unknown = InvalidOid;
		uint64		lives = 0;
		bool		waits_for_us = false;
		bool		wake = false;

		foreach(lc, views)
		{
			SxView	   *v = sx_view_by_id(db, lfirst_oid(lc));

			if (v == NULL)
			{
				unknown = lfirst_oid(lc);
				continue;
			}
			lives += v->incarnation;
			pg_read_barrier();
			if (!view_is_at(db, v, cycle, turn, lsn))
			{
				behind = v;
				if (v->waits_for_pid == MyProcPid && v->waits_for_lxid == SxProcLocalXid(MyProc))
				{
					waits_for_us = true;
					break;
				}
			}
		}

		if (behind == NULL && !OidIsValid(unknown))
		{
			if (!flushed)
				break;
			/* consumed: now ask once that it be written */
			if (request == 0)
			{
				request = pg_atomic_add_fetch_u64(&db->flush_request, 1);
				requested_lives = lives;
				wake = true;
			}
			if (pg_atomic_read_u64(&db->flush_done) >= request)
			{
				if (lives == requested_lives)
					break;

				/* a view lost its live state meanwhile: what it has now may be unwritten */
				request = 0;
				continue;
			}
		}

		if (needed != NULL && (behind != NULL || OidIsValid(unknown)))
		{
			int			before = list_length(views);

			views = filter(views, needed);
			if (views == NIL)
				break;
			if (list_length(views) < before)
				continue;
		}

		/*
		 * The consumer may be asleep, with nothing new since: it must run a cycle anyway.  One is enough.
		 * What it does by itself it does in time, and each cycle that ends wakes us: if we asked for
		 * another each time, neither would rest while a view is being built.
		 */
		if (wake || pg_atomic_read_u64(&db->cycle_published) <= cycle)
		{
			pg_atomic_write_u32(&db->consumer_sleeps, 0);
			sx_wake(db, SX_CONSUMER);
		}

		if (waits_for_us || !wait_more(db, deadline))
		{
			ConditionVariableCancelSleep();
			if (blocker)
			{
				if (waits_for_us)
					*blocker = psprintf("Continuous view \"%s\" waits for this transaction to end.",
										get_rel_name(behind->viewid) ? get_rel_name(behind->viewid) : "?");
				else if (behind)
					*blocker = describe_blocker(db, behind);
				else if (OidIsValid(unknown))
					*blocker = psprintf("Continuous view \"%s\" is not known to the workers yet.",
										get_rel_name(unknown) ? get_rel_name(unknown) : "?");
				else
					*blocker = pstrdup("The flush did not end in time.");
			}
			return false;
		}
	}
	ConditionVariableCancelSleep();
	return true;
}

bool
sx_wait(Oid viewid, int timeout_ms, bool flushed, char **blocker)
{
	return wait_views(list_make1_oid(viewid), timeout_ms, flushed, NULL, blocker);
}

bool
sx_wait_all(List *views, int timeout_ms, bool flushed, char **blocker)
{
	return wait_views(views, timeout_ms, flushed, is_there, blocker);
}

bool
sx_wait_flushed(List *views, int timeout_ms, bool (*needed) (Oid viewid), char **blocker)
{
	return wait_views(views, timeout_ms, true, needed, blocker);
}

/*
 * DROP EXTENSION: builders, helper and alerter stop now, so that they hold no lock that the drop waits for; the
 * consumer leaves, with the slot, when it sees that the extension is gone.
 */
void
sx_worker_stop_at_commit(void)
{
	SxDb	   *db = sx_my_db();

	if (db == NULL)
		return;
	begin_close(db);
	end_process(db->places[SX_ALERTER].pid);
	end_process(db->places[SX_HELPER].pid);
	end_builders(db);
}

/*
 * DROP, ALTER or copy of another database: it waits only 5 s for its last process, so ours
 * leave first.  The mark ends with the transaction; if the database is still there, the
 * launcher starts them again, otherwise it removes the slot.
 */
void
sx_worker_stop_database(Oid dboid)
{
	SxDb	   *db = sx_db_lookup(dboid, false);
	TimestampTz deadline;

	if (db == NULL)
		return;
	begin_close(db);
	stop_workers(db);

	deadline = TimestampTzPlusMilliseconds(sx_now(), STOP_TIMEOUT_MS);
	ConditionVariablePrepareToSleep(&db->published_cv);
	for (;;)
	{
		bool		running = sx_has_workers(db);

		for (int i = 0; i < db->nviews; i++)
			running |= db->views[i].builder_pid != 0;
		if (!running || !wait_more(db, deadline))
			break;
		stop_workers(db);
	}
	ConditionVariableCancelSleep();
}

static void
stop_workers(SxDb *db)
{
	for (int i = 0; i < SX_NROLES; i++)
		end_process(db->places[i].pid);
	end_builders(db);
}

static void
end_builders(SxDb *db)
{
	for (int i = 0; i < db->nviews; i++)
		end_process(db->views[i].builder_pid);
}

/* which may be none, or gone */
static void
end_process(pid_t pid)
{
	if (pid != 0)
		kill(pid, SIGTERM);
}
