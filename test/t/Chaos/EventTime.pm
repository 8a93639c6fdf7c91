# EventTime.pm
#		Event time in the chaos test: windows that close, late rows, sinks, alerts.
#
# Streams, in which rows come out of order, some of them hours late and some from the future:
#	ev, pe	merge late rows: every view equals its query
#	td		drops them: windows that are open equal the query, closed ones have no more than it, and what
#			is missing is what the view says that it dropped (so much can be said of sessions as well, which
#			a row that was dropped may have joined)
#	tl		makes dead letters of them: a view equals its query on the rows that are no dead letters of it,
#			until they are counted in afterwards
# A view with emit = on_close shows the rows of its query that are final, one with retention those of windows
# that it has not forgotten.  Views without windows are exact on every stream.
#
# A sink has each closed window once, or, with corrections, as its last row the one that the view has (of sessions, the
# last that contains it; one that is open again comes when it has closed); where late
# rows are dropped it has all of them.  chaos.sink says from when on.  Rows that were final, and stored,
# stay as they are (chaos.final).  Alerts report every group that satisfies their condition, once.
# All this is said of views that are not computed again; of those that are, see Batch.pm.
package Chaos::EventTime;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(time_views time_setup_sql alerts_sql time_ddl settle_time_sql time_checks_sql alert_checks_sql moment ROUNDS_PER_DATABASE);

# a round takes this much event time, in seconds
use constant { ROUNDS_PER_DATABASE => 6, ROUND_SECONDS => 1200 };

my $sums = 'count(*) AS n, sum(v) AS total';
my $by_5 = "SELECT streamext.tumble(ts, '5 minutes') AS w, k % 3 AS g, $sums FROM %s GROUP BY 1, 2";
my $range = "streamext.session(ts, '20 seconds')";
my $session = "SELECT k % 8 AS g, $range AS w, $sums, min(id) AS first FROM %s GROUP BY k % 8, $range";
# the sessions of raw rows
my $islands = "SELECT k % 8 AS g, tstzrange(min(ts), max(ts) + interval '20 seconds') AS w, $sums, min(id) AS first
	FROM (SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY k % 8 ORDER BY ts RANGE UNBOUNDED PRECEDING) AS island
		FROM (SELECT *, coalesce(ts - lag(ts) OVER (PARTITION BY k % 8 ORDER BY ts) >= interval '20 seconds', true) AS starts
			FROM %s) a) b
	GROUP BY k % 8, island";

my $finite_session = $session =~ s/ GROUP/ WHERE isfinite(ts) GROUP/r;
my $finite_islands = $islands =~ s/\bFROM \%s/FROM %s WHERE isfinite(ts)/r;

# name => [stream, query, options]; options: WITH, what the oracle reads instead of the query, how it compares
my %views = (
	ev_5 => [ 'ev', $by_5 ],
	ev_hop => [ 'ev', "SELECT streamext.hop(ts, '5 minutes', '15 minutes') AS w, k % 3 AS g, $sums FROM %s GROUP BY 1, 2" ],
	ev_cumulate => [ 'ev', "SELECT streamext.cumulate(ts, '10 minutes', '30 minutes') AS w, $sums FROM %s GROUP BY 1" ],
	ev_session => [ 'ev', $session, { oracle => $islands } ],
	ev_sessions_closed => [ 'ev', $session, { oracle => $islands, with => "streamext.emit = 'on_close'" } ],
	ev_closed => [ 'ev', "SELECT streamext.tumble(ts, '10 minutes') AS w, t AS g, $sums FROM %s GROUP BY 1, t", { with => "streamext.emit = 'on_close'" } ],
	ev_recent => [ 'ev', "SELECT date_trunc('minute', ts) AS w, $sums FROM %s GROUP BY 1", { with => "streamext.retention = '40 minutes'", how => 'recent' } ],
	pe_5 => [ 'pe', "SELECT streamext.tumble(ts, '5 minutes') AS w, part AS g, $sums FROM %s GROUP BY 1, 2" ],
	pe_closed => [ 'pe', "SELECT streamext.tumble(ts, '7 minutes') AS w, $sums FROM %s GROUP BY 1", { with => "streamext.emit = 'on_close'" } ],
	td_5 => [ 'td', $by_5, { how => 'dropped' } ],
	td_closed => [ 'td', $by_5, { with => "streamext.emit = 'on_close'", how => 'dropped' } ],
	td_hop => [ 'td', "SELECT streamext.hop(ts, '3 minutes', '15 minutes') AS w, k % 3 AS g, $sums FROM %s GROUP BY 1, 2", { how => 'dropped' } ],
	td_session => [ 'td', $finite_session, { oracle => $finite_islands, how => 'sessions_dropped' } ],
	td_all => [ 'td', "SELECT k % 5 AS k5, $sums FROM %s GROUP BY 1" ],
	tl_5 => [ 'tl', $by_5, { how => 'letters' } ],
	tl_session => [ 'tl', $session, { oracle => $islands, how => 'letters' } ],
	tl_all => [ 'tl', 'SELECT id, k, v, ts FROM %s' ],
	# over what sinks have
	hours => [ 's_td', "SELECT streamext.tumble(w, '30 minutes') AS w, count(*) AS windows, sum(n) AS n, max(total) AS top FROM %s GROUP BY 1", { how => 'raw' } ],
);

# sink => [view, options of create_sink]
my %sinks = (
	s_ev => [ 'ev_5', 'corrections => true, existing => true' ],
	s_pe => [ 'pe_5', 'corrections => true, existing => true' ],
	s_td => [ 'td_5', 'existing => true' ],
	s_tdc => [ 'td_closed', 'existing => true' ],
	s_tl => [ 'tl_5', 'corrections => true, existing => true' ],
	s_evs => [ 'ev_session', 'corrections => true, existing => true' ],
	s_tds => [ 'td_session', 'existing => true' ],
);
# sinks that come and go
my @sink_views = qw(ev_5 pe_5 td_5 td_closed tl_5 td_session ev_session);
# of their windows, in minutes
my $size = "interval '5 minutes'";

# name => [view, condition, its key]: of rows that only grow, or are final
my %alerts = (
	busy => [ 'ev_5', 'n > 300', qw(w g) ],
	much => [ 'td_all', 'n > 150', 'k5' ],
	quiet => [ 'td_closed', 'n < 5', qw(w g) ],
);

sub time_views { return \%views }

# When a row happened, as a literal; progress: how far the writer has come in its round, 0 .. 1
sub moment
{
	my ($random, $round, $progress, $stream) = @_;
	my $now = 3600 + (($round - 1) % ROUNDS_PER_DATABASE + $progress) * ROUND_SECONDS;
	my $kind = $random->by_weight(now => 800, late => 150, early => 40, future => 6, infinite => 2);
	return $random->one_of("'infinity'", "'-infinity'") if $kind eq 'infinite' && ($stream // '') eq 'td';
	return "'2100-01-01 00:00:00+00'" if $kind eq 'future';
	$now -= $random->pick(120);
	$now -= $random->pick(4000) if $kind eq 'late';
	$now += $random->pick(200) if $kind eq 'early';
	$now = 0 if $now < 0;
	return sprintf("'2024-01-01 %02d:%02d:%02d+00'", $now / 3600, $now / 60 % 60, $now % 60);
}

sub create_sink_sql
{
	my ($target, $view, $options) = @_;
	my $corrections = $options =~ /corrections => true/ ? 'true' : 'false';
	my $existing = $options =~ /existing => true/ ? 'true' : 'false';
	return "CREATE TABLE $target (at bigserial, LIKE $view);\nALTER TABLE $target ALTER w SET NOT NULL;\n"
	  . "SELECT streamext.create_sink('$view', '$target'" . ($options ? ", $options" : '') . ");\n"
	  . "INSERT INTO chaos.sink SELECT '$target', '$view', $corrections, $existing, closed_until FROM streamext.sink WHERE target = '$target'::regclass;\n";
}

# streams, before their views; and after them
sub time_setup_sql
{
	my ($after) = @_;
	return <<'SQL' unless $after;
CREATE TABLE chaos.sink (target name PRIMARY KEY, view name NOT NULL, corrections bool NOT NULL, existing bool NOT NULL, since int8 NOT NULL, changed_until int8 NOT NULL DEFAULT (-9223372036854775807));
CREATE TABLE chaos.final (view name NOT NULL, row text NOT NULL);
-- such numbers as view_position.watermark
CREATE FUNCTION chaos.to_time(int8) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN abs($1::numeric) > 1e17 THEN '-infinity' ELSE timestamptz '2000-01-01 00:00:00+00' + $1 * interval '1 microsecond' END $$;
SELECT streamext.create_stream('ev', event_time => 'ts', watermark_delay => '1 minute', allowed_lateness => '2 minutes', max_future => '1 hour');
SELECT streamext.create_stream('pe', event_time => 'ts', watermark_delay => '1 minute', idle_timeout => '200 ms');
SELECT streamext.create_stream('td', event_time => 'ts', watermark_delay => '1 minute', allowed_lateness => '1 minute', late_rows => 'drop');
SELECT streamext.create_stream('tl', event_time => 'ts', watermark_delay => '30 seconds', late_rows => 'dead_letter');
SELECT streamext.create_stream('vs', event_time => 'ts', watermark_delay => '1 minute', valid => 'v < 900 AND 100 / (v - 13) < 1000');
SQL
	my $sql = join '', map { create_sink_sql($_, @{ $sinks{$_} }) } sort keys %sinks;
	return $sql . "CREATE SEQUENCE chaos.sink_id;\nSELECT streamext.create_stream('s_td', event_time => 'w');\n";
}

sub alerts_sql
{
	return join '', map { "SELECT streamext.create_alert('$_', '$alerts{$_}[0]', '$alerts{$_}[1]', 'chaos');\n" } sort keys %alerts;
}

# ---- commands ----

sub time_ddl
{
	my ($r) = @_;
	my $kind = $r->by_weight(stream => 5, sink => 6, break_sink => 3, lock_sink => 3, emit => 4, retention => 3, retry => 5, alert => 4, read => 3);
	if ($kind eq 'stream')
	{
		my $stream = $r->one_of(qw(ev pe td tl));
		my $option = $r->one_of(
			"watermark_delay => '" . $r->one_of('0', '20 seconds', '1 minute', '5 minutes') . "'",
			"max_future => '" . $r->one_of('0', '1 hour', '10 years') . "'",
			$stream eq 'td' ? "idle_timeout => '" . $r->one_of('100 ms', '1 day') . "'" : "allowed_lateness => '" . $r->one_of('0', '2 minutes', '10 minutes') . "'",
			"idle_timeout => '" . $r->one_of('0', '50 ms', '1 second', '1 day') . "'");
		return "SELECT streamext.alter_stream('$stream', $option);\n";
	}
	if ($kind eq 'sink')
	{
		# made again: the name is new each time
		my $view = $r->one_of(@sink_views);
		my $options = $r->one_of('', 'existing => true', 'corrections => true', 'corrections => true, existing => true');
		return "SELECT 'x_' || nextval('chaos.sink_id') AS sink \\gset\nBEGIN;\n" . (create_sink_sql('NAME', $view, $options) =~ s/'NAME'/:'sink'/gr =~ s/NAME/:sink/gr)
		  . ($r->chance(85) ? "COMMIT;\n" : "ROLLBACK;\n")
		  if $r->chance(60);
		my $how = $r->one_of("PERFORM streamext.drop_sink(s.view::text::regclass, s.target::text::regclass)", "EXECUTE format('DROP TABLE %I', s.target)");
		return <<"SQL";
DO \$\$
DECLARE s chaos.sink;
BEGIN
	FOR s IN DELETE FROM chaos.sink WHERE target = (SELECT target FROM chaos.sink WHERE target ~ '^x_' ORDER BY random() LIMIT 1) RETURNING * LOOP
		$how;
	END LOOP;
END \$\$;
SQL
	}
	my $sink = $r->one_of(sort keys %sinks);
	my $pause = 'SELECT pg_sleep(' . $r->pick(300) / 1000 . ");\n";
	return "ALTER TABLE $sink ADD CONSTRAINT broken CHECK (n < 0) NOT VALID;\n${pause}ALTER TABLE $sink DROP CONSTRAINT IF EXISTS broken;\n" if $kind eq 'break_sink';
	return "BEGIN;\nLOCK TABLE $sink IN " . $r->one_of('ACCESS EXCLUSIVE', 'SHARE') . " MODE;\n${pause}COMMIT;\n" if $kind eq 'lock_sink';
	if ($kind eq 'emit')
	{
		my $view = $r->one_of(qw(ev_closed pe_closed pe_5));
		return "ALTER MATERIALIZED VIEW $view SET (streamext.emit = '" . $r->one_of('changes', 'on_close') . "');\n";
	}
	return "ALTER MATERIALIZED VIEW ev_recent " . $r->one_of("SET (streamext.retention = '20 minutes')", "SET (streamext.retention = '1 hour')", 'RESET (streamext.retention)') . ";\n"
	  if $kind eq 'retention';
	if ($kind eq 'retry')
	{
		my $call = "SELECT streamext.retry_dead_letters('tl_5');\n";
		return $r->one_of($call, $call, "BEGIN;\n$call${pause}COMMIT;\n", "BEGIN;\n$call${pause}ROLLBACK;\n");
	}
	if ($kind eq 'alert')
	{
		my $name = $r->one_of(sort keys %alerts);
		# what was true before is not reported: this one is of no oracle
		return "SELECT streamext.drop_alert('passing');\n" if $r->chance(40);
		return "SELECT streamext.create_alert('passing', '$alerts{$name}[0]', '" . $r->one_of('n > 20', 'total IS NULL', 'n > 10 / (total - total)') . "', 'passing');\n";
	}
	return "SELECT count(*), streamext.watermark('ev') FROM ev_5 WHERE streamext.is_final('ev_5', w);\n"
	  . "SELECT count(*) FROM ev_session WHERE w \@> '2024-01-01 02:00+00'::timestamptz;\nSELECT * FROM streamext.sinks;\nSELECT * FROM streamext.alert_status;\n";
}

# ---- after a round ----

sub settle_time_sql
{
	return <<'SQL';
DO $$
DECLARE r record;
BEGIN
	FOR r IN SELECT conrelid::regclass AS t FROM pg_constraint WHERE conname = 'broken' LOOP
		EXECUTE format('ALTER TABLE %s DROP CONSTRAINT broken', r.t);
	END LOOP;
	IF EXISTS (SELECT FROM streamext.alert_def WHERE name = 'passing') THEN
		PERFORM streamext.drop_alert('passing');
	END IF;
END $$;
SQL
}

# Sinks, and what was final: one row per complaint.  Everything has been flushed, and nobody writes.
# sinks: [target, view, corrections, existing, since, changed_until]
sub time_checks_sql
{
	my (@list) = @_;
	my $sql = '';
	for my $s (@list)
	{
		my ($target, $view, $corrections, $existing, $since, $changed) = @$s;
		my $until = "(SELECT chaos.to_time(closed_until) FROM streamext.sink WHERE target = '$target'::regclass)";
		my $columns = 'w, g, n, total';
		my $end = $view =~ /session/ ? 'upper(w)' : "w + $size";
		# windows that were not computed again after they had closed
		my $kept = "$end > chaos.to_time($changed)";
		# windows that have closed while this was a sink
		my $passed = "$end <= $until AND $kept" . ($existing eq 't' ? '' : " AND $end > chaos.to_time($since)");
		my $complain = sub {
			my ($what, $query) = @_;
			$sql .= "SELECT 'sink $target of $view: $what', count(*), (array_agg(x::text))[1:3] FROM ($query) x HAVING count(*) > 0;\n";
		};
		$complain->('open windows', "SELECT * FROM $target WHERE $end > $until");
		if ($corrections eq 't' && $view =~ /session/)
		{
			# a later row whose session contains the earlier one's replaces it
			my $last = "SELECT w, g, n, total FROM $target a WHERE $kept AND NOT EXISTS (SELECT FROM $target b WHERE b.g IS NOT DISTINCT FROM a.g AND b.w @> a.w AND b.at > a.at)";
			$complain->('its last rows are neither closed nor open again', "SELECT * FROM ($last EXCEPT ALL SELECT $columns FROM $view) s"
				. " WHERE NOT EXISTS (SELECT FROM $view v WHERE v.g IS NOT DISTINCT FROM s.g AND v.w @> s.w AND upper(v.w) > $until)");
			$complain->('it lacks sessions', "SELECT $columns FROM $view WHERE $passed EXCEPT ALL ($last)") if $existing eq 't';
		}
		elsif ($corrections eq 't')
		{
			$complain->('twice the same', "SELECT w, g, n FROM $target WHERE $kept GROUP BY 1, 2, 3 HAVING count(*) > 1");
			my $last = "SELECT DISTINCT ON (w, g) $columns FROM $target WHERE $kept ORDER BY w, g, at DESC";
			$complain->('its last rows are not those of the view', "SELECT * FROM ($last) s WHERE w <> 'infinity' EXCEPT ALL SELECT $columns FROM $view");
			$complain->('it lacks windows', "SELECT w, g FROM $view WHERE $passed EXCEPT SELECT w, g FROM $target");
		}
		else
		{
			$complain->('twice', "SELECT w, g FROM $target GROUP BY 1, 2 HAVING count(*) > 1");
			$complain->('windows of before', "SELECT * FROM $target WHERE $kept AND NOT ($passed)");
			$complain->('more than the view', $view eq 'ev_session'
				? "SELECT * FROM $target s WHERE $kept AND NOT EXISTS (SELECT FROM $view v WHERE v.g IS NOT DISTINCT FROM s.g AND v.w @> s.w AND v.n >= s.n)"
				: "SELECT s.* FROM $target s LEFT JOIN $view v ON v.w = s.w AND v.g IS NOT DISTINCT FROM s.g WHERE " . ($kept =~ s/\bw\b/s.w/r) . " AND coalesce(v.n < s.n, true)");
			$complain->('it differs', "(SELECT $columns FROM $view WHERE $passed EXCEPT ALL SELECT $columns FROM $target)") if $view =~ /^td/;
		}
		# the flush has brought it up to where the view stands
		$complain->('it lags behind', "SELECT 1 FROM streamext.status s, streamext.stream_def d WHERE s.view = '$view'::regclass AND d.stream = '"
			. ($view =~ s/_.*//r) . "'::regclass AND $until < streamext.tumble(s.watermark - d.allowed_lateness, $size) AND s.watermark_held_by !~ 'clock'");
	}
	# final rows stay as they are
	for my $view (qw(td_5 td_closed td_hop td_session))
	{
		my $minutes = $view eq 'td_hop' ? 15 : 5;
		my $end = $view eq 'td_session' ? 'upper(w)' : "w + interval '$minutes minutes'";
		my $final = "$end + (SELECT allowed_lateness FROM streamext.stream_def WHERE stream = 'td'::regclass)"
		  . " <= (SELECT chaos.to_time(watermark) FROM streamext.view_position WHERE view = '$view'::regclass)";
		$sql .= "SELECT 'final rows of $view have changed', count(*), (array_agg(x::text))[1:3] FROM (SELECT row FROM chaos.final WHERE view = '$view'"
		  . " EXCEPT ALL SELECT v::text FROM $view v) x HAVING count(*) > 0;\n";
		$sql .= "BEGIN;\nDELETE FROM chaos.final WHERE view = '$view';\n"
		  . "INSERT INTO chaos.final SELECT '$view', v::text FROM $view v WHERE $final;\nCOMMIT;\n";
	}
	return $sql;
}

# polled: the alerter works in its own time
sub alert_checks_sql
{
	my $sql = '';
	for my $name (sort keys %alerts)
	{
		my ($view, $condition, @key) = @{ $alerts{$name} };
		my $fired = 'SELECT ' . join(', ', map { qq{("group" ->> '$_')::} . ($_ eq 'w' ? 'timestamptz' : 'int') } @key) . " FROM streamext.alerts WHERE alert = '$name'";
		my $true = 'SELECT ' . join(', ', @key) . " FROM $view WHERE $condition";
		$sql .= "SELECT 'alert $name: not fired', count(*), (array_agg(x::text))[1:3] FROM ($true EXCEPT ALL $fired) x HAVING count(*) > 0;\n";
		$sql .= "SELECT 'alert $name: fired without reason, or twice', count(*), (array_agg(x::text))[1:3] FROM ($fired EXCEPT ALL $true) x WHERE NOT (SELECT rebuilt FROM chaos.view WHERE name = '$view') HAVING count(*) > 0;\n";
		$sql .= "SELECT 'alert $name: fired twice', count(*), (array_agg(x::text))[1:3] FROM ($fired EXCEPT ALL SELECT DISTINCT * FROM ($fired) d) x HAVING count(*) > 0;\n";
	}
	return $sql;
}

1;
