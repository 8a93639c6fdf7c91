-- Event time: see src/time.

CREATE FUNCTION streamext.is_final(view pg_catalog.regclass, window_start pg_catalog.anyelement)
	RETURNS pg_catalog.bool
	AS 'MODULE_PATHNAME', 'sx_is_final' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION streamext.is_final(pg_catalog.regclass, pg_catalog.anyelement) IS
'whether a window of a continuous view has closed: the watermark has reached its end, and allowed_lateness is over; window_start: the view''s column that is the window; as of the last flush that the statement sees, so that it stays so, also over a crash; errors: a view without windows of event time';

CREATE FUNCTION streamext.pane_boundary(view pg_catalog.regclass, window_start pg_catalog.anyelement)
	RETURNS pg_catalog.anyelement
	AS 'MODULE_PATHNAME', 'sx_pane_boundary' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION streamext.pane_boundary(pg_catalog.regclass, pg_catalog.anyelement) IS
'of a continuous view with overlapping windows: the first window that the same statement puts together from panes, earlier ones have rows of their own; window_start: only its type counts; called by the view itself';

CREATE FUNCTION streamext.watermark(stream pg_catalog.regclass)
	RETURNS pg_catalog.timestamptz
	AS $$ SELECT s.watermark FROM streamext.streams s WHERE s.stream OPERATOR(pg_catalog.=) $1 $$
	LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION streamext.watermark(pg_catalog.regclass) IS
'the event time before which no more rows are expected in a stream: the lowest watermark of its continuous views; null if it has no event time, no view or no row yet, or if its event time is a bigint (see streamext.streams)';

REVOKE EXECUTE ON FUNCTION streamext.is_final(pg_catalog.regclass, pg_catalog.anyelement),
	streamext.pane_boundary(pg_catalog.regclass, pg_catalog.anyelement),
	streamext.watermark(pg_catalog.regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION streamext.is_final(pg_catalog.regclass, pg_catalog.anyelement),
	streamext.pane_boundary(pg_catalog.regclass, pg_catalog.anyelement),
	streamext.watermark(pg_catalog.regclass) TO PUBLIC;
