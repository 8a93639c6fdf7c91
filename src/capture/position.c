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
 * were running, which never changes the answer for a top-level id.  A snapshot that
 * overflowed does not know them; they are then found in pg_subtrans, incrementally,
 * as the worker asks every cycle.  Beyond MAX_SUBXIDS the list is left out: such a
 * position is exact on the WAL path, and in scans as long as pg_subtrans answers.
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

static int	compare_ids(const void *a, const void *b);
static TransactionId narrow(uint64 fxid);
static SxPosition *make_position(uint64 xmax, uint64 *ids, Size nids);
static bool has_id(const uint64 *ids, Size nids, uint64 id);
static void update_running_subs(Snapshot snapshot, uint64 xmin, uint64 xmax,
								const uint64 *tops, Size ntops);
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
	Size		n = 0;
	uint64	   *ids;
	SxPosition *p;

	Assert(snapshot->snapshot_type == SNAPSHOT_MVCC);

	ids = MemoryContextAllocHuge(CurrentMemoryContext,
								 sizeof(uint64) * ((Size) snapshot->xcnt + nsubxip + 1));

	/* empty when taken in recovery; then everything that runs is in subxip */
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		ids[n++] = sx_widen_xid_near(next, snapshot->xip[i]);

	/* our own transaction is not in its snapshot's list, but has not ended either */
	if (TransactionIdIsValid(own))
		ids[n++] = sx_widen_xid_near(next, own);

	if (!snapshot->suboverflowed || snapshot->takenDuringRecovery)
	{
		for (int32 i = 0; i < nsubxip; i++)
			ids[n++] = sx_widen_xid_near(next, snapshot->subxip[i]);
	}
	else
	{
		Size		ntops = n;

		qsort(ids, ntops, sizeof(uint64), compare_ids);
		update_running_subs(snapshot, xmin, xmax, ids, ntops);
		ids = repalloc_huge(ids, sizeof(uint64) * (ntops + nsubs + 1));
		for (int i = 0; i < nsubs; i++)
			ids[n++] = subs[i].fxid;
	}

	p = make_position(xmax, ids, n);
	pfree(ids);
	return p;
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
	return offsetof(SxPosition, xip) + sizeof(uint64) * (Size) p->nxip;
}

bool
sx_position_contains(const SxPosition *p, uint64 fxid)
{
	if (fxid < p->xmin)
		return true;
	if (fxid >= p->xmax)
		return false;
	return !has_id(p->xip, p->nxip, fxid);
}

SxPosition *
sx_position_without(const SxPosition *p, const uint64 *xids, int nxids)
{
	uint64	   *ids;
	SxPosition *result;

	ids = MemoryContextAllocHuge(CurrentMemoryContext,
								 sizeof(uint64) * ((Size) p->nxip + nxids + 1));
	memcpy(ids, p->xip, sizeof(uint64) * (Size) p->nxip);
	if (nxids > 0)
		memcpy(ids + p->nxip, xids, sizeof(uint64) * (Size) nxids);
	result = make_position(p->xmax, ids, (Size) p->nxip + nxids);
	pfree(ids);
	return result;
}

SxPosition *
sx_position_with(const SxPosition *p, uint64 fxid)
{
	uint64		xmax = Max(p->xmax, fxid + 1);
	Size		n = 0;
	uint64	   *ids;
	SxPosition *result;

	ids = MemoryContextAllocHuge(CurrentMemoryContext,
								 sizeof(uint64) * ((Size) p->nxip + (xmax - p->xmax) + 1));
	for (uint32 i = 0; i < p->nxip; i++)
	{
		if (p->xip[i] != fxid)
			ids[n++] = p->xip[i];
	}
	for (uint64 id = p->xmax; id < xmax; id++)
	{
		if (id != fxid)
			ids[n++] = id;
	}
	result = make_position(xmax, ids, n);
	pfree(ids);
	return result;
}

bool
sx_position_covers(const SxPosition *a, const SxPosition *b)
{
	/* nothing that a leaves out may be in b: first what a lists ... */
	for (uint32 i = 0; i < a->nxip; i++)
	{
		if (sx_position_contains(b, a->xip[i]))
			return false;
	}

	/* ... then everything from a's xmax on: b must list all of it */
	if (b->xmax > a->xmax)
	{
		uint64		listed = 0;

		if (a->xmax < b->xmin)
			return false;
		for (uint32 i = b->nxip; i > 0 && b->xip[i - 1] >= a->xmax; i--)
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

	initStringInfo(&buf);
	appendStringInfo(&buf, UINT64_FORMAT ":" UINT64_FORMAT ":", p->xmin, p->xmax);
	for (uint32 i = 0; i < p->nxip; i++)
		appendStringInfo(&buf, i == 0 ? UINT64_FORMAT : "," UINT64_FORMAT, p->xip[i]);
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

	p = make_position(xmax, ids, n);
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
	if (p->nxip > 0)
	{
		snapshot->xip = palloc(sizeof(TransactionId) * (Size) p->nxip);
		for (uint32 i = 0; i < p->nxip; i++)
			snapshot->xip[i] = (TransactionId) p->xip[i];
	}
	snapshot->xcnt = p->nxip;
	snapshot->suboverflowed = true;
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

/* The position that contains every id below xmax but these; they get sorted in place */
static SxPosition *
make_position(uint64 xmax, uint64 *ids, Size nids)
{
	SxPosition *p;

	qsort(ids, nids, sizeof(uint64), compare_ids);
	nids = qunique(ids, nids, sizeof(uint64), compare_ids);
	while (nids > 0 && ids[nids - 1] >= xmax)
		nids--;

	/* palloc's limit of 1 GB is also that of the stored form */
	p = palloc(offsetof(SxPosition, xip) + sizeof(uint64) * nids);
	p->xmin = nids > 0 ? ids[0] : xmax;
	p->xmax = xmax;
	p->nxip = (uint32) nids;
	memcpy(p->xip, ids, sizeof(uint64) * nids);
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
 * whose top-level transaction has ended.  tops is sorted.
 */
static void
update_running_subs(Snapshot snapshot, uint64 xmin, uint64 xmax,
					const uint64 *tops, Size ntops)
{
	uint64		start;
	int			kept = 0;

	/* pg_subtrans may be asked only back to here; and after a flood, rest */
	if (TransactionIdPrecedes(snapshot->xmin, TransactionXmin) || xmin < subs_pause)
	{
		nsubs = 0;
		subs_end = 0;
		return;
	}

	/* what is kept is of use to snapshots that are not older */
	if (subs_end == 0 || subs_end < xmin || snapshot->snapXactCompletionCount < subs_taken ||
		subs_end > xmax)
	{
		nsubs = 0;
		subs_end = xmin;
	}
	subs_taken = snapshot->snapXactCompletionCount;

	for (int i = 0; i < nsubs; i++)
	{
		if (subs[i].fxid >= xmin && still_runs(&subs[i], tops, ntops))
			subs[kept++] = subs[i];
	}
	nsubs = kept;

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
			if (nsubs >= maxsubs)
			{
				int			size = maxsubs == 0 ? 256 : maxsubs * 2;

				if (subs == NULL)
					subs = MemoryContextAlloc(TopMemoryContext, sizeof(RunningSub) * size);
				else
					subs = repalloc(subs, sizeof(RunningSub) * size);
				maxsubs = size;
			}
			subs[nsubs++] = sub;
		}
	}

	if (nsubs >= MAX_SUBXIDS)
	{
		nsubs = 0;
		subs_pause = xmax;
		return;
	}
	subs_end = xmax;
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
