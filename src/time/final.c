/*
 * final.c
 *		SQL: streamext.is_final(view, window): has this window of a view closed?
 *
 * A row is final when its window has closed: no row of the stream will be counted in it any more, but for
 * late ones that the stream merges.  The answer goes by the stored watermark that the statement sees: what
 * is only in memory is read again after a crash, in other batches, and a row that was late the first time need
 * not be late then.  A view with emit = on_close is the same condition in the view.
 *
 * Whoever can name a view may ask; the answer tells of no row.
 */
#include "live/live_read_internal.h"

#include "catalog/definitions.h"
#include "fmgr.h"
#include "query/plan.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "capture/event_time.h"
#include "time/final.h"

bool		sx_all_is_final = false;

typedef struct FinalCall
{
	Oid			relid;			/* as given */
	Oid			matid;
	int64		lateness;
} FinalCall;

PG_FUNCTION_INFO_V1(sx_is_final);

static FinalCall *begin_calls(FunctionCallInfo fcinfo, Oid relid);
static void refuse(SxViewDef *def, const char *detail);

Datum
sx_is_final(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	FinalCall  *call = fcinfo->flinfo->fn_extra;
	SxReadView *view;
	SxWindows  *windows;
	int64		until;
	Datum		boundary;

	if (sx_all_is_final)
		PG_RETURN_BOOL(true);
	if (call == NULL || call->relid != relid)
		call = begin_calls(fcinfo, relid);
	view = sx_read_view(call->matid);
	if (view == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the continuous view is gone")));

	windows = sx_read_view_windows(view);
	until = sx_event_time_minus(sx_read_watermark(view, fcinfo->flinfo->fn_mcxt), call->lateness);
	if (sx_windows_set_time(windows, until))
	{
		SxRunAs		as;

		/* what the window's expression means depends on the view's settings */
		sx_run_as_begin(&as, view->def);
		(void) sx_windows_boundary(windows, &boundary);
		sx_run_as_end(&as);
	}
	PG_RETURN_BOOL(sx_window_is_closed(windows, PG_GETARG_DATUM(1), false));
}

static FinalCall *
begin_calls(FunctionCallInfo fcinfo, Oid relid)
{
	FinalCall  *call = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(FinalCall));
	SxViewDef  *def = sx_catalog_view_by_any(relid);
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 1);
	SxReadView *view;
	SxViewInfo *info;
	Oid			keytype;

	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a continuous view",
						get_rel_name(relid) ? get_rel_name(relid) : psprintf("%u", relid)),
				 errhint("The view streamext.views lists them.")));
	view = sx_read_view(def->matid);
	if (view == NULL)
		elog(ERROR, "continuous view %u is not known", def->viewid);
	info = sx_read_view_info(view);
	if (info->window_key < 0)
		refuse(def, info->time.attno == InvalidAttrNumber ?
			   "Its stream has no event time." : "It does not group by a window of its stream's event time.");
	keytype = TupleDescAttr(info->desc, info->window_key)->atttypid;
	if (type != keytype)
		refuse(def, psprintf("Its windows have type %s, not %s.", format_type_be(keytype), format_type_be(type)));
	call->relid = relid;
	call->matid = def->matid;
	call->lateness = info->time.lateness;
	fcinfo->flinfo->fn_extra = call;
	return call;
}

static void
refuse(SxViewDef *def, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("continuous view \"%s\" has no such windows", get_rel_name(def->viewid)),
			 errdetail_internal("%s", detail),
			 errhint("Give the stream an event time, group by tumble(), hop() or session() on it, and pass that column.")));
}
