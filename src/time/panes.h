/*
 * panes.h
 *		Windows made of panes that close: they get rows of their own.
 *
 * See query/panes.h.  Which windows have them is stored with the position (closed_until, which never moves
 * back), and all that changes them happens in the transaction that stores it: so whoever sees a position sees the
 * rows of exactly these windows, each of which is the sum of its panes.
 */
#ifndef SX_TIME_PANES_H
#define SX_TIME_PANES_H

#include "live/merge.h"

/*
 * After rows (of panes, of this view) have been merged into the table: adds them to their windows that have
 * rows of their own already, and are within the view's retention.  For sinks these are what was written.
 * Nothing for other views.  As the view's owner, as below.
 */
extern void sx_panes_merge_late(SxViewInfo *info, Tuplestorestate *rows, int64 closed_until, int64 removed_until,
								SxWritten *written);
/* windows that have closed in between get rows of their own */
extern void sx_panes_close(SxViewInfo *info, int64 from, int64 to);
/* where that has come to with this watermark */
extern int64 sx_panes_closed_until(const SxViewInfo *info, int64 watermark, int64 before);

#endif							/* SX_TIME_PANES_H */
