/*
 * history_progress.c
 *		How far a builder has come with history, for all to see, and how long the rest takes.
 *
 * A chunk takes its time in three parts: its blocks are read; the result is put out, which is nothing for rows that pass a
 * condition and much for groups that did not fit memory; the result is written.  The first goes by blocks, the others by rows of
 * the result.  Chunks to come take what was seen of late; a row of the result is at first taken for so many that are
 * read, and few of them, which are written at a cost that many share, change little of that.
 */
#include "worker/builder_internal.h"

#include "worker/history_progress.h"

/* in rows read: to put out a group, to write it, and to write a row that is none */
#define PUT_GROUP	3
#define WRITE_GROUP	7
#define WRITE_ROW	4
/* so many of the result count as much as that */
#define ASSUMED_ROWS	10000
/* then the builder ends, and the consumer takes the view in: about so long, in microseconds */
#define END_US		20000
/* what a chunk itself shows counts from this part of it on */
#define TELLING		8

static void expect_by_groups(SxHistoryProgress *h, double groups);
static double average_read(const SxHistoryProgress *h, double read_us, double blocks);
static void assume(const SxHistoryProgress *h, double read_us, double *put_us, double *write_us);
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
	v->history.grouped = sx_builder.def->strategy == SX_MERGE;
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
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->history.chunk_put = result;
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
	SpinLockRelease(&sx_builder.db->mutex);
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
	h->spent_rows += rows;
	h->read_us = average_read(h, read_us, blocks);
	h->read_blocks = (h->read_blocks + blocks) / 2;
	h->rest_us = rest_us / blocks;
	if (h->write_us == 0)
		assume(h, read_us, &h->put_us, &h->write_us);
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
	double		read_us = h->read_us;
	double		put_us = h->put_us;
	double		write_us = h->write_us;
	double		per_block = h->rows_per_block;
	double		result = Max(h->chunk_result, h->chunk_put);
	uint64		after = h->blocks - h->done - Min(h->chunk, h->blocks - h->done);
	double		left = 0;

	if (h->chunk > 0 && h->chunk_done > h->first_done && (read_us == 0 || h->chunk_done * TELLING > h->chunk))
		read_us = (double) ((h->chunk_read != 0 ? h->chunk_read : now) - h->chunk_since) / (h->chunk_done - h->first_done);
	if (read_us == 0)
		return -1;
	if (write_us == 0)
		assume(h, read_us, &put_us, &write_us);
	if (h->chunk > 0 && result > 0)
		per_block = result / h->chunk;

	if (h->chunk == 0)
		left = 0;
	else if (h->chunk_computed != 0)
	{
		double		written = (double) (now - h->chunk_computed);

		/* it takes longer than it did: at any moment it may be done, for all that is known */
		write_us = Max(write_us, written / Max(result, 1));
		left = result * write_us - written;
	}
	else if (h->chunk_read != 0)
	{
		double		spent = (double) (now - h->chunk_read);

		if (h->chunk_put > 0 && h->chunk_put * TELLING > result)
			put_us = spent / h->chunk_put;
		left = Max(result * put_us - spent, 0) + result * write_us;
	}
	else
		left = (h->chunk - Min(h->chunk_done, h->chunk)) * read_us + result * (put_us + write_us);
	read_us = average_read(h, read_us, Min(h->chunk_done, h->chunk));
	return left + END_US + after * (read_us + h->rest_us + per_block * (put_us + write_us));
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
assume(const SxHistoryProgress *h, double read_us, double *put_us, double *write_us)
{
	double		rows = h->rows + h->chunk_rows;
	double		row_us = h->row_us;

	if (row_us == 0 && rows > 0)
		row_us = read_us * (h->done + Min(h->chunk_done, h->chunk)) / rows;
	*put_us = h->grouped ? PUT_GROUP * row_us : 0;
	*write_us = (h->grouped ? WRITE_GROUP : WRITE_ROW) * row_us;
}

/* what was seen of rows of the result, beside what was thought before */
static double
so_far(double us, TimestampTz took, int64 rows)
{
	return (us * ASSUMED_ROWS + took) / (ASSUMED_ROWS + rows);
}
