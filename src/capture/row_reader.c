/*
 * row_reader.c
 *		Goes through the rows of a batch.
 *
 * In the order of its runs.  A run lies on one page: the page is pinned, all its rows are checked under a share lock, then the
 * lock is let go and the rows are returned while the pin stays.  The pin is what keeps their bytes in place, as in
 * any heap scan.  Runs that follow each other on a page share the pin.
 *
 * A row counts when its raw xmin is the recorded id, whatever its xmax: no snapshot is asked.  The slot's horizon keeps
 * VACUUM and pruning from removing it; if it is gone all the same, that is an error, never a row less.
 *
 * Values are taken from the leaf's tuple slot only up to the last column that is needed, and moved to the stream's row
 * type by name where a partition differs.
 *
 * Where several views share a batch, rows that another one has left (batch_rows.c) come first, and the slot is led to them: its
 * arrays are those of the row.  It is filled from them only if somebody may look at more columns than they have.  What follows is
 * read, and left for the next one.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "executor/executor.h"
#include "utils/lsyscache.h"

#include "capture/batch_rows.h"
#include "capture/row_reader.h"

static void begin_kept(SxRowReader *r);
static void next_kept(SxRowReader *r);
static void leave_kept(SxRowReader *r);
static void read_on(SxRowReader *r);
static void seek(SxRowReader *r, uint64 number);
static bool begin_run(SxRowReader *r, const SxRun *run);
static SxLeaf *open_leaf(SxRowReader *r, SxFileEntry *entry);
static void note_time(SxRowReader *r);
static void note_end(SxRowReader *r);
pg_noreturn static void missing_row(SxRowReader *r, const SxRun *run, OffsetNumber off);

SxRowReader *
sx_reader_begin(SxBatch *batch, TupleDesc desc, int natts, TupleTableSlot *slot)
{
	SxRowReader *r = palloc0(sizeof(SxRowReader));

	r->batch = batch;
	r->desc = desc;
	r->slot = slot;
	r->values = slot->tts_values;
	r->isnull = slot->tts_isnull;
	r->natts = Min(natts, desc->natts);
	r->context = CurrentMemoryContext;
	r->nleaves = sx_file_map_count(batch->map);
	r->leaves = palloc0(sizeof(SxLeaf *) * Max(r->nleaves, 1));
	r->buffer = InvalidBuffer;
	/* slices are read in their order, and not noted behind one that was not */
	r->wants_times = batch->times != NULL && batch->times->covered == batch->from;
	if (r->wants_times || batch->late != NULL)
		r->time_attno = batch->time_attno;
	r->natts = Max(r->natts, r->time_attno);
	sx_reader_rewind(r);

	/* columns beyond natts are never filled, dropped ones neither */
	memset(slot->tts_isnull, true, desc->natts * sizeof(bool));
	memset(slot->tts_values, 0, desc->natts * sizeof(Datum));
	return r;
}

void
sx_reader_share(SxRowReader *r, const Bitmapset *columns, bool narrow)
{
	if (r->batch->rows == NULL || r->batch->tuple != NULL)
		return;
	r->rows = r->batch->rows;
	r->narrow = narrow;
	r->columns = r->time_attno == InvalidAttrNumber ? columns : bms_add_member(bms_copy(columns), r->time_attno);
	begin_kept(r);
	/* what is left for others has what they need */
	r->natts = Max(r->natts, Min(r->rows->last, r->desc->natts));
}

void
sx_reader_rewind(SxRowReader *r)
{
	r->left = r->batch->limit;
	r->end = 0;
	r->given = false;
	r->run = 0;
	r->passed = 0;
	seek(r, r->batch->from);
	if (r->wants_times)
	{
		r->times.limit = r->batch->times->limit;
		r->times.first = SX_TIME_END;
		r->times.last = SX_TIME_NONE;
		r->times.future = 0;
	}
	if (r->rows != NULL)
		begin_kept(r);
}

/* the next row is the one with this number, which is not before the current run; nothing of it has been looked at */
static void
seek(SxRowReader *r, uint64 number)
{
	while (r->run < r->batch->nruns && number - r->passed >= r->batch->runs[r->run].count)
		r->passed += r->batch->runs[r->run++].count;
	r->row = r->run < r->batch->nruns ? (uint16) (number - r->passed) : 0;
	r->end = 0;
}

/* ---- rows that somebody has left ---- */

static void
begin_kept(SxRowReader *r)
{
	SxBatchRows *rows = r->rows;
	uint64		from = r->batch->from;
	uint64		behind;

	leave_kept(r);
	sx_batch_rows_open(rows, r->batch, r->desc, r->columns);
	behind = rows->from + rows->n;
	r->keeps = from == behind;
	if (r->keeps || r->left == 0)
		return;
	r->in_place = r->narrow || rows->natts == r->desc->natts;
	r->table_at = rows->table_at;
	r->isnull_at = rows->isnull_at;
	r->rowsize = rows->rowsize;
	r->kept = sx_batch_row(rows, from);
	r->kept_end = sx_batch_row(rows, behind - from > r->left ? from + r->left : behind);
}

/* the same as in sx_reader_next(), and what is not done there */
static void
next_kept(SxRowReader *r)
{
	TupleTableSlot *slot = r->slot;
	char	   *row = r->kept;

	if (TTS_SHOULDFREE(slot))
	{
		/* materialized: that has put values of its own in place of the row's */
		r->rows->stale |= r->in_place;
		ExecClearTuple(slot);
	}
	if (r->in_place)
	{
		slot->tts_values = (Datum *) row;
		slot->tts_isnull = (bool *) (row + r->isnull_at);
	}
	else
	{
		memcpy(slot->tts_values, row, sizeof(Datum) * r->rows->natts);
		memcpy(slot->tts_isnull, row + r->isnull_at, sizeof(bool) * r->rows->natts);
	}
	slot->tts_flags &= ~TTS_FLAG_EMPTY;
	slot->tts_nvalid = r->desc->natts;
	slot->tts_tableOid = *(Oid *) (row + r->table_at);
	r->kept += r->rowsize;
	if (r->wants_times)
		note_time(r);
}

/* the slot is its own again */
static void
leave_kept(SxRowReader *r)
{
	if (r->kept == NULL)
		return;
	r->rows->stale |= TTS_SHOULDFREE(r->slot) && r->in_place;
	ExecClearTuple(r->slot);
	r->slot->tts_values = r->values;
	r->slot->tts_isnull = r->isnull;
	r->kept = r->kept_end = NULL;
}

/* all that were left are through: the others are read */
static void
read_on(SxRowReader *r)
{
	SxBatchRows *rows = r->rows;
	uint64		number = rows->from + (r->kept - rows->rows) / r->rowsize;

	leave_kept(r);
	r->left -= Min(r->left, number - r->batch->from);
	seek(r, number);
	r->keeps = number == rows->from + rows->n;
}

/* ---- rows that are read ---- */

bool
sx_reader_next_any(SxRowReader *r)
{
	TupleTableSlot *slot = r->slot;
	const SxRun *run;
	SxLeaf	   *leaf;
	OffsetNumber off;
	ItemId		lp;
	Page		page;
	TupleTableSlot *in;

	if (r->kept != NULL)
	{
		if (r->kept < r->kept_end)
		{
			next_kept(r);
			return true;
		}
		read_on(r);
	}
	if (r->batch->tuple != NULL && !r->given)
	{
		r->given = true;
		ExecClearTuple(slot);
		heap_deform_tuple(r->batch->tuple, r->desc, slot->tts_values, slot->tts_isnull);
		ExecStoreVirtualTuple(slot);
		return true;
	}

	/* to a run with a row left */
	for (;;)
	{
		if (r->left == 0 || r->run >= r->batch->nruns)
		{
			if (BufferIsValid(r->buffer))
			{
				ReleaseBuffer(r->buffer);
				r->buffer = InvalidBuffer;
			}
			note_end(r);
			return false;
		}
		run = &r->batch->runs[r->run];
		if (r->end == 0)
		{
			if (!begin_run(r, run))
			{
				/* on a dead file; its rows keep their numbers, so that what is left has a gap */
				r->keeps = false;
				r->left -= Min(r->left, (uint64) (run->count - r->row));
				r->run++;
				r->row = 0;
				continue;
			}
		}
		if (r->row < r->end)
			break;
		r->run++;
		r->row = 0;
		r->end = 0;
	}

	leaf = r->leaf;
	off = run->first + r->row;
	r->row++;
	r->left--;

	page = BufferGetPage(r->buffer);
	lp = PageGetItemId(page, off);
	r->tuple.t_data = (HeapTupleHeader) PageGetItem(page, lp);
	r->tuple.t_len = ItemIdGetLength(lp);
	r->tuple.t_tableOid = RelationGetRelid(leaf->rel);
	ItemPointerSet(&r->tuple.t_self, run->block, off);

	in = leaf->slot;
	ExecStoreBufferHeapTuple(&r->tuple, in, r->buffer);
	if (leaf->natts > 0)
		slot_getsomeattrs(in, leaf->natts);

	ExecClearTuple(slot);
	if (leaf->map == NULL)
	{
		memcpy(slot->tts_values, in->tts_values, sizeof(Datum) * leaf->natts);
		memcpy(slot->tts_isnull, in->tts_isnull, sizeof(bool) * leaf->natts);
	}
	else
	{
		for (int i = 0; i < r->natts; i++)
		{
			AttrNumber	attno = leaf->map->attnums[i];

			if (attno == 0)
				continue;		/* dropped in the stream */
			slot->tts_values[i] = in->tts_values[attno - 1];
			slot->tts_isnull[i] = in->tts_isnull[attno - 1];
		}
	}
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(leaf->rel);
	if (r->wants_times)
		note_time(r);
	if (r->keeps)
	{
		r->keeps = r->rows->n < r->rows->room;
		if (r->keeps)
			sx_batch_rows_add(r->rows, slot);
	}
	return true;
}

SxRun
sx_reader_row(SxRowReader *r)
{
	SxRun		run;

	if (r->kept != NULL)
		seek(r, r->rows->from + (r->kept - r->rows->rows) / r->rowsize - 1);
	run = r->batch->runs[r->run];
	run.first += r->kept != NULL ? r->row : r->row - 1;
	run.count = 1;
	return run;
}

static void
note_time(SxRowReader *r)
{
	TupleTableSlot *slot = r->slot;
	int64		event_time;

	if (slot->tts_isnull[r->time_attno - 1])
		return;					/* an older row: the column was made NOT NULL later */
	event_time = sx_event_time(slot->tts_values[r->time_attno - 1], r->batch->time_type);
	r->times.first = Min(r->times.first, event_time);
	if (event_time <= r->times.limit)
		r->times.last = Max(r->times.last, event_time);
	else
		r->times.future++;
}

/* All rows of the slice were read, for the first time */
static void
note_end(SxRowReader *r)
{
	SxBatch    *batch = r->batch;

	if (r->wants_times)
	{
		uint64		all = batch->nrows > batch->from ? batch->nrows - batch->from : 0;

		batch->times->covered += Min(all, batch->limit);
		batch->times->first = Min(batch->times->first, r->times.first);
		batch->times->last = Max(batch->times->last, r->times.last);
		batch->times->future += r->times.future;
		r->wants_times = false;
	}
	r->again = true;
}

void
sx_reader_end(SxRowReader *r)
{
	leave_kept(r);
	for (uint32 i = 0; i < r->nleaves; i++)
	{
		SxLeaf	   *leaf = r->leaves[i];

		if (leaf == NULL)
			continue;
		ExecDropSingleTupleTableSlot(leaf->slot);
		if (leaf->map != NULL)
			free_attrmap(leaf->map);
		table_close(leaf->rel, NoLock);
		pfree(leaf);
	}
	if (BufferIsValid(r->buffer))
		ReleaseBuffer(r->buffer);
	pfree(r->leaves);
	pfree(r);
}

/*
 * Pins the run's page and checks its rows, from the next one to the slice's end; false:
 * the file is dead.
 */
static bool
begin_run(SxRowReader *r, const SxRun *run)
{
	SxFileEntry *entry = sx_file_map_entry(r->batch->map, run->file);
	uint64		end;
	Page		page;
	OffsetNumber max;
	OffsetNumber missing = InvalidOffsetNumber;

	if (entry->dead)
		return false;

	r->leaf = r->leaves[run->file];
	if (r->leaf == NULL)
		r->leaf = open_leaf(r, entry);

	/* a block beyond the end must not be read; the file may have grown since we looked */
	if (run->block >= r->leaf->nblocks)
	{
		r->leaf->nblocks = RelationGetNumberOfBlocks(r->leaf->rel);
		if (run->block >= r->leaf->nblocks)
			missing_row(r, run, run->first + r->row);
	}

	r->buffer = ReleaseAndReadBuffer(r->buffer, r->leaf->rel, run->block);
	end = Min((uint64) run->count, r->row + Min(r->left, (uint64) run->count));

	LockBuffer(r->buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(r->buffer);
	max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
	for (OffsetNumber off = run->first + r->row; off < run->first + end; off++)
	{
		if (off > max || !sx_row_is_there(page, off, run->xid))
		{
			missing = off;
			break;
		}
	}
	LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);

	if (missing != InvalidOffsetNumber)
		missing_row(r, run, missing);
	r->end = (uint16) end;
	return true;
}

static SxLeaf *
open_leaf(SxRowReader *r, SxFileEntry *entry)
{
	MemoryContext old = MemoryContextSwitchTo(r->context);
	SxLeaf	   *leaf = palloc0(sizeof(SxLeaf));

	/* sx_batch_lock has taken the lock, so this does not wait */
	leaf->rel = table_open(entry->leaf, AccessShareLock);
	if (!SxFileEquals(SxRelationFile(leaf->rel), entry->file))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("file of table \"%s\" has changed since its rows were found",
						RelationGetRelationName(leaf->rel))));

	leaf->nblocks = RelationGetNumberOfBlocks(leaf->rel);
	leaf->slot = MakeSingleTupleTableSlot(RelationGetDescr(leaf->rel), &TTSOpsBufferHeapTuple);
	leaf->natts = r->natts;
	if (entry->leaf != r->batch->stream)
		leaf->map = SxBuildAttrMapIfReq(RelationGetDescr(leaf->rel), r->desc);
	if (leaf->map != NULL)
	{
		leaf->natts = 0;
		for (int i = 0; i < r->natts; i++)
			leaf->natts = Max(leaf->natts, leaf->map->attnums[i]);
	}
	r->leaves[entry->index] = leaf;
	MemoryContextSwitchTo(old);
	return leaf;
}

static void
missing_row(SxRowReader *r, const SxRun *run, OffsetNumber off)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("row (%u,%u) of stream \"%s\" was removed before it was read",
					run->block, off, get_rel_name(r->batch->stream)),
			 errdetail("It was inserted into table \"%s\", block %u, offset %u, by transaction %u.",
					   RelationGetRelationName(r->leaf->rel), run->block, off, run->xid)));
}

