/*
 * wal_tail.h
 *		Reads WAL and collects the addresses of rows inserted into mapped files.
 *
 * A capture is one reader with its own file map and pending addresses: the consumer
 * has one for all live views, a builder one for the view it brings up.
 */
#ifndef SX_WAL_TAIL_H
#define SX_WAL_TAIL_H

#include "capture/file_map.h"
#include "capture/pending.h"
#include "capture/position.h"

typedef struct SxCapture
{
	MemoryContext context;
	SxFileMap  *map;
	SxPending  *pending;
	XLogRecPtr	read_lsn;		/* every record that starts below was read */
	uint64		records;		/* counters for status */
	uint64		rows;
	uint64		partition_moves;
	bool		unreadable;		/* WAL at read_lsn is there but makes no sense */
	XLogRecPtr	store_tried;	/* open_rows.c looked at what could be stored */
	List	   *changed;		/* of TransactionId, as a list of Oid: commits read so far that changed mapped relations */
	/* ids (with those of sub-transactions) whose end was read since the owner last looked */
	uint64		near_xid;		/* to widen them by: the owner's, some recent one */
	uint64	   *finished;
	int			nfinished;
	int			maxfinished;
	struct SxWalTail *tail;
} SxCapture;

extern SxCapture *sx_capture_create(MemoryContext parent, XLogRecPtr start);
extern void sx_capture_destroy(SxCapture *c);
/*
 * Reads every record that starts below upto; WAL must be flushed to there; checks for interrupts.
 * With max_ready > 0 it stops before that (c->read_lsn) when there are so many ready transactions,
 * and returns true.
 */
extern bool sx_capture_read(SxCapture *c, XLogRecPtr upto, uint32 max_ready);
/* did reading end in this error because WAL is gone, or is not what it should be? */
extern bool sx_capture_is_unreadable(SxCapture *c, const ErrorData *error);
/* the end of WAL inserted so far, for XLogFlush() */
extern XLogRecPtr sx_wal_end(void);
/*
 * The end of WAL inserted so far, flushed to disk; steps back over a page header that
 * the insert position may lie just behind.
 */
extern XLogRecPtr sx_wal_flush_to_end(void);
/* is this still readable from disk? (segment not yet removed) */
extern bool sx_wal_available(XLogRecPtr lsn);

#endif							/* SX_WAL_TAIL_H */
