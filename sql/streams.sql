-- Streams: which tables can be one, and how they are declared.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE clicks (id bigint GENERATED ALWAYS AS IDENTITY, ts timestamptz NOT NULL, page text, ms int);

-- declared with its event time, of each type there is
SELECT streamext.create_stream('clicks', event_time => 'ts');
CREATE TABLE by_timestamp (t timestamp NOT NULL);
CREATE TABLE by_date (t date NOT NULL);
CREATE TABLE by_number (t bigint NOT NULL);
CREATE TABLE by_arrival (x int);
SELECT streamext.create_stream('by_timestamp', 't');
SELECT streamext.create_stream('by_date', 't');
SELECT streamext.create_stream('by_number', 't');
SELECT streamext.create_stream('by_arrival');
SELECT stream, event_time, rows_consumed FROM streamext.streams ORDER BY stream::text;

-- forgotten
SELECT streamext.drop_stream('by_arrival');
SELECT streamext.drop_stream('by_date');
SELECT stream, event_time FROM streamext.streams ORDER BY stream::text;

-- a declared stream is found among several tables
CREATE TABLE pages (page text PRIMARY KEY, title text);
INSERT INTO pages VALUES ('/', 'Home'), ('/cart', 'Cart');
CREATE MATERIALIZED VIEW titles WITH (streamext.continuous) AS
	SELECT p.title, count(*) AS n, sum(c.ms) AS ms
	FROM pages p JOIN clicks c ON c.page = p.page GROUP BY p.title;
INSERT INTO clicks (ts, page, ms)
	SELECT '2026-03-01 12:00+00'::timestamptz + i * interval '1 second', CASE i % 3 WHEN 0 THEN '/' WHEN 1 THEN '/cart' END, i
	FROM generate_series(1, 100) i;
SELECT test.check('titles');
SELECT stream, event_time, rows_consumed FROM streamext.streams WHERE stream = 'clicks'::regclass;

-- a table becomes a stream by the view that reads it
CREATE TABLE undeclared (a int);
CREATE MATERIALIZED VIEW followed WITH (streamext.continuous) AS SELECT a, count(*) FROM undeclared GROUP BY a;
SELECT stream, event_time FROM streamext.streams WHERE stream = 'undeclared'::regclass;
INSERT INTO undeclared SELECT i % 5 FROM generate_series(1, 50) i;
SELECT test.check('followed');

-- not forgotten while a view uses it
SELECT streamext.drop_stream('clicks');
SELECT streamext.drop_stream('undeclared');
DROP MATERIALIZED VIEW followed, titles;
SELECT streamext.drop_stream('clicks');

-- a column of the event time cannot go, or change its type, while it is declared; after that it can
CREATE TABLE timed (t timestamptz NOT NULL, x int);
SELECT streamext.create_stream('timed', 't');
ALTER TABLE timed RENAME COLUMN t TO moment;
SELECT stream, event_time FROM streamext.streams WHERE stream = 'timed'::regclass;
ALTER TABLE timed RENAME TO timed_too;
SELECT stream FROM streamext.streams WHERE stream = 'timed_too'::regclass;

-- a stream that is dropped is forgotten
DROP TABLE timed_too;
DROP TABLE by_timestamp, by_number;
SELECT stream FROM streamext.streams ORDER BY stream::text;

-- in a transaction that ends badly
BEGIN;
CREATE TABLE fleeting (a int);
SELECT streamext.create_stream('fleeting');
SELECT stream FROM streamext.streams;
ROLLBACK;
SELECT stream FROM streamext.streams;
SELECT count(*) FROM streamext.stream_def WHERE stream NOT IN (SELECT oid FROM pg_class);

-- every way to insert counts the same; what does not last never counts (I1)
CREATE TABLE ways (k int, v text);
CREATE UNIQUE INDEX ON ways (v);
CREATE MATERIALIZED VIEW by_k WITH (streamext.continuous) AS SELECT k, count(*), min(v), max(v) FROM ways GROUP BY k;
CREATE MATERIALIZED VIEW all_ways WITH (streamext.continuous) AS SELECT k, v, length(v) AS size FROM ways WHERE k <> 7;
-- or they may wait for what is prepared below
SELECT streamext.wait_for();
INSERT INTO ways VALUES (1, 'single');
INSERT INTO ways VALUES (1, 'multi a'), (2, 'multi b'), (3, 'multi c');
COPY ways FROM STDIN;
1	copied a
2	copied b
4	copied c
7	not in all_ways
\.
INSERT INTO ways SELECT i % 5, 'selected ' || i FROM generate_series(1, 1000) i;
INSERT INTO ways VALUES (1, 'single') ON CONFLICT DO NOTHING;
INSERT INTO ways VALUES (5, 'arbiter') ON CONFLICT (v) DO NOTHING;
WITH gone AS (INSERT INTO ways VALUES (6, 'from a CTE') RETURNING v) SELECT * FROM gone;
MERGE INTO ways w USING (VALUES (8, 'merged')) s(k, v) ON w.v = s.v
	WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.v);
BEGIN;
INSERT INTO ways VALUES (1, 'rolled back');
ROLLBACK;
BEGIN;
INSERT INTO ways VALUES (1, 'before the savepoint');
SAVEPOINT a;
INSERT INTO ways VALUES (1, 'rolled back to the savepoint');
SAVEPOINT b;
INSERT INTO ways VALUES (1, 'deeper');
RELEASE b;
ROLLBACK TO a;
SAVEPOINT c;
INSERT INTO ways VALUES (1, 'released');
RELEASE c;
COMMIT;
INSERT INTO ways VALUES (1, 'fails'), (1, 'single');
DO $$
BEGIN
	FOR i IN 1 .. 100 LOOP
		BEGIN
			INSERT INTO ways VALUES (i % 3, 'loop ' || i);
			IF i % 2 = 0 THEN
				RAISE division_by_zero;
			END IF;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
END $$;
BEGIN;
INSERT INTO ways VALUES (9, 'prepared and committed');
PREPARE TRANSACTION 'regress_streams_1';
BEGIN;
INSERT INTO ways VALUES (9, 'prepared and rolled back');
PREPARE TRANSACTION 'regress_streams_2';
SELECT test.check('by_k');
COMMIT PREPARED 'regress_streams_1';
ROLLBACK PREPARED 'regress_streams_2';
SELECT * FROM test.check_all();

-- a row that its own transaction updates or deletes counts as it was inserted; so does any later change
SELECT k, count FROM by_k WHERE k = 1;
BEGIN;
INSERT INTO ways VALUES (10, 'deleted at once');
DELETE FROM ways WHERE k = 10;
INSERT INTO ways VALUES (11, 'updated at once');
UPDATE ways SET k = 12 WHERE k = 11;
COMMIT;
INSERT INTO ways VALUES (11, 'zzz') ON CONFLICT (v) DO UPDATE SET k = 13;
INSERT INTO ways VALUES (11, 'zzz') ON CONFLICT (v) DO UPDATE SET k = 13;
DELETE FROM ways WHERE k = 1;
SELECT streamext.wait_for();
SELECT * FROM by_k WHERE k = 1 OR k > 9 ORDER BY k;
SELECT * FROM all_ways WHERE k > 9 ORDER BY k, v;
VACUUM ways;
INSERT INTO ways SELECT 20, 'after the vacuum ' || i FROM generate_series(1, 300) i;
SELECT streamext.wait_for(), streamext.flush();
SELECT k, count FROM by_k WHERE k IN (1, 20) ORDER BY k;

-- a stream stays itself when it has generated columns, defaults, checks and triggers
CREATE TABLE richer (
	a int NOT NULL CHECK (a > 0),
	twice int GENERATED ALWAYS AS (a * 2) STORED,
	at date DEFAULT '2026-01-01',
	gone text,
	note text);
ALTER TABLE richer DROP COLUMN gone;
ALTER TABLE richer ADD COLUMN added text DEFAULT 'filled';
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := upper(NEW.note); RETURN NEW; END $$;
CREATE TRIGGER shout BEFORE INSERT ON richer FOR EACH ROW EXECUTE FUNCTION shout();
CREATE MATERIALIZED VIEW richly WITH (streamext.continuous) AS
	SELECT at, added, note, sum(twice) AS sum, count(*) AS n FROM richer GROUP BY at, added, note;
CREATE MATERIALIZED VIEW whole_rows WITH (streamext.continuous) AS SELECT r.*, r AS all_of_it FROM richer r;
INSERT INTO richer (a, note) SELECT i % 7 + 1, chr(97 + i % 3) FROM generate_series(1, 100) i;
INSERT INTO richer (a) VALUES (0);
-- as with any table, no column can be added while a view keeps values of the row type
\set VERBOSITY sqlstate
ALTER TABLE richer ADD COLUMN later int DEFAULT 42;
\set VERBOSITY default
SELECT test.check('whole_rows', 'SELECT a, twice, at, note, added, r FROM richer r');
DROP MATERIALIZED VIEW whole_rows;
ALTER TABLE richer ADD COLUMN later int DEFAULT 42;
INSERT INTO richer (a, note, later) VALUES (1, 'x', 43);
SELECT test.check('richly');
SET client_min_messages = warning;
DROP TABLE richer CASCADE;
RESET client_min_messages;

-- large values: out of line, compressed, and read again after the raw rows are gone
CREATE TABLE large (id int, doc text);
ALTER TABLE large ALTER COLUMN doc SET STORAGE EXTERNAL;
CREATE MATERIALIZED VIEW largest WITH (streamext.continuous) AS SELECT id % 3 AS k, max(doc) AS doc FROM large GROUP BY id % 3;
CREATE MATERIALIZED VIEW large_rows WITH (streamext.continuous) AS SELECT id, doc FROM large;
INSERT INTO large SELECT i, repeat(chr(97 + i), 20000 + i) FROM generate_series(0, 20) i;
SELECT test.check('largest');
SELECT test.check('large_rows');
CREATE TABLE large_kept AS TABLE large;
INSERT INTO large SELECT i, repeat(chr(97 + i), 30000 + i) FROM generate_series(0, 20) i;
INSERT INTO large_kept SELECT i, repeat(chr(97 + i), 30000 + i) FROM generate_series(0, 20) i;
SELECT streamext.wait_for('largest');
DELETE FROM large;
SELECT streamext.wait_for();
VACUUM large;
SELECT test.check('largest', 'SELECT id % 3, max(doc) FROM large_kept GROUP BY 1');
SELECT test.check('large_rows', 'TABLE large_kept');
