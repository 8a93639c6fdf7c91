/*
 * group_scan.c
 *		Reading a continuous view for some of its groups only, whatever its size.
 *
 * An alert's condition stands over the user's view.  To evaluate it for the groups that have just changed,
 * their complete rows (the table's, combined with what is live) are put together first, by key; then the
 * statement runs over the view with a scan of these rows in place of the materialized table's.  So it costs
 * what changed, and HAVING, expressions over aggregates and ORDER BY in the view mean what they always mean.
 *
 * Consistency: live rows are copied for one snapshot, as for any reader (live_copy.c), so that each row
 * stands at one cycle.  Locks are AccessShareLock, until the transaction ends.
 */
#include "live/group_scan.h"

#include "access/tableam.h"
#include "access/table.h"
#include "capture/event_time.h"
#include "catalog/definitions.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

typedef struct GroupScanState
{
	CustomScanState css;
	int			next;
	TupleTableSlot *row;
} GroupScanState;

/* The groups being put together */
typedef struct Collector
{
	EState	   *estate;
	Relation	mat;
	SxReadView *view;
	SxViewInfo *info;
	SxReadGroups *groups;		/* NULL: the table alone */
	SxGroupRows *result;
	MemoryContext context;		/* of the result */
	int			maxrows;
} Collector;

SxGroupRows *sx_group_rows = NULL;

static set_rel_pathlist_hook_type prev_set_rel_pathlist_hook = NULL;

static void set_paths(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte);
static Plan *plan_group_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist,
							 List *clauses, List *custom_plans);
static Node *create_group_scan_state(CustomScan *cscan);
static void begin_group_scan(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_group_scan(CustomScanState *node);
static void end_group_scan(CustomScanState *node);
static void rescan_group_scan(CustomScanState *node);
static TupleTableSlot *next_row(ScanState *node);
static bool recheck_row(ScanState *node, TupleTableSlot *slot);

static SxGroupRows *complete_blocks(Oid matid, BlockNumber first, int limit, BlockNumber *next);
static void begin_collect(Collector *c, Oid matid);
static void copy_live(Collector *c, const uint32 *hashes, int nhashes);
static void add_row(Collector *c, MinimalTuple row);
static SxGroupRows *end_collect(Collector *c);
static int	compare_hashes(const void *a, const void *b);
static int	compare_rows(const void *a, const void *b, void *arg);

static const CustomPathMethods path_methods = {
	.CustomName = "streamext group scan",
	.PlanCustomPath = plan_group_scan,
};

static const CustomScanMethods scan_methods = {
	.CustomName = "streamext group scan",
	.CreateCustomScanState = create_group_scan_state,
};

static const CustomExecMethods exec_methods = {
	.CustomName = "streamext group scan",
	.BeginCustomScan = begin_group_scan,
	.ExecCustomScan = exec_group_scan,
	.EndCustomScan = end_group_scan,
	.ReScanCustomScan = rescan_group_scan,
};

void
sx_group_scan_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
	prev_set_rel_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = set_paths;
}

/* ---- the scan ---- */

static void
set_paths(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	CustomPath *path;

	if (prev_set_rel_pathlist_hook)
		prev_set_rel_pathlist_hook(root, rel, rti, rte);
	if (sx_group_rows == NULL || rte->rtekind != RTE_RELATION || rte->relid != sx_group_rows->matid ||
		IS_DUMMY_REL(rel))
		return;

	path = makeNode(CustomPath);
	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.param_info = NULL;
	path->path.rows = 10;
	path->path.total_cost = 10 * cpu_tuple_cost;
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->methods = &path_methods;
	rel->pathlist = list_make1(path);
	rel->partial_pathlist = NIL;
	rel->consider_parallel = false;
}

static Plan *
plan_group_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses,
				List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = extract_actual_clauses(clauses, false);
	scan->scan.scanrelid = rel->relid;
	scan->flags = path->flags;
	scan->methods = &scan_methods;
	return &scan->scan.plan;
}

static Node *
create_group_scan_state(CustomScan *cscan)
{
	GroupScanState *state = (GroupScanState *) newNode(sizeof(GroupScanState), T_CustomScanState);

	state->css.methods = &exec_methods;
	return (Node *) state;
}

static void
begin_group_scan(CustomScanState *node, EState *estate, int eflags)
{
	GroupScanState *state = (GroupScanState *) node;
	Relation	rel = node->ss.ss_currentRelation;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	if (sx_group_rows == NULL || sx_group_rows->matid != RelationGetRelid(rel))
		elog(ERROR, "a plan over groups of \"%s\" was run without them", RelationGetRelationName(rel));
	state->row = ExecAllocTableSlot(&estate->es_tupleTable, RelationGetDescr(rel), &TTSOpsMinimalTuple);
}

static TupleTableSlot *
exec_group_scan(CustomScanState *node)
{
	return ExecScan(&node->ss, (ExecScanAccessMtd) next_row, (ExecScanRecheckMtd) recheck_row);
}

static void
end_group_scan(CustomScanState *node)
{
}

static void
rescan_group_scan(CustomScanState *node)
{
	((GroupScanState *) node)->next = 0;
	ExecScanReScan(&node->ss);
}

/* the scan's slot may be of any kind */
static TupleTableSlot *
next_row(ScanState *node)
{
	GroupScanState *state = (GroupScanState *) node;
	TupleTableSlot *slot = node->ss_ScanTupleSlot;

	CHECK_FOR_INTERRUPTS();
	ExecClearTuple(slot);
	if (state->next >= sx_group_rows->nrows)
		return slot;
	ExecStoreMinimalTuple(sx_group_rows->rows[state->next++], state->row, false);
	slot_getallattrs(state->row);
	memcpy(slot->tts_values, state->row->tts_values, sizeof(Datum) * slot->tts_tupleDescriptor->natts);
	memcpy(slot->tts_isnull, state->row->tts_isnull, sizeof(bool) * slot->tts_tupleDescriptor->natts);
	return ExecStoreVirtualTuple(slot);
}

static bool
recheck_row(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

/* ---- the rows ---- */

SxGroupRows *
sx_groups_of_rows(Oid matid, int nrows, MinimalTuple *rows, const uint32 *hashes)
{
	if (sx_keeps_pane_rows(matid))
		return sx_groups_of_panes(matid, nrows, rows);
	return sx_complete_rows(matid, nrows, rows, hashes);
}

SxGroupRows *
sx_complete_rows(Oid matid, int nrows, MinimalTuple *rows, const uint32 *hashes)
{
	Collector	c;
	int		   *order = palloc(sizeof(int) * Max(nrows, 1));
	uint32	   *wanted = palloc(sizeof(uint32) * Max(nrows, 1));
	TupleTableSlot *slot;
	TupleTableSlot *other;
	MemoryContext scratch;
	int			n = 0;
	int			run = 0;		/* the first row with this hash */

	begin_collect(&c, matid);
	for (int i = 0; i < nrows; i++)
		order[i] = i;
	qsort_arg(order, nrows, sizeof(int), compare_rows, unconstify(uint32 *, hashes));
	for (int i = 0; i < nrows; i++)
		if (i == 0 || hashes[order[i]] != wanted[n - 1])
			wanted[n++] = hashes[order[i]];
	copy_live(&c, wanted, n);

	slot = ExecAllocTableSlot(&c.estate->es_tupleTable, c.info->desc, &TTSOpsMinimalTuple);
	other = ExecAllocTableSlot(&c.estate->es_tupleTable, c.info->desc, &TTSOpsMinimalTuple);
	scratch = AllocSetContextCreate(c.context, "streamext group", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < nrows; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);
		MinimalTuple row = rows[order[i]];
		bool		again = false;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(scratch);
		if (i == 0 || hashes[order[i]] != hashes[order[run]])
			run = i;
		ExecStoreMinimalTuple(row, slot, false);
		for (int j = run; j < i && !again; j++)
		{
			ExecStoreMinimalTuple(rows[order[j]], other, false);
			again = sx_keys_equal(c.info, slot, other);
		}
		if (!again)
		{
			MinimalTuple full = sx_read_groups_now(c.groups, slot, hashes[order[i]]);

			/* a group of a view that is being built anew may be nowhere for a moment */
			if (full != NULL)
				add_row(&c, full);
		}
		ExecClearTuple(slot);
		ExecClearTuple(other);
		MemoryContextSwitchTo(old);
	}
	MemoryContextDelete(scratch);
	return end_collect(&c);
}

SxGroupRows *
sx_groups_of_blocks(Oid matid, BlockNumber first, int limit, BlockNumber *next)
{
	SxGroupRows *found = complete_blocks(matid, first, limit, next);

	return sx_keeps_pane_rows(matid) ? sx_groups_of_panes(matid, found->nrows, found->rows) : found;
}

static SxGroupRows *
complete_blocks(Oid matid, BlockNumber first, int limit, BlockNumber *next)
{
	Collector	c;
	BlockNumber nblocks;
	BlockNumber block = first;
	TupleTableSlot *slot;
	MinimalTuple *rows = palloc(sizeof(MinimalTuple) * 64);
	uint32	   *hashes = palloc(sizeof(uint32) * 64);
	uint32	   *keyhash;
	int			n = 0;
	int			max = 64;

	begin_collect(&c, matid);
	slot = table_slot_create(c.mat, &c.estate->es_tupleTable);
	keyhash = palloc(sizeof(uint32) * c.info->nkeys);
	nblocks = RelationGetNumberOfBlocks(c.mat);
	while (block < nblocks && n < limit)
	{
		BlockNumber end = Min(block + 8, nblocks);
		ItemPointerData from;
		ItemPointerData to;
		TableScanDesc scan;

		ItemPointerSet(&from, block, 0);
		ItemPointerSet(&to, end - 1, MaxOffsetNumber);
		scan = table_beginscan_tidrange(c.mat, c.estate->es_snapshot, &from, &to);
		while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
		{
			if (n == max)
			{
				max *= 2;
				rows = repalloc(rows, sizeof(MinimalTuple) * max);
				hashes = repalloc(hashes, sizeof(uint32) * max);
			}
			slot_getsomeattrs(slot, c.info->nkeys);
			for (int i = 0; i < c.info->nkeys; i++)
				keyhash[i] = sx_key_hash(c.info, i, slot->tts_values[i], slot->tts_isnull[i]);
			hashes[n] = sx_row_hash(keyhash, c.info->nkeys);
			/* with what is stored elsewhere: the row outlives the statement */
			rows[n++] = sx_flatten_row(c.info, slot);
		}
		table_endscan(scan);
		block = end;
		CHECK_FOR_INTERRUPTS();
	}
	*next = block < nblocks ? block : 0;

	if (n > 0)
	{
		uint32	   *wanted = palloc(sizeof(uint32) * n);
		int			nwanted = 0;
		TupleTableSlot *row = ExecAllocTableSlot(&c.estate->es_tupleTable, c.info->desc, &TTSOpsMinimalTuple);

		memcpy(wanted, hashes, sizeof(uint32) * n);
		qsort(wanted, n, sizeof(uint32), compare_hashes);
		for (int i = 0; i < n; i++)
			if (i == 0 || wanted[i] != wanted[nwanted - 1])
				wanted[nwanted++] = wanted[i];
		copy_live(&c, wanted, nwanted);
		for (int i = 0; i < n; i++)
		{
			SxReadGroup *group;

			ExecStoreMinimalTuple(rows[i], row, false);
			group = sx_read_groups_find(c.groups, row);
			if (group == NULL)
				add_row(&c, rows[i]);
			else
			{
				TupleTableSlot *combined = sx_read_groups_combine(c.groups, row, group);

				add_row(&c, ExecCopySlotMinimalTuple(combined));
				ExecClearTuple(combined);
			}
		}
	}
	return end_collect(&c);
}

static void
begin_collect(Collector *c, Oid matid)
{
	memset(c, 0, sizeof(Collector));
	c->context = CurrentMemoryContext;
	c->mat = table_open(matid, AccessShareLock);
	/* valid until somebody asks for another one, which nobody does meanwhile */
	c->view = sx_read_view(matid);
	if (c->view == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the continuous view is gone")));
	c->info = sx_read_view_info(c->view);
	c->estate = CreateExecutorState();
	c->estate->es_snapshot = GetActiveSnapshot();
	c->result = palloc0(sizeof(SxGroupRows));
	c->result->matid = matid;
	c->maxrows = 64;
	c->result->rows = palloc(sizeof(MinimalTuple) * c->maxrows);
}

/* what is live of these groups, with a snapshot that it adds to */
static void
copy_live(Collector *c, const uint32 *hashes, int nhashes)
{
	SxDb	   *db = sx_my_db();
	SxLiveRequest *request = palloc0(sizeof(SxLiveRequest));

	request->matid = c->result->matid;
	request->nkeys = c->info->nkeys;
	request->wanted = unconstify(uint32 *, hashes);
	request->nwanted = nhashes;
	if (db != NULL)
	{
		sx_live_copy(db, c->estate->es_snapshot, request, 1);
		if (request->too_old)
			ereport(ERROR,
					(errcode(ERRCODE_SNAPSHOT_TOO_OLD),
					 errmsg("could not read a continuous view at the position of the statement")));
	}
	c->result->watermark = sx_stored_watermark(c->view, c->estate->es_snapshot);
	c->groups = sx_read_groups_create(c->estate, c->view, request, c->mat, c->context);
}

static void
add_row(Collector *c, MinimalTuple row)
{
	SxGroupRows *r = c->result;
	MemoryContext old = MemoryContextSwitchTo(c->context);
	MinimalTuple copy = palloc(row->t_len);

	if (r->nrows == c->maxrows)
	{
		c->maxrows *= 2;
		r->rows = repalloc(r->rows, sizeof(MinimalTuple) * c->maxrows);
	}
	memcpy(copy, row, row->t_len);
	r->rows[r->nrows++] = copy;
	MemoryContextSwitchTo(old);
}

static SxGroupRows *
end_collect(Collector *c)
{
	if (c->groups)
		sx_read_groups_end(c->groups);
	ExecResetTupleTable(c->estate->es_tupleTable, false);
	c->estate->es_tupleTable = NIL;
	FreeExecutorState(c->estate);
	table_close(c->mat, NoLock);
	return c->result;
}

static int
compare_hashes(const void *a, const void *b)
{
	uint32		x = *(const uint32 *) a;
	uint32		y = *(const uint32 *) b;

	return x < y ? -1 : x > y;
}

static int
compare_rows(const void *a, const void *b, void *arg)
{
	const uint32 *hashes = arg;

	return compare_hashes(&hashes[*(const int *) a], &hashes[*(const int *) b]);
}
