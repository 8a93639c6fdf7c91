/*
 * standby.c
 *		What the consumer does while its server is a standby: it moves a slot of its own along
 *		the positions that are replicated, so that after promotion everything a view lacks is there.
 *
 * A slot is not replicated.  Without one of its own a standby recycles the WAL that the
 * views' positions start from, and in the moment of promotion nothing stops VACUUM and pruning
 * from taking rows that were deleted before a view read them.  So the slot holds WAL from the oldest
 * start LSN that is replicated, and its xmin is the oldest xmin of a position: in force
 * before the first transaction of the new primary, and no gap is left between promotion and the
 * moment when a consumer is there.
 *
 * The xmin travels upstream with hot_standby_feedback.  There it changes nothing: the primary's own
 * slot holds the same positions, which ours follow by a second, and the limits are the same
 * on both sides (streamext.max_held_wal, streamext.max_held_xids).  The slot of a primary that
 * became a standby moves on in the same way, so it neither fills its disk nor holds back VACUUM
 * upstream.  When no view is left the slot goes.
 *
 * What the slot claims here is that nothing was removed *since*: that the primary had
 * protected the rows until then is the primary's word.  If it had not, and was lost before it could
 * report that, rows that are gone are still noticed one by one where WAL leads to them.
 *
 * Reads only, in short transactions that recovery may cancel; they are tried again.
 */
#include "worker/consumer_internal.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "capture/slot.h"
#include "catalog/definitions.h"
#include "miscadmin.h"
#include "moment.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* how often the end of recovery is looked for, and replicated positions */
#define PROMOTION_POLL_MS	100
#define POSITIONS_POLL_MS	1000

/* what the replicated positions need */
typedef struct Needs
{
	bool		views;			/* there are any */
	uint64		xmin;			/* 0: nothing */
	XLogRecPtr	lsn;			/* InvalidXLogRecPtr: nothing */
} Needs;

static void follow(SxDb *db);
static void read_needs(Needs *needs);

/* comes back when recovery has ended, if it goes on at all */
void
sx_standby_hold(SxDb *db)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "streamext standby",
												  ALLOCSET_DEFAULT_SIZES);
	XLogRecPtr	seen = InvalidXLogRecPtr;
	TimestampTz looked = 0;

	while (RecoveryInProgress())
	{
		XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);

		if (replayed != seen && TimestampDifferenceExceeds(looked, sx_now(), POSITIONS_POLL_MS))
		{
			MemoryContextSwitchTo(context);
			PG_TRY();
			{
				follow(db);
				seen = replayed;
			}
			PG_CATCH();
			{
				ErrorData  *error = sx_worker_recover(context);

				/* a conflict with recovery settles itself */
				if (error->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE)
					sx_consumer_note_problem(db, error);
			}
			PG_END_TRY();
			looked = sx_now();
			MemoryContextSwitchTo(TopMemoryContext);
			MemoryContextReset(context);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, PROMOTION_POLL_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		sx_worker_check();
	}
	MemoryContextDelete(context);
}

static void
follow(SxDb *db)
{
	Needs		needs = {0};
	uint64		next;
	XLogRecPtr	end;
	uint64		limit = sx_consumer_wal_limit();

	read_needs(&needs);
	if (!needs.views)
	{
		sx_slot_release();
		(void) sx_slot_drop(db->dboid);
		SpinLockAcquire(&db->mutex);
		db->wanted = false;
		SpinLockRelease(&db->mutex);
		proc_exit(0);
	}
	if (needs.xmin == 0)
		return;					/* all are still being built */

	/* the primary lets go at these, too */
	next = U64FromFullTransactionId(ReadNextFullTransactionId());
	end = GetXLogReplayRecPtr(NULL);
	if (next > sx_max_held_xids)
		needs.xmin = Max(needs.xmin, next - sx_max_held_xids);
	if (end > limit)
		needs.lsn = Max(needs.lsn, end - limit);
	sx_slot_keep((TransactionId) needs.xmin, needs.lsn);
}

static void
read_needs(Needs *needs)
{
	ListCell   *lc;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(lc, sx_catalog_exists() ? sx_catalog_views() : NIL)
	{
		SxStoredPosition *pos = sx_catalog_position(((SxViewDef *) lfirst(lc))->viewid);

		needs->views = true;
		if (pos == NULL || !pos->ours)
			continue;
		needs->xmin = needs->xmin == 0 ? pos->position->xmin : Min(needs->xmin, pos->position->xmin);
		if (!XLogRecPtrIsInvalid(pos->start_lsn))
			needs->lsn = XLogRecPtrIsInvalid(needs->lsn) ? pos->start_lsn : Min(needs->lsn, pos->start_lsn);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}
