/*
 * definitions.c
 *		Streams and continuous views: SQL catalog <-> structs.
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
 *
 * Locking: tables are opened with AccessShareLock or RowExclusiveLock.  Writers of one row
 * are serialized by their callers: by a lock on the view for view_def, on the materialized
 * table for view_position, and by sx_catalog_lock_stream() for stream_def.
 *
 * A crash leaves nothing: everything is transactional.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "catalog/definitions.h"

/* columns of streamext.view_def */
enum
{
	VIEW_VIEW = 1,
	VIEW_QUERY,
	VIEW_MAT,
	VIEW_STREAM,
	VIEW_STRATEGY,
	VIEW_NKEYS,
	VIEW_WITH_DATA,
	VIEW_PAUSED,
	VIEW_EMIT,
	VIEW_FLUSH_INTERVAL,
	VIEW_RETENTION,
	VIEW_SETTINGS,
	VIEW_NCOLUMNS = VIEW_SETTINGS
};

/* columns of streamext.view_position */
enum
{
	POS_VIEW = 1,
	POS_POSITION,
	POS_START_LSN,
	POS_TIMELINE,
	POS_SEQ,
	POS_FILE_RELS,
	POS_FILE_NODES,
	POS_ROWS_CONSUMED,
	POS_DATABASE,
	POS_WRITER,
	POS_STORED_AT,
	POS_WAL_ONLY,
	POS_COMPLETE_AT,
	POS_SCAN_POSITION,
	POS_SCAN_AT,
	POS_SCAN_RELS,
	POS_SCAN_NODES,
	POS_SCAN_FILE,
	POS_SCAN_BLOCK,
	POS_OPEN_ROWS,
	POS_NCOLUMNS = POS_OPEN_ROWS
};

/* columns of streamext.lost_interval */
enum
{
	LOST_VIEW = 1,
	LOST_FROM,
	LOST_UNTIL,
	LOST_ROWS,
	LOST_WHY,
	LOST_NOTICED_AT,
	LOST_NCOLUMNS = LOST_NOTICED_AT
};

/* columns of streamext.attach_mark */
enum
{
	MARK_LEAF = 1,
	MARK_PARENT,
	MARK_KIND,
	MARK_SNAPSHOT,
	MARK_NCOLUMNS = MARK_SNAPSHOT
};

/* a column of streamext.view_stop */
#define STOP_VIEW	1

/* a column of streamext.dead_letter */
#define DEAD_LETTER_VIEW	2

/* Our tables and their indexes, in the order of relations[] */
typedef enum OurRelation
{
	STREAM_DEF,
	STREAM_DEF_PKEY,
	VIEW_DEF,
	VIEW_DEF_PKEY,
	VIEW_DEF_QUERY_KEY,
	VIEW_DEF_MAT_KEY,
	VIEW_POSITION,
	VIEW_POSITION_PKEY,
	DEAD_LETTER,
	DEAD_LETTER_VIEW_IDX,
	LOST_INTERVAL,
	LOST_INTERVAL_VIEW_IDX,
	ATTACH_MARK,
	ATTACH_MARK_LEAF_IDX,
	FILE_MARK,
	FILE_MARK_LEAF_IDX,
	VIEW_STOP,
	VIEW_STOP_PKEY,
	N_OUR_RELATIONS
} OurRelation;

static const char *const relation_names[N_OUR_RELATIONS] = {
	"stream_def", "stream_def_pkey",
	"view_def", "view_def_pkey", "view_def_query_key", "view_def_mat_key",
	"view_position", "view_position_pkey",
	"dead_letter", "dead_letter_view_idx",
	"lost_interval", "lost_interval_view_idx",
	"attach_mark", "attach_mark_leaf_idx",
	"file_mark", "file_mark_leaf_idx",
	"view_stop", "view_stop_pkey"
};

#define MAX_CHANGE_CALLBACKS	8

/* what resolve() found; valid until pg_namespace changes */
static bool cache_valid = false;
static bool cache_present = false;
static uint64 cache_changes = 0;	/* invalidations seen */
static Oid	cache_extension_owner = InvalidOid;
static Oid	cache_schema = InvalidOid;
static Oid	cache_relations[N_OUR_RELATIONS];

static bool callbacks_registered = false;
static void (*change_callbacks[MAX_CHANGE_CALLBACKS]) (void);
static int	n_change_callbacks = 0;

static void register_callbacks(void);
static void namespace_changed(Datum arg, int cacheid, uint32 hashvalue);
static void relation_changed(Datum arg, Oid relid);
static void run_change_callbacks(void);
static bool resolve(void);
static Oid	extension_owner(Oid extension);
static Oid	our_relation(OurRelation which);
static void must_exist(void);
static Relation open_ours(OurRelation which, LOCKMODE lockmode);
static SysScanDesc scan_by_oid(Relation rel, OurRelation index, AttrNumber attno, Oid value,
							   Snapshot snapshot);
static SxViewDef *read_view(Relation rel, HeapTuple tup);
static SxViewDef *find_view(OurRelation index, AttrNumber attno, Oid relid);
static SxStreamDef *read_stream(Relation rel, HeapTuple tup);
static SxStoredPosition *read_position(Relation rel, HeapTuple tup);
static SxStoredScan *read_scan(Relation rel, HeapTuple tup);
static Datum require(HeapTuple tup, AttrNumber attno, Relation rel);
static List *read_text_array(Datum array);
static Datum make_text_array(List *strings);
static int	read_oid_array(Datum array, Oid **values);
static Datum make_oid_array(const Oid *values, int n);
static int	interval_to_ms(const Interval *span);
static Datum ms_to_interval(int ms);
static void update_view(Oid viewid, const Datum *values, const bool *nulls, const bool *replace);
static void delete_by_oid(OurRelation table, OurRelation index, AttrNumber attno, Oid value);

/* ---- our own objects ---- */

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
	if (relid == InvalidOid || relid == cache_relations[VIEW_DEF])
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
	Oid			found[N_OUR_RELATIONS];

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

	for (int i = 0; i < N_OUR_RELATIONS; i++)
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
	for (int i = 0; i < N_OUR_RELATIONS; i++)
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

static Oid
our_relation(OurRelation which)
{
	return resolve() ? cache_relations[which] : InvalidOid;
}

static void
must_exist(void)
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
static Relation
open_ours(OurRelation which, LOCKMODE lockmode)
{
	Oid			relid = our_relation(which);

	return OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;
}

static SysScanDesc
scan_by_oid(Relation rel, OurRelation index, AttrNumber attno, Oid value, Snapshot snapshot)
{
	ScanKeyData key;
	Oid			indexid = our_relation(index);
	bool		usable;

	/* an index that is gone (DROP EXTENSION) leaves the plain scan */
	usable = OidIsValid(indexid) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(indexid));
	ScanKeyInit(&key, attno, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(value));
	return systable_beginscan(rel, indexid, usable, snapshot, 1, &key);
}

void
sx_catalog_announce(void)
{
	Oid			relid = our_relation(VIEW_DEF);

	if (OidIsValid(relid) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		CacheInvalidateRelcacheByRelid(relid);
}

/* ---- views ---- */

List *
sx_catalog_views(void)
{
	Relation	rel = open_ours(VIEW_DEF, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tup;
	List	   *views = NIL;

	if (rel == NULL)
		return NIL;
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		SxViewDef  *def = read_view(rel, tup);

		if (def != NULL)
			views = lappend(views, def);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return views;
}

SxViewDef *
sx_catalog_view(Oid viewid)
{
	return find_view(VIEW_DEF_PKEY, VIEW_VIEW, viewid);
}

SxViewDef *
sx_catalog_view_by_mat(Oid matid)
{
	return find_view(VIEW_DEF_MAT_KEY, VIEW_MAT, matid);
}

SxViewDef *
sx_catalog_view_by_query(Oid queryid)
{
	return find_view(VIEW_DEF_QUERY_KEY, VIEW_QUERY, queryid);
}

SxViewDef *
sx_catalog_view_by_any(Oid relid)
{
	SxViewDef  *def = sx_catalog_view(relid);

	if (def == NULL)
		def = sx_catalog_view_by_mat(relid);
	if (def == NULL)
		def = sx_catalog_view_by_query(relid);
	return def;
}

static SxViewDef *
find_view(OurRelation index, AttrNumber attno, Oid relid)
{
	Relation	rel = open_ours(VIEW_DEF, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tup;
	SxViewDef  *def = NULL;

	if (rel == NULL)
		return NULL;
	scan = scan_by_oid(rel, index, attno, relid, NULL);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
		def = read_view(rel, tup);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return def;
}

List *
sx_catalog_views_of_stream(Oid streamid)
{
	List	   *all = sx_catalog_views();
	List	   *views = NIL;
	ListCell   *lc;

	foreach(lc, all)
	{
		SxViewDef  *def = lfirst(lc);

		if (def->streamid == streamid)
			views = lappend(views, def);
	}
	return views;
}

/*
 * NULL when the user's view is gone: a regclass of a restored or hand-edited row may name
 * anything.
 */
static SxViewDef *
read_view(Relation rel, HeapTuple tup)
{
	SxViewDef  *def = palloc0(sizeof(SxViewDef));
	TupleDesc	desc = RelationGetDescr(rel);
	HeapTuple	classtup;
	Datum		value;
	bool		isnull;
	char	   *strategy;
	char	   *emit;

	def->viewid = DatumGetObjectId(require(tup, VIEW_VIEW, rel));
	def->queryid = DatumGetObjectId(require(tup, VIEW_QUERY, rel));
	def->matid = DatumGetObjectId(require(tup, VIEW_MAT, rel));
	def->streamid = DatumGetObjectId(require(tup, VIEW_STREAM, rel));

	classtup = SearchSysCache1(RELOID, ObjectIdGetDatum(def->viewid));
	if (!HeapTupleIsValid(classtup))
	{
		pfree(def);
		return NULL;
	}
	def->owner = ((Form_pg_class) GETSTRUCT(classtup))->relowner;
	ReleaseSysCache(classtup);

	strategy = TextDatumGetCString(require(tup, VIEW_STRATEGY, rel));
	if (strcmp(strategy, "append") == 0)
		def->strategy = SX_APPEND;
	else if (strcmp(strategy, "merge") == 0)
		def->strategy = SX_MERGE;
	else
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("unknown strategy \"%s\" in streamext.view_def", strategy),
				 errhint("The catalog was written by another version: ALTER EXTENSION streamext UPDATE;")));
	def->nkeys = DatumGetInt32(require(tup, VIEW_NKEYS, rel));
	def->with_data = DatumGetBool(require(tup, VIEW_WITH_DATA, rel));
	def->paused = DatumGetBool(require(tup, VIEW_PAUSED, rel));
	emit = TextDatumGetCString(require(tup, VIEW_EMIT, rel));
	def->on_close = strcmp(emit, "on_close") == 0;
	value = heap_getattr(tup, VIEW_FLUSH_INTERVAL, desc, &isnull);
	def->flush_interval = isnull ? -1 : interval_to_ms(DatumGetIntervalP(value));
	def->settings = read_text_array(require(tup, VIEW_SETTINGS, rel));
	return def;
}

void
sx_catalog_insert_view(const SxViewDef *def)
{
	Relation	rel;
	Datum		values[VIEW_NCOLUMNS] = {0};
	bool		nulls[VIEW_NCOLUMNS] = {0};
	HeapTuple	tup;

	must_exist();
	values[VIEW_VIEW - 1] = ObjectIdGetDatum(def->viewid);
	values[VIEW_QUERY - 1] = ObjectIdGetDatum(def->queryid);
	values[VIEW_MAT - 1] = ObjectIdGetDatum(def->matid);
	values[VIEW_STREAM - 1] = ObjectIdGetDatum(def->streamid);
	values[VIEW_STRATEGY - 1] = CStringGetTextDatum(def->strategy == SX_MERGE ? "merge" : "append");
	values[VIEW_NKEYS - 1] = Int32GetDatum(def->nkeys);
	values[VIEW_WITH_DATA - 1] = BoolGetDatum(def->with_data);
	values[VIEW_PAUSED - 1] = BoolGetDatum(def->paused);
	values[VIEW_EMIT - 1] = CStringGetTextDatum(def->on_close ? "on_close" : "changes");
	if (def->flush_interval >= 0)
		values[VIEW_FLUSH_INTERVAL - 1] = ms_to_interval(def->flush_interval);
	else
		nulls[VIEW_FLUSH_INTERVAL - 1] = true;
	nulls[VIEW_RETENTION - 1] = true;
	values[VIEW_SETTINGS - 1] = make_text_array(def->settings);

	rel = table_open(our_relation(VIEW_DEF), RowExclusiveLock);
	tup = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	CatalogTupleInsert(rel, tup);
	heap_freetuple(tup);
	table_close(rel, RowExclusiveLock);
	sx_catalog_announce();
}

/*
 * The position may be updated by a flush at any time unless the caller holds a lock on the
 * materialized table (a DROP does, before any object access hook runs).
 */
void
sx_catalog_delete_view(Oid viewid)
{
	delete_by_oid(VIEW_DEF, VIEW_DEF_PKEY, VIEW_VIEW, viewid);
	sx_catalog_delete_position(viewid);
	delete_by_oid(DEAD_LETTER, DEAD_LETTER_VIEW_IDX, DEAD_LETTER_VIEW, viewid);
	delete_by_oid(LOST_INTERVAL, LOST_INTERVAL_VIEW_IDX, LOST_VIEW, viewid);
	delete_by_oid(VIEW_STOP, VIEW_STOP_PKEY, STOP_VIEW, viewid);
	sx_catalog_announce();
}

void
sx_catalog_set_paused(Oid viewid, bool paused)
{
	Datum		values[VIEW_NCOLUMNS] = {0};
	bool		nulls[VIEW_NCOLUMNS] = {0};
	bool		replace[VIEW_NCOLUMNS] = {0};

	values[VIEW_PAUSED - 1] = BoolGetDatum(paused);
	replace[VIEW_PAUSED - 1] = true;
	update_view(viewid, values, nulls, replace);
}

void
sx_catalog_set_options(Oid viewid, bool on_close, int flush_interval)
{
	Datum		values[VIEW_NCOLUMNS] = {0};
	bool		nulls[VIEW_NCOLUMNS] = {0};
	bool		replace[VIEW_NCOLUMNS] = {0};

	values[VIEW_EMIT - 1] = CStringGetTextDatum(on_close ? "on_close" : "changes");
	replace[VIEW_EMIT - 1] = true;
	if (flush_interval >= 0)
		values[VIEW_FLUSH_INTERVAL - 1] = ms_to_interval(flush_interval);
	else
		nulls[VIEW_FLUSH_INTERVAL - 1] = true;
	replace[VIEW_FLUSH_INTERVAL - 1] = true;
	update_view(viewid, values, nulls, replace);
}

static void
update_view(Oid viewid, const Datum *values, const bool *nulls, const bool *replace)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tup;

	must_exist();
	rel = table_open(our_relation(VIEW_DEF), RowExclusiveLock);
	scan = scan_by_oid(rel, VIEW_DEF_PKEY, VIEW_VIEW, viewid, NULL);
	tup = systable_getnext(scan);
	if (!HeapTupleIsValid(tup))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("relation with OID %u is not a continuous view", viewid)));
	tup = heap_modify_tuple(tup, RelationGetDescr(rel), (Datum *) values, (bool *) nulls,
							(bool *) replace);
	CatalogTupleUpdate(rel, &tup->t_self, tup);
	heap_freetuple(tup);
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
	sx_catalog_announce();
	CommandCounterIncrement();
}

/* ---- streams ---- */

List *
sx_catalog_streams(void)
{
	Relation	rel = open_ours(STREAM_DEF, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tup;
	List	   *streams = NIL;

	if (rel == NULL)
		return NIL;
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
		streams = lappend(streams, read_stream(rel, tup));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return streams;
}

SxStreamDef *
sx_catalog_stream(Oid streamid)
{
	Relation	rel = open_ours(STREAM_DEF, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tup;
	SxStreamDef *stream = NULL;

	if (rel == NULL)
		return NULL;
	scan = scan_by_oid(rel, STREAM_DEF_PKEY, SX_STREAM_STREAM, streamid, NULL);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
		stream = read_stream(rel, tup);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return stream;
}

static SxStreamDef *
read_stream(Relation rel, HeapTuple tup)
{
	SxStreamDef *stream = palloc0(sizeof(SxStreamDef));
	Datum		value;
	bool		isnull;

	stream->streamid = DatumGetObjectId(require(tup, SX_STREAM_STREAM, rel));
	value = heap_getattr(tup, SX_STREAM_EVENT_TIME, RelationGetDescr(rel), &isnull);
	if (!isnull)
		namestrcpy(&stream->event_time, NameStr(*DatumGetName(value)));
	stream->declared = DatumGetBool(require(tup, SX_STREAM_DECLARED, rel));
	return stream;
}

/*
 * Declaring a stream does not change its table, so no lock on the table says that somebody
 * does; this one is the stream's row before it exists.
 */
void
sx_catalog_lock_stream(Oid streamid)
{
	must_exist();
	LockDatabaseObject(our_relation(STREAM_DEF), streamid, 0, ExclusiveLock);
}

/* with defaults; a stream that is there stays as it is, but for becoming declared */
void
sx_catalog_insert_stream(Oid streamid, bool declared, const char *event_time)
{
	Datum		values[SX_STREAM_NCOLUMNS] = {0};
	bool		nulls[SX_STREAM_NCOLUMNS] = {0};
	bool		replace[SX_STREAM_NCOLUMNS] = {0};
	Interval   *zero = palloc0(sizeof(Interval));
	Interval   *max_future = palloc0(sizeof(Interval));
	NameData	name;

	max_future->time = 5 * USECS_PER_MINUTE;
	if (event_time != NULL)
	{
		namestrcpy(&name, event_time);
		values[SX_STREAM_EVENT_TIME - 1] = NameGetDatum(&name);
	}
	else
		nulls[SX_STREAM_EVENT_TIME - 1] = true;
	values[SX_STREAM_WATERMARK_DELAY - 1] = IntervalPGetDatum(zero);
	values[SX_STREAM_ALLOWED_LATENESS - 1] = IntervalPGetDatum(zero);
	values[SX_STREAM_LATE_ROWS - 1] = CStringGetTextDatum("merge");
	nulls[SX_STREAM_IDLE_TIMEOUT - 1] = true;
	values[SX_STREAM_MAX_FUTURE - 1] = IntervalPGetDatum(max_future);
	values[SX_STREAM_CHANGES - 1] = CStringGetTextDatum("inserts");
	values[SX_STREAM_DECLARED - 1] = BoolGetDatum(declared);
	replace[SX_STREAM_DECLARED - 1] = declared;
	replace[SX_STREAM_EVENT_TIME - 1] = event_time != NULL;
	sx_catalog_write_stream(streamid, values, nulls, replace);
}

void
sx_catalog_write_stream(Oid streamid, const Datum *values, const bool *nulls, const bool *replace)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tup;
	Datum		row[SX_STREAM_NCOLUMNS];
	bool		any = false;

	sx_catalog_lock_stream(streamid);
	memcpy(row, values, sizeof(row));
	row[SX_STREAM_STREAM - 1] = ObjectIdGetDatum(streamid);

	rel = table_open(our_relation(STREAM_DEF), RowExclusiveLock);
	scan = scan_by_oid(rel, STREAM_DEF_PKEY, SX_STREAM_STREAM, streamid, NULL);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		for (int i = 0; i < SX_STREAM_NCOLUMNS; i++)
			any |= replace[i];
		if (any)
		{
			tup = heap_modify_tuple(tup, RelationGetDescr(rel), row, (bool *) nulls,
									(bool *) replace);
			CatalogTupleUpdate(rel, &tup->t_self, tup);
		}
	}
	else
	{
		any = true;
		tup = heap_form_tuple(RelationGetDescr(rel), row, (bool *) nulls);
		CatalogTupleInsert(rel, tup);
	}
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
	if (any)
	{
		sx_catalog_announce();
		CommandCounterIncrement();
	}
}

void
sx_catalog_delete_stream(Oid streamid)
{
	delete_by_oid(STREAM_DEF, STREAM_DEF_PKEY, SX_STREAM_STREAM, streamid);
	sx_catalog_announce();
}

void
sx_catalog_rename_event_time(Oid streamid, const char *newname)
{
	Datum		values[SX_STREAM_NCOLUMNS] = {0};
	bool		nulls[SX_STREAM_NCOLUMNS] = {0};
	bool		replace[SX_STREAM_NCOLUMNS] = {0};
	NameData	name;

	if (sx_catalog_stream(streamid) == NULL)
		return;
	namestrcpy(&name, newname);
	values[SX_STREAM_EVENT_TIME - 1] = NameGetDatum(&name);
	replace[SX_STREAM_EVENT_TIME - 1] = true;
	sx_catalog_write_stream(streamid, values, nulls, replace);
}

/* ---- positions ---- */

SxStoredPosition *
sx_catalog_position(Oid viewid)
{
	return sx_catalog_position_at(viewid, NULL);
}

SxStoredPosition *
sx_catalog_position_at(Oid viewid, Snapshot snapshot)
{
	Relation	rel = open_ours(VIEW_POSITION, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tup;
	SxStoredPosition *pos = NULL;

	if (rel == NULL)
		return NULL;
	scan = scan_by_oid(rel, VIEW_POSITION_PKEY, POS_VIEW, viewid, snapshot);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
		pos = read_position(rel, tup);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return pos;
}

static SxStoredPosition *
read_position(Relation rel, HeapTuple tup)
{
	SxStoredPosition *pos = palloc0(sizeof(SxStoredPosition));
	uint64		writer;
	int			nnodes;
	Datum		open_rows;
	bool		isnull;

	pos->viewid = DatumGetObjectId(require(tup, POS_VIEW, rel));
	pos->position = sx_position_from_datum(require(tup, POS_POSITION, rel));
	pos->start_lsn = DatumGetLSN(require(tup, POS_START_LSN, rel));
	pos->timeline = (uint32) DatumGetInt32(require(tup, POS_TIMELINE, rel));
	pos->seq = (uint64) DatumGetInt64(require(tup, POS_SEQ, rel));
	pos->nfiles = read_oid_array(require(tup, POS_FILE_RELS, rel), &pos->file_rels);
	nnodes = read_oid_array(require(tup, POS_FILE_NODES, rel), &pos->file_nodes);
	if (nnodes != pos->nfiles)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("row of streamext.view_position for view %u has %d relations but %d files",
						pos->viewid, pos->nfiles, nnodes)));
	pos->rows_consumed = DatumGetInt64(require(tup, POS_ROWS_CONSUMED, rel));
	pos->position->wal_only = DatumGetBool(require(tup, POS_WAL_ONLY, rel));
	pos->complete_at = DatumGetTimestampTz(require(tup, POS_COMPLETE_AT, rel));
	if (!heap_attisnull(tup, POS_SCAN_POSITION, RelationGetDescr(rel)))
		pos->scan = read_scan(rel, tup);
	open_rows = heap_getattr(tup, POS_OPEN_ROWS, RelationGetDescr(rel), &isnull);
	if (!isnull)
		pos->open_rows = DatumGetByteaPCopy(open_rows);

	/*
	 * The raw xmin outlives freezing but not dump, restore or a hand-written copy.  Only its
	 * 32 bits are stored with the row: comparing those is right however old the row is, while
	 * widening it is not.
	 */
	writer = U64FromFullTransactionId(DatumGetFullTransactionId(require(tup, POS_WRITER, rel)));
	pos->writer = HeapTupleHeaderGetRawXmin(tup->t_data);
	pos->ours = DatumGetObjectId(require(tup, POS_DATABASE, rel)) == MyDatabaseId &&
		(TransactionId) writer == HeapTupleHeaderGetRawXmin(tup->t_data) &&
		writer < U64FromFullTransactionId(ReadNextFullTransactionId());
	return pos;
}

static SxStoredScan *
read_scan(Relation rel, HeapTuple tup)
{
	SxStoredScan *scan = palloc0(sizeof(SxStoredScan));

	scan->upto = sx_position_from_datum(require(tup, POS_SCAN_POSITION, rel));
	scan->at = DatumGetTimestampTz(require(tup, POS_SCAN_AT, rel));
	scan->nfiles = read_oid_array(require(tup, POS_SCAN_RELS, rel), &scan->rels);
	if (read_oid_array(require(tup, POS_SCAN_NODES, rel), &scan->nodes) != scan->nfiles)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("row of streamext.view_position names %d relations to scan but not as many files",
						scan->nfiles)));
	scan->file = DatumGetInt32(require(tup, POS_SCAN_FILE, rel));
	scan->block = (uint32) DatumGetInt64(require(tup, POS_SCAN_BLOCK, rel));
	return scan;
}

void
sx_catalog_store_position(const SxStoredPosition *pos)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tup;
	Datum		values[POS_NCOLUMNS];
	bool		nulls[POS_NCOLUMNS] = {0};
	bool		replace[POS_NCOLUMNS];

	must_exist();
	values[POS_VIEW - 1] = ObjectIdGetDatum(pos->viewid);
	values[POS_POSITION - 1] = sx_position_to_datum(pos->position);
	values[POS_START_LSN - 1] = LSNGetDatum(pos->start_lsn);
	values[POS_TIMELINE - 1] = Int32GetDatum((int32) GetWALInsertionTimeLine());
	values[POS_SEQ - 1] = Int64GetDatum((int64) pos->seq);
	values[POS_FILE_RELS - 1] = make_oid_array(pos->file_rels, pos->nfiles);
	values[POS_FILE_NODES - 1] = make_oid_array(pos->file_nodes, pos->nfiles);
	values[POS_ROWS_CONSUMED - 1] = Int64GetDatum(pos->rows_consumed);
	values[POS_DATABASE - 1] = ObjectIdGetDatum(MyDatabaseId);
	/* the id that becomes the row's xmin: a sub-transaction's, if we are in one */
	values[POS_WRITER - 1] = FullTransactionIdGetDatum(GetCurrentFullTransactionId());
	values[POS_STORED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[POS_WAL_ONLY - 1] = BoolGetDatum(pos->position->wal_only);
	values[POS_COMPLETE_AT - 1] = TimestampTzGetDatum(pos->complete_at != 0 ? pos->complete_at :
													  GetCurrentTransactionStartTimestamp());
	if (pos->scan != NULL)
	{
		values[POS_SCAN_POSITION - 1] = sx_position_to_datum(pos->scan->upto);
		values[POS_SCAN_AT - 1] = TimestampTzGetDatum(pos->scan->at);
		values[POS_SCAN_RELS - 1] = make_oid_array(pos->scan->rels, pos->scan->nfiles);
		values[POS_SCAN_NODES - 1] = make_oid_array(pos->scan->nodes, pos->scan->nfiles);
		values[POS_SCAN_FILE - 1] = Int32GetDatum(pos->scan->file);
		values[POS_SCAN_BLOCK - 1] = Int64GetDatum((int64) pos->scan->block);
	}
	else
	{
		for (int column = POS_SCAN_POSITION; column <= POS_SCAN_BLOCK; column++)
		{
			values[column - 1] = (Datum) 0;
			nulls[column - 1] = true;
		}
	}
	memset(replace, true, sizeof(replace));
	nulls[POS_OPEN_ROWS - 1] = pos->open_rows == NULL;
	values[POS_OPEN_ROWS - 1] = PointerGetDatum(pos->open_rows);
	replace[POS_OPEN_ROWS - 1] = pos->new_open_rows;

	rel = table_open(our_relation(VIEW_POSITION), RowExclusiveLock);
	scan = scan_by_oid(rel, VIEW_POSITION_PKEY, POS_VIEW, pos->viewid, NULL);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		/* one step after the other: rows written from an older position would count twice */
		if (DatumGetInt64(require(tup, POS_SEQ, rel)) != (int64) pos->seq - 1)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the position of the continuous view was changed by another process")));
		tup = heap_modify_tuple(tup, RelationGetDescr(rel), values, nulls, replace);
		CatalogTupleUpdate(rel, &tup->t_self, tup);
	}
	else
	{
		tup = heap_form_tuple(RelationGetDescr(rel), values, nulls);
		CatalogTupleInsert(rel, tup);
	}
	heap_freetuple(tup);
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
}

void
sx_catalog_delete_position(Oid viewid)
{
	delete_by_oid(VIEW_POSITION, VIEW_POSITION_PKEY, POS_VIEW, viewid);
}

void
sx_catalog_add_lost_interval(const SxViewDef *def, TimestampTz from, TimestampTz until,
							 int64 rows, const char *why)
{
	Relation	rel;
	HeapTuple	tup;
	Datum		values[LOST_NCOLUMNS] = {0};
	bool		nulls[LOST_NCOLUMNS] = {0};
	char	   *since = pstrdup(timestamptz_to_str(from));

	must_exist();
	values[LOST_VIEW - 1] = ObjectIdGetDatum(def->viewid);
	values[LOST_FROM - 1] = TimestampTzGetDatum(from);
	values[LOST_UNTIL - 1] = TimestampTzGetDatum(Max(from, until));
	values[LOST_ROWS - 1] = Int64GetDatum(rows);
	nulls[LOST_ROWS - 1] = rows < 0;
	values[LOST_WHY - 1] = CStringGetTextDatum(why);
	values[LOST_NOTICED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());

	rel = table_open(our_relation(LOST_INTERVAL), RowExclusiveLock);
	tup = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	CatalogTupleInsert(rel, tup);
	heap_freetuple(tup);
	table_close(rel, RowExclusiveLock);

	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 rows < 0 ?
			 errmsg("rows of stream \"%s\" may be missing in continuous view \"%s\": those committed between %s and %s that were updated or deleted, and vacuumed",
					get_rel_name(def->streamid), get_rel_name(def->viewid), since, timestamptz_to_str(until)) :
			 errmsg(INT64_FORMAT " rows of stream \"%s\" are missing in continuous view \"%s\": committed between %s and %s, then updated or deleted, and vacuumed",
					rows, get_rel_name(def->streamid), get_rel_name(def->viewid), since, timestamptz_to_str(until)),
			 errdetail_internal("%s", why)));
}

/* ---- attach marks ---- */

List *
sx_catalog_marks(Oid leaf)
{
	Relation	rel = open_ours(ATTACH_MARK, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tup;
	List	   *marks = NIL;

	if (rel == NULL)
		return NIL;
	scan = scan_by_oid(rel, ATTACH_MARK_LEAF_IDX, MARK_LEAF, leaf, NULL);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		SxAttachMark *mark = palloc(sizeof(SxAttachMark));

		mark->leaf = leaf;
		mark->parent = DatumGetObjectId(require(tup, MARK_PARENT, rel));
		mark->attached = DatumGetChar(require(tup, MARK_KIND, rel)) == 'a';
		mark->snapshot = sx_position_from_datum(require(tup, MARK_SNAPSHOT, rel));
		mark->xid = HeapTupleHeaderGetXmin(tup->t_data);
		marks = lappend(marks, mark);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return marks;
}

/* one mark per leaf, parent and kind: the latest */
void
sx_catalog_add_mark(Oid leaf, Oid parent, bool attached, const SxPosition *snapshot)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tup;
	char		kind = attached ? 'a' : 'd';
	Datum		values[MARK_NCOLUMNS];
	bool		nulls[MARK_NCOLUMNS] = {0};

	must_exist();
	values[MARK_LEAF - 1] = ObjectIdGetDatum(leaf);
	values[MARK_PARENT - 1] = ObjectIdGetDatum(parent);
	values[MARK_KIND - 1] = CharGetDatum(kind);
	values[MARK_SNAPSHOT - 1] = sx_position_to_datum(snapshot);

	rel = table_open(our_relation(ATTACH_MARK), RowExclusiveLock);
	scan = scan_by_oid(rel, ATTACH_MARK_LEAF_IDX, MARK_LEAF, leaf, NULL);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		if (DatumGetObjectId(require(tup, MARK_PARENT, rel)) == parent &&
			DatumGetChar(require(tup, MARK_KIND, rel)) == kind)
			CatalogTupleDelete(rel, &tup->t_self);
	}
	systable_endscan(scan);
	tup = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	CatalogTupleInsert(rel, tup);
	heap_freetuple(tup);
	table_close(rel, RowExclusiveLock);
	sx_catalog_announce();
	CommandCounterIncrement();
}

void
sx_catalog_delete_marks(Oid leaf)
{
	delete_by_oid(ATTACH_MARK, ATTACH_MARK_LEAF_IDX, MARK_LEAF, leaf);
}

/* ---- rows and values ---- */

static void
delete_by_oid(OurRelation table, OurRelation index, AttrNumber attno, Oid value)
{
	Relation	rel = open_ours(table, RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tup;

	if (rel == NULL)
		return;
	scan = scan_by_oid(rel, index, attno, value, NULL);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		CatalogTupleDelete(rel, &tup->t_self);
	}
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
}

static Datum
require(HeapTuple tup, AttrNumber attno, Relation rel)
{
	bool		isnull;
	Datum		value = heap_getattr(tup, attno, RelationGetDescr(rel), &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column %d of streamext.%s is null", attno, RelationGetRelationName(rel))));
	return value;
}

static List *
read_text_array(Datum array)
{
	List	   *strings = NIL;
	Datum	   *elems;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &elems, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			strings = lappend(strings, TextDatumGetCString(elems[i]));
	}
	return strings;
}

static Datum
make_text_array(List *strings)
{
	int			n = list_length(strings);
	Datum	   *elems = palloc(sizeof(Datum) * Max(n, 1));
	ListCell   *lc;
	int			i = 0;

	foreach(lc, strings)
		elems[i++] = CStringGetTextDatum((char *) lfirst(lc));
	return PointerGetDatum(construct_array(elems, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static int
read_oid_array(Datum array, Oid **values)
{
	Datum	   *elems;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(array), OIDOID, sizeof(Oid), true, TYPALIGN_INT,
					  &elems, &nulls, &n);
	*values = palloc(sizeof(Oid) * Max(n, 1));
	for (int i = 0; i < n; i++)
		(*values)[i] = nulls[i] ? InvalidOid : DatumGetObjectId(elems[i]);
	return n;
}

static Datum
make_oid_array(const Oid *values, int n)
{
	Datum	   *elems = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elems[i] = ObjectIdGetDatum(values[i]);
	return PointerGetDatum(construct_array(elems, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

static int
interval_to_ms(const Interval *span)
{
	double		ms = span->time / 1000.0 +
		(span->day + span->month * (double) DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;

	return (int) Min(Max(ms, 0), INT_MAX);
}

static Datum
ms_to_interval(int ms)
{
	Interval   *span = palloc0(sizeof(Interval));

	span->time = ms * INT64CONST(1000);
	return IntervalPGetDatum(span);
}
