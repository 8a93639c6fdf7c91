# I1, I2: watermarks, closed windows and sinks over crashes; the clock takes over when no rows come.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;
use Time::HiRes qw(sleep);

my $rounds = 12;

seed(20260406);
allow_in_log('terminated by signal 9: Killed');
my $clock = "$ENV{TESTDIR}/clock";
my $wrong = 0;

# by how many seconds the server's clock is wrong; written in place, because it is mapped
sub jump
{
	my ($seconds) = @_;
	$wrong += $seconds;
	open(my $file, -e $clock ? '+<' : '>', $clock) or die $!;
	syswrite($file, pack('q', $wrong)) == 8 or die $!;
	close $file;
	return;
}

# ---- sinks: each closed window exactly once, whatever is killed ----
my $node = new_node('time', settings => "streamext.flush_interval = '100ms'\n");
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE SEQUENCE ids;
CREATE TABLE ev (id bigint NOT NULL, k int);
SELECT streamext.create_stream('ev', event_time => 'id');
CREATE MATERIALIZED VIEW by_100 WITH (streamext.continuous) AS
  SELECT k, streamext.tumble(id, 100) AS w, count(*) AS n, sum(id) AS s FROM ev GROUP BY 1, 2;
-- windows that overlap, kept as panes
CREATE MATERIALIZED VIEW hop_100 WITH (streamext.continuous) AS
  SELECT k, streamext.hop(id, 20, 100) AS w, count(*) AS n, avg(id) AS a FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW final_100 WITH (streamext.continuous, streamext.emit = 'on_close') AS
  SELECT k, streamext.tumble(id, 100) AS w, count(*) AS n, sum(id) AS s FROM ev GROUP BY 1, 2;
-- an hour of the minutes, so to say
CREATE TABLE closed (at bigserial, k int, w bigint NOT NULL, n bigint, s numeric);
CREATE TABLE corrected (at bigserial, k int, w bigint NOT NULL, n bigint, s numeric, UNIQUE (k, w, n, s));
SELECT streamext.create_sink('by_100', 'closed', existing => true);
CREATE TABLE hopped (at bigserial, k int, w bigint NOT NULL, n bigint, a numeric);
SELECT streamext.create_sink('hop_100', 'hopped', corrections => true, existing => true);
SELECT streamext.create_sink('final_100', 'corrected', corrections => true, existing => true);
SELECT streamext.create_stream('closed', event_time => 'w');
CREATE MATERIALIZED VIEW by_1000 WITH (streamext.continuous) AS
  SELECT w / 1000 AS w, count(*) AS windows, sum(n) AS n FROM closed GROUP BY 1;
SQL
oracle($node, 'app', $_, 'before') for qw(by_100 hop_100 by_1000);

# What the sinks must hold: of every closed window one row, and for who wants corrections its last state.
sub sinks_exact
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql('app', "SELECT streamext.wait_for(NULL, '60s'); SELECT streamext.flush()");
	return is($node->safe_psql('app', <<'SQL'), "0|0|0|0|0|0|t", "$name: sinks are exact");
SELECT (SELECT count(*) FROM (SELECT k, w FROM closed GROUP BY 1, 2 HAVING count(*) > 1) twice),
	-- a group that began late was never there when its window closed
	(SELECT count(*) FROM closed c LEFT JOIN by_100 v USING (k, w)
		WHERE v.n IS NULL OR c.n > v.n OR NOT streamext.is_final('by_100', c.w)),
	(SELECT count(*) FROM (SELECT k, w, n, s FROM final_100 EXCEPT ALL
		(SELECT DISTINCT ON (k, w) k, w, n, s FROM corrected ORDER BY k, w, at DESC)) missing),
	(SELECT count(*) FROM (SELECT DISTINCT k, w FROM corrected EXCEPT SELECT k, w FROM final_100) open),
	(SELECT count(*) FROM (SELECT k, w, n, a FROM hop_100 WHERE streamext.is_final('hop_100', w) EXCEPT ALL
		(SELECT DISTINCT ON (k, w) k, w, n, a FROM hopped ORDER BY k, w, at DESC)) missing),
	(SELECT count(*) FROM streamext.verify('hop_100')),
	(SELECT count(*) FROM closed) <= (SELECT count(*) FROM final_100)
SQL
}

for my $round (1 .. $rounds)
{
	my $victim = (qw(server consumer flusher backend))[ $round % 4 ];
	my @sessions;
	for my $session (1 .. 2)
	{
		my $script = '';
		for (1 .. 60)
		{
			my $insert = 'INSERT INTO ev SELECT nextval($$ids$$), i % 3 FROM generate_series(1, ' . (1 + pick(60)) . ') i;';
			$script .= chance(15) ? "BEGIN; $insert ROLLBACK;\n"
			  : chance(10) ? "INSERT INTO ev VALUES (currval(\$\$ids\$\$) - " . pick(300) . ", 1);\n"
			  : "$insert\n";
		}
		my $file = "$ENV{TESTDIR}/round_${round}_$session.sql";
		append_to_file($file, $script);
		push @sessions, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('app'), '-f', $file ],
			'>', "$ENV{TESTDIR}/round_${round}_$session.out", '2>&1');
	}
	# somewhere within the workload: the moment is the test's, not a wait for something
	sleep((20 + pick(300)) / 1000);
	if ($victim eq 'server')
	{
		my $pid = $node->{_pid};
		$node->kill9;
		eval { $_->finish } for @sessions;
		wait_until("the killed server to be gone", 30, sub { !kill(0, $pid) });
		wait_until("the server to start again", 30, sub { $node->{_pid} = undef; $node->start(fail_ok => 1) })
		  or BAIL_OUT('the server did not start');
	}
	else
	{
		my ($pid) = $victim eq 'backend'
		  ? $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity
				WHERE datname = 'app' AND backend_type = 'client backend' LIMIT 1")
		  : worker_pids($node, $victim, 'app');
		kill_process($pid) if $pid;
		eval { $_->finish } for @sessions;
	}
	ok(wait_ready($node), "round $round: up again after kill of $victim") or last;
	sinks_exact("round $round, $victim") or last;
}
oracle($node, 'app', $_, 'after all') for qw(by_100 hop_100 by_1000);
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM closed'), '>', 50, 'windows have closed');
note('rows of the sinks: ' . $node->safe_psql('app', 'SELECT (SELECT count(*) FROM closed), (SELECT count(*) FROM corrected)'));

# ---- the watermark is stored with the position, and never moves back ----
my $before = $node->safe_psql('app', "SELECT watermark_number FROM streamext.status WHERE view = 'by_100'::regclass");
$node->stop('immediate');
$node->start;
ok(wait_ready($node), 'up again');
ok(query_until($node, 'app', "SELECT watermark_number >= $before FROM streamext.status WHERE view = 'by_100'::regclass", 't'),
	'the watermark is where it was');
$node->safe_psql('app', "DROP MATERIALIZED VIEW hop_100; SELECT streamext.alter_stream('ev', late_rows => 'drop')");
$node->safe_psql('app', 'INSERT INTO ev VALUES (1, 77)');
$node->safe_psql('app', "SELECT streamext.wait_for()");
is($node->safe_psql('app', "SELECT count(*) FROM by_100 WHERE k = 77"), '0', 'and what comes late after the crash is late');
no_orphans($node);
$node->stop;

# ---- without rows: the clock ----
jump(0);
$node = new_node('idle', start => 0, settings => "streamext.flush_interval = '100ms'\n");
start_with_shim($node, build_shim('clock'), SHIM_CLOCK => $clock);
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (ts timestamptz NOT NULL, k int);
SELECT streamext.create_stream('ev', event_time => 'ts', idle_timeout => '300 ms');
CREATE MATERIALIZED VIEW by_sec WITH (streamext.continuous, streamext.emit = 'on_close') AS
  SELECT streamext.tumble(ts, '2 seconds') AS w, count(*) AS n FROM ev GROUP BY 1;
CREATE TABLE closed (w timestamptz, n bigint);
SELECT streamext.create_sink('by_sec', 'closed', existing => true);
SELECT streamext.wait_for();
SQL
my $shown = "SELECT string_agg(to_char(w, 'HH24:MI:SS ') || n, ', ' ORDER BY w) FROM";
$node->safe_psql('app', "INSERT INTO ev VALUES ('2024-01-01 10:00:00Z', 1), ('2024-01-01 10:00:01Z', 1)");
ok(query_until($node, 'app', "$shown by_sec", '10:00:00 2'), 'the last window closes without another row');
ok(query_until($node, 'app', "$shown closed", '10:00:00 2'), 'and reaches the sink');
like($node->safe_psql('app', 'SELECT watermark_held_by FROM streamext.status'), qr/the clock/, 'the status says why');

# the clock on the wall is of no concern
for my $seconds (9 * 3600, -20 * 3600)
{
	jump($seconds);
	my $here = $node->safe_psql('app', "SELECT streamext.watermark('ev')");
	ok(query_until($node, 'app', "SELECT streamext.watermark('ev') > '$here'::timestamptz + interval '1 second'", 't'),
		"the clock jumps by $seconds s: the watermark goes on");
	is($node->safe_psql('app', "SELECT streamext.watermark('ev') < '$here'::timestamptz + interval '10 minutes'"), 't',
		'by seconds');
}
jump(11 * 3600);

# rows of an open transaction are still to come
my $open = background($node, 'app');
statement($open, "BEGIN; INSERT INTO ev VALUES ('2024-01-01 11:00:00Z', 2)");
$node->safe_psql('app', "INSERT INTO ev VALUES ('2024-01-01 11:00:00.5Z', 3)");
ok(query_until($node, 'app', "SELECT streamext.watermark('ev')", '2024-01-01 11:00:00.5+00'), 'a row has come');
# well beyond the timeout, by the cycles that have looked
my $rows = $node->safe_psql('app', "SELECT pg_current_wal_insert_lsn()");
$node->safe_psql('app', "SELECT streamext.wait_for(), pg_sleep(0.2)") for 1 .. 5;
is($node->safe_psql('app', "SELECT streamext.watermark('ev')"), '2024-01-01 11:00:00.5+00', 'it waits for the open transaction');
statement($open, 'COMMIT');
ok(query_until($node, 'app', "$shown by_sec", '10:00:00 2, 11:00:00 2'), 'which counts; then the window closes');
ok(query_until($node, 'app', "$shown closed", '10:00:00 2, 11:00:00 2'), 'for the sink, too');
is($node->safe_psql('app', 'SELECT late_rows FROM streamext.status'), '0', 'nothing was late');

# nothing more to store when all is closed
my $seq = $node->safe_psql('app', "SELECT streamext.flush(); SELECT seq FROM streamext.view_position");
$node->safe_psql('app', 'SELECT pg_sleep(0.5)') for 1 .. 4;
is($node->safe_psql('app', 'SELECT seq FROM streamext.view_position'), $seq =~ s/^\n//r, 'an idle stream writes nothing');

# a restart: what was final stays so
$node->stop('immediate');
start_with_shim($node, build_shim('clock'), SHIM_CLOCK => $clock);
ok(wait_ready($node), 'up again');
is($node->safe_psql('app', "$shown by_sec"), '10:00:00 2, 11:00:00 2', 'final rows are final after a crash');

# windows that overlap close by the clock as well, and old ones go by it
$node->safe_psql('app', <<'SQL');
CREATE TABLE fade (ts timestamptz NOT NULL);
SELECT streamext.create_stream('fade', event_time => 'ts', idle_timeout => '300 ms');
CREATE MATERIALIZED VIEW sliding WITH (streamext.continuous) AS
  SELECT streamext.hop(ts, '1 second', '2 seconds') AS w, count(*) AS n FROM fade GROUP BY 1;
CREATE MATERIALIZED VIEW fading WITH (streamext.continuous, streamext.retention = '1 second') AS
  SELECT streamext.tumble(ts, '1 second') AS w, count(*) AS n FROM fade GROUP BY 1;
CREATE TABLE slid (w timestamptz, n bigint);
SELECT streamext.create_sink('sliding', 'slid', existing => true);
SELECT streamext.wait_for();
INSERT INTO fade VALUES ('2024-01-01 12:00:00Z'), ('2024-01-01 12:00:00.9Z'), ('2024-01-01 12:00:01Z');
SQL
ok(query_until($node, 'app', "$shown slid", '11:59:59 2, 12:00:00 3, 12:00:01 1'), 'a sliding window closes without another row');
is($node->safe_psql('app', "$shown sliding"), '11:59:59 2, 12:00:00 3, 12:00:01 1', 'and shows what it did');
ok(query_until($node, 'app', 'SELECT count(*) FROM fading', '0'), 'what is older than the retention goes without another row');
jump(-9 * 3600);
$node->safe_psql('app', "INSERT INTO fade VALUES ('2024-01-01 12:00:00Z')");
$node->safe_psql('app', 'SELECT streamext.wait_for()');
is($node->safe_psql('app', "SELECT (SELECT count(*) FROM fading), dropped_rows FROM streamext.status WHERE view = 'fading'::regclass"), '0|1',
	'and stays gone, wherever the clock jumps');
oracle($node, 'app', 'sliding', 'at the end');

$open->{handle}->kill_kill(grace => 0) if ref $open eq 'HASH' && $open->{handle};
no_orphans($node);
$node->stop;
done_testing();
