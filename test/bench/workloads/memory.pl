package workload::memory;
# test/bench/workloads/memory.pl
#		Memory of the workers while ten views follow 10,000 rows a second.
#
# What a process has mapped, without the memory that all processes of the server share from its start (the
# buffers): its own, programs and libraries, and what it has touched of the views' live state.
use strict;
use warnings;

use Bench;
use Measure;
use Report;
use Time::HiRes qw(sleep time);

my $live_memory = 64;

my $script = <<'SQL';
\set k random(0, 900)
INSERT INTO ev SELECT now(), 'key' || :k + i, :k * i, i FROM generate_series(1, 20) i;
SQL

# memory(SERVER, SECONDS): [ the largest worker, all of them together ] in MB, again and again meanwhile
sub memory
{
	my ($server, $seconds) = @_;
	my $session = $server->database;
	my @queries = viewed_events($session, 10);
	my (@samples, %largest);

	my $load = $server->load($script, "-M prepared -c 4 -j 1 -R 500 -T $seconds");
	my $ends = time + $seconds;
	while (time < $ends)
	{
		my %memory = $server->memory;
		my ($most, $all) = (0, 0);
		for my $process (sort keys %memory)
		{
			my $rss = $memory{$process};
			$most = $rss if $rss > $most;
			$all += $rss;
			(my $title = $process) =~ s/ \d+$//;
			$largest{$title} = $rss if $rss > ($largest{$title} // 0);
		}
		push @samples, [ $most, $all ];
		sleep($seconds > 1000 ? 5 : 0.25);
	}
	$load->finish;
	check($session, "view_$_", $queries[$_]) for 0 .. $#queries;
	$session->close;
	return (\@samples, join ', ', map { sprintf '%s %.0f', s/^streamext //r, $largest{$_} } sort keys %largest);
}

workload(memory => 40, sub {
	my $seconds = size(4, 20);
	for my $server (systems('views'))
	{
		my ($samples, $details) = memory($server, $seconds);
		row('memory of the largest worker, MB', '<= ' . (60 + $live_memory), quantile(1, map { $_->[0] } @$samples), '%.0f', $details);
	}
});

workload(hour => 3700, sub {
	my $seconds = $ENV{TIME} || size(10, 3600);
	for my $server (systems('views'))
	{
		my ($samples, $details) = memory($server, $seconds);
		my $quarter = @$samples / 4;
		my ($first, $last) = map { median(map { $_->[1] } @$_) } [ @$samples[ $quarter .. 2 * $quarter ] ], [ @$samples[ 3 * $quarter .. $#$samples ] ];
		row('memory, last quarter of an hour, times second', '<= 1.05', $last / $first, '%.3f', sprintf('all workers, MB: %.0f, %.0f; largest: %s', $first, $last, $details));
	}
}, 'full');

1;
