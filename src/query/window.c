/*
 * window.c
 *		Windows of time as ordinary functions: tumble() and window_end(); hop() and cumulate() are in
 *		window_sets.c.
 *
 * A tumbling window is the stretch [start, start + size) of a grid through an origin
 * that holds a point.  tumble() returns its start, so GROUP BY tumble(ts, size) makes
 * windows in any query.
 *
 * Sizes of time and, without a time zone, of days (24 hours) are a fixed number of
 * microseconds.  Sizes of months, and with a time zone also of days, follow the
 * calendar: the grid is laid over local time and each of its points turned into an
 * instant.  Around a change of the clock a local time can stand for no instant or for
 * two, so the window is found by comparing instants: the last grid point at or before
 * the row.  With a time zone, sizes of hours and less stay fixed; an hour that the
 * clock repeats is two windows.
 *
 * The default origin is Monday, 3 January 2000, and 1 January 2000 for months.  All is
 * immutable: the time zone is an argument, never the session's.
 */
#include "query/window.h"

#include "common/int.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"

/* 2000-01-03, in days and microseconds since 2000-01-01 */
#define ORIGIN_DAYS		2
#define ORIGIN_TIME		(ORIGIN_DAYS * USECS_PER_DAY)

PG_FUNCTION_INFO_V1(sx_tumble_timestamptz);
PG_FUNCTION_INFO_V1(sx_tumble_timestamptz_origin);
PG_FUNCTION_INFO_V1(sx_tumble_timestamptz_zone);
PG_FUNCTION_INFO_V1(sx_tumble_timestamptz_origin_zone);
PG_FUNCTION_INFO_V1(sx_tumble_timestamp);
PG_FUNCTION_INFO_V1(sx_tumble_timestamp_origin);
PG_FUNCTION_INFO_V1(sx_tumble_date);
PG_FUNCTION_INFO_V1(sx_tumble_date_origin);
PG_FUNCTION_INFO_V1(sx_tumble_bigint);
PG_FUNCTION_INFO_V1(sx_tumble_bigint_origin);
PG_FUNCTION_INFO_V1(sx_window_end_timestamptz);
PG_FUNCTION_INFO_V1(sx_window_end_timestamptz_zone);
PG_FUNCTION_INFO_V1(sx_window_end_timestamp);
PG_FUNCTION_INFO_V1(sx_window_end_date);
PG_FUNCTION_INFO_V1(sx_window_end_bigint);

static int	size_in_days(Interval *size);
static int64 floor_to(int64 point, int64 size, int64 origin, const char *type);
static int64 end_of(int64 start, int64 size, const char *type);
static void out_of_range(const char *type);
static Timestamp tumble_local(Timestamp point, Interval *size, bool given, Timestamp origin);
static Timestamp tumble_months(Timestamp point, int months, Timestamp origin);
static TimestampTz tumble_zone(TimestampTz point, Interval *size, bool given, TimestampTz origin, pg_tz *zone);
static void check_origin(Timestamp origin, Interval *size);
static TimestampTz tumble_fixed(TimestampTz point, Interval *size, TimestampTz origin);

/* ---- timestamptz ---- */

Datum
sx_tumble_timestamptz(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(tumble_fixed(PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_INTERVAL_P(1), ORIGIN_TIME));
}

Datum
sx_tumble_timestamptz_origin(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(tumble_fixed(PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_INTERVAL_P(1),
									   PG_GETARG_TIMESTAMPTZ(2)));
}

Datum
sx_tumble_timestamptz_zone(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(tumble_zone(PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_INTERVAL_P(1), false, 0,
									  sx_window_zone(PG_GETARG_TEXT_PP(2))));
}

Datum
sx_tumble_timestamptz_origin_zone(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(tumble_zone(PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_INTERVAL_P(1), true,
									  PG_GETARG_TIMESTAMPTZ(2),
									  sx_window_zone(PG_GETARG_TEXT_PP(3))));
}

static TimestampTz
tumble_fixed(TimestampTz point, Interval *size, TimestampTz origin)
{
	int64		fixed = sx_fixed_window_size(size);

	check_origin(origin, size);
	if (TIMESTAMP_NOT_FINITE(point))
		return point;
	return floor_to(point, fixed, origin, "timestamp");
}

static TimestampTz
tumble_zone(TimestampTz point, Interval *size, bool given, TimestampTz origin, pg_tz *zone)
{
	Timestamp	local_origin;
	Timestamp	local;
	TimestampTz start;

	sx_check_window_length(size, "size");
	if (given && TIMESTAMP_NOT_FINITE(origin))
		check_origin(origin, size);
	if (TIMESTAMP_NOT_FINITE(point))
		return point;
	if (size->month == 0 && size->day == 0)
		return floor_to(point, size->time, given ? origin : sx_window_to_instant(ORIGIN_TIME, zone), "timestamp");
	if (size->time != 0 || (size->month != 0 && size->day != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a window size in a time zone must be in months, in days or in hours and less"),
				 errdetail("The size is %s.",
						   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(size))))));

	local_origin = given ? sx_window_to_local(origin, zone) : size->month != 0 ? 0 : ORIGIN_TIME;
	check_origin(local_origin, size);
	local = tumble_local(sx_window_to_local(point, zone), size, true, local_origin);

	/* where the clock was set back, or the grid point is skipped, compare instants */
	start = sx_window_to_instant(local, zone);
	if (start > point)
	{
		/* the window before: any point of it will do */
		local = tumble_local(local - 1, size, true, local_origin);
		start = sx_window_to_instant(local, zone);
	}
	else
	{
		Timestamp	next = sx_grid_point(local, size, 1);

		if (sx_window_to_instant(next, zone) <= point)
			start = sx_window_to_instant(next, zone);
	}
	return start;
}

TimestampTz
sx_tumble_instant(TimestampTz point, Interval *size, const TimestampTz *origin, pg_tz *zone)
{
	return zone == NULL ? tumble_fixed(point, size, origin ? *origin : ORIGIN_TIME) :
		tumble_zone(point, size, origin != NULL, origin ? *origin : 0, zone);
}

Timestamp
sx_tumble_local(Timestamp point, Interval *size, const Timestamp *origin)
{
	return tumble_local(point, size, origin != NULL, origin ? *origin : 0);
}

int64
sx_tumble_number(int64 point, int64 size, int64 origin)
{
	if (size <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("window size must be greater than zero"),
				 errdetail("The size is " INT64_FORMAT ".", size)));
	return floor_to(point, size, origin, "bigint");
}

/* ---- timestamp, date, bigint ---- */

Datum
sx_tumble_timestamp(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMP(tumble_local(PG_GETARG_TIMESTAMP(0), PG_GETARG_INTERVAL_P(1), false, 0));
}

Datum
sx_tumble_timestamp_origin(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMP(tumble_local(PG_GETARG_TIMESTAMP(0), PG_GETARG_INTERVAL_P(1), true,
									 PG_GETARG_TIMESTAMP(2)));
}

Datum
sx_tumble_date(PG_FUNCTION_ARGS)
{
	Interval   *size = PG_GETARG_INTERVAL_P(1);

	(void) size_in_days(size);
	PG_RETURN_DATEADT(sx_local_to_date(tumble_local(sx_date_to_local(PG_GETARG_DATEADT(0)), size, false, 0)));
}

Datum
sx_tumble_date_origin(PG_FUNCTION_ARGS)
{
	Interval   *size = PG_GETARG_INTERVAL_P(1);

	(void) size_in_days(size);
	PG_RETURN_DATEADT(sx_local_to_date(tumble_local(sx_date_to_local(PG_GETARG_DATEADT(0)), size, true,
												 sx_date_to_local(PG_GETARG_DATEADT(2)))));
}

Datum
sx_tumble_bigint(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(sx_tumble_number(PG_GETARG_INT64(0), PG_GETARG_INT64(1), 0));
}

Datum
sx_tumble_bigint_origin(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(sx_tumble_number(PG_GETARG_INT64(0), PG_GETARG_INT64(1), PG_GETARG_INT64(2)));
}

static Timestamp
tumble_local(Timestamp point, Interval *size, bool given, Timestamp origin)
{
	sx_check_window_length(size, "size");
	if (!given)
		origin = size->month != 0 ? 0 : ORIGIN_TIME;
	check_origin(origin, size);
	if (TIMESTAMP_NOT_FINITE(point))
		return point;
	if (size->month == 0)
		return floor_to(point, sx_fixed_window_size(size), origin, "timestamp");
	if (size->day != 0 || size->time != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a window size of months cannot have days or time as well"),
				 errdetail("The size is %s.",
						   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(size)))),
				 errhint("Use whole months, or whole days.")));
	return tumble_months(point, size->month, origin);
}

static Timestamp
tumble_months(Timestamp point, int months, Timestamp origin)
{
	struct pg_tm p;
	struct pg_tm o;
	fsec_t		fsec;
	Interval	size = {0};
	int64		n;
	Timestamp	start;

	if (timestamp2tm(point, NULL, &p, &fsec, NULL, NULL) != 0 ||
		timestamp2tm(origin, NULL, &o, &fsec, NULL, NULL) != 0)
		out_of_range("timestamp");
	size.month = months;
	n = floor_to(((int64) p.tm_year - o.tm_year) * MONTHS_PER_YEAR + p.tm_mon - o.tm_mon,
				 months, 0, "timestamp") / months;
	start = sx_grid_point(origin, &size, n);
	if (start > point)			/* same month, but before the origin's day and time */
		start = sx_grid_point(origin, &size, n - 1);
	return start;
}

/* ---- ends ---- */

Datum
sx_window_end_timestamptz(PG_FUNCTION_ARGS)
{
	TimestampTz start = PG_GETARG_TIMESTAMPTZ(0);
	int64		size = sx_fixed_window_size(PG_GETARG_INTERVAL_P(1));

	PG_RETURN_TIMESTAMPTZ(TIMESTAMP_NOT_FINITE(start) ? start : end_of(start, size, "timestamp"));
}

Datum
sx_window_end_timestamptz_zone(PG_FUNCTION_ARGS)
{
	TimestampTz start = PG_GETARG_TIMESTAMPTZ(0);
	Interval   *size = PG_GETARG_INTERVAL_P(1);
	pg_tz	   *zone = sx_window_zone(PG_GETARG_TEXT_PP(2));

	sx_check_window_length(size, "size");
	if (TIMESTAMP_NOT_FINITE(start))
		PG_RETURN_TIMESTAMPTZ(start);
	if (size->month == 0 && size->day == 0)
		PG_RETURN_TIMESTAMPTZ(end_of(start, size->time, "timestamp"));

	PG_RETURN_TIMESTAMPTZ(sx_window_to_instant(sx_grid_point(sx_local_window_start(start, zone), size, 1), zone));
}

Datum
sx_window_end_timestamp(PG_FUNCTION_ARGS)
{
	Timestamp	start = PG_GETARG_TIMESTAMP(0);
	Interval   *size = PG_GETARG_INTERVAL_P(1);

	sx_check_window_length(size, "size");
	PG_RETURN_TIMESTAMP(TIMESTAMP_NOT_FINITE(start) ? start : sx_grid_point(start, size, 1));
}

Datum
sx_window_end_date(PG_FUNCTION_ARGS)
{
	Timestamp	start = sx_date_to_local(PG_GETARG_DATEADT(0));
	Interval   *size = PG_GETARG_INTERVAL_P(1);

	(void) size_in_days(size);
	PG_RETURN_DATEADT(sx_local_to_date(TIMESTAMP_NOT_FINITE(start) ? start : sx_grid_point(start, size, 1)));
}

Datum
sx_window_end_bigint(PG_FUNCTION_ARGS)
{
	int64		size = PG_GETARG_INT64(1);

	if (size <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("window size must be greater than zero"),
				 errdetail("The size is " INT64_FORMAT ".", size)));
	PG_RETURN_INT64(end_of(PG_GETARG_INT64(0), size, "bigint"));
}

/* ---- sizes and origins ---- */

void
sx_check_window_length(Interval *length, const char *what)
{
	if (length->month < 0 || length->day < 0 || length->time < 0 ||
		(length->month == 0 && length->day == 0 && length->time == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("window %s must be greater than zero", what),
				 errdetail("The %s is %s.", what,
						   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(length))))));
}

void
sx_check_date_size(Interval *size)
{
	(void) size_in_days(size);
}

/* in microseconds; a day has 24 hours */
int64
sx_fixed_window_size(Interval *size)
{
	int64		result;

	sx_check_window_length(size, "size");
	if (size->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a window size of months needs a time zone"),
				 errdetail("When a month begins depends on the time zone."),
				 errhint("Name it, for example timezone => 'UTC'.")));
	if (pg_mul_s64_overflow(size->day, USECS_PER_DAY, &result) ||
		pg_add_s64_overflow(result, size->time, &result))
		out_of_range("interval");
	return result;
}

/* of a window of dates; 0: it is in months */
static int
size_in_days(Interval *size)
{
	sx_check_window_length(size, "size");
	if (size->time % USECS_PER_DAY != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a window of dates must be whole days or months long"),
				 errdetail("The size is %s.",
						   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(size)))),
				 errhint("Use days or months, or cast the date to timestamp.")));
	return size->month != 0 ? 0 : size->day + (int) (size->time / USECS_PER_DAY);
}

static void
check_origin(Timestamp origin, Interval *size)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (TIMESTAMP_NOT_FINITE(origin))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("window origin must be finite")));
	if (size->month == 0)
		return;
	if (timestamp2tm(origin, NULL, &tm, &fsec, NULL, NULL) != 0)
		out_of_range("timestamp");
	if (tm.tm_mday > 28)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the origin of windows of months must be on day 1 to 28"),
				 errdetail("It is on day %d, which some months do not have.", tm.tm_mday)));
}

/* the largest origin + n * size that is not greater than point */
static int64
floor_to(int64 point, int64 size, int64 origin, const char *type)
{
	/* rows mostly come in the order of their time: into the window of the one before */
	static int64 last_size = 0;
	static int64 last_origin;
	static int64 last_result;
	static const char *last_type;
	int64		distance;
	int64		rest;
	int64		result;
	int64		given = origin;

	if (size == last_size && origin == last_origin && type == last_type &&
		(uint64) point - (uint64) last_result < (uint64) size)
		return last_result;

	/* only the origin's place in the grid matters, so the distance cannot be far */
	origin %= size;
	if (pg_sub_s64_overflow(point, origin, &distance))
		out_of_range(type);
	rest = distance % size;
	if (rest < 0)
		rest += size;
	if (pg_sub_s64_overflow(point, rest, &result))
		out_of_range(type);
	if (strcmp(type, "bigint") != 0 && !IS_VALID_TIMESTAMP(result))
		out_of_range(type);
	last_size = size;
	last_origin = given;
	last_type = type;
	last_result = result;
	return result;
}

int64
sx_add_windows(int64 start, int64 size, int64 n, const char *type)
{
	int64		distance;

	if (pg_mul_s64_overflow(size, n, &distance))
		out_of_range(type);
	return end_of(start, distance, type);
}

static int64
end_of(int64 start, int64 size, const char *type)
{
	int64		result;

	if (pg_add_s64_overflow(start, size, &result) ||
		(strcmp(type, "bigint") != 0 && !IS_VALID_TIMESTAMP(result)))
		out_of_range(type);
	return result;
}

static void
out_of_range(const char *type)
{
	ereport(ERROR,
			(errcode(strcmp(type, "bigint") == 0 ? ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE :
					 ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("window is out of range for type %s", type)));
}

/* origin + n * size, by the calendar */
Timestamp
sx_grid_point(Timestamp origin, Interval *size, int64 n)
{
	Interval	shift;
	int64		months = size->month * n;
	int64		days = size->day * n;
	int64		time;

	if (months != (int32) months || days != (int32) days || pg_mul_s64_overflow(size->time, n, &time))
		out_of_range("timestamp");
	shift.month = months;
	shift.day = days;
	shift.time = time;
	return DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval, TimestampGetDatum(origin),
												 IntervalPGetDatum(&shift)));
}

/* ---- local time ---- */

pg_tz *
sx_window_zone(text *name)
{
	char		zone[TZ_STRLEN_MAX + 1];
	pg_tz	   *result;

	text_to_cstring_buffer(name, zone, sizeof(zone));
	result = pg_tzset(zone);
	if (result == NULL || !pg_tz_acceptable(result))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", zone),
				 errhint("Use a name from pg_timezone_names; write an origin as origin => timestamptz '...'.")));
	return result;
}

Timestamp
sx_window_to_local(TimestampTz instant, pg_tz *zone)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;
	Timestamp	local;

	if (timestamp2tm(instant, &offset, &tm, &fsec, NULL, zone) != 0 ||
		tm2timestamp(&tm, fsec, NULL, &local) != 0)
		out_of_range("timestamp");
	return local;
}

Timestamp
sx_local_window_start(TimestampTz start, pg_tz *zone)
{
	Timestamp	local = sx_window_to_local(start, zone);
	Timestamp	midnight = floor_to(local, USECS_PER_DAY, 0, "timestamp");

	return sx_window_to_instant(midnight, zone) == start ? midnight : local;
}

TimestampTz
sx_window_to_instant(Timestamp local, pg_tz *zone)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;
	TimestampTz instant;

	if (timestamp2tm(local, NULL, &tm, &fsec, NULL, zone) != 0)
		out_of_range("timestamp");
	offset = DetermineTimeZoneOffset(&tm, zone);
	if (tm2timestamp(&tm, fsec, &offset, &instant) != 0)
		out_of_range("timestamp");
	return instant;
}

Timestamp
sx_date_to_local(DateADT date)
{
	if (DATE_IS_NOBEGIN(date))
		return DT_NOBEGIN;
	if (DATE_IS_NOEND(date))
		return DT_NOEND;
	return DatumGetTimestamp(DirectFunctionCall1(date_timestamp, DateADTGetDatum(date)));
}

DateADT
sx_local_to_date(Timestamp local)
{
	return DatumGetDateADT(DirectFunctionCall1(timestamp_date, TimestampGetDatum(local)));
}
