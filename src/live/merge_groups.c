/*
 * merge_groups.c
 *		Rows on their way into the materialized table, in the order of their keys, and those of one key combined.
 *
 * In that order whoever looks them up by the unique index, or puts them into it, meets the same few pages again and
 * again.  With millions of groups the pages of any other order would not be found in the processor's caches, nor in memory.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_collation.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "live/merge.h"

/* told after so many */
#define PROGRESS_ROWS	1000

static void take_combined(TupleTableSlot *group, void (*take) (void *arg, TupleTableSlot *row), void *arg);

/*
 * By the keys: sessions stand last, and ranges are in the order of their beginnings.  Not of the index: in an order that
 * brings equal keys together, and mostly like ones, and is quicker where a locale's order is not.
 */
Tuplesortstate *
sx_sort_rows(SxViewInfo *info, Tuplestorestate *rows, int last_key, bool of_index, int memory, TupleTableSlot *slot)
{
	int			nkeys = info->nkeys;
	int			n = 0;
	AttrNumber *columns = palloc(sizeof(AttrNumber) * nkeys);
	Oid		   *operators = palloc(sizeof(Oid) * nkeys);
	bool	   *nulls_first = palloc0(sizeof(bool) * nkeys);
	Oid		   *collations = palloc(sizeof(Oid) * nkeys);
	Tuplesortstate *sort;

	for (int i = 0; i <= nkeys; i++)
	{
		int			key = i == nkeys ? last_key : i;
		Oid			collation = info->collations[key];

		if (i == last_key)
			continue;
		/* where equal means the same bytes, which a type of a user's need not keep to */
		if (!of_index && OidIsValid(collation) && get_collation_isdeterministic(collation) &&
			getBaseType(TupleDescAttr(info->desc, key)->atttypid) < FirstNormalObjectId)
			collation = C_COLLATION_OID;
		columns[n] = key + 1;
		operators[n] = lookup_type_cache(TupleDescAttr(info->desc, key)->atttypid, TYPECACHE_LT_OPR)->lt_opr;
		collations[n++] = collation;
	}
	sort = tuplesort_begin_heap(info->desc, n, columns, operators, collations, nulls_first,
								memory, NULL, TUPLESORT_NONE);
	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		tuplesort_puttupleslot(sort, slot);
	}
	tuplesort_performsort(sort);
	return sort;
}

/* each group once; take may keep nothing of the row, which is a minimal tuple */
void
sx_merge_groups(SxViewInfo *info, Tuplestorestate *rows, bool of_index, void (*take) (void *arg, TupleTableSlot *row), void *arg,
				SxMergeProgress progress)
{
	TupleTableSlot *row = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *group = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *sum = MakeSingleTupleTableSlot(info->desc, &TTSOpsVirtual);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext merge scratch", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Tuplesortstate *sort;
	int64		nrows = 0;

	sort = sx_sort_rows(info, rows, info->nkeys - 1, of_index, work_mem, row);
	old = MemoryContextSwitchTo(scratch);
	while (tuplesort_gettupleslot(sort, true, false, row, NULL))
	{
		CHECK_FOR_INTERRUPTS();
		if (progress != NULL && nrows++ % PROGRESS_ROWS == 0)
			progress(nrows);
		/* sessions that overlap are one already */
		if (!TTS_EMPTY(group) && info->session_key < 0 && sx_keys_equal(info, group, row))
		{
			MinimalTuple combined;

			sx_combine_rows(info, group, row, sum);
			MemoryContextSwitchTo(old);
			combined = sx_flatten_row(info, sum);
			ExecClearTuple(sum);
			ExecStoreMinimalTuple(combined, group, true);
		}
		else
		{
			MemoryContextSwitchTo(old);
			take_combined(group, take, arg);
			ExecStoreMinimalTuple(ExecCopySlotMinimalTuple(row), group, true);
		}
		MemoryContextSwitchTo(scratch);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	take_combined(group, take, arg);
	tuplesort_end(sort);
	ExecDropSingleTupleTableSlot(row);
	ExecDropSingleTupleTableSlot(group);
	ExecDropSingleTupleTableSlot(sum);
	MemoryContextDelete(scratch);
}

static void
take_combined(TupleTableSlot *group, void (*take) (void *arg, TupleTableSlot *row), void *arg)
{
	if (!TTS_EMPTY(group))
		take(arg, group);
}
