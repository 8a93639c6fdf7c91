-- One query text for stream and batch: a view built by the stream alone, from the rows that are there alone, or half
-- and half, and one that was rebuilt, are the same.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE ev (id int, at timestamptz NOT NULL, k text, v int, x numeric);
CREATE TABLE names (k text, name text);
CREATE INDEX ON names (k);
INSERT INTO names VALUES ('k1', 'one'), ('k1', 'uno'), ('k2', 'two');
SELECT streamext.create_stream('ev', event_time => 'at');
CREATE FUNCTION fill(first int, last int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO ev SELECT i, '2026-01-01Z'::timestamptz + i * 37 % 5000 * interval '1 minute', CASE i % 7 WHEN 0 THEN NULL ELSE 'k' || i % 7 END, i % 100, i / 3.0
	FROM generate_series(first, last) i $$;
CREATE TABLE queries (n int, query text);
INSERT INTO queries VALUES
	(1, 'SELECT k, count(*) AS n, sum(v) AS s, avg(x) AS a, min(x) AS lo, max(k) AS hi, bool_or(v > 90) AS b, stddev(x) AS d FROM ev GROUP BY k'),
	(2, 'SELECT id, at, k, v * 2 AS v FROM ev WHERE v > 50'),
	(3, $$SELECT streamext.tumble(at, '1 hour') AS w, k, max(1) AS one, count(*) AS n FROM ev GROUP BY 1, 2$$),
	(4, $$SELECT streamext.hop(at, '30 minutes', '2 hours') AS w, count(*) AS n, avg(x) AS a FROM ev GROUP BY 1$$),
	(5, $$SELECT k, streamext.session(at, '20 minutes') AS s, count(*) AS n, sum(x) AS x FROM ev GROUP BY 1, 2$$),
	(6, 'SELECT count(*) AS n, sum(x) AS x FROM ev'),
	(7, 'SELECT name, date_trunc(''day'', at, ''UTC'') AS day, count(*) AS n FROM ev JOIN names USING (k) GROUP BY 1, 2'),
	(8, $$SELECT i.w, count(*) AS n FROM ev, LATERAL streamext.cumulate(ev.at, '1 hour', '4 hours') AS i(w) GROUP BY 1$$),
	(9, 'SELECT k, v / 10 AS tens, max(x) AS most FROM ev GROUP BY 1, 2 HAVING count(*) > 3');
CREATE PROCEDURE create_all(way text) LANGUAGE plpgsql AS $$
DECLARE q record;
BEGIN
	FOR q IN SELECT * FROM queries ORDER BY n LOOP
		EXECUTE format('CREATE MATERIALIZED VIEW v%s_%s WITH (streamext.continuous) AS %s', q.n, way, q.query);
	END LOOP;
END $$;
CALL create_all('stream');
SELECT streamext.wait_for();
SELECT fill(1, 1500);
CALL create_all('half');
SELECT fill(1501, 2000);
SELECT streamext.flush();
SELECT fill(2001, 3000);
CALL create_all('batch');
CALL create_all('rebuilt');
SELECT streamext.wait_for();
SELECT format('REFRESH MATERIALIZED VIEW v%s_rebuilt', n) FROM queries ORDER BY n \gexec
SELECT fill(3001, 3010);
SELECT streamext.wait_for();

CREATE FUNCTION differ(a text, b text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
	EXECUTE format('SELECT count(*) FROM ((TABLE %1$I EXCEPT ALL TABLE %2$I) UNION ALL (TABLE %2$I EXCEPT ALL TABLE %1$I)) d', a, b) INTO n;
	RETURN n;
END $$;
CREATE FUNCTION compare() RETURNS TABLE (n int, half bigint, batch bigint, rebuilt bigint) LANGUAGE sql AS $$
	SELECT n, differ('v' || n || '_stream', 'v' || n || '_half'), differ('v' || n || '_stream', 'v' || n || '_batch'),
		differ('v' || n || '_stream', 'v' || n || '_rebuilt') FROM queries ORDER BY n $$;
SELECT * FROM compare();
SELECT streamext.flush();
SELECT * FROM compare();
SELECT test.check('v1_stream'), test.check('v2_half'), test.check('v3_batch'), test.check('v4_rebuilt'), test.check('v6_half'),
	test.check('v7_batch'), test.check('v8_rebuilt'), test.check('v9_half');
SELECT * FROM streamext.verify('v5_half');
DROP TABLE ev, names, queries CASCADE;
