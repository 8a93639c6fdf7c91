/*
 * view_stops.c
 *		Views that are stopped until somebody decides what they contain: streamext.view_stop.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "catalog/catalog_internal.h"

/* columns of streamext.view_stop */
enum
{
	STOP_VIEW = 1,
	STOP_REASON,
	STOP_AT,
	STOP_NCOLUMNS = STOP_AT
};

char *
sx_catalog_stop_reason(Oid viewid, TimestampTz *at)
{
	SxRows		rows;
	HeapTuple	tup;
	char	   *reason = NULL;

	sx_rows_open(&rows, SX_REL_VIEW_STOP, SX_REL_VIEW_STOP_PKEY, STOP_VIEW, viewid, NULL, AccessShareLock);
	tup = sx_rows_next(&rows);
	if (HeapTupleIsValid(tup))
	{
		reason = TextDatumGetCString(sx_column(tup, STOP_REASON, rows.rel));
		if (at)
			*at = DatumGetTimestampTz(sx_column(tup, STOP_AT, rows.rel));
	}
	sx_rows_close(&rows);
	return reason;
}

void
sx_catalog_stop_view(Oid viewid, const char *reason)
{
	Datum		values[STOP_NCOLUMNS];
	bool		nulls[STOP_NCOLUMNS] = {0};

	if (sx_catalog_stop_reason(viewid, NULL) != NULL)
		return;
	values[STOP_VIEW - 1] = ObjectIdGetDatum(viewid);
	values[STOP_REASON - 1] = CStringGetTextDatum(reason);
	values[STOP_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	sx_insert_row(SX_REL_VIEW_STOP, values, nulls);
	sx_catalog_announce();
	CommandCounterIncrement();
}

void
sx_catalog_end_stop(Oid viewid)
{
	SxRows		rows;
	HeapTuple	tup;

	sx_rows_open(&rows, SX_REL_VIEW_STOP, SX_REL_VIEW_STOP_PKEY, STOP_VIEW, viewid, NULL, RowExclusiveLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
		CatalogTupleDelete(rows.rel, &tup->t_self);
	sx_rows_close(&rows);
	sx_catalog_announce();
	CommandCounterIncrement();
}
