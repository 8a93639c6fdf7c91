/*
 * definitions.h
 *		Streams and continuous views: SQL catalog <-> structs.
 *
 * Tables (src/sql/10_catalog.sql): streamext.stream_def, streamext.view_def,
 * streamext.view_position.  They are read with plain catalog scans (no SPI, no
 * user code) and written only by the functions here.  Every write calls
 * CacheInvalidateRelcacheByRelid on streamext.view_def, which is how workers
 * and other backends learn of it.
 */
#ifndef SX_DEFINITIONS_H
#define SX_DEFINITIONS_H

#include "streamext.h"

#include "access/xlogdefs.h"
#include "capture/position.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/snapshot.h"

typedef enum SxStrategy
{
	SX_APPEND,
	SX_MERGE
} SxStrategy;

/* view_def.state: what the user asked for and what the builder reported */
typedef struct SxViewDef
{
	Oid			viewid;			/* what the user reads */
	Oid			queryid;		/* internal view: the SELECT as given */
	Oid			matid;			/* materialized table */
	Oid			streamid;
	Oid			owner;			/* from pg_class of viewid */
	SxStrategy	strategy;
	int			nkeys;			/* first nkeys columns of the materialized table */
	bool		with_data;
	bool		paused;
	bool		on_close;		/* option emit */
	int			flush_interval; /* ms, -1 = streamext.flush_interval */
	int64		retention;		/* microseconds, -1 = none */
	List	   *settings;		/* of char *: "TimeZone=UTC" ..., pinned at CREATE */
	bool		panes;			/* see query/panes.h; the last key is ours */
	Oid			replaces;		/* hidden, to take the place of this view; see batch/replace.h */
	TransactionId defined_by;	/* who wrote the row last */
} SxViewDef;

typedef enum SxLatePolicy
{
	SX_LATE_MERGE,
	SX_LATE_DROP,
	SX_LATE_DEAD_LETTER
} SxLatePolicy;

/* The time of a stream's rows; spans in microseconds */
typedef struct SxStreamTime
{
	AttrNumber	attno;			/* event time column; 0: the stream has none */
	Oid			type;			/* timestamptz, timestamp, date or bigint */
	int64		delay;			/* of the watermark */
	int64		lateness;		/* allowed, after a window's end */
	int64		idle;			/* timeout; -1: none */
	int64		max_future;		/* -1: unlimited */
	SxLatePolicy late;
} SxStreamTime;

typedef struct SxStreamDef
{
	Oid			streamid;
	NameData	event_time;		/* empty: none */
	bool		declared;		/* by create_stream, not only by a view */
	SxStreamTime time;
	Oid			conditionid;	/* internal view of the condition `valid`; InvalidOid: none */
	List	   *condition_settings; /* of char *, as in SxViewDef */
	uint64		condition_by;	/* who changed the condition last; 0: nobody ever */
	int64		expired_until;	/* rows with an earlier event time may be gone (batch/expire.c); SX_TIME_NONE: none are */
} SxStreamDef;

/* What has become of the rows that a view has read */
typedef struct SxRowCounts
{
	int64		rows;			/* all */
	int64		late;			/* for windows that were closed, whatever was done with them */
	int64		dropped;		/* of those, and of the ones too old to be kept: not in the view */
	int64		future;			/* too far ahead to move the watermark */
} SxRowCounts;

static inline void
sx_counts_add(SxRowCounts *to, const SxRowCounts *more)
{
	to->rows += more->rows;
	to->late += more->late;
	to->dropped += more->dropped;
	to->future += more->future;
}

/*
 * A scan of the stream's files that is under way: of rows that a view lacks (worker/full_scan.c), or
 * of history (worker/history_scan.c), which has a number of blocks for each file.
 */
typedef struct SxStoredScan
{
	SxPosition *upto;			/* what it finds, the position left out; history: all, and this is the position */
	TimestampTz at;				/* when upto was taken */
	int			nfiles;			/* to scan: leaf relation, file number */
	Oid		   *rels;
	Oid		   *nodes;
	int			file;			/* next: this one of them ... */
	uint32		block;			/* ... from this block on; history: of those below this block */
	/* history only */
	int64	   *blocks;			/* of each file when upto was taken; NULL: a full scan */
	int64		rows;			/* found so far */
	AttrNumber	time_attno;		/* the stream's event time then; 0: it had none */
	int64		latest;			/* event time so far */
} SxStoredScan;

/* The stored position of a view; see capture/position.h */
typedef struct SxStoredPosition
{
	Oid			viewid;
	SxPosition *position;
	XLogRecPtr	start_lsn;		/* every address not in position lies at or above it */
	uint32		timeline;		/* of the server when it was stored; set by sx_catalog_store_position */
	uint64		seq;			/* number of flushes */
	int			nfiles;			/* files the stream had: leaf relation, file number */
	Oid		   *file_rels;
	Oid		   *file_nodes;
	SxRowCounts counts;
	int64		watermark;		/* as in capture/event_time.h */
	int64		removed_until;	/* windows closed by then take no more rows, and go */
	int64		closed_until;	/* windows closed by then have rows of their own (time/panes.h) */
	TimestampTz complete_at;	/* every transaction that ended before is in position */
	SxStoredScan *scan;			/* NULL: none.  Else start_lsn belongs to scan->upto, and position is what
								 * the view had before, or of history what it will have */
	bytea	   *open_rows;		/* addresses below start_lsn, of open transactions (open_rows.h); or NULL */
	bool		new_open_rows;	/* storing: replace what is there */
	uint64		built_by;		/* top-level id of who wrote the view's history; storing: 0 is the current one */
	bool		ours;			/* written in this database, by this row's xmin */
	TransactionId writer;		/* that xmin: a snapshot that sees it sees the view's table so far */
} SxStoredPosition;

/* has a part of history only */
static inline bool
sx_is_in_history(const SxStoredPosition *pos)
{
	return pos->scan != NULL && pos->scan->blocks != NULL;
}

/* columns of streamext.stream_def */
enum
{
	SX_STREAM_STREAM = 1,
	SX_STREAM_EVENT_TIME,
	SX_STREAM_WATERMARK_DELAY,
	SX_STREAM_ALLOWED_LATENESS,
	SX_STREAM_LATE_ROWS,
	SX_STREAM_IDLE_TIMEOUT,
	SX_STREAM_MAX_FUTURE,
	SX_STREAM_CHANGES,
	SX_STREAM_DECLARED,
	SX_STREAM_VALID,
	SX_STREAM_VALID_SETTINGS,
	SX_STREAM_VALID_BY,
	SX_STREAM_EXPIRED_UNTIL,
	SX_STREAM_NCOLUMNS = SX_STREAM_EXPIRED_UNTIL
};

/* OIDs of our own objects in this database, looked up once; InvalidOid without the extension */
extern Oid	sx_catalog_schema_oid(void);	/* missing ok */
extern bool sx_catalog_exists(void);	/* is the extension created in this database? */
extern Oid	sx_catalog_table_oid(const char *name);
extern Oid	sx_catalog_state_type_oid(void);
extern Oid	sx_catalog_extension_owner(void);

/* Reading; all results palloc'd in the current context; NULL/false = not there */
extern List *sx_catalog_views(void);	/* of SxViewDef * */
extern SxViewDef *sx_catalog_view(Oid viewid);
extern SxViewDef *sx_catalog_view_by_mat(Oid matid);
extern SxViewDef *sx_catalog_view_by_query(Oid queryid);
/* as this snapshot sees it */
extern SxViewDef *sx_catalog_view_at(Oid viewid, Snapshot snapshot);
/* the hidden view that is to take this one's place */
extern SxViewDef *sx_catalog_replacement_of(Oid viewid);
extern List *sx_catalog_views_of_stream(Oid streamid);
extern List *sx_catalog_streams(void);	/* of SxStreamDef * */
extern SxStreamDef *sx_catalog_stream(Oid streamid);
/* in microseconds, with days of 24 hours and months of 30 days, as intervals compare */
extern int64 sx_span_us(const Interval *span);
extern SxStoredPosition *sx_catalog_position(Oid viewid);
/* as this snapshot sees it, for reading it together with the view's rows */
extern SxStoredPosition *sx_catalog_position_at(Oid viewid, Snapshot snapshot);
/* is this relation the user's view, the query view or the materialized table of a view, or an alert on it? */
extern SxViewDef *sx_catalog_view_by_any(Oid relid);

/* Writing */
extern void sx_catalog_insert_view(const SxViewDef *def);
extern void sx_catalog_delete_view(Oid viewid);	/* and its position */
extern void sx_catalog_delete_dead_letters(Oid viewid);
/*
 * The view takes over relations, definition, position and dead letters of the one that replaces it, which is
 * gone then; options and sinks stay.  The caller has locked both views' relations.
 */
extern void sx_catalog_swap_views(const SxViewDef *view, const SxViewDef *replacement);
extern void sx_catalog_set_paused(Oid viewid, bool paused);
extern void sx_catalog_set_options(Oid viewid, bool on_close, int flush_interval, int64 retention);
extern void sx_catalog_insert_stream(Oid streamid, bool declared, const char *event_time);
/* all columns by number - 1; a row that exists changes in the columns marked in replace */
extern void sx_catalog_write_stream(Oid streamid, const Datum *values, const bool *nulls, const bool *replace);
/* serializes declarations of one stream until the transaction ends */
extern void sx_catalog_lock_stream(Oid streamid);
extern void sx_catalog_delete_stream(Oid streamid);
extern void sx_catalog_rename_event_time(Oid streamid, const char *newname);
/*
 * The event time before which the stream's raw rows are not complete any more, as in capture/event_time.h:
 * SX_TIME_NONE: they are, as far as streamext.expire() knows; SX_TIME_END: nothing is known to be complete.
 */
extern int64 sx_catalog_expired_until(Oid streamid);
/* it only moves forward */
extern void sx_catalog_set_expired_until(Oid streamid, int64 until);
/* InvalidOid: none; written, not dropped, by query/valid.c */
extern void sx_catalog_set_condition(Oid streamid, Oid conditionid, List *settings);
/* the internal view is being dropped, which may be a stream's condition */
extern void sx_catalog_forget_condition(Oid conditionid);
/* as sx_catalog_repair_dependencies(); restored: by a dump, whose transactions mean nothing here */
extern void sx_catalog_repair_condition(Oid streamid, bool restored);
extern void sx_catalog_condition_depends(Oid conditionid, Oid streamid);
/*
 * Inserts or updates; part of the caller's transaction, runs no user code.  The caller holds a
 * lock on the materialized table that conflicts with AccessExclusiveLock, so that a DROP waits.
 */
extern void sx_catalog_store_position(const SxStoredPosition *pos);
extern void sx_catalog_delete_position(Oid viewid);
/* of history: blocks of all files, and how many of them are done */
extern uint64 sx_scan_blocks(const SxStoredScan *scan, uint64 *done);
/* rows = -1: not known.  In the caller's transaction; says so in the log, too. */
extern void sx_catalog_add_lost_interval(const SxViewDef *def, TimestampTz from, TimestampTz until,
										 int64 rows, const char *why);
extern void sx_catalog_announce(void);	/* the invalidation described above */
/* why the view is stopped; NULL: it is not */
extern char *sx_catalog_stop_reason(Oid viewid, TimestampTz *at);
/* in a transaction that keeps the view from being dropped */
extern void sx_catalog_stop_view(Oid viewid, const char *reason);
extern void sx_catalog_end_stop(Oid viewid);
/*
 * The dependencies between a view's relations, which neither a dump nor pg_upgrade carries over,
 * are recorded again if they are missing; true if so.  See restore.c.
 */
extern bool sx_catalog_repair_dependencies(const SxViewDef *def);

/*
 * Calls back (with arg) in every process when view_def changed or may have: register
 * once; the callback may only set a flag.
 */
extern void sx_catalog_on_change(void (*callback) (void));

#endif							/* SX_DEFINITIONS_H */
