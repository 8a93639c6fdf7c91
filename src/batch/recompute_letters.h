/*
 * recompute_letters.h
 *		Dead letters of windows that are computed anew: afterwards they are the rows that were left out.
 */
#ifndef SX_RECOMPUTE_LETTERS_H
#define SX_RECOMPUTE_LETTERS_H

#include "query/row_filter.h"
#include "query/view_info.h"
#include "query/window_key.h"

/* Windows from one to before another; those between from and until are computed now */
typedef struct SxWindowRange
{
	Datum		from;
	Datum		until;
	bool		is_last;		/* until is where all of it ends */
} SxWindowRange;

typedef struct SxLeftOut SxLeftOut;

/*
 * Raises an error if a dead letter belongs to windows of the range and to others: it would be counted in these
 * alone, or twice when it is retried.
 */
extern void sx_letters_check(SxViewInfo *info, SxWindows *windows, Datum from, Datum to);

/* for rows with an event time from first to before end, in the current context */
extern SxLeftOut *sx_left_out_create(SxViewInfo *info, int64 first, int64 end);
/* an SxInvalidRowFn, of SxLeftOut */
extern void sx_left_out_add(void *arg, TupleTableSlot *row, const char *sqlstate, const char *message);
/* these rows become the dead letters of the range; destroys it */
extern void sx_left_out_keep(SxLeftOut *out, SxWindows *windows, const SxWindowRange *range);

#endif							/* SX_RECOMPUTE_LETTERS_H */
