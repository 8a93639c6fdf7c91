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
 * committed between that and S are found by a full scan (full_scan.c).
 *
 * The same process catches up views that fell back (trouble, pause, a batch larger than the
 * memory): there is a stored position already, so only WAL is read, if it is still there.  If
 * not, a full scan finds what the view lacks.  A slow view stays here: builder_follow.c.
 *
 * Rows that nothing protected (SxView.exposed) may be gone when we come to read them: on the
 * way by WAL each one is noticed and counted, and the interval is reported.
 */
#include "worker/builder_internal.h"

#include "access/timeline.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "capture/delta_scan.h"
#include "capture/open_rows.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "live/live_read.h"
#include "live/merge.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "testing/stop_points.h"

/* rows of a part of history, when it is computed by rows */
#define HISTORY_ROWS	200000
/* this close to the consumer the view may join */
#define CLOSE_BYTES		(UINT64CONST(2) * 1024 * 1024)
/* addresses of open transactions that are stored */
#define OPEN_ROWS_BYTES	(8 * 1024 * 1024)
/* a slow view's position without rows is written after this much WAL */
#define FOLLOW_BYTES	(UINT64CONST(16) * 1024 * 1024)
/* looks for a lock that is not free, and the pause between them */
#define LOCK_TRIES		300
#define LOCK_POLL_MS	100
/* pause between looks at open transactions */
#define WRITER_POLL_MS	20

/* Columns of a dead letter on its way, all text */
enum
{
	LETTER_SQLSTATE,
	LETTER_ROW,
	LETTER_MESSAGE,
	LETTER_NATTS
};

/* History by addresses, on its way */
typedef struct HistoryRows
{
	SxFileMap  *map;
	uint32		file;			/* at which the scan is */
	BlockNumber block;
	SxPending  *pending;
	SxReady    *ready;
	Tuplestorestate *rows;		/* the results so far */
	Tuplestorestate *letters;
	int64		nrows;
} HistoryRows;

SxBuilder	sx_builder;

static void builder_exit(int code, Datum arg);
static bool view_is_gone(Oid viewid);
static void pause_building(long ms);
static void load_view(void);
static void protect_from_slot(void);
static bool wal_is_there(const SxStoredPosition *stored);
static void build_history(void);
static void begin_history(void);
static void check_members(void *arg);
static bool has_not_written(VirtualTransactionId vxid);
static void stop_view(void);
static bool is_outdated(SxBatch *batch);
static bool history_by_plan(SxStoredPosition *pos);
static void history_by_rows(SxStoredPosition *pos);
static bool find_history(HistoryRows *h, Snapshot s, uint64 nrows);
static void move_rows(Tuplestorestate *to, Tuplestorestate *from, TupleDesc desc);
static void add_found_row(void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off);
static void store_row(void *arg, TupleTableSlot *row);
static void catch_up(SxStoredPosition *stored);
static bool consume_once(SxTail *tail, SxStoredPosition *stored, MemoryContext turn);
static void catalog_changed(void);
static int	choose(SxReady **ready, int n, uint64 total, uint64 *cut, uint64 *nrows);
static int	compare_ready(const void *a, const void *b);
static bool apply_row(void *arg, TupleTableSlot *row);
static bool apply_reject(void *arg, const char *sqlstate, const char *row_json, const char *message);
static TupleDesc letter_desc(void);
static void write_letters(void);
static void files_of(SxFileMap *map, SxStoredPosition *pos);
static SxStoredPosition *load_position(void);

void
sx_builder_main(Datum arg)
{
	SxWorkerArg wa = sx_worker_start();
	SxStoredPosition *stored;

	sx_builder.db = sx_db_lookup(wa.dboid, false);
	if (sx_builder.db == NULL)
		proc_exit(0);
	/* the consumer that launched us may be gone: its successor clears the views under this lock */
	sx_lock_publish_exclusive(sx_builder.db);
	sx_builder.v = sx_view_by_id(sx_builder.db, wa.viewid);
	if (sx_builder.v && (sx_builder.v->state != SX_VIEW_BUILDING || sx_builder.v->builder_pid != 0 ||
					  sx_builder.v->incarnation != wa.incarnation || sx_builder.db->closing))
		sx_builder.v = NULL;
	if (sx_builder.v)
	{
		sx_builder.v->builder_pid = MyProcPid;
		sx_builder.v->history_begun = false;
		sx_builder.v->waits_for_pid = 0;
	}
	sx_unlock_publish(sx_builder.db);
	if (sx_builder.v == NULL)
		proc_exit(0);
	before_shmem_exit(builder_exit, (Datum) 0);

	sx_live_read_disabled = true;
	sx_builder.work = AllocSetContextCreate(TopMemoryContext, "streamext builder", ALLOCSET_DEFAULT_SIZES);

	PG_TRY();
	{
		SxViewContext vc;

		sx_view_context_push(&vc, wa.viewid, "building");
		SX_STOP_POINT_OF(builder_started, wa.viewid);
		load_view();
		protect_from_slot();
		sx_catalog_on_change(catalog_changed);
		stored = load_position();
		if (stored == NULL || !stored->ours)
		{
			sx_builder.seq = stored ? stored->seq : 0;
			build_history();
			SX_STOP_POINT_OF(history_committed, wa.viewid);
			stored = load_position();
		}
		if (stored == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("the continuous view is gone")));

		sx_builder.lost_from = stored->complete_at;
		/* a predecessor may have ended between its commit and saying so */
		SpinLockAcquire(&sx_builder.db->mutex);
		sx_builder.v->scanning = stored->scan != NULL;
		if (stored->scan != NULL)
			sx_builder.v->wal_gone = false;
		SpinLockRelease(&sx_builder.db->mutex);

		/* a scan that takes long may find the WAL gone that was to be read after it */
		for (;;)
		{
			if (stored->scan == NULL && !wal_is_there(stored))
				sx_full_scan_begin(stored);
			if (stored->scan == NULL)
				break;
			sx_full_scan_run(stored);
		}
		catch_up(stored);
		SX_STOP_POINT_OF(builder_done, wa.viewid);
		sx_view_context_pop(&vc);
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(TopMemoryContext);
		int			pause;

		/* dropped meanwhile, which may show as any error; the consumer learns it from the catalog */
		if (view_is_gone(wa.viewid))
			proc_exit(0);
		pause = sx_view_setback(sx_builder.db, sx_builder.v, 200, 30000);
		SpinLockAcquire(&sx_builder.db->mutex);
		/* the next attempt goes another way */
		if (sx_builder.capture && sx_capture_is_unreadable(sx_builder.capture, error))
			sx_builder.v->wal_gone = true;
		else if (error->sqlerrcode == ERRCODE_DATA_CORRUPTED && !sx_builder.v->exposed)
		{
			sx_builder.v->exposed = true;
			sx_builder.v->protected_since = GetCurrentTimestamp();
		}
		sx_builder.v->failures++;
		sx_builder.v->retry_at = TimestampTzPlusMilliseconds(sx_now(), pause);
		SpinLockRelease(&sx_builder.db->mutex);
		sx_view_set_error(sx_builder.db, sx_builder.v, error->message);
		sx_view_set_reason(sx_builder.db, sx_builder.v, "failed, is tried again after %d ms: %s", pause, error->message);
		sx_lock_publish_exclusive(sx_builder.db);
		sx_builder.v->state = SX_VIEW_FAILED;
		sx_unlock_publish(sx_builder.db);
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("could not bring up continuous view with OID %u: %s", wa.viewid, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->context ? errcontext("%s", error->context) : 0));
		proc_exit(0);
	}
	PG_END_TRY();

	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->phase[0] = '\0';
	if (!sx_builder.v->slow)
		sx_builder.v->reason[0] = '\0';
	SpinLockRelease(&sx_builder.db->mutex);
	sx_lock_publish_exclusive(sx_builder.db);
	sx_builder.v->state = SX_VIEW_CATCHUP;
	sx_unlock_publish(sx_builder.db);
	proc_exit(0);
}

/* between two looks at what we wait for; nobody waits for a view that was dropped, and others may need our place */
static void
pause_building(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	sx_worker_check();
	if (view_is_gone(sx_builder.v->viewid))
		proc_exit(0);
}

static bool
view_is_gone(Oid viewid)
{
	bool		gone;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	gone = sx_catalog_view(viewid) == NULL;
	PopActiveSnapshot();
	CommitTransactionCommand();
	return gone;
}

static void
builder_exit(int code, Datum arg)
{
	SpinLockAcquire(&sx_builder.db->mutex);
	/* a view that is gone may have left its place to another */
	if (sx_builder.v->builder_pid == MyProcPid)
		sx_builder.v->builder_pid = 0;
	SpinLockRelease(&sx_builder.db->mutex);
	ConditionVariableBroadcast(&sx_builder.db->published_cv);
	sx_wake_consumer(sx_builder.db);
}

void
sx_builder_phase(const char *fmt,...)
{
	char		buf[sizeof(sx_builder.v->reason)];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	SpinLockAcquire(&sx_builder.db->mutex);
	strlcpy(sx_builder.v->phase, buf, sizeof(sx_builder.v->phase));
	SpinLockRelease(&sx_builder.db->mutex);
	/* of a slow view that it is slow, and why, is what matters */
	if (!sx_builder.v->slow)
		sx_view_set_reason(sx_builder.db, sx_builder.v, "%s", buf);
}

static void
catalog_changed(void)
{
	sx_builder.redefined = true;
}

static void
load_view(void)
{
	SxRunAs		as;
	SxViewDef  *def;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(TopMemoryContext);
	def = sx_catalog_view(sx_builder.v->viewid);
	MemoryContextSwitchTo(CurTransactionContext);
	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the continuous view is gone")));
	sx_builder.def = def;
	sx_run_as_begin(&as, sx_builder.def);
	sx_builder.info = sx_view_info_create(sx_builder.def, TopMemoryContext);
	sx_builder.plan = sx_plan_create(sx_builder.info);
	sx_run_as_end(&as);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* what the slot holds now, it keeps holding for us */
static void
protect_from_slot(void)
{
	SxDb	   *db = sx_builder.db;
	SxView	   *v = sx_builder.v;
	uint64		xmin = sx_widen_xid(db->slot_xmin);

	SpinLockAcquire(&db->mutex);
	if (v->protect_xmin == 0)
		v->protect_xmin = xmin;
	if (v->protect_lsn == InvalidXLogRecPtr)
		v->protect_lsn = db->slot_lsn;
	SpinLockRelease(&db->mutex);
}

void
sx_builder_protect(uint64 xmin, XLogRecPtr lsn)
{
	SxView	   *v = sx_builder.v;

	SpinLockAcquire(&sx_builder.db->mutex);
	/* what was exposed is behind us when the position is as young as what the slot holds */
	if (v->exposed && xmin >= v->protect_xmin)
		v->exposed = false;
	if (!v->exposed)
		v->protect_xmin = xmin;
	v->protect_lsn = lsn;
	SpinLockRelease(&sx_builder.db->mutex);
}

/*
 * May the view read on from its start LSN?  A position goes where its WAL goes: whatever
 * recovery ended at, it is on the way to the timeline that we are on.  Not so after
 * pg_resetwal, or when data were moved under another server's WAL.
 */
static bool
wal_is_there(const SxStoredPosition *stored)
{
	TimeLineID	timeline = GetWALInsertionTimeLine();
	bool		ours = stored->timeline == timeline;

	if (XLogRecPtrIsInvalid(stored->start_lsn) || sx_builder.v->wal_gone)
		return false;
	if (!ours)
	{
		List	   *history = readTimeLineHistory(timeline);

		ours = tliInHistory(stored->timeline, history);
		list_free_deep(history);
	}
	return ours && stored->start_lsn <= GetFlushRecPtr(NULL) && sx_wal_available(stored->start_lsn);
}

static SxStoredPosition *
load_position(void)
{
	SxStoredPosition *stored;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(TopMemoryContext);
	stored = sx_catalog_position(sx_builder.def->viewid);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return stored;
}

/* ---- history ---- */

static void
build_history(void)
{
	SxStoredPosition pos;
	XLogRecPtr	l0;

	memset(&pos, 0, sizeof(pos));
	pos.viewid = sx_builder.def->viewid;
	pos.seq = sx_builder.seq;
	pos.new_open_rows = true;	/* none: what was open then has ended */

	l0 = GetXLogInsertRecPtr();
	SX_STOP_POINT_OF(history_begin, sx_builder.def->viewid);
	sx_builder_wait_for_writers();
	sx_builder_phase("reading the rows that are there");

	pos.start_lsn = l0;
	pos.complete_at = GetCurrentTimestamp();
	if (history_by_plan(&pos))
		return;
	/* some row fails: one by one */
	history_by_rows(&pos);
}

/*
 * The stream with its partitions, in a transaction.  With lock they cannot be rewritten, truncated,
 * dropped or detached until its end.  Partitions may be attached: ATTACH would have to wait for all of
 * history otherwise.
 */
List *
sx_builder_members(bool lock)
{
	if (lock)
		LockRelationOid(sx_builder.def->streamid, AccessShareLock);
	return find_all_inheritors(sx_builder.def->streamid, lock ? AccessShareLock : NoLock, NULL);
}

/* from here on rows that vanish are missed: see has_not_begun() in ddl/stream_ddl.c */
static void
begin_history(void)
{
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->history_begun = true;
	SpinLockRelease(&sx_builder.db->mutex);
}

/*
 * The plan has opened what it reads.  A partition attached since the files were looked at must not be
 * among it: it is new to the capture, which would count it again.
 */
static void
check_members(void *arg)
{
	SxFileMap  *map = arg;
	List	   *leaves = NIL;
	ListCell   *lc;

	for (uint32 i = 0; i < sx_file_map_count(map); i++)
		leaves = lappend_oid(leaves, sx_file_map_entry(map, i)->leaf);
	AcceptInvalidationMessages();
	foreach(lc, find_all_inheritors(sx_builder.def->streamid, NoLock, NULL))
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION &&
			!list_member_oid(leaves, lfirst_oid(lc)))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("table \"%s\" has just become a partition of the stream",
							get_rel_name(lfirst_oid(lc)))));
	}
}

void
sx_builder_wait_for_writers(void)
{
	List	   *members;
	ListCell   *lc;
	VirtualTransactionId *writers = NULL;
	int			nwriters = 0;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	members = sx_builder_members(false);
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
			writers = MemoryContextAlloc(sx_builder.work, sizeof(*writers) * n);
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
			ended = has_not_written(writers[i]) || VirtualXactLock(writers[i], false);
			if (!ended && !named)
			{
				if (VirtualTransactionIdIsRecoveredPreparedXact(writers[i]))
					sx_builder_phase("waits for prepared transaction with id %u", writers[i].localTransactionId);
				else
				{
					PGPROC	   *proc = SxVirtualXidProc(writers[i]);

					SpinLockAcquire(&sx_builder.db->mutex);
					sx_builder.v->waits_for_pid =
						proc && SxProcLocalXid(proc) == writers[i].localTransactionId ? proc->pid : 0;
					sx_builder.v->waits_for_lxid = writers[i].localTransactionId;
					SpinLockRelease(&sx_builder.db->mutex);
					sx_builder_phase("waits for open transaction of pid %d", proc ? proc->pid : 0);
				}
				named = true;
			}
			CommitTransactionCommand();
			if (ended)
				break;
			pause_building(WRITER_POLL_MS);
		}
	}
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->waits_for_pid = 0;
	SpinLockRelease(&sx_builder.db->mutex);
	if (writers)
		pfree(writers);
}

/*
 * A transaction without an id has written nothing before now, so before L0: it may be a VACUUM, or a
 * command that waits for this view.  (It gets its id while it runs, and loses it when it ends or is
 * prepared, together with its local id.)
 */
static bool
has_not_written(VirtualTransactionId vxid)
{
	PGPROC	   *proc;
	bool		result;

	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return false;
	proc = SxVirtualXidProc(vxid);
	LWLockAcquire(ProcArrayLock, LW_SHARED);
	result = proc != NULL && !TransactionIdIsValid(proc->xid) &&
		SxProcLocalXid(proc) == vxid.localTransactionId;
	LWLockRelease(ProcArrayLock);
	return result;
}

/* the files as they are under our locks: later ones are new to the capture that starts at L0 */
static void
files_of(SxFileMap *map, SxStoredPosition *pos)
{
	pos->nfiles = sx_file_map_files_of(map, sx_builder.def->streamid, &pos->file_rels, &pos->file_nodes);
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
		begin_history();
		(void) sx_builder_members(true);
		/* the files, before S: a partition that comes later is new to the capture that starts at L0 */
		map = sx_file_map_create(CurrentMemoryContext);
		sx_file_map_refresh(map, list_make1_oid(sx_builder.def->streamid), false);
		files_of(map, pos);
		/* S must be younger than the waits for locks and writers */
		PushActiveSnapshot(GetTransactionSnapshot());
		pos->position = sx_position_from_snapshot(GetActiveSnapshot());

		SX_STOP_POINT_OF(history_snapshot, sx_builder.def->viewid);
		sx_builder_begin_results();
		sx_builder_begin_work(0);
		sx_run_as_begin(&as, sx_builder.def);
		(void) sx_plan_lock(sx_builder.plan, true, NULL);
		sx_plan_run_history(sx_builder.plan, check_members, store_row, map);
		sx_run_as_end(&as);
		SX_STOP_POINT_OF(history_computed, sx_builder.def->viewid);
		sx_builder_write(pos, true);
		PopActiveSnapshot();
		CommitTransactionCommand();
		sx_builder_protect(pos->position->xmin, pos->start_lsn);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (!sx_is_row_error(error->sqlerrcode))
			PG_RE_THROW();
		FreeErrorData(error);
		(void) sx_worker_recover(sx_builder.work);
		ok = false;
	}
	PG_END_TRY();
	(void) sx_builder_end_work();
	MemoryContextSwitchTo(caller);
	return ok;
}

static void
store_row(void *arg, TupleTableSlot *row)
{
	if (sx_builder.info->nkeys > 0 && !sx_key_fits(sx_builder.info, row))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("group key is too large for the index of the materialized table")));
	tuplestore_puttupleslot(sx_builder.rows, row);
}

/*
 * History by addresses, through the same path as new rows, so that a row that fails becomes a dead
 * letter.  In parts, whose addresses fit memory; the slot keeps what S sees until they are read.  The
 * results of all parts are written together.
 */
static void
history_by_rows(SxStoredPosition *pos)
{
	HistoryRows h = {0};
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "streamext history", ALLOCSET_DEFAULT_SIZES);
	MemoryContext part = AllocSetContextCreate(context, "streamext part of history", ALLOCSET_DEFAULT_SIZES);
	bool		more;

	/* written, and ended, like any other results */
	MemoryContextSwitchTo(TopMemoryContext);
	h.rows = tuplestore_begin_heap(false, true, work_mem);
	h.letters = tuplestore_begin_heap(false, true, work_mem);
	do
	{
		Snapshot	s;

		StartTransactionCommand();
		if (h.map == NULL)
		{
			begin_history();
			(void) sx_builder_members(true);
			MemoryContextSwitchTo(context);
			/* the files before S, as above */
			h.map = sx_file_map_create(context);
			sx_file_map_refresh(h.map, list_make1_oid(sx_builder.def->streamid), false);
			files_of(h.map, pos);
			PushActiveSnapshot(GetTransactionSnapshot());
			pos->seq = sx_builder.seq;
			pos->position = sx_position_from_snapshot(GetActiveSnapshot());
			s = GetActiveSnapshot();
		}
		else
		{
			PushActiveSnapshot(GetTransactionSnapshot());
			MemoryContextReset(part);
			MemoryContextSwitchTo(part);
			s = sx_position_to_snapshot(pos->position);
		}
		MemoryContextSwitchTo(part);
		h.pending = sx_pending_create(part);
		h.ready = sx_pending_new_ready(h.pending, SX_ALWAYS_XID, pos->start_lsn);
		/* a position that does not list all ids can stand for S only while this has it */
		more = find_history(&h, s, pos->position->wal_only ? PG_UINT64_MAX : HISTORY_ROWS);
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(part);
		SX_STOP_POINT_OF(history_scanned, sx_builder.def->viewid);

		sx_builder_begin_results();
		sx_builder_compute(sx_batch_create(h.map, sx_builder.def->streamid, &h.ready, 1, false));
		move_rows(h.rows, sx_builder.rows, sx_builder.info->desc);
		move_rows(h.letters, sx_builder.letters, letter_desc());
		h.nrows += sx_builder.nrows;
	} while (more);

	sx_builder_begin_results();
	tuplestore_end(sx_builder.rows);
	tuplestore_end(sx_builder.letters);
	sx_builder.rows = h.rows;
	sx_builder.letters = h.letters;
	sx_builder.nrows = h.nrows;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	sx_builder_write(pos, true);
	PopActiveSnapshot();
	CommitTransactionCommand();
	sx_builder_protect(pos->position->xmin, pos->start_lsn);
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(context);
}

/* the next rows that s sees, about so many; false: those were all */
static bool
find_history(HistoryRows *h, Snapshot s, uint64 nrows)
{
	for (; h->file < sx_file_map_count(h->map); h->file++)
	{
		SxFileEntry *e = sx_file_map_entry(h->map, h->file);
		Relation	rel;

		if (e->dead)
			continue;
		/* between two parts nobody keeps it as it is: then all is done again */
		rel = try_relation_open(e->leaf, AccessShareLock);
		if (rel == NULL || !SxFileEquals(SxRelationFile(rel), e->file))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("a file of the stream has just been replaced")));
		relation_close(rel, NoLock);
		h->block = sx_file_scan_visible(e->leaf, h->block, nrows - h->ready->nrows, s, add_found_row, h);
		if (h->block != InvalidBlockNumber)
			return true;
		h->block = 0;
		if (h->ready->nrows >= nrows)
		{
			h->file++;
			return true;
		}
	}
	return false;
}

static void
add_found_row(void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off)
{
	HistoryRows *h = arg;

	sx_pending_ready_add_run(h->pending, h->ready, h->file, block, off, xid);
}

static void
move_rows(Tuplestorestate *to, Tuplestorestate *from, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);

	tuplestore_rescan(from);
	while (tuplestore_gettupleslot(from, true, false, slot))
		tuplestore_puttupleslot(to, slot);
	ExecDropSingleTupleTableSlot(slot);
}

/* ---- catching up ---- */

static void
catch_up(SxStoredPosition *stored)
{
	SxTail	   *tail;
	MemoryContext turn;
	bool		close = false;

	sx_builder_phase("%s", sx_builder.v->slow ? "follows" : "catching up");
	sx_account_open(&sx_builder.account);
	sx_builder.written_lsn = stored->start_lsn;
	turn = AllocSetContextCreate(TopMemoryContext, "streamext builder turn", ALLOCSET_DEFAULT_SIZES);
	tail = sx_tail_create(TopMemoryContext, stored->start_lsn);
	sx_builder.capture = tail->capture;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	sx_tail_set_streams(tail, list_make1_oid(sx_builder.def->streamid));
	sx_file_map_refresh(tail->capture->map, tail->streams, false);
	sx_tail_compare(tail, stored);
	/* a file that took another's place holds what was not removed till then: we cannot count what was */
	for (uint32 i = 0; sx_builder.v->exposed && i < sx_file_map_count(tail->capture->map); i++)
	{
		SxFileEntry *e = sx_file_map_entry(tail->capture->map, i);

		if (e->fresh && e->member_before)
			sx_builder.nlost = -1;
	}
	sx_open_rows_load(tail->capture, stored->open_rows);
	sx_builder.stored_version = stored->open_rows ? PG_UINT64_MAX : 0;
	PopActiveSnapshot();
	CommitTransactionCommand();

	/* at least once: a batch larger than the memory brought us here */
	while (!close || sx_builder_must_follow())
	{
		XLogRecPtr	consumer = pg_atomic_read_u64(&sx_builder.db->read_lsn);
		TimestampTz started = sx_now();

		sx_worker_check();
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		close = consume_once(tail, stored, turn);
		/* our successor knows the new definition */
		if (sx_builder.redefined)
			sx_builder.v->yield = true;
		if (sx_builder.v->yield)
			break;
		if (close)
			sx_builder_rest(tail, started);
		/* the consumer must be able to join from the stored start */
		if (close && !sx_builder.v->slow && consumer > stored->start_lsn && consumer - stored->start_lsn > CLOSE_BYTES &&
			sx_pending_first_lsn(tail->capture->pending) == InvalidXLogRecPtr)
			close = tail->capture->read_lsn >= consumer;
	}
	/* turns without rows were not written */
	if (sx_builder.written_lsn != stored->start_lsn)
	{
		sx_builder_begin_results();
		sx_builder_commit(stored);
		sx_builder_protect(stored->position->xmin, stored->start_lsn);
	}
	sx_builder.capture = NULL;
	sx_tail_destroy(tail);
}

/* until the user decides: the consumer finds it in the catalog */
static void
stop_view(void)
{
	SxDb	   *db = sx_builder.db;
	SxView	   *v = sx_builder.v;

	sx_view_stop(sx_builder.def, SX_REPLACED_REASON);
	SpinLockAcquire(&db->mutex);
	v->retry_at = DT_NOEND;
	SpinLockRelease(&db->mutex);
	sx_view_set_error(db, v, SX_REPLACED_REASON);
	sx_view_set_reason(db, v, "stopped: %s", SX_REPLACED_REASON);
	sx_lock_publish_exclusive(db);
	v->state = SX_VIEW_FAILED;
	sx_unlock_publish(db);
	proc_exit(0);
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
	int			taken;
	uint64		total = 0;
	uint64		nrows = 0;
	uint64		cut = stored->position->xmax;
	XLogRecPtr	held_lsn = PG_UINT64_MAX;
	TimestampTz *commits;
	SxPosition *before = stored->position;
	uint64		turn_no = pg_atomic_add_fetch_u64(&sx_builder.db->turns, 1);
	SxReady   **held;
	int			nheld = 0;
	XLogRecPtr	first;
	TimestampTz at = GetCurrentTimestamp();
	dlist_mutable_iter iter;

	if (!sx_tail_cycle(tail, stored->position, turn, &snapshot))
	{
		sx_builder_phase("waits for a lock on a table of the stream");
		pause_building(LOCK_POLL_MS);
		return false;
	}
	/* what was waited for is over */
	if (strncmp(sx_builder.v->phase, "waits", 5) == 0)
		sx_builder_phase("%s", sx_builder.v->slow ? "follows" : "catching up");

	if (tail->broken != NIL)
		stop_view();

	ready = palloc(sizeof(SxReady *) * max);
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
		}
		if (n == max)
			ready = repalloc_huge(ready, sizeof(SxReady *) * (max *= 2));
		ready[n++] = r;
		total += r->nrows;
	}

	taken = choose(ready, n, total, &cut, &nrows);
	held = MemoryContextAllocHuge(turn, sizeof(SxReady *) * (n - taken + 1));
	for (int i = taken; i < n; i++)
	{
		held_lsn = Min(held_lsn, ready[i]->commit_lsn);
		if (ready[i]->fxid < cut)
			held[nheld++] = ready[i];
	}
	if (taken < n)
		snapshot = sx_position_below(snapshot, cut);

	sx_builder_begin_results();
	if (taken > 0)
	{
		SxBatch    *batch = sx_batch_create(tail->capture->map, sx_builder.def->streamid, ready, taken, false);
		int64		us;

		if (sx_builder.v->exposed)
			sx_builder_drop_missing(batch);
		(void) sx_account_limit(&sx_builder.account, batch->nrows);
		us = sx_builder_compute(batch);
		if (!sx_account_charge(&sx_builder.account, batch->nrows, us))
			sx_builder_too_slow("computing", us, batch->nrows);
	}
	commits = MemoryContextAllocHuge(turn, sizeof(TimestampTz) * (taken + 1));
	for (int i = 0; i < taken; i++)
	{
		commits[i] = ready[i]->commit_time;
		sx_pending_remove(pending, ready[i]);
	}

	stored->position = sx_tail_position(snapshot, held, nheld);
	MemoryContextSwitchTo(TopMemoryContext);
	stored->position = sx_position_copy(stored->position);
	MemoryContextSwitchTo(turn);
	pfree(before);
	sx_open_rows_relieve(tail->capture, OPEN_ROWS_BYTES);
	stored->new_open_rows = sx_builder.stored_version != sx_pending_stored_version(pending);
	stored->open_rows = stored->new_open_rows ?
		sx_open_rows_pack(tail->capture, sx_builder.def->streamid) : NULL;
	first = sx_pending_first_lsn(pending);
	stored->start_lsn = (first != InvalidXLogRecPtr && first < tail->capture->read_lsn) ?
		first : tail->capture->read_lsn;
	files_of(tail->capture->map, stored);
	if (taken == n && !tail->behind && !tail->more)
		stored->complete_at = at;
	SX_STOP_POINT_OF(catch_up_computed, sx_builder.def->viewid);
	/* of a slow view that stays here, a position that says nothing new is not worth a commit */
	if (taken > 0 || !sx_builder.v->slow || stored->start_lsn > sx_builder.written_lsn + FOLLOW_BYTES)
	{
		sx_builder_commit(stored);
		sx_builder.stored_version = sx_pending_stored_version(pending);
		SX_STOP_POINT_OF(catch_up_committed, sx_builder.def->viewid);
		sx_builder_protect(stored->position->xmin, stored->start_lsn);
	}
	sx_builder_note_turn(turn_no, held_lsn, total - nrows, nrows, commits, taken);
	return taken == n && !tail->more && !tail->has_fresh && !tail->stale;
}

/*
 * How many of these fit into a turn.  If not all do, they are taken in the order of their ids, so that
 * the position need not list what is left: it ends at `cut`, below which it contains everything but
 * what is held back.  What a scan has found comes first: it cannot be held back.
 */
static int
choose(SxReady **ready, int n, uint64 total, uint64 *cut, uint64 *nrows)
{
	uint64		limit = sx_builder_turn_rows();
	int			taken;

	if (total > limit)
		qsort(ready, n, sizeof(SxReady *), compare_ready);
	for (taken = 0; taken < n; taken++)
	{
		SxReady    *r = ready[taken];

		if (taken > 0 && *nrows + r->nrows > limit && !r->found && r->fxid != SX_ALWAYS_XID)
			break;
		*nrows += r->nrows;
		if (r->fxid == SX_ALWAYS_XID)
			continue;
		*cut = Max(*cut, r->fxid + 1);
		/* a full scan that starts from the position meets the ids of sub-transactions */
		for (uint32 i = 0; i < r->nruns; i++)
			if (r->runs[i].xid != (TransactionId) r->fxid)
				*cut = Max(*cut, sx_widen_xid_near(r->fxid, r->runs[i].xid) + 1);
	}
	return taken;
}

static int
compare_ready(const void *a, const void *b)
{
	const SxReady *ra = *(SxReady *const *) a;
	const SxReady *rb = *(SxReady *const *) b;
	bool		first_a = ra->found || ra->fxid == SX_ALWAYS_XID;
	bool		first_b = rb->found || rb->fxid == SX_ALWAYS_XID;

	if (first_a != first_b)
		return first_a ? -1 : 1;
	if (ra->fxid != rb->fxid)
		return ra->fxid < rb->fxid ? -1 : 1;
	return 0;
}

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
sx_builder_compute(SxBatch *batch)
{
	SxProcess	p;

	memset(&p, 0, sizeof(p));
	p.info = sx_builder.info;
	p.plan = sx_builder.plan;
	p.apply = apply_row;
	p.reject = apply_reject;
	p.context = sx_builder.work;
	for (int tries = 0;; tries++)
	{
		SxProcessResult result;
		int64		us;

		sx_builder_begin_work(batch->nrows);
		result = sx_process_batch(&p, batch);
		us = sx_builder_end_work();
		switch (result)
		{
			case SX_PROCESS_OK:
				sx_builder.nrows += batch->nrows;
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
				pause_building(LOCK_POLL_MS);
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
apply_reject(void *arg, const char *sqlstate, const char *row_json, const char *message)
{
	Datum		values[LETTER_NATTS] = {0};
	bool		isnull[LETTER_NATTS] = {0};

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
	sx_builder.nrows = 0;
	old = MemoryContextSwitchTo(sx_builder.work);
	sx_builder.rows = tuplestore_begin_heap(false, true, work_mem);
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
		sx_dead_letter_insert(sx_builder.def->viewid, sx_builder.def->streamid, field[LETTER_SQLSTATE], "error",
							  field[LETTER_ROW], field[LETTER_MESSAGE], GetCurrentTimestamp());
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

	/* so that a DROP waits until the position is stored, also when nothing is written */
	LockRelationOid(sx_builder.def->matid, RowExclusiveLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(sx_builder.def->matid)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the continuous view is gone")));
	if (replace)
		sx_catalog_repair_dependencies(sx_builder.def);

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
	sx_merge_into_table(sx_builder.info, sx_builder.rows);
	sx_run_as_end(&as);
	SX_STOP_POINT_OF(results_merged, sx_builder.def->viewid);

	write_letters();
	if (sx_builder.nlost != 0)
		sx_builder_report_lost(sx_builder.nlost);
	sx_builder.nlost = 0;

	pos->seq++;
	pos->rows_consumed += sx_builder.nrows;
	sx_catalog_store_position(pos);
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

	sx_builder_begin_work(sx_builder.nrows);
	PushActiveSnapshot(GetTransactionSnapshot());
	sx_builder_write(pos, false);
	PopActiveSnapshot();
	CommitTransactionCommand();
	us = sx_builder_end_work();

	sx_builder.written_lsn = pos->start_lsn;
	SpinLockAcquire(&sx_builder.db->mutex);
	v->rows_consumed = pos->rows_consumed;
	v->flushes++;
	v->last_flush = GetCurrentTimestamp();
	v->last_flush_us = (int) Min(us, PG_INT32_MAX);
	SpinLockRelease(&sx_builder.db->mutex);
	if (limit > 0 && us > limit)
		sx_builder_too_slow("writing", us, entries);
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
