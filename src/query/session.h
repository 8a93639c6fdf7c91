/*
 * session.h
 *		Session windows: the group key session(ts, gap), and ranges as spans of numbers.
 *
 * A row alone is the session [ts, ts + gap).  Rows of one group whose spans overlap are one
 * session; spans that only touch are two, because the rows are then a whole gap apart.
 */
#ifndef SX_SESSION_H
#define SX_SESSION_H

#include "streamext.h"

#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "utils/typcache.h"

/* a session's range: microseconds, days or numbers; rows without a time are one session, NULL */
typedef struct SxSpan
{
	bool		isnull;
	int64		lower;
	int64		upper;			/* exclusive */
} SxSpan;

/* session() may be called: set around our own plans, where ranges are put together afterwards */
extern bool sx_session_allowed;

/* a call of streamext.session() */
extern bool sx_is_session_call(Node *node);
/* refuses session() wherever it is not a group key, and what cannot stand beside it */
extern void sx_check_session(Query *query, List *keys);

/* of a session key, for people, and in the numbers of its spans; -1: it is no constant any more */
extern char *sx_session_gap(TargetEntry *key);
extern int64 sx_session_gap_number(TargetEntry *key);

/* a session's range as a span, and back; type: of the range */
extern SxSpan sx_span_of(TypeCacheEntry *type, Datum range, bool isnull);
extern Datum sx_span_range(TypeCacheEntry *type, const SxSpan *span);
/* [from, infinity) */
extern Datum sx_span_from(TypeCacheEntry *type, int64 from);
/* a bound of a range as a number */
extern int64 sx_span_point(TypeCacheEntry *type, Datum value);
/* does any range of this type, a session or not, end at or before the point?  The empty one does not. */
extern bool sx_span_ends_by(TypeCacheEntry *type, Datum range, int64 point);

/* are rows of these spans, otherwise of one group, one session? */
static inline bool
sx_spans_meet(const SxSpan *a, const SxSpan *b)
{
	if (a->isnull || b->isnull)
		return a->isnull && b->isnull;
	return a->lower < b->upper && b->lower < a->upper;
}

/* the span from the beginning of the first to the end of the last */
static inline SxSpan
sx_span_union(const SxSpan *a, const SxSpan *b)
{
	SxSpan		result = *a;

	result.lower = Min(a->lower, b->lower);
	result.upper = Max(a->upper, b->upper);
	return result;
}

#endif							/* SX_SESSION_H */
