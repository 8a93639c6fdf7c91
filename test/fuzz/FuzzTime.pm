# FuzzTime.pm
#		Event time for the differential tests: streams with an event time, views of windows and sessions,
#		and calls of the functions of event time with arguments that mostly make no sense.
#
# Streams merge late rows, so that every view equals its query, whatever closes when.  A view with emit =
# on_close equals the rows of its query that are final.  Sessions have a query of their own (gaps and islands).
# The last row that a sink with corrections has of a window is the one of the view.
#
# Event times go on with the rows, from a winter night into summer time, with some from all over the calendar.
package FuzzTime;

use strict;
use warnings;

use Exporter 'import';
use FuzzData;

our @EXPORT = qw(make_event_time make_time_query make_garbage make_garbage_setup time_zone);

# rows so far: event times go on with them
my $clock = 0;

sub moment
{
	my ($minutes) = @_;
	my $base = 9 * 60 + $minutes;
	# from 2024-03-30 09:00 UTC
	my $day = 30 + int($base / 1440);
	return $day <= 31 ? sprintf('2024-03-%02d %02d:%02d:%02d', $day, $base / 60 % 24, $base % 60, rnd(60))
	  : sprintf('2024-04-%02d %02d:%02d:%02d', $day - 31 > 30 ? 30 : $day - 31, $base / 60 % 24, $base % 60, rnd(60));
}

my @days = ('2024-01-31', '2024-02-29', '2023-12-31', '2024-01-01', '2024-10-27', '2024-11-03', '2000-01-03', '1999-12-31', '1970-01-01',
	'0001-12-31 BC', '0044-03-15 BC', '4000-01-01 BC', '1582-10-15', '9999-12-31');
my @hours = ('00:00:00', '23:59:59.999999', '00:30:00', '01:00:00', '01:59:59', '02:30:00', '03:00:00', '12:34:56.789');

sub some_time
{
	my ($day, $bc) = split / (?=BC)/, one_of(@days);
	return "$day " . one_of(@hours) . ($bc ? ' BC' : '');
}

sub next_time
{
	my ($infinite) = @_;
	$clock += 1 + rnd(9);
	my $kind = rnd(100);
	return one_of('infinity', '-infinity') if $kind < 2 && $infinite;
	return moment($clock) if $kind < 60;
	return moment($clock < 200 ? rnd($clock) : $clock - rnd(200)) if $kind < 85;
	return some_time();
}

# not among the types of other columns: their expressions would meet infinity and the ends of the calendar
$TYPES{event_tz} = { sql => 'timestamptz', class => 'event_tz', v => sub { my $t = next_time(1); $t =~ /infinity/ ? $t : $t =~ /BC/ ? $t =~ s/ BC/+00 BC/r : "$t+00" } };
$TYPES{event_ts} = { sql => 'timestamp', class => 'event_ts', v => sub { next_time(1) } };
$TYPES{event_d} = { sql => 'date', class => 'event_d', v => sub { my $t = next_time(1); $t =~ /infinity/ ? $t : $t =~ s/ \d\d:\S+//r =~ s/2024-03-(\d\d)/'2024-03-' . sprintf('%02d', 1 + ($1 + $clock) % 31)/er } };
$TYPES{event_i} = { sql => 'int8', class => 'event_i', v => sub { $clock += 1 + rnd(9); chance(60) ? $clock - 300 : chance(60) ? $clock - rnd(300) - 300 : one_of(-999999999999, 1000000000000, 0, -1, rnd(2000) - 1000) } };

# make_event_time(STREAM): its column, and the statements that declare it
sub make_event_time
{
	my ($t) = @_;
	$clock = 0;
	my $number = $t->{event}{type} eq 'event_i';
	my @options;
	push @options, "watermark_delay => '" . one_of('0', '1 minute', '90 minutes', '1 day') . "'" if chance(50) && !$number;
	push @options, "allowed_lateness => '" . one_of('0', '1 second', '2 hours', '5 days') . "'" if chance(40) && !$number;
	push @options, "idle_timeout => '" . one_of('0', '50 ms', '1 hour') . "'" if chance(25) && !$number;
	push @options, "max_future => '" . one_of('0', '1 minute', '10000 years') . "'" if chance(30) && !$number;
	return "SELECT streamext.create_stream('s', " . join(', ', "event_time => 'et'", @options) . ");";
}

sub time_zone { return one_of('UTC', 'UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kolkata'); }

# windows of each type: [ expression, type of the key ]
my @zones = ('Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'UTC', 'Pacific/Apia');
my %windows = (
	event_tz => [
		sub { my ($c) = @_; [ "streamext.tumble($c, '" . one_of('1 minute', '7 minutes', '1 hour', '36 hours', '1 day', '7 days', '0.5 second') . "')", 'tz' ] },
		sub { my ($c) = @_; [ "streamext.tumble($c, '" . one_of('15 minutes', '1 day', '1 week', '1 month', '3 months', '1 year') . "', '" . one_of(@zones) . "')", 'tz' ] },
		sub { my ($c) = @_; [ "streamext.tumble($c, '" . one_of('1 hour', '5 hours', '10 days') . "', timestamptz '" . one_of('2024-03-31 00:17+00', '1969-12-31 23:59:59+00', '0100-01-01 BC') . "')", 'tz' ] },
		sub { my ($c) = @_; my ($slide, $size) = @{ one_of([ '1 minute', '3 minutes' ], [ '10 minutes', '1 hour' ], [ '1 hour', '1 hour' ], [ '6 hours', '1 day' ], [ '1 day', '7 days' ]) };
			[ "streamext.hop($c, '$slide', '$size'" . one_of('', '', ", timestamptz '2024-01-01 00:05+00'") . ')', 'tz', 1 ] },
		sub { my ($c) = @_; my ($slide, $size) = @{ one_of([ '1 day', '3 days' ], [ '1 month', '3 months' ], [ '30 minutes', '2 hours' ]) };
			[ "streamext.hop($c, '$slide', '$size', '" . one_of(@zones) . "')", 'tz', 1 ] },
		sub { my ($c) = @_; my ($step, $size) = @{ one_of([ '10 minutes', '1 hour' ], [ '1 hour', '6 hours' ], [ '12 hours', '1 day' ]) };
			[ "streamext.cumulate($c, '$step', '$size'" . one_of('', ", '" . one_of(@zones) . "'") . ')', 'range', 1 ] },
		sub { my ($c) = @_; [ "streamext.cumulate($c, '7 days', '1 month', '" . one_of(@zones) . "')", 'range', 1 ] },
		sub { my ($c) = @_; [ "date_trunc('" . one_of('minute', 'hour', 'day', 'week', 'month', 'quarter', 'year', 'century') . "', $c" . one_of('', ", '" . one_of(@zones) . "'") . ')', 'tz' ] },
		sub { my ($c) = @_; [ "date_bin('" . one_of('15 minutes', '2 days') . "', $c, timestamptz '2001-01-01 00:00+00')", 'tz' ] },
		sub { my ($c) = @_; [ "($c)::date", 'd' ] },
		sub { my ($c) = @_; [ $c, 'tz' ] },
		sub { my ($c) = @_; [ "($c AT TIME ZONE 'UTC')::date", 'd' ] },
	],
	event_ts => [
		sub { my ($c) = @_; [ "streamext.tumble($c, '" . one_of('1 minute', '1 hour', '36 hours', '1 day', '7 days', '1 month', '1 year') . "')", 'ts' ] },
		sub { my ($c) = @_; [ "streamext.tumble($c, '" . one_of('1 hour', '5 hours', '10 days', '1 month') . "', timestamp '" . one_of('2024-03-28 00:17', '1969-12-01 23:59:59') . "')", 'ts' ] },
		sub { my ($c) = @_; my ($slide, $size) = @{ one_of([ '10 minutes', '30 minutes' ], [ '1 day', '5 days' ], [ '1 month', '3 months' ], [ '12 hours', '3 days' ]) };
			[ "streamext.hop($c, '$slide', '$size')", 'ts', 1 ] },
		sub { my ($c) = @_; my ($step, $size) = @{ one_of([ '10 minutes', '1 hour' ], [ '1 day', '7 days' ], [ '10 days', '1 month' ]) };
			[ "streamext.cumulate($c, '$step', '$size')", 'range', 1 ] },
		sub { my ($c) = @_; [ "date_trunc('" . one_of('hour', 'day', 'week', 'month', 'decade') . "', $c)", 'ts' ] },
		sub { my ($c) = @_; [ "date_bin('" . one_of('15 minutes', '2 days') . "', $c, timestamp '2001-01-01')", 'ts' ] },
		sub { my ($c) = @_; [ "($c)::date", 'd' ] },
	],
	event_d => [
		sub { my ($c) = @_; [ "streamext.tumble($c, '" . one_of('1 day', '7 days', '10 days', '1 month', '3 months', '1 year') . "')", 'd' ] },
		sub { my ($c) = @_; [ "streamext.tumble($c, '" . one_of('7 days', '1 month') . "', date '2024-01-05')", 'd' ] },
		sub { my ($c) = @_; my ($slide, $size) = @{ one_of([ '1 day', '3 days' ], [ '7 days', '28 days' ], [ '1 month', '3 months' ]) };
			[ "streamext.hop($c, '$slide', '$size'" . one_of('', ", date '2024-01-05'") . ')', 'd', 1 ] },
		sub { my ($c) = @_; my ($step, $size) = @{ one_of([ '1 day', '7 days' ], [ '10 days', '1 month' ]) };
			[ "streamext.cumulate($c, '$step', '$size')", 'range', 1 ] },
		sub { my ($c) = @_; [ "date_trunc('" . one_of('week', 'month') . "', $c)", 'tz' ] },
		sub { my ($c) = @_; [ $c, 'd' ] },
	],
	event_i => [
		sub { my ($c) = @_; [ "streamext.tumble($c, " . one_of(1, 7, 10, 1000) . one_of('', ', ' . one_of(-3, 5, 1000001)) . ')', 'i' ] },
		sub { my ($c) = @_; my ($slide, $size) = @{ one_of([ 1, 3 ], [ 10, 60 ], [ 7, 7 ]) };
			[ "streamext.hop($c, $slide, $size" . one_of('', ', ' . one_of(-3, 5)) . ')', 'i', 1 ] },
		sub { my ($c) = @_; my ($step, $size) = @{ one_of([ 1, 5 ], [ 50, 200 ]) }; [ "streamext.cumulate($c, $step, $size)", 'range', 1 ] },
		sub { my ($c) = @_; [ "($c / " . one_of(1, 10, 300) . ')', 'i' ] },
		sub { my ($c) = @_; [ $c, 'i' ] },
	],
);

# gap as it is written, as what differences are compared with, and as what is added to the last row
my %sessions = (
	event_tz => sub { my $m = one_of(1, 2, 5, 30, 600); [ "'$m minutes'", "interval '$m minutes'", 'tstzrange', "+ interval '$m minutes'" ] },
	event_ts => sub { my $m = one_of(1, 3, 10, 1440); [ "'$m minutes'", "interval '$m minutes'", 'tsrange', "+ interval '$m minutes'" ] },
	event_d => sub { my $m = one_of(1, 2, 5); [ "'$m days'", $m, 'daterange', "+ $m" ] },
	event_i => sub { my $m = one_of(1, 2, 5, 20); [ $m, $m, 'int8range', "+ $m" ] },
);

# what a condition may compare the window with
my %some = (tz => "timestamptz '2024-03-31 00:00+00'", ts => "timestamp '2024-03-31'", d => "date '2024-03-31'", i => '0');

# make_time_query(STREAM): as make_query; with `oracle` where that is another query, `on_close`, and `sink`
sub make_time_query
{
	my ($t) = @_;
	my $type = $t->{event}{type};
	my $session = chance(25) ? $sessions{$type}->() : undef;
	my (@keys, @conditions);
	push @keys, one_of('t.k', 't.k % 3', 't.v > 2', "coalesce(t.k, 0) + 1") if chance(65);
	push @keys, 't.at' if chance(5);
	my @others = grep { $_->{type} =~ /^(int4|int8|text|textc|bool|date|uuid|enum|dec|code)$/ } @{ $t->{cols} };
	push @keys, "t." . one_of(@others)->{name} if @others && chance(25);
	my @aggregates = grep { chance(50) } 'count(*)', 'sum(t.v)', 'min(t.id)', 'max(t.k)', 'avg(t.v)', 'count(t.x)', 'sum(t.k) FILTER (WHERE t.v > 0)', 'bool_or(t.v > 3)';
	@aggregates = ('count(*)') unless @aggregates;
	push @conditions, one_of('t.k > 1', 't.v IS NOT NULL', 't.id % 3 > 0', "t.et > $some{ { event_tz => 'tz', event_ts => 'ts', event_d => 'd', event_i => 'i' }->{$type} }") if chance(30);
	push @conditions, 'isfinite(t.et)' if $session && $type ne 'event_i';
	my $join = chance(15) ? ' JOIN look l ON l.k = t.k' : '';
	my $where = @conditions ? ' WHERE ' . join(' AND ', @conditions) : '';
	my $having = chance(12) ? ' HAVING count(*) > 1' : '';
	my $names = join '', map { "$keys[$_] AS g$_, " } 0 .. $#keys;
	my $results = join '', map { ", $aggregates[$_] AS a$_" } 0 .. $#aggregates;
	my ($sql, $oracle, $class);

	if ($session)
	{
		my ($gap, $difference, $range, $plus) = @$session;
		my $window = "streamext.session(t.et, $gap)";
		my $over = @keys ? 'PARTITION BY ' . join(', ', @keys) . ' ORDER BY t.et' : 'ORDER BY t.et';
		my $columns = join ', ', 't.*';
		$sql = "SELECT ${names}$window AS w$results FROM __S__ t$join$where GROUP BY " . join(', ', @keys, $window) . $having;
		my $rows = "SELECT $columns FROM __S__ t$join$where";
		$oracle = "SELECT ${names}$range(min(t.et), max(t.et) $plus) AS w$results"
		  . " FROM (SELECT t.*, count(*) FILTER (WHERE t.starts_) OVER ($over RANGE UNBOUNDED PRECEDING) AS island_"
		  . " FROM (SELECT t.*, coalesce(t.et - lag(t.et) OVER ($over) >= $difference, true) AS starts_ FROM ($rows) t) t) t"
		  . ' GROUP BY ' . join(', ', @keys, 'island_') . $having;
		$class = 'range';
	}
	else
	{
		my ($window, $what, $several) = @{ one_of(@{ $windows{$type} })->('t.et') };
		my $number = @keys + 1;
		$class = $what;
		$sql = "SELECT ${names}$window AS w$results FROM __S__ t$join$where GROUP BY " . join(', ', @keys, chance(50) ? $window : $number) . $having;
	}
	my $query = { sql => $sql, oracle => $oracle, timed => 1, outputs => [ [ 'w', $class ] ], refuse => undef };
	$query->{read_test} = one_of("w >= $some{$class}", "w < $some{$class}") if $some{$class};
	$query->{on_close} = 1 if chance(25);
	$query->{sink} = 1 if !$session && chance(25);
	$query->{read} = chance(40);
	return $query;
}

# ---- what makes no sense ----

sub garbage_interval
{
	return one_of("'0'", "'-1 day'", "'1 month'", "'178000000 years'", "'-178000000 years'", "'9223372036854 seconds'", "'infinity'", "''", "'5'", 'NULL', "'1 day -25 hours'",
		"'0.0000001 s'", "'10000000 days'", "'1 mon -30 days'", "'2 minutes'");
}

sub make_garbage_setup
{
	return ('CREATE TABLE g (tz timestamptz NOT NULL, ts timestamp NOT NULL, d date NOT NULL, i int8 NOT NULL, n numeric NOT NULL, maybe timestamptz, t text, "od d" timestamptz NOT NULL, '
		  . 'made date GENERATED ALWAYS AS (d + 1) STORED NOT NULL);',
		"CREATE TABLE gs (w timestamptz, a1 int8, t text, at bigserial);", 'CREATE VIEW gv AS SELECT * FROM g;');
}

# one statement: an error of it is clean, and whatever it does, the server stays up and other views exact
sub make_garbage
{
	my $column = one_of("'tz'", "'ts'", "'d'", "'i'", "'n'", "'maybe'", "'t'", "'od d'", "'made'", "'ctid'", "'nope'", "''", 'NULL', "'TZ'", "'tz '");
	my $late = one_of("'merge'", "'drop'", "'dead_letter'", "'MERGE'", "''", "'keep'", 'NULL', "'drop '");
	my $table = one_of("'g'", "'g'", "'g'", "'gs'", "'gv'", "'look'", "'pg_class'", "'v1'", '0', '4294967295', 'NULL', "'streamext.view_def'");
	my $view = one_of("'gview'", "'gview'", "'v1'", "'v2'", "'g'", "'gs'", '0', 'NULL', "'pg_type'", "'streamext.status'");
	my $name = one_of("'x'", "'x'", "''", 'NULL', "repeat('x', 100)", "'ä\"q'", "E'a\\nb'");
	my $window = one_of("streamext.tumble(tz, '1 minute')", "streamext.tumble(i, 10)", "date_trunc('hour', ts)", 'd', 'tz', "streamext.hop(tz, '1 minute', '3 minutes')",
		"streamext.hop(i, 0, 10)", "streamext.hop(i, 3, 10)", "streamext.tumble(tz, '0')", "streamext.tumble(tz, NULL)", "streamext.tumble(tz, '1 month')",
		"streamext.tumble(tz, '1 day', 'Nowhere/Else')", "streamext.cumulate(d, '1 hour', '1 day')", "streamext.session(tz, '0')", "streamext.session(tz, '1 month')",
		"streamext.session(tz, '1 minute') + streamext.session(tz, '2 minutes')", "streamext.session(maybe, '1 minute')", "streamext.session(i, -1)", "streamext.session(d, '1 hour')",
		"streamext.session(streamext.tumble(tz, '1 hour'), '1 minute')", "streamext.tumble(tz, '1 minute' * length(t))", "streamext.hop(tz, '1 second', '1 hour')",
		"streamext.tumble(tz, '178000000 years')", "streamext.window_end(tz, '1 hour')", "streamext.session(tz, NULL)", "streamext.session(i, 9223372036854775807)");
	my $options = one_of('', ", streamext.emit = 'on_close'", ", streamext.emit = ''", ", streamext.retention = '1 day'", ", streamext.retention = '-1'", ", streamext.retention = ''",
		", streamext.retention = 'infinity'", ", streamext.retention = '178000000 years'", ', streamext.emit', ", streamext.emit = 'on_close', streamext.retention = '0'");
	my $value = one_of('now()', 'NULL::timestamptz', "'infinity'::timestamptz", "'-infinity'::timestamptz", '1::int8', "'x'::text", 'NULL', "date '2024-01-01'", "'empty'::tstzrange");
	return one_of(
		sub { "SELECT streamext.create_stream($table, event_time => $column, watermark_delay => " . garbage_interval() . ", allowed_lateness => " . garbage_interval()
			  . ", late_rows => $late, idle_timeout => " . garbage_interval() . ", max_future => " . garbage_interval() . ')' },
		sub { "SELECT streamext.create_stream('g', event_time => " . one_of("'tz'", "'i'", "'d'", "'ts'") . ", late_rows => " . one_of("'merge'", "'drop'", "'dead_letter'") . ')' },
		sub { "SELECT streamext.alter_stream($table, " . one_of("event_time => $column", "late_rows => $late", 'watermark_delay => ' . garbage_interval(), 'allowed_lateness => ' . garbage_interval(),
			'idle_timeout => ' . garbage_interval(), 'max_future => ' . garbage_interval()) . ')' },
		sub { "SELECT streamext.alter_stream('s', " . one_of('watermark_delay', 'allowed_lateness', 'idle_timeout', 'max_future') . ' => ' . garbage_interval() . ')' },
		sub { "SELECT streamext.drop_stream($table)" },
		sub { "DROP MATERIALIZED VIEW IF EXISTS gview; CREATE MATERIALIZED VIEW gview WITH (streamext.continuous, streamext.stream = 'g'$options) AS SELECT $window AS w, count(*) AS a1 FROM g GROUP BY 1" },
		sub { "DROP MATERIALIZED VIEW IF EXISTS gview; CREATE MATERIALIZED VIEW gview WITH (streamext.continuous, streamext.stream = 'g'$options) AS SELECT $window AS w, count(*) AS a1 FROM g GROUP BY $window" },
		sub { 'ALTER MATERIALIZED VIEW gview ' . one_of('SET (' . ($options =~ s/^, //r || 'streamext.emit = 1') . ')', 'RESET (streamext.emit)', 'RESET (streamext.retention, streamext.nope)') },
		sub { "SELECT streamext.create_sink($view, $table" . one_of('', ', corrections => true', ', existing => true', ', corrections => NULL') . ')' },
		sub { "SELECT streamext.create_sink('gview', 'gs', " . one_of('true', 'false') . ', ' . one_of('true', 'false') . ')' },
		sub { "SELECT streamext.drop_sink($view, $table)" },
		sub { "SELECT streamext.create_alert($name, $view, " . one_of("'a1 > 1'", "''", "'a1'", "'1 / 0 > a1'", "'a1 > 1; DROP TABLE g'", "'a1 > (SELECT 1)'", "'true'", 'NULL', "'now() > w'", "'w IS NULL) OR (true'",
			"'streamext.is_final(''gview'', w)'", "'a1 > 1 -- '", "'count(*) > 1'", "repeat('(', 5000)") . ', ' . one_of("'ch'", "''", 'NULL', "repeat('c', 64)", "'a b'") . ')' },
		sub { "SELECT streamext.drop_alert($name)" },
		sub { "SELECT count(streamext.is_final($view, $value))" },
		sub { "SELECT count(*) FROM gview WHERE streamext.is_final('gview', " . one_of('w', $value) . ')' },
		sub { "SELECT count(*) FROM g WHERE streamext.is_final('gview', " . one_of('tz', 'i', 't') . ')' },
		sub { "SELECT streamext.watermark($table)" },
		sub { "SELECT streamext.retry_dead_letters($view)" },
		sub { "SELECT count(*) FROM streamext.verify($view)" },
		sub { "SELECT $window FROM g" },
		sub { "INSERT INTO g SELECT m, m, m, i, i, NULL, i::text, m FROM (SELECT i, timestamptz '" . one_of('2024-01-01', '2024-06-01', '0100-01-01 BC', 'infinity', '-infinity', '290000-01-01') . "' + i * interval '20 seconds' AS m FROM generate_series(1, "
			  . (1 + rnd(30)) . ') i) x' },
		sub { 'INSERT INTO g SELECT now(), now(), current_date, ' . one_of('9223372036854775807', '-9223372036854775808', '-1') . ", 1, NULL, 'x', now()" },
		sub { 'UPDATE streamext.stream_def SET late_rows = late_rows WHERE false' },
	)->() . ';';
}

1;
