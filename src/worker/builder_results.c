/*
 * builder_results.c
 *		What a builder computes, and how it is written: results and dead letters on their way to
 *		the tables, together with the position that they belong to.
 */
#include "worker/builder_internal.h"

#include "access/relation.h"
#include "access/xact.h"
#include "capture/delta_scan.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "live/merge.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "time/panes.h"
#include "time/retention.h"
#include "time/sink.h"
#include "time/watermark.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/history_progress.h"
#include "testing/stop_points.h"

/* looks for a lock that is not free */
#define LOCK_TRIES		300

/* Columns of a dead letter on its way, all text */
enum
{
	LETTER_REASON,
	LETTER_SQLSTATE,			/* may be NULL */
	LETTER_ROW,
	LETTER_MESSAGE,
	LETTER_NATTS
};

static bool is_outdated(SxBatch *batch);
static bool apply_row(void *arg, TupleTableSlot *row);
static bool apply_reject(void *arg, const char *reason, const char *sqlstate, const char *row_json,
						 const char *message);
static TupleDesc letter_desc(void);
static void write_letters(void);
static void remove_old(int64 until);

/* rows that VACUUM has taken, while nothing protected them */
void
sx_builder_drop_missing(SxBatch *batch)
{
	for (int tries = 0;; tries++)
	{
		bool		locked;

		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		locked = sx_batch_lock(batch);
		if (locked)
		{
			uint64		lost = sx_batch_drop_missing(batch);

			if (lost > 0 && sx_builder.nlost >= 0)
				sx_builder.nlost += lost;
		}
		PopActiveSnapshot();
		CommitTransactionCommand();
		if (locked)
			return;
		if (tries >= LOCK_TRIES)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("a table of the stream is locked")));
		sx_builder_phase("waits for a lock on a table of the stream");
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 100,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		sx_worker_check();
	}
}

/* does the batch name a file that its table does not have any more? */
static bool
is_outdated(SxBatch *batch)
{
	bool		outdated = false;
	uint32		last = PG_UINT32_MAX;

	StartTransactionCommand();
	for (int i = 0; i < batch->nruns && !outdated; i++)
	{
		SxFileEntry *entry;
		Relation	rel;

		if (batch->runs[i].file == last)
			continue;
		last = batch->runs[i].file;
		entry = sx_file_map_entry(batch->map, last);
		if (entry->dead || !ConditionalLockRelationOid(entry->leaf, AccessShareLock))
			continue;
		rel = try_relation_open(entry->leaf, NoLock);
		outdated = rel == NULL || !SxFileEquals(SxRelationFile(rel), entry->file);
		if (rel)
			relation_close(rel, NoLock);
	}
	CommitTransactionCommand();
	return outdated;
}

/* runs a batch into the results; waits for locks: nobody else waits for us */
int64
sx_builder_compute(SxBatch *batch, bool judge)
{
	SxProcess	p;

	memset(&p, 0, sizeof(p));
	p.info = sx_builder.info;
	p.plan = sx_builder.plan;
	p.apply = apply_row;
	p.reject = apply_reject;
	p.context = sx_builder.work;
	p.late = judge ? sx_builder.lateness : NULL;
	for (int tries = 0;; tries++)
	{
		SxProcessResult result;
		int64		us;

		if (p.late)
			sx_lateness_begin(p.late, &sx_builder.time, sx_builder.watermark, sx_builder.removed_until, sx_builder.work);
		sx_ask_times(batch, &sx_builder.time);
		sx_builder_begin_work(batch->nrows);
		result = sx_process_batch(&p, batch);
		us = sx_builder_end_work();
		switch (result)
		{
			case SX_PROCESS_OK:
				sx_builder.counts.rows += batch->nrows;
				if (p.late)
					sx_lateness_count(p.late, &sx_builder.counts);
				if (batch->times)
				{
					sx_builder.watermark = sx_watermark_after(&sx_builder.time, sx_builder.watermark,
															  batch->times->last);
					sx_builder.counts.future += batch->times->future;
				}
				return us;
			case SX_PROCESS_FAILED:
				ereport(ERROR,
						(errcode(p.error->sqlerrcode),
						 errmsg("%s", p.error->message),
						 p.error->detail ? errdetail_internal("%s", p.error->detail) : 0));
				break;
			default:
				/*
				 * Nothing of the batch has been kept by a slice that could not lock.  If a file was
				 * replaced since the batch was made, no waiting helps: begin at the stored position.
				 */
				if (is_outdated(batch))
					ereport(ERROR,
							(errcode(ERRCODE_OBJECT_IN_USE),
							 errmsg("a file of the stream has just been replaced")));
				if (tries >= LOCK_TRIES)
					ereport(ERROR,
							(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
							 errmsg("a table of the stream is locked")));
				if (p.blocked_by)
					sx_builder_phase("waits for a lock on table \"%s\"", p.blocked_by);
				else
					sx_builder_phase("waits for a lock on a table of the stream");
				p.blocked_by = NULL;
				sx_builder_begin_results();
				sx_builder_pause(SX_LOCK_POLL_MS);
				break;
		}
	}
}

static bool
apply_row(void *arg, TupleTableSlot *row)
{
	tuplestore_puttupleslot(sx_builder.rows, row);
	return true;
}

static bool
apply_reject(void *arg, const char *reason, const char *sqlstate, const char *row_json,
			 const char *message)
{
	Datum		values[LETTER_NATTS] = {0};
	bool		isnull[LETTER_NATTS] = {0};

	values[LETTER_REASON] = CStringGetTextDatum(reason);
	isnull[LETTER_SQLSTATE] = sqlstate == NULL;
	if (sqlstate)
		values[LETTER_SQLSTATE] = CStringGetTextDatum(sqlstate);
	isnull[LETTER_ROW] = row_json == NULL;
	if (row_json)
		values[LETTER_ROW] = CStringGetTextDatum(row_json);
	values[LETTER_MESSAGE] = CStringGetTextDatum(message);
	tuplestore_putvalues(sx_builder.letters, letter_desc(), values, isnull);
	for (int i = 0; i < LETTER_NATTS; i++)
		if (!isnull[i])
			pfree(DatumGetPointer(values[i]));
	return true;
}

/* made without a look at the catalog: rows are rejected between transactions */
static TupleDesc
letter_desc(void)
{
	static TupleDesc desc = NULL;

	if (desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		TupleDesc	made = CreateTemplateTupleDesc(LETTER_NATTS);

		for (int i = 0; i < LETTER_NATTS; i++)
			TupleDescInitBuiltinEntry(made, i + 1, "", TEXTOID, -1, 0);
		desc = made;
		MemoryContextSwitchTo(old);
	}
	return desc;
}

/* results outlive the transactions of the slices that made them; on disk beyond work_mem */
void
sx_builder_begin_results(void)
{
	MemoryContext old;

	if (sx_builder.rows)
		tuplestore_end(sx_builder.rows);
	sx_builder.rows = NULL;
	if (sx_builder.letters)
		tuplestore_end(sx_builder.letters);
	sx_builder.letters = NULL;
	MemoryContextReset(sx_builder.work);
	memset(&sx_builder.counts, 0, sizeof(sx_builder.counts));
	old = MemoryContextSwitchTo(sx_builder.work);
	/* a chunk's results are written at once, and many: few of these run at the same time */
	sx_builder.rows = tuplestore_begin_heap(false, true, sx_builder.in_history ? Max(work_mem, maintenance_work_mem) : work_mem);
	sx_builder.letters = tuplestore_begin_heap(false, true, work_mem);
	MemoryContextSwitchTo(old);
}

static void
write_letters(void)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(letter_desc(), &TTSOpsMinimalTuple);

	tuplestore_rescan(sx_builder.letters);
	while (tuplestore_gettupleslot(sx_builder.letters, true, false, slot))
	{
		char	   *field[LETTER_NATTS];

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		for (int i = 0; i < LETTER_NATTS; i++)
			field[i] = slot->tts_isnull[i] ? NULL : TextDatumGetCString(slot->tts_values[i]);
		sx_dead_letter_insert(sx_builder.def->viewid, sx_builder.def->streamid, field[LETTER_SQLSTATE],
							  field[LETTER_REASON], field[LETTER_ROW], field[LETTER_MESSAGE], GetCurrentTimestamp());
		for (int i = 0; i < LETTER_NATTS; i++)
			if (field[i])
				pfree(field[i]);
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* results, dead letters and position, in the caller's transaction */
void
sx_builder_write(SxStoredPosition *pos, bool replace)
{
	SxRunAs		as;
	bool		sinks = sx_catalog_sinks(sx_builder.def->viewid) != NIL;
	SxWritten	written = {0};
	int64		closed_until = pos->closed_until;
	SxViewDef  *current;

	/* so that a DROP waits until the position is stored, also when nothing is written */
	LockRelationOid(sx_builder.def->matid, RowExclusiveLock);
	/* nor may it have been replaced, or have taken another's place, since it was loaded */
	current = sx_catalog_view(sx_builder.def->viewid);
	if (current == NULL || current->matid != sx_builder.def->matid)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the continuous view is gone")));
	if (replace)
	{
		sx_catalog_repair_dependencies(sx_builder.def);
		sx_catalog_delete_dead_letters(sx_builder.def->viewid);
	}

	sx_run_as_begin(&as, sx_builder.def);
	if (replace)
	{
		char	   *sql = psprintf("DELETE FROM ONLY %s",
								   quote_qualified_identifier(SX_SCHEMA, get_rel_name(sx_builder.def->matid)));

		SPI_connect();
		if (SPI_execute(sql, false, 0) != SPI_OK_DELETE)
			elog(ERROR, "could not empty the materialized table");
		SPI_finish();
		SX_STOP_POINT_OF(results_emptied, sx_builder.def->viewid);
	}
	if (replace || sx_builder.in_history)
		sx_worker_take_memory(maintenance_work_mem);
	if (replace || sx_builder.in_history)
		sx_merge_into_new_table(sx_builder.info, sx_builder.rows, sx_builder.in_history ? sx_progress_writes : NULL);
	else
		sx_merge_into_table(sx_builder.info, sx_builder.rows, sinks && !sx_builder.in_history ? &written : NULL);
	sx_panes_merge_late(sx_builder.info, sx_builder.rows, closed_until, pos->removed_until, &written);
	sx_run_as_end(&as);
	SX_STOP_POINT_OF(results_merged, sx_builder.def->viewid);

	write_letters();
	if (sx_builder.nlost != 0)
		sx_builder_report_lost(sx_builder.nlost);
	sx_builder.nlost = 0;

	pos->seq++;
	sx_counts_add(&pos->counts, &sx_builder.counts);
	pos->watermark = sx_builder.watermark;
	pos->removed_until = sx_builder.removed_until =
		sx_retention_until(sx_builder.def, sx_builder.info, &sx_builder.time, pos->watermark, pos->removed_until);
	pos->closed_until = sx_panes_closed_until(sx_builder.info, pos->watermark, closed_until);
	sx_catalog_store_position(pos);
	sx_run_as_begin(&as, sx_builder.def);
	sx_panes_close(sx_builder.info, closed_until, pos->closed_until);
	sx_sinks_append(sx_builder.info, pos->watermark, &written, true);
	sx_builder.open_windows = sx_open_windows(sx_builder.info, pos->watermark);
	sx_run_as_end(&as);
	SX_STOP_POINT_OF(results_stored, sx_builder.def->viewid);
}

/* a lock on the table is waited for outside of a transaction, which would hold up others */
void
sx_builder_commit(SxStoredPosition *pos)
{
	SxView	   *v = sx_builder.v;
	int64		entries = tuplestore_tuple_count(sx_builder.rows) + tuplestore_tuple_count(sx_builder.letters);
	TimestampTz since = sx_now();
	bool		waited = false;
	int64		us;
	int64		limit = sx_budget_of_flush(entries);

	for (;;)
	{
		StartTransactionCommand();
		if (ConditionalLockRelationOid(sx_builder.def->matid, RowExclusiveLock))
			break;
		CommitTransactionCommand();
		if (!waited && TimestampDifferenceExceeds(since, sx_now(), 100))
		{
			sx_builder_phase("waits for its table's lock");
			waited = true;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		sx_worker_check();
	}
	if (waited)
		sx_builder_phase("%s", v->slow ? "follows" : "catching up");

	sx_builder_begin_work(sx_builder.counts.rows);
	PushActiveSnapshot(GetTransactionSnapshot());
	sx_builder_write(pos, false);
	PopActiveSnapshot();
	CommitTransactionCommand();
	us = sx_builder_end_work();
	remove_old(pos->removed_until);

	sx_builder.written_lsn = pos->start_lsn;
	SpinLockAcquire(&sx_builder.db->mutex);
	v->counts = pos->counts;
	v->watermark = pos->watermark;
	v->removed_until = pos->removed_until;
	v->open_windows = sx_builder.open_windows;
	v->flushes++;
	v->last_flush = GetCurrentTimestamp();
	v->last_flush_us = (int) Min(us, PG_INT32_MAX);
	SpinLockRelease(&sx_builder.db->mutex);
	sx_wake(sx_builder.db, SX_ALERTER);
	/* autovacuum goes by what we report; one that follows for long is never at its end */
	(void) pgstat_report_stat(false);
	if (limit > 0 && us > limit && !sx_builder.in_history)
		sx_builder_too_slow("writing", us, entries);
}

/* a batch each time, as the flusher does for views that it writes */
static void
remove_old(int64 until)
{
	if (sx_builder.def->retention < 0 || until == SX_TIME_NONE)
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) sx_retention_remove(sx_builder.info, until);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* rows: -1, not known */
void
sx_builder_report_lost(int64 rows)
{
	SxDb	   *db = sx_builder.db;
	char		why[sizeof(db->exposed_why)];

	SpinLockAcquire(&db->mutex);
	memcpy(why, db->exposed_why, sizeof(why));
	SpinLockRelease(&db->mutex);
	sx_catalog_add_lost_interval(sx_builder.def, sx_builder.lost_from, sx_builder.v->protected_since,
								 rows, why[0] != '\0' ? why : "Nothing is known of why they were not protected.");
}
