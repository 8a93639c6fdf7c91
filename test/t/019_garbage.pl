# Garbage: statements with random mutations, options, names and arguments.  Whatever comes in, the
# answer is a result or a clean error: no internal error (SQLSTATE XX...), no crash, no worker that
# had to be started again.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../fuzz";

use FuzzData;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $seed = seed(1);
my $rounds = int(($ENV{QUERIES} || 3000) / 300);
rnd_seed($seed);
my $node = new_node('garbage', settings => "log_line_prefix = '%m [%p] %b %d %e '\nmax_locks_per_transaction = 256\nlog_min_error_statement = panic\n");
new_database($node, 'app');
$node->safe_psql('app', make_setup());
$node->safe_psql('app', <<'SQL');
CREATE TABLE ev (id int8, k int4, ts timestamptz NOT NULL, t text, x float8, n numeric, j jsonb, a int[], d date);
CREATE TABLE look (k int PRIMARY KEY, name text);
CREATE TABLE parted (k int, v int) PARTITION BY LIST (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE plain (a int);
CREATE VIEW plain_view AS SELECT * FROM look;
INSERT INTO look SELECT i, 'n' || i FROM generate_series(1, 5) i;
CREATE MATERIALIZED VIEW sums WITH (streamext.continuous) AS SELECT k, count(*) AS n, avg(x) AS a, avg(n) AS an, max(t) AS t FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW rows WITH (streamext.continuous) AS SELECT id, t, streamext.tumble(ts, '1 hour') AS w FROM ev WHERE k > 0;
CREATE INDEX rows_idx ON rows (id);
INSERT INTO ev SELECT i, i % 4, '2026-01-01 00:00+00'::timestamptz + i * interval '1 minute', 't' || i % 3, i / 4.0, i FROM generate_series(1, 50) i;
-- runs a statement; nothing of it stays unless asked
CREATE FUNCTION try(statement text, keep bool) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		EXECUTE statement;
		IF NOT keep THEN
			RAISE EXCEPTION USING ERRCODE = 'YY000';
		END IF;
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE || ' ' || SQLERRM;
	END;
	RETURN '00000';
END $$;
SQL
is($node->safe_psql('app', "SELECT streamext.wait_for()"), 't', 'live');
my $started = $node->safe_psql('app', 'SELECT pg_postmaster_start_time()');
my @workers = map { join ' ', worker_pids($node, $_, $_ eq 'launcher' ? undef : 'app') } qw(launcher consumer flusher);

my @valid = (
	"CREATE MATERIALIZED VIEW g WITH (streamext.continuous) AS SELECT k, count(*) AS n, sum(x) AS s FROM ev WHERE t <> 'a' GROUP BY k HAVING count(*) > 1 ORDER BY k",
	"CREATE MATERIALIZED VIEW g (a, b) WITH (streamext.continuous = true, streamext.flush_interval = '1s', streamext.emit = 'changes', fillfactor = 80) AS SELECT id, t FROM ev WITH NO DATA",
	"CREATE MATERIALIZED VIEW IF NOT EXISTS g WITH (streamext.continuous, streamext.stream = 'ev') AS SELECT l.name, avg(e.n) FILTER (WHERE e.k IN (SELECT k FROM look)) FROM ev e LEFT JOIN look l USING (k) GROUP BY l.name",
	"CREATE MATERIALIZED VIEW g WITH (streamext.continuous) AS WITH e AS (SELECT * FROM ev) SELECT CASE WHEN e.k > 1 THEN e.t END AS c, max(a) AS m, min(d) AS d FROM e CROSS JOIN LATERAL generate_series(1, 2) s GROUP BY 1",
	"CREATE MATERIALIZED VIEW g WITH (streamext.continuous) AS SELECT streamext.tumble(ts, '1 hour', 'Europe/Berlin') AS w, j ->> 'a' AS b, array_length(a, 1) AS n FROM ev",
	"CREATE MATERIALIZED VIEW g WITH (streamext.continuous) AS SELECT (x).v, count(DISTINCT k), row_number() OVER () FROM parted x GROUP BY ROLLUP (1) LIMIT 1",
	"CREATE MATERIALIZED VIEW g WITH (streamext.continuous) AS SELECT k, fz_three(t ORDER BY t), fz_nulls(j) FROM ev GROUP BY GROUPING SETS ((k), ())",
	"SELECT streamext.create_view('g', 'SELECT k, count(*) FROM parted GROUP BY k', with_data => false, flush_interval => '100ms', stream => 'parted')",
	"SELECT streamext.create_stream('parted', event_time => NULL, watermark_delay => '5 seconds', late_rows => 'merge', idle_timeout => NULL)",
	"SELECT streamext.alter_stream('ev', max_future => '1 minute', changes => 'inserts')",
	"SELECT streamext.drop_stream('ev')",
	"ALTER MATERIALIZED VIEW sums SET (streamext.flush_interval = '2s', fillfactor = 50)",
	"ALTER MATERIALIZED VIEW sums RENAME COLUMN n TO m", "ALTER VIEW sums RENAME TO other", "ALTER MATERIALIZED VIEW sums SET SCHEMA streamext",
	"ALTER MATERIALIZED VIEW sums OWNER TO CURRENT_USER", "ALTER MATERIALIZED VIEW sums RESET (streamext.flush_interval)", "ALTER TABLE sums ADD COLUMN a int",
	"DROP MATERIALIZED VIEW sums, rows CASCADE", "DROP VIEW IF EXISTS sums RESTRICT", "DROP TABLE ev CASCADE", "DROP INDEX rows_idx", "DROP FUNCTION streamext.tumble(timestamptz, interval) CASCADE",
	"CREATE INDEX ON sums (n, k DESC)", "CREATE UNIQUE INDEX i ON rows (id) WHERE id > 1", "CREATE INDEX j ON rows USING gin (t)", "REINDEX TABLE rows", "ALTER INDEX rows_idx RENAME TO r2",
	"REFRESH MATERIALIZED VIEW sums", "COMMENT ON MATERIALIZED VIEW sums IS 'x'", "GRANT SELECT ON sums TO PUBLIC", "TRUNCATE ev, parted CASCADE", "CLUSTER ev", "LOCK TABLE sums IN SHARE MODE",
	"ALTER TABLE ev ADD COLUMN y int DEFAULT 3, DROP COLUMN j", "ALTER TABLE ev ALTER k TYPE int8 USING k + 1", "ALTER TABLE ev RENAME TO ev2", "ALTER TABLE parted DETACH PARTITION parted_1", "ALTER TABLE ev SET UNLOGGED",
	"CREATE TABLE c () INHERITS (ev)", "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2, 3)", "CREATE RULE r AS ON INSERT TO sums DO INSTEAD NOTHING", "INSERT INTO sums VALUES (1, 2)", "DELETE FROM rows WHERE id = 1",
	"SELECT * FROM sums s JOIN rows r ON r.id = s.k WHERE s.n > 1 AND r.t LIKE 't%' ORDER BY s.a DESC LIMIT 3", "SELECT count(*) FROM (SELECT k FROM sums UNION ALL SELECT id FROM rows) x", "SELECT * FROM sums FOR UPDATE",
	"WITH s AS (SELECT * FROM sums) SELECT (SELECT max(n) FROM s WHERE s.k = r.id) FROM rows r", "SELECT * FROM rows TABLESAMPLE SYSTEM (50)", "SELECT sums, rows.* FROM sums, rows", "EXPLAIN (VERBOSE, ANALYZE) SELECT * FROM sums WHERE k = 1",
	"DECLARE c SCROLL CURSOR FOR SELECT * FROM sums", "COPY sums TO STDOUT", "MERGE INTO ev USING look l ON l.k = ev.k WHEN NOT MATCHED THEN INSERT (k, ts) VALUES (1, '2026-01-01')", "SELECT * FROM streamext.status WHERE view = 'sums'::regclass",
	"SELECT * FROM streamext.verify('rows')", "SELECT * FROM streamext.explain('sums')", "DROP OWNED BY CURRENT_USER", "CREATE STATISTICS st ON k, n FROM sums", "ALTER EXTENSION streamext SET SCHEMA public", "CREATE TRIGGER g INSTEAD OF INSERT ON sums FOR EACH ROW EXECUTE FUNCTION x()",
);
no warnings 'qw';
my @words = (qw{SELECT FROM WHERE GROUP BY HAVING ORDER LIMIT DISTINCT UNION ALL EXCEPT WITH RECURSIVE AS ON USING JOIN LEFT FULL CROSS NATURAL LATERAL ONLY NULL TRUE NOT AND OR IN EXISTS ANY ARRAY ROW CAST CASE WHEN THEN ELSE END OVER FILTER WITHIN DEFAULT
	ev look parted plain plain_view sums rows streamext.view_def streamext.mat_1 streamext.query_1 pg_class k n t ts x id a j d ctid tableoid xmin count(*) sum(k) max(t) min(j) array_agg(k) string_agg(t,t) now() random() current_user nextval('s')
	streamext.tumble( streamext.hop( streamext.state streamext.continuous streamext.stream streamext.emit streamext.flush_interval streamext.nothing fillfactor ( ) ( ) , , ; . * + - / = <> % || :: [ ] 1 0 -1 1.5 99999999999999999999 1e400 'a' '' 'é' '1 day' 'infinity' "" "x""y" "select" $1 :x \\ @ # ~ ^ ? ! | & { } <<< E'\\0' U&'\\d800' B'2' X'zz'},
	'"' . 'n' x 70 . '"', "'" . 'x' x 3000 . "'", '(SELECT max(k) FROM ev)', '(SELECT 1 FROM ev)', 'NULL::record', "'{}'::json", "'{1}'::int[]", '($a$b$a$)', "\x{c3}\x{a9}", 'INTERVAL', 'COLLATE "C"', 'COLLATE "en-x-icu"', 'TABLESAMPLE SYSTEM (1)', 'FOR UPDATE', 'WITH NO DATA', 'IF NOT EXISTS', 'TABLESPACE pg_default', 'USING heap');

sub mutate
{
	my ($sql) = @_;
	my @tokens = $sql =~ /('(?:[^']|'')*'|"[^"]*"|[\w.]+|\s+|.)/gs;
	for (1 .. 1 + rnd(4))
	{
		my $at = rnd(scalar @tokens);
		my $how = rnd(6);
		if ($how == 0) { splice @tokens, $at, 1 if @tokens > 1; }
		elsif ($how == 1) { splice @tokens, $at, 0, $tokens[$at]; }
		elsif ($how == 2) { my $other = rnd(scalar @tokens); @tokens[ $at, $other ] = @tokens[ $other, $at ]; }
		elsif ($how == 3) { $tokens[$at] = one_of(@words); }
		elsif ($how == 4) { splice @tokens, $at, 0, ' ' . one_of(@words) . ' '; }
		else { my @other = one_of(@valid) =~ /([\w.]+|\s+|.)/gs; my $from = rnd(scalar @other); splice @tokens, $at, 1, @other[ $from .. ($from + 4 > $#other ? $#other : $from + 4) ]; }
	}
	return join '', @tokens;
}

# options with any value
sub option_statement
{
	my $name = one_of(qw(continuous stream emit flush_interval retention live_memory nothing Continuous), '"', '""', '"a b"', '"streamext"', 'stream.ev', '"' . 'o' x 70 . '"');
	my $value = one_of('', ' = true', ' = false', ' = 1', ' = -1', ' = 1.5', " = 'x'", " = ''", " = '-1s'", " = '0'", " = 'infinity'", " = '100000000 years'", ' = ev', ' = "ev"', " = 'ev.ev.ev.ev'", " = 'sums'", " = 'look'",
		' = NONE', ' = DEFAULT', ' = int', ' = +', " = '\"'", " = '" . 'v' x 3000 . "'", " = 'NULL'", ' = (1)', " = '1 month'", " = '1e10s'", " = E'\\n'", " = 'changes'", " = 'on_close'", " = '0.0001ms'");
	my $more = chance(40) ? ", streamext." . one_of('continuous', $name, 'emit') . one_of('', $value) : '';
	my $first = chance(70) ? 'streamext.continuous, ' : '';
	return one_of("CREATE MATERIALIZED VIEW g WITH (${first}streamext.$name$value$more) AS SELECT k, count(*) FROM ev GROUP BY k",
		"ALTER MATERIALIZED VIEW sums SET (streamext.$name$value$more)", "ALTER VIEW sums RESET (streamext.$name)", "CREATE TABLE g (a int) WITH (streamext.$name$value)", "CREATE VIEW g WITH (streamext.$name$value) AS SELECT 1",
		"ALTER TABLE ev SET (streamext.$name$value)", "SET streamext.$name" . ($value || ' = 1'), "CREATE TABLE g WITH (streamext.$name$value) AS SELECT 1", "CREATE INDEX ON sums (k) WITH (streamext.$name$value)");
}

# a hostile name in every place that takes one
sub name_statement
{
	my $raw = one_of('a"b', "it's", 'back\\slash', 'semi;colon', '%s%n%p', 'é' x 31, 'n' x 63, 'n' x 64, '', ' ', '.', 'a.b', '"', '""', '$1', "new\nline", 'select', 'streamext', 'mat_1', 'pg_temp', 'sums', '{}', "\t", "emoji \xf0\x9f\x98\x80", 'singleton', 'key_1', 'state_1', 'live', 'ctid', 'streamext_rows');
	my $q = '"' . ($raw =~ s/"/""/gr) . '"';
	my $l = quoted($raw);
	return one_of("CREATE MATERIALIZED VIEW $q WITH (streamext.continuous) AS SELECT k AS $q, count(*) FROM ev GROUP BY k", "CREATE MATERIALIZED VIEW g ($q, b) WITH (streamext.continuous) AS SELECT k, count(*) FROM ev GROUP BY k",
		"CREATE MATERIALIZED VIEW $q.g WITH (streamext.continuous) AS SELECT k FROM ev", "CREATE MATERIALIZED VIEW g WITH (streamext.continuous) AS SELECT $q.k FROM ev AS $q", "CREATE MATERIALIZED VIEW g WITH (streamext.continuous) AS WITH $q AS (SELECT * FROM ev) SELECT count(*) AS $q FROM $q",
		"SELECT streamext.create_view($l, 'SELECT k FROM ev')", "SELECT streamext.create_view('g', $l)", "SELECT streamext.create_stream($l)", "SELECT streamext.create_stream('plain', event_time => $l)", "SELECT streamext.wait_for($l)", "SELECT streamext.pause($l)", "SELECT streamext.flush($l)",
		"ALTER MATERIALIZED VIEW sums RENAME TO $q", "ALTER MATERIALIZED VIEW sums RENAME COLUMN n TO $q", "ALTER TABLE ev RENAME t TO $q", "ALTER TABLE ev RENAME TO $q", "ALTER SCHEMA public RENAME TO $q", "CREATE INDEX $q ON sums (n)", "ALTER INDEX rows_idx RENAME TO $q", "DROP MATERIALIZED VIEW $q", "DROP INDEX $q",
		"CREATE MATERIALIZED VIEW g WITH (streamext.continuous, streamext.stream = $l) AS SELECT k FROM ev", "SELECT streamext.create_view('g', 'SELECT k FROM ev', emit => $l)", "COMMENT ON MATERIALIZED VIEW $q IS $l", "COMMENT ON VIEW sums IS $l", "REFRESH MATERIALIZED VIEW $q", "ALTER MATERIALIZED VIEW sums OWNER TO $q", "ALTER MATERIALIZED VIEW sums SET SCHEMA $q", "GRANT SELECT ON $q TO PUBLIC");
}

my %arguments = (
	regclass => [ 'NULL', '0', '1', '4294967295', "'sums'", "'ev'", "'look'", "'plain_view'", "'pg_class'", "'streamext.view_def'", "'streamext.mat_1'", "'streamext.query_1'", "'streamext.view_id_seq'", "'rows_idx'", "'nothing'", "'parted'", "'parted_1'", "'streamext.status'" ],
	regprocedure => [ 'NULL', '0', '1', '4294967295', "'count(*)'", "'avg(int4)'", "'avg(numeric)'", "'max(text)'", "'sum(float8)'", "'int4pl(int,int)'", "'fz_three(anyelement)'", "'percentile_cont(float8,float8)'", "'array_agg(anynonarray)'", "'var_pop(float4)'", "'fz_mean(numeric,numeric)'", "'rank(\"any\")'", "'regr_slope(float8,float8)'", "'bool_and(bool)'", "'min(interval)'", "'now()'", "'row_number()'" ],
	interval => [ 'NULL', "'0'", "'1 hour'", "'-1 hour'", "'1 month'", "'-1 month'", "'1 month 1 day'", "'1 us'", "'178000000 years'", "'-178000000 years'", "'2147483647 days'", "'2147483647 months'", "'9223372036854.775807 s'", "'1 day -24 hours'" ],
	'timestamp with time zone' => [ 'NULL', "'infinity'", "'-infinity'", "'2026-01-01'", "'4713-01-01 BC'", "'294276-12-31 23:59:59'", "'2026-03-29 02:30'", "'epoch'" ],
	'timestamp without time zone' => [ 'NULL', "'infinity'", "'-infinity'", "'2026-01-01'", "'4713-01-01 BC'", "'294276-12-31 23:59:59'" ],
	date => [ 'NULL', "'infinity'", "'-infinity'", "'2026-01-01'", "'4713-01-01 BC'", "'5874897-12-31'" ],
	bigint => [ 'NULL', '0', '1', '-1', '9223372036854775807', '(-9223372036854775808)', '7' ],
	text => [ 'NULL', "''", "'x'", "'merge'", "'UTC'", "'Europe/Berlin'", "'Nowhere/None'", "'\"'", "'" . 'x' x 2000 . "'", "'SELECT k FROM ev'", "'1s'", "'-1'", "'changes'", "'é'", "'+99'", "'<x>3:30'" ],
	name => [ 'NULL', "''", "'k'", "'ts'", "'nothing'", "'ctid'", "'" . 'n' x 70 . "'" ],
	boolean => [ 'NULL', 'true', 'false' ],
	'streamext.state' => [ 'NULL', "''", "'\\x'", "'\\x00'", "'\\x0153'", "'\\x01530f00" . '00' x 40 . "'", "'rubbish'", "'\\x01530f0037080000ffffffff" . 'ff' x 60 . "'" ],
	anyelement => [ 'NULL', '1', "NULL::int", "1.5", "'x'::text", "'{1,2}'::int8[]", "'{1,2,3}'::float8[]", "'{}'::int8[]", "'{NULL,1}'::int8[]", "'{{1},{2}}'::float8[]", "NULL::numeric", "'\\x01530f00'::streamext.state", "NULL::streamext.state", "ROW(1)", "NULL::record", "'{1,2,3}'::numeric[]", "'infinity'::interval", "'1 day'::interval" , "'{1 day,2 days}'::interval[]" ],
	cstring => [ 'NULL', "''", "'\\x00'", "'rubbish'", "'\\x0'" ],
	internal => ['NULL'],
);
$arguments{'"any"'} = $arguments{anyelement};
my @functions = map { [ split /\|/ ] } split /\n/, $node->safe_psql('app', <<'SQL');
SELECT p.proname, (SELECT string_agg(format_type(t, NULL), ';' ORDER BY i) FROM unnest(p.proargtypes) WITH ORDINALITY x(t, i))
FROM pg_proc p WHERE p.pronamespace = 'streamext'::regnamespace ORDER BY p.oid
SQL

sub function_statement
{
	my ($name, $types) = @{ one_of(@functions) };
	my @types = split /;/, $types // '';
	my @values = map { my $type = $_; $type = one_of(keys_of(\%arguments)) if chance(4); my $list = $arguments{$type} // ['NULL'];
		my $v = one_of(@$list); $type =~ /^(any|"any|internal)/ ? $v : "$v\::$type" } @types;
	pop @values if chance(3);
	push @values, one_of('NULL', '1', "'x'::text", 'NULL::int', '0.5::float8') if chance(10);
	return "SELECT * FROM streamext.$name(" . join(', ', @values) . ')';
}

sub keys_of { return sort keys %{ $_[0] }; }

my (%codes, @bad);
my ($total, $fine) = (0, 0);
for my $round (1 .. $rounds)
{
	my @statements;
	push @statements, one_of(sub { mutate(one_of(@valid)) }, sub { mutate(one_of(@valid)) }, sub { mutate(one_of(@valid[ 0 .. 10 ])) }, \&option_statement, \&name_statement, \&function_statement)->() for 1 .. 300;
	my $script = "SET statement_timeout = '10s';\nSET streamext.wait_timeout = '200ms';\nSET client_min_messages = panic;\nSET client_encoding = 'UTF8';\n";
	for my $i (0 .. $#statements)
	{
		# what must stay for the other statements, or would wait for itself, is taken back
		my $keep = $statements[$i] =~ /^CREATE MATERIALIZED VIEW g\b/ && chance(30) ? 'true' : 'false';
		my $quoted = $statements[$i] =~ s/'/''/gr;
		$quoted =~ s/\\/\\\\/g;
		$script .= "SELECT '\@g $i ' || replace(try(E'$quoted', $keep), E'\\n', ' ');\n\\echo \@p $i :SQLSTATE :LAST_ERROR_MESSAGE\n";
		$script .= "DROP MATERIALIZED VIEW IF EXISTS g;\n" if $keep eq 'true';
		$script .= "SELECT streamext.flush('rows');\nDELETE FROM plain;\n" if $i % 100 == 99;
	}
	my ($out, $err) = ('', '');
	$node->psql('app', $script, stdout => \$out, stderr => \$err, on_error_stop => 0, timeout => 300);
	my $seen = 0;
	while ($out =~ /^\@g (\d+) (\S{5}) ?(.*)$/mg)
	{
		my ($i, $code, $message) = ($1, $2, $3);
		$seen++;
		$codes{$code}++;
		$fine++ if $code eq '00000' || $code eq 'YY000';
		# the server's own functions say so when they are called with such arrays directly, too
		push @bad, "$code $message: $statements[$i]" if $code =~ /^XX/ && $message !~ /^expected \d-element/;
	}
	while ($out =~ /^\@p (\d+) (\S{5}) (.*)$/mg)
	{
		next if $2 eq '00000';
		$seen++;
		$codes{$2}++;
		push @bad, "$2 $3: $statements[$1]" if $2 =~ /^XX|^57P/;
	}
	$total += @statements;
	push @bad, "round $round: $seen answers to " . scalar(@statements) . " statements: " . substr($err, 0, 500) if $seen < @statements;
	last if @bad > 10;
}
# every aggregate with states of its own type, and rubbish in them; of arrays, only a user's keeps them as they are
$node->safe_psql('app', <<'SQL');
CREATE AGGREGATE mean(int) (SFUNC = int4_avg_accum, STYPE = bigint[], COMBINEFUNC = int4_avg_combine, FINALFUNC = int8_avg, INITCOND = '{0,0}');
CREATE AGGREGATE mean(float8) (SFUNC = float8_accum, STYPE = float8[], COMBINEFUNC = float8_combine, FINALFUNC = float8_avg, INITCOND = '{0,0,0}');
CREATE AGGREGATE slope(float8, float8) (SFUNC = float8_regr_accum, STYPE = float8[], COMBINEFUNC = float8_regr_combine, FINALFUNC = float8_regr_slope, INITCOND = '{0,0,0,0,0,0}');
SQL
my @aggregates = map { [ split /\|/ ] } split /\n/, $node->safe_psql('app', <<'SQL');
SELECT a.aggfnoid::oid, CASE WHEN a.aggtranstype = 'internal'::regtype OR (a.aggfnoid < 16384 AND a.aggtranstype IN ('bigint[]'::regtype, 'float8[]'::regtype)) THEN 'streamext.state' ELSE format_type(a.aggtranstype, NULL) END,
	format_type(p.prorettype, NULL), (SELECT string_agg('NULL::' || format_type(t, NULL), ', ' ORDER BY i) FROM unnest(p.proargtypes) WITH ORDINALITY x(t, i))
FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid
WHERE NOT EXISTS (SELECT FROM unnest(p.proargtypes || p.prorettype) t WHERE t::regtype::text ~ '^any|"any"') AND a.aggtranstype::regtype::text !~ '^any' ORDER BY 1
SQL
my %rubbish = (
	'streamext.state' => [ 'NULL', "''", "'\\x'", "'\\x01530f00" . '00' x 60 . "'", "'\\xff530f00" . 'ff' x 60 . "'" ],
	'bigint[]' => [ 'NULL', "'{}'", "'{1}'", "'{1,2,3}'", "'{NULL,1}'", "'{{1,2},{3,4}}'", "'{0,0}'", "'[0:1]={1,2}'" ],
	'double precision[]' => [ 'NULL', "'{}'", "'{1,2}'", "'{1,2,3}'", "'{NULL,1,2}'", "'{{1,2,3}}'", "'{0,0,0}'", "'{-1,NaN,Infinity}'", "'{1,2,3,4,5,6}'", "'{0,0,0,0,0,0}'" ],
	'interval[]' => [ 'NULL', "'{}'", "'{1 day}'", "'{1 day,2 days,3 days}'", "'{NULL,NULL}'", "'{1 day,0}'" ],
);
my $script = '';
my $n = 0;
for my $a (@aggregates)
{
	my ($oid, $state, $result, $args) = @$a;
	for my $value (@{ $rubbish{$state} // ['NULL'] })
	{
		my $types = $args ne '' && chance(50) ? ", $args" : '';
		$script .= "SELECT streamext.finalize($oid, $value\::$state, NULL::$result$types);\n\\echo \@a $n :SQLSTATE $oid $state :LAST_ERROR_MESSAGE\n";
		$script .= "SELECT streamext.combine($oid, $value\::$state, $value\::$state$types);\n\\echo \@a $n :SQLSTATE $oid $state :LAST_ERROR_MESSAGE\n";
		$n += 2;
	}
}
my ($rubbish_out, $rubbish_err) = ('', '');
$node->psql('app', $script, stdout => \$rubbish_out, stderr => \$rubbish_err, on_error_stop => 0, timeout => 300);
my @answers = $rubbish_out =~ /^(\@a .*)$/mg;
is(scalar(@answers), $n, 'rubbish as a state of every aggregate: an answer each') or diag($rubbish_err =~ /(server closed.*)/);
cmp_ok($n, '>', 200, 'many of them');
is(join("\n", grep { /^\@a \d+ XX/ && !/expected \d-element/ } @answers), '', 'and no internal error');

note(sprintf '%d statements, %d of them carried out', $total, $fine);
note(join ' ', map { "$_ $codes{$_}" } sort { $codes{$b} <=> $codes{$a} } keys %codes);
is(join("\n", @bad), '', 'every answer is a result or a clean error') or diag("seed $seed");
cmp_ok($fine, '>', $total * 0.05, 'some statements were carried out');
is($node->safe_psql('app', 'SELECT pg_postmaster_start_time()'), $started, 'the server did not crash');
is(join('; ', map { join ' ', worker_pids($node, $_, $_ eq 'launcher' ? undef : 'app') } qw(launcher consumer flusher)), join('; ', @workers), 'no worker was started again');
is(join("\n", grep { / XX\d{3} |TRAP:|PANIC|terminated by signal/ && !/expected \d-element/ } split /\n/, slurp_file($node->logfile)), '', 'no internal error in the log');
$node->safe_psql('app', "INSERT INTO ev SELECT i, i % 4, '2026-02-01 00:00+00', 'after', 1, 2 FROM generate_series(1, 20) i");
oracle($node, 'app', 'sums', 'after all that');
oracle($node, 'app', 'rows', 'after all that');
$node->stop;
done_testing();
