/*
 * dead_letters.c
 *		Rejected rows, one by one: streamext.dead_letter.
 *
 * Letters are written in bulk by live/merge.c.  Here they are read and changed, by one process at a time for
 * each view: whoever holds a lock on its materialized table that conflicts with itself and with flushes.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/indexing.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog/catalog_internal.h"
#include "catalog/dead_letters.h"

/* columns of streamext.dead_letter */
enum
{
	LETTER_ID = 1,
	LETTER_VIEW,
	LETTER_STREAM,
	LETTER_ROW,
	LETTER_REASON,
	LETTER_SQLSTATE,
	LETTER_MESSAGE,
	LETTER_AT,
	LETTER_NCOLUMNS = LETTER_AT
};

typedef struct Found
{
	int64		id;
	SxDeadLetter *letter;
} Found;

static int
compare_found(const ListCell *a, const ListCell *b)
{
	int64		left = ((Found *) lfirst(a))->id;
	int64		right = ((Found *) lfirst(b))->id;

	return left < right ? -1 : left > right;
}

List *
sx_catalog_dead_letters(Oid viewid)
{
	SxRows		rows;
	HeapTuple	tup;
	List	   *found = NIL;
	List	   *letters = NIL;
	ListCell   *lc;

	sx_rows_open(&rows, SX_REL_DEAD_LETTER, SX_REL_DEAD_LETTER_VIEW_IDX, LETTER_VIEW, viewid, NULL, AccessShareLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
	{
		Found	   *f = palloc(sizeof(Found));
		SxDeadLetter *letter = palloc0(sizeof(SxDeadLetter));
		bool		isnull;
		Datum		row = heap_getattr(tup, LETTER_ROW, RelationGetDescr(rows.rel), &isnull);

		letter->tid = tup->t_self;
		if (!isnull)
			letter->row = DatumGetCString(DirectFunctionCall1(jsonb_out, row));
		f->id = DatumGetInt64(sx_column(tup, LETTER_ID, rows.rel));
		f->letter = letter;
		found = lappend(found, f);
	}
	sx_rows_close(&rows);
	list_sort(found, compare_found);
	foreach(lc, found)
		letters = lappend(letters, ((Found *) lfirst(lc))->letter);
	return letters;
}

void
sx_catalog_delete_dead_letter(SxDeadLetter *letter)
{
	Relation	rel = table_open(sx_our_relation(SX_REL_DEAD_LETTER), RowExclusiveLock);

	CatalogTupleDelete(rel, &letter->tid);
	table_close(rel, NoLock);
}

void
sx_catalog_update_dead_letter(SxDeadLetter *letter)
{
	Relation	rel = table_open(sx_our_relation(SX_REL_DEAD_LETTER), RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Datum		values[LETTER_NCOLUMNS] = {0};
	bool		nulls[LETTER_NCOLUMNS] = {0};
	bool		replace[LETTER_NCOLUMNS] = {0};
	HeapTuple	tup;
	bool		shared;

	if (!table_tuple_fetch_row_version(rel, &letter->tid, SnapshotAny, slot))
		elog(ERROR, "dead letter is gone");
	tup = ExecFetchSlotHeapTuple(slot, false, &shared);
	values[LETTER_MESSAGE - 1] = CStringGetTextDatum(letter->message);
	replace[LETTER_MESSAGE - 1] = true;
	if (letter->reason != NULL)
	{
		values[LETTER_REASON - 1] = CStringGetTextDatum(letter->reason);
		values[LETTER_SQLSTATE - 1] = CStringGetTextDatum(letter->sqlstate);
		replace[LETTER_REASON - 1] = replace[LETTER_SQLSTATE - 1] = true;
	}
	tup = heap_modify_tuple(tup, RelationGetDescr(rel), values, nulls, replace);
	CatalogTupleUpdate(rel, &letter->tid, tup);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

Oid
sx_catalog_dead_letter_row(int64 id, Jsonb *row)
{
	Relation	rel = table_open(sx_our_relation(SX_REL_DEAD_LETTER), RowExclusiveLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tup;
	Oid			viewid = InvalidOid;

	ScanKeyInit(&key, LETTER_ID, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	scan = systable_beginscan(rel, sx_our_relation(SX_REL_DEAD_LETTER_PKEY), true, NULL, 1, &key);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		viewid = DatumGetObjectId(sx_column(tup, LETTER_VIEW, rel));
		if (row != NULL)
		{
			Datum		values[LETTER_NCOLUMNS] = {0};
			bool		nulls[LETTER_NCOLUMNS] = {0};
			bool		replace[LETTER_NCOLUMNS] = {0};

			values[LETTER_ROW - 1] = JsonbPGetDatum(row);
			replace[LETTER_ROW - 1] = true;
			tup = heap_modify_tuple(tup, RelationGetDescr(rel), values, nulls, replace);
			CatalogTupleUpdate(rel, &tup->t_self, tup);
		}
	}
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
	return viewid;
}
