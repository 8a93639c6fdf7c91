/*
 * batch_rows.c
 *		Rows of a batch that several views take: who reads them first leaves them here for the others.
 *
 * Finding a page, checking its rows and taking them apart is the same for every view on a stream, and for a cheap view
 * most of the work.  So the views of a stream take a slice of a batch in turn (worker/consumer_compute.c), and the scan of
 * the first one (row_reader.c) keeps the columns that any of them needs.  The scans of the others run over these: nothing is
 * read, checked or copied again.  It is only rows that are shared; every view runs its plan, in its own transaction, and takes
 * its own locks.
 *
 * What is kept is one part of a batch without gaps, from the beginning of a slice as far as somebody has read: a plan that
 * fails half way, or did not need all rows, leaves what it has read, and the next one goes on behind it.  Limits are the slice
 * and SX_BATCH_ROWS_BYTES; where memory ends, each view reads for itself.  All is freed with the batch.
 *
 * Values are kept as they lie in the row.  What is toasted stays where it is, and is read through its pointer by whoever needs
 * it: the slot's horizon keeps it as it keeps the row.
 *
 * A table may change between the transactions of two views.  When an invalidation says so, what is kept is not used any more.
 */
#include "postgres.h"

#include "access/tupmacs.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "capture/batch_rows.h"
#include "compat.h"

/* as many columns more than are needed are not worth copying each row into a slot: see row_reader.c */
#define WIDER_BY		8

#define FIRST_CHUNK		1024
#define LAST_CHUNK		(256 * 1024)

static dlist_head all_rows = DLIST_STATIC_INIT(all_rows);
static bool callback_registered = false;

static void forget_rows(void *arg);
static void relation_changed(Datum arg, Oid relid);
static void start(SxBatchRows *rows, const SxBatch *batch, TupleDesc desc);
static void *get_memory(SxBatchRows *rows, Size size);
static bool keep_value(SxBatchRows *rows, const SxKeptColumn *column, Datum *value);

SxBatchRows *
sx_batch_rows_create(MemoryContext parent, const Bitmapset *columns)
{
	MemoryContext context = AllocSetContextCreate(parent, "streamext batch rows", ALLOCSET_SMALL_SIZES);
	SxBatchRows *rows = MemoryContextAllocZero(context, sizeof(SxBatchRows));
	MemoryContextCallback *callback = MemoryContextAllocZero(context, sizeof(MemoryContextCallback));
	MemoryContext old = MemoryContextSwitchTo(context);

	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		callback_registered = true;
	}
	rows->context = context;
	rows->columns = bms_copy(columns);
	rows->data = AllocSetContextCreate(context, "streamext batch rows data", ALLOCSET_SMALL_SIZES);
	dlist_push_tail(&all_rows, &rows->node);
	callback->func = forget_rows;
	callback->arg = rows;
	MemoryContextRegisterResetCallback(context, callback);
	MemoryContextSwitchTo(old);
	return rows;
}

void
sx_batch_rows_destroy(SxBatchRows *rows)
{
	MemoryContextDelete(rows->context);
}

static void
forget_rows(void *arg)
{
	dlist_delete(&((SxBatchRows *) arg)->node);
}

/* flags only */
static void
relation_changed(Datum arg, Oid relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_rows)
	{
		SxBatchRows *rows = dlist_container(SxBatchRows, node, iter.cur);

		if (rows->runs != NULL && (!OidIsValid(relid) || sx_file_map_concerns(rows->map, relid)))
			rows->stale = true;
	}
}

void
sx_batch_rows_open(SxBatchRows *rows, const SxBatch *batch, TupleDesc desc, const Bitmapset *columns)
{
	bool		known = bms_is_subset(columns, rows->columns);

	if (!known)
	{
		MemoryContext old = MemoryContextSwitchTo(rows->context);

		rows->columns = bms_add_members(rows->columns, columns);
		MemoryContextSwitchTo(old);
	}
	if (!known || rows->stale || rows->runs != batch->runs || batch->from < rows->from ||
		batch->from > rows->from + rows->n || batch->from == rows->from + rows->room)
		start(rows, batch, desc);
}

static void
start(SxBatchRows *rows, const SxBatch *batch, TupleDesc desc)
{
	uint64		n = batch->nrows > batch->from ? Min(batch->nrows - batch->from, batch->limit) : 0;
	int			attno = -1;

	MemoryContextReset(rows->data);
	rows->map = batch->map;
	rows->runs = batch->runs;
	rows->from = batch->from;
	rows->n = 0;
	rows->room = 0;
	rows->stale = false;
	rows->chunk_left = 0;
	rows->chunk_size = FIRST_CHUNK;
	rows->bytes = 0;

	rows->natts = 0;
	rows->ncolumns = 0;
	rows->kept = MemoryContextAlloc(rows->data, sizeof(SxKeptColumn) * Max(bms_num_members(rows->columns), 1));
	while ((attno = bms_next_member(rows->columns, attno)) >= 0 && attno <= desc->natts)
	{
		SxKeptColumn *column = &rows->kept[rows->ncolumns];
		Form_pg_attribute att = TupleDescAttr(desc, attno - 1);

		if (att->attisdropped)
			continue;
		column->index = attno - 1;
		column->len = att->attlen;
		column->byval = att->attbyval;
		column->align = att->attalign;
		rows->natts = attno;
		rows->ncolumns++;
	}
	rows->last = rows->natts;
	if (desc->natts <= rows->last + WIDER_BY)
		rows->natts = desc->natts;
	rows->table_at = sizeof(Datum) * rows->natts;
	rows->isnull_at = rows->table_at + sizeof(Oid);
	rows->rowsize = MAXALIGN(rows->isnull_at + sizeof(bool) * rows->natts);
	n = Min(n, SX_BATCH_ROWS_BYTES / rows->rowsize);
	rows->rows = n > 0 ? get_memory(rows, n * rows->rowsize) : NULL;
	if (rows->rows != NULL)
		rows->room = n;
}

/* NULL: not to be had; that is no error */
static void *
get_memory(SxBatchRows *rows, Size size)
{
	if (rows->bytes + size > SX_BATCH_ROWS_BYTES)
		return NULL;
	rows->bytes += size;
	return MemoryContextAllocExtended(rows->data, size, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
}

void
sx_batch_rows_add(SxBatchRows *rows, TupleTableSlot *slot)
{
	char	   *row = sx_batch_row(rows, rows->from + rows->n);
	Datum	   *values = (Datum *) row;
	bool	   *isnull = (bool *) (row + rows->isnull_at);

	memset(values, 0, sizeof(Datum) * rows->natts);
	memset(isnull, true, sizeof(bool) * rows->natts);
	for (int i = 0; i < rows->ncolumns; i++)
	{
		const SxKeptColumn *column = &rows->kept[i];

		if (slot->tts_isnull[column->index])
			continue;
		isnull[column->index] = false;
		values[column->index] = slot->tts_values[column->index];
		if (!column->byval && !keep_value(rows, column, &values[column->index]))
		{
			rows->room = rows->n;
			return;
		}
	}
	*(Oid *) (row + rows->table_at) = slot->tts_tableOid;
	rows->n++;
}

/* *value becomes the copy; false: no memory */
static bool
keep_value(SxBatchRows *rows, const SxKeptColumn *column, Datum *value)
{
	char	   *from = DatumGetPointer(*value);
	Size		size;
	Size		padding = 0;

	if (column->len == -1)
		size = VARSIZE_ANY(from);
	else if (column->len == -2)
		size = strlen(from) + 1;
	else
		size = column->len;
	/* a short header stands anywhere */
	if (column->len != -1 || !VARATT_IS_1B(from))
		padding = att_align_nominal((uintptr_t) rows->chunk, column->align) - (uintptr_t) rows->chunk;

	if (size + padding > rows->chunk_left)
	{
		Size		wanted = Max(rows->chunk_size, size);
		char	   *chunk = get_memory(rows, wanted);

		if (chunk == NULL)
			return false;
		rows->chunk = chunk;
		rows->chunk_left = wanted;
		rows->chunk_size = Min(rows->chunk_size * 2, LAST_CHUNK);
		padding = 0;
	}
	memcpy(rows->chunk + padding, from, size);
	*value = PointerGetDatum(rows->chunk + padding);
	rows->chunk += size + padding;
	rows->chunk_left -= size + padding;
	return true;
}
