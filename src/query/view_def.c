/*
 * view_def.c
 *		Makes the three relations of a continuous view.
 *
 *	 streamext.query_<n>	a view: the user's SELECT as given, so that PostgreSQL itself
 *							follows renames and keeps dependencies
 *	 streamext.mat_<n>		a table: keys, partial states, and results of some aggregates (view_info.h), or rows
 *	 the user's view		SELECT keys, results or finalize(states) FROM mat_<n>, (SELECT) live
 *							WHERE having ORDER BY as given; where the table keeps panes, from
 *							the windows made of them (panes.h)
 *
 * Names in schema streamext: the user needs no CREATE privilege there, so the two
 * internal relations are made under the identity of the extension's owner, and belong
 * to the user.  Nothing that the user could have written runs meanwhile: there are no
 * defaults, constraints or expressions in them.
 *
 * All of it happens in the transaction of the CREATE statement: an error or a crash
 * leaves nothing.
 */
#include "query/view_def.h"

#include "access/reloptions.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "catalog/toasting.h"
#include "commands/defrem.h"
#include "commands/sequence.h"
#include "commands/tablecmds.h"
#include "commands/tablespace.h"
#include "commands/view.h"
#include "live/merge.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query/analyze_internal.h"
#include "query/panes.h"
#include "query/plan.h"
#include "query/view_def_internal.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "testing/stop_points.h"

/* room for updates of the rows of a page in place */
#define MERGE_FILLFACTOR	"70"

static List *output_names(IntoClause *into, Query *query);
static void refuse_sublinks_on_with(Query *query);
static bool sublink_uses_with(Node *node, int *level);
static List *column_defs(List *columns);
static Oid	create_table(IntoClause *into, SxAnalysis *a, List *columns, const char *relname, Oid owner);
static void identify_rows(Oid matid);
static List *table_options(IntoClause *into, SxStrategy strategy);
static void create_unique_index(Oid matid, List *columns, int nkeys, const char *relname);
static ObjectAddress create_user_view(IntoClause *into, SxAnalysis *a, List *names, List *columns,
									  const SxViewDef *def, Oid owner);
static void check_tablespace(IntoClause *into);
static void register_stream(Oid streamid);
static void insert_only_row(const SxViewDef *def);
static void keep_row(void *arg, TupleTableSlot *row);

ObjectAddress
sx_view_create(IntoClause *into, Query *query, const SxViewOptions *options)
{
	Oid			owner = GetUserId();
	SxAnalysis *a;
	List	   *names;
	List	   *columns;
	SxViewDef	def = {0};
	ObjectAddress view;
	ObjectAddress queryview;
	ObjectAddress mat;
	int64		number;
	char		queryname[NAMEDATALEN];
	char		matname[NAMEDATALEN];
	char		indexname[NAMEDATALEN];
	char		viewname[NAMEDATALEN];
	Oid			schema = sx_catalog_schema_oid();
	Oid			save_userid;
	int			save_sec_context;

	if (into->rel->relpersistence != RELPERSISTENCE_PERMANENT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("a continuous view cannot be temporary or unlogged"),
				 errhint("Use CREATE MATERIALIZED VIEW.")));
	if (into->accessMethod != NULL && strcmp(into->accessMethod, "heap") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous view cannot use access method \"%s\"", into->accessMethod),
				 errhint("Use heap.")));
	check_tablespace(into);

	a = sx_analyze(query, options->stream);
	refuse_sublinks_on_with(query);
	names = output_names(into, query);
	def.panes = sx_keeps_panes(a);
	if (def.panes)
	{
		/* it depends on the stream's late_rows, which must stay as it is */
		sx_catalog_lock_stream(a->streamid);
		def.panes = sx_keeps_panes(a);
	}
	columns = sx_table_columns(a, names, def.panes);

	/* an index on another view may have taken one of these names */
	do
	{
		number = nextval_internal(get_relname_relid("view_id_seq", schema), false);
		snprintf(queryname, sizeof(queryname), "query_" INT64_FORMAT, number);
		snprintf(matname, sizeof(matname), "mat_" INT64_FORMAT, number);
		snprintf(indexname, sizeof(indexname), "%s_key", matname);
		snprintf(viewname, sizeof(viewname), "view_" INT64_FORMAT, number);
	} while (OidIsValid(get_relname_relid(viewname, schema)) ||
			 OidIsValid(get_relname_relid(queryname, schema)) ||
			 OidIsValid(get_relname_relid(matname, schema)) ||
			 OidIsValid(get_relname_relid(indexname, schema)));

	/* the internal relations, as the extension's owner: see above */
	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(sx_catalog_extension_owner(),
						   save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	def.queryid = sx_create_internal_view(query, names, queryname, owner);
	SX_STOP_POINT(create_query);
	def.matid = create_table(into, a, columns, matname, owner);
	SX_STOP_POINT(create_table);
	SetUserIdAndSecContext(save_userid, save_sec_context);

	def.nkeys = a->strategy == SX_APPEND ? 0 : def.panes ? list_length(a->keys) + 1 : Max(list_length(a->keys), 1);
	if (def.nkeys > 0)
		create_unique_index(def.matid, columns, def.nkeys, matname);
	if (def.panes)
		sx_view_index_window(&def, sx_needed_window(a, "hop()"), false);
	if (OidIsValid(options->replaces))
	{
		into->rel = makeRangeVar(SX_SCHEMA, viewname, -1);
		SetUserIdAndSecContext(sx_catalog_extension_owner(), save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	}
	view = create_user_view(into, a, names, columns, &def, owner);
	SetUserIdAndSecContext(save_userid, save_sec_context);
	SX_STOP_POINT(create_view);
	if (options->on_close)
	{
		def.viewid = view.objectId;
		def.streamid = a->streamid;
		sx_view_set_emit(&def, true);
	}
	if (options->retention >= 0)
	{
		def.streamid = a->streamid;
		sx_view_prepare_retention(&def);
	}

	ObjectAddressSet(queryview, RelationRelationId, def.queryid);
	ObjectAddressSet(mat, RelationRelationId, def.matid);
	recordDependencyOn(&view, &queryview, DEPENDENCY_INTERNAL);
	recordDependencyOn(&mat, &queryview, DEPENDENCY_INTERNAL);
	if (OidIsValid(options->replaces))
	{
		ObjectAddress replaced;

		ObjectAddressSet(replaced, RelationRelationId, options->replaces);
		recordDependencyOn(&queryview, &replaced, DEPENDENCY_AUTO);
	}

	/*
	 * The columns as well: what drops one, with its type, must drop the view as a whole.  From
	 * the column alone core would get to the view, to the query and back to the table, and drop
	 * the table before its column.
	 */
	for (int i = 1; i <= list_length(columns); i++)
	{
		ObjectAddressSubSet(mat, RelationRelationId, def.matid, i);
		recordDependencyOn(&mat, &queryview, DEPENDENCY_INTERNAL);
	}

	def.viewid = view.objectId;
	def.streamid = a->streamid;
	def.owner = owner;
	def.strategy = a->strategy;
	def.with_data = !into->skipData;
	def.on_close = options->on_close;
	def.flush_interval = options->flush_interval;
	def.retention = options->retention;
	def.settings = options->settings != NIL ? options->settings : sx_pinned_settings();
	def.replaces = options->replaces;
	register_stream(def.streamid);
	sx_catalog_insert_view(&def);
	CommandCounterIncrement();
	SX_STOP_POINT(create_registered);

	if (a->strategy == SX_MERGE && a->keys == NIL)
		insert_only_row(&def);
	return view;
}

/* names of the output columns: the column list of CREATE first, then the SELECT's own */
static List *
output_names(IntoClause *into, Query *query)
{
	List	   *names = NIL;
	ListCell   *given = list_head(into->colNames);
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		char	   *name = tle->resname;
		ListCell   *other;

		if (tle->resjunk)
			continue;
		if (given != NULL)
		{
			name = strVal(lfirst(given));
			given = lnext(into->colNames, given);
		}
		foreach(other, names)
		{
			if (strcmp(lfirst(other), name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" specified more than once", name),
						 errhint("Give one of them another name with AS.")));
		}
		names = lappend(names, name);
	}
	if (given != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("too many column names were specified"),
				 errdetail("The SELECT has %d columns.", list_length(names))));
	return names;
}

/*
 * Sub-selects in the target list and HAVING move to the reading view; the WITH queries
 * of the outermost query do not.
 */
static void
refuse_sublinks_on_with(Query *query)
{
	int			level = 0;

	if (!query->hasAggs && query->groupClause == NIL)
		return;
	if (query->cteList != NIL && query->hasSubLinks &&
		(sublink_uses_with((Node *) query->targetList, &level) ||
		 sublink_uses_with(query->havingQual, &level)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a sub-select in the SELECT list or HAVING cannot use a WITH query in a continuous view"),
				 errhint("Write the WITH query inside the sub-select.")));
}

static bool
sublink_uses_with(Node *node, int *level)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		ListCell   *lc;
		bool		found;

		(*level)++;
		foreach(lc, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_CTE && rte->ctelevelsup == *level)
				return true;
		}
		found = query_tree_walker((Query *) node, sublink_uses_with, level, 0);
		(*level)--;
		return found;
	}
	return expression_tree_walker(node, sublink_uses_with, level);
}

static List *
column_defs(List *columns)
{
	List	   *defs = NIL;
	ListCell   *lc;

	foreach(lc, columns)
	{
		SxTableColumn	   *column = lfirst(lc);

		defs = lappend(defs, makeColumnDef(column->name, column->type, column->typmod, column->collation));
	}
	return defs;
}

Oid
sx_create_internal_view(Query *query, List *names, const char *relname, Oid owner)
{
	CreateStmt *create = makeNode(CreateStmt);
	Query	   *stored = copyObject(query);
	List	   *columns = NIL;
	ListCell   *name = list_head(names);
	ListCell   *lc;
	ObjectAddress address;

	foreach(lc, stored->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		SxTableColumn	   *column;

		if (tle->resjunk)
			continue;
		column = palloc(sizeof(SxTableColumn));
		column->name = tle->resname = lfirst(name);
		column->type = exprType((Node *) tle->expr);
		column->typmod = exprTypmod((Node *) tle->expr);
		column->collation = exprCollation((Node *) tle->expr);
		columns = lappend(columns, column);
		name = lnext(names, name);
	}

	create->relation = makeRangeVar(SX_SCHEMA, pstrdup(relname), -1);
	create->tableElts = column_defs(columns);
	create->oncommit = ONCOMMIT_NOOP;
	address = DefineRelation(create, RELKIND_VIEW, owner, NULL, NULL);
	CommandCounterIncrement();
	StoreViewQuery(address.objectId, stored, false);
	CommandCounterIncrement();
	return address.objectId;
}

static Oid
create_table(IntoClause *into, SxAnalysis *a, List *columns, const char *relname, Oid owner)
{
	static SxOptionNamespace validnsps[] = HEAP_RELOPT_NAMESPACES;
	CreateStmt *create = makeNode(CreateStmt);
	ObjectAddress address;
	Datum		toast_options;

	create->relation = makeRangeVar(SX_SCHEMA, pstrdup(relname), -1);
	create->tableElts = column_defs(columns);
	if (a->strategy == SX_MERGE && a->keys == NIL)
		linitial_node(ColumnDef, create->tableElts)->is_not_null = true;
	create->oncommit = ONCOMMIT_NOOP;
	create->tablespacename = into->tableSpaceName;
	create->accessMethod = pstrdup("heap");
	create->options = table_options(into, a->strategy);
	address = DefineRelation(create, RELKIND_RELATION, owner, NULL, NULL);
	CommandCounterIncrement();

	/* before anything alters the table, which would make one without options */
	toast_options = transformRelOptions((Datum) 0, create->options, "toast", validnsps, true, false);
	(void) heap_reloptions(RELKIND_TOASTVALUE, toast_options, true);
	NewRelationCreateToastTable(address.objectId, toast_options);
	CommandCounterIncrement();
	identify_rows(address.objectId);
	return address.objectId;
}

/*
 * Every flush updates the rows of the groups that changed: leave room for them on the
 * page, and clean up early.  What the user says in WITH goes before.
 */
/*
 * Who publishes all tables of the database publishes this one, too, and without a replica identity its rows could not
 * be updated any more.  Keys may be NULL, so their index does not do.
 */
static void
identify_rows(Oid matid)
{
	AlterTableCmd *cmd = makeNode(AlterTableCmd);
	ReplicaIdentityStmt *identity = makeNode(ReplicaIdentityStmt);

	identity->identity_type = REPLICA_IDENTITY_FULL;
	cmd->subtype = AT_ReplicaIdentity;
	cmd->def = (Node *) identity;
	AlterTableInternal(matid, list_make1(cmd), false);
	CommandCounterIncrement();
}

static List *
table_options(IntoClause *into, SxStrategy strategy)
{
	static const char *const ours[][2] = {
		{"fillfactor", MERGE_FILLFACTOR},
		{"autovacuum_vacuum_scale_factor", "0.05"},
		{"autovacuum_analyze_scale_factor", "0.05"},
	};
	List	   *options = list_copy(into->options);

	if (strategy != SX_MERGE)
		return options;
	for (int i = 0; i < lengthof(ours); i++)
	{
		bool		given = false;
		ListCell   *lc;

		foreach(lc, into->options)
		{
			DefElem    *def = lfirst_node(DefElem, lc);

			given |= def->defnamespace == NULL && strcmp(def->defname, ours[i][0]) == 0;
		}
		if (!given)
			options = lappend(options,
							  makeDefElem(pstrdup(ours[i][0]),
										  (Node *) makeString(pstrdup(ours[i][1])), -1));
	}
	return options;
}

static void
create_unique_index(Oid matid, List *columns, int nkeys, const char *relname)
{
	IndexStmt  *stmt = makeNode(IndexStmt);

	stmt->idxname = psprintf("%s_key", relname);
	stmt->relation = makeRangeVar(SX_SCHEMA, pstrdup(relname), -1);
	stmt->accessMethod = pstrdup("btree");
	stmt->unique = true;
	stmt->nulls_not_distinct = true;
	stmt->transformed = true;
	if (OidIsValid(get_rel_tablespace(matid)))
		stmt->tableSpace = get_tablespace_name(get_rel_tablespace(matid));
	for (int i = 0; i < nkeys; i++)
	{
		IndexElem  *elem = makeNode(IndexElem);

		elem->name = ((SxTableColumn *) list_nth(columns, i))->name;
		elem->ordering = SORTBY_DEFAULT;
		elem->nulls_ordering = SORTBY_NULLS_DEFAULT;
		stmt->indexParams = lappend(stmt->indexParams, elem);
	}
	SxDefineIndex(matid, stmt);
	CommandCounterIncrement();
}

static ObjectAddress
create_user_view(IntoClause *into, SxAnalysis *a, List *names, List *columns, const SxViewDef *def, Oid owner)
{
	CreateStmt *create = makeNode(CreateStmt);
	Relation	mat = table_open(def->matid, AccessShareLock);
	Query	   *query = sx_reading_query(a, names, columns, mat, def->panes);
	List	   *outputs = NIL;
	ListCell   *lc;
	ObjectAddress address;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		SxTableColumn	   *column;

		if (tle->resjunk)
			continue;
		column = palloc(sizeof(SxTableColumn));
		column->name = tle->resname;
		column->type = exprType((Node *) tle->expr);
		column->typmod = exprTypmod((Node *) tle->expr);
		column->collation = exprCollation((Node *) tle->expr);
		if (type_is_collatable(column->type) && !OidIsValid(column->collation))
			ereport(ERROR,
					(errcode(ERRCODE_INDETERMINATE_COLLATION),
					 errmsg("could not determine which collation to use for view column \"%s\"",
							column->name),
					 errhint("Use the COLLATE clause to set the collation explicitly.")));
		outputs = lappend(outputs, column);
	}

	create->relation = copyObject(into->rel);
	create->tableElts = column_defs(outputs);
	create->oncommit = ONCOMMIT_NOOP;
	address = DefineRelation(create, RELKIND_VIEW, owner, NULL, NULL);
	if (isTempNamespace(get_rel_namespace(address.objectId)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("a continuous view cannot be temporary")));
	CommandCounterIncrement();
	StoreViewQuery(address.objectId, query, false);
	CommandCounterIncrement();
	table_close(mat, NoLock);
	return address;
}

/* as DefineRelation would, had it not been called as the extension's owner */
static void
check_tablespace(IntoClause *into)
{
	Oid			tablespace;

	if (into->tableSpaceName != NULL)
		tablespace = get_tablespace_oid(into->tableSpaceName, false);
	else
		tablespace = GetDefaultTablespace(RELPERSISTENCE_PERMANENT, false);
	if (OidIsValid(tablespace) && tablespace != MyDatabaseTableSpace)
	{
		AclResult	result = SxTablespaceAclCheck(tablespace, GetUserId());

		if (result != ACLCHECK_OK)
			aclcheck_error(result, OBJECT_TABLESPACE, get_tablespace_name(tablespace));
	}
}

/* two views may be the first on the same stream at the same time */
static void
register_stream(Oid streamid)
{
	if (sx_catalog_stream(streamid) != NULL)
		return;
	LockRelationOid(sx_catalog_table_oid("stream_def"), ShareRowExclusiveLock);
	if (sx_catalog_stream(streamid) == NULL)
		sx_catalog_insert_stream(streamid, false, NULL);
}

/* a query without GROUP BY has one row from the start: its result over no rows */
static void
insert_only_row(const SxViewDef *def)
{
	SxViewInfo *info;
	SxRunAs		run;
	SxFileMap  *map = sx_file_map_create(CurrentMemoryContext);
	Tuplestorestate *rows;

	sx_run_as_begin(&run, def);
	PushActiveSnapshot(GetTransactionSnapshot());
	info = sx_view_info_create(def, CurrentMemoryContext);
	rows = tuplestore_begin_heap(false, false, work_mem);
	sx_plan_run(sx_plan_create(info), sx_batch_create(map, def->streamid, NULL, 0, 0), keep_row, rows);
	sx_merge_into_table(info, rows, NULL);
	tuplestore_end(rows);
	sx_view_info_destroy(info);
	PopActiveSnapshot();
	sx_run_as_end(&run);
	sx_file_map_destroy(map);
	CommandCounterIncrement();
}

static void
keep_row(void *arg, TupleTableSlot *row)
{
	tuplestore_puttupleslot((Tuplestorestate *) arg, row);
}
