-- Several views of all kinds on one stream: rows are read once for all of them, and every view is what it would be alone.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

-- partitions of other layouts, columns that nobody needs, values of all sizes
CREATE TABLE ev (ts timestamptz NOT NULL, k text, v int, big text, n numeric, u uuid, span interval, tag name, list int[],
	c1 int, c2 text, c3 int, c4 text, c5 int, c6 text, c7 int, c8 text, c9 int, c10 text, part int NOT NULL) PARTITION BY LIST (part);
CREATE TABLE ev_0 PARTITION OF ev FOR VALUES IN (0);
CREATE TABLE ev_1 (gone text, part int NOT NULL, list int[], tag name, c10 text, c9 int, c8 text, c7 int, c6 text, c5 int, c4 text,
	c3 int, c2 text, c1 int, span interval, u uuid, n numeric, big text, v int, k text, ts timestamptz NOT NULL);
ALTER TABLE ev_1 DROP COLUMN gone;
ALTER TABLE ev ATTACH PARTITION ev_1 FOR VALUES IN (1);
CREATE TABLE ev_rest PARTITION OF ev DEFAULT;
ALTER TABLE ev ALTER COLUMN big SET STORAGE EXTERNAL;
ALTER TABLE ev_0 ALTER COLUMN big SET STORAGE EXTERNAL;
ALTER TABLE ev_1 ALTER COLUMN big SET STORAGE EXTERNAL;
SELECT streamext.create_stream('ev', event_time => 'ts', late_rows => 'dead_letter');
CREATE TABLE dim (k text PRIMARY KEY, label text);
INSERT INTO dim SELECT 'k' || i, 'label ' || i % 3 FROM generate_series(0, 6) i;
CREATE TABLE nothing (k text PRIMARY KEY);
CREATE TABLE bands (low int, high int);
INSERT INTO bands VALUES (0, 99), (50, 499), (5000, 60000);

-- rows of one point of time: width of `big`, every bad-th one fails in a view
CREATE FUNCTION more(low int, high int, at timestamptz, width int DEFAULT 5, bad int DEFAULT 1000000) RETURNS void LANGUAGE sql AS
$$ INSERT INTO ev SELECT at + i * interval '1 millisecond', CASE WHEN i % 11 <> 0 THEN 'k' || i % 10 END,
	CASE WHEN i % bad = 0 THEN 0 ELSE i END, CASE WHEN i % 13 <> 0 THEN repeat(chr(97 + i % 26), width + i % 7) END,
	i / 7.0, md5(i::text)::uuid, i * interval '1 minute', ('tag ' || i % 5)::name, ARRAY[i % 3, NULL, i % 2],
	i, 'two', NULL, 'four', 5, NULL, 7, 'eight', i % 4, 'ten ' || i % 2, i % 3 FROM generate_series(low, high) i $$;

CREATE FUNCTION all_but(VARIADIC names text[]) RETURNS TABLE (view regclass, result text) LANGUAGE sql AS
$$ SELECT v.view, c FROM (SELECT view FROM streamext.views WHERE view::text <> ALL (names) ORDER BY view::text) v, LATERAL test.check(v.view) c $$;

CREATE MATERIALIZED VIEW a_joins_nothing WITH (streamext.continuous) AS SELECT e.k, count(*) AS n FROM nothing x JOIN ev e ON e.k = x.k GROUP BY 1;
CREATE MATERIALIZED VIEW b_fails WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(100000 / v) AS r FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW c_total WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev;
CREATE MATERIALIZED VIEW d_never WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev WHERE false GROUP BY k;
CREATE MATERIALIZED VIEW e_windows WITH (streamext.continuous) AS
	SELECT k, streamext.tumble(ts, '1 minute') AS w, count(*) AS n, sum(v) AS s, max(n) AS high FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW f_hours WITH (streamext.continuous) AS
	SELECT streamext.tumble(ts, '1 hour') AS w, count(*) AS n, max(span) AS span, min(u::text) AS u FROM ev WHERE c9 > 0 GROUP BY 1;
CREATE MATERIALIZED VIEW g_by_value WITH (streamext.continuous) AS SELECT k, tag, list, count(*) AS n, sum(n) AS s FROM ev GROUP BY 1, 2, 3;
CREATE MATERIALIZED VIEW h_joins WITH (streamext.continuous) AS
	SELECT d.label, count(*) AS n, sum(length(e.big)) AS len FROM ev e JOIN dim d ON d.k = e.k GROUP BY 1;
CREATE MATERIALIZED VIEW i_bands WITH (streamext.continuous) AS
	SELECT b.low, count(*) AS n, min(e.big) AS first FROM bands b JOIN ev e ON e.v BETWEEN b.low AND b.high GROUP BY 1;
CREATE MATERIALIZED VIEW j_rows WITH (streamext.continuous) AS SELECT ts, k, v, md5(big) AS big, span, part FROM ev WHERE v % 10 = 3;
CREATE MATERIALIZED VIEW k_whole WITH (streamext.continuous) AS SELECT part, md5(ev::text) AS whole FROM ev WHERE v % 100 = 7;
CREATE MATERIALIZED VIEW l_tables WITH (streamext.continuous) AS SELECT tableoid::regclass::oid AS leaf, c10, count(*) AS n FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW m_sessions WITH (streamext.continuous) AS
	SELECT k, streamext.session(ts, '30 seconds') AS session, count(*) AS n, sum(v) AS s FROM ev GROUP BY 1, 2;
SELECT streamext.wait_for();

-- nothing late, nothing bad: one row, some, more than the plan for few is for
SELECT more(1, 1, '2024-01-01 10:00Z');
SELECT streamext.wait_for();
SELECT more(2, 60, '2024-01-01 10:00Z');
SELECT streamext.wait_for();
SELECT more(61, 3000, '2024-01-01 10:00Z');
SELECT * FROM all_but('m_sessions');

-- toasted values
SELECT more(3001, 3060, '2024-01-01 10:00Z', 20000);
SELECT * FROM all_but('m_sessions');

-- bad rows: some of many, the first, the last, and all of a few; for one view they are dead letters
SELECT more(4000, 6000, '2024-01-01 10:01Z', 5, 500);
SELECT streamext.wait_for();
SELECT more(7000, 7004, '2024-01-01 10:01Z', 5, 1);
SELECT streamext.wait_for(), streamext.flush();
SELECT view, reason, count(*) FROM streamext.dead_letters GROUP BY 1, 2 ORDER BY 1::text, 2;
SELECT test.check('b_fails', 'SELECT k, count(*), sum(100000 / v) FROM ev WHERE v <> 0 GROUP BY k');
SELECT * FROM all_but('b_fails', 'm_sessions');

-- late for windows that are closed: a dead letter of one view, a row as others are to the rest, or one that is bad
SELECT more(8000, 8010, '2024-01-01 10:30Z');
SELECT streamext.wait_for();
INSERT INTO ev (ts, k, v, part) SELECT timestamptz '2024-01-01 10:05Z' + i * interval '1 second', 'late', i % 3, i % 3 FROM generate_series(1, 90) i;
SELECT more(8011, 8020, '2024-01-01 10:30Z');
SELECT streamext.wait_for(), streamext.flush();
SELECT view, reason, count(*), min("row" ->> 'k'), max("row" ->> 'k') FROM streamext.dead_letters
	WHERE "row" ->> 'k' = 'late' GROUP BY 1, 2 ORDER BY 1::text, 2;
SELECT view, late_rows FROM streamext.status WHERE late_rows > 0 ORDER BY view::text;
SELECT test.check('b_fails', 'SELECT k, count(*), sum(100000 / v) FROM ev WHERE v <> 0 GROUP BY k');
SELECT test.check('e_windows', $$SELECT k, streamext.tumble(ts, '1 minute'), count(*), sum(v), max(n) FROM ev WHERE k IS DISTINCT FROM 'late' GROUP BY 1, 2$$);
SELECT * FROM all_but('b_fails', 'e_windows', 'm_sessions');
-- rows come within seconds, minutes apart: a session is what a key has of a minute
(SELECT k, n, s FROM m_sessions EXCEPT ALL SELECT k, count(*), sum(v) FROM ev WHERE k IS DISTINCT FROM 'late' GROUP BY k, date_trunc('minute', ts))
UNION ALL (SELECT k, count(*), sum(v) FROM ev WHERE k IS DISTINCT FROM 'late' GROUP BY k, date_trunc('minute', ts) EXCEPT ALL SELECT k, n, s FROM m_sessions);

-- conditions on the stream are for all; and a view that comes later takes what others take
SELECT streamext.alter_stream('ev', valid => 'v IS DISTINCT FROM -1');
CREATE MATERIALIZED VIEW n_later WITH (streamext.continuous) AS SELECT c1 % 10 AS digit, c2, c10, count(*) AS n, max(big) AS high FROM ev GROUP BY 1, 2, 3;
SELECT streamext.wait_for();
INSERT INTO ev (ts, k, v, part) SELECT timestamptz '2024-01-01 10:31Z', 'invalid', CASE WHEN i % 2 = 0 THEN -1 ELSE i END, i % 3 FROM generate_series(1, 10) i;
SELECT streamext.wait_for(), streamext.flush();
SELECT view, count(*) FROM streamext.dead_letters WHERE reason = 'invalid' GROUP BY 1 ORDER BY 1::text;
DELETE FROM ev WHERE v = -1;
DELETE FROM ev WHERE k = 'late';
SELECT test.check('c_total', $$SELECT count(*) + 90 FROM ev$$), test.check('g_by_value', $$SELECT k, tag, list, count(*), sum(n) FROM
	(SELECT k, tag, list, n FROM ev UNION ALL SELECT 'late', NULL, NULL, NULL FROM generate_series(1, 90)) x GROUP BY 1, 2, 3$$);
SELECT test.check('n_later', $$SELECT c1 % 10, c2, c10, count(*), max(big) FROM
	(SELECT c1, c2, c10, big FROM ev UNION ALL SELECT NULL, NULL, NULL, NULL FROM generate_series(1, 90)) x GROUP BY 1, 2, 3$$);
DROP MATERIALIZED VIEW a_joins_nothing, b_fails, c_total, d_never, e_windows, f_hours, g_by_value, h_joins, i_bands, j_rows, k_whole, l_tables, m_sessions, n_later;
SELECT streamext.drop_stream('ev');
TRUNCATE ev;

-- more rows than a slice has, in one transaction and in several, and wider ones than are kept; one view finds bad rows
CREATE MATERIALIZED VIEW few WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev;
CREATE MATERIALIZED VIEW fails WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(100000 / v) AS r FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW wide WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(length(big)) AS len, max(big) AS high, sum(n) AS s FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW rows WITH (streamext.continuous) AS SELECT ts, k, v FROM ev WHERE v % 1000 = 5;
CREATE MATERIALIZED VIEW last WITH (streamext.continuous) AS SELECT part, tag, count(*) AS n FROM ev GROUP BY 1, 2;
SELECT streamext.wait_for();
SELECT more(1, 120000, '2024-01-01 10:00Z', 5, 29989);
SELECT more(1, 60000, '2024-01-01 11:00Z', 500);
SELECT more(1, 30000, '2024-01-01 12:00Z');
BEGIN;
SELECT more(1, 4, '2024-01-01 13:00Z');
SAVEPOINT s;
SELECT more(1, 30000, '2024-01-01 14:00Z');
ROLLBACK TO s;
SELECT more(1, 5, '2024-01-01 15:00Z');
COMMIT;
SELECT test.check('fails', 'SELECT k, count(*), sum(100000 / v) FROM ev WHERE v <> 0 GROUP BY k');
SELECT * FROM all_but('fails');
SELECT view, count(*) FROM streamext.dead_letters WHERE view IN (SELECT view FROM streamext.views) GROUP BY 1;

-- the table changes: columns that come and go, with values that old rows do not have
ALTER TABLE ev ADD COLUMN added text DEFAULT 'since then';
ALTER TABLE ev DROP COLUMN c3;
CREATE MATERIALIZED VIEW new_column WITH (streamext.continuous) AS SELECT added, c2, count(*) AS n FROM ev GROUP BY 1, 2;
INSERT INTO ev (ts, k, v, part, added) SELECT '2024-01-01 16:00Z', 'changed', i, i % 3, nullif(i % 4, 0) FROM generate_series(1, 100) i;
SELECT test.check('fails', 'SELECT k, count(*), sum(100000 / v) FROM ev WHERE v <> 0 GROUP BY k');
SELECT * FROM all_but('fails');
