-- Aggregates: every one that has a combine function, over every type it takes.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- One view per aggregate function of the server and argument type; the catalogs say which there are.
-- Rows go through history, live state and two flushes; a third of the values is NULL, and one group has only NULLs.
CREATE TABLE vals (k int, i2 int2, i4 int4, i8 int8, n numeric, f4 float4, f8 float8, b bool, t text, c bpchar, d date, tm time,
	ts timestamp, tz timestamptz, iv interval, mny money, ip inet, o oid, xid8_ xid8, tid_ tid, lsn pg_lsn, bits bit(8), e int,
	arr int[], tarr text[], r int4range, mr int4multirange, by bytea, u uuid);
CREATE FUNCTION fill(low int, high int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO vals (k) SELECT CASE WHEN i % 7 = 0 THEN -1 ELSE i % 5 END FROM generate_series(low, high) i WHERE i % 3 = 0;
	INSERT INTO vals SELECT i % 5, (i % 100 - 50)::int2, i * 1000 - 7, i::int8 * 3000000007, (i - 40) / 8.0, (i - 30) * 0.25, (i - 30) * 0.125,
		i % 4 > 0, 'text ' || i % 11, 'c' || i % 4, '2026-01-01'::date + i, '00:00'::time + i * interval '1 minute',
		'2026-01-01'::timestamp + i * interval '1 hour', '2026-01-01 00:00+00'::timestamptz + i * interval '1 hour',
		i * interval '1 hour' + (i % 3) * interval '1 month', (i * 1.25)::numeric::money, '10.0.0.0'::inet + i, i::oid, i::text::xid8, format('(%s,1)', i)::tid,
		'0/0'::pg_lsn + i, (i % 256)::bit(8), i, ARRAY[i % 3, i], ARRAY['x' || i % 3], int4range(i, i + 10), int4multirange(int4range(0, i), int4range(200, 200 + i)),
		int4send(i), ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid
	FROM generate_series(low, high) i WHERE i % 3 > 0
$$;
SELECT fill(1, 60);

CREATE TABLE made (view text, aggregate text);
DO $$
DECLARE
	agg record;
	col record;
	call text;
	number int := 0;
BEGIN
	FOR agg IN
		SELECT p.oid, p.proname, p.pronargs, p.proargtypes, p.oid::regprocedure AS signature
		FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid
		WHERE a.aggcombinefn <> 0 AND a.aggkind = 'n' AND p.pronamespace = 'pg_catalog'::regnamespace
			AND p.proname <> 'any_value'
		ORDER BY p.oid::regprocedure::text
	LOOP
		call := NULL;
		IF agg.pronargs = 0 THEN
			call := format('%I(*)', agg.proname);
		ELSE
			SELECT format('%I(%s)', agg.proname, string_agg(quote_ident(c.attname), ', ' ORDER BY x.ord)) INTO call
			FROM unnest(agg.proargtypes) WITH ORDINALITY x(type, ord)
			JOIN LATERAL (SELECT attname FROM pg_attribute WHERE attrelid = 'vals'::regclass AND attnum > 1 AND NOT attisdropped
				AND atttypid = CASE x.type WHEN 'anyarray'::regtype THEN 'int[]'::regtype WHEN 'anyenum'::regtype THEN NULL
					WHEN 'anyrange'::regtype THEN 'int4range'::regtype WHEN 'anymultirange'::regtype THEN 'int4multirange'::regtype
					WHEN '"any"'::regtype THEN 'text'::regtype WHEN 'bit'::regtype THEN 'bit'::regtype ELSE x.type END
				ORDER BY attnum LIMIT 1) c ON true
			HAVING count(*) = agg.pronargs;
		END IF;
		IF call IS NULL THEN
			RAISE NOTICE 'no column for %', agg.signature;
			CONTINUE;
		END IF;
		number := number + 1;
		BEGIN
			EXECUTE format('CREATE MATERIALIZED VIEW agg_%s WITH (streamext.continuous) AS SELECT k, %s AS a FROM vals GROUP BY k', number, call);
			INSERT INTO made VALUES ('agg_' || number, agg.signature);
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE '%: %', agg.signature, SQLERRM;
		END;
	END LOOP;
END $$;
SELECT regexp_replace(aggregate, '\(.*', '') AS name, count(*) AS variants FROM made GROUP BY 1 ORDER BY 1;
SELECT aggregate, result FROM test.check_all() c JOIN made m ON m.view = c.view::text WHERE result <> 'ok' ORDER BY 1, 2;
SELECT fill(61, 100);
INSERT INTO vals (k) VALUES (77), (NULL);
SELECT aggregate, result FROM test.check_all() c JOIN made m ON m.view = c.view::text WHERE result <> 'ok' ORDER BY 1, 2;
SELECT fill(101, 110);
SELECT aggregate, result FROM test.check_all() c JOIN made m ON m.view = c.view::text WHERE result <> 'ok' ORDER BY 1, 2;
SELECT count(*) AS dead_letters FROM streamext.dead_letters;
SELECT format('DROP MATERIALIZED VIEW %s', view) FROM made ORDER BY view \gexec
SELECT test.leftovers();

-- results by hand, once
CREATE TABLE small (k text, v int, x float8, n numeric);
CREATE MATERIALIZED VIEW by_hand WITH (streamext.continuous) AS
	SELECT k, count(*) AS n, count(v) AS nv, sum(v) AS sum, avg(v) AS avg, min(v) AS min, max(v) AS max, bool_and(v > 0) AS every,
		stddev_pop(x) AS sd, var_samp(n) AS var, corr(x, v) AS corr, regr_slope(x, v) AS slope
	FROM small GROUP BY k;
INSERT INTO small VALUES ('a', 1, 2, 1), ('a', 2, 4, 2);
SELECT streamext.wait_for(), streamext.flush();
INSERT INTO small VALUES ('a', 3, 6, 3), ('b', NULL, NULL, NULL);
SELECT streamext.wait_for();
SELECT k, n, nv, sum, round(avg, 3) AS avg, min, max, every, round(sd::numeric, 6) AS sd, round(var, 6) AS var, corr, slope FROM by_hand ORDER BY k;

-- extremes: infinities, NaN, values that do not fit the smaller type, numeric scale
CREATE TABLE extreme (k int, i8 int8, n numeric, f8 float8, f4 float4, iv interval);
CREATE MATERIALIZED VIEW extremes WITH (streamext.continuous) AS
	SELECT k, sum(i8) AS s8, avg(i8) AS a8, sum(n) AS sn, avg(n) AS an, stddev(n) AS dn, sum(f8) AS sf, avg(f8) AS af, variance(f8) AS vf,
		sum(f4) AS s4, min(f8) AS minf, max(f8) AS maxf, sum(iv) AS siv, avg(iv) AS aiv
	FROM extreme GROUP BY k;
INSERT INTO extreme VALUES (1, 9223372036854775807, 1e100, 'Infinity', 1e38, '178000000 years'), (1, 9223372036854775807, 1e-100, 1, -1e38, '-178000000 years'),
	(2, -9223372036854775808, 'NaN', 'NaN', 'NaN', '1 day'), (3, 1, 'Infinity', '-Infinity', '-Infinity', '-1 day');
SELECT test.check('extremes');
INSERT INTO extreme VALUES (1, 9223372036854775807, 1.000, '-Infinity', 1, '1 second'), (2, -9223372036854775808, 1, 1, 1, '1 day'),
	(3, 1, '-Infinity', 1, 1, '12:00');
SELECT test.check('extremes');
SELECT k, s8, sf, sn = 'NaN' AS sn_is_nan FROM extremes ORDER BY k;

-- text: collations decide min and max, and which values are one group
CREATE COLLATION numeric_order (provider = icu, locale = 'en-u-kn-true');
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE words (k text COLLATE ignore_case, w text, v varchar(20) COLLATE "en-x-icu", n text COLLATE numeric_order, p text COLLATE "POSIX");
CREATE MATERIALIZED VIEW collated WITH (streamext.continuous) AS
	SELECT min(w) AS w1, max(w) AS w2, min(w COLLATE "en-x-icu") AS e1, max(w COLLATE "en-x-icu") AS e2, min(v) AS v1, max(v) AS v2,
		min(n) AS n1, max(n) AS n2, min(p) AS p1, max(p) AS p2, max(n COLLATE "C") AS c2
	FROM words;
CREATE MATERIALIZED VIEW ignoring_case WITH (streamext.continuous) AS SELECT k, count(*) AS n, max(n) AS most FROM words GROUP BY k;
CREATE MATERIALIZED VIEW by_icu WITH (streamext.continuous) AS SELECT lower(v) AS v, count(*) AS n FROM words GROUP BY lower(v);
INSERT INTO words VALUES ('One', 'apple', 'apple', 'item 9', 'a'), ('one', 'Banana', 'Banana', 'item 10', 'B');
SELECT test.check('collated'), test.check('ignoring_case'), test.check('by_icu');
INSERT INTO words VALUES ('ONE', 'cherry', 'Äpfel', 'item 100', '_'), ('two', 'Zucchini', 'zebra', 'item 2', 'é'), ('TWO', 'ähnlich', 'éclair', 'item 11', 'Z');
SELECT test.check('collated'), test.check('ignoring_case'), test.check('by_icu');
SELECT w1, w2, e1, e2, n1, n2, c2 FROM collated;
SELECT lower(k) AS k, n, most FROM ignoring_case ORDER BY 1;
SELECT k FROM collated, ignoring_case WHERE k = 'tWo' COLLATE ignore_case;

-- types with min and max of their own, and by enum order
CREATE TYPE size AS ENUM ('small', 'medium', 'large');
CREATE TABLE typed (k int, e size, a int[], t text[], ip inet, ci cidr, mac macaddr, r int4range, mr int4multirange, by bit(4), u uuid, ltr "char");
CREATE MATERIALIZED VIEW by_type WITH (streamext.continuous) AS
	SELECT k, min(e) AS e1, max(e) AS e2, min(a) AS a1, max(a) AS a2, max(t) AS t2, min(ip) AS i1, max(ip) AS i2, max(ci) AS c2,
		bit_or(by) AS o, bit_and(by) AS aa, bit_xor(by) AS x
	FROM typed GROUP BY k;
CREATE MATERIALIZED VIEW by_enum WITH (streamext.continuous) AS SELECT e, mac, u, count(*) AS n FROM typed GROUP BY e, mac, u;
INSERT INTO typed (k, e, a, t, ip, ci, mac, by, u) VALUES
	(1, 'large', '{1,2}', '{b}', '10.0.0.1', '10.0.0.0/8', '08:00:2b:01:02:03', B'0101', '00000000-0000-0000-0000-000000000001'),
	(1, 'small', '{1}', '{a,z}', '9.0.0.1/8', '10.0.0.0/16', '08:00:2b:01:02:04', B'0110', NULL),
	(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
SELECT test.check('by_type'), test.check('by_enum');
INSERT INTO typed (k, e, a, t, ip, ci, by) VALUES (1, 'medium', '{3,NULL}', '{c,NULL}', '::1', '2001:db8::/32', B'1000'), (2, 'medium', '{}', '{}', '1.2.3.4', '1.0.0.0/8', B'0000');
SELECT test.check('by_type'), test.check('by_enum');
ALTER TYPE size ADD VALUE 'tiny' BEFORE 'small';
INSERT INTO typed (k, e) VALUES (1, 'tiny');
SELECT test.check('by_type'), test.check('by_enum');
SELECT e1, e2, a1, a2 FROM by_type WHERE k = 1;

-- user-defined: strict and not, with and without an initial value, internal state, polymorphic, several arguments, moving parts
CREATE FUNCTION larger_state(text, text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT CASE WHEN length($1) >= length($2) THEN $1 ELSE $2 END $$;
CREATE AGGREGATE longest(text) (SFUNC = larger_state, STYPE = text, COMBINEFUNC = larger_state);
CREATE FUNCTION count_nulls_step(int, anyelement) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce($1, 0) + ($2 IS NULL)::int $$;
CREATE FUNCTION add_or_null(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce($1, 0) + coalesce($2, 0) $$;
CREATE FUNCTION show_count(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce($1::text, 'none') || ' nulls' $$;
CREATE AGGREGATE count_nulls(anyelement) (SFUNC = count_nulls_step, STYPE = int, COMBINEFUNC = add_or_null, FINALFUNC = show_count);
CREATE FUNCTION mean_step(numeric[], numeric, numeric) RETURNS numeric[] LANGUAGE sql IMMUTABLE STRICT
	AS $$ SELECT ARRAY[$1[1] + $2 * $3, $1[2] + $3] $$;
CREATE FUNCTION mean_combine(numeric[], numeric[]) RETURNS numeric[] LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT ARRAY[$1[1] + $2[1], $1[2] + $2[2]] $$;
CREATE FUNCTION mean_final(numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT round($1[1] / nullif($1[2], 0), 4) $$;
CREATE AGGREGATE weighted_mean(numeric, numeric) (SFUNC = mean_step, STYPE = numeric[], INITCOND = '{0,0}', COMBINEFUNC = mean_combine, FINALFUNC = mean_final);
CREATE FUNCTION keep_smallest(anyarray, anyelement) RETURNS anyarray LANGUAGE sql IMMUTABLE
	AS $$ SELECT (ARRAY(SELECT x FROM unnest($1 || $2) x ORDER BY x))[1:3] $$;
CREATE FUNCTION merge_smallest(anyarray, anyarray) RETURNS anyarray LANGUAGE sql IMMUTABLE
	AS $$ SELECT (ARRAY(SELECT x FROM unnest($1 || $2) x ORDER BY x))[1:3] $$;
CREATE AGGREGATE three_smallest(anyelement) (SFUNC = keep_smallest, STYPE = anyarray, INITCOND = '{}', COMBINEFUNC = merge_smallest);
CREATE FUNCTION plpgsql_step(bigint, int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1 + coalesce($2, 1000); END $$;
CREATE AGGREGATE nullable_sum(int) (SFUNC = plpgsql_step, STYPE = bigint, INITCOND = '0', COMBINEFUNC = int8pl, PARALLEL = SAFE);
CREATE AGGREGATE my_avg(int) (SFUNC = int4_avg_accum, STYPE = int8[], INITCOND = '{0,0}', COMBINEFUNC = int4_avg_combine, FINALFUNC = int8_avg);
CREATE AGGREGATE my_var(numeric) (SFUNC = numeric_accum, STYPE = internal, COMBINEFUNC = numeric_combine, SERIALFUNC = numeric_serialize,
	DESERIALFUNC = numeric_deserialize, FINALFUNC = numeric_var_samp);
CREATE TABLE own (k int, t text, v int, w int);
CREATE MATERIALIZED VIEW own_aggregates WITH (streamext.continuous) AS
	SELECT k, longest(t) AS longest, count_nulls(t) AS nulls_t, count_nulls(v) AS nulls_v, weighted_mean(v, w) AS mean, three_smallest(v) AS three,
		three_smallest(t) AS three_t, nullable_sum(v) AS ns, my_avg(v) AS avg, my_var(v) AS var
	FROM own GROUP BY k;
CREATE MATERIALIZED VIEW own_total WITH (streamext.continuous) AS
	SELECT longest(t), count_nulls(t), weighted_mean(v, w), three_smallest(v), nullable_sum(v), my_avg(v), my_var(v) FROM own;
SELECT test.check('own_total');
INSERT INTO own VALUES (1, 'abc', 3, 1), (1, NULL, NULL, NULL), (2, NULL, NULL, NULL);
SELECT test.check('own_aggregates'), test.check('own_total');
INSERT INTO own SELECT i % 4, CASE WHEN i % 3 > 0 THEN repeat(chr(97 + i % 26), i % 13) END, CASE WHEN i % 5 > 0 THEN i END, i % 7 FROM generate_series(1, 100) i;
SELECT test.check('own_aggregates'), test.check('own_total');
INSERT INTO own VALUES (2, NULL, NULL, NULL), (5, NULL, NULL, NULL);
SELECT test.check('own_aggregates'), test.check('own_total');
SELECT k, longest, nulls_t, mean, three, ns, round(avg, 3) AS avg FROM own_aggregates ORDER BY k;

-- an aggregate with a default argument, of a schema not in search_path, with VARIADIC
CREATE SCHEMA elsewhere;
CREATE FUNCTION elsewhere.variadic_step(bigint, VARIADIC int[]) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT $1 + (SELECT sum(x) FROM unnest($2) x) $$;
CREATE AGGREGATE elsewhere.sum_of(VARIADIC int[]) (SFUNC = elsewhere.variadic_step, STYPE = bigint, INITCOND = '0', COMBINEFUNC = int8pl);
CREATE AGGREGATE elsewhere.sum(int) (SFUNC = plpgsql_step, STYPE = bigint, INITCOND = '5', COMBINEFUNC = int8pl);
CREATE MATERIALIZED VIEW of_variadic WITH (streamext.continuous) AS
	SELECT k, elsewhere.sum_of(v, w, 1) AS a, elsewhere.sum_of(VARIADIC ARRAY[v]) AS b FROM own WHERE v IS NOT NULL AND w IS NOT NULL GROUP BY k;
INSERT INTO own VALUES (1, 'x', 10, 20);
SELECT test.check('of_variadic');

-- sketches: hll is exact in how it merges; tdigest is close
CREATE EXTENSION hll;
CREATE EXTENSION tdigest;
CREATE TABLE sketched (k int, who int, ms float8);
CREATE MATERIALIZED VIEW sketches WITH (streamext.continuous) AS
	SELECT k, hll_add_agg(hll_hash_integer(who)) AS people, hll_cardinality(hll_add_agg(hll_hash_integer(who))) AS n,
		tdigest_percentile(ms, 100, 0.5) AS p50, tdigest_percentile(ms, 100, ARRAY[0.9, 0.99]) AS tail, tdigest(ms, 100) AS digest
	FROM sketched GROUP BY k;
INSERT INTO sketched SELECT i % 3, i % 700, i % 1000 FROM generate_series(1, 6000) i;
SELECT streamext.wait_for(), streamext.flush();
INSERT INTO sketched SELECT i % 3, i % 900, i % 1000 FROM generate_series(1, 6000) i;
SELECT streamext.wait_for();
CREATE FUNCTION sketch_errors() RETURNS TABLE (k int, n_same bool, hll_same bool, p50_near bool, tail_near bool) LANGUAGE sql AS $$
	SELECT s.k, s.n = q.n, s.people = q.people, abs(s.p50 - q.p50) < 10, abs(s.tail[1] - q.tail[1]) < 10 AND abs(s.tail[2] - q.tail[2]) < 5
	FROM sketches s JOIN (SELECT k, hll_add_agg(hll_hash_integer(who)) AS people, hll_cardinality(hll_add_agg(hll_hash_integer(who))) AS n,
		percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) AS p50, percentile_cont(ARRAY[0.9, 0.99]) WITHIN GROUP (ORDER BY ms) AS tail
		FROM sketched GROUP BY k) q USING (k) ORDER BY k
$$;
SELECT * FROM sketch_errors();
SELECT streamext.flush();
SELECT * FROM sketch_errors();
-- sketches of groups merge further when read
SELECT hll_cardinality(hll_union_agg(people)) BETWEEN 850 AND 950 AS people FROM sketches;
