#!/usr/bin/env bash
#
# test/bench/isolation.sh [SECONDS] [ROWS PER SECOND] [ROUNDS]
#		Freshness of eleven healthy views: alone, beside views that wait and fail, and beside views that
#		compute and fail (I6).
#
# In each round three settings take turns, so that what else the machine does meets them alike; the figures
# are medians over the rounds.
#	alone		the healthy views
#	sleeping	beside one that fails on every row and one that sleeps 10 ms per row: what the design
#				promises: such a view takes nobody's turn
#	computing	beside one that fails and one that computes 10 ms per row: at 200 rows a second that
#				is twice what one processor can do, so it measures the scheduler as well: with as many
#				busy processes as processors a healthy one waits for its turn like any other
#
# Against the server that PGHOST, PGPORT … name, which has streamext preloaded; makes and drops a database
# "isolation_bench".  Prints p50 and p99 as streamext.status has them (powers of two), and as a reader sees
# them: the time from a commit until wait_for() on a healthy view returns.
#
set -eu
export PGOPTIONS='-c client_min_messages=warning'
seconds=${1:-30}
rate=${2:-200}
rounds=${3:-3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
run() { psql -XAtq -v ON_ERROR_STOP=1 -d isolation_bench "$@"; }

echo 'INSERT INTO ev (k, v) VALUES (random() * 20, 1)' >"$folder/write.sql"
echo "INSERT INTO ev (k, v) VALUES (1, 1); SELECT streamext.wait_for('healthy_1')" >"$folder/read.sql"

# measure NAME: fresh views, SECONDS of inserts, then their figures, a line in $folder/NAME
measure()
{
	for i in $(seq 11); do
		run -c "DROP MATERIALIZED VIEW IF EXISTS healthy_$i" 2>/dev/null
		run -c "CREATE MATERIALIZED VIEW healthy_$i WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(v + $i) AS s FROM ev GROUP BY k WITH NO DATA"
	done
	for i in $(seq 11); do run -c "SELECT streamext.wait_for('healthy_$i', '60s')" >/dev/null; done
	pgbench -n -c 1 -R 5 -T "$seconds" -f "$folder/read.sql" -l --log-prefix="$folder/log" isolation_bench >/dev/null 2>&1 &
	pgbench -n -c 4 -R "$rate" -T "$seconds" -f "$folder/write.sql" isolation_bench >/dev/null 2>&1
	wait
	{
		run -F ' ' -c "SELECT round(avg(freshness_p50_ms)::numeric, 2), round(max(freshness_p99_ms)::numeric, 2)
			FROM streamext.status WHERE view::text LIKE 'healthy%'"
		# elapsed minus the lag of the schedule, microseconds
		cat "$folder"/log* | awk '{print $3 - $7}' | sort -n |
			awk '{t[NR] = $1} END {printf "%.2f %.2f\n", t[int(NR * .5) + 1] / 1000, t[int(NR * .99) + 1] / 1000}'
	} | paste -sd ' ' | tee "$folder/last" >>"$folder/$1"
	rm -f "$folder"/log*
	printf '%-10s status p50 %7s p99 %7s   reader p50 %7s p99 %7s ms\n' "$1" $(cat "$folder/last")
}

# beside NAME FUNCTION: the same with two views in trouble.  They have had some time: what a view may hold up
# the others before it goes to a process of its own is a setting (view_budget), not what is measured here.
beside()
{
	run -c 'CREATE MATERIALIZED VIEW fails WITH (streamext.continuous) AS SELECT k, sum(1 / (v - v)) AS n FROM ev GROUP BY k WITH NO DATA'
	run -c "CREATE MATERIALIZED VIEW slow WITH (streamext.continuous) AS SELECT k, sum($2(v)) AS n FROM ev GROUP BY k WITH NO DATA"
	pgbench -n -c 4 -R "$rate" -T 5 -f "$folder/write.sql" isolation_bench >/dev/null 2>&1
	measure "$1"
	run -F ' | ' -c "SELECT '          ', view, state, reason FROM streamext.status WHERE view::text NOT LIKE 'healthy%'"
	run -c 'DROP MATERIALIZED VIEW fails' -c 'DROP MATERIALIZED VIEW slow'
}

# median NAME COLUMN
median()
{
	cut -d ' ' -f "$2" "$folder/$1" | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'
}

psql -XAtq -d postgres -c 'DROP DATABASE IF EXISTS isolation_bench' -c 'CREATE DATABASE isolation_bench'
run <<'SQL'
CREATE EXTENSION streamext;
CREATE TABLE ev (id bigserial, k int, v int);
CREATE FUNCTION sleeps(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM pg_sleep(0.01); RETURN v; END $$;
CREATE FUNCTION computes(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE since timestamptz := clock_timestamp();
BEGIN
	WHILE clock_timestamp() < since + interval '10 ms' LOOP END LOOP;
	RETURN v;
END $$;
SQL
for round in $(seq "$rounds"); do
	measure alone
	beside sleeping sleeps
	beside computing computes
done
echo "medians of $rounds rounds, and how many times as long as alone:"
for name in alone sleeping computing; do
	printf '%-10s' "$name"
	for column in 1 2 3 4; do
		awk -v what="$(echo 'status p50,status p99,reader p50,reader p99' | cut -d , -f $column)" \
			-v a="$(median alone $column)" -v b="$(median "$name" $column)" \
			'BEGIN {printf "   %s %.2f ms (%.1f)", what, b, (a > 0) ? b / a : 0}'
	done
	echo
done
psql -XAtq -d postgres -c 'DROP DATABASE isolation_bench'
