# I1, I3, I6: every allocation, table write, WAL read, lock … of the workers may fail.
#
# The first, the second, the third … call of an operation fails, until the operation ends without
# a failure: shared memory, table writes, pages of WAL, locks, starts of workers.  Of ordinary
# allocations and commits there are many: there, the first call from each place in the code
# fails, in several databases at once.  No process crashes, views are always live or say why not,
# and in the end all are exact.  See src/testing/fail_points.c.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextFaults;
use StreamextTest;
use Test::More;
use Time::HiRes qw(sleep time);

# kind, process, operation
my @nth = (
	[ 'shared_allocation', 'consumer', 'small' ],
	[ 'table_write', 'flusher', 'small' ],
	[ 'table_write', 'builder', 'create_small' ],
	[ 'wal_read', 'consumer', 'small' ],
	[ 'wal_read', 'builder', 'create_small' ],
	[ 'lock', 'consumer', 'small' ],
	[ 'lock', 'flusher', 'small' ],
	[ 'lock', 'builder', 'create_empty' ],
	[ 'table_write', 'alerter', 'alert' ],
	[ 'lock', 'alerter', 'alert' ],
	[ 'worker_start', 'consumer', 'create_small' ],
	[ 'worker_start', 'launcher', 'restart' ],
);
my $most = 40;
# kind, process (undef: all workers), pause between failures in ms, seconds at least, places at least
my @places = ([ 'shared_allocation', undef, 10, 4, 5 ], [ 'table_write', undef, 10, 4, 4 ], [ 'commit', undef, 20, 5, 8 ],
	[ 'allocation', 'flusher', 10, 4, 5 ], [ 'allocation', 'alerter', 10, 5, 5 ], [ 'allocation', undef, 10, 15, 12 ]);
my @databases = qw(app app2 app3);
# a view that is not live says why
my $states = <<'SQL';
SELECT string_agg(view || ' ' || state, ', ') FROM streamext.status
WHERE state NOT IN ('live', 'backfilling', 'paused', 'failed') OR state = 'failed' AND (reason IS NULL OR last_error IS NULL)
SQL

my $node = new_node('fail', settings => "fsync = off\nstreamext.flush_interval = '10s'\n");
for my $database (@databases)
{
	new_database($node, $database);
	test_functions($node, $database);
	fault_views($node, $database);
}
new_database($node, 'other');
all_exact($node, 'before', $_) or BAIL_OUT('no start') for @databases;

my $total = 0;
for my $case (@nth)
{
	my ($kind, $process, $operation) = @$case;
	my $silent = '';
	my $fired = 1;
	my $n = 0;
	while ($fired && $n < $most)
	{
		$n++;
		run_workload($node, "SELECT testing.fail('$kind', $n, '$process')", $operation);
		my $out = $node->safe_psql('app',
			"SELECT fired FROM testing.failed(); SELECT testing.fail('nothing', 0); $states");
		my @bad;
		($fired, @bad) = grep { $_ ne '' } split /\n/, $out;
		$silent .= join ' ', @bad;
		$total += $fired;
	}
	my $name = "$kind in $process while $operation";
	is($fired, 0, "$name: after " . ($n - 1) . ' failures it passes');
	cmp_ok($n, '>', 1, "$name: there was one");
	is($silent, '', "$name: every view is live or says why not");
	all_exact($node, $name) or last;
}

$node->append_conf('postgresql.conf', "streamext.flush_interval = '200ms'");
$node->reload;
for my $case (@places)
{
	my ($kind, $process, $pause, $seconds, $least) = @$case;
	my $end = time + $seconds;
	# a busy machine may need longer to come by so many places
	my $latest = time + 90;
	my %run;
	my $silent = '';
	my $fired = 0;
	my $filter = $process ? "'$process'" : 'NULL';
	$node->safe_psql('app', "SELECT testing.fail('forget', 0); SELECT testing.fail('$kind', 0, $filter, $pause)");
	while (time < $end || ($fired < $least && time < $latest))
	{
		for my $i (0 .. 2 * $#databases + 1)
		{
			next if $run{$i} && $run{$i}->{handle}->pumpable;
			$run{$i} = start_workload_in($databases[ $i / 2 ], $node, '',
				$i % 2 ? qw(create alert pause attach truncate) : qw(flush create_bad create_empty));
		}
		my $out = test_query($node, "SELECT fired FROM testing.failed(); $states") // next;
		my @bad;
		($fired, @bad) = grep { $_ ne '' } split /\n/, $out;
		$silent .= join ' ', @bad;
	}
	$_->{handle}->kill_kill(grace => 0) for values %run;
	$node->safe_psql('app', "SELECT testing.fail('nothing', 0)");
	my $name = "$kind in " . ($process // 'any worker');
	note("$name: failed at $fired places");
	cmp_ok($fired, '>=', $least, "$name: failed in many places");
	$total += $fired;
	is($silent, '', "$name: every view is live or says why not");
	all_exact($node, "$name in $_", $_) for @databases;
}
note("$total calls failed");

unlike(slurp_file($node->logfile), qr/terminated by signal|TRAP|PANIC|reinitializing/, 'no process crashed');
no_orphans($node);
$node->stop;
done_testing();
