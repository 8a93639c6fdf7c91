# StreamextTest.pm
#		What the TAP tests share: servers with the right settings, and the one oracle.
#
# The oracle: a continuous view equals its query, run by hand on the raw rows.
package StreamextTest;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(new_node new_database oracle difference wait_ready wait_until query_until
  worker_pids kill_process no_orphans allow_in_log psql_anyway seed pick chance elapsed source_dir
  build_shim start_with_shim background statement load stop_load);

my $random;

# The folder of the source tree.
sub source_dir
{
	return $ENV{SX_TOP} || '.';
}

# new_node(NAME, settings => "...", start => 1): a primary with the library loaded
sub new_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	# streaming: the slots need wal_level = replica
	$node->init(allows_streaming => 1, extra => [ '-E', 'UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', <<'CONF' . ($options{settings} // ''));
listen_addresses = ''
shared_preload_libraries = 'streamext'
max_prepared_transactions = 20
max_worker_processes = 24
max_connections = 40
restart_after_crash = on
autovacuum_naptime = 1s
log_statement = none
log_connections = off
log_disconnections = off
max_wal_size = 4GB
timezone = 'UTC'
CONF
	$node->start unless exists $options{start} && !$options{start};
	return $node;
}

sub new_database
{
	my ($node, $name) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION streamext');
	return;
}

# wait_until(WHAT, SECONDS, CODE): polls until CODE returns true; false after SECONDS
sub wait_until
{
	my ($what, $seconds, $code) = @_;
	my $end = time + $seconds;
	while (1)
	{
		return 1 if $code->();
		last if time > $end;
		sleep 0.05;
	}
	diag("timed out after $seconds s waiting for $what");
	return 0;
}

# psql(...) on a server that may be down: a psql that could not connect may be gone before it is given the
# query.  Its status, as always 2 without a connection.
sub psql_anyway
{
	my ($node, @arguments) = @_;
	my $status = eval { $node->psql(@arguments) };
	return $status unless $@;
	return 2 if $@ =~ /Broken pipe/;
	die $@;
}

# The last output of a query that may fail, undef if it does.
sub try_query
{
	my ($node, $database, $query) = @_;
	my ($out, $err) = ('', '');
	my $status = psql_anyway($node, $database, $query, stdout => \$out, stderr => \$err,
		on_error_die => 0, timeout => $PostgreSQL::Test::Utils::timeout_default);
	return (defined $status && $status == 0) ? $out : undef;
}

# query_until(NODE, DATABASE, QUERY, WANTED, SECONDS): errors count as "not yet"
sub query_until
{
	my ($node, $database, $query, $wanted, $seconds) = @_;
	my $last;
	my $done = wait_until("$query to give $wanted", $seconds // 60, sub {
		$last = try_query($node, $database, $query);
		return defined $last && $last eq $wanted;
	});
	diag('last answer: ' . ($last // 'an error')) unless $done;
	return $done;
}

# The server answers (after a crash it needs a moment).
sub wait_ready
{
	my ($node) = @_;
	return query_until($node, 'postgres', 'SELECT NOT pg_is_in_recovery()', 't', 60);
}

# kill_process(PID): a process of a server, by SIGKILL; when this returns the server has noticed, and accepts nobody until it has
# started again
sub kill_process
{
	my ($pid) = @_;
	kill 'KILL', $pid;
	return wait_until('the server to miss the process', 30, sub { !kill(0, $pid) });
}

# The query of a continuous view, as PostgreSQL prints it.
sub definition
{
	my ($node, $database, $view) = @_;
	my $query = $node->safe_psql($database,
		"SELECT definition FROM streamext.views WHERE view = '$view'::regclass");
	$query =~ s/;\s*$//;
	return $query;
}

# difference(NODE, DATABASE, VIEW [, QUERY]): "" when the view equals its query, else what differs.
# Both are read in one statement, hence of the same rows once nobody writes.
sub difference
{
	my ($node, $database, $view, $query) = @_;
	$query //= definition($node, $database, $view);
	return $node->safe_psql($database, <<"SQL");
SELECT format('%s in the view only: %s', n, sample)
  FROM (SELECT count(*) AS n, min(d::text) AS sample FROM (TABLE $view EXCEPT ALL ($query)) d) a WHERE n > 0
UNION ALL
SELECT format('%s in the query only: %s', n, sample)
  FROM (SELECT count(*) AS n, min(d::text) AS sample FROM (($query) EXCEPT ALL TABLE $view) d) b WHERE n > 0
SQL
}

# oracle(NODE, DATABASE, VIEW [, NAME [, QUERY]]): waits until the view has everything
# committed so far, then compares; one assertion.
sub oracle
{
	my ($node, $database, $view, $name, $query) = @_;
	my $state = sub {
		$node->safe_psql($database,
			"SELECT * FROM streamext.status WHERE view = '$view'::regclass",
			extra_params => ['-x']);
	};

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$name = $name ? "$name: $view is exact" : "$view is exact";
	if ($node->safe_psql($database, "SELECT streamext.wait_for('$view', '60s')") ne 't')
	{
		fail($name);
		diag("wait_for('$view') timed out\n" . $state->());
		return 0;
	}
	my $differs = difference($node, $database, $view, $query);
	my $equal = is($differs, '', $name);
	diag($state->()) unless $equal;
	return $equal;
}

# worker_pids(NODE, KIND [, DATABASE]): of "streamext KIND"
sub worker_pids
{
	my ($node, $kind, $database) = @_;
	my $where = $database ? " AND datname = '$database'" : '';
	return split /\n/, $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'streamext $kind'$where");
}

# Every slot of ours belongs to a database, and every worker too.
sub no_orphans
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(query_until($node, 'postgres', <<'SQL', '0', 30), $name // 'no slot without its database');
SELECT count(*) FROM pg_replication_slots
WHERE slot_name LIKE 'streamext%'
  AND slot_name NOT IN (SELECT 'streamext_' || oid FROM pg_database)
SQL
	return;
}

# Lines of the server logs that match are expected in this test: the run's log scan passes them.
sub allow_in_log
{
	my ($pattern) = @_;
	append_to_file("$ENV{TESTDIR}/allowed_in_log", "$pattern\n") if $ENV{TESTDIR};
	return;
}

# build_shim(NAME): test/shim/NAME.c as a library for LD_PRELOAD; its path
sub build_shim
{
	my ($name) = @_;
	my $library = "$ENV{TESTDIR}/shim_$name.so";
	my @command = ($ENV{CC} || 'gcc', qw(-Wall -O1 -shared -fPIC -o), $library, source_dir() . "/test/shim/$name.c", '-ldl');
	PostgreSQL::Test::Utils::system_or_bail(@command);
	return $library;
}

# start_with_shim(NODE, LIBRARY, NAME => VALUE ...): the server, and nothing else, runs with the
# library and these environment variables
sub start_with_shim
{
	my ($node, $library, %environment) = @_;
	local %ENV = (%ENV, %environment, LD_PRELOAD => $library);
	return $node->start;
}

# background(NODE, DATABASE): a session that stays open; statement(SESSION, SQL): what it answers
sub background
{
	my ($node, $database) = @_;
	my $session = { in => '', out => '', n => 0 };
	$session->{timer} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$session->{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr($database), '-f', '-' ],
		'<', \$session->{in}, '>', \$session->{out}, '2>&1', $session->{timer});
	return $session;
}

# statement(SESSION, SQL [, 1]): with the last argument it is only sent; statement(SESSION) then waits for it
sub statement
{
	my ($session, $sql, $only_send) = @_;
	if (defined $sql)
	{
		$session->{n}++;
		$session->{out} = '';
		$session->{in} .= "$sql\n;\n\\echo done $session->{n}\n";
		$session->{run}->pump_nb;
		return if $only_send;
	}
	$session->{timer}->start;
	$session->{run}->pump until $session->{out} =~ /^done $session->{n}$/m;
	$session->{timer}->reset;
	return $session->{out} =~ s/^done $session->{n}\n//mr =~ s/\n$//r;
}

# Transactions for pgbench against ev(k int, v int, note text).
my %script = (
	single => <<'SQL',
\set k random(0, 59)
\set v random(0, 999)
INSERT INTO ev VALUES (:k, :v, 'single');
SQL
	savepoint => <<'SQL',
\set k random(0, 59)
BEGIN;
INSERT INTO ev VALUES (:k, 1, 'outer');
SAVEPOINT a;
INSERT INTO ev VALUES (:k, 2, 'lost');
ROLLBACK TO a;
SAVEPOINT b;
INSERT INTO ev SELECT :k, i, 'inner' FROM generate_series(1, 20) i;
COMMIT;
SQL
	abort => <<'SQL',
BEGIN;
INSERT INTO ev SELECT i, 999, 'aborted' FROM generate_series(1, 30) i;
ROLLBACK;
SQL
	many => <<'SQL',
\set n random(1, 200)
INSERT INTO ev SELECT i % 60, i, 'many' FROM generate_series(1, :n) i;
SQL
	prepared => <<'SQL',
\set r random(1, 1000000000)
\set k random(0, 59)
BEGIN;
INSERT INTO ev SELECT :k, i, 'prepared' FROM generate_series(1, 10) i;
PREPARE TRANSACTION 'r:r';
COMMIT PREPARED 'r:r';
SQL
	# two clients write more than 100 rows/ms
	stream => "INSERT INTO ev SELECT i % 60, i, 'stream' FROM generate_series(1, 1000) i;\n");

# load(NODE, DATABASE, CLIENTS, script => weight ...): pgbench until stop_load
sub load
{
	my ($node, $database, $clients, %weights) = @_;
	my $load = { out => '' };
	my @files;
	for my $name (sort keys %weights)
	{
		my $file = "$ENV{TESTDIR}/$name.bench";
		append_to_file($file, $script{$name}) unless -e $file;
		push @files, '-f', "$file\@$weights{$name}";
	}
	$load->{run} = IPC::Run::start([ 'pgbench', '-n', '-c', $clients, '-T', 300, @files, $node->connstr($database) ],
		'<', '/dev/null', '>', \$load->{out}, '2>&1');
	return $load;
}

sub stop_load
{
	my ($load) = @_;
	$load->{run}->kill_kill(grace => 5);
	return;
}

# Random numbers that can be had again: SEED=n make test TESTS=...
sub seed
{
	my $seed = $ENV{SEED} || shift // 1;
	$random = $seed;
	note("seed $seed");
	return $seed;
}

# 0 .. n - 1
sub pick
{
	my ($n) = @_;
	# the low bits of such a generator repeat soon: use the high ones
	$random = ($random * 1103515245 + 12345) % 2**31;
	return int($random / 2**31 * $n);
}

sub chance
{
	my ($percent) = @_;
	return pick(100) < $percent;
}

# elapsed(CODE): its seconds
sub elapsed
{
	my ($code) = @_;
	my $start = time;
	$code->();
	return time - $start;
}

1;
