# I6, I7: commands on databases and roles under load, each done in time; every setting changed while
# the server runs; more databases than are served; too few workers.
#
# TIMES sets how often each command runs (test/long/commands.pl: 100).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $times = $ENV{SX_TIMES} || 5;
my $longest = 10;

seed(20260120);
my $node = new_node('commands', settings => "streamext.max_databases = 3\nstreamext.flush_interval = '300ms'\n");
$node->safe_psql('postgres', 'CREATE ROLE member; CREATE ROLE heir');

my $views = <<'SQL';
CREATE TABLE ev (k int NOT NULL, v int, note text);
INSERT INTO ev SELECT i % 60, i, NULL FROM generate_series(1, 1000) i;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS total, max(note) AS last_note FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW big WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v > 900;
SQL

# in_time(NAME, DATABASE, SQL): succeeds, and soon; true if so
sub in_time
{
	my ($name, $database, $sql) = @_;
	my ($status, $out, $err);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $took = elapsed(sub { ($status, $out, $err) = $node->psql($database, $sql) });
	my $ok = $status == 0 && $took < $longest;
	diag(sprintf('%s: %.1f s, %s', $name, $took, $err)) unless $ok;
	return $ok;
}

# repeat(NAME, CODE): the code returns true each time; one assertion
sub repeat
{
	my ($name, $code) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $good = 0;
	for my $i (1 .. $times)
	{
		last unless $code->($i);
		$good++;
	}
	is($good, $times, "$times times: $name");
	return;
}

# a database that must not notice any of it
new_database($node, 'beside');
$node->safe_psql('beside', $views);
my $load = load($node, 'beside', 1, single => 1, savepoint => 1);

# ---- databases ----

repeat('DROP DATABASE while rows arrive', sub {
	my ($i) = @_;
	new_database($node, 'doomed');
	$node->safe_psql('doomed', $views);
	# some are dropped while they are built, some when they are live
	oracle_quietly('doomed') if $i % 2;
	my $writer = load($node, 'doomed', 1, single => 1);
	query_until($node, 'doomed', 'SELECT count(*) > 1000 FROM ev', 't', 30);
	my $ok = in_time('DROP DATABASE', 'postgres', 'DROP DATABASE doomed WITH (FORCE)');
	stop_load($writer);
	return $ok;
});
no_orphans($node, 'their slots are gone');

new_database($node, 'one');
$node->safe_psql('one', $views);
oracle($node, 'one', $_, 'one') for qw(by_key big);

# no session may be in the template: rows arrive until right before
repeat('CREATE DATABASE ... TEMPLATE of a busy database', sub {
	$node->safe_psql('one', 'INSERT INTO ev SELECT i % 60, i, NULL FROM generate_series(1, 500) i');
	in_time('CREATE DATABASE', 'postgres', 'CREATE DATABASE copy TEMPLATE one') or return 0;
	$node->safe_psql('copy', 'INSERT INTO ev VALUES (7, 7, NULL)');
	my $ok = oracle_quietly('copy') && oracle_quietly('one');
	return in_time('DROP DATABASE', 'postgres', 'DROP DATABASE copy WITH (FORCE)') && $ok;
});

repeat('ALTER DATABASE ... RENAME of a busy database', sub {
	my ($i) = @_;
	my ($from, $to) = $i % 2 ? qw(one eins) : qw(eins one);
	$node->safe_psql($from, 'INSERT INTO ev SELECT i % 60, i, NULL FROM generate_series(1, 500) i');
	in_time('RENAME', 'postgres', "ALTER DATABASE $from RENAME TO $to") or return 0;
	$node->safe_psql($to, 'INSERT INTO ev VALUES (8, 8, NULL)');
	return oracle_quietly($to);
});
my $one = $node->safe_psql('postgres', "SELECT datname FROM pg_database WHERE datname IN ('one', 'eins')");

# ---- the extension ----

repeat('DROP EXTENSION CASCADE while rows arrive', sub {
	my $writer = load($node, $one, 1, single => 1);
	my $ok = in_time('DROP EXTENSION', $one, 'DROP EXTENSION streamext CASCADE');
	$ok &&= in_time('CREATE EXTENSION', $one, <<'SQL');
CREATE EXTENSION streamext;
CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS
  SELECT k, count(*) AS n, sum(v) AS total, max(note) AS last_note FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW big WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v > 900;
SQL
	stop_load($writer);
	return $ok && oracle_quietly($one);
});
my ($status, $out, $err) = $node->psql($one, 'DROP EXTENSION streamext');
isnt($status, 0, 'DROP EXTENSION without CASCADE is refused while there are views');
like($err, qr/CASCADE/, 'and says how');

# ---- roles ----

repeat('REASSIGN OWNED and DROP OWNED while rows arrive', sub {
	my ($i) = @_;
	$node->safe_psql($one, <<"SQL");
GRANT CREATE ON SCHEMA public TO member, heir;
GRANT SELECT ON ev TO member, heir;
SET ROLE member;
CREATE TABLE own (k int);
INSERT INTO own SELECT i % 5 FROM generate_series(1, 100) i;
CREATE MATERIALIZED VIEW of_member WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW of_own WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM own GROUP BY k;
SQL
	my $writer = load($node, $one, 1, single => 1);
	my $ok = in_time('REASSIGN OWNED', $one, 'REASSIGN OWNED BY member TO heir');
	$node->safe_psql($one, 'INSERT INTO own VALUES (1)');
	if ($i % 2 == 0)
	{
		stop_load($writer);
		$ok &&= oracle_quietly($one, qw(of_member of_own));
		$writer = load($node, $one, 1, single => 1);
	}
	$ok &&= $node->safe_psql($one, "SELECT count(*) FROM streamext.views WHERE owner = 'heir'::regrole") eq '2';
	$ok &&= in_time('DROP OWNED', $one, 'DROP OWNED BY heir');
	$ok &&= $node->safe_psql($one, "SELECT to_regclass('of_member') IS NULL AND to_regclass('own') IS NULL") eq 't';
	$ok &&= in_time('DROP OWNED', $one, 'DROP OWNED BY member');
	stop_load($writer);
	return $ok && oracle_quietly($one);
});

# both views of a database are exact; no assertion
sub oracle_quietly
{
	my ($database, @names) = @_;
	@names = qw(by_key big) unless @names;
	for my $view (@names)
	{
		if ($node->safe_psql($database, "SELECT streamext.wait_for('$view', '60s')") ne 't')
		{
			diag("$database.$view: " . $node->safe_psql($database, "TABLE streamext.status", extra_params => ['-x']));
			return 0;
		}
		my $differs = difference($node, $database, $view);
		if ($differs ne '')
		{
			diag("$database.$view: $differs");
			return 0;
		}
	}
	return 1;
}

# ---- settings ----

# each setting at its least, its greatest, something between, nonsense, and its default, while rows arrive
my %unit = (kB => 1, MB => 1);
for my $line (split /\n/, $node->safe_psql('beside', <<'SQL'))
SELECT name, vartype, context, coalesce(min_val, ''), coalesce(max_val, ''), boot_val, coalesce(array_to_string(enumvals, ','), '')
FROM pg_settings WHERE name LIKE 'streamext.%' AND context IN ('sighup', 'user', 'superuser', 'postmaster') ORDER BY name
SQL
{
	my ($name, $type, $context, $min, $max, $boot, $enum) = split /\|/, $line, -1;
	my @values =
	    $type eq 'bool' ? qw(on off)
	  : $type eq 'enum' ? split(/,/, $enum)
	  : $type eq 'string' ? ("''")
	  : ($min, int($boot / 2) > $min ? int($boot / 2) : $min + 1, $max);
	# a read that waits for each row is too slow for a greatest value of hours
	my $bad = $type =~ /integer|real/ ? $max . '0' : $type eq 'string' ? undef : 'nonsense';
	my $wrong = 0;
	for my $value (@values)
	{
		my ($status, $out, $err) = $node->psql('beside', "ALTER SYSTEM SET $name = $value");
		if ($status != 0)
		{
			diag("$name = $value: $err");
			$wrong++;
			next;
		}
		$node->reload;
		if ($context ne 'postmaster')
		{
			query_until($node, 'beside', "SELECT setting FROM pg_settings WHERE name = '$name'", $value =~ s/^''$//r, 20) or $wrong++;
		}
		$node->safe_psql('beside', "INSERT INTO ev VALUES (9, 9, NULL)");
		oracle_settings($name, $value) or $wrong++;
	}
	if (defined $bad)
	{
		my ($status) = $node->psql('beside', "ALTER SYSTEM SET $name = '$bad'");
		$wrong++ unless $status;
	}
	$node->safe_psql('beside', "ALTER SYSTEM RESET $name");
	$node->reload;
	is($wrong, 0, "$name: each value takes effect while the server runs, and views stay exact");
}

# whatever the setting: everything is visible in the end, and right
sub oracle_settings
{
	my ($name, $value) = @_;
	# whoever sets the pause between cycles to a minute waits for it
	return 1 if $name =~ /cycle_interval/ && $value > 1000;
	my ($status, $out, $err) = $node->psql('beside', "SELECT streamext.wait_for('by_key', '60s')");
	return 1 if $status == 0 && $out eq 't' && difference_while_writing();
	diag("$name = $value: " . ($err || $out));
	return 0;
}

# rows arrive all the time: compared at one position
sub difference_while_writing
{
	return $node->safe_psql('beside',
		"SET streamext.wait_timeout = '60s'; SELECT count(*) FROM streamext.verify('by_key')") eq '0';
}

stop_load($load);
oracle($node, 'beside', $_, 'beside, after all of it') for qw(by_key big);

# ---- more databases than are served ----

new_database($node, 'three');
$node->safe_psql('three', $views);
oracle($node, 'three', 'by_key', 'three');
$node->safe_psql('postgres', 'CREATE DATABASE four');
$node->safe_psql('four', 'CREATE EXTENSION streamext; CREATE TABLE ev (k int NOT NULL, v int, note text)');
($status, $out, $err) = $node->psql('four',
	'CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k');
isnt($status, 0, 'one database too many is refused');
like($err, qr/streamext\.max_databases/, 'and the message names the setting');
# its owner drops what makes another one free
in_time('DROP DATABASE', 'postgres', 'DROP DATABASE three');
ok(query_until($node, 'four',
	"SELECT 1 FROM (SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'streamext%') s WHERE count = 2", '1', 30), 'a place is free again');
ok(wait_until('a view in the database that was refused', 30, sub {
	($status, $out, $err) = $node->psql('four',
		'CREATE MATERIALIZED VIEW by_key WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM ev GROUP BY k');
	return $status == 0;
}), 'and is taken') or diag($err);
$node->safe_psql('four', 'INSERT INTO ev VALUES (1, 1, NULL)');
oracle($node, 'four', 'by_key', 'four');

# fewer places than databases with views, after a restart
$node->append_conf('postgresql.conf', 'streamext.max_databases = 1');
$node->restart;
my @databases = ($one, 'beside', 'four');
for my $database (@databases)
{
	$node->safe_psql($database, 'INSERT INTO ev VALUES (2, 2, NULL)');
}
ok(wait_until('one database to be served', 30, sub { scalar(worker_pids($node, 'consumer')) == 1 }), 'one of three is served');
my $served = $node->safe_psql('postgres', "SELECT datname FROM pg_stat_activity WHERE backend_type = 'streamext consumer'");
oracle($node, $served, 'by_key', "$served is served");
for my $database (grep { $_ ne $served } @databases)
{
	ok(query_until($node, $database,
		"SELECT bool_and(reason LIKE '%streamext.max_databases%') FROM streamext.status", 't', 30),
		"$database: status says why nothing moves")
	  or diag($node->safe_psql($database, 'SELECT view, state, reason FROM streamext.status'));
	is($node->safe_psql($database, "SELECT streamext.wait_for('by_key', '100ms')"), 'f', "$database: a wait ends");
}
# the served one goes, and one of the others is taken in its place
in_time('DROP DATABASE', 'postgres', "DROP DATABASE $served");
@databases = grep { $_ ne $served } @databases;
ok(wait_until('another database to be served', 40, sub {
	$node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'streamext consumer' AND datname <> '$served'") eq '1';
}), 'a database that waited takes the free place');
$node->append_conf('postgresql.conf', 'streamext.max_databases = 5');
$node->restart;
for my $database (@databases)
{
	$node->safe_psql($database, 'INSERT INTO ev VALUES (3, 3, NULL)');
	oracle($node, $database, 'by_key', "$database is served again");
}

# ---- too few workers ----

# one for the launcher (the logical replication launcher takes another), and one to share
$node->append_conf('postgresql.conf', 'max_worker_processes = 3');
$node->restart;
for my $database (@databases)
{
	$node->safe_psql($database, 'INSERT INTO ev VALUES (4, 4, NULL)');
	ok(query_until($node, $database, "SELECT bool_or(reason LIKE '%max_worker_processes%') FROM streamext.status", 't', 40),
		"$database: status says that workers are missing")
	  or diag($node->safe_psql($database, 'SELECT view, state, reason FROM streamext.status'));
}
$node->append_conf('postgresql.conf', 'max_worker_processes = 24');
$node->restart;
for my $database (@databases)
{
	oracle($node, $database, 'by_key', "$database with enough workers");
}
no_orphans($node);
$node->stop;
done_testing();
