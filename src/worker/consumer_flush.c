/*
 * consumer_flush.c
 *		Decides what is flushed and when, carries out flush requests and pauses, gives
 *		memory back, and moves the slot.
 *
 * A generation is sealed with the published position, at the end of a cycle.  A view has at
 * most one sealed generation at a time; it goes on collecting in the next.
 */
#include "worker/consumer_internal.h"

#include "access/transam.h"
#include "access/xact.h"
#include "capture/open_rows.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "time/retention.h"
#include "utils/memutils.h"
#include "testing/stop_points.h"

/*
 * An empty flush moves a view's position after this much WAL, or this many transactions: a restart needs WAL from there, and
 * holds back VACUUM until the view has caught up (while the server runs an idle view does not: consumer_slot.c).  Of so many
 * transactions at most one is such a flush.
 */
#define IDLE_FLUSH_BYTES	(UINT64CONST(64) * 1024 * 1024)
#define IDLE_FLUSH_XIDS		1000
#define IDLE_XIDS_PER_VIEW	50
/* flushes that fail this often cost the view its live memory, when somebody waits for it or needs the memory */
#define MAX_FLUSH_FAILURES	3
/*
 * A transaction that writes for long wakes nobody before it commits, and invalidations come just after
 * what woke us: look for them this often at first, less often while nothing comes
 */
#define FIRST_SLEEP_MS		100
#define LONGEST_SLEEP_MS	1000
/* how long to wait for flushes that have not begun, when memory is exhausted */
#define RELIEVE_MS			30000
/* how often freed generations are looked for */
#define FREE_INTERVAL_MS	100

/* the part of live_memory that addresses of open transactions may take when they are stored */
#define OPEN_ROWS_PART		8

static bool may_seal(Consumer *c);
static int pause_of(SxView *v);
static TimestampTz rests_until(LiveView *lv);
static bool is_due(Consumer *c, LiveView *lv, TimestampTz now);
static bool has_open_rows(SxView *v);
static bool seal(Consumer *c, LiveView *lv);
static bool seal_left(Consumer *c, LiveView *lv);
static bool cannot_flush(SxView *v);
static void give_up(Consumer *c, LiveView *lv);
static Oid	known_before(SxFileMap *map, SxFileEntry *e);
static void check_request(Consumer *c);
static void note_rate(Consumer *c, SxView *v, TimestampTz now);

void
sx_consumer_flush(Consumer *c)
{
	SxDb	   *db = c->db;
	TimestampTz now = sx_now();
	bool		sealed = false;
	ListCell   *lc;
	bool		look_for_free = TimestampDifferenceExceeds(c->last_free, now, FREE_INTERVAL_MS);

	/* the oldest open transaction decides what WAL is kept: for long only in a table */
	sx_open_rows_relieve(c->tail->capture, (Size) sx_live_memory * 1024 / OPEN_ROWS_PART);

	/* a request covers all that was published when it is seen */
	if (c->flush_request == 0)
	{
		uint64		wanted = pg_atomic_read_u64(&db->flush_request);

		if (wanted > pg_atomic_read_u64(&db->flush_done))
		{
			c->flush_request = wanted;
			foreach(lc, c->views)
			{
				LiveView   *lv = lfirst(lc);

				lv->flush_wanted = lv->shared->state == SX_VIEW_LIVE;
				lv->flush_gen = 0;
			}
		}
	}

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		SxView	   *v = lv->shared;

		note_rate(c, v, now);
		if (v->state == SX_VIEW_PAUSING)
		{
			/* one that leaves: what an earlier seal does not contain */
			if (sx_gen_sealed(v) == NULL && seal_left(c, lv))
				sealed = true;

			/* what cannot be written is dropped: it is read again when the view goes on */
			if (sx_gen_sealed(v) == NULL || cannot_flush(v))
			{
				sx_consumer_end_leave(lv);
				/* resumed meanwhile? */
				sx_consumer_detach(c, lv, lv->def->paused ? SX_VIEW_PAUSED : SX_VIEW_CATCHUP);
				if (lv->def->paused || !lv->needs_builder)
					sx_view_set_reason(db, v, "%s", lv->def->paused ?
									   "paused; continue with streamext.resume()" : "");
			}
			continue;
		}
		if (v->state != SX_VIEW_LIVE)
			continue;

		/* for now its readers see all; but who waits for a flush of other views does not wait for it */
		if (cannot_flush(v) && sx_gen_sealed(v) != NULL && (v->slow || c->flush_request != 0))
		{
			give_up(c, lv);
			continue;
		}

		if (look_for_free)
			sx_gen_free_flushed(db, v, false);
		if (sx_gen_sealed(v) == NULL && may_seal(c) && is_due(c, lv, now))
			sealed |= seal(c, lv);
	}
	if (look_for_free)
		c->last_free = now;
	if (sealed)
		sx_wake(db, SX_FLUSHER);
	check_request(c);
}

static bool
cannot_flush(SxView *v)
{
	return v->failures >= MAX_FLUSH_FAILURES || v->slow;
}

/* its live state goes; a builder writes, where nobody else waits for it */
static void
give_up(Consumer *c, LiveView *lv)
{
	SxView	   *v = lv->shared;
	char		message[sizeof(v->last_error)];

	SpinLockAcquire(&c->db->mutex);
	memcpy(message, v->last_error, sizeof(message));
	SpinLockRelease(&c->db->mutex);
	if (!v->slow)
	{
		sx_consumer_fail(c, lv, message);
		return;
	}
	SpinLockAcquire(&c->db->mutex);
	v->failures = 0;
	v->retry_at = 0;
	SpinLockRelease(&c->db->mutex);
	sx_view_set_reason(c->db, v, "%s", v->slow_why);
	sx_consumer_detach(c, lv, SX_VIEW_CATCHUP);
	lv->needs_builder = true;
}

/* rows per second, over a second or more */
static void
note_rate(Consumer *c, SxView *v, TimestampTz now)
{
	long		ms = TimestampDifferenceMilliseconds(v->rate_at, now);

	if (v->rate_at != 0 && ms < 1000)
		return;
	SpinLockAcquire(&c->db->mutex);
	v->rows_per_second = v->rate_at == 0 || v->counts.rows < v->rate_rows ? 0 :
		(v->counts.rows - v->rate_rows) * 1000.0 / ms;
	v->rate_rows = v->counts.rows;
	v->rate_at = now;
	SpinLockRelease(&c->db->mutex);
}

/*
 * Rows found by a scan must be consumed first: some no position can hold back (cycle.h), and
 * whoever restarts from a position that names their file as known would not scan it again.
 */
static bool
may_seal(Consumer *c)
{
	return sx_pending_found(c->tail->capture->pending) == 0;
}

static bool
has_open_rows(SxView *v)
{
	SxGeneration *gen = &v->gens[v->open_gen % SX_MAX_GENERATIONS];

	return v->open_gen != 0 && (gen->nentries > 0 || gen->ndead > 0 || gen->counts.rows > 0);
}

/* of what it has consumed something is not stored */
bool
sx_consumer_is_unflushed(SxView *v)
{
	return has_open_rows(v) || sx_gen_sealed(v) != NULL;
}

/* how long a view goes without a flush while something is new, milliseconds */
static int
pause_of(SxView *v)
{
	return v->flush_interval >= 0 ? v->flush_interval : sx_flush_interval;
}

/* windows close with a flush: that is not put off */
static TimestampTz
rests_until(LiveView *lv)
{
	return lv->lateness == NULL ? lv->shared->rest_until : 0;
}

static bool
is_due(Consumer *c, LiveView *lv, TimestampTz now)
{
	SxView	   *v = lv->shared;
	int			nviews = list_length(c->views);
	uint64		xids = sx_max_held_xids / 2;
	uint64		bytes = sx_consumer_wal_limit() / 2;

	if (lv->def->paused || lv->flush_wanted)
		return true;
	if (!TimestampDifferenceExceeds(v->last_seal, now, pause_of(v)))
		return false;
	if (lv->closed_unsealed)
		return true;
	/* nothing new: only so that an idle view holds back little */
	if (!has_open_rows(v))
	{
		xids = Min(xids, Max(IDLE_FLUSH_XIDS, IDLE_XIDS_PER_VIEW * nviews));
		bytes = Min(bytes, IDLE_FLUSH_BYTES);
	}
	else if (now >= rests_until(lv))
		return true;
	return c->position->xmin > v->protect_xmin + xids || sx_consumer_start_lsn(c) > lv->sealed_lsn + bytes;
}

static bool
seal(Consumer *c, LiveView *lv)
{
	SxDb	   *db = c->db;
	SxView	   *v = lv->shared;
	XLogRecPtr	start_lsn = sx_consumer_start_lsn(c);
	Oid		   *rels;
	Oid		   *nodes;
	int			n;
	uint64		version = sx_pending_stored_version(c->tail->capture->pending);
	bytea	   *open_rows = NULL;

	/* little has changed since the last seal: a request or pause needs no write */
	if (!has_open_rows(v) && !lv->closed_unsealed && lv->sealed && start_lsn <= lv->sealed_lsn + IDLE_FLUSH_BYTES &&
		sx_position_covers(lv->sealed, c->position))
	{
		lv->flush_wanted = false;
		if (lv->def->paused)
		{
			sx_consumer_detach(c, lv, SX_VIEW_PAUSED);
			sx_view_set_reason(db, v, "paused; continue with streamext.resume()");
		}
		return false;
	}

	/* stored with this generation: no other is sealed */
	v->complete_at = c->complete_at;
	v->removed_until = sx_retention_until(lv->def, lv->info, &lv->time, v->watermark, v->removed_until);
	n = sx_consumer_files(c, lv->def->streamid, &rels, &nodes);
	SX_STOP_POINT_OF(seal_begin, v->viewid);
	if (version != lv->stored_version)
		open_rows = sx_open_rows_pack(c->tail->capture, lv->def->streamid);
	if (!sx_gen_seal(db, v, c->position, start_lsn, n, rels, nodes,
					 open_rows, version != lv->stored_version))
	{
		sx_gen_free_flushed(db, v, true);
		if (!sx_gen_seal(db, v, c->position, start_lsn, n, rels, nodes,
						 open_rows, version != lv->stored_version))
			return false;
	}
	lv->stored_version = version;
	SX_STOP_POINT_OF(sealed, v->viewid);

	if (lv->sealed)
		pfree(lv->sealed);
	MemoryContextSwitchTo(lv->context);
	lv->sealed = sx_position_copy(c->position);
	MemoryContextSwitchTo(c->turn);
	lv->sealed_lsn = start_lsn;
	lv->sealed_watermark = v->watermark;
	lv->closed_unsealed = false;
	if (lv->flush_wanted)
		lv->flush_gen = sx_gen_sealed(v)->no;
	lv->flush_wanted = false;
	v->last_seal = sx_now();

	if (lv->def->paused)
	{
		/* the position must not move any more, while readers keep what was live */
		sx_lock_publish_exclusive(db);
		v->state = SX_VIEW_PAUSING;
		sx_unlock_publish(db);
		sx_tail_set_streams(c->tail, sx_consumer_live_streams(c));
	}
	return true;
}

/* all that a view has which leaves, at the position where it left; false: nothing, or no memory */
static bool
seal_left(Consumer *c, LiveView *lv)
{
	LeftAt	   *left = lv->left;

	if (left == NULL || !has_open_rows(lv->shared))
		return false;
	sx_gen_free_flushed(c->db, lv->shared, true);
	return sx_gen_seal(c->db, lv->shared, left->position, left->start_lsn, left->nfiles,
					   left->rels, left->nodes, left->open_rows, left->new_open_rows);
}

/* the file that this took the place of */
static Oid
known_before(SxFileMap *map, SxFileEntry *e)
{
	for (uint32 i = sx_file_map_count(map); i > 0; i--)
	{
		SxFileEntry *before = sx_file_map_entry(map, i - 1);

		if (before != e && before->leaf == e->leaf && before->dead && !before->passed && !before->fresh)
			return SxFileNumber(before->file);
	}
	return InvalidOid;
}

/*
 * Files not scanned yet, or whose rows found by a scan are not consumed, are new to whoever restarts
 * from the published position, too.  Their relation is no new member then: it stands there with the file
 * that it had before.
 */
int
sx_consumer_files(Consumer *c, Oid streamid, Oid **rels, Oid **nodes)
{
	SxFileMap  *map = c->tail->capture->map;
	uint32		count = sx_file_map_count(map);
	bool		found = sx_pending_found(c->tail->capture->pending) > 0;
	int			n = 0;

	*rels = palloc(sizeof(Oid) * (count + 1));
	*nodes = palloc(sizeof(Oid) * (count + 1));
	for (uint32 i = 0; i < count; i++)
	{
		SxFileEntry *e = sx_file_map_entry(map, i);
		bool		known = !e->fresh && !(e->scanned && found);

		if (e->dead || !list_member_oid(e->streams, streamid) || list_member_oid(e->gained, streamid) || (!known && !e->member_before))
			continue;
		(*rels)[n] = e->leaf;
		(*nodes)[n++] = known ? SxFileNumber(e->file) : known_before(map, e);
	}
	return n;
}

/* a flush request is done when everything sealed for it is written */
static void
check_request(Consumer *c)
{
	ListCell   *lc;

	if (c->flush_request == 0)
		return;
	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		SxGeneration *sealed = sx_gen_sealed(lv->shared);

		/* generations that were sealed later do not matter: a busy view has always one */
		if ((lv->shared->state == SX_VIEW_LIVE || lv->shared->state == SX_VIEW_PAUSING) &&
			(lv->flush_wanted || (sealed != NULL && sealed->no <= lv->flush_gen)))
			return;
	}
	SX_STOP_POINT(flush_requested);
	pg_atomic_write_u64(&c->db->flush_done, c->flush_request);
	c->flush_request = 0;
	ConditionVariableBroadcast(&c->db->published_cv);
}

/*
 * Memory is exhausted: everything is sealed at the published position, written and freed,
 * also what old snapshots might still want (they read the table alone then).
 */
void
sx_consumer_relieve(Consumer *c)
{
	SxDb	   *db = c->db;
	TimestampTz deadline;

	sx_consumer_drop_early(c);
	deadline = TimestampTzPlusMilliseconds(sx_now(), RELIEVE_MS);
	for (int round = 0; round < 2; round++)
	{
		ListCell   *lc;
		bool		busy;

		do
		{
			busy = false;
			foreach(lc, c->views)
			{
				LiveView   *lv = lfirst(lc);
				SxView	   *v = lv->shared;

				if (v->state != SX_VIEW_LIVE || sx_gen_sealed(v) == NULL)
					continue;
				/* nor may a flusher that is missing, or held up elsewhere, hold up all */
				if (cannot_flush(v))
					give_up(c, lv);
				else if (db->flushing_view != v->viewid && sx_now() > deadline)
					sx_consumer_fail(c, lv, "it could not be flushed when memory was exhausted");
				else
					busy = true;
			}
			if (busy)
			{
				sx_wake(db, SX_FLUSHER);
				(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 100,
								 PG_WAIT_EXTENSION);
				ResetLatch(MyLatch);
				sx_worker_check();
			}
		} while (busy);

		foreach(lc, c->views)
		{
			LiveView   *lv = lfirst(lc);

			if (lv->shared->state != SX_VIEW_LIVE)
				continue;
			sx_gen_free_flushed(db, lv->shared, true);
			if (round == 0 && may_seal(c) && has_open_rows(lv->shared))
				(void) seal(c, lv);
		}
		sx_consumer_drop_detached(c);
	}
}

/* until no generation is being read by the flusher, before memory goes away under it */
void
sx_consumer_wait_flusher(Consumer *c)
{
	SxDb	   *db = c->db;

	for (;;)
	{
		bool		busy;

		SpinLockAcquire(&db->mutex);
		busy = OidIsValid(db->flushing_view) && db->places[SX_FLUSHER].pid != 0;
		SpinLockRelease(&db->mutex);
		if (!busy)
			return;
		sx_worker_check();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 100,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* milliseconds until something is due by the clock */
long
sx_consumer_next_flush_ms(Consumer *c)
{
	TimestampTz now = sx_now();
	long		next;
	ListCell   *lc;

	c->longest_sleep = Min(Max(c->longest_sleep, FIRST_SLEEP_MS), LONGEST_SLEEP_MS);
	next = c->longest_sleep;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		SxView	   *v = lv->shared;

		if (v->state == SX_VIEW_LIVE && has_open_rows(v) && sx_gen_sealed(v) == NULL)
		{
			long		pause = pause_of(v) - TimestampDifferenceMilliseconds(v->last_seal, now);

			next = Min(next, Max(1, Max(pause, TimestampDifferenceMilliseconds(now, rests_until(lv)))));
		}
		else if (v->state == SX_VIEW_NEW || v->state == SX_VIEW_FAILED || v->state == SX_VIEW_CATCHUP)
			next = Min(next, 100);
		if (lv->builder || lv->drop_pending)
			next = Min(next, 50);
	}
	return next;
}
