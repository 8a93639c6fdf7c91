/*
 * early.c
 *		Runs a batch into hidden live state.
 *
 * Nothing is rejected here, and nothing judged: a row that fails, is not valid or may be late makes the whole attempt
 * worthless, and is found when its transaction is consumed.
 */
#include "worker/early.h"

static bool apply_row(void *arg, TupleTableSlot *row);
static void expect_rows(void *arg, MinimalTuple *rows, int n);
static bool reject(void *arg, const char *reason, const char *sqlstate, const char *row_json, const char *message);

SxProcessResult
sx_early_run(SxEarlyRows *rows, SxBatch *batch, MemoryContext context)
{
	SxProcess	process = {0};

	process.info = rows->info;
	process.plan = rows->plan;
	process.apply = apply_row;
	process.expect = expect_rows;
	process.reject = reject;
	process.arg = rows;
	process.context = context;
	process.give_up = true;
	return sx_process_batch(&process, batch);
}

static bool
apply_row(void *arg, TupleTableSlot *row)
{
	return sx_live_prepare(((SxEarlyRows *) arg)->writer, row);
}

static void
expect_rows(void *arg, MinimalTuple *rows, int n)
{
	sx_live_expect(((SxEarlyRows *) arg)->writer, rows, n);
}

static bool
reject(void *arg, const char *reason, const char *sqlstate, const char *row_json, const char *message)
{
	return false;
}

/* without the publish lock: nobody reads it */
void
sx_early_keep(SxEarlyRows *rows)
{
	SxRowCounts none = {0};

	if (!sx_live_has_prepared(rows->writer))
		return;
	sx_live_publish(rows->writer, 0, &none);
	sx_live_published(rows->writer);
}

void
sx_early_discard(SxEarlyRows *rows)
{
	if (sx_live_has_prepared(rows->writer))
		sx_live_discard(rows->writer);
}
