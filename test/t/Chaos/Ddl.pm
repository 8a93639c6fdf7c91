# Ddl.pm
#		Random commands on streams, partitions, views and settings, beside the writers.
#
# One session gives them, one after the other, with short pauses.  Lock time-outs keep it
# going: a command that cannot have its lock is one that another round will try again.
# Commands that take rows away note that in chaos.shadow (see Schema.pm).
package Chaos::Ddl;

use strict;
use warnings;

use Exporter 'import';

use Chaos::Batch qw(batch_ddl);
use Chaos::EventTime qw(time_ddl);
use Chaos::Schema qw(columns create_sql dynamic_views record_sql views);
use Chaos::Workload qw(id_base);

our @EXPORT_OK = qw(ddl_script);

my @merge_views = qw(few many texts windows by_part upserted);

# the DDL session's own ids
use constant WRITER => 15;

sub ddl_script
{
	my ($random, $round, $commands) = @_;
	my $self = bless { r => $random, round => $round, next => id_base($round, WRITER) + 1 }, __PACKAGE__;
	my $sql = "SET lock_timeout = '400ms';\nSET streamext.wait_timeout = '3s';\n";
	for my $i (1 .. $commands)
	{
		$sql .= 'SELECT pg_sleep(' . $random->pick(150) / 1000 . ");\n\\echo $i\n" . $self->command;
	}
	return $sql;
}

sub command
{
	my ($self) = @_;
	my $r = $self->{r};
	return batch_ddl($r, $self->{round}) if $r->chance(15);
	return time_ddl($r) if $r->chance(30);
	my $kind = $r->by_weight(
		truncate => 6, rewrite => 5, reindex => 2, vacuum => 4, view_index => 3, pause => 4, flush => 5,
		create => 14, column => 4, detach => 6, partition => 4, freeze => 5, rename => 4, setting => 6,
		checkpoint => 2, switch_wal => 2, lock => 5, lock_view => 4, alter_view => 2, read => 3, stream => 1);
	return $self->$kind;
}

sub any_table { return $_[0]{r}->one_of(qw(ev ev td tl vs pe1 pe2 pe3a pe4 up bal)) }

sub if_allowed
{
	my ($self, $sql) = @_;
	return "BEGIN;\n\\set may f\nSELECT pg_try_advisory_xact_lock_shared(1) AS may \\gset\n\\if :may\n$sql\\endif\n"
	  . ($self->{r}->chance(85) ? "COMMIT;\n" : "ROLLBACK;\n");
}

# rows that vanish with a file; the caller's lock on it lets the statement see all of them
sub all_gone
{
	my ($self, $table) = @_;
	return "UPDATE chaos.shadow SET gone = chaos.g() WHERE gone IS NULL AND (leaf = '$table'::regclass OR leaf IN (SELECT relid FROM pg_partition_tree('$table')));\n";
}

sub truncate
{
	my ($self) = @_;
	# (what was read of "bal" may not go away when its views are rebuilt)
	my $table = $self->{r}->one_of(qw(ev td tl vs pe pe1 pe3 pe4 up));
	return $self->if_allowed("TRUNCATE $table;\n" . $self->all_gone($table));
}

sub rewrite
{
	my ($self) = @_;
	my $r = $self->{r};
	return 'VACUUM (FULL) ' . $self->any_table . ";\n" if $r->chance(60);
	return $r->one_of("CLUSTER ev USING ev_id;\n", "CLUSTER up USING up_pkey;\n", "CLUSTER pe1 USING pe1_id_idx;\n");
}

sub reindex { return 'REINDEX TABLE ' . $_[0]->any_table . ";\n" }

sub vacuum
{
	my ($self) = @_;
	return $self->{r}->one_of('VACUUM (FREEZE) ', 'VACUUM ', 'VACUUM (ANALYZE) ', 'ANALYZE ') . $self->any_table . ";\n";
}

sub view_index
{
	my ($self) = @_;
	my ($view, $column) = @{ $self->{r}->one_of([ few => 'k5' ], [ every => 'k' ], [ texts => 't' ], [ part_rows => 'v' ]) };
	my $name = "${view}_" . $self->{r}->pick(3);
	return $self->{r}->chance(60) ? "CREATE INDEX IF NOT EXISTS $name ON $view ($column);\n"
	  : "DROP INDEX IF EXISTS $name, streamext.$name;\n";
}

sub pause
{
	my ($self) = @_;
	my $r = $self->{r};
	my $view = $r->one_of(sort keys %{ views() });
	my $sql = "SELECT streamext.pause('$view');\n";
	$sql .= 'SELECT pg_sleep(' . $r->pick(300) / 1000 . ");\n" if $r->chance(70);
	$sql .= "SELECT streamext.resume('$view');\n" if $r->chance(80);
	return $sql;
}

sub flush { return "SELECT streamext.flush();\n" }

# A view is dropped and comes again.
sub create
{
	my ($self) = @_;
	my $r = $self->{r};
	my $name = $r->one_of(sort keys %{ dynamic_views() });
	my $drop = "BEGIN;\nDELETE FROM chaos.view WHERE name = '$name';\nDELETE FROM chaos.replaced WHERE name = '$name';\nDROP MATERIALIZED VIEW IF EXISTS $name;\nCOMMIT;\n";
	return $drop if $r->chance(20);
	if ($r->chance(40))
	{
		return $drop . "BEGIN ISOLATION LEVEL REPEATABLE READ;\n"
		  . "INSERT INTO chaos.view VALUES ('$name', NULL, pg_current_snapshot(), true);\n"
		  . create_sql($name, 'WITH NO DATA') . ($r->chance(90) ? "COMMIT;\n" : "ROLLBACK;\n");
	}
	# nobody may delete from the CREATE until the view has begun
	return $drop . "\\set may f\nSELECT pg_try_advisory_lock(1) AS may \\gset\n\\if :may\n"
	  . "BEGIN;\nUPDATE chaos.now SET g = g + 1;\nINSERT INTO chaos.view SELECT '$name', g, NULL, false FROM chaos.now;\n"
	  . create_sql($name) . "COMMIT;\n"
	  . <<"SQL";
DO \$\$
BEGIN
	FOR i IN 1 .. 150 LOOP
		IF EXISTS (SELECT FROM streamext.view_position WHERE view = '$name'::regclass) THEN
			UPDATE chaos.view SET begun = true WHERE name = '$name';
			RETURN;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	DELETE FROM chaos.view WHERE name = '$name';
	DROP MATERIALIZED VIEW IF EXISTS $name;
END \$\$;
SELECT pg_advisory_unlock(1);
\\endif
SQL
}

sub column
{
	my ($self) = @_;
	my $r = $self->{r};
	my $table = $r->one_of(qw(ev pe up td));
	my $name = 'extra' . $r->pick(1000);
	return "ALTER TABLE $table ADD COLUMN $name " . $r->one_of('int', "text DEFAULT 'x'", 'numeric DEFAULT 1.5') . ";\n"
	  . ($r->chance(70) ? "ALTER TABLE $table DROP COLUMN IF EXISTS $name;\n" : '');
}

# Out and in again; what was written to it meanwhile counts when it comes back.
sub attach_sql
{
	my ($self) = @_;
	return "LOCK TABLE pe;\n"
	  # rows that went to the default partition stand in the way
	  . "WITH d AS (DELETE FROM ped WHERE part = 2 RETURNING id)\n"
	  . "UPDATE chaos.shadow s SET gone = chaos.g() FROM d WHERE s.stream = 'pe' AND s.id = d.id AND s.gone IS NULL;\n"
	  # columns that came or went while it was out
	  . <<'SQL'
DO $$
DECLARE c text;
BEGIN
	FOR c IN SELECT format('ALTER TABLE pe2 ADD COLUMN %I %s', attname, format_type(atttypid, atttypmod)) FROM pg_attribute
		WHERE attrelid = 'pe'::regclass AND attnum > 0 AND NOT attisdropped
			AND attname NOT IN (SELECT attname FROM pg_attribute WHERE attrelid = 'pe2'::regclass)
		UNION ALL SELECT format('ALTER TABLE pe2 DROP COLUMN %I', attname) FROM pg_attribute
		WHERE attrelid = 'pe2'::regclass AND attnum > 0 AND NOT attisdropped
			AND attname NOT IN (SELECT attname FROM pg_attribute WHERE attrelid = 'pe'::regclass) LOOP
		EXECUTE c;
	END LOOP;
END $$;
SQL
	  . "ALTER TABLE pe ATTACH PARTITION pe2 FOR VALUES IN (2);\n"
	  . "UPDATE chaos.shadow SET root_xid = pg_current_xact_id() WHERE root_xid IS NULL AND gone IS NULL AND leaf = 'pe2'::regclass;\n";
}

sub detach
{
	my ($self) = @_;
	my $r = $self->{r};
	my $sql = "BEGIN;\nALTER TABLE pe DETACH PARTITION pe2;\n" . ($r->chance(90) ? "COMMIT;\n" : "ROLLBACK;\n");
	my $first = $self->{next};
	$self->{next} += 5;
	my $columns = columns();
	$sql .= 'SELECT pg_sleep(' . $r->pick(150) / 1000 . ");\n";
	$sql .= "BEGIN;\nINSERT INTO pe2 ($columns) SELECT $first + g, 2, g, g, 'x', 1, '2024-01-01 00:00+00', NULL FROM generate_series(0, 4) g;\n"
	  . "INSERT INTO chaos.shadow (stream, $columns, leaf, root_xid) SELECT 'pe', $columns, tableoid,\n"
	  . "\t(SELECT pg_current_xact_id() FROM pg_class WHERE oid = 'pe2'::regclass AND relispartition)\n"
	  . "\tFROM pe2 WHERE id BETWEEN $first AND $first + 4;\nCOMMIT;\n" if $r->chance(60);
	# nobody computes a view again meanwhile: see Batch.pm
	return "\\set alone f\nSELECT pg_try_advisory_lock(2) AS alone \\gset\n\\if :alone\n$sql" . $self->if_allowed($self->attach_sql)
	  . "SELECT pg_advisory_unlock(2);\n\\endif\n";
}

# dropped and made again
sub partition
{
	my ($self) = @_;
	return $self->if_allowed("LOCK TABLE pe;\n" . $self->all_gone('pe5')
		  . "DROP TABLE pe5;\nCREATE TABLE pe5 PARTITION OF pe FOR VALUES IN (5);\n"
		  . "INSERT INTO chaos.name VALUES ('pe5'::regclass, 'pe5');\n");
}

# COPY FREEZE into a truncated partition
sub freeze
{
	my ($self) = @_;
	my $r = $self->{r};
	my $columns = columns();
	my $n = $r->one_of(1, 50, 400);
	my $first = $self->{next};
	$self->{next} += $n;
	my $lines = join('', map { join("\t", $_, 4, $r->pick(60), $r->pick(1000), 'f', 1.25, '2024-01-01 00:30+00', '\N') . "\n" }
		  $first .. $first + $n - 1);
	return $self->if_allowed("TRUNCATE pe4;\n" . $self->all_gone('pe4') . "COPY pe4 ($columns) FROM STDIN (FREEZE);\n$lines\\.\n"
		  . "INSERT INTO chaos.shadow (stream, $columns, leaf) SELECT 'pe', $columns, tableoid FROM pe4;\n");
}

# there and back; the harness finishes what is cut off
sub rename
{
	my ($self) = @_;
	my $r = $self->{r};
	my $pause = 'SELECT pg_sleep(' . $r->pick(50) / 1000 . ");\n";
	my $kind = $r->pick(4);
	if ($kind == 0)
	{
		my $table = $r->one_of(qw(ev pe1 up));
		return "ALTER TABLE $table RENAME TO ${table}_away;\n${pause}ALTER TABLE ${table}_away RENAME TO $table;\n";
	}
	if ($kind == 1)
	{
		my $view = $r->one_of(@merge_views);
		return "ALTER MATERIALIZED VIEW $view RENAME TO ${view}_away;\n${pause}ALTER MATERIALIZED VIEW ${view}_away RENAME TO $view;\n";
	}
	if ($kind == 2)
	{
		my $table = $r->one_of(qw(ev pe up));
		return "ALTER TABLE $table RENAME COLUMN v TO v_away;\n${pause}ALTER TABLE $table RENAME COLUMN v_away TO v;\n";
	}
	return "BEGIN;\nALTER MATERIALIZED VIEW few RENAME COLUMN n TO n_away;\n${pause}ALTER MATERIALIZED VIEW few RENAME COLUMN n_away TO n;\nCOMMIT;\n";
}

sub setting
{
	my ($self) = @_;
	my $r = $self->{r};
	my ($name, @values) = @{ $r->one_of(
		[ 'streamext.flush_interval', '10ms', '50ms', '200ms', '1s', '5s' ],
		[ 'streamext.live_memory', '4MB', '5MB', '8MB', '64MB' ],
		[ 'streamext.cycle_interval', '0', '1ms', '20ms' ]) };
	return "ALTER SYSTEM SET $name = '" . $r->one_of(@values) . "';\nSELECT pg_reload_conf();\n";
}

sub checkpoint { return "CHECKPOINT;\n" }
sub switch_wal { return "SELECT pg_switch_wal();\n" }

sub lock
{
	my ($self) = @_;
	my $r = $self->{r};
	my $mode = $r->one_of('ACCESS EXCLUSIVE', 'ACCESS EXCLUSIVE', 'SHARE', 'SHARE ROW EXCLUSIVE');
	return "BEGIN;\nLOCK TABLE " . $r->one_of(qw(ev td tl vs pe pe1 up bal names)) . " IN $mode MODE;\nSELECT pg_sleep("
	  . $r->pick(400) / 1000 . ");\nCOMMIT;\n";
}

sub lock_view
{
	my ($self) = @_;
	my $r = $self->{r};
	my $view = $r->one_of(sort keys %{ views() });
	return "BEGIN;\nSELECT mat::text AS mat FROM streamext.view_def WHERE view = '$view'::regclass \\gset\n"
	  . "LOCK TABLE :mat IN " . $r->one_of('ACCESS EXCLUSIVE', 'SHARE', 'EXCLUSIVE') . " MODE;\nSELECT pg_sleep("
	  . $r->pick(500) / 1000 . ");\nCOMMIT;\n";
}

sub alter_view
{
	my ($self) = @_;
	my $r = $self->{r};
	my $view = $r->one_of(sort keys %{ views() });
	return "ALTER MATERIALIZED VIEW $view SET (streamext.flush_interval = '" . $r->one_of('10ms', '100ms', '2s') . "');\n";
}

# readers of all kinds
sub read
{
	my ($self) = @_;
	my $r = $self->{r};
	return join('', map { "SELECT count(*) FROM $_;\n" } $r->one_of(sort keys %{ views() }), $r->one_of(sort keys %{ views() }))
	  . "SET streamext.read_consistency = 'wait';\nSELECT count(*) FROM balance;\nRESET streamext.read_consistency;\n"
	  . "BEGIN;\nDECLARE c CURSOR FOR SELECT * FROM balance ORDER BY k;\nFETCH 10 FROM c;\nSELECT pg_sleep(0.1);\nFETCH ALL FROM c;\nCOMMIT;\n";
}

sub stream { return "SELECT view, state, reason FROM streamext.status;\nSELECT * FROM streamext.streams;\nSELECT * FROM streamext.backfill_progress;\n" }

1;
