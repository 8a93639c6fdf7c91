/*
 * consumer_internal.h
 *		The parts of the consumer: the cycle (consumer.c), computing (consumer_compute.c), the views it knows
 *		(consumer_views.c), joining (consumer_join.c), leaving (consumer_leave.c), flush and slot
 *		(consumer_flush.c), watermarks without rows (consumer_time.c), large transactions (consumer_early.c) and the process
 *		that helps with them (consumer_helper.c).
 */
#ifndef SX_CONSUMER_INTERNAL_H
#define SX_CONSUMER_INTERNAL_H

#include "worker/cycle.h"
#include "worker/helper.h"
#include "worker/worker_internal.h"

/* this long the rows of a locked stream wait before its views leave */
#define SX_LOCK_GRACE_MS	200

/* the consumer's side of one view; exists while the view is in the catalog */
typedef struct LiveView
{
	SxView	   *shared;
	SxViewDef  *def;			/* in context */
	SxStreamTime time;			/* of its stream */
	MemoryContext context;
	bool		gone;			/* no longer in the catalog */
	bool		drop_pending;	/* live state goes when the flusher has let go of it */
	bool		stopped;		/* by the catalog: streamext.view_stop */
	bool		needs_builder;	/* joining failed: a builder catches up first */
	bool		caught_up;		/* a builder did: nearer than this it does not come */
	BackgroundWorkerHandle *builder;
	TimestampTz builder_started;
	bool		builder_ended;	/* we told it to end */
	int			turn_ms;		/* what the builder may take while others wait for a process */
	TimestampTz waits_since;	/* for a process; 0: it does not */
	SxAccount	account;
	bool		over_budget;	/* found out where it could not be detached */
	int			slow_ms;		/* the run that used up the account */
	uint64		slow_rows;
	/* while live: */
	SxViewInfo *info;
	SxPlan	   *plan;
	bool		has_lookups;	/* the plan joins other tables */
	SxLiveWriter *writer;
	SxLateness *lateness;		/* NULL: the view has no windows */
	bool		prepared;		/* takes part in the publication of this cycle */
	SxRowCounts counts;			/* of the stream rows in what is prepared */
	int64		watermark;		/* behind them */
	/* when no more rows come: consumer_time.c */
	TimestampTz row_at;			/* of moment.h: when the last one was published */
	int64		row_watermark;	/* ... and the watermark then */
	TimestampTz clock_at;		/* of moment.h: when the clock was last looked at */
	bool		all_closed;		/* all windows of the last row are */
	bool		closed_unsealed;	/* by the clock, and not stored */
	int64		sealed_watermark;
	bool		flush_wanted;	/* by the request being carried out */
	SxPosition *sealed;			/* position at the last seal, in context */
	XLogRecPtr	sealed_lsn;
	uint64		stored_version; /* of the open rows sealed last; see sx_pending_stored_version */
	uint64		flush_gen;		/* the last one that the request being carried out waits for */
	/* leaving the shared position: */
	struct LeftAt *left;		/* where it stood; flushed before its live state goes */
	bool		stream_locked;	/* a builder has to wait for a lock on the stream */
	TimestampTz locked_since;	/* of moment.h; 0: not locked */
	TimestampTz lock_looked_at;
	/* of a hidden view that is to take another's place: */
	BackgroundWorkerHandle *swapper;
	TimestampTz swap_at;		/* not before */
	bool		dangling;		/* there is no such view */
} LiveView;

/* A published position with the files that it knows */
typedef struct LeftAt
{
	SxPosition *position;
	XLogRecPtr	start_lsn;
	int			nfiles;
	Oid		   *rels;
	Oid		   *nodes;
	bytea	   *open_rows;
	bool		new_open_rows;
} LeftAt;


/* a slow view stays slow when the consumer starts again */
typedef struct SlowView
{
	Oid			viewid;
	int			setbacks;
	TimestampTz setback_at;
	int			setback_pause;
	TimestampTz slow_until;
	char		slow_why[sizeof(((SxView *) 0)->slow_why)];
} SlowView;

typedef struct Consumer
{
	SxDb	   *db;
	SxTail	   *tail;			/* the capture for all live views */
	List	   *views;			/* of LiveView *, in TopMemoryContext */
	MemoryContext turn;			/* reset every turn of the loop */
	SxPosition *position;		/* published; in TopMemoryContext */
	uint64		cycle;
	TimestampTz cycle_at;		/* when it began, by the clock on the wall */
	TimestampTz complete_at;	/* every transaction that ended before is in position */
	bool		follow_closely; /* a large transaction is open */
	bool		backlog;		/* there is more to do at once */
	bool		early_backlog;	/* … of open transactions */
	TimestampTz lag_at;			/* when lag_rows was found */
	bool		holds;			/* a transaction is not consumed yet, because its rows are still being computed early */
	bool		retry_soon;		/* … when a lock is free */
	bool		reload;			/* the catalog is to be read again */
	uint32		require_epoch;	/* of the last load of the catalog */
	uint64		flush_request;	/* being carried out; 0: none */
	long		longest_sleep;	/* ms; 0: the shortest of the longest */
	/* transactions of the whole server that had ended at the end of the last turn */
	uint64		completed;
	TimestampTz completed_at;
	XLogRecPtr	slept_at;		/* WAL had been read up to there */
	TimestampTz last_free;		/* when generations were last looked through */
	TimestampTz last_watch;		/* when builders were last looked after */
	bool		no_worker;		/* max_worker_processes was exhausted, and that was logged */
	List	   *known;			/* of SlowView *: what a predecessor knew */
} Consumer;

/* consumer.c */
extern XLogRecPtr sx_consumer_start_lsn(Consumer *c);
/* a definition has changed since they were loaded */
extern bool sx_consumer_is_stale(Consumer *c);
/* around all that runs a live view's code: begin, then end; false: it took too long */
extern void sx_consumer_begin_run(LiveView *lv, uint64 rows);
extern bool sx_consumer_end_run(LiveView *lv, uint64 rows);

/* consumer_compute.c */
/* runs every live view over the transactions taken */
extern void sx_consumer_compute_all(Consumer *c, List **taken, List **postponed, bool relieved, bool *again);
/* runs a batch for one view into what its writer has prepared */
extern SxProcessResult sx_consumer_compute(LiveView *lv, SxBatch *batch, MemoryContext mcxt,
										   ErrorData **error, char **blocked_by);
/* what is prepared continues this watermark */
extern void sx_consumer_begin_prepare(LiveView *lv, int64 watermark);

/* consumer_early.c */
/* S: what has committed by it may be joined with other tables, early */
extern bool sx_consumer_early(Consumer *c, SxPosition *snapshot);

/* of the runs that have been computed early for this view */
static inline uint32
sx_early_mark(LiveView *lv)
{
	return lv->has_lookups ? SX_RUN_JOINED : SX_RUN_EARLY;
}

extern void sx_consumer_drop_early(Consumer *c);
extern void sx_consumer_drop_early_of(Consumer *c, LiveView *lv);
extern bool sx_consumer_has_early(Consumer *c, LiveView *lv, SxReady *r);
extern SxProcessResult sx_consumer_apply_early(Consumer *c, LiveView *lv, SxReady *r, ErrorData **error);

/* consumer_helper.c */
typedef struct SxWantedView
{
	SxHelperView view;
	void	   *owner;			/* of the result */
} SxWantedView;

/* a result, in the memory of the job: result, times, slow_ms */
typedef void (*SxCollect) (Consumer *c, void *owner, const SxHelperView *result);

extern int	sx_consumer_helper_room(Consumer *c, bool open, bool start);
extern bool sx_consumer_helper_hangs(void);
extern bool sx_consumer_is_crowded(void);
/* these rows, for these (SxWantedView *) of the live views; false: no memory */
extern bool sx_consumer_give(Consumer *c, SxReady *slice, List *wanted);
extern void sx_consumer_collect(Consumer *c, SxCollect collect);
extern void sx_consumer_unwanted(Consumer *c, void *owner);
extern void sx_consumer_wait_helper(Consumer *c, SxCollect collect);

/* consumer_leave.c */
extern void sx_consumer_leave(Consumer *c, LiveView *lv, const char *reason);
extern void sx_consumer_leave_blocked(Consumer *c);
extern void sx_consumer_leave_gained(Consumer *c, LiveView *joined, SxFileMap *own);
extern bool sx_consumer_stream_locked(Consumer *c, LiveView *lv);
extern void sx_consumer_end_leave(LiveView *lv);

/* consumer_views.c */
extern void sx_consumer_load_views(Consumer *c);
extern void sx_consumer_set_state(SxDb *db, SxView *v, SxViewState state);
extern void sx_consumer_detach(Consumer *c, LiveView *lv, SxViewState next);
extern void sx_consumer_fail(Consumer *c, LiveView *lv, const char *message);
extern void sx_consumer_slow(Consumer *c, LiveView *lv);
extern void sx_consumer_stop(Consumer *c, LiveView *lv, const char *reason);
extern void sx_consumer_stop_broken(Consumer *c);
extern void sx_consumer_drop_detached(Consumer *c);
extern bool sx_consumer_go_live(Consumer *c, LiveView *lv);
extern List *sx_consumer_live_streams(Consumer *c);

/* consumer_slot.c */
extern void sx_consumer_acquire_slot(Consumer *c);
/* why the slot cannot be had: in the status, and once in the log */
extern void sx_consumer_note_problem(SxDb *db, const ErrorData *error);
extern void sx_consumer_protect(Consumer *c, LiveView *lv, const SxStoredPosition *pos);
extern void sx_consumer_advance_slot(Consumer *c);
/* bytes of WAL that the slot may hold */
extern uint64 sx_consumer_wal_limit(void);

/* standby.c */
extern void sx_standby_hold(SxDb *db);

/* consumer_builders.c */
extern void sx_consumer_launch_builders(Consumer *c);

/* consumer_time.c */
extern void sx_consumer_follow_clock(Consumer *c);
extern void sx_consumer_note_row(Consumer *c, LiveView *lv);
extern long sx_consumer_clock_ms(Consumer *c);

/* consumer_join.c */
extern void sx_consumer_join(Consumer *c);

/* consumer_flush.c */
extern void sx_consumer_flush(Consumer *c);
extern bool sx_consumer_is_unflushed(SxView *v);
extern void sx_consumer_relieve(Consumer *c);
extern long sx_consumer_next_flush_ms(Consumer *c);
extern void sx_consumer_wait_flusher(Consumer *c);
/* the files that the published position knows, for whoever restarts from it */
extern int	sx_consumer_files(Consumer *c, Oid streamid, Oid **rels, Oid **nodes);

#endif							/* SX_CONSUMER_INTERNAL_H */
