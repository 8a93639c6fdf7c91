/*
 * session.c
 *		session(ts, gap): the sessions that rows belong to, as a group key of a continuous view.
 *
 * Which session a row belongs to depends on other rows, so this cannot be computed row by row.
 * In our own plans the function returns what a row alone would be, [ts, ts + gap).  The plan
 * groups by that, and whoever takes its rows up (live state, the writer of the table, readers)
 * unites rows of one group whose ranges overlap.  Anywhere else the function is an error: the
 * same text would mean something else.
 *
 * All sessions of a view have one gap, and there is one session key at most, so rows of a group
 * that overlap are always of one session.
 */
#include "query/session.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/rangetypes.h"
#include "utils/timestamp.h"

#include "catalog/definitions.h"

bool		sx_session_allowed = false;

PG_FUNCTION_INFO_V1(sx_session_timestamptz);
PG_FUNCTION_INFO_V1(sx_session_timestamp);
PG_FUNCTION_INFO_V1(sx_session_date);
PG_FUNCTION_INFO_V1(sx_session_bigint);

typedef struct SessionCheck
{
	Node	   *key;			/* NULL: GROUP BY has none */
	bool		in_aggregate;
} SessionCheck;

static Datum session_of(FunctionCallInfo fcinfo, Oid rangetype, int64 point, bool finite, int64 gap,
						const char *type);
static void check_caller(void);
static int64 fixed_gap(Interval *gap);
static int64 gap_in_days(Interval *gap);
static void refuse_gap(const char *shown);
static Datum point_datum(TypeCacheEntry *type, int64 point);
static const char *function_of(Node *node);
static bool find_call(Node *node, void *context);
static bool find_set_call(Node *node, void *context);
static bool check_call(Node *node, SessionCheck *check);
static void refuse_place(const char *where);
static void check_constant_gap(FuncExpr *call);
static Const *constant_gap(TargetEntry *key);

/* ---- the function ---- */

Datum
sx_session_timestamptz(PG_FUNCTION_ARGS)
{
	TimestampTz point = PG_GETARG_TIMESTAMPTZ(0);

	return session_of(fcinfo, TSTZRANGEOID, point, !TIMESTAMP_NOT_FINITE(point),
					  fixed_gap(PG_GETARG_INTERVAL_P(1)), "timestamp");
}

Datum
sx_session_timestamp(PG_FUNCTION_ARGS)
{
	Timestamp	point = PG_GETARG_TIMESTAMP(0);

	return session_of(fcinfo, TSRANGEOID, point, !TIMESTAMP_NOT_FINITE(point),
					  fixed_gap(PG_GETARG_INTERVAL_P(1)), "timestamp");
}

Datum
sx_session_date(PG_FUNCTION_ARGS)
{
	DateADT		point = PG_GETARG_DATEADT(0);

	return session_of(fcinfo, DATERANGEOID, point, !DATE_NOT_FINITE(point),
					  gap_in_days(PG_GETARG_INTERVAL_P(1)), "date");
}

Datum
sx_session_bigint(PG_FUNCTION_ARGS)
{
	int64		gap = PG_GETARG_INT64(1);

	if (gap <= 0)
		refuse_gap(psprintf(INT64_FORMAT, gap));
	return session_of(fcinfo, INT8RANGEOID, PG_GETARG_INT64(0), true, gap, "bigint");
}

/* the session of a row alone */
static Datum
session_of(FunctionCallInfo fcinfo, Oid rangetype, int64 point, bool finite, int64 gap, const char *type)
{
	SxSpan		span = {.lower = point};
	bool		bigint = rangetype == INT8RANGEOID;

	if (!sx_session_allowed)
		check_caller();
	if (!finite)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a row at an infinite time has no session")));
	if (pg_add_s64_overflow(point, gap, &span.upper) ||
		(rangetype == DATERANGEOID ? span.upper >= (DATE_END_JULIAN - POSTGRES_EPOCH_JDATE) :
		 !bigint && !IS_VALID_TIMESTAMP(span.upper)))
		ereport(ERROR,
				(errcode(bigint ? ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE : ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("session is out of range for type %s", type)));
	PG_RETURN_DATUM(sx_span_range(range_get_typcache(fcinfo, rangetype), &span));
}

static void
check_caller(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("session() works only as a group key of a continuous view"),
			 errdetail("Which session a row belongs to depends on the rows around it."),
			 errhint("CREATE MATERIALIZED VIEW ... WITH (streamext.continuous) AS SELECT ... GROUP BY streamext.session(ts, gap), and read that view.")));
}

/* in microseconds; a day has 24 hours */
static int64
fixed_gap(Interval *gap)
{
	int64		result;

	if (gap->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a session gap cannot be in months or years"),
				 errdetail("Their length depends on the calendar."),
				 errhint("Use days, hours or less.")));
	if (pg_mul_s64_overflow(gap->day, USECS_PER_DAY, &result) ||
		pg_add_s64_overflow(result, gap->time, &result))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("session gap is out of range")));
	if (result <= 0)
		refuse_gap(DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(gap))));
	return result;
}

static int64
gap_in_days(Interval *gap)
{
	int64		fixed = fixed_gap(gap);

	if (fixed % USECS_PER_DAY != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a session gap of dates must be in whole days"),
				 errdetail("The gap is %s.",
						   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(gap)))),
				 errhint("Use days, or cast the date to timestamp.")));
	return fixed / USECS_PER_DAY;
}

static void
refuse_gap(const char *shown)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("session gap must be greater than zero"),
			 errdetail("The gap is %s.", shown)));
}

/* ---- spans ---- */

static Datum
point_datum(TypeCacheEntry *type, int64 point)
{
	return type->type_id == DATERANGEOID ? DateADTGetDatum((DateADT) point) : Int64GetDatum(point);
}

int64
sx_span_point(TypeCacheEntry *type, Datum value)
{
	return type->type_id == DATERANGEOID ? DatumGetDateADT(value) : DatumGetInt64(value);
}

/*
 * Spans are read often: once per row of a page, where the index is searched.  What is stored is the type's
 * OID, the two bounds, without padding, and a byte of flags.  False: it has another form.
 */
static inline bool
read_bounds(TypeCacheEntry *type, Datum range, SxSpan *span)
{
	struct varlena *value = (struct varlena *) DatumGetPointer(range);
	bool		days = type->type_id == DATERANGEOID;
	Size		width = days ? sizeof(DateADT) : sizeof(int64);
	const char *data;

	if (VARATT_IS_EXTERNAL(value) || VARATT_IS_COMPRESSED(value) ||
		VARSIZE_ANY_EXHDR(value) != sizeof(Oid) + 2 * width + 1)
		return false;
	data = VARDATA_ANY(value);
	if (data[sizeof(Oid) + 2 * width] != RANGE_LB_INC)
		return false;
	if (days)
	{
		DateADT		bounds[2];

		memcpy(bounds, data + sizeof(Oid), sizeof(bounds));
		span->lower = bounds[0];
		span->upper = bounds[1];
	}
	else
	{
		int64		bounds[2];

		memcpy(bounds, data + sizeof(Oid), sizeof(bounds));
		span->lower = bounds[0];
		span->upper = bounds[1];
	}
	return true;
}

SxSpan
sx_span_of(TypeCacheEntry *type, Datum range, bool isnull)
{
	SxSpan		span = {.isnull = isnull};
	RangeType  *value;
	RangeBound	lower;
	RangeBound	upper;
	bool		empty;

	if (isnull || read_bounds(type, range, &span))
		return span;
	value = DatumGetRangeTypeP(range);
	range_deserialize(type, value, &lower, &upper, &empty);
	if (empty || lower.infinite || upper.infinite || !lower.inclusive || upper.inclusive)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a session of a continuous view has another form than [first, last + gap)"),
				 errhint("The materialized table was changed by hand: drop the view and create it again.")));
	span.lower = sx_span_point(type, lower.val);
	span.upper = sx_span_point(type, upper.val);
	if ((Pointer) value != DatumGetPointer(range))
		pfree(value);
	return span;
}

Datum
sx_span_range(TypeCacheEntry *type, const SxSpan *span)
{
	RangeBound	lower = {.val = point_datum(type, span->lower), .inclusive = true, .lower = true};
	RangeBound	upper = {.val = point_datum(type, span->upper)};

	return RangeTypePGetDatum(SxMakeRange(type, &lower, &upper));
}

Datum
sx_span_from(TypeCacheEntry *type, int64 from)
{
	RangeBound	lower = {.val = point_datum(type, from), .inclusive = true, .lower = true};
	RangeBound	upper = {.infinite = true};

	return RangeTypePGetDatum(SxMakeRange(type, &lower, &upper));
}

bool
sx_span_ends_by(TypeCacheEntry *type, Datum range, int64 point)
{
	RangeBound	lower;
	RangeBound	upper;
	bool		empty;
	SxSpan		span;

	if (read_bounds(type, range, &span))
		return span.upper <= point;
	range_deserialize(type, DatumGetRangeTypeP(range), &lower, &upper, &empty);
	if (empty || upper.infinite)
		return false;
	return upper.inclusive ? sx_span_point(type, upper.val) < point : sx_span_point(type, upper.val) <= point;
}

/* ---- definitions ---- */

/* the name of a function of ours, or NULL */
static const char *
function_of(Node *node)
{
	if (node == NULL || !IsA(node, FuncExpr) ||
		get_func_namespace(((FuncExpr *) node)->funcid) != sx_catalog_schema_oid())
		return NULL;
	return get_func_name(((FuncExpr *) node)->funcid);
}

bool
sx_is_session_call(Node *node)
{
	const char *name = function_of(node);

	return name != NULL && strcmp(name, "session") == 0;
}

static bool
find_call(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, find_call, context, 0);
	return sx_is_session_call(node) || expression_tree_walker(node, find_call, context);
}

static bool
find_set_call(Node *node, void *context)
{
	const char *name = function_of(node);

	if (node == NULL)
		return false;
	if (name != NULL && (strcmp(name, "hop") == 0 || strcmp(name, "cumulate") == 0))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, find_set_call, context, 0);
	return expression_tree_walker(node, find_set_call, context);
}

/* query: join aliases and the like may be in it; keys: of TargetEntry * */
void
sx_check_session(Query *query, List *keys)
{
	SessionCheck check = {0};
	Query	   *rest;
	ListCell   *lc;

	if (!find_call((Node *) query, NULL))
		return;
	foreach(lc, keys)
	{
		Node	   *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		if (!sx_is_session_call(expr))
		{
			if (find_call(expr, NULL))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("session() cannot stand inside another expression in GROUP BY"),
						 errhint("Group by session(ts, gap) itself, and use the expression in the SELECT list.")));
			continue;
		}
		if (check.key != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous view cannot have more than one session() in GROUP BY"),
					 errhint("Create a continuous view for each.")));
		check.key = expr;
		if (find_call((Node *) ((FuncExpr *) expr)->args, NULL))
			refuse_place("the arguments of session()");
		check_constant_gap((FuncExpr *) expr);
	}

	/* everything but the SELECT list and HAVING, where it stands for the group's key */
	rest = copyObject(query);
	rest->targetList = NIL;
	rest->havingQual = NULL;
	if (find_call((Node *) rest->jointree, NULL))
		refuse_place("WHERE or a join condition");
	if (query_tree_walker(rest, find_call, NULL, SX_IGNORE_GROUPEXPRS))
		refuse_place("a sub-select");
	if (find_set_call((Node *) query, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("session() cannot stand beside hop() or cumulate()"),
				 errdetail("A row would count in several windows, each with sessions of its own."),
				 errhint("Create a continuous view for each.")));
	foreach(lc, query->targetList)
		check_call((Node *) lfirst_node(TargetEntry, lc)->expr, &check);
	check_call(query->havingQual, &check);
}

static bool
check_call(Node *node, SessionCheck *check)
{
	if (node == NULL)
		return false;
	if (sx_is_session_call(node))
	{
		if (check->in_aggregate)
			refuse_place("an aggregate's arguments");
		if (check->key == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("session() works only as a group key"),
					 errhint("Add it to GROUP BY.")));
		if (!equal(node, check->key))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("every session() in a continuous view must be the one in GROUP BY"),
					 errhint("Write it with the same arguments.")));
		return false;
	}
	if (IsA(node, Query))
	{
		if (find_call(node, NULL))
			refuse_place("a sub-select");
		return false;
	}
	if (IsA(node, Aggref))
	{
		bool		before = check->in_aggregate;

		check->in_aggregate = true;
		(void) expression_tree_walker(node, check_call, check);
		check->in_aggregate = before;
		return false;
	}
	return expression_tree_walker(node, check_call, check);
}

static void
refuse_place(const char *where)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("session() cannot stand in %s", where),
			 errdetail("A row's session is known only when all rows of its group are looked at."),
			 errhint("Group by it, and use it in the query that reads the view.")));
}

static void
check_constant_gap(FuncExpr *call)
{
	Node	   *gap = eval_const_expressions(NULL, copyObject(lsecond(call->args)));
	Const	   *value = (Const *) gap;

	if (!IsA(gap, Const) || value->constisnull)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the gap of session() must be a constant"),
				 errhint("Write it as a literal, for example '30 minutes'.")));
	/* what a row would say */
	switch (call->funcresulttype)
	{
		case INT8RANGEOID:
			if (DatumGetInt64(value->constvalue) <= 0)
				refuse_gap(psprintf(INT64_FORMAT, DatumGetInt64(value->constvalue)));
			break;
		case DATERANGEOID:
			(void) gap_in_days(DatumGetIntervalP(value->constvalue));
			break;
		default:
			(void) fixed_gap(DatumGetIntervalP(value->constvalue));
			break;
	}
}

/* NULL: it is none */
static Const *
constant_gap(TargetEntry *key)
{
	Node	   *gap = eval_const_expressions(NULL, copyObject(lsecond(castNode(FuncExpr, key->expr)->args)));

	return IsA(gap, Const) && !((Const *) gap)->constisnull ? (Const *) gap : NULL;
}

char *
sx_session_gap(TargetEntry *key)
{
	Const	   *gap = constant_gap(key);
	Oid			out;
	bool		varlena;

	if (gap == NULL)
		return pstrdup("?");
	getTypeOutputInfo(gap->consttype, &out, &varlena);
	return OidOutputFunctionCall(out, gap->constvalue);
}

int64
sx_session_gap_number(TargetEntry *key)
{
	Const	   *gap = constant_gap(key);

	if (gap == NULL)
		return -1;
	switch (castNode(FuncExpr, key->expr)->funcresulttype)
	{
		case INT8RANGEOID:
			return DatumGetInt64(gap->constvalue);
		case DATERANGEOID:
			return gap_in_days(DatumGetIntervalP(gap->constvalue));
		default:
			return fixed_gap(DatumGetIntervalP(gap->constvalue));
	}
}
