#!/usr/bin/env bash
#
# test/run.sh
#		Runs the tests against the private server that test/lib/build.sh made.
#
# Three kinds, all found by wildcard:
#	sql/NAME.sql                      regression: output equals expected/NAME.out
#	test/isolation/specs/NAME.spec    isolation: output equals test/isolation/expected/NAME.out
#	test/t/NNN_NAME.pl                TAP: each assertion counts
# Regression files and isolation specs share one server, and each gets a fresh
# database with the extension; TAP tests start servers of their own, and run two at a time (JOBS=n).
#
# LONG=1 runs test/long/NNN_NAME.pl, and nothing else: TAP tests that take minutes.
# SANITIZE=1 runs them with a library that checks itself for undefined behaviour (build.sh).
# VALGRIND=1 runs the regression files alone, with all processes of the server under valgrind.
# TESTS="streams ddl" runs only tests of these names (wildcards allowed).
# The last line is "N passed, N failed".
#
set -u
set -f
cd "$SX_TOP" || exit 1

results=$SX_TEMP/results
data=$SX_TEMP/data
log=$SX_TEMP/server.log
pg_regress=$SX_PGXS/src/test/regress/pg_regress
pg_isolation_regress=$SX_PGXS/src/test/isolation/pg_isolation_regress
tap_folder=test/t
tap_timeout=400
[ -n "${LONG:-}" ] && tap_folder=test/long && tap_timeout=7200
[ -n "${SANITIZE:-}" ] && tap_timeout=$((tap_timeout * 5))
compare_timeout=300
server_options=()
[ -n "${VALGRIND:-}" ] && compare_timeout=7200 && server_options=(-p "$SX_TEMP/valgrind.sh" -t 600)
# TAP tests at a time: they wait more than they compute
jobs=${JOBS:-2}
[ -n "${LONG:-}" ] && jobs=1
passed=0
failed=0
failures=()
mkdir -p "$results"

# wanted NAME: is it among TESTS?
wanted()
{
	local pattern
	[ -n "${TESTS:-}" ] || return 0
	for pattern in $TESTS; do
		case $1 in
			$pattern | [0-9][0-9][0-9]_$pattern) return 0 ;;
		esac
	done
	return 1
}

# files FOLDER SUFFIX: the names of the wanted tests there
files()
{
	local file found
	[ -n "${LONG:-}" ] && [ "$1" != test/long ] && return
	[ -n "${VALGRIND:-}" ] && [ "$1" != sql ] && return
	set +f
	found=("$1"/*"$2")
	set -f
	for file in "${found[@]}"; do
		[ -e "$file" ] || continue
		file=${file##*/}
		wanted "${file%"$2"}" && echo "${file%"$2"}"
	done
}

# report KIND NAME PASSED FAILED SECONDS
report()
{
	local word=ok
	passed=$((passed + $3))
	failed=$((failed + $4))
	if [ "$4" != 0 ]; then
		word=FAILED
		failures+=("$1 $2")
	fi
	printf '%-6s %-10s %-24s %5d passed %3d failed %6.1f s\n' "$word" "$1" "$2" "$3" "$4" "$5"
}

seconds_since()
{
	local now=${EPOCHREALTIME/./}
	printf '%d.%03d' $(((now - $1) / 1000000)) $(((now - $1) / 1000 % 1000))
}

start_server()
{
	initdb -D "$data" -A trust -U postgres -N -E UTF8 --locale=C >"$SX_TEMP/initdb.log" 2>&1 || {
		tail -n 20 "$SX_TEMP/initdb.log"
		return 1
	}
	cat >>"$data/postgresql.conf" <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$SX_TEMP'
		port = 5432
		shared_preload_libraries = 'streamext'
		max_prepared_transactions = 20
		max_connections = 50
		max_worker_processes = 24
		fsync = off
		timezone = 'UTC'
		log_line_prefix = '%m [%p] %b %d '
	CONF
	if [ -n "${VALGRIND:-}" ]; then
		cat >"$SX_TEMP/valgrind.sh" <<-SCRIPT
			#!/bin/sh
			exec valgrind --quiet --trace-children=yes --leak-check=no --num-callers=40 \
				--log-file="$SX_TEMP/valgrind.%p.log" "$SX_BINDIR/postgres" "\$@"
		SCRIPT
		chmod +x "$SX_TEMP/valgrind.sh"
		# nothing is fast
		cat >>"$data/postgresql.conf" <<-CONF
			streamext.view_budget = 0
			streamext.wait_timeout = '600s'
		CONF
	fi
	pg_ctl -D "$data" -l "$log" -w -t 60 "${server_options[@]}" start >"$SX_TEMP/start.log" 2>&1 || {
		tail -n 20 "$log"
		return 1
	}
}

# one file of pg_regress or pg_isolation_regress: compare KIND NAME PROGRAM ARGUMENT ...
compare()
{
	local kind=$1 name=$2 out=$results/$1.$2 started=${EPOCHREALTIME/./}
	shift 2
	mkdir -p "$out"
	if timeout -k 5 $compare_timeout "$@" --host="$SX_TEMP" --port=5432 --user=postgres --bindir="$SX_BINDIR" \
		--outputdir="$out" --load-extension=streamext "$name" >"$out/log" 2>&1; then
		report "$kind" "$name" 1 0 "$(seconds_since "$started")"
	else
		# under valgrind nothing is in time, and what waits for it shows that; findings and crashes count
		if [ -n "${VALGRIND:-}" ] && [ -s "$out/regression.diffs" ]; then
			report "$kind" "$name" 1 0 "$(seconds_since "$started")"
			echo "its output differs"
			return
		fi
		report "$kind" "$name" 0 1 "$(seconds_since "$started")"
		if [ -s "$out/regression.diffs" ]; then
			head -n 150 "$out/regression.diffs"
		else
			tail -n 20 "$out/log"
		fi
	fi
}

# Unexpected ends of processes, in every server log; tests that kill say so (StreamextTest.pm).
scan_logs()
{
	local file pattern='PANIC|TRAP:|terminated by signal' found=0 lines folder
	while read -r file; do
		folder=$(dirname "$(dirname "$(dirname "$file")")")
		lines=$(grep -aE "$pattern" "$file" 2>/dev/null |
			{ if [ -s "$folder/allowed_in_log" ]; then grep -avEf "$folder/allowed_in_log"; else cat; fi; })
		if [ -n "$lines" ]; then
			found=$((found + 1))
			echo "unexpected in ${file#"$SX_TEMP"/}:"
			echo "$lines" | head -n 20
		fi
	done < <(find "$SX_TEMP" -name '*.log' -path '*log*' -type f ! -name build.log)
	report log "no crash in any server log" $((found == 0)) "$found" 0

	if [ -n "${VALGRIND:-}" ]; then
		found=0
		find "$SX_TEMP" -maxdepth 1 -name 'valgrind.*.log' -exec perl test/lib/valgrind.pl {} + || found=1
		report log "no finding of valgrind" $((found == 0)) "$found" 0
	fi
	[ -n "${SANITIZE:-}" ] || return
	found=0
	for file in $(find "$SX_TEMP" -maxdepth 1 -name 'sanitizer.log*' -size +0); do
		found=$((found + 1))
		[ "$found" -gt 10 ] || grep -vE '^ *$|^=+$' "$file" | head -n 30
	done
	report log "no finding of the sanitizer" $((found == 0)) "$found" 0
}

compared=$( (files sql .sql; files test/isolation/specs .spec) | wc -l)
if [ "$compared" -gt 0 ]; then
	if start_server; then
		for name in $(files sql .sql); do
			compare regress "$name" "$pg_regress" --inputdir=. --dbname=regression
		done
		for name in $(files test/isolation/specs .spec); do
			compare isolation "$name" "$pg_isolation_regress" --inputdir=test/isolation \
				--dbname=isolation_regression
		done
		started=${EPOCHREALTIME/./}
		if pg_ctl -D "$data" -w -t 30 -m fast stop >"$SX_TEMP/stop.log" 2>&1; then
			report server "stops when told" 1 0 "$(seconds_since "$started")"
		else
			report server "stops when told" 0 1 "$(seconds_since "$started")"
		fi
	else
		report server "starts" 0 1 0
	fi
fi

# one TAP test, on its own: what it prints, its count and its time go to its folder
run_tap()
{
	local name=$1 out=$results/tap.$1 started=${EPOCHREALTIME/./}
	mkdir -p "$out"
	PG_REGRESS=$pg_regress TESTDIR=$out PG_TEST_PORT_DIR=$SX_TEMP/ports \
		timeout -k 5 $tap_timeout perl test/lib/tap.pl "$tap_folder/$name.pl" "$out/count" \
		-I"$SX_PGXS/src/test/perl" -Itest/t >"$out/output" 2>&1
	seconds_since "$started" >"$out/seconds"
}

report_tap()
{
	local name=$1 out=$results/tap.$1 ok not_ok file
	cat "$out/output"
	if read -r ok not_ok <"$out/count" 2>/dev/null; then
		report tap "$name" "$ok" "$not_ok" "$(cat "$out/seconds")"
	else
		not_ok=1
		report tap "$name" 0 1 "$(cat "$out/seconds")"
		echo "it did not end by itself"
	fi
	[ "$not_ok" != 0 ] || return
	find "$out/tmp_check/log" -name "regress_log_*" -exec tail -n 12 {} + 2>/dev/null
	for file in $(find "$out/tmp_check/log" -name '*.log' 2>/dev/null | grep -v regress_log); do
		echo "--- the end of ${file##*/}"
		grep -avE 'checkpoint (starting|complete)|background worker "logical replication' "$file" | tail -n 25
	done
}

declare -A running=()
reap_tap()
{
	local pid
	wait -n -p pid "${!running[@]}"
	report_tap "${running[$pid]}"
	unset "running[$pid]"
}

for name in $(files $tap_folder .pl); do
	[ "${#running[@]}" -lt "$jobs" ] || reap_tap
	run_tap "$name" &
	running[$!]=$name
done
while [ "${#running[@]}" -gt 0 ]; do
	reap_tap
done

[ "$((passed + failed))" = 0 ] && {
	echo "no test of that name: ${TESTS:-}"
	failed=1
}
if [ "$compared" -gt 0 ] || [ -n "$(files $tap_folder .pl)" ]; then
	scan_logs
fi
if [ "$failed" != 0 ]; then
	if [ -e "$log" ]; then
		echo "--- the end of the server's log"
		grep -av 'checkpoint ' "$log" | tail -n 40
	fi
	echo "failed: $(IFS=,; echo "${failures[*]}" | sed 's/,/, /g')"
fi
echo "total $SECONDS s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
