/*
 * lateness.h
 *		Rows that come when the windows they belong to are closed.
 */
#ifndef SX_LATENESS_H
#define SX_LATENESS_H

#include "capture/delta_scan.h"
#include "query/view_info.h"
#include "query/window_key.h"
#include "time/late_sessions.h"

/* One view's judge; lives in info's context */
typedef struct SxLateness
{
	SxWindows  *windows;
	SxWindows  *removed;		/* past the view's retention */
	SxLateSessions *sessions;	/* which are the windows; NULL: they are others */
	SxBatchLate rows;			/* what batches are asked for and say */
	SxStreamTime time;
	int64		watermark;		/* by which rows are judged */
	bool		any;			/* a row was partly late */
} SxLateness;

/* NULL: the view has no windows; as the view's owner */
extern SxLateness *sx_lateness_create(SxViewInfo *info);
/*
 * Before a batch: rows are judged by the watermark at the position before it, and by the stream's present
 * settings.  Late rows whose addresses are wanted are kept in mcxt.
 */
extern void sx_lateness_begin(SxLateness *l, const SxStreamTime *time, int64 watermark, int64 removed_until,
							  MemoryContext mcxt);
/* no row from here on would be late */
extern int64 sx_lateness_before(const SxStreamTime *time, int64 watermark, int64 removed_until);
/* does this group of the batch belong to a closed window that takes no more rows? */
extern bool sx_lateness_leaves_out(SxLateness *l, SxViewInfo *info, TupleTableSlot *row);
/*
 * Of a session, of those that batches ask for, the latest first: is it late?  If not, it counts from then on.
 * Between sx_late_sessions_open and _close.
 */
extern bool sx_lateness_of_session(SxLateness *l, TupleTableSlot *row);
/* what a late row's dead letter says */
extern char *sx_lateness_message(const SxLateness *l);
/* of the batch that was run */
extern void sx_lateness_count(const SxLateness *l, SxRowCounts *counts);

#endif							/* SX_LATENESS_H */
