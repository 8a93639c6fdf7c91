/*
 * builder.c
 *		Brings one view up: history (builder_history.c, history_scan.c), then WAL, written directly into its table
 *		(builder_results.c), until it stands close enough behind the consumer to join.
 *
 * A view WITH NO DATA begins with the CREATE statement's snapshot as its position.  Rows
 * committed between that and the builder's first snapshot are found by a full scan (full_scan.c).
 *
 * The same process catches up views that fell back (trouble, pause, a batch larger than the
 * memory): there is a stored position already, so only WAL is read, if it is still there.  If
 * not, a full scan finds what the view lacks.  A slow view stays here: builder_follow.c.
 *
 * Rows that nothing protected (SxView.exposed) may be gone when we come to read them: on the
 * way by WAL each one is noticed and counted, and the interval is reported.
 */
#include "worker/builder_internal.h"

#include "access/timeline.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "capture/open_rows.h"
#include "live/live_read.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* this close to the consumer the view may join */
#define CLOSE_BYTES		(UINT64CONST(2) * 1024 * 1024)
/* addresses of open transactions that are stored */
#define OPEN_ROWS_BYTES	(8 * 1024 * 1024)
/* a slow view's position without rows is written after this much WAL */
#define FOLLOW_BYTES	(UINT64CONST(16) * 1024 * 1024)

SxBuilder	sx_builder;

static void builder_exit(int code, Datum arg);
static bool view_is_gone(void);
pg_noreturn static void leave(void);
static void load_view(void);
static void protect_from_slot(void);
static bool wal_is_there(const SxStoredPosition *stored);
static void stop_view(void);
static void begin_at(SxStoredPosition *stored);
static void catch_up(SxStoredPosition *stored);
static bool consume_once(SxTail *tail, SxStoredPosition *stored, MemoryContext turn);
static void catalog_changed(void);
static int	choose(SxReady **ready, int n, uint64 total, uint64 *cut, uint64 *nrows);
static int	compare_ready(const void *a, const void *b);
static SxStoredPosition *load_position(void);

void
sx_builder_main(Datum arg)
{
	SxWorkerArg wa = sx_worker_start();
	SxStoredPosition *stored;

	sx_builder.db = sx_db_lookup(wa.dboid, false);
	if (sx_builder.db == NULL)
		proc_exit(0);
	/* the consumer that launched us may be gone: its successor clears the views under this lock */
	sx_lock_publish_exclusive(sx_builder.db);
	sx_builder.v = sx_view_by_id(sx_builder.db, wa.viewid);
	if (sx_builder.v && (sx_builder.v->state != SX_VIEW_BUILDING || sx_builder.v->builder_pid != 0 ||
					  sx_builder.v->incarnation != wa.incarnation || sx_builder.db->closing))
		sx_builder.v = NULL;
	if (sx_builder.v)
	{
		sx_builder.v->builder_pid = MyProcPid;
		sx_builder.v->history_begun = false;
		sx_builder.v->waits_for_pid = 0;
	}
	sx_unlock_publish(sx_builder.db);
	if (sx_builder.v == NULL)
		proc_exit(0);
	before_shmem_exit(builder_exit, (Datum) 0);

	sx_live_read_disabled = true;
	sx_builder.work = AllocSetContextCreate(TopMemoryContext, "streamext builder", ALLOCSET_DEFAULT_SIZES);

	PG_TRY();
	{
		SxViewContext vc;
		bool		yields = false;
		int			voids = 0;

		sx_view_context_push(&vc, wa.viewid, "building");
		SX_STOP_POINT_OF(builder_started, wa.viewid);
		load_view();
		protect_from_slot();
		sx_catalog_on_change(catalog_changed);
		stored = load_position();
		if (stored == NULL || !stored->ours)
		{
			sx_builder.seq = stored ? stored->seq : 0;
			sx_builder_history(false);
			stored = load_position();
		}
		begin_at(stored);
		/* a scan that takes long may find the WAL gone that was to be read after it */
		while (!yields)
		{
			if (stored->scan == NULL && !wal_is_there(stored))
				sx_full_scan_begin(stored);
			if (stored->scan == NULL)
				break;
			if (!sx_is_in_history(stored))
			{
				sx_full_scan_run(stored);
				continue;
			}
			switch (sx_history_run(stored))
			{
				case SX_HISTORY_DONE:
					break;
				case SX_HISTORY_YIELDS:
					yields = true;
					break;
				case SX_HISTORY_VOID:
					if (voids++ > 0)
						ereport(ERROR,
								(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
								 errmsg("what history is read from was not kept until it was read"),
								 errhint("End transactions that are open for long, or raise streamext.max_held_xids.")));
					sx_builder.seq = stored->seq;
					sx_builder_history(true);
					stored = load_position();
					begin_at(stored);
					break;
			}
		}
		if (!yields)
			catch_up(stored);
		SX_STOP_POINT_OF(builder_done, wa.viewid);
		sx_view_context_pop(&vc);
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(TopMemoryContext);
		int			pause;

		/* dropped or replaced meanwhile, which may show as any error; the consumer learns it from the catalog */
		if (view_is_gone())
			leave();
		pause = sx_view_setback(sx_builder.db, sx_builder.v, 200, 30000);
		SpinLockAcquire(&sx_builder.db->mutex);
		/* the next attempt goes another way */
		if (sx_builder.capture && sx_capture_is_unreadable(sx_builder.capture, error))
			sx_builder.v->wal_gone = true;
		else if (error->sqlerrcode == ERRCODE_DATA_CORRUPTED && !sx_builder.v->exposed)
		{
			sx_builder.v->exposed = true;
			sx_builder.v->protected_since = GetCurrentTimestamp();
		}
		sx_builder.v->failures++;
		sx_builder.v->retry_at = TimestampTzPlusMilliseconds(sx_now(), pause);
		SpinLockRelease(&sx_builder.db->mutex);
		sx_view_set_error(sx_builder.db, sx_builder.v, error->message);
		sx_view_set_reason(sx_builder.db, sx_builder.v, "failed, is tried again after %d ms: %s", pause, error->message);
		sx_lock_publish_exclusive(sx_builder.db);
		sx_builder.v->state = SX_VIEW_FAILED;
		sx_unlock_publish(sx_builder.db);
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("could not bring up continuous view with OID %u: %s", wa.viewid, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->context ? errcontext("%s", error->context) : 0));
		proc_exit(0);
	}
	PG_END_TRY();

	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->phase[0] = '\0';
	if (!sx_builder.v->slow)
		sx_builder.v->reason[0] = '\0';
	SpinLockRelease(&sx_builder.db->mutex);
	sx_lock_publish_exclusive(sx_builder.db);
	sx_builder.v->state = SX_VIEW_CATCHUP;
	sx_unlock_publish(sx_builder.db);
	proc_exit(0);
}

/* between two looks at what we wait for; nobody waits for a view that was dropped, and others may need our place */
void
sx_builder_pause(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	sx_worker_check();
	if (view_is_gone())
		leave();
}

/* or it has another table than the one that we were started for, or the table belongs to another view now */
static bool
view_is_gone(void)
{
	SxViewDef  *def;
	bool		gone;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	def = sx_catalog_view(sx_builder.v->viewid);
	gone = def == NULL || def->matid != sx_builder.v->matid ||
		(sx_builder.def != NULL && sx_builder.def->viewid != def->viewid);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return gone;
}

/* no failure: if it has taken another view's place, that one needs a new builder */
static void
leave(void)
{
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->builder_left = true;
	SpinLockRelease(&sx_builder.db->mutex);
	proc_exit(0);
}

static void
builder_exit(int code, Datum arg)
{
	SpinLockAcquire(&sx_builder.db->mutex);
	/* a view that is gone may have left its place to another */
	if (sx_builder.v->builder_pid == MyProcPid)
		sx_builder.v->builder_pid = 0;
	SpinLockRelease(&sx_builder.db->mutex);
	ConditionVariableBroadcast(&sx_builder.db->published_cv);
	sx_wake(sx_builder.db, SX_CONSUMER);
}

void
sx_builder_phase(const char *fmt,...)
{
	char		buf[sizeof(sx_builder.v->reason)];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	SpinLockAcquire(&sx_builder.db->mutex);
	strlcpy(sx_builder.v->phase, buf, sizeof(sx_builder.v->phase));
	SpinLockRelease(&sx_builder.db->mutex);
	/* of a slow view that it is slow, and why, is what matters */
	if (!sx_builder.v->slow)
		sx_view_set_reason(sx_builder.db, sx_builder.v, "%s", buf);
}

static void
catalog_changed(void)
{
	sx_builder.redefined = true;
}

static void
load_view(void)
{
	SxRunAs		as;
	SxViewDef  *def;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(TopMemoryContext);
	def = sx_catalog_view(sx_builder.v->viewid);
	MemoryContextSwitchTo(CurTransactionContext);
	if (def == NULL || def->matid != sx_builder.v->matid)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the continuous view is gone")));
	sx_builder.def = def;
	sx_run_as_begin(&as, sx_builder.def);
	sx_builder.info = sx_view_info_create(sx_builder.def, TopMemoryContext);
	sx_builder.plan = sx_plan_create(sx_builder.info);
	sx_builder.time = sx_builder.info->time;
	sx_builder.lateness = sx_lateness_create(sx_builder.info);
	sx_run_as_end(&as);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* what the slot holds now, it keeps holding for us */
static void
protect_from_slot(void)
{
	SxDb	   *db = sx_builder.db;
	SxView	   *v = sx_builder.v;
	uint64		xmin = sx_widen_xid(db->slot_xmin);

	SpinLockAcquire(&db->mutex);
	if (v->protect_xmin == 0)
		v->protect_xmin = xmin;
	if (v->protect_lsn == InvalidXLogRecPtr)
		v->protect_lsn = db->slot_lsn;
	SpinLockRelease(&db->mutex);
}

void
sx_builder_protect(uint64 xmin, XLogRecPtr lsn)
{
	SxView	   *v = sx_builder.v;

	SpinLockAcquire(&sx_builder.db->mutex);
	/* what was exposed is behind us when the position is as young as what the slot holds */
	if (v->exposed && xmin >= v->protect_xmin)
		v->exposed = false;
	if (!v->exposed)
		v->protect_xmin = xmin;
	v->protect_lsn = lsn;
	SpinLockRelease(&sx_builder.db->mutex);
}

/*
 * May the view read on from its start LSN?  A position goes where its WAL goes: whatever
 * recovery ended at, it is on the way to the timeline that we are on.  Not so after
 * pg_resetwal, or when data were moved under another server's WAL.
 */
static bool
wal_is_there(const SxStoredPosition *stored)
{
	TimeLineID	timeline = GetWALInsertionTimeLine();
	bool		ours = stored->timeline == timeline;

	if (XLogRecPtrIsInvalid(stored->start_lsn) || sx_builder.v->wal_gone)
		return false;
	if (!ours)
	{
		List	   *history = readTimeLineHistory(timeline);

		ours = tliInHistory(stored->timeline, history);
		list_free_deep(history);
	}
	return ours && stored->start_lsn <= GetFlushRecPtr(NULL) && sx_wal_available(stored->start_lsn);
}

static SxStoredPosition *
load_position(void)
{
	SxStoredPosition *stored;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(TopMemoryContext);
	stored = sx_catalog_position(sx_builder.def->viewid);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return stored;
}

/* what the stored position says is what we know */
static void
begin_at(SxStoredPosition *stored)
{
	if (stored == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the continuous view is gone")));
	sx_builder.watermark = stored->watermark;
	sx_builder.removed_until = stored->removed_until;
	sx_builder.lost_from = stored->complete_at;
	/* a predecessor may have ended between its commit and saying so */
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->scanning = stored->scan != NULL;
	if (stored->scan != NULL)
		sx_builder.v->wal_gone = false;
	SpinLockRelease(&sx_builder.db->mutex);
}

static void
catch_up(SxStoredPosition *stored)
{
	SxTail	   *tail;
	MemoryContext turn;
	bool		close = false;

	sx_builder_phase("%s", sx_builder.v->slow ? "follows" : "catching up");
	sx_account_open(&sx_builder.account);
	sx_builder.written_lsn = stored->start_lsn;
	turn = AllocSetContextCreate(TopMemoryContext, "streamext builder turn", ALLOCSET_DEFAULT_SIZES);
	tail = sx_tail_create(TopMemoryContext, stored->start_lsn);
	sx_builder.capture = tail->capture;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	sx_tail_set_streams(tail, list_make1_oid(sx_builder.def->streamid));
	sx_file_map_refresh(tail->capture->map, tail->streams, false);
	sx_tail_compare(tail, stored);
	/* a file that took another's place holds what was not removed till then: we cannot count what was */
	for (uint32 i = 0; sx_builder.v->exposed && i < sx_file_map_count(tail->capture->map); i++)
	{
		SxFileEntry *e = sx_file_map_entry(tail->capture->map, i);

		if (e->fresh && e->member_before)
			sx_builder.nlost = -1;
	}
	sx_open_rows_load(tail->capture, stored->open_rows);
	sx_builder.stored_version = stored->open_rows ? PG_UINT64_MAX : 0;
	PopActiveSnapshot();
	CommitTransactionCommand();

	/* at least once: a batch larger than the memory brought us here */
	while (!close || sx_builder_must_follow())
	{
		XLogRecPtr	consumer = pg_atomic_read_u64(&sx_builder.db->read_lsn);
		TimestampTz started = sx_now();

		sx_worker_check();
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		close = consume_once(tail, stored, turn);
		/* our successor knows the new definition */
		if (sx_builder.redefined)
			sx_builder.v->yield = true;
		if (sx_builder.v->yield)
			break;
		if (close)
			sx_builder_rest(tail, started);
		/* the consumer must be able to join from the stored start */
		if (close && !sx_builder.v->slow && consumer > stored->start_lsn && consumer - stored->start_lsn > CLOSE_BYTES &&
			sx_pending_first_lsn(tail->capture->pending) == InvalidXLogRecPtr)
			close = tail->capture->read_lsn >= consumer;
	}
	/* turns without rows were not written */
	if (sx_builder.written_lsn != stored->start_lsn)
	{
		sx_builder_begin_results();
		sx_builder_commit(stored);
		sx_builder_protect(stored->position->xmin, stored->start_lsn);
	}
	sx_builder.capture = NULL;
	sx_tail_destroy(tail);
}

/* until the user decides: the consumer finds it in the catalog */
static void
stop_view(void)
{
	SxDb	   *db = sx_builder.db;
	SxView	   *v = sx_builder.v;

	sx_view_stop(sx_builder.def, SX_REPLACED_REASON);
	SpinLockAcquire(&db->mutex);
	v->retry_at = DT_NOEND;
	SpinLockRelease(&db->mutex);
	sx_view_set_error(db, v, SX_REPLACED_REASON);
	sx_view_set_reason(db, v, "stopped: %s", SX_REPLACED_REASON);
	sx_lock_publish_exclusive(db);
	v->state = SX_VIEW_FAILED;
	sx_unlock_publish(db);
	proc_exit(0);
}

/* one cycle, written with its position; true if nothing was left for the next */
static bool
consume_once(SxTail *tail, SxStoredPosition *stored, MemoryContext turn)
{
	SxPending  *pending = tail->capture->pending;
	SxPosition *snapshot;
	SxReady   **ready;
	int			n = 0;
	int			max = 1024;
	int			taken;
	uint64		total = 0;
	uint64		nrows = 0;
	uint64		cut = stored->position->xmax;
	XLogRecPtr	held_lsn = PG_UINT64_MAX;
	TimestampTz *commits;
	SxPosition *before = stored->position;
	uint64		turn_no = pg_atomic_add_fetch_u64(&sx_builder.db->turns, 1);
	SxReady   **held;
	int			nheld = 0;
	XLogRecPtr	first;
	TimestampTz at = GetCurrentTimestamp();
	dlist_mutable_iter iter;

	if (!sx_tail_cycle(tail, stored->position, turn, &snapshot))
	{
		sx_builder_phase("waits for a lock on a table of the stream");
		sx_builder_pause(SX_LOCK_POLL_MS);
		return false;
	}
	/* what was waited for is over */
	if (strncmp(sx_builder.v->phase, "waits", 5) == 0)
		sx_builder_phase("%s", sx_builder.v->slow ? "follows" : "catching up");

	if (tail->broken != NIL)
		stop_view();
	/* rows committed since are computed by the new definition */
	if (sx_builder.redefined)
		return false;

	ready = palloc(sizeof(SxReady *) * max);
	dlist_foreach_modify(iter, sx_pending_ready(pending))
	{
		SxReady    *r = dlist_container(SxReady, node, iter.cur);

		if (r->fxid != SX_ALWAYS_XID)
		{
			if (sx_position_contains(stored->position, r->fxid))
			{
				sx_pending_remove(pending, r);
				continue;
			}
			if (!sx_position_contains(snapshot, r->fxid))
				continue;
		}
		if (n == max)
			ready = repalloc_huge(ready, sizeof(SxReady *) * (max *= 2));
		ready[n++] = r;
		total += r->nrows;
	}

	taken = choose(ready, n, total, &cut, &nrows);
	held = MemoryContextAllocHuge(turn, sizeof(SxReady *) * (n - taken + 1));
	for (int i = taken; i < n; i++)
	{
		held_lsn = Min(held_lsn, ready[i]->commit_lsn);
		if (ready[i]->fxid < cut)
			held[nheld++] = ready[i];
	}
	if (taken < n)
		snapshot = sx_position_below(snapshot, cut);

	sx_builder_begin_results();
	if (taken > 0)
	{
		SxBatch    *batch = sx_batch_create(tail->capture->map, sx_builder.def->streamid, ready, taken, 0);
		int64		us;

		if (sx_builder.v->exposed)
			sx_builder_drop_missing(batch);
		(void) sx_account_limit(&sx_builder.account, batch->nrows);
		us = sx_builder_compute(batch, true);
		if (!sx_account_charge(&sx_builder.account, batch->nrows, us))
			sx_builder_too_slow("computing", us, batch->nrows);
	}
	commits = MemoryContextAllocHuge(turn, sizeof(TimestampTz) * (taken + 1));
	for (int i = 0; i < taken; i++)
	{
		commits[i] = ready[i]->commit_time;
		sx_pending_remove(pending, ready[i]);
	}

	stored->position = sx_tail_position(snapshot, held, nheld);
	MemoryContextSwitchTo(TopMemoryContext);
	stored->position = sx_position_copy(stored->position);
	MemoryContextSwitchTo(turn);
	pfree(before);
	sx_open_rows_relieve(tail->capture, OPEN_ROWS_BYTES);
	stored->new_open_rows = sx_builder.stored_version != sx_pending_stored_version(pending);
	stored->open_rows = stored->new_open_rows ?
		sx_open_rows_pack(tail->capture, sx_builder.def->streamid) : NULL;
	first = sx_pending_first_lsn(pending);
	stored->start_lsn = (first != InvalidXLogRecPtr && first < tail->capture->read_lsn) ?
		first : tail->capture->read_lsn;
	sx_builder_files(tail->capture->map, stored);
	if (taken == n && !tail->behind && !tail->more)
		stored->complete_at = at;
	SX_STOP_POINT_OF(catch_up_computed, sx_builder.def->viewid);
	/* of a slow view that stays here, a position that says nothing new is not worth a commit */
	if (taken > 0 || !sx_builder.v->slow || stored->start_lsn > sx_builder.written_lsn + FOLLOW_BYTES)
	{
		sx_builder_commit(stored);
		sx_builder.stored_version = sx_pending_stored_version(pending);
		SX_STOP_POINT_OF(catch_up_committed, sx_builder.def->viewid);
		sx_builder_protect(stored->position->xmin, stored->start_lsn);
	}
	sx_builder_note_turn(turn_no, held_lsn, total - nrows, nrows, commits, taken);
	return taken == n && !tail->more && !tail->has_fresh && !tail->stale;
}

/*
 * How many of these fit into a turn.  If not all do, they are taken in the order of their ids, so that
 * the position need not list what is left: it ends at `cut`, below which it contains everything but
 * what is held back.  What a scan has found comes first: it cannot be held back.
 */
static int
choose(SxReady **ready, int n, uint64 total, uint64 *cut, uint64 *nrows)
{
	uint64		limit = sx_builder_turn_rows();
	int			taken;

	if (total > limit)
		qsort(ready, n, sizeof(SxReady *), compare_ready);
	for (taken = 0; taken < n; taken++)
	{
		SxReady    *r = ready[taken];

		if (taken > 0 && *nrows + r->nrows > limit && !r->found && r->fxid != SX_ALWAYS_XID)
			break;
		*nrows += r->nrows;
		if (r->fxid == SX_ALWAYS_XID)
			continue;
		*cut = Max(*cut, r->fxid + 1);
		/* a full scan that starts from the position meets the ids of sub-transactions */
		for (uint32 i = 0; i < r->nruns; i++)
			if (r->runs[i].xid != (TransactionId) r->fxid)
				*cut = Max(*cut, sx_widen_xid_near(r->fxid, r->runs[i].xid) + 1);
	}
	return taken;
}

static int
compare_ready(const void *a, const void *b)
{
	const SxReady *ra = *(SxReady *const *) a;
	const SxReady *rb = *(SxReady *const *) b;
	bool		first_a = ra->found || ra->fxid == SX_ALWAYS_XID;
	bool		first_b = rb->found || rb->fxid == SX_ALWAYS_XID;

	if (first_a != first_b)
		return first_a ? -1 : 1;
	if (ra->fxid != rb->fxid)
		return ra->fxid < rb->fxid ? -1 : 1;
	return 0;
}
