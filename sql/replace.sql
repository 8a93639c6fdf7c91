-- REFRESH and replace_view(): new contents and new definitions for a view that serves.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE ev (at timestamptz NOT NULL, k text, v int NOT NULL);
CREATE TABLE names (k text PRIMARY KEY, name text);
INSERT INTO names VALUES ('a', 'anna'), ('b', 'berta');
SELECT streamext.create_stream('ev', event_time => 'at');
INSERT INTO ev SELECT '2026-01-01 00:00Z'::timestamptz + i * interval '1 minute', chr(97 + i % 3), i FROM generate_series(0, 119) i;
CREATE MATERIALIZED VIEW hours WITH (streamext.continuous) AS
SELECT k, streamext.tumble(at, '1 hour') AS hour, count(*) AS n, avg(v) AS a FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS s FROM ev;
CREATE MATERIALIZED VIEW big WITH (streamext.continuous) AS SELECT at, k, v FROM ev WHERE v > 100;
CREATE MATERIALIZED VIEW named WITH (streamext.continuous) AS
SELECT name, count(*) AS n FROM ev JOIN names USING (k) GROUP BY name;
SELECT streamext.wait_for();

-- what the view counted stays counted, whatever becomes of the raw rows, until it is rebuilt
DELETE FROM ev WHERE v < 10;
UPDATE ev SET v = v + 1000 WHERE v BETWEEN 60 AND 69;
UPDATE names SET name = 'bruno' WHERE k = 'b';
SELECT count(*) FROM hours; TABLE total;
REFRESH MATERIALIZED VIEW hours;
REFRESH MATERIALIZED VIEW CONCURRENTLY total;
REFRESH MATERIALIZED VIEW big;
REFRESH MATERIALIZED VIEW named;
SELECT test.check('hours'), test.check('total'), test.check('big'), test.check('named');
INSERT INTO ev VALUES ('2026-01-01 03:00Z', 'a', 7), ('2026-01-01 00:01Z', 'b', 200);
SELECT test.check('hours'), test.check('total'), test.check('big'), test.check('named');

-- in a transaction block it is done when that has ended
BEGIN;
DELETE FROM ev WHERE v = 7;
REFRESH MATERIALIZED VIEW hours;
REFRESH MATERIALIZED VIEW hours;
ROLLBACK;
BEGIN;
DELETE FROM ev WHERE v = 7;
REFRESH MATERIALIZED VIEW hours;
COMMIT;
SELECT streamext.wait_for('hours');
SELECT test.check('hours');

-- a new definition, with what belongs to the view
CREATE ROLE regress_replace_reader;
GRANT SELECT ON hours TO regress_replace_reader;
COMMENT ON VIEW hours IS 'by hour';
COMMENT ON COLUMN hours.n IS 'rows';
CREATE INDEX hours_hour ON hours (hour);
CREATE INDEX hours_a ON hours (a);
CREATE VIEW over_hours AS SELECT k, sum(n) AS n FROM hours GROUP BY k;
ALTER VIEW hours RENAME COLUMN a TO average;
ALTER MATERIALIZED VIEW hours SET (streamext.flush_interval = '100ms', streamext.retention = '1 year', fillfactor = 60, toast.autovacuum_enabled = off);
REFRESH MATERIALIZED VIEW hours;
SELECT test.check('hours');
SELECT options FROM streamext.views WHERE view = 'hours'::regclass;
SELECT streamext.replace_view('hours', $$SELECT k, streamext.tumble(at, '1 hour') AS hour, count(*) AS n, avg(v) AS average FROM ev GROUP BY 1, 2$$);
SELECT streamext.replace_view('hours', $$SELECT k, streamext.tumble(at, '1 hour') AS hour, count(*) AS n, avg(v) AS average, max(v) AS most
	FROM ev WHERE v <> 50 GROUP BY 1, 2 HAVING count(*) > 1$$);
SELECT streamext.wait_for('hours');
SELECT test.check('hours');
SELECT count(*), max(most) FROM hours;
SELECT streamext.verify('hours');
SELECT has_table_privilege('regress_replace_reader', 'hours', 'SELECT') AS granted, obj_description('hours'::regclass) AS comment,
	col_description('hours'::regclass, 3) AS column, (SELECT sum(n) FROM over_hours) = (SELECT sum(n) FROM hours) AS dependent;
SELECT indexname FROM pg_indexes WHERE schemaname = 'streamext' AND indexname LIKE 'hours%' ORDER BY 1;
SELECT c.reloptions, t.reloptions AS toast FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid JOIN streamext.view_def d ON d.mat = c.oid
	WHERE d.view = 'hours'::regclass;
SELECT options FROM streamext.views WHERE view = 'hours'::regclass;
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'hours'::regclass AND attnum > 0 ORDER BY attnum;

-- how columns of the internal table are stored
CREATE MATERIALIZED VIEW stored WITH (streamext.continuous) AS SELECT k, streamext.tumble(at, '1 hour') AS hour, count(*) AS n FROM ev GROUP BY 1, 2;
SELECT streamext.wait_for('stored');
SELECT mat AS mat FROM streamext.view_def WHERE view = 'stored'::regclass \gset
ALTER TABLE :mat ALTER hour SET STATISTICS 500, ALTER k SET STORAGE EXTERNAL, ALTER k SET COMPRESSION pglz, ALTER n SET (n_distinct = 17);
SELECT streamext.replace_view('stored', $$SELECT k, streamext.tumble(at, '1 hour') AS hour, count(*) AS n, min(v) AS least FROM ev GROUP BY 2, 1$$);
SELECT streamext.wait_for('stored');
SELECT mat::text <> :'mat' AS replaced FROM streamext.view_def WHERE view = 'stored'::regclass;
SELECT attname, CASE WHEN attstattarget > 0 THEN attstattarget END AS statistics, attstorage, attcompression,
	(SELECT string_agg(o, ' ') FROM unnest(attoptions) o WHERE o LIKE 'n\_distinct%') AS options
	FROM pg_attribute WHERE attrelid = (SELECT mat FROM streamext.view_def WHERE view = 'stored'::regclass) AND attnum > 0 ORDER BY attname;
DROP MATERIALIZED VIEW stored;

-- other strategies, and other streams
SELECT streamext.replace_view('total', 'SELECT v::bigint AS n, v::bigint AS s FROM ev');
SELECT streamext.replace_view('big', 'SELECT at, k, sum(v)::int AS v FROM ev GROUP BY at, k');
SELECT streamext.replace_view('named', 'SELECT k AS name, count(*) AS n FROM names GROUP BY k');
SELECT streamext.wait_for();
SELECT test.check('total'), test.check('big'), test.check('named');
INSERT INTO names VALUES ('c', 'carla');
INSERT INTO ev VALUES ('2026-01-01 05:00Z', 'a', 8), ('2026-01-01 05:00Z', 'a', 9);
SELECT test.check('total'), test.check('big'), test.check('named');
SELECT view, strategy FROM streamext.views ORDER BY view::text;

-- windows: sessions, panes, closed ones only
CREATE MATERIALIZED VIEW visits WITH (streamext.continuous) AS
SELECT k, streamext.session(at, '5 minutes') AS session, count(*) AS n FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW sliding WITH (streamext.continuous) AS
SELECT streamext.hop(at, '10 minutes', '30 minutes') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW closed WITH (streamext.continuous, streamext.emit = 'on_close') AS
SELECT streamext.tumble(at, '1 hour') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE TABLE passed_on (w timestamptz, n bigint);
SELECT streamext.create_sink('closed', 'passed_on', existing => true);
SELECT streamext.create_alert('many', 'sliding', 'n > 100', 'many');
SELECT streamext.flush();
TABLE closed ORDER BY w;
DELETE FROM ev WHERE v BETWEEN 20 AND 30;
REFRESH MATERIALIZED VIEW visits;
REFRESH MATERIALIZED VIEW sliding;
REFRESH MATERIALIZED VIEW closed;
SELECT test.check('sliding');
SELECT * FROM streamext.verify('visits');
TABLE closed ORDER BY w;
SELECT streamext.replace_view('closed', $$SELECT streamext.tumble(at, '1 hour') AS w, count(*) * 10 AS n FROM ev GROUP BY 1$$);
SELECT streamext.wait_for('closed');
INSERT INTO ev SELECT '2026-01-01 06:00Z', 'z', 3 FROM generate_series(1, 120);
SELECT streamext.flush();
TABLE closed ORDER BY w;
TABLE passed_on ORDER BY w, n;
SELECT test.until('SELECT count(*) >= 3 FROM streamext.alerts');
SELECT count(*) FROM streamext.alerts;
SELECT test.check('sliding');
SELECT * FROM streamext.verify('visits');
SELECT streamext.replace_view('sliding', $$SELECT streamext.hop(at, '1 minute', '5 minutes') AS w, count(*) AS n FROM ev GROUP BY 1$$);
SELECT streamext.wait_for('sliding');
SELECT test.check('sliding');

-- refused before anything is built
SELECT streamext.replace_view('hours', 'SELECT k FROM ev');
SELECT streamext.replace_view('hours', $$SELECT k AS key, streamext.tumble(at, '1 hour') AS hour, count(*) AS n, avg(v) AS average, max(v) AS most FROM ev GROUP BY 1, 2$$);
SELECT streamext.replace_view('hours', $$SELECT k, streamext.tumble(at, '1 hour') AS hour, count(*)::int AS n, avg(v) AS average, max(v) AS most FROM ev GROUP BY 1, 2$$);
SELECT streamext.replace_view('hours', $$SELECT k, streamext.tumble(at, '1 hour') AS hour, count(*) AS n, sum(v)::numeric AS average, max(v) AS most FROM ev GROUP BY 1, 2$$);
SELECT streamext.replace_view('closed', 'SELECT now() AS w, count(*) AS n FROM names');
SELECT streamext.replace_view('closed', $$SELECT '2026-01-01'::timestamptz AS w, count(*) AS n FROM names GROUP BY 1$$);
SELECT streamext.replace_view('hours', 'SELECT 1; SELECT 2');
SELECT streamext.replace_view('hours', 'DELETE FROM ev');
SELECT streamext.replace_view('ev', 'SELECT k FROM ev');
SELECT streamext.replace_view(NULL, 'SELECT k FROM ev');
REFRESH MATERIALIZED VIEW hours WITH NO DATA;
SET ROLE regress_replace_reader;
REFRESH MATERIALIZED VIEW hours;
SELECT streamext.replace_view('hours', 'SELECT k FROM ev');
SELECT streamext.cancel_replace('hours');
RESET ROLE;
SELECT count(*) FROM streamext.view_def WHERE replaces IS NOT NULL;

-- while it is built, the view stays what it is; it may be given up, or dropped
BEGIN;
SELECT streamext.replace_view('total', 'SELECT v::bigint AS n, v::bigint + 1 AS s FROM ev');
SELECT streamext.replace_view('total', 'SELECT v::bigint AS n, v::bigint + 2 AS s FROM ev');
ROLLBACK;
BEGIN;
SELECT streamext.replace_view('total', 'SELECT v::bigint AS n, v::bigint + 1 AS s FROM ev');
SAVEPOINT a;
ALTER VIEW total RENAME COLUMN n TO m;
ROLLBACK TO a;
ALTER MATERIALIZED VIEW total SET (streamext.flush_interval = '1s');
ROLLBACK TO a;
CREATE INDEX ON total (n);
ROLLBACK TO a;
REFRESH MATERIALIZED VIEW total;
ROLLBACK TO a;
SELECT view, state FROM streamext.status WHERE view = 'total'::regclass;
SELECT view, phase IS NOT NULL AS phase FROM streamext.backfill_progress;
SELECT streamext.cancel_replace('total');
SELECT streamext.cancel_replace('total');
COMMIT;
SELECT test.check('total');
BEGIN;
SELECT streamext.replace_view('total', 'SELECT v::bigint AS n, v::bigint + 1 AS s FROM ev');
DROP MATERIALIZED VIEW total;
COMMIT;

-- something is in the way that only its owner can remove: the command ends, the replacement waits, the view goes on
CREATE MATERIALIZED VIEW held WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k;
SELECT streamext.wait_for('held');
DO $$ BEGIN EXECUTE format('CREATE VIEW on_the_table AS SELECT * FROM %s', (SELECT mat FROM streamext.view_def WHERE view = 'held'::regclass)); END $$;
\set VERBOSITY terse
REFRESH MATERIALIZED VIEW held;
\set VERBOSITY default
SELECT view, regexp_replace(phase, '\d+', 'N') FROM streamext.backfill_progress;
INSERT INTO ev VALUES ('2026-01-01 07:00Z', 'y', 1);
SELECT streamext.flush();
SELECT * FROM held WHERE k = 'y';
REFRESH MATERIALIZED VIEW held;
DROP VIEW on_the_table;
SELECT streamext.wait_for('held');
SELECT test.check('held');
SELECT count(*) FROM streamext.backfill_progress;
DO $$ BEGIN EXECUTE format('CREATE VIEW on_the_table AS SELECT * FROM %s', (SELECT mat FROM streamext.view_def WHERE view = 'held'::regclass)); END $$;
SELECT streamext.replace_view('held', 'SELECT k, count(*) + 1 AS n FROM ev GROUP BY k');
SELECT test.until($$SELECT phase ~ 'cannot take its place yet' FROM streamext.backfill_progress$$);
SELECT streamext.cancel_replace('held');
SELECT test.check('held');
DROP VIEW on_the_table;

-- a replacement without a view to replace, of a restore that left it out, goes
BEGIN;
SELECT streamext.replace_view('held', 'SELECT k, count(*) + 1 AS n FROM ev GROUP BY k');
UPDATE streamext.view_def SET replaces = 4294967294 WHERE replaces IS NOT NULL;
COMMIT;
SELECT test.until('SELECT count(*) = 0 FROM streamext.view_def WHERE replaces IS NOT NULL');
SELECT relname FROM pg_class WHERE relnamespace = 'streamext'::regnamespace AND relname ~ '^view_[0-9]';
REFRESH MATERIALIZED VIEW held;
SELECT test.check('held');
DROP MATERIALIZED VIEW held;

-- rows that fail are dead letters, as for a new view
SELECT streamext.replace_view('big', 'SELECT at, k, v / (v - v) AS v FROM ev');
SELECT streamext.wait_for('big');
SELECT count(*) > 0 AS letters FROM streamext.dead_letters WHERE view = 'big'::regclass;
SELECT count(*) FROM big;

-- what the owner has written runs as the owner, whoever rebuilds
GRANT SELECT ON ev TO regress_replace_reader;
CREATE SCHEMA theirs AUTHORIZATION regress_replace_reader;
SET ROLE regress_replace_reader;
CREATE FUNCTION theirs.spy(i int) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS
'BEGIN IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN RAISE EXCEPTION ''as %'', current_user; END IF; RETURN i; END';
CREATE MATERIALIZED VIEW theirs.spied WITH (streamext.continuous) AS SELECT k, sum(v + theirs.spy(0)) + theirs.spy(1) AS s FROM ev GROUP BY k;
CREATE INDEX spied_s ON theirs.spied (s);
RESET ROLE;
REFRESH MATERIALIZED VIEW theirs.spied;
SELECT streamext.replace_view('theirs.spied', 'SELECT k, sum(v + theirs.spy(0)) + theirs.spy(2) AS s FROM ev GROUP BY k');
SELECT streamext.wait_for('theirs.spied');
SELECT c.relname, c.relowner::regrole FROM streamext.view_def d, LATERAL (VALUES (d.view), (d.query), (d.mat)) r(oid) JOIN pg_class c ON c.oid = r.oid
	WHERE d.view = 'theirs.spied'::regclass AND c.relowner <> 'regress_replace_reader'::regrole;

-- while a partition is away, and when it has come back
CREATE TABLE parts (k int NOT NULL, v int) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 (v int, gone int, k int NOT NULL);
ALTER TABLE parts_2 DROP COLUMN gone;
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2);
CREATE MATERIALIZED VIEW of_parts WITH (streamext.continuous) AS SELECT k, count(*) AS n, avg(v)::int AS a FROM parts GROUP BY k;
INSERT INTO parts SELECT 1 + i % 2, i FROM generate_series(1, 100) i;
SELECT test.check('of_parts');
ALTER TABLE parts DETACH PARTITION parts_2;
INSERT INTO parts_2 (k, v) SELECT 2, i FROM generate_series(1, 10) i;
SELECT streamext.wait_for('of_parts');
TABLE of_parts ORDER BY k;
REFRESH MATERIALIZED VIEW of_parts;
TABLE of_parts ORDER BY k;
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2);
SELECT test.check('of_parts');
BEGIN;
SELECT streamext.replace_view('of_parts', 'SELECT k, count(v) AS n, avg(v)::int AS a, max(v) AS m FROM parts GROUP BY k');
ALTER TABLE parts DETACH PARTITION parts_1;
COMMIT;
SELECT streamext.wait_for('of_parts');
SELECT test.check('of_parts');
TABLE of_parts ORDER BY k;
DROP TABLE parts CASCADE;
DROP TABLE parts_1;

DROP TABLE ev, names CASCADE;
DROP SCHEMA theirs CASCADE;
DROP ROLE regress_replace_reader;
SELECT relname FROM pg_class WHERE relnamespace = 'streamext'::regnamespace AND relname ~ '^(mat|query|view)_[0-9]';
