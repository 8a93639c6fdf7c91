/*
 * helper.h
 *		What the consumer gives to its helper, a second process: rows of a large transaction, to be computed for some views
 *		before it is consumed.
 *
 * A job is one piece of live memory.  The consumer makes it and frees it when it is done, or when the helper is gone; then
 * nothing of it counts.  Rows go into hidden live state, which belongs to the consumer as well, and which the helper alone
 * writes: one job after the other.
 */
#ifndef SX_HELPER_H
#define SX_HELPER_H

#include "worker/worker_internal.h"

/* A view in it */
typedef struct SxHelperView
{
	Oid			viewid;
	Oid			matid;
	Oid			streamid;
	SxStreamTime time;			/* of the stream */
	dsa_pointer hidden;			/* SxView with an open generation */
	uint64		number;			/* of that; never used again */
	volatile bool unwanted;		/* the result is */
	/* result */
	SxProcessResult result;
	SxBatchTimes times;
	uint64		nrows;			/* of the job */
	int			slow_ms;		/* SX_PROCESS_SLOW: what it took */
} SxHelperView;

/* A file that the rows lie in, as the consumer knows it */
typedef struct SxHelperFile
{
	SxFile		file;
	Oid			leaf;
	uint32		nstreams;		/* so many of the OIDs */
} SxHelperFile;

typedef struct SxHelperJob
{
	uint64		nrows;
	uint32		nviews;
	uint32		nruns;
	uint32		nfiles;
	uint32		nstreams;
	/* what it took */
	int64		wall_us;
	int64		cpu_us;
	SxHelperView views[FLEXIBLE_ARRAY_MEMBER];
	/* runs, with numbers of files; files; OIDs of streams, of one file after the other */
} SxHelperJob;

static inline SxRun *
sx_job_runs(SxHelperJob *job)
{
	return (SxRun *) ((char *) job + MAXALIGN(offsetof(SxHelperJob, views) + sizeof(SxHelperView) * job->nviews));
}

static inline SxHelperFile *
sx_job_files(SxHelperJob *job)
{
	return (SxHelperFile *) ((char *) sx_job_runs(job) + MAXALIGN(sizeof(SxRun) * job->nruns));
}

static inline Oid *
sx_job_streams(SxHelperJob *job)
{
	return (Oid *) ((char *) sx_job_files(job) + MAXALIGN(sizeof(SxHelperFile) * job->nfiles));
}

/* of a job with these numbers */
static inline Size
sx_job_size(SxHelperJob *job)
{
	return (Size) ((char *) sx_job_streams(job) - (char *) job) + sizeof(Oid) * job->nstreams;
}

#endif							/* SX_HELPER_H */
