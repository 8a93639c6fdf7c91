# I1: backups, recovery to a point in time, clones and clones, all while rows are written.
#
# A restored cluster is checked like any other: its views equal their queries on its own raw rows.
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
my $points = 5;

seed(20260118);
my $primary = new_node('primary', settings => <<'CONF');
streamext.flush_interval = '200ms'
checkpoint_timeout = 30s
min_wal_size = 32MB
wal_sender_timeout = 10s
CONF
$primary->enable_archiving;
$primary->restart;
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

# Exact, and goes on.  Where the WAL that a view needs is gone, it waits for prepared transactions, and
# says so: nobody else can tell what they wrote.
sub check
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(wait_ready($node), "$name: up");
	my $rows = $node->safe_psql('app', 'SELECT count(*) FROM ev');
	cmp_ok($rows, '>', 2000, "$name: has $rows rows");
	my $waits = wait_until('the views to be live or to wait for a prepared transaction', 60, sub {
		# few are built at a time: the others wait for those
		$node->safe_psql('app', "SELECT bool_and(state = 'live') OR bool_or(reason LIKE 'waits for prepared transaction%')
			FROM streamext.status") eq 't';
	});
	ok($waits, "$name: the views are live, or wait for a prepared transaction")
	  or diag($node->safe_psql('app', 'TABLE streamext.status', extra_params => ['-x']));
	if ($node->safe_psql('app', "SELECT bool_and(state = 'live') FROM streamext.status") eq 't')
	{
		oracle($node, 'app', $_, "$name, with prepared transactions") for @views;
	}
	for my $gid (split /\n/, $node->safe_psql('app', 'SELECT gid FROM pg_prepared_xacts ORDER BY gid'))
	{
		$node->safe_psql('app', (chance(70) ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
	}
	for my $view (@views)
	{
		oracle($node, 'app', $view, $name) or return;
	}
	$node->safe_psql('app', "INSERT INTO ev SELECT i % 60, i, 'after' FROM generate_series(1, 500) i");
	$node->safe_psql('app', 'SELECT streamext.flush()');
	oracle($node, 'app', $_, "$name, and goes on") for @views;
	return;
}

# ---- recovery to five points in time, and a clone, out of a base backup of a busy server ----

$primary->safe_psql('app', "BEGIN; INSERT INTO ev SELECT i % 60, i, 'held' FROM generate_series(1, 100) i; PREPARE TRANSACTION 'before'");
my $load = load($primary, 'app', 3, single => 50, savepoint => 20, abort => 10, many => 5, prepared => 15);
rows_reach($primary, 4000);
$primary->backup('base');
my $first = $primary->lsn('insert');

my (@lsns, @times, @xids, @names);
for my $i (1 .. 20)
{
	my $start = $primary->safe_psql('app', 'SELECT count(*) FROM ev');
	rows_reach($primary, $start + 20 + pick(200));
	push @lsns, $primary->lsn('insert');
	push @times, $primary->safe_psql('app', 'SELECT clock_timestamp()');
	push @xids, $primary->safe_psql('app', "INSERT INTO ev VALUES (1, $i, 'mark') RETURNING pg_current_xact_id()");
	push @names, "point_$i";
	$primary->safe_psql('app', "SELECT pg_create_restore_point('point_$i')");
	$primary->safe_psql('app', 'CHECKPOINT') if $i == 7;
	$primary->safe_psql('app', 'SELECT pg_switch_wal()') if $i == 12;
	$primary->safe_psql('app',
		"BEGIN; INSERT INTO ev SELECT i % 60, i, 'held' FROM generate_series(1, 50) i; PREPARE TRANSACTION 'held_$i'") if $i % 6 == 0;
	$primary->safe_psql('app', "COMMIT PREPARED 'before'") if $i == 14;
}
my @targets = (
	[ recovery_target_lsn => $lsns[ pick(20) ] ],
	[ recovery_target_lsn => $lsns[ pick(20) ], recovery_target_inclusive => 'off' ],
	[ recovery_target_time => $times[ pick(20) ] ],
	[ recovery_target_xid => $xids[ pick(20) ], recovery_target_inclusive => chance(50) ? 'on' : 'off' ],
	[ recovery_target_name => $names[ pick(20) ] ]);
rows_reach($primary, $primary->safe_psql('app', 'SELECT count(*) FROM ev') + 200);
stop_load($load);
check($primary, 'the primary');
# the file that the switch ends: the workers may have begun the next one before another statement asks
my $last = $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal() - 1)');
ok(query_until($primary, 'postgres', "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver", 't', 60), 'all WAL is archived');

for my $i (0 .. $points - 1)
{
	my @target = @{ $targets[$i] };
	my $name = "point $i (@target)";
	my $node = PostgreSQL::Test::Cluster->new("pitr_$i");
	$node->init_from_backup($primary, 'base', has_restoring => 1, standby => 0);
	while (my ($setting, $value) = splice(@target, 0, 2))
	{
		$node->append_conf('postgresql.conf', "$setting = '$value'");
	}
	$node->append_conf('postgresql.conf', "recovery_target_action = promote\narchive_mode = off\n");
	$node->start;
	check($node, $name);
	no_orphans($node, "$name: no slot too many");
	$node->stop;
	$node->clean_node;
}

# a clone: the same backup without any archive ends where the backup did
{
	my $clone = PostgreSQL::Test::Cluster->new('clone');
	$clone->init_from_backup($primary, 'base');
	$clone->append_conf('postgresql.conf', "archive_mode = off\n");
	$clone->start;
	check($clone, 'clone');
	$clone->stop('immediate');
	$clone->start;
	check($clone, 'clone after a crash');
	check($primary, 'the primary beside it');
	$clone->stop;
	$clone->clean_node;
}

is($primary->safe_psql('app', 'SELECT count(*) FROM streamext.dead_letters'), '0', 'no dead letters');
$primary->stop;
done_testing();
