/*
 * definitions.c
 *		Streams and continuous views: SQL catalog <-> structs.
 *
 * Locking: tables are opened with AccessShareLock or RowExclusiveLock.  Writers of one row
 * are serialized by their callers: by a lock on the view for view_def, and by
 * sx_catalog_lock_stream() for stream_def.
 *
 * A crash leaves nothing: everything is transactional.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "capture/event_time.h"
#include "catalog/alerts.h"
#include "catalog/catalog_internal.h"
#include "catalog/sinks.h"

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
	VIEW_PANES,
	VIEW_REPLACES,
	VIEW_NCOLUMNS = VIEW_REPLACES
};

/* columns of tables that belong to other files */
#define STOP_VIEW			1
#define LOST_VIEW			1
#define DEAD_LETTER_VIEW	2

static SxViewDef *read_view(Relation rel, HeapTuple tup);
static SxViewDef *find_view(SxOurRelation index, AttrNumber attno, Oid relid, Snapshot snapshot);
static int	compare_views(const ListCell *a, const ListCell *b);
static SxStreamDef *read_stream(Relation rel, HeapTuple tup);
static List *read_text_array(Datum array);
static Datum make_text_array(List *strings);
static void read_stream_time(Relation rel, HeapTuple tup, SxStreamDef *stream);
static int64 interval_column(Relation rel, HeapTuple tup, int column);
static int	interval_to_ms(const Interval *span);
static Datum ms_to_interval(int ms);
static Datum us_to_interval(int64 us);
static void update_view(Oid viewid, const Datum *values, const bool *nulls, const bool *replace);

/* ---- views ---- */

List *
sx_catalog_views(void)
{
	Relation	rel = sx_open_ours(SX_REL_VIEW_DEF, AccessShareLock);
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
	/* messages name them in an order that does not depend on updates and VACUUM */
	list_sort(views, compare_views);
	return views;
}

static int
compare_views(const ListCell *a, const ListCell *b)
{
	Oid			x = ((SxViewDef *) lfirst(a))->viewid;
	Oid			y = ((SxViewDef *) lfirst(b))->viewid;

	return x < y ? -1 : (x > y ? 1 : 0);
}

SxViewDef *
sx_catalog_view(Oid viewid)
{
	return find_view(SX_REL_VIEW_DEF_PKEY, VIEW_VIEW, viewid, NULL);
}

SxViewDef *
sx_catalog_view_at(Oid viewid, Snapshot snapshot)
{
	return find_view(SX_REL_VIEW_DEF_PKEY, VIEW_VIEW, viewid, snapshot);
}

SxViewDef *
sx_catalog_view_by_mat(Oid matid)
{
	return find_view(SX_REL_VIEW_DEF_MAT_KEY, VIEW_MAT, matid, NULL);
}

SxViewDef *
sx_catalog_view_by_query(Oid queryid)
{
	return find_view(SX_REL_VIEW_DEF_QUERY_KEY, VIEW_QUERY, queryid, NULL);
}

SxViewDef *
sx_catalog_replacement_of(Oid viewid)
{
	ListCell   *lc;

	foreach(lc, sx_catalog_views())
	{
		SxViewDef  *def = lfirst(lc);

		if (def->replaces == viewid)
			return def;
	}
	return NULL;
}

SxViewDef *
sx_catalog_view_by_any(Oid relid)
{
	SxViewDef  *def = sx_catalog_view(relid);
	SxAlertDef *alert;

	if (def == NULL)
		def = sx_catalog_view_by_mat(relid);
	if (def == NULL)
		def = sx_catalog_view_by_query(relid);
	if (def == NULL && (alert = sx_catalog_alert(relid)) != NULL)
		def = sx_catalog_view(alert->viewid);
	return def;
}

static SxViewDef *
find_view(SxOurRelation index, AttrNumber attno, Oid relid, Snapshot snapshot)
{
	SxRows		rows;
	HeapTuple	tup;
	SxViewDef  *def = NULL;

	sx_rows_open(&rows, SX_REL_VIEW_DEF, index, attno, relid, snapshot, AccessShareLock);
	tup = sx_rows_next(&rows);
	if (HeapTupleIsValid(tup))
		def = read_view(rows.rel, tup);
	sx_rows_close(&rows);
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

	def->viewid = DatumGetObjectId(sx_column(tup, VIEW_VIEW, rel));
	def->queryid = DatumGetObjectId(sx_column(tup, VIEW_QUERY, rel));
	def->matid = DatumGetObjectId(sx_column(tup, VIEW_MAT, rel));
	def->streamid = DatumGetObjectId(sx_column(tup, VIEW_STREAM, rel));

	classtup = SearchSysCache1(RELOID, ObjectIdGetDatum(def->viewid));
	if (!HeapTupleIsValid(classtup))
	{
		pfree(def);
		return NULL;
	}
	def->owner = ((Form_pg_class) GETSTRUCT(classtup))->relowner;
	ReleaseSysCache(classtup);

	strategy = TextDatumGetCString(sx_column(tup, VIEW_STRATEGY, rel));
	if (strcmp(strategy, "append") == 0)
		def->strategy = SX_APPEND;
	else if (strcmp(strategy, "merge") == 0)
		def->strategy = SX_MERGE;
	else
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("unknown strategy \"%s\" in streamext.view_def", strategy),
				 errhint("The catalog was written by another version: ALTER EXTENSION streamext UPDATE;")));
	def->nkeys = DatumGetInt32(sx_column(tup, VIEW_NKEYS, rel));
	def->with_data = DatumGetBool(sx_column(tup, VIEW_WITH_DATA, rel));
	def->paused = DatumGetBool(sx_column(tup, VIEW_PAUSED, rel));
	emit = TextDatumGetCString(sx_column(tup, VIEW_EMIT, rel));
	def->on_close = strcmp(emit, "on_close") == 0;
	value = heap_getattr(tup, VIEW_FLUSH_INTERVAL, desc, &isnull);
	def->flush_interval = isnull ? -1 : interval_to_ms(DatumGetIntervalP(value));
	def->retention = interval_column(rel, tup, VIEW_RETENTION);
	def->settings = read_text_array(sx_column(tup, VIEW_SETTINGS, rel));
	def->panes = DatumGetBool(sx_column(tup, VIEW_PANES, rel));
	value = heap_getattr(tup, VIEW_REPLACES, desc, &isnull);
	def->replaces = isnull ? InvalidOid : DatumGetObjectId(value);
	def->defined_by = HeapTupleHeaderGetXmin(tup->t_data);
	return def;
}

void
sx_catalog_insert_view(const SxViewDef *def)
{
	Datum		values[VIEW_NCOLUMNS] = {0};
	bool		nulls[VIEW_NCOLUMNS] = {0};

	sx_must_exist();
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
	values[VIEW_RETENTION - 1] = us_to_interval(def->retention);
	nulls[VIEW_RETENTION - 1] = def->retention < 0;
	values[VIEW_SETTINGS - 1] = make_text_array(def->settings);
	values[VIEW_PANES - 1] = BoolGetDatum(def->panes);
	values[VIEW_REPLACES - 1] = ObjectIdGetDatum(def->replaces);
	nulls[VIEW_REPLACES - 1] = !OidIsValid(def->replaces);

	sx_insert_row(SX_REL_VIEW_DEF, values, nulls);
	sx_catalog_announce();
}

/*
 * The position may be updated by a flush at any time unless the caller holds a lock on the
 * materialized table (a DROP does, before any object access hook runs).
 */
void
sx_catalog_delete_dead_letters(Oid viewid)
{
	sx_delete_by_oid(SX_REL_DEAD_LETTER, SX_REL_DEAD_LETTER_VIEW_IDX, DEAD_LETTER_VIEW, viewid);
}

void
sx_catalog_delete_view(Oid viewid)
{
	sx_delete_by_oid(SX_REL_VIEW_DEF, SX_REL_VIEW_DEF_PKEY, VIEW_VIEW, viewid);
	sx_catalog_delete_position(viewid);
	sx_catalog_delete_dead_letters(viewid);
	sx_delete_by_oid(SX_REL_LOST_INTERVAL, SX_REL_LOST_INTERVAL_VIEW_IDX, LOST_VIEW, viewid);
	sx_delete_by_oid(SX_REL_VIEW_STOP, SX_REL_VIEW_STOP_PKEY, STOP_VIEW, viewid);
	sx_catalog_delete_sinks(viewid);
	sx_catalog_announce();
}

void
sx_catalog_swap_views(const SxViewDef *view, const SxViewDef *replacement)
{
	Datum		values[VIEW_NCOLUMNS] = {0};
	bool		nulls[VIEW_NCOLUMNS] = {0};
	bool		replace[VIEW_NCOLUMNS] = {0};

	sx_delete_by_oid(SX_REL_VIEW_DEF, SX_REL_VIEW_DEF_PKEY, VIEW_VIEW, replacement->viewid);
	CommandCounterIncrement();
	values[VIEW_QUERY - 1] = ObjectIdGetDatum(replacement->queryid);
	values[VIEW_MAT - 1] = ObjectIdGetDatum(replacement->matid);
	values[VIEW_STREAM - 1] = ObjectIdGetDatum(replacement->streamid);
	values[VIEW_STRATEGY - 1] = CStringGetTextDatum(replacement->strategy == SX_MERGE ? "merge" : "append");
	values[VIEW_NKEYS - 1] = Int32GetDatum(replacement->nkeys);
	values[VIEW_WITH_DATA - 1] = BoolGetDatum(replacement->with_data);
	values[VIEW_SETTINGS - 1] = make_text_array(replacement->settings);
	values[VIEW_PANES - 1] = BoolGetDatum(replacement->panes);
	replace[VIEW_QUERY - 1] = replace[VIEW_MAT - 1] = replace[VIEW_STREAM - 1] = replace[VIEW_STRATEGY - 1] =
		replace[VIEW_NKEYS - 1] = replace[VIEW_WITH_DATA - 1] = replace[VIEW_SETTINGS - 1] =
		replace[VIEW_PANES - 1] = true;
	update_view(view->viewid, values, nulls, replace);

	sx_catalog_delete_position(view->viewid);
	CommandCounterIncrement();
	sx_catalog_move_position(replacement->viewid, view->viewid);
	sx_delete_by_oid(SX_REL_DEAD_LETTER, SX_REL_DEAD_LETTER_VIEW_IDX, DEAD_LETTER_VIEW, view->viewid);
	sx_delete_by_oid(SX_REL_LOST_INTERVAL, SX_REL_LOST_INTERVAL_VIEW_IDX, LOST_VIEW, view->viewid);
	sx_delete_by_oid(SX_REL_VIEW_STOP, SX_REL_VIEW_STOP_PKEY, STOP_VIEW, view->viewid);
	CommandCounterIncrement();
	sx_change_oid(SX_REL_DEAD_LETTER, SX_REL_DEAD_LETTER_VIEW_IDX, DEAD_LETTER_VIEW, replacement->viewid, view->viewid);
	sx_change_oid(SX_REL_LOST_INTERVAL, SX_REL_LOST_INTERVAL_VIEW_IDX, LOST_VIEW, replacement->viewid, view->viewid);
	CommandCounterIncrement();
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
sx_catalog_set_options(Oid viewid, bool on_close, int flush_interval, int64 retention)
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
	values[VIEW_RETENTION - 1] = us_to_interval(retention);
	nulls[VIEW_RETENTION - 1] = retention < 0;
	replace[VIEW_RETENTION - 1] = true;
	update_view(viewid, values, nulls, replace);
}

static void
update_view(Oid viewid, const Datum *values, const bool *nulls, const bool *replace)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tup;

	sx_must_exist();
	rel = table_open(sx_our_relation(SX_REL_VIEW_DEF), RowExclusiveLock);
	scan = sx_scan_by_oid(rel, SX_REL_VIEW_DEF_PKEY, VIEW_VIEW, viewid, NULL);
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
	Relation	rel = sx_open_ours(SX_REL_STREAM_DEF, AccessShareLock);
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
	SxRows		rows;
	HeapTuple	tup;
	SxStreamDef *stream = NULL;

	sx_rows_open(&rows, SX_REL_STREAM_DEF, SX_REL_STREAM_DEF_PKEY, SX_STREAM_STREAM, streamid, NULL, AccessShareLock);
	tup = sx_rows_next(&rows);
	if (HeapTupleIsValid(tup))
		stream = read_stream(rows.rel, tup);
	sx_rows_close(&rows);
	return stream;
}

static SxStreamDef *
read_stream(Relation rel, HeapTuple tup)
{
	SxStreamDef *stream = palloc0(sizeof(SxStreamDef));
	Datum		value;
	bool		isnull;

	stream->streamid = DatumGetObjectId(sx_column(tup, SX_STREAM_STREAM, rel));
	value = heap_getattr(tup, SX_STREAM_EVENT_TIME, RelationGetDescr(rel), &isnull);
	if (!isnull)
		namestrcpy(&stream->event_time, NameStr(*DatumGetName(value)));
	stream->declared = DatumGetBool(sx_column(tup, SX_STREAM_DECLARED, rel));
	if (!isnull)
		read_stream_time(rel, tup, stream);
	value = heap_getattr(tup, SX_STREAM_VALID, RelationGetDescr(rel), &isnull);
	if (!isnull)
	{
		stream->conditionid = DatumGetObjectId(value);
		stream->condition_settings = read_text_array(sx_column(tup, SX_STREAM_VALID_SETTINGS, rel));
	}
	value = heap_getattr(tup, SX_STREAM_VALID_BY, RelationGetDescr(rel), &isnull);
	if (!isnull)
		stream->condition_by = U64FromFullTransactionId(DatumGetFullTransactionId(value));
	value = heap_getattr(tup, SX_STREAM_EXPIRED_UNTIL, RelationGetDescr(rel), &isnull);
	stream->expired_until = isnull ? SX_TIME_NONE : DatumGetInt64(value);
	return stream;
}

static void
read_stream_time(Relation rel, HeapTuple tup, SxStreamDef *stream)
{
	SxStreamTime *time = &stream->time;
	char	   *late = TextDatumGetCString(sx_column(tup, SX_STREAM_LATE_ROWS, rel));

	/* 0 if the table is gone: nobody will ask */
	time->attno = get_attnum(stream->streamid, NameStr(stream->event_time));
	time->type = get_atttype(stream->streamid, time->attno);
	if (!OidIsValid(time->type))
		time->attno = InvalidAttrNumber;
	time->delay = interval_column(rel, tup, SX_STREAM_WATERMARK_DELAY);
	time->lateness = interval_column(rel, tup, SX_STREAM_ALLOWED_LATENESS);
	time->idle = interval_column(rel, tup, SX_STREAM_IDLE_TIMEOUT);
	time->max_future = interval_column(rel, tup, SX_STREAM_MAX_FUTURE);
	time->late = strcmp(late, "drop") == 0 ? SX_LATE_DROP :
		strcmp(late, "dead_letter") == 0 ? SX_LATE_DEAD_LETTER : SX_LATE_MERGE;
}

/* microseconds; -1: null */
static int64
interval_column(Relation rel, HeapTuple tup, int column)
{
	bool		isnull;
	Datum		value = heap_getattr(tup, column, RelationGetDescr(rel), &isnull);

	return isnull ? -1 : sx_span_us(DatumGetIntervalP(value));
}

int64
sx_span_us(const Interval *span)
{
	int64		days = span->day + (int64) span->month * DAYS_PER_MONTH;
	int64		result;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &result) ||
		pg_add_s64_overflow(result, span->time, &result))
		return PG_INT64_MAX;
	return result;
}

/*
 * Declaring a stream does not change its table, so no lock on the table says that somebody
 * does; this one is the stream's row before it exists.
 */
void
sx_catalog_lock_stream(Oid streamid)
{
	sx_must_exist();
	LockDatabaseObject(sx_our_relation(SX_REL_STREAM_DEF), streamid, 0, ExclusiveLock);
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
	nulls[SX_STREAM_VALID - 1] = nulls[SX_STREAM_VALID_SETTINGS - 1] = nulls[SX_STREAM_VALID_BY - 1] =
		nulls[SX_STREAM_EXPIRED_UNTIL - 1] = true;
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

	rel = sx_open_ours(SX_REL_STREAM_DEF, RowExclusiveLock);
	if (rel == NULL)
		return;					/* the extension is being dropped */
	scan = sx_scan_by_oid(rel, SX_REL_STREAM_DEF_PKEY, SX_STREAM_STREAM, streamid, NULL);
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
	sx_delete_by_oid(SX_REL_STREAM_DEF, SX_REL_STREAM_DEF_PKEY, SX_STREAM_STREAM, streamid);
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

void
sx_catalog_set_condition(Oid streamid, Oid conditionid, List *settings)
{
	Datum		values[SX_STREAM_NCOLUMNS] = {0};
	bool		nulls[SX_STREAM_NCOLUMNS] = {0};
	bool		replace[SX_STREAM_NCOLUMNS] = {0};

	values[SX_STREAM_VALID - 1] = ObjectIdGetDatum(conditionid);
	values[SX_STREAM_VALID_SETTINGS - 1] = make_text_array(settings);
	nulls[SX_STREAM_VALID - 1] = nulls[SX_STREAM_VALID_SETTINGS - 1] = !OidIsValid(conditionid);
	values[SX_STREAM_VALID_BY - 1] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	replace[SX_STREAM_VALID - 1] = replace[SX_STREAM_VALID_SETTINGS - 1] = replace[SX_STREAM_VALID_BY - 1] = true;
	sx_catalog_write_stream(streamid, values, nulls, replace);
}

int64
sx_catalog_expired_until(Oid streamid)
{
	SxStreamDef *stream = sx_catalog_stream(streamid);

	return stream ? stream->expired_until : SX_TIME_NONE;
}

void
sx_catalog_set_expired_until(Oid streamid, int64 until)
{
	Datum		values[SX_STREAM_NCOLUMNS] = {0};
	bool		nulls[SX_STREAM_NCOLUMNS] = {0};
	bool		replace[SX_STREAM_NCOLUMNS] = {0};

	sx_catalog_lock_stream(streamid);
	if (sx_catalog_expired_until(streamid) >= until)
		return;
	values[SX_STREAM_EXPIRED_UNTIL - 1] = Int64GetDatum(until);
	replace[SX_STREAM_EXPIRED_UNTIL - 1] = true;
	sx_catalog_write_stream(streamid, values, nulls, replace);
}

void
sx_catalog_forget_condition(Oid conditionid)
{
	ListCell   *lc;

	foreach(lc, sx_catalog_streams())
	{
		SxStreamDef *stream = lfirst(lc);

		if (stream->conditionid == conditionid)
			sx_catalog_set_condition(stream->streamid, InvalidOid, NIL);
	}
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
interval_to_ms(const Interval *span)
{
	return (int) Min(Max(sx_span_us(span) / 1000, 0), INT_MAX);
}

static Datum
ms_to_interval(int ms)
{
	return us_to_interval(ms * INT64CONST(1000));
}

static Datum
us_to_interval(int64 us)
{
	Interval   *span = palloc0(sizeof(Interval));

	span->day = us / USECS_PER_DAY;
	span->time = us % USECS_PER_DAY;
	return IntervalPGetDatum(span);
}
