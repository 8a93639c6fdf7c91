/*
 * sink.h
 *		Appends closed windows to tables of the user's.
 */
#ifndef SX_SINK_H
#define SX_SINK_H

#include "catalog/sinks.h"
#include "query/view_info.h"

#include "utils/tuplestore.h"

/*
 * In the transaction that has written rows of the view and the position with this watermark: every window
 * that has closed since the last time goes to the view's sinks; and of those that were closed before,
 * the ones among `rows` (of the materialized table; may be NULL) to sinks that want corrections.  As the
 * view's owner (the caller is inside SxRunAs).  Without wait, a target that is locked is an ERROR.
 */
extern void sx_sinks_append(SxViewInfo *info, int64 watermark, Tuplestorestate *rows, bool wait);

/* would that work for a new sink? ERROR if not; as the view's owner */
extern void sx_sink_check(SxViewInfo *info, const SxSink *sink);

#endif							/* SX_SINK_H */
