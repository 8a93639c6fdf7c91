/*
 * fail_points.c
 *		Makes the n-th allocation, table write, WAL read … of our code fail; in test builds
 *		only.
 *
 * The linker replaces calls of the functions in FAIL_FUNCTIONS (Makefile) in our library by
 * those of __wrap_<name> here (ld --wrap), so every call that we make, today's and tomorrow's,
 * can fail, and no source says so.  Calls that the server makes of itself are not affected.
 *
 *	 shared_allocation	dsa_allocate: exhausted
 *	 allocation			palloc and its kin: out of memory
 *	 table_write		SPI and catalog writes: an error
 *	 wal_read			reading a page of WAL: an error
 *	 lock				ConditionalLockRelationOid: not free
 *	 worker_start		RegisterDynamicBackgroundWorker: no place
 *	 commit				CommitTransactionCommand: an error before anything is committed
 *
 * SQL: sx_test_fail(kind, nth, process, pause_ms) and sx_test_failed().  nth > 0: the n-th call
 * that a matching worker of this database makes from now on fails, once.  nth = 0: in all
 * databases the first call from each place in the code fails, at most one every pause_ms; places
 * are kept until sx_test_fail('forget', …).
 *
 * Besides, an allocation under a publish lock aborts the process, whatever is armed: see the
 * lock order in src/README.md.
 */
#include "postgres.h"

#ifdef SX_TESTING

#include <unistd.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "catalog/indexing.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/dsa.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "live/registry.h"
#include "testing/stop_points.h"
#include "worker/worker.h"

typedef enum FailKind
{
	FAIL_NOTHING,
	FAIL_SHARED_ALLOCATION,
	FAIL_ALLOCATION,
	FAIL_TABLE_WRITE,
	FAIL_WAL_READ,
	FAIL_LOCK,
	FAIL_WORKER_START,
	FAIL_COMMIT,
	FAIL_FORGET
} FailKind;

static const char *const kinds[] = {
	"nothing", "shared_allocation", "allocation", "table_write", "wal_read", "lock",
	"worker_start", "commit", "forget"
};

PG_FUNCTION_INFO_V1(sx_test_fail);
PG_FUNCTION_INFO_V1(sx_test_failed);

static bool fail_now(FailKind kind, void *site);
static bool is_new_site(SxFailing *f, uintptr_t site);
static void check_unlocked(void);
pg_noreturn static void raise_failure(FailKind kind);

#define CALLER		__builtin_return_address(0)

static inline bool
fails(FailKind kind, void *site)
{
	return sx_testing != NULL && pg_atomic_read_u32(&sx_testing->failing) == kind &&
		fail_now(kind, site);
}

static inline void
may_fail(FailKind kind, void *site)
{
	if (fails(kind, site))
		raise_failure(kind);
}

static inline void
may_fail_allocation(void *site)
{
	/* an LWLock holds interrupts */
	if (InterruptHoldoffCount > 0)
		check_unlocked();
	may_fail(FAIL_ALLOCATION, site);
}

static void
check_unlocked(void)
{
	SxDb	   *db = sx_my_db();

	if (db != NULL && (LWLockHeldByMe(&db->publish) || LWLockHeldByMe(&db->gate)))
	{
		static const char text[] = "TRAP: streamext allocates under the publish lock\n";

		if (write(STDERR_FILENO, text, sizeof(text) - 1) > 0)
			abort();
		abort();
	}
}

static bool
fail_now(FailKind kind, void *site)
{
	SxFailing  *f = &sx_testing->fail;
	TimestampTz now;
	bool		fire = false;

	/* where an error would end the server, or a process that is ending anyway */
	if (CritSectionCount > 0 || proc_exit_inprogress || InterruptHoldoffCount > 0 || !IsUnderPostmaster)
		return false;
	if (OidIsValid(f->dboid) && MyDatabaseId != f->dboid)
		return false;
	if (f->process[0] == '\0' ? !sx_is_worker : !sx_testing_process_is(f->process))
		return false;

	now = f->pause_ms > 0 ? GetCurrentTimestamp() : 0;
	SpinLockAcquire(&sx_testing->mutex);
	if (pg_atomic_read_u32(&sx_testing->failing) == kind)
	{
		f->seen++;
		if (f->nth > 0)
			fire = f->seen == f->nth;
		else if (f->pause_ms == 0 || now >= f->last + f->pause_ms * INT64CONST(1000))
			fire = is_new_site(f, (uintptr_t) site);
		if (fire)
		{
			f->fired++;
			f->last = now;
			if (f->nth > 0)
				pg_atomic_write_u32(&sx_testing->failing, FAIL_NOTHING);
		}
	}
	SpinLockRelease(&sx_testing->mutex);
	return fire;
}

/* with the mutex */
static bool
is_new_site(SxFailing *f, uintptr_t site)
{
	uint32		i = (uint32) ((site * UINT64CONST(0x9E3779B97F4A7C15)) >> 32) % SX_MAX_SITES;

	if (f->nsites >= SX_MAX_SITES / 2)
		return false;
	while (f->site[i] != 0)
	{
		if (f->site[i] == site)
			return false;
		i = (i + 1) % SX_MAX_SITES;
	}
	f->site[i] = site;
	f->nsites++;
	return true;
}

static void
raise_failure(FailKind kind)
{
	if (kind == FAIL_ALLOCATION || kind == FAIL_SHARED_ALLOCATION)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail_internal("Failed on purpose.")));
	ereport(ERROR,
			(errcode(kind == FAIL_WAL_READ ? ERRCODE_IO_ERROR : ERRCODE_DISK_FULL),
			 errmsg("%s failed on purpose", kinds[kind])));
}

/* ---- SQL ---- */

/* sx_test_fail(kind text, nth bigint, process text, pause_ms int) */
Datum
sx_test_fail(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	SxFailing  *f = &sx_testing->fail;
	char	   *process = PG_ARGISNULL(2) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(2));
	int64		nth = PG_GETARG_INT64(1);
	int			pause_ms = PG_GETARG_INT32(3);
	int			kind;

	for (kind = 0; kind < lengthof(kinds); kind++)
		if (strcmp(kinds[kind], name) == 0)
			break;
	if (kind == lengthof(kinds))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no kind of failure \"%s\"", name)));

	SpinLockAcquire(&sx_testing->mutex);
	if (kind == FAIL_FORGET)
	{
		memset(f->site, 0, sizeof(f->site));
		f->nsites = 0;
		kind = FAIL_NOTHING;
	}
	strlcpy(f->process, process, sizeof(f->process));
	/* the launcher is in none */
	f->dboid = nth == 0 || strcmp(process, "launcher") == 0 ? InvalidOid : MyDatabaseId;
	f->nth = nth;
	f->pause_ms = pause_ms;
	if (kind != FAIL_NOTHING)
		f->seen = f->fired = 0;
	f->last = 0;
	pg_atomic_write_u32(&sx_testing->failing, kind);
	SpinLockRelease(&sx_testing->mutex);
	PG_RETURN_VOID();
}

/* sx_test_failed(): (fired bigint, seen bigint), since the last sx_test_fail */
Datum
sx_test_failed(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[2];
	bool		isnull[2] = {0};
	int64		fired;
	int64		seen;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	SpinLockAcquire(&sx_testing->mutex);
	fired = sx_testing->fail.fired;
	seen = sx_testing->fail.seen;
	SpinLockRelease(&sx_testing->mutex);
	values[0] = Int64GetDatum(fired);
	values[1] = Int64GetDatum(seen);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, isnull));
}

/* ---- shared memory ---- */

extern dsa_pointer __real_dsa_allocate_extended(dsa_area *area, size_t size, int flags);
extern dsa_pointer __wrap_dsa_allocate_extended(dsa_area *area, size_t size, int flags);

dsa_pointer
__wrap_dsa_allocate_extended(dsa_area *area, size_t size, int flags)
{
	if (InterruptHoldoffCount > 0)
		check_unlocked();
	if (fails(FAIL_SHARED_ALLOCATION, CALLER))
	{
		if (flags & DSA_ALLOC_NO_OOM)
			return InvalidDsaPointer;
		raise_failure(FAIL_SHARED_ALLOCATION);
	}
	return __real_dsa_allocate_extended(area, size, flags);
}

/* ---- private memory ---- */

extern void *__real_MemoryContextAllocExtended(MemoryContext context, Size size, int flags);
extern void *__wrap_MemoryContextAllocExtended(MemoryContext context, Size size, int flags);

void *
__wrap_MemoryContextAllocExtended(MemoryContext context, Size size, int flags)
{
	if (InterruptHoldoffCount > 0)
		check_unlocked();
	if (fails(FAIL_ALLOCATION, CALLER))
	{
		if (flags & MCXT_ALLOC_NO_OOM)
			return NULL;
		raise_failure(FAIL_ALLOCATION);
	}
	return __real_MemoryContextAllocExtended(context, size, flags);
}

/* WRAP_ALLOCATION(result, function, (parameters), (arguments)) */
#define WRAP_ALLOCATION(result, function, parameters, arguments) \
extern result __real_##function parameters; \
extern result __wrap_##function parameters; \
result \
__wrap_##function parameters \
{ \
	may_fail_allocation(CALLER); \
	return __real_##function arguments; \
} \
extern result __real_##function parameters

WRAP_ALLOCATION(void *, palloc, (Size size), (size));
WRAP_ALLOCATION(void *, palloc0, (Size size), (size));
WRAP_ALLOCATION(void *, repalloc, (void *pointer, Size size), (pointer, size));
WRAP_ALLOCATION(void *, repalloc_huge, (void *pointer, Size size), (pointer, size));
WRAP_ALLOCATION(void *, MemoryContextAlloc, (MemoryContext context, Size size), (context, size));
WRAP_ALLOCATION(void *, MemoryContextAllocZero, (MemoryContext context, Size size), (context, size));
WRAP_ALLOCATION(void *, MemoryContextAllocHuge, (MemoryContext context, Size size), (context, size));
WRAP_ALLOCATION(char *, MemoryContextStrdup, (MemoryContext context, const char *string), (context, string));
WRAP_ALLOCATION(char *, pstrdup, (const char *string), (string));
WRAP_ALLOCATION(char *, pnstrdup, (const char *string, Size length), (string, length));
WRAP_ALLOCATION(MemoryContext, AllocSetContextCreateInternal,
				(MemoryContext parent, const char *name, Size min, Size init, Size max),
				(parent, name, min, init, max));
WRAP_ALLOCATION(List *, lappend, (List *list, void *datum), (list, datum));
WRAP_ALLOCATION(List *, lappend_oid, (List *list, Oid datum), (list, datum));
WRAP_ALLOCATION(List *, lcons, (void *datum, List *list), (datum, list));
WRAP_ALLOCATION(List *, list_copy, (const List *list), (list));
WRAP_ALLOCATION(void *, hash_search, (HTAB *table, const void *key, HASHACTION action, bool *found),
				(table, key, action, found));

extern void __real_tuplestore_puttupleslot(Tuplestorestate *state, TupleTableSlot *slot);
extern void __wrap_tuplestore_puttupleslot(Tuplestorestate *state, TupleTableSlot *slot);

void
__wrap_tuplestore_puttupleslot(Tuplestorestate *state, TupleTableSlot *slot)
{
	may_fail_allocation(CALLER);
	__real_tuplestore_puttupleslot(state, slot);
}

/* ---- tables ---- */

extern int	__real_SPI_execute_plan(SPIPlanPtr plan, Datum *values, const char *nulls, bool read_only, long count);
extern int	__wrap_SPI_execute_plan(SPIPlanPtr plan, Datum *values, const char *nulls, bool read_only, long count);
extern int	__real_SPI_execute(const char *source, bool read_only, long count);
extern int	__wrap_SPI_execute(const char *source, bool read_only, long count);
extern void __real_CatalogTupleInsert(Relation rel, HeapTuple tuple);
extern void __wrap_CatalogTupleInsert(Relation rel, HeapTuple tuple);
extern void __real_CatalogTupleUpdate(Relation rel, const ItemPointerData *tid, HeapTuple tuple);
extern void __wrap_CatalogTupleUpdate(Relation rel, const ItemPointerData *tid, HeapTuple tuple);
extern void __real_CatalogTupleDelete(Relation rel, const ItemPointerData *tid);
extern void __wrap_CatalogTupleDelete(Relation rel, const ItemPointerData *tid);

int
__wrap_SPI_execute_plan(SPIPlanPtr plan, Datum *values, const char *nulls, bool read_only, long count)
{
	if (!read_only)
		may_fail(FAIL_TABLE_WRITE, CALLER);
	return __real_SPI_execute_plan(plan, values, nulls, read_only, count);
}

int
__wrap_SPI_execute(const char *source, bool read_only, long count)
{
	if (!read_only)
		may_fail(FAIL_TABLE_WRITE, CALLER);
	return __real_SPI_execute(source, read_only, count);
}

void
__wrap_CatalogTupleInsert(Relation rel, HeapTuple tuple)
{
	may_fail(FAIL_TABLE_WRITE, CALLER);
	__real_CatalogTupleInsert(rel, tuple);
}

void
__wrap_CatalogTupleUpdate(Relation rel, const ItemPointerData *tid, HeapTuple tuple)
{
	may_fail(FAIL_TABLE_WRITE, CALLER);
	__real_CatalogTupleUpdate(rel, tid, tuple);
}

void
__wrap_CatalogTupleDelete(Relation rel, const ItemPointerData *tid)
{
	may_fail(FAIL_TABLE_WRITE, CALLER);
	__real_CatalogTupleDelete(rel, tid);
}

/* ---- WAL ---- */

extern int	__real_read_local_xlog_page_no_wait(XLogReaderState *state, XLogRecPtr page, int length,
												XLogRecPtr record, char *buffer);
extern int	__wrap_read_local_xlog_page_no_wait(XLogReaderState *state, XLogRecPtr page, int length,
												XLogRecPtr record, char *buffer);

int
__wrap_read_local_xlog_page_no_wait(XLogReaderState *state, XLogRecPtr page, int length,
									XLogRecPtr record, char *buffer)
{
	may_fail(FAIL_WAL_READ, CALLER);
	return __real_read_local_xlog_page_no_wait(state, page, length, record, buffer);
}

/* ---- locks, processes, transactions ---- */

extern bool __real_ConditionalLockRelationOid(Oid relid, LOCKMODE lockmode);
extern bool __wrap_ConditionalLockRelationOid(Oid relid, LOCKMODE lockmode);
extern bool __real_RegisterDynamicBackgroundWorker(BackgroundWorker *worker, BackgroundWorkerHandle **handle);
extern bool __wrap_RegisterDynamicBackgroundWorker(BackgroundWorker *worker, BackgroundWorkerHandle **handle);
extern void __real_CommitTransactionCommand(void);
extern void __wrap_CommitTransactionCommand(void);

bool
__wrap_ConditionalLockRelationOid(Oid relid, LOCKMODE lockmode)
{
	return !fails(FAIL_LOCK, CALLER) && __real_ConditionalLockRelationOid(relid, lockmode);
}

bool
__wrap_RegisterDynamicBackgroundWorker(BackgroundWorker *worker, BackgroundWorkerHandle **handle)
{
	return !fails(FAIL_WORKER_START, CALLER) && __real_RegisterDynamicBackgroundWorker(worker, handle);
}

void
__wrap_CommitTransactionCommand(void)
{
	may_fail(FAIL_COMMIT, CALLER);
	__real_CommitTransactionCommand();
}

#endif							/* SX_TESTING */
