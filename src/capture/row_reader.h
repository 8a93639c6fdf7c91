/*
 * row_reader.h
 *		Goes through the rows of a batch, in the stream's row type.
 */
#ifndef SX_ROW_READER_H
#define SX_ROW_READER_H

#include "capture/delta_scan.h"

#include "access/attmap.h"
#include "access/htup_details.h"
#include "nodes/bitmapset.h"

/* An opened leaf */
typedef struct SxLeaf
{
	Relation	rel;
	BlockNumber nblocks;		/* when last looked at */
	TupleTableSlot *slot;
	AttrMap    *map;			/* stream's column -> leaf's, or NULL: alike */
	int			natts;			/* leaf's columns to deform */
} SxLeaf;

typedef struct SxRowReader
{
	SxBatch    *batch;
	TupleDesc	desc;			/* of the stream */
	TupleTableSlot *slot;
	int			natts;			/* stream's columns needed, from the first */
	MemoryContext context;		/* of the leaves */
	uint32		nleaves;
	SxLeaf	  **leaves;			/* by file number, opened when met */
	Buffer		buffer;
	uint32		run;			/* current one */
	uint16		row;			/* next one in it */
	uint16		end;			/* the checked ones end here; 0: run not begun */
	uint64		left;			/* rows of the slice to come */
	SxLeaf	   *leaf;			/* of the current run */
	HeapTupleData tuple;
	bool		again;			/* the rows have been read before */
	bool		given;			/* the row of a batch without addresses was read */
	SxBatchTimes times;			/* of this reader, if the batch's are wanted */
	bool		wants_times;
	AttrNumber	time_attno;		/* 0: nobody asks */
	/* rows that somebody has left (batch_rows.h) */
	SxBatchRows *rows;			/* NULL: nobody shares them */
	const Bitmapset *columns;	/* needed of them */
	bool		narrow;			/* nobody looks at other columns of the slot */
	bool		keeps;			/* those that follow are left there */
	bool		in_place;		/* the slot is led to the row, not filled from it */
	char	   *kept;			/* the next one; NULL: rows are read */
	char	   *kept_end;
	Size		table_at;		/* places in it */
	Size		isnull_at;
	Size		rowsize;
	uint64		passed;			/* rows in runs before the current one */
	Datum	   *values;			/* the slot's own */
	bool	   *isnull;
} SxRowReader;

/* slot: the virtual slot that is filled with each row, up to its first natts columns */
extern SxRowReader *sx_reader_begin(SxBatch *batch, TupleDesc desc, int natts, TupleTableSlot *slot);
/*
 * Before the first row: what others have left of the batch is used, what is read is left for them, if they want it.  columns:
 * those needed; narrow: nobody looks at others in the slot, which are null otherwise.
 */
extern void sx_reader_share(SxRowReader *r, const Bitmapset *columns, bool narrow);
static inline bool sx_reader_next(SxRowReader *r);
extern bool sx_reader_next_any(SxRowReader *r);
/* puts the reader before the first row of the slice */
extern void sx_reader_rewind(SxRowReader *r);
extern void sx_reader_end(SxRowReader *r);
/* the address of the row that was read last */
extern SxRun sx_reader_row(SxRowReader *r);
/* the page is locked, off at most its highest */
static inline bool
sx_row_is_there(Page page, OffsetNumber off, TransactionId xid)
{
	ItemId		lp;

	if (off < FirstOffsetNumber)
		return false;
	lp = PageGetItemId(page, off);
	return ItemIdIsNormal(lp) &&
		HeapTupleHeaderGetRawXmin((HeapTupleHeader) PageGetItem(page, lp)) == xid;
}

/* most rows are left by somebody, and nothing is to be done for them */
static inline bool
sx_reader_next(SxRowReader *r)
{
	TupleTableSlot *slot = r->slot;

	if (r->kept >= r->kept_end || !r->in_place || r->wants_times || TTS_SHOULDFREE(slot))
		return sx_reader_next_any(r);
	slot->tts_values = (Datum *) r->kept;
	slot->tts_isnull = (bool *) (r->kept + r->isnull_at);
	slot->tts_flags &= ~TTS_FLAG_EMPTY;
	slot->tts_nvalid = r->desc->natts;
	slot->tts_tableOid = *(Oid *) (r->kept + r->table_at);
	r->kept += r->rowsize;
	return true;
}

#endif							/* SX_ROW_READER_H */
