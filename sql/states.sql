-- States: what combine() and finalize() accept, and how states, keys and NULLs survive flushes.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- states of plain types: the aggregate's own functions at work
CREATE AGGREGATE mean(int) (SFUNC = int4_avg_accum, STYPE = bigint[], COMBINEFUNC = int4_avg_combine, FINALFUNC = int8_avg, INITCOND = '{0,0}');
CREATE AGGREGATE mean(float8) (SFUNC = float8_accum, STYPE = float8[], COMBINEFUNC = float8_combine, FINALFUNC = float8_avg, INITCOND = '{0,0,0}');
SELECT streamext.combine('count()'::regprocedure, 3::bigint, 4::bigint);
SELECT streamext.combine('max(int)'::regprocedure, 3, 4), streamext.combine('min(text)'::regprocedure, 'a'::text, 'b'::text);
SELECT streamext.combine('max(int)'::regprocedure, NULL::int, 4), streamext.combine('max(int)'::regprocedure, 3, NULL::int),
	streamext.combine('max(int)'::regprocedure, NULL::int, NULL::int);
SELECT streamext.finalize('mean(int)'::regprocedure, '{2,7}'::bigint[], NULL::numeric);
SELECT streamext.finalize('mean(int)'::regprocedure, NULL::bigint[], NULL::numeric);
SELECT streamext.combine('mean(int)'::regprocedure, '{2,7}'::bigint[], '{1,2}'::bigint[]);
SELECT streamext.finalize('max(anyarray)'::regprocedure, '{2,7}'::bigint[], NULL::bigint[], NULL::bigint[]);

-- a mean(float8) state is an array of three: others are for its functions to refuse
SELECT streamext.finalize('mean(float8)'::regprocedure, '{2,7}'::float8[], NULL::float8);
\echo :SQLSTATE
SELECT streamext.combine('mean(int)'::regprocedure, '{2,7}'::bigint[], '{}'::bigint[]);
\echo :SQLSTATE
SELECT streamext.combine('mean(int)'::regprocedure, '{2,NULL}'::bigint[], '{1,2}'::bigint[]);
\echo :SQLSTATE

-- wrong types, wrong functions, NULL aggregates
SELECT streamext.combine('max(int)'::regprocedure, 3::bigint, 4::bigint);
\echo :SQLSTATE
SELECT streamext.finalize('mean(int)'::regprocedure, 3, NULL::numeric);
\echo :SQLSTATE
SELECT streamext.finalize('mean(int)'::regprocedure, '{2,7}'::bigint[], NULL::int);
\echo :SQLSTATE
SELECT streamext.finalize('mean(int)'::regprocedure, NULL, NULL::numeric);
\echo :SQLSTATE
SELECT streamext.finalize('mean(int)'::regprocedure, '{2,7}'::bigint[], NULL);
\echo :SQLSTATE
SELECT streamext.combine('lower(text)'::regprocedure, 'a'::text, 'b'::text);
\echo :SQLSTATE
SELECT streamext.combine(NULL, 1, 2);
\echo :SQLSTATE
SELECT streamext.combine(0::regprocedure, 1, 2);
\echo :SQLSTATE
SELECT streamext.combine(999999999::regprocedure, 1, 2);
\echo :SQLSTATE
SELECT streamext.combine('json_agg(anyelement)'::regprocedure, 1, 2);
\echo :SQLSTATE
SELECT streamext.combine('array_agg(anynonarray)'::regprocedure, 1, 2);
\echo :SQLSTATE
SELECT streamext.finalize('percentile_disc(float8,anyelement)'::regprocedure, 1, 2);
\echo :SQLSTATE
SELECT streamext.finalize('max(anyarray)'::regprocedure, '{2,7}'::bigint[], NULL::bigint[]);
\echo :SQLSTATE
SELECT streamext.finalize('max(anyarray)'::regprocedure, '{2,7}'::bigint[], NULL::bigint[], NULL::int[]);
\echo :SQLSTATE
SELECT streamext.finalize('max(anyarray)'::regprocedure, '{2,7}'::bigint[], NULL::bigint[], VARIADIC ARRAY[NULL::int[]]);
\echo :SQLSTATE
SELECT streamext.finalize('row_number()'::regprocedure, 1, NULL::bigint);
\echo :SQLSTATE
SELECT streamext.combine('max(text)'::regprocedure, 'a'::text COLLATE "C", 'b'::text COLLATE "POSIX");
\echo :SQLSTATE
-- the server's own keep the elements of such arrays alone, as a state
SELECT streamext.finalize('avg(int)'::regprocedure, '{2,7}'::bigint[], NULL::numeric);
\echo :SQLSTATE
SELECT streamext.combine('avg(float8)'::regprocedure, NULL::streamext.state, NULL::streamext.state),
	streamext.finalize('avg(int)'::regprocedure, NULL::streamext.state, NULL::numeric);

-- forged states of an internal type: nothing that comes in from outside is ever used
SELECT streamext.finalize('sum(numeric)'::regprocedure, '\x00'::streamext.state, NULL::numeric);
\echo :SQLSTATE
SELECT streamext.finalize('sum(numeric)'::regprocedure, ''::streamext.state, NULL::numeric);
\echo :SQLSTATE
SELECT streamext.finalize('sum(numeric)'::regprocedure, 'not hexadecimal'::streamext.state, NULL::numeric);
\echo :SQLSTATE
SELECT streamext.finalize('sum(numeric)'::regprocedure, '\x0153'::streamext.state, NULL::numeric);
\echo :SQLSTATE
SELECT streamext.finalize('sum(numeric)'::regprocedure, ('\x' || repeat('ff', 1000))::streamext.state, NULL::numeric);
\echo :SQLSTATE
SELECT streamext.finalize('sum(numeric)'::regprocedure, '\x01'::bytea, NULL::numeric);
\echo :SQLSTATE
SELECT '\x01'::bytea::streamext.state;
\echo :SQLSTATE
CREATE CAST (bytea AS streamext.state) WITHOUT FUNCTION;
DROP CAST (bytea AS streamext.state);
CREATE ROLE regress_streamext_forger;
SET ROLE regress_streamext_forger;
CREATE CAST (bytea AS streamext.state) WITHOUT FUNCTION;
\echo :SQLSTATE
SELECT '\x01'::streamext.state;
\echo :SQLSTATE
SELECT streamext.state_in('\x01');
\echo :SQLSTATE
SELECT streamext.finalize('sum(numeric)'::regprocedure, '\x01'::streamext.state, NULL::numeric);
\echo :SQLSTATE
SELECT streamext.finalize('sum(numeric)'::regprocedure, NULL::streamext.state, NULL::numeric);
RESET ROLE;
DROP ROLE regress_streamext_forger;

-- a state that a view wrote: shown, dumped and read back it is no longer usable; moved to another aggregate neither
CREATE TABLE ev (k int, n numeric, i bigint, v int);
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS
	SELECT k, sum(n) AS s, avg(n) AS a, stddev(n) AS d, sum(i) AS si, avg(v) AS av FROM ev GROUP BY k;
INSERT INTO ev VALUES (1, 1.5, 10, 1), (1, 2.5, 20, 2), (2, NULL, NULL, NULL);
SELECT test.check('sums');
SELECT mat AS t FROM streamext.view_def WHERE view = 'sums'::regclass \gset
SELECT attname, atttypid::regtype FROM pg_attribute WHERE attrelid = :'t'::regclass AND attnum > 0 ORDER BY attnum;
CREATE TEMP TABLE copied AS SELECT * FROM :t;
SELECT format('SELECT streamext.finalize(''sum(numeric)''::regprocedure, %I, NULL::numeric) FROM copied WHERE k = 1', attname) AS own,
	format('SELECT streamext.finalize(''sum(bigint)''::regprocedure, %I, NULL::numeric) FROM copied WHERE k = 1', attname) AS others,
	format('SELECT streamext.finalize(''avg(numeric)''::regprocedure, %I, NULL::numeric) FROM copied WHERE k = 1', attname) AS cousins,
	format('SELECT streamext.finalize(''sum(numeric)''::regprocedure, %I::text::streamext.state, NULL::numeric) FROM copied WHERE k = 1', attname) AS restored,
	format('SELECT streamext.finalize(''sum(numeric)''::regprocedure, left(%I::text, 20)::streamext.state, NULL::numeric) FROM copied WHERE k = 1', attname) AS truncated,
	format('SELECT %1$I::text = %1$I::text::streamext.state::text FROM copied WHERE k = 1', attname) AS same,
	format('SELECT streamext.finalize(''sum(numeric)''::regprocedure, streamext.combine(''sum(numeric)''::regprocedure, a.%1$I, b.%1$I), NULL::numeric) FROM copied a, copied b WHERE a.k = 1', attname) AS combined,
	format('SELECT %1$I = %1$I FROM copied', attname) AS equality
	FROM pg_attribute WHERE attrelid = :'t'::regclass AND atttypid = 'streamext.state'::regtype ORDER BY attnum LIMIT 1 \gset
:own;
:combined ORDER BY 1;
:others;
\echo :SQLSTATE
:cousins;
\echo :SQLSTATE
:restored;
\echo :SQLSTATE
:truncated;
\echo :SQLSTATE
:same;
:equality;
\echo :SQLSTATE
-- by COPY, in text and binary, as pg_dump would
\set copied `mktemp -u`
\set remove 'cat >/dev/null && rm ' :copied
COPY copied TO :'copied' WITH (FORMAT binary);
\echo :SQLSTATE
CREATE TEMP TABLE again (LIKE copied);
COPY again FROM :'copied' WITH (FORMAT binary);
COPY (SELECT 1) TO PROGRAM :'remove';
SELECT replace(:'own', 'copied', 'again') AS own \gset
:own;
\echo :SQLSTATE

-- NULL and strict: groups whose first values are NULL, in one batch and in several flushes
CREATE FUNCTION keep_first(text, text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS 'SELECT least($1, $2)';
CREATE AGGREGATE strict_least(text) (SFUNC = keep_first, STYPE = text, COMBINEFUNC = keep_first);
CREATE FUNCTION to_null(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce($1, 'null state') $$;
CREATE AGGREGATE lenient_least(text) (SFUNC = keep_first, STYPE = text, COMBINEFUNC = keep_first, FINALFUNC = to_null);
CREATE TABLE nulls (k text, a text, v int);
CREATE MATERIALIZED VIEW of_nulls WITH (streamext.continuous) AS
	SELECT k, strict_least(a) AS s, lenient_least(a) AS l, sum(v) AS sum, avg(v) AS avg, min(a) AS min, bool_or(v > 1) AS b, count(a) AS n, stddev(v) AS d FROM nulls GROUP BY k;
CREATE MATERIALIZED VIEW of_all_nulls WITH (streamext.continuous) AS SELECT strict_least(a) AS s, lenient_least(a) AS l, sum(v) AS sum, max(a) AS m FROM nulls;
SELECT test.check('of_all_nulls');
INSERT INTO nulls VALUES (NULL, NULL, NULL);
SELECT test.check('of_nulls'), test.check('of_all_nulls');
INSERT INTO nulls VALUES (NULL, NULL, NULL), ('x', NULL, NULL);
SELECT test.check('of_nulls'), test.check('of_all_nulls');
INSERT INTO nulls VALUES (NULL, 'm', 1), ('x', NULL, 5), ('y', 'b', NULL);
SELECT test.check('of_nulls'), test.check('of_all_nulls');
INSERT INTO nulls VALUES (NULL, 'z', NULL), ('x', 'c', 1), ('y', NULL, 2);
SELECT test.check('of_nulls'), test.check('of_all_nulls');
SELECT count(*) FROM of_nulls WHERE k IS NULL;
SELECT k, s, l, sum FROM of_nulls ORDER BY k NULLS FIRST;

-- several NULL keys over several flushes: one row each
CREATE TABLE pairs (a text, b int, v int);
CREATE MATERIALIZED VIEW by_pairs WITH (streamext.continuous) AS SELECT a, b, sum(v) AS s, count(*) AS n FROM pairs GROUP BY a, b;
DO $$
BEGIN
	FOR i IN 1 .. 6 LOOP
		INSERT INTO pairs VALUES (NULL, NULL, i), (NULL, 1, i), ('x', NULL, i), ('x', 1, i);
		COMMIT;
		PERFORM streamext.wait_for('by_pairs');
		PERFORM streamext.flush('by_pairs');
		COMMIT;
	END LOOP;
END $$;
SELECT * FROM by_pairs ORDER BY a, b;
SELECT test.check('by_pairs');

-- by-reference keys and states whose raw rows are deleted and vacuumed, before the flush and after
CREATE TABLE refs (k text, key2 numeric, doc text);
ALTER TABLE refs ALTER COLUMN k SET STORAGE EXTERNAL, ALTER COLUMN doc SET STORAGE EXTERNAL;
CREATE MATERIALIZED VIEW by_refs WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k, key2, max(doc) AS doc, min(doc) AS first, count(*) AS n FROM refs GROUP BY k, key2;
CREATE TABLE kept AS TABLE refs;
INSERT INTO refs SELECT repeat('k' || i % 3, 300), 1e50 + i % 2, repeat('d' || i, 3000) FROM generate_series(1, 40) i;
INSERT INTO kept TABLE refs;
SELECT streamext.wait_for('by_refs');
DELETE FROM refs;
SELECT streamext.wait_for('by_refs');
VACUUM refs;
CREATE TABLE overwrite AS SELECT repeat('z' || i, 2000) FROM generate_series(1, 100) i;
SELECT count(*) FROM test.differences('by_refs', 'SELECT k, key2, max(doc), min(doc), count(*) FROM kept GROUP BY 1, 2');
INSERT INTO refs SELECT repeat('k' || i % 3, 300), 1e50 + i % 2, repeat('e' || i, 3000) FROM generate_series(1, 40) i;
INSERT INTO kept SELECT repeat('k' || i % 3, 300), 1e50 + i % 2, repeat('e' || i, 3000) FROM generate_series(1, 40) i;
SELECT test.check('by_refs', 'SELECT k, key2, max(doc), min(doc), count(*) FROM kept GROUP BY 1, 2');
TRUNCATE refs;
SELECT test.check('by_refs', 'SELECT k, key2, max(doc), min(doc), count(*) FROM kept GROUP BY 1, 2');

-- states that grow: many distinct keys, then many rows of few keys
CREATE TABLE grows (k int, t text);
CREATE MATERIALIZED VIEW growing WITH (streamext.continuous) AS SELECT k, max(t) AS m, count(*) AS n FROM grows GROUP BY k;
INSERT INTO grows SELECT i % 20000, i FROM generate_series(1, 50000) i;
INSERT INTO grows SELECT i % 7, repeat('x', i % 3000) FROM generate_series(1, 5000) i;
SELECT test.check('growing');

-- states are packed: of all lengths, of small and of large numbers, with zeros at both ends
CREATE TABLE sizes (k int, n numeric, i bigint, v int, f float8, g float4);
CREATE MATERIALIZED VIEW packed WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k, sum(n) AS sn, avg(n) AS an, variance(n) AS vn, sum(i) AS si, avg(i) AS ai, stddev(i) AS di, avg(v) AS av, variance(v) AS vv,
		avg(f) AS af, stddev_pop(f) AS df, avg(g) AS ag, regr_slope(f, g) AS rs, corr(f, v) AS c, count(*) AS n FROM sizes GROUP BY k;
INSERT INTO sizes SELECT k, power(10::numeric, k) * CASE WHEN k % 3 = 0 THEN -1 ELSE 1 END, power(2::numeric, k % 63)::bigint, power(2::numeric, k % 31)::int, power(2.0, k - 150), k
FROM generate_series(1, 300) k;
SELECT test.check('packed');
INSERT INTO sizes SELECT k, power(0.1::numeric, k % 200), -power(2::numeric, k % 63)::bigint, -power(2::numeric, k % 31)::int, -power(2.0, k - 150), 0
FROM generate_series(1, 300) k;
SELECT test.check('packed');
INSERT INTO sizes VALUES (0, 0, 0, 0, 0, 0), (-1, 'NaN', 9223372036854775807, 2147483647, 'NaN', 'NaN'), (-2, 'Infinity', -9223372036854775808, -2147483648, 'Infinity', '-Infinity'),
	(-3, NULL, NULL, NULL, NULL, NULL), (-4, 1, 72057594037927936, 16777216, '-0', 1), (-5, 0.0000, 255, 255, 1e-300, 1e-30);
SELECT test.check('packed');
INSERT INTO sizes SELECT k, n, i, v, f, g FROM sizes, generate_series(1, 4) WHERE k <= 0;
INSERT INTO sizes SELECT k % 10, repeat('9', k)::numeric, k, k, k, k FROM generate_series(1, 1000) k;
SELECT test.check('packed');
SELECT min(length(sn::text)), max(length(sn::text)) FROM packed;
