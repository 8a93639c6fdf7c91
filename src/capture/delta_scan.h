/*
 * delta_scan.h
 *		The custom scan that stands in for the stream in a delta plan: yields the
 *		rows at the addresses of a batch, in the stream's row type.
 *
 * A row counts when its raw xmin equals the recorded id, whatever its xmax.
 */
#ifndef SX_DELTA_SCAN_H
#define SX_DELTA_SCAN_H

#include "capture/event_time.h"
#include "capture/file_map.h"
#include "capture/pending.h"
#include "capture/position.h"

#include "executor/tuptable.h"
#include "nodes/pathnodes.h"
#include "nodes/plannodes.h"

/*
 * The event times of a batch, found by whoever reads it first.  What a run adds counts if the run does:
 * whoever runs a slice again puts back what was there before.
 */
typedef struct SxBatchTimes
{
	int64		limit;			/* later ones are from the future: they are only counted */
	/* found */
	uint64		covered;		/* rows; all of the batch: nothing is left to find */
	int64		first;			/* SX_TIME_END: none */
	int64		last;			/* up to the limit; SX_TIME_NONE: none */
	int64		future;			/* rows */
} SxBatchTimes;

typedef enum SxLate
{
	SX_NOT_LATE,
	SX_PARTLY_LATE,				/* for some of the windows that it falls into */
	SX_LATE,
	SX_TOO_LATE,				/* for windows that are not kept any more */
	SX_ASK						/* that depends on the rows around it: see SxBatchLate */
} SxLate;

/* A row that only other rows tell of whether it is late */
typedef struct SxAskedRow
{
	SxRun		run;			/* this row */
	int64		event_time;
} SxAskedRow;

/* Rows that come late for one view, after the conditions on the stream alone */
typedef struct SxBatchLate
{
	int64		before;			/* only earlier ones can be */
	/* inside the plan, as the view's owner */
	SxLate		(*how_late) (void *arg, int64 event_time);
	void	   *arg;
	bool		leave_out;		/* SX_LATE: not given to the plan; SX_TOO_LATE never is */
	bool		keep;			/* of those the addresses are wanted */
	/* found */
	int64		n;				/* all but SX_NOT_LATE */
	int64		nleft_out;
	int			nruns;
	int			maxruns;
	SxRun	   *runs;			/* one row each */
	/* SX_ASK: not given to the plan; whoever runs it asks when it has run */
	int			nasked;
	int			maxasked;
	SxAskedRow *asked;
	MemoryContext context;		/* of these */
} SxBatchLate;

typedef struct SxBatchRows SxBatchRows;

typedef struct SxBatch
{
	Oid			stream;			/* root of the plan's stream */
	SxFileMap  *map;
	int			nruns;
	SxRun	   *runs;			/* all of this stream's; runs on dead files are skipped */
	uint64		nrows;			/* sum of counts */
	/* a slice, for finding the row that fails: rows from .. from + limit - 1 in run order */
	uint64		from;
	uint64		limit;			/* PG_UINT64_MAX: to the end */
	/* the stream's event time, for both of: */
	AttrNumber	time_attno;
	Oid			time_type;
	SxBatchTimes *times;		/* NULL: nobody asks */
	SxBatchLate *late;			/* NULL: none are late */
	SxBatchRows *rows;				/* read once for several views (batch_rows.h); NULL: one view takes it */
	HeapTuple	tuple;			/* not NULL: this one row of the stream's type, and no addresses */
	struct SxEntrance *entrance;	/* which rows are valid, when somebody has looked (worker/entrance.c) */
} SxBatch;

/*
 * A batch of the rows of these ready transactions that belong to one stream (palloc'd);
 * nready may be 0.  skip: without the runs that have this mark (SX_RUN_EARLY, SX_RUN_JOINED); 0: all.
 */
extern SxBatch *sx_batch_create(SxFileMap *map, Oid stream, SxReady **ready, int nready,
								uint32 skip);
/* a batch of one row that lies nowhere */
extern SxBatch *sx_batch_of_row(Oid stream, HeapTuple tuple);
extern SxBatch *sx_batch_slice(SxBatch *batch, uint64 from, uint64 limit);
/* goes through all rows for their event times; after sx_batch_lock */
extern void sx_batch_find_times(SxBatch *batch);
/*
 * Goes through all rows with their first natts columns, each with its address and number in the batch; after
 * sx_batch_lock.
 */
typedef void (*SxBatchRow) (void *arg, TupleTableSlot *slot, const SxRun *row, uint64 number);
extern void sx_batch_each(SxBatch *batch, AttrNumber natts, SxBatchRow each, void *arg);
/* tries AccessShareLock on the stream and every leaf in the batch; false: not free */
extern bool sx_batch_lock(SxBatch *batch);
/*
 * Takes the addresses out whose row is not there any more; returns how many.  After sx_batch_lock.
 */
extern uint64 sx_batch_drop_missing(SxBatch *batch);
/* the one row of a batch of one as to_jsonb(row)'s text, or NULL if that fails; may run user code */
extern char *sx_batch_row_json(SxBatch *batch);

/* The batch that the next ExecutorStart of a delta plan reads */
extern SxBatch *sx_delta_batch;

extern void sx_delta_scan_init(void);	/* registers the custom scan, at load */
/*
 * For the planner hook: the path that replaces all others of the stream's rel.  whole: more columns than are needed do no
 * harm above.
 */
extern Path *sx_delta_scan_path(PlannerInfo *root, RelOptInfo *rel, double rows, bool whole);
extern bool sx_is_delta_scan(Plan *plan);
/* the stream's columns that it needs, added to the set */
extern Bitmapset *sx_delta_scan_columns(Plan *plan, Bitmapset *columns);

/*
 * The full scan of one file by rule.  Calls add() for every row version that is an
 * uncounted INSERT: not HEAP_UPDATED, raw xmin's top-level transaction committed, seen
 * by `upto` and, when `position` is not NULL, not contained in it.  With `mark` (the
 * attached partition's snapshot) also every version visible to mark.  fxid is top-level.
 */
typedef void (*SxFoundRow) (void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off);
extern void sx_file_scan(Oid leaf, Snapshot upto, const SxPosition *position, Snapshot mark,
						 SxFoundRow add, void *arg);
/*
 * The same from one block on, for at most nblocks blocks or until nrows are found, with the
 * transactions that count given by a position.  Returns the next block, InvalidBlockNumber at the end.
 */
extern BlockNumber sx_file_scan_part(Oid leaf, BlockNumber from, BlockNumber nblocks, uint64 nrows,
									 const SxPosition *upto, const SxPosition *position, Snapshot mark,
									 SxFoundRow add, void *arg);
/*
 * Every row version that the snapshot sees in nblocks blocks of the leaf (history with dead letters).
 */
extern void sx_file_scan_visible(Oid leaf, BlockNumber from, BlockNumber nblocks, Snapshot snapshot,
								 SxFoundRow add, void *arg);

#endif							/* SX_DELTA_SCAN_H */
