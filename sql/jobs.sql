-- Runs of scheduled jobs: streamext.run_job(), job_started(), job_finished(), job_runs
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include
\set VERBOSITY default

CREATE TABLE sales (at timestamptz NOT NULL, shop text, amount numeric);
CREATE TABLE report (day date, shop text, total numeric, PRIMARY KEY (day, shop));
INSERT INTO sales VALUES ('2026-01-01 10:00Z', 'a', 1), ('2026-01-01 11:00Z', 'b', 2), ('2026-01-02 10:00Z', 'a', 4);
CREATE FUNCTION write_report(wanted date) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
	n bigint;
BEGIN
	IF wanted > '2026-01-02' THEN
		RAISE EXCEPTION 'day % is not over', wanted USING ERRCODE = 'datetime_field_overflow';
	END IF;
	DELETE FROM report WHERE day = wanted;
	INSERT INTO report SELECT wanted, shop, sum(amount) FROM sales
	WHERE at >= wanted::timestamptz AND at < wanted + 1 GROUP BY shop;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;
CREATE VIEW runs AS SELECT job, run_for, role, status, duration >= '0' AS took, rows, sqlstate, error FROM streamext.job_runs ORDER BY id;
CALL streamext.run_job('daily report', date '2026-01-01', 'write_report(date)');
CALL streamext.run_job('daily report', date '2026-01-03', 'write_report(date)');
TABLE report ORDER BY 1, 2;
TABLE runs;
-- again, with what came late: the same rows, once
INSERT INTO sales VALUES ('2026-01-01 12:00Z', 'a', 8);
CALL streamext.run_job('daily report', '2026-01-01', 'write_report(date)');
CALL streamext.run_job('daily report', '2026-01-01', 'write_report(date)');
TABLE report ORDER BY 1, 2;
-- what fails is rolled back, and noted
CREATE FUNCTION half(wanted text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM report; PERFORM 1 / length(wanted); END $$;
CALL streamext.run_job('half', '', 'half(text)');
CREATE FUNCTION size_of(what text) RETURNS int LANGUAGE sql AS 'SELECT length(what)';
CALL streamext.run_job('size', 'it''s', 'size_of(text)');
TABLE report ORDER BY 1, 2;
CALL streamext.run_job('daily report', 'nonsense', 'write_report(date)');
TABLE runs;
-- refused, and not noted
CREATE FUNCTION two(a date, b date) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION words(a date) RETURNS text LANGUAGE sql AS 'SELECT ''x''';
CREATE FUNCTION many(a date) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE work(a date) LANGUAGE sql AS 'SELECT 1';
CALL streamext.run_job('x', date '2026-01-01', 'two(date, date)');
CALL streamext.run_job('x', date '2026-01-01', 'words(date)');
CALL streamext.run_job('x', date '2026-01-01', 'many(date)');
CALL streamext.run_job('x', date '2026-01-01', 'work(date)');
CALL streamext.run_job('x', date '2026-01-01', 'nothing(date)');
CALL streamext.run_job(NULL, date '2026-01-01', 'write_report(date)');
CALL streamext.run_job('x', NULL::date, 'write_report(date)');
BEGIN;
CALL streamext.run_job('x', date '2026-01-01', 'write_report(date)');
ROLLBACK;
SELECT count(*) FROM runs WHERE job = 'x';

-- by hand; a run whose session is gone has failed
SELECT streamext.job_started('by hand', 'all') AS id \gset
SELECT status, finished_at IS NULL AS open FROM streamext.job_runs WHERE id = :id;
SELECT streamext.job_finished(:id, 7);
SELECT streamext.job_finished(:id);
SELECT streamext.job_finished(-1);
SELECT streamext.job_finished(NULL);
SELECT streamext.job_finished(:id, -5);
SELECT streamext.job_started('by hand', 'nothing') AS id \gset
SELECT streamext.job_finished(:id, error => 'no more space');
SELECT streamext.job_started('by hand', 'lost') AS id \gset
\c
SELECT test.until(format('SELECT status = ''failed'' FROM streamext.job_runs WHERE id = %s', :id));
SELECT * FROM runs WHERE job = 'by hand';

-- others see only their own, and run their own
CREATE ROLE jobs_alice;
GRANT USAGE ON SCHEMA streamext TO jobs_alice;
SET ROLE jobs_alice;
SELECT count(*) FROM streamext.job_runs;
CALL streamext.run_job('daily report', date '2026-01-01', 'write_report(date)');
SELECT role, status, error FROM streamext.job_runs;
SELECT streamext.job_finished(:id);
SELECT * FROM streamext.job_run;
RESET ROLE;
DROP OWNED BY jobs_alice;
DROP ROLE jobs_alice;
DROP SCHEMA test CASCADE;
