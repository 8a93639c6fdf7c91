-- Runs of scheduled jobs: see src/batch/job_functions.c and doc/batch.md.

CREATE TABLE streamext.job_run
(
	id pg_catalog.int8 NOT NULL,
	job pg_catalog.text NOT NULL,
	run_for pg_catalog.text NOT NULL,
	role pg_catalog.name NOT NULL,
	pid pg_catalog.int4 NOT NULL,
	session_start pg_catalog.timestamptz NOT NULL,
	started_at pg_catalog.timestamptz NOT NULL,
	finished_at pg_catalog.timestamptz,
	succeeded pg_catalog.bool,
	"rows" pg_catalog.int8,
	sqlstate pg_catalog.text,
	error pg_catalog.text,
	CONSTRAINT job_run_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE streamext.job_run IS 'runs of scheduled jobs; see view streamext.job_runs';
CREATE SEQUENCE streamext.job_run_id_seq AS pg_catalog.int8;
COMMENT ON SEQUENCE streamext.job_run_id_seq IS 'numbers the runs of scheduled jobs';
REVOKE ALL ON streamext.job_run FROM PUBLIC;
REVOKE ALL ON SEQUENCE streamext.job_run_id_seq FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('streamext.job_run', '');
SELECT pg_catalog.pg_extension_config_dump('streamext.job_run_id_seq', '');

CREATE VIEW streamext.job_runs WITH (security_barrier) AS
SELECT r.id,
	r.job,
	r.run_for,
	r.role,
	r.started_at,
	r.finished_at,
	r.finished_at OPERATOR(pg_catalog.-) r.started_at AS duration,
	CASE WHEN r.succeeded THEN 'succeeded'
		WHEN r.succeeded IS NULL AND EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(r.pid) a
			WHERE a.backend_start IS NULL OR a.backend_start OPERATOR(pg_catalog.=) r.session_start) THEN 'running'
		ELSE 'failed' END AS status,
	r."rows",
	r.sqlstate,
	r.error
FROM streamext.job_run r
WHERE EXISTS (SELECT FROM pg_catalog.pg_roles o
		WHERE o.rolname OPERATOR(pg_catalog.=) r.role AND pg_catalog.pg_has_role(o.oid, 'USAGE'))
	OR pg_catalog.pg_has_role('pg_read_all_data', 'USAGE');
COMMENT ON VIEW streamext.job_runs IS 'runs of scheduled jobs, one row each, for the role that ran them and pg_read_all_data';
COMMENT ON COLUMN streamext.job_runs.run_for IS 'what the run was for, such as a date';
COMMENT ON COLUMN streamext.job_runs.status IS 'running, succeeded or failed; failed also when the session is gone and has told nothing';
COMMENT ON COLUMN streamext.job_runs."rows" IS 'as the job has counted them';
GRANT SELECT ON streamext.job_runs TO PUBLIC;

CREATE FUNCTION streamext.job_started(job pg_catalog.text, run_for pg_catalog.text)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'sx_job_started' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION streamext.job_started(pg_catalog.text, pg_catalog.text) IS
'notes in streamext.job_runs that the current role has begun to run a job; run_for: for what, such as a date. Result: the id for streamext.job_finished. Commit after it: what is rolled back is not noted';
CREATE FUNCTION streamext.job_finished(id pg_catalog.int8, "rows" pg_catalog.int8 DEFAULT NULL, error pg_catalog.text DEFAULT NULL)
	RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'sx_job_finished' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION streamext.job_finished(pg_catalog.int8, pg_catalog.int8, pg_catalog.text) IS
'notes that a run has ended. id: of streamext.job_started; rows: how many it has written (null: not known); error: why it failed (null: it succeeded). Takes the role that has started it. Errors: no such run, already finished';
CREATE PROCEDURE streamext.run_job(job pg_catalog.text, run_for pg_catalog.date, work pg_catalog.regprocedure)
	AS 'MODULE_PATHNAME', 'sx_run_job_date' LANGUAGE C;
COMMENT ON PROCEDURE streamext.run_job(pg_catalog.text, pg_catalog.date, pg_catalog.regprocedure) IS
'runs a job and notes it in streamext.job_runs: its start first, then, with what it has written, that it succeeded, or, when that is rolled back, why it failed, which is raised again. work: a function of one argument, run_for, that returns how many rows it has written (an integer), or void. Errors: in a transaction block, the same job is already running for the same date, and those of work';
CREATE PROCEDURE streamext.run_job(job pg_catalog.text, run_for pg_catalog.text, work pg_catalog.regprocedure)
	AS 'MODULE_PATHNAME', 'sx_run_job_text' LANGUAGE C;
COMMENT ON PROCEDURE streamext.run_job(pg_catalog.text, pg_catalog.text, pg_catalog.regprocedure) IS
'the same for something else than a date; the argument of work may have any type';
REVOKE EXECUTE ON FUNCTION streamext.job_started(pg_catalog.text, pg_catalog.text),
	streamext.job_finished(pg_catalog.int8, pg_catalog.int8, pg_catalog.text) FROM PUBLIC;
REVOKE EXECUTE ON PROCEDURE streamext.run_job(pg_catalog.text, pg_catalog.date, pg_catalog.regprocedure),
	streamext.run_job(pg_catalog.text, pg_catalog.text, pg_catalog.regprocedure) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION streamext.job_started(pg_catalog.text, pg_catalog.text),
	streamext.job_finished(pg_catalog.int8, pg_catalog.int8, pg_catalog.text) TO PUBLIC;
GRANT EXECUTE ON PROCEDURE streamext.run_job(pg_catalog.text, pg_catalog.date, pg_catalog.regprocedure),
	streamext.run_job(pg_catalog.text, pg_catalog.text, pg_catalog.regprocedure) TO PUBLIC;
