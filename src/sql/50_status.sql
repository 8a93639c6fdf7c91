-- Status views.  They run as the extension's owner and show what the caller may see: the
-- functions filter by the caller's SELECT privilege, and the rest follows from their rows.

CREATE FUNCTION streamext.view_states(
	OUT view pg_catalog.oid,
	OUT state pg_catalog.text,
	OUT rows_consumed pg_catalog.int8,
	OUT rows_per_second pg_catalog.float8,
	OUT lag_rows pg_catalog.int8,
	OUT lag_bytes pg_catalog.int8,
	OUT lag pg_catalog.interval,
	OUT freshness_p50_ms pg_catalog.float8,
	OUT freshness_p99_ms pg_catalog.float8,
	OUT live_groups pg_catalog.int8,
	OUT live_bytes pg_catalog.int8,
	OUT last_flush pg_catalog.timestamptz,
	OUT last_flush_ms pg_catalog.float8,
	OUT dead_letters pg_catalog.int8,
	OUT last_error pg_catalog.text,
	OUT last_error_at pg_catalog.timestamptz,
	OUT reason pg_catalog.text,
	OUT phase pg_catalog.text,
	OUT watermark pg_catalog.timestamptz,
	OUT watermark_number pg_catalog.int8,
	OUT watermark_held_by pg_catalog.text,
	OUT late_rows pg_catalog.int8,
	OUT dropped_rows pg_catalog.int8,
	OUT open_windows pg_catalog.int8,
	OUT backfill_rows_done pg_catalog.int8,
	OUT backfill_rows_total pg_catalog.int8,
	OUT backfill_percent pg_catalog.float8,
	OUT backfill_rows_per_second pg_catalog.float8,
	OUT backfill_eta pg_catalog.interval,
	OUT backfill_held_transactions pg_catalog.int8)
RETURNS SETOF pg_catalog.record
LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'sx_view_states';
COMMENT ON FUNCTION streamext.view_states() IS
'the workers'' word on each continuous view that the caller may read; behind streamext.status';

CREATE FUNCTION streamext.stream_states(
	OUT stream pg_catalog.oid,
	OUT rows_consumed pg_catalog.int8,
	OUT slot pg_catalog.text,
	OUT retained_wal_bytes pg_catalog.int8,
	OUT watermark pg_catalog.timestamptz,
	OUT watermark_number pg_catalog.int8,
	OUT idle pg_catalog.bool,
	OUT late_rows pg_catalog.int8,
	OUT future_rows pg_catalog.int8,
	OUT valid pg_catalog.text,
	OUT expired_until pg_catalog.timestamptz,
	OUT expired_until_number pg_catalog.int8)
RETURNS SETOF pg_catalog.record
LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'sx_stream_states';
COMMENT ON FUNCTION streamext.stream_states() IS
'the workers'' word on each stream that the caller may read; behind streamext.streams';

REVOKE EXECUTE ON FUNCTION streamext.view_states(), streamext.stream_states() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION streamext.view_states(), streamext.stream_states() TO PUBLIC;

CREATE VIEW streamext.views WITH (security_barrier) AS
SELECT d.view,
	c.relowner::pg_catalog.regrole AS owner,
	d.strategy,
	s.state,
	pg_catalog.pg_get_viewdef(d.query::pg_catalog.oid) AS definition,
	pg_catalog.array_remove(ARRAY[
		'stream=' OPERATOR(pg_catalog.||) d.stream::pg_catalog.text,
		'emit=' OPERATOR(pg_catalog.||) d.emit,
		'flush_interval=' OPERATOR(pg_catalog.||) d.flush_interval::pg_catalog.text,
		'retention=' OPERATOR(pg_catalog.||) d.retention::pg_catalog.text,
		CASE WHEN NOT d.with_data THEN 'with_data=false' END
	], NULL) AS options
FROM streamext.view_states() s
	JOIN streamext.view_def d ON d.view::pg_catalog.oid OPERATOR(pg_catalog.=) s.view
	JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.view
WHERE d.replaces IS NULL;
COMMENT ON VIEW streamext.views IS 'continuous views that the current user may read, one row each';
COMMENT ON COLUMN streamext.views.strategy IS 'append, merge or recompute';
COMMENT ON COLUMN streamext.views.state IS 'backfilling, live, paused or failed';
COMMENT ON COLUMN streamext.views.definition IS 'the query as given';
COMMENT ON COLUMN streamext.views.options IS 'options that are set, as name=value';

CREATE VIEW streamext.status WITH (security_barrier) AS
SELECT s.view::pg_catalog.regclass AS view,
	s.state,
	s.rows_consumed,
	s.rows_per_second,
	s.lag_rows,
	s.lag_bytes,
	s.lag,
	s.freshness_p50_ms,
	s.freshness_p99_ms,
	s.watermark,
	s.watermark_number,
	s.watermark_held_by,
	s.open_windows,
	s.live_groups,
	s.live_bytes,
	s.last_flush,
	s.last_flush_ms,
	s.late_rows,
	s.dropped_rows,
	GREATEST(s.dead_letters,
		(SELECT pg_catalog.count(*) FROM streamext.dead_letter l
		 WHERE l.view OPERATOR(pg_catalog.=) s.view)) AS dead_letters,
	s.last_error,
	s.last_error_at,
	s.reason,
	(SELECT pg_catalog.count(*) FROM streamext.lost_interval i
	 WHERE i.view OPERATOR(pg_catalog.=) s.view) AS lost_intervals
FROM streamext.view_states() s
WHERE NOT EXISTS (SELECT FROM streamext.view_def d
	WHERE d.view::pg_catalog.oid OPERATOR(pg_catalog.=) s.view AND d.replaces IS NOT NULL);
COMMENT ON VIEW streamext.status IS 'what each continuous view that the current user may read is doing';
COMMENT ON COLUMN streamext.status.rows_consumed IS 'rows of the stream read since the view was built';
COMMENT ON COLUMN streamext.status.lag_bytes IS 'bytes of write-ahead log not read yet';
COMMENT ON COLUMN streamext.status.lag IS 'zero when nothing is new; otherwise the time since nothing was left to read, or since the last flush when the view is not live';
COMMENT ON COLUMN streamext.status.rows_per_second IS 'rows of the stream read, over the last second';
COMMENT ON COLUMN streamext.status.lag_rows IS 'rows that are committed and found, but not computed yet; null when the view is not live';
COMMENT ON COLUMN streamext.status.freshness_p50_ms IS 'median time from commit to visible, milliseconds';
COMMENT ON COLUMN streamext.status.freshness_p99_ms IS '99th percentile of the time from commit to visible, milliseconds';
COMMENT ON COLUMN streamext.status.watermark IS 'rows with an earlier event time are not expected any more; null without an event time, before the first row, and for a bigint event time';
COMMENT ON COLUMN streamext.status.watermark_number IS 'the watermark of a bigint event time';
COMMENT ON COLUMN streamext.status.watermark_held_by IS 'what it would take for the watermark to move';
COMMENT ON COLUMN streamext.status.open_windows IS 'windows between the watermark, less allowed_lateness, and the latest row, of the event time as a whole, not per group; at the last flush; 1000 also if there are more; null for sessions, without windows of event time, and before the first flush';
COMMENT ON COLUMN streamext.status.late_rows IS 'rows for windows that were closed when they came, whatever the stream does with them';
COMMENT ON COLUMN streamext.status.dropped_rows IS 'rows that are not in the view because they were late, or older than its retention';
COMMENT ON COLUMN streamext.status.live_groups IS 'groups in live state, not flushed yet';
COMMENT ON COLUMN streamext.status.live_bytes IS 'shared memory of live state, with what is kept for older snapshots';
COMMENT ON COLUMN streamext.status.last_flush_ms IS 'duration of the last flush, milliseconds';
COMMENT ON COLUMN streamext.status.last_error IS 'shown to the owner of the view and pg_read_all_stats';
COMMENT ON COLUMN streamext.status.reason IS 'why the view is not moving; null when it is';
COMMENT ON COLUMN streamext.status.lost_intervals IS 'how often rows may have been removed before the view read them; see streamext.lost_intervals';

CREATE VIEW streamext.streams WITH (security_barrier) AS
SELECT d.stream,
	d.event_time,
	d.watermark_delay,
	d.allowed_lateness,
	d.late_rows AS late_policy,
	d.changes,
	s.valid,
	s.watermark,
	s.watermark_number,
	s.idle,
	s.rows_consumed,
	s.late_rows,
	s.future_rows,
	s.slot,
	s.retained_wal_bytes,
	s.expired_until,
	s.expired_until_number
FROM streamext.stream_states() s
	JOIN streamext.stream_def d ON d.stream::pg_catalog.oid OPERATOR(pg_catalog.=) s.stream;
COMMENT ON VIEW streamext.streams IS 'streams that the current user may read, one row each; columns without a meaning yet are null';
COMMENT ON COLUMN streamext.streams.valid IS 'the condition that rows must meet; those that do not are dead letters; null if there is none';
COMMENT ON COLUMN streamext.streams.rows_consumed IS 'of the view that has read most';
COMMENT ON COLUMN streamext.streams.watermark IS 'the lowest of its views';
COMMENT ON COLUMN streamext.streams.watermark_number IS 'the same for a bigint event time';
COMMENT ON COLUMN streamext.streams.idle IS 'no row has come for idle_timeout: the watermark follows the clock';
COMMENT ON COLUMN streamext.streams.late_rows IS 'of the view that has read most';
COMMENT ON COLUMN streamext.streams.future_rows IS 'rows further ahead of the clock than max_future, or infinite, which do not move the watermark; of the view that has read most';
COMMENT ON COLUMN streamext.streams.slot IS 'replication slot that keeps what is not read yet; one for all streams of the database';
COMMENT ON COLUMN streamext.streams.expired_until IS 'rows with an earlier event time have been removed by streamext.expire; infinity: of another column; null: none have';
COMMENT ON COLUMN streamext.streams.expired_until_number IS 'the same for a bigint event time';
COMMENT ON COLUMN streamext.streams.retained_wal_bytes IS 'bytes of write-ahead log that the slot keeps';

CREATE VIEW streamext.backfill_progress WITH (security_barrier) AS
SELECT COALESCE(d.replaces, s.view::pg_catalog.regclass) AS view,
	CASE WHEN d.replaces IS NULL THEN COALESCE(s.phase, s.state)
		ELSE 'replacement: ' OPERATOR(pg_catalog.||) COALESCE(s.phase, s.reason, 'takes its place') END AS phase,
	COALESCE(s.backfill_rows_done, s.rows_consumed) AS rows_done,
	s.backfill_rows_total AS rows_total,
	s.backfill_percent AS percent,
	s.backfill_rows_per_second AS rows_per_second,
	s.backfill_eta AS eta,
	s.backfill_held_transactions AS held_transactions
FROM streamext.view_states() s
	JOIN streamext.view_def d ON d.view::pg_catalog.oid OPERATOR(pg_catalog.=) s.view
WHERE s.state OPERATOR(pg_catalog.=) 'backfilling' OR s.backfill_percent IS NOT NULL OR d.replaces IS NOT NULL;
COMMENT ON VIEW streamext.backfill_progress IS 'continuous views that are being built, or whose replacement is (REFRESH, streamext.replace_view), one row each; what is not known is null';
COMMENT ON COLUMN streamext.backfill_progress.phase IS 'what is being done, in words; or that it is paused or has failed';
COMMENT ON COLUMN streamext.backfill_progress.rows_done IS 'rows of the stream that were there when the view was created and are read; rows_consumed when there is nothing to be read in chunks';
COMMENT ON COLUMN streamext.backfill_progress.rows_total IS 'an estimate, from the rows in the blocks that are read';
COMMENT ON COLUMN streamext.backfill_progress.percent IS 'of the time that reading the rows and writing the result takes';
COMMENT ON COLUMN streamext.backfill_progress.rows_per_second IS 'since the process that builds the view began';
COMMENT ON COLUMN streamext.backfill_progress.eta IS 'time until the result of all rows that were there when the view was created is written';
COMMENT ON COLUMN streamext.backfill_progress.held_transactions IS 'how many transactions old the horizon is that is held back from VACUUM for this view';

CREATE VIEW streamext.lost_intervals WITH (security_barrier) AS
SELECT i.view::pg_catalog.regclass AS view,
	i.lost_from,
	i.lost_until,
	i."rows",
	i.why,
	i.noticed_at
FROM streamext.view_states() s
	JOIN streamext.lost_interval i ON i.view OPERATOR(pg_catalog.=) s.view;
COMMENT ON VIEW streamext.lost_intervals IS 'when rows of a view''s stream were not protected, so that some may be missing in the view; for views that the current user may read';
COMMENT ON COLUMN streamext.lost_intervals.lost_from IS 'rows committed before count in any case';
COMMENT ON COLUMN streamext.lost_intervals.lost_until IS 'from here on rows were protected again; earlier ones are missing if they were updated or deleted before, and vacuumed';
COMMENT ON COLUMN streamext.lost_intervals."rows" IS 'how many are missing; null if that is not known, and there may be none';

CREATE VIEW streamext.dead_letters WITH (security_barrier) AS
SELECT l.id,
	l.view::pg_catalog.regclass AS view,
	l.stream::pg_catalog.regclass AS stream,
	l."row",
	l.reason,
	l.sqlstate,
	l.message,
	l.at
FROM streamext.dead_letter l
	JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.view
WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE')
	OR pg_catalog.pg_has_role('pg_read_all_data', 'USAGE');
COMMENT ON VIEW streamext.dead_letters IS 'rows that a view could not take, for the owner of the view and pg_read_all_data';
COMMENT ON COLUMN streamext.dead_letters."row" IS 'the row of the stream, null if it could not be written as jsonb';
COMMENT ON COLUMN streamext.dead_letters.reason IS 'error, late or invalid';

GRANT SELECT ON streamext.views, streamext.status, streamext.streams, streamext.backfill_progress,
	streamext.dead_letters, streamext.lost_intervals TO PUBLIC;
