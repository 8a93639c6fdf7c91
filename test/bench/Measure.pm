package Measure;
# test/bench/Measure.pm
#		Where everything is measured: rounds in which systems take turns, wall and processor time, medians
#		and ratios of medians.
use strict;
use warnings;

use Exporter 'import';
use POSIX ();
use Time::HiRes qw(time);

our @EXPORT = qw(quick full size rounds begin_workload in_turn measured note median quantile ratio expect);

# How much is measured: the first of three for QUICK=1, the second ordinarily, the third for FULL=1.
sub size
{
	my ($quick, $ordinary, $full) = @_;
	return quick() ? $quick : full() ? $full // $ordinary : $ordinary;
}

sub quick
{
	return !!$ENV{QUICK};
}

sub full
{
	return !!$ENV{FULL};
}

sub rounds
{
	my ($ordinary) = @_;
	return $ENV{ROUNDS} || size(1, $ordinary);
}

my $workload_ends;
my @noted;

# begin_workload(SECONDS): no round is begun later than that
sub begin_workload
{
	my ($seconds) = @_;
	$workload_ends = time + $seconds;
	return;
}

# in_turn(ROUNDS, SYSTEMS or whatever takes turns, CODE): calls CODE with each of them in each round, the other
# way round in every other, so that what else the machine does meets them alike.  Fewer rounds if time is up, but one.
sub in_turn
{
	my ($rounds, $contenders, $code) = @_;

	for my $round (1 .. $rounds)
	{
		last if $round > 1 && time > $workload_ends;
		$code->($_, $round) for $round % 2 ? @$contenders : reverse @$contenders;
	}
	return;
}

# measured(SERVER, CODE): wall time of the code, processor time of the server's processes meanwhile, in seconds
sub measured
{
	my ($server, $code) = @_;
	my %before = $server->cpu;
	my $started = time;
	$code->();
	my $seconds = time - $started;
	my %after = $server->cpu;
	my %used = map { $_ => $after{$_} - $before{$_} } keys %after;
	return { wall => $seconds, cpu => $used{workers} + $used{backends} + $used{others}, %used };
}

# busy(SERVERS): processor seconds of the machine so far, and of those what servers, their clients and we took
sub busy
{
	my @servers = @_;
	my @times = (Server::slurp('/proc/stat') // '') =~ /^cpu +(\d+) (\d+) (\d+) \d+ \d+ (\d+) (\d+) (\d+)/ or return (0, 0);
	my ($machine, $ours) = (0, 0);
	$machine += $_ / POSIX::sysconf(POSIX::_SC_CLK_TCK()) for @times;
	$ours += $_ for times;
	for my $server (@servers)
	{
		my %used = $server->cpu;
		$ours += $_ for values %used;
	}
	return ($machine, $ours);
}

# note(FIGURES, KEY, VALUES): adds each of them to the values noted for the key; all are in the file behind the table
sub note
{
	my ($figures, $key, %values) = @_;
	push @noted, join ' ', $key, map { sprintf '%s %.6g', $_, $values{$_} } sort keys %values;
	push @{ $figures->{$key}{$_} }, $values{$_} for keys %values;
	return;
}

sub noted
{
	return splice @noted;
}

sub quantile
{
	my ($part, @values) = @_;
	return unless @values;
	@values = sort { $a <=> $b } @values;
	my $at = int($part * @values);
	return $values[ $at > $#values ? $#values : $at ];
}

sub median
{
	my @values = sort { $a <=> $b } @_;
	return unless @values;
	return ($values[ $#values / 2 ] + $values[ @values / 2 ]) / 2;
}

# ratio(VALUES, VALUES): of their medians
sub ratio
{
	my ($these, $those) = @_;
	my $base = median(@$those);
	return $base ? median(@$these) / $base : 0;
}

1;
