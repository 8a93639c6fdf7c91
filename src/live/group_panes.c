/*
 * group_panes.c
 *		For alerts: the windows that have changed, of a view that keeps panes (query/panes.h).
 *
 * A pane that has changed has changed every window that it is part of, and each of those is made of other
 * panes as well: these are fetched by key, and put together.  The statement that evaluates the condition gets
 * windows, as if all had rows of their own (see live_read_panes.c).
 */
#include "live/group_scan.h"

#include "catalog/definitions.h"
#include "miscadmin.h"
#include "query/plan.h"
#include "query/window.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Rows by their keys, each key once */
typedef struct KeySet
{
	SxViewInfo *info;
	TupleTableSlot *row;		/* minimal */
	int			n;
	int			max;
	MinimalTuple *rows;
	uint32	   *hashes;
	int		   *next;
	int		   *buckets;
	int			nbuckets;		/* a power of two */
} KeySet;

static SxGroupRows *windows_of_panes(SxReadView *view, int nrows, MinimalTuple *rows);
static void begin_set(KeySet *set, SxViewInfo *info);
static void end_set(KeySet *set);
static int	find_key(KeySet *set, TupleTableSlot *keys, uint32 *hash);
static int	add_key(KeySet *set, TupleTableSlot *keys);
static void grow_set(KeySet *set);
static void make_key(SxViewInfo *info, TupleTableSlot *from, Datum point, bool closed, TupleTableSlot *into);
static bool removed_boundary(SxReadView *view, Datum *removed);

bool
sx_keeps_pane_rows(Oid matid)
{
	SxReadView *view = sx_read_view(matid);

	return view != NULL && view->def->panes;
}

SxGroupRows *
sx_groups_of_panes(Oid matid, int nrows, MinimalTuple *rows)
{
	SxReadView *view = sx_read_view(matid);
	SxGroupRows *result = NULL;

	if (view == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the continuous view is gone")));
	/* others may ask for it meanwhile, and it may have changed */
	view->refs++;
	PG_TRY();
	{
		result = windows_of_panes(view, nrows, rows);
	}
	PG_FINALLY();
	{
		view->refs--;
	}
	PG_END_TRY();
	return result;
}

static SxGroupRows *
windows_of_panes(SxReadView *view, int nrows, MinimalTuple *rows)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(caller, "streamext panes", ALLOCSET_DEFAULT_SIZES);
	SxViewInfo *info = sx_read_view_info(view);
	FuncExpr   *hop = (FuncExpr *) info->window;
	SxWindows  *order = sx_read_view_windows(view);
	TupleTableSlot *row = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *window = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *key = MakeSingleTupleTableSlot(info->desc, &TTSOpsVirtual);
	KeySet		windows;
	KeySet		panes;
	SxGroupRows *found;
	SxGroupRows *result = palloc0(sizeof(SxGroupRows));
	bool	   *filled;
	Datum		removed;
	bool		any_removed = removed_boundary(view, &removed);

	begin_set(&windows, info);
	for (int i = 0; i < nrows; i++)
	{
		bool		isnull;
		Datum		start;
		Datum	   *starts;
		int			n;

		CHECK_FOR_INTERRUPTS();
		ExecStoreMinimalTuple(rows[i], row, false);
		start = slot_getattr(row, info->window_key + 1, &isnull);
		if (isnull || DatumGetBool(slot_getattr(row, info->closed_key + 1, &isnull)))
			continue;
		n = sx_hop_points(hop, start, false, &starts);
		for (int j = 0; j < n; j++)
		{
			/* its first panes may be gone */
			if (any_removed && sx_windows_compare(order, starts[j], removed) < 0)
				continue;
			make_key(info, row, starts[j], true, key);
			(void) add_key(&windows, key);
		}
		pfree(starts);
	}

	begin_set(&panes, info);
	for (int i = 0; i < windows.n; i++)
	{
		bool		isnull;
		Datum	   *starts;
		int			n;

		CHECK_FOR_INTERRUPTS();
		ExecStoreMinimalTuple(windows.rows[i], row, false);
		n = sx_hop_points(hop, slot_getattr(row, info->window_key + 1, &isnull), true, &starts);
		for (int j = 0; j < n; j++)
		{
			make_key(info, row, starts[j], false, key);
			(void) add_key(&panes, key);
		}
		pfree(starts);
	}

	found = sx_complete_rows(view->matid, panes.n, panes.rows, panes.hashes);
	filled = palloc0(sizeof(bool) * Max(windows.n, 1));
	for (int i = 0; i < found->nrows; i++)
	{
		bool		isnull;
		Datum	   *starts;
		int			n;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		ExecStoreMinimalTuple(found->rows[i], row, false);
		n = sx_hop_points(hop, slot_getattr(row, info->window_key + 1, &isnull), false, &starts);
		for (int j = 0; j < n; j++)
		{
			uint32		hash;
			int			w;
			MinimalTuple old;

			make_key(info, row, starts[j], true, key);
			w = find_key(&windows, key, &hash);
			if (w < 0)
				continue;
			old = windows.rows[w];
			if (filled[w])
			{
				ExecStoreMinimalTuple(old, window, false);
				sx_combine_rows(info, window, row, key);
			}
			else
			{
				for (int a = info->nkeys; a < info->desc->natts; a++)
					key->tts_values[a] = slot_getattr(row, a + 1, &key->tts_isnull[a]);
			}
			MemoryContextSwitchTo(caller);
			windows.rows[w] = sx_flatten_row(info, key);
			MemoryContextSwitchTo(scratch);
			ExecClearTuple(window);
			pfree(old);
			filled[w] = true;
		}
		ExecClearTuple(key);
		MemoryContextSwitchTo(caller);
	}
	MemoryContextDelete(scratch);
	for (int i = 0; i < info->naggs; i++)
		sx_agg_reset(info->aggs[i]);

	result->matid = view->matid;
	result->watermark = found->watermark;
	result->rows = palloc(sizeof(MinimalTuple) * Max(windows.n, 1));
	/* a view that is being built anew may have none for a moment */
	for (int i = 0; i < windows.n; i++)
		if (filled[i])
			result->rows[result->nrows++] = windows.rows[i];
	end_set(&windows);
	end_set(&panes);
	ExecDropSingleTupleTableSlot(row);
	ExecDropSingleTupleTableSlot(window);
	ExecDropSingleTupleTableSlot(key);
	return result;
}

/* windows before that are past the view's retention */
static bool
removed_boundary(SxReadView *view, Datum *removed)
{
	SxStoredPosition *stored = sx_catalog_position_at(view->def->viewid, GetActiveSnapshot());
	SxWindows  *windows = sx_read_view_windows(view);

	if (stored == NULL)
		return false;
	(void) sx_windows_set_time(windows, stored->removed_until);
	return sx_windows_boundary(windows, removed);
}

/* the keys of another row with another window or pane; no states */
static void
make_key(SxViewInfo *info, TupleTableSlot *from, Datum point, bool closed, TupleTableSlot *into)
{
	ExecClearTuple(into);
	slot_getsomeattrs(from, info->nkeys);
	for (int i = 0; i < info->desc->natts; i++)
	{
		into->tts_isnull[i] = i >= info->nkeys || from->tts_isnull[i];
		into->tts_values[i] = into->tts_isnull[i] ? (Datum) 0 : from->tts_values[i];
	}
	into->tts_values[info->window_key] = point;
	into->tts_values[info->closed_key] = BoolGetDatum(closed);
	ExecStoreVirtualTuple(into);
}

/* ---- rows by their keys ---- */

static void
begin_set(KeySet *set, SxViewInfo *info)
{
	memset(set, 0, sizeof(KeySet));
	set->info = info;
	set->row = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	grow_set(set);
}

static void
end_set(KeySet *set)
{
	ExecDropSingleTupleTableSlot(set->row);
}

static int
find_key(KeySet *set, TupleTableSlot *keys, uint32 *hash)
{
	SxViewInfo *info = set->info;
	uint32		keyhash[INDEX_MAX_KEYS];

	for (int i = 0; i < info->nkeys; i++)
		keyhash[i] = sx_key_hash(info, i, keys->tts_values[i], keys->tts_isnull[i]);
	*hash = sx_row_hash(keyhash, info->nkeys);
	for (int i = set->buckets[*hash & (set->nbuckets - 1)]; i >= 0; i = set->next[i])
	{
		bool		equal;

		if (set->hashes[i] != *hash)
			continue;
		ExecStoreMinimalTuple(set->rows[i], set->row, false);
		equal = sx_keys_equal(info, set->row, keys);
		ExecClearTuple(set->row);
		if (equal)
			return i;
	}
	return -1;
}

/* unless it is there; its number */
static int
add_key(KeySet *set, TupleTableSlot *keys)
{
	uint32		hash;
	int			i = find_key(set, keys, &hash);
	int		   *bucket;

	if (i >= 0)
		return i;
	if (set->n == set->max)
		grow_set(set);
	i = set->n++;
	bucket = &set->buckets[hash & (set->nbuckets - 1)];
	set->rows[i] = ExecCopySlotMinimalTuple(keys);
	set->hashes[i] = hash;
	set->next[i] = *bucket;
	*bucket = i;
	return i;
}

static void
grow_set(KeySet *set)
{
	set->max = Max(64, set->max * 2);
	set->nbuckets = set->max;
	if (set->n == 0)
	{
		set->rows = palloc(sizeof(MinimalTuple) * set->max);
		set->hashes = palloc(sizeof(uint32) * set->max);
		set->next = palloc(sizeof(int) * set->max);
		set->buckets = palloc(sizeof(int) * set->nbuckets);
	}
	else
	{
		set->rows = repalloc(set->rows, sizeof(MinimalTuple) * set->max);
		set->hashes = repalloc(set->hashes, sizeof(uint32) * set->max);
		set->next = repalloc(set->next, sizeof(int) * set->max);
		set->buckets = repalloc(set->buckets, sizeof(int) * set->nbuckets);
	}
	for (int i = 0; i < set->nbuckets; i++)
		set->buckets[i] = -1;
	for (int i = 0; i < set->n; i++)
	{
		int		   *bucket = &set->buckets[set->hashes[i] & (set->nbuckets - 1)];

		set->next[i] = *bucket;
		*bucket = i;
	}
}
