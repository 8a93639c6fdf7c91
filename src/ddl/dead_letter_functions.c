/*
 * dead_letter_functions.c
 *		SQL: streamext.retry_dead_letters(view): rows that were rejected are counted in.
 *		streamext.repair_dead_letter(id, row): replaces such a row.
 *
 * Each letter's row is made from its JSON again and goes through the view's own plan, in a subtransaction of
 * its own.  What succeeds is merged into the view's table, and into sinks that want corrections, and the
 * letter is gone, all in the caller's transaction, whose commit tells alerts; what fails stays a letter, with what was wrong this time.
 * A row is not judged as late again, but must meet the stream's condition, which runs as the owner of the
 * stream's table, as for all rows.
 *
 * Locking: the materialized table with ShareRowExclusiveLock, so that no flush writes at the same time, for
 * the rest of the transaction; flushes are tried again later.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "attempt.h"
#include "capture/delta_scan.h"
#include "catalog/dead_letters.h"
#include "ddl/ddl.h"
#include "live/merge.h"
#include "query/plan.h"
#include "query/row_json.h"
#include "query/valid.h"
#include "query/window_key.h"
#include "time/panes.h"
#include "time/sink.h"
#include "worker/worker.h"

typedef struct Retry
{
	SxViewDef  *def;
	SxViewInfo *info;
	SxPlan	   *plan;
	SxWindows  *removed;		/* past the view's retention; NULL: it has no windows */
	Tuplestorestate *rows;		/* of letters that succeeded */

	/* the one at work */
	SxDeadLetter *letter;
	char	   *message;		/* why it stays one */
	List	   *results;		/* of MinimalTuple */
	bool		too_old;
	bool		in_condition;	/* of the stream; an error there is not the view's */
} Retry;

PG_FUNCTION_INFO_V1(sx_retry_dead_letters);

PG_FUNCTION_INFO_V1(sx_repair_dead_letter);

static char *retry_letter(Retry *retry, SxDeadLetter *letter);
static void run_letter(void *arg);
static void keep_result(void *arg, TupleTableSlot *row);
static void store_results(Retry *retry);

Datum
sx_retry_dead_letters(PG_FUNCTION_ARGS)
{
	Oid			viewid = PG_GETARG_OID(0);
	Retry		retry = {0};
	SxWritten	written = {0};
	SxRunAs		as;
	SxStoredPosition *stored;
	List	   *done = NIL;
	List	   *failed = NIL;
	ListCell   *lc;
	MemoryContext scratch;
	MemoryContext old;

	PreventCommandIfReadOnly("streamext.retry_dead_letters()");
	PreventCommandIfParallelMode("streamext.retry_dead_letters()");
	PreventCommandDuringRecovery("streamext.retry_dead_letters()");
	(void) sx_view_for_user(viewid, true);
	LockRelationOid(viewid, AccessShareLock);
	/* it may just have been replaced */
	retry.def = sx_view_for_user(viewid, true);
	LockRelationOid(retry.def->matid, ShareRowExclusiveLock);

	/* what the lock waited for may have written letters */
	stored = sx_catalog_position_at(viewid, GetLatestSnapshot());
	if (stored == NULL || !stored->ours || sx_is_in_history(stored))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" has not been built yet", get_rel_name(viewid)),
				 errhint("Wait until its state in streamext.status is live.")));

	sx_run_as_begin(&as, retry.def);
	retry.info = sx_view_info_create(retry.def, CurrentMemoryContext);
	retry.plan = sx_plan_create(retry.info);
	retry.removed = sx_windows_create(retry.info, CurrentMemoryContext);
	if (retry.removed)
		(void) sx_windows_set_time(retry.removed, stored->removed_until);
	retry.rows = tuplestore_begin_heap(false, false, work_mem);
	scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext dead letter", ALLOCSET_DEFAULT_SIZES);
	foreach(lc, sx_catalog_dead_letters(viewid))
	{
		SxDeadLetter *letter = lfirst(lc);
		char	   *message;

		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(scratch);
		message = retry_letter(&retry, letter);
		MemoryContextSwitchTo(old);
		if (message == NULL)
			done = lappend(done, letter);
		else
		{
			letter->message = pstrdup(message);
			if (letter->sqlstate)
				letter->sqlstate = pstrdup(letter->sqlstate);
			failed = lappend(failed, letter);
		}
		MemoryContextReset(scratch);
	}
	sx_merge_into_table(retry.info, retry.rows, &written);
	sx_panes_merge_late(retry.info, retry.rows, stored->closed_until, stored->removed_until, &written);
	sx_sinks_append(retry.info, stored->watermark, &written, true);
	sx_run_as_end(&as);

	foreach(lc, done)
		sx_catalog_delete_dead_letter(lfirst(lc));
	foreach(lc, failed)
		sx_catalog_update_dead_letter(lfirst(lc));
	tuplestore_end(retry.rows);
	if (done != NIL)
		sx_note_table_write(viewid);
	PG_RETURN_INT64(list_length(done));
}

/* NULL, or why it stays a letter */
static char *
retry_letter(Retry *retry, SxDeadLetter *letter)
{
	ErrorData  *error;

	if (letter->row == NULL)
		return "the row is not known";
	retry->letter = letter;
	retry->message = NULL;
	retry->results = NIL;
	retry->too_old = false;
	retry->in_condition = false;
	error = sx_attempt(run_letter, retry, false);
	if (error != NULL)
	{
		letter->reason = retry->in_condition ? "invalid" : "error";
		letter->sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
		return error->message;
	}
	if (retry->message == NULL)
		store_results(retry);
	return retry->message;
}

static void
run_letter(void *arg)
{
	Retry	   *retry = arg;
	HeapTuple	row = sx_row_of_json(retry->def->streamid, retry->letter->row);

	retry->in_condition = true;
	retry->message = sx_valid_failure(retry->def->streamid, row);
	retry->in_condition = false;
	if (retry->message != NULL)
	{
		retry->letter->reason = "invalid";
		retry->letter->sqlstate = SX_INVALID_SQLSTATE;
		return;
	}
	sx_plan_run(retry->plan, sx_batch_of_row(retry->def->streamid, row), keep_result, retry);
	if (retry->too_old)
		retry->message = "its window is past the view's retention";
}

static void
keep_result(void *arg, TupleTableSlot *row)
{
	Retry	   *retry = arg;
	bool		isnull;

	if (retry->info->nkeys > 0 && !sx_key_fits(retry->info, row))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("group key is too large for the index of the materialized table")));
	if (retry->removed)
	{
		Datum		window = slot_getattr(row, retry->info->window_key + 1, &isnull);

		retry->too_old |= sx_window_is_removed(retry->removed, window, isnull);
	}
	retry->results = lappend(retry->results, sx_flatten_row(retry->info, row));
}

static void
store_results(Retry *retry)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(retry->info->desc, &TTSOpsMinimalTuple);
	ListCell   *lc;

	foreach(lc, retry->results)
	{
		ExecStoreMinimalTuple(lfirst(lc), slot, false);
		tuplestore_puttupleslot(retry->rows, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
}

Datum
sx_repair_dead_letter(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	Jsonb	   *row = PG_GETARG_JSONB_P(1);
	Oid			viewid;

	PreventCommandIfReadOnly("streamext.repair_dead_letter()");
	PreventCommandIfParallelMode("streamext.repair_dead_letter()");
	PreventCommandDuringRecovery("streamext.repair_dead_letter()");
	sx_require_preload();
	if (!JB_ROOT_IS_OBJECT(row))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("row must be a JSON object"),
				 errhint("Take the one in streamext.dead_letters and change it, for example: \"row\" || '{\"amount\": 1}'.")));
	viewid = sx_catalog_dead_letter_row(id, NULL);
	if (!OidIsValid(viewid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no dead letter with id " INT64_FORMAT, id),
				 errhint("See streamext.dead_letters.")));
	(void) sx_view_for_user(viewid, true);
	LockRelationOid(viewid, AccessShareLock);
	LockRelationOid(sx_view_for_user(viewid, true)->matid, ShareRowExclusiveLock);
	/* somebody may have counted it in meanwhile */
	if (!OidIsValid(sx_catalog_dead_letter_row(id, row)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("dead letter " INT64_FORMAT " has just been counted in", id)));
	PG_RETURN_VOID();
}
