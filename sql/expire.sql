-- CALL streamext.expire(): raw rows go when all views have them, views keep their history
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include
\set VERBOSITY default

-- what cannot be
CREATE TABLE plain (v int);
CALL streamext.expire('plain', interval '1 day');
SELECT streamext.create_stream('plain');
CALL streamext.expire('plain', interval '1 day');
CREATE TABLE ev (id int, ts timestamptz NOT NULL, k text, v int);
SELECT streamext.create_stream('ev', event_time => 'ts', allowed_lateness => '1 minute');
CALL streamext.expire('ev', interval '-1 day');
CALL streamext.expire('ev', interval '0');
CALL streamext.expire('ev', 5::bigint);
CALL streamext.expire('ev', timestamptz 'infinity');
CALL streamext.expire('ev', NULL::interval);
CALL streamext.expire('ev', interval '1 day', batch_rows => 0);
BEGIN;
CALL streamext.expire('ev', interval '1 day');
ROLLBACK;
DO $$ BEGIN CALL streamext.expire('ev', interval '1 day'); EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLERRM; END $$;
SELECT stream, expired_until FROM streamext.streams ORDER BY stream::text;

-- rows, in batches; windows, sessions, sinks
CREATE MATERIALIZED VIEW by_hour WITH (streamext.continuous) AS
SELECT k, streamext.tumble(ts, '1 hour') AS w, count(*) AS n, sum(v) AS s FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW sessions WITH (streamext.continuous) AS
SELECT k, streamext.session(ts, '30 minutes') AS w, count(*) AS n FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev;
CREATE TABLE closed (k text, w timestamptz, n bigint, s bigint);
SELECT streamext.create_sink('by_hour', 'closed');
INSERT INTO ev SELECT i, timestamptz '2026-01-01 00:00Z' + i * interval '1 minute', 'k' || i % 3, i FROM generate_series(0, 2879) i;
SELECT streamext.flush();
CREATE TABLE before AS SELECT * FROM by_hour;
CREATE TABLE sessions_before AS SELECT * FROM sessions;
SELECT count(*) FROM closed;
-- back from the watermark, which is before the clock
CALL streamext.expire('ev', interval '1 day', batch_rows => 100);
SELECT count(*), min(ts) FROM ev;
SELECT stream, expired_until FROM streamext.streams WHERE stream = 'ev'::regclass;
SELECT * FROM by_hour EXCEPT SELECT * FROM before;
SELECT * FROM before EXCEPT SELECT * FROM by_hour;
SELECT * FROM sessions_before EXCEPT SELECT * FROM sessions;
SELECT n FROM total;
SELECT count(*) FROM closed;
SELECT * FROM streamext.verify('by_hour');
SELECT source FROM streamext.verify('total');
-- again, nothing is left; new rows count
CALL streamext.expire('ev', interval '1 day');
INSERT INTO ev VALUES (-1, '2026-01-01 05:00Z', 'k0', 1), (-2, '2026-01-03 00:00Z', 'k0', 1);
SELECT streamext.flush();
SELECT (SELECT n FROM total), (SELECT n FROM by_hour WHERE w = '2026-01-01 05:00Z' AND k = 'k0');
SELECT count(*) FROM streamext.verify('by_hour');
-- the limit moves forward only, and stays when the declaration changes
CALL streamext.expire('ev', timestamptz '2026-01-01 06:00Z');
SELECT expired_until FROM streamext.streams WHERE stream = 'ev'::regclass;
SELECT streamext.alter_stream('ev', watermark_delay => '1 minute');
SELECT expired_until FROM streamext.streams WHERE stream = 'ev'::regclass;
CALL streamext.expire('ev', timestamptz '2030-01-01');
SELECT count(*) FROM ev;
SELECT (SELECT sum(n) FROM by_hour), (SELECT n FROM total);
-- views that have not read: paused, WITH NO DATA
SELECT streamext.pause('total');
INSERT INTO ev VALUES (-3, '2026-01-04 00:00Z', 'k0', 1);
CALL streamext.expire('ev', timestamptz '2030-01-01');
SELECT count(*) FROM ev;
SELECT streamext.resume('total');
CREATE MATERIALIZED VIEW nodata WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev WITH NO DATA;
INSERT INTO ev VALUES (-4, '2026-01-04 00:00Z', 'k0', 1);
CALL streamext.expire('ev', timestamptz '2030-01-01');
SELECT (SELECT n FROM nodata), (SELECT n FROM total), (SELECT count(*) FROM ev);
SELECT test.check('nodata', 'SELECT 1::bigint');
DROP TABLE ev CASCADE;

-- partitions: whole ones are dropped or detached; rows of the one in which the limit lies are deleted
CREATE TABLE parts (a int, ts date NOT NULL, k text) PARTITION BY RANGE (ts);
CREATE TABLE p01 PARTITION OF parts FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE p02 (k text, ts date NOT NULL, gone int, a int);
ALTER TABLE p02 DROP COLUMN gone;
ALTER TABLE parts ATTACH PARTITION p02 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE p03 PARTITION OF parts FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY LIST (k);
CREATE TABLE p03a PARTITION OF p03 FOR VALUES IN ('a');
CREATE TABLE p03b PARTITION OF p03 DEFAULT;
CREATE TABLE p04 PARTITION OF parts FOR VALUES FROM ('2026-03-01') TO ('2026-04-01') PARTITION BY RANGE (ts, a);
CREATE TABLE p04a PARTITION OF p04 FOR VALUES FROM ('2026-03-01', 0) TO ('2026-03-10', 10);
CREATE TABLE p04b PARTITION OF p04 FOR VALUES FROM ('2026-03-10', 10) TO ('2026-04-01', 0);
CREATE TABLE p05 PARTITION OF parts DEFAULT;
SELECT streamext.create_stream('parts', event_time => 'ts');
CREATE MATERIALIZED VIEW by_day WITH (streamext.continuous) AS SELECT k, streamext.tumble(ts, '1 day') AS d, count(*) AS n FROM parts GROUP BY 1, 2;
SELECT streamext.create_stream('p03', event_time => 'ts');
CREATE MATERIALIZED VIEW of_one WITH (streamext.continuous) AS SELECT count(*) AS n FROM p03;
INSERT INTO parts SELECT 5, date '2025-12-15' + i, CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END FROM generate_series(0, 120) i;
SELECT streamext.flush();
CREATE TABLE days_before AS SELECT * FROM by_day;
CALL streamext.expire('parts', timestamptz '2026-01-01');
CALL streamext.expire('parts', timestamptz '2026-02-10 12:00', detach => true);
SELECT tableoid::regclass, count(*), min(ts) FROM parts GROUP BY 1 ORDER BY tableoid::regclass::text;
SELECT count(*) FROM p02;
SELECT stream, expired_until AT TIME ZONE 'UTC' AS expired_until FROM streamext.streams WHERE expired_until IS NOT NULL ORDER BY stream::text;
-- p03 goes as a whole, but for its view
CALL streamext.expire('parts', timestamptz '2026-03-05');
SELECT tableoid::regclass, count(*), min(ts) FROM parts GROUP BY 1 ORDER BY tableoid::regclass::text;
DROP VIEW of_one;
CALL streamext.expire('parts', timestamptz '2026-03-10');
SELECT tableoid::regclass, count(*), min(ts) FROM parts GROUP BY 1 ORDER BY tableoid::regclass::text;
CALL streamext.expire('parts', timestamptz '2026-03-11');
SELECT tableoid::regclass, count(*), min(ts) FROM parts GROUP BY 1 ORDER BY tableoid::regclass::text;
SELECT * FROM by_day EXCEPT SELECT * FROM days_before;
SELECT * FROM days_before EXCEPT SELECT * FROM by_day;
SELECT * FROM streamext.verify('by_day');
INSERT INTO parts VALUES (1, '2026-03-25', 'a'), (1, '2026-05-01', 'a');
SELECT * FROM streamext.verify('by_day');
SELECT n FROM by_day WHERE d = '2026-03-25' ORDER BY k;

-- numbers; without views
CREATE TABLE counted (n bigint NOT NULL, v int);
SELECT streamext.create_stream('counted', event_time => 'n');
INSERT INTO counted SELECT i FROM generate_series(1, 1000) i;
CALL streamext.expire('counted', interval '1 day');
CALL streamext.expire('counted', 500);
SELECT count(*), min(n) FROM counted;
SELECT expired_until, expired_until_number FROM streamext.streams WHERE stream = 'counted'::regclass;

-- rights: as DELETE, and DROP
CREATE ROLE expire_alice;
CREATE ROLE expire_bob;
GRANT CREATE ON SCHEMA public TO expire_alice;
SET ROLE expire_alice;
CREATE TABLE hers (ts timestamptz NOT NULL) PARTITION BY RANGE (ts);
CREATE TABLE hers1 PARTITION OF hers FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE hers2 PARTITION OF hers DEFAULT;
SELECT streamext.create_stream('hers', event_time => 'ts');
INSERT INTO hers VALUES ('2026-01-02'), ('2026-02-02'), ('2026-03-02');
SET ROLE expire_bob;
CALL streamext.expire('hers', timestamptz '2026-02-15');
RESET ROLE;
GRANT SELECT, DELETE ON hers, hers1, hers2 TO expire_bob;
SET ROLE expire_bob;
CALL streamext.expire('hers', timestamptz '2026-02-15');
SET ROLE expire_alice;
SELECT tableoid::regclass, count(*) FROM hers GROUP BY 1;
CALL streamext.expire('hers', timestamptz '2026-02-15');
RESET ROLE;
DROP OWNED BY expire_alice, expire_bob CASCADE;
DROP ROLE expire_alice, expire_bob;
DROP TABLE parts, counted, plain CASCADE;
DROP SCHEMA test CASCADE;
