/*
 * builder_internal.h
 *		The parts of a builder: its life and WAL (builder.c), history in one piece (builder_history.c)
 *		and in chunks (history_scan.c; what is told of them: history_progress.c), the full scan (full_scan.c), slow views (builder_follow.c), and what all of them write
 *		(builder_results.c).
 *
 * A builder is a process of its own and brings up one view, so what it works on is one struct.
 */
#ifndef SX_BUILDER_INTERNAL_H
#define SX_BUILDER_INTERNAL_H

#include "worker/cycle.h"
#include "worker/worker_internal.h"

#include "catalog/definitions.h"
#include "utils/tuplestore.h"

typedef struct SxBuilder
{
	SxDb	   *db;
	SxView	   *v;
	SxViewDef  *def;
	SxViewInfo *info;
	SxPlan	   *plan;
	MemoryContext work;			/* reset after each write */
	Tuplestorestate *rows;		/* results not written yet */
	Tuplestorestate *letters;	/* dead letters not written yet */
	SxRowCounts counts;			/* of the stream rows in them */
	int64		watermark;		/* behind them */
	int64		removed_until;
	int64		open_windows;
	SxStreamTime time;
	SxLateness *lateness;		/* NULL: the view has no windows */
	uint64		stored_version; /* of the open rows stored last */
	int64		nlost;			/* rows that were gone, not reported yet; -1: not known how many */
	TimestampTz lost_from;		/* such rows were committed after this */
	uint64		seq;			/* of the stored position that history replaces */
	SxCapture  *capture;		/* while catching up */
	SxAccount	account;		/* would the view be fast enough for the others? */
	uint64		turn_rows;		/* 0: not known yet */
	int64		turn_us;		/* what this turn took, so far */
	XLogRecPtr	written_lsn;	/* start LSN of the stored position */
	bool		redefined;		/* what we know of the view is out of date */
	bool		in_history;		/* what is written belongs to history */
} SxBuilder;

extern SxBuilder sx_builder;

/* how often it looks whether a lock is free */
#define SX_LOCK_POLL_MS	100

/* builder.c */
extern void sx_builder_phase(const char *fmt,...) pg_attribute_printf(1, 2);
/* between two looks at what it waits for; ends the process if the view was dropped */
extern void sx_builder_pause(long ms);
/* what the slot must hold for the view from now on */
extern void sx_builder_protect(uint64 xmin, XLogRecPtr lsn);

/* builder_history.c */
/* from the beginning; whole: in one transaction, however large the stream is, if no row fails */
extern void sx_builder_history(bool whole);
/* from here on rows that vanish are missed: see has_not_begun() in ddl/settle.c */
extern void sx_builder_history_begins(void);
/* are rows judged before they get to a view? */
extern bool sx_builder_has_condition(void);
/* takes up a result row of history */
extern void sx_builder_store_row(void *arg, TupleTableSlot *row);
extern void sx_builder_recover_from_row(MemoryContext caller);
/* the stream with its partitions, in a transaction; with lock they cannot be replaced until its end */
extern List *sx_builder_members(bool lock);
/* until every transaction that holds a writer's lock on the stream now has ended */
extern void sx_builder_wait_for_writers(void);
/* the files of the stream that the map knows, for the stored position */
extern void sx_builder_files(SxFileMap *map, SxStoredPosition *pos);

/* builder_results.c */
/* forgets results that are not written */
extern void sx_builder_begin_results(void);
/* takes out of a batch, and counts in nlost, rows that are gone because nothing protected them */
extern void sx_builder_drop_missing(SxBatch *batch);
/*
 * Runs a batch into the results; what it took, microseconds.  Rows of history and of a scan are never late:
 * then judge is false.
 */
extern int64 sx_builder_compute(SxBatch *batch, bool judge);
/*
 * Results, dead letters and position, in the caller's transaction.  replace: instead of what the
 * table holds.
 */
extern void sx_builder_write(SxStoredPosition *pos, bool replace);
/* the same in a transaction of its own */
extern void sx_builder_commit(SxStoredPosition *pos);
/* in the caller's transaction: rows are gone, or (-1) may be */
extern void sx_builder_report_lost(int64 rows);

/* builder_follow.c */
extern uint64 sx_builder_turn_rows(void);
extern void sx_builder_begin_work(int64 rows);
extern int64 sx_builder_end_work(void);
extern void sx_builder_too_slow(const char *what, int64 us, int64 rows);
extern bool sx_builder_must_follow(void);
extern void sx_builder_note_turn(uint64 turn, XLogRecPtr held_lsn, uint64 held_rows, uint64 rows,
								 const TimestampTz *commits, int ncommits);
extern void sx_builder_rest(SxTail *tail, TimestampTz turn_started);

/* history_scan.c */
typedef enum SxHistoryResult
{
	SX_HISTORY_DONE,
	SX_HISTORY_YIELDS,			/* the process is to end: another one goes on */
	SX_HISTORY_VOID				/* what was done cannot be trusted: from the beginning, in one transaction */
} SxHistoryResult;
extern bool sx_history_is_large(void);
extern bool sx_history_begin(SxStoredPosition *pos);
extern SxHistoryResult sx_history_run(SxStoredPosition *stored);

/* full_scan.c */
extern void sx_full_scan_begin(SxStoredPosition *stored);
extern void sx_full_scan_run(SxStoredPosition *stored);

#endif							/* SX_BUILDER_INTERNAL_H */
