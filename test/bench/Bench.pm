package Bench;
# test/bench/Bench.pm
#		What workloads have in common: the systems with their servers, and the data.
use strict;
use warnings;

use Exporter 'import';

use Measure;
use Report;
use Server;

our @EXPORT = qw(workload systems baseline events_file events_table shapes viewed_events check);

our @workloads;
my (@systems, %servers, %files);

# workload(NAME, SECONDS, CODE, FULL): SECONDS is its share of a quarter of an hour; FULL: only when that was asked for
sub workload
{
	my ($name, $seconds, $code, $full) = @_;
	push @workloads, { name => $name, seconds => $seconds, code => $code, full => $full };
	return;
}

# start(NAMES): the systems that are compared, the first of them being the baseline
sub start
{
	my @names = @_;
	for my $name (@names)
	{
		require "$ENV{SX_TOP}/test/bench/systems/$name.pm";
		push @systems, $name->new;
		$servers{$name} = Server->new($systems[-1]);
	}
	return;
}

sub stop
{
	$_->stop for values %servers;
	return;
}

# The servers of all systems; of the baseline
sub systems
{
	return map { $servers{ $_->name } } @_ ? grep({ $_->keeps_views } @systems) : @systems;
}

sub baseline
{
	return $servers{ $systems[0]->name };
}

# Rows of an hour in the order of their time: a thousand keys, windows of five minutes.
sub events_query
{
	my ($rows) = @_;
	return "SELECT timestamptz '2026-01-01 00:00Z' + i * (interval '1 hour' / $rows) AS ts, 'key' || abs(hashint4(i::int) % 1000) AS k,
		abs(hashint8(i))::bigint % 100000 AS v, (i % 100)::int AS s FROM generate_series(0::bigint, $rows - 1) i";
}

# a file for COPY with so many of them
sub events_file
{
	my ($rows) = @_;
	if (!$files{$rows})
	{
		$files{$rows} = "$ENV{SX_TEMP}/events.$rows";
		my $session = Session->new(baseline(), 'postgres');
		$session->ask('COPY (' . events_query($rows) . ") TO '$files{$rows}'");
		$session->close;
	}
	return $files{$rows};
}

# the table for them, new
sub events_table
{
	my ($session) = @_;
	$session->ask('DROP TABLE IF EXISTS ev CASCADE');
	$session->ask('CREATE TABLE ev (ts timestamptz NOT NULL, k text NOT NULL, v bigint NOT NULL, s int NOT NULL)');
	return;
}

# shapes(SYSTEM): ten queries over that table
sub shapes
{
	my ($system) = @_;
	my ($minutes, $hour) = map { $system->window('ts', $_) } '5 minutes', '1 hour';
	return (
		"SELECT k, $minutes AS w, count(*) AS n, sum(v) AS total, avg(s) AS mean, max(v) AS high FROM ev GROUP BY 1, 2",
		'SELECT k, count(*) AS n, sum(v) AS total FROM ev GROUP BY k',
		'SELECT count(*) AS n, sum(v) AS total, min(ts) AS first, max(ts) AS last FROM ev',
		'SELECT ts, k, v FROM ev WHERE v % 10000 = 0',
		"SELECT $hour AS w, count(*) AS n, avg(v) AS mean FROM ev GROUP BY 1",
		'SELECT s, count(*) AS n, stddev(v) AS spread FROM ev GROUP BY s',
		"SELECT k, $minutes AS w, count(*) FILTER (WHERE s < 10) AS few, sum(v) FILTER (WHERE s >= 10) AS many FROM ev GROUP BY 1, 2",
		"SELECT d.part, $minutes AS w, count(*) AS n, sum(e.v) AS total FROM ev e JOIN dim d ON d.s = e.s GROUP BY 1, 2",
		"SELECT date_trunc('minute', ts, 'UTC') AS w, s % 10 AS digit, bool_or(v > 99000) AS large, count(*) AS n FROM ev GROUP BY 1, 2",
		'SELECT v / 1000 AS bucket, count(*) AS n, min(k) AS low, max(s) - min(s) AS width FROM ev GROUP BY 1 HAVING count(*) > 1');
}

# the table that one of them joins
sub dimension
{
	my ($session) = @_;
	$session->ask("DROP TABLE IF EXISTS dim CASCADE");
	$session->ask("CREATE TABLE dim AS SELECT s, 'part' || s % 7 AS part FROM generate_series(0, 99) s");
	$session->ask('CREATE UNIQUE INDEX ON dim (s)');
	$session->ask('ANALYZE dim');
	return;
}

# viewed_events(SESSION, N): the events' table with views of so many shapes, view_0 and so on; returns their queries
sub viewed_events
{
	my ($session, $views) = @_;
	my $system = $session->system;
	my @queries = (shapes($system))[ 0 .. $views - 1 ];
	events_table($session);
	dimension($session);
	$system->create_view($session, "view_$_", $queries[$_]) for 0 .. $#queries;
	return @queries;
}

# check(SESSION, VIEW, QUERY): notes it if they differ
sub check
{
	my ($session, $view, $query) = @_;
	$session->system->complete($session);
	exact($session->system->name, $view, $session->system->differences($session, $view, $query));
	return;
}

1;
