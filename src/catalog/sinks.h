/*
 * sinks.h
 *		Tables that closed windows are appended to: streamext.sink.
 */
#ifndef SX_SINKS_H
#define SX_SINKS_H

#include "catalog/definitions.h"

#include "utils/jsonb.h"

typedef struct SxSink
{
	Oid			viewid;
	Oid			target;
	bool		corrections;	/* a closed window that changes is appended again */
	int64		closed_until;	/* windows closed by then have been appended, or were there before */
	int64		rows;			/* appended */
	Jsonb	   *reopened;		/* sessions passed on that are open again; NULL: none; see time/sink_sessions.c */
	bool		reopened_changed;
} SxSink;

/* of SxSink * */
extern List *sx_catalog_sinks(Oid viewid);
extern List *sx_catalog_sinks_into(Oid target);
extern void sx_catalog_insert_sink(const SxSink *sink);
extern void sx_catalog_update_sink(const SxSink *sink);
extern bool sx_catalog_delete_sink(Oid viewid, Oid target);	/* false: there was none */
extern void sx_catalog_delete_sinks(Oid viewid);

#endif							/* SX_SINKS_H */
