package workload::insert;
# test/bench/workloads/insert.pl
#		Single-row INSERTs by four clients, with synchronous_commit off and on.
#
# Processor time is that of all processes of the server until the view is complete and stored.
use strict;
use warnings;

use Bench;
use Measure;
use Report;

my $script = <<'SQL';
\set k random(0, 999)
\set v random(0, 99999)
INSERT INTO ev VALUES (now(), 'key' || :k, :v, :v % 100);
SQL

sub insert_workload
{
	my ($commit) = @_;
	my $seconds = size(1, 4);
	my (%figures, %sessions);

	local $ENV{PGOPTIONS} = "-c synchronous_commit=$commit";
	for my $server (systems())
	{
		my $session = $sessions{$server} = $server->database;
		events_table($session);
		$server->system->create_view($session, 'view_0', (shapes($server->system))[0]);
		$session->ask('CHECKPOINT');
	}
	in_turn(rounds(7), [systems()], sub {
		my ($server, $round) = @_;
		my $system = $server->system;
		my $run;
		my $used = measured($server, sub {
			$run = $server->pgbench($script, "-M prepared -c 4 -j 2 -T $seconds");
			$system->complete($sessions{$server});
			$system->stored($sessions{$server});
		});
		note(\%figures, $system->name, tps => $run->{tps}, map { $_ => $used->{$_} / $run->{transactions} * 1e6 } qw(cpu workers));
	});
	my $plain = $figures{ baseline()->system->name };
	for my $server (systems('views'))
	{
		my $kept = $figures{ $server->system->name };
		row("single-row INSERT, commit $commit: rows/s, times plain", '>= 0.97', ratio($kept->{tps}, $plain->{tps}), '%.3f',
			sprintf('plain %.0f rows/s, %.0f', map { median(@{ $_->{tps} }) } $plain, $kept));
		row("single-row INSERT, commit $commit: CPU, times plain", '<= 1.2', ratio($kept->{cpu}, $plain->{cpu}), '%.3f',
			sprintf('us per row: plain %.1f, %.1f, of that workers %.1f', map { median(@$_) } $plain->{cpu}, $kept->{cpu}, $kept->{workers}));
		check($sessions{$server}, 'view_0', (shapes($server->system))[0]);
	}
	$_->close for values %sessions;
	return;
}

workload(insert => 100, sub { insert_workload($_) for 'off', 'on' });

1;
