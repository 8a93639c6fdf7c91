# Commands that wait for views.  What is in the way of one that is rebuilt: they end when it lasts, nothing is left behind, and
# the view has no errors of the time when it was hidden.  Who waits for all views does not wait for one that is dropped.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextFaults;
use StreamextTest;
use Test::More;

allow_in_log('stop point');

my $node = new_node('waiting', settings => "streamext.flush_interval = '1h'\n");
new_database($node, 'app');
test_functions($node, 'app');
$node->safe_psql('app', <<'SQL');
CREATE ROLE owner;
CREATE TABLE ev (k int NOT NULL, v int NOT NULL);
INSERT INTO ev SELECT i % 5, i FROM generate_series(1, 100) i;
GRANT SELECT ON ev TO owner;
GRANT CREATE ON SCHEMA public TO owner;
SET ROLE owner;
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS SELECT k, sum(v) AS s FROM ev GROUP BY k;
SQL
oracle($node, 'app', 'sums', 'before');

sub point_waits
{
	my ($point) = @_;
	return query_until($node, 'app', "SELECT waiting FROM testing.points() WHERE point = '$point'", '1');
}

sub nothing_left
{
	my ($when) = @_;
	is($node->safe_psql('app', "SELECT count(*) FROM pg_class WHERE relnamespace = 'streamext'::regnamespace AND relname ~ '^(query|mat|view)_[0-9]+\$'"),
		'2', "nothing is left behind, $when");
	return;
}

# ---- the builder fails again and again ----
my $session = background($node, 'app');
$node->safe_psql('app', "SELECT testing.stop('builder_started', 'wait')");
statement($session, 'REFRESH MATERIALIZED VIEW sums', 1);
ok(point_waits('builder_started'), 'a builder has begun');
$node->safe_psql('app', "REVOKE SELECT ON ev FROM owner; SELECT testing.release('builder_started')");
like(statement($session), qr/ERROR:  could not rebuild continuous view "sums"\nDETAIL:  permission denied for table ev\nHINT:  The view is as it was\./,
	'REFRESH ends when a builder has failed three times');
nothing_left('when it has been given up');
$node->safe_psql('app', 'GRANT SELECT ON ev TO owner; INSERT INTO ev VALUES (1, 1000)');
ok(wait_ready($node), 'the view goes on');
oracle($node, 'app', 'sums', 'given up');
is(statement($session, 'REFRESH MATERIALIZED VIEW sums'), '', 'another REFRESH');
oracle($node, 'app', 'sums', 'rebuilt');

# ---- the swap fails, by an error that may pass, and does not ----
statement($session, "SELECT testing.stop('swap_done', 'errors')");
like(statement($session, 'REFRESH MATERIALIZED VIEW sums'), qr/ERROR:  continuous view "sums" is rebuilt, but the new contents cannot take their place\nDETAIL:  stop point/,
	'an error that stays ends the command, which says why');
cmp_ok($node->safe_psql('app', "SELECT fired FROM testing.points() WHERE point = 'swap_done'"), '>=', 3, 'after several attempts');
is($node->safe_psql('app', "SELECT count(*) FROM streamext.view_def WHERE replaces = 'sums'::regclass"), '1', 'the replacement is there');
$node->safe_psql('app', "INSERT INTO ev VALUES (2, 1000); SELECT testing.release()");
is($node->safe_psql('app', "SELECT streamext.wait_for('sums', '60s')"), 't', 'it takes its place when the error has passed');
oracle($node, 'app', 'sums', 'replaced after errors');
nothing_left('when it has taken its place');
my $errors = "SELECT last_error, reason FROM streamext.status WHERE view = 'sums'::regclass";
is($node->safe_psql('app', $errors), '|', 'none of the errors is one of the view');

# ---- flushes while the swap has its locks, and when it is done but the consumer has not taken note ----
for my $when ('before the commit', 'after the commit')
{
	my $log_at = -s $node->logfile;
	$node->safe_psql('app', "SELECT testing.stop('swap_locked', 'wait'); SELECT streamext.replace_view('sums', 'SELECT k, sum(v) AS s FROM ev GROUP BY k', force => true)");
	ok(point_waits('swap_locked'), "$when: the swap has its locks");
	$node->safe_psql('app', "SELECT testing.stop('flush_claimed', 'wait')") if $when eq 'after the commit';
	$node->safe_psql('app', 'INSERT INTO ev SELECT i % 5, i FROM generate_series(1, 100) i');
	statement($session, 'SELECT streamext.flush()', 1);
	if ($when eq 'before the commit')
	{
		ok(query_until($node, 'app', "SELECT count(*) > 0 FROM streamext.view_states() WHERE last_error = 'the materialized table is locked'", 't'),
			'a flush finds a table locked');
	}
	else
	{
		ok(point_waits('flush_claimed'), 'a flush has begun');
		$node->safe_psql('app', "SELECT testing.release('swap_locked')");
		ok(query_until($node, 'app', "SELECT count(*) FROM streamext.view_def WHERE replaces = 'sums'::regclass", '0'), 'the swap is committed');
	}
	$node->safe_psql('app', 'SELECT testing.release()');
	statement($session);
	is($node->safe_psql('app', "SELECT streamext.wait_for('sums', '60s')"), 't', "$when: replaced");
	is($node->safe_psql('app', $errors), '|', "$when: the view has no error");
	unlike(slurp_file($node->logfile, $log_at), qr/dropped/, "$when: nothing is said to be dropped");
	oracle($node, 'app', 'sums', $when);
}

# ---- all views, of which one is dropped, or was hidden and takes its place ----
$node->safe_psql('app', 'CREATE ROLE reader; GRANT SELECT ON sums TO reader');
for my $call ('wait_for()', 'flush()', "wait_for('other')", "flush('other')")
{
	for my $role ('postgres', 'reader')
	{
		$node->safe_psql('app', 'CREATE MATERIALIZED VIEW other WITH (streamext.continuous) AS SELECT v FROM ev; GRANT SELECT ON other TO reader;
			SELECT streamext.wait_for(); SELECT streamext.pause(\'other\')');
		# the consumer acts on it when it has committed
		ok(query_until($node, 'app', "SELECT state FROM streamext.views WHERE view = 'other'::regclass", 'paused'), 'a view is paused');
		$node->safe_psql('app', 'INSERT INTO ev VALUES (1, 1)');
		statement($session, "SET streamext.wait_timeout = '120s'; SET ROLE $role; SELECT streamext.$call", 1);
		ok(query_until($node, 'app', "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT streamext.%' AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()", '1'),
			"$call as $role waits for a view that is paused");
		$node->safe_psql('app', 'DROP MATERIALIZED VIEW other');
		my $said = statement($session);
		if ($call =~ /other/)
		{
			like($said, qr/ERROR:  continuous view "other" was dropped while it was waited for/, 'and says when it is dropped');
		}
		else
		{
			unlike($said, qr/ERROR|^f/m, 'and not when it is dropped');
		}
		statement($session, 'RESET ROLE');
	}
}
$node->safe_psql('app', "SELECT testing.stop('swap_locked', 'wait'); SELECT streamext.replace_view('sums', 'SELECT k, sum(v) AS s FROM ev GROUP BY k', force => true)");
ok(point_waits('swap_locked'), 'a view is about to be replaced');
$node->safe_psql('app', 'INSERT INTO ev VALUES (1, 1)');
statement($session, 'SELECT streamext.flush()', 1);
ok(query_until($node, 'app', "SELECT count(*) > 0 FROM streamext.view_states() WHERE last_error = 'the materialized table is locked'", 't'), 'flush() waits for it');
$node->safe_psql('app', 'SELECT testing.release()');
unlike(statement($session), qr/ERROR/, 'and not when it has been');
oracle($node, 'app', 'sums', 'in the end');
$session->{run}->kill_kill(grace => 5);
nothing_left('in the end');

$node->stop;
done_testing();
