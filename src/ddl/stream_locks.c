/*
 * stream_locks.c
 *		The exclusive locks of a command that waits for views, taken without harm to writers.
 *
 * Such a command first keeps writers out with ShareRowExclusiveLock, which lets the consumer read what
 * they have committed, and takes its AccessExclusiveLock when that is done.  If it waited for the second
 * lock with the first in its hands, a transaction that has only read the table until now, and wants to
 * write to it, would wait for us and we for it: a deadlock that there is not without us, and for which the
 * writer would pay.
 *
 * So we ask for the second lock when nobody else has any on the table.  If readers do not leave it in a
 * moment, all locks are given back, writers go on, and the command begins again.  Since readers may leave
 * no gap between them, that has an end; the last attempt waits like any other command.
 *
 * An attempt is a sub-transaction, whose end gives the locks back.  It writes nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "ddl/ddl_internal.h"
#include "moment.h"

/* how long the table's readers have writers wait, once */
#define EXCLUSIVE_MS		100
/* pauses between attempts, and how long to go on like this */
#define FIRST_PAUSE_MS		10
#define LONGEST_PAUSE_MS	500
#define PATIENCE_MS			5000

static bool attempt(SxLockStreams lock, void *arg, bool last);
static bool lock_exclusively(List *relids, bool wait);
static void end_attempt(MemoryContext context, ResourceOwner owner, bool done);
static void rest(long ms);

void
sx_lock_streams(SxUtility *u, SxLockStreams lock, void *arg)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(sx_now(), PATIENCE_MS);

	for (int pause = FIRST_PAUSE_MS;; pause = Min(2 * pause, LONGEST_PAUSE_MS))
	{
		List	   *settled = list_copy(u->settled);

		if (attempt(lock, arg, sx_now() >= deadline))
			return;
		u->settled = settled;
		rest(pause);
	}
}

static void
rest(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* true: the locks are held */
static bool
attempt(SxLockStreams lock, void *arg, bool last)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int			lock_timeout = LockTimeout;
	volatile bool exclusive = false;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		List	   *relids = lock(arg);

		if (!last)
		{
			exclusive = true;
			LockTimeout = EXCLUSIVE_MS;
		}
		done = lock_exclusively(relids, last);
		LockTimeout = lock_timeout;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		LockTimeout = lock_timeout;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		end_attempt(context, owner, false);
		/* a reader came between our look and our request */
		if (!exclusive ||
			(error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE && error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED))
			ReThrowError(error);
		FreeErrorData(error);
		return false;
	}
	PG_END_TRY();
	end_attempt(context, owner, done);
	return done;
}

static bool
lock_exclusively(List *relids, bool wait)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(sx_now(), EXCLUSIVE_MS);
	ListCell   *lc;

	foreach(lc, relids)
	{
		LOCKTAG		tag;
		int			holders = 0;

		SET_LOCKTAG_RELATION(tag, MyDatabaseId, lfirst_oid(lc));
		while (!wait && (pfree(GetLockConflicts(&tag, AccessExclusiveLock, &holders)), holders > 0))
		{
			if (sx_now() >= deadline)
				return false;
			rest(1);
		}
		/* of those who wait, all wait for us: we get it at once */
		LockRelationOid(lfirst_oid(lc), AccessExclusiveLock);
	}
	return true;
}

static void
end_attempt(MemoryContext context, ResourceOwner owner, bool done)
{
	if (done)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}
