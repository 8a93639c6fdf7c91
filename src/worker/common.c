/*
 * common.c
 *		Start, error recovery and logging that every worker process shares.
 */
#include "worker/worker_internal.h"

#include <signal.h>

#include "access/xact.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

bool		sx_is_worker = false;

/* what the configuration says, before we said otherwise */
static int	configured_parallel_workers = 0;
static bool configured_jit = false;

static void view_context_callback(void *arg);

void
sx_worker_fill(BackgroundWorker *w, const char *type, const char *function, Oid dboid, Oid viewid)
{
	SxWorkerArg arg = {0};

	memset(w, 0, sizeof(*w));
	w->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	/* consumers have something to do on a standby, too: standby.c */
	w->bgw_start_time = OidIsValid(viewid) || strcmp(type, "streamext flusher") == 0 ||
		strcmp(type, "streamext alerter") == 0 || strcmp(type, "streamext helper") == 0 ? BgWorkerStart_RecoveryFinished : BgWorkerStart_ConsistentState;
	w->bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(w->bgw_library_name, BGW_MAXLEN, "streamext");
	snprintf(w->bgw_function_name, BGW_MAXLEN, "%s", function);
	snprintf(w->bgw_type, BGW_MAXLEN, "%s", type);
	if (OidIsValid(viewid))
		snprintf(w->bgw_name, BGW_MAXLEN, "%s for view %u in database %u", type, viewid, dboid);
	else if (OidIsValid(dboid))
		snprintf(w->bgw_name, BGW_MAXLEN, "%s for database %u", type, dboid);
	else
		snprintf(w->bgw_name, BGW_MAXLEN, "%s", type);
	w->bgw_notify_pid = MyProcPid;
	arg.dboid = dboid;
	arg.viewid = viewid;
	StaticAssertStmt(sizeof(arg) <= BGW_EXTRALEN, "worker argument must fit");
	memcpy(w->bgw_extra, &arg, sizeof(arg));
}

SxWorkerArg
sx_worker_start(void)
{
	SxWorkerArg arg;

	memcpy(&arg, MyBgworkerEntry->bgw_extra, sizeof(arg));
	sx_is_worker = true;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (OidIsValid(arg.dboid))
		BackgroundWorkerInitializeConnectionByOid(arg.dboid, InvalidOid, 0);
	else
		BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	/* a worker's own statements are not the users': plain settings, nothing parallel */
	configured_parallel_workers = max_parallel_workers_per_gather;
	configured_jit = jit_enabled;
	SetConfigOption("max_parallel_workers_per_gather", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	/* in a deadlock with a user's command it is we who find it, and give way */
	SetConfigOption("deadlock_timeout", "100ms", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("idle_in_transaction_session_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET, PGC_S_OVERRIDE);
	/* what counts as flushed must be on local disk, and need not be anywhere else */
	SetConfigOption("synchronous_commit", "local", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_SUSET, PGC_S_OVERRIDE);
	return arg;
}

void
sx_worker_allow_large_plans(void)
{
	char		value[32];

	snprintf(value, sizeof(value), "%d", configured_parallel_workers);
	(void) set_config_option("max_parallel_workers_per_gather", value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	(void) set_config_option("jit", configured_jit ? "on" : "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/* sorting and grouping may use so many kB */
void
sx_worker_take_memory(int kb)
{
	char		value[32];

	if (kb <= work_mem)
		return;
	snprintf(value, sizeof(value), "%dkB", kb);
	(void) set_config_option("work_mem", value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("hash_mem_multiplier", "1", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
sx_worker_check(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

ErrorData *
sx_worker_recover(MemoryContext mcxt)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(mcxt);
	error = CopyErrorData();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	LWLockReleaseAll();
	MemoryContextSwitchTo(mcxt);
	RESUME_INTERRUPTS();
	return error;
}

void
sx_worker_log(int elevel, const char *fmt,...)
{
	static TimestampTz last = 0;
	static int	left_out = 0;
	TimestampTz now = sx_now();
	char		buf[1024];
	va_list		args;

	if (!TimestampDifferenceExceeds(last, now, 1000))
	{
		left_out++;
		return;
	}
	va_start(args, fmt);
	vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	if (left_out > 0)
		ereport(elevel, (errmsg_internal("%s", buf),
						 errdetail_internal("%d similar messages were left out.", left_out)));
	else
		ereport(elevel, (errmsg_internal("%s", buf)));
	left_out = 0;
	last = now;
}

bool
sx_is_row_error(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('2', '1', '0', '0', '0'):	/* cardinality violation */
		case MAKE_SQLSTATE('2', '2', '0', '0', '0'):	/* data exception */
		case MAKE_SQLSTATE('2', '3', '0', '0', '0'):	/* integrity constraint */
		case MAKE_SQLSTATE('2', 'F', '0', '0', '0'):	/* SQL routine exception */
		case MAKE_SQLSTATE('3', '8', '0', '0', '0'):	/* external routine exception */
		case MAKE_SQLSTATE('3', '9', '0', '0', '0'):	/* external routine invocation */
		case MAKE_SQLSTATE('P', '0', '0', '0', '0'):	/* PL/pgSQL */
			return true;
		default:
			return false;
	}
}

void
sx_view_context_push(SxViewContext *c, Oid viewid, const char *what)
{
	c->viewid = viewid;
	c->what = what;
	c->callback.callback = view_context_callback;
	c->callback.arg = c;
	c->callback.previous = error_context_stack;
	error_context_stack = &c->callback;
}

void
sx_view_context_pop(SxViewContext *c)
{
	error_context_stack = c->callback.previous;
}

static void
view_context_callback(void *arg)
{
	SxViewContext *c = arg;

	/* no catalog access here: it may be the catalog that failed */
	errcontext("%s continuous view with OID %u", c->what, c->viewid);
}

void
sx_view_stop(const SxViewDef *def, const char *reason)
{
	MemoryContext caller = CurrentMemoryContext;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	/* as for a position: a DROP of the view waits, or has been */
	LockRelationOid(def->matid, RowExclusiveLock);
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(def->matid)))
		sx_catalog_stop_view(def->viewid, reason);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	ereport(LOG,
			(errmsg("continuous view with OID %u is stopped: %s", def->viewid, reason)));
}
