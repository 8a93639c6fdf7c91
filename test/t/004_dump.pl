# Dump and restore: a restored view is right, or says that it is being built, and then is right.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my @views = ("app.by_key", "app.total", q(app."Odd name"), "app.joined");

my $node = new_node('dump');
new_database($node, 'source');
$node->safe_psql('source', <<'SQL');
CREATE SCHEMA app;
CREATE TABLE app.names (k int PRIMARY KEY, name text);
INSERT INTO app.names SELECT i, 'n' || i % 3 FROM generate_series(0, 9) i;
CREATE FUNCTION app.fine(k int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT k < 1000';
CREATE TABLE app.ev (k int NOT NULL, volume int, ts timestamptz NOT NULL DEFAULT '2026-01-01');
SELECT streamext.create_stream('app.ev', event_time => 'ts', valid => 'volume >= 0 AND app.fine(k)');
ALTER TABLE app.ev RENAME COLUMN volume TO v;
INSERT INTO app.ev SELECT i % 10, i, '2026-01-01'::timestamptz + i * interval '1 second' FROM generate_series(1, 5000) i;
CREATE MATERIALIZED VIEW app.by_key WITH (streamext.continuous) AS
  SELECT k, streamext.tumble(ts, '5 minutes') AS start, count(*) AS n, avg(v) AS mean, stddev(v) AS dev
  FROM app.ev GROUP BY k, streamext.tumble(ts, '5 minutes');
CREATE MATERIALIZED VIEW app.total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS s FROM app.ev;
CREATE MATERIALIZED VIEW app."Odd name" WITH (streamext.continuous) AS SELECT v, v * 2 AS "Double" FROM app.ev WHERE v < 50;
CREATE MATERIALIZED VIEW app.joined WITH (streamext.continuous) AS
  SELECT name, max(v) AS high FROM app.ev JOIN app.names USING (k) GROUP BY name;
CREATE ROLE reader;
GRANT USAGE ON SCHEMA app TO reader;
GRANT SELECT ON app.total TO reader;
SQL
oracle($node, 'source', $_, 'source') for @views;

# runs a client program on a node; its messages matter when it fails
sub client_ok
{
	my ($name, @command) = @_;
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	my ($out, $err) = ('', '');
	ok(IPC::Run::run(\@command, '>', \$out, '2>', \$err), $name) or diag($err);
	return;
}

my %restore = (
	plain => sub {
		my ($file, $database) = @_;
		client_ok('pg_dump', 'pg_dump', '-f', $file, 'source');
		client_ok('restore of a plain dump', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $database,
			'-f', $file);
	},
	custom => sub {
		my ($file, $database) = @_;
		client_ok('pg_dump -Fc', 'pg_dump', '-Fc', '-f', $file, 'source');
		client_ok('parallel pg_restore', 'pg_restore', '-j', '2', '-d', $database, $file);
	},
	directory => sub {
		my ($file, $database) = @_;
		client_ok('parallel pg_dump', 'pg_dump', '-Fd', '-j', '2', '-f', $file, 'source');
		client_ok('pg_restore of a folder', 'pg_restore', '-j', '3', '-d', $database, $file);
	});

for my $kind (sort keys %restore)
{
	my $database = "restored_$kind";
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
	$restore{$kind}->("$ENV{TESTDIR}/$kind.dump", $database);

	is($node->safe_psql($database, 'SELECT count(*) FROM streamext.views'), scalar(@views), "$kind: all views are there");
	my $wrong = 0;
	for my $view (@views)
	{
		my $state = sub {
			return $node->safe_psql($database,
				"SELECT coalesce(max(state), '') FROM streamext.views WHERE view = '$view'::regclass");
		};
		my $before = $state->();
		# until it is live, reading it may also be an error that says so
		my $differs = eval { difference($node, $database, $view) } // 'an error';
		my $after = $state->();
		$wrong++ if $before eq 'live' && $after eq 'live' && $differs ne '';
	}
	is($wrong, 0, "$kind: no view that calls itself live is wrong");
	ok(query_until($node, $database, "SELECT bool_and(state = 'live') FROM streamext.views", 't', 60),
		"$kind: all get live") or next;
	oracle($node, $database, $_, "$kind, restored") for @views;
	$node->safe_psql($database, "INSERT INTO app.ev SELECT i % 10, i, now() FROM generate_series(1, 500) i");
	oracle($node, $database, $_, "$kind, new rows") for @views;
	is($node->safe_psql($database, "SELECT event_time FROM streamext.streams WHERE stream = 'app.ev'::regclass"),
		'ts', "$kind: the stream's declaration came along");
	$node->safe_psql($database, "INSERT INTO app.ev VALUES (1, -1, now()), (1000, 1, now()); SELECT streamext.flush()");
	is($node->safe_psql($database, "SELECT count(*), min(message) FROM streamext.dead_letters WHERE view = 'app.total'::regclass AND reason = 'invalid'"),
		'2|the row fails the condition of the stream: ((v >= 0) AND app.fine(k))', "$kind: so did its condition");
	is($node->safe_psql($database, "SELECT count(*) FROM streamext.verify('app.total')"), '0', "$kind: and verify() knows of it");
	is($node->safe_psql($database, 'BEGIN; DROP TABLE app.ev CASCADE; ' .
		q(SELECT count(*) FROM pg_class WHERE relname LIKE 'valid\_%' AND relkind = 'v'; ROLLBACK)), '0', "$kind: which goes with its table");
	$node->safe_psql($database, 'DELETE FROM app.ev WHERE v < 0 OR k >= 1000');
	is($node->safe_psql($database, 'SET ROLE reader; SELECT n FROM app.total'), '5500', "$kind: grants came along");
	# names of new internals do not collide with restored ones
	$node->safe_psql($database, 'CREATE MATERIALIZED VIEW app.more WITH (streamext.continuous) AS '
		. 'SELECT k, count(*) AS n FROM app.ev GROUP BY k');
	oracle($node, $database, 'app.more', "$kind, a new view");

	# a parallel restore that comes with the rows when the view has been built already: it is built once more
	my ($mat, $odd) = map { $node->safe_psql($database, "SELECT mat FROM streamext.view_def WHERE view = 'app.$_'::regclass") } 'by_key', '"Odd name"';
	$node->safe_psql($database, "SET check_function_bodies = false; BEGIN; CREATE TEMP TABLE a AS TABLE $mat; CREATE TEMP TABLE b AS TABLE $odd;"
		. " TRUNCATE ONLY $mat; TRUNCATE ONLY $odd; INSERT INTO $mat TABLE a; INSERT INTO $odd TABLE b; COMMIT");
	ok(query_until($node, $database, q(SELECT bool_and(state = 'live') AND count(p) = 2 FROM streamext.views v
		LEFT JOIN streamext.view_position p ON p.view = v.view WHERE v.view IN ('app.by_key'::regclass, 'app."Odd name"'::regclass)), 't', 60), "$kind: live again");
	oracle($node, $database, $_, "$kind, rows that came late") for 'app.by_key', 'app."Odd name"';
	my ($status, $out, $err) = $node->psql($database, "TRUNCATE $mat");
	like($err, qr/is internal to continuous view/, "$kind: nobody else may do that");
}

# the restored databases do not disturb the source
$node->safe_psql('source', 'INSERT INTO app.ev VALUES (1, 1, now())');
oracle($node, 'source', $_, 'source afterwards') for @views;

# without data: views exist and work
$node->safe_psql('postgres', 'CREATE DATABASE schema_only TEMPLATE template0');
client_ok('pg_dump --schema-only', 'pg_dump', '-s', '-f', "$ENV{TESTDIR}/schema.dump", 'source');
client_ok('restore of a schema-only dump', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', 'schema_only',
	'-f', "$ENV{TESTDIR}/schema.dump");
$node->stop;
done_testing();
