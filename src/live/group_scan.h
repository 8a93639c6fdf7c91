/*
 * group_scan.h
 *		Reading a continuous view for some of its groups only.
 */
#ifndef SX_GROUP_SCAN_H
#define SX_GROUP_SCAN_H

#include "live/live_read_internal.h"

/* Rows of a materialized table, complete: combined with what is live */
typedef struct SxGroupRows
{
	Oid			matid;
	int64		watermark;		/* of the view, as it was stored then */
	int			nrows;
	MinimalTuple *rows;
} SxGroupRows;

/*
 * While this is set, plans that are made read these rows in place of the table, and run with those that are
 * set then.  For the alerter alone: the plans are kept by nobody else.
 */
extern SxGroupRows *sx_group_rows;

extern void sx_group_scan_init(void);	/* at load */

/*
 * The rows of the groups of these live rows (found by live_changes.h), each group once, as they are now: in
 * the caller's transaction, as the view's owner, with the active snapshot.  In the current context.
 */
extern SxGroupRows *sx_groups_of_rows(Oid matid, int nrows, MinimalTuple *rows, const uint32 *hashes);
/* the rows of some blocks of the table, as they are now; *next: the block to go on with, 0 at the end */
extern SxGroupRows *sx_groups_of_blocks(Oid matid, BlockNumber first, int limit, BlockNumber *next);
/* these rows of the table alone, each once and as it is now */
extern SxGroupRows *sx_complete_rows(Oid matid, int nrows, MinimalTuple *rows, const uint32 *hashes);

/* ---- group_panes.c: views whose windows are put together from panes ---- */

extern bool sx_keeps_pane_rows(Oid matid);
/* all windows of these panes (rows of closed windows among them are left out) */
extern SxGroupRows *sx_groups_of_panes(Oid matid, int nrows, MinimalTuple *rows);

#endif							/* SX_GROUP_SCAN_H */
