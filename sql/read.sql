-- Reading a view: everything that a query may do to it, with live state and without (I5).
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- flush_interval: nothing is flushed but by us, so that both parts of a read are there
CREATE TABLE ev (k int, g text, v int);
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k, sum(v) AS s, count(*) AS n, avg(v) AS a FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW by_two WITH (streamext.continuous, streamext.flush_interval = '1h') AS
	SELECT k % 10 AS d, g, sum(v) AS s FROM ev GROUP BY k % 10, g;
CREATE MATERIALIZED VIEW rows_of WITH (streamext.continuous, streamext.flush_interval = '1h') AS SELECT k, v FROM ev WHERE k < 20;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous, streamext.flush_interval = '1h') AS SELECT count(*) AS n, sum(v) AS s FROM ev;
CREATE MATERIALIZED VIEW many WITH (streamext.continuous, streamext.flush_interval = '1h') AS SELECT k, sum(v) AS s FROM ev GROUP BY k HAVING count(*) > 2;
CREATE INDEX sums_s ON sums (s);
-- rows that are there before a view is built are stored in the order of their keys, which plans go by
SELECT streamext.wait_for();
INSERT INTO ev SELECT i % 1000, 'g' || i % 3, i FROM generate_series(1, 2000) i;
SELECT streamext.wait_for(), streamext.flush();
INSERT INTO ev SELECT i % 50 + 975, 'g' || i % 4, i FROM generate_series(1, 200) i;
SELECT streamext.wait_for();
ANALYZE;
CREATE VIEW sums_by_hand AS SELECT k, sum(v) AS s, count(*) AS n, avg(v) AS a FROM ev GROUP BY k;

-- one query on the view and by hand: the same rows
CREATE FUNCTION same(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
	total bigint;
	by_hand text := regexp_replace(query, '\msums\M', 'sums_by_hand', 'g');
BEGIN
	EXECUTE format('SELECT count(*) FROM ((%1$s) EXCEPT ALL (%2$s)) x', query, by_hand) INTO n;
	EXECUTE format('SELECT count(*) FROM (%s) x', query) INTO total;
	IF n > 0 THEN
		RETURN format('%s of %s rows differ', n, total);
	END IF;
	EXECUTE format('SELECT count(*) FROM ((%2$s) EXCEPT ALL (%1$s)) x', query, by_hand) INTO n;
	RETURN CASE WHEN n = 0 THEN format('same %s rows', total) ELSE format('%s rows are missing', n) END;
END $$;
CREATE TABLE queries (id int GENERATED ALWAYS AS IDENTITY, query text);
INSERT INTO queries (query) VALUES
	('SELECT * FROM sums'),
	('SELECT * FROM sums WHERE k = 980'),
	('SELECT * FROM sums WHERE k = 5'),
	('SELECT * FROM sums WHERE k = 1020'),
	('SELECT * FROM sums WHERE k IN (1, 980, 1010, 5000)'),
	('SELECT * FROM sums WHERE k BETWEEN 970 AND 980'),
	('SELECT * FROM sums WHERE k IS NULL'),
	('SELECT * FROM sums WHERE s > 3000'),
	('SELECT * FROM sums WHERE s = (SELECT max(s) FROM sums)'),
	('SELECT k FROM sums WHERE n > 2 AND a < 600'),
	('SELECT 1 FROM sums'),
	('SELECT n, count(*) FROM sums GROUP BY n'),
	('SELECT count(*), sum(s), min(k), max(k) FROM sums'),
	('SELECT * FROM sums ORDER BY k LIMIT 5'),
	('SELECT * FROM sums ORDER BY k DESC LIMIT 60'),
	('SELECT s, k FROM sums ORDER BY s DESC, k LIMIT 30'),
	('SELECT k, s FROM sums ORDER BY s, k LIMIT 30 OFFSET 5'),
	('SELECT k, s FROM sums WHERE k > 975 ORDER BY s, k LIMIT 10'),
	('SELECT a.k, a.s, b.n FROM sums a JOIN sums b ON b.k = a.k + 1'),
	('SELECT a.k, b.n FROM sums a LEFT JOIN sums b ON b.k = a.k + 500 WHERE a.k > 400'),
	('SELECT e.k, e.v, x.s FROM ev e JOIN sums x USING (k) WHERE e.v < 30'),
	('SELECT k, (SELECT s FROM sums x WHERE x.k = e.k) AS s FROM ev e WHERE v BETWEEN 990 AND 1010'),
	('SELECT k FROM ev e WHERE NOT EXISTS (SELECT FROM sums x WHERE x.k = e.k AND x.n > 2)'),
	('SELECT k FROM ev WHERE k IN (SELECT k FROM sums WHERE n = 6)'),
	('SELECT k, row_number() OVER (ORDER BY s DESC, k) FROM sums'),
	('SELECT k FROM sums UNION SELECT v FROM ev'),
	('SELECT DISTINCT n FROM sums'),
	('SELECT x.k, x.s FROM generate_series(970, 1030) g, LATERAL (SELECT * FROM sums WHERE k = g) x'),
	('WITH c AS MATERIALIZED (SELECT * FROM sums WHERE k > 900) SELECT a.k FROM c a JOIN c b ON a.s = b.s');
-- all of them, with a setting of the planner turned off
CREATE FUNCTION all_same(setting text DEFAULT 'enable_tidscan') RETURNS TABLE (result text, query text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('jit', 'off', false), set_config(setting, 'off', false);
	FOR query IN SELECT x.query FROM queries x ORDER BY id LOOP
		result := same(query);
		RETURN NEXT;
	END LOOP;
	PERFORM set_config(setting, 'on', false);
END $$;
SELECT * FROM all_same();
SELECT s, a.* FROM unnest('{enable_seqscan,enable_indexscan,enable_sort,enable_hashagg,enable_nestloop}'::text[]) s, all_same(s) a WHERE result NOT LIKE 'same%';
SET enable_seqscan = off;
SET enable_sort = off;
SELECT * FROM all_same() WHERE result NOT LIKE 'same%';
RESET ALL;
-- those that do not compare every row with every row, with merge joins, and with parallel plans
DELETE FROM queries WHERE query ~ 'LATERAL|SELECT s FROM|EXISTS|IN \(SELECT|WITH|UNION';
SET enable_hashjoin = off;
SELECT * FROM all_same('enable_nestloop') WHERE result NOT LIKE 'same%';
RESET ALL;
SET min_parallel_table_scan_size = 0;
SET min_parallel_index_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SELECT * FROM all_same() WHERE result NOT LIKE 'same%';
RESET ALL;
SET timezone = 'UTC';

-- plans: the node of ours above an ordinary scan; order and limits come from an index
SET enable_bitmapscan = off;
SELECT test.explain('SELECT * FROM sums WHERE k = 5');
SELECT test.explain('SELECT * FROM sums WHERE n > 5');
SELECT test.explain('SELECT * FROM sums ORDER BY k LIMIT 5');
SELECT test.explain('SELECT * FROM sums ORDER BY s DESC LIMIT 5');
SELECT test.explain('SELECT e.v, x.s FROM ev e JOIN sums x USING (k) WHERE e.v = 7');
SELECT test.explain('SELECT * FROM total');
-- whichever order its rows are in
SET enable_indexscan = off;
SELECT test.explain('SELECT * FROM many WHERE k > 990');
RESET enable_indexscan;
RESET enable_bitmapscan;

-- two views in one statement, and in sub-selects: all at one position
SELECT (SELECT sum(s) FROM sums) = (SELECT s FROM total) AS same_sum, (SELECT sum(n) FROM sums) = total.n AS same_count,
	(SELECT sum(s) FROM by_two) = total.s AS same_by_two, (SELECT count(*) FROM rows_of) = (SELECT sum(n) FROM sums WHERE k < 20) AS same_rows FROM total;
SELECT test.check('many'), test.check('by_two'), test.check('rows_of'), test.check('total');

-- prepared statements: made before anything is live, used when something is, with parameters, generic and not
PREPARE one(int) AS SELECT k, s, n FROM sums WHERE k = $1;
PREPARE top(int) AS SELECT k FROM sums ORDER BY s DESC, k LIMIT $1;
EXECUTE one(7);
SET plan_cache_mode = force_generic_plan;
EXECUTE one(7);
INSERT INTO ev VALUES (7, 'x', 1000000), (5000, 'x', 1);
SELECT streamext.wait_for();
EXECUTE one(7);
EXECUTE one(5000);
EXECUTE top(2);
SELECT streamext.flush() IS NOT NULL;
EXECUTE one(7);
EXECUTE top(2);
SET plan_cache_mode = force_custom_plan;
EXECUTE one(7);
RESET plan_cache_mode;

-- cursors keep what they saw when they were opened, whatever is consumed and flushed meanwhile
INSERT INTO ev VALUES (7, 'x', 1);
SELECT streamext.wait_for();
SELECT sum(s) AS s, count(*) AS n FROM sums \gset
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT k, s FROM sums ORDER BY k;
FETCH 2 FROM c;
COMMIT;
BEGIN;
DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT k, s FROM sums WHERE k IN (7, 5000) ORDER BY k;
DECLARE d CURSOR FOR SELECT k, s FROM sums WHERE k IN (7, 5000) ORDER BY k;
FETCH FROM c;
FETCH FROM d;
SELECT streamext.flush();
FETCH FROM d;
FETCH FROM d;
COMMIT;
INSERT INTO ev VALUES (7, 'x', 5), (5000, 'x', 5);
SELECT streamext.wait_for(), streamext.flush();
FETCH BACKWARD ALL FROM c;
FETCH ALL FROM c;
CLOSE c;
SELECT k, s FROM sums WHERE k IN (7, 5000) ORDER BY k;
-- scrolling, and rewinding by a join
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT k FROM sums WHERE k > 1015 ORDER BY k;
FETCH FORWARD 3 FROM c;
FETCH BACKWARD 2 FROM c;
FETCH LAST FROM c;
FETCH FIRST FROM c;
FETCH ABSOLUTE 2 FROM c;
MOVE FORWARD ALL IN c;
FETCH PRIOR FROM c;
COMMIT;

-- REPEATABLE READ reads what is flushed for its snapshot, and repeats
INSERT INTO ev VALUES (6000, 'flushed', 1);
SELECT streamext.wait_for(), streamext.flush();
INSERT INTO ev VALUES (6000, 'live', 1), (6001, 'live', 1);
SELECT streamext.wait_for();
SELECT k, n FROM sums WHERE k >= 6000 ORDER BY k;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT k, n FROM sums WHERE k >= 6000 ORDER BY k;
SELECT streamext.flush();
SELECT k, n FROM sums WHERE k >= 6000 ORDER BY k;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT k, n FROM sums WHERE k >= 6000 ORDER BY k;
COMMIT;

-- own rows are visible only after they are committed
BEGIN;
INSERT INTO ev VALUES (6002, 'own', 1);
SELECT k, n FROM sums WHERE k = 6002;
COMMIT;
SELECT streamext.wait_for();
SELECT k, n FROM sums WHERE k = 6002;

-- read_consistency = wait: each read sees everything committed before
SET streamext.read_consistency = 'wait';
INSERT INTO ev VALUES (6003, 'waited for', 1);
SELECT k, n FROM sums WHERE k = 6003;
INSERT INTO ev VALUES (6003, 'waited for', 1);
SELECT s.k, s.n, t.n = (SELECT count(*) FROM ev) AS all_of_them FROM sums s, total t WHERE s.k = 6003;
INSERT INTO ev VALUES (6003, 'waited for', 1);
EXECUTE one(6003);
RESET streamext.read_consistency;

-- in functions, in views over views, as the source of INSERT, UPDATE, DELETE, MERGE and CREATE TABLE AS
CREATE FUNCTION of_key(int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT n FROM sums WHERE k = $1';
CREATE FUNCTION of_key_too(int) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT n FROM sums WHERE k = $1); END';
CREATE VIEW over AS SELECT k, s / n AS mean FROM sums WHERE n > 1;
SELECT of_key(6003), of_key_too(6003), (SELECT mean FROM over WHERE k = 6003);
CREATE TABLE target AS SELECT * FROM sums WHERE k >= 6000;
UPDATE target t SET s = -1 FROM sums s WHERE s.k = t.k AND s.n = 3;
DELETE FROM target t USING sums s WHERE s.k = t.k AND s.n = 2;
MERGE INTO target t USING (SELECT * FROM sums WHERE k BETWEEN 6000 AND 6003) s ON t.k = s.k
	WHEN MATCHED THEN UPDATE SET n = s.n * 100 WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.s, s.n, s.a);
SELECT k, s, n FROM target ORDER BY k;
INSERT INTO target SELECT * FROM sums WHERE k = 7;
-- a view as the source of its own stream
INSERT INTO ev SELECT 7000 + k % 2, 'again', s FROM sums WHERE k BETWEEN 6000 AND 6003;
SELECT test.check('sums');
SELECT k, n, s FROM sums WHERE k >= 7000 ORDER BY k;

-- CREATE STATISTICS, row locks and other things that are not for views
SELECT * FROM sums WHERE k = 7 FOR UPDATE;
SELECT ctid FROM sums;
CREATE STATISTICS st ON k, s FROM sums;
SELECT k FROM ONLY sums WHERE k = 7;
SELECT k FROM sums TABLESAMPLE SYSTEM (10);

-- empty results, groups that only live has, a group that HAVING lets in later
SELECT count(*) FROM sums WHERE k = -1;
CREATE TABLE new_groups (k int);
CREATE MATERIALIZED VIEW news WITH (streamext.continuous, streamext.flush_interval = '1h') AS SELECT k, count(*) AS n FROM new_groups GROUP BY k HAVING count(*) > 1 ORDER BY k;
INSERT INTO new_groups VALUES (1), (1), (2);
SELECT streamext.wait_for();
TABLE news;
SELECT streamext.flush();
INSERT INTO new_groups VALUES (2);
SELECT streamext.wait_for();
TABLE news;
SELECT test.check('news');
