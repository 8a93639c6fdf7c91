/*
 * consumer_leave.c
 *		Views that cannot follow for a while leave the shared position, so that all others go on.
 *
 * All live views share one position, so what one of them cannot consume holds up everybody.  When
 * a table of its stream is locked for more than a moment, or has a new file that is too large to be
 * scanned between two cycles, a view leaves: it keeps what it has published, which is flushed with
 * the position where it left, while readers go on to see it.  Then its live state goes, and a
 * builder brings it up from there, as soon as the lock is free.
 *
 * Nothing is consumed in the cycle that makes a view leave for a new file: transactions with rows
 * there could not be held back, because it is not known which they are.
 *
 * A crash in between finds the position stored last, as always.
 */
#include "worker/consumer_internal.h"

#include "access/xact.h"
#include "capture/open_rows.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "moment.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* a new file that is locked holds everything up for this long */
#define FRESH_GRACE_MS		5
/* how often a lock is looked at */
#define LOOK_INTERVAL_MS	20

static Oid	locked_relation(Oid streamid);

/* the caller has discarded what this cycle had prepared */
void
sx_consumer_leave(Consumer *c, LiveView *lv, const char *reason)
{
	SxDb	   *db = c->db;
	MemoryContext old;
	LeftAt	   *left;

	Assert(lv->shared->state == SX_VIEW_LIVE && !lv->prepared);
	old = MemoryContextSwitchTo(lv->context);
	left = palloc(sizeof(LeftAt));
	left->position = sx_position_copy(c->position);
	left->start_lsn = sx_consumer_start_lsn(c);
	left->nfiles = sx_consumer_files(c, lv->def->streamid, &left->rels, &left->nodes);
	left->new_open_rows = lv->stored_version != sx_pending_stored_version(c->tail->capture->pending);
	left->open_rows = left->new_open_rows ? sx_open_rows_pack(c->tail->capture, lv->def->streamid) : NULL;
	MemoryContextSwitchTo(old);

	lv->left = left;
	lv->needs_builder = true;
	lv->flush_wanted = false;
	sx_view_set_reason(db, lv->shared, "%s", reason);
	sx_lock_publish_exclusive(db);
	lv->shared->state = SX_VIEW_PAUSING;
	sx_unlock_publish(db);
	sx_tail_set_streams(c->tail, sx_consumer_live_streams(c));
	SX_STOP_POINT_OF(left, lv->def->viewid);
}

void
sx_consumer_end_leave(LiveView *lv)
{
	if (lv->left == NULL)
		return;
	pfree(lv->left->position);
	pfree(lv->left->rels);
	pfree(lv->left->nodes);
	if (lv->left->open_rows)
		pfree(lv->left->open_rows);
	pfree(lv->left);
	lv->left = NULL;
}

/* the cycle could not look at a new file */
void
sx_consumer_leave_blocked(Consumer *c)
{
	SxTail	   *t = c->tail;
	bool		left = false;
	ListCell   *lc;

	if (t->blocked == NIL ||
		!(t->too_large || TimestampDifferenceExceeds(t->blocked_since, sx_now(), FRESH_GRACE_MS)))
		return;
	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->shared->state != SX_VIEW_LIVE || !list_member_oid(t->blocked, lv->def->streamid))
			continue;
		sx_consumer_leave(c, lv, t->too_large ? "reads a large file that has replaced another" :
						  "waits for a lock on a table of the stream");
		left = true;
	}
	c->backlog |= left;
}

/*
 * A file that we follow for one stream has joined another: a partition that is a stream itself was
 * attached.  What it held is new to the views on the other stream only.  Or a partition has come back,
 * of which some views have counted what it held when it left, and others nothing.  So views leave, and
 * a builder reads it for each of them.  `joined`, or NULL, has just joined with `own`, the files it has
 * read itself.
 */
void
sx_consumer_leave_gained(Consumer *c, LiveView *joined, SxFileMap *own)
{
	SxFileMap  *map = c->tail->capture->map;
	List	   *others = NIL;
	bool		lacks = false;
	ListCell   *lc;

	if (!sx_file_map_any_gained(map))
		return;
	for (uint32 i = 0; i < sx_file_map_count(map); i++)
	{
		SxFileEntry *e = sx_file_map_entry(map, i);

		if (e->dead || e->gained == NIL)
			continue;
		others = list_concat_unique_oid(others, e->gained);
		if (joined)
		{
			SxFileEntry *known = sx_file_map_lookup(own, e->file);

			lacks |= (known == NULL || known->dead) && list_member_oid(e->gained, joined->def->streamid);
		}
	}
	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->shared->state != SX_VIEW_LIVE || !list_member_oid(others, lv->def->streamid))
			continue;
		if (lv != joined)
			sx_consumer_leave(c, lv, "reads a partition that was attached");
		else if (lacks)
			sx_consumer_detach(c, lv, SX_VIEW_CATCHUP);
	}
	sx_file_map_clear_gained(map);
}

/* would a builder of this view have to wait for a lock? */
bool
sx_consumer_stream_locked(Consumer *c, LiveView *lv)
{
	TimestampTz now = sx_now();
	Oid			locked;
	char	   *name;

	if (lv->stream_locked && !TimestampDifferenceExceeds(lv->lock_looked_at, now, LOOK_INTERVAL_MS))
		return true;
	lv->lock_looked_at = now;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	locked = locked_relation(lv->def->streamid);
	name = OidIsValid(locked) ? get_rel_name(locked) : NULL;
	if (OidIsValid(locked))
		sx_view_set_reason(c->db, lv->shared, "waits for a lock on table \"%s\"", name ? name : "?");
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(c->turn);

	lv->stream_locked = OidIsValid(locked);
	return lv->stream_locked;
}

/* a member of the stream's tree whose AccessShareLock is not free, or InvalidOid */
static Oid
locked_relation(Oid streamid)
{
	ListCell   *lc;

	if (!ConditionalLockRelationOid(streamid, AccessShareLock))
		return streamid;
	foreach(lc, find_all_inheritors(streamid, NoLock, NULL))
	{
		if (!ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock))
			return lfirst_oid(lc);
	}
	return InvalidOid;
}
