# test/demo/demo.pl
#		Replays twelve days of flights in arrival order, by several clients at once, while a
#		terminal reads continuous views, the watermark, late rows and alerts; at the end compares
#		each view with its query, and the alerts with what they should be.
#
# Called by test/lib/build.sh with a private server installed at SX_BINDIR.  Processes: this one
# reads and draws; each client is a child that feeds one psql.  KEEP=1 leaves the server up.
# ROWS, CLIENTS and SECONDS_TO_REPLAY change the replay.
use strict;
use warnings;

use IO::Handle;
use IPC::Open2;
use POSIX ();
use Time::HiRes qw(sleep time);

my $temp = $ENV{SX_TEMP};
my $top = $ENV{SX_TOP};
my $clients = $ENV{CLIENTS} || 4;
my $duration = $ENV{SECONDS_TO_REPLAY} || 20;
my $terminal = -t STDOUT;
my @psql = ('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-h', $temp, '-p', '5432', '-U', 'postgres');

my @views = (
	[ airport_hours => <<'SQL' ],
SELECT origin, streamext.tumble(ts, '1 hour') AS hour,
       count(*) AS flights, avg(delay) AS avg_delay, max(delay) AS max_delay
FROM flights
GROUP BY origin, streamext.tumble(ts, '1 hour')
SQL
	[ routes => <<'SQL' ],
SELECT origin, destination, count(*) AS flights, avg(delay) AS avg_delay, sum(distance) AS miles
FROM flights
GROUP BY origin, destination
SQL
	[ heavy_delays => <<'SQL' ],
SELECT ts, origin, destination, delay FROM flights WHERE delay >= 180
SQL
	[ cities => <<'SQL' ],
SELECT coalesce(a.city, f.origin) AS city, count(*) AS flights,
       count(*) FILTER (WHERE f.delay > 15) AS late, avg(f.delay) AS avg_delay
FROM flights f LEFT JOIN airports a ON a.code = f.origin
GROUP BY coalesce(a.city, f.origin)
SQL
	# a departure every quarter of an hour at least; the second query finds the same in the raw rows
	[ bursts => <<'SQL', <<'SQL' ],
SELECT origin, streamext.session(ts, '15 minutes') AS burst, count(*) AS flights, sum(distance) AS miles
FROM flights
GROUP BY origin, streamext.session(ts, '15 minutes')
SQL
WITH gaps AS (SELECT *, (ts - lag(ts) OVER (PARTITION BY origin ORDER BY ts) < interval '15 minutes') IS NOT TRUE AS begins FROM flights),
	runs AS (SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY origin ORDER BY ts ROWS UNBOUNDED PRECEDING) AS run FROM gaps)
SELECT origin, tstzrange(min(ts), max(ts) + interval '15 minutes'), count(*), sum(distance) FROM runs GROUP BY origin, run
SQL
	[ overall => <<'SQL' ]);
SELECT count(*) AS flights, avg(delay) AS avg_delay, max(delay) AS max_delay, sum(distance) AS miles
FROM flights
SQL

STDOUT->autoflush(1);
STDERR->autoflush(1);
$SIG{PIPE} = 'IGNORE';
$SIG{TERM} = sub { exit 1 };

# 1234567 -> 1,234,567
sub commas
{
	my $number = reverse int(shift);
	$number =~ s/(\d{3})(?=\d)/$1,/g;
	return scalar reverse $number;
}

sub run_or_die
{
	my ($log, @command) = @_;
	return if system("@command >$log 2>&1 </dev/null") == 0;
	system('tail', '-n', '30', $log, "$temp/server.log");
	die "failed: @command\n";
}

sub start_server
{
	run_or_die("$temp/initdb.log", "initdb -D $temp/data -A trust -U postgres -N -E UTF8 --locale=C");
	open(my $conf, '>>', "$temp/data/postgresql.conf") or die $!;
	print $conf <<"CONF";
listen_addresses = ''
unix_socket_directories = '$temp'
port = 5432
shared_preload_libraries = 'streamext'
shared_buffers = '256MB'
max_wal_size = '2GB'
max_worker_processes = 24
timezone = 'UTC'
CONF
	close $conf;
	run_or_die("$temp/start.log", "pg_ctl -D $temp/data -l $temp/server.log -w -t 60 start");
	return;
}

# script(DATABASE, SQL): runs it or dies
sub script
{
	my ($database, $sql) = @_;
	open(my $pipe, '|-', @psql, '-o', '/dev/null', '-d', $database) or die "could not run psql: $!\n";
	print $pipe $sql;
	close $pipe or die "psql failed, see above\n";
	return;
}

# A psql to talk to: ask(QUERY) returns rows, each an array.
my ($answers, $questions, $asker);

sub connect_asker
{
	$asker = open2($answers, $questions, @psql, '-F', "\t", '-d', 'demo');
	$questions->autoflush(1);
	return;
}

sub ask
{
	my ($query) = @_;
	my @rows;
	print $questions "$query;\n\\echo ==end==\n";
	while (my $line = <$answers>)
	{
		chomp $line;
		return @rows if $line eq '==end==';
		push @rows, [ split /\t/, $line, -1 ];
	}
	die "the reading session ended, see above\n";
}

# The rows in arrival order, cut into blocks: most rows come by COPY of up to 500, and between
# two of these come single-row transactions.
sub blocks
{
	my @rows;
	open(my $in, '-|', 'gzip', '-dc', "$top/test/data/flights.csv.gz") or die "could not run gzip: $!\n";
	scalar <$in>;
	while (my $line = <$in>)
	{
		chomp $line;
		push @rows, $line if $line =~ /^[-0-9:+ ]+,[A-Z]{3},[A-Z]{3},-?\d+,\d+$/;
		last if $ENV{ROWS} && @rows == $ENV{ROWS};
	}
	close $in;
	my ($total, $at, @blocks) = (scalar(@rows), 0);
	while (@rows)
	{
		my $single = @blocks % 2;
		push @blocks, { single => $single, at => $at, rows => [ splice(@rows, 0, $single ? 25 : 475) ] };
		$at += @{ $blocks[-1]{rows} };
	}
	return ($total, \@blocks);
}

# One client: blocks number, number + clients ...: each at its time, or as fast as it can.
# (Kinds alternate, so the blocks are dealt in pairs.)
sub client
{
	my ($number, $total, $blocks, $start) = @_;
	open(my $pipe, '|-', @psql, '-d', 'demo') or die "could not run psql: $!\n";
	$pipe->autoflush(1);
	for my $i (grep { int($_ / 2) % $clients == $number } 0 .. $#$blocks)
	{
		my $block = $blocks->[$i];
		my $due = $start + $duration * $block->{at} / $total;
		my $early = $due - time;
		sleep $early if $early > 0;
		if ($block->{single})
		{
			for my $row (@{ $block->{rows} })
			{
				my ($ts, $origin, $destination, $delay, $distance) = split /,/, $row;
				print $pipe "INSERT INTO flights VALUES ('$ts', '$origin', '$destination', $delay, $distance);\n"
				  or last;
			}
		}
		else
		{
			print $pipe join("\n", 'COPY flights FROM STDIN (FORMAT csv);', @{ $block->{rows} }, '\\.', '') or last;
		}
	}
	close $pipe or POSIX::_exit(1);
	POSIX::_exit(0);
}

my $drawn = 0;

# Draws lines over those drawn before.
sub draw
{
	my @lines = @_;
	print "\e[${drawn}A" if $drawn;
	print map { "\r$_\e[K\n" } @lines;
	$drawn = @lines;
	return;
}

my ($total, $blocks);
my $before = 0;
my $before_at;
my $rate = 0;
my $printed = 0;
my $frames = 0;
my $reading = 0;

# Reads the views once and shows them.
sub frame
{
	my ($elapsed, $last) = @_;
	my $asked = time;
	my ($overall) = ask('SELECT flights, round(coalesce(avg_delay, 0), 1), coalesce(miles, 0) FROM overall');
	my ($status) = ask("SELECT round(max(freshness_p50_ms)::numeric, 1), round(max(freshness_p99_ms)::numeric, 1),
		min(state), sum(live_groups) FROM streamext.status");
	my @cities = ask('SELECT city, flights, round(avg_delay, 1), round(100.0 * late / flights, 0)
		FROM cities ORDER BY flights DESC, city LIMIT 8');
	my @worst = ask('SELECT origin, to_char(hour, \'DD Mon HH24:00\'), flights, round(avg_delay, 0), max_delay
		FROM airport_hours WHERE flights >= 10 ORDER BY avg_delay DESC, origin, hour LIMIT 8');
	my ($heavy) = ask('SELECT count(*) FROM heavy_delays');
	my ($time) = ask("SELECT to_char(watermark, 'DD Mon HH24:MI'), late_rows,
		(SELECT count(*) FROM airport_hours WHERE streamext.is_final('airport_hours', hour)),
		(SELECT count(*) FROM streamext.alerts) FROM streamext.status WHERE view = 'airport_hours'::regclass");
	my ($burst) = ask("SELECT origin, to_char(lower(burst), 'DD Mon HH24:MI'), to_char(upper(burst) - lower(burst), 'HH24:MI'), flights
		FROM bursts ORDER BY flights DESC, origin, burst LIMIT 1");
	my @alerts = ask("SELECT \"group\" ->> 'origin', to_char((\"group\" ->> 'hour')::timestamptz, 'DD Mon HH24:00'),
		round((\"row\" ->> 'avg_delay')::numeric) FROM streamext.alerts ORDER BY id DESC LIMIT 3");
	$reading += time - $asked;
	$frames++;

	my $rows = $overall->[0];
	my $now = time;
	if (!defined $before_at || $now - $before_at > 0.5)
	{
		$rate = ($rows - $before) / ($now - $before_at) if defined $before_at;
		($before, $before_at) = ($rows, $now);
	}
	my $done = $rows / $total;
	my $fresh = defined $status->[0] && $status->[0] ne '' ? "$status->[0] ms (p99 $status->[1] ms)" : '-';
	if ($terminal)
	{
		my $width = 40;
		my $filled = int($done * $width);
		my @lines = (
			sprintf('  [%s%s] %3d %%   %s of %s rows   %s rows/s   %.0f s', '#' x $filled, '.' x ($width - $filled),
				100 * $done, commas($rows), commas($total), commas($rate), $elapsed),
			"  fresh after $fresh   mean delay $overall->[1] min   " . commas($overall->[2])
			  . " miles   $heavy->[0] delays over 3 h",
			'  watermark ' . ($time->[0] || '-') . '   ' . commas($time->[1] || 0) . ' late rows   '
			  . commas($time->[2] || 0) . ' airport hours final   ' . ($time->[3] || 0) . ' alerts: '
			  . join(', ', map { "$_->[0] $_->[1] $_->[2] min" } @alerts),
			$burst ? "  longest burst of departures: $burst->[0] from $burst->[1] for $burst->[2] h, $burst->[3] flights" : '',
			'',
			sprintf('  %-18s %8s %7s %6s     %-21s %8s %7s', 'CITY', 'FLIGHTS', 'DELAY', 'LATE', 'WORST HOURS', 'FLIGHTS', 'DELAY'));
		for my $i (0 .. 7)
		{
			my ($c, $w) = ($cities[$i], $worst[$i]);
			push @lines, sprintf('  %-18s %8s %7s %6s     %-21s %8s %7s',
				$c ? ($c->[0], commas($c->[1]), $c->[2], "$c->[3] %") : ('') x 4,
				$w ? ("$w->[0] $w->[1]", $w->[2], $w->[3]) : ('') x 3);
		}
		draw(@lines, '');
	}
	elsif ($last || $now - $printed >= 2)
	{
		$printed = $now;
		printf "%3d %%  %s of %s rows  %s rows/s  fresh after %s  top: %s\n", 100 * $done, commas($rows), commas($total),
		  commas($rate), $fresh, join(', ', map { "$_->[0] " . commas($_->[1]) } @cities[ 0 .. ($#cities < 2 ? $#cities : 2) ]);
		printf "      watermark %s, %s late rows, %s airport hours final, %s alerts%s\n", $time->[0] || '-', commas($time->[1] || 0),
		  commas($time->[2] || 0), $time->[3] || 0, $burst ? ", longest burst $burst->[0] $burst->[3] flights" : '';
	}
	return;
}

start_server();
script('postgres', 'CREATE DATABASE demo');
script('demo', <<"SQL");
CREATE EXTENSION streamext;
CREATE TABLE flights (ts timestamptz NOT NULL, origin text NOT NULL, destination text NOT NULL, delay int, distance int);
CREATE TABLE airports (code text PRIMARY KEY, city text NOT NULL);
\\copy airports FROM '$top/test/data/airports.csv' (FORMAT csv, HEADER)
ANALYZE airports;
SQL
# departures arrive up to hours late: windows stay open for three
my $declare = <<'SQL';
SELECT streamext.create_stream('flights', event_time => 'ts', watermark_delay => '3 hours');
SQL
script('demo', $declare);
print $declare;
for my $view (@views)
{
	my ($name, $query) = @$view;
	chomp $query;
	script('demo', "CREATE MATERIALIZED VIEW $name WITH (streamext.continuous) AS\n$query;");
	print "$name\n", map { "    $_\n" } split /\n/, $query;
}

my $alert = <<'SQL';
SELECT streamext.create_alert('delayed', 'airport_hours', 'avg_delay > 45 AND flights >= 10', 'delays');
SQL
script('demo', $alert);
print $alert;

connect_asker();
($total, $blocks) = blocks();
print "\nreplaying ", commas($total), " flights by $clients clients: COPY and single-row INSERTs mixed\n\n";
my $start = time;
my %running;
for my $number (0 .. $clients - 1)
{
	my $pid = fork // die "could not fork: $!\n";
	client($number, $total, $blocks, $start) if $pid == 0;
	$running{$pid} = 1;
}
my $failed = 0;
while (%running)
{
	my $due = time + 0.15;
	frame(time - $start);
	while ((my $pid = waitpid(-1, POSIX::WNOHANG())) > 0)
	{
		$failed = 1 if delete $running{$pid} && $?;
	}
	my $early = $due - time;
	sleep $early if $early > 0;
}
die "a client failed, see above\n" if $failed;
my $loaded = time;
my ($waited) = ask("SELECT streamext.wait_for(NULL, '60s')");
my $complete = time - $loaded;
frame($loaded - $start, 1);
printf "\n%s rows in %.1f s; all views complete %.0f ms after the last one; views read %s times, %.1f ms for all five queries\n\n",
  commas($total), $loaded - $start, 1000 * $complete, commas($frames), 1000 * $reading / $frames;
if ($waited->[0] ne 't')
{
	print "timed out waiting for the views\n";
	$failed = 1;
}
# an insert that failed would have left its row out of both
my ($raw) = ask('SELECT count(*) FROM flights');
if ($raw->[0] != $total)
{
	print "only $raw->[0] of $total rows arrived\n";
	$failed = 1;
}

print "each view against its query on the raw rows:\n";
for my $view (@views)
{
	my ($name, $as_defined, $raw_query) = @$view;
	my $query = $raw_query // $as_defined;
	chomp $query;
	my $t0 = time;
	ask("\\o /dev/null\nTABLE $name;\n\\o\nSELECT 1");
	my $t1 = time;
	ask("\\o /dev/null\n$query;\n\\o\nSELECT 1");
	my $t2 = time;
	my ($rows) = ask("SELECT count(*) FROM $name");
	my ($extra) = ask("SELECT count(*), min(d::text) FROM (TABLE $name EXCEPT ALL ($query)) d");
	my ($missing) = ask("SELECT count(*), min(d::text) FROM (($query) EXCEPT ALL TABLE $name) d");
	my $verdict = 'exact';
	if ($extra->[0] || $missing->[0])
	{
		$failed = 1;
		$verdict = "DIFFERS: $extra->[0] rows only in the view ($extra->[1]), $missing->[0] only in the query ($missing->[1])";
	}
	printf "  %-14s %7s rows   read in %6.1f ms, by query %6.1f ms   %s\n", $name, commas($rows->[0]),
	  1000 * ($t1 - $t0), 1000 * ($t2 - $t1), $verdict;
}
# an hour whose mean has fallen again since was reported, too, so there may be more alerts than such hours now
my ($alerts, $missed) = @{ (ask(<<"SQL"))[0] };
SELECT (SELECT count(*) FROM streamext.alerts), count(*)
FROM airport_hours h WHERE avg_delay > 45 AND flights >= 10 AND NOT EXISTS (SELECT FROM streamext.alerts a
	WHERE a."group" ->> 'origin' = h.origin AND (a."group" ->> 'hour')::timestamptz = h.hour)
SQL
printf "  %-14s %7s reported, once each   %s\n", 'alerts', commas($alerts), $missed ? "$missed MISSING" : 'complete';
$failed = 1 if $missed;
close $questions;
waitpid($asker, 0);

if ($ENV{KEEP})
{
	open(my $mark, '>', "$temp/keep_server") or die $!;
	my $psql = "$ENV{SX_BINDIR}/psql";
	print "\nthe server is up:   $psql -h $temp -U postgres demo\n";
	print "to remove it:       kill -INT \$(head -n 1 $temp/data/postmaster.pid) && sleep 1 && rm -r $temp\n";
}
else
{
	system("pg_ctl -D $temp/data -w -t 20 -m fast stop >$temp/stop.log 2>&1") == 0
	  or print "the server did not stop when told\n";
}
exit($failed ? 1 : 0);
