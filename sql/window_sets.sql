-- Windows that overlap: hop() and cumulate(), alone and as group keys.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- every window that holds the moment, the earliest first
SELECT streamext.hop('2026-03-01 12:34:56+00'::timestamptz, '5 minutes', '15 minutes');
SELECT streamext.hop('2026-03-01 12:35:00+00'::timestamptz, '5 minutes', '5 minutes');
SELECT streamext.hop('1999-12-31 23:59:59.999999+00'::timestamptz, '1 day', '3 days');
SELECT streamext.hop('2026-03-01 12:34:56+00'::timestamptz, '5 minutes', '10 minutes', '2000-01-01 00:01+00'::timestamptz);
SELECT streamext.hop('2026-03-31 12:34:56'::timestamp, '1 month', '3 months');
SELECT streamext.hop('2026-03-31 12:34:56'::timestamp, '1 hour', '2 hours', origin => '2000-01-01 00:30');
SELECT streamext.hop('2026-03-04'::date, '1 day', '3 days');
SELECT streamext.hop('2026-03-04'::date, '7 days', '14 days', '2026-01-01');
SELECT x, array_agg(h) FROM unnest(ARRAY[-11, -10, -1, 0, 9, 10]) x, streamext.hop(x::bigint, 5, 10) h GROUP BY x ORDER BY x;
SELECT streamext.hop(7::bigint, 5, 10, 1);
SELECT streamext.hop('infinity'::timestamptz, '1 minute', '1 hour'), streamext.hop('-infinity'::timestamp, '1 month', '1 year'), streamext.hop('infinity'::date, '1 day', '7 days');
SELECT count(*) FROM streamext.hop(NULL::timestamptz, '1 minute', '1 hour');

-- by the calendar of a time zone: three days over a night of 23 hours, and one of 25
SELECT h, streamext.window_end(h, '3 days', 'Europe/Berlin') FROM streamext.hop('2026-03-29 10:00+00'::timestamptz, '1 day', '3 days', timezone => 'Europe/Berlin') h;
SELECT h, streamext.window_end(h, '3 days', 'Europe/Berlin') FROM streamext.hop('2026-10-25 22:30+00'::timestamptz, '1 day', '3 days', timezone => 'Europe/Berlin') h;
-- a day that there was not
SELECT streamext.hop('2011-12-31 12:00+00'::timestamptz, '1 day', '4 days', timezone => 'Pacific/Apia');

SELECT streamext.cumulate('2026-03-01 12:34:56+00'::timestamptz, '15 minutes', '1 hour');
SELECT streamext.cumulate('2026-03-01 12:00:00+00'::timestamptz, '30 minutes', '1 hour');
SELECT streamext.cumulate('2026-03-01 12:00:00+00'::timestamptz, '1 hour', '1 hour');
SELECT streamext.cumulate('2026-02-26 08:00'::timestamp, '1 day', '1 month');
SELECT streamext.cumulate('2026-02-26 08:00'::timestamp, '1 month', '3 months');
SELECT streamext.cumulate('2026-02-26'::date, '1 day', '1 month');
SELECT streamext.cumulate('2026-03-04'::date, '2 days', '6 days');
SELECT x, array_agg(c) FROM unnest(ARRAY[-11, -10, -1, 0, 9, 10]) x, streamext.cumulate(x::bigint, 5, 10) c GROUP BY x ORDER BY x;
SELECT streamext.cumulate('2026-03-29 19:30+00'::timestamptz, '1 hour', '1 day', 'Europe/Berlin');
SELECT count(*), min(upper(c)), max(upper(c)), min(lower(c)) FROM streamext.cumulate('2026-10-25 00:30+00'::timestamptz, '1 hour', '1 day', 'Europe/Berlin') c;
SELECT count(*), min(upper(c)), max(upper(c)), min(lower(c)) FROM streamext.cumulate('2026-03-27 12:00+00'::timestamptz, '1 day', '1 month', 'Europe/Berlin') c;
SELECT streamext.cumulate('infinity'::timestamptz, '1 minute', '1 hour'), streamext.cumulate('-infinity'::date, '1 day', '1 month');

-- what the definition says: all windows of the grid that hold the moment, and no others
CREATE TABLE moments AS SELECT '2026-03-27 00:00+00'::timestamptz + i * interval '37 minutes 11.5 seconds' AS t FROM generate_series(0, 200) i
	UNION ALL SELECT '1969-12-30 00:00+00'::timestamptz + i * interval '1 hour' FROM generate_series(0, 100) i;
CREATE FUNCTION same(query text, expected text) RETURNS TABLE (windows bigint, differences bigint) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT (SELECT count(*) FROM (%1$s) q), (SELECT count(*) FROM (((%1$s) EXCEPT ALL (%2$s)) UNION ALL ((%2$s) EXCEPT ALL (%1$s))) d)', query, expected);
END $$;
CREATE TABLE starts AS SELECT DISTINCT streamext.tumble(t, '10 minutes') + i * interval '10 minutes' AS s FROM moments, generate_series(-12, 12) i;
SELECT * FROM same($$SELECT t, h FROM moments, streamext.hop(t, '10 minutes', '1 hour') h$$,
	$$SELECT t, s FROM moments JOIN starts ON s <= t AND t < s + interval '1 hour'$$);
SELECT * FROM same($$SELECT t, h FROM moments, streamext.hop(t, '10 minutes', '10 minutes') h$$,
	$$SELECT t, streamext.tumble(t, '10 minutes') FROM moments$$);
SELECT * FROM same($$SELECT t, h FROM moments, streamext.hop(t, '1 day', '7 days', timezone => 'America/New_York') h$$,
	$$SELECT t, d AT TIME ZONE 'America/New_York' FROM moments, generate_series('1969-12-01'::timestamp, '1970-01-31', '1 day') d
		WHERE d AT TIME ZONE 'America/New_York' <= t AND t < (d + interval '7 days') AT TIME ZONE 'America/New_York'
	UNION ALL SELECT t, d AT TIME ZONE 'America/New_York' FROM moments, generate_series('2026-03-01'::timestamp, '2026-04-30', '1 day') d
		WHERE d AT TIME ZONE 'America/New_York' <= t AND t < (d + interval '7 days') AT TIME ZONE 'America/New_York'$$);
SELECT * FROM same($$SELECT t, c FROM moments, streamext.cumulate(t, '20 minutes', '2 hours') c$$,
	$$SELECT t, tstzrange(s, s + i * interval '20 minutes') FROM moments, streamext.tumble(t, '2 hours') s, generate_series(1, 6) i WHERE t < s + i * interval '20 minutes'$$);
SELECT * FROM same($$SELECT t, c FROM moments, streamext.cumulate(t, '1 day', '1 month', 'Europe/Berlin') c$$,
	$$SELECT t, tstzrange(s AT TIME ZONE 'Europe/Berlin', (s + i * interval '1 day') AT TIME ZONE 'Europe/Berlin')
		FROM moments, date_trunc('month', t AT TIME ZONE 'Europe/Berlin') s, generate_series(1, 31) i
		WHERE t < (s + i * interval '1 day') AT TIME ZONE 'Europe/Berlin' AND s + i * interval '1 day' <= s + interval '1 month'$$);

-- the planner knows how many
CREATE FUNCTION planned(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
	RETURN plan -> 0 -> 'Plan' ->> 'Plan Rows';
END $$;
SELECT planned($$SELECT * FROM streamext.hop(now(), '1 minute', '1 hour')$$), planned($$SELECT * FROM streamext.cumulate(now(), '1 minute', '1 hour')$$),
	planned($$SELECT * FROM streamext.hop(1, 1, 7)$$);

-- errors
SELECT streamext.hop(now(), '7 minutes', '1 hour');
SELECT streamext.hop(now(), '0', '1 hour');
SELECT streamext.hop(now(), '1 minute', '-1 hour');
SELECT streamext.hop(now(), '1 hour', '1 minute');
SELECT streamext.hop(now(), '1 day', '1 month');
SELECT streamext.hop(now()::timestamp, '1 day', '1 month');
SELECT streamext.hop(now()::timestamp, '1 month', '45 days');
SELECT streamext.hop(now(), '1 hour', '1 day', timezone => 'UTC');
SELECT streamext.hop(now(), '1 day', '3 days', timezone => 'Nowhere');
SELECT streamext.hop(current_date, '1 hour', '1 day');
SELECT streamext.hop(1, 0, 10);
SELECT streamext.hop(1, 3, 10);
SELECT streamext.hop(-9223372036854775800, 10, 100);
SELECT streamext.hop('4714-11-24 00:00:00+00 BC'::timestamptz, '1 hour', '2 hours');
SELECT streamext.cumulate(now(), '7 minutes', '1 hour');
SELECT streamext.cumulate(now(), '1 day', '1 month');
SELECT streamext.cumulate(now(), '0', '1 month', 'UTC');
SELECT streamext.cumulate(now(), '2 months', '3 months', 'UTC');
SELECT streamext.cumulate(1, 0, 10);
SELECT streamext.cumulate(1, 10, 5);
SELECT streamext.cumulate('294276-12-31 23:59:59+00'::timestamptz, '1 hour', '1 day');

-- windows of a view
CREATE TABLE ev (k int, tz timestamptz NOT NULL, ts timestamp, d date, b bigint, v int);
INSERT INTO ev SELECT i % 5, t, t AT TIME ZONE 'UTC', (t AT TIME ZONE 'UTC')::date, extract(epoch FROM t)::bigint, i
	FROM generate_series('2026-03-28 00:00+00'::timestamptz, '2026-03-30 00:00+00', '11 minutes') WITH ORDINALITY g (t, i);
CREATE MATERIALIZED VIEW by_hop WITH (streamext.continuous) AS
	SELECT k, streamext.hop(tz, '5 minutes', '15 minutes') AS window_start, count(*) AS n, sum(v) AS total, max(v) AS high FROM ev GROUP BY k, streamext.hop(tz, '5 minutes', '15 minutes');
CREATE MATERIALIZED VIEW by_day WITH (streamext.continuous) AS
	SELECT streamext.hop(tz, '1 day', '7 days', timezone => 'Europe/Berlin') AS day, avg(v) AS mean FROM ev WHERE k <> 2 GROUP BY 1;
CREATE MATERIALIZED VIEW by_number WITH (streamext.continuous) AS SELECT streamext.hop(b, 600, 3600) AS w, count(*) AS n FROM ev GROUP BY 1 HAVING count(*) > 2;
CREATE MATERIALIZED VIEW by_date WITH (streamext.continuous) AS SELECT streamext.hop(d, '1 day', '2 days') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW so_far WITH (streamext.continuous) AS
	SELECT streamext.cumulate(tz, '1 hour', '1 day') AS w, count(*) AS n, sum(v) AS total FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW month_to_date WITH (streamext.continuous) AS
	SELECT streamext.cumulate(d, '1 day', '1 month') AS w, count(*) AS n FROM ev GROUP BY 1;
SELECT * FROM test.check_all();
INSERT INTO ev SELECT i % 5, t, t AT TIME ZONE 'UTC', (t AT TIME ZONE 'UTC')::date, extract(epoch FROM t)::bigint, i
	FROM generate_series('2026-03-31 23:00+00'::timestamptz, '2026-03-27 00:00+00', '-17 minutes') WITH ORDINALITY g (t, i);
INSERT INTO ev VALUES (1, 'infinity', '-infinity', 'infinity', 0, 1), (NULL, '2026-03-28 00:00+00', NULL, NULL, NULL, NULL);
SELECT * FROM test.check_all();
-- a row whose windows there are not
INSERT INTO ev VALUES (1, '2026-03-28 00:00+00', NULL, NULL, -9223372036854775800, 1), (1, '2026-03-28 00:00+00', NULL, NULL, 7, 1);
SELECT streamext.flush();
SELECT view, message, "row" ->> 'b' AS b FROM streamext.dead_letters ORDER BY 1;
SELECT * FROM test.check('by_number', $$SELECT streamext.hop(b, 600, 3600), count(*) FROM ev WHERE b > -9223372036854775800 GROUP BY 1 HAVING count(*) > 2$$);

-- a view keeps a row for each window, in any query it is the query's business
CREATE TABLE fine (ts timestamptz NOT NULL);
CREATE MATERIALIZED VIEW too_fine WITH (streamext.continuous) AS SELECT streamext.hop(ts, '1 microsecond', '30 days') AS w, count(*) FROM fine GROUP BY 1;
CREATE MATERIALIZED VIEW too_fine WITH (streamext.continuous) AS SELECT streamext.cumulate(ts, '1 second', size => '1 day') AS w, count(*) FROM fine GROUP BY 1;
-- windows that fail for every row are refused at once, also as another query of a view
CREATE MATERIALIZED VIEW none WITH (streamext.continuous) AS SELECT streamext.hop(ts, '7 minutes', '1 hour') AS w, count(*) FROM fine GROUP BY 1;
CREATE MATERIALIZED VIEW none WITH (streamext.continuous) AS SELECT streamext.tumble(ts, interval '0') AS w, count(*) FROM fine GROUP BY 1;
CREATE MATERIALIZED VIEW none WITH (streamext.continuous) AS SELECT streamext.tumble(size => '1 month', ts => ts) AS w, count(*) FROM fine GROUP BY 1;
CREATE MATERIALIZED VIEW none WITH (streamext.continuous) AS SELECT streamext.tumble(ts, '1 day', 'Europe/Nowhere') AS w, count(*) FROM fine GROUP BY 1;
CREATE MATERIALIZED VIEW none WITH (streamext.continuous) AS SELECT streamext.tumble(ts::date, '90 minutes') AS w, count(*) FROM fine GROUP BY 1;
CREATE MATERIALIZED VIEW none WITH (streamext.continuous) AS SELECT streamext.cumulate(extract(epoch FROM ts)::bigint, 7, 60) AS w, count(*) FROM fine GROUP BY 1;
CREATE MATERIALIZED VIEW several WITH (streamext.continuous) AS SELECT streamext.tumble(ts, CASE WHEN extract(hour FROM ts AT TIME ZONE 'UTC') < 12 THEN interval '0' ELSE '1 hour' END) AS w, count(*) FROM fine GROUP BY 1;
SELECT streamext.replace_view('several', $$SELECT streamext.tumble(ts, interval '0') AS w, count(*) FROM fine GROUP BY 1$$);
DROP MATERIALIZED VIEW several;
CREATE MATERIALIZED VIEW fine_enough WITH (streamext.continuous) AS SELECT streamext.hop(ts, '10 seconds', '1 day') AS w, count(*) FROM fine GROUP BY 1;
INSERT INTO fine VALUES ('2026-01-01 00:00+00');
SELECT test.check('fine_enough');
