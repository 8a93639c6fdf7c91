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
 * The caller may have set a time limit (budget.c).  When it is exceeded, the batch has no
 * result, whatever its functions made of the cancel.
 */
#include "worker/worker_internal.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
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
	MemoryContext kept;			/* rejected rows, which outlive the transaction; NULL: rows do not run singly */
	List	   *rejected;		/* of Rejected *, there */
} SliceRows;

typedef struct Rejected
{
	ErrorData  *error;
	char	   *row_json;
} Rejected;

static SxProcessResult process_range(SxProcess *p, SxBatch *batch, uint64 from, uint64 n);
static SxProcessResult run_slice(SxProcess *p, SxBatch *slice, bool singly);
static SxProcessResult lock_slice(SxProcess *p, SxBatch *slice);
static void run_singly(SxProcess *p, SxBatch *slice, SliceRows *rows);
static ErrorData *run_one(SxProcess *p, SxBatch *one, SliceRows *rows);
static void reject_row(SxProcess *p, SxBatch *one, ErrorData *error, SliceRows *rows);
static void collect_row(void *arg, TupleTableSlot *row);
static bool apply_rows(SxProcess *p, SliceRows *rows);

SxProcessResult
sx_process_batch(SxProcess *p, SxBatch *batch)
{
	uint64		from = 0;

	do
	{
		uint64		n = Min(SLICE_ROWS, batch->nrows - from);
		SxProcessResult result;

		result = process_range(p, batch, from, n);
		if (result != SX_PROCESS_OK)
			return result;
		from += n;
	} while (from < batch->nrows);

	return SX_PROCESS_OK;
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

	memset(&rows, 0, sizeof(rows));
	if (singly)
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
			applying = true;
			if (!apply_rows(p, &rows))
				result = SX_PROCESS_NO_MEMORY;
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

			if (!p->reject(p->arg, unpack_sql_state(r->error->sqlerrcode), r->row_json, r->error->message))
			{
				result = SX_PROCESS_NO_MEMORY;
				break;
			}
		}
	}
	if (rows.kept)
		MemoryContextDelete(rows.kept);
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
			SxBatch		one = *slice;
			ErrorData  *error;

			row.first += skip;
			row.count = 1;
			one.runs = &row;
			one.nruns = 1;
			one.nrows = 1;
			one.from = 0;
			one.limit = PG_UINT64_MAX;
			error = run_one(p, &one, rows);
			if (error == NULL)
				continue;
			if (sx_budget_exceeded() || !sx_is_row_error(error->sqlerrcode))
				ReThrowError(error);
			reject_row(p, &one, error, rows);
		}
		skip = 0;
	}
}

/* NULL, or what it failed with */
static ErrorData *
run_one(SxProcess *p, SxBatch *one, SliceRows *rows)
{
	ErrorData  *volatile error = NULL;
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int			before = rows->n;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		sx_plan_run(p->plan, one, collect_row, rows);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(rows->kept);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		rows->n = before;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return error;
}

static void
collect_row(void *arg, TupleTableSlot *row)
{
	SliceRows  *rows = arg;
	SxViewInfo *info = rows->process->info;
	MemoryContext old;

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
		ExecStoreMinimalTuple(rows->rows[i], slot, false);
		ok = p->apply(p->arg, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	return ok;
}

static void
reject_row(SxProcess *p, SxBatch *one, ErrorData *error, SliceRows *rows)
{
	/* as JSON, for people: if it cannot be made, the letter goes without */
	char	   *json = sx_batch_row_json(one);
	MemoryContext old = MemoryContextSwitchTo(rows->kept);
	Rejected   *r = palloc(sizeof(Rejected));

	r->error = error;
	r->row_json = json ? pstrdup(json) : NULL;
	rows->rejected = lappend(rows->rejected, r);
	MemoryContextSwitchTo(old);
}
