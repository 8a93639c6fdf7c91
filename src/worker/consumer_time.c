/*
 * consumer_time.c
 *		Watermarks that follow the clock: the last windows of a stream close though no more rows come.
 *
 * When a stream with an idle_timeout has had no row for that long, the watermark goes on from where the
 * last row left it, by the time that has gone by since.  That time is measured by a clock that cannot be
 * set (moment.h), and begins anew when the consumer does.  It says "no row has come", so it must be known:
 * all WAL is read, all that was committed is consumed, and no open transaction holds rows of the stream.
 *
 * What so closes is stored soon, as rows would be; when the last row's windows are closed, there is nothing
 * more to store until the next row.
 */
#include "worker/consumer_internal.h"

#include "access/xact.h"
#include "time/retention.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* between two looks at the clock */
#define CLOCK_MS	500

typedef struct OpenRows
{
	SxFileMap  *map;
	Oid			streamid;
	bool		found;
} OpenRows;

static bool follows_clock(LiveView *lv);
static bool has_rows_to_come(Consumer *c, Oid streamid);
static void look_for_stream(void *arg, TransactionId xid, SxReady *part);
static bool look_for_closed(Consumer *c, LiveView *lv);

/* at the end of a cycle that has consumed all there was */
void
sx_consumer_follow_clock(Consumer *c)
{
	TimestampTz now = sx_now();
	ListCell   *lc;

	if (c->backlog || c->retry_soon || c->tail->behind || c->tail->more || c->tail->has_fresh)
		return;
	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		SxView	   *v = lv->shared;
		int64		silence = now - lv->row_at;
		int64		watermark = sx_event_time_minus(lv->row_watermark, -silence);

		if (!follows_clock(lv) || silence < lv->time.idle || now - lv->clock_at < CLOCK_MS * INT64CONST(1000))
			continue;
		lv->clock_at = now;
		if (watermark <= v->watermark || has_rows_to_come(c, lv->def->streamid))
			continue;

		sx_lock_publish_exclusive(c->db);
		v->watermark = watermark;
		sx_unlock_publish(c->db);
		SpinLockAcquire(&c->db->mutex);
		v->idle = true;
		SpinLockRelease(&c->db->mutex);
		if (lv->lateness != NULL && !lv->all_closed)
			lv->closed_unsealed |= look_for_closed(c, lv);
		ConditionVariableBroadcast(&c->db->published_cv);
	}
}

/* a row was published, or the view has joined: the watermark is the rows' own */
void
sx_consumer_note_row(Consumer *c, LiveView *lv)
{
	SxView	   *v = lv->shared;

	lv->row_at = sx_now();
	lv->row_watermark = v->watermark;
	lv->all_closed = false;
	if (v->idle)
	{
		SpinLockAcquire(&c->db->mutex);
		v->idle = false;
		SpinLockRelease(&c->db->mutex);
	}
}

/* how long the consumer may sleep */
long
sx_consumer_clock_ms(Consumer *c)
{
	TimestampTz now = sx_now();
	long		ms = LONG_MAX;
	ListCell   *lc;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		int64		left;

		if (!follows_clock(lv))
			continue;
		left = Max(lv->time.idle - (now - lv->row_at), CLOCK_MS * INT64CONST(1000) - (now - lv->clock_at));
		ms = Min(ms, Max(left / 1000 + 1, 1));
	}
	return ms;
}

static bool
follows_clock(LiveView *lv)
{
	return lv->shared->state == SX_VIEW_LIVE && lv->time.attno != InvalidAttrNumber && lv->time.idle >= 0 &&
		lv->row_watermark != SX_TIME_NONE;
}

/* rows of the stream that are not consumed, committed or not */
static bool
has_rows_to_come(Consumer *c, Oid streamid)
{
	SxPending  *pending = c->tail->capture->pending;
	OpenRows	rows = {c->tail->capture->map, streamid, false};
	dlist_iter	iter;

	dlist_foreach(iter, sx_pending_ready(pending))
		look_for_stream(&rows, InvalidTransactionId, dlist_container(SxReady, node, iter.cur));
	if (!rows.found)
		sx_pending_large(pending, 1, look_for_stream, &rows);
	return rows.found;
}

static void
look_for_stream(void *arg, TransactionId xid, SxReady *part)
{
	OpenRows   *rows = arg;

	for (uint32 i = 0; i < part->nruns && !rows->found; i++)
	{
		SxFileEntry *e = sx_file_map_entry(rows->map, SxRunFile(&part->runs[i]));

		rows->found = !e->dead && list_member_oid(e->streams, rows->streamid);
	}
}

/* has a window closed, or come to the end of its retention, since the watermark that was sealed last? */
static bool
look_for_closed(Consumer *c, LiveView *lv)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool closed = false;

	sx_consumer_begin_run(lv, 0);
	PG_TRY();
	{
		SxRunAs		as;
		SxWindows  *windows = lv->lateness->windows;
		int64		last = sx_event_time_minus(lv->row_watermark, -lv->time.delay);
		bool		any;

		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		sx_run_as_begin(&as, lv->def);
		closed = sx_windows_advance(windows, sx_event_time_minus(lv->sealed_watermark, lv->time.lateness),
									sx_event_time_minus(lv->shared->watermark, lv->time.lateness));
		lv->all_closed = sx_time_is_closed(windows, last, &any);
		if (lv->def->retention >= 0)
		{
			/* closed windows are kept for some time more */
			windows = lv->lateness->removed;
			closed |= sx_windows_advance(windows, lv->shared->removed_until,
										 sx_retention_until(lv->def, lv->info, &lv->time, lv->shared->watermark,
															lv->shared->removed_until));
			lv->all_closed &= sx_time_is_removed(windows, last, &any);
		}
		sx_run_as_end(&as);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		/* the next row will meet the same error, where it is told */
		FreeErrorData(sx_worker_recover(caller));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	(void) sx_consumer_end_run(lv, 0);
	return closed;
}
