/*
 * delta_scan.c
 *		Batches of row addresses, and the custom scan that reads them.
 *
 * The scan stands in a delta plan where the stream's own scan would.  It goes through the
 * runs of a batch in commit order.  A run lies on one page: the page is pinned, all
 * its rows are checked under a share lock, then the lock is let go and the rows are
 * returned while the pin stays.  The pin is what keeps their bytes in place, as in any
 * heap scan.  Runs that follow each other on a page share the pin.
 *
 * A row counts when its raw xmin is the recorded id, whatever its xmax: no snapshot is
 * asked.  The slot's horizon keeps VACUUM and pruning from removing it; if it is gone all
 * the same, that is an error, never a row less.
 *
 * Values are taken from the leaf's tuple slot only up to the last column that the plan
 * needs, and moved to the stream's row type by name where a partition differs.
 *
 * Locking: sx_batch_lock takes AccessShareLock, without waiting, on the stream and the
 * leaves; they last until the caller's transaction ends, and only then is it certain that
 * the files named by the batch are still those of the leaves.
 */
#include "postgres.h"

#include "access/attmap.h"
#include "access/heapam.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "attempt.h"
#include "capture/delta_scan.h"
#include "query/plan.h"

SxBatch    *sx_delta_batch = NULL;

/* An opened leaf */
typedef struct Leaf
{
	Relation	rel;
	BlockNumber nblocks;		/* when last looked at */
	TupleTableSlot *slot;
	AttrMap    *map;			/* stream's column -> leaf's, or NULL: alike */
	int			natts;			/* leaf's columns to deform */
} Leaf;

/* Goes through the rows of a batch */
typedef struct RowReader
{
	SxBatch    *batch;
	TupleDesc	desc;			/* of the stream */
	int			natts;			/* stream's columns needed, from the first */
	MemoryContext context;		/* of the leaves */
	uint32		nleaves;
	Leaf	  **leaves;			/* by file number, opened when met */
	Buffer		buffer;
	uint32		run;			/* current one */
	uint16		row;			/* next one in it */
	uint16		end;			/* the checked ones end here; 0: run not begun */
	uint64		left;			/* rows of the slice to come */
	Leaf	   *leaf;			/* of the current run */
	HeapTupleData tuple;
	bool		again;			/* the rows have been read before */
	bool		given;			/* the row of a batch without addresses was read */
	SxBatchTimes times;			/* of this reader, if the batch's are wanted */
	bool		wants_times;
	AttrNumber	time_attno;		/* 0: nobody asks */
} RowReader;

typedef struct RowAsJson
{
	SxBatch    *batch;
	char	   *json;			/* NULL: not made */
} RowAsJson;

typedef struct DeltaScanState
{
	CustomScanState css;
	RowReader  *reader;			/* NULL: EXPLAIN only */
} DeltaScanState;

static Plan *plan_delta_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
							 List *tlist, List *clauses, List *custom_plans);
static Node *create_delta_scan_state(CustomScan *cscan);
static void begin_delta_scan(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_delta_scan(CustomScanState *node);
static void end_delta_scan(CustomScanState *node);
static void rescan_delta_scan(CustomScanState *node);
static TupleTableSlot *next_row(ScanState *node);
static bool recheck_row(ScanState *node, TupleTableSlot *slot);
static bool is_left_out(ScanState *node, RowReader *r, TupleTableSlot *slot);
static void ask_for_row(RowReader *r, SxBatchLate *late, int64 event_time);
static void note_time(RowReader *r, TupleTableSlot *slot);
static void note_end(RowReader *r);

static RowReader *reader_begin(SxBatch *batch, TupleDesc desc, int natts, TupleTableSlot *slot);
static void reader_rewind(RowReader *r);
static bool reader_next(RowReader *r, TupleTableSlot *slot);
static SxRun current_row(RowReader *r);
static void reader_end(RowReader *r);
static bool begin_run(RowReader *r, const SxRun *run);
static bool row_is_there(Page page, OffsetNumber off, TransactionId xid);
static Leaf *open_leaf(RowReader *r, SxFileEntry *entry);
pg_noreturn static void missing_row(RowReader *r, const SxRun *run, OffsetNumber off);
static void write_as_json(void *arg);

static const CustomPathMethods path_methods = {
	.CustomName = "streamext delta scan",
	.PlanCustomPath = plan_delta_scan,
};

static const CustomScanMethods scan_methods = {
	.CustomName = "streamext delta scan",
	.CreateCustomScanState = create_delta_scan_state,
};

static const CustomExecMethods exec_methods = {
	.CustomName = "streamext delta scan",
	.BeginCustomScan = begin_delta_scan,
	.ExecCustomScan = exec_delta_scan,
	.EndCustomScan = end_delta_scan,
	.ReScanCustomScan = rescan_delta_scan,
};

void
sx_delta_scan_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
}

SxBatch *
sx_batch_create(SxFileMap *map, Oid stream, SxReady **ready, int nready, bool skip_early)
{
	SxBatch    *batch = palloc0(sizeof(SxBatch));
	uint32		nfiles = sx_file_map_count(map);
	bool	   *ours = palloc0(Max(nfiles, 1));
	Size		maxruns = 0;
	Size		nruns = 0;

	batch->stream = stream;
	batch->map = map;
	batch->limit = PG_UINT64_MAX;

	for (uint32 i = 0; i < nfiles; i++)
	{
		SxFileEntry *entry = sx_file_map_entry(map, i);

		ours[i] = !entry->dead && list_member_oid(entry->streams, stream);
	}
	for (int i = 0; i < nready; i++)
	{
		for (uint32 j = 0; j < ready[i]->nruns; j++)
			maxruns += ours[SxRunFile(&ready[i]->runs[j])];
	}
	if (maxruns > INT_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many new rows in stream \"%s\" for one batch",
						get_rel_name(stream))));

	batch->runs = MemoryContextAllocHuge(CurrentMemoryContext,
										 sizeof(SxRun) * Max(maxruns, 1));
	for (int i = 0; i < nready; i++)
	{
		for (uint32 j = 0; j < ready[i]->nruns; j++)
		{
			const SxRun *run = &ready[i]->runs[j];

			if (!ours[SxRunFile(run)] || (skip_early && (run->file & SX_RUN_EARLY) != 0))
				continue;
			batch->runs[nruns] = *run;
			batch->runs[nruns++].file = SxRunFile(run);
			batch->nrows += run->count;
		}
	}
	batch->nruns = (int) nruns;
	pfree(ours);
	return batch;
}

SxBatch *
sx_batch_of_row(Oid stream, HeapTuple tuple)
{
	SxBatch    *batch = palloc0(sizeof(SxBatch));

	batch->stream = stream;
	batch->map = sx_file_map_create(CurrentMemoryContext);
	batch->limit = PG_UINT64_MAX;
	batch->nrows = 1;
	batch->tuple = tuple;
	return batch;
}

SxBatch *
sx_batch_slice(SxBatch *batch, uint64 from, uint64 limit)
{
	SxBatch    *slice = palloc(sizeof(SxBatch));

	*slice = *batch;
	from = Min(from, batch->limit);
	slice->from = batch->from + from;
	slice->limit = batch->limit == PG_UINT64_MAX ? limit : Min(limit, batch->limit - from);
	return slice;
}

/*
 * A leaf that has another file than the batch says is not free either: the map is about
 * to learn of it.
 */
bool
sx_batch_lock(SxBatch *batch)
{
	uint32		nfiles = sx_file_map_count(batch->map);
	bool	   *seen;
	bool		unlocked = true;

	if (!ConditionalLockRelationOid(batch->stream, AccessShareLock))
		return false;

	seen = palloc0(Max(nfiles, 1));
	for (int i = 0; i < batch->nruns && unlocked; i++)
	{
		uint32		file = batch->runs[i].file;
		SxFileEntry *entry;
		Relation	rel;

		if (seen[file])
			continue;
		seen[file] = true;
		entry = sx_file_map_entry(batch->map, file);
		if (entry->dead)
			continue;

		unlocked = false;
		if (!ConditionalLockRelationOid(entry->leaf, AccessShareLock))
			break;
		rel = try_relation_open(entry->leaf, NoLock);
		if (rel == NULL)
			break;
		unlocked = SxFileEquals(SxRelationFile(rel), entry->file);
		relation_close(rel, NoLock);
	}
	pfree(seen);
	return unlocked;
}

/* NULL if it cannot be made: it is for people */
char *
sx_batch_row_json(SxBatch *batch)
{
	RowAsJson	row = {batch};
	ErrorData  *error = sx_attempt(write_as_json, &row, false);

	if (error == NULL)
		return row.json;
	FreeErrorData(error);
	return NULL;
}

/*
 * The stream stands in the plan without its partitions, so the planner may have proved
 * it empty; its one path is replaced all the same, and its width set, which an empty
 * relation does not have.
 */
Path *
sx_delta_scan_path(PlannerInfo *root, RelOptInfo *rel, double rows)
{
	CustomPath *path = makeNode(CustomPath);
	ListCell   *lc;

	rel->rows = clamp_row_est(rows);
	rel->tuples = rel->rows;
	rel->consider_parallel = false;
	if (rel->reltarget->width == 0)
	{
		foreach(lc, rel->reltarget->exprs)
		{
			Node	   *expr = lfirst(lc);

			rel->reltarget->width += get_typavgwidth(exprType(expr), exprTypmod(expr));
		}
	}

	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.param_info = NULL;
	path->path.parallel_aware = false;
	path->path.parallel_safe = false;
	path->path.parallel_workers = 0;
	path->path.rows = rel->rows;
	path->path.startup_cost = 0;
	path->path.total_cost = cpu_tuple_cost * rel->rows;
	path->path.pathkeys = NIL;
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->methods = &path_methods;

	rel->pathlist = list_make1(path);
	rel->partial_pathlist = NIL;
	return &path->path;
}

bool
sx_is_delta_scan(Plan *plan)
{
	return IsA(plan, CustomScan) && ((CustomScan *) plan)->methods == &scan_methods;
}

static Plan *
plan_delta_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
				List *tlist, List *clauses, List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);
	List	   *quals = extract_actual_clauses(clauses, false);

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = quals;
	scan->scan.scanrelid = rel->relid;
	scan->flags = path->flags;
	scan->custom_private = list_make1_int(sx_columns_needed(rel, tlist, quals));
	scan->methods = &scan_methods;
	return &scan->scan.plan;
}

/* columns are deformed from the first to the last one that is used */
int
sx_columns_needed(RelOptInfo *rel, List *tlist, List *quals)
{
	Bitmapset  *attrs = NULL;
	int			attr = -1;
	int			natts = 0;

	pull_varattnos((Node *) tlist, rel->relid, &attrs);
	/* tlist is empty when the node above will replace it by its own */
	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &attrs);
	pull_varattnos((Node *) quals, rel->relid, &attrs);
	while ((attr = bms_next_member(attrs, attr)) >= 0)
	{
		int			attno = attr + FirstLowInvalidHeapAttributeNumber;

		if (attno == InvalidAttrNumber)
			natts = MaxAttrNumber;	/* the whole row */
		else
			natts = Max(natts, attno);
	}
	return natts;
}

static Node *
create_delta_scan_state(CustomScan *cscan)
{
	DeltaScanState *state = (DeltaScanState *) newNode(sizeof(DeltaScanState), T_CustomScanState);

	state->css.methods = &exec_methods;
	return (Node *) state;
}

static void
begin_delta_scan(CustomScanState *node, EState *estate, int eflags)
{
	DeltaScanState *state = (DeltaScanState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;
	Relation	rel = node->ss.ss_currentRelation;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	if (sx_delta_batch == NULL)
		elog(ERROR, "a delta plan was run without a batch");
	if (sx_delta_batch->stream != RelationGetRelid(rel))
		elog(ERROR, "a delta plan of \"%s\" was run with a batch of relation %u",
			 RelationGetRelationName(rel), sx_delta_batch->stream);

	state->reader = reader_begin(sx_delta_batch, RelationGetDescr(rel),
								 linitial_int(scan->custom_private), node->ss.ss_ScanTupleSlot);
}

static TupleTableSlot *
exec_delta_scan(CustomScanState *node)
{
	return ExecScan(&node->ss, (ExecScanAccessMtd) next_row, (ExecScanRecheckMtd) recheck_row);
}

static void
end_delta_scan(CustomScanState *node)
{
	DeltaScanState *state = (DeltaScanState *) node;

	if (state->reader != NULL)
		reader_end(state->reader);
	state->reader = NULL;
}

static void
rescan_delta_scan(CustomScanState *node)
{
	DeltaScanState *state = (DeltaScanState *) node;

	if (state->reader != NULL)
		reader_rewind(state->reader);
	ExecScanReScan(&node->ss);
}

static TupleTableSlot *
next_row(ScanState *node)
{
	DeltaScanState *state = (DeltaScanState *) node;
	TupleTableSlot *slot = node->ss_ScanTupleSlot;

	do
	{
		if (!reader_next(state->reader, slot))
			return ExecClearTuple(slot);
	} while (state->reader->batch->late != NULL && is_left_out(node, state->reader, slot));
	return slot;
}

/* A late row counts as one if the conditions on the stream let it through */
static bool
is_left_out(ScanState *node, RowReader *r, TupleTableSlot *slot)
{
	SxBatchLate *late = r->batch->late;
	int64		event_time = sx_event_time(slot->tts_values[r->time_attno - 1], r->batch->time_type);
	ExprContext *econtext = node->ps.ps_ExprContext;
	SxLate		how;
	bool		leave_out;

	if (event_time >= late->before || slot->tts_isnull[r->time_attno - 1])
		return false;
	how = late->how_late(late->arg, event_time);
	if (how == SX_NOT_LATE)
		return false;
	if (node->ps.qual != NULL)
	{
		bool		passes;

		econtext->ecxt_scantuple = slot;
		passes = ExecQual(node->ps.qual, econtext);
		ResetExprContext(econtext);
		if (!passes)
			return false;
	}
	if (how == SX_ASK)
	{
		if (!r->again)
			ask_for_row(r, late, event_time);
		return true;
	}
	leave_out = how == SX_TOO_LATE || (how == SX_LATE && late->leave_out);
	if (!r->again)
	{
		late->n++;
		late->nleft_out += leave_out;
		if (leave_out && late->keep)
		{
			if (late->nruns == late->maxruns)
			{
				late->maxruns = Max(late->maxruns * 2, 64);
				late->runs = late->runs == NULL ?
					MemoryContextAllocHuge(late->context, sizeof(SxRun) * late->maxruns) :
					repalloc_huge(late->runs, sizeof(SxRun) * late->maxruns);
			}
			late->runs[late->nruns++] = current_row(r);
		}
	}
	return leave_out;
}

static void
ask_for_row(RowReader *r, SxBatchLate *late, int64 event_time)
{
	SxAskedRow *asked;

	if (late->nasked == late->maxasked)
	{
		late->maxasked = Max(late->maxasked * 2, 64);
		late->asked = late->asked == NULL ?
			MemoryContextAllocHuge(late->context, sizeof(SxAskedRow) * late->maxasked) :
			repalloc_huge(late->asked, sizeof(SxAskedRow) * late->maxasked);
	}
	asked = &late->asked[late->nasked++];
	asked->run = current_row(r);
	asked->event_time = event_time;
}

/* Only UPDATE and row locks ask, and a delta plan has neither */
static bool
recheck_row(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

/* slot: the virtual slot that reader_next will fill */
static RowReader *
reader_begin(SxBatch *batch, TupleDesc desc, int natts, TupleTableSlot *slot)
{
	RowReader  *r = palloc0(sizeof(RowReader));

	r->batch = batch;
	r->desc = desc;
	r->natts = Min(natts, desc->natts);
	r->context = CurrentMemoryContext;
	r->nleaves = sx_file_map_count(batch->map);
	r->leaves = palloc0(sizeof(Leaf *) * Max(r->nleaves, 1));
	r->buffer = InvalidBuffer;
	r->wants_times = batch->times != NULL && batch->times->covered < batch->nrows;
	if (r->wants_times || batch->late != NULL)
		r->time_attno = batch->time_attno;
	r->natts = Max(r->natts, r->time_attno);
	reader_rewind(r);

	/* columns beyond natts are never filled, dropped ones neither */
	memset(slot->tts_isnull, true, desc->natts * sizeof(bool));
	memset(slot->tts_values, 0, desc->natts * sizeof(Datum));
	return r;
}

/* Puts the reader before the first row of the slice */
static void
reader_rewind(RowReader *r)
{
	uint64		skip = r->batch->from;

	r->left = r->batch->limit;
	r->end = 0;
	r->given = false;
	for (r->run = 0; r->run < r->batch->nruns && skip >= r->batch->runs[r->run].count; r->run++)
		skip -= r->batch->runs[r->run].count;
	r->row = r->run < r->batch->nruns ? (uint16) skip : 0;
	if (r->wants_times)
	{
		r->times.limit = r->batch->times->limit;
		r->times.first = SX_TIME_END;
		r->times.last = SX_TIME_NONE;
		r->times.future = 0;
	}
}

static bool
reader_next(RowReader *r, TupleTableSlot *slot)
{
	const SxRun *run;
	Leaf	   *leaf;
	OffsetNumber off;
	ItemId		lp;
	Page		page;
	TupleTableSlot *in;

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
				/* on a dead file; its rows keep their numbers */
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
		note_time(r, slot);
	return true;
}

/* the address of the row that was read last */
static SxRun
current_row(RowReader *r)
{
	SxRun		run = r->batch->runs[r->run];

	run.first += r->row - 1;
	run.count = 1;
	return run;
}

static void
note_time(RowReader *r, TupleTableSlot *slot)
{
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
note_end(RowReader *r)
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

static void
reader_end(RowReader *r)
{
	for (uint32 i = 0; i < r->nleaves; i++)
	{
		Leaf	   *leaf = r->leaves[i];

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
begin_run(RowReader *r, const SxRun *run)
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
		if (off > max || !row_is_there(page, off, run->xid))
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

/* the page is locked, off at most its highest */
static bool
row_is_there(Page page, OffsetNumber off, TransactionId xid)
{
	ItemId		lp;

	if (off < FirstOffsetNumber)
		return false;
	lp = PageGetItemId(page, off);
	return ItemIdIsNormal(lp) &&
		HeapTupleHeaderGetRawXmin((HeapTupleHeader) PageGetItem(page, lp)) == xid;
}

void
sx_batch_find_times(SxBatch *batch)
{
	Relation	rel = table_open(batch->stream, AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	SxBatch		all = *batch;
	RowReader  *r;

	all.from = 0;
	all.limit = PG_UINT64_MAX;
	all.late = NULL;
	all.times->covered = 0;
	all.times->first = SX_TIME_END;
	all.times->last = SX_TIME_NONE;
	all.times->future = 0;
	r = reader_begin(&all, RelationGetDescr(rel), 0, slot);
	while (reader_next(r, slot))
		CHECK_FOR_INTERRUPTS();
	reader_end(r);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

void
sx_batch_each(SxBatch *batch, AttrNumber natts, SxBatchRow each, void *arg)
{
	Relation	rel = table_open(batch->stream, AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	SxBatch		plain = *batch;
	RowReader  *r;

	plain.times = NULL;
	plain.late = NULL;
	r = reader_begin(&plain, RelationGetDescr(rel), natts, slot);
	while (reader_next(r, slot))
	{
		SxRun		row = {0};

		CHECK_FOR_INTERRUPTS();
		if (batch->tuple == NULL)
			row = current_row(r);
		each(arg, slot, &row, batch->limit - r->left - 1);
	}
	reader_end(r);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

uint64
sx_batch_drop_missing(SxBatch *batch)
{
	uint64		missing = 0;
	int			n = 0;
	int			max = batch->nruns + 16;
	SxRun	   *runs = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(SxRun) * max);
	MemoryContext mcxt = GetMemoryChunkContext(batch);

	for (int i = 0; i < batch->nruns; i++)
	{
		SxRun		run = batch->runs[i];
		SxFileEntry *entry = sx_file_map_entry(batch->map, SxRunFile(&run));
		Relation	rel;
		Buffer		buffer = InvalidBuffer;
		Page		page = NULL;
		OffsetNumber pagemax = 0;
		SxRun	   *last = NULL;

		if (entry->dead)
			continue;
		CHECK_FOR_INTERRUPTS();
		rel = table_open(entry->leaf, AccessShareLock);
		if (run.block < RelationGetNumberOfBlocks(rel))
		{
			buffer = ReadBuffer(rel, run.block);
			LockBuffer(buffer, BUFFER_LOCK_SHARE);
			page = BufferGetPage(buffer);
			pagemax = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
		}
		for (OffsetNumber off = run.first; off < run.first + run.count; off++)
		{
			if (off > pagemax || !row_is_there(page, off, run.xid))
			{
				missing++;
				last = NULL;
			}
			else if (last != NULL)
				last->count++;
			else
			{
				if (n == max)
					runs = repalloc_huge(runs, sizeof(SxRun) * (max *= 2));
				last = &runs[n++];
				*last = run;
				last->first = off;
				last->count = 1;
			}
		}
		if (BufferIsValid(buffer))
			UnlockReleaseBuffer(buffer);
		table_close(rel, NoLock);
	}

	if (missing > 0)
	{
		batch->runs = MemoryContextAllocHuge(mcxt, sizeof(SxRun) * (n + 1));
		memcpy(batch->runs, runs, sizeof(SxRun) * n);
		batch->nruns = n;
		batch->nrows -= missing;
	}
	pfree(runs);
	return missing;
}

static Leaf *
open_leaf(RowReader *r, SxFileEntry *entry)
{
	MemoryContext old = MemoryContextSwitchTo(r->context);
	Leaf	   *leaf = palloc0(sizeof(Leaf));

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
missing_row(RowReader *r, const SxRun *run, OffsetNumber off)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("row (%u,%u) of stream \"%s\" was removed before it was read",
					run->block, off, get_rel_name(r->batch->stream)),
			 errdetail("It was inserted into table \"%s\", block %u, offset %u, by transaction %u.",
					   RelationGetRelationName(r->leaf->rel), run->block, off, run->xid)));
}

/*
 * The first row of the batch; NULL if it has none.  Types may have casts to JSON, which run as the owner of the
 * stream, who has chosen the types: not as the view's, whom the table may be a trap for.
 */
static void
write_as_json(void *arg)
{
	RowAsJson  *out = arg;
	Relation	rel = table_open(out->batch->stream, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	SxBatch		plain = *out->batch;
	RowReader  *r;
	SxRunAs		as;

	sx_run_as_table_owner(&as, out->batch->stream);
	plain.times = NULL;
	plain.late = NULL;
	r = reader_begin(&plain, desc, desc->natts, slot);
	if (reader_next(r, slot))
	{
		Datum		row = ExecFetchSlotHeapTupleDatum(slot);
		FmgrInfo	flinfo;
		FuncExpr   *expr;
		Const	   *value;
		Datum		json;

		/* to_jsonb learns its argument's type from the call's expression */
		fmgr_info(F_TO_JSONB, &flinfo);
		value = makeConst(desc->tdtypeid, desc->tdtypmod, InvalidOid, -1, row, false, false);
		expr = makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(value), InvalidOid, InvalidOid,
							COERCE_EXPLICIT_CALL);
		fmgr_info_set_expr((Node *) expr, &flinfo);
		json = FunctionCall1(&flinfo, row);
		out->json = DatumGetCString(DirectFunctionCall1(jsonb_out, json));
	}

	reader_end(r);
	ExecDropSingleTupleTableSlot(slot);
	sx_run_as_end(&as);
	table_close(rel, NoLock);
}
