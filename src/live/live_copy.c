/*
 * live_copy.c
 *		The readers' side of the live state: one copy for all views of a statement.
 *
 * Under one hold of the shared publish lock, so that all views of a statement are seen at
 * one cycle, rows are copied into memory allocated before; when that is too small, the pass
 * goes on counting, and is repeated with enough.  Nothing is allocated, compared or looked up
 * under the lock: readers filter by the entries' hashes.  (Mapping a new segment of the area
 * is the exception, once per process and segment, and safe: an error releases the lock.)
 *
 * Which generations to add follows from their flushes: one whose flush the statement's
 * snapshot sees is in the table already.  That needs the commit log, so it is decided after
 * the lock is released, on what was noted; generations that are certainly seen are left
 * out at once.
 */
#include "live/live_internal.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* what is copied of some groups, and of all of a view, mostly fits */
#define FEW_BUFFER		(2 * 1024)
#define FIRST_BUFFER	(16 * 1024)

/* rows lie one after the other: this, then the tuple */
typedef struct RowHead
{
	uint32		size;			/* of both, aligned */
	uint32		hash;
	uint32		keyhash[FLEXIBLE_ARRAY_MEMBER];
} RowHead;

typedef struct GenNote
{
	TransactionId flush_xid;
	uint64		cycle;
	bool		has_rows;		/* in all, whatever the filter */
	bool		skipped;		/* certainly seen: not copied */
	Size		start;			/* in the buffer */
	Size		end;
} GenNote;

/* what was noted of one view under the lock */
typedef struct ViewNote
{
	bool		live;
	TransactionId freed_flush_xid;
	uint64		freed_cycle;
	uint64		flushed_cycle;
	int			ngens;
	GenNote		gens[SX_MAX_GENERATIONS];
} ViewNote;

typedef struct CopyBuffer
{
	char	   *data;
	Size		size;
	Size		used;			/* may exceed size: what is needed */
} CopyBuffer;

static void copy_view(SxDb *db, dsa_area *area, Snapshot snapshot, SxLiveRequest *r, ViewNote *note,
					  CopyBuffer *buf);
static void copy_generation(dsa_area *area, SxGeneration *gen, SxLiveRequest *r, bool one_bucket,
							uint32 hash, CopyBuffer *buf);
static void copy_entry(dsa_area *area, SxLiveEntry *entry, SxLiveRequest *r, CopyBuffer *buf);
static bool certainly_seen(SxGeneration *gen, Snapshot snapshot);
static bool sees(Snapshot snapshot, TransactionId xid);
static void resolve(SxLiveRequest *r, ViewNote *note, Snapshot snapshot, CopyBuffer *buf);
static void collect_rows(SxLiveRequest *r, GenNote *gens, int ngens, CopyBuffer *buf);

void
sx_live_copy(SxDb *db, Snapshot snapshot, SxLiveRequest *requests, int n)
{
	ViewNote   *notes = palloc0(sizeof(ViewNote) * Max(n, 1));
	CopyBuffer	buf;

	buf.size = n == 1 && requests[0].filtered != NULL ? FEW_BUFFER : FIRST_BUFFER;
	buf.data = palloc(buf.size);
	for (;;)
	{
		uint32		generation = db->generation;
		dsa_area   *area = sx_db_area(db);

		sx_lock_publish_shared(db);
		if (db->generation != generation)
		{
			/* a new consumer made a new area */
			sx_unlock_publish(db);
			CHECK_FOR_INTERRUPTS();
			continue;
		}
		buf.used = 0;
		for (int i = 0; i < n; i++)
			copy_view(db, area, snapshot, &requests[i], &notes[i], &buf);
		SX_STOP_POINT(read_locked);
		sx_unlock_publish(db);

		if (buf.used <= buf.size)
			break;
		CHECK_FOR_INTERRUPTS();
		pfree(buf.data);
		buf.size = buf.used + buf.used / 4 + FIRST_BUFFER;
		buf.data = MemoryContextAllocHuge(CurrentMemoryContext, buf.size);
	}

	for (int i = 0; i < n; i++)
		resolve(&requests[i], &notes[i], snapshot, &buf);
	pfree(notes);
}

/* under the shared publish lock */
static void
copy_view(SxDb *db, dsa_area *area, Snapshot snapshot, SxLiveRequest *r, ViewNote *note, CopyBuffer *buf)
{
	SxView	   *v = sx_view_by_mat(db, r->matid);
	bool		one_bucket = r->nkeys > 0 && r->filtered != NULL;
	uint32		hash = 0;

	Assert(r->wanted == NULL || r->filtered == NULL);
	memset(note, 0, offsetof(ViewNote, gens));
	if (v == NULL)
		return;
	note->live = area != NULL && v->open_gen != 0 &&
		(v->state == SX_VIEW_LIVE || v->state == SX_VIEW_PAUSING);
	note->freed_flush_xid = v->freed_flush_xid;
	note->freed_cycle = v->freed_cycle;
	note->flushed_cycle = v->flushed_cycle;

	if (one_bucket)
	{
		for (int i = 0; i < r->nkeys; i++)
			one_bucket &= r->filtered[i];
		if (one_bucket)
			hash = sx_row_hash(r->hash, r->nkeys);
	}
	if (v->open_gen == 0)
		return;
	for (uint64 no = v->first_gen; no <= v->open_gen; no++)
	{
		SxGeneration *gen = sx_gen_at(v, no);
		GenNote    *g = &note->gens[note->ngens++];

		g->flush_xid = gen->flush_xid;
		g->cycle = gen->cycle;
		g->has_rows = gen->nentries > 0;
		g->skipped = !note->live || certainly_seen(gen, snapshot);
		g->start = buf->used;
		if (!g->skipped && gen->nentries > 0 && r->wanted == NULL)
			copy_generation(area, gen, r, one_bucket, hash, buf);
		for (int i = 0; !g->skipped && gen->nentries > 0 && i < r->nwanted; i++)
			copy_generation(area, gen, r, true, r->wanted[i], buf);
		g->end = buf->used;
	}
}

/* without looking at the commit log; false means: not known here */
static bool
certainly_seen(SxGeneration *gen, Snapshot snapshot)
{
	return gen->state == SX_GEN_FLUSHED && !snapshot->suboverflowed &&
		!snapshot->takenDuringRecovery && !XidInMVCCSnapshot(gen->flush_xid, snapshot);
}

static void
copy_generation(dsa_area *area, SxGeneration *gen, SxLiveRequest *r, bool one_bucket, uint32 hash,
				CopyBuffer *buf)
{
	SxBuckets  *buckets = dsa_get_address(area, gen->buckets);
	uint32		first = 0;
	uint32		last = buckets->nbuckets - 1;

	/* rows without a key are all in one chain */
	if (one_bucket)
		first = last = hash & (buckets->nbuckets - 1);
	else if (r->nkeys == 0)
		last = 0;

	for (uint32 i = first; i <= last; i++)
	{
		SxLiveEntry *entry;

		for (dsa_pointer p = buckets->bucket[i]; DsaPointerIsValid(p); p = entry->next[buckets->chain])
		{
			entry = dsa_get_address(area, p);
			if (DsaPointerIsValid(entry->row) && (!one_bucket || entry->hash == hash))
				copy_entry(area, entry, r, buf);
		}
	}
}

static void
copy_entry(dsa_area *area, SxLiveEntry *entry, SxLiveRequest *r, CopyBuffer *buf)
{
	MinimalTuple tuple;
	Size		head = MAXALIGN(offsetof(RowHead, keyhash) + r->nkeys * sizeof(uint32));
	Size		size;

	if (r->filtered)
		for (int i = 0; i < r->nkeys; i++)
			if (r->filtered[i] && r->hash[i] != entry->keyhash[i])
				return;

	tuple = dsa_get_address(area, entry->row);
	size = head + MAXALIGN(tuple->t_len);
	if (buf->used + size <= buf->size)
	{
		RowHead    *h = (RowHead *) (buf->data + buf->used);

		h->size = size;
		h->hash = entry->hash;
		memcpy(h->keyhash, entry->keyhash, sizeof(uint32) * r->nkeys);
		memcpy((char *) h + head, tuple, tuple->t_len);
	}
	buf->used += size;
}

/* has this transaction committed, as far as the snapshot is concerned? */
static bool
sees(Snapshot snapshot, TransactionId xid)
{
	if (!TransactionIdIsValid(xid))
		return false;
	if (TransactionIdIsCurrentTransactionId(xid))
		return true;
	return !XidInMVCCSnapshot(xid, snapshot) && TransactionIdDidCommit(xid);
}

static void
resolve(SxLiveRequest *r, ViewNote *note, Snapshot snapshot, CopyBuffer *buf)
{
	bool		sees_freed = !TransactionIdIsValid(note->freed_flush_xid) ||
		sees(snapshot, note->freed_flush_xid);
	uint64		in_table;		/* newest cycle in the table that the snapshot sees */
	uint64		newest = 0;
	GenNote    *add = palloc(sizeof(GenNote) * (note->ngens + 1));
	int			nadd = 0;
	bool		has_rows = false;

	in_table = sees_freed ? note->freed_cycle : 0;
	if (note->ngens == 0 && sees_freed)
		in_table = Max(in_table, note->flushed_cycle);
	for (int i = 0; i < note->ngens; i++)
	{
		GenNote    *g = &note->gens[i];

		if ((note->live && g->skipped) || sees(snapshot, g->flush_xid))
		{
			in_table = Max(in_table, g->cycle);
			continue;
		}
		add[nadd++] = *g;
		has_rows |= g->has_rows;
		newest = Max(newest, g->cycle);
	}

	r->too_old = note->live && !sees_freed;
	r->found = note->live && sees_freed;
	r->cycle = in_table;
	r->in_table = false;
	r->nrows = 0;
	r->rows = NULL;
	r->hashes = NULL;
	r->keyhashes = NULL;
	if (r->found)
	{
		r->cycle = Max(in_table, newest);
		r->in_table = !has_rows;
		collect_rows(r, add, nadd, buf);
	}
	pfree(add);
}

static void
collect_rows(SxLiveRequest *r, GenNote *gens, int ngens, CopyBuffer *buf)
{
	Size		head = MAXALIGN(offsetof(RowHead, keyhash) + r->nkeys * sizeof(uint32));
	Size		n = 0;
	MinimalTuple *rows;

	for (int i = 0; i < ngens; i++)
		for (Size at = gens[i].start; at < gens[i].end; at += ((RowHead *) (buf->data + at))->size)
			n++;
	if (n == 0)
		return;
	if (n > PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many live rows in a continuous view")));

	rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(MinimalTuple) * n);
	r->rows = rows;
	r->hashes = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint32) * n);
	if (r->nkeys > 0)
		r->keyhashes = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint32) * n * r->nkeys);

	n = 0;
	for (int i = 0; i < ngens; i++)
	{
		Size		first = n;

		for (Size at = gens[i].start; at < gens[i].end;)
		{
			RowHead    *h = (RowHead *) (buf->data + at);

			rows[n] = (MinimalTuple) ((char *) h + head);
			r->hashes[n] = h->hash;
			if (r->nkeys > 0)
				memcpy(&r->keyhashes[n * r->nkeys], h->keyhash, sizeof(uint32) * r->nkeys);
			n++;
			at += h->size;
		}
		/* a chain stands newest first; without keys the order is all that rows have */
		if (r->nkeys == 0)
			for (Size a = first, b = n; a + 1 < b; a++, b--)
			{
				MinimalTuple tuple = rows[a];

				rows[a] = rows[b - 1];
				rows[b - 1] = tuple;
			}
	}
	r->nrows = (int) n;
}
