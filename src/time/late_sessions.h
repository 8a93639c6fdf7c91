/*
 * late_sessions.h
 *		Is a row late for the session that it belongs to?
 */
#ifndef SX_LATE_SESSIONS_H
#define SX_LATE_SESSIONS_H

#include "query/view_info.h"
#include "query/window_key.h"

typedef struct SxLateSessions SxLateSessions;

/* the end of a live session of this row's group that contains the point; PG_INT64_MIN: there is none */
typedef int64 (*SxLiveEnd) (void *arg, TupleTableSlot *row, int64 point);

/* lives in info's context */
extern SxLateSessions *sx_late_sessions_create(SxViewInfo *info);
/* before a batch: what was accepted of an earlier one is forgotten */
extern void sx_late_sessions_begin(SxLateSessions *s, MemoryContext mcxt);
/* tries the locks on the view's table that looking takes; false: not free */
extern bool sx_late_sessions_lock(SxLateSessions *s);
/*
 * In a transaction, with the active snapshot and these locks, as the view's owner, between open and close: live
 * may be NULL.
 */
extern void sx_late_sessions_open(SxLateSessions *s, SxLiveEnd live, void *arg);
extern void sx_late_sessions_close(SxLateSessions *s);
/* windows: which sessions are closed */
extern bool sx_late_sessions_is_late(SxLateSessions *s, SxWindows *windows, TupleTableSlot *row);
/* the row counts, for those that are asked for later in the batch */
extern void sx_late_sessions_accept(SxLateSessions *s, TupleTableSlot *row);

#endif							/* SX_LATE_SESSIONS_H */
