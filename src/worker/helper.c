/*
 * helper.c
 *		A second process that computes: rows of large transactions, while the consumer computes others.
 *
 * Where many views take the rows of a stream, one process may not follow a COPY.  Then the consumer starts this one and gives
 * it jobs (helper.h): runs of rows, and the views that are to take them.  It does with them what the consumer does in
 * consumer_early.c, into hidden live state that only it writes.  The consumer adds that to the views when the transaction is
 * consumed; all that decides about rows, and all that is published, stays there.
 *
 * So nothing depends on the helper: what it could not compute, for whatever reason, or what it was at when it ended, the
 * consumer computes itself.  It ends when nothing has come for a while, and when its consumer has.
 */
#include "worker/helper.h"

#include "access/xact.h"
#include "catalog/definitions.h"
#include "live/live_read.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "time/watermark.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/early.h"
#include "testing/stop_points.h"

/* starting again takes ten milliseconds, and as long again to plan the views */
#define IDLE_MS		5000

/* What is known of a view */
typedef struct KnownView
{
	Oid			viewid;			/* hash key */
	bool		stale;
	uint64		number;			/* of the hidden state that it is written to */
	SxEarlyRows rows;			/* info NULL: not known */
	SxAccount	account;
} KnownView;

static SxDb *db;
static uint64 consumer;			/* its process id */
static HTAB *known;
static SxHelperView *running = NULL;

static void helper_exit(int code, Datum arg);
static void catalog_changed(void);
static bool next_job(bool idle, dsa_pointer *job);
static void measure(SxHelperJob *job);
static void do_job(SxHelperJob *job);
static SxBatch *batch_of(SxHelperJob *job, Oid streamid);
static void share(SxBatch *batch, SxHelperJob *job);
static void compute(SxHelperView *view, SxBatch *batch);
static KnownView *know(SxHelperView *view);
static bool look_up(SxHelperView *view, KnownView *kv);
static void forget(KnownView *kv);

void
sx_helper_main(Datum arg)
{
	SxWorkerArg wa = sx_worker_start();
	HASHCTL		ctl = {0};
	MemoryContext turn;
	TimestampTz worked_at = sx_now();

	db = sx_db_lookup(wa.dboid, false);
	consumer = wa.incarnation;
	if (db == NULL || !sx_take_place(db, SX_HELPER))
		proc_exit(0);
	before_shmem_exit(helper_exit, 0);
	sx_wake(db, SX_CONSUMER);
	SX_STOP_POINT(helper_started);

	/* whatever we wait for, the consumer does not: it computes these rows itself */
	SetConfigOption("lock_timeout", "200ms", PGC_SUSET, PGC_S_OVERRIDE);
	sx_live_read_disabled = true;
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(KnownView);
	known = hash_create("streamext helper views", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	sx_catalog_on_change(catalog_changed);

	turn = AllocSetContextCreate(TopMemoryContext, "streamext helper", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		dsa_area   *area;
		dsa_pointer job;

		sx_worker_check();
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		if (!next_job(TimestampDifferenceExceeds(worked_at, sx_now(), IDLE_MS), &job))
			proc_exit(0);
		if (!DsaPointerIsValid(job))
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1000, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			continue;
		}

		area = sx_db_area(db);
		if (area == NULL)
			proc_exit(0);		/* the consumer is leaving */
		measure(dsa_get_address(area, job));
		SX_STOP_POINT(helper_computed);
		SpinLockAcquire(&db->mutex);
		db->jobs_done++;
		SpinLockRelease(&db->mutex);
		sx_wake(db, SX_CONSUMER);
		worked_at = sx_now();
	}
}

/* a job that was not done counts for nothing: the consumer sees that we are gone */
static void
helper_exit(int code, Datum arg)
{
	if (running != NULL && sx_budget_is_deadly())
	{
		SxView	   *v = sx_view_by_id(db, running->viewid);

		/* the consumer would meet the same end */
		if (v != NULL)
			sx_view_set_slow(db, v, "its functions do not end when they are canceled: follows in a process of its own");
		ereport(LOG,
				(errmsg("streamext helper ends because continuous view with OID %u does not end when it is canceled",
						running->viewid)));
	}
	sx_leave_place(db, SX_HELPER);
	ConditionVariableBroadcast(&db->published_cv);
	sx_wake(db, SX_CONSUMER);
}

static void
catalog_changed(void)
{
	HASH_SEQ_STATUS seq;
	KnownView  *kv;

	hash_seq_init(&seq, known);
	while ((kv = hash_seq_search(&seq)) != NULL)
		kv->stale = true;
}

/* *job Invalid: there is none now; false: there will be none.  idle: for long there has been none */
static bool
next_job(bool idle, dsa_pointer *job)
{
	bool		stays;

	*job = InvalidDsaPointer;
	SpinLockAcquire(&db->mutex);
	stays = (uint64) db->places[SX_CONSUMER].pid == consumer && !db->closing;
	if (stays && db->jobs_done < db->jobs_given)
		*job = db->helper_jobs[db->jobs_done % SX_HELPER_JOBS];
	else if (idle)
		stays = false;
	SpinLockRelease(&db->mutex);
	return stays;
}

static void
measure(SxHelperJob *job)
{
	TimestampTz begun = sx_now();
	int64		cpu = sx_cpu_us();

	do_job(job);
	job->cpu_us = sx_cpu_us() - cpu;
	job->wall_us = sx_now() - begun;
}

static void
do_job(SxHelperJob *job)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		SxBatch    *batch = NULL;

		/* what the consumer knew when it gave us this we know as well */
		StartTransactionCommand();
		AcceptInvalidationMessages();
		CommitTransactionCommand();
		MemoryContextSwitchTo(caller);
		for (uint32 i = 0; i < job->nviews; i++)
		{
			SxHelperView *view = &job->views[i];

			if (view->unwanted)
				continue;
			/* those of one stream stand together */
			if (batch == NULL || batch->stream != view->streamid)
			{
				if (batch != NULL)
					sx_process_end_share(batch);
				batch = batch_of(job, view->streamid);
				sx_ask_times(batch, &view->time);
				share(batch, job);
			}
			compute(view, batch);
		}
		if (batch != NULL)
			sx_process_end_share(batch);
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(caller);

		(void) sx_budget_stop();
		running = NULL;
		sx_worker_log(LOG, "streamext helper could not compute its part of a transaction: %s", error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
}

static SxBatch *
batch_of(SxHelperJob *job, Oid streamid)
{
	SxFileMap  *map = sx_file_map_create(CurrentMemoryContext);
	SxHelperFile *files = sx_job_files(job);
	Oid		   *streams = sx_job_streams(job);
	SxReady		ready = {0};
	SxReady    *rows = &ready;

	for (uint32 i = 0; i < job->nfiles; i++)
	{
		List	   *members = NIL;

		for (uint32 j = 0; j < files[i].nstreams; j++)
			members = lappend_oid(members, *streams++);
		sx_file_map_enter(map, files[i].leaf, files[i].file, members);
	}
	ready.nrows = job->nrows;
	ready.nruns = job->nruns;
	ready.runs = sx_job_runs(job);
	return sx_batch_create(map, streamid, &rows, 1, 0);
}

/* the other views of its stream take it, too */
static void
share(SxBatch *batch, SxHelperJob *job)
{
	List	   *plans = NIL;

	for (uint32 i = 0; i < job->nviews; i++)
	{
		SxHelperView *view = &job->views[i];
		KnownView  *kv = view->streamid == batch->stream && !view->unwanted ? know(view) : NULL;

		if (kv != NULL)
			plans = lappend(plans, kv->rows.plan);
	}
	sx_process_share(batch, plans);
	list_free(plans);
}

static void
compute(SxHelperView *view, SxBatch *batch)
{
	KnownView  *kv = know(view);
	SxProcessResult result;
	int64		us;

	if (kv == NULL)
		return;
	if (batch->nrows == 0)
	{
		view->result = SX_PROCESS_OK;
		return;
	}
	running = view;
	sx_budget_start(sx_account_limit(&kv->account, batch->nrows));
	result = sx_early_run(&kv->rows, batch, CurrentMemoryContext);
	us = sx_budget_stop();
	running = NULL;
	if (!sx_account_charge(&kv->account, batch->nrows, us) || sx_budget_exceeded())
		result = SX_PROCESS_SLOW;

	if (result == SX_PROCESS_OK)
		sx_early_keep(&kv->rows);
	else
		sx_early_discard(&kv->rows);
	view->slow_ms = (int) Min(us / 1000, PG_INT32_MAX);
	if (batch->times != NULL)
		view->times = *batch->times;
	view->result = result;
}

/* NULL: it cannot be computed here */
static KnownView *
know(SxHelperView *view)
{
	bool		found;
	KnownView  *kv = hash_search(known, &view->viewid, HASH_ENTER, &found);

	if (!found)
		memset((char *) kv + sizeof(Oid), 0, sizeof(KnownView) - sizeof(Oid));
	if (kv->stale || (kv->rows.info != NULL && kv->rows.info->def->matid != view->matid))
		forget(kv);
	if (kv->rows.info == NULL && !look_up(view, kv))
		return NULL;
	if (kv->rows.writer == NULL || kv->number != view->number)
	{
		if (kv->rows.writer != NULL)
			sx_live_writer_destroy(kv->rows.writer);
		kv->rows.writer = NULL;
		kv->rows.writer = sx_live_writer_create(db, dsa_get_address(sx_db_area(db), view->hidden), kv->rows.info,
												TopMemoryContext);
		kv->number = view->number;
	}
	return kv;
}

/* its definition and plan; false: there is none for us */
static bool
look_up(SxHelperView *view, KnownView *kv)
{
	MemoryContext caller = CurrentMemoryContext;
	SxViewInfo *volatile info = NULL;
	SxPlan	   *volatile plan = NULL;

	kv->stale = false;
	sx_account_open(&kv->account);
	/* planning runs functions with constant arguments */
	running = view;
	sx_budget_start(sx_account_limit(&kv->account, 0));
	PG_TRY();
	{
		SxViewDef  *def;

		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		def = sx_catalog_view(view->viewid);
		/* the one that the consumer knows */
		if (def != NULL && def->matid == view->matid)
		{
			SxRunAs		as;

			sx_run_as_begin(&as, def);
			/* the transaction's, until all is well */
			info = sx_view_info_create(def, CurrentMemoryContext);
			plan = sx_plan_create(info);
			sx_run_as_end(&as);
			MemoryContextSetParent(info->context, TopMemoryContext);
		}
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(caller);

		info = NULL;
		sx_worker_log(LOG, "streamext helper could not prepare continuous view with OID %u: %s", view->viewid, error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	(void) sx_budget_stop();
	running = NULL;

	kv->rows.info = info;
	kv->rows.plan = plan;
	return info != NULL;
}

static void
forget(KnownView *kv)
{
	if (kv->rows.writer != NULL)
		sx_live_writer_destroy(kv->rows.writer);
	kv->rows.writer = NULL;
	if (kv->rows.info != NULL)
		sx_view_info_destroy(kv->rows.info);
	kv->rows.info = NULL;
	kv->rows.plan = NULL;
}
