/*
 * live_generation.c
 *		The life of a generation: opened, sealed, flushed, freed.
 *
 * A view's generations are a ring: first_gen .. open_gen.  At most one is sealed; flushed ones
 * stay for statements whose snapshot precedes the flush.  A flushed generation is freed,
 * oldest first, when no snapshot in this database can precede its flush any more, or when it
 * must (force, ring full); the id of the newest flush so forgotten is kept, and a statement
 * that does not see it reads the table alone.
 *
 * The same id stands, when the first generation is opened, for whoever wrote the table last:
 * live state continues the table as it was then, and fits no older version of it.
 *
 * Locking: the ring changes under the exclusive publish lock.  Memory is allocated before
 * and freed after, when nothing shared points to it.
 */
#include "live/live_internal.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/definitions.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* column "view" of streamext.view_position */
#define POSITION_VIEW	1

#define MIN_BUCKETS		16
/* what a seal may take beyond the limit: flushing is the way to make memory free */
#define SEAL_RESERVE	(8 * 1024 * 1024)

/* the memory of a generation that is no longer in the ring */
typedef struct Detached
{
	dsa_pointer buckets;
	dsa_pointer dead_letters;
	dsa_pointer position;
	dsa_pointer files;
	dsa_pointer open_rows;
	dsa_pointer changes;
} Detached;

static uint32 round_buckets(uint64 n);
static bool make_room(SxDb *db, SxView *v);
static void start_generation(SxView *v, uint64 no, dsa_pointer buckets, uint32 nbuckets);
static TransactionId last_table_writer(Oid viewid);
static dsa_pointer allocate_reserved(dsa_area *area, Size size);
static bool snapshots_need(TransactionId flush_xid, SxDb *db);
static void free_oldest(SxDb *db, SxView *v);
static void detach(SxView *v, SxGeneration *gen, Detached *d);
static void free_detached(dsa_area *area, const Detached *d);

Size
sx_buckets_size(uint32 nbuckets)
{
	return offsetof(SxBuckets, bucket) + (Size) nbuckets * sizeof(dsa_pointer);
}

dsa_pointer
sx_buckets_allocate(dsa_area *area, uint32 nbuckets)
{
	dsa_pointer dp = dsa_allocate_extended(area, sx_buckets_size(nbuckets),
										   DSA_ALLOC_HUGE | DSA_ALLOC_NO_OOM | DSA_ALLOC_ZERO);

	if (DsaPointerIsValid(dp))
		((SxBuckets *) dsa_get_address(area, dp))->nbuckets = nbuckets;
	return dp;
}

static uint32
round_buckets(uint64 n)
{
	uint32		result = MIN_BUCKETS;

	while (result < n && result < (1U << 20))
		result *= 2;
	return result;
}

bool
sx_gen_open(SxDb *db, SxView *v, uint32 nbuckets)
{
	dsa_area   *area = sx_db_area(db);
	bool		first = v->open_gen == 0;
	TransactionId writer = InvalidTransactionId;
	dsa_pointer dp;

	if (area == NULL || !make_room(db, v))
		return false;
	if (first)
		writer = last_table_writer(v->viewid);
	nbuckets = round_buckets(nbuckets);
	dp = sx_buckets_allocate(area, nbuckets);
	if (!DsaPointerIsValid(dp))
		return false;

	sx_lock_publish_exclusive(db);
	if (first)
		v->freed_flush_xid = writer;
	start_generation(v, sx_gen_last(v) + 1, dp, nbuckets);
	sx_unlock_publish(db);
	return true;
}

static void
start_generation(SxView *v, uint64 no, dsa_pointer buckets, uint32 nbuckets)
{
	SxGeneration *gen = sx_gen_at(v, no);
	uint64		cycle = v->flushed_cycle;

	if (v->open_gen != 0)
		cycle = Max(cycle, sx_gen_at(v, v->open_gen)->cycle);
	memset(gen, 0, sizeof(SxGeneration));
	gen->state = SX_GEN_OPEN;
	gen->no = no;
	gen->buckets = buckets;
	gen->nbuckets = nbuckets;
	gen->bytes = sx_buckets_size(nbuckets);
	gen->cycle = cycle;
	if (v->first_gen == 0)
		v->first_gen = no;
	v->open_gen = no;
}

/*
 * The transaction that wrote the table last, of all that had ended before this call: each
 * stores the view's position with the rows.
 */
static TransactionId
last_table_writer(Oid viewid)
{
	MemoryContext caller = CurrentMemoryContext;
	bool		own = !IsTransactionState();
	TransactionId writer = InvalidTransactionId;
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tup;

	if (own)
		StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = table_open(sx_catalog_table_oid("view_position"), AccessShareLock);
	ScanKeyInit(&key, POSITION_VIEW, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(viewid));
	scan = systable_beginscan(rel, SxPrimaryKeyIndex(rel), true, NULL, 1, &key);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		writer = HeapTupleHeaderGetXmin(tup->t_data);
		/* frozen: everybody sees it */
		if (!TransactionIdIsNormal(writer))
			writer = InvalidTransactionId;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	PopActiveSnapshot();
	if (own)
		CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return writer;
}

/* a free place in the ring, if need be at the cost of old snapshots */
static bool
make_room(SxDb *db, SxView *v)
{
	if (v->open_gen == 0 || v->open_gen - v->first_gen + 1 < SX_MAX_GENERATIONS)
		return true;
	sx_gen_free_flushed(db, v, false);
	if (v->open_gen - v->first_gen + 1 < SX_MAX_GENERATIONS)
		return true;
	if (sx_gen_at(v, v->first_gen)->state != SX_GEN_FLUSHED)
		return false;
	free_oldest(db, v);
	return true;
}

bool
sx_gen_seal(SxDb *db, SxView *v, const SxPosition *position, XLogRecPtr start_lsn,
			int nfiles, const Oid *rels, const Oid *nodes,
			const bytea *open_rows, bool new_open_rows)
{
	dsa_area   *area = sx_db_area(db);
	SxGeneration *gen = sx_gen_at(v, v->open_gen);
	Size		position_size = sx_position_size(position);
	dsa_pointer position_dp;
	dsa_pointer files_dp;
	dsa_pointer buckets_dp;
	dsa_pointer open_dp = InvalidDsaPointer;
	uint32	   *files;
	uint32		nbuckets;

	if (area == NULL || v->open_gen == 0 || sx_gen_sealed(v) != NULL || !make_room(db, v))
		return false;

	/* the next one will hold about as much; without keys there is one chain, which never grows */
	nbuckets = Min(round_buckets(gen->nentries), gen->nbuckets);
	position_dp = allocate_reserved(area, position_size);
	files_dp = allocate_reserved(area, sizeof(uint32) * (1 + 2 * (Size) nfiles));
	if (open_rows)
		open_dp = allocate_reserved(area, VARSIZE(open_rows));
	buckets_dp = sx_buckets_allocate(area, nbuckets);
	if (!DsaPointerIsValid(buckets_dp))
	{
		nbuckets = MIN_BUCKETS;
		buckets_dp = allocate_reserved(area, sx_buckets_size(nbuckets));
		if (DsaPointerIsValid(buckets_dp))
		{
			SxBuckets  *b = dsa_get_address(area, buckets_dp);

			memset(b, 0, sx_buckets_size(nbuckets));
			b->nbuckets = nbuckets;
		}
	}
	if (!DsaPointerIsValid(position_dp) || !DsaPointerIsValid(files_dp) || !DsaPointerIsValid(buckets_dp) ||
		(open_rows && !DsaPointerIsValid(open_dp)))
	{
		if (DsaPointerIsValid(open_dp))
			dsa_free(area, open_dp);
		if (DsaPointerIsValid(position_dp))
			dsa_free(area, position_dp);
		if (DsaPointerIsValid(files_dp))
			dsa_free(area, files_dp);
		if (DsaPointerIsValid(buckets_dp))
			dsa_free(area, buckets_dp);
		return false;
	}

	memcpy(dsa_get_address(area, position_dp), position, position_size);
	files = dsa_get_address(area, files_dp);
	files[0] = nfiles;
	for (int i = 0; i < nfiles; i++)
	{
		files[1 + 2 * i] = rels[i];
		files[2 + 2 * i] = nodes[i];
	}

	if (open_rows)
		memcpy(dsa_get_address(area, open_dp), open_rows, VARSIZE(open_rows));

	sx_lock_publish_exclusive(db);
	gen->position = position_dp;
	gen->start_lsn = start_lsn;
	gen->watermark = v->watermark;
	gen->removed_until = v->removed_until;
	gen->files = files_dp;
	gen->open_rows = open_dp;
	gen->new_open_rows = new_open_rows;
	gen->bytes += position_size;
	gen->state = SX_GEN_SEALED;
	start_generation(v, v->open_gen + 1, buckets_dp, nbuckets);
	SX_STOP_POINT_OF(seal_locked, v->viewid);
	sx_unlock_publish(db);
	return true;
}

/*
 * What a seal needs is little, and without it memory could never be made free again: it may
 * go a bit beyond the limit.
 */
static dsa_pointer
allocate_reserved(dsa_area *area, Size size)
{
	size_t		limit = (size_t) sx_live_memory * 1024;
	dsa_pointer dp = dsa_allocate_extended(area, size, DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);

	for (size_t extra = 1024 * 1024; !DsaPointerIsValid(dp) && extra <= SEAL_RESERVE; extra *= 2)
	{
		dsa_set_size_limit(area, limit + extra);
		dp = dsa_allocate_extended(area, size, DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);
		dsa_set_size_limit(area, limit);
	}
	return dp;
}

SxGeneration *
sx_gen_sealed(SxView *v)
{
	if (v->open_gen == 0)
		return NULL;
	for (uint64 no = v->first_gen; no <= v->open_gen; no++)
		if (sx_gen_at(v, no)->state == SX_GEN_SEALED)
			return sx_gen_at(v, no);
	return NULL;
}

uint32
sx_gen_open_entries(SxView *v)
{
	return v->open_gen == 0 ? 0 : sx_gen_at(v, v->open_gen)->nentries;
}

void
sx_gen_free_flushed(SxDb *db, SxView *v, bool force)
{
	bool		any = false;

	while (v->open_gen != 0 && sx_gen_at(v, v->first_gen)->state == SX_GEN_FLUSHED)
	{
		if (!force && snapshots_need(sx_gen_at(v, v->first_gen)->flush_xid, db))
			break;
		free_oldest(db, v);
		any = true;
	}
	if (any && force)
		dsa_trim(sx_db_area(db));
}

/*
 * May a backend of this database hold a snapshot that does not see the flush?  One that has
 * its xmin above the flush's id does not; one without an xmin has no snapshot, and the next it
 * takes sees the flush, which has ended.  Our own workers read tables only.
 */
static bool
snapshots_need(TransactionId flush_xid, SxDb *db)
{
	VirtualTransactionId *vxids;
	int			n;
	bool		need = false;

	vxids = GetCurrentVirtualXIDs(flush_xid, true, false, PROC_IN_VACUUM, &n);
	for (int i = 0; i < n && !need; i++)
	{
		PGPROC	   *proc = SxVirtualXidProc(vxids[i]);
		pid_t		pid = proc ? proc->pid : 0;
		bool		ours = pid != 0 && (pid == db->places[SX_FLUSHER].pid || pid == db->places[SX_HELPER].pid);

		for (int j = 0; j < db->nviews && pid != 0 && !ours; j++)
			ours = db->views[j].builder_pid == pid;
		need = pid != 0 && !ours;
	}
	pfree(vxids);
	return need;
}

/* of the consumer, whose view this is */
static void
free_oldest(SxDb *db, SxView *v)
{
	SxGeneration *gen = sx_gen_at(v, v->first_gen);
	Detached	d;

	sx_lock_publish_exclusive(db);
	v->freed_flush_xid = gen->flush_xid;
	v->freed_cycle = gen->cycle;
	detach(v, gen, &d);
	v->first_gen++;
	sx_unlock_publish(db);
	SX_STOP_POINT_OF(generation_detached, v->viewid);
	free_detached(sx_db_area(db), &d);
}

static void
detach(SxView *v, SxGeneration *gen, Detached *d)
{
	d->buckets = gen->buckets;
	d->dead_letters = gen->dead_letters;
	d->position = gen->position;
	d->files = gen->files;
	d->open_rows = gen->open_rows;
	d->changes = gen->changes;
	memset(gen, 0, sizeof(SxGeneration));
	gen->state = SX_GEN_FREE;
}

static void
free_detached(dsa_area *area, const Detached *d)
{
	dsa_pointer p;

	if (area == NULL)
		return;
	if (DsaPointerIsValid(d->buckets))
	{
		SxBuckets  *buckets = dsa_get_address(area, d->buckets);

		for (uint32 i = 0; i < buckets->nbuckets; i++)
		{
			p = buckets->bucket[i];
			while (DsaPointerIsValid(p))
			{
				SxLiveEntry *entry = dsa_get_address(area, p);
				dsa_pointer next = entry->next[buckets->chain];

				if (DsaPointerIsValid(entry->row))
					dsa_free(area, entry->row);
				if (DsaPointerIsValid(entry->prepared))
					dsa_free(area, entry->prepared);
				dsa_free(area, p);
				p = next;
			}
		}
		dsa_free(area, d->buckets);
	}
	p = d->dead_letters;
	while (DsaPointerIsValid(p))
	{
		dsa_pointer next = ((SxSharedDeadLetter *) dsa_get_address(area, p))->next;

		dsa_free(area, p);
		p = next;
	}
	p = d->changes;
	while (DsaPointerIsValid(p))
	{
		dsa_pointer next = ((SxChanges *) dsa_get_address(area, p))->next;

		dsa_free(area, p);
		p = next;
	}
	if (DsaPointerIsValid(d->position))
		dsa_free(area, d->position);
	if (DsaPointerIsValid(d->files))
		dsa_free(area, d->files);
	if (DsaPointerIsValid(d->open_rows))
		dsa_free(area, d->open_rows);
}

/* the ring is empty afterwards and can be opened again; numbers go on */
void
sx_gen_drop_all(SxDb *db, SxView *v)
{
	Detached   *d = palloc(sizeof(Detached) * SX_MAX_GENERATIONS);
	bool		flushed[SX_MAX_GENERATIONS];
	uint64		first = v->first_gen;
	uint64		last = sx_gen_last(v);
	int			n = 0;

	if (v->open_gen == 0)
	{
		pfree(d);
		return;
	}

	/* a flusher that died may have committed without saying so; this looks at the commit log */
	for (uint64 no = first; no <= last; no++)
	{
		SxGeneration *gen = sx_gen_at(v, no);

		flushed[no - first] = gen->state == SX_GEN_FLUSHED ||
			(TransactionIdIsValid(gen->flush_xid) && TransactionIdDidCommit(gen->flush_xid));
	}

	sx_lock_publish_exclusive(db);
	for (uint64 no = first; no <= last; no++)
	{
		SxGeneration *gen = sx_gen_at(v, no);

		if (flushed[no - first])
		{
			v->freed_flush_xid = gen->flush_xid;
			v->freed_cycle = gen->cycle;
			v->flushed_cycle = gen->cycle;
		}
		detach(v, gen, &d[n++]);
	}
	v->first_gen = last + 1;
	v->open_gen = 0;
	v->incarnation++;
	sx_unlock_publish(db);

	for (int i = 0; i < n; i++)
		free_detached(sx_db_area(db), &d[i]);
	pfree(d);
}

void
sx_gen_rows(SxDb *db, SxGeneration *gen, void (*row) (void *arg, MinimalTuple tuple), void *arg)
{
	dsa_area   *area = sx_db_area(db);
	SxBuckets  *buckets = dsa_get_address(area, gen->buckets);
	dsa_pointer *chain = NULL;
	Size		max = 0;

	/* chains stand newest first; rows come in the order they were added */
	for (uint32 i = 0; i < buckets->nbuckets; i++)
	{
		SxLiveEntry *entry;
		Size		n = 0;

		for (dsa_pointer p = buckets->bucket[i]; DsaPointerIsValid(p); p = entry->next[buckets->chain])
		{
			entry = dsa_get_address(area, p);
			if (!DsaPointerIsValid(entry->row))
				continue;
			if (n == max)
			{
				max = Max(64, 2 * max);
				chain = chain ? repalloc_huge(chain, max * sizeof(dsa_pointer)) :
					palloc(max * sizeof(dsa_pointer));
			}
			chain[n++] = entry->row;
		}
		while (n > 0)
			row(arg, dsa_get_address(area, chain[--n]));
	}
	if (chain)
		pfree(chain);
}

void
sx_gen_dead_letters(SxDb *db, SxGeneration *gen,
					void (*letter) (void *arg, const SxSharedDeadLetter *d), void *arg)
{
	dsa_area   *area = sx_db_area(db);
	SxSharedDeadLetter **letters = palloc(sizeof(SxSharedDeadLetter *) * (gen->ndead + 1));
	uint32		n = 0;

	for (dsa_pointer p = gen->dead_letters; DsaPointerIsValid(p) && n < gen->ndead; p = letters[n++]->next)
		letters[n] = dsa_get_address(area, p);
	while (n > 0)
		letter(arg, letters[--n]);
	pfree(letters);
}
