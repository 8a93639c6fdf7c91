-- Status: the views and functions that show how the machinery is doing.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- their columns are a promise
SELECT table_name, string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position) AS columns
	FROM information_schema.columns WHERE table_schema = 'streamext' AND table_name IN ('views', 'status', 'streams', 'backfill_progress', 'dead_letters')
	GROUP BY table_name ORDER BY table_name;
SELECT p.oid::regprocedure AS function, pg_get_function_result(p.oid) AS result FROM pg_proc p
	WHERE p.pronamespace = 'streamext'::regnamespace AND has_function_privilege('pg_monitor', p.oid, 'EXECUTE') ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT name, setting, unit, context, vartype FROM pg_settings WHERE name LIKE 'streamext.%' ORDER BY name;

-- nothing yet
SELECT count(*) FROM streamext.views;
SELECT count(*) FROM streamext.status;
SELECT count(*) FROM streamext.streams;
SELECT count(*) FROM streamext.backfill_progress;
SELECT count(*) FROM streamext.dead_letters;
SELECT streamext.wait_for(), streamext.flush();

CREATE TABLE clicks (ts timestamptz NOT NULL, page text, ms int);
SELECT streamext.create_stream('clicks', event_time => 'ts');
CREATE MATERIALIZED VIEW pages WITH (streamext.continuous, streamext.flush_interval = '1h') AS SELECT page, count(*) AS n, avg(ms) AS ms FROM clicks GROUP BY page;
CREATE MATERIALIZED VIEW slow WITH (streamext.continuous) AS SELECT ts, page FROM clicks WHERE ms > 90;
CREATE MATERIALIZED VIEW fails WITH (streamext.continuous) AS SELECT 1 / (ms - 50) AS x FROM clicks;
SELECT streamext.wait_for();
INSERT INTO clicks SELECT '2026-01-01 00:00+00', 'p' || i % 5, i FROM generate_series(1, 100) i;
SELECT streamext.wait_for();
SELECT view, strategy, state, options FROM streamext.views ORDER BY view::text;
SELECT view, state, rows_consumed, lag_rows, last_error, reason, live_groups > 0 AS has_live, live_bytes > 0 AS has_bytes, dead_letters
	FROM streamext.status WHERE view = 'pages'::regclass;
SELECT freshness_p50_ms IS NOT NULL AND freshness_p50_ms >= 0 AS p50, freshness_p99_ms >= freshness_p50_ms AS p99, lag_bytes >= 0 AS lag_bytes
	FROM streamext.status WHERE view = 'pages'::regclass;
SELECT streamext.flush();
SELECT view, state, rows_consumed, live_groups, last_flush <= now() + interval '1 second' AS flushed, last_flush_ms >= 0 AS took, dead_letters FROM streamext.status ORDER BY view::text;
SELECT stream, event_time, rows_consumed, slot = 'streamext_' || (SELECT oid FROM pg_database WHERE datname = current_database()) AS slot,
	retained_wal_bytes >= 0 AS retained FROM streamext.streams;
SELECT slot_type, active, xmin IS NOT NULL AS xmin, restart_lsn IS NOT NULL AS restart_lsn FROM pg_replication_slots
	WHERE slot_name = 'streamext_' || (SELECT oid FROM pg_database WHERE datname = current_database());
SELECT test.until($$SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database() AND backend_type IN ('streamext consumer', 'streamext flusher')$$);
SELECT test.until($$SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'streamext launcher'$$);

-- counts go on; an INSERT that is rolled back is none
BEGIN;
INSERT INTO clicks VALUES ('2026-01-01 00:00+00', 'x', 1);
ROLLBACK;
INSERT INTO clicks VALUES ('2026-01-01 00:00+00', 'x', 1);
SELECT streamext.wait_for();
SELECT view, rows_consumed FROM streamext.status ORDER BY view::text;

-- paused
SELECT streamext.pause('pages');
-- it says paused already while what is in memory is written
SELECT test.until($$SELECT reason LIKE 'paused%' FROM streamext.status WHERE view = 'pages'::regclass$$);
SELECT view, state FROM streamext.views ORDER BY view::text;
SELECT state, reason FROM streamext.status WHERE view = 'pages'::regclass;
SELECT streamext.resume('pages');
SELECT streamext.wait_for('pages');
SELECT state, reason FROM streamext.status WHERE view = 'pages'::regclass;

-- wait_for: of one view, of all, with a timeout; nothing to wait for is true
SELECT streamext.wait_for(), streamext.wait_for(NULL), streamext.wait_for('pages'), streamext.wait_for('pages', '1s'), streamext.wait_for(timeout => '5s');
SELECT streamext.flush('pages'), streamext.flush(NULL), streamext.flush();
-- of a view that this transaction has made: it cannot be there yet
BEGIN;
CREATE MATERIALIZED VIEW unborn WITH (streamext.continuous) AS SELECT page FROM clicks;
SELECT streamext.wait_for('unborn', '20ms');
SELECT view, strategy FROM streamext.views WHERE view = 'unborn'::regclass;
ROLLBACK;

-- a locked stream: the view waits and says why; wait_for gives up in time, and flush with an error
SET streamext.wait_timeout = '100ms';
BEGIN;
LOCK TABLE clicks;
INSERT INTO clicks VALUES ('2026-01-01 00:00+00', 'locked', 1);
COMMIT;
SELECT test.check('pages');
RESET streamext.wait_timeout;

-- explain(): of each strategy
SELECT test.mask(x) FROM streamext.explain('pages') x WHERE x !~* 'size|bytes|settings|TimeZone';
SELECT test.mask(x) FROM streamext.explain('slow') x WHERE x !~* 'size|bytes|settings|TimeZone';
-- verify(): no differences, then the one that was made by hand
SELECT count(*) FROM streamext.verify('pages');
SELECT count(*) FROM streamext.verify('slow');
UPDATE clicks SET page = 'other' WHERE page = 'x';
SELECT * FROM streamext.verify('pages') ORDER BY 1;

-- what flushes write is in the statistics that autovacuum goes by, while the flusher runs
INSERT INTO clicks SELECT * FROM clicks LIMIT 1;
SELECT streamext.flush('pages');
SELECT test.until(format('SELECT n_tup_upd > 0 FROM pg_stat_user_tables WHERE relid = %s', mat::oid)) FROM streamext.view_def WHERE view = 'pages'::regclass;

-- create_view(): for tools that cannot pass options
SELECT streamext.create_view('made', 'SELECT page, max(ms) AS ms FROM clicks GROUP BY page');
SELECT test.check('made');
DROP MATERIALIZED VIEW made, pages, slow, fails;
SELECT count(*) FROM streamext.status;
SELECT count(*) FROM streamext.dead_letters;
