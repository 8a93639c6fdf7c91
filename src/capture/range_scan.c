/*
 * range_scan.c
 *		The custom scan that reads a part of history: ranges of blocks, under a snapshot that may be
 *		older than the transaction.
 *
 * A heap scan limited to the range reads each page once, judges all its rows at once, and keeps the
 * pin while they are returned: as a sequential scan does, which it is but for its limits.  It never joins another
 * scan in the middle (syncscan), which limits do not allow.
 *
 * The snapshot is that of history, while everything else in the plan (lookups) is read under the
 * transaction's own.  What it sees is there as long as the slot's xmin, or the transaction itself, keeps it:
 * the caller's business.
 *
 * Event times are looked at while the rows pass, before any condition, as in delta_scan.c.
 *
 * Where all leaves have the stream's layout, which is the rule, rows stay in the slot into which the heap scan puts them,
 * and under an aggregate they are not projected either: what is left is what a sequential scan costs.  Otherwise values
 * are moved to the stream's row type, by name.
 *
 * In parallel (range_share.c) each process reads pieces of the ranges, and what they find is put together.
 *
 * Locking: the caller's AccessShareLock on the leaves.  A range that ends beyond the file is cut off: VACUUM
 * has removed pages that were empty for the snapshot, too.
 */
#include "postgres.h"

#include "access/attmap.h"
#include "access/heapam.h"
#include "access/parallel.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "capture/delta_scan.h"
#include "capture/range_scan.h"
#include "capture/range_share.h"
#include "capture/scan_columns.h"
#include "query/session.h"

/* blocks between two reports */
#define REPORT_BLOCKS	64

SxRanges   *sx_ranges = NULL;

/* Goes through the rows of a part */
typedef struct RangeReader
{
	SxRanges   *ranges;
	TupleDesc	desc;			/* of the stream */
	int			natts;			/* stream's columns needed, from the first */
	MemoryContext context;
	TupleTableSlot *direct;		/* all leaves have the stream's layout: read into this one */
	int			next;			/* range to open */
	SxRangeShare *share;		/* NULL: all are ours */
	/* the blocks that are open */
	SxRange		piece;
	Relation	rel;			/* NULL: none */
	TableScanDesc scan;
	TupleTableSlot *slot;		/* of the leaf's type, or direct */
	AttrMap    *map;			/* stream's column -> leaf's, or NULL: alike */
	int			leaf_natts;		/* leaf's columns to deform */
	BlockNumber block;			/* of the last row, or where the range begins */
	/* not reported yet */
	BlockNumber blocks;
	int64		rows;
	/* of what is shared, what was reported to the caller */
	uint64		told_blocks;
	int64		told_rows;
} RangeReader;

typedef struct RangeScanState
{
	CustomScanState css;
	RangeReader *reader;		/* NULL: EXPLAIN only */
} RangeScanState;

static Plan *plan_range_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
							 List *tlist, List *clauses, List *custom_plans);
static Node *create_range_scan_state(CustomScan *cscan);
static void begin_range_scan(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_range_scan(CustomScanState *node);
static void end_range_scan(CustomScanState *node);
static void rescan_range_scan(CustomScanState *node);
static Size estimate_share(CustomScanState *node, ParallelContext *pcxt);
static void init_share(CustomScanState *node, ParallelContext *pcxt, void *coordinate);
static void restart_share(CustomScanState *node, ParallelContext *pcxt, void *coordinate);
static void attach_share(CustomScanState *node, shm_toc *toc, void *coordinate);
static void shutdown_range_scan(CustomScanState *node);
static TupleTableSlot *next_row(ScanState *node);
static bool recheck_row(ScanState *node, TupleTableSlot *slot);
static bool same_layout(SxRanges *ranges);
static void read_directly(CustomScanState *node, EState *estate, Relation rel);
static RangeReader *reader_begin(SxRanges *ranges, TupleDesc desc, int natts, TupleTableSlot *slot);
static bool reader_next(RangeReader *r, TupleTableSlot *slot);
static void move_values(RangeReader *r, TupleTableSlot *in, TupleTableSlot *slot);
static void reader_end(RangeReader *r);
static bool next_piece(RangeReader *r);
static void open_leaf(RangeReader *r);
static void close_leaf(RangeReader *r);
static void pass_blocks(RangeReader *r, BlockNumber upto);
static void report(RangeReader *r);
static bool tell_sum(RangeReader *r);
static void note_time(RangeReader *r, TupleTableSlot *slot);

static const CustomPathMethods path_methods = {
	.CustomName = "streamext range scan",
	.PlanCustomPath = plan_range_scan,
};

static const CustomScanMethods scan_methods = {
	.CustomName = "streamext range scan",
	.CreateCustomScanState = create_range_scan_state,
};

static const CustomExecMethods exec_methods = {
	.CustomName = "streamext range scan",
	.BeginCustomScan = begin_range_scan,
	.ExecCustomScan = exec_range_scan,
	.EndCustomScan = end_range_scan,
	.ReScanCustomScan = rescan_range_scan,
	.EstimateDSMCustomScan = estimate_share,
	.InitializeDSMCustomScan = init_share,
	.ReInitializeDSMCustomScan = restart_share,
	.InitializeWorkerCustomScan = attach_share,
	.ShutdownCustomScan = shutdown_range_scan,
};

void
sx_range_scan_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
}

/* ---- planning ---- */

/*
 * rel's sizes are those of the part: see set_relation_info() in query/plan.c.  whole: more columns than are
 * needed do no harm above.  workers: 0, or how many read it together with the process that asks.
 */
Path *
sx_range_scan_path(PlannerInfo *root, RelOptInfo *rel, bool whole, int workers)
{
	CustomPath *path = makeNode(CustomPath);
	/* the leader has the others' rows to receive, too: as for a parallel sequential scan */
	double		readers = workers + (parallel_leader_participation ? Max(0, 1 - 0.3 * workers) : 0);

	if (workers == 0)
		readers = 1;
	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.param_info = NULL;
	path->path.parallel_aware = path->path.parallel_safe = workers > 0;
	path->path.parallel_workers = workers;
	path->path.rows = clamp_row_est(rel->rows / readers);
	path->path.startup_cost = rel->reltarget->cost.startup + rel->baserestrictcost.startup;
	path->path.total_cost = path->path.startup_cost + seq_page_cost * rel->pages +
		((cpu_tuple_cost + rel->baserestrictcost.per_tuple) * rel->tuples +
		 rel->reltarget->cost.per_tuple * rel->rows) / readers;
	path->path.pathkeys = NIL;
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->custom_private = list_make1_int(whole);
	path->methods = &path_methods;
	return &path->path;
}

bool
sx_is_range_scan(Plan *plan)
{
	return IsA(plan, CustomScan) && ((CustomScan *) plan)->methods == &scan_methods;
}

static Plan *
plan_range_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
				List *tlist, List *clauses, List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);
	List	   *quals = extract_actual_clauses(clauses, false);

	scan->scan.plan.targetlist = linitial_int(path->custom_private) ? sx_whole_rows(root, rel, tlist) : tlist;
	scan->scan.plan.qual = quals;
	scan->scan.scanrelid = rel->relid;
	scan->flags = path->flags;
	/* every process must read into a slot of the same kind, and workers have no ranges when they begin */
	scan->custom_private = list_make2_int(sx_last_column(sx_columns_needed(rel, tlist, quals)),
										  sx_ranges != NULL && same_layout(sx_ranges));
	scan->methods = &scan_methods;
	return &scan->scan.plan;
}

/* ---- running ---- */

static Node *
create_range_scan_state(CustomScan *cscan)
{
	RangeScanState *state = (RangeScanState *) newNode(sizeof(RangeScanState), T_CustomScanState);

	state->css.methods = &exec_methods;
	return (Node *) state;
}

static void
begin_range_scan(CustomScanState *node, EState *estate, int eflags)
{
	RangeScanState *state = (RangeScanState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;
	Relation	rel = node->ss.ss_currentRelation;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	if (lsecond_int(scan->custom_private) && node->ss.ps.subPlan == NIL)
		read_directly(node, estate, rel);
	if (IsParallelWorker())
		return;					/* attach_share() goes on */
	if (sx_ranges == NULL || sx_ranges->stream != RelationGetRelid(rel))
		elog(ERROR, "a plan of history of \"%s\" was run without its ranges", RelationGetRelationName(rel));
	state->reader = reader_begin(sx_ranges, RelationGetDescr(rel), linitial_int(scan->custom_private),
								 node->ss.ss_ScanTupleSlot);
}

/* a leaf that knows the value of a column that old rows have not counts as another layout */
static bool
same_layout(SxRanges *ranges)
{
	Relation	stream = table_open(ranges->stream, NoLock);
	Oid			last = InvalidOid;
	bool		same = true;

	for (int i = 0; i < ranges->n && same; i++)
	{
		Relation	rel;
		AttrMap    *map;

		if (ranges->ranges[i].leaf == RelationGetRelid(stream) || ranges->ranges[i].leaf == last)
			continue;
		last = ranges->ranges[i].leaf;
		rel = table_open(last, AccessShareLock);
		map = SxBuildAttrMapIfReq(RelationGetDescr(rel), RelationGetDescr(stream));
		same = map == NULL;
		if (map != NULL)
			free_attrmap(map);
		table_close(rel, NoLock);
	}
	table_close(stream, NoLock);
	return same;
}

/* the scan's slot is one for rows of a heap, as in a sequential scan; what was prepared for another is prepared again */
static void
read_directly(CustomScanState *node, EState *estate, Relation rel)
{
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	ExecInitScanTupleSlot(estate, &node->ss, RelationGetDescr(rel), &TTSOpsBufferHeapTuple);
	ExecAssignScanProjectionInfoWithVarno(&node->ss, scan->scan.scanrelid);
	node->ss.ps.qual = ExecInitQual(scan->scan.plan.qual, &node->ss.ps);
}

static TupleTableSlot *
exec_range_scan(CustomScanState *node)
{
	return ExecScan(&node->ss, (ExecScanAccessMtd) next_row, (ExecScanRecheckMtd) recheck_row);
}

static void
end_range_scan(CustomScanState *node)
{
	RangeScanState *state = (RangeScanState *) node;

	if (state->reader != NULL)
		reader_end(state->reader);
	state->reader = NULL;
}

static void
rescan_range_scan(CustomScanState *node)
{
	RangeReader *r = ((RangeScanState *) node)->reader;

	if (r != NULL)
	{
		if (r->rel != NULL)
			close_leaf(r);
		r->next = 0;
	}
	ExecScanReScan(&node->ss);
}

/* ---- in parallel ---- */

static Size
estimate_share(CustomScanState *node, ParallelContext *pcxt)
{
	return sx_range_share_size(sx_ranges);
}

static void
init_share(CustomScanState *node, ParallelContext *pcxt, void *coordinate)
{
	RangeReader *r = ((RangeScanState *) node)->reader;

	sx_range_share_init(coordinate, r->ranges);
	r->share = coordinate;
}

static void
restart_share(CustomScanState *node, ParallelContext *pcxt, void *coordinate)
{
	RangeReader *r = ((RangeScanState *) node)->reader;

	sx_range_share_restart(coordinate);
	r->share = coordinate;
	r->told_blocks = 0;
	r->told_rows = 0;
}

/* a worker runs nothing but this plan */
static void
attach_share(CustomScanState *node, shm_toc *toc, void *coordinate)
{
	RangeScanState *state = (RangeScanState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	sx_session_allowed = true;
	state->reader = reader_begin(sx_range_share_attach(coordinate), RelationGetDescr(node->ss.ss_currentRelation),
								 linitial_int(scan->custom_private), node->ss.ss_ScanTupleSlot);
	state->reader->share = coordinate;
}

/* the last moment at which what is shared is there; in the leader all workers have ended, if the plan has run to its end */
static void
shutdown_range_scan(CustomScanState *node)
{
	RangeReader *r = ((RangeScanState *) node)->reader;

	if (r == NULL || r->share == NULL || IsParallelWorker())
		return;
	if (!r->ranges->complete)
		r->ranges->complete = tell_sum(r);
	r->share = NULL;
}

static TupleTableSlot *
next_row(ScanState *node)
{
	RangeScanState *state = (RangeScanState *) node;
	TupleTableSlot *slot = node->ss_ScanTupleSlot;

	if (!reader_next(state->reader, slot))
		return ExecClearTuple(slot);
	return slot;
}

/* Only UPDATE and row locks ask, and these plans have neither */
static bool
recheck_row(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

/* ---- reading ---- */

/* slot: the one that reader_next will fill, virtual if values are to be moved */
static RangeReader *
reader_begin(SxRanges *ranges, TupleDesc desc, int natts, TupleTableSlot *slot)
{
	RangeReader *r = palloc0(sizeof(RangeReader));

	r->ranges = ranges;
	r->desc = desc;
	r->natts = Min(Max(natts, ranges->time_attno), desc->natts);
	r->context = CurrentMemoryContext;

	if (!TTS_IS_VIRTUAL(slot))
	{
		r->direct = slot;
		return r;
	}
	/* columns beyond natts are never filled, dropped ones neither */
	memset(slot->tts_isnull, true, desc->natts * sizeof(bool));
	memset(slot->tts_values, 0, desc->natts * sizeof(Datum));
	return r;
}

static bool
reader_next(RangeReader *r, TupleTableSlot *slot)
{
	TupleTableSlot *in;
	BlockNumber block;

	while (r->scan == NULL || !table_scan_getnextslot(r->scan, ForwardScanDirection, r->slot))
	{
		if (r->rel != NULL)
			pass_blocks(r, r->piece.from + r->piece.nblocks);
		if (!next_piece(r))
		{
			if (r->rel != NULL)
				close_leaf(r);
			report(r);
			if (r->share == NULL)
				r->ranges->complete = true;
			return false;
		}
	}

	in = r->slot;
	block = ItemPointerGetBlockNumber(&in->tts_tid);
	if (block != r->block)
		pass_blocks(r, block);
	r->rows++;
	if (in != slot)
		move_values(r, in, slot);
	if (r->ranges->time_attno != InvalidAttrNumber)
		note_time(r, slot);
	return true;
}

static void
move_values(RangeReader *r, TupleTableSlot *in, TupleTableSlot *slot)
{
	if (r->leaf_natts > 0)
		slot_getsomeattrs(in, r->leaf_natts);
	ExecClearTuple(slot);
	if (r->map == NULL)
	{
		memcpy(slot->tts_values, in->tts_values, sizeof(Datum) * r->leaf_natts);
		memcpy(slot->tts_isnull, in->tts_isnull, sizeof(bool) * r->leaf_natts);
	}
	else
	{
		for (int i = 0; i < r->natts; i++)
		{
			AttrNumber	attno = r->map->attnums[i];

			if (attno == 0)
				continue;		/* dropped in the stream */
			slot->tts_values[i] = in->tts_values[attno - 1];
			slot->tts_isnull[i] = in->tts_isnull[attno - 1];
		}
	}
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(r->rel);
}

static void
reader_end(RangeReader *r)
{
	if (r->rel != NULL)
		close_leaf(r);
	if (IsParallelWorker())
		UnregisterSnapshot(r->ranges->snapshot);
	pfree(r);
}

/* the blocks to be read next; false: there are none */
static bool
next_piece(RangeReader *r)
{
	Oid			leaf = r->rel != NULL ? r->piece.leaf : InvalidOid;
	BlockNumber size;

	if (r->share != NULL)
	{
		if (!sx_range_share_next(r->share, &r->piece))
			return false;
	}
	else if (r->next < r->ranges->n)
		r->piece = r->ranges->ranges[r->next++];
	else
		return false;
	if (leaf != r->piece.leaf)
	{
		if (leaf != InvalidOid)
			close_leaf(r);
		open_leaf(r);
	}
	r->block = r->piece.from;
	size = RelationGetNumberOfBlocks(r->rel);
	if (r->piece.from >= size || r->piece.nblocks == 0)
	{
		if (r->scan != NULL)
			table_endscan(r->scan);
		r->scan = NULL;
		return true;
	}
	/* one scan for all pieces of a leaf, so that they use the same few buffers */
	if (r->scan != NULL)
		table_rescan(r->scan, NULL);
	else
	{
		MemoryContext old = MemoryContextSwitchTo(r->context);

		r->scan = table_beginscan_strat(r->rel, r->ranges->snapshot, 0, NULL, true, false);
		MemoryContextSwitchTo(old);
	}
	heap_setscanlimits(r->scan, r->piece.from, Min(r->piece.nblocks, size - r->piece.from));
	return true;
}

static void
open_leaf(RangeReader *r)
{
	MemoryContext old = MemoryContextSwitchTo(r->context);

	r->rel = table_open(r->piece.leaf, AccessShareLock);
	r->slot = r->direct ? r->direct : table_slot_create(r->rel, NULL);
	r->leaf_natts = r->natts;
	r->map = NULL;
	if (r->direct == NULL && r->piece.leaf != r->ranges->stream)
		r->map = SxBuildAttrMapIfReq(RelationGetDescr(r->rel), r->desc);
	if (r->map != NULL)
	{
		r->leaf_natts = 0;
		for (int i = 0; i < r->natts; i++)
			r->leaf_natts = Max(r->leaf_natts, r->map->attnums[i]);
	}
	r->scan = NULL;
	MemoryContextSwitchTo(old);
}

static void
close_leaf(RangeReader *r)
{
	if (r->scan != NULL)
		table_endscan(r->scan);
	r->scan = NULL;
	if (r->slot != r->direct)
		ExecDropSingleTupleTableSlot(r->slot);
	if (r->map != NULL)
		free_attrmap(r->map);
	table_close(r->rel, NoLock);
	r->rel = NULL;
}

/* the scan has gone on to this block of the range */
static void
pass_blocks(RangeReader *r, BlockNumber upto)
{
	r->blocks += upto - r->block;
	r->block = upto;
	if (r->blocks >= REPORT_BLOCKS)
		report(r);
}

static void
report(RangeReader *r)
{
	if (r->share != NULL)
	{
		sx_range_share_add(r->share, r->blocks, r->rows, r->ranges->latest);
		if (!IsParallelWorker())
			(void) tell_sum(r);
	}
	else if (!r->ranges->complete)
	{
		r->ranges->rows += r->rows;
		r->ranges->processes = 1;
		if (r->ranges->progress)
			r->ranges->progress(r->blocks, r->rows);
	}
	r->rows = 0;
	r->blocks = 0;
}

/* the leader: what all have read; true: everything */
static bool
tell_sum(RangeReader *r)
{
	uint64		blocks;
	int64		rows;
	bool		complete = sx_range_share_sum(r->share, r->ranges, &blocks, &rows);

	if (!r->ranges->complete)
	{
		r->ranges->rows = rows;
		if (r->ranges->progress)
			r->ranges->progress(blocks - r->told_blocks, rows - r->told_rows);
	}
	r->told_blocks = blocks;
	r->told_rows = rows;
	return complete;
}

static void
note_time(RangeReader *r, TupleTableSlot *slot)
{
	SxRanges   *ranges = r->ranges;
	bool		isnull;
	Datum		value = slot_getattr(slot, ranges->time_attno, &isnull);
	int64		event_time;

	if (isnull)
		return;					/* an older row: the column was made NOT NULL later */
	event_time = sx_event_time(value, ranges->time_type);
	if (event_time > ranges->latest && event_time <= ranges->time_limit)
		ranges->latest = event_time;
}

void
sx_ranges_find_latest(SxRanges *ranges)
{
	Relation	rel;
	TupleTableSlot *slot;
	RangeReader *r;

	if (ranges->complete || ranges->time_attno == InvalidAttrNumber)
		return;
	rel = table_open(ranges->stream, AccessShareLock);
	slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	ranges->rows = 0;
	r = reader_begin(ranges, RelationGetDescr(rel), 0, slot);
	while (reader_next(r, slot))
		CHECK_FOR_INTERRUPTS();
	reader_end(r);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}
