/*
 * stop_points.c
 *		Arming, hitting and releasing of stop points; in test builds only.
 *
 * SQL, by functions that a test creates itself (test/t/StreamextTest.pm, test_functions):
 *	 sx_test_stop(point, action, nth, view, process, bound)
 *	 sx_test_release(point)		NULL: all; disarms too
 *	 sx_test_points()			state of all points
 *
 * An armed point fires once, at its n-th hit by a matching process, and is disarmed by that;
 * action `count` never fires, `errors` at all hits from that one on.  Everything is in shared memory, which a crash resets: after a
 * restart nothing is armed.  What fired is written to the server log first, by write(2),
 * because that is all that survives.
 *
 * Locking: one spinlock, held for a few stores; a waiting process holds nothing of ours.
 */
#include "postgres.h"

#ifdef SX_TESTING

#include <signal.h>
#include <unistd.h>

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"

#include "testing/stop_points.h"
#include "worker/worker.h"

/* how often a waiting process looks whether it was released */
#define POLL_MS		10

SxTesting  *sx_testing = NULL;

typedef struct PointInfo
{
	const char *name;
	bool		may_raise;
} PointInfo;

static const PointInfo points[] = {
#define SX_POINT(name, actions) {#name, actions},
#include "testing/stop_points_list.h"
#undef SX_POINT
};

static const char *const actions[] = {
	"none", "count", "crash", "abort", "error", "errors", "terminate", "wait"
};

static bool exit_hook_registered = false;

PG_FUNCTION_INFO_V1(sx_test_stop);
PG_FUNCTION_INFO_V1(sx_test_release);
PG_FUNCTION_INFO_V1(sx_test_points);

static void count_armed(void);
static void say(SxStopPoint point, SxStopAction action);
static void wait_for_release(SxStopPoint point, uint32 ticket);
static void no_longer_waiting(int code, Datum point);
static int	find_point(const char *name);
static void release(SxArmedPoint *p);
static void session_ends(int code, Datum arg);

Size
sx_testing_size(void)
{
	return sizeof(SxTesting);
}

void
sx_testing_init(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	sx_testing = ShmemInitStruct("streamext testing", sizeof(SxTesting), &found);
	if (!found)
	{
		memset(sx_testing, 0, sizeof(SxTesting));
		pg_atomic_init_u32(&sx_testing->armed, 0);
		pg_atomic_init_u32(&sx_testing->failing, 0);
		SpinLockInit(&sx_testing->mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* consumer, flusher … or, for all processes that are not ours, backend */
bool
sx_testing_process_is(const char *wanted)
{
	const char *type = sx_is_worker && MyBgworkerEntry ? MyBgworkerEntry->bgw_type : "streamext backend";

	return strcmp(type + strlen("streamext "), wanted) == 0;
}

/* with the mutex */
static void
count_armed(void)
{
	uint32		n = 0;

	for (int i = 0; i < SX_STOP_POINTS; i++)
		n += sx_testing->points[i].action != SX_ACTION_NONE;
	pg_atomic_write_u32(&sx_testing->armed, n);
}

void
sx_stop_point(SxStopPoint point, Oid viewid)
{
	SxArmedPoint *p = &sx_testing->points[point];
	SxStopAction action = SX_ACTION_NONE;
	uint32		ticket = 0;

	if (p->action == SX_ACTION_NONE)
		return;
	SpinLockAcquire(&sx_testing->mutex);
	if (p->action != SX_ACTION_NONE &&
		(!OidIsValid(p->viewid) || p->viewid == viewid) &&
		(p->process[0] == '\0' || sx_testing_process_is(p->process)))
	{
		p->hits++;
		if (p->action != SX_ACTION_COUNT && --p->skip <= 0)
		{
			action = p->action;
			ticket = p->ticket;
			if (action != SX_ACTION_ERRORS)
				p->action = SX_ACTION_NONE;
			p->fired++;
			if (action == SX_ACTION_WAIT)
				p->waiting++;
			count_armed();
		}
	}
	SpinLockRelease(&sx_testing->mutex);
	if (action == SX_ACTION_NONE)
		return;

	say(point, action);
	switch (action)
	{
		case SX_ACTION_CRASH:
			kill(getpid(), SIGKILL);
			for (;;)
				pg_usleep(1000000L);
		case SX_ACTION_ABORT:
			abort();
		case SX_ACTION_ERROR:
		case SX_ACTION_ERRORS:
			ereport(ERROR,
					(errcode(ERRCODE_IO_ERROR),
					 errmsg("stop point \"%s\"", points[point].name)));
			break;
		case SX_ACTION_TERMINATE:
			ereport(FATAL,
					(errcode(ERRCODE_ADMIN_SHUTDOWN),
					 errmsg("terminated at stop point \"%s\"", points[point].name)));
			break;
		case SX_ACTION_WAIT:
			wait_for_release(point, ticket);
			break;
		default:
			break;
	}
}

/* nothing here allocates: the point may lie under a lock */
static void
say(SxStopPoint point, SxStopAction action)
{
	char		line[160];

	snprintf(line, sizeof(line), "streamext stop point \"%s\": %s in pid %d\n",
			 points[point].name, actions[action], (int) getpid());
	if (write(STDERR_FILENO, line, strlen(line)) < 0)
		return;
}

/* the latch is left alone: whoever set it meant the code around the point */
static void
wait_for_release(SxStopPoint point, uint32 ticket)
{
	volatile SxArmedPoint *p = &sx_testing->points[point];

	/* also when the process is terminated while it waits */
	PG_ENSURE_ERROR_CLEANUP(no_longer_waiting, Int32GetDatum(point));
	{
		while (p->ticket == ticket)
		{
			(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_MS, PG_WAIT_EXTENSION);
			if (points[point].may_raise)
				CHECK_FOR_INTERRUPTS();
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(no_longer_waiting, Int32GetDatum(point));
	no_longer_waiting(0, Int32GetDatum(point));
}

static void
no_longer_waiting(int code, Datum point)
{
	SpinLockAcquire(&sx_testing->mutex);
	sx_testing->points[DatumGetInt32(point)].waiting--;
	SpinLockRelease(&sx_testing->mutex);
}

static int
find_point(const char *name)
{
	for (int i = 0; i < SX_STOP_POINTS; i++)
		if (strcmp(points[i].name, name) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("there is no stop point \"%s\"", name)));
}

/* with the mutex */
static void
release(SxArmedPoint *p)
{
	p->action = SX_ACTION_NONE;
	p->session = 0;
	p->ticket++;
}

/*
 * sx_test_stop(point text, action text, nth int, view oid, process text, bound boolean)
 * bound: released when this session ends
 */
Datum
sx_test_stop(PG_FUNCTION_ARGS)
{
	int			point = find_point(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	int			nth = PG_GETARG_INT32(2);
	Oid			viewid = PG_ARGISNULL(3) ? InvalidOid : PG_GETARG_OID(3);
	char	   *process = PG_ARGISNULL(4) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(4));
	bool		bound = PG_GETARG_BOOL(5);
	SxArmedPoint *p = &sx_testing->points[point];
	int			action;

	for (action = 0; action < lengthof(actions); action++)
		if (strcmp(actions[action], name) == 0)
			break;
	if (action == lengthof(actions))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no action \"%s\"", name)));
	if (!points[point].may_raise && (action == SX_ACTION_ERROR || action == SX_ACTION_ERRORS || action == SX_ACTION_TERMINATE))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("nothing may raise at stop point \"%s\"", points[point].name)));
	if (bound && !exit_hook_registered)
	{
		before_shmem_exit(session_ends, 0);
		exit_hook_registered = true;
	}

	SpinLockAcquire(&sx_testing->mutex);
	p->action = action;
	p->skip = nth;
	p->viewid = viewid;
	strlcpy(p->process, process, sizeof(p->process));
	p->session = bound ? MyProcPid : 0;
	p->hits = 0;
	p->fired = 0;
	count_armed();
	SpinLockRelease(&sx_testing->mutex);
	PG_RETURN_VOID();
}

static void
session_ends(int code, Datum arg)
{
	SpinLockAcquire(&sx_testing->mutex);
	for (int i = 0; i < SX_STOP_POINTS; i++)
		if (sx_testing->points[i].session == MyProcPid)
			release(&sx_testing->points[i]);
	count_armed();
	SpinLockRelease(&sx_testing->mutex);
}

/* sx_test_release(point text) */
Datum
sx_test_release(PG_FUNCTION_ARGS)
{
	int			only = PG_ARGISNULL(0) ? -1 : find_point(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	SpinLockAcquire(&sx_testing->mutex);
	for (int i = 0; i < SX_STOP_POINTS; i++)
		if (only < 0 || only == i)
			release(&sx_testing->points[i]);
	count_armed();
	SpinLockRelease(&sx_testing->mutex);
	PG_RETURN_VOID();
}

/* sx_test_points(): (point text, may_raise boolean, action text, hits bigint, fired bigint, waiting int) */
Datum
sx_test_points(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < SX_STOP_POINTS; i++)
	{
		SxArmedPoint p;
		Datum		values[6];
		bool		isnull[6] = {0};

		SpinLockAcquire(&sx_testing->mutex);
		p = sx_testing->points[i];
		SpinLockRelease(&sx_testing->mutex);
		values[0] = CStringGetTextDatum(points[i].name);
		values[1] = BoolGetDatum(points[i].may_raise);
		values[2] = CStringGetTextDatum(actions[p.action]);
		values[3] = Int64GetDatum((int64) p.hits);
		values[4] = Int64GetDatum((int64) p.fired);
		values[5] = Int32GetDatum(p.waiting);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, isnull);
	}
	return (Datum) 0;
}

#endif							/* SX_TESTING */
