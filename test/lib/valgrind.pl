# test/lib/valgrind.pl LOG ...
#		Prints what valgrind has found in our code, and how often; the status says whether nothing was.
#
# The server was not built for valgrind: it writes padding to files, hashes it in messages, and so on.
# A finding is ours when one of our functions is among the innermost of its stack.
use strict;
use warnings;

use constant { INNERMOST => 3, PRINTED => 10 };

my %ours = map { m{([^/]+)$} ? ($1 => 1) : () } glob('src/*.[ch] src/*/*.[ch]');
my $found = 0;
for my $log (@ARGV)
{
	open(my $in, '<', $log) or die "could not open $log: $!\n";
	local $/;
	for my $finding (split /^==\d+== *\n/m, <$in> // '')
	{
		my @frames = $finding =~ /^==\d+== +(?:at|by) (.*)$/mg;
		splice(@frames, INNERMOST) if @frames > INNERMOST;
		next if $finding =~ /Syscall param/ || !grep { /\((\S+):\d+\)$/ && $ours{$1} } @frames;
		print $finding, "\n" if ++$found <= PRINTED;
	}
}
print "$found findings\n" if $found;
exit($found > 0);
