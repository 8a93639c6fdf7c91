/*
 * job_runs.c
 *		Runs of scheduled jobs: streamext.job_run.
 *
 * A start is committed before the job's work, so that a crash is seen: the session that is in the row is
 * gone then, which the view streamext.job_runs looks for.
 */
#include "catalog/job_runs.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "catalog/catalog_internal.h"

/* columns of streamext.job_run */
enum
{
	JOB_ID = 1,
	JOB_JOB,
	JOB_RUN_FOR,
	JOB_ROLE,
	JOB_PID,
	JOB_SESSION_START,
	JOB_STARTED_AT,
	JOB_FINISHED_AT,
	JOB_SUCCEEDED,
	JOB_ROWS,
	JOB_SQLSTATE,
	JOB_ERROR,
	JOB_NCOLUMNS = JOB_ERROR
};

int64
sx_catalog_job_started(const char *job, const char *run_for)
{
	Datum		values[JOB_NCOLUMNS] = {0};
	bool		nulls[JOB_NCOLUMNS] = {0};
	NameData	role;
	int64		id;

	sx_must_exist();
	id = nextval_internal(get_relname_relid("job_run_id_seq", sx_catalog_schema_oid()), false);
	namestrcpy(&role, GetUserNameFromId(GetUserId(), false));
	values[JOB_ID - 1] = Int64GetDatum(id);
	values[JOB_JOB - 1] = CStringGetTextDatum(job);
	values[JOB_RUN_FOR - 1] = CStringGetTextDatum(run_for);
	values[JOB_ROLE - 1] = NameGetDatum(&role);
	values[JOB_PID - 1] = Int32GetDatum(MyProcPid);
	values[JOB_SESSION_START - 1] = TimestampTzGetDatum(MyStartTimestamp);
	values[JOB_STARTED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	for (int column = JOB_FINISHED_AT; column <= JOB_ERROR; column++)
		nulls[column - 1] = true;
	sx_insert_row(SX_REL_JOB_RUN, values, nulls);
	CommandCounterIncrement();
	return id;
}

SxJobFound
sx_catalog_job_finished(int64 id, int64 rows, const char *sqlstate, const char *error)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tup;
	SxJobFound	result = SX_JOB_UNKNOWN;

	sx_must_exist();
	rel = table_open(sx_our_relation(SX_REL_JOB_RUN), RowExclusiveLock);
	ScanKeyInit(&key, JOB_ID, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	scan = systable_beginscan(rel, sx_our_relation(SX_REL_JOB_RUN_PKEY), true, NULL, 1, &key);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		Oid			role = get_role_oid(NameStr(*DatumGetName(sx_column(tup, JOB_ROLE, rel))), true);

		if (OidIsValid(role) && has_privs_of_role(GetUserId(), role))
			result = heap_attisnull(tup, JOB_FINISHED_AT, RelationGetDescr(rel)) ? SX_JOB_FINISHED : SX_JOB_WAS_FINISHED;
	}
	if (result == SX_JOB_FINISHED)
	{
		Datum		values[JOB_NCOLUMNS] = {0};
		bool		nulls[JOB_NCOLUMNS] = {0};
		bool		replace[JOB_NCOLUMNS] = {0};

		for (int column = JOB_FINISHED_AT; column <= JOB_ERROR; column++)
			replace[column - 1] = true;
		values[JOB_FINISHED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
		values[JOB_SUCCEEDED - 1] = BoolGetDatum(error == NULL);
		values[JOB_ROWS - 1] = Int64GetDatum(rows);
		nulls[JOB_ROWS - 1] = rows < 0;
		nulls[JOB_SQLSTATE - 1] = sqlstate == NULL;
		if (sqlstate)
			values[JOB_SQLSTATE - 1] = CStringGetTextDatum(sqlstate);
		nulls[JOB_ERROR - 1] = error == NULL;
		if (error)
			values[JOB_ERROR - 1] = CStringGetTextDatum(error);
		tup = heap_modify_tuple(tup, RelationGetDescr(rel), values, nulls, replace);
		CatalogTupleUpdate(rel, &tup->t_self, tup);
	}
	systable_endscan(scan);
	table_close(rel, RowExclusiveLock);
	return result;
}
