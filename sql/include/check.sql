\set ECHO none
-- What the regression files share: included first by each, without being echoed.
--
-- check() is the one oracle: once a view has consumed everything committed so far it equals its
-- query run on the raw rows, and equals it again after its live state has been written to the table.
-- Floats compare by nine digits, since their sums depend on the order of addition; columns
-- whose type cannot be compared do as text.
SET timezone = 'UTC';
SET datestyle = 'ISO, MDY';
SET intervalstyle = 'postgres';
SET client_min_messages = warning;
CREATE SCHEMA test;
GRANT USAGE ON SCHEMA test TO PUBLIC;

CREATE FUNCTION test.near(x float8) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN x = 0 THEN '0' WHEN x IN ('NaN', 'Infinity', '-Infinity') THEN x::text
	ELSE to_char(x, '9.99999999EEEE') END $$;

-- internal names and numbers masked
CREATE FUNCTION test.mask(line text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT regexp_replace(regexp_replace(line, '\m(mat|query)_\d+', '\1_N', 'g'), '\mOID \d+', 'OID N', 'g') $$;

-- the definition that the extension shows, without its semicolon
CREATE FUNCTION test.definition(view regclass) RETURNS text LANGUAGE sql AS
$$ SELECT rtrim(definition, E'; \n') FROM streamext.views v WHERE v.view = definition.view $$;

CREATE FUNCTION test.differences(view regclass, query text) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	names text;
	outputs text;
BEGIN
	SELECT string_agg(format('%I', attname), ', ' ORDER BY attnum),
		string_agg(format(CASE
				WHEN atttypid IN ('float4'::regtype, 'float8'::regtype) THEN 'test.near(q.%1$I) AS %1$I'
				WHEN atttypid IN ('json'::regtype, 'xml'::regtype, 'point'::regtype) THEN 'q.%1$I::text'
				ELSE 'q.%1$I' END, attname), ', ' ORDER BY attnum)
	INTO names, outputs
	FROM pg_attribute WHERE attrelid = view AND attnum > 0 AND NOT attisdropped;
	RETURN QUERY EXECUTE format($query$
		WITH in_view AS MATERIALIZED (SELECT %1$s FROM %2$s AS q),
			in_query AS MATERIALIZED (SELECT %1$s FROM (%3$s) AS q(%4$s))
		SELECT 'only in the view: ' || whole_row::text FROM (TABLE in_view EXCEPT ALL TABLE in_query) whole_row
		UNION ALL
		SELECT 'only in the query: ' || whole_row::text FROM (TABLE in_query EXCEPT ALL TABLE in_view) whole_row
		ORDER BY 1 LIMIT 20 $query$, outputs, view, query, names);
END
$$;

CREATE FUNCTION test.check(regclass, query text DEFAULT NULL) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	v regclass := $1;
	same boolean := true;
	line text;
BEGIN
	query := coalesce(query, test.definition(v));
	IF query IS NULL THEN
		RETURN NEXT 'not a continuous view';
		RETURN;
	END IF;
	IF NOT streamext.wait_for(v, '30s') THEN
		RETURN NEXT 'not consumed in time: ' ||
			coalesce((SELECT s.reason FROM streamext.status s WHERE s.view = v), 'no reason given');
		RETURN;
	END IF;
	FOR line IN SELECT test.differences(v, query) LOOP
		RETURN NEXT line;
		same := false;
	END LOOP;
	PERFORM streamext.flush(v);
	FOR line IN SELECT test.differences(v, query) LOOP
		RETURN NEXT 'after the flush, ' || line;
		same := false;
	END LOOP;
	IF same THEN
		RETURN NEXT 'ok';
	END IF;
END
$$;

-- every continuous view of the database
CREATE FUNCTION test.check_all(OUT view regclass, OUT result text) RETURNS SETOF record LANGUAGE sql AS
$$ SELECT v.view, c FROM (SELECT view FROM streamext.views ORDER BY view::text) v, LATERAL test.check(v.view) c $$;

-- the plan of a query, without costs and with internal names masked
CREATE FUNCTION test.explain(query text) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
		RETURN NEXT test.mask(line);
	END LOOP;
END
$$;

-- polls until a query that gives a boolean says true, at most 30 s
CREATE FUNCTION test.until(query text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	done boolean;
BEGIN
	FOR i IN 1 .. 3000 LOOP
		EXECUTE query INTO done;
		IF done THEN
			RETURN 'yes';
		END IF;
		PERFORM pg_stat_clear_snapshot(), pg_sleep(0.01);
	END LOOP;
	RETURN 'not within 30 s';
END
$$;

-- what is left of a view's internal relations and catalog rows
CREATE FUNCTION test.leftovers() RETURNS bigint LANGUAGE sql AS
$$ SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'streamext'::regnamespace AND relname ~ '^(mat|query)_\d+$')
	+ (SELECT count(*) FROM streamext.view_def) + (SELECT count(*) FROM streamext.view_position) $$;
RESET client_min_messages;
\set ECHO all
