-- Alerts: once per group, when its row in a continuous view starts to satisfy a condition
-- (src/catalog/alerts.c, which reads the tables by column number).

CREATE TABLE streamext.alert_def
(
	name pg_catalog.text NOT NULL,
	alert pg_catalog.regclass NOT NULL,
	view pg_catalog.regclass NOT NULL,
	channel pg_catalog.text NOT NULL,
	CONSTRAINT alert_def_pkey PRIMARY KEY (name),
	CONSTRAINT alert_def_alert_key UNIQUE (alert)
);
COMMENT ON TABLE streamext.alert_def IS 'alerts; see view streamext.alert_status';

CREATE SEQUENCE streamext.alert_id_seq AS pg_catalog.int8;
COMMENT ON SEQUENCE streamext.alert_id_seq IS 'numbers what alerts report';

-- A group that satisfied the condition when the alert was created is here with its key alone.
-- Dumped: what has been reported is not reported again after a restore.
CREATE TABLE streamext.alert_fired
(
	alert pg_catalog.regclass NOT NULL,
	key pg_catalog.bytea NOT NULL,
	id pg_catalog.int8,
	"group" pg_catalog.jsonb,
	"row" pg_catalog.jsonb,
	at pg_catalog.timestamptz,
	CONSTRAINT alert_fired_key UNIQUE (alert, key),
	CONSTRAINT alert_fired_id_key UNIQUE (id)
);
COMMENT ON TABLE streamext.alert_fired IS 'groups whose alert is over; see view streamext.alerts';

CREATE TABLE streamext.alert_error
(
	alert pg_catalog.oid NOT NULL,
	failures pg_catalog.int4 NOT NULL,
	message pg_catalog.text NOT NULL,
	at pg_catalog.timestamptz NOT NULL,
	CONSTRAINT alert_error_pkey PRIMARY KEY (alert)
);
COMMENT ON TABLE streamext.alert_error IS 'alerts whose condition cannot be evaluated; see view streamext.alert_status';

SELECT pg_catalog.pg_extension_config_dump('streamext.alert_def', '');
SELECT pg_catalog.pg_extension_config_dump('streamext.alert_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('streamext.alert_fired', '');

REVOKE ALL ON streamext.alert_def, streamext.alert_fired, streamext.alert_error FROM PUBLIC;
REVOKE ALL ON SEQUENCE streamext.alert_id_seq FROM PUBLIC;

-- Fires when a dump is restored, and only then: our own functions insert without triggers.
CREATE FUNCTION streamext.alert_restored() RETURNS pg_catalog.trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_alert_restored';
REVOKE EXECUTE ON FUNCTION streamext.alert_restored() FROM PUBLIC;
COMMENT ON FUNCTION streamext.alert_restored() IS
'tells the workers of a restored alert';
CREATE TRIGGER alert_restored AFTER INSERT ON streamext.alert_def
	FOR EACH ROW EXECUTE FUNCTION streamext.alert_restored();

CREATE FUNCTION streamext.create_alert(name pg_catalog.text, view pg_catalog.regclass,
	condition pg_catalog.text, channel pg_catalog.text)
RETURNS pg_catalog.void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_create_alert';
COMMENT ON FUNCTION streamext.create_alert(pg_catalog.text, pg_catalog.regclass, pg_catalog.text, pg_catalog.text) IS
'watches a continuous view: once per group, when its row starts to satisfy the condition, a row in streamext.alerts and a NOTIFY on the channel, in one transaction. name: of the alert, unique in the database; view: with GROUP BY, all keys in its SELECT list, or without GROUP BY; condition: an expression over columns of the view, as in WHERE, evaluated as the owner of the view; channel: for LISTEN, up to 63 bytes. Groups that satisfy the condition by rows committed before the call are not reported. Takes the owner of the view. Errors: no such view, no groups, a key that is not in the SELECT list, name taken, not one boolean expression, sub-selects and functions whose result may change, the view does not catch up within streamext.wait_timeout, REPEATABLE READ or SERIALIZABLE';

CREATE FUNCTION streamext.drop_alert(name pg_catalog.text)
RETURNS pg_catalog.void
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sx_drop_alert';
COMMENT ON FUNCTION streamext.drop_alert(pg_catalog.text) IS
'forgets an alert, with what it has reported. Takes the owner of the view. Error: no such alert';

REVOKE EXECUTE ON FUNCTION
	streamext.create_alert(pg_catalog.text, pg_catalog.regclass, pg_catalog.text, pg_catalog.text),
	streamext.drop_alert(pg_catalog.text)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
	streamext.create_alert(pg_catalog.text, pg_catalog.regclass, pg_catalog.text, pg_catalog.text),
	streamext.drop_alert(pg_catalog.text)
TO PUBLIC;

CREATE VIEW streamext.alerts WITH (security_barrier) AS
SELECT f.id,
	d.name AS alert,
	d.view,
	f."group",
	f."row",
	f.at
FROM streamext.alert_fired f
	JOIN streamext.alert_def d ON d.alert::pg_catalog.oid OPERATOR(pg_catalog.=) f.alert::pg_catalog.oid
WHERE f.id IS NOT NULL
	AND pg_catalog.has_table_privilege(d.view::pg_catalog.oid, 'SELECT');
COMMENT ON VIEW streamext.alerts IS 'what alerts have reported, one row for each group, for views that the current user may read';
COMMENT ON COLUMN streamext.alerts.id IS 'rises in the order of the reports; also in the payload';
COMMENT ON COLUMN streamext.alerts."group" IS 'the keys of the group, as an object';
COMMENT ON COLUMN streamext.alerts."row" IS 'its row in the view when the condition was found to be true';
COMMENT ON COLUMN streamext.alerts.at IS 'when that was';

CREATE FUNCTION streamext.alerter_runs() RETURNS pg_catalog.bool
LANGUAGE c STRICT VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sx_alerter_runs';
REVOKE EXECUTE ON FUNCTION streamext.alerter_runs() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION streamext.alerter_runs() TO PUBLIC;
COMMENT ON FUNCTION streamext.alerter_runs() IS
'is there a process that evaluates alerts in this database? Behind streamext.alert_status';

CREATE VIEW streamext.alert_status WITH (security_barrier) AS
SELECT d.name AS alert,
	d.view,
	d.channel,
	pg_catalog.pg_get_viewdef(d.alert::pg_catalog.oid) AS definition,
	CASE WHEN e.alert IS NOT NULL THEN 'failed'
		WHEN streamext.alerter_runs() THEN 'active'
		ELSE 'waiting' END AS state,
	(SELECT pg_catalog.count(f.id) FROM streamext.alert_fired f
	 WHERE f.alert::pg_catalog.oid OPERATOR(pg_catalog.=) d.alert::pg_catalog.oid) AS reported,
	e.failures,
	CASE WHEN pg_catalog.pg_has_role(c.relowner, 'USAGE')
		OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') THEN e.message END AS last_error,
	e.at AS last_error_at
FROM streamext.alert_def d
	JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.view::pg_catalog.oid
	LEFT JOIN streamext.alert_error e ON e.alert OPERATOR(pg_catalog.=) d.alert::pg_catalog.oid
WHERE pg_catalog.has_table_privilege(d.view::pg_catalog.oid, 'SELECT');
COMMENT ON VIEW streamext.alert_status IS 'alerts on continuous views that the current user may read, one row each';
COMMENT ON COLUMN streamext.alert_status.definition IS 'the condition, as the WHERE of a query over the view';
COMMENT ON COLUMN streamext.alert_status.state IS 'active; failed: the condition cannot be evaluated and is tried again, at longer and longer intervals; waiting: no process evaluates alerts, because it is about to start, max_worker_processes is exhausted, or the server is a standby';
COMMENT ON COLUMN streamext.alert_status.reported IS 'groups reported so far';
COMMENT ON COLUMN streamext.alert_status.last_error IS 'shown to the owner of the view and pg_read_all_stats';

GRANT SELECT ON streamext.alerts, streamext.alert_status TO PUBLIC;
