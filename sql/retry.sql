-- streamext.retry_dead_letters(): rows that were rejected are counted in afterwards.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE gone (a int, ts timestamptz NOT NULL, dropped text, k text, v int, raw bytea, n numeric, t text[]);
ALTER TABLE gone DROP COLUMN dropped;
ALTER TABLE gone RENAME TO ev;
SELECT streamext.create_stream('ev', event_time => 'ts', late_rows => 'dead_letter');
CREATE MATERIALIZED VIEW by_min WITH (streamext.continuous) AS
SELECT k, streamext.tumble(ts, '1 minute') AS w, count(*) AS n, sum(v) AS s, avg(n) AS a, max(encode(raw, 'hex')) AS raw, count(t[2]) AS t FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW casts WITH (streamext.continuous) AS SELECT k, k::int AS i FROM ev WHERE k ~ '^x?\d';
CREATE MATERIALIZED VIEW kept WITH (streamext.continuous, streamext.retention = '1 hour') AS
SELECT streamext.tumble(ts, '1 minute') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE TABLE sink (id serial, k text, w timestamptz, n bigint, s bigint, a numeric, raw text, t bigint);
SELECT streamext.wait_for();
SELECT streamext.create_sink('by_min', 'sink', corrections => true);
SELECT streamext.retry_dead_letters('by_min');

INSERT INTO ev VALUES (1, '2024-01-01 10:00:30Z', 'a', 1, '\x01', 1.5, '{x,y}'), (2, '2024-01-01 10:05Z', 'a', 1, NULL, NULL, NULL);
SELECT streamext.flush();
INSERT INTO ev VALUES (3, '2024-01-01 10:00:31Z', 'a', 10, '\xff00', 2.50, '{"a b",NULL}'), (4, '2024-01-01 10:00:32Z', NULL, 20, NULL, NULL, NULL), (5, '2024-01-01 10:04Z', 'b', 5, NULL, NULL, NULL);
SELECT streamext.flush();
SELECT k, w, n, s, a, raw, t FROM by_min ORDER BY 1, 2;
SELECT view, "row", reason FROM streamext.dead_letters ORDER BY view::text, id;
-- alerts learn of it, when it is committed
SELECT streamext.create_alert('two', 'by_min', 'n = 2', 'two');
SELECT streamext.retry_dead_letters('by_min');
SELECT test.until('SELECT count(*) = 1 FROM streamext.alerts');
SELECT alert, "group" ->> 'k' AS k FROM streamext.alerts;
SELECT streamext.drop_alert('two');
SELECT k, w, n, s, a, raw, t FROM by_min ORDER BY 1, 2;
SELECT view, count(*) FROM streamext.dead_letters GROUP BY 1;
SELECT test.check('by_min');
SELECT * FROM streamext.verify('by_min');
SELECT k, w, n, s FROM sink ORDER BY id;
-- nothing is left to do
SELECT streamext.retry_dead_letters('by_min');
-- it is part of the transaction
BEGIN;
SELECT streamext.retry_dead_letters('kept');
ROLLBACK;
SELECT count(*) FROM streamext.dead_letters WHERE view = 'kept'::regclass;
SELECT w, n FROM kept ORDER BY 1;
BEGIN;
SELECT streamext.retry_dead_letters('kept');
PREPARE TRANSACTION 'retry';
-- a window that is forgotten takes no more rows
INSERT INTO ev VALUES (6, '2024-01-01 11:04:30Z', 'c', 1);
SELECT streamext.flush();
SELECT streamext.retry_dead_letters('kept');
SELECT test.until('SELECT min(w) >= ''2024-01-01 10:04Z'' FROM kept');
SELECT w, n FROM kept ORDER BY 1;
SELECT "row" ->> 'ts' AS ts, message FROM streamext.dead_letters WHERE view = 'kept'::regclass ORDER BY id;

-- rows that failed: what fails again stays
INSERT INTO ev VALUES (7, '2024-01-01 11:04:30Z', '12'), (8, '2024-01-01 11:04:30Z', 'x13'), (9, '2024-01-01 11:04:30Z', 'x14');
SELECT streamext.flush();
SELECT "row" ->> 'k' AS k, sqlstate, message FROM streamext.dead_letters WHERE view = 'casts'::regclass ORDER BY id;
SELECT streamext.retry_dead_letters('casts');
SELECT "row" ->> 'k' AS k, sqlstate, message FROM streamext.dead_letters WHERE view = 'casts'::regclass ORDER BY id;
SELECT * FROM casts;
-- a column that is not there any more cannot be left out in silence
ALTER TABLE ev RENAME a TO b;
SELECT streamext.retry_dead_letters('kept');
SELECT message, count(*) FROM streamext.dead_letters WHERE view = 'kept'::regclass GROUP BY 1;

-- refused
SELECT streamext.retry_dead_letters('ev');
CREATE ROLE retry_nobody;
GRANT SELECT ON by_min TO retry_nobody;
SET ROLE retry_nobody;
SELECT streamext.retry_dead_letters('by_min');
RESET ROLE;
DROP OWNED BY retry_nobody;
DROP ROLE retry_nobody;
