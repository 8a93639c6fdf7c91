/*
 * full_scan.c
 *		Finds the rows that a view lacks in the files of its stream, when no WAL leads to them:
 *		it was let go at a limit or with the slot, or there never was any (WITH NO DATA).
 *
 * The position P alone says what is new: a row version is an uncounted INSERT if no UPDATE made
 * it, its transaction has committed, a snapshot S sees it and P does not contain it (see
 * capture/file_scan.c).  S is taken as for history, at a seam: the end of WAL L is noted, then
 * all transactions that hold a writer's lock at that moment are waited for, then S is taken.
 * WAL from L leads to every row that S does not see.
 *
 * The scan goes through the files in parts.  Each part is computed and written in one
 * transaction with the place where the next begins, so a crash repeats at most one part.  While
 * it goes on the stored position is P with the scan's state beside it (SxStoredScan) and L for
 * start LSN; the table holds P and of S what was scanned, so it may show a part of a transaction
 * until the end, when S becomes the position.  Nobody but a builder touches such a view.
 *
 * Rows are counted whatever became of them, as long as they are there: the slot's xmin keeps
 * those that P lacks from VACUUM.  Where it did not (SxView.exposed) some may be gone, and nobody
 * can say how many: the interval is reported when the scan begins.
 *
 * Locks: AccessShareLock on the leaf that is scanned, for one part.  A command that replaces a
 * file waits until the views have read the stream (ddl/settle.c), so it cannot come between
 * two parts; if a file was replaced all the same, in the middle, what was counted
 * of it cannot be known any more, and the view stops, visibly.
 */
#include "worker/builder_internal.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "capture/delta_scan.h"
#include "catalog/file_marks.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "testing/stop_points.h"

/* one part: at most so many files, of the last so many blocks, or about so many rows */
#define PART_FILES		64
#define PART_BLOCKS		16384
#define PART_ROWS		200000

/* A part's rows on their way from the scan into a batch */
typedef struct Part
{
	SxFileMap  *map;
	uint32		file;
	SxPending  *pending;
	SxReady    *ready;
	const SxPosition *counted;	/* what the file held when it was detached before */
} Part;

static void take_snapshot(SxStoredPosition *stored, XLogRecPtr l0);
static void scan_part(SxStoredPosition *stored, MemoryContext context);
static BlockNumber scan_file(SxStoredPosition *stored, Oid leaf, Part *part);
static bool is_known(const SxStoredPosition *stored, Oid leaf);
static void leave_out_later(SxStoredScan *scan);
static void add_row(void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off);
static void finish(SxStoredPosition *stored);

/*
 * From a stored position whose WAL is gone: takes S and stores the scan's beginning.
 */
void
sx_full_scan_begin(SxStoredPosition *stored)
{
	SxDb	   *db = sx_builder.db;
	SxView	   *v = sx_builder.v;
	XLogRecPtr	l0;

	if (stored->position->wal_only)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the WAL that the view needs is gone"),
				 errdetail("When it was written last, transactions with more than 65,536 sub-transactions were open, so a scan of the stream could not tell which rows it has."),
				 errhint("Drop and create the view.")));
	if (!XLogRecPtrIsInvalid(stored->start_lsn))
		ereport(LOG,
				(errmsg("continuous view with OID %u needs WAL from %X/%X, which is gone: looking for what it lacks by a full scan of its stream",
						v->viewid, LSN_FORMAT_ARGS(stored->start_lsn))));

	/* the slot has not passed what it said last, and from then on it obeys */
	SpinLockAcquire(&db->mutex);
	v->protect_lsn = db->slot_lsn;
	SpinLockRelease(&db->mutex);
	l0 = GetXLogInsertRecPtr();
	SpinLockAcquire(&db->mutex);
	v->protect_lsn = l0;
	SpinLockRelease(&db->mutex);

	sx_builder_wait_for_writers();
	take_snapshot(stored, l0);

	SpinLockAcquire(&db->mutex);
	v->scanning = true;
	v->wal_gone = false;
	SpinLockRelease(&db->mutex);
}

static void
take_snapshot(SxStoredPosition *stored, XLogRecPtr l0)
{
	MemoryContext old;
	SxFileMap  *map;
	SxStoredScan *scan = MemoryContextAllocZero(TopMemoryContext, sizeof(SxStoredScan));

	StartTransactionCommand();
	(void) sx_builder_members(true);
	scan->at = GetCurrentTimestamp();
	/* S must be younger than the waits for locks and writers */
	PushActiveSnapshot(GetTransactionSnapshot());
	map = sx_file_map_create(CurrentMemoryContext);
	sx_file_map_refresh(map, list_make1_oid(sx_builder.def->streamid), false);
	old = MemoryContextSwitchTo(TopMemoryContext);
	scan->upto = sx_position_from_snapshot(GetActiveSnapshot());
	scan->nfiles = sx_file_map_files_of(map, sx_builder.def->streamid, &scan->rels, &scan->nodes);
	leave_out_later(scan);
	MemoryContextSwitchTo(old);
	/* rows of those would be counted, committed or not; it is tried again */
	if (scan->upto->wal_only)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("more than 65,536 sub-transactions are open, which a full scan could not tell from others")));

	stored->scan = scan;
	stored->start_lsn = l0;
	/* what was open when the position was stored has ended */
	stored->open_rows = NULL;
	stored->new_open_rows = true;
	if (sx_builder.v->exposed)
		sx_builder_report_lost(-1);
	sx_builder_begin_results();
	sx_builder_write(stored, false);
	PopActiveSnapshot();
	CommitTransactionCommand();
	SX_STOP_POINT_OF(scan_stored, sx_builder.def->viewid);
}

/* what was attached by a transaction that is not in S is new to the capture that starts at l0 */
static void
leave_out_later(SxStoredScan *scan)
{
	int			kept = 0;

	for (int i = 0; i < scan->nfiles; i++)
	{
		bool		later = false;
		ListCell   *lc;

		foreach(lc, sx_catalog_marks(scan->rels[i]))
		{
			SxAttachMark *m = lfirst(lc);

			later |= m->attached && m->stream == sx_builder.def->streamid &&
				!sx_position_covers(scan->upto, m->snapshot);
		}
		if (later)
			continue;
		scan->rels[kept] = scan->rels[i];
		scan->nodes[kept++] = scan->nodes[i];
	}
	scan->nfiles = kept;
}

void
sx_full_scan_run(SxStoredPosition *stored)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "streamext full scan",
												  ALLOCSET_DEFAULT_SIZES);

	while (stored->scan->file < stored->scan->nfiles)
	{
		sx_worker_check();
		sx_builder_phase("full scan, file %d/%d, block %u", stored->scan->file + 1,
						 stored->scan->nfiles, stored->scan->block);
		MemoryContextReset(context);
		scan_part(stored, context);
	}
	MemoryContextDelete(context);
	finish(stored);
}

static void
scan_part(SxStoredPosition *stored, MemoryContext context)
{
	SxStoredScan *scan = stored->scan;
	Part		part = {0};

	StartTransactionCommand();
	LockRelationOid(scan->rels[scan->file], AccessShareLock);
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(context);
	part.map = sx_file_map_create(context);
	sx_file_map_refresh(part.map, list_make1_oid(sx_builder.def->streamid), false);
	part.pending = sx_pending_create(context);
	part.ready = sx_pending_new_ready(part.pending, SX_ALWAYS_XID, stored->start_lsn);

	/* small files share a part */
	for (int n = 0; n < PART_FILES && scan->file < scan->nfiles && part.ready->nrows < PART_ROWS; n++)
	{
		Oid			leaf = scan->rels[scan->file];

		if (n > 0 && !ConditionalLockRelationOid(leaf, AccessShareLock))
			break;
		scan->block = scan_file(stored, leaf, &part);
		if (scan->block != InvalidBlockNumber)
			break;
		scan->file++;
		scan->block = 0;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	SX_STOP_POINT_OF(scan_found, sx_builder.def->viewid);

	sx_builder_begin_results();
	if (part.ready->nrows > 0)
	{
		SxBatch    *batch = sx_batch_create(part.map, sx_builder.def->streamid, &part.ready, 1, 0);

		/* those that are going while we read them are in the interval that was reported */
		if (sx_builder.v->exposed)
			sx_builder_drop_missing(batch);
		sx_builder_compute(batch, false);
	}
	sx_builder.nlost = 0;
	sx_builder_commit(stored);
	SX_STOP_POINT_OF(scan_part_committed, sx_builder.def->viewid);
}

/* from scan->block on; the next block, InvalidBlockNumber at the end */
static BlockNumber
scan_file(SxStoredPosition *stored, Oid leaf, Part *part)
{
	SxStoredScan *scan = stored->scan;
	const SxPosition *since = stored->position;
	SxFileEntry *entry = NULL;
	Snapshot	mark = NULL;

	for (uint32 i = 0; i < sx_file_map_count(part->map) && entry == NULL; i++)
	{
		SxFileEntry *e = sx_file_map_entry(part->map, i);

		if (!e->dead && e->leaf == leaf)
			entry = e;
	}
	/* dropped or detached since: that waited until every view had what it needs of it */
	if (entry == NULL)
		return InvalidBlockNumber;
	if (scan->block > 0 && SxFileNumber(entry->file) != scan->nodes[scan->file])
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the file of table \"%s\" was replaced while it was being scanned",
						get_rel_name(leaf)),
				 errhint("Drop and create the view.")));
	part->file = entry->index;
	part->counted = NULL;

	/* a partition that is new to the view, as in cycle.c */
	if (!is_known(stored, leaf))
	{
		SxPosition *attached;
		SxPosition *detached;

		sx_tail_marks(leaf, list_make1_oid(sx_builder.def->streamid), &attached, &detached);
		if (detached != NULL && sx_position_contains(detached, stored->built_by))
			part->counted = detached;
		since = attached;
		mark = attached ? sx_position_to_snapshot(attached) : NULL;
	}
	return sx_file_scan_part(leaf, scan->block, PART_BLOCKS, PART_ROWS, scan->upto, since, mark,
							 add_row, part);
}

/* did the stream have this leaf when the position was stored? */
static bool
is_known(const SxStoredPosition *stored, Oid leaf)
{
	/* a view WITH NO DATA has seen no file, and begins with all there were when it was created */
	if (stored->nfiles == 0 && !sx_builder.def->with_data)
		return !sx_tail_attached_since(leaf, list_make1_oid(sx_builder.def->streamid), stored->position);
	for (int i = 0; i < stored->nfiles; i++)
		if (stored->file_rels[i] == leaf)
			return true;
	return false;
}

static void
add_row(void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off)
{
	Part	   *part = arg;

	if (part->counted == NULL || !sx_position_contains(part->counted, fxid))
		sx_pending_ready_add_run(part->pending, part->ready, part->file, block, off, xid);
}

/* the table holds what S sees: S is the position, and WAL leads on from there */
static void
finish(SxStoredPosition *stored)
{
	SxStoredScan *scan = stored->scan;
	SxView	   *v = sx_builder.v;

	stored->position = scan->upto;
	stored->complete_at = scan->at;
	stored->nfiles = scan->nfiles;
	stored->file_rels = scan->rels;
	stored->file_nodes = scan->nodes;
	stored->scan = NULL;
	sx_builder_begin_results();
	sx_builder_commit(stored);
	SX_STOP_POINT_OF(scan_finished, sx_builder.def->viewid);
	sx_builder_protect(stored->position->xmin, stored->start_lsn);

	SpinLockAcquire(&sx_builder.db->mutex);
	v->scanning = false;
	SpinLockRelease(&sx_builder.db->mutex);
	sx_builder.lost_from = scan->at;
}
