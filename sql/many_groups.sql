-- Many groups of history, which are stored page by page, in the order of the key's index.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include
CREATE EXTENSION amcheck;

-- keys with NULL, of several types; a row that fails makes one view go row by row, so that groups come twice
CREATE TABLE ev (a int, t text, n numeric, d date, v int);
INSERT INTO ev SELECT nullif(i % 701, 0), nullif('text ' || i % 401, 'text 0'), nullif(i % 13, 0) / 10.0,
	date '2026-01-01' + i % 300, i % 1000 + 1 FROM generate_series(1, 5000) i;
CREATE TABLE with_zero AS SELECT * FROM ev;
INSERT INTO with_zero VALUES (1, 'text 1', 1, '2026-01-01', 0);
CREATE MATERIALIZED VIEW by_int WITH (streamext.continuous) AS
	SELECT a, count(*) AS n, sum(v) AS s, avg(v) AS mean, max(t) AS m FROM ev GROUP BY a;
CREATE MATERIALIZED VIEW by_two WITH (streamext.continuous) AS
	SELECT t, n, count(*) AS c, min(d) AS first FROM ev GROUP BY t, n;
CREATE MATERIALIZED VIEW by_text WITH (streamext.continuous) AS
	SELECT t COLLATE "C" AS t, count(n) AS c FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW failing WITH (streamext.continuous) AS
	SELECT d, a % 2 AS odd, sum(1000 / v) AS s FROM with_zero GROUP BY 1, 2;
CREATE MATERIALIZED VIEW rows WITH (streamext.continuous) AS SELECT a, v FROM ev WHERE v > 1;
CREATE MATERIALIZED VIEW indexed WITH (streamext.continuous) AS SELECT d, t, sum(v) AS s FROM ev GROUP BY 1, 2;
SELECT streamext.wait_for();
-- another index, and once more
CREATE INDEX ON indexed (t);
REFRESH MATERIALIZED VIEW indexed;

CREATE FUNCTION check_views(views text[]) RETURNS TABLE (view text, groups bigint, wrong bigint, indexes bigint) LANGUAGE plpgsql AS $$
DECLARE
	d record;
BEGIN
	FOR d IN SELECT v.view::regclass AS view, v.mat FROM streamext.view_def v
		WHERE v.view::regclass::text = ANY (views) ORDER BY v.view::regclass::text
	LOOP
		-- every row of the table is in the index, and in its order
		SELECT count(*) INTO indexes FROM (SELECT bt_index_check(indexrelid, true) FROM pg_index WHERE indrelid = d.mat) c;
		EXECUTE format('SELECT count(*) FROM %s', d.view) INTO groups;
		view := d.view;
		SELECT count(*) INTO wrong FROM streamext.verify(d.view);
		RETURN NEXT;
	END LOOP;
END $$;
SELECT view::text, reason, message FROM streamext.dead_letters WHERE view = 'failing'::regclass;
-- the query could not be run with it
DELETE FROM with_zero WHERE v = 0;
SELECT * FROM check_views('{by_int,by_two,by_text,failing,rows,indexed}');

-- what comes later meets those groups
INSERT INTO ev SELECT * FROM ev;
INSERT INTO with_zero SELECT * FROM with_zero;
SELECT streamext.flush(v) FROM unnest('{by_int,by_two,by_text,failing,rows,indexed}'::regclass[]) v;
SELECT * FROM check_views('{by_int,by_two,by_text,failing,rows,indexed}');

-- states that are kept out of line: the indexes must know where the rows are
CREATE TABLE notes (k int NOT NULL, note text NOT NULL);
INSERT INTO notes SELECT i, (SELECT string_agg(md5((i * 1000 + j)::text), '') FROM generate_series(1, CASE i % 3 WHEN 0 THEN 100 ELSE 1 END) j) FROM generate_series(1, 300) i;
CREATE MATERIALIZED VIEW last_notes WITH (streamext.continuous) AS SELECT k, max(note) AS last, count(*) AS n FROM notes GROUP BY k;
SELECT streamext.flush('last_notes');
-- rows without a key are stored page by page at any time
CREATE MATERIALIZED VIEW all_notes WITH (streamext.continuous) AS SELECT k, note FROM notes;
CREATE INDEX ON all_notes (k);
SELECT streamext.wait_for('all_notes');
INSERT INTO notes SELECT * FROM notes;
SELECT streamext.flush(v) FROM unnest('{last_notes,all_notes}'::regclass[]) v;
SELECT * FROM check_views('{last_notes,all_notes}');
