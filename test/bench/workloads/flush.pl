package workload::flush;
# test/bench/workloads/flush.pl
#		Writing 100,000 groups, new ones and such as are there, beside INSERT ... ON CONFLICT DO UPDATE of the same rows;
#		and freshness while that goes on.
use strict;
use warnings;

use Bench;
use Measure;
use Probe;
use Report;
use Time::HiRes qw(time);

# a row for each of a thousand keys in so many windows
sub rows
{
	my ($windows) = @_;
	return "SELECT timestamptz '2026-01-01 00:00Z' + i / 1000 * interval '5 minutes' AS ts, 'key' || i % 1000 AS k, i::bigint AS v, i % 100 AS s
		FROM generate_series(0, $windows * 1000 - 1) i";
}

# The baseline: groups, with sum and count in place of an average, as a table has them.
sub upsert
{
	my ($figures, $server, $windows) = @_;
	my $session = $server->database;

	$session->ask('CREATE TABLE result (k text, w timestamptz, n bigint, total numeric, mean_n bigint, mean_sum bigint, high bigint)');
	$session->ask('CREATE UNIQUE INDEX ON result (k, w)');
	$session->ask('CREATE TABLE delta AS SELECT k, ts AS w, 1::bigint AS n, v::numeric AS total, 1::bigint AS mean_n, s::bigint AS mean_sum, v AS high
		FROM (' . rows($windows) . ') r');
	$session->ask('VACUUM ANALYZE delta');
	$session->ask('CHECKPOINT');
	for my $what ('new', 'again')
	{
		my $used = measured($server, sub {
			$session->ask('INSERT INTO result AS r SELECT * FROM delta ON CONFLICT (k, w) DO UPDATE SET n = r.n + excluded.n,
				total = r.total + excluded.total, mean_n = r.mean_n + excluded.mean_n, mean_sum = r.mean_sum + excluded.mean_sum,
				high = greatest(r.high, excluded.high)');
		});
		note($figures, $server->system->name, $what => $used->{wall}, "${what}_cpu" => $used->{cpu});
	}
	$session->close;
	return;
}

sub view
{
	my ($server) = @_;
	my $session = $server->database;

	events_table($session);
	$server->system->create_view($session, 'result', (shapes($server->system))[0], flush_interval => '10min');
	$session->ask('CHECKPOINT');
	return $session;
}

sub flush
{
	my ($figures, $server, $windows) = @_;
	my $session = view($server);
	my $system = $server->system;

	for my $what ('new', 'again')
	{
		$session->ask('INSERT INTO ev ' . rows($windows));
		$system->complete($session);
		my $used = measured($server, sub { $system->stored($session) });
		note($figures, $system->name, $what => $used->{wall}, "${what}_cpu" => $used->{cpu});
	}
	check($session, 'result', (shapes($system))[0]);
	$session->close;
	return;
}

# Freshness alone, and while flushes follow one another.
sub freshness
{
	my ($figures, $server, $windows) = @_;
	my $session = view($server);
	my $system = $server->system;
	my $seconds = size(1, 6);
	my @flushes;

	$session->ask('INSERT INTO ev ' . rows($windows));
	$system->complete($session);
	$system->stored($session);
	my @alone = map { $_->[1] } Probe->begin($server, 'result', 0.005, $seconds)->end;
	my $probe = Probe->begin($server, 'result', 0.005, 3 * $seconds);
	my $ends = time + 3 * $seconds;
	while (time < $ends)
	{
		$session->ask('INSERT INTO ev ' . rows($windows));
		$system->complete($session);
		my $from = $session->value('SELECT extract(epoch FROM clock_timestamp())');
		$system->stored($session);
		push @flushes, [ $from, $session->value('SELECT extract(epoch FROM clock_timestamp())') ];
	}
	my @during;
	for my $sample ($probe->end)
	{
		push @during, $sample->[1] if grep { $sample->[0] >= $_->[0] && $sample->[0] <= $_->[1] } @flushes;
	}
	note($figures, $system->name, alone => quantile(0.99, @alone), during => quantile(0.99, @during), flushes => scalar(@flushes), samples => scalar(@during));
	check($session, 'result', (shapes($system))[0]);
	$session->close;
	return;
}

workload(flush => 110, sub {
	my $windows = size(10, 100);
	my %figures;

	in_turn(rounds(5), [systems()], sub { $_[0]->system->keeps_views ? flush(\%figures, $_[0], $windows) : upsert(\%figures, $_[0], $windows) });
	freshness(\%figures, $_, $windows) for map { ($_) x rounds(2) } systems('views');
	my $plain = $figures{ baseline()->system->name };
	for my $server (systems('views'))
	{
		my $kept = $figures{ $server->system->name };
		for ([ new => 'new groups' ], [ again => 'groups that are there' ])
		{
			my ($what, $name) = @$_;
			row("flush of $name: time, times upsert", '<= 1.5', ratio($kept->{$what}, $plain->{$what}), '%.2f',
				sprintf('%.0fk groups, ms: upsert %.0f, %.0f; CPU %.2f times', $windows, map({ 1000 * median(@{ $_->{$what} }) } $plain, $kept),
					ratio($kept->{"${what}_cpu"}, $plain->{"${what}_cpu"})));
		}
		row('freshness during flushes: p99, times otherwise', '<= 3', ratio($kept->{during}, $kept->{alone}), '%.1f',
			sprintf('ms: %.2f, %.2f; %d rows looked for in %d flushes', map { median(@{ $kept->{$_} }) } qw(alone during samples flushes)));
	}
});

1;
