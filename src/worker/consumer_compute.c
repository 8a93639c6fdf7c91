/*
 * consumer_compute.c
 *		Runs the plans of all live views over the transactions that were taken.
 *
 * Views of one stream that take the same rows do so together: what of a transaction was computed while it was open
 * (consumer_early.c) is the same for most of them, though not for one that has joined since.  They take the slices of the
 * batch in turn, so that the rows of a slice are read once, for whoever comes first, and kept for the others until all are through
 * (capture/batch_rows.c).  Each view runs in transactions of its own; one that fails leaves, and the others go on.
 */
#include "worker/consumer_internal.h"

#include "time/watermark.h"
#include "utils/memutils.h"

/* A view at work on a batch */
typedef struct Member
{
	LiveView   *lv;
	SxProcess	process;
	bool		out;			/* it has left */
} Member;

/* Views of one stream that take the same rows */
typedef struct Share
{
	SxBatch    *all;			/* of their rows */
	bool	   *early;			/* of each transaction that was taken: some of it was computed before; … */
	int			nearly;
	uint32		mark;			/* … these runs (SX_RUN_EARLY, SX_RUN_JOINED) */
	List	   *members;		/* of Member * */
} Share;

/* What is under way */
typedef struct Compute
{
	Consumer   *c;
	List	  **taken;
	List	  **postponed;
	SxReady   **ready;			/* the taken ones */
	int			nready;
	bool		relieved;		/* memory has been made free already */
	bool		restart;		/* with fewer transactions */
	bool		again;			/* memory was made free: the same once more */
} Compute;

static List *find_shares(Compute *compute);
static SxBatch *all_of_stream(Compute *compute, List *shares, Oid streamid);
static bool compute_share(Compute *compute, Share *share);
static bool add_early(Compute *compute, Share *share, uint64 rows);
static SxBatch *batch_of(Compute *compute, Share *share, bool early);
static bool compute_batch(Compute *compute, Share *share, SxBatch *batch);
static List *views_of(Share *share);
static List *plans_of(List *views);
static bool compute_slice(Compute *compute, Share *share, bool *more);
static bool settle(Compute *compute, Member *m, SxProcessResult result);
static void begin_compute(LiveView *lv, SxProcess *p, SxBatch *batch, MemoryContext mcxt);
static void end_compute(LiveView *lv, SxProcess *p, SxBatch *batch);
static List *without_stream(Consumer *c, List *taken, List **postponed, Oid streamid);
static void leave_locked(Consumer *c, Oid streamid);
static void discard_all(Consumer *c);
static void expect_rows(void *arg, MinimalTuple *rows, int n);
static bool apply_row(void *arg, TupleTableSlot *row);
static bool apply_reject(void *arg, const char *reason, const char *sqlstate, const char *row_json,
						 const char *message);
static int64 live_end(void *arg, TupleTableSlot *row, int64 point);

/*
 * Transactions of a locked stream go to `postponed` and the rest is run again; its views leave when that lasts.
 * *again if memory was made free and all must be computed once more.
 */
void
sx_consumer_compute_all(Consumer *c, List **taken, List **postponed, bool relieved, bool *again)
{
	Compute		compute = {c, taken, postponed};

	compute.relieved = relieved;
	do
	{
		ListCell   *lc;

		discard_all(c);
		compute.restart = false;
		compute.nready = 0;
		compute.ready = palloc(sizeof(SxReady *) * (list_length(*taken) + 1));
		foreach(lc, *taken)
			compute.ready[compute.nready++] = lfirst(lc);
		if (compute.nready == 0)
			return;

		foreach(lc, find_shares(&compute))
			if (!compute_share(&compute, lfirst(lc)))
				break;
	} while (compute.restart);
	*again = compute.again;
}

/* without views that none of the rows concern */
static List *
find_shares(Compute *compute)
{
	Consumer   *c = compute->c;
	List	   *shares = NIL;
	ListCell   *lc;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		SxBatch    *all;
		Member	   *m;
		Share	   *share = NULL;
		bool	   *early;
		int			nearly = 0;
		ListCell   *lc2;

		if (lv->shared->state != SX_VIEW_LIVE)
			continue;
		all = all_of_stream(compute, shares, lv->def->streamid);
		if (all->nrows == 0)
			continue;
		early = palloc(sizeof(bool) * compute->nready);
		for (int i = 0; i < compute->nready; i++)
		{
			early[i] = sx_consumer_has_early(c, lv, compute->ready[i]);
			nearly += early[i];
		}
		foreach(lc2, shares)
		{
			Share	   *other = lfirst(lc2);

			if (other->all == all && memcmp(other->early, early, sizeof(bool) * compute->nready) == 0 &&
				(nearly == 0 || other->mark == sx_early_mark(lv)))
				share = other;
		}
		if (share == NULL)
		{
			share = palloc0(sizeof(Share));
			share->all = all;
			share->early = early;
			share->nearly = nearly;
			share->mark = sx_early_mark(lv);
			shares = lappend(shares, share);
		}
		m = palloc0(sizeof(Member));
		m->lv = lv;
		share->members = lappend(share->members, m);
	}
	return shares;
}

static SxBatch *
all_of_stream(Compute *compute, List *shares, Oid streamid)
{
	ListCell   *lc;

	foreach(lc, shares)
	{
		Share	   *share = lfirst(lc);

		if (share->all->stream == streamid)
			return share->all;
	}
	return sx_batch_create(compute->c->tail->capture->map, streamid, compute->ready, compute->nready, 0);
}

/* false: all is to be computed once more, or with fewer transactions */
static bool
compute_share(Compute *compute, Share *share)
{
	ListCell   *lc;

	foreach(lc, share->members)
	{
		LiveView   *lv = ((Member *) lfirst(lc))->lv;

		sx_consumer_begin_prepare(lv, lv->shared->watermark);
	}
	if (share->nearly == 0)
	{
		if (!compute_batch(compute, share, share->all))
			return false;
	}
	else
	{
		/* what was computed early is added, the rest is run */
		SxBatch    *late_part = batch_of(compute, share, true);
		SxBatch    *others = batch_of(compute, share, false);

		if (!add_early(compute, share, share->all->nrows - late_part->nrows - others->nrows) ||
			!compute_batch(compute, share, late_part) ||
			!compute_batch(compute, share, others))
			return false;
	}
	foreach(lc, share->members)
	{
		Member	   *m = lfirst(lc);

		if (m->out)
			continue;
		m->lv->prepared = true;
		m->lv->counts.rows = share->all->nrows;
		m->lv->locked_since = 0;
	}
	return true;
}

/* early: what is left to be done of the transactions that were computed early; or all of the others */
static SxBatch *
batch_of(Compute *compute, Share *share, bool early)
{
	SxReady   **ready = palloc(sizeof(SxReady *) * compute->nready);
	int			n = 0;
	SxBatch    *batch;

	for (int i = 0; i < compute->nready; i++)
		if (share->early[i] == early)
			ready[n++] = compute->ready[i];
	batch = sx_batch_create(compute->c->tail->capture->map, share->all->stream, ready, n, early ? share->mark : 0);
	pfree(ready);
	return batch;
}

static bool
add_early(Compute *compute, Share *share, uint64 rows)
{
	ListCell   *lc;

	foreach(lc, share->members)
	{
		Member	   *m = lfirst(lc);
		SxProcessResult result = SX_PROCESS_OK;

		sx_consumer_begin_run(m->lv, rows);
		for (int i = 0; i < compute->nready && result == SX_PROCESS_OK; i++)
			if (share->early[i])
				result = sx_consumer_apply_early(compute->c, m->lv, compute->ready[i], &m->process.error);
		if (!sx_consumer_end_run(m->lv, rows) && result == SX_PROCESS_OK)
			result = SX_PROCESS_SLOW;
		if (result != SX_PROCESS_OK && !settle(compute, m, result))
			return false;
	}
	return true;
}

static bool
compute_batch(Compute *compute, Share *share, SxBatch *batch)
{
	List	   *views = views_of(share);
	bool		more = batch->nrows > 0 && views != NIL;
	bool		ok = true;
	ListCell   *lc;

	if (!more)
		return true;
	sx_ask_times(batch, &((LiveView *) linitial(views))->time);
	sx_process_share(batch, plans_of(views));
	foreach(lc, share->members)
	{
		Member	   *m = lfirst(lc);

		if (!m->out)
			begin_compute(m->lv, &m->process, batch, compute->c->turn);
	}
	while (more && ok)
		ok = compute_slice(compute, share, &more);
	sx_process_end_share(batch);
	foreach(lc, share->members)
	{
		Member	   *m = lfirst(lc);

		if (ok && !m->out)
			end_compute(m->lv, &m->process, batch);
	}
	return ok;
}

static List *
views_of(Share *share)
{
	List	   *views = NIL;
	ListCell   *lc;

	foreach(lc, share->members)
	{
		Member	   *m = lfirst(lc);

		if (!m->out)
			views = lappend(views, m->lv);
	}
	return views;
}

static List *
plans_of(List *views)
{
	List	   *plans = NIL;
	ListCell   *lc;

	foreach(lc, views)
		plans = lappend(plans, ((LiveView *) lfirst(lc))->plan);
	return plans;
}

/* the next one, for each view */
static bool
compute_slice(Compute *compute, Share *share, bool *more)
{
	ListCell   *lc;

	*more = false;
	foreach(lc, share->members)
	{
		Member	   *m = lfirst(lc);
		uint64		rows;
		SxProcessResult result;

		if (m->out || m->process.done)
			continue;
		rows = sx_process_slice_rows(&m->process);
		sx_consumer_begin_run(m->lv, rows);
		result = sx_process_slice(&m->process);
		if (!sx_consumer_end_run(m->lv, rows) && result == SX_PROCESS_OK)
			result = SX_PROCESS_SLOW;
		if (result == SX_PROCESS_OK)
			*more |= !m->process.done;
		else if (!settle(compute, m, result))
			return false;
	}
	return true;
}

/* what becomes of a view whose run came to nothing; false: of all others, too */
static bool
settle(Compute *compute, Member *m, SxProcessResult result)
{
	Consumer   *c = compute->c;
	LiveView   *lv = m->lv;
	int			before;

	m->out = true;
	switch (result)
	{
		case SX_PROCESS_OK:
			break;

		case SX_PROCESS_STREAM_LOCKED:
			before = list_length(*compute->taken);
			*compute->taken = without_stream(c, *compute->taken, compute->postponed, lv->def->streamid);
			c->retry_soon = true;
			/* for a moment its rows wait; then, or if they cannot, its views leave */
			if (lv->locked_since == 0)
				lv->locked_since = sx_now();
			if (list_length(*compute->taken) == before ||
				TimestampDifferenceExceeds(lv->locked_since, sx_now(), SX_LOCK_GRACE_MS))
				leave_locked(c, lv->def->streamid);
			compute->restart = true;
			return false;

		case SX_PROCESS_LOOKUP_LOCKED:
			sx_view_set_reason(c->db, lv->shared, "waits for a lock on table \"%s\"", m->process.blocked_by);
			sx_consumer_detach(c, lv, SX_VIEW_CATCHUP);
			lv->needs_builder = true;
			break;

		case SX_PROCESS_NO_MEMORY:
			if (!compute->relieved)
			{
				/* write and free all there is, then compute once more */
				discard_all(c);
				sx_consumer_relieve(c);
				compute->again = true;
				return false;
			}
			/* this batch alone is larger than the memory: the slow exact path */
			sx_view_set_reason(c->db, lv->shared, "a batch needs more than streamext.live_memory; it is written directly");
			sx_consumer_detach(c, lv, SX_VIEW_CATCHUP);
			lv->needs_builder = true;
			break;

		case SX_PROCESS_SLOW:
			sx_consumer_slow(c, lv);
			break;

		case SX_PROCESS_FAILED:
			/* dropped or replaced meanwhile: what we know of it is looked up before anything is said */
			if (sx_consumer_is_stale(c))
				sx_consumer_detach(c, lv, SX_VIEW_CATCHUP);
			else
				sx_consumer_fail(c, lv, m->process.error->message);
			break;
	}
	return true;
}

/* moves the transactions with rows in this stream from taken to postponed */
static List *
without_stream(Consumer *c, List *taken, List **postponed, Oid streamid)
{
	List	   *rest_of = NIL;
	ListCell   *lc;

	foreach(lc, taken)
	{
		SxReady    *r = lfirst(lc);
		SxBatch    *own = sx_batch_create(c->tail->capture->map, streamid, &r, 1, 0);

		if (own->nrows == 0 || r->fxid == SX_ALWAYS_XID)
			rest_of = lappend(rest_of, r);
		else
			*postponed = lappend(*postponed, r);
	}
	return rest_of;
}

static void
leave_locked(Consumer *c, Oid streamid)
{
	ListCell   *lc;

	discard_all(c);
	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->def->streamid == streamid && lv->shared->state == SX_VIEW_LIVE)
			sx_consumer_leave(c, lv, "waits for a lock on a table of the stream");
	}
}

static void
discard_all(Consumer *c)
{
	ListCell   *lc;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->writer && sx_live_has_prepared(lv->writer))
			sx_live_discard(lv->writer);
		lv->prepared = false;
	}
}

/* what is prepared continues this watermark, by which its rows are judged, too */
void
sx_consumer_begin_prepare(LiveView *lv, int64 watermark)
{
	memset(&lv->counts, 0, sizeof(lv->counts));
	lv->watermark = watermark;
}

static void
begin_compute(LiveView *lv, SxProcess *p, SxBatch *batch, MemoryContext mcxt)
{
	memset(p, 0, sizeof(*p));
	p->info = lv->info;
	p->plan = lv->plan;
	p->apply = apply_row;
	p->expect = expect_rows;
	p->reject = apply_reject;
	p->live_end = live_end;
	p->arg = lv;
	p->context = mcxt;
	p->late = lv->lateness;
	if (p->late)
		sx_lateness_begin(p->late, &lv->time, lv->shared->watermark, lv->shared->removed_until, mcxt);
	sx_process_begin(p, batch);
}

static void
end_compute(LiveView *lv, SxProcess *p, SxBatch *batch)
{
	if (batch->times)
	{
		lv->watermark = sx_watermark_after(&lv->time, lv->watermark, batch->times->last);
		lv->counts.future += batch->times->future;
	}
	if (p->late)
		sx_lateness_count(p->late, &lv->counts);
}

SxProcessResult
sx_consumer_compute(LiveView *lv, SxBatch *batch, MemoryContext mcxt, ErrorData **error, char **blocked_by)
{
	SxProcess	p;
	SxProcessResult result = SX_PROCESS_OK;

	begin_compute(lv, &p, batch, mcxt);
	while (result == SX_PROCESS_OK && !p.done)
		result = sx_process_slice(&p);
	end_compute(lv, &p, batch);
	*error = p.error;
	*blocked_by = p.blocked_by;
	return result;
}

static void
expect_rows(void *arg, MinimalTuple *rows, int n)
{
	LiveView   *lv = arg;

	sx_live_expect(lv->writer, rows, n);
}

static bool
apply_row(void *arg, TupleTableSlot *row)
{
	LiveView   *lv = arg;

	return sx_live_prepare(lv->writer, row);
}

static bool
apply_reject(void *arg, const char *reason, const char *sqlstate, const char *row_json,
			 const char *message)
{
	LiveView   *lv = arg;

	return sx_live_prepare_dead_letter(lv->writer, lv->def->streamid, sqlstate, reason,
									   row_json, message);
}

static int64
live_end(void *arg, TupleTableSlot *row, int64 point)
{
	return sx_live_session_end(((LiveView *) arg)->writer, row, point);
}
