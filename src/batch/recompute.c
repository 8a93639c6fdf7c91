/*
 * recompute.c
 *		SQL: CALL streamext.backfill(view, from, to): computes windows of a view anew from the raw rows.
 *
 * The view's table is locked against the flush, so its stored position stands still while new rows go on
 * to be consumed and read from memory.  The query runs over the rows of the range as that position sees them, and its
 * result takes the place of the windows' rows, in one transaction.  What is live is what came after the position: it is
 * added to the new rows as it was to the old ones.
 *
 * VACUUM leaves the rows that the position sees, as long as they are read: it was stored after the statement had
 * its snapshot.  That is not so in a transaction block that has the lock from a statement before; therefore the slot
 * keeps them until the transaction ends, and who has the lock from another function is refused where they may be gone.
 *
 * Outside of a transaction block the range goes in parts of whole windows, each in a transaction of its own.  A part is
 * twice as long as the one before unless that takes too long; it does not count as long if it took hardly longer
 * than the one before, because then it is the stream that takes the time, whatever is asked of it.
 *
 * Locking: ShareRowExclusiveLock on the materialized table, as retry_dead_letters() takes it.  Readers are not
 * disturbed; a flush that is due waits, and if memory becomes short meanwhile the view leaves the others and catches
 * up afterwards.  A crash leaves what is committed.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "batch/recompute_letters.h"
#include "capture/event_time.h"
#include "catalog/definitions.h"
#include "ddl/ddl.h"
#include "live/merge.h"
#include "query/plan.h"
#include "query/row_filter.h"
#include "query/valid.h"
#include "query/view_columns.h"
#include "query/window_key.h"
#include "worker/worker.h"
#include "testing/stop_points.h"

/* a part that takes longer is not doubled */
#define PART_MS		1000

PG_FUNCTION_INFO_V1(sx_backfill);

/* The range, in memory that outlives transactions */
typedef struct Recompute
{
	Oid			viewid;
	Oid			matid;
	MemoryContext context;
	Oid			type;			/* of the windows */
	bool		byval;
	int16		typlen;
	Datum		next;			/* the first window that is not done */
	Datum		to;				/* before this one */
	bool		in_parts;
	bool		force;			/* whatever rows have expired, or are in other windows as well */
	bool		begun;
	int64		width;			/* of the next part, in event time; 0: one window */
	int64		took_ms;		/* the one before */
	int64		groups;			/* written */
} Recompute;

static void begin(Recompute *c, FunctionCallInfo fcinfo);
static Datum read_window(Recompute *c, FunctionCallInfo fcinfo, int arg);
static bool do_part(Recompute *c);
static bool find_part(Recompute *c, SxWindows *windows, Datum *until, int64 *first, int64 *end);
static bool is_locked_by_us(Oid relid);
static void check_expired(SxViewInfo *info, int64 first);
static void compute(SxViewInfo *info, SxStoredPosition *stored, int64 first, int64 end, Tuplestorestate *rows,
					SxLeftOut *left_out);
static void keep_row(void *arg, TupleTableSlot *row);
static int64 replace_rows(Recompute *c, SxViewInfo *info, SxWindows *windows, SxStoredPosition *stored, Datum until,
						  Tuplestorestate *rows);
static char *text_of(Recompute *c, Datum window);

/* backfill(view regclass, from any, to any, force boolean) */
Datum
sx_backfill(PG_FUNCTION_ARGS)
{
	Recompute	c = {0};
	bool		more;

	PreventCommandIfReadOnly("streamext.backfill()");
	PreventCommandDuringRecovery("streamext.backfill()");
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("streamext.backfill() needs isolation level READ COMMITTED"),
				 errdetail("It replaces rows that are flushed after it has begun."),
				 errhint("BEGIN ISOLATION LEVEL READ COMMITTED, or SET default_transaction_isolation = 'read committed'.")));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("view, from and to must not be null"),
				 errhint("To compute all of a view anew, use REFRESH MATERIALIZED VIEW.")));
	c.viewid = PG_GETARG_OID(0);
	c.force = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	c.in_parts = fcinfo->context != NULL && IsA(fcinfo->context, CallContext) &&
		!castNode(CallContext, fcinfo->context)->atomic;
	if (SPI_connect_ext(c.in_parts ? SPI_OPT_NONATOMIC : 0) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	c.context = CurrentMemoryContext;
	begin(&c, fcinfo);
	do
	{
		MemoryContext part = AllocSetContextCreate(c.context, "streamext backfill", ALLOCSET_DEFAULT_SIZES);

		MemoryContextSwitchTo(part);
		if (c.in_parts)
			PushActiveSnapshot(GetTransactionSnapshot());
		more = do_part(&c);
		if (c.in_parts)
			PopActiveSnapshot();
		MemoryContextSwitchTo(c.context);
		MemoryContextDelete(part);
		if (c.in_parts)
			SPI_commit();
		SX_STOP_POINT_OF(recompute_committed, c.viewid);
	} while (more);
	SPI_finish();
	PG_RETURN_VOID();
}

static void
begin(Recompute *c, FunctionCallInfo fcinfo)
{
	SxViewDef  *def = sx_view_for_user(c->viewid, true);
	SxViewInfo *info;
	SxWindows  *windows;
	SxRunAs		as;
	char	   *name = get_rel_name(c->viewid);
	char	   *to_type = sx_name_to_type(c->viewid);

	sx_run_as_begin(&as, def);
	info = sx_view_info_create(def, c->context);
	if (info->window_key < 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("continuous view \"%s\" has no windows of event time", name),
				 errhint("REFRESH MATERIALIZED VIEW %s computes all of it anew.", to_type)));
	if (info->session_key >= 0 || info->closed_key >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("windows of continuous view \"%s\" cannot be computed one by one", name),
				 info->session_key >= 0 ? errdetail("Where a session ends depends on the rows around it.") :
				 errdetail("Windows that overlap share what is computed."),
				 errhint("REFRESH MATERIALIZED VIEW %s computes all of it anew.", to_type)));
	c->matid = def->matid;
	c->type = TupleDescAttr(info->desc, info->window_key)->atttypid;
	get_typlenbyval(c->type, &c->typlen, &c->byval);
	windows = sx_windows_create(info, c->context);
	sx_run_as_end(&as);
	/* text means what it means to the caller */
	c->next = read_window(c, fcinfo, 1);
	c->to = read_window(c, fcinfo, 2);
	if (sx_windows_compare(windows, c->next, c->to) >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("from must be before to"),
				 errdetail("From is %s, to is %s.", text_of(c, c->next), text_of(c, c->to))));
}

/* whatever type it came in, as a window of the view */
static Datum
read_window(Recompute *c, FunctionCallInfo fcinfo, int arg)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, arg);
	Oid			output;
	Oid			input;
	Oid			ioparam;
	bool		varlena;

	if (type == c->type)
		return datumCopy(PG_GETARG_DATUM(arg), c->byval, c->typlen);
	getTypeOutputInfo(type, &output, &varlena);
	getTypeInputInfo(c->type, &input, &ioparam);
	return OidInputFunctionCall(input, OidOutputFunctionCall(output, PG_GETARG_DATUM(arg)), ioparam, -1);
}

/* one part, in the caller's transaction; false: it was the last */
static bool
do_part(Recompute *c)
{
	TimestampTz started = sx_now();
	SxViewDef  *def = sx_view_for_user(c->viewid, true);
	SxStoredPosition *stored;
	SxViewInfo *info;
	SxWindows  *windows;
	SxRunAs		as;
	Tuplestorestate *rows;
	SxLeftOut  *left_out;
	SxWindowRange range;
	Datum		until;
	int64		first;
	int64		end;
	int64		groups = 0;
	long		ms;
	bool		more = false;
	char	   *blocker = NULL;
	char	   *from_text = text_of(c, c->next);

	/* a later statement of this transaction may read at the position that this one waits for */
	sx_worker_hold_horizon();
	/* so that the lock is not waited for while much is to be flushed; one that we have keeps the flush out */
	if (!is_locked_by_us(def->matid) && !sx_wait(c->viewid, sx_wait_timeout, true, &blocker))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" did not catch up within %d ms", get_rel_name(c->viewid), sx_wait_timeout),
				 blocker ? errdetail("%s", blocker) : 0,
				 errhint("See reason in streamext.status, or raise streamext.wait_timeout.")));
	LockRelationOid(c->viewid, AccessShareLock);
	def = sx_view_for_user(c->viewid, true);
	if (def->matid != c->matid)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" has been replaced meanwhile", get_rel_name(c->viewid)),
				 errdetail("Windows before %s are done.", from_text)));
	/* what has expired is noted before it is removed */
	LockRelationOid(def->streamid, AccessShareLock);
	LockRelationOid(def->matid, ShareRowExclusiveLock);
	stored = sx_catalog_position_at(c->viewid, GetLatestSnapshot());
	if (stored == NULL || !stored->ours || stored->scan != NULL || stored->position->wal_only ||
		!sx_worker_holds(stored->position->xmin))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" does not stand at a position that can be read now", get_rel_name(c->viewid)),
				 IsTransactionBlock() ? errhint("End the transaction, and try again when its state in streamext.status is live.") :
				 errhint("Wait until its state in streamext.status is live, and try again.")));

	sx_run_as_begin(&as, def);
	info = sx_view_info_create(def, CurrentMemoryContext);
	windows = sx_windows_create(info, CurrentMemoryContext);
	if (find_part(c, windows, &until, &first, &end))
	{
		if (!c->force)
			check_expired(info, first);
		/* of all the range, before anything is done */
		if (!c->force && !c->begun)
			sx_letters_check(info, windows, c->next, c->to);
		c->begun = true;
		range.from = c->next;
		range.until = until;
		more = sx_windows_compare(windows, until, c->to) < 0;
		range.is_last = !more;
		rows = tuplestore_begin_heap(false, false, work_mem);
		left_out = sx_left_out_create(info, first, end);
		compute(info, stored, first, end, rows, left_out);
		SX_STOP_POINT_OF(recompute_computed, c->viewid);
		groups = replace_rows(c, info, windows, stored, until, rows);
		tuplestore_end(rows);
		sx_left_out_keep(left_out, windows, &range);
	}
	sx_run_as_end(&as);
	sx_note_table_write(c->viewid);
	SX_STOP_POINT_OF(recompute_written, c->viewid);

	ms = TimestampDifferenceMilliseconds(started, sx_now());
	ereport(NOTICE,
			(errmsg("windows of continuous view \"%s\" from %s to before %s: " INT64_FORMAT " groups in %ld ms",
					get_rel_name(c->viewid), from_text, text_of(c, more ? until : c->to), groups, ms)));
	if (more)
	{
		MemoryContext old = MemoryContextSwitchTo(c->context);

		c->next = datumCopy(until, c->byval, c->typlen);
		MemoryContextSwitchTo(old);
		if (pg_sub_s64_overflow(end, first, &c->width))
			c->width = PG_INT64_MAX;
		if (ms < PART_MS || ms < c->took_ms + c->took_ms / 2)
			c->width = c->width > PG_INT64_MAX / 2 ? PG_INT64_MAX : 2 * c->width;
		c->took_ms = ms;
	}
	sx_view_info_destroy(info);
	return more;
}

/*
 * The windows of the part end before `until`; their rows are from first to before end.  False: no event time has such
 * a window.
 */
static bool
find_part(Recompute *c, SxWindows *windows, Datum *until, int64 *first, int64 *end)
{
	*until = c->to;
	if (!sx_windows_reach(windows, c->next, false, false, first))
		return false;
	if (c->in_parts)
	{
		MemoryContext old = MemoryContextSwitchTo(c->context);
		int64		time;
		Datum		window;
		Datum		later;

		/* at least the first window that there is */
		if (!sx_windows_last(windows, *first, &window))
			elog(ERROR, "an event time has no window");
		if (sx_windows_compare(windows, window, c->next) < 0)
			window = c->next;
		window = datumCopy(window, c->byval, c->typlen);
		if (pg_add_s64_overflow(*first, c->width, &time))
			time = SX_TIME_END;
		if ((sx_windows_last(windows, time, &later) && sx_windows_compare(windows, later, window) > 0) ||
			(time != SX_TIME_END && sx_windows_reach(windows, window, false, true, &time) &&
			 sx_windows_last(windows, time, &later)))
		{
			if (sx_windows_compare(windows, later, c->to) < 0)
				*until = datumCopy(later, c->byval, c->typlen);
		}
		MemoryContextSwitchTo(old);
	}
	if (!sx_windows_reach(windows, *until, true, false, end))
		*end = SX_TIME_END;
	return true;
}

static bool
is_locked_by_us(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	bool		locked = CheckRelationLockedByMe(rel, ShareRowExclusiveLock, true);

	table_close(rel, AccessShareLock);
	return locked;
}

/* the view may have counted rows that are gone */
static void
check_expired(SxViewInfo *info, int64 first)
{
	int64		expired = sx_catalog_expired_until(info->def->streamid);

	if (expired == SX_TIME_NONE || first >= expired)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("windows of continuous view \"%s\" cannot be computed from the rows of its stream any more",
					get_rel_name(info->def->viewid)),
			 errdetail("Rows of stream \"%s\" before %s have expired.", get_rel_name(info->def->streamid),
					   sx_event_time_text(expired, info->time.type)),
			 errhint("Begin with the first window after that, or add force => true to count what is there.")));
}

static void
compute(SxViewInfo *info, SxStoredPosition *stored, int64 first, int64 end, Tuplestorestate *rows, SxLeftOut *left_out)
{
	SxPlan	   *plan = sx_plan_create(info);
	Snapshot	snapshot = sx_position_to_snapshot(stored->position);
	SxRowFilter *filter = sx_row_filter_create(info->def->streamid, snapshot, sx_left_out_add, left_out);
	Datum		from;
	Datum		to;
	bool		bounded_from = sx_event_time_value(first, info->time.type, &from);
	bool		bounded_to = sx_event_time_value(end, info->time.type, &to);

	PushActiveSnapshot(snapshot);
	PG_TRY();
	{
		sx_row_filter_begin(filter);
		sx_plan_run_between(plan, bounded_from ? &from : NULL, bounded_to ? &to : NULL, keep_row, rows);
	}
	PG_FINALLY();
	{
		sx_row_filter_end();
	}
	PG_END_TRY();
	PopActiveSnapshot();
}

static void
keep_row(void *arg, TupleTableSlot *row)
{
	tuplestore_puttupleslot((Tuplestorestate *) arg, row);
}

/* rows of other windows were computed for these only in part, and what retention has removed stays so */
static int64
replace_rows(Recompute *c, SxViewInfo *info, SxWindows *windows, SxStoredPosition *stored, Datum until,
			 Tuplestorestate *rows)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	Tuplestorestate *kept = tuplestore_begin_heap(false, false, work_mem);
	const char *key = quote_identifier(NameStr(TupleDescAttr(info->desc, info->window_key)->attname));
	char	   *sql = psprintf("DELETE FROM ONLY %s WHERE %s OPERATOR(pg_catalog.>=) $1 AND %s OPERATOR(pg_catalog.<) $2",
							   quote_qualified_identifier(SX_SCHEMA, get_rel_name(info->def->matid)), key, key);
	Oid			types[] = {c->type, c->type};
	Datum		values[] = {c->next, until};
	int64		n;

	(void) sx_windows_set_time(windows, stored->removed_until);
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		bool		isnull;
		Datum		window = slot_getattr(slot, info->window_key + 1, &isnull);

		if (!isnull && sx_windows_compare(windows, window, c->next) >= 0 &&
			sx_windows_compare(windows, window, until) < 0 && !sx_window_is_removed(windows, window, false))
			tuplestore_puttupleslot(kept, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	n = tuplestore_tuple_count(kept);
	SPI_connect();
	if (SPI_execute_with_args(sql, 2, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not remove windows");
	SPI_finish();
	sx_merge_into_table(info, kept, NULL);
	tuplestore_end(kept);
	return n;
}

static char *
text_of(Recompute *c, Datum window)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(c->type, &output, &varlena);
	return OidOutputFunctionCall(output, window);
}
