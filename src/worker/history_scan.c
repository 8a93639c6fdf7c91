/*
 * history_scan.c
 *		History of a large stream, in chunks: each is computed by one plan over a range of blocks and
 *		written in one transaction with the place where the next one begins.
 *
 * The snapshot S is taken at the seam, as builder_history.c says, and becomes the view's stored position at
 * once, with the list of files and their sizes beside it (SxStoredScan): what the slot must hold is S's xmin
 * and WAL from L0, like for any view that stands at S.  The table holds what S sees in the blocks that are
 * done.  Whoever continues, after a crash, a restart or a pause, makes S again from the stored position.  When all blocks
 * are done the scan's state goes, and WAL leads on from L0.
 *
 * Chunks go from the newest rows to the oldest: partitions in descending order of their bounds, in each from the end
 * of the file to its beginning.  (An index on the event time would give the order more exactly, and read the
 * heap at random.)
 *
 * Until the end the watermark is not known, so no window closes, nothing is appended to sinks, and
 * alerts do not look.
 *
 * S is older than the transactions that read under it, so it sees all it should only while the slot's xmin
 * holds it.  Where the slot has let go (max_held_xids) a chunk cannot be trusted, nor can those before:
 * rows that S sees may be gone, and rows that it does not see may be frozen.  Then all begins anew, in one
 * transaction, whose own snapshot nobody can take away.  The same if a file was replaced by somebody who has not
 * waited for us.
 *
 * A chunk in which a row fails is done once more by addresses, through the same path as new rows, so that
 * this row becomes a dead letter.  Chunks of a stream with a condition are done so at once.
 *
 * Size of chunks: groups that come again in each chunk are written in each.  So a chunk is as large as it takes for
 * writing to be a small part of the time by the planner's estimate of groups.  Where keys are computed, and in windows of
 * event time, that is no good: the planner takes each time for another window, and rows mostly lie in the order of their time,
 * so that windows hardly come again.  Then a small part is read first, as a sample, whose result goes away: it shows how long
 * rows take, and how many new groups they bring.  A chunk is what one process would read in a few seconds: so much is lost
 * by a crash, and by a command that wants a lock.  While writing turns out to take a notable part, chunks double.
 *
 * Locks: AccessShareLock on the leaves of a chunk while it is computed; a command that waits for it ends
 * the builder (consumer_builders.c).  Commands that would remove rows or replace a file wait until the view is
 * built (ddl/settle.c).
 */
#include "worker/builder_internal.h"

#include <math.h>

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "capture/delta_scan.h"
#include "capture/range_scan.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "time/watermark.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "worker/history_progress.h"
#include "testing/stop_points.h"

/* size of a chunk, as long as nothing is known: 256 MB */
#define CHUNK_BLOCKS	32768
/* of the sample: 4 MB, and the least that is a chunk */
#define SAMPLE_BLOCKS	512
#define LEAST_BLOCKS	2048
/* what one process would read in this time is a chunk */
#define CHUNK_US		3000000
/* and of one that is gone through by rows, so that its addresses fit memory */
#define ROWS_BLOCKS		2048
#define CHUNK_FILES		64
/* what would be left, and be smaller than one part in so many, goes with the chunk before */
#define REST_SHARE		4
/* chunks grow while writing takes more than one part in so many */
#define WRITE_SHARE		20
/* a group written costs as much as so many rows read; one that is new to the hash table, and a row that is put out, as so many */
#define GROUP_COST		10
#define NEW_GROUP		2
#define NEW_ROW			1
/* but they are at most so many times as large: 8 GB */
#define MOST_CHUNKS		32
/* of the result, between two notes */
#define REPORT_ROWS		1000
/* with streamext.backfill_rate a chunk takes about so long */
#define RATE_MS			500

#ifdef SX_TESTING
int			sx_testing_chunk_blocks = 0;
#endif

/* A chunk on its way */
typedef struct Chunk
{
	SxRanges	part;
	SxRange		ranges[CHUNK_FILES];
	int			files[CHUNK_FILES]; /* of the stored scan */
	BlockNumber blocks;
	double		groups_per_row; /* as far as was seen; 0: not known */
	/* where the next one begins */
	int			next_file;
	BlockNumber next_block;
	/* by rows */
	SxFileMap  *map;
	SxPending  *pending;
	SxReady    *ready;
	uint32		file;
} Chunk;

/* What the first rows have shown */
typedef struct Sample
{
	uint64		blocks;
	uint64		blocks_read;
	int64		rows;
	double		groups;			/* in the hash table; -1: there is none */
	/* a row takes so many microseconds when nothing else happens: the least of several intervals */
	TimestampTz last;
	double		row_us;
	/* when half of it had been read */
	int64		half_rows;
	double		half_groups;
} Sample;

static Sample sample;

static uint64 most_blocks(void);
static uint64 size_by_groups(SxStoredScan *scan);
static double size_to_write(double groups_per_row);
static uint64 take_sample(SxStoredScan *scan, double *groups_per_row);
static void note_sample(BlockNumber blocks, int64 rows);
static List *newest_first(Oid relid, List *leaves);
static void list_files(SxStoredPosition *pos, SxStoredScan *scan);
static void run_empty(void);
static void choose(SxStoredScan *scan, uint64 blocks, Chunk *chunk);
static bool lock_files(SxStoredScan *scan, Chunk *chunk);
static bool is_protected(const SxStoredPosition *stored);
static double rows_per_block(const SxStoredScan *scan, Oid leaf);
static uint64 blocks_done(const SxStoredScan *scan);
static uint64 blocks_left(const SxStoredScan *scan);
static double expected_result(const SxPartSize *part);
static void store_row(void *arg, TupleTableSlot *row);
static bool compute(SxStoredScan *scan, Chunk *chunk, bool *replaced);
static bool compute_by_rows(SxStoredPosition *stored, Chunk *chunk, MemoryContext context);
static void add_row(void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off);
static void finish(SxStoredPosition *stored);
static int64 rest_us(TimestampTz since, int64 rows);
static void rest(TimestampTz since, int64 rows);

/* a table with no more is done in one piece */
static uint64
most_blocks(void)
{
#ifdef SX_TESTING
	if (sx_testing_chunk_blocks > 0)
		return sx_testing_chunk_blocks;
#endif
	return CHUNK_BLOCKS;
}

/* of a chunk, in blocks, as the planner's estimate of groups wants it; 0: it says nothing */
static uint64
size_by_groups(SxStoredScan *scan)
{
	SxViewInfo *info = sx_builder.info;
	double		rows;
	double		size = 0;
	SxRunAs		as;

	if (sx_builder.def->strategy != SX_MERGE || info->nkeys == 0 || info->window_key >= 0 || most_blocks() < CHUNK_BLOCKS ||
		scan->file >= scan->nfiles)
		return 0;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	LockRelationOid(scan->rels[scan->file], AccessShareLock);
	rows = SearchSysCacheExists1(RELOID, ObjectIdGetDatum(scan->rels[scan->file])) ?
		CHUNK_BLOCKS * rows_per_block(scan, scan->rels[scan->file]) : 0;
	if (rows > 0)
	{
		SxPartSize	part = {.blocks = CHUNK_BLOCKS,.rows = rows};

		sx_run_as_begin(&as, sx_builder.def);
		size = size_to_write(sx_plan_range_groups(sx_builder.plan, &part) / rows);
		sx_run_as_end(&as);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return size;
}

/* 0: any */
static double
size_to_write(double groups_per_row)
{
	double		chunks = groups_per_row * GROUP_COST * WRITE_SHARE;

	return chunks > 1 ? CHUNK_BLOCKS * Min(chunks, MOST_CHUNKS) : 0;
}

/*
 * Returns the size of a chunk, in blocks.  Nothing is stored, so whatever happens to it leaves things as they were; what was
 * read is read again by the first chunk, which has the table to itself.
 */
static uint64
take_sample(SxStoredScan *scan, double *groups_per_row)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "streamext sample", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Chunk	   *chunk = palloc0(sizeof(Chunk));
	double		size = most_blocks();
	bool		replaced;

	choose(scan, Min(SAMPLE_BLOCKS, most_blocks()), chunk);
	memset(&sample, 0, sizeof(sample));
	sample.blocks = chunk->blocks;
	chunk->part.progress = note_sample;
	/* what is wrong the chunk will show as well */
	if (compute(scan, chunk, &replaced) && sample.rows > sample.half_rows && sample.row_us > 0)
	{
		double		found = tuplestore_tuple_count(sx_builder.rows);
		double		rows = (double) sample.rows / sample.blocks * blocks_left(scan);
		double		late = sample.groups >= 0 ? (sample.groups - sample.half_groups) / (sample.rows - sample.half_rows) :
			found / sample.rows;

		sx_progress_sampled(sample.row_us / (1 + (sx_builder.def->strategy == SX_MERGE ? NEW_GROUP : NEW_ROW) * found / sample.rows));
		/* new ones go on to come as they did to the end, at least, and as they did in all, at most: between the two */
		*groups_per_row = sqrt(Max(found, late * rows) * (found / sample.rows * rows)) / rows;
		size = Max(LEAST_BLOCKS, Min(CHUNK_US / sample.row_us * chunk->blocks / sample.rows, MOST_CHUNKS * CHUNK_BLOCKS));
		if (sx_builder.def->strategy == SX_MERGE)
			size = Max(size, size_to_write(late));
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return most_blocks() < CHUNK_BLOCKS ? most_blocks() : (uint64) size;
}

static void
note_sample(BlockNumber blocks, int64 rows)
{
	TimestampTz now = sx_now();

	if (sample.last != 0 && rows > 0)
	{
		double		us = (double) Max(now - sample.last, 1) / rows;

		sample.row_us = sample.row_us == 0 ? us : Min(us, sample.row_us);
	}
	sample.last = now;
	sample.blocks_read += blocks;
	sample.rows += rows;
	sample.groups = sx_plan_groups_so_far();
	if (sample.half_rows == 0 && sample.blocks_read * 2 >= sample.blocks)
	{
		sample.half_rows = sample.rows;
		sample.half_groups = sample.groups;
	}
}

/* in a transaction with a snapshot, with the members locked */
bool
sx_history_is_large(void)
{
	ListCell   *lc;
	uint64		blocks = 0;
	double		rows = 0;
	double		cost;
	SxRunAs		as;

	foreach(lc, newest_first(sx_builder.def->streamid, NIL))
	{
		Relation	rel = relation_open(lfirst_oid(lc), AccessShareLock);
		BlockNumber n = RelationGetNumberOfBlocks(rel);

		blocks += n;
		relation_close(rel, NoLock);
		rows += n * rows_per_block(NULL, lfirst_oid(lc));
	}
	if (sx_backfill_rate > 0 && rows > sx_backfill_rate)
		return true;
	if (blocks <= most_blocks())
		return false;
	/* where indexes make all of it cheaper than a chunk */
	sx_run_as_begin(&as, sx_builder.def);
	cost = sx_plan_history_cost(sx_builder.plan);
	sx_run_as_end(&as);
	return cost > most_blocks() * (seq_page_cost + cpu_tuple_cost * rows / blocks);
}

/* leaves by descending bounds, the default partition last */
static List *
newest_first(Oid relid, List *leaves)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	PartitionDesc desc;
	int			last;

	if (rel == NULL)
		return leaves;
	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
	{
		if (rel->rd_rel->relkind == RELKIND_RELATION)
			leaves = lappend_oid(leaves, relid);
		relation_close(rel, NoLock);
		return leaves;
	}
	desc = RelationGetPartitionDesc(rel, false);
	last = desc->nparts > 0 ? desc->boundinfo->default_index : -1;
	for (int i = desc->nparts - 1; i >= 0; i--)
		if (i != last)
			leaves = newest_first(desc->oids[i], leaves);
	if (last >= 0)
		leaves = newest_first(desc->oids[last], leaves);
	relation_close(rel, NoLock);
	return leaves;
}

/*
 * Takes S and stores the beginning; writers that were open at pos->start_lsn have ended.  False: S cannot be
 * stored, because it does not list all sub-transactions that run.
 */
bool
sx_history_begin(SxStoredPosition *pos)
{
	SxStoredScan *scan = palloc0(sizeof(SxStoredScan));
	SxFileMap  *map;

	StartTransactionCommand();
	sx_builder_history_begins();
	(void) sx_builder_members(true);
	/* the files before S, as in builder_history.c */
	map = sx_file_map_create(CurrentMemoryContext);
	sx_file_map_refresh(map, list_make1_oid(sx_builder.def->streamid), false);
	sx_builder_files(map, pos);
	scan->at = pos->complete_at = GetCurrentTimestamp();
	PushActiveSnapshot(GetTransactionSnapshot());
	pos->position = scan->upto = sx_position_from_snapshot(GetActiveSnapshot());
	if (pos->position->wal_only)
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return false;
	}
	list_files(pos, scan);
	scan->time_attno = sx_builder.time.attno;
	scan->latest = SX_TIME_NONE;
	pos->scan = scan;

	sx_builder_begin_results();
	run_empty();
	sx_builder_write(pos, true);
	PopActiveSnapshot();
	CommitTransactionCommand();
	SX_STOP_POINT_OF(history_stored, sx_builder.def->viewid);
	sx_builder_protect(pos->position->xmin, pos->start_lsn);
	/* nothing is lost of what it has not begun to read; is_protected() will see whether it is held */
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->protect_xmin = pos->position->xmin;
	sx_builder.v->exposed = sx_builder.v->xmin_let_go = false;
	SpinLockRelease(&sx_builder.db->mutex);
	return true;
}

/* in the order in which they are read, with their sizes: what S sees lies within */
static void
list_files(SxStoredPosition *pos, SxStoredScan *scan)
{
	ListCell   *lc;

	scan->rels = palloc(sizeof(Oid) * Max(pos->nfiles, 1));
	scan->nodes = palloc(sizeof(Oid) * Max(pos->nfiles, 1));
	scan->blocks = palloc(sizeof(int64) * Max(pos->nfiles, 1));
	foreach(lc, newest_first(sx_builder.def->streamid, NIL))
	{
		Oid			leaf = lfirst_oid(lc);

		for (int i = 0; i < pos->nfiles; i++)
		{
			Relation	rel;

			if (pos->file_rels[i] != leaf)
				continue;
			rel = relation_open(leaf, AccessShareLock);
			scan->rels[scan->nfiles] = leaf;
			scan->nodes[scan->nfiles] = pos->file_nodes[i];
			scan->blocks[scan->nfiles] = RelationGetNumberOfBlocks(rel);
			scan->nfiles++;
			relation_close(rel, NoLock);
		}
	}
	if (scan->nfiles != pos->nfiles)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the partitions of stream \"%s\" are changing", get_rel_name(sx_builder.def->streamid))));
	scan->block = scan->nfiles > 0 ? (uint32) scan->blocks[0] : 0;
}

/* without GROUP BY there is one row from the beginning; an error without rows is the view's */
static void
run_empty(void)
{
	SxRunAs		as;
	SxRanges	none = {0};
	SxPartSize	part = {.rows = 1};

	none.stream = sx_builder.def->streamid;
	sx_builder_begin_work(0);
	sx_run_as_begin(&as, sx_builder.def);
	sx_plan_run_ranges(sx_builder.plan, &none, &part, sx_builder_store_row, NULL);
	sx_run_as_end(&as);
	(void) sx_builder_end_work();
}

/* from the stored state to the end, or until others want the process's place */
SxHistoryResult
sx_history_run(SxStoredPosition *stored)
{
	SxStoredScan *scan = stored->scan;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "streamext history", ALLOCSET_DEFAULT_SIZES);
	uint64		size = size_by_groups(scan);
	uint64		sampled = most_blocks();
	uint64		by_rows = 0;	/* so many blocks, because a row of them fails */
	double		groups_per_row = 0;
	SxHistoryResult result = SX_HISTORY_DONE;

	sx_progress_begin(scan);
	sx_builder.in_history = true;
	sx_builder.watermark = SX_TIME_NONE;
	if (sx_backfill_rate == 0 && !sx_builder_has_condition() && is_protected(stored))
		sampled = take_sample(scan, &groups_per_row);
	if (size == 0)
		size = sampled;
	while (stored->scan != NULL)
	{
		Chunk	   *chunk;
		uint64		blocks = size;
		int64		before = scan->rows;
		int64		rows;
		TimestampTz started = sx_now();
		TimestampTz computed;
		bool		replaced = false;
		bool		singly;

		sx_worker_check();
		/* who goes on knows the new definition */
		if (sx_builder.redefined)
			sx_builder.v->yield = true;
		if (sx_builder.v->yield)
			result = SX_HISTORY_YIELDS;
		else if (!is_protected(stored))
			result = SX_HISTORY_VOID;
		if (result != SX_HISTORY_DONE)
			break;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		chunk = palloc0(sizeof(Chunk));
		if (sx_backfill_rate > 0 && scan->rows > 0 && blocks_done(scan) > 0)
			blocks = Min(blocks, Max(1, sx_backfill_rate * (RATE_MS / 1000.0) * blocks_done(scan) / scan->rows));
		else if (sx_backfill_rate > 0)
			blocks = 1;
		else if (blocks_left(scan) < blocks + blocks / REST_SHARE)
			blocks = blocks_left(scan);
		singly = by_rows > 0 || sx_builder_has_condition();
		if (by_rows > 0)
			blocks = Min(blocks, by_rows);
		if (singly)
			blocks = Min(blocks, ROWS_BLOCKS);
		choose(scan, blocks, chunk);
		sx_progress_chunk(chunk->blocks);
		chunk->part.progress = sx_progress_blocks;
		chunk->groups_per_row = groups_per_row;
		if (!singly && !compute(scan, chunk, &replaced) && !replaced)
		{
			by_rows = chunk->blocks;
			continue;
		}
		if (singly)
		{
			replaced = !compute_by_rows(stored, chunk, context);
			by_rows -= Min(by_rows, chunk->blocks);
		}
		if (replaced || !is_protected(stored))
		{
			result = SX_HISTORY_VOID;
			break;
		}
		computed = sx_now();
		sx_progress_computed(computed, tuplestore_tuple_count(sx_builder.rows));
		SX_STOP_POINT_OF(history_chunk_computed, sx_builder.def->viewid);

		if (!singly)
		{
			scan->rows += chunk->part.rows;
			scan->latest = Max(scan->latest, chunk->part.latest);
		}
		rows = scan->rows - before;
		/* each of several processes may have had all of them */
		if (!singly && rows > 0)
			groups_per_row = (double) tuplestore_tuple_count(sx_builder.rows) / chunk->part.processes / rows;
		scan->file = chunk->next_file;
		scan->block = chunk->next_block;
		if (scan->file >= scan->nfiles)
			finish(stored);
		sx_builder_commit(stored);
		SX_STOP_POINT_OF(history_chunk_committed, sx_builder.def->viewid);
		sx_builder_protect(stored->position->xmin, stored->start_lsn);
		sx_builder.turn_us = 0;

		if (!singly && sx_builder.def->strategy == SX_MERGE &&
			(sx_now() - computed) * WRITE_SHARE > computed - started && size < MOST_CHUNKS * most_blocks())
			size *= 2;
		sx_progress_written(scan, rows, Max(rest_us(started, rows), 0));
		if (stored->scan != NULL)
			rest(started, rows);
		else
			SX_STOP_POINT_OF(history_committed, sx_builder.def->viewid);
	}
	sx_builder.in_history = false;
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(context);
	return result;
}

/* ---- chunks ---- */

/* the next blocks, about so many; those of one file from the end to the beginning */
static void
choose(SxStoredScan *scan, uint64 blocks, Chunk *chunk)
{
	int			file = scan->file;
	uint64		block = scan->block;

	chunk->part.stream = sx_builder.def->streamid;
	chunk->part.ranges = chunk->ranges;
	for (;;)
	{
		uint64		n = Min(block, blocks);

		/* empty ones are passed over in any case */
		if (block == 0 && file < scan->nfiles)
		{
			file++;
			block = file < scan->nfiles ? scan->blocks[file] : 0;
			continue;
		}
		if (n == 0 || chunk->part.n == CHUNK_FILES)
			break;
		chunk->files[chunk->part.n] = file;
		chunk->ranges[chunk->part.n].leaf = scan->rels[file];
		chunk->ranges[chunk->part.n].from = block - n;
		chunk->ranges[chunk->part.n].nblocks = n;
		chunk->part.n++;
		chunk->blocks += n;
		blocks -= n;
		block -= n;
	}
	chunk->next_file = file;
	chunk->next_block = block;
}

/* the chunk ends before the first that is not free; false: one has another file than S has seen */
static bool
lock_files(SxStoredScan *scan, Chunk *chunk)
{
	for (int i = 0; i < chunk->part.n; i++)
	{
		SxRange    *range = &chunk->ranges[i];
		Relation	rel;
		bool		same;

		if (i == 0)
			LockRelationOid(range->leaf, AccessShareLock);
		else if (!ConditionalLockRelationOid(range->leaf, AccessShareLock))
		{
			chunk->next_file = chunk->files[i];
			chunk->next_block = range->from + range->nblocks;
			for (int j = i; j < chunk->part.n; j++)
				chunk->blocks -= chunk->ranges[j].nblocks;
			chunk->part.n = i;
			break;
		}
		rel = try_relation_open(range->leaf, NoLock);
		same = rel != NULL && SxFileNumber(SxRelationFile(rel)) == scan->nodes[chunk->files[i]];
		if (rel)
			relation_close(rel, NoLock);
		if (!same)
			return false;
	}
	return true;
}

/* does the slot hold what S sees, and did it until now? */
static bool
is_protected(const SxStoredPosition *stored)
{
	SxDb	   *db = sx_builder.db;
	SxView	   *v = sx_builder.v;
	bool		result;

	SpinLockAcquire(&db->mutex);
	result = !v->exposed && !v->xmin_let_go &&
		(!TransactionIdIsNormal(db->slot_xmin) ||
		 !TransactionIdFollows(db->slot_xmin, (TransactionId) stored->position->xmin));
	SpinLockRelease(&db->mutex);
	return result;
}

/* as found so far, or as the planner would guess; in a transaction */
static double
rows_per_block(const SxStoredScan *scan, Oid leaf)
{
	Relation	rel;
	BlockNumber pages;
	double		tuples;
	double		visible;

	if (scan != NULL && scan->rows > 0 && blocks_done(scan) > 0)
		return (double) scan->rows / blocks_done(scan);
	rel = table_open(leaf, AccessShareLock);
	estimate_rel_size(rel, NULL, &pages, &tuples, &visible);
	table_close(rel, NoLock);
	return pages > 0 ? tuples / pages : 0;
}

static uint64
blocks_done(const SxStoredScan *scan)
{
	uint64		done;

	(void) sx_scan_blocks(scan, &done);
	return done;
}

static uint64
blocks_left(const SxStoredScan *scan)
{
	uint64		done;
	uint64		all = sx_scan_blocks(scan, &done);

	return all - done;
}

/* rows of the result: the planner knows which groups come again in each chunk, unless keys are computed; 0: not known */
static double
expected_result(const SxPartSize *part)
{
	SxPartSize	unseen = *part;
	double		planned = 0;

	unseen.groups = 0;
	if (part->groups == 0 || sx_builder.def->strategy == SX_MERGE)
		planned = sx_plan_range_groups(sx_builder.plan, &unseen);
	return planned > 0 ? planned : part->groups;
}

static void
store_row(void *arg, TupleTableSlot *row)
{
	int64		n;

	sx_builder_store_row(arg, row);
	n = tuplestore_tuple_count(sx_builder.rows);
	if (n % REPORT_ROWS == 0)
		sx_progress_put(n);
}

/* false: a row has failed, or a file was replaced */
static bool
compute(SxStoredScan *scan, Chunk *chunk, bool *replaced)
{
	volatile bool ok = true;
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		SxRunAs		as;

		StartTransactionCommand();
		if (!lock_files(scan, chunk))
		{
			*replaced = true;
			ok = false;
		}
		else
		{
			SxPartSize	part = {.blocks = chunk->blocks,.rows = 1};

			/* of lookups and catalogs; the stream is read under S */
			PushActiveSnapshot(GetTransactionSnapshot());
			if (chunk->part.n > 0)
				part.rows = chunk->blocks * rows_per_block(scan, chunk->ranges[0].leaf);
			part.groups = part.rows * chunk->groups_per_row;
			chunk->part.snapshot = RegisterSnapshot(sx_position_to_snapshot(scan->upto));
			chunk->part.time_attno = sx_builder.time.attno;
			chunk->part.time_type = sx_builder.time.type;
			if (sx_builder.time.attno != InvalidAttrNumber)
				chunk->part.time_limit = sx_time_limit(&sx_builder.time);
			chunk->part.latest = SX_TIME_NONE;

			sx_builder_begin_results();
			sx_builder_begin_work(0);
			sx_run_as_begin(&as, sx_builder.def);
			sx_worker_take_memory(maintenance_work_mem);
			if (sx_backfill_rate == 0)
				sx_worker_allow_large_plans();
			sx_progress_expect(expected_result(&part));
			sx_plan_run_ranges(sx_builder.plan, &chunk->part, &part, store_row, NULL);
			sx_ranges_find_latest(&chunk->part);
			sx_run_as_end(&as);
			UnregisterSnapshot(chunk->part.snapshot);
			PopActiveSnapshot();
		}
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		sx_builder_recover_from_row(caller);
		ok = false;
	}
	PG_END_TRY();
	(void) sx_builder_end_work();
	MemoryContextSwitchTo(caller);
	return ok;
}

/* false: a file was replaced */
static bool
compute_by_rows(SxStoredPosition *stored, Chunk *chunk, MemoryContext context)
{
	SxStoredScan *scan = stored->scan;
	Snapshot	s;
	SxBatch    *batch;
	int64		nrows;

	StartTransactionCommand();
	if (!lock_files(scan, chunk))
	{
		CommitTransactionCommand();
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	s = RegisterSnapshot(sx_position_to_snapshot(scan->upto));
	MemoryContextSwitchTo(context);
	chunk->map = sx_file_map_create(context);
	sx_file_map_refresh(chunk->map, list_make1_oid(sx_builder.def->streamid), false);
	chunk->pending = sx_pending_create(context);
	chunk->ready = sx_pending_new_ready(chunk->pending, SX_ALWAYS_XID, stored->start_lsn);
	for (int i = 0; i < chunk->part.n; i++)
	{
		SxRange    *range = &chunk->ranges[i];

		for (chunk->file = 0; chunk->file < sx_file_map_count(chunk->map); chunk->file++)
		{
			SxFileEntry *e = sx_file_map_entry(chunk->map, chunk->file);

			if (e->dead || e->leaf != range->leaf)
				continue;
			sx_file_scan_visible(range->leaf, range->from, range->nblocks, s, add_row, chunk);
			break;
		}
	}
	UnregisterSnapshot(s);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	SX_STOP_POINT_OF(history_scanned, sx_builder.def->viewid);

	sx_builder_begin_results();
	batch = sx_batch_create(chunk->map, sx_builder.def->streamid, &chunk->ready, 1, 0);
	nrows = batch->nrows;
	sx_builder_compute(batch, false);
	if (batch->times)
		scan->latest = Max(scan->latest, batch->times->last);
	/* known at the end; and rows of history are not counted */
	sx_builder.watermark = SX_TIME_NONE;
	memset(&sx_builder.counts, 0, sizeof(sx_builder.counts));
	scan->rows += nrows;
	return true;
}

static void
add_row(void *arg, uint64 fxid, TransactionId xid, BlockNumber block, OffsetNumber off)
{
	Chunk	   *chunk = arg;

	sx_pending_ready_add_run(chunk->pending, chunk->ready, chunk->file, block, off, xid);
}

/* the last chunk brings the watermark: windows close, with what follows from that */
static void
finish(SxStoredPosition *stored)
{
	SxStoredScan *scan = stored->scan;
	int64		latest = scan->latest;

	if (sx_builder.time.attno != InvalidAttrNumber && scan->time_attno != sx_builder.time.attno)
	{
		SxRunAs		as;

		/* declared, or declared anew, in the midst of it */
		StartTransactionCommand();
		PushActiveSnapshot(sx_position_to_snapshot(scan->upto));
		sx_run_as_begin(&as, sx_builder.def);
		latest = sx_latest_in_history(sx_builder.def->streamid, &sx_builder.time);
		sx_run_as_end(&as);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	if (sx_builder.time.attno != InvalidAttrNumber)
		sx_builder.watermark = sx_watermark_after(&sx_builder.time, SX_TIME_NONE, latest);
	stored->scan = NULL;
	SpinLockAcquire(&sx_builder.db->mutex);
	sx_builder.v->scanning = false;
	SpinLockRelease(&sx_builder.db->mutex);
}

/* ---- rate ---- */

/* so that no more than streamext.backfill_rate are read in a second */
static int64
rest_us(TimestampTz since, int64 rows)
{
	if (sx_backfill_rate == 0)
		return 0;
	return since + (int64) (rows * 1000000.0 / sx_backfill_rate) - sx_now();
}

/* nothing is locked meanwhile */
static void
rest(TimestampTz since, int64 rows)
{
	int64		us;

	while ((us = rest_us(since, rows)) > 0 && !sx_builder.v->yield)
		sx_builder_pause(Min(us / 1000 + 1, 100));
}
