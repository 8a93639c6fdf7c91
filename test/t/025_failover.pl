# I1: failover while 100 rows per millisecond arrive; transactions that wait for a standby that is gone.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my @views = qw(by_key total big joined);

seed(20260125);
my $primary = new_node('primary', settings => <<'CONF');
streamext.flush_interval = '200ms'
checkpoint_timeout = 30s
min_wal_size = 32MB
wal_sender_timeout = 10s
CONF
new_database($primary, 'app');
$primary->safe_psql('app', <<'SQL');
CREATE TABLE names (k int PRIMARY KEY, name text NOT NULL);
INSERT INTO names SELECT i, 'name ' || i % 7 FROM generate_series(0, 49) i;
CREATE TABLE ev (k int NOT NULL, v int, note text);
INSERT INTO ev SELECT i % 60, i % 1000, NULL FROM generate_series(1, 2000) i;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, count(v) AS nv, sum(v) AS total, avg(v) AS mean, max(note) AS last_note FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS total FROM ev;
CREATE MATERIALIZED VIEW big WITH (streamext.continuous) AS SELECT k, v, upper(note) AS note FROM ev WHERE v > 990;
CREATE MATERIALIZED VIEW joined WITH (streamext.continuous) AS
  SELECT n.name, count(*) AS n, sum(e.v) AS total FROM ev e JOIN names n USING (k) GROUP BY n.name;
SQL
oracle($primary, 'app', $_, 'primary') for @views;

sub rows_reach
{
	my ($node, $rows) = @_;
	return query_until($node, 'app', "SELECT count(*) >= $rows FROM ev", 't', 60) || BAIL_OUT('no rows arrive');
}

# exact now, after new rows, after the old prepared transactions' end, and after a flush
sub check
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(wait_ready($node), "$name: up");
	my $rows = $node->safe_psql('app', 'SELECT count(*) FROM ev');
	cmp_ok($rows, '>', 2000, "$name: has $rows rows");
	for my $view (@views)
	{
		oracle($node, 'app', $view, $name) or return;
	}
	for my $gid (split /\n/, $node->safe_psql('app', 'SELECT gid FROM pg_prepared_xacts ORDER BY gid'))
	{
		$node->safe_psql('app', (chance(70) ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
	}
	$node->safe_psql('app', "INSERT INTO ev SELECT i % 60, i, 'after' FROM generate_series(1, 500) i");
	$node->safe_psql('app', 'SELECT streamext.flush()');
	oracle($node, 'app', $_, "$name, and goes on") for @views;
	return;
}

# ---- failover while 100 rows per millisecond arrive ----

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\n");
$standby->start;
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$primary->safe_psql('app', "BEGIN; INSERT INTO ev SELECT i % 60, i, 'held' FROM generate_series(1, 70) i; PREPARE TRANSACTION 'over'");
my $before = $primary->safe_psql('app', 'SELECT count(*) FROM ev');
my $load = load($primary, 'app', 2, stream => 1);
ok(rows_reach($standby, $before + 60_000 + pick(40_000)), 'the standby follows the load');
my $seen = $standby->safe_psql('app', 'SELECT n FROM total');
$primary->stop('immediate');
stop_load($load);
$standby->promote;
cmp_ok($standby->safe_psql('app', 'SELECT n FROM total'), '>=', $seen, 'promoted: no view goes back');
cmp_ok($standby->safe_psql('app', 'SELECT n FROM total'), '<=', $standby->safe_psql('app', 'SELECT count(*) FROM ev'),
	'and none is ahead of its rows');
# and the load goes on at once
$load = load($standby, 'app', 2, stream => 1);
rows_reach($standby, $standby->safe_psql('app', 'SELECT count(*) FROM ev') + 20_000);
stop_load($load);
check($standby, 'promoted under load');
no_orphans($standby);

# ---- a synchronous standby that is gone ----

# the commit record is in the WAL, the transaction not visible: no view may show its rows
$standby->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'gone'");
$standby->reload;
sub pending_writer
{
	my ($key) = @_;
	my $writer = background($standby, 'app');
	statement($writer, 'SET synchronous_commit = on');
	statement($writer, "INSERT INTO ev SELECT $key, 1, 'waits' FROM generate_series(1, 10)", 1);
	ok(query_until($standby, 'app', "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", '1', 30),
		"$key: a writer waits for the standby");
	return $writer;
}
my $local = 'SET synchronous_commit = local;';
for my $end (qw(release cancel kill crash))
{
	my $key = { release => 101, cancel => 102, kill => 103, crash => 104 }->{$end};
	my $writer = pending_writer($key);
	is($standby->safe_psql('app', "$local INSERT INTO ev VALUES ($key + 100, 1, 'local'); SELECT streamext.wait_for('by_key', '30s')"), 't',
		"$end: others are not held up by it");
	is($standby->safe_psql('app', "SELECT coalesce(sum(n), 0) FROM by_key WHERE k = $key"), '0', "$end: its rows are not shown");
	is($standby->safe_psql('app', "SELECT n FROM by_key WHERE k = $key + 100"), '1', "$end: rows written after it are");
	is($standby->safe_psql('app', "$local SELECT streamext.flush()"), '', "$end: a flush does not wait for the standby");
	is($standby->safe_psql('app', "SELECT coalesce(sum(n), 0) FROM by_key WHERE k = $key"), '0', "$end: nor after a flush");
	is(difference($standby, 'app', $_), '', "$end: meanwhile $_ is exact") for @views;

	if ($end eq 'release')
	{
		$standby->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = ''");
		$standby->reload;
		is(statement($writer), '', 'the writer goes on');
		$standby->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'gone'");
		$standby->reload;
	}
	elsif ($end eq 'cancel')
	{
		$standby->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
		like(statement($writer), qr/canceling wait for synchronous replication/, 'the writer is told');
	}
	elsif ($end eq 'kill')
	{
		$standby->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
		query_until($standby, 'app', "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", '0', 30);
	}
	else
	{
		$standby->stop('immediate');
		$standby->start;
		wait_ready($standby);
	}
	eval { $writer->{in} .= "\\q\n"; $writer->{run}->finish; };
	oracle($standby, 'app', $_, $end) for @views;
	is($standby->safe_psql('app', "SELECT n FROM by_key WHERE k = $key"), '10', "$end: its rows count once");
}
is($standby->safe_psql('app', 'SELECT count(*) FROM streamext.dead_letters'), '0', 'no dead letters');
$standby->stop;
done_testing();
