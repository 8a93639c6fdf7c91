/*
 * worker_internal.h
 *		What the worker processes share with each other only.
 */
#ifndef SX_WORKER_INTERNAL_H
#define SX_WORKER_INTERNAL_H

#include "capture/wal_tail.h"
#include "catalog/definitions.h"
#include "live/live_state.h"
#include "query/plan.h"
#include "time/lateness.h"
#include "worker/worker.h"

#include "postmaster/bgworker.h"
#include "utils/elog.h"

/* passed to workers in bgw_extra */
typedef struct SxWorkerArg
{
	Oid			dboid;
	Oid			viewid;			/* builder */
	uint64		incarnation;	/* builder: of the view when it was launched; helper: its consumer's process id */
} SxWorkerArg;

/* common start: signals, connection, sx_is_worker, application_name for pg_stat_activity */
extern SxWorkerArg sx_worker_start(void);
extern void sx_worker_fill(BackgroundWorker *w, const char *type, const char *function,
						   Oid dboid, Oid viewid);
/* SIGHUP and interrupts, once per turn of a worker's loop */
extern void sx_worker_check(void);
/* until the end of sx_run_as_begin()'s settings: parallel workers and JIT as any query would get them */
extern void sx_worker_allow_large_plans(void);
/* likewise: maintenance_work_mem, or a part of it, in place of work_mem, by whoever writes tables */
extern void sx_worker_take_memory(int kb);
/*
 * In a worker's PG_CATCH at top level: logs nothing, aborts the transaction and returns a copy of
 * the error in mcxt.
 */
extern ErrorData *sx_worker_recover(MemoryContext mcxt);
/* logs at most one message per second per process, says how many were left out */
extern void sx_worker_log(int elevel, const char *fmt,...) pg_attribute_printf(2, 3);
/* errors of these classes are a row's, all others the view's */
extern bool sx_is_row_error(int sqlstate);

/* the errcontext that names the view */
typedef struct SxViewContext
{
	ErrorContextCallback callback;
	Oid			viewid;
	const char *what;
} SxViewContext;
extern void sx_view_context_push(SxViewContext *c, Oid viewid, const char *what);
extern void sx_view_context_pop(SxViewContext *c);

/* ---- budget.c: how long a view may hold up the others ---- */

/* what a run may take for each of its rows, microseconds */
#define SX_BUDGET_ROW_US	20

typedef struct SxAccount
{
	int64		credit_us;
	TimestampTz at;				/* when it was filled up last */
} SxAccount;

/* a run begins and ends; no two at a time */
extern void sx_budget_start(int64 limit);
extern int64 sx_budget_stop(void);
extern bool sx_budget_exceeded(void);
extern bool sx_budget_is_deadly(void);
extern int64 sx_budget_of_flush(uint64 entries);
extern int64 sx_cpu_us(void);	/* of this process, since it began */

extern void sx_account_open(SxAccount *a);
extern int64 sx_account_limit(SxAccount *a, uint64 rows);
extern bool sx_account_charge(SxAccount *a, uint64 rows, int64 us);

/* common.c: stores that the view is stopped, and says so in the log */
extern void sx_view_stop(const SxViewDef *def, const char *reason);
#define SX_REPLACED_REASON \
	"a file of the stream was replaced by a command unknown to streamext, such as pg_repack or a replicated TRUNCATE; drop and create the view, or streamext.resume() it without the rows in question"

/* ---- process.c: rows of a batch through a view's plan ---- */

typedef enum SxProcessResult
{
	SX_PROCESS_OK,
	SX_PROCESS_STREAM_LOCKED,	/* try these transactions later */
	SX_PROCESS_LOOKUP_LOCKED,	/* the view cannot go on now */
	SX_PROCESS_NO_MEMORY,		/* apply() returned false */
	SX_PROCESS_SLOW,			/* the time limit was exceeded */
	SX_PROCESS_FAILED			/* the view's error, in `error` */
} SxProcessResult;

typedef struct SxProcess
{
	SxViewInfo *info;
	SxPlan	   *plan;
	bool		give_up;		/* at the first error: do not look for the row */
	/* rows of one slice that succeeded, inside its transaction, as the owner; false: no memory */
	bool		(*apply) (void *arg, TupleTableSlot *row);
	/* these will come, at most SX_LIVE_AHEAD; may be NULL */
	void		(*expect) (void *arg, MinimalTuple *rows, int n);
	/* a row that is rejected, when its slice is through: error, late or invalid; sqlstate may be NULL; false: no memory */
	bool		(*reject) (void *arg, const char *reason, const char *sqlstate, const char *row_json,
						   const char *message);
	/* what of a session is live; NULL: nothing is */
	SxLiveEnd	live_end;
	void	   *arg;
	SxLateness *late;			/* NULL: nothing is late */
	MemoryContext context;		/* reset by the caller; results and errors live here */
	ErrorData  *error;
	char	   *blocked_by;		/* SX_PROCESS_LOOKUP_LOCKED: the table's name */
	/* how far it is */
	SxBatch    *batch;
	bool		entered;
	SxBatch		valid;			/* what of it is valid */
	uint64		from;			/* the next slice of that */
	bool		done;
} SxProcess;

extern SxProcessResult sx_process_batch(SxProcess *p, SxBatch *batch);
/* or in slices, until it is done or fails */
extern void sx_process_begin(SxProcess *p, SxBatch *batch);
extern SxProcessResult sx_process_slice(SxProcess *p);
/* how many rows the next one has at most */
extern uint64 sx_process_slice_rows(const SxProcess *p);
/*
 * Around what several views do with a batch, slice by slice, or one after the other while it is no more than a slice: its rows
 * are read once.  Of SxPlan.
 */
extern void sx_process_share(SxBatch *batch, List *plans);
extern void sx_process_end_share(SxBatch *batch);

/* entrance.c: what of the batch is valid; the rest is rejected.  The batch is palloc'd, and remembers it. */
extern SxProcessResult sx_entrance(SxProcess *p, SxBatch *batch, SxBatch *valid);

#endif							/* SX_WORKER_INTERNAL_H */
