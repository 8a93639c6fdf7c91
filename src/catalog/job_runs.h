/*
 * job_runs.h
 *		Runs of scheduled jobs: streamext.job_run.
 */
#ifndef SX_JOB_RUNS_H
#define SX_JOB_RUNS_H

#include "postgres.h"

/* as the current user; returns the id */
extern int64 sx_catalog_job_started(const char *job, const char *run_for);
typedef enum SxJobFound
{
	SX_JOB_FINISHED,			/* now */
	SX_JOB_UNKNOWN,				/* of no role that the current user has */
	SX_JOB_WAS_FINISHED
} SxJobFound;
/* rows: -1, not known; error: NULL, it succeeded */
extern SxJobFound sx_catalog_job_finished(int64 id, int64 rows, const char *sqlstate, const char *error);

#endif							/* SX_JOB_RUNS_H */
