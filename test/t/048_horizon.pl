# What an idle view holds back: nothing while the server runs, though its stored position may be old; and what one has consumed
# and not stored is protected, whatever becomes of the server.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $node = new_node('horizon', settings => "autovacuum = off\nstreamext.flush_interval = '1h'\ncheckpoint_timeout = 1h\nbgwriter_lru_maxpages = 0\nwal_buffers = 16MB\nshared_buffers = 64MB\n");
new_database($node, 'app');
my $sql = sub { return $node->safe_psql('app', $_[0]) };
$sql->(<<'SQL');
CREATE TABLE ev (k int NOT NULL, v int NOT NULL);
CREATE TABLE hot (n int NOT NULL);
INSERT INTO hot VALUES (0);
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS SELECT k, sum(v) AS s FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW rows WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v < 0;
INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 100) i;
SELECT streamext.wait_for();
SELECT streamext.flush();
SQL

# of dead rows, those that VACUUM leaves
sub left_by_vacuum
{
	my ($table) = @_;
	my ($stdout, $stderr);
	$node->psql('app', "VACUUM (VERBOSE) $table", stdout => \$stdout, stderr => \$stderr);
	return $stderr =~ /(\d+) are dead but not yet removable/ ? $1 : die "VACUUM says: $stderr";
}

sub stored_age
{
	return $sql->('SELECT max(age(xmin)) FROM pg_replication_slots');
}

# ---- idle ----
my $age = stored_age();
$sql->('UPDATE hot SET n = n + 1') for 1 .. 30;
ok(wait_until('the horizon to follow', 60, sub { left_by_vacuum('hot') == 0 }), 'dead rows of another table can go');
cmp_ok(stored_age(), '>=', $age + 30, 'while the stored position is as old as it was');

# ---- idle, and nobody brings commits to disk ----
{
	local $ENV{PGOPTIONS} = '-c synchronous_commit=off';
	my $writer = $sql->("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
	kill 'STOP', $writer;
	$sql->('DO $$ BEGIN FOR i IN 1 .. 5000 LOOP UPDATE hot SET n = n + 1; COMMIT; END LOOP; END $$');
	ok(query_until($node, 'app', 'SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), pg_current_wal_lsn()) < 2 * 8192', 't'),
		'the consumer writes pages that are full');
	ok(wait_until('the horizon to follow', 60, sub { left_by_vacuum('hot') < 1000 }), 'and the horizon follows');
	kill 'CONT', $writer;
}

# ---- rows that are consumed and not stored ----
$sql->('INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 1000) i');
$sql->('SELECT streamext.wait_for()');
$sql->('DELETE FROM ev WHERE v > 100');
$sql->('UPDATE hot SET n = n + 1') for 1 .. 30;
# whoever waits has seen a cycle that began later, which may have moved the horizon
$sql->('INSERT INTO hot VALUES (0); SELECT streamext.wait_for()');
is(left_by_vacuum('ev'), 900, 'rows that are not stored stay, though they are deleted');
my $expected = $sql->('SELECT k, s FROM sums ORDER BY k');
$node->stop('immediate');
$node->start;
ok(wait_ready($node), 'ready after a crash');
is($sql->('SELECT streamext.wait_for()'), 't', 'the log is read again');
is($sql->('SELECT k, s FROM sums ORDER BY k'), $expected, 'and the view has what it had');
is($sql->('SELECT sum(s) FROM sums'), 100 * 101 / 2 + 1000 * 1001 / 2, 'which is everything');

# ---- rows that come after a crash, to a view whose position is old ----
$sql->('SELECT streamext.flush()');
$sql->('UPDATE hot SET n = n + 1') for 1 .. 30;
ok(wait_until('the horizon to follow', 60, sub { left_by_vacuum('hot') == 0 }), 'stored: nothing is held back');
is(left_by_vacuum('ev'), 0, 'deleted rows of the stream neither');
$node->stop('immediate');
$node->start;
$sql->('INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 1000) i');
$sql->('DELETE FROM ev WHERE v > 100; VACUUM ev');
ok(wait_ready($node), 'ready after another crash');
is($sql->('SELECT streamext.wait_for()'), 't', 'rows that were deleted at once are read');
is($sql->('SELECT sum(s) FROM sums'), 100 * 101 / 2 + 1000 * 1001, 'and counted');

# ---- windows that are computed anew twice in one transaction, which has no snapshot between the two ----
$sql->(<<'SQL');
CREATE TABLE met (ts timestamptz NOT NULL, v int NOT NULL);
SELECT streamext.create_stream('met', event_time => 'ts');
CREATE MATERIALIZED VIEW days WITH (streamext.continuous) AS
	SELECT streamext.tumble(ts, '1 day') AS day, sum(v) AS s FROM met GROUP BY 1;
INSERT INTO met SELECT '2026-01-01 UTC', i FROM generate_series(1, 1000) i;
SELECT streamext.flush();
SQL
my $recompute = "CALL streamext.backfill('days', '2026-01-01 UTC', '2026-01-02 UTC')";
my ($session, $writer) = (background($node, 'app'), background($node, 'app'));
# older than the other transaction, whose own id would else be enough
statement($writer, 'BEGIN');
statement($writer, 'UPDATE met SET v = v + 1');
statement($session, 'BEGIN');
statement($session, $recompute);
statement($writer, 'COMMIT');
$sql->('INSERT INTO hot VALUES (0); SELECT streamext.wait_for()');
$sql->('VACUUM met');
statement($session, $recompute);
statement($session, 'COMMIT');
is($sql->('SELECT s FROM days'), 1000 * 1001 / 2, 'the second time the same rows are there');
ok(wait_until('the horizon to follow', 60, sub { left_by_vacuum('met') == 0 }), 'and nothing is held back afterwards');
$sql->($recompute);
is($sql->('SELECT s FROM days'), 1000 * 1001 / 2 + 1000, 'what an idle view is computed from is there, too');

# ---- a position that stands still for another reason, and that nobody has held ----
statement($session, 'BEGIN');
statement($session, "SELECT streamext.retry_dead_letters('days')");
$sql->('UPDATE met SET v = v + 1');
ok(wait_until('the horizon to follow', 60, sub { left_by_vacuum('met') == 0 }), 'what the position sees is gone');
like(statement($session, $recompute), qr/does not stand at a position that can be read now.*End the transaction/s,
	'a recomputation is refused');
statement($session, 'ROLLBACK');
$sql->($recompute);
is($sql->('SELECT s FROM days'), 1000 * 1001 / 2 + 2000, 'outside of that transaction it is done');
for ($session, $writer)
{
	$_->{in} .= "\\q\n";
	$_->{run}->finish;
}

# ---- a worker that ends ----
$sql->('SELECT streamext.flush()');
$sql->('UPDATE hot SET n = n + 1') for 1 .. 30;
ok(wait_until('the horizon to follow', 60, sub { left_by_vacuum('hot') == 0 }), 'stored again');
my ($pid) = worker_pids($node, 'consumer', 'app');
kill 'STOP', $pid;
$sql->('INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 1000) i');
$sql->('DELETE FROM ev WHERE v > 100; VACUUM ev');
kill 'TERM', $pid;
kill 'CONT', $pid;
is($sql->('SELECT streamext.wait_for()'), 't', 'another consumer reads them');
is($sql->('SELECT sum(s) FROM sums'), 100 * 101 / 2 + 1000 * 1001 / 2 * 3, 'and counts them');
is($sql->('SELECT count(*) FROM rows'), 0, 'the other view is right, too');
is($sql->('SELECT count(*) FROM streamext.lost_intervals'), 0, 'nothing was lost');
is($sql->("SELECT string_agg(DISTINCT coalesce(last_error, ''), ';') FROM streamext.status"), '', 'and no view had trouble');
unlike(slurp_file($node->logfile), qr/WARNING|not protected/, 'nor is any said in the log');
$node->stop;
done_testing();
