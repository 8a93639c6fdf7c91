/*
 * slot.h
 *		The physical replication slot that holds WAL and the transaction horizon for a
 *		database: streamext_<database oid>.  Owned by the consumer.
 *
 * The slot is retention, never truth: the start LSN lives with each view's position.
 */
#ifndef SX_SLOT_H
#define SX_SLOT_H

#include "compat.h"

#include "access/xlogdefs.h"

extern void sx_slot_name(Oid dboid, char *buf, Size len);	/* len >= NAMEDATALEN */
/*
 * Creates the slot if it is not there (CheckSlotRequirements first; saved with xmin and
 * restart_lsn), else acquires it.  Must run in a transaction with an active snapshot.
 * Returns true if it was created.  Reports "all replication slots are in use" with the
 * setting to change.  *lost: if what it held before is not held any more, a sentence that says
 * why, else NULL.
 */
extern bool sx_slot_acquire(const char **lost);
extern void sx_slot_release(void);
/*
 * During recovery: creates or acquires the slot if it is not ours yet, and moves it forward to
 * these.  Outside a transaction.
 */
extern void sx_slot_keep(TransactionId xmin, XLogRecPtr restart_lsn);
/* lets it hold WAL from here on, if that is still there */
extern void sx_slot_reach_back(XLogRecPtr restart_lsn);
/*
 * Moves forward only.  Nothing is written to disk now.  xmin is what a restart needs, the horizon what is held meanwhile, which
 * may be less.  Invalid: leave.
 */
extern void sx_slot_advance(TransactionId xmin, TransactionId horizon, XLogRecPtr restart_lsn);
extern TransactionId sx_slot_xmin(void);
extern TransactionId sx_slot_horizon(void);
extern XLogRecPtr sx_slot_restart_lsn(void);
/* drops it if it exists and nobody owns it; returns true if gone.  Any process. */
extern bool sx_slot_drop(Oid dboid);
/* OIDs of all databases that have a slot of ours (to find orphans) */
extern int	sx_slot_databases(Oid *dboids, int max);

#endif							/* SX_SLOT_H */
