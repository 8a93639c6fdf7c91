/*
 * job_functions.c
 *		SQL: CALL streamext.run_job(job, run_for, work), streamext.job_started(), streamext.job_finished().
 *
 * We do not write a scheduler: pg_cron, or whatever runs SQL at a time, calls these.
 *
 * run_job commits three things one after the other: that the run has begun; what the work has written together
 * with the note of its success; or, the work being rolled back, the note of its failure, which it then raises again for
 * the scheduler.  The work is a function, in a subtransaction: a procedure could commit half of it.  For
 * procedures there are job_started() and job_finished().
 *
 * A lock of the session on job and run_for keeps the same run from being made twice at a time.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "attempt.h"
#include "catalog/job_runs.h"
#include "ddl/ddl_internal.h"
#include "testing/stop_points.h"

/* the last field of an advisory lock's tag: not one of SQL's functions */
#define JOB_LOCK	0x5358

typedef struct Work
{
	char	   *sql;
	bool		counts;			/* it returns how many rows it has written */
	int64		rows;			/* -1: not told */
} Work;

PG_FUNCTION_INFO_V1(sx_job_started);
PG_FUNCTION_INFO_V1(sx_job_finished);
PG_FUNCTION_INFO_V1(sx_run_job_date);
PG_FUNCTION_INFO_V1(sx_run_job_text);

static void check_writable(const char *function);
static char *date_text(DateADT date);
static void run_job(FunctionCallInfo fcinfo, const char *job, const char *run_for);
static char *statement_of(Oid work, const char *run_for, bool *counts);
static void run_work(void *arg);
static int64 counted_rows(void);

Datum
sx_job_started(PG_FUNCTION_ARGS)
{
	check_writable("streamext.job_started()");
	PG_RETURN_INT64(sx_catalog_job_started(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(1))));
}

Datum
sx_job_finished(PG_FUNCTION_ARGS)
{
	check_writable("streamext.job_finished()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("id must not be null")));
	if (!PG_ARGISNULL(1) && PG_GETARG_INT64(1) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("rows must not be negative")));
	switch (sx_catalog_job_finished(PG_GETARG_INT64(0), PG_ARGISNULL(1) ? -1 : PG_GETARG_INT64(1), NULL,
									PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2))))
	{
		case SX_JOB_FINISHED:
			break;
		case SX_JOB_UNKNOWN:
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("there is no run of a job with id " INT64_FORMAT " that you have started", PG_GETARG_INT64(0)),
					 errhint("See streamext.job_runs.")));
			break;
		case SX_JOB_WAS_FINISHED:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the run of a job with id " INT64_FORMAT " has already finished", PG_GETARG_INT64(0))));
	}
	PG_RETURN_VOID();
}

Datum
sx_run_job_date(PG_FUNCTION_ARGS)
{
	run_job(fcinfo, PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)),
			PG_ARGISNULL(1) ? NULL : date_text(PG_GETARG_DATEADT(1)));
	PG_RETURN_VOID();
}

Datum
sx_run_job_text(PG_FUNCTION_ARGS)
{
	run_job(fcinfo, PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)),
			PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}

/* whatever DateStyle says: it is a key */
static char *
date_text(DateADT date)
{
	char		text[MAXDATELEN + 1];
	struct pg_tm tm;

	if (DATE_NOT_FINITE(date))
		return pstrdup(DATE_IS_NOBEGIN(date) ? "-infinity" : "infinity");
	j2date(date + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	EncodeDateOnly(&tm, USE_ISO_DATES, text);
	return pstrdup(text);
}

static void
check_writable(const char *function)
{
	sx_require_preload();
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);
}

static void
run_job(FunctionCallInfo fcinfo, const char *job, const char *run_for)
{
	LOCKTAG		tag;
	uint64		hash;
	Work		w = {0};
	int64		id;
	ErrorData  *volatile error = NULL;

	check_writable("streamext.run_job()");
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) || castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("streamext.run_job() cannot run inside a transaction block or a function"),
				 errdetail("A run that fails is noted although its work is rolled back."),
				 errhint("CALL it as a statement of its own.")));
	if (job == NULL || run_for == NULL || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", job == NULL ? "job" : run_for == NULL ? "run_for" : "work")));

	/* what is allocated from here on survives commits */
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	job = pstrdup(job);
	run_for = pstrdup(run_for);
	w.sql = statement_of(PG_GETARG_OID(2), run_for, &w.counts);

	hash = hash_bytes_extended((const unsigned char *) job, strlen(job),
							   hash_bytes_extended((const unsigned char *) run_for, strlen(run_for), 0));
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, JOB_LOCK);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("job \"%s\" is already running for %s", job, run_for),
				 errhint("See streamext.job_runs.")));
	PG_TRY();
	{
		id = sx_catalog_job_started(job, run_for);
		SPI_commit();
		SX_STOP_POINT(job_started);
		w.rows = -1;
		error = sx_attempt(run_work, &w, true);
		(void) sx_catalog_job_finished(id, w.rows, error ? unpack_sql_state(error->sqlerrcode) : NULL,
									   error ? error->message : NULL);
		SX_STOP_POINT(job_finished);
		SPI_commit();
	}
	PG_FINALLY();
	{
		(void) LockRelease(&tag, ExclusiveLock, true);
	}
	PG_END_TRY();

	if (error != NULL)
		ReThrowError(error);
	if (w.rows >= 0)
		ereport(NOTICE,
				(errmsg("job \"%s\" for %s: " INT64_FORMAT " rows", job, run_for, w.rows)));
	SPI_finish();
}

/* SELECT work(run_for) */
static char *
statement_of(Oid work, const char *run_for, bool *counts)
{
	HeapTuple	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(work));
	Form_pg_proc proc;
	char	   *sql;

	if (!HeapTupleIsValid(tup))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", work)));
	proc = (Form_pg_proc) GETSTRUCT(tup);
	*counts = proc->prorettype == INT2OID || proc->prorettype == INT4OID || proc->prorettype == INT8OID;
	if (proc->prokind != PROKIND_FUNCTION || proc->proretset || proc->pronargs != 1 ||
		(!*counts && proc->prorettype != VOIDOID))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s cannot be the work of a job", format_procedure(work)),
				 errdetail("It must be a function of one argument that returns how many rows it has written (an integer), or void."),
				 proc->prokind == PROKIND_PROCEDURE ?
				 errhint("For a procedure use streamext.job_started() and streamext.job_finished().") : 0));
	sql = psprintf("SELECT %s(CAST(%s AS %s))",
				   quote_qualified_identifier(get_namespace_name(proc->pronamespace), NameStr(proc->proname)),
				   quote_literal_cstr(run_for),
				   format_type_extended(proc->proargtypes.values[0], -1, FORMAT_TYPE_FORCE_QUALIFY));
	ReleaseSysCache(tup);
	return sql;
}

static void
run_work(void *arg)
{
	Work	   *work = arg;

	if (SPI_execute(work->sql, false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not run the work of a job");
	if (work->counts)
		work->rows = counted_rows();
}

static int64
counted_rows(void)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

	if (isnull)
		return -1;
	switch (SPI_gettypeid(SPI_tuptable->tupdesc, 1))
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}
