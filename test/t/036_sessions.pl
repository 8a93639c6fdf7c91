# I1, I3: sessions are exact, whatever comes in whatever order, over flushes, restarts and kills.
#
# Rows come at random times, so that they extend sessions, bridge two or many of them, in live state, in
# the table and across both.  Now and then views are paused, so that a builder writes what came
# meanwhile, a large transaction is computed while it is open, and something is killed.  The oracle is
# the definition: a row begins a session unless it comes less than the gap after the one before.
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

my $rounds = 10;

seed(20260703);
allow_in_log('terminated by signal 9: Killed');
my $node = new_node('sessions', settings => "streamext.flush_interval = '40ms'\n");
new_database($node, 'app');
$node->safe_psql('app', 'CREATE TABLE ev (id bigserial, k int, ts timestamptz, n bigint, v int, note text)');

# sessions(KEYS, TIME, GAP, RANGE): the definition, as a query; rows without a time are one session
sub sessions
{
	my ($keys, $time, $gap, $range) = @_;
	my $by = $keys ? "PARTITION BY $keys ORDER BY $time" : "ORDER BY $time";
	my $columns = $keys ? "$keys, " : '';
	return <<"SQL";
SELECT $columns $range AS session, count(*) AS n, sum(v) AS total, avg(v) AS mean, min(note) AS first_note
FROM (SELECT *, count(*) FILTER (WHERE starts) OVER ($by RANGE UNBOUNDED PRECEDING) AS number
	FROM (SELECT *, lag($time) OVER ($by) IS NULL OR $time IS NULL OR $time - lag($time) OVER ($by) >= $gap AS starts FROM ev) a) b
GROUP BY $columns CASE WHEN $time IS NOT NULL THEN number END
SQL
}

my $aggregates = 'count(*) AS n, sum(v) AS total, avg(v) AS mean, min(note) AS first_note';
my %definition = (
	by_key => "SELECT k, streamext.session(ts, '10 seconds') AS session, $aggregates FROM ev GROUP BY k, streamext.session(ts, '10 seconds')",
	all_rows => "SELECT streamext.session(n, 7) AS session, $aggregates FROM ev GROUP BY streamext.session(n, 7)",
	by_day => "SELECT k, note, streamext.session(ts::date, '2 days') AS session, $aggregates FROM ev GROUP BY streamext.session(ts::date, '2 days'), k, note",
);
my %query = (
	by_key => sessions('k', 'ts', "interval '10 seconds'", "CASE WHEN min(ts) IS NOT NULL THEN tstzrange(min(ts), max(ts) + interval '10 seconds') END"),
	all_rows => sessions('', 'n', 7, 'CASE WHEN min(n) IS NOT NULL THEN int8range(min(n), max(n) + 7) END'),
	by_day => sessions('k, note', 'ts::date', 2, 'CASE WHEN min(ts) IS NOT NULL THEN daterange(min(ts::date), max(ts::date) + 2) END'),
);
my @views = sort keys %definition;

sub create
{
	my ($suffix) = @_;
	$node->safe_psql('app', "CREATE MATERIALIZED VIEW $_$suffix WITH (streamext.continuous) AS $definition{$_}") for @views;
	return;
}

# Times are dense in the round's own stretch, so that most sessions grow together in time, and
# anywhere before now and then.
sub row
{
	my ($round) = @_;
	my $at = chance(85) ? $round * 2000 + pick(2000) : pick(2000 * ($round + 1));
	my $k = chance(5) ? 'NULL' : pick(5);
	my $ts = chance(2) ? 'NULL' : sprintf("'2026-03-01 00:00:00+00'::timestamptz + %s * interval '1 second'",
		chance(10) ? $at * 80 : $at);
	my $n = chance(2) ? 'NULL' : $at * 5 - 40000;
	return sprintf("(%s, %s, %s, %d, '%s')", $k, $ts, $n, pick(1000), 'note ' . pick(3));
}

sub insert
{
	my ($round, $rows) = @_;
	return 'INSERT INTO ev (k, ts, n, v, note) VALUES ' . join(', ', map { row($round) } 1 .. $rows) . ';';
}

sub large
{
	my ($round) = @_;
	return "INSERT INTO ev (k, ts, n, v, note) SELECT g % 3, '2026-03-01 00:00:00+00'::timestamptz + (g * 7919 % 1500) * interval '31 second', "
	  . "g * 7919 % 3000 * 50, g, 'large' FROM generate_series($round, $round + 10200 + " . pick(500) . ') g;';
}

sub transaction
{
	my ($round) = @_;
	my $kind = pick(20);

	return insert($round, 1) if $kind < 9;
	return insert($round, 1 + pick(40)) if $kind < 14;
	return 'SELECT streamext.flush();' if $kind < 16;
	return 'BEGIN; ' . insert($round, 3) . ' SAVEPOINT a; ' . insert($round, 5) . ' ROLLBACK TO a; ' . insert($round, 2) . ' COMMIT;'
	  if $kind == 16;
	return 'BEGIN; ' . insert($round, 30) . ' ROLLBACK;' if $kind == 17;
	return insert($round, 200) if $kind == 18;
	return insert($round, 10);
}

create('');
oracle($node, 'app', $_, 'empty', $query{$_}) for @views;

ROUND: for my $round (1 .. $rounds)
{
	my $victim = (qw(server consumer nobody flusher paused))[ $round % 5 ];
	my @sessions;
	$node->safe_psql('app', join ';', map { "SELECT streamext.pause('$_')" } @views) if $victim eq 'paused';
	for my $session (1 .. 2)
	{
		my $file = "$ENV{TESTDIR}/sessions_${round}_$session.sql";
		my @transactions = map { transaction($round) } 1 .. 50;
		# computed while it is open, in part for nothing
		splice @transactions, 10, 0, 'BEGIN; ' . large($round) . ' SAVEPOINT a; ' . large($round + 1)
		  . ($session == 2 ? ' ROLLBACK TO a; ' : ' ') . insert($round, 5) . ' COMMIT;'
		  if ($round == 2 && $session == 1) || ($round == 8 && $session == 2);
		append_to_file($file, join("\n", @transactions) . "\n");
		my $out = '';
		push @sessions, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('app'), '-f', $file ], '>', \$out, '2>&1');
	}
	# somewhere within the workload: the moment is the test's, not a wait for something
	my $delay = (20 + pick(300)) / 1000;
	sleep $delay;
	my $pid;
	if ($victim eq 'server')
	{
		$pid = $node->{_pid};
		$node->kill9;
	}
	elsif ($victim ne 'nobody' && $victim ne 'paused')
	{
		($pid) = worker_pids($node, $victim, 'app');
		kill_process($pid) if $pid;
	}
	if ($victim eq 'paused')
	{
		$node->safe_psql('app', join ';', map { "SELECT streamext.resume('$_')" } @views);
		my ($builder) = worker_pids($node, 'builder', 'app');
		kill_process($builder) if $builder;
	}
	eval { $_->finish } for @sessions;
	if ($victim eq 'server')
	{
		wait_until('the killed server to be gone', 30, sub { !kill(0, $pid) });
		wait_until('the server to start again', 30, sub { $node->{_pid} = undef; $node->start(fail_ok => 1) })
		  or BAIL_OUT('the server did not start');
	}
	wait_ready($node) or BAIL_OUT('the server did not come up');
	for my $view (@views)
	{
		oracle($node, 'app', $view, "round $round, $victim after $delay s", $query{$view}) or last ROUND;
	}
	# the same through indexes and predicates
	if (chance(50))
	{
		my $k = pick(5);
		is($node->safe_psql('app', "SELECT * FROM by_key WHERE k = $k ORDER BY session DESC NULLS LAST LIMIT 5"),
			$node->safe_psql('app', "SELECT * FROM ($query{by_key}) q WHERE k = $k ORDER BY session DESC NULLS LAST LIMIT 5"),
			'the last sessions of a key');
		my $at = $round * 2000 + pick(2000);
		my $point = "'2026-03-01 00:00:00+00'::timestamptz + $at * interval '1 second'";
		is($node->safe_psql('app', "SELECT * FROM by_key WHERE session @> $point ORDER BY k"),
			$node->safe_psql('app', "SELECT * FROM ($query{by_key}) q WHERE session @> $point ORDER BY k"),
			'the sessions at a moment');
		# rescans with other keys
		my $first = 'SELECT key.k, q.session, n FROM generate_series(0, 6) key(k), LATERAL (SELECT * FROM %s s WHERE s.k = key.k ORDER BY session LIMIT 4) q ORDER BY 1, 2';
		is($node->safe_psql('app', 'SET enable_seqscan = off; ' . sprintf($first, 'by_key')),
			$node->safe_psql('app', sprintf($first, "($query{by_key})")), 'the first sessions of each key');
	}
}

is($node->safe_psql('app', 'SELECT count(*) > 3000 FROM ev'), 't', 'the workload did something');
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM by_key'), '>', 100, 'there are many sessions');
$node->safe_psql('app', 'SELECT streamext.flush()');
oracle($node, 'app', $_, 'at the end, flushed', $query{$_}) for @views;
is($node->safe_psql('app', 'SELECT count(*) FROM streamext.dead_letters'), '0', 'no dead letters');

# history: by one plan, and, because a row has no session, by rows
create('_2');
oracle($node, 'app', "${_}_2", 'history', $query{$_}) for @views;
$node->safe_psql('app', "INSERT INTO ev (k, ts, n, v, note) VALUES (1, 'infinity', 9223372036854775807, 1, 'far')");
my %finite = map { $_ => $query{$_} =~ s/FROM ev\b/FROM ev WHERE note <> 'far'/r } @views;
create('_3');
for my $view (map { ("$_", "${_}_2", "${_}_3") } @views)
{
	oracle($node, 'app', $view, 'without the row that has no session', $finite{ $view =~ s/_\d$//r });
}
$node->safe_psql('app', 'SELECT streamext.flush()');
is($node->safe_psql('app', "SELECT string_agg(DISTINCT message, '; ' ORDER BY message) || ' ' || count(*) FROM streamext.dead_letters"),
	'a row at an infinite time has no session; session is out of range for type bigint 9', 'that row is a dead letter of each view');

no_orphans($node);
$node->stop;
done_testing();
