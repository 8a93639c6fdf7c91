# The README's examples work as printed: every ```sql block marked <!-- tested -->, in order, in a
# session of its own (the first block in database postgres, the others in the one that it creates).
# What a block prints equals the ```text block marked <!-- output --> that may follow it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $readme = slurp_file(source_dir() . '/README.md');
my $node = new_node('readme');
my $database = 'postgres';

my $blocks = 0;
while ($readme =~ /^<!-- tested -->\n```sql\n(.*?)^```\n(?:\s*<!-- output -->\n```text\n(.*?)^```\n)?/msg)
{
	my ($sql, $expected) = ($1, $2);
	my $line = 1 + (substr($readme, 0, $-[0]) =~ tr/\n//);
	my ($out, $err) = ('', '');
	my $result = IPC::Run::run([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', '-' ],
		'<', \$sql, '>', \$out, '2>', \$err);
	$blocks++;
	$database = 'tour';
	ok($result, "README.md line $line runs") or diag($err);
	next unless defined $expected;
	s/[ \t]+$//mg, s/\s+\z/\n/ for $out, $expected;
	is($out, $expected, "README.md line $line prints what it says");
}
cmp_ok($blocks, '>', 3, 'the README has examples');
my @views = split /\n/, $node->safe_psql($database, 'SELECT view FROM streamext.views ORDER BY 1');
oracle($node, $database, $_, 'README') for @views;
$node->stop;
done_testing();
