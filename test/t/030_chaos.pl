# I1, I2, I3, I5, I6: random work, random commands and random faults, and every view stays exact.
#
# Each round: writers (Chaos/Workload.pm), a session of DDL (Chaos/Ddl.pm), one that computes views
# again (Chaos/Batch.pm) and a reader work while a random process is killed, terminated, cancelled or stopped (Chaos/Faults.pm);
# then all views are compared with an oracle (Chaos/Schema.pm) and nothing may be left
# behind (Chaos/Checks.pm).
#
#	make chaos ROUNDS=1000 SEED=7             by hand
#	make chaos ROUNDS=1 SEED=7 FIRST=123      one round again, as nearly as concurrency allows
#	KEEP=1                                    keeps the data of a failure
#
# A database serves some rounds; then it is dropped and a new one made, so that the raw
# rows stay few, and a round can be replayed from the first of its database.
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

use Chaos::Batch qw(batch_script batch_setup_sql);
use Chaos::Checks qw(settle compare_views compare_time retry_letters remains check_log check_reader check_errors computed_again run_sql);
use Chaos::Ddl qw(ddl_script);
use Chaos::EventTime;
use Chaos::Faults qw(choose_fault strike bring_up children killed_pids);
use Chaos::Random;
use Chaos::Schema qw(setup_sql);
use Chaos::Workload qw(writer_script reader_script);

my $seed = $ENV{SEED} || 20260101;
my $rounds = $ENV{ROUNDS} || 25;
# within make test: on a busy machine, fewer
my $limit = $ENV{ROUNDS} ? 0 : 200;
my $first = $ENV{FIRST} || 1;
my $rounds_per_database = Chaos::EventTime::ROUNDS_PER_DATABASE;
# a session that has not ended by then hangs
my $session_limit = 60;

# purposes of streams of random numbers
use constant { SETUP => 100, ROUND => 101, DDL => 102, READER => 103, SETTLE => 104, BATCH => 105 };

# the second only where the postmaster was killed: Chaos/Checks.pm
allow_in_log('terminated by signal 9: Killed|PANIC:  cannot abort transaction [0-9]+, it was already committed');
diag("seed $seed, rounds $first to " . ($first + $rounds - 1));
my $node = new_node('chaos', settings => <<'CONF');
checkpoint_timeout = 30s
wal_recycle = off
min_wal_size = 32MB
max_wal_size = 1GB
dynamic_shared_memory_type = mmap
log_min_error_statement = panic
backtrace_functions = 'AllocSetFree,AllocSetRealloc'
max_locks_per_transaction = 200
CONF

my $dir = $ENV{TESTDIR};
my ($database, $log_at, %struck, $reads, $failed) = ('', 0);
# of the round: what took how long
my (@took, $last_took);
my $started = time;

for my $round ($first .. $first + $rounds - 1)
{
	my $begun = time;
	if ($limit && $begun - $started > $limit && $round > $first + 4)
	{
		diag('no time for more than ' . ($round - $first) . " of $rounds rounds");
		last;
	}
	@took = ();
	$last_took = $begun;
	my @complaints = new_database_for($round);
	took('database') if time - $begun > 0.05;
	my $fault = { kind => 'none', victim => 'at all' };
	@complaints = one_round($round, $fault) unless @complaints;
	my $name = sprintf('round %d: %s %s%s, %.1f s (%s)', $round, $fault->{kind}, $fault->{victim},
		$fault->{missed} ? ' (none there)' : '', time - $begun, join(', ', @took));
	$struck{"$fault->{kind} $fault->{victim}"}++ unless $fault->{missed};
	unless (ok(!@complaints, $name))
	{
		$failed = 1;
		diag("seed $seed, round $round, database $database: $_") for @complaints;
		diag("scripts and outputs: $dir/round_${round}_*");
		last;
	}
	# of rounds that went well nothing is kept
	unlink glob("$dir/round_${round}_*") unless $ENV{KEEP};
}

note(join(', ', map { "$_: $struck{$_}" } sort keys %struck));
my $again = computed_again();
diag(join(', ', map { "$_ $again->{$_}" } sort keys %$again));
diag(sprintf('%.0f s', time - $started));
if ($failed)
{
	eval { $node->stop('immediate') };
}
else
{
	cmp_ok($reads, '>', 0, 'the reader of the balance has read');
	roll_back_prepared();
	my (undef, $error) = run_sql($node, 'postgres', "DROP DATABASE $database WITH (FORCE)");
	is($error, '', 'the last database goes');
	no_orphans($node);
	$node->stop;
}
done_testing();

# A new database every now and then, with the old one dropped while its workers run.
sub new_database_for
{
	my ($round) = @_;
	return () if $database ne '' && ($round - 1) % $rounds_per_database;
	my $random = Chaos::Random->new($seed, SETUP, int(($round - 1) / $rounds_per_database));
	my ($out, $error);
	if ($database ne '')
	{
		# its workers are told to go
		my $workers = children($node);
		$workers->{$_} =~ /streamext/ and killed_pids()->{$_} = 'dropped' for keys %$workers;
		roll_back_prepared();
		(undef, $error) = run_sql($node, $database, 'DROP EXTENSION streamext CASCADE') if $random->chance(30);
		return ($error) if $error;
		(undef, $error) = run_sql($node, 'postgres', "DROP DATABASE $database");
		return ($error) if $error;
		return ('the slot of a dropped database stays') unless query_until($node, 'postgres', 'SELECT count(*) FROM pg_replication_slots', '0', 30);
	}
	$database = 'chaos_' . $round;
	(undef, $error) = run_sql($node, 'postgres', "CREATE DATABASE $database");
	return ($error) if $error;
	(undef, $error) = run_sql($node, $database, setup_sql($random) . batch_setup_sql(), 60);
	return ($error) if $error;
	return compare_views($node, $database, 150);
}

# a database with prepared transactions cannot be dropped
sub roll_back_prepared
{
	my ($gids) = run_sql($node, $database, 'SELECT gid FROM pg_prepared_xacts');
	run_sql($node, $database, "ROLLBACK PREPARED '$_'") for split /\n/, $gids;
	return;
}

# session(NAME, SCRIPT): a psql that runs it
sub session
{
	my ($name, $script) = @_;
	append_to_file("$dir/$name.sql", $script);
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr($database) . " options='-c lock_timeout=1500ms -c statement_timeout=15s'",
			'-f', "$dir/$name.sql" ], '<', '/dev/null', '>', "$dir/$name.out", '2>&1', IPC::Run::timeout($session_limit));
	return { name => $name, run => $run, out => "$dir/$name.out" };
}

# finish(SESSION ...): complaints
sub finish
{
	my @complaints;
	for my $session (@_)
	{
		eval { $session->{run}->finish };
		if ($@ && $@ =~ /timeout/)
		{
			push @complaints, "session $session->{name} hangs";
			eval { $session->{run}->kill_kill(grace => 1) };
		}
	}
	if (@complaints)
	{
		my ($state) = run_sql($node, $database, 'SELECT pid, backend_type, wait_event_type, wait_event, state, now() - xact_start, pg_blocking_pids(pid), left(query, 200) FROM pg_stat_activity; SELECT view, state, last_error, reason FROM streamext.status WHERE reason IS NOT NULL');
		push @complaints, $state;
	}
	return @complaints;
}

sub took
{
	my ($what) = @_;
	my $now = time;
	push @took, sprintf('%s %.1f', $what, $now - $last_took);
	$last_took = $now;
	return;
}

sub one_round
{
	my ($round, $fault) = @_;
	my $random = Chaos::Random->new($seed, ROUND, $round);
	%$fault = %{ choose_fault($random) };
	my $writers = $random->between(2, 4);
	my $transactions = $random->one_of(10, 25, 25, 40);

	my @sessions = map { session("round_${round}_writer_$_",
			writer_script(Chaos::Random->new($seed, $_, $round), $round, $_, $transactions, $writers)) } 1 .. $writers;
	push @sessions, session("round_${round}_ddl", ddl_script(Chaos::Random->new($seed, DDL, $round), $round, $random->between(3, 9)));
	push @sessions, session("round_${round}_batch", batch_script(Chaos::Random->new($seed, BATCH, $round), $round, $random->between(3, 9)));
	my $reader = session("round_${round}_reader", reader_script(Chaos::Random->new($seed, READER, $round), 60));

	sleep $fault->{delay};
	my $crashed = strike($node, $fault);
	my $orphaned = $crashed && $fault->{victim} eq 'postmaster';
	my @complaints;
	if ($crashed)
	{
		push @complaints, finish(@sessions, $reader);
		return ('the server did not come up again') unless bring_up($node, $fault);
		if ($random->chance(40))
		{
			# and on, while the workers find their place
			my @more = map { session("round_${round}_again_$_",
					writer_script(Chaos::Random->new($seed, $_, $round, 1), $round, $_, 6, $writers)) } 5 .. 6;
			push @complaints, finish(@more);
			push @sessions, @more;
		}
	}
	else
	{
		push @complaints, finish(@sessions, $reader);
	}

	took('work');
	for my $session (@sessions, $reader)
	{
		push @complaints, map { "$session->{name}: $_" } check_errors($session->{out}, $crashed || $fault->{kind} eq 'terminate', $orphaned);
	}
	my ($seen, $n) = check_reader($reader->{out});
	push @complaints, @$seen;
	$reads += $n;
	my $settle = Chaos::Random->new($seed, SETTLE, $round);
	push @complaints, settle($node, $database, $settle, 40);
	took('settle');
	push @complaints, compare_views($node, $database, 150) unless @complaints;
	took('compare');
	push @complaints, compare_time($node, $database, 30) unless @complaints;
	took('time');
	if (!@complaints && $round % $rounds_per_database == 0)
	{
		push @complaints, retry_letters($node, $database, 30);
		took('letters');
	}
	if ($settle->chance(20) && !@complaints)
	{
		my (undef, $error) = run_sql($node, $database, "SET streamext.wait_timeout = '60s'; SELECT streamext.flush()", 90);
		push @complaints, $error || compare_views($node, $database, 150);
		took('flushed');
	}
	push @complaints, remains($node, $database, 20) unless @complaints;
	took('tidy');
	my ($log, $end) = check_log($node, $log_at, $orphaned);
	$log_at = $end;
	push @complaints, @$log;
	return @complaints;
}
