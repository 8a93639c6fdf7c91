# I1, I6: commands that replace, empty, add or remove files of streams, in the middle of inserts.
#
# Three sessions insert all the time, in every way there is, into a table and into a partitioned table;
# a row trigger writes what they insert into a ledger, which nothing removes.  After each command the
# writers pause, and every view must equal its query over the ledger.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextFaults qw(log_position up_again);
use StreamextTest;
use Test::More;
use Time::HiRes qw(time);

# a command's longest time, on a machine that is busy with other things
use constant LONGEST => 30;

allow_in_log('terminated by signal 9: Killed');
my $node = new_node('files', settings => "autovacuum = off\nfsync = off\nallow_in_place_tablespaces = on\n");
new_database($node, 'app');

my $copy_file = "$ENV{TESTDIR}/copied";
append_to_file($copy_file, join('', map { "\\N\t" . $_ % 80 . "\t$_\n" } 1 .. 60));
my $old_file = "$ENV{TESTDIR}/reloaded";
append_to_file($old_file, join('', map { "\\N\t" . $_ % 80 . "\t$_\n" } 1 .. 300));

my $frozen_file = "$ENV{TESTDIR}/frozen";
append_to_file($frozen_file, join('', map { "\\N\t45\t$_\n" } 1 .. 500));

# %s is the stream, or the ledger
my %views = (
	by_key => [ 'ev', 'SELECT k, count(*) AS n, sum(v) AS total, avg(v) AS mean, min(v) AS low, max(v) AS high FROM %s GROUP BY k' ],
	rows_of => [ 'ev', 'SELECT id, k, v FROM %s WHERE v % 3 = 0' ],
	totals => [ 'ev', 'SELECT count(*) AS n, sum(v) AS total FROM %s' ],
	joined => [ 'ev', 'SELECT n.name, count(*) AS n, sum(e.v) AS total FROM %s e JOIN names n USING (k) GROUP BY n.name' ],
	by_part => [ 'parts', 'SELECT k, count(*) AS n, sum(v) AS total FROM %s GROUP BY k' ],
	part_rows => [ 'parts', 'SELECT id, k, v FROM %s WHERE v % 5 = 0' ],
	second => [ 'parts_2', 'SELECT k, count(*) AS n, sum(v) AS total FROM %s GROUP BY k' ]);
my %ledger = (ev => 'ledger_ev', parts => 'ledger_parts', parts_2 => '(SELECT * FROM ledger_parts WHERE k BETWEEN 20 AND 39) x');

sub create_view
{
	my ($name) = @_;
	my ($stream, $query) = @{ $views{$name} };
	return "CREATE MATERIALIZED VIEW $name WITH (streamext.continuous) AS " . sprintf($query =~ s/% (\d)/%% $1/r, $stream);
}

$node->safe_psql('app', <<'SQL' . join(";\n", map { create_view($_) } sort keys %views));
CREATE TABLE names (k int PRIMARY KEY, name text);
INSERT INTO names SELECT i, 'name ' || i % 7 FROM generate_series(0, 99) i;
CREATE SEQUENCE ids;
CREATE TABLE ev (id bigint, k int NOT NULL, v int, spare int, junk text);
CREATE UNIQUE INDEX ev_id ON ev (id);
CREATE TABLE parts (id bigint, k int NOT NULL, v int, spare int, junk text) PARTITION BY RANGE (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (20);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (20) TO (40);
CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (40) TO (60);
CREATE TABLE parts_4 PARTITION OF parts FOR VALUES FROM (60) TO (80);
CREATE TABLE ledger_ev (id bigint, k int, v int);
CREATE TABLE ledger_parts (id bigint, k int, v int);
CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO %I VALUES ($1, $2, $3)', TG_ARGV[0]) USING NEW.id, NEW.k, NEW.v;
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT ON ev FOR EACH ROW EXECUTE FUNCTION note_row('ledger_ev');
CREATE TRIGGER note AFTER INSERT ON parts FOR EACH ROW EXECUTE FUNCTION note_row('ledger_parts');
CREATE TABLESPACE other_space LOCATION '';
SQL

# ---- writers ----

# Each turn is allowed by lock 7.  A partition may be away.  Whoever writes into a partition locks that before
# its parent, which core's ALTER TABLE does the other way round.
my $turn = <<"SQL";
SELECT pg_advisory_lock_shared(7);
INSERT INTO ev(id, k, v) VALUES (nextval('ids'), random() * 19, random() * 999);
INSERT INTO parts(id, k, v) VALUES (nextval('ids'), random() * 79, random() * 999);
INSERT INTO ev(id, k, v) SELECT nextval('ids'), i % 20, i FROM generate_series(1, 30) i;
INSERT INTO parts(id, k, v) SELECT nextval('ids'), i, i FROM generate_series(0, 59, 3) i;
INSERT INTO parts(id, k, v) SELECT nextval('ids'), i, i FROM generate_series(60, 79, 5) i;
COPY ev(id, k, v) FROM '$copy_file';
COPY parts(id, k, v) FROM '$copy_file';
BEGIN;
INSERT INTO ev(id, k, v) VALUES (nextval('ids'), 1, 1);
SAVEPOINT a;
INSERT INTO ev(id, k, v) VALUES (nextval('ids'), 1, 100000);
ROLLBACK TO a;
SAVEPOINT b;
INSERT INTO ev(id, k, v) VALUES (nextval('ids'), 2, 2);
RELEASE b;
COMMIT;
BEGIN;
SAVEPOINT a;
INSERT INTO parts(id, k, v) VALUES (nextval('ids'), 25, 100000);
ROLLBACK TO a;
INSERT INTO parts(id, k, v) VALUES (nextval('ids'), 26, 1);
COMMIT;
INSERT INTO ev(id, k, v) SELECT -(random() * 3000)::int, 3, 3 FROM generate_series(1, 5) ON CONFLICT (id) DO NOTHING;
BEGIN;
INSERT INTO ev(id, k, v) VALUES (nextval('ids'), 4, 100000);
INSERT INTO parts(id, k, v) VALUES (nextval('ids'), 4, 100000);
ROLLBACK;
BEGIN;
LOCK TABLE parts IN ACCESS SHARE MODE;
INSERT INTO parts_2(id, k, v) VALUES (nextval('ids'), 30, 30);
COMMIT;
SELECT pg_advisory_unlock_shared(7);
SELECT pg_sleep(random() * 0.01);
SQL
my $script = "$ENV{TESTDIR}/writer.sql";
append_to_file($script, $turn x 100);
my @writers;
my $writer_errors = '';

sub start_writers
{
	for (1 .. 3)
	{
		my $writer = {};
		$writer->{out} = '';
		$writer->{run} = IPC::Run::start(
			[ 'bash', '-c', 'while psql -XAtq -d "$0" -f "$1" >/dev/null; do :; done', $node->connstr('app'), $script ],
			'<', '/dev/null', '>', \$writer->{out}, '2>&1');
		push @writers, $writer;
	}
	return;
}

# the loops first
sub stop_writers
{
	for my $writer (@writers)
	{
		$writer->{run}->pump_nb;
		$writer->{run}->kill_kill(grace => 1);
		$writer_errors .= $writer->{out};
	}
	$node->psql('postgres', "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
		WHERE datname = 'app' AND backend_type = 'client backend' AND query LIKE '%pg_advisory_unlock_shared%'");
	@writers = ();
	return;
}

# ---- commands and the oracle ----

my $session = background($node, 'app');

sub query
{
	return statement($session, shift);
}

# The differences of all views, "" when there are none.
my $differences = join "\nUNION ALL\n", map {
	my ($stream, $query) = @{ $views{$_} };
	my $by_hand = sprintf($query =~ s/% (\d)/%% $1/r, $ledger{$stream});
	"SELECT '$_', count(*), min(d::text) FROM ((TABLE $_ EXCEPT ALL ($by_hand)) UNION ALL (($by_hand) EXCEPT ALL TABLE $_)) d HAVING count(*) > 0"
} sort keys %views;

# All views are exact.
sub exact
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	query('SELECT pg_advisory_lock(7)');
	my $waited = query("SELECT streamext.wait_for(NULL, '30s')");
	my $equal = is("$waited " . query($differences), 't ', "$name: all views are exact");
	diag(query('SELECT view, state, reason FROM streamext.status')) unless $equal;
	query('SELECT pg_advisory_unlock(7)');
	return;
}

# What a command answers, within its time.
sub command
{
	my ($name, $sql) = @_;
	my ($answer, $before, $after);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$before = query('SELECT last_value FROM ids');
	my $seconds = elapsed(sub { $answer = query($sql) });
	$after = query('SELECT last_value FROM ids');
	note(sprintf('%s: %.2f s, %d rows meanwhile', $name, $seconds, $after - $before));
	cmp_ok($seconds, '<', LONGEST, "$name: in time");
	return $answer;
}

sub done
{
	my ($name, $sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike(command($name, $sql), qr/ERROR/, "$name: done");
	exact($name);
	return;
}

sub refused
{
	my ($name, $sql, $message) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like(command($name, $sql), qr/ERROR:  $message.*HINT/s, "$name: refused, with a hint");
	query('ROLLBACK');
	exact($name);
	return;
}

query("SET client_min_messages = error; SET statement_timeout = '60s'");
is(query("SELECT streamext.wait_for(NULL, '60s')"), 't', 'live');
start_writers();
ok(query_until($node, 'app', 'SELECT count(*) > 100 FROM ledger_parts', 't', 30), 'the writers write');

my $add_random = 'ADD COLUMN r float DEFAULT random()';
for my $table ('ev', 'parts')
{
	my $leaf = $table eq 'ev' ? 'ev' : 'parts_2';
	my $other = $table eq 'ev' ? 'ev' : 'parts_3';

	subtest "$table: commands that keep or rewrite the rows" => sub {
		done("VACUUM FULL $leaf", "VACUUM (FULL) $leaf");
		query("CREATE INDEX ${leaf}_k ON $leaf (k)");
		done("CLUSTER $leaf", "CLUSTER $leaf USING ${leaf}_k");
		done('ALTER COLUMN TYPE', "ALTER TABLE $table ALTER COLUMN spare TYPE bigint");
		done('ADD COLUMN, volatile', "ALTER TABLE $table $add_random");
		done('ADD COLUMN, constant', "ALTER TABLE $table ADD COLUMN c int DEFAULT 7");
		done('DROP COLUMN', "ALTER TABLE $table DROP COLUMN c, DROP COLUMN r");
		done('SET TABLESPACE', "ALTER TABLE $leaf SET TABLESPACE other_space");
		done('SET TABLESPACE back', "ALTER TABLE $leaf SET TABLESPACE pg_default");
		done('SET LOGGED', "ALTER TABLE $leaf SET LOGGED");
		refused('SET UNLOGGED', "ALTER TABLE $leaf SET UNLOGGED", 'cannot run ALTER TABLE ... SET UNLOGGED');
		done('CREATE INDEX CONCURRENTLY', "CREATE INDEX CONCURRENTLY ${leaf}_v ON $leaf (v)");
		query("DROP INDEX ${leaf}_v");
	};

	subtest "$table: rolled back" => sub {
		for my $command (
			"ALTER TABLE $table ALTER COLUMN spare TYPE numeric",
			"ALTER TABLE $table $add_random",
			"CLUSTER $leaf USING ${leaf}_k",
			"ALTER TABLE $leaf SET TABLESPACE other_space",
			"TRUNCATE $table",
			$table eq 'ev' ? () : ("ALTER TABLE parts DETACH PARTITION parts_4", "DROP TABLE parts_4"))
		{
			done("rolled back: $command", "BEGIN; $command; INSERT INTO $table(k, v) VALUES (5, 5); ROLLBACK");
			done("savepoint: $command", "BEGIN; SAVEPOINT a; $command; INSERT INTO $table(k, v) VALUES (5, 5); ROLLBACK TO a; INSERT INTO $table(k, v) VALUES (6, 6); COMMIT");
		}
	};

	subtest "$table: rows that go" => sub {
		done('TRUNCATE', "TRUNCATE $table");
		done('TRUNCATE and reload', "BEGIN; TRUNCATE $table; COPY $table(id, k, v) FROM '$old_file'; COMMIT");
		done('COPY FREEZE', "BEGIN; TRUNCATE $other; COPY $other(id, k, v) FROM '$frozen_file' WITH (FREEZE); COMMIT");
		# what a transaction inserts and removes itself does not count
		done('TRUNCATE twice', "BEGIN; TRUNCATE $table; INSERT INTO $table(k, v) VALUES (7, 7777); TRUNCATE $table;
			COPY $table(id, k, v) FROM '$old_file'; DELETE FROM ledger_$table WHERE v = 7777; COMMIT");
		done('rewrite, then TRUNCATE', "BEGIN; ALTER TABLE $table $add_random; TRUNCATE $table; INSERT INTO $table(k, v) VALUES (8, 8); COMMIT; ALTER TABLE $table DROP COLUMN r");
		refused('own rows, then a rewrite', "BEGIN; INSERT INTO $table(k, v) VALUES (9, 9); ALTER TABLE $table $add_random", 'cannot run ALTER TABLE');
	};
}


# counted rows that come back are not counted again, others are, once
my $attach_4 = 'ALTER TABLE parts ATTACH PARTITION parts_4 FOR VALUES FROM (60) TO (80)';
subtest 'partitions' => sub {
	done('DETACH', 'ALTER TABLE parts DETACH PARTITION parts_4');
	query('INSERT INTO parts_4(k, v) SELECT 61, 4242 FROM generate_series(1, 100)');
	done('ATTACH', "BEGIN; INSERT INTO ledger_parts SELECT id, k, v FROM parts_4 WHERE v = 4242; $attach_4; COMMIT");
	refused('DETACH CONCURRENTLY', 'ALTER TABLE parts DETACH PARTITION parts_4 CONCURRENTLY', 'cannot detach a partition of a stream concurrently');
	done('DETACH and ATTACH', "BEGIN; ALTER TABLE parts DETACH PARTITION parts_4; $attach_4; COMMIT");
	done('DETACH, TRUNCATE, ATTACH', "BEGIN; ALTER TABLE parts DETACH PARTITION parts_4; TRUNCATE parts_4; $attach_4;
		INSERT INTO parts(k, v) VALUES (62, 62); COMMIT");
	done('DETACH, VACUUM FULL, ATTACH', "ALTER TABLE parts DETACH PARTITION parts_4; VACUUM (FULL) parts_4; $attach_4");
	done('CREATE', "CREATE TABLE parts_5 PARTITION OF parts FOR VALUES FROM (80) TO (100);
		INSERT INTO parts(k, v) SELECT i, i FROM generate_series(80, 99) i");
	done('DROP', 'DROP TABLE parts_5');
	# what it contains then counts, however that came about
	done('a loaded table', "CREATE TABLE parts_5 (LIKE parts); INSERT INTO parts_5(k, v) SELECT 81, i FROM generate_series(1, 50) i;
		ALTER TABLE parts ATTACH PARTITION parts_5 FOR VALUES FROM (80) TO (100)" =~ s/(?=ALTER)/INSERT INTO ledger_parts SELECT id, k, v FROM parts_5;\n/r);
	query('DROP TABLE parts_5');
	done('a loaded and corrected table', "CREATE TABLE parts_5 (LIKE parts); COPY parts_5(id, k, v) FROM '$frozen_file';
		BEGIN; DELETE FROM parts_5 WHERE v > 400; UPDATE parts_5 SET k = 85 WHERE v > 5;
		COPY parts_5(id, k, v) FROM '$frozen_file'; SAVEPOINT a; UPDATE parts_5 SET k = 86 WHERE k = 45; DELETE FROM parts_5 WHERE v = 100;
		RELEASE a; SAVEPOINT b; INSERT INTO parts_5(k, v) VALUES (87, 1); DELETE FROM parts_5 WHERE v = 200; ROLLBACK TO b;
		INSERT INTO parts_5(k, v) VALUES (87, 2); UPDATE parts_5 SET v = 3 WHERE k = 87;
		INSERT INTO ledger_parts SELECT id, k, v FROM parts_5;
		ALTER TABLE parts ATTACH PARTITION parts_5 FOR VALUES FROM (80) TO (100); SAVEPOINT c; INSERT INTO parts(k, v) VALUES (99, 99); COMMIT");
	done('DROP and CREATE', "BEGIN; DROP TABLE parts_5; CREATE TABLE parts_5 PARTITION OF parts FOR VALUES FROM (80) TO (100);
		INSERT INTO parts(k, v) VALUES (98, 98); COMMIT");
	done('rewritten, then detached', "ALTER TABLE parts $add_random; ALTER TABLE parts DETACH PARTITION parts_5;
		ALTER TABLE parts DROP COLUMN r;
		ALTER TABLE parts_5 DROP COLUMN r; ALTER TABLE parts ATTACH PARTITION parts_5 FOR VALUES FROM (80) TO (100)");
};

# Without a pause for the writers in between, and both tables at once.
subtest 'many commands' => sub {
	my $second = background($node, 'app');
	statement($second, "SET client_min_messages = error; SET statement_timeout = '60s'");
	my @on_ev = (
		'VACUUM (FULL) ev', 'CLUSTER ev USING ev_k', "ALTER TABLE ev $add_random; ALTER TABLE ev DROP COLUMN r",
		'ALTER TABLE ev ALTER COLUMN spare TYPE numeric; ALTER TABLE ev ALTER COLUMN spare TYPE int',
		'ALTER TABLE ev SET TABLESPACE other_space; ALTER TABLE ev SET TABLESPACE pg_default', 'TRUNCATE ev',
		"BEGIN; TRUNCATE ev; COPY ev(id, k, v) FROM '$old_file'; COMMIT",
		"BEGIN; ALTER TABLE ev $add_random; INSERT INTO ev(k, v) VALUES (5, 5); ROLLBACK",
		"BEGIN; SAVEPOINT a; TRUNCATE ev; ROLLBACK TO a; INSERT INTO ev(k, v) VALUES (6, 6); COMMIT");
	my @on_parts = (
		'VACUUM (FULL) parts', "ALTER TABLE parts DETACH PARTITION parts_4; INSERT INTO parts(k, v) VALUES (1, 1); $attach_4",
		"ALTER TABLE parts $add_random; ALTER TABLE parts DROP COLUMN r", 'TRUNCATE parts', 'TRUNCATE parts_2', 'VACUUM (FULL) parts_2',
		'DROP TABLE parts_5; CREATE TABLE parts_5 PARTITION OF parts FOR VALUES FROM (80) TO (100); INSERT INTO parts(k, v) VALUES (80, 80)',
		"BEGIN; ALTER TABLE parts DETACH PARTITION parts_4; TRUNCATE parts_4; $attach_4; COMMIT",
		"BEGIN; TRUNCATE parts_3; COPY parts_3(id, k, v) FROM '$frozen_file' WITH (FREEZE); COMMIT");
	seed();
	my ($answers, $rounds) = ('', 6);
	my $seconds = elapsed(sub {
		for my $round (1 .. $rounds)
		{
			statement($second, join(";\n", map { $on_parts[ pick(scalar @on_parts) ] } 1 .. 8), 1);
			$answers .= query(join(";\n", map { $on_ev[ pick(scalar @on_ev) ] } 1 .. 8));
			$answers .= statement($second);
			exact("round $round");
		}
	});
	note(sprintf('%d commands in %.2f s', $rounds * 16, $seconds));
	unlike($answers, qr/ERROR/, 'all were done');
	statement($second, '\q', 1);
};

# A view that begins now contains each row that is there, and no row twice.  It does not begin while a
# transaction is open that may have written; who wants a lock then does not wait for it.
subtest 'views that are being built' => sub {
	my $open = background($node, 'app');
	my $n = 0;
	for my $writes (0, 1)
	{
		for my $case (
			[ 'DETACH', 'ALTER TABLE parts DETACH PARTITION parts_4', $attach_4 ],
			[ 'DROP', 'DROP TABLE parts_5', 'CREATE TABLE parts_5 PARTITION OF parts FOR VALUES FROM (80) TO (100)' ],
			[ 'TRUNCATE', 'TRUNCATE parts_3' ],
			[ 'VACUUM FULL', 'VACUUM (FULL) parts_3' ],
			[ 'CLUSTER', 'CLUSTER parts_2' ],
			$writes ? () : [ 'rewrite', 'ALTER TABLE parts ALTER COLUMN spare TYPE numeric' ])
		{
			my ($name, $command, $undo) = @$case;
			$n++;
			$name .= ' beside an open transaction' if $writes;
			statement($open, 'BEGIN; INSERT INTO names VALUES (1000); LOCK TABLE parts_1 IN ROW EXCLUSIVE MODE') if $writes;
			my $answer = command($name, "CREATE MATERIALIZED VIEW fresh_$n WITH (streamext.continuous) AS SELECT id, k, v FROM parts; $command");
			unlike($answer, qr/ERROR/, "$name: done");
			statement($open, 'ROLLBACK') if $writes;
			exact($name);
			query('SELECT pg_advisory_lock(7)');
			query("SELECT streamext.wait_for('fresh_$n', '30s')");
			is(query("SELECT (SELECT count(*) FROM (SELECT id, k, v FROM parts EXCEPT ALL TABLE fresh_$n) x),
				(SELECT count(*) FROM (TABLE fresh_$n EXCEPT ALL TABLE ledger_parts) x)"), '0|0', "$name: the new view has what is there");
			query('SELECT pg_advisory_unlock(7)');
			query($undo) if defined $undo;
		}
	}

	# a view waits for a writer, who is not to wait for whoever waits for the view
	for my $case ([ 'DETACH', 'ALTER TABLE parts DETACH PARTITION parts_4', $attach_4 ],
		[ 'DROP', 'DROP TABLE parts_5', 'CREATE TABLE parts_5 PARTITION OF parts FOR VALUES FROM (80) TO (100)' ])
	{
		my ($name, $command, $undo) = @$case;
		$n++;
		statement($open, 'BEGIN; INSERT INTO names VALUES (1000); LOCK TABLE parts_1 IN ROW EXCLUSIVE MODE');
		query("CREATE MATERIALIZED VIEW fresh_$n WITH (streamext.continuous) AS SELECT id, k, v FROM parts WITH NO DATA");
		ok(query_until($node, 'app', "SELECT reason LIKE 'waits for open transaction%' FROM streamext.status WHERE view = 'fresh_$n'::regclass", 't', 30),
			"$name: a view waits for a writer");
		statement($session, $command, 1);
		ok(query_until($node, 'app', "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '$command%' AND wait_event_type = 'Extension'", 't', 30),
			"$name: the command waits for the view");
		is(statement($open, 'INSERT INTO parts(k, v) VALUES (5, 5); ROLLBACK'), '', "$name: the writer goes on");
		is(statement($session), '', "$name: done");
		exact($name);
		query($undo);
	}
	query(join '; ', map { "DROP MATERIALIZED VIEW fresh_$_" } 1 .. $n);
	statement($open, '\q', 1);
};

# A transaction that has read the table and then writes to it is in the way of the command, and the command
# in its way; one that only reads keeps the command waiting, but not the writers.
subtest 'readers' => sub {
	my $reader = background($node, 'app');
	for my $test (
		[ 'ev', 'TRUNCATE ev' ],
		[ 'ev', "ALTER TABLE ev $add_random", 'ALTER TABLE ev DROP COLUMN r' ],
		[ 'parts', 'TRUNCATE parts_4' ],
		[ 'parts', 'ALTER TABLE parts DETACH PARTITION parts_4', $attach_4 ],
		[ 'parts', 'DROP TABLE parts_5', 'CREATE TABLE parts_5 PARTITION OF parts FOR VALUES FROM (80) TO (100)' ])
	{
		my ($table, $command) = @$test;
		my $busy = "SELECT count(*) > 0 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE query LIKE '$command%' AND mode ~ 'Exclusive' AND locktype = 'relation'";
		statement($reader, "BEGIN; SELECT count(*) FROM $table");
		statement($session, $command, 1);
		ok(query_until($node, 'app', $busy, 't', 30), "$command: has begun");
		is(statement($reader, "INSERT INTO $table(k, v) VALUES (3, 3); COMMIT"), '', "$command: the writer has no error");
		is(statement($session), '', "$command: done");
		exact($command);

		next unless $command =~ /TRUNCATE/;
		statement($reader, "BEGIN; SELECT count(*) FROM $table");
		statement($session, $command, 1);
		ok(query_until($node, 'app', $busy, 't', 30), "$command: has begun");
		my $now = $node->safe_psql('app', 'SELECT last_value FROM ids');
		ok(query_until($node, 'app', "SELECT last_value > $now + 1000 FROM ids", 't', 30), "$command: writers go on while it waits");
		statement($reader, 'COMMIT');
		is(statement($session), '', "$command: done");
		exact("$command after a reader");
	}
	continue
	{
		query($test->[2]) if $test->[2];
	}
	statement($reader, '\q', 1);
};

# who waits for it is refused at once, and keeps nobody waiting
subtest 'a paused view' => sub {
	query("SELECT streamext.pause('by_key'), streamext.pause('by_part')");
	for my $command ('TRUNCATE ev', "ALTER TABLE ev $add_random", 'ALTER TABLE parts DETACH PARTITION parts_4', 'DROP TABLE parts_4', 'TRUNCATE parts_3')
	{
		my $answer = command($command, $command);
		like($answer, qr/ERROR:  cannot run .*is paused.*HINT/s, "$command: refused, with a hint");
	}
	unlike(command('VACUUM FULL', 'VACUUM (FULL) ev; VACUUM (FULL) parts_2'), qr/ERROR/, 'VACUUM FULL: done');
	query("SELECT streamext.resume('by_key'), streamext.resume('by_part')");
	exact('resumed');
};

# Views on a stream that is locked wait; the others do not.
subtest 'a locked stream with a new file' => sub {
	my $locker = background($node, 'app');
	my ($consumer) = worker_pids($node, 'consumer', 'app');
	for my $command ('VACUUM (FULL) ev', "TRUNCATE ev; COPY ev(id, k, v) FROM '$old_file'", "ALTER TABLE ev $add_random; ALTER TABLE ev DROP COLUMN r")
	{
		query('SELECT pg_advisory_lock(7)');
		unlike(statement($locker, "BEGIN; LOCK TABLE names IN ROW EXCLUSIVE MODE; COMMIT; $command; BEGIN; LOCK TABLE ev IN ACCESS EXCLUSIVE MODE; INSERT INTO ev(k, v) VALUES (9, 9)"),
			qr/ERROR/, "$command, and a lock");
		query('INSERT INTO parts(id, k, v) SELECT nextval(\'ids\'), i, i FROM generate_series(0, 59) i');
		is(query("SELECT streamext.wait_for(v, '20s') FROM unnest('{by_part,part_rows,second}'::regclass[]) v"), "t\nt\nt",
			"$command: views on other streams go on");
		query('SELECT pg_advisory_unlock(7)');
		statement($locker, 'COMMIT');
		exact($command);
	}
	statement($locker, '\q', 1);
};

# The server crashes, or is stopped, as soon as the command is done.
subtest 'crashes' => sub {
	for my $case (
		[ 'VACUUM FULL', 'VACUUM (FULL) ev' ],
		[ 'rewrite', "ALTER TABLE ev $add_random" ],
		[ 'another', "ALTER TABLE ev DROP COLUMN r, ALTER COLUMN spare TYPE numeric;\nALTER TABLE parts ALTER COLUMN spare TYPE numeric" ],
		[ 'TRUNCATE and reload', "BEGIN;\nTRUNCATE parts;\nCOPY parts(id, k, v) FROM '$old_file';\nCOMMIT" ],
		[ 'DETACH and ATTACH', "ALTER TABLE parts DETACH PARTITION parts_4;\n$attach_4" ],
		[ 'CLUSTER', 'CLUSTER ev USING ev_k' ],
		[ 'SET TABLESPACE', 'ALTER TABLE parts_2 SET TABLESPACE other_space' ],
		[ 'COPY FREEZE', "BEGIN;\nTRUNCATE parts_3;\nCOPY parts_3(id, k, v) FROM '$frozen_file' WITH (FREEZE);\nCOMMIT" ],
		[ 'DROP', 'DROP TABLE parts_4' ],
		[ 'stopped', "VACUUM (FULL) parts;\nALTER TABLE ev ALTER COLUMN spare TYPE int" ])
	{
		my ($name, $command) = @$case;
		my ($consumer) = worker_pids($node, 'consumer', 'app');
		my $from = log_position($node);
		if ($name eq 'stopped')
		{
			query($command);
			$node->stop('immediate');
			$node->start;
		}
		else
		{
			my $out = '';
			IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('app') ], '<', \"$command;\n\\! kill -9 $consumer\n", '>', \$out, '2>&1');
			unlike($out, qr/ERROR/, "$name: done");
			ok(up_again($node, $from), "$name: the server crashed, and is up");
		}
		stop_writers();
		$session = background($node, 'app');
		query("SET client_min_messages = error; SET statement_timeout = '60s'");
		exact($name);
		start_writers();
	}
	exact('afterwards');
};

is(query("SELECT count(*) FROM streamext.view_stop"), '0', 'no view was stopped');
stop_writers();
$writer_errors =~ s/^.*(?:no partition of relation "parts" found|Partition key of the failing row|CONTEXT:  COPY parts|terminat|crash|shut|connection|The postmaster|corrupted shared|before or while|In a moment|another server).*\n//mg;
is($writer_errors, '', 'no writer saw an error');
$node->stop;
done_testing();
