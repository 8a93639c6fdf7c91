package workload::backfill;
# test/bench/workloads/backfill.pl
#		A view over ten million rows that are there, beside CREATE TABLE AS the same query, which is parallel by default.
use strict;
use warnings;

use Bench;
use Measure;
use Report;

workload(backfill => 110, sub {
	my $rows = size(1_000_000, 10_000_000);
	my (%figures, %sessions);

	for my $server (systems())
	{
		my $session = $sessions{$server} = $server->database;
		events_table($session);
		$session->ask('INSERT INTO ev ' . Bench::events_query($rows));
		# without them the baseline expects as many groups as rows, and sorts all of them
		$session->ask('CREATE STATISTICS shape (ndistinct) ON k, (' . $server->system->window('ts', '5 minutes') . ') FROM ev') unless $server->system->keeps_views;
		$session->ask('VACUUM ANALYZE ev');
		$session->ask('CHECKPOINT');
	}
	in_turn(rounds(3), [systems()], sub {
		my ($server, $round) = @_;
		my ($system, $session) = ($server->system, $sessions{$server});
		my $query = (shapes($system))[0];
		my $used = measured($server, sub {
			$system->keeps_views ? $system->create_view($session, 'result', $query) : $session->ask("CREATE TABLE result AS $query");
		});
		note(\%figures, $system->name, seconds => $used->{wall}, cpu => $used->{cpu});
		if ($system->keeps_views)
		{
			check($session, 'result', $query) if $round == 1;
			$system->drop_view($session, 'result');
		}
		else
		{
			$session->ask('DROP TABLE result');
		}
	});
	my $plain = $figures{ baseline()->system->name };
	for my $server (systems('views'))
	{
		my $kept = $figures{ $server->system->name };
		row('backfill: time, times CREATE TABLE AS', '<= 1.15', ratio($kept->{seconds}, $plain->{seconds}), '%.2f',
			sprintf('%.0f million rows, s: %.2f, %.2f; CPU %.2f times', $rows / 1e6, map({ median(@{ $_->{seconds} }) } $plain, $kept),
				ratio($kept->{cpu}, $plain->{cpu})));
	}
	$_->close for values %sessions;
});

1;
