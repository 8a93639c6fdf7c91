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
	Relation	rel = sx_open_ours(SX_REL_VIEW_STOP, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tup;
	char	   *reason = NULL;

	if (rel == NULL)
		return NULL;
	scan = sx_scan_by_oid(rel, SX_REL_VIEW_STOP_PKEY, STOP_VIEW, viewid, NULL);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		reason = TextDatumGetCString(sx_column(tup, STOP_REASON, rel));
		if (at)
			*at = DatumGetTimestampTz(sx_column(tup, STOP_AT, rel));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return reason;
}

void
sx_catalog_stop_view(Oid viewid, const char *reason)
{
	Relation	rel;
	Datum		values[STOP_NCOLUMNS];
	bool		nulls[STOP_NCOLUMNS] = {0};
	HeapTuple	tup;

	if (sx_catalog_stop_reason(viewid, NULL) != NULL)
		return;
	rel = table_open(sx_our_relation(SX_REL_VIEW_STOP), RowExclusiveLock);
	values[STOP_VIEW - 1] = ObjectIdGetDatum(viewid);
	values[STOP_REASON - 1] = CStringGetTextDatum(reason);
	values[STOP_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	tup = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	CatalogTupleInsert(rel, tup);
	heap_freetuple(tup);
	table_close(rel, RowExclusiveLock);
	sx_catalog_announce();
	CommandCounterIncrement();
}

void
sx_catalog_end_stop(Oid viewid)
{
	Relation	rel = sx_open_ours(SX_REL_VIEW_STOP, RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tup;

	if (rel == NULL)
		return;
	scan = sx_scan_by_oid(rel, SX_REL_VIEW_STOP_PKEY, STOP_VIEW, viewid, NULL);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
		CatalogTupleDelete(rel, &tup->t_self);
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
	sx_catalog_announce();
	CommandCounterIncrement();
}
