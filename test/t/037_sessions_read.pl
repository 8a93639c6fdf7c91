# I5 for sessions: while rows extend and bridge sessions and flushes replace them in the table, every
# read sees whole transactions, every row once, no two sessions of a key that overlap, and never goes back.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $readers = 2;
my $seconds = 12;

my $node = new_node('sessions_read', settings => "streamext.flush_interval = '20ms'\n");
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (k int NOT NULL, t bigint NOT NULL, v int NOT NULL);
INSERT INTO ev SELECT i % 4, i * 97 % 5000, 0 FROM generate_series(1, 300) i;
CREATE MATERIALIZED VIEW s WITH (streamext.continuous) AS
  SELECT k, streamext.session(t, 20) AS session, count(*) AS n, sum(v) AS total FROM ev GROUP BY k, streamext.session(t, 20);
CREATE MATERIALIZED VIEW everything WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS total FROM ev;
SQL
is($node->safe_psql('app', 'SELECT streamext.wait_for()'), 't', 'live');
my $before = $node->safe_psql('app', 'SELECT count(*) FROM ev');

# at first there are gaps everywhere; later rows come ever further on
my $dir = $ENV{TESTDIR};
append_to_file("$dir/write_sessions.sql", <<'SQL');
\set a random(0, 3)
\set b random(0, 3)
\set x random(1, 1000)
\set y random(1, 1000)
\set z -(:x + :y)
BEGIN;
INSERT INTO ev VALUES (:a, (random() * (5000 + :client_id * 20000))::int, :x), (:b, (random() * 50000)::int, :y);
INSERT INTO ev VALUES (:b, (random() * 50000)::int, :z);
END;
SQL
my $read = <<'SQL';
SELECT 'read', sum(n), sum(total), (SELECT n FROM everything), (SELECT total FROM everything),
  count(*) FILTER (WHERE over), count(*), sum(n) FILTER (WHERE k = 1), (SELECT sum(n) FROM s WHERE k = 1),
  (SELECT count(*) FROM (SELECT session, lag(session) OVER (ORDER BY session) AS before
     FROM (SELECT session FROM s WHERE k = 2 ORDER BY session LIMIT 1000) q) q WHERE session && before)
FROM (SELECT *, upper(lag(session) OVER (PARTITION BY k ORDER BY session)) > lower(session) AS over FROM s) q;
SQL
append_to_file("$dir/read_sessions.sql", $read x 100);

my $writer = IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-j', 1, '-T', $seconds, '-R', 400,
		'-f', "$dir/write_sessions.sql", $node->connstr('app') ], '>', "$dir/pgbench_sessions.out", '2>', "$dir/pgbench_sessions.err");
my @readers;
for my $i (1 .. $readers)
{
	# psql reads the file again and again until the writer has ended
	push @readers, IPC::Run::start([ 'psql', '-XAtq', '-F', ' ', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('app'),
			(map { ('-f', "$dir/read_sessions.sql") } 1 .. 100) ],
		'>', "$dir/sessions_reader_$i.out", '2>', "$dir/sessions_reader_$i.err");
}
ok($writer->finish, 'the writer ended well') or diag(slurp_file("$dir/pgbench_sessions.err"));
for my $i (1 .. $readers)
{
	# what it has read by now is enough
	$readers[ $i - 1 ]->kill_kill(grace => 2);
	unlike(slurp_file("$dir/sessions_reader_$i.err"), qr/ERROR|server closed/, "reader $i: no error");

	my ($reads, $unbalanced, $backwards, $apart, $overlap, $last, $grew, $fewer, $sessions) = (0) x 9;
	open(my $in, '<', "$dir/sessions_reader_$i.out") or die $!;
	while (my $line = <$in>)
	{
		# the last line may be cut off
		my ($n, $sum, $all, $all_sum, $over, $count, $of_key, $of_key_again, $over_again) =
		  $line =~ /^read (\d+) (\S+) (\d+) (\S+) (\d+) (\d+) (\d+) (\d+) (\d+)$/ or next;
		$reads++;
		$unbalanced++ if $sum != 0 || $all_sum != 0 || ($n - $before) % 3 != 0;
		$backwards++ if $n < $last;
		$grew++ if $n > $last;
		$apart++ if $n != $all || $of_key != $of_key_again;
		$overlap++ if $over != 0 || $over_again != 0;
		$fewer++ if $count < $sessions;
		$last = $n;
		$sessions = $count;
	}
	note("reader $i: $reads reads, $grew of them saw more than before, $fewer fewer sessions");
	cmp_ok($grew, '>', 10, "reader $i: the view moved while it was read");
	cmp_ok($fewer, '>', 0, "reader $i: sessions became one");
	is($unbalanced, 0, "reader $i: every sum is zero");
	is($backwards, 0, "reader $i: never backwards");
	is($apart, 0, "reader $i: all rows counted once, through any index");
	is($overlap, 0, "reader $i: no session overlaps another");
}
my $islands = <<'SQL';
SELECT k, int8range(min(t), max(t) + 20) AS session, count(*) AS n, sum(v) AS total
FROM (SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY k ORDER BY t RANGE UNBOUNDED PRECEDING) AS number
	FROM (SELECT *, coalesce(t - lag(t) OVER (PARTITION BY k ORDER BY t) >= 20, true) AS starts FROM ev) a) b
GROUP BY k, number
SQL
oracle($node, 'app', 's', 'at the end', $islands);
oracle($node, 'app', 'everything', 'at the end');

# REPEATABLE READ repeats, whatever is flushed meanwhile
my $session = background($node, 'app');
statement($session, 'BEGIN ISOLATION LEVEL REPEATABLE READ');
my $first = statement($session, 'SELECT * FROM s ORDER BY k, session');
$node->safe_psql('app', 'INSERT INTO ev SELECT k, t + 7, 1 FROM ev; SELECT streamext.wait_for(); SELECT streamext.flush()');
is(statement($session, 'SELECT * FROM s ORDER BY k, session'), $first, 'REPEATABLE READ repeats');
statement($session, 'COMMIT');
oracle($node, 'app', 's', 'afterwards', $islands);
$node->stop;
done_testing();
