/*
 * position.c
 *		Sets of transactions, written as MVCC snapshots.
 *
 * A position lists the ids below xmax that it does not contain.  On the WAL path a
 * row belongs to the top-level id that its commit record names, so only top-level
 * ids are ever asked for there.  The full scan of a file, and a query run "at" a
 * position, meet raw sub-transaction ids and may meet them when pg_subtrans no longer
 * knows their parents (it is cut off at the oldest running snapshot and lost in a
 * crash).  So a position made from a snapshot also lists the sub-transactions that
 * were running, which never changes the answer for a top-level id.  They stand in a list
 * of their own, because positions are compared by top-level ids: one of the two may not
 * know its sub-transactions.  A snapshot that overflowed does not know them; they are then
 * found in pg_subtrans, incrementally, as the worker asks every cycle.  Beyond MAX_SUBXIDS
 * the list is left out and the position marked wal_only: it is exact on the WAL path, and
 * in scans as long as pg_subtrans answers.
 *
 * Once stored and read again all ids are alike, and count as top-level ones.
 *
 * Positions are plain memory, immutable once made; no locking.  The caches below are
 * private to the process and only a matter of speed.
 */
#include "postgres.h"

#include "access/subtrans.h"
#include "access/transam.h"
#include "access/xact.h"
#include "lib/qunique.h"
#include "lib/stringinfo.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "capture/position.h"

/* Running sub-transactions listed for a snapshot that overflowed: 512 kB of ids */
#define MAX_SUBXIDS			65536
/* Ids looked up in pg_subtrans for one snapshot (about 0.1 us each) */
#define MAX_SUBXID_LOOKUPS	(4 * MAX_SUBXIDS)

/* A sub-transaction that ran when the last overflowed snapshot was taken */
typedef struct RunningSub
{
	uint64		fxid;
	uint64		top;			/* 0: has no parent yet */
} RunningSub;

static RunningSub *subs = NULL;
static int	nsubs = 0;
static int	maxsubs = 0;
static uint64 subs_end = 0;		/* ids below were looked at; 0: nothing kept */
static uint64 subs_taken = 0;	/* completion count of that snapshot */
static uint64 subs_pause = 0;	/* too many: not tried again before xmin is here */
static uint64 *owners = NULL;	/* the top-level ids in subs; 0 among them: look at all */
static int	nowners = 0;
static int	maxowners = 0;

static int	compare_ids(const void *a, const void *b);
static TransactionId narrow(uint64 fxid);
static SxPosition *make_position(uint64 xmax, uint64 *ids, Size nids, uint64 *subids, Size nsubids,
								 bool wal_only);
static Size sort_ids(uint64 *ids, Size nids, uint64 xmax);
static const uint64 *sub_ids(const SxPosition *p);
static bool has_id(const uint64 *ids, Size nids, uint64 id);
static bool update_running_subs(Snapshot snapshot, uint64 xmin, uint64 xmax,
								const uint64 *tops, Size ntops);
static void keep_running_subs(Snapshot snapshot, uint64 xmax, const uint64 *subids, Size nsubids);
static void add_running_sub(uint64 fxid, uint64 top);
static bool owners_still_run(const uint64 *tops, Size ntops);
static void note_owner(uint64 top);
static bool still_runs(RunningSub *sub, const uint64 *tops, Size ntops);

uint64
sx_widen_xid(TransactionId xid)
{
	return sx_widen_xid_near(U64FromFullTransactionId(ReadNextFullTransactionId()), xid);
}

uint64
sx_widen_xid_near(uint64 reference, TransactionId xid)
{
	int32		distance;

	if (!TransactionIdIsNormal(xid))
		return xid;
	distance = (int32) (xid - (uint32) reference);
	if (distance < 0 && reference < (uint64) -(int64) distance)
		return xid;
	return reference + (int64) distance;
}

SxPosition *
sx_position_from_snapshot(Snapshot snapshot)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	uint64		xmin = sx_widen_xid_near(next, snapshot->xmin);
	uint64		xmax = sx_widen_xid_near(next, snapshot->xmax);
	TransactionId own = GetTopTransactionIdIfAny();
	int32		nsubxip = Max(snapshot->subxcnt, 0);
	bool		overflowed = snapshot->suboverflowed;
	bool		wal_only = false;
	Size		n = 0;
	Size		nsub = 0;
	uint64	   *ids;
	uint64	   *subids;
	SxPosition *p;

	Assert(snapshot->snapshot_type == SNAPSHOT_MVCC);

	ids = MemoryContextAllocHuge(CurrentMemoryContext,
								 sizeof(uint64) * ((Size) snapshot->xcnt + nsubxip + 1));
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		ids[n++] = sx_widen_xid_near(next, snapshot->xip[i]);
	/* our own transaction is not in its snapshot's list, but has not ended either */
	if (TransactionIdIsValid(own))
	{
		ids[n++] = sx_widen_xid_near(next, own);
		overflowed |= MyProc->subxidStatus.overflowed;
	}

	if (snapshot->takenDuringRecovery)
	{
		/* xip is empty then, and everything that runs is in subxip */
		for (int32 i = 0; i < nsubxip; i++)
			ids[n++] = sx_widen_xid_near(next, snapshot->subxip[i]);
		wal_only = overflowed;
		subids = NULL;
	}
	else if (!overflowed)
	{
		int			nown = TransactionIdIsValid(own) ? MyProc->subxidStatus.count : 0;

		subids = MemoryContextAllocHuge(CurrentMemoryContext,
										sizeof(uint64) * ((Size) nsubxip + nown + 1));
		for (int32 i = 0; i < nsubxip; i++)
			subids[nsub++] = sx_widen_xid_near(next, snapshot->subxip[i]);
		for (int i = 0; i < nown; i++)
			subids[nsub++] = sx_widen_xid_near(next, MyProc->subxids.xids[i]);
		if (!TransactionIdIsValid(own))
			keep_running_subs(snapshot, xmax, subids, nsub);
	}
	else
	{
		n = sort_ids(ids, n, PG_UINT64_MAX);
		wal_only = !update_running_subs(snapshot, xmin, xmax, ids, n);
		subids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * ((Size) nsubs + 1));
		for (int i = 0; i < nsubs; i++)
			subids[nsub++] = subs[i].fxid;
	}

	p = make_position(xmax, ids, n, subids, nsub, wal_only);
	pfree(ids);
	if (subids)
		pfree(subids);
	return p;
}

SxPosition *
sx_position_with_own(const SxPosition *p)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	uint64		xmax = p->xmax;
	uint64	   *ids = MemoryContextAllocHuge(CurrentMemoryContext,
											 sizeof(uint64) * ((Size) p->nxip + (next - Min(next, p->xmax)) + 1));
	uint64	   *subids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * ((Size) p->nsub + 1));
	Size		n = 0;
	Size		nsub = 0;
	SxPosition *result;

	for (uint32 i = 0; i < p->nxip; i++)
	{
		if (!TransactionIdIsCurrentTransactionId((TransactionId) p->xip[i]))
			ids[n++] = p->xip[i];
	}
	for (uint32 i = 0; i < p->nsub; i++)
	{
		if (!TransactionIdIsCurrentTransactionId((TransactionId) sub_ids(p)[i]))
			subids[nsub++] = sub_ids(p)[i];
	}
	for (uint64 id = p->xmax; id < next; id++)
	{
		if (TransactionIdIsCurrentTransactionId((TransactionId) id))
			xmax = id + 1;
		else
			ids[n++] = id;
	}
	result = make_position(xmax, ids, n, subids, nsub, p->wal_only);
	pfree(ids);
	pfree(subids);
	return result;
}

SxPosition *
sx_position_copy(const SxPosition *p)
{
	Size		size = sx_position_size(p);
	SxPosition *copy = palloc(size);

	memcpy(copy, p, size);
	return copy;
}

Size
sx_position_size(const SxPosition *p)
{
	return offsetof(SxPosition, xip) + sizeof(uint64) * ((Size) p->nxip + p->nsub);
}

bool
sx_position_contains(const SxPosition *p, uint64 fxid)
{
	if (fxid < p->xmin)
		return true;
	if (fxid >= p->xmax)
		return false;
	return !has_id(p->xip, p->nxip, fxid) && !has_id(sub_ids(p), p->nsub, fxid);
}

SxPosition *
sx_position_without(const SxPosition *p, const uint64 *xids, int nxids)
{
	return sx_position_without_subs(p, xids, nxids, NULL, 0);
}

SxPosition *
sx_position_without_subs(const SxPosition *p, const uint64 *xids, int nxids,
						 const uint64 *subxids, int nsubxids)
{
	uint64	   *ids;
	uint64	   *subids;
	SxPosition *result;

	ids = MemoryContextAllocHuge(CurrentMemoryContext,
								 sizeof(uint64) * ((Size) p->nxip + nxids + 1));
	memcpy(ids, p->xip, sizeof(uint64) * (Size) p->nxip);
	if (nxids > 0)
		memcpy(ids + p->nxip, xids, sizeof(uint64) * (Size) nxids);
	subids = MemoryContextAllocHuge(CurrentMemoryContext,
									sizeof(uint64) * ((Size) p->nsub + nsubxids + 1));
	memcpy(subids, sub_ids(p), sizeof(uint64) * (Size) p->nsub);
	if (nsubxids > 0)
		memcpy(subids + p->nsub, subxids, sizeof(uint64) * (Size) nsubxids);
	result = make_position(p->xmax, ids, (Size) p->nxip + nxids,
						   subids, (Size) p->nsub + nsubxids, p->wal_only);
	pfree(ids);
	pfree(subids);
	return result;
}

SxPosition *
sx_position_below(const SxPosition *p, uint64 xmax)
{
	uint64	   *ids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * ((Size) p->nxip + 1));
	uint64	   *subids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * ((Size) p->nsub + 1));
	SxPosition *result;

	memcpy(ids, p->xip, sizeof(uint64) * (Size) p->nxip);
	memcpy(subids, sub_ids(p), sizeof(uint64) * (Size) p->nsub);
	result = make_position(Min(p->xmax, xmax), ids, p->nxip, subids, p->nsub, p->wal_only);
	pfree(ids);
	pfree(subids);
	return result;
}

/*
 * Ids at or above p's xmax that are not among the new ones get listed; of those nobody knows whether
 * they are sub-transactions.
 */
SxPosition *
sx_position_advance(const SxPosition *p, const uint64 *ids, int nids, const SxPosition *upto)
{
	uint64	   *in = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * ((Size) nids + 1));
	Size		nin = 0;
	uint64		xmax = p->xmax;
	uint64	   *tops;
	uint64	   *subids;
	Size		ntops = 0;
	Size		nsubids = 0;
	Size		next = 0;
	SxPosition *result;

	for (int i = 0; i < nids; i++)
	{
		if (sx_position_contains(upto, ids[i]) && !sx_position_contains(p, ids[i]))
			in[nin++] = ids[i];
	}
	if (nin > 0)
		xmax = Max(xmax, in[nin - 1] + 1);
	tops = MemoryContextAllocHuge(CurrentMemoryContext,
								  sizeof(uint64) * ((Size) p->nxip + (xmax - p->xmax) + 1));
	subids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * ((Size) p->nsub + 1));
	for (uint32 i = 0; i < p->nxip; i++)
	{
		if (!has_id(in, nin, p->xip[i]))
			tops[ntops++] = p->xip[i];
	}
	for (uint32 i = 0; i < p->nsub; i++)
	{
		if (!has_id(in, nin, sub_ids(p)[i]))
			subids[nsubids++] = sub_ids(p)[i];
	}
	while (next < nin && in[next] < p->xmax)
		next++;
	for (uint64 id = p->xmax; id < xmax; id++)
	{
		if (in[next] == id)
			next++;
		else
			tops[ntops++] = id;
	}
	result = make_position(xmax, tops, ntops, subids, nsubids, p->wal_only);
	pfree(in);
	pfree(tops);
	pfree(subids);
	return result;
}

SxPosition *
sx_position_union(const SxPosition *a, const SxPosition *b)
{
	uint64	   *tops = MemoryContextAllocHuge(CurrentMemoryContext,
											  sizeof(uint64) * ((Size) a->nxip + b->nxip + 1));
	uint64	   *subids = MemoryContextAllocHuge(CurrentMemoryContext,
												sizeof(uint64) * ((Size) a->nsub + b->nsub + 1));
	Size		ntops = 0;
	Size		nsubids = 0;
	SxPosition *result;

	/* what is in neither is below the larger xmax, hence listed by the one that has it */
	for (int i = 0; i < 2; i++)
	{
		const SxPosition *p = i == 0 ? a : b;
		const SxPosition *other = i == 0 ? b : a;

		for (uint32 j = 0; j < p->nxip; j++)
			if (!sx_position_contains(other, p->xip[j]))
				tops[ntops++] = p->xip[j];
		for (uint32 j = 0; j < p->nsub; j++)
			if (!sx_position_contains(other, sub_ids(p)[j]))
				subids[nsubids++] = sub_ids(p)[j];
	}
	result = make_position(Max(a->xmax, b->xmax), tops, ntops, subids, nsubids,
						   a->wal_only || b->wal_only);
	pfree(tops);
	pfree(subids);
	return result;
}

bool
sx_position_covers(const SxPosition *a, const SxPosition *b)
{
	/*
	 * Nothing that a leaves out may be in b: first what a lists (of sub-transactions b may know
	 * nothing) ...
	 */
	for (uint32 i = 0; i < a->nxip; i++)
	{
		if (sx_position_contains(b, a->xip[i]))
			return false;
	}

	/* ... then everything from a's xmax on: b must list all of it */
	if (b->xmax > a->xmax)
	{
		const uint64 *bsub = sub_ids(b);
		uint64		listed = 0;

		if (a->xmax < b->xmin)
			return false;
		for (uint32 i = b->nxip; i > 0 && b->xip[i - 1] >= a->xmax; i--)
			listed++;
		for (uint32 i = b->nsub; i > 0 && bsub[i - 1] >= a->xmax; i--)
			listed++;
		return listed == b->xmax - a->xmax;
	}
	return true;
}

/* Its struct is private to core, so both ways lead through its text form */
Datum
sx_position_to_datum(const SxPosition *p)
{
	StringInfoData buf;
	Datum		result;
	const uint64 *subids = sub_ids(p);
	uint32		top = 0;
	uint32		sub = 0;

	initStringInfo(&buf);
	appendStringInfo(&buf, UINT64_FORMAT ":" UINT64_FORMAT ":", p->xmin, p->xmax);
	/* both lists ascend, and so must the result */
	while (top < p->nxip || sub < p->nsub)
	{
		bool		first = top + sub == 0;
		uint64		id = sub >= p->nsub || (top < p->nxip && p->xip[top] < subids[sub]) ?
			p->xip[top++] : subids[sub++];

		appendStringInfo(&buf, first ? UINT64_FORMAT : "," UINT64_FORMAT, id);
	}
	result = DirectFunctionCall1(pg_snapshot_in, CStringGetDatum(buf.data));
	pfree(buf.data);
	return result;
}

SxPosition *
sx_position_from_datum(Datum pg_snapshot)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(pg_snapshot_out, pg_snapshot));
	char	   *s = text;
	uint64		xmax;
	Size		maxids = 1;
	Size		n = 0;
	uint64	   *ids;
	SxPosition *p;
	uint64		xmin;

	/* the type's own output: its form needs no checking */
	for (const char *c = text; *c != '\0'; c++)
	{
		if (*c == ',')
			maxids++;
	}
	ids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint64) * (maxids + 1));

	xmin = strtou64(s, &s, 10);
	if (*s++ != ':')
		elog(ERROR, "unexpected form of a pg_snapshot: \"%s\"", text);
	xmax = strtou64(s, &s, 10);
	if (*s++ != ':')
		elog(ERROR, "unexpected form of a pg_snapshot: \"%s\"", text);
	while (*s != '\0')
	{
		ids[n++] = strtou64(s, &s, 10);
		if (*s == ',')
			s++;
		else if (*s != '\0')
			elog(ERROR, "unexpected form of a pg_snapshot: \"%s\"", text);
	}
	Assert(n == 0 || ids[0] >= xmin);
	(void) xmin;

	p = make_position(xmax, ids, n, NULL, 0, false);
	pfree(ids);
	pfree(text);
	return p;
}

/*
 * copied stays false, so that pushing or registering the snapshot makes a copy with
 * the lifetime that the snapshot manager wants; ours belongs to the caller.
 */
Snapshot
sx_position_to_snapshot(const SxPosition *p)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	Snapshot	snapshot;

	if (p->xmax > next + 1 || next - p->xmin >= (UINT64CONST(1) << 31) - FirstNormalTransactionId)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("position of a continuous view is out of the range of transaction IDs"),
				 errdetail("The position is " UINT64_FORMAT " to " UINT64_FORMAT
						   ", the next transaction ID is " UINT64_FORMAT ".",
						   p->xmin, p->xmax, next)));

	snapshot = palloc0(sizeof(SnapshotData));
	snapshot->snapshot_type = SNAPSHOT_MVCC;
	snapshot->xmin = narrow(p->xmin);
	snapshot->xmax = narrow(p->xmax);
	/* sub-transactions too: pg_subtrans may not know their parents any more */
	snapshot->xcnt = p->nxip + p->nsub;
	if (snapshot->xcnt > 0)
	{
		snapshot->xip = palloc(sizeof(TransactionId) * (Size) snapshot->xcnt);
		for (uint32 i = 0; i < snapshot->xcnt; i++)
			snapshot->xip[i] = (TransactionId) p->xip[i];
	}
	/* whose list is not complete asks pg_subtrans, as far back as that may be asked */
	snapshot->suboverflowed = p->wal_only && !TransactionIdPrecedes(snapshot->xmin, TransactionXmin);
	snapshot->curcid = FirstCommandId;
	return snapshot;
}

static int
compare_ids(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : (x > y ? 1 : 0);
}

/* The limits of a snapshot are ids that exist, or will */
static TransactionId
narrow(uint64 fxid)
{
	TransactionId xid = (TransactionId) fxid;

	return TransactionIdIsNormal(xid) ? xid : FirstNormalTransactionId;
}

static const uint64 *
sub_ids(const SxPosition *p)
{
	return p->xip + p->nxip;
}

/* sorts, and leaves out what is there twice or not below xmax; how many are left */
static Size
sort_ids(uint64 *ids, Size nids, uint64 xmax)
{
	if (nids == 0)
		return 0;
	qsort(ids, nids, sizeof(uint64), compare_ids);
	nids = qunique(ids, nids, sizeof(uint64), compare_ids);
	while (nids > 0 && ids[nids - 1] >= xmax)
		nids--;
	return nids;
}

/* The position that contains every id below xmax but these; they get sorted in place */
static SxPosition *
make_position(uint64 xmax, uint64 *ids, Size nids, uint64 *subids, Size nsubids, bool wal_only)
{
	SxPosition *p;

	nids = sort_ids(ids, nids, xmax);
	nsubids = sort_ids(subids, nsubids, xmax);
	if (nsubids > MAX_SUBXIDS)
	{
		nsubids = 0;
		wal_only = true;
	}

	/* palloc's limit of 1 GB is also that of the stored form */
	p = palloc0(offsetof(SxPosition, xip) + sizeof(uint64) * (nids + nsubids));
	p->xmin = xmax;
	if (nids > 0)
		p->xmin = Min(p->xmin, ids[0]);
	if (nsubids > 0)
		p->xmin = Min(p->xmin, subids[0]);
	p->xmax = xmax;
	p->nxip = (uint32) nids;
	p->nsub = (uint32) nsubids;
	p->wal_only = wal_only;
	if (nids > 0)
		memcpy(p->xip, ids, sizeof(uint64) * nids);
	if (nsubids > 0)
		memcpy(p->xip + nids, subids, sizeof(uint64) * nsubids);
	return p;
}

static bool
has_id(const uint64 *ids, Size nids, uint64 id)
{
	Size		low = 0;
	Size		high = nids;

	while (low < high)
	{
		Size		mid = low + (high - low) / 2;

		if (ids[mid] == id)
			return true;
		if (ids[mid] < id)
			low = mid + 1;
		else
			high = mid;
	}
	return false;
}

/*
 * Brings the list of running sub-transactions to this snapshot, which overflowed.
 * Each id is looked up once, when snapshots first reach it; later ones only drop those
 * whose top-level transaction has ended.  tops is sorted.  False: they are not known.
 */
static bool
update_running_subs(Snapshot snapshot, uint64 xmin, uint64 xmax,
					const uint64 *tops, Size ntops)
{
	uint64		start;

	/* pg_subtrans may be asked only back to here; and after a flood, rest */
	if (TransactionIdPrecedes(snapshot->xmin, TransactionXmin) || xmin < subs_pause)
	{
		nsubs = 0;
		subs_end = 0;
		return false;
	}

	/* what is kept is of use to snapshots that are not older */
	if (subs_end == 0 || subs_end < xmin || snapshot->snapXactCompletionCount < subs_taken ||
		subs_end > xmax)
	{
		nsubs = 0;
		nowners = 0;
		subs_end = xmin;
	}
	subs_taken = snapshot->snapXactCompletionCount;

	if (!owners_still_run(tops, ntops))
	{
		int			kept = 0;

		nowners = 0;
		for (int i = 0; i < nsubs; i++)
		{
			if (subs[i].fxid >= xmin && still_runs(&subs[i], tops, ntops))
			{
				note_owner(subs[i].top);
				subs[kept++] = subs[i];
			}
		}
		nsubs = kept;
	}

	start = subs_end;
	subs_end = 0;				/* void if an error stops us */
	if (xmax - start > MAX_SUBXID_LOOKUPS)
		nsubs = MAX_SUBXIDS;
	else
	{
		for (uint64 id = start; id < xmax && nsubs < MAX_SUBXIDS; id++)
		{
			RunningSub	sub = {id, 0};

			if (!TransactionIdIsNormal((TransactionId) id) || has_id(tops, ntops, id) ||
				!still_runs(&sub, tops, ntops))
				continue;
			add_running_sub(id, sub.top);
		}
	}

	if (nsubs >= MAX_SUBXIDS)
	{
		nsubs = 0;
		nowners = 0;
		subs_pause = xmax;
		return false;
	}
	subs_end = xmax;
	return true;
}

/*
 * A snapshot that did not overflow says it all: kept, so that one that does need not look
 * further back.
 */
static void
keep_running_subs(Snapshot snapshot, uint64 xmax, const uint64 *subids, Size nsubids)
{
	nsubs = 0;
	nowners = 0;
	subs_pause = 0;
	subs_end = 0;
	for (Size i = 0; i < nsubids; i++)
		add_running_sub(subids[i], 0);
	subs_end = xmax;
	subs_taken = snapshot->snapXactCompletionCount;
}

static void
add_running_sub(uint64 fxid, uint64 top)
{
	if (nsubs >= maxsubs)
	{
		int			size = maxsubs == 0 ? 256 : maxsubs * 2;

		if (subs == NULL)
			subs = MemoryContextAlloc(TopMemoryContext, sizeof(RunningSub) * size);
		else
			subs = repalloc(subs, sizeof(RunningSub) * size);
		maxsubs = size;
	}
	note_owner(top);
	subs[nsubs].fxid = fxid;
	subs[nsubs++].top = top;
}

static bool
owners_still_run(const uint64 *tops, Size ntops)
{
	for (int i = 0; i < nowners; i++)
	{
		if (owners[i] == 0 || !has_id(tops, ntops, owners[i]))
			return false;
	}
	return true;
}

/* subs of one transaction often follow each other; it does no harm to note an id again */
static void
note_owner(uint64 top)
{
	if (nowners > 0 && owners[nowners - 1] == top)
		return;
	if (nowners >= maxowners)
	{
		maxowners = maxowners == 0 ? 64 : maxowners * 2;
		if (owners == NULL)
			owners = MemoryContextAlloc(TopMemoryContext, sizeof(uint64) * maxowners);
		else
			owners = repalloc(owners, sizeof(uint64) * maxowners);
	}
	owners[nowners++] = top;
}

/* May this id, not a running top-level one, be a sub-transaction of one of tops? */
static bool
still_runs(RunningSub *sub, const uint64 *tops, Size ntops)
{
	TransactionId xid = (TransactionId) sub->fxid;

	if (sub->top == 0)
	{
		TransactionId top = SubTransGetTopmostTransaction(xid);

		/*
		 * An id without parent is a top-level one that has ended, or so new that its
		 * parent is not written yet: then it has written no row either.
		 */
		if (top == xid)
			return !TransactionIdDidCommit(xid) && !TransactionIdDidAbort(xid);
		sub->top = sx_widen_xid_near(sub->fxid, top);
	}
	return has_id(tops, ntops, sub->top);
}
