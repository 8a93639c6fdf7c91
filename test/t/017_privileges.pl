# I9: attacks by a role without privileges.  Each test is one attempt; none may give a role what
# it could not do by itself.
#
# Functions that are called in places where the attacker does not run them herself write to the
# server's log who they are and what they managed to do: see trap() below.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Test::More;

my $node = new_node('privileges', settings => "streamext.flush_interval = '100ms'\n");
my $app = 'app';
my $traps = 0;

# the answer and the errors ("SQLSTATE message") of statements of a role
sub as_role
{
	my ($role, $sql, $database) = @_;
	my ($out, $err) = ('', '');
	$node->psql($database // $app, "\\set VERBOSITY verbose\nSET search_path = public;\n$sql", stdout => \$out, stderr => \$err,
		on_error_stop => 0, extra_params => [ '-U', $role ], timeout => 120);
	note("$role: $err") if $err ne '' && $err !~ /ERROR/;
	my @errors = $err =~ /ERROR:  (\w{5}: [^\n]*)/g;
	push @errors, "58000: $err" if $err =~ /server closed the connection|FATAL|PANIC/;
	note(join "\n", "errors of $role:", @errors) if @errors;
	return ($out, join "\n", @errors);
}

# refused(NAME, ROLE, STATEMENT, SQLSTATE pattern)
sub refused
{
	my ($name, $role, $sql, $state) = @_;
	my ($out, $error) = as_role($role, $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($error, qr/^(?:$state): /m, $name) or diag("$sql\n$out");
	return;
}

sub allowed
{
	my ($name, $role, $sql, $wanted) = @_;
	my ($out, $error) = as_role($role, $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("$out$error", $wanted // '', $name);
	return;
}

# what the traps of that name wrote into the log since the start: "role did|refused what"
sub trapped
{
	my ($where) = @_;
	my %seen;
	$seen{$_}++ for slurp_file($node->logfile) =~ /TRAP \Q$where\E: ([^\n]*)/g;
	return sort keys %seen;
}

# trap_ran(WHERE, ROLE): it ran, as ROLE only, and did nothing forbidden
sub trap_ran
{
	my ($where, $role) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(wait_until("a trap $where", 30, sub { return scalar grep { / worker$/ } trapped($where); }), "$where: ran");
	my @lines = trapped($where);
	is(join("\n", grep { !/^$role / } @lines), '', "$where: as $role only");
	is(join("\n", grep { / did / } @lines), '', "$where: could do nothing");
	return;
}

new_database($node, $app);
$node->safe_psql($app, <<'SQL');
CREATE ROLE victim LOGIN;
CREATE ROLE mallory LOGIN;
CREATE ROLE reader LOGIN;
CREATE SCHEMA victim AUTHORIZATION victim;
CREATE SCHEMA mallory AUTHORIZATION mallory;
CREATE TABLE public.root_only (a text);
INSERT INTO public.root_only VALUES ('secret of root');
SET ROLE victim;
CREATE TABLE victim.ev (k int, v int, secret text);
CREATE TABLE victim.look (k int PRIMARY KEY, name text);
INSERT INTO victim.look VALUES (1, 'one'), (2, 'two');
INSERT INTO victim.ev SELECT i % 3, i, 'secret ' || i FROM generate_series(1, 30) i;
CREATE MATERIALIZED VIEW victim.sums WITH (streamext.continuous) AS
	SELECT k, sum(v) AS s, avg(v::numeric) AS a, max(secret) AS m FROM victim.ev GROUP BY k;
CREATE MATERIALIZED VIEW victim.rows WITH (streamext.continuous) AS SELECT k, 100 / v AS q, secret FROM victim.ev;
RESET ROLE;
GRANT USAGE ON SCHEMA victim TO PUBLIC;

-- says who it is and tries what only others may do
CREATE FUNCTION public.trap(place text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	attempt text;
	here text;
BEGIN
	-- of a worker, which is a superuser's process, others do not see the kind
	SELECT 'session' INTO here FROM pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) pg_backend_pid() AND backend_type OPERATOR(pg_catalog.=) 'client backend';
	RAISE LOG 'TRAP %: % is in a %', place, current_user, coalesce(here, 'worker');
	IF here IS NOT NULL THEN
		RETURN 1;
	END IF;
	FOREACH attempt IN ARRAY ARRAY[
		'SET ROLE postgres', 'RESET ROLE', 'SET ROLE NONE', 'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION',
		'SET LOCAL ROLE victim', 'SET LOCAL SESSION AUTHORIZATION DEFAULT',
		'SELECT set_config(''role'', ''postgres'', false)', 'SELECT set_config(''session_authorization'', ''postgres'', true)',
		'CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET role = postgres AS ''SELECT 1''',
		'COPY (SELECT 1) TO PROGRAM ''true''', 'COPY (SELECT 1) TO ''/tmp/streamext_trap''', 'SELECT pg_read_file(''PG_VERSION'')',
		'CREATE TEMP TABLE trapped (a int)', 'CREATE TABLE victim.trapped (a int)', 'CREATE TABLE streamext.trapped (a int)', 'CREATE TABLE pg_catalog.trapped (a int)',
		'ALTER ROLE mallory SUPERUSER', 'CREATE ROLE more', 'GRANT postgres TO mallory', 'GRANT victim TO mallory',
		'TABLE public.root_only', 'LOCK TABLE public.root_only', 'DELETE FROM public.root_only', 'DROP TABLE public.root_only', 'ALTER TABLE public.root_only ADD x int',
		'UPDATE streamext.view_def SET paused = true', 'DELETE FROM streamext.view_position', 'INSERT INTO streamext.dead_letter VALUES (0)', 'TRUNCATE streamext.view_position',
		'SELECT * FROM streamext.dead_letter', 'SELECT nextval(''streamext.view_id_seq'')',
		'SET log_statement = ''all''', 'SET session_replication_role = ''replica''', 'SET streamext.live_memory = ''1GB''', 'SET zero_damaged_pages = on', 'LOAD ''$libdir/plpgsql''',
		'SELECT pg_terminate_backend(pg_backend_pid())', 'SELECT pg_cancel_backend(pg_backend_pid())', 'SELECT pg_reload_conf()', 'SELECT pg_switch_wal()',
		'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots', 'CREATE EXTENSION hll', 'ALTER EXTENSION streamext UPDATE', 'CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION x()',
		'LISTEN x', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'SECURITY LABEL ON ROLE mallory IS ''x''', 'SELECT lo_import(''/etc/passwd'')', 'SELECT setval(''streamext.view_id_seq'', 1)',
		'CREATE SUBSCRIPTION s CONNECTION '''' PUBLICATION p', 'SET transaction_read_only = off; CREATE ROLE more2']
	LOOP
		BEGIN
			EXECUTE attempt;
			RAISE LOG 'TRAP %: % did %', place, current_user, attempt;
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END LOOP;
	-- what may be set must not last
	PERFORM set_config('search_path', 'mallory, public', false), set_config('DateStyle', 'German', false), set_config('TimeZone', 'Asia/Tokyo', false),
		set_config('statement_timeout', '1ms', false), set_config('work_mem', '64kB', false), set_config('enable_indexscan', 'off', false);
	RETURN 1;
END $$;
SQL
is($node->safe_psql($app, "SELECT streamext.wait_for()"), 't', 'the victim\'s views are live');

note('--- views over what the creator may not read');
my $create = 'CREATE MATERIALIZED VIEW mallory.v WITH (streamext.continuous) AS';
refused('a view over an unreadable table', 'mallory', "$create SELECT k, count(*) FROM victim.ev GROUP BY k", '42501');
refused('the same by create_view()', 'mallory', "SELECT streamext.create_view('mallory.v', 'SELECT k, count(*) FROM victim.ev GROUP BY k')", '42501');
$node->safe_psql($app, 'GRANT SELECT (k, v) ON victim.ev TO mallory');
refused('an unreadable column in the select list', 'mallory', "$create SELECT max(secret) FROM victim.ev", '42501');
refused('an unreadable column in WHERE', 'mallory', "$create SELECT k FROM victim.ev WHERE secret > 'a'", '42501');
refused('an unreadable column in FILTER', 'mallory', "$create SELECT count(*) FILTER (WHERE secret > 'a') FROM victim.ev", '42501');
refused('an unreadable column in HAVING', 'mallory', "$create SELECT k, count(*) FROM victim.ev GROUP BY k HAVING max(secret) > 'a'", '42501');
refused('an unreadable column in ORDER BY', 'mallory', "$create SELECT k FROM victim.ev ORDER BY secret", '42501');
refused('the whole row', 'mallory', "$create SELECT ev FROM victim.ev", '42501');
refused('the whole row in a function', 'mallory', "$create SELECT to_jsonb(ev) FROM victim.ev", '42501');
refused('an unreadable lookup', 'mallory', "$create SELECT name, sum(v) FROM victim.ev JOIN victim.look USING (k) GROUP BY name", '42501');
refused('an unreadable table in a sub-select', 'mallory', "$create SELECT k, (SELECT min(a) FROM root_only) FROM victim.ev", '42501');
refused('an unreadable table in EXISTS', 'mallory', "$create SELECT k FROM victim.ev WHERE EXISTS (SELECT FROM root_only WHERE a LIKE 's%')", '42501');
refused('an unreadable table in WITH', 'mallory', "$create WITH x AS (SELECT a FROM root_only) SELECT k, x.a FROM victim.ev, x", '42501');
refused('a table declared as a stream by another', 'mallory', "SELECT streamext.create_stream('victim.ev')", '42501');
refused('another role\'s view as a stream', 'mallory', "$create SELECT k FROM victim.sums", '42501|0A000|42809');
refused('the internal table of another\'s view', 'mallory', "$create SELECT * FROM " . internal('victim.sums', 'mat'), '42501|0A000|42809');
refused('the internal query of another\'s view', 'mallory', "$create SELECT * FROM " . internal('victim.sums', 'query'), '42501|0A000|42809');
refused('a stream of streamext\'s own tables', 'mallory', "$create SELECT view FROM streamext.view_position", '42501|42809');
refused('a place where the creator may not create', 'mallory', 'CREATE MATERIALIZED VIEW victim.v WITH (streamext.continuous) AS SELECT k FROM victim.ev', '42501');
refused('schema streamext', 'mallory', 'CREATE MATERIALIZED VIEW streamext.v WITH (streamext.continuous) AS SELECT k FROM victim.ev', '42501');
refused('schema pg_catalog', 'mallory', 'CREATE MATERIALIZED VIEW pg_catalog.v WITH (streamext.continuous) AS SELECT k FROM victim.ev', '42501');
refused('a tablespace without CREATE', 'mallory', 'CREATE MATERIALIZED VIEW mallory.v WITH (streamext.continuous) TABLESPACE pg_global AS SELECT k FROM victim.ev', '42501|22023');

sub internal
{
	my ($view, $which) = @_;
	return $node->safe_psql($app, "SELECT $which FROM streamext.view_def WHERE view = '$view'::regclass");
}

note('--- privileges that are taken away later');
as_role('mallory', 'CREATE MATERIALIZED VIEW mallory.allowed WITH (streamext.continuous) AS SELECT k, sum(v) AS s FROM victim.ev GROUP BY k');
is($node->safe_psql($app, "SELECT streamext.wait_for('mallory.allowed')"), 't', 'a view over readable columns');
my $before = $node->safe_psql($app, 'SELECT sum(s) FROM mallory.allowed');
$node->safe_psql($app, 'REVOKE SELECT (k, v) ON victim.ev FROM mallory; INSERT INTO victim.ev VALUES (1, 1000000, NULL)');
ok(query_until($node, $app, "SELECT state FROM streamext.status WHERE view = 'mallory.allowed'::regclass", 'failed', 30), 'REVOKE SELECT stops the view, visibly');
is($node->safe_psql($app, 'SELECT sum(s) FROM mallory.allowed'), $before, 'and no row flows any more');
is($node->safe_psql($app, "SELECT streamext.wait_for('victim.sums')"), 't', 'other views go on');
$node->safe_psql($app, 'GRANT SELECT (k, v) ON victim.ev TO mallory');
oracle($node, $app, 'mallory.allowed', 'granted again');
$node->safe_psql($app, 'REVOKE USAGE ON SCHEMA victim FROM PUBLIC; ALTER TABLE victim.ev ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON victim.ev USING (k = 1); INSERT INTO victim.ev VALUES (2, 2000000, NULL)');
ok(query_until($node, $app, "SELECT state FROM streamext.status WHERE view = 'mallory.allowed'::regclass", 'failed', 30), 'row security that is switched on stops the view, visibly');
$node->safe_psql($app, 'ALTER TABLE victim.ev DISABLE ROW LEVEL SECURITY; GRANT USAGE ON SCHEMA victim TO PUBLIC');
oracle($node, $app, 'mallory.allowed', 'switched off again');
$node->safe_psql($app, 'ALTER TABLE victim.ev ENABLE ROW LEVEL SECURITY');
refused('a view over a table with row security', 'mallory', "$create SELECT k FROM victim.ev", '0A000');
as_role('mallory', "SET row_security = off; $create SELECT k FROM victim.ev");
is($node->safe_psql($app, "SELECT to_regclass('mallory.v')"), '', 'nor with row_security = off');
$node->safe_psql($app, 'ALTER TABLE victim.ev DISABLE ROW LEVEL SECURITY');
oracle($node, $app, 'mallory.allowed', 'after all that');

note('--- reading what belongs to others');
refused('another\'s view', 'mallory', 'SELECT * FROM victim.sums', '42501');
refused('its table', 'mallory', 'SELECT * FROM ' . internal('victim.sums', 'mat'), '42501');
refused('its query', 'mallory', 'SELECT * FROM ' . internal('victim.sums', 'query'), '42501');
refused("streamext.$_", 'mallory', "SELECT * FROM streamext.$_", '42501') for qw(view_def stream_def view_position dead_letter attach_mark file_mark view_stop lost_interval alert_def alert_fired alert_error);
$node->safe_psql($app, "INSERT INTO victim.ev VALUES (1, 0, 'secret of a dead letter')");
ok(query_until($node, $app, "SELECT count(*) FROM streamext.dead_letters WHERE view = 'victim.rows'::regclass", '1', 30), 'there is a dead letter');
allowed('dead letters of others are not seen', 'mallory', 'SELECT count(*) FROM streamext.dead_letters', '0');
allowed('nor their views', 'mallory', "SELECT view FROM streamext.views", 'mallory.allowed');
allowed('nor their status', 'mallory', "SELECT view FROM streamext.status", 'mallory.allowed');
allowed('nor through the functions behind', 'mallory', "SELECT count(*) FROM streamext.view_states()", '1');
allowed('a function with a low cost sees no more of dead letters', 'mallory', <<'SQL', '');
CREATE FUNCTION mallory.peek(jsonb) RETURNS bool LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE NOTICE 'peeked: %', $1; RETURN true; END $$;
SELECT id FROM streamext.dead_letters WHERE mallory.peek("row");
SQL
refused('an alert on another\'s view', 'mallory', "SELECT streamext.create_alert('a', 'victim.sums', 'true', 'x')", '42501');
as_role('victim', "SELECT streamext.create_alert('victims', 'victim.sums', 's > 1000000', 'x')");
refused('dropping another\'s alert', 'mallory', "SELECT streamext.drop_alert('victims')", '42501');
allowed('alerts of others are not seen', 'mallory', 'SELECT count(*) FROM streamext.alert_status', '0');
refused('nor their condition', 'mallory', "SELECT * FROM streamext.alert_" . $node->safe_psql($app, "SELECT substr(alert::text, 17) FROM streamext.alert_def"), '42501');
refused('wait_for() on another\'s view', 'mallory', "SELECT streamext.wait_for('victim.sums')", '42501');
refused("$_() on another's view", 'mallory', "SELECT streamext.$_('victim.sums')", '42501') for qw(flush pause resume verify explain);
$node->safe_psql($app, 'GRANT SELECT ON victim.sums TO reader');
allowed('a reader of a view sees it', 'reader', 'SELECT count(*) > 0 FROM victim.sums', 't');
refused("but may not $_", 'reader', "SELECT streamext.$_('victim.sums')", '42501') for qw(pause resume);
allowed('verify() shows a reader what the view should show', 'reader', "SELECT * FROM streamext.verify('victim.sums')");
refused('nor lock it against the flush', 'reader', 'BEGIN; LOCK TABLE victim.sums IN ACCESS EXCLUSIVE MODE', '42501');
is(join('', (as_role('reader', "SELECT last_error FROM streamext.status WHERE view = 'victim.sums'::regclass"))[0]), '', 'nor see its errors');

note('--- writing what belongs to others, or to nobody');
refused("writing streamext.$_->[0]", 'mallory', "$_->[1]", '42501') for (
	[ 'view_def', "UPDATE streamext.view_def SET mat = 'root_only'::regclass" ],
	[ 'view_def, a new row', "INSERT INTO streamext.view_def SELECT * FROM streamext.view_def" ],
	[ 'stream_def', "INSERT INTO streamext.stream_def (stream) VALUES ('root_only')" ],
	[ 'view_position', 'DELETE FROM streamext.view_position' ],
	[ 'dead_letter', "DELETE FROM streamext.dead_letter" ],
	[ 'attach_mark', 'INSERT INTO streamext.attach_mark SELECT 1, 2, NULL, NULL' ],
	[ 'the sequence', "SELECT setval('streamext.view_id_seq', 1)" ],
	[ 'by COPY', "COPY streamext.view_def FROM PROGRAM 'true'" ],
	[ 'by TRUNCATE', 'TRUNCATE streamext.view_position' ]);
my $mat = internal('victim.sums', 'mat');
my $own = internal('mallory.allowed', 'mat');
refused('another\'s materialized table', 'mallory', "INSERT INTO $mat DEFAULT VALUES", '42501');
refused('a reader writes through the view', 'reader', 'DELETE FROM victim.sums', '42501|55000');
refused("an owner's $_->[0] on the materialized table", 'mallory', $_->[1], $_->[2] // '55000') for (
	[ 'trigger', "CREATE FUNCTION mallory.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.trap(''trigger''); RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT OR UPDATE ON $own FOR EACH ROW EXECUTE FUNCTION mallory.t()" ],
	[ 'rule', "CREATE RULE r AS ON INSERT TO $own DO ALSO SELECT public.trap('rule')", '0A000|55000' ],
	[ 'constraint', "ALTER TABLE $own ADD CHECK (public.trap('check') = 1)" ],
	[ 'default', "ALTER TABLE $own ALTER s SET DEFAULT public.trap('default')" ],
	[ 'column with a default', "ALTER TABLE $own ADD COLUMN x int DEFAULT public.trap('column')" ],
	[ 'generated column', "ALTER TABLE $own ADD COLUMN x int GENERATED ALWAYS AS (public.trap('generated')) STORED" ],
	[ 'type with USING', "ALTER TABLE $own ALTER s TYPE int USING public.trap('using')" ],
	[ 'index on an expression', "CREATE INDEX ON $own (public.trap(s::text))", '42501|55000' ],
	[ 'index on an expression of the view', "CREATE INDEX ON mallory.allowed (public.trap(s::text))", '0A000' ],
	[ 'policy', "CREATE POLICY p ON $own USING (public.trap('policy') = 1)" ],
	[ 'row security', "ALTER TABLE $own ENABLE ROW LEVEL SECURITY" ],
	[ 'inheritance', "CREATE TABLE mallory.child () INHERITS ($own)" ],
	[ 'partition', "CREATE TABLE mallory.whole (k int, s int8) PARTITION BY LIST (k); ALTER TABLE mallory.whole ATTACH PARTITION $own DEFAULT", '55000|0A000|42809' ],
	[ 'renaming', "ALTER TABLE $own RENAME TO mine" ],
	[ 'schema', "ALTER TABLE $own SET SCHEMA mallory" ],
	[ 'owner', "ALTER TABLE $own OWNER TO mallory" ],
	[ 'DROP', "DROP TABLE $own" ],
	[ 'GRANT', "GRANT ALL ON $own TO PUBLIC" ],
	[ 'inheritance, later', "CREATE TABLE mallory.child2 (LIKE $own); ALTER TABLE mallory.child2 INHERIT $own" ],
	[ 'publication', "CREATE PUBLICATION p FOR TABLE $own", '42501|55000' ]);
refused("an owner's $_->[0] on the view", 'mallory', $_->[1], $_->[2] // '0A000') for (
	[ 'rule', "CREATE RULE r AS ON UPDATE TO mallory.allowed DO INSTEAD SELECT public.trap('rule')" ],
	[ '_RETURN rule', "CREATE OR REPLACE RULE \"_RETURN\" AS ON SELECT TO mallory.allowed DO INSTEAD SELECT 1, 2::numeric" ],
	[ 'replacement', "CREATE OR REPLACE VIEW mallory.allowed AS SELECT 1 AS k, 2::int8 AS s FROM root_only", '42809|42501' ],
	[ 'security_invoker', 'ALTER VIEW mallory.allowed SET (security_invoker = on)' ],
	[ 'query', "ALTER TABLE " . internal('mallory.allowed', 'query') . " ALTER k SET DEFAULT public.trap('query')", '55000' ],
	[ 'query, replaced', "CREATE OR REPLACE VIEW " . internal('mallory.allowed', 'query') . " AS SELECT 1 AS k, 2::int8 AS s FROM root_only", '42809|42501' ]);
as_role('mallory', "CREATE TRIGGER t INSTEAD OF INSERT ON mallory.allowed FOR EACH ROW EXECUTE FUNCTION mallory.t()");
refused('giving a view to another role', 'mallory', 'ALTER MATERIALIZED VIEW mallory.allowed OWNER TO victim', '42501');
refused('giving it to a superuser', 'mallory', 'ALTER VIEW mallory.allowed OWNER TO postgres', '42501');
refused('REASSIGN OWNED', 'mallory', 'REASSIGN OWNED BY mallory TO postgres', '42501');
refused('taking another\'s view', 'mallory', 'ALTER VIEW victim.sums OWNER TO mallory', '42501');
refused('dropping another\'s view', 'mallory', 'DROP MATERIALIZED VIEW victim.sums', '42501');
refused('DROP OWNED of another', 'mallory', 'DROP OWNED BY victim CASCADE', '42501');
refused('dropping the extension', 'mallory', 'DROP EXTENSION streamext CASCADE', '42501');
refused('dropping its schema', 'mallory', 'DROP SCHEMA streamext CASCADE', '42501');
refused('adding to the extension', 'mallory', "ALTER EXTENSION streamext ADD TABLE mallory.whole", '42501');
refused('removing from it', 'mallory', "ALTER EXTENSION streamext DROP FUNCTION streamext.view_restored()", '42501');
refused('replacing a function of it', 'mallory', "CREATE OR REPLACE FUNCTION streamext.view_states() RETURNS int LANGUAGE sql AS 'SELECT 1'", '42501');
refused('a function beside them', 'mallory', "CREATE FUNCTION streamext.tumble(text) RETURNS int LANGUAGE sql AS 'SELECT 1'", '42501');
refused('changing one', 'mallory', "ALTER FUNCTION streamext.flush(regclass) SET role = postgres", '42501');
refused('changing a status view', 'mallory', "CREATE OR REPLACE VIEW streamext.dead_letters AS SELECT * FROM root_only", '42501');
refused('the owner of an internal object', 'mallory', 'ALTER TABLE streamext.view_def OWNER TO mallory', '42501');
refused('a trigger on a table of the extension', 'mallory', 'CREATE TRIGGER t AFTER INSERT ON streamext.view_def FOR EACH ROW EXECUTE FUNCTION mallory.t()', '42501');
refused('the restore trigger on an own table', 'mallory', 'CREATE TABLE mallory.fake (view oid); CREATE TRIGGER t AFTER INSERT ON mallory.fake FOR EACH ROW EXECUTE FUNCTION streamext.view_restored()', '42501');
refused('the restore trigger called directly', 'mallory', 'SELECT streamext.view_restored()', '42501|0A000');
refused('dropping the slot', 'mallory', 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots', '42501');
my ($consumer, $flusher, $launcher) = map { (worker_pids($node, $_))[0] } qw(consumer flusher launcher);
refused('ending a worker', 'mallory', "SELECT pg_terminate_backend($consumer)", '42501');
refused('cancelling a worker', 'mallory', "SELECT pg_cancel_backend($flusher)", '42501');
$node->safe_psql($app, 'GRANT pg_signal_backend TO mallory');
refused('ending a worker with pg_signal_backend', 'mallory', "SELECT pg_terminate_backend($launcher)", '42501');
$node->safe_psql($app, 'REVOKE pg_signal_backend FROM mallory');
refused('settings of the server', 'mallory', "SET streamext.live_memory = '1MB'", '42501|55P02');
refused('limits of the server', 'mallory', "SET streamext.$_ = 1", '42501|55P02') for qw(max_held_wal max_held_xids);

note('--- forged states');
as_role('mallory', 'CREATE TABLE mallory.states (s streamext.state)');
refused('a cast from bytea', 'mallory', "SELECT '\\x01'::bytea::streamext.state", '42846');
refused('a cast declared by the attacker', 'mallory', 'CREATE CAST (bytea AS streamext.state) WITHOUT FUNCTION', '42501');
refused('the same with INOUT', 'mallory', 'CREATE CAST (text AS streamext.state) WITH INOUT', '42501');
refused("the type's $_", 'mallory', "SELECT streamext.$_", '42501') for ("state_in('\\x01')", "state_out('\\x00'::streamext.state)", "state_send('\\x00'::streamext.state)");
my $forge = sub {
	my ($name, $sql) = @_;
	refused($name, 'mallory', "$sql;\nSELECT streamext.finalize('avg(numeric)'::regprocedure, s, NULL::numeric) FROM mallory.states LIMIT 1;\n"
		. "SELECT streamext.combine('avg(numeric)'::regprocedure, s, s) FROM mallory.states LIMIT 1", '55000');
	$node->safe_psql($app, 'TRUNCATE mallory.states');
};
my $state = $node->safe_psql($app, "SELECT attname FROM pg_attribute WHERE attrelid = '$mat'::regclass AND atttypid = 'streamext.state'::regtype");
$node->safe_psql($app, 'SELECT streamext.flush()');
my $image = $node->safe_psql($app, "SELECT $state FROM $mat LIMIT 1");
like($image, qr/^\\x[0-9a-f]{20}/, 'the image of a real state');
$forge->('a real state\'s image as text', "INSERT INTO mallory.states VALUES ('$image')");
$forge->('by COPY', "COPY mallory.states FROM STDIN;\n\\$image\n\\.\nSELECT 1");
$forge->('by a record', "INSERT INTO mallory.states SELECT (jsonb_populate_record(NULL::mallory.states, jsonb_build_object('s', '$image'))).*");
$forge->('by an array', "INSERT INTO mallory.states SELECT ('{\"\\$image\"}'::streamext.state[])[1]");
$forge->('by plpgsql', "DO \$\$ DECLARE x streamext.state := '$image'; BEGIN INSERT INTO mallory.states VALUES (x); END \$\$");
$forge->('by a change of type', "CREATE TABLE mallory.changes (s text); INSERT INTO mallory.changes VALUES ('$image'); ALTER TABLE mallory.changes ALTER s TYPE streamext.state USING s::text::cstring::streamext.state; INSERT INTO mallory.states SELECT s FROM mallory.changes; INSERT INTO mallory.states SELECT '$image'");
$forge->('by a domain', "CREATE DOMAIN mallory.sd AS streamext.state; INSERT INTO mallory.states SELECT '$image'::mallory.sd");
$forge->('by COPY BINARY', copy_binary($image));
refused('rubbish as a state', 'mallory', "SELECT streamext.finalize('avg(numeric)'::regprocedure, '\\x00'::streamext.state, NULL::numeric)", '55000');
refused('the state of another aggregate\'s type', 'mallory', "SELECT streamext.finalize('max(int4)'::regprocedure, '\\x00'::streamext.state, NULL::int4)", '42804');
refused('a state that is no array of two', 'mallory', "SELECT streamext.finalize('avg(int4)'::regprocedure, '{1,2,3}'::int8[], NULL::numeric)", 'XX000|22\w{3}|2202E|42804');
refused('an aggregate the caller may not execute', 'mallory', do {
	$node->safe_psql($app, 'CREATE AGGREGATE public.private_sum(int) (SFUNC = int4pl, STYPE = int, COMBINEFUNC = int4pl); REVOKE EXECUTE ON FUNCTION public.private_sum(int) FROM PUBLIC');
	"SELECT streamext.combine('private_sum(int)'::regprocedure, 1, 2)";
}, '42501');
refused('a hidden function as a final function', 'mallory', do {
	$node->safe_psql($app, "CREATE FUNCTION public.hidden(int) RETURNS text LANGUAGE sql AS 'SELECT a FROM root_only' SECURITY DEFINER; REVOKE EXECUTE ON FUNCTION public.hidden(int) FROM PUBLIC;");
	"CREATE AGGREGATE mallory.steal(int) (SFUNC = int4pl, STYPE = int, COMBINEFUNC = int4pl, FINALFUNC = public.hidden); SELECT streamext.finalize('mallory.steal(int)'::regprocedure, 1, NULL::text)";
}, '42501');

# what COPY BINARY takes for one row with this image
sub copy_binary
{
	my ($hex) = @_;
	my $bytes = pack 'H*', substr $hex, 2;
	my $file = "$ENV{TESTDIR}/forged";
	open(my $out, '>:raw', $file) or die $!;
	print $out "PGCOPY\n\xff\r\n\0", pack('NN', 0, 0), pack('n', 1), pack('N', length $bytes), $bytes, pack('n', 0xffff);
	close $out;
	return "\\copy mallory.states FROM '$file' WITH (FORMAT binary)\n";
}

note('--- traps in what the workers run');
$node->safe_psql($app, 'GRANT SELECT ON victim.ev, victim.look TO mallory');
as_role('mallory', <<'SQL');
CREATE TABLE mallory.ev (k int, v int, t text);
INSERT INTO mallory.ev VALUES (1, 1, 'a'), (2, 2, 'b');
-- history, by the builder; new rows, by the consumer
CREATE MATERIALIZED VIEW mallory.expression WITH (streamext.continuous) AS SELECT k, v, public.trap('expression') + v AS x FROM mallory.ev;
CREATE MATERIALIZED VIEW mallory.key WITH (streamext.continuous) AS SELECT public.trap('key') + k AS k, count(*) AS n FROM mallory.ev GROUP BY 1;
CREATE MATERIALIZED VIEW mallory.condition WITH (streamext.continuous) AS SELECT k, count(*) AS n FROM mallory.ev WHERE v > 0 AND v + public.trap('condition') > 0 GROUP BY k;
-- an aggregate's functions: in the plan, in the flush, in a reader
CREATE FUNCTION mallory.step(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce($1, 0) + public.trap('step') + $2 $$;
CREATE FUNCTION mallory.merge(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce($1, 0) + coalesce($2, 0) + 0 * public.trap('merge') $$;
CREATE AGGREGATE mallory.total(int) (SFUNC = mallory.step, STYPE = int, COMBINEFUNC = mallory.merge);
CREATE MATERIALIZED VIEW mallory.aggregate WITH (streamext.continuous) AS SELECT k, mallory.total(v) AS n FROM mallory.ev GROUP BY k;
-- a domain's check, as a cast and in the key of the materialized table
CREATE FUNCTION mallory.check_it(int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT public.trap('domain') = 1 $$;
CREATE DOMAIN mallory.checked AS int CHECK (mallory.check_it(VALUE));
CREATE MATERIALIZED VIEW mallory.by_domain WITH (streamext.continuous) AS SELECT k::mallory.checked AS k, count(*) AS n FROM mallory.ev GROUP BY 1;
-- a cast
CREATE TYPE mallory.pair AS (a int, b int);
CREATE FUNCTION mallory.to_pair(int) RETURNS mallory.pair LANGUAGE sql IMMUTABLE AS $$ SELECT ROW($1, public.trap('cast'))::mallory.pair $$;
CREATE CAST (int AS mallory.pair) WITH FUNCTION mallory.to_pair(int);
CREATE MATERIALIZED VIEW mallory.by_cast WITH (streamext.continuous) AS SELECT k::mallory.pair AS p, v FROM mallory.ev;
-- an operator
CREATE FUNCTION mallory.less(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT $1 + public.trap('operator') > $2 $$;
CREATE OPERATOR mallory.<<<< (LEFTARG = int, RIGHTARG = int, FUNCTION = mallory.less);
CREATE MATERIALIZED VIEW mallory.by_operator WITH (streamext.continuous) AS SELECT k FROM mallory.ev WHERE k OPERATOR(mallory.<<<<) 0;
-- what the planner evaluates: index expressions, constraints and statistics of tables in the query
CREATE TABLE mallory.look (k int CHECK (k > 0 OR public.trap('constraint') = 1), name text);
CREATE FUNCTION mallory.expr(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT public.trap('index') $$;
CREATE INDEX ON mallory.look (mallory.expr(k));
CREATE INDEX ON mallory.ev (mallory.expr(v));
INSERT INTO mallory.look VALUES (1, 'one');
CREATE MATERIALIZED VIEW mallory.by_look WITH (streamext.continuous) AS SELECT name, count(*) AS n FROM mallory.ev JOIN mallory.look USING (k) WHERE mallory.expr(look.k) = 1 GROUP BY name;
-- functions that change who they are
CREATE FUNCTION mallory.definer(int) RETURNS int LANGUAGE sql IMMUTABLE SECURITY DEFINER AS $$ SELECT public.trap('definer') $$;
CREATE MATERIALIZED VIEW mallory.by_definer WITH (streamext.continuous) AS SELECT mallory.definer(k) AS k FROM mallory.ev;
-- a function with a search_path of its own
CREATE FUNCTION mallory.abs(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT public.trap('shadow') $$;
CREATE FUNCTION mallory.with_path(int) RETURNS int LANGUAGE sql IMMUTABLE SET search_path = mallory, pg_catalog AS $$ SELECT abs($1) $$;
CREATE MATERIALIZED VIEW mallory.by_path WITH (streamext.continuous) AS SELECT mallory.with_path(k) AS k FROM mallory.ev;
SQL
is($node->safe_psql($app, "SELECT string_agg(view::text, ' ' ORDER BY view::text) FROM streamext.views WHERE view::text LIKE 'mallory.%'"),
	'mallory.aggregate mallory.allowed mallory.by_cast mallory.by_definer mallory.by_domain mallory.by_look mallory.by_operator mallory.by_path mallory.condition mallory.expression mallory.key',
	'all traps are set');
is($node->safe_psql($app, "SELECT streamext.wait_for(NULL, '120s')"), 't', 'the builders went through them');
as_role('mallory', "INSERT INTO mallory.ev SELECT i % 3, i, 'x' FROM generate_series(1, 5) i");
is($node->safe_psql($app, "SELECT streamext.wait_for(NULL, '120s')"), 't', 'the consumer too');
# an alert's condition, by the alerter
as_role('mallory', "SELECT streamext.create_alert('trap', 'mallory.allowed', 's + public.trap(''alert'') < 0', 'x')");
as_role('mallory', "INSERT INTO mallory.ev VALUES (1, 5, 'x'); SET streamext.wait_timeout = '120s'; SELECT streamext.flush('mallory.' || x) FROM unnest('{expression,key,condition,aggregate,by_domain}'::text[]) x");
ok(1, 'and the flusher');
trap_ran($_, 'mallory') for qw(alert expression key condition step merge domain cast operator index definer shadow);
# read by others, functions run as the reader, as in any view: nobody privileged has read these
is(join("\n", grep { !/mallory / } map { trapped($_) } qw(alert expression key condition step merge domain cast operator index definer shadow constraint)), '', 'no trap ran as anybody else');
is($node->safe_psql($app, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'more%' OR rolname = 'mallory' AND rolsuper"), '0', 'no role was made');
$node->safe_psql($app, 'INSERT INTO victim.ev VALUES (1, 7, NULL)');
oracle($node, $app, 'victim.sums', 'settings that a trap left behind do no harm');
is($node->safe_psql($app, "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type LIKE 'streamext%' AND l.locktype = 'advisory'"), '0', 'no worker keeps an advisory lock');

note('--- another role uses the attacker\'s tables');
as_role('mallory', 'GRANT USAGE ON SCHEMA mallory TO victim; GRANT SELECT ON mallory.ev, mallory.look TO victim');
as_role('victim', 'CREATE MATERIALIZED VIEW victim.over WITH (streamext.continuous) AS SELECT k, count(*) AS n, max(v) AS m FROM mallory.ev GROUP BY k');
as_role('mallory', <<'SQL');
CREATE FUNCTION mallory.count(anyelement) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT 0::int8';
CREATE FUNCTION mallory.int4larger(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT public.trap('int4larger') $$;
CREATE FUNCTION mallory.eq(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT public.trap('equals') = 1 $$;
CREATE OPERATOR mallory.= (LEFTARG = int, RIGHTARG = int, FUNCTION = mallory.eq);
CREATE FUNCTION mallory.on_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.trap('insert trigger'); RETURN NEW; END $$;
CREATE TRIGGER t BEFORE INSERT ON mallory.ev FOR EACH ROW EXECUTE FUNCTION mallory.on_insert();
ALTER TABLE mallory.ev ALTER t SET DEFAULT public.trap('column default')::text;
ALTER TABLE mallory.ev ADD CHECK (public.trap('table check') = 1) NOT VALID;
CREATE FUNCTION mallory.fine(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.trap('stream condition') = 1; END $$;
SELECT streamext.alter_stream('mallory.ev', valid => 'mallory.fine(v)');
-- a cast to JSON, for the dead letter of a row that fails; the condition of a domain, for the row made of one
CREATE TYPE mallory.colour AS ENUM ('red');
CREATE FUNCTION mallory.colour_json(mallory.colour) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.to_json(public.trap('json cast')) $$;
CREATE CAST (mallory.colour AS json) WITH FUNCTION mallory.colour_json(mallory.colour);
CREATE FUNCTION mallory.domain_check(int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT public.trap('letter domain') = 1 $$;
CREATE DOMAIN mallory.number AS int CHECK (mallory.domain_check(VALUE));
CREATE TABLE mallory.coloured (k int, c mallory.colour);
CREATE TABLE mallory.numbered (k int, n mallory.number);
GRANT SELECT ON mallory.coloured, mallory.numbered TO victim;
CREATE POLICY p ON mallory.ev USING (public.trap('policy') = 1);
INSERT INTO mallory.ev (k, v) VALUES (1, 8);
SQL
oracle($node, $app, 'victim.over', 'with triggers, defaults, checks and policies of the stream\'s owner');
for my $where ('insert trigger', 'column default', 'int4larger', 'equals', 'policy', 'table check')
{
	is(join("\n", grep { !/^mallory / } trapped($where)), '', "$where: never as anybody but its owner");
}
trap_ran('stream condition', 'mallory');
as_role('victim', <<'SQL');
CREATE MATERIALIZED VIEW victim.by_colour WITH (streamext.continuous) AS SELECT 1 / k AS q FROM mallory.coloured;
CREATE MATERIALIZED VIEW victim.by_number WITH (streamext.continuous) AS SELECT 1 / k AS q FROM mallory.numbered;
SQL
is($node->safe_psql($app, "SELECT streamext.wait_for(NULL, '120s')"), 't', 'views on tables with such types');
as_role('mallory', "INSERT INTO mallory.coloured VALUES (0, 'red'), (1, 'red'); INSERT INTO mallory.numbered VALUES (0, 1)");
$node->safe_psql($app, "SET streamext.wait_timeout = '120s'; SELECT streamext.flush(v) FROM unnest('{victim.by_colour,victim.by_number}'::regclass[]) v");
is($node->safe_psql($app, "SELECT count(*) FROM streamext.dead_letters WHERE view::text LIKE 'victim.by_%'"), '2', 'their rows that fail');
trap_ran('json cast', 'mallory');
my $asked = () = slurp_file($node->logfile) =~ /TRAP letter domain: /g;
as_role('victim', "SELECT streamext.repair_dead_letter(id, row || '{\"k\": 2}') FROM streamext.dead_letters WHERE view = 'victim.by_number'::regclass");
is((as_role('victim', "SELECT streamext.retry_dead_letters('victim.by_number')"))[0], '1', 'one is repaired');
cmp_ok(scalar(() = slurp_file($node->logfile) =~ /TRAP letter domain: /g), '>', $asked, 'its domain is asked');
is(join("\n", grep { !/^mallory / } trapped('letter domain')), '', 'as nobody but its owner');
as_role('mallory', 'ALTER TABLE mallory.ev ENABLE ROW LEVEL SECURITY; INSERT INTO mallory.ev (k, v) VALUES (1, 9)');
ok(query_until($node, $app, "SELECT state FROM streamext.status WHERE view = 'victim.over'::regclass", 'failed', 30), 'row security of the stream\'s owner stops the victim\'s view, visibly');
is(join("\n", grep { !/^mallory / } trapped('policy')), '', 'and its policy ran as nobody else');
as_role('mallory', 'ALTER TABLE mallory.ev DISABLE ROW LEVEL SECURITY');
oracle($node, $app, 'victim.over', 'without it');
refused('a stream\'s owner may not take the victim\'s view along unasked', 'mallory', 'DROP TABLE mallory.ev', '2BP01');

note('--- names');
my $evil = q{x"; DROP TABLE public.root_only; --'$$\\};
my $q = $evil =~ s/"/""/gr;
my $ql = $q =~ s/'/''/gr;
$node->safe_psql($app, qq{CREATE SCHEMA "$q" AUTHORIZATION mallory; CREATE ROLE "$q" LOGIN; GRANT "$q" TO mallory; GRANT ALL ON SCHEMA "$q" TO "$q"; GRANT CREATE ON DATABASE $app TO "$q"; ALTER SCHEMA "$q" OWNER TO "$q"});
as_role('mallory', <<"SQL");
SET ROLE "$q";
CREATE TABLE "$q"."$q" ("$q" int, v int);
CREATE FUNCTION "$q"."$q"(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 10 / \$1';
CREATE MATERIALIZED VIEW "$q"."$q view" WITH (streamext.continuous) AS SELECT "$q"."$q"(v) AS "$q", avg("$q") AS "$q 2" FROM "$q"."$q" GROUP BY 1;
CREATE INDEX "$q index" ON "$q"."$q view" ("$q");
INSERT INTO "$q"."$q" VALUES (1, 1), (2, 0), (3, 5);
SQL
ok(query_until($node, $app, "SELECT count(*) FROM streamext.dead_letters d WHERE view::text LIKE '%view\"'", '1', 30), 'hostile names of a schema, role, table, column, function, index');
$node->safe_psql($app, 'SELECT streamext.flush()');
is($node->safe_psql($app, qq{SELECT count(*) FROM "$q"."$q view"}), '2', 'the view works');
as_role('mallory', qq{SET ROLE "$q"; ALTER MATERIALIZED VIEW "$q"."$q view" RENAME TO "$q"" view"; ALTER TABLE "$q"."$q" RENAME TO "$q"" table"; ALTER TABLE "$q"."$q"" table" RENAME COLUMN "$q" TO "$q"" col"; ALTER SCHEMA "$q" RENAME TO "$q"" schema"});
$node->safe_psql($app, qq{INSERT INTO "$q"" schema"."$q"" table" VALUES (1, 2)});
is($node->safe_psql($app, "SELECT streamext.wait_for() AND count(*) = 3 FROM \"$q\"\" schema\".\"$q\"\" view\""), 't', 'after all were renamed');
allowed('a hostile name for create_view()', 'mallory', "SELECT streamext.create_view('mallory.\"$ql\"', 'SELECT 1 AS a FROM mallory.ev; DROP TABLE root_only')", "42601: query must be one SELECT statement");
refused('a query that ends the statement', 'mallory', "SELECT streamext.create_view('mallory.w', 'SELECT 1 AS a FROM mallory.ev) ; DROP TABLE root_only; --')", '42601');
refused('a flush interval that ends the string', 'mallory', "SELECT streamext.create_view('mallory.w', 'SELECT 1 AS a FROM mallory.ev', flush_interval => '1s''; DROP TABLE root_only; --')", '22007|22023');
is($node->safe_psql($app, 'SELECT count(*) FROM root_only'), '1', 'nothing was injected');

note('--- temporary objects, settings and search_path');
refused('a temporary table as a stream', 'mallory', 'CREATE TEMP TABLE ev (k int); CREATE MATERIALIZED VIEW mallory.v WITH (streamext.continuous) AS SELECT k FROM ev', '42P16|42809|0A000');
refused('a temporary table as a lookup', 'mallory', 'CREATE TEMP TABLE l (k int); CREATE MATERIALIZED VIEW mallory.v WITH (streamext.continuous) AS SELECT k FROM mallory.ev JOIN l USING (k)', '42P16|0A000');
refused('a temporary view', 'mallory', 'CREATE MATERIALIZED VIEW pg_temp.v WITH (streamext.continuous) AS SELECT k FROM mallory.ev', '42P16|0A000');
# as with any view: gone with the session
as_role('mallory', q{CREATE FUNCTION pg_temp.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; CREATE TYPE pg_temp.e AS ENUM ('a');
	CREATE MATERIALIZED VIEW mallory.temp_f WITH (streamext.continuous) AS SELECT pg_temp.f(k) AS k FROM mallory.ev;
	CREATE MATERIALIZED VIEW mallory.temp_e WITH (streamext.continuous) AS SELECT NULL::pg_temp.e AS e, count(*) FROM mallory.ev GROUP BY 1});
ok(query_until($node, $app, "SELECT count(*) FROM streamext.view_def d WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = d.view) OR view::text LIKE 'mallory.temp%'", '0', 30), 'temporary functions and types leave nothing behind');
as_role('victim', <<'SQL');
SET search_path = mallory, victim, pg_catalog;
SELECT streamext.wait_for('victim.over'), streamext.flush('victim.over');
SELECT * FROM streamext.status;
SELECT * FROM streamext.views;
SELECT * FROM streamext.dead_letters;
SELECT * FROM streamext.streams;
SELECT * FROM streamext.explain('victim.over');
SELECT * FROM streamext.verify('victim.over');
SQL
is(join("\n", trapped('equals'), trapped('int4larger')), '', 'no function of ours takes an operator from the caller\'s search_path');
$node->safe_psql($app, "ALTER DATABASE $app SET search_path = mallory, public, pg_catalog; ALTER DATABASE $app SET default_transaction_read_only = on; ALTER DATABASE $app SET default_transaction_isolation = 'serializable'; ALTER DATABASE $app SET statement_timeout = '10s'; ALTER DATABASE $app SET DateStyle = 'German'; ALTER DATABASE $app SET row_security = off; ALTER DATABASE $app SET role = 'mallory'");
$node->restart;
$node->safe_psql($app, 'SET ROLE NONE; SET default_transaction_read_only = off; INSERT INTO victim.ev VALUES (2, 11, NULL)');
is($node->safe_psql($app, "SET ROLE NONE; SELECT streamext.wait_for('victim.sums', '60s'), streamext.flush('victim.sums') IS NOT NULL"), 't|t', 'settings of a hostile database owner do not stop the workers');
is($node->safe_psql($app, "SET ROLE NONE; SET search_path = pg_catalog; SELECT count(*) FROM (TABLE victim.sums EXCEPT ALL SELECT k, sum(v), avg(v::numeric), max(secret) FROM victim.ev GROUP BY k) d"), '0', 'and change nothing');
is(join("\n", trapped('equals'), trapped('int4larger')), '', 'nor what runs');
$node->safe_psql('postgres', "ALTER DATABASE $app RESET ALL");
$node->restart;

note('--- before CREATE EXTENSION, in a dump');
$node->safe_psql('postgres', "CREATE DATABASE prepared OWNER mallory");
as_role('mallory', <<'SQL', 'prepared');
CREATE SCHEMA streamext;
CREATE TABLE streamext.view_def (a int);
SQL
like(as_role_error('postgres', 'CREATE EXTENSION streamext', 'prepared'), qr/^42P06: /, 'a schema of the extension\'s name stops CREATE EXTENSION');
as_role('mallory', <<'SQL', 'prepared');
DROP SCHEMA streamext CASCADE;
CREATE FUNCTION public.int4pl(int, int) RETURNS int LANGUAGE sql AS $$ SELECT public.trap('install') $$;
CREATE FUNCTION public.pg_extension_config_dump(regclass, text) RETURNS void LANGUAGE sql AS $$ SELECT NULL::void $$;
CREATE TYPE public.regclass AS (a int);
CREATE TYPE public.state AS (a int);
CREATE DOMAIN public.cstring AS int;
CREATE DOMAIN public.bytea AS int;
CREATE DOMAIN public.anyelement AS int;
CREATE FUNCTION public.eq(int, int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'TRAP install: % did', current_user; RETURN true; END $$;
CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = pg_catalog.oideq);
CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.textcat);
CREATE TABLE public.view_def (a int);
CREATE SEQUENCE public.view_id_seq;
SQL
is(as_role_error('postgres', 'SET search_path = public, pg_catalog; CREATE EXTENSION streamext', 'prepared'), '', 'prepared objects of the same names do not stop it');
is($node->safe_psql('prepared', <<'SQL'), '', 'and none of them is used');
SELECT pg_describe_object(d.classid, d.objid, d.objsubid), pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
FROM pg_depend d JOIN pg_depend e ON e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e'
	JOIN pg_extension x ON x.oid = e.refobjid AND x.extname = 'streamext'
WHERE d.refobjid >= 16384 AND pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) NOT LIKE '%streamext%'
SQL
is(join("\n", trapped('install')), '', 'and nothing of hers ran');
refused_in('prepared', 'the database\'s owner may not touch the extension', 'mallory', "ALTER EXTENSION streamext SET SCHEMA public", '42501');
refused_in('prepared', 'nor its catalogs', 'mallory', "UPDATE streamext.view_def SET paused = true", '42501');
refused_in('prepared', 'nor its schema', 'mallory', "CREATE TABLE streamext.mine (a int)", '42501');

sub as_role_error { return (as_role(@_))[1]; }

sub refused_in
{
	my ($database, $name, $role, $sql, $state) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like((as_role($role, $sql, $database))[1], qr/^(?:$state): /m, $name);
	return;
}

my $hostile_db = q{d"; DROP TABLE x; --'};
$node->safe_psql('postgres', 'CREATE DATABASE "' . ($hostile_db =~ s/"/""/gr) . '"');
$node->safe_psql($hostile_db, 'CREATE EXTENSION streamext; CREATE TABLE t (a int); CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT a, count(*) AS n FROM t GROUP BY a; INSERT INTO t VALUES (1)');
is($node->safe_psql($hostile_db, 'SELECT streamext.wait_for(); SELECT n FROM v'), "t\n1", 'a hostile name of a database');
$node->safe_psql('postgres', 'DROP DATABASE "' . ($hostile_db =~ s/"/""/gr) . '"');

my $log_before = length slurp_file($node->logfile);
my $dump = "$ENV{TESTDIR}/hostile.sql";
command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr($app) ], 'a dump with all traps');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
my ($status, $out, $err) = $node->psql('restored', "\\i $dump", on_error_stop => 0);
is(join("\n", $err =~ /(ERROR: [^\n]*)/g), '', 'it is restored without an error');
my @new_traps = grep { !/: mallory / } substr(slurp_file($node->logfile), $log_before) =~ /TRAP ([^\n]*)/g;
# index expressions are evaluated as the table's owner; a CHECK or a domain of hers by whoever loads the rows, as in any dump
is(join("\n", grep { !/^(?:constraint|table check|domain|letter domain|index|policy): / } @new_traps), '', 'restoring it runs no trap of a continuous view as a superuser');
is($node->safe_psql('restored', "SELECT streamext.wait_for('victim.sums', '60s')"), 't', 'the restored views live');
oracle($node, 'restored', 'victim.sums', 'restored');
is(join("\n", grep { !/: (?:mallory|victim) / } grep { !/^(?:constraint|table check|domain|letter domain|index|policy): / } substr(slurp_file($node->logfile), $log_before) =~ /TRAP ([^\n]*)/g), '', 'nor do the workers');

note('--- closed windows go to a table of hers');
as_role('mallory', <<'SQL');
CREATE TABLE mallory.ticks (id bigint NOT NULL);
SELECT streamext.create_stream('mallory.ticks', event_time => 'id');
CREATE MATERIALIZED VIEW mallory.tens WITH (streamext.continuous) AS SELECT streamext.tumble(id, 10) AS w, count(*) AS n FROM mallory.ticks GROUP BY 1;
CREATE TABLE mallory.closed (w bigint, n bigint DEFAULT public.trap('sink default'), CHECK (public.trap('sink check') = 1));
CREATE FUNCTION mallory.on_close() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.trap(TG_ARGV[0]); RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT ON mallory.closed FOR EACH ROW EXECUTE FUNCTION mallory.on_close('sink trigger');
SELECT streamext.create_sink('mallory.tens', 'mallory.closed');
INSERT INTO mallory.ticks VALUES (1), (12);
SQL
trap_ran($_, 'mallory') for ('sink trigger', 'sink check');
is($node->safe_psql($app, 'SELECT count(*) FROM mallory.closed'), '1', 'the window is appended');
as_role('mallory', <<'SQL');
CREATE CONSTRAINT TRIGGER d AFTER INSERT ON mallory.closed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.on_close('deferred sink trigger');
INSERT INTO mallory.ticks VALUES (13), (24);
SQL
ok(query_until($node, $app, "SELECT last_error FROM streamext.status WHERE view = 'mallory.tens'::regclass",
	'cannot fire deferred trigger within security-restricted operation', 30), 'a trigger that would run after it, as whoever commits, is refused');
is(join("\n", trapped('deferred sink trigger')), '', 'and did not run');
as_role('mallory', 'DROP TRIGGER d ON mallory.closed');
$node->safe_psql($app, 'ALTER TABLE mallory.closed OWNER TO victim');
as_role('mallory', 'INSERT INTO mallory.ticks VALUES (35)');
ok(query_until($node, $app, "SELECT last_error FROM streamext.status WHERE view = 'mallory.tens'::regclass",
	'permission denied for table closed', 30), 'a table that is no longer hers takes no more');
refused('a sink of another\'s view', 'mallory', "SELECT streamext.create_sink('victim.sums', 'mallory.ticks')", '42501');
refused('another\'s table as a sink', 'mallory', "SELECT streamext.create_sink('mallory.tens', 'victim.ev')", '42501|42703');
refused('another\'s sink dropped', 'reader', "SELECT streamext.drop_sink('mallory.tens', 'mallory.closed')", '42501');
as_role('mallory', "SELECT streamext.drop_sink('mallory.tens', 'mallory.closed')");
is($node->safe_psql($app, "SELECT streamext.wait_for('mallory.tens', '60s')"), 't', 'without the sink the view goes on');
oracle($node, $app, 'mallory.tens', 'after all that');

note('--- what everybody may call');
is($node->safe_psql($app, <<'SQL'), <<'LIST' =~ s/\n$//r, 'functions of schema streamext that PUBLIC may execute');
SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'streamext'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text COLLATE "C"
SQL
streamext.alerter_runs()
streamext.alter_stream(regclass,name,interval,interval,text,interval,interval,text,text)
streamext.backfill(regclass,bigint,bigint,boolean)
streamext.backfill(regclass,date,date,boolean)
streamext.backfill(regclass,text,text,boolean)
streamext.backfill(regclass,timestamp with time zone,timestamp with time zone,boolean)
streamext.backfill(regclass,timestamp without time zone,timestamp without time zone,boolean)
streamext.cancel_replace(regclass)
streamext.check_installation()
streamext.combine(regprocedure,anyelement,anyelement)
streamext.combine(regprocedure,anyelement,anyelement,"any")
streamext.create_alert(text,regclass,text,text)
streamext.create_sink(regclass,regclass,boolean,boolean)
streamext.create_stream(regclass,name,interval,interval,text,interval,interval,text,text)
streamext.create_view(text,text,boolean,text,text,regclass)
streamext.cumulate(bigint,bigint,bigint)
streamext.cumulate(date,interval,interval)
streamext.cumulate(timestamp with time zone,interval,interval)
streamext.cumulate(timestamp with time zone,interval,interval,text)
streamext.cumulate(timestamp without time zone,interval,interval)
streamext.drop_alert(text)
streamext.drop_sink(regclass,regclass)
streamext.drop_stream(regclass)
streamext.expire(regclass,bigint,integer,boolean)
streamext.expire(regclass,interval,integer,boolean)
streamext.expire(regclass,timestamp with time zone,integer,boolean)
streamext.explain(regclass)
streamext.finalize(regprocedure,"any",anyelement)
streamext.finalize(regprocedure,"any",anyelement,"any")
streamext.flush(regclass)
streamext.hop(bigint,bigint,bigint)
streamext.hop(bigint,bigint,bigint,bigint)
streamext.hop(date,interval,interval)
streamext.hop(date,interval,interval,date)
streamext.hop(timestamp with time zone,interval,interval)
streamext.hop(timestamp with time zone,interval,interval,text)
streamext.hop(timestamp with time zone,interval,interval,timestamp with time zone)
streamext.hop(timestamp without time zone,interval,interval)
streamext.hop(timestamp without time zone,interval,interval,timestamp without time zone)
streamext.hop_pane(bigint,bigint,bigint)
streamext.hop_pane(bigint,bigint,bigint,bigint)
streamext.hop_pane(date,interval,interval)
streamext.hop_pane(date,interval,interval,date)
streamext.hop_pane(timestamp with time zone,interval,interval)
streamext.hop_pane(timestamp with time zone,interval,interval,text)
streamext.hop_pane(timestamp with time zone,interval,interval,timestamp with time zone)
streamext.hop_pane(timestamp without time zone,interval,interval)
streamext.hop_pane(timestamp without time zone,interval,interval,timestamp without time zone)
streamext.is_final(regclass,anyelement)
streamext.is_valid(oid,tid)
streamext.job_finished(bigint,bigint,text)
streamext.job_started(text,text)
streamext.merge(regprocedure,anyelement)
streamext.merge(regprocedure,anyelement,"any")
streamext.merge_step(anyelement,regprocedure,anyelement)
streamext.merge_step(anyelement,regprocedure,anyelement,"any")
streamext.pane_boundary(regclass,anyelement)
streamext.pause(regclass)
streamext.repair_dead_letter(bigint,jsonb)
streamext.replace_view(regclass,text,boolean)
streamext.resume(regclass)
streamext.retry_dead_letters(regclass)
streamext.run_job(text,date,regprocedure)
streamext.run_job(text,text,regprocedure)
streamext.session(bigint,bigint)
streamext.session(date,interval)
streamext.session(timestamp with time zone,interval)
streamext.session(timestamp without time zone,interval)
streamext.stream_states()
streamext.tumble(bigint,bigint)
streamext.tumble(bigint,bigint,bigint)
streamext.tumble(date,interval)
streamext.tumble(date,interval,date)
streamext.tumble(timestamp with time zone,interval)
streamext.tumble(timestamp with time zone,interval,text)
streamext.tumble(timestamp with time zone,interval,timestamp with time zone)
streamext.tumble(timestamp with time zone,interval,timestamp with time zone,text)
streamext.tumble(timestamp without time zone,interval)
streamext.tumble(timestamp without time zone,interval,timestamp without time zone)
streamext.verify(regclass)
streamext.view_states()
streamext.wait_for(regclass,interval)
streamext.watermark(regclass)
streamext.window_end(bigint,bigint)
streamext.window_end(date,interval)
streamext.window_end(timestamp with time zone,interval)
streamext.window_end(timestamp with time zone,interval,text)
streamext.window_end(timestamp without time zone,interval)
LIST
is($node->safe_psql($app, <<'SQL'), '', 'every function is in C, or fixes its search_path');
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'streamext'::regnamespace AND l.lanname <> 'c' AND p.prokind <> 'a' AND NOT coalesce(p.proconfig::text LIKE '%search_path=%', false)
SQL
is($node->safe_psql($app, "SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'streamext'::regnamespace AND p.prosecdef"), '', 'none is SECURITY DEFINER');
is($node->safe_psql($app, "SELECT nspacl FROM pg_namespace WHERE nspname = 'streamext'"), '{postgres=UC/postgres,=U/postgres}', 'nobody may create in schema streamext');
$node->stop;
done_testing();
