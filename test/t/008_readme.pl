# The examples of README.md and doc/ work as printed: every ```sql block marked <!-- tested -->, in order,
# in a session of its own (a file's first block in database postgres, the others in the one that it connects to).
# What a block prints equals the ```text block marked <!-- output --> that may follow it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $node = new_node('readme');
my @databases;
my $blocks = 0;
foreach my $file (qw(README.md doc/time.md doc/sessions.md doc/alerts.md doc/batch.md))
{
	my $text = slurp_file(source_dir() . "/$file");
	my $database = 'postgres';
	while ($text =~ /^<!-- tested -->\n```sql\n(.*?)^```\n(?:\s*<!-- output -->\n```text\n(.*?)^```\n)?/msg)
	{
		my ($sql, $expected) = ($1, $2);
		my $line = 1 + (substr($text, 0, $-[0]) =~ tr/\n//);
		my ($out, $err) = ('', '');
		my $result = IPC::Run::run([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', '-' ],
			'<', \$sql, '>', \$out, '2>', \$err);
		$blocks++;
		$database = $1 if $sql =~ /^\\connect (\w+)/m;
		ok($result, "$file line $line runs") or diag($err);
		next unless defined $expected;
		s/[ \t]+$//mg, s/\s+\z/\n/ for $out, $expected;
		is($out, $expected, "$file line $line prints what it says");
	}
	push @databases, $database;
}
cmp_ok($blocks, '>', 6, 'there are examples');
foreach my $database (@databases)
{
	oracle($node, $database, $_, $database)
	  for split /\n/, $node->safe_psql($database, <<'SQL');
SELECT view FROM streamext.views v
-- but for those that leave out what is late, or not final, and sessions, which no query makes by itself
WHERE definition !~ 'streamext\.session' AND NOT 'emit=on_close' = ANY (options) AND NOT EXISTS (SELECT FROM streamext.dead_letters d WHERE d.view = v.view)
ORDER BY 1
SQL
}
$node->stop;
done_testing();
