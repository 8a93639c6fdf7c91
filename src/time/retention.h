/*
 * retention.h
 *		Windows that a view does not keep any longer.
 *
 * A view with option retention forgets windows that closed longer ago than that, by event time.  What it has
 * forgotten is stored with its position and never comes back: first the windows take no more rows, from the
 * seal of a generation on; when that generation is flushed no live state can hold them, and their rows are
 * removed from the table, in batches.
 */
#ifndef SX_RETENTION_H
#define SX_RETENTION_H

#include "query/view_info.h"

/* windows that were closed by then are forgotten; never before what it was; def: as it is now, info may be older */
extern int64 sx_retention_until(const SxViewDef *def, const SxViewInfo *info, const SxStreamTime *time,
								int64 watermark, int64 before);
/* rows removed at a time */
#define SX_RETENTION_ROWS	1000

/*
 * Removes rows of such windows from the table, so many, in the caller's transaction.  True: no more are left,
 * or the table is locked.
 */
extern bool sx_retention_remove(SxViewInfo *info, int64 until);

#endif							/* SX_RETENTION_H */
