# StreamextFaults.pm
#		What the tests that inject faults share: the SQL functions of test builds (src/testing),
#		views of different shapes with one check for all of them, and workloads by name.
package StreamextFaults;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(test_functions fault_views workload run_workload start_workload start_workload_in finish_workload
  all_exact stop_point_list test_query log_position crash_seen up_again);

my $number = 0;

# The functions stand in the library of test builds and in no script.
sub test_functions
{
	my ($node, $database) = @_;
	$node->safe_psql($database, <<'SQL');
CREATE SCHEMA testing;
CREATE FUNCTION testing.stop(point text, action text, nth int DEFAULT 1, view oid DEFAULT NULL,
	process text DEFAULT NULL, bound boolean DEFAULT false)
RETURNS void LANGUAGE c AS '$libdir/streamext', 'sx_test_stop';
CREATE FUNCTION testing.release(point text DEFAULT NULL)
RETURNS void LANGUAGE c AS '$libdir/streamext', 'sx_test_release';
CREATE FUNCTION testing.points(OUT point text, OUT may_raise boolean, OUT action text, OUT hits bigint,
	OUT fired bigint, OUT waiting int)
RETURNS SETOF record LANGUAGE c AS '$libdir/streamext', 'sx_test_points';
CREATE FUNCTION testing.fail(kind text, nth bigint, process text DEFAULT NULL, pause_ms int DEFAULT 0)
RETURNS void LANGUAGE c AS '$libdir/streamext', 'sx_test_fail';
CREATE FUNCTION testing.failed(OUT fired bigint, OUT seen bigint)
RETURNS record LANGUAGE c AS '$libdir/streamext', 'sx_test_failed';
SQL
	return;
}

# Views of each shape, and testing.differences(), which is empty when all are exact.
sub fault_views
{
	my ($node, $database) = @_;
	$node->safe_psql($database, <<'SQL');
CREATE TABLE names (k int PRIMARY KEY, name text NOT NULL);
INSERT INTO names SELECT i, 'name ' || i % 7 FROM generate_series(0, 49) i;
CREATE TABLE ev (k int NOT NULL, v int NOT NULL, note text);
INSERT INTO ev SELECT i % 60, i, 'x' FROM generate_series(0, 300) i;
CREATE TABLE pt (k int NOT NULL, v int) PARTITION BY RANGE (k);
CREATE TABLE pt_0 PARTITION OF pt FOR VALUES FROM (0) TO (10);
CREATE TABLE pt_1 PARTITION OF pt FOR VALUES FROM (10) TO (20);
INSERT INTO pt SELECT i % 20, i FROM generate_series(1, 100) i;
-- 300 blocks: history in chunks
CREATE TABLE hist (k int NOT NULL, v int NOT NULL, note text);
INSERT INTO hist SELECT i % 20, i, repeat('x', 1200) FROM generate_series(1, 1800) i;
-- whose rows are destroyed, and what was in it
CREATE TABLE tr (k int, v int);
CREATE TABLE tr_all (k int, v int);
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS total, avg(v) AS mean, min(v) AS low, max(note) AS last_note FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS
  SELECT count(*) AS n, sum(v) AS total, max(v) AS high FROM ev;
CREATE MATERIALIZED VIEW big WITH (streamext.continuous) AS
  SELECT k, v, upper(note) AS note FROM ev WHERE v > 200;
CREATE MATERIALIZED VIEW joined WITH (streamext.continuous) AS
  SELECT n.name, count(*) AS n, sum(e.v) AS total FROM ev e JOIN names n USING (k) WHERE e.v % 2 = 0 GROUP BY n.name;
CREATE MATERIALIZED VIEW parts WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total FROM pt GROUP BY k;
CREATE MATERIALIZED VIEW inverse WITH (streamext.continuous) AS
  SELECT k, sum(1000 / v) AS total FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW truncated WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS total FROM tr GROUP BY k;
-- whose rows expire
CREATE TABLE ex (n bigint NOT NULL, v int) PARTITION BY RANGE (n);
CREATE TABLE ex_all (n bigint NOT NULL, v int);
SELECT streamext.create_stream('ex', event_time => 'n');
CREATE MATERIALIZED VIEW expired WITH (streamext.continuous) AS
  SELECT v, count(*) AS rows, sum(n) AS total FROM ex GROUP BY v;
-- windows that close, and a sink for them
CREATE TABLE ticks (ts timestamptz NOT NULL);
SELECT streamext.create_stream('ticks', event_time => 'ts');
CREATE MATERIALIZED VIEW by_ten WITH (streamext.continuous) AS
  SELECT streamext.tumble(ts, '10 s') AS w, count(*) AS n FROM ticks GROUP BY 1;
CREATE TABLE closed (at bigserial, w timestamptz NOT NULL, n bigint NOT NULL, UNIQUE (w, n));
SELECT streamext.create_sink('by_ten', 'closed', corrections => true);
CREATE MATERIALIZED VIEW recent WITH (streamext.continuous, streamext.retention = '20 s') AS
  SELECT streamext.tumble(ts, '10 s') AS w, count(*) AS n FROM ticks GROUP BY 1;
CREATE MATERIALIZED VIEW hopping WITH (streamext.continuous) AS
  SELECT streamext.hop(ts, '10 s', '40 s') AS w, count(*) AS n FROM ticks GROUP BY 1;
CREATE TABLE se (at bigint NOT NULL, v int);
INSERT INTO se SELECT i * i % 100, i FROM generate_series(1, 9) i;
CREATE MATERIALIZED VIEW spans WITH (streamext.continuous) AS
  SELECT streamext.session(at, 10) AS span, count(*) AS n, sum(v) AS total FROM se GROUP BY streamext.session(at, 10);

-- a view's query as the oracle runs it: without rows that are dead letters, with rows that were destroyed
CREATE FUNCTION testing.oracle_query(view regclass, definition text) RETURNS text LANGUAGE sql AS $$
SELECT CASE WHEN definition LIKE '%1000 / %' THEN regexp_replace(query, '\mev\M(?=\s+GROUP)', 'ev WHERE v <> 0')
	WHEN view = 'recent'::regclass THEN query || ' HAVING streamext.tumble(ts, ''10 s'') >= (SELECT min(w) FROM recent)'
	WHEN definition LIKE '%session(%' THEN 'SELECT int8range(min(at), max(at) + 10) AS span, count(*) AS n, sum(v) AS total
		FROM (SELECT *, count(*) FILTER (WHERE starts) OVER (ORDER BY at RANGE UNBOUNDED PRECEDING) AS number
			FROM (SELECT *, coalesce(at - lag(at) OVER (ORDER BY at) >= 10, true) AS starts FROM se) a) b GROUP BY number'
	WHEN view = 'truncated'::regclass THEN regexp_replace(query, '\mtr\M', 'tr_all', 'g')
	WHEN view = 'expired'::regclass THEN regexp_replace(query, '\mex\M', 'ex_all', 'g')
	ELSE query END
FROM (SELECT rtrim(regexp_replace(definition, '\mev\.', '', 'g'), ';') AS query) q
$$;

CREATE FUNCTION testing.job(which text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION testing.differences() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r record;
	n bigint;
	wanted bigint;
	which text;
	result text := '';
BEGIN
	FOR r IN SELECT view, testing.oracle_query(view, definition) AS query FROM streamext.views ORDER BY view LOOP
		EXECUTE format('SELECT count(*), string_agg(which || d, chr(32)) FROM (
			SELECT ''view:'' AS which, v::text AS d FROM (TABLE %1$s EXCEPT ALL (%2$s)) v
			UNION ALL SELECT ''query:'', q::text FROM ((%2$s) EXCEPT ALL TABLE %1$s) q LIMIT 10) d',
			r.view, r.query) INTO n, which;
		IF n > 0 THEN
			result := result || format('%s: %s rows differ: %s; ', r.view, n, which);
		END IF;
		IF r.query LIKE '%1000 / %' THEN
			SELECT count(*) INTO n FROM streamext.dead_letters d WHERE d.view = r.view;
			SELECT count(*) INTO wanted FROM ev WHERE v = 0;
			IF n <> wanted THEN
				result := result || format('%s: %s dead letters for %s bad rows; ', r.view, n, wanted);
			END IF;
		END IF;
	END LOOP;
	-- a window is appended when it has closed, and again when late rows have changed it: the last row is it
	SELECT count(*), string_agg(d::text, ' ') INTO n, which FROM (
		SELECT s.w, s.n, v.n FROM (SELECT DISTINCT ON (w) w, closed.n FROM closed ORDER BY w, at DESC) s
			FULL JOIN (SELECT w, by_ten.n FROM by_ten WHERE streamext.is_final('by_ten', w)) v USING (w)
		WHERE s.n IS DISTINCT FROM v.n LIMIT 10) d;
	IF n > 0 THEN
		result := result || format('%s closed windows are not in the sink as they are: %s; ', n, which);
	END IF;
	SELECT count(*) INTO n FROM pg_class WHERE relnamespace = 'streamext'::regnamespace AND relname ~ '^(mat|query)_\d+$';
	SELECT 2 * count(*) INTO wanted FROM streamext.view_def;
	IF n <> wanted THEN
		result := result || format('%s internal relations instead of %s; ', n, wanted);
	END IF;
	-- alerts that workload alert has left: each is about one group, reported once when it is there
	FOR r IN SELECT a.alert, substr(a.alert, 3)::int + 100 AS k FROM streamext.alert_status a WHERE a.alert LIKE 'a\_%' LOOP
		SELECT count(*) INTO wanted FROM by_key b WHERE b.k = r.k;
		FOR i IN 1 .. 2000 LOOP
			SELECT count(*) INTO n FROM streamext.alerts a WHERE a.alert = r.alert;
			EXIT WHEN n >= wanted;
			PERFORM pg_sleep(0.01);
		END LOOP;
		IF n <> wanted THEN
			result := result || format('alert %s: reported %s times instead of %s; ', r.alert, n, wanted);
		END IF;
	END LOOP;
	RETURN result;
END
$$;

-- bounded: an error says that it never came
CREATE PROCEDURE testing.await(v regclass, wanted text) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 1000 LOOP
		IF EXISTS (SELECT FROM streamext.status s WHERE s.view = v AND s.state = wanted) THEN
			RETURN;
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
	RAISE 'view % did not become %', v, wanted;
END
$$;
CREATE PROCEDURE testing.await_that(query text) LANGUAGE plpgsql AS $$
DECLARE done boolean;
BEGIN
	FOR i IN 1 .. 1000 LOOP
		EXECUTE query INTO done;
		IF done THEN
			RETURN;
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
	RAISE 'never came: %', query;
END
$$;
SQL
	return;
}

# Scripts by name; each begins with a database, and can be run again and again.
my $write = <<'SQL';
INSERT INTO ev SELECT (random() * 59)::int, 1 + (random() * 400)::int, 'r' || i FROM generate_series(1, 20) i;
BEGIN;
INSERT INTO ev VALUES (1, 0, 'bad'), (2, 7, 'good');
SAVEPOINT a;
INSERT INTO ev VALUES (3, 300, 'rolled back');
ROLLBACK TO a;
INSERT INTO ev VALUES (4, 301, 'kept');
COMMIT;
INSERT INTO pt SELECT i, i FROM generate_series(0, 19) i;
INSERT INTO ticks SELECT last + i * interval '1 s' FROM (SELECT coalesce(max(ts), '2024-01-01') AS last FROM ticks) t, generate_series(-3, 7) i;
-- into the last session, after it, anywhere, and before the first one, which is stored and has another key then
INSERT INTO se SELECT unnest(ARRAY[max(at) + 1 + (random() * 11)::int, max(at) + 40, (random() * max(at))::int, min(at) - 1]), 1 FROM se;
SQL
my %workloads = (
	write => [ 'app', $write . "SELECT streamext.wait_for(NULL, '15s');\n" ],
	flush => [ 'app', $write . "SELECT streamext.flush();\n" ],
	# few calls: one row, one view
	small => [ 'app', <<'SQL' ],
BEGIN;
INSERT INTO tr VALUES (%N%, 1);
INSERT INTO tr_all VALUES (%N%, 1);
COMMIT;
SELECT streamext.flush('truncated');
SQL
	create_small => [ 'app', <<'SQL' ],
CREATE MATERIALIZED VIEW x_%N% WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM pt GROUP BY k;
SELECT streamext.wait_for('x_%N%', '15s');
DROP MATERIALIZED VIEW x_%N%;
SQL
	read => [ 'app', 'SELECT count(*) FROM by_key, total, parts' ],
	create => [ 'app', <<'SQL' ],
CREATE MATERIALIZED VIEW x_%N% WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
INSERT INTO ev VALUES (1, 1, 'new');
SELECT streamext.wait_for('x_%N%', '10s');
DROP MATERIALIZED VIEW x_%N%;
SQL
	replace => [ 'app', <<'SQL' ],
CREATE MATERIALIZED VIEW x_%N% WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
SELECT streamext.wait_for('x_%N%', '10s');
SELECT streamext.replace_view('x_%N%', 'SELECT k, count(*) AS n, sum(v) AS s FROM ev WHERE true GROUP BY k');
INSERT INTO ev VALUES (1, 1, 'new');
SELECT streamext.wait_for('x_%N%', '15s');
DROP MATERIALIZED VIEW x_%N%;
SQL
	recompute => [ 'app', <<'SQL' ],
CREATE TABLE IF NOT EXISTS timed (at bigint NOT NULL, v int);
SELECT streamext.create_stream('timed', event_time => 'at') WHERE NOT EXISTS (SELECT FROM streamext.streams WHERE stream = 'timed'::regclass AND event_time IS NOT NULL);
CREATE MATERIALIZED VIEW x_%N% WITH (streamext.continuous) AS SELECT streamext.tumble(at, 10) AS w, count(*) AS n, sum(v) AS s FROM timed GROUP BY 1;
SET streamext.wait_timeout = '10s';
SELECT streamext.wait_for('x_%N%', '10s');
INSERT INTO timed SELECT i, i FROM generate_series(1, 50) i;
CALL streamext.backfill('x_%N%', 0, 40);
SELECT streamext.wait_for('x_%N%', '10s');
DROP MATERIALIZED VIEW x_%N%;
SQL
	create_bad => [ 'app', <<'SQL' ],
CREATE MATERIALIZED VIEW x_%N% WITH (streamext.continuous) AS SELECT k, sum(1000 / v) AS s FROM ev GROUP BY k;
INSERT INTO ev VALUES (1, 1, 'new'), (1, 0, 'bad');
SELECT streamext.wait_for('x_%N%', '10s');
DROP MATERIALIZED VIEW x_%N%;
SQL
	create_chunks => [ 'app', <<'SQL' ],
CREATE MATERIALIZED VIEW x_%N% WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM hist GROUP BY k;
INSERT INTO hist VALUES (1, 1, 'new');
SELECT streamext.wait_for('x_%N%', '10s');
DROP MATERIALIZED VIEW x_%N%;
SQL
	create_empty => [ 'app', <<'SQL' ],
CREATE MATERIALIZED VIEW x_%N% WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS s FROM ev WHERE note = 'since %N%' GROUP BY k WITH NO DATA;
INSERT INTO ev SELECT i, i, 'since %N%' FROM generate_series(1, 10) i;
SELECT streamext.wait_for('x_%N%', '10s');
DROP MATERIALIZED VIEW x_%N%;
SQL
	pause => [ 'app', <<'SQL' ],
SELECT streamext.pause('total');
CALL testing.await('total', 'paused');
INSERT INTO ev VALUES (5, 55, 'while paused');
SELECT streamext.resume('total');
SELECT streamext.wait_for('total', '10s');
SQL
	truncate => [ 'app', <<'SQL' ],
BEGIN;
INSERT INTO tr SELECT i, i FROM generate_series(1, 10) i;
INSERT INTO tr_all SELECT i, i FROM generate_series(1, 10) i;
COMMIT;
SET streamext.wait_timeout = '10s';
TRUNCATE tr;
SQL
	job => [ 'app', <<'SQL' ],
CALL streamext.run_job('job', '%N%', 'testing.job(text)');
SQL
	# as many rows, with a function so slow, that the consumer wants help; and more for the helper
	load => [ 'app', <<'SQL' ],
CREATE FUNCTION slow_%N%(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN length(md5(md5(v::text))); END';
CREATE TABLE load_%N% (k int, v int);
CREATE MATERIALIZED VIEW x_%N% WITH (streamext.continuous) AS SELECT k, count(*) AS n, max(slow_%N%(v)) AS l FROM load_%N% GROUP BY k;
CREATE MATERIALIZED VIEW y_%N% WITH (streamext.continuous) AS
  SELECT n.name, count(*) AS n FROM load_%N% l JOIN names n USING (k) GROUP BY n.name;
SELECT streamext.wait_for('x_%N%', '10s'), streamext.wait_for('y_%N%', '10s');
BEGIN;
DO $$
BEGIN
	FOR step IN 1 .. 50 LOOP
		INSERT INTO load_%N% SELECT i % 60, i FROM generate_series(1, 10000) i;
		PERFORM pg_stat_clear_snapshot();
		EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'streamext helper' AND datname = current_database());
	END LOOP;
END
$$;
INSERT INTO load_%N% SELECT i % 60, i FROM generate_series(1, 30000) i;
COMMIT;
SELECT streamext.wait_for('x_%N%', '10s'), streamext.wait_for('y_%N%', '10s');
DROP MATERIALIZED VIEW x_%N%, y_%N%;
DROP TABLE load_%N%;
SQL
	# rows and whole partitions
	expire => [ 'app', <<'SQL' ],
CREATE TABLE ex_%N%a PARTITION OF ex FOR VALUES FROM (100 * %N%) TO (100 * %N% + 50);
CREATE TABLE ex_%N%b PARTITION OF ex FOR VALUES FROM (100 * %N% + 50) TO (100 * %N% + 100);
BEGIN;
INSERT INTO ex SELECT 100 * %N% + i % 100, %N% FROM generate_series(1, 400) i;
INSERT INTO ex_all SELECT 100 * %N% + i % 100, %N% FROM generate_series(1, 400) i;
COMMIT;
SET streamext.wait_timeout = '10s';
CALL streamext.expire('ex', 100 * %N% + 75, batch_rows => 50);
SQL
	# all rows get a new transaction, then a new place
	rewrite => [ 'app', <<'SQL' ],
BEGIN;
INSERT INTO tr SELECT i, i FROM generate_series(1, 10) i;
INSERT INTO tr_all SELECT i, i FROM generate_series(1, 10) i;
COMMIT;
SET streamext.wait_timeout = '10s';
ALTER TABLE tr ADD COLUMN x_%N% float DEFAULT random();
VACUUM FULL tr;
SELECT streamext.wait_for('truncated', '10s');
SQL
	attach => [ 'app', <<'SQL' ],
CREATE TABLE pt_%N% (k int NOT NULL, v int);
INSERT INTO pt_%N% SELECT 1000 + %N%, i FROM generate_series(1, 5) i;
ALTER TABLE pt ATTACH PARTITION pt_%N% FOR VALUES FROM (1000 + %N%) TO (1001 + %N%);
INSERT INTO pt VALUES (1000 + %N%, 7);
SELECT streamext.wait_for('parts', '10s');
SQL
	# a partition that is a stream itself: the views on the parent leave, to read it
	attach_stream => [ 'app', <<'SQL' ],
CREATE TABLE pt_%N% (k int NOT NULL, v int);
INSERT INTO pt_%N% SELECT 1000 + %N%, i FROM generate_series(1, 5) i;
CREATE MATERIALIZED VIEW x_%N% WITH (streamext.continuous) AS SELECT v, count(*) AS n FROM pt_%N% GROUP BY v;
SELECT streamext.wait_for('x_%N%', '10s');
ALTER TABLE pt ATTACH PARTITION pt_%N% FOR VALUES FROM (1000 + %N%) TO (1001 + %N%);
INSERT INTO pt VALUES (1000 + %N%, 7);
SELECT streamext.wait_for(NULL, '10s');
SQL
	# a transaction that stays open while much WAL is written, and over a restart of the consumer
	open => [ 'app', $write . "BEGIN;\nINSERT INTO ev VALUES (7, 77, 'open');\n"
		  . "SELECT pg_logical_emit_message(false, 'test', 'x');\nSELECT pg_switch_wal();\n" x 5
		  . <<'SQL' ],
SELECT streamext.flush();
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE backend_type = 'streamext consumer' AND datname = current_database();
SELECT streamext.wait_for(NULL, '15s');
COMMIT;
SELECT streamext.wait_for(NULL, '10s');
SQL
	# an alert that is sent, and one that fails; the alerter leaves when both are gone
	alert => [ 'app', <<'SQL' ],
SET streamext.wait_timeout = '10s';
SELECT streamext.create_alert('a_%N%', 'by_key', 'k = 100 + %N%', 'a');
SELECT streamext.create_alert('b_%N%', 'by_key', '100 / (k - 100 - %N%) > 100000', 'b');
INSERT INTO ev VALUES (100 + %N%, 5, 'alert');
CALL testing.await_that($$SELECT count(*) = 1 FROM streamext.alerts WHERE alert = 'a_%N%'$$);
CALL testing.await_that($$SELECT state = 'failed' FROM streamext.alert_status WHERE alert = 'b_%N%'$$);
-- and what was left by others that could not
DO $$
DECLARE a text;
BEGIN
	FOR a IN SELECT alert FROM streamext.alert_status WHERE substr(alert, 3)::int <= %N% LOOP
		PERFORM streamext.drop_alert(a);
	END LOOP;
END
$$;
CALL testing.await_that($$SELECT count(*) = 0 OR EXISTS (SELECT FROM streamext.alert_status)
  FROM pg_stat_activity WHERE backend_type = 'streamext alerter' AND datname = current_database()$$);
SQL
	restart => [ 'app', $write . <<'SQL' ],
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE backend_type = 'streamext consumer' AND datname = current_database();
SELECT streamext.wait_for(NULL, '15s');
SQL
	leave => [ 'other', <<'SQL' ],
CREATE MATERIALIZED VIEW IF NOT EXISTS lonely WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev;
DROP MATERIALIZED VIEW lonely;
SELECT pg_sleep(0.01) FROM generate_series(1, 1000) i
  WHERE EXISTS (SELECT FROM pg_stat_activity a WHERE a.backend_type = 'streamext consumer' AND a.datname = current_database());
CREATE MATERIALIZED VIEW lonely WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev;
INSERT INTO ev VALUES (1);
SELECT streamext.wait_for('lonely', '10s');
SQL
	copy => [ 'other', <<'SQL' ],
CREATE MATERIALIZED VIEW IF NOT EXISTS lonely WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev;
\c postgres
DROP DATABASE IF EXISTS copied;
CREATE DATABASE copied TEMPLATE other;
SELECT pg_sleep(0.01) FROM generate_series(1, 500) i
  WHERE NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.backend_type = 'streamext consumer' AND a.datname = 'copied');
DROP DATABASE copied;
SQL
);

# workload(NAME): its database and script, with a number of its own
sub workload
{
	my ($name) = @_;
	die "no workload $name" unless $workloads{$name};
	my ($database, $script) = @{ $workloads{$name} };
	$number++;
	return ($database, $script =~ s/%N%/$number/gr);
}

# start_workload(NODE, BEFORE, NAME ...): in the background, after BEFORE (SQL, in database app);
# errors are part of the test
sub start_workload
{
	return start_workload_in('app', @_);
}

# in another database than app
sub start_workload_in
{
	my ($app, $node, $before, @names) = @_;
	my $file = "$ENV{TESTDIR}/workload_" . ($number + 1);
	my %run = (err => "$file.err");
	my $all = "$before;\n";
	for my $name (@names)
	{
		my ($database, $script) = workload($name);
		$all .= ($database eq 'app' ? '' : "\\c $database\n") . "$script\n;\n" . ($database eq 'app' ? '' : "\\c $app\n");
	}
	append_to_file("$file.sql", $all);
	# files, so that nobody has to pump
	$run{handle} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr($app), '-f', "$file.sql" ],
		'>', "$file.out", '2>', $run{err});
	return \%run;
}

# the errors that it had
sub finish_workload
{
	my ($run) = @_;
	eval { $run->{handle}->finish; };
	return slurp_file($run->{err});
}

sub run_workload
{
	my ($node, $before, @names) = @_;
	return finish_workload(start_workload($node, $before, @names));
}

# all_exact(NODE, NAME [, DATABASE]): one assertion about all views of app.  What workloads left is checked
# too, once, and dropped; so are views that one left paused.
sub all_exact
{
	my ($node, $name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $end = time + 60;
	my ($out, $err);
	$database //= 'app';
	while (1)
	{
		# no answer: the server may just have been started
		my $status = psql_anyway($node, $database, <<'SQL', stdout => \$out, stderr => \$err, on_error_die => 0);
DO $$ BEGIN PERFORM streamext.resume('total'); END $$;
SELECT streamext.wait_for(NULL, '60s');
DO $$ BEGIN PERFORM streamext.flush(); END $$;
SELECT testing.differences();
DO $$
DECLARE v text;
BEGIN
	FOR v IN SELECT view FROM streamext.views WHERE view::text LIKE 'x\_%' LOOP
		EXECUTE 'DROP MATERIALIZED VIEW ' || v;
	END LOOP;
	FOR v IN SELECT alert FROM streamext.alert_status LOOP
		PERFORM streamext.drop_alert(v);
	END LOOP;
END
$$;
-- one that stays may take the next alert for the last, and not begin to track its view
CALL testing.await_that($$SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'streamext alerter' AND datname = current_database()$$);
SQL
		last if $status == 0 || time > $end;
		sleep 0.05;
	}
	my $exact = is($out, "t\n", "$name: all views are exact");
	diag($err, "\n", StreamextTest::try_query($node, $database, 'SELECT s::text FROM streamext.status s') // 'no status')
	  unless $exact;
	return $exact;
}

# name => actions, from the one list
sub stop_point_list
{
	my $text = slurp_file(source_dir() . '/src/testing/stop_points_list.h');
	$text =~ s{/\*.*?\*/}{}gs;
	return $text =~ /SX_POINT\((\w+),\s*(SX_\w+)\)/g;
}

# undef while the server is not there
sub test_query
{
	my ($node, $query) = @_;
	return StreamextTest::try_query($node, 'app', $query);
}

sub log_position
{
	my ($node) = @_;
	return -s $node->logfile;
}

sub crash_seen
{
	my ($node, $from, $point, $seconds) = @_;
	return wait_until("a crash at $point", $seconds,
		sub { slurp_file($node->logfile, $from) =~ /stop point "\Q$point\E": crash/ });
}

# after a crash that the log shows
sub up_again
{
	my ($node, $from) = @_;
	return wait_until('the server to be up again', 60,
		sub { slurp_file($node->logfile, $from) =~ /reinitializing.*ready to accept connections/s });
}

1;
