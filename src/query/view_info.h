/*
 * view_info.h
 *		What a process needs to know of one view to work on its rows: the row type of
 *		the materialized table, how keys compare, how states combine.
 *
 * A "row" everywhere below is a row of the materialized table: nkeys key columns, then
 * one column per aggregate (merge), or the output columns (append, nkeys = 0 and
 * naggs = 0).  A view without GROUP BY has one key column of ours, boolean, always true.
 *
 * An aggregate's column is its state; or its result, for each one for which sx_agg_stores_result(): what its final
 * function makes of the state.  Their states follow at the end, where who reads the table need not go.
 * A row in the table has results, so that it can be read as it is.  Everywhere else they are NULL: whoever combines
 * rows leaves them so, whoever stores rows or hands them to a reader computes them, by sx_compute_results() or in
 * SQL (merge.c).  Panes have none, as windows are put together from states.
 */
#ifndef SX_VIEW_INFO_H
#define SX_VIEW_INFO_H

#include "catalog/definitions.h"
#include "query/aggregate_state.h"
#include "query/session.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "executor/tuptable.h"

typedef struct SxViewInfo
{
	MemoryContext context;		/* all of it lives here */
	SxViewDef  *def;
	TupleDesc	desc;			/* of the materialized table */
	int			nkeys;
	int			session_key;	/* the last key: sessions, see session.h; -1: none */
	TypeCacheEntry *session_type;	/* of its range */
	int64		session_gap;	/* as spans are */
	int			closed_key;		/* the last key: windows that have closed, or panes, see panes.h; -1: none */
	int			naggs;
	SxAgg	  **aggs;			/* [naggs], of columns nkeys .. nkeys + naggs - 1 */
	int		   *states;			/* [naggs] the column of the state: the same, or a later one */
	int			nresults;
	int		   *results;		/* [nresults] aggregates whose own column is the result */
	FmgrInfo   *hashfns;		/* [nkeys] */
	FmgrInfo   *eqfns;			/* [nkeys] default btree equality */
	Oid		   *collations;		/* [nkeys] */
	FmgrInfo   *cmpfns;			/* [nkeys] likewise; made when first needed */
	SxStreamTime time;			/* of its stream, when this was made */
	int			window_key;		/* the key that is a window of event time; -1: none */
	Expr	   *window;			/* see window_key.h */
	TupleDesc	keydesc;		/* the key columns alone, as the unique index has them */
	TupleTableSlot *flat;		/* scratch of sx_flatten_row */
	struct SxMerge *merge;		/* statement and slots of live/merge.c, made when first needed */
} SxViewInfo;

/* are sessions of event time the view's windows, which close?  (A window beside them takes precedence.) */
static inline bool
sx_sessions_close(const SxViewInfo *info)
{
	return info->session_key >= 0 && info->session_key == info->window_key;
}

/* from the catalogs, in a transaction; permissions of aggregates are checked as the current user */
extern SxViewInfo *sx_view_info_create(const SxViewDef *def, MemoryContext parent);
extern void sx_view_info_destroy(SxViewInfo *info);

/* hash of one key column; NULL hashes to 0, and so do sessions: they are found by what they overlap */
extern uint32 sx_key_hash(SxViewInfo *info, int key, Datum value, bool isnull);
/* combined hash over all key columns, from the per-column hashes */
extern uint32 sx_row_hash(const uint32 *keyhashes, int nkeys);
/* sessions aside: whether they are one, sx_spans_meet() says; NULL equals NULL; may run user code */
extern bool sx_keys_equal(SxViewInfo *info, TupleTableSlot *a, TupleTableSlot *b);
/* sessions aside: some order of rows whose keys are not equal; may run user code */
extern int	sx_keys_compare(SxViewInfo *info, TupleTableSlot *a, TupleTableSlot *b);
/* the session of a row */
extern SxSpan sx_row_span(SxViewInfo *info, TupleTableSlot *row);
/*
 * Combines the states of two rows with equal keys into `into` (a virtual slot: keys from a,
 * of sessions the union; no results; values in CurrentMemoryContext).
 */
extern void sx_combine_rows(SxViewInfo *info, TupleTableSlot *a, TupleTableSlot *b, TupleTableSlot *into);
/*
 * Fills in the results of the row in a virtual slot that is ours, in CurrentMemoryContext; wanted: [nresults], those
 * that are not are left NULL; NULL: all.
 */
extern void sx_compute_results(SxViewInfo *info, TupleTableSlot *row, const bool *wanted);
/* a self-contained copy: nothing toasted out of line, nothing expanded */
extern MinimalTuple sx_flatten_row(SxViewInfo *info, TupleTableSlot *slot);
/* would the key fit the unique index of the materialized table? */
extern bool sx_key_fits(SxViewInfo *info, TupleTableSlot *slot);

#endif							/* SX_VIEW_INFO_H */
