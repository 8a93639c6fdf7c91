-- Catalog tables: written only by the functions of the extension (src/catalog/definitions.c),
-- which read them by column number.

CREATE TABLE streamext.stream_def
(
	stream pg_catalog.regclass NOT NULL,
	event_time pg_catalog.name,
	watermark_delay pg_catalog.interval NOT NULL,
	allowed_lateness pg_catalog.interval NOT NULL,
	late_rows pg_catalog.text NOT NULL,
	idle_timeout pg_catalog.interval,
	max_future pg_catalog.interval,
	changes pg_catalog.text NOT NULL,
	declared pg_catalog.bool NOT NULL,
	valid pg_catalog.regclass,
	valid_settings pg_catalog.text[],
	valid_by pg_catalog.xid8,
	expired_until pg_catalog.int8,
	CONSTRAINT stream_def_pkey PRIMARY KEY (stream)
);
COMMENT ON TABLE streamext.stream_def IS 'streams; see view streamext.streams';
COMMENT ON COLUMN streamext.stream_def.valid IS
'an internal view whose WHERE is the condition that rows must meet';
COMMENT ON COLUMN streamext.stream_def.valid_settings IS
'as view_def.settings: under which the condition is evaluated';
COMMENT ON COLUMN streamext.stream_def.valid_by IS
'the transaction that changed the condition last: views whose history is older have rows that were judged otherwise';
COMMENT ON COLUMN streamext.stream_def.expired_until IS
'rows with an earlier event time may be gone, by streamext.expire: as view_position.watermark; null: none are';

CREATE TABLE streamext.view_def
(
	view pg_catalog.regclass NOT NULL,
	query pg_catalog.regclass NOT NULL,
	mat pg_catalog.regclass NOT NULL,
	stream pg_catalog.regclass NOT NULL,
	strategy pg_catalog.text NOT NULL,
	nkeys pg_catalog.int4 NOT NULL,
	with_data pg_catalog.bool NOT NULL,
	paused pg_catalog.bool NOT NULL,
	emit pg_catalog.text NOT NULL,
	flush_interval pg_catalog.interval,
	retention pg_catalog.interval,
	settings pg_catalog.text[] NOT NULL,
	panes pg_catalog.bool NOT NULL,
	replaces pg_catalog.regclass,
	CONSTRAINT view_def_pkey PRIMARY KEY (view),
	CONSTRAINT view_def_query_key UNIQUE (query),
	CONSTRAINT view_def_mat_key UNIQUE (mat)
);
COMMENT ON TABLE streamext.view_def IS 'continuous views; see view streamext.views';
COMMENT ON COLUMN streamext.view_def.panes IS
'the query groups by hop(), and the materialized table has states of panes, and rows of windows that have closed; its last key tells them apart';

COMMENT ON COLUMN streamext.view_def.replaces IS
'this view is built to take the place of that one, and hidden until then';

CREATE SEQUENCE streamext.view_id_seq AS pg_catalog.int8;
COMMENT ON SEQUENCE streamext.view_id_seq IS 'numbers the internal relations of continuous views';

-- Positions mean something only in the cluster and database that wrote them: not dumped.
CREATE TABLE streamext.view_position
(
	view pg_catalog.oid NOT NULL,
	position pg_catalog.pg_snapshot NOT NULL,
	start_lsn pg_catalog.pg_lsn NOT NULL,
	timeline pg_catalog.int4 NOT NULL,
	seq pg_catalog.int8 NOT NULL,
	file_rels pg_catalog.oid[] NOT NULL,
	file_nodes pg_catalog.oid[] NOT NULL,
	rows_consumed pg_catalog.int8 NOT NULL,
	database pg_catalog.oid NOT NULL,
	writer pg_catalog.xid8 NOT NULL,
	stored_at pg_catalog.timestamptz NOT NULL,
	wal_only pg_catalog.bool NOT NULL,
	complete_at pg_catalog.timestamptz NOT NULL,
	scan_position pg_catalog.pg_snapshot,
	scan_at pg_catalog.timestamptz,
	scan_rels pg_catalog.oid[],
	scan_nodes pg_catalog.oid[],
	scan_file pg_catalog.int4,
	scan_block pg_catalog.int8,
	scan_blocks pg_catalog.int8[],
	scan_rows pg_catalog.int8,
	scan_time_attno pg_catalog.int2,
	scan_latest pg_catalog.int8,
	open_rows pg_catalog.bytea,
	built_by pg_catalog.xid8 NOT NULL,
	watermark pg_catalog.int8 NOT NULL,
	late_rows pg_catalog.int8 NOT NULL,
	dropped_rows pg_catalog.int8 NOT NULL,
	future_rows pg_catalog.int8 NOT NULL,
	removed_until pg_catalog.int8 NOT NULL,
	closed_until pg_catalog.int8 NOT NULL,
	CONSTRAINT view_position_pkey PRIMARY KEY (view)
) WITH (fillfactor = 50);
COMMENT ON TABLE streamext.view_position IS
'the set of transactions whose rows the materialized table of a view contains, and where to read on';
COMMENT ON COLUMN streamext.view_position.wal_only IS
'the position does not list all sub-transactions that ran: a full scan of the stream would not be exact';
COMMENT ON COLUMN streamext.view_position.complete_at IS
'every transaction that ended before is in the position';
COMMENT ON COLUMN streamext.view_position.scan_position IS
'a scan of the stream is under way: the rows of its transactions that the position does not contain are in the table already, up to scan_block of file number scan_file';
COMMENT ON COLUMN streamext.view_position.scan_blocks IS
'the scan is of history: sizes of the files; the table has what is in the files before number scan_file, and in that from scan_block on';
COMMENT ON COLUMN streamext.view_position.scan_rows IS 'rows of history found so far';
COMMENT ON COLUMN streamext.view_position.scan_time_attno IS 'number of the column of which scan_latest is the highest value; 0: none';
COMMENT ON COLUMN streamext.view_position.scan_latest IS 'as watermark, of the rows of history found so far';

COMMENT ON COLUMN streamext.view_position.built_by IS
'the transaction that wrote the view''s history: a partition that left the stream before that was never counted; 3 for a view WITH NO DATA, to which nothing is new that the stream has had';
COMMENT ON COLUMN streamext.view_position.watermark IS
'of the stream at this position: microseconds since 2000-01-01, or a bigint event time; the lowest bigint: none';
COMMENT ON COLUMN streamext.view_position.removed_until IS
'windows that were closed by then are past the view''s retention; as watermark';
COMMENT ON COLUMN streamext.view_position.closed_until IS
'of a view that keeps panes: windows that were closed by then have rows of their own; as watermark';
COMMENT ON COLUMN streamext.view_position.open_rows IS
'where rows of transactions lie that were open when the position was stored, so that no WAL is kept for them';

-- Rows that were removed before a view had read them.
CREATE TABLE streamext.lost_interval
(
	view pg_catalog.oid NOT NULL,
	lost_from pg_catalog.timestamptz NOT NULL,
	lost_until pg_catalog.timestamptz NOT NULL,
	"rows" pg_catalog.int8,
	why pg_catalog.text NOT NULL,
	noticed_at pg_catalog.timestamptz NOT NULL
);
CREATE INDEX lost_interval_view_idx ON streamext.lost_interval (view);
COMMENT ON TABLE streamext.lost_interval IS 'when rows were not protected for a view; see view streamext.lost_intervals';

CREATE TABLE streamext.dead_letter
(
	id bigserial NOT NULL,
	view pg_catalog.oid NOT NULL,
	stream pg_catalog.oid NOT NULL,
	"row" pg_catalog.jsonb,
	reason pg_catalog.text NOT NULL,
	sqlstate pg_catalog.text,
	message pg_catalog.text,
	at pg_catalog.timestamptz NOT NULL,
	CONSTRAINT dead_letter_pkey PRIMARY KEY (id)
);
CREATE INDEX dead_letter_view_idx ON streamext.dead_letter (view);
COMMENT ON TABLE streamext.dead_letter IS 'rejected rows; see view streamext.dead_letters';

-- Partitions that joined (a) or left (d) the tree of a stream that views use.
CREATE TABLE streamext.attach_mark
(
	leaf pg_catalog.oid NOT NULL,
	stream pg_catalog.oid NOT NULL,
	kind pg_catalog."char" NOT NULL,
	snapshot pg_catalog.pg_snapshot NOT NULL
);
CREATE INDEX attach_mark_leaf_idx ON streamext.attach_mark (leaf);
COMMENT ON TABLE streamext.attach_mark IS 'what an attached or detached partition contained at that moment';

-- Files that tables of streams got by commands that we know of: one row while some view has not read it.
-- k: rows keep their transaction (VACUUM FULL, CLUSTER, SET TABLESPACE); t: emptied; w: rewritten, all rows
-- up to last_block, last_offset by writer.
CREATE TABLE streamext.file_mark
(
	leaf pg_catalog.oid NOT NULL,
	kind pg_catalog."char" NOT NULL,
	xid pg_catalog.xid8 NOT NULL,
	old_space pg_catalog.oid NOT NULL,
	old_file pg_catalog.oid NOT NULL,
	space pg_catalog.oid NOT NULL,
	file pg_catalog.oid NOT NULL,
	writer pg_catalog.xid8 NOT NULL,
	last_block pg_catalog.int8 NOT NULL,
	last_offset pg_catalog.int4 NOT NULL
);
CREATE INDEX file_mark_leaf_idx ON streamext.file_mark (leaf);
COMMENT ON TABLE streamext.file_mark IS 'how tables of streams got the files that they have';

-- Views that read no more until somebody decides what to do: what their stream contains is not known.
CREATE TABLE streamext.view_stop
(
	view pg_catalog.oid NOT NULL,
	reason pg_catalog.text NOT NULL,
	at pg_catalog.timestamptz NOT NULL,
	CONSTRAINT view_stop_pkey PRIMARY KEY (view)
);
COMMENT ON TABLE streamext.view_stop IS 'continuous views that are stopped; see reason in view streamext.status';

-- Tables that the closed windows of a view are appended to.
CREATE TABLE streamext.sink
(
	view pg_catalog.regclass NOT NULL,
	target pg_catalog.regclass NOT NULL,
	corrections pg_catalog.bool NOT NULL,
	closed_until pg_catalog.int8 NOT NULL,
	"rows" pg_catalog.int8 NOT NULL,
	reopened pg_catalog.jsonb,
	CONSTRAINT sink_pkey PRIMARY KEY (view, target)
);
CREATE INDEX sink_target_idx ON streamext.sink (target);
COMMENT ON TABLE streamext.sink IS 'where closed windows go; see view streamext.sinks';
COMMENT ON COLUMN streamext.sink.closed_until IS
'windows that were closed by then are in the target, or were closed before it was a sink; as view_position.watermark';
COMMENT ON COLUMN streamext.sink.reopened IS
'sessions that the target has got and that late rows have opened again: their keys, as text, and a moment in each';

SELECT pg_catalog.pg_extension_config_dump('streamext.sink', '');
SELECT pg_catalog.pg_extension_config_dump('streamext.stream_def', '');
SELECT pg_catalog.pg_extension_config_dump('streamext.view_def', '');
SELECT pg_catalog.pg_extension_config_dump('streamext.view_id_seq', '');

REVOKE ALL ON streamext.stream_def, streamext.view_def, streamext.view_position,
	streamext.dead_letter, streamext.lost_interval, streamext.attach_mark,
	streamext.file_mark, streamext.view_stop, streamext.sink FROM PUBLIC;
REVOKE ALL ON SEQUENCE streamext.view_id_seq FROM PUBLIC;

-- Fires when a dump is restored, and only then: our own functions insert without triggers.
CREATE FUNCTION streamext.view_restored() RETURNS pg_catalog.trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_view_restored';
REVOKE EXECUTE ON FUNCTION streamext.view_restored() FROM PUBLIC;
COMMENT ON FUNCTION streamext.view_restored() IS
'makes the relations of a restored continuous view or stream depend on each other again';
CREATE TRIGGER view_restored AFTER INSERT ON streamext.view_def
	FOR EACH ROW EXECUTE FUNCTION streamext.view_restored();
CREATE TRIGGER stream_restored AFTER INSERT ON streamext.stream_def
	FOR EACH ROW EXECUTE FUNCTION streamext.view_restored();
