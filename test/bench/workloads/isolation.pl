package workload::isolation;
# test/bench/workloads/isolation.pl
#		Freshness of healthy views beside views in trouble (isolation.sh): TIME=s of each measurement, RATE=rows/s.
use strict;
use warnings;

use Bench;
use Measure;

workload(isolation => 300, sub {
	my ($server) = grep { $_->system->name eq 'streamext' } systems('views') or die "it is of streamext only\n";
	local @ENV{qw(PGHOST PGPORT PGUSER)} = ($ENV{SX_TEMP}, $server->{port}, 'postgres');
	my @arguments = ($ENV{TIME} || size(3, 30), $ENV{RATE} || 200, rounds(3));
	CORE::system('bash', "$ENV{SX_TOP}/test/bench/isolation.sh", @arguments) == 0 or die "isolation.sh failed, see above\n";
}, 'full');

1;
