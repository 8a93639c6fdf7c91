/*
 * sink_functions.c
 *		SQL: streamext.create_sink, drop_sink.
 *
 * A sink is the view owner's affair; what it inserts, it inserts as him.  Locking: the view's materialized
 * table with ShareRowExclusiveLock, so that no flush is under way that would not know of the sink.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "capture/event_time.h"
#include "catalog/sinks.h"
#include "ddl/ddl.h"
#include "ddl/ddl_internal.h"
#include "query/plan.h"
#include "query/view_columns.h"
#include "query/view_def.h"
#include "time/sink.h"

PG_FUNCTION_INFO_V1(sx_create_sink);
PG_FUNCTION_INFO_V1(sx_drop_sink);

static void check_target(const SxViewDef *def, Oid target);
static void check_columns(const SxViewDef *def, SxViewInfo *info, const SxSink *sink);
static char *target_name(Oid target);

Datum
sx_create_sink(PG_FUNCTION_ARGS)
{
	Oid			viewid = PG_GETARG_OID(0);
	SxViewDef  *def = sx_view_for_user(viewid, true);
	SxSink		sink = {.viewid = viewid, .target = PG_GETARG_OID(1), .corrections = PG_GETARG_BOOL(2), .closed_until = SX_TIME_NONE};
	SxRunAs		as;
	SxViewInfo *info;
	SxStoredPosition *stored;
	ListCell   *lc;

	PreventCommandIfReadOnly("streamext.create_sink()");
	PreventCommandIfParallelMode("streamext.create_sink()");
	PreventCommandDuringRecovery("streamext.create_sink()");
	LockRelationOid(viewid, AccessShareLock);
	LockRelationOid(sink.target, RowExclusiveLock);
	check_target(def, sink.target);
	LockRelationOid(def->matid, ShareRowExclusiveLock);

	foreach(lc, sx_catalog_sinks(viewid))
	{
		if (((SxSink *) lfirst(lc))->target == sink.target)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("table \"%s\" is already a sink of continuous view \"%s\"",
							get_rel_name(sink.target), get_rel_name(viewid)),
					 errhint("To change it, use streamext.drop_sink() first.")));
	}

	sx_run_as_begin(&as, def);
	info = sx_view_info_create(def, CurrentMemoryContext);
	check_columns(def, info, &sink);
	sx_sink_check(info, &sink);
	sx_run_as_end(&as);
	if (sx_sessions_close(info))
		sx_view_index_window(def, info->window_key, true);

	/* what is closed already stays out, unless it is asked for */
	stored = sx_catalog_position_at(viewid, GetLatestSnapshot());
	if (!PG_GETARG_BOOL(3) && stored != NULL && stored->ours)
		sink.closed_until = sx_event_time_minus(stored->watermark, info->time.lateness);
	sx_catalog_insert_sink(&sink);
	sx_catalog_announce();
	PG_RETURN_VOID();
}

Datum
sx_drop_sink(PG_FUNCTION_ARGS)
{
	Oid			viewid = PG_GETARG_OID(0);
	Oid			target = PG_GETARG_OID(1);
	SxViewDef  *def = sx_view_for_user(viewid, true);

	PreventCommandIfReadOnly("streamext.drop_sink()");
	PreventCommandIfParallelMode("streamext.drop_sink()");
	PreventCommandDuringRecovery("streamext.drop_sink()");
	LockRelationOid(def->matid, ShareRowExclusiveLock);
	if (!sx_catalog_delete_sink(viewid, target))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" is not a sink of continuous view \"%s\"", target_name(target), get_rel_name(viewid)),
				 errhint("The view streamext.sinks lists them.")));
	sx_catalog_announce();
	PG_RETURN_VOID();
}

static char *
target_name(Oid target)
{
	char	   *name = get_rel_name(target);

	return name != NULL ? name : psprintf("%u", target);
}

static void
check_target(const SxViewDef *def, Oid target)
{
	char	   *name = get_rel_name(target);
	char		relkind = get_rel_relkind(target);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", target)));
	if ((relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE) ||
		get_rel_persistence(target) == RELPERSISTENCE_TEMP || sx_catalog_view_by_any(target) != NULL ||
		get_rel_namespace(target) == sx_catalog_schema_oid())
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot be a sink", name),
				 errhint("Name an ordinary or partitioned table.")));
	if (sx_table_feeds(target, def->streamid, NIL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("table \"%s\" cannot be a sink of continuous view \"%s\"", name, get_rel_name(def->viewid)),
				 errdetail("The view would be fed by its own rows."),
				 errhint("Name another table.")));
}

bool
sx_table_feeds(Oid table, Oid streamid, List *seen)
{
	List	   *streams = list_append_unique_oid(sx_streams_over(table), table);
	ListCell   *lc;

	check_stack_depth();
	if (list_member_oid(streams, streamid))
		return true;
	if (list_member_oid(seen, table))
		return false;
	seen = lappend_oid(list_copy(seen), table);
	foreach(lc, streams)
	{
		ListCell   *lc2;

		foreach(lc2, sx_catalog_views_of_stream(lfirst_oid(lc)))
		{
			ListCell   *lc3;

			foreach(lc3, sx_catalog_sinks(((SxViewDef *) lfirst(lc2))->viewid))
				if (sx_table_feeds(((SxSink *) lfirst(lc3))->target, streamid, seen))
					return true;
		}
	}
	return false;
}

static void
check_columns(const SxViewDef *def, SxViewInfo *info, const SxSink *sink)
{
	if (info->window_key < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" has no windows that close", get_rel_name(def->viewid)),
				 info->time.attno == InvalidAttrNumber ?
				 errdetail("Stream \"%s\" has no event time.", get_rel_name(def->streamid)) :
				 errdetail("It does not group by a window of its stream's event time."),
				 errhint("Give the stream an event time, and group by streamext.tumble(), streamext.hop() or streamext.session() on it.")));
	for (int i = 0; i < info->nkeys; i++)
	{
		if (i != info->closed_key && (i == info->window_key || sink->corrections || sx_sessions_close(info)) &&
			sx_view_key_column(def, i) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("continuous view \"%s\" does not put out its %s", get_rel_name(def->viewid),
							i == info->window_key ? "window" : "group keys"),
					 errdetail("Key \"%s\" of GROUP BY is no column of the view.",
							   NameStr(TupleDescAttr(info->desc, i)->attname)),
					 errhint("Add it to the SELECT list.")));
	}
}
