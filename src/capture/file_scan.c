/*
 * file_scan.c
 *		The full scan of one file by rule: what is new, when no WAL says it.
 *
 * A row version is an uncounted INSERT if it was not made by an UPDATE, its raw xmin's
 * top-level transaction has committed, is seen by a snapshot and is not contained in a
 * position.  Freezing keeps the raw xmin, so a frozen row is judged like any other.
 *
 * Rows that a rewrite (ALTER COLUMN TYPE ...) gave a new xmin are not new: catalog/file_marks.c.
 *
 * From a raw id to its top-level transaction
 *
 * pg_subtrans is sure to answer only for ids that are not older than the oldest one a
 * snapshot of ours may ask for (TransactionXmin).  An older id counts by itself:
 *	- for `upto`, a snapshot taken now, it is finished, like every transaction that it can
 *	  belong to;
 *	- below the position's xmin it is contained, since a sub-transaction's id is above its
 *	  parent's, so its transaction is contained too;
 *	- listed in the position it is not contained: sx_position_from_snapshot lists running
 *	  sub-transactions for exactly this question;
 *	- at or above the position's xmax it is not contained: a transaction that had ended
 *	  when the position's snapshot was taken has no id from there on.
 *	- in between and not listed, it was finished when the snapshot was taken: contained.
 * What remains are sub-transactions of a snapshot with more than 65,536 of them, as
 * position.c explains.
 *
 * Which 2^32
 *
 * A row that is not frozen is at most 2^31 transactions old.  A frozen one is taken to be
 * at most 2^32 old, which is certain in a cluster that has not used more.  In one that has,
 * a frozen row that seems new may be ancient; those are counted and reported.
 *
 * Pages are read one by one through a ring of buffers and judged under a share lock; the
 * rows found on a page are handed on after it is released.  AccessShareLock on the leaf
 * lasts until the caller's transaction ends, so that the addresses stay good for it.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/subtrans.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "capture/delta_scan.h"
#include "catalog/file_marks.h"

typedef struct FileScan
{
	Snapshot	upto;
	const SxPosition *upto_position;	/* instead of upto */
	BlockNumber from;			/* the part to scan */
	BlockNumber nblocks;
	uint64		nrows;
	uint64		upto_xmin;
	const SxPosition *position; /* may be NULL */
	Snapshot	mark;			/* may be NULL */
	const SxFileMark *rewrite;	/* how the leaf got its file, if rows have a new xmin since; may be NULL */
	bool		visible;		/* every version that upto sees, and nothing else */
	uint64		next;			/* next transaction id when the scan began */
	uint64		ambiguous;		/* frozen rows whose age may be beyond 2^32 */

	/* the last id judged that was not frozen: neighbours often share it */
	TransactionId last_xid;
	bool		last_new;
	uint64		last_fxid;
} FileScan;

static BlockNumber scan_file(FileScan *scan, Oid leaf, SxFoundRow add, void *arg);
static void report_ambiguous(FileScan *scan);
static bool seen_by_upto(FileScan *scan, TransactionId xid, uint64 fxid);
static const SxFileMark *find_rewrite(Relation rel);
static bool row_counts(FileScan *scan, HeapTuple tuple, Buffer buffer, uint64 *fxid);
static bool xid_is_new(FileScan *scan, TransactionId xid, bool committed, uint64 *fxid);
static bool is_contained(FileScan *scan, TransactionId xid, uint64 fxid);
static bool frozen_is_new(FileScan *scan, TransactionId xid, uint64 *fxid);
static uint64 top_level(FileScan *scan, TransactionId xid);
static uint64 frozen_top_level(FileScan *scan, TransactionId xid);

void
sx_file_scan(Oid leaf, Snapshot upto, const SxPosition *position, Snapshot mark,
			 SxFoundRow add, void *arg)
{
	FileScan	scan = {0};

	scan.upto = upto;
	scan.upto_xmin = sx_widen_xid(upto->xmin);
	scan.position = position;
	scan.mark = mark;
	scan.next = U64FromFullTransactionId(ReadNextFullTransactionId());
	scan.nblocks = MaxBlockNumber;
	scan.nrows = PG_UINT64_MAX;
	(void) scan_file(&scan, leaf, add, arg);
	report_ambiguous(&scan);
}

BlockNumber
sx_file_scan_part(Oid leaf, BlockNumber from, BlockNumber nblocks, uint64 nrows,
				  const SxPosition *upto, const SxPosition *position, Snapshot mark,
				  SxFoundRow add, void *arg)
{
	FileScan	scan = {0};
	BlockNumber next;

	scan.upto_position = upto;
	scan.upto_xmin = upto->xmin;
	scan.position = position;
	scan.mark = mark;
	scan.next = U64FromFullTransactionId(ReadNextFullTransactionId());
	scan.from = from;
	scan.nblocks = nblocks;
	scan.nrows = nrows;
	next = scan_file(&scan, leaf, add, arg);
	report_ambiguous(&scan);
	return next;
}

static void
report_ambiguous(FileScan *scan)
{
	if (scan->ambiguous > 0)
		ereport(WARNING,
				(errmsg("found " UINT64_FORMAT " frozen rows whose age is not certain", scan->ambiguous),
				 errdetail("They were counted as new, but may be older than 2^32 transactions."),
				 errhint("Compare the view with its query: SELECT * FROM streamext.verify(view).")));
}

void
sx_file_scan_visible(Oid leaf, BlockNumber from, BlockNumber nblocks, Snapshot snapshot, SxFoundRow add, void *arg)
{
	FileScan	scan = {0};

	scan.upto = snapshot;
	scan.upto_xmin = sx_widen_xid(snapshot->xmin);
	scan.visible = true;
	scan.next = U64FromFullTransactionId(ReadNextFullTransactionId());
	scan.from = from;
	scan.nblocks = nblocks;
	scan.nrows = PG_UINT64_MAX;
	(void) scan_file(&scan, leaf, add, arg);
}

static BlockNumber
scan_file(FileScan *scan, Oid leaf, SxFoundRow add, void *arg)
{
	Relation	rel = try_relation_open(leaf, AccessShareLock);
	BufferAccessStrategy strategy;
	BlockNumber nblocks;
	TransactionId xids[MaxHeapTuplesPerPage];
	uint64		fxids[MaxHeapTuplesPerPage];
	OffsetNumber offs[MaxHeapTuplesPerPage];
	BlockNumber block = scan->from;
	BlockNumber limit;
	uint64		found = 0;

	if (rel == NULL)
		return InvalidBlockNumber;	/* dropped: its rows are gone with it */
	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not an ordinary heap table", RelationGetRelationName(rel))));

	/* whatever the snapshots see was in the file before they were taken */
	nblocks = RelationGetNumberOfBlocks(rel);
	if (!scan->visible)
		scan->rewrite = find_rewrite(rel);
	strategy = GetAccessStrategy(BAS_BULKREAD);

	limit = scan->from < nblocks ? scan->from + Min(nblocks - scan->from, scan->nblocks) : 0;
	for (; block < limit && found < scan->nrows; block++)
	{
		Buffer		buffer;
		Page		page;
		OffsetNumber max;
		int			n = 0;

		CHECK_FOR_INTERRUPTS();

		buffer = ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		page = BufferGetPage(buffer);
		max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
		for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
		{
			ItemId		lp = PageGetItemId(page, off);
			HeapTupleData tuple;

			if (!ItemIdIsNormal(lp))
				continue;
			tuple.t_data = (HeapTupleHeader) PageGetItem(page, lp);
			tuple.t_len = ItemIdGetLength(lp);
			tuple.t_tableOid = RelationGetRelid(rel);
			ItemPointerSet(&tuple.t_self, block, off);
			if (row_counts(scan, &tuple, buffer, &fxids[n]))
			{
				xids[n] = HeapTupleHeaderGetRawXmin(tuple.t_data);
				offs[n] = off;
				n++;
			}
		}
		UnlockReleaseBuffer(buffer);

		for (int i = 0; i < n; i++)
			add(arg, fxids[i], xids[i], block, offs[i]);
		found += n;
	}

	FreeAccessStrategy(strategy);
	relation_close(rel, NoLock);
	return block < nblocks ? block : InvalidBlockNumber;
}

/* the file's mark, committed with the file itself, if all its rows have got a new xmin */
static const SxFileMark *
find_rewrite(Relation rel)
{
	ListCell   *lc;

	foreach(lc, sx_catalog_file_marks(RelationGetRelid(rel)))
	{
		SxFileMark *mark = lfirst(lc);

		if (mark->kind == SX_FILE_REWRITTEN && SxFileEquals(mark->file, SxRelationFile(rel)))
			return mark;
	}
	return NULL;
}

static bool
row_counts(FileScan *scan, HeapTuple tuple, Buffer buffer, uint64 *fxid)
{
	HeapTupleHeader header = tuple->t_data;
	TransactionId xid = HeapTupleHeaderGetRawXmin(header);
	Snapshot	seen_by = scan->visible ? scan->upto : scan->mark;

	if (seen_by != NULL && HeapTupleSatisfiesVisibility(tuple, seen_by, buffer))
	{
		*fxid = HeapTupleHeaderXminFrozen(header) ? frozen_top_level(scan, xid) :
			top_level(scan, xid);
		return true;
	}
	if (scan->visible || (header->t_infomask & HEAP_UPDATED))
		return false;
	if (scan->rewrite != NULL &&
		sx_file_mark_covers(scan->rewrite, scan->next, xid, ItemPointerGetBlockNumber(&tuple->t_self),
							ItemPointerGetOffsetNumber(&tuple->t_self)))
		return false;

	/* both hints together say frozen */
	if (HeapTupleHeaderXminFrozen(header))
		return frozen_is_new(scan, xid, fxid);
	if (HeapTupleHeaderXminInvalid(header))
		return false;
	return xid_is_new(scan, xid, HeapTupleHeaderXminCommitted(header), fxid);
}

/* committed: a hint says so; it may have done so after upto was taken */
static bool
xid_is_new(FileScan *scan, TransactionId xid, bool committed, uint64 *fxid)
{
	/* an insertion that lost to another and was taken back (ON CONFLICT) */
	if (!TransactionIdIsValid(xid))
		return false;
	/* ids that a very old server wrote when it froze, or initdb */
	if (!TransactionIdIsNormal(xid))
	{
		*fxid = xid;
		return scan->position == NULL;
	}

	if (xid != scan->last_xid)
	{
		scan->last_xid = InvalidTransactionId;
		scan->last_fxid = top_level(scan, xid);

		/* the snapshot first: an id that it sees as running may have ended since */
		scan->last_new = !TransactionIdIsCurrentTransactionId(xid) &&
			seen_by_upto(scan, xid, scan->last_fxid) &&
			(committed || TransactionIdDidCommit(xid)) &&
			!is_contained(scan, xid, scan->last_fxid);
		scan->last_xid = xid;
	}
	*fxid = scan->last_fxid;
	return scan->last_new;
}

/* A mark contains what its own transaction had done by then, but not what that did in sub-transactions later */
static bool
is_contained(FileScan *scan, TransactionId xid, uint64 fxid)
{
	return scan->position != NULL && sx_position_contains(scan->position, fxid) &&
		(scan->mark == NULL || !TransactionIdIsNormal(xid) || (TransactionId) fxid == xid ||
		 sx_position_contains(scan->position, sx_widen_xid_near(fxid, xid)));
}

/* A position lists running sub-transactions, and pg_subtrans need not know its ids any more */
static bool
seen_by_upto(FileScan *scan, TransactionId xid, uint64 fxid)
{
	if (scan->upto_position == NULL)
		return !XidInMVCCSnapshot(xid, scan->upto);
	return sx_position_contains(scan->upto_position, fxid) &&
		sx_position_contains(scan->upto_position, sx_widen_xid_near(scan->next, xid));
}

/*
 * VACUUM freezes what all can see, but COPY FREEZE writes frozen rows at once, so recent
 * ids are judged as if the row were not frozen.
 */
static bool
frozen_is_new(FileScan *scan, TransactionId xid, uint64 *fxid)
{
	*fxid = frozen_top_level(scan, xid);
	if ((!TransactionIdIsNormal(xid) || *fxid >= scan->upto_xmin) &&
		!xid_is_new(scan, xid, true, fxid))
		return false;
	if (scan->position == NULL)
		return true;
	if (is_contained(scan, xid, *fxid))
		return false;
	if (*fxid >= UINT64CONST(0x100000000))
		scan->ambiguous++;
	return true;
}

/* See the top of this file */
static uint64
top_level(FileScan *scan, TransactionId xid)
{
	if (!TransactionIdIsNormal(xid))
		return xid;
	if (TransactionIdFollowsOrEquals(xid, TransactionXmin) &&
		TransactionIdPrecedes(xid, (TransactionId) scan->next))
		xid = SubTransGetTopmostTransaction(xid);
	return sx_widen_xid_near(scan->next, xid);
}

static uint64
frozen_top_level(FileScan *scan, TransactionId xid)
{
	uint64		age = (uint32) ((uint32) scan->next - xid);

	if (!TransactionIdIsNormal(xid) || age <= PG_INT32_MAX || age > scan->next)
		return top_level(scan, xid);
	return scan->next - age;
}
