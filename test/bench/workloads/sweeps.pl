package workload::sweeps;
# test/bench/workloads/sweeps.pl
use strict;
use warnings;

use Bench;
use Measure;

workload(hop => 300, sub {
	my ($server) = grep { $_->system->name eq 'streamext' } systems('views') or die "it is of streamext only\n";
	local @ENV{qw(PGHOST PGPORT PGUSER)} = ($ENV{SX_TEMP}, $server->{port}, 'postgres');
	CORE::system('bash', "$ENV{SX_TOP}/test/bench/hop.sh", rounds(3), size(100_000, 1_000_000)) == 0 or die "hop.sh failed, see above\n";
}, 'full');

1;
