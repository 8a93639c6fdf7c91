-- create_stream(valid => ...): rows that fail the condition are dead letters and do not count
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include
\set VERBOSITY default

-- what cannot be a condition
CREATE TABLE pay (id int, amount numeric, user_id int, ts timestamptz NOT NULL, note text);
SELECT streamext.create_stream('pay', valid => 'amount >');
SELECT streamext.create_stream('pay', valid => 'amount >= 0; DROP TABLE pay');
SELECT streamext.create_stream('pay', valid => 'amount >= 0 LIMIT 1');
SELECT streamext.create_stream('pay', valid => 'amount >= 0, true');
SELECT streamext.create_stream('pay', valid => 'nothing > 0');
SELECT streamext.create_stream('pay', valid => 'amount + 1');
SELECT streamext.create_stream('pay', valid => 'amount > ''x''');
SELECT streamext.create_stream('pay', valid => 'exists (SELECT FROM pg_class)');
SELECT streamext.create_stream('pay', valid => 'sum(amount) > 0');
SELECT streamext.create_stream('pay', valid => 'row_number() OVER () > 0');
SELECT streamext.create_stream('pay', valid => 'generate_series(1, 2) > 0');
SELECT streamext.create_stream('pay', valid => 'random() > amount');
SELECT streamext.create_stream('pay', valid => 'ts <= now()');
SELECT streamext.create_stream('pay', valid => 'ts <= CURRENT_TIMESTAMP');
SELECT streamext.create_stream('pay', valid => 'note <> current_user');
SELECT streamext.create_stream('pay', valid => 'ctid IS NOT NULL');
SELECT streamext.create_stream('pay', valid => 'tableoid <> 0');
SELECT streamext.create_stream('pay', valid => 'amount > $1');
SELECT streamext.create_stream('pay', valid => 'nextval(''x'') > 0');
SELECT count(*) FROM streamext.streams;
SELECT count(*) FROM pg_class WHERE relname LIKE 'valid\_%' AND relnamespace = 'streamext'::regnamespace;

-- rows that fail, null that passes, rows that make it fail
SELECT streamext.create_stream('pay', event_time => 'ts', valid => 'amount >= 0 AND user_id IS NOT NULL AND 100 / id > 0');
SELECT stream, valid FROM streamext.streams;
INSERT INTO pay VALUES (1, 1.5, 7, '2026-01-01 10:00Z', 'history'), (2, -1, 7, '2026-01-01 10:00Z', 'history, negative');
CREATE MATERIALIZED VIEW by_user WITH (streamext.continuous) AS
SELECT user_id, streamext.tumble(ts, '1 minute') AS w, count(*) AS n, sum(amount) AS s FROM pay GROUP BY 1, 2;
CREATE MATERIALIZED VIEW notes WITH (streamext.continuous) AS SELECT note, 1 / (id - 5) AS one FROM pay;
SELECT streamext.flush();
SELECT user_id, n, s FROM by_user;
SELECT view, "row" ->> 'note' AS note, reason, sqlstate, message FROM streamext.dead_letters ORDER BY view::text, id;
INSERT INTO pay VALUES (3, 10, 7, '2026-01-01 10:00:01Z', 'good'), (4, -0.01, 7, '2030-01-01 10:00Z', 'negative, far ahead'),
	(5, 1, 7, '2026-01-01 10:00:02Z', 'an error in one view'), (6, 1, NULL, '2026-01-01 10:00:02Z', 'no user'),
	(7, NULL, 7, '2026-01-01 10:00:03Z', 'null passes'), (0, 1, 7, '2026-01-01 10:00:03Z', 'an error in the condition');
SELECT streamext.flush();
SELECT user_id, n, s FROM by_user;
SELECT note, one FROM notes ORDER BY 1;
SELECT view, "row" ->> 'note' AS note, reason, sqlstate, message FROM streamext.dead_letters ORDER BY view::text, id;
SELECT view, rows_consumed, dead_letters, watermark FROM streamext.status ORDER BY view::text;
SELECT * FROM streamext.verify('by_user');
INSERT INTO pay VALUES (9, -9, 7, '2026-01-01 10:00:03Z', 'counted');
SELECT streamext.flush();
SELECT view, dead_letters FROM streamext.status ORDER BY view::text;

-- repaired and retried
SELECT streamext.retry_dead_letters('by_user');
SELECT id AS negative FROM streamext.dead_letters WHERE view = 'by_user'::regclass AND "row" ->> 'note' = 'history, negative' \gset
SELECT id AS zero FROM streamext.dead_letters WHERE view = 'by_user'::regclass AND "row" ->> 'id' = '0' \gset
SELECT id AS nobody FROM streamext.dead_letters WHERE view = 'by_user'::regclass AND "row" ->> 'id' = '6' \gset
SELECT streamext.repair_dead_letter(:negative, '{"id": 2, "amount": 2, "user_id": 7, "ts": "2026-01-01 10:00Z"}');
SELECT streamext.repair_dead_letter(l.id, l."row" || '{"id": -50}') FROM streamext.dead_letters l WHERE l.id = :zero;
UPDATE streamext.dead_letter SET "row" = "row" || '{"user_id": 8}' WHERE id = :nobody;
SELECT streamext.repair_dead_letter(:negative, '[1]');
SELECT streamext.repair_dead_letter(-1, '{}');
SELECT streamext.retry_dead_letters('by_user');
SELECT user_id, n, s FROM by_user ORDER BY 1;
SELECT "row" ->> 'note' AS note, reason, sqlstate, message FROM streamext.dead_letters WHERE view = 'by_user'::regclass ORDER BY id;

-- names and types that change; what it needs is kept
ALTER TABLE pay RENAME COLUMN amount TO "Amount of";
ALTER TABLE pay RENAME TO "Payments";
SELECT stream, valid FROM streamext.streams;
INSERT INTO "Payments" VALUES (8, -8, 8, '2026-01-01 10:01Z', 'renamed');
SELECT streamext.flush();
SELECT "row", message FROM streamext.dead_letters WHERE view = 'by_user'::regclass ORDER BY id DESC LIMIT 1;
ALTER TABLE "Payments" RENAME TO pay;
ALTER TABLE pay RENAME COLUMN "Amount of" TO amount;
CREATE TABLE other (a int, b int, c int);
SELECT streamext.create_stream('other', valid => 'a > 0 AND other IS NOT NULL AND b <> 7');
CREATE MATERIALIZED VIEW others WITH (streamext.continuous) AS SELECT count(*) AS n FROM other;
INSERT INTO other VALUES (1, 1, 1), (1, 1, NULL), (1, 7, 1), (2, NULL, 2);
SELECT streamext.flush();
SELECT n FROM others;
SELECT * FROM streamext.verify('others');
DROP VIEW others;
ALTER TABLE other DROP COLUMN b;
ALTER TABLE other ALTER COLUMN b TYPE bigint;
DROP TABLE other;
SELECT stream FROM streamext.streams;
CREATE TABLE other (a int, b int, c int);
SELECT streamext.create_stream('other', valid => 'b <> 7');
ALTER TABLE other DROP COLUMN b CASCADE;
SELECT stream, valid FROM streamext.streams ORDER BY stream::text;
SELECT streamext.alter_stream('other', valid => 'other.c > 1');
SELECT streamext.drop_stream('other');
SELECT count(*) FROM pg_class WHERE relname LIKE 'valid\_%' AND relnamespace = 'streamext'::regnamespace;
DROP TABLE other;

-- another condition, from now on; verify() says that it has changed
SELECT streamext.alter_stream('pay', valid => 'note LIKE ''ok%''');
INSERT INTO pay VALUES (11, -5, NULL, '2026-01-01 10:02Z', 'ok'), (12, 5, 9, '2026-01-01 10:02Z', 'not ok'), (13, 5, 9, '2026-01-01 10:02Z', NULL);
SELECT streamext.flush();
SELECT user_id, n, s FROM by_user WHERE w = '2026-01-01 10:02Z' ORDER BY 1;
SELECT count(*) > 0 AS differs FROM streamext.verify('by_user');
CREATE MATERIALIZED VIEW later WITH (streamext.continuous) AS SELECT user_id, count(*) AS n FROM pay GROUP BY 1;
SELECT streamext.flush();
SELECT * FROM later ORDER BY 1;
SELECT * FROM streamext.verify('later');
-- null leaves it, an empty text takes it away, a transaction takes it back
SELECT streamext.alter_stream('pay', watermark_delay => '1 second');
SELECT valid FROM streamext.streams;
BEGIN;
SELECT streamext.alter_stream('pay', valid => ' ');
ROLLBACK;
SELECT valid FROM streamext.streams;
SELECT streamext.alter_stream('pay', valid => '');
SELECT valid FROM streamext.streams;
INSERT INTO pay VALUES (14, -5, NULL, '2026-01-01 10:03Z', 'anything goes');
SELECT streamext.flush();
SELECT n FROM by_user WHERE w = '2026-01-01 10:03Z';

-- settings of the declaration, not of a view or the session
CREATE TABLE days (t timestamptz, d text);
SET TimeZone = 'UTC';
SELECT streamext.create_stream('days', valid => 'extract(hour FROM t) < 12 AND d::date > ''2020-01-01''');
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'German';
CREATE MATERIALIZED VIEW in_days WITH (streamext.continuous) AS SELECT d, extract(hour FROM t) AS h FROM days;
INSERT INTO days VALUES ('2026-01-01 11:00Z', '2026-02-01'), ('2026-01-01 13:00Z', '2026-02-01');
SELECT streamext.flush();
SELECT * FROM in_days;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
SELECT * FROM streamext.verify('in_days');
DROP TABLE days CASCADE;

-- partitions with columns of their own order, sub-transactions, COPY, a large transaction computed while it is open
CREATE TABLE parts (a int, gone int, b text, c int) PARTITION BY RANGE (a);
CREATE TABLE p1 (c int, b text, x int, a int);
ALTER TABLE p1 DROP COLUMN x;
ALTER TABLE parts DROP COLUMN gone;
ALTER TABLE parts ATTACH PARTITION p1 FOR VALUES FROM (0) TO (100000);
CREATE TABLE p2 PARTITION OF parts FOR VALUES FROM (100000) TO (1000000);
SELECT streamext.create_stream('parts', valid => 'c % 10 <> 3 AND b <> ''bad''');
CREATE MATERIALIZED VIEW of_parts WITH (streamext.continuous) AS SELECT c % 5 AS m, count(*) AS n, sum(a) AS s FROM parts GROUP BY 1;
CREATE MATERIALIZED VIEW all_parts WITH (streamext.continuous) AS SELECT count(*) AS n, max(1 / (c % 10 - 3)) AS m FROM parts;
SELECT streamext.flush();
BEGIN;
INSERT INTO parts SELECT i, 'x', i FROM generate_series(1, 500) i;
SAVEPOINT s;
INSERT INTO parts SELECT i, 'bad', 1 FROM generate_series(1, 500) i;
ROLLBACK TO s;
INSERT INTO parts SELECT 100000 + i, CASE WHEN i % 2 = 0 THEN 'bad' END, 1 FROM generate_series(1, 100) i;
COMMIT;
SELECT streamext.flush();
SELECT * FROM all_parts;
SELECT * FROM of_parts ORDER BY 1;
SELECT view, count(*), count(DISTINCT "row") FROM streamext.dead_letters WHERE stream = 'parts'::regclass GROUP BY 1 ORDER BY view::text;
BEGIN;
INSERT INTO parts SELECT i, 'x', 1 FROM generate_series(1, 30000) i;
SELECT test.until('SELECT true');
INSERT INTO parts SELECT i, 'x', 3 FROM generate_series(1, 3) i;
COMMIT;
SELECT streamext.flush();
SELECT * FROM all_parts;
SELECT * FROM streamext.verify('of_parts');
SELECT * FROM streamext.verify('all_parts');
-- late, and invalid: invalid
CREATE TABLE lates (ts timestamptz NOT NULL, v int);
SELECT streamext.create_stream('lates', event_time => 'ts', late_rows => 'dead_letter', valid => 'v > 0');
CREATE MATERIALIZED VIEW of_lates WITH (streamext.continuous) AS SELECT streamext.tumble(ts, '1 minute') AS w, count(*) AS n FROM lates GROUP BY 1;
CREATE MATERIALIZED VIEW visits WITH (streamext.continuous) AS SELECT streamext.session(ts, '1 minute') AS w, count(*) AS n FROM lates GROUP BY 1;
SELECT streamext.flush();
INSERT INTO lates VALUES ('2026-01-01 10:00Z', 1), ('2026-01-01 11:00Z', 1), ('2026-01-01 12:00Z', 0);
SELECT streamext.flush();
INSERT INTO lates VALUES ('2026-01-01 10:00Z', 0), ('2026-01-01 10:00Z', 1), ('2026-01-01 11:00:30Z', 1), ('2026-01-01 11:00:45Z', 0);
SELECT streamext.flush();
SELECT w, n FROM of_lates ORDER BY 1;
SELECT lower(w) AS w, n FROM visits ORDER BY 1;
SELECT view, "row", reason FROM streamext.dead_letters WHERE stream = 'lates'::regclass ORDER BY view::text, id;
SELECT view, watermark, late_rows, dead_letters FROM streamext.status WHERE view IN ('of_lates'::regclass, 'visits'::regclass) ORDER BY view::text;

-- who may set it, and as whom it runs: the table's owner
CREATE ROLE valid_alice;
CREATE ROLE valid_bob;
GRANT CREATE ON SCHEMA public TO valid_alice, valid_bob;
SET ROLE valid_alice;
CREATE TABLE hers (v int);
GRANT SELECT ON hers TO valid_bob;
CREATE FUNCTION only_me(v int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN IF current_user <> 'valid_alice' THEN RAISE 'run as %', current_user; END IF; RETURN v > 0; END $$;
REVOKE EXECUTE ON FUNCTION only_me FROM PUBLIC;
SELECT streamext.create_stream('hers', valid => 'only_me(v)');
SET ROLE valid_bob;
SELECT streamext.alter_stream('hers', valid => 'true');
CREATE MATERIALIZED VIEW his WITH (streamext.continuous) AS SELECT v, count(*) AS n FROM hers GROUP BY 1;
RESET ROLE;
INSERT INTO hers VALUES (1), (0), (2);
SELECT streamext.flush();
SET ROLE valid_bob;
SELECT * FROM his ORDER BY 1;
SELECT "row", reason, message FROM streamext.dead_letters;
SELECT * FROM streamext.verify('his');
SELECT streamext.retry_dead_letters('his');
SELECT streamext.repair_dead_letter(id, '{"v": 3}') FROM streamext.dead_letters;
SELECT streamext.retry_dead_letters('his');
SELECT * FROM his ORDER BY 1;
RESET ROLE;
INSERT INTO hers VALUES (-1);
SELECT streamext.flush();
SELECT id AS hers FROM streamext.dead_letters WHERE view = 'his'::regclass \gset
SET ROLE valid_alice;
SELECT streamext.repair_dead_letter(:hers, '{"v": 3}');
SELECT count(*) FROM streamext.dead_letters;
RESET ROLE;
DROP OWNED BY valid_alice, valid_bob CASCADE;
DROP ROLE valid_alice, valid_bob;

-- a condition keeps nobody from dropping the extension
DROP TABLE pay, parts, lates CASCADE;
CREATE TABLE last (v int);
SELECT streamext.create_stream('last', valid => 'v > 0');
DROP EXTENSION streamext;
DROP SCHEMA test CASCADE;
