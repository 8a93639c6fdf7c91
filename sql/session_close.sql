-- Sessions close when the watermark reaches their end: what is final, late, passed on and forgotten.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- every type of range: final, on_close, late rows merged, and a sink
CREATE FUNCTION make(name text, type text, gap text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE %I (k text, t %s NOT NULL, v int)', name, type);
	PERFORM streamext.create_stream(name::regclass, event_time => 't');
	EXECUTE format('CREATE MATERIALIZED VIEW %s WITH (streamext.continuous) AS SELECT k, streamext.session(t, %L) AS session, count(*) AS n, sum(v) AS s FROM %I GROUP BY 1, 2', 's_' || name, gap, name);
	EXECUTE format('CREATE MATERIALIZED VIEW %s WITH (streamext.continuous, streamext.emit = ''on_close'') AS SELECT streamext.session(t, %L) AS session, k, avg(v) AS a FROM %I GROUP BY 1, 2', 'c_' || name, gap, name);
	EXECUTE format('CREATE TABLE %I (id serial, LIKE %I)', 'd_' || name, 's_' || name);
	PERFORM streamext.create_sink(('s_' || name)::regclass, ('d_' || name)::regclass);
END $$;
CREATE FUNCTION fill(name text, unit text, origin text, points int[], keys text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO %I SELECT k, (%s + p * %s), p FROM unnest($1, $2) u(p, k)', name, origin, unit) USING points, keys;
END $$;
SELECT make('tz', 'timestamptz', '10 minutes'), make('ts', 'timestamp', '10 minutes'), make('d', 'date', '10 days'), make('n', 'bigint', '10');
CREATE TABLE units (name text, unit text, origin text);
INSERT INTO units VALUES ('tz', 'interval ''1 minute''', 'timestamptz ''2026-01-01Z'''), ('ts', 'interval ''1 minute''', 'timestamp ''2026-01-01'''), ('d', '1', 'date ''2026-01-01'''), ('n', '1', '0');
CREATE FUNCTION fill_all(points int[], keys text[]) RETURNS void LANGUAGE sql AS
$$ SELECT fill(name, unit, origin, points, keys) FROM units $$;
SELECT streamext.wait_for();
SELECT test.mask(indexdef), count(*) FROM pg_indexes WHERE schemaname = 'streamext' AND indexdef ~ 'upper' GROUP BY 1;

SELECT fill_all('{0, 5, 12, 3}', '{a, a, b, NULL}');
SELECT fill_all('{14}', '{c}');
SELECT streamext.wait_for();
SELECT streamext.flush();
SELECT session, streamext.is_final('s_tz', session) FROM s_tz WHERE upper(session) > '2026-01-01 00:12Z' ORDER BY 1;
-- one more, and the sessions that end there are closed
SELECT fill_all('{15}', '{c}');
SELECT streamext.wait_for();
SELECT streamext.flush();
SELECT *, streamext.is_final('s_tz', session) FROM s_tz ORDER BY 1, 2;
SELECT *, streamext.is_final('s_ts', session) FROM s_ts ORDER BY 1, 2;
SELECT *, streamext.is_final('s_d', session) FROM s_d ORDER BY 1, 2;
SELECT *, streamext.is_final('s_n', session) FROM s_n ORDER BY 1, 2;
SELECT (SELECT count(*) FROM c_tz), (SELECT count(*) FROM c_ts), (SELECT count(*) FROM c_d), (SELECT count(*) FROM c_n);
TABLE c_d ORDER BY k;
SELECT streamext.flush();
SELECT k, session, n, s FROM d_tz ORDER BY k;
SELECT k, session, n, s FROM d_ts ORDER BY k;
SELECT k, session, n, s FROM d_d ORDER BY k;
SELECT k, session, n, s FROM d_n ORDER BY k;
-- in between: late ones, merged; b is open, and reaches back to what alone would be closed
SELECT fill_all('{1, 4, 14}', '{a, b, b}');
SELECT streamext.wait_for();
SELECT view, late_rows, dropped_rows FROM streamext.status ORDER BY view::text;
SELECT streamext.flush();
SELECT session, n, streamext.is_final('s_tz', session) FROM s_tz WHERE k = 'b';
SELECT fill_all('{200}', '{c}');
SELECT streamext.flush();
-- each once
SELECT k, session, n FROM d_tz ORDER BY session;
SELECT (SELECT count(*) FROM d_ts), (SELECT count(*) FROM d_d), (SELECT count(*) FROM d_n);
SELECT streamext.verify(view) FROM streamext.views;
-- any range of the type may be asked for
SELECT streamext.is_final('s_n', r::int8range) FROM unnest('{empty,"(,)","(,5]","[5,)","[0,200)","[0,200]","[200,200]","[3,4)"}'::text[]) r;
SELECT streamext.is_final('s_tz', r::tstzrange) FROM unnest('{empty,"(,)","(,2026-01-01Z]","[2026-01-01Z,)","[2026-01-01Z,2026-01-01 03:20Z)","[2026-01-01Z,2026-01-01 03:20Z]"}'::text[]) r;
SELECT streamext.is_final('s_tz', NULL::tstzrange), streamext.is_final('s_tz', now());
SELECT streamext.is_final('s_n', '{[1,2)}'::int8multirange);

-- by other expressions of the event time
CREATE MATERIALIZED VIEW by_day WITH (streamext.continuous, streamext.emit = 'on_close') AS SELECT streamext.session(t::date, '2 days') AS session, count(*) AS n FROM ts GROUP BY 1;
CREATE MATERIALIZED VIEW by_ten WITH (streamext.continuous, streamext.emit = 'on_close') AS SELECT streamext.session(n.t / 10, 2) AS session, count(*) AS n FROM n GROUP BY 1;
CREATE MATERIALIZED VIEW by_sign WITH (streamext.continuous) AS SELECT streamext.session(-n.t, 2) AS session, count(*) AS n FROM n GROUP BY 1;
INSERT INTO ts VALUES ('x', '2026-01-02 23:59', 1), ('x', '2026-01-04 23:59', 1);
INSERT INTO n VALUES ('x', 209, 1);
SELECT test.until($$SELECT bool_and(streamext.wait_for(view)) FROM streamext.views$$);
SELECT streamext.flush();
TABLE by_day; TABLE by_ten ORDER BY 1;
INSERT INTO ts VALUES ('x', '2026-01-06 00:00', 1);
INSERT INTO n VALUES ('x', 229, 1);
SELECT streamext.flush();
TABLE by_day; TABLE by_ten ORDER BY 1;
INSERT INTO ts VALUES ('x', '2026-01-08 00:00', 1);
INSERT INTO n VALUES ('x', 230, 1);
SELECT streamext.flush();
TABLE by_day; TABLE by_ten ORDER BY 1;
ALTER MATERIALIZED VIEW by_sign SET (streamext.emit = 'on_close');
SELECT streamext.create_sink('by_sign', 'd_n');
SELECT streamext.is_final('by_sign', '[1,2)'::int8range);
SELECT test.mask(pg_get_viewdef('by_day'));
DROP TABLE tz, ts, d, n, d_tz, d_ts, d_d, d_n CASCADE;

-- What late rows do to sessions that were passed on: once to a sink, again to one with corrections.
CREATE TABLE ev (k text, t bigint NOT NULL);
SELECT streamext.create_stream('ev', event_time => 't');
CREATE MATERIALIZED VIEW s WITH (streamext.continuous) AS SELECT k, streamext.session(t, 10) AS session, count(*) AS n FROM ev GROUP BY 1, 2;
CREATE TABLE once (id serial, k text, session int8range, n bigint);
CREATE TABLE again (id serial, session int8range, k text, n bigint);
SELECT streamext.create_sink('s', 'once'), streamext.create_sink('s', 'again', corrections => true);
SELECT streamext.wait_for();
CREATE FUNCTION passed() RETURNS TABLE (once text, again text, reopened jsonb) LANGUAGE sql AS $$
	SELECT (SELECT string_agg(format('%s %s %s', coalesce(k, '-'), session, n), '; ' ORDER BY k, session, id) FROM once),
		(SELECT string_agg(format('%s %s %s', coalesce(k, '-'), session, n), '; ' ORDER BY k, session, id) FROM again),
		(SELECT reopened FROM streamext.sink WHERE target = 'once'::regclass) $$;
CREATE FUNCTION put(VARIADIC rows text[]) RETURNS void LANGUAGE sql AS
$$ INSERT INTO ev SELECT nullif(split_part(r, ' ', 1), '-'), split_part(r, ' ', 2)::bigint FROM unnest(rows) r $$;
SELECT put('a 0', '- 0', 'it''s,"b" 0', 'w 20');
SELECT streamext.flush();
SELECT * FROM passed();
-- within a closed one; a new one that is closed from the start
SELECT put('a 3', 'late 1');
SELECT streamext.flush();
SELECT * FROM passed();
-- extended, but still closed
SELECT put('a 8');
SELECT streamext.flush();
SELECT * FROM passed();
-- so that they are open again, and bridged to what is open; noted until they close
SELECT put('a 17', '- 9', '- 18', '- 25', 'it''s,"b" 9', 'it''s,"b" 18');
SELECT streamext.flush();
SELECT * FROM passed();
TABLE s ORDER BY k, session;
SELECT put('w 28');
SELECT streamext.flush();
SELECT * FROM passed();
SELECT put('w 35');
SELECT streamext.flush();
SELECT * FROM passed();
-- several at once in one flush, and closed by the same flush
TRUNCATE once, again;
SELECT put('p 30', 'q 32', 'q 51', 'w 61');
SELECT streamext.flush();
SELECT * FROM passed();
SELECT put('p 39', 'p 48', 'p 55', 'q 41', 'w 71');
SELECT streamext.flush();
SELECT * FROM passed();
SELECT test.check('s', $$SELECT k, int8range(min(t), max(t) + 10), count(*) FROM (SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY k ORDER BY t RANGE UNBOUNDED PRECEDING) AS island
	FROM (SELECT *, coalesce(t - lag(t) OVER (PARTITION BY k ORDER BY t) >= 10, true) AS starts FROM ev) a) b GROUP BY k, island$$);
-- dead letters that are counted in do the same
TRUNCATE once, again;
SELECT streamext.alter_stream('ev', late_rows => 'dead_letter');
SELECT put('r 80', 'w 95');
SELECT streamext.flush();
SELECT put('r 89', 'r 98', 'r 60', 'u 81');
SELECT streamext.flush();
SELECT * FROM passed();
SELECT "row", message FROM streamext.dead_letters ORDER BY id;
SELECT late_rows, dropped_rows FROM streamext.status;
SELECT streamext.retry_dead_letters('s');
SELECT * FROM passed();
SELECT put('w 120');
SELECT streamext.flush();
SELECT * FROM passed();
SELECT * FROM streamext.verify('s');
SELECT target, rows_appended > 0 FROM streamext.sinks ORDER BY 1;
DROP TABLE once, again;

-- allowed_lateness that is raised makes closed ones open again
CREATE TABLE lax (ts timestamptz NOT NULL, k numeric(6, 2));
SELECT streamext.create_stream('lax', event_time => 'ts', late_rows => 'drop');
CREATE MATERIALIZED VIEW visits WITH (streamext.continuous) AS SELECT streamext.session(ts, '10 minutes') AS session, k, count(*) AS n FROM lax GROUP BY 1, 2;
CREATE TABLE once (k numeric, session tstzrange, n bigint);
SELECT streamext.wait_for();
SELECT streamext.create_sink('visits', 'once');
INSERT INTO lax VALUES ('2026-01-01 10:00Z', 1.5), ('2026-01-01 10:00Z', 2.5), ('2026-01-01 10:10Z', 3);
SELECT streamext.flush();
SELECT streamext.alter_stream('lax', allowed_lateness => '5 minutes');
INSERT INTO lax VALUES ('2026-01-01 10:09Z', 1.5);
SELECT streamext.flush();
SELECT late_rows FROM streamext.status WHERE view = 'visits'::regclass;
SELECT reopened FROM streamext.sink WHERE view = 'visits'::regclass;
INSERT INTO lax VALUES ('2026-01-01 10:24Z', 3);
SELECT streamext.flush();
TABLE once ORDER BY k, session;
TABLE visits ORDER BY k, session;
SELECT reopened FROM streamext.sink WHERE view = 'visits'::regclass;
DROP TABLE lax, once CASCADE;

-- hours of sessions: a sink that is a stream
CREATE TABLE finished (session int8range, k text, n bigint, began bigint NOT NULL GENERATED ALWAYS AS (lower(session)) STORED);
SELECT streamext.create_sink('s', 'finished', existing => true);
SELECT streamext.create_stream('finished', event_time => 'began');
CREATE MATERIALIZED VIEW by_hundred WITH (streamext.continuous) AS SELECT began / 100 AS hundred, count(*) AS sessions, sum(n) AS n FROM finished GROUP BY 1;
SELECT put('z 190', 'z 195', 'w 230');
SELECT streamext.flush();
SELECT streamext.wait_for();
TABLE by_hundred ORDER BY 1;
SELECT count(*), sum(n) FROM s WHERE streamext.is_final('s', session);
DROP TABLE ev, finished CASCADE;

-- Late rows against a model: in random order, in memory and in the table, by the consumer and by a builder.
CREATE TABLE ev (k int, t bigint NOT NULL, id int);
SELECT streamext.create_stream('ev', event_time => 't', late_rows => 'drop');
CREATE MATERIALIZED VIEW s WITH (streamext.continuous) AS SELECT k, streamext.session(t, 10) AS session, count(*) AS n, sum(id) AS ids FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW alone WITH (streamext.continuous) AS SELECT streamext.session(t, 10) AS session, count(*) AS n, sum(id) AS ids FROM ev WHERE k = 1 GROUP BY 1;
CREATE TABLE closed (session int8range, k int, n bigint, ids bigint);
SELECT streamext.create_sink('s', 'closed', existing => true);
SELECT streamext.wait_for();
CREATE TABLE counted (k int, t bigint, id int);
CREATE TABLE progress (done int, late int);
INSERT INTO progress VALUES (0, 0);
CREATE FUNCTION in_model() RETURNS TABLE (k int, session int8range, n bigint, ids bigint) LANGUAGE sql AS $$
	SELECT k, int8range(min(t), max(t) + 10), count(*), sum(id) FROM (SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY k ORDER BY t RANGE UNBOUNDED PRECEDING) AS island
		FROM (SELECT *, coalesce(t - lag(t) OVER (PARTITION BY k ORDER BY t) >= 10, true) AS starts FROM counted) a) b GROUP BY k, island $$;
-- what was inserted since, judged as one batch by what was there before
CREATE FUNCTION judge() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	before int := (SELECT done FROM progress);
	watermark bigint := (SELECT max(t) FROM ev WHERE id <= before);
	closed int8range[];
	more bigint := 1;
BEGIN
	CREATE TEMP TABLE batch AS SELECT * FROM ev WHERE id > before;
	CREATE TEMP TABLE sealed AS SELECT m.k, m.session FROM in_model() m WHERE upper(m.session) <= watermark;
	DELETE FROM batch b USING sealed s WHERE s.k IS NOT DISTINCT FROM b.k AND s.session && int8range(b.t, b.t + 10);
	INSERT INTO counted SELECT k, t, id FROM batch WHERE watermark IS NULL OR t + 10 > watermark;
	WHILE more > 0 LOOP
		INSERT INTO counted SELECT b.k, b.t, b.id FROM batch b WHERE b.id NOT IN (SELECT id FROM counted) AND EXISTS (SELECT FROM in_model() m
			WHERE m.k IS NOT DISTINCT FROM b.k AND m.session && int8range(b.t, b.t + 10) AND upper(m.session) > watermark);
		GET DIAGNOSTICS more = ROW_COUNT;
	END LOOP;
	UPDATE progress SET done = (SELECT max(id) FROM ev), late = (SELECT count(*) FROM ev) - (SELECT count(*) FROM counted);
	DROP TABLE batch, sealed;
END $$;
CREATE FUNCTION differs() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT 'view: ' || x::text FROM (TABLE s EXCEPT ALL SELECT * FROM in_model()) x UNION ALL
	SELECT 'model: ' || x::text FROM (SELECT * FROM in_model() EXCEPT ALL TABLE s) x UNION ALL
	SELECT 'alone: ' || x::text FROM (SELECT session, n, ids FROM in_model() WHERE k = 1 EXCEPT ALL TABLE alone) x UNION ALL
	SELECT 'late: ' || late_rows || ', ' || dropped_rows || ', not ' || p.late FROM streamext.status, progress p WHERE view = 's'::regclass AND (late_rows <> p.late OR dropped_rows <> p.late) $$;
CREATE PROCEDURE insert_some(at int, n int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ev SELECT nullif((random() * 3)::int, 0), greatest(0, at + CASE WHEN random() < 0.7 THEN -random() * 12 ELSE -random() * 60 END),
		(SELECT count(*) FROM ev) + i FROM generate_series(1, n) i;
	-- now and then a row of stepping stones, back from what may be open
	IF random() < 0.3 THEN
		INSERT INTO ev SELECT 1 + n % 3, greatest(0, at - (random() * 5)::int - i * 8 - (random() * 3)::int), (SELECT count(*) FROM ev) + i
			FROM generate_series(1, 2 + (random() * 4)::int) i;
	END IF;
END $$;
CREATE PROCEDURE run(rounds int) LANGUAGE plpgsql AS $$
DECLARE
	paused int := 0;
	difference text;
BEGIN
	PERFORM setseed(0.4);
	FOR i IN 1 .. rounds LOOP
		CALL insert_some(i * 4, 1 + (random() * random() * 12)::int);
		COMMIT;
		IF paused > 0 THEN
			paused := paused - 1;
			CONTINUE WHEN paused > 0;
			PERFORM streamext.resume('s'), streamext.resume('alone');
			COMMIT;
		END IF;
		PERFORM streamext.wait_for();
		COMMIT;
		PERFORM judge();
		SELECT string_agg(d, E'\n') INTO difference FROM differs() d;
		IF difference IS NOT NULL THEN
			RAISE EXCEPTION 'in round %: %', i, difference;
		END IF;
		COMMIT;
		IF random() < 0.2 THEN
			PERFORM streamext.flush();
		ELSIF random() < 0.08 THEN
			PERFORM streamext.pause('s'), streamext.pause('alone');
			COMMIT;
			LOOP
				COMMIT;
				EXIT WHEN (SELECT bool_and(reason ~ '^paused') FROM streamext.status);
				PERFORM pg_sleep(0.01);
			END LOOP;
			paused := 1 + (random() * 4)::int;
		END IF;
		COMMIT;
	END LOOP;
END $$;
CALL run(250);
SELECT streamext.resume(view) FROM streamext.views;
SELECT test.until('SELECT bool_and(streamext.wait_for(view)) FROM streamext.views');
SELECT judge();
SELECT * FROM differs();
SELECT late > 100 AS many_were_late, (SELECT count(*) FROM counted) > 300 AS many_counted FROM progress;
SELECT streamext.flush();
SELECT * FROM (SELECT k, session, n, ids FROM closed EXCEPT ALL SELECT k, session, n, ids FROM s WHERE streamext.is_final('s', session)) x;
SELECT * FROM (SELECT k, session, n, ids FROM s WHERE streamext.is_final('s', session) EXCEPT ALL SELECT k, session, n, ids FROM closed) x;
SELECT max(reopened::text) FROM streamext.sink;
-- many late rows in one transaction, and with a row that fails among them
INSERT INTO ev SELECT i % 3, 10 + i % 500, 100000 + i FROM generate_series(1, 60000) i;
SELECT streamext.wait_for();
SELECT late_rows - p.late AS late, dropped_rows - p.late AS dropped, rows_consumed - (SELECT count(*) FROM ev) AS rows FROM streamext.status, progress p WHERE view = 's'::regclass;
SELECT * FROM (SELECT session, n, ids FROM s WHERE streamext.is_final('s', session) EXCEPT ALL SELECT session, n, ids FROM closed) x;
DROP TABLE ev, closed CASCADE;

-- one session, in parts: what is stored shows that what is live is open
CREATE TABLE ev (k text, t bigint NOT NULL);
SELECT streamext.create_stream('ev', event_time => 't', late_rows => 'drop');
CREATE MATERIALIZED VIEW s WITH (streamext.continuous) AS SELECT k, streamext.session(t, 10) AS session, count(*) AS n FROM ev GROUP BY 1, 2;
SELECT streamext.wait_for();
INSERT INTO ev VALUES ('a', 1000), ('now', 1005);
SELECT streamext.flush();
INSERT INTO ev VALUES ('now', 1006);
SELECT streamext.flush();
INSERT INTO ev VALUES ('a', 993);
SELECT streamext.wait_for();
INSERT INTO ev VALUES ('a', 984), ('a', 974);
SELECT streamext.wait_for();
TABLE s ORDER BY k;
SELECT late_rows FROM streamext.status;
DROP MATERIALIZED VIEW s;
DROP TABLE ev;

-- rows that fail, conditions of the query, and joins that make several rows of one
CREATE TABLE ev (k int, t bigint NOT NULL, v int);
CREATE TABLE names (k int, name text);
CREATE INDEX ON names (k);
INSERT INTO names VALUES (1, 'one'), (1, 'uno'), (2, 'two');
SELECT streamext.create_stream('ev', event_time => 't', late_rows => 'dead_letter');
CREATE MATERIALIZED VIEW s WITH (streamext.continuous) AS SELECT k, streamext.session(t, 10) AS session, count(*) AS n, sum(10 / v) AS s FROM ev WHERE k <> 9 GROUP BY 1, 2;
CREATE MATERIALIZED VIEW named WITH (streamext.continuous) AS SELECT name, streamext.session(t, 10) AS session, count(*) AS n FROM ev JOIN names USING (k) WHERE k <> 9 GROUP BY 1, 2;
SELECT streamext.wait_for();
INSERT INTO ev VALUES (1, 0, 1), (2, 0, 1), (9, 30, 1), (1, 25, 1);
SELECT streamext.wait_for();
INSERT INTO names VALUES (1, 'new');
INSERT INTO ev VALUES (1, 5, 0), (1, 18, 0), (1, 17, 2), (1, 3, 2), (9, 0, 1), (2, 21, 5), (4, 2, 1), (2, 40, 0);
SELECT streamext.wait_for(), streamext.flush();
SELECT view, "row" ->> 'k' AS k, "row" ->> 't' AS t, reason, sqlstate FROM streamext.dead_letters ORDER BY view::text, 2, ("row" ->> 't')::int;
TABLE s ORDER BY k, session;
TABLE named ORDER BY name, session;
SELECT view, rows_consumed, late_rows, dropped_rows, dead_letters FROM streamext.status ORDER BY view::text;
DROP TABLE ev CASCADE;
-- rows that come to nothing, or to several
CREATE TABLE ev (t bigint NOT NULL, tags text[]);
SELECT streamext.create_stream('ev', event_time => 't', late_rows => 'drop');
CREATE MATERIALIZED VIEW tagged WITH (streamext.continuous) AS SELECT tag, streamext.session(t, 10) AS session, count(*) AS n FROM ev, unnest(tags) tag GROUP BY 1, 2;
CREATE MATERIALIZED VIEW plain WITH (streamext.continuous) AS SELECT streamext.session(t, 10) AS session, count(*) AS n FROM ev WHERE cardinality(tags) > 0 GROUP BY 1;
SELECT streamext.wait_for();
INSERT INTO ev VALUES (100, '{a,b}');
SELECT streamext.wait_for();
INSERT INTO ev VALUES (1, '{}'), (2, '{c}'), (3, NULL), (95, '{a,c}'), (91, '{}'), (85, '{a,d}'), (82, '{e}'), (70, '{a,b}'), (96, '{}');
SELECT streamext.wait_for();
TABLE tagged ORDER BY 1, 2;
TABLE plain ORDER BY 1;
SELECT view, late_rows, dropped_rows FROM streamext.status ORDER BY view::text;
DROP TABLE ev CASCADE;

-- retention: closed sessions go, and rows that would belong to them are left out
CREATE TABLE ev (k text, ts timestamptz NOT NULL);
SELECT streamext.create_stream('ev', event_time => 'ts');
CREATE MATERIALIZED VIEW s WITH (streamext.continuous, streamext.retention = '1 hour') AS SELECT k, streamext.session(ts, '10 minutes') AS session, count(*) AS n FROM ev GROUP BY 1, 2;
SELECT test.mask(indexdef) FROM pg_indexes WHERE schemaname = 'streamext' AND indexdef ~ 'upper';
SELECT streamext.wait_for();
-- a session every twenty minutes, and one that goes on
INSERT INTO ev SELECT 'a', timestamptz '2026-01-01Z' + i * interval '20 minutes' FROM generate_series(0, 30) i UNION ALL
	SELECT 'long', timestamptz '2026-01-01Z' + i * interval '5 minutes' FROM generate_series(0, 119) i UNION ALL
	SELECT 'now', '2026-01-01 10:00Z';
SELECT streamext.flush();
SELECT test.until($$SELECT count(*) = 4 FROM s WHERE k = 'a'$$);
SELECT * FROM s ORDER BY k, session;
-- 09:00: before that rows are left out
INSERT INTO ev VALUES ('a', '2026-01-01 08:59:59Z'), ('b', '2026-01-01 08:59:59Z'), ('long', '2026-01-01 08:59:59Z'), ('b', '2026-01-01 09:00Z'), ('a', '2026-01-01 09:11Z');
SELECT streamext.flush();
SELECT late_rows, dropped_rows FROM streamext.status;
SELECT * FROM s ORDER BY k, session;
SELECT streamext.alter_stream('ev', late_rows => 'dead_letter');
INSERT INTO ev VALUES ('a', '2026-01-01 08:59:58Z'), ('c', '2026-01-01 09:00Z'), ('now', '2026-01-01 09:51Z');
SELECT streamext.flush();
SELECT "row", message FROM streamext.dead_letters ORDER BY 1;
SELECT streamext.retry_dead_letters('s');
SELECT "row", message FROM streamext.dead_letters ORDER BY 1;
SELECT * FROM s WHERE k <> 'a' ORDER BY k, session;
-- the shortest: a closed session is kept for a gap
ALTER MATERIALIZED VIEW s SET (streamext.retention = '0');
INSERT INTO ev VALUES ('now', '2026-01-01 10:09Z');
SELECT streamext.flush();
SELECT test.until($$SELECT min(upper(session)) > '2026-01-01 09:59Z' FROM s$$);
SELECT * FROM s ORDER BY k, session;
CREATE MATERIALIZED VIEW later WITH (streamext.continuous) AS SELECT k, streamext.session(ts, '10 minutes') AS session, count(*) AS n FROM ev GROUP BY 1, 2;
ALTER MATERIALIZED VIEW later SET (streamext.retention = '2 hours');
SELECT count(*) FROM pg_indexes WHERE schemaname = 'streamext' AND indexdef ~ 'upper';
SELECT test.until($$SELECT streamext.wait_for('later')$$);
INSERT INTO ev VALUES ('now', '2026-01-01 10:09:30Z');
SELECT streamext.flush();
SELECT test.until($$SELECT min(upper(session)) > '2026-01-01 08:09:30Z' FROM later$$);
SELECT count(*), min(lower(session)) FROM later;
CREATE TABLE days (d date NOT NULL);
SELECT streamext.create_stream('days', event_time => 'd');
CREATE MATERIALIZED VIEW runs WITH (streamext.continuous, streamext.retention = '0') AS SELECT streamext.session(d, '2 days') AS session, count(*) AS n FROM days GROUP BY 1;
SELECT test.until($$SELECT streamext.wait_for('runs')$$);
INSERT INTO days VALUES ('2026-01-01'), ('2026-01-04'), ('2026-01-05'), ('2026-01-09');
INSERT INTO days VALUES ('2026-01-12');
SELECT streamext.flush();
SELECT test.until($$SELECT count(*) = 2 FROM runs$$);
TABLE runs ORDER BY 1;

-- a window beside sessions closes with all that are within it; corrections tell of sessions by their keys then
CREATE TABLE of_day (id serial, day timestamptz, session tstzrange, n bigint);
CREATE MATERIALIZED VIEW daily WITH (streamext.continuous) AS SELECT date_trunc('day', ts, 'UTC') AS day, streamext.session(ts, '3 hours') AS session, count(*) AS n FROM ev WHERE k = 'day' GROUP BY 1, 2;
SELECT test.until($$SELECT streamext.wait_for('daily')$$);
SELECT streamext.alter_stream('ev', late_rows => 'merge');
SELECT streamext.create_sink('daily', 'of_day', corrections => true);
INSERT INTO ev VALUES ('day', '2026-01-02 10:00Z'), ('day', '2026-01-02 14:00Z'), ('day', '2026-01-03 00:00Z');
SELECT streamext.flush();
INSERT INTO ev VALUES ('day', '2026-01-02 12:00Z');
SELECT streamext.flush();
SELECT * FROM of_day ORDER BY id;
-- refused
CREATE MATERIALIZED VIEW no_key WITH (streamext.continuous) AS SELECT streamext.session(ts, '3 hours') AS session, count(*) AS n FROM ev GROUP BY k, 1;
CREATE TABLE of_no_key (session tstzrange, n bigint);
SELECT streamext.create_sink('no_key', 'of_no_key');
CREATE MATERIALIZED VIEW no_session WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k, streamext.session(ts, '3 hours');
SELECT streamext.create_sink('no_session', 'of_no_key');
DROP TABLE ev, days, of_day, of_no_key CASCADE;
SELECT test.leftovers();
