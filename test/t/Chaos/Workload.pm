# Workload.pm
#		What the writers of the chaos test do: random transactions as psql scripts.
#
# Every row has an id of its own; those of one writer and round lie together (BASE).  The
# rows are copied into chaos.shadow by the same transaction (see Schema.pm), either in the
# same statement or read back by their ids: so a savepoint that is rolled back takes its
# copies along.
package Chaos::Workload;

use strict;
use warnings;

use Exporter 'import';

use Chaos::EventTime qw(moment);
use Chaos::Schema qw(columns record_sql);

our @EXPORT_OK = qw(writer_script reader_script id_base);

# ids of a writer and round; a row that moves to another partition gets MOVED more
use constant { IDS => 1_000_000, MOVED => 500_000, HOT => 300 };

sub id_base
{
	my ($round, $writer) = @_;
	return ($round * 16 + $writer) * IDS;
}

# writer_script(RANDOM, ROUND, WRITER, TRANSACTIONS, WRITERS)
sub writer_script
{
	my ($random, $round, $writer, $transactions, $writers) = @_;
	my $self = bless {
		r => $random, round => $round, writer => $writer, writers => $writers,
		next => id_base($round, $writer) + 1, prepared => 0, savepoints => 0, progress => 0,
	}, __PACKAGE__;
	my $sql = '';
	$sql .= "SET synchronous_commit = off;\n" if $random->chance(25);
	for my $i (1 .. $transactions)
	{
		$self->{progress} = $i / $transactions;
		$sql .= "\\echo $i\n" . $self->transaction;
		$sql .= 'SELECT pg_sleep(0.0' . $random->pick(10) . ");\n" if $random->chance(10);
	}
	return $sql;
}

sub transaction
{
	my ($self) = @_;
	my $r = $self->{r};
	my $kind = $r->by_weight(single => 30, block => 30, balanced => 15, prepared => 8, long => 4, subs => 2, big => 3);

	return $self->insert_with_copy($r->one_of(qw(ev pe td tl vs up)), $r->one_of(1, 1, 1, 2, 5, 40)) if $kind eq 'single';
	return "BEGIN;\n" . $self->balanced . $r->one_of("COMMIT;\n", "COMMIT;\n", "COMMIT;\n", "ROLLBACK;\n")
	  if $kind eq 'balanced';
	if ($kind eq 'prepared')
	{
		my $gid = "r$self->{round}w$self->{writer}n" . ++$self->{prepared};
		my $body = $r->chance(30) ? $self->balanced : $self->block(2, 1);
		return "BEGIN;\n${body}PREPARE TRANSACTION '$gid';\n"
		  . $r->by_weight("COMMIT PREPARED '$gid';\n" => 4, "ROLLBACK PREPARED '$gid';\n" => 2, '' => 2);
	}
	if ($kind eq 'long')
	{
		return "BEGIN;\n" . $self->block(2) . 'SELECT pg_sleep(0.' . $r->between(1, 4) . ");\n" . $self->block(2) . $self->end;
	}
	if ($kind eq 'subs')
	{
		my $n = $r->one_of(5, 80, 300);
		my $base = $self->ids($n) - 1;
		return "BEGIN;\nSELECT chaos.subtransactions($base, $n);\n"
		  . record_sql('ev', 'id BETWEEN ' . ($base + 1) . ' AND ' . ($base + $n)) . $self->end;
	}
	return "BEGIN;\n" . $self->series($r->one_of(qw(ev ev pe td tl vs)), $r->between(2000, 15000)) . $self->end if $kind eq 'big';
	return "BEGIN;\n" . ($r->chance(15) ? "SET LOCAL synchronous_commit = off;\n" : '') . $self->block(3) . $self->end;
}

sub end
{
	my ($self) = @_;
	return $self->{r}->chance(80) ? "COMMIT;\n" : "ROLLBACK;\n";
}

sub ids
{
	my ($self, $n) = @_;
	my $first = $self->{next};
	$self->{next} += $n;
	return $first;
}

# Some steps; savepoints may nest.
sub block
{
	my ($self, $steps, $in_prepared, $depth) = @_;
	my $r = $self->{r};
	my $sql = '';
	$depth //= 0;
	for (1 .. 1 + $r->pick($steps))
	{
		if ($depth < 3 && $r->chance(25))
		{
			my $name = 's' . ++$self->{savepoints};
			$sql .= "SAVEPOINT $name;\n" . $self->block(2, $in_prepared, $depth + 1);
			$sql .= "SELECT 1 / 0;\nROLLBACK TO $name;\n" if $r->chance(15);
			$sql .= $r->one_of("ROLLBACK TO $name;\n", "RELEASE $name;\n", '');
		}
		else
		{
			$sql .= $self->step($in_prepared);
		}
	}
	return $sql;
}

sub step
{
	my ($self, $in_prepared) = @_;
	my $r = $self->{r};
	my $kind = $r->by_weight(insert => 8, copy => 5, series => 4, upsert => 6, merge => 4, merge_new => 2,
		update => 3, delete => 3, move => 2, direct => 2, pause => 1);

	# the creator of a view would wait for a lock that such a transaction keeps for rounds
	$kind = 'insert' if $in_prepared && $kind =~ /upsert|merge$|update|delete|move/;
	return $self->insert_with_copy($r->one_of(qw(ev pe td tl vs)), $r->one_of(1, 1, 3, 30, 200)) if $kind eq 'insert';
	return $self->copy if $kind eq 'copy';
	return $self->series($r->one_of(qw(ev pe td tl vs)), $r->one_of(10, 300, 1500)) if $kind eq 'series';
	return $self->upsert if $kind eq 'upsert';
	return $self->merge if $kind eq 'merge';
	return $self->merge_new if $kind eq 'merge_new';
	return $self->change($kind) if $kind =~ /^(update|delete|move)$/;
	return $self->direct if $kind eq 'direct';
	return 'SELECT pg_sleep(0.0' . $r->pick(6) . ");\n";
}

sub text
{
	my ($self) = @_;
	my $r = $self->{r};
	return $r->chance(15) ? 'NULL' : "'" . $r->one_of('a', 'b', "\xc3\xa4", 'long ' x 4, 't' . $r->pick(6)) . "'";
}

sub note
{
	my ($self) = @_;
	my $r = $self->{r};
	return 'NULL' if $r->chance(70);
	# beyond 2 kB compressed, or not compressible: kept out of line
	return "repeat('x', " . $r->pick(20000) . ')' if $r->chance(20);
	return "repeat(md5('" . $r->pick(99999) . "'), " . $r->between(1, 100) . ') || ' . $r->pick(9999)
	  if $r->chance(20);
	return "'note " . $r->pick(1000) . "'";
}

sub time_of
{
	my ($self, $stream) = @_;
	return moment($self->{r}, $self->{round}, $self->{progress}, $stream);
}

sub row
{
	my ($self, $id, $stream) = @_;
	my $r = $self->{r};
	return sprintf('(%d, %d, %s, %s, %s, %s, %s, %s)', $id, $r->between(1, 6),
		$r->chance(3) ? 'NULL' : $r->pick(60), $r->chance(5) ? 'NULL' : $r->pick(1000), $self->text,
		$r->chance(10) ? 'NULL' : $r->pick(10000) / 100, $self->time_of($stream), $self->note);
}

# rows and their copies in one statement
sub insert_with_copy
{
	my ($self, $stream, $n) = @_;
	my $columns = columns();

	return $self->upsert(1) if $stream eq 'up';
	my $first = $self->ids($n);
	my $rows = join(",\n\t", map { $self->row($first + $_, $stream) } 0 .. $n - 1);
	return "WITH i AS (INSERT INTO $stream VALUES $rows\n\tRETURNING $columns, tableoid)\n"
	  . "INSERT INTO chaos.shadow (stream, $columns, leaf) SELECT '$stream', $columns, tableoid FROM i;\n";
}

sub record
{
	my ($self, $stream, $first, $n) = @_;
	return record_sql($stream, 'id BETWEEN ' . $first . ' AND ' . ($first + $n - 1));
}

sub copy
{
	my ($self) = @_;
	my $r = $self->{r};
	my $stream = $r->one_of(qw(ev pe td tl vs));
	my $n = $r->one_of(1, 20, 300, 1500);
	my $first = $self->ids($n);
	my $lines = '';
	for my $id ($first .. $first + $n - 1)
	{
		$lines .= join("\t", $id, $r->between(1, 6), $r->pick(60), $r->chance(5) ? '\N' : $r->pick(1000),
			$r->chance(10) ? '\N' : 'c' . $r->pick(5), $r->pick(10000) / 100, $self->time_of($stream) =~ tr/'//dr,
			$r->chance(70) ? '\N' : 'x' x $r->pick(60)) . "\n";
	}
	return "COPY $stream (" . columns() . ") FROM STDIN;\n$lines\\.\n" . $self->record($stream, $first, $n);
}

sub series
{
	my ($self, $stream, $n) = @_;
	my $r = $self->{r};
	my $first = $self->ids($n);
	my $factor = $r->between(3, 997);
	return "INSERT INTO $stream SELECT $first + g, 1 + g % 6, g * 7 % 60, g * $factor % 1000, "
	  . "CASE WHEN g % 9 > 0 THEN 't' || g % 5 END, g % 10000 / 100.0, "
	  . $self->time_of . "::timestamptz - g * $factor % 1009 * interval '1 s', NULL FROM generate_series(0, " . ($n - 1) . ") g;\n"
	  . $self->record($stream, $first, $n);
}

# ---- "up": few ids, many conflicts ----

sub hot_rows
{
	my ($self, $n) = @_;
	my %ids = map { 1 + $self->{r}->pick(HOT) => 1 } 1 .. $n;
	# in one order: deadlocks are no purpose of this
	return sort { $a <=> $b } keys %ids;
}

# With "only new": DO NOTHING, which changes no row that is there.
sub upsert
{
	my ($self, $only_new) = @_;
	my $r = $self->{r};
	my $columns = columns();
	my @ids = $self->hot_rows($r->one_of(1, 1, 5, 50));
	my $rows = join(",\n\t", map { $self->row($_) } @ids);
	if ($only_new || $r->chance(30))
	{
		return "WITH i AS (INSERT INTO up VALUES $rows\n\tON CONFLICT (id) DO NOTHING RETURNING $columns, tableoid)\n"
		  . "INSERT INTO chaos.shadow (stream, $columns, leaf) SELECT 'up', $columns, tableoid FROM i;\n";
	}
	return $self->when_allowed("INSERT INTO up VALUES $rows\n"
		  . "\tON CONFLICT (id) DO UPDATE SET v = excluded.v, hits = up.hits + 1;\n"
		  . 'SELECT chaos.sync_up(ARRAY[' . join(',', @ids) . "]);\n");
}

sub merge
{
	my ($self) = @_;
	my @ids = $self->hot_rows($self->{r}->one_of(1, 10, 40));
	my $rows = join(",\n\t", map { $self->row($_) } @ids);
	return $self->when_allowed("MERGE INTO up USING (VALUES $rows) s (" . columns() . ") ON up.id = s.id\n"
		  . "\tWHEN MATCHED THEN UPDATE SET v = s.v::int, hits = hits + 1\n"
		  . "\tWHEN NOT MATCHED THEN INSERT (" . columns() . ") VALUES (s.id, s.part, s.k::int, s.v::int, s.t, s.m::numeric, s.ts::timestamptz, s.note);\n"
		  . 'SELECT chaos.sync_up(ARRAY[' . join(',', @ids) . "]);\n");
}

sub merge_new
{
	my ($self) = @_;
	my $r = $self->{r};
	my $n = $r->one_of(1, 50);
	my $first = $self->ids($n);
	return "MERGE INTO ev USING generate_series($first, " . ($first + $n - 1) . ") g ON ev.id = g\n"
	  . "\tWHEN MATCHED THEN DO NOTHING\n"
	  . "\tWHEN NOT MATCHED THEN INSERT VALUES (g, 1, g % 60, g % 1000, 'm', 1.5, '2024-01-01', NULL);\n"
	  . $self->record('ev', $first, $n);
}

# ---- what changes nothing in the views ----

# A view WITH DATA is created while nobody deletes or updates: see Schema.pm.
sub when_allowed
{
	my ($self, $sql) = @_;
	return "\\set may f\nSELECT pg_try_advisory_xact_lock_shared(1) AS may \\gset\n\\if :may\n$sql\\endif\n";
}

# a range of ids that some writer of this round probably has used by now
sub some_ids
{
	my ($self) = @_;
	my $r = $self->{r};
	my $writer = 1 + $r->pick($self->{writers});
	my $base = id_base($r->chance(80) ? $self->{round} : $self->{round} - 1, $writer);
	my $from = $base + $r->pick(3000);
	return ($from, $from + $r->one_of(1, 30, 500));
}

sub change
{
	my ($self, $kind) = @_;
	my $r = $self->{r};
	my $columns = columns();
	my ($from, $to) = $self->some_ids;
	my $stream = $r->one_of(qw(ev ev pe td tl vs));

	if ($kind eq 'update')
	{
		return $self->when_allowed("WITH u AS (UPDATE $stream SET v = v + 1, hits = hits + 1 WHERE id BETWEEN $from AND $to RETURNING id, v)\n"
			  . "UPDATE chaos.shadow s SET upd_g = upd_g || chaos.g(), upd_v = upd_v || u.v FROM u\n"
			  . "\tWHERE s.stream = '$stream' AND s.id = u.id AND s.gone IS NULL;\n");
	}
	if ($kind eq 'delete')
	{
		($stream, $from, $to) = ('up', 1 + $r->pick(HOT), HOT) if $r->chance(20);
		$to = $from + 5 if $stream eq 'up';
		return $self->when_allowed("WITH d AS (DELETE FROM $stream WHERE id BETWEEN $from AND $to RETURNING id)\n"
			  . "UPDATE chaos.shadow s SET gone = chaos.g() FROM d\n"
			  . "\tWHERE s.stream = '$stream' AND s.id = d.id AND s.gone IS NULL;\n");
	}
	# to another partition: a delete and an insert
	my $moved = MOVED;
	return $self->when_allowed("WITH u AS (UPDATE pe SET part = 4, id = id + $moved WHERE id BETWEEN $from AND $to AND part = 1\n"
		  . "\tRETURNING $columns, tableoid),\n"
		  . "g AS (UPDATE chaos.shadow s SET gone = chaos.g() FROM u WHERE s.stream = 'pe' AND s.id = u.id - $moved AND s.gone IS NULL)\n"
		  . "INSERT INTO chaos.shadow (stream, $columns, leaf) SELECT 'pe', $columns, tableoid FROM u;\n");
}

# Directly into a partition that may be detached: does it count for the parents?
sub direct
{
	my ($self) = @_;
	my $r = $self->{r};
	my $columns = columns();
	my $n = $r->one_of(1, 20);
	my $first = $self->ids($n);
	return "INSERT INTO pe2 ($columns) SELECT $first + g, 2, g % 60, g % 1000, 'd', 2.5, '2024-01-01 01:00+00', NULL FROM generate_series(0, "
	  . ($n - 1) . ") g;\n"
	  . "INSERT INTO chaos.shadow (stream, $columns, leaf, root_xid) SELECT 'pe', $columns, tableoid,\n"
	  . "\t(SELECT pg_current_xact_id() FROM pg_class WHERE oid = 'pe2'::regclass AND relispartition)\n"
	  . "\tFROM pe2 WHERE id BETWEEN $first AND " . ($first + $n - 1) . ";\n";
}

# ---- amounts that sum to zero ----

sub balanced
{
	my ($self) = @_;
	my $r = $self->{r};
	my $n = $r->one_of(2, 3, 8, 200);
	my $first = $self->ids($n);
	my $sql = '';
	my $sum = 0;
	my @rows;
	for my $i (0 .. $n - 1)
	{
		my $amount = $i == $n - 1 ? -$sum : $r->between(-1000, 1000);
		$sum += $amount;
		push @rows, sprintf("(%d, 1, %d, %d, 'x', NULL, '2024-01-01 00:00+00', NULL)", $first + $i, $r->pick(200), $amount);
	}
	# in several statements, with a savepoint between
	while (@rows)
	{
		my @some = splice(@rows, 0, 1 + $r->pick(scalar @rows));
		$sql .= 'INSERT INTO bal VALUES ' . join(",\n\t", @some) . ";\n";
		$sql .= "SAVEPOINT b;\n" if $r->chance(20);
		$sql .= 'SELECT pg_sleep(0.0' . $r->pick(4) . ");\n" if $r->chance(10);
	}
	return $sql . $self->record('bal', $first, $n);
}

# The reader of the balance: every sum is zero, and nothing goes backwards in a session.
sub reader_script
{
	my ($random, $reads) = @_;
	my $read = q{SELECT 'read', (SELECT coalesce(sum(total), 0) FROM balance), (SELECT coalesce(sum(n), 0) FROM balance), }
	  . q{(SELECT coalesce(total, 0) FROM balance_all), (SELECT n FROM balance_all), }
	  . q{(SELECT coalesce(sum(v), 0) FROM balance_rows), (SELECT count(*) FROM balance_rows), }
	  . q{(SELECT count(*) - count(DISTINCT k) FROM balance);} . "\n";
	my $sql = '';
	for (1 .. $reads)
	{
		$sql .= $random->chance(10) ? "BEGIN ISOLATION LEVEL REPEATABLE READ;\n\\echo repeat\n$read\\echo repeat\n${read}COMMIT;\n\\echo repeated\n" : $read;
		$sql .= 'SELECT pg_sleep(0.0' . $random->pick(3) . ");\n" if $random->chance(30);
	}
	return $sql;
}

1;
