/*
 * range_share.c
 *		What the processes of a parallel range scan share: who reads which blocks, and what they have found.
 *
 * Ranges are handed out in pieces, in their order, to whoever asks next.  The snapshot of history is no process's active one,
 * so it comes with them.
 */
#include "postgres.h"

#include "port/atomics.h"
#include "storage/spin.h"
#include "utils/snapmgr.h"

#include "capture/range_share.h"

/* blocks of a piece; less where there are few pieces, so that nobody reads on alone for long */
#define PIECE		64
#define PIECES		256

struct SxRangeShare
{
	Oid			stream;
	AttrNumber	time_attno;
	Oid			time_type;
	int64		time_limit;
	uint64		all;			/* blocks of all ranges */
	uint32		piece;			/* at once */
	pg_atomic_uint64 next;		/* piece to hand out */
	slock_t		mutex;
	/* found so far */
	uint64		blocks;
	int64		rows;
	int64		latest;
	int			processes;
	int			n;
	SxRange		ranges[FLEXIBLE_ARRAY_MEMBER];
	/* the snapshot follows */
};

static Size
size_without_snapshot(int n)
{
	return MAXALIGN(offsetof(SxRangeShare, ranges) + sizeof(SxRange) * n);
}

Size
sx_range_share_size(const SxRanges *ranges)
{
	return size_without_snapshot(ranges->n) + EstimateSnapshotSpace(ranges->snapshot);
}

void
sx_range_share_init(SxRangeShare *share, const SxRanges *ranges)
{
	share->stream = ranges->stream;
	share->time_attno = ranges->time_attno;
	share->time_type = ranges->time_type;
	share->time_limit = ranges->time_limit;
	share->n = ranges->n;
	share->all = 0;
	for (int i = 0; i < ranges->n; i++)
	{
		share->ranges[i] = ranges->ranges[i];
		share->all += ranges->ranges[i].nblocks;
	}
	share->piece = Max(Min(PIECE, share->all / PIECES), 1);
	pg_atomic_init_u64(&share->next, 0);
	SpinLockInit(&share->mutex);
	share->blocks = 0;
	share->rows = 0;
	share->latest = ranges->latest;
	/* the leader */
	share->processes = 1;
	SerializeSnapshot(ranges->snapshot, (char *) share + size_without_snapshot(share->n));
}

/* no worker runs */
void
sx_range_share_restart(SxRangeShare *share)
{
	pg_atomic_write_u64(&share->next, 0);
	share->blocks = 0;
	share->rows = 0;
	share->processes = 1;
}

SxRanges *
sx_range_share_attach(SxRangeShare *share)
{
	SxRanges   *ranges = palloc0(sizeof(SxRanges));

	ranges->stream = share->stream;
	ranges->n = share->n;
	ranges->ranges = share->ranges;
	ranges->time_attno = share->time_attno;
	ranges->time_type = share->time_type;
	ranges->time_limit = share->time_limit;
	ranges->latest = SX_TIME_NONE;
	SpinLockAcquire(&share->mutex);
	share->processes++;
	SpinLockRelease(&share->mutex);
	ranges->snapshot = RegisterSnapshot(RestoreSnapshot((char *) share + size_without_snapshot(share->n)));
	return ranges;
}

bool
sx_range_share_next(SxRangeShare *share, SxRange *piece)
{
	uint64		number = pg_atomic_fetch_add_u64(&share->next, 1);

	for (int i = 0; i < share->n; i++)
	{
		const SxRange *range = &share->ranges[i];
		uint64		pieces = ((uint64) range->nblocks + share->piece - 1) / share->piece;

		if (number < pieces)
		{
			piece->leaf = range->leaf;
			piece->from = range->from + number * share->piece;
			piece->nblocks = Min(share->piece, range->nblocks - number * share->piece);
			return true;
		}
		number -= pieces;
	}
	return false;
}

void
sx_range_share_add(SxRangeShare *share, BlockNumber blocks, int64 rows, int64 latest)
{
	SpinLockAcquire(&share->mutex);
	share->blocks += blocks;
	share->rows += rows;
	share->latest = Max(share->latest, latest);
	SpinLockRelease(&share->mutex);
}

bool
sx_range_share_sum(SxRangeShare *share, SxRanges *ranges, uint64 *blocks, int64 *rows)
{
	SpinLockAcquire(&share->mutex);
	*blocks = share->blocks;
	*rows = share->rows;
	ranges->latest = share->latest;
	ranges->processes = share->processes;
	SpinLockRelease(&share->mutex);
	return *blocks == share->all;
}
