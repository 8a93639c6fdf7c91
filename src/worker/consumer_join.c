/*
 * consumer_join.c
 *		Takes a view whose stored position stands close behind the shared one into the
 *		cycle.
 *
 * A capture of its own reads WAL from the view's start LSN to where the consumer stands.
 * Transactions that the shared position contains and the view's does not are computed into
 * its first generation; together with publishing them the view becomes live.  What is
 * still open is handed to the consumer's capture, for files that this did not know.
 *
 * The stored position must lie within the shared one: a builder's snapshot may be ahead of
 * it for a moment, then the view waits for the next cycle.
 */
#include "worker/consumer_internal.h"

#include "access/xact.h"
#include "capture/open_rows.h"
#include "catalog/definitions.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "time/watermark.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* WAL a join may read: while others are live they wait for it */
#define JOIN_BYTES			(UINT64CONST(8) * 1024 * 1024)
#define JOIN_BYTES_IDLE		(UINT64CONST(256) * 1024 * 1024)

static bool try_join(Consumer *c, LiveView *lv);
static SxTail *read_settled(Consumer *c, LiveView *lv, SxStoredPosition *pos);
static bool have_ended(List *xids);
static bool read_or_give_up(Consumer *c, LiveView *lv, SxTail *own, SxStoredPosition *pos);
static bool read_own(Consumer *c, LiveView *lv, SxTail *own, SxStoredPosition *pos);
static bool waits_for_scan(SxCapture *capture, SxFileMap *own_map);
static bool compute_own(Consumer *c, LiveView *lv, SxTail *own, SxStoredPosition *pos);
static void hand_over(Consumer *c, LiveView *lv, SxTail *own);
static bool drop_always(uint64 fxid, void *arg);

void
sx_consumer_join(Consumer *c)
{
	TimestampTz now = sx_now();
	bool		any_live = false;
	ListCell   *lc;

	foreach(lc, c->views)
		any_live |= ((LiveView *) lfirst(lc))->shared->state == SX_VIEW_LIVE;

	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);
		SxView	   *v = lv->shared;
		XLogRecPtr	read_lsn = c->tail->capture->read_lsn;
		uint64		limit = any_live ? JOIN_BYTES : JOIN_BYTES_IDLE;

		if (v->state != SX_VIEW_CATCHUP || lv->gone || lv->drop_pending || lv->needs_builder ||
			lv->builder || v->retry_at > now)
			continue;
		/*
		 * A transaction that stays open holds the start back: a builder cannot change that, and
		 * its rows must be known here when it commits.
		 */
		if (read_lsn > v->protect_lsn && read_lsn - v->protect_lsn > limit && !lv->caught_up)
		{
			lv->needs_builder = true;
			continue;
		}
		/* a builder knows what to do when WAL is gone, or rows may be */
		if (v->scanning || v->exposed || v->wal_gone || !sx_wal_available(v->protect_lsn))
		{
			lv->needs_builder = true;
			continue;
		}
		if (!try_join(c, lv))
			c->retry_soon = true;
	}
}

static bool
try_join(Consumer *c, LiveView *lv)
{
	SxTail	   *own;
	SxStoredPosition *pos;
	bool		joined = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(c->turn);
	pos = sx_catalog_position(lv->def->viewid);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(c->turn);

	/* a builder that failed before it stored anything, or amid a scan; or the view is being dropped */
	if (pos == NULL || !pos->ours || pos->start_lsn == InvalidXLogRecPtr || pos->scan != NULL)
	{
		lv->needs_builder = true;
		return false;
	}
	if (!sx_position_covers(c->position, pos->position))
		return false;
	SX_STOP_POINT_OF(join_position, lv->def->viewid);

	own = read_settled(c, lv, pos);
	if (own == NULL)
		return false;
	if (own->broken != NIL)
	{
		sx_tail_destroy(own);
		sx_consumer_stop(c, lv, SX_REPLACED_REASON);
		return false;
	}
	if (sx_consumer_go_live(c, lv))
	{
		joined = compute_own(c, lv, own, pos);
		if (joined)
		{
			SX_STOP_POINT_OF(join_published, lv->def->viewid);
			hand_over(c, lv, own);
			SX_STOP_POINT_OF(join_done, lv->def->viewid);
		}
	}
	sx_tail_destroy(own);
	return joined;
}

/*
 * A capture that has read to where the consumer stands; NULL: not now.  Its file map must know
 * what the commits did that it met: if some changed the stream, it is made again
 * once their invalidations are sent.
 */
static SxTail *
read_settled(Consumer *c, LiveView *lv, SxStoredPosition *pos)
{
	List	   *settled = NIL;

	for (;;)
	{
		SxTail	   *own = sx_tail_create(TopMemoryContext, Min(pos->start_lsn, c->tail->capture->read_lsn));
		bool		ok;
		List	   *changed;

		own->scan_limit = SX_SCAN_LIMIT;
		ok = read_or_give_up(c, lv, own, pos);
		changed = ok ? list_difference_oid(own->capture->changed, settled) : NIL;
		if (ok && changed == NIL)
			return own;
		sx_tail_destroy(own);
		if (!ok || !have_ended(changed))
			return NULL;
		settled = list_concat(settled, changed);
	}
}

/* a transaction lets go of its id's lock after it has sent its invalidations */
static bool
have_ended(List *xids)
{
	bool		ended = true;
	ListCell   *lc;

	StartTransactionCommand();
	foreach(lc, xids)
	{
		LOCKTAG		tag;

		SET_LOCKTAG_TRANSACTION(tag, (TransactionId) lfirst_oid(lc));
		if (LockAcquire(&tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
			ended = false;
		else
			LockRelease(&tag, ShareLock, false);
	}
	AcceptInvalidationMessages();
	CommitTransactionCommand();
	return ended;
}

/* WAL that cannot be read is the view's trouble, not the consumer's */
static bool
read_or_give_up(Consumer *c, LiveView *lv, SxTail *own, SxStoredPosition *pos)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool ok = false;

	PG_TRY();
	{
		ok = read_own(c, lv, own, pos);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (!sx_capture_is_unreadable(own->capture, error))
			PG_RE_THROW();
		FreeErrorData(error);
		error = sx_worker_recover(caller);
		ereport(LOG,
				(errmsg("continuous view with OID %u cannot be brought up by WAL: %s",
						lv->def->viewid, error->message)));
		SpinLockAcquire(&c->db->mutex);
		lv->shared->wal_gone = true;
		SpinLockRelease(&c->db->mutex);
		lv->needs_builder = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return ok;
}

/* addresses up to where the consumer stands; false: a new file is locked */
static bool
read_own(Consumer *c, LiveView *lv, SxTail *own, SxStoredPosition *pos)
{
	SxFound    *found;
	bool		complete;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	sx_tail_set_streams(own, list_make1_oid(lv->def->streamid));
	sx_file_map_refresh(own->capture->map, own->streams, false);
	if (waits_for_scan(c->tail->capture, own->capture->map))
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(c->turn);
		return false;
	}
	sx_tail_compare(own, pos);
	sx_open_rows_load(own->capture, pos->open_rows);
	found = sx_tail_scan_fresh(own, pos->position, sx_position_to_snapshot(c->position),
							   c->position, c->turn, &complete);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(c->turn);
	if (!complete)
	{
		lv->needs_builder |= own->blocked != NIL;
		return false;
	}

	sx_capture_read(own->capture, c->tail->capture->read_lsn, 0);
	SX_STOP_POINT_OF(join_read, lv->def->viewid);
	sx_tail_apply_found(own, found, c->position);
	sx_pending_drop_below(own->capture->pending, c->position->xmin);
	return true;
}

/*
 * What the consumer finds in a file that it scans is new to all who are live when it is consumed.  Who has
 * read the file himself must not be among them.
 */
static bool
waits_for_scan(SxCapture *capture, SxFileMap *own_map)
{
	bool		found = sx_pending_found(capture->pending) > 0;

	for (uint32 i = 0; i < sx_file_map_count(own_map); i++)
	{
		SxFileEntry *e = sx_file_map_lookup(capture->map, sx_file_map_entry(own_map, i)->file);

		if (e != NULL && !e->dead && (e->fresh || (e->scanned && found)))
			return true;
	}
	return false;
}

/* computes what the view lacks, and publishes it with the view's new state */
static bool
compute_own(Consumer *c, LiveView *lv, SxTail *own, SxStoredPosition *pos)
{
	SxDb	   *db = c->db;
	SxPending  *pending = own->capture->pending;
	List	   *taken = NIL;
	SxReady   **ready;
	int			n = 0;
	SxBatch    *batch;
	SxProcessResult result = SX_PROCESS_OK;
	ErrorData  *error = NULL;
	char	   *blocked_by = NULL;
	TimestampTz now;
	dlist_mutable_iter iter;
	ListCell   *lc;

	dlist_foreach_modify(iter, sx_pending_ready(pending))
	{
		SxReady    *r = dlist_container(SxReady, node, iter.cur);

		if (r->fxid == SX_ALWAYS_XID)
			taken = lcons(r, taken);
		else if (sx_position_contains(pos->position, r->fxid))
			sx_pending_remove(pending, r);
		else if (sx_position_contains(c->position, r->fxid))
			taken = lappend(taken, r);
	}
	ready = palloc(sizeof(SxReady *) * (list_length(taken) + 1));
	foreach(lc, taken)
		ready[n++] = lfirst(lc);
	batch = sx_batch_create(own->capture->map, lv->def->streamid, ready, n, 0);
	sx_ask_times(batch, &lv->time);
	lv->shared->watermark = pos->watermark;
	lv->shared->removed_until = pos->removed_until;
	sx_consumer_begin_prepare(lv, pos->watermark);
	lv->counts.rows = batch->nrows;
	if (batch->nrows > 0)
	{
		sx_consumer_begin_run(lv, batch->nrows);
		result = sx_consumer_compute(lv, batch, c->turn, &error, &blocked_by);
		if (!sx_consumer_end_run(lv, batch->nrows) && result == SX_PROCESS_OK)
			result = SX_PROCESS_SLOW;
	}

	if (result != SX_PROCESS_OK)
	{
		sx_live_discard(lv->writer);
		if (result == SX_PROCESS_FAILED && error->sqlerrcode == ERRCODE_DATA_CORRUPTED)
		{
			/* rows are gone: a builder counts them */
			SpinLockAcquire(&db->mutex);
			lv->shared->exposed = true;
			lv->shared->protected_since = GetCurrentTimestamp();
			SpinLockRelease(&db->mutex);
		}
		if (result == SX_PROCESS_FAILED)
			sx_consumer_fail(c, lv, error->message);
		else if (result == SX_PROCESS_SLOW)
			sx_consumer_slow(c, lv);
		else
			lv->needs_builder = true;
		sx_consumer_detach(c, lv, lv->shared->state);
		return false;
	}

	SX_STOP_POINT_OF(join_computed, lv->def->viewid);
	now = sx_now();
	sx_lock_publish_exclusive(db);
	if (batch->nrows > 0)
		sx_live_publish(lv->writer, c->cycle, &lv->counts);
	lv->shared->watermark = lv->watermark;
	lv->shared->state = SX_VIEW_LIVE;
	lv->shared->seq = pos->seq;
	/* what is live adds to the table as this flush left it: older snapshots read the table alone */
	lv->shared->freed_flush_xid = pos->writer;
	lv->shared->freed_cycle = lv->shared->flushed_cycle = batch->nrows > 0 ? c->cycle - 1 : c->cycle;
	sx_unlock_publish(db);
	if (batch->nrows > 0)
		sx_live_published(lv->writer);
	sx_wake(db, SX_ALERTER);

	SpinLockAcquire(&db->mutex);
	lv->shared->counts = pos->counts;
	sx_counts_add(&lv->shared->counts, &lv->counts);
	lv->shared->failures = 0;
	lv->shared->retry_at = 0;
	lv->shared->slow = false;
	lv->shared->reason[0] = '\0';
	lv->shared->phase[0] = '\0';
	lv->shared->last_seal = now;
	lv->shared->rest_until = 0;
	SpinLockRelease(&db->mutex);
	lv->sealed_lsn = pos->start_lsn;
	lv->sealed_watermark = pos->watermark;
	lv->closed_unsealed = false;
	sx_consumer_note_row(c, lv);
	/* what is stored is not what this capture would store */
	lv->stored_version = pos->open_rows ? PG_UINT64_MAX : 0;

	foreach(lc, taken)
		sx_pending_remove(pending, lfirst(lc));
	ConditionVariableBroadcast(&db->published_cv);
	return true;
}

/*
 * The consumer's capture follows the stream from here on.  Addresses in files that it already
 * follows it has read itself; the others are the joining capture's.
 */
static void
hand_over(Consumer *c, LiveView *lv, SxTail *own)
{
	SxPending  *pending = c->tail->capture->pending;
	SxFileMap  *main_map = c->tail->capture->map;
	SxFileMap  *own_map = own->capture->map;
	uint32		before = sx_file_map_count(main_map);
	uint32		n = sx_file_map_count(own_map);
	uint32	   *map = palloc(sizeof(uint32) * (n + 1));
	bool	   *followed = palloc(sizeof(bool) * (before + 1));
	List	   *live = list_copy(c->tail->streams);

	for (uint32 i = 0; i < before; i++)
		followed[i] = !sx_file_map_entry(main_map, i)->dead;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	sx_tail_set_streams(c->tail, sx_consumer_live_streams(c));
	/* also of the streams already followed, for which a new file must be scanned */
	sx_file_map_refresh(main_map, c->tail->streams, true);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(c->turn);

	for (uint32 i = 0; i < n; i++)
	{
		SxFileEntry *o = sx_file_map_entry(own_map, i);
		SxFileEntry *e;
		bool		known;

		/* replaced, before it was read or since: its rows have to be in the next */
		sx_file_map_add_former(main_map, o->leaf, o->file, !o->passed);
		e = sx_file_map_lookup(main_map, o->file);
		known = e->index < before && followed[e->index];
		if (o->dead)
		{
			for (uint32 j = 0; j < before && !known; j++)
				known = followed[j] && sx_file_map_entry(main_map, j)->leaf == o->leaf;
			if (!known && e->index < before)
				sx_pending_drop_file(pending, e->index, drop_always, NULL);
		}
		map[i] = known ? PG_UINT32_MAX : e->index;
	}
	for (uint32 i = 0; i < sx_file_map_count(main_map); i++)
	{
		SxFileEntry *e = sx_file_map_entry(main_map, i);
		bool		replaced = false;
		bool		scan = sx_file_map_lookup(own_map, e->file) == NULL;

		if (e->dead || (i < before && followed[i]))
			continue;
		/* not followed for a while: what it has of this file is incomplete */
		sx_pending_drop_file(pending, i, drop_always, NULL);

		/* another file of a table that we follow for others: its scan is due, whoever joins */
		for (uint32 j = 0; j < before && !replaced; j++)
			replaced = followed[j] && sx_file_map_entry(main_map, j)->leaf == e->leaf;
		/*
		 * One that appeared while we read: neither capture has seen its first rows.  One that has
		 * replaced another since the view was stored was scanned at the position that we join at; later
		 * rows may have gone to the other.
		 */
		for (uint32 j = 0; j < n; j++)
		{
			SxFileEntry *o = sx_file_map_entry(own_map, j);

			scan |= o->dead && o->leaf == e->leaf;
		}
		if (!replaced && !scan)
		{
			/* attached while we read: who joins has read it, but not those of its streams who were live */
			e->fresh = false;
			sx_file_map_gain(main_map, e, list_difference_oid(e->streams, list_difference_oid(e->streams, live)));
		}
		else
		{
			e->fresh = true;
			for (uint32 j = 0; j < n; j++)
				e->member_before |= sx_file_map_entry(own_map, j)->leaf == e->leaf;
			c->tail->has_fresh = true;
		}
	}
	sx_pending_merge(pending, own->capture->pending, map, c->tail->capture->read_lsn);
	sx_consumer_leave_gained(c, lv, own_map);
}

static bool
drop_always(uint64 fxid, void *arg)
{
	return true;
}
