/*
 * pending.h
 *		Addresses of inserted rows by transaction: pending until its commit
 *		record is read, then ready, in commit order.
 *
 * Addresses are kept as runs (file, block, first offset, count), keyed by the raw
 * 32-bit id of the WAL record, which may be a sub-transaction.  Private to one
 * process; all memory below one context.
 */
#ifndef SX_PENDING_H
#define SX_PENDING_H

#include "compat.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "storage/itemptr.h"

typedef struct SxRun
{
	uint32		file;			/* index in the capture's SxFileMap */
	BlockNumber block;
	TransactionId xid;			/* raw xmin that the rows must have */
	OffsetNumber first;
	uint16		count;
} SxRun;

/* A committed transaction whose rows are not consumed yet */
typedef struct SxReady
{
	dlist_node	node;
	uint64		fxid;			/* top-level */
	XLogRecPtr	first_lsn;		/* of its first address */
	XLogRecPtr	commit_lsn;		/* where its commit record starts */
	bool		early;			/* some runs are marked SX_RUN_EARLY or SX_RUN_JOINED */
	bool		found;			/* some runs come from a file scan: no WAL leads to them again */
	bool		subs;			/* some runs are of sub-transactions */
	bool		held;			/* goes on being computed early: not to be consumed yet */
	TimestampTz commit_time;	/* by its commit record; 0: found by a scan */
	uint64		nrows;
	uint32		nruns;
	uint32		maxruns;
	SxRun	   *runs;
} SxReady;

typedef struct SxPending SxPending;

/*
 * Rows of this run have been computed before their transaction is consumed (worker/consumer_early.c): set in SxRun.file.
 * For views that join other tables, which is done when it has committed, there is a mark of its own.
 */
#define SX_RUN_EARLY		(1U << 31)
#define SX_RUN_JOINED		(1U << 29)
/* This run is kept with the stored positions (open_rows.h): no WAL needs to lead to it again */
#define SX_RUN_STORED		(1U << 30)
#define SxRunFile(run)		((run)->file & ~(SX_RUN_EARLY | SX_RUN_STORED | SX_RUN_JOINED))

extern SxPending *sx_pending_create(MemoryContext parent);
/* appends to the last run when adjacent */
extern void sx_pending_add(SxPending *p, TransactionId xid, XLogRecPtr lsn, uint32 file,
						   BlockNumber block, OffsetNumber first, uint16 count);
extern void sx_pending_commit(SxPending *p, TransactionId top, int nsubxacts,
							  const TransactionId *subxacts, XLogRecPtr commit_lsn,
							  TimestampTz commit_time);
extern void sx_pending_abort(SxPending *p, TransactionId top, int nsubxacts,
							 const TransactionId *subxacts);
/* open transactions (by the raw id of their records) with at least this many rows */
extern void sx_pending_large(SxPending *p, uint64 nrows,
							 void (*large) (void *arg, TransactionId xid, SxReady *part), void *arg);
/* the part of a transaction that is still open, or NULL */
extern SxReady *sx_pending_find(SxPending *p, TransactionId xid);
/* drops what is older than this and has no commit record (crashed transactions) */
extern void sx_pending_drop_below(SxPending *p, uint64 xmin);
/* ready transactions in commit order; the caller unlinks with sx_pending_remove */
extern dlist_head *sx_pending_ready(SxPending *p);
extern void sx_pending_remove(SxPending *p, SxReady *ready);	/* unlinks and frees */
extern uint32 sx_pending_nready(SxPending *p);
/* a ready transaction that a file scan found (delta_scan.h), in front of the others; the one of
 * this id if it is there already */
extern SxReady *sx_pending_new_ready(SxPending *p, uint64 fxid, XLogRecPtr lsn);
/* ready transactions that a scan found and that are still there */
extern uint32 sx_pending_found(SxPending *p);
extern void sx_pending_ready_add_run(SxPending *p, SxReady *ready, uint32 file, BlockNumber block,
									 OffsetNumber off, TransactionId xid);
/* removes every address in this file of the ready transactions for which drop() says so (what has no
 * commit record yet is in no snapshot whose L was read, and stays) */
extern void sx_pending_drop_file(SxPending *p, uint32 file,
								 bool (*drop) (uint64 fxid, void *arg), void *arg);
/* lowest first_lsn of all that is pending or ready, or InvalidXLogRecPtr */
extern XLogRecPtr sx_pending_first_lsn(SxPending *p);
/*
 * Addresses of open transactions that are stored, so that no WAL is held for them.  Storing takes
 * all that is pending; false if that is more than max_runs.  The caller has read WAL up to upto.
 */
extern bool sx_pending_store(SxPending *p, XLogRecPtr upto, uint64 max_runs);
/* changes when more is to be stored; 0: there is nothing to store */
extern uint64 sx_pending_stored_version(SxPending *p);
extern XLogRecPtr sx_pending_stored_upto(SxPending *p);
extern uint64 sx_pending_open_runs(SxPending *p);	/* of transactions without a commit record */
/* all stored runs, those of one id not necessarily in one call */
extern void sx_pending_stored(SxPending *p, void (*stored) (void *arg, const SxRun *run), void *arg);
/* what was stored once; before WAL is read.  Records below upto add nothing to these ids */
extern void sx_pending_load(SxPending *p, const SxRun *run);
extern void sx_pending_loaded(SxPending *p, XLogRecPtr upto);
/*
 * Moves everything from one to the other, file numbers translated by map[]
 * (PG_UINT32_MAX: drop the run); used when a view joins the consumer.  Both have read WAL up to
 * read_lsn.
 */
extern void sx_pending_merge(SxPending *into, SxPending *from, const uint32 *map, XLogRecPtr read_lsn);

#endif							/* SX_PENDING_H */
