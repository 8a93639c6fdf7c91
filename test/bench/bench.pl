# test/bench/bench.pl
#		How fast it is, beside plain PostgreSQL on the same machine in the same run, and whether goals are met.
#
# Called by test/lib/build.sh with a private server installed at SX_BINDIR.  Each system has a server of its own
# (systems/), workloads (workloads/) take turns on them, and what comes out is a table of figures with their
# goals.  Machines are noisy: a figure is a ratio of medians, or a median, over rounds in which the systems
# alternate, and where time means work it is processor time of all processes of the server.
#
#	QUICK=1			everything once, small, in two minutes: whether it runs, and no more
#	FULL=1			also how cost grows with groups, rows, views, transactions, windows; hours
#	ONLY="a b"		these workloads
#	ROUNDS=n		instead of what each workload thinks enough
#	SYSTEMS="a b"	beside the baseline; default: streamext
#
# The exit status is that of the work: 1 if a workload did not run or a view was not exact.  A missed goal is
# a figure.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Handle;
use POSIX ();
use Time::HiRes qw(time);

use Bench;
use Measure;
use Report;

STDOUT->autoflush(1);
STDERR->autoflush(1);
$SIG{PIPE} = 'IGNORE';

my $started = time;
my $limit = size(90, 780, 1e9);
require "$FindBin::RealBin/workloads/$_.pl" for qw(copy insert bystander freshness read flush backfill memory sweeps isolation);

my @chosen = grep { full() || !$_->{full} } @Bench::workloads;
if (my @only = split ' ', $ENV{ONLY} // '')
{
	my %known = map { $_->{name} => $_ } @Bench::workloads;
	for my $name (@only)
	{
		die "there is no workload \"$name\"; workloads are: " . join(' ', sort keys %known) . "\n" unless $known{$name};
	}
	@chosen = map { $known{$_} } @only;
}

# "model name : ..." and so on
sub machine
{
	my @models = (Server::slurp('/proc/cpuinfo') // '') =~ /^model name\s*: (.*)/mg;
	chomp(my $version = `postgres --version`);
	return sprintf '%s; %d processors, %s; %s', $version, scalar(@models), $models[0] // 'unknown', POSIX::strftime('%Y-%m-%d %H:%M', localtime);
}

Bench::start('plain', split ' ', $ENV{SYSTEMS} // 'streamext');
my $weight = 0;
$weight += $_->{seconds} for @chosen;
my @each;
my $disturbed = 0;
for my $workload (@chosen)
{
	my $left = $limit - (time - $started);
	begin_workload($left * $workload->{seconds} / $weight);
	$weight -= $workload->{seconds};
	Report->workload($workload->{name});
	printf "%s (after %d s)\n", $workload->{name}, time - $started;
	my ($since, @before) = (time, Measure::busy(systems()));
	eval { $workload->{code}->(); 1 } or failed($@);
	eval { $_->drop_database for systems(); 1 } or failed($@);
	my @after = Measure::busy(systems());
	push @each, '', sprintf('rounds of %s, while other processes used %.2f processors:', $workload->{name},
		($after[0] - $before[0] - $after[1] + $before[1]) / (time - $since)), Measure::noted();
	$disturbed += $after[0] - $before[0] - $after[1] + $before[1];
}
my $failures = report("$ENV{SX_TEMP}/bench.txt", machine() . sprintf('; other processes used %.2f of them', $disturbed / (time - $started)), @each);
Bench::stop();
printf "%d s\n", time - $started;
exit($failures ? 1 : 0);
