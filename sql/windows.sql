-- Windows: tumble() and the other functions of time as group keys.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- tumble() alone: start of the window that holds the moment, before the epoch and after
SELECT streamext.tumble('2026-03-01 12:34:56+00'::timestamptz, '5 minutes');
SELECT streamext.tumble('1969-12-31 23:59:59.999999+00'::timestamptz, '1 minute');
SELECT streamext.tumble('1999-12-31 23:59:59+00'::timestamptz, '1 day');
SELECT streamext.tumble('2026-03-01 12:00:00+00'::timestamptz, '1 hour');
SELECT streamext.tumble('2026-03-01 11:59:59.999999+00'::timestamptz, '1 hour');
SELECT streamext.tumble('2026-03-01 12:34:56'::timestamp, '1 day 12 hours');
SELECT streamext.tumble('2026-03-04'::date, '7 days');
SELECT streamext.tumble('2026-03-04'::date, '1 month');
SELECT x, streamext.tumble(x::bigint, 10) FROM unnest(ARRAY[-11, -10, -1, 0, 9, 10]) x;
SELECT streamext.tumble(9223372036854775807, 10), streamext.tumble(-9223372036854775800, 7);
SELECT streamext.tumble('2026-03-01 12:34:56+00'::timestamptz, '5 minutes', '2000-01-01 00:01+00'::timestamptz);
SELECT streamext.tumble('2026-03-01 12:34:56+00'::timestamptz, '5 minutes', origin => '2000-01-01 00:01+00');
-- a text there is a time zone
SELECT streamext.tumble('2026-03-01 12:34:56+00'::timestamptz, '5 minutes', '2000-01-01 00:01+00');
SELECT streamext.tumble('2026-03-01 12:34:56+00'::timestamptz, '1 day', '2026-02-27 01:00+00', 'Europe/Berlin');
SELECT streamext.tumble('2026-03-01 12:34:56'::timestamp, '1 hour', '2000-01-01 00:30');
SELECT streamext.tumble('2026-03-04'::date, '7 days', '2026-01-01');
SELECT streamext.tumble(25::bigint, 10, 3);
SELECT streamext.tumble('infinity'::timestamptz, '5 minutes'), streamext.tumble('-infinity'::timestamptz, '1 month', timezone => 'UTC');
SELECT streamext.tumble(NULL::timestamptz, '5 minutes');
SELECT streamext.tumble('4714-11-24 00:00:00+00 BC'::timestamptz, '1 hour');
SELECT streamext.tumble('294276-12-31 23:59:59+00'::timestamptz, '1 month', timezone => 'UTC');

-- it agrees with date_bin and date_trunc
SELECT count(*) FROM generate_series('2025-12-25 00:00+00'::timestamptz, '2026-01-05 00:00+00', '7 minutes 13 seconds') t
	WHERE streamext.tumble(t, '15 minutes') <> date_bin('15 minutes', t, '2000-01-01 00:00+00')
		OR streamext.tumble(t, '1 month', timezone => 'UTC') <> date_trunc('month', t)
		OR streamext.tumble(t, '3 months', timezone => 'UTC') <> date_trunc('quarter', t)
		OR streamext.tumble(t AT TIME ZONE 'UTC', '1 month') <> date_trunc('month', t AT TIME ZONE 'UTC')
		OR streamext.tumble((t AT TIME ZONE 'UTC')::date, '1 month') <> date_trunc('month', t)::date
		OR streamext.tumble(t, '7 days') <> date_trunc('week', t)
		OR streamext.tumble(t, '1 year', timezone => 'UTC') <> date_trunc('year', t);

-- calendar sizes in a time zone, over changes of its clocks
SELECT t, streamext.tumble(t, '1 day', timezone => 'Europe/Berlin') AS day, streamext.window_end(streamext.tumble(t, '1 day', timezone => 'Europe/Berlin'), '1 day', 'Europe/Berlin') AS day_end,
	streamext.tumble(t, '1 month', timezone => 'Europe/Berlin') AS month
	FROM unnest(ARRAY['2026-03-28 22:59:59+00', '2026-03-28 23:00:00+00', '2026-03-29 21:59:59+00', '2026-03-29 22:00:00+00', '2026-10-24 22:00:00+00',
		'2026-10-25 22:59:59+00', '2026-10-25 23:00:00+00']::timestamptz[]) t;
SELECT streamext.tumble('2026-03-29 01:30:00+00'::timestamptz, '1 hour', timezone => 'Europe/Berlin');
SELECT streamext.window_end('2026-03-01 00:00+00'::timestamptz, '1 month', 'UTC');
SELECT streamext.window_end('294276-12-31 23:00:00+00'::timestamptz, '1 hour');
SELECT streamext.window_end('2026-01-31'::timestamp, '1 month'), streamext.window_end('2026-03-04'::date, '7 days'), streamext.window_end(10::bigint, 10);

-- windows of a view: event time of every type
CREATE TABLE ev (tz timestamptz NOT NULL, ts timestamp, d date, b bigint, v int);
INSERT INTO ev SELECT t, t AT TIME ZONE 'UTC', (t AT TIME ZONE 'UTC')::date, extract(epoch FROM t)::bigint, extract(minute FROM t)
	FROM generate_series('2026-03-28 00:00+00'::timestamptz, '2026-03-30 00:00+00', '11 minutes') t;
CREATE MATERIALIZED VIEW w_tz WITH (streamext.continuous) AS
	SELECT streamext.tumble(tz, '5 minutes') AS w, count(*) AS n, sum(v) AS s FROM ev GROUP BY streamext.tumble(tz, '5 minutes');
CREATE MATERIALIZED VIEW w_end WITH (streamext.continuous) AS
	SELECT streamext.tumble(tz, '1 hour') AS w, streamext.window_end(streamext.tumble(tz, '1 hour'), '1 hour') AS e, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW w_ts WITH (streamext.continuous) AS
	SELECT streamext.tumble(ts, '90 minutes', '2026-01-01 00:10') AS w, avg(v) AS a FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW w_d WITH (streamext.continuous) AS SELECT streamext.tumble(d, '7 days') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW w_b WITH (streamext.continuous) AS SELECT streamext.tumble(b, 3600) AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW w_month WITH (streamext.continuous) AS
	SELECT streamext.tumble(tz, '1 month', timezone => 'Pacific/Auckland') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW w_day_berlin WITH (streamext.continuous) AS
	SELECT streamext.tumble(tz, '1 day', timezone => 'Europe/Berlin') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW w_trunc WITH (streamext.continuous) AS SELECT date_trunc('hour', tz) AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW w_trunc_zone WITH (streamext.continuous) AS SELECT date_trunc('day', tz, 'America/New_York') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW w_bin WITH (streamext.continuous) AS SELECT date_bin('15 minutes', tz, '2000-01-01 00:00+00') AS w, max(v) AS m FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW w_cast WITH (streamext.continuous) AS SELECT tz::date AS w, extract(hour FROM tz) AS h, to_char(tz, 'Dy') AS day, count(*) AS n FROM ev GROUP BY 1, 2, 3;
SELECT * FROM test.check_all();
INSERT INTO ev SELECT t, t AT TIME ZONE 'UTC', (t AT TIME ZONE 'UTC')::date, extract(epoch FROM t)::bigint, extract(minute FROM t)
	FROM generate_series('2026-03-29 00:00+00'::timestamptz, '2026-04-03 00:00+00', '37 minutes') t;
INSERT INTO ev VALUES ('infinity', 'infinity', 'infinity', 0, 1), ('-infinity', NULL, NULL, NULL, 1), ('1815-06-18 11:35+00', '1815-06-18 11:35', '1815-06-18', -1, 1);
SELECT * FROM test.check_all();
SELECT * FROM w_day_berlin WHERE w BETWEEN '2026-03-28' AND '2026-03-31' ORDER BY w;
SELECT * FROM w_d ORDER BY w;

-- the settings at CREATE are the view's: what the session or the reader sets later changes nothing
SET timezone = 'Asia/Kolkata';
CREATE MATERIALIZED VIEW w_kolkata WITH (streamext.continuous) AS
	SELECT date_trunc('day', tz) AS w, tz::date AS d, to_char(tz, 'HH24') AS h, tz::text AS t, count(*) AS n FROM ev GROUP BY 1, 2, 3, 4;
SET timezone = 'UTC';
INSERT INTO ev VALUES ('2026-05-01 20:00+00', NULL, NULL, NULL, 9);
SELECT streamext.wait_for();
SELECT w AT TIME ZONE 'Asia/Kolkata' AS w, d, h, t, n FROM w_kolkata WHERE w > '2026-04-15' AND w < 'infinity';
SET timezone = 'America/Los_Angeles';
SELECT d, h, t, n FROM w_kolkata WHERE t LIKE '2026-05%';
SET timezone = 'Asia/Kolkata';
SELECT test.check('w_kolkata');
SET timezone = 'UTC';

-- bad sizes and zones
SELECT streamext.tumble(now(), '1 month');
SELECT streamext.window_end(now(), '1 month');
SELECT streamext.tumble('2026-01-01'::timestamp, '1 month', '2026-01-31');
SELECT streamext.tumble(now(), '0');
SELECT streamext.tumble(now(), '-5 minutes');
SELECT streamext.tumble(now(), '1 month 1 day');
SELECT streamext.tumble(now(), '1 day', timezone => 'Nowhere/Town');
SELECT streamext.tumble(1::bigint, 0);
SELECT streamext.tumble(1::bigint, -5);
SELECT streamext.tumble('2026-01-01'::date, '90 minutes');
SELECT streamext.window_end(now(), '-1 hour');

-- a size from the row: a bad one makes a dead letter
CREATE TABLE sized (t timestamptz, size interval);
CREATE MATERIALIZED VIEW by_size WITH (streamext.continuous) AS SELECT streamext.tumble(t, size) AS w, count(*) AS n FROM sized GROUP BY 1;
INSERT INTO sized VALUES ('2026-01-01 00:07+00', '5 minutes'), ('2026-01-01 00:07+00', '0'), ('2026-01-01 00:07+00', NULL), (NULL, '5 minutes');
SELECT test.check('by_size', $$SELECT streamext.tumble(t, size), count(*) FROM sized WHERE size > '0' OR size IS NULL GROUP BY 1$$);
SELECT sqlstate, message FROM streamext.dead_letters;
