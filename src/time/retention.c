/*
 * retention.c
 *		Windows that a view does not keep any longer.
 */
#include "time/retention.h"

#include "capture/event_time.h"
#include "executor/spi.h"
#include "query/window_key.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

int64
sx_retention_until(const SxViewDef *def, const SxStreamTime *time, int64 watermark, int64 before)
{
	/* an open window is always kept */
	if (def->retention < 0)
		return before;
	return Max(before, sx_event_time_minus(watermark, Max(def->retention, time->lateness)));
}

uint64
sx_retention_remove(SxViewInfo *info, int64 until, int limit)
{
	SxWindows  *windows = sx_windows_create(info, CurrentMemoryContext);
	char	   *table = get_rel_name(info->def->matid);
	uint64		n = 0;
	Datum		boundary;

	if (windows == NULL || table == NULL)
		return 0;
	(void) sx_windows_set_time(windows, until);
	if (sx_windows_boundary(windows, &boundary))
	{
		Oid			type = TupleDescAttr(info->desc, info->window_key)->atttypid;
		char	   *sql;

		table = quote_qualified_identifier(SX_SCHEMA, table);
		sql = psprintf("DELETE FROM ONLY %s WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
					   "SELECT ctid FROM ONLY %s WHERE %s OPERATOR(pg_catalog.<) $1 LIMIT %d))",
					   table, table,
					   quote_identifier(NameStr(TupleDescAttr(info->desc, info->window_key)->attname)), limit);
		SPI_connect();
		if (SPI_execute_with_args(sql, 1, &type, &boundary, NULL, false, 0) != SPI_OK_DELETE)
			elog(ERROR, "could not remove old windows");
		n = SPI_processed;
		SPI_finish();
	}
	return n;
}
