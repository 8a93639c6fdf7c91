-- Windows as ordinary functions: see src/query/window.c.  A text after the size is a time
-- zone; an origin is named (origin => ...) or typed (timestamptz '...').

CREATE FUNCTION streamext.tumble(ts pg_catalog.timestamptz, size pg_catalog.interval)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_tumble_timestamptz' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.tumble(pg_catalog.timestamptz, pg_catalog.interval) IS
'start of the window [start, start + size) that holds ts; size: greater than zero, days count 24 hours; windows are aligned to Monday, 2000-01-03 00:00 UTC; infinite ts is returned as it is; errors: a size of months (name a time zone), a size of zero or less, a window out of range';

CREATE FUNCTION streamext.tumble(ts pg_catalog.timestamptz, size pg_catalog.interval, origin pg_catalog.timestamptz)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_tumble_timestamptz_origin' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.tumble(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.timestamptz) IS
'as tumble(ts, size), with windows aligned to origin, a finite instant before or after ts';

CREATE FUNCTION streamext.tumble(ts pg_catalog.timestamptz, size pg_catalog.interval, timezone pg_catalog.text)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_tumble_timestamptz_zone' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.tumble(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.text) IS
'start of the window that holds ts, by the calendar of a time zone (a name of pg_timezone_names); size: months, or days, or hours and less; days and months follow the clock across its changes, hours and less are of fixed length; windows are aligned to local midnight of Monday, 2000-01-03, those of months to 2000-01-01; errors: an unknown time zone, a mixed size, a size of zero or less';

CREATE FUNCTION streamext.tumble(ts pg_catalog.timestamptz, size pg_catalog.interval, origin pg_catalog.timestamptz, timezone pg_catalog.text)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_tumble_timestamptz_origin_zone' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.tumble(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.timestamptz, pg_catalog.text) IS
'as tumble(ts, size, timezone), with windows aligned to the local time of origin, for sizes of months on day 1 to 28';

CREATE FUNCTION streamext.tumble(ts pg_catalog.timestamp, size pg_catalog.interval)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'sx_tumble_timestamp' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.tumble(pg_catalog.timestamp, pg_catalog.interval) IS
'start of the window [start, start + size) that holds ts; size: greater than zero, months, or days and time; windows are aligned to Monday, 2000-01-03, those of months to 2000-01-01; infinite ts is returned as it is; errors: a size of months with days or time, a size of zero or less, a window out of range';

CREATE FUNCTION streamext.tumble(ts pg_catalog.timestamp, size pg_catalog.interval, origin pg_catalog.timestamp)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'sx_tumble_timestamp_origin' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.tumble(pg_catalog.timestamp, pg_catalog.interval, pg_catalog.timestamp) IS
'as tumble(ts, size), with windows aligned to origin, for sizes of months on day 1 to 28';

CREATE FUNCTION streamext.tumble(ts pg_catalog.date, size pg_catalog.interval)
	RETURNS pg_catalog.date
	AS 'MODULE_PATHNAME', 'sx_tumble_date' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.tumble(pg_catalog.date, pg_catalog.interval) IS
'first day of the window that holds the date; size: whole days or months, greater than zero; windows are aligned to Monday, 2000-01-03, those of months to 2000-01-01; errors: a size with parts of a day, a size of zero or less';

CREATE FUNCTION streamext.tumble(ts pg_catalog.date, size pg_catalog.interval, origin pg_catalog.date)
	RETURNS pg_catalog.date
	AS 'MODULE_PATHNAME', 'sx_tumble_date_origin' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.tumble(pg_catalog.date, pg_catalog.interval, pg_catalog.date) IS
'as tumble(ts, size), with windows aligned to origin, for sizes of months on day 1 to 28';

CREATE FUNCTION streamext.tumble(ts pg_catalog.int8, size pg_catalog.int8)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'sx_tumble_bigint' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.tumble(pg_catalog.int8, pg_catalog.int8) IS
'start of the window [start, start + size) that holds the number; size: greater than zero, in the unit of the number; windows are aligned to zero; errors: a size of zero or less, a window out of range';

CREATE FUNCTION streamext.tumble(ts pg_catalog.int8, size pg_catalog.int8, origin pg_catalog.int8)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'sx_tumble_bigint_origin' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.tumble(pg_catalog.int8, pg_catalog.int8, pg_catalog.int8) IS
'as tumble(ts, size), with windows aligned to origin';

CREATE FUNCTION streamext.window_end(start pg_catalog.timestamptz, size pg_catalog.interval)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_window_end_timestamptz' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.window_end(pg_catalog.timestamptz, pg_catalog.interval) IS
'end of the window that starts at start, as tumble(ts, size) returns it; the end does not belong to the window; errors: a size of months (name a time zone), a size of zero or less';

CREATE FUNCTION streamext.window_end(start pg_catalog.timestamptz, size pg_catalog.interval, timezone pg_catalog.text)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_window_end_timestamptz_zone' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.window_end(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.text) IS
'end of the window that starts at start, as tumble(ts, size, timezone) returns it; errors: an unknown time zone, a size of zero or less';

CREATE FUNCTION streamext.window_end(start pg_catalog.timestamp, size pg_catalog.interval)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'sx_window_end_timestamp' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.window_end(pg_catalog.timestamp, pg_catalog.interval) IS
'end of the window that starts at start; the end does not belong to the window; errors: a size of zero or less';

CREATE FUNCTION streamext.window_end(start pg_catalog.date, size pg_catalog.interval)
	RETURNS pg_catalog.date
	AS 'MODULE_PATHNAME', 'sx_window_end_date' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.window_end(pg_catalog.date, pg_catalog.interval) IS
'first day after the window that starts at start; size: whole days or months; errors: a size with parts of a day, a size of zero or less';

CREATE FUNCTION streamext.window_end(start pg_catalog.int8, size pg_catalog.int8)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'sx_window_end_bigint' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.window_end(pg_catalog.int8, pg_catalog.int8) IS
'end of the window that starts at start; the end does not belong to the window; errors: a size of zero or less';
