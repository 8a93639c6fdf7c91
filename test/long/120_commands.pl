# What test/t/020_commands.pl does a few times, a hundred times.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";

# here, because they must be loaded before the program starts
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;

$ENV{SX_TIMES} ||= 100;
my $file = "$FindBin::RealBin/../t/020_commands.pl";
defined do $file or die $@ || "$file: $!";
