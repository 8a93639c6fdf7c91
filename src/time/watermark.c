/*
 * watermark.c
 *		How far a stream's event time has come at a view's position.
 *
 * Event times are found while the rows are read (capture/delta_scan.c), before any condition of the view:
 * all views on a stream see the same rows, so their watermarks agree where their positions do.  A
 * watermark is stored with its position and never moves back, whatever the stream's settings become.
 *
 * Infinite event times, and those further ahead of the clock than max_future, would close all windows at
 * once: they count as rows, but do not move it.
 */
#include "time/watermark.h"

#include "common/int.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "query/view_info.h"
#include "query/window_key.h"

/* nobody counts on */
#define OPEN_WINDOWS_MAX	1000

int64
sx_time_limit(const SxStreamTime *time)
{
	int64		now = sx_event_time_now(time->type);
	int64		limit;

	if (time->max_future < 0 || now == SX_TIME_END || pg_add_s64_overflow(now, time->max_future, &limit))
		limit = SX_TIME_END - 1;
	/* the last that is not infinite */
	return time->type == INT8OID ? limit : Min(limit, END_TIMESTAMP - 1);
}

void
sx_ask_times(SxBatch *batch, const SxStreamTime *time)
{
	if (time->attno == InvalidAttrNumber)
		return;
	batch->time_attno = time->attno;
	batch->time_type = time->type;
	batch->times = palloc0(sizeof(SxBatchTimes));
	batch->times->limit = sx_time_limit(time);
	batch->times->first = SX_TIME_END;
	batch->times->last = SX_TIME_NONE;
}

int64
sx_watermark_after(const SxStreamTime *time, int64 watermark, int64 last)
{
	return Max(watermark, sx_event_time_minus(last, time->delay));
}

int64
sx_open_windows(SxViewInfo *info, int64 watermark)
{
	SxWindows  *windows;

	if (info->window_key < 0 || info->session_key >= 0)
		return -1;
	windows = sx_windows_create(info, CurrentMemoryContext);
	return sx_windows_between(windows, sx_event_time_minus(watermark, info->time.lateness),
							  sx_event_time_minus(watermark, -info->time.delay), OPEN_WINDOWS_MAX);
}

/* An index on the column makes it a look at its end */
int64
sx_latest_in_history(Oid streamid, const SxStreamTime *time)
{
	char	   *table;
	const char *column;
	Oid			argtypes[1] = {time->type};
	Datum		value;
	bool		isnull;
	int64		result = SX_TIME_NONE;

	if (!sx_event_time_value(sx_time_limit(time), time->type, &value) ||
		(pg_class_aclcheck(streamid, GetUserId(), ACL_SELECT) != ACLCHECK_OK &&
		 pg_attribute_aclcheck(streamid, time->attno, GetUserId(), ACL_SELECT) != ACLCHECK_OK))
		return SX_TIME_NONE;
	table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(streamid)), get_rel_name(streamid));
	column = quote_identifier(get_attname(streamid, time->attno, false));
	SPI_connect();
	if (SPI_execute_with_args(psprintf("SELECT pg_catalog.max(%s) FROM %s WHERE %s OPERATOR(pg_catalog.<=) $1",
									   column, table, column),
							  1, argtypes, &value, NULL, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not look for the latest event time");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		result = sx_event_time(value, time->type);
	SPI_finish();
	return result;
}
