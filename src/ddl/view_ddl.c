/*
 * view_ddl.c
 *		Commands on the relations of continuous views.
 *
 * A continuous view is a view to core, and commands on it as MATERIALIZED VIEW are passed on
 * as the same command on a VIEW.  What concerns the internal relations too (DROP, OWNER TO,
 * options, CREATE INDEX) is done here.  Commands given on the internal relations directly are
 * refused, but for what tunes storage: the view's contents depend on their shape.
 *
 * A dump restores the internal relations before their rows in streamext.view_def, so nothing
 * here stands in the way of pg_restore.
 *
 * Locking: the user's view first, by name and with core's checks, then the internal ones; a
 * reader of the view takes them in the same order.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "commands/tablecmds.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteDefine.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "batch/replace.h"
#include "catalog/alerts.h"
#include "ddl/ddl_internal.h"
#include "query/view_def.h"
#include "testing/stop_points.h"

/* ALTER of a view, split by what carries it out */
typedef struct AlterView
{
	SxViewDef  *def;
	AlterTableStmt *stmt;		/* the original */
	List	   *view_cmds;		/* for core, on the view */
	List	   *mat_cmds;		/* for core, on the materialized table */
	RoleSpec   *new_owner;
	bool		options;		/* these change */
	bool		on_close;
	int			flush_interval;
	int64		retention;
} AlterView;

static void refuse_internal_name(const RangeVar *rv);

static bool on_drop(SxUtility *u, DropStmt *stmt);
static ObjectAddress drop_run(SxUtility *u, void *arg);
static void drop_callback(const RangeVar *rv, Oid relid, Oid old_relid, void *arg);
static void add_if_there(ObjectAddresses *objects, Oid relid);

static bool on_alter(SxUtility *u, AlterTableStmt *stmt);
static void alter_view_options(AlterView *alter, AlterTableCmd *cmd);
static void alter_view_run(SxUtility *u, AlterView *alter);
static void check_new_owner(const SxViewDef *def, Oid new_owner);
static bool check_query_walker(Node *node, Oid *new_owner);

static bool on_rename(SxUtility *u, RenameStmt *stmt);
static char *query_column_of(const SxViewDef *def, const char *colname);
static void rename_query_column(const SxViewDef *def, const char *colname, const char *newname);
static bool on_set_schema(SxUtility *u, AlterObjectSchemaStmt *stmt);
static void on_create_table(CreateStmt *stmt);
static void on_create_view(ViewStmt *stmt);
static bool on_reindex(SxUtility *u, ReindexStmt *stmt);
static bool on_comment(SxUtility *u, CommentStmt *stmt);
static bool on_security_label(SxUtility *u, SecLabelStmt *stmt);
static void on_grant(GrantStmt *stmt);
static void on_truncate(TruncateStmt *stmt);
static bool on_refresh(SxUtility *u, RefreshMatViewStmt *stmt);
static ObjectAddress refresh_run(SxUtility *u, void *arg);

bool
sx_ddl_on_view(SxUtility *u)
{
	Node	   *stmt = u->stmt;

	switch (nodeTag(stmt))
	{
		case T_DropStmt:
			return on_drop(u, (DropStmt *) stmt);
		case T_AlterTableStmt:
			return on_alter(u, (AlterTableStmt *) stmt);
		case T_RenameStmt:
			return on_rename(u, (RenameStmt *) stmt);
		case T_AlterObjectSchemaStmt:
			return on_set_schema(u, (AlterObjectSchemaStmt *) stmt);
		case T_IndexStmt:
			return sx_on_create_index(u, (IndexStmt *) stmt);
		case T_ReindexStmt:
			return on_reindex(u, (ReindexStmt *) stmt);
		case T_CommentStmt:
			return on_comment(u, (CommentStmt *) stmt);
		case T_SecLabelStmt:
			return on_security_label(u, (SecLabelStmt *) stmt);

		case T_RefreshMatViewStmt:
			return on_refresh(u, (RefreshMatViewStmt *) stmt);
		case T_ViewStmt:
			on_create_view((ViewStmt *) stmt);
			return false;
		case T_GrantStmt:
			on_grant((GrantStmt *) stmt);
			return false;
		case T_TruncateStmt:
			on_truncate((TruncateStmt *) stmt);
			return false;
		case T_CreateTrigStmt:
			refuse_internal_name(((CreateTrigStmt *) stmt)->relation);
			return false;
		case T_CreatePolicyStmt:
			refuse_internal_name(((CreatePolicyStmt *) stmt)->table);
			return false;
		case T_CreateStmt:
			on_create_table((CreateStmt *) stmt);
			return false;
		case T_RuleStmt:
			{
				SxViewDef  *def = sx_find_view(((RuleStmt *) stmt)->relation, NULL);

				if (def != NULL)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("cannot create a rule on continuous view \"%s\"",
									get_rel_name(def->viewid))));
				return false;
			}
		default:
			return false;
	}
}

/* ---- finding ---- */

/* the view that this name has something to do with; *relid: which relation it is */
SxViewDef *
sx_find_view(const RangeVar *rv, Oid *relid)
{
	Oid			found;

	if (rv == NULL)
		return NULL;
	found = RangeVarGetRelid(rv, NoLock, true);
	if (relid)
		*relid = found;
	return OidIsValid(found) ? sx_catalog_view_by_any(found) : NULL;
}

void
sx_refuse_internal(const SxViewDef *def, Oid relid)
{
	SxAlertDef *alert = sx_catalog_alert(relid);

	if (alert != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" is internal to alert \"%s\"", get_rel_name(relid), alert->name),
				 errhint("Use streamext.create_alert() and streamext.drop_alert().")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("\"%s\" is internal to continuous view \"%s\"",
					get_rel_name(relid), get_rel_name(def->viewid)),
			 errhint("Use the command on \"%s\".", get_rel_name(def->viewid))));
}

static void
refuse_internal_name(const RangeVar *rv)
{
	Oid			relid;
	SxViewDef  *def = sx_find_view(rv, &relid);

	if (def != NULL && relid != def->viewid)
		sx_refuse_internal(def, relid);
}

RangeVar *
sx_range_var_of(Oid relid)
{
	return makeRangeVar(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid), -1);
}

char *
sx_name_to_type(Oid relid)
{
	return quote_qualified_identifier(RelationIsVisible(relid) ? NULL : get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

char *
sx_argument_to_type(Oid relid)
{
	return quote_literal_cstr(sx_name_to_type(relid));
}

/* ---- DROP ---- */

static bool
on_drop(SxUtility *u, DropStmt *stmt)
{
	bool		any = false;
	ListCell   *lc;

	if (stmt->removeType == OBJECT_INDEX)
		return sx_on_drop_index(u, stmt);
	if (stmt->removeType != OBJECT_MATVIEW && stmt->removeType != OBJECT_VIEW &&
		stmt->removeType != OBJECT_TABLE)
		return false;

	foreach(lc, stmt->objects)
	{
		Oid			relid;
		SxViewDef  *def = sx_find_view(makeRangeVarFromNameList((List *) lfirst(lc)), &relid);

		if (def == NULL)
			continue;
		if (relid != def->viewid)
			sx_refuse_internal(def, relid);
		any = true;
	}
	if (!any || stmt->removeType == OBJECT_TABLE)
		return false;
	sx_utility_run(u, stmt->removeType == OBJECT_VIEW ? CMDTAG_DROP_VIEW : CMDTAG_DROP_MATERIALIZED_VIEW,
				   drop_run, stmt);
	return true;
}

/*
 * All objects of the command in one deletion, as core does, so that they may depend on each
 * other.  A view's three relations, and its alerts, are named together: what depends on the view from outside is
 * then judged by RESTRICT and CASCADE as if the view stood alone.
 */
static ObjectAddress
drop_run(SxUtility *u, void *arg)
{
	DropStmt   *stmt = arg;
	const char *kind = stmt->removeType == OBJECT_VIEW ? "view" : "materialized view";
	ObjectAddresses *objects = new_object_addresses();
	ListCell   *lc;
	ListCell   *alert;
	Oid			relid = InvalidOid;
	SxViewDef  *def;

	foreach(lc, stmt->objects)
	{
		RangeVar   *rv = makeRangeVarFromNameList((List *) lfirst(lc));

		AcceptInvalidationMessages();
		relid = RangeVarGetRelidExtended(rv, AccessExclusiveLock, RVR_MISSING_OK,
										 drop_callback, stmt);
		if (!OidIsValid(relid))
		{
			if (!stmt->missing_ok)
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_TABLE),
						 errmsg("%s \"%s\" does not exist", kind, rv->relname)));
			ereport(NOTICE,
					(errmsg("%s \"%s\" does not exist, skipping", kind, rv->relname)));
			continue;
		}
		add_if_there(objects, relid);
		def = sx_catalog_view(relid);
		if (def != NULL)
		{
			add_if_there(objects, def->queryid);
			add_if_there(objects, def->matid);
			foreach(alert, sx_catalog_alerts(relid))
				add_if_there(objects, ((SxAlertDef *) lfirst(alert))->alertid);
		}
	}
	if (list_length(stmt->objects) == 1 && OidIsValid(relid))
		sx_messages_dropping(relid);
	SX_STOP_POINT(drop_begin);
	performMultipleDeletions(objects, stmt->behavior, 0);
	free_object_addresses(objects);
	SX_STOP_POINT(drop_done);
	return InvalidObjectAddress;
}

/* the checks that core makes before it locks what it drops; system views are pinned anyway */
static void
drop_callback(const RangeVar *rv, Oid relid, Oid old_relid, void *arg)
{
	DropStmt   *stmt = arg;
	bool		as_view = stmt->removeType == OBJECT_VIEW;
	HeapTuple	tup;
	Form_pg_class form;

	if (!OidIsValid(relid))
		return;
	tup = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tup))
		return;					/* concurrently dropped */
	form = (Form_pg_class) GETSTRUCT(tup);

	if (form->relkind != (as_view ? RELKIND_VIEW : RELKIND_MATVIEW) &&
		sx_catalog_view(relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a %s", rv->relname, as_view ? "view" : "materialized view")));
	if (!SxClassOwnerCheck(relid, GetUserId()) &&
		!SxNamespaceOwnerCheck(form->relnamespace, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(form->relkind), rv->relname);
	ReleaseSysCache(tup);
}

static void
add_if_there(ObjectAddresses *objects, Oid relid)
{
	ObjectAddress address;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		return;
	ObjectAddressSet(address, RelationRelationId, relid);
	add_exact_object_address(&address, objects);
}

/* ---- REFRESH ---- */

typedef struct RefreshArgs
{
	SxViewDef  *def;
	Oid			hidden;
} RefreshArgs;

/*
 * The view serves while it is built anew.  By itself the command waits until that is done, as REFRESH does; in
 * a transaction block it only says that it is to be done.
 */
static bool
on_refresh(SxUtility *u, RefreshMatViewStmt *stmt)
{
	RefreshArgs args = {.def = sx_find_view(stmt->relation, NULL)};
	bool		top_level = u->context == PROCESS_UTILITY_TOPLEVEL;
	Oid			viewid;
	Oid			matid;

	if (args.def == NULL)
		return false;
	if (stmt->skipData)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("REFRESH WITH NO DATA is not supported for continuous view \"%s\"", get_rel_name(args.def->viewid)),
				 errhint("Drop the view and create it again WITH NO DATA.")));
	viewid = args.def->viewid;
	sx_utility_run(u, CMDTAG_REFRESH_MATERIALIZED_VIEW, refresh_run, &args);
	matid = sx_catalog_view(viewid)->matid;
	if (IsInTransactionBlock(top_level))
	{
		ereport(NOTICE,
				(errmsg("continuous view \"%s\" is rebuilt when the transaction has ended", get_rel_name(viewid)),
				 errhint("SELECT streamext.wait_for(%s) waits for it.", sx_argument_to_type(viewid))));
		return true;
	}
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	sx_refresh_wait(viewid, matid, args.hidden);
	StartTransactionCommand();
	return true;
}

static ObjectAddress
refresh_run(SxUtility *u, void *arg)
{
	RefreshArgs *args = arg;
	ObjectAddress address;

	if (!SxClassOwnerCheck(args->def->viewid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, get_rel_name(args->def->viewid));
	args->hidden = sx_refresh_begin(args->def);
	ObjectAddressSet(address, RelationRelationId, args->def->viewid);
	return address;
}

/* ---- ALTER ---- */

static bool
on_alter(SxUtility *u, AlterTableStmt *stmt)
{
	AlterView	alter = {0};
	Oid			relid;
	SxViewDef  *def = sx_find_view(stmt->relation, &relid);
	ListCell   *lc;

	/* the parent, or the partition, stands in the command */
	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype == AT_AddInherit)
			refuse_internal_name(castNode(RangeVar, cmd->def));
		else if (cmd->subtype == AT_AttachPartition)
			refuse_internal_name(castNode(PartitionCmd, cmd->def)->name);
	}

	if (def == NULL)
		return sx_on_alter_index(u, stmt);
	if (relid != def->viewid)
	{
		sx_alter_internal(def, relid, stmt);
		return false;
	}

	if (!SxClassOwnerCheck(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, stmt->relation->relname);
	sx_refuse_while_replaced(def);

	alter.def = def;
	alter.stmt = stmt;
	alter.on_close = def->on_close;
	alter.flush_interval = def->flush_interval;
	alter.retention = def->retention;
	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		switch (cmd->subtype)
		{
			case AT_ChangeOwner:
				alter.new_owner = cmd->newowner;
				alter.view_cmds = lappend(alter.view_cmds, cmd);
				break;
			case AT_ColumnDefault:
				alter.view_cmds = lappend(alter.view_cmds, cmd);
				break;
			case AT_SetRelOptions:
			case AT_ResetRelOptions:
				alter_view_options(&alter, cmd);
				break;
			case AT_SetTableSpace:
				alter.mat_cmds = lappend(alter.mat_cmds, cmd);
				break;
			default:
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("this form of ALTER is not supported for continuous view \"%s\"",
								stmt->relation->relname),
						 errhint("Supported are RENAME, SET SCHEMA, OWNER TO, SET and RESET.")));
		}
	}
	alter_view_run(u, &alter);
	return true;
}

/* what tunes storage is the owner's business */
void
sx_alter_internal(const SxViewDef *def, Oid relid, AlterTableStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		switch (lfirst_node(AlterTableCmd, lc)->subtype)
		{
			case AT_SetRelOptions:
			case AT_ResetRelOptions:
			case AT_SetStatistics:
			case AT_SetOptions:
			case AT_ResetOptions:
			case AT_SetStorage:
			case AT_SetCompression:
			case AT_SetTableSpace:
			case AT_ClusterOn:
			case AT_DropCluster:
			case AT_ReplicaIdentity:
				break;
			default:
				sx_refuse_internal(def, relid);
		}
	}
	/* an internal view has no storage, and its options change what it means */
	if (relid != def->matid)
		sx_refuse_internal(def, relid);
}

/*
 * Ours go to the catalog, and only those named change; fillfactor and the like are the
 * materialized table's, security_barrier is the view's.
 */
static void
alter_view_options(AlterView *alter, AlterTableCmd *cmd)
{
	bool		reset = cmd->subtype == AT_ResetRelOptions;
	List	   *ours = NIL;
	List	   *for_view = NIL;
	List	   *for_mat = NIL;
	ListCell   *lc;

	foreach(lc, (List *) cmd->def)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (def->defnamespace != NULL && strcmp(def->defnamespace, SX_EXTENSION) == 0)
			ours = lappend(ours, def);
		else if (def->defnamespace == NULL && strcmp(def->defname, "security_barrier") == 0)
			for_view = lappend(for_view, def);
		else if (def->defnamespace == NULL &&
				 (strcmp(def->defname, "security_invoker") == 0 ||
				  strcmp(def->defname, "check_option") == 0))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("option \"%s\" is not supported for continuous view \"%s\"",
							def->defname, get_rel_name(alter->def->viewid))));
		else
			for_mat = lappend(for_mat, def);
	}

	foreach(lc, ours)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		bool		emit = strcmp(def->defname, "emit") == 0;
		bool		retention = strcmp(def->defname, "retention") == 0;
		SxViewOptions parsed = {.flush_interval = -1, .retention = -1};
		bool		continuous = false;

		if (!emit && !retention && strcmp(def->defname, "flush_interval") != 0)
		{
			/* an unknown one is refused as at CREATE */
			if (strcmp(def->defname, "continuous") != 0 && strcmp(def->defname, "stream") != 0)
				(void) sx_view_parse_options(list_make1(copyObject(def)), &parsed, &continuous);
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("option \"streamext.%s\" cannot be changed", def->defname),
					 errhint("Drop the view and create it again.")));
		}
		if (!reset)
			(void) sx_view_parse_options(list_make1(copyObject(def)), &parsed, &continuous);
		if (emit)
			alter->on_close = parsed.on_close;
		else if (retention)
			alter->retention = parsed.retention;
		else
			alter->flush_interval = parsed.flush_interval;
		alter->options = true;
	}

	if (for_view != NIL)
	{
		AlterTableCmd *copy = copyObject(cmd);

		copy->def = (Node *) for_view;
		alter->view_cmds = lappend(alter->view_cmds, copy);
	}
	if (for_mat != NIL)
	{
		AlterTableCmd *copy = copyObject(cmd);

		copy->def = (Node *) for_mat;
		alter->mat_cmds = lappend(alter->mat_cmds, copy);
	}
}

static void
alter_view_run(SxUtility *u, AlterView *alter)
{
	Oid			new_owner = InvalidOid;
	ListCell   *lc;

	PreventCommandIfReadOnly("ALTER MATERIALIZED VIEW");
	PreventCommandIfParallelMode("ALTER MATERIALIZED VIEW");
	PreventCommandDuringRecovery("ALTER MATERIALIZED VIEW");

	if (alter->new_owner != NULL)
	{
		new_owner = get_rolespec_oid(alter->new_owner, false);
		check_new_owner(alter->def, new_owner);
	}

	if (alter->view_cmds != NIL)
	{
		AlterTableStmt *stmt = copyObject(alter->stmt);

		stmt->objtype = OBJECT_VIEW;
		stmt->cmds = copyObject(alter->view_cmds);
		sx_utility_next(u, (Node *) stmt);
	}
	if (alter->mat_cmds != NIL)
	{
		AlterTableStmt *stmt = makeNode(AlterTableStmt);

		stmt->relation = sx_range_var_of(alter->def->matid);
		stmt->objtype = OBJECT_TABLE;
		stmt->cmds = copyObject(alter->mat_cmds);
		sx_utility_next(u, (Node *) stmt);
	}
	if (OidIsValid(new_owner))
	{
		/* core has checked that this user may give the view to that role */
		ATExecChangeOwner(alter->def->queryid, new_owner, true, AccessExclusiveLock);
		ATExecChangeOwner(alter->def->matid, new_owner, true, AccessExclusiveLock);
		foreach(lc, sx_catalog_alerts(alter->def->viewid))
			ATExecChangeOwner(((SxAlertDef *) lfirst(lc))->alertid, new_owner, true, AccessExclusiveLock);
		CommandCounterIncrement();
		sx_catalog_announce();
	}
	if (alter->options)
	{
		/* conflicts with itself: one change of the row at a time */
		LockRelationOid(alter->def->viewid, ShareUpdateExclusiveLock);
		if (alter->on_close != alter->def->on_close)
			sx_view_set_emit(alter->def, alter->on_close);
		if (alter->retention >= 0 && alter->def->retention < 0)
			sx_view_prepare_retention(alter->def);
		sx_catalog_set_options(alter->def->viewid, alter->on_close, alter->flush_interval, alter->retention);
	}
}

/* the workers will run the query as the new owner */
static void
check_new_owner(const SxViewDef *def, Oid new_owner)
{
	Relation	rel = table_open(def->queryid, AccessShareLock);
	Query	   *query = copyObject(get_view_query(rel));

	setRuleCheckAsUser((Node *) query, new_owner);
	(void) check_query_walker((Node *) query, &new_owner);
	table_close(rel, NoLock);
}

static bool
check_query_walker(Node *node, Oid *new_owner)
{
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, check_query_walker, new_owner);

	(void) SxCheckQueryPermissions((Query *) node);
	foreach(lc, ((Query *) node)->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION &&
			check_enable_rls(rte->relid, *new_owner, true) == RLS_ENABLED)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("role \"%s\" is subject to row security on table \"%s\"",
							GetUserNameFromId(*new_owner, false), get_rel_name(rte->relid)),
					 errhint("Choose an owner that row security does not apply to.")));
	}
	return query_tree_walker((Query *) node, check_query_walker, new_owner, 0);
}

static bool
on_rename(SxUtility *u, RenameStmt *stmt)
{
	Oid			relid;
	SxViewDef  *def;
	RenameStmt *copy;

	switch (stmt->renameType)
	{
		case OBJECT_SCHEMA:
			if (stmt->subname != NULL && strcmp(stmt->subname, SX_SCHEMA) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("schema \"%s\" cannot be renamed: its name is part of extension \"%s\"",
								SX_SCHEMA, SX_EXTENSION)));
			return false;
		case OBJECT_INDEX:
			if (sx_on_rename_index(u, stmt))
				return true;
			break;				/* core takes the name of any relation here */
		case OBJECT_TABLE:
		case OBJECT_VIEW:
		case OBJECT_MATVIEW:
		case OBJECT_COLUMN:
		case OBJECT_TABCONSTRAINT:
		case OBJECT_TRIGGER:
		case OBJECT_RULE:
		case OBJECT_POLICY:
			break;
		default:
			return false;
	}

	def = sx_find_view(stmt->relation, &relid);
	if (def == NULL)
		return false;
	if (relid != def->viewid)
		sx_refuse_internal(def, relid);
	if (stmt->renameType == OBJECT_RULE)
		return false;			/* core refuses it: there is but "_RETURN" */

	copy = copyObject(stmt);
	if (copy->renameType == OBJECT_MATVIEW)
		copy->renameType = OBJECT_VIEW;
	if (copy->relationType == OBJECT_MATVIEW)
		copy->relationType = OBJECT_VIEW;
	if (copy->renameType == OBJECT_COLUMN)
	{
		char	   *column = query_column_of(def, stmt->subname);

		sx_refuse_while_replaced(def);
		sx_utility_next(u, (Node *) copy);
		if (column != NULL)
			rename_query_column(def, column, stmt->newname);
	}
	else
		sx_utility_next(u, (Node *) copy);
	return true;
}

/*
 * The column of the query view behind this one of the user's view, so that the definition shows
 * the names that the view has; NULL: none, and core says why.
 */
static char *
query_column_of(const SxViewDef *def, const char *colname)
{
	AttrNumber	attno = get_attnum(def->viewid, colname);

	return attno > 0 ? get_attname(def->queryid, attno, true) : NULL;
}

/* core has checked that this user may rename the view's */
static void
rename_query_column(const SxViewDef *def, const char *colname, const char *newname)
{
	RenameStmt *stmt;

	if (get_attnum(def->queryid, newname) != InvalidAttrNumber)
		return;
	stmt = makeNode(RenameStmt);
	stmt->renameType = OBJECT_COLUMN;
	stmt->relationType = OBJECT_VIEW;
	stmt->relation = sx_range_var_of(def->queryid);
	stmt->relation->inh = false;
	stmt->subname = pstrdup(colname);
	stmt->newname = pstrdup(newname);
	CommandCounterIncrement();
	(void) renameatt(stmt);
	CommandCounterIncrement();
}

static bool
on_set_schema(SxUtility *u, AlterObjectSchemaStmt *stmt)
{
	Oid			relid;
	SxViewDef  *def;
	AlterObjectSchemaStmt *copy;

	if (stmt->objectType != OBJECT_MATVIEW && stmt->objectType != OBJECT_VIEW &&
		stmt->objectType != OBJECT_TABLE)
		return false;
	def = sx_find_view(stmt->relation, &relid);
	if (def == NULL)
		return false;
	if (relid != def->viewid)
		sx_refuse_internal(def, relid);
	copy = copyObject(stmt);
	copy->objectType = OBJECT_VIEW;
	sx_utility_next(u, (Node *) copy);
	return true;
}

/* ---- CREATE TABLE, CREATE VIEW, CREATE INDEX ---- */

/* a child's rows would be rows of the view */
static void
on_create_table(CreateStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->inhRelations)
		refuse_internal_name(lfirst_node(RangeVar, lc));
}

static void
on_create_view(ViewStmt *stmt)
{
	Oid			relid;
	SxViewDef  *def;
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		DefElem    *elem = lfirst_node(DefElem, lc);

		if (elem->defnamespace != NULL && strcmp(elem->defnamespace, SX_EXTENSION) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("option \"streamext.%s\" is not for CREATE VIEW", elem->defname),
					 errhint("Use CREATE MATERIALIZED VIEW ... WITH (streamext.continuous) AS ...")));
	}
	if (!stmt->replace || stmt->view->relpersistence == RELPERSISTENCE_TEMP)
		return;
	relid = get_relname_relid(stmt->view->relname, RangeVarGetCreationNamespace(stmt->view));
	def = OidIsValid(relid) ? sx_catalog_view_by_any(relid) : NULL;
	if (def != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot replace \"%s\": it belongs to a continuous view",
						stmt->view->relname),
				 errhint("DROP MATERIALIZED VIEW %s; and create it again.",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(def->viewid)),
													get_rel_name(def->viewid)))));
}

/* ---- others ---- */

/* of the view's materialized table, or of one index of it */
static bool
on_reindex(SxUtility *u, ReindexStmt *stmt)
{
	RangeVar   *target = NULL;
	ReindexStmt *copy;

	if (stmt->kind == REINDEX_OBJECT_INDEX)
		target = sx_hidden_index(stmt->relation);
	else if (stmt->kind == REINDEX_OBJECT_TABLE)
	{
		Oid			relid;
		SxViewDef  *def = sx_find_view(stmt->relation, &relid);

		if (def != NULL && relid == def->viewid)
		{
			if (!SxClassOwnerCheck(relid, GetUserId()))
				aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, stmt->relation->relname);
			target = sx_range_var_of(def->matid);
		}
	}
	if (target == NULL)
		return false;
	copy = copyObject(stmt);
	copy->relation = target;
	sx_utility_next(u, (Node *) copy);
	return true;
}

static bool
on_comment(SxUtility *u, CommentStmt *stmt)
{
	Oid			relid;
	SxViewDef  *def;
	CommentStmt *copy;

	if (stmt->objtype == OBJECT_INDEX)
	{
		RangeVar   *index = sx_hidden_index(makeRangeVarFromNameList(castNode(List, stmt->object)));

		if (index == NULL)
			return false;
		copy = copyObject(stmt);
		copy->object = (Node *) list_make2(makeString(index->schemaname), makeString(index->relname));
		sx_utility_next(u, (Node *) copy);
		return true;
	}
	if (stmt->objtype != OBJECT_MATVIEW)
		return false;
	def = sx_find_view(makeRangeVarFromNameList(castNode(List, stmt->object)), &relid);
	if (def == NULL || relid != def->viewid)
		return false;
	copy = copyObject(stmt);
	copy->objtype = OBJECT_VIEW;
	sx_utility_next(u, (Node *) copy);
	return true;
}

static bool
on_security_label(SxUtility *u, SecLabelStmt *stmt)
{
	Oid			relid;
	SxViewDef  *def;
	SecLabelStmt *copy;

	if (stmt->objtype != OBJECT_MATVIEW)
		return false;
	def = sx_find_view(makeRangeVarFromNameList(castNode(List, stmt->object)), &relid);
	if (def == NULL || relid != def->viewid)
		return false;
	copy = copyObject(stmt);
	copy->objtype = OBJECT_VIEW;
	sx_utility_next(u, (Node *) copy);
	return true;
}

/* the internal relations are read through the view, as its owner */
static void
on_grant(GrantStmt *stmt)
{
	ListCell   *lc;

	if (stmt->targtype != ACL_TARGET_OBJECT || stmt->objtype != OBJECT_TABLE)
		return;
	foreach(lc, stmt->objects)
		refuse_internal_name(lfirst_node(RangeVar, lc));
}

/* before the first flush, as pg_restore does it, nothing is lost */
static void
on_truncate(TruncateStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->relations)
	{
		Oid			relid;
		SxViewDef  *def = sx_find_view(lfirst_node(RangeVar, lc), &relid);

		if (def == NULL || relid != def->matid)
			continue;
		/* a builder that is about to store the position comes first */
		if (pg_class_aclcheck(relid, GetUserId(), ACL_TRUNCATE) == ACLCHECK_OK)
			LockRelationOid(relid, AccessExclusiveLock);
		if (sx_catalog_position(def->viewid) == NULL)
			continue;
		/*
		 * A parallel restore may be so late with the rows of a dump that workers have built the view already.  It
		 * is built once more then: what they have written goes with the TRUNCATE, and what comes is worth nothing.
		 * Who restores a dump has turned off this setting, whatever the session is called.
		 */
		if (pg_class_aclcheck(relid, GetUserId(), ACL_TRUNCATE) != ACLCHECK_OK || check_function_bodies)
			sx_refuse_internal(def, relid);
		sx_catalog_delete_position(def->viewid);
		sx_catalog_announce();
	}
}
