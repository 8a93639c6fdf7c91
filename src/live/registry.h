/*
 * registry.h
 *		The fixed part of shared memory: databases, their views, positions and counters.
 *
 * Locking (order: gate, publish, then spinlocks; never across catalog access):
 *	 gate		 LWLock, exclusive, held for the instant before `publish` is taken, so that
 *				 readers queue fairly with the consumer
 *	 publish	 LWLock: shared to copy live state, exclusive to publish, seal or free
 *	 mutex		 spinlock of SxDb: small fields marked (m)
 * Only the consumer adds and removes views; builder and flusher change the fields of
 * theirs that are marked.
 */
#ifndef SX_REGISTRY_H
#define SX_REGISTRY_H

#include "catalog/definitions.h"
#include "moment.h"
#include "streamext.h"

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/dsa.h"
#include "utils/timestamp.h"

/* One generation of a view's live state; see live_state.h */
typedef enum SxGenState
{
	SX_GEN_FREE,				/* slot unused or its memory given back */
	SX_GEN_OPEN,				/* the consumer adds to it */
	SX_GEN_SEALED,				/* waits for the flusher or is being flushed */
	SX_GEN_FLUSHED				/* kept for snapshots that precede the flush */
} SxGenState;

typedef struct SxGeneration
{
	SxGenState	state;
	uint64		no;				/* 1, 2, … per view */
	dsa_pointer buckets;		/* array of dsa_pointer to SxLiveEntry */
	uint32		nbuckets;
	uint32		nentries;
	uint64		bytes;
	dsa_pointer dead_letters;	/* list of SxSharedDeadLetter, newest first */
	uint32		ndead;
	TransactionId flush_xid;	/* Invalid until the flush transaction has its id; again after its abort */
	uint64		cycle;			/* last cycle merged in */
	/* set when sealed: what the flush stores */
	dsa_pointer position;		/* SxPosition */
	XLogRecPtr	start_lsn;
	dsa_pointer files;			/* uint32 n, then n pairs of Oid (leaf, file number) */
	dsa_pointer open_rows;		/* bytea (capture/open_rows.h); Invalid: none */
	bool		new_open_rows;	/* replace what is stored */
	int64		watermark;		/* at that position */
	int64		removed_until;
	SxRowCounts counts;			/* of the stream rows merged in */
	/* of an alerted view: lists of the entries that each cycle changed, oldest first (SxChanges) */
	dsa_pointer changes;
	dsa_pointer last_changes;
} SxGeneration;

typedef enum SxViewState
{
	SX_VIEW_UNUSED,
	SX_VIEW_NEW,				/* no position yet (or not ours): needs a builder */
	SX_VIEW_CATCHUP,			/* has a stored position behind the consumer's */
	SX_VIEW_BUILDING,			/* a builder runs */
	SX_VIEW_LIVE,				/* shares the consumer's position */
	SX_VIEW_PAUSING,			/* live state is being flushed before a pause */
	SX_VIEW_PAUSED,
	SX_VIEW_FAILED				/* will be retried at retry_at */
} SxViewState;

/* How far a builder has come with history (worker/history_scan.c); blocks and rows of the stream */
typedef struct SxHistoryProgress
{
	uint64		blocks;			/* of all files; 0: nothing is known */
	uint64		done;			/* in the table */
	int64		rows;			/* in them */
	/* since this builder began, at this moment */
	TimestampTz since;
	int64		spent_rows;		/* of chunks that are done */
	double		percent;		/* of the time that all takes; never falls */
	int			columns;		/* of a group; 0: there are none */
	double		in_memory;		/* so many groups fit */
	/* as of late, microseconds; 0: not known yet */
	double		row_us;			/* a row takes one process to read */
	double		read_us;		/* a block takes to read */
	double		read_blocks;	/* found by so many, the last ones counting most */
	double		rest_us;		/* is waited for it, for streamext.backfill_rate */
	double		put_us;			/* a row of the result, once all is read, until it is put out */
	double		write_us;		/* and to be written */
	double		rows_per_block; /* of the result */
	/* the chunk on its way */
	TimestampTz chunk_since;	/* or since its first blocks were read */
	uint64		first_done;		/* these; 0: not yet */
	TimestampTz chunk_read;		/* when all of it was; 0: not yet */
	TimestampTz chunk_computed; /* when its result was complete; 0: not yet */
	uint64		chunk;
	uint64		chunk_done;
	int64		chunk_rows;
	double		chunk_result;	/* rows of its result, as far as can be told */
	int64		chunk_put;		/* put out so far */
	TimestampTz chunk_sorted;	/* when the first were written, for which groups are sorted; 0: not yet */
	int64		chunk_written;	/* so far */
	/* groups found when so many rows had been read, the last time that they had doubled */
	int64		mark_rows;
	double		mark_groups;
} SxHistoryProgress;

typedef struct SxView
{
	Oid			viewid;			/* InvalidOid: slot unused */
	Oid			matid;
	Oid			streamid;
	SxViewState state;
	uint64		incarnation;	/* changes whenever the slot is reused or the live state is dropped */
	SxGeneration gens[SX_MAX_GENERATIONS];	/* ring, by no % SX_MAX_GENERATIONS */
	uint64		first_gen;		/* oldest not free */
	uint64		open_gen;		/* the open one; 0: none */
	TransactionId freed_flush_xid;	/* flush of the newest generation freed; Invalid: none */
	uint64		freed_cycle;	/* newest cycle in it */
	uint64		flushed_cycle;	/* cycle that the table contains */
	uint64		seq;			/* of the stored position that the oldest unflushed generation continues */
	/* (m) what the slot must keep for this view; Invalid: nothing known yet */
	uint64		protect_xmin;
	XLogRecPtr	protect_lsn;
	/* (m) rows that the stored position lacks were not protected until protected_since */
	bool		exposed;
	TimestampTz protected_since;	/* wall clock */
	bool		wal_gone;		/* (m) WAL was found unreadable: a full scan is due */
	bool		scanning;		/* (m) a full scan, or one of history, is under way: only a builder can go on */
	bool		wal_let_go;		/* (m) the slot has moved past protect_lsn at a limit, ... */
	bool		xmin_let_go;	/* (m) ... past protect_xmin */
	TimestampTz complete_at;	/* what the flusher stores with the sealed generation; wall clock */
	pid_t		builder_pid;	/* (m) */
	bool		builder_left;	/* (m) it ended because the view is gone, or goes by another id now */
	bool		history_begun;	/* (m) BUILDING: it has a snapshot of the stream, or is about to take it */
	SxHistoryProgress history;	/* (m) */
	pid_t		waits_for_pid;	/* (m) whose transaction its builder waits for; 0: nobody's */
	LocalTransactionId waits_for_lxid;	/* (m) ... and which of his */
	/*
	 * Of the stream at the view's position, as in capture/event_time.h.  A live view's changes under the
	 * publish lock.
	 */
	int64		watermark;		/* (m) */
	int64		open_windows;	/* (m) when it was written last; -1: not known */
	int64		removed_until;	/* (m) changed by the seal; see time/retention.h */
	bool		idle;			/* (m) it follows the clock */
	/* status (m) */
	SxRowCounts counts;			/* flushed and live */
	double		rows_per_second;	/* of the last second */
	int64		rate_rows;		/* counts.rows when that second began */
	TimestampTz rate_at;		/* of moment.h, as are retry_at and last_seal */
	int64		lag_rows;		/* committed, read, not consumed yet */
	int64		dead_letters;
	int64		flushes;
	TimestampTz last_flush;
	int			last_flush_us;
	TimestampTz rest_until;		/* without need it is not flushed again before; of moment.h */
	TimestampTz last_error_at;
	TimestampTz retry_at;
	int			failures;		/* in a row */
	bool		swap_stuck;		/* (m) hidden: what keeps it from the other view's place lasts: last_error */
	/* trouble of any kind, for the length of the next pause: sx_view_setback() */
	int			setbacks;		/* (m) */
	TimestampTz setback_at;
	int			setback_pause;	/* ms */
	/* a slow view stays in a process of its own until then, and as long as it is slow there (m) */
	bool		slow;
	TimestampTz slow_until;
	char		slow_why[160];
	bool		yield;			/* its builder is to end: others wait */
	TimestampTz work_since;		/* the builder computes or writes; 0: it waits (m) */
	int64		work_rows;		/* … so many rows of the stream */
	TimestampTz followed_at;	/* when the builder had last nothing left to read (m) */
	/* see sx_wait(): everything committed before this turn of the builder, or below the LSN, is written */
	uint64		turn_done;		/* (m) */
	XLogRecPtr	turn_lsn;		/* (m) */
	uint64		turn_wanted;	/* somebody waits for one (m) */
	char		last_error[256];
	char		reason[256];	/* why it is not moving; empty when it is */
	char		phase[32];		/* of the builder */
	/* history of commit-to-visible times, for percentiles: log2 buckets of microseconds */
	uint32		freshness[32];
	TimestampTz last_seal;
	int			flush_interval; /* ms, -1: setting */
	uint64		sessions_wrote;	/* (m) commits of sessions that wrote its table: sx_note_table_write() */
	/* alerts (live/live_changes.h); under publish: */
	bool		alerted;		/* the alerter wants to know which entries change */
	uint64		alerted_cycle;	/* it has seen the changes of this cycle and of those before */
	uint64		lost_changes;	/* newest cycle whose changes could not be listed */
} SxView;

/* The processes of which a database has one each */
typedef enum SxRole
{
	SX_CONSUMER,
	SX_FLUSHER,
	SX_HELPER,					/* while the consumer has use for one (worker/helper.h) */
	SX_ALERTER,					/* while there are alerts */
	SX_NROLES
} SxRole;

typedef struct SxPlace
{
	pid_t		pid;			/* 0: nobody has it */
	Latch	   *latch;
} SxPlace;

/* while one is done the next is there */
#define SX_HELPER_JOBS	2

typedef struct SxDb
{
	Oid			dboid;			/* InvalidOid: slot unused */
	LWLock		gate;
	LWLock		publish;
	slock_t		mutex;
	bool		wanted;			/* (m) somebody asked the launcher to serve this database */
	uint32		left;			/* (m) how often the consumer has gone because nothing was left to do */
	int			closing;		/* (m) commands under way that want its workers gone (DROP EXTENSION, DROP DATABASE …) */
	bool		slot_ready;		/* (m) the slot exists and protects */
	char		problem[256];	/* (m) why the consumer cannot start or go on; empty: fine */
	SxPlace		places[SX_NROLES];	/* (m) */
	bool		alerts_wanted;	/* (m) there are alerts: the launcher keeps an alerter */
	dsa_pointer helper_jobs[SX_HELPER_JOBS];	/* (m) by number; … */
	uint64		jobs_given;		/* (m) … the first so many are given */
	uint64		jobs_done;		/* (m) … and done */
	Oid			blamed_alert;	/* (m) its condition had to be ended with the alerter */
	pg_atomic_uint32 consumer_sleeps;	/* a committing backend sets the latch only then */
	uint32		generation;		/* incarnation of the DSA area: changes when a consumer starts */
	dsa_handle	area;			/* DSM_HANDLE_INVALID: no live state */
	/* cycles: started is raised before S is taken, published after all views are */
	pg_atomic_uint64 cycle_started;
	pg_atomic_uint64 cycle_published;	/* the newest published cycle */
	pg_atomic_uint64 consumed_lsn;	/* every commit record below is consumed by all live views */
	pg_atomic_uint64 read_lsn;
	pg_atomic_uint64 turns;		/* of all builders, counted as they begin; never goes back */
	ConditionVariable published_cv; /* a cycle was published, a flush done, or a view's state changed */
	pg_atomic_uint64 flush_request; /* raised to ask that all be flushed */
	pg_atomic_uint64 flush_done;	/* the last request whose flush is done */
	pg_atomic_uint64 rows;		/* rows consumed, all streams */
	pg_atomic_uint64 caught_up_at;	/* of moment.h: when live views last had nothing left to consume */
	/*
	 * Transactions that are creating views: the consumer stays and the slot does not move
	 * while there are any.  The epoch counts those that ended: when it changes, the catalog
	 * is read again before the slot moves.
	 */
	pg_atomic_uint32 requirers;
	pg_atomic_uint32 require_epoch;
	Oid			flushing_view;	/* (m) whose sealed generation the flusher reads */
	TransactionId slot_xmin;	/* (m) what it holds now, for builders */
	XLogRecPtr	slot_lsn;		/* (m) */
	char		exposed_why[128];	/* (m) why rows were last unprotected; empty: never */
	int			nviews;			/* highest used slot + 1 */
	SxView		views[SX_MAX_VIEWS];
} SxDb;

typedef struct SxShared
{
	LWLock		lock;			/* allocation of dbs[] */
	pid_t		launcher_pid;
	bool		sweep_wanted;	/* a database may be gone: look before starting workers */
	Latch	   *launcher_latch;
	int			tranche_gate;
	int			tranche_publish;
	int			tranche_dsa;
	int			ndbs;
	SxDb		dbs[FLEXIBLE_ARRAY_MEMBER];
} SxShared;

extern SxShared *sx_shared;		/* NULL when not preloaded */

extern Size sx_registry_size(void);
extern void sx_registry_init(void); /* in shmem_startup_hook */
/* slot of a database; NULL if not there (or, with create, if max_databases is reached) */
extern SxDb *sx_db_lookup(Oid dboid, bool create);
extern bool sx_db_all_taken(void);	/* max_databases is reached */
extern SxDb *sx_my_db(void);	/* lookup of MyDatabaseId, no create */
extern void sx_db_free(SxDb *db);	/* the launcher's, for databases that are gone */
/* the view's slot, without lock: the caller rechecks viewid (and incarnation) under publish */
extern SxView *sx_view_by_mat(SxDb *db, Oid matid);
extern SxView *sx_view_by_id(SxDb *db, Oid viewid);
extern void sx_view_set_reason(SxDb *db, SxView *v, const char *fmt,...) pg_attribute_printf(3, 4);
extern void sx_view_set_error(SxDb *db, SxView *v, const char *message);
/*
 * The view had trouble: returns how long to leave it alone, ms.  Twice as long each time, until
 * it has been well for a while.
 */
extern int	sx_view_setback(SxDb *db, SxView *v, int first_ms, int longest_ms);
extern void sx_view_set_slow(SxDb *db, SxView *v, const char *fmt,...) pg_attribute_printf(3, 4);
/* we are it from here on; false: another process is, or commands under way want all of them gone */
extern bool sx_take_place(SxDb *db, SxRole role);
extern void sx_leave_place(SxDb *db, SxRole role);	/* nothing if it is not ours */
extern bool sx_has_workers(const SxDb *db);	/* but for builders */
extern void sx_wake(SxDb *db, SxRole role);	/* nothing if there is none */
extern void sx_wake_launcher(void);

/* the gate */
extern void sx_lock_publish_shared(SxDb *db);
extern void sx_lock_publish_exclusive(SxDb *db);
extern void sx_unlock_publish(SxDb *db);

/* the database's DSA area mapped in this process; NULL if there is none. Re-attaches when a new
 * consumer made a new area. Not under a lock. */
extern dsa_area *sx_db_area(SxDb *db);
extern void sx_db_area_create(SxDb *db);	/* consumer: a new, empty one */
extern void sx_db_area_drop(SxDb *db);	/* consumer, at exit */

#endif							/* SX_REGISTRY_H */
