# Schema.pm
#		The streams and views of the chaos test, and the oracle that stays exact.
#
# Writers also delete and update, and partitions are truncated and dropped, which changes
# nothing in a view.  So the raw rows are no oracle.  Whoever inserts into a stream inserts
# the same rows, in the same transaction, into chaos.shadow, from which nothing is deleted;
# a view's query runs on that.
#
# A view that is created while others write does not count everything:
#  - WITH NO DATA: rows of transactions that its CREATE does not see.  chaos.view keeps
#    that snapshot (CREATE runs in REPEATABLE READ, so it is known), chaos.shadow the xid.
#  - WITH DATA: rows as they were when it began: not those deleted before, and with the
#    values that updates had given them.  Nothing is deleted or updated between the CREATE
#    and the begin: such transactions hold advisory lock 1 shared and the creator holds it
#    exclusively.  Each creation raises chaos.now.g, and a deletion notes g + 1: a row is
#    missing from the views whose g is not below that number.
# A view that is rebuilt (Batch.pm) begins like one created WITH DATA, and rows of windows that are
# computed again count as they were then.
#
# Rows inserted directly into a detached partition are in "limbo": they count for its
# parents when it is attached, and for a view on the partition itself at once.
package Chaos::Schema;

use strict;
use warnings;

use Exporter 'import';

use Chaos::EventTime qw(time_views time_setup_sql alerts_sql);

our @EXPORT_OK = qw(setup_sql views dynamic_views oracle_sql has_letters record_sql columns create_sql variants replacement_query);

# All streams have these, in this order (partitions in others)
my $columns = 'id, part, k, v, t, m, ts, note';

sub columns { return $columns }

my $table_columns = <<'SQL';
id bigint NOT NULL, part int NOT NULL, k int, v int, t text, m numeric(10,2),
	ts timestamptz NOT NULL, note text, hits int DEFAULT 0
SQL

# name => [stream, query with %s for the stream, options of Chaos/EventTime.pm]
my %views = (
	%{ time_views() },
	few => [ 'ev', 'SELECT k % 5 AS k5, count(*) AS n, count(v) AS nv, sum(v) AS total, min(v) AS low, max(v) AS high FROM %s GROUP BY k % 5' ],
	many => [ 'ev', 'SELECT id % 1009 AS bucket, count(*) AS n, sum(v) AS total, max(note) AS last_note FROM %s GROUP BY id % 1009' ],
	total => [ 'ev', 'SELECT count(*) AS n, sum(v) AS total, avg(m) AS mean, min(t) AS low, max(t) AS high FROM %s' ],
	every => [ 'ev', 'SELECT id, k, v, t, note FROM %s' ],
	big => [ 'ev', 'SELECT id, v * 2 AS twice, upper(t) AS t, length(note) AS len FROM %s WHERE v > 900' ],
	joined => [ 'ev', 'SELECT n.name, count(*) AS n, sum(e.v) AS total FROM %s e JOIN names n ON n.k = e.k GROUP BY n.name' ],
	left_joined => [ 'ev', 'SELECT e.id, e.k, n.name FROM %s e LEFT JOIN names n ON n.k = e.k WHERE e.v < 100' ],
	having_some => [ 'ev', 'SELECT k, sum(v) AS total, count(*) AS n FROM %s GROUP BY k HAVING count(*) % 2 = 0 AND sum(v) > 10' ],
	texts => [ 'ev', 'SELECT t, m, count(*) AS n, min(note) AS low, max(note) AS high, bool_and(v > 500) AS all_big FROM %s GROUP BY t, m' ],
	numbers => [ 'ev', 'SELECT k % 7 AS k7, avg(m) AS mean, sum(m) AS total, stddev(v) AS dev, var_pop(m) AS var, avg(v) AS mean_v, sum(v::bigint) AS sum_v FROM %s GROUP BY k % 7' ],
	windows => [ 'ev', q{SELECT streamext.tumble(ts, '5 minutes') AS w, t, count(*) AS n, sum(v) FILTER (WHERE k > 30) AS total FROM %s GROUP BY streamext.tumble(ts, '5 minutes'), t} ],
	by_part => [ 'pe', 'SELECT part, k, count(*) AS n, sum(v) AS total FROM %s GROUP BY part, k' ],
	part_rows => [ 'pe', 'SELECT id, part, k, v, t FROM %s' ],
	part_2 => [ 'pe2', 'SELECT k % 10 AS k10, count(*) AS n, sum(v) AS total, max(t) AS t FROM %s GROUP BY k % 10' ],
	part_3 => [ 'pe3', 'SELECT part, k, count(*) AS n, sum(m) AS total FROM %s GROUP BY part, k' ],
	upserted => [ 'up', 'SELECT id % 13 AS r, count(*) AS n, sum(v) AS total FROM %s GROUP BY id % 13' ],
	upserted_rows => [ 'up', 'SELECT id, v, t FROM %s' ],
	balance => [ 'bal', 'SELECT k, count(*) AS n, sum(v) AS total FROM %s GROUP BY k' ],
	balance_all => [ 'bal', 'SELECT count(*) AS n, sum(v) AS total FROM %s' ],
	balance_rows => [ 'bal', 'SELECT id, k, v FROM %s' ],
	# rows with v >= 900 and 13 fail the stream's condition, and are dead letters
	vs_5 => [ 'vs', q{SELECT streamext.tumble(ts, '5 minutes') AS w, k % 3 AS g, count(*) AS n, sum(v) AS total FROM %s GROUP BY 1, 2}, { how => 'valid' } ],
	vs_rows => [ 'vs', 'SELECT id, k, v FROM %s', { how => 'valid' } ],
);

# shapes of views that come and go
my %dynamic = (
	dyn_a => [ 'ev', 'SELECT k, count(*) AS n, sum(v) AS total FROM %s GROUP BY k' ],
	dyn_b => [ 'ev', 'SELECT id, v, t FROM %s WHERE k < 20' ],
	dyn_c => [ 'pe', 'SELECT part, count(*) AS n, sum(v) AS total FROM %s GROUP BY part' ],
	dyn_d => [ 'pe', 'SELECT id, part, v FROM %s' ],
	dyn_e => [ 'up', 'SELECT count(*) AS n, sum(v) AS total FROM %s' ],
	dyn_f => [ 'pe3', 'SELECT id, part, v FROM %s' ],
	dyn_g => [ 'td', @{ time_views()->{td_5} }[ 1, 2 ] ],
	dyn_h => [ 'ev', @{ time_views()->{ev_closed} }[ 1, 2 ] ],
	dyn_i => [ 'tl', @{ time_views()->{tl_session} }[ 1, 2 ] ],
	dyn_j => [ 'vs', @{ $views{vs_5} }[ 1, 2 ] ],
);

# other queries that a view may get
my %others = (
	dyn_a => [ 'SELECT k, 1::bigint AS n, v::bigint AS total FROM %s' ],
	dyn_b => [ 'SELECT id, max(v) AS v, max(t) AS t FROM %s GROUP BY id' ],
	few => [ 'SELECT (k + 2) % 5 AS k5, count(*) AS n, count(v) AS nv, sum(v) AS total, min(v) AS low, max(v) AS high FROM %s GROUP BY (k + 2) % 5' ],
	ev_hop => [ "SELECT streamext.tumble(ts, '15 minutes') AS w, k % 3 AS g, count(*) AS n, sum(v) AS total FROM %s GROUP BY 1, 2" ],
	windows => [ q{SELECT streamext.hop(ts, '5 minutes', '20 minutes') AS w, t, count(*) AS n, sum(v) FILTER (WHERE k > 30) AS total FROM %s GROUP BY 1, t} ],
	balance => [ 'SELECT k + 0 AS k, count(*) AS n, sum(v) AS total FROM %s GROUP BY k + 0' ],
	balance_all => [ 'SELECT count(id) AS n, sum(v) + 0 AS total FROM %s' ],
	balance_rows => [ 'SELECT id, k, v + 0 AS v FROM %s' ],
);
# conditions that a query may get besides
my @conditions = ('id % 3 <> 0', 'v < 700');
# and views that may get another stream: all have the same columns
my %movable = map { $_ => 1 } qw(few many total every big texts numbers ev_hop ev_recent dyn_a dyn_b dyn_e);
my @streams = qw(ev td pe up);
# with windows, those that have an event time and merge late rows
my @merging = qw(ev pe);

sub views { return \%views }
sub dynamic_views { return \%dynamic }

sub query_on
{
	my ($query, $stream) = @_;
	# % is an operator as well: only %s is ours
	$query =~ s/%s/$stream/;
	return $query;
}

# the number of its queries: its own, other ones, and its own with a condition
sub variants
{
	my ($name) = @_;
	my ($stream) = @{ $views{$name} // $dynamic{$name} };
	# rows of a sink have no such columns; amounts of "bal" no longer sum to zero
	my $conditions = $stream =~ /^(s_|bal$)/ ? 0 : @conditions;
	return 1 + @{ $others{$name} // [] } + $conditions;
}

# (query, what the oracle reads) of a variant
sub variant
{
	my ($name, $number) = @_;
	my (undef, $query, $options) = @{ $views{$name} // $dynamic{$name} };
	my $oracle = $options->{oracle} // $query;
	my @others = @{ $others{$name} // [] };
	return ($query, $oracle) if $number == 0;
	return ($others[ $number - 1 ], $others[ $number - 1 ]) if $number <= @others;
	my $condition = $conditions[ $number - 1 - @others ];
	s/(FROM %s(?: e(?: LEFT)? JOIN names n ON n\.k = e\.k)?)( WHERE)?/"$1 WHERE $condition" . ($2 ? ' AND' : '')/e for $query, $oracle;
	return ($query, $oracle);
}

# (stream, query) for replace_view()
sub replacement_query
{
	my ($name, $variant, $random) = @_;
	my ($stream) = @{ $views{$name} // $dynamic{$name} };
	my ($query) = variant($name, $variant);
	$stream = $random->one_of($name =~ /^ev_/ ? @merging : @streams) if $movable{$name} && $random->chance(30);
	return ($stream, query_on($query, $stream));
}

# create_sql(NAME, WITH): CREATE MATERIALIZED VIEW of a fixed or dynamic view
sub create_sql
{
	my ($name, $with) = @_;
	my ($stream, $query, $options) = @{ $views{$name} // $dynamic{$name} };
	my $given = $options && $options->{with} ? ", $options->{with}" : '';
	return "CREATE MATERIALIZED VIEW $name WITH (streamext.continuous$given) AS "
	  . query_on($query, $stream) . ($with ? " $with" : '') . ";\n";
}

sub setup_sql
{
	my ($random) = @_;
	my $sql = <<"SQL";
CREATE EXTENSION streamext;
CREATE SCHEMA chaos;
SET check_function_bodies = off;
CREATE TABLE chaos.shadow
(
	stream text NOT NULL,
	id bigint NOT NULL, part int, k int, v int, t text, m numeric(10,2), ts timestamptz, note text,
	leaf oid NOT NULL,				-- where it was inserted
	xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
	root_xid xid8 DEFAULT pg_current_xact_id(),	-- since when it counts for parents; null: in limbo
	gone int,						-- deleted, see the top of Schema.pm
	upd_g int[] NOT NULL DEFAULT '{}',	-- updates of v: when, and to what
	upd_v int[] NOT NULL DEFAULT '{}'
);
CREATE INDEX shadow_id ON chaos.shadow (stream, id);
CREATE INDEX shadow_leaf ON chaos.shadow (leaf) WHERE gone IS NULL;
CREATE INDEX shadow_limbo ON chaos.shadow (leaf) WHERE root_xid IS NULL;
CREATE TABLE chaos.now (g int NOT NULL);
INSERT INTO chaos.now VALUES (0);
-- stream: another one than at first; rebuilt: what was reported before may not be so any more
CREATE TABLE chaos.view (name text PRIMARY KEY, g int, snap pg_snapshot, begun bool NOT NULL, variant int NOT NULL DEFAULT 0, stream text, rebuilt bool NOT NULL DEFAULT false);
CREATE TABLE chaos.name (oid oid PRIMARY KEY, name text NOT NULL);

CREATE FUNCTION chaos.g() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT g + 1 FROM chaos.now';
-- the value that a view sees which began at g, not before the first update
CREATE FUNCTION chaos.v_at(upd_g int[], upd_v int[], g int) RETURNS int LANGUAGE sql IMMUTABLE AS
\$\$ SELECT u.v FROM unnest(upd_g, upd_v) WITH ORDINALITY u(g, v, i) WHERE u.g <= v_at.g ORDER BY i DESC LIMIT 1 \$\$;
-- after INSERT ... ON CONFLICT or MERGE on "up": all these rows are locked by us
CREATE FUNCTION chaos.sync_up(ids bigint[]) RETURNS void LANGUAGE sql VOLATILE AS
\$\$
	UPDATE chaos.shadow s SET upd_g = upd_g || chaos.g(), upd_v = upd_v || up.v
	FROM up WHERE up.id = ANY (ids) AND s.stream = 'up' AND s.id = up.id AND s.gone IS NULL
		AND up.v IS DISTINCT FROM CASE WHEN s.upd_v = '{}' THEN s.v ELSE s.upd_v[cardinality(s.upd_v)] END;
	INSERT INTO chaos.shadow (stream, $columns, leaf)
	SELECT 'up', $columns, tableoid FROM up WHERE id = ANY (ids)
		AND NOT EXISTS (SELECT FROM chaos.shadow s WHERE s.stream = 'up' AND s.id = up.id AND s.gone IS NULL);
\$\$;
-- one row per sub-transaction, every third of which fails
CREATE FUNCTION chaos.subtransactions(base bigint, n int) RETURNS void LANGUAGE plpgsql AS
\$\$
BEGIN
	FOR i IN 1 .. n LOOP
		BEGIN
			INSERT INTO ev VALUES (base + i, 1, i % 60, i % 1000, 's' || i % 3, i / 4.0, '2024-01-01'::timestamptz + i * interval '7 s', NULL);
			IF i % 3 = 0 THEN RAISE division_by_zero; END IF;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
END \$\$;

CREATE TABLE names (k int PRIMARY KEY, name text NOT NULL);
INSERT INTO names SELECT i, 'name ' || i % 7 FROM generate_series(0, 49) i;
CREATE TABLE ev ($table_columns);
CREATE INDEX ev_id ON ev (id);
CREATE TABLE td ($table_columns);
CREATE INDEX td_id ON td (id);
CREATE TABLE tl ($table_columns);
CREATE INDEX tl_id ON tl (id);
CREATE TABLE vs ($table_columns);
CREATE INDEX vs_id ON vs (id);
CREATE TABLE up ($table_columns, PRIMARY KEY (id));
CREATE TABLE bal ($table_columns);
CREATE INDEX bal_id ON bal (id);
CREATE TABLE pe ($table_columns) PARTITION BY LIST (part);
CREATE INDEX pe_id ON pe (id);
CREATE TABLE pe1 PARTITION OF pe FOR VALUES IN (1);
CREATE TABLE pe2 (note text, junk int, ts timestamptz NOT NULL, m numeric(10,2), t text, v int, k int, hits int DEFAULT 0,
	part int NOT NULL, id bigint NOT NULL);
ALTER TABLE pe2 DROP COLUMN junk;
ALTER TABLE pe ATTACH PARTITION pe2 FOR VALUES IN (2);
CREATE TABLE pe3 (v int, k int, t text, part int NOT NULL, m numeric(10,2), note text, id bigint NOT NULL,
	ts timestamptz NOT NULL, hits int DEFAULT 0) PARTITION BY RANGE (k);
CREATE TABLE pe3a PARTITION OF pe3 FOR VALUES FROM (0) TO (25);
CREATE TABLE pe3b PARTITION OF pe3 DEFAULT;
ALTER TABLE pe ATTACH PARTITION pe3 FOR VALUES IN (3);
CREATE TABLE pe4 PARTITION OF pe FOR VALUES IN (4);
CREATE TABLE pe5 PARTITION OF pe FOR VALUES IN (5);
CREATE TABLE ped PARTITION OF pe DEFAULT;
SQL
	# (no alert may be over before it is there)
	for my $stream (qw(ev pe up bal tl vs))
	{
		my $n = $random->one_of(0, 0, 100, 1000);
		next unless $n;
		my ($first, $last) = $stream eq 'up' ? (1001, 1000 + $n) : (2, 1 + $n);
		# amounts of "bal" sum to zero
		my $amount = $stream eq 'bal' ? 'CASE g % 2 WHEN 0 THEN g ELSE 1 - g END' : 'g * 31 % 1000';
		$sql .= "INSERT INTO $stream SELECT g, 1 + g % 6, g % 60, $amount, 'h' || g % 4, g / 3.0, "
		  . "'2024-01-01'::timestamptz + g * interval '3 s' FROM generate_series($first, $last) g;\n";
		$sql .= record_sql($stream);
	}
	$sql .= time_setup_sql();
	# a view may be over what another passes on
	for my $of_sink (0, 1)
	{
		$sql .= time_setup_sql(1) if $of_sink;
		for my $view (grep { ($views{$_}[0] =~ /^s_/) == $of_sink } sort keys %views)
		{
			$sql .= create_sql($view) . "INSERT INTO chaos.view VALUES ('$view', 0, NULL, true);\n";
		}
	}
	$sql .= alerts_sql();
	# renaming commands may be cut off in the middle: what is called what
	$sql .= q{INSERT INTO chaos.name SELECT c.oid, relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace } . ";\n";
	return $sql;
}

# record_sql(STREAM [, WHERE]): copies rows just inserted into the shadow
sub record_sql
{
	my ($stream, $where) = @_;
	$where = $where ? "WHERE $where" : '';
	return "INSERT INTO chaos.shadow (stream, $columns, leaf) SELECT '$stream', $columns, tableoid FROM $stream $where;\n";
}

# The rows that a view counts, as a table expression that fits %s.  view: { name, g, snap, ranges: [ g, from, to ] ... }
sub counted_rows
{
	my ($view, $stream, $how) = @_;
	my $where = "stream = '$stream' AND root_xid IS NOT NULL";
	my $xid = 'root_xid';
	if ($stream eq 'pe2')
	{
		$where = "stream = 'pe' AND leaf = 'pe2'::regclass";
		$xid = 'xid';
	}
	$where = "stream = 'pe' AND leaf IN ('pe3a'::regclass, 'pe3b'::regclass)" if $stream eq 'pe3';
	# since when a row is what the view has seen of it; null: it was never read from the table
	my $g = defined $view->{snap} ? 'NULL::int' : $view->{g};
	$g = 'greatest(' . join(', ', $g, map { "CASE WHEN ts >= '$_->[1]' AND ts < '$_->[2]' THEN $_->[0] END" } @{ $view->{ranges} }) . ')' if @{ $view->{ranges} // [] };
	my $seen = "gone IS NULL OR gone > at_g";
	$seen = "CASE WHEN at_g IS NULL THEN NOT pg_visible_in_snapshot($xid, '$view->{snap}') ELSE $seen END" if defined $view->{snap};
	my $rows = "SELECT *, $g AS at_g FROM chaos.shadow WHERE $where";
	my $list = $columns;
	my $v = 'CASE WHEN upd_g[1] <= at_g THEN chaos.v_at(upd_g, upd_v, at_g) ELSE v END AS v';
	$list =~ s/\bv\b/$v/;
	return "(SELECT $list FROM ($rows) s WHERE ($seen))" if ($how // '') ne 'valid';
	# what fails is left out, or was repaired
	my $repaired = $columns;
	$repaired =~ s/\bv\b/CASE WHEN chaos.valid(s.v) THEN s.v ELSE r.v END AS v/;
	$repaired =~ s/\bid\b/s.id/;
	return "(SELECT $repaired FROM (SELECT at_g, $list FROM ($rows) s WHERE ($seen)) s LEFT JOIN chaos.repaired r ON r.name = '$view->{name}' AND r.id = s.id AND (r.g >= at_g) IS NOT FALSE"
	  . " WHERE chaos.valid(s.v) OR r.id IS NOT NULL)";
}

# do rows that the view does not count lie in streamext.dead_letters?
sub has_letters
{
	my ($name) = @_;
	my $options = ($views{$name} // $dynamic{$name})->[2] // {};
	return ($options->{how} // '') eq 'letters';
}

# oracle_sql(VIEW): one row per kind of difference; view: { name, g, snap, variant, stream, ranges }
sub oracle_sql
{
	my ($view) = @_;
	my ($stream, undef, $options) = @{ $views{ $view->{name} } // $dynamic{ $view->{name} } };
	my ($query, $oracle) = variant($view->{name}, $view->{variant});
	my $alias = $query =~ /%s e / ? '' : ' counted';
	my $how = $options->{how} // '';
	my $name = $view->{name};
	$stream = $view->{stream} if $view->{stream};
	my $counted = $how eq 'raw' ? $stream : counted_rows($view, $stream, $how);
	$counted =~ s/\)$/ AND id NOT IN (SELECT ("row" ->> 'id')::bigint FROM streamext.dead_letters WHERE view = '$name'::regclass))/
	  if $how eq 'letters';
	my $expected = query_on($oracle, $counted . $alias);
	my $shown = "TABLE $name";
	my ($more, $only) = ('', '');
	if (($options->{with} // '') =~ /emit/ || $name eq 'pe_5')
	{
		$expected = "SELECT * FROM ($expected) q WHERE streamext.is_final('$name', w) OR (SELECT emit FROM streamext.view_def WHERE view = '$name'::regclass) = 'changes'";
	}
	if ($how eq 'recent')
	{
		# windows that the view has not forgotten; it removes the others in its own time
		my $kept = "w >= date_trunc('minute', (SELECT chaos.to_time(removed_until) FROM streamext.view_position WHERE view = '$name'::regclass))";
		$expected = "SELECT * FROM ($expected) q WHERE $kept";
		$shown = "SELECT * FROM $name WHERE $kept";
	}
	# rows that were dropped may have been counted since, or are none of this query's
	my $missing = $view->{variant} || @{ $view->{ranges} // [] } ? '>' : '<>';
	if ($how eq 'dropped')
	{
		$more = "UNION ALL SELECT 'closed windows have more than the query', v::text FROM v LEFT JOIN q ON q.w = v.w AND q.g IS NOT DISTINCT FROM v.g WHERE coalesce(v.n > q.n, true)\n";
		$more .= "UNION ALL SELECT 'missing, dropped', (missing, dropped)::text FROM (SELECT (SELECT coalesce(sum(n), 0) FROM q) - (SELECT coalesce(sum(n), 0) FROM v) AS missing,"
		  . " (SELECT dropped_rows FROM streamext.status WHERE view = '$name'::regclass) AS dropped) x WHERE missing $missing dropped\n"
		  if $query =~ /tumble/ && !$options->{with};
		# rows of windows that drop nothing yet: by the watermark in memory, which is ahead of what is final;
		# a view that shows final rows has none
		my $size = $query =~ /hop/ ? '15 minutes' : '5 minutes';
		$only = "WHERE (w + interval '$size' <= (SELECT s.watermark - d.allowed_lateness FROM streamext.status s"
		  . " JOIN streamext.stream_def d ON d.stream = '$stream'::regclass WHERE s.view = '$name'::regclass)) IS NOT TRUE";
		$only = 'WHERE false' if $options->{with};
	}
	if ($how eq 'sessions_dropped')
	{
		$only = 'WHERE false';
		$more = "UNION ALL SELECT 'missing, dropped', (missing, dropped)::text FROM (SELECT (SELECT coalesce(sum(n), 0) FROM q) - (SELECT coalesce(sum(n), 0) FROM v) AS missing,"
		  . " (SELECT dropped_rows FROM streamext.status WHERE view = '$name'::regclass) AS dropped) x WHERE missing $missing dropped\n"
		  . "UNION ALL SELECT 'sessions that overlap', a::text FROM v a JOIN v b ON a.g IS NOT DISTINCT FROM b.g AND a.w && b.w AND a.w < b.w\n";
	}
	return <<"SQL";
WITH v AS MATERIALIZED ($shown), q AS MATERIALIZED ($expected)
SELECT '$name', which, count(*), (array_agg(d ORDER BY d))[1:5]
FROM (SELECT 'in the view only' AS which, x::text AS d FROM (SELECT * FROM v $only EXCEPT ALL SELECT * FROM q $only) x
	UNION ALL SELECT 'in the query only', x::text FROM (SELECT * FROM q $only EXCEPT ALL SELECT * FROM v $only) x
	$more) y
GROUP BY which;
SQL
}

1;
