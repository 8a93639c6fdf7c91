-- Windows that overlap: see src/query/window_sets.c.

CREATE FUNCTION streamext.window_set_rows(pg_catalog.internal) RETURNS pg_catalog.internal
	AS 'MODULE_PATHNAME', 'sx_window_set_rows' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
REVOKE EXECUTE ON FUNCTION streamext.window_set_rows(pg_catalog.internal) FROM PUBLIC;
COMMENT ON FUNCTION streamext.window_set_rows(pg_catalog.internal) IS
'planner support for hop() and cumulate(): how many windows a row has';

CREATE FUNCTION streamext.hop(ts pg_catalog.timestamptz, slide pg_catalog.interval, size pg_catalog.interval)
	RETURNS SETOF pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_hop_timestamptz' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.hop(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.interval) IS
'starts of the windows [start, start + size) that hold ts, one after every slide, from the earliest on: size / slide rows; days count 24 hours; the grid of slides is aligned to Monday, 2000-01-03 00:00 UTC; infinite ts is returned as it is; errors: a size that is not a multiple of the slide, a size or slide of zero or less, months (name a time zone)';

CREATE FUNCTION streamext.hop(ts pg_catalog.timestamptz, slide pg_catalog.interval, size pg_catalog.interval, origin pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_hop_timestamptz_origin' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.hop(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.interval, pg_catalog.timestamptz) IS
'as hop(ts, slide, size), with the grid of slides aligned to origin';

CREATE FUNCTION streamext.hop(ts pg_catalog.timestamptz, slide pg_catalog.interval, size pg_catalog.interval, timezone pg_catalog.text)
	RETURNS SETOF pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_hop_timestamptz_zone' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.hop(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.interval, pg_catalog.text) IS
'as hop(ts, slide, size), by the calendar of a time zone (a name of pg_timezone_names): size and slide in months, or in days, or in hours and less; errors: a size that is not a multiple of the slide, a size or slide of zero or less, an unknown time zone';

CREATE FUNCTION streamext.hop(ts pg_catalog.timestamp, slide pg_catalog.interval, size pg_catalog.interval)
	RETURNS SETOF pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'sx_hop_timestamp' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.hop(pg_catalog.timestamp, pg_catalog.interval, pg_catalog.interval) IS
'starts of the windows [start, start + size) that hold ts, one after every slide, from the earliest on: size / slide rows; size and slide: months, or days and time; the grid is aligned to Monday, 2000-01-03, that of months to 2000-01-01; infinite ts is returned as it is; errors: a size that is not a multiple of the slide, a size or slide of zero or less';

CREATE FUNCTION streamext.hop(ts pg_catalog.timestamp, slide pg_catalog.interval, size pg_catalog.interval, origin pg_catalog.timestamp)
	RETURNS SETOF pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'sx_hop_timestamp_origin' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.hop(pg_catalog.timestamp, pg_catalog.interval, pg_catalog.interval, pg_catalog.timestamp) IS
'as hop(ts, slide, size), with the grid of slides aligned to origin';

CREATE FUNCTION streamext.hop(ts pg_catalog.date, slide pg_catalog.interval, size pg_catalog.interval)
	RETURNS SETOF pg_catalog.date
	AS 'MODULE_PATHNAME', 'sx_hop_date' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.hop(pg_catalog.date, pg_catalog.interval, pg_catalog.interval) IS
'starts of the windows [start, start + size) that hold ts, one after every slide, from the earliest on: size / slide rows; size and slide: whole days or months; errors: a size that is not a multiple of the slide, a size or slide of zero or less';

CREATE FUNCTION streamext.hop(ts pg_catalog.date, slide pg_catalog.interval, size pg_catalog.interval, origin pg_catalog.date)
	RETURNS SETOF pg_catalog.date
	AS 'MODULE_PATHNAME', 'sx_hop_date_origin' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.hop(pg_catalog.date, pg_catalog.interval, pg_catalog.interval, pg_catalog.date) IS
'as hop(ts, slide, size), with the grid of slides aligned to origin';

CREATE FUNCTION streamext.hop(ts pg_catalog.int8, slide pg_catalog.int8, size pg_catalog.int8)
	RETURNS SETOF pg_catalog.int8
	AS 'MODULE_PATHNAME', 'sx_hop_bigint' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.hop(pg_catalog.int8, pg_catalog.int8, pg_catalog.int8) IS
'starts of the windows [start, start + size) that hold ts, one after every slide, from the earliest on: size / slide rows; size and slide in the unit of the number; the grid of slides is aligned to zero; errors: a size that is not a multiple of the slide, a size or slide of zero or less';

CREATE FUNCTION streamext.hop(ts pg_catalog.int8, slide pg_catalog.int8, size pg_catalog.int8, origin pg_catalog.int8)
	RETURNS SETOF pg_catalog.int8
	AS 'MODULE_PATHNAME', 'sx_hop_bigint_origin' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.hop(pg_catalog.int8, pg_catalog.int8, pg_catalog.int8, pg_catalog.int8) IS
'as hop(ts, slide, size), with the grid of slides aligned to origin';

CREATE FUNCTION streamext.cumulate(ts pg_catalog.timestamptz, step pg_catalog.interval, size pg_catalog.interval)
	RETURNS SETOF pg_catalog.tstzrange
	AS 'MODULE_PATHNAME', 'sx_cumulate_timestamptz' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.cumulate(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.interval) IS
'windows [start, start + n steps) that hold ts, for every n up to the size, the shortest first; start is that of tumble(ts, size); days count 24 hours; infinite ts: one range of it alone; errors: a size that is not a multiple of the step, a size or step of zero or less, months (name a time zone)';

CREATE FUNCTION streamext.cumulate(ts pg_catalog.timestamptz, step pg_catalog.interval, size pg_catalog.interval, timezone pg_catalog.text)
	RETURNS SETOF pg_catalog.tstzrange
	AS 'MODULE_PATHNAME', 'sx_cumulate_timestamptz_zone' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.cumulate(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.interval, pg_catalog.text) IS
'as cumulate(ts, step, size), by the calendar of a time zone (a name of pg_timezone_names); sizes of days and months may have any step, the last of which ends with the window; errors: a size that is not a multiple of the step, a size or step of zero or less, an unknown time zone';

CREATE FUNCTION streamext.cumulate(ts pg_catalog.timestamp, step pg_catalog.interval, size pg_catalog.interval)
	RETURNS SETOF pg_catalog.tsrange
	AS 'MODULE_PATHNAME', 'sx_cumulate_timestamp' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.cumulate(pg_catalog.timestamp, pg_catalog.interval, pg_catalog.interval) IS
'windows [start, start + n steps) that hold ts, for every n up to the size, the shortest first; start is that of tumble(ts, size); a size of months may have any step, the last of which ends with the month; infinite ts: one range of it alone; errors: a size that is not a multiple of the step, a size or step of zero or less';

CREATE FUNCTION streamext.cumulate(ts pg_catalog.date, step pg_catalog.interval, size pg_catalog.interval)
	RETURNS SETOF pg_catalog.daterange
	AS 'MODULE_PATHNAME', 'sx_cumulate_date' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.cumulate(pg_catalog.date, pg_catalog.interval, pg_catalog.interval) IS
'windows [start, start + n steps) that hold ts, for every n up to the size, the shortest first; start is that of tumble(ts, size); size and step: whole days or months; a size of months may have a step of days; errors: a size that is not a multiple of the step, a size or step of zero or less';

CREATE FUNCTION streamext.cumulate(ts pg_catalog.int8, step pg_catalog.int8, size pg_catalog.int8)
	RETURNS SETOF pg_catalog.int8range
	AS 'MODULE_PATHNAME', 'sx_cumulate_bigint' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
	SUPPORT streamext.window_set_rows;
COMMENT ON FUNCTION streamext.cumulate(pg_catalog.int8, pg_catalog.int8, pg_catalog.int8) IS
'windows [start, start + n steps) that hold ts, for every n up to the size, the shortest first; start is that of tumble(ts, size); size and step in the unit of the number; errors: a size that is not a multiple of the step, a size or step of zero or less';

-- Called by the plans of continuous views: what they keep of rows that are in the same windows.
CREATE FUNCTION streamext.hop_pane(ts pg_catalog.timestamptz, slide pg_catalog.interval, size pg_catalog.interval) RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_hop_pane' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.hop_pane(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.interval) IS
'start of the last of the windows that hop() with the same arguments returns; all rows until the next slide are in the same windows; errors as hop()';
CREATE FUNCTION streamext.hop_pane(ts pg_catalog.timestamptz, slide pg_catalog.interval, size pg_catalog.interval, origin pg_catalog.timestamptz) RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_hop_pane' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.hop_pane(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.interval, pg_catalog.timestamptz) IS
'start of the last of the windows that hop() with the same arguments returns; all rows until the next slide are in the same windows; errors as hop()';
CREATE FUNCTION streamext.hop_pane(ts pg_catalog.timestamptz, slide pg_catalog.interval, size pg_catalog.interval, timezone pg_catalog.text) RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'sx_hop_pane' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.hop_pane(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.interval, pg_catalog.text) IS
'start of the last of the windows that hop() with the same arguments returns; all rows until the next slide are in the same windows; errors as hop()';
CREATE FUNCTION streamext.hop_pane(ts pg_catalog.timestamp, slide pg_catalog.interval, size pg_catalog.interval) RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'sx_hop_pane' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.hop_pane(pg_catalog.timestamp, pg_catalog.interval, pg_catalog.interval) IS
'start of the last of the windows that hop() with the same arguments returns; all rows until the next slide are in the same windows; errors as hop()';
CREATE FUNCTION streamext.hop_pane(ts pg_catalog.timestamp, slide pg_catalog.interval, size pg_catalog.interval, origin pg_catalog.timestamp) RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'sx_hop_pane' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.hop_pane(pg_catalog.timestamp, pg_catalog.interval, pg_catalog.interval, pg_catalog.timestamp) IS
'start of the last of the windows that hop() with the same arguments returns; all rows until the next slide are in the same windows; errors as hop()';
CREATE FUNCTION streamext.hop_pane(ts pg_catalog.date, slide pg_catalog.interval, size pg_catalog.interval) RETURNS pg_catalog.date
	AS 'MODULE_PATHNAME', 'sx_hop_pane' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.hop_pane(pg_catalog.date, pg_catalog.interval, pg_catalog.interval) IS
'start of the last of the windows that hop() with the same arguments returns; all rows until the next slide are in the same windows; errors as hop()';
CREATE FUNCTION streamext.hop_pane(ts pg_catalog.date, slide pg_catalog.interval, size pg_catalog.interval, origin pg_catalog.date) RETURNS pg_catalog.date
	AS 'MODULE_PATHNAME', 'sx_hop_pane' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.hop_pane(pg_catalog.date, pg_catalog.interval, pg_catalog.interval, pg_catalog.date) IS
'start of the last of the windows that hop() with the same arguments returns; all rows until the next slide are in the same windows; errors as hop()';
CREATE FUNCTION streamext.hop_pane(ts pg_catalog.int8, slide pg_catalog.int8, size pg_catalog.int8) RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'sx_hop_pane' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.hop_pane(pg_catalog.int8, pg_catalog.int8, pg_catalog.int8) IS
'start of the last of the windows that hop() with the same arguments returns; all rows until the next slide are in the same windows; errors as hop()';
CREATE FUNCTION streamext.hop_pane(ts pg_catalog.int8, slide pg_catalog.int8, size pg_catalog.int8, origin pg_catalog.int8) RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'sx_hop_pane' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION streamext.hop_pane(pg_catalog.int8, pg_catalog.int8, pg_catalog.int8, pg_catalog.int8) IS
'start of the last of the windows that hop() with the same arguments returns; all rows until the next slide are in the same windows; errors as hop()';
