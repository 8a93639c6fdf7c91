/*
 * builder_history.c
 *		What a new view begins with: the rows that are there.
 *
 * Start of capture.  Transactions that are already open wrote rows before anyone listened.
 * So: note the end of WAL, L0; wait, blocking nobody, until every transaction that held a
 * writer's lock on the stream then has ended; take the snapshot S.  History is what S sees;
 * WAL from L0 gives the rest, because a transaction that S does not see took its lock after
 * L0.
 *
 * What is small is done here: one plan computes it, as the query would, and history and position commit together.
 * A crash before that starts over, one after it goes on with WAL.  What is large, and what has a row that
 * fails, is done in chunks: history_scan.c.
 */
#include "worker/builder_internal.h"

#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "capture/delta_scan.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "query/valid.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "time/watermark.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* pause between looks at open transactions */
#define WRITER_POLL_MS	20

/* what was last said of a transaction that we wait for */
typedef enum WriterState
{
	WRITER_UNKNOWN,
	WRITER_OPEN,
	WRITER_PREPARED
} WriterState;

static bool is_large(void);
static void check_members(void *arg);
static WriterState name_writer(VirtualTransactionId writer, WriterState named);
static bool has_not_written(VirtualTransactionId vxid);
static bool history_by_plan(SxStoredPosition *pos);

void
sx_builder_history(bool whole)
{
	SxStoredPosition pos;
	XLogRecPtr	l0;

	memset(&pos, 0, sizeof(pos));
	pos.watermark = pos.removed_until = pos.closed_until = SX_TIME_NONE;
	pos.viewid = sx_builder.def->viewid;
	pos.seq = sx_builder.seq;
	pos.new_open_rows = true;	/* none: what was open then has ended */

	l0 = GetXLogInsertRecPtr();
	SX_STOP_POINT_OF(history_begin, sx_builder.def->viewid);
	sx_builder_wait_for_writers();
	sx_builder_phase("reading the rows that are there");

	sx_builder.watermark = sx_builder.removed_until = SX_TIME_NONE;
	pos.start_lsn = l0;
	pos.complete_at = GetCurrentTimestamp();
	/* a plan of the view cannot tell which rows are not valid: chunks go row by row */
	if (!sx_builder_has_condition())
	{
		if (!whole && is_large() && sx_history_begin(&pos))
			return;
		if (history_by_plan(&pos))
		{
			SX_STOP_POINT_OF(history_committed, sx_builder.def->viewid);
			return;
		}
		/* some row fails: the chunk that it is in is done row by row */
		pos.seq = sx_builder.seq;
	}
	if (!sx_history_begin(&pos))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rows must be read one by one, which has to wait until fewer than 65,536 sub-transactions are open")));
}

static bool
is_large(void)
{
	bool		result;

	StartTransactionCommand();
	(void) sx_builder_members(true);
	PushActiveSnapshot(GetTransactionSnapshot());
	result = sx_history_is_large();
	PopActiveSnapshot();
	CommitTransactionCommand();
	return result;
}

bool
sx_builder_has_condition(void)
{
	bool		result;

	StartTransactionCommand();
	result = sx_valid_of_stream(sx_builder.def->streamid) != NULL;
	CommitTransactionCommand();
	return result;
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

void
sx_builder_history_begins(void)
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
		WriterState named = WRITER_UNKNOWN;

		for (;;)
		{
			bool		ended;

			sx_worker_check();
			StartTransactionCommand();
			ended = has_not_written(writers[i]) || VirtualXactLock(writers[i], false);
			if (!ended)
				named = name_writer(writers[i], named);
			CommitTransactionCommand();
			if (ended)
				break;
			sx_builder_pause(WRITER_POLL_MS);
		}
	}
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->waits_for_pid = 0;
	SpinLockRelease(&sx_builder.db->mutex);
	if (writers)
		pfree(writers);
}

/* says for whom we wait, once, and again when that transaction has been prepared */
static WriterState
name_writer(VirtualTransactionId writer, WriterState named)
{
	PGPROC	   *proc;
	int			pid;

	if (VirtualTransactionIdIsRecoveredPreparedXact(writer))
	{
		if (named == WRITER_UNKNOWN)
			sx_builder_phase("waits for prepared transaction with id %u", writer.localTransactionId);
		return WRITER_PREPARED;
	}
	proc = SxVirtualXidProc(writer);
	pid = proc ? proc->pid : 0;
	if (proc && SxProcLocalXid(proc) == writer.localTransactionId)
	{
		if (named == WRITER_OPEN)
			return named;
		SpinLockAcquire(&sx_builder.db->mutex);
		sx_builder.v->waits_for_pid = pid;
		sx_builder.v->waits_for_lxid = writer.localTransactionId;
		SpinLockRelease(&sx_builder.db->mutex);
		sx_builder_phase("waits for open transaction of pid %d", pid);
		return WRITER_OPEN;
	}
	if (named != WRITER_PREPARED)
	{
		SpinLockAcquire(&sx_builder.db->mutex);
		sx_builder.v->waits_for_pid = 0;
		SpinLockRelease(&sx_builder.db->mutex);
		if (pid != 0)
			sx_builder_phase("waits for a transaction that pid %d has prepared", pid);
		else
			sx_builder_phase("waits for a prepared transaction");
	}
	return WRITER_PREPARED;
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
void
sx_builder_files(SxFileMap *map, SxStoredPosition *pos)
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
		sx_builder_history_begins();
		(void) sx_builder_members(true);
		/* the files, before S: a partition that comes later is new to the capture that starts at L0 */
		map = sx_file_map_create(CurrentMemoryContext);
		sx_file_map_refresh(map, list_make1_oid(sx_builder.def->streamid), false);
		sx_builder_files(map, pos);
		/* S must be younger than the waits for locks and writers */
		PushActiveSnapshot(GetTransactionSnapshot());
		pos->position = sx_position_from_snapshot(GetActiveSnapshot());

		SX_STOP_POINT_OF(history_snapshot, sx_builder.def->viewid);
		sx_builder_begin_results();
		sx_builder_begin_work(0);
		sx_run_as_begin(&as, sx_builder.def);
		sx_worker_take_memory(maintenance_work_mem);
		(void) sx_plan_lock(sx_builder.plan, true, NULL);
		sx_plan_run_history(sx_builder.plan, check_members, sx_builder_store_row, map);
		if (sx_builder.time.attno != InvalidAttrNumber)
			sx_builder.watermark = sx_watermark_after(&sx_builder.time, sx_builder.watermark,
													  sx_latest_in_history(sx_builder.def->streamid,
																		   &sx_builder.time));
		sx_run_as_end(&as);
		SX_STOP_POINT_OF(history_computed, sx_builder.def->viewid);
		sx_builder_write(pos, true);
		PopActiveSnapshot();
		CommitTransactionCommand();
		sx_builder_protect(pos->position->xmin, pos->start_lsn);
	}
	PG_CATCH();
	{
		sx_builder_recover_from_row(caller);
		ok = false;
	}
	PG_END_TRY();
	(void) sx_builder_end_work();
	MemoryContextSwitchTo(caller);
	return ok;
}

/* in a PG_CATCH: an error of a row ends the transaction, any other is raised again */
void
sx_builder_recover_from_row(MemoryContext caller)
{
	ErrorData  *error;

	MemoryContextSwitchTo(caller);
	error = CopyErrorData();
	if (!sx_is_row_error(error->sqlerrcode))
		PG_RE_THROW();
	FreeErrorData(error);
	(void) sx_worker_recover(sx_builder.work);
}

void
sx_builder_store_row(void *arg, TupleTableSlot *row)
{
	if (sx_builder.info->nkeys > 0 && !sx_key_fits(sx_builder.info, row))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("group key is too large for the index of the materialized table")));
	tuplestore_puttupleslot(sx_builder.rows, row);
}
