/*
 * alert_def.h
 *		An alert's condition, and what the alerter needs to know of the view's groups.
 *
 * The condition is kept as a view of ours, streamext.alert_<n>: SELECT all columns FROM the user's view WHERE
 * condition.  PostgreSQL follows renames and keeps its dependencies; it goes with what it depends on.
 */
#ifndef SX_ALERT_DEF_H
#define SX_ALERT_DEF_H

#include "catalog/alerts.h"

#include "access/tupdesc.h"
#include "executor/spi.h"

/* makes the internal view, as the current user, who owns the view; ERROR with the reason if it cannot */
extern Oid	sx_alert_create_condition(const SxViewDef *view, const char *condition);

/* ERROR if some key is not a column of the view, or there are no groups */
extern void sx_alert_check_keys(const SxViewDef *view);

/* How the rows of an alert's internal view become reports; in the current context */
typedef struct SxAlertRows
{
	SxViewDef  *view;
	int			nkeys;
	AttrNumber *column;			/* [nkeys] of the view; a view without GROUP BY has no key */
	TupleDesc	rowdesc;		/* the view's columns, by their names of today */
	TupleDesc	groupdesc;		/* its keys */
} SxAlertRows;

extern SxAlertRows *sx_alert_rows(const SxViewDef *view);
/*
 * A row of the internal view as a report; runs output functions, so as the view's owner, under its
 * settings.  key_only: leaves the JSON out.
 */
extern SxAlertRow *sx_alert_row(SxAlertRows *rows, Oid alertid, HeapTuple tuple, TupleDesc desc, bool key_only);

#endif							/* SX_ALERT_DEF_H */
