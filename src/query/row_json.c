/*
 * row_json.c
 *		Rows as JSON, and back.
 */
#include "query/row_json.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "query/plan.h"

void
sx_row_json_function(FmgrInfo *to_jsonb, TupleDesc desc)
{
	Const	   *row = makeNullConst(desc->tdtypeid, desc->tdtypmod, InvalidOid);

	fmgr_info(F_TO_JSONB, to_jsonb);
	/* it learns its argument's type from the call's expression */
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(row), InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL), to_jsonb);
}

/*
 * Columns that the JSON has and the stream has not would be lost.  Conditions of domains run as the stream's
 * owner, who has chosen the types.
 */
HeapTuple
sx_row_of_json(Oid streamid, const char *json)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			type = JSONBOID;
	Datum		value = DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
	char	   *sql = psprintf("SELECT r FROM pg_catalog.jsonb_populate_record(NULL::%s, $1) r",
							   quote_qualified_identifier(get_namespace_name(get_rel_namespace(streamid)),
														  get_rel_name(streamid)));
	JsonbIterator *it = JsonbIteratorInit(&DatumGetJsonbP(value)->root);
	JsonbValue	key;
	JsonbIteratorToken token;
	HeapTupleHeader header;
	HeapTupleData tuple;
	HeapTuple	result;
	bool		isnull;
	SxRunAs		as;

	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		char	   *name;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(key.val.string.val, key.val.string.len);
		if (get_attnum(streamid, name) == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("the stream has no column \"%s\" any more", name)));
	}

	sx_run_as_table_owner(&as, streamid);
	SPI_connect();
	if (SPI_execute_with_args(sql, 1, &type, &value, NULL, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not make a row of a dead letter");
	header = DatumGetHeapTupleHeader(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	MemoryContextSwitchTo(caller);
	result = heap_copytuple(&tuple);
	SPI_finish();
	sx_run_as_end(&as);
	MemoryContextSwitchTo(caller);
	return result;
}
