# I7 and I1 at full size: five million rows in one transaction, five million groups, a million transactions,
# with 16 MB of live memory.
#
# Every 100 ms, for each of our processes: its private memory (RssAnon) and what of the shared live state it
# has mapped (Rss of /dev/shm/PostgreSQL.*; dynamic_shared_memory_type is posix).  Pages of shared_buffers
# that it has touched do not count: they are no memory of its own.  The sum must stay below live_memory + 64 MB.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;
use POSIX ();
use Time::HiRes qw(sleep time);

use constant LIVE_MEMORY => 16;
# a builder has it twice: for the groups of history, and for rows that are to be written
use constant MAINTENANCE_MEMORY => 16;
use constant LIMIT => LIVE_MEMORY + 64;
my $millions = $ENV{SX_MILLIONS} || 5;
my $rows = $millions * 1_000_000;

# what an oracle of millions of groups sorts
$ENV{PGOPTIONS} = '-c work_mem=256MB -c enable_hashagg=off -c max_parallel_workers_per_gather=0';

allow_in_log('terminated by signal 9: Killed');
my $node = new_node('big', settings => <<"CONF");
fsync = off
synchronous_commit = off
shared_buffers = 256MB
dynamic_shared_memory_type = posix
streamext.live_memory = '${\LIVE_MEMORY}MB'
maintenance_work_mem = '${\MAINTENANCE_MEMORY}MB'
log_temp_files = -1
CONF
new_database($node, 'app');

sub query
{
	return $node->safe_psql('app', shift);
}

# ---- memory ----

my $samples = "$ENV{TESTDIR}/samples";

# one sample: [ what, pid, private, shared ], in kB, of each of our processes
my %shared;

sub sample
{
	my ($n) = @_;
	my @result;
	open my $pidfile, '<', $node->data_dir . '/postmaster.pid' or return;
	chomp(my $postmaster = <$pidfile> // '');
	close $pidfile;
	my $children = eval { slurp_file("/proc/$postmaster/task/$postmaster/children") } // '';
	for my $pid (split ' ', $children)
	{
		my $title = eval { slurp_file("/proc/$pid/cmdline") } // '';
		next unless $title =~ /streamext (\w+)/;
		my $what = $1;
		my $status = eval { slurp_file("/proc/$pid/status") } // '';
		next unless $status =~ /^RssAnon:\s+(\d+)/m;
		my $private = $1;
		# the kernel walks all that is mapped for this one, so not each time
		if ($n % 5 == 0 || !exists $shared{$pid})
		{
			my $maps = eval { slurp_file("/proc/$pid/smaps") } // '';
			my $rss = 0;
			$rss += $1 while $maps =~ m{ /dev/shm/PostgreSQL\.\d+\n.*?^Rss:\s+(\d+)}msg;
			$shared{$pid} = $rss;
		}
		my $shared = $shared{$pid} // 0;
		push @result, [ $what, $pid, $private, $shared ];
	}
	return @result;
}

my $sampler = fork;
die "fork: $!" unless defined $sampler;
if ($sampler == 0)
{
	# ends with the test, whatever becomes of that
	my $parent = getppid;
	open my $out, '>>', $samples or POSIX::_exit(1);
	$out->autoflush;
	for (my $n = 0; getppid == $parent; $n++)
	{
		print $out join(' ', @$_), "\n" for sample($n);
		sleep 0.1;
	}
	POSIX::_exit(0);
}

my $read = 0;

# the highest since the last call
sub memory
{
	my ($name) = @_;
	my %most;
	my $n = 0;
	open my $in, '<', $samples or die "$samples: $!";
	seek $in, $read, 0;
	while (my $line = <$in>)
	{
		my ($what, $pid, $private, $shared) = split ' ', $line;
		next unless $line =~ /\n$/;
		$n++;
		my $m = $most{$what} //= { sum => 0, private => 0, shared => 0 };
		$m->{private} = $private if $private > $m->{private};
		$m->{shared} = $shared if $shared > $m->{shared};
		$m->{sum} = $private + $shared if $private + $shared > $m->{sum};
	}
	$read = tell $in;
	close $in;
	cmp_ok($n, '>', 10, "$name: memory was sampled");
	for my $what (sort keys %most)
	{
		my $m = $most{$what};
		my $mb = sprintf '%.1f', $m->{sum} / 1024;
		note(sprintf '%s: %s %.1f MB at most (private %.1f, live state %.1f)', $name, $what,
			map { $m->{$_} / 1024 } qw(sum private shared));
		cmp_ok($mb, '<', LIMIT, "$name: memory of the $what, in MB");
	}
	return;
}

# ---- processes and the log ----

my @workers;

sub workers
{
	return join ' ', map { "$_ " . join(',', worker_pids($node, $_)) } qw(launcher consumer flusher);
}

# the same since the last call with a list; the log has nothing of the sort
my $log_read = 0;

sub undisturbed
{
	my ($name) = @_;
	is(workers(), $workers[-1], "$name: no worker was restarted");
	my $log = slurp_file($node->logfile, $log_read);
	$log_read = -s $node->logfile;
	# stop_load() ends pgbench, which then may not have read all that the server had to say
	my @bad = grep { !/could not (?:receive|send) data (?:from|to) client|connection to client lost/ }
	  grep { /\b(?:ERROR|FATAL|PANIC|WARNING):/ || /could not/ } split /\n/, $log;
	is(join("\n", @bad), '', "$name: nothing went wrong, says the log");
	return;
}

sub finished
{
	my ($name, @views) = @_;
	my $seconds = elapsed(sub {
		is(query("SELECT streamext.wait_for(NULL, '20min')"), 't', "$name: everything is visible") });
	note(sprintf '%s: complete %.1f s after the last commit', $name, $seconds);
	oracle($node, 'app', $_, $name) for @views;
	is(query("SELECT string_agg(DISTINCT state, ' ') FROM streamext.status"), 'live', "$name: all views are live");
	return;
}

# ---- the streams ----

query(<<'SQL');
CREATE TABLE ev (k int NOT NULL, ts timestamptz NOT NULL, v int NOT NULL);
CREATE TABLE gr (k bigint NOT NULL, v int NOT NULL);
CREATE TABLE gs (k bigint NOT NULL, v int NOT NULL);
CREATE TABLE names (k int PRIMARY KEY, name text NOT NULL);
INSERT INTO names SELECT i, 'n' || i % 10 FROM generate_series(0, 99) i;
CREATE MATERIALIZED VIEW few WITH (streamext.continuous) AS
	SELECT k, count(*) AS n, sum(v) AS total, avg(v) AS mean, min(v) AS low, max(v) AS high FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(v) AS total FROM ev;
CREATE MATERIALIZED VIEW rare WITH (streamext.continuous) AS SELECT k, v FROM ev WHERE v % 100 = 0;
CREATE MATERIALIZED VIEW named WITH (streamext.continuous) AS
	SELECT name, count(*) AS n, sum(v) AS total FROM ev JOIN names USING (k) GROUP BY name;
CREATE MATERIALIZED VIEW by_minute WITH (streamext.continuous) AS
	SELECT streamext.tumble(ts, '1 minute') AS minute, k % 10 AS d, count(*) AS n, sum(v) AS total FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW by_gr WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total FROM gr GROUP BY k;
CREATE MATERIALIZED VIEW by_gs WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total FROM gs GROUP BY k;
CREATE PROCEDURE one_by_one(n int) LANGUAGE plpgsql AS $$
	BEGIN FOR i IN 1..n LOOP INSERT INTO gs VALUES (-i, i); COMMIT; END LOOP; END $$;
SQL
is(query('SELECT streamext.wait_for()'), 't', 'live');
my @of_ev = qw(few total rare named by_minute);
my $fill_ev = "INSERT INTO ev SELECT i % 100, '2026-01-01 UTC'::timestamptz + i * interval '1 ms', i % 1000 FROM generate_series(1, $rows) i";
@workers = (workers());

# ---- (a) many rows by one transaction ----

note(sprintf 'ev: inserted in %.1f s', elapsed(sub { query($fill_ev) }));
finished('rows', @of_ev);
memory('rows');
undisturbed('rows');

# ---- (b) many groups, by one transaction and by many ----

note(sprintf 'gr: inserted in %.1f s', elapsed(sub { query("INSERT INTO gr SELECT i, i % 7 FROM generate_series(1, $rows) i") }));
finished('groups', 'by_gr');
memory('groups');
undisturbed('groups');

my $chunks = "$ENV{TESTDIR}/chunks.bench";
append_to_file($chunks, <<'SQL');
INSERT INTO gs SELECT i, 1 FROM (SELECT :client_id * 1000000000::bigint + coalesce((SELECT nextval('chunk')), 0) * 1000 AS base) b,
	generate_series(base, base + 999) i;
SQL
query('CREATE SEQUENCE chunk');
my $transactions = $millions * 500;
note(sprintf 'gs: inserted in %.1f s', elapsed(sub {
	$node->command_ok([ 'pgbench', '-n', '-c', 2, '-j', 1, '-t', $transactions, '-f', $chunks, 'app' ], 'groups by many transactions') }));
finished('groups of many transactions', 'by_gs');
memory('groups of many transactions');
undisturbed('groups of many transactions');

note(sprintf 'gs: a million transactions in %.1f s', elapsed(sub { query('CALL one_by_one(1000000)') }));
finished('a million transactions', 'by_gs');
memory('a million transactions');
undisturbed('a million transactions');

# ---- (c) all at once, and small writers ----

my $small = "$ENV{TESTDIR}/small.bench";
append_to_file($small, <<'SQL');
\set k random(1, 10000000)
INSERT INTO ev VALUES (:k % 100, '2026-01-02 UTC'::timestamptz + :k * interval '1 ms', :k % 1000);
INSERT INTO gr VALUES (:k, 1);
SQL
{
	my $large = background($node, 'app');
	my $groups = background($node, 'app');
	my $writers = { out => '' };
	$writers->{run} = IPC::Run::start([ 'pgbench', '-n', '-c', 2, '-T', 3600, '-R', 200, '-f', $small, $node->connstr('app') ],
		'<', '/dev/null', '>', \$writers->{out}, '2>&1');
	statement($large, $fill_ev, 1);
	statement($groups, "INSERT INTO gs SELECT i, 1 FROM generate_series(1, $rows) i", 1);
	$_->{timer}->reset for ($large, $groups);
	for my $session ($large, $groups)
	{
		$session->{run}->pump until $session->{out} =~ /^done /m;
		$session->{in} .= "\\q\n";
		$session->{run}->finish;
	}
	stop_load($writers);
	finished('all at once', @of_ev, qw(by_gr by_gs));
	memory('all at once');
	undisturbed('all at once');
}

# ---- history ----

query(<<'SQL');
CREATE MATERIALIZED VIEW late_ev WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW late_gs WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v) AS total FROM gs GROUP BY k;
CREATE MATERIALIZED VIEW late_rows WITH (streamext.continuous) AS SELECT k, v FROM gs WHERE v < 3;
CREATE MATERIALIZED VIEW late_fails WITH (streamext.continuous) AS SELECT k % 100 AS d, count(*) AS n, sum(1 / (k % 1000)) AS total FROM gs GROUP BY k % 100;
SQL
finished('history', qw(late_ev late_gs late_rows));
oracle($node, 'app', 'late_fails', 'history with rows that fail',
	'SELECT k % 100 AS d, count(*) AS n, sum(1 / (k % 1000)) AS total FROM gs WHERE k % 1000 <> 0 GROUP BY k % 100');
is(query('SELECT count(*) FROM streamext.dead_letters'), query('SELECT count(*) FROM gs WHERE k % 1000 = 0'),
	'history with rows that fail: each is a dead letter');
memory('history');
undisturbed('history');

# ---- a crash in the middle of a flush, and of what a builder writes ----

for my $what (qw(flusher builder))
{
	my $name = "crash of the server while the $what writes";
	my $session = background($node, 'app');
	my $sql = $what eq 'flusher' ? 'CALL one_by_one(300000)' : "INSERT INTO gs SELECT i, 1 FROM generate_series(1, $rows, 5) i";
	statement($session, $sql, 1);
	ok(wait_until("the $what to write", 120, sub {
		$session->{run}->pump_nb;
		query("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'streamext $what' AND backend_xid IS NOT NULL") > 0;
	}), $name);
	$node->stop('immediate');
	eval { $session->{run}->finish };
	$node->start;
	$log_read = -s $node->logfile;
	ok(query_until($node, 'postgres', 'SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type IN ($$streamext consumer$$, $$streamext flusher$$)',
			't', 60), "$name: the workers are there");
	push @workers, workers();
	finished($name, qw(few by_gr by_gs late_gs));
	memory($name);
	undisturbed($name);
}

$node->stop;
kill 'TERM', $sampler;
waitpid $sampler, 0;
done_testing();
