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
 * The user's view is built as a Query tree: the user's target list, in which whatever
 * equals a group key becomes a column of the table and each aggregate becomes the column of its
 * result, or a call of streamext.finalize on its state.  The join with an empty select keeps the view
 * from being updatable and is removed by the planner.
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

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_tablespace.h"
#include "catalog/pg_type.h"
#include "catalog/toasting.h"
#include "commands/defrem.h"
#include "commands/sequence.h"
#include "commands/tablecmds.h"
#include "commands/tablespace.h"
#include "commands/view.h"
#include "executor/executor.h"
#include "live/merge.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "query/analyze_internal.h"
#include "query/panes.h"
#include "query/plan.h"
#include "query/view_columns.h"
#include "query/window_key.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "testing/stop_points.h"

/* room for updates of the rows of a page in place */
#define MERGE_FILLFACTOR	"70"

/* One column of the materialized table */
typedef struct Column
{
	char	   *name;
	Oid			type;
	int32		typmod;
	Oid			collation;
} Column;

/* What turns the user's expressions into ones over the materialized table */
typedef struct ReadContext
{
	ParseState *pstate;
	int			varno;			/* of the materialized table */
	List	   *keys;			/* expressions without join aliases */
	List	   *aggrefs;		/* without join aliases */
	List	   *columns;		/* of Column * */
	int			firstkey;		/* column number of the first key */
	int			firstagg;		/* of the first aggregate */
	bool		panes;
	int			level;
} ReadContext;

static List *output_names(IntoClause *into, Query *query);
static List *materialized_columns(SxAnalysis *a, List *names, bool panes);
static void add_state(List **columns, SxAnalysis *a, List *names, Aggref *aggref);
static bool stores_result(Aggref *aggref, bool panes);
static void add_column(List **columns, const char *wanted, const char *kind,
					   Oid type, int32 typmod, Oid collation, List *reserved);
static char *output_name_of(SxAnalysis *a, List *names, Node *expr, TargetEntry *key);
static bool name_is_taken(List *columns, const char *name);
static void refuse_sublinks_on_with(Query *query);
static bool sublink_uses_with(Node *node, int *level);
static List *column_defs(List *columns);
static Oid	create_table(IntoClause *into, SxAnalysis *a, List *columns, const char *relname, Oid owner);
static List *table_options(IntoClause *into, SxStrategy strategy);
static void create_unique_index(Oid matid, List *columns, int nkeys, const char *relname);
static ObjectAddress create_user_view(IntoClause *into, SxAnalysis *a, List *names, List *columns,
									  const SxViewDef *def, Oid owner);
static Query *reading_query(SxAnalysis *a, List *names, List *columns, Relation mat, bool panes);
static int	needed_window(SxAnalysis *a, const char *what);
static Node *is_final_call(SxAnalysis *a, Oid matid, int varno);
static Oid	is_final_function(void);
static bool is_call_of_is_final(Node *node, Oid matid);
static Node *reading_expression(Node *node, ReadContext *context);
static Var *table_column(ReadContext *context, int attno);
static Node *finalize_call(Aggref *aggref, Var *state);
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
	columns = materialized_columns(a, names, def.panes);

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
		sx_view_index_window(&def, needed_window(a, "hop()"), false);
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

static List *
materialized_columns(SxAnalysis *a, List *names, bool panes)
{
	List	   *columns = NIL;
	ListCell   *lc;

	if (a->strategy == SX_APPEND)
	{
		ListCell   *name = list_head(names);

		foreach(lc, a->query->targetList)
		{
			Node	   *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

			if (lfirst_node(TargetEntry, lc)->resjunk)
				continue;
			add_column(&columns, lfirst(name), "column", exprType(expr), exprTypmod(expr),
					   exprCollation(expr), names);
			name = lnext(names, name);
		}
		return columns;
	}

	if (a->keys == NIL)
		add_column(&columns, "singleton",
				   "key", BOOLOID, -1, InvalidOid, names);
	foreach(lc, a->keys)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Node	   *expr = (Node *) tle->expr;

		add_column(&columns, output_name_of(a, names, NULL, tle), "key",
				   exprType(expr), exprTypmod(expr), exprCollation(expr), names);
	}
	if (panes)
		add_column(&columns, "closed", "key", BOOLOID, -1, InvalidOid, names);
	foreach(lc, a->aggrefs)
	{
		Aggref	   *aggref = lfirst_node(Aggref, lc);

		if (stores_result(aggref, panes))
			add_column(&columns, output_name_of(a, names, (Node *) aggref, NULL), "result",
					   aggref->aggtype, -1, InvalidOid, names);
		else
			add_state(&columns, a, names, aggref);
	}
	foreach(lc, a->aggrefs)
	{
		if (stores_result(lfirst_node(Aggref, lc), panes))
			add_state(&columns, a, names, lfirst_node(Aggref, lc));
	}
	return columns;
}

static void
add_state(List **columns, SxAnalysis *a, List *names, Aggref *aggref)
{
	SxAgg	   *agg = sx_agg_from_aggref(aggref, CurrentMemoryContext);
	Oid			type = sx_agg_storage_type(agg);
	Oid			collation = InvalidOid;

	/* the state's column carries the collation that the aggregate's functions use */
	if (type_is_collatable(type))
		collation = OidIsValid(aggref->inputcollid) ? aggref->inputcollid : get_typcollation(type);
	add_column(columns,
			   sx_agg_plain(agg) ? output_name_of(a, names, (Node *) aggref, NULL) : NULL,
			   "state", type, -1, collation, names);
}

/* windows are put together from panes by their states */
static bool
stores_result(Aggref *aggref, bool panes)
{
	return !panes && sx_agg_stores_result(sx_agg_from_aggref(aggref, CurrentMemoryContext));
}

/* the name of the output column that is exactly this aggregate or key, or NULL */
static char *
output_name_of(SxAnalysis *a, List *names, Node *expr, TargetEntry *key)
{
	ListCell   *lc;
	int			i = 0;

	foreach(lc, a->query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		if (key != NULL ? tle->resno == key->resno : equal(tle->expr, expr))
			return list_nth(names, i);
		i++;
	}
	return NULL;
}

/* wanted NULL, taken or not allowed in a table: <kind>_<i>; reserved: the user's names */
static void
add_column(List **columns, const char *wanted, const char *kind,
		   Oid type, int32 typmod, Oid collation, List *reserved)
{
	Column	   *column = palloc(sizeof(Column));
	int			number = list_length(*columns) + 1;
	ListCell   *lc;

	if (wanted != NULL && SystemAttributeByName(wanted) == NULL && !name_is_taken(*columns, wanted))
		column->name = pstrdup(wanted);
	else
	{
		bool		taken;

		column->name = psprintf("%s_%d", kind, number);
		do
		{
			taken = name_is_taken(*columns, column->name);
			foreach(lc, reserved)
				taken |= strcmp(lfirst(lc), column->name) == 0;
			if (taken)
				column->name = psprintf("%s_", column->name);
		} while (taken);
	}
	if (type_is_collatable(type) && !OidIsValid(collation))
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_COLLATION),
				 errmsg("could not determine which collation to use for column \"%s\" of the continuous view",
						column->name),
				 errhint("Use the COLLATE clause to set the collation explicitly.")));
	column->type = type;
	column->typmod = typmod;
	column->collation = type_is_collatable(type) ? collation : InvalidOid;
	*columns = lappend(*columns, column);
}

static bool
name_is_taken(List *columns, const char *name)
{
	ListCell   *lc;

	foreach(lc, columns)
	{
		if (strcmp(((Column *) lfirst(lc))->name, name) == 0)
			return true;
	}
	return false;
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
		Column	   *column = lfirst(lc);

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
		Column	   *column;

		if (tle->resjunk)
			continue;
		column = palloc(sizeof(Column));
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

	toast_options = transformRelOptions((Datum) 0, create->options, "toast", validnsps, true, false);
	(void) heap_reloptions(RELKIND_TOASTVALUE, toast_options, true);
	NewRelationCreateToastTable(address.objectId, toast_options);
	CommandCounterIncrement();
	return address.objectId;
}

/*
 * Every flush updates the rows of the groups that changed: leave room for them on the
 * page, and clean up early.  What the user says in WITH goes before.
 */
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

		elem->name = ((Column *) list_nth(columns, i))->name;
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
	Query	   *query = reading_query(a, names, columns, mat, def->panes);
	List	   *outputs = NIL;
	ListCell   *lc;
	ObjectAddress address;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Column	   *column;

		if (tle->resjunk)
			continue;
		column = palloc(sizeof(Column));
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

/* SELECT … FROM mat, (SELECT) live WHERE having ORDER BY … */
static Query *
reading_query(SxAnalysis *a, List *names, List *columns, Relation mat, bool panes)
{
	Query	   *query = makeNode(Query);
	Query	   *user = copyObject(a->query);
	Query	   *empty = makeNode(Query);
	ReadContext context = {0};
	ParseNamespaceItem *item;
	ListCell   *name = list_head(names);
	ListCell   *lc;
	int			column = 0;

	context.pstate = make_parsestate(NULL);
	if (panes)
		item = addRangeTableEntryForSubquery(context.pstate, sx_panes_query(a, RelationGetRelid(mat)),
											 makeAlias("windows", NIL), false, true);
	else
		item = addRangeTableEntryForRelation(context.pstate, mat, AccessShareLock, NULL, true, true);
	addNSItemToQuery(context.pstate, item, true, true, true);
	context.varno = item->p_rtindex;
	context.columns = columns;
	context.firstkey = 1;
	context.firstagg = Max(list_length(a->keys), 1) + (panes ? 2 : 1);
	context.panes = panes;

	empty->commandType = CMD_SELECT;
	empty->querySource = QSRC_ORIGINAL;
	empty->canSetTag = true;
	empty->jointree = makeFromExpr(NIL, NULL);
	item = addRangeTableEntryForSubquery(context.pstate, empty, makeAlias("live", NIL), false, true);
	addNSItemToQuery(context.pstate, item, true, true, true);

	/* compare expressions as they are below the names that JOIN USING gives */
	SxFlattenGroupEntry(user);
	foreach(lc, a->keys)
		context.keys = lappend(context.keys,
							   SxFlattenAliases(user, (Node *) copyObject(lfirst_node(TargetEntry, lc)->expr)));
	foreach(lc, a->aggrefs)
		context.aggrefs = lappend(context.aggrefs,
								  SxFlattenAliases(user, (Node *) copyObject(lfirst(lc))));

	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->limitOption = LIMIT_OPTION_COUNT;
	query->sortClause = user->sortClause;
	foreach(lc, user->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		bool		sorts = tle->ressortgroupref != 0 &&
			get_sortgroupref_clause_noerr(tle->ressortgroupref, user->sortClause) != NULL;

		if (tle->resjunk && !sorts)
			continue;			/* a key that is not put out */
		if (!sorts)
			tle->ressortgroupref = 0;
		if (!tle->resjunk)
		{
			tle->resname = lfirst(name);
			name = lnext(names, name);
		}
		column++;
		if (a->strategy == SX_APPEND)
			tle->expr = (Expr *) table_column(&context, column);
		else
			tle->expr = (Expr *) reading_expression(SxFlattenAliases(user, (Node *) tle->expr), &context);
		tle->resno = column;
		tle->resorigtbl = InvalidOid;
		tle->resorigcol = 0;
		query->targetList = lappend(query->targetList, tle);
	}
	if (a->strategy == SX_MERGE && user->havingQual != NULL)
		query->jointree = makeFromExpr(context.pstate->p_joinlist,
									   reading_expression(SxFlattenAliases(user, user->havingQual), &context));
	else
		query->jointree = makeFromExpr(context.pstate->p_joinlist, NULL);
	query->hasSubLinks = checkExprHasSubLink((Node *) query->targetList) ||
		checkExprHasSubLink(query->jointree->quals);
	SxQueryTakeTables(query, context.pstate);
	return query;
}

Query *
sx_view_stored_query(Oid viewid)
{
	Relation	view = table_open(viewid, AccessShareLock);
	Query	   *query = copyObject(get_view_query(view));

	table_close(view, NoLock);
	/* what the rule's OLD and NEW stand for is added again when it is stored */
	while (linitial_node(RangeTblEntry, query->rtable)->rtekind == RTE_RELATION &&
		   linitial_node(RangeTblEntry, query->rtable)->relid == viewid)
	{
		query->rtable = list_delete_first(query->rtable);
		OffsetVarNodes((Node *) query, -1, 0);
	}
	return query;
}

/*
 * emit = on_close: the view shows only what streamext.is_final() says has closed.  The stored query gets or
 * loses that condition; all else stays as it is.
 */
void
sx_view_set_emit(const SxViewDef *def, bool on_close)
{
	SxAnalysis *a = sx_analyze_stored(def->queryid, def->streamid);
	Query	   *query;
	List	   *quals = NIL;
	int			varno;
	ListCell   *lc;

	LockRelationOid(def->viewid, AccessExclusiveLock);
	query = sx_view_stored_query(def->viewid);
	varno = sx_view_table_rti(query, def->matid);
	foreach(lc, make_ands_implicit((Expr *) query->jointree->quals))
	{
		if (!is_call_of_is_final(lfirst(lc), def->matid))
			quals = lappend(quals, lfirst(lc));
	}
	if (on_close)
		quals = lappend(quals, is_final_call(a, def->matid, varno));
	query->jointree->quals = quals == NIL ? NULL : (Node *) make_ands_explicit(quals);
	StoreViewQuery(def->viewid, query, true);
	CommandCounterIncrement();
}

static Node *
is_final_call(SxAnalysis *a, Oid matid, int varno)
{
	int			key = needed_window(a, "\"streamext.emit\" = \"on_close\"");
	Node	   *expr = (Node *) list_nth_node(TargetEntry, a->keys, key)->expr;

	return (Node *) makeFuncExpr(is_final_function(), BOOLOID,
								 list_make2(makeConst(REGCLASSOID, -1, InvalidOid, sizeof(Oid),
													  ObjectIdGetDatum(matid), false, true),
											makeVar(varno, key + 1, exprType(expr), exprTypmod(expr),
													exprCollation(expr), 0)),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/*
 * Old windows are found by an index; when the window is the first key, that of the keys serves.
 */
void
sx_view_prepare_retention(const SxViewDef *def)
{
	SxAnalysis *a = sx_analyze_stored(def->queryid, def->streamid);
	int			key = needed_window(a, "\"streamext.retention\"");
	SxStreamDef *stream = sx_catalog_stream(a->streamid);

	if (stream->time.type == INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"streamext.retention\" needs an event time of type timestamptz, timestamp or date"),
				 errdetail("Column \"%s\" has type bigint, which has no unit of time.", NameStr(stream->event_time)),
				 errhint("Leave it out, or declare another column as event_time.")));
	sx_view_index_window(def, key, a->session && key == list_length(a->keys) - 1);
}

/*
 * Sessions are found by their ends.  Whoever drops the index makes removing and appending slow, not wrong.
 */
void
sx_view_index_window(const SxViewDef *def, int key, bool session)
{
	Relation	mat = table_open(def->matid, ShareLock);
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(mat), key);
	IndexStmt  *stmt = makeNode(IndexStmt);
	IndexElem  *elem = makeNode(IndexElem);
	bool		indexed = false;
	ListCell   *lc;

	if (session)
		elem->expr = (Node *) makeFuncExpr(F_UPPER_ANYRANGE, get_range_subtype(att->atttypid),
										   list_make1(makeVar(1, key + 1, att->atttypid, att->atttypmod,
															  att->attcollation, 0)),
										   InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	else
		elem->name = pstrdup(NameStr(att->attname));
	foreach(lc, RelationGetIndexList(mat))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		AttrNumber	first = index->rd_index->indkey.values[0];

		indexed |= index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) &&
			(session ? first == 0 && equal(linitial(RelationGetIndexExpressions(index)), elem->expr) :
			 first == key + 1);
		index_close(index, NoLock);
	}
	table_close(mat, NoLock);
	if (indexed)
		return;

	stmt->relation = makeRangeVar(SX_SCHEMA, get_rel_name(def->matid), -1);
	stmt->accessMethod = pstrdup("btree");
	stmt->transformed = true;
	elem->ordering = SORTBY_DEFAULT;
	elem->nulls_ordering = SORTBY_NULLS_DEFAULT;
	stmt->indexParams = list_make1(elem);
	SxDefineIndex(def->matid, stmt);
	CommandCounterIncrement();
}

/* the key that is the view's window */
static int
needed_window(SxAnalysis *a, const char *what)
{
	SxStreamDef *stream = sx_catalog_stream(a->streamid);
	Expr	   *window;
	int			key = stream ? sx_find_window_key(a, &stream->time, &window) : -1;

	if (key < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s needs windows of event time", what),
				 stream == NULL || stream->time.attno == InvalidAttrNumber ?
				 errdetail("Stream \"%s\" has no event time.", get_rel_name(a->streamid)) :
				 errdetail("The query does not group by a window of column \"%s\".", NameStr(stream->event_time)),
				 stream == NULL || stream->time.attno == InvalidAttrNumber ?
				 errhint("Declare it first with streamext.create_stream() or streamext.alter_stream().") :
				 errhint("Group by streamext.tumble(), streamext.hop() or streamext.session() on it.")));
	return key;
}

static Oid
is_final_function(void)
{
	static const Oid types[] = {REGCLASSOID, ANYELEMENTOID};

	return LookupFuncName(list_make2(makeString(SX_SCHEMA), makeString("is_final")), 2, types, false);
}

static bool
is_call_of_is_final(Node *node, Oid matid)
{
	FuncExpr   *f = (FuncExpr *) node;
	Const	   *arg;

	if (!IsA(node, FuncExpr) || f->funcid != is_final_function())
		return false;
	arg = linitial(f->args);
	return IsA(arg, Const) && DatumGetObjectId(arg->constvalue) == matid;
}

static Node *
reading_expression(Node *node, ReadContext *context)
{
	Node	   *here = node;
	ListCell   *lc;
	int			i;

	if (node == NULL)
		return NULL;

	/* what belongs to the outermost query, seen from there */
	if (context->level > 0 &&
		((IsA(node, Var) && ((Var *) node)->varlevelsup == context->level) ||
		 (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == context->level)))
	{
		here = copyObject(node);
		IncrementVarSublevelsUp(here, -context->level, context->level);
	}
	if (context->level == 0 || here != node)
	{
		i = 0;
		foreach(lc, context->keys)
		{
			if (equal(lfirst(lc), here))
				return (Node *) table_column(context, context->firstkey + i);
			i++;
		}
		i = 0;
		foreach(lc, context->aggrefs)
		{
			if (equal(lfirst(lc), here))
			{
				Var		   *column = table_column(context, context->firstagg + i);

				if (stores_result((Aggref *) lfirst(lc), context->panes))
					return (Node *) column;
				return finalize_call((Aggref *) lfirst(lc), column);
			}
			i++;
		}
	}
	if ((IsA(node, Var) && ((Var *) node)->varlevelsup == context->level) ||
		(IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == context->level))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an expression of the SELECT list or HAVING uses a column that is not in GROUP BY")));

	if (IsA(node, Query))
	{
		Query	   *result;

		context->level++;
		result = query_tree_mutator((Query *) node, reading_expression, context, 0);
		context->level--;
		return (Node *) result;
	}
	return expression_tree_mutator(node, reading_expression, context);
}

static Var *
table_column(ReadContext *context, int attno)
{
	Column	   *column = list_nth(context->columns, attno - 1);
	Var		   *var = makeVar(context->varno, attno, column->type, column->typmod, column->collation, 0);

	markVarForSelectPriv(context->pstate, var);
	var->varlevelsup = context->level;
	return var;
}

/* finalize('aggregate'::regprocedure, state, NULL::result[, NULL::argument …]), or the state itself */
static Node *
finalize_call(Aggref *aggref, Var *state)
{
	static const Oid types[] = {REGPROCEDUREOID, ANYOID, ANYELEMENTOID, ANYOID};
	SxAgg	   *agg = sx_agg_from_aggref(aggref, CurrentMemoryContext);
	bool		polymorphic = sx_agg_is_polymorphic(aggref->aggfnoid);
	Oid			funcid;
	List	   *args;
	ListCell   *lc;

	if (sx_agg_plain(agg))
		return (Node *) state;

	funcid = LookupFuncName(list_make2(makeString(SX_SCHEMA), makeString("finalize")),
							polymorphic ? 4 : 3, types, false);
	args = list_make3(makeConst(REGPROCEDUREOID, -1, InvalidOid, sizeof(Oid),
								ObjectIdGetDatum(aggref->aggfnoid), false, true),
					  state,
					  makeNullConst(aggref->aggtype, -1, aggref->aggcollid));
	if (polymorphic)
	{
		foreach(lc, aggref->aggargtypes)
			args = lappend(args, makeNullConst(lfirst_oid(lc), -1, get_typcollation(lfirst_oid(lc))));
	}
	return (Node *) makeFuncExpr(funcid, aggref->aggtype, args, aggref->aggcollid,
								 aggref->inputcollid, COERCE_EXPLICIT_CALL);
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
	sx_plan_run(sx_plan_create(info), sx_batch_create(map, def->streamid, NULL, 0, false), keep_row, rows);
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
