-- Functions that define, control and check streams and views.  Nobody may execute a function of
-- ours unless granted here; what a caller may do to which view is checked inside.

CREATE FUNCTION streamext.create_stream(
	stream pg_catalog.regclass,
	event_time pg_catalog.name DEFAULT NULL,
	watermark_delay pg_catalog.interval DEFAULT '0',
	allowed_lateness pg_catalog.interval DEFAULT '0',
	late_rows pg_catalog.text DEFAULT 'merge',
	idle_timeout pg_catalog.interval DEFAULT NULL,
	max_future pg_catalog.interval DEFAULT '5 minutes',
	changes pg_catalog.text DEFAULT 'inserts',
	valid pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_create_stream';
COMMENT ON FUNCTION streamext.create_stream(pg_catalog.regclass, pg_catalog.name, pg_catalog.interval,
	pg_catalog.interval, pg_catalog.text, pg_catalog.interval, pg_catalog.interval, pg_catalog.text, pg_catalog.text) IS
'declares a table as a stream. event_time: a NOT NULL column of type timestamptz, timestamp, date or bigint (null: arrival order only); watermark_delay: how far out of order rows arrive; allowed_lateness: extra wait after the end of a window; late_rows: merge, drop or dead_letter; idle_timeout: follow the clock after this silence (null: never); max_future: rows further ahead do not move the watermark (null: no limit); changes: inserts; valid: a condition on the columns of the table, as in CHECK: rows for which it is false become dead letters and are not counted, null passes; it is evaluated as the owner of the table, under the settings of this call. Takes the owner of the table. Errors: not an ordinary logged table, no SELECT privilege, event time missing, nullable or of another type, negative interval, unknown value, a condition that is not boolean or has sub-selects, aggregates, sets, or functions that are volatile or depend on more than their arguments and settings, already declared';

CREATE FUNCTION streamext.alter_stream(
	stream pg_catalog.regclass,
	event_time pg_catalog.name DEFAULT NULL,
	watermark_delay pg_catalog.interval DEFAULT NULL,
	allowed_lateness pg_catalog.interval DEFAULT NULL,
	late_rows pg_catalog.text DEFAULT NULL,
	idle_timeout pg_catalog.interval DEFAULT NULL,
	max_future pg_catalog.interval DEFAULT NULL,
	changes pg_catalog.text DEFAULT NULL,
	valid pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_alter_stream';
COMMENT ON FUNCTION streamext.alter_stream(pg_catalog.regclass, pg_catalog.name, pg_catalog.interval,
	pg_catalog.interval, pg_catalog.text, pg_catalog.interval, pg_catalog.interval, pg_catalog.text, pg_catalog.text) IS
'changes the arguments that are given and not null; see streamext.create_stream. valid: concerns rows read from now on; an empty string takes the condition away. Takes the owner of the table. Errors: not a stream, another event time while views use the stream, and those of create_stream';

CREATE FUNCTION streamext.drop_stream(stream pg_catalog.regclass)
RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_drop_stream';
COMMENT ON FUNCTION streamext.drop_stream(pg_catalog.regclass) IS
'takes the declaration of a stream back; the table stays as it is. Takes the owner of the table. Errors: not a stream, a continuous view uses it';

CREATE FUNCTION streamext.create_view(
	name pg_catalog.text,
	query pg_catalog.text,
	with_data pg_catalog.bool DEFAULT true,
	emit pg_catalog.text DEFAULT NULL,
	flush_interval pg_catalog.text DEFAULT NULL,
	stream pg_catalog.regclass DEFAULT NULL)
RETURNS pg_catalog.regclass
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_create_view';
COMMENT ON FUNCTION streamext.create_view(pg_catalog.text, pg_catalog.text, pg_catalog.bool,
	pg_catalog.text, pg_catalog.text, pg_catalog.regclass) IS
'the same as CREATE MATERIALIZED VIEW name WITH (streamext.continuous, ...) AS query. name: may be qualified, is written as in SQL; query: one SELECT; with_data: false for new rows only; emit: changes or on_close; flush_interval: such as 1s; stream: which table of the query is the stream. Result: the view. Errors: those of the statement';

CREATE FUNCTION streamext.pause(view pg_catalog.regclass)
RETURNS pg_catalog.void
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_pause';
COMMENT ON FUNCTION streamext.pause(pg_catalog.regclass) IS
'stops a continuous view when the transaction commits, without losing a row: what comes meanwhile is read after streamext.resume. Takes the owner of the view';

CREATE FUNCTION streamext.resume(view pg_catalog.regclass)
RETURNS pg_catalog.void
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_resume';
COMMENT ON FUNCTION streamext.resume(pg_catalog.regclass) IS
'continues a paused view where it stopped. One that is stopped because a file of its stream was replaced by an unknown command goes on with what is committed from now on: rows between are left out, and noted in streamext.lost_intervals. Takes the owner of the view';

CREATE FUNCTION streamext.flush(view pg_catalog.regclass DEFAULT NULL)
RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_flush';
COMMENT ON FUNCTION streamext.flush(pg_catalog.regclass) IS
'writes everything committed before the call to the materialized table of the view (null: of all views that the caller may read), and returns when that is done. Error: not done within streamext.wait_timeout';

CREATE FUNCTION streamext.wait_for(view pg_catalog.regclass DEFAULT NULL,
	timeout pg_catalog.interval DEFAULT '30s')
RETURNS pg_catalog.bool
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_wait_for';
COMMENT ON FUNCTION streamext.wait_for(pg_catalog.regclass, pg_catalog.interval) IS
'waits until everything committed before the call is visible in the view (null: in all views that the caller may read). timeout: an interval (null: streamext.wait_timeout). Result: true, or false when the time is over';

CREATE FUNCTION streamext.verify(view pg_catalog.regclass)
RETURNS TABLE (source pg_catalog.text, "row" pg_catalog.jsonb)
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_verify';
COMMENT ON FUNCTION streamext.verify(pg_catalog.regclass) IS
'compares a continuous view with its query run on the raw rows at the same position. Result: the rows that differ; source is view (not in the result of the query) or query (not in the view). Floats are compared within a tolerance. Raw rows that were updated, deleted or rejected differ, except those that fail the condition of the stream, which do not count on either side. Errors: the view does not catch up within streamext.wait_timeout, or was created WITH NO DATA';

REVOKE EXECUTE ON FUNCTION
	streamext.create_stream(pg_catalog.regclass, pg_catalog.name, pg_catalog.interval,
		pg_catalog.interval, pg_catalog.text, pg_catalog.interval, pg_catalog.interval, pg_catalog.text, pg_catalog.text),
	streamext.alter_stream(pg_catalog.regclass, pg_catalog.name, pg_catalog.interval,
		pg_catalog.interval, pg_catalog.text, pg_catalog.interval, pg_catalog.interval, pg_catalog.text, pg_catalog.text),
	streamext.drop_stream(pg_catalog.regclass),
	streamext.create_view(pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.text,
		pg_catalog.text, pg_catalog.regclass),
	streamext.pause(pg_catalog.regclass),
	streamext.resume(pg_catalog.regclass),
	streamext.flush(pg_catalog.regclass),
	streamext.wait_for(pg_catalog.regclass, pg_catalog.interval),
	streamext.verify(pg_catalog.regclass)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
	streamext.create_stream(pg_catalog.regclass, pg_catalog.name, pg_catalog.interval,
		pg_catalog.interval, pg_catalog.text, pg_catalog.interval, pg_catalog.interval, pg_catalog.text, pg_catalog.text),
	streamext.alter_stream(pg_catalog.regclass, pg_catalog.name, pg_catalog.interval,
		pg_catalog.interval, pg_catalog.text, pg_catalog.interval, pg_catalog.interval, pg_catalog.text, pg_catalog.text),
	streamext.drop_stream(pg_catalog.regclass),
	streamext.create_view(pg_catalog.text, pg_catalog.text, pg_catalog.bool, pg_catalog.text,
		pg_catalog.text, pg_catalog.regclass),
	streamext.pause(pg_catalog.regclass),
	streamext.resume(pg_catalog.regclass),
	streamext.flush(pg_catalog.regclass),
	streamext.wait_for(pg_catalog.regclass, pg_catalog.interval),
	streamext.verify(pg_catalog.regclass)
TO PUBLIC;
