/*
 * status.c
 *		The functions behind streamext.views, status, streams and backfill_progress.
 *
 * A view's state is what the workers say in shared memory, or, where they say nothing (none
 * runs, a standby), what the catalog says.  Fields are copied under the spinlock, one view at
 * a time, and turned into rows afterwards; counts of live groups are read without the lock
 * that publishing takes and may be a moment old.
 *
 * Anybody may call these functions, as views over them run them as the caller.  They show only
 * what the caller may SELECT; error texts, which may contain values of rows, only to the
 * view's owner and to pg_read_all_stats.
 */
#include "postgres.h"

#include <math.h>

#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "capture/event_time.h"
#include "capture/slot.h"
#include "catalog/definitions.h"
#include "live/registry.h"
#include "query/valid.h"
#include "worker/history_progress.h"

#define N_BUCKETS	32			/* of SxView.freshness */

/* columns of streamext.view_states() */
enum
{
	STATE_VIEW,
	STATE_STATE,
	STATE_ROWS_CONSUMED,
	STATE_ROWS_PER_SECOND,
	STATE_LAG_ROWS,
	STATE_LAG_BYTES,
	STATE_LAG,
	STATE_P50,
	STATE_P99,
	STATE_LIVE_GROUPS,
	STATE_LIVE_BYTES,
	STATE_LAST_FLUSH,
	STATE_LAST_FLUSH_MS,
	STATE_DEAD_LETTERS,
	STATE_LAST_ERROR,
	STATE_LAST_ERROR_AT,
	STATE_REASON,
	STATE_PHASE,
	STATE_WATERMARK,
	STATE_WATERMARK_NUMBER,
	STATE_WATERMARK_HELD_BY,
	STATE_LATE_ROWS,
	STATE_DROPPED_ROWS,
	STATE_OPEN_WINDOWS,
	STATE_BACKFILL_DONE,
	STATE_BACKFILL_TOTAL,
	STATE_BACKFILL_PERCENT,
	STATE_BACKFILL_RATE,
	STATE_BACKFILL_ETA,
	STATE_BACKFILL_HELD,
	N_STATE_COLUMNS
};

/* columns of streamext.stream_states() */
enum
{
	STREAM_STREAM,
	STREAM_ROWS_CONSUMED,
	STREAM_SLOT,
	STREAM_RETAINED,
	STREAM_WATERMARK,
	STREAM_WATERMARK_NUMBER,
	STREAM_IDLE,
	STREAM_LATE_ROWS,
	STREAM_FUTURE_ROWS,
	STREAM_VALID,
	STREAM_EXPIRED,
	STREAM_EXPIRED_NUMBER,
	N_STREAM_COLUMNS
};

/* what one view's slot in shared memory says; not there: state SX_VIEW_UNUSED */
typedef struct ViewCopy
{
	SxViewState state;
	uint64		live_groups;
	uint64		live_bytes;
	XLogRecPtr	protect_lsn;
	SxRowCounts counts;
	int64		watermark;
	int64		open_windows;	/* -1: not known */
	bool		idle;
	double		rows_per_second;
	int64		lag_rows;
	int64		dead_letters;
	TimestampTz last_flush;
	int			last_flush_us;
	TimestampTz last_error_at;
	int			failures;
	char		last_error[256];
	char		reason[256];
	char		phase[32];
	uint32		freshness[N_BUCKETS];
	bool		slow;
	TimestampTz followed_at;
	TimestampTz work_since;
	int64		work_rows;
	SxHistoryProgress history;
} ViewCopy;

/* what is said of the database */
typedef struct DbCopy
{
	bool		found;
	bool		idle;			/* the consumer sleeps: nothing is new */
	pid_t		consumer_pid;
	XLogRecPtr	consumed_lsn;
	TimestampTz caught_up_at;
	XLogRecPtr	slot_lsn;
	char		problem[256];
} DbCopy;

PG_FUNCTION_INFO_V1(sx_view_states);
PG_FUNCTION_INFO_V1(sx_stream_states);

static void copy_db(SxDb *db, DbCopy *copy);
static void copy_view(SxDb *db, Oid viewid, ViewCopy *copy);
static const char *state_name(const SxViewDef *def, const ViewCopy *v, const DbCopy *d);
static char *reason_of(const SxViewDef *def, const ViewCopy *v, const DbCopy *d, bool may_see_errors);
static bool percentile(const uint32 *buckets, double fraction, double *ms);
static Interval *interval_between(TimestampTz from, TimestampTz to);
static XLogRecPtr end_of_wal(void);
static void set_text(Datum *values, bool *nulls, int column, const char *text);
static void set_watermark(Datum *values, bool *nulls, int column, int64 watermark, Oid type);
static void set_backfill(Datum *values, bool *nulls, const ViewCopy *v, const SxStoredPosition *stored);
static char *held_by(const ViewCopy *v, const SxStreamTime *time);

Datum
sx_view_states(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo;
	SxDb	   *db;
	DbCopy		d = {0};
	List	   *views;
	ListCell   *lc;
	TimestampTz now = GetCurrentTimestamp();
	XLogRecPtr	wal_end = end_of_wal();

	sx_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	db = sx_my_db();
	copy_db(db, &d);
	views = sx_catalog_views();
	foreach(lc, views)
	{
		SxViewDef  *def = lfirst(lc);
		SxStoredPosition *stored;
		ViewCopy	v = {0};
		Datum		values[N_STATE_COLUMNS] = {0};
		bool		nulls[N_STATE_COLUMNS];
		bool		may_see_errors;
		XLogRecPtr	consumed;
		double		ms;

		if (pg_class_aclcheck(def->viewid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
			continue;
		may_see_errors = has_privs_of_role(GetUserId(), def->owner) ||
			has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
		copy_view(db, def->viewid, &v);
		stored = sx_catalog_position(def->viewid);

		memset(nulls, true, sizeof(nulls));
		values[STATE_VIEW] = ObjectIdGetDatum(def->viewid);
		nulls[STATE_VIEW] = false;
		set_text(values, nulls, STATE_STATE, state_name(def, &v, &d));

		/* where no worker has a say */
		if (v.state == SX_VIEW_UNUSED && stored != NULL)
		{
			v.counts = stored->counts;
			v.watermark = stored->watermark;
		}
		if (v.state != SX_VIEW_UNUSED || stored != NULL)
		{
			SxStreamDef *stream = sx_catalog_stream(def->streamid);

			values[STATE_ROWS_CONSUMED] = Int64GetDatum(v.counts.rows);
			nulls[STATE_ROWS_CONSUMED] = false;
			if (stream != NULL && stream->time.attno != InvalidAttrNumber)
			{
				values[STATE_LATE_ROWS] = Int64GetDatum(v.counts.late);
				values[STATE_DROPPED_ROWS] = Int64GetDatum(v.counts.dropped);
				nulls[STATE_LATE_ROWS] = nulls[STATE_DROPPED_ROWS] = false;
				if (v.state != SX_VIEW_UNUSED && v.open_windows >= 0)
				{
					values[STATE_OPEN_WINDOWS] = Int64GetDatum(v.open_windows);
					nulls[STATE_OPEN_WINDOWS] = false;
				}
				set_watermark(values, nulls, STATE_WATERMARK, v.watermark, stream->time.type);
				set_text(values, nulls, STATE_WATERMARK_HELD_BY, held_by(&v, &stream->time));
			}
		}

		/* what the view has not read; a live view shares the consumer's place */
		consumed = v.state == SX_VIEW_LIVE ? d.consumed_lsn :
			v.state != SX_VIEW_UNUSED ? v.protect_lsn :
			stored != NULL ? stored->start_lsn : InvalidXLogRecPtr;
		if (!XLogRecPtrIsInvalid(consumed) && !XLogRecPtrIsInvalid(wal_end))
		{
			values[STATE_LAG_BYTES] = Int64GetDatum(wal_end > consumed ? (int64) (wal_end - consumed) : 0);
			nulls[STATE_LAG_BYTES] = false;
		}
		if (v.state == SX_VIEW_LIVE && d.idle)
		{
			values[STATE_LAG_BYTES] = Int64GetDatum(0);
			nulls[STATE_LAG_BYTES] = false;
			values[STATE_LAG] = IntervalPGetDatum(interval_between(now, now));
			nulls[STATE_LAG] = false;
		}
		else if (v.state == SX_VIEW_LIVE && d.caught_up_at != 0)
		{
			values[STATE_LAG] = IntervalPGetDatum(interval_between(d.caught_up_at, sx_now()));
			nulls[STATE_LAG] = false;
		}
		else if (v.state != SX_VIEW_LIVE && v.slow && v.followed_at != 0)
		{
			values[STATE_LAG] = IntervalPGetDatum(interval_between(v.followed_at, sx_now()));
			nulls[STATE_LAG] = false;
		}
		else if (v.state != SX_VIEW_LIVE && v.last_flush != 0)
		{
			values[STATE_LAG] = IntervalPGetDatum(interval_between(v.last_flush, now));
			nulls[STATE_LAG] = false;
		}

		if (v.state == SX_VIEW_LIVE || (v.slow && v.state == SX_VIEW_BUILDING))
		{
			values[STATE_ROWS_PER_SECOND] = Float8GetDatum(v.rows_per_second);
			values[STATE_LAG_ROWS] = Int64GetDatum(v.lag_rows);
			nulls[STATE_ROWS_PER_SECOND] = nulls[STATE_LAG_ROWS] = false;
		}

		if (percentile(v.freshness, 0.5, &ms))
		{
			values[STATE_P50] = Float8GetDatum(ms);
			nulls[STATE_P50] = false;
		}
		if (percentile(v.freshness, 0.99, &ms))
		{
			values[STATE_P99] = Float8GetDatum(ms);
			nulls[STATE_P99] = false;
		}
		if (v.state != SX_VIEW_UNUSED)
		{
			values[STATE_LIVE_GROUPS] = Int64GetDatum((int64) v.live_groups);
			values[STATE_LIVE_BYTES] = Int64GetDatum((int64) v.live_bytes);
			values[STATE_DEAD_LETTERS] = Int64GetDatum(v.dead_letters);
			nulls[STATE_LIVE_GROUPS] = nulls[STATE_LIVE_BYTES] = nulls[STATE_DEAD_LETTERS] = false;
		}
		if (v.last_flush != 0)
		{
			values[STATE_LAST_FLUSH] = TimestampTzGetDatum(v.last_flush);
			values[STATE_LAST_FLUSH_MS] = Float8GetDatum(v.last_flush_us / 1000.0);
			nulls[STATE_LAST_FLUSH] = nulls[STATE_LAST_FLUSH_MS] = false;
		}
		if (v.last_error_at != 0)
		{
			values[STATE_LAST_ERROR_AT] = TimestampTzGetDatum(v.last_error_at);
			nulls[STATE_LAST_ERROR_AT] = false;
			if (may_see_errors && v.last_error[0] != '\0')
				set_text(values, nulls, STATE_LAST_ERROR, v.last_error);
		}
		set_text(values, nulls, STATE_REASON, reason_of(def, &v, &d, may_see_errors));
		if (v.state == SX_VIEW_NEW || v.state == SX_VIEW_CATCHUP || v.state == SX_VIEW_BUILDING)
			set_text(values, nulls, STATE_PHASE, v.phase[0] != '\0' ? v.phase : "waiting");
		if (stored != NULL && stored->ours && sx_is_in_history(stored))
			set_backfill(values, nulls, &v, stored);

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
sx_stream_states(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo;
	SxDb	   *db;
	DbCopy		d = {0};
	List	   *views;
	ListCell   *lc;
	XLogRecPtr	wal_end = end_of_wal();
	char		slot[NAMEDATALEN];

	sx_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	db = sx_my_db();
	copy_db(db, &d);
	sx_slot_name(MyDatabaseId, slot, sizeof(slot));
	views = sx_catalog_views();
	foreach(lc, sx_catalog_streams())
	{
		SxStreamDef *stream = lfirst(lc);
		Datum		values[N_STREAM_COLUMNS] = {0};
		bool		nulls[N_STREAM_COLUMNS] = {0};
		bool		used = false;
		SxRowCounts most = {0};
		int64		watermark = SX_TIME_END;
		bool		idle = true;
		ListCell   *lc2;

		if (get_rel_name(stream->streamid) == NULL ||
			pg_class_aclcheck(stream->streamid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
			continue;

		/* the view that has read most */
		foreach(lc2, views)
		{
			SxViewDef  *def = lfirst(lc2);
			SxStoredPosition *stored;
			ViewCopy	v = {0};

			if (def->streamid != stream->streamid || OidIsValid(def->replaces))
				continue;
			used = true;
			copy_view(db, def->viewid, &v);
			if (v.state == SX_VIEW_UNUSED)
			{
				stored = sx_catalog_position(def->viewid);
				if (stored == NULL)
					continue;
				v.counts = stored->counts;
				v.watermark = stored->watermark;
			}
			if (v.counts.rows >= most.rows)
				most = v.counts;
			watermark = Min(watermark, v.watermark);
			idle &= v.idle;
		}

		values[STREAM_STREAM] = ObjectIdGetDatum(stream->streamid);
		values[STREAM_ROWS_CONSUMED] = Int64GetDatum(most.rows);
		set_watermark(values, nulls, STREAM_WATERMARK, watermark, stream->time.type);
		values[STREAM_IDLE] = BoolGetDatum(idle);
		values[STREAM_LATE_ROWS] = Int64GetDatum(most.late);
		values[STREAM_FUTURE_ROWS] = Int64GetDatum(most.future);
		nulls[STREAM_IDLE] = nulls[STREAM_LATE_ROWS] = nulls[STREAM_FUTURE_ROWS] =
			!used || stream->time.attno == InvalidAttrNumber;
		if (used)
			values[STREAM_SLOT] = CStringGetTextDatum(slot);
		else
			nulls[STREAM_SLOT] = true;
		if (used && !XLogRecPtrIsInvalid(d.slot_lsn) && !XLogRecPtrIsInvalid(wal_end))
			values[STREAM_RETAINED] = Int64GetDatum(wal_end > d.slot_lsn ?
													(int64) (wal_end - d.slot_lsn) : 0);
		else
			nulls[STREAM_RETAINED] = true;
		set_text(values, nulls, STREAM_VALID, sx_valid_text(stream));
		set_watermark(values, nulls, STREAM_EXPIRED, stream->expired_until, stream->time.type);
		if (stream->expired_until == SX_TIME_END)
		{
			values[STREAM_EXPIRED] = TimestampTzGetDatum(DT_NOEND);
			nulls[STREAM_EXPIRED] = false;
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---- shared memory ---- */

static void
copy_db(SxDb *db, DbCopy *copy)
{
	if (db == NULL)
		return;
	copy->found = true;
	copy->idle = pg_atomic_read_u32(&db->consumer_sleeps) != 0;
	/* a consumer that has nothing left says so by the highest LSN */
	copy->consumed_lsn = Min(pg_atomic_read_u64(&db->consumed_lsn), pg_atomic_read_u64(&db->read_lsn));
	copy->caught_up_at = (TimestampTz) pg_atomic_read_u64(&db->caught_up_at);
	SpinLockAcquire(&db->mutex);
	copy->consumer_pid = db->places[SX_CONSUMER].pid;
	copy->slot_lsn = db->slot_lsn;
	memcpy(copy->problem, db->problem, sizeof(copy->problem));
	SpinLockRelease(&db->mutex);
	copy->problem[sizeof(copy->problem) - 1] = '\0';
	if (copy->consumer_pid == 0)
		copy->idle = false;
}

static void
copy_view(SxDb *db, Oid viewid, ViewCopy *copy)
{
	SxView	   *v = db ? sx_view_by_id(db, viewid) : NULL;

	if (v == NULL)
		return;
	SpinLockAcquire(&db->mutex);
	if (v->viewid == viewid)
	{
		copy->state = v->state;
		copy->protect_lsn = v->protect_lsn;
		copy->counts = v->counts;
		copy->watermark = v->watermark;
		copy->open_windows = v->open_windows;
		copy->idle = v->idle;
		copy->rows_per_second = v->rows_per_second;
		copy->lag_rows = v->lag_rows;
		copy->dead_letters = v->dead_letters;
		copy->last_flush = v->last_flush;
		copy->last_flush_us = v->last_flush_us;
		copy->last_error_at = v->last_error_at;
		copy->failures = v->failures;
		memcpy(copy->last_error, v->last_error, sizeof(copy->last_error));
		memcpy(copy->reason, v->reason, sizeof(copy->reason));
		memcpy(copy->phase, v->phase, sizeof(copy->phase));
		memcpy(copy->freshness, v->freshness, sizeof(copy->freshness));
		copy->slow = v->slow;
		copy->followed_at = v->followed_at;
		copy->work_since = v->work_since;
		copy->work_rows = v->work_rows;
		copy->history = v->history;
	}
	SpinLockRelease(&db->mutex);
	copy->last_error[sizeof(copy->last_error) - 1] = '\0';
	copy->reason[sizeof(copy->reason) - 1] = '\0';
	copy->phase[sizeof(copy->phase) - 1] = '\0';

	for (int i = 0; i < SX_MAX_GENERATIONS; i++)
	{
		SxGeneration *gen = &v->gens[i];

		if (gen->state == SX_GEN_FREE)
			continue;
		copy->live_bytes += gen->bytes;
		if (gen->state != SX_GEN_FLUSHED)
			copy->live_groups += gen->nentries;
	}
}

/* ---- words ---- */

static const char *
state_name(const SxViewDef *def, const ViewCopy *v, const DbCopy *d)
{
	switch (v->state)
	{
		case SX_VIEW_LIVE:
			return "live";
		case SX_VIEW_PAUSING:
			/* not paused: it leaves the shared position, consumer_leave.c */
			return def->paused ? "paused" : "backfilling";
		case SX_VIEW_PAUSED:
			return "paused";
		case SX_VIEW_FAILED:
			return "failed";
		case SX_VIEW_NEW:
		case SX_VIEW_CATCHUP:
		case SX_VIEW_BUILDING:
			return "backfilling";
		case SX_VIEW_UNUSED:
			break;
	}
	if (def->paused)
		return "paused";
	return d->problem[0] != '\0' ? "failed" : "backfilling";
}

/* why the view is not moving; NULL when it is */
static char *
reason_of(const SxViewDef *def, const ViewCopy *v, const DbCopy *d, bool may_see_errors)
{
	if (RecoveryInProgress())
		return pstrdup("the server is a standby: the view shows what is flushed and replicated");
	if (wal_level < WAL_LEVEL_REPLICA)
		return pstrdup("nothing is read with wal_level = minimal - Set wal_level = replica in postgresql.conf and restart the server.");
	if (d->problem[0] != '\0')
		return pstrdup(d->problem);
	if (!d->found && sx_db_all_taken())
		return psprintf("other databases take all places: streamext.max_databases is %d; raise it in postgresql.conf and restart the server",
						sx_max_databases);
	if (d->consumer_pid == 0)
		return pstrdup("the consumer of this database is not running");
	if (v->state == SX_VIEW_FAILED || v->failures > 0)
	{
		if (!may_see_errors)
			return pstrdup("failed; the view's owner can see the error");
		if (v->reason[0] != '\0')
			return pstrdup(v->reason);
		return v->last_error[0] != '\0' ? psprintf("failed: %s", v->last_error) : pstrdup("failed");
	}
	if (v->slow && v->state == SX_VIEW_CATCHUP)
		return psprintf("%s; waits for its turn", v->reason);
	if (v->state == SX_VIEW_BUILDING && v->work_since != 0 &&
		TimestampDifferenceExceeds(v->work_since, sx_now(), 1000))
		return psprintf("%s%sat work on " INT64_FORMAT " rows for " INT64_FORMAT " s",
						v->reason, v->reason[0] != '\0' ? "; " : "", v->work_rows,
						(sx_now() - v->work_since) / USECS_PER_SEC);
	if (v->slow && v->state == SX_VIEW_BUILDING && v->phase[0] != '\0' && strcmp(v->phase, "follows") != 0)
		return psprintf("%s; %s", v->reason, v->phase);
	if (v->reason[0] != '\0')
		return pstrdup(v->reason);
	switch (v->state)
	{
		case SX_VIEW_LIVE:
			return NULL;
		case SX_VIEW_PAUSING:
			return pstrdup("is being paused");
		case SX_VIEW_PAUSED:
			return pstrdup("paused; continue with streamext.resume()");
		case SX_VIEW_NEW:
		case SX_VIEW_CATCHUP:
			return pstrdup("waits for a worker to build it");
		case SX_VIEW_BUILDING:
			return NULL;		/* it moves: see streamext.backfill_progress */
		default:
			return pstrdup(def->paused ? "paused; continue with streamext.resume()" :
						   "the consumer has not seen the view yet");
	}
}

/* what the watermark waits for */
static char *
held_by(const ViewCopy *v, const SxStreamTime *time)
{
	if (v->state != SX_VIEW_LIVE)
		return pstrdup("the view, which is not live: see reason");
	if (v->watermark == SX_TIME_NONE)
		return pstrdup("no row has come yet");
	if (v->idle)
		return pstrdup("the clock: no row has come for idle_timeout");
	/* true whatever the delay was when the watermark was reached */
	return psprintf("a row later than %s, which has not come yet", sx_event_time_text(sx_event_time_minus(v->watermark, -time->delay), time->type));
}

/* ---- numbers ---- */

/* bucket i holds times of [2^i, 2^(i+1)) microseconds; linear within */
static bool
percentile(const uint32 *buckets, double fraction, double *ms)
{
	uint64		total = 0;
	double		rank;
	double		below = 0;

	for (int i = 0; i < N_BUCKETS; i++)
		total += buckets[i];
	if (total == 0)
		return false;
	rank = fraction * total;
	for (int i = 0; i < N_BUCKETS; i++)
	{
		if (buckets[i] == 0)
			continue;
		if (below + buckets[i] >= rank)
		{
			double		low = i == 0 ? 0 : ldexp(1.0, i);

			*ms = (low + (ldexp(1.0, i + 1) - low) * (rank - below) / buckets[i]) / 1000.0;
			return true;
		}
		below += buckets[i];
	}
	*ms = ldexp(1.0, N_BUCKETS) / 1000.0;
	return true;
}

static Interval *
interval_between(TimestampTz from, TimestampTz to)
{
	Interval   *span = palloc0(sizeof(Interval));

	span->time = Max(to - from, 0);
	return span;
}

static XLogRecPtr
end_of_wal(void)
{
	return RecoveryInProgress() ? InvalidXLogRecPtr : GetXLogInsertRecPtr();
}

static void
set_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL;
	if (text != NULL)
		values[column] = CStringGetTextDatum(text);
}

/* how far history has come */
static void
set_backfill(Datum *values, bool *nulls, const ViewCopy *v, const SxStoredPosition *stored)
{
	const SxHistoryProgress *h = &v->history;
	uint64		done;
	uint64		blocks = sx_scan_blocks(stored->scan, &done);
	double		percent = blocks > 0 ? 100.0 * done / blocks : 0;
	int64		rows = stored->scan->rows;
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());

	if (v->state == SX_VIEW_BUILDING && h->blocks == blocks && h->done >= done)
	{
		TimestampTz now = sx_now();
		double		left;

		done = h->done + Min(h->chunk_done, h->chunk);
		rows = h->rows + h->chunk_rows;
		percent = h->percent;
		if (now > h->since)
		{
			values[STATE_BACKFILL_RATE] = Float8GetDatum((h->spent_rows + h->chunk_rows) * 1000000.0 / (now - h->since));
			nulls[STATE_BACKFILL_RATE] = false;
		}
		left = sx_history_time_left(h, now);
		if (left >= 0)
		{
			Interval   *eta = palloc0(sizeof(Interval));

			eta->time = (int64) left;
			values[STATE_BACKFILL_ETA] = IntervalPGetDatum(eta);
			nulls[STATE_BACKFILL_ETA] = false;
		}
	}
	values[STATE_BACKFILL_DONE] = Int64GetDatum(rows);
	values[STATE_BACKFILL_PERCENT] = Float8GetDatum(percent);
	values[STATE_BACKFILL_HELD] = Int64GetDatum((int64) (next - stored->position->xmin));
	nulls[STATE_BACKFILL_DONE] = nulls[STATE_BACKFILL_PERCENT] = nulls[STATE_BACKFILL_HELD] = false;
	if (done > 0)
	{
		values[STATE_BACKFILL_TOTAL] = Int64GetDatum((int64) rint((double) rows * blocks / done));
		nulls[STATE_BACKFILL_TOTAL] = false;
	}
}

/* an instant, or a bigint in the column that follows */
static void
set_watermark(Datum *values, bool *nulls, int column, int64 watermark, Oid type)
{
	bool		none = watermark == SX_TIME_NONE || watermark == SX_TIME_END;

	nulls[column] = none || type == INT8OID;
	nulls[column + 1] = none || type != INT8OID;
	if (none)
		return;
	if (type == INT8OID)
		values[column + 1] = Int64GetDatum(watermark);
	else if (type == TIMESTAMPTZOID)
		values[column] = TimestampTzGetDatum(watermark);
	else if (IS_VALID_TIMESTAMP(watermark))
		/* so that it is shown in the session's time zone as it stands in the rows */
		values[column] = DirectFunctionCall1(timestamp_timestamptz, TimestampGetDatum(watermark));
	else
		nulls[column] = true;
}
