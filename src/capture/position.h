/*
 * position.h
 *		A set of transactions, written as an MVCC snapshot.
 *
 * A view's position says which transactions' rows it contains.  Ids are 64-bit
 * and top-level; made from a snapshot, it also lists the sub-transactions that were
 * running, for scans that meet their ids in rows.  Stored as the built-in type pg_snapshot so that a DBA can
 * look at it (converted through its text form: its struct is private to core).
 */
#ifndef SX_POSITION_H
#define SX_POSITION_H

#include "compat.h"

#include "utils/snapshot.h"

typedef struct SxPosition
{
	uint64		xmin;			/* every id below is contained */
	uint64		xmax;			/* no id at or above is contained */
	uint32		nxip;
	uint32		nsub;
	bool		wal_only;		/* running sub-transactions are not listed: not for a full scan */
	/* not contained, in [xmin, xmax): nxip ids, ascending, then nsub of sub-transactions, ascending */
	uint64		xip[FLEXIBLE_ARRAY_MEMBER];
} SxPosition;

/* 32-bit id, at most 2^31 away from the next one, to 64-bit */
extern uint64 sx_widen_xid(TransactionId xid);
/* the same beside any id that is less than 2^31 away, without a lock */
extern uint64 sx_widen_xid_near(uint64 reference, TransactionId xid);

/* ids >= xmax in the snapshot's list are left out; the result is normalised
 * (xmin = first xid not contained) */
extern SxPosition *sx_position_from_snapshot(Snapshot snapshot);
/* p, a snapshot of the current transaction, and what this has done so far: as if it had committed */
extern SxPosition *sx_position_with_own(const SxPosition *p);
extern SxPosition *sx_position_copy(const SxPosition *p);
extern Size sx_position_size(const SxPosition *p);	/* bytes, for shared memory */
extern bool sx_position_contains(const SxPosition *p, uint64 fxid);
/* p minus these ids (any order, duplicates allowed), normalised, palloc'd */
extern SxPosition *sx_position_without(const SxPosition *p, const uint64 *xids, int nxids);
/* ... and minus these sub-transactions: a scan may meet them when nobody knows whose they are */
extern SxPosition *sx_position_without_subs(const SxPosition *p, const uint64 *xids, int nxids,
											const uint64 *subxids, int nsubxids);
/* what of p is below xmax, palloc'd */
extern SxPosition *sx_position_below(const SxPosition *p, uint64 xmax);
/* p plus those of ids (ascending) that upto contains */
extern SxPosition *sx_position_advance(const SxPosition *p, const uint64 *ids, int nids, const SxPosition *upto);
extern SxPosition *sx_position_union(const SxPosition *a, const SxPosition *b);
/* is every id of b contained in a? */
extern bool sx_position_covers(const SxPosition *a, const SxPosition *b);
extern Datum sx_position_to_datum(const SxPosition *p);	/* pg_snapshot */
extern SxPosition *sx_position_from_datum(Datum pg_snapshot);
/*
 * An MVCC snapshot that sees exactly the transactions of p (pg_subtrans is asked for
 * sub-transactions only if p does not list them), for running a query "at" a position.
 * palloc'd; register or push it as usual.
 */
extern Snapshot sx_position_to_snapshot(const SxPosition *p);

#endif							/* SX_POSITION_H */
