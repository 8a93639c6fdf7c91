# I7: memory, WAL and flushes are bounded, and what is bounded stays exact (I1).
#
# The same at full size is in test/long/002_big.pl.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

allow_in_log('terminated by signal 9: Killed');
my $node = new_node('bounds', settings => <<'CONF');
fsync = off
wal_recycle = off
autovacuum = off
CONF
new_database($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (k int NOT NULL, v int);
CREATE TABLE other (x int);
CREATE TABLE parts (k int NOT NULL, v int) PARTITION BY LIST (k);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0);
CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW by_part WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM parts GROUP BY k;
CREATE MATERIALIZED VIEW part_0 WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS total FROM parts_0;
SQL
is($node->safe_psql('app', 'SELECT streamext.wait_for()'), 't', 'live');

# WAL that has nothing to do with streams
sub write_wal
{
	my ($megabytes) = @_;
	$node->safe_psql('app', "DO \$\$ BEGIN FOR i IN 1..$megabytes LOOP
		PERFORM pg_logical_emit_message(false, 'test', repeat('x', 1000000)); END LOOP; END \$\$");
	return;
}

sub finish_session
{
	my ($session) = @_;
	$session->{in} .= "\\q\n";
	eval { $session->{run}->finish; };
	return;
}

sub query
{
	return $node->safe_psql('app', shift);
}

#
# Sub-transactions that run are in the stored position, also when the server's list has overflowed.
#
{
	my $few = background($node, 'app');
	my $many = background($node, 'app');
	statement($few, 'BEGIN');
	statement($few, "SAVEPOINT s; INSERT INTO ev VALUES (1, $_)") for 1 .. 3;
	my $few_xids = statement($few, 'SELECT string_agg(DISTINCT xmin::text, chr(44)) FROM ev');
	query('INSERT INTO ev VALUES (0, 0)');
	query('SELECT streamext.flush()');
	is(query("SELECT count(*) FILTER (WHERE pg_visible_in_snapshot(x::xid8, position)) || ' ' || count(*)
		FROM streamext.view_position, string_to_table('$few_xids', ',') x WHERE view = 'by_key'::regclass"), '0 3',
		'running sub-transactions are not in the position');

	statement($many, 'BEGIN');
	statement($many, 'DO $$ BEGIN FOR i IN 1..500 LOOP
		BEGIN INSERT INTO ev VALUES (2, i); EXCEPTION WHEN division_by_zero THEN END;
		BEGIN INSERT INTO ev VALUES (2, i); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN END;
		END LOOP; END $$');
	my $many_xids = statement($many, 'SELECT string_agg(DISTINCT xmin::text, chr(44)) FROM ev WHERE k = 2');
	query('INSERT INTO ev VALUES (0, 0)');
	query('SELECT streamext.flush()');
	is(query("SELECT count(*) FILTER (WHERE pg_visible_in_snapshot(x::xid8, position)) || ' ' || count(*) || ' ' || bool_or(wal_only)
		FROM streamext.view_position, string_to_table('$few_xids,$many_xids', ',') x WHERE view = 'by_key'::regclass"), '0 503 false',
		'nor those of a transaction with more than the server lists');
	statement($many, 'COMMIT');
	statement($few, 'ROLLBACK TO s; COMMIT');
	oracle($node, 'app', 'by_key', 'sub-transactions');

	# beyond 65,536 they are not listed: the WAL path needs none
	statement($many, 'BEGIN');
	statement($many, 'DO $$ BEGIN FOR i IN 1..100000 LOOP
		BEGIN INSERT INTO ev VALUES (3, i); EXCEPTION WHEN division_by_zero THEN END; END LOOP; END $$');
	query('INSERT INTO ev VALUES (0, 0)');
	query('SELECT streamext.flush()');
	is(query("SELECT wal_only FROM streamext.view_position WHERE view = 'by_key'::regclass"), 't',
		'100,000 sub-transactions: the position says that it is for WAL only');
	statement($many, 'COMMIT');
	oracle($node, 'app', 'by_key', '100,000 sub-transactions');
	query('INSERT INTO ev VALUES (0, 0)');
	query('SELECT streamext.flush()');
	is(query("SELECT wal_only FROM streamext.view_position WHERE view = 'by_key'::regclass"), 'f', 'complete again');
	finish_session($_) for ($few, $many);
}

#
# Open transactions hold no WAL for long: their addresses are stored with the positions.
#
# the longest way from a stored start to the end of WAL, and the slot's, in MB
my $held = "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), lsn))::bigint / 1000000 < 100 FROM
	(SELECT start_lsn AS lsn FROM streamext.view_position
	 UNION ALL SELECT restart_lsn FROM pg_replication_slots WHERE slot_name LIKE 'streamext%') x";

sub let_go
{
	my ($name) = @_;
	# writes are noticed while rows of the stream come in, too
	for my $i (1 .. 4)
	{
		write_wal(40);
		query('INSERT INTO ev VALUES (0, 0); INSERT INTO parts VALUES (0, 1), (1, 1)');
	}
	ok(query_until($node, 'app', $held, 't', 60), "$name: little WAL is held");
	return;
}

{
	my $idle = background($node, 'app');
	my $undone = background($node, 'app');
	my $both = background($node, 'app');
	statement($idle, 'BEGIN; INSERT INTO ev SELECT 10, i FROM generate_series(1, 1000) i; SAVEPOINT s;
		INSERT INTO ev SELECT 11, i FROM generate_series(1, 1000) i; SAVEPOINT t; INSERT INTO ev VALUES (12, 1)');
	statement($undone, 'BEGIN; INSERT INTO ev SELECT 20, i FROM generate_series(1, 100) i;
		INSERT INTO parts SELECT 20, i FROM generate_series(1, 100) i');
	statement($both, 'BEGIN; INSERT INTO parts SELECT i % 2, i FROM generate_series(1, 100) i; SAVEPOINT s;
		INSERT INTO parts SELECT i % 2, i FROM generate_series(1, 100) i');
	query("BEGIN; INSERT INTO ev VALUES (30, 1); SAVEPOINT s; INSERT INTO parts VALUES (0, 30), (30, 30); RELEASE s;
		PREPARE TRANSACTION 'p'");
	query("BEGIN; INSERT INTO ev VALUES (31, 1); PREPARE TRANSACTION 'q'");
	let_go('idle transactions');
	is(query("SELECT count(*) FROM streamext.view_position WHERE open_rows IS NOT NULL"), '3', 'addresses are stored');

	# another consumer begins with them; so does a view that was paused
	statement($idle, 'ROLLBACK TO t; INSERT INTO ev VALUES (13, 1)');
	query("SELECT streamext.pause('part_0')");
	ok(query_until($node, 'app', "SELECT state FROM streamext.status WHERE view = 'part_0'::regclass", 'paused', 60), 'paused');
	my ($consumer) = worker_pids($node, 'consumer', 'app');
	query("SELECT pg_terminate_backend($consumer)");
	query("SELECT streamext.resume('part_0')");
	oracle($node, 'app', $_, 'with another consumer') for qw(by_key by_part part_0);
	statement($idle, 'INSERT INTO ev VALUES (10, 7)');
	let_go('again');
	statement($undone, 'ROLLBACK');
	statement($both, 'ROLLBACK TO s; INSERT INTO parts VALUES (0, 5), (1, 5); COMMIT');
	oracle($node, 'app', $_, 'after COMMIT and ROLLBACK') for qw(by_key by_part part_0);

	# a crash: what was open is gone, what was prepared is not
	statement($undone, 'BEGIN; INSERT INTO ev VALUES (21, 1); INSERT INTO parts VALUES (21, 1)');
	let_go('before a crash');
	my $pid = $node->{_pid};
	$node->kill9;
	finish_session($_) for ($idle, $undone, $both);
	wait_until('the killed server to be gone', 30, sub { !kill(0, $pid) });
	$node->start;
	wait_ready($node);
	oracle($node, 'app', $_, 'after a crash') for qw(by_key by_part part_0);
	query("COMMIT PREPARED 'p'");
	query("ROLLBACK PREPARED 'q'");
	oracle($node, 'app', $_, 'prepared transactions after a crash') for qw(by_key by_part part_0);
	let_go('nothing open');
	query('INSERT INTO ev VALUES (0, 0); INSERT INTO parts VALUES (0, 1)');
	query('SELECT streamext.flush()');
	is(query("SELECT count(*) FROM streamext.view_position WHERE open_rows IS NOT NULL"), '0', 'nothing is stored any more');

	# the transaction itself truncates what it has inserted
	my $again = background($node, 'app');
	statement($again, 'BEGIN; INSERT INTO ev VALUES (40, 1)');
	let_go('before a commit');
	statement($again, 'COMMIT');
	oracle($node, 'app', 'by_key', 'a commit long after its rows');
	finish_session($again);
}

#
# A reader far behind does not take up all transactions at once; the position that it has in between
# is one that WAL leads to, transaction by transaction.
#
{
	query("CREATE PROCEDURE many(first int, count int) LANGUAGE plpgsql AS \$\$
		BEGIN
			FOR i IN first .. first + count LOOP
				INSERT INTO ev VALUES (60 + i % 7, i);
				IF i % 5 = 0 THEN
					BEGIN INSERT INTO ev VALUES (60, i); EXCEPTION WHEN division_by_zero THEN END;
					BEGIN INSERT INTO ev VALUES (61, i); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN END;
				END IF;
				IF i % 11 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
			END LOOP;
		END \$\$");
	my $open = background($node, 'app');
	for my $round ('', 'SET synchronous_commit = off;')
	{
		my ($consumer) = worker_pids($node, 'consumer', 'app');
		statement($open, 'BEGIN; INSERT INTO ev VALUES (70, 1); SAVEPOINT a; INSERT INTO ev VALUES (70, 2)');
		kill 'STOP', $consumer;
		query("$round CALL many(0, 10000)");
		statement($open, 'COMMIT');
		query("$round CALL many(0, 10000)");
		kill 'CONT', $consumer;
		oracle($node, 'app', 'by_key', '20,000 transactions at once');
		is(query("SELECT state FROM streamext.status WHERE view = 'by_key'::regclass"), 'live', 'it was not built again');
	}
	# a builder goes the same way
	query("SELECT streamext.pause('by_key')");
	write_wal(12);
	query('CALL many(0, 15000)');
	query("SELECT streamext.resume('by_key')");
	oracle($node, 'app', 'by_key', '15,000 transactions by a builder');
	finish_session($open);
}

#
# Asynchronous commits: WAL is flushed for rows of streams only, and not all the time.
#
{
	# nobody else commits, so nobody else flushes
	$node->append_conf('postgresql.conf', "wal_writer_delay = '10s'\nwal_writer_flush_after = 1GB\nbgwriter_delay = '10s'\nautovacuum = off\n");
	$node->restart;
	wait_ready($node);
	is(query('SELECT streamext.wait_for()'), 't', 'live again');
	query(<<'SQL');
CREATE PROCEDURE busy(seconds int) LANGUAGE plpgsql AS $$
DECLARE ends timestamptz := clock_timestamp() + seconds * interval '1 second';
BEGIN
	LOOP
		INSERT INTO other VALUES (1);
		COMMIT;
		EXIT WHEN clock_timestamp() > ends;
	END LOOP;
END $$;
SQL

	# Each of these commits wakes the consumer.  How many of them does it have flushed?
	my $flushed = 0;
	for (1 .. 20)
	{
		my $end = query("SET synchronous_commit = off; INSERT INTO other VALUES (1); SELECT pg_current_wal_insert_lsn()");
		$flushed++ if query("SELECT pg_sleep(0.05); SELECT pg_current_wal_flush_lsn() >= '$end'") =~ /t/;
	}
	note("$flushed of 20 asynchronous commits elsewhere were flushed");
	# the few that may be are flushed by transactions of our own
	cmp_ok($flushed, '<=', 10, 'WAL is not flushed for tables that are no streams');

	my $busy = background($node, 'app');
	statement($busy, 'SET synchronous_commit = off');
	# what wait_for() has waited for is there although WAL behind it is not flushed yet
	statement($busy, "DO \$\$ BEGIN FOR i IN 1..100000 LOOP INSERT INTO other VALUES (i); COMMIT; END LOOP; END \$\$", 1);
	is($node->safe_psql('app', join('', map { "INSERT INTO ev VALUES (53, $_);
		SELECT 'waits' WHERE NOT streamext.wait_for('by_key');
		SELECT n FROM by_key WHERE k = 53;" } 1 .. 30)) =~ s/\n+/ /gr, join(' ', 1 .. 30), 'each is there at once');
	statement($busy);

	# the view follows although the WAL writer rests
	query('SET synchronous_commit = off; INSERT INTO ev VALUES (50, 1)');
	oracle($node, 'app', 'by_key', 'asynchronous commit');
	# one after the other, as they would be at most every 10 s by the WAL writer
	query('CREATE TABLE enough ()');
	statement($busy, 'DO $$ BEGIN LOOP INSERT INTO ev VALUES (51, 1); COMMIT; EXIT WHEN EXISTS (SELECT FROM enough); END LOOP; END $$', 1);
	query('SELECT streamext.wait_for()');
	my $seconds = elapsed(sub {
		for (1 .. 10)
		{
			my $end = query('SELECT pg_current_wal_insert_lsn()');
			query_until($node, 'app', "SELECT pg_current_wal_flush_lsn() >= '$end'", 't', 60);
		}
	});
	query('INSERT INTO enough DEFAULT VALUES');
	statement($busy);
	cmp_ok($seconds, '<', 80, 'but for streams, again and again');
	ok(query_until($node, 'app', 'SELECT n > 0 FROM by_key WHERE k = 51', 't', 15), 'asynchronous commits become visible');
	oracle($node, 'app', 'by_key', 'asynchronous commits');
	# while others commit asynchronously all the time, and nobody flushes for them
	statement($busy, 'CALL busy(2)', 1);
	query("INSERT INTO ev VALUES (52, $_)") for 1 .. 20;
	ok(query_until($node, 'app', 'SELECT n FROM by_key WHERE k = 52', '20', 15), 'synchronous ones beside them');
	statement($busy);
	query("SELECT streamext.pause('part_0')");
	query('INSERT INTO parts VALUES (0, 3)');
	statement($busy, 'CALL busy(2)', 1);
	query("SELECT streamext.resume('part_0')");
	ok(query_until($node, 'app', 'SELECT n FROM part_0', query('SELECT count(*) FROM parts_0'), 15), 'joined meanwhile');
	# a view and its query can only be compared when nobody writes
	statement($busy);
	oracle($node, 'app', $_, 'joined meanwhile') for qw(part_0 by_part by_key);
	finish_session($busy);
}

#
# A view whose flush takes long is flushed less often, so that it takes a part of the flusher's time only.
#
{
	my $mat = query("SELECT mat FROM streamext.view_def WHERE view = 'by_key'::regclass");
	query("CREATE FUNCTION slowly(k int, n bigint) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3) WHERE k = 53; RETURN k; END'");
	query("CREATE INDEX slow ON $mat (slowly(k, n)); ALTER MATERIALIZED VIEW by_key SET (streamext.flush_interval = '10ms')");
	my %flushes;
	ok(wait_until('five slow flushes', 60, sub {
		query('INSERT INTO ev VALUES (53, 1)');
		my ($at, $ms) = split /\|/, query("SELECT extract(epoch FROM last_flush), last_flush_ms FROM streamext.status WHERE view = 'by_key'::regclass");
		$flushes{$at} = $ms / 1000 if $ms >= 300;
		return keys %flushes >= 5;
	}), 'slow flushes');
	my @at = sort { $a <=> $b } keys %flushes;
	is(scalar(grep { $at[$_] - $at[ $_ - 1 ] < 1.9 * $flushes{ $at[ $_ - 1 ] } + $flushes{ $at[$_] } } 1 .. $#at), 0, 'each is followed by a rest');
	query("DROP INDEX streamext.slow");
	oracle($node, 'app', 'by_key', 'slow flushes');
}

$node->stop;
done_testing();
