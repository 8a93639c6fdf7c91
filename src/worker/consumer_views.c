/*
 * consumer_views.c
 *		The views a consumer knows, and the states they go through.
 *
 *	 NEW ---------> BUILDING ---> CATCHUP ---> LIVE ---> PAUSING ---> PAUSED
 *	 no position	a builder	  stored		|					   |
 *	 of ours		runs		  position <----+ trouble: memory	   |
 *					  ^			    |			  is dropped		   |
 *					  +-- far ------+ <------------------------------- + resume
 *	 LIVE -> PAUSING -> CATCHUP: a table of its stream is locked, or has a new file too large for the
 *	 consumer to scan (consumer_leave.c).
 *	 FAILED and stopped: nobody knows what its stream contains, until streamext.resume() (file_marks.h).
 *	 FAILED: after an error; when its pause is over it goes on as NEW or CATCHUP.
 *
 * A view in trouble (it failed, is too slow, cannot be written) goes through a builder before it joins
 * again, so that its trouble is not the others': see consumer_builders.c.
 */
#include "worker/consumer_internal.h"

#include "access/xact.h"
#include "catalog/alerts.h"
#include "catalog/definitions.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* first and longest pause of a view that fails */
#define FIRST_PAUSE_MS		200
#define LONGEST_PAUSE_MS	30000

static LiveView *find(Consumer *c, Oid viewid);
static bool take_place(Consumer *c, SxViewDef *def);
static void add_view(Consumer *c, SxViewDef *def);
static void update_view(Consumer *c, LiveView *lv, SxViewDef *def);
static void set_def(LiveView *lv, const SxViewDef *def);
static void set_start_state(Consumer *c, LiveView *lv);
static void remember_slow(Consumer *c, SxView *v);
static bool same_settings(List *a, List *b);
static void end_live(LiveView *lv);
static void set_stopped(Consumer *c, LiveView *lv, const char *reason);

static LiveView *
find(Consumer *c, Oid viewid)
{
	ListCell   *lc;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->def->viewid == viewid && !lv->gone)
			return lv;
	}
	return NULL;
}

/*
 * A hidden view that has taken the place of another is the other from now on (batch/swap.c): its live state goes
 * on, and what was the other's goes.  They exchange their ids, so that no two have the same.  False: the
 * flusher is just writing one of them, by its id.
 */
static bool
take_place(Consumer *c, SxViewDef *def)
{
	SxDb	   *db = c->db;
	LiveView   *hidden = NULL;
	LiveView   *old = find(c, def->viewid);
	Oid			flushing;
	ListCell   *lc;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->def->matid == def->matid && lv->def->viewid != def->viewid && !lv->gone)
			hidden = lv;
	}
	if (hidden == NULL)
		return true;

	/* the flusher makes its choice under this lock */
	sx_lock_publish_exclusive(db);
	SpinLockAcquire(&db->mutex);
	flushing = db->flushing_view;
	SpinLockRelease(&db->mutex);
	if (OidIsValid(flushing) && (flushing == hidden->shared->viewid || flushing == def->viewid))
	{
		sx_unlock_publish(db);
		return false;
	}
	if (old != NULL)
		old->shared->viewid = hidden->shared->viewid;
	hidden->shared->viewid = def->viewid;
	/* who knows the view by its incarnation is to notice */
	hidden->shared->incarnation = Max(hidden->shared->incarnation, old ? old->shared->incarnation : 0) + 1;
	sx_unlock_publish(db);
	SpinLockAcquire(&db->mutex);
	hidden->shared->swap_stuck = false;
	if (hidden->shared->state == SX_VIEW_LIVE)
	{
		/* what it waited for, and flushes that the swap's locks were in the way of, are over */
		hidden->shared->failures = 0;
		hidden->shared->retry_at = 0;
		hidden->shared->reason[0] = '\0';
		hidden->shared->last_error[0] = '\0';
		hidden->shared->last_error_at = 0;
	}
	SpinLockRelease(&db->mutex);
	if (old != NULL)
		old->gone = true;
	update_view(c, hidden, def);
	SX_STOP_POINT_OF(place_taken, def->viewid);
	return true;
}

void
sx_consumer_load_views(Consumer *c)
{
	List	   *defs = NIL;
	ListCell   *lc;
	uint32		epoch = pg_atomic_read_u32(&c->db->require_epoch);
	bool		alerts = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (sx_catalog_exists())
	{
		defs = sx_catalog_views();
		alerts = sx_catalog_has_alerts();
	}

	foreach(lc, defs)
	{
		SxViewDef  *def = lfirst(lc);
		LiveView   *lv;

		/* all of it again, when the flush is done */
		if (!take_place(c, def))
		{
			PopActiveSnapshot();
			CommitTransactionCommand();
			MemoryContextSwitchTo(c->turn);
			c->reload = true;
			return;
		}
		lv = find(c, def->viewid);

		if (lv && lv->def->matid != def->matid)
		{
			lv->gone = true;
			lv = NULL;
		}
		if (lv)
			update_view(c, lv, def);
		else
			add_view(c, def);
	}
	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		ListCell   *lc2;
		bool		found = false;

		lv->dangling = OidIsValid(lv->def->replaces);
		foreach(lc2, defs)
		{
			SxViewDef  *def = lfirst(lc2);

			found |= def->viewid == lv->def->viewid && def->matid == lv->def->matid;
			lv->dangling &= def->viewid != lv->def->replaces;
		}
		if (!found)
			lv->gone = true;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(c->turn);

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->gone && (lv->shared->state == SX_VIEW_LIVE || lv->shared->state == SX_VIEW_PAUSING))
			sx_consumer_detach(c, lv, SX_VIEW_CATCHUP);
	}
	sx_consumer_drop_detached(c);
	sx_tail_set_streams(c->tail, sx_consumer_live_streams(c));
	SX_STOP_POINT(views_loaded);
	if (alerts)
	{
		bool		start;

		SpinLockAcquire(&c->db->mutex);
		start = !c->db->alerts_wanted || c->db->places[SX_ALERTER].pid == 0;
		c->db->alerts_wanted = true;
		SpinLockRelease(&c->db->mutex);
		if (start)
			sx_wake_launcher();
	}
	/* also when the last alert is gone */
	sx_wake(c->db, SX_ALERTER);
	c->require_epoch = epoch;
	ConditionVariableBroadcast(&c->db->published_cv);
}

List *
sx_consumer_live_streams(Consumer *c)
{
	List	   *streams = NIL;
	ListCell   *lc;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->shared->state == SX_VIEW_LIVE)
			streams = list_append_unique_oid(streams, lv->def->streamid);
	}
	return streams;
}

static void
add_view(Consumer *c, SxViewDef *def)
{
	SxDb	   *db = c->db;
	LiveView   *lv;
	SxView	   *v = NULL;
	MemoryContext context;
	MemoryContext old;
	int			slot;

	for (slot = 0; slot < SX_MAX_VIEWS; slot++)
		if (!OidIsValid(db->views[slot].viewid))
			break;
	if (slot == SX_MAX_VIEWS)
	{
		sx_worker_log(LOG, "more than %d continuous views in database %u: view with OID %u is not kept up to date",
					  SX_MAX_VIEWS, db->dboid, def->viewid);
		return;
	}

	context = AllocSetContextCreate(TopMemoryContext, "streamext consumer view", ALLOCSET_DEFAULT_SIZES);
	lv = MemoryContextAllocZero(context, sizeof(LiveView));
	lv->context = context;
	set_def(lv, def);

	v = &db->views[slot];
	sx_lock_publish_exclusive(db);
	{
		uint64		incarnation = v->incarnation;

		memset(v, 0, sizeof(SxView));
		v->incarnation = incarnation + 1;
		v->matid = def->matid;
		v->streamid = def->streamid;
		v->flush_interval = def->flush_interval;
		v->viewid = def->viewid;
		v->watermark = v->removed_until = SX_TIME_NONE;
		v->open_windows = -1;
		db->nviews = Max(db->nviews, slot + 1);
	}
	sx_unlock_publish(db);
	lv->shared = v;
	remember_slow(c, v);
	set_start_state(c, lv);

	old = MemoryContextSwitchTo(TopMemoryContext);
	c->views = lappend(c->views, lv);
	MemoryContextSwitchTo(old);
}

/* from the stored position; in a transaction */
static void
set_start_state(Consumer *c, LiveView *lv)
{
	SxDb	   *db = c->db;
	SxStoredPosition *pos = sx_catalog_position(lv->def->viewid);
	SxViewState state;

	char	   *stopped = sx_catalog_stop_reason(lv->def->viewid, NULL);

	lv->stopped = false;
	SpinLockAcquire(&db->mutex);
	if (lv->shared->retry_at == DT_NOEND)
		lv->shared->retry_at = 0;
	SpinLockRelease(&db->mutex);
	if (stopped)
	{
		set_stopped(c, lv, stopped);
		return;
	}
	sx_consumer_protect(c, lv, pos);

	if (lv->def->paused)
	{
		state = SX_VIEW_PAUSED;
		sx_view_set_reason(db, lv->shared, "paused; continue with streamext.resume()");
	}
	else if (pos && pos->ours && pos->start_lsn != InvalidXLogRecPtr)
		state = SX_VIEW_CATCHUP;
	else
		state = SX_VIEW_NEW;
	/* known from before it was paused, or by a predecessor of ours */
	lv->needs_builder = lv->shared->slow && state == SX_VIEW_CATCHUP;
	if (lv->needs_builder)
		sx_view_set_reason(db, lv->shared, "%s", lv->shared->slow_why);
	sx_consumer_set_state(db, lv->shared, state);
}

static void
remember_slow(Consumer *c, SxView *v)
{
	ListCell   *lc;

	foreach(lc, c->known)
	{
		SlowView   *k = lfirst(lc);

		if (k->viewid != v->viewid)
			continue;
		SpinLockAcquire(&c->db->mutex);
		v->slow = true;
		v->setbacks = k->setbacks;
		v->setback_at = k->setback_at;
		v->setback_pause = k->setback_pause;
		v->slow_until = k->slow_until;
		memcpy(v->slow_why, k->slow_why, sizeof(v->slow_why));
		memcpy(v->reason, k->slow_why, sizeof(k->slow_why));
		SpinLockRelease(&c->db->mutex);
		k->viewid = InvalidOid;
	}
}

static void
set_def(LiveView *lv, const SxViewDef *def)
{
	MemoryContext old = MemoryContextSwitchTo(lv->context);
	SxViewDef  *copy = palloc(sizeof(SxViewDef));
	SxStreamDef *stream;
	ListCell   *lc;

	/* the previous one stays in the context: definitions change seldom */
	*copy = *def;
	copy->settings = NIL;
	foreach(lc, def->settings)
		copy->settings = lappend(copy->settings, pstrdup(lfirst(lc)));
	lv->def = copy;
	MemoryContextSwitchTo(old);

	stream = sx_catalog_stream(def->streamid);
	if (stream)
		lv->time = stream->time;
	else
		memset(&lv->time, 0, sizeof(lv->time));
}

static bool
same_settings(List *a, List *b)
{
	ListCell   *la;
	ListCell   *lb;

	if (list_length(a) != list_length(b))
		return false;
	forboth(la, a, lb, b)
		if (strcmp(lfirst(la), lfirst(lb)) != 0)
			return false;
	return true;
}

static void
update_view(Consumer *c, LiveView *lv, SxViewDef *def)
{
	SxView	   *v = lv->shared;
	bool		rebuild = lv->def->owner != def->owner ||
		lv->def->queryid != def->queryid ||
		!same_settings(lv->def->settings, def->settings);
	bool		was_paused = lv->def->paused;
	SxStreamTime before = lv->time;

	set_def(lv, def);
	/* the stream has another event time: the view's windows have to be found again */
	rebuild |= lv->time.attno != before.attno || lv->time.type != before.type;
	v->flush_interval = def->flush_interval;
	if (v->state == SX_VIEW_LIVE && sx_catalog_position(def->viewid) == NULL)
		sx_consumer_detach(c, lv, SX_VIEW_NEW); /* its rows are being restored: it begins anew */
	else if (rebuild && v->state == SX_VIEW_LIVE)
		sx_consumer_detach(c, lv, SX_VIEW_CATCHUP);

	if (lv->stopped || v->state == SX_VIEW_FAILED)
	{
		char	   *stopped = sx_catalog_stop_reason(def->viewid, NULL);

		if (stopped && !lv->stopped)
			set_stopped(c, lv, stopped);	/* by its builder */
		else if (!stopped && lv->stopped)
		{
			/* it begins anew where streamext.resume() has put it */
			sx_view_set_reason(c->db, v, "%s", "");
			set_start_state(c, lv);
		}
		if (stopped)
			return;
	}

	/* a live view is paused after its last flush: consumer_flush.c */
	if (def->paused && (v->state == SX_VIEW_NEW || v->state == SX_VIEW_CATCHUP ||
						v->state == SX_VIEW_FAILED))
	{
		sx_consumer_set_state(c->db, v, SX_VIEW_PAUSED);
		sx_view_set_reason(c->db, v, "paused; continue with streamext.resume()");
	}
	else if (!def->paused && was_paused && v->state == SX_VIEW_PAUSED)
	{
		sx_view_set_reason(c->db, v, "%s", "");
		set_start_state(c, lv);
	}
}

void
sx_consumer_set_state(SxDb *db, SxView *v, SxViewState state)
{
	sx_lock_publish_exclusive(db);
	v->state = state;
	sx_unlock_publish(db);
	sx_wake(db, SX_ALERTER);
}

/* drops the process's own things; shared memory is dropped by sx_consumer_drop_detached */
static void
end_live(LiveView *lv)
{
	if (lv->writer)
	{
		if (sx_live_has_prepared(lv->writer))
			sx_live_discard(lv->writer);
		sx_live_writer_destroy(lv->writer);
	}
	if (lv->info)
		sx_view_info_destroy(lv->info);
	lv->writer = NULL;
	lv->info = NULL;
	lv->plan = NULL;			/* lived in info's context */
	lv->lateness = NULL;
	lv->prepared = false;
	lv->flush_wanted = false;
	lv->flush_gen = 0;
}

/* a live view leaves the shared position and falls back to what is stored */
void
sx_consumer_detach(Consumer *c, LiveView *lv, SxViewState next)
{
	sx_lock_publish_exclusive(c->db);
	lv->shared->state = next;
	lv->shared->incarnation++;
	sx_unlock_publish(c->db);
	sx_consumer_drop_early_of(c, lv);
	end_live(lv);
	sx_consumer_end_leave(lv);
	lv->locked_since = 0;
	lv->drop_pending = true;
	lv->caught_up = false;
	SX_STOP_POINT_OF(detached, lv->def->viewid);
	sx_wake(c->db, SX_ALERTER);
	ConditionVariableBroadcast(&c->db->published_cv);
}

/* it is tried again in a process of its own: a view that fails on and on costs the others nothing */
void
sx_consumer_fail(Consumer *c, LiveView *lv, const char *message)
{
	SxDb	   *db = c->db;
	SxView	   *v = lv->shared;
	int			pause = sx_view_setback(db, v, FIRST_PAUSE_MS, LONGEST_PAUSE_MS);

	SpinLockAcquire(&db->mutex);
	v->failures++;
	v->retry_at = TimestampTzPlusMilliseconds(sx_now(), pause);
	SpinLockRelease(&db->mutex);
	sx_view_set_error(db, v, message);
	sx_view_set_reason(db, v, "failed, is tried again after %d ms: %s", pause, message);
	sx_worker_log(LOG, "continuous view with OID %u failed: %s", v->viewid, message);
	if (v->state == SX_VIEW_LIVE)
		sx_consumer_detach(c, lv, SX_VIEW_FAILED);
	else
		sx_consumer_set_state(db, v, SX_VIEW_FAILED);
}

/* it held up the others: from here on it holds up a process of its own */
void
sx_consumer_slow(Consumer *c, LiveView *lv)
{
	SxDb	   *db = c->db;
	SxView	   *v = lv->shared;

	sx_view_set_slow(db, v, "slower than %d ms and %d us per row (%d ms for " UINT64_FORMAT " rows): follows in a process of its own",
					 sx_view_budget, SX_BUDGET_ROW_US, lv->slow_ms, lv->slow_rows);
	sx_view_set_reason(db, v, "%s", v->slow_why);
	sx_worker_log(LOG, "continuous view with OID %u is %s", v->viewid, v->slow_why);
	if (v->state == SX_VIEW_LIVE)
		sx_consumer_detach(c, lv, SX_VIEW_CATCHUP);
	lv->needs_builder = true;
}

/* what its stream contains is not known any more: until the user decides */
void
sx_consumer_stop(Consumer *c, LiveView *lv, const char *reason)
{
	sx_view_stop(lv->def, reason);
	MemoryContextSwitchTo(c->turn);
	if (lv->shared->state == SX_VIEW_LIVE)
		sx_consumer_detach(c, lv, SX_VIEW_FAILED);
	set_stopped(c, lv, reason);
}

void
sx_consumer_stop_broken(Consumer *c)
{
	ListCell   *lc;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (list_member_oid(c->tail->broken, lv->def->streamid) && lv->shared->state == SX_VIEW_LIVE)
			sx_consumer_stop(c, lv, SX_REPLACED_REASON);
	}
	list_free(c->tail->broken);
	c->tail->broken = NIL;
}

/* it keeps nothing from being removed: it will not go on from where it stands */
static void
set_stopped(Consumer *c, LiveView *lv, const char *reason)
{
	SxDb	   *db = c->db;

	lv->stopped = true;
	SpinLockAcquire(&db->mutex);
	lv->shared->retry_at = DT_NOEND;
	lv->shared->protect_xmin = 0;
	lv->shared->protect_lsn = InvalidXLogRecPtr;
	SpinLockRelease(&db->mutex);
	sx_view_set_error(db, lv->shared, reason);
	sx_view_set_reason(db, lv->shared, "stopped: %s", reason);
	sx_consumer_set_state(db, lv->shared, SX_VIEW_FAILED);
}

/* frees what detached views had, once the flusher has let go of it, and forgets views that are gone */
void
sx_consumer_drop_detached(Consumer *c)
{
	SxDb	   *db = c->db;
	List	   *keep = NIL;
	ListCell   *lc;
	bool		any_gone = false;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		Oid			flushing;

		any_gone |= lv->gone;
		if (!lv->drop_pending)
			continue;
		SpinLockAcquire(&db->mutex);
		flushing = db->flushing_view;
		SpinLockRelease(&db->mutex);
		if (flushing == lv->shared->viewid)
			continue;
		sx_gen_drop_all(db, lv->shared);
		lv->drop_pending = false;
		SX_STOP_POINT_OF(detached_dropped, lv->def->viewid);

		/* what was being flushed may have been committed meanwhile */
		if (!lv->gone && !lv->stopped)
		{
			SxStoredPosition *pos;

			StartTransactionCommand();
			PushActiveSnapshot(GetTransactionSnapshot());
			pos = sx_catalog_position(lv->def->viewid);
			if (pos && pos->ours)
				sx_consumer_protect(c, lv, pos);
			PopActiveSnapshot();
			CommitTransactionCommand();
			MemoryContextSwitchTo(c->turn);
		}
	}
	if (!any_gone)
		return;

	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		List	   *before = c->views;

		foreach(lc, before)
		{
			LiveView   *lv = lfirst(lc);

			if (!lv->gone || lv->drop_pending ||
				(lv->shared->state == SX_VIEW_BUILDING && lv->shared->builder_pid != 0))
			{
				keep = lappend(keep, lv);
				continue;
			}
			sx_lock_publish_exclusive(db);
			lv->shared->viewid = InvalidOid;
			lv->shared->matid = InvalidOid;
			lv->shared->state = SX_VIEW_UNUSED;
			lv->shared->incarnation++;
			sx_unlock_publish(db);
			MemoryContextDelete(lv->context);
		}
		c->views = keep;
		list_free(before);
		MemoryContextSwitchTo(old);
	}
}

/*
 * What a view needs to take part in cycles.  Its state is set by the caller, in the same
 * instant as its first rows are published.  False: it failed, and says so.
 */
bool
sx_consumer_go_live(Consumer *c, LiveView *lv)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool ok = false;

	/* planning runs functions with constant arguments */
	sx_account_open(&lv->account);
	sx_consumer_begin_run(lv, 0);
	PG_TRY();
	{
		SxRunAs		as;

		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		sx_run_as_begin(&as, lv->def);
		lv->info = sx_view_info_create(lv->def, lv->context);
		lv->plan = sx_plan_create(lv->info);
		lv->lateness = sx_lateness_create(lv->info);
		lv->has_lookups = sx_plan_has_lookups(lv->plan);
		sx_run_as_end(&as);
		PopActiveSnapshot();
		CommitTransactionCommand();
		ok = true;
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(caller);

		end_live(lv);
		if (!sx_budget_exceeded())
			sx_consumer_fail(c, lv, error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	if (!sx_consumer_end_run(lv, 0))
	{
		end_live(lv);
		sx_consumer_slow(c, lv);
		return false;
	}
	if (!ok)
		return false;

	if (!sx_gen_open(c->db, lv->shared, 64))
	{
		end_live(lv);
		sx_view_set_reason(c->db, lv->shared, "streamext.live_memory is exhausted");
		return false;
	}
	lv->writer = sx_live_writer_create(c->db, lv->shared, lv->info, lv->context);
	lv->sealed = NULL;
	return true;
}

