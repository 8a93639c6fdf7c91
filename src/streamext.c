/*
 * streamext.c
 *		Load time only: settings, hooks, shared memory, workers.
 */
#include "streamext.h"

#include <limits.h>

#include "capture/delta_scan.h"
#include "capture/range_scan.h"
#include "ddl/ddl.h"
#include "live/group_scan.h"
#include "live/live_read.h"
#include "live/registry.h"
#include "query/plan.h"
#include "testing/stop_points.h"
#include "worker/worker.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

/* settings: each is described in README.md */
int			sx_flush_interval = 1000;
int			sx_cycle_interval = 1;
bool		sx_enable_helper = true;
int			sx_live_memory = 64 * 1024;
int			sx_view_budget = 100;
int			sx_read_consistency = SX_READ_LATEST;
int			sx_wait_timeout = 30000;
int			sx_max_databases = 8;
int			sx_max_held_wal = 10 * 1024;
int			sx_max_held_xids = 50000000;
int			sx_backfill_rate = 0;

bool		sx_preloaded = false;

static const struct config_enum_entry read_consistency_options[] = {
	{"latest", SX_READ_LATEST, false},
	{"wait", SX_READ_WAIT, false},
	{NULL, 0, false}
};

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void define_settings(void);
static void shmem_request(void);
static void shmem_startup(void);

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	/* without preload the library only serves to say so: see sx_require_preload */
	if (!process_shared_preload_libraries_in_progress)
		return;

	sx_preloaded = true;
	define_settings();

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;

	sx_delta_scan_init();
	sx_range_scan_init();
	sx_plan_init();
	sx_live_read_init();
	sx_group_scan_init();
	sx_ddl_init();
	sx_wake_init();
	sx_launcher_register();
}

void
sx_require_preload(void)
{
	if (!sx_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("streamext must be loaded via shared_preload_libraries"),
				 errhint("Add this line to postgresql.conf and restart the server: shared_preload_libraries = 'streamext'")));
}

static void
define_settings(void)
{
	/* How long live state may stay unflushed. */
	DefineCustomIntVariable("streamext.flush_interval",
							"How long live state may stay unflushed.",
							NULL, &sx_flush_interval, 1000, 10, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	/* The shortest pause between two cycles of the consumer. */
	DefineCustomIntVariable("streamext.cycle_interval",
							"Shortest pause between two cycles of a consumer.",
							NULL, &sx_cycle_interval, 1, 0, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	/* It runs while a large transaction is open that the consumer does not keep up with; see worker/helper.c. */
	DefineCustomBoolVariable("streamext.enable_helper",
							 "Whether a second process may help to compute large transactions.",
							 NULL, &sx_enable_helper, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);

	/* Shared memory for live state; when it is full we flush early. */
	DefineCustomIntVariable("streamext.live_memory",
							"Shared memory for live state, per database.",
							NULL, &sx_live_memory, 64 * 1024, 4 * 1024, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);

	/* A view that holds up the others longer goes to a process of its own; see worker/budget.c. */
	DefineCustomIntVariable("streamext.view_budget",
							"How long the computation of one continuous view may hold up the others; 0 means without limit.",
							NULL, &sx_view_budget, 100, 0, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	/* With 'wait' a read first waits for everything committed before it. */
	DefineCustomEnumVariable("streamext.read_consistency",
							 "Whether a read of a continuous view first waits for everything committed before it.",
							 NULL, &sx_read_consistency, SX_READ_LATEST, read_consistency_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);

	/* How long such a read, and DDL on streams, waits. */
	DefineCustomIntVariable("streamext.wait_timeout",
							"How long a waiting read, or DDL that destroys rows of a stream, waits.",
							NULL, &sx_wait_timeout, 30000, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);

	/* Databases served: sizes shared memory. */
	DefineCustomIntVariable("streamext.max_databases",
							"Number of databases that can have continuous views.",
							NULL, &sx_max_databases, 8, 1, 1024,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);

	/* Beyond this the slot lets WAL go; a view that needs it is caught up by a full scan, as exactly. */
	DefineCustomIntVariable("streamext.max_held_wal",
							"How much WAL may be held back for continuous views.",
							NULL, &sx_max_held_wal, 10 * 1024, 1, MAX_KILOBYTES / 1024,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);

	/* Beyond this the slot lets VACUUM go on; what a view may have missed then is reported. */
	DefineCustomIntVariable("streamext.max_held_xids",
							"How many transactions old the horizon may be that is held back for continuous views.",
							NULL, &sx_max_held_xids, 50000000, 1000, 1000000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	/* For servers that have other things to do. */
	DefineCustomIntVariable("streamext.backfill_rate",
							"How many rows of its stream a new continuous view may read in a second; 0 means without limit.",
							NULL, &sx_backfill_rate, 0, 0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

#ifdef SX_TESTING
	DefineCustomIntVariable("streamext.testing_chunk_blocks",
							"Size of a chunk of history; 0 means as always.",
							NULL, &sx_testing_chunk_blocks, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
#endif

	MarkGUCPrefixReserved("streamext");
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(sx_registry_size());
#ifdef SX_TESTING
	RequestAddinShmemSpace(sx_testing_size());
#endif
}

static void
shmem_startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	sx_registry_init();
#ifdef SX_TESTING
	sx_testing_init();
#endif
}
