-- Views: append and merge, keys, expressions, the one row without GROUP BY.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE ev (id int, k text, v int, price numeric, ts timestamptz);
INSERT INTO ev SELECT i, 'k' || i % 7, i, i / 4.0, '2026-01-01 00:00+00'::timestamptz + i * interval '1 minute'
	FROM generate_series(1, 500) i;

-- merge: keys and aggregates in any order, in expressions, unnamed, repeated, unused keys
CREATE MATERIALIZED VIEW plain WITH (streamext.continuous) AS SELECT k, count(*), sum(v), avg(v) FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW mixed WITH (streamext.continuous) AS
	SELECT sum(v) + count(*) AS a, upper(k) || '!' AS b, max(v) - min(v) AS spread, k AS c, count(*) AS n, count(*) AS again
	FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW hidden_key WITH (streamext.continuous) AS SELECT count(*) AS n, min(v) AS low FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW expression_key WITH (streamext.continuous) AS
	SELECT v % 10 AS digit, v % 10 + 1 AS next, (v % 10) * count(*) AS product FROM ev GROUP BY v % 10;
CREATE MATERIALIZED VIEW by_number WITH (streamext.continuous) AS SELECT k, v % 2, count(*) AS n FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW filtered WITH (streamext.continuous) AS
	SELECT k, count(*) FILTER (WHERE v > 250) AS big, sum(v) FILTER (WHERE v % 2 = 0) AS even, avg(price) FILTER (WHERE false) AS none
	FROM ev WHERE v > 10 GROUP BY k;
CREATE MATERIALIZED VIEW having_some WITH (streamext.continuous) AS
	SELECT k, sum(v) AS s FROM ev GROUP BY k HAVING sum(v) > 17900 AND min(price) < 1.6 AND count(*) > 0;
CREATE MATERIALIZED VIEW renamed (first, second) WITH (streamext.continuous) AS SELECT k, count(*) FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW partly_renamed (first) WITH (streamext.continuous) AS SELECT k, count(*) AS second FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW keys_only WITH (streamext.continuous) AS SELECT k, v % 3 AS r FROM ev GROUP BY k, v % 3;
CREATE MATERIALIZED VIEW ordered WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k ORDER BY count(*) DESC, k;
CREATE MATERIALIZED VIEW case_of WITH (streamext.continuous) AS
	SELECT CASE WHEN v < 100 THEN 'small' WHEN v < 300 THEN 'medium' ELSE 'large' END AS size,
		CASE WHEN count(*) > 200 THEN 'many' ELSE 'few' END AS how_many,
		coalesce(sum(v) / nullif(count(*) - 99, 0), -1) AS ratio
	FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW sub_selects WITH (streamext.continuous) AS
	SELECT k, (SELECT sum(v) * 2 + x FROM (VALUES (1)) t(x)) AS s, count(*) AS n FROM ev GROUP BY k;

-- no GROUP BY: one row from the start
CREATE MATERIALIZED VIEW totals WITH (streamext.continuous) AS
	SELECT count(*) AS n, sum(v) AS s, avg(price) AS mean, max(k) AS last, count(*) FILTER (WHERE v < 0) AS negative FROM ev;
CREATE MATERIALIZED VIEW total_with_having WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev HAVING count(*) > 600;
CREATE MATERIALIZED VIEW total_of_none WITH (streamext.continuous) AS SELECT count(*), sum(v) FROM ev WHERE v < 0;

-- append
CREATE MATERIALIZED VIEW rows_all WITH (streamext.continuous) AS SELECT * FROM ev;
CREATE MATERIALIZED VIEW rows_some WITH (streamext.continuous) AS SELECT id, upper(k) AS k, price * 2 AS double FROM ev WHERE v % 2 = 0;
CREATE MATERIALIZED VIEW rows_constant WITH (streamext.continuous) AS SELECT 1 AS one, NULL::text AS nothing FROM ev;
CREATE MATERIALIZED VIEW rows_ordered WITH (streamext.continuous) AS SELECT id, v FROM ev ORDER BY v DESC, id;
CREATE MATERIALIZED VIEW rows_unnested WITH (streamext.continuous) AS SELECT id, generate_series(1, v % 3) AS i FROM ev;
CREATE MATERIALIZED VIEW rows_lateral WITH (streamext.continuous) AS
	SELECT e.id, p.part FROM ev e, LATERAL unnest(ARRAY[e.k, upper(e.k)]) AS p(part) WHERE e.v % 5 = 0;

SELECT streamext.wait_for();
SELECT view, strategy, state FROM streamext.views ORDER BY view::text;
SELECT * FROM test.check_all();
INSERT INTO ev SELECT i, 'k' || i % 9, i - 700, NULL, NULL FROM generate_series(501, 800) i;
SELECT * FROM test.check_all();
INSERT INTO ev VALUES (NULL, NULL, NULL, NULL, NULL);
INSERT INTO ev VALUES (801, NULL, 3, 'NaN', 'infinity');
SELECT * FROM test.check_all();
TABLE totals;
TABLE total_with_having;
TABLE total_of_none;
TABLE ordered LIMIT 3;
TABLE rows_ordered LIMIT 3;

-- what a client sees: an ordinary view that cannot be written
\d plain
\d mixed
\d totals
SELECT relkind FROM pg_class WHERE oid = 'plain'::regclass;
SELECT table_type, is_insertable_into FROM information_schema.tables WHERE table_name = 'plain';
SELECT is_updatable FROM information_schema.views WHERE table_name = 'rows_all';
INSERT INTO plain VALUES ('x', 1, 1, 1);
DELETE FROM rows_all;
UPDATE plain SET k = 'x';
COPY plain FROM STDIN;
\.
COPY (SELECT * FROM plain ORDER BY k LIMIT 2) TO STDOUT;
SELECT view, test.mask(definition) AS definition FROM streamext.views WHERE view IN ('plain'::regclass, 'having_some'::regclass);

-- group keys of all kinds; NULL is a key like any other
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE keyed (i int, i2 int2, i8 int8, n numeric, f4 float4, f8 float8, t text, c char(5), vc varchar(10), b bool, d date,
	ts timestamp, tz timestamptz, tm time, iv interval, by bytea, u uuid, ip inet, ci cidr, mac macaddr, e mood, p pair, dom positive,
	arr int[], ta text[], r int4range, mr nummultirange, j jsonb, bits bit(4), vb varbit, o oid, na name, tq tsvector);
DO $$
DECLARE
	c text;
BEGIN
	FOR c IN SELECT attname FROM pg_attribute WHERE attrelid = 'keyed'::regclass AND attnum > 0 LOOP
		BEGIN
			EXECUTE format('CREATE MATERIALIZED VIEW key_%1$s WITH (streamext.continuous) AS SELECT %1$s, count(*) AS times, sum(i) AS s FROM keyed GROUP BY %1$s', c);
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE '%: % (%)', c, SQLERRM, SQLSTATE;
		END;
	END LOOP;
END $$;
CREATE FUNCTION fill_keyed(low int, high int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO keyed SELECT i, i % 3, i % 3, CASE i % 3 WHEN 0 THEN 1.0 WHEN 1 THEN 1.00 ELSE 2 END,
		CASE i % 4 WHEN 0 THEN '-0' WHEN 1 THEN '0' WHEN 2 THEN 'NaN' ELSE 1.5 END,
		CASE i % 4 WHEN 0 THEN '-0' WHEN 1 THEN '0' WHEN 2 THEN 'NaN' ELSE 1.5 END,
		'text ' || i % 3, 'c' || i % 3, 'v' || i % 3, i % 2 = 0, '2026-01-01'::date + i % 3, '2026-01-01'::timestamp + i % 3 * interval '1 day',
		'2026-01-01 00:00+00'::timestamptz + i % 3 * interval '1 day', '10:00'::time + i % 3 * interval '1 hour',
		CASE i % 3 WHEN 0 THEN '24:00' WHEN 1 THEN '1 day' ELSE '2 days' END::interval,
		('\x0' || i % 3)::bytea, ('00000000-0000-0000-0000-00000000000' || i % 3)::uuid, ('10.0.0.' || i % 3)::inet, ('10.0.' || i % 3 || '.0/24')::cidr,
		('08:00:2b:01:02:0' || i % 3)::macaddr, (enum_range(NULL::mood))[i % 3 + 1], ROW(i % 3, 'b')::pair, i % 3 + 1,
		ARRAY[i % 3, NULL], ARRAY['a', 't' || i % 3], int4range(i % 3, 10), nummultirange(numrange(i % 3, 5), numrange(7, 9)),
		jsonb_build_object('a', i % 3), (i % 3)::bit(4), (i % 3)::bit(4)::varbit, (i % 3)::oid, ('n' || i % 3)::name,
		('w' || i % 3)::tsvector
	FROM generate_series(low, high) i
$$;
SELECT fill_keyed(1, 20);
SELECT * FROM test.check_all() WHERE view::text ~ '^key_' AND result <> 'ok';
INSERT INTO keyed DEFAULT VALUES;
INSERT INTO keyed DEFAULT VALUES;
SELECT fill_keyed(21, 30);
SELECT * FROM test.check_all() WHERE view::text ~ '^key_' AND result <> 'ok';
INSERT INTO keyed DEFAULT VALUES;
SELECT fill_keyed(31, 33);
SELECT * FROM test.check_all() WHERE view::text ~ '^key_' AND result <> 'ok';
SELECT * FROM key_iv ORDER BY 1;
SELECT trim_scale(n) AS n, times, s FROM key_n ORDER BY 1;
SELECT * FROM key_f8 ORDER BY 1;
SELECT count(*) FROM streamext.dead_letters;

-- 32 keys is the most
SELECT format('CREATE TABLE wide (%s, v int)', string_agg('c' || i || ' int', ', ')) FROM generate_series(1, 32) i \gexec
SELECT format('CREATE MATERIALIZED VIEW widest WITH (streamext.continuous) AS SELECT %1$s, sum(v) AS s FROM wide GROUP BY %1$s',
	string_agg('c' || i, ', ')) FROM generate_series(1, 32) i \gexec
INSERT INTO wide (c1, c32, v) SELECT i % 2, i % 3, i FROM generate_series(1, 60) i;
SELECT test.check('widest');

-- names that could clash with names of ours
CREATE TABLE odd (singleton bool, key_1 int, state_1 int, state_2 int, live int, ctid_ int, "select" int);
CREATE MATERIALIZED VIEW odd_names WITH (streamext.continuous) AS
	SELECT sum(key_1) AS state_2, count(*) AS singleton, avg(state_1) AS key_1, key_1 + 1 AS xmin, sum(live) AS ctid, max("select") AS "select"
	FROM odd GROUP BY key_1;
CREATE MATERIALIZED VIEW odd_total WITH (streamext.continuous) AS SELECT count(*) AS singleton, bool_and(singleton) AS key_1 FROM odd;
CREATE MATERIALIZED VIEW odd_rows WITH (streamext.continuous) AS SELECT key_1 AS xmin, state_1 AS tableoid, live AS cmax FROM odd;
INSERT INTO odd SELECT i % 2 = 0, i % 3, i, i, i, i, i FROM generate_series(1, 20) i;
SELECT test.check('odd_names'), test.check('odd_total'), test.check('odd_rows');

-- a stream may feed many views, and a transaction many streams
CREATE TABLE other (k text, v int);
CREATE MATERIALIZED VIEW others WITH (streamext.continuous) AS SELECT k, sum(v) AS s FROM other GROUP BY k;
BEGIN;
INSERT INTO ev SELECT i, 'both', i, i, now() FROM generate_series(1, 50) i;
INSERT INTO other SELECT 'both', i FROM generate_series(1, 50) i;
COMMIT;
SELECT test.check('others'), test.check('plain'), test.check('rows_all');

-- an empty stream
CREATE TABLE empty (a int, b int);
CREATE MATERIALIZED VIEW of_empty WITH (streamext.continuous) AS SELECT a, sum(b) FROM empty GROUP BY a;
CREATE MATERIALIZED VIEW of_empty_total WITH (streamext.continuous) AS SELECT sum(b), count(b), avg(b) FROM empty;
CREATE MATERIALIZED VIEW of_empty_rows WITH (streamext.continuous) AS SELECT a + b AS c FROM empty;
SELECT test.check('of_empty'), test.check('of_empty_total'), test.check('of_empty_rows');
TABLE of_empty_total;
