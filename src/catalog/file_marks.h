/*
 * file_marks.h
 *		How tables of streams got their files, and which became partitions of streams or left them.
 */
#ifndef SX_FILE_MARKS_H
#define SX_FILE_MARKS_H

#include "compat.h"

#include "capture/position.h"
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

/* A partition that joined or left a stream's tree */
typedef struct SxAttachMark
{
	Oid			leaf;
	Oid			stream;
	bool		attached;		/* false: detached */
	SxPosition *snapshot;		/* taken when nobody could write to the leaf */
	TransactionId xid;			/* who wrote it, maybe a sub-transaction; not normal: long ago */
} SxAttachMark;

extern List *sx_catalog_file_marks(Oid leaf);	/* of SxFileMark * */
extern void sx_catalog_add_file_mark(const SxFileMark *mark);
/* those for which drop() says so; NULL: all */
extern void sx_catalog_delete_file_marks(Oid leaf, bool (*drop) (const SxFileMark *mark, void *arg), void *arg);
/* is this row, by its raw xmin, one that the rewrite has only moved? */
extern bool sx_file_mark_covers(const SxFileMark *mark, uint64 next, TransactionId xmin,
								BlockNumber block, OffsetNumber off);

extern List *sx_catalog_marks(Oid leaf);	/* of SxAttachMark * */
extern void sx_catalog_add_mark(Oid leaf, Oid stream, bool attached, const SxPosition *snapshot);
extern void sx_catalog_delete_marks(Oid leaf);

#endif							/* SX_FILE_MARKS_H */
