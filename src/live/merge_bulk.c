/*
 * merge_bulk.c
 *		Storing rows into the materialized table without a statement: many page by page, as COPY does.
 *
 * That is possible where nothing has to be done for a row but to store it, with its results: no trigger, constraint or
 * rule, and of the indexes only plain ones.  Then
 *
 *	 - rows of a view without keys are appended, as they are never combined with others;
 *	 - groups of a new view (merge_groups.c), while its table is empty, go into the unique index in its order.
 *	   So a new view's first rows cost little more than those of CREATE TABLE AS.
 *	   "Empty" is a file without blocks; only a builder asks for that, when it writes history;
 *	 - others are looked up by the unique index, one by one.  What is there is combined and updated in place, the
 *	   rest is inserted.  That is what the statement of merge.c does, but it combines only once for state and
 *	   result, and has no need to guard against others that insert the same key.
 *
 * Whoever calls has locked out all others who write the table.  If somebody did all the same (superusers may), the
 * unique index or the update would raise an error, and the rows are written again later.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "live/key_scan.h"
#include "live/merge.h"
#include "testing/stop_points.h"

/* from so many rows on it pays to look whether the table takes them as they are; and so many at once */
#define MANY_ROWS	200
#define ROWS_AT_ONCE	500

/* Rows on their way */
typedef struct Bulk
{
	SxViewInfo *info;
	Relation	rel;
	CatalogIndexState indexes;	/* NULL: none */
	BulkInsertState state;
	MemoryContext context;		/* of the rows */
	TupleTableSlot *row;		/* minimal: as it came */
	TupleTableSlot *full;		/* virtual: combined, and with results */
	TupleTableSlot *slots[ROWS_AT_ONCE];
	int			n;
} Bulk;

/* Rows of which some may be there */
typedef struct Upsert
{
	Bulk	   *bulk;
	SxKeyScan  *scan;
	TupleTableSlot *stored;		/* what it has found */
	MemoryContext scratch;
} Upsert;

static bool takes_rows_as_they_are(SxViewInfo *info, Relation rel);
static bool has_plain_indexes_only(Relation rel);
static void bulk_begin(Bulk *bulk, SxViewInfo *info, Relation rel);
static void bulk_add(Bulk *bulk, MinimalTuple row);
static HeapTuple form_row(Bulk *bulk, MinimalTuple row);
static void bulk_write(Bulk *bulk);
static void bulk_end(Bulk *bulk);
static void append_rows(Bulk *bulk, Tuplestorestate *store, SxMergeProgress progress);
static void add_group(void *arg, TupleTableSlot *row);
static void update_or_insert(Bulk *bulk, Tuplestorestate *store, SxMergeProgress progress);
static void upsert_group(void *arg, TupleTableSlot *row);

/* false: they have to go the ordinary way */
bool
sx_merge_bulk(SxViewInfo *info, Tuplestorestate *rows, SxMergeProgress progress)
{
	Relation	rel;
	bool		possible;
	Bulk		bulk;

	if (tuplestore_tuple_count(rows) < MANY_ROWS)
		return false;
	rel = table_open(info->def->matid, RowExclusiveLock);
	possible = (info->nkeys == 0 || RelationGetNumberOfBlocks(rel) == 0) && takes_rows_as_they_are(info, rel);
	if (possible)
	{
		bulk_begin(&bulk, info, rel);
		if (info->nkeys == 0)
			append_rows(&bulk, rows, progress);
		else
			sx_merge_groups(info, rows, true, add_group, &bulk, progress);
		bulk_end(&bulk);
		SX_STOP_POINT_OF(merge_written, info->def->viewid);
	}
	table_close(rel, NoLock);
	return possible;
}

/* rows with keys; false: by the statement */
bool
sx_merge_upsert(SxViewInfo *info, Tuplestorestate *rows, SxMergeProgress progress)
{
	Relation	rel = table_open(info->def->matid, RowExclusiveLock);
	bool		possible = takes_rows_as_they_are(info, rel);
	Bulk		bulk;

	if (possible)
	{
		CheckCmdReplicaIdentity(rel, CMD_UPDATE);
		bulk_begin(&bulk, info, rel);
		update_or_insert(&bulk, rows, progress);
		bulk_end(&bulk);
	}
	table_close(rel, NoLock);
	return possible;
}

/* nothing of the table's would have to be done for a row */
static bool
takes_rows_as_they_are(SxViewInfo *info, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relam != HEAP_TABLE_AM_OID ||
		rel->trigdesc != NULL || rel->rd_rules != NULL || rel->rd_rel->relrowsecurity ||
		desc->constr != NULL || desc->natts != info->desc->natts || !has_plain_indexes_only(rel))
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || att->atttypid != TupleDescAttr(info->desc, i)->atttypid ||
			strcmp(NameStr(att->attname), NameStr(TupleDescAttr(info->desc, i)->attname)) != 0)
			return false;
	}
	return true;
}

/* expressions and conditions of an index would run somebody's code, which the ordinary way knows how to do */
static bool
has_plain_indexes_only(Relation rel)
{
	bool		plain = true;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), RowExclusiveLock);

		plain &= index->rd_index->indimmediate && !index->rd_index->indisexclusion &&
			index->rd_index->indisready && index->rd_rel->relam == BTREE_AM_OID &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL) &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
		index_close(index, NoLock);
	}
	return plain;
}

static void
append_rows(Bulk *bulk, Tuplestorestate *store, SxMergeProgress progress)
{
	TupleTableSlot *row = MakeSingleTupleTableSlot(bulk->info->desc, &TTSOpsMinimalTuple);
	int64		nrows = 0;

	tuplestore_rescan(store);
	while (tuplestore_gettupleslot(store, true, false, row))
	{
		bulk_add(bulk, ExecFetchSlotMinimalTuple(row, NULL));
		if (progress != NULL && ++nrows % ROWS_AT_ONCE == 0)
			progress(nrows);
	}
	ExecDropSingleTupleTableSlot(row);
}

/* a group of a new table */
static void
add_group(void *arg, TupleTableSlot *row)
{
	bulk_add(arg, ExecFetchSlotMinimalTuple(row, NULL));
}

static void
update_or_insert(Bulk *bulk, Tuplestorestate *store, SxMergeProgress progress)
{
	SxViewInfo *info = bulk->info;
	Upsert		upsert = {bulk};
	Snapshot	snapshot;

	/* what was written and deleted before in this transaction */
	CommandCounterIncrement();
	upsert.stored = table_slot_create(bulk->rel, NULL);
	upsert.scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext merge scratch", ALLOCSET_DEFAULT_SIZES);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	upsert.scan = sx_key_scan_begin(info, bulk->rel, snapshot, upsert.stored);
	sx_merge_groups(info, store, false, upsert_group, &upsert, progress);
	ExecClearTuple(upsert.stored);
	sx_key_scan_end(upsert.scan);
	UnregisterSnapshot(snapshot);
	for (int i = 0; i < info->naggs; i++)
		sx_agg_reset(info->aggs[i]);
	ExecDropSingleTupleTableSlot(upsert.stored);
	MemoryContextDelete(upsert.scratch);
}

static void
upsert_group(void *arg, TupleTableSlot *row)
{
	Upsert	   *upsert = arg;
	Bulk	   *bulk = upsert->bulk;
	MemoryContext old;
	HeapTuple	tuple;

	/* the scan remembers dead entries in the current context */
	if (!sx_key_scan_find(upsert->scan, row))
	{
		bulk_add(bulk, ExecFetchSlotMinimalTuple(row, NULL));
		return;
	}
	old = MemoryContextSwitchTo(upsert->scratch);
	sx_combine_rows(bulk->info, upsert->stored, row, bulk->full);
	sx_compute_results(bulk->info, bulk->full, NULL);
	tuple = ExecCopySlotHeapTuple(bulk->full);
	CatalogTupleUpdateWithInfo(bulk->rel, &upsert->stored->tts_tid, tuple, bulk->indexes);
	ExecClearTuple(bulk->full);
	MemoryContextSwitchTo(old);
	MemoryContextReset(upsert->scratch);
}

/* ---- pages ---- */

static void
bulk_begin(Bulk *bulk, SxViewInfo *info, Relation rel)
{
	memset(bulk, 0, sizeof(Bulk));
	bulk->info = info;
	bulk->rel = rel;
	bulk->context = AllocSetContextCreate(CurrentMemoryContext, "streamext bulk", ALLOCSET_DEFAULT_SIZES);
	if (rel->rd_rel->relhasindex)
		bulk->indexes = CatalogOpenIndexes(rel);
	else
		bulk->state = GetBulkInsertState();
	bulk->row = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	bulk->full = MakeSingleTupleTableSlot(info->desc, &TTSOpsVirtual);
	for (int i = 0; i < ROWS_AT_ONCE; i++)
		bulk->slots[i] = MakeSingleTupleTableSlot(info->desc, &TTSOpsHeapTuple);
}

/* the row is copied */
static void
bulk_add(Bulk *bulk, MinimalTuple row)
{
	MemoryContext old = MemoryContextSwitchTo(bulk->context);
	HeapTuple	tuple = form_row(bulk, row);

	if (bulk->indexes != NULL && (tuple->t_len > TOAST_TUPLE_THRESHOLD || HeapTupleHasExternal(tuple)))
	{
		/* of many such rows at a time, copies would be stored, and it would not be noted in these where */
		CatalogTupleInsertWithInfo(bulk->rel, tuple, bulk->indexes);
		MemoryContextSwitchTo(old);
		CHECK_FOR_INTERRUPTS();
		if (bulk->n == 0)
			MemoryContextReset(bulk->context);
		return;
	}
	/* of a heap: where it was stored is noted in the tuple itself, for the indexes */
	ExecStoreHeapTuple(tuple, bulk->slots[bulk->n++], false);
	MemoryContextSwitchTo(old);
	if (bulk->n == ROWS_AT_ONCE)
		bulk_write(bulk);
}

static HeapTuple
form_row(Bulk *bulk, MinimalTuple row)
{
	HeapTuple	tuple;

	if (bulk->info->nresults == 0)
		return heap_tuple_from_minimal_tuple(row);
	ExecStoreMinimalTuple(row, bulk->row, false);
	ExecCopySlot(bulk->full, bulk->row);
	sx_compute_results(bulk->info, bulk->full, NULL);
	tuple = ExecCopySlotHeapTuple(bulk->full);
	ExecClearTuple(bulk->full);
	ExecClearTuple(bulk->row);
	return tuple;
}

static void
bulk_write(Bulk *bulk)
{
	MemoryContext old = MemoryContextSwitchTo(bulk->context);

	CHECK_FOR_INTERRUPTS();
	if (bulk->indexes != NULL)
		CatalogTuplesMultiInsertWithInfo(bulk->rel, bulk->slots, bulk->n, bulk->indexes);
	else
		table_multi_insert(bulk->rel, bulk->slots, bulk->n, GetCurrentCommandId(true), 0, bulk->state);
	for (int i = 0; i < bulk->n; i++)
		ExecClearTuple(bulk->slots[i]);
	bulk->n = 0;
	MemoryContextSwitchTo(old);
	MemoryContextReset(bulk->context);
}

static void
bulk_end(Bulk *bulk)
{
	if (bulk->n > 0)
		bulk_write(bulk);
	for (int i = 0; i < ROWS_AT_ONCE; i++)
		ExecDropSingleTupleTableSlot(bulk->slots[i]);
	ExecDropSingleTupleTableSlot(bulk->row);
	ExecDropSingleTupleTableSlot(bulk->full);
	if (bulk->indexes != NULL)
		CatalogCloseIndexes(bulk->indexes);
	else
	{
		FreeBulkInsertState(bulk->state);
		table_finish_bulk_insert(bulk->rel, 0);
	}
	MemoryContextDelete(bulk->context);
	CommandCounterIncrement();
}
