# I1, I7: when WAL or the slot is gone, a view catches up all the same, exactly where its rows
# were protected, and with the interval reported where they were not.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextFaults;
use StreamextTest;
use Test::More;

allow_in_log('terminated by signal 9: Killed');
my $node = new_node('lost', settings => <<'CONF');
streamext.flush_interval = '200ms'
min_wal_size = 32MB
max_wal_size = 64MB
wal_keep_size = 0
autovacuum = off
CONF
new_database($node, 'app');
test_functions($node, 'app');

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('app', $query);
}

my $slot = 'streamext_' . sql('SELECT oid FROM pg_database WHERE datname = current_database()');

sub drop_slot_dir
{
	my $dir = $node->data_dir . "/pg_replslot/$slot";
	ok(-d $dir, 'the slot is there to be removed');
	PostgreSQL::Test::Utils::system_or_bail('rm', '-r', $dir);
	return;
}

# so much WAL that no segment from before is left
sub bury
{
	for (1 .. 6)
	{
		sql('INSERT INTO other SELECT repeat(md5(i::text), 60) FROM generate_series(1, 6000) i');
		sql('SELECT pg_switch_wal()');
	}
	sql('TRUNCATE other; CHECKPOINT');
	return;
}

# what the slot holds follows the consumer, which lets go when it sees the limit passed
sub wal_is_gone
{
	my ($lsn) = @_;
	return wait_until("WAL at $lsn to be gone", 60, sub {
		sql('SELECT pg_switch_wal(); INSERT INTO other VALUES (1)');
		sql('CHECKPOINT');
		return sql("SELECT count(*) FROM pg_ls_waldir() WHERE name = pg_walfile_name('$lsn')") eq '0';
	});
}

sub start_lsn
{
	my ($view) = @_;
	return sql("SELECT start_lsn FROM streamext.view_position WHERE view = '$view'::regclass");
}

sub pause
{
	my (@views) = @_;
	sql("SELECT streamext.pause('$_')") for @views;
	query_until($node, 'app', "SELECT count(*) FROM streamext.status WHERE reason LIKE 'paused%'", scalar(@views), 60);
	return;
}

sub burn
{
	my ($n) = @_;
	sql("DO 'BEGIN FOR i IN 1 .. $n LOOP PERFORM txid_current(); COMMIT; END LOOP; END'");
	return;
}

sub intervals
{
	return sql('SELECT count(*) FROM streamext.lost_intervals');
}

sql(<<'SQL');
CREATE TABLE other (t text);
CREATE TABLE ev (k int NOT NULL, v int) PARTITION BY RANGE (k);
CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM (0) TO (5);
CREATE TABLE ev_2 (v int, gone text, k int NOT NULL);
ALTER TABLE ev_2 DROP COLUMN gone;
ALTER TABLE ev ATTACH PARTITION ev_2 FOR VALUES FROM (5) TO (100);
CREATE TABLE every (k int NOT NULL, v int);
CREATE FUNCTION copy_row() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO every VALUES (NEW.k, NEW.v); RETURN NEW; END';
CREATE TRIGGER copy_row AFTER INSERT ON ev FOR EACH ROW EXECUTE FUNCTION copy_row();
INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 1000) i;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW big WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v % 7 = 0;
SQL

# rows that were deleted count as they were inserted: the oracle is the copy that a trigger makes
my %query = (
	by_key => 'SELECT k, count(*) AS n, sum(v) AS s FROM every GROUP BY k',
	big => 'SELECT k, v FROM every WHERE v % 7 = 0');

sub exact
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	oracle($node, 'app', $_, $name, $query{$_}) for sort keys %query;
	return;
}
exact('at the beginning');

# Everything that a scan by rule may meet.
sub work
{
	my ($tag) = @_;
	sql("INSERT INTO ev SELECT i % 10, $tag + i FROM generate_series(1, 500) i");
	sql("BEGIN; INSERT INTO ev VALUES (1, $tag); SAVEPOINT a; INSERT INTO ev VALUES (2, $tag); ROLLBACK TO a; INSERT INTO ev VALUES (6, $tag); SAVEPOINT b; INSERT INTO ev VALUES (7, $tag); COMMIT");
	sql("BEGIN; INSERT INTO ev SELECT i % 10, 0 FROM generate_series(1, 100) i; ROLLBACK");
	sql("UPDATE ev SET v = v + 1000000 WHERE v % 50 = 3 AND v BETWEEN $tag AND $tag + 500");
	sql("DELETE FROM ev WHERE v % 50 = 4 AND v BETWEEN $tag AND $tag + 500");
	return;
}

# ---- the slot is gone, WAL is not
pause(qw(by_key big));
work(10000);
$node->stop;
drop_slot_dir();
$node->start;
sql("SELECT streamext.resume('$_')") for qw(by_key big);
exact('slot removed while the server was down, WAL there');
is(intervals(), '0', 'every row was found: nothing is reported');

# the same, but what was deleted meanwhile is vacuumed: each row that is missing is known
pause(qw(by_key big));
work(20000);
$node->stop('immediate');
drop_slot_dir();
$node->start;
query_until($node, 'app', "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot' AND active", '1', 60);
sql('VACUUM ev');
my $missing = sql('SELECT count(*) FROM every WHERE v BETWEEN 20000 AND 20500')
  - sql('SELECT count(*) FROM ev WHERE v BETWEEN 20000 AND 20500');
sql("SELECT streamext.resume('$_')") for qw(by_key big);
is(sql("SELECT streamext.wait_for(timeout => '60s')"), 't', 'caught up with rows missing');
is(sql('SELECT rows FROM streamext.lost_intervals WHERE view = $$by_key$$::regclass'), $missing,
	'the number of missing rows is known');
is(sql('SELECT bool_and(lost_from < lost_until AND lost_until <= noticed_at AND why ~ $$slot was missing$$) FROM streamext.lost_intervals'),
	't', 'the interval and its cause are stored');
is(sql('SELECT sum(n) FROM by_key'), sql('SELECT count(*) FROM every') - $missing, 'all others count');
is(sql('SELECT DISTINCT lost_intervals FROM streamext.status'), '1', 'status says so');
like(slurp_file($node->logfile), qr/WARNING:  $missing rows of stream "ev" are missing in continuous view "by_key"/, 'and the log');

# from here on without those
sub forget_missing
{
	sql('DELETE FROM every; INSERT INTO every SELECT k, 0 FROM by_key, generate_series(1, n)');
	sql('UPDATE every SET v = (SELECT s FROM by_key b WHERE b.k = every.k) WHERE ctid IN (SELECT min(ctid) FROM every GROUP BY k)');
	return;
}
delete $query{big};
sql('DROP MATERIALIZED VIEW big');
forget_missing();
exact('after that');

# ---- max_held_wal with a paused view: WAL goes, the horizon stays, nothing is lost
my $before = intervals();
sql('ALTER SYSTEM SET streamext.max_held_wal = $$32MB$$');
$node->reload;
pause('by_key');
work(30000);
my $lsn = start_lsn('by_key');
bury();
ok(wal_is_gone($lsn), 'WAL of a paused view goes at max_held_wal');
sql('VACUUM ev');
cmp_ok(sql('SELECT n_dead_tup FROM (SELECT pg_stat_force_next_flush()) f, pg_stat_user_tables WHERE relname = $$ev_1$$'), '>', 0,
	'VACUUM leaves its rows');
sql("SELECT streamext.resume('by_key')");
exact('full scan after max_held_wal');
is(intervals(), $before, 'nothing is reported');
like(slurp_file($node->logfile), qr/looking for what it lacks by a full scan/, 'it was a full scan');
work(40000);
exact('after the full scan');

# ---- WITH NO DATA, and rows before its first snapshot
sql('CREATE MATERIALIZED VIEW late WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev WITH NO DATA');
work(45000);
is(sql("SELECT streamext.wait_for('late', '60s'), n FROM late"), 't|503', 'WITH NO DATA counts what follows');
sql('DROP MATERIALIZED VIEW late');

# ---- the server invalidates the slot of a consumer that cannot move it
sql('ALTER SYSTEM SET max_slot_wal_keep_size = $$32MB$$');
$node->reload;
my ($consumer) = worker_pids($node, 'consumer', 'app');
kill 'STOP', $consumer;
work(50000);
for (1 .. 6)
{
	sql('INSERT INTO other SELECT repeat(md5(i::text), 60) FROM generate_series(1, 6000) i');
	sql('SELECT pg_switch_wal()');
}
my ($out, $err) = ('', '');
my $h = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('app'), '-c', 'CHECKPOINT' ], '>', \$out, '2>', \$err);
# it ends only when the consumer has let go, which it cannot before it runs again
query_until($node, 'app', "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ReplicationSlotDrop'", '1', 60);
kill 'CONT', $consumer;
$h->finish;
ok(wait_until('another consumer', 60, sub { my ($p) = worker_pids($node, 'consumer', 'app'); $p && $p != $consumer }),
	'another consumer takes over');
query_until($node, 'app', "SELECT wal_status IN ('reserved', 'extended') AND active FROM pg_replication_slots WHERE slot_name = '$slot'", 't', 60);
exact('the slot was invalidated and made again');
sql('ALTER SYSTEM RESET max_slot_wal_keep_size');
$node->reload;

# ---- max_held_xids: the horizon goes, and that is reported
$before = intervals();
sql('ALTER SYSTEM SET streamext.max_held_xids = 1000');
$node->reload;
pause('by_key');
work(60000);
burn(3000);
query_until($node, 'app', "SELECT age(xmin) < 1500 FROM pg_replication_slots WHERE slot_name = '$slot'", 't', 60);
sql('VACUUM ev');
$missing = sql('SELECT count(*) FROM every') - sql('SELECT sum(n) FROM by_key')
  - sql('SELECT count(*) FROM ev WHERE v BETWEEN 60000 AND 60500');
cmp_ok($missing, '>', 0, 'rows are gone');
$lsn = start_lsn('by_key');
bury();
ok(wal_is_gone($lsn), 'WAL is gone, too');
sql("SELECT streamext.resume('by_key')");
is(sql("SELECT streamext.wait_for('by_key', '60s')"), 't', 'the view catches up');
is(sql('SELECT sum(n) FROM by_key'), sql('SELECT count(*) FROM every') - $missing, 'with all that is there');
is(intervals(), $before + 1, 'the interval is reported');
is(sql('SELECT rows IS NULL AND why ~ $$max_held_xids$$ FROM streamext.lost_intervals ORDER BY noticed_at DESC LIMIT 1'), 't',
	'with its cause; how many rows is not known');
like(slurp_file($node->logfile), qr/rows of stream "ev" may be missing in continuous view "by_key"/, 'the log says so');
forget_missing();
sql('ALTER SYSTEM RESET streamext.max_held_xids');
$node->reload;

# ---- a crash in the middle of a full scan
$before = intervals();
pause('by_key');
sql('INSERT INTO ev SELECT i % 10, 70000 FROM generate_series(1, 1200000) i');
$lsn = start_lsn('by_key');
ok(wal_is_gone($lsn), 'WAL is gone again');
sql("SELECT testing.stop('scan_part_committed', 'wait')");
sql("SELECT streamext.resume('by_key')");
ok(query_until($node, 'app', 'SELECT count(*) FROM testing.points() WHERE waiting > 0', '1', 60), 'a part is scanned');
is(sql('SELECT count(*) FROM streamext.view_position WHERE scan_block > 0 AND scan_file < 2'), '1', 'in the middle of the scan');
my ($builder) = worker_pids($node, 'builder', 'app');
$node->kill9;
kill 'KILL', $builder;
wait_until('the server to start again', 30, sub { $node->{_pid} = undef; $node->start(fail_ok => 1) });
ok(wait_ready($node), 'up again');
exact('crash in a full scan');
is(intervals(), $before, 'nothing is reported');

# ---- no slot to be had
$node->stop;
drop_slot_dir();
$node->append_conf('postgresql.conf', "max_replication_slots = 0\nmax_wal_senders = 0\n");
$node->start;
ok(query_until($node, 'app', "SELECT reason ~ 'max_replication_slots' FROM streamext.status", 't', 60), 'status says that there is no slot');
sql('INSERT INTO ev SELECT i % 10, 80000 + i FROM generate_series(1, 500) i');
$node->stop;
my $log = slurp_file($node->logfile);
is(scalar(() = $log =~ /could not get its replication slot, and keeps trying/g), 1, 'the log says it once');
$node->append_conf('postgresql.conf', "wal_level = minimal\n");
$node->start;
ok(query_until($node, 'app', "SELECT reason ~ 'wal_level' FROM streamext.status", 't', 60), 'status names wal_level');
sql('INSERT INTO ev SELECT i % 10, 81000 + i FROM generate_series(1, 500) i');
$node->append_conf('postgresql.conf', "wal_level = replica\nmax_replication_slots = 4\nmax_wal_senders = 4\n");
$node->restart;
exact('with a slot again');

no_orphans($node);
$node->stop;
done_testing();
