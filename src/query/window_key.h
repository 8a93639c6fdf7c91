/*
 * window_key.h
 *		The group key that is a window of event time, and which of its values are closed.
 */
#ifndef SX_WINDOW_KEY_H
#define SX_WINDOW_KEY_H

#include "query/analyze.h"

#include "nodes/primnodes.h"

/*
 * The first key of a query that grows with the stream's event time and depends on nothing else: its number,
 * or -1.  *window: its expression (in the current context) with the event time as external parameter 1.
 * Of sessions, which stand last, it is the expression of the time at which a row's session begins.
 */
extern int	sx_find_window_key(SxAnalysis *a, const SxStreamTime *time, Expr **window);

/*
 * Tells closed windows.  Whoever asks runs as the view's owner, under its settings, as the window's
 * expression may depend on them.
 */
typedef struct SxWindows SxWindows;

struct SxViewInfo;
/* NULL: the view has no window; lives below parent, not longer than info */
extern SxWindows *sx_windows_create(struct SxViewInfo *info, MemoryContext parent);
/* from here on windows that end at or before this time are closed; SX_TIME_NONE: none are; true if that is new */
extern bool sx_windows_set_time(SxWindows *w, int64 closed_until);
/* sets the time to `to`; true if windows have closed that were not at `from` */
extern bool sx_windows_advance(SxWindows *w, int64 from, int64 to);
/* is this key a closed window?  Of a session: any range of the key's type may be asked for */
extern bool sx_window_is_closed(SxWindows *w, Datum key, bool isnull);
/* are all windows closed that a row of this time falls into? *any: is at least one?  Of sessions: the row's own */
extern bool sx_time_is_closed(SxWindows *w, int64 event_time, bool *any);
/*
 * The lowest key that is not closed, valid until the time is set again; false: none is closed.  Of sessions:
 * the bound at or before which closed ones end.
 */
extern bool sx_windows_boundary(SxWindows *w, Datum *boundary);
/* the same of sessions, as spans are */
extern bool sx_windows_session_boundary(SxWindows *w, int64 *point);
/* where the session of a row of this time alone would begin; false: it has none */
extern bool sx_windows_session_begin(SxWindows *w, int64 event_time, int64 *point);
/*
 * May a row of this time, or with this key, belong to a window that was removed?  That is, if the time is when
 * windows were removed, the closed ones; sessions leave nothing behind, so rows before that time are out.
 */
extern bool sx_time_is_removed(SxWindows *w, int64 event_time, bool *any);
extern bool sx_window_is_removed(SxWindows *w, Datum key, bool isnull);

/*
 * The lowest event time of which the least (else the greatest) window is not before this key, or with `after` behind
 * it; SX_TIME_NONE: all are so, or may be; false: there is none.
 */
extern bool sx_windows_reach(SxWindows *w, Datum key, bool least, bool after, int64 *event_time);
/* the greatest window of an event time, or of the next that has one, in the expression context's memory; false: none */
extern bool sx_windows_last(SxWindows *w, int64 event_time, Datum *window);
/* and the least one, too */
extern bool sx_windows_of(SxWindows *w, int64 event_time, Datum *least, Datum *greatest);
/* how many windows hold a time from .. to, at most so many; 0 for sessions; in the current context */
extern int64 sx_windows_between(SxWindows *w, int64 from, int64 to, int64 limit);

/*
 * Of windows that are kept as panes (panes.h), the type of which is passed by value: the lowest pane all of
 * whose windows are open; and the order of windows and panes.
 */
extern bool sx_panes_boundary(SxWindows *w, Datum *boundary);
extern int	sx_windows_compare(SxWindows *w, Datum a, Datum b);

#endif							/* SX_WINDOW_KEY_H */
