-- How far event time has come: watermarks of all types, what moves them and what does not, and which windows
-- they close.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE FUNCTION marks() RETURNS TABLE (view regclass, watermark timestamptz, number int8, held_by text) LANGUAGE sql AS
$$ SELECT s.view, s.watermark, s.watermark_number, s.watermark_held_by FROM streamext.status s ORDER BY s.view::text $$;

-- the latest event time less the delay; earlier rows do not move it back, nor does a longer delay
CREATE TABLE a (ts timestamptz NOT NULL, k text, v int);
SELECT streamext.create_stream('a', event_time => 'ts', watermark_delay => '10 seconds');
CREATE MATERIALIZED VIEW a_min WITH (streamext.continuous) AS
SELECT k, streamext.tumble(ts, '1 minute') AS w, count(*) AS n FROM a GROUP BY 1, 2;
SELECT streamext.wait_for();
SELECT * FROM marks();
SELECT streamext.watermark('a');
INSERT INTO a VALUES ('2024-03-01 10:00:30Z', 'x', 1);
SELECT streamext.wait_for();
SELECT * FROM marks();
INSERT INTO a VALUES ('2024-03-01 10:00:20Z', 'x', 1), ('2024-03-01 10:00:25Z', 'y', 1);
SELECT streamext.wait_for();
SELECT streamext.watermark('a');
SELECT streamext.alter_stream('a', watermark_delay => '1 hour');
INSERT INTO a VALUES ('2024-03-01 10:00:40Z', 'x', 1);
SELECT streamext.wait_for();
SELECT streamext.watermark('a');
SELECT streamext.alter_stream('a', watermark_delay => '0');
INSERT INTO a VALUES ('2024-03-01 10:00:50Z', 'x', 1);
SELECT streamext.wait_for();
SELECT streamext.watermark('a');

-- stored with the position
SELECT streamext.flush();
SELECT timestamptz '2000-01-01 00:00:00Z' + watermark * interval '1 microsecond' AS stored FROM streamext.view_position;

-- a row that is rolled back was never there
BEGIN;
INSERT INTO a VALUES ('2024-03-01 11:00:00Z', 'x', 1);
ROLLBACK;
INSERT INTO a VALUES ('2024-03-01 10:00:45Z', 'x', 1);
SELECT streamext.wait_for();
SELECT streamext.watermark('a');

-- infinite times, and those too far ahead of the clock, count as rows only
INSERT INTO a VALUES ('infinity', 'far', 1), ('-infinity', 'far', 1), (now() + interval '1 day', 'far', 1);
SELECT streamext.wait_for();
SELECT streamext.watermark('a');
SELECT late_rows, future_rows, idle FROM streamext.streams;
SELECT test.check('a_min');
SELECT streamext.alter_stream('a', max_future => '100 years');
INSERT INTO a VALUES ('2124-03-01 10:00:00Z', 'far', 1), ('294000-01-01 00:00Z', 'far', 1);
SELECT streamext.wait_for();
SELECT streamext.watermark('a') > now() + interval '90 years' AS moved, future_rows FROM streamext.streams;

-- history counts: a view begins with the watermark of the rows that are there
CREATE TABLE b (ts timestamptz NOT NULL, v int);
INSERT INTO b SELECT timestamptz '2024-01-01 00:00Z' + i * interval '1 minute', i FROM generate_series(0, 1000) i;
INSERT INTO b VALUES ('infinity', 0), (now() + interval '1 year', 0);
SELECT streamext.create_stream('b', event_time => 'ts');
CREATE MATERIALIZED VIEW b_hour WITH (streamext.continuous) AS
SELECT streamext.tumble(ts, '1 hour') AS w, count(*) AS n, sum(v) AS s FROM b GROUP BY 1;
CREATE MATERIALIZED VIEW b_nodata WITH (streamext.continuous) AS
SELECT streamext.tumble(ts, '1 hour') AS w, count(*) AS n FROM b GROUP BY 1 WITH NO DATA;
SELECT streamext.wait_for();
SELECT view, watermark FROM marks() WHERE view::text LIKE 'b%';
SELECT streamext.watermark('b');
INSERT INTO b VALUES ('2024-01-01 12:00Z', 5);
SELECT streamext.wait_for();
SELECT view, watermark, held_by FROM marks() WHERE view::text LIKE 'b%';
SELECT late_rows FROM streamext.status WHERE view = 'b_hour'::regclass;
SELECT test.check('b_hour');
-- a row of history that fails: history by rows
CREATE MATERIALIZED VIEW b_fails WITH (streamext.continuous) AS
SELECT streamext.tumble(ts, '1 hour') AS w, count(*) AS n, sum(1 / (v - 7)) AS s FROM b GROUP BY 1;
SELECT streamext.wait_for();
SELECT view, watermark FROM marks() WHERE view::text = 'b_fails';

-- the stream's rows move it, whatever becomes of them: conditions, joins that find nothing, queries that need no row
CREATE TABLE c (ts timestamptz NOT NULL, k int);
CREATE TABLE nothing (k int PRIMARY KEY);
SELECT streamext.create_stream('c', event_time => 'ts');
CREATE MATERIALIZED VIEW c_where WITH (streamext.continuous) AS SELECT count(*) AS n FROM c WHERE k < 0;
CREATE MATERIALIZED VIEW c_false WITH (streamext.continuous) AS SELECT count(*) AS n FROM c WHERE false;
CREATE MATERIALIZED VIEW c_join WITH (streamext.continuous, streamext.stream = 'c') AS
SELECT c.k, count(*) AS n FROM c JOIN nothing USING (k) GROUP BY 1;
CREATE MATERIALIZED VIEW c_rows WITH (streamext.continuous) AS SELECT k FROM c;
SELECT streamext.wait_for();
INSERT INTO c VALUES ('2024-05-01 10:00Z', 1);
INSERT INTO c SELECT timestamptz '2024-05-01 09:00Z' + i * interval '1 second', i FROM generate_series(1, 5000) i;
SELECT streamext.wait_for();
SELECT view, watermark FROM marks() WHERE view::text LIKE 'c_%';
DROP MATERIALIZED VIEW c_where, c_false, c_join, c_rows;

-- a transaction so large that it is computed while it is open
BEGIN;
INSERT INTO a SELECT timestamptz '2024-03-01 12:00Z' + i * interval '1 millisecond', 'big', i FROM generate_series(1, 30000) i;
INSERT INTO b SELECT timestamptz '2024-03-01 12:00Z' + i * interval '1 millisecond', i FROM generate_series(1, 30000) i;
COMMIT;
SELECT streamext.wait_for();
SELECT streamext.watermark('b');
SELECT test.check('a_min'), test.check('b_hour');

-- partitions are one stream
CREATE TABLE p (ts timestamp NOT NULL, k int NOT NULL) PARTITION BY LIST (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 (k int NOT NULL, gone text, ts timestamp NOT NULL);
ALTER TABLE p2 DROP COLUMN gone;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
SELECT streamext.create_stream('p', event_time => 'ts', watermark_delay => '1 day');
CREATE MATERIALIZED VIEW p_day WITH (streamext.continuous) AS SELECT date_trunc('day', ts) AS d, count(*) AS n FROM p GROUP BY 1;
SELECT streamext.wait_for();
INSERT INTO p VALUES ('2024-02-28 12:00', 1), ('2024-03-01 12:00', 2), ('2024-02-29 12:00', 1);
SELECT streamext.wait_for();
SELECT streamext.watermark('p');
SET timezone = 'America/New_York';
SELECT streamext.watermark('p'); -- as it stands in the rows
SET timezone = 'UTC';
SELECT streamext.flush();
SELECT d, n, streamext.is_final('p_day', d) FROM p_day ORDER BY 1;

-- date and bigint
CREATE TABLE d (day date NOT NULL, v int);
SELECT streamext.create_stream('d', event_time => 'day', watermark_delay => '1 day');
CREATE MATERIALIZED VIEW d_month WITH (streamext.continuous) AS SELECT streamext.tumble(day, '1 month') AS m, count(*) AS n FROM d GROUP BY 1;
CREATE MATERIALIZED VIEW d_day WITH (streamext.continuous) AS SELECT day, count(*) AS n FROM d GROUP BY 1;
CREATE TABLE n (id bigint NOT NULL, v int);
SELECT streamext.create_stream('n', event_time => 'id');
CREATE MATERIALIZED VIEW n_ten WITH (streamext.continuous) AS SELECT streamext.tumble(id, 10) AS w, count(*) AS n FROM n GROUP BY 1;
CREATE MATERIALIZED VIEW n_div WITH (streamext.continuous) AS SELECT id / 10 AS w, count(*) AS n FROM n GROUP BY 1;
SELECT streamext.wait_for();
INSERT INTO d VALUES ('infinity', 1), ('-infinity', 1), ('4713-01-01 BC', 1), ('0044-03-15 BC', 1), ('5874897-12-31', 1);
INSERT INTO n VALUES (-9223372036854775808, 1), (-25, 1), (-11, 1);
SELECT streamext.wait_for();
SELECT view, watermark, number FROM marks() WHERE view::text ~ '^[dn]_';
INSERT INTO d VALUES ('2024-02-29', 1), ('2024-03-01', 1), ('2024-02-01', 1);
INSERT INTO n VALUES (7, 1), (25, 1);
SELECT streamext.wait_for();
SELECT view, watermark, number FROM marks() WHERE view::text ~ '^[dn]_';
SELECT streamext.flush();
SELECT m, n, streamext.is_final('d_month', m) FROM d_month ORDER BY 1;
SELECT day, n, streamext.is_final('d_day', day) FROM d_day ORDER BY 1;
SELECT w, n, streamext.is_final('n_ten', w) FROM n_ten ORDER BY 1;
SELECT w, n, streamext.is_final('n_div', w) FROM n_div ORDER BY 1;
INSERT INTO n VALUES (9223372036854775807, 1);
SELECT streamext.wait_for();
SELECT streamext.watermark('n'), watermark_number, future_rows FROM streamext.streams WHERE stream = 'n'::regclass;
SELECT test.check('d_day'), test.check('n_div');
-- beyond what a window can be found for
SELECT streamext.flush();
SELECT view, "row", reason, message FROM streamext.dead_letters;
SELECT test.check('d_month', $$SELECT streamext.tumble(day, '1 month'), count(*) FROM d WHERE day <> '5874897-12-31' GROUP BY 1$$),
	test.check('n_ten', 'SELECT streamext.tumble(id, 10), count(*) FROM n WHERE id > -9223372036854775808 GROUP BY 1');

-- what makes a window: all that rises with the event time
CREATE TABLE e (ts timestamptz NOT NULL, other timestamptz NOT NULL, local timestamp NOT NULL, k int);
SELECT streamext.create_stream('e', event_time => 'ts');
CREATE FUNCTION is_window(expr text, from_clause text DEFAULT 'e', stream text DEFAULT 'streamext.stream = ''e'',') RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	answer text;
BEGIN
	EXECUTE format('CREATE MATERIALIZED VIEW try_it WITH (streamext.continuous, %s streamext.emit = ''on_close'') AS SELECT %s AS w, count(*) FROM %s GROUP BY 1',
				   stream, expr, from_clause);
	DROP MATERIALIZED VIEW try_it;
	RETURN 'yes';
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS answer = PG_EXCEPTION_DETAIL;
	RETURN answer;
END
$$;
SET client_min_messages = warning;
SELECT expr, is_window(expr) FROM (VALUES
	('ts'), ('streamext.tumble(ts, ''1 hour'')'), ('streamext.tumble(ts, ''1 month'', timezone => ''Europe/Berlin'')'),
	('streamext.hop(ts, ''5 min'', ''1 hour'')'), ('streamext.cumulate(ts, ''1 hour'', ''1 day'')'),
	('date_trunc(''day'', ts)'), ('date_trunc(''day'', ts, ''Asia/Tokyo'')'), ('date_bin(''15 min'', ts, ''epoch'')'),
	('ts::date'), ('date_trunc(''month'', ts::date)'), ('date_trunc(''hour'', ts AT TIME ZONE ''UTC'')'),
	('(ts AT TIME ZONE ''-05'')::date'),
	-- these do not, or may fall
	('other'), ('streamext.tumble(other, ''1 hour'')'), ('date_trunc(''hour'', ts AT TIME ZONE ''Europe/Berlin'')'),
	('extract(hour from ts)'), ('k'), ('to_char(ts, ''HH24'')'), ('date_trunc(''hour'', local)'),
	('streamext.tumble(ts, k * interval ''1 hour'')')) v (expr);
SELECT is_window('streamext.tumble(at, ''1 hour'')', '(SELECT k, ts AS at FROM e) x', ''),
	is_window('streamext.tumble(day, ''1 week'')', '(SELECT ts::date AS day FROM e) x', ''),
	is_window('streamext.tumble(x.ts, ''1 hour'')', 'e x JOIN nothing USING (k)'),
	is_window('streamext.tumble(ts, ''1 hour'')', 'e x LEFT JOIN nothing n USING (k)'),
	is_window('streamext.tumble(other, ''1 hour'')', '(SELECT ts AS other FROM e) x', '');
CREATE MATERIALIZED VIEW e_with WITH (streamext.continuous, streamext.emit = 'on_close') AS
WITH x AS (SELECT ts FROM e) SELECT streamext.tumble(ts, '1 hour') AS w, count(*) AS n FROM x GROUP BY 1;
RESET client_min_messages;

-- refused
CREATE TABLE f (ts timestamptz NOT NULL, k int);
CREATE MATERIALIZED VIEW f_v WITH (streamext.continuous, streamext.emit = 'on_close') AS SELECT streamext.tumble(ts, '1 hour') AS w, count(*) FROM f GROUP BY 1;
CREATE MATERIALIZED VIEW f_v WITH (streamext.continuous, streamext.emit = 'sometimes') AS SELECT streamext.tumble(ts, '1 hour') AS w, count(*) FROM f GROUP BY 1;
CREATE MATERIALIZED VIEW f_v WITH (streamext.continuous) AS SELECT streamext.tumble(ts, '1 hour') AS w, count(*) FROM f GROUP BY 1;
SELECT streamext.is_final('f_v', now());
SELECT streamext.is_final('f', now());
SELECT streamext.is_final('a_min', 1);
SELECT streamext.is_final('a_min', NULL::timestamptz);
ALTER MATERIALIZED VIEW f_v SET (streamext.emit = 'on_close');
-- the event time may come later
SELECT streamext.alter_stream('f', event_time => 'ts');
SELECT streamext.wait_for();
INSERT INTO f VALUES ('2024-01-01 00:30Z', 1), ('2024-01-01 01:00Z', 1);
SELECT streamext.wait_for();
SELECT streamext.flush();
SELECT w, count, streamext.is_final('f_v', w) FROM f_v ORDER BY 1;
CREATE TABLE n2 (id bigint NOT NULL);
SELECT streamext.create_stream('n2', event_time => 'id', watermark_delay => '1 second');
SELECT streamext.create_stream('n2', event_time => 'id', allowed_lateness => '1 second');
SELECT streamext.create_stream('n2', event_time => 'id', idle_timeout => '1 second');
SELECT streamext.create_stream('n2', event_time => 'id');
SELECT streamext.alter_stream('n2', watermark_delay => '1 second');

-- windows that are open, of every kind: as many as the view has rows that are not final
CREATE TABLE many (ts timestamptz NOT NULL);
SELECT streamext.create_stream('many', event_time => 'ts', watermark_delay => '1 hour');
CREATE MATERIALIZED VIEW open_month WITH (streamext.continuous) AS SELECT date_trunc('month', ts) AS w, count(*) AS n FROM many GROUP BY 1;
CREATE MATERIALIZED VIEW open_tumble WITH (streamext.continuous) AS SELECT streamext.tumble(ts, '5 minutes') AS w, count(*) AS n FROM many GROUP BY 1;
CREATE MATERIALIZED VIEW open_hop WITH (streamext.continuous) AS SELECT streamext.hop(ts, '5 minutes', '20 minutes') AS w, count(*) AS n FROM many GROUP BY 1;
CREATE MATERIALIZED VIEW open_cumulate WITH (streamext.continuous) AS SELECT streamext.cumulate(ts, '10 minutes', '1 hour') AS w, count(*) AS n FROM many GROUP BY 1;
CREATE MATERIALIZED VIEW open_none WITH (streamext.continuous) AS SELECT count(*) AS n FROM many;
INSERT INTO many SELECT '2026-01-31 22:30+00'::timestamptz + i * interval '1 minute' FROM generate_series(0, 100) i;
SELECT streamext.flush();
SELECT view, open_windows FROM streamext.status WHERE view::text LIKE 'open%' ORDER BY view::text;
SELECT (SELECT count(*) FROM open_month WHERE NOT streamext.is_final('open_month', w)) AS month,
	(SELECT count(*) FROM open_tumble WHERE NOT streamext.is_final('open_tumble', w)) AS tumble,
	(SELECT count(*) FROM open_hop WHERE NOT streamext.is_final('open_hop', w)) AS hop,
	(SELECT count(*) FROM open_cumulate WHERE NOT streamext.is_final('open_cumulate', w)) AS cumulate;
