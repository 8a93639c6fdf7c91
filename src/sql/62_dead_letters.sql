-- See src/ddl/dead_letter_functions.c.

CREATE FUNCTION streamext.retry_dead_letters(view pg_catalog.regclass)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'sx_retry_dead_letters' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION streamext.retry_dead_letters(pg_catalog.regclass) IS
'counts the dead letters of a continuous view in, made from their JSON again: late ones, and those that do not fail any more; returns how many; the others stay, with what was wrong this time, and so do rows for windows past the view''s retention; takes the view''s owner';
REVOKE EXECUTE ON FUNCTION streamext.retry_dead_letters(pg_catalog.regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION streamext.retry_dead_letters(pg_catalog.regclass) TO PUBLIC;
