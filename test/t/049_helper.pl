# Large transactions are computed by two processes: whatever happens to the second one, to the transaction or to a view
# meanwhile, views are exact, and rows are judged as they would be without it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextFaults;
use StreamextTest;
use Test::More;

allow_in_log('terminating background worker "streamext helper"');
allow_in_log('stop point');
allow_in_log('background worker "streamext helper" \(PID \d+\) exited with exit code 1');

my $node = new_node('helper', settings => "streamext.flush_interval = '1h'\n");
new_database($node, 'app');
test_functions($node, 'app');
# one view's function makes all slower than who writes, so that there is always something for a second process
$node->safe_psql('app', <<'SQL');
CREATE FUNCTION slow(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN length(md5(md5(v::text))); END';
CREATE TABLE names (k int PRIMARY KEY, name text NOT NULL);
INSERT INTO names SELECT i, 'name ' || i % 7 FROM generate_series(0, 49) i;
CREATE TABLE ev (at bigint NOT NULL, k int NOT NULL, v int NOT NULL) PARTITION BY LIST (k);
CREATE TABLE ev_0 PARTITION OF ev FOR VALUES IN (0, 1, 2);
CREATE TABLE ev_rest PARTITION OF ev DEFAULT;
SELECT streamext.create_stream('ev', event_time => 'at');
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total, avg(v) AS mean FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW costly WITH (streamext.continuous) AS SELECT slow(v) AS l, count(*) AS n, max(v) AS high FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW few WITH (streamext.continuous) AS SELECT at, k, v FROM ev WHERE v % 1000 = 0;
CREATE MATERIALIZED VIEW joined WITH (streamext.continuous) AS
  SELECT n.name, count(*) AS n, sum(e.v) AS total FROM ev e JOIN names n USING (k) GROUP BY n.name;
CREATE MATERIALIZED VIEW windows WITH (streamext.continuous) AS SELECT streamext.tumble(at, 1000) AS w, k, count(*) AS n FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW sliding WITH (streamext.continuous) AS SELECT streamext.hop(at, 1000, 4000) AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW spans WITH (streamext.continuous) AS
  SELECT k, streamext.session(at, 5000) AS span, count(*) AS n FROM ev GROUP BY k, streamext.session(at, 5000);
CREATE MATERIALIZED VIEW part WITH (streamext.continuous) AS SELECT v % 10 AS d, count(*) AS n FROM ev_rest GROUP BY 1;
SQL
my @views = qw(by_key few joined windows sliding part);
$node->safe_psql('app', 'CREATE TABLE lengths AS SELECT v, slow(v) AS l FROM generate_series(0, 10000) v');
my $spans = <<'SQL';
SELECT k, int8range(min(at), max(at) + 5000) AS span, count(*) AS n
  FROM (SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY k ORDER BY at RANGE UNBOUNDED PRECEDING) AS number
    FROM (SELECT *, coalesce(at - lag(at) OVER (PARTITION BY k ORDER BY at) >= 5000, true) AS starts FROM ev) a) b GROUP BY k, number
SQL

sub all_views
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	oracle($node, 'app', $_, $when) for @views;
	oracle($node, 'app', 'costly', $when, 'SELECT l, count(*) AS n, max(v) AS high FROM ev JOIN lengths USING (v) GROUP BY l');
	oracle($node, 'app', 'spans', $when, $spans);
	return;
}

my $rows = 20000;
my $step = 0;

# rows of a time that follows all before
sub rows_of
{
	my ($n) = @_;
	$step++;
	return "INSERT INTO ev SELECT 1000000::bigint * $step + i, i % 50, i % 10000 FROM generate_series(1, $n) i";
}

# a transaction with as many rows as it takes for the helper to come by this point
sub open_until
{
	my ($session, $point, $what, $insert) = @_;
	statement($session, 'BEGIN');
	return wait_until("the helper at $point", 60, sub {
		statement($session, $insert // rows_of($rows));
		return $node->safe_psql('app', "SELECT $what > 0 FROM testing.points() WHERE point = '$point'") eq 't';
	});
}

# the helper has computed something, and waits before it says so; a transaction is open, of which it has computed a part
sub open_and_wait
{
	my ($session) = @_;
	$node->safe_psql('app', "SELECT testing.stop('helper_computed', 'wait')");
	ok(open_until($session, 'helper_computed', 'waiting'), 'the helper is at work');
	return;
}

sub release
{
	return $node->safe_psql('app', 'SELECT testing.release()');
}

is($node->safe_psql('app', 'SELECT streamext.wait_for()'), 't', 'views are live');
is(scalar(worker_pids($node, 'helper')), 0, 'without large transactions there is no helper');

# ---- it is at work: held until it has answered, together with what comes behind ----
my $session = background($node, 'app');
my $before = $node->safe_psql('app', 'SELECT coalesce(sum(n), 0) FROM by_key');
open_and_wait($session);
is(statement($session, 'COMMIT'), '', 'who writes does not wait');
$node->safe_psql('app', "INSERT INTO ev SELECT 1000000::bigint * $step + 500000, 7, 7");
is($node->safe_psql('app', "SELECT streamext.wait_for('by_key', '500ms')"), 'f', 'the transaction waits for the helper');
is($node->safe_psql('app', 'SELECT coalesce(sum(n), 0) FROM by_key'), $before, 'nothing of it is visible, nor of what is behind it');
like($node->safe_psql('app', "SELECT lag_rows FROM streamext.status WHERE view = 'by_key'::regclass"), qr/^[1-9]/, 'status shows what waits');
release();
all_views('computed by two');

# ---- a large transaction at once, with sub-transactions that are rolled back ----
is(statement($session, join(';', 'BEGIN', rows_of($rows), 'SAVEPOINT a', rows_of($rows), 'ROLLBACK TO a', 'SAVEPOINT b', rows_of($rows),
	'INSERT INTO names VALUES (50 + ' . $step . ", 'of the same')", "INSERT INTO ev SELECT 1000000::bigint * $step + i, 50 + $step, i FROM generate_series(1, 10000) i", 'COMMIT')),
	'', 'with savepoints');
all_views('with savepoints');

# ---- rolled back while the helper is at work ----
open_and_wait($session);
is(statement($session, 'ROLLBACK'), '', 'rolled back');
release();
is(statement($session, rows_of(10)), '', 'others go on');
all_views('rolled back');

# ---- some of its rows go again ----
$node->safe_psql('app', <<'SQL');
CREATE TABLE cut (k int NOT NULL, v int NOT NULL) PARTITION BY LIST (k);
CREATE TABLE cut_0 PARTITION OF cut FOR VALUES IN (0);
CREATE TABLE cut_1 PARTITION OF cut FOR VALUES IN (1);
CREATE MATERIALIZED VIEW cuts WITH (streamext.continuous) AS SELECT k, count(*) AS n, max(slow(v)) AS l FROM cut GROUP BY k;
SELECT streamext.wait_for('cuts');
SQL
$node->safe_psql('app', "SELECT testing.stop('helper_collected', 'count')");
my $cut = "INSERT INTO cut SELECT %s, i FROM generate_series(1, $rows) i";
ok(open_until($session, 'helper_collected', 'hits', sprintf($cut, 'i % 2')), 'rows of two partitions are computed');
is(statement($session, 'TRUNCATE cut_0'), '', 'those of one are not there any more');
is(statement($session, "INSERT INTO cut SELECT 1, i FROM generate_series(1, 6 * $rows) i; COMMIT"), '', 'more than are computed until the commit');
oracle($node, 'app', 'cuts', 'truncated in the same transaction');
release();

# ---- what it knows is as new as what the consumer knows ----
$node->safe_psql('app', "SELECT testing.stop('helper_collected', 'count')");
ok(open_until($session, 'helper_collected', 'hits', sprintf($cut, 1)), 'there is a helper');
is(statement($session, 'COMMIT'), '', 'committed');
oracle($node, 'app', 'cuts', 'before the condition');
$node->safe_psql('app', "SELECT streamext.alter_stream('cut', valid => 'v > 100')");
release();
$node->safe_psql('app', "SELECT testing.stop('helper_collected', 'count')");
my $invalid = $node->safe_psql('app', 'SELECT count(*) FROM cut WHERE v <= 100');
ok(open_until($session, 'helper_collected', 'hits', sprintf($cut, 1)), 'and another transaction');
is(statement($session, 'COMMIT'), '', 'committed');
oracle($node, 'app', 'cuts', 'with the condition',
	"SELECT 1 AS k, (SELECT count(*) FROM cut WHERE v > 100) + $invalid AS n, 32 AS l");
release();

# ---- the last view goes while it has jobs ----
new_database($node, 'lonely');
test_functions($node, 'lonely');
$node->safe_psql('lonely', <<'SQL');
CREATE FUNCTION slow(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN length(md5(md5(v::text))); END';
CREATE TABLE cut (k int NOT NULL, v int NOT NULL);
CREATE MATERIALIZED VIEW cuts WITH (streamext.continuous) AS SELECT k, count(*) AS n, max(slow(v)) AS l FROM cut GROUP BY k;
SELECT streamext.wait_for('cuts');
SELECT testing.stop('helper_computed', 'wait');
SQL
my $lonely = background($node, 'lonely');
ok(open_until($lonely, 'helper_computed', 'waiting', sprintf($cut, 1)), 'the helper of another database is at work');
is(statement($lonely, 'ROLLBACK'), '', 'rolled back');
$node->safe_psql('lonely', 'DROP MATERIALIZED VIEW cuts');
release();
ok(query_until($node, 'lonely', "SELECT count(*) FROM pg_stat_activity WHERE datname = 'lonely' AND backend_type LIKE 'streamext%'", '0'), 'all workers leave');

# ---- it ends, it fails, it crashes ----
open_and_wait($session);
is($node->safe_psql('app', "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'streamext helper'"), '1', 'it is ended');
is(statement($session, 'COMMIT'), '', 'committed without it');
release();
all_views('without the helper that had begun');
for my $point (qw(helper_started helper_given helper_collected helper_computed))
{
	for my $action (qw(error terminate))
	{
		# another one is to start
		$node->safe_psql('app', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'streamext helper'");
		ok(wait_until('the helper to end', 30, sub { !worker_pids($node, 'helper') }), 'there is none');
		$node->safe_psql('app', "SELECT testing.stop('$point', '$action')");
		ok(open_until($session, $point, 'fired'), "$action at $point");
		is(statement($session, 'COMMIT'), '', 'committed');
		oracle($node, 'app', $_, "$action at $point") for qw(by_key joined windows);
	}
}

# ---- the consumer ends while it is at work ----
open_and_wait($session);
my ($helper) = worker_pids($node, 'helper');
$node->safe_psql('app', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'streamext consumer'");
ok(wait_until('the helper to end', 60, sub { !grep { $_ == $helper } worker_pids($node, 'helper') }), 'the next consumer ends it');
is(statement($session, 'COMMIT'), '', 'committed');
release();
all_views('with another consumer');

# ---- views change meanwhile ----
open_and_wait($session);
$node->safe_psql('app', 'DROP MATERIALIZED VIEW part; CREATE MATERIALIZED VIEW part WITH (streamext.continuous) AS SELECT v % 7 AS d, count(*) AS n FROM ev_rest GROUP BY 1 WITH NO DATA');
$node->safe_psql('app', "SELECT streamext.pause('few')");
is(statement($session, 'COMMIT'), '', 'committed');
$node->safe_psql('app', "SELECT streamext.resume('few')");
release();
$node->safe_psql('app', 'REFRESH MATERIALIZED VIEW part');
all_views('when views have changed');

# ---- rows that fail, and rows that are not valid ----
$node->safe_psql('app', <<'SQL');
CREATE MATERIALIZED VIEW inverse WITH (streamext.continuous) AS SELECT k, sum(1000 / (v - 100)) AS total FROM ev WHERE v >= 100 GROUP BY k WITH NO DATA;
SELECT streamext.wait_for();
SQL
my $since = $node->safe_psql('app', 'SELECT max(at) FROM ev');
is(statement($session, rows_of($rows)), '', 'rows, some of which fail');
oracle($node, 'app', 'inverse', 'rows that fail', "SELECT k, sum(1000 / (v - 100)) AS total FROM ev WHERE v > 100 AND at > $since GROUP BY k");
$node->safe_psql('app', "SELECT streamext.flush('inverse')");
is($node->safe_psql('app', "SELECT count(*) FROM streamext.dead_letters WHERE view = 'inverse'::regclass"), '2', 'each once a dead letter');
all_views('rows that fail for another view');
$node->safe_psql('app', 'DROP MATERIALIZED VIEW inverse');

# ---- rows that are late are late all the same ----
$node->safe_psql('app', <<'SQL');
CREATE TABLE timed (at bigint NOT NULL, v int NOT NULL);
SELECT streamext.create_stream('timed', event_time => 'at', late_rows => 'drop');
CREATE MATERIALIZED VIEW on_time WITH (streamext.continuous) AS SELECT streamext.tumble(at, 1000) AS w, count(*) AS n, max(slow(v)) AS l FROM timed GROUP BY 1;
INSERT INTO timed VALUES (50000, 0);
SELECT streamext.wait_for('on_time');
SQL
is(statement($session, "INSERT INTO timed SELECT 50000 - $rows + i, i FROM generate_series(1, 2 * $rows) i; INSERT INTO timed VALUES (71000, 1)"), '', 'half of them late');
oracle($node, 'app', 'on_time', 'late rows', 'SELECT streamext.tumble(at, 1000) AS w, count(*) AS n, max(slow(v)) AS l FROM timed WHERE at >= 50000 GROUP BY 1');
is($node->safe_psql('app', "SELECT late_rows FROM streamext.status WHERE view = 'on_time'::regclass"), $rows - 1, 'counted');

# ---- memory that is short ----
$node->safe_psql('app', <<'SQL');
CREATE TABLE wide (k int NOT NULL, note text);
CREATE MATERIALIZED VIEW notes WITH (streamext.continuous) AS SELECT k, max(note) AS note, max(slow(k)) AS l FROM wide GROUP BY k;
CREATE MATERIALIZED VIEW notes_too WITH (streamext.continuous) AS SELECT k % 1000 AS k, max(note) AS note FROM wide GROUP BY 1;
ALTER SYSTEM SET streamext.live_memory = '4MB';
SELECT pg_reload_conf();
SELECT streamext.wait_for('notes'), streamext.wait_for('notes_too');
SQL
is(statement($session, "INSERT INTO wide SELECT i, repeat(i::text, 20) FROM generate_series(1, $rows) i"), '', 'more groups than fit');
oracle($node, 'app', $_, 'memory is short') for qw(notes notes_too);
$node->safe_psql('app', 'ALTER SYSTEM RESET streamext.live_memory; SELECT pg_reload_conf()');

# ---- a crash while it is at work ----
open_and_wait($session);
$node->stop('immediate');
$node->start;
ok(wait_ready($node), 'the server is there again');
$session = background($node, 'app');
is(statement($session, rows_of($rows)), '', 'rows');
all_views('after a crash');

# ---- without ----
$node->safe_psql('app', 'ALTER SYSTEM SET streamext.enable_helper = off; SELECT pg_reload_conf()');
ok(query_until($node, 'app', 'SHOW streamext.enable_helper', 'off'), 'turned off');
ok(wait_until('the helper to end', 60, sub { !worker_pids($node, 'helper') }), 'it ends when nothing comes');
is(statement($session, rows_of($rows)), '', 'rows');
all_views('turned off');
is(scalar(worker_pids($node, 'helper')), 0, 'none has started');
$node->stop;
done_testing();
