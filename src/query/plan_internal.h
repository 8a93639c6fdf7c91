/*
 * plan_internal.h
 *		Shared by plan.c (building delta plans) and plan_run.c (locking and running them).
 */
#ifndef SX_PLAN_INTERNAL_H
#define SX_PLAN_INTERNAL_H

#include "query/plan.h"

#include "lib/ilist.h"
#include "nodes/plannodes.h"

typedef enum SxPlanVariant
{
	SX_PLAN_FEW,				/* a handful of rows */
	SX_PLAN_MANY,				/* a load */
	SX_PLAN_HISTORY,			/* all rows, with ordinary paths; never kept */
	SX_PLAN_RANGES				/* a part of history; never kept */
} SxPlanVariant;

#define SX_PLAN_KEPT	2		/* variants that are kept */

typedef struct SxBuiltPlan
{
	MemoryContext context;		/* NULL: not built */
	PlannedStmt *stmt;
	List	   *relations;		/* Oids to lock before a run: tables, then indexes; not the stream */
	Bitmapset  *columns;		/* of the stream, that a delta scan needs */
} SxBuiltPlan;

struct SxPlan
{
	dlist_node	node;			/* in the process's list, for invalidations */
	SxViewInfo *info;
	int			own_key;		/* the column that no plan puts out, but we do; -1: none */
	bool		own_value;		/* and its value */
	const Datum *from;			/* history is of rows with from <= event time < to only; NULL: no bound */
	const Datum *to;
	bool		stale;			/* set by invalidations; the plans are dropped at the next use */
	SxBuiltPlan plans[SX_PLAN_KEPT];
};

/* plan.c */
/* part: of SX_PLAN_RANGES */
extern void sx_plan_build(SxPlan *plan, SxPlanVariant variant, const SxPartSize *part, SxBuiltPlan *result);
/* the stored query as it is planned, before rewriting */
extern Query *sx_plan_query(SxPlan *plan, SxPlanVariant variant);

/* plan_run.c */
extern void sx_plan_forget(SxBuiltPlan *built);

#endif							/* SX_PLAN_INTERNAL_H */
