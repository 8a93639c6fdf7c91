# Scheduled jobs: with pg_cron, where it is installed, and by hand; runs that are killed have failed.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $cron = -f (`pg_config --sharedir` =~ s/\s+$//r) . '/extension/pg_cron.control';
my $node = new_node('jobs', start => 0);
# workers of the server instead of connections by libpq, which pg_hba.conf would have to let in
$node->append_conf('postgresql.conf', <<'CONF') if $cron;
shared_preload_libraries = 'streamext,pg_cron'
cron.database_name = 'app'
cron.use_background_workers = on
CONF
$node->start;
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (at timestamptz NOT NULL, v int);
SELECT streamext.create_stream('ev', event_time => 'at');
CREATE MATERIALIZED VIEW hours WITH (streamext.continuous) AS
  SELECT streamext.tumble(at, '1 hour') AS hour, count(*) AS n, sum(v) AS s FROM ev GROUP BY 1;
CREATE TABLE report (day date PRIMARY KEY, n bigint, s bigint);
CREATE FUNCTION write_report(wanted date) RETURNS bigint LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE written bigint;
BEGIN
  PERFORM pg_sleep(CASE WHEN wanted = '2026-01-05' THEN 600 ELSE 0 END);
  IF NOT coalesce(streamext.is_final('hours', wanted + time '23:00' AT TIME ZONE 'UTC'), false) THEN
    RAISE EXCEPTION 'day % is not over', wanted;
  END IF;
  DELETE FROM report WHERE day = wanted;
  INSERT INTO report SELECT wanted, sum(n), sum(s) FROM hours WHERE hour >= wanted::timestamptz AND hour < (wanted + 1)::timestamptz;
  GET DIAGNOSTICS written = ROW_COUNT;
  RETURN written;
END $$;
INSERT INTO ev SELECT '2026-01-01 00:00Z'::timestamptz + i * interval '10 minutes', i FROM generate_series(0, 300) i;
SELECT streamext.flush();
SQL
my $job = "CALL streamext.run_job('report', date '%s', 'write_report(date)')";
my $right = "1 of 144 10296";

sub report
{
	my ($day) = @_;
	return $node->safe_psql('app', "SELECT count(*) || ' of ' || sum(n) || ' ' || sum(s) FROM report WHERE day = '$day'");
}

# ---- by hand ----
$node->safe_psql('app', sprintf($job, '2026-01-01'));
is(report('2026-01-01'), $right, 'the report is written');
$node->safe_psql('app', sprintf($job, '2026-01-01'));
is(report('2026-01-01'), $right, 'and again, with the same result');
my ($result, $out, $error) = $node->psql('app', sprintf($job, '2026-01-03'));
like($error, qr/day 2026-01-03 is not over/, 'a failure is raised again');
is($node->safe_psql('app', "SELECT run_for, status, rows, error FROM streamext.job_runs ORDER BY id"),
	"2026-01-01|succeeded|1|\n2026-01-01|succeeded|1|\n2026-01-03|failed||day 2026-01-03 is not over", 'all runs are noted');

# ---- one at a time; one that is killed, and a server that crashes ----
sub long_run
{
	my $session = $node->background_psql('app', on_error_stop => 0);
	$session->query_until(qr/begun/, "\\echo begun\n" . sprintf($job, '2026-01-05') . ";\n");
	ok(query_until($node, 'app', "SELECT count(*) FROM streamext.job_runs WHERE run_for = '2026-01-05' AND status = 'running'", '1', 30), 'a long run is running');
	return $session;
}
my $session = long_run();
($result, $out, $error) = $node->psql('app', sprintf($job, '2026-01-05'));
like($error, qr/job "report" is already running for 2026-01-05/, 'the same is not run twice at a time');
$node->safe_psql('app', "SELECT pg_terminate_backend(pid) FROM streamext.job_run WHERE run_for = '2026-01-05'");
ok(query_until($node, 'app', "SELECT string_agg(status, ' ') FROM streamext.job_runs WHERE run_for = '2026-01-05'", 'failed', 30), 'killed, it has failed');
eval { $session->quit };
$session = long_run();
$node->stop('immediate');
eval { $session->quit };
$node->start;
is($node->safe_psql('app', "SELECT string_agg(status, ' ') FROM streamext.job_runs WHERE run_for = '2026-01-05'"), 'failed failed', 'and so it has after a crash');

# ---- pg_cron ----
SKIP:
{
	skip 'pg_cron is not installed: the same was run by hand above', 2 unless $cron;
	$node->safe_psql('app', 'CREATE EXTENSION pg_cron; DELETE FROM report');
	$node->safe_psql('app', "SELECT cron.schedule('report', '* * * * *', \$\$" . sprintf($job, '2026-01-01') . '$$)');
	# it looks once a minute
	ok(query_until($node, 'app', "SELECT count(*) > 5 FROM streamext.job_runs", 't', 90), 'pg_cron has run the job')
	  or diag($node->safe_psql('app', 'TABLE cron.job_run_details'));
	is(report('2026-01-01'), $right, 'with the same result');
}
$node->stop;
done_testing();
