# I1: sessions at full size.  A million sessions of 100,000 keys: as history, as one transaction into an
# empty view, and as many that come out of order; then rows that bridge them in pairs.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

$ENV{PGOPTIONS} = '-c work_mem=256MB -c max_parallel_workers_per_gather=0';
my $node = new_node('million', settings => "fsync = off\nsynchronous_commit = off\nshared_buffers = 256MB\nstreamext.wait_timeout = 300s\n");
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (k int NOT NULL, t bigint NOT NULL, v int NOT NULL);
CREATE MATERIALIZED VIEW live WITH (streamext.continuous) AS
  SELECT k, streamext.session(t, 10) AS session, count(*) AS n, sum(v) AS total FROM ev GROUP BY k, streamext.session(t, 10);
SQL
my $islands = <<'SQL';
SELECT k, int8range(min(t), max(t) + 10) AS session, count(*) AS n, sum(v) AS total
FROM (SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY k ORDER BY t RANGE UNBOUNDED PRECEDING) AS number
	FROM (SELECT *, coalesce(t - lag(t) OVER (PARTITION BY k ORDER BY t) >= 10, true) AS starts FROM ev) a) b
GROUP BY k, number
SQL

sub within
{
	my ($name, $seconds, $sql) = @_;
	my $took = elapsed(sub { $node->safe_psql('app', $sql) });
	note(sprintf('%s: %.1f s', $name, $took));
	cmp_ok($took, '<', $seconds, "$name within $seconds s");
	return;
}

sub wait_for { return "SELECT streamext.wait_for('$_[0]', '300s')" }

# two rows each, ten sessions of a key, 20 apart; in an order that has nothing to do with time
within('two million rows in one transaction', 240, <<"SQL");
INSERT INTO ev SELECT i % 100000, (i::bigint * 7919 % 2000000) / 200000 * 20 + 5 * (i::bigint * 7919 % 2), i % 100 FROM generate_series(0, 1999999) i;
@{[ wait_for('live') ]}
SQL
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM live'), '>', 900_000, 'a million sessions');
oracle($node, 'app', 'live', 'one transaction', $islands);
within('the same as history', 240, <<"SQL");
CREATE MATERIALIZED VIEW history WITH (streamext.continuous) AS
  SELECT k, streamext.session(t, 10) AS session, count(*) AS n, sum(v) AS total FROM ev GROUP BY k, streamext.session(t, 10);
@{[ wait_for('history') ]}
SQL
oracle($node, 'app', 'history', 'history', $islands);
within('bridges between a hundred thousand pairs', 240, <<"SQL");
INSERT INTO ev SELECT i, 12 + 20 * (i % 9), 1 FROM generate_series(0, 99999) i;
@{[ wait_for('live') ]};
@{[ wait_for('history') ]};
SELECT streamext.flush();
SQL
oracle($node, 'app', $_, 'bridged', $islands) for qw(live history);

# no other key: a million sessions of one group, and all of them bridged
$node->safe_psql('app', 'CREATE TABLE one (t bigint NOT NULL)');
$node->safe_psql('app', 'CREATE MATERIALIZED VIEW of_one WITH (streamext.continuous) AS SELECT streamext.session(t, 10) AS session, count(*) AS n FROM one GROUP BY 1');
within('a million sessions of one group', 240, <<"SQL");
INSERT INTO one SELECT i * 7919 % 1000000 * 12 FROM generate_series(0::bigint, 999999) i;
@{[ wait_for('of_one') ]};
SELECT streamext.flush('of_one');
SQL
is($node->safe_psql('app', 'SELECT count(*), sum(n), count(DISTINCT session) FROM of_one'), '1000000|1000000|1000000', 'each row is one');
within('all of them become one', 240, <<"SQL");
INSERT INTO one SELECT i * 7919 % 1000000 * 12 + 6 FROM generate_series(0::bigint, 999999) i;
@{[ wait_for('of_one') ]};
SELECT streamext.flush('of_one');
SQL
is($node->safe_psql('app', 'TABLE of_one'), '[0,12000004)|2000000', 'one session');
$node->stop;
done_testing();
