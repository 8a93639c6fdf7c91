/*
 * swap.c
 *		The process that puts a hidden view, built and live, in the place of a visible one (replace.h).
 *
 * In one transaction the visible view gets the hidden one's rule, and its row in streamext.view_def the
 * hidden one's query, table and position; what it had is dropped.  The visible view itself stays: grants,
 * comments, dependent views, alerts and sinks are its own.  Live state is found by the table, so a reader who
 * gets to the new table finds it, whether or not the consumer has heard that it belongs to another view now.
 *
 * Both views stand at one position while they are live, and the hidden one's stored position must contain the
 * visible one's: it is flushed right before.  So nothing that was visible goes away with the swap, nor
 * does a window that was final.
 *
 * Locking: AccessExclusiveLock on both views and their tables, the visible view first, as its readers do.  It
 * keeps out readers and flushes, for the instant of the swap.  Each attempt waits a short time only, so that
 * readers who queue behind it are not held up by a long one.  The queries are left alone, but for the drop of
 * the old one at the end: the consumer, who finds a query locked, would drop the view's live state.
 *
 * An error is tried again, at longer and longer intervals: whoever knows what is in the way can remove it, or
 * give the replacement up.  A command that waits ends with the error when it is clear that it lasts.
 *
 * A hidden view whose target is gone without it (after a restore that left something out) is dropped here.
 *
 * A crash leaves the one or the other.  The consumer starts this process, again if need be.
 */
#include "worker/worker_internal.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "commands/comment.h"
#include "commands/tablecmds.h"
#include "commands/view.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "batch/replace.h"
#include "live/live_read.h"
#include "query/view_def.h"
#include "testing/stop_points.h"

/* an attempt waits so long for its locks, at first and at most */
#define FIRST_TIMEOUT_MS	50
#define LAST_TIMEOUT_MS		200
/* pause between attempts, at first and at most: behind one long reader the others wait a small part of the time */
#define PAUSE_MS			200
#ifdef SX_TESTING
#define LONGEST_PAUSE_MS	1000
#else
#define LONGEST_PAUSE_MS	10000
#endif
#define FAILED_PAUSE_MS		1000
/* who waits for it hears of an error that may pass after so many attempts at the longest pause */
#define MOST_FAILURES		3
/* for one flush; then it looks whether it is still wanted */
#define FLUSH_MS			1000

typedef enum Outcome
{
	OUTCOME_DONE,				/* or there is nothing to do any more */
	OUTCOME_AGAIN
} Outcome;

static Outcome attempt(SxDb *db, Oid hidden, int *pause, int *failures);
static bool may_pass(int sqlerrcode);
static bool is_dangling(Oid hidden);
static Outcome try_swap(SxDb *db, Oid hidden);
static void drop_dangling(Oid hidden);
static bool lock_both(Oid hidden, SxViewDef **view, SxViewDef **replacement);
static bool contains_all(const SxViewDef *view, const SxViewDef *replacement);
static void swap(const SxViewDef *view, const SxViewDef *replacement);
static void add_columns(Oid viewid, Oid from);
static void take_dependencies(const SxViewDef *view, const SxViewDef *replacement);
static void drop_old(const SxViewDef *view, const SxViewDef *replacement);

void
sx_swapper_main(Datum arg)
{
	SxWorkerArg wa = sx_worker_start();
	SxDb	   *db = sx_db_lookup(wa.dboid, false);
	uint32		generation;
	int			timeout = FIRST_TIMEOUT_MS;
	int			pause = PAUSE_MS;
	int			failures = 0;

	if (db == NULL)
		proc_exit(0);
	generation = db->generation;
	sx_live_read_disabled = true;
	for (;;)
	{
		char		value[32];

		sx_worker_check();
		/* the consumer's successor starts one of its own */
		if (db->closing || db->places[SX_CONSUMER].pid == 0 || db->generation != generation)
			proc_exit(0);
		if (!is_dangling(wa.viewid) && !sx_wait_flushed(list_make1_oid(wa.viewid), FLUSH_MS, NULL, NULL))
		{
			if (sx_view_by_id(db, wa.viewid) == NULL)
				proc_exit(0);
			continue;
		}
		snprintf(value, sizeof(value), "%dms", timeout);
		SetConfigOption("lock_timeout", value, PGC_SUSET, PGC_S_OVERRIDE);
		if (attempt(db, wa.viewid, &pause, &failures) == OUTCOME_DONE)
			proc_exit(0);
		timeout = Min(2 * timeout, LAST_TIMEOUT_MS);
	}
}

/* what fails is tried again, as long as the hidden view is there */
static Outcome
attempt(SxDb *db, Oid hidden, int *pause, int *failures)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile Outcome outcome = OUTCOME_AGAIN;

	PG_TRY();
	{
		SxViewContext vc;

		sx_view_context_push(&vc, hidden, "replacing");
		outcome = try_swap(db, hidden);
		sx_view_context_pop(&vc);
	}
	PG_CATCH();
	{
		ErrorData  *error = sx_worker_recover(caller);
		SxView	   *v = sx_view_by_id(db, hidden);
		char	   *message = error->detail ? psprintf("%s (%s)", error->message, error->detail) : error->message;
		bool		waits = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
		bool		stuck = !waits && (!may_pass(error->sqlerrcode) ||
									   (*pause >= LONGEST_PAUSE_MS && ++*failures >= MOST_FAILURES));

		if (v != NULL)
		{
			if (!waits)
				sx_view_set_error(db, v, message);
			SpinLockAcquire(&db->mutex);
			v->swap_stuck = stuck;
			SpinLockRelease(&db->mutex);
			sx_view_set_reason(db, v, "cannot take its place yet: %s", message);
		}
		if (!waits)
		{
			sx_worker_log(LOG, "could not replace a continuous view by view with OID %u: %s", hidden, message);
			*pause = Max(*pause, FAILED_PAUSE_MS);
		}
		*pause = Min(*pause + *pause / 2, LONGEST_PAUSE_MS);
		FreeErrorData(error);
	}
	PG_END_TRY();
	if (outcome == OUTCOME_AGAIN)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, *pause, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	return outcome;
}

/* by itself; what stands in the way of the new definition, or depends on the old table, does not */
static bool
may_pass(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case MAKE_SQLSTATE('0', 'A', '0', '0', '0'):
		case MAKE_SQLSTATE('2', 'B', '0', '0', '0'):
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):
			return false;
		default:
			return true;
	}
}

static bool
is_dangling(Oid hidden)
{
	SxViewDef  *def;
	bool		result;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	def = sx_catalog_view(hidden);
	result = def != NULL && OidIsValid(def->replaces) && sx_catalog_view(def->replaces) == NULL;
	PopActiveSnapshot();
	CommitTransactionCommand();
	return result;
}

static Outcome
try_swap(SxDb *db, Oid hidden)
{
	SxViewDef  *view;
	SxViewDef  *replacement;
	SxView	   *v;
	Outcome		outcome = OUTCOME_AGAIN;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (!lock_both(hidden, &view, &replacement))
	{
		drop_dangling(hidden);
		outcome = OUTCOME_DONE;
	}
	else
	{
		SX_STOP_POINT_OF(swap_locked, view->viewid);
		v = sx_view_by_id(db, hidden);
		if (v != NULL && v->state == SX_VIEW_LIVE && contains_all(view, replacement))
		{
			SxRunAs		as;

			/* expressions of indexes are the owner's */
			sx_run_as_begin(&as, view);
			swap(view, replacement);
			sx_run_as_end(&as);
			SX_STOP_POINT_OF(swap_done, view->viewid);
			outcome = OUTCOME_DONE;
		}
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (outcome == OUTCOME_DONE)
	{
		SX_STOP_POINT(swap_committed);
		sx_wake(db, SX_CONSUMER);
	}
	return outcome;
}

/* what it was to replace is gone */
static void
drop_dangling(Oid hidden)
{
	SxViewDef  *def = sx_catalog_view(hidden);

	if (def == NULL || !OidIsValid(def->replaces) || sx_catalog_view(def->replaces) != NULL)
		return;
	sx_drop_hidden(def);
	ereport(LOG,
			(errmsg("streamext dropped a replacement of a continuous view that does not exist")));
}

/* false: one of them is gone, or both go separate ways */
static bool
lock_both(Oid hidden, SxViewDef **view, SxViewDef **replacement)
{
	SxViewDef  *h = sx_catalog_view(hidden);
	SxViewDef  *v = h != NULL && OidIsValid(h->replaces) ? sx_catalog_view(h->replaces) : NULL;

	if (v == NULL)
		return false;
	LockRelationOid(v->viewid, AccessExclusiveLock);
	LockRelationOid(v->matid, AccessExclusiveLock);
	LockRelationOid(h->viewid, AccessExclusiveLock);
	LockRelationOid(h->matid, AccessExclusiveLock);
	*replacement = sx_catalog_view(hidden);
	*view = *replacement != NULL ? sx_catalog_view((*replacement)->replaces) : NULL;
	return *view != NULL && (*view)->matid == v->matid && (*replacement)->matid == h->matid;
}

/* all that is in the one table is in the other: readers must not go back */
static bool
contains_all(const SxViewDef *view, const SxViewDef *replacement)
{
	SxStoredPosition *mine = sx_catalog_position(replacement->viewid);
	SxStoredPosition *its = sx_catalog_position(view->viewid);

	if (mine == NULL || !mine->ours || mine->scan != NULL)
		return false;
	if (its == NULL || !its->ours || its->scan != NULL || view->streamid != replacement->streamid)
		return true;
	return sx_position_covers(mine->position, its->position);
}

static void
swap(const SxViewDef *view, const SxViewDef *replacement)
{
	Query	   *query = sx_view_stored_query(replacement->viewid);
	List	   *indexes = sx_copied_indexes(view, replacement);
	ListCell   *lc;

	add_columns(view->viewid, replacement->viewid);
	StoreViewQuery(view->viewid, query, true);
	CommandCounterIncrement();
	SX_STOP_POINT_OF(swap_rewritten, view->viewid);
	/* before the drop, which must not find the old relations in our catalog */
	sx_catalog_swap_views(view, replacement);
	take_dependencies(view, replacement);
	drop_old(view, replacement);
	foreach(lc, indexes)
	{
		SxIndexName *index = lfirst(lc);

		RenameRelationInternal(index->indexid, index->name, true, true);
		if (index->comment != NULL)
			CreateComments(index->indexid, RelationRelationId, 0, index->comment);
		CommandCounterIncrement();
	}
	sx_catalog_announce();
}

/* new ones stand at the end; what there was has been compared when the replacement began */
static void
add_columns(Oid viewid, Oid from)
{
	Relation	view = table_open(viewid, NoLock);
	Relation	other = table_open(from, NoLock);
	List	   *cmds = NIL;

	for (int i = RelationGetDescr(view)->natts; i < RelationGetDescr(other)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(other), i);
		AlterTableCmd *cmd = makeNode(AlterTableCmd);

		cmd->subtype = AT_AddColumnToView;
		cmd->def = (Node *) makeColumnDef(NameStr(att->attname), att->atttypid, att->atttypmod, att->attcollation);
		cmds = lappend(cmds, cmd);
	}
	table_close(other, NoLock);
	table_close(view, NoLock);
	if (cmds == NIL)
		return;
	AlterTableInternal(viewid, cmds, true);
	CommandCounterIncrement();
}

/* the view depends on the new query, and the hidden view on nothing */
static void
take_dependencies(const SxViewDef *view, const SxViewDef *replacement)
{
	ObjectAddress dependent;
	ObjectAddress referenced;

	(void) deleteDependencyRecordsForClass(RelationRelationId, view->viewid, RelationRelationId, DEPENDENCY_INTERNAL);
	(void) deleteDependencyRecordsForClass(RelationRelationId, replacement->viewid, RelationRelationId, DEPENDENCY_INTERNAL);
	(void) deleteDependencyRecordsForClass(RelationRelationId, replacement->queryid, RelationRelationId, DEPENDENCY_AUTO);
	ObjectAddressSet(dependent, RelationRelationId, view->viewid);
	ObjectAddressSet(referenced, RelationRelationId, replacement->queryid);
	recordDependencyOn(&dependent, &referenced, DEPENDENCY_INTERNAL);
	CommandCounterIncrement();
}

static void
drop_old(const SxViewDef *view, const SxViewDef *replacement)
{
	ObjectAddresses *objects = new_object_addresses();
	Oid			relids[] = {replacement->viewid, view->queryid, view->matid};

	for (int i = 0; i < lengthof(relids); i++)
	{
		ObjectAddress address;

		ObjectAddressSet(address, RelationRelationId, relids[i]);
		add_exact_object_address(&address, objects);
	}
	performMultipleDeletions(objects, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	free_object_addresses(objects);
	CommandCounterIncrement();
}
