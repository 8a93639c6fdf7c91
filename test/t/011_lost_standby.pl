# I1: after promotion and point-in-time recovery a view is exact, or says from when to when rows
# may be missing, whether or not the standby had a slot.
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

my $primary = new_node('primary', settings => <<'CONF');
streamext.flush_interval = '100ms'
min_wal_size = 32MB
max_wal_size = 64MB
wal_keep_size = 512MB
CONF
$primary->enable_archiving;
$primary->restart;
new_database($primary, 'app');
$primary->safe_psql('app', <<'SQL');
CREATE TABLE ev (k int NOT NULL, v int);
INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 1000) i;
CREATE TABLE every (k int NOT NULL, v int);
INSERT INTO every TABLE ev;
CREATE FUNCTION copy_row() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO every VALUES (NEW.k, NEW.v); RETURN NEW; END';
CREATE TRIGGER copy_row AFTER INSERT ON ev FOR EACH ROW EXECUTE FUNCTION copy_row();
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
SQL
my $query = 'SELECT k, count(*) AS n, sum(v) AS s FROM every GROUP BY k';
my $slot = 'streamext_' . $primary->safe_psql('app', 'SELECT oid FROM pg_database WHERE datname = current_database()');
oracle($primary, 'app', 'by_key', 'primary', $query);

# rows come, change and go all the time, from several sessions
sub start_load
{
	my ($node, $name) = @_;
	my $file = "$ENV{TESTDIR}/$name.sql";
	append_to_file($file, <<'SQL') unless -e $file;
\set k random(0, 9)
INSERT INTO ev SELECT :k, g FROM generate_series(1, 10) g;
DELETE FROM ev WHERE ctid = ANY (ARRAY(SELECT ctid FROM ev WHERE v <= 3 LIMIT 3));
SQL
	my $out = '';
	return IPC::Run::start([ 'pgbench', '-n', '-c', 2, '-T', 600, '-f', $file, $node->connstr('app') ], '>', \$out, '2>&1');
}

# what a view lacks must have been reported
sub exact_or_reported
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('app', "SELECT streamext.wait_for('by_key', '60s')"), 't', "$name: caught up");
	my $missing = $node->safe_psql('app', 'SELECT (SELECT count(*) FROM every) - (SELECT sum(n) FROM by_key)');
	my $reported = $node->safe_psql('app', "SELECT coalesce(sum(rows)::text, 'nothing') || CASE WHEN bool_or(rows IS NULL) THEN ' or more' ELSE '' END FROM streamext.lost_intervals");
	note("$missing missing, $reported reported");
	ok($missing == 0 ? 1 : $reported =~ /or more/ || $reported eq $missing, "$name: $missing rows missing, $reported reported");
	return;
}

sub standby_slot
{
	my ($node, $what) = @_;
	return $node->safe_psql('postgres', "SELECT $what FROM pg_replication_slots WHERE slot_name = '$slot'");
}

# ---- a standby keeps a slot that follows
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1s\nwal_keep_size = 0\n");
$standby->start;
ok(query_until($standby, 'postgres', "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot' AND active AND xmin IS NOT NULL", '1', 60),
	'the standby has a slot of its own');
my $before = standby_slot($standby, 'xmin');
my $load = start_load($primary, 'load');
ok(wait_until('the slot to follow', 60, sub { standby_slot($standby, "xmin::text::bigint > $before + 200 AND pg_wal_lsn_diff(pg_last_wal_replay_lsn(), restart_lsn) < 200e6") eq 't' }),
	'it follows the replicated position');
ok(wait_until('the horizon upstream to follow', 60, sub { $primary->safe_psql('app', "SELECT max(age(xmin)) < 5000 AND min(xmin::text::bigint) > $before + 200 FROM (SELECT xmin FROM pg_replication_slots WHERE xmin IS NOT NULL UNION ALL SELECT backend_xmin FROM pg_stat_replication WHERE backend_xmin IS NOT NULL) h") eq 't' }),
	'and holds back VACUUM upstream no more than the primary itself');
my ($status, $answer, $complaint) = $standby->psql('app', 'SELECT streamext.wait_for()');
like($complaint, qr/during recovery/, 'nobody waits for views on a standby');

# another one without: nothing of ours runs before promotion
$primary->backup('base2');
my $bare = PostgreSQL::Test::Cluster->new('bare');
$bare->init_from_backup($primary, 'base2', has_streaming => 1);
$bare->append_conf('postgresql.conf', "hot_standby = off\nwal_keep_size = 0\nautovacuum_naptime = 1\n");
$bare->start;

# ---- failover in the middle of it
sleep 1;		# some load, no condition to wait for
my $time = $primary->safe_psql('app', 'SELECT now()');
my $xid = $primary->safe_psql('app', 'SELECT txid_current()');
sleep 1;
my $lsn = $primary->lsn('insert');
$primary->wait_for_catchup($standby, 'replay', $lsn);
# which ends an archive command in the midst
allow_in_log('archive command was terminated by signal 3: Quit');
$primary->stop('immediate');
eval { $load->finish };
$standby->promote;
my $load2 = start_load($standby, 'load');
is($standby->safe_psql('app', "SELECT streamext.wait_for('by_key', '60s')"), 't', 'promoted: it catches up under load');
$load2->kill_kill;
is($standby->safe_psql('app', 'SELECT count(*) FROM streamext.lost_intervals'), '0', 'its slot protected everything');
oracle($standby, 'app', 'by_key', 'promoted', $query);

# ---- promotion without a slot
$bare->promote;
ok(wait_ready($bare), 'a standby without slot is promoted');
$load2 = start_load($bare, 'load');
$bare->safe_psql('app', 'VACUUM ev');
is($bare->safe_psql('app', "SELECT streamext.wait_for('by_key', '60s')"), 't', 'it catches up under load');
$load2->kill_kill;
exact_or_reported($bare, 'promoted without slot');
is($bare->safe_psql('app', "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot' AND active"), '1', 'it has a slot now');
$bare->stop;

# ---- the old primary becomes a standby of the new one
$standby->safe_psql('postgres', 'CHECKPOINT');
$primary->start;
$primary->stop;
$standby->backup('base3');
my $demoted = PostgreSQL::Test::Cluster->new('demoted');
$demoted->init_from_backup($standby, 'base3', has_streaming => 1);
# its slot from when it was a primary
system_or_bail('cp', '-r', $primary->data_dir . "/pg_replslot/$slot", $demoted->data_dir . '/pg_replslot/');
$demoted->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1s\n");
$demoted->start;
my $old = standby_slot($demoted, 'xmin');
$load2 = start_load($standby, 'load');
ok(wait_until('the demoted slot to follow', 60, sub { standby_slot($demoted, "xmin::text::bigint > $old + 500 AND restart_lsn > '$lsn'") eq 't' }),
	'the slot of a demoted primary follows, too');
$load2->kill_kill;
$standby->safe_psql('app', 'DROP MATERIALIZED VIEW by_key');
ok(wait_until('the slot to go', 60, sub { standby_slot($demoted, 'count(*)') eq '0' }), 'and goes with the last view');
$demoted->stop;
$standby->stop;

# ---- point in time: two points of the first timeline
for my $target ("recovery_target_time = '$time'", "recovery_target_xid = '$xid'")
{
	my ($kind) = $target =~ /target_(\w+)/;
	my $node = PostgreSQL::Test::Cluster->new("pitr_$kind");
	$node->init_from_backup($primary, 'base', has_restoring => 1, standby => 0);
	$node->append_conf('postgresql.conf', "$target\nrecovery_target_timeline = 1\nrecovery_target_action = promote\narchive_mode = off\nwal_keep_size = 0\nautovacuum_naptime = 1\n");
	$node->start;
	ok(wait_ready($node), "recovered to $kind");
	exact_or_reported($node, "recovered to $kind");
	$node->safe_psql('app', 'INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 1000) i; VACUUM ev');
	exact_or_reported($node, "recovered to $kind, new rows");
	$node->restart;
	exact_or_reported($node, "recovered to $kind, restarted");
	$node->stop;
}
done_testing();
