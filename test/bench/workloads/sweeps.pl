package workload::sweeps;
# test/bench/workloads/sweeps.pl
#		How the cost of a row grows: with groups, with the size of the table, with views, with the size of
#		transactions, with windows that overlap.
#
# The cost is the workers' processor time until everything is visible and stored, per row.  The baseline shows
# in the same sweep what the machine's caches do: what a GROUP BY, or inserting, costs there per row.
use strict;
use warnings;

use Bench;
use Measure;
use Report;

# sweep(NAME, POINTS, CODE [, FROM]): CODE(SERVER, POINT) returns microseconds per row; a line for each point, and one for
# how it grows to the last point, from that one or the first
sub sweep
{
	my ($name, $points, $code, $from) = @_;
	my %figures;

	in_turn(rounds(3), [ map { my $point = $_; map { [ $_, $point ] } systems() } @$points ], sub {
		my ($server, $point) = @{ $_[0] };
		note(\%figures, $server->system->name . " $point", cost => $code->($server, $point));
	});
	my $cost = sub { median(@{ $figures{ $_[0]->system->name . " $_[1]" }{cost} }) };
	my ($first, $last) = ($from // $points->[0], $points->[-1]);
	for my $server (systems('views'))
	{
		row("$name $_: us per row", '', $cost->($server, $_), '%.3f', sprintf('baseline %.3f', $cost->(baseline(), $_))) for @$points;
		my ($growth, $there) = map { $cost->($_, $last) / $cost->($_, $first) } $server, baseline();
		row("$name: $last, times $first", '<= 1.5', $growth / ($there > 1 ? $there : 1), '%.2f',
			sprintf('%.2f times, divided by what the baseline shows, %.2f times', $growth, $there));
	}
	return;
}

# cost(SERVER, SESSION, ROWS, CODE): microseconds per row
sub cost
{
	my ($server, $session, $rows, $code) = @_;
	my $system = $server->system;
	my $used = measured($server, sub {
		$code->();
		$system->complete($session);
		$system->stored($session);
	});
	return ($system->keeps_views ? $used->{workers} : $used->{cpu}) / $rows * 1e6;
}

# the same numbers in any order, from so many of them
sub numbers
{
	my ($from, $rows, $groups) = @_;
	return "SELECT abs(hashint8(i)::bigint) % $groups AS k, (i % 1000)::int AS v FROM generate_series(${from}::bigint, ${from}::bigint + $rows - 1) i";
}

my $sums = 'SELECT k, count(*) AS n, sum(v) AS total, avg(v) AS mean, max(v) AS high FROM ev GROUP BY k';

sub kv_table
{
	my ($server, $query) = @_;
	my $session = $server->database;
	$session->ask('CREATE TABLE ev (k bigint NOT NULL, v int NOT NULL)');
	$server->system->create_view($session, 'sums', $query // $sums);
	$session->ask('CHECKPOINT');
	return $session;
}

sub finish
{
	my ($server, $session) = @_;
	check($session, 'sums', $sums) if $server->system->keeps_views;
	$session->close;
	return;
}

# Ten million rows in a hundred transactions, in 100 to 10 million groups.
workload(groups => 900, sub {
	my $rows = size(200_000, 1_000_000, 10_000_000);
	sweep('groups', [ grep { $_ <= $rows } map { 10**$_ } 2 .. 7 ], sub {
		my ($server, $groups) = @_;
		my $session = kv_table($server);
		my $part = $rows / 100;
		my $cost;
		if ($server->system->keeps_views)
		{
			$cost = cost($server, $session, $rows, sub { $session->ask('INSERT INTO ev ' . numbers($_ * $part, $part, $groups)) for 0 .. 99 });
		}
		else
		{
			$session->ask('INSERT INTO ev ' . numbers(0, $rows, $groups));
			$session->ask('VACUUM ANALYZE ev');
			$cost = cost($server, $session, $rows, sub { $session->ask("CREATE TABLE sums AS $sums"); });
		}
		finish($server, $session);
		return $cost;
	});
}, 'full');

# A table that has a million to a hundred million rows: what another million costs, and what reading all of it did.
workload(table => 900, sub {
	my @points = size([ 1e5, 1e6 ], [ 1e6, 1e7 ], [ 1e6, 1e7, 1e8 ])->@*;
	my $more = size(100_000, 1_000_000);
	my %history;
	sweep('rows in the table', \@points, sub {
		my ($server, $rows) = @_;
		my $session = $server->database;
		$session->ask('CREATE TABLE ev (k bigint NOT NULL, v int NOT NULL)');
		$session->ask('INSERT INTO ev ' . numbers(0, $rows, 1000));
		$session->ask('VACUUM ANALYZE ev');
		$session->ask('CHECKPOINT');
		my $used = measured($server, sub {
			$server->system->keeps_views ? $server->system->create_view($session, 'sums', $sums) : $session->ask("CREATE TABLE sums AS $sums");
		});
		note(\%history, $server->system->name . " $rows", cost => $used->{cpu} / $rows * 1e6);
		my $cost = cost($server, $session, $more, sub {
			$session->ask('INSERT INTO ev ' . numbers($rows + $_ * $more / 100, $more / 100, 1000)) for 0 .. 99;
		});
		finish($server, $session);
		return $cost;
	});
	for my $server (systems('views'))
	{
		my %cost = map { my $s = $_; map { ("$s $_" => median(@{ $history{ $s->system->name . " $_" }{cost} })) } @points } $server, baseline();
		row("backfill of $_ rows: us per row", '', $cost{"$server $_"}, '%.3f', sprintf('CREATE TABLE AS %.3f', $cost{ baseline() . " $_" })) for @points;
		my ($growth, $there) = map { $cost{"$_ $points[-1]"} / $cost{"$_ $points[0]"} } $server, baseline();
		row("backfill: $points[-1], times $points[0]", '<= 1.5', $growth / ($there > 1 ? $there : 1), '%.2f',
			sprintf('%.2f times, divided by what the baseline shows, %.2f times', $growth, $there));
	}
}, 'full');

# One to fifty views of one stream.
workload(views => 400, sub {
	my @points = size([ 1, 5 ], [ 1, 10, 50 ])->@*;
	my $rows = size(100_000, 1_000_000);
	my %figures;
	in_turn(rounds(3), [ map { my $server = $_; map { [ $server, $_ ] } @points } systems('views') ], sub {
		my ($server, $views) = @{ $_[0] };
		my $session = kv_table($server);
		for my $view (2 .. $views)
		{
			$server->system->create_view($session, "more_$view", "SELECT k % $view AS k, count(*) AS n, sum(v) AS total, avg(v) AS mean, max(v) AS high FROM ev GROUP BY 1");
		}
		note(\%figures, $server->system->name . " $views", cost => cost($server, $session, $rows, sub {
			$session->ask('INSERT INTO ev ' . numbers($_ * $rows / 100, $rows / 100, 1000)) for 0 .. 99;
		}));
		finish($server, $session);
	});
	for my $server (systems('views'))
	{
		my %cost = map { $_ => median(@{ $figures{ $server->system->name . " $_" }{cost} }) } @points;
		row("views $_: us per row", '', $cost{$_}, '%.3f', sprintf('%.3f per view', $cost{$_} / $_)) for @points;
		row('views: another view, times the first', '<= 1', ($cost{ $points[-1] } - $cost{1}) / ($points[-1] - 1) / $cost{1}, '%.2f');
	}
}, 'full');

# Transactions of one to ten million rows.  Small ones pay for their commit; it is from a thousand rows on that the cost should
# not grow.
workload(transaction => 600, sub {
	sweep('rows per transaction', [ map { 10**$_ } 0 .. size(4, 6, 7) ], sub {
		my ($server, $size) = @_;
		my $session = kv_table($server);
		my $rows = $size > 1e6 ? $size : $size < 100 ? size(5000, 50000) * ($size > 1 ? 4 : 1) : size(100_000, 1_000_000);
		$session->ask('CREATE PROCEDURE insert_all() LANGUAGE plpgsql AS $$ BEGIN FOR part IN 0 .. ' . ($rows / $size - 1) . ' LOOP INSERT INTO ev '
			. numbers("(part::bigint * $size)", $size, 1000) . '; COMMIT; END LOOP; END $$');
		$session->ask('SET synchronous_commit = off');
		my $cost = cost($server, $session, $rows, sub { $session->ask('CALL insert_all()') });
		finish($server, $session);
		return $cost;
	}, 1000);
}, 'full');

# Windows that overlap, one to sixty slides long: 128 keys and six hours of slides of a minute, in the order of
# their time.
workload(hop => 300, sub {
	my $rows = size(100_000, 1_000_000);
	my @points = (1, 4, 20, 60);
	my %figures;
	my ($server) = grep { $_->system->name eq 'streamext' } systems('views') or die "it is of streamext only\n";
	in_turn(rounds(3), \@points, sub {
		my ($slides) = @_;
		my $query = "SELECT k, streamext.hop(ts, '1 minute', '1 minute'::interval * $slides) AS w, count(*) AS n, sum(v) AS s, avg(v) AS a, max(v) AS m
			FROM ev GROUP BY 1, 2";
		my $session = $server->database;
		$session->ask('CREATE TABLE ev (ts timestamptz NOT NULL, k int, v int)');
		$session->ask("SELECT streamext.create_stream('ev', event_time => 'ts')");
		$server->system->create_view($session, 'hopping', $query);
		$session->ask('CHECKPOINT');
		note(\%figures, $slides, cost => cost($server, $session, $rows, sub {
			my $part = $rows / 20;
			for (0 .. 19)
			{
				$session->ask("INSERT INTO ev SELECT timestamptz '2026-01-01 00:00Z' + i * (interval '6 hours' / $rows), hashint4(i::int) & 127, i % 1000
					FROM generate_series($_ * ${part}::int, ($_ + 1) * ${part}::int - 1) i");
			}
		}));
		check($session, 'hopping', $query);
		$session->close;
	});
	my %cost = map { $_ => median(@{ $figures{$_}{cost} }) } @points;
	row("hop, windows of $_ slides: us per row", '', $cost{$_}, '%.3f') for @points;
	row('hop: windows of 60 slides, times 1', '<= 1.5', $cost{60} / $cost{1}, '%.2f');
}, 'full');

1;
