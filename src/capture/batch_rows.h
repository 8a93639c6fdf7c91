/*
 * batch_rows.h
 *		Rows of a batch that several views take: who reads them first leaves them here for the others.
 */
#ifndef SX_BATCH_ROWS_H
#define SX_BATCH_ROWS_H

#include "capture/delta_scan.h"

#include "nodes/bitmapset.h"

/* What is kept at most; the rows behind it each view reads itself */
#define SX_BATCH_ROWS_BYTES		(16 * 1024 * 1024)

/* A column that is kept */
typedef struct SxKeptColumn
{
	int16		index;			/* attribute number - 1 */
	int16		len;
	bool		byval;
	char		align;
} SxKeptColumn;

/*
 * A part of a batch, without gaps.  Each row is its values, the table it lies in, and which values are null; columns
 * that nobody wants are null.
 */
struct SxBatchRows
{
	MemoryContext context;
	dlist_node	node;			/* in the process's list, for invalidations */
	/* which: numbers from .. from + n - 1 in these runs */
	SxFileMap  *map;
	const SxRun *runs;			/* NULL: none */
	uint64		from;
	uint64		n;
	uint64		room;			/* for so many; as many as there are: none are added */
	bool		stale;			/* a table has changed: they are not what they were read as */
	/* what of them */
	Bitmapset  *columns;		/* that anybody wants; of attribute numbers */
	int			last;			/* of the columns */
	int			natts;			/* values in a row: of the stream's columns from the first on */
	int			ncolumns;
	SxKeptColumn *kept;
	Size		table_at;		/* places in a row */
	Size		isnull_at;
	Size		rowsize;
	char	   *rows;
	/* memory of all this, and of values by reference */
	MemoryContext data;
	char	   *chunk;
	Size		chunk_left;
	Size		chunk_size;		/* of the next one */
	Size		bytes;
};

/* columns: those that are known to be wanted */
extern SxBatchRows *sx_batch_rows_create(MemoryContext parent, const Bitmapset *columns);
extern void sx_batch_rows_destroy(SxBatchRows *rows);

/*
 * For whoever reads the batch from its first row on, and needs these columns: what is kept afterwards has them, begins at
 * that row or before it, and ends there or behind it.
 */
extern void sx_batch_rows_open(SxBatchRows *rows, const SxBatch *batch, TupleDesc desc, const Bitmapset *columns);
/* the next row; not if there is no room */
extern void sx_batch_rows_add(SxBatchRows *rows, TupleTableSlot *slot);

static inline char *
sx_batch_row(const SxBatchRows *rows, uint64 number)
{
	return rows->rows + (number - rows->from) * rows->rowsize;
}

#endif							/* SX_BATCH_ROWS_H */
