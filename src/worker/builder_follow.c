/*
 * builder_follow.c
 *		A slow view follows WAL in a builder of its own, and joins the others when it is fast again.
 *
 * Each turn is written with its position, and has so many rows that it takes about a second: so a
 * view that takes ten milliseconds per row moves on all the time, and loses little when its
 * process ends.  The account of budget.c is kept here as it would be in the consumer; when the view has
 * not overdrawn it for as long as it was told to stay away, it tries to join again.
 *
 * A function that hangs hangs here, where it harms nobody.  What the process is at is noted in shared
 * memory, for streamext.status and for the consumer, which ends it when the view is paused or dropped, or
 * when somebody waits for a lock that it holds (consumer_builders.c).
 *
 * Who waits for the view (sx_wait) asks for a turn that begins now.  Turns are numbered, over all
 * builders of the database, so that a number stays good when the process is another.
 */
#include "worker/builder_internal.h"

#include "miscadmin.h"
#include "moment.h"
#include "pgstat.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

/* stream rows of a turn: at most; of a slow view at first; then as many as take between these times */
#define MOST_ROWS		2000000
#define SLOW_ROWS		1000
#define LONG_TURN_US	2000000
#define SHORT_TURN_US	500000
/* turns are at least this far apart; how often to look whether there is something to do */
#define FOLLOW_MS		50
#define FOLLOW_POLL_MS	20

/* how many rows of the stream the next turn is to take, about */
uint64
sx_builder_turn_rows(void)
{
	if (sx_builder.turn_rows == 0)
		sx_builder.turn_rows = sx_builder.v->slow ? SLOW_ROWS : MOST_ROWS;
	return sx_builder.turn_rows;
}

/* from here on a function may hang */
void
sx_builder_begin_work(int64 rows)
{
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->work_since = sx_now();
	sx_builder.v->work_rows = rows;
	SpinLockRelease(&sx_builder.db->mutex);
	sx_budget_start(0);
}

/* microseconds */
int64
sx_builder_end_work(void)
{
	int64		us = sx_budget_stop();

	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->work_since = 0;
	SpinLockRelease(&sx_builder.db->mutex);
	sx_builder.turn_us += us;
	return us;
}

/* the others would have waited for it: it stays here, or longer */
void
sx_builder_too_slow(const char *what, int64 us, int64 rows)
{
	SxView	   *v = sx_builder.v;

	if (!v->slow)
	{
		sx_view_set_slow(sx_builder.db, v, "slow (%s " INT64_FORMAT " rows took " INT64_FORMAT " ms): follows in a process of its own",
						 what, rows, us / 1000);
		sx_view_set_reason(sx_builder.db, v, "%s", v->slow_why);
		sx_builder.turn_rows = Min(sx_builder_turn_rows(), SLOW_ROWS);
	}
	SpinLockAcquire(&sx_builder.db->mutex);
	v->slow_until = TimestampTzPlusMilliseconds(sx_now(), v->setback_pause);
	SpinLockRelease(&sx_builder.db->mutex);
}

/* does a slow view have to stay? */
bool
sx_builder_must_follow(void)
{
	return sx_builder.v->slow && sx_now() < sx_builder.v->slow_until;
}

/*
 * A turn is over, and written: what is in the table now, for waiters and streamext.status.  held_lsn:
 * everything committed below it is there, if it was committed before the turn began.
 */
void
sx_builder_note_turn(uint64 turn, XLogRecPtr held_lsn, uint64 held_rows, uint64 rows,
					 const TimestampTz *commits, int ncommits)
{
	SxView	   *v = sx_builder.v;
	TimestampTz now = GetCurrentTimestamp();
	uint32		counts[lengthof(v->freshness)] = {0};

	for (int i = 0; i < ncommits; i++)
		if (commits[i] != 0)
			counts[Min(pg_leftmost_one_pos64(Max(now - commits[i], 1)), lengthof(counts) - 1)]++;

	SpinLockAcquire(&sx_builder.db->mutex);
	v->turn_done = turn;
	v->turn_lsn = held_lsn;
	v->lag_rows = held_rows;
	if (held_rows == 0)
		v->followed_at = sx_now();
	for (int i = 0; i < lengthof(counts); i++)
		v->freshness[i] += counts[i];
	SpinLockRelease(&sx_builder.db->mutex);
	ConditionVariableBroadcast(&sx_builder.db->published_cv);

	if (sx_builder.turn_us > LONG_TURN_US)
		sx_builder.turn_rows = Max(1, rows * 1000000 / sx_builder.turn_us);
	else if (sx_builder.turn_us < SHORT_TURN_US && rows >= sx_builder_turn_rows() / 2)
		sx_builder.turn_rows = Min(sx_builder.turn_rows * 2, MOST_ROWS);
	sx_builder.turn_us = 0;
}

/* until there is something to do */
void
sx_builder_rest(SxTail *tail, TimestampTz turn_started)
{
	SxView	   *v = sx_builder.v;

	while (!v->yield && v->turn_wanted <= v->turn_done && sx_builder_must_follow())
	{
		if (SxXactCompletionCount() != tail->last_completion &&
			TimestampDifferenceExceeds(turn_started, sx_now(), FOLLOW_MS))
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 FOLLOW_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		sx_worker_check();
	}
}
