# test/lib/tap.pl FILE COUNTS [perl switch ...]
#		Runs one TAP test, prints what failed, and writes "passed failed" to the file COUNTS.
#
# An exit code, a signal or a wrong plan is a failure of its own.
use strict;
use warnings;

use TAP::Parser;

my ($file, $counts, @switches) = @ARGV;
my $stderr = "$counts.stderr";

open(my $keep, '>&', \*STDERR) or die $!;
open(STDERR, '>', $stderr) or die $!;
my $parser = TAP::Parser->new({ exec => [ $^X, @switches, $file ] });
my ($passed, $failed, @comments) = (0, 0);
my @report;
while (my $line = $parser->next)
{
	if ($line->is_test)
	{
		if ($line->is_ok)
		{
			$passed++;
			@comments = ();
		}
		else
		{
			$failed++;
			push @report, $line->as_string;
		}
	}
	elsif ($line->is_comment && $line->as_string =~ /seed/)
	{
		push @report, $line->as_string;
	}
}
open(STDERR, '>&', $keep) or die $!;
if ($parser->parse_errors || $parser->exit)
{
	my @errors = $parser->parse_errors;
	push @errors, 'exit status ' . $parser->exit if $parser->exit;
	push @errors, 'signal ' . ($parser->wait & 127) if $parser->wait & 127;
	# "not ok" alone makes the exit status its count
	if ($parser->parse_errors || $failed == 0)
	{
		$failed++;
		push @report, @errors;
	}
}
if ($failed)
{
	open(my $in, '<', $stderr) or die $!;
	my @lines = <$in>;
	splice(@lines, 40, @lines - 80, "...\n") if @lines > 80;
	print "  $_\n" for @report;
	print "  $_" for @lines;
}
open(my $out, '>', $counts) or die $!;
print $out "$passed $failed\n";
close $out;
exit($failed ? 1 : 0);
