# test/fuzz/fuzz.pl
#		make fuzz [QUERIES=20000] [SEED=n]: random views against their queries, by hand.
#
# The same as test/t/016_fuzz.pl, longer.  BATCH=n runs one batch again (the seed that a
# failure prints).
use strict;
use warnings;

use FindBin;
use IO::Handle;

# the test library sends STDOUT to a file
my $terminal;
BEGIN { open($terminal, '>&', \*STDOUT) or die $!; $terminal->autoflush(1); }

use lib $FindBin::RealBin, "$FindBin::RealBin/../t";

use FuzzRun;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;

my $queries = $ENV{QUERIES} || 20000;
my $seed = $ENV{SEED} || time % 10000;
my $node = new_node('fuzz', settings => "log_line_prefix = '%m [%p] %b %d %e '\nfsync = off\nmax_locks_per_transaction = 256\n");

sub result { print $terminal "@_\n"; return; }

result("seed $seed");
my $last = 0;
my $fuzz = FuzzRun->new($node, 'fuzz', batch => $ENV{BATCH}, verbose => 1, max_failures => $ENV{MAX_FAILURES} || 5, progress => sub {
	my ($i, $all, $seconds) = @_;
	return if time < $last + 10;
	$last = time;
	result(sprintf '%d of %d batches, %.0f s', $i, $all, $seconds);
});
$fuzz->run($queries, $seed);
result('-' x 70);
result($_) for @{ $fuzz->{failures} };
result(sprintf '%6d %s', $fuzz->{reasons}{$_}, $_) for sort { $fuzz->{reasons}{$b} <=> $fuzz->{reasons}{$a} } keys %{ $fuzz->{reasons} };
result("$_\n    $fuzz->{examples}{$_}[0]") for sort keys %{ $fuzz->{examples} // {} };
result($fuzz->summary);
my @bad = $fuzz->bad_log_lines;
result("in the server's log: $_") for @bad[ 0 .. ($#bad > 20 ? 20 : $#bad) ];
$node->stop;
exit(@{ $fuzz->{failures} } || @bad ? 1 : 0);
