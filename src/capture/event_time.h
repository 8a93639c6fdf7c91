/*
 * event_time.h
 *		Event times of rows as one kind of number, whatever the type of their column.
 *
 * timestamptz and timestamp as they are, date as its midnight: microseconds since 2000-01-01; bigint as it
 * is.  What has no place in that order is before all (SX_TIME_NONE) or after all (SX_TIME_END).
 */
#ifndef SX_EVENT_TIME_H
#define SX_EVENT_TIME_H

#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#define SX_TIME_NONE	PG_INT64_MIN
#define SX_TIME_END		PG_INT64_MAX

static inline int64
sx_event_time(Datum value, Oid type)
{
	DateADT		date;

	/* infinite timestamps are the ends of int64 */
	if (type != DATEOID)
		return DatumGetInt64(value);
	date = DatumGetDateADT(value);
	/* dates go further than timestamps do */
	if (date <= MIN_TIMESTAMP / USECS_PER_DAY)
		return SX_TIME_NONE;
	return date >= END_TIMESTAMP / USECS_PER_DAY ? SX_TIME_END : date * USECS_PER_DAY;
}

/* the last value of the type that is not after this; false: there is none */
extern bool sx_event_time_value(int64 time, Oid type, Datum *value);
/* of the type, for which SX_TIME_NONE stands in a row */
extern Datum sx_event_time_lowest(Oid type);
/* the clock on the wall, in the session's time zone where the type has none; SX_TIME_END for bigint */
extern int64 sx_event_time_now(Oid type);
/* saturating */
extern int64 sx_event_time_minus(int64 time, int64 span);
/* for messages */
extern char *sx_event_time_text(int64 time, Oid type);

#endif							/* SX_EVENT_TIME_H */
