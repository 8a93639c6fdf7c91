-- Rewrites: ALTER TABLE gives all rows of a stream a new transaction; none of them is new to a view (I1).
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE ev (k int NOT NULL, v int, u int);
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW copies WITH (streamext.continuous) AS SELECT k, v FROM ev;
INSERT INTO ev SELECT i % 10, i, i FROM generate_series(1, 2000) i;
UPDATE ev SET u = 0 WHERE k = 1;
SELECT * FROM test.check_all();

-- the usual ones
ALTER TABLE ev ALTER COLUMN u TYPE text;
INSERT INTO ev VALUES (1, 1, 'one');
ALTER TABLE ev ADD COLUMN at timestamptz DEFAULT clock_timestamp();
ALTER TABLE ev ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY;
INSERT INTO ev VALUES (2, 2, 'two');
ALTER TABLE ev SET LOGGED;
ALTER TABLE ev SET ACCESS METHOD heap;
ALTER TABLE ev ADD COLUMN three int DEFAULT 3;
SELECT * FROM test.check_all();

-- in a transaction: rows after it count, several, rolled back, in sub-transactions
BEGIN;
ALTER TABLE ev ALTER COLUMN u TYPE varchar(20);
INSERT INTO ev SELECT 3, i FROM generate_series(1, 100) i;
COMMIT;
BEGIN;
ALTER TABLE ev ALTER COLUMN u TYPE char(20);
SAVEPOINT a;
ALTER TABLE ev ALTER COLUMN u TYPE text USING 'x';
RELEASE a;
ALTER TABLE ev ADD COLUMN r float DEFAULT random();
INSERT INTO ev SELECT 4, i FROM generate_series(1, 100) i;
SAVEPOINT b;
INSERT INTO ev VALUES (4, 1000000);
ROLLBACK TO b;
INSERT INTO ev VALUES (4, 0);
COMMIT;
SELECT * FROM test.check_all();
BEGIN;
ALTER TABLE ev DROP COLUMN r, ADD COLUMN r float DEFAULT random();
INSERT INTO ev VALUES (5, 5);
ROLLBACK;
BEGIN;
SAVEPOINT a;
ALTER TABLE ev DROP COLUMN r, ADD COLUMN r float DEFAULT random();
ROLLBACK TO a;
INSERT INTO ev VALUES (5, 5);
ALTER TABLE ev DROP COLUMN at;
COMMIT;
SELECT * FROM test.check_all();

-- with other changes of file
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE regress_streamext_rewrites LOCATION '';
BEGIN;
ALTER TABLE ev ADD COLUMN r2 float DEFAULT random();
ALTER TABLE ev SET TABLESPACE regress_streamext_rewrites;
INSERT INTO ev VALUES (6, 6);
COMMIT;
ALTER TABLE ev ADD COLUMN r3 float DEFAULT random(), SET TABLESPACE pg_default;
ALTER TABLE ev ADD COLUMN c int DEFAULT 1, SET TABLESPACE regress_streamext_rewrites;
INSERT INTO ev VALUES (6, 7);
SELECT * FROM test.check_all();
ALTER TABLE ev SET TABLESPACE pg_default;
VACUUM FULL ev;
ALTER TABLE ev DROP COLUMN r3, ADD COLUMN r3 float DEFAULT random();
SELECT streamext.flush();
VACUUM FULL ev;
INSERT INTO ev VALUES (6, 8);
SELECT * FROM test.check_all();

-- what was there before the transaction could not be told from what it has inserted itself
BEGIN;
INSERT INTO ev VALUES (7, 7);
ALTER TABLE ev ADD COLUMN no float DEFAULT random();
ROLLBACK;
BEGIN;
ALTER TABLE ev ADD COLUMN r4 float DEFAULT random();
INSERT INTO ev VALUES (7, 7);
ALTER TABLE ev ADD COLUMN r5 float DEFAULT random();
ROLLBACK;
-- or if the rows were moved afterwards
CREATE INDEX ev_k ON ev (k);
BEGIN;
ALTER TABLE ev ADD COLUMN r4 float DEFAULT random();
CLUSTER ev USING ev_k;
ROLLBACK;
BEGIN;
UPDATE ev SET u = 'changed' WHERE k = 7;
DELETE FROM ev WHERE k = 9 AND v > 1990;
ALTER TABLE ev ADD COLUMN r4 float DEFAULT random();
COMMIT;
SELECT test.check('sums', 'SELECT k, count(*), sum(v) FROM (SELECT k, v FROM ev UNION ALL SELECT 9, 1999) x GROUP BY k');

-- a view that starts in the same transaction
BEGIN;
ALTER TABLE ev DROP COLUMN r4, ADD COLUMN r4 float DEFAULT random();
CREATE MATERIALIZED VIEW born WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev;
CREATE MATERIALIZED VIEW born_empty WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev WITH NO DATA;
SAVEPOINT a;
ALTER TABLE ev DROP COLUMN r4, ADD COLUMN r4 float DEFAULT random();
ROLLBACK TO a;
TRUNCATE ev;
ROLLBACK TO a;
INSERT INTO ev VALUES (8, 8);
COMMIT;
SELECT test.check('born');
SELECT streamext.wait_for('born_empty');
TABLE born_empty;

-- columns that views use are core's matter; the message names the user's view
ALTER TABLE ev ALTER COLUMN v TYPE bigint;
ALTER TABLE ev SET UNLOGGED;

-- emptied in place after a rewrite
BEGIN;
ALTER TABLE ev DROP COLUMN r4, ADD COLUMN r4 float DEFAULT random();
TRUNCATE ev;
INSERT INTO ev VALUES (1, 1), (2, 2);
COMMIT;
SELECT streamext.wait_for('born_empty');
TABLE born_empty;
SET client_min_messages = warning;
DROP TABLE ev CASCADE;
DROP TABLESPACE regress_streamext_rewrites;

-- partitions: all leaves of a root
CREATE TABLE parts (id int, v int, u int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (1000) PARTITION BY RANGE (id);
CREATE TABLE parts_2_1 PARTITION OF parts_2 FOR VALUES FROM (100) TO (200);
CREATE TABLE parts_2_2 PARTITION OF parts_2 FOR VALUES FROM (200) TO (1000);
CREATE MATERIALIZED VIEW whole WITH (streamext.continuous) AS SELECT id % 7 AS k, count(*) AS n, sum(v) AS s FROM parts GROUP BY 1;
CREATE MATERIALIZED VIEW part WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS s FROM parts_2;
INSERT INTO parts SELECT i, i FROM generate_series(0, 999) i;
ALTER TABLE parts ALTER COLUMN u TYPE bigint;
INSERT INTO parts SELECT i, i FROM generate_series(0, 999) i;
BEGIN;
ALTER TABLE parts ADD COLUMN at timestamptz DEFAULT clock_timestamp();
INSERT INTO parts SELECT i, i FROM generate_series(0, 999) i;
COMMIT;
SELECT * FROM test.check_all();
-- counted rows must not look new when they come back
BEGIN;
ALTER TABLE parts DROP COLUMN at, ADD COLUMN at timestamptz DEFAULT clock_timestamp();
ALTER TABLE parts DETACH PARTITION parts_1;
ROLLBACK;
ALTER TABLE parts DETACH PARTITION parts_1;
ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (0) TO (100);
INSERT INTO parts VALUES (5, 5);
SELECT * FROM test.check_all();
-- nor when they were rewritten meanwhile; in another place they are the same
ALTER TABLE parts DETACH PARTITION parts_1;
VACUUM FULL parts_1;
ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (0) TO (100);
SELECT * FROM test.check_all();
ALTER TABLE parts DETACH PARTITION parts_1;
ALTER TABLE parts_1 ALTER COLUMN v TYPE bigint;
ALTER TABLE parts_1 ALTER COLUMN v TYPE int;
ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (0) TO (100);
-- also when it was a stream of its own since, and got other files
CREATE MATERIALIZED VIEW alone WITH (streamext.continuous) AS SELECT v FROM parts_1;
SELECT test.check('alone');
VACUUM FULL parts_1;
SELECT test.check('alone');
VACUUM FULL parts_1;
DROP MATERIALIZED VIEW alone;
ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (0) TO (100);
DROP TABLE parts_1;
DROP TABLE parts CASCADE;
SELECT count(*) FROM streamext.file_mark;
SELECT test.leftovers();
