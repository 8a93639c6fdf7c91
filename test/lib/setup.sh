#!/usr/bin/env bash
#
# test/lib/setup.sh [test|chaos|demo|fuzz|bench]
#		Makes sure that everything "make test" or "make demo" needs is installed.
#
# Looks for the programs and files themselves, not for package names, and does
# nothing when all are there.  Otherwise it installs the missing packages with
# apt, as root or through sudo, or, where it cannot, prints their names and fails.
# On success the last line on file descriptor 3 (if open) is the pg_config to use.
#
set -u

purpose=${1:-test}

# The newest server of version 15 or later that has its development files.
find_pg_config()
{
	local candidate best=
	for candidate in ${PG_CONFIG:-$(command -v pg_config) \
		$(ls -d /usr/lib/postgresql/*/bin/pg_config 2>/dev/null | sort -V)}; do
		if [ "$(major "$candidate")" -ge 15 ] && [ -f "$("$candidate" --pgxs)" ] &&
			[ -x "$("$candidate" --bindir)/postgres" ]; then
			best=$candidate
		fi
	done
	[ -z "$best" ] || command -v "$best"
}

# "PostgreSQL 15.20 (Debian ...)" -> 15
major()
{
	"$1" --version 2>/dev/null | sed 's/^[^0-9]*\([0-9]*\).*/\1/' | grep . || echo 0
}

# Prints the names of the missing packages.
missing()
{
	local pg_config share version=15
	pg_config=$(find_pg_config)
	if [ -n "$pg_config" ]; then
		version=$(major "$pg_config")
		share=$("$pg_config" --sharedir)
		[ -f "$("$pg_config" --includedir-server)/postgres.h" ] || echo "postgresql-server-dev-$version"
	else
		echo "postgresql-$version"
		echo "postgresql-server-dev-$version"
		share=/usr/share/postgresql/$version
	fi
	command -v "${CC:-gcc}" >/dev/null || echo gcc
	echo '#include <stdio.h>' | "${CC:-gcc}" -E - >/dev/null 2>&1 || echo libc6-dev
	command -v make >/dev/null || echo make
	perl -MTest::More -MTime::HiRes -MTAP::Parser -MIPC::Open2 -e 1 2>/dev/null || echo perl
	[ "$purpose" != demo ] && [ "$purpose" != bench ] || return 0
	perl -MIPC::Run -e 1 2>/dev/null || echo libipc-run-perl
	[ "$purpose" = test ] || return 0
	[ -z "${VALGRIND:-}" ] || command -v valgrind >/dev/null || echo valgrind
	[ -f "$share/extension/tdigest.control" ] || echo "postgresql-$version-tdigest"
	[ -f "$share/extension/hll.control" ] || echo "postgresql-$version-hll"
}

# What one test (test/t/046_jobs.pl) uses if it is there, and says so if not.
optional()
{
	local pg_config
	[ "$purpose" = test ] && pg_config=$(find_pg_config) && [ -n "$pg_config" ] || return 0
	[ -f "$("$pg_config" --sharedir)/extension/pg_cron.control" ] || echo "postgresql-$(major "$pg_config")-cron"
}

packages=$(missing | sort -u | tr '\n' ' ')
if [ -n "$packages" ]; then
	as_root=
	if [ "$(id -u)" != 0 ]; then
		as_root="sudo -n"
		sudo -n true 2>/dev/null || as_root=none
	fi
	if ! command -v apt-get >/dev/null || [ "$as_root" = none ]; then
		echo "missing packages (names as in Debian 12): $packages" >&2
		echo "install them, then run make $purpose again" >&2
		exit 1
	fi
	echo "installing: $packages"
	log=$(mktemp)
	if ! { $as_root apt-get update &&
		$as_root env DEBIAN_FRONTEND=noninteractive \
			apt-get install -y --no-install-recommends $packages; } >"$log" 2>&1 </dev/null; then
		tail -n 30 "$log" >&2
		rm -f "$log"
		echo "could not install: $packages" >&2
		exit 1
	fi
	rm -f "$log"
	packages=$(missing | sort -u | tr '\n' ' ')
	if [ -n "$packages" ]; then
		echo "still missing after installation: $packages" >&2
		exit 1
	fi
fi

packages=$(optional)
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	{ apt-get install -y --no-install-recommends $packages ||
		{ apt-get update && apt-get install -y --no-install-recommends $packages; }; } >/dev/null 2>&1 </dev/null ||
		echo "not installed, a test does without: $packages"
fi

find_pg_config >&3 2>/dev/null || true
