# I1: raw rows expire while others are inserted, and over crashes; views keep all they have counted.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;
use Time::HiRes qw(sleep);

seed(20261122);
allow_in_log('terminated by signal 9: Killed');
my $node = new_node('expire', settings => "max_prepared_transactions = 5\nstreamext.flush_interval = '100ms'\n");
new_database($node, 'app');
# `everything` has each row that was inserted, in the same transaction
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (n bigint NOT NULL, k int) PARTITION BY RANGE (n);
CREATE TABLE ev_rest PARTITION OF ev DEFAULT;
CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM (0) TO (1000);
CREATE TABLE ev_2 PARTITION OF ev FOR VALUES FROM (1000) TO (2000);
CREATE TABLE ev_3 PARTITION OF ev FOR VALUES FROM (2000) TO (3000);
CREATE TABLE everything (n bigint NOT NULL, k int);
SELECT streamext.create_stream('ev', event_time => 'n');
CREATE MATERIALIZED VIEW windows WITH (streamext.continuous) AS
  SELECT k, streamext.tumble(n, 100) AS w, count(*) AS n, sum(n) AS s FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(n) AS s FROM ev;
CREATE MATERIALIZED VIEW sessions WITH (streamext.continuous) AS SELECT k, streamext.session(n, 50) AS w, count(*) AS n FROM ev GROUP BY 1, 2;
CREATE TABLE corrected (at bigserial, k int, w bigint NOT NULL, n bigint, s numeric);
SELECT streamext.create_sink('windows', 'corrected', corrections => true);
CREATE FUNCTION inserted(n bigint, k int) RETURNS void LANGUAGE sql AS
$$ INSERT INTO ev VALUES (n, k); INSERT INTO everything VALUES (n, k) $$;
SELECT streamext.flush();
SQL

# what the views lack or have too much
sub wrong
{
	my $query = <<'SQL';
SELECT streamext.flush();
WITH v AS MATERIALIZED (SELECT k, w, n, s FROM windows), q AS (SELECT k, streamext.tumble(n, 100) AS w, count(*) AS n, sum(n) AS s FROM everything GROUP BY 1, 2)
SELECT 'windows: ' || x::text FROM ((TABLE v EXCEPT ALL TABLE q) UNION ALL (TABLE q EXCEPT ALL TABLE v)) x LIMIT 5;
SELECT 'total: ' || t.n || ' of ' || q.n FROM total t, (SELECT count(*) AS n, sum(n) AS s FROM everything) q WHERE (t.n, t.s) IS DISTINCT FROM (q.n, q.s);
SELECT 'sessions: ' || sum(n) FROM sessions HAVING sum(n) <> (SELECT count(*) FROM everything);
SELECT 'sink: ' || x::text FROM (SELECT k, w, n, s FROM windows WHERE streamext.is_final('windows', w) EXCEPT
	(SELECT DISTINCT ON (k, w) k, w, n, s FROM corrected ORDER BY k, w, at DESC)) x LIMIT 5;
SQL
	return join "\n", grep { /\S/ } split /\n/, $node->safe_psql('app', $query);
}

# ---- with writers, and crashes ----
$node->safe_psql('app', 'SELECT inserted(i, i % 7) FROM generate_series(0, 2999) i');
is(wrong(), '', 'before');
my $limit = 0;
for my $round (1 .. 6)
{
	my $writers = join '', map { "SELECT inserted((random() * 3000)::bigint + $round * 100, $_);\n" } (1 .. 7) x 30;
	my @handles;
	# from a file: nobody here writes to a psql whose server is gone
	my $file = "$ENV{TESTDIR}/writers.sql";
	open(my $script, '>', $file) or die $!;
	print $script $writers;
	close $script;
	for my $i (0, 1)
	{
		push @handles, IPC::Run::start([ 'psql', '-Xqt', '-d', $node->connstr('app'), '-f', $file ], '>', '/dev/null', '2>', '/dev/null');
	}
	$limit += 450;
	my ($out, $err) = ('', '');
	my $expire = IPC::Run::start([ 'psql', '-Xqt', '-d', $node->connstr('app'), '-c',
			"CALL streamext.expire('ev', $limit, batch_rows => 20, detach => " . ($round % 2 ? 'true' : 'false') . ')' ], '>', \$out, '2>', \$err);
	if ($round % 2 == 0)
	{
		# in the midst of it, wherever that is
		sleep(rand() * 0.5);
		$node->stop('immediate');
		IPC::Run::finish($_) for @handles, $expire;
		$node->start;
	}
	else
	{
		IPC::Run::finish($_) for @handles, $expire;
		like($err, qr/removed \d+ rows and \d+ partitions of stream "ev" before $limit/, "round $round: expired");
	}
	ok(query_until($node, 'app', 'SELECT streamext.wait_for()', 't', 60), "round $round: views are back");
	is(wrong(), '', "round $round: no view has lost anything");
	is($node->safe_psql('app', "SELECT count(*) FROM streamext.streams WHERE expired_until_number > $limit"), '0', "round $round: the limit is known");
}
# what a crash has left undone, the next call does
$node->safe_psql('app', "CALL streamext.expire('ev', $limit)");
is($node->safe_psql('app', "SELECT count(*) FROM ev WHERE n < $limit"), '0', 'nothing is left before the limit');
is($node->safe_psql('app', "SELECT expired_until_number FROM streamext.streams WHERE stream = 'ev'::regclass"), $limit, 'which is noted');
is(wrong(), '', 'and views have all');
is($node->safe_psql('app', "SELECT count(*) FROM streamext.verify('windows')"), '0', 'verify() compares what can be compared');

# ---- rows that nobody has read: open and prepared transactions ----
my $open = $node->background_psql('app');
$open->query_safe('BEGIN; SELECT inserted(1, 1)');
$node->safe_psql('app', "BEGIN; SELECT inserted(2, 2); PREPARE TRANSACTION 'p'");
$node->safe_psql('app', "CALL streamext.expire('ev', $limit)");
$open->query_safe('COMMIT');
$open->quit;
$node->safe_psql('app', "COMMIT PREPARED 'p'");
is($node->safe_psql('app', "SELECT count(*) FROM ev WHERE n < $limit"), '2', 'their rows stay');
is(wrong(), '', 'and count');
$node->safe_psql('app', "CALL streamext.expire('ev', $limit)");
is($node->safe_psql('app', "SELECT count(*) FROM ev WHERE n < $limit"), '0', 'until the next time');
is(wrong(), '', 'when views have them');

# ---- views that are not there yet ----
sub refused
{
	my ($name, $pattern) = @_;
	my ($result, $out, $error) = $node->psql('app', "SET streamext.wait_timeout = '300ms'; CALL streamext.expire('ev', 1000000)");
	like($error, $pattern, $name);
	return;
}
my $before = $node->safe_psql('app', 'SELECT count(*) FROM ev');
$open = $node->background_psql('app');
$open->query_safe('BEGIN; SELECT inserted(1000, 1)');
$node->safe_psql('app', 'CREATE MATERIALIZED VIEW late WITH (streamext.continuous) AS SELECT count(*) AS n FROM ev');
refused('a view that waits for a writer is waited for', qr/not all continuous views have read and stored their rows.*late/s);
$open->query_safe('COMMIT');
$open->quit;
$node->safe_psql('app', 'SELECT streamext.wait_for()');
is($node->safe_psql('app', 'SELECT n FROM late'), $before + 1, 'it counts what was there');
$node->safe_psql('app', 'DROP VIEW late; CREATE FUNCTION f(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;'
	  . 'CREATE MATERIALIZED VIEW failing WITH (streamext.continuous) AS SELECT f(n) AS n FROM ev; SELECT streamext.wait_for()');
$node->safe_psql('app', 'ALTER FUNCTION f VOLATILE; CREATE OR REPLACE FUNCTION f(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS '
	  . q($$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'XX000'; END $$; SELECT inserted(5000, 1)));
refused('and so is one that fails', qr/not all continuous views have read and stored their rows.*failing/s);
is($node->safe_psql('app', 'SELECT count(*) FROM ev'), $before + 2, 'nothing was removed');
$node->safe_psql('app', 'DROP VIEW failing');
is(wrong(), '', 'the other views go on');
$node->stop;
done_testing();
