-- See src/batch/expire.c.

CREATE PROCEDURE streamext.expire(stream pg_catalog.regclass, older_than pg_catalog.interval,
	batch_rows pg_catalog.int4 DEFAULT 10000, detach pg_catalog.bool DEFAULT false)
	AS 'MODULE_PATHNAME', 'sx_expire_interval' LANGUAGE C;
COMMENT ON PROCEDURE streamext.expire(pg_catalog.regclass, pg_catalog.interval, pg_catalog.int4, pg_catalog.bool) IS
'removes rows of a stream that all its continuous views have read and stored. older_than: by event time, back from the clock or the lowest watermark of the views, whichever is earlier; batch_rows: about so many rows are deleted in one transaction; detach: whole partitions are detached instead of dropped. Partitions of a range of the event time that lie before the limit go as a whole if the caller owns them, other rows are deleted. Takes DELETE and SELECT on the table and its partitions. Errors: in a transaction block, no event time, not positive, a view that is paused, stopped, or does not catch up within streamext.wait_timeout';
CREATE PROCEDURE streamext.expire(stream pg_catalog.regclass, older_than pg_catalog.timestamptz,
	batch_rows pg_catalog.int4 DEFAULT 10000, detach pg_catalog.bool DEFAULT false)
	AS 'MODULE_PATHNAME', 'sx_expire_timestamptz' LANGUAGE C;
COMMENT ON PROCEDURE streamext.expire(pg_catalog.regclass, pg_catalog.timestamptz, pg_catalog.int4, pg_catalog.bool) IS
'the same; older_than: rows with an earlier event time';
CREATE PROCEDURE streamext.expire(stream pg_catalog.regclass, older_than pg_catalog.int8,
	batch_rows pg_catalog.int4 DEFAULT 10000, detach pg_catalog.bool DEFAULT false)
	AS 'MODULE_PATHNAME', 'sx_expire_number' LANGUAGE C;
COMMENT ON PROCEDURE streamext.expire(pg_catalog.regclass, pg_catalog.int8, pg_catalog.int4, pg_catalog.bool) IS
'the same for a bigint event time; older_than: rows with a lower one';
REVOKE EXECUTE ON PROCEDURE streamext.expire(pg_catalog.regclass, pg_catalog.interval, pg_catalog.int4, pg_catalog.bool),
	streamext.expire(pg_catalog.regclass, pg_catalog.timestamptz, pg_catalog.int4, pg_catalog.bool),
	streamext.expire(pg_catalog.regclass, pg_catalog.int8, pg_catalog.int4, pg_catalog.bool) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE streamext.expire(pg_catalog.regclass, pg_catalog.interval, pg_catalog.int4, pg_catalog.bool),
	streamext.expire(pg_catalog.regclass, pg_catalog.timestamptz, pg_catalog.int4, pg_catalog.bool),
	streamext.expire(pg_catalog.regclass, pg_catalog.int8, pg_catalog.int4, pg_catalog.bool) TO PUBLIC;
