-- CALL streamext.backfill(): windows computed anew from the raw rows, while new rows come in.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include
-- how long each part took, and so how many there are, depends on the machine
SET client_min_messages = warning;

CREATE TABLE ev (at timestamptz NOT NULL, day date NOT NULL, local timestamp NOT NULL, id bigint NOT NULL, k text, v int NOT NULL);
CREATE FUNCTION rows_of(first int, last int) RETURNS SETOF ev LANGUAGE sql AS $$
	SELECT t, (t AT TIME ZONE 'UTC')::date, t AT TIME ZONE 'UTC', i * 60, 'k' || i % 3, i FROM generate_series(first, last) i, LATERAL (SELECT '2026-01-01Z'::timestamptz + i * interval '1 minute') m(t) $$;
SELECT streamext.create_stream('ev', event_time => 'at', late_rows => 'dead_letter');
INSERT INTO ev SELECT * FROM rows_of(0, 2879);
CREATE MATERIALIZED VIEW hours WITH (streamext.continuous) AS
SELECT streamext.tumble(at, '1 hour') AS hour, k, count(*) AS n, sum(v) AS s FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW days WITH (streamext.continuous) AS
SELECT (at AT TIME ZONE 'UTC')::date AS day, count(*) AS n, avg(v) AS a FROM ev GROUP BY 1 HAVING count(*) > 0;
CREATE MATERIALIZED VIEW overlapping WITH (streamext.continuous) AS
SELECT streamext.hop(at, '30 minutes', '2 hours') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev;
CREATE MATERIALIZED VIEW visits WITH (streamext.continuous) AS SELECT streamext.session(at, '5 minutes') AS s, count(*) AS n FROM ev GROUP BY 1;
SELECT streamext.wait_for();

-- the raw rows are repaired; so are the windows that are named, and no others
UPDATE ev SET v = v + 10000 WHERE v BETWEEN 60 AND 70;
DELETE FROM ev WHERE v BETWEEN 600 AND 660;
DELETE FROM ev WHERE v BETWEEN 1500 AND 1510;
CALL streamext.backfill('hours', '2026-01-01 01:00Z', '2026-01-01 02:00Z');
SELECT hour, sum(n) AS n, sum(s) AS s FROM hours WHERE hour IN ('2026-01-01 01:00Z', '2026-01-01 10:00Z', '2026-01-02 01:00Z') GROUP BY 1 ORDER BY 1;
CALL streamext.backfill('hours', '2026-01-01', '2026-01-02 01:30Z');
SELECT test.check('hours');
INSERT INTO ev SELECT * FROM rows_of(2880, 2890);
SELECT test.check('hours');
CALL streamext.backfill('days', '2026-01-01', '2026-01-10');
SELECT test.check('days');
CALL streamext.backfill('overlapping', '2025-12-31 23:00Z'::timestamptz, '2026-01-02 12:00Z'::timestamptz);
SELECT test.check('overlapping');
-- in a transaction all of it, or nothing
BEGIN;
DELETE FROM ev WHERE v = 2000;
CALL streamext.backfill('hours', '2026-01-01', '2026-01-05');
SELECT sum(n) FROM hours;
ROLLBACK;
SELECT test.check('hours');

BEGIN;
CALL streamext.backfill('hours', '2026-01-01', '2026-01-02');
CALL streamext.backfill('hours', '2026-01-01', '2026-01-05');
COMMIT;
SELECT test.check('hours');
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL streamext.backfill('hours', '2026-01-01', '2026-01-02');
ROLLBACK;

-- late rows are counted then, and are dead letters no more
INSERT INTO ev VALUES ('2026-01-01 03:05Z', '2026-01-01', '2026-01-01 03:05', 1, 'k1', 5), ('2026-01-01 20:05Z', '2026-01-01', '2026-01-01 20:05', 1, 'k1', 5);
SELECT streamext.flush();
SELECT view, count(*) FROM streamext.dead_letters GROUP BY 1 ORDER BY view::text;
CALL streamext.backfill('hours', '2026-01-01 03:00Z', '2026-01-01 04:00Z');
SELECT view, count(*) FROM streamext.dead_letters GROUP BY 1 ORDER BY view::text;
CALL streamext.backfill('hours', '2026-01-01 20:00Z', '2026-01-01 21:00Z');
SELECT test.check('hours');
-- one of several windows is counted in all of them, or in those that were named if that is what is wanted
CALL streamext.backfill('overlapping', '2026-01-01 02:00Z', '2026-01-01 04:00Z');
CALL streamext.backfill('overlapping', '2026-01-01 01:00Z', '2026-01-01 02:00Z');
CALL streamext.backfill('overlapping', '2026-01-01 01:30Z', '2026-01-01 03:30Z');
SELECT count(*) FROM streamext.dead_letters WHERE view = 'overlapping'::regclass;
CALL streamext.backfill('overlapping', '2026-01-01 19:00Z', '2026-01-01 20:00Z', force => true);
SELECT count(*) FROM streamext.dead_letters WHERE view = 'overlapping'::regclass;
CALL streamext.backfill('overlapping', '2026-01-01 00:00Z', '2026-01-02 00:00Z');
SELECT test.check('overlapping');

-- so are rows that failed, and do not any more
CREATE FUNCTION checked(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 100 / (v - 3000); END';
CREATE MATERIALIZED VIEW checked WITH (streamext.continuous) AS SELECT streamext.tumble(at, '1 hour') AS hour, sum(checked(v)) AS s, count(*) AS n FROM ev GROUP BY 1;
SELECT streamext.wait_for();
INSERT INTO ev SELECT * FROM rows_of(2999, 3001);
SELECT streamext.flush();
SELECT count(*) FROM streamext.dead_letters WHERE view = 'checked'::regclass;
CREATE OR REPLACE FUNCTION checked(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
CALL streamext.backfill('checked', '2026-01-01', '2026-01-05');
SELECT count(*) FROM streamext.dead_letters WHERE view = 'checked'::regclass;
SELECT streamext.retry_dead_letters('checked');
SELECT test.check('checked');
DROP MATERIALIZED VIEW checked;

-- rows that fail the stream's condition, or make it fail, are left out again, and are the dead letters then
CREATE TABLE paid (at bigint NOT NULL, v int);
SELECT streamext.create_stream('paid', event_time => 'at', late_rows => 'dead_letter', valid => '100 / v > 0');
CREATE MATERIALIZED VIEW tens WITH (streamext.continuous) AS SELECT streamext.tumble(at, 10) AS w, count(*) AS n, sum(v) AS s FROM paid GROUP BY 1;
INSERT INTO paid VALUES (1, 5), (2, -5), (3, 0), (4, 7), (15, 0);
SELECT streamext.flush();
DELETE FROM paid WHERE at = 4;
CALL streamext.backfill('tens', 0, 20);
TABLE tens;
SELECT "row", reason, sqlstate, message FROM streamext.dead_letters WHERE view = 'tens'::regclass ORDER BY id;
SELECT streamext.retry_dead_letters('tens');
SELECT "row", reason, sqlstate, message FROM streamext.dead_letters WHERE view = 'tens'::regclass ORDER BY id;
-- those that are there keep their numbers; of rows alike there are as many; gone: rows that were deleted, or corrected; back: one that was repaired, but not in the table
CREATE MATERIALIZED VIEW twenties WITH (streamext.continuous) AS SELECT streamext.hop(at, 10, 20) AS w, count(*) AS n, sum(v) AS s FROM paid GROUP BY 1;
INSERT INTO paid VALUES (5, -1), (5, -1), (5, -1), (6, -6), (7, -7), (8, -8), (21, -21);
SELECT streamext.flush();
CREATE TEMP TABLE before AS SELECT * FROM streamext.dead_letters;
UPDATE paid SET v = 6 WHERE at = 6;
UPDATE paid SET v = -1 WHERE at = 1;
DELETE FROM paid WHERE at = 7 OR ctid = (SELECT min(ctid) FROM paid WHERE at = 5);
SELECT streamext.repair_dead_letter(id, '{"at": 8, "v": 8}') FROM streamext.dead_letters WHERE view = 'tens'::regclass AND "row" ->> 'at' = '8';
SELECT streamext.retry_dead_letters('tens');
CALL streamext.backfill('tens', 0, 10);
CALL streamext.backfill('twenties', -10, 10);
SELECT l.view, l."row", b.id IS NOT NULL AS was_there, l.reason, l.sqlstate, l.message FROM streamext.dead_letters l LEFT JOIN before b USING (id) ORDER BY l.view::text, l."row" -> 'at', 3 DESC;
TABLE tens ORDER BY 1;
TABLE twenties ORDER BY 1;
SELECT * FROM streamext.verify('tens');
-- with another condition they are counted; not only in some windows, if nobody wants that
SELECT streamext.alter_stream('paid', valid => 'v < 0 OR 100 / v > 0');
CALL streamext.backfill('twenties', 10, 30);
CALL streamext.backfill('twenties', -10, 0);
CALL streamext.backfill('twenties', -10, 30);
CALL streamext.backfill('tens', 0, 30);
SELECT view, "row", reason FROM streamext.dead_letters ORDER BY view::text, id;
SELECT streamext.retry_dead_letters('tens'), streamext.retry_dead_letters('twenties');
SELECT * FROM streamext.verify('tens');
SELECT * FROM streamext.verify('twenties');
-- without one, all are
SELECT streamext.alter_stream('paid', valid => '');
CALL streamext.backfill('tens', 0, 30);
CALL streamext.backfill('twenties', -10, 30);
SELECT count(*) FROM streamext.dead_letters;
DROP TABLE paid CASCADE;

-- every kind of time; windows before all rows, after them, and around
CREATE TABLE ev_day (LIKE ev INCLUDING ALL);
CREATE TABLE ev_local (LIKE ev INCLUDING ALL);
CREATE TABLE ev_id (LIKE ev INCLUDING ALL);
SELECT streamext.create_stream('ev_day', event_time => 'day'), streamext.create_stream('ev_local', event_time => 'local'), streamext.create_stream('ev_id', event_time => 'id');
INSERT INTO ev_day SELECT * FROM rows_of(0, 9999);
INSERT INTO ev_local SELECT * FROM rows_of(0, 9999);
INSERT INTO ev_id SELECT * FROM rows_of(-5000, 5000);
CREATE MATERIALIZED VIEW months WITH (streamext.continuous) AS SELECT date_trunc('month', day::timestamp) AS m, count(*) AS n FROM ev_day GROUP BY 1;
CREATE MATERIALIZED VIEW weeks WITH (streamext.continuous) AS SELECT streamext.tumble(day, '7 days') AS w, count(*) AS n FROM ev_day GROUP BY 1;
CREATE MATERIALIZED VIEW halves WITH (streamext.continuous) AS SELECT streamext.tumble(local, '12 hours') AS w, k, max(v) AS m FROM ev_local GROUP BY 1, 2;
CREATE MATERIALIZED VIEW thousands WITH (streamext.continuous) AS SELECT streamext.tumble(id, 1000) AS w, count(*) AS n FROM ev_id GROUP BY 1;
SELECT streamext.wait_for();
DELETE FROM ev_day WHERE v % 7 = 0;
DELETE FROM ev_local WHERE v % 7 = 0;
DELETE FROM ev_id WHERE v % 7 = 0;
CALL streamext.backfill('months', '-infinity', 'infinity');
CALL streamext.backfill('weeks', '2000-01-01'::date, '2030-01-01'::date);
CALL streamext.backfill('halves', '2026-01-01', '2030-01-01');
CALL streamext.backfill('thousands', -9223372036854775807, 9223372036854775807);
CALL streamext.backfill('thousands', '1000000', '2000000');
SELECT test.check('months'), test.check('weeks'), test.check('halves'), test.check('thousands');
-- from the first times that there are
CREATE TABLE ancient (at timestamptz NOT NULL, v int NOT NULL);
SELECT streamext.create_stream('ancient', event_time => 'at');
CREATE MATERIALIZED VIEW ages WITH (streamext.continuous) AS SELECT streamext.tumble(at, '1 month', 'UTC') AS w, sum(v) AS s FROM ancient GROUP BY 1;
INSERT INTO ancient SELECT t, 1 FROM unnest(ARRAY['4713-11-24 00:00Z BC', '4713-12-01 BC', '4000-01-01 BC', '3703-01-01 BC', '3703-02-01 BC', '3000-01-01 BC', '2026-01-01']::timestamptz[]) t;
SELECT streamext.flush();
UPDATE ancient SET v = 2;
CALL streamext.backfill('ages', '4713-12-01 00:00Z BC', '3703-01-01 00:00Z BC');
SELECT w, s FROM ages ORDER BY 1;
CALL streamext.backfill('ages', '3703-01-01 00:00Z BC', '2027-01-01 00:00Z');
SELECT w, s FROM ages ORDER BY 1;
CALL streamext.backfill('ages', '4713-11-01 00:00Z BC', '4713-12-01 00:00Z BC');
SELECT test.check('ages');
DROP TABLE ancient CASCADE;

-- what is not to be had
RESET client_min_messages;
CALL streamext.backfill('total', '2026-01-01', '2026-01-02');
CALL streamext.backfill('visits', '2026-01-01', '2026-01-02');
CALL streamext.backfill('hours', '2026-01-02', '2026-01-02');
CALL streamext.backfill('hours', 'soon', '2026-01-02');
CALL streamext.backfill('hours', NULL::text, '2026-01-02');
CALL streamext.backfill('ev', '2026-01-01', '2026-01-02');
CALL streamext.backfill('hours', 5, 6);
CREATE ROLE regress_recompute;
GRANT SELECT ON hours TO regress_recompute;
SET ROLE regress_recompute;
CALL streamext.backfill('hours', '2026-01-01', '2026-01-02');
RESET ROLE;
BEGIN READ ONLY;
CALL streamext.backfill('hours', '2026-01-01', '2026-01-02');
ROLLBACK;
CREATE MATERIALIZED VIEW failing WITH (streamext.continuous) AS SELECT streamext.tumble(at, '1 hour') AS hour, sum(1000 / v) AS s FROM ev GROUP BY 1;
SELECT streamext.wait_for('failing');
CALL streamext.backfill('failing', '2026-01-01 00:00Z', '2026-01-01 01:00Z');

-- where raw rows have expired, what the view has of them is kept
DROP MATERIALIZED VIEW failing;
SET client_min_messages = warning;
CALL streamext.expire('ev', timestamptz '2026-01-01 12:00Z');
CALL streamext.backfill('hours', '2026-01-01 11:00Z', '2026-01-01 13:00Z');
CALL streamext.backfill('hours', '2026-01-01 12:00Z', '2026-01-01 13:00Z');
REFRESH MATERIALIZED VIEW hours;
SELECT streamext.replace_view('hours', $$SELECT streamext.tumble(at, '1 hour') AS hour, k, count(*) AS n, sum(v) + 1 AS s FROM ev GROUP BY 1, 2$$);
SELECT min(hour) FROM hours;
CALL streamext.backfill('hours', '2026-01-01 11:00Z', '2026-01-01 13:00Z', force => true);
SELECT count(*) FILTER (WHERE hour = '2026-01-01 11:00Z') AS gone, count(*) FILTER (WHERE hour = '2026-01-01 09:00Z') AS kept FROM hours;
SELECT streamext.replace_view('hours', $$SELECT streamext.tumble(at, '1 hour') AS hour, k, count(*) AS n, sum(v) + 1 AS s FROM ev GROUP BY 1, 2$$, force => true);
SELECT streamext.wait_for('hours');
SELECT min(hour) FROM hours;

DROP TABLE ev, ev_day, ev_local, ev_id CASCADE;
DROP ROLE regress_recompute;
