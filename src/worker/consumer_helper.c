/*
 * consumer_helper.c
 *		The consumer's side of its helper (helper.c): started when it is needed, given jobs, and heard of.
 *
 * At most SX_HELPER_JOBS are given, so that the helper finds the next when it has done one.  Results are collected in the order
 * of the jobs, by the process that made them; one that the helper has left behind counts as failed, for all of its views.
 */
#include "worker/consumer_internal.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "worker/helper.h"
#include "testing/stop_points.h"

/* without a free background worker, or when it has ended: not sooner again */
#define START_PAUSE_MS	1000
/* a job of many views, all as slow as they may be, takes longer; then the consumer computes it as well */
#define HANGS_MS		10000

/* it had a processor to itself only for a smaller part of the time than this: then others want them … */
#define IS_CROWDED(job)	((job)->cpu_us < (job)->wall_us / 10 * 9)
/* … and it takes this part of the time, one job after the other */
#define CROWDED_SHARE	10

typedef struct GivenJob
{
	uint64		number;
	TimestampTz at;				/* when it was given, or became the first */
	dsa_pointer job;
	int			nviews;
	void	  **owners;			/* of the views' results */
} GivenJob;

static List *given = NIL;		/* of GivenJob *, in TopMemoryContext, oldest first */
static BackgroundWorkerHandle *handle = NULL;
static TimestampTz started_at = 0;
static bool crowded = true;		/* as the last job has found; not known yet: perhaps */
static TimestampTz rest_until = 0;

static void start_helper(Consumer *c);
static SxHelperJob *make_job(Consumer *c, SxReady *slice, List *wanted, dsa_pointer *dp);

/*
 * How many jobs it would take now.  open: of a transaction whose writer goes on; he must not lose his processor to it.  start: if
 * it does not run.
 */
int
sx_consumer_helper_room(Consumer *c, bool open, bool start)
{
	int			most = SX_HELPER_JOBS;
	pid_t		pid;

	if (open && crowded)
		most = sx_now() < rest_until ? 0 : 1;
	if (!sx_enable_helper || list_length(given) >= most)
		return 0;
	SpinLockAcquire(&c->db->mutex);
	pid = c->db->places[SX_HELPER].pid;
	SpinLockRelease(&c->db->mutex);
	if (pid != 0)
		return most - list_length(given);
	/* what the last one has left behind is collected first: the next must not find it */
	if (given == NIL && start)
		start_helper(c);
	return 0;
}

/* it has been at a job for so long that nobody should wait for it */
bool
sx_consumer_helper_hangs(void)
{
	return given != NIL && TimestampDifferenceExceeds(((GivenJob *) linitial(given))->at, sx_now(), HANGS_MS);
}

/* others want the processors: as far as is known */
bool
sx_consumer_is_crowded(void)
{
	return crowded;
}

static void
start_helper(Consumer *c)
{
	BackgroundWorker w;
	SxWorkerArg arg;
	MemoryContext old;
	TimestampTz now = sx_now();
	pid_t		pid;

	if (handle != NULL)
	{
		if (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
			return;
		pfree(handle);
		handle = NULL;
	}
	if (c->db->closing || !TimestampDifferenceExceeds(started_at, now, START_PAUSE_MS))
		return;
	started_at = now;
	sx_worker_fill(&w, "streamext helper", "sx_helper_main", c->db->dboid, InvalidOid);
	/* one that starts late must not take another consumer for its own */
	memcpy(&arg, w.bgw_extra, sizeof(arg));
	arg.incarnation = MyProcPid;
	memcpy(w.bgw_extra, &arg, sizeof(arg));
	old = MemoryContextSwitchTo(TopMemoryContext);
	/* without one all is well, and takes longer */
	if (!RegisterDynamicBackgroundWorker(&w, &handle))
		handle = NULL;
	MemoryContextSwitchTo(old);
}

bool
sx_consumer_give(Consumer *c, SxReady *slice, List *wanted)
{
	GivenJob   *g;
	SxHelperJob *job;
	dsa_pointer dp;
	MemoryContext old;
	ListCell   *lc;

	job = make_job(c, slice, wanted, &dp);
	if (job == NULL)
		return false;

	old = MemoryContextSwitchTo(TopMemoryContext);
	g = palloc(sizeof(GivenJob));
	g->at = sx_now();
	g->job = dp;
	g->nviews = 0;
	g->owners = palloc(sizeof(void *) * list_length(wanted));
	foreach(lc, wanted)
		g->owners[g->nviews++] = ((SxWantedView *) lfirst(lc))->owner;
	given = lappend(given, g);
	MemoryContextSwitchTo(old);

	SpinLockAcquire(&c->db->mutex);
	g->number = c->db->jobs_given++;
	c->db->helper_jobs[g->number % SX_HELPER_JOBS] = dp;
	SpinLockRelease(&c->db->mutex);
	sx_wake(c->db, SX_HELPER);
	return true;
}

/* NULL: no memory */
static SxHelperJob *
make_job(Consumer *c, SxReady *slice, List *wanted, dsa_pointer *dp)
{
	SxFileMap  *map = c->tail->capture->map;
	dsa_area   *area = sx_db_area(c->db);
	uint32		count = sx_file_map_count(map);
	uint32	   *numbers = palloc(sizeof(uint32) * Max(count, 1));
	SxFileEntry **entries = palloc(sizeof(SxFileEntry *) * Max(count, 1));
	SxHelperJob sizes = {0};
	SxHelperJob *job;
	SxRun	   *runs;
	SxHelperFile *files;
	Oid		   *streams;
	ListCell   *lc;

	memset(numbers, 0xff, sizeof(uint32) * count);
	sizes.nrows = slice->nrows;
	sizes.nruns = slice->nruns;
	sizes.nviews = list_length(wanted);
	for (uint32 i = 0; i < slice->nruns; i++)
	{
		uint32		file = SxRunFile(&slice->runs[i]);
		SxFileEntry *entry;

		if (numbers[file] != PG_UINT32_MAX)
			continue;
		entry = sx_file_map_entry(map, file);
		/* rows of one that is gone belong to nobody */
		sizes.nstreams += entry->dead ? 0 : list_length(entry->streams);
		entries[sizes.nfiles] = entry;
		numbers[file] = sizes.nfiles++;
	}

	*dp = dsa_allocate_extended(area, sx_job_size(&sizes), DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE | DSA_ALLOC_ZERO);
	if (!DsaPointerIsValid(*dp))
		return NULL;
	job = dsa_get_address(area, *dp);
	memcpy(job, &sizes, offsetof(SxHelperJob, views));
	sizes.nviews = 0;
	foreach(lc, wanted)
	{
		job->views[sizes.nviews] = ((SxWantedView *) lfirst(lc))->view;
		job->views[sizes.nviews].nrows = slice->nrows;
		job->views[sizes.nviews++].result = SX_PROCESS_FAILED;
	}
	runs = sx_job_runs(job);
	for (uint32 i = 0; i < slice->nruns; i++)
	{
		runs[i] = slice->runs[i];
		runs[i].file = numbers[SxRunFile(&slice->runs[i])];
	}
	files = sx_job_files(job);
	streams = sx_job_streams(job);
	for (uint32 i = 0; i < job->nfiles; i++)
	{
		files[i].file = entries[i]->file;
		files[i].leaf = entries[i]->leaf;
		if (entries[i]->dead)
			continue;
		foreach(lc, entries[i]->streams)
			*streams++ = lfirst_oid(lc);
		files[i].nstreams = list_length(entries[i]->streams);
	}
	return job;
}

void
sx_consumer_collect(Consumer *c, SxCollect collect)
{
	dsa_area   *area = sx_db_area(c->db);
	uint64		done;
	bool		alive;

	if (given == NIL)
		return;
	SpinLockAcquire(&c->db->mutex);
	done = c->db->jobs_done;
	alive = c->db->places[SX_HELPER].pid != 0;
	if (!alive)
		c->db->jobs_done = c->db->jobs_given;
	SpinLockRelease(&c->db->mutex);

	while (given != NIL)
	{
		GivenJob   *g = linitial(given);
		SxHelperJob *job = dsa_get_address(area, g->job);

		if (g->number >= done && alive)
			break;
		SX_STOP_POINT(helper_collected);
		crowded = g->number >= done || IS_CROWDED(job);
		rest_until = sx_now() + (CROWDED_SHARE - 1) * job->wall_us;
		given = list_delete_first(given);
		if (given != NIL)
			((GivenJob *) linitial(given))->at = sx_now();
		for (int i = 0; i < g->nviews; i++)
		{
			/* the helper has left it half done */
			if (g->number >= done)
				job->views[i].result = SX_PROCESS_FAILED;
			collect(c, g->owners[i], &job->views[i]);
		}
		dsa_free(area, g->job);
		pfree(g->owners);
		pfree(g);
	}
}

/* the helper need not compute it any more; what it has computed is still collected */
void
sx_consumer_unwanted(Consumer *c, void *owner)
{
	ListCell   *lc;

	foreach(lc, given)
	{
		GivenJob   *g = lfirst(lc);
		SxHelperJob *job = dsa_get_address(sx_db_area(c->db), g->job);

		for (int i = 0; i < g->nviews; i++)
			if (g->owners[i] == owner)
				job->views[i].unwanted = true;
	}
}

/* until nothing is given, unless it hangs */
void
sx_consumer_wait_helper(Consumer *c, SxCollect collect)
{
	for (;;)
	{
		sx_consumer_collect(c, collect);
		if (given == NIL || sx_consumer_helper_hangs())
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 50, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		sx_worker_check();
	}
}
