# I1, I3, I6, I7: disks that fill up and are freed.  Nothing needs a hand: all goes on by itself and is exact.
#
# The disks are full where the test says so (test/shim/disk.c): the data folder, /dev/shm, or pg_wal.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my %disk = (data => 1, memory => 2, wal => 4);
my $file = "$ENV{TESTDIR}/full";
my @views = qw(total by_key listed);

sub fill
{
	my $sum = 0;
	$sum += $disk{$_} for @_;
	open(my $out, -e $file ? '+<' : '>', $file) or die $!;
	syswrite($out, pack('C', $sum)) == 1 or die $!;
	close $out;
	return;
}

# our own statements need no temporary files, the workers do
$ENV{PGOPTIONS} = '-c work_mem=256MB';
fill();
my $library = build_shim('disk');
# no segment of WAL may lie ready to be used again, or pg_wal would not be full for long
my $node = new_node('disk', start => 0, settings => <<'CONF');
streamext.flush_interval = '100ms'
streamext.live_memory = '64MB'
autovacuum = off
max_wal_size = 2GB
wal_recycle = off
min_dynamic_shared_memory = 0
work_mem = '1MB'
CONF
my $start = sub { start_with_shim($node, $library, SHIM_DISK => $file) };
$start->();
new_database($node, 'app');
my $sql = sub { return $node->safe_psql('app', $_[0]) };
$sql->(<<'SQL');
CREATE TABLE ev (k int NOT NULL, v int);
-- room for rows while the disk is full
INSERT INTO ev SELECT 0, i FROM generate_series(1, 300000) i;
DELETE FROM ev WHERE v < 300000;
VACUUM ev;
CREATE TABLE little (k int NOT NULL);
INSERT INTO little SELECT 0 FROM generate_series(1, 20000) i;
DELETE FROM little WHERE ctid < '(80,0)';
VACUUM little;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS s FROM ev;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW listed WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v % 2 = 0;
CREATE MATERIALIZED VIEW of_little WITH (streamext.continuous) AS SELECT count(*) AS n FROM little;
SQL
oracle($node, 'app', $_, 'before') for @views, 'of_little';
my $server = $node->{_pid};

sub status_of
{
	my ($view, $column) = @_;
	return $sql->("SELECT coalesce($column\::text, '') FROM streamext.status WHERE view = '$view'::regclass");
}

# says($VIEW, $PATTERN, $NAME): its reason, sooner or later
sub says
{
	my ($view, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $seen = '';
	my $found = wait_until("the reason of $view", 45, sub {
		$seen = status_of($view, "reason") . '|' . status_of($view, 'last_error');
		return $seen =~ $pattern;
	});
	ok($found, $name) or diag("it says: $seen");
	return;
}

sub all_live
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(query_until($node, 'app', "SELECT bool_and(state = 'live') FROM streamext.views", 't', 60), "$name: all views are live");
	ok(query_until($node, 'app', "SELECT count(*) FROM streamext.status WHERE reason IS NOT NULL", '0', 60), "$name: nothing is in the way")
	  or diag($sql->('SELECT view, state, reason FROM streamext.status'));
	oracle($node, 'app', $_, $name) for @views, 'of_little';
	return;
}

# ---- the data disk ----

fill('data');
for my $round (1 .. 3)
{
	# more than the pages that the tables have: flushes must fail
	$sql->("INSERT INTO ev SELECT 1000 * $round + i % 1000, i FROM generate_series(1, 20000) i");
	$sql->('INSERT INTO little VALUES (1)');
	is(difference_now($_), '', "data disk full, round $round: $_ can be read and is exact") for @views;
}

# waits only for what can move without the disk: live state
sub difference_now
{
	my ($view) = @_;
	return 'it is behind' unless $sql->("SELECT streamext.wait_for('$view', '30s')") eq 't';
	return difference($node, 'app', $view);
}
says('listed', qr/No space left/, 'the view that could not be written says why');
oracle($node, 'app', 'of_little', 'a view that needs no room goes on');
is($sql->("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT n > 0 FROM of_little; COMMIT"), 't', 'and is written');
my ($status, $out, $err) = $node->psql('app', 'CREATE TABLE too_much AS SELECT i, repeat($$x$$, 1000) FROM generate_series(1, 100000) i');
like($err, qr/No space left/, 'the disk is full indeed');
fill();
all_live('data disk freed');
is($node->{_pid}, $server, 'the server has not been restarted');
ok(query_until($node, 'app', 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM listed; COMMIT',
	$sql->('SELECT count(*) FROM ev WHERE v % 2 = 0'), 60), 'everything is written');

# ---- temporary files of a builder ----

my $creator = background($node, 'app');
statement($creator, 'BEGIN');
is(statement($creator, 'CREATE MATERIALIZED VIEW built WITH (streamext.continuous) AS
	SELECT k, v, count(*) AS n, max(k::text || v) AS m FROM ev GROUP BY k, v'), '', 'a view with many groups');
fill('data');
statement($creator, 'COMMIT');
says('built', qr/No space left/, 'it says that there is no room for it');
$sql->('INSERT INTO ev SELECT 5, i FROM generate_series(1, 100) i');
is(difference_now('total'), '', 'others are exact meanwhile');
fill();
push @views, 'built';
all_live('room for its groups');

# ---- shared memory ----

fill('memory');
$sql->('INSERT INTO little VALUES (2)');
$sql->("INSERT INTO ev SELECT i, i FROM generate_series(1, 150000) i");
$sql->('INSERT INTO little VALUES (3)');
my $shown = $sql->("SELECT streamext.wait_for('of_little', '60s')");
is($shown, 't', 'shared memory full: a view that needs little goes on');
is(difference($node, 'app', 'of_little'), '', 'and is exact');
oracle($node, 'app', $_, 'shared memory full, the slow path') for @views;
fill();
all_live('shared memory freed');
# workers that start while there is none
fill('memory');
for my $kind (qw(consumer flusher))
{
	my ($pid) = worker_pids($node, $kind, 'app');
	$sql->("SELECT pg_terminate_backend($pid)");
	wait_until("$kind to be gone", 30, sub { !kill(0, $pid) });
}
$sql->('INSERT INTO little VALUES (4)');
$sql->('INSERT INTO ev SELECT 6, i FROM generate_series(1, 100) i');
fill();
all_live('workers started without shared memory');

# ---- the WAL disk ----

# the server ends with a PANIC: PostgreSQL knows no other way
allow_in_log('PANIC:  could not write to file "pg_wal/xlogtemp|terminated by signal 6: Aborted');
for my $round (1 .. 2)
{
	fill('wal');
	my $load = load_until_panic($round);
	fill();
	if (!kill(0, $node->{_pid} // 0))
	{
		$node->{_pid} = undef;
		$start->();
	}
	ok(wait_ready($node), "WAL disk freed, round $round: up again");
	$sql->('INSERT INTO ev SELECT 8, i FROM generate_series(1, 100) i');
	all_live("WAL disk freed, round $round");
}

# writes until the server gives up
sub load_until_panic
{
	my ($round) = @_;
	my $failed = 0;
	for my $i (1 .. 60)
	{
		my $status = psql_anyway($node, 'app', "INSERT INTO ev SELECT 7, i FROM generate_series(1, 20000) i");
		if ($status != 0)
		{
			$failed = 1;
			last;
		}
	}
	ok($failed, "WAL disk full, round $round: a writer fails");
	return;
}
is($sql->('SELECT count(*) FROM streamext.dead_letters'), '0', 'no dead letters');
$node->stop;
done_testing();
