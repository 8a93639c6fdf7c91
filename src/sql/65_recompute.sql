-- Windows of a view computed anew: see src/batch/recompute.c

CREATE PROCEDURE streamext.backfill(view pg_catalog.regclass, "from" pg_catalog.text, "to" pg_catalog.text,
	force pg_catalog.bool DEFAULT false)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sx_backfill';
CREATE PROCEDURE streamext.backfill(view pg_catalog.regclass, "from" pg_catalog.timestamptz, "to" pg_catalog.timestamptz,
	force pg_catalog.bool DEFAULT false)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sx_backfill';
CREATE PROCEDURE streamext.backfill(view pg_catalog.regclass, "from" pg_catalog.timestamp, "to" pg_catalog.timestamp,
	force pg_catalog.bool DEFAULT false)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sx_backfill';
CREATE PROCEDURE streamext.backfill(view pg_catalog.regclass, "from" pg_catalog.date, "to" pg_catalog.date,
	force pg_catalog.bool DEFAULT false)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sx_backfill';
CREATE PROCEDURE streamext.backfill(view pg_catalog.regclass, "from" pg_catalog.int8, "to" pg_catalog.int8,
	force pg_catalog.bool DEFAULT false)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sx_backfill';

COMMENT ON PROCEDURE streamext.backfill(pg_catalog.regclass, pg_catalog.text, pg_catalog.text, pg_catalog.bool) IS
'computes the windows of a continuous view that begin from one time to before another anew, from the raw rows as they are now, and puts them in place of what the view has, while rows go on to come in. from, to: windows, as text or in the type of the view''s windows; force: also where raw rows have expired (streamext.expire), or dead letters belong to other windows, too. Outside of a transaction block it commits in parts of whole windows, and says so in notices. Takes the owner of the view. Errors: the view has no windows, or overlapping ones that share states, or sessions; raw rows of the windows have expired; dead letters belong to windows of the range and to others; a row fails; the view does not catch up within streamext.wait_timeout';
COMMENT ON PROCEDURE streamext.backfill(pg_catalog.regclass, pg_catalog.timestamptz, pg_catalog.timestamptz, pg_catalog.bool) IS
'as with text';
COMMENT ON PROCEDURE streamext.backfill(pg_catalog.regclass, pg_catalog.timestamp, pg_catalog.timestamp, pg_catalog.bool) IS
'as with text';
COMMENT ON PROCEDURE streamext.backfill(pg_catalog.regclass, pg_catalog.date, pg_catalog.date, pg_catalog.bool) IS
'as with text';
COMMENT ON PROCEDURE streamext.backfill(pg_catalog.regclass, pg_catalog.int8, pg_catalog.int8, pg_catalog.bool) IS
'as with text';

REVOKE EXECUTE ON PROCEDURE
	streamext.backfill(pg_catalog.regclass, pg_catalog.text, pg_catalog.text, pg_catalog.bool),
	streamext.backfill(pg_catalog.regclass, pg_catalog.timestamptz, pg_catalog.timestamptz, pg_catalog.bool),
	streamext.backfill(pg_catalog.regclass, pg_catalog.timestamp, pg_catalog.timestamp, pg_catalog.bool),
	streamext.backfill(pg_catalog.regclass, pg_catalog.date, pg_catalog.date, pg_catalog.bool),
	streamext.backfill(pg_catalog.regclass, pg_catalog.int8, pg_catalog.int8, pg_catalog.bool)
FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE
	streamext.backfill(pg_catalog.regclass, pg_catalog.text, pg_catalog.text, pg_catalog.bool),
	streamext.backfill(pg_catalog.regclass, pg_catalog.timestamptz, pg_catalog.timestamptz, pg_catalog.bool),
	streamext.backfill(pg_catalog.regclass, pg_catalog.timestamp, pg_catalog.timestamp, pg_catalog.bool),
	streamext.backfill(pg_catalog.regclass, pg_catalog.date, pg_catalog.date, pg_catalog.bool),
	streamext.backfill(pg_catalog.regclass, pg_catalog.int8, pg_catalog.int8, pg_catalog.bool)
TO PUBLIC;
