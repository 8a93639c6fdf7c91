/*
 * view_functions.c
 *		SQL: streamext.create_view, pause, resume, flush, wait_for.
 *
 * pause and resume write the catalog; the consumer acts when that has committed.  flush and
 * wait_for only wait: whoever may read a view may wait for it.  Without a view they are about
 * all views that the caller may read, so that nothing is told of others.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parser.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "capture/file_map.h"
#include "catalog/definitions.h"
#include "ddl/ddl.h"
#include "worker/worker.h"
#include "testing/stop_points.h"

PG_FUNCTION_INFO_V1(sx_create_view);
PG_FUNCTION_INFO_V1(sx_pause);
PG_FUNCTION_INFO_V1(sx_resume);
PG_FUNCTION_INFO_V1(sx_flush);
PG_FUNCTION_INFO_V1(sx_wait_for);

static DefElem *view_option(const char *name, char *value);
static void set_paused(FunctionCallInfo fcinfo, bool paused, const char *function);
static void go_on(const SxViewDef *def);
static bool wait_for_replacement(FunctionCallInfo fcinfo, TimestampTz deadline);
static bool wait_for_views(FunctionCallInfo fcinfo, int timeout_ms, bool flushed, char **blocker);
static bool may_read(Oid viewid);

SxViewDef *
sx_view_for_user(Oid viewid, bool owner)
{
	SxViewDef  *def;
	char	   *name = get_rel_name(viewid);

	sx_require_preload();
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", viewid)));
	def = sx_catalog_view(viewid);
	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a continuous view", name),
				 errhint("SELECT view FROM streamext.views lists them.")));
	if (owner)
	{
		if (!SxClassOwnerCheck(viewid, GetUserId()))
			aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, name);
	}
	else
	{
		AclResult	result = pg_class_aclcheck(viewid, GetUserId(), ACL_SELECT);

		if (result != ACLCHECK_OK)
			aclcheck_error(result, OBJECT_VIEW, name);
	}
	return def;
}

/*
 * create_view(name text, query text, with_data boolean, emit text, flush_interval text,
 * stream regclass): CREATE MATERIALIZED VIEW ... WITH (streamext.continuous, ...), as a
 * statement of its own.  The texts are parsed, never pasted.
 */
Datum
sx_create_view(PG_FUNCTION_ARGS)
{
	CreateTableAsStmt *ctas;
	IntoClause *into;
	RawStmt    *raw;
	PlannedStmt *pstmt;
	List	   *queries;
	char	   *query;
	List	   *options;

	sx_require_preload();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name, query and with_data must not be null")));
	query = text_to_cstring(PG_GETARG_TEXT_PP(1));

	options = list_make1(view_option("continuous", NULL));
	if (!PG_ARGISNULL(3))
		options = lappend(options, view_option("emit", text_to_cstring(PG_GETARG_TEXT_PP(3))));
	if (!PG_ARGISNULL(4))
		options = lappend(options, view_option("flush_interval", text_to_cstring(PG_GETARG_TEXT_PP(4))));
	if (!PG_ARGISNULL(5))
	{
		Oid			streamid = PG_GETARG_OID(5);
		char	   *name = get_rel_name(streamid);

		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("relation with OID %u does not exist", streamid)));
		name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(streamid)), name);
		options = lappend(options, view_option("stream", name));
	}

	into = makeNode(IntoClause);
	into->rel = makeRangeVarFromNameList(textToQualifiedNameList(PG_GETARG_TEXT_PP(0)));
	into->options = options;
	into->onCommit = ONCOMMIT_NOOP;
	into->skipData = !PG_GETARG_BOOL(2);

	ctas = makeNode(CreateTableAsStmt);
	ctas->query = (Node *) sx_parse_select(query);
	ctas->into = into;
	ctas->objtype = OBJECT_MATVIEW;

	raw = makeNode(RawStmt);
	raw->stmt = (Node *) ctas;
	queries = pg_analyze_and_rewrite_fixedparams(raw, query, NULL, 0, NULL);

	pstmt = makeNode(PlannedStmt);
	pstmt->commandType = CMD_UTILITY;
	pstmt->canSetTag = false;
	pstmt->utilityStmt = linitial_node(Query, queries)->utilityStmt;
	pstmt->stmt_location = -1;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	ProcessUtility(pstmt, query, false, PROCESS_UTILITY_QUERY, NULL, NULL, None_Receiver, NULL);
	PopActiveSnapshot();
	CommandCounterIncrement();

	PG_RETURN_OID(RangeVarGetRelid(into->rel, NoLock, false));
}

static DefElem *
view_option(const char *name, char *value)
{
	return makeDefElemExtended(pstrdup(SX_EXTENSION), pstrdup(name),
							   value ? (Node *) makeString(value) : NULL, DEFELEM_UNSPEC, -1);
}

SelectStmt *
sx_parse_select(const char *text)
{
	List	   *statements = pg_parse_query(text);
	Node	   *stmt;

	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query must be one SELECT statement"),
				 errdetail("It has %d statements.", list_length(statements))));
	stmt = linitial_node(RawStmt, statements)->stmt;
	if (!IsA(stmt, SelectStmt) || ((SelectStmt *) stmt)->intoClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query must be one SELECT statement"),
				 errhint("Give the SELECT alone, without CREATE and without INTO.")));
	return (SelectStmt *) stmt;
}

Datum
sx_pause(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, true, "streamext.pause()");
	PG_RETURN_VOID();
}

Datum
sx_resume(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, false, "streamext.resume()");
	PG_RETURN_VOID();
}

static void
set_paused(FunctionCallInfo fcinfo, bool paused, const char *function)
{
	Oid			viewid = PG_GETARG_OID(0);

	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);

	(void) sx_view_for_user(viewid, true);
	/* conflicts with itself: one change of the row at a time */
	LockRelationOid(viewid, ShareUpdateExclusiveLock);
	if (sx_view_for_user(viewid, true)->paused != paused)
		sx_catalog_set_paused(viewid, paused);
	if (paused)
		SX_STOP_POINT_OF(pause_stored, viewid);
	else
	{
		go_on(sx_view_for_user(viewid, true));
		SX_STOP_POINT_OF(resume_stored, viewid);
	}
}

/*
 * A stopped view: nobody knows which of the rows that are there it contains.  It goes on with what is
 * committed after this statement's snapshot, so that nothing counts twice; what may be missing is
 * said.
 */
static void
go_on(const SxViewDef *def)
{
	SxStoredPosition *stored;
	SxFileMap  *map;
	TimestampTz stopped_at;
	char	   *reason = sx_catalog_stop_reason(def->viewid, &stopped_at);
	uint64		own;

	if (reason == NULL)
		return;
	/* from here on the slot keeps what the view has not read */
	sx_worker_require();
	LockRelationOid(def->matid, RowExclusiveLock);
	stored = sx_catalog_position(def->viewid);
	if (stored != NULL && stored->ours)
	{
		own = U64FromFullTransactionId(GetTopFullTransactionId());
		sx_catalog_add_lost_interval(def, stored->complete_at, GetCurrentTimestamp(), -1, reason);
		map = sx_file_map_create(CurrentMemoryContext);
		sx_file_map_refresh(map, list_make1_oid(def->streamid), false);
		stored->nfiles = sx_file_map_files_of(map, def->streamid, &stored->file_rels, &stored->file_nodes);
		stored->position = sx_position_without(sx_position_from_snapshot(GetActiveSnapshot()), &own, 1);
		stored->start_lsn = InvalidXLogRecPtr;
		stored->scan = NULL;
		stored->open_rows = NULL;
		stored->complete_at = 0;
		stored->seq++;
		sx_catalog_store_position(stored);
	}
	sx_catalog_end_stop(def->viewid);
}

Datum
sx_flush(PG_FUNCTION_ARGS)
{
	char	   *blocker = NULL;

	if (!wait_for_views(fcinfo, sx_wait_timeout, true, &blocker))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not flush within %d ms", sx_wait_timeout),
				 blocker ? errdetail("%s", blocker) : 0,
				 errhint("See reason in streamext.status, or raise streamext.wait_timeout.")));
	PG_RETURN_VOID();
}

Datum
sx_wait_for(PG_FUNCTION_ARGS)
{
	int			timeout_ms = sx_wait_timeout;
	TimestampTz deadline;

	if (!PG_ARGISNULL(1))
	{
		Interval   *span = PG_GETARG_INTERVAL_P(1);
		double		ms = span->time / 1000.0 +
			(span->day + span->month * (double) DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;

		if (ms < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("timeout must not be negative"),
					 errhint("Use an interval of zero or more, such as '30s'.")));
		timeout_ms = (int) Min(ms, (double) INT_MAX);
	}
	deadline = TimestampTzPlusMilliseconds(sx_now(), timeout_ms);
	if (!wait_for_replacement(fcinfo, deadline))
		PG_RETURN_BOOL(false);
	timeout_ms = (int) Max(0, TimestampDifferenceMilliseconds(sx_now(), deadline));
	PG_RETURN_BOOL(wait_for_views(fcinfo, timeout_ms, false, NULL));
}

/* a REFRESH, or a new definition, that was committed before is visible when it has taken its place */
static bool
wait_for_replacement(FunctionCallInfo fcinfo, TimestampTz deadline)
{
	for (;;)
	{
		bool		waits = false;
		long		left = TimestampDifferenceMilliseconds(sx_now(), deadline);
		ListCell   *lc;

		foreach(lc, sx_catalog_views())
		{
			SxViewDef  *def = lfirst(lc);

			waits |= OidIsValid(def->replaces) && (PG_ARGISNULL(0) || def->replaces == PG_GETARG_OID(0)) &&
				may_read(def->replaces);
		}
		if (!waits || RecoveryInProgress())
			return true;
		if (left <= 0)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, Min(left, 20), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static bool
wait_for_views(FunctionCallInfo fcinfo, int timeout_ms, bool flushed, char **blocker)
{
	List	   *visible = NIL;
	ListCell   *lc;

	sx_require_preload();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for continuous views during recovery"),
				 errhint("Wait on the primary; the standby shows what is flushed and replicated.")));

	if (!PG_ARGISNULL(0))
	{
		Oid			viewid = sx_view_for_user(PG_GETARG_OID(0), false)->viewid;
		char	   *name = get_rel_name(viewid);

		if (!sx_wait_all(list_make1_oid(viewid), timeout_ms, flushed, blocker))
			return false;
		if (get_rel_name(viewid) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("continuous view \"%s\" was dropped while it was waited for", name)));
		return true;
	}

	foreach(lc, sx_catalog_views())
	{
		SxViewDef  *def = lfirst(lc);

		if (may_read(def->viewid))
			visible = lappend_oid(visible, def->viewid);
	}
	return sx_wait_all(visible, timeout_ms, flushed, blocker);
}

/* false: or somebody has just dropped it */
static bool
may_read(Oid viewid)
{
	bool		missing = false;

	return pg_class_aclcheck_ext(viewid, GetUserId(), ACL_SELECT, &missing) == ACLCHECK_OK;
}
