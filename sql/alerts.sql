-- Alerts: once per group, when its row starts to satisfy a condition.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE tx (card text, at timestamptz NOT NULL, amount numeric NOT NULL);
CREATE MATERIALIZED VIEW card_minute WITH (streamext.continuous) AS
SELECT card, streamext.tumble(at, '1 minute') AS minute, count(*) AS n, sum(amount) AS amount
FROM tx GROUP BY card, streamext.tumble(at, '1 minute');
CREATE FUNCTION reported(a text, wanted bigint) RETURNS text LANGUAGE sql AS
$$ SELECT test.until(format('SELECT count(*) >= %s FROM streamext.alerts WHERE alert = %L', wanted, a)) $$;

-- what is true before is not reported
INSERT INTO tx SELECT 'before', '2026-03-01 12:00:00+00', 1 FROM generate_series(1, 11);
SELECT streamext.create_alert('fraud', 'card_minute', 'n > 10 OR amount > 1000', 'fraud');
INSERT INTO tx SELECT 'many', '2026-03-01 12:00:00+00', 1 FROM generate_series(1, 10);
INSERT INTO tx VALUES ('before', '2026-03-01 12:00:30+00', 2000), ('much', '2026-03-01 12:00:00+00', 1000.01);
SELECT reported('fraud', 1);
INSERT INTO tx VALUES ('many', '2026-03-01 12:00:59+00', 1), ('many', '2026-03-01 12:01:00+00', 1);
SELECT reported('fraud', 2);
-- the same groups again, live and from the table; other windows of theirs
INSERT INTO tx SELECT c, '2026-03-01 12:00:00+00', 1 FROM unnest('{before,many,much}'::text[]) c, generate_series(1, 20);
SELECT streamext.wait_for(), streamext.flush();
INSERT INTO tx SELECT c, '2026-03-01 12:00:00+00', 1 FROM unnest('{before,many,much}'::text[]) c, generate_series(1, 20);
INSERT INTO tx SELECT 'many', '2026-03-01 12:01:00+00', 1 FROM generate_series(1, 10);
INSERT INTO tx VALUES ('before', '2026-03-01 12:01:00+00', 1001);
SELECT reported('fraud', 4);
-- rows that come in one flush and those that need the table's
INSERT INTO tx SELECT 'late ' || i, '2026-03-01 13:00:00+00', 600 FROM generate_series(1, 3) i;
SELECT streamext.flush();
INSERT INTO tx SELECT 'late ' || i, '2026-03-01 13:00:00+00', 401 FROM generate_series(1, 3) i;
SELECT reported('fraud', 7);
SELECT alert, view, "group", "row", at <= clock_timestamp() AS at FROM streamext.alerts ORDER BY "group" ->> 'card', "group" ->> 'minute';
SELECT count(DISTINCT id) = count(*) AS distinct_ids, count(*) FROM streamext.alerts;
SELECT alert, view, channel, definition, state, reported, failures, last_error FROM streamext.alert_status;
-- what rolls back is not reported
BEGIN;
INSERT INTO tx VALUES ('rolled back', '2026-03-01 12:00:00+00', 5000);
ROLLBACK;
INSERT INTO tx VALUES ('next', '2026-03-01 12:00:00+00', 5000);
SELECT reported('fraud', 8);
SELECT "group" ->> 'card' FROM streamext.alerts ORDER BY id DESC LIMIT 1;

-- a rename is followed, and shows in what comes next
ALTER MATERIALIZED VIEW card_minute RENAME TO per_minute;
ALTER MATERIALIZED VIEW per_minute RENAME COLUMN amount TO total;
INSERT INTO tx VALUES ('renamed', '2026-03-01 12:00:00+00', 5000);
SELECT reported('fraud', 9);
SELECT view, "row" FROM streamext.alerts ORDER BY id DESC LIMIT 1;

-- refusals
SELECT streamext.create_alert('fraud', 'per_minute', 'n > 1', 'x');
SELECT streamext.create_alert('', 'per_minute', 'n > 1', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > 1', '');
SELECT streamext.create_alert('a', 'per_minute', 'n > 1', repeat('x', 64));
SELECT streamext.create_alert(NULL, 'per_minute', 'n > 1', 'x');
SELECT streamext.create_alert('a', NULL, 'n > 1', 'x');
SELECT streamext.create_alert('a', 'per_minute', NULL, 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > 1', NULL);
SELECT streamext.create_alert('a', 'tx', 'n > 1', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'nothing > 1', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n', 'x');
SELECT streamext.create_alert('a', 'per_minute', '', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > 1; DROP TABLE tx', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > 1) OR (true', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > 1 FROM tx', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > 1 ORDER BY 1', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > 1, true', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > 1 LIMIT 1', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > 1 UNION SELECT true', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'DISTINCT n > 1', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'sum(n) > 1', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'rank() OVER () > 1', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > (SELECT count(*) FROM tx)', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'EXISTS (SELECT FROM tx)', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > 10 * random()', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'minute > now()', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'card = current_user', 'x');
SELECT streamext.create_alert('a', 'per_minute', 'n > $1', 'x');
SELECT streamext.drop_alert('nothing');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT streamext.create_alert('a', 'per_minute', 'n > 1', 'x');
ROLLBACK;
BEGIN READ ONLY;
SELECT streamext.create_alert('a', 'per_minute', 'n > 1', 'x');
ROLLBACK;
CREATE MATERIALIZED VIEW all_rows WITH (streamext.continuous) AS SELECT * FROM tx;
SELECT streamext.create_alert('a', 'all_rows', 'amount > 1', 'x');
CREATE MATERIALIZED VIEW no_key WITH (streamext.continuous) AS SELECT card, count(*) AS n FROM tx GROUP BY card, date_trunc('day', at);
SELECT streamext.create_alert('a', 'no_key', 'n > 1', 'x');
BEGIN;
CREATE MATERIALIZED VIEW fresh WITH (streamext.continuous) AS SELECT card, count(*) AS n FROM tx GROUP BY card;
SELECT streamext.create_alert('a', 'fresh', 'n > 1', 'x');
ROLLBACK;
DROP MATERIALIZED VIEW all_rows, no_key;

-- an alert is gone as if it had never been when its creation rolls back
BEGIN;
SELECT streamext.create_alert('undone', 'per_minute', 'n > 1', 'x');
ROLLBACK;
SELECT alert FROM streamext.alert_status;

-- without GROUP BY there is one group; keys of any kind; HAVING, ORDER BY and expressions
CREATE TABLE ev (a int, b numeric, c text, f float8, v int);
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS s FROM ev;
CREATE MATERIALIZED VIEW keys WITH (streamext.continuous) AS
SELECT a, f, b, sum(v) AS s, c, avg(v) AS mean FROM ev GROUP BY c, b, a, f HAVING count(*) > 1 ORDER BY sum(v) DESC;
SELECT streamext.create_alert('total', 'total', 's > 100', 'Weird "channel''s" name; --');
SELECT streamext.create_alert('it''s "odd"', 'keys', 'keys.s % 2 = 0 AND mean > 10 AND c IS DISTINCT FROM ''no''', 'odd');
INSERT INTO ev VALUES (1, 1.0, 'x', 0, 50), (1, 1.00, 'x', '-0', 50), (NULL, NULL, NULL, NULL, 20), (2, 2, 'no', 1, 50), (2, 2, 'no', 1, 50);
SELECT reported('it''s "odd"', 1), reported('total', 1);
INSERT INTO ev VALUES (NULL, NULL, NULL, NULL, 40), (1, 1.000, 'x', 0, 100), (3, 'NaN', E'\x01"\\', 'Infinity', 11), (3, 'NaN', E'\x01"\\', 'Infinity', 11);
SELECT reported('it''s "odd"', 3);
INSERT INTO ev SELECT a, b, c, f, 100 FROM ev;
SELECT streamext.wait_for(), streamext.flush();
INSERT INTO ev VALUES (9, 9, 'last', 9, 100), (9, 9, 'last', 9, 100);
SELECT reported('it''s "odd"', 4);
SELECT alert, "group", "row" FROM streamext.alerts WHERE alert <> 'fraud' ORDER BY alert, "group"::text;

-- a view that shows closed windows: when they close, with their last value
CREATE TABLE temps (at timestamptz NOT NULL, place int, t int);
SELECT streamext.create_stream('temps', 'at');
CREATE MATERIALIZED VIEW hours WITH (streamext.continuous, streamext.emit = 'on_close') AS
SELECT place, streamext.tumble(at, '1 hour') AS hour, count(*) AS n FROM temps GROUP BY place, streamext.tumble(at, '1 hour');
SELECT streamext.create_alert('silent', 'hours', 'n < 3', 'silent');
INSERT INTO temps SELECT '2026-03-01 10:00:00+00', place, 1 FROM generate_series(1, 3) place;
INSERT INTO temps SELECT '2026-03-01 10:30:00+00', place, 1 FROM generate_series(1, 2) place, generate_series(1, 2);
SELECT streamext.wait_for();
SELECT count(*) FROM streamext.alerts WHERE alert = 'silent';
-- closes the hour, and belongs to the next
INSERT INTO temps VALUES ('2026-03-01 10:59:00+00', 4, 1), ('2026-03-01 11:00:00+00', 1, 1);
SELECT reported('silent', 2);
INSERT INTO temps VALUES ('2026-03-01 12:00:00+00', 2, 1);
SELECT reported('silent', 3);
SELECT "row" FROM streamext.alerts WHERE alert = 'silent' ORDER BY "group"::text;
DROP MATERIALIZED VIEW hours;
DROP TABLE temps;

-- a condition that fails says so, is tried again, and disturbs nobody
CREATE FUNCTION picky(n bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN IF n = 13 THEN RAISE 'thirteen'; END IF; RETURN n > 13; END $$;
SELECT streamext.create_alert('picky', 'total', 'picky(s)', 'x');
SELECT streamext.drop_alert('picky');
DROP MATERIALIZED VIEW total, keys;
TRUNCATE ev;
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS SELECT a, sum(v) AS s FROM ev GROUP BY a;
SELECT streamext.create_alert('picky', 'sums', 'picky(s)', 'x'), streamext.create_alert('healthy', 'sums', 's > 0', 'x');
INSERT INTO ev (a, v) VALUES (1, 13), (2, 14);
SELECT reported('healthy', 2);
SELECT test.until($$SELECT state = 'failed' FROM streamext.alert_status WHERE alert = 'picky'$$);
SELECT alert, state, reported, failures > 0 AS failures, last_error FROM streamext.alert_status WHERE view = 'sums'::regclass ORDER BY 1;
INSERT INTO ev (a, v) VALUES (3, 20);
SELECT reported('healthy', 3), (SELECT count(*) FROM streamext.alerts WHERE alert = 'picky');
INSERT INTO ev (a, v) VALUES (1, 1);
SELECT reported('picky', 3);
SELECT test.until($$SELECT state = 'active' FROM streamext.alert_status WHERE alert = 'picky'$$);
SELECT alert, "group" FROM streamext.alerts WHERE alert IN ('picky', 'healthy') ORDER BY 1, 2;

-- who may do what
CREATE ROLE regress_streamext_owner;
CREATE ROLE regress_streamext_reader;
GRANT CREATE ON SCHEMA public TO regress_streamext_owner;
GRANT SELECT ON ev TO regress_streamext_owner;
ALTER MATERIALIZED VIEW sums OWNER TO regress_streamext_owner;
SELECT count(*) FROM pg_class WHERE relname ~ '^alert_\d+$' AND relowner = 'regress_streamext_owner'::regrole;
CREATE FUNCTION as_whom(bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN RETURN current_user = 'regress_streamext_owner' AND current_setting('transaction_read_only') = 'on' AND $1 > 1000; END $$;
SET ROLE regress_streamext_reader;
SELECT streamext.create_alert('mine', 'sums', 's > 0', 'x');
SELECT streamext.drop_alert('picky');
SELECT * FROM streamext.alerts;
SELECT * FROM streamext.alert_status;
SELECT * FROM streamext.alert_fired;
SELECT * FROM streamext.alert_def;
RESET ROLE;
GRANT SELECT ON sums TO regress_streamext_reader;
SET ROLE regress_streamext_reader;
SELECT DISTINCT alert FROM streamext.alerts ORDER BY 1;
SELECT alert, last_error FROM streamext.alert_status ORDER BY 1;
SELECT streamext.drop_alert('picky');
RESET ROLE;
SET ROLE regress_streamext_owner;
SELECT streamext.drop_alert('picky');
SELECT streamext.create_alert('owners', 'sums', 'as_whom(s)', 'x');
RESET ROLE;
INSERT INTO ev (a, v) VALUES (4, 1001);
SELECT reported('owners', 1);

-- the internal view is ours
SELECT alert AS internal FROM streamext.alert_def WHERE name = 'owners' \gset
\set VERBOSITY sqlstate
DROP VIEW :internal;
ALTER VIEW :internal RENAME TO mine;
ALTER VIEW :internal SET (security_barrier);
ALTER VIEW :internal SET SCHEMA public;
CREATE OR REPLACE VIEW :internal AS SELECT 1;
GRANT SELECT ON :internal TO PUBLIC;
\set VERBOSITY default

-- what the condition uses is kept, or takes the alert along
DO $$ BEGIN EXECUTE 'DROP FUNCTION as_whom(bigint)'; EXCEPTION WHEN dependent_objects_still_exist THEN RAISE NOTICE '%', SQLERRM; END $$;
SET client_min_messages = warning;
DROP FUNCTION as_whom(bigint) CASCADE;
SELECT alert FROM streamext.alert_status ORDER BY 1;
RESET client_min_messages;

-- alerts go with their view, however it is dropped
SELECT streamext.create_alert('second', 'sums', 's > 0', 'x');
DROP MATERIALIZED VIEW sums;
SELECT alert FROM streamext.alert_status ORDER BY 1;
DROP VIEW per_minute;
SELECT count(*) FROM streamext.alert_def;
SELECT count(*) FROM streamext.alert_fired;
SELECT count(*) FROM streamext.alert_error;
SET client_min_messages = warning;
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS SELECT a, sum(v) AS s FROM ev GROUP BY a;
SELECT streamext.create_alert('third', 'sums', 's > 0', 'x');
DROP TABLE ev CASCADE;
SELECT count(*) FROM streamext.alert_def;
CREATE TABLE ev (a int, v int);
GRANT SELECT ON ev TO regress_streamext_owner;
SET ROLE regress_streamext_owner;
CREATE MATERIALIZED VIEW owned WITH (streamext.continuous) AS SELECT a, sum(v) AS s FROM ev GROUP BY a;
SELECT streamext.create_alert('fourth', 'owned', 's > 0', 'x');
RESET ROLE;
DROP OWNED BY regress_streamext_owner;
SELECT count(*) FROM streamext.alert_def;
SELECT count(*) FROM streamext.alert_fired;
DROP ROLE regress_streamext_owner, regress_streamext_reader;
SELECT test.until($$SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'streamext alerter' AND datname = current_database()$$);
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS SELECT a, sum(v) AS s FROM ev GROUP BY a;
SELECT streamext.create_alert('fifth', 'sums', 's > 0', 'x');
INSERT INTO ev VALUES (1, 1);
SELECT reported('fifth', 1);
DROP EXTENSION streamext CASCADE;
SELECT relname FROM pg_class WHERE relname ~ '^alert_';
