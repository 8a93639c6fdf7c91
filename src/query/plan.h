/*
 * plan.h
 *		Delta plans: the view's own plan over just a batch of rows, as a partial aggregate.
 *
 * The stream's paths give way to the delta scan (set_rel_pathlist_hook) and the one Agg
 * path becomes AGGSPLIT_INITIAL_SERIAL (create_upper_paths_hook).  The finished plan is
 * checked: top node, column types, no other scan of the stream.
 */
#ifndef SX_PLAN_H
#define SX_PLAN_H

#include "capture/delta_scan.h"
#include "capture/range_scan.h"
#include "query/view_info.h"

typedef struct SxPlan SxPlan;

/* a row of the materialized table (a virtual slot, states already wrapped); valid during the call,
 * which runs in the memory context that was current when the run began */
typedef void (*SxRowSink) (void *arg, TupleTableSlot *row);

/*
 * The plans of a view, made when first needed and again after an invalidation that
 * concerns them; lives in info->context.
 */
extern SxPlan *sx_plan_create(SxViewInfo *info);
/* does it read other relations than the stream? (in a transaction) */
extern bool sx_plan_has_lookups(SxPlan *plan);
/* does each row that the conditions on the stream let through come to one group?  When it has run */
extern bool sx_plan_keeps_rows(SxPlan *plan);
/* the stream's columns that it needs, added to the set; none as long as it has not run */
extern Bitmapset *sx_plan_columns(SxPlan *plan, Bitmapset *columns);
/*
 * Locks the lookups' tables without waiting; false: one is not free (*blocked_by says which).
 * The stream itself is locked by sx_batch_lock.
 */
extern bool sx_plan_lock(SxPlan *plan, bool wait, Oid *blocked_by);
/*
 * Runs over a batch.  In a transaction with an active snapshot, as the view's owner, under the
 * pinned settings: see SxRunAs.  Zero rows are allowed (and yield the one row without GROUP BY).
 */
extern void sx_plan_run(SxPlan *plan, SxBatch *batch, SxRowSink sink, void *arg);
/* runs over all rows of the stream that the active snapshot sees, with ordinary paths; started(arg)
 * is called when the plan has opened all that it will read */
extern void sx_plan_run_history(SxPlan *plan, void (*started) (void *arg), SxRowSink sink, void *arg);
/* what the planner thinks that this costs; likewise as the owner */
extern double sx_plan_history_cost(SxPlan *plan);
/* What is thought of a part of history before it is read */
typedef struct SxPartSize
{
	double		blocks;
	double		rows;
	double		groups;			/* 0: as the planner thinks */
} SxPartSize;
/* to how many groups it thinks that a part of history comes; 0: keys are computed; likewise */
extern double sx_plan_range_groups(SxPlan *plan, const SxPartSize *part);
/* runs over a part of history; a group may come several times if it is read in parallel */
extern void sx_plan_run_ranges(SxPlan *plan, SxRanges *ranges, const SxPartSize *part, SxRowSink sink, void *arg);
/* of the plan that runs now, as it stands; -1: cannot be told */
extern double sx_plan_groups_so_far(void);
/* the same over rows with from <= event time < to, of the event time's type; NULL: no bound */
extern void sx_plan_run_between(SxPlan *plan, const Datum *from, const Datum *to, SxRowSink sink, void *arg);
/* for EXPLAIN-like output: the delta plan as text */
extern char *sx_plan_explain(SxPlan *plan);

/*
 * The view owner's identity, SECURITY_RESTRICTED_OPERATION, the pinned settings and a safe
 * search_path; around everything that may run a view's code.  Begin and End in pairs; an error
 * in between is undone by the transaction's abort.
 */
typedef struct SxRunAs
{
	Oid			save_userid;
	int			save_sec_context;
	int			save_nestlevel;
} SxRunAs;
extern void sx_run_as_begin(SxRunAs *r, const SxViewDef *def);
/* within it, for what a table's owner has chosen: functions of her types; the settings stay */
extern void sx_run_as_table_owner(SxRunAs *r, Oid relid);
extern void sx_run_as_end(SxRunAs *r);
extern Oid	sx_table_owner(Oid relid);

/* planner hooks of delta plans: chained by streamext.c at load */
extern void sx_plan_init(void);

#endif							/* SX_PLAN_H */
