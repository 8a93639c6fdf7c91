-- Sinks: see src/time/sink.c.

CREATE FUNCTION streamext.create_sink(view pg_catalog.regclass, target pg_catalog.regclass,
	corrections pg_catalog.bool DEFAULT false, existing pg_catalog.bool DEFAULT false)
	RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'sx_create_sink' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION streamext.create_sink(pg_catalog.regclass, pg_catalog.regclass, pg_catalog.bool, pg_catalog.bool) IS
'appends each window of a continuous view to a table when it has closed, once, in the transaction that flushes it; columns are matched by name; corrections: a closed window that late rows change is appended again; existing: windows that are closed already are appended with the next flush; takes the view''s owner, who needs INSERT on the table; errors: a view without windows of event time, a target that lacks a column or feeds the view';

CREATE FUNCTION streamext.drop_sink(view pg_catalog.regclass, target pg_catalog.regclass)
	RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'sx_drop_sink' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION streamext.drop_sink(pg_catalog.regclass, pg_catalog.regclass) IS
'closed windows of the view are no longer appended to the table; what is there stays; takes the view''s owner';

REVOKE EXECUTE ON FUNCTION
	streamext.create_sink(pg_catalog.regclass, pg_catalog.regclass, pg_catalog.bool, pg_catalog.bool),
	streamext.drop_sink(pg_catalog.regclass, pg_catalog.regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
	streamext.create_sink(pg_catalog.regclass, pg_catalog.regclass, pg_catalog.bool, pg_catalog.bool),
	streamext.drop_sink(pg_catalog.regclass, pg_catalog.regclass) TO PUBLIC;

CREATE VIEW streamext.sinks WITH (security_barrier) AS
SELECT k.view,
	k.target,
	k.corrections,
	k."rows" AS rows_appended
FROM streamext.view_states() s
	JOIN streamext.sink k ON k.view::pg_catalog.oid OPERATOR(pg_catalog.=) s.view;
COMMENT ON VIEW streamext.sinks IS 'tables that closed windows are appended to, for continuous views that the current user may read';
COMMENT ON COLUMN streamext.sinks.corrections IS 'a closed window that late rows change is appended again';
COMMENT ON COLUMN streamext.sinks.rows_appended IS 'since the sink was created';
REVOKE ALL ON streamext.sinks FROM PUBLIC;
GRANT SELECT ON streamext.sinks TO PUBLIC;
