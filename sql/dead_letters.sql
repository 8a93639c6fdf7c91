-- Dead letters: rows whose expressions fail; everything else of their transactions counts (I6).
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE ev (id int, k text, v int, note text);
CREATE MATERIALIZED VIEW rows_ok WITH (streamext.continuous) AS SELECT id, v FROM ev;
CREATE MATERIALIZED VIEW ratios WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(100 / v) AS r FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW casts WITH (streamext.continuous) AS SELECT id, note::int AS i FROM ev WHERE note IS NOT NULL;
CREATE MATERIALIZED VIEW keys WITH (streamext.continuous) AS SELECT 1000 / v AS key, count(*) AS n FROM ev GROUP BY 1000 / v;
CREATE MATERIALIZED VIEW filters WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev WHERE 10 / v > 0;
CREATE FUNCTION letters() RETURNS TABLE (view regclass, id text, reason text, sqlstate text, message text) LANGUAGE sql AS
$$ SELECT d.view, d."row" ->> 'id', d.reason, d.sqlstate, d.message FROM streamext.dead_letters d ORDER BY d.view::text, (d."row" ->> 'id')::int $$;

-- the bad row of a transaction; the others of it count
INSERT INTO ev VALUES (1, 'a', 10, '1'), (2, 'a', 0, 'two'), (3, 'b', 20, NULL);
SELECT streamext.wait_for(), streamext.flush();
SELECT * FROM letters();
SELECT test.check('rows_ok');
SELECT test.check('ratios', 'SELECT k, count(*), sum(100 / v) FROM ev WHERE v <> 0 GROUP BY k');
SELECT test.check('casts', $$SELECT id, note::int FROM ev WHERE note ~ '^\d+$'$$);
SELECT test.check('keys', 'SELECT 1000 / v, count(*) FROM ev WHERE v <> 0 GROUP BY 1');
SELECT test.check('filters', 'SELECT count(*) FROM ev WHERE CASE WHEN v <> 0 THEN 10 / v > 0 END');
SELECT "row", stream, at <= now() AS at FROM streamext.dead_letters WHERE view = 'casts'::regclass;
SELECT view, state FROM streamext.views ORDER BY view::text;
SELECT view, dead_letters, last_error FROM streamext.status ORDER BY view::text;

-- first, last, many and only bad rows of a batch
INSERT INTO ev SELECT i, 'c', CASE WHEN i IN (100, 250, 499) THEN 0 ELSE i END, i FROM generate_series(100, 499) i;
INSERT INTO ev SELECT i, 'd', 0, 'x' FROM generate_series(600, 649) i;
INSERT INTO ev VALUES (700, 'e', 1, '12');
SELECT streamext.wait_for(), streamext.flush();
SELECT view, count(*), min(id::int), max(id::int), min(sqlstate), min(message) FROM letters() GROUP BY view ORDER BY view::text;
SELECT test.check('ratios', 'SELECT k, count(*), sum(100 / v) FROM ev WHERE v <> 0 GROUP BY k');
SELECT test.check('rows_ok'), test.check('filters', 'SELECT count(*) FROM ev WHERE CASE WHEN v <> 0 THEN 10 / v > 0 END');

-- a dead letter is stored once, and before it is flushed too it is counted in the status
SELECT dead_letters FROM streamext.status WHERE view = 'ratios'::regclass;
SELECT streamext.flush();
SELECT count(*) FROM letters() WHERE view = 'ratios'::regclass;
-- rolled back: no letter
BEGIN;
INSERT INTO ev VALUES (800, 'a', 0, 'x');
ROLLBACK;
SELECT streamext.wait_for(), streamext.flush();
SELECT count(*) FROM letters() WHERE id = '800';
DROP MATERIALIZED VIEW ratios, casts, keys, filters, rows_ok;
SELECT count(*) FROM streamext.dead_letters;

-- history has dead letters as well
CREATE MATERIALIZED VIEW ratios WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(100 / v) AS r FROM ev GROUP BY k;
SELECT test.check('ratios', 'SELECT k, count(*), sum(100 / v) FROM ev WHERE v <> 0 GROUP BY k');
SELECT count(*), min(message) FROM letters();

-- overflow: of one row's expression, of a transition function
CREATE TABLE big (id int, k int, v int, s int2);
CREATE MATERIALIZED VIEW overflows WITH (streamext.continuous) AS SELECT k, sum(v * 2) AS s, count(*) AS n FROM big GROUP BY k;
INSERT INTO big VALUES (1, 1, 2000000000, 1), (2, 1, 5, 1);
SELECT streamext.wait_for('overflows'), streamext.flush('overflows');
TABLE overflows;
SELECT id, sqlstate, message FROM letters() WHERE view = 'overflows'::regclass;
-- a sum that overflows only when states are combined belongs to no row: the view stands still and says so
CREATE FUNCTION small_add(int2, int2) RETURNS int2 LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0::int2) + coalesce($2, 0::int2)';
CREATE AGGREGATE small_sum(int2) (SFUNC = small_add, STYPE = int2, COMBINEFUNC = small_add);
CREATE MATERIALIZED VIEW small_sums WITH (streamext.continuous) AS SELECT k, small_sum(s) AS s FROM big GROUP BY k;
INSERT INTO big VALUES (3, 3, 1, 30000);
SELECT test.check('small_sums');
INSERT INTO big VALUES (4, 3, 1, 30000);
SELECT test.until($$SELECT last_error IS NOT NULL AND reason IS NOT NULL FROM streamext.status WHERE view = 'small_sums'::regclass$$);
SELECT last_error FROM streamext.status WHERE view = 'small_sums'::regclass;
SELECT test.check('overflows', 'SELECT k, sum(v * 2), count(*) FROM big WHERE id <> 1 GROUP BY k');
DROP MATERIALIZED VIEW small_sums;

-- keys that are too large for the index
CREATE TABLE long_keys (id int, k text);
ALTER TABLE long_keys ALTER COLUMN k SET STORAGE EXTERNAL;
CREATE MATERIALIZED VIEW by_long WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM long_keys GROUP BY k;
INSERT INTO long_keys SELECT i, CASE WHEN i = 3 THEN (SELECT string_agg(md5(x::text), '') FROM generate_series(1, 1000) x) ELSE 'short ' || i % 2 END FROM generate_series(1, 6) i;
SELECT streamext.wait_for('by_long'), streamext.flush('by_long');
TABLE by_long ORDER BY 1;
SELECT "row" ->> 'id' AS id, reason, sqlstate, message, length("row" ->> 'k') AS length FROM streamext.dead_letters WHERE view = 'by_long'::regclass;

-- user code that raises: class P0 with an own code, a constraint of a domain, a cast of its own; a function that is slow to give up
CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);
CREATE FUNCTION picky(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN IF $1 = 13 THEN RAISE EXCEPTION 'unlucky: %', $1 USING ERRCODE = 'P0013', DETAIL = 'thirteen'; END IF; RETURN $1; END $$;
CREATE FUNCTION caught(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN RETURN public.picky($1)::text; EXCEPTION WHEN OTHERS THEN RETURN 'caught ' || SQLERRM; END $$;
CREATE TABLE numbers (id int, v int);
CREATE MATERIALIZED VIEW evens WITH (streamext.continuous) AS SELECT id, v::even AS e FROM numbers;
CREATE MATERIALIZED VIEW lucky WITH (streamext.continuous) AS SELECT picky(v) % 2 AS odd, count(*) AS n FROM numbers GROUP BY 1;
CREATE MATERIALIZED VIEW catches WITH (streamext.continuous) AS SELECT id, caught(v) AS c FROM numbers;
INSERT INTO numbers SELECT i, i FROM generate_series(10, 15) i;
SELECT streamext.wait_for(), streamext.flush();
SELECT view, id, reason, sqlstate, message FROM letters() WHERE view IN ('evens'::regclass, 'lucky'::regclass, 'catches'::regclass);
SELECT test.check('evens', 'SELECT id, v::even FROM numbers WHERE v % 2 = 0');
SELECT test.check('lucky', 'SELECT v % 2, count(*) FROM numbers WHERE v <> 13 GROUP BY 1');
SELECT test.check('catches');

-- a cardinality error in a sub-select: the row's
CREATE TABLE many (id int PRIMARY KEY, k int);
INSERT INTO many VALUES (1, 11), (2, 12), (3, 12);
CREATE INDEX ON many (k);
CREATE MATERIALIZED VIEW scalar WITH (streamext.continuous) AS SELECT n.id, (SELECT m.id FROM many m WHERE m.k = n.v) AS m FROM numbers n WHERE v < 13;
SELECT test.check('scalar', 'SELECT n.id, (SELECT m.id FROM many m WHERE m.k = n.v) FROM numbers n WHERE v < 12');
SELECT id, sqlstate, message FROM letters() WHERE view = 'scalar'::regclass;

-- rows that cannot be shown as jsonb still have their letter
CREATE TYPE shy;
CREATE FUNCTION shy_in(cstring) RETURNS shy LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION shy_out(shy) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE shy (INPUT = shy_in, OUTPUT = shy_out, LIKE = int4);
CREATE FUNCTION shy_json(shy) RETURNS json LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'no'; END $$;
CREATE CAST (shy AS json) WITH FUNCTION shy_json(shy);
CREATE TABLE shies (s shy, v int);
CREATE MATERIALIZED VIEW of_shies WITH (streamext.continuous) AS SELECT 1 / v AS q FROM shies;
INSERT INTO shies VALUES ('1', 0), ('2', 1);
SELECT test.check('of_shies', 'SELECT 1 / v FROM shies WHERE v <> 0');
SELECT "row", sqlstate, message FROM streamext.dead_letters WHERE view = 'of_shies'::regclass;

-- a letter's row shows what was inserted, even when it is gone
CREATE TABLE gone (id int, v int);
CREATE MATERIALIZED VIEW of_gone WITH (streamext.continuous) AS SELECT 1 / v AS q FROM gone;
SELECT streamext.wait_for('of_gone');
BEGIN;
INSERT INTO gone VALUES (1, 0);
UPDATE gone SET v = 1;
DELETE FROM gone;
COMMIT;
SELECT streamext.wait_for('of_gone'), streamext.flush('of_gone');
SELECT "row" FROM streamext.dead_letters WHERE view = 'of_gone'::regclass;

-- they go with their view
SET client_min_messages = warning;
DROP TABLE ev, big, long_keys, numbers, shies, gone CASCADE;
RESET client_min_messages;
SELECT count(*) FROM streamext.dead_letters;
