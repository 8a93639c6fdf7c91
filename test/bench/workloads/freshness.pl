package workload::freshness;
# test/bench/workloads/freshness.pl
#		How long after its commit a row is visible in a view, to somebody who looks all the time (Probe.pm).
use strict;
use warnings;

use Bench;
use Measure;
use Probe;
use Report;

# 20 rows per transaction
my $script = <<'SQL';
\set k random(0, 900)
INSERT INTO ev SELECT now(), 'key' || :k + i, :k * i, i FROM generate_series(1, 20) i;
SQL

sub freshness
{
	my ($server, $views, $rate) = @_;
	my $seconds = size(2, 15);
	my $session = $server->database;
	my @queries = viewed_events($session, $views);
	my ($load, $run);

	$session->ask('CHECKPOINT');
	$load = $server->load($script, "-M prepared -c 4 -j 1 -R " . $rate / 20 . " -T " . ($seconds + 1)) if $rate > 1;
	my $used = measured($server, sub {
		my $probe = Probe->begin($server, 'view_0', $rate > 1 ? 0.015 : full() ? 1 : 0.05, full() && $rate == 1 ? 60 : $seconds);
		$run->{latencies} = [ map { $_->[1] } $probe->end ];
	});
	$run->{tps} = $load->finish->{tps} if $load;
	check($session, "view_$_", $queries[$_]) for 0 .. $#queries;
	$session->close;

	my @latencies = @{ $run->{latencies} };
	my $details = sprintf('%d rows looked for, the longest %.2f ms; workers use %.0f %% of a processor', scalar(@latencies),
		quantile(1, @latencies), 100 * $used->{workers} / $used->{wall});
	$details .= sprintf(', %.0f rows/s', $run->{tps} * 20) if $load;
	my $what = 'freshness, ' . ($views == 1 ? 'one view' : 'ten views') . ', ' . ($rate == 1 ? 'single rows' : '20,000 rows/s');
	row("$what: p50, ms", $views == 1 ? '<= 1' : '', quantile(0.5, @latencies), '%.2f');
	row("$what: p99, ms", $views == 1 ? '<= 5' : '<= 15', quantile(0.99, @latencies), '%.2f', $details);
	return;
}

workload(freshness => 90, sub {
	for my $server (systems('views'))
	{
		for my $views (1, 10)
		{
			freshness($server, $views, $_) for 1, 20000;
		}
	}
});

1;
