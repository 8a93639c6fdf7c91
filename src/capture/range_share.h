/*
 * range_share.h
 *		What the processes of a parallel range scan share: who reads which blocks, and what they have found.
 */
#ifndef SX_RANGE_SHARE_H
#define SX_RANGE_SHARE_H

#include "capture/range_scan.h"

/* In dynamic shared memory */
typedef struct SxRangeShare SxRangeShare;

extern Size sx_range_share_size(const SxRanges *ranges);
extern void sx_range_share_init(SxRangeShare *share, const SxRanges *ranges);
/* all is read once more */
extern void sx_range_share_restart(SxRangeShare *share);
/* in a worker: a copy of the leader's, without progress; its snapshot is registered */
extern SxRanges *sx_range_share_attach(SxRangeShare *share);
/* the next blocks that nobody has read; false: there are none */
extern bool sx_range_share_next(SxRangeShare *share, SxRange *piece);
/* what was read since */
extern void sx_range_share_add(SxRangeShare *share, BlockNumber blocks, int64 rows, int64 latest);
/* all together, with latest and processes of ranges; true: all blocks */
extern bool sx_range_share_sum(SxRangeShare *share, SxRanges *ranges, uint64 *blocks, int64 *rows);

#endif							/* SX_RANGE_SHARE_H */
