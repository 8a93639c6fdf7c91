/*
 * registry.c
 *		The fixed part of shared memory: see registry.h for the lock order.
 *
 * Nothing here survives a restart of the server, and nothing needs to: positions are
 * in the tables, everything in memory is a cache (a crash of any backend resets it).
 */
#include "live/registry.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

/* a view without trouble for so long begins with short pauses again */
#define SETBACK_FORGOTTEN_MS	60000
/* how long a slow view stays away from the others at least */
#define SLOW_FIRST_MS		1000
#define SLOW_LONGEST_MS		300000

SxShared   *sx_shared = NULL;

/* this process's mapping of its database's area */
static dsa_area *my_area = NULL;
static uint32 my_area_generation = 0;

static void db_reset(SxDb *db, Oid dboid);

Size
sx_registry_size(void)
{
	return add_size(offsetof(SxShared, dbs), mul_size(sx_max_databases, sizeof(SxDb)));
}

/* called from shmem_startup_hook */
void
sx_registry_init(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	sx_shared = ShmemInitStruct("streamext", sx_registry_size(), &found);
	if (!found)
	{
		int			tranche = LWLockNewTrancheId();

		memset(sx_shared, 0, sx_registry_size());
		sx_shared->tranche_gate = LWLockNewTrancheId();
		sx_shared->tranche_publish = LWLockNewTrancheId();
		sx_shared->tranche_dsa = LWLockNewTrancheId();
		LWLockInitialize(&sx_shared->lock, tranche);
		sx_shared->ndbs = sx_max_databases;
		for (int i = 0; i < sx_max_databases; i++)
		{
			SxDb	   *db = &sx_shared->dbs[i];

			LWLockInitialize(&db->gate, sx_shared->tranche_gate);
			LWLockInitialize(&db->publish, sx_shared->tranche_publish);
			SpinLockInit(&db->mutex);
			pg_atomic_init_u32(&db->consumer_sleeps, 0);
			pg_atomic_init_u64(&db->cycle_started, 0);
			pg_atomic_init_u64(&db->cycle_published, 0);
			pg_atomic_init_u64(&db->consumed_lsn, 0);
			pg_atomic_init_u64(&db->read_lsn, 0);
			pg_atomic_init_u64(&db->flush_request, 0);
			pg_atomic_init_u64(&db->flush_done, 0);
			pg_atomic_init_u64(&db->turns, 0);
			pg_atomic_init_u64(&db->rows, 0);
			pg_atomic_init_u64(&db->caught_up_at, 0);
			pg_atomic_init_u32(&db->requirers, 0);
			pg_atomic_init_u32(&db->require_epoch, 0);
			ConditionVariableInit(&db->published_cv);
			db->area = DSM_HANDLE_INVALID;
		}
		/* names are inherited by every process forked from here on */
		LWLockRegisterTranche(tranche, "streamext");
		LWLockRegisterTranche(sx_shared->tranche_gate, "streamext_gate");
		LWLockRegisterTranche(sx_shared->tranche_publish, "streamext_publish");
		LWLockRegisterTranche(sx_shared->tranche_dsa, "streamext_live");
	}
	LWLockRelease(AddinShmemInitLock);
}

/* a slot for another database; locks and atomics keep their identity */
static void
db_reset(SxDb *db, Oid dboid)
{
	SpinLockAcquire(&db->mutex);
	db->wanted = false;
	db->closing = 0;
	db->slot_ready = false;
	db->problem[0] = '\0';
	memset(db->places, 0, sizeof(db->places));
	db->alerts_wanted = false;
	db->blamed_alert = InvalidOid;
	db->slot_xmin = InvalidTransactionId;
	db->slot_lsn = InvalidXLogRecPtr;
	db->flushing_view = InvalidOid;
	db->area = DSM_HANDLE_INVALID;
	db->nviews = 0;
	SpinLockRelease(&db->mutex);
	memset(db->views, 0, sizeof(db->views));
	db->dboid = dboid;
}

SxDb *
sx_db_lookup(Oid dboid, bool create)
{
	SxDb	   *found = NULL;

	if (sx_shared == NULL || !OidIsValid(dboid))
		return NULL;

	/* the common case needs no lock: an entry's OID changes only when it is freed */
	for (int i = 0; i < sx_shared->ndbs; i++)
		if (sx_shared->dbs[i].dboid == dboid)
			return &sx_shared->dbs[i];
	if (!create)
		return NULL;

	LWLockAcquire(&sx_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < sx_shared->ndbs; i++)
	{
		SxDb	   *db = &sx_shared->dbs[i];

		if (db->dboid == dboid)
		{
			found = db;
			break;
		}
		if (found == NULL && !OidIsValid(db->dboid))
			found = db;
	}
	if (found && found->dboid != dboid)
		db_reset(found, dboid);
	LWLockRelease(&sx_shared->lock);
	return found;
}

bool
sx_db_all_taken(void)
{
	for (int i = 0; sx_shared != NULL && i < sx_shared->ndbs; i++)
		if (!OidIsValid(sx_shared->dbs[i].dboid))
			return false;
	return sx_shared != NULL;
}

SxDb *
sx_my_db(void)
{
	return sx_db_lookup(MyDatabaseId, false);
}

/* gives the slot of a database that is gone to others; the launcher's */
void
sx_db_free(SxDb *db)
{
	LWLockAcquire(&sx_shared->lock, LW_EXCLUSIVE);
	db_reset(db, InvalidOid);
	LWLockRelease(&sx_shared->lock);
}

SxView *
sx_view_by_mat(SxDb *db, Oid matid)
{
	for (int i = 0; i < db->nviews; i++)
		if (db->views[i].matid == matid && OidIsValid(db->views[i].viewid))
			return &db->views[i];
	return NULL;
}

SxView *
sx_view_by_id(SxDb *db, Oid viewid)
{
	for (int i = 0; i < db->nviews; i++)
		if (db->views[i].viewid == viewid && OidIsValid(viewid))
			return &db->views[i];
	return NULL;
}

void
sx_view_set_reason(SxDb *db, SxView *v, const char *fmt,...)
{
	char		buf[sizeof(v->reason)];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	SpinLockAcquire(&db->mutex);
	memcpy(v->reason, buf, sizeof(buf));
	SpinLockRelease(&db->mutex);
}

void
sx_view_set_error(SxDb *db, SxView *v, const char *message)
{
	char		buf[sizeof(v->last_error)];
	TimestampTz now = GetCurrentTimestamp();

	strlcpy(buf, message, sizeof(buf));
	SpinLockAcquire(&db->mutex);
	memcpy(v->last_error, buf, sizeof(buf));
	v->last_error_at = now;
	SpinLockRelease(&db->mutex);
}

int
sx_view_setback(SxDb *db, SxView *v, int first_ms, int longest_ms)
{
	TimestampTz now = sx_now();
	int			pause = first_ms;

	SpinLockAcquire(&db->mutex);
	if (TimestampDifferenceExceeds(v->setback_at, now, 2 * v->setback_pause + SETBACK_FORGOTTEN_MS))
		v->setbacks = 0;
	for (int i = 0; i < v->setbacks && pause < longest_ms; i++)
		pause *= 2;
	pause = Min(pause, longest_ms);
	v->setbacks++;
	v->setback_at = now;
	v->setback_pause = pause;
	SpinLockRelease(&db->mutex);
	return pause;
}

/* the reason is shown for as long as the view is slow */
void
sx_view_set_slow(SxDb *db, SxView *v, const char *fmt,...)
{
	char		buf[sizeof(v->slow_why)];
	int			pause = sx_view_setback(db, v, SLOW_FIRST_MS, SLOW_LONGEST_MS);
	va_list		args;

	va_start(args, fmt);
	vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	SpinLockAcquire(&db->mutex);
	memcpy(v->slow_why, buf, sizeof(buf));
	v->slow = true;
	v->slow_until = TimestampTzPlusMilliseconds(sx_now(), pause);
	SpinLockRelease(&db->mutex);
}

bool
sx_take_place(SxDb *db, SxRole role)
{
	SxPlace    *place = &db->places[role];
	bool		taken;

	SpinLockAcquire(&db->mutex);
	/* a launcher that was restarted knows nothing of its predecessor's workers */
	taken = place->pid == 0 && !db->closing;
	if (taken)
	{
		place->pid = MyProcPid;
		place->latch = MyLatch;
	}
	SpinLockRelease(&db->mutex);
	return taken;
}

void
sx_leave_place(SxDb *db, SxRole role)
{
	SxPlace    *place = &db->places[role];

	SpinLockAcquire(&db->mutex);
	if (place->pid == MyProcPid)
	{
		place->pid = 0;
		place->latch = NULL;
	}
	SpinLockRelease(&db->mutex);
}

bool
sx_has_workers(const SxDb *db)
{
	for (int i = 0; i < SX_NROLES; i++)
		if (db->places[i].pid != 0)
			return true;
	return false;
}

/* the process may be gone, and another have come */
void
sx_wake(SxDb *db, SxRole role)
{
	Latch	   *latch;

	SpinLockAcquire(&db->mutex);
	latch = db->places[role].latch;
	SpinLockRelease(&db->mutex);
	if (latch)
		SetLatch(latch);
}

void
sx_wake_launcher(void)
{
	Latch	   *latch = sx_shared ? sx_shared->launcher_latch : NULL;

	if (latch)
		SetLatch(latch);
}

/*
 * The gate.  A shared request overtakes waiting exclusive ones, so busy readers would
 * starve the consumer; everybody takes the gate first, exclusively, for an instant.
 */
void
sx_lock_publish_shared(SxDb *db)
{
	LWLockAcquire(&db->gate, LW_EXCLUSIVE);
	LWLockAcquire(&db->publish, LW_SHARED);
	LWLockRelease(&db->gate);
}

void
sx_lock_publish_exclusive(SxDb *db)
{
	LWLockAcquire(&db->gate, LW_EXCLUSIVE);
	LWLockAcquire(&db->publish, LW_EXCLUSIVE);
	LWLockRelease(&db->gate);
}

void
sx_unlock_publish(SxDb *db)
{
	LWLockRelease(&db->publish);
}

/* consumer: a new, empty area; all readers re-attach */
void
sx_db_area_create(SxDb *db)
{
	MemoryContext old;
	dsa_area   *area;
	dsa_area   *before = sx_db_area(db);

	/*
	 * A predecessor's.  Its handle goes first: if there is no memory for a new one, whoever
	 * comes next must not try to attach to what is gone.
	 */
	sx_lock_publish_exclusive(db);
	db->area = DSM_HANDLE_INVALID;
	db->generation++;
	sx_unlock_publish(db);
	if (before)
	{
		dsa_unpin(before);
		dsa_detach(before);
		my_area = NULL;
	}

	old = MemoryContextSwitchTo(TopMemoryContext);
	area = dsa_create(sx_shared->tranche_dsa);
	MemoryContextSwitchTo(old);
	dsa_pin(area);
	dsa_pin_mapping(area);
	dsa_set_size_limit(area, (size_t) sx_live_memory * 1024);

	sx_lock_publish_exclusive(db);
	db->area = dsa_get_handle(area);
	db->generation++;
	my_area_generation = db->generation;
	sx_unlock_publish(db);
	my_area = area;
}

/* consumer, at exit: memory goes when the last process detaches */
void
sx_db_area_drop(SxDb *db)
{
	bool		had;

	sx_lock_publish_exclusive(db);
	had = db->area != DSM_HANDLE_INVALID;
	db->area = DSM_HANDLE_INVALID;
	db->generation++;
	sx_unlock_publish(db);
	if (had && my_area)
	{
		dsa_unpin(my_area);
		dsa_detach(my_area);
		my_area = NULL;
	}
}

dsa_area *
sx_db_area(SxDb *db)
{
	MemoryContext old;

	if (my_area && my_area_generation == db->generation)
		return my_area;

	if (my_area)
	{
		dsa_detach(my_area);
		my_area = NULL;
	}
	if (db->area == DSM_HANDLE_INVALID)
		return NULL;

	/*
	 * Attaching may fail or allocate, which is otherwise not done under this lock; it
	 * happens once per process and consumer, and keeps the area from going away meanwhile.
	 */
	old = MemoryContextSwitchTo(TopMemoryContext);
	sx_lock_publish_shared(db);
	if (db->area != DSM_HANDLE_INVALID)
	{
		my_area = dsa_attach(db->area);
		dsa_pin_mapping(my_area);
		my_area_generation = db->generation;
	}
	sx_unlock_publish(db);
	MemoryContextSwitchTo(old);
	return my_area;
}
