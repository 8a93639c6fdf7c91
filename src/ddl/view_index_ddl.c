/*
 * view_index_ddl.c
 *		Indexes of continuous views.
 *
 * They are indexes of the materialized table, in our schema, where the view's owner may not create
 * things: core's functions are called without that check, and the others are made here.  Users name
 * them as if they stood beside the view.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "commands/tablespace.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "batch/replace.h"
#include "catalog/definitions.h"
#include "ddl/ddl_internal.h"
#include "query/view_columns.h"
#include "query/view_def.h"

static SxViewDef *find_index_view(const RangeVar *rv, Oid *indexid);
static bool is_key_index(Oid indexid);
static ObjectAddress rename_index_run(SxUtility *u, void *arg);
static ObjectAddress create_index_run(SxUtility *u, void *arg);
static void map_index_column(const SxViewDef *def, IndexElem *elem, bool included);

/* the view on whose materialized table this is an index */
static SxViewDef *
find_index_view(const RangeVar *rv, Oid *indexid)
{
	Oid			found = rv ? RangeVarGetRelid(rv, NoLock, true) : InvalidOid;

	if (!OidIsValid(found) || get_rel_relkind(found) != RELKIND_INDEX)
		return NULL;
	*indexid = found;
	return sx_catalog_view_by_mat(IndexGetRelation(found, true));
}

/* users cannot make unique ones, so this is ours */
static bool
is_key_index(Oid indexid)
{
	HeapTuple	tup = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
	bool		unique = false;

	if (HeapTupleIsValid(tup))
	{
		unique = ((Form_pg_index) GETSTRUCT(tup))->indisunique;
		ReleaseSysCache(tup);
	}
	return unique;
}

/*
 * An index that was made by CREATE INDEX on a view is in our schema.  Its name alone, or with the
 * view's schema, means it if nothing else has that name; NULL: this one does not.
 */
RangeVar *
sx_hidden_index(const RangeVar *rv)
{
	Oid			indexid;
	SxViewDef  *def;

	if (rv == NULL || OidIsValid(RangeVarGetRelid(rv, NoLock, true)))
		return NULL;
	indexid = get_relname_relid(rv->relname, sx_catalog_schema_oid());
	if (!OidIsValid(indexid) || get_rel_relkind(indexid) != RELKIND_INDEX)
		return NULL;
	def = sx_catalog_view_by_mat(IndexGetRelation(indexid, true));
	if (def == NULL ||
		(rv->schemaname != NULL &&
		 get_namespace_oid(rv->schemaname, true) != get_rel_namespace(def->viewid)))
		return NULL;
	if (is_key_index(indexid))
		sx_refuse_internal(def, indexid);
	return makeRangeVar(SX_SCHEMA, rv->relname, rv->location);
}

bool
sx_on_drop_index(SxUtility *u, DropStmt *stmt)
{
	DropStmt   *copy = copyObject(stmt);
	bool		any = false;
	ListCell   *lc;

	foreach(lc, copy->objects)
	{
		RangeVar   *rv = makeRangeVarFromNameList((List *) lfirst(lc));
		Oid			indexid;
		SxViewDef  *def = find_index_view(rv, &indexid);

		if (def != NULL && is_key_index(indexid))
			sx_refuse_internal(def, indexid);
		rv = sx_hidden_index(rv);
		if (rv == NULL)
			continue;
		lfirst(lc) = list_make2(makeString(rv->schemaname), makeString(rv->relname));
		any = true;
	}
	if (any)
		sx_utility_next(u, (Node *) copy);
	return any;
}

bool
sx_on_alter_index(SxUtility *u, AlterTableStmt *stmt)
{
	RangeVar   *index = stmt->objtype == OBJECT_INDEX ? sx_hidden_index(stmt->relation) : NULL;
	SxViewDef  *def;
	Oid			indexid;

	if (index != NULL)
	{
		AlterTableStmt *copy = copyObject(stmt);

		copy->relation = index;
		sx_utility_next(u, (Node *) copy);
		return true;
	}
	def = find_index_view(stmt->relation, &indexid);
	if (def != NULL && is_key_index(indexid))
		sx_alter_internal(def, indexid, stmt);
	return false;
}

/* core asks for CREATE on our schema, which the owner does not have */
bool
sx_on_rename_index(SxUtility *u, RenameStmt *stmt)
{
	Oid			indexid;
	SxViewDef  *def = find_index_view(stmt->relation, &indexid);
	RangeVar   *index;

	if (def != NULL && is_key_index(indexid))
		sx_refuse_internal(def, indexid);
	index = def != NULL ? stmt->relation : sx_hidden_index(stmt->relation);
	if (index == NULL)
		return false;
	stmt = copyObject(stmt);
	stmt->relation = index;
	sx_utility_run(u, CMDTAG_ALTER_INDEX, rename_index_run, stmt);
	return true;
}

static ObjectAddress
rename_index_run(SxUtility *u, void *arg)
{
	RenameStmt *stmt = arg;
	ObjectAddress address = InvalidObjectAddress;
	Oid			indexid = RangeVarGetRelidExtended(stmt->relation, ShareUpdateExclusiveLock,
												   stmt->missing_ok ? RVR_MISSING_OK : 0,
												   RangeVarCallbackOwnsRelation, NULL);

	/* dropped meanwhile */
	if (!OidIsValid(indexid))
	{
		ereport(NOTICE,
				(errmsg("relation \"%s\" does not exist, skipping", stmt->relation->relname)));
		return address;
	}
	RenameRelationInternal(indexid, stmt->newname, false, true);
	ObjectAddressSet(address, RelationRelationId, indexid);
	return address;
}

bool
sx_on_create_index(SxUtility *u, IndexStmt *stmt)
{
	Oid			relid;
	SxViewDef  *def = sx_find_view(stmt->relation, &relid);
	const char *name = stmt->relation->relname;

	if (def == NULL)
		return false;
	/* core asks for CREATE on our schema, which only the restore of a dump has */
	if (relid == def->matid)
		return false;
	if (relid != def->viewid)
		sx_refuse_internal(def, relid);
	sx_refuse_while_replaced(def);
	if (stmt->unique)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot create a unique index on continuous view \"%s\"", name),
				 errdetail("Its group keys are unique already; anything else may not stay so."),
				 errhint("Create the index without UNIQUE.")));
	if (stmt->whereClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot create a partial index on continuous view \"%s\"", name),
				 errhint("Create the index without WHERE.")));
	if (stmt->concurrent)
		PreventInTransactionBlock(u->context == PROCESS_UTILITY_TOPLEVEL,
								  "CREATE INDEX CONCURRENTLY");
	sx_utility_run(u, CMDTAG_CREATE_INDEX, create_index_run, stmt);
	return true;
}

/*
 * The index is the view owner's, in our schema, where the owner may not create things: core's
 * function is called without that check and the others made here.
 */
static ObjectAddress
create_index_run(SxUtility *u, void *arg)
{
	IndexStmt  *stmt = copyObject((IndexStmt *) arg);
	Oid			viewid;
	SxViewDef  *def;
	Relation	mat;
	StringInfoData columns;
	ListCell   *lc;

	viewid = RangeVarGetRelidExtended(stmt->relation, AccessShareLock, 0,
									  RangeVarCallbackOwnsRelation, NULL);
	def = sx_catalog_view(viewid);
	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" is not a continuous view", stmt->relation->relname)));
	if (stmt->tableSpace != NULL)
	{
		Oid			tablespace = get_tablespace_oid(stmt->tableSpace, false);
		AclResult	result = SxTablespaceAclCheck(tablespace, GetUserId());

		if (tablespace != MyDatabaseTableSpace && result != ACLCHECK_OK)
			aclcheck_error(result, OBJECT_TABLESPACE, stmt->tableSpace);
	}

	/* the name that core would choose, from what the user wrote */
	initStringInfo(&columns);
	foreach(lc, stmt->indexParams)
	{
		IndexElem  *elem = lfirst_node(IndexElem, lc);

		if (columns.len < NAMEDATALEN)
			appendStringInfo(&columns, "%s%s", columns.len > 0 ? "_" : "",
							 elem->name ? elem->name : "expr");
		map_index_column(def, elem, false);
	}
	foreach(lc, stmt->indexIncludingParams)
		map_index_column(def, lfirst_node(IndexElem, lc), true);
	if (stmt->idxname == NULL)
		stmt->idxname = ChooseRelationName(get_rel_name(viewid), columns.data, "idx",
										   get_rel_namespace(def->matid), false);

	mat = table_open(def->matid, stmt->concurrent ? ShareUpdateExclusiveLock : ShareLock);
	CheckTableNotInUse(mat, "CREATE INDEX");
	table_close(mat, NoLock);

	stmt->relation = sx_range_var_of(def->matid);
	stmt->transformed = true;	/* columns and expressions are ours, not the parser's */
	return SxDefineIndex(def->matid, stmt);
}

/* a column of the view as a column, or an expression, of the materialized table */
static void
map_index_column(const SxViewDef *def, IndexElem *elem, bool included)
{
	Node	   *expr;

	if (elem->name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot create an index on an expression over continuous view \"%s\"",
						get_rel_name(def->viewid)),
				 errhint("Add the expression to the view's query as a column, and index that.")));
	if (get_attnum(def->viewid, elem->name) == InvalidAttrNumber ||
		(expr = sx_view_column_expr(def, elem->name)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" does not exist", elem->name)));
	if (IsA(expr, Var))
	{
		if (elem->indexcolname == NULL)
			elem->indexcolname = elem->name;
		elem->name = get_attname(def->matid, ((Var *) expr)->varattno, false);
		return;
	}
	if (included || contain_mutable_functions(expr))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot create an index on column \"%s\" of continuous view \"%s\"",
						elem->name, get_rel_name(def->viewid)),
				 errdetail("It is computed when the view is read.")));
	if (elem->indexcolname == NULL)
		elem->indexcolname = elem->name;
	elem->name = NULL;
	elem->expr = expr;
}
