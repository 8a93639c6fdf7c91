# Checks.pm
#		What must hold after each round of the chaos test.
#
# All checks return a list of complaints; an empty one is what we want.
package Chaos::Checks;

use strict;
use warnings;

use Exporter 'import';

use Chaos::Batch qw(again_sql apply_sql letters_checks_sql repair_all_sql settle_batch_sql);
use Chaos::EventTime qw(alert_checks_sql settle_time_sql time_checks_sql);
use Chaos::Faults qw(children killed_pids);
use Chaos::Schema qw(oracle_sql has_letters);
use PostgreSQL::Test::Utils;
use StreamextTest qw(psql_anyway);
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(settle compare_views compare_time retry_letters remains check_log check_reader check_errors computed_again run_sql);

# what was computed again in all rounds: what => how often
my %computed_again;
sub computed_again { return \%computed_again }

# run_sql(NODE, DATABASE, SQL [, SECONDS]): (output, error or "")
sub run_sql
{
	my ($node, $database, $sql, $seconds) = @_;
	my ($out, $err, $late) = ('', '', 0);
	my $status = psql_anyway($node, $database, $sql, stdout => \$out, stderr => \$err, on_error_die => 0, on_error_stop => 1,
		timeout => $seconds // 60, timed_out => \$late);
	return ($out, 'timed out: ' . substr($sql, 0, 200)) if $late;
	return ($out, (defined $status && $status == 0) ? '' : ($err || 'psql failed') . ' in: ' . substr($sql, 0, 200));
}

# Ends what the round left half done.  keep_prepared: chance in percent for a prepared transaction.
sub settle
{
	my ($node, $database, $random, $keep_prepared) = @_;
	my ($gids, $error) = run_sql($node, $database,
		"SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid");
	return ($error) if $error;
	my $sql = '';
	for my $gid (split /\n/, $gids)
	{
		next if $random->chance($keep_prepared);
		$sql .= ($random->chance(60) ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid';\n";
	}
	$sql .= "SET lock_timeout = '30s';\n" . <<'SQL';
DO $$
DECLARE r record;
BEGIN
	-- renamed and not back
	FOR r IN SELECT c.oid, c.relname, c.relkind, n.name FROM chaos.name n JOIN pg_class c ON c.oid = n.oid WHERE c.relname <> n.name LOOP
		EXECUTE format('ALTER %s %I RENAME TO %I',
			CASE WHEN r.relkind = 'v' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, r.relname, r.name);
	END LOOP;
	FOR r IN SELECT c.relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
			WHERE a.attname = 'v_away' AND NOT a.attisdropped AND c.relname IN ('ev', 'pe', 'up') LOOP
		EXECUTE format('ALTER TABLE %I RENAME COLUMN v_away TO v', r.relname);
	END LOOP;
	-- views that were created, but of which nobody knows whether they began in time
	FOR r IN SELECT name FROM chaos.view WHERE NOT begun LOOP
		EXECUTE format('DROP MATERIALIZED VIEW IF EXISTS %I', r.name);
		DELETE FROM chaos.view WHERE name = r.name;
		DELETE FROM chaos.replaced WHERE name = r.name;
	END LOOP;
	FOR r IN SELECT view FROM streamext.view_def WHERE paused LOOP
		PERFORM streamext.resume(r.view);
	END LOOP;
END $$;
SQL
	my $out;
	($out, $error) = run_sql($node, $database, $sql . settle_time_sql(), 60);
	return ($error) if $error;

	$error = end_prepared($node, $database);
	return ($error) if $error;

	# pe2 may be out
	my $attached;
	($attached, $error) = run_sql($node, $database, "SELECT relispartition FROM pg_class WHERE oid = 'pe2'::regclass");
	return ($error) if $error;
	if ($attached ne 't')
	{
		my $attach = Chaos::Ddl::attach_sql(undef);
		my $end = time + 60;
		while (1)
		{
			(undef, $error) = run_sql($node, $database, "SET lock_timeout = '5s';\nBEGIN;\n${attach}COMMIT;\n");
			last unless $error && $error =~ /lock timeout/ && time < $end;
			# a prepared transaction holds the table
			my ($gid) = split /\n/, (run_sql($node, $database, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database() LIMIT 1'))[0];
			run_sql($node, $database, "COMMIT PREPARED '$gid'") if $gid;
		}
		return ($error) if $error;
	}
	(undef, $error) = run_sql($node, $database, settle_batch_sql());
	$error ||= end_prepared($node, $database);
	(undef, $error) = run_sql($node, $database, again_sql(), 90) unless $error;
	return $error ? ($error) : ();
}

# A view that waits for a prepared transaction would wait for ever; an error, or ""
sub end_prepared
{
	my ($node, $database) = @_;
	my ($out, $error) = run_sql($node, $database, 'SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()');
	return $error if $error || !$out;
	my $waits;
	($waits, $error) = run_sql($node, $database, "SELECT count(*) FROM streamext.view_def d LEFT JOIN streamext.view_position p ON p.view = d.view WHERE coalesce(p.start_lsn = '0/0', true)");
	return $error if $error || !$waits;
	my ($rest) = run_sql($node, $database, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid');
	(undef, $error) = run_sql($node, $database, join('', map { "COMMIT PREPARED '$_';\n" } split /\n/, $rest));
	return $error;
}

# Waits until all views have everything, then runs the oracle on each: those of which rows become
# dead letters, which the flush writes, or the others.
sub compare_views
{
	my ($node, $database, $seconds, $letters) = @_;
	my ($out, $error) = run_sql($node, $database, "SELECT streamext.wait_for(NULL, '$seconds s')", $seconds + 20);
	if ($error || $out ne 't')
	{
		my ($state) = run_sql($node, $database, "SELECT view, state, last_error, reason FROM streamext.status WHERE reason IS NOT NULL OR state <> 'live'");
		my ($activity) = run_sql($node, $database, 'SELECT pid, backend_type, wait_event, state, left(query, 100) FROM pg_stat_activity');
		return ("the views did not catch up in $seconds s: $error\n$state\n$activity");
	}
	($out, $error) = run_sql($node, $database, apply_sql());
	return ($error) if $error;
	my @complaints = grep { !/^#/ } split /\n/, $out;
	$computed_again{$1} += $2 while $out =~ /^#(\w+) (\d+)$/mg;
	my ($list, %ranges);
	($list, $error) = run_sql($node, $database, q{SELECT name, g, "from", "to" FROM chaos.recomputed ORDER BY g});
	return ($error) if $error;
	for my $line (split /\n/, $list)
	{
		my ($name, @range) = split /\|/, $line;
		push @{ $ranges{$name} }, \@range;
	}
	($list, $error) = run_sql($node, $database, 'SELECT name, g, snap, variant, stream FROM chaos.view ORDER BY name');
	return ($error) if $error;
	my $sql = '';
	for my $line (split /\n/, $list)
	{
		my ($name, $g, $snap, $variant, $stream) = split /\|/, $line, -1;
		next if has_letters($name) xor $letters;
		$sql .= oracle_sql({ name => $name, g => $g, snap => $snap eq '' ? undef : $snap, variant => $variant, stream => $stream, ranges => $ranges{$name} // [] });
	}
	($out, $error) = run_sql($node, $database, $sql, 120);
	return ($error) if $error;
	for my $line (split /\n/, $out)
	{
		push @complaints, "view differs: $line";
	}
	if (@complaints)
	{
		my ($state) = run_sql($node, $database, 'SELECT * FROM streamext.status; SELECT d.view::text, p.* FROM streamext.view_position p JOIN streamext.view_def d ON d.view = p.view; SELECT * FROM chaos.view; SELECT * FROM chaos.recomputed; SELECT * FROM pg_prepared_xacts; SELECT leaf::regclass, stream::regclass, kind, snapshot FROM streamext.attach_mark');
		push @complaints, $state;
	}
	return @complaints;
}

# After a flush: sinks, final rows, dead letters and alerts.
sub compare_time
{
	my ($node, $database, $seconds) = @_;
	my (undef, $error) = run_sql($node, $database, "SET streamext.wait_timeout = '60s'; SELECT streamext.flush()", 90);
	return ($error) if $error;
	my @complaints = compare_views($node, $database, $seconds, 1);
	my $list;
	($list, $error) = run_sql($node, $database, 'SELECT target, view, corrections, existing, since, changed_until FROM chaos.sink ORDER BY 1');
	return ($error) if $error;
	my $out;
	($out, $error) = run_sql($node, $database, time_checks_sql(map { [ split /\|/ ] } split /\n/, $list) . letters_checks_sql(), 60);
	push @complaints, split(/\n/, $out), $error ? $error : ();
	my $end = time + $seconds;
	my @alerts;
	while (1)
	{
		($out, $error) = run_sql($node, $database, alert_checks_sql());
		@alerts = (split(/\n/, $out), $error ? $error : ());
		last if !@alerts || time > $end;
		sleep 0.05;
	}
	push @complaints, @alerts;
	if (@complaints)
	{
		my ($state) = run_sql($node, $database, 'SELECT view, watermark, watermark_held_by, late_rows, dropped_rows, state, reason FROM streamext.status; SELECT * FROM streamext.sink; SELECT * FROM chaos.sink; SELECT * FROM streamext.stream_def; SELECT * FROM streamext.alert_status');
		push @complaints, $state;
	}
	return @complaints;
}

# Dead letters are counted in: then their views have everything.
sub retry_letters
{
	my ($node, $database, $seconds) = @_;
	my ($out, $error) = run_sql($node, $database, "BEGIN;\n" . repair_all_sql() . "COMMIT;\n" . <<'SQL');
SELECT streamext.retry_dead_letters(v) FROM (SELECT DISTINCT view AS v FROM streamext.dead_letters) x;
\echo rest
SELECT 'letters that stay: ' || count(*), min(message) FROM streamext.dead_letters HAVING count(*) > 0;
SQL
	return ($error) if $error;
	my @complaints = split /\n/, $out =~ s/.*^rest$//msr;
	shift @complaints if @complaints;
	return (@complaints, compare_views($node, $database, $seconds, 1), compare_time($node, $database, $seconds));
}

# What must not be left: polled, because workers tidy up in their own time.
sub remains
{
	my ($node, $database, $seconds) = @_;
	my $data = $node->data_dir;
	my $end = time + $seconds;
	my @complaints;
	while (1)
	{
		@complaints = ();
		my ($out, $error) = run_sql($node, $database, <<'SQL');
SELECT 'slot without its database: ' || slot_name FROM pg_replication_slots
	WHERE slot_name NOT IN (SELECT 'streamext_' || oid FROM pg_database);
SELECT 'slots of this database: ' || count(*) FROM pg_replication_slots
	WHERE slot_name = (SELECT 'streamext_' || oid FROM pg_database WHERE datname = current_database()) HAVING count(*) <> 1;
SELECT 'slot without protection: ' || slot_name FROM pg_replication_slots WHERE wal_status NOT IN ('reserved', 'extended') OR xmin IS NULL;
SELECT 'a table of nobody: ' || relname FROM pg_class
	WHERE relnamespace = 'streamext'::regnamespace AND relkind IN ('r', 'v', 'm') AND relname ~ '_[0-9]+$'
		AND oid NOT IN (SELECT mat FROM streamext.view_def UNION SELECT query FROM streamext.view_def UNION SELECT alert FROM streamext.alert_def
		UNION SELECT valid FROM streamext.stream_def WHERE valid IS NOT NULL);
SELECT 'position of no view: ' || view FROM streamext.view_position WHERE view NOT IN (SELECT view FROM streamext.view_def);
SELECT 'view that has no position: ' || view FROM streamext.view_def WHERE view NOT IN (SELECT view FROM streamext.view_position);
SELECT 'dead letter: ' || message FROM streamext.dead_letters WHERE reason = 'error' OR (reason = 'invalid' AND stream <> 'vs'::regclass) LIMIT 3;
SELECT 'mark of no table: ' || leaf FROM streamext.attach_mark WHERE leaf NOT IN (SELECT oid FROM pg_class);
SELECT 'worker: ' || string_agg(kind || ' ' || n, ', ') FROM (SELECT backend_type AS kind, count(*) AS n FROM pg_stat_activity
	WHERE backend_type LIKE 'streamext %' AND (datname = current_database() OR datname IS NULL) GROUP BY 1
	ORDER BY 1) w HAVING string_agg(kind || ' ' || n, ', ') IS DISTINCT FROM 'streamext alerter 1, streamext consumer 1, streamext flusher 1, streamext launcher 1';
SELECT 'worker of no database: ' || backend_type FROM pg_stat_activity WHERE backend_type LIKE 'streamext %' AND datname IS NOT NULL AND datname <> current_database();
SELECT 'not live: ' || view || ' ' || state || coalesce(' ' || reason, '') FROM streamext.status WHERE state <> 'live' OR reason IS NOT NULL;
SELECT 'shadow in limbo: ' || count(*) FROM chaos.shadow WHERE root_xid IS NULL AND gone IS NULL HAVING count(*) > 0;
SQL
		push @complaints, split(/\n/, $out), ($error ? $error : ());
		push @complaints, map { "temporary file $_" } glob("$data/base/pgsql_tmp/*");
		my @segments = glob("$data/pg_dynshmem/mmap.*");
		push @complaints, scalar(@segments) . ' shared memory segments' if @segments > 24;
		opendir(my $dir, "$data/pg_replslot") or die $!;
		my @slots = grep { !/^\./ } readdir $dir;
		push @complaints, "pg_replslot has @slots" if @slots != 1;
		return () unless @complaints;
		return @complaints if time > $end;
		sleep 0.1;
	}
}

# PostgreSQL's own: a backend that commits a DROP while the postmaster is killed waits for the checkpointer, which is
# gone, sees that the postmaster is, too, and cannot leave a transaction that has committed in any other way
my $committed = qr/PANIC:  cannot abort transaction \d+, it was already committed/;

# check_log(NODE, FROM, ORPHANED): complaints about what came since byte FROM, and the new end; ORPHANED: the postmaster was killed
sub check_log
{
	my ($node, $from, $orphaned) = @_;
	my $killed = killed_pids();
	my @complaints;
	my ($shutting_down, $consumer_left, %ended) = (0, 0);
	open(my $in, '<', $node->logfile) or return ([], 0);
	seek($in, $from, 0);
	while (my $line = <$in>)
	{
		chomp $line;
		$shutting_down = 1 if $line =~ /received (fast|immediate) shutdown request/;
		$shutting_down = 0 if $line =~ /starting PostgreSQL|database system is ready to accept/;
		# by the consumer, when its view is dropped or paused
		$ended{$1} = 1 if $line =~ /\[(\d+)\] FATAL:  terminating background worker "streamext (?:builder|swapper)" due to administrator command/;
		if ($line =~ /\(PID (\d+)\) was terminated by signal (\d+)/)
		{
			push @complaints, $line unless $2 == 9 && ($killed->{$1} // 0) == 9;
		}
		elsif ($line =~ /background worker "(streamext[^"]*)" \(PID (\d+)\) exited with exit code (\d+)/)
		{
			# 2: the postmaster ended all processes after a crash
			# a consumer ends the builders and the helper that its predecessor has left
			my ($what, $pid, $code) = ($1, $2, $3);
			$consumer_left = 1 if $what =~ /consumer/;
			push @complaints, $line unless $shutting_down || $code == 2 || $killed->{$pid} || ($what =~ /builder|swapper|helper/ && ($consumer_left || $ended{$pid}));
		}
		elsif ($line =~ /PANIC:|TRAP:|could not bring up continuous view|was stopped:|not served|could not start|segfault/)
		{
			# a view that is dropped while it is built; a builder that begins again, as it should
			next if $orphaned && $line =~ $committed;
			push @complaints, $line
			  unless $line =~ /the continuous view is gone|a table of the stream is locked|a file of the stream has just been replaced|has just become a partition|terminating connection|canceling statement due to user request/;
		}
		elsif ($line =~ /(invalid page|could not (open|read|access) file|unexpected data beyond|missing chunk|cache lookup failed|could not find tuple|attempted to (update|delete) invisible|out of (shared )?memory|flush request|not satisfied|snapshot too old.*\[streamext)/
			&& $line !~ /postmaster\.pid/)
		{
			push @complaints, $line;
		}
	}
	my $end = tell($in);
	close $in;
	return (\@complaints, $end);
}

# errors that the workload expects to meet
my @expected_errors = (
	qr/canceling statement due to lock timeout/,
	qr/canceling statement due to statement timeout/,
	qr/canceling statement due to user request/,
	qr/current transaction is aborted/,
	qr/division by zero/,
	qr/deadlock detected/,
	qr/prepared transaction with identifier "\S+" does not exist/,
	qr/prepared transaction with identifier "\S+" is busy/,
	qr/duplicate key value violates unique constraint "(up_pkey|view_pkey)"/,
	qr/could not serialize access due to concurrent update/,
	qr/no partition of relation "pe" found for row/,
	qr/relation "(ev|up|pe1|ev_away|up_away|pe1_away|dyn_\w|\w+_away)" (does not exist|already exists)/,
	qr/relation "\w+" does not exist/,
	qr/column "(v|v_away|up\.v|s\.v)" (of relation "\w+" )?(does not exist|already exists)/,
	qr/column (up|excluded|s|u)\.v does not exist/,
	qr/updated partition constraint for default partition "ped" would be violated/,
	qr/relation "pe2" is not a partition of relation "pe"/,
	qr/"pe2" is already a partition/,
	qr/cannot perform COPY FREEZE because (of prior transaction activity|the table was not created or truncated)/,
	qr/cannot run \S.* the rows of stream "\w+" are not in all its continuous views yet/,
	qr/not all rows could be flushed within/,
	qr/could not flush/,
	qr/did not (flush|catch up)/,
	qr/cannot (TRUNCATE|ALTER TABLE|DROP TABLE|CLUSTER|REINDEX) "\w+" because it is being used by active queries/,
	qr/alert "passing" (does not exist|already exists)/,
	qr/new row for relation "s_\w+" violates check constraint "broken"/,
	qr/relation "x_\d+" does not exist/,
	qr/ROLLBACK TO SAVEPOINT can only be used|SAVEPOINT can only be used|savepoint "\w+" does not exist/,
	qr/tuple to be (locked|updated|merged) was already (moved|modified)/,
	qr/continuous view "\w+" (is being rebuilt or replaced|cannot be built from the rows of its stream any more|has been replaced meanwhile|has not been built yet)/,
	qr/continuous view "\w+" (does not stand at a position that can be read now|has been replaced since this transaction's snapshot was taken)/,
	qr/windows of continuous view "\w+" cannot be computed (one by one|from the rows of its stream any more)/,
	qr/a continuous view on stream "\w+" is being built/,
	qr/cannot run streamext\.expire\(\)(: not all continuous views have read and stored their rows| while continuous view "\w+" is \w+)/,
	# what the reader had seen was only in memory, and is gone with the worker
	qr/could not read continuous view "\w+" at the position this session has already seen/,
);

my @lost_connection = (
	qr/terminating connection/, qr/server closed the connection/, qr/connection to server (was lost|at|on)/, qr/the database system is/,
	qr/could not connect|Connection refused|No such file or directory/, qr/SSL SYSCALL|no connection to the server|could not (send|receive)/,
);

# check_errors(FILE, CRASHED, ORPHANED): errors in a psql's output that nothing explains
sub check_errors
{
	my ($file, $crashed, $orphaned) = @_;
	my @complaints;
	open(my $in, '<', $file) or return ();
	while (my $line = <$in>)
	{
		chomp $line;
		next unless $line =~ /(ERROR|FATAL|PANIC):|psql: error/;
		next if grep { $line =~ $_ } @expected_errors;
		next if $crashed && grep { $line =~ $_ } @lost_connection;
		next if $orphaned && $line =~ $committed;
		push @complaints, substr($line, 0, 300);
	}
	return @complaints;
}

# check_reader(FILE): I5 in what the reader of the balance saw, and the number of reads
sub check_reader
{
	my ($file) = @_;
	my @complaints;
	my ($reads, @last, $repeat) = (0);
	open(my $in, '<', $file) or return ([], 0);
	while (my $line = <$in>)
	{
		if ($line =~ /^(repeat|repeated)$/)
		{
			$repeat = $line =~ /repeated/ ? undef : ($repeat // '');
			next;
		}
		# the last line may be cut off
		my ($sum, $n, $sum_all, $n_all, $sum_rows, $n_rows, $twice) =
		  $line =~ /^read\|(-?\d+)\|(\d+)\|(-?\d+)\|(\d+)\|(-?\d+)\|(\d+)\|(\d+)$/ or next;
		$reads++;
		push @complaints, "unbalanced: $line" if $sum || $sum_all || $sum_rows || $twice;
		if (defined $repeat)
		{
			push @complaints, "did not repeat: $repeat and $line" if $repeat ne '' && $repeat ne $line;
			$repeat = $line;
		}
		else
		{
			# REPEATABLE READ reads the tables alone, which may lie behind
			push @complaints, "went back: $line" if @last && ($n < $last[0] || $n_all < $last[1] || $n_rows < $last[2]);
			@last = ($n, $n_all, $n_rows);
		}
	}
	return (\@complaints, $reads);
}

1;
