# I1, I6: the clock on the wall jumps back and forth by hours; nothing waits for it, nothing ends early.
#
# The server runs with a clock of ours (test/shim/clock.c); the test's own clock stays right.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $hour = 3600;
my $wrong = 0;
my $clock = "$ENV{TESTDIR}/clock";

# by how many seconds the server's clock is wrong; written in place, because it is mapped
sub jump
{
	my ($seconds) = @_;
	$wrong += $seconds;
	open(my $file, -e $clock ? '+<' : '>', $clock) or die $!;
	syswrite($file, pack('q', $wrong)) == 8 or die $!;
	close $file;
	return;
}

jump(0);
my $node = new_node('clock', start => 0, settings => "streamext.flush_interval = '500ms'\n");
start_with_shim($node, build_shim('clock'), SHIM_CLOCK => $clock);
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (k int NOT NULL, v int);
CREATE TABLE other (k int NOT NULL, v int);
CREATE ROLE owner;
GRANT SELECT ON other TO owner;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW of_owner WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM other GROUP BY k;
ALTER MATERIALIZED VIEW of_owner OWNER TO owner;
INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 1000) i;
INSERT INTO other SELECT i % 10, i FROM generate_series(1, 1000) i;
SQL
my @views = qw(by_key of_owner);
oracle($node, 'app', $_, 'before') for @views;

# what is in the table: such a transaction reads no live state
sub flushed_soon
{
	my ($name, $rows) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(query_until($node, 'app',
		"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sum(n) FROM by_key; COMMIT", $rows, 20), "$name: flushed in time");
	return;
}

my $rows = 1000;
for my $seconds (-5 * $hour, 9 * $hour, -30 * 24 * $hour)
{
	my $name = sprintf('the clock jumps by %d h', $seconds / $hour);
	# some of it before, some after, while the next flush is due
	$node->safe_psql('app', 'INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 100) i');
	jump($seconds);
	$node->safe_psql('app', 'INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 100) i');
	$rows += 200;
	flushed_soon($name, $rows);
	oracle($node, 'app', $_, $name) for @views;
	$node->safe_psql('app', "SELECT streamext.flush()");
	is($node->safe_psql('app', 'SELECT lag < interval $$1 minute$$ FROM streamext.status WHERE view = $$by_key$$::regclass'),
		't', "$name: the lag shown is none");
}

# a wait that cannot succeed, because the stream is locked, ends when it should
for my $seconds (-5 * $hour, 5 * $hour)
{
	my $name = sprintf('wait_for while the clock jumps by %d h', $seconds / $hour);
	my $locker = background($node, 'app');
	my $waiter = background($node, 'app');
	$node->safe_psql('app', 'INSERT INTO ev VALUES (1, 1)');
	$rows++;
	statement($locker, 'BEGIN; LOCK TABLE ev');
	statement($locker, 'INSERT INTO ev VALUES (2, 2)');
	$node->safe_psql('app', 'INSERT INTO other VALUES (1, 1)');
	# pausing keeps its rows unread for as long as we like
	$node->safe_psql('app', "SELECT streamext.pause('by_key')");
	$node->safe_psql('app', 'INSERT INTO other VALUES (2, 2)');
	my $took = elapsed(sub {
		statement($waiter, "SELECT streamext.wait_for('by_key', '3s')", 1);
		query_until($node, 'app', "SELECT count(*) > 0 FROM pg_stat_activity
			WHERE query LIKE '%wait_for%' AND wait_event = 'Extension' AND pid <> pg_backend_pid()", 't', 10);
		jump($seconds);
		is(statement($waiter), 'f', "$name: it says that the view is behind");
	});
	cmp_ok($took, '>=', 2.9, "$name: not early");
	cmp_ok($took, '<', 20, "$name: not for hours");
	statement($locker, 'COMMIT');
	$rows++;
	$node->safe_psql('app', "SELECT streamext.resume('by_key')");
	$_->{in} .= "\\q\n" for $locker, $waiter;
	$_->{run}->finish for $locker, $waiter;
	oracle($node, 'app', $_, $name) for @views;
}

# a view that fails is tried again after seconds, not hours
$node->safe_psql('app', 'REVOKE SELECT ON other FROM owner; INSERT INTO other VALUES (3, 3)');
ok(query_until($node, 'app', "SELECT state FROM streamext.views WHERE view = 'of_owner'::regclass", 'failed', 30),
	'a view whose owner may not read the stream fails');
jump(-7 * $hour);
$node->safe_psql('app', 'GRANT SELECT ON other TO owner');
ok(query_until($node, 'app', "SELECT state FROM streamext.views WHERE view = 'of_owner'::regclass", 'live', 45),
	'it is tried again soon, although the clock was set back');
oracle($node, 'app', $_, 'mended') for @views;

# so is a flush
{
	my $locker = background($node, 'app');
	my $table = $node->safe_psql('app', "SELECT mat::text FROM streamext.view_def WHERE view = 'by_key'::regclass");
	statement($locker, "BEGIN; LOCK TABLE $table IN SHARE MODE");
	$node->safe_psql('app', 'INSERT INTO ev VALUES (4, 4)');
	$rows++;
	ok(query_until($node, 'app', "SELECT last_error LIKE '%locked%' FROM streamext.status WHERE view = 'by_key'::regclass",
		't', 30), 'a flush finds its table locked');
	jump(-3 * $hour);
	statement($locker, 'COMMIT');
	flushed_soon('the table is free again', $rows);
	$locker->{in} .= "\\q\n";
	$locker->{run}->finish;
	oracle($node, 'app', $_, 'flushed') for @views;
}

# a worker that is gone is started again
for my $kind (qw(consumer flusher))
{
	my ($pid) = worker_pids($node, $kind, 'app');
	$node->safe_psql('app', "SELECT pg_terminate_backend($pid)");
	jump(-4 * $hour);
	ok(query_until($node, 'postgres', "SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'streamext $kind' AND pid <> $pid", 1, 30), "$kind: started again although the clock was set back");
	$node->safe_psql('app', 'INSERT INTO ev VALUES (5, 5)');
	$rows++;
	flushed_soon("after a new $kind", $rows);
	oracle($node, 'app', $_, "after a new $kind") for @views;
}

# a CREATE that waits for its workers does not give up when the clock jumps forward
new_database($node, 'late');
$node->safe_psql('late', 'CREATE TABLE ev (k int)');
my ($launcher) = worker_pids($node, 'launcher');
kill 'STOP', $launcher;
my $creator = background($node, 'late');
statement($creator, 'CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k', 1);
ok(query_until($node, 'app', "SELECT count(*) > 0 FROM pg_stat_activity
	WHERE query LIKE 'CREATE MATERIALIZED%' AND wait_event = 'Extension'", 't', 10), 'CREATE waits for the launcher');
jump(3 * $hour);
kill 'CONT', $launcher;
unlike(statement($creator), qr/ERROR/, 'and succeeds');
$creator->{in} .= "\\q\n";
$creator->{run}->finish;
$node->safe_psql('late', 'INSERT INTO ev VALUES (1)');
oracle($node, 'late', 'v', 'created meanwhile');

# a start in the past of what is stored
$node->stop;
jump(-400 * 24 * $hour);
start_with_shim($node, "$ENV{TESTDIR}/shim_clock.so", SHIM_CLOCK => $clock);
$node->safe_psql('app', 'INSERT INTO ev VALUES (6, 6)');
$rows++;
flushed_soon('started a year earlier', $rows);
oracle($node, 'app', $_, 'started a year earlier') for @views;
is($node->safe_psql('app', 'SELECT sum(n) FROM by_key'), $rows, 'every row counts once');
$node->stop;
done_testing();
