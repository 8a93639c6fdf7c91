/*
 * live_changes.h
 *		What the alerter reads of a view's live state: the entries that cycles changed, or all of them
 *		part by part.
 */
#ifndef SX_LIVE_CHANGES_H
#define SX_LIVE_CHANGES_H

#include "live/live_state.h"

/* how far the alerter has come with one incarnation of a view's live state */
typedef struct SxLiveTrack
{
	bool		live;			/* there is such a state; else the rest means nothing */
	uint32		generation;		/* of the consumer */
	uint64		incarnation;
	uint64		cycle;			/* changes up to this one are read ... */
	uint64		part_cycle;		/* ... and of this one so many */
	uint32		part;
} SxLiveTrack;

/* where a look at all entries goes on */
typedef struct SxLiveCursor
{
	uint64		gen;
	uint32		nbuckets;		/* of that generation, when we looked; 0: not yet */
	uint32		bucket;
} SxLiveCursor;

/* Copies, in the current context; one key may come several times */
typedef struct SxLiveRows
{
	int			nrows;
	MinimalTuple *rows;
	uint32	   *hashes;			/* over all keys */
	bool		more;			/* the call stopped at its limit */
} SxLiveRows;

/*
 * From now on the consumer lists what it changes.  False: the view is not live.  What is live already has
 * to be looked at with sx_live_all().
 */
extern bool sx_live_track(SxDb *db, Oid viewid, SxLiveTrack *track);
/* the view is tracked in vain: nobody is there any more; InvalidOid: all views */
extern void sx_live_untrack(SxDb *db, Oid viewid);
/* another state took its place, or none.  Without lock: a hint */
extern bool sx_live_is_gone(SxDb *db, Oid viewid, const SxLiveTrack *track);
/* is there anything that the last call did not read?  Without lock: a hint */
extern bool sx_live_has_changed(SxDb *db, Oid viewid, const SxLiveTrack *track);
/*
 * The entries that were changed since, at most about `limit`.  False: some are not to be had any more, or
 * the state is another one; all must be looked at again, and the table as well.
 */
extern bool sx_live_changes(SxDb *db, Oid viewid, SxLiveTrack *track, int limit, SxLiveRows *rows);
/* tells the consumer what has been read, so that it may forget it */
extern void sx_live_changes_done(SxDb *db, Oid viewid, const SxLiveTrack *track);
/* all entries, part by part; false: the state is another one */
extern bool sx_live_all(SxDb *db, Oid viewid, const SxLiveTrack *track, SxLiveCursor *cursor, int limit,
						SxLiveRows *rows);

#endif							/* SX_LIVE_CHANGES_H */
