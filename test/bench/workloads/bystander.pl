package workload::bystander;
# test/bench/workloads/bystander.pl
#		What a server pays that has no use for views: pgbench's TPC-B with the library loaded and no stream in the
#		database, and with a stream elsewhere in it.  And what it costs to find rows that no view wants.
use strict;
use warnings;

use Bench;
use Measure;
use Report;

# The transactions of pgbench's TPC-B, so many of them in one call: with a round trip for each statement what is measured is how
# four clients and as many backends happen to share two processors, which differs by half from one second to the next.
my $calls = 200;

sub tpcb_procedure
{
	my ($scale) = @_;
	my ($accounts, $tellers) = ($scale * 100_000, $scale * 10);
	return <<"SQL";
CREATE PROCEDURE tpcb(calls int) LANGUAGE plpgsql AS \$\$
DECLARE
	account int; teller int; branch int; change int; balance int;
BEGIN
	FOR i IN 1 .. calls LOOP
		account := 1 + floor(random() * $accounts);
		teller := 1 + floor(random() * $tellers);
		branch := 1 + floor(random() * $scale);
		change := floor(random() * 10001) - 5000;
		UPDATE pgbench_accounts SET abalance = abalance + change WHERE aid = account;
		SELECT abalance INTO balance FROM pgbench_accounts WHERE aid = account;
		UPDATE pgbench_tellers SET tbalance = tbalance + change WHERE tid = teller;
		UPDATE pgbench_branches SET bbalance = bbalance + change WHERE bid = branch;
		INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (teller, branch, account, change, CURRENT_TIMESTAMP);
		COMMIT;
	END LOOP;
END \$\$
SQL
}

sub tpcb_workload
{
	# short ones, often: the goals are half a percent and two
	my $seconds = 1;
	my $scale = size(2, 10);
	my %sessions;

	local $ENV{PGOPTIONS} = '-c synchronous_commit=off';
	for my $server (systems())
	{
		$sessions{$server} = $server->database;
		CORE::system("pgbench -i -q -s $scale -h $ENV{SX_TEMP} -p $server->{port} -U postgres bench >$ENV{SX_TEMP}/pgbench.out 2>&1") == 0
		  or die "pgbench -i failed: " . Server::slurp("$ENV{SX_TEMP}/pgbench.out");
		$sessions{$server}->ask(tpcb_procedure($scale));
	}
	for ([ 'no stream in the database', 0.995 ], [ 'a stream elsewhere', 0.98 ])
	{
		my ($what, $goal) = @$_;
		my %figures;

		for my $server (systems())
		{
			if ($what =~ /elsewhere/)
			{
				events_table($sessions{$server});
				$server->system->create_view($sessions{$server}, 'view_0', (shapes($server->system))[0]);
				$sessions{$server}->ask("INSERT INTO ev VALUES (now(), 'key', 1, 1)");
			}
			$sessions{$server}->ask('VACUUM');
			$sessions{$server}->ask('CHECKPOINT');
		}
		in_turn(rounds(24), [systems()], sub {
			my ($server) = @_;
			my $run;
			my $used = measured($server, sub { $run = $server->pgbench("CALL tpcb($calls)", "-c 4 -j 1 -T $seconds") });
			note(\%figures, $server->system->name, tps => $run->{tps} * $calls,
				map { $_ => $used->{$_} / $run->{transactions} / $calls * 1e6 } qw(cpu workers));
		});
		my $plain = $figures{ baseline()->system->name };
		for my $server (systems('views'))
		{
			my $kept = $figures{ $server->system->name };
			row("TPC-B, $what: tps, times plain", ">= $goal", ratio($kept->{tps}, $plain->{tps}), '%.3f',
				sprintf('plain %.0f tps, %.0f; CPU %.3f times, workers %.2f us per transaction', median(@{ $plain->{tps} }), median(@{ $kept->{tps} }),
					ratio($kept->{cpu}, $plain->{cpu}), median(@{ $kept->{workers} })));
			check($sessions{$server}, 'view_0', (shapes($server->system))[0]) if $what =~ /elsewhere/;
		}
	}
	$_->close for values %sessions;
	return;
}

# A view whose WHERE is false: rows are found in the WAL and no more.
sub capture_workload
{
	my $rows = size(300_000, 3_000_000);
	my $seconds = size(2, 5);
	my $file = events_file($rows);
	my %figures;

	local $ENV{PGOPTIONS} = '-c synchronous_commit=off';
	for my $server (systems('views'))
	{
		my $system = $server->system;
		my $session = $server->database;
		events_table($session);
		$system->create_view($session, 'nothing', 'SELECT ts, k, v FROM ev WHERE false');
		$session->ask('CHECKPOINT');
		in_turn(rounds(5), [$server], sub {
			my $run;
			my $used = measured($server, sub {
				$run = $server->pgbench("INSERT INTO ev VALUES (now(), 'key', 1, 1)", "-M prepared -c 4 -j 2 -T $seconds");
				$system->complete($session);
			});
			note(\%figures, $system->name, row => $used->{workers} / $run->{transactions} * 1e6, tps => $run->{tps});
			$used = measured($server, sub {
				$session->ask("COPY ev FROM '$file'");
				$system->complete($session);
			});
			note(\%figures, $system->name, copy => $used->{workers} / $rows * 1e6);
		});
		my $used = $figures{ $system->name };
		row('capture only: workers, us per single-row INSERT', '<= 0.3', median(@{ $used->{row} }), '%.3f',
			sprintf('%.0f rows/s', median(@{ $used->{tps} })));
		row('capture only: workers, us per row of COPY', '<= 0.05', median(@{ $used->{copy} }), '%.3f');
		check($session, 'nothing', 'SELECT ts, k, v FROM ev WHERE false');
		$session->close;
	}
	return;
}

workload(tpcb => 110, \&tpcb_workload);
workload(capture => 60, \&capture_workload);

1;
