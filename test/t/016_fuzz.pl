# I1, I8: random views over random tables equal their queries, whatever is inserted how.
# The machinery and a longer run ("make fuzz") are in test/fuzz.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../fuzz";

use FuzzRun;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $seed = seed(1);
my $node = new_node('fuzz', settings => "log_line_prefix = '%m [%p] %b %d %e '\nmax_locks_per_transaction = 256\n");
my $fuzz = FuzzRun->new($node, 'fuzz', batch => $ENV{BATCH});
$fuzz->run($ENV{QUERIES} || 500, $seed);

note($fuzz->summary);
is(join("\n", @{ $fuzz->{failures} }), '', 'every view equals its query, every refusal is clean') or diag("seed $seed");
my $count = $fuzz->{count};
cmp_ok($count->{accepted} // 0, '>', 0.8 * ($count->{queries} // 1), 'most queries are accepted');
cmp_ok($count->{raises} // 0, '<', 0.02 * ($count->{queries} // 1), 'few cannot be compared, because they raise errors');
is(join("\n", $fuzz->bad_log_lines), '', 'no internal error in the server\'s log');
$node->stop;
done_testing();
