/*
 * worker.h
 *		launcher -> consumer + flusher (+ builders, alerter) per database.
 */
#ifndef SX_WORKER_H
#define SX_WORKER_H

#include "live/registry.h"
#include "nodes/pg_list.h"

extern void sx_launcher_register(void); /* at load */

/* bgworker entry points */
extern PGDLLEXPORT void sx_launcher_main(Datum arg);
extern PGDLLEXPORT void sx_scout_main(Datum arg);
extern PGDLLEXPORT void sx_consumer_main(Datum arg);
extern PGDLLEXPORT void sx_flusher_main(Datum arg);
extern PGDLLEXPORT void sx_builder_main(Datum arg);
extern PGDLLEXPORT void sx_alerter_main(Datum arg);
extern PGDLLEXPORT void sx_swapper_main(Datum arg);
extern PGDLLEXPORT void sx_helper_main(Datum arg);

/* is this process one of ours? */
extern bool sx_is_worker;

/*
 * For backends: asks for the workers of this database and waits until the slot protects
 * (first stream); ERROR with the setting to change if they cannot start.
 */
extern void sx_worker_require(void);
/*
 * The same for views that are restored: the workers are asked for, nobody waits for them.
 */
extern void sx_worker_announce(void);
/* until the transaction ends no row goes that a position sees which is stored from now on */
extern void sx_worker_hold_horizon(void);
/* have these workers held what a position with this xmin sees until now? */
extern bool sx_worker_holds(uint64 xmin);
/* commit callback and friends: see worker/wake.c */
extern void sx_wake_init(void);

/* this session writes a view's table itself: when that is committed, alerts look at the view */
extern void sx_note_table_write(Oid viewid);
/*
 * Waits until everything committed before the call is consumed by the view and, with flushed, written to its table.
 * false: timeout; *blocker (if not NULL) says why.
 */
extern bool sx_wait(Oid viewid, int timeout_ms, bool flushed, char **blocker);
/* the same for all of these, but for those that are dropped meanwhile */
extern bool sx_wait_all(List *views, int timeout_ms, bool flushed, char **blocker);
/* the same, flushed, for these of them for which needed() holds all the time; before DDL that destroys rows */
extern bool sx_wait_flushed(List *views, int timeout_ms, bool (*needed) (Oid viewid), char **blocker);
/* stops the workers of this database and drops the slot after the current transaction commits
 * (DROP EXTENSION), or now (DROP DATABASE: from another database) */
extern void sx_worker_stop_at_commit(void);
extern void sx_worker_stop_database(Oid dboid);

#endif							/* SX_WORKER_H */
