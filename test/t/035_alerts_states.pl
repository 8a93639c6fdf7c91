# Alerts wherever the view stands: slow, paused, in trouble, on a standby that is promoted, in a copied database.
# A group of a condition that stays true is reported once, by whatever way its rows came.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $node = new_node('states', settings => "streamext.flush_interval = '100ms'\nhot_standby_feedback = on\n");
new_database($node, 'app');
my $server = $node;

sub sql
{
	return $server->safe_psql('app', shift);
}

# reported(ALERT, GROUPS, NAME): these, each once
sub reported
{
	my ($alert, $groups, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(query_until($server, 'app', "SELECT string_agg(\"group\" ->> 'k', ' ' ORDER BY (\"group\" ->> 'k')::int)
		FROM streamext.alerts WHERE alert = '$alert'", $groups, 60), $name);
	return;
}

sql(<<'SQL');
CREATE TABLE ev (k int, v int);
CREATE FUNCTION slow(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE since timestamptz := clock_timestamp();
BEGIN
	WHILE v > 100 AND clock_timestamp() < since + interval '20 ms' LOOP END LOOP;
	RETURN v;
END $$;
CREATE MATERIALIZED VIEW counts WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW slows WITH (streamext.continuous) AS SELECT k, sum(slow(v)) AS s FROM ev GROUP BY k;
INSERT INTO ev SELECT k, 1 FROM generate_series(1, 3) k;
SELECT streamext.create_alert('many', 'counts', 'n > 1', 'x'), streamext.create_alert('slow', 'slows', 's > 1000', 'x');
SQL

# ---- slow: a builder writes its table ----
sql('INSERT INTO ev SELECT 1, 101 FROM generate_series(1, 30)');
ok(query_until($server, 'app', "SELECT reason LIKE '%in a process of its own%' FROM streamext.status WHERE view = 'slows'::regclass", 't', 60),
	'a view is slow');
reported('many', '1', 'the other is not');
reported('slow', '1', 'a group of the slow view');
sql('INSERT INTO ev SELECT 2, 200 FROM generate_series(1, 10)');
reported('slow', '1 2', 'another, while it is slow');
reported('many', '1 2', 'and in the other');

# ---- paused, and what comes meanwhile ----
sql("SELECT streamext.pause('counts')");
ok(query_until($server, 'app', "SELECT state FROM streamext.status WHERE view = 'counts'::regclass", 'paused', 60), 'paused');
sql('INSERT INTO ev SELECT 3, 1 FROM generate_series(1, 5)');
is(sql("SELECT count(*) FROM streamext.alerts WHERE alert = 'many'"), '2', 'nothing is reported of a paused view');
my ($out, $err) = ('', '');
$server->psql('app', "SET streamext.wait_timeout = '200ms'; SELECT streamext.create_alert('late', 'counts', 'n > 1', 'x')", stdout => \$out, stderr => \$err);
like($err, qr/did not catch up .*paused/s, 'nor can an alert be created on it');
sql("SELECT streamext.resume('counts')");
reported('many', '1 2 3', 'what came meanwhile, when it goes on');

# ---- a locked stream makes the view leave and join ----
my $locker = background($server, 'app');
statement($locker, 'BEGIN; INSERT INTO ev SELECT 4, 1 FROM generate_series(1, 2); LOCK TABLE ev');
ok(query_until($server, 'app', "SELECT streamext.wait_for('counts', '100ms')", 't', 60), 'nothing is committed yet');
statement($locker, 'COMMIT');
reported('many', '1 2 3 4', 'what was locked');

# ---- a lock on the view's table, and on the alert itself, only delays ----
my $mat = sql("SELECT mat FROM streamext.view_def WHERE view = 'counts'::regclass");
statement($locker, "BEGIN; LOCK TABLE $mat IN ACCESS EXCLUSIVE MODE");
sql('INSERT INTO ev SELECT 5, 1 FROM generate_series(1, 2)');
statement($locker, 'COMMIT');
reported('many', '1 2 3 4 5', 'after a lock on the table');
statement($locker, "BEGIN; SELECT streamext.drop_alert('many')");
sql('INSERT INTO ev SELECT 6, 1 FROM generate_series(1, 2)');
statement($locker, 'ROLLBACK');
reported('many', '1 2 3 4 5 6', 'after a drop that was rolled back');
$locker->{run}->kill_kill(grace => 1);

# ---- a copy of the database: it does not report again what was reported ----
$server->safe_psql('postgres', 'CREATE DATABASE copied TEMPLATE app');
ok(query_until($server, 'copied', "SELECT streamext.wait_for('counts', '1s')", 't', 60), 'the copy is built');
$server->safe_psql('copied', 'INSERT INTO ev SELECT 7, 1 FROM generate_series(1, 2)');
ok(query_until($server, 'copied', "SELECT count(*) FROM streamext.alerts WHERE alert = 'many'", '7', 60), 'its own new group');
reported('many', '1 2 3 4 5 6', 'and not to the original');
$server->safe_psql('postgres', 'DROP DATABASE copied');

# ---- a standby shows what was reported, and goes on when it is promoted ----
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
sql('INSERT INTO ev SELECT 8, 1 FROM generate_series(1, 2)');
reported('many', '1 2 3 4 5 6 8', 'on the primary');
$node->wait_for_catchup($standby);
$server = $standby;
reported('many', '1 2 3 4 5 6 8', 'seen on the standby');
is(sql("SELECT DISTINCT state FROM streamext.alert_status"), 'waiting', 'which evaluates nothing itself');
$node->stop('immediate');
$standby->promote;
sql('INSERT INTO ev SELECT 9, 1 FROM generate_series(1, 2)');
reported('many', '1 2 3 4 5 6 8 9', 'the promoted standby goes on');
reported('slow', '1 2', 'and reports nothing twice');
$standby->stop;
done_testing();
