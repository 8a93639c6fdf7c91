-- History: what was there before the view, once and exactly (I1).
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE ev (id int, k int, v int);
INSERT INTO ev SELECT i, i % 10, i FROM generate_series(1, 5000) i;
DELETE FROM ev WHERE id % 100 = 0;
UPDATE ev SET v = -v WHERE id % 50 = 1;
BEGIN;
INSERT INTO ev VALUES (-1, 1, 1);
ROLLBACK;

-- WITH DATA: the rows that are there, as they are there
CREATE MATERIALIZED VIEW with_data WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k WITH DATA;
CREATE MATERIALIZED VIEW rows_with_data WITH (streamext.continuous) AS SELECT id, v FROM ev WHERE k = 3;
-- WITH NO DATA: only what is inserted from now on
CREATE MATERIALIZED VIEW no_data WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k WITH NO DATA;
CREATE MATERIALIZED VIEW total_no_data WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS s FROM ev WITH NO DATA;
CREATE MATERIALIZED VIEW rows_no_data WITH (streamext.continuous) AS SELECT id, v FROM ev WHERE k = 3 WITH NO DATA;
SELECT test.check('with_data'), test.check('rows_with_data');
SELECT streamext.wait_for();
TABLE no_data;
TABLE total_no_data;
TABLE rows_no_data;
INSERT INTO ev SELECT i, i % 10, i FROM generate_series(5001, 5100) i;
SELECT test.check('with_data'), test.check('rows_with_data');
SELECT test.check('no_data', 'SELECT k, count(*), sum(v) FROM ev WHERE id > 5000 GROUP BY k');
SELECT test.check('total_no_data', 'SELECT count(*), sum(v) FROM ev WHERE id > 5000');
SELECT test.check('rows_no_data', 'SELECT id, v FROM ev WHERE k = 3 AND id > 5000');

-- updates and deletes after: as inserted
CREATE TABLE before_that AS TABLE ev;
UPDATE ev SET v = 0, k = 99 WHERE id % 3 = 0;
DELETE FROM ev WHERE id % 4 = 0;
VACUUM ev;
INSERT INTO ev SELECT i, i % 10, i FROM generate_series(5101, 5200) i;
INSERT INTO before_that SELECT i, i % 10, i FROM generate_series(5101, 5200) i;
SELECT test.check('with_data', 'SELECT k, count(*), sum(v) FROM before_that GROUP BY k');
SELECT test.check('no_data', 'SELECT k, count(*), sum(v) FROM before_that WHERE id > 5000 GROUP BY k');

-- the transaction that creates: its own rows, before the statement and after, in either form
BEGIN;
CREATE TABLE own (id int, k int);
INSERT INTO own VALUES (1, 1), (2, 1);
CREATE MATERIALIZED VIEW own_data WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM own GROUP BY k;
INSERT INTO own VALUES (3, 1), (4, 2);
COMMIT;
INSERT INTO own VALUES (5, 2);
SELECT test.check('own_data');
BEGIN;
INSERT INTO own VALUES (6, 3);
CREATE MATERIALIZED VIEW own_data_too WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM own GROUP BY k;
SAVEPOINT a;
INSERT INTO own VALUES (7, 3);
ROLLBACK TO a;
INSERT INTO own VALUES (8, 3);
COMMIT;
SELECT test.check('own_data'), test.check('own_data_too');

-- a prepared transaction that was open before the view
BEGIN;
INSERT INTO own VALUES (9, 4);
PREPARE TRANSACTION 'regress_history_1';
BEGIN;
INSERT INTO own VALUES (10, 4);
PREPARE TRANSACTION 'regress_history_2';
CREATE MATERIALIZED VIEW after_prepare WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM own GROUP BY k;
CREATE MATERIALIZED VIEW after_prepare_no_data WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM own GROUP BY k WITH NO DATA;
INSERT INTO own VALUES (11, 4);
-- the view is not live yet, and says what it waits for
SELECT streamext.wait_for('after_prepare', '10ms');
SELECT test.until($$SELECT reason IS NOT NULL FROM streamext.status WHERE view = 'after_prepare'::regclass$$);
SELECT state FROM streamext.views WHERE view = 'after_prepare'::regclass;
SELECT test.check('own_data');
COMMIT PREPARED 'regress_history_1';
ROLLBACK PREPARED 'regress_history_2';
SELECT test.check('after_prepare');
SELECT test.check('after_prepare_no_data', 'SELECT k, count(*) FROM own WHERE id >= 9 GROUP BY k');

-- many views at once, some dropped before they are built
DO $$
BEGIN
	FOR i IN 1 .. 12 LOOP
		EXECUTE format('CREATE MATERIALIZED VIEW at_once_%s WITH (streamext.continuous) AS SELECT k, sum(v + %s) AS s FROM ev GROUP BY k', i, i);
	END LOOP;
END $$;
DROP MATERIALIZED VIEW at_once_3, at_once_7;
INSERT INTO ev VALUES (10000, 0, 1);
SELECT view, result FROM test.check_all() WHERE view::text LIKE 'at_once%' ORDER BY view::text COLLATE "C";
DO $$
BEGIN
	FOR i IN 1 .. 12 LOOP
		EXECUTE format('DROP MATERIALIZED VIEW IF EXISTS at_once_%s', i);
	END LOOP;
END $$;

-- partitioned history, of several levels and column orders
CREATE TABLE parts (id int, k text, v int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 (v int, k text, id int);
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (100) TO (200);
INSERT INTO parts SELECT i, 'k' || i % 3, i FROM generate_series(0, 199) i;
CREATE MATERIALIZED VIEW of_parts WITH (streamext.continuous) AS SELECT k, sum(v) AS s FROM parts GROUP BY k;
CREATE MATERIALIZED VIEW of_parts_no_data WITH (streamext.continuous) AS SELECT k, sum(v) AS s FROM parts GROUP BY k WITH NO DATA;
INSERT INTO parts SELECT i, 'k' || i % 3, 1000 FROM generate_series(50, 149) i;
SELECT test.check('of_parts');
SELECT test.check('of_parts_no_data', 'SELECT k, sum(v) FROM parts WHERE v = 1000 GROUP BY k');

-- paused and resumed: nothing is lost, and reading goes on
SELECT streamext.pause('with_data');
SELECT test.until($$SELECT state = 'paused' FROM streamext.views WHERE view = 'with_data'::regclass$$);
INSERT INTO ev VALUES (20000, 1, 1), (20001, 77, 1);
INSERT INTO before_that VALUES (10000, 0, 1), (20000, 1, 1), (20001, 77, 1);
SELECT test.check('rows_with_data', 'SELECT id, v FROM before_that WHERE k = 3');
SELECT count(*) FROM with_data WHERE k = 77;
SELECT streamext.pause('with_data');
SELECT streamext.wait_for('with_data', '50ms');
SELECT reason FROM streamext.status WHERE view = 'with_data'::regclass;
UPDATE ev SET k = 78 WHERE k = 77;
VACUUM ev;
SELECT streamext.resume('with_data');
SELECT test.check('with_data', 'SELECT k, count(*), sum(v) FROM before_that GROUP BY k');
SELECT streamext.resume('with_data');
SELECT view, state FROM streamext.views WHERE state <> 'live';
-- paused in a transaction that rolls back
BEGIN;
SELECT streamext.pause('no_data');
ROLLBACK;
INSERT INTO ev VALUES (20002, 5, 1);
SELECT test.check('no_data', 'SELECT k, count(*), sum(v) FROM (SELECT * FROM before_that UNION ALL VALUES (20002, 5, 1)) x WHERE id > 5000 GROUP BY k');
-- dropped while paused
SELECT streamext.pause('total_no_data');
DROP MATERIALIZED VIEW total_no_data;
SELECT count(*) FROM streamext.views WHERE state = 'paused';
