/*
 * process.c
 *		Runs the rows of a batch through a view's plan, in slices, and finds the rows
 *		that fail.
 *
 * Each slice runs in a short read-only transaction of its own, as the view's owner.  Its
 * results are buffered and handed to apply() only when the whole slice has run, so that a
 * row that fails leaves nothing behind.  A slice that fails with a row's error (division by
 * zero, bad cast …) is halved while it is large; what is left runs row by row, each in a
 * subtransaction of its own: a row that fails is rejected, the rest counts.  So one bad row among
 * many costs a few runs, and a view that fails on every row one run per row.  Any other error, or
 * one raised by combining alone, is the view's.
 *
 * Where several views take a batch, they take its slices in turn, so that each is read only once: see
 * capture/batch_rows.c.
 *
 * What stands before: rows that are not valid (entrance.c) do not get here.
 *
 * Rows that are late (time/lateness.c) are found by the scan itself.  Where they are wanted as dead
 * letters, those are written when their slice has run.  Rows that may be late for a session have been left out
 * by the scan: they run when it is through, and are judged.
 *
 * The caller may have set a time limit (budget.c).  When it is exceeded, the batch has no
 * result, whatever its functions made of the cancel.
 */
#include "worker/worker_internal.h"

#include "access/xact.h"
#include "capture/batch_rows.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "attempt.h"
#include "testing/stop_points.h"

/* bounds what a slice's results take in memory */
#define SLICE_ROWS	50000
/* a slice of this size that fails runs row by row: halving it takes more runs than it has rows */
#define SINGLE_ROWS	64

typedef struct SliceRows
{
	SxProcess  *process;
	MemoryContext context;
	int			n;
	int			max;
	MinimalTuple *rows;
	MemoryContext kept;			/* rejected rows, which outlive the transaction */
	List	   *rejected;		/* of Rejected *, there */
} SliceRows;

typedef struct RowAttempt
{
	SxBatch    *row;
	SliceRows  *rows;
} RowAttempt;

/* What a slice that fails has to put back */
typedef struct Findings
{
	SxBatchTimes times;
	int64		late;
	int64		left_out;
	int			nruns;
	int			nasked;
} Findings;

/* what rows come to that were asked for */
typedef struct AskedResult
{
	MinimalTuple row;
	int64		begins;
} AskedResult;

typedef struct Rejected
{
	char	   *sqlstate;		/* NULL: late */
	char	   *message;
	char	   *row_json;
} Rejected;

static SxProcessResult process_range(SxProcess *p, SxBatch *batch, uint64 from, uint64 n);
static SxProcessResult run_slice(SxProcess *p, SxBatch *slice, bool singly);
static SxProcessResult lock_slice(SxProcess *p, SxBatch *slice);
static void run_singly(SxProcess *p, SxBatch *slice, SliceRows *rows);
static ErrorData *try_row(SxBatch *one, SliceRows *rows);
static void run_one(void *arg);
static void reject_row(SxBatch *one, const char *sqlstate, const char *message, SliceRows *rows);
static void reject_late(SxProcess *p, SxBatch *slice, int first, SliceRows *rows);
static void note_findings(SxBatch *slice, Findings *found);
static void put_back(SxBatch *slice, const Findings *found);
static SxProcessResult find_times(SxProcess *p, SxBatch *batch);
static void collect_row(void *arg, TupleTableSlot *row);
static bool judge_asked(SxProcess *p, SxBatch *slice, SliceRows *rows, bool singly);
static void judge_together(SxProcess *p, SxBatch *slice, SliceRows *rows);
static void judge_each(SxProcess *p, SxBatch *slice, SliceRows *rows, int from, int to, bool add);
static void count_late(SxProcess *p, SxBatch *slice, SliceRows *rows, int from);
static int	asked_before(SxProcess *p, SxBatchLate *late, int64 point);
static int	compare_asked(const void *a, const void *b);
static int	compare_results(const void *a, const void *b);
static SxBatch batch_of_run(const SxBatch *slice, SxRun *run);
static bool apply_rows(SxProcess *p, SliceRows *rows);

SxProcessResult
sx_process_batch(SxProcess *p, SxBatch *batch)
{
	SxProcessResult result = SX_PROCESS_OK;

	sx_process_begin(p, batch);
	while (result == SX_PROCESS_OK && !p->done)
		result = sx_process_slice(p);
	return result;
}

void
sx_process_begin(SxProcess *p, SxBatch *batch)
{
	p->batch = batch;
	p->entered = false;
	p->done = false;
	p->from = 0;
}

uint64
sx_process_slice_rows(const SxProcess *p)
{
	return Min(SLICE_ROWS, (p->entered ? p->valid.nrows : p->batch->nrows) - p->from);
}

SxProcessResult
sx_process_slice(SxProcess *p)
{
	SxBatch    *valid = &p->valid;
	uint64		n;
	SxProcessResult result;

	if (!p->entered)
	{
		result = sx_entrance(p, p->batch, valid);
		if (result != SX_PROCESS_OK)
			return result;
		valid->late = p->late != NULL && valid->time_attno != InvalidAttrNumber ? &p->late->rows : NULL;
		p->entered = true;
	}
	n = sx_process_slice_rows(p);
	result = process_range(p, valid, p->from, n);
	if (result != SX_PROCESS_OK)
		return result;
	p->from += n;
	if (p->from < valid->nrows)
		return SX_PROCESS_OK;

	p->done = true;
	/* a join may not have read all rows, nor has a plan that knew that none would count */
	if (valid->times != NULL && valid->times->covered < valid->nrows)
		return find_times(p, valid);
	return SX_PROCESS_OK;
}

void
sx_process_share(SxBatch *batch, List *plans)
{
	Bitmapset  *columns = NULL;
	ListCell   *lc;

	/* with one nothing is kept: it would be work for nobody */
	if (list_length(plans) < 2)
		return;
	foreach(lc, plans)
		columns = sx_plan_columns(lfirst(lc), columns);
	batch->rows = sx_batch_rows_create(GetMemoryChunkContext(batch), columns);
	bms_free(columns);
}

void
sx_process_end_share(SxBatch *batch)
{
	if (batch->rows == NULL)
		return;
	sx_batch_rows_destroy(batch->rows);
	batch->rows = NULL;
}

static SxProcessResult
find_times(SxProcess *p, SxBatch *batch)
{
	volatile SxProcessResult result = SX_PROCESS_OK;
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		if (sx_batch_lock(batch))
			sx_batch_find_times(batch);
		else
			result = SX_PROCESS_STREAM_LOCKED;
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		p->error = sx_worker_recover(p->context);
		result = sx_budget_exceeded() ? SX_PROCESS_SLOW : SX_PROCESS_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return result;
}

/* what a run of the slice may change beside its results */
static void
note_findings(SxBatch *slice, Findings *found)
{
	if (slice->times != NULL)
		found->times = *slice->times;
	if (slice->late != NULL)
	{
		found->late = slice->late->n;
		found->left_out = slice->late->nleft_out;
		found->nruns = slice->late->nruns;
		found->nasked = slice->late->nasked;
	}
}

static void
put_back(SxBatch *slice, const Findings *found)
{
	if (slice->times != NULL)
		*slice->times = found->times;
	if (slice->late != NULL)
	{
		slice->late->n = found->late;
		slice->late->nleft_out = found->left_out;
		slice->late->nruns = found->nruns;
		slice->late->nasked = found->nasked;
	}
}

static SxProcessResult
process_range(SxProcess *p, SxBatch *batch, uint64 from, uint64 n)
{
	SxBatch    *slice;
	SxProcessResult result;
	MemoryContext old;

	check_stack_depth();

	old = MemoryContextSwitchTo(p->context);
	slice = (from == 0 && n == batch->nrows) ? batch : sx_batch_slice(batch, from, n);
	MemoryContextSwitchTo(old);

	result = run_slice(p, slice, false);
	if (result != SX_PROCESS_FAILED || p->give_up || !sx_is_row_error(p->error->sqlerrcode) || n == 0)
		return result;

	FreeErrorData(p->error);
	p->error = NULL;
	if (n <= SINGLE_ROWS)
		return run_slice(p, slice, true);

	result = process_range(p, batch, from, n / 2);
	if (result == SX_PROCESS_OK)
		result = process_range(p, batch, from + n / 2, n - n / 2);
	return result;
}

static SxProcessResult
run_slice(SxProcess *p, SxBatch *slice, bool singly)
{
	volatile SxProcessResult result = SX_PROCESS_OK;
	volatile bool applying = false;
	MemoryContext caller = CurrentMemoryContext;
	SliceRows	rows;
	Findings	found = {0};

	if (slice->late != NULL)
		slice->late->nasked = 0;
	note_findings(slice, &found);
	memset(&rows, 0, sizeof(rows));
	if (singly || (slice->late != NULL && slice->late->keep))
		rows.kept = AllocSetContextCreate(p->context, "streamext rejected rows", ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		SxRunAs		as;
		SxViewContext vc;

		CHECK_FOR_INTERRUPTS();
		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		sx_view_context_push(&vc, p->info->def->viewid, "computing");

		result = lock_slice(p, slice);
		if (result == SX_PROCESS_OK)
		{
			rows.process = p;
			rows.context = CurrentMemoryContext;	/* the transaction's */
			rows.max = 64;
			rows.rows = palloc(sizeof(MinimalTuple) * rows.max);

			SX_STOP_POINT_OF(compute_slice, p->info->def->viewid);
			sx_run_as_begin(&as, p->info->def);
			if (singly)
				run_singly(p, slice, &rows);
			else
				sx_plan_run(p->plan, slice, collect_row, &rows);
			if (slice->late != NULL && slice->late->nruns > found.nruns)
				reject_late(p, slice, found.nruns, &rows);
			if (slice->late != NULL && slice->late->nasked > 0 && !judge_asked(p, slice, &rows, singly))
				result = SX_PROCESS_LOOKUP_LOCKED;
			else
			{
				applying = true;
				if (!apply_rows(p, &rows))
					result = SX_PROCESS_NO_MEMORY;
			}
			sx_run_as_end(&as);
			SX_STOP_POINT_OF(compute_applied, p->info->def->viewid);
		}

		sx_view_context_pop(&vc);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		p->error = sx_worker_recover(p->context);
		/* an error of combining alone is not any row's, nor one that run_singly() let pass */
		if ((applying || singly) && sx_is_row_error(p->error->sqlerrcode))
			p->error->sqlerrcode = ERRCODE_INTERNAL_ERROR;
		result = SX_PROCESS_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);

	if (sx_budget_exceeded())
		result = SX_PROCESS_SLOW;
	if (result == SX_PROCESS_OK)
	{
		ListCell   *lc;

		foreach(lc, rows.rejected)
		{
			Rejected   *r = lfirst(lc);

			if (!p->reject(p->arg, r->sqlstate ? "error" : "late", r->sqlstate, r->row_json, r->message))
			{
				result = SX_PROCESS_NO_MEMORY;
				break;
			}
		}
	}
	if (rows.kept)
		MemoryContextDelete(rows.kept);
	if (result != SX_PROCESS_OK)
		put_back(slice, &found);
	return result;
}

static SxProcessResult
lock_slice(SxProcess *p, SxBatch *slice)
{
	Oid			locked = InvalidOid;

	if (!sx_batch_lock(slice))
		return SX_PROCESS_STREAM_LOCKED;
	if (!sx_plan_lock(p->plan, false, &locked))
	{
		char	   *name = get_rel_name(locked);

		p->blocked_by = MemoryContextStrdup(p->context, name ? name : "?");
		return SX_PROCESS_LOOKUP_LOCKED;
	}
	return SX_PROCESS_OK;
}

/* each row by itself; in the slice's transaction, as the view's owner */
static void
run_singly(SxProcess *p, SxBatch *slice, SliceRows *rows)
{
	uint64		skip = slice->from;
	uint64		left = slice->limit;

	for (int i = 0; i < slice->nruns && left > 0; i++)
	{
		SxRun	   *run = &slice->runs[i];

		if (skip >= run->count)
		{
			skip -= run->count;
			continue;
		}
		for (; skip < run->count && left > 0; skip++, left--)
		{
			SxRun		row = *run;
			SxBatch		one;
			ErrorData  *error;

			row.first += skip;
			row.count = 1;
			one = batch_of_run(slice, &row);
			error = try_row(&one, rows);
			if (error == NULL)
				continue;
			if (sx_budget_exceeded() || !sx_is_row_error(error->sqlerrcode))
				ReThrowError(error);
			reject_row(&one, unpack_sql_state(error->sqlerrcode), error->message, rows);
		}
		skip = 0;
	}
}

static SxBatch
batch_of_run(const SxBatch *slice, SxRun *run)
{
	SxBatch		one = *slice;

	one.runs = run;
	one.nruns = 1;
	one.nrows = 1;
	one.from = 0;
	one.limit = PG_UINT64_MAX;
	one.rows = NULL;
	return one;
}

/* NULL, or what it failed with */
static ErrorData *
try_row(SxBatch *one, SliceRows *rows)
{
	RowAttempt	attempt = {one, rows};
	int			before = rows->n;
	Findings	found = {0};
	ErrorData  *error;

	note_findings(one, &found);
	error = sx_attempt(run_one, &attempt, true);
	if (error != NULL)
	{
		rows->n = before;
		put_back(one, &found);
	}
	return error;
}

static void
run_one(void *arg)
{
	RowAttempt *attempt = arg;

	sx_plan_run(attempt->rows->process->plan, attempt->row, collect_row, attempt->rows);
}

static void
collect_row(void *arg, TupleTableSlot *row)
{
	SliceRows  *rows = arg;
	SxViewInfo *info = rows->process->info;
	MemoryContext old;

	if (rows->process->late != NULL && sx_lateness_leaves_out(rows->process->late, info, row))
		return;
	if (info->nkeys > 0 && !sx_key_fits(info, row))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("group key is too large for the index of the materialized table"),
				 errhint("Group by a hash of the value, such as md5(), instead.")));

	old = MemoryContextSwitchTo(rows->context);
	if (rows->n == rows->max)
	{
		rows->max *= 2;
		rows->rows = repalloc_huge(rows->rows, sizeof(MinimalTuple) * rows->max);
	}
	rows->rows[rows->n++] = sx_flatten_row(info, row);
	MemoryContextSwitchTo(old);
}

static bool
apply_rows(SxProcess *p, SliceRows *rows)
{
	TupleTableSlot *slot;
	bool		ok = true;

	slot = MakeSingleTupleTableSlot(p->info->desc, &TTSOpsMinimalTuple);
	for (int i = 0; ok && i < rows->n; i++)
	{
		if (p->expect != NULL && i % SX_LIVE_AHEAD == 0)
			p->expect(p->arg, rows->rows + i, Min(rows->n - i, SX_LIVE_AHEAD));
		ExecStoreMinimalTuple(rows->rows[i], slot, false);
		ok = p->apply(p->arg, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	return ok;
}

static void
reject_row(SxBatch *one, const char *sqlstate, const char *message, SliceRows *rows)
{
	/* as JSON, for people: if it cannot be made, the letter goes without */
	char	   *json = sx_batch_row_json(one);
	MemoryContext old = MemoryContextSwitchTo(rows->kept);
	Rejected   *r = palloc(sizeof(Rejected));

	r->sqlstate = sqlstate ? pstrdup(sqlstate) : NULL;
	r->message = pstrdup(message);
	r->row_json = json ? pstrdup(json) : NULL;
	rows->rejected = lappend(rows->rejected, r);
	MemoryContextSwitchTo(old);
}

static void
reject_late(SxProcess *p, SxBatch *slice, int first, SliceRows *rows)
{
	char	   *message = sx_lateness_message(p->late);

	for (int i = first; i < slice->late->nruns; i++)
	{
		SxBatch		one = batch_of_run(slice, &slice->late->runs[i]);

		CHECK_FOR_INTERRUPTS();
		reject_row(&one, NULL, message, rows);
	}
}

/* ---- rows that may be late for a session ---- */

/*
 * Adds what of them counts to the rows; false: the table, by which they are judged, is locked.
 *
 * They run together: what counts is added.  If something is late, it is to be told of which rows it is.  None
 * of those that begin after the last that is late; and all that begin before the first that counts, if every row
 * comes to something, which after a join is not sure.  In between they run one by one: what is late then is what
 * was late before.
 */
static bool
judge_asked(SxProcess *p, SxBatch *slice, SliceRows *rows, bool singly)
{
	SxLateSessions *sessions = p->late->sessions;

	if (!sx_late_sessions_lock(sessions))
	{
		char	   *name = get_rel_name(p->info->def->viewid);

		p->blocked_by = MemoryContextStrdup(p->context, name ? name : "?");
		return false;
	}
	sx_late_sessions_open(sessions, p->live_end, p->arg);
	qsort(slice->late->asked, slice->late->nasked, sizeof(SxAskedRow), compare_asked);
	if (singly)
		judge_each(p, slice, rows, 0, slice->late->nasked, true);
	else
		judge_together(p, slice, rows);
	sx_late_sessions_close(sessions);
	return true;
}

static void
judge_together(SxProcess *p, SxBatch *slice, SliceRows *rows)
{
	SxBatchLate *late = slice->late;
	SxBatch		all = *slice;
	SxRun	   *runs = MemoryContextAllocHuge(rows->context, sizeof(SxRun) * late->nasked);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(p->info->desc, &TTSOpsMinimalTuple);
	int			first = rows->n;
	int			kept = first;
	int			n;
	int			from;
	int			to;
	int64		last_late = PG_INT64_MIN;
	int64		first_kept = PG_INT64_MAX;
	AskedResult *results;

	for (int i = 0; i < late->nasked; i++)
		runs[i] = late->asked[i].run;
	all.runs = runs;
	all.nruns = late->nasked;
	all.nrows = late->nasked;
	all.from = 0;
	all.limit = PG_UINT64_MAX;
	all.times = NULL;			/* they are known */
	all.late = NULL;
	all.rows = NULL;
	sx_plan_run(p->plan, &all, collect_row, rows);

	n = rows->n - first;
	results = MemoryContextAllocHuge(rows->context, sizeof(AskedResult) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		results[i].row = rows->rows[first + i];
		ExecStoreMinimalTuple(results[i].row, slot, false);
		results[i].begins = sx_row_span(p->info, slot).lower;
	}
	qsort(results, n, sizeof(AskedResult), compare_results);
	for (int i = 0; i < n; i++)
	{
		ExecStoreMinimalTuple(results[i].row, slot, false);
		if (sx_lateness_of_session(p->late, slot))
			last_late = Max(last_late, results[i].begins);
		else
		{
			first_kept = Min(first_kept, results[i].begins);
			rows->rows[kept++] = results[i].row;
		}
	}
	rows->n = kept;
	ExecDropSingleTupleTableSlot(slot);
	pfree(results);
	pfree(runs);
	if (kept == first + n)
		return;
	from = asked_before(p, late, last_late + 1);
	to = sx_plan_keeps_rows(p->plan) ? asked_before(p, late, first_kept) : late->nasked;
	judge_each(p, slice, rows, from, Max(from, to), false);
	count_late(p, slice, rows, Max(from, to));
}

/* the first of them, the latest being the first, that begins before the point */
static int
asked_before(SxProcess *p, SxBatchLate *late, int64 point)
{
	int			low = 0;
	int			high = late->nasked;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		int64		begins;

		if (sx_windows_session_begin(p->late->windows, late->asked[middle].event_time, &begins) && begins < point)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* these and all that follow are late */
static void
count_late(SxProcess *p, SxBatch *slice, SliceRows *rows, int from)
{
	SxBatchLate *late = slice->late;
	char	   *message = sx_lateness_message(p->late);

	for (int i = from; i < late->nasked; i++)
	{
		SxBatch		one = batch_of_run(slice, &late->asked[i].run);

		CHECK_FOR_INTERRUPTS();
		late->n++;
		late->nleft_out++;
		if (late->keep)
			reject_row(&one, NULL, message, rows);
	}
}

/* the latest first; add: what counts, too */
static void
judge_each(SxProcess *p, SxBatch *slice, SliceRows *rows, int from, int to, bool add)
{
	SxBatchLate *late = slice->late;
	char	   *message = sx_lateness_message(p->late);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(p->info->desc, &TTSOpsMinimalTuple);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext asked row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);

	for (int i = from; i < to; i++)
	{
		SxBatch		one = batch_of_run(slice, &late->asked[i].run);
		ErrorData  *error = NULL;
		int			first = rows->n;
		int			kept = first;
		int			n;

		CHECK_FOR_INTERRUPTS();
		/* a run leaves little, but there may be many */
		MemoryContextReset(scratch);
		one.times = NULL;
		one.late = NULL;
		if (add)
			error = try_row(&one, rows);
		else
			sx_plan_run(p->plan, &one, collect_row, rows);
		if (error != NULL)
		{
			if (sx_budget_exceeded() || !sx_is_row_error(error->sqlerrcode))
				ReThrowError(error);
			reject_row(&one, unpack_sql_state(error->sqlerrcode), error->message, rows);
			continue;
		}

		/* a join may have made several of it */
		n = rows->n - first;
		for (int j = first; j < first + n; j++)
		{
			ExecStoreMinimalTuple(rows->rows[j], slot, false);
			if (!sx_lateness_of_session(p->late, slot))
				rows->rows[kept++] = rows->rows[j];
			else
				heap_free_minimal_tuple(rows->rows[j]);
		}
		if (kept < first + n)
		{
			late->n++;
			late->nleft_out += kept == first;
			if (kept == first && late->keep)
				reject_row(&one, NULL, message, rows);
		}
		if (!add)
		{
			for (int j = first; j < kept; j++)
				heap_free_minimal_tuple(rows->rows[j]);
			kept = first;
		}
		rows->n = kept;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	ExecDropSingleTupleTableSlot(slot);
}

static int
compare_asked(const void *a, const void *b)
{
	int64		ta = ((const SxAskedRow *) a)->event_time;
	int64		tb = ((const SxAskedRow *) b)->event_time;

	return ta > tb ? -1 : ta < tb;
}

static int
compare_results(const void *a, const void *b)
{
	int64		ta = ((const AskedResult *) a)->begins;
	int64		tb = ((const AskedResult *) b)->begins;

	return ta > tb ? -1 : ta < tb;
}
