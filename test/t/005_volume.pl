# Volume: millions of rows by every road are exact.  How long after the last commit the views are
# complete is noted, not tested: that depends on the machine.
#
# 3,000,000 rows by one COPY, 3,000,000 by COPYs of 30,000 rows from four clients, and 100,000
# single-row transactions from four clients (each pays its own commit, hence fewer).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my @views = qw(by_key total rare);

my $node = new_node('volume', settings => <<'CONF');
shared_buffers = '512MB'
synchronous_commit = off
CONF
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (k int NOT NULL, v int NOT NULL);
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS total, avg(v) AS mean, min(v) AS low, max(v) AS high FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS total FROM ev;
CREATE MATERIALIZED VIEW rare WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v % 10000 = 0;
SQL
is($node->safe_psql('app', 'SELECT streamext.wait_for()'), 't', 'live');

# the files, written by the server itself
my $dir = $ENV{TESTDIR};
$node->safe_psql('app', <<"SQL");
COPY (SELECT i % 1000, i FROM generate_series(1, 3000000) i) TO '$dir/large.copy';
COPY (SELECT i % 1000, i FROM generate_series(1, 30000) i) TO '$dir/small.copy';
SQL
append_to_file("$dir/copy.sql", "COPY ev FROM '$dir/small.copy';\n");
append_to_file("$dir/insert.sql", "\\set k random(0, 999)\n\\set v random(0, 1000000)\nINSERT INTO ev VALUES (:k, :v);\n");

# step NAME, ROWS, CODE
sub step
{
	my ($name, $rows, $code) = @_;
	my $had = $node->safe_psql('app', 'SELECT count(*) FROM ev');
	my $load = elapsed($code);
	my $complete;
	# one connection, made beforehand, so that only the waiting is measured
	my $wait = $node->safe_psql('app', <<'SQL');
DO $$
DECLARE
  started timestamptz := clock_timestamp();
BEGIN
  IF NOT streamext.wait_for(NULL, '60s') THEN
    RAISE EXCEPTION 'timed out';
  END IF;
  PERFORM set_config('test.waited', extract(epoch FROM clock_timestamp() - started)::text, false);
END $$;
SELECT current_setting('test.waited');
SQL
	note(sprintf('%s: loaded in %.2f s, complete %.3f s later', $name, $load, $wait));
	is($node->safe_psql('app', 'SELECT n FROM total') - $had, $rows, "$name: all rows are there");
	oracle($node, 'app', $_, $name) for @views;
}

step('one COPY', 3_000_000, sub { $node->safe_psql('app', "COPY ev FROM '$dir/large.copy'") });
step('COPYs by four clients', 3_000_000, sub {
	$node->command_ok([ 'pgbench', '-n', '-c', 4, '-j', 2, '-t', 25, '-f', "$dir/copy.sql", 'app' ], 'pgbench with COPY');
});
step('single rows by four clients', 100_000, sub {
	$node->command_ok([ 'pgbench', '-n', '-M', 'prepared', '-c', 4, '-j', 2, '-t', 25000, '-f', "$dir/insert.sql", 'app' ],
		'pgbench with single rows');
});
$node->stop;
done_testing();
