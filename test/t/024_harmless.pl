# I1: what looks dangerous to a reader of WAL and heap, and is not.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $node = new_node('harmless', settings => "autovacuum = off\nstreamext.flush_interval = '1min'\ncheckpoint_timeout = 1h\n");
new_database($node, 'app');
my @views = qw(by_key total wide);
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (k int NOT NULL, v int, note text);
ALTER TABLE ev ALTER note SET STORAGE EXTERNAL;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS total FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS total FROM ev;
CREATE MATERIALIZED VIEW wide WITH (streamext.continuous) AS
  SELECT k, max(length(note)) AS longest, max(note) AS last_note FROM ev GROUP BY k;
INSERT INTO ev SELECT i % 10, i, 'first' FROM generate_series(1, 100) i;
SQL
my $sql = sub { return $node->safe_psql('app', $_[0]) };

sub exact
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	oracle($node, 'app', $_, $name) for @views;
	return;
}

# Insert counts once, with the values it was inserted with, whatever becomes of the row: where rows are
# gone, the number is known instead.
sub count_of
{
	my ($k) = @_;
	is($sql->("SELECT streamext.wait_for()"), 't', "key $k: waited");
	return $sql->("SELECT coalesce(max(n), 0) || ' ' || coalesce(max(total), 0) FROM by_key WHERE k = $k");
}

# the consumer stands still between these: what happens in between it finds all at once
sub while_stopped
{
	my ($code) = @_;
	my ($pid) = worker_pids($node, 'consumer', 'app');
	kill 'STOP', $pid;
	$code->();
	kill 'CONT', $pid;
	return;
}

exact('before');

# ---- COPY FREEZE: rows that are frozen from the start; their xmin says nothing, their address does ----

append_to_file("$ENV{TESTDIR}/rows", join('', map { "20\t$_\tfrozen\n" } 1 .. 5000));
for my $round (1, 2)
{
	$sql->("BEGIN; TRUNCATE ev; COPY ev FROM '$ENV{TESTDIR}/rows' WITH (FREEZE); COMMIT");
	is($sql->('SELECT streamext.wait_for()'), 't', 'TRUNCATE and COPY FREEZE: read');
	is($sql->('SELECT n FROM by_key WHERE k = 20'), 5000 * $round, 'rows frozen at once count once');
	$sql->('SELECT streamext.flush()');
}
is($sql->("BEGIN; CREATE TABLE fresh (k int NOT NULL); COPY fresh FROM PROGRAM 'seq 1 1000' WITH (FREEZE); COMMIT;
	CREATE MATERIALIZED VIEW of_fresh WITH (streamext.continuous) AS SELECT count(*) AS n FROM fresh"), '', 'a view on rows frozen earlier');
oracle($node, 'app', 'of_fresh', 'frozen before');
$sql->("COPY fresh FROM PROGRAM 'seq 1 1000'");
$sql->('VACUUM FREEZE fresh');
oracle($node, 'app', 'of_fresh', 'frozen right after');

# truncated and reloaded in one transaction, plain: rows of the transaction that it does not destroy itself
$sql->('BEGIN; TRUNCATE ev; INSERT INTO ev SELECT 21, i, NULL FROM generate_series(1, 300) i; COMMIT');
is(count_of(21), '300 45150', 'TRUNCATE and reload in one transaction');
$sql->('BEGIN; INSERT INTO ev SELECT 22, 1, NULL FROM generate_series(1, 10); TRUNCATE ev; INSERT INTO ev VALUES (23, 1, NULL); COMMIT');
is(count_of(22), '0 0', 'rows that a transaction truncates itself do not count');
is(count_of(23), '1 1', 'and those it inserts after that do');
$sql->('BEGIN; SAVEPOINT a; TRUNCATE ev; INSERT INTO ev VALUES (24, 1, NULL); ROLLBACK TO a; INSERT INTO ev VALUES (24, 2, NULL); COMMIT');
is(count_of(24), '1 2', 'TRUNCATE and reload rolled back to a savepoint');

# views start anew, so that the oracle compares again
$sql->("DROP MATERIALIZED VIEW $_") for @views;
$sql->(<<'SQL');
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS total FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS total FROM ev;
CREATE MATERIALIZED VIEW wide WITH (streamext.continuous) AS
  SELECT k, max(length(note)) AS longest, max(note) AS last_note FROM ev GROUP BY k;
SQL
exact('created again');

# ---- inserted and deleted, or updated, in one transaction ----

while_stopped(sub {
	$sql->('BEGIN; INSERT INTO ev SELECT 30, i, NULL FROM generate_series(1, 10) i; DELETE FROM ev WHERE k = 30; COMMIT');
	$sql->('BEGIN; INSERT INTO ev SELECT 31, i, NULL FROM generate_series(1, 10) i; UPDATE ev SET v = v + 100 WHERE k = 31; COMMIT');
	$sql->('BEGIN; INSERT INTO ev VALUES (32, 1, NULL); SAVEPOINT a; DELETE FROM ev WHERE k = 32; ROLLBACK TO a; COMMIT');
	$sql->('VACUUM ev');
});
is(count_of(30), '10 55', 'inserted and deleted in one transaction: counts, with its values');
is(count_of(31), '10 55', 'inserted and updated in one transaction: as inserted');
is(count_of(32), '1 1', 'a delete that is rolled back');

# ---- TOASTed values of rows that are gone ----

while_stopped(sub {
	$sql->("INSERT INTO ev SELECT 33, i, repeat(chr(64 + i), 5000 + i) FROM generate_series(1, 20) i");
	$sql->('DELETE FROM ev WHERE k = 33');
	$sql->('VACUUM ev; CHECKPOINT');
	# pages of the TOAST table would be used again, if they were free
	$sql->("INSERT INTO ev SELECT 34, i, repeat('z', 5000 + i) FROM generate_series(1, 20) i");
});
is(count_of(33), '20 210', 'rows with TOASTed values, deleted and vacuumed before they were read');
is($sql->('SELECT longest || left(last_note, 1) FROM wide WHERE k = 33'), '5020T', 'and their values');
oracle($node, 'app', 'wide', 'TOASTed', 'SELECT k, max(length(note)) AS longest, max(note) AS last_note FROM ev
	WHERE k NOT IN (30, 33) GROUP BY k UNION ALL SELECT * FROM (VALUES (30, NULL::int, NULL), (33, 5020, repeat(\'T\', 5020))) x');

# ---- aborted rows, vacuumed, and their addresses used again ----

$sql->('CREATE TABLE narrow (k int NOT NULL, v int) WITH (fillfactor = 100)');
$sql->('CREATE MATERIALIZED VIEW of_narrow WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM narrow GROUP BY k');
$sql->('INSERT INTO narrow VALUES (0, 0)');
oracle($node, 'app', 'of_narrow', 'before');
while_stopped(sub {
	for my $i (1 .. 5)
	{
		$sql->("BEGIN; INSERT INTO narrow SELECT $i, 1000 FROM generate_series(1, 500); ROLLBACK");
		$sql->('VACUUM narrow');
		$sql->("INSERT INTO narrow SELECT $i, 1 FROM generate_series(1, 400)");
		$sql->("BEGIN; SAVEPOINT a; INSERT INTO narrow SELECT $i, 1000 FROM generate_series(1, 50); ROLLBACK TO a;
			INSERT INTO narrow VALUES ($i, 2); COMMIT");
		$sql->('VACUUM narrow');
	}
});
oracle($node, 'app', 'of_narrow', 'addresses of aborted rows used again');
# the same over a crash: a crashed transaction writes no abort record
my $open = background($node, 'app');
statement($open, 'BEGIN; INSERT INTO narrow SELECT 6, 1000 FROM generate_series(1, 500)');
$sql->('CHECKPOINT; SELECT streamext.flush()');
$node->stop('immediate');
eval { $open->{run}->finish };
$node->start;
wait_ready($node);
$sql->('VACUUM narrow; INSERT INTO narrow SELECT 7, 1 FROM generate_series(1, 500)');
oracle($node, 'app', 'of_narrow', 'addresses of a crashed transaction used again');

# ---- relation file numbers used again ----

# dropped without its views being told by name: another table takes its place, and its number, sooner or later
for my $i (1 .. 3)
{
	$sql->('DROP TABLE narrow CASCADE');
	$sql->('CHECKPOINT');
	$sql->('CREATE TABLE narrow (k int NOT NULL, v int); INSERT INTO narrow VALUES (1, 1);
		CREATE MATERIALIZED VIEW of_narrow WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM narrow GROUP BY k');
	$sql->('INSERT INTO narrow SELECT i % 3, i FROM generate_series(1, 100) i');
	oracle($node, 'app', 'of_narrow', "dropped and created, $i");
}
# the counter set back, as after a wraparound of OIDs: the numbers of what was dropped come again
my $file = $sql->("SELECT pg_relation_filenode('narrow')");
$sql->('INSERT INTO narrow VALUES (5, 5); SELECT streamext.wait_for(); DROP TABLE narrow CASCADE; CHECKPOINT');
$node->stop;
PostgreSQL::Test::Utils::system_or_bail('pg_resetwal', '-o', $file - 1, $node->data_dir);
$node->start;
wait_ready($node);
$sql->('CREATE TABLE narrow (k int NOT NULL, v int)');
cmp_ok($sql->("SELECT abs(pg_relation_filenode('narrow')::int8 - $file)"), '<', 200, 'file numbers are used again');
$sql->('CREATE MATERIALIZED VIEW of_narrow WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM narrow GROUP BY k');
for my $i (1 .. 60)
{
	# each takes numbers near the ones in use
	$sql->("CREATE TABLE t$i (k int); INSERT INTO t$i SELECT generate_series(1, 10); INSERT INTO narrow VALUES ($i, $i); DROP TABLE t$i");
}
oracle($node, 'app', 'of_narrow', 'file numbers used again');

# ---- WAL without full page images, with compression, hints, other levels ----

for my $setting ('full_page_writes = off', 'wal_compression = pglz', 'wal_log_hints = on', 'wal_level = logical', 'wal_init_zero = off')
{
	my ($name, $value) = split / = /, $setting;
	$node->append_conf('postgresql.conf', $setting);
	$node->restart;
	$sql->('CHECKPOINT');
	$sql->("INSERT INTO narrow SELECT i % 7, i FROM generate_series(1, 3000) i");
	$sql->("BEGIN; INSERT INTO narrow SELECT i % 7, i FROM generate_series(1, 30) i; SAVEPOINT s; INSERT INTO narrow VALUES (1, 1); ROLLBACK TO s; COMMIT");
	$sql->('CHECKPOINT');
	$sql->("INSERT INTO narrow VALUES (1, 1); COPY narrow FROM PROGRAM 'seq -f \"1\t%g\" 1 500'");
	oracle($node, 'app', 'of_narrow', $setting);
	$node->stop('immediate');
	$node->start;
	wait_ready($node);
	oracle($node, 'app', 'of_narrow', "$setting, after a crash");
}

# ---- asynchronous commit and a crash: what was lost does not count, what counted was not lost ----

$node->append_conf('postgresql.conf', "wal_writer_delay = 10s\nwal_writer_flush_after = 1GB\nstreamext.flush_interval = '20ms'");
$node->restart;
for my $round (1 .. 6)
{
	my $load = load($node, 'app', 2, single => 1);
	my $before = $sql->('SELECT count(*) FROM ev');
	query_until($node, 'app', 'SELECT count(*) > ' . ($before + 300) . ' FROM ev', 't', 30);
	$sql->('SET synchronous_commit = off; ' . join(';', map { "INSERT INTO narrow SELECT 77, $round FROM generate_series(1, 10)" } 1 .. 50));
	my $shown = $sql->('SELECT coalesce(sum(n), 0) FROM of_narrow WHERE k = 77');
	$node->stop('immediate');
	stop_load($load);
	$node->start;
	wait_ready($node);
	oracle($node, 'app', 'of_narrow', "asynchronous commits and a crash, round $round");
	cmp_ok($sql->('SELECT coalesce(sum(n), 0) FROM of_narrow WHERE k = 77'), '>=', $shown, 'what was shown was not lost');
}
is($sql->('SELECT count(*) FROM streamext.dead_letters'), '0', 'no dead letters');
$node->stop;
done_testing();
