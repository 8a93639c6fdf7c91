-- Refusals: every definition, argument and command that is not supported, with its SQLSTATE, reason and way out.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include
CREATE TABLE s (id int PRIMARY KEY, k int, v int, t text, x float8, ts timestamptz NOT NULL, j json, p point);
CREATE TABLE l (id int PRIMARY KEY, name text);
-- declared, so that it is the stream wherever it stands
SELECT streamext.create_stream('s');
CREATE MATERIALIZED VIEW continuous WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM s GROUP BY k;
-- one refused definition
CREATE FUNCTION refused(query text, OUT code text, OUT message text, OUT detail text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS ' || query;
	code := 'not refused';
	DROP MATERIALIZED VIEW v;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	message := test.mask(message);
	detail := test.mask(detail);
END
$$;
\pset format unaligned
\pset expanded on
\pset tuples_only on

-- the shape of the query
SELECT * FROM refused('SELECT DISTINCT k FROM s');
SELECT * FROM refused('SELECT DISTINCT ON (k) k, v FROM s ORDER BY k, v');
SELECT * FROM refused('SELECT k FROM s UNION ALL SELECT id FROM l');
SELECT * FROM refused('SELECT k FROM s EXCEPT SELECT id FROM l');
SELECT * FROM refused('VALUES (1), (2)');
SELECT * FROM refused('SELECT k, row_number() OVER (PARTITION BY k) FROM s');
SELECT * FROM refused('SELECT k, sum(count(*)) OVER () FROM s GROUP BY k');
SELECT * FROM refused('SELECT k, count(*) FROM s GROUP BY ROLLUP (k)');
SELECT * FROM refused('SELECT k, count(*) FROM s GROUP BY GROUPING SETS ((k), ())');
SELECT * FROM refused('SELECT count(*) FROM s GROUP BY ()');
SELECT * FROM refused('SELECT k FROM s LIMIT 10');
SELECT * FROM refused('SELECT k FROM s OFFSET 1');
SELECT * FROM refused('SELECT k, count(*) FROM s GROUP BY k ORDER BY 2 FETCH FIRST 3 ROWS WITH TIES');
SELECT * FROM refused('SELECT k FROM s FOR UPDATE');
SELECT * FROM refused('SELECT id, v, count(*) FROM s GROUP BY id');
SELECT * FROM refused('SELECT 1 AS one FROM s HAVING true');
SELECT * FROM refused('SELECT k FROM s ORDER BY v');
SELECT * FROM refused('SELECT FROM s');
SELECT * FROM refused('SELECT k, generate_series(1, count(*)) FROM s GROUP BY k');
SELECT * FROM refused('WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT s.k FROM s, r');
SELECT * FROM refused('WITH r AS (INSERT INTO l VALUES (1) RETURNING id) SELECT s.k FROM s, r');
SELECT * FROM refused('SELECT k FROM s TABLESAMPLE SYSTEM (10)');
SELECT * FROM refused('SELECT s.k FROM s, l TABLESAMPLE BERNOULLI (10)');
SELECT * FROM refused('SELECT k, k FROM s');
SELECT * FROM refused('SELECT ROW(k, v) FROM s');
SELECT * FROM refused('SELECT k, ROW(v, v) AS r, count(*) FROM s GROUP BY k, ROW(v, v)');

-- where the stream stands
SELECT * FROM refused('SELECT 1 AS one');
SELECT * FROM refused('SELECT g FROM generate_series(1, 3) g');
SELECT * FROM refused('SELECT a.k FROM s a JOIN s b ON a.id = b.id');
SELECT * FROM refused('SELECT k FROM s WHERE v > (SELECT avg(v) FROM s)');
SELECT * FROM refused('SELECT l.name, s.k FROM l LEFT JOIN s ON s.id = l.id');
SELECT * FROM refused('SELECT l.name, s.k FROM s RIGHT JOIN l ON s.id = l.id');
SELECT * FROM refused('SELECT l.name, s.k FROM s FULL JOIN l ON s.id = l.id');
SELECT * FROM refused('SELECT k FROM (SELECT k, count(*) FROM s GROUP BY k) x');
SELECT * FROM refused('SELECT k FROM (SELECT DISTINCT k FROM s) x');
SELECT * FROM refused('SELECT k FROM (SELECT k FROM s LIMIT 5) x');
SELECT * FROM refused('SELECT k, r FROM (SELECT k, row_number() OVER () AS r FROM s) x');
SELECT * FROM refused('SELECT k FROM (SELECT k FROM s UNION ALL SELECT id FROM l) x');
SELECT * FROM refused('SELECT k FROM (SELECT k FROM s FOR SHARE) x');
SELECT * FROM refused('WITH x AS MATERIALIZED (SELECT k FROM s) SELECT k FROM x');
SELECT * FROM refused('WITH x AS (SELECT k FROM s) SELECT a.k FROM x a JOIN x b ON a.k = b.k');
CREATE VIEW over_s AS SELECT * FROM s;
SELECT * FROM refused('SELECT k FROM over_s');
SELECT * FROM refused('SELECT s.k FROM s JOIN over_s USING (id)');
SELECT * FROM refused('SELECT xmin, k FROM s');
SELECT * FROM refused('SELECT ctid, count(*) FROM s GROUP BY ctid');

-- keys
SELECT * FROM refused('SELECT j, count(*) FROM s GROUP BY j');
SELECT * FROM refused('SELECT p, count(*) FROM s GROUP BY p');
SELECT * FROM refused('SELECT count(*) FROM s GROUP BY ' || (SELECT string_agg('k + ' || i, ', ') FROM generate_series(1, 33) i));
SELECT * FROM refused('SELECT t COLLATE "C" || t COLLATE "POSIX" AS c, count(*) FROM s GROUP BY 1');
SELECT * FROM refused('SELECT money(1) AS m, k::text::xid AS x, count(*) FROM s GROUP BY 1, 2');

-- aggregates
SELECT * FROM refused('SELECT k, count(DISTINCT v) FROM s GROUP BY k');
SELECT * FROM refused('SELECT k, percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM s GROUP BY k');
SELECT * FROM refused('SELECT k, mode() WITHIN GROUP (ORDER BY v) FROM s GROUP BY k');
SELECT * FROM refused('SELECT k, rank(1) WITHIN GROUP (ORDER BY v) FROM s GROUP BY k');
SELECT * FROM refused('SELECT k, sum(v ORDER BY v) FROM s GROUP BY k');
SELECT * FROM refused('SELECT k, json_object_agg(t, v) FROM s GROUP BY k');
SELECT * FROM refused('SELECT k, xmlagg(xmlelement(name a)) FROM s GROUP BY k');
CREATE AGGREGATE no_combine(int) (SFUNC = int4pl, STYPE = int);
SELECT * FROM refused('SELECT k, no_combine(v) FROM s GROUP BY k');
CREATE AGGREGATE no_serial(bigint) (SFUNC = int8_avg_accum, STYPE = internal, FINALFUNC = numeric_poly_avg, COMBINEFUNC = int8_avg_combine);
SELECT * FROM refused('SELECT k, no_serial(v::bigint) FROM s GROUP BY k');
CREATE FUNCTION volatile_add(int, int) RETURNS int LANGUAGE sql AS 'SELECT coalesce($1, 0) + $2';
SELECT * FROM refused('SELECT k, v FROM s GROUP BY k');
SELECT * FROM refused('SELECT k, sum(count(*)) FROM s GROUP BY k');

-- functions
SELECT * FROM refused('SELECT now(), k FROM s');
SELECT * FROM refused('SELECT k FROM s WHERE ts > now() - interval ''1 hour''');
SELECT * FROM refused('SELECT k FROM s WHERE ts > CURRENT_TIMESTAMP');
SELECT * FROM refused('SELECT CURRENT_DATE AS d, LOCALTIME AS t, k FROM s');
SELECT * FROM refused('SELECT CURRENT_USER AS u, k FROM s');
SELECT * FROM refused('SELECT CURRENT_SCHEMA AS u, k FROM s');
SELECT * FROM refused('SELECT random() AS r, k FROM s');
SELECT * FROM refused('SELECT clock_timestamp(), k FROM s');
SELECT * FROM refused('SELECT k, count(*) FROM s GROUP BY k HAVING count(*) > random() * 10');
SELECT * FROM refused('SELECT gen_random_uuid() AS u, k FROM s');
SELECT * FROM refused('SELECT age(ts), k FROM s');
SELECT * FROM refused('SELECT ts::timetz AS t, k FROM s');
SELECT * FROM refused('SELECT current_setting(''work_mem'') AS c, k FROM s');
SELECT * FROM refused('SELECT t::regclass AS c FROM s');
SELECT * FROM refused('SELECT k, pg_relation_size(''l'') AS c FROM s');
CREATE SEQUENCE seq;
SELECT * FROM refused('SELECT nextval(''seq'') AS n, k FROM s');
CREATE FUNCTION looks_up(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM l WHERE id = $1';
SELECT * FROM refused('SELECT looks_up(k) AS n FROM s');
CREATE FUNCTION changes_its_mind(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN random() * $1; END';
SELECT * FROM refused('SELECT changes_its_mind(k) AS n FROM s');
CREATE OPERATOR #?# (LEFTARG = int, RIGHTARG = int, FUNCTION = volatile_add);
SELECT * FROM refused('SELECT k #?# v AS n FROM s');
CREATE FUNCTION sets(int) RETURNS SETOF int LANGUAGE sql AS 'SELECT $1';
SELECT * FROM refused('SELECT s.k, g FROM s, sets(k) g');
SELECT * FROM refused('SELECT streamext.tumble(now(), ''1 hour'') AS w, count(*) FROM s GROUP BY 1');
CREATE VIEW volatile_view AS SELECT id, random() AS r FROM l;
SELECT * FROM refused('SELECT s.k, w.r FROM s JOIN volatile_view w ON w.id = s.id');

-- the stream's kind
CREATE TEMP TABLE temporary (a int);
CREATE UNLOGGED TABLE unlogged (a int);
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE foreign_table (a int) SERVER files OPTIONS (filename '/dev/null');
CREATE MATERIALIZED VIEW matview AS SELECT 1 AS a;
CREATE TABLE parent (a int);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE parted (a int) PARTITION BY LIST (a);
CREATE UNLOGGED TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_f (a int) PARTITION BY LIST (a);
CREATE FOREIGN TABLE parted_f_1 PARTITION OF parted_f FOR VALUES IN (1) SERVER files OPTIONS (filename '/dev/null');
SELECT * FROM refused('SELECT a FROM temporary');
SELECT * FROM refused('SELECT a FROM unlogged');
SELECT * FROM refused('SELECT a FROM foreign_table');
SELECT * FROM refused('SELECT a FROM matview');
SELECT * FROM refused('SELECT a FROM parent');
SELECT * FROM refused('SELECT a FROM parted');
SELECT * FROM refused('SELECT a FROM parted_f');
SELECT * FROM refused('SELECT k FROM continuous');
SELECT * FROM refused('SELECT oid FROM pg_class');
SELECT * FROM refused('SELECT table_name FROM information_schema.tables');
SELECT * FROM refused('SELECT stream FROM streamext.stream_def');
SELECT * FROM refused('SELECT n FROM continuous JOIN s USING (k)');
SELECT * FROM refused('SELECT s.k FROM s, temporary WHERE a = k');
SELECT * FROM refused('SELECT last_value FROM seq');
SELECT * FROM refused('SELECT a FROM ONLY parted');

-- row security that applies to the view's owner
CREATE ROLE regress_streamext_rls;
GRANT CREATE ON SCHEMA public TO regress_streamext_rls;
CREATE TABLE secured (a int);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON secured, s TO regress_streamext_rls;
GRANT EXECUTE ON FUNCTION refused(text) TO regress_streamext_rls;
SET ROLE regress_streamext_rls;
SELECT * FROM refused('SELECT a FROM secured');
SELECT * FROM refused('SELECT s.k FROM s JOIN secured ON a = k');
RESET ROLE;

-- what is not a plain CREATE
\pset expanded off
\pset tuples_only off
\pset format aligned
PREPARE p(int) AS SELECT $1;
CREATE TEMP VIEW tv AS SELECT 1;
CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS EXECUTE p(1);
\echo :SQLSTATE
CREATE MATERIALIZED VIEW pg_temp.v WITH (streamext.continuous) AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW pg_catalog.v WITH (streamext.continuous) AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v USING nothing WITH (streamext.continuous) AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous) TABLESPACE nowhere AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v (a, b, c) WITH (streamext.continuous) AS SELECT k, v FROM s;
\echo :SQLSTATE
CREATE TABLE v WITH (streamext.continuous) AS SELECT k FROM s;
\echo :SQLSTATE
CREATE VIEW v WITH (streamext.continuous) AS SELECT k FROM s;
\echo :SQLSTATE
EXPLAIN CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT k FROM s;
\echo :SQLSTATE
BEGIN READ ONLY;
CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT k FROM s;
\echo :SQLSTATE
ROLLBACK;

-- options
CREATE MATERIALIZED VIEW v WITH (streamext.continuous = maybe) AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.continuous) AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.flush_interval = '1s') AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.colour = 'red') AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.flush_interval = 'often') AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.flush_interval = '-1s') AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.flush_interval) AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.emit = 'sometimes') AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.emit = 'on_close') AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.retention = '1 day') AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.stream = 'nothing') AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.stream = 'l') AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.stream = 'a.b.c.d') AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, nothing = 1) AS SELECT k FROM s;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, fillfactor = 5) AS SELECT k FROM s;
\echo :SQLSTATE

-- a lookup without an index is allowed, with a warning
CREATE TABLE unindexed (id int, name text);
CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT u.name FROM s JOIN unindexed u ON u.id = s.k;
DROP MATERIALIZED VIEW v;

-- streams
SELECT streamext.create_stream('nothing');
\echo :SQLSTATE
SELECT streamext.create_stream(NULL);
\echo :SQLSTATE
SELECT streamext.create_stream(999999999::oid::regclass);
\echo :SQLSTATE
SELECT streamext.create_stream('temporary');
\echo :SQLSTATE
SELECT streamext.create_stream('unlogged');
\echo :SQLSTATE
SELECT streamext.create_stream('foreign_table');
\echo :SQLSTATE
SELECT streamext.create_stream('over_s');
\echo :SQLSTATE
SELECT streamext.create_stream('matview');
\echo :SQLSTATE
SELECT streamext.create_stream('continuous');
\echo :SQLSTATE
SELECT streamext.create_stream('pg_class');
\echo :SQLSTATE
SELECT streamext.create_stream('streamext.view_def');
\echo :SQLSTATE
SELECT streamext.create_stream('seq');
\echo :SQLSTATE
SELECT streamext.create_stream('s_pkey');
\echo :SQLSTATE
SELECT streamext.create_stream('parent');
\echo :SQLSTATE
CREATE TABLE timed (k int, t text, ts timestamptz NOT NULL, nullable timestamptz);
SELECT streamext.create_stream('timed', event_time => 'nothing');
\echo :SQLSTATE
SELECT streamext.create_stream('timed', event_time => 'k');
\echo :SQLSTATE
SELECT streamext.create_stream('timed', event_time => 't');
\echo :SQLSTATE
SELECT streamext.create_stream('timed', event_time => 'ctid');
\echo :SQLSTATE
SELECT streamext.create_stream('timed', event_time => 'nullable');
\echo :SQLSTATE
SELECT streamext.create_stream('s');
\echo :SQLSTATE
SELECT streamext.drop_stream('l');
\echo :SQLSTATE
SELECT streamext.drop_stream('s');
\echo :SQLSTATE

-- functions over views
SELECT streamext.wait_for('s');
\echo :SQLSTATE
SELECT streamext.wait_for('continuous', '-1s');
\echo :SQLSTATE
SELECT streamext.wait_for('continuous', NULL);
\echo :SQLSTATE
SELECT streamext.wait_for('nothing');
\echo :SQLSTATE
SELECT streamext.flush('s');
\echo :SQLSTATE
SELECT streamext.pause('s');
\echo :SQLSTATE
SELECT streamext.pause(NULL);
\echo :SQLSTATE
SELECT streamext.resume('over_s');
\echo :SQLSTATE
REFRESH MATERIALIZED VIEW continuous;
\echo :SQLSTATE

-- settings
SET streamext.live_memory = '1GB';
\echo :SQLSTATE
SET streamext.max_databases = 3;
\echo :SQLSTATE
SET streamext.read_consistency = 'sometimes';
\echo :SQLSTATE
SET streamext.wait_timeout = '-1s';
\echo :SQLSTATE
SET streamext.nothing = 1;
\echo :SQLSTATE

-- no refusal left anything behind
SELECT view FROM streamext.views;
SELECT test.leftovers();
SELECT test.check('continuous');
DROP OWNED BY regress_streamext_rls;
DROP ROLE regress_streamext_rls;
