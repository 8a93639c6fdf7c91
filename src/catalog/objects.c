/*
 * objects.c
 *		Our own tables, found and read.
 *
 * Reading is a systable scan with a fresh catalog snapshot: no SPI, no user code, no
 * permission checks, so that workers and hooks can do it in any transaction.  Writing goes
 * through the helpers that core uses for its own catalogs; they serve any heap table whose
 * indexes have no expressions and no predicate.
 *
 * The OIDs of our tables and indexes are looked up once per process and again after
 * pg_namespace changed: CREATE and DROP EXTENSION make and drop the schema, so that
 * invalidation (which also follows a rollback) is all that can change the answer.  A database
 * without the extension therefore costs its hooks one test of a static variable.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog/catalog_internal.h"

static const char *const relation_names[SX_N_RELATIONS] = {
	"stream_def", "stream_def_pkey",
	"view_def", "view_def_pkey", "view_def_query_key", "view_def_mat_key",
	"view_position", "view_position_pkey",
	"dead_letter", "dead_letter_pkey", "dead_letter_view_idx",
	"lost_interval", "lost_interval_view_idx",
	"attach_mark", "attach_mark_leaf_idx",
	"file_mark", "file_mark_leaf_idx",
	"view_stop", "view_stop_pkey",
	"alert_def", "alert_def_pkey", "alert_def_alert_key",
	"alert_fired", "alert_fired_key",
	"alert_error", "alert_error_pkey",
	"job_run", "job_run_pkey",
	"sink", "sink_pkey", "sink_target_idx"
};

#define MAX_CHANGE_CALLBACKS	8

/* what resolve() found; valid until pg_namespace changes */
static bool cache_valid = false;
static bool cache_present = false;
static uint64 cache_changes = 0;	/* invalidations seen */
static Oid	cache_extension_owner = InvalidOid;
static Oid	cache_schema = InvalidOid;
static Oid	cache_relations[SX_N_RELATIONS];

static bool callbacks_registered = false;
static void (*change_callbacks[MAX_CHANGE_CALLBACKS]) (void);
static int	n_change_callbacks = 0;

static void register_callbacks(void);
static void namespace_changed(Datum arg, int cacheid, uint32 hashvalue);
static void relation_changed(Datum arg, Oid relid);
static void run_change_callbacks(void);
static bool resolve(void);
static Oid	extension_owner(Oid extension);

static void
register_callbacks(void)
{
	if (callbacks_registered)
		return;
	CacheRegisterSyscacheCallback(NAMESPACEOID, namespace_changed, (Datum) 0);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	callbacks_registered = true;
}

static void
namespace_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	cache_valid = false;
	cache_changes++;
	run_change_callbacks();
}

/*
 * The OID of view_def is kept when the cache is no longer valid, so that no announcement is
 * missed in between; a process that never looked gets told by namespace_changed().
 */
static void
relation_changed(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == cache_relations[SX_REL_VIEW_DEF])
		run_change_callbacks();
}

static void
run_change_callbacks(void)
{
	for (int i = 0; i < n_change_callbacks; i++)
		change_callbacks[i] ();
}

void
sx_catalog_on_change(void (*callback) (void))
{
	for (int i = 0; i < n_change_callbacks; i++)
	{
		if (change_callbacks[i] == callback)
			return;
	}
	if (n_change_callbacks >= MAX_CHANGE_CALLBACKS)
		elog(ERROR, "too many callbacks for changes of the streamext catalog");
	register_callbacks();
	change_callbacks[n_change_callbacks++] = callback;
}

/*
 * Looks our objects up unless that is known.  False: the extension is not there, or its
 * script has not come far enough, which is not remembered.
 */
static bool
resolve(void)
{
	uint64		changes;
	Oid			schema;
	Oid			extension = InvalidOid;
	Oid			owner = InvalidOid;
	Oid			found[SX_N_RELATIONS];

	if (likely(cache_valid))
		return cache_present;

	if (!IsTransactionState() || !OidIsValid(MyDatabaseId))
		return false;

	register_callbacks();
	changes = cache_changes;

	schema = get_namespace_oid(SX_SCHEMA, true);
	if (OidIsValid(schema))
		extension = get_extension_oid(SX_EXTENSION, true);
	if (!OidIsValid(extension))
	{
		/* only a change of pg_namespace can bring the extension */
		if (changes == cache_changes)
		{
			cache_present = false;
			cache_valid = true;
		}
		return false;
	}

	for (int i = 0; i < SX_N_RELATIONS; i++)
	{
		found[i] = get_relname_relid(relation_names[i], schema);
		if (!OidIsValid(found[i]))
			return false;
	}
	owner = extension_owner(extension);

	cache_extension_owner = owner;
	cache_schema = schema;
	memcpy(cache_relations, found, sizeof(found));
	if (changes == cache_changes)
	{
		cache_present = true;
		cache_valid = true;
	}
	return true;
}

static Oid
extension_owner(Oid extension)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tup;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
		owner = ((Form_pg_extension) GETSTRUCT(tup))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return owner;
}

bool
sx_catalog_exists(void)
{
	return resolve();
}

Oid
sx_catalog_schema_oid(void)
{
	return resolve() ? cache_schema : InvalidOid;
}

Oid
sx_catalog_extension_owner(void)
{
	/* REASSIGN OWNED changes the owner of the schema as well, which empties the cache */
	return resolve() ? cache_extension_owner : InvalidOid;
}

Oid
sx_catalog_table_oid(const char *name)
{
	if (!resolve())
		return InvalidOid;
	for (int i = 0; i < SX_N_RELATIONS; i++)
	{
		if (strcmp(relation_names[i], name) == 0)
			return cache_relations[i];
	}
	return get_relname_relid(name, cache_schema);
}

Oid
sx_catalog_state_type_oid(void)
{
	if (!resolve())
		return InvalidOid;
	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("state"),
						   ObjectIdGetDatum(cache_schema));
}

Oid
sx_our_relation(SxOurRelation which)
{
	return resolve() ? cache_relations[which] : InvalidOid;
}

void
sx_must_exist(void)
{
	if (!resolve())
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", SX_EXTENSION),
				 errhint("CREATE EXTENSION %s;", SX_EXTENSION)));
}

/*
 * NULL when the extension is not there, or is just being dropped: the object access hook
 * runs while its tables disappear one by one.
 */
Relation
sx_open_ours(SxOurRelation which, LOCKMODE lockmode)
{
	Oid			relid = sx_our_relation(which);

	return OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;
}

SysScanDesc
sx_scan_by_oid(Relation rel, SxOurRelation index, AttrNumber attno, Oid value, Snapshot snapshot)
{
	ScanKeyData key;
	Oid			indexid = sx_our_relation(index);
	bool		usable;

	/* an index that is gone (DROP EXTENSION) leaves the plain scan */
	usable = OidIsValid(indexid) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(indexid));
	ScanKeyInit(&key, attno, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(value));
	return systable_beginscan(rel, indexid, usable, snapshot, 1, &key);
}

void
sx_catalog_announce(void)
{
	Oid			relid = sx_our_relation(SX_REL_VIEW_DEF);

	if (OidIsValid(relid) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		CacheInvalidateRelcacheByRelid(relid);
}

void
sx_rows_open(SxRows *rows, SxOurRelation table, SxOurRelation index, AttrNumber attno, Oid value,
			 Snapshot snapshot, LOCKMODE lockmode)
{
	rows->lockmode = lockmode;
	rows->rel = sx_open_ours(table, lockmode);
	rows->scan = rows->rel ? sx_scan_by_oid(rows->rel, index, attno, value, snapshot) : NULL;
}

HeapTuple
sx_rows_next(SxRows *rows)
{
	return rows->scan ? systable_getnext(rows->scan) : NULL;
}

void
sx_rows_close(SxRows *rows)
{
	if (rows->rel == NULL)
		return;
	systable_endscan(rows->scan);
	table_close(rows->rel, rows->lockmode);
}

void
sx_delete_by_oid(SxOurRelation table, SxOurRelation index, AttrNumber attno, Oid value)
{
	SxRows		rows;
	HeapTuple	tup;

	sx_rows_open(&rows, table, index, attno, value, NULL, RowExclusiveLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
	{
		CHECK_FOR_INTERRUPTS();
		CatalogTupleDelete(rows.rel, &tup->t_self);
	}
	sx_rows_close(&rows);
}

void
sx_change_oid(SxOurRelation table, SxOurRelation index, AttrNumber attno, Oid from, Oid to)
{
	SxRows		rows;
	HeapTuple	tup;

	sx_rows_open(&rows, table, index, attno, from, NULL, RowExclusiveLock);
	while (HeapTupleIsValid(tup = sx_rows_next(&rows)))
	{
		Datum	   *values = palloc0(sizeof(Datum) * RelationGetDescr(rows.rel)->natts);
		bool	   *nulls = palloc0(sizeof(bool) * RelationGetDescr(rows.rel)->natts);
		bool	   *replace = palloc0(sizeof(bool) * RelationGetDescr(rows.rel)->natts);

		CHECK_FOR_INTERRUPTS();
		values[attno - 1] = ObjectIdGetDatum(to);
		replace[attno - 1] = true;
		tup = heap_modify_tuple(tup, RelationGetDescr(rows.rel), values, nulls, replace);
		CatalogTupleUpdate(rows.rel, &tup->t_self, tup);
		pfree(values);
		pfree(nulls);
		pfree(replace);
	}
	sx_rows_close(&rows);
}

void
sx_insert_row(SxOurRelation table, const Datum *values, const bool *nulls)
{
	Relation	rel = table_open(sx_our_relation(table), RowExclusiveLock);
	HeapTuple	tup = heap_form_tuple(RelationGetDescr(rel), unconstify(Datum *, values), unconstify(bool *, nulls));

	CatalogTupleInsert(rel, tup);
	heap_freetuple(tup);
	table_close(rel, RowExclusiveLock);
}

Datum
sx_column(HeapTuple tup, AttrNumber attno, Relation rel)
{
	bool		isnull;
	Datum		value = heap_getattr(tup, attno, RelationGetDescr(rel), &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column %d of streamext.%s is null", attno, RelationGetRelationName(rel))));
	return value;
}
