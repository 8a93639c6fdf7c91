/*
 * window.h
 *		Points on the grids of windows: what window.c and window_sets.c share.
 *
 * Timestamps are instants, or local time where a function says so.  Errors are those of tumble().
 */
#ifndef SX_WINDOW_H
#define SX_WINDOW_H

#include "streamext.h"

#include "nodes/primnodes.h"
#include "pgtime.h"
#include "utils/date.h"
#include "utils/timestamp.h"

/* NULL as a zone: hours and days of fixed length; origin NULL: the default */
extern TimestampTz sx_tumble_instant(TimestampTz point, Interval *size, const TimestampTz *origin, pg_tz *zone);
extern Timestamp sx_tumble_local(Timestamp point, Interval *size, const Timestamp *origin);
extern int64 sx_tumble_number(int64 point, int64 size, int64 origin);

/* ERROR unless it is greater than zero; what: size, slide or step */
extern void sx_check_window_length(Interval *length, const char *what);
/* whole days, or months */
extern void sx_check_date_size(Interval *size);
/* origin + n * size, in local time, by the calendar */
extern Timestamp sx_grid_point(Timestamp origin, Interval *size, int64 n);
/* start + n * size, of type (for messages) */
extern int64 sx_add_windows(int64 start, int64 size, int64 n, const char *type);
/* microseconds; ERROR for months */
extern int64 sx_fixed_window_size(Interval *size);

extern pg_tz *sx_window_zone(text *name);
extern Timestamp sx_window_to_local(TimestampTz instant, pg_tz *zone);
/* the point of the grid that a window begins at; one at a midnight which the clock skips shows a later time */
extern Timestamp sx_local_window_start(TimestampTz start, pg_tz *zone);
extern TimestampTz sx_window_to_instant(Timestamp local, pg_tz *zone);
extern Timestamp sx_date_to_local(DateADT date);
extern DateADT sx_local_to_date(Timestamp local);

/* refuses a key, with constants in place, by which a row is in too many windows, or which fails for every row */
extern void sx_check_window(Node *key);

/*
 * For a call of hop() with constants: the windows that a pane is part of (the last of which begins with
 * it); or, forward, the panes of a window (the first of which begins with it).  By their starts, in order, in the
 * current context; the number of them.
 */
extern int	sx_hop_points(FuncExpr *hop, Datum point, bool forward, Datum **points);
/* a window's last pane and the window after it; false: it is infinite, and alone */
extern bool sx_hop_window(FuncExpr *hop, Datum window, Datum *last_pane, Datum *next);

#endif							/* SX_WINDOW_H */
