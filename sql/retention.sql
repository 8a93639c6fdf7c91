-- Option retention: windows that closed long ago take no more rows and are removed.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE ev (ts timestamptz NOT NULL, k text, v int);
SELECT streamext.create_stream('ev', event_time => 'ts', watermark_delay => '1 minute');
CREATE MATERIALIZED VIEW recent WITH (streamext.continuous, streamext.retention = '10 minutes') AS
SELECT k, streamext.tumble(ts, '1 minute') AS w, count(*) AS n FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW all_of_it WITH (streamext.continuous) AS
SELECT streamext.tumble(ts, '1 minute') AS w, k, count(*) AS n FROM ev GROUP BY 1, 2;
SELECT options FROM streamext.views ORDER BY view::text;
SELECT indexname, test.mask(indexdef) FROM pg_indexes WHERE schemaname = 'streamext' AND indexdef ~ '\(w\)';
SELECT streamext.wait_for();

CREATE FUNCTION gone(windows int) RETURNS text LANGUAGE sql AS
$$ SELECT test.until(format('SELECT count(DISTINCT w) = %s FROM recent', windows)) $$;
INSERT INTO ev SELECT timestamptz '2024-01-01 10:00Z' + i * interval '1 second', 'a' || i % 7, i FROM generate_series(0, 3599) i;
SELECT streamext.flush();
-- the last row is of 10:59:59, the watermark at 10:58:59: windows that end at 10:48:59 or before go
SELECT gone(12);
SELECT min(w), max(w), sum(n) FROM recent;
SELECT test.check('recent', $$SELECT k, streamext.tumble(ts, '1 minute'), count(*) FROM ev WHERE ts >= '2024-01-01 10:48Z' GROUP BY 1, 2$$);
SELECT test.check('all_of_it');

-- rows for them come too late, also where late rows are merged; those for others do not
INSERT INTO ev VALUES ('2024-01-01 10:47:59Z', 'too late', 1), ('2024-01-01 10:48:00Z', 'late', 1), ('2024-01-01 10:59:00Z', 'in time', 1);
SELECT streamext.wait_for();
SELECT k, w, n FROM recent WHERE k !~ '^a' ORDER BY 1;
SELECT view, late_rows, dropped_rows FROM streamext.status ORDER BY view::text;
SELECT test.check('all_of_it');
SELECT * FROM streamext.verify('recent');

-- dead letters, where the stream wants them
SELECT streamext.alter_stream('ev', late_rows => 'dead_letter');
INSERT INTO ev VALUES ('2024-01-01 10:47:59Z', 'too late', 2), ('2024-01-01 10:48:00Z', 'late', 2);
SELECT streamext.flush();
SELECT view, "row" ->> 'k' AS k, reason FROM streamext.dead_letters ORDER BY 1, 2;
SELECT streamext.alter_stream('ev', late_rows => 'merge');

-- what is forgotten stays so when more is to be kept
ALTER MATERIALIZED VIEW recent SET (streamext.retention = '1 day');
INSERT INTO ev VALUES ('2024-01-01 10:47:00Z', 'too late', 3), ('2024-01-01 11:59:00Z', 'new', 1);
SELECT streamext.flush();
SELECT min(w), max(w) FROM recent;
ALTER MATERIALIZED VIEW recent SET (streamext.retention = '0');
INSERT INTO ev VALUES ('2024-01-01 11:59:00Z', 'new', 2);
SELECT streamext.flush();
SELECT gone(1);
SELECT k, w, n FROM recent;
ALTER MATERIALIZED VIEW recent RESET (streamext.retention);
SELECT options FROM streamext.views WHERE view = 'recent'::regclass;

-- a view that gets the option later, and one that does not need another index
ALTER MATERIALIZED VIEW all_of_it SET (streamext.retention = '30 minutes');
INSERT INTO ev VALUES ('2024-01-01 12:01:00Z', 'new', 3);
SELECT streamext.flush();
SELECT test.until('SELECT min(w) >= ''2024-01-01 11:29Z'' FROM all_of_it');
SELECT count(*) FROM pg_indexes WHERE schemaname = 'streamext' AND tablename = (SELECT relname FROM pg_class c JOIN streamext.view_def d ON c.oid = d.mat WHERE d.view = 'all_of_it'::regclass);
-- history longer than that: removed after the view is built
CREATE MATERIALIZED VIEW built WITH (streamext.continuous, streamext.retention = '15 minutes') AS
SELECT date_trunc('minute', ts) AS w, count(*) AS n FROM ev GROUP BY 1;
SELECT streamext.wait_for();
INSERT INTO ev VALUES ('2024-01-01 12:01:01Z', 'new', 3);
SELECT streamext.flush();
SELECT test.until('SELECT min(w) >= ''2024-01-01 11:45Z'' FROM built');
SELECT * FROM built ORDER BY 1;
-- a view that gets another stream forgets by the time of that one
CREATE TABLE earlier (ts timestamptz NOT NULL);
SELECT streamext.create_stream('earlier', event_time => 'ts');
INSERT INTO earlier SELECT '2023-01-01 00:00Z'::timestamptz + i * interval '1 hour' FROM generate_series(0, 5) i;
SELECT streamext.replace_view('built', $$SELECT date_trunc('minute', ts) AS w, count(*) AS n FROM earlier GROUP BY 1$$);
SELECT streamext.wait_for('built');
INSERT INTO earlier VALUES ('2023-01-01 05:30Z');
SELECT streamext.flush();
SELECT test.until('SELECT min(w) >= ''2023-01-01 05:15Z'' FROM built');
SELECT * FROM built ORDER BY 1;

-- refused
CREATE MATERIALIZED VIEW no WITH (streamext.continuous, streamext.retention = '1 day') AS SELECT k, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW no WITH (streamext.continuous, streamext.retention = 'long') AS SELECT ts::date, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW no WITH (streamext.continuous, streamext.retention = '-1 day') AS SELECT ts::date, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW no WITH (streamext.continuous, streamext.live_memory = '1MB') AS SELECT ts::date, count(*) AS n FROM ev GROUP BY 1;
CREATE TABLE numbers (id bigint NOT NULL);
SELECT streamext.create_stream('numbers', event_time => 'id');
CREATE MATERIALIZED VIEW no WITH (streamext.continuous, streamext.retention = '1 day') AS SELECT id / 10 AS w, count(*) AS n FROM numbers GROUP BY 1;
CREATE TABLE timeless (ts timestamptz NOT NULL);
CREATE MATERIALIZED VIEW of_timeless WITH (streamext.continuous) AS SELECT ts::date, count(*) AS n FROM timeless GROUP BY 1;
ALTER MATERIALIZED VIEW of_timeless SET (streamext.retention = '1 day');
