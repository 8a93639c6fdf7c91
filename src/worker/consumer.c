/*
 * consumer.c
 *		The consumer of a database: reads WAL, computes, publishes.
 *
 * One turn of the loop:
 *	 load	   views from the catalog, when it changed
 *	 cycle	   snapshot, WAL, new files (cycle.c); then run the plans of all live views over the
 *			   transactions that are ready, at most a batch (consumer_compute.c), and publish all
 *			   results and the position at once
 *	 join	   views that stand close behind the shared position (consumer_join.c)
 *	 leave	   views of a stream that is locked, or has a new file too large to be scanned here
 *			   (consumer_leave.c)
 *	 flush	   seal generations that are due, for the flusher (consumer_flush.c)
 *	 builders  for views that are new or far behind (consumer_views.c)
 *	 slot	   moves to the oldest position stored
 *
 * Everything that can fail happens before the publication: an error of a view makes that
 * view fall back to its stored position, the others go on.  An error of the capture
 * itself ends the process; the next consumer begins at the stored positions.
 */
#include "worker/consumer_internal.h"

#include <signal.h>

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "capture/slot.h"
#include "catalog/definitions.h"
#include "live/live_read.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "time/watermark.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* rows of one cycle: catching up is many short cycles with progress */
#define BATCH_ROWS		100000
/* with more transactions than this in a millisecond cycles come less often, but within so many milliseconds */
#define BUSY_TRANSACTIONS	14
#define LONGEST_INTERVAL	4

/* how often it is counted what waits for a transaction that is held */
#define LAG_MS			100

static volatile bool catalog_stale;

/* whose code runs, for consumer_exit() */
static LiveView *running = NULL;

static void consumer_exit(int code, Datum arg);
static void catalog_changed(void);
static Consumer *start(SxDb *db);
static void copy_slow(SlowView *to, const SxView *v);
static void clear_views(Consumer *c);
static bool has_work(Consumer *c);
static void leave(Consumer *c);
static void cycle(Consumer *c);
static void consume(Consumer *c, SxPosition *snapshot);
static void publish(Consumer *c, SxPosition *position, XLogRecPtr consumed, List *taken);
static void note_freshness(Consumer *c, List *taken);
static void note_lag(Consumer *c, List *postponed);
static int64 interval(Consumer *c);
static void rest(Consumer *c, TimestampTz turn_started);

void
sx_consumer_main(Datum arg)
{
	SxWorkerArg wa = sx_worker_start();
	SxDb	   *db = sx_db_lookup(wa.dboid, false);
	Consumer   *c;

	if (db == NULL || !sx_take_place(db, SX_CONSUMER))
		proc_exit(0);
	before_shmem_exit(consumer_exit, PointerGetDatum(db));
	SX_STOP_POINT(consumer_started);

	sx_live_read_disabled = true;
	if (RecoveryInProgress())
		sx_standby_hold(db);
	c = start(db);
	for (;;)
	{
		TimestampTz turn_started = sx_now();

		sx_worker_check();
		MemoryContextReset(c->turn);
		MemoryContextSwitchTo(c->turn);

		if (catalog_stale || c->reload ||
			pg_atomic_read_u32(&db->require_epoch) != c->require_epoch)
		{
			catalog_stale = c->reload = false;
			sx_consumer_load_views(c);
		}
		if (!has_work(c))
		{
			/* a transaction's invalidations follow its end, which woke us: look without caches */
			InvalidateSystemCaches();
			sx_consumer_load_views(c);
			if (!has_work(c))
				leave(c);
		}

		cycle(c);
		if (!catalog_stale)
			sx_consumer_join(c);
		sx_consumer_flush(c);
		sx_consumer_drop_detached(c);
		sx_consumer_launch_builders(c);
		sx_consumer_advance_slot(c);
		rest(c, turn_started);
	}
}

static void
consumer_exit(int code, Datum arg)
{
	SxDb	   *db = (SxDb *) DatumGetPointer(arg);

	/* our successor must know, or it would meet the same end */
	if (running && sx_budget_is_deadly())
	{
		sx_view_set_slow(db, running->shared, "its functions do not end when they are canceled: follows in a process of its own");
		ereport(LOG,
				(errmsg("streamext consumer ends because continuous view with OID %u does not end when it is canceled",
						running->shared->viewid)));
	}
	SpinLockAcquire(&db->mutex);
	db->slot_ready = false;
	SpinLockRelease(&db->mutex);
	sx_leave_place(db, SX_CONSUMER);
	pg_atomic_write_u32(&db->consumer_sleeps, 0);
	ConditionVariableBroadcast(&db->published_cv);
	sx_wake_launcher();
}

static void
catalog_changed(void)
{
	catalog_stale = true;
}

/* memory starts empty: whatever a predecessor left is a cache of what is stored */
static Consumer *
start(SxDb *db)
{
	Consumer   *c = MemoryContextAllocZero(TopMemoryContext, sizeof(Consumer));
	XLogRecPtr	end;

	c->db = db;
	c->turn = AllocSetContextCreate(TopMemoryContext, "streamext consumer turn", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(c->turn);

	sx_consumer_acquire_slot(c);
	SX_STOP_POINT(consumer_protected);
	clear_views(c);
	sx_db_area_create(db);
	SX_STOP_POINT(consumer_cleared);

	sx_catalog_on_change(catalog_changed);
	catalog_stale = true;

	/* nothing is live yet: each view joins from its own position */
	c->complete_at = GetCurrentTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	end = sx_wal_flush_to_end();
	MemoryContextSwitchTo(TopMemoryContext);
	c->position = sx_position_from_snapshot(GetActiveSnapshot());
	PopActiveSnapshot();
	CommitTransactionCommand();
	c->tail = sx_tail_create(TopMemoryContext, end);
	c->tail->follows = true;
	c->tail->scan_limit = SX_SCAN_LIMIT;
	return c;
}

/*
 * Forgets what a predecessor had.  Its builders end first: they write into tables, by positions
 * that nobody would know of; and its helper, whose jobs are gone.  The flusher may be at work on one of its generations; it claims them
 * under the publish lock, so the look at flushing_view and the end of all generations are one.
 */
static void
clear_views(Consumer *c)
{
	SxDb	   *db = c->db;
	SlowView   *known = MemoryContextAlloc(TopMemoryContext, sizeof(SlowView) * SX_MAX_VIEWS);
	int			nknown = 0;
	MemoryContext old;

	for (;;)
	{
		bool		busy;
		pid_t		helper;

		sx_lock_publish_exclusive(db);
		SpinLockAcquire(&db->mutex);
		busy = OidIsValid(db->flushing_view) && db->places[SX_FLUSHER].pid != 0;
		helper = db->places[SX_HELPER].pid;
		SpinLockRelease(&db->mutex);
		if (helper != 0)
		{
			kill(helper, SIGTERM);
			busy = true;
		}
		for (int i = 0; i < db->nviews; i++)
		{
			pid_t		pid = db->views[i].builder_pid;

			if (pid != 0)
			{
				kill(pid, SIGTERM);
				busy = true;
			}
		}
		if (!busy)
		{
			for (int i = 0; i < db->nviews; i++)
			{
				uint64		incarnation = db->views[i].incarnation;

				if (db->views[i].slow)
					copy_slow(&known[nknown++], &db->views[i]);
				memset(&db->views[i], 0, sizeof(SxView));
				db->views[i].incarnation = incarnation + 1;
			}
			db->nviews = 0;
			db->jobs_given = db->jobs_done = 0;
		}
		sx_unlock_publish(db);
		if (!busy)
			break;

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 50,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		sx_worker_check();
	}

	old = MemoryContextSwitchTo(TopMemoryContext);
	for (int i = 0; i < nknown; i++)
		c->known = lappend(c->known, &known[i]);
	MemoryContextSwitchTo(old);
}

static void
copy_slow(SlowView *to, const SxView *v)
{
	to->viewid = v->viewid;
	to->setbacks = v->setbacks;
	to->setback_at = v->setback_at;
	to->setback_pause = v->setback_pause;
	to->slow_until = v->slow_until;
	memcpy(to->slow_why, v->slow_why, sizeof(to->slow_why));
}

static bool
has_work(Consumer *c)
{
	return c->views != NIL || pg_atomic_read_u32(&c->db->requirers) != 0 ||
		pg_atomic_read_u32(&c->db->require_epoch) != c->require_epoch;
}

/* no stream is left: nothing runs, and the slot holds nothing */
static void
leave(Consumer *c)
{
	SxDb	   *db = c->db;

	SpinLockAcquire(&db->mutex);
	/*
	 * Whoever requires us says so before he looks at slot_ready under this lock: either we see
	 * him here, or he sees that the slot goes.
	 */
	if (pg_atomic_read_u32(&db->requirers) != 0 ||
		pg_atomic_read_u32(&db->require_epoch) != c->require_epoch)
	{
		SpinLockRelease(&db->mutex);
		return;
	}
	db->wanted = false;
	db->left++;
	db->slot_ready = false;
	SpinLockRelease(&db->mutex);
	sx_wake(db, SX_FLUSHER);
	sx_consumer_wait_flusher(c);
	sx_consumer_drop_early(c);
	sx_db_area_drop(db);
	SX_STOP_POINT(consumer_leaves);
	sx_slot_release();
	(void) sx_slot_drop(db->dboid);
	proc_exit(0);
}

/* every address that is not in the position lies at or above this */
XLogRecPtr
sx_consumer_start_lsn(Consumer *c)
{
	XLogRecPtr	first = sx_pending_first_lsn(c->tail->capture->pending);

	if (first != InvalidXLogRecPtr && first < c->tail->capture->read_lsn)
		return first;
	return c->tail->capture->read_lsn;
}

static void
cycle(Consumer *c)
{
	SxPosition *snapshot;
	bool		complete;

	c->retry_soon = false;
	c->early_backlog = false;
	c->cycle = pg_atomic_add_fetch_u64(&c->db->cycle_started, 1);
	c->cycle_at = GetCurrentTimestamp();
	complete = sx_tail_cycle(c->tail, c->position, c->turn, &snapshot);
	sx_consumer_leave_gained(c, NULL, NULL);
	if (catalog_stale)
	{
		/* rows committed after a definition or setting was changed are computed by the new one: load it first */
		c->backlog = true;
	}
	else if (complete)
	{
		c->follow_closely = sx_consumer_early(c, snapshot);
		/* with rows at hand there is no need to see more of them */
		c->tail->flush_wal = c->follow_closely && !c->early_backlog && !c->holds;
		if (c->tail->broken != NIL)
			sx_consumer_stop_broken(c);
		consume(c, snapshot);
		if (!c->holds)
			sx_consumer_follow_clock(c);
	}
	else
	{
		c->retry_soon = true;
		sx_consumer_leave_blocked(c);
	}
	pg_atomic_write_u64(&c->db->read_lsn, c->tail->capture->read_lsn);
}

/*
 * Takes what S sees and the position does not contain, in commit order, at most a batch;
 * computes for all live views; publishes.
 */
static void
consume(Consumer *c, SxPosition *snapshot)
{
	SxPending  *pending = c->tail->capture->pending;
	List	   *taken = NIL;
	List	   *postponed = NIL;
	uint64		nrows = 0;
	bool		waits = false;
	bool		relieved = false;
	bool		again;
	SxReady   **held;
	int			nheld = 0;
	XLogRecPtr	consumed = PG_UINT64_MAX;
	dlist_mutable_iter iter;
	ListCell   *lc;

	c->backlog = false;
	dlist_foreach_modify(iter, sx_pending_ready(pending))
	{
		SxReady    *r = dlist_container(SxReady, node, iter.cur);

		if (r->fxid == SX_ALWAYS_XID)
			taken = lcons(r, taken);
		else if (sx_position_contains(c->position, r->fxid))
			sx_pending_remove(pending, r);
		else if (!sx_position_contains(snapshot, r->fxid))
			continue;			/* its commit is not visible yet */
		else if ((waits |= r->held) && !r->found)
			postponed = lappend(postponed, r);
		else if (nrows > 0 && nrows + r->nrows > BATCH_ROWS && !r->found)
			postponed = lappend(postponed, r);
		else
		{
			taken = lappend(taken, r);
			nrows += r->nrows;
		}
	}

	c->holds = waits;
	if (waits && taken == NIL)
	{
		/* nothing is new, but that more and more would stand beside the position */
		if (TimestampDifferenceExceeds(c->lag_at, sx_now(), LAG_MS))
			note_lag(c, postponed);
		return;
	}
	if (taken != NIL)
		SX_STOP_POINT(consume_taken);
	do
	{
		again = false;
		sx_consumer_compute_all(c, &taken, &postponed, relieved, &again);
		if (again)
			relieved = true;
	} while (again);

	held = palloc(sizeof(SxReady *) * (list_length(postponed) + 1));
	foreach(lc, postponed)
	{
		SxReady    *r = lfirst(lc);

		held[nheld++] = r;
		consumed = Min(consumed, r->commit_lsn);
	}
	c->backlog = (nheld > 0 && !c->retry_soon) || c->tail->more;
	if (nheld == 0 && !c->tail->behind && !c->tail->more)
		c->complete_at = c->cycle_at;
	if (c->tail->behind || c->tail->more)
		consumed = Min(consumed, c->tail->capture->read_lsn);
	note_lag(c, postponed);
	if (taken != NIL)
		SX_STOP_POINT(compute_done);
	publish(c, sx_tail_position(snapshot, held, nheld), consumed, taken);

	foreach(lc, taken)
		sx_pending_remove(pending, lfirst(lc));
	if (taken != NIL)
		SX_STOP_POINT(consumed);
}

/* what is left for the next cycles, for streamext.status */
static void
note_lag(Consumer *c, List *postponed)
{
	SxReady   **ready = palloc(sizeof(SxReady *) * (list_length(postponed) + 1));
	int			n = 0;
	SxBatch    *batch = NULL;
	ListCell   *lc;

	c->lag_at = sx_now();
	if (postponed == NIL)
		pg_atomic_write_u64(&c->db->caught_up_at, c->lag_at);
	foreach(lc, postponed)
		ready[n++] = lfirst(lc);
	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->shared->state != SX_VIEW_LIVE)
			continue;
		if (n == 0)
		{
			lv->shared->lag_rows = 0;
			continue;
		}
		if (batch == NULL || batch->stream != lv->def->streamid)
			batch = sx_batch_create(c->tail->capture->map, lv->def->streamid, ready, n, 0);
		lv->shared->lag_rows = batch->nrows;
	}
}

/* how long after its commit record was written each transaction became visible; who waits for it finds this noted */
static void
note_freshness(Consumer *c, List *taken)
{
	TimestampTz now;
	uint32		counts[lengthof(((SxView *) 0)->freshness)] = {0};
	ListCell   *lc;

	if (taken == NIL)
		return;
	now = GetCurrentTimestamp();
	foreach(lc, taken)
	{
		SxReady    *r = lfirst(lc);
		uint64		us = r->commit_time == 0 ? 0 : (uint64) Max(now - r->commit_time, 1);

		if (us != 0)
			counts[Min(pg_leftmost_one_pos64(us), lengthof(counts) - 1)]++;
	}

	SpinLockAcquire(&c->db->mutex);
	foreach(lc, c->views)
	{
		SxView	   *v = ((LiveView *) lfirst(lc))->shared;

		if (v->state == SX_VIEW_LIVE)
			for (int i = 0; i < lengthof(counts); i++)
				v->freshness[i] += counts[i];
	}
	SpinLockRelease(&c->db->mutex);
}

bool
sx_consumer_is_stale(Consumer *c)
{
	return catalog_stale || c->reload;
}

void
sx_consumer_begin_run(LiveView *lv, uint64 rows)
{
	running = lv;
	sx_budget_start(sx_account_limit(&lv->account, rows));
}

/*
 * False: what it took was more than it has, also if it came to an end by itself; then the view is to
 * leave, whatever its result.
 */
bool
sx_consumer_end_run(LiveView *lv, uint64 rows)
{
	int64		us = sx_budget_stop();
	bool		ok = sx_account_charge(&lv->account, rows, us) && !sx_budget_exceeded();

	running = NULL;
	if (!ok)
	{
		lv->slow_ms = (int) Min(us / 1000, PG_INT32_MAX);
		lv->slow_rows = rows;
	}
	return ok;
}

/* all views and the position, in one instant; nothing here can fail */
static void
publish(Consumer *c, SxPosition *position, XLogRecPtr consumed, List *taken)
{
	SxDb	   *db = c->db;
	SxPosition *old = c->position;
	MemoryContext oldcxt;
	bool		any = false;
	bool		alerted = false;
	int64		rows = 0;
	ListCell   *lc;

	oldcxt = MemoryContextSwitchTo(TopMemoryContext);
	c->position = sx_position_copy(position);
	MemoryContextSwitchTo(oldcxt);

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (!lv->prepared)
			continue;
		any = true;
		alerted |= lv->shared->alerted;
		sx_live_list_changes(lv->writer);
	}

	if (any)
	{
		sx_lock_publish_exclusive(db);
		foreach(lc, c->views)
		{
			LiveView   *lv = lfirst(lc);

			if (!lv->prepared)
				continue;
			sx_live_publish(lv->writer, c->cycle, &lv->counts);
			lv->shared->watermark = Max(lv->shared->watermark, lv->watermark);
			SX_STOP_POINT_OF(publish_half, lv->def->viewid);
		}
		note_freshness(c, taken);
		/* inside the lock, so that a copy and its cycle agree */
		pg_atomic_write_u64(&db->consumed_lsn, consumed);
		pg_write_barrier();
		pg_atomic_write_u64(&db->cycle_published, c->cycle);
		SX_STOP_POINT(publish_locked);
		sx_unlock_publish(db);
		SX_STOP_POINT(published);
	}
	else
	{
		note_freshness(c, taken);
		pg_atomic_write_u64(&db->consumed_lsn, consumed);
		pg_write_barrier();
		pg_atomic_write_u64(&db->cycle_published, c->cycle);
	}
	pfree(old);
	if (alerted)
		sx_wake(db, SX_ALERTER);

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (!lv->prepared)
			continue;
		sx_live_published(lv->writer);
		rows = Max(rows, lv->counts.rows);
		SpinLockAcquire(&db->mutex);
		sx_counts_add(&lv->shared->counts, &lv->counts);
		SpinLockRelease(&db->mutex);
		sx_consumer_note_row(c, lv);
		lv->prepared = false;
	}
	if (rows > 0)
		pg_atomic_fetch_add_u64(&db->rows, rows);
	ConditionVariableBroadcast(&db->published_cv);
}

/*
 * From the beginning of one turn to that of the next, in microseconds.  A cycle costs about the same for one transaction as for
 * ten; when so many come that others want the processor as well, more of them share one.
 */
static int64
interval(Consumer *c)
{
	uint64		completed = SxXactCompletionCount();
	TimestampTz now = sx_now();
	uint64		per_ms = (completed - c->completed) * 1000 / Max(now - c->completed_at, 1);

	c->completed = completed;
	c->completed_at = now;
	if (sx_cycle_interval == 0)
		return 0;
	return Max(sx_cycle_interval, (int) Min(per_ms / BUSY_TRANSACTIONS, LONGEST_INTERVAL)) * INT64CONST(1000);
}

/*
 * Sleeps until a transaction commits or something is due; at most a cycle per
 * interval.  A latch set at any time since the turn began means one more turn.
 */
static void
rest(Consumer *c, TimestampTz turn_started)
{
	SxDb	   *db = c->db;
	long		timeout;
	int			events;
	/* in microseconds: most turns take a small part of a millisecond, which is not all of one */
	int64		pace = interval(c) - (sx_now() - turn_started);

	if (pace > 0 &&
		(WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, (pace + 999) / 1000,
				   PG_WAIT_EXTENSION) & WL_LATCH_SET) != 0)
	{
		ResetLatch(MyLatch);
		c->longest_sleep = 0;
		pg_usleep(sx_cycle_interval * 500L);
		return;
	}
	if (c->backlog || c->early_backlog || c->tail->stale || catalog_stale)
		return;

	timeout = sx_consumer_next_flush_ms(c);
	if (sx_tail_next_look_ms(c->tail) > 0)
		timeout = Min(timeout, sx_tail_next_look_ms(c->tail));
	timeout = Min(timeout, sx_consumer_clock_ms(c));
	if (c->follow_closely)
		timeout = Min(timeout, 2);
	if (c->retry_soon || c->tail->has_fresh)
		timeout = Min(timeout, 10);
	pg_atomic_write_u32(&db->consumer_sleeps, 1);
	pg_memory_barrier();
	/* a transaction that ended before the flag was seen would not wake us */
	if (SxXactCompletionCount() != c->tail->last_completion || timeout <= 0)
		events = WL_LATCH_SET;
	else
		events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
						   PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	pg_atomic_write_u32(&db->consumer_sleeps, 0);

	/* the longer nothing happens the less often we look whether something does that wakes nobody */
	if ((events & WL_LATCH_SET) != 0 || c->tail->capture->read_lsn != c->slept_at)
		c->longest_sleep = 0;
	else
		c->longest_sleep *= 2;
	c->slept_at = c->tail->capture->read_lsn;
}
