/*
 * alerter_internal.h
 *		The parts of the alerter: what is to be looked at when (alerter.c), looking and
 *		reporting (alerter_eval.c).
 */
#ifndef SX_ALERTER_INTERNAL_H
#define SX_ALERTER_INTERNAL_H

#include "live/live_changes.h"
#include "query/alert_def.h"
#include "worker/worker_internal.h"

#include "storage/block.h"

/* One alert, in its own context */
typedef struct Alert
{
	MemoryContext context;
	SxAlertDef	def;
	SPIPlanPtr	plan;			/* NULL: not made yet */
	bool		gone;			/* no longer in the catalog */
	/* not after a failure, until retry_at; then it looks at everything */
	bool		active;
	int			failures;		/* in a row; > 0: a row in streamext.alert_error says so */
	TimestampTz retry_at;
	/* a look at the whole view: live entries first, then the table */
	bool		scan_due;
	TimestampTz scan_at;		/* not before */
	bool		scanning;
	bool		in_table;
	SxLiveCursor cursor;
	BlockNumber block;
	int64		scan_us;		/* what it has taken */
	List	   *reports;		/* of SxAlertRow *, found in this look */
} Alert;

/* A view with alerts */
typedef struct AlertedView
{
	Oid			viewid;
	Oid			matid;
	List	   *alerts;			/* of Alert * */
	SxLiveTrack track;
	int64		flushes;		/* what had been written when the last look at the table began */
	uint64		sessions_wrote;	/* the same of what sessions write */
	bool		on_close;		/* it shows rows when their windows close */
	TimestampTz retry_at;		/* it is locked */
} AlertedView;

typedef enum AlertResult
{
	ALERT_DONE,
	ALERT_LOCKED,				/* nothing was looked at */
	ALERT_FAILED
} AlertResult;

/* which groups: changed live rows (rows not NULL), or blocks of the table from `block` on */
typedef struct AlertGroups
{
	SxLiveRows *rows;
	BlockNumber block;
	BlockNumber next;			/* result; 0: that was the end */
} AlertGroups;

/* rows looked at in one transaction */
#define SX_ALERT_ROWS	2000

/*
 * Puts the groups together and looks which of them satisfy the conditions of these alerts, then reports those
 * that have not been yet.  An alert that fails is made inactive.  FAILED: the groups could not be had, all
 * these alerts are inactive.
 */
extern AlertResult sx_alerter_look(SxDb *db, AlertedView *av, List *alerts, AlertGroups *groups,
								   MemoryContext mcxt);
/* it is tried again later */
extern void sx_alerter_failed(Alert *alert, const char *message);
/* it is locked: the same, without anything to be said */
extern void sx_alerter_postpone(Alert *alert);
/* it has looked at everything without a failure */
extern void sx_alerter_recovered(Alert *alert);

#endif							/* SX_ALERTER_INTERNAL_H */
