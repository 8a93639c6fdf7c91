/*
 * replaced_table.c
 *		What users have done to a view's table, carried over to the one that takes its place: indexes, and how columns are
 *		stored.
 *
 * Columns of the two tables belong together where a column of the view is made of them, or else by name.
 */
#include "batch/replace.h"

#include "access/attmap.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/toast_compression.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_utilcmd.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "query/analyze.h"
#include "query/view_columns.h"

/* The two tables */
typedef struct Pair
{
	Relation	source;
	Relation	target;
	AttrMap    *map;			/* source's column -> target's; 0: it has none, or another type */
} Pair;

/* Where the other table has its states, and of which aggregates */
typedef struct States
{
	AttrMap    *map;
	int			first;			/* column number */
	List	   *aggrefs;
} States;

static Pair open_pair(const SxViewDef *from, const SxViewDef *to, LOCKMODE lock);
static void close_pair(Pair *pair);
static void copy_settings(List **cmds, Oid relid, AttrNumber from, Oid other, AttrNumber to);
static void add_command(List **cmds, AlterTableType type, const char *column, Node *def);
static AttrMap *map_columns(const SxViewDef *from, Relation source, const SxViewDef *to, Relation target);
static int	column_behind(const SxViewDef *def, AttrNumber attno);
static void name_columns(List *elems, Relation index, int first, AttrMap *map, Oid matid);
static void check_index(Relation index, AttrMap *map, const SxViewDef *def);
static bool finalizes_other(Node *node, States *states);
static Oid	find_copy(Relation index, Pair *pair);

/* lock: of the table that takes the place; both are kept */
static Pair
open_pair(const SxViewDef *from, const SxViewDef *to, LOCKMODE lock)
{
	Pair		pair;

	pair.source = table_open(from->matid, AccessShareLock);
	pair.target = table_open(to->matid, lock);
	pair.map = map_columns(from, pair.source, to, pair.target);
	return pair;
}

static void
close_pair(Pair *pair)
{
	free_attrmap(pair->map);
	table_close(pair->target, NoLock);
	table_close(pair->source, NoLock);
}

void
sx_copy_indexes(const SxViewDef *from, const SxViewDef *to)
{
	Pair		pair = open_pair(from, to, ShareLock);
	List	   *stmts = NIL;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(pair.source))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		/* the unique one is ours, and what is there need not be made */
		if (!index->rd_index->indisunique && !OidIsValid(find_copy(index, &pair)))
		{
			IndexStmt  *stmt;
			Oid			constraint;

			check_index(index, pair.map, to);
			stmt = generateClonedIndexStmt(NULL, index, pair.map, &constraint);
			stmt->relation = makeRangeVar(SX_SCHEMA, pstrdup(RelationGetRelationName(pair.target)), -1);
			name_columns(stmt->indexParams, index, 0, pair.map, to->matid);
			name_columns(stmt->indexIncludingParams, index, list_length(stmt->indexParams), pair.map, to->matid);
			stmt->idxname = NULL;
			stmt->idxcomment = NULL;
			stmts = lappend(stmts, stmt);
		}
		index_close(index, NoLock);
	}
	close_pair(&pair);
	foreach(lc, stmts)
	{
		SxDefineIndex(to->matid, lfirst_node(IndexStmt, lc));
		CommandCounterIncrement();
	}
}

void
sx_copy_column_settings(const SxViewDef *from, const SxViewDef *to)
{
	Pair		pair = open_pair(from, to, AccessShareLock);
	List	   *cmds = NIL;

	for (int i = 0; i < pair.map->maplen; i++)
		if (pair.map->attnums[i] > 0)
			copy_settings(&cmds, from->matid, i + 1, to->matid, pair.map->attnums[i]);
	close_pair(&pair);
	if (cmds == NIL)
		return;
	AlterTableInternal(to->matid, cmds, false);
	CommandCounterIncrement();
}

/* what differs: the other table is new, so it has the type's own */
static void
copy_settings(List **cmds, Oid relid, AttrNumber from, Oid other, AttrNumber to)
{
	HeapTuple	tup = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(from));
	HeapTuple	now = SearchSysCache2(ATTNUM, ObjectIdGetDatum(other), Int16GetDatum(to));
	Form_pg_attribute a;
	Form_pg_attribute b;
	Datum		value;
	bool		isnull;

	if (!HeapTupleIsValid(tup) || !HeapTupleIsValid(now))
		elog(ERROR, "cache lookup failed for a column of relation %u or %u", relid, other);
	a = (Form_pg_attribute) GETSTRUCT(tup);
	b = (Form_pg_attribute) GETSTRUCT(now);
	/* -1, or null, depending on the version; at most 10,000 in any */
	value = SysCacheGetAttr(ATTNUM, tup, Anum_pg_attribute_attstattarget, &isnull);
	if (!isnull && DatumGetInt16(value) >= 0)
		add_command(cmds, AT_SetStatistics, NameStr(b->attname), (Node *) makeInteger(DatumGetInt16(value)));
	if (a->attstorage != b->attstorage)
		add_command(cmds, AT_SetStorage, NameStr(b->attname),
					(Node *) makeString(pstrdup(a->attstorage == TYPSTORAGE_PLAIN ? "plain" :
												a->attstorage == TYPSTORAGE_EXTERNAL ? "external" :
												a->attstorage == TYPSTORAGE_MAIN ? "main" : "extended")));
	if (a->attcompression != b->attcompression)
		add_command(cmds, AT_SetCompression, NameStr(b->attname),
					(Node *) makeString(pstrdup(CompressionMethodIsValid(a->attcompression) ?
												GetCompressionMethodName(a->attcompression) : "default")));
	value = SysCacheGetAttr(ATTNUM, tup, Anum_pg_attribute_attoptions, &isnull);
	if (!isnull)
	{
		List	   *options = NIL;
		ListCell   *lc;

		/* what users can set; a server may keep something of its own there */
		foreach(lc, untransformRelOptions(value))
			if (strncmp(lfirst_node(DefElem, lc)->defname, "n_distinct", strlen("n_distinct")) == 0)
				options = lappend(options, lfirst(lc));
		if (options != NIL)
			add_command(cmds, AT_SetOptions, NameStr(b->attname), (Node *) options);
	}
	ReleaseSysCache(now);
	ReleaseSysCache(tup);
}

static void
add_command(List **cmds, AlterTableType type, const char *column, Node *def)
{
	AlterTableCmd *cmd = makeNode(AlterTableCmd);

	cmd->subtype = type;
	cmd->name = pstrdup(column);
	cmd->def = def;
	*cmds = lappend(*cmds, cmd);
}

List *
sx_copied_indexes(const SxViewDef *from, const SxViewDef *to)
{
	Pair		pair = open_pair(from, to, AccessShareLock);
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(pair.source))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		Oid			copy = index->rd_index->indisunique ? InvalidOid : find_copy(index, &pair);

		if (OidIsValid(copy))
		{
			SxIndexName *name = palloc(sizeof(SxIndexName));

			name->indexid = copy;
			name->name = pstrdup(RelationGetRelationName(index));
			name->comment = GetComment(RelationGetRelid(index), RelationRelationId, 0);
			names = lappend(names, name);
		}
		index_close(index, NoLock);
	}
	close_pair(&pair);
	return names;
}

/* 0: there is no such column, or it has another type */
static AttrMap *
map_columns(const SxViewDef *from, Relation source, const SxViewDef *to, Relation target)
{
	TupleDesc	in = RelationGetDescr(source);
	TupleDesc	out = RelationGetDescr(target);
	AttrMap    *map = make_attrmap(in->natts);
	int			ncolumns = list_length(sx_view_columns(from));

	/* the hidden view has the columns of the other first */
	for (AttrNumber i = 1; i <= ncolumns; i++)
	{
		int			a = column_behind(from, i);
		int			b = column_behind(to, i);

		if (a > 0 && b > 0)
			map->attnums[a - 1] = b;
	}
	for (int i = 0; i < in->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(in, i);
		Form_pg_attribute b;

		for (int j = 0; j < out->natts && map->attnums[i] == 0; j++)
			if (strcmp(NameStr(a->attname), NameStr(TupleDescAttr(out, j)->attname)) == 0)
				map->attnums[i] = j + 1;
		if (map->attnums[i] == 0)
			continue;
		b = TupleDescAttr(out, map->attnums[i] - 1);
		if (a->atttypid != b->atttypid || a->attcollation != b->attcollation)
			map->attnums[i] = 0;
	}
	return map;
}

/* the table's column that this one of the view is, or is the result of; 0: it is made of several, or none */
static int
column_behind(const SxViewDef *def, AttrNumber attno)
{
	Node	   *expr = sx_view_column_expr(def, get_attname(def->viewid, attno, false));
	Bitmapset  *used = NULL;

	pull_varattnos(expr, 1, &used);
	if (bms_num_members(used) != 1 || (!IsA(expr, Var) && !IsA(expr, FuncExpr)))
		return 0;
	return bms_singleton_member(used) + FirstLowInvalidHeapAttributeNumber;
}

/* core takes the names that the columns have in the index's own table */
static void
name_columns(List *elems, Relation index, int first, AttrMap *map, Oid matid)
{
	ListCell   *lc;

	foreach(lc, elems)
	{
		AttrNumber	attno = index->rd_index->indkey.values[first + foreach_current_index(lc)];

		if (attno > 0)
			lfirst_node(IndexElem, lc)->name = get_attname(matid, map->attnums[attno - 1], false);
	}
}

static void
check_index(Relation index, AttrMap *map, const SxViewDef *def)
{
	States		states = {map, def->nkeys + 1, NIL};
	List	   *exprs = list_concat(list_copy(RelationGetIndexExpressions(index)), RelationGetIndexPredicate(index));
	Bitmapset  *used = NULL;
	int			attno = -1;
	bool		lost = false;

	pull_varattnos((Node *) exprs, 1, &used);
	for (int i = 0; i < index->rd_index->indnatts; i++)
		if (index->rd_index->indkey.values[i] != 0)
			used = bms_add_member(used, index->rd_index->indkey.values[i] - FirstLowInvalidHeapAttributeNumber);
	while ((attno = bms_next_member(used, attno)) >= 0)
	{
		int			column = attno + FirstLowInvalidHeapAttributeNumber;

		lost |= column <= 0 || map->attnums[column - 1] == 0;
	}
	if (def->strategy == SX_MERGE)
		states.aggrefs = sx_analyze_stored(def->queryid, def->streamid)->aggrefs;
	lost = lost || finalizes_other((Node *) exprs, &states);
	if (lost)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("index \"%s\" cannot be kept", RelationGetRelationName(index)),
				 errdetail("It is on a column that the new definition does not have, or computes by another aggregate."),
				 errhint("Drop the index, and create it again when the view has been replaced.")));
}

/* does it make a result from what is the state of another aggregate, under the same name, in the other table? */
static bool
finalizes_other(Node *node, States *states)
{
	FuncExpr   *call = (FuncExpr *) node;

	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && get_func_namespace(call->funcid) == sx_catalog_schema_oid())
	{
		Node	   *aggregate = linitial(call->args);
		Node	   *state = list_length(call->args) > 1 ? lsecond(call->args) : NULL;
		int			n;

		if (!IsA(aggregate, Const) || state == NULL || !IsA(state, Var))
			return true;
		n = states->map->attnums[((Var *) state)->varattno - 1] - states->first;
		return n < 0 || n >= list_length(states->aggrefs) ||
			list_nth_node(Aggref, states->aggrefs, n)->aggfnoid != DatumGetObjectId(((Const *) aggregate)->constvalue);
	}
	return expression_tree_walker(node, finalizes_other, states);
}

/* the index that is the same on the other table */
static Oid
find_copy(Relation index, Pair *pair)
{
	IndexInfo  *info = BuildIndexInfo(index);
	Oid			result = InvalidOid;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(pair->target))
	{
		Relation	other = index_open(lfirst_oid(lc), AccessShareLock);

		if (!OidIsValid(result) && !other->rd_index->indisunique &&
			CompareIndexInfo(BuildIndexInfo(other), info, other->rd_indcollation, index->rd_indcollation,
							 other->rd_opfamily, index->rd_opfamily, pair->map))
			result = RelationGetRelid(other);
		index_close(other, NoLock);
	}
	return result;
}
