/*
 * panes.h
 *		Views that group by hop(): states of panes instead of states of windows.
 *
 * A pane is a stretch of time that lies in the same windows, one slide long; its key is the start of the
 * last of them.  A row changes the state of one pane, whatever number of windows it belongs to.  Once windows
 * have closed they get rows of their own in the materialized table, made of their panes (time/panes.h); the
 * others are put together when they are read.  The table's last key, `closed`, says what a row is.
 *
 * That needs windows that close and then take late rows in (late_rows = merge): where late rows are left
 * out, a row may count for some windows of its pane and not for others.  All other queries with hop() or
 * cumulate() keep a state per window.
 */
#ifndef SX_PANES_H
#define SX_PANES_H

#include "query/analyze.h"
#include "query/view_info.h"

#include "nodes/primnodes.h"

/* does a view with this query keep panes? */
extern bool sx_keeps_panes(SxAnalysis *a);
/* in delta plans, in place of the key that is hop(): its pane */
extern Expr *sx_pane_of_key(Expr *key);
/*
 * All windows, in the columns of the materialized table: rows of closed windows, and panes put together.
 * To stand in a view's FROM where the table stands otherwise.
 */
extern Query *sx_panes_query(SxAnalysis *a, Oid matid);
/* SELECT of the panes before $1, and unless first from $2 on, by the other keys and time */
extern char *sx_panes_in_order(SxViewInfo *info, bool first);

#endif							/* SX_PANES_H */
