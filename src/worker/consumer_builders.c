/*
 * consumer_builders.c
 *		Processes for views that do not stand with the others: who gets one, for how long.
 *
 * Views that are new, or fell back for a moment, need a builder for a short time; slow ones for
 * long, and one whose function hangs for ever.  So there are two kinds of places: whatever has run for
 * LONG_AFTER_MS, and a slow view from the beginning, counts among the long ones and leaves the
 * others' places free.  When a view waits and has no place, the long builder that has had its turn
 * must end: it is asked first and ends after the next write, then it is told to.  One that had to be
 * told gets a turn twice as long, so that every view that can make progress does.
 *
 * A builder gives way to whoever waits for a lock that it holds: a command that changes or drops
 * the view, the stream or a lookup table must not wait for a function that hangs.
 */
#include "worker/consumer_internal.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/memutils.h"

/* new views, and those that fell back */
#define MAX_SHORT		2
/* slow views, and what takes long; a server with few background workers allows fewer */
#define MAX_LONG		4
#define LONG_AFTER_MS	10000
/* what a long builder may take at first, while others wait */
#define FIRST_TURN_MS	10000
#define LONGEST_TURN_MS	3600000
/* how often builders are looked after */
#define WATCH_MS		250
/* what waits for a lock of a builder so long makes it give way */
#define GIVE_WAY_MS		500
/* pause of a view whose builder gave way, or found no background worker */
#define NO_WORKER_MS	1000

static void reap(Consumer *c);
static void watch(Consumer *c, TimestampTz now);
static bool holds_up_others(const LockData *locks, pid_t pid);
static bool is_long(LiveView *lv, TimestampTz now);
static bool find_place(Consumer *c, bool slow, TimestampTz now);
static void make_place(Consumer *c, TimestampTz now);
static void launch(Consumer *c, LiveView *lv, TimestampTz now);
static void end_builder(LiveView *lv);
static void launch_swapper(Consumer *c, LiveView *lv, TimestampTz now);

void
sx_consumer_launch_builders(Consumer *c)
{
	TimestampTz now = sx_now();
	bool		waiting;
	LiveView   *next;
	ListCell   *view;

	reap(c);
	watch(c, now);
	foreach(view, c->views)
		launch_swapper(c, lfirst(view), now);
	do
	{
		ListCell   *lc;

		next = NULL;
		waiting = false;

		/* the one that has waited longest, of those for which there is a place */
		foreach(lc, c->views)
		{
			LiveView   *lv = lfirst(lc);
			SxView	   *v = lv->shared;

			if (lv->drop_pending || lv->gone || lv->builder)
				continue;
			if (v->state == SX_VIEW_FAILED && v->retry_at <= now)
			{
				lv->needs_builder = true;
				sx_consumer_set_state(c->db, v, v->protect_lsn == InvalidXLogRecPtr ?
									  SX_VIEW_NEW : SX_VIEW_CATCHUP);
			}
			if (lv->def->paused && (v->state == SX_VIEW_NEW || v->state == SX_VIEW_CATCHUP))
			{
				sx_consumer_set_state(c->db, v, SX_VIEW_PAUSED);
				sx_view_set_reason(c->db, v, "paused; continue with streamext.resume()");
			}
			if ((v->state != SX_VIEW_NEW && !(v->state == SX_VIEW_CATCHUP && lv->needs_builder)) ||
				v->retry_at > now)
			{
				lv->waits_since = 0;
				continue;
			}
			if (lv->waits_since == 0)
				lv->waits_since = now;
			if (next != NULL && lv->waits_since >= next->waits_since)
				continue;
			if (!find_place(c, v->slow, now))
				waiting = true;
			/* one that waits for a lock would keep others waiting for a place */
			else if (!sx_consumer_stream_locked(c, lv))
				next = lv;
		}
		if (c->db->closing)
			return;
		if (next != NULL)
		{
			launch(c, next, now);
			next->waits_since = 0;
		}
	} while (next != NULL);
	if (waiting)
		make_place(c, now);
}

/* takes note of builders that have ended */
static void
reap(Consumer *c)
{
	ListCell   *lc;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		SxView	   *v = lv->shared;
		pid_t		pid;
		bool		left;

		if (lv->builder == NULL || GetBackgroundWorkerPid(lv->builder, &pid) != BGWH_STOPPED)
			continue;
		pfree(lv->builder);
		lv->builder = NULL;
		SpinLockAcquire(&c->db->mutex);
		left = v->builder_left;
		v->builder_left = false;
		SpinLockRelease(&c->db->mutex);
		if (v->state == SX_VIEW_BUILDING && !lv->builder_ended && !left)
			sx_consumer_fail(c, lv, "its builder ended unexpectedly");
		else if (v->state == SX_VIEW_BUILDING)
		{
			sx_consumer_set_state(c->db, v, v->protect_lsn == InvalidXLogRecPtr ?
								  SX_VIEW_NEW : SX_VIEW_CATCHUP);
			lv->needs_builder = true;
		}
		else
			/* a slow one that ended for others, or because it may try to join? */
			lv->needs_builder = v->state == SX_VIEW_CATCHUP && v->yield;
		lv->caught_up = v->state == SX_VIEW_CATCHUP && !lv->needs_builder;
		/* it can join: in the next cycle, which is now */
		c->backlog |= lv->caught_up;
		lv->builder_ended = false;
		v->yield = false;
		SpinLockAcquire(&c->db->mutex);
		v->work_since = 0;
		SpinLockRelease(&c->db->mutex);
	}
}

/* builders whose work is not wanted any more, or in the way */
static void
watch(Consumer *c, TimestampTz now)
{
	LockData   *locks = NULL;
	bool		look = TimestampDifferenceExceeds(c->last_watch, now, WATCH_MS);
	ListCell   *lc;

	if (look)
		c->last_watch = now;
	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		SxView	   *v = lv->shared;
		pid_t		pid;

		if (lv->builder == NULL || lv->builder_ended)
			continue;
		if (lv->gone || lv->def->paused)
		{
			end_builder(lv);
			continue;
		}
		/* reading all locks is not for nothing: only for one that has held its locks for a while */
		pid = v->builder_pid;
		if (!look || pid == 0 || v->work_since == 0 ||
			!TimestampDifferenceExceeds(v->work_since, now, GIVE_WAY_MS))
			continue;
		if (locks == NULL)
			locks = GetLockStatusData();
		if (holds_up_others(locks, pid))
		{
			end_builder(lv);
			SpinLockAcquire(&c->db->mutex);
			v->retry_at = TimestampTzPlusMilliseconds(now, NO_WORKER_MS);
			SpinLockRelease(&c->db->mutex);
		}
	}
}

static bool
holds_up_others(const LockData *locks, pid_t pid)
{
	TimestampTz wall = GetCurrentTimestamp();

	for (int i = 0; i < locks->nelements; i++)
	{
		const LockInstanceData *mine = &locks->locks[i];

		if (mine->pid != pid || mine->holdMask == 0)
			continue;
		for (int j = 0; j < locks->nelements; j++)
		{
			const LockInstanceData *other = &locks->locks[j];

			if (other->pid != pid && other->waitLockMode != NoLock &&
				memcmp(&other->locktag, &mine->locktag, sizeof(LOCKTAG)) == 0 &&
				(GetLockTagsMethodTable(&mine->locktag)->conflictTab[other->waitLockMode] & mine->holdMask) != 0 &&
				other->waitStart != 0 && TimestampDifferenceExceeds(other->waitStart, wall, GIVE_WAY_MS))
				return true;
		}
	}
	return false;
}

static bool
is_long(LiveView *lv, TimestampTz now)
{
	return lv->shared->slow || TimestampDifferenceExceeds(lv->builder_started, now, LONG_AFTER_MS);
}

/* is there a place for a view, slow or not? */
static bool
find_place(Consumer *c, bool slow, TimestampTz now)
{
	int			max_long = Max(1, Min(MAX_LONG, max_worker_processes / 4));
	int			nlong = 0;
	int			nshort = 0;
	ListCell   *lc;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->builder == NULL)
			continue;
		if (is_long(lv, now))
			nlong++;
		else
			nshort++;
	}
	if (slow)
		return nlong < max_long;
	return nshort + Max(nlong - max_long, 0) < MAX_SHORT;
}

/* somebody waits: of the long builders that have had their turn, the oldest ends */
static void
make_place(Consumer *c, TimestampTz now)
{
	LiveView   *oldest = NULL;
	ListCell   *lc;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->builder == NULL || !is_long(lv, now))
			continue;
		if (lv->builder_ended)
			return;				/* one at a time */
		if (lv->turn_ms == 0)
			lv->turn_ms = FIRST_TURN_MS;
		if (TimestampDifferenceExceeds(lv->builder_started, now, lv->turn_ms) &&
			(oldest == NULL || lv->builder_started < oldest->builder_started))
			oldest = lv;
	}
	if (oldest == NULL)
		return;
	oldest->shared->yield = true;
	if (TimestampDifferenceExceeds(oldest->builder_started, now, 2 * oldest->turn_ms))
	{
		oldest->turn_ms = Min(2 * oldest->turn_ms, LONGEST_TURN_MS);
		end_builder(oldest);
	}
}

static void
launch(Consumer *c, LiveView *lv, TimestampTz now)
{
	BackgroundWorker w;
	SxWorkerArg arg;
	MemoryContext old;
	SxViewState before = lv->shared->state;
	bool		ok;

	sx_worker_fill(&w, "streamext builder", "sx_builder_main", c->db->dboid, lv->def->viewid);
	sx_consumer_set_state(c->db, lv->shared, SX_VIEW_BUILDING);
	/* one that starts late, for a consumer that is gone, must not take it for its own */
	memcpy(&arg, w.bgw_extra, sizeof(arg));
	arg.incarnation = lv->shared->incarnation;
	memcpy(w.bgw_extra, &arg, sizeof(arg));
	lv->shared->yield = false;
	lv->builder_started = now;
	lv->builder_ended = false;
	old = MemoryContextSwitchTo(lv->context);
	ok = RegisterDynamicBackgroundWorker(&w, &lv->builder);
	MemoryContextSwitchTo(old);
	if (ok)
	{
		c->no_worker = false;
		return;
	}

	/* not the view's fault: it waits, and says for what; the log hears of it once */
	lv->builder = NULL;
	SpinLockAcquire(&c->db->mutex);
	lv->shared->retry_at = TimestampTzPlusMilliseconds(now, NO_WORKER_MS);
	SpinLockRelease(&c->db->mutex);
	sx_consumer_set_state(c->db, lv->shared, before);
	sx_view_set_reason(c->db, lv->shared, "no background worker slot is free; raise max_worker_processes");
	if (!c->no_worker)
		ereport(LOG,
				(errmsg("streamext could not start a builder: no background worker slot is free"),
				 errhint("Raise max_worker_processes in postgresql.conf and restart the server.")));
	c->no_worker = true;
}

/* a hidden view that is live may take the place of the other one; without that it goes */
static void
launch_swapper(Consumer *c, LiveView *lv, TimestampTz now)
{
	BackgroundWorker w;
	MemoryContext old;
	pid_t		pid;

	if (lv->swapper != NULL)
	{
		if (GetBackgroundWorkerPid(lv->swapper, &pid) != BGWH_STOPPED)
			return;
		pfree(lv->swapper);
		lv->swapper = NULL;
		lv->swap_at = TimestampTzPlusMilliseconds(now, NO_WORKER_MS);
	}
	if (!OidIsValid(lv->def->replaces) || lv->gone || (lv->shared->state != SX_VIEW_LIVE && !lv->dangling) ||
		lv->swap_at > now || c->db->closing)
		return;
	sx_worker_fill(&w, "streamext swapper", "sx_swapper_main", c->db->dboid, lv->def->viewid);
	old = MemoryContextSwitchTo(lv->context);
	if (!RegisterDynamicBackgroundWorker(&w, &lv->swapper))
	{
		lv->swapper = NULL;
		lv->swap_at = TimestampTzPlusMilliseconds(now, NO_WORKER_MS);
	}
	MemoryContextSwitchTo(old);
}

static void
end_builder(LiveView *lv)
{
	lv->builder_ended = true;
	TerminateBackgroundWorker(lv->builder);
}
