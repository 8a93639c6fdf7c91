-- Sessions: session() as a group key.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE clicks (id int GENERATED ALWAYS AS IDENTITY, u int, at timestamptz, t timestamp, d date, n bigint, x int);
CREATE FUNCTION fill(points int[], who int DEFAULT 1) RETURNS void LANGUAGE sql AS $$
	INSERT INTO clicks (u, at, t, d, n, x) SELECT who, '2026-03-01 00:00+00'::timestamptz + p * interval '1 minute',
		'2026-03-01'::timestamp + p * interval '1 minute', '2026-03-01'::date + p, p, p FROM unnest(points) p $$;

-- history: a row a whole gap later begins a new session
SELECT fill('{0, 9, 25, 18, 100, 110, 109}');
SELECT fill('{-50, -45}', 2);
CREATE MATERIALIZED VIEW s WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT u, streamext.session(n, 10) AS session, count(*), sum(x), avg(x), min(x), max(x) FROM clicks GROUP BY u, streamext.session(n, 10);
SELECT streamext.wait_for('s');
SELECT * FROM s ORDER BY u, session;

-- live: extended at the end, at the beginning, within; one minute before a gap is over, and when it is
SELECT fill('{34, -9, 5}');
SELECT fill('{44, -19}');
SELECT streamext.wait_for('s');
SELECT * FROM s ORDER BY u, session;
-- a row bridges two sessions: both in the table; one of them, or both, only in memory
SELECT streamext.flush('s');
SELECT fill('{93}'), fill('{84, 76}'), fill('{-36}', 2), fill('{200}', 3), fill('{220}', 3);
SELECT streamext.wait_for('s');
SELECT * FROM s ORDER BY u, session;
SELECT fill('{68, 60, 52}'), fill('{210}', 3);
SELECT streamext.wait_for('s');
SELECT * FROM s ORDER BY u, session;
SELECT fill('{211}', 3);
SELECT streamext.wait_for('s');
SELECT * FROM s WHERE u = 3;
SELECT streamext.flush('s');
SELECT * FROM s ORDER BY u, session;
-- live sessions that meet only by one in the table: A, M, B
SELECT fill('{228, 202, 199, 229}', 3), fill('{190, 238}', 3);
SELECT streamext.wait_for('s');
SELECT * FROM s WHERE u = 3;
-- and predicates see what they have become
SELECT u, session FROM s WHERE session @> 195::bigint ORDER BY u;
SELECT u, session FROM s WHERE session = '[190,248)';
SELECT u, session FROM s WHERE session = '[210,231)';
SELECT u, session FROM s WHERE lower(session) < 0 ORDER BY u, session;
SELECT u, session, count FROM s WHERE u = 3 AND upper(session) = 248;
SELECT u, session FROM s WHERE count > 5 ORDER BY session;
SELECT session FROM s WHERE u = 1 ORDER BY session DESC LIMIT 1;
SELECT session FROM s WHERE u IN (1, 3) ORDER BY u, session LIMIT 2;
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;
SELECT session FROM s WHERE u = 3 ORDER BY session LIMIT 1;
SELECT test.explain('SELECT session FROM s WHERE u = 3 ORDER BY session LIMIT 1');
RESET enable_seqscan; RESET enable_bitmapscan; RESET enable_sort;
SELECT a.u, a.session, b.session FROM s a JOIN s b ON a.session && b.session AND a.u < b.u ORDER BY 1, 2;
SELECT streamext.create_alert('long', 's', 'count > 3', 'sessions');
-- an index on sessions
CREATE INDEX ON s USING gist (session);
SET enable_seqscan = off;
SELECT u, session FROM s WHERE session && '[195,196)';
SELECT test.explain($$SELECT u, session FROM s WHERE session && '[195,196)'$$);
RESET enable_seqscan;

-- the oracle: islands that no gap divides
CREATE VIEW islands AS SELECT u, int8range(min(n), max(n) + 10) AS session, count(*), sum(x), avg(x), min(x), max(x)
	FROM (SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY u ORDER BY n RANGE UNBOUNDED PRECEDING) AS island
		FROM (SELECT *, coalesce(n - lag(n) OVER (PARTITION BY u ORDER BY n) >= 10, true) AS starts FROM clicks) a) b GROUP BY u, island;
SELECT test.check('s', 'TABLE islands');
SELECT * FROM streamext.verify('s');

-- all types, keys in any order, other keys or none, expressions over the session, HAVING, empty groups
CREATE MATERIALIZED VIEW by_instant WITH (streamext.continuous) AS
	SELECT count(*) AS n, upper(streamext.session(at, '10 minutes')) - lower(streamext.session(at, '10 minutes')) AS length,
		lower(streamext.session(at, '10 minutes')) AS start, u % 2 AS odd
	FROM clicks GROUP BY streamext.session(at, '10 minutes'), u % 2 HAVING count(*) > 1;
CREATE MATERIALIZED VIEW by_local WITH (streamext.continuous) AS SELECT streamext.session(t, '00:10') AS session, stddev(x), corr(x, n) FROM clicks GROUP BY 1;
CREATE MATERIALIZED VIEW by_date WITH (streamext.continuous) AS SELECT streamext.session(d, '10 days') AS session, u FROM clicks GROUP BY 1, 2;
SELECT streamext.wait_for('by_instant'), streamext.wait_for('by_local'), streamext.wait_for('by_date');
SELECT * FROM by_instant ORDER BY start, odd;
SELECT session, round(stddev, 3), round(corr::numeric, 3) FROM by_local ORDER BY session;
SELECT * FROM by_date ORDER BY u, session;
SELECT streamext.verify('by_instant') UNION ALL SELECT streamext.verify('by_local') UNION ALL SELECT streamext.verify('by_date');
SELECT regexp_replace(test.mask(l), ' \d+ bytes.*', ' n bytes') FROM streamext.explain('by_instant') l WHERE l !~ '^Settings';
SELECT pg_get_viewdef('by_date');
SELECT view, definition FROM streamext.views WHERE view = 'by_date'::regclass;

-- extremes
CREATE TABLE far (k text, ts timestamptz, t timestamp, d date, n bigint);
CREATE MATERIALIZED VIEW far_ts WITH (streamext.continuous) AS SELECT streamext.session(ts, '100 years'::interval - '100 years' + '36500 days') AS session, k, count(*) FROM far GROUP BY 1, 2;
CREATE MATERIALIZED VIEW far_d WITH (streamext.continuous) AS SELECT streamext.session(d, '1 day') AS session, k, count(*) FROM far GROUP BY 1, 2;
CREATE MATERIALIZED VIEW far_n WITH (streamext.continuous) AS SELECT streamext.session(n, 9223372036854775807) AS session, k, count(*) FROM far GROUP BY 1, 2;
CREATE MATERIALIZED VIEW near_n WITH (streamext.continuous) AS SELECT streamext.session(n, 1) AS session, k, count(*) FROM far GROUP BY 1, 2;
INSERT INTO far VALUES ('a', '4713-01-01 00:00+00 BC', '4713-01-01 BC', '4713-01-01 BC', -9223372036854775808),
	('a', '4700-01-01 00:00+00 BC', '4700-01-01 BC', '4713-01-02 BC', -9223372036854775807), ('a', '294176-12-31', '294176-12-31', '5874897-12-30', 0),
	('a', '2026-01-01', '2026-01-01', '2026-01-01', -5), (NULL, NULL, NULL, NULL, NULL), (NULL, '2026-01-01', '2026-01-01', '2026-01-01', 7),
	('b', NULL, NULL, NULL, NULL);
SELECT test.until('SELECT bool_and(streamext.wait_for(view)) FROM streamext.views');
SELECT * FROM far_ts ORDER BY k, session;
SELECT * FROM far_d ORDER BY k, session;
SELECT * FROM far_n ORDER BY k, session;
SELECT * FROM near_n ORDER BY k, session;
SELECT streamext.flush();
INSERT INTO far VALUES (NULL, NULL, NULL, NULL, NULL), ('b', NULL, NULL, NULL, NULL), ('b', '2026-01-01', '2026-01-01', '2026-01-01', 7), (NULL, '2026-01-01', '2026-01-01', '2026-01-02', 7);
SELECT test.until('SELECT bool_and(streamext.wait_for(view)) FROM streamext.views');
SELECT * FROM far_d ORDER BY k, session;
SELECT streamext.flush();
SELECT * FROM far_d ORDER BY k, session;
SELECT * FROM far_n ORDER BY k, session;
-- no session: each row a dead letter of the views that need its time
INSERT INTO far VALUES ('c', 'infinity', NULL, NULL, NULL), ('c', '-infinity', NULL, NULL, NULL), ('c', NULL, NULL, 'infinity', NULL), ('c', '294276-12-31', NULL, '5874897-12-31', 9223372036854775807);
SELECT streamext.wait_for(), streamext.flush();
SELECT view, sqlstate, message, count(*) FROM streamext.dead_letters GROUP BY 1, 2, 3 ORDER BY view::text COLLATE "C", message;
SELECT 'far_ts', session, count FROM far_ts WHERE k = 'c' UNION ALL SELECT 'far_d', session::text::tstzrange, count FROM far_d WHERE k = 'c' ORDER BY 1;
CREATE MATERIALIZED VIEW far_again WITH (streamext.continuous) AS SELECT streamext.session(n, 1) AS session, k, count(*) FROM far GROUP BY 1, 2;
SELECT test.check('far_again', 'TABLE near_n');

-- only in a continuous view
SELECT streamext.session(now(), '1 minute');
SELECT u, streamext.session(at, '1 minute'), count(*) FROM clicks GROUP BY 1, 2;
SELECT streamext.session(1, 0), streamext.session('2026-01-01'::date, '1 hour');
SELECT streamext.session(NULL::date, '1 day') IS NULL;
-- and there as a group key with a constant gap
CREATE FUNCTION refused(query text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'CREATE MATERIALIZED VIEW refused WITH (streamext.continuous) AS ' || query; END $$;
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT refused($$SELECT streamext.session(at, '0 days'), count(*) FROM clicks GROUP BY 1$$);
SELECT refused($$SELECT streamext.session(at, '-1 day'), count(*) FROM clicks GROUP BY 1$$);
SELECT refused($$SELECT streamext.session(at, '1 month'), count(*) FROM clicks GROUP BY 1$$);
SELECT refused($$SELECT streamext.session(d, '36 hours'), count(*) FROM clicks GROUP BY 1$$);
SELECT refused($$SELECT streamext.session(n, 0), count(*) FROM clicks GROUP BY 1$$);
SELECT refused($$SELECT streamext.session(at, NULL), count(*) FROM clicks GROUP BY 1$$);
SELECT refused($$SELECT streamext.session(n, x), count(*) FROM clicks GROUP BY 1$$);
SELECT refused($$SELECT lower(streamext.session(at, '1 day')), count(*) FROM clicks GROUP BY 1$$);
SELECT refused($$SELECT streamext.session(at, '1 day'), streamext.session(d, '1 day'), count(*) FROM clicks GROUP BY 1, 2$$);
SELECT refused($$SELECT streamext.session(lower(streamext.session(at, '1 day')), '1 day'), count(*) FROM clicks GROUP BY 1$$);
SELECT refused($$SELECT streamext.session(at, '1 day') FROM clicks$$);
SELECT refused($$SELECT streamext.session(at, '1 day'), count(*) FROM clicks GROUP BY at$$);
SELECT refused($$SELECT streamext.session(at, '2 days'), count(*) FROM clicks GROUP BY at, streamext.session(at, '1 day')$$);
SELECT refused($$SELECT count(streamext.session(at, '1 day')) FROM clicks GROUP BY streamext.session(at, '1 day')$$);
SELECT refused($$SELECT count(*) FROM clicks WHERE streamext.session(at, '1 day') IS NOT NULL GROUP BY streamext.session(at, '1 day')$$);
SELECT refused($$SELECT s, count(*) FROM (SELECT streamext.session(at, '1 day') AS s FROM clicks) c GROUP BY s$$);
SELECT refused($$SELECT streamext.session(at, '1 day'), (SELECT max(x) FROM far WHERE streamext.session(ts, '1 day') IS NULL) FROM clicks GROUP BY 1$$);
SELECT refused($$SELECT streamext.hop(at, '1 day', '2 days'), streamext.session(at, '1 day'), count(*) FROM clicks GROUP BY 1, 2$$);
SELECT refused($$SELECT c, streamext.session(at, '1 day'), count(*) FROM clicks, streamext.cumulate(at, '1 day', '2 days') c GROUP BY 1, 2$$);
SELECT test.leftovers() = (SELECT 4 * count(*) FROM streamext.views);
-- a window beside sessions closes with all that are within it
CREATE TABLE done (day timestamptz, session tstzrange, n bigint);
SELECT streamext.create_sink('s', 'done');
ALTER TABLE clicks ALTER at SET NOT NULL;
SELECT streamext.create_stream('clicks', event_time => 'at');
CREATE MATERIALIZED VIEW daily WITH (streamext.continuous) AS
	SELECT date_trunc('day', at, 'UTC') AS day, streamext.session(at, '3 hours') AS session, count(*) AS n FROM clicks GROUP BY 1, 2;
SELECT streamext.create_sink('daily', 'done', existing => true);
SELECT fill('{1500, 1400}', 9);
SELECT streamext.wait_for('daily'), streamext.flush('daily');
SELECT * FROM done ORDER BY session;
TABLE daily ORDER BY session;
SELECT * FROM streamext.verify('daily');
DROP MATERIALIZED VIEW daily;
-- verify() puts the sessions of the raw rows together itself
DELETE FROM clicks WHERE n IN (93, -36);
SELECT source, row FROM streamext.verify('s') ORDER BY row->'u', source DESC, row->'session';
SET client_min_messages = warning;
DROP TABLE clicks, far, done CASCADE;
SELECT test.leftovers();
