/*
 * view_options.c
 *		The streamext.* options of CREATE MATERIALIZED VIEW … WITH (…).
 */
#include "query/view_def.h"

#include "catalog/namespace.h"
#include "commands/defrem.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/regproc.h"
#include "utils/varlena.h"

static void parse_option(DefElem *def, SxViewOptions *options, bool *continuous);
static Oid	stream_option(DefElem *def);
static int	interval_option(DefElem *def);
static int64 retention_option(DefElem *def);

List *
sx_view_parse_options(List *defelems, SxViewOptions *options, bool *continuous)
{
	List	   *others = NIL;
	List	   *seen = NIL;
	ListCell   *lc;

	options->stream = InvalidOid;
	options->on_close = false;
	options->flush_interval = -1;
	options->retention = -1;
	*continuous = false;

	foreach(lc, defelems)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (def->defnamespace == NULL || strcmp(def->defnamespace, SX_SCHEMA) != 0)
		{
			others = lappend(others, def);
			continue;
		}
		if (list_member(seen, makeString(def->defname)))
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("option \"streamext.%s\" specified more than once", def->defname)));
		seen = lappend(seen, makeString(def->defname));
		parse_option(def, options, continuous);
	}
	return others;
}

static void
parse_option(DefElem *def, SxViewOptions *options, bool *continuous)
{
	if (strcmp(def->defname, "continuous") == 0)
		*continuous = defGetBoolean(def);
	else if (strcmp(def->defname, "stream") == 0)
		options->stream = stream_option(def);
	else if (strcmp(def->defname, "flush_interval") == 0)
		options->flush_interval = interval_option(def);
	else if (strcmp(def->defname, "emit") == 0)
	{
		char	   *value = defGetString(def);

		if (strcmp(value, "on_close") != 0 && strcmp(value, "changes") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for option \"streamext.emit\": \"%s\"", value),
					 errhint("The values are \"changes\" and \"on_close\".")));
		options->on_close = strcmp(value, "on_close") == 0;
	}
	else if (strcmp(def->defname, "retention") == 0)
		options->retention = retention_option(def);
	else if (strcmp(def->defname, "live_memory") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("option \"streamext.%s\" is not supported yet", def->defname),
				 errhint("Set streamext.live_memory for the whole server.")));
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized option \"streamext.%s\"", def->defname),
				 errhint("The options are streamext.continuous, streamext.stream, streamext.emit, streamext.flush_interval and streamext.retention.")));
}

static Oid
stream_option(DefElem *def)
{
	RangeVar   *rv = makeRangeVarFromNameList(SxStringToNameList(defGetString(def)));

	return RangeVarGetRelid(rv, AccessShareLock, false);
}

/* milliseconds; the same text as the setting takes */
static int
interval_option(DefElem *def)
{
	char	   *value = defGetString(def);
	const char *hint = NULL;
	int			result;

	if (!parse_int(value, &result, GUC_UNIT_MS, &hint) || result < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"streamext.flush_interval\": \"%s\"", value),
				 hint != NULL ? errhint("%s", hint) :
				 errhint("Write a time of at least one millisecond, such as '1s' or '500ms'.")));
	return result;
}

/* microseconds */
static int64
retention_option(DefElem *def)
{
	char	   *value = defGetString(def);
	int64		result = sx_span_us(DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(value),
																		 ObjectIdGetDatum(InvalidOid),
																		 Int32GetDatum(-1))));

	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for option \"streamext.retention\": \"%s\"", value),
				 errhint("Write an interval, such as '30 days'.")));
	return result;
}
