# I1, I6: a table that is rewritten while the consumer has not read its latest rows.
#
# Of every transaction the new file must hold just the rows whose addresses are known; rows of
# sub-transactions that ended long ago are found there under their own ids.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextFaults;
use StreamextTest;
use Test::More;

my $node = new_node('rewrite', settings => "autovacuum = off\n");
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (k int NOT NULL, v int);
INSERT INTO ev SELECT i % 5, i FROM generate_series(1, 100) i;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW rows WITH (streamext.continuous) AS SELECT k, v FROM ev;
SQL
oracle($node, 'app', $_, 'before') for qw(by_key rows);

for my $case (
	[ 'savepoints', "INSERT INTO ev VALUES (1, 1000); SAVEPOINT a; INSERT INTO ev VALUES (2, 2000); SAVEPOINT b;\n"
		. 'INSERT INTO ev VALUES (3, 3000); ROLLBACK TO b; INSERT INTO ev VALUES (4, 4000);' ],
	[ 'no savepoint', 'INSERT INTO ev VALUES (1, 5000); INSERT INTO ev VALUES (2, 6000);' ])
{
	my ($name, $sql) = @$case;
	my ($consumer) = worker_pids($node, 'consumer', 'app');
	my $writer = $node->background_psql('app');
	$writer->query_safe("BEGIN; $sql");

	# it has seen that all is read, and waits for the lock
	my $rewriter = $node->background_psql('app');
	$rewriter->query_until(qr/go/, "\\echo go\nVACUUM (FULL) ev;\n\\echo done\n");
	ok(query_until($node, 'app', "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'ev'::regclass", '1', 60),
		"$name: the rewrite waits for the writer");
	kill 'STOP', $consumer;
	my $before = $node->safe_psql('app', "SELECT relfilenode FROM pg_class WHERE oid = 'ev'::regclass");
	$writer->query_safe('COMMIT');
	$writer->quit;
	ok(query_until($node, 'app', "SELECT relfilenode <> $before FROM pg_class WHERE oid = 'ev'::regclass", 't', 60),
		"$name: rewritten while the consumer stands still");
	$rewriter->quit;
	# no transaction of then is running any more
	$node->safe_psql('app', 'SELECT pg_current_xact_id()');
	kill 'CONT', $consumer;
	oracle($node, 'app', $_, $name) for qw(by_key rows);
	is($node->safe_psql('app', "SELECT count(*) FROM streamext.status WHERE state <> 'live'"), '0', "$name: no view was stopped");
}
# Whoever made the new file need not be the last who changed the table.
$node->safe_psql('app', <<'SQL');
CREATE TABLE loaded (k int, v int);
CREATE MATERIALIZED VIEW loads WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total FROM loaded GROUP BY k;
SELECT streamext.wait_for();
SQL
my ($consumer) = worker_pids($node, 'consumer', 'app');
my $loader = $node->background_psql('app');
$loader->query_safe('BEGIN; TRUNCATE loaded; INSERT INTO loaded SELECT 1, g FROM generate_series(1, 100) g;');
# read past these rows: nobody knows the file yet
$node->safe_psql('app', "INSERT INTO ev VALUES (1, 1); SELECT streamext.wait_for('rows')");
kill 'STOP', $consumer;
$loader->query_safe('COMMIT; ALTER TABLE loaded ADD COLUMN extra int;');
$loader->quit;
kill 'CONT', $consumer;
oracle($node, 'app', 'loads', 'loaded, and a column added');
is($node->safe_psql('app', "SELECT count(*) FROM streamext.status WHERE state <> 'live'"), '0', 'loads: no view was stopped');
# A view joins at a position that is older than rows in the file it had: they stand in the new one.
test_functions($node, 'app');
for my $open (0, 1)
{
	for my $view (qw(by_key rows))
	{
		$node->safe_psql('app', "SELECT streamext.pause('$view')");
		ok(query_until($node, 'app', "SELECT state FROM streamext.status WHERE view = '$view'::regclass", 'paused', 60), "$view is paused");
	}
	my $writer = $node->background_psql('app');
	$writer->query_safe('BEGIN; INSERT INTO ev VALUES (4, 3)') if $open;
	$node->safe_psql('app', "SELECT testing.stop('join_position', 'wait'); SELECT streamext.resume('by_key')");
	ok(query_until($node, 'app', "SELECT waiting FROM testing.points() WHERE point = 'join_position'", '1', 60), 'by_key is about to join');
	$node->safe_psql('app', 'INSERT INTO ev VALUES (4, 1), (4, 2)');
	$writer->query_safe('COMMIT') if $open;
	$writer->quit;
	$node->safe_psql('app', 'VACUUM (FULL) ev');
	$node->safe_psql('app', "INSERT INTO ev VALUES (4, 4); SELECT testing.release()");
	oracle($node, 'app', 'by_key', 'rewritten while it joined');
	$node->safe_psql('app', "SELECT streamext.resume('rows')");
	oracle($node, 'app', 'rows', 'joins beside it');
}
is($node->safe_psql('app', "SELECT count(*) FROM streamext.status WHERE state <> 'live'"), '0', 'no view was stopped there, either');

# A view joins, and its table becomes a partition of a stream that is followed: the file is new to the views on that.
$node->safe_psql('app', <<'SQL');
CREATE TABLE parts (k int NOT NULL, v int) PARTITION BY RANGE (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE MATERIALIZED VIEW of_parts WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total FROM parts GROUP BY k;
CREATE TABLE parts_2 (k int NOT NULL, v int);
INSERT INTO parts_2 SELECT 11, i FROM generate_series(1, 5) i;
SELECT streamext.wait_for('of_parts');
SELECT testing.stop('join_published', 'wait');
CREATE MATERIALIZED VIEW of_part WITH (streamext.continuous) AS SELECT v, count(*) AS n FROM parts_2 GROUP BY v;
SQL
ok(query_until($node, 'app', "SELECT waiting FROM testing.points() WHERE point = 'join_published'", '1', 60), 'of_part is joining');
$node->safe_psql('app', 'ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (10) TO (20); INSERT INTO parts VALUES (11, 7), (1, 1)');
$node->safe_psql('app', 'SELECT testing.release()');
oracle($node, 'app', $_, 'attached while it joined') for qw(of_parts of_part);

# The same while the first of several joins: who joins next reads the file himself.
$node->safe_psql('app', <<'SQL');
CREATE TABLE parts_3 (k int NOT NULL, v int);
INSERT INTO parts_3 SELECT 21, i FROM generate_series(1, 5) i;
CREATE MATERIALIZED VIEW rows_of_parts WITH (streamext.continuous) AS SELECT k, v FROM parts;
CREATE MATERIALIZED VIEW of_part_3 WITH (streamext.continuous) AS SELECT v, count(*) AS n FROM parts_3 GROUP BY v;
SELECT streamext.flush();
SELECT testing.stop('join_published', 'wait', view => 'of_parts'::regclass);
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'streamext consumer' AND datname = current_database();
SQL
ok(query_until($node, 'app', "SELECT waiting FROM testing.points() WHERE point = 'join_published'", '1', 60), 'of_parts is joining');
$node->safe_psql('app', 'ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (20) TO (30); INSERT INTO parts VALUES (21, 7), (1, 1)');
$node->safe_psql('app', 'SELECT testing.release()');
oracle($node, 'app', $_, 'attached while the first joined') for qw(of_parts rows_of_parts of_part of_part_3);
unlike(slurp_file($node->logfile), qr/was stopped/, 'no view was stopped');
$node->stop;
done_testing();
