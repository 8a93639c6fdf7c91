/*
 * sink.c
 *		Appends closed windows to tables of the user's.
 *
 * A sink remembers up to which time windows were closed when it was written last.  The flush that moves the
 * watermark beyond appends the rows of the windows that have closed in between, by
 *
 *	 INSERT INTO target (columns) SELECT columns FROM view WHERE window >= … AND window < …
 *
 * in its own transaction, after the view's table and position are written: a window is appended exactly
 * once, or its flush has not happened.  The target's triggers and constraints are the server's business;
 * the target may be a stream itself.
 *
 * The statement runs as the view's owner, with the table alone (workers read no live state): what is final
 * was in the generation that was just written, since no row after the watermark falls into a closed window,
 * except for those that the stream merges late.  Those change a window that has been appended already; a
 * sink with corrections gets such a window's row once more.
 *
 * Sessions, whose windows have no boundary in common, are found by their ends: see sink_sessions.c.
 */
#include "time/sink.h"

#include "access/htup_details.h"
#include "capture/event_time.h"
#include "catalog/pg_operator.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "query/view_columns.h"
#include "query/window_key.h"
#include "storage/lmgr.h"
#include "time/final.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

static void append_to(SxViewInfo *info, SxWindows *windows, SxSink *sink, int64 closed_until,
					  SxWritten *written);
static uint64 append_closed(SxViewInfo *info, SxWindows *windows, const SxSink *sink, int64 closed_until);
static uint64 append_changed(SxViewInfo *info, SxWindows *windows, const SxSink *sink, Tuplestorestate *rows);
static Tuplestorestate *closed_rows(SxViewInfo *info, SxWindows *windows, Tuplestorestate *rows, bool with_nulls);
static bool has_null_key(SxViewInfo *info, TupleTableSlot *row);

void
sx_sinks_append(SxViewInfo *info, int64 watermark, SxWritten *written, bool wait)
{
	List	   *sinks = sx_catalog_sinks(info->def->viewid);
	SxWindows  *windows;
	ListCell   *lc;

	if (sinks == NIL || info->window_key < 0)
		return;
	windows = sx_windows_create(info, CurrentMemoryContext);
	foreach(lc, sinks)
	{
		SxSink	   *sink = lfirst(lc);

		if (wait)
			LockRelationOid(sink->target, RowExclusiveLock);
		else if (!ConditionalLockRelationOid(sink->target, RowExclusiveLock))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("table \"%s\", to which closed windows are appended, is locked",
							get_rel_name(sink->target))));
		sx_all_is_final = true;
		PG_TRY();
		{
			append_to(info, windows, sink, sx_event_time_minus(watermark, info->time.lateness), written);
		}
		PG_FINALLY();
		{
			sx_all_is_final = false;
		}
		PG_END_TRY();
	}
}

static void
append_to(SxViewInfo *info, SxWindows *windows, SxSink *sink, int64 closed_until, SxWritten *written)
{
	uint64		appended = 0;
	bool		sessions = sx_sessions_close(info);

	if (sink->corrections && written->rows != NULL)
		appended += append_changed(info, windows, sink, written->rows);
	else if (sessions)
		sx_sink_note_reopened(info, windows, sink, written);
	if (closed_until > sink->closed_until)
	{
		if (sx_windows_advance(windows, sink->closed_until, closed_until))
			appended += sessions ? sx_sink_append_sessions(info, windows, sink, closed_until) :
				append_closed(info, windows, sink, closed_until);
		else if (appended == 0 && !sink->reopened_changed)
			return;				/* no window ends in between */
		sink->closed_until = closed_until;
	}
	else if (appended == 0 && !sink->reopened_changed)
		return;
	sink->rows += appended;
	sx_catalog_update_sink(sink);
}

/* windows from the one that was open then to the one that is open now */
static uint64
append_closed(SxViewInfo *info, SxWindows *windows, const SxSink *sink, int64 closed_until)
{
	const char *window = quote_identifier(sx_view_key_column(info->def, info->window_key));
	Form_pg_attribute att = TupleDescAttr(info->desc, info->window_key);
	Oid			types[2] = {att->atttypid, att->atttypid};
	Datum		bounds[2];
	bool		from;
	char	   *sql;
	uint64		n;

	(void) sx_windows_set_time(windows, sink->closed_until);
	from = sx_windows_boundary(windows, &bounds[1]);
	if (from)
		bounds[1] = datumCopy(bounds[1], att->attbyval, att->attlen);
	(void) sx_windows_set_time(windows, closed_until);
	if (!sx_windows_boundary(windows, &bounds[0]))
		return 0;

	sql = psprintf("%s v WHERE v.%s OPERATOR(pg_catalog.<) $1", sx_sink_insert_into(info, sink), window);
	if (from)
		sql = psprintf("%s AND v.%s OPERATOR(pg_catalog.>=) $2", sql, window);
	SPI_connect();
	if (SPI_execute_with_args(sql, from ? 2 : 1, types, bounds, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not append closed windows");
	n = SPI_processed;
	SPI_finish();
	return n;
}

/*
 * What was written into windows that have been appended before.  Keys are compared by equality where none
 * is null, so that indexes and hashes serve; the others are few.
 */
static uint64
append_changed(SxViewInfo *info, SxWindows *windows, const SxSink *sink, Tuplestorestate *rows)
{
	uint64		n = 0;

	(void) sx_windows_set_time(windows, sink->closed_until);
	for (int with_nulls = 0; with_nulls < 2; with_nulls++)
	{
		Tuplestorestate *changed = closed_rows(info, windows, rows, with_nulls);
		StringInfoData sql;

		if (changed == NULL)
			continue;
		initStringInfo(&sql);
		appendStringInfo(&sql, "%s v WHERE EXISTS (SELECT FROM " SX_CHANGED_NAME " c WHERE ", sx_sink_insert_into(info, sink));
		for (int i = 0; i < info->nkeys; i++)
		{
			Form_pg_attribute att = TupleDescAttr(info->desc, i);
			const char *changed_key;
			const char *view_key;

			if (i == info->closed_key)
				continue;
			changed_key = quote_identifier(NameStr(att->attname));
			view_key = quote_identifier(sx_view_key_column(info->def, i));

			appendStringInfo(&sql, "%s(c.%s %s v.%s", i > 0 ? " AND " : "", changed_key, sx_sink_equality_of(att->atttypid), view_key);
			if (with_nulls)
				appendStringInfo(&sql, " OR (c.%s IS NULL AND v.%s IS NULL)", changed_key, view_key);
			appendStringInfoChar(&sql, ')');
		}
		appendStringInfoChar(&sql, ')');

		SPI_connect();
		sx_sink_register_rows(info, changed);
		if (SPI_execute(sql.data, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not append corrections");
		n += SPI_processed;
		SPI_finish();
		tuplestore_end(changed);
	}
	return n;
}

/* NULL: none */
static Tuplestorestate *
closed_rows(SxViewInfo *info, SxWindows *windows, Tuplestorestate *rows, bool with_nulls)
{
	TupleTableSlot *row = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	Tuplestorestate *closed = NULL;

	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, row))
	{
		bool		isnull;
		Datum		key = slot_getattr(row, info->window_key + 1, &isnull);

		if (!sx_window_is_closed(windows, key, isnull) || has_null_key(info, row) != with_nulls)
			continue;
		if (closed == NULL)
			closed = tuplestore_begin_heap(false, false, work_mem);
		tuplestore_puttupleslot(closed, row);
	}
	ExecDropSingleTupleTableSlot(row);
	return closed;
}

static bool
has_null_key(SxViewInfo *info, TupleTableSlot *row)
{
	slot_getsomeattrs(row, info->nkeys);
	for (int i = 0; i < info->nkeys; i++)
		if (row->tts_isnull[i])
			return true;
	return false;
}

void
sx_sink_register_rows(SxViewInfo *info, Tuplestorestate *rows)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	enr->md.name = SX_CHANGED_NAME;
	enr->md.tupdesc = info->desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = tuplestore_tuple_count(rows);
	enr->reldata = rows;
	if (SPI_register_relation(enr) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register rows of a sink");
}

/* by name: the target may have more columns, and in another order */
char *
sx_sink_insert_into(SxViewInfo *info, const SxSink *sink)
{
	StringInfoData names;
	StringInfoData values;
	ListCell   *lc;

	initStringInfo(&names);
	initStringInfo(&values);
	foreach(lc, sx_view_columns(info->def))
	{
		const char *name = quote_identifier(lfirst(lc));

		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", name);
		appendStringInfo(&values, "%sv.%s", values.len > 0 ? ", " : "", name);
	}
	return psprintf("INSERT INTO %s (%s) SELECT %s FROM %s", sx_sink_relation_name(sink->target), names.data, values.data,
					sx_sink_relation_name(info->def->viewid));
}

/* as in the unique index: with an empty search_path "=" might be another type's, which this one can be cast to */
char *
sx_sink_equality_of(Oid type)
{
	Oid			operator = lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr;
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	result = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)), NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return result;
}

char *
sx_sink_relation_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name);
}

/* privileges, columns and types are found out by a statement that appends nothing */
void
sx_sink_check(SxViewInfo *info, const SxSink *sink)
{
	SPI_connect();
	if (SPI_execute(psprintf("%s v WHERE false", sx_sink_insert_into(info, sink)), false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not check the sink");
	SPI_finish();
}
