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

/* windows that were closed by then are forgotten; never before what it was */
/* def: as it is now; info may be older */
extern int64 sx_retention_until(const SxViewDef *def, const SxViewInfo *info, const SxStreamTime *time,
								int64 watermark, int64 before);
/*
 * Removes rows of such windows from the table, at most so many; returns how many there were.  In the
 * caller's transaction, as the view's owner.
 */
extern uint64 sx_retention_remove(SxViewInfo *info, int64 until, int limit);

#endif							/* SX_RETENTION_H */
