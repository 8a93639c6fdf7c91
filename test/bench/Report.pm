package Report;
# test/bench/Report.pm
#		The table: a line for each figure, printed when it is there, and all of them at the end.
use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(row failed exact report);

my (@rows, @failures);
my $workload = '';

sub workload
{
	$workload = $_[1];
	return;
}

# row(WHAT, GOAL, FIGURE, FORMAT, DETAILS): a line of the table.  The goal is such as '>= 0.97' or '', and is judged.
sub row
{
	my ($what, $goal, $figure, $format, $details) = @_;
	my $met = '';

	if ($goal =~ /^([<>]=) ([\d.]+)$/)
	{
		my $shown = sprintf('%.6f', $figure);
		$met = ($1 eq '<=' ? $shown <= $2 : $shown >= $2) ? 'met' : 'MISSED';
	}
	(my $limit = $goal) =~ s/ [\d.]+$/' ' . sprintf($format, $goal =~ m{([\d.]+)$}) /e;
	my $row = [ $what, $limit, sprintf($format, $figure), $met, $details // '' ];
	push @rows, $row;
	print line($row), "\n";
	return;
}

# a workload that did not run
sub failed
{
	my ($why) = @_;
	chomp $why;
	push @failures, "$workload: COULD NOT RUN: $why";
	print "$failures[-1]\n";
	return;
}

# exact(SYSTEM, VIEW, DIFFERENCES): says if the view is not what its query gives
sub exact
{
	my ($system, $view, $differences) = @_;
	return if $differences == 0;
	push @failures, sprintf('%s: NOT EXACT: %s of %s differs from its query in %d rows', $workload, $view, $system, $differences);
	print "$failures[-1]\n";
	return;
}

sub line
{
	return sprintf '%-46s %-12s %-10s %-7s %s', @{ $_[0] };
}

# report(FILE, HEADING, REST): all of it, into the file too, and there followed by the rest; how many failures there were
sub report
{
	my ($file, $heading, @rest) = @_;
	my @lines = ($heading, '', line([ 'what', 'goal', 'figure', '', 'medians' ]), map({ line($_) } @rows), @failures);

	open(my $out, '>', $file) or die "could not write $file: $!\n";
	print $out map { s/\s+$//r . "\n" } @lines, @rest;
	close $out;
	print "\n", map { s/\s+$//r . "\n" } @lines;
	return scalar @failures;
}

1;
