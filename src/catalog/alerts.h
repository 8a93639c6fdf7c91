/*
 * alerts.h
 *		Alerts on continuous views: SQL catalog <-> structs.
 *
 * Tables (src/sql/63_alerts.sql): streamext.alert_def, alert_fired, alert_error.  Read and written as those
 * of definitions.h are; what the workers should know at once is announced in the same way.
 */
#ifndef SX_ALERTS_H
#define SX_ALERTS_H

#include "catalog/definitions.h"

typedef struct SxAlertDef
{
	char	   *name;
	Oid			alertid;		/* internal view: the groups that satisfy the condition */
	Oid			viewid;
	char	   *channel;
} SxAlertDef;

/* one group for which an alert fired, or which satisfied its condition when it was created */
typedef struct SxAlertRow
{
	Oid			alertid;
	bytea	   *key;			/* of the group: equal keys, equal bytes */
	char	   *group;			/* JSON: the key columns; NULL: it did not fire */
	char	   *row;			/* JSON: all columns of the view */
	TimestampTz at;
} SxAlertRow;

typedef struct SxAlertError
{
	Oid			alertid;
	int			failures;		/* in a row */
	char	   *message;
	TimestampTz at;
} SxAlertError;

/* all, or those of one view; NULL/NIL = not there */
extern List *sx_catalog_alerts(Oid viewid);
extern SxAlertDef *sx_catalog_alert(Oid alertid);
extern SxAlertDef *sx_catalog_alert_by_name(const char *name);
extern bool sx_catalog_has_alerts(void);
extern void sx_catalog_insert_alert(const SxAlertDef *def);
/* and all that is stored of it */
extern void sx_catalog_delete_alert(Oid alertid);

extern bool sx_catalog_alert_fired(Oid alertid, bytea *key);
/* its number; runs no user code */
extern int64 sx_catalog_insert_fired(const SxAlertRow *row);

extern SxAlertError *sx_catalog_alert_error(Oid alertid);
extern void sx_catalog_store_alert_error(const SxAlertError *error);
extern void sx_catalog_delete_alert_error(Oid alertid);

#endif							/* SX_ALERTS_H */
