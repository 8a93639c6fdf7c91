/*
 * delta_scan.c
 *		Batches of row addresses, and the custom scan that reads them.
 *
 * The scan stands in a delta plan where the stream's own scan would, and gives the rows in commit order (row_reader.c).
 * Under an aggregate they are not projected where columns are all that it needs.
 *
 * Locking: sx_batch_lock takes AccessShareLock, without waiting, on the stream and the
 * leaves; they last until the caller's transaction ends, and only then is it certain that
 * the files named by the batch are still those of the leaves.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "attempt.h"
#include "capture/delta_scan.h"
#include "capture/row_reader.h"
#include "capture/scan_columns.h"
#include "query/plan.h"
#include "query/row_json.h"

SxBatch    *sx_delta_batch = NULL;

typedef struct RowAsJson
{
	SxBatch    *batch;
	char	   *json;			/* NULL: not made */
} RowAsJson;

typedef struct DeltaScanState
{
	CustomScanState css;
	SxRowReader *reader;		/* NULL: EXPLAIN only */
} DeltaScanState;

static Plan *plan_delta_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
							 List *tlist, List *clauses, List *custom_plans);
static Node *create_delta_scan_state(CustomScan *cscan);
static void begin_delta_scan(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_delta_scan(CustomScanState *node);
static void end_delta_scan(CustomScanState *node);
static void rescan_delta_scan(CustomScanState *node);
static bool is_left_out(ScanState *node, SxRowReader *r, TupleTableSlot *slot);
static void ask_for_row(SxRowReader *r, SxBatchLate *late, int64 event_time);
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
sx_batch_create(SxFileMap *map, Oid stream, SxReady **ready, int nready, uint32 skip)
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

			if (!ours[SxRunFile(run)] || (run->file & skip) != 0)
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
sx_delta_scan_path(PlannerInfo *root, RelOptInfo *rel, double rows, bool whole)
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
	path->custom_private = list_make1_int(whole);
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

	scan->scan.plan.targetlist = linitial_int(path->custom_private) ? sx_whole_rows(root, rel, tlist) : tlist;
	scan->scan.plan.qual = quals;
	scan->scan.scanrelid = rel->relid;
	scan->flags = path->flags;
	scan->custom_private = sx_columns_needed(rel, tlist, quals);
	scan->methods = &scan_methods;
	return &scan->scan.plan;
}

Bitmapset *
sx_delta_scan_columns(Plan *plan, Bitmapset *columns)
{
	ListCell   *lc;

	foreach(lc, ((CustomScan *) plan)->custom_private)
		columns = bms_add_member(columns, lfirst_int(lc));
	return columns;
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

	state->reader = sx_reader_begin(sx_delta_batch, RelationGetDescr(rel), sx_last_column(scan->custom_private),
									node->ss.ss_ScanTupleSlot);
	if (sx_delta_batch->rows != NULL)
		sx_reader_share(state->reader, sx_delta_scan_columns(&scan->scan.plan, NULL), node->ss.ps.ps_ProjInfo != NULL);
}

/* a row is mostly there (row_reader.h), so what ExecScan() does for scans of all kinds counts */
static TupleTableSlot *
exec_delta_scan(CustomScanState *node)
{
	SxRowReader *r = ((DeltaScanState *) node)->reader;
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	ExprState  *qual = node->ss.ps.qual;
	ProjectionInfo *projection = node->ss.ps.ps_ProjInfo;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		ResetExprContext(econtext);
		if (!sx_reader_next(r))
		{
			ExecClearTuple(slot);
			return projection ? ExecClearTuple(projection->pi_state.resultslot) : slot;
		}
		econtext->ecxt_scantuple = slot;
		if (r->batch->late != NULL && is_left_out(&node->ss, r, slot))
			continue;
		if (ExecQual(qual, econtext))
			return projection ? ExecProject(projection) : slot;
		InstrCountFiltered1(node, 1);
	}
}

static void
end_delta_scan(CustomScanState *node)
{
	DeltaScanState *state = (DeltaScanState *) node;

	if (state->reader != NULL)
		sx_reader_end(state->reader);
	state->reader = NULL;
}

static void
rescan_delta_scan(CustomScanState *node)
{
	DeltaScanState *state = (DeltaScanState *) node;

	if (state->reader != NULL)
		sx_reader_rewind(state->reader);
	ExecScanReScan(&node->ss);
}

/* A late row counts as one if the conditions on the stream let it through; it is what they look at */
static bool
is_left_out(ScanState *node, SxRowReader *r, TupleTableSlot *slot)
{
	SxBatchLate *late = r->batch->late;
	int64		event_time = sx_event_time(slot->tts_values[r->time_attno - 1], r->batch->time_type);
	SxLate		how;
	bool		leave_out;

	if (event_time >= late->before || slot->tts_isnull[r->time_attno - 1])
		return false;
	how = late->how_late(late->arg, event_time);
	if (how == SX_NOT_LATE)
		return false;
	if (node->ps.qual != NULL)
	{
		bool		passes = ExecQual(node->ps.qual, node->ps.ps_ExprContext);

		ResetExprContext(node->ps.ps_ExprContext);
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
			late->runs[late->nruns++] = sx_reader_row(r);
		}
	}
	return leave_out;
}

static void
ask_for_row(SxRowReader *r, SxBatchLate *late, int64 event_time)
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
	asked->run = sx_reader_row(r);
	asked->event_time = event_time;
}

void
sx_batch_find_times(SxBatch *batch)
{
	Relation	rel = table_open(batch->stream, AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	SxBatch		all = *batch;
	SxRowReader *r;

	all.from = 0;
	all.limit = PG_UINT64_MAX;
	all.late = NULL;
	all.times->covered = 0;
	all.times->first = SX_TIME_END;
	all.times->last = SX_TIME_NONE;
	all.times->future = 0;
	r = sx_reader_begin(&all, RelationGetDescr(rel), 0, slot);
	while (sx_reader_next(r))
		CHECK_FOR_INTERRUPTS();
	sx_reader_end(r);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

void
sx_batch_each(SxBatch *batch, AttrNumber natts, SxBatchRow each, void *arg)
{
	Relation	rel = table_open(batch->stream, AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	SxBatch		plain = *batch;
	SxRowReader *r;

	plain.times = NULL;
	plain.late = NULL;
	r = sx_reader_begin(&plain, RelationGetDescr(rel), natts, slot);
	while (sx_reader_next(r))
	{
		SxRun		row = {0};

		CHECK_FOR_INTERRUPTS();
		if (batch->tuple == NULL)
			row = sx_reader_row(r);
		each(arg, slot, &row, batch->limit - r->left - 1);
	}
	sx_reader_end(r);
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
			if (off > pagemax || !sx_row_is_there(page, off, run.xid))
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
	SxRowReader *r;
	SxRunAs		as;

	sx_run_as_table_owner(&as, out->batch->stream);
	plain.times = NULL;
	plain.late = NULL;
	r = sx_reader_begin(&plain, desc, desc->natts, slot);
	if (sx_reader_next(r))
	{
		Datum		row = ExecFetchSlotHeapTupleDatum(slot);
		FmgrInfo	to_jsonb;

		sx_row_json_function(&to_jsonb, desc);
		out->json = DatumGetCString(DirectFunctionCall1(jsonb_out, FunctionCall1(&to_jsonb, row)));
	}

	sx_reader_end(r);
	ExecDropSingleTupleTableSlot(slot);
	sx_run_as_end(&as);
	table_close(rel, NoLock);
}
