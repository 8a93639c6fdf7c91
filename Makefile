# streamext: continuous views for PostgreSQL
#
# make            builds; make install, make test, make demo: see README.md

EXTENSION = streamext
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" streamext.control)
MODULE_big = streamext
SOURCES = $(sort $(wildcard src/*.c src/*/*.c))
OBJS = $(SOURCES:.c=.o)
SCRIPT = $(EXTENSION)--$(EXTVERSION).sql
DATA_built = $(SCRIPT)

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers

# "make test" builds with hooks for fault injection: see src/testing
ifdef SX_TESTING
comma := ,
FAIL_FUNCTIONS = palloc palloc0 repalloc repalloc_huge MemoryContextAlloc MemoryContextAllocZero \
	MemoryContextAllocHuge MemoryContextAllocExtended MemoryContextStrdup pstrdup pnstrdup AllocSetContextCreateInternal lappend \
	lappend_oid lcons list_copy hash_search tuplestore_puttupleslot dsa_allocate_extended \
	SPI_execute_plan SPI_execute CatalogTupleInsert CatalogTupleUpdate CatalogTupleDelete \
	read_local_xlog_page_no_wait ConditionalLockRelationOid RegisterDynamicBackgroundWorker \
	CommitTransactionCommand
PG_CPPFLAGS += -DSX_TESTING
SHLIB_LINK += $(addprefix -Wl$(comma)--wrap=,$(FAIL_FUNCTIONS))
else
SOURCES := $(filter-out src/testing/%,$(SOURCES))
endif

# no bitcode: nothing of ours is worth inlining into a query, and it doubles the time to build
override with_llvm := no

PG_CONFIG ?= pg_config
srcdir ?= .
PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))
ifneq ($(PGXS),)
include $(PGXS)
else
# "make test" and "make demo" work without: they install it
all install:
	@echo "no PostgreSQL development files: set PG_CONFIG, or install postgresql-server-dev-15" >&2; exit 1
endif

$(SCRIPT): $(sort $(wildcard src/sql/*.sql)) streamext.control
	cat $(sort $(wildcard src/sql/*.sql)) > $@

# a header is a contract: whoever includes it is compiled again
$(OBJS): $(wildcard src/*.h src/*/*.h)

# Tests and demo: see test/run.sh, test/t/030_chaos.pl, test/fuzz/ and test/demo/demo.pl.  They build in a temporary folder.
.PHONY: test test-long chaos demo fuzz bench help format-check

test:
	@bash test/lib/enter.sh test

# what takes minutes
test-long:
	@LONG=1 bash test/lib/enter.sh test

chaos:
	@bash test/lib/enter.sh chaos

demo:
	@bash test/lib/enter.sh demo

# random views against their queries, longer than make test does it
fuzz:
	@bash test/lib/enter.sh fuzz

# how fast it is beside plain PostgreSQL: test/bench/bench.pl
bench:
	@bash test/lib/enter.sh bench

format-check:
	clang-format --dry-run --Werror $(wildcard src/*.[ch] src/*/*.[ch])

help:
	@echo 'make                        build'
	@echo 'make install                install into the server that pg_config names'
	@echo 'make test                   run all tests on private servers'
	@echo 'make test TESTS="dump ddl"  run only these'
	@echo 'make test JOBS=1            TAP tests one at a time, not two'
	@echo 'make test SANITIZE=1        with a library that checks itself for undefined behaviour'
	@echo 'make test VALGRIND=1        regression files only, all of the server under valgrind'
	@echo 'make test-long              tests that take minutes each, test/long/; TESTS="..." too'
	@echo 'make chaos ROUNDS=100 SEED=7'
	@echo '                            random work, commands and kills; all views compared after each round'
	@echo 'make demo                   continuous views over a live replay of flights'
	@echo 'make demo KEEP=1            the same, and leave the server up'
	@echo 'make fuzz                   20,000 random views against their queries; QUERIES=n SEED=n'
	@echo 'make bench                  speed beside plain PostgreSQL, 15 minutes; QUICK=1 two minutes, FULL=1 hours; ONLY="copy insert" ROUNDS=n'
	@echo 'make format-check           check the source format'
