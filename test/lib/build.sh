#!/usr/bin/env bash
#
# test/lib/build.sh test|chaos|demo|fuzz|bench [argument ...]
#		Builds streamext and installs it beside a private copy of the server, then
#		runs the tests, the chaos test alone, the demo, the fuzz tests or the benchmark.  Called by enter.sh, as an unprivileged user.
#
# PostgreSQL looks for extensions only in its own folders.  It finds those folders,
# however, relative to its own program file: a copy of the programs, with links to
# all other files, is a complete server of its own, into which we can install
# without touching the system's.
#
set -u
cd "$SX_TOP" || exit 1

what=$1
shift
root=$SX_TEMP/server
bindir=$("$SX_PG_CONFIG" --bindir)
libdir=$("$SX_PG_CONFIG" --pkglibdir)
sharedir=$("$SX_PG_CONFIG" --sharedir)
log=$SX_TEMP/build.log

fail()
{
	tail -n 60 "$log" >&2
	echo "$1" >&2
	[ "$what" = test ] && echo "0 passed, 1 failed"
	exit 1
}

# link_all FROM TO: links in TO to everything in FROM except an installed streamext
link_all()
{
	local entry
	mkdir -p "$2"
	for entry in "$1"/*; do
		case ${entry##*/} in
			streamext* | extension) ;;
			*) ln -s "$entry" "$2/" ;;
		esac
	done
}

mkdir -p "$root$bindir"
# only programs: a distribution may have put other links there
cp -L "$bindir"/* "$root$bindir/" 2>>"$log"
link_all "$libdir" "$root$libdir"
link_all "$sharedir" "$root$sharedir"
link_all "$sharedir/extension" "$root$sharedir/extension"

echo "building with $("$SX_PG_CONFIG" --version)"
started=$SECONDS
options=("PG_CONFIG=$SX_PG_CONFIG" with_llvm=no)
flags=
[ -n "${SX_WERROR:-}" ] && flags=-Werror
# SANITIZE=1: our library checks its own arithmetic, shifts, alignment, bounds and null pointers.  (The
# address sanitizer must be loaded before the server, which was built without it, and hangs there.)
if [ -n "${SANITIZE:-}" ]; then
	flags="-O1 -g -fsanitize=undefined -fno-omit-frame-pointer"
	export UBSAN_OPTIONS=print_stacktrace=1:log_path=$SX_TEMP/sanitizer.log
fi
options+=("COPT=$flags")
# tests inject faults through hooks that nobody else's build has
[ "$what" = test ] && options+=(SX_TESTING=1)
make -s -j"$(nproc)" "${options[@]}" all >"$log" 2>&1 || fail "the build failed, see above"
make -s "${options[@]}" install "DESTDIR=$root" >>"$log" 2>&1 || fail "could not install"
echo "built in $((SECONDS - started)) s"

export SX_BINDIR=$root$bindir
export SX_SHAREDIR=$root$sharedir
export SX_PGXS=$(dirname "$(dirname "$(dirname "$("$SX_PG_CONFIG" --pgxs)")")")
export PATH=$SX_BINDIR:$PATH
case $what in
	test) exec bash test/run.sh "$@" ;;
	fuzz)
		mkdir -p "$SX_TEMP/results"
		PG_REGRESS=$SX_PGXS/src/test/regress/pg_regress TESTDIR=$SX_TEMP/results PG_TEST_PORT_DIR=$SX_TEMP/ports \
			exec perl "-I$SX_PGXS/src/test/perl" test/fuzz/fuzz.pl "$@"
		;;
	chaos)
		mkdir -p "$SX_TEMP/chaos"
		PG_REGRESS=$SX_PGXS/src/test/regress/pg_regress TESTDIR=$SX_TEMP/chaos PG_TEST_PORT_DIR=$SX_TEMP/ports \
			exec perl "-I$SX_PGXS/src/test/perl" -Itest/t test/t/030_chaos.pl 2>&1
		;;
	demo) exec perl test/demo/demo.pl "$@" ;;
	bench) exec perl test/bench/bench.pl ;;
esac
