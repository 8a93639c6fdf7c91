/*
 * merge.c
 *		Writing rows into the materialized table, combined with what is there.
 *
 * The rows come in a tuplestore and go into the table by one statement,
 *
 *	 INSERT INTO streamext.mat_<n> SELECT ... FROM <rows> ON CONFLICT (keys)
 *	 DO UPDATE SET state = streamext.combine(aggregate, table's, row's), ...
 *
 * in which the tuplestore is an ephemeral named relation, so that triggers, constraints and
 * indexes of the table are the server's business.  A result that is stored beside its state (view_info.h) is set by
 * streamext.finalize from the new state.  The statement is prepared once per SxViewInfo and freed with it.
 *
 * Where nothing has to be done for a row but to store it, which is usual, the same goes without a statement: see
 * merge_bulk.c.
 *
 * ON CONFLICT must not meet the same key twice in one statement, so rows of one key are combined first: merge_groups.c.
 *
 * Sessions overlap instead of being equal: see merge_sessions.c.
 *
 * Everything is part of the caller's transaction.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog/definitions.h"
#include "live/merge.h"
#include "testing/stop_points.h"

/* the statement's name for the tuplestore */
#define ROWS_NAME "streamext_rows"

/* Columns of streamext.dead_letter (src/sql/10_catalog.sql) */
enum
{
	DEAD_ID,
	DEAD_VIEW,
	DEAD_STREAM,
	DEAD_ROW,
	DEAD_REASON,
	DEAD_SQLSTATE,
	DEAD_MESSAGE,
	DEAD_AT,
	DEAD_NATTS
};

/* Hangs off SxViewInfo.merge, lives as long */
typedef struct SxMerge
{
	SPIPlanPtr	plan;			/* in memory of SPI's, freed by the callback */
	SPIPlanPtr	delete_plan;	/* sessions that others have taken up */
	MemoryContextCallback callback;
} SxMerge;

static SxMerge *get_merge(SxViewInfo *info);
static void free_plans(void *arg);
static char *table_name(SxViewInfo *info);
static char *build_statement(SxViewInfo *info);
static void append_insert(StringInfo sql, SxViewInfo *info, const char *table);
static void append_update(StringInfo sql, SxViewInfo *info);
static const char *column_name(SxViewInfo *info, int column);
static void append_combine(StringInfo sql, SxAgg *agg, const char *column);
static void append_finalize(StringInfo sql, SxAgg *agg, const char *state);
static void append_argument_types(StringInfo sql, SxAgg *agg);
static void put_row(void *arg, TupleTableSlot *row);

/* ---- writing rows ---- */

void
sx_merge_into_table(SxViewInfo *info, Tuplestorestate *rows, SxWritten *written)
{
	if (written != NULL)
		written->rows = rows;
	if (tuplestore_tuple_count(rows) == 0)
		return;
	if (info->session_key >= 0)
		sx_merge_sessions(info, rows, written);
	else if (info->nkeys > 0 || !sx_merge_bulk(info, rows, NULL))
		sx_merge_write(info, rows, NULL);
}

void
sx_merge_into_new_table(SxViewInfo *info, Tuplestorestate *rows, SxMergeProgress progress)
{
	if (info->session_key >= 0 || tuplestore_tuple_count(rows) == 0)
		sx_merge_into_table(info, rows, NULL);
	else if (!sx_merge_bulk(info, rows, progress))
		sx_merge_write(info, rows, progress);
}

static SxMerge *
get_merge(SxViewInfo *info)
{
	MemoryContext old;
	SxMerge    *merge;

	if (info->merge != NULL)
		return info->merge;

	old = MemoryContextSwitchTo(info->context);
	merge = palloc0(sizeof(SxMerge));
	merge->callback.func = free_plans;
	merge->callback.arg = merge;
	MemoryContextRegisterResetCallback(info->context, &merge->callback);
	info->merge = merge;
	MemoryContextSwitchTo(old);
	return merge;
}

static void
free_plans(void *arg)
{
	SxMerge    *merge = arg;

	if (merge->plan != NULL)
		SPI_freeplan(merge->plan);
	merge->plan = NULL;
	if (merge->delete_plan != NULL)
		SPI_freeplan(merge->delete_plan);
	merge->delete_plan = NULL;
}

void
sx_merge_write(SxViewInfo *info, Tuplestorestate *rows, SxMergeProgress progress)
{
	SxMerge    *merge;
	EphemeralNamedRelationData enr;
	Tuplestorestate *store = rows;
	int			result;

	if (info->nkeys > 0 && sx_merge_upsert(info, rows, progress))
	{
		SX_STOP_POINT_OF(merge_written, info->def->viewid);
		return;
	}
	if (info->nkeys > 0)
	{
		store = tuplestore_begin_heap(false, false, work_mem);
		sx_merge_groups(info, rows, false, put_row, store, progress);
	}
	memset(&enr, 0, sizeof(enr));
	enr.md.name = ROWS_NAME;
	enr.md.reliddesc = InvalidOid;
	enr.md.tupdesc = info->desc;
	enr.md.enrtype = ENR_NAMED_TUPLESTORE;
	enr.md.enrtuples = tuplestore_tuple_count(store);
	enr.reldata = store;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if ((result = SPI_register_relation(&enr)) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register rows: %s", SPI_result_code_string(result));

	merge = get_merge(info);
	if (merge->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(build_statement(info), 0, NULL);

		if (plan == NULL)
			elog(ERROR, "could not prepare the upsert: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		merge->plan = plan;
	}

	result = SPI_execute_plan(merge->plan, NULL, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute the upsert: %s", SPI_result_code_string(result));
	SPI_finish();
	if (store != rows)
		tuplestore_end(store);
	SX_STOP_POINT_OF(merge_written, info->def->viewid);
}

static void
put_row(void *arg, TupleTableSlot *row)
{
	tuplestore_puttupleslot(arg, row);
}

/* by their ctids, which nobody else changes: the position's sequence number says who writes */
void
sx_merge_delete(SxViewInfo *info, Datum *ctids, int n)
{
	SxMerge    *merge = get_merge(info);
	Datum		array;
	int			result;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (merge->delete_plan == NULL)
	{
		Oid			type = TIDARRAYOID;
		SPIPlanPtr	plan = SPI_prepare(psprintf("DELETE FROM ONLY %s WHERE ctid = ANY ($1)", table_name(info)),
									   1, &type);

		if (plan == NULL)
			elog(ERROR, "could not prepare the delete: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		merge->delete_plan = plan;
	}
	array = PointerGetDatum(construct_array(ctids, n, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT));
	result = SPI_execute_plan(merge->delete_plan, &array, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute the delete: %s", SPI_result_code_string(result));
	if (SPI_processed != n)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not replace sessions of the materialized table"),
				 errdetail("%d sessions become part of others, but " UINT64_FORMAT " were deleted.", n, SPI_processed),
				 errhint("Something else writes the table, or a trigger stands in the way: remove it.")));
	SPI_finish();
}

static char *
table_name(SxViewInfo *info)
{
	char	   *table = get_rel_name(info->def->matid);

	if (table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("materialized table with OID %u does not exist", info->def->matid)));
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(info->def->matid)), table);
}

static char *
build_statement(SxViewInfo *info)
{
	StringInfoData sql;

	initStringInfo(&sql);
	append_insert(&sql, info, table_name(info));
	if (info->nkeys > 0)
	{
		appendStringInfoString(&sql, " ON CONFLICT (");
		for (int i = 0; i < info->nkeys; i++)
			appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "", column_name(info, i));
		appendStringInfoString(&sql, info->naggs > 0 ? ") DO UPDATE SET " : ") DO NOTHING");
		append_update(&sql, info);
	}
	return sql.data;
}

static void
append_insert(StringInfo sql, SxViewInfo *info, const char *table)
{
	int			next = 0;
	StringInfoData values;

	initStringInfo(&values);
	appendStringInfo(sql, "INSERT INTO %s AS t (", table);
	for (int i = 0; i < info->desc->natts; i++)
	{
		const char *comma = i > 0 ? ", " : "";

		appendStringInfo(sql, "%s%s", comma, column_name(info, i));
		appendStringInfoString(&values, comma);
		if (next < info->nresults && i == info->nkeys + info->results[next])
		{
			int			n = info->results[next++];

			append_finalize(&values, info->aggs[n], column_name(info, info->states[n]));
		}
		else
			appendStringInfoString(&values, column_name(info, i));
	}
	appendStringInfo(sql, ") SELECT %s FROM " ROWS_NAME, values.data);
}

/*
 * A state that has a result is computed in a sub-select, once for both.  (OFFSET keeps the planner from putting the
 * call in the place of each reference to it.)
 */
static void
append_update(StringInfo sql, SxViewInfo *info)
{
	StringInfoData columns;
	StringInfoData values;
	StringInfoData states;
	int			next = 0;
	bool		any = false;

	initStringInfo(&columns);
	initStringInfo(&values);
	initStringInfo(&states);
	for (int i = 0; i < info->naggs; i++)
	{
		const char *column = column_name(info, info->states[i]);

		if (next < info->nresults && info->results[next] == i)
		{
			const char *comma = next > 0 ? ", " : "";

			appendStringInfo(&columns, "%s%s, %s", comma, column, column_name(info, info->nkeys + i));
			appendStringInfo(&values, "%ss.s%d, ", comma, i);
			append_finalize(&values, info->aggs[i], psprintf("s.s%d", i));
			appendStringInfoString(&states, comma);
			append_combine(&states, info->aggs[i], column);
			appendStringInfo(&states, " AS s%d", i);
			next++;
			continue;
		}
		appendStringInfo(sql, "%s%s = ", any ? ", " : "", column);
		append_combine(sql, info->aggs[i], column);
		any = true;
	}
	if (next > 0)
		appendStringInfo(sql, "%s(%s) = (SELECT %s FROM (SELECT %s OFFSET 0) AS s)", any ? ", " : "",
						 columns.data, values.data, states.data);
}

static const char *
column_name(SxViewInfo *info, int column)
{
	return quote_identifier(NameStr(TupleDescAttr(info->desc, column)->attname));
}

static void
append_combine(StringInfo sql, SxAgg *agg, const char *column)
{
	appendStringInfo(sql, SX_SCHEMA ".combine('%u'::pg_catalog.regprocedure, t.%s, excluded.%s",
					 sx_agg_function(agg), column, column);
	append_argument_types(sql, agg);
	appendStringInfoChar(sql, ')');
}

static void
append_finalize(StringInfo sql, SxAgg *agg, const char *state)
{
	appendStringInfo(sql, SX_SCHEMA ".finalize('%u'::pg_catalog.regprocedure, %s, NULL::%s", sx_agg_function(agg), state,
					 format_type_extended(sx_agg_result_type(agg), -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	append_argument_types(sql, agg);
	appendStringInfoChar(sql, ')');
}

/*
 * Argument types make the call exact for polymorphic aggregates; an explicit collation on
 * them makes it the aggregate's, which the state column need not have.
 */
static void
append_argument_types(StringInfo sql, SxAgg *agg)
{
	Aggref	   *aggref = sx_agg_aggref(agg);
	char	   *collation = NULL;
	HeapTuple	tuple;
	ListCell   *lc;

	/*
	 * A collatable state column has the aggregate's collation already (view_def.c).  Said
	 * again here, two aggregates with different ones would conflict: the parser looks at
	 * all of DO UPDATE SET as one expression.
	 */
	if (OidIsValid(aggref->inputcollid) && !type_is_collatable(sx_agg_storage_type(agg)))
	{
		tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(aggref->inputcollid));
		if (HeapTupleIsValid(tuple))
		{
			Form_pg_collation form = (Form_pg_collation) GETSTRUCT(tuple);

			collation = quote_qualified_identifier(get_namespace_name(form->collnamespace),
												   NameStr(form->collname));
			ReleaseSysCache(tuple);
		}
	}

	foreach(lc, aggref->aggargtypes)
	{
		Oid			type = lfirst_oid(lc);

		/* without a modifier, even where the plain name implies one: bit is not bit(1) */
		appendStringInfo(sql, ", NULL::%s",
						 format_type_extended(type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		if (collation != NULL && type_is_collatable(type))
			appendStringInfo(sql, " COLLATE %s", collation);
	}
}

/* ---- dead letters ---- */

/*
 * Straight into the heap and its indexes, below everything that could run somebody's code
 * or look at privileges: triggers, rules, row security.
 */
void
sx_dead_letter_insert(Oid viewid, Oid stream, const char *sqlstate, const char *reason,
					  const char *row_json, const char *message, TimestampTz at)
{
	/* there may be many in one transaction */
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext dead letter", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	Relation	rel = table_open(sx_catalog_table_oid("dead_letter"), RowExclusiveLock);
	Oid			sequence = get_relname_relid("dead_letter_id_seq", RelationGetNamespace(rel));
	Datum		values[DEAD_NATTS] = {0};
	bool		isnull[DEAD_NATTS] = {0};
	HeapTuple	tuple;

	if (RelationGetDescr(rel)->natts != DEAD_NATTS || !OidIsValid(sequence))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" was altered", RelationGetRelationName(rel)),
				 errhint("Restore its columns, or create the extension again.")));

	values[DEAD_ID] = Int64GetDatum(nextval_internal(sequence, false));
	values[DEAD_VIEW] = ObjectIdGetDatum(viewid);
	values[DEAD_STREAM] = ObjectIdGetDatum(stream);
	if (row_json != NULL)
		values[DEAD_ROW] = DirectFunctionCall1(jsonb_in, CStringGetDatum(row_json));
	isnull[DEAD_ROW] = (row_json == NULL);
	values[DEAD_REASON] = CStringGetTextDatum(reason);
	if (sqlstate != NULL)
		values[DEAD_SQLSTATE] = CStringGetTextDatum(sqlstate);
	isnull[DEAD_SQLSTATE] = (sqlstate == NULL);
	if (message != NULL)
		values[DEAD_MESSAGE] = CStringGetTextDatum(message);
	isnull[DEAD_MESSAGE] = (message == NULL);
	values[DEAD_AT] = TimestampTzGetDatum(at);

	tuple = heap_form_tuple(RelationGetDescr(rel), values, isnull);
	CatalogTupleInsert(rel, tuple);
	table_close(rel, RowExclusiveLock);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}
