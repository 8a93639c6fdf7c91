/*
 * aggregate_state.h
 *		Partial aggregate states: combine and finalize by the aggregate's own functions.
 *
 * A state column has the aggregate's transition type; or streamext.state where that is
 * `internal`, or an array of numbers in which the server's own sum up: the serialized bytes, packed, and what
 * says whose they are (state_type.c).  Deserial functions trust their input, so nobody else can make values
 * of that type: its input function yields a value marked unusable (a restored dump).
 */
#ifndef SX_AGGREGATE_STATE_H
#define SX_AGGREGATE_STATE_H

#include "streamext.h"

#include "fmgr.h"
#include "nodes/primnodes.h"

typedef struct SxAgg SxAgg;		/* one aggregate with its functions looked up */

/*
 * From an Aggref of the analysed query (aggsplit simple).  Lives in mcxt.  Checks that the
 * current user may execute the aggregate and that the aggregate's owner may execute its
 * functions, as nodeAgg does; and, where the state is not internal, that the current user
 * may execute the combine and final functions too.
 */
extern SxAgg *sx_agg_from_aggref(Aggref *aggref, MemoryContext mcxt);
extern SxAgg *sx_agg_create(Oid aggfnoid, const Oid *argtypes, int nargs, Oid collation, MemoryContext mcxt);
extern Oid	sx_agg_function(SxAgg *agg);
extern Aggref *sx_agg_aggref(SxAgg *agg);	/* argument types and input collation */
extern Oid	sx_agg_storage_type(SxAgg *agg);	/* type of the state column */
extern Oid	sx_agg_result_type(SxAgg *agg);
extern Oid	sx_agg_partial_type(SxAgg *agg);	/* of what a partial plan puts out */
extern bool sx_agg_packed(SxAgg *agg);	/* state is kept as streamext.state */
/* has no final function and the storage type is the result type: the column is the result */
extern bool sx_agg_plain(SxAgg *agg);
/*
 * Is its result stored beside the state, in a column of its own?  So if a final function makes it, it is small, and the
 * aggregate is the server's own and bounded.  A user's final function may raise errors, for which there is no place when rows
 * are written, and may be replaced by another.
 */
extern bool sx_agg_stores_result(SxAgg *agg);
/* result_bound.c: can the server's own compute it, whatever its arguments come to? */
extern bool sx_result_is_bounded(Aggref *aggref);
/* are its arguments' types not told by its signature? */
extern bool sx_agg_is_polymorphic(Oid aggfnoid);

/*
 * What a partial plan (AGGSPLIT_INITIAL_SERIAL) puts out -> what the column stores.
 * For packed states makes a streamext.state; otherwise the value as it is.
 */
extern Datum sx_agg_wrap(SxAgg *agg, Datum partial, bool isnull);
/* result in CurrentMemoryContext, possibly one of the inputs; raises what the functions raise */
extern Datum sx_agg_combine(SxAgg *agg, Datum a, bool anull, Datum b, bool bnull, bool *isnull);
extern Datum sx_agg_finalize(SxAgg *agg, Datum state, bool statenull, bool *isnull);
/* frees what the functions left in the agg's scratch context; call once per batch */
extern void sx_agg_reset(SxAgg *agg);

/*
 * SQL-callable (src/sql/20_state.sql):
 *   type streamext.state (in, out, recv, send)
 *   streamext.combine(aggregate regprocedure, a anyelement, b anyelement) returns anyelement
 *   streamext.merge(aggregate regprocedure, state anyelement), an aggregate: combines many states
 *   streamext.finalize(aggregate regprocedure, state "any", result anyelement
 *                      [, VARIADIC argtypes "any"]) returns anyelement
 * In the text of the materialized table's upsert and of users' views.  `result` and
 * `argtypes` are NULL constants that carry types only (argtypes are the aggregate's
 * actual argument types; needed only when its signature is polymorphic or, with an internal
 * state, has "any").  The call's collation is the aggregate's input collation.
 */

#endif							/* SX_AGGREGATE_STATE_H */
