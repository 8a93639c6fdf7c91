/*
 * file_marks.h
 *		How tables of streams got their files, and which views are stopped.
 */
#ifndef SX_FILE_MARKS_H
#define SX_FILE_MARKS_H

#include "compat.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/block.h"
#include "storage/off.h"

/* kinds of marks */
#define SX_FILE_KEPT		'k' /* rows keep their transactions */
#define SX_FILE_TRUNCATED	't'
#define SX_FILE_REWRITTEN	'w' /* rows have a new transaction */

/* One change of file of a table of a stream */
typedef struct SxFileMark
{
	Oid			leaf;
	char		kind;
	uint64		xid;			/* the command's, top-level */
	SxFile		old_file;
	SxFile		file;
	/* rewritten: rows of this (sub-)transaction up to here were in the table before */
	uint64		writer;
	BlockNumber last_block;
	OffsetNumber last_offset;
} SxFileMark;

extern List *sx_catalog_file_marks(Oid leaf);	/* of SxFileMark * */
extern void sx_catalog_add_file_mark(const SxFileMark *mark);
/* those for which drop() says so; NULL: all */
extern void sx_catalog_delete_file_marks(Oid leaf, bool (*drop) (const SxFileMark *mark, void *arg), void *arg);
/* is this row, by its raw xmin, one that the rewrite has only moved? */
extern bool sx_file_mark_covers(const SxFileMark *mark, uint64 next, TransactionId xmin,
								BlockNumber block, OffsetNumber off);

/* why the view is stopped; NULL: it is not */
extern char *sx_catalog_stop_reason(Oid viewid, TimestampTz *at);
/* in a transaction that keeps the view from being dropped */
extern void sx_catalog_stop_view(Oid viewid, const char *reason);
extern void sx_catalog_end_stop(Oid viewid);

#endif							/* SX_FILE_MARKS_H */
