#!/usr/bin/env bash
#
# test/bench/run.sh
#		A server with ordinary settings for test/bench/isolation.sh and hop.sh, and nothing else on it.
#
# Called by test/lib/build.sh; enter.sh ends the server.  ROUNDS: in which measurements take turns.  ONLY: one
# of the two.  For isolation, TIME: seconds of each measurement, and RATE: rows inserted per second.
#
set -eu
export PGHOST=$SX_TEMP PGPORT=5432 PGUSER=postgres

initdb -D "$SX_TEMP/data" -A trust -U postgres -N -E UTF8 --locale=C >"$SX_TEMP/initdb.log"
cat >>"$SX_TEMP/data/postgresql.conf" <<-CONF
	listen_addresses = ''
	unix_socket_directories = '$SX_TEMP'
	shared_preload_libraries = 'streamext'
	shared_buffers = '256MB'
CONF
pg_ctl -D "$SX_TEMP/data" -l "$SX_TEMP/server.log" -w -t 60 start >"$SX_TEMP/start.log"
for what in ${ONLY:-isolation hop}; do
	case $what in
		isolation) bash test/bench/isolation.sh "${TIME:-30}" "${RATE:-200}" "${ROUNDS:-3}" ;;
		hop) bash test/bench/hop.sh "${ROUNDS:-3}" ;;
	esac
done
pg_ctl -D "$SX_TEMP/data" -w -t 30 -m fast stop >"$SX_TEMP/stop.log"
