/*
 * sinks.c
 *		Tables that closed windows are appended to: streamext.sink.
 *
 * A row is written by who creates the sink, and by the flush that appends to it, both under a lock on the
 * view's materialized table that conflicts with itself.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "utils/rel.h"

#include "catalog/catalog_internal.h"
#include "catalog/sinks.h"

/* columns of streamext.sink */
enum
{
	SINK_VIEW = 1,
	SINK_TARGET,
	SINK_CORRECTIONS,
	SINK_CLOSED_UNTIL,
	SINK_ROWS,
	SINK_REOPENED,
	SINK_NCOLUMNS = SINK_REOPENED
};

static List *find(SxOurRelation index, AttrNumber attno, Oid oid);

List *
sx_catalog_sinks(Oid viewid)
{
	return find(SX_REL_SINK_PKEY, SINK_VIEW, viewid);
}

List *
sx_catalog_sinks_into(Oid target)
{
	return find(SX_REL_SINK_TARGET_IDX, SINK_TARGET, target);
}

static List *
find(SxOurRelation index, AttrNumber attno, Oid oid)
{
	SxRows		rows;
	HeapTuple	tup;
	List	   *sinks = NIL;

	sx_rows_open(&rows, SX_REL_SINK, index, attno, oid, NULL, AccessShareLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
	{
		SxSink	   *sink = palloc0(sizeof(SxSink));
		bool		isnull;
		Datum		reopened;

		sink->viewid = DatumGetObjectId(sx_column(tup, SINK_VIEW, rows.rel));
		sink->target = DatumGetObjectId(sx_column(tup, SINK_TARGET, rows.rel));
		sink->corrections = DatumGetBool(sx_column(tup, SINK_CORRECTIONS, rows.rel));
		sink->closed_until = DatumGetInt64(sx_column(tup, SINK_CLOSED_UNTIL, rows.rel));
		sink->rows = DatumGetInt64(sx_column(tup, SINK_ROWS, rows.rel));
		reopened = heap_getattr(tup, SINK_REOPENED, RelationGetDescr(rows.rel), &isnull);
		if (!isnull)
			sink->reopened = DatumGetJsonbPCopy(reopened);
		sinks = lappend(sinks, sink);
	}
	sx_rows_close(&rows);
	return sinks;
}

void
sx_catalog_insert_sink(const SxSink *sink)
{
	Datum		values[SINK_NCOLUMNS];
	bool		nulls[SINK_NCOLUMNS] = {0};

	values[SINK_VIEW - 1] = ObjectIdGetDatum(sink->viewid);
	values[SINK_TARGET - 1] = ObjectIdGetDatum(sink->target);
	values[SINK_CORRECTIONS - 1] = BoolGetDatum(sink->corrections);
	values[SINK_CLOSED_UNTIL - 1] = Int64GetDatum(sink->closed_until);
	values[SINK_ROWS - 1] = Int64GetDatum(sink->rows);
	nulls[SINK_REOPENED - 1] = true;
	sx_insert_row(SX_REL_SINK, values, nulls);
	CommandCounterIncrement();
}

/* where it stands */
void
sx_catalog_update_sink(const SxSink *sink)
{
	SxRows		rows;
	HeapTuple	tup;

	sx_rows_open(&rows, SX_REL_SINK, SX_REL_SINK_PKEY, SINK_VIEW, sink->viewid, NULL, RowExclusiveLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
	{
		Datum		values[SINK_NCOLUMNS] = {0};
		bool		nulls[SINK_NCOLUMNS] = {0};
		bool		replace[SINK_NCOLUMNS] = {0};

		if (DatumGetObjectId(sx_column(tup, SINK_TARGET, rows.rel)) != sink->target)
			continue;
		values[SINK_CLOSED_UNTIL - 1] = Int64GetDatum(sink->closed_until);
		values[SINK_ROWS - 1] = Int64GetDatum(sink->rows);
		replace[SINK_CLOSED_UNTIL - 1] = replace[SINK_ROWS - 1] = true;
		replace[SINK_REOPENED - 1] = sink->reopened_changed;
		nulls[SINK_REOPENED - 1] = sink->reopened == NULL;
		values[SINK_REOPENED - 1] = PointerGetDatum(sink->reopened);
		tup = heap_modify_tuple(tup, RelationGetDescr(rows.rel), values, nulls, replace);
		CatalogTupleUpdate(rows.rel, &tup->t_self, tup);
		break;
	}
	sx_rows_close(&rows);
}

bool
sx_catalog_delete_sink(Oid viewid, Oid target)
{
	SxRows		rows;
	HeapTuple	tup;
	bool		found = false;

	sx_rows_open(&rows, SX_REL_SINK, SX_REL_SINK_PKEY, SINK_VIEW, viewid, NULL, RowExclusiveLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
	{
		if (DatumGetObjectId(sx_column(tup, SINK_TARGET, rows.rel)) != target)
			continue;
		CatalogTupleDelete(rows.rel, &tup->t_self);
		found = true;
	}
	sx_rows_close(&rows);
	CommandCounterIncrement();
	return found;
}

void
sx_catalog_delete_sinks(Oid viewid)
{
	sx_delete_by_oid(SX_REL_SINK, SX_REL_SINK_PKEY, SINK_VIEW, viewid);
}
