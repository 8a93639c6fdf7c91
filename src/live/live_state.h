/*
 * live_state.h
 *		Partial states per group in dynamic shared memory, in generations.
 *
 * Each generation of a view is a chained hash table in the database's DSA area.  An entry
 * carries one hash per key column, so that readers filter by integers, and points to its
 * row: a MinimalTuple of the materialized table.  One writer, the consumer:
 *
 *	 prepare	 (no lock) combines a delta row with the entry's row into a new tuple,
 *				 noted in entry->prepared.  New entries are linked at once, with no row:
 *				 readers skip those.
 *	 publish	 (exclusive lock) row = prepared for every entry on the list: pointer stores
 *				 that cannot fail.
 *	 the replaced tuples are freed after the lock is released.
 *
 * A larger bucket array is chained aside, through the entries' other next pointer, and
 * put in place under the lock by one store, so that growing holds up nobody.
 *
 * An append view's entries are all distinct (no keys).
 */
#ifndef SX_LIVE_STATE_H
#define SX_LIVE_STATE_H

#include "live/registry.h"
#include "query/view_info.h"

typedef struct SxLiveEntry
{
	dsa_pointer next[2];		/* in the bucket; SxBuckets.chain says which counts */
	dsa_pointer row;			/* MinimalTuple; Invalid: not published yet, or gone into another entry's */
	dsa_pointer prepared;		/* the consumer's; Invalid outside prepare..publish */
	uint32		hash;			/* over all keys */
	uint32		keyhash[FLEXIBLE_ARRAY_MEMBER]; /* [nkeys] */
} SxLiveEntry;

/* The entries that one cycle changed, in a list per generation; of alerted views only */
typedef struct SxChanges
{
	dsa_pointer next;			/* the next cycle's */
	uint64		cycle;
	uint32		n;
	dsa_pointer entry[FLEXIBLE_ARRAY_MEMBER];	/* SxLiveEntry */
} SxChanges;

typedef struct SxSharedDeadLetter
{
	dsa_pointer next;
	Oid			stream;
	char		sqlstate[6];
	char		reason[8];		/* error, late, invalid */
	TimestampTz at;
	uint32		rowlen;			/* jsonb text, no terminator; PG_UINT32_MAX: NULL */
	uint32		messagelen;
	char		data[FLEXIBLE_ARRAY_MEMBER];	/* row, then message */
} SxSharedDeadLetter;

/* ---- consumer ---- */
typedef struct SxLiveWriter SxLiveWriter;	/* the consumer's side of one view */

extern SxLiveWriter *sx_live_writer_create(SxDb *db, SxView *v, SxViewInfo *info, MemoryContext parent);
extern void sx_live_writer_destroy(SxLiveWriter *w);	/* does not free shared memory */
/* these rows come next, at most SX_LIVE_AHEAD: what they will look at is fetched into the processor's caches */
#define SX_LIVE_AHEAD	32
extern void sx_live_expect(SxLiveWriter *w, MinimalTuple *rows, int n);
/* adds one delta row to what is prepared; false: memory is exhausted (discard, then flush) */
extern bool sx_live_prepare(SxLiveWriter *w, TupleTableSlot *row);
extern bool sx_live_prepare_dead_letter(SxLiveWriter *w, Oid stream, const char *sqlstate, const char *reason,
										const char *row_json, const char *message);
/*
 * The end of the session, as far as it is in live state and prepared, that contains the point, of the group
 * of this row; SX_SESSION_NONE: there is none.
 */
#define SX_SESSION_NONE PG_INT64_MIN
extern int64 sx_live_session_end(SxLiveWriter *w, TupleTableSlot *row, int64 point);
extern void sx_live_discard(SxLiveWriter *w);	/* forgets what is prepared */
extern bool sx_live_has_prepared(SxLiveWriter *w);
/*
 * Before the lock: lists what will be published, if the view is alerted.  Without memory for that nothing
 * fails: the alerter looks at everything.
 */
extern void sx_live_list_changes(SxLiveWriter *w);
/* under publish exclusive; cannot fail. counts: of the stream rows of the batch */
extern void sx_live_publish(SxLiveWriter *w, uint64 cycle, const SxRowCounts *counts);
extern void sx_live_published(SxLiveWriter *w); /* after the lock: frees what was replaced */

/* ---- generations (publish exclusive unless said) ---- */
/* opens generation open_gen + 1 (or 1); allocates before: call without the lock; false: no memory or ring full */
extern bool sx_gen_open(SxDb *db, SxView *v, uint32 nbuckets);
/* seals the open one with what the flush will store (allocates: call without the lock) and opens
 * the next; false: not possible now (no memory, ring full, or one is sealed already) */
extern bool sx_gen_seal(SxDb *db, SxView *v, const SxPosition *position, XLogRecPtr start_lsn,
						int nfiles, const Oid *rels, const Oid *nodes,
						const bytea *open_rows, bool new_open_rows);
extern SxGeneration *sx_gen_sealed(SxView *v);	/* the oldest sealed, or NULL */
/* frees flushed generations that no snapshot in this database can need; force: all flushed ones
 * (call without the lock; consumer only) */
extern void sx_gen_free_flushed(SxDb *db, SxView *v, bool force);
/* drops all live state of a view: a failed or removed view (call without the lock; consumer only) */
extern void sx_gen_drop_all(SxDb *db, SxView *v);
extern uint32 sx_gen_open_entries(SxView *v);	/* in the open one; 0: there is none */
/* calls back for each row of a sealed generation (flusher; no lock: it does not change) */
extern void sx_gen_rows(SxDb *db, SxGeneration *gen, void (*row) (void *arg, MinimalTuple tuple), void *arg);
extern void sx_gen_dead_letters(SxDb *db, SxGeneration *gen,
								void (*letter) (void *arg, const SxSharedDeadLetter *d), void *arg);

/* ---- readers ---- */
typedef struct SxLiveRequest
{
	Oid			matid;
	int			nkeys;
	bool	   *filtered;		/* [nkeys] this key column must have one of these hashes; NULL: no filter */
	uint32	   *hash;			/* [nkeys] */
	uint32	   *wanted;			/* [nwanted] or only entries with these hashes, each once; NULL: no such filter */
	int			nwanted;
	/* result, in CurrentMemoryContext */
	bool		found;			/* the view has live state that this snapshot may add */
	bool		too_old;		/* a generation that the snapshot does not see was freed */
	uint64		cycle;			/* newest cycle that added rows to what this read sees */
	bool		in_table;		/* the snapshot sees all of it in the table, whatever the filter */
	int			nrows;
	MinimalTuple *rows;			/* may hold one key several times, once per generation, oldest first */
	uint32	   *hashes;			/* [nrows] over all keys */
	uint32	   *keyhashes;		/* [nrows * nkeys] */
} SxLiveRequest;

/* fills all requests under one hold of the publish lock, then drops the rows of generations whose
 * flush the snapshot sees (its own transaction counts as seen) */
extern void sx_live_copy(SxDb *db, Snapshot snapshot, SxLiveRequest *requests, int n);

#endif							/* SX_LIVE_STATE_H */
