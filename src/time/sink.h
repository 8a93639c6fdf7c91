/*
 * sink.h
 *		Appends closed windows to tables of the user's.
 */
#ifndef SX_SINK_H
#define SX_SINK_H

#include "catalog/sinks.h"
#include "live/merge.h"
#include "query/view_info.h"
#include "query/window_key.h"

/*
 * In the transaction that has written rows of the view and the position with this watermark: every window
 * that has closed since the last time goes to the view's sinks; and of those that were closed before,
 * the ones among those written (none: zeroed) to sinks that want corrections.  As the
 * view's owner (the caller is inside SxRunAs).  Without wait, a target that is locked is an ERROR.
 */
extern void sx_sinks_append(SxViewInfo *info, int64 watermark, SxWritten *written, bool wait);

/* would that work for a new sink? ERROR if not; as the view's owner */
extern void sx_sink_check(SxViewInfo *info, const SxSink *sink);

/* ---- for sink_sessions.c ---- */

/* INSERT INTO target (columns) SELECT columns FROM view, to which "v" is to be added */
extern char *sx_sink_insert_into(SxViewInfo *info, const SxSink *sink);
extern char *sx_sink_equality_of(Oid type);
extern char *sx_sink_relation_name(Oid relid);
/* SPI finds these rows, of the materialized table's type, by the name SX_CHANGED_NAME */
#define SX_CHANGED_NAME "streamext_changed"
extern void sx_sink_register_rows(SxViewInfo *info, Tuplestorestate *rows);

/* ---- sink_sessions.c ---- */

/* sessions that a sink has got and that will end later now */
extern void sx_sink_note_reopened(SxViewInfo *info, SxWindows *windows, SxSink *sink, SxWritten *written);
/* those that have closed since, up to closed_until; how many */
extern uint64 sx_sink_append_sessions(SxViewInfo *info, SxWindows *windows, SxSink *sink, int64 closed_until);

#endif							/* SX_SINK_H */
