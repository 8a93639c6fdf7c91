/*
 * consumer_slot.c
 *		The consumer's slot: taking it, what it holds for each view, and letting go at limits.
 *
 * The slot holds WAL from the oldest start LSN of a stored position (restart_lsn), and the
 * horizon of VACUUM at the oldest id that a stored position lacks (xmin).  It is retention, never
 * truth: whether it did protect a view is decided when the view is taken up, from its stored
 * position.  A position whose xmin the slot's has passed was not protected: rows it lacks may
 * have been updated or deleted, and vacuumed.  Such a view is *exposed* until its position is as
 * young as what the slot holds; builders bring it up, noticing rows that are gone.  WAL is
 * simply there or not.
 *
 * As long as the server runs, less is needed than a restart from the stored positions would need: what a live view has
 * consumed and not stored yet, and what is to come.  A view that has stored all it has consumed holds back nothing, however
 * old the position: between that and now its stream had no rows.  So an idle view costs the other tables of the database nothing,
 * in particular those that are updated over and over.  On disk the slot's xmin is that of the oldest position.
 *
 * Limits.  A view that makes the slot hold more than streamext.max_held_wal, in whatever state,
 * does not count for restart_lsn any more; one that makes it hold more than
 * streamext.max_held_xids does not count for xmin.  WAL let go costs time (full_scan.c), an
 * xmin let go may cost rows, and that is reported.  At four fifths of max_slot_wal_keep_size we
 * let WAL go ourselves: a slot that the server invalidates loses its xmin, too.
 *
 * A slot that cannot be had (all in use, somebody else's, wal_level) is tried again by the
 * same process, which says so once; streamext.status shows why.
 */
#include "worker/consumer_internal.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "capture/slot.h"
#include "catalog/definitions.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "testing/stop_points.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* pause between attempts to get the slot */
#define SLOT_RETRY_MS	2000

static bool try_acquire(Consumer *c);
static bool has_views(SxDb *db);
static void let_go(SxDb *db, SxView *v, uint64 oldest_xmin, XLogRecPtr oldest_lsn);

/* comes back with the slot; ends the process if nobody wants it any more */
void
sx_consumer_acquire_slot(Consumer *c)
{
	SxDb	   *db = c->db;

	while (!try_acquire(c))
	{
		if (!has_views(db))
		{
			SpinLockAcquire(&db->mutex);
			if (pg_atomic_read_u32(&db->requirers) == 0)
				db->wanted = false;
			SpinLockRelease(&db->mutex);
			if (!db->wanted)
				proc_exit(0);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, SLOT_RETRY_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		sx_worker_check();
	}
}

static bool
try_acquire(Consumer *c)
{
	SxDb	   *db = c->db;
	MemoryContext caller = CurrentMemoryContext;
	volatile bool ok = false;
	const char *volatile why = "";

	PG_TRY();
	{
		const char *lost = NULL;

		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		(void) sx_slot_acquire(&lost);
		why = lost ? lost : "";
		PopActiveSnapshot();
		CommitTransactionCommand();
		ok = true;
	}
	PG_CATCH();
	{
		sx_consumer_note_problem(db, sx_worker_recover(caller));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	if (!ok)
		return false;

	SpinLockAcquire(&db->mutex);
	db->slot_ready = true;
	db->slot_xmin = sx_slot_horizon();
	db->slot_lsn = sx_slot_restart_lsn();
	db->problem[0] = '\0';
	if (why[0] != '\0')
		strlcpy(db->exposed_why, (const char *) why, sizeof(db->exposed_why));
	SpinLockRelease(&db->mutex);
	ConditionVariableBroadcast(&db->published_cv);
	return true;
}

/* in the log once, however often it is tried */
void
sx_consumer_note_problem(SxDb *db, const ErrorData *error)
{
	char		problem[sizeof(db->problem)];
	static char said[sizeof(db->problem)] = "";

	snprintf(problem, sizeof(problem), "%s%s%s", error->message,
			 error->hint ? " - " : "", error->hint ? error->hint : "");
	SpinLockAcquire(&db->mutex);
	memcpy(db->problem, problem, sizeof(problem));
	SpinLockRelease(&db->mutex);
	ConditionVariableBroadcast(&db->published_cv);
	if (strcmp(said, problem) == 0)
		return;
	strlcpy(said, problem, sizeof(said));
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("streamext consumer could not get its replication slot, and keeps trying: %s", error->message),
			 error->hint ? errhint("%s", error->hint) : 0));
}

static bool
has_views(SxDb *db)
{
	bool		found = false;

	if (pg_atomic_read_u32(&db->requirers) != 0)
		return true;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (sx_catalog_exists())
		found = sx_catalog_views() != NIL;
	PopActiveSnapshot();
	CommitTransactionCommand();
	return found;
}

/* what the slot is to hold for a view that stands at this stored position, or none (NULL) */
void
sx_consumer_protect(Consumer *c, LiveView *lv, const SxStoredPosition *pos)
{
	SxDb	   *db = c->db;
	SxView	   *v = lv->shared;
	bool		known = pos != NULL && pos->ours;
	XLogRecPtr	end = c->tail->capture->read_lsn;
	uint64		held = sx_widen_xid(sx_slot_xmin());

	SpinLockAcquire(&db->mutex);
	v->xmin_let_go = v->scanning = false;
	/* said once */
	if (!known || v->protect_lsn != pos->start_lsn)
		v->wal_let_go = false;
	if (known)
	{
		v->protect_xmin = pos->position->xmin;
		v->protect_lsn = pos->start_lsn;
		v->counts = pos->counts;
		v->watermark = pos->watermark;
		v->open_windows = -1;
		v->removed_until = pos->removed_until;
		v->scanning = pos->scan != NULL;
		if (v->protect_xmin < held)
		{
			v->exposed = true;
			v->protect_xmin = held;
			v->protected_since = GetCurrentTimestamp();
		}
	}
	else
	{
		v->exposed = false;
		v->protect_xmin = 0;
		v->protect_lsn = InvalidXLogRecPtr;
		v->watermark = v->removed_until = SX_TIME_NONE;
		v->open_windows = -1;
	}
	SpinLockRelease(&db->mutex);

	/* a slot that was made anew begins at the last checkpoint; what is there from before is kept, too */
	if (known && pos->start_lsn < sx_slot_restart_lsn() &&
		(end < pos->start_lsn || end - pos->start_lsn < sx_consumer_wal_limit()))
	{
		sx_slot_reach_back(pos->start_lsn);
		SpinLockAcquire(&db->mutex);
		db->slot_lsn = sx_slot_restart_lsn();
		SpinLockRelease(&db->mutex);
	}
}

uint64
sx_consumer_wal_limit(void)
{
	uint64		limit = (uint64) sx_max_held_wal * 1024 * 1024;

	/* the server counts whole segments */
	if (max_slot_wal_keep_size_mb >= 0)
	{
		uint64		kept = (uint64) max_slot_wal_keep_size_mb * 1024 * 1024 / 5 * 4;

		limit = Min(limit, Max(kept, (uint64) wal_segment_size) - wal_segment_size / 5);
	}
	return limit;
}

/*
 * To the oldest position stored, within the limits.  While a view is being created that nobody
 * knows yet the slot only moves where a limit makes it.
 */
void
sx_consumer_advance_slot(Consumer *c)
{
	SxDb	   *db = c->db;
	uint64		next = c->position->xmax;
	uint64		xmin = c->position->xmin;
	uint64		horizon = xmin;
	bool		complete = !c->tail->has_fresh && sx_pending_found(c->tail->capture->pending) == 0;
	XLogRecPtr	end = c->tail->capture->read_lsn;
	XLogRecPtr	lsn = sx_consumer_start_lsn(c);
	uint64		wal_limit = sx_consumer_wal_limit();
	uint64		oldest_xmin = next > sx_max_held_xids ? next - sx_max_held_xids : 0;
	XLogRecPtr	oldest_lsn = end > wal_limit ? end - wal_limit : 0;

	bool		creating = pg_atomic_read_u32(&db->requirers) != 0 ||
		pg_atomic_read_u32(&db->require_epoch) != c->require_epoch;

	if (creating)
	{
		xmin = Min(xmin, sx_widen_xid(sx_slot_xmin()));
		horizon = Min(horizon, sx_widen_xid(sx_slot_horizon()));
		lsn = Min(lsn, sx_slot_restart_lsn());
	}
	for (int i = 0; i < db->nviews; i++)
	{
		SxView	   *v = &db->views[i];

		if (OidIsValid(v->viewid) && (v->protect_xmin < oldest_xmin || v->protect_lsn < oldest_lsn))
			let_go(db, v, oldest_xmin, oldest_lsn);
	}

	SpinLockAcquire(&db->mutex);
	for (int i = 0; i < db->nviews; i++)
	{
		SxView	   *v = &db->views[i];

		if (!OidIsValid(v->viewid))
			continue;
		if (v->protect_xmin != 0 && !v->xmin_let_go)
		{
			xmin = Min(xmin, v->protect_xmin);
			if (!complete || v->state != SX_VIEW_LIVE || v->exposed || sx_consumer_is_unflushed(v))
				horizon = Min(horizon, v->protect_xmin);
		}
		if (v->protect_lsn != InvalidXLogRecPtr && !v->wal_let_go)
			lsn = Min(lsn, v->protect_lsn);
	}
	/* what is open for long is in no view's stored position, but its addresses hold WAL as well */
	lsn = Max(lsn, Min(oldest_lsn, end));
	xmin = Max(xmin, oldest_xmin);
	horizon = Max(horizon, xmin);
	if (TransactionIdFollows((TransactionId) horizon, db->slot_xmin))
		db->slot_xmin = (TransactionId) horizon;
	db->slot_lsn = lsn;
	SpinLockRelease(&db->mutex);

	if ((TransactionId) xmin != sx_slot_xmin() || (TransactionId) horizon != sx_slot_horizon() || lsn != sx_slot_restart_lsn())
	{
		SX_STOP_POINT(slot_advance);
		sx_slot_advance((TransactionId) xmin, (TransactionId) horizon, lsn);
		SX_STOP_POINT(slot_advanced);
	}
}

/* once for each view and limit */
static void
let_go(SxDb *db, SxView *v, uint64 oldest_xmin, XLogRecPtr oldest_lsn)
{
	bool		wal;
	bool		xmin;

	SpinLockAcquire(&db->mutex);
	wal = v->protect_lsn != InvalidXLogRecPtr && v->protect_lsn < oldest_lsn && !v->wal_let_go;
	xmin = v->protect_xmin != 0 && v->protect_xmin < oldest_xmin && !v->xmin_let_go;
	v->wal_let_go |= wal;
	v->xmin_let_go |= xmin;
	if (xmin)
		strlcpy(db->exposed_why, "streamext.max_held_xids was reached.", sizeof(db->exposed_why));
	SpinLockRelease(&db->mutex);

	if (wal)
		ereport(LOG,
				(errmsg("continuous view with OID %u held more WAL than allowed: it is let go, and the view will catch up by a full scan of its stream",
						v->viewid),
				 errdetail("streamext.max_held_wal is %d MB, max_slot_wal_keep_size is %d MB.",
						   sx_max_held_wal, max_slot_wal_keep_size_mb)));
	if (xmin)
		ereport(WARNING,
				(errmsg("continuous view with OID %u held back VACUUM for more transactions than allowed: its rows are not protected any more",
						v->viewid),
				 errdetail("streamext.max_held_xids is %d.", sx_max_held_xids),
				 errhint("Rows that are updated or deleted before the view reads them may be missing in it.")));
}
