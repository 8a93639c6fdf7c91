/*
 * merge.h
 *		Writing rows into the materialized table, combined with what is there.
 */
#ifndef SX_MERGE_H
#define SX_MERGE_H

#include "query/view_info.h"

#include "utils/tuplesort.h"
#include "utils/tuplestore.h"

/*
 * What was written, by keys as the table has them now.  A session may have taken up others, which are gone.
 * Zeroed before; in the context of the merge.
 */
typedef struct SxWritten
{
	Tuplestorestate *rows;		/* of the materialized table, with the states of the new rows only */
	int64	   *taken;			/* sessions: [n] the earliest end of a stored one that each was or took up */
	int64		n;
	int64		max;
} SxWritten;

/* Told how many rows are written; may be NULL */
typedef void (*SxMergeProgress) (int64 rows);

/*
 * Upserts (merge) or inserts (append) the rows of the tuplestore, as the view's
 * owner (the caller is inside SxRunAs), in the caller's transaction.  Rows of one key may occur
 * several times: they are combined first.  written may be NULL.
 */
extern void sx_merge_into_table(SxViewInfo *info, Tuplestorestate *rows, SxWritten *written);
/* the same for a table that may have no rows yet: then they are stored in bulk if that is possible (live/merge_bulk.c) */
extern void sx_merge_into_new_table(SxViewInfo *info, Tuplestorestate *rows, SxMergeProgress progress);
/* for live/merge_sessions.c; and rows that the table must have, by their ctids */
extern void sx_merge_write(SxViewInfo *info, Tuplestorestate *rows, SxMergeProgress progress);
extern void sx_merge_delete(SxViewInfo *info, Datum *ctids, int n);
extern bool sx_merge_bulk(SxViewInfo *info, Tuplestorestate *rows, SxMergeProgress progress);
extern bool sx_merge_upsert(SxViewInfo *info, Tuplestorestate *rows, SxMergeProgress progress);
extern void sx_merge_sessions(SxViewInfo *info, Tuplestorestate *rows, SxWritten *written);
/* of live/merge_groups.c: the rows by their keys, this one last (sessions, panes), in so many kB; slot: minimal, of the table's row type */
extern Tuplesortstate *sx_sort_rows(SxViewInfo *info, Tuplestorestate *rows, int last_key, bool of_index, int memory,
									TupleTableSlot *slot);
/* each group in the order of its key; rows of one key are combined */
extern void sx_merge_groups(SxViewInfo *info, Tuplestorestate *rows, bool of_index,
							void (*take) (void *arg, TupleTableSlot *row), void *arg, SxMergeProgress progress);
/* inserts rows into streamext.dead_letter; as the extension's owner, runs no user code */
extern void sx_dead_letter_insert(Oid viewid, Oid stream, const char *sqlstate, const char *reason,
								  const char *row_json, const char *message, TimestampTz at);

#endif							/* SX_MERGE_H */
