# I1: transaction ids pass 2^31 and 2^32 while rows arrive; tables are frozen; views go on exactly.
#
# pg_resetwal moves the cluster near these numbers.  It also takes the WAL away, so that each jump is a
# loss of WAL besides, behind which stored positions must hold.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my @views = qw(by_key total listed);
my $node = new_node('wraparound', settings => "autovacuum = off\nstreamext.flush_interval = '200ms'\n");
new_database($node, 'app');
my $sql = sub { return $node->safe_psql('app', $_[0]) };
$sql->(<<'SQL');
CREATE TABLE ev (k int NOT NULL, v int, note text);
INSERT INTO ev SELECT i % 60, i % 1000, 'first' FROM generate_series(1, 2000) i;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS total, max(note) AS last_note FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS total FROM ev;
CREATE MATERIALIZED VIEW listed WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v > 990;
SQL
$node->safe_psql('postgres', 'ALTER DATABASE template0 ALLOW_CONNECTIONS true');

sub exact
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	oracle($node, 'app', $_, $name) or BAIL_OUT('not exact') for @views;
	return;
}

sub next_xid
{
	return $sql->('SELECT pg_current_xact_id()');
}

# everything frozen, so that ids far ahead are still ahead
sub freeze
{
	for my $database (split /\n/, $node->safe_psql('postgres', 'SELECT datname FROM pg_database'))
	{
		$node->safe_psql($database, 'VACUUM FREEZE');
	}
	return;
}

# jump(XID): the next transaction id of the stopped cluster; within the same epoch
sub jump
{
	my ($xid) = @_;
	$sql->('SELECT streamext.flush()');
	# the slot lets go of old ids only behind the flush
	ok(query_until($node, 'app', 'SELECT bool_and(age(xmin) < 100) FROM pg_replication_slots', 't', 60), "before $xid: nothing is held");
	freeze();
	$node->stop;
	my $segment = sprintf('%s/pg_xact/%04X', $node->data_dir, int($xid / 2**20));
	open(my $out, '>>', $segment) or die $!;
	truncate($out, 2**18) or die $!;
	close $out;
	PostgreSQL::Test::Utils::system_or_bail('pg_resetwal', '-x', $xid, $node->data_dir);
	$node->start;
	cmp_ok(next_xid(), '>=', $xid, "the next transaction id is $xid");
	return;
}

# rows of many transactions, some open, some rolled back, until the ids are beyond a number
sub work_until
{
	my ($beyond) = @_;
	my $load = load($node, 'app', 3, single => 5, savepoint => 3, abort => 1, prepared => 1);
	my $passed = query_until($node, 'app', "SELECT pg_current_xact_id()::text::numeric > $beyond", 't', 60);
	stop_load($load);
	query_until($node, 'app', "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'", '0');
	# one that was stopped between PREPARE and COMMIT: views that are built wait for it
	$sql->("COMMIT PREPARED '$_'") for grep { $_ ne 'held' } split /\n/, $sql->('SELECT gid FROM pg_prepared_xacts');
	ok($passed, "transaction ids pass $beyond");
	return;
}

exact('before');
jump(1_900_000_000);
exact('after a jump');
$sql->("INSERT INTO ev SELECT i % 60, i % 1000, 'jumped' FROM generate_series(1, 1000) i");
exact('new rows after a jump');

jump(2**31 - 1500);
exact('before 2^31');
work_until(2**31 + 500);
exact('beyond 2^31');
freeze();
exact('frozen');
$node->stop('immediate');
$node->start;
exact('crashed beyond 2^31');

jump(3_900_000_000);
jump(2**32 - 1500);
exact('before 2^32');
# pg_resetwal took WAL from under the slot: that the jumps are reported is right
my $lost = $sql->('SELECT coalesce(sum(lost_intervals), 0) FROM streamext.status');
# open over the turn: written before it, committed behind it
my $open = background($node, 'app');
statement($open, "BEGIN; INSERT INTO ev SELECT i % 60, i, 'open' FROM generate_series(1, 100) i");
$sql->("BEGIN; INSERT INTO ev SELECT i % 60, i, 'held' FROM generate_series(1, 100) i; PREPARE TRANSACTION 'held'");
work_until(2**32 + 500);
exact('beyond 2^32');
statement($open, 'COMMIT');
$open->{in} .= "\\q\n";
$open->{run}->finish;
exact('an old transaction committed');
$node->stop('immediate');
$node->start;
exact('crashed beyond 2^32');
$sql->("COMMIT PREPARED 'held'");
exact('a prepared transaction of before');
freeze();
$sql->('SELECT streamext.flush()');
$node->restart;
$sql->("INSERT INTO ev SELECT i % 60, i % 1000, 'last' FROM generate_series(1, 1000) i");
exact('at the end');
$sql->('CREATE MATERIALIZED VIEW late WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k');
oracle($node, 'app', 'late', 'created in the next epoch');
is($sql->('SELECT coalesce(sum(lost_intervals), 0) FROM streamext.status'), $lost, 'passing 2^32 loses nothing');
is($sql->('SELECT count(*) FROM streamext.dead_letters'), '0', 'no dead letters');
$node->stop;
done_testing();
