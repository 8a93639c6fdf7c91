\echo Use "CREATE EXTENSION streamext" to load this file. \quit

-- The schema is a member of the extension.  It must not exist before: whoever had made it
-- could have put objects of theirs where ours are looked up.
CREATE SCHEMA streamext;
GRANT USAGE ON SCHEMA streamext TO PUBLIC;
COMMENT ON SCHEMA streamext IS 'continuous views: functions, status views and internal tables';

CREATE FUNCTION streamext.check_installation() RETURNS void
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_check_installation';
REVOKE EXECUTE ON FUNCTION streamext.check_installation() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION streamext.check_installation() TO PUBLIC;
COMMENT ON FUNCTION streamext.check_installation() IS
'checks that the server is set up for continuous views; an error names the line of postgresql.conf to change';

SELECT streamext.check_installation();
