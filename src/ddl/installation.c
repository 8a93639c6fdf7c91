/*
 * installation.c
 *		Is the server set up for continuous views?  First statement of the extension's script.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "utils/guc.h"

#include "streamext.h"

/* launcher, scout, and for one database a consumer, a flusher and a builder */
#define MIN_WORKER_PROCESSES	5

PG_FUNCTION_INFO_V1(sx_check_installation);

Datum
sx_check_installation(PG_FUNCTION_ARGS)
{
	const char *threshold;

	sx_require_preload();

	if (wal_level < WAL_LEVEL_REPLICA)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("streamext needs wal_level replica or logical"),
				 errdetail("With wal_level minimal not every insert is in the write-ahead log."),
				 errhint("Change this line of postgresql.conf and restart the server: wal_level = replica")));
	if (max_replication_slots < 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("streamext needs a replication slot for each database that uses it"),
				 errdetail("max_replication_slots is %d.", max_replication_slots),
				 errhint("Change this line of postgresql.conf and restart the server: max_replication_slots = 10")));
	if (max_worker_processes < MIN_WORKER_PROCESSES)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("streamext needs at least %d background worker processes", MIN_WORKER_PROCESSES),
				 errdetail("max_worker_processes is %d.", max_worker_processes),
				 errhint("Change this line of postgresql.conf and restart the server: max_worker_processes = 8")));

	/* gone in version 17; it lets VACUUM remove rows that a slot protects */
	threshold = GetConfigOption("old_snapshot_threshold", true, false);
	if (threshold != NULL && strcmp(threshold, "-1") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("streamext needs old_snapshot_threshold to be off"),
				 errdetail("It lets VACUUM remove rows that are not read yet."),
				 errhint("Change this line of postgresql.conf and restart the server: old_snapshot_threshold = -1")));
	PG_RETURN_VOID();
}
