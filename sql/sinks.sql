-- Sinks: closed windows are appended to a table, once each, with the flush.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE ev (ts timestamptz NOT NULL, k text, v int);
SELECT streamext.create_stream('ev', event_time => 'ts');
CREATE MATERIALIZED VIEW by_min WITH (streamext.continuous) AS
SELECT k, streamext.tumble(ts, '1 minute') AS w, count(*) AS n, avg(v) AS a FROM ev GROUP BY 1, 2;
CREATE TABLE plain (id serial, a numeric, n bigint, w timestamptz NOT NULL, k text, note text DEFAULT 'by default');
CREATE TABLE corrected (id serial, w timestamptz, k text, n bigint, a numeric);
CREATE TABLE everything (id serial, w timestamptz, k text, n bigint, a numeric);
CREATE FUNCTION to_tables() RETURNS TABLE (plain text, corrected text, everything text) LANGUAGE sql AS $$
	SELECT (SELECT string_agg(format('%s %s %s', to_char(w, 'HH24:MI'), k, n), ', ' ORDER BY id) FROM plain),
		(SELECT string_agg(format('%s %s %s', to_char(w, 'HH24:MI'), k, n), ', ' ORDER BY id) FROM corrected),
		(SELECT string_agg(format('%s %s %s', to_char(w, 'HH24:MI'), k, n), ', ' ORDER BY id) FROM everything) $$;

INSERT INTO ev VALUES ('2024-01-01 09:58Z', 'old', 1), ('2024-01-01 10:00Z', 'a', 1);
SELECT streamext.flush();
SELECT streamext.create_sink('by_min', 'plain');
SELECT streamext.create_sink('by_min', 'corrected', corrections => true);
SELECT streamext.create_sink('by_min', 'everything', existing => true);
SELECT * FROM streamext.sinks ORDER BY target::text;

-- nothing closes
INSERT INTO ev VALUES ('2024-01-01 10:00:30Z', 'b', 1);
SELECT streamext.flush();
SELECT * FROM to_tables();
-- one window; then two at once, among them an empty one
INSERT INTO ev VALUES ('2024-01-01 10:01Z', 'a', 2);
SELECT streamext.flush();
SELECT * FROM to_tables();
INSERT INTO ev VALUES ('2024-01-01 10:01:59Z', NULL, 2), ('2024-01-01 10:03:00Z', 'a', 4);
SELECT streamext.flush();
SELECT * FROM to_tables();
-- late rows change what was appended, for those who want to know; each window once in a flush
BEGIN;
INSERT INTO ev VALUES ('2024-01-01 10:00:01Z', 'a', 2), ('2024-01-01 10:01:01Z', NULL, 2);
INSERT INTO ev VALUES ('2024-01-01 10:00:02Z', 'a', 2), ('2024-01-01 09:00:00Z', 'very old', 2);
COMMIT;
SELECT streamext.flush();
SELECT * FROM to_tables();
SELECT note, count(*) FROM plain GROUP BY 1;
SELECT target, rows_appended FROM streamext.sinks ORDER BY target::text;
-- what was rolled back was never appended
BEGIN;
INSERT INTO ev VALUES ('2024-01-01 12:00Z', 'a', 4);
ROLLBACK;
SELECT streamext.flush();
SELECT * FROM to_tables();

-- a sink is dropped, with the view or without, and with its table
SELECT streamext.drop_sink('by_min', 'everything');
SELECT streamext.drop_sink('by_min', 'everything');
DROP TABLE corrected;
SELECT target FROM streamext.sinks;
DROP TABLE everything;

-- a sink that is a stream: hours of the minutes, with triggers and NOTIFY on the way
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.note := 'by ' || current_user::text || ', ' || TG_OP;
	RETURN NEW;
END $$;
CREATE TRIGGER tell BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION tell();
SELECT streamext.create_stream('plain', event_time => 'w');
CREATE MATERIALIZED VIEW by_hour WITH (streamext.continuous) AS
SELECT streamext.tumble(w, '1 hour') AS w, sum(n) AS n FROM plain GROUP BY 1;
SELECT streamext.wait_for();
INSERT INTO ev VALUES ('2024-01-01 11:00Z', 'a', 4);
SELECT streamext.flush();
SELECT test.until($$SELECT sum(n) = 5 FROM by_hour$$);
SELECT * FROM by_hour ORDER BY 1;
SELECT DISTINCT replace(note, current_user::text, 'owner') FROM plain;
SELECT test.check('by_hour');

-- what cannot be inserted fails the flush, not the rows: it is tried until it can be
ALTER TABLE plain ADD CONSTRAINT no_b CHECK (k <> 'bad');
INSERT INTO ev VALUES ('2024-01-01 11:00:30Z', 'bad', 1), ('2024-01-01 11:02Z', 'good', 1);
SELECT test.until($$SELECT count(*) = 1 FROM streamext.status WHERE view = 'by_min'::regclass AND reason ~ 'violates check constraint "no_b"'$$);
SELECT k, w, n FROM by_min WHERE w >= '2024-01-01 11:00Z' ORDER BY 1;
SELECT count(*) FROM plain WHERE w >= '2024-01-01 11:00Z';
ALTER TABLE plain DROP CONSTRAINT no_b;
SELECT test.until($$SELECT count(*) = 2 FROM plain WHERE w >= '2024-01-01 11:00Z'$$);
SELECT test.check('by_min');

-- keys are equal as their type says, wherever its operators are
CREATE EXTENSION citext;
CREATE TABLE words (ts timestamptz NOT NULL, w citext);
SELECT streamext.create_stream('words', event_time => 'ts');
CREATE MATERIALIZED VIEW by_word WITH (streamext.continuous) AS
SELECT w, streamext.tumble(ts, '1 minute') AS m, count(*) AS n FROM words GROUP BY 1, 2;
CREATE TABLE word_minutes (id serial, w citext, m timestamptz, n bigint);
SELECT streamext.wait_for();
SELECT streamext.create_sink('by_word', 'word_minutes', corrections => true);
INSERT INTO words VALUES ('2024-01-01 10:00Z', 'Word'), ('2024-01-01 10:01Z', 'end');
SELECT streamext.flush();
INSERT INTO words VALUES ('2024-01-01 10:00:01Z', 'WORD');
SELECT streamext.flush();
SELECT w, n FROM word_minutes ORDER BY id;
SELECT streamext.drop_sink('by_word', 'word_minutes');

-- emit = on_close goes together with it
CREATE TABLE finals (h timestamptz, n numeric);
CREATE MATERIALIZED VIEW hours WITH (streamext.continuous, streamext.emit = 'on_close') AS
SELECT streamext.tumble(ts, '1 hour') AS h, count(*) AS n FROM ev GROUP BY 1;
SELECT streamext.wait_for();
SELECT streamext.create_sink('hours', 'finals', existing => true);
INSERT INTO ev VALUES ('2024-01-01 12:00Z', 'a', 1);
SELECT streamext.flush();
SELECT (SELECT count(*) FROM finals) AS appended, (SELECT count(*) FROM hours) AS shown;
SELECT * FROM (TABLE finals EXCEPT ALL TABLE hours) x;

-- refused
CREATE TABLE lacks (w timestamptz, k text);
CREATE TABLE wrong (w date, k int, n bigint, a numeric);
CREATE TEMP TABLE temporary (LIKE plain);
CREATE MATERIALIZED VIEW totals WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW no_window WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k, streamext.tumble(ts, '1 hour');
CREATE MATERIALIZED VIEW no_key WITH (streamext.continuous) AS SELECT streamext.tumble(ts, '1 hour') AS w, count(*) AS n FROM ev GROUP BY k, 1;
SELECT streamext.create_sink('by_min', 'lacks');
SELECT streamext.create_sink('by_min', 'wrong');
SELECT streamext.create_sink('by_min', 'temporary');
SELECT streamext.create_sink('by_min', 'plain');
SELECT streamext.create_sink('by_min', 'by_hour');
SELECT streamext.create_sink('by_min', 'ev');
SELECT streamext.create_sink('by_min', 'streamext.sink');
SELECT streamext.create_sink('totals', 'plain');
SELECT streamext.create_sink('no_window', 'plain');
SELECT streamext.create_sink('no_key', 'finals', corrections => true);
SELECT streamext.create_sink('plain', 'finals');
-- in a circle: minutes -> plain -> by_hour -> ev
ALTER TABLE ev RENAME ts TO w;
SELECT streamext.create_sink('by_hour', 'ev');
CREATE TABLE pieces (w timestamptz NOT NULL, n bigint) PARTITION BY RANGE (w);
CREATE TABLE piece PARTITION OF pieces FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE other_piece (w timestamptz NOT NULL, n bigint);
SELECT streamext.create_stream('pieces', event_time => 'w');
CREATE MATERIALIZED VIEW of_pieces WITH (streamext.continuous) AS SELECT streamext.tumble(w, '1 hour') AS w, count(*) AS n FROM pieces GROUP BY 1;
SELECT streamext.create_sink('of_pieces', 'piece');
SELECT streamext.create_sink('of_pieces', 'other_piece');
ALTER TABLE pieces ATTACH PARTITION other_piece FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
DROP MATERIALIZED VIEW of_pieces;
ALTER TABLE pieces ATTACH PARTITION other_piece FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
DROP TABLE pieces;
CREATE ROLE sink_nobody;
GRANT SELECT ON by_min TO sink_nobody;
SET ROLE sink_nobody;
SELECT streamext.create_sink('by_min', 'plain');
SELECT streamext.drop_sink('by_min', 'plain');
SELECT view, target FROM streamext.sinks;
RESET ROLE;
CREATE TABLE not_mine (LIKE plain);
CREATE ROLE sink_owner;
GRANT ALL ON SCHEMA public TO sink_owner;
GRANT SELECT ON ev TO sink_owner;
ALTER MATERIALIZED VIEW totals OWNER TO sink_owner;
SET ROLE sink_owner;
CREATE MATERIALIZED VIEW own WITH (streamext.continuous) AS SELECT streamext.tumble(w, '1 hour') AS w, count(*) AS n FROM ev GROUP BY 1;
SELECT streamext.create_sink('own', 'not_mine');
RESET ROLE;
DROP OWNED BY sink_owner, sink_nobody;
DROP ROLE sink_owner, sink_nobody;
DROP MATERIALIZED VIEW by_min;
SELECT view, target FROM streamext.sinks;
