/*
 * flusher.c
 *		Writes sealed generations into the materialized tables, so that cycles go on
 *		meanwhile.
 *
 * One transaction per view: the generation's rows are upserted, combined with what is
 * there, its dead letters inserted, and the position stored.  The transaction's id is noted
 * with the generation before it commits, so that a reader's snapshot tells whether the table
 * already contains the generation.  A crash before the commit leaves table and position
 * as they were, after it both are new; the generation is gone either way.
 *
 * A view that cannot be written (full disk, locked table) is retried with a pause; after a few
 * failures the consumer takes its live state away, as soon as memory is exhausted or a flush of
 * other views is waited for, and it falls back to its stored position (see consumer_flush.c).
 * One whose flush takes too long for its entries (a trigger or an index expression that hangs) is
 * interrupted, as in the consumer (budget.c), and falls back at once: all flushes are this process's.
 */
#include "worker/worker_internal.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/definitions.h"
#include "live/live_read.h"
#include "live/merge.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "time/panes.h"
#include "time/retention.h"
#include "time/sink.h"
#include "time/watermark.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* first and longest pause of a view that fails */
#define FIRST_PAUSE_MS		100
#define LONGEST_PAUSE_MS	10000
/* writing and appending closed windows may take as long as writing so many rows */
#define CLOSED_ROWS			10000
/* memory to collect rows in, and again to sort them: a hundred thousand groups */
#define MEMORY_KB			16384
/*
 * A view whose flush takes long is flushed as much less often: of the flusher's time it takes this part at most.  While
 * rows keep coming many of its groups would be written again and again.
 */
#define REST_SHARE			3

typedef struct FlushView
{
	Oid			viewid;			/* hash key */
	SxViewInfo *info;
	bool		stale;
	/* see time/retention.h; of this table: one that replaces it may be of another stream's time */
	Oid			matid;
	int64		remove_until;	/* as stored with the last flush */
	int64		removed_until;	/* what is done */
} FlushView;

typedef struct FlushRows
{
	Tuplestorestate *store;
	TupleTableSlot *slot;
} FlushRows;

static HTAB *views;
static volatile bool views_stale;

static void flusher_exit(int code, Datum arg);
static void catalog_changed(void);
static SxViewInfo *get_info(Oid viewid);
static bool flush_one(SxDb *db);
static SxView *claim(SxDb *db);
static bool flush_view(SxDb *db, SxView *v, SxGeneration *gen);
static int64 close_windows(SxViewInfo *info, SxStoredPosition *stored, SxGeneration *gen, int64 closed_until,
						  SxWritten *written);
static void put_row(void *arg, MinimalTuple tuple);
static void put_letter(void *arg, const SxSharedDeadLetter *d);
static void store_position(SxDb *db, SxGeneration *gen, SxView *v, SxViewInfo *info, SxStoredPosition *stored);
static void flushed(SxDb *db, SxView *v, SxGeneration *gen, const SxStoredPosition *stored,
					TimestampTz started, int64 open_windows);
static bool remove_some(void);
static bool remove_rows(Oid viewid, int64 until);
static void flush_failed(SxDb *db, SxView *v, SxGeneration *gen, ErrorData *error);
static void try_later(SxDb *db, SxView *v, int pause);
static void flush_is_slow(SxDb *db, SxView *v);

void
sx_flusher_main(Datum arg)
{
	SxWorkerArg wa = sx_worker_start();
	SxDb	   *db = sx_db_lookup(wa.dboid, false);
	HASHCTL		ctl;
	MemoryContext turn;

	if (db == NULL || !sx_take_place(db, SX_FLUSHER))
		proc_exit(0);
	before_shmem_exit(flusher_exit, PointerGetDatum(db));
	ConditionVariableBroadcast(&db->published_cv);

	/* a row lock in one table must not keep the other views waiting: it is tried again later */
	SetConfigOption("lock_timeout", "200ms", PGC_SUSET, PGC_S_OVERRIDE);

	sx_live_read_disabled = true;
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(FlushView);
	views = hash_create("streamext flusher views", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	sx_catalog_on_change(catalog_changed);

	turn = AllocSetContextCreate(TopMemoryContext, "streamext flush", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		bool		wanted;
		bool		did;

		sx_worker_check();
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);

		SpinLockAcquire(&db->mutex);
		wanted = db->wanted && !db->closing;
		SpinLockRelease(&db->mutex);
		if (!wanted)
			proc_exit(0);

		/* old windows go when there is nothing to write */
		did = flush_one(db) || remove_some();
		/* autovacuum goes by what we report; not forced, it waits for another transaction to end */
		(void) pgstat_report_stat(!did);
		if (!did)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 1000, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
	}
}

static void
flusher_exit(int code, Datum arg)
{
	SxDb	   *db = (SxDb *) DatumGetPointer(arg);

	/* our successor would meet the same end: the view is not written by us any more */
	if (sx_budget_is_deadly())
	{
		SxView	   *v = sx_view_by_id(db, db->flushing_view);

		if (v)
			flush_is_slow(db, v);
		ereport(LOG,
				(errmsg("streamext flusher ends because writing continuous view with OID %u does not end when it is canceled",
						db->flushing_view)));
	}
	SpinLockAcquire(&db->mutex);
	db->flushing_view = InvalidOid;
	SpinLockRelease(&db->mutex);
	sx_leave_place(db, SX_FLUSHER);
	ConditionVariableBroadcast(&db->published_cv);
	sx_wake_launcher();
}

static void
catalog_changed(void)
{
	views_stale = true;
}

/* in a transaction, as the superuser we are: the owner's rights are checked while writing */
static SxViewInfo *
get_info(Oid viewid)
{
	FlushView  *fv;
	bool		found;

	if (views_stale)
	{
		HASH_SEQ_STATUS seq;

		views_stale = false;
		hash_seq_init(&seq, views);
		while ((fv = hash_seq_search(&seq)) != NULL)
			fv->stale = true;
	}

	fv = hash_search(views, &viewid, HASH_ENTER, &found);
	if (!found)
	{
		fv->info = NULL;
		fv->stale = false;
		fv->matid = InvalidOid;
		fv->remove_until = fv->removed_until = SX_TIME_NONE;
	}
	if (fv->info && fv->stale)
	{
		sx_view_info_destroy(fv->info);
		fv->info = NULL;
	}
	if (fv->info == NULL)
	{
		SxViewDef  *def = sx_catalog_view(viewid);

		fv->stale = false;
		if (def == NULL)
		{
			hash_search(views, &viewid, HASH_REMOVE, NULL);
			return NULL;
		}
		fv->info = sx_view_info_create(def, TopMemoryContext);
		if (fv->matid != def->matid)
			fv->remove_until = fv->removed_until = SX_TIME_NONE;
		fv->matid = def->matid;
	}
	return fv->info;
}

/* flushes the oldest sealed generation that may be tried now; false: there is none */
static bool
flush_one(SxDb *db)
{
	SxView	   *v = claim(db);
	SxGeneration *gen;
	MemoryContext caller = CurrentMemoryContext;

	if (v == NULL)
		return false;
	gen = sx_gen_sealed(v);

	PG_TRY();
	{
		SxViewContext vc;

		sx_view_context_push(&vc, v->viewid, "flushing");
		SX_STOP_POINT_OF(flush_claimed, v->viewid);
		if (!flush_view(db, v, gen))
			try_later(db, v, FIRST_PAUSE_MS);
		sx_view_context_pop(&vc);
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(caller);

		(void) sx_budget_stop();
		flush_failed(db, v, gen, error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);

	SpinLockAcquire(&db->mutex);
	db->flushing_view = InvalidOid;
	SpinLockRelease(&db->mutex);
	ConditionVariableBroadcast(&db->published_cv);
	sx_wake(db, SX_CONSUMER);
	return true;
}

/*
 * Under the publish lock, where the consumer changes a view's state: from here on it leaves
 * the view's generations alone until flushing_view is cleared.
 */
static SxView *
claim(SxDb *db)
{
	static int	next = 0;
	TimestampTz now = sx_now();
	SxView	   *claimed = NULL;

	if (sx_db_area(db) == NULL)
		return NULL;
	sx_lock_publish_exclusive(db);
	for (int i = 0; i < db->nviews; i++)
	{
		SxView	   *v = &db->views[(next + i) % db->nviews];

		if (OidIsValid(v->viewid) &&
			(v->state == SX_VIEW_LIVE || v->state == SX_VIEW_PAUSING) &&
			sx_gen_sealed(v) != NULL && v->retry_at <= now && !v->slow)
		{
			claimed = v;
			next = (next + i + 1) % db->nviews;
			break;
		}
	}
	if (claimed)
	{
		SpinLockAcquire(&db->mutex);
		db->flushing_view = claimed->viewid;
		SpinLockRelease(&db->mutex);
	}
	sx_unlock_publish(db);
	return claimed;
}

/* false: the view is being dropped, or has been replaced, and the consumer is about to hear of it */
static bool
flush_view(SxDb *db, SxView *v, SxGeneration *gen)
{
	SxViewInfo *info;
	SxStoredPosition *stored;
	SxStoredPosition keep;
	int64		closed_until;
	int64		open_windows;
	TimestampTz started = sx_now();
	FlushRows	rows = {0};
	SxWritten	written = {0};

	sx_budget_start(0);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());

	/* a lock on the table must not keep the other views waiting */
	if (!ConditionalLockRelationOid(v->matid, RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the materialized table is locked")));
	AcceptInvalidationMessages();
	info = get_info(v->viewid);
	if (info == NULL || info->def->matid != v->matid)
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		(void) sx_budget_stop();
		return false;
	}
	stored = sx_catalog_position(v->viewid);
	if (stored == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the continuous view has no stored position")));
	/*
	 * The generation continues one position and no other: had somebody else written the table
	 * meanwhile, or a flusher that died right after its commit, rows would count twice.
	 */
	if (stored->seq != v->seq)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the stored position is not the one that the live state continues")));

	SX_STOP_POINT_OF(flush_checked, v->viewid);
	if (gen->nentries > 0)
	{
		SxRunAs		as;

		sx_budget_start(sx_budget_of_flush(gen->nentries));
		sx_run_as_begin(&as, info->def);
		sx_worker_take_memory(Min(maintenance_work_mem, MEMORY_KB));
		rows.store = tuplestore_begin_heap(false, false, work_mem);
		rows.slot = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
		sx_gen_rows(db, gen, put_row, &rows);
		sx_merge_into_table(info, rows.store, sx_catalog_sinks(v->viewid) != NIL ? &written : NULL);
		sx_panes_merge_late(info, rows.store, stored->closed_until, gen->removed_until, &written);
		ExecDropSingleTupleTableSlot(rows.slot);
		sx_run_as_end(&as);
		/* a trigger may have caught the cancel: the view leaves all the same */
		if (sx_budget_exceeded())
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("writing the materialized table took too long")));
	}
	SX_STOP_POINT_OF(flush_merged, v->viewid);
	if (gen->ndead > 0)
		sx_gen_dead_letters(db, gen, put_letter, v);
	closed_until = stored->closed_until;
	store_position(db, gen, v, info, stored);
	keep = *stored;
	SX_STOP_POINT_OF(flush_stored, v->viewid);
	open_windows = close_windows(info, stored, gen, closed_until, &written);
	if (rows.store != NULL)
		tuplestore_end(rows.store);
	PopActiveSnapshot();

	sx_lock_publish_exclusive(db);
	gen->flush_xid = GetTopTransactionId();
	sx_unlock_publish(db);
	SX_STOP_POINT_OF(flush_noted, v->viewid);
	/* deferred triggers run here */
	CommitTransactionCommand();
	(void) sx_budget_stop();
	SX_STOP_POINT_OF(flush_committed, v->viewid);

	flushed(db, v, gen, &keep, started, open_windows);
	return true;
}

/*
 * Windows that have closed since the last flush get rows of their own, and go to the view's sinks; part of
 * the same flush, for which it takes longer.  Returns how many are open.
 */
static int64
close_windows(SxViewInfo *info, SxStoredPosition *stored, SxGeneration *gen, int64 closed_until,
			  SxWritten *written)
{
	SxRunAs		as;
	int64		open_windows;

	if (info->window_key < 0)
		return -1;
	sx_budget_start(sx_budget_of_flush(gen->nentries + CLOSED_ROWS));
	sx_run_as_begin(&as, info->def);
	sx_panes_close(info, closed_until, stored->closed_until);
	sx_sinks_append(info, stored->watermark, written, false);
	open_windows = sx_open_windows(info, stored->watermark);
	sx_run_as_end(&as);
	if (sx_budget_exceeded())
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("writing closed windows took too long")));
	SX_STOP_POINT_OF(flush_appended, info->def->viewid);
	return open_windows;
}

static void
put_row(void *arg, MinimalTuple tuple)
{
	FlushRows  *rows = arg;

	ExecStoreMinimalTuple(tuple, rows->slot, false);
	tuplestore_puttupleslot(rows->store, rows->slot);
}

static void
put_letter(void *arg, const SxSharedDeadLetter *d)
{
	SxView	   *v = arg;
	char	   *row = NULL;
	char	   *message;
	uint32		rowlen = d->rowlen == PG_UINT32_MAX ? 0 : d->rowlen;

	if (d->rowlen != PG_UINT32_MAX)
		row = pnstrdup(d->data, d->rowlen);
	message = pnstrdup(d->data + rowlen, d->messagelen);
	sx_dead_letter_insert(v->viewid, d->stream, d->sqlstate[0] ? d->sqlstate : NULL, d->reason, row, message, d->at);
	if (row)
		pfree(row);
	pfree(message);
}

/* the position that was sealed with the generation, in place of the stored one */
static void
store_position(SxDb *db, SxGeneration *gen, SxView *v, SxViewInfo *info, SxStoredPosition *stored)
{
	dsa_area   *area = sx_db_area(db);
	uint32	   *files = dsa_get_address(area, gen->files);

	stored->position = dsa_get_address(area, gen->position);
	stored->start_lsn = gen->start_lsn;
	stored->seq++;
	stored->open_rows = DsaPointerIsValid(gen->open_rows) ? dsa_get_address(area, gen->open_rows) : NULL;
	stored->new_open_rows = gen->new_open_rows;
	sx_counts_add(&stored->counts, &gen->counts);
	stored->watermark = gen->watermark;
	stored->removed_until = gen->removed_until;
	stored->closed_until = sx_panes_closed_until(info, gen->watermark, stored->closed_until);
	stored->complete_at = v->complete_at;
	stored->nfiles = files[0];
	stored->file_rels = palloc(sizeof(Oid) * (files[0] + 1));
	stored->file_nodes = palloc(sizeof(Oid) * (files[0] + 1));
	for (uint32 i = 0; i < files[0]; i++)
	{
		stored->file_rels[i] = files[1 + 2 * i];
		stored->file_nodes[i] = files[2 + 2 * i];
	}
	sx_catalog_store_position(stored);
}

static void
flushed(SxDb *db, SxView *v, SxGeneration *gen, const SxStoredPosition *stored, TimestampTz started,
		int64 open_windows)
{
	TimestampTz now = sx_now();
	TimestampTz wall_clock = GetCurrentTimestamp();
	SxPosition *position = dsa_get_address(sx_db_area(db), gen->position);
	FlushView  *fv = hash_search(views, &v->viewid, HASH_FIND, NULL);

	if (fv != NULL)
		fv->remove_until = Max(fv->remove_until, gen->removed_until);
	SpinLockAcquire(&db->mutex);
	v->protect_xmin = position->xmin;
	v->protect_lsn = gen->start_lsn;
	v->open_windows = open_windows;
	v->flushes++;
	v->last_flush = wall_clock;
	v->last_flush_us = (int) Min(now - started, PG_INT32_MAX);
	v->rest_until = now + (REST_SHARE - 1) * (now - started);
	v->failures = 0;
	v->retry_at = 0;
	v->reason[0] = '\0';
	SpinLockRelease(&db->mutex);
	SX_STOP_POINT_OF(flush_protected, v->viewid);

	sx_lock_publish_exclusive(db);
	gen->state = SX_GEN_FLUSHED;
	v->flushed_cycle = gen->cycle;
	v->seq = stored->seq;
	sx_unlock_publish(db);
	if (v->alerted)
		sx_wake(db, SX_ALERTER);
	SX_STOP_POINT_OF(flush_marked, v->viewid);
}

/* a batch of one view's; false: there is nothing to remove */
static bool
remove_some(void)
{
	HASH_SEQ_STATUS seq;
	Oid			viewid = InvalidOid;
	int64		until = 0;
	FlushView  *fv;
	bool		all;

	hash_seq_init(&seq, views);
	while ((fv = hash_seq_search(&seq)) != NULL)
	{
		if (fv->removed_until >= fv->remove_until)
			continue;
		viewid = fv->viewid;
		until = fv->remove_until;
	}
	if (!OidIsValid(viewid))
		return false;

	all = remove_rows(viewid, until);
	fv = hash_search(views, &viewid, HASH_FIND, NULL);
	if (fv != NULL && all && fv->remove_until >= until)
		fv->removed_until = until;
	return true;
}

/* true: no more are left, or it must wait for the next flush */
static bool
remove_rows(Oid viewid, int64 until)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool all = true;

	PG_TRY();
	{
		SxViewContext vc;
		SxViewInfo *info;

		sx_view_context_push(&vc, viewid, "removing old windows");
		sx_budget_start(sx_budget_of_flush(SX_RETENTION_ROWS));
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		AcceptInvalidationMessages();
		info = get_info(viewid);
		/* not if the table has just been replaced */
		if (info != NULL && ((FlushView *) hash_search(views, &viewid, HASH_FIND, NULL))->remove_until >= until)
			all = sx_retention_remove(info, until);
		SX_STOP_POINT_OF(windows_removed, viewid);
		PopActiveSnapshot();
		CommitTransactionCommand();
		(void) sx_budget_stop();
		sx_view_context_pop(&vc);
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(caller);

		(void) sx_budget_stop();
		all = true;
		sx_worker_log(LOG, "could not remove old windows of continuous view with OID %u: %s", viewid, error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return all;
}

static void
flush_failed(SxDb *db, SxView *v, SxGeneration *gen, ErrorData *error)
{
	int			pause = FIRST_PAUSE_MS;

	/* readers add the generation again, whatever their snapshot says of the aborted id */
	sx_lock_publish_exclusive(db);
	gen->flush_xid = InvalidTransactionId;
	sx_unlock_publish(db);

	for (int i = 0; i < v->failures && pause < LONGEST_PAUSE_MS; i++)
		pause *= 2;
	SpinLockAcquire(&db->mutex);
	v->failures++;
	SpinLockRelease(&db->mutex);
	try_later(db, v, pause);
	if (sx_budget_exceeded())
	{
		flush_is_slow(db, v);
		return;
	}
	sx_view_set_error(db, v, error->message);
	sx_view_set_reason(db, v, "could not write the materialized table: %s", error->message);
	sx_worker_log(LOG, "could not flush continuous view with OID %u: %s", v->viewid, error->message);
}

static void
try_later(SxDb *db, SxView *v, int pause)
{
	SpinLockAcquire(&db->mutex);
	v->retry_at = TimestampTzPlusMilliseconds(sx_now(), pause);
	SpinLockRelease(&db->mutex);
}

/* the consumer takes it away from us */
static void
flush_is_slow(SxDb *db, SxView *v)
{
	sx_view_set_slow(db, v, "too slow to be written with the others: follows in a process of its own");
	sx_worker_log(LOG, "continuous view with OID %u is %s", v->viewid, v->slow_why);
}
