/*
 * live_changes.c
 *		What the alerter reads of a view's live state.
 *
 * For a view with alerts the consumer lists, with each publication, the entries that it changed
 * (live_state.c); the lists hang off the generation and go with it, or when the alerter has read them.
 * Reading them costs what was changed, however much is live.  A generation may be freed before the alerter
 * has read its lists, or there may have been no memory for a list: then it is told so and looks at
 * everything, that is at all entries here, and at the whole table.
 *
 * Locking: as in live_copy.c, rows are copied under the shared publish lock into memory allocated before;
 * when that is too small, the pass goes on counting, and is repeated with enough.  Each call copies a
 * limited number of rows, so that the consumer never waits long for the lock.
 */
#include "live/live_changes.h"
#include "live/live_internal.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#define FIRST_BUFFER	(64 * 1024)
/* buckets looked at under one hold of the lock: most may be empty */
#define MAX_BUCKETS		50000

/* rows lie one after the other: this, then the tuple */
typedef struct RowHead
{
	uint32		size;			/* of both, aligned */
	uint32		hash;
} RowHead;

typedef struct RowBuffer
{
	char	   *data;
	Size		size;
	Size		used;			/* may exceed size: what is needed */
	int			nrows;
	bool		more;			/* the reader stopped before the end */
} RowBuffer;

typedef bool (*Reader) (SxDb *db, dsa_area *area, SxView *v, void *arg, int limit, RowBuffer *buf);

static SxView *tracked_view(SxDb *db, Oid viewid, const SxLiveTrack *track);
static bool is_live(const SxView *v);
static bool read_rows(SxDb *db, Oid viewid, const SxLiveTrack *track, Reader reader, void *arg, int limit,
					  SxLiveRows *rows);
static bool read_changes(SxDb *db, dsa_area *area, SxView *v, void *arg, int limit, RowBuffer *buf);
static bool read_all(SxDb *db, dsa_area *area, SxView *v, void *arg, int limit, RowBuffer *buf);
static void copy_entry(dsa_area *area, dsa_pointer dp, RowBuffer *buf);

static bool
is_live(const SxView *v)
{
	return v->open_gen != 0 && (v->state == SX_VIEW_LIVE || v->state == SX_VIEW_PAUSING);
}

/* under the lock; NULL: the state that is tracked is gone */
static SxView *
tracked_view(SxDb *db, Oid viewid, const SxLiveTrack *track)
{
	SxView	   *v = sx_view_by_id(db, viewid);

	if (v == NULL || !is_live(v) || !v->alerted || db->generation != track->generation ||
		v->incarnation != track->incarnation)
		return NULL;
	return v;
}

bool
sx_live_track(SxDb *db, Oid viewid, SxLiveTrack *track)
{
	SxView	   *v;

	memset(track, 0, sizeof(SxLiveTrack));
	/* a hint; whoever changes the state wakes us */
	v = sx_view_by_id(db, viewid);
	if (v == NULL || !is_live(v))
		return false;
	sx_lock_publish_exclusive(db);
	v = sx_view_by_id(db, viewid);
	if (v != NULL && is_live(v) && db->area != DSM_HANDLE_INVALID)
	{
		track->live = true;
		track->generation = db->generation;
		track->incarnation = v->incarnation;
		track->cycle = pg_atomic_read_u64(&db->cycle_published);
		v->alerted = true;
		v->alerted_cycle = track->cycle;
		v->lost_changes = 0;
	}
	sx_unlock_publish(db);
	return track->live;
}

void
sx_live_untrack(SxDb *db, Oid viewid)
{
	sx_lock_publish_exclusive(db);
	for (int i = 0; i < db->nviews; i++)
		if (!OidIsValid(viewid) || db->views[i].viewid == viewid)
			db->views[i].alerted = false;
	sx_unlock_publish(db);
}

bool
sx_live_is_gone(SxDb *db, Oid viewid, const SxLiveTrack *track)
{
	return tracked_view(db, viewid, track) == NULL;
}

bool
sx_live_has_changed(SxDb *db, Oid viewid, const SxLiveTrack *track)
{
	SxView	   *v = sx_view_by_id(db, viewid);

	if (v == NULL || v->open_gen == 0)
		return true;
	return tracked_view(db, viewid, track) == NULL || v->lost_changes > track->cycle ||
		v->freed_cycle > track->cycle || sx_gen_at(v, v->open_gen)->cycle > track->cycle;
}

typedef struct ChangesArg
{
	SxLiveTrack track;			/* where reading begins, and ends */
	SxLiveTrack reached;
} ChangesArg;

bool
sx_live_changes(SxDb *db, Oid viewid, SxLiveTrack *track, int limit, SxLiveRows *rows)
{
	ChangesArg	arg;

	arg.track = *track;
	if (!read_rows(db, viewid, track, read_changes, &arg, limit, rows))
		return false;
	*track = arg.reached;
	return true;
}

void
sx_live_changes_done(SxDb *db, Oid viewid, const SxLiveTrack *track)
{
	SxView	   *v;

	sx_lock_publish_shared(db);
	/* nobody else writes it while it is ours */
	if ((v = tracked_view(db, viewid, track)) != NULL)
		v->alerted_cycle = track->cycle;
	sx_unlock_publish(db);
}

typedef struct AllArg
{
	SxLiveCursor from;
	SxLiveCursor reached;
} AllArg;

bool
sx_live_all(SxDb *db, Oid viewid, const SxLiveTrack *track, SxLiveCursor *cursor, int limit, SxLiveRows *rows)
{
	AllArg		arg;

	arg.from = *cursor;
	if (!read_rows(db, viewid, track, read_all, &arg, limit, rows))
		return false;
	*cursor = arg.reached;
	return true;
}

/* the reader may be called several times, and sets what it has reached each time */
static bool
read_rows(SxDb *db, Oid viewid, const SxLiveTrack *track, Reader reader, void *arg, int limit, SxLiveRows *rows)
{
	RowBuffer	buf;
	bool		ok = false;

	memset(rows, 0, sizeof(SxLiveRows));
	buf.size = FIRST_BUFFER;
	buf.data = palloc(buf.size);
	for (;;)
	{
		dsa_area   *area = sx_db_area(db);
		SxView	   *v;

		if (area == NULL)
			return false;
		sx_lock_publish_shared(db);
		buf.used = 0;
		buf.nrows = 0;
		buf.more = false;
		v = tracked_view(db, viewid, track);
		ok = v != NULL && reader(db, area, v, arg, limit, &buf);
		rows->more = ok && buf.more;
		sx_unlock_publish(db);
		if (!ok || buf.used <= buf.size)
			break;
		CHECK_FOR_INTERRUPTS();
		pfree(buf.data);
		buf.size = buf.used + buf.used / 4 + FIRST_BUFFER;
		buf.data = MemoryContextAllocHuge(CurrentMemoryContext, buf.size);
	}
	if (!ok)
		return false;

	rows->rows = palloc(sizeof(MinimalTuple) * Max(buf.nrows, 1));
	rows->hashes = palloc(sizeof(uint32) * Max(buf.nrows, 1));
	for (Size at = 0; at < buf.used;)
	{
		RowHead    *h = (RowHead *) (buf.data + at);

		rows->rows[rows->nrows] = (MinimalTuple) ((char *) h + MAXALIGN(sizeof(RowHead)));
		rows->hashes[rows->nrows++] = h->hash;
		at += h->size;
	}
	return true;
}

/* under the lock */
static bool
read_changes(SxDb *db, dsa_area *area, SxView *v, void *arg, int limit, RowBuffer *buf)
{
	ChangesArg *a = arg;
	SxLiveTrack *t = &a->reached;

	*t = a->track;
	if (v->lost_changes > t->cycle || v->freed_cycle > t->cycle)
		return false;
	for (uint64 no = v->first_gen; no <= v->open_gen; no++)
	{
		SxChanges  *changes;

		for (dsa_pointer p = sx_gen_at(v, no)->changes; DsaPointerIsValid(p); p = changes->next)
		{
			uint32		i;

			changes = dsa_get_address(area, p);
			if (changes->cycle <= t->cycle)
				continue;
			i = changes->cycle == t->part_cycle ? t->part : 0;
			for (; i < changes->n && buf->nrows < limit; i++)
				copy_entry(area, changes->entry[i], buf);
			if (i < changes->n)
			{
				t->part_cycle = changes->cycle;
				t->part = i;
				buf->more = true;
				return true;
			}
			t->cycle = changes->cycle;
		}
	}
	/* there was nothing in the cycles since */
	t->cycle = Max(t->cycle, pg_atomic_read_u64(&db->cycle_published));
	return true;
}

/* under the lock */
static bool
read_all(SxDb *db, dsa_area *area, SxView *v, void *arg, int limit, RowBuffer *buf)
{
	AllArg	   *a = arg;
	SxLiveCursor *c = &a->reached;
	int			looked = 0;

	*c = a->from;
	if (c->gen < v->first_gen)
	{
		/* those that were freed are in the table */
		c->gen = v->first_gen;
		c->nbuckets = 0;
	}
	for (; c->gen <= v->open_gen; c->gen++, c->nbuckets = 0)
	{
		SxBuckets  *buckets = dsa_get_address(area, sx_gen_at(v, c->gen)->buckets);

		/* it has grown: the entries lie elsewhere */
		if (c->nbuckets != buckets->nbuckets)
		{
			c->nbuckets = buckets->nbuckets;
			c->bucket = 0;
		}
		for (; c->bucket < buckets->nbuckets; c->bucket++)
		{
			SxLiveEntry *entry;

			if (buf->nrows >= limit || ++looked > MAX_BUCKETS)
			{
				buf->more = true;
				return true;
			}
			for (dsa_pointer p = buckets->bucket[c->bucket]; DsaPointerIsValid(p); p = entry->next[buckets->chain])
			{
				entry = dsa_get_address(area, p);
				copy_entry(area, p, buf);
			}
		}
	}
	return true;
}

static void
copy_entry(dsa_area *area, dsa_pointer dp, RowBuffer *buf)
{
	SxLiveEntry *entry = dsa_get_address(area, dp);
	MinimalTuple tuple;
	Size		head = MAXALIGN(sizeof(RowHead));
	Size		size;

	if (!DsaPointerIsValid(entry->row))
		return;
	tuple = dsa_get_address(area, entry->row);
	size = head + MAXALIGN(tuple->t_len);
	if (buf->used + size <= buf->size)
	{
		RowHead    *h = (RowHead *) (buf->data + buf->used);

		h->size = size;
		h->hash = entry->hash;
		memcpy((char *) h + head, tuple, tuple->t_len);
	}
	buf->used += size;
	buf->nrows++;
}
