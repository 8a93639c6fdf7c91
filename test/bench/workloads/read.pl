package workload::read;
# test/bench/workloads/read.pl
#		Reading a view of 100,000 groups while a thousand rows a second come in, beside a table with the same rows
#		and index.
use strict;
use warnings;

use Bench;
use Measure;
use Report;

# Groups: a thousand keys in a hundred windows, whose rows came long ago.
my $history = <<'SQL';
INSERT INTO ev SELECT timestamptz '2026-01-01 00:00Z' + i / 1000 % 100 * interval '5 minutes', 'key' || i % 1000, i, i % 100
FROM generate_series(0, 199999) i
SQL
my $insert = <<'SQL';
\set k random(0, 990)
INSERT INTO ev SELECT '2026-01-01 08:17:00Z', 'key' || :k + i, :k * i, i FROM generate_series(1, 10) i;
SQL
my $choose = <<'SQL';
\set k random(0, 999)
\set w random(0, 99)
SQL
my @reads = (
	[ 'one group by key', 1.2, "${choose}SELECT * FROM result WHERE k = 'key' || :k AND w = timestamptz '2026-01-01 00:00Z' + :w * interval '5 minutes';" ],
	[ 'twelve windows of a key', 1.2, "${choose}SELECT * FROM result WHERE k = 'key' || :k ORDER BY w DESC LIMIT 12;" ],
	[ 'scan of all groups', 1.3, 'SELECT count(*), sum(n), sum(total), sum(mean), max(high) FROM result;' ]);

workload(read => 80, sub {
	my $seconds = size(1, 2);
	my (%figures, %sessions);

	for my $server (systems())
	{
		my $session = $sessions{$server} = $server->database;
		events_table($session);
		$session->ask($history);
		$server->system->create_result($session, 'result', (shapes($server->system))[0], 'k, w');
		$session->ask('CHECKPOINT');
	}
	in_turn(rounds(5), [systems()], sub {
		my ($server) = @_;
		my $load = $server->load($insert, '-M prepared -c 1 -R 100 -T ' . ($seconds * @reads + 1));
		for (@reads)
		{
			my ($what, $goal, $script) = @$_;
			note(\%figures, $server->system->name, $what => 1000 / $server->pgbench($script, "-M prepared -c 1 -T $seconds")->{tps});
		}
		$load->finish;
	});
	my $plain = $figures{ baseline()->system->name };
	for my $server (systems('views'))
	{
		my $kept = $figures{ $server->system->name };
		for (@reads)
		{
			my ($what, $goal) = @$_;
			row("read $what: time, times plain", "<= $goal", ratio($kept->{$what}, $plain->{$what}), '%.2f',
				sprintf('ms: plain %.3f, %.3f', median(@{ $plain->{$what} }), median(@{ $kept->{$what} })));
		}
		check($sessions{$server}, 'result', (shapes($server->system))[0]);
	}
	$_->close for values %sessions;
});

1;
