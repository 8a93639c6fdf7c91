/*
 * history_progress.c
 *		How far a builder has come with history, for all to see, and how long the rest takes.
 *
 * A chunk takes its time in three parts: its blocks are read; the result is put out, which is nothing for rows that pass a
 * condition and much for groups that did not fit memory; the result is written: groups sorted before.  The first goes by
 * blocks, the others by rows of the result.  Chunks to come take what was seen of late; a row of the result is at first
 * taken for so many that are read, and few of them, which are written at a cost that many share, change little of that.
 *
 * Percent is of time: of a chunk's blocks those count that its time so far is worth.  It never falls.
 */
#include "worker/builder_internal.h"

#include "miscadmin.h"
#include "worker/history_progress.h"

/* in rows read: to put out a group; to write it, with so much more for each column; and to write a row that is none */
#define PUT_GROUP		6
#define WRITE_GROUP		9.5
#define WRITE_COLUMN	0.75
#define WRITE_ROW		3
/* groups that fit memory take as much less */
#define IN_MEMORY		0.5
/* of the time to write: until groups are sorted, at most; and after the last row */
#define SORTED			0.5
#define COMMITTED		0.05
/* so many of the result count as much as that */
#define ASSUMED_ROWS	10000
/* then the builder ends, and the consumer takes the view in: about so long, in microseconds */
#define END_US		35000
/* what a chunk itself shows counts from this part of it on */
#define TELLING		8

/* what a chunk on its way, and those to come, are thought to take, in microseconds */
typedef struct Costs
{
	double		read_us;		/* a block */
	double		put_us;			/* a row of the result */
	double		write_us;		/* the same */
	double		result;			/* rows that the chunk puts out */
	double		per_block;		/* rows that a later one does */
} Costs;

static void expect_by_groups(SxHistoryProgress *h, double groups);
static void tell(SxHistoryProgress *h, TimestampTz now);
static bool cost(const SxHistoryProgress *h, TimestampTz now, Costs *c);
static double chunk_left(const SxHistoryProgress *h, TimestampTz now, const Costs *c);
static double write_left(const SxHistoryProgress *h, TimestampTz now, const Costs *c);
static double average_read(const SxHistoryProgress *h, double read_us, double blocks);
static void assume(const SxHistoryProgress *h, double read_us, double result, double *put_us, double *write_us);
static double so_far(double us, TimestampTz took, int64 rows);

void
sx_progress_begin(const SxStoredScan *scan)
{
	SxView	   *v = sx_builder.v;
	uint64		done;
	uint64		all = sx_scan_blocks(scan, &done);
	TimestampTz now = sx_now();

	SpinLockAcquire(&sx_builder.db->mutex);
	memset(&v->history, 0, sizeof(v->history));
	v->history.blocks = all;
	v->history.done = done;
	v->history.rows = scan->rows;
	v->history.since = now;
	v->history.percent = all > 0 ? 100.0 * done / all : 0;
	if (sx_builder.def->strategy == SX_MERGE)
		v->history.columns = sx_builder.info->desc->natts;
	/* about: a tuple, and what sorting it takes */
	v->history.in_memory = maintenance_work_mem * 1024.0 / (48 + 16 * v->history.columns);
	SpinLockRelease(&sx_builder.db->mutex);
	sx_builder_phase("reading the rows that are there");
}

void
sx_progress_sampled(double us)
{
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->history.row_us = us;
	SpinLockRelease(&sx_builder.db->mutex);
}

void
sx_progress_chunk(uint64 blocks)
{
	SxView	   *v = sx_builder.v;
	TimestampTz now = sx_now();

	SpinLockAcquire(&sx_builder.db->mutex);
	v->history.chunk_since = now;
	v->history.first_done = 0;
	v->history.chunk_read = v->history.chunk_computed = 0;
	v->history.chunk = blocks;
	v->history.chunk_result = 0;
	v->history.chunk_put = 0;
	v->history.chunk_sorted = 0;
	v->history.chunk_written = 0;
	v->history.mark_rows = 0;
	v->history.mark_groups = 0;
	SpinLockRelease(&sx_builder.db->mutex);
	if (strncmp(v->phase, "reading", 7) != 0)
		sx_builder_phase("reading the rows that are there");
}

void
sx_progress_expect(double result)
{
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->history.chunk_result = result;
	SpinLockRelease(&sx_builder.db->mutex);
}

void
sx_progress_blocks(BlockNumber blocks, int64 rows)
{
	SxHistoryProgress *h = &sx_builder.v->history;
	TimestampTz now = sx_now();
	double		groups = sx_plan_groups_so_far();

	SpinLockAcquire(&sx_builder.db->mutex);
	h->chunk_done += blocks;
	/* until now the chunk has been prepared: parallel workers started, expressions compiled */
	if (h->first_done == 0)
	{
		h->chunk_since = now;
		h->first_done = h->chunk_done;
	}
	h->chunk_rows += rows;
	if (groups >= 0)
		expect_by_groups(h, groups);
	if (h->chunk_read == 0 && h->chunk_done >= h->chunk)
		h->chunk_read = now;
	tell(h, now);
	SpinLockRelease(&sx_builder.db->mutex);
}

/* they go on to come as they did of late: fewer and fewer, where keys come again */
static void
expect_by_groups(SxHistoryProgress *h, double groups)
{
	double		done = (double) h->chunk_done / Max(h->chunk, 1);

	if (h->chunk_rows >= 2 * h->mark_rows)
	{
		h->mark_rows = h->chunk_rows;
		h->mark_groups = groups;
	}
	else if (done > 0 && done < 1 && h->chunk_rows > h->mark_rows)
		h->chunk_result = groups + (groups - h->mark_groups) / (h->chunk_rows - h->mark_rows) * h->chunk_rows * (1 / done - 1);
}

void
sx_progress_put(int64 result)
{
	SxHistoryProgress *h = &sx_builder.v->history;
	TimestampTz now = sx_now();

	SpinLockAcquire(&sx_builder.db->mutex);
	h->chunk_put = result;
	tell(h, now);
	SpinLockRelease(&sx_builder.db->mutex);
}

void
sx_progress_computed(TimestampTz at, int64 result)
{
	SxHistoryProgress *h = &sx_builder.v->history;

	SpinLockAcquire(&sx_builder.db->mutex);
	/* row by row nobody tells */
	if (h->chunk_read == 0)
		h->chunk_read = at;
	h->chunk_computed = at;
	h->chunk_put = result;
	h->chunk_result = result;
	tell(h, at);
	SpinLockRelease(&sx_builder.db->mutex);
	sx_builder_phase("writing the result");
}

void
sx_progress_writes(int64 rows)
{
	SxHistoryProgress *h = &sx_builder.v->history;
	TimestampTz now = sx_now();

	SpinLockAcquire(&sx_builder.db->mutex);
	h->chunk_written = rows;
	if (h->chunk_sorted == 0)
		h->chunk_sorted = now;
	tell(h, now);
	SpinLockRelease(&sx_builder.db->mutex);
}

/* what all of it has come to, as far as is known */
static void
tell(SxHistoryProgress *h, TimestampTz now)
{
	Costs		c;
	double		spent = (double) (now - h->chunk_since);

	if (h->blocks > 0 && h->chunk > 0 && spent > 0 && cost(h, now, &c))
		h->percent = Max(h->percent, 100.0 * (h->done + h->chunk * spent / (spent + chunk_left(h, now, &c))) / h->blocks);
}

void
sx_progress_written(const SxStoredScan *scan, int64 rows, int64 rest_us)
{
	SxHistoryProgress *h = &sx_builder.v->history;
	TimestampTz now = sx_now();
	uint64		done;
	double		blocks;
	double		read_us;

	(void) sx_scan_blocks(scan, &done);
	SpinLockAcquire(&sx_builder.db->mutex);
	blocks = Max(h->chunk, 1);
	read_us = (h->chunk_read - h->chunk_since) / (blocks > h->first_done ? blocks - h->first_done : blocks);
	h->done = done;
	h->rows = scan->rows;
	if (h->blocks > 0)
		h->percent = Max(h->percent, 100.0 * done / h->blocks);
	h->spent_rows += rows;
	h->read_us = average_read(h, read_us, blocks);
	h->read_blocks = (h->read_blocks + blocks) / 2;
	h->rest_us = rest_us / blocks;
	if (h->write_us == 0)
		assume(h, read_us, h->chunk_put, &h->put_us, &h->write_us);
	h->put_us = so_far(h->put_us, h->chunk_computed - h->chunk_read, h->chunk_put);
	h->write_us = so_far(h->write_us, now - h->chunk_computed, h->chunk_put);
	h->rows_per_block = h->chunk_put / blocks;
	h->chunk_done -= Min(h->chunk_done, h->chunk);
	h->chunk_rows -= Min(h->chunk_rows, rows);
	h->chunk = 0;
	SpinLockRelease(&sx_builder.db->mutex);
}

double
sx_history_time_left(const SxHistoryProgress *h, TimestampTz now)
{
	uint64		after = h->blocks - h->done - Min(h->chunk, h->blocks - h->done);
	double		read_us;
	Costs		c;

	if (!cost(h, now, &c))
		return -1;
	read_us = average_read(h, c.read_us, Min(h->chunk_done, h->chunk));
	return chunk_left(h, now, &c) + END_US + after * (read_us + h->rest_us + c.per_block * (c.put_us + c.write_us));
}

/* false: nothing is known yet */
static bool
cost(const SxHistoryProgress *h, TimestampTz now, Costs *c)
{
	c->read_us = h->read_us;
	c->put_us = h->put_us;
	c->write_us = h->write_us;
	c->per_block = h->rows_per_block;
	c->result = Max(h->chunk_result, h->chunk_put);
	if (h->chunk > 0 && h->chunk_done > h->first_done && (c->read_us == 0 || h->chunk_done * TELLING > h->chunk))
		c->read_us = (double) ((h->chunk_read != 0 ? h->chunk_read : now) - h->chunk_since) / (h->chunk_done - h->first_done);
	if (c->read_us == 0)
		return false;
	if (c->write_us == 0)
		assume(h, c->read_us, c->result, &c->put_us, &c->write_us);
	if (h->chunk > 0 && c->result > 0)
		c->per_block = c->result / h->chunk;
	return true;
}

static double
chunk_left(const SxHistoryProgress *h, TimestampTz now, const Costs *c)
{
	double		put_us = c->put_us;
	double		spent;

	if (h->chunk == 0)
		return 0;
	if (h->chunk_computed != 0)
		return write_left(h, now, c);
	if (h->chunk_read == 0)
		return (h->chunk - Min(h->chunk_done, h->chunk)) * c->read_us + c->result * (put_us + c->write_us);
	spent = (double) (now - h->chunk_read);
	if (h->chunk_put > 0 && h->chunk_put * TELLING > c->result)
		put_us = spent / h->chunk_put;
	return Max(c->result * put_us - spent, 0) + c->result * c->write_us;
}

/* first as was thought, and more and more as it goes */
static double
write_left(const SxHistoryProgress *h, TimestampTz now, const Costs *c)
{
	double		all = c->result * c->write_us;
	double		sorting = (double) ((h->chunk_sorted != 0 ? h->chunk_sorted : now) - h->chunk_computed);
	double		part;

	if (c->result <= 0)
		return 0;
	part = Min(h->chunk_written / c->result, 1);
	all = Max(all - sorting, all * (1 - SORTED));
	if (h->chunk_sorted == 0)
		return all;
	return (1 + COMMITTED - part) * ((1 - part) * all + (now - h->chunk_sorted));
}

/* with what was before: other work on the server changes it; and a small chunk says little */
static double
average_read(const SxHistoryProgress *h, double read_us, double blocks)
{
	if (h->read_blocks == 0 || blocks == 0)
		return read_us;
	return (h->read_us * h->read_blocks + read_us * blocks) / (h->read_blocks + blocks);
}

/* by what a row takes one process in a sample; without one, by the rows that were read */
static void
assume(const SxHistoryProgress *h, double read_us, double result, double *put_us, double *write_us)
{
	double		rows = h->rows + h->chunk_rows;
	double		row_us = h->row_us;

	if (row_us == 0 && rows > 0)
		row_us = read_us * (h->done + Min(h->chunk_done, h->chunk)) / rows;
	*put_us = 0;
	*write_us = WRITE_ROW * row_us;
	if (h->columns == 0)
		return;
	if (result < h->in_memory)
		row_us *= IN_MEMORY;
	*put_us = PUT_GROUP * row_us;
	*write_us = (WRITE_GROUP + WRITE_COLUMN * h->columns) * row_us;
}

/* what was seen of rows of the result, beside what was thought before */
static double
so_far(double us, TimestampTz took, int64 rows)
{
	return (us * ASSUMED_ROWS + took) / (ASSUMED_ROWS + rows);
}
