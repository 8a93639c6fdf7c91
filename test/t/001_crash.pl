# I1, I3: a view is exact after kill -9 of the server, of a worker, of a backend, at any moment.
#
# Each round runs a random workload (COPY, single rows, savepoints, rollbacks,
# prepared transactions) from three sessions and kills one process while it runs.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;
use Time::HiRes qw(sleep);

my $rounds = 20;
my @views = qw(by_key total big joined);

seed(20260101);
allow_in_log('terminated by signal 9: Killed');
my $node = new_node('crash', settings => "checkpoint_timeout = 30s\nwal_recycle = off\n");
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE names (k int PRIMARY KEY, name text NOT NULL);
INSERT INTO names SELECT i, 'name ' || i % 7 FROM generate_series(0, 49) i;
CREATE TABLE ev (k int NOT NULL, v int, note text);
INSERT INTO ev SELECT i % 60, i, NULL FROM generate_series(1, 1000) i;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, count(v) AS nv, sum(v) AS total, avg(v) AS mean, min(v) AS low, max(note) AS last_note
  FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS
  SELECT count(*) AS n, sum(v) AS total, max(v) AS high FROM ev;
CREATE MATERIALIZED VIEW big WITH (streamext.continuous) AS
  SELECT k, v, upper(note) AS note FROM ev WHERE v > 900;
CREATE MATERIALIZED VIEW joined WITH (streamext.continuous) AS
  SELECT n.name, count(*) AS n, sum(e.v) AS total FROM ev e JOIN names n USING (k) GROUP BY n.name
  HAVING count(*) > 1;
SQL
oracle($node, 'app', $_, 'before') for @views;

my $prepared = 0;

# One transaction's statements.
sub transaction
{
	my ($round) = @_;
	my $row = sub {
		return sprintf("(%d, %s, %s)", pick(60), chance(5) ? 'NULL' : pick(1000),
			chance(20) ? "repeat('x', " . (1 + pick(3000)) . ")" : "'r$round'");
	};
	my $insert = sub { return 'INSERT INTO ev VALUES ' . join(', ', map { $row->() } 0 .. pick($_[0])) . ';' };
	my $kind = pick(10);

	return $insert->(1) if $kind < 3;
	return $insert->(200) if $kind == 3;
	if ($kind == 4)
	{
		return "COPY ev FROM STDIN;\n"
		  . join('', map { pick(60) . "\t" . pick(1000) . "\tc$round\n" } 0 .. pick(2000)) . "\\.";
	}
	return 'INSERT INTO ev SELECT g % 60, g % 1000, NULL FROM generate_series(1, ' . (1 + pick(5000)) . ') g;'
	  if $kind == 5;
	return 'BEGIN; ' . $insert->(20) . ' ROLLBACK;' if $kind == 6;
	if ($kind == 7)
	{
		return 'BEGIN; ' . $insert->(3) . ' SAVEPOINT a; ' . $insert->(5)
		  . (chance(50) ? ' ROLLBACK TO a; ' : ' RELEASE a; ') . $insert->(3)
		  . ' SAVEPOINT b; ' . $insert->(3) . (chance(70) ? ' COMMIT;' : ' ROLLBACK;');
	}
	if ($kind == 8)
	{
		# only rolled back: a DELETE that lasts would part the view from the raw rows, by design
		return 'BEGIN; ' . $insert->(3) . ' SAVEPOINT a; ' . $insert->(2)
		  . ' DELETE FROM ev WHERE ctid = $$(0,1)$$; ROLLBACK TO a; COMMIT;';
	}
	my $name = 'p' . ++$prepared;
	return 'BEGIN; ' . $insert->(10) . " PREPARE TRANSACTION '$name';"
	  . (chance(60) ? (chance(70) ? " COMMIT PREPARED '$name';" : " ROLLBACK PREPARED '$name';") : '');
}

for my $round (1 .. $rounds)
{
	my $victim = (qw(server consumer backend flusher))[ $round % 4 ];
	my @sessions;
	for my $session (1 .. 3)
	{
		my $script = join("\n", map { transaction($round) } 1 .. 80) . "\n";
		my $file = "$ENV{TESTDIR}/round_${round}_$session.sql";
		append_to_file($file, $script);
		my $out = '';
		push @sessions, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('app'), '-f', $file ],
			'>', \$out, '2>&1');
	}
	# somewhere within the workload: the moment is the test's, not a wait for something
	my $delay = (20 + pick(400)) / 1000;
	sleep $delay;
	my $pid;
	if ($victim eq 'server')
	{
		$pid = $node->{_pid};
		$node->kill9;
	}
	else
	{
		($pid) = $victim eq 'backend'
		  ? $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity
				WHERE datname = 'app' AND backend_type = 'client backend' LIMIT 1")
		  : worker_pids($node, $victim, 'app');
		kill_process($pid) if $pid;
	}
	for my $session (@sessions)
	{
		eval { $session->finish; };
	}
	if ($victim eq 'server')
	{
		# what the server left must be gone before a new one may start
		wait_until("the killed server to be gone", 30, sub { !kill(0, $pid) });
		wait_until("the server to start again", 30, sub { $node->{_pid} = undef; $node->start(fail_ok => 1) })
		  or BAIL_OUT('the server did not start');
	}
	ok(wait_ready($node), "round $round: up again after kill of $victim") or last;
	# an old prepared transaction is committed, rolled back, or left for a later round
	for my $gid (split /\n/, $node->safe_psql('app', 'SELECT gid FROM pg_prepared_xacts ORDER BY gid'))
	{
		$node->safe_psql('app', (chance(60) ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'") if chance(70) ;
	}
	$node->safe_psql('app', 'CHECKPOINT') if chance(30);
	my $exact = 1;
	$exact &&= oracle($node, 'app', $_, "round $round, $victim after $delay s") for @views;
	last unless $exact;
}

is($node->safe_psql('app', 'SELECT count(*) > 20000 FROM ev'), 't', 'the workload did something');
is($node->safe_psql('app', 'SELECT count(*) FROM streamext.dead_letters'), '0', 'no dead letters');
$node->safe_psql('app', "COMMIT PREPARED '$_'")
  for split /\n/, $node->safe_psql('app', 'SELECT gid FROM pg_prepared_xacts');
oracle($node, 'app', $_, 'at the end') for @views;
$node->safe_psql('app', 'SELECT streamext.flush()');
oracle($node, 'app', $_, 'at the end, flushed') for @views;
no_orphans($node);
$node->stop;
done_testing();
