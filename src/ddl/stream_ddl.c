/*
 * stream_ddl.c
 *		Commands on streams and their partitions: what has to happen before they run.
 *
 * Rows that are to vanish (TRUNCATE, DROP and DETACH of a partition) must be in the views'
 * tables first.  We lock the relations with ShareRowExclusiveLock, which keeps writers out
 * and lets the consumer read, and wait until everything committed by then is flushed; then
 * comes the command's AccessExclusiveLock, see stream_locks.c.  The wait is interruptible and
 * bounded by streamext.wait_timeout.
 *
 * Lock order is core's: a parent before its partitions, those in the order of
 * find_all_inheritors().  Where the command locks a partition's parent (DROP, DETACH), we do
 * too, and before: a writer that holds the parent and waits for the partition would
 * otherwise deadlock with us.  Nobody gets a lock here on a relation that the command would
 * refuse them for lack of privileges.
 *
 * Commands that give all rows a new xmin (ALTER COLUMN TYPE ...) make every row look new, and wait
 * in the same way.  Commands that only move rows to a new file keep xmin and need not wait: a scan
 * of that file finds what is new.  What the new file contains is noted by file_changes.c.
 *
 * Attached and detached partitions are noted in streamext.attach_mark, with a snapshot taken
 * while nobody can write to them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_type.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "catalog/file_marks.h"
#include "ddl/ddl_internal.h"
#include "moment.h"
#include "worker/worker.h"
#include "testing/stop_points.h"

/* how long a command that keeps rows waits for views that are up to date anyway */
#define SPARE_A_SCAN_MS		2000

/* A command that waits for views: what its lock_...() needs, and yields */
typedef struct Settle
{
	SxUtility  *u;
	const char *command;
	TruncateStmt *truncate;
	List	   *parents;		/* of Oid: dropped from */
	List	   *relids;			/* of Oid */
	List	   *streams;		/* of Oid */
	Oid			relid;
	PartitionCmd *cmd;			/* detached */
} Settle;

static List *watched_streams(void);
static List *tree_of(Oid relid);
static List *streams_of_tree(Oid relid);
static bool is_table(Oid relid);
static Oid	find_relation(const RangeVar *rv);
static void lock_tree(Oid relid, LOCKMODE lockmode);
static bool view_is_new(Oid viewid);
static bool has_not_begun(Oid viewid);
static bool needs_rows(Oid viewid);
static bool is_live(Oid viewid);
static void refuse_new_views(Oid streamid, const char *command);
static void settle(SxUtility *u, List *streams, const char *command);
static void wait_without_lock(List *streams, const char *command);
static void spare_a_scan(List *streams, const char *command);

static void before_truncate(SxUtility *u, TruncateStmt *stmt);
static List *lock_truncated(void *arg);
static void truncate_callback(const RangeVar *relation, Oid relid, Oid old_relid, void *arg);
static void before_drop_table(SxUtility *u, DropStmt *stmt);
static void before_drop_schema(SxUtility *u, DropStmt *stmt);
static void before_drop_owned(SxUtility *u, DropOwnedStmt *stmt);
static bool may_drop(Oid relid);
static void before_drop(SxUtility *u, List *relids, DropBehavior behavior, bool check_views,
						const char *command);
static List *lock_dropped(void *arg);
static List *relations_where(AttrNumber attno, Oid value);
static void before_alter(SxUtility *u, AlterTableStmt *stmt);
static void refuse_change(Oid relid, List *streams, const char *command);
static void before_rewrite(SxUtility *u, Oid relid, const char *command);
static List *lock_rewritten(void *arg);
static void before_attach(Oid parent, PartitionCmd *cmd);
static void before_detach(SxUtility *u, Oid parent, PartitionCmd *cmd);
static List *lock_detached(void *arg);
static void store_marks(Oid parent, List *leaves, bool attached);
static void refuse_member(const char *name, const char *problem);
static void check_inherit(const RangeVar *parent);
static void check_event_time(List *tree, AlterTableCmd *cmd);
static bool type_change_rewrites(Oid relid, AlterTableCmd *cmd);
static bool new_column_rewrites(ColumnDef *column);
static void before_rename_column(RenameStmt *stmt);
static void before_create(CreateStmt *stmt, bool foreign);
static void before_vacuum(VacuumStmt *stmt);
static void before_move_all(AlterTableMoveAllStmt *stmt);

void
sx_ddl_on_stream(SxUtility *u)
{
	Node	   *stmt = u->stmt;

	switch (nodeTag(stmt))
	{
		case T_TruncateStmt:
			before_truncate(u, (TruncateStmt *) stmt);
			break;
		case T_DropStmt:
			if (((DropStmt *) stmt)->removeType == OBJECT_TABLE)
				before_drop_table(u, (DropStmt *) stmt);
			else if (((DropStmt *) stmt)->removeType == OBJECT_SCHEMA)
				before_drop_schema(u, (DropStmt *) stmt);
			break;
		case T_DropOwnedStmt:
			before_drop_owned(u, (DropOwnedStmt *) stmt);
			break;
		case T_AlterTableStmt:
			before_alter(u, (AlterTableStmt *) stmt);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_COLUMN)
				before_rename_column((RenameStmt *) stmt);
			break;
		case T_CreateStmt:
			before_create((CreateStmt *) stmt, false);
			break;
		case T_CreateForeignTableStmt:
			before_create(&((CreateForeignTableStmt *) stmt)->base, true);
			break;
		case T_VacuumStmt:
			before_vacuum((VacuumStmt *) stmt);
			break;
		case T_ClusterStmt:
			{
				RangeVar   *rv = ((ClusterStmt *) stmt)->relation;

				if (rv == NULL)
					spare_a_scan(watched_streams(), "CLUSTER");
				else
				{
					Oid			relid = find_relation(rv);

					if (OidIsValid(relid))
						spare_a_scan(streams_of_tree(relid), "CLUSTER");
				}
			}
			break;
		case T_AlterTableMoveAllStmt:
			before_move_all((AlterTableMoveAllStmt *) stmt);
			break;
		default:
			break;
	}
}

/* ---- which streams ---- */

/* streams that views use */
static List *
watched_streams(void)
{
	List	   *streams = NIL;
	ListCell   *lc;

	foreach(lc, sx_catalog_views())
		streams = list_append_unique_oid(streams, ((SxViewDef *) lfirst(lc))->streamid);
	return streams;
}

List *
sx_streams_over(Oid relid)
{
	List	   *watched = watched_streams();
	List	   *streams = NIL;
	ListCell   *lc;

	if (watched == NIL)
		return NIL;
	if (list_member_oid(watched, relid))
		streams = lappend_oid(streams, relid);
	if (get_rel_relispartition(relid))
	{
		foreach(lc, get_partition_ancestors(relid))
		{
			if (list_member_oid(watched, lfirst_oid(lc)))
				streams = list_append_unique_oid(streams, lfirst_oid(lc));
		}
	}
	return streams;
}

static List *
tree_of(Oid relid)
{
	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return list_make1_oid(relid);
	return find_all_inheritors(relid, NoLock, NULL);
}

/* streams whose rows are in this relation or its partitions */
static List *
streams_of_tree(Oid relid)
{
	List	   *streams;
	List	   *watched = watched_streams();
	ListCell   *lc;

	if (watched == NIL)
		return NIL;
	streams = sx_streams_over(relid);
	foreach(lc, tree_of(relid))
	{
		if (list_member_oid(watched, lfirst_oid(lc)))
			streams = list_append_unique_oid(streams, lfirst_oid(lc));
	}
	return streams;
}

static bool
is_table(Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	return relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE;
}

/* InvalidOid if it is not there or no table: core will say so */
static Oid
find_relation(const RangeVar *rv)
{
	Oid			relid = RangeVarGetRelid(rv, NoLock, true);

	return OidIsValid(relid) && is_table(relid) ? relid : InvalidOid;
}

static void
lock_tree(Oid relid, LOCKMODE lockmode)
{
	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		(void) find_all_inheritors(relid, lockmode, NULL);
}

char *
sx_view_names(Oid streamid)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, sx_catalog_views_of_stream(streamid))
	{
		SxViewDef  *def = lfirst(lc);

		appendStringInfo(&buf, "%scontinuous view \"%s\"", buf.len > 0 ? ", " : "",
						 get_rel_name(def->viewid));
	}
	return buf.data;
}

/* ---- waiting ---- */

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

/* waits for each of the streams and notes that their rows may go */
static void
settle(SxUtility *u, List *streams, const char *command)
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
static void
wait_without_lock(List *streams, const char *command)
{
	SxUtility	scratch = {0};

	settle(&scratch, streams, command);
}

/*
 * Before a table gets a new file but keeps its rows.  What is not read now is found by a scan of
 * that file: to wait a little for what is read in a moment only saves work.
 */
static void
spare_a_scan(List *streams, const char *command)
{
	ListCell   *lc;

	foreach(lc, streams)
	{
		List	   *views = NIL;
		ListCell   *lc2;

		/* rows that a rewrite has moved must not be moved again before all know where it put them */
		foreach(lc2, tree_of(lfirst_oid(lc)))
		{
			if (!sx_rewrite_is_unread(lfirst_oid(lc2)))
				continue;
			wait_without_lock(list_make1_oid(lfirst_oid(lc)), command);
			break;
		}
		foreach(lc2, sx_catalog_views_of_stream(lfirst_oid(lc)))
		{
			Oid			viewid = ((SxViewDef *) lfirst(lc2))->viewid;
			SxStoredPosition *pos = sx_catalog_position(viewid);

			/* a scan through the old file, in parts, cannot go on in another */
			if (pos != NULL && pos->ours && pos->scan != NULL)
				wait_without_lock(list_make1_oid(lfirst_oid(lc)), command);
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

/* ---- TRUNCATE ---- */

static void
before_truncate(SxUtility *u, TruncateStmt *stmt)
{
	Settle		arg = {.u = u, .command = "TRUNCATE", .truncate = stmt};

	if (watched_streams() == NIL)
		return;
	sx_lock_streams(u, lock_truncated, &arg);
	sx_before_truncate_files(u, arg.relids);
}

/* only what is part of a stream */
static List *
lock_truncated(void *arg)
{
	Settle	   *s = arg;
	List	   *relids = NIL;
	List	   *locked = NIL;
	List	   *streams = NIL;
	List	   *referencing;
	ListCell   *lc;

	foreach(lc, s->truncate->relations)
	{
		RangeVar   *rv = lfirst_node(RangeVar, lc);
		Oid			relid = find_relation(rv);
		List	   *concerned;

		if (!OidIsValid(relid))
			continue;
		concerned = streams_of_tree(relid);
		if (concerned != NIL)
		{
			wait_without_lock(concerned, s->command);
			relid = RangeVarGetRelidExtended(rv, ShareRowExclusiveLock, 0, truncate_callback, NULL);
			lock_tree(relid, ShareRowExclusiveLock);
			locked = list_concat_unique_oid(locked, tree_of(relid));
			streams = list_concat_unique_oid(streams, streams_of_tree(relid));
		}
		relids = list_concat_unique_oid(relids, tree_of(relid));
	}

	/* tables that reference these are truncated as well */
	if (s->truncate->behavior == DROP_CASCADE && relids != NIL)
	{
		while ((referencing = heap_truncate_find_FKs(relids)) != NIL)
		{
			foreach(lc, referencing)
			{
				Oid			relid = lfirst_oid(lc);

				if (streams_of_tree(relid) != NIL &&
					pg_class_aclcheck(relid, GetUserId(), ACL_TRUNCATE) == ACLCHECK_OK)
				{
					LockRelationOid(relid, ShareRowExclusiveLock);
					lock_tree(relid, ShareRowExclusiveLock);
					locked = list_concat_unique_oid(locked, tree_of(relid));
					streams = list_concat_unique_oid(streams, streams_of_tree(relid));
				}
				relids = list_concat_unique_oid(relids, tree_of(relid));
			}
		}
	}
	settle(s->u, streams, s->command);
	s->relids = relids;
	return locked;
}

void
sx_ddl_after_stream(SxUtility *u)
{
	if (u->truncated != NIL)
		sx_after_truncate_files(u);
}

static void
truncate_callback(const RangeVar *relation, Oid relid, Oid old_relid, void *arg)
{
	AclResult	result;

	if (!OidIsValid(relid))
		return;
	result = pg_class_aclcheck(relid, GetUserId(), ACL_TRUNCATE);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, get_relkind_objtype(get_rel_relkind(relid)), relation->relname);
}

/* ---- DROP ---- */

static void
before_drop_table(SxUtility *u, DropStmt *stmt)
{
	List	   *relids = NIL;
	ListCell   *lc;

	foreach(lc, stmt->objects)
	{
		Oid			relid = find_relation(makeRangeVarFromNameList((List *) lfirst(lc)));

		if (OidIsValid(relid) && may_drop(relid))
			relids = list_append_unique_oid(relids, relid);
	}
	before_drop(u, relids, stmt->behavior, true, "DROP TABLE");
}

static void
before_drop_schema(SxUtility *u, DropStmt *stmt)
{
	List	   *relids = NIL;
	ListCell   *lc;

	if (stmt->behavior != DROP_CASCADE || watched_streams() == NIL)
		return;
	foreach(lc, stmt->objects)
	{
		Oid			nspid = get_namespace_oid(strVal(lfirst(lc)), true);

		if (OidIsValid(nspid) && SxNamespaceOwnerCheck(nspid, GetUserId()))
			relids = list_concat_unique_oid(relids,
											relations_where(Anum_pg_class_relnamespace, nspid));
	}
	before_drop(u, relids, stmt->behavior, false, "DROP SCHEMA");
}

static void
before_drop_owned(SxUtility *u, DropOwnedStmt *stmt)
{
	List	   *relids = NIL;
	ListCell   *lc;

	if (watched_streams() == NIL)
		return;
	foreach(lc, stmt->roles)
	{
		Oid			role = get_rolespec_oid(lfirst_node(RoleSpec, lc), true);

		if (OidIsValid(role) && has_privs_of_role(GetUserId(), role))
			relids = list_concat_unique_oid(relids,
											relations_where(Anum_pg_class_relowner, role));
	}
	before_drop(u, relids, DROP_CASCADE, false, "DROP OWNED");
}

static bool
may_drop(Oid relid)
{
	return SxClassOwnerCheck(relid, GetUserId()) ||
		SxNamespaceOwnerCheck(get_rel_namespace(relid), GetUserId());
}

/*
 * A stream that goes as a whole takes its views along, so nobody needs its rows; a partition
 * of a stream that stays is waited for.
 */
static void
before_drop(SxUtility *u, List *relids, DropBehavior behavior, bool check_views,
			const char *command)
{
	List	   *gone = NIL;
	List	   *left = NIL;
	List	   *streams = NIL;
	List	   *parents = NIL;
	List	   *watched = watched_streams();
	Settle		arg = {.u = u, .command = command};
	ListCell   *lc;
	ListCell   *lc2;

	if (watched == NIL || relids == NIL)
		return;

	foreach(lc, relids)
		gone = list_concat_unique_oid(gone, tree_of(lfirst_oid(lc)));

	foreach(lc, gone)
	{
		Oid			relid = lfirst_oid(lc);

		if (!list_member_oid(watched, relid))
			continue;
		if (check_views && behavior == DROP_RESTRICT)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot drop table \"%s\" because other objects depend on it",
							get_rel_name(relid)),
					 errdetail("It is the stream of %s.", sx_view_names(relid)),
					 errhint("Use DROP ... CASCADE to drop the dependent objects too.")));
		u->settled = list_append_unique_oid(u->settled, relid);
	}

	foreach(lc, relids)
	{
		Oid			relid = lfirst_oid(lc);
		bool		needed = false;

		foreach(lc2, sx_streams_over(relid))
		{
			if (!list_member_oid(gone, lfirst_oid(lc2)))
			{
				streams = list_append_unique_oid(streams, lfirst_oid(lc2));
				needed = true;
			}
		}
		if (needed)
		{
			left = list_append_unique_oid(left, relid);
			parents = list_append_unique_oid(parents, get_partition_parent(relid, true));
		}
	}
	if (streams == NIL)
		return;
	arg.parents = parents;
	arg.relids = left;
	arg.streams = streams;
	sx_lock_streams(u, lock_dropped, &arg);
}

/* parents first: see the opening comment */
static List *
lock_dropped(void *arg)
{
	Settle	   *s = arg;
	List	   *locked = list_copy(s->parents);
	ListCell   *lc;

	wait_without_lock(s->streams, s->command);
	foreach(lc, s->parents)
		LockRelationOid(lfirst_oid(lc), ShareRowExclusiveLock);
	foreach(lc, s->relids)
	{
		LockRelationOid(lfirst_oid(lc), ShareRowExclusiveLock);
		lock_tree(lfirst_oid(lc), ShareRowExclusiveLock);
		locked = list_concat_unique_oid(locked, tree_of(lfirst_oid(lc)));
	}
	settle(s->u, s->streams, s->command);
	return locked;
}

/* tables whose row in pg_class has this value in an OID column */
static List *
relations_where(AttrNumber attno, Oid value)
{
	Relation	rel = table_open(RelationRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tup;
	List	   *relids = NIL;

	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tup);
		Oid			found = attno == Anum_pg_class_relowner ? form->relowner : form->relnamespace;

		if (found == value &&
			(form->relkind == RELKIND_RELATION || form->relkind == RELKIND_PARTITIONED_TABLE))
			relids = lappend_oid(relids, form->oid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return relids;
}

/* ---- ALTER TABLE ---- */

static void
before_alter(SxUtility *u, AlterTableStmt *stmt)
{
	Oid			relid = find_relation(stmt->relation);
	List	   *streams;
	List	   *tree;
	ListCell   *lc;
	const char *rewrite = NULL;
	bool		moves = false;

	if (!OidIsValid(relid))
		return;

	/* a parent that is a stream stands in the command, not in its target */
	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype == AT_AddInherit)
			check_inherit((RangeVar *) cmd->def);
	}

	if (!SxClassOwnerCheck(relid, GetUserId()))
		return;
	tree = tree_of(relid);
	foreach(lc, stmt->cmds)
		check_event_time(tree, lfirst_node(AlterTableCmd, lc));

	streams = streams_of_tree(relid);
	if (streams == NIL)
		return;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		switch (cmd->subtype)
		{
			case AT_AttachPartition:
				before_attach(relid, castNode(PartitionCmd, cmd->def));
				break;
			case AT_DetachPartition:
				before_detach(u, relid, castNode(PartitionCmd, cmd->def));
				break;
			case AT_SetTableSpace:
				moves = true;
				break;
			case AT_SetUnLogged:
				refuse_change(relid, streams, "SET UNLOGGED");
				break;
			case AT_SetAccessMethod:
				if (get_am_oid(cmd->name ? cmd->name : default_table_access_method, true) != HEAP_TABLE_AM_OID)
					refuse_change(relid, streams, "SET ACCESS METHOD");
				break;
			case AT_AlterColumnType:
				if (type_change_rewrites(relid, cmd))
					rewrite = "ALTER COLUMN TYPE";
				break;
			case AT_AddColumn:
				if (new_column_rewrites((ColumnDef *) cmd->def))
					rewrite = "ADD COLUMN";
				break;
			default:
				if (SxIsSetExpression(cmd->subtype))
					rewrite = "ALTER COLUMN SET EXPRESSION";
				break;
		}
	}
	if (rewrite != NULL)
		before_rewrite(u, relid, psprintf("ALTER TABLE ... %s", rewrite));
	else if (moves)
	{
		/* file_changes.c tells a copy from a rewrite by whose rows are in the new file */
		if (list_length(stmt->cmds) > 1)
			sx_check_own_rows(relid, "ALTER TABLE ... SET TABLESPACE with other changes");
		spare_a_scan(sx_streams_over(relid), "ALTER TABLE ... SET TABLESPACE");
	}
}

static void
refuse_change(Oid relid, List *streams, const char *command)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot run ALTER TABLE ... %s on \"%s\" while continuous views use it",
					command, get_rel_name(relid)),
			 errdetail("Inserts would not be in the write-ahead log as those of heap tables are: %s would miss them.",
					   sx_view_names(linitial_oid(streams))),
			 errhint("Drop the views first.")));
}

/* all rows get a new xmin: what is not read by then cannot be told from what is */
static void
before_rewrite(SxUtility *u, Oid relid, const char *command)
{
	Settle		arg = {.u = u, .command = command, .relid = relid};
	ListCell   *lc;

	foreach(lc, tree_of(relid))
		sx_check_own_rows(lfirst_oid(lc), command);
	sx_lock_streams(u, lock_rewritten, &arg);
}

static List *
lock_rewritten(void *arg)
{
	Settle	   *s = arg;

	wait_without_lock(streams_of_tree(s->relid), s->command);
	LockRelationOid(s->relid, ShareRowExclusiveLock);
	lock_tree(s->relid, ShareRowExclusiveLock);
	settle(s->u, streams_of_tree(s->relid), s->command);
	return tree_of(s->relid);
}

static void
before_attach(Oid parent, PartitionCmd *cmd)
{
	List	   *leaves = NIL;
	ListCell   *lc;
	Oid			child;

	if (get_rel_relkind(parent) != RELKIND_PARTITIONED_TABLE || sx_streams_over(parent) == NIL)
		return;

	LockRelationOid(parent, ShareUpdateExclusiveLock);
	child = RangeVarGetRelidExtended(cmd->name, ShareRowExclusiveLock, 0,
									 RangeVarCallbackOwnsRelation, NULL);
	lock_tree(child, ShareRowExclusiveLock);

	foreach(lc, tree_of(child))
	{
		Oid			relid = lfirst_oid(lc);
		char		relkind = get_rel_relkind(relid);
		Relation	rel;

		if (relkind == RELKIND_FOREIGN_TABLE)
			refuse_member(get_rel_name(relid), "a foreign table");
		if (relkind == RELKIND_PARTITIONED_TABLE)
			continue;
		rel = relation_open(relid, NoLock);
		if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
			refuse_member(RelationGetRelationName(rel), "an unlogged table");
		if (relkind == RELKIND_RELATION && rel->rd_rel->relam != HEAP_TABLE_AM_OID)
			refuse_member(RelationGetRelationName(rel), "not a heap table");
		relation_close(rel, NoLock);
		sx_check_rewritten(relid);
		leaves = lappend_oid(leaves, relid);
	}
	store_marks(parent, leaves, true);
}

static void
before_detach(SxUtility *u, Oid parent, PartitionCmd *cmd)
{
	Settle		arg = {.u = u, .command = "DETACH PARTITION", .parents = list_make1_oid(parent), .cmd = cmd};
	List	   *leaves = NIL;
	ListCell   *lc;
	Oid			child;

	if (sx_streams_over(parent) == NIL)
		return;

	/* it commits in between, where our lock would end and writers could go on */
	if (cmd->concurrent)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot detach a partition of a stream concurrently"),
				 errdetail("\"%s\" is a stream, or part of one, that continuous views use.",
						   get_rel_name(parent)),
				 errhint("Use ALTER TABLE ... DETACH PARTITION without CONCURRENTLY.")));

	sx_lock_streams(u, lock_detached, &arg);
	child = arg.relid;
	if (!OidIsValid(child))
		return;

	foreach(lc, tree_of(child))
	{
		/* its rows, all ours now, are counted: if it came back they would look new */
		if (sx_rewritten_by_us(lfirst_oid(lc)))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot detach partition \"%s\" in the transaction that has rewritten it",
							get_rel_name(lfirst_oid(lc))),
					 errhint("Commit before you detach it.")));
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION)
			leaves = lappend_oid(leaves, lfirst_oid(lc));
	}
	store_marks(parent, leaves, false);
}

/* core refuses what is no partition of this one */
static List *
lock_detached(void *arg)
{
	Settle	   *s = arg;
	Oid			parent = linitial_oid(s->parents);
	Oid			child = RangeVarGetRelid(s->cmd->name, NoLock, true);

	s->relid = InvalidOid;
	if (!OidIsValid(child) || !get_rel_relispartition(child) || get_partition_parent(child, true) != parent)
		return NIL;
	wait_without_lock(sx_streams_over(parent), s->command);
	LockRelationOid(parent, ShareRowExclusiveLock);
	child = RangeVarGetRelid(s->cmd->name, ShareRowExclusiveLock, true);
	if (!OidIsValid(child) || !get_rel_relispartition(child) || get_partition_parent(child, true) != parent)
		return NIL;
	lock_tree(child, ShareRowExclusiveLock);
	settle(s->u, sx_streams_over(parent), s->command);
	s->relid = child;
	return list_make2_oid(parent, child);
}

/*
 * What we have done to a table before we attach it is in the mark, since nobody can read the rows by WAL.
 * What we have inserted into one that we detach is not: should it come back, those are new.
 */
static void
store_marks(Oid parent, List *leaves, bool attached)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SxPosition *position = sx_position_from_snapshot(snapshot);
	uint64		own = U64FromFullTransactionId(GetTopFullTransactionId());
	ListCell   *lc;

	position = attached ? sx_position_with_own(position) : sx_position_without(position, &own, 1);
	foreach(lc, leaves)
		sx_catalog_add_mark(lfirst_oid(lc), parent, attached, position);
	UnregisterSnapshot(snapshot);
	SX_STOP_POINT(mark_stored);
}

static void
refuse_member(const char *name, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot make \"%s\" a partition of a stream", name),
			 errdetail("It is %s: its inserts are not in the write-ahead log as those of heap tables are.",
					   problem),
			 errhint("Use an ordinary, logged table, or drop the continuous views on the stream.")));
}

static void
check_inherit(const RangeVar *parent)
{
	Oid			relid = RangeVarGetRelid(parent, NoLock, true);

	if (OidIsValid(relid) && sx_catalog_stream(relid) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot inherit from stream \"%s\"", parent->relname),
				 errdetail("Rows of plain inheritance children would be missed."),
				 errhint("Use a partitioned table.")));
}

/* the event time of a stream stays a NOT NULL column of its type */
static void
check_event_time(List *tree, AlterTableCmd *cmd)
{
	ListCell   *lc;

	if (cmd->subtype != AT_DropColumn && cmd->subtype != AT_DropNotNull &&
		cmd->subtype != AT_AlterColumnType)
		return;
	foreach(lc, tree)
	{
		SxStreamDef *stream = sx_catalog_stream(lfirst_oid(lc));

		if (stream != NULL && cmd->name != NULL && NameStr(stream->event_time)[0] != '\0' &&
			strcmp(NameStr(stream->event_time), cmd->name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot change column \"%s\" because it is the event time of stream \"%s\"",
							cmd->name, get_rel_name(stream->streamid)),
					 errhint("Choose another one by streamext.alter_stream(), or streamext.drop_stream() first.")));
	}
}

/* by core's rule: only a relabelling, or no change at all, needs no rewrite */
static bool
type_change_rewrites(Oid relid, AlterTableCmd *cmd)
{
	ColumnDef  *def = castNode(ColumnDef, cmd->def);
	AttrNumber	attnum = get_attnum(relid, cmd->name);
	Oid			oldtype;
	int32		oldtypmod;
	Oid			oldcollation;
	Oid			newtype;
	int32		newtypmod;
	Node	   *expr;

	if (attnum <= 0)
		return false;
	if (def->raw_default != NULL)	/* USING */
		return true;
	get_atttypetypmodcoll(relid, attnum, &oldtype, &oldtypmod, &oldcollation);
	typenameTypeIdAndMod(NULL, def->typeName, &newtype, &newtypmod);
	expr = (Node *) makeVar(1, attnum, oldtype, oldtypmod, oldcollation, 0);
	expr = coerce_to_target_type(NULL, expr, oldtype, newtype, newtypmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (expr == NULL)
		return false;			/* core refuses it */
	assign_expr_collations(NULL, expr);
	expr = (Node *) expression_planner((Expr *) expr);
	while (IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	return !IsA(expr, Var);
}

static bool
new_column_rewrites(ColumnDef *column)
{
	static const char *const serials[] = {
		"smallserial", "serial2", "serial", "serial4", "bigserial", "serial8"
	};
	Node	   *raw_default = column->raw_default;
	ListCell   *lc;
	Oid			type;

	if (column->generated || column->identity)
		return true;
	if (column->typeName != NULL)
	{
		if (list_length(column->typeName->names) == 1 && !column->typeName->pct_type)
		{
			for (int i = 0; i < lengthof(serials); i++)
			{
				if (strcmp(strVal(linitial(column->typeName->names)), serials[i]) == 0)
					return true;
			}
		}
		type = LookupTypeNameOid(NULL, column->typeName, true);
		if (OidIsValid(type) && get_typtype(type) == TYPTYPE_DOMAIN && DomainHasConstraints(type))
			return true;
	}
	foreach(lc, column->constraints)
	{
		Constraint *con = lfirst_node(Constraint, lc);

		if (con->contype == CONSTR_IDENTITY || con->contype == CONSTR_GENERATED)
			return true;
		if (con->contype == CONSTR_DEFAULT)
			raw_default = con->raw_expr;
	}
	if (raw_default != NULL)
	{
		Node	   *expr = transformExpr(make_parsestate(NULL), copyObject(raw_default),
										 EXPR_KIND_COLUMN_DEFAULT);

		return contain_volatile_functions(expr);
	}
	return false;
}

/* ---- others ---- */

/* by name in our catalog: before core renames it, in the same transaction */
static void
before_rename_column(RenameStmt *stmt)
{
	Oid			relid;
	ListCell   *lc;

	if (stmt->relation == NULL)
		return;
	relid = find_relation(stmt->relation);
	if (!OidIsValid(relid) || !SxClassOwnerCheck(relid, GetUserId()))
		return;
	foreach(lc, tree_of(relid))
	{
		SxStreamDef *stream = sx_catalog_stream(lfirst_oid(lc));

		if (stream != NULL && strcmp(NameStr(stream->event_time), stmt->subname) == 0)
			sx_catalog_rename_event_time(stream->streamid, stmt->newname);
	}
}

static void
before_create(CreateStmt *stmt, bool foreign)
{
	Oid			parent;
	ListCell   *lc;

	if (stmt->inhRelations == NIL)
		return;
	if (stmt->partbound == NULL)
	{
		foreach(lc, stmt->inhRelations)
			check_inherit(lfirst_node(RangeVar, lc));
		return;
	}

	parent = RangeVarGetRelid(linitial_node(RangeVar, stmt->inhRelations), NoLock, true);
	if (!OidIsValid(parent) || sx_streams_over(parent) == NIL)
		return;
	if (foreign)
		refuse_member(stmt->relation->relname, "a foreign table");
	if (stmt->relation->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse_member(stmt->relation->relname, "an unlogged table");
	if (stmt->partspec == NULL)
	{
		const char *method = stmt->accessMethod ? stmt->accessMethod : default_table_access_method;

		if (get_am_oid(method, true) != HEAP_TABLE_AM_OID)
			refuse_member(stmt->relation->relname, "not a heap table");
	}
}

static void
before_vacuum(VacuumStmt *stmt)
{
	bool		full = false;
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "full") == 0)
			full = defGetBoolean(def);
	}
	if (!full || !stmt->is_vacuumcmd)
		return;
	if (stmt->rels == NIL)
		spare_a_scan(watched_streams(), "VACUUM FULL");
	foreach(lc, stmt->rels)
	{
		VacuumRelation *vrel = lfirst_node(VacuumRelation, lc);
		Oid			relid = vrel->oid;

		if (!OidIsValid(relid) && vrel->relation != NULL)
			relid = find_relation(vrel->relation);
		if (OidIsValid(relid))
			spare_a_scan(streams_of_tree(relid), "VACUUM FULL");
	}
}

static void
before_move_all(AlterTableMoveAllStmt *stmt)
{
	Oid			tablespace = get_tablespace_oid(stmt->orig_tablespacename, true);
	ListCell   *lc;

	if (!OidIsValid(tablespace) || stmt->objtype != OBJECT_TABLE)
		return;
	if (tablespace == MyDatabaseTableSpace)
		tablespace = InvalidOid;
	foreach(lc, watched_streams())
	{
		Oid			stream = lfirst_oid(lc);
		ListCell   *lc2;

		foreach(lc2, tree_of(stream))
		{
			if (get_rel_tablespace(lfirst_oid(lc2)) == tablespace)
			{
				spare_a_scan(list_make1_oid(stream), "ALTER TABLE ... SET TABLESPACE");
				break;
			}
		}
	}
}
