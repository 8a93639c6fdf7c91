#!/usr/bin/env bash
#
# test/lib/enter.sh test|chaos|demo|fuzz|bench [argument ...]
#		The frame around "make test", "make chaos", "make demo", "make fuzz" and "make bench".
#
# 1. installs what is missing (setup.sh);
# 2. copies the work tree into a new temporary folder, because the server does
#    not run as root and its user may not be able to read the tree;
# 3. there, as an unprivileged user, builds and installs into a *private copy* of
#    the server's folders (build.sh), so that nothing on the system changes, and
#    runs test/run.sh, test/t/030_chaos.pl, test/demo/demo.pl, test/fuzz/fuzz.pl or
#    test/bench/bench.pl, whose table it copies to results/bench.txt;
# 4. whatever happens, Ctrl-C included, ends every process of that folder and
#    removes it.  KEEP=1 keeps the folder, and the demo's server with it.
#
set -u

what=$1
shift
top=$(cd "$(dirname "$0")/../.." && pwd)
child=
temp=

# Processes that run a program of ours.  (A private server's programs lie in our folder.)
ours()
{
	local link
	for link in /proc/[0-9]*/exe; do
		case $(readlink "$link" 2>/dev/null) in
			"$temp"/*) link=${link%/exe}; echo "${link#/proc/}" ;;
		esac
	done
}

clean_up()
{
	trap '' INT TERM HUP
	local i pids
	[ -n "$temp" ] || return
	if [ -n "$child" ] && kill -0 "$child" 2>/dev/null; then
		kill -TERM -- "-$child" 2>/dev/null
	fi
	if [ -e "$temp/keep_server" ]; then
		return
	fi
	# SIGQUIT is an immediate shutdown for a server
	pids=$(ours)
	[ -z "$pids" ] || kill -QUIT $pids 2>/dev/null
	for i in $(seq 50); do
		pids=$(ours)
		[ -z "$pids" ] && break
		sleep 0.1
	done
	[ -z "$pids" ] || kill -KILL $pids 2>/dev/null
	if [ -n "${KEEP:-}" ]; then
		echo "kept: $temp" >&2
	else
		rm -rf "$temp"
	fi
}

interrupted()
{
	echo "interrupted" >&2
	exit 130
}

fail()
{
	echo "$1" >&2
	[ "$what" = test ] && echo "0 passed, 1 failed"
	exit 1
}

exec 4>&1
pg_config=$(bash "$top/test/lib/setup.sh" "$what" 3>&1 >&4) || fail "set-up failed"
exec 4>&-

trap clean_up EXIT
trap interrupted INT TERM HUP
# short: a socket's path has at most 107 bytes
temp=$(mktemp -d /tmp/sx.XXXXXX) || fail "could not create a temporary folder"
mkdir "$temp/src" "$temp/home" "$temp/tmp"
tar -C "$top" -cf - --exclude=./.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' \
	--exclude=./tmp --exclude=./results . | tar -C "$temp/src" -xf - || fail "could not copy the work tree"

drop=()
if [ "$(id -u)" = 0 ]; then
	user=postgres
	id -u "$user" >/dev/null 2>&1 || user=nobody
	chown -R "$user:" "$temp"
	drop=(setpriv "--reuid=$(id -u "$user")" "--regid=$(id -g "$user")" --clear-groups)
fi

# No setting of the caller's may leak in (PGHOST, PGOPTIONS, PERL5LIB, MAKEFLAGS ...)
environment=(HOME="$temp/home" TMPDIR="$temp/tmp" SHELL=/bin/sh LC_ALL=C.UTF-8 TZ=UTC
	PATH="$PATH:/usr/bin:/bin" TERM="${TERM:-dumb}" COLUMNS="${COLUMNS:-$( (tput cols) 2>/dev/null || echo 80)}"
	SX_TEMP="$temp" SX_TOP="$temp/src" SX_PG_CONFIG="$pg_config" SX_WERROR="$([ "$what" = test ] && echo 1)")
for name in CC JOBS LONG SANITIZE VALGRIND SEED ROUNDS FIRST KEEP TESTS QUERIES BATCH ROWS CLIENTS SECONDS_TO_REPLAY TIME RATE QUICK FULL ONLY SYSTEMS; do
	[ -n "${!name:-}" ] && environment+=("$name=${!name}")
done

# A session of its own, so that one signal reaches all of it; waited for in the
# background, so that our own traps run at once.
setsid "${drop[@]}" env -i "${environment[@]}" \
	bash "$temp/src/test/lib/build.sh" "$what" "$@" </dev/null &
child=$!
wait "$child"
status=$?
child_group=$child
if [ -f "$temp/bench.txt" ]; then
	mkdir -p "$top/results" && cp "$temp/bench.txt" "$top/results/bench.txt" && echo "the table is in results/bench.txt"
fi
kill -TERM -- "-$child_group" 2>/dev/null
exit "$status"
