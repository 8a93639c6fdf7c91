/*
 * process.c
 *		Runs the rows of a batch through a view's plan, in slices, and finds the rows
 *		that fail.
 *
 * Each slice runs in a short read-only transaction of its own, as the view's owner.  Its
 * results are buffered and handed to apply() only when the whole slice has run, so that a
 * row that fails leaves nothing behind.  A slice that fails with a row's error (division by
 * zero, bad cast …) is halved until the row stands alone: that row is rejected, the rest
 * counts.  Any other error, or one raised by combining alone, is the view's.
 */
#include "worker/worker_internal.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* bounds what a slice's results take in memory */
#define SLICE_ROWS	50000

typedef struct SliceRows
{
	SxProcess  *process;
	MemoryContext context;
	int			n;
	int			max;
	MinimalTuple *rows;
} SliceRows;

static SxProcessResult process_range(SxProcess *p, SxBatch *batch, uint64 from, uint64 n);
static SxProcessResult run_slice(SxProcess *p, SxBatch *slice);
static bool reject_row(SxProcess *p, SxBatch *slice, ErrorData *error);
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
	ErrorData  *error;
	MemoryContext old;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();

	old = MemoryContextSwitchTo(p->context);
	slice = (from == 0 && n == batch->nrows) ? batch : sx_batch_slice(batch, from, n);
	MemoryContextSwitchTo(old);

	result = run_slice(p, slice);
	if (result != SX_PROCESS_FAILED || p->give_up || !sx_is_row_error(p->error->sqlerrcode) || n == 0)
		return result;

	error = p->error;
	p->error = NULL;
	if (n == 1)
		return reject_row(p, slice, error) ? SX_PROCESS_OK : SX_PROCESS_NO_MEMORY;

	result = process_range(p, batch, from, n / 2);
	if (result == SX_PROCESS_OK)
		result = process_range(p, batch, from + n / 2, n - n / 2);
	return result;
}

static SxProcessResult
run_slice(SxProcess *p, SxBatch *slice)
{
	volatile SxProcessResult result = SX_PROCESS_OK;
	volatile bool applying = false;
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		SxRunAs		as;
		SliceRows	rows;
		SxViewContext vc;
		Oid			locked = InvalidOid;

		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		sx_view_context_push(&vc, p->info->def->viewid, "computing");

		if (!sx_batch_lock(slice))
			result = SX_PROCESS_STREAM_LOCKED;
		else if (!sx_plan_lock(p->plan, false, &locked))
		{
			char	   *name = get_rel_name(locked);

			p->blocked_by = MemoryContextStrdup(p->context, name ? name : "?");
			result = SX_PROCESS_LOOKUP_LOCKED;
		}
		else
		{
			rows.process = p;
			rows.context = CurrentMemoryContext;	/* the transaction's */
			rows.n = 0;
			rows.max = 64;
			rows.rows = palloc(sizeof(MinimalTuple) * rows.max);

			SX_STOP_POINT_OF(compute_slice, p->info->def->viewid);
			sx_run_as_begin(&as, p->info->def);
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
		/* an error of combining alone is not any row's */
		if (applying && sx_is_row_error(p->error->sqlerrcode))
			p->error->sqlerrcode = ERRCODE_INTERNAL_ERROR;
		result = SX_PROCESS_FAILED;
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller);
	return result;
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

/* the row as JSON is for people: if it cannot be made, the letter goes without */
static bool
reject_row(SxProcess *p, SxBatch *slice, ErrorData *error)
{
	char	   *volatile json = NULL;
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		SxRunAs		as;
		char	   *text;

		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		if (sx_batch_lock(slice))
		{
			sx_run_as_begin(&as, p->info->def);
			text = sx_batch_row_json(slice);
			if (text)
				json = MemoryContextStrdup(p->context, text);
			sx_run_as_end(&as);
		}
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		(void) sx_worker_recover(p->context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);

	return p->reject(p->arg, unpack_sql_state(error->sqlerrcode), json, error->message);
}
