-- Privileges (I9): who may create, read, change and watch what, and as whom the expressions run.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE ROLE regress_streamext_maker;
CREATE ROLE regress_streamext_reader;
CREATE ROLE regress_streamext_other;
GRANT CREATE ON SCHEMA public TO regress_streamext_maker, regress_streamext_other;
CREATE TABLE ev (k int, v int, secret text);
CREATE TABLE look (k int PRIMARY KEY, name text, secret text);
CREATE TABLE hidden (a int);
INSERT INTO look VALUES (1, 'one', 'x'), (2, 'two', 'y');
INSERT INTO ev SELECT i % 3, i, 'secret ' || i FROM generate_series(1, 30) i;
CREATE FUNCTION private(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
REVOKE EXECUTE ON FUNCTION private(int) FROM PUBLIC;

-- whoever creates a view must be able to read every column that it uses
SET ROLE regress_streamext_maker;
CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT k, sum(v) AS s FROM ev GROUP BY k;
\echo :SQLSTATE
RESET ROLE;
GRANT SELECT (k) ON ev TO regress_streamext_maker;
SET ROLE regress_streamext_maker;
CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT k, sum(v) AS s FROM ev GROUP BY k;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev WHERE secret <> '' GROUP BY k;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT ev FROM ev;
\echo :SQLSTATE
RESET ROLE;
GRANT SELECT (v) ON ev TO regress_streamext_maker;
SET ROLE regress_streamext_maker;
CREATE MATERIALIZED VIEW by_lookup WITH (streamext.continuous) AS SELECT name, sum(v) AS s FROM ev JOIN look USING (k) GROUP BY name;
\echo :SQLSTATE
BEGIN;
CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT k, sum(private(v)) AS s FROM ev GROUP BY k;
\echo :SQLSTATE
ROLLBACK;
CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT k, sum(v) AS s FROM ev WHERE k IN (SELECT a FROM hidden) GROUP BY k;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW pg_catalog.v WITH (streamext.continuous) AS SELECT k FROM ev;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW streamext.v WITH (streamext.continuous) AS SELECT k FROM ev;
\echo :SQLSTATE
SELECT streamext.create_stream('ev');
\echo :SQLSTATE
SELECT streamext.create_stream('hidden');
\echo :SQLSTATE
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS SELECT k, sum(v) AS s, avg(v) AS a, count(*) AS n FROM ev GROUP BY k;
RESET ROLE;
GRANT SELECT (k, name) ON look TO regress_streamext_maker;
SET ROLE regress_streamext_maker;
CREATE MATERIALIZED VIEW by_lookup WITH (streamext.continuous) AS SELECT name, sum(v) AS s FROM ev JOIN look USING (k) GROUP BY name;
RESET ROLE;
SELECT test.check('sums'), test.check('by_lookup');
SELECT owner FROM streamext.views WHERE view = 'sums'::regclass;

-- a reader needs SELECT on the view and nothing else: not on the stream, not in schema streamext
SET ROLE regress_streamext_reader;
SELECT * FROM sums;
\echo :SQLSTATE
RESET ROLE;
GRANT SELECT ON sums TO regress_streamext_reader;
SET ROLE regress_streamext_reader;
SELECT k, s, n FROM sums ORDER BY k;
SELECT streamext.wait_for('sums');
SELECT streamext.wait_for('by_lookup');
\echo :SQLSTATE
SELECT * FROM ev;
\echo :SQLSTATE
RESET ROLE;
INSERT INTO ev VALUES (1, 100, 'x');
SET ROLE regress_streamext_reader;
SELECT streamext.wait_for('sums');
SELECT k, s FROM sums WHERE k = 1;
-- the internals stay closed
SELECT format('SELECT count(*) FROM %s', mat) AS a, format('SELECT count(*) FROM %s', query) AS b FROM (SELECT 'x' AS mat, 'y' AS query) x \gset
SELECT count(*) FROM streamext.view_def;
\echo :SQLSTATE
SELECT count(*) FROM streamext.dead_letter;
\echo :SQLSTATE
RESET ROLE;
SELECT format('SELECT count(*) FROM %s', mat) AS a, format('SELECT count(*) FROM %s', query) AS b FROM streamext.view_def WHERE view = 'sums'::regclass \gset
SET ROLE regress_streamext_reader;
\set VERBOSITY sqlstate
:a;
:b;
\set VERBOSITY default
-- nor may a reader change the view
DROP MATERIALIZED VIEW sums;
\echo :SQLSTATE
DROP VIEW sums;
\echo :SQLSTATE
ALTER MATERIALIZED VIEW sums RENAME TO mine;
\echo :SQLSTATE
ALTER VIEW sums RENAME COLUMN s TO mine;
\echo :SQLSTATE
ALTER MATERIALIZED VIEW sums SET (streamext.flush_interval = '1s');
\echo :SQLSTATE
ALTER MATERIALIZED VIEW sums OWNER TO regress_streamext_reader;
\echo :SQLSTATE
ALTER MATERIALIZED VIEW sums SET SCHEMA public;
\echo :SQLSTATE
CREATE INDEX ON sums (s);
\echo :SQLSTATE
COMMENT ON VIEW sums IS 'mine';
\echo :SQLSTATE
REFRESH MATERIALIZED VIEW sums;
\echo :SQLSTATE
SELECT streamext.pause('sums');
\echo :SQLSTATE
SELECT streamext.resume('sums');
\echo :SQLSTATE
SELECT streamext.flush('sums');
\echo :SQLSTATE
RESET ROLE;
REVOKE SELECT ON sums FROM regress_streamext_reader;
SET ROLE regress_streamext_reader;
SELECT * FROM sums;
\echo :SQLSTATE
RESET ROLE;
-- one column is enough
GRANT SELECT (k) ON sums TO regress_streamext_reader;
SET ROLE regress_streamext_reader;
SELECT k FROM sums WHERE k = 1;
SELECT k FROM sums WHERE s > 0;
\echo :SQLSTATE
RESET ROLE;

-- what others may see
CREATE MATERIALIZED VIEW failing WITH (streamext.continuous) AS SELECT 10 / v AS q FROM ev;
INSERT INTO ev VALUES (9, 0, 'top secret');
SELECT streamext.wait_for(), streamext.flush();
SELECT count(*) FROM streamext.dead_letters;
SELECT view FROM streamext.status ORDER BY view::text;
SET ROLE regress_streamext_other;
SELECT view FROM streamext.views;
SELECT view FROM streamext.status;
SELECT stream FROM streamext.streams;
SELECT * FROM streamext.dead_letters;
SELECT * FROM streamext.backfill_progress;
SET ROLE regress_streamext_reader;
SELECT view, definition FROM streamext.views ORDER BY view::text;
SELECT view, rows_consumed > 0 AS consumed FROM streamext.status ORDER BY view::text;
SET ROLE regress_streamext_maker;
SELECT view FROM streamext.views ORDER BY view::text;
SELECT view, reason FROM streamext.status ORDER BY view::text;
SELECT stream FROM streamext.streams;
SELECT * FROM streamext.dead_letters;
RESET ROLE;
-- dead letters hold whole rows: they are for the view's owner, and for who may read everything
GRANT SELECT ON failing TO regress_streamext_reader;
SET ROLE regress_streamext_reader;
SELECT "row", sqlstate FROM streamext.dead_letters;
RESET ROLE;
GRANT pg_read_all_data TO regress_streamext_reader;
SET ROLE regress_streamext_reader;
SELECT "row" ->> 'secret' AS secret, sqlstate FROM streamext.dead_letters;
RESET ROLE;
REVOKE pg_read_all_data FROM regress_streamext_reader;

-- revoked later: the view stands still and says why; granted again, it goes on
REVOKE SELECT (v) ON ev FROM regress_streamext_maker;
INSERT INTO ev VALUES (2, 200, 'x');
SELECT test.until($$SELECT state = 'failed' FROM streamext.views WHERE view = 'sums'::regclass$$);
SELECT state FROM streamext.views WHERE view = 'sums'::regclass;
SELECT last_error, last_error_at IS NOT NULL AS at, reason IS NOT NULL AS reason FROM streamext.status WHERE view = 'sums'::regclass;
SELECT test.check('failing', 'SELECT 10 / v FROM ev WHERE v <> 0');
SELECT s FROM sums WHERE k = 2;
GRANT SELECT (v) ON ev TO regress_streamext_maker;
SELECT test.check('sums');
REVOKE SELECT (name) ON look FROM regress_streamext_maker;
INSERT INTO ev VALUES (2, 300, 'x');
SELECT test.until($$SELECT state = 'failed' FROM streamext.views WHERE view = 'by_lookup'::regclass$$);
SELECT test.check('sums');
GRANT SELECT (name) ON look TO regress_streamext_maker;
SELECT test.check('by_lookup');

-- expressions run as the owner, in a restricted operation, with a safe search_path
CREATE TABLE who (name text, path text);
CREATE FUNCTION tells() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN current_user || ' ' || session_user || ' ' || current_setting('search_path'); END $$;
CREATE FUNCTION does(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	CREATE TEMP TABLE trick (a int);
	RETURN 'created';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION becomes(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	SET ROLE regress_streamext_other;
	RETURN current_user;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION writes(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	INSERT INTO public.who VALUES (current_user);
	RETURN 'written';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
GRANT INSERT ON who TO regress_streamext_maker;
SET ROLE regress_streamext_maker;
CREATE MATERIALIZED VIEW runs_as WITH (streamext.continuous) AS
	SELECT k, v, split_part(tells(), ' ', 1) AS me, tells() !~ 'public' AS safe_path, does(v) AS temp, becomes(v) AS role, writes(v) AS writes FROM ev WHERE v > 1000;
RESET ROLE;
INSERT INTO ev VALUES (1, 1001, 'x'), (2, 1002, 'x');
SELECT streamext.wait_for('runs_as');
SELECT * FROM runs_as ORDER BY v;
TABLE who;
SELECT streamext.flush('runs_as');
SELECT * FROM runs_as ORDER BY v;
-- a function that pretends to be one of pg_catalog's
SET ROLE regress_streamext_maker;
CREATE FUNCTION public.int4pl(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0';
CREATE OPERATOR public.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = public.int4pl);
RESET ROLE;
INSERT INTO ev VALUES (1, 1003, 'x');
SELECT test.check('sums');
DROP OPERATOR public.+ (int, int);
DROP FUNCTION public.int4pl(int, int);

-- an owner that is taken away the right to run a function
SET ROLE regress_streamext_other;
CREATE FUNCTION lent(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
SET ROLE regress_streamext_maker;
CREATE MATERIALIZED VIEW borrows WITH (streamext.continuous) AS SELECT lent(k) AS k, count(*) AS n FROM ev GROUP BY lent(k);
RESET ROLE;
SELECT test.check('borrows');

-- row security of a lookup is respected: refused where it would apply, ignored for those it does not concern
CREATE TABLE secured (k int PRIMARY KEY, name text);
INSERT INTO secured VALUES (1, 'one'), (2, 'two');
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON secured FOR SELECT TO regress_streamext_maker USING (k = 1);
GRANT SELECT ON secured TO regress_streamext_maker;
SET ROLE regress_streamext_maker;
CREATE MATERIALIZED VIEW by_secured WITH (streamext.continuous) AS SELECT name, count(v) AS n FROM ev JOIN secured USING (k) GROUP BY name;
\echo :SQLSTATE
RESET ROLE;
CREATE MATERIALIZED VIEW by_secured WITH (streamext.continuous) AS SELECT name, count(v) AS n FROM ev JOIN secured USING (k) GROUP BY name;
SELECT test.check('by_secured');
ALTER TABLE secured DISABLE ROW LEVEL SECURITY;

-- changes of owner: the new one must be able to read, too
ALTER MATERIALIZED VIEW by_lookup OWNER TO regress_streamext_other;
SELECT owner FROM streamext.views WHERE view = 'by_lookup'::regclass;
SET ROLE regress_streamext_maker;
ALTER MATERIALIZED VIEW sums OWNER TO regress_streamext_other;
\echo :SQLSTATE
RESET ROLE;

-- functions of the extension that PUBLIC may execute
SELECT p.oid::regprocedure AS function FROM pg_proc p WHERE p.pronamespace = 'streamext'::regnamespace
	AND NOT has_function_privilege('regress_streamext_other', p.oid, 'EXECUTE') ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT c.relname, c.relkind FROM pg_class c WHERE c.relnamespace = 'streamext'::regnamespace AND c.relname !~ '^(mat|query)_\d'
	AND c.relkind IN ('r', 'v', 'S') AND NOT has_table_privilege('regress_streamext_other', c.oid, 'SELECT') ORDER BY 1;
SET ROLE regress_streamext_other;
CREATE TABLE streamext.mine (a int);
\echo :SQLSTATE
SELECT nextval('streamext.view_id_seq');
\echo :SQLSTATE
RESET ROLE;

DROP OWNED BY regress_streamext_maker CASCADE;
DROP OWNED BY regress_streamext_reader, regress_streamext_other CASCADE;
DROP ROLE regress_streamext_maker, regress_streamext_reader, regress_streamext_other;
SELECT view FROM streamext.views ORDER BY view::text;
