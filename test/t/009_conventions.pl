# What the sources promise and a machine can check.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $top = source_dir();

# the names of files of these patterns that contain a match
sub files_with
{
	my ($regex, @patterns) = @_;
	return join ' ', grep { slurp_file($_) =~ $regex } map { glob "$top/$_" } @patterns;
}

my @code = ('src/*.[ch]', 'src/*/*.[ch]');
is(files_with(qr/PG_VERSION_NUM/, @code) =~ s{\S*/src/compat\.h}{}r =~ s/^\s+|\s+$//gr, '',
	'PG_VERSION_NUM only in src/compat.h');
is(files_with(qr/\b(strcpy|strcat|sprintf|vsprintf|gets)\s*\(/, @code), '', 'no unbounded C string function');
is(files_with(qr/Timestamp(TzPlus|Diff)\w*\([^;]*GetCurrentTimestamp/, @code), '',
	'what must not wait for a clock that was set back is measured by sx_now()');
is(files_with(qr/^(?!\/\*)/, @code), '', 'every source file opens with a comment');
is(files_with(qr/CREATE OR REPLACE|IF NOT EXISTS/i, 'src/sql/*.sql'), '',
	'the script creates everything itself: no CREATE OR REPLACE, no IF NOT EXISTS');
is(join(' ', grep { my $o = $_ =~ s{/sql/(.*)\.sql$}{/expected/$1.out}r; !-e $o } glob "$top/sql/*.sql"), '',
	'every regression file has expected output');
is(join(' ', grep { my $o = $_ =~ s{/specs/(.*)\.spec$}{/expected/$1.out}r; !-e $o } glob "$top/test/isolation/specs/*.spec"),
	'', 'every isolation spec has expected output');

my $node = new_node('conventions');
new_database($node, 'app');
sub none
{
	my ($name, $query) = @_;
	is($node->safe_psql('app', $query), '', $name);
	return;
}

# an extension's function, by its signature
my $functions = <<'SQL';
SELECT p.oid::regprocedure::text AS name, p.* FROM pg_proc p
JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'streamext'
SQL
none('every function has a COMMENT',
	"SELECT name FROM ($functions) f WHERE obj_description(oid, 'pg_proc') IS NULL ORDER BY 1");
none('every SQL and PL/pgSQL function fixes its search_path', <<"SQL");
SELECT f.name FROM ($functions) f JOIN pg_language l ON l.oid = f.prolang
WHERE l.lanname IN ('sql', 'plpgsql') AND f.prosqlbody IS NULL
  AND NOT coalesce(f.proconfig::text LIKE '%search_path=%', false) ORDER BY 1
SQL
none('every view for users has a COMMENT', <<'SQL');
SELECT c.oid::regclass FROM pg_class c
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'streamext'
WHERE c.relkind = 'v' AND obj_description(c.oid, 'pg_class') IS NULL ORDER BY 1
SQL
none('nobody but the owner may write to a table of the extension', <<'SQL');
SELECT c.oid::regclass FROM pg_class c
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'streamext',
LATERAL aclexplode(c.relacl) a
WHERE c.relkind IN ('r', 'S') AND a.grantee <> c.relowner AND a.privilege_type NOT IN ('SELECT') ORDER BY 1
SQL

my $readme = slurp_file("$top/README.md");
my @settings = split /\n/, $node->safe_psql('app',
	"SELECT name FROM pg_settings WHERE name LIKE 'streamext.%' ORDER BY 1");
cmp_ok(scalar(@settings), '>', 0, 'there are settings');
is(join(' ', grep { $readme !~ /^\| [^|]*`\Q$_\E`[^|]*\|/m } @settings), '', 'every setting has a row in README.md');
my %exists = map { $_ => 1 } @settings;
my ($table) = $readme =~ /^### Settings\n(.*?)^##/ms;
is(join(' ', grep { !$exists{$_} } ($table // '') =~ /^\| `(streamext\.\w+)`/mg), '', 'and README.md names no other');
is(join(' ', grep { $node->safe_psql('app', "SELECT short_desc FROM pg_settings WHERE name = '$_'") eq '' } @settings),
	'', 'every setting has a description');

# every public function and status view stands in the README
my @public = split /\n/, $node->safe_psql('app', <<"SQL");
SELECT DISTINCT f.proname FROM ($functions) f
WHERE has_function_privilege('public', f.oid, 'EXECUTE') AND f.prorettype <> 'trigger'::regtype
  AND f.prorettype <> 'event_trigger'::regtype
  AND NOT EXISTS (SELECT FROM pg_type t WHERE f.oid IN (t.typinput, t.typoutput, t.typsend, t.typreceive))
  AND f.proname NOT IN ('finalize', 'combine', 'merge', 'merge_step', 'hop_pane', 'pane_boundary', 'is_valid', 'view_states', 'stream_states', 'alerter_runs', 'check_installation') ORDER BY 1
SQL
is(join(' ', grep { $readme !~ /`(streamext\.)?\Q$_\E\(/ } @public), '', 'every public function stands in README.md');
my @views = split /\n/, $node->safe_psql('app', <<'SQL');
SELECT c.relname FROM pg_class c
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'streamext' WHERE c.relkind = 'v' ORDER BY 1
SQL
is(join(' ', grep { $readme !~ /`streamext\.\Q$_\E`/ } @views), '', 'every status view stands in README.md');

# each promise names tests that exist
my ($promises) = slurp_file("$top/doc/guarantees.md") =~ /\A(.*?)^## Not promised/ms;
my @rows = ($promises // '') =~ /^\| [A-Z].* \| (.+) \|$/mg;
cmp_ok(scalar(@rows), '>', 20, 'promises stand in doc/guarantees.md');
my @missing = grep
{
	my $name = $_;
	!grep { -e "$top/$_" } "test/t/$name.pl", "test/t/030_$name.pl", "$name.sql", "test/isolation/specs/$name.spec", "test/$name.pl"
} map { /`([^`]+)`/g } @rows;
is(join(' ', @missing), '', 'each with tests that exist');
is(scalar(grep { !/`/ } @rows), 0, 'none without');

# an upgrade chain ends where a fresh installation does
my $version = $node->safe_psql('app', "SELECT extversion FROM pg_extension WHERE extname = 'streamext'");
my ($control) = slurp_file("$top/streamext.control") =~ /default_version = '(.*)'/;
is($version, $control, 'the version is the control file\'s');
$node->stop;

# without the line in shared_preload_libraries everything says which line to add
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->start;
my ($status, $out, $err) = $node->psql('app', 'SELECT streamext.wait_for()');
like($err, qr/shared_preload_libraries/, 'a function without preloading names the setting');
$node->safe_psql('postgres', 'CREATE DATABASE other');
($status, $out, $err) = $node->psql('other', 'CREATE EXTENSION streamext');
like($err, qr/shared_preload_libraries = 'streamext'/, 'CREATE EXTENSION without preloading prints the line to add');
$node->stop;
done_testing();
