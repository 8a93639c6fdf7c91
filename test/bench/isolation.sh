#!/usr/bin/env bash
#
# test/bench/isolation.sh [SECONDS] [ROWS PER SECOND]
#		Freshness of eleven healthy views, alone and beside one that fails on every row and one that
#		takes 10 ms per row (I6).
#
# Against the server that PGHOST, PGPORT … name, which has streamext preloaded; makes and drops a database
# "isolation_bench".  Prints p50 and p99 as streamext.status has them, and as a reader sees them: the time from
# a commit until wait_for() on a healthy view returns.
#
set -eu
seconds=${1:-30}
rate=${2:-200}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
run() { psql -XAtq -v ON_ERROR_STOP=1 -d isolation_bench "$@"; }

echo 'INSERT INTO ev (k, v) VALUES (random() * 20, 1)' >"$folder/write.sql"
echo "INSERT INTO ev (k, v) VALUES (1, 1); SELECT streamext.wait_for('healthy_1')" >"$folder/read.sql"

# measure NAME: fresh views, SECONDS of inserts, then their figures
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
	run -F ' ' -c "SELECT '$1: status p50', round(avg(freshness_p50_ms)::numeric, 2), 'ms, p99', round(max(freshness_p99_ms)::numeric, 2), 'ms'
		FROM streamext.status WHERE view::text LIKE 'healthy%'"
	# elapsed minus the lag of the schedule, microseconds
	cat "$folder"/log* | awk '{print $3 - $7}' | sort -n |
		awk -v name="$1" '{t[NR] = $1} END {printf "%s: reader p50 %.2f ms, p99 %.2f ms\n", name, t[int(NR * .5) + 1] / 1000, t[int(NR * .99) + 1] / 1000}'
	rm -f "$folder"/log*
}

psql -XAtq -d postgres -c 'DROP DATABASE IF EXISTS isolation_bench' -c 'CREATE DATABASE isolation_bench'
run <<'SQL'
CREATE EXTENSION streamext;
CREATE TABLE ev (id bigserial, k int, v int);
CREATE FUNCTION slow(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE since timestamptz := clock_timestamp();
BEGIN
	WHILE clock_timestamp() < since + interval '10 ms' LOOP END LOOP;
	RETURN v;
END $$;
SQL
measure alone
run -c 'CREATE MATERIALIZED VIEW fails WITH (streamext.continuous) AS SELECT k, sum(1 / (v - v)) AS n FROM ev GROUP BY k WITH NO DATA'
run -c 'CREATE MATERIALIZED VIEW slow WITH (streamext.continuous) AS SELECT k, sum(slow(v)) AS n FROM ev GROUP BY k WITH NO DATA'
measure beside
run -F ' | ' -c "SELECT view, state, reason FROM streamext.status WHERE view::text NOT LIKE 'healthy%'"
psql -XAtq -d postgres -c 'DROP DATABASE isolation_bench'
