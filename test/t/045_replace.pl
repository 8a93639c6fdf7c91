# I1, I5, I8: a view is rebuilt (REFRESH) and gets new definitions (replace_view) while rows come in and
# readers read: they never see an error, a gap, a mix or a step back; then it is exact.  Also over crashes.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextFaults;
use StreamextTest;
use Test::More;
use Time::HiRes qw(sleep);

seed(20261122);
allow_in_log('terminated by signal 9: Killed');
allow_in_log('could not replace a continuous view');

my $node = new_node('replace', settings => "streamext.flush_interval = '50ms'\n");
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (id bigserial, k int NOT NULL, v int NOT NULL);
CREATE INDEX ON ev (id);
INSERT INTO ev (k, v) SELECT i / 2 % 50, CASE i % 2 WHEN 0 THEN i / 2 ELSE -(i / 2) END FROM generate_series(0, 9999) i;
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW rows WITH (streamext.continuous) AS SELECT id, k, v FROM ev;
CREATE INDEX sums_n ON sums (n);
COMMENT ON INDEX streamext.sums_n IS 'kept';
CREATE VIEW over_it AS SELECT sum(n) AS n, sum(total) AS total FROM sums;
SQL
oracle($node, 'app', $_, 'before') for qw(sums rows);

# each transaction adds two rows whose values cancel out: whoever sees one of them sees both
append_to_file("$ENV{TESTDIR}/pair.bench", <<'SQL');
\set k random(0, 49)
\set v random(1, 1000)
BEGIN;
INSERT INTO ev (k, v) VALUES (:k, :v);
INSERT INTO ev (k, v) VALUES (:k, -:v);
COMMIT;
SQL
# what the definitions have in common holds in each: keys are only named in another way
my @definitions = (
	'SELECT k, count(*) AS n, sum(v) AS total FROM ev GROUP BY k',
	'SELECT k + 0 AS k, count(v) AS n, sum(v) AS total FROM ev GROUP BY k + 0',
	'SELECT CASE WHEN k < 10 THEN k ELSE k END AS k, count(*) AS n, sum(v) AS total FROM ev WHERE k >= 0 GROUP BY 1');
my $reader = <<'SQL';
DO $$
DECLARE
	last bigint := 0;
	n bigint; total bigint; keys bigint; nrows bigint; dup bigint;
BEGIN
	FOR i IN 1 .. 1000000 LOOP
		SELECT sum(s.n), sum(s.total), count(*), count(*) - count(DISTINCT k) INTO n, total, keys, dup FROM sums s;
		IF n < last OR n % 2 <> 0 OR total <> 0 OR keys <> 50 OR dup <> 0 OR n IS NULL THEN
			RAISE EXCEPTION 'read %: n %, before %, total %, keys %, duplicates %', i, n, last, total, keys, dup;
		END IF;
		last := n;
		SELECT o.n, o.total INTO n, total FROM over_it o;
		IF n < last OR total <> 0 THEN
			RAISE EXCEPTION 'dependent view: n %, before %, total %', n, last, total;
		END IF;
		last := n;
		SELECT count(*), coalesce(sum(v), 0) INTO nrows, total FROM rows;
		IF nrows < last OR total <> 0 THEN
			RAISE EXCEPTION 'rows: n %, before %, total %', nrows, last, total;
		END IF;
		last := nrows;
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM ended);
	END LOOP;
END $$;
SQL
$node->safe_psql('app', 'CREATE TABLE ended (yes bool)');

sub start_reader
{
	my $r = { out => '' };
	$r->{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('app'), '-c', $reader ],
		'<', '/dev/null', '>', \$r->{out}, '2>&1');
	return $r;
}

# ---- under load ----
my $load = { out => '' };
$load->{run} = IPC::Run::start([ 'pgbench', '-n', '-c', 2, '-T', 300, '-f', "$ENV{TESTDIR}/pair.bench", $node->connstr('app') ],
	'<', '/dev/null', '>', \$load->{out}, '2>&1');
my @readers = map { start_reader() } 1 .. 2;
my $turns = 0;
for my $round (1 .. 12)
{
	my $sql = $round % 3 == 0 ? 'REFRESH MATERIALIZED VIEW sums'
	  : $round % 3 == 1 ? "SELECT streamext.replace_view('sums', '$definitions[$round % @definitions]')"
	  : 'REFRESH MATERIALIZED VIEW rows';
	my ($code, $out, $err) = $node->psql('app', $sql);
	is($code, 0, "round $round: $sql") or diag($err);
	is($node->safe_psql('app', "SELECT streamext.wait_for(NULL, '60s')"), 't', "round $round: done");
	$turns++;
}
stop_load($load);
$node->safe_psql('app', 'INSERT INTO ended VALUES (true)');
for my $r (@readers)
{
	$r->{run}->finish;
	is($r->{out}, '', 'a reader saw no error, no gap, no mix and no step back');
}
$node->safe_psql('app', 'TRUNCATE ended');
oracle($node, 'app', $_, 'after the load') for qw(sums rows);
is($node->safe_psql('app', "SELECT count(*) FROM pg_class WHERE relnamespace = 'streamext'::regnamespace AND relname ~ '^(query|mat|view)_[0-9]+\$'"),
	'4', 'nothing is left of what was replaced');
is($node->safe_psql('app', "SELECT obj_description('streamext.sums_n'::regclass)"), 'kept', 'the index, its name and its comment are kept');

# ---- what the raw rows have lost is corrected ----
$node->safe_psql('app', 'DELETE FROM ev WHERE k = 7; UPDATE ev SET v = 0 WHERE k = 8');
unlike(difference($node, 'app', 'sums'), qr/^$/, 'what was counted stays counted');
$node->safe_psql('app', 'REFRESH MATERIALIZED VIEW sums; REFRESH MATERIALIZED VIEW CONCURRENTLY rows');
ok($node->safe_psql('app', "SELECT streamext.wait_for(NULL, '60s')"), 'rebuilt');
oracle($node, 'app', $_, 'after REFRESH') for qw(sums rows);

# ---- snapshots from before ----
my $old = background($node, 'app');
my $new = background($node, 'app');
statement($old, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM ev');
$node->safe_psql('app', 'REFRESH MATERIALIZED VIEW sums');
like(statement($old, 'SELECT count(*) FROM sums'), qr/ERROR:  continuous view "sums" has been replaced since this transaction's snapshot was taken/,
	'a snapshot from before the swap cannot read it');
statement($old, 'ROLLBACK');
is(statement($old, 'SELECT count(*) FROM sums'), '49', 'the next one can');
statement($old, 'BEGIN; DECLARE c CURSOR FOR SELECT k FROM sums ORDER BY k; FETCH 1 FROM c');
statement($new, 'REFRESH MATERIALIZED VIEW sums', 1);
ok(query_until($node, 'app', "SELECT phase LIKE 'replacement: %lock timeout%' FROM streamext.backfill_progress", 't'),
	'the swap waits for who reads, and says so');
is($node->safe_psql('app', 'SELECT count(*) FROM sums'), '49', 'it does not hold up other readers');
like(statement($old, 'FETCH ALL FROM c'), qr/^1\n.*\n49$/s, 'an open cursor goes on');
statement($old, 'COMMIT');
statement($new);
is($node->safe_psql('app', 'SELECT count(*) FROM streamext.backfill_progress'), '0', 'then it is done');
oracle($node, 'app', 'sums', 'after a cursor');
$_->{run}->kill_kill(grace => 5) for $old, $new;

# ---- crashes anywhere in between ----
for my $round (1 .. 10)
{
	my $victim = (qw(server consumer swapper flusher builder))[ $round % 5 ];
	my $view = $round % 2 ? 'sums' : 'rows';
	$node->safe_psql('app', $view eq 'sums' ? "SELECT streamext.replace_view('sums', '$definitions[$round % @definitions]')" : "BEGIN; REFRESH MATERIALIZED VIEW rows; COMMIT");
	my $insert = IPC::Run::start([ 'pgbench', '-n', '-c', 1, '-t', 100, '-f', "$ENV{TESTDIR}/pair.bench", $node->connstr('app') ],
		'<', '/dev/null', '>', \my $ignored, '2>&1');
	# the moment is the test's, not a wait for something
	sleep(pick(250) / 1000);
	if ($victim eq 'server')
	{
		my $pid = $node->{_pid};
		$node->kill9;
		eval { $insert->finish };
		wait_until('the killed server to be gone', 30, sub { !kill(0, $pid) });
		wait_until('the server to start again', 30, sub { $node->{_pid} = undef; $node->start(fail_ok => 1) })
		  or BAIL_OUT('the server did not start');
	}
	else
	{
		my ($pid) = worker_pids($node, $victim, 'app');
		kill_process($pid) if $pid;
		eval { $insert->finish };
	}
	ok(wait_ready($node), "round $round: up again after kill of $victim") or last;
	is($node->safe_psql('app', "SELECT streamext.wait_for(NULL, '60s')"), 't', "round $round: replaced") or last;
	oracle($node, 'app', $_, "round $round") for qw(sums rows);
}
is($node->safe_psql('app', "SELECT count(*) FROM pg_class WHERE relnamespace = 'streamext'::regnamespace AND relname ~ '^(query|mat|view)_[0-9]+\$'"),
	'4', 'nothing is left over');

# ---- windows computed anew under load: pairs of rows, of which a statement sees both or none ----
$node->safe_psql('app', <<'SQL');
CREATE TABLE timed (at bigint NOT NULL, v int NOT NULL);
SELECT streamext.create_stream('timed', event_time => 'at');
CREATE MATERIALIZED VIEW tens WITH (streamext.continuous) AS SELECT streamext.tumble(at, 10) AS w, count(*) AS n, sum(v) AS total FROM timed GROUP BY 1;
INSERT INTO timed SELECT i / 2 % 1000, CASE i % 2 WHEN 0 THEN i / 2 ELSE -(i / 2) END FROM generate_series(0, 9999) i;
SQL
append_to_file("$ENV{TESTDIR}/timed.bench", <<'SQL');
\set at random(0, 999)
\set v random(1, 1000)
INSERT INTO timed VALUES (:at, :v), (:at, -:v);
SQL
my $windows = <<'SQL';
DO $$
DECLARE bad record;
BEGIN
	FOR i IN 1 .. 1000000 LOOP
		SELECT * INTO bad FROM tens WHERE total <> 0 OR n % 2 <> 0;
		IF FOUND THEN
			RAISE EXCEPTION 'read %: %', i, bad;
		END IF;
		IF (SELECT count(*) FROM tens) <> 100 THEN
			RAISE EXCEPTION 'read %: % windows', i, (SELECT count(*) FROM tens);
		END IF;
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM ended);
	END LOOP;
END $$;
SQL
oracle($node, 'app', 'tens', 'before');
my $timed = { out => '' };
$timed->{run} = IPC::Run::start([ 'pgbench', '-n', '-c', 2, '-T', 300, '-f', "$ENV{TESTDIR}/timed.bench", $node->connstr('app') ],
	'<', '/dev/null', '>', \$timed->{out}, '2>&1');
my $looks = { out => '' };
$looks->{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('app'), '-c', $windows ],
	'<', '/dev/null', '>', \$looks->{out}, '2>&1');
for my $round (1 .. 10)
{
	my $from = 10 * pick(50);
	my $to = $from + 10 * (1 + pick(50));
	my $v = 1 + pick(1000);
	my ($code, $out, $err) = $node->psql('app', "DELETE FROM timed WHERE abs(v) = $v AND at BETWEEN 100 AND 899; CALL streamext.backfill('tens', $from, $to)");
	is($code, 0, "windows $from to $to computed anew") or diag($err);
}
stop_load($timed);
$node->safe_psql('app', 'INSERT INTO ended VALUES (true)');
$looks->{run}->finish;
is($looks->{out}, '', 'a reader saw every window, and no part of one');
$node->safe_psql('app', "CALL streamext.backfill('tens', -1000, 2000)");
oracle($node, 'app', 'tens', 'all computed anew');
$node->stop('immediate');
$node->start;
ok(wait_ready($node), 'up again');
oracle($node, 'app', 'tens', 'after a crash');

# ---- a builder of the hidden view that is at work when the view takes its place has not failed ----
test_functions($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE src (k int NOT NULL);
INSERT INTO src SELECT i % 5 FROM generate_series(1, 100) i;
CREATE MATERIALIZED VIEW counted WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM src GROUP BY k;
SELECT streamext.wait_for('counted');
SELECT testing.stop('swap_done', 'wait', view => 'counted'::regclass);
SELECT streamext.replace_view('counted', 'SELECT k, count(k) AS n FROM src GROUP BY k');
SQL
ok(query_until($node, 'app', "SELECT waiting FROM testing.points() WHERE point = 'swap_done'", '1'), 'the swap is done, but for its commit');
my $log_at = -s $node->logfile;
my ($writer, $locker) = map { background($node, 'app') } 1 .. 2;
# rows that are committed while the stream is locked: both views leave the others, and builders bring them up
statement($writer, 'BEGIN; INSERT INTO src SELECT i % 5 FROM generate_series(1, 10) i');
statement($locker, 'BEGIN; LOCK TABLE src', 1);
ok(query_until($node, 'app', "SELECT count(*) FROM pg_locks WHERE relation = 'src'::regclass AND NOT granted", '1'), 'the lock is waited for');
statement($writer, 'COMMIT');
statement($locker);
ok(query_until($node, 'app', "SELECT count(*) FROM streamext.view_states() WHERE state = 'live' AND view IN (SELECT view FROM streamext.view_def WHERE stream = 'src'::regclass)", '0'),
	'the views have left');
statement($locker, 'COMMIT');
ok(query_until($node, 'app', "SELECT count(*) FROM streamext.view_states() WHERE phase = 'waits for its table''s lock' AND view IN (SELECT view FROM streamext.view_def WHERE replaces = 'counted'::regclass)", '1'),
	'the builder of the hidden one waits for the swap');
$node->safe_psql('app', "SELECT testing.release('swap_done')");
is($node->safe_psql('app', "SELECT streamext.wait_for('counted', '60s')"), 't', 'replaced');
oracle($node, 'app', 'counted', 'replaced while it was brought up');
unlike(slurp_file($node->logfile, $log_at), qr/ended unexpectedly|could not bring up/, 'nothing is said to have failed');
$_->{run}->kill_kill(grace => 5) for $writer, $locker;

$node->stop;
done_testing();
