# I1, I2, I3, I5, I6: a crash, an error, an end and a wait at every stop point (src/testing).
#
# Each point of src/testing/stop_points_list.h has a workload that reaches it; a point without
# one, or one that does not fire, fails.
#	crash	one point at a time; the server restarts; all views are exact
#	error	all points at once: each fires at its first hit while all workloads run, so faults
#			meet faults; views are always in a state that says so; then all are exact
#	end		the same, with FATAL, where workers catch errors: they end, shared memory stays
#	wait	all at once; whoever stops there holds up no writer, and no reader but where it holds
#			the lock that readers need; it is released; then all are exact
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextFaults;
use StreamextTest;
use Test::More;
use Time::HiRes qw(sleep time);

# point => workload that reaches it [, process]
my %plan = (
	(map { $_ => [ 'write', 'consumer' ] } qw(capture_snapshot capture_flushed capture_mapped capture_record capture_read)),
	(map { $_ => ['write'] } qw(consume_taken compute_slice compute_applied compute_done publish_half publish_locked
		published consumed)),
	(map { $_ => ['flush'] } qw(seal_begin seal_locked sealed flush_claimed flush_checked merge_deleted merge_written flush_merged
		flush_stored flush_appended windows_removed flush_noted flush_committed flush_protected flush_marked flush_requested generation_detached
		slot_advance slot_advanced)),
	(map { $_ => ['load'] } qw(helper_started helper_given helper_computed helper_collected)),
	(map { $_ => ['leave'] } qw(slot_created slot_reserved slot_persisted slot_drop consumer_leaves)),
	(map { $_ => ['pause'] } qw(join_position join_read join_computed join_published join_done detached detached_dropped
		pause_stored resume_stored)),
	(map { $_ => ['create'] } qw(views_loaded builder_started history_begin history_snapshot history_computed
		results_emptied results_merged results_stored history_committed catch_up_computed catch_up_committed
		builder_done create_required create_query create_table create_view create_registered drop_begin drop_done)),
	(map { $_ => ['create_bad'] } qw(history_scanned)),
	(map { $_ => ['create_chunks'] } qw(history_stored history_chunk_computed history_chunk_committed)),
	(map { $_ => ['create_empty'] } qw(scan_stored scan_found scan_part_committed scan_finished)),
	(map { $_ => ['attach_stream'] } qw(left)),
	(map { $_ => ['open'] } qw(open_rows_packed open_rows_loaded)),
	(map { $_ => ['restart'] } qw(launcher_start_worker consumer_started consumer_protected consumer_cleared)),
	(map { $_ => ['copy'] } qw(scout_looked)),
	(map { $_ => ['truncate'] } qw(settle_wait settled truncate_noted)),
	(map { $_ => ['rewrite'] } qw(file_noted)),
	(map { $_ => ['job'] } qw(job_started job_finished)),
	(map { $_ => ['expire'] } qw(expire_flushed expire_noted expire_deleted expire_dropped)),
	(map { $_ => ['attach'] } qw(mark_stored)),
	(map { $_ => ['alert'] } qw(alert_condition alert_created alert_dropped alerter_started alerter_tracked
		alerter_collected alert_evaluated alert_written alert_committed alert_failed alerter_leaves)),
	(map { $_ => ['recompute'] } qw(recompute_computed recompute_written recompute_committed)),
	(map { $_ => ['replace'] } qw(replace_begun swap_locked swap_rewritten swap_done swap_committed place_taken)),
	(map { $_ => [ 'read', 'backend' ] } qw(read_begin read_locked read_copied)),
);
# others that crash phases must not miss: a point by another way
my @more = ([ 'capture_read', 'create', 'builder' ], [ 'merge_written', 'create', 'builder' ],
	[ 'results_stored', 'create_bad' ], [ 'results_stored', 'create_chunks' ], [ 'history_committed', 'create_chunks' ], [ 'results_merged', 'create_empty' ], [ 'catch_up_committed', 'create_empty' ]);
# one at a time: under the lock that readers need, and in readers
my %alone = map { $_ => 1 } qw(publish_half publish_locked seal_locked read_begin read_locked read_copied);
# everything but reading, for the rounds in which all points are armed
my @all = qw(flush create create_chunks pause create_bad truncate rewrite attach restart leave create_empty copy attach_stream open alert replace expire job recompute load);

# ---- the list and the sources agree ----
my %list = stop_point_list();
my @points = sort keys %list;
my $sources = join "\n", map { slurp_file($_) } grep { !m{/testing/} } glob(source_dir() . '/src/*/*.c');
my %marks;
$marks{$_}++ for $sources =~ /SX_STOP_POINT(?:_OF)?\((\w+)/g;
is(join(' ', grep { !$marks{$_} } @points), '', 'every point of the list stands in the sources');
is(join(' ', grep { !$list{$_} } sort keys %marks), '', 'every point in the sources stands in the list');
is(join(' ', grep { !$plan{$_} } @points), '', 'every point has a workload');
is(join(' ', grep { !$list{$_} } sort keys %plan), '', 'and there are no others');
cmp_ok(scalar(@points), '>=', 25, 'there are many');

allow_in_log('terminated by signal 9: Killed');
my $node = new_node('stops', settings => "fsync = off\nstreamext.flush_interval = '200ms'\nstreamext.testing_chunk_blocks = 100\n");
new_database($node, $_) for qw(app other);
test_functions($node, 'app');
fault_views($node, 'app');
$node->safe_psql('other', 'CREATE TABLE ev (k int); INSERT INTO ev VALUES (1)');
all_exact($node, 'before') or BAIL_OUT('no start');

my $started = time;
# SX_PHASES="crash wait" in the environment of the test itself runs only these
my %phases = map { $_ => 1 } split / /, $ENV{SX_PHASES} || 'crash error terminate wait';

sub note_time
{
	my ($phase) = @_;
	note(sprintf('%s: %.1f s', $phase, time - $started));
	$started = time;
	return;
}

# ---- crash ----
if ($phases{crash})
{
	for my $case ((map { [ $_, @{ $plan{$_} } ] } @points), @more)
	{
		my ($point, $workload, $process) = @$case;
		my $name = "crash at $point" . ($process ? " of $process" : '') . " while $workload";
		my $from = log_position($node);
		my $filter = $process ? "'$process'" : 'NULL';
		my $run = start_workload($node, "SELECT testing.stop('$point', 'crash', process => $filter)", $workload);
		my $fired = crash_seen($node, $from, $point, 20);
		ok($fired, $name);
		$node->stop('immediate') unless $fired;
		finish_workload($run);
		last unless $fired && up_again($node, $from) && all_exact($node, $name);
	}
	note_time('crash');
}

# ---- error, end and wait: all points at once ----

# Runs all workloads, again and again, until every point has fired.  $meanwhile is SQL that is
# run all the time; what it prints is returned.
sub run_all
{
	my ($action, $meanwhile, @armed) = @_;
	my $list = join ',', @armed;
	my @run = (start_workload($node, join(';', map { "SELECT testing.stop('$_', '$action')" } @armed), 'flush'));
	my @printed;
	my $left = $list;
	# half a minute on a machine of its own
	my $end = time + 150;
	while ($left ne '' && time < $end)
	{
		for my $i (0, 1)
		{
			next if $run[$i] && $run[$i]->{handle}->pumpable;
			finish_workload($run[$i]) if $run[$i];
			$run[$i] = start_workload($node, '', $i ? reverse @all : @all);
		}
		my $out = test_query($node, <<"SQL") // next;
SELECT 'left: ' || coalesce(string_agg(point, ' ' ORDER BY point), '')
FROM testing.points() WHERE fired = 0 AND point = ANY ('{$list}');
$meanwhile;
SQL
		push @printed, grep { !/^left: / } split /\n/, $out;
		($left) = $out =~ /^left: (.*)/;
	}
	is($left, '', "$action: all points were reached");
	# sessions that end in the midst of something are part of it
	$_->{handle}->kill_kill(grace => 0) for @run;
	$node->safe_psql('app', 'SELECT testing.release()');
	return @printed;
}

# places from which an error does not end the process anyway
my $caught = qr/^(compute_|flush_|merge_|history_|results_|scan_|catch_up_|builder_|alert_(written|committed|failed))/;
for my $action (qw(error terminate))
{
	next unless $phases{$action};
	my @armed = grep { $list{$_} eq 'SX_ANY' && !$alone{$_} && ($action eq 'error' || /$caught/) } @points;
	my %silent = map { $_ => 1 } run_all($action, <<'SQL', @armed);
SELECT view || ' ' || state FROM streamext.status
WHERE state NOT IN ('live', 'backfilling', 'paused', 'failed') OR state = 'failed' AND (reason IS NULL OR last_error IS NULL)
SQL
	is(join('; ', sort keys %silent), '', "$action: every view is live or says why not");
	for my $point (grep { $alone{$_} && $list{$_} eq 'SX_ANY' } @points)
	{
		like(run_workload($node, "SELECT testing.stop('$point', '$action')", $plan{$point}->[0]),
			qr/stop point "$point"/, "$action: a reader fails at $point");
	}
	all_exact($node, $action);
	note_time($action);
}

if ($phases{wait})
{
	# while somebody waits, others write and read; then he goes on
	my $look = <<'SQL';
SELECT coalesce(string_agg(point, ' '), '') AS waiting, count(*) > 0 AS any FROM testing.points() WHERE waiting > 0 \gset
\if :any
SET statement_timeout = '10s';
INSERT INTO ev VALUES (6, 66, 'meanwhile');
SELECT NULL FROM by_key, total, parts LIMIT 1;
SELECT NULL FROM big, joined LIMIT 1;
SELECT unnest(string_to_array(:'waiting', ' '));
SELECT testing.release(unnest(string_to_array(:'waiting', ' ')));
\endif
SQL
	# a view that computes for too long is interrupted, and goes on in a process of its own
	my %interrupted = map { $_ => 1 } qw(compute_slice compute_applied);
	my @left = grep { !$alone{$_} } @points;
	# one whose process was killed while it waited, by another workload, was not looked at
	for my $round (1 .. 3)
	{
		my %went_on = map { $_ => 1 } run_all('wait', $look, @left);
		@left = grep { !$went_on{$_} && !$interrupted{$_} } @left;
		last unless @left;
	}
	is(join(' ', @left), '', 'wait: nowhere are writers or readers held up');

	# under the lock that readers need, only writers go on
	for my $point (sort keys %alone)
	{
		my $run = start_workload($node, "SELECT testing.stop('$point', 'wait')", $plan{$point}->[0]);
		ok(query_until($node, 'app', "SELECT waiting FROM testing.points() WHERE point = '$point'", '1', 20),
			"$point waits");
		my $meanwhile = "SET statement_timeout = '10s'; INSERT INTO ev VALUES (6, 66, 'meanwhile')";
		$meanwhile .= '; SELECT count(*) FROM by_key' if $list{$point} eq 'SX_ANY';
		ok(defined test_query($node, $meanwhile), 'others go on');
		$node->safe_psql('app', "SELECT testing.release('$point')");
		is(finish_workload($run), '', 'and it, too, when it is released');
	}
	all_exact($node, 'wait');
	note_time('wait');
}

no_orphans($node);
$node->stop;
done_testing();
