/*
 * row_filter.c
 *		Leaves rows of a stream that are not valid out of a query on the raw rows.
 *
 * The condition is evaluated as the owner of the stream's table, the query runs as the owner of the view.  So
 * it is evaluated first, over all rows that the snapshot sees, and the addresses of those that fail are
 * noted.  The query gets a condition of ours on the stream, streamext.is_valid(tableoid, ctid), as a
 * security qual: it stands before every expression of the query, which may raise errors on such rows.
 *
 * Memory grows with the rows that fail.
 */
#include "postgres.h"

#include "access/attmap.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "storage/itemptr.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "attempt.h"
#include "query/row_filter.h"

/* hash key, without the padding at its end */
typedef struct RowAddress
{
	Oid			table;
	ItemPointerData tid;
} RowAddress;

#define ROW_ADDRESS_SIZE	(offsetof(RowAddress, tid) + sizeof(ItemPointerData))

typedef struct RowTest
{
	SxValidRun *run;
	TupleTableSlot *slot;
	bool		result;
} RowTest;

struct SxRowFilter
{
	Oid			streamid;
	HTAB	   *invalid;		/* of RowAddress */
	SxInvalidRowFn tell;
	void	   *arg;
	char	   *message;		/* of rows for which the condition is false; made when first needed */
};

static SxRowFilter *active = NULL;
static bool to_be_applied = false;

PG_FUNCTION_INFO_V1(sx_is_valid);

static void scan_leaf(SxRowFilter *filter, SxValidRun *run, Oid leaf, TupleDesc desc);
static bool check_row(SxRowFilter *filter, SxValidRun *run, TupleTableSlot *slot);
static void test_row(void *arg);
static bool add_quals(Node *node, void *context);
static Node *is_valid_call(Index rti);

SxRowFilter *
sx_row_filter_create(Oid streamid, Snapshot snapshot, SxInvalidRowFn tell, void *arg)
{
	SxValid    *valid = sx_valid_of_stream(streamid);
	SxRowFilter *filter;
	SxValidRun	run;
	HASHCTL		ctl = {0};
	Relation	stream;
	ListCell   *lc;

	if (valid == NULL)
		return NULL;
	filter = palloc0(sizeof(SxRowFilter));
	filter->streamid = streamid;
	filter->tell = tell;
	filter->arg = arg;
	ctl.keysize = ROW_ADDRESS_SIZE;
	ctl.entrysize = sizeof(RowAddress);
	ctl.hcxt = CurrentMemoryContext;
	filter->invalid = hash_create("streamext rows that are not valid", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	stream = table_open(streamid, AccessShareLock);
	PushActiveSnapshot(snapshot);
	if (!sx_valid_begin(&run, valid))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the condition of stream \"%s\" is being changed", RelationGetRelationName(stream)),
				 errhint("Try again.")));
	foreach(lc, find_all_inheritors(streamid, AccessShareLock, NULL))
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION)
			scan_leaf(filter, &run, lfirst_oid(lc), RelationGetDescr(stream));
	}
	sx_valid_end(&run);
	PopActiveSnapshot();
	table_close(stream, NoLock);
	return filter;
}

static void
scan_leaf(SxRowFilter *filter, SxValidRun *run, Oid leaf, TupleDesc desc)
{
	Relation	rel = table_open(leaf, AccessShareLock);
	AttrMap    *map = leaf == filter->streamid ? NULL : SxBuildAttrMapIfReq(RelationGetDescr(rel), desc);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TupleTableSlot *as_stream = map ? MakeSingleTupleTableSlot(desc, &TTSOpsVirtual) : slot;
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (map)
			execute_attr_map_slot(map, slot, as_stream);
		if (!check_row(filter, run, as_stream))
		{
			RowAddress	address = {leaf, slot->tts_tid};

			(void) hash_search(filter->invalid, &address, HASH_ENTER, NULL);
		}
	}
	table_endscan(scan);
	if (map)
		ExecDropSingleTupleTableSlot(as_stream);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/* a row whose condition raises an error is not valid either */
static bool
check_row(SxRowFilter *filter, SxValidRun *run, TupleTableSlot *slot)
{
	RowTest		test = {run, slot};
	ErrorData  *error = sx_attempt(test_row, &test, false);

	if (error == NULL && test.result)
		return true;
	if (filter->tell != NULL && error != NULL)
		filter->tell(filter->arg, slot, unpack_sql_state(error->sqlerrcode), error->message);
	else if (filter->tell != NULL)
	{
		if (filter->message == NULL)
			filter->message = sx_valid_message(run);
		filter->tell(filter->arg, slot, SX_INVALID_SQLSTATE, filter->message);
	}
	if (error != NULL)
		FreeErrorData(error);
	return false;
}

static void
test_row(void *arg)
{
	RowTest    *test = arg;

	test->result = sx_valid_test(test->run, test->slot);
}

void
sx_row_filter_begin(SxRowFilter *filter)
{
	active = filter;
	to_be_applied = filter != NULL;
}

void
sx_row_filter_end(void)
{
	active = NULL;
	to_be_applied = false;
}

bool
sx_row_filter_apply(Query *query)
{
	if (likely(!to_be_applied))
		return false;
	/* queries that functions run while this one is planned are none of ours */
	to_be_applied = false;
	(void) add_quals((Node *) query, active);
	return true;
}

static bool
add_quals(Node *node, void *context)
{
	SxRowFilter *filter = context;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		Index		rti = 0;
		ListCell   *lc;

		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			rti++;
			if (rte->rtekind == RTE_RELATION && rte->relid == filter->streamid)
				rte->securityQuals = lappend(rte->securityQuals, is_valid_call(rti));
		}
		return query_tree_walker(query, add_quals, context, 0);
	}
	return expression_tree_walker(node, add_quals, context);
}

static Node *
is_valid_call(Index rti)
{
	Oid			argtypes[2] = {OIDOID, TIDOID};
	Oid			function = LookupFuncName(list_make2(makeString(SX_SCHEMA), makeString("is_valid")), 2, argtypes, false);

	return (Node *) makeFuncExpr(function, BOOLOID,
								 list_make2(makeVar(rti, TableOidAttributeNumber, OIDOID, -1, InvalidOid, 0),
											makeVar(rti, SelfItemPointerAttributeNumber, TIDOID, -1, InvalidOid, 0)),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/* whoever calls it by hand gets true */
Datum
sx_is_valid(PG_FUNCTION_ARGS)
{
	RowAddress	address;
	bool		found;

	if (active == NULL)
		PG_RETURN_BOOL(true);
	address.table = PG_GETARG_OID(0);
	address.tid = *(ItemPointer) PG_GETARG_POINTER(1);
	(void) hash_search(active->invalid, &address, HASH_FIND, &found);
	PG_RETURN_BOOL(!found);
}
