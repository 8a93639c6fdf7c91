# I6: a view that fails, is slow or hangs, or a lock that is held, never stops or slows the others.
#
# Healthy views stand beside views whose functions raise, take long, or never return, in every place
# where a view's code runs.  What is asserted is that the others go on and stay exact, that the status
# says what is wrong, and that everything is exact when the trouble is over.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $node = new_node('isolation');
new_database($node, 'app');
my $own = 'follows in a process of its own';

sub sql
{
	return $node->safe_psql('app', shift);
}

# the healthy views see what is committed now, and are right
sub healthy
{
	my ($name) = @_;
	sql("INSERT INTO ev (k, v) SELECT i % 7, i FROM generate_series(1, 50) i");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	oracle($node, 'app', $_, $name) foreach qw(good_1 good_2);
	is(sql("SELECT string_agg(state, ' ' ORDER BY view::text) FROM streamext.status WHERE view::text LIKE 'good%'"),
		'live live', "$name: the healthy views are live");
	return;
}

sub reason
{
	my ($view, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(query_until($node, 'app',
			"SELECT reason LIKE '%$pattern%' FROM streamext.status WHERE view = '$view'::regclass", 't', 60), $name);
}

# a hanging function is to be seen at work
sub at_work
{
	my ($view) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return reason($view, "$own; at work on", "$view: the status says what its process is at");
}

sub view
{
	my ($name, $query, $no_data) = @_;
	return sql("CREATE MATERIALIZED VIEW $name WITH (streamext.continuous) AS $query" . ($no_data ? ' WITH NO DATA' : ''));
}

sql(<<'SQL');
CREATE TABLE ev (id bigserial, k int, v int);
CREATE TABLE other (k int, v int);
CREATE TABLE names (k int PRIMARY KEY, name text);
INSERT INTO names SELECT i, 'n' || i FROM generate_series(0, 6) i;
-- rows with these values of v make a function hang, and end
CREATE FUNCTION hangs(v bigint) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN WHILE v = -1 LOOP END LOOP; RETURN true; END $$;
CREATE FUNCTION sleeps(v bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN WHILE v = -2 LOOP PERFORM pg_sleep(1000); END LOOP; RETURN v; END $$;
CREATE FUNCTION catches(v int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	LOOP
		BEGIN
			WHILE v = -3 LOOP END LOOP;
			RETURN true;
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
END $$;
CREATE FUNCTION slow(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE since timestamptz := clock_timestamp();
BEGIN
	WHILE clock_timestamp() < since + interval '10 ms' LOOP END LOOP;
	RETURN v;
END $$;
SQL
view('good_1', 'SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k');
view('good_2', 'SELECT id, v FROM ev WHERE v % 2 = 0');
healthy('alone');

# ---- every row fails, every row is slow ----
view('fails', 'SELECT k, sum(1 / (v - v)) AS n FROM ev WHERE v > 0 GROUP BY k');
view('slow', 'SELECT k, sum(slow(v)) AS s FROM ev GROUP BY k');
is(sql("SELECT streamext.wait_for('fails', '60s')"), 't', 'a view that fails on every row is brought up');
healthy('beside views that fail and are slow');
# the back-off grows: one of these attempts meets the view in a process of its own
sql("INSERT INTO ev (k, v) SELECT 1, i FROM generate_series(1, 100) i");
reason('slow', $own, 'the status says that the view is slow');
healthy('while a view is slow');
ok(query_until($node, 'app', "SELECT streamext.wait_for('slow', '1s')", 't', 120), 'a slow view can be waited for');
oracle($node, 'app', 'slow', 'slow');
sql("SELECT streamext.flush('slow')");
is(sql("SELECT count(*) = (SELECT count(*) FROM ev WHERE v > 0) FROM streamext.dead_letters
		WHERE view = 'fails'::regclass AND (SELECT streamext.wait_for('fails', '60s')) AND (SELECT true FROM streamext.flush('fails'))"),
	't', 'each row that fails is a dead letter, once');
sql('DROP MATERIALIZED VIEW slow');
sql('DROP MATERIALIZED VIEW fails');

# ---- functions that never return, in each place where the consumer runs them ----
view('hang_where', 'SELECT k, count(*) AS n FROM ev WHERE hangs(v) GROUP BY k');
view('hang_argument', 'SELECT k, sum(sleeps(v)) AS s FROM ev GROUP BY k');
view('hang_having', 'SELECT k, min(v) AS m FROM ev GROUP BY k HAVING hangs(min(v))');
ok(query_until($node, 'app', 'SELECT streamext.wait_for(timeout => $$1s$$)', 't', 60), 'all are brought up');
sql('INSERT INTO ev (k, v) VALUES (1, -1)');
at_work('hang_where');
healthy('while a WHERE hangs');
sql('INSERT INTO ev (k, v) VALUES (2, -2)');
at_work('hang_argument');
healthy('while an argument sleeps');
is(sql("SELECT streamext.wait_for('hang_having')"), 't', 'a HAVING that hangs is its reader');
my ($out, $err) = ('', '');
$node->psql('app', "SET statement_timeout = '500ms'; TABLE hang_having", stdout => \$out, stderr => \$err);
like($err, qr/statement timeout/, 'who reads it can cancel');
is(sql("SELECT streamext.wait_for('hang_where', '100ms')"), 'f', 'a view that hangs is not waited for longer than asked');

# pause and resume, and DROP, reach a process that hangs
sql("SELECT streamext.pause('hang_where')");
ok(query_until($node, 'app', "SELECT state FROM streamext.status WHERE view = 'hang_where'::regclass", 'paused', 30),
	'a view that hangs can be paused');
healthy('while it is paused');
sql("SELECT streamext.resume('hang_where')");
at_work('hang_where');
sql("DROP MATERIALIZED VIEW $_") foreach qw(hang_where hang_argument hang_having);
is(join(' ', worker_pids($node, 'builder')), '', 'a view that hangs can be dropped');

# ---- one that will not end when it is canceled costs the consumer, once ----
view('catches', 'SELECT k, count(*) AS n FROM ev WHERE catches(v) GROUP BY k', 1);
is(sql("SELECT streamext.wait_for('catches', '60s')"), 't', 'it is brought up');
sql('INSERT INTO other VALUES (1, 1)');
my ($consumer) = worker_pids($node, 'consumer', 'app');
sql('INSERT INTO ev (k, v) VALUES (3, -3)');
reason('catches', $own, 'a function that catches the cancel');
at_work('catches');
is(sql("SELECT streamext.wait_for('good_1', '60s')"), 't', 'the others are back');
healthy('while a function does not want to end');
my ($second) = worker_pids($node, 'consumer', 'app');
isnt($second, $consumer, 'the consumer had to end with it');
healthy('still');
is(join(' ', worker_pids($node, 'consumer', 'app')), $second, 'but only once');
sql('DROP MATERIALIZED VIEW catches');

# ---- more views hang than there are places: a new one finds its own ----
view("hang_$_", "SELECT k, count(*) AS n FROM ev WHERE hangs(v) GROUP BY k", 1) foreach 1 .. 6;
ok(query_until($node, 'app', 'SELECT streamext.wait_for(timeout => $$1s$$)', 't', 60), 'six more are brought up');
sql('INSERT INTO ev (k, v) VALUES (1, -1)');
reason("hang_$_", $own, "hang_$_ is slow") foreach 1 .. 6;
view('fresh', 'SELECT k, count(*) AS n FROM other GROUP BY k');
is(sql("SELECT streamext.wait_for('fresh', '60s')"), 't', 'a new view is built while others hang');
healthy('while six views hang');
ok(query_until($node, 'app', "SELECT count(*) > 0 FROM streamext.status WHERE reason LIKE '%waits for its turn'", 't', 60),
	'who has no place says so');

# stopped processes: nobody else waits, and nothing is lost
foreach my $kind (qw(builder flusher consumer))
{
	my ($pid) = worker_pids($node, $kind, 'app');
	kill 'STOP', $pid;
	sql("INSERT INTO ev (k, v) VALUES (4, 4)");
	ok(defined sql('SELECT count(*) FROM good_1'), "$kind stopped: readers and writers go on");
	oracle($node, 'app', 'good_1', "$kind stopped") if $kind ne 'consumer';
	kill 'CONT', $pid;
	healthy("$kind goes on");
}
sql("DROP MATERIALIZED VIEW hang_$_") foreach 1 .. 6;

# ---- writing a materialized table ----
view('written', 'SELECT k, count(*) AS n, min(v) AS m FROM other GROUP BY k');
is(sql("SELECT streamext.wait_for('written', '60s')"), 't', 'another view is brought up');
my $mat = sql("SELECT mat FROM streamext.view_def WHERE view = 'written'::regclass");
sql("CREATE INDEX trap ON $mat (hangs(m))");
sql('INSERT INTO other (k, v) VALUES (1, -1)');
at_work('written');
healthy('while an index of another table hangs');
sql("SELECT streamext.flush('good_1')");
sql('DROP INDEX streamext.trap');
oracle($node, 'app', 'written', 'without the index');

# a lock on a materialized table, and on a lookup table
view('named', 'SELECT n.name, count(*) AS n FROM other o JOIN names n USING (k) GROUP BY n.name');
is(sql("SELECT streamext.wait_for('named', '60s')"), 't', 'a view with a lookup is brought up');
my $locker = background($node, 'app');
statement($locker, "BEGIN; LOCK TABLE $mat IN SHARE MODE; LOCK TABLE names");
sql('INSERT INTO other SELECT i % 7, i FROM generate_series(1, 100) i');
reason('written', 'lock', 'the status says that the table is locked');
reason('named', 'lock', 'the status says that the lookup is locked');
healthy('while two tables are locked');
sql("SELECT streamext.flush('good_1')");
statement($locker, 'COMMIT');
oracle($node, 'app', $_, 'when the locks are gone') foreach qw(written named);

# a trigger on the stream that hangs is its writer's
sql('CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1000); RETURN new; END $$');
sql('CREATE TRIGGER stuck BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION stuck()');
statement($locker, 'INSERT INTO other VALUES (1, 1)', 1);
ok(query_until($node, 'app', "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'", '1', 30), 'a writer hangs');
healthy('while a writer hangs');
sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
sql('DROP TRIGGER stuck ON other');
oracle($node, 'app', $_, 'after that') foreach qw(written named);

# ---- DROP DATABASE does not wait for what hangs ----
view('last', 'SELECT k, count(*) AS n FROM ev WHERE hangs(v) GROUP BY k', 1);
sql("INSERT INTO ev (k, v) VALUES (1, -1)");
ok(query_until($node, 'app', "SELECT count(*) > 0 FROM streamext.status WHERE reason LIKE '%at work on%'", 't', 60),
	'something hangs');
$node->safe_psql('postgres', 'DROP DATABASE app');
no_orphans($node, 'nothing is left of the database');
$node->stop;
done_testing();
