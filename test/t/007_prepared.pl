# I1: prepared transactions, over a restart and over a crash, count once, when they are committed.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $node = new_node('prepared');
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (k text NOT NULL, v int);
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
INSERT INTO ev VALUES ('plain', 1);
SQL
oracle($node, 'app', 'by_key', 'before');

# keys name what becomes of the transaction
sub prepare
{
	my ($gid) = @_;
	$node->safe_psql('app', "BEGIN; INSERT INTO ev SELECT '$gid', i FROM generate_series(1, 100) i; "
		. "SAVEPOINT s; INSERT INTO ev VALUES ('$gid lost', 0); ROLLBACK TO s; "
		. "INSERT INTO ev VALUES ('$gid', 0); PREPARE TRANSACTION '$gid'");
}

sub finish
{
	my ($how, $gid) = @_;
	$node->safe_psql('app', "$how PREPARED '$gid'");
}

sub count_of
{
	my ($key) = @_;
	is($node->safe_psql('app', "SELECT streamext.wait_for('by_key')"), 't', "$key: waited");
	return $node->safe_psql('app', "SELECT coalesce(max(n), 0) FROM by_key WHERE k = '$key'");
}

prepare($_) for qw(now abort restart crash restart_abort crash_abort both);
is(count_of('now'), 0, 'prepared rows do not count');
finish('COMMIT', 'now');
is(count_of('now'), 101, 'committed rows do');
finish('ROLLBACK', 'abort');
is(count_of('abort'), 0, 'rolled back rows never');

$node->safe_psql('app', "INSERT INTO ev VALUES ('plain', 2); SELECT streamext.flush(); CHECKPOINT");
$node->restart;
is(count_of('restart'), 0, 'after a restart still prepared');
finish('COMMIT', 'restart');
finish('ROLLBACK', 'restart_abort');
is(count_of('restart'), 101, 'committed after a restart');
oracle($node, 'app', 'by_key', 'after a restart');

$node->safe_psql('app', "INSERT INTO ev VALUES ('plain', 3)");
$node->stop('immediate');
$node->start;
is(count_of('crash'), 0, 'after a crash still prepared');
finish('COMMIT', 'crash');
finish('ROLLBACK', 'crash_abort');
is(count_of('crash'), 101, 'committed after a crash');
oracle($node, 'app', 'by_key', 'after a crash');

# over several restarts, flushes and WAL switches
for my $i (1 .. 3)
{
	$node->safe_psql('app', "INSERT INTO ev SELECT 'plain', i FROM generate_series(1, 1000) i; SELECT streamext.flush(); "
		. 'SELECT pg_switch_wal(); CHECKPOINT');
	$i % 2 ? $node->restart : do { $node->stop('immediate'); $node->start; };
}
finish('COMMIT', 'both');
is(count_of('both'), 101, 'committed three restarts later');
is($node->safe_psql('app', "SELECT count(*) FROM by_key WHERE k LIKE '%lost' OR k LIKE '%abort'"), '0', 'nothing rolled back counts');
oracle($node, 'app', 'by_key', 'at the end');

# a view created while a prepared transaction is open takes its rows once
$node->safe_psql('app', "BEGIN; INSERT INTO ev VALUES ('open', 1); PREPARE TRANSACTION 'open'");
$node->safe_psql('app', "CREATE MATERIALIZED VIEW late WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k");
$node->safe_psql('app', "INSERT INTO ev VALUES ('plain', 4)");
finish('COMMIT', 'open');
oracle($node, 'app', 'late', 'created beside a prepared transaction');
is($node->safe_psql('app', "SELECT n FROM late WHERE k = 'open'"), '1', 'its row counts once');
$node->stop;
done_testing();
