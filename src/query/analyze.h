/*
 * analyze.h
 *		Checks a definition once, at CREATE, and finds its strategy and its stream.
 *
 * All refusals of definitions are raised here, each with SQLSTATE, reason and the
 * nearest form that works.
 */
#ifndef SX_ANALYZE_H
#define SX_ANALYZE_H

#include "catalog/definitions.h"

#include "nodes/parsenodes.h"

typedef struct SxAnalysis
{
	Query	   *query;			/* as analysed from the user's text, not rewritten */
	SxStrategy	strategy;
	Oid			streamid;
	List	   *keys;			/* merge: of TargetEntry *, the group keys in order (may be resjunk) ... */
	bool		session;		/* ... the last one is session() */
	List	   *aggrefs;		/* merge: of Aggref *, distinct ones (equal()) in targetlist and HAVING */
} SxAnalysis;

/*
 * stream_hint: option streamext.stream or InvalidOid.  Runs as the user who will own the
 * view: checks SELECT on every table and column, row security, relation kinds, volatility
 * and settings-dependence of functions, key types, mergeability.
 */
extern SxAnalysis *sx_analyze(Query *query, Oid stream_hint);
/* the same split for a stored query (no checks): used by view_info, plan and explain */
extern SxAnalysis *sx_analyze_stored(Oid queryid, Oid streamid);

/* settings that change what expressions mean, as "name=value" with the current values */
extern List *sx_pinned_settings(void);

/* refuses what cannot be a stream; used by create_stream and CREATE MATERIALIZED VIEW */
extern void sx_check_stream_relation(Oid relid);

#endif							/* SX_ANALYZE_H */
