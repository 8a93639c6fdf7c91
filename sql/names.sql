-- Names: blanks, quotes, keywords, letters beyond ASCII and 63 bytes, for everything that has a name.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include
SET client_encoding = 'UTF8';

CREATE SCHEMA "Schéma ""quoted"" select";
CREATE ROLE "regress_streamext "" Rôle";
GRANT ALL ON SCHEMA "Schéma ""quoted"" select" TO "regress_streamext "" Rôle";
GRANT CREATE ON SCHEMA public TO "regress_streamext "" Rôle";
SET ROLE "regress_streamext "" Rôle";
CREATE TABLE "Schéma ""quoted"" select"."Tâble; DROP" (
	"Col umn" int, "quo""te" text, "select" numeric, "Zeit é" timestamptz NOT NULL, "$1" int, "%s" text, "back\slash" int);
SELECT streamext.create_stream('"Schéma ""quoted"" select"."Tâble; DROP"', event_time => 'Zeit é');
CREATE MATERIALIZED VIEW "Schéma ""quoted"" select"."Víew 'x' "" y" WITH (streamext.continuous) AS
	SELECT "Col umn", "quo""te" AS "a "" b", count(*) AS "group", sum("select") AS "Sum(select)", avg("$1") AS "%s", max("%s") AS "$1",
		streamext.tumble("Zeit é", '1 hour') AS "Wîndow"
	FROM "Schéma ""quoted"" select"."Tâble; DROP" GROUP BY "Col umn", "quo""te", streamext.tumble("Zeit é", '1 hour');
CREATE MATERIALIZED VIEW "select" WITH (streamext.continuous, streamext.stream = '"Schéma ""quoted"" select"."Tâble; DROP"') AS
	SELECT t."Col umn" AS "from", E'it''s' AS "where", "back\slash" AS "order" FROM "Schéma ""quoted"" select"."Tâble; DROP" t;
INSERT INTO "Schéma ""quoted"" select"."Tâble; DROP"
	SELECT i % 3, 'q"' || i % 2, i / 4.0, '2026-01-01 00:00+00'::timestamptz + i * interval '7 minutes', i, '%s ' || i, i FROM generate_series(1, 50) i;
SELECT * FROM test.check_all();
RESET ROLE;
SELECT view, owner, state FROM streamext.views ORDER BY view::text;
SELECT stream, event_time FROM streamext.streams;
SELECT test.mask(definition) FROM streamext.views WHERE view = '"select"'::regclass;
CREATE INDEX "Índex "" 1" ON "Schéma ""quoted"" select"."Víew 'x' "" y" ("group", "Wîndow");
ALTER MATERIALIZED VIEW "Schéma ""quoted"" select"."Víew 'x' "" y" RENAME TO "Another; name";
ALTER VIEW "Schéma ""quoted"" select"."Another; name" RENAME COLUMN "group" TO "user";
ALTER TABLE "Schéma ""quoted"" select"."Tâble; DROP" RENAME TO "table";
ALTER SCHEMA "Schéma ""quoted"" select" RENAME TO "schema";
ALTER ROLE "regress_streamext "" Rôle" RENAME TO "regress_streamext user";
INSERT INTO "schema"."table" SELECT i % 3, 'q"', i, '2026-01-02 00:00+00', i, NULL, i FROM generate_series(1, 5) i;
SELECT * FROM test.check_all();
-- errors name things as they are
SELECT streamext.drop_stream('"schema"."table"');
INSERT INTO "schema"."table" ("Zeit é") VALUES ('2026-01-02 00:00+00');
CREATE MATERIALIZED VIEW "dé ad" WITH (streamext.continuous) AS SELECT 1 / "$1" AS "/" FROM "schema"."table";
INSERT INTO "schema"."table" ("Zeit é", "$1", "%s") VALUES ('2026-01-02 00:00+00', 0, E'a "quoted"\nline \\ é');
SELECT test.until($$SELECT streamext.wait_for('"dé ad"') AND streamext.flush('"dé ad"') IS NOT NULL AND count(*) = 1 FROM streamext.dead_letters$$);
SELECT view, stream, "row" ->> '%s' AS "%s", "row" ->> '$1' AS zero, message FROM streamext.dead_letters;
DROP MATERIALIZED VIEW "dé ad", "schema"."Another; name", "select";
SELECT test.leftovers();

-- as long as a name may be
SELECT 't' || repeat('x', 62) AS t, 'v' || repeat('é', 31) AS v, 'c' || repeat('c', 62) AS c, 's' || repeat('s', 62) AS s, 'n' || repeat('n', 61) AS n \gset
CREATE SCHEMA :"s";
CREATE TABLE :"s".:"t" (:"c" int, :"n" text);
CREATE MATERIALIZED VIEW :"s".:"v" WITH (streamext.continuous) AS SELECT :"c", count(*) AS :"n" FROM :"s".:"t" GROUP BY :"c";
INSERT INTO :"s".:"t" SELECT i % 3, 'x' FROM generate_series(1, 10) i;
SELECT * FROM test.check_all();
CREATE INDEX ON :"s".:"v" (:"n");
SELECT octet_length(:'v');
-- longer ones are cut, with a notice
CREATE MATERIALIZED VIEW vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv WITH (streamext.continuous) AS
	SELECT 1 AS oooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooo FROM :"s".:"t";
SELECT * FROM test.check_all();

-- the column of the event time is renamed; hints can be typed
CREATE MATERIALIZED VIEW "dé jà" WITH (streamext.continuous) AS
	SELECT streamext.hop("Zeit é", '30 minutes', '1 hour') AS "Wî", count(*) AS n, avg("Col umn") AS "a""v" FROM "schema"."table" GROUP BY 1;
CREATE MATERIALIZED VIEW "schema"."An ' "" other" WITH (streamext.continuous) AS
	SELECT "Col umn", streamext.tumble("Zeit é", '1 hour') AS "Wîndow", sum("select") AS "Sum(select)" FROM "schema"."table" GROUP BY 1, 2;
SELECT streamext.wait_for('"dé jà"');
ALTER TABLE "schema"."table" RENAME COLUMN "Zeit é" TO "at ""Tîme"" %L";
INSERT INTO "schema"."table" SELECT i % 3, 'q"', i, '2026-01-03 00:00+00'::timestamptz + i * interval '7 minutes', i, NULL, i FROM generate_series(1, 50) i;
SELECT * FROM test.check_all();
CALL streamext.backfill('"dé jà"', '2026-01-03 01:00Z', '2026-01-03 02:00Z');
SET client_min_messages = notice;
BEGIN;
REFRESH MATERIALIZED VIEW "schema"."An ' "" other";
REFRESH MATERIALIZED VIEW "schema"."An ' "" other";
ROLLBACK;
RESET client_min_messages;
SET client_min_messages = warning;
CALL streamext.backfill('"schema"."An '' "" other"', '2026-01-03 01:00Z', '2026-01-03 02:00Z');
REFRESH MATERIALIZED VIEW "dé jà";
SELECT streamext.replace_view('"schema"."An '' "" other"', $$SELECT "Col umn", streamext.tumble("at ""Tîme"" %L", '1 hour') AS "Wîndow", sum("select") AS "Sum(select)",
	min("back\slash") AS "new ""column" FROM "schema"."table" GROUP BY 1, 2$$);
SELECT streamext.wait_for();
SELECT * FROM test.check_all();
SELECT streamext.alter_stream('"schema"."table"', valid => '"at ""Tîme"" %L" > ''2000-01-01Z''');
SELECT stream, event_time, valid FROM streamext.streams WHERE stream = '"schema"."table"'::regclass;

-- tables, views and functions of the user's that are called as ours, and a search_path that finds them first
CREATE SCHEMA trap;
CREATE TABLE trap.view_def (a int);
CREATE TABLE trap.mat_1 (a int);
CREATE TABLE trap.mat_2 (a int);
CREATE FUNCTION trap.finalize(regprocedure, anyarray, anyelement) RETURNS anyelement LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION trap.finalize(regprocedure, bigint, bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION trap.sum(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION trap.count(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE FUNCTION trap.eq(int, int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE OPERATOR trap.= (LEFTARG = int, RIGHTARG = int, FUNCTION = trap.eq);
CREATE TABLE plain (k int, v int);
CREATE MATERIALIZED VIEW before WITH (streamext.continuous) AS SELECT k, count(v) AS n, avg(v) AS a FROM plain WHERE k = 1 GROUP BY k;
ALTER DATABASE regression SET search_path = trap, pg_catalog, public;
SET search_path = trap, pg_catalog, public;
INSERT INTO plain VALUES (1, 1), (2, 2);
SELECT streamext.wait_for('public.before');
SELECT * FROM public.before;
SELECT streamext.flush('public.before');
INSERT INTO plain VALUES (1, 3);
SELECT streamext.wait_for();
SELECT k, n, pg_catalog.round(a, 2) AS a FROM public.before;
RESET search_path;
ALTER DATABASE regression RESET search_path;
SET search_path = '';
SELECT view, state FROM streamext.views WHERE view = 'public.before'::pg_catalog.regclass;
INSERT INTO public.plain VALUES (1, 5);
CREATE MATERIALIZED VIEW public.bare WITH (streamext.continuous) AS SELECT k, count(v) AS n FROM public.plain GROUP BY k;
SELECT test.check('public.before'), test.check('public.bare');
RESET search_path;

SET client_min_messages = warning;
DROP SCHEMA trap CASCADE;
DROP SCHEMA :"s" CASCADE;
DROP SCHEMA "schema" CASCADE;
RESET client_min_messages;
DROP OWNED BY "regress_streamext user";
DROP ROLE "regress_streamext user";
