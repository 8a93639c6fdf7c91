/*
 * builder.c
 *		Brings one view up: history, then WAL, written directly into its table, until it
 *		stands close enough behind the consumer to join.
 *
 * Start of capture.  Transactions that are already open wrote rows before anyone listened.
 * So: note the end of WAL, L0; wait, blocking nobody, until every transaction that held a
 * writer's lock on the stream then has ended; take the snapshot S.  History is what S sees;
 * WAL from L0 gives the rest, because a transaction that S does not see took its lock after
 * L0.  History and position commit together: a crash before that starts over, one after it
 * goes on with WAL.
 *
 * A view WITH NO DATA begins with the CREATE statement's snapshot as its position.  Rows
 * committed between that and S are found by the rule of sx_file_scan.
 *
 * The same process catches up views that fell back (trouble, pause, a batch larger than the
 * memory): there is a stored position already, so only WAL is read.
 */
#include "worker/cycle.h"
#include "worker/worker_internal.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "capture/delta_scan.h"
#include "catalog/definitions.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "live/live_read.h"
#include "live/merge.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/sinvaladt.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "testing/stop_points.h"

/* this close to the consumer the view may join */
#define CLOSE_BYTES		(UINT64CONST(2) * 1024 * 1024)
/* rows that are computed before they are written, with the position */
#define WRITE_ROWS		2000000
/* looks for a lock that is not free, 100 ms apart */
#define LOCK_TRIES		300
/* pause between looks at open transactions */
#define WRITER_POLL_MS	20

typedef struct Letter
{
	char	   *sqlstate;
	char	   *row_json;
	char	   *message;
} Letter;

typedef struct Builder
{
	SxDb	   *db;
	SxView	   *v;
	SxViewDef  *def;
	SxViewInfo *info;
	SxPlan	   *plan;
	MemoryContext work;			/* reset after each write */
	Tuplestorestate *rows;		/* results not written yet */
	List	   *letters;		/* of Letter * */
	int64		nrows;			/* stream rows in them */
	uint64		seq;			/* of the stored position that history replaces */
} Builder;

static Builder builder;

static void builder_exit(int code, Datum arg);
static void set_phase(const char *fmt,...) pg_attribute_printf(1, 2);
static void load_view(void);
static void protect_from_slot(void);
static void set_protection(const SxPosition *position, XLogRecPtr lsn);
static void build_history(SxStoredPosition *stored);
static List *stream_members(bool lock);
static void wait_for_writers(void);
static bool history_by_plan(SxStoredPosition *pos);
static void history_by_rows(SxStoredPosition *pos, const SxPosition *since);
static void add_found_row(void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off);
static void store_row(void *arg, TupleTableSlot *row);
static void catch_up(SxStoredPosition *stored);
static bool consume_once(SxTail *tail, SxStoredPosition *stored, MemoryContext turn);
static void compute(SxBatch *batch);
static bool apply_row(void *arg, TupleTableSlot *row);
static bool apply_reject(void *arg, const char *sqlstate, const char *row_json, const char *message);
static void begin_results(void);
static void write_results(SxStoredPosition *pos, bool replace);
static void files_of(SxFileMap *map, SxStoredPosition *pos);
static SxStoredPosition *load_position(void);

void
sx_builder_main(Datum arg)
{
	SxWorkerArg wa = sx_worker_start();
	SxStoredPosition *stored;

	builder.db = sx_db_lookup(wa.dboid, false);
	if (builder.db == NULL)
		proc_exit(0);
	/* the consumer that launched us may be gone: its successor clears the views under this lock */
	sx_lock_publish_exclusive(builder.db);
	builder.v = sx_view_by_id(builder.db, wa.viewid);
	if (builder.v && (builder.v->state != SX_VIEW_BUILDING || builder.v->builder_pid != 0 ||
					  builder.v->incarnation != wa.incarnation || builder.db->closing))
		builder.v = NULL;
	if (builder.v)
		builder.v->builder_pid = MyProcPid;
	sx_unlock_publish(builder.db);
	if (builder.v == NULL)
		proc_exit(0);
	before_shmem_exit(builder_exit, (Datum) 0);

	sx_live_read_disabled = true;
	builder.work = AllocSetContextCreate(TopMemoryContext, "streamext builder", ALLOCSET_DEFAULT_SIZES);

	PG_TRY();
	{
		SxViewContext vc;

		sx_view_context_push(&vc, wa.viewid, "building");
		SX_STOP_POINT_OF(builder_started, wa.viewid);
		load_view();
		protect_from_slot();
		stored = load_position();
		if (stored == NULL || !stored->ours || stored->start_lsn == InvalidXLogRecPtr)
		{
			builder.seq = stored ? stored->seq : 0;
			build_history(stored && stored->ours ? stored : NULL);
			SX_STOP_POINT_OF(history_committed, wa.viewid);
			stored = load_position();
		}
		if (stored == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("the continuous view is gone")));
		catch_up(stored);
		SX_STOP_POINT_OF(builder_done, wa.viewid);
		sx_view_context_pop(&vc);
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(TopMemoryContext);
		int			pause = 200;

		for (int i = 0; i < builder.v->failures && pause < 30000; i++)
			pause *= 2;
		SpinLockAcquire(&builder.db->mutex);
		builder.v->failures++;
		builder.v->retry_at = TimestampTzPlusMilliseconds(sx_now(), pause);
		SpinLockRelease(&builder.db->mutex);
		sx_view_set_error(builder.db, builder.v, error->message);
		sx_view_set_reason(builder.db, builder.v, "failed, is tried again after %d ms: %s", pause, error->message);
		sx_lock_publish_exclusive(builder.db);
		builder.v->state = SX_VIEW_FAILED;
		sx_unlock_publish(builder.db);
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("could not bring up continuous view with OID %u: %s", wa.viewid, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->context ? errcontext("%s", error->context) : 0));
		proc_exit(0);
	}
	PG_END_TRY();

	set_phase("%s", "");
	sx_lock_publish_exclusive(builder.db);
	builder.v->state = SX_VIEW_CATCHUP;
	sx_unlock_publish(builder.db);
	proc_exit(0);
}

static void
builder_exit(int code, Datum arg)
{
	SpinLockAcquire(&builder.db->mutex);
	/* a view that is gone may have left its place to another */
	if (builder.v->builder_pid == MyProcPid)
		builder.v->builder_pid = 0;
	SpinLockRelease(&builder.db->mutex);
	ConditionVariableBroadcast(&builder.db->published_cv);
	sx_wake_consumer(builder.db);
}

static void
set_phase(const char *fmt,...)
{
	char		buf[sizeof(builder.v->reason)];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	SpinLockAcquire(&builder.db->mutex);
	strlcpy(builder.v->phase, buf, sizeof(builder.v->phase));
	SpinLockRelease(&builder.db->mutex);
	sx_view_set_reason(builder.db, builder.v, "%s", buf);
}

static void
load_view(void)
{
	SxRunAs		as;
	SxViewDef  *def;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(TopMemoryContext);
	def = sx_catalog_view(builder.v->viewid);
	MemoryContextSwitchTo(CurTransactionContext);
	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the continuous view is gone")));
	builder.def = def;
	sx_run_as_begin(&as, builder.def);
	builder.info = sx_view_info_create(builder.def, TopMemoryContext);
	builder.plan = sx_plan_create(builder.info);
	sx_run_as_end(&as);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* what the slot holds now, it keeps holding for us */
static void
protect_from_slot(void)
{
	SxDb	   *db = builder.db;
	SxView	   *v = builder.v;
	uint64		xmin = sx_widen_xid(db->slot_xmin);

	SpinLockAcquire(&db->mutex);
	if (v->protect_xmin == 0)
		v->protect_xmin = xmin;
	if (v->protect_lsn == InvalidXLogRecPtr)
		v->protect_lsn = db->slot_lsn;
	SpinLockRelease(&db->mutex);
}

static void
set_protection(const SxPosition *position, XLogRecPtr lsn)
{
	SpinLockAcquire(&builder.db->mutex);
	builder.v->protect_xmin = position->xmin;
	builder.v->protect_lsn = lsn;
	SpinLockRelease(&builder.db->mutex);
}

static SxStoredPosition *
load_position(void)
{
	SxStoredPosition *stored;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(TopMemoryContext);
	stored = sx_catalog_position(builder.def->viewid);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return stored;
}

/* ---- history ---- */

static void
build_history(SxStoredPosition *stored)
{
	SxStoredPosition pos;
	XLogRecPtr	l0;

	memset(&pos, 0, sizeof(pos));
	pos.viewid = builder.def->viewid;
	pos.seq = builder.seq;

	l0 = GetXLogInsertRecPtr();
	SX_STOP_POINT_OF(history_begin, builder.def->viewid);
	wait_for_writers();
	set_phase("reading the rows that are there");

	pos.start_lsn = l0;
	if (stored == NULL && history_by_plan(&pos))
		return;
	/* some row fails: one by one; or only what the position does not contain */
	history_by_rows(&pos, stored ? stored->position : NULL);
}

/*
 * The stream with its partitions, in a transaction.  With lock they cannot be rewritten, truncated,
 * attached or detached until its end.
 */
static List *
stream_members(bool lock)
{
	List	   *members;
	ListCell   *lc;

	if (lock)
		LockRelationOid(builder.def->streamid,
						get_rel_relkind(builder.def->streamid) == RELKIND_PARTITIONED_TABLE ?
						ShareUpdateExclusiveLock : AccessShareLock);
	members = find_all_inheritors(builder.def->streamid, lock ? AccessShareLock : NoLock, NULL);
	if (lock)
	{
		foreach(lc, members)
			if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_PARTITIONED_TABLE)
				LockRelationOid(lfirst_oid(lc), ShareUpdateExclusiveLock);
		/* again: a partition may have come before we had the lock */
		members = find_all_inheritors(builder.def->streamid, AccessShareLock, NULL);
	}
	return members;
}

static void
wait_for_writers(void)
{
	List	   *members;
	ListCell   *lc;
	VirtualTransactionId *writers = NULL;
	int			nwriters = 0;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	members = stream_members(false);
	foreach(lc, members)
	{
		LOCKTAG		tag;
		VirtualTransactionId *found;
		int			n;

		SET_LOCKTAG_RELATION(tag, MyDatabaseId, lfirst_oid(lc));
		found = GetLockConflicts(&tag, ShareLock, &n);
		if (n == 0)
			continue;
		if (writers == NULL)
			writers = MemoryContextAlloc(builder.work, sizeof(*writers) * n);
		else
			writers = repalloc(writers, sizeof(*writers) * (nwriters + n));
		memcpy(writers + nwriters, found, sizeof(*writers) * n);
		nwriters += n;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();

	for (int i = 0; i < nwriters; i++)
	{
		bool		named = false;

		for (;;)
		{
			bool		ended;

			sx_worker_check();
			StartTransactionCommand();
			ended = VirtualXactLock(writers[i], false);
			if (!ended && !named)
			{
				if (writers[i].backendId == InvalidBackendId)
					set_phase("waits for prepared transaction with id %u", writers[i].localTransactionId);
				else
				{
					PGPROC	   *proc = BackendIdGetProc(writers[i].backendId);

					set_phase("waits for open transaction of pid %d", proc ? proc->pid : 0);
				}
				named = true;
			}
			CommitTransactionCommand();
			if (ended)
				break;
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 WRITER_POLL_MS, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
	}
	if (writers)
		pfree(writers);
}

/* the files as they are under our locks: later ones are new to the capture that starts at L0 */
static void
files_of(SxFileMap *map, SxStoredPosition *pos)
{
	pos->nfiles = sx_file_map_files_of(map, builder.def->streamid, &pos->file_rels, &pos->file_nodes);
}

/*
 * One plan over all that S sees, results and position in the same transaction.  Returns false
 * if a row failed.
 */
static bool
history_by_plan(SxStoredPosition *pos)
{
	volatile bool ok = true;
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		SxRunAs		as;
		SxFileMap  *map;

		StartTransactionCommand();
		(void) stream_members(true);
		/* S must be younger than the waits for locks and writers */
		PushActiveSnapshot(GetTransactionSnapshot());
		pos->position = sx_position_from_snapshot(GetActiveSnapshot());
		map = sx_file_map_create(CurrentMemoryContext);
		sx_file_map_refresh(map, list_make1_oid(builder.def->streamid), false);
		files_of(map, pos);

		SX_STOP_POINT_OF(history_snapshot, builder.def->viewid);
		begin_results();
		sx_run_as_begin(&as, builder.def);
		(void) sx_plan_lock(builder.plan, true, NULL);
		sx_plan_run_history(builder.plan, store_row, NULL);
		sx_run_as_end(&as);
		SX_STOP_POINT_OF(history_computed, builder.def->viewid);
		write_results(pos, true);
		set_protection(pos->position, pos->start_lsn);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (!sx_is_row_error(error->sqlerrcode))
			PG_RE_THROW();
		FreeErrorData(error);
		(void) sx_worker_recover(builder.work);
		ok = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return ok;
}

static void
store_row(void *arg, TupleTableSlot *row)
{
	if (builder.info->nkeys > 0 && !sx_key_fits(builder.info, row))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("group key is too large for the index of the materialized table")));
	tuplestore_puttupleslot(builder.rows, row);
}

typedef struct HistoryRows
{
	SxFileMap  *map;
	uint32		file;
	SxPending  *pending;
	SxReady    *ready;
} HistoryRows;

/*
 * History by addresses, through the same path as new rows, so that a row that fails becomes a dead
 * letter.  `since`: only what that position does not contain (WITH NO DATA).
 */
static void
history_by_rows(SxStoredPosition *pos, const SxPosition *since)
{
	HistoryRows h;
	Snapshot	s;
	MemoryContext context;

	context = AllocSetContextCreate(TopMemoryContext, "streamext history", ALLOCSET_DEFAULT_SIZES);
	StartTransactionCommand();
	(void) stream_members(true);
	s = RegisterSnapshot(GetTransactionSnapshot());
	PushActiveSnapshot(s);
	MemoryContextSwitchTo(context);
	pos->seq = builder.seq;
	pos->position = sx_position_from_snapshot(s);
	h.map = sx_file_map_create(context);
	sx_file_map_refresh(h.map, list_make1_oid(builder.def->streamid), false);
	files_of(h.map, pos);
	h.pending = sx_pending_create(context);
	h.ready = sx_pending_new_ready(h.pending, SX_ALWAYS_XID, pos->start_lsn);
	for (h.file = 0; h.file < sx_file_map_count(h.map); h.file++)
	{
		SxFileEntry *e = sx_file_map_entry(h.map, h.file);

		if (e->dead)
			continue;
		if (since)
			sx_file_scan(e->leaf, s, since, NULL, add_found_row, &h);
		else
			sx_file_scan_visible(e->leaf, s, add_found_row, &h);
	}
	PopActiveSnapshot();
	UnregisterSnapshot(s);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	SX_STOP_POINT_OF(history_scanned, builder.def->viewid);

	begin_results();
	compute(sx_batch_create(h.map, builder.def->streamid, &h.ready, 1, false));

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	write_results(pos, since == NULL);
	PopActiveSnapshot();
	CommitTransactionCommand();
	set_protection(pos->position, pos->start_lsn);
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(context);
}

static void
add_found_row(void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off)
{
	HistoryRows *h = arg;

	sx_pending_ready_add_run(h->pending, h->ready, h->file, block, off, xid);
}

/* ---- catching up ---- */

static void
catch_up(SxStoredPosition *stored)
{
	SxTail	   *tail;
	MemoryContext turn;
	bool		close = false;

	if (!sx_wal_available(stored->start_lsn))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the WAL that the view needs is gone"),
				 errhint("Drop and create the view.")));

	set_phase("catching up");
	turn = AllocSetContextCreate(TopMemoryContext, "streamext builder turn", ALLOCSET_DEFAULT_SIZES);
	tail = sx_tail_create(TopMemoryContext, stored->start_lsn);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	sx_tail_set_streams(tail, list_make1_oid(builder.def->streamid));
	sx_file_map_refresh(tail->capture->map, tail->streams, false);
	tail->has_fresh = sx_file_map_compare(tail->capture->map, stored->nfiles, stored->file_rels, stored->file_nodes);
	PopActiveSnapshot();
	CommitTransactionCommand();

	/* at least once: a batch larger than the memory brought us here */
	while (!close)
	{
		XLogRecPtr	consumer = pg_atomic_read_u64(&builder.db->read_lsn);

		sx_worker_check();
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		close = consume_once(tail, stored, turn);
		/* the consumer must be able to join from the stored start */
		if (close && consumer > stored->start_lsn && consumer - stored->start_lsn > CLOSE_BYTES &&
			sx_pending_first_lsn(tail->capture->pending) == InvalidXLogRecPtr)
			close = tail->capture->read_lsn >= consumer;
	}
	sx_tail_destroy(tail);
}

/* one cycle, written with its position; true if nothing was left for the next */
static bool
consume_once(SxTail *tail, SxStoredPosition *stored, MemoryContext turn)
{
	SxPending  *pending = tail->capture->pending;
	SxPosition *snapshot;
	SxReady   **ready;
	int			n = 0;
	int			max = 1024;
	uint64		nrows = 0;
	uint64	   *held;
	int			nheld = 0;
	int			maxheld = 1024;
	XLogRecPtr	first;
	dlist_mutable_iter iter;

	if (!sx_tail_cycle(tail, stored->position, turn, &snapshot))
	{
		set_phase("waits for a lock on a table of the stream");
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 100, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		return false;
	}

	ready = palloc(sizeof(SxReady *) * max);
	held = palloc(sizeof(uint64) * maxheld);
	dlist_foreach_modify(iter, sx_pending_ready(pending))
	{
		SxReady    *r = dlist_container(SxReady, node, iter.cur);

		if (r->fxid != SX_ALWAYS_XID)
		{
			if (sx_position_contains(stored->position, r->fxid))
			{
				sx_pending_remove(pending, r);
				continue;
			}
			if (!sx_position_contains(snapshot, r->fxid))
				continue;
			if (n > 0 && nrows + r->nrows > WRITE_ROWS && !r->found)
			{
				if (nheld == maxheld)
					held = repalloc_huge(held, sizeof(uint64) * (maxheld *= 2));
				held[nheld++] = r->fxid;
				continue;
			}
		}
		if (n == max)
			ready = repalloc_huge(ready, sizeof(SxReady *) * (max *= 2));
		ready[n++] = r;
		nrows += r->nrows;
	}

	begin_results();
	if (n > 0)
		compute(sx_batch_create(tail->capture->map, builder.def->streamid, ready, n, false));
	for (int i = 0; i < n; i++)
		sx_pending_remove(pending, ready[i]);

	stored->position = sx_position_without(snapshot, held, nheld);
	MemoryContextSwitchTo(TopMemoryContext);
	stored->position = sx_position_copy(stored->position);
	MemoryContextSwitchTo(turn);
	first = sx_pending_first_lsn(pending);
	stored->start_lsn = (first != InvalidXLogRecPtr && first < tail->capture->read_lsn) ?
		first : tail->capture->read_lsn;
	files_of(tail->capture->map, stored);
	SX_STOP_POINT_OF(catch_up_computed, builder.def->viewid);

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	write_results(stored, false);
	PopActiveSnapshot();
	CommitTransactionCommand();
	SX_STOP_POINT_OF(catch_up_committed, builder.def->viewid);
	set_protection(stored->position, stored->start_lsn);
	return nheld == 0 && !tail->has_fresh && !tail->stale;
}

/* runs a batch into the results; waits for locks: nobody else waits for us */
static void
compute(SxBatch *batch)
{
	SxProcess	p;

	memset(&p, 0, sizeof(p));
	p.info = builder.info;
	p.plan = builder.plan;
	p.apply = apply_row;
	p.reject = apply_reject;
	p.context = builder.work;
	for (int tries = 0;; tries++)
	{
		switch (sx_process_batch(&p, batch))
		{
			case SX_PROCESS_OK:
				builder.nrows += batch->nrows;
				return;
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
				if (tries >= LOCK_TRIES)
					ereport(ERROR,
							(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
							 errmsg("a table of the stream is locked")));
				if (p.blocked_by)
					set_phase("waits for a lock on table \"%s\"", p.blocked_by);
				else
					set_phase("waits for a lock on a table of the stream");
				p.blocked_by = NULL;
				begin_results();
				(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 100,
								 PG_WAIT_EXTENSION);
				ResetLatch(MyLatch);
				sx_worker_check();
				break;
		}
	}
}

static bool
apply_row(void *arg, TupleTableSlot *row)
{
	tuplestore_puttupleslot(builder.rows, row);
	return true;
}

static bool
apply_reject(void *arg, const char *sqlstate, const char *row_json, const char *message)
{
	MemoryContext old = MemoryContextSwitchTo(builder.work);
	Letter	   *letter = palloc(sizeof(Letter));

	letter->sqlstate = pstrdup(sqlstate);
	letter->row_json = row_json ? pstrdup(row_json) : NULL;
	letter->message = pstrdup(message);
	builder.letters = lappend(builder.letters, letter);
	MemoryContextSwitchTo(old);
	return true;
}

/* results outlive the transactions of the slices that made them; on disk beyond work_mem */
static void
begin_results(void)
{
	MemoryContext old;

	if (builder.rows)
		tuplestore_end(builder.rows);
	builder.rows = NULL;
	MemoryContextReset(builder.work);
	builder.letters = NIL;
	builder.nrows = 0;
	old = MemoryContextSwitchTo(builder.work);
	builder.rows = tuplestore_begin_heap(false, true, work_mem);
	MemoryContextSwitchTo(old);
}

/* results, dead letters and position, in the caller's transaction */
static void
write_results(SxStoredPosition *pos, bool replace)
{
	SxRunAs		as;
	ListCell   *lc;

	/* so that a DROP waits until the position is stored, also when nothing is written */
	LockRelationOid(builder.def->matid, RowExclusiveLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(builder.def->matid)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the continuous view is gone")));
	if (replace)
		sx_catalog_repair_dependencies(builder.def);

	sx_run_as_begin(&as, builder.def);
	if (replace)
	{
		char	   *sql = psprintf("DELETE FROM ONLY %s",
								   quote_qualified_identifier(SX_SCHEMA, get_rel_name(builder.def->matid)));

		SPI_connect();
		if (SPI_execute(sql, false, 0) != SPI_OK_DELETE)
			elog(ERROR, "could not empty the materialized table");
		SPI_finish();
		SX_STOP_POINT_OF(results_emptied, builder.def->viewid);
	}
	sx_merge_into_table(builder.info, builder.rows);
	sx_run_as_end(&as);
	SX_STOP_POINT_OF(results_merged, builder.def->viewid);

	foreach(lc, builder.letters)
	{
		Letter	   *letter = lfirst(lc);

		sx_dead_letter_insert(builder.def->viewid, builder.def->streamid, letter->sqlstate, "error",
							  letter->row_json, letter->message, GetCurrentTimestamp());
	}

	pos->seq++;
	pos->rows_consumed += builder.nrows;
	sx_catalog_store_position(pos);
	SX_STOP_POINT_OF(results_stored, builder.def->viewid);
}
