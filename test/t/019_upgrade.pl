# I1: pg_upgrade to a new cluster, and pg_dumpall: views are exact, or say that they are being built, and then are.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my @views = qw(by_key total listed joined);
my $old = new_node('old');
new_database($old, 'app');
$old->safe_psql('app', <<'SQL');
CREATE TABLE names (k int PRIMARY KEY, name text NOT NULL);
INSERT INTO names SELECT i, 'name ' || i % 7 FROM generate_series(0, 49) i;
CREATE TABLE ev (k int NOT NULL, v int, note text) PARTITION BY RANGE (k);
CREATE TABLE ev_low PARTITION OF ev FOR VALUES FROM (0) TO (30);
CREATE TABLE ev_high PARTITION OF ev FOR VALUES FROM (30) TO (1000);
INSERT INTO ev SELECT i % 60, i % 1000, 'n' || i FROM generate_series(1, 5000) i;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, avg(v) AS mean, stddev(v) AS dev, max(note) AS last_note FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS s FROM ev;
CREATE MATERIALIZED VIEW listed WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v > 900;
CREATE MATERIALIZED VIEW joined WITH (streamext.continuous) AS
  SELECT name, count(*) AS n FROM ev JOIN names USING (k) GROUP BY name;
CREATE INDEX ON by_key (n);
SQL
oracle($old, 'app', $_, 'before') for @views;
$old->safe_psql('app', "INSERT INTO ev SELECT i % 60, i % 1000, 'm' || i FROM generate_series(1, 2000) i");
$old->safe_psql('app', "SELECT streamext.pause('listed')");
$old->safe_psql('app', "INSERT INTO ev SELECT i % 60, i % 1000, 'p' || i FROM generate_series(1, 2000) i");

sub restored_is_exact
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('app', 'SELECT count(*) FROM streamext.views'), scalar(@views), "$name: all views are there");
	is($node->safe_psql('app', "SELECT state FROM streamext.views WHERE view = 'listed'::regclass"), 'paused', "$name: paused stays paused");
	$node->safe_psql('app', "SELECT streamext.resume('listed')");
	oracle($node, 'app', $_, $name) for @views;
	$node->safe_psql('app', "INSERT INTO ev SELECT i % 60, i % 1000, 'q' || i FROM generate_series(1, 1000) i");
	oracle($node, 'app', $_, "$name, new rows") for @views;
	$node->safe_psql('app', 'SELECT streamext.flush()');
	$node->restart;
	oracle($node, 'app', $_, "$name, restarted") for @views;
	no_orphans($node, "$name: no slot too many");
	return;
}

# ---- pg_dumpall ----

my $all = "$ENV{TESTDIR}/all.sql";
$old->command_ok([ 'pg_dumpall', '-f', $all, '-d', $old->connstr('postgres') ], 'pg_dumpall');
my $restored = new_node('restored');
{
	local $ENV{PGHOST} = $restored->host;
	local $ENV{PGPORT} = $restored->port;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-Xq', '-d', 'postgres', '-f', $all ], '>', \$out, '2>', \$err);
	# the role that initdb made is there already
	is(join("\n", grep { /ERROR/ && !/role ".*" already exists/ } split /\n/, $err), '', 'its restore');
}
restored_is_exact($restored, 'pg_dumpall');
$restored->stop;

# ---- pg_upgrade ----

$old->stop;
my $new = new_node('new', start => 0);
{
	local $ENV{PGHOST};
	chdir $ENV{TESTDIR};
	my $bin = $ENV{SX_BINDIR};
	command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin, '-s', $new->host,
			'-p', $old->port, '-P', $new->port ], 'pg_upgrade');
}
$new->start;
restored_is_exact($new, 'pg_upgrade');
is($new->safe_psql('app', 'SELECT count(*) FROM streamext.dead_letters'), '0', 'no dead letters');
$new->stop;
done_testing();
