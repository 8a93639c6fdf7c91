/*
 * retention.c
 *		Windows that a view does not keep any longer.
 */
#include "time/retention.h"

#include "capture/event_time.h"
#include "common/int.h"
#include "executor/spi.h"
#include "query/plan.h"
#include "query/window_key.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static int64 kept_by_gap(const SxViewInfo *info);

static uint64 remove_rows(SxViewInfo *info, int64 until);

int64
sx_retention_until(const SxViewDef *def, const SxViewInfo *info, const SxStreamTime *time,
				   int64 watermark, int64 before)
{
	int64		keep;

	if (def->retention < 0)
		return before;
	/* an open window is always kept */
	if (!sx_sessions_close(info) || pg_add_s64_overflow(time->lateness, kept_by_gap(info), &keep))
		keep = time->lateness;
	return Max(before, sx_event_time_minus(watermark, Max(def->retention, keep)));
}

/* a row whose own session is open is never before what is kept */
static int64
kept_by_gap(const SxViewInfo *info)
{
	int64		gap = info->session_gap;

	if (info->session_type->type_id == DATERANGEOID && pg_mul_s64_overflow(gap + 1, USECS_PER_DAY, &gap))
		gap = PG_INT64_MAX;
	return gap;
}

bool
sx_retention_remove(SxViewInfo *info, int64 until)
{
	SxRunAs		as;
	bool		all;

	if (!ConditionalLockRelationOid(info->def->matid, RowExclusiveLock))
		return true;
	sx_run_as_begin(&as, info->def);
	all = remove_rows(info, until) < SX_RETENTION_ROWS;
	sx_run_as_end(&as);
	return all;
}

static uint64
remove_rows(SxViewInfo *info, int64 until)
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
		bool		session = sx_sessions_close(info);
		Oid			type = session ? info->session_type->rngelemtype->type_id :
			TupleDescAttr(info->desc, info->window_key)->atttypid;
		char	   *sql;

		table = quote_qualified_identifier(SX_SCHEMA, table);
		sql = psprintf("DELETE FROM ONLY %s WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
					   "SELECT ctid FROM ONLY %s WHERE %s(%s) OPERATOR(pg_catalog.%s) $1 LIMIT %d))",
					   table, table, session ? "pg_catalog.upper" : "",
					   quote_identifier(NameStr(TupleDescAttr(info->desc, info->window_key)->attname)),
					   session ? "<=" : "<", SX_RETENTION_ROWS);
		SPI_connect();
		if (SPI_execute_with_args(sql, 1, &type, &boundary, NULL, false, 0) != SPI_OK_DELETE)
			elog(ERROR, "could not remove old windows");
		n = SPI_processed;
		SPI_finish();
	}
	return n;
}
