/*
 * event_time.c
 *		From event times as numbers back to values.
 */
#include "capture/event_time.h"

#include "common/int.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

bool
sx_event_time_value(int64 time, Oid type, Datum *value)
{
	if (time == SX_TIME_NONE || time == SX_TIME_END)
		return false;
	if (type == INT8OID)
	{
		*value = Int64GetDatum(time);
		return true;
	}
	if (!IS_VALID_TIMESTAMP(time))
		return false;
	if (type == DATEOID)
	{
		int64		days = time / USECS_PER_DAY;

		if (days * USECS_PER_DAY > time)
			days--;
		*value = DateADTGetDatum((DateADT) days);
	}
	else
		*value = Int64GetDatum(time);
	return true;
}

Datum
sx_event_time_lowest(Oid type)
{
	return type == DATEOID ? DateADTGetDatum(DATEVAL_NOBEGIN) : Int64GetDatum(PG_INT64_MIN);
}

int64
sx_event_time_now(Oid type)
{
	TimestampTz now = GetCurrentTimestamp();

	if (type == INT8OID)
		return SX_TIME_END;
	if (type == TIMESTAMPTZOID)
		return now;
	return DatumGetTimestamp(DirectFunctionCall1(timestamptz_timestamp, TimestampTzGetDatum(now)));
}

int64
sx_event_time_minus(int64 time, int64 span)
{
	int64		result;

	if (time == SX_TIME_NONE || time == SX_TIME_END)
		return time;
	if (pg_sub_s64_overflow(time, span, &result))
		return span > 0 ? SX_TIME_NONE : SX_TIME_END;
	return result;
}

char *
sx_event_time_text(int64 time, Oid type)
{
	Datum		value;
	Oid			output;
	bool		varlena;

	if (!sx_event_time_value(time, type, &value))
		return pstrdup(time == SX_TIME_END ? "infinity" : "-infinity");
	getTypeOutputInfo(type, &output, &varlena);
	return OidOutputFunctionCall(output, value);
}
