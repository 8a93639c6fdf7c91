/*
 * explain.c
 *		streamext.explain(view): how a continuous view is kept up to date.
 *
 * The lines: strategy, stream, keys, aggregates with the form of their state, pinned
 * settings, size of the materialized table, and the delta plan as EXPLAIN shows it.
 * The plan is made as the view's owner, as in the worker.  Whoever may read the view
 * may ask.
 */
#include "query/plan.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "query/analyze.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(sx_explain);

static void put_line(ReturnSetInfo *rsinfo, const char *fmt,...) pg_attribute_printf(2, 3);
static void put_merge(ReturnSetInfo *rsinfo, SxViewInfo *info);
static void put_settings(ReturnSetInfo *rsinfo, List *settings);
static void put_size(ReturnSetInfo *rsinfo, Oid matid);
static void put_plan(ReturnSetInfo *rsinfo, char *plan);
static char *aggregate_name(Aggref *aggref);
static char *qualified_name(Oid relid);

/* streamext.explain(view regclass) returns setof text */
Datum
sx_explain(PG_FUNCTION_ARGS)
{
	Oid			viewid = PG_GETARG_OID(0);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SxViewDef  *def = sx_catalog_view(viewid);
	SxViewInfo *info;
	SxRunAs		run;
	char	   *plan;

	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a continuous view",
						get_rel_name(viewid) ? get_rel_name(viewid) : psprintf("%u", viewid)),
				 errhint("The view streamext.views lists them.")));
	if (pg_class_aclcheck(viewid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_VIEW, get_rel_name(viewid));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);

	sx_run_as_begin(&run, def);
	info = sx_view_info_create(def, CurrentMemoryContext);
	put_line(rsinfo, "Strategy: %s", def->strategy == SX_APPEND ? "append" : "merge");
	put_line(rsinfo, "Stream: %s", qualified_name(def->streamid));
	if (def->strategy == SX_MERGE)
		put_merge(rsinfo, info);
	put_settings(rsinfo, def->settings);
	put_size(rsinfo, def->matid);
	plan = sx_plan_explain(sx_plan_create(info));
	put_line(rsinfo, "Delta plan:");
	put_plan(rsinfo, plan);
	sx_view_info_destroy(info);
	sx_run_as_end(&run);
	return (Datum) 0;
}

static void
put_merge(ReturnSetInfo *rsinfo, SxViewInfo *info)
{
	SxAnalysis *a = sx_analyze_stored(info->def->queryid, info->def->streamid);

	if (a->keys == NIL)
		put_line(rsinfo, "Keys: none, one row");
	for (int i = 0; a->keys != NIL && i < info->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(info->desc, i);

		if (i == info->closed_key)
			put_line(rsinfo, "Overlapping windows: states of panes, and of windows that have closed");
		else if (i == info->session_key)
			put_line(rsinfo, "Session window: %s %s, gap %s", quote_identifier(NameStr(att->attname)),
					 format_type_be(att->atttypid), sx_session_gap(llast_node(TargetEntry, a->keys)));
		else
			put_line(rsinfo, "Key: %s %s", quote_identifier(NameStr(att->attname)),
					 format_type_with_typemod(att->atttypid, att->atttypmod));
	}
	for (int i = 0; i < info->naggs; i++)
	{
		Form_pg_attribute att = TupleDescAttr(info->desc, info->states[i]);
		Form_pg_attribute stored = TupleDescAttr(info->desc, info->nkeys + i);
		const char *result = sx_agg_plain(info->aggs[i]) ? " is the result" : "";

		if (stored != att)
			result = psprintf(", result %s %s", quote_identifier(NameStr(stored->attname)),
							  format_type_be(stored->atttypid));
		put_line(rsinfo, "Aggregate: %s, incremental, state %s %s%s",
				 aggregate_name(lfirst(list_nth_cell(a->aggrefs, i))),
				 quote_identifier(NameStr(att->attname)),
				 format_type_be(att->atttypid), result);
	}
}

static void
put_settings(ReturnSetInfo *rsinfo, List *settings)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, settings)
		appendStringInfo(&buf, "%s%s", buf.len > 0 ? "; " : "", (char *) lfirst(lc));
	put_line(rsinfo, "Settings: %s", buf.data);
}

static void
put_size(ReturnSetInfo *rsinfo, Oid matid)
{
	int64		bytes = DatumGetInt64(DirectFunctionCall1(pg_total_relation_size, ObjectIdGetDatum(matid)));
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(matid));
	float4		rows = -1;

	if (HeapTupleIsValid(tuple))
	{
		rows = ((Form_pg_class) GETSTRUCT(tuple))->reltuples;
		ReleaseSysCache(tuple);
	}
	if (rows < 0)
		put_line(rsinfo, "State: %s, " INT64_FORMAT " bytes", qualified_name(matid), bytes);
	else
		put_line(rsinfo, "State: %s, " INT64_FORMAT " bytes, about %.0f rows",
				 qualified_name(matid), bytes, rows);
}

static void
put_plan(ReturnSetInfo *rsinfo, char *plan)
{
	char	   *line = plan;

	while (line != NULL)
	{
		char	   *end = strchr(line, '\n');

		if (end != NULL)
			*end = '\0';
		put_line(rsinfo, "  %s", line);
		line = end != NULL ? end + 1 : NULL;
	}
}

static void
put_line(ReturnSetInfo *rsinfo, const char *fmt,...)
{
	StringInfoData buf;
	Datum		value;
	bool		isnull = false;

	initStringInfo(&buf);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, fmt);
		needed = appendStringInfoVA(&buf, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&buf, needed);
	}
	value = CStringGetTextDatum(buf.data);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
	pfree(buf.data);
}

static char *
aggregate_name(Aggref *aggref)
{
	char	   *name = aggref->aggstar ?
		psprintf("%s(*)", get_func_name(aggref->aggfnoid)) : format_procedure(aggref->aggfnoid);

	return aggref->aggfilter != NULL ? psprintf("%s with FILTER", name) : name;
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}
