/*
 * live_read_groups.c
 *		The live groups of one read node, in private memory.
 *
 * The rows of one key, one per generation, are combined into one group when the node
 * starts.  A hash table by key tells which rows of the table have a group.  The table's row of
 * a group is fetched by the unique index on the keys, with the statement's snapshot, and
 * combined with it at most once, however often the node is rescanned.  Live rows have no results (view_info.h):
 * those that the node's rows need are computed when a row is complete.
 */
#include "live/live_read_internal.h"

#include "access/nbtree.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* aggregates' scratch memory is given back after this many combined rows */
#define COMBINES_PER_RESET	1000

static void build(SxReadGroups *g, SxLiveRequest *request);
static SxReadGroup *find(SxReadGroups *g, uint32 hash, TupleTableSlot *row);
static void build_bitmaps(SxReadGroups *g, SxLiveRequest *request, uint32 nbuckets);
static bool fetch_row(SxReadGroups *g, SxReadGroup *group);

SxReadGroups *
sx_read_groups_create(EState *estate, SxReadView *view, SxLiveRequest *request, Relation mat,
					  MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "streamext live groups", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SxReadGroups *g = palloc0(sizeof(SxReadGroups));
	TupleDesc	desc = RelationGetDescr(mat);

	g->view = view;
	g->context = context;
	g->mat = mat;
	g->snapshot = estate->es_snapshot;
	g->info = sx_read_view_info(view);

	/* slots belong to the executor, which drops them in any case */
	MemoryContextSwitchTo(estate->es_query_cxt);
	g->live = ExecAllocTableSlot(&estate->es_tupleTable, desc, &TTSOpsMinimalTuple);
	g->probe = ExecAllocTableSlot(&estate->es_tupleTable, desc, &TTSOpsMinimalTuple);
	g->second = ExecAllocTableSlot(&estate->es_tupleTable, desc, &TTSOpsMinimalTuple);
	g->combined = ExecAllocTableSlot(&estate->es_tupleTable, desc, &TTSOpsVirtual);
	g->table = table_slot_create(mat, &estate->es_tupleTable);
	MemoryContextSwitchTo(context);
	if (g->info->nresults > 0)
	{
		g->results = palloc(sizeof(bool) * g->info->nresults);
		memset(g->results, true, sizeof(bool) * g->info->nresults);
	}

	build(g, request);
	MemoryContextSwitchTo(old);
	return g;
}

static void
build(SxReadGroups *g, SxLiveRequest *request)
{
	int			nkeys = g->info->nkeys;
	MemoryContext scratch;
	uint32		nbuckets = 16;

	g->groups = MemoryContextAllocHuge(g->context, sizeof(SxReadGroup) * Max(request->nrows, 1));
	g->keyhash = palloc(sizeof(uint32) * (nkeys + 1));
	/* sparse: most rows of the table have no group, and an empty bucket or bit says so at once */
	while (nkeys > 0 && nbuckets / 4 < (uint32) request->nrows && nbuckets < (1U << 28))
		nbuckets *= 2;
	g->mask = nbuckets - 1;
	g->buckets = MemoryContextAllocHuge(g->context, sizeof(int) * nbuckets);
	for (uint32 i = 0; i < nbuckets; i++)
		g->buckets[i] = -1;
	build_bitmaps(g, request, nbuckets);

	scratch = AllocSetContextCreate(g->context, "streamext combine", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(scratch);
	if (g->info->session_key >= 0)
		sx_read_sessions_build(g, request);
	for (int i = 0; i < request->nrows && g->info->session_key < 0; i++)
	{
		SxReadGroup *group = NULL;

		if ((i & 1023) == 0)
			CHECK_FOR_INTERRUPTS();
		if (nkeys > 0)
		{
			ExecStoreMinimalTuple(request->rows[i], g->live, false);
			group = find(g, request->hashes[i], g->live);
		}
		if (group)
		{
			/* the older first */
			ExecStoreMinimalTuple(group->live, g->probe, false);
			sx_combine_rows(g->info, g->probe, g->live, g->combined);
			MemoryContextSwitchTo(g->context);
			group->live = ExecCopySlotMinimalTuple(g->combined);
			MemoryContextSwitchTo(scratch);
			ExecClearTuple(g->combined);
			sx_read_groups_combined(g);
			MemoryContextReset(scratch);
			continue;
		}

		group = &g->groups[g->ngroups];
		memset(group, 0, sizeof(SxReadGroup));
		group->live = request->rows[i];
		group->next = -1;
		group->run = 1;
		if (nkeys > 0)
		{
			int		   *head = &g->buckets[request->hashes[i] & g->mask];

			group->hash = request->hashes[i];
			group->keyhash = &request->keyhashes[(Size) i * nkeys];
			group->next = *head;
			*head = g->ngroups;
		}
		else
			group->full = group->live;
		g->ngroups++;
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(g->context);
	MemoryContextDelete(scratch);
	ExecClearTuple(g->live);
	ExecClearTuple(g->probe);
}

static void
build_bitmaps(SxReadGroups *g, SxLiveRequest *request, uint32 nbuckets)
{
	int			nkeys = g->info->nkeys;
	uint32		nbits = nbuckets * 4;
	int			n = 0;

	g->order = palloc(sizeof(int) * (nkeys + 1));
	for (int pass = 0; pass < 3; pass++)
	{
		for (int k = 0; k < nkeys; k++)
		{
			bool		byval = TupleDescAttr(g->info->desc, k)->attbyval;

			if (k != g->info->session_key && pass == (byval && g->view->exact[k] ? 0 : byval ? 1 : 2))
				g->order[n++] = k;
		}
		if (pass == 0)
			g->nsame = n;
	}
	g->norder = n;
	g->natts = nkeys;

	g->bitmask = nbits - 1;
	g->bits = palloc(sizeof(uint8 *) * (nkeys + 1));
	for (int i = 0; i < n; i++)
		g->bits[g->order[i]] = MemoryContextAllocExtended(g->context, nbits / 8, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int row = 0; row < request->nrows; row++)
	{
		if (g->nsame > 0)
			ExecStoreMinimalTuple(request->rows[row], g->live, false);
		for (int i = 0; i < n; i++)
		{
			int			k = g->order[i];
			uint32		hash = request->keyhashes[(Size) row * nkeys + k];
			bool		isnull;

			if (i < g->nsame)
			{
				Datum		value = slot_getattr(g->live, k + 1, &isnull);

				hash = sx_same_hash(value, isnull);
			}
			hash &= g->bitmask;
			g->bits[k][hash / 8] |= 1 << (hash % 8);
		}
	}
}

void
sx_read_groups_limit(SxReadGroups *g, Bitmapset *columns)
{
	bool		any = false;
	int			column = -1;

	/* the row as a whole */
	if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, columns))
		return;
	while ((column = bms_next_member(columns, column)) >= 0)
		g->natts = Max(g->natts, column + FirstLowInvalidHeapAttributeNumber);
	for (int i = 0; i < g->info->nresults; i++)
	{
		g->results[i] = bms_is_member(g->info->nkeys + g->info->results[i] + 1 - FirstLowInvalidHeapAttributeNumber, columns);
		any |= g->results[i];
	}
	if (!any)
		g->results = NULL;
}

void
sx_read_groups_combined(SxReadGroups *g)
{
	if (++g->combines < COMBINES_PER_RESET)
		return;
	for (int i = 0; i < g->info->naggs; i++)
		sx_agg_reset(g->info->aggs[i]);
	g->combines = 0;
}

static SxReadGroup *
find(SxReadGroups *g, uint32 hash, TupleTableSlot *row)
{
	for (int i = g->buckets[hash & g->mask]; i >= 0; i = g->groups[i].next)
	{
		SxReadGroup *group = &g->groups[i];

		if (group->hash != hash)
			continue;
		ExecStoreMinimalTuple(group->live, g->probe, false);
		if (sx_keys_equal(g->info, g->probe, row))
			return group;
	}
	return NULL;
}

SxReadGroup *
sx_read_groups_find(SxReadGroups *g, TupleTableSlot *row)
{
	SxViewInfo *info = g->info;
	uint32		hash;

	if (!sx_read_groups_possible(g, row))
		return NULL;
	for (int i = 0; i < g->norder; i++)
	{
		int			k = g->order[i];

		g->keyhash[k] = sx_key_hash(info, k, row->tts_values[k], row->tts_isnull[k]);
		if (i >= g->nsame && !sx_read_groups_has_bit(g, k, g->keyhash[k]))
			return NULL;
	}
	if (info->session_key >= 0)
		g->keyhash[info->session_key] = 0;
	hash = sx_row_hash(g->keyhash, info->nkeys);
	if (g->buckets[hash & g->mask] < 0)
		return NULL;
	if (info->session_key >= 0)
		return sx_read_sessions_find(g, hash, row);
	return find(g, hash, row);
}

TupleTableSlot *
sx_read_groups_combine(SxReadGroups *g, TupleTableSlot *row, SxReadGroup *group)
{
	ExecStoreMinimalTuple(group->live, g->live, false);
	sx_combine_rows(g->info, row, g->live, g->combined);
	if (g->results)
		sx_compute_results(g->info, g->combined, g->results);
	sx_read_groups_combined(g);
	return g->combined;
}

MinimalTuple
sx_read_groups_complete(SxReadGroups *g, SxReadGroup *group)
{
	if (group->full)
		return group->full;
	if (g->info->session_key >= 0)
		sx_read_sessions_complete(g, group);
	else if (fetch_row(g, group))
	{
		TupleTableSlot *combined = sx_read_groups_combine(g, g->table, group);
		MemoryContext old = MemoryContextSwitchTo(g->context);

		group->full = ExecCopySlotMinimalTuple(combined);
		MemoryContextSwitchTo(old);
		ExecClearTuple(combined);
		ExecClearTuple(g->table);
	}
	else
		group->full = sx_read_groups_alone(g, group);
	return group->full;
}

MinimalTuple
sx_read_groups_alone(SxReadGroups *g, SxReadGroup *group)
{
	if (group->full == NULL)
		group->full = g->results ? sx_read_groups_keep(g, group->live) : group->live;
	return group->full;
}

MinimalTuple
sx_read_groups_keep(SxReadGroups *g, MinimalTuple row)
{
	MinimalTuple result;
	MemoryContext old;

	ExecStoreMinimalTuple(row, g->live, false);
	ExecCopySlot(g->combined, g->live);
	if (g->results)
		sx_compute_results(g->info, g->combined, g->results);
	old = MemoryContextSwitchTo(g->context);
	result = ExecCopySlotMinimalTuple(g->combined);
	MemoryContextSwitchTo(old);
	ExecClearTuple(g->combined);
	sx_read_groups_combined(g);
	return result;
}

MinimalTuple
sx_read_groups_now(SxReadGroups *g, TupleTableSlot *keys, uint32 hash)
{
	SxReadGroup *group = find(g, hash, keys);
	SxReadGroup alone = {0};
	MinimalTuple row;

	if (group)
		return sx_read_groups_complete(g, group);
	alone.live = ExecCopySlotMinimalTuple(keys);
	if (!fetch_row(g, &alone))
		return NULL;
	row = sx_flatten_row(g->info, g->table);
	ExecClearTuple(g->table);
	return row;
}

static bool
fetch_row(SxReadGroups *g, SxReadGroup *group)
{
	MemoryContext old;
	bool		found;

	/* a B-tree scan remembers dead entries from one call to the next, in the context of the call */
	old = MemoryContextSwitchTo(g->context);
	if (g->scan == NULL)
		g->scan = sx_key_scan_begin(g->info, g->mat, g->snapshot, g->table);
	ExecStoreMinimalTuple(group->live, g->live, false);
	found = sx_key_scan_find(g->scan, g->live);
	MemoryContextSwitchTo(old);
	return found;
}

void
sx_read_groups_end(SxReadGroups *g)
{
	if (g->scan)
		sx_key_scan_end(g->scan);
	for (int i = 0; g->combines > 0 && i < g->info->naggs; i++)
		sx_agg_reset(g->info->aggs[i]);
	g->scan = NULL;
	g->combines = 0;
}
