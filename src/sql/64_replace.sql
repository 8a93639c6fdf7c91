-- New contents or a new definition for a view that serves: see src/batch/replace.h

CREATE FUNCTION streamext.replace_view(view pg_catalog.regclass, query pg_catalog.text,
	force pg_catalog.bool DEFAULT false)
RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_replace_view';
COMMENT ON FUNCTION streamext.replace_view(pg_catalog.regclass, pg_catalog.text, pg_catalog.bool) IS
'gives a continuous view another query: it is built from the rows of the stream in the background, while the view goes on with the old one, and takes its place in one transaction; streamext.wait_for(view) waits for that. Grants, comments, indexes, sinks, alerts and dependent views stay. query: one SELECT, with the columns that the view has, and others after them; force: also if raw rows have expired (streamext.expire), which the view will not have then, and if the query is the same. Result: false if the view has this query already. Takes the owner of the view. Errors: columns or indexes that cannot be kept, another stream while there are sinks, raw rows have expired, a replacement is under way, and those of CREATE MATERIALIZED VIEW';

CREATE FUNCTION streamext.cancel_replace(view pg_catalog.regclass)
RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_cancel_replace';
COMMENT ON FUNCTION streamext.cancel_replace(pg_catalog.regclass) IS
'gives up a REFRESH or streamext.replace_view() that is under way; the view stays as it is. Result: false if there was none. Takes the owner of the view';

REVOKE EXECUTE ON FUNCTION
	streamext.replace_view(pg_catalog.regclass, pg_catalog.text, pg_catalog.bool),
	streamext.cancel_replace(pg_catalog.regclass)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
	streamext.replace_view(pg_catalog.regclass, pg_catalog.text, pg_catalog.bool),
	streamext.cancel_replace(pg_catalog.regclass)
TO PUBLIC;
