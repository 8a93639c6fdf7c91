-- hop() over an event time: states of panes while windows are open, rows of their own when they have closed.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- a pane is the last window of what is in it; so its windows are those of its rows
SELECT bool_and(array(SELECT streamext.hop(t, '10 minutes', '1 hour')) = array(SELECT streamext.hop(streamext.hop_pane(t, '10 minutes', '1 hour'), '10 minutes', '1 hour')))
	AND bool_and(array(SELECT streamext.hop(t, '1 day', '3 days', 'Europe/Berlin')) = array(SELECT streamext.hop(streamext.hop_pane(t, '1 day', '3 days', 'Europe/Berlin'), '1 day', '3 days', 'Europe/Berlin')))
	AND bool_and(array(SELECT streamext.hop(t, '1 month', '1 year', 'Pacific/Apia')) = array(SELECT streamext.hop(streamext.hop_pane(t, '1 month', '1 year', 'Pacific/Apia'), '1 month', '1 year', 'Pacific/Apia')))
	AND bool_and(array(SELECT streamext.hop(t, '7 days', '14 days', '2000-01-01'::timestamptz)) = array(SELECT streamext.hop(streamext.hop_pane(t, '7 days', '14 days', '2000-01-01'::timestamptz), '7 days', '14 days', '2000-01-01'::timestamptz)))
	AND bool_and(array(SELECT streamext.hop(t::timestamp, '1 month', '3 months')) = array(SELECT streamext.hop(streamext.hop_pane(t::timestamp, '1 month', '3 months'), '1 month', '3 months')))
	AND bool_and(array(SELECT streamext.hop(t::date, '2 days', '6 days')) = array(SELECT streamext.hop(streamext.hop_pane(t::date, '2 days', '6 days'), '2 days', '6 days'))) AS same
	FROM (SELECT '2026-03-20 00:00+00'::timestamptz + i * interval '3 hours 11.5 seconds' AS t FROM generate_series(0, 2500) i
	UNION ALL SELECT '2011-12-27 00:00+00'::timestamptz + i * interval '1 hour' FROM generate_series(0, 150) i
	UNION ALL VALUES ('infinity'::timestamptz), ('-infinity')) m;
SELECT streamext.hop_pane(9223372036854775807, 5, 10), streamext.hop_pane(-11, 5, 10), streamext.hop_pane(-11, 5, 10, 1);
SELECT streamext.hop_pane(-9223372036854775807, 5, 10);
SELECT streamext.hop_pane(1::bigint, 3, 10);

-- every type of time; rows in any order, before and after windows have closed
CREATE TABLE ev (ts timestamptz NOT NULL, local timestamp NOT NULL, day date NOT NULL, id bigint NOT NULL, k text, v numeric);
CREATE FUNCTION rows_of(first int, last int) RETURNS SETOF ev LANGUAGE sql AS $$
	SELECT t, t::timestamp, t::date, i * 13 - 40000, CASE i % 5 WHEN 0 THEN NULL ELSE 'k' || i % 5 END, i / 7.0
	FROM generate_series(first, last) i, LATERAL (SELECT '2026-03-20 00:00+00'::timestamptz + i * interval '17 minutes 3 seconds') m(t) $$;
CREATE FUNCTION streams() RETURNS SETOF text LANGUAGE sql AS $$ VALUES ('ts'), ('local'), ('day'), ('id') $$;
DO $$
DECLARE c text;
BEGIN
	FOR c IN SELECT streams() LOOP
		EXECUTE format('CREATE TABLE ev_%1$s (LIKE ev INCLUDING ALL); SELECT streamext.create_stream(''ev_%1$s'', event_time => %1$L, max_future => ''100 years'')', c);
	END LOOP;
END $$;
CREATE MATERIALIZED VIEW of_ts WITH (streamext.continuous) AS
SELECT k, streamext.hop(ts, '15 minutes', '2 hours') AS w, count(*) AS n, sum(v) AS s, avg(v) AS a, max(k) AS m FROM ev_ts GROUP BY 1, 2;
CREATE MATERIALIZED VIEW of_zone WITH (streamext.continuous) AS
SELECT streamext.hop(ts, timezone => 'Europe/Berlin', slide => '1 day', size => '3 days') AS w, k, count(*) AS n, stddev(v) AS d FROM ev_ts GROUP BY 1, 2;
CREATE MATERIALIZED VIEW of_origin WITH (streamext.continuous) AS
SELECT streamext.hop(ts, '1 hour', '6 hours', '2000-01-01 00:30+00'::timestamptz) AS w, count(v) AS n FROM ev_ts WHERE v > 3 GROUP BY 1 HAVING count(v) > 10;
CREATE MATERIALIZED VIEW of_local WITH (streamext.continuous) AS
SELECT streamext.hop(local, '1 month', '3 months') AS w, k, bool_and(v > 3) AS b, min(v) AS l FROM ev_local GROUP BY 2, 1;
CREATE MATERIALIZED VIEW of_day WITH (streamext.continuous) AS
SELECT k, streamext.hop(day, '1 day', '7 days') AS w, count(*) AS n FROM ev_day GROUP BY k, streamext.hop(day, '1 day', '7 days');
CREATE MATERIALIZED VIEW of_id WITH (streamext.continuous) AS
SELECT streamext.hop(id, 100, 700) AS w, count(*) AS n FROM ev_id GROUP BY 1;
SELECT view, panes, nkeys FROM streamext.view_def ORDER BY view::text;
CREATE FUNCTION add(first int, last int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE c text;
BEGIN
	FOR c IN SELECT streams() LOOP
		EXECUTE format('INSERT INTO ev_%1$s SELECT * FROM rows_of(%2$s, %3$s) ORDER BY v * 7 %% 11', c, first, last);
	END LOOP;
END $$;
SELECT add(1, 400);
SELECT * FROM test.check_all();
SELECT add(401, 6000);
SELECT * FROM test.check_all();
-- late ones, far back and near, live and flushed
SELECT add(300, 310), add(5900, 5950);
SELECT * FROM test.check_all();
DO $$
DECLARE c text;
BEGIN
	FOR c IN SELECT streams() LOOP
		EXECUTE format('INSERT INTO ev_%1$s SELECT ''2020-02-29 12:00+00'', ''2020-02-29 12:00'', ''2020-02-29'', -1000000, ''old'', 1', c);
		EXECUTE format('INSERT INTO ev_%1$s SELECT ''4000-01-01 BC'', ''4000-01-01 BC'', ''4000-01-01 BC'', -9000000000000000000, ''ancient'', 1', c);
		EXECUTE format('INSERT INTO ev_%1$s SELECT ''-infinity'', ''-infinity'', ''-infinity'', 0, ''before all'', 1', c);
		EXECUTE format('INSERT INTO ev_%1$s SELECT ''infinity'', ''infinity'', ''infinity'', 9000000000000000000, ''after all'', 1', c);
	END LOOP;
END $$;
SELECT * FROM test.check_all();
-- history
CREATE MATERIALIZED VIEW of_history WITH (streamext.continuous) AS
SELECT k, streamext.hop(ts, '15 minutes', '2 hours') AS w, count(*) AS n, sum(v) AS s, avg(v) AS a, max(k) AS m FROM ev_ts GROUP BY 1, 2;
SELECT test.check('of_history');
SELECT count(*) FROM (TABLE of_history EXCEPT ALL TABLE of_ts) d;
SELECT * FROM streamext.verify('of_history') UNION ALL SELECT * FROM streamext.verify('of_ts');
-- a row whose windows do not exist is a dead letter, as under the query by itself
INSERT INTO ev_id VALUES (now(), now(), now(), -9223372036854775807, 'x', 1);
SELECT streamext.wait_for('of_id');
SELECT streamext.flush();
SELECT view, "row" -> 'id' AS id, message FROM streamext.dead_letters;
DROP MATERIALIZED VIEW of_id, of_day, of_local, of_origin, of_zone, of_history;
SELECT streamext.explain('of_ts') LIMIT 5;

-- reading, with late rows live
ALTER MATERIALIZED VIEW of_ts SET (streamext.flush_interval = '1h');
CREATE INDEX ON of_ts (n);
SELECT streamext.flush();
INSERT INTO ev_ts SELECT * FROM rows_of(1000, 1003);
INSERT INTO ev_ts SELECT * FROM rows_of(6001, 6010);
SELECT streamext.wait_for();
SELECT * FROM of_ts WHERE k = 'k1' AND w = '2026-03-31 20:00+00';
SELECT * FROM of_ts WHERE w <= '2026-03-31 20:15+00' AND w < 'infinity' ORDER BY w DESC, k LIMIT 3;
SELECT * FROM of_ts WHERE w < 'infinity' ORDER BY w DESC, k LIMIT 3;
SELECT count(*), sum(n) FROM of_ts a JOIN (SELECT k, w FROM of_ts) b USING (k, w);
BEGIN;
DECLARE c CURSOR FOR SELECT k, w, n FROM of_ts WHERE w BETWEEN '2026-03-31 20:00+00' AND '2026-03-31 20:15+00' ORDER BY k, w;
FETCH 2 FROM c;
FETCH ALL FROM c;
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT n FROM of_ts WHERE k = 'k1' AND w = '2026-03-31 20:00+00';
COMMIT;
CREATE TABLE copied (w timestamptz, k text, n bigint DEFAULT 0);
INSERT INTO copied VALUES ('2026-03-31 20:00+00', 'k1'), ('2026-03-31 20:15+00', 'k2');
UPDATE copied c SET n = v.n FROM of_ts v WHERE v.w = c.w AND v.k = c.k;
SELECT * FROM copied ORDER BY k;
SELECT c.n = v.n AS same FROM copied c JOIN of_ts v USING (w, k) ORDER BY k FOR UPDATE OF c;
DELETE FROM copied c USING of_ts v WHERE v.w = c.w AND v.k = c.k;
SELECT count(*) FROM copied;
INSERT INTO of_ts VALUES ('k1');
SELECT streamext.flush();
SELECT test.check('of_ts');
DROP TABLE copied;

-- renamed columns, another owner, dropped things
ALTER MATERIALIZED VIEW of_ts RENAME COLUMN w TO window_start;
SELECT count(*) > 0 AS any, bool_and(streamext.is_final('of_ts', window_start)) FROM of_ts WHERE window_start < '2026-05-01';
ALTER TABLE ev_ts DROP COLUMN ts;
ALTER TABLE ev_ts DROP COLUMN ts CASCADE;
SELECT count(*) FROM streamext.view_def;

-- closed windows only; a sink, with corrections; retention
CREATE TABLE tx (at timestamptz NOT NULL, card text, amount int NOT NULL);
SELECT streamext.create_stream('tx', event_time => 'at', watermark_delay => '10 seconds');
CREATE MATERIALIZED VIEW sliding WITH (streamext.continuous) AS
SELECT card, streamext.hop(at, '10 seconds', '30 seconds') AS w, count(*) AS n, avg(amount)::int AS a FROM tx GROUP BY 1, 2;
CREATE MATERIALIZED VIEW final WITH (streamext.continuous, streamext.emit = 'on_close') AS
SELECT card, streamext.hop(at, '10 seconds', '30 seconds') AS w, count(*) AS n, avg(amount)::int AS a FROM tx GROUP BY 1, 2;
CREATE MATERIALIZED VIEW recent WITH (streamext.continuous, streamext.retention = '1 minute') AS
SELECT card, streamext.hop(at, '10 seconds', '30 seconds') AS w, count(*) AS n FROM tx GROUP BY 1, 2;
CREATE TABLE closed (id serial, card text, w timestamptz, n bigint, a int);
CREATE TABLE corrected (LIKE closed INCLUDING ALL);
SELECT streamext.create_sink('sliding', 'closed'), streamext.create_sink('final', 'corrected', corrections => true);
INSERT INTO tx SELECT '2026-01-01 10:00+00'::timestamptz + i * interval '1 second', 'c' || i % 2, i FROM generate_series(0, 59) i;
SELECT streamext.wait_for();
SELECT w, n, a FROM sliding WHERE card = 'c1' ORDER BY w;
-- windows are final when that is stored
SELECT streamext.flush();
SELECT * FROM final ORDER BY w, card;
SELECT card, w, n, a FROM closed ORDER BY w, card;
-- late for the first two windows, and for none
INSERT INTO tx VALUES ('2026-01-01 10:00:05+00', 'c1', 100), ('2026-01-01 10:00:05+00', 'late', 100), ('2026-01-01 10:00:58+00', 'c1', 100);
SELECT streamext.wait_for();
SELECT * FROM final WHERE card IN ('c1', 'late') ORDER BY w, card;
SELECT test.check('sliding'), test.check('recent');
SELECT * FROM final WHERE card IN ('c1', 'late') ORDER BY w, card;
SELECT card, w, n, a FROM corrected WHERE card IN ('c1', 'late') ORDER BY card, w, n;
SELECT count(*) FROM closed;
SELECT view, late_rows FROM streamext.status ORDER BY view::text;
INSERT INTO tx SELECT '2026-01-01 10:01+00'::timestamptz + i * interval '1 second', 'c' || i % 2, i FROM generate_series(0, 119) i;
SELECT streamext.flush();
SELECT test.until($$SELECT min(w) = '2026-01-01 10:01:20+00' FROM recent$$);
-- windows that are past it take no more rows, others of the same pane do
INSERT INTO tx VALUES ('2026-01-01 10:01:35+00', 'edge', 1);
SELECT streamext.wait_for();
SELECT * FROM recent WHERE card = 'edge' ORDER BY w;
SELECT streamext.flush();
SELECT * FROM recent WHERE card = 'edge' ORDER BY w;
SELECT * FROM streamext.verify('recent');
INSERT INTO tx VALUES ('2026-01-01 10:01:15+00', 'edge', 1);
SELECT streamext.wait_for();
SELECT * FROM recent WHERE card = 'edge' ORDER BY w;
SELECT view, late_rows, dropped_rows FROM streamext.status ORDER BY view::text;
SELECT test.check('sliding');

-- alerts: of open windows, and of closed ones that late rows change
SELECT streamext.create_alert('burst', 'sliding', 'n >= 40', 'burst');
INSERT INTO tx SELECT '2026-01-01 10:03:05+00', 'burst', 1 FROM generate_series(1, 40);
INSERT INTO tx SELECT '2026-01-01 10:00:35+00', 'c0', 1 FROM generate_series(1, 25);
SELECT test.until('SELECT count(*) >= 6 FROM streamext.alerts');
INSERT INTO tx SELECT '2026-01-01 10:03:12+00', 'burst', 1 FROM generate_series(1, 5);
INSERT INTO tx SELECT '2026-01-01 10:03:22+00', 'burst', 1 FROM generate_series(1, 39);
SELECT test.until('SELECT count(*) >= 7 FROM streamext.alerts');
SELECT "group", "row" -> 'n' AS n FROM streamext.alerts ORDER BY "group" ->> 'card', "group" ->> 'w';
SELECT card, w, n FROM sliding WHERE n >= 40 ORDER BY card, w;
SELECT state, reported, last_error FROM streamext.alert_status;
SELECT streamext.drop_alert('burst');

-- dead letters that are counted in afterwards, when windows have closed
CREATE MATERIALIZED VIEW failing WITH (streamext.continuous) AS
SELECT streamext.hop(at, '10 seconds', '30 seconds') AS w, count(*) AS n, sum(100 / amount) AS s FROM tx GROUP BY 1;
SELECT streamext.wait_for();
INSERT INTO tx VALUES ('2026-01-01 10:03:30+00', 'zero', 0);
INSERT INTO tx VALUES ('2026-01-01 10:10:00+00', 'z', 1);
SELECT streamext.flush();
SELECT view, message FROM streamext.dead_letters WHERE view = 'failing'::regclass;
UPDATE streamext.dead_letter SET "row" = "row" || '{"amount": 50}' WHERE view = 'failing'::regclass;
SELECT streamext.retry_dead_letters('failing');
SELECT test.check('failing', $$SELECT streamext.hop(at, '10 seconds', '30 seconds'), count(*), sum(100 / CASE amount WHEN 0 THEN 50 ELSE amount END) FROM tx GROUP BY 1$$);

-- where rows may be late for some windows of a pane only, each window has its state
SELECT streamext.alter_stream('tx', late_rows => 'drop');
SELECT streamext.alter_stream('tx', late_rows => 'merge', allowed_lateness => '5 minutes');
INSERT INTO tx VALUES ('2026-01-01 10:03:30+00', 'later', 3);
SELECT test.check('sliding');
DROP MATERIALIZED VIEW sliding, final, recent, failing;
SELECT streamext.alter_stream('tx', late_rows => 'drop');
CREATE MATERIALIZED VIEW sliding WITH (streamext.continuous) AS
SELECT card, streamext.hop(at, '10 seconds', '30 seconds') AS w, count(*) AS n FROM tx GROUP BY 1, 2;
SELECT view, panes FROM streamext.view_def;
SELECT streamext.alter_stream('tx', late_rows => 'merge');
SELECT test.check('sliding');

-- other keys that return sets go in step with hop(): windows keep their own states
CREATE TABLE far (id bigint NOT NULL, id2 bigint NOT NULL, k int);
SELECT streamext.create_stream('far', event_time => 'id');
CREATE MATERIALIZED VIEW two WITH (streamext.continuous) AS
SELECT streamext.hop(id, 100, 300) AS w, streamext.hop(id2, 10, 30) AS x, count(*) AS n FROM far GROUP BY 1, 2;
CREATE MATERIALIZED VIEW series WITH (streamext.continuous) AS
SELECT streamext.hop(id, 100, 300) AS w, generate_series(1, k) AS x, count(*) AS n FROM far GROUP BY 1, 2;
CREATE MATERIALIZED VIEW inner_hop WITH (streamext.continuous) AS
SELECT w, count(*) AS n FROM (SELECT streamext.hop(id, 100, 300) AS w FROM far) s GROUP BY 1;
CREATE MATERIALIZED VIEW one WITH (streamext.continuous) AS
SELECT streamext.hop(id, 100, 300) AS w, count(*) AS n FROM far GROUP BY 1;
CREATE MATERIALIZED VIEW tumbling WITH (streamext.continuous) AS
SELECT streamext.tumble(id, 100) AS w, count(*) AS n FROM far GROUP BY 1;
SELECT streamext.wait_for();
SELECT view, panes FROM streamext.view_def ORDER BY view::text;
-- a row whose windows do not exist is a dead letter, and what closes by it does not fail
INSERT INTO far VALUES (-9223372036854775807, 1, 1);
SELECT streamext.flush();
SELECT view, state, last_error, dead_letters FROM streamext.status ORDER BY view::text;
INSERT INTO far VALUES (-5, 5, 1), (1000, 1005, 3);
SELECT streamext.flush();
INSERT INTO far VALUES (77, 5, 1), (2000, 1005, 3), (9223372036854775000, 9223372036854775000, 2);
SELECT streamext.flush();
INSERT INTO far VALUES (79, 5, 1), (-9223372036854775000, 1, 1);
SELECT test.check('two', $$SELECT streamext.hop(id, 100, 300), streamext.hop(id2, 10, 30), count(*) FROM far WHERE id > -9223372036854775807 GROUP BY 1, 2$$),
	test.check('series', $$SELECT streamext.hop(id, 100, 300), generate_series(1, k), count(*) FROM far WHERE id > -9223372036854775807 GROUP BY 1, 2$$),
	test.check('inner_hop', $$SELECT streamext.hop(id, 100, 300), count(*) FROM far WHERE id > -9223372036854775807 GROUP BY 1$$),
	test.check('one', $$SELECT streamext.hop(id, 100, 300), count(*) FROM far WHERE id > -9223372036854775807 GROUP BY 1$$),
	test.check('tumbling', $$SELECT streamext.tumble(id, 100), count(*) FROM far WHERE id > -9223372036854775807 GROUP BY 1$$);
SELECT view, state, last_error, dead_letters FROM streamext.status ORDER BY view::text;
-- an alert on the last windows there are
SELECT streamext.create_alert('last', 'one', 'n > 1', 'last');
INSERT INTO far VALUES (9223372036854775800, 1, 1), (9223372036854775807, 1, 1);
SELECT test.until($$SELECT count(*) >= 3 FROM streamext.alerts WHERE alert = 'last'$$);
SELECT "group", "row" -> 'n' AS n FROM streamext.alerts WHERE alert = 'last' ORDER BY ("group" ->> 'w')::bigint;
SELECT state, last_error FROM streamext.alert_status;
DROP MATERIALIZED VIEW two, series, inner_hop, one, tumbling CASCADE;

-- the functions by themselves
CREATE AGGREGATE mean(int) (SFUNC = int4_avg_accum, STYPE = bigint[], COMBINEFUNC = int4_avg_combine, FINALFUNC = int8_avg, INITCOND = '{0,0}');
SELECT streamext.merge('mean(int)'::regprocedure, s) FROM (VALUES ('{2,10}'::int8[]), (NULL), ('{1,5}')) v(s);
SELECT streamext.merge('max(text)'::regprocedure, NULL::text);
SELECT streamext.merge('max(text)'::regprocedure, 1);
SELECT streamext.merge(NULL::regprocedure, 1);
SELECT streamext.merge('now()'::regprocedure, 1);
SELECT streamext.pane_boundary('tx', now()), streamext.pane_boundary(NULL, now());
SELECT streamext.pane_boundary('sliding', now());
