/*
 * watermark.h
 *		How far a stream's event time has come at a view's position.
 *
 * The watermark is the latest event time consumed, less the stream's delay; it says that earlier rows are
 * no longer expected.  Numbers are as in capture/event_time.h.
 */
#ifndef SX_WATERMARK_H
#define SX_WATERMARK_H

#include "capture/delta_scan.h"
#include "catalog/definitions.h"

struct SxViewInfo;

/* later event times do not move the watermark: the clock and max_future, as they are now */
extern int64 sx_time_limit(const SxStreamTime *time);
/* asks a batch for its event times; nothing if the stream has none */
extern void sx_ask_times(SxBatch *batch, const SxStreamTime *time);
/* the watermark behind rows of which this is the latest; never backwards */
extern int64 sx_watermark_after(const SxStreamTime *time, int64 watermark, int64 last);
/* windows that are open between this watermark and the latest event time, for status; -1: there are none to count */
extern int64 sx_open_windows(struct SxViewInfo *info, int64 watermark);
/*
 * The latest event time up to the limit among the rows of the stream that the active snapshot sees; by a
 * query, as the current user.  Not known if he may not read the column.
 */
extern int64 sx_latest_in_history(Oid streamid, const SxStreamTime *time);

#endif							/* SX_WATERMARK_H */
