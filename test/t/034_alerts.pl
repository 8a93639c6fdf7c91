# Alerts: exactly one NOTIFY and one row per group, whatever dies; a condition in trouble disturbs nobody.
#
# The oracle of a monotone condition: the groups of the raw rows that satisfy it now are those reported.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;
use Time::HiRes qw(sleep time);

seed(7);
allow_in_log('terminated by signal 9: Killed');
my $node = new_node('alerts', settings => "streamext.flush_interval = '100ms'\nfsync = off\n");
new_database($node, 'app');

sub sql
{
	return $node->safe_psql('app', shift);
}

sub until_true
{
	my ($query, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(query_until($node, 'app', $query, 't', 60), $name);
}

sql(<<'SQL');
CREATE TABLE tx (card int NOT NULL, at timestamptz NOT NULL, amount int NOT NULL);
CREATE MATERIALIZED VIEW card_minute WITH (streamext.continuous) AS
SELECT card, streamext.tumble(at, '1 minute') AS minute, count(*) AS n, sum(amount) AS amount
FROM tx GROUP BY card, streamext.tumble(at, '1 minute');
CREATE TABLE ev (k int, v int);
CREATE MATERIALIZED VIEW other WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
INSERT INTO tx SELECT 1, '2026-03-01 12:00:00+00', 1 FROM generate_series(1, 20);
SELECT streamext.create_alert('fraud', 'card_minute', 'n > 10 OR amount > 1000', 'fraud');
SQL

# ---- the payload, once per group and window, in the order of the rows; how long it takes ----
my $listener = background($node, 'app');
statement($listener, 'LISTEN fraud');

# what was heard since the last call, once $count notifications have come (a statement asks for them)
sub heard
{
	my ($count) = @_;
	my @heard;
	wait_until("$count notifications", 30, sub {
		push @heard, statement($listener, 'SELECT 1') =~ /with payload "(.*)" received/g;
		return @heard >= $count;
	});
	return @heard;
}

# by the server's clock, from when the client knew of the commit: that may be later than the report
my @latency;
for my $i (1 .. 20)
{
	my $card = 100 + $i;
	my $committed = sql("INSERT INTO tx SELECT $card, '2026-03-01 12:00:00+00', 100 FROM generate_series(1, 11); SELECT extract(epoch FROM clock_timestamp())");
	query_until($node, 'app', "SELECT count(*) FROM streamext.alerts WHERE \"group\" ->> 'card' = '$card'", '1', 30);
	push @latency, sql("SELECT extract(epoch FROM at) - $committed FROM streamext.alerts WHERE \"group\" ->> 'card' = '$card'");
}
@latency = sort { $a <=> $b } @latency;
note(sprintf('from the commit to the report: median %.1f ms, worst %.1f ms', 1000 * $latency[9], 1000 * $latency[-1]));
my @payloads = heard(20);
is(scalar(@payloads), 20, 'each was heard');
is(scalar(grep { /^\{"id": \d+, "alert": "fraud", "view": "public.card_minute", "at": "[^"]+", "row": \{"card":1\d\d,"minute":"2026-03-01T12:00:00\+00:00","n":11,"amount":1100\}\}$/ } @payloads),
	20, 'with the row');
sql("INSERT INTO tx SELECT 101, '2026-03-01 12:00:00+00', 1; INSERT INTO tx SELECT 101, '2026-03-01 12:01:00+00', 1001");
@payloads = heard(1);
is(join(' ', map { /"minute":"([^"]*)"/ } @payloads), '2026-03-01T12:01:00+00:00', 'another window of the same card, and only that');

# a row that is too long for a notification: the keys alone; keys that are too long: by the id
sql(<<'SQL');
CREATE TABLE notes (k text, note text);
CREATE MATERIALIZED VIEW long WITH (streamext.continuous) AS SELECT k, max(note) AS note, count(*) AS n FROM notes GROUP BY k;
SELECT streamext.create_alert('long', 'long', 'n > 1', 'fraud');
INSERT INTO notes SELECT 'short', repeat('x', 9000) FROM generate_series(1, 2);
SQL
@payloads = heard(1);
is(scalar(grep { /"group": \{"k":"short"\}\}$/ } @payloads), 1, 'a long row is left out, its keys are not');
sql("INSERT INTO notes SELECT repeat('\"', 2500) || repeat(chr(1), 200), 'y' FROM generate_series(1, 2)");
until_true("SELECT count(*) = 2 FROM streamext.alerts WHERE alert = 'long'", 'long keys are reported');
is(sql("SELECT length(\"row\" ->> 'note') FROM streamext.alerts WHERE alert = 'long' ORDER BY id LIMIT 1"), '9000', 'the whole row is stored');
is(scalar(heard(1)), 1, 'and heard');
sql('DROP MATERIALIZED VIEW long');

# ---- the oracle ----
my $oracle = <<'SQL';
SELECT card, streamext.tumble(at, '1 minute') FROM tx WHERE card <> 1
GROUP BY 1, 2 HAVING count(*) > 10 OR sum(amount) > 1000
SQL
my $reported = <<'SQL';
SELECT ("group" ->> 'card')::int, ("group" ->> 'minute')::timestamptz FROM streamext.alerts WHERE alert = 'fraud'
SQL

sub exact
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	until_true("SELECT count(*) = 0 FROM (($oracle) EXCEPT ($reported)) d", "$name: nothing is missed");
	is(sql("SELECT count(*) FROM (($reported) EXCEPT ALL ($oracle)) d"), '0', "$name: nothing is reported twice or wrongly");
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'streamext alerter'"), '1', "$name: one alerter");
	return;
}
exact('quiet');

# many groups at once, and more than the memory holds
sql("INSERT INTO tx SELECT 1000 + i % 3000, '2026-03-01 13:00:00+00', i % 90 FROM generate_series(1, 36000) i");
exact('many groups at once');
$node->append_conf('postgresql.conf', "streamext.live_memory = '4MB'\n");
$node->restart;
wait_ready($node);
sql("INSERT INTO tx SELECT 10000 + i % 40000, '2026-03-01 14:00:00+00', CASE WHEN i % 40000 < 1000 THEN 600 ELSE 1 END FROM generate_series(1, 120000) i");
exact('more than the memory holds');
$node->adjust_conf('postgresql.conf', 'streamext.live_memory', undef);
$node->restart;
wait_ready($node);

# ---- a listener that stays, and processes that are killed: each payload once ----
append_to_file("$ENV{TESTDIR}/cards.bench", <<'SQL');
\set card random(2, 99)
INSERT INTO tx SELECT :card, '2026-03-02 00:00:00+00'::timestamptz + :run * interval '1 minute', 40 FROM generate_series(1, 4);
SQL

# each time in another window
my $runs = 0;

sub start_writers
{
	my $run = { out => '' };
	$runs++;
	$run->{handle} = IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-T', 120, '-R', 300, '-D', "run=$runs", '-f', "$ENV{TESTDIR}/cards.bench", $node->connstr('app') ],
		'<', '/dev/null', '>', \$run->{out}, '2>&1');
	return $run;
}
my $writers = start_writers();
statement($listener = background($node, 'app'), 'LISTEN fraud');
my $first = sql("SELECT coalesce(max(id), 0) FROM streamext.alerts");
my @all;
for my $round (1 .. 10)
{
	my $kind = qw(alerter consumer flusher alerter)[pick(4)];
	sleep(0.05 + pick(40) / 100);
	# ended, not killed: shared memory and the listener stay
	sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'streamext $kind'");
	push @all, statement($listener, 'SELECT 1') =~ /"id": (\d+),/g;
}
$writers->{handle}->kill_kill(grace => 5);
exact('processes end');
push @all, statement($listener, 'SELECT 1') =~ /"id": (\d+),/g;
my %count;
$count{$_}++ foreach @all;
my @ids = split /\n/, sql("SELECT id FROM streamext.alerts WHERE id > $first ORDER BY id");
is(join(' ', sort { $a <=> $b } grep { $_ > $first } @all), join(' ', @ids), 'each row had its notification, once');
cmp_ok(scalar(@ids), '>', 10, 'and there were some');

# ---- kill -9 at random moments ----
for my $round (1 .. 6)
{
	$writers = start_writers();
	sleep(0.2 + pick(60) / 100);
	my $kind = qw(postmaster alerter consumer flusher)[$round % 4];
	if ($kind eq 'postmaster')
	{
		$node->stop('immediate');
		$node->start;
	}
	else
	{
		my ($pid) = split /\n/, StreamextTest::try_query($node, 'postgres',
			"SELECT pid FROM pg_stat_activity WHERE backend_type = 'streamext $kind'") // '';
		kill_process($pid) if $pid;
	}
	eval { $writers->{handle}->kill_kill(grace => 1); };
	wait_ready($node);
	sql("INSERT INTO tx SELECT 200 + $round, '2026-03-03 00:00:00+00', 1 FROM generate_series(1, 11)")
	  if query_until($node, 'app', 'SELECT 1', '1', 60);
}
exact('kill -9');
oracle($node, 'app', 'card_minute', 'kill -9');

# ---- conditions in trouble: the others see what is committed, in time ----
sql(<<'SQL');
CREATE FUNCTION raises(n bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF n > 0 THEN RAISE 'it raises'; END IF; RETURN false; END $$;
CREATE FUNCTION sleeps(n bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF n > 0 THEN PERFORM pg_sleep(1000); END IF; RETURN false; END $$;
CREATE FUNCTION loops(n bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	WHILE n > 0 LOOP
		BEGIN
			WHILE n > 0 LOOP END LOOP;
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
	RETURN false;
END $$;
SQL
foreach my $kind (qw(raises sleeps loops))
{
	sql(<<"SQL");
CREATE TABLE bad (k int, v int);
CREATE MATERIALIZED VIEW trouble WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM bad GROUP BY k;
SELECT streamext.create_alert('$kind', 'trouble', '$kind(n)', 'x');
INSERT INTO bad VALUES (1, 1);
SQL
	until_true("SELECT state = 'failed' FROM streamext.alert_status WHERE alert = '$kind'", "$kind: the status says so");
	for my $i (1 .. 3)
	{
		sql("INSERT INTO ev SELECT i % 7, i FROM generate_series(1, 50) i; INSERT INTO bad VALUES (2, 2)");
		my $took = elapsed(sub { oracle($node, 'app', 'other', $kind); oracle($node, 'app', 'trouble', $kind); });
		cmp_ok($took, '<', 10, "$kind: views are as fresh as ever");
		cmp_ok(elapsed(sub { sql('SELECT streamext.flush()') }), '<', 10, "$kind: so are flushes");
	}
	cmp_ok(elapsed(sub { sql("SELECT streamext.drop_alert('$kind')") }), '<', 20, "$kind: it can be dropped");
	sql('DROP MATERIALIZED VIEW trouble; DROP TABLE bad');
}
sql("INSERT INTO tx SELECT 300, '2026-03-04 00:00:00+00', 2000");
exact('after all that');

# ---- dump and restore: what was reported is not reported again ----
my $before = sql("SELECT count(*) FROM streamext.alerts");
$node->safe_psql('postgres', 'CREATE DATABASE copy');
my $dump = "$ENV{TESTDIR}/alerts.dump";
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('app') ], 'pg_dump');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], 'pg_restore');
ok(query_until($node, 'copy', "SELECT streamext.wait_for(timeout => '1s')", 't', 60), 'the restored view is built');
$node->safe_psql('copy', "INSERT INTO tx SELECT 999, '2026-03-05 00:00:00+00', 2000");
ok(query_until($node, 'copy', "SELECT count(*) FROM streamext.alerts WHERE \"group\" ->> 'card' = '999'", '1', 60),
	'a new group is reported by the restored alert');
is($node->safe_psql('copy', 'SELECT count(*), count(DISTINCT id) FROM streamext.alerts'), ($before + 1) . '|' . ($before + 1), 'and no other');
$node->safe_psql('postgres', 'DROP DATABASE copy');

# ---- drops while rows come ----
$writers = start_writers();
for my $i (1 .. 3)
{
	sql("SELECT streamext.create_alert('more', 'card_minute', 'n > 1000 + $i', 'more')");
	sleep 0.1;
	sql("SELECT streamext.drop_alert('more')");
}
cmp_ok(elapsed(sub { sql('DROP MATERIALIZED VIEW card_minute') }), '<', 20, 'the view can be dropped');
until_true("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'streamext alerter'", 'no alert is left, no alerter runs');
sql(<<'SQL');
CREATE MATERIALIZED VIEW cards WITH (streamext.continuous) AS SELECT card, count(*) AS n FROM tx GROUP BY card WITH NO DATA;
SELECT streamext.create_alert('last', 'cards', 'n > 3', 'last');
SQL
until_true("SELECT count(*) > 0 FROM streamext.alerts", 'reports come');
cmp_ok(elapsed(sub { sql('SET client_min_messages = error; DROP EXTENSION streamext CASCADE') }), '<', 20, 'the extension can be dropped');
ok(query_until($node, 'app', "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^streamext (alerter|consumer|flusher)'", '0', 30),
	'all processes are gone');
eval { $writers->{handle}->kill_kill(grace => 5); };
no_orphans($node);
$node->stop;
done_testing();
