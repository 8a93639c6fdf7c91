-- Partitions: the stream is a partitioned table; files change while views follow (I1).
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- several levels, columns in another order, dropped columns, a default partition
CREATE TABLE ev (id int NOT NULL, kind text NOT NULL, v numeric) PARTITION BY RANGE (id);
CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM (0) TO (1000);
CREATE TABLE ev_2 (gone int, v numeric, kind text NOT NULL, id int NOT NULL);
ALTER TABLE ev_2 DROP COLUMN gone;
ALTER TABLE ev ATTACH PARTITION ev_2 FOR VALUES FROM (1000) TO (2000);
CREATE TABLE ev_3 PARTITION OF ev FOR VALUES FROM (2000) TO (3000) PARTITION BY LIST (kind);
CREATE TABLE ev_3_a PARTITION OF ev_3 FOR VALUES IN ('a', 'b');
CREATE TABLE ev_3_rest PARTITION OF ev_3 DEFAULT;
CREATE TABLE ev_default PARTITION OF ev DEFAULT;
CREATE FUNCTION more(low int, high int) RETURNS void LANGUAGE sql AS
$$ INSERT INTO ev (id, kind, v) SELECT i, chr(97 + i % 4), i / 2.0 FROM generate_series(low, high, 7) i $$;
SELECT more(0, 4000);

CREATE MATERIALIZED VIEW by_kind WITH (streamext.continuous) AS
	SELECT kind, count(*) AS n, sum(v) AS s, min(id) AS low, max(id) AS high FROM ev GROUP BY kind;
CREATE MATERIALIZED VIEW all_rows WITH (streamext.continuous) AS SELECT id, kind, v FROM ev;
CREATE MATERIALIZED VIEW by_partition WITH (streamext.continuous) AS SELECT tableoid::regclass::oid AS leaf, count(*) AS n FROM ev GROUP BY 1;
-- a partition, at any level, may be a stream of its own, at the same time
CREATE MATERIALIZED VIEW of_leaf WITH (streamext.continuous) AS SELECT kind, count(*) AS n, sum(v) AS s FROM ev_2 GROUP BY kind;
CREATE MATERIALIZED VIEW of_level WITH (streamext.continuous) AS SELECT kind, count(*) AS n, sum(v) AS s FROM ev_3 GROUP BY kind;
SELECT * FROM test.check_all();
SELECT more(1, 4000);
INSERT INTO ev_2 VALUES (1.5, 'directly', 1500);
INSERT INTO ev_3 VALUES (2500, 'a', 2.5), (2501, 'z', 2.5);
SELECT * FROM test.check_all();

-- new partitions, used in the transaction that makes them, and later
BEGIN;
CREATE TABLE ev_5 PARTITION OF ev FOR VALUES FROM (5000) TO (6000);
SELECT more(5000, 5100);
COMMIT;
SELECT more(5000, 5200);
CREATE TABLE ev_3_c PARTITION OF ev_3 FOR VALUES IN ('new');
INSERT INTO ev VALUES (2600, 'new', 1);
BEGIN;
CREATE TABLE ev_6 PARTITION OF ev FOR VALUES FROM (6000) TO (7000);
SELECT more(6000, 6100);
ROLLBACK;
SELECT * FROM test.check_all();

-- attached with rows: these count once
CREATE TABLE ev_7 (id int NOT NULL, kind text NOT NULL, v numeric);
INSERT INTO ev_7 SELECT i, 'attached', 1 FROM generate_series(7000, 7010) i;
DELETE FROM ev_7 WHERE id = 7000;
UPDATE ev_7 SET v = 2 WHERE id = 7001;
ALTER TABLE ev ATTACH PARTITION ev_7 FOR VALUES FROM (7000) TO (8000);
SELECT more(7000, 7100);
SELECT * FROM test.check_all();
BEGIN;
CREATE TABLE ev_8 (id int NOT NULL, kind text NOT NULL, v numeric);
INSERT INTO ev_8 SELECT i, 'attached', 1 FROM generate_series(8000, 8010) i;
ALTER TABLE ev ATTACH PARTITION ev_8 FOR VALUES FROM (8000) TO (9000);
INSERT INTO ev_8 VALUES (8100, 'after', 1);
COMMIT;
INSERT INTO ev_8 VALUES (8101, 'after', 1);
SELECT * FROM test.check_all();

-- detached: what it brought still counts, what comes later does not; back again, only what is new counts
SELECT sum(n) AS n FROM by_kind;
INSERT INTO ev VALUES (7500, 'just before', 1);
ALTER TABLE ev DETACH PARTITION ev_7;
INSERT INTO ev_7 VALUES (7600, 'while detached', 1);
INSERT INTO ev VALUES (7600, 'in the default', 1);
SELECT streamext.wait_for();
SELECT n FROM by_kind WHERE kind IN ('just before', 'while detached', 'in the default') ORDER BY kind;
DELETE FROM ev WHERE kind = 'in the default';
ALTER TABLE ev ATTACH PARTITION ev_7 FOR VALUES FROM (7000) TO (8000);
SELECT streamext.wait_for(), streamext.flush();
SELECT kind, n FROM by_kind WHERE kind IN ('just before', 'while detached', 'in the default') ORDER BY kind;
SELECT test.check('by_kind', $$SELECT kind, count(*), sum(v), min(id), max(id) FROM
	(SELECT * FROM ev UNION ALL SELECT 7600, 'in the default', 1) x GROUP BY kind$$);

-- a partition of rows that are counted is dropped: nothing is lost; so with TRUNCATE
CREATE TABLE kept AS SELECT id, kind, v FROM ev;
INSERT INTO kept VALUES (7600, 'in the default', 1);
INSERT INTO ev SELECT 100, 'last words', 1 FROM generate_series(1, 500);
INSERT INTO kept SELECT 100, 'last words', 1 FROM generate_series(1, 500);
DROP TABLE ev_1;
SELECT test.check('by_kind', 'SELECT kind, count(*), sum(v), min(id), max(id) FROM kept GROUP BY kind');
INSERT INTO ev SELECT 5500, 'truncated', 1 FROM generate_series(1, 500);
INSERT INTO kept SELECT 5500, 'truncated', 1 FROM generate_series(1, 500);
TRUNCATE ev_5;
INSERT INTO ev VALUES (5501, 'after the truncate', 1);
INSERT INTO kept VALUES (5501, 'after the truncate', 1);
SELECT test.check('by_kind', 'SELECT kind, count(*), sum(v), min(id), max(id) FROM kept GROUP BY kind');
INSERT INTO ev SELECT 2500, 'b', i FROM generate_series(1, 500) i;
INSERT INTO kept SELECT 2500, 'b', i FROM generate_series(1, 500) i;
TRUNCATE ev;
INSERT INTO ev VALUES (2501, 'b', 0.5);
INSERT INTO kept VALUES (2501, 'b', 0.5);
SELECT test.check('by_kind', 'SELECT kind, count(*), sum(v), min(id), max(id) FROM kept GROUP BY kind');
SELECT test.check('all_rows', 'TABLE kept');
-- rows that one transaction inserts and truncates itself never were
BEGIN;
INSERT INTO ev VALUES (2502, 'never', 1);
TRUNCATE ev;
INSERT INTO ev VALUES (2503, 'b', 1.5);
COMMIT;
INSERT INTO kept VALUES (2503, 'b', 1.5);
SELECT test.check('by_kind', 'SELECT kind, count(*), sum(v), min(id), max(id) FROM kept GROUP BY kind');
-- a rolled-back one is as if it had not been given
BEGIN;
TRUNCATE ev;
INSERT INTO ev VALUES (2504, 'never', 1);
ROLLBACK;
INSERT INTO ev VALUES (2505, 'b', 1.5);
INSERT INTO kept VALUES (2505, 'b', 1.5);
SELECT test.check('by_kind', 'SELECT kind, count(*), sum(v), min(id), max(id) FROM kept GROUP BY kind');
SET client_min_messages = warning;
DROP TABLE ev CASCADE;
RESET client_min_messages;
SELECT count(*) FROM streamext.views;
SELECT test.leftovers();

-- a table's file is rewritten: no row is lost, none counts twice
CREATE TABLE flat (id int, v int, w text);
CREATE INDEX flat_id ON flat (id);
CREATE MATERIALIZED VIEW flat_sums WITH (streamext.continuous) AS SELECT id % 5 AS k, count(*) AS n, sum(v) AS s FROM flat GROUP BY id % 5;
CREATE MATERIALIZED VIEW flat_rows WITH (streamext.continuous) AS SELECT id, v FROM flat;
INSERT INTO flat SELECT i, i * 2, NULL FROM generate_series(1, 1000) i;
VACUUM FULL flat;
INSERT INTO flat SELECT i, i * 2, NULL FROM generate_series(1001, 1100) i;
SELECT * FROM test.check_all();
INSERT INTO flat SELECT i, i * 2, NULL FROM generate_series(1101, 1200) i;
CLUSTER flat USING flat_id;
SELECT * FROM test.check_all();
INSERT INTO flat SELECT i, i * 2, NULL FROM generate_series(1201, 1300) i;
-- a rewrite gives every row a new transaction, but none is new
ALTER TABLE flat ALTER COLUMN w TYPE int USING 1;
ALTER TABLE flat ADD COLUMN z timestamptz DEFAULT clock_timestamp();
SELECT * FROM test.check_all();
-- one without a rewrite is not
ALTER TABLE flat ADD COLUMN x timestamptz DEFAULT now();
ALTER TABLE flat ALTER COLUMN w TYPE varchar;
INSERT INTO flat SELECT i, i * 2, 5 FROM generate_series(1301, 1500) i;
SELECT * FROM test.check_all();
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE regress_streamext_space LOCATION '';
INSERT INTO flat SELECT i, i * 2, 5 FROM generate_series(1501, 1600) i;
ALTER TABLE flat SET TABLESPACE regress_streamext_space;
INSERT INTO flat SELECT i, i * 2, 5 FROM generate_series(1601, 1700) i;
SELECT * FROM test.check_all();
VACUUM (FREEZE) flat;
INSERT INTO flat SELECT i, i * 2, 5 FROM generate_series(1701, 1800) i;
VACUUM FULL flat;
SELECT * FROM test.check_all();
-- ALTER TABLE in a transaction that inserts
BEGIN;
INSERT INTO flat VALUES (1, 1, 1);
ALTER TABLE flat ADD COLUMN y int DEFAULT 3;
INSERT INTO flat VALUES (2, 2, 2);
COMMIT;
SELECT * FROM test.check_all();
ALTER TABLE flat SET TABLESPACE pg_default;
SET client_min_messages = warning;
DROP TABLE flat CASCADE;
RESET client_min_messages;
DROP TABLESPACE regress_streamext_space;

-- rows that move between partitions by UPDATE are a delete and an insert
CREATE TABLE moving (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE moving_1 PARTITION OF moving FOR VALUES FROM (0) TO (10);
CREATE TABLE moving_2 PARTITION OF moving FOR VALUES FROM (10) TO (20);
CREATE MATERIALIZED VIEW moves WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS s FROM moving;
INSERT INTO moving VALUES (1, 100), (2, 10), (11, 1);
SELECT test.check('moves');
UPDATE moving SET id = 3 WHERE id = 1;
UPDATE moving SET id = 12 WHERE id = 2;
SELECT streamext.wait_for();
TABLE moves;
SET client_min_messages = warning;
DROP TABLE moving CASCADE;
RESET client_min_messages;

-- a partition that is a stream itself: what it got while it was out counts when it comes back
CREATE TABLE whole (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE part_a PARTITION OF whole FOR VALUES FROM (0) TO (10);
CREATE TABLE part_b PARTITION OF whole FOR VALUES FROM (10) TO (20);
CREATE MATERIALIZED VIEW on_whole WITH (streamext.continuous) AS SELECT id, count(*) AS n, sum(v) AS s FROM whole GROUP BY id;
CREATE MATERIALIZED VIEW on_part WITH (streamext.continuous) AS SELECT id, v FROM part_a;
INSERT INTO whole VALUES (1, 100), (11, 10);
SELECT test.check('on_whole'), test.check('on_part');
ALTER TABLE whole DETACH PARTITION part_a;
INSERT INTO part_a VALUES (2, 1000);
SELECT test.check('on_part');
ALTER TABLE whole ATTACH PARTITION part_a FOR VALUES FROM (0) TO (10);
INSERT INTO whole VALUES (3, 5);
SELECT test.check('on_whole'), test.check('on_part');
SELECT streamext.flush();
SELECT test.check('on_whole'), test.check('on_part');
SET client_min_messages = warning;
DROP TABLE whole CASCADE;
RESET client_min_messages;

-- one that comes back: a view that had it counts what is new, one made meanwhile all of it, but WITH NO DATA only
-- what the stream never had
CREATE TABLE pool (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE pool_a PARTITION OF pool FOR VALUES FROM (0) TO (10);
CREATE TABLE pool_b PARTITION OF pool FOR VALUES FROM (10) TO (20);
CREATE MATERIALIZED VIEW had WITH (streamext.continuous) AS SELECT id, count(*) AS n, sum(v) AS s FROM pool GROUP BY id;
INSERT INTO pool VALUES (1, 100), (11, 10);
SELECT test.check('had');
ALTER TABLE pool DETACH PARTITION pool_a;
INSERT INTO pool_a VALUES (2, 1000);
CREATE MATERIALIZED VIEW had_not WITH (streamext.continuous) AS SELECT id, v FROM pool;
CREATE MATERIALIZED VIEW from_now WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS s FROM pool WITH NO DATA;
SELECT test.check('had_not');
ALTER TABLE pool ATTACH PARTITION pool_a FOR VALUES FROM (0) TO (10);
INSERT INTO pool VALUES (3, 5);
SELECT test.check('had'), test.check('had_not'), test.check('from_now', 'SELECT count(*), sum(v) FROM pool WHERE id IN (2, 3)');
BEGIN;
ALTER TABLE pool DETACH PARTITION pool_a;
INSERT INTO pool_a VALUES (4, 6);
ALTER TABLE pool ATTACH PARTITION pool_a FOR VALUES FROM (0) TO (10);
COMMIT;
INSERT INTO pool VALUES (4, 7);
SELECT test.check('had'), test.check('had_not'), test.check('from_now', 'SELECT count(*), sum(v) FROM pool WHERE id IN (2, 3, 4)');

-- attached before a view WITH NO DATA has begun to read
CREATE TABLE pool_c (id int, v int);
INSERT INTO pool_c VALUES (21, 1);
BEGIN;
CREATE MATERIALIZED VIEW since WITH (streamext.continuous) AS SELECT id, v FROM pool WITH NO DATA;
ALTER TABLE pool ATTACH PARTITION pool_c FOR VALUES FROM (20) TO (30);
COMMIT;
INSERT INTO pool VALUES (22, 2);
SELECT test.check('since', 'TABLE pool_c');

-- it moves to another stream, and back
CREATE TABLE archive (id int, v int) PARTITION BY RANGE (id);
CREATE MATERIALIZED VIEW archived WITH (streamext.continuous) AS SELECT id, count(*) AS n, sum(v) AS s FROM archive GROUP BY id;
ALTER TABLE pool DETACH PARTITION pool_a;
ALTER TABLE archive ATTACH PARTITION pool_a FOR VALUES FROM (0) TO (10);
INSERT INTO archive VALUES (5, 8);
SELECT test.check('archived'), test.check('had_not', 'SELECT * FROM archive WHERE id <> 5 UNION ALL TABLE pool');
ALTER TABLE archive DETACH PARTITION pool_a;
ALTER TABLE pool ATTACH PARTITION pool_a FOR VALUES FROM (0) TO (10);
INSERT INTO pool VALUES (5, 9);
SELECT test.check('had'), test.check('had_not'), test.check('archived', 'SELECT id, count(*), sum(v) FROM pool WHERE id < 10 AND v <> 9 GROUP BY id');
SET client_min_messages = warning;
DROP TABLE pool, archive CASCADE;
RESET client_min_messages;

-- hash partitions, a primary key, many of them
CREATE TABLE hashed (id int PRIMARY KEY, v int) PARTITION BY HASH (id);
SELECT format('CREATE TABLE hashed_%s PARTITION OF hashed FOR VALUES WITH (MODULUS 20, REMAINDER %s)', i, i) FROM generate_series(0, 19) i \gexec
CREATE MATERIALIZED VIEW hashes WITH (streamext.continuous) AS SELECT v, count(*) AS n FROM hashed GROUP BY v;
INSERT INTO hashed SELECT i, i % 10 FROM generate_series(1, 2000) i;
COPY hashed FROM STDIN;
3001	1
3002	2
3003	3
\.
INSERT INTO hashed VALUES (1, 1) ON CONFLICT DO NOTHING;
SELECT test.check('hashes');
SET client_min_messages = warning;
DROP TABLE hashed CASCADE;
RESET client_min_messages;
SELECT test.leftovers();
