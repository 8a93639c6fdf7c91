/*
 * settle.c
 *		Commands on streams wait until views have what they need of them.
 *
 * Rows that are to vanish must be in the tables of all views that need them: the wait is
 * interruptible and bounded by streamext.wait_timeout, after which the command fails and says whom
 * it has waited for.  A command that keeps rows waits a little, and only for views that will be
 * there in a moment.
 */
#include "postgres.h"

#include "access/relation.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "ddl/ddl_internal.h"
#include "moment.h"
#include "worker/worker.h"
#include "testing/stop_points.h"

/* how long a command that keeps rows waits for views that are up to date anyway */
#define SPARE_A_SCAN_MS		2000

static bool view_is_new(Oid viewid);
static bool has_not_begun(Oid viewid);
static bool needs_rows(Oid viewid);
static bool is_live(Oid viewid);
static void refuse_new_views(Oid streamid, const char *command);

/*
 * A view made by the current transaction is unknown to the workers: it starts from what is there
 * at commit.
 */
static bool
view_is_new(Oid viewid)
{
	Relation	rel = try_relation_open(viewid, AccessShareLock);
	bool		result;

	if (rel == NULL)
		return true;
	result = rel->rd_createSubid != InvalidSubTransactionId;
	relation_close(rel, NoLock);
	return result;
}

/*
 * A view that has not begun to read, such as one that is being restored, starts from what is
 * there then.  Its builder says when it begins, before it takes its snapshot: if it has not by now,
 * while we keep writers out, it will find what we have found.
 */
static bool
has_not_begun(Oid viewid)
{
	SxStoredPosition *position = sx_catalog_position(viewid);
	SxDb	   *db = sx_my_db();
	SxView	   *v = db ? sx_view_by_id(db, viewid) : NULL;
	bool		begun = false;

	if (position != NULL && position->ours)
		return false;
	if (v == NULL)
		return true;
	SpinLockAcquire(&db->mutex);
	if (v->viewid == viewid && v->state == SX_VIEW_BUILDING)
		begun = v->history_begun;
	SpinLockRelease(&db->mutex);
	return !begun;
}

/* must its rows be read before they go?  One that is stopped reads no more. */
static bool
needs_rows(Oid viewid)
{
	return !view_is_new(viewid) && sx_catalog_stop_reason(viewid, NULL) == NULL && !has_not_begun(viewid);
}

/* not LIVE: may take long, and is not worth waiting for */
static bool
is_live(Oid viewid)
{
	SxDb	   *db = sx_my_db();
	SxView	   *v = db ? sx_view_by_id(db, viewid) : NULL;

	return v != NULL && v->state == SX_VIEW_LIVE && !view_is_new(viewid);
}

bool
sx_stream_is_flushed(Oid streamid, int timeout_ms, char **blocker)
{
	List	   *views = NIL;
	ListCell   *lc;

	foreach(lc, sx_catalog_views_of_stream(streamid))
	{
		SxViewDef  *def = lfirst(lc);

		views = lappend_oid(views, def->viewid);
		if (def->paused && needs_rows(def->viewid))
		{
			*blocker = psprintf("Continuous view \"%s\" is paused; continue with streamext.resume().",
								get_rel_name(def->viewid));
			return false;
		}
	}
	return sx_wait_flushed(views, timeout_ms, needs_rows, blocker);
}

void
sx_require_flushed(List *streams, const char *command)
{
	List	   *views = NIL;
	char	   *blocker = NULL;
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, streams)
	{
		foreach(lc2, sx_catalog_views_of_stream(lfirst_oid(lc)))
		{
			SxViewDef  *def = lfirst(lc2);
			char	   *name = get_rel_name(def->viewid);

			if (def->paused || sx_catalog_stop_reason(def->viewid, NULL) != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_IN_USE),
						 errmsg("cannot run %s while continuous view \"%s\" is %s", command, name,
								def->paused ? "paused" : "stopped"),
						 errdetail("It has not read all rows of stream \"%s\".", get_rel_name(def->streamid)),
						 errhint("Continue it with streamext.resume(), or drop it.")));
			views = lappend_oid(views, def->viewid);
		}
	}
	if (!sx_wait_all(views, sx_wait_timeout, true, &blocker))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot run %s: not all continuous views have read and stored their rows", command),
				 blocker ? errdetail("Waited %d ms for: %s", sx_wait_timeout, blocker) : 0,
				 errhint("See reason in streamext.status, raise streamext.wait_timeout, or drop the view.")));
}

/* waits for each of the streams and notes that their rows may go */
void
sx_settle(SxUtility *u, List *streams, const char *command)
{
	ListCell   *lc;

	foreach(lc, streams)
	{
		Oid			stream = lfirst_oid(lc);
		TimestampTz started = sx_now();
		char	   *blocker = NULL;

		if (list_member_oid(u->settled, stream))
			continue;
		SX_STOP_POINT(settle_wait);
		refuse_new_views(stream, command);
		if (!sx_stream_is_flushed(stream, sx_wait_timeout, &blocker))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot run %s: the rows of stream \"%s\" are not in all its continuous views yet",
							command, get_rel_name(stream)),
					 blocker ? errdetail("Waited %ld ms for: %s", TimestampDifferenceMilliseconds(started, sx_now()), blocker) :
					 errdetail("Waited %d ms for %s.", sx_wait_timeout, sx_view_names(stream)),
					 errhint("See reason in streamext.status, raise streamext.wait_timeout, or drop the views.")));
		u->settled = lappend_oid(u->settled, stream);
		SX_STOP_POINT(settled);
	}
}

/* one that starts at a statement of this transaction would miss what was committed since */
static void
refuse_new_views(Oid streamid, const char *command)
{
	ListCell   *lc;

	foreach(lc, sx_catalog_views_of_stream(streamid))
	{
		SxViewDef  *def = lfirst(lc);

		if (sx_catalog_position(def->viewid) != NULL && view_is_new(def->viewid))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot run %s in the transaction that has created continuous view \"%s\" WITH NO DATA",
							command, get_rel_name(def->viewid)),
					 errhint("Commit before you run the command.")));
	}
}

/*
 * Before rows vanish, first without a lock: a view may be waiting for a writer who would then wait
 * for us.
 */
void
sx_settle_unlocked(List *streams, const char *command)
{
	SxUtility	scratch = {0};

	sx_settle(&scratch, streams, command);
}

/*
 * Before a table gets a new file but keeps its rows.  What is not read now is found by a scan of
 * that file: to wait a little for what is read in a moment only saves work.
 */
void
sx_spare_a_scan(List *streams, const char *command)
{
	ListCell   *lc;

	foreach(lc, streams)
	{
		List	   *views = NIL;
		ListCell   *lc2;

		/* rows that a rewrite has moved must not be moved again before all know where it put them */
		foreach(lc2, sx_stream_tree(lfirst_oid(lc)))
		{
			if (!sx_rewrite_is_unread(lfirst_oid(lc2)))
				continue;
			sx_settle_unlocked(list_make1_oid(lfirst_oid(lc)), command);
			break;
		}
		foreach(lc2, sx_catalog_views_of_stream(lfirst_oid(lc)))
		{
			Oid			viewid = ((SxViewDef *) lfirst(lc2))->viewid;
			SxStoredPosition *pos = sx_catalog_position(viewid);

			/* a scan through the old file, in parts, cannot go on in another */
			if (pos != NULL && pos->ours && pos->scan != NULL)
				sx_settle_unlocked(list_make1_oid(lfirst_oid(lc)), command);
			views = lappend_oid(views, viewid);
		}
		(void) sx_wait_flushed(views, Min(sx_wait_timeout, SPARE_A_SCAN_MS), is_live, NULL);
	}
}

void
sx_require_settled(Oid streamid, Oid relid)
{
	for (SxUtility *u = sx_current_utility; u != NULL; u = u->outer)
	{
		if (list_member_oid(u->settled, streamid))
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot rewrite \"%s\" in this way while continuous views use it", get_rel_name(relid)),
			 errdetail("Its rows would look newly inserted to %s.", sx_view_names(streamid)),
			 errhint("Use ALTER TABLE on the table itself, or drop the views and create them again afterwards.")));
}
