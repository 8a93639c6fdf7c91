/*
 * budget.c
 *		A view's share of a worker that serves many: how long its computation may take, and
 *		what ends it when it takes longer.
 *
 * Each view has an account.  A run costs nothing up to a small allowance plus a little per row,
 * so that a cheap view over five million rows is never slow; what it takes beyond that is paid
 * from a credit of streamext.view_budget, which fills up again with a tenth of the time that
 * passes.  A view without credit is slow and goes to a process of its own.
 *
 * While a run lasts a timer stands at the end of its credit.  It raises a cancel like the one of
 * pg_cancel_backend(), told apart by a flag: whatever error then comes out of the run, or even a
 * result (a function may catch the cancel), counts as "took too long".  A function that catches
 * it and goes on is asked again; one that will not end is ended with the whole process, which
 * leaves a note in shared memory, so that its successor keeps the view away from the others.
 * Only code that never looks for interrupts is out of reach.
 *
 * Time that the process was not scheduled is no view's fault: as long as it has not waited for
 * anything, processor time counts, and of the time on the clock a quarter.
 */
#include "worker/worker_internal.h"

#include <signal.h>
#include <sys/resource.h>

#include "miscadmin.h"
#include "utils/timeout.h"

/* of the budget: what a run may take before it costs credit */
#define ALLOWANCE_DIVISOR	50
/* a flush holds up other flushes only: it may take so many budgets, and this much for each entry */
#define FLUSH_FACTOR		10
#define FLUSH_ENTRY_US		100
/* credit comes back with this part of the time */
#define REFILL_DIVISOR		10
/* of the time, when the process was ready to run and others were running */
#define UNSCHEDULED_DIVISOR	4
/* how often a run is asked to end, once its time is over */
#define ASK_AGAIN_MS		50
/* cancels that a run may swallow before the process ends with it */
#define MAX_SWALLOWED		5

typedef struct Clock
{
	TimestampTz at;
	int64		cpu_us;
	long		waits;			/* voluntary context switches */
} Clock;

static bool registered = false;
static TimeoutId timer;
static bool armed = false;
static int64 limit_us;
static Clock started;
static volatile sig_atomic_t exceeded = false;
static volatile sig_atomic_t asked = 0;

static int64 cpu_us(const struct rusage *usage);
static void read_clock(Clock *c);
static int64 elapsed_us(void);
static void time_is_over(void);
static int64 allowance_us(uint64 rows);

static int64
cpu_us(const struct rusage *usage)
{
	return (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * INT64CONST(1000000) +
		usage->ru_utime.tv_usec + usage->ru_stime.tv_usec;
}

int64
sx_cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return cpu_us(&usage);
}

static void
read_clock(Clock *c)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	c->at = sx_now();
	c->cpu_us = cpu_us(&usage);
	c->waits = usage.ru_nvcsw;
}

static int64
elapsed_us(void)
{
	Clock		now;

	read_clock(&now);
	if (now.waits != started.waits)
		return now.at - started.at;
	return Max(now.cpu_us - started.cpu_us, (now.at - started.at) / UNSCHEDULED_DIVISOR);
}

/* the timer's handler: as careful as a signal handler must be */
static void
time_is_over(void)
{
	if (!armed || elapsed_us() < limit_us)
		return;
	exceeded = true;
	/* one that is still pending has not been looked at yet: nothing was swallowed */
	if (QueryCancelPending)
		return;
	if (++asked > MAX_SWALLOWED)
		ProcDiePending = true;
	else
		QueryCancelPending = true;
	InterruptPending = true;
}

/* limit: microseconds; 0: none, the run is only measured */
void
sx_budget_start(int64 limit)
{
	TimestampTz wall;

	if (!registered)
	{
		timer = RegisterTimeout(USER_TIMEOUT, time_is_over);
		registered = true;
	}
	/* a cancel of the limit before that nobody has looked at would hit whatever comes after this run */
	if (armed)
		(void) sx_budget_stop();
	exceeded = false;
	asked = 0;
	limit_us = limit;
	read_clock(&started);
	if (limit <= 0)
		return;
	armed = true;
	/* the server's timers go by the clock on the wall; the handler looks at ours */
	wall = GetCurrentTimestamp();
	enable_timeout_every(timer, wall + limit, ASK_AGAIN_MS);
}

/* the time taken; nothing of ours is pending afterwards */
int64
sx_budget_stop(void)
{
	if (armed)
	{
		disable_timeout(timer, false);
		armed = false;
		if (exceeded)
			QueryCancelPending = false;
	}
	return elapsed_us();
}

/* did the run that goes on, or the last one, take too long? */
bool
sx_budget_exceeded(void)
{
	return exceeded;
}

/* the process ends because a run would not: for exit callbacks */
bool
sx_budget_is_deadly(void)
{
	return armed && asked > MAX_SWALLOWED;
}

/* how long a flush of so many entries may take, microseconds; 0: as long as it likes */
int64
sx_budget_of_flush(uint64 entries)
{
	if (sx_view_budget == 0)
		return 0;
	return sx_view_budget * FLUSH_FACTOR * INT64CONST(1000) + (int64) entries * FLUSH_ENTRY_US;
}

/* ---- accounts ---- */

void
sx_account_open(SxAccount *a)
{
	a->credit_us = sx_view_budget * INT64CONST(1000);
	a->at = sx_now();
}

static int64
allowance_us(uint64 rows)
{
	return sx_view_budget * INT64CONST(1000) / ALLOWANCE_DIVISOR + (int64) rows * SX_BUDGET_ROW_US;
}

/* how long a run over these rows may take, microseconds; 0: as long as it likes */
int64
sx_account_limit(SxAccount *a, uint64 rows)
{
	TimestampTz now = sx_now();

	if (sx_view_budget == 0)
		return 0;
	if (now > a->at)
		a->credit_us += (now - a->at) / REFILL_DIVISOR;
	a->credit_us = Min(a->credit_us, sx_view_budget * INT64CONST(1000));
	a->at = now;
	return Max(a->credit_us, 0) + allowance_us(rows);
}

/* false: the account is empty */
bool
sx_account_charge(SxAccount *a, uint64 rows, int64 us)
{
	if (sx_view_budget == 0)
		return true;
	a->credit_us -= Max(us - allowance_us(rows), 0);
	/* the time in which it was spent brings nothing */
	a->at = sx_now();
	return a->credit_us >= 0;
}
