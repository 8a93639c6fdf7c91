/*
 * sink_sessions.c
 *		Appends closed sessions to tables of the user's.
 *
 * A session is passed on by the flush whose watermark reaches its end: those that end behind where the sink
 * stood before, and not behind where it stands now.  They are found by an index on upper(session).
 *
 * Where late rows are merged, one may extend a session that has been passed on, or unite it with others,
 * so that it ends later.  When it closes again, it goes once more to a sink with corrections.  To others it
 * must not: rows would be in the target twice.  So the flush that writes such a session notes it with the
 * sink, by its keys and a moment within it (sessions grow and unite, but keep what is in them), and what
 * contains that moment is left out when it closes.  The same happens when allowed_lateness is raised, or a
 * dead letter is counted in.  All of it is part of the flush's transaction.
 */
#include "time/sink.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "query/view_columns.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"

static Tuplestorestate *reopened_rows(SxViewInfo *info, SxWritten *written, int64 passed);
static void forget_closed(SxViewInfo *info, SxSink *sink, Datum until);
static char *same_session(SxViewInfo *info);
static char *qualified_type(Oid type);
static Datum json_result(bool *isnull);

void
sx_sink_note_reopened(SxViewInfo *info, SxWindows *windows, SxSink *sink, SxWritten *written)
{
	Tuplestorestate *rows;
	StringInfoData sql;
	Oid			type = JSONBOID;
	Datum		before = sink->reopened ? PointerGetDatum(sink->reopened) : (Datum) 0;
	MemoryContext caller = CurrentMemoryContext;
	int64		passed;
	bool		isnull;

	(void) sx_windows_set_time(windows, sink->closed_until);
	if (written->n == 0 || !sx_windows_session_boundary(windows, &passed))
		return;
	rows = reopened_rows(info, written, passed);
	if (rows == NULL)
		return;

	/* as text, which any type has */
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT coalesce($1, '[]') OPERATOR(pg_catalog.||)"
						   " pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(");
	for (int i = 0; i < info->nkeys; i++)
	{
		const char *key = quote_identifier(NameStr(TupleDescAttr(info->desc, i)->attname));

		appendStringInfo(&sql, i == info->session_key ? "pg_catalog.lower(c.%s)::pg_catalog.text" : "c.%s::pg_catalog.text, ", key);
	}
	appendStringInfoString(&sql, ")) FROM " SX_CHANGED_NAME " c");
	SPI_connect();
	sx_sink_register_rows(info, rows);
	if (SPI_execute_with_args(sql.data, 1, &type, &before, sink->reopened ? NULL : "n", true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not note sessions that have been opened again");
	MemoryContextSwitchTo(caller);
	sink->reopened = DatumGetJsonbPCopy(json_result(&isnull));
	sink->reopened_changed = true;
	SPI_finish();
	MemoryContextSwitchTo(caller);
	tuplestore_end(rows);
}

/* sessions that were passed on, or have taken up such, and end later than what was passed on; NULL: none */
static Tuplestorestate *
reopened_rows(SxViewInfo *info, SxWritten *written, int64 passed)
{
	TupleTableSlot *row = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	Tuplestorestate *rows = NULL;

	tuplestore_rescan(written->rows);
	for (int64 i = 0; tuplestore_gettupleslot(written->rows, true, false, row); i++)
	{
		if (written->taken[i] > passed || sx_row_span(info, row).upper <= passed)
			continue;
		if (rows == NULL)
			rows = tuplestore_begin_heap(false, false, work_mem);
		tuplestore_puttupleslot(rows, row);
	}
	ExecDropSingleTupleTableSlot(row);
	return rows;
}

uint64
sx_sink_append_sessions(SxViewInfo *info, SxWindows *windows, SxSink *sink, int64 closed_until)
{
	const char *session = quote_identifier(sx_view_key_column(info->def, info->session_key));
	TypeCacheEntry *element = info->session_type->rngelemtype;
	Oid			types[3] = {element->type_id, element->type_id, JSONBOID};
	Datum		args[3] = {0};
	char		nulls[4] = "   ";
	StringInfoData sql;
	uint64		n;

	(void) sx_windows_set_time(windows, sink->closed_until);
	if (sx_windows_boundary(windows, &args[1]))
		args[1] = datumCopy(args[1], element->typbyval, element->typlen);
	else
		nulls[1] = 'n';
	(void) sx_windows_set_time(windows, closed_until);
	if (!sx_windows_boundary(windows, &args[0]))
		return 0;

	initStringInfo(&sql);
	appendStringInfo(&sql, "%s v WHERE pg_catalog.upper(v.%s) OPERATOR(pg_catalog.<=) $1", sx_sink_insert_into(info, sink), session);
	if (nulls[1] != 'n')
		appendStringInfo(&sql, " AND pg_catalog.upper(v.%s) OPERATOR(pg_catalog.>) $2", session);
	if (sink->reopened != NULL)
	{
		args[2] = PointerGetDatum(sink->reopened);
		appendStringInfo(&sql, " AND NOT EXISTS (SELECT FROM pg_catalog.jsonb_array_elements($3) e WHERE %s)", same_session(info));
	}
	else
		nulls[2] = 'n';
	SPI_connect();
	if (SPI_execute_with_args(sql.data, 3, types, args, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not append closed sessions");
	n = SPI_processed;
	SPI_finish();
	if (sink->reopened != NULL)
		forget_closed(info, sink, args[0]);
	return n;
}

/* keeps what is still open */
static void
forget_closed(SxViewInfo *info, SxSink *sink, Datum until)
{
	TypeCacheEntry *element = info->session_type->rngelemtype;
	Oid			types[2] = {element->type_id, JSONBOID};
	Datum		args[2] = {until, PointerGetDatum(sink->reopened)};
	MemoryContext caller = CurrentMemoryContext;
	Datum		left;
	bool		isnull;

	SPI_connect();
	/* not read only: it looks at what this transaction has just written */
	if (SPI_execute_with_args(psprintf("SELECT pg_catalog.jsonb_agg(e) FROM pg_catalog.jsonb_array_elements($2) e"
									   " WHERE EXISTS (SELECT FROM %s v WHERE pg_catalog.upper(v.%s) OPERATOR(pg_catalog.>) $1 AND %s)",
									   sx_sink_relation_name(info->def->viewid),
									   quote_identifier(sx_view_key_column(info->def, info->session_key)),
									   same_session(info)),
							  2, types, args, NULL, false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not look for sessions that have closed again");
	MemoryContextSwitchTo(caller);
	left = json_result(&isnull);
	sink->reopened = isnull ? NULL : DatumGetJsonbPCopy(left);
	sink->reopened_changed = true;
	SPI_finish();
	MemoryContextSwitchTo(caller);
}

/* is the row "v" of the view what the array "e" notes? */
static char *
same_session(SxViewInfo *info)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < info->nkeys; i++)
	{
		Oid			type = TupleDescAttr(info->desc, i)->atttypid;
		const char *column = quote_identifier(sx_view_key_column(info->def, i));
		char	   *noted;

		if (i == info->session_key)
			type = info->session_type->rngelemtype->type_id;
		noted = psprintf("(e OPERATOR(pg_catalog.->>) %d)::%s", i, qualified_type(type));
		if (i == info->session_key)
			appendStringInfo(&sql, "v.%s OPERATOR(pg_catalog.@>) %s", column, noted);
		else
			appendStringInfo(&sql, "(v.%s %s %s OR (v.%s IS NULL AND e OPERATOR(pg_catalog.->>) %d IS NULL)) AND ",
							 column, sx_sink_equality_of(type), noted, column, i);
	}
	return sql.data;
}

static char *
qualified_type(Oid type)
{
	return format_type_extended(type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

static Datum
json_result(bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, isnull);
}
