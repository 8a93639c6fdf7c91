/*
 * lateness.c
 *		Rows that come when the windows they belong to are closed.
 *
 * A window closes when the watermark has reached its end and allowed_lateness is over.  Rows are judged by
 * the watermark at the position before their batch: so a view that has stood still for an hour is not late
 * when it goes on, and what a batch contains does not depend on the order in it.  Only rows before the
 * watermark can be late, which one comparison of integers tells of nearly all rows that they are not.
 *
 * A window that is past the view's retention takes no rows at all, whatever the stream does with late ones.
 *
 * With hop() and cumulate() a row falls into several windows.  It is late if one of them is closed; under
 * `drop` and `dead_letter` it still counts for those that are open, and becomes a dead letter only if none is.
 *
 * Which session a row belongs to depends on others.  Where late rows are left out, the plan does not get those
 * that may be late; they are asked for when it has run (late_sessions.c).  Where they are merged they are only counted,
 * and nobody looks for sessions: a row counts as late if its own, as it would be alone, was closed.
 */
#include "time/lateness.h"

#include "utils/memutils.h"

static SxLate how_late(void *arg, int64 event_time);

SxLateness *
sx_lateness_create(SxViewInfo *info)
{
	SxLateness *l;

	if (info->window_key < 0)
		return NULL;
	l = MemoryContextAllocZero(info->context, sizeof(SxLateness));
	l->windows = sx_windows_create(info, info->context);
	l->removed = sx_windows_create(info, info->context);
	if (sx_sessions_close(info))
		l->sessions = sx_late_sessions_create(info);
	l->rows.how_late = how_late;
	l->rows.arg = l;
	return l;
}

void
sx_lateness_begin(SxLateness *l, const SxStreamTime *time, int64 watermark, int64 removed_until, MemoryContext mcxt)
{
	l->time = *time;
	l->watermark = watermark;
	l->any = false;
	l->rows.before = sx_lateness_before(time, watermark, removed_until);
	l->rows.leave_out = time->late != SX_LATE_MERGE;
	l->rows.keep = time->late == SX_LATE_DEAD_LETTER;
	l->rows.n = 0;
	l->rows.nleft_out = 0;
	l->rows.nruns = 0;
	l->rows.maxruns = 0;
	l->rows.runs = NULL;
	l->rows.nasked = 0;
	l->rows.maxasked = 0;
	l->rows.asked = NULL;
	l->rows.context = mcxt;
	(void) sx_windows_set_time(l->windows, sx_event_time_minus(watermark, time->lateness));
	(void) sx_windows_set_time(l->removed, removed_until);
	if (l->sessions)
		sx_late_sessions_begin(l->sessions, mcxt);
}

int64
sx_lateness_before(const SxStreamTime *time, int64 watermark, int64 removed_until)
{
	return Max(sx_event_time_minus(watermark, time->lateness), removed_until);
}

/* inside the plan */
static SxLate
how_late(void *arg, int64 event_time)
{
	SxLateness *l = arg;
	bool		any;

	if (sx_time_is_removed(l->removed, event_time, &any))
		return SX_TOO_LATE;
	if (l->sessions != NULL && l->rows.leave_out)
		return SX_ASK;
	l->any |= any;
	if (sx_time_is_closed(l->windows, event_time, &any))
		return SX_LATE;
	l->any |= any;
	return any ? SX_PARTLY_LATE : SX_NOT_LATE;
}

bool
sx_lateness_leaves_out(SxLateness *l, SxViewInfo *info, TupleTableSlot *row)
{
	bool		isnull;
	Datum		key;

	if (!l->any || l->sessions != NULL)
		return false;
	key = slot_getattr(row, info->window_key + 1, &isnull);
	return sx_window_is_closed(l->rows.leave_out ? l->windows : l->removed, key, isnull);
}

bool
sx_lateness_of_session(SxLateness *l, TupleTableSlot *row)
{
	if (sx_late_sessions_is_late(l->sessions, l->windows, row))
		return true;
	sx_late_sessions_accept(l->sessions, row);
	return false;
}

char *
sx_lateness_message(const SxLateness *l)
{
	return psprintf("the row is late: its %s was closed when the watermark stood at %s",
					l->sessions ? "session" : "window",
					sx_event_time_text(l->watermark, l->time.type));
}

void
sx_lateness_count(const SxLateness *l, SxRowCounts *counts)
{
	counts->late += l->rows.n;
	if (!l->rows.keep)
		counts->dropped += l->rows.nleft_out;
}
