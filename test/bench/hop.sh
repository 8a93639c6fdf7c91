#!/usr/bin/env bash
#
# test/bench/hop.sh [ROUNDS] [ROWS]
#		What a row costs in a view with hop(), by the number of windows that it belongs to.
#
# Windows of 1, 4, 20 and 60 slides take turns in each round, on the same rows: 128 keys and six hours of slides
# of a minute, 28 rows per key and minute with a million rows, inserted in the order of their time by one session.
# The figure is the processor time of all processes of the server (the inserting one, consumer, flusher and
# builder) until everything is visible and flushed, per row; medians over the rounds.
#
# Against the server that PGHOST, PGPORT … name, on this machine, which has streamext preloaded; makes and
# drops a database "hop_bench".
#
set -eu
export PGOPTIONS='-c client_min_messages=warning'
rounds=${1:-3}
rows=${2:-1000000}
ratios='1 4 20 60'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
run() { psql -XAtq -v ON_ERROR_STOP=1 -d hop_bench "$@"; }

# processor time of the server so far, in ticks: that of its processes, and of those that have ended
postmaster=$(head -n 1 "$(psql -XAtq -d postgres -c 'SHOW data_directory')/postmaster.pid")
ticks()
{
	{
		sed 's/.*) //' "/proc/$postmaster/stat" | awk '{print $12 + $13 + $14 + $15}'
		for child in $(pgrep -P "$postmaster"); do
			sed 's/.*) //' "/proc/$child/stat" 2>/dev/null | awk '{print $12 + $13}'
		done
	} | awk '{n += $1} END {print n}'
}

# measure RATIO: microseconds per row, a line in $folder/RATIO
measure()
{
	local before
	run <<-SQL >/dev/null
		CREATE TABLE ev (ts timestamptz NOT NULL, k int, v int);
		SELECT streamext.create_stream('ev', event_time => 'ts');
		CREATE MATERIALIZED VIEW hopping WITH (streamext.continuous) AS
		SELECT k, streamext.hop(ts, '1 minute', interval '1 minute' * $1) AS w, count(*) AS n, sum(v) AS s, avg(v) AS a, max(v) AS m
		FROM ev GROUP BY 1, 2;
	SQL
	run -c 'SELECT streamext.wait_for()' >/dev/null
	before=$(ticks)
	# a batch of 18 minutes each, as if time went on
	for i in $(seq 0 19); do
		echo "INSERT INTO ev SELECT * FROM src WHERE ts >= timestamptz '2026-01-01 00:00Z' + $i * interval '18 minutes'
			AND ts < timestamptz '2026-01-01 00:00Z' + ($i + 1) * interval '18 minutes';"
	done | run
	run -c "SELECT streamext.wait_for(NULL, '10 min'), streamext.flush()" >/dev/null
	echo $((($(ticks) - before) * 1000000 / $(getconf CLK_TCK))) | awk -v rows="$rows" '{printf "%.3f\n", $1 / rows}' >>"$folder/$1"
	[ "$(run -c "SELECT count(*) FROM streamext.verify('hopping')")" = 0 ] || echo "size/slide $1: NOT EXACT"
	run -c 'DROP MATERIALIZED VIEW hopping' -c 'DROP TABLE ev'
}

median() { sort -n "$folder/$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

psql -XAtq -d postgres -c 'DROP DATABASE IF EXISTS hop_bench' -c 'CREATE DATABASE hop_bench'
run <<SQL
CREATE EXTENSION streamext;
CREATE TABLE src AS SELECT timestamptz '2026-01-01 00:00Z' + i * (interval '6 hours' / $rows) AS ts, hashint4(i) & 127 AS k, i % 1000 AS v
	FROM generate_series(0, $rows - 1) i;
CREATE INDEX ON src USING brin (ts);
VACUUM ANALYZE src;
SQL
for round in $(seq "$rounds"); do
	for ratio in $ratios; do
		measure "$ratio"
	done
done
echo "hop(): processor time per row, medians of $rounds rounds; goal: at most 1.5 times from end to end"
for ratio in $ratios; do
	awk -v n="$ratio" -v us="$(median "$ratio")" -v one="$(median 1)" \
		'BEGIN {printf "size/slide %3d   %6.2f us   %.2f times\n", n, us, us / one}'
done
psql -XAtq -d postgres -c 'DROP DATABASE hop_bench'
