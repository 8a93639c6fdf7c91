/*
 * cycle.h
 *		A capture that follows the end of WAL, one snapshot at a time.
 */
#ifndef SX_CYCLE_H
#define SX_CYCLE_H

#include "capture/position.h"
#include "capture/delta_scan.h"
#include "capture/wal_tail.h"
#include "catalog/definitions.h"

/*
 * The id of ready rows that no position can hold back: those of an attached partition whose
 * transactions were consumed long ago.  They must be consumed with the cycle that finds them.
 */
#define SX_ALWAYS_XID	UINT64CONST(0)

/* a new file of more blocks (8 MB, about 10 ms) is not scanned by the consumer */
#define SX_SCAN_LIMIT	1024

typedef struct SxTail
{
	SxCapture  *capture;
	List	   *streams;		/* of Oid */
	bool		started;
	bool		stale;			/* an invalidation concerns the map */
	bool		has_fresh;		/* files wait for their scan */
	XLogRecPtr	written;		/* WAL was up to here when we last looked */
	bool		flush_wal;		/* a large transaction is followed: see what it has written */
	TimestampTz last_flush;		/* of moment.h: when a flush of WAL that we caused ended */
	int64		flush_us;		/* how long it took */
	TimestampTz async_at;		/* of moment.h: when rows came whose commit nobody had flushed */
	XLogRecPtr	need;			/* end of WAL after the first S with last_completion */
	SxPosition *last;			/* what the last cycle returned; NULL: none yet */
	SxPosition *seen;			/* an S that could not be reached then; NULL: none */
	XLogRecPtr	seen_need;		/* now it is when WAL was read to here */
	XLogRecPtr	seen_upto;		/* it was read to here when S was taken */
	bool		behind;			/* transactions that S sees are not in what was returned: WAL is not flushed */
	bool		more;			/* ... there is too much to be read at once */
	uint64		last_completion;	/* snapXactCompletionCount of the last S */
	uint64		built_by;		/* it reads for one view, whose history this transaction wrote; 0: for many */
	bool		follows;		/* it has read all that was written since its position */
	List	   *broken;			/* of Oid: streams whose file was replaced behind our back */
	BlockNumber scan_limit;		/* larger new files are left to a builder; 0: none is too large */
	List	   *blocked;		/* of Oid: streams with a new file that is locked or too large to scan here */
	bool		too_large;		/* one of them is so large */
	TimestampTz blocked_since;	/* of moment.h; 0: none is */
	struct SxTail *next;
} SxTail;

typedef struct SxFound SxFound;

extern SxTail *sx_tail_create(MemoryContext parent, XLogRecPtr start);
extern void sx_tail_destroy(SxTail *t);
extern void sx_tail_set_streams(SxTail *t, List *streams);
extern void sx_tail_compare(SxTail *t, const SxStoredPosition *pos);
extern bool sx_tail_cycle(SxTail *t, const SxPosition *position, MemoryContext turn,
						  SxPosition **snapshot);
extern long sx_tail_next_look_ms(SxTail *t);
/* the snapshot without these transactions and the sub-transactions whose rows they bring */
extern SxPosition *sx_tail_position(const SxPosition *snapshot, SxReady **held, int nheld);
extern SxFound *sx_tail_scan_fresh(SxTail *t, const SxPosition *position, Snapshot upto,
								   const SxPosition *upto_position, MemoryContext mcxt, bool *complete);
/* partitions, in a transaction: see cycle.c */
extern bool sx_tail_attached_since(Oid leaf, List *streams, const SxPosition *position);
extern void sx_tail_marks(Oid leaf, List *streams, SxPosition **attached, SxPosition **detached);
extern void sx_tail_apply_found(SxTail *t, SxFound *found, const SxPosition *upto);

#endif							/* SX_CYCLE_H */
