-- Results of aggregates that the materialized table stores beside their states: of every kind, live and flushed.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- the columns of the table behind a view; a result has the name that the view gives it
CREATE FUNCTION columns_behind(v regclass) RETURNS TABLE (name name, type text) LANGUAGE sql AS $$
	SELECT attname, atttypid::regtype::text FROM streamext.view_def d JOIN pg_attribute ON attrelid = d.mat
	WHERE d.view = v AND attnum > 0 ORDER BY attnum $$;

-- ---- kinds ----
CREATE TABLE ev (k int, i2 int2, i4 int, i8 bigint, n numeric(300, 50), f4 float4, f8 float8, b bool, t text, iv interval);
CREATE FUNCTION fill(first int, last int, keys int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO ev SELECT i % keys, i % 100, i, i * 1000000007::bigint, i / 7.0, i / 4.0::float4, i / 8.0, i % 3 = 0, 't' || i, i * interval '1 minute'
	FROM generate_series(first, last) i $$;
CREATE AGGREGATE twice(int) (SFUNC = int4_sum, STYPE = bigint, COMBINEFUNC = int8pl, FINALFUNC = int8up, INITCOND = '0', PARALLEL = SAFE);
CREATE MATERIALIZED VIEW stored WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k, sum(i8) AS s8, sum(n) AS sn, avg(i2) AS a2, avg(i4) AS a4, avg(i8) AS a8, avg(n) AS an, avg(f4) AS af4, avg(f8) AS af8,
		avg(iv) AS aiv, stddev(i4) AS d4, stddev_pop(n) AS dn, var_samp(f8) AS vf, variance(i8) AS v8,
		corr(f8, f4) AS c, regr_slope(f8, f4) AS rs, regr_r2(f4, f8) AS r2, covar_pop(f8, f4) AS cp
	FROM ev GROUP BY k;
-- what is its state itself, and a user's aggregate
CREATE MATERIALIZED VIEW plain WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k, count(*) AS n, sum(i4) AS s, sum(f8) AS sf, min(n) AS l, max(t) AS m, bool_and(b) AS b, twice(i4) AS u FROM ev GROUP BY k;
-- with FILTER, within expressions, the same one twice, not put out at all, under names of ours
CREATE MATERIALIZED VIEW mixed WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k AS state_2, avg(i4) FILTER (WHERE b) AS result_4, round(avg(n), 2) + sum(i8) AS both, avg(n) AS an, avg(n) AS again, count(*) AS n
	FROM ev GROUP BY k HAVING sum(i8) IS NULL OR sum(i8) > 3 ORDER BY stddev(i2);
CREATE MATERIALIZED VIEW alone WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT sum(i8) AS s, avg(n) AS a, stddev(i4) AS d, count(*) AS n FROM ev;
SELECT * FROM columns_behind('stored');
SELECT * FROM columns_behind('plain');
SELECT * FROM columns_behind('mixed');
SELECT test.mask(pg_get_viewdef('mixed'));
SELECT line FROM streamext.explain('alone') line WHERE line ~ '^Aggregate';

-- without rows; all null; one row; rows that meet others, live and in the table
SELECT * FROM alone;
SELECT * FROM test.check_all();
INSERT INTO ev (k) VALUES (1), (NULL);
SELECT * FROM test.check_all();
SELECT * FROM alone;
SELECT fill(1, 1, 5);
SELECT * FROM test.check_all();
SELECT fill(2, 500, 50), fill(1, 300, 70);
SELECT * FROM test.check_all();
-- groups that are live only, in the table only, and in both
SELECT fill(400, 900, 60), fill(1, 10, 1000);
INSERT INTO ev (k) VALUES (NULL), (2000);
SELECT * FROM test.check_all();
INSERT INTO ev (k, n, f8, f4) VALUES (3, 'NaN', 'NaN', 1), (4, 1, 'Infinity', 2), (5, NULL, '-Infinity', 1), (5, 2, 1, 2), (3000, 'NaN', 'NaN', 'NaN');
SELECT * FROM test.check_all();
INSERT INTO ev (k, n) VALUES (3, 7), (4, 1), (5, 1.50), (6, 1e100), (6, 1e-20);
SELECT * FROM test.check_all();

-- ---- reading: columns that are needed, and such as are not; conditions and orders; rescans; whole rows ----
SELECT fill(1, 200, 40);
SELECT streamext.wait_for();
CREATE VIEW by_hand AS SELECT k, sum(i8) AS s8, avg(n) AS an, avg(i4) AS a4, count(*) AS n FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k, sum(i8) AS s8, avg(n) AS an, avg(i4) AS a4, count(*) AS n FROM ev GROUP BY k;
CREATE INDEX sums_s8 ON sums (s8 DESC NULLS LAST);
CREATE INDEX ON sums (an) INCLUDE (a4);
SELECT test.check('sums');
SELECT fill(1, 300, 45), fill(5000, 5010, 6000);
SELECT streamext.wait_for('sums');
ANALYZE;
CREATE FUNCTION same(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
	total bigint;
	by_hand text := regexp_replace(query, '\msums\M', 'by_hand', 'g');
BEGIN
	EXECUTE format('SELECT count(*) FROM ((%1$s EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL %1$s)) x', '(' || query || ')', '(' || by_hand || ')') INTO n;
	EXECUTE format('SELECT count(*) FROM (%s) x', query) INTO total;
	RETURN CASE WHEN n = 0 THEN format('same %s rows', total) ELSE format('%s rows differ', n) END;
END $$;
CREATE TABLE queries (id int GENERATED ALWAYS AS IDENTITY, query text);
INSERT INTO queries (query) VALUES
	('SELECT count(*) FROM sums'),
	('SELECT k FROM sums'),
	('SELECT s8 FROM sums'),
	('SELECT n, a4 FROM sums WHERE k = 3'),
	('SELECT an FROM sums WHERE k = 5005'),
	('SELECT an FROM sums WHERE k = 1000'),
	('SELECT k FROM sums WHERE an > 20'),
	('SELECT k, an FROM sums WHERE s8 BETWEEN 1000000007 AND 900000000007'),
	('SELECT k FROM sums WHERE an IS NULL'),
	('SELECT k, s8 FROM sums ORDER BY s8 DESC NULLS LAST, k LIMIT 10'),
	('SELECT k, s8 FROM sums WHERE n > 3 ORDER BY s8 DESC NULLS LAST, k LIMIT 10 OFFSET 3'),
	('SELECT k, s8 FROM sums ORDER BY s8 NULLS FIRST, k LIMIT 10'),
	('SELECT k, an, a4 FROM sums ORDER BY an, k LIMIT 20'),
	('SELECT max(s8), min(an), sum(a4) FROM sums'),
	('SELECT (t).an, (t).s8 FROM (SELECT sums AS t FROM sums) x'),
	('SELECT a4 > 50 AS high, count(*) FROM sums GROUP BY 1'),
	('SELECT g, x.an, x.s8 FROM generate_series(0, 60) g, LATERAL (SELECT * FROM sums WHERE k = g) x'),
	('SELECT g, (SELECT s8 FROM sums WHERE k = g) AS s FROM generate_series(0, 60) g'),
	('SELECT a.k, b.k AS other FROM sums a JOIN sums b ON a.s8 = b.s8 AND a.k < b.k'),
	('SELECT k FROM sums WHERE s8 > (SELECT avg(s8) FROM sums)'),
	('SELECT k FROM sums s WHERE EXISTS (SELECT FROM sums x WHERE x.an > s.an AND x.k = s.k + 1)'),
	('SELECT k, rank() OVER (ORDER BY an DESC, k) FROM sums');
SELECT id, same(query) FROM queries ORDER BY id;
SET enable_seqscan = off;
SET enable_sort = off;
SELECT id, same(query) FROM queries ORDER BY id;
-- an index on a sum serves the order
SELECT test.explain('SELECT k, s8 FROM sums ORDER BY s8 DESC NULLS LAST LIMIT 5');
SELECT test.explain('SELECT k FROM sums WHERE an > 20');
RESET enable_seqscan;
RESET enable_sort;
SET enable_indexscan = off;
SET enable_bitmapscan = off;
SELECT id, same(query) FROM queries ORDER BY id;
RESET enable_indexscan;
RESET enable_bitmapscan;
-- a cursor goes forth only once; a prepared statement again and again
PREPARE one (int) AS SELECT an, s8 FROM sums WHERE k = $1;
EXECUTE one (1);
SELECT fill(1, 1, 2000);
SELECT streamext.wait_for('sums');
EXECUTE one (1);
SELECT test.check('sums');
EXECUTE one (1);

-- ---- written by a statement: an index on an expression ----
CREATE MATERIALIZED VIEW by_statement WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT upper(t) AS u, upper(max(t)) AS m, sum(i8) AS s, avg(n) AS a, count(*) AS n, corr(f8, f4) AS c, min(t COLLATE "C") AS l FROM ev GROUP BY 1;
CREATE INDEX ON by_statement (m);
SELECT test.check('by_statement');
SELECT fill(1, 150, 10), fill(9000, 9100, 3);
SELECT test.check('by_statement');
INSERT INTO ev (k) VALUES (1), (2);
SELECT fill(1, 50, 10), fill(1, 50, 3);
SELECT test.check('by_statement');
-- long keys and states, out of line
CREATE TABLE long (k text, x numeric);
CREATE MATERIALIZED VIEW longs WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k, sum(x) AS s, avg(x) AS a, max(repeat(k, 300)) AS m FROM long GROUP BY k;
INSERT INTO long SELECT md5(i::text) || md5((i + 1)::text), 10::numeric ^ (i * 400) + 1 / 3.0 FROM generate_series(0, 20) i;
SELECT test.check('longs');
INSERT INTO long SELECT md5(i::text) || md5((i + 1)::text), 10::numeric ^ (i * 400) + 1 / 3.0 FROM generate_series(0, 25) i;
SELECT test.check('longs');
INSERT INTO long SELECT md5(i::text) || md5((i + 1)::text), NULL FROM generate_series(0, 30) i;
SELECT test.check('longs');

-- keys that are equal and not the same keep the form that the table has
CREATE TABLE scales (k numeric, v bigint);
CREATE MATERIALIZED VIEW by_scale WITH (streamext.continuous, streamext.flush_interval = '1h') AS SELECT k, sum(v) AS s, avg(v) AS a FROM scales GROUP BY k;
INSERT INTO scales VALUES (1.0, 1), (2.00, 2);
SELECT test.check('by_scale');
INSERT INTO scales VALUES (1.00, 10), (2, 20), (3.000, 30);
SELECT streamext.wait_for('by_scale');
SELECT * FROM by_scale ORDER BY k;
SELECT streamext.flush('by_scale');
SELECT * FROM by_scale ORDER BY k;

-- ---- sessions, panes, windows ----
CREATE TABLE clicks (at timestamptz NOT NULL, k int NOT NULL, v bigint);
SELECT streamext.create_stream('clicks', event_time => 'at', watermark_delay => '1 hour', max_future => '100 years');
CREATE FUNCTION click(minutes int[], k int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO clicks SELECT '2026-03-01 00:00Z'::timestamptz + m * interval '1 minute', k, m * 1000000000::bigint FROM unnest(minutes) m $$;
CREATE MATERIALIZED VIEW visits WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k, streamext.session(at, '10 minutes') AS session, sum(v) AS s, avg(v) AS a, count(*) AS n FROM clicks GROUP BY 1, 2;
CREATE MATERIALIZED VIEW windows WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k, streamext.tumble(at, '20 minutes') AS w, sum(v) AS s, avg(v) AS a, stddev(v) AS d FROM clicks GROUP BY 1, 2;
CREATE MATERIALIZED VIEW panes WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k, streamext.hop(at, '10 minutes', '30 minutes') AS w, sum(v) AS s, avg(v) AS a FROM clicks GROUP BY 1, 2;
-- what overlaps, or is less than the gap apart, is one session
CREATE FUNCTION check_clicks() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT view || ': ' || test.check(view) FROM unnest('{windows, panes}'::regclass[]) view
	UNION ALL SELECT 'visits: ' || test.check('visits', 'SELECT k, tstzrange(min(at), max(at) + interval ''10 minutes''), sum(v), avg(v), count(*)
		FROM (SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY k ORDER BY at) AS number
			FROM (SELECT *, at - lag(at) OVER (PARTITION BY k ORDER BY at) < interval ''10 minutes'' IS NOT TRUE AS begins FROM clicks) c) c
		GROUP BY k, number') $$;
SELECT * FROM columns_behind('visits');
SELECT * FROM columns_behind('panes');
SELECT click('{0, 5, 30, 35, 60}', 1), click('{3}', 2);
SELECT check_clicks();
-- extended, united across both, alone
SELECT click('{9, 15, 24, 70, 100}', 1), click('{0, 1}', 2), click('{200, 205}', 3);
SELECT streamext.wait_for();
SELECT k, s, a FROM visits ORDER BY k, session;
SELECT s FROM visits WHERE a > 50000000000 ORDER BY s;
SELECT check_clicks();
SELECT k, s, a FROM visits ORDER BY k, session;
SELECT click('{80, 90, 300, 320}', 1), click('{500}', 2), click('{20, 40}', 3);
SELECT check_clicks();
SELECT view, count(d) FROM unnest('{visits, windows}'::regclass[]) view LEFT JOIN LATERAL streamext.verify(view) d ON true GROUP BY view ORDER BY view;
SELECT count(*) FROM streamext.verify('stored');

-- ---- computed anew, replaced ----
SET client_min_messages = warning;
CALL streamext.backfill('windows', '2026-03-01 00:00Z', '2026-03-01 02:00Z');
RESET client_min_messages;
SELECT test.check('windows');
REFRESH MATERIALIZED VIEW visits;
REFRESH MATERIALIZED VIEW windows;
REFRESH MATERIALIZED VIEW alone;
SELECT click('{10, 20, 85}', 1), fill(1, 30, 11);
SELECT check_clicks();
SELECT test.check('alone');
-- an index on a result goes over to another aggregate of the same name and type, not to a result that is not stored
SELECT streamext.replace_view('sums', 'SELECT k, sum(i8) * 1 AS s8, avg(n) AS an, stddev(i4) AS a4, count(*) AS n FROM ev GROUP BY k');
DROP INDEX sums_s8;
SELECT streamext.replace_view('sums', 'SELECT k, sum(i8) * 1 AS s8, avg(i4) AS an, stddev(i4) AS a4, count(*) AS n, sum(n) AS sn FROM ev WHERE k < 50 GROUP BY k');
SELECT streamext.wait_for('sums');
SELECT * FROM columns_behind('sums');
SELECT test.mask(indexdef) FROM pg_indexes WHERE schemaname = 'streamext' AND indexname LIKE 'sums%';
SELECT fill(1, 60, 13);
SELECT test.check('sums');
SELECT view, test.check(view) FROM unnest('{stored, plain, mixed, alone, sums, by_statement, longs, by_scale}'::regclass[]) view;

-- ---- what may have more digits than numeric holds is computed by whoever reads it ----
CREATE TABLE sales (k int, price numeric(12, 2), quantity numeric(9, 3), i int, n numeric);
CREATE MATERIALIZED VIEW bounded WITH (streamext.continuous) AS
	SELECT k, sum(price * quantity) AS turnover, avg(round(price / 7, 2)) AS mean, sum(coalesce(price, 0) - i + 1.5) AS rest,
		variance(CASE WHEN i > 0 THEN price END) AS spread, sum(price::numeric(20, 4)) AS wide, sum(i::numeric) AS whole
	FROM sales GROUP BY k;
CREATE MATERIALIZED VIEW unbounded WITH (streamext.continuous) AS
	SELECT k, sum(n) AS s, sum(price * n) AS m, avg(price ^ quantity) AS p, stddev(price + '1'::text::numeric) AS t FROM sales GROUP BY k;
SELECT * FROM columns_behind('bounded');
SELECT * FROM columns_behind('unbounded');
INSERT INTO sales SELECT i % 3, i / 7.0, i % 5, i, i FROM generate_series(1, 30) i;
SELECT test.check(v) FROM unnest('{bounded,unbounded}'::regclass[]) v;
-- what is beyond is that group's alone
INSERT INTO sales SELECT 1, 1, 1, 1, 9e131071 FROM generate_series(1, 2);
SELECT streamext.flush(v) FROM unnest('{bounded,unbounded}'::regclass[]) v;
SELECT s FROM unbounded WHERE k = 1;
SELECT k, s, round(m, 3) AS m FROM unbounded WHERE k <> 1 ORDER BY k;
SELECT view, state FROM streamext.status WHERE view IN ('bounded'::regclass, 'unbounded') ORDER BY view::text;
DROP MATERIALIZED VIEW unbounded;

-- ---- a publication of all tables does not keep a flush from updating ----
SET client_min_messages = error;
CREATE PUBLICATION everything FOR ALL TABLES;
RESET client_min_messages;
INSERT INTO sales SELECT i % 3, i, i, i, i FROM generate_series(1, 9) i;
SELECT streamext.flush('bounded');
SELECT test.check('bounded');
DROP PUBLICATION everything;
