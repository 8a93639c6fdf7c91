/*
 * analyze.c
 *		Checks a definition once, at CREATE, and finds its stream.
 *
 * Two trees are looked at.  The query as analysed shows where the stream stands, which
 * must be a place where "the query over some more rows" is "some more rows of the
 * query": once, in FROM, on the preserved side of outer joins, below no aggregate,
 * DISTINCT or LIMIT.  The same query rewritten (plain views expanded, row security
 * applied) shows every table and function that will really be used.
 *
 * The stream is never looked for inside plain views: CREATE OR REPLACE VIEW would
 * change what a continuous view means without anybody noticing.
 *
 * Locks: those of parse analysis and of the rewriter, AccessShareLock on what is read.
 */
#include "query/analyze_internal.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/heap.h"
#include "catalog/index.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "query/session.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

typedef struct UseContext
{
	List	   *family;			/* the stream, its partitions and parents */
	int			count;			/* how often one of them is read */
} UseContext;

static void refuse_clauses(Query *query);
static Oid	choose_stream(Query *query, Oid hint);
static void collect_tables(List *queries, Node *node, List **relids);
static CommonTableExpr *find_cte(List *queries, RangeTblEntry *rte, List **outer);
static bool stream_in_query(List *queries, Oid stream, bool top);
static bool stream_in_node(List *queries, Node *node, Oid stream, const char *join);
static void refuse_below(Query *query);
static void check_stream_entry(Query *query, RangeTblEntry *rte, const char *join);
static Query *rewrite_copy(Query *query);
static List *stream_family(Oid stream);
static bool check_uses(Node *node, UseContext *context);
static void check_lookup(Oid relid);
static void check_member(Oid relid, Oid root);
static void check_target_list(SxAnalysis *a);
static void warn_unindexed(Query *query, Oid stream);
static void collect_quals(Node *node, List **quals);
static bool has_index_on(Oid relid, Bitmapset *columns);

SxAnalysis *
sx_analyze(Query *query, Oid stream_hint)
{
	SxAnalysis *a = palloc0(sizeof(SxAnalysis));
	Query	   *flat;
	Query	   *rewritten;
	UseContext	uses = {0};

	refuse_clauses(query);
	a->streamid = choose_stream(query, stream_hint);
	sx_check_stream_relation(a->streamid);
	if (!stream_in_query(list_make1(query), a->streamid, true))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is read only in a sub-select of an expression",
						get_rel_name(a->streamid)),
				 errhint("Join it in FROM.")));

	rewritten = rewrite_copy(query);
	uses.family = stream_family(a->streamid);
	check_uses((Node *) rewritten, &uses);
	if (uses.count > 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is read more than once", get_rel_name(a->streamid)),
				 errdetail("It, a partition or a parent of it stands in the query %d times; views and sub-selects count.",
						   uses.count),
				 errhint("Keep a continuous view for each, and join the two in an ordinary view.")));
	sx_check_functions(rewritten);

	flat = copyObject(query);
	SxFlattenGroupEntry(flat);
	sx_split_query(flat, a);
	a->query = query;
	sx_check_session(flat, a->keys);
	if (a->strategy == SX_MERGE)
	{
		sx_check_keys(flat, a);
		sx_check_aggregates(a);
	}
	check_target_list(a);
	warn_unindexed(query, a->streamid);
	return a;
}

/* what may not stand in the outermost query */
static void
refuse_clauses(Query *query)
{
	ListCell   *lc;

	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a continuous view is defined by a SELECT")));
	if (query->hasModifyingCTE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous view cannot contain data-modifying statements in WITH")));
	foreach(lc, query->cteList)
	{
		if (lfirst_node(CommonTableExpr, lc)->cterecursive)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous view cannot contain a recursive query"),
					 errdetail("WITH query \"%s\" refers to itself.",
							   lfirst_node(CommonTableExpr, lc)->ctename)));
	}
	if (query->setOperations != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("UNION, INTERSECT and EXCEPT are not supported in a continuous view"),
				 errhint("Make one continuous view of each part, and an ordinary view with UNION ALL over them.")));
	if (query->distinctClause != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 query->hasDistinctOn ?
				 errmsg("DISTINCT ON is not supported in a continuous view") :
				 errmsg("SELECT DISTINCT is not supported in a continuous view"),
				 query->hasDistinctOn ?
				 errhint("Use GROUP BY with min() or max().") :
				 errhint("Use GROUP BY with all columns of the SELECT list.")));
	if (query->hasWindowFuncs)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("window functions are not supported in a continuous view"),
				 errhint("Use them in the query that reads the view.")));
	if (query->groupingSets != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("grouping sets, CUBE, ROLLUP and GROUP BY () are not supported in a continuous view"),
				 errhint("Group by the finest set of columns, and add the sums up in the query that reads the view.")));
	if (query->limitCount != NULL || query->limitOffset != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("LIMIT and OFFSET are not supported in a continuous view"),
				 errhint("Use them in the query that reads the view; an index on the view makes it fast.")));
	if (query->rowMarks != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("FOR UPDATE and FOR SHARE are not supported in a continuous view")));
	if (query->constraintDeps != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("every column must be in GROUP BY or in an aggregate in a continuous view"),
				 errdetail("The query relies on a primary key that determines the other columns; rows of a stream that were deleted still count."),
				 errhint("Add the other columns to GROUP BY.")));
	if (query->havingQual != NULL && !query->hasAggs && query->groupClause == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("HAVING without GROUP BY or an aggregate is not supported in a continuous view"),
				 errhint("Use WHERE.")));
}

static Oid
choose_stream(Query *query, Oid hint)
{
	List	   *tables = NIL;
	List	   *declared = NIL;
	List	   *known = NIL;
	ListCell   *lc;

	collect_tables(list_make1(query), (Node *) query->jointree, &tables);

	if (OidIsValid(hint))
	{
		if (!list_member_oid(tables, hint))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("stream \"%s\" is not in FROM", get_rel_name(hint)),
					 errdetail("The option streamext.stream names a table that the query does not read in FROM."),
					 errhint("Name one of the tables in FROM, not a view over it.")));
		return hint;
	}

	foreach(lc, tables)
	{
		SxStreamDef *def = sx_catalog_stream(lfirst_oid(lc));

		if (def == NULL)
			continue;
		known = lappend_oid(known, lfirst_oid(lc));
		if (def->declared)
			declared = lappend_oid(declared, lfirst_oid(lc));
	}
	if (list_length(declared) == 1)
		return linitial_oid(declared);
	if (declared == NIL && list_length(known) == 1)
		return linitial_oid(known);

	foreach(lc, tables)
	{
		char		relkind = get_rel_relkind(lfirst_oid(lc));

		if (relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE)
			return lfirst_oid(lc);
	}

	/* let the check of its kind say what is wrong with it */
	if (tables != NIL)
		return linitial_oid(tables);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a continuous view needs a table in FROM"),
			 errdetail("There is nothing that rows could be inserted into.")));
	return InvalidOid;
}

/* relations in FROM, in the order they are written; queries are those around, innermost first */
static void
collect_tables(List *queries, Node *node, List **relids)
{
	Query	   *query = linitial_node(Query, queries);
	ListCell   *lc;

	if (node == NULL)
		return;
	if (IsA(node, FromExpr))
	{
		foreach(lc, ((FromExpr *) node)->fromlist)
			collect_tables(queries, lfirst(lc), relids);
	}
	else if (IsA(node, JoinExpr))
	{
		collect_tables(queries, ((JoinExpr *) node)->larg, relids);
		collect_tables(queries, ((JoinExpr *) node)->rarg, relids);
	}
	else if (IsA(node, SetOperationStmt))
	{
		collect_tables(queries, ((SetOperationStmt *) node)->larg, relids);
		collect_tables(queries, ((SetOperationStmt *) node)->rarg, relids);
	}
	else if (IsA(node, RangeTblRef))
	{
		RangeTblEntry *rte = rt_fetch(((RangeTblRef *) node)->rtindex, query->rtable);
		Query	   *sub = NULL;
		List	   *outer = queries;

		if (rte->rtekind == RTE_RELATION)
			*relids = list_append_unique_oid(*relids, rte->relid);
		else if (rte->rtekind == RTE_SUBQUERY)
			sub = rte->subquery;
		else if (rte->rtekind == RTE_CTE && !rte->self_reference)
			sub = castNode(Query, find_cte(queries, rte, &outer)->ctequery);

		if (sub != NULL)
		{
			outer = lcons(sub, list_copy(outer));
			collect_tables(outer, (Node *) sub->jointree, relids);
			collect_tables(outer, sub->setOperations, relids);
		}
	}
}

/* *outer: the queries around the WITH query's own */
static CommonTableExpr *
find_cte(List *queries, RangeTblEntry *rte, List **outer)
{
	Query	   *owner = list_nth_node(Query, queries, rte->ctelevelsup);
	ListCell   *lc;

	*outer = list_copy_tail(queries, rte->ctelevelsup);
	foreach(lc, owner->cteList)
	{
		if (strcmp(lfirst_node(CommonTableExpr, lc)->ctename, rte->ctename) == 0)
			return lfirst_node(CommonTableExpr, lc);
	}
	elog(ERROR, "could not find WITH query \"%s\"", rte->ctename);
	return NULL;
}

/* is the stream in this query's FROM?  Raises if it stands where it must not. */
static bool
stream_in_query(List *queries, Oid stream, bool top)
{
	Query	   *query = linitial_node(Query, queries);

	if (query->setOperations != NULL)
	{
		List	   *tables = NIL;

		collect_tables(queries, query->setOperations, &tables);
		if (!list_member_oid(tables, stream))
			return false;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the stream cannot stand in UNION, INTERSECT or EXCEPT"),
				 errhint("Make one continuous view of each part, and an ordinary view with UNION ALL over them.")));
	}
	if (!stream_in_node(queries, (Node *) query->jointree, stream, NULL))
		return false;
	if (!top)
		refuse_below(query);
	return true;
}

/* join: the outer join that may put NULLs in place of this node's rows, or NULL */
static bool
stream_in_node(List *queries, Node *node, Oid stream, const char *join)
{
	Query	   *query = linitial_node(Query, queries);
	ListCell   *lc;
	bool		found = false;

	if (IsA(node, FromExpr))
	{
		foreach(lc, ((FromExpr *) node)->fromlist)
			found |= stream_in_node(queries, lfirst(lc), stream, join);
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr   *j = (JoinExpr *) node;
		const char *left = join;
		const char *right = join;

		if (j->jointype == JOIN_LEFT)
			right = "LEFT JOIN";
		else if (j->jointype == JOIN_RIGHT)
			left = "RIGHT JOIN";
		else if (j->jointype == JOIN_FULL)
			left = right = "FULL JOIN";
		found |= stream_in_node(queries, j->larg, stream, left);
		found |= stream_in_node(queries, j->rarg, stream, right);
	}
	else if (IsA(node, RangeTblRef))
	{
		RangeTblEntry *rte = rt_fetch(((RangeTblRef *) node)->rtindex, query->rtable);

		if (rte->rtekind == RTE_RELATION && rte->relid == stream)
		{
			check_stream_entry(query, rte, NULL);
			found = true;
		}
		else if (rte->rtekind == RTE_SUBQUERY)
			found = stream_in_query(lcons(rte->subquery, list_copy(queries)), stream, false);
		else if (rte->rtekind == RTE_CTE && !rte->self_reference)
		{
			List	   *outer;
			CommonTableExpr *cte = find_cte(queries, rte, &outer);

			found = stream_in_query(lcons(cte->ctequery, outer), stream, false);
			if (found && (cte->ctematerialized == CTEMaterializeAlways || cte->cterefcount > 1))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 cte->cterefcount > 1 ?
						 errmsg("WITH query \"%s\" contains the stream and is used more than once",
								cte->ctename) :
						 errmsg("WITH query \"%s\" contains the stream and is MATERIALIZED",
								cte->ctename),
						 cte->cterefcount > 1 ?
						 errhint("Use it once.") :
						 errhint("Leave out MATERIALIZED.")));
		}
		if (found && join != NULL)
			check_stream_entry(query, NULL, join);
	}
	return found;
}

/* a query in FROM that contains the stream must pass its rows through one by one */
static void
refuse_below(Query *query)
{
	const char *what = NULL;

	if (query->hasAggs || query->groupClause != NIL || query->groupingSets != NIL ||
		query->havingQual != NULL)
		what = "GROUP BY or an aggregate";
	else if (query->distinctClause != NIL)
		what = "DISTINCT";
	else if (query->hasWindowFuncs)
		what = "a window function";
	else if (query->limitCount != NULL || query->limitOffset != NULL)
		what = "LIMIT or OFFSET";
	else if (query->rowMarks != NIL)
		what = "FOR UPDATE or FOR SHARE";
	else if (query->hasRecursive || query->hasModifyingCTE)
		what = "a recursive or data-modifying WITH query";

	if (what != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the stream cannot stand in a sub-select with %s", what),
				 errdetail("What such a sub-select returns changes with rows that come later."),
				 errhint("Move it to the outermost query, or make the sub-select a continuous view of its own and use an ordinary view over it.")));
}

static void
check_stream_entry(Query *query, RangeTblEntry *rte, const char *join)
{
	Bitmapset  *columns;
	int			x = -1;

	if (join != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the stream cannot stand on the nullable side of a %s", join),
				 errdetail("Rows that come later would take back rows that had no match before."),
				 errhint("Let the stream be the preserved side: stream LEFT JOIN lookup.")));
	if (rte->tablesample != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("TABLESAMPLE is not supported in a continuous view"),
				 errhint("Use a condition on a hash of a column, such as WHERE hashint8(id) %% 100 = 0.")));
	if (!rte->inh && rte->relkind == RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ONLY a partitioned table has no rows"),
				 errhint("Leave out ONLY.")));

	columns = SxSelectedColumns(query, rte);
	while ((x = bms_next_member(columns, x)) >= 0)
	{
		AttrNumber	attno = x + FirstLowInvalidHeapAttributeNumber;

		if (attno < 0 && attno != TableOidAttributeNumber)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("system column \"%s\" of the stream cannot be used in a continuous view",
							NameStr(SystemAttributeDefinition(attno)->attname)),
					 errdetail("It changes when the row is updated or moved."),
					 errhint("Of the system columns only tableoid can be used.")));
	}
}

/* plain views expanded and row security applied; also locks what is found */
static Query *
rewrite_copy(Query *query)
{
	Query	   *copy = copyObject(query);
	List	   *result;

	AcquireRewriteLocks(copy, true, false);
	result = QueryRewrite(copy);
	if (list_length(result) != 1)
		elog(ERROR, "unexpected rewrite result of a SELECT");
	return linitial_node(Query, result);
}

static List *
stream_family(Oid stream)
{
	List	   *family = find_all_inheritors(stream, NoLock, NULL);

	if (get_rel_relispartition(stream))
		family = list_concat(family, get_partition_ancestors(stream));
	return family;
}

/* every table of the rewritten query, at every level: kind, privileges, row security */
static bool
check_uses(Node *node, UseContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		ListCell   *lc;

		SxCheckQueryPermissions(query);
		if (query->hasModifyingCTE)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous view cannot contain data-modifying statements in WITH")));
		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			/* entries of expanded views stay, for their privileges only */
			if (rte->rtekind != RTE_RELATION || rte->relkind == RELKIND_VIEW)
				continue;
			if (list_member_oid(context->family, rte->relid))
				context->count++;
			else
			{
				check_lookup(rte->relid);
				if (rte->tablesample != NULL)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("TABLESAMPLE is not supported in a continuous view")));
			}
			if (check_enable_rls(rte->relid, SxCheckAsUser(query, rte), true) == RLS_ENABLED)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("row security of table \"%s\" applies to the owner of the continuous view",
								get_rel_name(rte->relid)),
						 errdetail("What a policy lets through can change, and the view would keep what it saw before."),
						 errhint("Create the view as the table's owner or a role with BYPASSRLS, and write the condition in WHERE.")));
		}
		return query_tree_walker(query, check_uses, context, 0);
	}
	return expression_tree_walker(node, check_uses, context);
}

static void
check_lookup(Oid relid)
{
	if (get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("temporary table \"%s\" cannot be used in a continuous view", get_rel_name(relid)),
				 errdetail("The rows are joined in a background process, which cannot see it."),
				 errhint("Use a permanent table.")));
	if (sx_catalog_view_by_mat(relid) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous view cannot read another continuous view"),
				 errdetail("The query reads \"%s\".",
						   get_rel_name(sx_catalog_view_by_mat(relid)->viewid)),
				 errhint("Read its stream, or join the two in an ordinary view.")));
}

void
sx_check_stream_relation(Oid relid)
{
	char		relkind = get_rel_relkind(relid);
	char	   *name = get_rel_name(relid);
	List	   *members;
	ListCell   *lc;

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));

	if (relkind == RELKIND_VIEW)
	{
		if (sx_catalog_view(relid) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("continuous view \"%s\" cannot be a stream", name),
					 errhint("Read its stream, or use an ordinary view over it.")));
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("view \"%s\" cannot be a stream", name),
				 errdetail("CREATE OR REPLACE VIEW would silently change what is computed from it."),
				 errhint("Name the table in FROM, or write the view's query there as a sub-select.")));
	}
	if (relkind == RELKIND_MATVIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("materialized view \"%s\" cannot be a stream", name),
				 errdetail("Nobody inserts rows into it."),
				 errhint("Use the table that it reads.")));
	if (relkind == RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("foreign table \"%s\" cannot be a stream", name),
				 errdetail("Its rows are not in this server's WAL."),
				 errhint("Insert the rows into an ordinary table, for example by logical replication.")));
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table and cannot be a stream", name)));
	if (relid < FirstNormalObjectId)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("system catalog \"%s\" cannot be a stream", name)));
	if (get_rel_namespace(relid) == sx_catalog_schema_oid())
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" of schema %s cannot be a stream", name, SX_SCHEMA)));

	/* plain inheritance: which rows are the table's depends on who asks */
	if (relkind == RELKIND_RELATION)
	{
		members = find_inheritance_children(relid, NoLock);
		if (members != NIL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"%s\" with inheritance children cannot be a stream", name),
					 errdetail("Table \"%s\" inherits from it.", get_rel_name(linitial_oid(members))),
					 errhint("Use a partitioned table.")));
	}
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		check_member(lfirst_oid(lc), relid);
}

static void
check_member(Oid relid, Oid root)
{
	char		relkind = get_rel_relkind(relid);
	char	   *name = get_rel_name(relid);
	Relation	rel;
	Oid			am;

	if (relkind == RELKIND_PARTITIONED_TABLE)
		return;
	if (relkind != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("partitioned table \"%s\" cannot be a stream", get_rel_name(root)),
				 errdetail("Partition \"%s\" is not an ordinary table.", name)));
	if (get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("temporary table \"%s\" cannot be a stream", name),
				 errdetail("Its rows are not written to WAL."),
				 errhint("Use a permanent table.")));
	if (get_rel_persistence(relid) == RELPERSISTENCE_UNLOGGED)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("unlogged table \"%s\" cannot be a stream", name),
				 errdetail("Its rows are not written to WAL."),
				 errhint("ALTER TABLE %s SET LOGGED.", quote_identifier(name))));

	rel = table_open(relid, AccessShareLock);
	am = rel->rd_rel->relam;
	table_close(rel, NoLock);
	if (am != HEAP_TABLE_AM_OID)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" cannot be a stream", name),
				 errdetail("Its access method is not heap."),
				 errhint("ALTER TABLE %s SET ACCESS METHOD heap.", quote_identifier(name))));
}

/* what the reading view cannot compute from keys and states, or rows */
static void
check_target_list(SxAnalysis *a)
{
	Query	   *query = a->query;
	ListCell   *lc;
	bool		any = false;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk)
		{
			any = true;
			if (get_typtype(exprType((Node *) tle->expr)) == TYPTYPE_PSEUDO)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
						 errmsg("column \"%s\" has pseudo-type %s", tle->resname,
								format_type_be(exprType((Node *) tle->expr))),
						 errhint("Cast it to an ordinary type.")));
		}
		else if (a->strategy == SX_APPEND)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("ORDER BY must name columns of the SELECT list in a continuous view"),
					 errdetail("The view keeps only the columns of the SELECT list."),
					 errhint("Add the expression to the SELECT list, or order in the query that reads the view.")));
		if (a->strategy == SX_MERGE && tle->ressortgroupref != 0 &&
			get_sortgroupref_clause_noerr(tle->ressortgroupref, query->groupClause) != NULL)
			continue;			/* a key */
		if (a->strategy == SX_MERGE && expression_returns_set((Node *) tle->expr))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("set-returning functions over groups are not supported in a continuous view"),
					 errhint("Add the expression to GROUP BY, or call it in the query that reads the view.")));
	}
	if (!any)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("a continuous view needs at least one column")));
}

/*
 * A lookup without an index on one of its equality columns costs a scan of the whole
 * table for each batch of new rows.
 */
static void
warn_unindexed(Query *query, Oid stream)
{
	List	   *quals = NIL;
	int			rti = 0;
	ListCell   *lc;

	collect_quals((Node *) query->jointree, &quals);
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		Bitmapset  *columns = NULL;
		ListCell   *lq;
		int			first;

		rti++;
		if (rte->rtekind != RTE_RELATION || rte->relid == stream || !rte->inFromCl ||
			(rte->relkind != RELKIND_RELATION && rte->relkind != RELKIND_MATVIEW &&
			 rte->relkind != RELKIND_PARTITIONED_TABLE))
			continue;
		foreach(lq, quals)
		{
			OpExpr	   *op = (OpExpr *) lfirst(lq);

			if (!IsA(op, OpExpr) || list_length(op->args) != 2 ||
				!op_mergejoinable(op->opno, exprType(linitial(op->args))))
				continue;
			for (int side = 0; side < 2; side++)
			{
				Node	   *arg = strip_implicit_coercions(list_nth(op->args, side));
				Node	   *other = list_nth(op->args, 1 - side);

				if (IsA(arg, Var) && ((Var *) arg)->varno == rti && ((Var *) arg)->varlevelsup == 0 &&
					((Var *) arg)->varattno > 0 && contain_var_clause(other) &&
					!bms_is_member(rti, pull_varnos(NULL, other)))
					columns = bms_add_member(columns, ((Var *) arg)->varattno);
			}
		}
		first = bms_next_member(columns, -1);
		if (first > 0 && !has_index_on(rte->relid, columns))
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg("table \"%s\" is joined without an index", get_rel_name(rte->relid)),
					 errdetail("The whole table is read for every batch of new rows."),
					 errhint("CREATE INDEX ON %s (%s);",
							 quote_qualified_identifier(get_namespace_name(get_rel_namespace(rte->relid)),
														get_rel_name(rte->relid)),
							 quote_identifier(get_attname(rte->relid, first, false)))));
	}
}

static void
collect_quals(Node *node, List **quals)
{
	ListCell   *lc;

	if (node == NULL || IsA(node, RangeTblRef))
		return;
	if (IsA(node, FromExpr))
	{
		foreach(lc, ((FromExpr *) node)->fromlist)
			collect_quals(lfirst(lc), quals);
		collect_quals(((FromExpr *) node)->quals, quals);
	}
	else if (IsA(node, JoinExpr))
	{
		collect_quals(((JoinExpr *) node)->larg, quals);
		collect_quals(((JoinExpr *) node)->rarg, quals);
		collect_quals(((JoinExpr *) node)->quals, quals);
	}
	else if (IsA(node, BoolExpr) && ((BoolExpr *) node)->boolop == AND_EXPR)
	{
		foreach(lc, ((BoolExpr *) node)->args)
			collect_quals(lfirst(lc), quals);
	}
	else
		*quals = lappend(*quals, node);
}

static bool
has_index_on(Oid relid, Bitmapset *columns)
{
	Relation	rel = table_open(relid, NoLock);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indisvalid && index->rd_index->indkey.values[0] > 0 &&
			bms_is_member(index->rd_index->indkey.values[0], columns) &&
			RelationGetIndexPredicate(index) == NIL)
			found = true;
		index_close(index, NoLock);
	}
	table_close(rel, NoLock);
	return found;
}
