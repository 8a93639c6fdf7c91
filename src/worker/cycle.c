/*
 * cycle.c
 *		The first half of a cycle: take a snapshot, read WAL up to a point behind it, look
 *		at files that are new.
 *
 * The order matters (see src/README.md):
 *	 S	the snapshot: what it sees as finished has its commit record below L;
 *	 L	the end of WAL, written: see written_end();
 *	 invalidations: a writer can only use a new file after the command that made it has sent
 *		them, so the map is complete for every record below L, except for the rows of that
 *		command's own transaction;
 *	 those are found by scanning the new file once, at the next S.  The scan replaces the
 *		addresses in that file for every transaction that S sees.
 */
#include "worker/cycle.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/subtrans.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/definitions.h"
#include "catalog/file_marks.h"
#include "moment.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "testing/stop_points.h"

/* how often WAL is flushed only to see what a large open transaction has written */
#define FLUSH_INTERVAL_MS	20
/* after a flush of WAL that we caused, none for this many times as long as it took */
#define FLUSH_REST			9
/* rows that nobody had flushed make us flush for this long; otherwise the WAL writer does */
#define ASYNC_MS			1000
/* how often to look whether it has */
#define LOOK_MS				20
/* more ready transactions (some 150 bytes each) are not read before these are consumed; tests get there soon */
#ifdef SX_TESTING
#define MAX_READY			5000
#else
#define MAX_READY			200000
#endif

/* the tails of this process, told by the invalidation callback */
static SxTail *tails = NULL;
static bool callback_registered = false;

typedef struct Found
{
	uint64		fxid;
	TransactionId xid;
	BlockNumber block;
	OffsetNumber off;
	uint32		file;
} Found;

/* rows that a scan has found, less those that the WAL says, of one (sub-)transaction */
typedef struct Difference
{
	TransactionId xid;
	int64		rows;
} Difference;

struct SxFound
{
	MemoryContext context;
	uint32		file;			/* being scanned */
	const SxPosition *position;
	SxPosition *counted;		/* what this file held when it was detached */
	uint64		n;
	uint64		max;
	Found	   *rows;
	List	   *files;			/* of ScannedFile * */
};

typedef struct ScannedFile
{
	SxFileEntry *entry;
	bool		announced;		/* it is known how the table came from the file it had to this one */
} ScannedFile;

static XLogRecPtr written_end(void);
static XLogRecPtr write_pages(SxTail *t, XLogRecPtr upto);
static bool may_flush(SxTail *t);
static XLogRecPtr flush_to(SxTail *t, XLogRecPtr upto);
static SxPosition *reached(SxTail *t, SxPosition *s, const SxPosition *position);
static void note_async(SxTail *t);
static int	compare_xids(const void *a, const void *b);
static void relcache_changed(Datum arg, Oid relid);
static void check_changed(SxTail *t, const SxPosition *snapshot);
static bool has_changed(SxTail *t, const SxPosition *snapshot);
static bool may_scan(SxTail *t, SxFileEntry *e);
static void note_blocked(SxTail *t, SxFileEntry *e, bool too_large);
static void add_found(void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off);
static void resolve_subtransactions(SxPending *pending, SxFound *found);
static int	compare_subs(const void *a, const void *b);
static bool contained(uint64 fxid, void *arg);
static void check_replaced(SxTail *t, SxFound *found, ScannedFile *f, const SxPosition *upto);
static int	compare_difference(const void *a, const void *b);
static bool is_announced(SxFileMap *map, SxFileEntry *e);
static void add_former_files(SxTail *t, SxFileEntry *e, Oid stored, const SxPosition *position);
static int	compare_found(const void *a, const void *b);

SxTail *
sx_tail_create(MemoryContext parent, XLogRecPtr start)
{
	SxTail	   *t = MemoryContextAllocZero(parent, sizeof(SxTail));

	t->capture = sx_capture_create(parent, start);
	t->stale = false;
	t->next = tails;
	tails = t;
	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(relcache_changed, (Datum) 0);
		callback_registered = true;
	}
	return t;
}

void
sx_tail_destroy(SxTail *t)
{
	for (SxTail **p = &tails; *p; p = &(*p)->next)
	{
		if (*p == t)
		{
			*p = t->next;
			break;
		}
	}
	sx_capture_destroy(t->capture);
	list_free(t->streams);
	list_free(t->blocked);
	if (t->last)
		pfree(t->last);
	if (t->seen)
		pfree(t->seen);
	pfree(t);
}

static void
relcache_changed(Datum arg, Oid relid)
{
	for (SxTail *t = tails; t; t = t->next)
		if (!OidIsValid(relid) || sx_file_map_concerns(t->capture->map, relid))
			t->stale = true;
}

void
sx_tail_set_streams(SxTail *t, List *streams)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(t));

	list_free(t->streams);
	t->streams = list_copy(streams);
	t->stale = true;
	MemoryContextSwitchTo(old);
}

/*
 * Reads what is new.  Sets *snapshot to S (in `turn`), or, where not all commits that S sees could
 * be read, to the part of it that could: see reached().  Returns false if a new file is still to
 * be scanned, at the next S or when its relation is no longer locked: nothing may be consumed
 * before that.
 */
bool
sx_tail_cycle(SxTail *t, const SxPosition *position, MemoryContext turn, SxPosition **snapshot)
{
	Snapshot	s;
	XLogRecPtr	upto;
	SxFound    *found;
	bool		complete;
	uint64		completion;
	SxPosition *s_seen;

	StartTransactionCommand();
	s = GetTransactionSnapshot();
	completion = s->snapXactCompletionCount;
	MemoryContextSwitchTo(turn);
	*snapshot = sx_position_from_snapshot(s);
	PushActiveSnapshot(s);
	SX_STOP_POINT(capture_snapshot);

	/* without a transaction that ended since the last S nothing can have been committed */
	if (!t->started || completion != t->last_completion)
		t->need = sx_wal_end();
	upto = written_end();
	if ((upto < t->need || t->flush_wal) && may_flush(t))
		upto = flush_to(t, sx_wal_end());
	else
		upto = write_pages(t, upto);
	t->written = upto;
	t->last_completion = completion;
	t->started = true;
	SX_STOP_POINT(capture_flushed);

	if (t->capture->changed != NIL)
		check_changed(t, *snapshot);
	AcceptInvalidationMessages();
	found = sx_tail_scan_fresh(t, position, GetActiveSnapshot(), *snapshot, turn, &complete);
	if (t->stale)
	{
		t->stale = false;
		if (sx_file_map_refresh(t->capture->map, t->streams, true))
			t->has_fresh = true;
		for (uint32 i = 0; i < sx_file_map_count(t->capture->map); i++)
		{
			SxFileEntry *e = sx_file_map_entry(t->capture->map, i);

			if (!e->fresh || e->dead || !e->member_before)
				continue;
			/* gone and come back between two looks: it is new, like any attached table */
			if (sx_tail_attached_since(e->leaf, e->streams, position))
				e->member_before = false;
			else
				add_former_files(t, e, InvalidOid, position);
		}
	}
	SX_STOP_POINT(capture_mapped);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(turn);

	/* a scan at S stands for all that S sees, so S must be reached */
	if (found != NULL && upto < t->need)
		upto = flush_to(t, t->need);
	t->capture->near_xid = (*snapshot)->xmax;
	t->more = sx_capture_read(t->capture, upto, found != NULL || t->has_fresh ? 0 : MAX_READY);
	t->behind = upto < t->need;
	SX_STOP_POINT(capture_read);
	s_seen = *snapshot;
	*snapshot = reached(t, s_seen, position);
	sx_tail_apply_found(t, found, *snapshot);
	sx_pending_drop_below(t->capture->pending, (*snapshot)->xmin);

	/* addresses in a file that was replaced wait for the scan of its successor, at the next S */
	return complete && !t->has_fresh && !has_changed(t, s_seen);
}

/*
 * What has been written is read, though a crash may take away what is not on disk yet: asynchronous commits, which everybody sees
 * as well.  Then shared memory is gone, too; and where a position is stored its commit has brought all before it to disk.
 */
static XLogRecPtr
written_end(void)
{
	return RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : GetXLogWriteRecPtr();
}

/*
 * Full pages, where nobody has written since we last looked, without flushing.  Otherwise what we know of other tables'
 * transactions would be as old as the WAL writer's pauses, and the horizon with it: versions of rows that are updated over and
 * over could not be pruned.
 */
static XLogRecPtr
write_pages(SxTail *t, XLogRecPtr upto)
{
	if (upto != t->written || t->need < upto + XLOG_BLCKSZ || RecoveryInProgress())
		return upto;
	(void) XLogBackgroundFlush();
	return written_end();
}

/*
 * WAL is flushed by those who commit, or soon by the WAL writer.  We do it where rows of ours wait for
 * that: not for traffic that does not concern us, and for at most a tenth of the time.
 */
static bool
may_flush(SxTail *t)
{
	TimestampTz now;

	if (!t->started)
		return true;
	now = sx_now();
	if (now - t->last_flush < t->flush_us * FLUSH_REST)
		return false;
	if (t->async_at != 0 && now - t->async_at < ASYNC_MS * 1000)
		return true;
	return t->flush_wal && now - t->last_flush >= FLUSH_INTERVAL_MS * 1000;
}

static XLogRecPtr
flush_to(SxTail *t, XLogRecPtr upto)
{
	TimestampTz started = sx_now();

	if (!RecoveryInProgress())
		XLogFlush(upto);
	t->last_flush = sx_now();
	t->flush_us = t->last_flush - started;
	return upto;
}

/*
 * After WAL was read: S, if that was up to its end.  Otherwise only those transactions count as
 * finished whose end was read, and which S sees: what was returned before and they.  Ends that
 * were read before that, or that no record tells (a crash), are found by an earlier S, as soon
 * as all that it sees has been read.
 */
static SxPosition *
reached(SxTail *t, SxPosition *s, const SxPosition *position)
{
	SxCapture  *c = t->capture;
	SxPosition *result = s;
	MemoryContext old;
	int			kept = 0;

	note_async(t);
	if (c->nfinished > 1)
		qsort(c->finished, c->nfinished, sizeof(uint64), compare_xids);
	if (t->seen && (!(t->behind || t->more) || c->read_lsn >= t->seen_need))
	{
		if (t->behind || t->more)
			result = sx_position_union(t->last, t->seen);
		pfree(t->seen);
		t->seen = NULL;
	}
	if (t->behind || t->more)
		result = sx_position_advance(result != s ? result : (t->last ? t->last : position),
									 c->finished, c->nfinished, s);

	for (int i = 0; i < c->nfinished; i++)
	{
		if (!sx_position_contains(result, c->finished[i]))
			c->finished[kept++] = c->finished[i];
	}
	c->nfinished = kept;

	old = MemoryContextSwitchTo(GetMemoryChunkContext(t));
	if (t->last)
		pfree(t->last);
	t->last = sx_position_copy(result);
	if (t->seen == NULL && (t->behind || t->more))
	{
		t->seen = sx_position_copy(s);
		t->seen_need = t->need;
		t->seen_upto = c->read_lsn;
	}
	MemoryContextSwitchTo(old);
	return result;
}

/* did rows come whose transaction was visible before its commit was flushed? */
static void
note_async(SxTail *t)
{
	dlist_head *ready = sx_pending_ready(t->capture->pending);
	dlist_node *node;

	if (t->seen == NULL || dlist_is_empty(ready))
		return;
	/* the newest come last */
	for (node = dlist_tail_node(ready);; node = node->prev)
	{
		SxReady    *r = dlist_container(SxReady, node, node);

		if (r->commit_lsn < t->seen_upto)
			return;
		if (sx_position_contains(t->seen, r->fxid))
		{
			t->async_at = sx_now();
			return;
		}
		if (!dlist_has_prev(ready, node))
			return;
	}
}

/* milliseconds until a look at WAL may find more; -1: nobody needs to look */
long
sx_tail_next_look_ms(SxTail *t)
{
	TimestampTz now;

	if (!t->behind)
		return -1;
	now = sx_now();
	if (t->async_at == 0 || now - t->async_at >= ASYNC_MS * 1000)
		return LOOK_MS;
	return Max(1, (t->last_flush + t->flush_us * FLUSH_REST - now) / 1000);
}

static int
compare_xids(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : (x > y ? 1 : 0);
}

SxPosition *
sx_tail_position(const SxPosition *snapshot, SxReady **held, int nheld)
{
	uint64	   *xids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * ((Size) nheld + 1));
	uint64	   *subxids = NULL;
	int			nsubxids = 0;
	int			maxsubxids = 0;
	SxPosition *position;

	for (int i = 0; i < nheld; i++)
	{
		TransactionId last = (TransactionId) held[i]->fxid;

		xids[i] = held[i]->fxid;
		for (uint32 j = 0; held[i]->subs && j < held[i]->nruns; j++)
		{
			TransactionId xid = held[i]->runs[j].xid;

			if (xid == last || xid == (TransactionId) held[i]->fxid)
				continue;
			last = xid;
			if (nsubxids == maxsubxids)
			{
				maxsubxids = Max(maxsubxids * 2, 64);
				subxids = subxids ? repalloc_huge(subxids, sizeof(uint64) * maxsubxids) :
					palloc(sizeof(uint64) * maxsubxids);
			}
			subxids[nsubxids++] = sx_widen_xid_near(held[i]->fxid, xid);
		}
	}
	position = sx_position_without_subs(snapshot, xids, nheld, subxids, nsubxids);
	pfree(xids);
	if (subxids)
		pfree(subxids);
	return position;
}

/*
 * Commits that we have read changed our relations.  A transaction leaves the list of running
 * ones before it sends its invalidations, and lets go of its id's lock only after that: when
 * that lock is free, the messages are there to be accepted.  Until S sees it nobody can have
 * used what it changed.
 */
static void
check_changed(SxTail *t, const SxPosition *snapshot)
{
	ListCell   *lc;

	foreach(lc, t->capture->changed)
	{
		TransactionId xid = (TransactionId) lfirst_oid(lc);
		LOCKTAG		tag;

		if (!sx_position_contains(snapshot, sx_widen_xid(xid)))
			continue;
		SET_LOCKTAG_TRANSACTION(tag, xid);
		if (LockAcquire(&tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
			continue;
		LockRelease(&tag, ShareLock, false);
		t->capture->changed = foreach_delete_current(t->capture->changed, lc);
		t->stale = true;
	}
}

/* may the map lack what a transaction did that S sees? */
static bool
has_changed(SxTail *t, const SxPosition *snapshot)
{
	ListCell   *lc;

	foreach(lc, t->capture->changed)
		if (sx_position_contains(snapshot, sx_widen_xid((TransactionId) lfirst_oid(lc))))
			return true;
	return false;
}

/*
 * Scans the files marked fresh, in the caller's transaction.  *complete is false if one could
 * not be locked, or not be scanned up to this snapshot (the same as upto_position); it stays fresh.
 */
SxFound *
sx_tail_scan_fresh(SxTail *t, const SxPosition *position, Snapshot upto, const SxPosition *upto_position,
				   MemoryContext mcxt, bool *complete)
{
	SxFileMap  *map = t->capture->map;
	SxFound    *found = NULL;

	*complete = true;
	list_free(t->blocked);
	t->blocked = NIL;
	t->too_large = false;
	if (!t->has_fresh)
	{
		t->blocked_since = 0;
		return NULL;
	}

	t->has_fresh = false;
	found = MemoryContextAllocZero(mcxt, sizeof(SxFound));
	found->context = mcxt;
	found->position = position;
	for (uint32 i = 0; i < sx_file_map_count(map); i++)
	{
		SxFileEntry *e = sx_file_map_entry(map, i);
		SxPosition *attached = NULL;
		ScannedFile *scanned;
		MemoryContext old;

		if (!e->fresh || e->dead)
			continue;
		if (!may_scan(t, e))
		{
			*complete = false;
			t->has_fresh = true;
			continue;
		}
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(e->leaf)))
			continue;			/* dropped: the next refresh marks it dead */

		found->file = i;
		found->counted = NULL;
		if (!e->member_before)
		{
			SxPosition *detached;

			/*
			 * A partition that comes back: views that had it count what is new, others all.  That is
			 * for a tail that knows which: the views leave (consumer_leave.c).
			 */
			sx_tail_marks(e->leaf, e->streams, &attached, &detached);
			if (detached != NULL && t->built_by == 0)
			{
				e->fresh = false;
				sx_file_map_gain(map, e, e->streams);
				continue;
			}
			if (detached != NULL && sx_position_contains(detached, t->built_by))
				found->counted = detached;
			/* attached by a transaction that is not part of this */
			if (attached && !sx_position_covers(upto_position, attached))
			{
				*complete = false;
				t->has_fresh = true;
				continue;
			}
		}
		/* of an attached one: what the mark sees, and inserts that it does not contain */
		sx_file_scan(e->leaf, upto, e->member_before ? position : attached,
					 attached ? sx_position_to_snapshot(attached) : NULL, add_found, found);
		old = MemoryContextSwitchTo(mcxt);
		scanned = palloc(sizeof(ScannedFile));
		scanned->entry = e;
		scanned->announced = !e->member_before || is_announced(map, e);
		found->files = lappend(found->files, scanned);
		MemoryContextSwitchTo(old);
	}
	if (t->blocked == NIL)
		t->blocked_since = 0;
	return found;
}

/*
 * What the leaf held when it was attached to one of these streams, and when it was detached from one: the
 * latest of each; NULL: it never was.
 */
void
sx_tail_marks(Oid leaf, List *streams, SxPosition **attached, SxPosition **detached)
{
	ListCell   *lc;

	*attached = *detached = NULL;
	foreach(lc, sx_catalog_marks(leaf))
	{
		SxAttachMark *mark = lfirst(lc);
		SxPosition **latest = mark->attached ? attached : detached;

		if (list_member_oid(streams, mark->stream) &&
			(*latest == NULL || (*latest)->xmax <= mark->snapshot->xmax))
			*latest = mark->snapshot;
	}
}

/*
 * Locks the file's relation, without waiting.  False: not now, or not here.  Gone or replaced again,
 * it is the next refresh that knows.
 */
static bool
may_scan(SxTail *t, SxFileEntry *e)
{
	Relation	rel;
	bool		ok = true;

	if (!ConditionalLockRelationOid(e->leaf, AccessShareLock))
	{
		note_blocked(t, e, false);
		return false;
	}
	rel = try_relation_open(e->leaf, NoLock);
	if (rel == NULL)
		return true;
	if (!SxFileEquals(SxRelationFile(rel), e->file))
	{
		t->stale = true;
		ok = false;
	}
	else if (t->scan_limit > 0 && RelationGetNumberOfBlocks(rel) > t->scan_limit)
	{
		note_blocked(t, e, true);
		ok = false;
	}
	relation_close(rel, NoLock);
	return ok;
}

static void
note_blocked(SxTail *t, SxFileEntry *e, bool too_large)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(t));

	t->blocked = list_concat_unique_oid(t->blocked, e->streams);
	t->too_large |= too_large;
	if (t->blocked_since == 0)
		t->blocked_since = sx_now();
	MemoryContextSwitchTo(old);
}

static void
add_found(void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off)
{
	SxFound    *f = arg;
	Found	   *row;

	if (f->counted && sx_position_contains(f->counted, fxid))
		return;
	if (f->n == f->max)
	{
		f->max = f->max ? f->max * 2 : 1024;
		f->rows = f->rows ? repalloc_huge(f->rows, sizeof(Found) * f->max) :
			MemoryContextAllocHuge(f->context, sizeof(Found) * f->max);
	}
	row = &f->rows[f->n++];
	/* rows of an attached partition may be old: they count as inserted now, see cycle.h */
	row->fxid = sx_position_contains(f->position, fxid) ? SX_ALWAYS_XID : fxid;
	row->xid = xid;
	row->block = block;
	row->off = off;
	row->file = f->file;
}

typedef struct SubTransaction
{
	TransactionId xid;
	uint64		fxid;			/* its top-level transaction */
} SubTransaction;

/*
 * The scan does not know the parents of old sub-transactions (see file_scan.c), whose rows it
 * reports under their own ids.  Commit records have told us.
 */
static void
resolve_subtransactions(SxPending *pending, SxFound *found)
{
	SubTransaction *subs = NULL;
	int			n = 0;
	int			max = 0;
	dlist_iter	iter;

	dlist_foreach(iter, sx_pending_ready(pending))
	{
		SxReady    *r = dlist_container(SxReady, node, iter.cur);

		if (r->fxid == SX_ALWAYS_XID)
			continue;
		for (uint32 i = 0; i < r->nruns; i++)
		{
			TransactionId xid = r->runs[i].xid;

			if (xid == (TransactionId) r->fxid || (n > 0 && subs[n - 1].xid == xid))
				continue;
			if (n == max)
			{
				max = max ? max * 2 : 64;
				subs = subs ? repalloc_huge(subs, sizeof(SubTransaction) * max) : palloc(sizeof(SubTransaction) * max);
			}
			subs[n].xid = xid;
			subs[n++].fxid = r->fxid;
		}
	}
	if (n == 0)
		return;
	qsort(subs, n, sizeof(SubTransaction), compare_subs);
	for (uint64 i = 0; i < found->n; i++)
	{
		Found	   *row = &found->rows[i];
		SubTransaction key = {.xid = row->xid};
		SubTransaction *sub;

		if (row->fxid == SX_ALWAYS_XID || row->xid != (TransactionId) row->fxid)
			continue;
		sub = bsearch(&key, subs, n, sizeof(SubTransaction), compare_subs);
		if (sub != NULL)
			row->fxid = sub->fxid;
	}
	pfree(subs);
}

static int
compare_subs(const void *a, const void *b)
{
	TransactionId xa = ((const SubTransaction *) a)->xid;
	TransactionId xb = ((const SubTransaction *) b)->xid;

	return xa < xb ? -1 : xa > xb ? 1 : 0;
}

static bool
contained(uint64 fxid, void *arg)
{
	return sx_position_contains(arg, fxid);
}

static int
compare_found(const void *a, const void *b)
{
	const Found *fa = a;
	const Found *fb = b;

	if (fa->fxid != fb->fxid)
		return fa->fxid < fb->fxid ? -1 : 1;
	if (fa->file != fb->file)
		return fa->file < fb->file ? -1 : 1;
	if (fa->block != fb->block)
		return fa->block < fb->block ? -1 : 1;
	return (int) fa->off - (int) fb->off;
}

/* after WAL was read: found rows replace addresses, for every transaction in `upto` */
void
sx_tail_apply_found(SxTail *t, SxFound *found, const SxPosition *upto)
{
	SxPending  *pending = t->capture->pending;
	SxReady    *ready = NULL;
	SxReady    *always = NULL;
	ListCell   *lc;

	if (found == NULL)
		return;
	if (found->n > 0)
	{
		resolve_subtransactions(pending, found);
		qsort(found->rows, found->n, sizeof(Found), compare_found);
	}
	foreach(lc, found->files)
	{
		ScannedFile *f = lfirst(lc);
		SxFileMap  *map = t->capture->map;

		if (!f->announced && t->follows)
			check_replaced(t, found, f, upto);

		/* what the scan found stands for the addresses in this file and in those before it */
		for (uint32 i = 0; i < sx_file_map_count(map); i++)
		{
			SxFileEntry *e = sx_file_map_entry(map, i);

			if (e == f->entry || (e->dead && e->leaf == f->entry->leaf))
				sx_pending_drop_file(pending, i, contained, unconstify(SxPosition *, upto));
		}
		f->entry->fresh = false;
		f->entry->scanned = true;
	}
	for (uint64 i = 0; i < found->n; i++)
	{
		Found	   *row = &found->rows[i];

		if (ready == NULL || ready->fxid != row->fxid)
			ready = sx_pending_new_ready(pending, row->fxid, t->capture->read_lsn);
		sx_pending_ready_add_run(pending, ready, row->file, row->block, row->off, row->xid);
		if (row->fxid == SX_ALWAYS_XID)
			always = ready;
	}
	/* in front, where the consumer looks for it */
	if (always)
		dlist_move_head(sx_pending_ready(pending), &always->node);
}

/*
 * Commands that we know of keep the rows with their transactions (VACUUM FULL), or have waited
 * until all were consumed (TRUNCATE, rewrites).  Of any other, the new file must hold just the rows
 * whose addresses we have, by each transaction.  Otherwise what the stream contains cannot be known.
 */
static void
check_replaced(SxTail *t, SxFound *found, ScannedFile *f, const SxPosition *upto)
{
	SxFileMap  *map = t->capture->map;
	SxFileEntry *e = f->entry;
	Difference *d;
	uint64		n = 0;
	uint64		max = found->n;
	bool		broken = false;
	dlist_iter	iter;

	dlist_foreach(iter, sx_pending_ready(t->capture->pending))
		max += dlist_container(SxReady, node, iter.cur)->nruns;
	d = MemoryContextAllocHuge(found->context, sizeof(Difference) * (max + 1));

	/* by raw ids: a scan may not be able to tell whose sub-transaction an old one was */
	for (uint64 i = 0; i < found->n; i++)
	{
		if (found->rows[i].file != e->index)
			continue;
		d[n].xid = found->rows[i].xid;
		d[n++].rows = 1;
	}
	dlist_foreach(iter, sx_pending_ready(t->capture->pending))
	{
		SxReady    *r = dlist_container(SxReady, node, iter.cur);

		if (r->fxid == SX_ALWAYS_XID || sx_position_contains(found->position, r->fxid) ||
			!sx_position_contains(upto, r->fxid))
			continue;
		for (uint32 i = 0; i < r->nruns; i++)
		{
			SxFileEntry *of = sx_file_map_entry(map, SxRunFile(&r->runs[i]));

			if (of != e && !(of->dead && of->leaf == e->leaf))
				continue;
			d[n].xid = r->runs[i].xid;
			d[n++].rows = -(int64) r->runs[i].count;
		}
	}
	qsort(d, n, sizeof(Difference), compare_difference);
	for (uint64 i = 0; i < n && !broken;)
	{
		TransactionId xid = d[i].xid;
		int64		rows = 0;

		for (; i < n && d[i].xid == xid; i++)
			rows += d[i].rows;
		broken = rows != 0;
	}
	pfree(d);
	if (broken)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(t));

		t->broken = list_concat_unique_oid(t->broken, e->streams);
		MemoryContextSwitchTo(old);
	}
}

static int
compare_difference(const void *a, const void *b)
{
	TransactionId x = ((const Difference *) a)->xid;
	TransactionId y = ((const Difference *) b)->xid;

	return x < y ? -1 : (x > y ? 1 : 0);
}

/* marks lead, from one file to the next, from one that the table is known to have had to this */
static bool
is_announced(SxFileMap *map, SxFileEntry *e)
{
	List	   *marks = sx_catalog_file_marks(e->leaf);
	SxFile		file = e->file;

	for (int step = 0; step < list_length(marks); step++)
	{
		SxFileMark *found = NULL;
		ListCell   *lc;

		foreach(lc, marks)
		{
			SxFileMark *mark = lfirst(lc);

			if (SxFileEquals(mark->file, file))
				found = mark;
		}
		if (found == NULL)
			return false;
		file = found->old_file;
		for (uint32 i = 0; i < sx_file_map_count(map); i++)
		{
			SxFileEntry *before = sx_file_map_entry(map, i);

			if (before->leaf == e->leaf && before != e && !before->passed && SxFileEquals(before->file, file))
				return true;
		}
	}
	return false;
}

/*
 * Rows may have gone to the file that was known last (its number, if the map does not have it), and
 * to others that stood between that and this: their addresses in the WAL belong to this table.
 */
static void
add_former_files(SxTail *t, SxFileEntry *e, Oid stored, const SxPosition *position)
{
	bool		found = !OidIsValid(stored);
	ListCell   *lc;

	foreach(lc, sx_catalog_file_marks(e->leaf))
	{
		SxFileMark *mark = lfirst(lc);

		if (SxFileNumber(mark->old_file) == stored)
			found = true;
		else if (sx_position_contains(position, mark->xid))
			continue;
		sx_file_map_add_former(t->capture->map, e->leaf, mark->old_file,
							   SxFileNumber(mark->old_file) == stored);
		sx_file_map_add_former(t->capture->map, e->leaf, mark->file, false);
	}
	if (!found)
	{
		SxFile		file = e->file;

		SxFileNumber(file) = stored;
		sx_file_map_add_former(t->capture->map, e->leaf, file, true);
	}
}

/*
 * For a capture that starts at a stored position: what is not in the files stored with it is to be
 * scanned.  In a transaction; the map is refreshed.
 */
void
sx_tail_compare(SxTail *t, const SxStoredPosition *pos)
{
	SxFileMap  *map = t->capture->map;
	uint32		count = sx_file_map_count(map);

	t->has_fresh = sx_file_map_compare(map, pos->nfiles, pos->file_rels, pos->file_nodes);
	t->follows = true;
	t->built_by = pos->built_by;
	for (uint32 i = 0; i < count; i++)
	{
		SxFileEntry *e = sx_file_map_entry(map, i);
		Oid			stored = InvalidOid;

		if (!e->fresh || e->dead || !e->member_before)
			continue;
		for (int j = 0; j < pos->nfiles; j++)
			if (pos->file_rels[j] == e->leaf)
				stored = pos->file_nodes[j];
		/* gone and come back: it is new, like any attached table */
		if (sx_tail_attached_since(e->leaf, e->streams, pos->position))
			e->member_before = false;
		else
			add_former_files(t, e, stored, pos->position);
	}
}

/* By the transaction, not by what it saw: of that the position may hold something back */
bool
sx_tail_attached_since(Oid leaf, List *streams, const SxPosition *position)
{
	ListCell   *lc;

	foreach(lc, sx_catalog_marks(leaf))
	{
		SxAttachMark *mark = lfirst(lc);
		TransactionId xid = mark->xid;

		if (!mark->attached || !list_member_oid(streams, mark->stream) || !TransactionIdIsNormal(xid))
			continue;
		if (TransactionIdFollowsOrEquals(xid, TransactionXmin))
			xid = SubTransGetTopmostTransaction(xid);
		if (!sx_position_contains(position, sx_widen_xid(xid)))
			return true;
	}
	return false;
}
