/*
 * stream_functions.c
 *		SQL: streamext.create_stream, alter_stream, drop_stream.
 *
 * A stream's declaration concerns everybody's views on that table, so it takes the table's
 * owner (a view by somebody else declares it with defaults only).
 *
 * Locking: the table with AccessShareLock, which keeps its columns as they were checked, and
 * the declaration itself by sx_catalog_lock_stream(), both until the transaction ends.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "capture/event_time.h"
#include "ddl/ddl_internal.h"
#include "query/analyze.h"
#include "query/valid.h"

/* the arguments from event_time to changes are the columns of stream_def in order */
#define FIRST_COLUMN	SX_STREAM_EVENT_TIME
#define LAST_COLUMN		SX_STREAM_CHANGES
/* then comes valid, a text */
#define VALID_ARGUMENT	(LAST_COLUMN - FIRST_COLUMN + 2)

PG_FUNCTION_INFO_V1(sx_create_stream);
PG_FUNCTION_INFO_V1(sx_alter_stream);
PG_FUNCTION_INFO_V1(sx_drop_stream);

static Oid	stream_argument(FunctionCallInfo fcinfo, const char *function);
static void set_condition(Oid streamid, const SxStreamDef *before, FunctionCallInfo fcinfo);
static void check_column_values(Oid streamid, const Datum *values, const bool *nulls);
static void check_late_rows(Oid streamid, const Datum *values, const bool *nulls);
static void check_event_time(Oid streamid, const char *column);
static void check_interval(const char *name, Datum value);
static void check_number_time(Oid streamid, const char *event_time, const Datum *values, const bool *nulls);

Datum
sx_create_stream(PG_FUNCTION_ARGS)
{
	Oid			streamid = stream_argument(fcinfo, "streamext.create_stream()");
	SxStreamDef *existing;
	Datum		values[SX_STREAM_NCOLUMNS] = {0};
	bool		nulls[SX_STREAM_NCOLUMNS] = {0};
	bool		replace[SX_STREAM_NCOLUMNS];

	sx_check_stream_relation(streamid);

	for (int column = FIRST_COLUMN; column <= LAST_COLUMN; column++)
	{
		int			arg = column - FIRST_COLUMN + 1;

		nulls[column - 1] = PG_ARGISNULL(arg);
		if (!nulls[column - 1])
			values[column - 1] = PG_GETARG_DATUM(arg);
	}
	for (int column = FIRST_COLUMN; column <= LAST_COLUMN; column++)
	{
		/* what has a default other than "none" cannot be none */
		if (!nulls[column - 1])
			continue;
		nulls[column - 1] = false;
		if (column == SX_STREAM_WATERMARK_DELAY || column == SX_STREAM_ALLOWED_LATENESS)
			values[column - 1] = IntervalPGetDatum(palloc0(sizeof(Interval)));
		else if (column == SX_STREAM_LATE_ROWS)
			values[column - 1] = CStringGetTextDatum("merge");
		else if (column == SX_STREAM_CHANGES)
			values[column - 1] = CStringGetTextDatum("inserts");
		else
			nulls[column - 1] = true;
	}
	check_column_values(streamid, values, nulls);

	sx_catalog_lock_stream(streamid);
	existing = sx_catalog_stream(streamid);
	if (existing != NULL && existing->declared)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("\"%s\" is already a stream", get_rel_name(streamid)),
				 errhint("To change it, use streamext.alter_stream().")));
	values[SX_STREAM_DECLARED - 1] = BoolGetDatum(true);
	memset(replace, true, sizeof(replace));
	for (int column = SX_STREAM_VALID; column <= SX_STREAM_EXPIRED_UNTIL; column++)
	{
		nulls[column - 1] = true;
		replace[column - 1] = false;
	}
	sx_catalog_write_stream(streamid, values, nulls, replace);
	set_condition(streamid, existing, fcinfo);
	PG_RETURN_VOID();
}

/* an argument that is NULL (the default) leaves what is there */
Datum
sx_alter_stream(PG_FUNCTION_ARGS)
{
	Oid			streamid = stream_argument(fcinfo, "streamext.alter_stream()");
	SxStreamDef *stream;
	Datum		values[SX_STREAM_NCOLUMNS] = {0};
	bool		nulls[SX_STREAM_NCOLUMNS];
	bool		replace[SX_STREAM_NCOLUMNS] = {0};

	memset(nulls, true, sizeof(nulls));
	for (int column = FIRST_COLUMN; column <= LAST_COLUMN; column++)
	{
		int			arg = column - FIRST_COLUMN + 1;

		if (PG_ARGISNULL(arg))
			continue;
		values[column - 1] = PG_GETARG_DATUM(arg);
		nulls[column - 1] = false;
		replace[column - 1] = true;
	}

	sx_catalog_lock_stream(streamid);
	stream = sx_catalog_stream(streamid);
	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" is not a stream", get_rel_name(streamid)),
				 errhint("To make it one, use streamext.create_stream().")));
	check_column_values(streamid, values, nulls);
	if (!nulls[SX_STREAM_EVENT_TIME - 1] && NameStr(stream->event_time)[0] != '\0' &&
		strcmp(NameStr(stream->event_time),
			   NameStr(*DatumGetName(values[SX_STREAM_EVENT_TIME - 1]))) != 0 &&
		sx_catalog_views_of_stream(streamid) != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot change the event time of stream \"%s\" while views use it",
						get_rel_name(streamid)),
				 errdetail("It is used by %s.", sx_view_names(streamid)),
				 errhint("Drop the views first.")));
	check_late_rows(streamid, values, nulls);
	/* it was by another column */
	if (stream->expired_until != SX_TIME_NONE && replace[SX_STREAM_EVENT_TIME - 1] &&
		strcmp(NameStr(stream->event_time), NameStr(*DatumGetName(values[SX_STREAM_EVENT_TIME - 1]))) != 0)
	{
		values[SX_STREAM_EXPIRED_UNTIL - 1] = Int64GetDatum(SX_TIME_END);
		nulls[SX_STREAM_EXPIRED_UNTIL - 1] = false;
		replace[SX_STREAM_EXPIRED_UNTIL - 1] = true;
	}
	sx_catalog_write_stream(streamid, values, nulls, replace);
	set_condition(streamid, stream, fcinfo);
	PG_RETURN_VOID();
}

/* NULL leaves what is there, an empty text takes it away */
static void
set_condition(Oid streamid, const SxStreamDef *before, FunctionCallInfo fcinfo)
{
	Oid			old = before ? before->conditionid : InvalidOid;
	Oid			condition = InvalidOid;
	char	   *given;

	if (PG_ARGISNULL(VALID_ARGUMENT))
		return;
	given = text_to_cstring(PG_GETARG_TEXT_PP(VALID_ARGUMENT));
	if (given[strspn(given, " \t\n\r\f")] != '\0')
		condition = sx_valid_create_condition(streamid, given);
	if (!OidIsValid(old) && !OidIsValid(condition))
		return;
	sx_catalog_set_condition(streamid, condition, OidIsValid(condition) ? sx_pinned_settings() : NIL);
	if (OidIsValid(old))
		sx_valid_drop_condition(old);
}

/* where late rows are left out, one may count for some windows of its pane only */
static void
check_late_rows(Oid streamid, const Datum *values, const bool *nulls)
{
	ListCell   *lc;

	if (nulls[SX_STREAM_LATE_ROWS - 1] || strcmp(TextDatumGetCString(values[SX_STREAM_LATE_ROWS - 1]), "merge") == 0)
		return;
	foreach(lc, sx_catalog_views_of_stream(streamid))
	{
		SxViewDef  *def = lfirst(lc);

		if (def->panes)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot change late_rows of stream \"%s\" while views with hop() merge late rows",
							get_rel_name(streamid)),
					 errdetail("Continuous view \"%s\" keeps the states of panes, each of which belongs to several windows.",
							   get_rel_name(def->viewid)),
					 errhint("Drop the view, and create it again afterwards: it will keep a state for each window.")));
	}
}

Datum
sx_drop_stream(PG_FUNCTION_ARGS)
{
	Oid			streamid = stream_argument(fcinfo, "streamext.drop_stream()");
	SxStreamDef *stream;

	sx_catalog_lock_stream(streamid);
	stream = sx_catalog_stream(streamid);
	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" is not a stream", get_rel_name(streamid))));
	if (sx_catalog_views_of_stream(streamid) != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop stream \"%s\" because continuous views use it",
						get_rel_name(streamid)),
				 errdetail("It is used by %s.", sx_view_names(streamid)),
				 errhint("Drop the views first.")));
	sx_catalog_delete_stream(streamid);
	CommandCounterIncrement();
	if (OidIsValid(stream->conditionid))
		sx_valid_drop_condition(stream->conditionid);
	PG_RETURN_VOID();
}

/* the first argument, locked; the caller may declare it */
static Oid
stream_argument(FunctionCallInfo fcinfo, const char *function)
{
	Oid			streamid;
	char	   *name;
	AclResult	result;

	sx_require_preload();
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("stream must not be null")));
	streamid = PG_GETARG_OID(0);
	LockRelationOid(streamid, AccessShareLock);
	name = get_rel_name(streamid);
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", streamid)));

	result = pg_class_aclcheck(streamid, GetUserId(), ACL_SELECT);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, get_relkind_objtype(get_rel_relkind(streamid)), name);
	if (!SxClassOwnerCheck(streamid, GetUserId()))
	{
		/* what cannot be a stream at all is told so first */
		sx_check_stream_relation(streamid);
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(streamid)), name);
	}
	return streamid;
}

static void
check_column_values(Oid streamid, const Datum *values, const bool *nulls)
{
	static const struct
	{
		int			column;
		const char *name;
	}			intervals[] = {
		{SX_STREAM_WATERMARK_DELAY, "watermark_delay"},
		{SX_STREAM_ALLOWED_LATENESS, "allowed_lateness"},
		{SX_STREAM_IDLE_TIMEOUT, "idle_timeout"},
		{SX_STREAM_MAX_FUTURE, "max_future"}
	};
	SxStreamDef *stream = sx_catalog_stream(streamid);
	const char *event_time = !nulls[SX_STREAM_EVENT_TIME - 1] ? NameStr(*DatumGetName(values[SX_STREAM_EVENT_TIME - 1])) :
		stream != NULL ? NameStr(stream->event_time) : "";

	if (!nulls[SX_STREAM_EVENT_TIME - 1])
		check_event_time(streamid, NameStr(*DatumGetName(values[SX_STREAM_EVENT_TIME - 1])));
	for (int i = 0; i < lengthof(intervals); i++)
	{
		if (!nulls[intervals[i].column - 1])
			check_interval(intervals[i].name, values[intervals[i].column - 1]);
	}
	check_number_time(streamid, event_time, values, nulls);
	if (!nulls[SX_STREAM_LATE_ROWS - 1])
	{
		char	   *value = TextDatumGetCString(values[SX_STREAM_LATE_ROWS - 1]);

		if (strcmp(value, "merge") != 0 && strcmp(value, "drop") != 0 &&
			strcmp(value, "dead_letter") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for late_rows: \"%s\"", value),
					 errhint("Use merge, drop or dead_letter.")));
	}
	if (!nulls[SX_STREAM_CHANGES - 1])
	{
		char	   *value = TextDatumGetCString(values[SX_STREAM_CHANGES - 1]);

		if (strcmp(value, "all") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("changes => 'all' is not supported yet"),
					 errdetail("Only inserts are followed."),
					 errhint("Use changes => 'inserts'.")));
		if (strcmp(value, "inserts") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for changes: \"%s\"", value),
					 errhint("Use inserts.")));
	}
}

static void
check_event_time(Oid streamid, const char *column)
{
	HeapTuple	tup = SearchSysCacheAttName(streamid, column);
	Form_pg_attribute att;

	if (!HeapTupleIsValid(tup) || ((Form_pg_attribute) GETSTRUCT(tup))->attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of stream \"%s\" does not exist",
						column, get_rel_name(streamid)),
				 errhint("Name a column of type timestamptz, timestamp, date or bigint as event_time.")));
	att = (Form_pg_attribute) GETSTRUCT(tup);
	if (att->atttypid != TIMESTAMPTZOID && att->atttypid != TIMESTAMPOID &&
		att->atttypid != DATEOID && att->atttypid != INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of stream \"%s\" cannot be its event time",
						column, get_rel_name(streamid)),
				 errdetail("Its type is %s.", format_type_be(att->atttypid)),
				 errhint("Name a column of type timestamptz, timestamp, date or bigint as event_time.")));
	if (!att->attnotnull)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("event time column \"%s\" of stream \"%s\" may be null",
						column, get_rel_name(streamid)),
				 errhint("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL;",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(streamid)),
													get_rel_name(streamid)),
						 quote_identifier(column))));
	ReleaseSysCache(tup);
}

static void
check_interval(const char *name, Datum value)
{
	Interval   *span = DatumGetIntervalP(value);
	Interval	zero = {0};

	if (DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(span),
										  IntervalPGetDatum(&zero))) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", name),
				 errdetail("It is \"%s\".",
						   DatumGetCString(DirectFunctionCall1(interval_out, value))),
				 errhint("Use an interval of zero or more, such as '5 seconds'.")));
}

/* a bigint has no unit that an interval could be converted to; max_future, which has a default, says nothing of it */
static void
check_number_time(Oid streamid, const char *event_time, const Datum *values, const bool *nulls)
{
	static const struct
	{
		int			column;
		const char *name;
	}			spans[] = {
		{SX_STREAM_WATERMARK_DELAY, "watermark_delay"},
		{SX_STREAM_ALLOWED_LATENESS, "allowed_lateness"},
		{SX_STREAM_IDLE_TIMEOUT, "idle_timeout"}
	};
	SxStreamDef *stream = sx_catalog_stream(streamid);
	int64		before[lengthof(spans)] = {0, 0, -1};

	if (event_time[0] == '\0' || get_atttype(streamid, get_attnum(streamid, event_time)) != INT8OID)
		return;
	if (stream != NULL)
	{
		before[0] = stream->time.delay;
		before[1] = stream->time.lateness;
		before[2] = stream->time.idle;
	}
	for (int i = 0; i < lengthof(spans); i++)
	{
		int			n = spans[i].column - 1;
		int64		span = nulls[n] ? before[i] : sx_span_us(DatumGetIntervalP(values[n]));

		/* no timeout is none, and a timeout of zero is one */
		if (span > 0 || (span == 0 && spans[i].column == SX_STREAM_IDLE_TIMEOUT))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s needs an event time of type timestamptz, timestamp or date", spans[i].name),
					 errdetail("Column \"%s\" has type bigint, which has no unit of time.", event_time),
					 errhint("Leave it out, or declare another column as event_time.")));
	}
}
