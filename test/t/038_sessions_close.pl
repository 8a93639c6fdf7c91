# I1, I2: sessions close, over crashes: each closed one is in the sink exactly once, and late rows are dead letters exactly once.
#
# Which rows are late depends on what is computed together.  So the view is compared with its rows less the
# dead letters, and the sink with what of the view is final.  Where late rows are merged, a session may be opened
# again: then it is in the sink again, or with all that becomes of it not.
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

seed(20261121);
allow_in_log('terminated by signal 9: Killed');

my $node = new_node('sessions_close', settings => "streamext.flush_interval = '40ms'\n");
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE SEQUENCE ids;
CREATE TABLE ev (k int, t bigint NOT NULL, id bigint);
CREATE TABLE kept (LIKE ev);
SELECT streamext.create_stream('ev', event_time => 't', late_rows => 'dead_letter');
SELECT streamext.create_stream('kept', event_time => 't', late_rows => 'merge');
CREATE MATERIALIZED VIEW s WITH (streamext.continuous) AS
  SELECT k, streamext.session(t, 20) AS session, count(*) AS n, sum(id) AS ids FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW merged WITH (streamext.continuous) AS
  SELECT k, streamext.session(t, 20) AS session, count(*) AS n, sum(id) AS ids FROM kept GROUP BY 1, 2;
CREATE TABLE closed (at bigserial, k int, session int8range, n bigint, ids numeric, began bigint GENERATED ALWAYS AS (lower(session)) STORED NOT NULL);
CREATE TABLE once (at bigserial, k int, session int8range, n bigint, ids numeric);
CREATE TABLE corrected (at bigserial, k int, session int8range, n bigint, ids numeric);
SELECT streamext.create_sink('s', 'closed', existing => true);
SELECT streamext.create_sink('merged', 'once', existing => true);
SELECT streamext.create_sink('merged', 'corrected', existing => true, corrections => true);
SELECT streamext.create_stream('closed', event_time => 'began');
-- hours of the sessions, so to say
CREATE MATERIALIZED VIEW by_hour WITH (streamext.continuous) AS
  SELECT streamext.tumble(began, 1000) AS hour, count(*) AS sessions, sum(n) AS n FROM closed GROUP BY 1;
SQL

# the definition of sessions over these rows
sub sessions
{
	my ($rows) = @_;
	return <<"SQL";
SELECT k, int8range(min(t), max(t) + 20) AS session, count(*) AS n, sum(id) AS ids
FROM (SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY k ORDER BY t RANGE UNBOUNDED PRECEDING) AS island
	FROM (SELECT *, coalesce(t - lag(t) OVER (PARTITION BY k ORDER BY t) >= 20, true) AS starts FROM $rows) a) b
GROUP BY k, island
SQL
}
my $in_time = "(SELECT * FROM ev WHERE id NOT IN (SELECT (\"row\" ->> 'id')::bigint FROM streamext.dead_letters)) e";
my %query = (s => sessions($in_time), merged => sessions('kept'));
oracle($node, 'app', $_, 'empty', $query{$_}) for sort keys %query;
oracle($node, 'app', 'by_hour', 'empty');

# mostly a little out of order; now and then what may bridge sessions that have closed
sub insert
{
	my ($table) = @_;
	my @rows = map {
		my $back = chance(80) ? pick(25) : chance(80) ? pick(120) : pick(2000);
		sprintf('(%s, greatest(0, nextval($$ids$$) * 2 - %d), currval($$ids$$))', chance(5) ? 'NULL' : pick(4), $back)
	} 1 .. 1 + pick(chance(20) ? 40 : 4);
	return "INSERT INTO $table VALUES " . join(', ', @rows) . ';';
}

sub transaction
{
	my $table = chance(50) ? 'ev' : 'kept';
	return chance(10) ? 'BEGIN; ' . insert($table) . ' ROLLBACK;'
	  : chance(10) ? 'BEGIN; ' . insert('ev') . insert('kept') . ' SAVEPOINT a; ' . insert('ev') . ' ROLLBACK TO a; COMMIT;'
	  : insert($table);
}

sub exact
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	# dead letters and sinks are written by the flush
	$node->safe_psql('app', "SELECT streamext.wait_for(NULL, '60s'); SELECT streamext.flush(); SELECT streamext.wait_for(NULL, '60s')");
	my $good = oracle($node, 'app', 's', $name, $query{s}) && oracle($node, 'app', 'merged', $name, $query{merged}) &&
	  oracle($node, 'app', 'by_hour', $name);
	$good &= is($node->safe_psql('app', <<'SQL'), '0|0|0|0|0|0', "$name: each closed session once");
SELECT (SELECT count(*) FROM (SELECT k, session, n, ids FROM closed EXCEPT ALL SELECT * FROM s WHERE streamext.is_final('s', session)) more),
	(SELECT count(*) FROM (SELECT * FROM s WHERE streamext.is_final('s', session) EXCEPT ALL SELECT k, session, n, ids FROM closed) less),
	(SELECT count(*) FROM (SELECT id FROM (SELECT "row" ->> 'id' AS id FROM streamext.dead_letters) d GROUP BY id HAVING count(*) > 1) twice),
	(SELECT count(*) FROM once a JOIN once b ON a.at < b.at AND a.k IS NOT DISTINCT FROM b.k AND a.session && b.session),
	(SELECT count(*) FROM (SELECT * FROM merged WHERE streamext.is_final('merged', session) EXCEPT SELECT k, session, n, ids FROM corrected) less),
	(SELECT count(*) FROM once o WHERE NOT EXISTS (SELECT FROM merged m WHERE m.k IS NOT DISTINCT FROM o.k AND m.session @> o.session AND m.n >= o.n))
SQL
	return $good;
}

ROUND: for my $round (1 .. $rounds)
{
	my $victim = (qw(server consumer flusher paused backend))[ $round % 5 ];
	my @sessions;
	$node->safe_psql('app', "SELECT streamext.pause('s'), streamext.pause('merged')") if $victim eq 'paused';
	for my $session (1 .. 2)
	{
		my $file = "$ENV{TESTDIR}/close_${round}_$session.sql";
		append_to_file($file, join("\n", map { transaction() } 1 .. 60) . "\n");
		push @sessions, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('app'), '-f', $file ],
			'>', "$ENV{TESTDIR}/close_${round}_$session.out", '2>&1');
	}
	# somewhere within the workload: the moment is the test's, not a wait for something
	sleep((20 + pick(300)) / 1000);
	if ($victim eq 'server')
	{
		my $pid = $node->{_pid};
		$node->kill9;
		eval { $_->finish } for @sessions;
		wait_until('the killed server to be gone', 30, sub { !kill(0, $pid) });
		wait_until('the server to start again', 30, sub { $node->{_pid} = undef; $node->start(fail_ok => 1) })
		  or BAIL_OUT('the server did not start');
	}
	else
	{
		$node->safe_psql('app', "SELECT streamext.resume('s'), streamext.resume('merged')") if $victim eq 'paused';
		my ($pid) = $victim eq 'backend'
		  ? $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity
				WHERE datname = 'app' AND backend_type = 'client backend' LIMIT 1")
		  : worker_pids($node, $victim eq 'paused' ? 'builder' : $victim, 'app');
		kill_process($pid) if $pid;
		eval { $_->finish } for @sessions;
	}
	ok(wait_ready($node), "round $round: up again after kill of $victim") or last;
	exact("round $round, $victim") or last ROUND;
}
note($node->safe_psql('app', "SELECT 'rows ' || (SELECT count(*) FROM ev) || ', late ' || (SELECT count(*) FROM streamext.dead_letters) || ', closed '
	|| (SELECT count(*) FROM closed) || '; merged: once ' || (SELECT count(*) FROM once) || ', corrected ' || (SELECT count(*) FROM corrected)"));
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM closed'), '>', 50, 'sessions have closed');
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM streamext.dead_letters'), '>', 50, 'rows were late');
cmp_ok($node->safe_psql('app', 'SELECT (SELECT count(*) FROM corrected) - (SELECT count(*) FROM once)'), '>', 10, 'and changed what had closed');

# ---- rows may be late, but the view's table is locked: the others go on, and it goes on afterwards ----
my $mat = $node->safe_psql('app', "SELECT mat::regclass FROM streamext.view_def WHERE view = 's'::regclass");
my $locker = background($node, 'app');
statement($locker, "BEGIN; LOCK TABLE $mat IN ACCESS EXCLUSIVE MODE");
$node->safe_psql('app', 'INSERT INTO ev SELECT k, last.t - 30, nextval($$ids$$) FROM generate_series(0, 3) k, (SELECT max(t) AS t FROM ev) last');
$node->safe_psql('app', 'INSERT INTO kept VALUES (77, nextval($$ids$$) * 2, 1)');
ok(query_until($node, 'app', "SELECT count(*) FROM merged WHERE k = 77", '1'), 'another view goes on');
like($node->safe_psql('app', "SELECT reason FROM streamext.status WHERE view = 's'::regclass"), qr/lock/, 'the reason names the lock');
statement($locker, 'COMMIT');
exact('after the lock');

# ---- sessions are final after a crash as before ----
my $final = $node->safe_psql('app', "SELECT * FROM s WHERE streamext.is_final('s', session) ORDER BY k, session");
$node->stop('immediate');
$node->start;
ok(wait_ready($node), 'up again');
is($node->safe_psql('app', "SELECT * FROM s WHERE streamext.is_final('s', session) ORDER BY k, session"), $final, 'final is final');
exact('after the restart');

# ---- without rows: by the clock ----
$node->safe_psql('app', <<'SQL');
CREATE TABLE visits (k int, ts timestamptz NOT NULL);
SELECT streamext.create_stream('visits', event_time => 'ts', idle_timeout => '300 ms');
CREATE MATERIALIZED VIEW v WITH (streamext.continuous, streamext.emit = 'on_close') AS
  SELECT k, streamext.session(ts, '2 seconds') AS session, count(*) AS n FROM visits GROUP BY 1, 2;
CREATE TABLE done (k int, session tstzrange, n bigint);
SELECT streamext.create_sink('v', 'done', existing => true);
SELECT streamext.wait_for();
INSERT INTO visits VALUES (1, '2024-01-01 10:00:00Z'), (1, '2024-01-01 10:00:01Z'), (2, '2024-01-01 10:00:00.5Z');
SQL
ok(query_until($node, 'app', 'SELECT string_agg(k || $$ $$ || n, $$, $$ ORDER BY k) FROM v', '1 2, 2 1'), 'the last sessions close without another row');
ok(query_until($node, 'app', 'SELECT string_agg(k || $$ $$ || n, $$, $$ ORDER BY k) FROM done', '1 2, 2 1'), 'and reach the sink');
my $seq = "SELECT seq FROM streamext.view_position WHERE view = 'v'::regclass";
$node->safe_psql('app', 'SELECT streamext.flush()');
my $before = $node->safe_psql('app', $seq);
$node->safe_psql('app', 'SELECT pg_sleep(0.5)') for 1 .. 4;
is($node->safe_psql('app', $seq), $before, 'an idle stream writes nothing');
no_orphans($node);
$node->stop;
done_testing();
