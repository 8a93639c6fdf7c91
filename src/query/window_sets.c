/*
 * window_sets.c
 *		Windows that overlap, as set-returning functions: hop() and cumulate().
 *
 * A row belongs to several windows, so the functions return all of them: GROUP BY hop(...) counts
 * the row in each, in any query.
 *
 * hop(ts, slide, size): windows of one size that begin at every point of the grid of slides.  Those
 * that hold ts begin at the last point at or before it, and at the size/slide - 1 points before that.
 *
 * cumulate(ts, step, size): windows that begin at the points of the grid of sizes and end after each
 * step, up to the size; ts belongs to those that end after it.
 *
 * Sizes that follow the calendar are laid over local time, as for tumble(): the points are counted
 * there and turned into instants.  A day that a time zone has left out would show as two windows that
 * begin, or end, at the same instant: only one is returned.
 */
#include "query/window.h"

#include "catalog/definitions.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "compat.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/supportnodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rangetypes.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(sx_hop_timestamptz);
PG_FUNCTION_INFO_V1(sx_hop_timestamptz_origin);
PG_FUNCTION_INFO_V1(sx_hop_timestamptz_zone);
PG_FUNCTION_INFO_V1(sx_hop_timestamp);
PG_FUNCTION_INFO_V1(sx_hop_timestamp_origin);
PG_FUNCTION_INFO_V1(sx_hop_date);
PG_FUNCTION_INFO_V1(sx_hop_date_origin);
PG_FUNCTION_INFO_V1(sx_hop_bigint);
PG_FUNCTION_INFO_V1(sx_hop_bigint_origin);
PG_FUNCTION_INFO_V1(sx_hop_pane);
PG_FUNCTION_INFO_V1(sx_cumulate_timestamptz);
PG_FUNCTION_INFO_V1(sx_cumulate_timestamptz_zone);
PG_FUNCTION_INFO_V1(sx_cumulate_timestamp);
PG_FUNCTION_INFO_V1(sx_cumulate_date);
PG_FUNCTION_INFO_V1(sx_cumulate_bigint);
PG_FUNCTION_INFO_V1(sx_window_set_rows);

/* of overlapping windows in a continuous view */
#define MAX_WINDOWS_PER_ROW 10000

/* What the points of a grid are */
typedef enum PointType
{
	INSTANT,
	LOCAL,						/* timestamp */
	DAY,						/* date, as the timestamp of its midnight */
	NUMBER
} PointType;

/* The windows of one row, on their way */
typedef struct WindowSet
{
	PointType	type;
	pg_tz	   *zone;			/* the grid is one of local time there; or NULL */
	bool		calendar;		/* its step is `interval`, else `fixed` */
	Interval	interval;
	int64		fixed;
	int64		base;			/* point that steps are counted from */
	int64		step;			/* the next */
	int64		last;			/* the last one */
	int64		previous;		/* point returned last */
	bool		any;
	/* cumulate */
	int64		point;			/* the row's */
	int64		start;
	int64		end;			/* of the longest window */
} WindowSet;

static WindowSet *begin_set(FunctionCallInfo fcinfo, PointType type, FuncCallContext **funcctx);
static void set_interval_hop(WindowSet *set, int64 point, Interval *slide, Interval *size, const Timestamp *origin,
							 pg_tz *zone);
static void set_hop(WindowSet *set, FuncExpr *hop, Datum point);
static void set_number_hop(WindowSet *set, int64 point, int64 slide, int64 size, int64 origin);
static Datum next_start(FunctionCallInfo fcinfo);
static Datum next_range(FunctionCallInfo fcinfo);
static bool is_finite(const WindowSet *set, int64 point);
static int64 point_of(const WindowSet *set, int64 step);
static bool has_step(const WindowSet *set, int64 step);
static Datum datum_of(const WindowSet *set, int64 point);
static Datum hop_interval(FunctionCallInfo fcinfo, PointType type, const Timestamp *origin, pg_tz *zone);
static Datum hop_number(FunctionCallInfo fcinfo, int64 origin);
static Datum cumulate_interval(FunctionCallInfo fcinfo, PointType type, pg_tz *zone);
static int64 steps_per_window(Interval *size, Interval *step, bool local, const char *what, bool *calendar);
static void not_a_multiple(const char *what, const char *size, const char *step);
static int64 argument_point(FunctionCallInfo fcinfo, PointType type);
static char *show(Interval *interval);
static void check_window_count(FuncExpr *call, const char *name);
static void try_window(FuncExpr *call);
static double length_of(Node *node);

/* ---- hop ---- */

Datum
sx_hop_timestamptz(PG_FUNCTION_ARGS)
{
	return hop_interval(fcinfo, INSTANT, NULL, NULL);
}

Datum
sx_hop_timestamptz_origin(PG_FUNCTION_ARGS)
{
	TimestampTz origin = PG_GETARG_TIMESTAMPTZ(3);

	return hop_interval(fcinfo, INSTANT, &origin, NULL);
}

Datum
sx_hop_timestamptz_zone(PG_FUNCTION_ARGS)
{
	return hop_interval(fcinfo, INSTANT, NULL, SRF_IS_FIRSTCALL() ? sx_window_zone(PG_GETARG_TEXT_PP(3)) : NULL);
}

Datum
sx_hop_timestamp(PG_FUNCTION_ARGS)
{
	return hop_interval(fcinfo, LOCAL, NULL, NULL);
}

Datum
sx_hop_timestamp_origin(PG_FUNCTION_ARGS)
{
	Timestamp	origin = PG_GETARG_TIMESTAMP(3);

	return hop_interval(fcinfo, LOCAL, &origin, NULL);
}

Datum
sx_hop_date(PG_FUNCTION_ARGS)
{
	return hop_interval(fcinfo, DAY, NULL, NULL);
}

Datum
sx_hop_date_origin(PG_FUNCTION_ARGS)
{
	Timestamp	origin = sx_date_to_local(PG_GETARG_DATEADT(3));

	return hop_interval(fcinfo, DAY, &origin, NULL);
}

Datum
sx_hop_bigint(PG_FUNCTION_ARGS)
{
	return hop_number(fcinfo, 0);
}

Datum
sx_hop_bigint_origin(PG_FUNCTION_ARGS)
{
	return hop_number(fcinfo, PG_GETARG_INT64(3));
}

static Datum
hop_interval(FunctionCallInfo fcinfo, PointType type, const Timestamp *origin, pg_tz *zone)
{
	FuncCallContext *funcctx;
	WindowSet  *set = begin_set(fcinfo, type, &funcctx);

	if (set != NULL)
		set_interval_hop(set, argument_point(fcinfo, type), PG_GETARG_INTERVAL_P(1), PG_GETARG_INTERVAL_P(2),
						 origin, zone);
	return next_start(fcinfo);
}

static void
set_interval_hop(WindowSet *set, int64 point, Interval *slide, Interval *size, const Timestamp *origin, pg_tz *zone)
{
	int64		n;

	if (set->type == DAY)
	{
		sx_check_date_size(slide);
		sx_check_date_size(size);
	}
	sx_check_window_length(slide, "slide");
	set->interval = *slide;
	set->base = set->type == INSTANT ? sx_tumble_instant(point, slide, origin, zone) :
		sx_tumble_local(point, slide, origin);
	n = steps_per_window(size, slide, zone != NULL, "slide", &set->calendar);
	if (!set->calendar)
		set->fixed = sx_fixed_window_size(slide);
	else if (zone != NULL && is_finite(set, point))
	{
		set->zone = zone;
		set->base = sx_local_window_start(set->base, zone);
	}
	set->step = is_finite(set, point) ? 1 - n : 0;
}

static Datum
hop_number(FunctionCallInfo fcinfo, int64 origin)
{
	FuncCallContext *funcctx;
	WindowSet  *set = begin_set(fcinfo, NUMBER, &funcctx);

	if (set != NULL)
		set_number_hop(set, PG_GETARG_INT64(0), PG_GETARG_INT64(1), PG_GETARG_INT64(2), origin);
	return next_start(fcinfo);
}

static void
set_number_hop(WindowSet *set, int64 point, int64 slide, int64 size, int64 origin)
{
	if (size <= 0 || slide <= 0 || size % slide != 0)
		not_a_multiple("slide", psprintf(INT64_FORMAT, size), psprintf(INT64_FORMAT, slide));
	set->base = sx_tumble_number(point, slide, origin);
	set->fixed = slide;
	set->step = 1 - size / slide;
}

/*
 * The stretch of time that is in the same windows as ts, by its start: that of the last window.  An error
 * where hop() with the same arguments is one.
 */
Datum
sx_hop_pane(PG_FUNCTION_ARGS)
{
	WindowSet	set = {0};
	Oid			fourth = PG_NARGS() > 3 ? get_fn_expr_argtype(fcinfo->flinfo, 3) : InvalidOid;
	Timestamp	origin = 0;

	switch (get_fn_expr_argtype(fcinfo->flinfo, 0))
	{
		case INT8OID:
			set.type = NUMBER;
			set_number_hop(&set, PG_GETARG_INT64(0), PG_GETARG_INT64(1), PG_GETARG_INT64(2),
						   OidIsValid(fourth) ? PG_GETARG_INT64(3) : 0);
			break;
		case DATEOID:
			set.type = DAY;
			break;
		case TIMESTAMPOID:
			set.type = LOCAL;
			break;
		case TIMESTAMPTZOID:
			set.type = INSTANT;
			break;
		default:
			elog(ERROR, "hop_pane() does not know the type of its argument");
	}
	if (set.type != NUMBER)
	{
		if (fourth == DATEOID)
			origin = sx_date_to_local(PG_GETARG_DATEADT(3));
		else if (OidIsValid(fourth) && fourth != TEXTOID)
			origin = PG_GETARG_TIMESTAMP(3);
		set_interval_hop(&set, argument_point(fcinfo, set.type), PG_GETARG_INTERVAL_P(1), PG_GETARG_INTERVAL_P(2),
						 OidIsValid(fourth) && fourth != TEXTOID ? &origin : NULL,
						 fourth == TEXTOID ? sx_window_zone(PG_GETARG_TEXT_PP(3)) : NULL);
	}
	(void) point_of(&set, set.step);
	return datum_of(&set, point_of(&set, 0));
}

/* starts of the windows, from the earliest on */
static Datum
next_start(FunctionCallInfo fcinfo)
{
	FuncCallContext *funcctx = SRF_PERCALL_SETUP();
	WindowSet  *set = funcctx->user_fctx;

	while (set->step <= set->last)
	{
		int64		start = point_of(set, set->step++);

		if (set->any && start == set->previous)
			continue;
		set->any = true;
		set->previous = start;
		SRF_RETURN_NEXT(funcctx, datum_of(set, start));
	}
	SRF_RETURN_DONE(funcctx);
}

/* *calendar: they are counted in local time */
static int64
steps_per_window(Interval *size, Interval *step, bool local, const char *what, bool *calendar)
{
	int64		fixed_size;
	int64		fixed_step;

	sx_check_window_length(size, "size");
	*calendar = size->month != 0 || step->month != 0 || (local && (size->day != 0 || step->day != 0));
	if (*calendar)
	{
		bool		months = step->month != 0;

		if (size->time != 0 || step->time != 0 ||
			(months ? size->day != 0 || step->day != 0 || size->month % step->month != 0 || size->month == 0 :
			 size->month != 0 || step->day == 0 || size->day % step->day != 0))
			not_a_multiple(what, show(size), show(step));
		return months ? size->month / step->month : size->day / step->day;
	}
	fixed_size = sx_fixed_window_size(size);
	fixed_step = sx_fixed_window_size(step);
	if (fixed_size % fixed_step != 0)
		not_a_multiple(what, show(size), show(step));
	return fixed_size / fixed_step;
}

static void
not_a_multiple(const char *what, const char *size, const char *step)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("window size must be a multiple of the %s", what),
			 errdetail("The size is %s, the %s %s.", size, what, step),
			 errhint("Choose a %s that divides the size.", what)));
}

/* by the arguments of a call of hop(), but the first */
static void
set_hop(WindowSet *set, FuncExpr *hop, Datum point)
{
	Const	   *slide = lsecond_node(Const, hop->args);
	Const	   *size = lthird_node(Const, hop->args);
	Const	   *fourth = list_length(hop->args) > 3 ? lfourth_node(Const, hop->args) : NULL;
	Timestamp	origin = 0;
	bool		zone;

	memset(set, 0, sizeof(WindowSet));
	if (hop->funcresulttype == INT8OID)
	{
		set->type = NUMBER;
		set_number_hop(set, DatumGetInt64(point), DatumGetInt64(slide->constvalue), DatumGetInt64(size->constvalue),
					   fourth ? DatumGetInt64(fourth->constvalue) : 0);
		return;
	}
	zone = fourth != NULL && fourth->consttype == TEXTOID;
	set->type = hop->funcresulttype == DATEOID ? DAY : hop->funcresulttype == TIMESTAMPOID ? LOCAL : INSTANT;
	if (fourth != NULL && !zone)
		origin = set->type == DAY ? sx_date_to_local(DatumGetDateADT(fourth->constvalue)) :
			DatumGetInt64(fourth->constvalue);
	set_interval_hop(set, set->type == DAY ? sx_date_to_local(DatumGetDateADT(point)) : DatumGetInt64(point),
					 DatumGetIntervalP(slide->constvalue), DatumGetIntervalP(size->constvalue),
					 fourth != NULL && !zone ? &origin : NULL,
					 zone ? sx_window_zone(DatumGetTextPP(fourth->constvalue)) : NULL);
}

int
sx_hop_points(FuncExpr *hop, Datum point, bool forward, Datum **points)
{
	WindowSet	set;
	int			n = 0;

	set_hop(&set, hop, point);
	if (forward)
	{
		set.last = -set.step;
		set.step = 0;
	}
	*points = palloc(sizeof(Datum) * (set.last - set.step + 1));
	while (set.step <= set.last && (!forward || has_step(&set, set.step)))
	{
		int64		start = point_of(&set, set.step++);

		if (set.any && start == set.previous)
			continue;
		set.any = true;
		set.previous = start;
		(*points)[n++] = datum_of(&set, start);
	}
	return n;
}

bool
sx_hop_window(FuncExpr *hop, Datum window, Datum *last_pane, Datum *next)
{
	WindowSet	set;
	int64		point;

	set_hop(&set, hop, window);
	*last_pane = *next = window;
	if (set.step == 0)
		return false;
	*last_pane = datum_of(&set, point_of(&set, -set.step));
	/* a point that the clock has left out is the same instant */
	for (int64 step = 1; (point = point_of(&set, step)) == point_of(&set, 0); step++)
		 /* go on */ ;
	*next = datum_of(&set, point);
	return true;
}

/* ---- cumulate ---- */

Datum
sx_cumulate_timestamptz(PG_FUNCTION_ARGS)
{
	return cumulate_interval(fcinfo, INSTANT, NULL);
}

Datum
sx_cumulate_timestamptz_zone(PG_FUNCTION_ARGS)
{
	return cumulate_interval(fcinfo, INSTANT, SRF_IS_FIRSTCALL() ? sx_window_zone(PG_GETARG_TEXT_PP(3)) : NULL);
}

Datum
sx_cumulate_timestamp(PG_FUNCTION_ARGS)
{
	return cumulate_interval(fcinfo, LOCAL, NULL);
}

Datum
sx_cumulate_date(PG_FUNCTION_ARGS)
{
	return cumulate_interval(fcinfo, DAY, NULL);
}

Datum
sx_cumulate_bigint(PG_FUNCTION_ARGS)
{
	FuncCallContext *funcctx;
	WindowSet  *set = begin_set(fcinfo, NUMBER, &funcctx);

	if (set != NULL)
	{
		int64		step = PG_GETARG_INT64(1);
		int64		size = PG_GETARG_INT64(2);

		set->point = PG_GETARG_INT64(0);
		set->start = set->base = sx_tumble_number(set->point, size, 0);
		if (step <= 0 || size % step != 0)
			not_a_multiple("step", psprintf(INT64_FORMAT, size), psprintf(INT64_FORMAT, step));
		set->fixed = step;
		set->end = sx_add_windows(set->start, size, 1, "bigint");
		set->step = (set->point - set->start) / step + 1;
		set->last = size / step;
	}
	return next_range(fcinfo);
}

/* where the calendar gives the size, its last step may be shorter than others */
static Datum
cumulate_interval(FunctionCallInfo fcinfo, PointType type, pg_tz *zone)
{
	FuncCallContext *funcctx;
	WindowSet  *set = begin_set(fcinfo, type, &funcctx);

	if (set != NULL)
	{
		Interval   *step = PG_GETARG_INTERVAL_P(1);
		Interval   *size = PG_GETARG_INTERVAL_P(2);
		bool		by_calendar;

		sx_check_window_length(step, "step");
		sx_check_window_length(size, "size");
		if (type == DAY)
		{
			sx_check_date_size(step);
			sx_check_date_size(size);
		}
		set->point = argument_point(fcinfo, type);
		set->start = type == INSTANT ? sx_tumble_instant(set->point, size, NULL, zone) :
			sx_tumble_local(set->point, size, NULL);
		by_calendar = size->month != 0 || (zone != NULL && size->day != 0);
		if (!by_calendar || step->month != 0)
			(void) steps_per_window(size, step, zone != NULL, "step", &set->calendar);
		set->calendar |= zone != NULL && step->day != 0;
		set->interval = *step;
		if (!set->calendar)
			set->fixed = sx_fixed_window_size(step);
		set->base = set->start;
		set->last = PG_INT64_MAX;
		if (!is_finite(set, set->point))
			set->end = set->start;
		else if (zone != NULL && by_calendar)
		{
			Timestamp	local = sx_local_window_start(set->start, zone);

			set->end = sx_window_to_instant(sx_grid_point(local, size, 1), zone);
			if (set->calendar)
			{
				set->zone = zone;
				set->base = local;
			}
		}
		else
			set->end = by_calendar ? sx_grid_point(set->start, size, 1) :
				sx_add_windows(set->start, sx_fixed_window_size(size), 1, "timestamp");
		set->step = set->calendar ? 1 : is_finite(set, set->point) ? (set->point - set->start) / set->fixed + 1 : 1;
	}
	return next_range(fcinfo);
}

static Datum
next_range(FunctionCallInfo fcinfo)
{
	static const Oid range_types[] = {TSTZRANGEOID, TSRANGEOID, DATERANGEOID, INT8RANGEOID};
	FuncCallContext *funcctx = SRF_PERCALL_SETUP();
	WindowSet  *set = funcctx->user_fctx;
	bool		finite = is_finite(set, set->point);

	while (set->step <= set->last)
	{
		int64		point = finite ? point_of(set, set->step++) : set->end;
		int64		end = Min(point, set->end);
		RangeBound	lower = {.val = datum_of(set, set->start), .inclusive = true, .lower = true};
		RangeBound	upper = {.val = datum_of(set, end), .inclusive = !finite};

		CHECK_FOR_INTERRUPTS();
		if (finite && (end <= set->point || (set->any && end == set->previous)))
			continue;
		set->any = true;
		set->previous = end;
		if (end == set->end)
			set->last = PG_INT64_MIN;
		SRF_RETURN_NEXT(funcctx,
						RangeTypePGetDatum(SxMakeRange(lookup_type_cache(range_types[set->type], TYPECACHE_RANGE_INFO),
													   &lower, &upper)));
	}
	SRF_RETURN_DONE(funcctx);
}

/* ---- points ---- */

/* on the first call for a row: a set to be filled in; else NULL */
static WindowSet *
begin_set(FunctionCallInfo fcinfo, PointType type, FuncCallContext **funcctx)
{
	WindowSet  *set;

	if (!SRF_IS_FIRSTCALL())
		return NULL;
	*funcctx = SRF_FIRSTCALL_INIT();
	set = MemoryContextAllocZero((*funcctx)->multi_call_memory_ctx, sizeof(WindowSet));
	set->type = type;
	(*funcctx)->user_fctx = set;
	return set;
}

static int64
argument_point(FunctionCallInfo fcinfo, PointType type)
{
	if (type == DAY)
		return sx_date_to_local(PG_GETARG_DATEADT(0));
	return type == INSTANT ? PG_GETARG_TIMESTAMPTZ(0) : PG_GETARG_TIMESTAMP(0);
}

static bool
is_finite(const WindowSet *set, int64 point)
{
	return set->type == NUMBER || !TIMESTAMP_NOT_FINITE(point);
}

static int64
point_of(const WindowSet *set, int64 step)
{
	Timestamp	point;

	if (step == 0 && set->zone == NULL)
		return set->base;
	if (!set->calendar)
		return sx_add_windows(set->base, set->fixed, step, set->type == NUMBER ? "bigint" : "timestamp");
	point = sx_grid_point(set->base, unconstify(Interval *, &set->interval), step);
	return set->zone ? sx_window_to_instant(point, set->zone) : point;
}

/* does the type reach so far?  Calendars may have a step less than there is. */
static bool
has_step(const WindowSet *set, int64 step)
{
	int64		length;
	int64		point;

	if (set->calendar)
	{
		double		days = set->interval.month * 31.0 + set->interval.day + 2;

		return set->base + (days * USECS_PER_DAY + set->interval.time) * step < (double) END_TIMESTAMP;
	}
	return !pg_mul_s64_overflow(set->fixed, step, &length) && !pg_add_s64_overflow(set->base, length, &point) &&
		(set->type == NUMBER || IS_VALID_TIMESTAMP(point));
}

static Datum
datum_of(const WindowSet *set, int64 point)
{
	if (set->type == DAY)
		return DateADTGetDatum(sx_local_to_date(point));
	return Int64GetDatum(point);
}

static char *
show(Interval *interval)
{
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));
}

void
sx_check_window(Node *key)
{
	FuncExpr   *call = (FuncExpr *) key;
	char	   *name;
	ListCell   *lc;

	if (!IsA(key, FuncExpr) || get_func_namespace(call->funcid) != sx_catalog_schema_oid())
		return;
	name = get_func_name(call->funcid);
	if (name == NULL || (strcmp(name, "tumble") != 0 && strcmp(name, "hop") != 0 && strcmp(name, "cumulate") != 0))
		return;
	for_each_from(lc, call->args, 1)
	{
		if (!IsA(lfirst(lc), Const) || lfirst_node(Const, lc)->constisnull)
			return;
	}
	if (call->funcretset)
		check_window_count(call, name);
	try_window(call);
}

static void
check_window_count(FuncExpr *call, const char *name)
{
	const char *what = strcmp(name, "hop") == 0 ? "slide" : "step";
	double		ratio;

	if (length_of(lsecond(call->args)) <= 0)
		return;
	ratio = length_of(lthird(call->args)) / length_of(lsecond(call->args));
	if (ratio > MAX_WINDOWS_PER_ROW)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a row would belong to too many windows of %s()", name),
				 errdetail("Size and %s make %.0f windows, each with a row of its own in the view; at most %d can be kept.",
						   what, ratio, MAX_WINDOWS_PER_ROW),
				 errhint("Choose a longer %s, or a view with tumble() that is summed up when it is read.", what)));
}

/* the errors that its sizes would raise for every row, raised for one at the first moment of 2000 */
static void
try_window(FuncExpr *call)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	FmgrInfo	flinfo;
	ReturnSetInfo set = {.type = T_ReturnSetInfo,.allowedModes = SFRM_ValuePerCall};
	int			n = 0;
	ListCell   *lc;

	set.econtext = CreateStandaloneExprContext();
	fmgr_info(call->funcid, &flinfo);
	InitFunctionCallInfoData(*fcinfo, &flinfo, list_length(call->args), call->inputcollid, NULL, (Node *) &set);
	foreach(lc, call->args)
	{
		fcinfo->args[n].value = n == 0 ? Int64GetDatum(0) : lfirst_node(Const, lc)->constvalue;
		fcinfo->args[n++].isnull = false;
	}
	(void) FunctionCallInvoke(fcinfo);
	FreeExprContext(set.econtext, true);
}

/* ---- for the planner ---- */

/* how many windows a row has, where size and step are constants */
Datum
sx_window_set_rows(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	SupportRequestRows *rows;
	List	   *args;
	double		ratio;

	if (!IsA(request, SupportRequestRows))
		PG_RETURN_POINTER(NULL);
	rows = (SupportRequestRows *) request;
	if (rows->node == NULL || !IsA(rows->node, FuncExpr))
		PG_RETURN_POINTER(NULL);
	args = castNode(FuncExpr, rows->node)->args;
	if (list_length(args) < 3 || length_of(lsecond(args)) <= 0 || length_of(lthird(args)) <= 0)
		PG_RETURN_POINTER(NULL);
	ratio = length_of(lthird(args)) / length_of(lsecond(args));
	/* of windows that grow, the average row is in half */
	rows->rows = Max(1, type_is_range(castNode(FuncExpr, rows->node)->funcresulttype) ? ratio / 2 : ratio);
	PG_RETURN_POINTER(rows);
}

/* 0: not known */
static double
length_of(Node *node)
{
	Const	   *value = (Const *) node;

	if (!IsA(node, Const) || value->constisnull)
		return 0;
	if (value->consttype == INT8OID)
		return DatumGetInt64(value->constvalue);
	if (value->consttype == INTERVALOID)
	{
		Interval   *span = DatumGetIntervalP(value->constvalue);

		return span->time + (span->day + span->month * (double) DAYS_PER_MONTH) * USECS_PER_DAY;
	}
	return 0;
}
