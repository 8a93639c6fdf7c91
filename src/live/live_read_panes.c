/*
 * live_read_panes.c
 *		SQL: streamext.pane_boundary(): which windows of a view a statement takes from rows of their own, and
 *		which it puts together from panes (query/panes.h).
 *
 * The rows of closed windows in the table are complete as far as the table is.  A live row of one of
 * their panes, which came late and is not flushed, is missing in them.  Then the statement puts all windows
 * from the first of that pane together from panes, which takes longer and is right: panes stay in the table.
 *
 * Windows past the view's retention never: the first panes of some may have been removed.
 */
#include "live/live_read_internal.h"

#include "capture/event_time.h"
#include "catalog/definitions.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "live/group_scan.h"
#include "query/plan.h"
#include "query/window.h"

PG_FUNCTION_INFO_V1(sx_pane_boundary);

static Datum find_boundary(SxReadView *view, Snapshot snapshot, List *requests);
static bool first_late_pane(SxViewInfo *info, SxWindows *windows, List *requests, Datum boundary, Datum *pane);
static Datum end_of_type(Oid type, bool last);

Datum
sx_pane_boundary(PG_FUNCTION_ARGS)
{
	SxReadView *view;
	SxViewInfo *info;
	SxPaneBoundary *kept;
	Snapshot	snapshot;
	List	   *requests;
	Datum		result;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	view = sx_read_view(PG_GETARG_OID(0));
	info = view != NULL ? sx_read_view_info(view) : NULL;
	if (info == NULL || info->closed_key < 0 ||
		TupleDescAttr(info->desc, info->window_key)->atttypid != get_fn_expr_argtype(fcinfo->flinfo, 1))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("streamext.pane_boundary() is called by continuous views with overlapping windows only")));

	/* an alert's rows are windows, all of them */
	if (sx_group_rows != NULL && sx_group_rows->matid == view->matid)
		PG_RETURN_DATUM(end_of_type(info->time.type, true));
	kept = sx_read_pane_boundary(view, fcinfo->flinfo->fn_mcxt, &snapshot, &requests);
	if (kept != NULL && kept->known)
		PG_RETURN_DATUM(kept->value);
	result = find_boundary(view, snapshot, requests);
	if (kept != NULL)
	{
		kept->value = result;
		kept->known = true;
	}
	PG_RETURN_DATUM(result);
}

static Datum
find_boundary(SxReadView *view, Snapshot snapshot, List *requests)
{
	SxViewInfo *info = sx_read_view_info(view);
	SxWindows  *windows = sx_read_view_windows(view);
	SxStoredPosition *stored = sx_catalog_position_at(view->def->viewid, snapshot);
	Datum		boundary = end_of_type(info->time.type, false);
	Datum		panes;
	Datum		late;
	SxRunAs		as;

	if (stored == NULL || !stored->ours || windows == NULL)
		return boundary;
	sx_run_as_begin(&as, view->def);
	(void) sx_windows_set_time(windows, stored->closed_until);
	if (sx_windows_boundary(windows, &boundary))
	{
		(void) sx_panes_boundary(windows, &panes);
		if (first_late_pane(info, windows, requests, panes, &late))
		{
			Datum	   *starts;
			int			n = sx_hop_points((FuncExpr *) info->window, late, false, &starts);
			Datum		removed;

			for (int i = 0; i < n; i++)
				if (sx_windows_compare(windows, starts[i], boundary) < 0)
					boundary = starts[i];
			(void) sx_windows_set_time(windows, stored->removed_until);
			if (sx_windows_boundary(windows, &removed) && sx_windows_compare(windows, boundary, removed) < 0)
				boundary = removed;
		}
	}
	else
		boundary = end_of_type(info->time.type, false);
	sx_run_as_end(&as);
	return boundary;
}

/* among live rows, of panes before the boundary; false: there is none */
static bool
first_late_pane(SxViewInfo *info, SxWindows *windows, List *requests, Datum boundary, Datum *pane)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, requests)
	{
		SxLiveRequest *r = lfirst(lc);

		for (int i = 0; i < r->nrows; i++)
		{
			bool		isnull;
			Datum		start;

			ExecStoreMinimalTuple(r->rows[i], slot, false);
			start = slot_getattr(slot, info->window_key + 1, &isnull);
			if (isnull || sx_windows_compare(windows, start, boundary) >= 0)
				continue;
			*pane = boundary = start;
			found = true;
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

/* before, or after, all windows */
static Datum
end_of_type(Oid type, bool last)
{
	if (type == DATEOID)
		return last ? DateADTGetDatum(DATEVAL_NOEND) : DateADTGetDatum(DATEVAL_NOBEGIN);
	return Int64GetDatum(last ? PG_INT64_MAX : PG_INT64_MIN);
}
