-- Rows for windows that are closed: merged, dropped or dead letters, and always counted.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE FUNCTION counts() RETURNS TABLE (view regclass, rows_consumed int8, late_rows int8, dropped_rows int8, dead_letters int8) LANGUAGE sql AS
$$ SELECT s.view, s.rows_consumed, s.late_rows, s.dropped_rows, s.dead_letters FROM streamext.status s ORDER BY s.view::text $$;

CREATE TABLE ev (ts timestamptz NOT NULL, k text, v int);
SELECT streamext.create_stream('ev', event_time => 'ts', watermark_delay => '5 seconds');
CREATE MATERIALIZED VIEW by_min WITH (streamext.continuous) AS
SELECT k, streamext.tumble(ts, '1 minute') AS w, count(*) AS n, sum(v) AS s FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW by_hour WITH (streamext.continuous) AS
SELECT date_trunc('hour', ts) AS w, count(*) AS n FROM ev WHERE v > 0 GROUP BY 1;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW rows WITH (streamext.continuous) AS SELECT ts, k FROM ev;
SELECT streamext.wait_for();

-- merge, the default: late rows count, and are counted
INSERT INTO ev VALUES ('2024-01-01 10:00:30Z', 'a', 1);
SELECT streamext.wait_for();
INSERT INTO ev VALUES ('2024-01-01 10:01:04Z', 'a', 1), ('2024-01-01 10:00:01Z', 'a', 1);
SELECT streamext.wait_for();
-- 10:00:59 now: nothing is late until the window's end
INSERT INTO ev VALUES ('2024-01-01 10:00:02Z', 'a', 1);
SELECT streamext.wait_for();
SELECT * FROM counts();
-- one transaction is judged as a whole, by what was before it
INSERT INTO ev VALUES ('2024-01-01 10:05:00Z', 'a', 1), ('2024-01-01 10:00:03Z', 'a', 1);
SELECT streamext.wait_for();
SELECT * FROM counts();
INSERT INTO ev VALUES ('2024-01-01 10:00:04Z', 'a', 1), ('2024-01-01 09:59:59Z', 'a', -1);
SELECT streamext.wait_for();
SELECT * FROM counts();
SELECT * FROM test.check_all();

-- drop: for closed windows only; the hour is open, and views without windows take all
SELECT streamext.alter_stream('ev', late_rows => 'drop');
INSERT INTO ev VALUES ('2024-01-01 10:00:05Z', 'dropped', 1), ('2024-01-01 10:04:56Z', 'b', 1), ('2024-01-01 08:00:00Z', 'dropped', -1), ('-infinity', 'dropped', -1);
SELECT streamext.wait_for();
SELECT * FROM counts();
SELECT k, w, n FROM by_min ORDER BY 1, 2;
SELECT w, n FROM by_hour ORDER BY 1;
SELECT test.check('by_min', $$SELECT k, streamext.tumble(ts, '1 minute'), count(*), sum(v) FROM ev WHERE k <> 'dropped' GROUP BY 1, 2$$);
SELECT test.check('total'), test.check('rows');

-- among many, in one transaction or several, and in one that is computed while it is open
INSERT INTO ev SELECT timestamptz '2024-01-01 10:06Z' + i * interval '1 millisecond',
	CASE WHEN i % 10 = 0 THEN 'dropped' ELSE 'many' END, i FROM generate_series(1, 3000) i WHERE i % 10 <> 0;
SELECT streamext.wait_for();
INSERT INTO ev SELECT CASE WHEN i % 10 = 0 THEN timestamptz '2024-01-01 10:01Z' ELSE '2024-01-01 10:06Z' END + i * interval '1 millisecond',
	CASE WHEN i % 10 = 0 THEN 'dropped' ELSE 'many' END, i FROM generate_series(1, 30000) i;
SELECT streamext.wait_for();
SELECT * FROM counts() WHERE view = 'by_min'::regclass;
SELECT test.check('by_min', $$SELECT k, streamext.tumble(ts, '1 minute'), count(*), sum(v) FROM ev WHERE k <> 'dropped' GROUP BY 1, 2$$);
SELECT test.check('total');

-- allowed_lateness keeps windows open for longer
SELECT streamext.alter_stream('ev', allowed_lateness => '10 minutes');
INSERT INTO ev VALUES ('2024-01-01 10:00:06Z', 'c', 1);
SELECT streamext.wait_for();
SELECT * FROM counts() WHERE view = 'by_min'::regclass;
SELECT k, w, n, streamext.is_final('by_min', w) FROM by_min WHERE k = 'c';
SELECT streamext.alter_stream('ev', allowed_lateness => '0');
SELECT k, w, n, streamext.is_final('by_min', w) FROM by_min WHERE k = 'c';

-- dead letters: each row once, with what was wrong; those that fail are told apart
SELECT streamext.alter_stream('ev', late_rows => 'dead_letter');
CREATE MATERIALIZED VIEW ratios WITH (streamext.continuous) AS
SELECT streamext.tumble(ts, '1 minute') AS w, count(*) AS n, sum(10 / v) AS s FROM ev WHERE k ~ '^d' AND k <> 'dropped' GROUP BY 1;
SELECT streamext.wait_for();
INSERT INTO ev VALUES ('2024-01-01 10:00:07Z', 'd', 1), ('2024-01-01 10:06:40Z', 'd', 2), ('2024-01-01 10:06:41Z', 'd', 0),
	('2024-01-01 10:00:08Z', 'd', 0), ('2024-01-01 10:00:09Z', 'x', 1);
SELECT streamext.wait_for();
SELECT * FROM counts() WHERE view IN ('by_min'::regclass, 'ratios'::regclass);
SELECT streamext.flush();
SELECT view, "row" ->> 'ts' AS ts, "row" ->> 'k' AS k, reason, sqlstate, message FROM streamext.dead_letters ORDER BY view::text, ts;
SELECT k, w, n, s FROM by_min WHERE k IN ('d', 'x') ORDER BY 1, 2;
SELECT w, n, s FROM ratios ORDER BY 1;

-- a view that stood still is not late when it goes on
SELECT streamext.alter_stream('ev', late_rows => 'drop');
SELECT streamext.flush();
SELECT streamext.pause('by_min');
SELECT test.until($$SELECT count(*) = 1 FROM streamext.status WHERE view = 'by_min'::regclass AND reason ~ '^paused'$$);
INSERT INTO ev VALUES ('2024-01-01 10:07:00Z', 'e', 1);
INSERT INTO ev VALUES ('2024-01-01 10:30:00Z', 'e', 1);
INSERT INTO ev VALUES ('2024-01-01 10:07:30Z', 'e', 1);
SELECT streamext.wait_for('total');
SELECT watermark, watermark_held_by FROM streamext.status WHERE view = 'by_min'::regclass;
SELECT streamext.resume('by_min');
SELECT streamext.wait_for('by_min');
SELECT k, w, n FROM by_min WHERE k = 'e' ORDER BY 1, 2;
SELECT watermark, watermark_held_by FROM streamext.status WHERE view = 'by_min'::regclass;

-- windows that overlap: a row counts for those that are open
DROP MATERIALIZED VIEW by_min, by_hour, total, rows, ratios;
DELETE FROM ev;
CREATE MATERIALIZED VIEW hops WITH (streamext.continuous) AS
SELECT streamext.hop(ts, '1 minute', '5 minutes') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW steps WITH (streamext.continuous) AS
SELECT streamext.cumulate(ts, '1 minute', '5 minutes') AS w, count(*) AS n FROM ev GROUP BY 1;
SELECT streamext.wait_for();
INSERT INTO ev VALUES ('2024-01-01 10:00:30Z', 'a', 1), ('2024-01-01 10:02:05Z', 'a', 1);
SELECT streamext.wait_for();
INSERT INTO ev VALUES ('2024-01-01 10:00:40Z', 'a', 1);
INSERT INTO ev VALUES ('2024-01-01 09:40:00Z', 'a', 1);
SELECT streamext.wait_for();
SELECT streamext.flush();
SELECT w, n, streamext.is_final('hops', w) FROM hops ORDER BY 1;
SELECT w, n, streamext.is_final('steps', w) FROM steps ORDER BY 1;
SELECT * FROM counts();

-- emit = on_close: a view shows a window when it has closed and that is stored, and then does not change any more
CREATE MATERIALIZED VIEW closed WITH (streamext.continuous, streamext.emit = 'on_close') AS
SELECT streamext.tumble(ts, '1 minute') AS w, count(*) AS n, avg(v) AS a FROM ev GROUP BY 1 HAVING count(*) > 0;
SELECT streamext.flush();
SELECT * FROM closed ORDER BY 1;
INSERT INTO ev VALUES ('2024-01-01 10:02:30Z', 'a', 3), ('2024-01-01 10:03:04Z', 'a', 3);
SELECT streamext.flush();
SELECT * FROM closed ORDER BY 1;
INSERT INTO ev VALUES ('2024-01-01 10:03:05Z', 'a', 3);
SELECT streamext.flush();
SELECT * FROM closed ORDER BY 1;
INSERT INTO ev VALUES ('2024-01-01 10:02:31Z', 'a', 3);
SELECT streamext.flush();
SELECT * FROM closed ORDER BY 1;
-- a transaction that repeats its reads sees what was stored
SELECT streamext.flush();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*), max(w) FROM closed;
COMMIT;
SELECT options FROM streamext.views WHERE view = 'closed'::regclass;
SELECT test.mask(pg_get_viewdef('closed'));
ALTER MATERIALIZED VIEW closed SET (streamext.emit = 'changes');
SELECT count(*), max(w) FROM closed;
SELECT test.mask(pg_get_viewdef('closed'));
ALTER MATERIALIZED VIEW closed SET (streamext.emit = 'on_close');
SELECT count(*), max(w) FROM closed;
SELECT test.mask(pg_get_viewdef('closed'));
-- what was dropped is a difference; that not all is shown is none
SELECT source, "row" ->> 'w' AS w FROM streamext.verify('closed');
ALTER MATERIALIZED VIEW closed RESET (streamext.emit);
SELECT count(*), max(w) FROM closed;
