/*
 * stop_points.h
 *		Hooks for fault injection, in test builds only (make SX_TESTING=1).
 *
 * SX_STOP_POINT(name) marks a place between two changes of state.  From SQL a point can be
 * armed (stop_points.c): at its n-th hit the process then crashes, raises an error, ends, or
 * waits to be released.  Names and allowed actions stand in stop_points_list.h.
 *
 * In other builds the macros are nothing.  In test builds an unarmed point costs one read of
 * shared memory.
 *
 * fail_points.c makes the n-th allocation, table write, WAL read … fail; it needs no marks
 * in the sources.
 */
#ifndef SX_STOP_POINTS_H
#define SX_STOP_POINTS_H

#ifdef SX_TESTING

#include "port/atomics.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#define SX_ANY			true
#define SX_NO_ERROR		false

typedef enum SxStopPoint
{
#define SX_POINT(name, actions) SX_STOP_##name,
#include "testing/stop_points_list.h"
#undef SX_POINT
	SX_STOP_POINTS
} SxStopPoint;

typedef enum SxStopAction
{
	SX_ACTION_NONE,
	SX_ACTION_COUNT,
	SX_ACTION_CRASH,			/* SIGKILL: all of shared memory is lost */
	SX_ACTION_ABORT,
	SX_ACTION_ERROR,
	SX_ACTION_ERRORS,			/* until it is released */
	SX_ACTION_TERMINATE,		/* FATAL: this process ends, shared memory stays */
	SX_ACTION_WAIT
} SxStopAction;

typedef struct SxArmedPoint
{
	SxStopAction action;
	Oid			viewid;			/* InvalidOid: any */
	char		process[16];	/* consumer, flusher …, or backend; empty: any */
	int			skip;			/* hits before it fires */
	pid_t		session;		/* released when it ends; 0: stays */
	uint64		hits;			/* since it was armed */
	uint64		fired;
	uint32		ticket;			/* changed by a release */
	int			waiting;		/* processes */
} SxArmedPoint;

#define SX_MAX_SITES	4096

typedef struct SxFailing
{
	Oid			dboid;			/* InvalidOid: any */
	char		process[16];	/* empty: any worker */
	int64		nth;			/* this one fails; 0: the first of each call site */
	int			pause_ms;		/* between two failures */
	int64		seen;
	int64		fired;
	TimestampTz last;
	int			nsites;			/* used ones */
	uintptr_t	site[SX_MAX_SITES]; /* a hash table; those that failed */
} SxFailing;

typedef struct SxTesting
{
	pg_atomic_uint32 armed;		/* stop points */
	pg_atomic_uint32 failing;	/* kind of failure, see fail_points.c; 0: none */
	slock_t		mutex;			/* for the rest */
	SxFailing	fail;
	SxArmedPoint points[SX_STOP_POINTS];
} SxTesting;

extern SxTesting *sx_testing;

extern Size sx_testing_size(void);
extern void sx_testing_init(void);	/* in shmem_startup_hook */
extern void sx_stop_point(SxStopPoint point, Oid viewid);
extern bool sx_testing_process_is(const char *wanted);

#define SX_STOP_POINT_OF(name, viewid) \
	do { \
		if (sx_testing != NULL && pg_atomic_read_u32(&sx_testing->armed) != 0) \
			sx_stop_point(SX_STOP_##name, (viewid)); \
	} while (0)

#else

#define SX_STOP_POINT_OF(name, viewid) ((void) 0)

#endif							/* SX_TESTING */

#define SX_STOP_POINT(name) SX_STOP_POINT_OF(name, InvalidOid)

#endif							/* SX_STOP_POINTS_H */
