/*
 * alerts.c
 *		Alerts on continuous views: SQL catalog <-> structs.
 *
 * A group's row in streamext.alert_fired is what makes its alert happen once: it is written in the
 * transaction that sends the NOTIFY, under a unique key of alert and group.  It is dumped, so that a restored
 * database does not send its alerts again.
 *
 * Locking: as in definitions.c.  Who changes an alert holds a lock on its view.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "catalog/alerts.h"
#include "catalog/catalog_internal.h"

/* columns of streamext.alert_def */
enum
{
	ALERT_NAME = 1,
	ALERT_ALERT,
	ALERT_VIEW,
	ALERT_CHANNEL,
	ALERT_NCOLUMNS = ALERT_CHANNEL
};

/* columns of streamext.alert_fired */
enum
{
	FIRED_ALERT = 1,
	FIRED_KEY,
	FIRED_ID,
	FIRED_GROUP,
	FIRED_ROW,
	FIRED_AT,
	FIRED_NCOLUMNS = FIRED_AT
};

/* columns of streamext.alert_error */
enum
{
	ERROR_ALERT = 1,
	ERROR_FAILURES,
	ERROR_MESSAGE,
	ERROR_AT,
	ERROR_NCOLUMNS = ERROR_AT
};

static SxAlertDef *read_alert(Relation rel, HeapTuple tup);

static SxAlertDef *
read_alert(Relation rel, HeapTuple tup)
{
	SxAlertDef *def = palloc(sizeof(SxAlertDef));

	def->name = TextDatumGetCString(sx_column(tup, ALERT_NAME, rel));
	def->alertid = DatumGetObjectId(sx_column(tup, ALERT_ALERT, rel));
	def->viewid = DatumGetObjectId(sx_column(tup, ALERT_VIEW, rel));
	def->channel = TextDatumGetCString(sx_column(tup, ALERT_CHANNEL, rel));
	return def;
}

/* there are few: no index is needed */
List *
sx_catalog_alerts(Oid viewid)
{
	Relation	rel = sx_open_ours(SX_REL_ALERT_DEF, AccessShareLock);
	List	   *alerts = NIL;
	SysScanDesc scan;
	HeapTuple	tup;

	if (rel == NULL)
		return NIL;
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		SxAlertDef *def = read_alert(rel, tup);

		if (!OidIsValid(viewid) || def->viewid == viewid)
			alerts = lappend(alerts, def);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return alerts;
}

bool
sx_catalog_has_alerts(void)
{
	return sx_catalog_alerts(InvalidOid) != NIL;
}

SxAlertDef *
sx_catalog_alert(Oid alertid)
{
	SxRows		rows;
	HeapTuple	tup;
	SxAlertDef *def = NULL;

	sx_rows_open(&rows, SX_REL_ALERT_DEF, SX_REL_ALERT_DEF_ALERT_KEY, ALERT_ALERT, alertid, NULL, AccessShareLock);
	tup = sx_rows_next(&rows);
	if (HeapTupleIsValid(tup))
		def = read_alert(rows.rel, tup);
	sx_rows_close(&rows);
	return def;
}

SxAlertDef *
sx_catalog_alert_by_name(const char *name)
{
	ListCell   *lc;

	foreach(lc, sx_catalog_alerts(InvalidOid))
	{
		SxAlertDef *def = lfirst(lc);

		if (strcmp(def->name, name) == 0)
			return def;
	}
	return NULL;
}

void
sx_catalog_insert_alert(const SxAlertDef *def)
{
	Datum		values[ALERT_NCOLUMNS];
	bool		nulls[ALERT_NCOLUMNS] = {0};

	sx_must_exist();
	values[ALERT_NAME - 1] = CStringGetTextDatum(def->name);
	values[ALERT_ALERT - 1] = ObjectIdGetDatum(def->alertid);
	values[ALERT_VIEW - 1] = ObjectIdGetDatum(def->viewid);
	values[ALERT_CHANNEL - 1] = CStringGetTextDatum(def->channel);
	sx_insert_row(SX_REL_ALERT_DEF, values, nulls);
	sx_catalog_announce();
}

void
sx_catalog_delete_alert(Oid alertid)
{
	sx_delete_by_oid(SX_REL_ALERT_DEF, SX_REL_ALERT_DEF_ALERT_KEY, ALERT_ALERT, alertid);
	sx_delete_by_oid(SX_REL_ALERT_FIRED, SX_REL_ALERT_FIRED_KEY, FIRED_ALERT, alertid);
	sx_catalog_delete_alert_error(alertid);
	sx_catalog_announce();
}

/* ---- groups ---- */

bool
sx_catalog_alert_fired(Oid alertid, bytea *key)
{
	Relation	rel = sx_open_ours(SX_REL_ALERT_FIRED, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	bool		fired;

	if (rel == NULL)
		return false;
	ScanKeyInit(&keys[0], FIRED_ALERT, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(alertid));
	ScanKeyInit(&keys[1], FIRED_KEY, BTEqualStrategyNumber, F_BYTEAEQ, PointerGetDatum(key));
	scan = systable_beginscan(rel, sx_our_relation(SX_REL_ALERT_FIRED_KEY), true, NULL, 2, keys);
	fired = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return fired;
}

int64
sx_catalog_insert_fired(const SxAlertRow *row)
{
	/* there may be many in one transaction */
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext alert", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	Datum		values[FIRED_NCOLUMNS] = {0};
	bool		nulls[FIRED_NCOLUMNS] = {0};
	int64		id = 0;

	sx_must_exist();
	values[FIRED_ALERT - 1] = ObjectIdGetDatum(row->alertid);
	values[FIRED_KEY - 1] = PointerGetDatum(row->key);
	nulls[FIRED_ID - 1] = nulls[FIRED_GROUP - 1] = nulls[FIRED_ROW - 1] = nulls[FIRED_AT - 1] = row->group == NULL;
	if (row->group != NULL)
	{
		Oid			sequence = get_relname_relid("alert_id_seq", sx_catalog_schema_oid());

		if (!OidIsValid(sequence))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("sequence \"alert_id_seq\" does not exist")));
		id = nextval_internal(sequence, false);
		values[FIRED_ID - 1] = Int64GetDatum(id);
		values[FIRED_GROUP - 1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(row->group));
		values[FIRED_ROW - 1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(row->row));
		values[FIRED_AT - 1] = TimestampTzGetDatum(row->at);
	}
	sx_insert_row(SX_REL_ALERT_FIRED, values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return id;
}

/* ---- errors ---- */

SxAlertError *
sx_catalog_alert_error(Oid alertid)
{
	SxRows		rows;
	HeapTuple	tup;
	SxAlertError *error = NULL;

	sx_rows_open(&rows, SX_REL_ALERT_ERROR, SX_REL_ALERT_ERROR_PKEY, ERROR_ALERT, alertid, NULL, AccessShareLock);
	tup = sx_rows_next(&rows);
	if (HeapTupleIsValid(tup))
	{
		error = palloc(sizeof(SxAlertError));
		error->alertid = alertid;
		error->failures = DatumGetInt32(sx_column(tup, ERROR_FAILURES, rows.rel));
		error->message = TextDatumGetCString(sx_column(tup, ERROR_MESSAGE, rows.rel));
		error->at = DatumGetTimestampTz(sx_column(tup, ERROR_AT, rows.rel));
	}
	sx_rows_close(&rows);
	return error;
}

void
sx_catalog_store_alert_error(const SxAlertError *error)
{
	Datum		values[ERROR_NCOLUMNS];
	bool		nulls[ERROR_NCOLUMNS] = {0};
	bool		replace[ERROR_NCOLUMNS] = {true, true, true, true};
	SxRows		rows;
	HeapTuple	tup;

	sx_must_exist();
	values[ERROR_ALERT - 1] = ObjectIdGetDatum(error->alertid);
	values[ERROR_FAILURES - 1] = Int32GetDatum(error->failures);
	values[ERROR_MESSAGE - 1] = CStringGetTextDatum(error->message);
	values[ERROR_AT - 1] = TimestampTzGetDatum(error->at);

	sx_rows_open(&rows, SX_REL_ALERT_ERROR, SX_REL_ALERT_ERROR_PKEY, ERROR_ALERT, error->alertid, NULL, RowExclusiveLock);
	tup = sx_rows_next(&rows);
	if (HeapTupleIsValid(tup))
	{
		tup = heap_modify_tuple(tup, RelationGetDescr(rows.rel), values, nulls, replace);
		CatalogTupleUpdate(rows.rel, &tup->t_self, tup);
	}
	else
		sx_insert_row(SX_REL_ALERT_ERROR, values, nulls);
	sx_rows_close(&rows);
}

void
sx_catalog_delete_alert_error(Oid alertid)
{
	sx_delete_by_oid(SX_REL_ALERT_ERROR, SX_REL_ALERT_ERROR_PKEY, ERROR_ALERT, alertid);
}
