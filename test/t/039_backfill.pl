# I1, I2, I3, I7: history of a large table is built in chunks, and is exact whatever happens meanwhile.
#
# all_ev has every row as it was inserted, or as it was when the views' snapshot was taken: rows of ev are updated,
# deleted and vacuumed while chunks are being built, which must change nothing.  Builders are stopped
# between two chunks, killed with or without the server, paused; they go on where they were.  Down to the rows that fail
# chunks are read in parallel, which small ones are only where nothing is said to cost anything.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextFaults;
use StreamextTest;
use Test::More;
use Time::HiRes qw(sleep time);

allow_in_log('terminated by signal 9: Killed');
my $node = new_node('backfill', settings => <<'CONF');
fsync = off
streamext.flush_interval = '50ms'
streamext.testing_chunk_blocks = 8
log_line_prefix = '%m [%p] %b '
CONF
new_database($node, 'app');
test_functions($node, 'app');

sub sql { return $node->safe_psql('app', $_[0]); }

sql("ALTER DATABASE app SET $_ = 0") for qw(min_parallel_table_scan_size parallel_setup_cost parallel_tuple_cost cpu_tuple_cost);

sql(<<'SQL');
CREATE TABLE ev (id bigserial, ts timestamptz NOT NULL, k int NOT NULL, v int, note text);
CREATE TABLE pt (LIKE ev) PARTITION BY RANGE (id);
CREATE TABLE pt_1 PARTITION OF pt FOR VALUES FROM (MINVALUE) TO (4000);
CREATE TABLE pt_2 (note text, v int, k int NOT NULL, ts timestamptz NOT NULL, id bigint NOT NULL);
ALTER TABLE pt ATTACH PARTITION pt_2 FOR VALUES FROM (4000) TO (9000);
CREATE TABLE pt_3 PARTITION OF pt FOR VALUES FROM (9000) TO (1000000) PARTITION BY HASH (id);
CREATE TABLE pt_3a PARTITION OF pt_3 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE pt_3b PARTITION OF pt_3 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE pt_rest PARTITION OF pt DEFAULT;
CREATE TABLE names (k int PRIMARY KEY, name text);
INSERT INTO names SELECT i, 'name ' || i % 5 FROM generate_series(0, 90) i;
SELECT streamext.create_stream('ev', event_time => 'ts', watermark_delay => '1 minute');
CREATE TABLE all_ev (LIKE ev);
CREATE SEQUENCE number;
-- rows of all times, the same into both; some have TOAST
CREATE FUNCTION add(n int) RETURNS void LANGUAGE sql AS $$
WITH new AS (
	SELECT i, '2024-01-01'::timestamptz + (i % 40000) * interval '3 s' AS ts, i * 7 % 97 AS k, i % 1000 + 1 AS v,
		CASE i % 500 WHEN 0 THEN (SELECT string_agg(md5(j::text), '') FROM generate_series(1, 200) j) ELSE repeat('x', (i % 100)::int) END AS note
	FROM (SELECT nextval('number') AS i FROM generate_series(1, n)) s),
one AS (INSERT INTO ev (id, ts, k, v, note) SELECT * FROM new),
two AS (INSERT INTO pt (id, ts, k, v, note) SELECT * FROM new)
INSERT INTO all_ev SELECT * FROM new $$;
SELECT add(12000);
-- holes and other versions, which are there before
UPDATE ev SET v = v + 1 WHERE id % 10 = 3; UPDATE pt SET v = v + 1 WHERE id % 10 = 3; UPDATE all_ev SET v = v + 1 WHERE id % 10 = 3;
DELETE FROM ev WHERE id % 11 = 5; DELETE FROM pt WHERE id % 11 = 5; DELETE FROM all_ev WHERE id % 11 = 5;
VACUUM ANALYZE;
-- changes nothing that a view has
CREATE PROCEDURE change() LANGUAGE plpgsql AS $$
BEGIN
	UPDATE ev SET v = 1000000, k = 99 WHERE id % 7 = 2; UPDATE pt SET v = 1000000, k = 99 WHERE id % 7 = 2;
	DELETE FROM ev WHERE id % 7 = 4; DELETE FROM pt WHERE id % 7 = 4;
END $$;
CREATE PROCEDURE forget() LANGUAGE sql AS 
	'TRUNCATE all_ev, pt; INSERT INTO all_ev SELECT id, ts, k, v, note FROM ev; INSERT INTO pt SELECT * FROM all_ev';
SQL
cmp_ok(sql("SELECT pg_relation_size('ev') / 8192"), '>', 100, 'there are many chunks');

my %definition = (
	by_key => 'SELECT k, count(*) AS n, sum(v) AS total, avg(v) AS mean, max(note) AS note FROM ev GROUP BY k',
	big => 'SELECT id, v, note FROM ev WHERE v > 500',
	total => 'SELECT count(*) AS n, sum(v) AS total FROM ev',
	joined => 'SELECT n.name, count(*) AS n, sum(e.v) AS total FROM ev e JOIN names n USING (k) GROUP BY n.name',
	windows => "SELECT streamext.tumble(ts, '1 hour') AS w, k % 3 AS k, count(*) AS n, sum(v) AS total FROM ev GROUP BY 1, 2",
	hopping => "SELECT streamext.hop(ts, '10 minutes', '1 hour') AS w, count(*) AS n, sum(v) AS total FROM ev GROUP BY 1",
	spans => "SELECT k, streamext.session(ts, '6 minutes') AS span, count(*) AS n, sum(v) AS total FROM ev GROUP BY k, streamext.session(ts, '6 minutes')",
	parts => 'SELECT k, count(*) AS n, sum(v) AS total, max(note) AS note FROM pt GROUP BY k',
	part_rows => 'SELECT id, k, v FROM pt WHERE k < 50',
);
# as the oracle asks it
my %query = (
	%definition,
	spans => <<'SQL',
SELECT k, tstzrange(min(ts), max(ts) + interval '6 minutes') AS span, count(*) AS n, sum(v) AS total
FROM (SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY k ORDER BY ts RANGE UNBOUNDED PRECEDING) AS number
	FROM (SELECT *, coalesce(ts - lag(ts) OVER (PARTITION BY k ORDER BY ts) >= '6 minutes', true) AS starts FROM ev) a) b GROUP BY k, number
SQL
);

sub exact
{
	my ($name, @views) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	oracle($node, 'app', $_, $name, $query{$_} =~ s/\b(ev|pt)\b/all_ev/gr) for @views;
	return;
}

sub create { sql("CREATE MATERIALIZED VIEW $_ WITH (streamext.continuous) AS $definition{$_}") for @_; return; }
sub drop { sql("DROP MATERIALIZED VIEW $_") for @_; return; }

# armed in the transaction that creates it
sub create_stopped
{
	my ($view, $n) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sql("BEGIN; CREATE MATERIALIZED VIEW $view WITH (streamext.continuous) AS $definition{$view};"
		  . "SELECT testing.stop('history_chunk_committed', 'wait', $n, '$view'::regclass); COMMIT");
	return stopped("$view is amid its chunks");
}

# what the stored state says: S, and how far it has come
sub stored
{
	my ($view, $what) = @_;
	return sql("SELECT coalesce(($what)::text, 'none') FROM streamext.view_position WHERE view = '$view'::regclass");
}
my $place = "scan_position::text || ' ' || scan_file || ' ' || scan_block";

# stop_after(N, VIEW [, POINT]): its builder stops at its Nth chunk from now on, when it is written
my $between = 'history_chunk_committed';
sub stop_after
{
	my ($n, $view, $point) = @_;
	sql("SELECT testing.stop('" . ($point // $between) . "', 'wait', $n, '$view'::regclass)");
	return;
}

sub stopped
{
	my ($name, $n, @points) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $list = join ',', @points ? @points : $between;
	return ok(query_until($node, 'app', "SELECT sum(waiting) FROM testing.points() WHERE point = ANY ('{$list}')", $n // 1, 60), $name);
}

# ---- everything at once, twice two views at a time: as many as there are builders ----
my $round = 0;
for my $pair ([qw(by_key big)], [qw(windows hopping)], [qw(spans joined)], [qw(parts part_rows)], [qw(total by_key)])
{
	my ($first, $second) = @$pair;
	my $name = "@$pair";
	$round++;

	# transactions that are open at the start, one of them prepared
	my $open = background($node, 'app');
	statement($open, 'BEGIN; SELECT add(50); SAVEPOINT a; SELECT add(20); RELEASE a');
	sql("BEGIN; SELECT add(30); PREPARE TRANSACTION 'p$round'");
	create($first, $second);
	ok(query_until($node, 'app', "SELECT count(*) FROM streamext.status WHERE reason LIKE 'waits for open transaction%' OR reason LIKE 'waits for %prepared%'", 2),
		"$name: waits for who was there before");
	# one is stopped between two chunks, one when it has computed the second
	stop_after(2, $first);
	stop_after(2, $second, 'history_chunk_computed');
	statement($open, 'COMMIT');
	sql("COMMIT PREPARED 'p$round'");
	stopped("$name: amid its chunks", 2, $between, 'history_chunk_computed');
	is(sql("SELECT count(*) FROM streamext.view_position WHERE scan_rows > 0 AND position::text = scan_position::text"), '2', 'both have begun');

	# rows for windows that are being built, then changes to rows that are not read yet
	sql('SELECT add(300)');
	statement($open, 'BEGIN; SELECT add(40)');
	sql('CALL change()');
	sql('VACUUM ev; VACUUM pt');
	my %before = map { $_ => stored($_, $place) } $first, $second;
	my %rows = map { $_ => stored($_, 'scan_rows') } $first, $second;
	cmp_ok($rows{$first} + $rows{$second}, '>', 0, 'a part is done');
	is(sql("SELECT count(DISTINCT phase) FROM streamext.backfill_progress WHERE percent > 0 AND percent < 100 AND held_transactions > 0 AND phase = 'writing the result'"),
		'1', 'it is shown');
	# rows_total is rounded
	is(sql("SELECT count(*) FROM streamext.backfill_progress WHERE percent > 100.0 * rows_done / (rows_total - 1)"), '0', 'what is read but not written does not count in full');

	if ($round == 1 || $round == 2)
	{
		# a crash, of a builder or of the server
		my @builders = worker_pids($node, 'builder', 'app');
		kill_process($builders[0]) if $round == 1;
		$node->stop('immediate') if $round == 2;
		$node->start if $round == 2;
		eval { $open->{run}->kill_kill(grace => 0) };
		ok(query_until($node, 'app', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'streamext consumer'", 1), 'the server is back');
	}
	elsif ($round == 3)
	{
		sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'streamext builder'");
		sql("SELECT testing.release()");
		statement($open, 'COMMIT');
	}
	elsif ($round == 4)
	{
		sql("SELECT streamext.pause('$_')") for $first, $second;
		sql("SELECT testing.release()");
		ok(query_until($node, 'app', "SELECT count(*) FROM streamext.views WHERE state = 'paused'", 2), 'paused');
		is(sql("SELECT count(*) FROM streamext.backfill_progress WHERE phase = 'paused' AND percent < 100 AND eta IS NULL"), '2', 'with their progress');
		sql('SELECT add(60)');
		statement($open, 'COMMIT');
		sql("SELECT streamext.resume('$_')") for $first, $second;
	}
	else
	{
		sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'streamext consumer'");
		sql("SELECT testing.release()");
		statement($open, 'COMMIT');
	}
	sql('SELECT add(100)');
	exact($name, $first, $second);
	for my $view ($first, $second)
	{
		my ($s) = split / /, $before{$view};
		is(stored($view, 'scan_position'), 'none', "$view has all of history");
		cmp_ok(sql("SELECT position >= 0 FROM (SELECT pg_snapshot_xmin(position)::text::bigint - pg_snapshot_xmin('$s')::text::bigint AS position FROM streamext.view_position WHERE view = '$view'::regclass) p"),
			'eq', 't', 'and stands behind S');
	}
	drop($first, $second);
	sql('CALL forget()');
}

# ---- it goes on, and does not begin anew ----
create_stopped('big', 5);
{
	my $s = stored('big', 'scan_position');
	my $rows = stored('big', 'scan_rows');
	$node->stop('immediate');
	$node->start;
	ok(query_until($node, 'app', "SELECT count(*) > 0 FROM testing.points()", 't'), 'the server is back');
	my $seen = stored('big', "scan_position::text || ' ' || scan_rows");
	my ($s2, $rows2) = split / /, $seen eq 'none' ? "$s $rows" : $seen;
	is($s2, $s, 'the same snapshot');
	cmp_ok($rows2, '>=', $rows, 'and nothing done twice');
	exact('after a crash', 'big');
}
drop('big');

# ---- percent never falls, and rows and time left are told ----
$node->append_conf('postgresql.conf', "streamext.backfill_rate = 8000");
$node->reload;
my $begin = time;
create('big');
my @seen;
ok(wait_until('the view to be built', 60, sub {
	my $row = sql("SELECT percent, rows_done, rows_total, extract(epoch FROM eta) FROM streamext.backfill_progress WHERE view = 'big'::regclass AND percent IS NOT NULL");
	push @seen, [ split /\|/, $row ] if $row ne '';
	return sql("SELECT state FROM streamext.views WHERE view = 'big'::regclass") eq 'live';
}), 'built');
# less what a chunk reads in advance
cmp_ok(time - $begin, '>', sql('SELECT count(*) FROM ev') / 8000 - 0.5, 'no faster than allowed');
cmp_ok(scalar(@seen), '>=', 3, 'seen while it was built');
is(scalar(grep { $seen[$_][0] < $seen[ $_ - 1 ][0] } 1 .. $#seen), 0, 'percent never falls');
is(scalar(grep { $_->[0] > 10 && ($_->[2] < 0.8 * sql('SELECT count(*) FROM ev') || $_->[2] > 1.2 * sql('SELECT count(*) FROM ev')) } @seen), 0, 'the number of rows is right');
exact('with a rate', 'big');
drop('big');
$node->append_conf('postgresql.conf', "streamext.backfill_rate = 0");
$node->reload;

# ---- a row that fails, in the middle and at both ends ----
sql("INSERT INTO ev (id, ts, k, v) VALUES (900001, '2024-01-01', 1, 0)");
sql("UPDATE ev SET v = 0 WHERE ctid IN (SELECT min(ctid) FROM ev UNION SELECT ctid FROM (SELECT ctid FROM ev WHERE id BETWEEN 5000 AND 5020 LIMIT 1) m)");
sql('VACUUM FULL ev');
create('total');
sql("CREATE MATERIALIZED VIEW inverse WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(1000 / v) AS total FROM ev GROUP BY k");
exact_ev('inverse', 'SELECT k, count(*) AS n, sum(1000 / v) AS total FROM ev WHERE v <> 0 GROUP BY k');
is(sql("SELECT count(*) FROM streamext.dead_letters WHERE view = 'inverse'::regclass AND sqlstate = '22012'"), '3', 'one dead letter each');
exact_ev('total', $definition{total});
sub exact_ev
{
	my ($view, $query) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return oracle($node, 'app', $view, 'failing rows', $query);
}
drop('inverse', 'total');

# ---- it was parallel ----
sql('ALTER DATABASE app SET parallel_leader_participation = off');
sql("CREATE FUNCTION seen(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS 'BEGIN RAISE LOG \$\$row seen\$\$; RETURN v; END'");
sql('CREATE MATERIALIZED VIEW seen WITH (streamext.continuous) AS SELECT seen(k % 3) AS k, count(*) AS n FROM ev GROUP BY 1');
exact_ev('seen', 'SELECT k % 3 AS k, count(*) AS n FROM ev GROUP BY 1');
cmp_ok(scalar(() = slurp_file($node->logfile) =~ /parallel worker.*row seen/g), '>', 0, 'parallel workers have read rows');
drop('seen');
sql('ALTER DATABASE app RESET ALL');

# ---- dropped in the middle: at once, and nothing stays ----
create_stopped('by_key', 2);
sql("SET statement_timeout = '10s'; DROP MATERIALIZED VIEW by_key");
sql('SELECT testing.release()');
ok(query_until($node, 'app', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'streamext builder'", '0'), 'its builder is gone');
is(sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'streamext'::regnamespace AND relname ~ '^(mat|query)_'"), '0', 'and its relations');

# ---- commands that would remove rows, or replace a file ----
create('parts');
create_stopped('by_key', 2);
for my $command ('TRUNCATE ev', 'ALTER TABLE ev ADD x float DEFAULT random()', 'VACUUM FULL ev')
{
	my ($out, $err) = ('', '');
	$node->psql('app', "SET streamext.wait_timeout = '300ms'; $command", stderr => \$err);
	like($err, qr/not in all its continuous views yet/, "$command waits for the view");
}
sql('SELECT testing.release()');
sql('VACUUM FULL ev; ALTER TABLE ev ADD x float DEFAULT random()');
sql('TRUNCATE all_ev; INSERT INTO all_ev SELECT id, ts, k, v, note FROM ev');
exact('after commands', 'by_key');
sql('SELECT streamext.wait_for(NULL, $$60s$$)');
sql('ALTER TABLE pt DETACH PARTITION pt_2');
drop('by_key', 'parts');

# ---- a column that old rows have not, and whose value only the partitions know ----
sql(<<'SQL');
CREATE TABLE alike (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE alike_1 PARTITION OF alike FOR VALUES FROM (MINVALUE) TO (15000);
CREATE TABLE alike_2 PARTITION OF alike DEFAULT;
INSERT INTO alike SELECT i, i % 100 FROM generate_series(1, 30000) i;
CREATE MATERIALIZED VIEW before WITH (streamext.continuous) AS SELECT v, count(*) AS n, max(id) AS m FROM alike GROUP BY v;
ALTER TABLE alike ADD COLUMN extra int DEFAULT 7;
INSERT INTO alike SELECT i, i % 100, 8 FROM generate_series(14000, 16000) i;
CREATE MATERIALIZED VIEW extra WITH (streamext.continuous) AS SELECT extra, count(*) AS n, sum(v) AS total FROM alike GROUP BY extra;
CREATE MATERIALIZED VIEW extra_rows WITH (streamext.continuous) AS SELECT id, extra FROM alike WHERE extra + v > 100;
SQL
oracle($node, 'app', $_, 'a column with a default') for qw(before extra extra_rows);
is(sql("SELECT string_agg(extra || ':' || n, ' ' ORDER BY extra) FROM extra"), '7:30000 8:2001', 'rows that have not the column have its default');
drop('before', 'extra', 'extra_rows');

# ---- a sample long enough to tell something: many groups, few, none, and a row that fails in it; by compiled expressions ----
$node->append_conf('postgresql.conf', "streamext.testing_chunk_blocks = 300\njit_above_cost = 0");
$node->reload;
sql(<<'SQL');
CREATE TABLE wide (id int, v int, pad text);
INSERT INTO wide SELECT i, i % 100, repeat('x', 150) FROM generate_series(1, 40000) i;
CREATE MATERIALIZED VIEW many WITH (streamext.continuous) AS SELECT id / 2 AS half, count(*) AS n, avg(v) AS mean FROM wide GROUP BY 1;
CREATE MATERIALIZED VIEW few WITH (streamext.continuous) AS SELECT v % 7 AS k, count(*) AS n, avg(id) AS mean FROM wide GROUP BY 1;
CREATE MATERIALIZED VIEW all_of_them WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS total FROM wide;
CREATE MATERIALIZED VIEW passing WITH (streamext.continuous) AS SELECT id, v FROM wide WHERE v % 3 = 0;
CREATE MATERIALIZED VIEW failing WITH (streamext.continuous) AS SELECT v, count(1000 / (id - 39000)) AS n FROM wide GROUP BY v;
SQL
oracle($node, 'app', $_, 'with a sample') for qw(many few all_of_them passing);
oracle($node, 'app', 'failing', 'with a row that fails in the sample', 'SELECT v, count(*) AS n FROM wide WHERE id <> 39000 GROUP BY v');
is(sql("SELECT count(*) FROM streamext.dead_letters WHERE view = 'failing'::regclass"), '1', 'and that row is the one dead letter');
drop(qw(many few all_of_them passing failing));
$node->append_conf('postgresql.conf', 'streamext.testing_chunk_blocks = 8');
$node->reload;

# ---- the slot lets go of what the snapshot sees: from the beginning, with another ----
$node->append_conf('postgresql.conf', "streamext.max_held_xids = 1000");
$node->reload;
allow_in_log('held back VACUUM for more transactions than allowed');
create_stopped('by_key', 2);
my $old = stored('by_key', 'scan_position');
sql('CALL change()');
sql("DO \$\$ BEGIN FOR i IN 1 .. 1500 LOOP BEGIN PERFORM pg_current_xact_id(); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END \$\$");
sql("DO \$\$ BEGIN FOR i IN 1 .. 1500 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END \$\$");
ok(query_until($node, 'app', "SELECT age(xmin) < 1100 FROM pg_replication_slots WHERE slot_name LIKE 'streamext%'", 't'), 'the slot has moved');
sql('VACUUM (FREEZE) ev');
sql('SELECT testing.release()');
oracle($node, 'app', 'by_key', 'after the slot has let go', $definition{by_key});
is(sql('SELECT count(*) FROM streamext.lost_intervals'), '0', 'nothing is lost');
drop('by_key');

no_orphans($node);
$node->stop;
done_testing();
