-- date_trunc() in all units and zones, for all times: delta plans may compute it in another way.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE ev (tz timestamptz, ts timestamp, v int);
CREATE FUNCTION make(name text, zone text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	units text[] := '{microsecond, milliseconds, second, SECONDS, minute, Minute, minutes, hour, day, DAYS}';
	setting text := current_setting('timezone');
BEGIN
	PERFORM set_config('timezone', zone, false);
	EXECUTE format('CREATE MATERIALIZED VIEW %I WITH (streamext.continuous) AS SELECT tz, ts, %s FROM ev WHERE v > %s AND (date_trunc(''day'', tz) IS NOT NULL OR v >= 0)',
		name, (SELECT string_agg(format('date_trunc(%1$L, tz) AS %2$I, date_trunc(%1$L, tz, %3$L) AS %4$I, date_trunc(%1$L, ts) AS %5$I',
			u, 'tz_' || u, zone, 'zone_' || u, 'ts_' || u), ', ') FROM unnest(units) u),
		CASE WHEN zone ~* 'UTC|GMT' THEN -1 ELSE 0 END);
	EXECUTE format('CREATE MATERIALIZED VIEW %I WITH (streamext.continuous) AS SELECT date_trunc(''minute'', tz) AS w, date_trunc(''hour'', date_trunc(''minute'', ts)) - interval ''1 hour'' AS h, count(*) AS n FROM ev WHERE v > 0 GROUP BY 1, 2',
		name || '_n');
	PERFORM set_config('timezone', setting, false);
END $$;
SELECT make('utc', 'UTC'), make('etc', 'Etc/UTC'), make('small', 'utc'), make('gmt', 'GMT'), make('london', 'Europe/London'), make('india', 'Asia/Kolkata'), make('offset', '-01:30');
-- a unit that comes with the row
CREATE MATERIALIZED VIEW by_row WITH (streamext.continuous) AS
	SELECT date_trunc(CASE WHEN v % 2 = 0 THEN 'hour' ELSE 'day' END, tz) AS w, date_trunc('week', ts) AS week, count(*) AS n FROM ev WHERE v > 0 GROUP BY 1, 2;
SELECT streamext.wait_for();

-- v = 0: other zones begin a day before all times
INSERT INTO ev VALUES ('infinity', 'infinity', 1), ('-infinity', '-infinity', 1), (NULL, NULL, 1),
	('4714-11-24 00:00:00Z BC', '4714-11-24 00:00:00 BC', 0), ('4714-11-24 10:20:30.4Z BC', '4714-11-24 10:20:30.4 BC', 0),
	('294276-12-31 23:59:59.999999Z', '294276-12-31 23:59:59.999999', 1),
	('0001-01-01 00:00:00Z BC', '0001-12-31 23:59:59.999999 BC', 1), ('1969-12-31 23:59:59.999999Z', '1969-12-31 23:59:59.999999', 1),
	('1999-12-31 23:59:59.999999Z', '1999-12-31 23:59:59.999999', 1), ('2000-01-01 00:00:00Z', '2000-01-01 00:00:00', 1);
INSERT INTO ev SELECT t, t AT TIME ZONE 'UTC', i FROM generate_series(1, 1000) i,
	LATERAL (SELECT timestamptz '1890-03-04 05:06:07.891Z' + i * interval '50 days 7 hours 11 minutes 13.17 seconds' AS t) x;
-- each with the settings that its views have
CREATE FUNCTION checked(zone text, VARIADIC views text[]) RETURNS TABLE (view text, result text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('timezone', zone, true);
	RETURN QUERY SELECT v, c FROM unnest(views) v, LATERAL test.check(v::regclass) c;
END $$;
SELECT * FROM checked('UTC', 'utc', 'utc_n', 'by_row');
SELECT * FROM checked('Etc/UTC', 'etc', 'etc_n');
SELECT * FROM checked('utc', 'small', 'small_n');
SELECT * FROM checked('GMT', 'gmt', 'gmt_n');
SELECT * FROM checked('Europe/London', 'london', 'london_n');
SELECT * FROM checked('Asia/Kolkata', 'india', 'india_n');
SELECT * FROM checked('-01:30', 'offset', 'offset_n');

-- an owner who may not call what is called instead
CREATE ROLE regress_trunc;
GRANT CREATE, USAGE ON SCHEMA public TO regress_trunc;
CREATE TABLE own (ts timestamptz);
ALTER TABLE own OWNER TO regress_trunc;
REVOKE EXECUTE ON FUNCTION streamext.tumble(timestamptz, interval) FROM PUBLIC;
SET ROLE regress_trunc;
CREATE MATERIALIZED VIEW of_own WITH (streamext.continuous) AS SELECT date_trunc('hour', ts) AS w, count(*) AS n FROM own GROUP BY 1;
INSERT INTO own VALUES ('2024-01-01 10:20Z'), ('2024-01-01 10:30Z'), ('2024-01-01 11:00Z');
RESET ROLE;
SELECT test.check('of_own');
-- who may for a while: a plan that calls it is made, and made again
GRANT EXECUTE ON FUNCTION streamext.tumble(timestamptz, interval) TO PUBLIC;
INSERT INTO own VALUES ('2024-01-01 11:20Z');
SELECT test.check('of_own');
REVOKE EXECUTE ON FUNCTION streamext.tumble(timestamptz, interval) FROM PUBLIC;
INSERT INTO own VALUES ('2024-01-01 11:40Z');
SELECT test.check('of_own');
SELECT last_error FROM streamext.status WHERE view = 'of_own'::regclass;
DROP MATERIALIZED VIEW of_own;
GRANT EXECUTE ON FUNCTION streamext.tumble(timestamptz, interval) TO PUBLIC;
REVOKE ALL ON SCHEMA public FROM regress_trunc;
DROP TABLE own;
DROP ROLE regress_trunc;
