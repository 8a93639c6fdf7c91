/*
 * recompute_letters.c
 *		Dead letters of windows that are computed anew.
 *
 * All rows of the windows that the table has are counted then, late ones and those that failed before, but for what the
 * stream's condition leaves out: just these are the dead letters of the windows from then on.  A letter of such a
 * row that there is stays as it is, with its number; one of a row that is counted now, or gone, or not as it was,
 * goes: retried, it would be counted twice.  A row of several windows belongs to the last one.
 *
 * Rows that cannot be shown as JSON have letters without a row, of which nobody knows the windows: they stay, and
 * none is added.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/tuplestore.h"

#include "attempt.h"
#include "batch/recompute_letters.h"
#include "capture/event_time.h"
#include "ddl/ddl.h"
#include "moment.h"
#include "query/plan.h"
#include "query/row_json.h"

/* A dead letter */
typedef struct Letter
{
	int64		id;
	int64		time;
	char	   *invalid;		/* the row, if it has failed the stream's condition; if it was asked for */
} Letter;

/* columns of SxLeftOut */
enum
{
	OUT_TIME,
	OUT_ROW,
	OUT_SQLSTATE,
	OUT_MESSAGE,
	OUT_NCOLUMNS
};

struct SxLeftOut
{
	SxViewInfo *info;
	int64		first;
	int64		end;
	TupleDesc	desc;
	Tuplestorestate *rows;
	MemoryContext scratch;

	/* the one at work */
	TupleTableSlot *row;
	Datum		json;
};

/* A letter's row and the condition of its stream */
typedef struct LetterTest
{
	Oid			streamid;
	const char *row;
	char	   *failure;		/* NULL: none */
} LetterTest;

static bool may_count_now(SxViewInfo *info, const Letter *letter);
static void test_letter(void *arg);
static List *find_letters(SxViewInfo *info, int64 first, int64 end, bool with_rows);
static bool is_of_range(SxWindows *windows, const SxWindowRange *range, int64 time);
static void make_json(void *arg);
static void replace_letters(SxViewInfo *info, List *letters, TupleDesc desc, Tuplestorestate *left_out);

void
sx_letters_check(SxViewInfo *info, SxWindows *windows, Datum from, Datum to)
{
	int64		first;
	int64		end;
	ListCell   *lc;
	int			n = 0;
	char	   *name = get_rel_name(info->def->viewid);

	if (!sx_windows_reach(windows, from, false, false, &first))
		return;
	if (!sx_windows_reach(windows, to, true, false, &end))
		end = SX_TIME_END;
	foreach(lc, find_letters(info, first, end, sx_valid_of_stream(info->def->streamid) != NULL))
	{
		Letter	   *letter = lfirst(lc);
		Datum		least;
		Datum		greatest;

		if (sx_windows_of(windows, letter->time, &least, &greatest) &&
			sx_windows_compare(windows, greatest, from) >= 0 && sx_windows_compare(windows, least, to) < 0 &&
			(sx_windows_compare(windows, least, from) < 0 || sx_windows_compare(windows, greatest, to) >= 0) &&
			may_count_now(info, letter))
			n++;
	}
	if (n > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_plural("%d dead letter of continuous view \"%s\" belongs to windows of the range and to others",
							   "%d dead letters of continuous view \"%s\" belong to windows of the range and to others",
							   n, n, name),
				 errhint("Count them in first with SELECT streamext.retry_dead_letters(%s), take a longer range, or add force => true to count them in the windows of the range only.",
						 sx_argument_to_type(info->def->viewid))));
}

/* what fails the condition as ever is left out again */
static bool
may_count_now(SxViewInfo *info, const Letter *letter)
{
	LetterTest	test = {info->def->streamid, letter->invalid, NULL};
	ErrorData  *error;

	if (letter->invalid == NULL)
		return true;
	error = sx_attempt(test_letter, &test, false);
	if (error == NULL)
		return test.failure == NULL;
	FreeErrorData(error);
	return false;
}

static void
test_letter(void *arg)
{
	LetterTest *test = arg;

	test->failure = sx_valid_failure(test->streamid, sx_row_of_json(test->streamid, test->row));
}

/* of rows with an event time from first to before end */
static List *
find_letters(SxViewInfo *info, int64 first, int64 end, bool with_rows)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			save_userid;
	int			save_sec_context;
	char	   *type = format_type_be_qualified(info->time.type);
	char	   *time = psprintf("(\"row\" OPERATOR(pg_catalog.->>) %s)::%s",
								quote_literal_cstr(get_attname(info->def->streamid, info->time.attno, false)), type);
	const int64 bounds[] = {first, end};
	List	   *letters = NIL;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT id, %s, %s FROM " SX_SCHEMA ".dead_letter WHERE view OPERATOR(pg_catalog.=) %u AND %s IS NOT NULL",
					 time,
					 with_rows ? "CASE WHEN reason OPERATOR(pg_catalog.=) 'invalid' THEN \"row\"::pg_catalog.text END" :
					 "NULL::pg_catalog.text",
					 info->def->viewid, time);
	for (int i = 0; i < lengthof(bounds); i++)
	{
		if (bounds[i] != SX_TIME_NONE && bounds[i] != SX_TIME_END)
			appendStringInfo(&sql, " AND %s OPERATOR(pg_catalog.%s) %s::%s", time, i == 0 ? ">=" : "<",
							 quote_literal_cstr(sx_event_time_text(bounds[i], info->time.type)), type);
	}
	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(sx_catalog_extension_owner(), save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	/* with those that the flush wrote before we had the lock */
	if (SPI_execute(sql.data, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read dead letters");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tup = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(caller);
		Letter	   *letter = palloc(sizeof(Letter));
		bool		isnull;

		letter->id = DatumGetInt64(SPI_getbinval(tup, desc, 1, &isnull));
		letter->time = sx_event_time(SPI_getbinval(tup, desc, 2, &isnull), info->time.type);
		letter->invalid = SPI_getvalue(tup, desc, 3);
		letters = lappend(letters, letter);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	SetUserIdAndSecContext(save_userid, save_sec_context);
	return letters;
}

SxLeftOut *
sx_left_out_create(SxViewInfo *info, int64 first, int64 end)
{
	SxLeftOut  *out = palloc0(sizeof(SxLeftOut));

	out->info = info;
	out->first = first;
	out->end = end;
	out->desc = CreateTemplateTupleDesc(OUT_NCOLUMNS);
	TupleDescInitEntry(out->desc, OUT_TIME + 1, "time", INT8OID, -1, 0);
	TupleDescInitEntry(out->desc, OUT_ROW + 1, "row", JSONBOID, -1, 0);
	TupleDescInitEntry(out->desc, OUT_SQLSTATE + 1, "sqlstate", TEXTOID, -1, 0);
	TupleDescInitEntry(out->desc, OUT_MESSAGE + 1, "message", TEXTOID, -1, 0);
	out->rows = tuplestore_begin_heap(false, false, work_mem);
	out->scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext row left out", ALLOCSET_DEFAULT_SIZES);
	return out;
}

/*
 * Nothing of the view's runs here, only of the stream's owner, who we are now: which windows a row belongs to is
 * seen later.
 */
void
sx_left_out_add(void *arg, TupleTableSlot *row, const char *sqlstate, const char *message)
{
	SxLeftOut  *out = arg;
	MemoryContext old;
	bool		isnull;
	Datum		value = slot_getattr(row, out->info->time.attno, &isnull);
	int64		time;

	if (isnull)
		return;
	time = sx_event_time(value, out->info->time.type);
	if (time < out->first || time >= out->end)
		return;
	MemoryContextReset(out->scratch);
	old = MemoryContextSwitchTo(out->scratch);
	out->row = row;
	if (sx_attempt(make_json, out, false) == NULL)
	{
		Datum		values[OUT_NCOLUMNS];
		bool		nulls[OUT_NCOLUMNS] = {0};

		values[OUT_TIME] = Int64GetDatum(time);
		values[OUT_ROW] = out->json;
		values[OUT_SQLSTATE] = CStringGetTextDatum(sqlstate);
		values[OUT_MESSAGE] = CStringGetTextDatum(message);
		tuplestore_putvalues(out->rows, out->desc, values, nulls);
	}
	MemoryContextSwitchTo(old);
}

static void
make_json(void *arg)
{
	SxLeftOut  *out = arg;
	FmgrInfo	to_jsonb;

	sx_row_json_function(&to_jsonb, out->row->tts_tupleDescriptor);
	out->json = FunctionCall1(&to_jsonb, ExecFetchSlotHeapTupleDatum(out->row));
}

void
sx_left_out_keep(SxLeftOut *out, SxWindows *windows, const SxWindowRange *range)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(out->desc, &TTSOpsMinimalTuple);
	Tuplestorestate *kept = tuplestore_begin_heap(false, false, work_mem);
	List	   *letters = NIL;
	ListCell   *lc;

	while (tuplestore_gettupleslot(out->rows, true, false, slot))
	{
		bool		isnull;

		if (is_of_range(windows, range, DatumGetInt64(slot_getattr(slot, OUT_TIME + 1, &isnull))))
			tuplestore_puttupleslot(kept, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(out->rows);
	foreach(lc, find_letters(out->info, out->first, out->end, false))
	{
		if (is_of_range(windows, range, ((Letter *) lfirst(lc))->time))
			letters = lappend(letters, lfirst(lc));
	}
	if (letters != NIL || tuplestore_tuple_count(kept) > 0)
		replace_letters(out->info, letters, out->desc, kept);
	tuplestore_end(kept);
	MemoryContextDelete(out->scratch);
	FreeTupleDesc(out->desc);
	pfree(out);
}

static bool
is_of_range(SxWindows *windows, const SxWindowRange *range, int64 time)
{
	Datum		least;
	Datum		greatest;

	/* rows of later windows, too, are there only by force */
	return sx_windows_of(windows, time, &least, &greatest) && sx_windows_compare(windows, greatest, range->from) >= 0 &&
		sx_windows_compare(windows, range->is_last ? least : greatest, range->until) < 0;
}

/* of rows that are alike, as many letters stay as there are rows */
static void
replace_letters(SxViewInfo *info, List *letters, TupleDesc desc, Tuplestorestate *left_out)
{
	static const char sql[] =
		"WITH here AS (SELECT l.\"row\", l.sqlstate, l.message,"
		" pg_catalog.row_number() OVER (PARTITION BY l.\"row\", l.message) AS nth FROM sx_left_out l),"
		" had AS (SELECT d.id, d.\"row\", d.message,"
		" pg_catalog.row_number() OVER (PARTITION BY d.\"row\", d.message ORDER BY d.id) AS nth"
		" FROM " SX_SCHEMA ".dead_letter d WHERE d.id OPERATOR(pg_catalog.=) ANY ($1) AND d.reason OPERATOR(pg_catalog.=) 'invalid'),"
		" stays AS MATERIALIZED (SELECT had.id, here.\"row\", here.message, here.nth FROM here JOIN had"
		" ON here.\"row\" OPERATOR(pg_catalog.=) had.\"row\" AND here.message OPERATOR(pg_catalog.=) had.message"
		" AND here.nth OPERATOR(pg_catalog.=) had.nth),"
		" gone AS (DELETE FROM " SX_SCHEMA ".dead_letter d WHERE d.id OPERATOR(pg_catalog.=) ANY ($1)"
		" AND NOT EXISTS (SELECT FROM stays WHERE stays.id OPERATOR(pg_catalog.=) d.id))"
		" INSERT INTO " SX_SCHEMA ".dead_letter (view, stream, \"row\", reason, sqlstate, message, at)"
		" SELECT $2, $3, here.\"row\", 'invalid', here.sqlstate, here.message, $4 FROM here"
		" WHERE NOT EXISTS (SELECT FROM stays WHERE stays.\"row\" OPERATOR(pg_catalog.=) here.\"row\""
		" AND stays.message OPERATOR(pg_catalog.=) here.message AND stays.nth OPERATOR(pg_catalog.=) here.nth)";
	EphemeralNamedRelationData rows = {{"sx_left_out", InvalidOid, desc, ENR_NAMED_TUPLESTORE,
	(double) tuplestore_tuple_count(left_out)}, left_out};
	Oid			types[] = {INT8ARRAYOID, OIDOID, OIDOID, TIMESTAMPTZOID};
	Datum		values[lengthof(types)];
	Datum	   *ids = palloc(sizeof(Datum) * Max(1, list_length(letters)));
	int			n = 0;
	Oid			save_userid;
	int			save_sec_context;
	ListCell   *lc;

	foreach(lc, letters)
		ids[n++] = Int64GetDatum(((Letter *) lfirst(lc))->id);
	values[0] = PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = ObjectIdGetDatum(info->def->viewid);
	values[2] = ObjectIdGetDatum(info->def->streamid);
	values[3] = TimestampTzGetDatum(sx_now());
	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(sx_catalog_extension_owner(), save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (SPI_register_relation(&rows) != SPI_OK_REL_REGISTER ||
		SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not replace dead letters");
	SPI_finish();
	SetUserIdAndSecContext(save_userid, save_sec_context);
}
