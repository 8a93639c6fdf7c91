-- DDL on continuous views and on what they read.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE ev (k int, v int, unused text);
INSERT INTO ev SELECT i % 5, i FROM generate_series(1, 100) i;

-- created in a transaction: with others, rolled back, in a savepoint
BEGIN;
CREATE MATERIALIZED VIEW gone WITH (streamext.continuous) AS SELECT k, count(*) FROM ev GROUP BY k;
ROLLBACK;
SELECT to_regclass('gone'), test.leftovers();
BEGIN;
CREATE TABLE also (a int);
INSERT INTO also VALUES (1);
CREATE MATERIALIZED VIEW on_new_table WITH (streamext.continuous) AS SELECT a, count(*) FROM also GROUP BY a;
INSERT INTO also VALUES (1), (2);
SAVEPOINT s;
CREATE MATERIALIZED VIEW undone WITH (streamext.continuous) AS SELECT a FROM also;
ROLLBACK TO s;
CREATE MATERIALIZED VIEW redone WITH (streamext.continuous) AS SELECT a FROM also;
COMMIT;
INSERT INTO also VALUES (3);
SELECT test.check('on_new_table'), test.check('redone');
SELECT to_regclass('undone');
BEGIN;
CREATE MATERIALIZED VIEW twice WITH (streamext.continuous) AS SELECT k, sum(v) FROM ev GROUP BY k;
DROP MATERIALIZED VIEW twice;
CREATE MATERIALIZED VIEW twice WITH (streamext.continuous) AS SELECT k, count(v) FROM ev GROUP BY k;
COMMIT;
SELECT test.check('twice');

-- in a function, a DO block, a prepared statement
CREATE FUNCTION make_view() RETURNS void LANGUAGE plpgsql AS
$$ BEGIN CREATE MATERIALIZED VIEW from_function WITH (streamext.continuous) AS SELECT k, max(v) FROM ev GROUP BY k; END $$;
SELECT make_view();
SELECT test.check('from_function');
DO $$ BEGIN DROP MATERIALIZED VIEW from_function; END $$;

-- IF NOT EXISTS, and a name that is taken
CREATE MATERIALIZED VIEW IF NOT EXISTS sums WITH (streamext.continuous) AS SELECT k, sum(v) AS s, count(*) AS n FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW IF NOT EXISTS sums WITH (streamext.continuous) AS SELECT 1;
CREATE MATERIALIZED VIEW IF NOT EXISTS sums WITH (streamext.continuous) AS SELECT k, count(*) FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS SELECT k, count(*) FROM ev GROUP BY k;
CREATE TABLE sums (a int);
CREATE VIEW sums AS SELECT 1;
CREATE OR REPLACE VIEW sums AS SELECT 1 AS k, 2::bigint AS s, 3::bigint AS n;
SELECT test.check('sums');

-- an ordinary materialized view stays what it was
CREATE MATERIALIZED VIEW ordinary AS SELECT k, count(*) FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW ordinary_too WITH (streamext.continuous = false) AS SELECT k, count(*) FROM ev GROUP BY k;
SELECT relname, relkind FROM pg_class WHERE relname LIKE 'ordinary%' ORDER BY 1;
REFRESH MATERIALIZED VIEW ordinary;
ALTER MATERIALIZED VIEW ordinary RENAME TO ordinary_three;
DROP MATERIALIZED VIEW ordinary_three, ordinary_too;

-- RENAME, of the view and of its columns
ALTER MATERIALIZED VIEW sums RENAME TO totals;
SELECT test.check('totals');
ALTER VIEW totals RENAME TO sums;
ALTER TABLE sums RENAME TO totals;
ALTER MATERIALIZED VIEW totals RENAME COLUMN s TO total;
ALTER VIEW totals RENAME COLUMN n TO rows;
SELECT * FROM totals WHERE k = 1;
INSERT INTO ev VALUES (1, 1000);
SELECT test.check('totals');
SELECT view, definition FROM streamext.views WHERE view = 'totals'::regclass;
ALTER MATERIALIZED VIEW IF EXISTS nothing RENAME TO nothing_too;
ALTER MATERIALIZED VIEW totals RENAME TO twice;

-- SET SCHEMA: internals stay where they are
CREATE SCHEMA other;
ALTER MATERIALIZED VIEW totals SET SCHEMA other;
SELECT test.check('other.totals');
ALTER VIEW other.totals SET SCHEMA public;
SELECT test.check('totals');

-- OWNER TO: everything follows
CREATE ROLE regress_streamext_owner;
GRANT CREATE ON SCHEMA public TO regress_streamext_owner;
GRANT SELECT ON ev TO regress_streamext_owner;
ALTER MATERIALIZED VIEW totals OWNER TO regress_streamext_owner;
SELECT v.view, v.owner, q.relowner::regrole AS query_owner, m.relowner::regrole AS table_owner
	FROM streamext.views v JOIN streamext.view_def d USING (view) JOIN pg_class q ON q.oid = d.query JOIN pg_class m ON m.oid = d.mat
	WHERE v.view = 'totals'::regclass;
INSERT INTO ev VALUES (2, 2000);
SELECT test.check('totals');
ALTER VIEW totals OWNER TO CURRENT_USER;
SELECT view, owner = current_user::regrole AS mine FROM streamext.views WHERE view = 'totals'::regclass;
SELECT test.check('totals');
REASSIGN OWNED BY regress_streamext_owner TO CURRENT_USER;

-- SET and RESET of options
ALTER MATERIALIZED VIEW totals SET (streamext.flush_interval = '200ms');
SELECT view, options FROM streamext.views WHERE view = 'totals'::regclass;
INSERT INTO ev VALUES (3, 3000);
SELECT test.check('totals');
ALTER MATERIALIZED VIEW totals SET (streamext.flush_interval = 'soon');
ALTER MATERIALIZED VIEW totals SET (streamext.unknown = 1);
ALTER MATERIALIZED VIEW totals SET (streamext.stream = 'also');
ALTER MATERIALIZED VIEW totals SET (streamext.continuous = false);
ALTER MATERIALIZED VIEW totals RESET (streamext.flush_interval);
SELECT view, options FROM streamext.views WHERE view = 'totals'::regclass;
ALTER MATERIALIZED VIEW totals SET (fillfactor = 50);
SELECT test.check('totals');

-- CREATE INDEX on the view
CREATE INDEX totals_total ON totals (total);
CREATE INDEX ON totals (k DESC NULLS LAST, rows);
CREATE INDEX ON totals ((total + 1));
CREATE INDEX ON totals (nothing);
CREATE INDEX ON totals (total) WHERE rows > 10;
CREATE UNIQUE INDEX ON totals (total);
CREATE MATERIALIZED VIEW averages WITH (streamext.continuous) AS SELECT k, avg(v) AS mean, upper(max(unused)) AS u FROM ev GROUP BY k;
CREATE INDEX averages_mean ON averages (mean);
CREATE INDEX ON averages (u);
SELECT indexname, test.mask(indexdef) AS indexdef FROM pg_indexes WHERE indexname LIKE 'totals%' OR indexname LIKE 'averages%' ORDER BY 1;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT test.explain('SELECT * FROM totals WHERE total = 1000');
SELECT test.explain('SELECT * FROM averages WHERE mean > 10');
RESET enable_seqscan;
RESET enable_bitmapscan;
DROP INDEX totals_total;
SELECT count(*) FROM pg_indexes WHERE indexname = 'totals_total';
INSERT INTO ev SELECT i % 7, i FROM generate_series(1, 100) i;
SELECT test.check('totals'), test.check('averages');

-- COMMENT and GRANT
COMMENT ON VIEW totals IS 'as a view';
COMMENT ON MATERIALIZED VIEW totals IS 'as a materialized view';
COMMENT ON COLUMN totals.k IS 'key';
SELECT obj_description('totals'::regclass), col_description('totals'::regclass, 1);
GRANT SELECT ON totals TO regress_streamext_owner;
SET ROLE regress_streamext_owner;
SELECT count(*) FROM totals;
RESET ROLE;
REVOKE SELECT ON totals FROM regress_streamext_owner;

-- what PostgreSQL would do to a view, but a continuous one cannot bear
ALTER VIEW totals ALTER COLUMN k SET DEFAULT 1;
ALTER VIEW totals SET (security_barrier = true);
ALTER VIEW totals SET (security_invoker = true);
CREATE RULE r AS ON INSERT TO totals DO INSTEAD NOTHING;
CREATE RULE "_RETURN" AS ON SELECT TO totals DO INSTEAD SELECT 1, 2::bigint, 3::bigint;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER t INSTEAD OF INSERT ON totals FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER MATERIALIZED VIEW totals CLUSTER ON totals_total;
CLUSTER totals;
LOCK TABLE totals;
TRUNCATE totals;
VACUUM totals;
ANALYZE totals;
REINDEX TABLE totals;
REFRESH MATERIALIZED VIEW totals;
REFRESH MATERIALIZED VIEW CONCURRENTLY totals;
REFRESH MATERIALIZED VIEW totals WITH NO DATA;
SELECT test.check('totals');

-- the internal relations are not for hands
SELECT format('DROP TABLE %s', mat) AS a, format('DROP VIEW %s', query) AS b, format('ALTER TABLE %s ADD COLUMN x int', mat) AS c,
	format('ALTER TABLE %s RENAME TO x', mat) AS d, format('TRUNCATE %s', mat) AS e, format('ALTER TABLE %s SET SCHEMA public', mat) AS f,
	format('ALTER VIEW %s RENAME TO x', query) AS h, format('ALTER TABLE %s OWNER TO regress_streamext_owner', mat) AS i
	FROM streamext.view_def WHERE view = 'totals'::regclass \gset
\set VERBOSITY sqlstate
:a;
:b;
:c;
:d;
:e;
:f;
:h;
:i;
\set VERBOSITY default
SELECT test.check('totals');

-- what a view reads is protected: columns, types, functions
\set VERBOSITY terse
ALTER TABLE ev DROP COLUMN v;
\set VERBOSITY default
ALTER TABLE ev ALTER COLUMN v TYPE bigint;
ALTER TABLE ev RENAME COLUMN v TO value;
\set VERBOSITY terse
ALTER TABLE ev DROP COLUMN unused;
\set VERBOSITY default
DROP MATERIALIZED VIEW averages;
ALTER TABLE ev DROP COLUMN unused;
ALTER TABLE ev ADD COLUMN v text DEFAULT 'not the same';
ALTER TABLE ev RENAME TO events;
INSERT INTO events (k, value) VALUES (4, 4000);
SELECT test.check('totals');
SELECT definition FROM streamext.views WHERE view = 'totals'::regclass;
ALTER TABLE events SET SCHEMA other;
INSERT INTO other.events (k, value) VALUES (4, 4000);
SELECT test.check('totals');
ALTER TABLE other.events SET SCHEMA public;
CREATE FUNCTION twofold(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE MATERIALIZED VIEW twofolds WITH (streamext.continuous) AS SELECT twofold(k) AS k2, count(*) AS n FROM events GROUP BY twofold(k);
\set VERBOSITY terse
DROP FUNCTION twofold(int);
\set VERBOSITY default
DROP TABLE events;
ALTER TABLE events SET UNLOGGED;
ALTER TABLE events INHERIT also;
CREATE TABLE child () INHERITS (events);
SELECT test.check('twofolds');

-- views over it
CREATE VIEW over AS SELECT k, total FROM totals WHERE rows > 1;
DROP MATERIALIZED VIEW totals;
DROP VIEW totals;
SET client_min_messages = warning;
DROP MATERIALIZED VIEW totals CASCADE;
RESET client_min_messages;
SELECT to_regclass('over'), to_regclass('totals');

-- DROP in every form
CREATE MATERIALIZED VIEW a WITH (streamext.continuous) AS SELECT k FROM events;
CREATE MATERIALIZED VIEW b WITH (streamext.continuous) AS SELECT k, count(*) FROM events GROUP BY k;
CREATE MATERIALIZED VIEW c WITH (streamext.continuous) AS SELECT count(*) FROM events;
CREATE MATERIALIZED VIEW other.d WITH (streamext.continuous) AS SELECT count(*) FROM events;
CREATE VIEW plain_view AS SELECT 1;
CREATE MATERIALIZED VIEW plain_matview AS SELECT 1;
DROP VIEW a;
DROP MATERIALIZED VIEW IF EXISTS a, b;
DROP MATERIALIZED VIEW plain_view;
DROP VIEW c, plain_view;
DROP VIEW plain_matview;
DROP MATERIALIZED VIEW plain_matview;
DROP TABLE twice;
BEGIN;
DROP MATERIALIZED VIEW twice;
INSERT INTO events (k, value) VALUES (5, 5);
ROLLBACK;
INSERT INTO events (k, value) VALUES (6, 6);
SELECT test.check('twice');
\set VERBOSITY terse
DROP SCHEMA other;
\set VERBOSITY default
SET client_min_messages = warning;
DROP SCHEMA other CASCADE;
DROP TABLE events CASCADE;
RESET client_min_messages;
DROP MATERIALIZED VIEW on_new_table, redone;
SELECT test.leftovers();
SELECT count(*) FROM streamext.stream_def WHERE stream NOT IN (SELECT oid FROM pg_class);

-- DROP OWNED, DROP ROLE
CREATE TABLE shared (a int);
GRANT SELECT ON shared TO regress_streamext_owner;
SET ROLE regress_streamext_owner;
CREATE MATERIALIZED VIEW owned WITH (streamext.continuous) AS SELECT a, count(*) FROM shared GROUP BY a;
RESET ROLE;
\set VERBOSITY terse
DROP ROLE regress_streamext_owner;
\set VERBOSITY default
DROP OWNED BY regress_streamext_owner;
SELECT to_regclass('owned'), test.leftovers();
DROP ROLE regress_streamext_owner;

-- the extension: dropped with its views, and made again
CREATE MATERIALIZED VIEW last WITH (streamext.continuous) AS SELECT a, count(*) AS n FROM shared GROUP BY a;
\set VERBOSITY terse
DROP EXTENSION streamext;
\set VERBOSITY default
SET client_min_messages = warning;
DROP EXTENSION streamext CASCADE;
RESET client_min_messages;
SELECT to_regclass('last'), to_regnamespace('streamext');
CREATE MATERIALIZED VIEW last WITH (streamext.continuous) AS SELECT a, count(*) FROM shared GROUP BY a;
CREATE EXTENSION streamext;
CREATE MATERIALIZED VIEW last WITH (streamext.continuous) AS SELECT a, count(*) AS n FROM shared GROUP BY a;
INSERT INTO shared VALUES (1), (1), (2);
SELECT streamext.wait_for('last');
SELECT * FROM last ORDER BY a;
