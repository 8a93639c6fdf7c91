-- How a view is kept up to date: see src/query/explain.c

CREATE FUNCTION streamext.explain(view pg_catalog.regclass)
	RETURNS SETOF pg_catalog.text
	AS 'MODULE_PATHNAME', 'sx_explain' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION streamext.explain(pg_catalog.regclass) IS
'how a continuous view is kept up to date: strategy, stream, keys, aggregates and their states, pinned settings, size, delta plan; one line per row; errors: not a continuous view, no SELECT privilege on it';
