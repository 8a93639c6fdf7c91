-- Windows of a view computed anew: see src/batch/recompute.c

CREATE PROCEDURE streamext.backfill(view pg_catalog.regclass, "from" pg_catalog.text, "to" pg_catalog.text)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sx_backfill';
CREATE PROCEDURE streamext.backfill(view pg_catalog.regclass, "from" pg_catalog.timestamptz, "to" pg_catalog.timestamptz)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sx_backfill';
CREATE PROCEDURE streamext.backfill(view pg_catalog.regclass, "from" pg_catalog.timestamp, "to" pg_catalog.timestamp)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sx_backfill';
CREATE PROCEDURE streamext.backfill(view pg_catalog.regclass, "from" pg_catalog.date, "to" pg_catalog.date)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sx_backfill';
CREATE PROCEDURE streamext.backfill(view pg_catalog.regclass, "from" pg_catalog.int8, "to" pg_catalog.int8)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sx_backfill';

COMMENT ON PROCEDURE streamext.backfill(pg_catalog.regclass, pg_catalog.text, pg_catalog.text) IS
'computes the windows of a continuous view that begin from one time to before another anew, from the raw rows as they are now, and puts them in place of what the view has, while rows go on to come in. from, to: windows, as text or in the type of the view''s windows. Outside of a transaction block it commits in parts of whole windows, and says so in notices. Takes the owner of the view. Errors: the view has no windows, or overlapping ones that share states, or sessions; a row fails; the view does not catch up within streamext.wait_timeout';
COMMENT ON PROCEDURE streamext.backfill(pg_catalog.regclass, pg_catalog.timestamptz, pg_catalog.timestamptz) IS
'as with text';
COMMENT ON PROCEDURE streamext.backfill(pg_catalog.regclass, pg_catalog.timestamp, pg_catalog.timestamp) IS
'as with text';
COMMENT ON PROCEDURE streamext.backfill(pg_catalog.regclass, pg_catalog.date, pg_catalog.date) IS
'as with text';
COMMENT ON PROCEDURE streamext.backfill(pg_catalog.regclass, pg_catalog.int8, pg_catalog.int8) IS
'as with text';

REVOKE EXECUTE ON PROCEDURE
	streamext.backfill(pg_catalog.regclass, pg_catalog.text, pg_catalog.text),
	streamext.backfill(pg_catalog.regclass, pg_catalog.timestamptz, pg_catalog.timestamptz),
	streamext.backfill(pg_catalog.regclass, pg_catalog.timestamp, pg_catalog.timestamp),
	streamext.backfill(pg_catalog.regclass, pg_catalog.date, pg_catalog.date),
	streamext.backfill(pg_catalog.regclass, pg_catalog.int8, pg_catalog.int8)
FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE
	streamext.backfill(pg_catalog.regclass, pg_catalog.text, pg_catalog.text),
	streamext.backfill(pg_catalog.regclass, pg_catalog.timestamptz, pg_catalog.timestamptz),
	streamext.backfill(pg_catalog.regclass, pg_catalog.timestamp, pg_catalog.timestamp),
	streamext.backfill(pg_catalog.regclass, pg_catalog.date, pg_catalog.date),
	streamext.backfill(pg_catalog.regclass, pg_catalog.int8, pg_catalog.int8)
TO PUBLIC;
