-- See src/ddl/dead_letter_functions.c.

CREATE FUNCTION streamext.retry_dead_letters(view pg_catalog.regclass)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'sx_retry_dead_letters' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION streamext.retry_dead_letters(pg_catalog.regclass) IS
'counts the dead letters of a continuous view in, made from their JSON again: late ones, and those that do not fail any more; returns how many; the others stay, with what was wrong this time, and so do rows for windows past the view''s retention; takes the view''s owner';
REVOKE EXECUTE ON FUNCTION streamext.retry_dead_letters(pg_catalog.regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION streamext.retry_dead_letters(pg_catalog.regclass) TO PUBLIC;

-- See src/query/row_filter.c.
CREATE FUNCTION streamext.is_valid("table" pg_catalog.oid, "row" pg_catalog.tid)
	RETURNS pg_catalog.bool
	AS 'MODULE_PATHNAME', 'sx_is_valid' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION streamext.is_valid(pg_catalog.oid, pg_catalog.tid) IS
'leaves out rows that fail their stream''s condition where streamext.verify runs a view''s query; true for anybody else';
REVOKE EXECUTE ON FUNCTION streamext.is_valid(pg_catalog.oid, pg_catalog.tid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION streamext.is_valid(pg_catalog.oid, pg_catalog.tid) TO PUBLIC;

CREATE FUNCTION streamext.repair_dead_letter(id pg_catalog.int8, "row" pg_catalog.jsonb)
	RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'sx_repair_dead_letter' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION streamext.repair_dead_letter(pg_catalog.int8, pg_catalog.jsonb) IS
'replaces the row of a dead letter, which streamext.retry_dead_letters then counts in. id: of streamext.dead_letters; row: an object with the columns of the stream by name. Takes the owner of the view. Errors: no such dead letter, not an object';
REVOKE EXECUTE ON FUNCTION streamext.repair_dead_letter(pg_catalog.int8, pg_catalog.jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION streamext.repair_dead_letter(pg_catalog.int8, pg_catalog.jsonb) TO PUBLIC;
