/*
 * live_read_groups.c
 *		The live groups of one read node, in private memory.
 *
 * The rows of one key, one per generation, are combined into one group when the node
 * starts.  A hash table by key tells which rows of the table have a group.  The table's row of
 * a group is fetched by the unique index on the keys, with the statement's snapshot, and
 * combined with it at most once, however often the node is rescanned.
 */
#include "live/live_read_internal.h"

#include "access/nbtree.h"
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
static void combined_one(SxReadGroups *g);
static void open_index(SxReadGroups *g);
static bool is_key_index(Relation index, int nkeys);
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
	g->combined = ExecAllocTableSlot(&estate->es_tupleTable, desc, &TTSOpsVirtual);
	g->table = table_slot_create(mat, &estate->es_tupleTable);
	MemoryContextSwitchTo(context);

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
	for (int i = 0; i < request->nrows; i++)
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
			combined_one(g);
			MemoryContextReset(scratch);
			continue;
		}

		group = &g->groups[g->ngroups];
		memset(group, 0, sizeof(SxReadGroup));
		group->live = request->rows[i];
		group->next = -1;
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
	for (int k = 0; k < nkeys; k++)
		if (TupleDescAttr(g->info->desc, k)->attbyval)
			g->order[n++] = k;
	for (int k = 0; k < nkeys; k++)
		if (!TupleDescAttr(g->info->desc, k)->attbyval)
			g->order[n++] = k;

	g->bitmask = nbits - 1;
	g->bits = palloc(sizeof(uint8 *) * (nkeys + 1));
	for (int k = 0; k < nkeys; k++)
	{
		g->bits[k] = MemoryContextAllocHuge(g->context, nbits / 8);
		memset(g->bits[k], 0, nbits / 8);
		for (int i = 0; i < request->nrows; i++)
		{
			uint32		bit = request->keyhashes[(Size) i * nkeys + k] & g->bitmask;

			g->bits[k][bit / 8] |= 1 << (bit % 8);
		}
	}
}

static void
combined_one(SxReadGroups *g)
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

	slot_getsomeattrs(row, info->nkeys);
	for (int i = 0; i < info->nkeys; i++)
	{
		int			k = g->order[i];
		uint32		bit;

		g->keyhash[k] = sx_key_hash(info, k, row->tts_values[k], row->tts_isnull[k]);
		bit = g->keyhash[k] & g->bitmask;
		if ((g->bits[k][bit / 8] & (1 << (bit % 8))) == 0)
			return NULL;
	}
	hash = sx_row_hash(g->keyhash, info->nkeys);
	if (g->buckets[hash & g->mask] < 0)
		return NULL;
	return find(g, hash, row);
}

TupleTableSlot *
sx_read_groups_combine(SxReadGroups *g, TupleTableSlot *row, SxReadGroup *group)
{
	ExecStoreMinimalTuple(group->live, g->live, false);
	sx_combine_rows(g->info, row, g->live, g->combined);
	combined_one(g);
	return g->combined;
}

MinimalTuple
sx_read_groups_complete(SxReadGroups *g, SxReadGroup *group)
{
	if (group->full)
		return group->full;
	if (fetch_row(g, group))
	{
		TupleTableSlot *combined = sx_read_groups_combine(g, g->table, group);
		MemoryContext old = MemoryContextSwitchTo(g->context);

		group->full = ExecCopySlotMinimalTuple(combined);
		MemoryContextSwitchTo(old);
		ExecClearTuple(combined);
		ExecClearTuple(g->table);
	}
	else
		group->full = group->live;
	return group->full;
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
	int			nkeys = g->info->nkeys;
	MemoryContext old;
	bool		found;

	if (g->scan == NULL)
		open_index(g);
	ExecStoreMinimalTuple(group->live, g->live, false);
	slot_getsomeattrs(g->live, nkeys);
	for (int i = 0; i < nkeys; i++)
	{
		ScanKeyData *key = &g->scankeys[i];

		/* NULL is a key like others */
		key->sk_flags = g->live->tts_isnull[i] ? SK_ISNULL | SK_SEARCHNULL : 0;
		key->sk_argument = g->live->tts_isnull[i] ? (Datum) 0 : g->live->tts_values[i];
	}

	/* a B-tree scan remembers dead entries from one call to the next, in the context of the call */
	old = MemoryContextSwitchTo(g->context);
	index_rescan(g->scan, g->scankeys, nkeys, NULL, 0);
	found = index_getnext_slot(g->scan, ForwardScanDirection, g->table);
	MemoryContextSwitchTo(old);
	return found;
}

static void
open_index(SxReadGroups *g)
{
	int			nkeys = g->info->nkeys;
	MemoryContext old = MemoryContextSwitchTo(g->context);
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(g->mat))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (is_key_index(index, nkeys))
		{
			g->index = index;
			break;
		}
		index_close(index, AccessShareLock);
	}
	if (g->index == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the materialized table of continuous view \"%s\" has lost its unique index",
						get_rel_name(g->view->def->viewid)),
				 errhint("Drop the view and create it again.")));

	g->scankeys = palloc0(sizeof(ScanKeyData) * nkeys);
	for (int i = 0; i < nkeys; i++)
	{
		ScanKeyEntryInitialize(&g->scankeys[i], 0, i + 1, BTEqualStrategyNumber,
							   InvalidOid, g->info->collations[i], g->info->eqfns[i].fn_oid, (Datum) 0);
	}
	g->scan = SxIndexBeginScan(g->mat, g->index, g->snapshot, nkeys);
	MemoryContextSwitchTo(old);
}

static bool
is_key_index(Relation index, int nkeys)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indisvalid || !form->indnullsnotdistinct ||
		form->indnkeyatts != nkeys || RelationGetIndexExpressions(index) != NIL ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < nkeys; i++)
		if (form->indkey.values[i] != i + 1)
			return false;
	return true;
}

void
sx_read_groups_end(SxReadGroups *g)
{
	if (g->scan)
		index_endscan(g->scan);
	if (g->index)
		index_close(g->index, NoLock);
	for (int i = 0; g->combines > 0 && i < g->info->naggs; i++)
		sx_agg_reset(g->info->aggs[i]);
	g->scan = NULL;
	g->index = NULL;
	g->combines = 0;
}
