# I5: whole transactions.  Every transaction adds rows that sum to zero over several groups;
# no read ever sees another sum, no view goes backwards in a session, and all views of a
# statement stand at one position, whatever is being flushed.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $readers = 3;
my $seconds = 15;

# many flushes: they are what could show a group twice or not at all
my $node = new_node('balanced', settings => "streamext.flush_interval = '20ms'\n");
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (k int NOT NULL, v int NOT NULL);
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS total FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW everything WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS total FROM ev;
CREATE MATERIALIZED VIEW rows WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v <> 0;
SQL
is($node->safe_psql('app', 'SELECT streamext.wait_for()'), 't', 'live');

my $dir = $ENV{TESTDIR};
append_to_file("$dir/write.sql", <<'SQL');
\set a random(0, 199)
\set b random(0, 199)
\set c random(0, 199)
\set x random(1, 1000)
\set y random(1, 1000)
\set z -(:x + :y)
BEGIN;
INSERT INTO ev VALUES (:a, :x), (:b, :y);
INSERT INTO ev VALUES (:c, :z);
END;
SQL
# the last column: one statement reads all its views at one position
my $read = <<'SQL';
SELECT 'read', (SELECT coalesce(sum(total), 0) FROM by_key), (SELECT coalesce(sum(n), 0) FROM by_key),
  (SELECT n FROM everything), (SELECT coalesce(total, 0) FROM everything), (SELECT count(*) FROM rows),
  (SELECT count(*) - count(DISTINCT k) FROM by_key);
SQL
append_to_file("$dir/read.sql", $read x 200);

my $writer = IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-j', 1, '-T', $seconds, '-M', 'prepared',
		'-f', "$dir/write.sql", $node->connstr('app') ], '>', "$dir/pgbench.out", '2>', "$dir/pgbench.err");
my @readers;
for my $i (1 .. $readers)
{
	# psql reads the file again and again until the writer has ended
	push @readers, IPC::Run::start([ 'psql', '-XAtq', '-F', ' ', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('app'),
			(map { ('-f', "$dir/read.sql") } 1 .. 100) ],
		'>', "$dir/reader_$i.out", '2>', "$dir/reader_$i.err");
}
ok($writer->finish, 'the writer ended well') or diag(slurp_file("$dir/pgbench.err"));
for my $i (1 .. $readers)
{
	# what it has read by now is enough
	$readers[ $i - 1 ]->kill_kill(grace => 2);
	# a reader that fails says so; one that we ended does not
	unlike(slurp_file("$dir/reader_$i.err"), qr/ERROR|server closed/, "reader $i: no error");

	my ($reads, $unbalanced, $backwards, $apart, $twice, $last, $grew) = (0) x 7;
	open(my $in, '<', "$dir/reader_$i.out") or die $!;
	while (my $line = <$in>)
	{
		# the last line may be cut off
		my (undef, $sum, $n, $all, $all_sum, $rows, $double) = $line =~ /^(read) (\S+) (\d+) (\d+) (\S+) (\d+) (\d+)$/
		  or next;
		$reads++;
		$unbalanced++ if $sum != 0 || $all_sum != 0 || $n % 3 != 0;
		$backwards++ if $n < $last;
		$grew++ if $n > $last;
		$apart++ if $n != $all || $n != $rows;
		$twice++ if $double != 0;
		$last = $n;
	}
	note("reader $i: $reads reads, $grew of them saw more than before");
	cmp_ok($grew, '>', 20, "reader $i: the view moved while it was read");
	is($unbalanced, 0, "reader $i: every sum is zero");
	is($backwards, 0, "reader $i: never backwards");
	is($apart, 0, "reader $i: all views of a statement at one position");
	is($twice, 0, "reader $i: no group twice");
}
oracle($node, 'app', $_, 'at the end') for qw(by_key everything rows);

# REPEATABLE READ repeats
my $repeated = $node->safe_psql('app', <<'SQL');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT n, total FROM everything;
SELECT 'again';
SELECT n, total FROM everything;
COMMIT;
SQL
my ($first, $second) = split /\nagain\n/, $repeated;
is($second, $first, 'REPEATABLE READ repeats');
$node->stop;
done_testing();
