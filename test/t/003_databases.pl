# Databases: found without a restart, renamed, copied, dropped; nothing is left behind.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $node = new_node('databases');
my $setup = <<'SQL';
CREATE TABLE ev (k int NOT NULL, v int);
INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 1000) i;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
SQL

for my $database (qw(one two))
{
	new_database($node, $database);
	$node->safe_psql($database, $setup);
}
for my $database (qw(one two))
{
	$node->safe_psql($database, 'INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 100) i');
	oracle($node, $database, 'by_key', $database);
}
is($node->safe_psql('one', 'SELECT sum(n) FROM by_key'), '1100', 'one sees only its own rows');
is(scalar(worker_pids($node, 'consumer')), 2, 'a consumer per database');

$node->restart;
for my $database (qw(one two))
{
	$node->safe_psql($database, 'INSERT INTO ev VALUES (1, 1)');
	oracle($node, $database, 'by_key', "$database after a restart");
}

# a second extension in a database that never had a stream must not disturb
new_database($node, 'empty');
is($node->safe_psql('empty', 'SELECT count(*) FROM streamext.status'), '0', 'a database without streams');

# copied: the copy's stored positions are not its own, so it builds anew
my ($status, $out, $err) = $node->psql('postgres', 'CREATE DATABASE copy TEMPLATE one');
is($status, 0, 'CREATE DATABASE ... TEMPLATE of a served database') or diag($err);
if ($status == 0)
{
	$node->safe_psql('copy', 'INSERT INTO ev SELECT 5, 5 FROM generate_series(1, 10)');
	oracle($node, 'one', 'by_key', 'the template');
	if (oracle($node, 'copy', 'by_key', 'copy'))
	{
		is($node->safe_psql('copy', 'SELECT sum(n) FROM by_key'), '1111', 'copy has its rows and the new ones');
	}
	is($node->safe_psql('one', 'SELECT sum(n) FROM by_key'), '1101', 'the template has not');
	$node->safe_psql('postgres', 'DROP DATABASE copy');
}

# renamed while served
($status, $out, $err) = $node->psql('postgres', 'ALTER DATABASE two RENAME TO zwei');
is($status, 0, 'ALTER DATABASE ... RENAME of a served database') or diag($err);
my $two = $status == 0 ? 'zwei' : 'two';
$node->safe_psql($two, 'INSERT INTO ev VALUES (2, 2)');
oracle($node, $two, 'by_key', 'renamed');

# dropped: no slot, no worker
my $oid = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = '$two'");
($status, $out, $err) = $node->psql('postgres', "DROP DATABASE $two");
is($status, 0, 'DROP DATABASE of a served database') or diag($err);
ok(query_until($node, 'postgres',
	"SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'streamext_$oid'", '0', 30),
	'its slot is gone');
ok(query_until($node, 'postgres',
	"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'streamext %' AND datid = $oid", '0', 30),
	'its workers are gone');
no_orphans($node);
$node->safe_psql('one', 'INSERT INTO ev VALUES (3, 3)');
oracle($node, 'one', 'by_key', 'the other database goes on');

# the extension dropped and created again
$oid = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'one'");
$node->safe_psql('one', 'DROP EXTENSION streamext CASCADE');
ok(query_until($node, 'postgres',
	"SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'streamext_$oid'", '0', 30),
	'DROP EXTENSION drops the slot');
is($node->safe_psql('one', "SELECT to_regclass('by_key') IS NULL"), 't', 'and the views');
is($node->safe_psql('one', 'SELECT count(*) FROM ev'), '1102', 'and leaves the raw rows');
$node->safe_psql('one', 'CREATE EXTENSION streamext; '
	. 'CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k');
$node->safe_psql('one', 'INSERT INTO ev VALUES (4, 4)');
oracle($node, 'one', 'by_key', 'created again');

# rolled back: nothing happened
$node->psql('one', 'BEGIN; DROP EXTENSION streamext CASCADE; ROLLBACK');
$node->safe_psql('one', 'INSERT INTO ev VALUES (4, 4)');
oracle($node, 'one', 'by_key', 'DROP EXTENSION rolled back');

$node->stop;
done_testing();
