-- Sessions: see src/query/session.c.

CREATE FUNCTION streamext.session(ts pg_catalog.timestamptz, gap pg_catalog.interval) RETURNS pg_catalog.tstzrange
	AS 'MODULE_PATHNAME', 'sx_session_timestamptz' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.session(pg_catalog.timestamptz, pg_catalog.interval) IS
'group key of a continuous view: the session that a row at ts belongs to, as the range [first row, last row + gap); a session is a longest run of rows of one group in which each comes less than gap after the one before; days count 24 hours; errors: outside of a continuous view, a gap that is not a constant greater than zero or has months, infinite ts (the row becomes a dead letter)';

CREATE FUNCTION streamext.session(ts pg_catalog.timestamp, gap pg_catalog.interval) RETURNS pg_catalog.tsrange
	AS 'MODULE_PATHNAME', 'sx_session_timestamp' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.session(pg_catalog.timestamp, pg_catalog.interval) IS
'as session(timestamptz, gap), for timestamps without time zone';

CREATE FUNCTION streamext.session(ts pg_catalog.date, gap pg_catalog.interval) RETURNS pg_catalog.daterange
	AS 'MODULE_PATHNAME', 'sx_session_date' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.session(pg_catalog.date, pg_catalog.interval) IS
'as session(timestamptz, gap), for dates; gap: whole days; with a gap of one day each date is a session of its own';

CREATE FUNCTION streamext.session(ts pg_catalog.int8, gap pg_catalog.int8) RETURNS pg_catalog.int8range
	AS 'MODULE_PATHNAME', 'sx_session_bigint' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.session(pg_catalog.int8, pg_catalog.int8) IS
'as session(timestamptz, gap), for times that are numbers, in their unit';
