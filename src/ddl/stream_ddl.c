/*
 * stream_ddl.c
 *		Commands on streams: what has to happen before they run.
 *
 * Rows that are to vanish (TRUNCATE, DROP and DETACH of a partition) must be in the views'
 * tables first.  We lock the relations with ShareRowExclusiveLock, which keeps writers out
 * and lets the consumer read, and wait until everything committed by then is flushed; then
 * comes the command's AccessExclusiveLock.  The wait is in settle.c, the locks in stream_locks.c,
 * what comes and goes as a partition in partition_ddl.c.
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
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_type.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "ddl/ddl_internal.h"

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
} Settle;

static List *watched_streams(void);
static bool is_table(Oid relid);
static Oid	find_relation(const RangeVar *rv);

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
static void check_event_time(List *tree, AlterTableCmd *cmd);
static bool type_change_rewrites(Oid relid, AlterTableCmd *cmd);
static bool new_column_rewrites(ColumnDef *column);
static void before_rename_column(RenameStmt *stmt);
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
			sx_before_create((CreateStmt *) stmt, false);
			break;
		case T_CreateForeignTableStmt:
			sx_before_create(&((CreateForeignTableStmt *) stmt)->base, true);
			break;
		case T_VacuumStmt:
			before_vacuum((VacuumStmt *) stmt);
			break;
		case T_ClusterStmt:
			{
				RangeVar   *rv = ((ClusterStmt *) stmt)->relation;

				if (rv == NULL)
					sx_spare_a_scan(watched_streams(), "CLUSTER");
				else
				{
					Oid			relid = find_relation(rv);

					if (OidIsValid(relid))
						sx_spare_a_scan(sx_streams_of_tree(relid), "CLUSTER");
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

List *
sx_stream_tree(Oid relid)
{
	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return list_make1_oid(relid);
	return find_all_inheritors(relid, NoLock, NULL);
}

List *
sx_streams_of_tree(Oid relid)
{
	List	   *streams;
	List	   *watched = watched_streams();
	ListCell   *lc;

	if (watched == NIL)
		return NIL;
	streams = sx_streams_over(relid);
	foreach(lc, sx_stream_tree(relid))
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

void
sx_lock_tree(Oid relid, LOCKMODE lockmode)
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
		concerned = sx_streams_of_tree(relid);
		if (concerned != NIL)
		{
			sx_settle_unlocked(concerned, s->command);
			relid = RangeVarGetRelidExtended(rv, ShareRowExclusiveLock, 0, truncate_callback, NULL);
			sx_lock_tree(relid, ShareRowExclusiveLock);
			locked = list_concat_unique_oid(locked, sx_stream_tree(relid));
			streams = list_concat_unique_oid(streams, sx_streams_of_tree(relid));
		}
		relids = list_concat_unique_oid(relids, sx_stream_tree(relid));
	}

	/* tables that reference these are truncated as well */
	if (s->truncate->behavior == DROP_CASCADE && relids != NIL)
	{
		while ((referencing = heap_truncate_find_FKs(relids)) != NIL)
		{
			foreach(lc, referencing)
			{
				Oid			relid = lfirst_oid(lc);

				if (sx_streams_of_tree(relid) != NIL &&
					pg_class_aclcheck(relid, GetUserId(), ACL_TRUNCATE) == ACLCHECK_OK)
				{
					LockRelationOid(relid, ShareRowExclusiveLock);
					sx_lock_tree(relid, ShareRowExclusiveLock);
					locked = list_concat_unique_oid(locked, sx_stream_tree(relid));
					streams = list_concat_unique_oid(streams, sx_streams_of_tree(relid));
				}
				relids = list_concat_unique_oid(relids, sx_stream_tree(relid));
			}
		}
	}
	sx_settle(s->u, streams, s->command);
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
		gone = list_concat_unique_oid(gone, sx_stream_tree(lfirst_oid(lc)));

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

	sx_settle_unlocked(s->streams, s->command);
	foreach(lc, s->parents)
		LockRelationOid(lfirst_oid(lc), ShareRowExclusiveLock);
	foreach(lc, s->relids)
	{
		LockRelationOid(lfirst_oid(lc), ShareRowExclusiveLock);
		sx_lock_tree(lfirst_oid(lc), ShareRowExclusiveLock);
		locked = list_concat_unique_oid(locked, sx_stream_tree(lfirst_oid(lc)));
	}
	sx_settle(s->u, s->streams, s->command);
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
			sx_check_inherit((RangeVar *) cmd->def);
	}

	if (!SxClassOwnerCheck(relid, GetUserId()))
		return;
	tree = sx_stream_tree(relid);
	foreach(lc, stmt->cmds)
		check_event_time(tree, lfirst_node(AlterTableCmd, lc));

	streams = sx_streams_of_tree(relid);
	if (streams == NIL)
		return;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		switch (cmd->subtype)
		{
			case AT_AttachPartition:
				sx_before_attach(relid, castNode(PartitionCmd, cmd->def));
				break;
			case AT_DetachPartition:
				sx_before_detach(u, relid, castNode(PartitionCmd, cmd->def));
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
		sx_spare_a_scan(sx_streams_over(relid), "ALTER TABLE ... SET TABLESPACE");
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

	foreach(lc, sx_stream_tree(relid))
		sx_check_own_rows(lfirst_oid(lc), command);
	sx_lock_streams(u, lock_rewritten, &arg);
}

static List *
lock_rewritten(void *arg)
{
	Settle	   *s = arg;

	sx_settle_unlocked(sx_streams_of_tree(s->relid), s->command);
	LockRelationOid(s->relid, ShareRowExclusiveLock);
	sx_lock_tree(s->relid, ShareRowExclusiveLock);
	sx_settle(s->u, sx_streams_of_tree(s->relid), s->command);
	return sx_stream_tree(s->relid);
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
	foreach(lc, sx_stream_tree(relid))
	{
		SxStreamDef *stream = sx_catalog_stream(lfirst_oid(lc));

		if (stream != NULL && strcmp(NameStr(stream->event_time), stmt->subname) == 0)
			sx_catalog_rename_event_time(stream->streamid, stmt->newname);
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
		sx_spare_a_scan(watched_streams(), "VACUUM FULL");
	foreach(lc, stmt->rels)
	{
		VacuumRelation *vrel = lfirst_node(VacuumRelation, lc);
		Oid			relid = vrel->oid;

		if (!OidIsValid(relid) && vrel->relation != NULL)
			relid = find_relation(vrel->relation);
		if (OidIsValid(relid))
			sx_spare_a_scan(sx_streams_of_tree(relid), "VACUUM FULL");
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

		foreach(lc2, sx_stream_tree(stream))
		{
			if (get_rel_tablespace(lfirst_oid(lc2)) == tablespace)
			{
				sx_spare_a_scan(list_make1_oid(stream), "ALTER TABLE ... SET TABLESPACE");
				break;
			}
		}
	}
}
