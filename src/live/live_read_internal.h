/*
 * live_read_internal.h
 *		What the parts of the read node share: the planner part (live_read.c), the view
 *		cache and the statement's copy (live_read_statement.c), the executor node
 *		(live_read_exec.c) and its groups (live_read_groups.c).
 */
#ifndef SX_LIVE_READ_INTERNAL_H
#define SX_LIVE_READ_INTERNAL_H

#include "live/key_scan.h"
#include "live/live_read.h"
#include "live/live_state.h"
#include "query/window_key.h"

#include "nodes/execnodes.h"
#include "nodes/extensible.h"

/* ---- live_read_statement.c: the cache of views ---- */

/* one view, as one role sees it (the info checks rights on aggregates) */
typedef struct SxReadView
{
	Oid			matid;
	MemoryContext context;
	SxViewDef  *def;
	bool	   *exact;			/* [nkeys] equal keys are the same bytes */
	int			session_key;	/* -1: none */
	SxViewInfo *info;			/* made when first needed */
	SxWindows  *windows;		/* likewise; NULL: it has none */
	bool		built;			/* its position was seen to be ours */
	int			refs;
} SxReadView;

/* NULL: not the table of a continuous view; valid until the next call unless pinned */
extern SxReadView *sx_read_view(Oid matid);
extern SxViewInfo *sx_read_view_info(SxReadView *view);
extern SxWindows *sx_read_view_windows(SxReadView *view);
/*
 * Which windows are final goes by the watermark that is stored, as the statement that calls, or a new one, sees it:
 * after a crash rows are judged from there again, and what has been called final must stay so.
 * caller: fn_mcxt of the function that asks.
 */
extern int64 sx_read_watermark(SxReadView *view, MemoryContext caller);
extern int64 sx_stored_watermark(SxReadView *view, Snapshot snapshot);

/* ---- the statement ---- */

/* The first window that a statement puts together from panes; see live_read_panes.c */
typedef struct SxPaneBoundary
{
	bool		known;
	Datum		value;			/* of a type passed by value */
} SxPaneBoundary;

/*
 * Where the statement that calls keeps it; NULL: it does not read the view.  With the snapshot that it reads
 * with, and while it is not known the copies of live rows (SxLiveRequest *).
 */
extern SxPaneBoundary *sx_read_pane_boundary(SxReadView *view, MemoryContext caller, Snapshot *snapshot, List **requests);

extern void sx_read_statement_init(void);	/* at load */

typedef struct SxReadStatement SxReadStatement;

/* at the node's start: takes part in the statement's one copy; pins the view until its end */
extern SxReadStatement *sx_read_register(EState *estate, Oid matid, const bool *filtered,
										 const uint32 *hash, int *number);
extern SxReadView *sx_read_registered_view(SxReadStatement *stmt, int number);
/* the copy of this node's rows (made with the first call of any), checked; NULL: the table alone */
extern SxLiveRequest *sx_read_rows(SxReadStatement *stmt, int number, Relation mat);

/* ---- the plan ---- */

extern const CustomScanMethods sx_read_scan_methods;

/* a qual `key = value` in which value does not depend on the row */
typedef struct SxKeyFilter
{
	int			key;
	bool		runtime;		/* value depends on parameters of the plan */
	ExprState  *value;
	FmgrInfo	hashfn;
	Oid			collation;
} SxKeyFilter;

/*
 * CustomScan.custom_exprs is two lists: quals, then sort expressions.  custom_private:
 * numbers (below), then for each qual whether it may be tried on keys alone, the key filters
 * (SX_FILTER_FIELDS numbers each), and for the sort its operators, collations and nulls_first.
 */
enum
{
	SX_PRIVATE_MAT,				/* list of Oid */
	SX_PRIVATE_FLAGS,			/* list of int, see below */
	SX_PRIVATE_PREFILTER,		/* list of int, per qual */
	SX_PRIVATE_FILTERS,			/* list of int: qual, argument, key, runtime */
	SX_PRIVATE_FILTER_FUNCTIONS,	/* list of Oid */
	SX_PRIVATE_SORT_OPERATORS,
	SX_PRIVATE_SORT_COLLATIONS,
	SX_PRIVATE_SORT_NULLS_FIRST
};
#define SX_FILTER_FIELDS	4

enum
{
	SX_FLAG_STREAM,
	SX_FLAG_KEYS_SORT,
	SX_FLAG_NKEYS,
	SX_FLAG_SESSION_KEY,
	SX_FLAG_SUBPLANS			/* do quals or sort expressions have sub-selects? */
};

/* ---- live_read_groups.c ---- */

/* a group with live rows, or, without keys, a live row */
typedef struct SxReadGroup
{
	MinimalTuple live;			/* of all generations */
	MinimalTuple full;			/* together with its row in the table, and with results; NULL: not fetched yet */
	uint32		hash;
	int			next;			/* in the bucket; -1: last */
	const uint32 *keyhash;
	uint32		matched;		/* scan in which the child's row was met */
	/* sessions: see live_read_sessions.c */
	SxSpan		span;			/* of the live row */
	int			first;			/* of the group's live sessions, which stand together ... */
	int			run;			/* ... and there: how many */
	bool		absorbed;		/* part of another one's full row */
} SxReadGroup;

typedef struct SxReadGroups
{
	SxReadView *view;
	SxViewInfo *info;
	MemoryContext context;		/* groups and their rows: lives as long as the node */
	Relation	mat;
	Snapshot	snapshot;
	int			ngroups;
	SxReadGroup *groups;
	uint32		mask;
	int		   *buckets;
	uint32	   *keyhash;		/* [nkeys] scratch */
	/* for each key a bitmap of its hashes: most rows of the table fail at the first */
	int		   *order;			/* [norder] keys, those whose hash is cheap first; sessions have none */
	int			norder;
	int			nsame;			/* of these, the first ones: equal values are the same Datum, whose bits are hashed */
	uint8	  **bits;			/* [nkeys] */
	uint32		bitmask;
	int			natts;			/* so many columns of a row are asked for, here or above */
	int			combines;
	bool	   *results;		/* [nresults] which ones rows need; NULL: none */
	/* slots of the table's row type */
	TupleTableSlot *live;		/* a group's tuple */
	TupleTableSlot *probe;
	TupleTableSlot *second;
	TupleTableSlot *combined;	/* virtual */
	TupleTableSlot *table;		/* as the table's access method has it */
	SxKeyScan  *scan;			/* made when first needed */
} SxReadGroups;

extern SxReadGroups *sx_read_groups_create(EState *estate, SxReadView *view, SxLiveRequest *request,
										   Relation mat, MemoryContext parent);
extern void sx_read_groups_end(SxReadGroups *g);
/* rows need no results but those in these columns, as of pull_varattnos(); before any row is asked for */
extern void sx_read_groups_limit(SxReadGroups *g, Bitmapset *columns);
/* false: a row of the table has none; takes a few instructions, and runs nobody's code */
static inline bool sx_read_groups_possible(SxReadGroups *g, TupleTableSlot *row);
/* the group of a row of the table, or NULL; of sessions any that overlaps it; allocates in the current context */
extern SxReadGroup *sx_read_groups_find(SxReadGroups *g, TupleTableSlot *row);
/* fetches and combines the group's row of the table unless done; may mark others as absorbed; leaves scraps in the current context */
extern MinimalTuple sx_read_groups_complete(SxReadGroups *g, SxReadGroup *group);
/* the group of which the table has no row */
extern MinimalTuple sx_read_groups_alone(SxReadGroups *g, SxReadGroup *group);
/* the row of this key, complete: of a group, or of the table alone; NULL: there is none */
extern MinimalTuple sx_read_groups_now(SxReadGroups *g, TupleTableSlot *keys, uint32 hash);
/* row of the table + group, with results, in a slot that is valid as long as both and the current context */
extern TupleTableSlot *sx_read_groups_combine(SxReadGroups *g, TupleTableSlot *row, SxReadGroup *group);

/* after each combination: aggregates' scratch memory */
extern void sx_read_groups_combined(SxReadGroups *g);
/* a copy that lives as long as the groups, with results; scraps in the current context */
extern MinimalTuple sx_read_groups_keep(SxReadGroups *g, MinimalTuple row);

static inline uint32
sx_same_hash(Datum value, bool isnull)
{
	return isnull ? 0 : (uint32) (((uint64) value * UINT64CONST(0x9E3779B97F4A7C15)) >> 32);
}

static inline bool
sx_read_groups_has_bit(SxReadGroups *g, int key, uint32 hash)
{
	uint32		bit = hash & g->bitmask;

	return (g->bits[key][bit / 8] & (1 << (bit % 8))) != 0;
}

static inline bool
sx_read_groups_possible(SxReadGroups *g, TupleTableSlot *row)
{
	slot_getsomeattrs(row, g->natts);
	for (int i = 0; i < g->nsame; i++)
	{
		int			k = g->order[i];

		if (!sx_read_groups_has_bit(g, k, sx_same_hash(row->tts_values[k], row->tts_isnull[k])))
			return false;
	}
	return true;
}

/* ---- live_read_sessions.c ---- */

extern void sx_read_sessions_build(SxReadGroups *g, SxLiveRequest *request);
extern SxReadGroup *sx_read_sessions_find(SxReadGroups *g, uint32 hash, TupleTableSlot *row);
extern void sx_read_sessions_complete(SxReadGroups *g, SxReadGroup *group);

#endif							/* SX_LIVE_READ_INTERNAL_H */
