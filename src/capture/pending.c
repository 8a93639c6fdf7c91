/*
 * pending.c
 *		Addresses of inserted rows by transaction.
 *
 * A transaction is found by the raw id of its records while it is pending, and stands
 * in the list of ready ones, in commit order, once its commit record was read.  All of
 * them, pending or ready, stand in a second list by the LSN of their first address, so
 * that the WAL that must be kept is known without a search.
 *
 * A million transactions of one row and one of a hundred million rows are both normal.
 * So a transaction is one chunk of a slab with room for one run, whose blocks go back to
 * the system when they empty; more runs go into an array of their own that doubles.
 * A row extends the run that was last added for its file if it follows it, even when
 * rows of other partitions came between.
 *
 * The oldest first address decides which WAL must be kept, and one transaction that stays
 * open would keep all of it.  So addresses of open transactions can be stored with the
 * positions (open_rows.c): all there are at some LSN, of all transactions then pending.
 * Those runs are marked, and their transactions leave the second list until they write
 * again, or commit: then the commit record must be kept.
 *
 * Private to one process; a crash leaves nothing.
 */
#include "postgres.h"

#include "access/transam.h"
#include "common/hashfn.h"
#include "utils/memutils.h"

#include "capture/pending.h"
#include "capture/position.h"

/* Files whose last run is remembered; two that share a place only lose compression */
#define LAST_RUNS			256
/* Some 500 transactions */
#define SLAB_BLOCK			(64 * 1024)
/* An empty hash table above this size is given back */
#define SHRINK_SIZE			4096
/* Commits between two looks at the next transaction id */
#define REFERENCE_COMMITS	256

typedef struct PendingTx
{
	SxReady		ready;			/* fxid and commit_lsn are set by its commit */
	dlist_node	by_lsn;			/* ascending ready.first_lsn */
	bool		linked;			/* into by_lsn; not if all its runs are stored */
	bool		stored;			/* some runs are marked SX_RUN_STORED */
	TransactionId xid;			/* the key, while pending */
	SxRun		first_run;		/* ready.runs points here until there are more */
} PendingTx;

typedef struct XidEntry
{
	TransactionId xid;
	char		status;
	PendingTx  *tx;
} XidEntry;

typedef struct FxidEntry
{
	uint64		fxid;
	char		status;
	PendingTx  *tx;
} FxidEntry;

#define SH_PREFIX xids
#define SH_ELEMENT_TYPE XidEntry
#define SH_KEY_TYPE TransactionId
#define SH_KEY xid
#define SH_HASH_KEY(tb, key) murmurhash32(key)
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define SH_PREFIX fxids
#define SH_ELEMENT_TYPE FxidEntry
#define SH_KEY_TYPE uint64
#define SH_KEY fxid
#define SH_HASH_KEY(tb, key) murmurhash32((uint32) (key) ^ (uint32) ((key) >> 32))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct SxPending
{
	MemoryContext context;		/* hash tables; parent of the others */
	MemoryContext txs;			/* slab of PendingTx */
	MemoryContext runs;			/* arrays of runs */
	xids_hash  *by_xid;			/* pending ones */
	fxids_hash *by_fxid;		/* ready ones; made when first needed, NULL before */
	dlist_head	ready;			/* commit order */
	dlist_head	by_lsn;
	PendingTx  *lsn_hint;		/* inserted last where neither end fitted */
	PendingTx  *last_tx;		/* of the last address added */
	uint64		oldest;			/* no pending id is below */
	uint64		reference;		/* to widen ids: some recent one */
	int			commits;		/* since reference was set from the next id */
	uint32		nready;
	uint32		nfound;			/* ready ones with found set */
	uint32		nstored;		/* transactions with stored set */
	uint64		stored_version;
	XLogRecPtr	stored_upto;	/* what is stored was read below */
	XLogRecPtr	skip_below;		/* loaded transactions have all addresses below */
	struct
	{
		PendingTx  *tx;
		uint32		run;
	}			last[LAST_RUNS];
};

static uint64 widen(SxPending *p, TransactionId xid);
static PendingTx *new_tx(SxPending *p, TransactionId xid);
static void free_tx(SxPending *p, PendingTx *tx);
static void insert_by_lsn(SxPending *p, PendingTx *tx, XLogRecPtr lsn);
static void hold_from(SxPending *p, PendingTx *tx, XLogRecPtr lsn);
static void mark_stored(SxPending *p, PendingTx *tx);
static bool store_all(SxPending *p, XLogRecPtr upto, uint64 max_runs);
static void unlink_by_lsn(SxPending *p, PendingTx *tx);
static PendingTx *take_pending(SxPending *p, TransactionId xid);
static void shrink_by_xid(SxPending *p);
static void reserve_runs(SxPending *p, PendingTx *tx, uint64 nruns);
static void append_run(SxPending *p, PendingTx *tx, uint32 file, BlockNumber block,
					   OffsetNumber first, uint16 count, TransactionId xid);
static void append_runs_of(SxPending *p, PendingTx *tx, const PendingTx *from, const uint32 *map);
static PendingTx *find_ready(SxPending *p, uint64 fxid);
static int	compare_by_lsn(const void *a, const void *b);

SxPending *
sx_pending_create(MemoryContext parent)
{
	MemoryContext context;
	SxPending  *p;

	context = AllocSetContextCreate(parent, "streamext pending", ALLOCSET_SMALL_SIZES);
	p = MemoryContextAllocZero(context, sizeof(SxPending));
	p->context = context;
	p->txs = SlabContextCreate(context, "streamext pending transactions",
							   SLAB_BLOCK, sizeof(PendingTx));
	p->runs = AllocSetContextCreate(context, "streamext pending runs", ALLOCSET_DEFAULT_SIZES);
	p->by_xid = xids_create(context, 64, NULL);
	dlist_init(&p->ready);
	dlist_init(&p->by_lsn);
	p->oldest = PG_UINT64_MAX;
	p->reference = U64FromFullTransactionId(ReadNextFullTransactionId());
	return p;
}

void
sx_pending_add(SxPending *p, TransactionId xid, XLogRecPtr lsn, uint32 file,
			   BlockNumber block, OffsetNumber first, uint16 count)
{
	PendingTx  *tx = p->last_tx;

	Assert(TransactionIdIsNormal(xid));
	if (tx == NULL || tx->xid != xid)
	{
		XidEntry   *entry = xids_lookup(p->by_xid, xid);

		if (entry != NULL)
			tx = entry->tx;
		else
		{
			bool		found;

			tx = new_tx(p, xid);
			entry = xids_insert(p->by_xid, xid, &found);
			entry->tx = tx;
			p->oldest = Min(p->oldest, widen(p, xid));
		}
		p->last_tx = tx;
	}
	if (!tx->linked)
	{
		if (lsn < p->skip_below && tx->stored)
			return;				/* loaded already */
		insert_by_lsn(p, tx, lsn);
	}
	append_run(p, tx, file, block, first, count, xid);
}

/*
 * Runs of sub-transactions come after those of the transaction's parts that began
 * earlier: WAL order, except where a part was resumed.
 */
void
sx_pending_commit(SxPending *p, TransactionId top, int nsubxacts,
				  const TransactionId *subxacts, XLogRecPtr commit_lsn,
				  TimestampTz commit_time)
{
	PendingTx  *tx;
	bool		subs = false;

	if (p->by_xid->members == 0)
		return;

	tx = take_pending(p, top);
	if (nsubxacts > 0 && p->by_xid->members > 0)
	{
		PendingTx **parts;
		int			nparts = 0;

		parts = MemoryContextAllocHuge(p->context, sizeof(PendingTx *) * ((Size) nsubxacts + 1));
		if (tx != NULL)
			parts[nparts++] = tx;
		for (int i = 0; i < nsubxacts && p->by_xid->members > 0; i++)
		{
			PendingTx  *part = take_pending(p, subxacts[i]);

			if (part != NULL)
			{
				parts[nparts++] = part;
				subs = true;
			}
		}
		if (nparts > 0)
			tx = parts[0];
		if (nparts > 1)
		{
			uint64		nruns = 0;
			XLogRecPtr	first = InvalidXLogRecPtr;

			qsort(parts, nparts, sizeof(PendingTx *), compare_by_lsn);
			tx = parts[0];
			for (int i = 0; i < nparts; i++)
			{
				nruns += parts[i]->ready.nruns;
				if (parts[i]->linked && (first == InvalidXLogRecPtr || parts[i]->ready.first_lsn < first))
					first = parts[i]->ready.first_lsn;
			}
			reserve_runs(p, tx, nruns);
			for (int i = 1; i < nparts; i++)
			{
				append_runs_of(p, tx, parts[i], NULL);
				unlink_by_lsn(p, parts[i]);
				free_tx(p, parts[i]);
			}
			if (first != InvalidXLogRecPtr)
				hold_from(p, tx, first);
		}
		pfree(parts);
	}
	shrink_by_xid(p);
	if (tx == NULL)
		return;

	/* ids widen by distance, so the reference must move with them */
	if (++p->commits >= REFERENCE_COMMITS)
	{
		p->reference = U64FromFullTransactionId(ReadNextFullTransactionId());
		p->commits = 0;
	}
	/* whoever reads WAL again must find that it has committed */
	if (!tx->linked)
		insert_by_lsn(p, tx, commit_lsn);
	tx->xid = InvalidTransactionId;
	tx->ready.fxid = widen(p, top);
	tx->ready.commit_lsn = commit_lsn;
	tx->ready.commit_time = commit_time;
	tx->ready.subs = subs;
	dlist_push_tail(&p->ready, &tx->ready.node);
	p->nready++;
	if (p->by_fxid != NULL)
	{
		bool		found;

		fxids_insert(p->by_fxid, tx->ready.fxid, &found)->tx = tx;
	}
}

void
sx_pending_abort(SxPending *p, TransactionId top, int nsubxacts,
				 const TransactionId *subxacts)
{
	for (int i = -1; i < nsubxacts && p->by_xid->members > 0; i++)
	{
		PendingTx  *tx = take_pending(p, i < 0 ? top : subxacts[i]);

		if (tx != NULL)
		{
			unlink_by_lsn(p, tx);
			free_tx(p, tx);
		}
	}
	shrink_by_xid(p);
}

void
sx_pending_large(SxPending *p, uint64 nrows,
				 void (*large) (void *arg, TransactionId xid, SxReady *part), void *arg)
{
	xids_iterator iterator;
	XidEntry   *entry;

	xids_start_iterate(p->by_xid, &iterator);
	while ((entry = xids_iterate(p->by_xid, &iterator)) != NULL)
	{
		if (entry->tx->ready.nrows >= nrows)
			large(arg, entry->xid, &entry->tx->ready);
	}
}

SxReady *
sx_pending_find(SxPending *p, TransactionId xid)
{
	XidEntry   *entry = xids_lookup(p->by_xid, xid);

	return entry ? &entry->tx->ready : NULL;
}

/*
 * The table is searched only when xmin has passed the oldest id that the last search
 * left, which is then gone or about to be dropped.
 */
void
sx_pending_drop_below(SxPending *p, uint64 xmin)
{
	xids_iterator iterator;
	XidEntry   *entry;
	uint64		oldest = PG_UINT64_MAX;

	p->reference = xmin;
	p->commits = 0;
	if (p->by_xid->members == 0)
	{
		p->oldest = PG_UINT64_MAX;
		return;
	}
	if (p->oldest >= xmin)
		return;

	xids_start_iterate(p->by_xid, &iterator);
	while ((entry = xids_iterate(p->by_xid, &iterator)) != NULL)
	{
		uint64		fxid = widen(p, entry->xid);

		if (fxid < xmin)
		{
			PendingTx  *tx = entry->tx;

			/* deleting the current one is allowed while iterating */
			(void) take_pending(p, entry->xid);
			unlink_by_lsn(p, tx);
			free_tx(p, tx);
		}
		else
			oldest = Min(oldest, fxid);
	}
	p->oldest = oldest;
	shrink_by_xid(p);
}

dlist_head *
sx_pending_ready(SxPending *p)
{
	return &p->ready;
}

void
sx_pending_remove(SxPending *p, SxReady *ready)
{
	PendingTx  *tx = (PendingTx *) ready;

	if (ready->found)
		p->nfound--;
	dlist_delete(&ready->node);
	p->nready--;
	if (p->by_fxid != NULL)
	{
		if (dlist_is_empty(&p->ready))
		{
			fxids_destroy(p->by_fxid);
			p->by_fxid = NULL;
		}
		else
			fxids_delete(p->by_fxid, ready->fxid);
	}
	unlink_by_lsn(p, tx);
	free_tx(p, tx);
}

SxReady *
sx_pending_new_ready(SxPending *p, uint64 fxid, XLogRecPtr lsn)
{
	PendingTx  *tx = find_ready(p, fxid);
	bool		found;

	if (tx == NULL || !tx->ready.found)
		p->nfound++;
	if (tx != NULL)
	{
		tx->ready.found = true;
		/* rows of one transaction are consumed together, wherever they were found */
		hold_from(p, tx, lsn);
		return &tx->ready;
	}

	tx = new_tx(p, InvalidTransactionId);
	tx->ready.fxid = fxid;
	tx->ready.found = true;
	tx->ready.commit_lsn = lsn;
	insert_by_lsn(p, tx, lsn);
	dlist_push_head(&p->ready, &tx->ready.node);
	p->nready++;
	fxids_insert(p->by_fxid, fxid, &found)->tx = tx;
	return &tx->ready;
}

uint32
sx_pending_nready(SxPending *p)
{
	return p->nready;
}

uint32
sx_pending_found(SxPending *p)
{
	return p->nfound;
}

void
sx_pending_ready_add_run(SxPending *p, SxReady *ready, uint32 file, BlockNumber block,
						 OffsetNumber off, TransactionId xid)
{
	ready->subs |= xid != (TransactionId) ready->fxid;
	append_run(p, (PendingTx *) ready, file, block, off, 1, xid);
}

/*
 * Transactions without a commit record are left alone: they are in no snapshot whose
 * L was read.
 */
void
sx_pending_drop_file(SxPending *p, uint32 file,
					 bool (*drop) (uint64 fxid, void *arg), void *arg)
{
	dlist_iter	iter;

	dlist_foreach(iter, &p->ready)
	{
		SxReady    *ready = dlist_container(SxReady, node, iter.cur);
		uint32		kept;
		uint64		nrows;

		for (kept = 0; kept < ready->nruns && SxRunFile(&ready->runs[kept]) != file; kept++)
			;
		if (kept == ready->nruns || !drop(ready->fxid, arg))
			continue;

		nrows = 0;
		kept = 0;
		for (uint32 i = 0; i < ready->nruns; i++)
		{
			if (SxRunFile(&ready->runs[i]) == file)
			{
				/* what was computed early contains it: all is computed again */
				if ((ready->runs[i].file & (SX_RUN_EARLY | SX_RUN_JOINED)) != 0)
					ready->early = false;
				continue;
			}
			nrows += ready->runs[i].count;
			ready->runs[kept++] = ready->runs[i];
		}
		ready->nruns = kept;
		ready->nrows = nrows;
		for (uint32 i = 0; !ready->early && i < kept; i++)
			ready->runs[i].file &= ~(SX_RUN_EARLY | SX_RUN_JOINED);
	}
}

XLogRecPtr
sx_pending_first_lsn(SxPending *p)
{
	if (dlist_is_empty(&p->by_lsn))
		return InvalidXLogRecPtr;
	return dlist_head_element(PendingTx, by_lsn, &p->by_lsn)->ready.first_lsn;
}

/*
 * Both sides keep their order: a walk through `into` beside the one through `from`
 * finds each place.  A transaction that both have (seen through different streams)
 * becomes one.
 */
void
sx_pending_merge(SxPending *into, SxPending *from, const uint32 *map, XLogRecPtr read_lsn)
{
	dlist_mutable_iter iter;
	dlist_node *place = &into->ready.head;	/* the last one inserted, or the list's end */
	XLogRecPtr	place_lsn = InvalidXLogRecPtr;
	xids_iterator xids;
	XidEntry   *entry;

	dlist_foreach_modify(iter, &from->ready)
	{
		PendingTx  *old = (PendingTx *) dlist_container(SxReady, node, iter.cur);
		SxReady    *ready = &old->ready;
		PendingTx  *tx = find_ready(into, ready->fxid);
		bool		found;

		if (tx != NULL)
			hold_from(into, tx, ready->first_lsn);
		else
		{
			tx = new_tx(into, InvalidTransactionId);
			tx->ready.fxid = ready->fxid;
			tx->ready.commit_lsn = ready->commit_lsn;
			tx->ready.commit_time = ready->commit_time;
			insert_by_lsn(into, tx, ready->first_lsn);

			if (ready->commit_lsn < place_lsn)
				place = &into->ready.head;
			while (place->next != &into->ready.head &&
				   dlist_container(SxReady, node, place->next)->commit_lsn <= ready->commit_lsn)
				place = place->next;
			dlist_insert_after(place, &tx->ready.node);
			into->nready++;
			place = &tx->ready.node;
			place_lsn = ready->commit_lsn;
			fxids_insert(into->by_fxid, ready->fxid, &found)->tx = tx;
		}
		tx->ready.subs |= ready->subs;
		append_runs_of(into, tx, old, map);
		sx_pending_remove(from, ready);
	}

	xids_start_iterate(from->by_xid, &xids);
	while ((entry = xids_iterate(from->by_xid, &xids)) != NULL)
	{
		PendingTx  *old = entry->tx;
		XidEntry   *target;
		bool		found;

		target = xids_insert(into->by_xid, entry->xid, &found);
		if (!found)
		{
			target->tx = new_tx(into, entry->xid);
			into->oldest = Min(into->oldest, widen(into, entry->xid));
		}
		if (old->linked)
			hold_from(into, target->tx, old->ready.first_lsn);
		append_runs_of(into, target->tx, old, map);
		(void) take_pending(from, entry->xid);
		unlink_by_lsn(from, old);
		free_tx(from, old);
	}
	from->oldest = PG_UINT64_MAX;
	shrink_by_xid(from);

	/* what one had stored, the other had not, or up to another LSN: all is stored again */
	if (into->nstored > 0)
		(void) store_all(into, read_lsn, PG_UINT64_MAX);
}

bool
sx_pending_store(SxPending *p, XLogRecPtr upto, uint64 max_runs)
{
	return store_all(p, upto, max_runs);
}

uint64
sx_pending_stored_version(SxPending *p)
{
	return p->nstored == 0 ? 0 : p->stored_version;
}

XLogRecPtr
sx_pending_stored_upto(SxPending *p)
{
	return p->stored_upto;
}

uint64
sx_pending_open_runs(SxPending *p)
{
	xids_iterator iterator;
	XidEntry   *entry;
	uint64		nruns = 0;

	xids_start_iterate(p->by_xid, &iterator);
	while ((entry = xids_iterate(p->by_xid, &iterator)) != NULL)
		nruns += entry->tx->ready.nruns;
	return nruns;
}

/*
 * With one LSN for all: everything pending, and of what is ready and not consumed the rest of
 * those transactions that are stored in part.
 */
static bool
store_all(SxPending *p, XLogRecPtr upto, uint64 max_runs)
{
	xids_iterator iterator;
	XidEntry   *entry;
	dlist_iter	iter;

	if (sx_pending_open_runs(p) > max_runs)
		return false;
	xids_start_iterate(p->by_xid, &iterator);
	while ((entry = xids_iterate(p->by_xid, &iterator)) != NULL)
	{
		mark_stored(p, entry->tx);
		unlink_by_lsn(p, entry->tx);
	}
	dlist_foreach(iter, &p->ready)
	{
		PendingTx  *tx = (PendingTx *) dlist_container(SxReady, node, iter.cur);

		if (!tx->stored || tx->ready.found)
			continue;
		mark_stored(p, tx);
		unlink_by_lsn(p, tx);
		insert_by_lsn(p, tx, tx->ready.commit_lsn);
	}
	p->stored_upto = upto;
	p->stored_version++;
	return true;
}

static void
mark_stored(SxPending *p, PendingTx *tx)
{
	if (!tx->stored)
		p->nstored++;
	tx->stored = true;
	for (uint32 i = 0; i < tx->ready.nruns; i++)
		tx->ready.runs[i].file |= SX_RUN_STORED;
}

void
sx_pending_stored(SxPending *p, void (*stored) (void *arg, const SxRun *run), void *arg)
{
	xids_iterator iterator;
	XidEntry   *entry;
	dlist_iter	iter;

	if (p->nstored == 0)
		return;
	xids_start_iterate(p->by_xid, &iterator);
	while ((entry = xids_iterate(p->by_xid, &iterator)) != NULL)
	{
		PendingTx  *tx = entry->tx;

		for (uint32 i = 0; tx->stored && i < tx->ready.nruns; i++)
			if ((tx->ready.runs[i].file & SX_RUN_STORED) != 0)
				stored(arg, &tx->ready.runs[i]);
	}
	dlist_foreach(iter, &p->ready)
	{
		PendingTx  *tx = (PendingTx *) dlist_container(SxReady, node, iter.cur);

		for (uint32 i = 0; tx->stored && i < tx->ready.nruns; i++)
			if ((tx->ready.runs[i].file & SX_RUN_STORED) != 0)
				stored(arg, &tx->ready.runs[i]);
	}
}

void
sx_pending_load(SxPending *p, const SxRun *run)
{
	bool		found;
	XidEntry   *entry = xids_insert(p->by_xid, run->xid, &found);

	if (!found)
	{
		entry->tx = new_tx(p, run->xid);
		p->oldest = Min(p->oldest, widen(p, run->xid));
	}
	if (!entry->tx->stored)
		p->nstored++;
	entry->tx->stored = true;
	append_run(p, entry->tx, run->file | SX_RUN_STORED, run->block, run->first, run->count, run->xid);
}

void
sx_pending_loaded(SxPending *p, XLogRecPtr upto)
{
	p->skip_below = upto;
	p->stored_upto = upto;
	p->stored_version++;
}

static uint64
widen(SxPending *p, TransactionId xid)
{
	return sx_widen_xid_near(p->reference, xid);
}

/* not linked by LSN yet */
static PendingTx *
new_tx(SxPending *p, TransactionId xid)
{
	PendingTx  *tx = MemoryContextAlloc(p->txs, sizeof(PendingTx));

	memset(tx, 0, sizeof(PendingTx));
	tx->xid = xid;
	tx->ready.runs = &tx->first_run;
	tx->ready.maxruns = 1;
	return tx;
}

static void
free_tx(SxPending *p, PendingTx *tx)
{
	if (p->last_tx == tx)
		p->last_tx = NULL;
	if (tx->stored)
		p->nstored--;
	if (tx->ready.runs != &tx->first_run)
		pfree(tx->ready.runs);
	pfree(tx);
}

/* While reading WAL the new one is the last; after a file scan it may be any */
static void
insert_by_lsn(SxPending *p, PendingTx *tx, XLogRecPtr lsn)
{
	dlist_node *place;

	Assert(!tx->linked);
	tx->linked = true;
	tx->ready.first_lsn = lsn;
	if (dlist_is_empty(&p->by_lsn) ||
		dlist_tail_element(PendingTx, by_lsn, &p->by_lsn)->ready.first_lsn <= lsn)
	{
		dlist_push_tail(&p->by_lsn, &tx->by_lsn);
		return;
	}
	if (dlist_head_element(PendingTx, by_lsn, &p->by_lsn)->ready.first_lsn >= lsn)
	{
		dlist_push_head(&p->by_lsn, &tx->by_lsn);
		return;
	}
	/* neither end is passed: one is lower, the other higher */
	place = p->lsn_hint != NULL ? &p->lsn_hint->by_lsn : dlist_head_node(&p->by_lsn);
	while (dlist_container(PendingTx, by_lsn, place)->ready.first_lsn > lsn)
		place = place->prev;
	while (dlist_container(PendingTx, by_lsn, place->next)->ready.first_lsn <= lsn)
		place = place->next;
	dlist_insert_after(place, &tx->by_lsn);
	p->lsn_hint = tx;
}

static void
unlink_by_lsn(SxPending *p, PendingTx *tx)
{
	if (!tx->linked)
		return;
	if (p->lsn_hint == tx)
		p->lsn_hint = NULL;
	dlist_delete(&tx->by_lsn);
	tx->linked = false;
	tx->ready.first_lsn = InvalidXLogRecPtr;
}

/* WAL must be kept from here at the latest */
static void
hold_from(SxPending *p, PendingTx *tx, XLogRecPtr lsn)
{
	if (tx->linked && tx->ready.first_lsn <= lsn)
		return;
	unlink_by_lsn(p, tx);
	insert_by_lsn(p, tx, lsn);
}

/* Out of the hash table, but not out of by_lsn; NULL: it has no addresses */
static PendingTx *
take_pending(SxPending *p, TransactionId xid)
{
	XidEntry   *entry = xids_lookup(p->by_xid, xid);
	PendingTx  *tx;

	if (entry == NULL)
		return NULL;
	tx = entry->tx;
	xids_delete_item(p->by_xid, entry);
	if (p->last_tx == tx)
		p->last_tx = NULL;
	return tx;
}

static void
shrink_by_xid(SxPending *p)
{
	if (p->by_xid->members > 0)
		return;
	p->oldest = PG_UINT64_MAX;
	if (p->by_xid->size > SHRINK_SIZE)
	{
		xids_destroy(p->by_xid);
		p->by_xid = xids_create(p->context, 64, NULL);
	}
}

static void
reserve_runs(SxPending *p, PendingTx *tx, uint64 nruns)
{
	SxReady    *ready = &tx->ready;
	uint64		size;

	if (nruns <= ready->maxruns)
		return;
	if (nruns > PG_UINT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("transaction has inserted too many rows to be followed")));
	size = Min(Max(nruns, (uint64) ready->maxruns * 2), PG_UINT32_MAX);
	size = Max(size, 4);
	if (ready->runs == &tx->first_run)
	{
		ready->runs = MemoryContextAllocHuge(p->runs, sizeof(SxRun) * size);
		ready->runs[0] = tx->first_run;
	}
	else
		ready->runs = repalloc_huge(ready->runs, sizeof(SxRun) * size);
	ready->maxruns = (uint32) size;
}

static void
append_run(SxPending *p, PendingTx *tx, uint32 file, BlockNumber block,
		   OffsetNumber first, uint16 count, TransactionId xid)
{
	SxReady    *ready = &tx->ready;
	uint32		place = file % LAST_RUNS;
	SxRun	   *run;

	ready->nrows += count;

	/* what is remembered may be outdated, so all of it is compared */
	if (p->last[place].tx == tx && p->last[place].run < ready->nruns)
	{
		run = &ready->runs[p->last[place].run];
		if (run->file == file && run->block == block && run->xid == xid &&
			run->first + run->count == first && run->count <= PG_UINT16_MAX - count)
		{
			run->count += count;
			return;
		}
	}

	if (ready->nruns >= ready->maxruns)
		reserve_runs(p, tx, (uint64) ready->nruns + 1);
	p->last[place].tx = tx;
	p->last[place].run = ready->nruns;
	run = &ready->runs[ready->nruns++];
	run->file = file;
	run->block = block;
	run->xid = xid;
	run->first = first;
	run->count = count;
}

static void
append_runs_of(SxPending *p, PendingTx *tx, const PendingTx *from, const uint32 *map)
{
	reserve_runs(p, tx, (uint64) tx->ready.nruns + from->ready.nruns);
	tx->ready.early |= from->ready.early && map == NULL;
	if (from->stored && !tx->stored)
	{
		tx->stored = true;
		p->nstored++;
	}
	for (uint32 i = 0; i < from->ready.nruns; i++)
	{
		const SxRun *run = &from->ready.runs[i];
		uint32		file = run->file;

		if (map != NULL)
		{
			if (map[SxRunFile(run)] == PG_UINT32_MAX)
				continue;
			file = map[SxRunFile(run)] | (run->file & SX_RUN_STORED);
		}
		append_run(p, tx, file, run->block, run->first, run->count, run->xid);
	}
}

/* The ready transaction of this id; makes the index of ready ones if there is none */
static PendingTx *
find_ready(SxPending *p, uint64 fxid)
{
	FxidEntry  *entry;

	if (p->by_fxid == NULL)
	{
		dlist_iter	iter;
		bool		found;

		p->by_fxid = fxids_create(p->context, 64, NULL);
		dlist_foreach(iter, &p->ready)
		{
			SxReady    *ready = dlist_container(SxReady, node, iter.cur);

			fxids_insert(p->by_fxid, ready->fxid, &found)->tx = (PendingTx *) ready;
		}
	}
	entry = fxids_lookup(p->by_fxid, fxid);
	return entry != NULL ? entry->tx : NULL;
}

static int
compare_by_lsn(const void *a, const void *b)
{
	XLogRecPtr	x = (*(PendingTx *const *) a)->ready.first_lsn;
	XLogRecPtr	y = (*(PendingTx *const *) b)->ready.first_lsn;

	return x < y ? -1 : (x > y ? 1 : 0);
}
