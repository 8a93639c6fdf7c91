# I1: failover.  A promoted standby answers at once, and is exact without a rebuild.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my @views = qw(by_key total big);

my $primary = new_node('primary', settings => "streamext.flush_interval = '1s'\n");
new_database($primary, 'app');
$primary->safe_psql('app', <<'SQL');
CREATE TABLE ev (k int NOT NULL, v int);
INSERT INTO ev SELECT i % 10, i FROM generate_series(1, 1000) i;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, avg(v) AS mean FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS s FROM ev;
CREATE MATERIALIZED VIEW big WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v % 100 = 0;
SQL
oracle($primary, 'app', $_, 'primary') for @views;

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "hot_standby = on\nhot_standby_feedback = on\n");
$standby->start;

$primary->safe_psql('app', 'INSERT INTO ev SELECT i % 10, i FROM generate_series(1001, 5000) i');
oracle($primary, 'app', $_, 'primary with a standby') for @views;
$primary->safe_psql('app', 'SELECT streamext.flush()');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
for my $view (@views)
{
	is(difference($standby, 'app', $view), '', "standby: what was flushed and replicated is exact in $view");
}
my ($status, $out, $err) = $standby->psql('app', 'SELECT streamext.flush()');
isnt($status, 0, 'flush on a standby is refused');

# committed and replicated, but most likely not flushed; a prepared transaction besides
$primary->safe_psql('app', "ALTER SYSTEM SET streamext.flush_interval = '60s'");
$primary->reload;
$primary->safe_psql('app', <<'SQL');
BEGIN;
INSERT INTO ev SELECT 77, 100 FROM generate_series(1, 50);
PREPARE TRANSACTION 'over';
SQL
$primary->safe_psql('app', 'INSERT INTO ev SELECT i % 12, i FROM generate_series(5001, 9000) i');
is($primary->safe_psql('app', 'SELECT streamext.wait_for()'), 't', 'primary: consumed');
$primary->safe_psql('app', 'BEGIN; INSERT INTO ev SELECT 99, 100 FROM generate_series(1, 50); ROLLBACK');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$primary->stop('immediate');

my $before = $standby->safe_psql('app', 'SELECT n FROM total');
$standby->promote;
my $after = $standby->safe_psql('app', 'SELECT n FROM total');
cmp_ok($after, '>=', $before, 'promoted: the view answers right after');
cmp_ok($after, '<=', 9000, 'and never more than there is');
oracle($standby, 'app', $_, 'promoted') for @views;
$standby->safe_psql('app', "COMMIT PREPARED 'over'");
$standby->safe_psql('app', 'INSERT INTO ev SELECT i % 12, i FROM generate_series(9001, 9500) i');
oracle($standby, 'app', $_, 'promoted, new rows') for @views;
is($standby->safe_psql('app', 'SELECT n FROM by_key WHERE k = 77'), '50',
	'the prepared transaction counts once');
$standby->restart;
oracle($standby, 'app', $_, 'promoted and restarted') for @views;
no_orphans($standby);
$standby->stop;
done_testing();
