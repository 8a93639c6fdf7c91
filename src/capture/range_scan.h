/*
 * range_scan.h
 *		The custom scan that stands in for the stream in a plan over a part of history: yields what
 *		a snapshot sees in ranges of blocks of the stream's leaves.
 */
#ifndef SX_RANGE_SCAN_H
#define SX_RANGE_SCAN_H

#include "capture/event_time.h"

#include "nodes/pathnodes.h"
#include "nodes/plannodes.h"
#include "storage/block.h"
#include "utils/snapshot.h"

/* Blocks of one leaf, on which the caller has a lock */
typedef struct SxRange
{
	Oid			leaf;
	BlockNumber from;
	BlockNumber nblocks;
} SxRange;

/* The part that the next ExecutorStart of such a plan reads */
typedef struct SxRanges
{
	Oid			stream;			/* root of the plan's stream */
	Snapshot	snapshot;		/* registered */
	int			n;
	SxRange    *ranges;			/* in the order in which they are read */
	/* the stream's event time */
	AttrNumber	time_attno;		/* 0: nobody asks */
	Oid			time_type;
	int64		time_limit;		/* later ones are from the future: not asked for */
	/* called now and then with the number of blocks and rows read since; may be NULL, must not raise */
	void		(*progress) (BlockNumber blocks, int64 rows);
	/* found, when the plan has run; at first 0, SX_TIME_NONE, 0, false */
	int64		rows;			/* before any condition of the query */
	int64		latest;
	int			processes;		/* that have read: see range_share.c */
	bool		complete;		/* all rows were read; a join with nothing reads none */
} SxRanges;

extern SxRanges *sx_ranges;

extern void sx_range_scan_init(void);	/* registers the custom scan, at load */
/* for the planner hook: a path that replaces all others of the stream's rel; workers: 0, or a partial one */
extern Path *sx_range_scan_path(PlannerInfo *root, RelOptInfo *rel, bool whole, int workers);
extern bool sx_is_range_scan(Plan *plan);
/* reads what the plan has not, for the latest event time */
extern void sx_ranges_find_latest(SxRanges *ranges);

#endif							/* SX_RANGE_SCAN_H */
