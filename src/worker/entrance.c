/*
 * entrance.c
 *		Which rows of a batch are valid: the condition declared with create_stream(valid => ...).
 *
 * It stands before everything else: a row that fails moves no watermark, is never late and never reaches a
 * view's plan.  It becomes a dead letter of every view that consumes it, and so does one whose condition
 * raises an error.
 *
 * The condition is the table's owner's, and runs as that role, in read-only transactions of its own, before those of
 * the view: nobody's code runs with a view owner's rights (query/valid.c).  Who reads a batch first finds out; what
 * is found stays with the batch, for the other views.  Only addresses are kept: a dead letter's JSON is made when
 * it is wanted.
 *
 * Without a condition it costs a look into a hash table per batch.
 */
#include "worker/worker_internal.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "query/valid.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* bounds how long a transaction lasts */
#define ENTRANCE_ROWS	50000
/* bounds what dead letters take in memory on their way */
#define REJECT_ROWS		500

typedef struct InvalidRow
{
	SxRun		run;			/* this row */
	char	   *sqlstate;		/* of an error; NULL: the condition is false */
	char	   *message;
} InvalidRow;

typedef struct SxEntrance
{
	MemoryContext context;
	bool		any_condition;
	int			n;
	int			max;
	InvalidRow *invalid;		/* in the order of the batch */
	SxRun	   *runs;			/* what is left of the batch's */
	int			nruns;
} SxEntrance;

/* A part of the batch, under way */
typedef struct Part
{
	SxEntrance *entrance;
	SxValidRun	run;
	SxRun		row;			/* the one at work */
	uint64		number;			/* of it */
	bool		at_row;
} Part;

/* A dead letter under way */
typedef struct Letter
{
	const char *sqlstate;
	char	   *message;
	char	   *json;
} Letter;

static SxProcessResult find_invalid(SxProcess *p, SxBatch *batch, SxEntrance *e);
static SxProcessResult find_in_part(SxProcess *p, SxBatch *part, SxEntrance *e, uint64 *done);
static void test_row(void *arg, TupleTableSlot *slot, const SxRun *row, uint64 number);
static void add_invalid(SxEntrance *e, const SxRun *row, const char *sqlstate, const char *message);
static void leave_out_invalid(SxEntrance *e, const SxBatch *batch);
static SxProcessResult reject_invalid(SxProcess *p, const SxBatch *batch, SxEntrance *e);
static SxProcessResult make_letters(SxProcess *p, const SxBatch *batch, SxEntrance *e, int from, int n, Letter *letters,
									MemoryContext context);

SxProcessResult
sx_entrance(SxProcess *p, SxBatch *batch, SxBatch *valid)
{
	SxEntrance *e = batch->entrance;

	*valid = *batch;
	if (batch->nrows == 0 || (e == NULL && !sx_valid_may_exist(batch->stream)))
		return SX_PROCESS_OK;
	if (e == NULL)
	{
		SxProcessResult result;

		e = MemoryContextAllocZero(GetMemoryChunkContext(batch), sizeof(SxEntrance));
		e->context = GetMemoryChunkContext(batch);
		result = find_invalid(p, batch, e);
		if (result != SX_PROCESS_OK)
			return result;
		if (e->n > 0)
			leave_out_invalid(e, batch);
		batch->entrance = e;
	}
	if (e->n == 0)
		return SX_PROCESS_OK;
	/* who gives up comes again for all of it */
	if (p->give_up)
		return SX_PROCESS_NO_MEMORY;
	valid->runs = e->runs;
	valid->nruns = e->nruns;
	valid->nrows = batch->nrows - e->n;
	return reject_invalid(p, batch, e);
}

/* in parts; a row whose condition raises an error ends one */
static SxProcessResult
find_invalid(SxProcess *p, SxBatch *batch, SxEntrance *e)
{
	uint64		from = 0;

	while (from < batch->nrows)
	{
		SxBatch		part = *batch;
		uint64		done = Min(ENTRANCE_ROWS, batch->nrows - from);
		SxProcessResult result;

		part.from = from;
		part.limit = done;
		result = find_in_part(p, &part, e, &done);
		if (result != SX_PROCESS_OK)
			return result;
		if (!e->any_condition)
			return SX_PROCESS_OK;
		from += done;
	}
	return SX_PROCESS_OK;
}

static SxProcessResult
find_in_part(SxProcess *p, SxBatch *part, SxEntrance *e, uint64 *done)
{
	volatile SxProcessResult result = SX_PROCESS_OK;
	MemoryContext caller = CurrentMemoryContext;
	Part	   *arg = MemoryContextAllocZero(p->context, sizeof(Part));

	arg->entrance = e;
	PG_TRY();
	{
		SxViewContext vc;
		SxValid    *valid;

		CHECK_FOR_INTERRUPTS();
		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		sx_view_context_push(&vc, p->info->def->viewid, "checking rows for");
		valid = sx_valid_of_stream(part->stream);
		e->any_condition = valid != NULL;
		if (valid != NULL)
		{
			if (!sx_batch_lock(part) || !sx_valid_begin(&arg->run, valid))
				result = SX_PROCESS_STREAM_LOCKED;
			else
			{
				sx_batch_each(part, arg->run.natts, test_row, arg);
				sx_valid_end(&arg->run);
			}
		}
		sx_view_context_pop(&vc);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		p->error = sx_worker_recover(p->context);
		result = SX_PROCESS_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);

	if (sx_budget_exceeded())
		result = SX_PROCESS_SLOW;
	else if (result == SX_PROCESS_FAILED && arg->at_row && sx_is_row_error(p->error->sqlerrcode))
	{
		add_invalid(e, &arg->row, unpack_sql_state(p->error->sqlerrcode), p->error->message);
		*done = arg->number + 1;
		FreeErrorData(p->error);
		p->error = NULL;
		result = SX_PROCESS_OK;
	}
	return result;
}

static void
test_row(void *arg, TupleTableSlot *slot, const SxRun *row, uint64 number)
{
	Part	   *part = arg;
	bool		valid;

	part->row = *row;
	part->number = number;
	part->at_row = true;
	valid = sx_valid_test(&part->run, slot);
	part->at_row = false;
	if (!valid)
		add_invalid(part->entrance, row, NULL, NULL);
}

static void
add_invalid(SxEntrance *e, const SxRun *row, const char *sqlstate, const char *message)
{
	InvalidRow *invalid;

	if (e->n == e->max)
	{
		int			max = Max(e->max * 2, 64);

		e->invalid = e->invalid == NULL ?
			MemoryContextAllocHuge(e->context, sizeof(InvalidRow) * max) :
			repalloc_huge(e->invalid, sizeof(InvalidRow) * max);
		e->max = max;
	}
	invalid = &e->invalid[e->n];
	invalid->run = *row;
	invalid->sqlstate = sqlstate ? MemoryContextStrdup(e->context, sqlstate) : NULL;
	invalid->message = message ? MemoryContextStrdup(e->context, message) : NULL;
	e->n++;
}

/* the invalid rows stand in the order of the batch's runs, each of which they cut in two */
static void
leave_out_invalid(SxEntrance *e, const SxBatch *batch)
{
	int			next = 0;

	e->runs = MemoryContextAllocHuge(e->context, sizeof(SxRun) * ((Size) batch->nruns + e->n));
	for (int i = 0; i < batch->nruns; i++)
	{
		SxRun		rest = batch->runs[i];

		while (next < e->n && e->invalid[next].run.file == rest.file && e->invalid[next].run.block == rest.block &&
			   e->invalid[next].run.xid == rest.xid && e->invalid[next].run.first >= rest.first &&
			   e->invalid[next].run.first < rest.first + rest.count)
		{
			SxRun		before = rest;

			before.count = e->invalid[next].run.first - rest.first;
			if (before.count > 0)
				e->runs[e->nruns++] = before;
			rest.first += before.count + 1;
			rest.count -= before.count + 1;
			next++;
		}
		if (rest.count > 0)
			e->runs[e->nruns++] = rest;
	}
	if (next < e->n)
		elog(ERROR, "an invalid row is not in its batch");
}

static SxProcessResult
reject_invalid(SxProcess *p, const SxBatch *batch, SxEntrance *e)
{
	MemoryContext context = AllocSetContextCreate(p->context, "streamext invalid rows", ALLOCSET_DEFAULT_SIZES);
	SxProcessResult result = SX_PROCESS_OK;

	for (int from = 0; from < e->n && result == SX_PROCESS_OK; from += REJECT_ROWS)
	{
		int			n = Min(REJECT_ROWS, e->n - from);
		Letter	   *letters;

		MemoryContextReset(context);
		letters = MemoryContextAllocZero(context, sizeof(Letter) * n);
		result = make_letters(p, batch, e, from, n, letters, context);
		for (int i = 0; i < n && result == SX_PROCESS_OK; i++)
			if (!p->reject(p->arg, "invalid", letters[i].sqlstate, letters[i].json, letters[i].message))
				result = SX_PROCESS_NO_MEMORY;
	}
	MemoryContextDelete(context);
	return result;
}

static SxProcessResult
make_letters(SxProcess *p, const SxBatch *batch, SxEntrance *e, int from, int n, Letter *letters, MemoryContext context)
{
	volatile SxProcessResult result = SX_PROCESS_OK;
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		SxValid    *valid;
		SxValidRun	run;

		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		valid = sx_valid_of_stream(batch->stream);
		if (!sx_batch_lock(unconstify(SxBatch *, batch)) || (valid != NULL && !sx_valid_begin(&run, valid)))
			result = SX_PROCESS_STREAM_LOCKED;
		else
		{
			/* it may have been taken away in between */
			char	   *message = valid ? sx_valid_message(&run) : "the row fails the condition of the stream";

			for (int i = 0; i < n; i++)
			{
				InvalidRow *invalid = &e->invalid[from + i];
				SxBatch		one = *batch;
				char	   *json;

				CHECK_FOR_INTERRUPTS();
				one.runs = &invalid->run;
				one.nruns = 1;
				one.nrows = 1;
				one.from = 0;
				one.limit = PG_UINT64_MAX;
				json = valid ? sx_batch_row_json(&one) : NULL;
				letters[i].json = json ? MemoryContextStrdup(context, json) : NULL;
				letters[i].sqlstate = invalid->sqlstate ? invalid->sqlstate : SX_INVALID_SQLSTATE;
				letters[i].message = MemoryContextStrdup(context, invalid->message ? invalid->message : message);
			}
			if (valid)
				sx_valid_end(&run);
		}
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		p->error = sx_worker_recover(p->context);
		result = SX_PROCESS_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return sx_budget_exceeded() ? SX_PROCESS_SLOW : result;
}
