package workload::copy;
# test/bench/workloads/copy.pl
#		COPY of three million rows into a table with no view, with one, and with ten of different shapes.
#
# The speed is that of the COPY alone; then how long until the views are complete; and processor time until
# everything is stored.
use strict;
use warnings;

use Bench;
use Measure;
use Report;
use Time::HiRes qw(time);

# copy(FIGURES, SERVER, ROWS, VIEWS, COMPARE): once; COMPARE: and look whether the views are exact
sub copy
{
	my ($figures, $server, $rows, $views, $compare) = @_;
	my $system = $server->system;
	my $file = events_file($rows);
	my $session = $server->database;
	my @queries = viewed_events($session, $views);
	my ($loaded, $complete);

	$session->ask('CHECKPOINT');
	my $used = measured($server, sub {
		my $started = time;
		$session->ask("COPY ev FROM '$file'");
		$loaded = time - $started;
		$system->complete($session);
		$complete = time - $started - $loaded;
		$system->stored($session);
	});
	note($figures, $system->name, seconds => $loaded, complete => $complete, map { $_ => $used->{$_} / $rows * 1e6 } qw(cpu workers));
	if ($compare && $system->keeps_views)
	{
		check($session, "view_$_", $queries[$_]) for 0 .. $#queries;
	}
	$session->close;
	return;
}

sub copy_workload
{
	my ($views, $speed, $complete, $name) = @_;
	my $rows = size(300_000, 3_000_000);
	my $rounds = rounds(5);
	my %figures;

	in_turn($rounds, [systems()], sub { copy(\%figures, $_[0], $rows, $views, $_[1] == 1) });
	my $plain = $figures{ baseline()->system->name };
	for my $system (systems('views'))
	{
		my $kept = $figures{ $system->system->name };
		row("COPY, $name: rows/s, times plain", ">= $speed", 1 / ratio($kept->{seconds}, $plain->{seconds}), '%.3f',
			sprintf('plain %.0f rows/s, %.0f', $rows / median(@{ $plain->{seconds} }), $rows / median(@{ $kept->{seconds} })));
		row("COPY, $name: complete after, ms", "<= $complete", 1000 * median(@{ $kept->{complete} }), '%.0f',
			sprintf('processor time until stored, us per row: plain %.2f, %.2f, of that workers %.2f',
				map { median(@$_) } $plain->{cpu}, $kept->{cpu}, $kept->{workers}));
	}
	return;
}

workload(copy => 60, sub { copy_workload(1, 0.97, 50, 'one view') });
workload(copy10 => 100, sub { copy_workload(10, 0.90, 1000, 'ten views') });

1;
