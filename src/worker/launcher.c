/*
 * launcher.c
 *		Finds the databases that have streams and keeps a consumer and a flusher in each, and an
 *		alerter while there are alerts (the consumer says so).
 *
 * The launcher is connected to no database: it reads pg_database only.  At start a
 * short-lived scout looks into each connectable database; later, CREATE asks for workers
 * (sx_worker_require).  Workers that leave cleanly because there is nothing to do clear
 * `wanted`; after any other end they are started again, with a pause.
 *
 * On a standby only consumers run, and do nothing but move their slots (standby.c).  Nobody asks for
 * them there, so the scouts go round again, and once more at promotion.
 */
#include "worker/worker_internal.h"

#include <signal.h>

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "capture/slot.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "testing/stop_points.h"

/* pause before a worker that failed is started again */
#define RESTART_PAUSE_MS	1000
/* how often a standby looks for databases that got their first view upstream */
#define STANDBY_SCOUT_MS	30000
/* how often databases and slots are compared when nothing happens */
#define SWEEP_INTERVAL_MS	10000

typedef struct Served
{
	BackgroundWorkerHandle *consumer;
	BackgroundWorkerHandle *flusher;
	BackgroundWorkerHandle *alerter;
	TimestampTz alerter_started;
	TimestampTz consumer_started;
	TimestampTz flusher_started;
	uint32		left;			/* SxDb.left, when they were started */
} Served;

/* databases that a scout has been in; later ones are copies, or ask for themselves */
static List *scouted = NIL;

static List *list_databases(MemoryContext mcxt, bool all);
static void run_scouts(void);
static void launcher_exit(int code, Datum arg);
static bool is_running(BackgroundWorkerHandle **handle);
static void serve(SxDb *db, Served *s);
static BackgroundWorkerHandle *start_worker(SxDb *db, const char *type, const char *function);
static bool sweep(void);

void
sx_launcher_register(void)
{
	BackgroundWorker w;

	sx_worker_fill(&w, "streamext launcher", "sx_launcher_main", InvalidOid, InvalidOid);
	w.bgw_notify_pid = 0;
	w.bgw_restart_time = 5;
	RegisterBackgroundWorker(&w);
}

void
sx_launcher_main(Datum arg)
{
	Served	   *served;
	TimestampTz swept = 0;
	TimestampTz scouted_at;
	bool		standby = RecoveryInProgress();
	MemoryContext turn;

	sx_worker_start();
	before_shmem_exit(launcher_exit, 0);
	sx_shared->launcher_latch = MyLatch;
	sx_shared->launcher_pid = MyProcPid;

	if (wal_level < WAL_LEVEL_REPLICA)
	{
		ereport(LOG,
				(errmsg("streamext does nothing with wal_level = minimal"),
				 errhint("Set wal_level = replica in postgresql.conf and restart the server.")));
		proc_exit(0);			/* not started again */
	}

	served = MemoryContextAllocZero(TopMemoryContext, sizeof(Served) * sx_shared->ndbs);
	turn = AllocSetContextCreate(TopMemoryContext, "streamext launcher", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(turn);
	run_scouts();
	scouted_at = sx_now();

	for (;;)
	{
		TimestampTz now;

		sx_worker_check();
		MemoryContextReset(turn);
		now = sx_now();
		if (sx_shared->sweep_wanted || TimestampDifferenceExceeds(swept, now, SWEEP_INTERVAL_MS))
		{
			bool		look = sx_shared->sweep_wanted;

			sx_shared->sweep_wanted = false;
			if (sweep())
			{
				/* a place is free: somebody may wait for it since the start */
				list_free(scouted);
				scouted = NIL;
				look = true;
			}
			/* a database may have been copied together with its views */
			if (look)
				run_scouts();
			swept = now;
		}
		/* nobody asks for workers on a standby; and what was found there may be old */
		if (standby && (!RecoveryInProgress() ||
						TimestampDifferenceExceeds(scouted_at, now, STANDBY_SCOUT_MS)))
		{
			standby = RecoveryInProgress();
			list_free(scouted);
			scouted = NIL;
			run_scouts();
			scouted_at = sx_now();
		}
		for (int i = 0; i < sx_shared->ndbs; i++)
			serve(&sx_shared->dbs[i], &served[i]);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 RESTART_PAUSE_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

static void
launcher_exit(int code, Datum arg)
{
	sx_shared->launcher_latch = NULL;
	sx_shared->launcher_pid = 0;
}

/* OIDs of all databases, or of those that one can connect to and that are no templates */
static List *
list_databases(MemoryContext mcxt, bool all)
{
	List	   *result = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	MemoryContext old;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (!all && (form->datistemplate || !form->datallowconn))
			continue;
		old = MemoryContextSwitchTo(mcxt);
		result = lappend_oid(result, form->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(mcxt);
	return result;
}

/* one after the other: each is gone before the next starts */
static void
run_scouts(void)
{
	List	   *dbs = list_databases(CurrentMemoryContext, false);
	ListCell   *lc;

	foreach(lc, dbs)
	{
		BackgroundWorker w;
		BackgroundWorkerHandle *handle;
		MemoryContext old;

		if (list_member_oid(scouted, lfirst_oid(lc)))
			continue;
		old = MemoryContextSwitchTo(TopMemoryContext);
		scouted = lappend_oid(scouted, lfirst_oid(lc));
		MemoryContextSwitchTo(old);

		sx_worker_check();
		sx_worker_fill(&w, "streamext scout", "sx_scout_main", lfirst_oid(lc), InvalidOid);
		while (!RegisterDynamicBackgroundWorker(&w, &handle))
		{
			ereport(LOG,
					(errmsg("streamext could not start a background worker to look for streams"),
					 errhint("Raise max_worker_processes in postgresql.conf and restart the server.")));
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 SWEEP_INTERVAL_MS, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			sx_worker_check();
		}
		(void) WaitForBackgroundWorkerShutdown(handle);
	}
}

/* looks whether the database has continuous views */
void
sx_scout_main(Datum arg)
{
	SxWorkerArg wa = sx_worker_start();
	bool		wanted = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (sx_catalog_exists())
		wanted = sx_catalog_views() != NIL;
	PopActiveSnapshot();
	CommitTransactionCommand();
	SX_STOP_POINT(scout_looked);

	if (wanted)
	{
		SxDb	   *db = sx_db_lookup(wa.dboid, true);

		if (db == NULL)
			ereport(LOG,
					(errmsg("database with OID %u has continuous views that are not served", wa.dboid),
					 errdetail("streamext.max_databases is %d.", sx_max_databases),
					 errhint("Raise streamext.max_databases in postgresql.conf and restart the server.")));
		else
		{
			SpinLockAcquire(&db->mutex);
			db->wanted = true;
			SpinLockRelease(&db->mutex);
		}
	}
	proc_exit(0);
}

static bool
is_running(BackgroundWorkerHandle **handle)
{
	pid_t		pid;

	if (*handle == NULL)
		return false;
	if (GetBackgroundWorkerPid(*handle, &pid) != BGWH_STOPPED)
		return true;
	pfree(*handle);
	*handle = NULL;
	return false;
}

static void
serve(SxDb *db, Served *s)
{
	TimestampTz now = sx_now();
	bool		wanted;
	bool		has_consumer;
	bool		has_flusher;
	bool		wants_alerter;
	uint32		left;

	if (!OidIsValid(db->dboid))
		return;
	/* our predecessor's may still be there: we have no handle for those */
	SpinLockAcquire(&db->mutex);
	wanted = db->wanted && !db->closing;
	has_consumer = db->places[SX_CONSUMER].pid != 0;
	has_flusher = db->places[SX_FLUSHER].pid != 0;
	wants_alerter = wanted && db->alerts_wanted && db->places[SX_ALERTER].pid == 0;
	left = db->left;
	SpinLockRelease(&db->mutex);

	/* who creates a view just after the last one was dropped need not wait */
	if (left != s->left)
		s->consumer_started = s->flusher_started = 0;
	s->left = left;

	/* on a standby DROP DATABASE ends ours without a word: look before starting it again */
	if (s->consumer != NULL && !is_running(&s->consumer) && RecoveryInProgress())
	{
		sx_shared->sweep_wanted = true;
		return;
	}
	/* call both: each forgets a worker that has ended */
	if (!is_running(&s->consumer) && wanted && !has_consumer &&
		TimestampDifferenceExceeds(s->consumer_started, now, RESTART_PAUSE_MS))
	{
		s->consumer = start_worker(db, "streamext consumer", "sx_consumer_main");
		s->consumer_started = s->consumer ? now : 0;
	}
	if (!is_running(&s->flusher) && wanted && !has_flusher && !RecoveryInProgress() &&
		TimestampDifferenceExceeds(s->flusher_started, now, RESTART_PAUSE_MS))
	{
		s->flusher = start_worker(db, "streamext flusher", "sx_flusher_main");
		s->flusher_started = s->flusher ? now : 0;
	}
	if (!is_running(&s->alerter) && wants_alerter && !RecoveryInProgress() &&
		TimestampDifferenceExceeds(s->alerter_started, now, RESTART_PAUSE_MS))
	{
		s->alerter = start_worker(db, "streamext alerter", "sx_alerter_main");
		s->alerter_started = now;
	}
}

static BackgroundWorkerHandle *
start_worker(SxDb *db, const char *type, const char *function)
{
	BackgroundWorker w;
	BackgroundWorkerHandle *handle;
	MemoryContext old;
	bool		ok;

	SX_STOP_POINT(launcher_start_worker);
	sx_worker_fill(&w, type, function, db->dboid, InvalidOid);
	old = MemoryContextSwitchTo(TopMemoryContext);
	ok = RegisterDynamicBackgroundWorker(&w, &handle);
	MemoryContextSwitchTo(old);
	if (ok)
		return handle;

	sx_worker_log(LOG, "could not start %s for database %u: max_worker_processes is exhausted",
				  type, db->dboid);
	/* views do without an alerter */
	if (strcmp(type, "streamext alerter") == 0)
		return NULL;
	SpinLockAcquire(&db->mutex);
	strlcpy(db->problem, "No background worker slot is free; raise max_worker_processes in postgresql.conf and restart the server.",
			sizeof(db->problem));
	SpinLockRelease(&db->mutex);
	ConditionVariableBroadcast(&db->published_cv);
	return NULL;
}

/* databases that are gone: their slot goes, and their place in shared memory; true if there was one */
static bool
sweep(void)
{
	/* one that is closed to connections for a while keeps its slot */
	List	   *dbs = list_databases(CurrentMemoryContext, true);
	Oid			slots[128];
	int			n;
	bool		freed = false;

	for (int i = 0; i < sx_shared->ndbs; i++)
	{
		SxDb	   *db = &sx_shared->dbs[i];

		if (OidIsValid(db->dboid) && !list_member_oid(dbs, db->dboid) &&
			!sx_has_workers(db) && !db->closing)
		{
			(void) sx_slot_drop(db->dboid);
			sx_db_free(db);
			freed = true;
		}
	}

	n = sx_slot_databases(slots, lengthof(slots));
	for (int i = 0; i < n; i++)
		if (!list_member_oid(dbs, slots[i]) && sx_db_lookup(slots[i], false) == NULL)
			(void) sx_slot_drop(slots[i]);
	return freed;
}
