/*
 * functions.c
 *		Which functions a continuous view may use, and the settings they depend on.
 *
 * A row is computed once, when it is consumed, in a background worker, and once more
 * by whoever checks the view by running its query by hand.  Both must find the same.
 * So a function must be immutable, or stable and depend on nothing but settings: these
 * are recorded with the view at CREATE ("pinned") and in force whenever its
 * expressions run.  The second kind is a list of names, because the catalogs do not
 * say what a stable function depends on; stable functions that read the clock, the
 * session or tables are not on it.
 *
 * Aggregates are checked with their support functions, which are often forgotten
 * when somebody declares an aggregate.
 */
#include "query/analyze_internal.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

/*
 * Settings that change what expressions mean.  lc_time, lc_numeric and lc_monetary
 * are read by to_char, to_number and money; the others by input and output functions,
 * casts and text search.
 */
static const char *const pinned_settings[] = {
	"TimeZone",
	"DateStyle",
	"IntervalStyle",
	"extra_float_digits",
	"bytea_output",
	"array_nulls",
	"default_text_search_config",
	"lc_monetary",
	"lc_numeric",
	"lc_time",
	"timezone_abbreviations",
	"xmlbinary",
	"xmloption",
};

/*
 * Built-in functions with a stable variant that depends on the settings above only.
 * Deliberately absent: age(timestamp) and everything with timetz (the current date),
 * enum I/O (labels can be renamed), to_reg... (catalogs), has_..._privilege.
 */
static const char *const settings_only[] = {
	/* date and time: TimeZone, DateStyle, IntervalStyle, lc_time */
	"date", "date_add", "date_in", "date_out", "date_part", "date_subtract",
	"date_trunc", "extract", "generate_series", "in_range", "interval_in", "interval_out",
	"interval_pl_timestamptz", "make_timestamptz", "overlaps", "time", "time_in", "time_out",
	"timestamp", "timestamp_in", "timestamp_out", "timestamptz", "timestamptz_in",
	"timestamptz_mi_interval", "timestamptz_out", "timestamptz_pl_interval", "timezone",
	"date_cmp_timestamptz", "date_eq_timestamptz", "date_ge_timestamptz", "date_gt_timestamptz",
	"date_le_timestamptz", "date_lt_timestamptz", "date_ne_timestamptz",
	"timestamp_cmp_timestamptz", "timestamp_eq_timestamptz", "timestamp_ge_timestamptz",
	"timestamp_gt_timestamptz", "timestamp_le_timestamptz", "timestamp_lt_timestamptz",
	"timestamp_ne_timestamptz",
	"timestamptz_cmp_date", "timestamptz_eq_date", "timestamptz_ge_date", "timestamptz_gt_date",
	"timestamptz_le_date", "timestamptz_lt_date", "timestamptz_ne_date",
	"timestamptz_cmp_timestamp", "timestamptz_eq_timestamp", "timestamptz_ge_timestamp",
	"timestamptz_gt_timestamp", "timestamptz_le_timestamp", "timestamptz_lt_timestamp",
	"timestamptz_ne_timestamp",
	/* text and numbers: lc_numeric, lc_monetary and the output functions above */
	"anytextcat", "cash_in", "cash_out", "concat", "concat_ws", "convert", "convert_from",
	"convert_to", "format", "length", "money", "numeric", "quote_literal", "quote_nullable",
	"textanycat", "to_char", "to_date", "to_number", "to_timestamp",
	/* containers: as their elements */
	"array_in", "array_out", "array_to_json", "array_to_string", "domain_in", "multirange_in",
	"multirange_out", "range_in", "range_out", "record_out", "row_to_json", "to_json", "to_jsonb",
	"json_agg", "json_agg_transfn", "json_build_array", "json_build_object", "json_object_agg",
	"json_object_agg_transfn", "json_populate_record", "json_populate_recordset", "json_to_record",
	"json_to_recordset", "jsonb_agg", "jsonb_agg_finalfn", "jsonb_agg_transfn",
	"jsonb_build_array", "jsonb_build_object", "jsonb_object_agg", "jsonb_object_agg_finalfn",
	"jsonb_object_agg_transfn", "jsonb_path_exists_tz", "jsonb_path_match_tz",
	"jsonb_path_query_array_tz", "jsonb_path_query_first_tz", "jsonb_path_query_tz",
	"jsonb_populate_record", "jsonb_populate_recordset", "jsonb_to_record", "jsonb_to_recordset",
	/* text search: default_text_search_config */
	"json_to_tsvector", "jsonb_to_tsvector", "phraseto_tsquery", "plainto_tsquery", "to_tsquery",
	"to_tsvector", "ts_headline", "ts_match_tq", "ts_match_tt", "websearch_to_tsquery",
	/* xml: xmlbinary, xmloption */
	"xml", "xml_in", "xml_is_well_formed",
};

/* Where the functions stand, for messages */
typedef struct Place
{
	const char *name;
	const char *volatile_detail;
	const char *stable_detail;
	const char *value_detail;
	const char *hint;
} Place;

static const Place in_view = {
	"a continuous view",
	"A row is computed once, when it is consumed; a volatile function may return something else when the query is run by hand.",
	"Its result may depend on the clock, the session or other tables, not only on its arguments and on settings that the view keeps.",
	"Its value depends on when and by whom the query is run.",
	"Use it in the query that reads the view, or store the value in a column of the stream."
};

static const Place in_alert = {
	"an alert's condition",
	"The condition is evaluated when a group changes, and then it must say the same each time.",
	"The condition is evaluated when a group changes, not when the clock, the session or other tables do.",
	"The condition is evaluated when a group changes, not when the clock or the session does.",
	"Compare with columns of the view, and with constants."
};

static const Place in_stream = {
	"a stream's condition",
	"A row is judged once, when it is consumed; a volatile function may say something else the next time.",
	"Its result may depend on the clock, the session or other tables, not only on the row and on settings that the stream keeps.",
	"A row is judged when it is consumed, not when it is inserted.",
	"Compare with columns of the stream, and with constants."
};

static bool check_node(Node *node, void *context);
static bool check_function(Oid funcid, void *context);
static bool depends_on_settings_only(Form_pg_proc proc);
static void refuse_value_function(SQLValueFunction *f, const Place *place);

List *
sx_pinned_settings(void)
{
	List	   *result = NIL;

	for (int i = 0; i < lengthof(pinned_settings); i++)
	{
		const char *value = GetConfigOption(pinned_settings[i], true, false);

		if (value != NULL && value[0] != '\0')
			result = lappend(result, psprintf("%s=%s", pinned_settings[i], value));
	}
	return result;
}

void
sx_check_functions(Query *query)
{
	check_node((Node *) query, (void *) &in_view);
}

void
sx_check_stream_functions(Query *query)
{
	check_node((Node *) query, (void *) &in_stream);
}

void
sx_check_alert_functions(Query *query)
{
	check_node((Node *) query, (void *) &in_alert);
}

static bool
check_node(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, check_node, context, 0);

	if (IsA(node, SQLValueFunction))
		refuse_value_function((SQLValueFunction *) node, context);
	if (IsA(node, NextValueExpr))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("sequences cannot be used in %s", ((const Place *) context)->name)));
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXTERN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("parameters cannot be used in %s", ((const Place *) context)->name),
				 errhint("Write the value as a constant.")));
	/*
	 * Of an aggregate only its own declaration counts, as in PostgreSQL: its support functions
	 * are often volatile just because nobody said otherwise (hll's are).
	 */
	check_functions_in_node(node, check_function, context);
	return expression_tree_walker(node, check_node, context);
}

/* raises or returns false, so that the walk goes on */
static bool
check_function(Oid funcid, void *context)
{
	const Place *place = context;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	Form_pg_proc proc;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", funcid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);

	/* the workers run it as the current user */
	if (SxProcAclCheck(funcid, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, format_procedure(funcid));

	if (proc->provolatile == PROVOLATILE_VOLATILE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("volatile function %s cannot be used in %s",
						format_procedure(funcid), place->name),
				 errdetail_internal("%s", place->volatile_detail),
				 funcid >= FirstNormalObjectId ?
				 errhint("If its result depends on its arguments alone: ALTER FUNCTION %s IMMUTABLE.",
						 format_procedure(funcid)) :
				 place != &in_view ? errhint("%s", place->hint) :
				 errhint("Store the value in a column of the stream, for example with DEFAULT.")));

	if (proc->provolatile == PROVOLATILE_STABLE && !depends_on_settings_only(proc))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("stable function %s cannot be used in %s",
						format_procedure(funcid), place->name),
				 errdetail_internal("%s", place->stable_detail),
				 funcid >= FirstNormalObjectId ?
				 errhint("If its result depends on its arguments alone: ALTER FUNCTION %s IMMUTABLE.",
						 format_procedure(funcid)) :
				 errhint("%s", place->hint)));

	ReleaseSysCache(tuple);
	return false;
}

static bool
depends_on_settings_only(Form_pg_proc proc)
{
	if (proc->pronamespace != PG_CATALOG_NAMESPACE || proc->oid >= FirstNormalObjectId)
		return false;

	/* the offset of a time with time zone is that of today */
	if (proc->prorettype == TIMETZOID)
		return false;
	for (int i = 0; i < proc->proargtypes.dim1; i++)
		if (proc->proargtypes.values[i] == TIMETZOID)
			return false;

	for (int i = 0; i < lengthof(settings_only); i++)
		if (strcmp(NameStr(proc->proname), settings_only[i]) == 0)
			return true;
	return false;
}

static void
refuse_value_function(SQLValueFunction *f, const Place *place)
{
	const char *name;

	switch (f->op)
	{
		case SVFOP_CURRENT_DATE:
			name = "CURRENT_DATE";
			break;
		case SVFOP_CURRENT_TIME:
		case SVFOP_CURRENT_TIME_N:
			name = "CURRENT_TIME";
			break;
		case SVFOP_CURRENT_TIMESTAMP:
		case SVFOP_CURRENT_TIMESTAMP_N:
			name = "CURRENT_TIMESTAMP";
			break;
		case SVFOP_LOCALTIME:
		case SVFOP_LOCALTIME_N:
			name = "LOCALTIME";
			break;
		case SVFOP_LOCALTIMESTAMP:
		case SVFOP_LOCALTIMESTAMP_N:
			name = "LOCALTIMESTAMP";
			break;
		case SVFOP_CURRENT_CATALOG:
			name = "CURRENT_CATALOG";
			break;
		case SVFOP_CURRENT_SCHEMA:
			name = "CURRENT_SCHEMA";
			break;
		default:
			name = "CURRENT_USER";
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("%s cannot be used in %s", name, place->name),
			 errdetail_internal("%s", place->value_detail),
			 errhint("%s", place->hint)));
}
