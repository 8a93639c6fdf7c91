# FuzzRun.pm
#		Runs batches of random views against their queries.
#
# A batch is one random stream in a schema of its own, some lookups, many views, and a list of
# steps: rows before the views exist, the views, rows after, flushes, restarts.  After each round
# every view is compared with its query, both ways, in one statement:
#
#	TABLE view EXCEPT ALL query  UNION ALL  query EXCEPT ALL TABLE view
#
# Where that is not empty and there are floats, rows are paired by their other columns and the
# floats compared within a tolerance.  In half of the batches rows are also updated and deleted
# later; a trigger keeps every row as it was inserted in a second table, and the query is run there.
#
# Some views are computed again on the way: by REFRESH, by replace_view() with a query that has the same columns and back
# again, or by backfill() of a range of windows, and compared as before.  From then on they have the rows as they were at
# that time, which are kept in another table, for all of the view or for these windows.
#
# A difference is run again alone and made as small as it goes; what remains is printed as a script.
package FuzzRun;

use strict;
use warnings;

use FuzzData;
use FuzzQuery;
use FuzzTime;
use PostgreSQL::Test::Utils;
use StreamextTest;
use Time::HiRes qw(time);

# new(NODE, DATABASE): types and functions are made there
sub new
{
	my ($class, $node, $database, %options) = @_;
	my $self = bless { node => $node, database => $database, count => {}, reasons => {}, failures => [],
		schemas => 0, log_from => 0, %options }, $class;
	$self->prepare_database;
	return $self;
}

sub prepare_database
{
	my ($self) = @_;
	new_database($self->{node}, $self->{database});
	$self->{node}->safe_psql($self->{database}, make_setup());
	return;
}

# Runs a script to its end, whatever fails; its output.
sub script
{
	my ($self, $sql, $schema) = @_;
	my ($out, $err) = ('', '');
	my $head = "SET client_min_messages = error;\nSET statement_timeout = '120s';\n";
	$head .= "SET timezone = '$self->{time_zone}';\n" if $self->{time_zone};
	$head .= "SET search_path = $schema, public;\n" if $schema;
	$self->{node}->psql($self->{database}, $head . $sql, stdout => \$out, stderr => \$err,
		on_error_stop => 0, timeout => 600);
	$self->{stderr} = $err;
	return $out;
}

# ---- making a batch ----

sub make_batch
{
	my ($self, $seed, $queries) = @_;
	rnd_seed($seed);
	my $changes = chance(40);
	my $stream = make_stream();
	my $batch = { seed => $seed, changes => $changes, stream => $stream, views => [], steps => [] };
	my $steps = $batch->{steps};
	my $dml = sub { push @$steps, [ 'sql', make_dml($batch, @_) ]; };

	push @$steps, [ 'ddl', "$_;" ] for make_lookups(), @{ $stream->{ddl} };
	my $timed = $stream->{event};
	$batch->{time_zone} = $timed ? time_zone() : 'UTC';
	if ($timed)
	{
		push @$steps, [ 'ddl', make_event_time($stream) ];
		push @$steps, map { [ 'ddl', $_ ] } make_garbage_setup();
	}
	my $garbage = sub { push @$steps, map { [ 'try', make_garbage() ] } 1 .. $_[0] if $timed; };
	if ($changes)
	{
		my $cols = join ', ', map { $_->{name} } @{ $stream->{cols} };
		my $new = join ', ', map { "NEW.$_->{name}" } @{ $stream->{cols} };
		push @$steps, [ 'ddl', "CREATE TABLE slog AS SELECT $cols FROM s WITH NO DATA;" ];
		push @$steps, [ 'ddl', "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO slog ($cols) VALUES ($new); RETURN NULL; END' SET search_path FROM CURRENT;" =~ s/'/''/gr
			=~ s/''BEGIN/'BEGIN/r =~ s/END''/END'/r ];
		push @$steps, [ 'ddl', "CREATE FUNCTION keep_too() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN EXECUTE format(''INSERT INTO %I VALUES ((\$1).*)'', TG_ARGV[0]) USING NEW; RETURN NULL; END' SET search_path FROM CURRENT;" ];
		push @$steps, [ 'ddl', "CREATE TRIGGER keep AFTER INSERT ON s FOR EACH ROW EXECUTE FUNCTION keep();" ];
	}
	unless (chance(25))
	{
		$dml->(0) for 1 .. 1 + rnd(4);
		if (!$changes && chance(30))
		{
			my $col = { name => 'late', type => one_of('int4', 'text', 'numeric', 'dec') };
			$col->{extra} = ' DEFAULT ' . quoted($TYPES{ $col->{type} }{v}->()) if chance(60);
			push @$steps, [ 'ddl', "ALTER TABLE s ADD COLUMN late $TYPES{$col->{type}}{sql}" . ($col->{extra} // '') . ';' ];
			push @{ $stream->{cols} }, $col;
			$dml->(0);
		}
	}
	for my $i (1 .. $queries)
	{
		my $query = $timed && chance(45) ? make_time_query($stream) : make_query($stream, wild => chance(10));
		$query = make_query($stream) if $changes && $query->{sql} =~ /SELECT __S__ FROM/;
		$query->{id} = $i;
		$query->{create} = create_statement($query);
		push @{ $batch->{views} }, $query;
		push @$steps, [ 'create', $query ];
		push @$steps, [ 'sink', $query ] if $query->{sink};
		$dml->(0) if chance(5);
		$garbage->(1) if chance(10);
	}
	push @$steps, ['compare'];
	my $star = grep { $_->{sql} =~ /\*\s+FROM|SELECT __S__ FROM/ } @{ $batch->{views} };
	for my $round (1 .. 1 + rnd(3))
	{
		for (1 .. 1 + rnd(4))
		{
			$dml->($changes);
			push @$steps, ['flush'] if chance(20);
			$garbage->(3) if chance(40);
		}
		if ($timed && chance(40))
		{
			my ($view) = grep { $_->{on_close} } @{ $batch->{views} };
			push @$steps, [ 'sql', "ALTER MATERIALIZED VIEW v$view->{id} SET (streamext.emit = '" . one_of('changes', 'on_close') . "');\n" ] if $view;
		}
		push @$steps, [ 'sql', "ALTER TABLE s ADD COLUMN extra_$round int DEFAULT $round;" ] if !$star && chance(6);
		for my $view (@{ $batch->{views} })
		{
			next unless chance($self->{again} // 8);
			my $how = $view->{timed} ? one_of('REFRESH', 'replace', 'backfill', 'backfill', 'backfill') : one_of('REFRESH', 'replace');
			push @$steps, [ 'again', $view, $how, rnd(100), rnd(100) ];
			$dml->($changes) if chance(30);
		}
		push @$steps, [ 'restart', one_of('fast', 'immediate') ] if chance($self->{restarts} // 5);
		push @$steps, ['compare'];
	}
	return $batch;
}

sub create_statement
{
	my ($query) = @_;
	my $sql = $query->{sql} =~ s/__S__/s/gr;
	my $view = "v$query->{id}";
	# FROM begins with another table
	my $hint = $query->{sql} =~ /FROM \(?(look|pairs)\b/ || chance(5);
	return "SELECT streamext.create_view('$view', " . quoted($sql) . ($hint ? ", stream => 's'" : '') . ");" if chance(5) && !$query->{timed};
	my $options = 'streamext.continuous';
	$options .= ", streamext.emit = 'on_close'" if $query->{on_close};
	$options .= ", streamext.flush_interval = '" . one_of('20ms', '1s', '10s') . "'" if chance(15);
	$options .= ", streamext.stream = 's'" if $hint;
	return "CREATE MATERIALIZED VIEW $view WITH ($options) AS $sql;";
}

# one transaction, or some
sub make_dml
{
	my ($batch, $changes) = @_;
	my $t = $batch->{stream};
	my @cols = grep { !$_->{made} } @{ $t->{cols} };
	my $names = join ', ', map { $_->{name} } @cols;
	my $values = sub {
		my ($n) = @_;
		return join ",\n", map { '(' . join(', ', @$_) . ')' } make_rows($t, $n);
	};
	my $insert = sub { "INSERT INTO s ($names) VALUES " . $values->($_[0]) . ($_[1] // '') . ";\n" };
	my $copy = sub {
		return "COPY s ($names) FROM STDIN WITH (FORMAT csv, NULL '\\N');\n"
		  . join('', map { join(',', map { copy_value($_) } @$_) . "\n" } make_rows($t, $_[0])) . "\\.\n";
	};
	my $merge = sub {
		my $given = join ', ', map { "m$_" } 1 .. @cols;
		my $cast = join ', ', map { "n.m$_\::" . $TYPES{ $cols[ $_ - 1 ]{type} }{sql} } 1 .. @cols;
		return "MERGE INTO s USING (VALUES " . $values->($_[0]) . ") n ($given) ON s.id = n.m1::int8"
		  . ($changes ? ' WHEN MATCHED THEN UPDATE SET v = 1' : ' WHEN MATCHED THEN DO NOTHING')
		  . " WHEN NOT MATCHED THEN INSERT ($names) VALUES ($cast);\n";
	};
	# the same rows again under new ids
	my $again = sub {
		my ($limit) = @_;
		my $from = $t->{next_id};
		my $select = join ', ', map { $_->{name} eq 'id' ? "$from + row_number() OVER (ORDER BY id)" : $_->{name} } @cols;
		$t->{next_id} += $limit + 1;
		return "INSERT INTO s ($names) SELECT $select FROM s ORDER BY id LIMIT $limit;\n";
	};
	my $change = sub {
		my $some = one_of('id % ' . (2 + rnd(5)) . ' = 1', 'k = ' . rnd(8), 'id > ' . rnd($t->{next_id}));
		return one_of(
			sub { "DELETE FROM s WHERE $some;\n" },
			sub { "UPDATE s SET v = 3, x = NULL WHERE $some;\n" },
			sub { "UPDATE s SET k = (k + 1) % 8 WHERE $some;\n" },
			sub { "UPDATE s SET at = at + interval '40 days' WHERE $some;\n" })->();
	};
	my $any = sub {
		my $n = 1 + rnd(12);
		return $change->() if $changes && chance(30);
		return one_of(
			sub { $insert->($n) },
			sub { $insert->($n) },
			sub { join '', map { $insert->(1) } 1 .. 3 },
			sub { $copy->($n * 3) },
			sub { $merge->($n) },
			sub { $again->(10 + rnd(60)) },
			sub { $insert->($n, $changes && $t->{kind} eq 'plain' ? '' : ' ON CONFLICT DO NOTHING') })->();
	};
	my $gid = "fz_$batch->{seed}_" . $t->{next_id};
	return one_of(
		sub { $any->() },
		sub { $any->() },
		sub { "BEGIN;\n" . $any->() . $any->() . "COMMIT;\n" },
		sub { "BEGIN;\n" . $any->() . "ROLLBACK;\n" . $any->() },
		sub { "BEGIN;\n" . $any->() . "SAVEPOINT a;\n" . $any->() . one_of('ROLLBACK TO a', 'RELEASE a') . ";\n" . $any->() . "COMMIT;\n" },
		sub { "BEGIN;\nSAVEPOINT a;\n" . $any->() . "SAVEPOINT b;\n" . $any->() . "ROLLBACK TO b;\n" . $any->() . "RELEASE a;\n" . $any->()
			  . one_of('COMMIT', 'COMMIT', 'ROLLBACK') . ";\n" },
		sub { "BEGIN;\n" . $any->() . "PREPARE TRANSACTION '$gid';\n" . $insert->(2) . one_of('COMMIT', 'COMMIT', 'ROLLBACK') . " PREPARED '$gid';\n" },
		sub { "BEGIN;\n" . $insert->(3) . "INSERT INTO s (id, at) VALUES (NULL, NULL);\nCOMMIT;\n" . $insert->(1) },
		sub { "BEGIN ISOLATION LEVEL " . one_of('REPEATABLE READ', 'SERIALIZABLE') . ";\n" . $any->() . "COMMIT;\n" })->();
}

# ---- running a batch ----

# run_batch(BATCH): the views that differ, as [view, what]
sub run_batch
{
	my ($self, $batch, %options) = @_;
	my $schema = 'fz' . ++$self->{schemas};
	my (%state, @differ, $pending);
	my $count = $options{quiet} ? {} : $self->{count};
	my $flush = sub {
		my $out = $self->script($pending, $schema);
		my $errors = $self->{stderr};
		$pending = '';
		for my $line (split /\n/, $out)
		{
			if ($line =~ /^\@create (\d+) (\S+) ?(.*)/)
			{
				$state{$1} = $2 eq '00000' ? 'live' : "$2 $3";
			}
			elsif ($line =~ /^\@sink (\d+) (\S+) ?(.*)/)
			{
				$state{"sink$1"} = 1 if $2 eq '00000';
				push @differ, [ undef, "no sink for v$1: $2 $3\n  " . $batch->{views}[ $1 - 1 ]{create} ] if $2 ne '00000' && $state{$1} eq 'live';
			}
			elsif ($line =~ /^\@try (\S+) ?(.*)/)
			{
				$count->{garbage}++;
				$count->{garbage_refused}++ if $1 ne '00000';
				push @differ, [ undef, "not a clean error: $1 $2" ] if $1 =~ /^(XX|\?)/;
			}
			elsif ($line =~ /^\@ddl (\S+) (.*)/ && $1 ne '00000')
			{
				push @differ, [ undef, "a statement of the set-up failed: $1 $2" ];
			}
		}
		if ($errors =~ /server closed the connection|connection to server|timeout expired/)
		{
			push @differ, [ undef, "the server ended a connection: $errors" ];
		}
	};

	$self->{time_zone} = $batch->{time_zone};
	delete $_->{rows} for @{ $batch->{views} };
	$pending = "CREATE SCHEMA $schema;\n";
	for my $step (@{ $batch->{steps} })
	{
		my ($kind, $what) = @$step;
		if ($kind eq 'sql')
		{
			$pending .= $what;
		}
		elsif ($kind eq 'ddl')
		{
			$pending .= "$what\n\\echo \@ddl :SQLSTATE :LAST_ERROR_MESSAGE\n";
		}
		elsif ($kind eq 'create')
		{
			$pending .= "$what->{create}\n\\echo \@create $what->{id} :SQLSTATE :LAST_ERROR_MESSAGE\n";
		}
		elsif ($kind eq 'try')
		{
			# any error will do, but an internal one
			$pending .= "SET statement_timeout = '10s';\n$what\n\\echo \@try :SQLSTATE :LAST_ERROR_MESSAGE\nSET statement_timeout = '120s';\n";
		}
		elsif ($kind eq 'sink')
		{
			$pending .= "CREATE TABLE sink$what->{id} (at_ bigserial, LIKE v$what->{id});\n"
			  . "SELECT streamext.create_sink('v$what->{id}', 'sink$what->{id}', corrections => true, existing => true);\n\\echo \@sink $what->{id} :SQLSTATE :LAST_ERROR_MESSAGE\n";
		}
		elsif ($kind eq 'flush')
		{
			$pending .= "SELECT streamext.flush();\n";
		}
		elsif ($kind eq 'again')
		{
			$flush->();
			push @differ, $self->compute_again($batch, $schema, \%state, $count, @$step[ 1 .. 4 ]);
		}
		elsif ($kind eq 'restart')
		{
			$flush->();
			$self->{node}->stop($what);
			$self->{node}->start;
			$count->{restarts}++;
		}
		elsif ($kind eq 'compare')
		{
			$flush->();
			$self->judge_refusals($batch, $schema, \%state, $count) unless $options{quiet};
			push @differ, $self->compare($batch, $schema, \%state, $count, $options{quiet});
			last if @differ;
		}
	}
	$flush->() if $pending ne '';
	$self->script("DROP SCHEMA $schema CASCADE;\n") unless $self->{keep};
	return @differ;
}

# A view is computed again, by what is called HOW; PERCENT and LENGTH choose the windows.
sub compute_again
{
	my ($self, $batch, $schema, $state, $count, $view, $how, $percent, $length) = @_;
	my $v = "v$view->{id}";
	return () unless ($state->{ $view->{id} } // '') eq 'live';
	my $range;
	my $sql = "SET streamext.wait_timeout = '60s';\n";
	if ($how eq 'REFRESH')
	{
		$sql .= "REFRESH MATERIALIZED VIEW $v;\n\\echo \@again :SQLSTATE :LAST_ERROR_MESSAGE\n";
	}
	elsif ($how eq 'replace')
	{
		# null in each column, of its type, and then what it was
		$sql .= "SELECT format('SELECT streamext.replace_view(%L, %L)', '$v', 'SELECT ' || string_agg(format('NULL::%s%s AS %I', format_type(a.atttypid, a.atttypmod),"
		  . " CASE WHEN a.attcollation <> t.typcollation THEN format(' COLLATE %I.%I', n.nspname, c.collname) END, a.attname), ', ' ORDER BY attnum) || ' FROM s') AS stub"
		  . " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation c ON c.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace"
		  . " WHERE attrelid = '$v'::regclass AND attnum > 0 \\gset\n:stub;\n\\echo \@stub :SQLSTATE :LAST_ERROR_MESSAGE\n"
		  . "SELECT '\@rest ' || streamext.wait_for('$v', '60s');\nSELECT '\@rest ' || (count(*) = 0 OR count(*) = (SELECT count(*) FROM s)) FROM $v v;\n"
		  . "SELECT streamext.replace_view('$v', " . quoted($view->{sql} =~ s/__S__/s/gr) . ");\n\\echo \@again :SQLSTATE :LAST_ERROR_MESSAGE\n"
		  . "SELECT '\@rest ' || streamext.wait_for('$v', '60s');\n";
	}
	else
	{
		# of windows that there are
		my $out = $self->script("SELECT streamext.wait_for();\nWITH w AS (SELECT w, row_number() OVER (ORDER BY w) AS i, count(*) OVER () AS n FROM (SELECT DISTINCT w FROM $v WHERE w IS NOT NULL) d)\n"
			  . "SELECT '\@range ' || (SELECT w FROM w WHERE i = 1 + $percent * n / 100) || '|' || (SELECT w FROM w WHERE i = least(n, 1 + ($percent + $length) * n / 100));\n", $schema);
		return () unless $out =~ /^\@range (.*)\|(.*)$/m;
		$range = [ $1, $2 ];
		return () if $1 eq $2;
		$sql .= "CALL streamext.backfill('$v', '$1', '$2');\n\\echo \@again :SQLSTATE :LAST_ERROR_MESSAGE\n";
	}
	my $out = $self->script($sql, $schema);
	my $errors = $self->{stderr};
	my ($code, $message) = $out =~ /^\@again (\S+) ?(.*)/m;
	return [ $view->{id}, "computing again, by $how, did not end: $out $errors" ] unless defined $code;
	my ($stub) = $out =~ /^\@stub (\S+)/m;
	# a view of final rows, or with sinks, keeps its windows; and some types have no name
	my $refused = $how eq 'replace' && $stub !~ /^(00000|XX|57)/;
	if ($refused || ($range && $code =~ /^(0A000|42809)/))
	{
		$count->{not_again}++;
		$self->{reasons}{"not again: $1"}++ if !$range && $out =~ /^\@stub (.*)/m;
		return ();
	}
	if ($code ne '00000' || $out =~ /^\@rest (false|\s*$)/m)
	{
		if ($code !~ /^(XX|57)/ && $self->query_raises($batch, $view, $schema))
		{
			$state->{ $view->{id} } = 'raises';
			$count->{raises}++;
			return ();
		}
		return [ $view->{id}, "computing again, by $how, failed: $code $message $out $errors" ];
	}
	$count->{again}{$how}++;
	if ($batch->{changes})
	{
		my $log = "slog$view->{id}_" . ++$self->{logs};
		$self->script("CREATE TABLE $log AS TABLE slog WITH NO DATA;\nINSERT INTO $log SELECT " . join(', ', map { $_->{name} } @{ $batch->{stream}{cols} })
			  . " FROM s;\nCREATE TRIGGER $log AFTER INSERT ON slog FOR EACH ROW EXECUTE FUNCTION keep_too('$log');\n", $schema);
		push @{ $view->{rows} }, [ $log, $range ];
		# what has been passed on is not corrected
		delete $state->{"sink$view->{id}"};
	}
	return ();
}

# Which views were not made, and is the query itself to blame?
sub judge_refusals
{
	my ($self, $batch, $schema, $state, $count) = @_;
	return if $batch->{judged}++;
	my @failed = grep { ($state->{ $_->{id} } // 'none') ne 'live' } @{ $batch->{views} };
	my $check = join '', map { "EXPLAIN " . ($_->{sql} =~ s/__S__/s/gr) . ";\n\\echo \@valid $_->{id} :SQLSTATE\n" } @failed;
	my %valid = map { /^\@valid (\d+) (\S+)/ ? ($1 => $2) : () } split /\n/, $self->script($check, $schema);

	$count->{queries} += @{ $batch->{views} };
	$count->{accepted} += @{ $batch->{views} } - @failed;
	for my $view (@failed)
	{
		my $why = $state->{ $view->{id} } // 'none';
		my $sort = ($valid{ $view->{id} } // '') ne '00000' ? 'invalid' : $view->{refuse} ? 'refused' : 'not_accepted';
		$count->{$sort}++;
		$self->{reasons}{"$sort: " . $why =~ s/"[^"]*"/""/gr =~ s/\d+ at character.*//r}++ if $sort ne 'refused';
		if ($why =~ /^(XX|none|\?)/ || $why !~ /^[0-9A-Z]{5} /)
		{
			push @{ $self->{failures} }, "seed $batch->{seed}: not a clean error: $why\n  $view->{create}";
		}
		elsif ($sort eq 'not_accepted' && $self->{verbose})
		{
			push @{ $self->{examples}{$why} }, $view->{create} if @{ $self->{examples}{$why} // [] } < 1;
		}
	}
	$count->{spoiled_but_accepted} += grep { $_->{refuse} && $state->{ $_->{id} } eq 'live' } @{ $batch->{views} };
	return;
}

sub oracle_query
{
	my ($batch, $view) = @_;
	my $on = sub { ($view->{oracle} // $view->{sql}) =~ s/__S__/$_[0]/gr };
	my $query = $on->($batch->{changes} ? 'slog' : 's');
	for my $since (@{ $view->{rows} // [] })
	{
		my ($log, $range) = @$since;
		my $new = $on->($log);
		my $in = $range ? "w >= '$range->[0]' AND w < '$range->[1]'" : '';
		$query = $range ? "SELECT * FROM ($query) f WHERE ($in) IS NOT TRUE UNION ALL SELECT * FROM ($new) f WHERE $in" : $new;
	}
	# (a statement that changes the option may fail)
	$query = "SELECT * FROM ($query) f WHERE streamext.is_final('v$view->{id}', w) OR (SELECT emit = 'changes' FROM streamext.view_def WHERE view = 'v$view->{id}'::regclass)"
	  if $view->{on_close};
	return $query;
}

# An error that is no row's fault (say, two collations that meet) stops a view; if the query raises
# it too, there is nothing to compare.
sub drop_views_that_raise
{
	my ($self, $batch, $schema, $state, $count) = @_;
	my %failed;

	my $ready = wait_until('the views of a batch', 60, sub {
		my $out = $self->script("SELECT '\@ready ' || streamext.wait_for(NULL, '2s');\n"
			. "SELECT '\@failed ' || substr(c.relname, 2) FROM streamext.status s JOIN pg_class c ON c.oid = s.view WHERE last_error IS NOT NULL AND reason IS NOT NULL AND c.relnamespace = '$schema'::regnamespace;\n", $schema);
		%failed = map { $_ => 1 } $out =~ /^\@failed (\d+)$/mg;
		return %failed || $out =~ /^\@ready true/m;
	});
	for my $id (keys %failed)
	{
		my ($view) = grep { $_->{id} == $id } @{ $batch->{views} };
		next unless $self->query_raises($batch, $view, $schema);
		$self->script("DROP MATERIALIZED VIEW v$id;\n", $schema);
		$state->{$id} = 'raises';
		$count->{raises}++;
		$self->{reasons}{'raises an error that stops the view'}++;
	}
	return;
}

# Does the query by itself raise an error on these rows?
sub query_raises
{
	my ($self, $batch, $view, $schema) = @_;
	my $query = oracle_query($batch, $view);

	# count(*) does not compute everything
	for my $columns ('count(*)', 'min(q::text)')
	{
		return 1 if $self->script("SELECT $columns FROM ($query) q;\n\\echo \@s :SQLSTATE\n", $schema) !~ /^\@s 00000/m;
	}
	return 0;
}

sub compare
{
	my ($self, $batch, $schema, $state, $count, $quiet) = @_;
	$self->drop_views_that_raise($batch, $schema, $state, $count);
	my @views = grep { ($state->{ $_->{id} } // '') eq 'live' } @{ $batch->{views} };
	my $sql = "SELECT '\@wait ' || streamext.wait_for(NULL, '60s');\n";
	my (@differ, %seen);

	for my $view (@views)
	{
		my $query = oracle_query($batch, $view);
		$sql .= "SELECT '\@d $view->{id} ' || (SELECT count(*) FROM (TABLE v$view->{id} EXCEPT ALL ($query)) a) || ' '"
		  . " || (SELECT count(*) FROM (($query) EXCEPT ALL TABLE v$view->{id}) b);\n\\echo \@s $view->{id} :SQLSTATE :LAST_ERROR_MESSAGE\n";
		# through a filter, a sort and a limit, which the read node may push down
		$sql .= $self->compare_sink($view) if $state->{"sink$view->{id}"};
		$sql .= "SELECT '\@v $view->{id} ' || count(*) FROM streamext.verify('v$view->{id}');\n" if $view->{timed} && !$batch->{changes} && $view->{id} % 3 == 0;
		my ($output) = @{ $view->{outputs} // [] };
		$view->{read} //= chance(30);
		if ($output && $view->{read})
		{
			my ($name, $class) = @$output;
			my $test = $view->{read_test} //= $class eq 'i' ? one_of("$name > 0", "$name = 1", "$name BETWEEN 0 AND 5")
			  : $class eq 't' ? one_of("$name = 'a'", "$name >= 'b'") : one_of("$name IS NOT NULL", "$name IS NULL");
			$sql .= "SELECT '\@r $view->{id} ' || (SELECT count(*) FROM (SELECT * FROM v$view->{id} WHERE $test EXCEPT ALL SELECT * FROM ($query) q WHERE $test) a) || ' '"
			  . " || (SELECT count(*) FROM (SELECT * FROM ($query) q WHERE $test EXCEPT ALL SELECT * FROM v$view->{id} WHERE $test) b);\n";
		}
	}
	my $out = $self->script($sql, $schema);
	my $waited = $out =~ /^\@wait true$/m;
	my @again;
	for my $line (split /\n/, $out)
	{
		if ($line =~ /^\@d (\d+) (\d+) (\d+)/)
		{
			$seen{$1} = [ $2, $3 ];
		}
		elsif ($line =~ /^\@r (\d+) (\d+) (\d+)/ && $2 + $3 > 0 && $seen{$1} && $seen{$1}[0] + $seen{$1}[1] == 0)
		{
			push @differ, [ $1, "$2 and $3 rows differ through a filter" ];
		}
		elsif ($line =~ /^\@v (\d+) (\d+)/ && $2 > 0)
		{
			push @differ, [ $1, "$2 rows differ, says verify()" ];
		}
		elsif ($line =~ /^\@k (\d+) (\d+) (\d+)/ && $2 + $3 > 0)
		{
			push @differ, [ $1, "$2 final rows are not in the sink, $3 rows of the sink not in the view" ];
		}
		elsif ($line =~ /^\@s (\d+) (\S+) (.*)/ && $2 ne '00000')
		{
			# the query itself raises an error on these rows: nothing to compare with
			my ($id, $code, $message) = ($1, $2, $3);
			my ($view) = grep { $_->{id} == $id } @views;
			if ($code !~ /^XX/ && $self->query_raises($batch, $view, $schema))
			{
				$count->{raises}++;
				$state->{$id} = 'raises';
				$self->{reasons}{"raises: $code $message"}++;
				next;
			}
			push @differ, [ $id, "comparing failed: $code $message" ];
		}
	}
	my %told = map { $_->[0] => 1 } grep { defined $_->[0] } @differ;
	for my $view (@views)
	{
		next if ($state->{ $view->{id} } // '') ne 'live';
		unless ($seen{ $view->{id} })
		{
			# psql took it for a part of something else
			push @differ, [ $view->{id}, 'was not compared' ] unless $told{ $view->{id} };
			next;
		}
		$count->{compared}++;
		my ($more, $less) = @{ $seen{ $view->{id} } };
		next if $more + $less == 0;
		my $near = $self->compare_floats($batch, $view, $schema);
		if (defined $near && $near eq '0')
		{
			$count->{within_tolerance}++;
			next;
		}
		push @differ, [ $view->{id}, "$more rows in the view only, $less in the query only" . (defined $near ? ", $near with tolerance" : '') ];
	}
	if (!$waited)
	{
		my $status = $self->script("SELECT view, state, reason, last_error FROM streamext.status WHERE reason IS NOT NULL OR lag_rows > 0;\n", $schema);
		push @differ, [ undef, "wait_for() timed out: $out\n$status\n$self->{stderr}" ];
	}
	elsif (@differ && !$quiet)
	{
		my ($first) = grep { defined } map { $_->[0] } @differ;
		$self->{at_difference} = $first
		  ? $self->script("SELECT * FROM streamext.status WHERE view = 'v$first'::regclass; SELECT * FROM streamext.dead_letters LIMIT 5; SELECT 'in the view only', d.* FROM (TABLE v$first EXCEPT ALL "
			  . oracle_query($batch, $batch->{views}[ $first - 1 ]) . ") d LIMIT 3; SELECT 'in the query only', d.* FROM (("
			  . oracle_query($batch, $batch->{views}[ $first - 1 ]) . ") EXCEPT ALL TABLE v$first) d LIMIT 3;\n", $schema)
		  : '';
	}
	return @differ;
}

# The last rows that the sink has of each window, and the view's
sub compare_sink
{
	my ($self, $view) = @_;
	my $v = "v$view->{id}";
	my @keys = ($view->{sql} =~ / AS (g\d+),/g, 'w');
	my @columns = (@keys, $view->{sql} =~ / AS (a\d+)/g);
	my ($keys, $columns) = map { join ', ', @$_ } \@keys, \@columns;
	my $last = "SELECT $columns FROM (SELECT DISTINCT ON ($keys) * FROM sink$view->{id} ORDER BY $keys, at_ DESC) x WHERE streamext.is_final('$v', w)";
	my $final = "SELECT $columns FROM $v WHERE streamext.is_final('$v', w)";
	return "SELECT streamext.flush('$v');\nSELECT '\@k $view->{id} ' || (SELECT count(*) FROM ($final EXCEPT ALL $last) a) || ' ' || (SELECT count(*) FROM ($last EXCEPT ALL $final) b);\n";
}

# Pairs rows by the columns that are not floats; the number of rows without a near partner,
# or undef if there are no floats.
sub compare_floats
{
	my ($self, $batch, $view, $schema) = @_;
	my @columns = map { [ split /\|/ ] } split /\n/, $self->script(<<"SQL", $schema);
SELECT quote_ident(attname), atttypid IN ('float4'::regtype, 'float8'::regtype) FROM pg_attribute
WHERE attrelid = 'v$view->{id}'::regclass AND attnum > 0 ORDER BY attnum;
SQL
	my @floats = grep { $columns[$_][1] eq 't' } 0 .. $#columns;
	return undef unless @floats;
	my $names = join ', ', map { "q$_" } 0 .. $#columns;
	my $rest = join(', ', map { "q$_" } grep { $columns[$_][1] eq 'f' } 0 .. $#columns) || '1';
	my $order = join ', ', map { "q$_" } @floats;
	my $far = join ' OR ', map { "NOT fz_close(a.q$_, b.q$_)" } @floats;
	my $query = oracle_query($batch, $view);
	my $out = $self->script(<<"SQL", $schema);
WITH both_ AS (
	SELECT 'v' AS side_, x.* FROM (TABLE v$view->{id}) x ($names) UNION ALL SELECT 'q', x.* FROM ($query) x ($names)),
ranked AS (SELECT *, dense_rank() OVER (ORDER BY $rest) AS r_ FROM both_),
numbered AS (SELECT *, row_number() OVER (PARTITION BY side_, r_ ORDER BY $order) AS n_ FROM ranked)
SELECT '\@f ' || count(*) FROM (SELECT * FROM numbered WHERE side_ = 'v') a FULL JOIN (SELECT * FROM numbered WHERE side_ = 'q') b
	ON a.r_ = b.r_ AND a.n_ = b.n_ WHERE a.n_ IS NULL OR b.n_ IS NULL OR $far;
SQL
	return $out =~ /^\@f (\d+)/m ? $1 : "comparing failed: $self->{stderr}";
}

# ---- making a difference small ----

sub shrink
{
	my ($self, $batch, $id) = @_;
	my ($view) = grep { $_->{id} == $id } @{ $batch->{views} };
	my $small = { %$batch, views => [$view], judged => 1,
		steps => [ grep { $_->[0] !~ /^(create|sink|again)$/ || $_->[1]{id} == $id } @{ $batch->{steps} } ] };
	my $differs = sub {
		my ($steps) = @_;
		my @result = $self->run_batch({ %$small, steps => $steps }, quiet => 1);
		return grep { defined $_->[0] && $_->[0] == $id } @result;
	};

	unless ($differs->($small->{steps}))
	{
		return ($batch, 'it does not differ again when the view stands alone');
	}
	my $tries = 0;
	for my $i (reverse 0 .. $#{ $small->{steps} })
	{
		last if ++$tries > 80;
		my $step = $small->{steps}[$i];
		next if $step->[0] eq 'create' || $i == $#{ $small->{steps} };
		my @without = @{ $small->{steps} };
		splice @without, $i, 1;
		$small->{steps} = \@without if $differs->(\@without);
	}
	return ($small, 'made small');
}

# A batch as a script for psql
sub as_script
{
	my ($batch, $only) = @_;
	my $text = "CREATE SCHEMA fz;\nSET search_path = fz, public;\n";
	for my $step (@{ $batch->{steps} })
	{
		my ($kind, $what) = @$step;
		$text .= $kind eq 'create' ? "$what->{create}\n"
		  : $kind eq 'sink' ? "CREATE TABLE sink$what->{id} (at_ bigserial, LIKE v$what->{id});\nSELECT streamext.create_sink('v$what->{id}', 'sink$what->{id}', corrections => true, existing => true);\n"
		  : $kind eq 'try' ? "$what\n" : $kind eq 'sql' || $kind eq 'ddl' ? "$what\n" =~ s/\n\n$/\n/r
		  : $kind eq 'again' ? "-- v$what->{id} is computed again: $step->[2] $step->[3] $step->[4]\n"
		  : $kind eq 'flush' ? "SELECT streamext.flush();\n"
		  : $kind eq 'restart' ? "-- restart the server ($what)\n"
		  : "SELECT streamext.wait_for();\n" . join '', map {
			my $query = oracle_query($batch, $_);
			"SELECT 'view only', * FROM (TABLE v$_->{id} EXCEPT ALL ($query)) a;\nSELECT 'query only', * FROM (($query) EXCEPT ALL TABLE v$_->{id}) b;\n"
		  } grep { !defined $only || $_->{id} == $only } @{ $batch->{views} };
	}
	return $text;
}

# ---- many batches ----

# run(QUERIES, SEED): runs batches until there were that many queries
sub run
{
	my ($self, $queries, $seed) = @_;
	my $each = 40;
	my $batches = int(($queries + $each - 1) / $each);
	my $started = time;

	for my $i (1 .. $batches)
	{
		my $number = $self->{batch} || $seed * 100000 + $i;
		my $n = $i == $batches ? $queries - $each * ($batches - 1) : $each;
		# of a batch that is run again nothing may differ, its size neither
		my $batch = $self->make_batch($number, $each);
		if ($n < $each)
		{
			$batch->{views} = [ @{ $batch->{views} }[ 0 .. $n - 1 ] ];
			$batch->{steps} = [ grep { $_->[0] !~ /^(create|sink|again)$/ || $_->[1]{id} <= $n } @{ $batch->{steps} } ];
		}
		my @differ = $self->run_batch($batch);
		$self->report($batch, @differ) if @differ;
		$self->{progress}->($i, $batches, time - $started) if $self->{progress};
		last if $self->{batch} || @{ $self->{failures} } >= ($self->{max_failures} // 5);
	}
	$self->{count}{seconds} = time - $started;
	return;
}

sub report
{
	my ($self, $batch, @differ) = @_;
	my %done;
	for my $d (@differ)
	{
		my ($id, $what) = @$d;
		next if defined $id && $done{$id}++;
		$self->{count}{differences}++;
		my $text = "seed $batch->{seed}" . (defined $id ? ", view v$id" : '') . ": $what\n" . ($self->{at_difference} // '');
		if (defined $id && keys(%done) <= 2)
		{
			my ($small, $how) = $self->shrink($batch, $id);
			$text .= "\n-- $how:\n" . as_script($small, $id);
		}
		push @{ $self->{failures} }, $text;
	}
	return;
}

sub summary
{
	my ($self) = @_;
	my $c = $self->{count};
	my $valid = ($c->{queries} // 0) - ($c->{invalid} // 0) - ($c->{refused} // 0);
	return sprintf('%d queries: %d accepted (%.1f %% of the valid ones without a clause to be refused), %d refused, %d not accepted, %d invalid, %d raise errors; '
		. '%d computed again (%s), %d refused; %d senseless calls, %d refused; %d comparisons, %d within tolerance only, %d differences, %d restarts, %.0f s, %.0f ms per query',
		$c->{queries} // 0, $c->{accepted} // 0, $valid ? 100 * (($c->{accepted} // 0) - ($c->{spoiled_but_accepted} // 0)) / ($valid - ($c->{spoiled_but_accepted} // 0) || 1) : 0,
		$c->{refused} // 0, $c->{not_accepted} // 0, $c->{invalid} // 0, $c->{raises} // 0,
		eval { my $n = 0; $n += $_ for values %{ $c->{again} // {} }; $n }, join(', ', map { "$_ $c->{again}{$_}" } sort keys %{ $c->{again} // {} }), $c->{not_again} // 0, $c->{garbage} // 0, $c->{garbage_refused} // 0, $c->{compared} // 0, $c->{within_tolerance} // 0,
		$c->{differences} // 0, $c->{restarts} // 0, $c->{seconds} // 0, $c->{queries} ? 1000 * $c->{seconds} / $c->{queries} : 0);
}

# Lines of the server's log that must not be there
sub bad_log_lines
{
	my ($self) = @_;
	return grep { / XX\d{3} |PANIC|TRAP:|terminated by signal|could not find|cache lookup failed|unrecognized node/ && !/statement:|STATEMENT:/ }
	  split /\n/, slurp_file($self->{node}->logfile);
}

1;
