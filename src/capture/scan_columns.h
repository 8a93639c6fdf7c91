/*
 * scan_columns.h
 *		What the scans that stand in for a stream have to fill, and what they give.
 */
#ifndef SX_SCAN_COLUMNS_H
#define SX_SCAN_COLUMNS_H

#include "nodes/pathnodes.h"
#include "nodes/pg_list.h"

/* the rel's columns that a scan must fill: a list of their numbers, in their order */
extern List *sx_columns_needed(RelOptInfo *rel, List *tlist, List *quals);
/* the last of them; 0: there is none */
extern int	sx_last_column(List *columns);
/* all columns, so that nothing has to be projected; tlist where that is not possible */
extern List *sx_whole_rows(PlannerInfo *root, RelOptInfo *rel, List *tlist);

#endif							/* SX_SCAN_COLUMNS_H */
