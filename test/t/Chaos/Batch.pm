# Batch.pm
#		Computing again in the chaos test: REFRESH, replace_view(), backfill(), expire(), repaired rows.
#
# What is computed again counts the raw rows as they are then, so the oracle has to know when it was:
#
#	chaos.replaced		a rebuild of all of a view has begun: its number g (see Schema.pm), and the table that the view had.
#						Nobody deletes or updates until the hidden view has begun, as with CREATE.  When the view has another
#						table, apply_sql() puts the number, and which query and stream it is now, into chaos.view.
#	chaos.recomputed	windows of a view from one time to before another were computed again at number g, in this table of
#						the view.  Nobody deletes or updates meanwhile.
#	chaos.repaired		a row that failed the condition of stream "vs" was given another value and counted in
#
# If the session ends before it is noted that the rebuild began, or that the recomputation was done, then
# others may delete again: nobody knows what was counted, and settle() does it once more, while nobody writes.
#
# Rows that expire are noted in the shadow by a trigger, in the transaction that deletes them.
#
# What has been passed on before cannot agree any more: of sinks, windows that were closed then (chaos.sink.changed_until), and
# final rows, are left out of the comparison.  An alert was right when it fired (chaos.view.rebuilt).
package Chaos::Batch;

use strict;
use warnings;

use Exporter 'import';

use Chaos::EventTime qw(ROUNDS_PER_DATABASE);
use Chaos::Schema qw(dynamic_views replacement_query variants views);

our @EXPORT_OK = qw(batch_script batch_ddl batch_setup_sql settle_batch_sql again_sql apply_sql letters_checks_sql repair_all_sql);

# view => minutes of its windows
my %windows = (ev_5 => 5, ev_closed => 10, ev_recent => 1, pe_5 => 5, pe_closed => 7, td_5 => 5, td_closed => 5, tl_5 => 5, windows => 5, vs_5 => 5, dyn_g => 5,
	dyn_h => 10, dyn_j => 5);
my @repaired = qw(vs_5 vs_rows);
# the value that a repaired row gets
use constant REPAIRED => 5;

sub batch_setup_sql
{
	return <<'SQL' . expire_setup_sql();
CREATE TABLE chaos.replaced (name text NOT NULL, old_mat oid NOT NULL, g int NOT NULL, variant int NOT NULL, stream text, begun bool NOT NULL);
CREATE TABLE chaos.recomputed (name text NOT NULL, mat oid NOT NULL, g int NOT NULL, "from" timestamptz NOT NULL, "to" timestamptz NOT NULL, done bool NOT NULL, noted bool NOT NULL DEFAULT false);
CREATE TABLE chaos.repaired (name text NOT NULL, mat oid NOT NULL, g int NOT NULL, id bigint NOT NULL, v int NOT NULL, noted bool NOT NULL DEFAULT false);

-- waits until a rebuild that was ordered has begun; one that does not is given up
CREATE FUNCTION chaos.begin_replaced(view text) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
	has record;
BEGIN
	FOR i IN 1 .. 75 LOOP
		SELECT h.view IS NOT NULL AS wanted, p.view IS NOT NULL AS begun INTO has
		FROM chaos.replaced r JOIN streamext.view_def d ON d.view = r.name::regclass AND d.mat = r.old_mat
			LEFT JOIN streamext.view_def h ON h.replaces = d.view LEFT JOIN streamext.view_position p ON p.view = h.view
		WHERE r.name = begin_replaced.view AND NOT r.begun;
		IF NOT FOUND OR has.begun THEN
			-- the view has another table, or the hidden one a position
			UPDATE chaos.replaced r SET begun = true WHERE r.name = begin_replaced.view AND NOT r.begun;
			RETURN;
		END IF;
		EXIT WHEN NOT has.wanted;
		PERFORM pg_sleep(0.02);
	END LOOP;
	PERFORM chaos.cancel_replaced(view);
	UPDATE chaos.replaced r SET begun = true WHERE r.name = begin_replaced.view AND NOT r.begun;
END $$;

CREATE FUNCTION chaos.cancel_replaced(view text) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	-- keeps away the swap for the rest of the transaction
	PERFORM streamext.cancel_replace(view::regclass);
	DELETE FROM chaos.replaced r WHERE r.name = cancel_replaced.view AND r.old_mat = (SELECT d.mat FROM streamext.view_def d WHERE d.view = r.name::regclass);
END $$;

CREATE FUNCTION chaos.valid(v int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT (v < 900 AND v <> 13) IS NOT FALSE';
CREATE FUNCTION chaos.expired() RETURNS trigger LANGUAGE plpgsql AS
$$
BEGIN
	UPDATE chaos.shadow SET gone = chaos.g() WHERE stream = TG_ARGV[0] AND id = OLD.id AND gone IS NULL;
	RETURN NULL;
END $$;
SQL
}

sub expire_setup_sql
{
	return join '', map { "CREATE TRIGGER expired AFTER DELETE ON $_ FOR EACH ROW WHEN (current_setting('chaos.expire', true) = 'on') EXECUTE FUNCTION chaos.expired('$_');\n" }
	  qw(ev pe td tl vs);
}

sub quoted { my ($text) = @_; return "'" . ($text =~ s/'/''/gr) . "'" }

# While nobody deletes or updates, and pe2 is a partition: rows that it has when it is not would never be counted, because
# when it comes back only those count that have been inserted meanwhile.
sub alone
{
	my ($sql) = @_;
	return "\\set may f\nSELECT pg_advisory_lock(1) IS NOT NULL AS may \\gset\n\\if :may\n"
	  . "SELECT pg_try_advisory_lock_shared(2) AS may \\gset\n\\if :may\n"
	  . "SELECT relispartition AS may FROM pg_class WHERE oid = 'pe2'::regclass \\gset\n\\if :may\n$sql\\endif\n"
	  . "SELECT pg_advisory_unlock_shared(2);\n\\endif\nSELECT pg_advisory_unlock(1);\n\\endif\n";
}

# ---- commands ----

# a session of its own
sub batch_script
{
	my ($random, $round, $commands) = @_;
	# (what waits for a prepared transaction would wait for the rest of the round)
	my $sql = "SET lock_timeout = '400ms';\nSET streamext.wait_timeout = '3s';\nSET statement_timeout = '4s';\n";
	for my $i (1 .. $commands)
	{
		$sql .= 'SELECT pg_sleep(' . $random->pick(150) / 1000 . ");\n\\echo $i\n" . command($random, $round, sort keys %{ views() });
	}
	return $sql;
}

# the session of DDL, on views that come and go there
sub batch_ddl
{
	my ($random, $round) = @_;
	return command($random, $round, sort keys %{ dynamic_views() });
}

sub command
{
	my ($r, $round, @names) = @_;
	my @with_windows = grep { $windows{$_} } @names;
	my @repairable = grep { /^vs/ } @names;
	my $kind = $r->by_weight(refresh => 8, replace => 12, cancel => 2, backfill => 8, repair => @repairable ? 4 : 0,
		expire => (@repairable && ($round - 1) % ROUNDS_PER_DATABASE > 2 ? 1 : 0), look => 1);
	if ($kind eq 'refresh')
	{
		my $name = $r->one_of(@names);
		my $sql = 'REFRESH MATERIALIZED VIEW ' . ($r->chance(20) ? 'CONCURRENTLY ' : '') . "$name;\n";
		return rebuild($name, undef, undef, $sql, $r->one_of(0, 0, 1));
	}
	if ($kind eq 'replace')
	{
		my $name = $r->one_of(@names);
		my $variant = $r->pick(variants($name));
		my ($stream, $query) = replacement_query($name, $variant, $r);
		my $force = $r->chance(30) ? ', force => true' : '';
			return rebuild($name, $variant, "'$stream'", "SELECT streamext.replace_view('$name', " . quoted($query) . "$force);\n", 1, $r->chance(15));
	}
	if ($kind eq 'cancel')
	{
		return "SELECT chaos.cancel_replaced('" . $r->one_of(@names) . "');\n";
	}
	return recompute($r, $r->one_of(@with_windows)) if $kind eq 'backfill';
	if ($kind eq 'repair')
	{
		my $view = $r->one_of(@repairable);
		return "BEGIN;\n" . repair_sql($view, $r->one_of(1, 10, 1000)) . ($r->chance(85) ? "COMMIT;\n" : "ROLLBACK;\n");
	}
	if ($kind eq 'expire')
	{
		my $stream = $r->one_of(qw(ev pe td td tl vs vs));
		my $minutes = $r->pick(60 + 20 * (($round - 1) % ROUNDS_PER_DATABASE));
		# like all who delete: not while a view begins
		return "\\set may f\nSELECT pg_try_advisory_lock_shared(1) AS may \\gset\n\\if :may\nSET chaos.expire = on;\nCALL streamext.expire('$stream', '2024-01-01 00:00+00'::timestamptz + interval '$minutes minutes', batch_rows => "
		  . $r->one_of(100, 1000, 10000) . ");\nSET chaos.expire = off;\nSELECT pg_advisory_unlock_shared(1);\n\\endif\n";
	}
	return "TABLE streamext.backfill_progress;\nTABLE streamext.status;\nTABLE streamext.dead_letters LIMIT 10;\nTABLE streamext.views;\n";
}

# variant undef: that which the view has.  In a transaction it is done later.
sub rebuild
{
	my ($name, $variant, $stream, $command, $in_transaction, $roll_back) = @_;
	$variant //= 'v.variant';
	$stream //= 'v.stream';
	my $note = "UPDATE chaos.now SET g = g + 1;\n"
	  . "INSERT INTO chaos.replaced SELECT v.name, d.mat, now.g, $variant, $stream, false FROM chaos.now, chaos.view v JOIN streamext.view_def d ON d.view = '$name'::regclass WHERE v.name = '$name';\n";
	my $end = $roll_back ? "ROLLBACK;\n" : "COMMIT;\n";
	return alone("\\set free f\nSELECT d.view IS NOT NULL AND NOT EXISTS (SELECT FROM streamext.view_def h WHERE h.replaces = d.view) AND EXISTS (SELECT FROM chaos.view WHERE name = '$name') AS free\n"
		. "FROM (VALUES (to_regclass('$name'))) n(oid) LEFT JOIN streamext.view_def d ON d.view = n.oid \\gset\n"
		. "\\if :free\n"
		. ($in_transaction ? "BEGIN;\n$note$command$end" : "BEGIN;\n${note}COMMIT;\n$command")
		. "SELECT chaos.begin_replaced('$name');\n\\endif\n");
}

sub recompute
{
	my ($r, $name) = @_;
	my $size = $windows{$name};
	my $first = $r->pick(180);
	my $length = $r->one_of(1, $size, 60, 300);
	my $align = sub { "streamext.tumble('2024-01-01 00:00+00'::timestamptz + interval '$_[0] minutes', '$size minutes')" };
	# ways to break a call off: it commits in between, and is done again later
	my $force = $r->chance(30) ? ', force => true' : '';
	my $call = "CALL streamext.backfill('$name', :'from'::timestamptz, :'to'::timestamptz$force);\n";
	my $note = "UPDATE chaos.now SET g = g + 1;\nINSERT INTO chaos.recomputed SELECT '$name', d.mat, now.g, :'from', :'to', DONE FROM chaos.now, streamext.view_def d WHERE d.view = '$name'::regclass;\n";
	my $sql = 'SELECT ' . $align->($first) . ' AS from, ' . $align->($first + $length + $size) . " AS to \\gset\n";
	my $in_parts = "BEGIN;\n" . ($note =~ s/DONE/false/r) . "COMMIT;\n$call\\set failed :ERROR\n"
	  . "UPDATE chaos.recomputed SET done = true WHERE NOT done AND name = '$name' AND NOT :'failed'::bool;\n"
	  # before anything is done
	  . "DELETE FROM chaos.recomputed WHERE NOT done AND name = '$name' AND :'LAST_ERROR_MESSAGE' ~ 'cannot be computed (one by one|from the rows)|has no windows';\n";
	return alone($sql . ($r->chance(75) ? $in_parts : "BEGIN;\n" . ($note =~ s/DONE/true/r) . $call . ($r->chance(80) ? "COMMIT;\n" : "ROLLBACK;\n")));
}

# some rows that failed the condition get another value, and are counted in
sub repair_sql
{
	my ($view, $n) = @_;
	my $value = REPAIRED;
	return <<"SQL";
WITH l AS MATERIALIZED (SELECT id, "row" FROM streamext.dead_letters WHERE view = to_regclass('$view') AND reason = 'invalid' ORDER BY ("row" ->> 'id')::bigint % 97 LIMIT $n),
	r AS MATERIALIZED (SELECT "row", streamext.repair_dead_letter(id, "row" || '{"v": $value}') FROM l)
INSERT INTO chaos.repaired (name, mat, g, id, v) SELECT '$view', d.mat, now.g, ("row" ->> 'id')::bigint, $value FROM r, chaos.now, streamext.view_def d WHERE d.view = to_regclass('$view');
SELECT streamext.retry_dead_letters(to_regclass('$view'));
SQL
}

# Which rows are dead letters of the views on "vs": those that fail, and no others; lost are those that were repaired and then
# computed again.  One row per complaint.
sub letters_checks_sql
{
	return join '', map { my $view = $_; <<"SQL" } @repaired;
WITH failed AS MATERIALIZED (SELECT c.id, c.at_g FROM chaos.view v, LATERAL (SELECT s.*, greatest(v.g, (SELECT max(r.g) FROM chaos.recomputed r
			WHERE r.name = v.name AND s.ts >= r."from" AND s.ts < r."to")) AS at_g FROM chaos.shadow s WHERE s.stream = 'vs') c
		WHERE v.name = '$view' AND (c.gone IS NULL OR c.gone > c.at_g)
			AND NOT chaos.valid(CASE WHEN c.upd_g[1] <= c.at_g THEN chaos.v_at(c.upd_g, c.upd_v, c.at_g) ELSE c.v END)),
	letters AS MATERIALIZED (SELECT ("row" ->> 'id')::bigint AS id FROM streamext.dead_letters WHERE view = '$view'::regclass AND reason = 'invalid'),
	-- not those that were left out once more
	repaired AS MATERIALIZED (SELECT r.id FROM chaos.repaired r LEFT JOIN failed f ON f.id = r.id WHERE r.name = '$view' AND (r.g >= f.at_g) IS NOT FALSE)
SELECT 'dead letters of $view: ' || what || ' ' || count(*) || ' ' || (array_agg(id))[1:5]::text
FROM (SELECT 'missing' AS what, id FROM failed WHERE id NOT IN (TABLE letters UNION TABLE repaired)
	UNION ALL SELECT 'too many', id FROM letters WHERE id NOT IN (SELECT id FROM failed)
	UNION ALL SELECT 'twice', id FROM letters GROUP BY id HAVING count(*) > 1
	UNION ALL SELECT 'repaired and there', id FROM letters WHERE id IN (TABLE repaired)) x
GROUP BY what;
SQL
}

sub repair_all_sql { return join '', map { repair_sql($_, 1_000_000) } @repaired, 'dyn_j' }

# ---- after a round ----

# What was cut off: nobody writes now.  A rebuild of which nobody knows what it counted is done again.
sub settle_batch_sql
{
	return <<'SQL';
DO $$
DECLARE
	r chaos.replaced;
BEGIN
	FOR r IN SELECT * FROM chaos.replaced WHERE NOT begun LOOP
		PERFORM streamext.cancel_replace(r.name::regclass);
		DELETE FROM chaos.replaced x WHERE x.name = r.name AND x.old_mat = r.old_mat;
		CONTINUE WHEN EXISTS (SELECT FROM streamext.view_def d WHERE d.view = r.name::regclass AND d.mat = r.old_mat);
		UPDATE chaos.now SET g = g + 1;
		INSERT INTO chaos.replaced SELECT r.name, d.mat, now.g, r.variant, r.stream, true FROM chaos.now, streamext.view_def d WHERE d.view = r.name::regclass;
		PERFORM streamext.replace_view(r.name::regclass, (SELECT v.definition FROM streamext.views v WHERE v.view = r.name::regclass), force => true);
	END LOOP;
END $$;
SQL
}

# as psql commands, after settle_batch_sql, when nothing keeps the views from being live
sub again_sql
{
	return <<'SQL';
DELETE FROM chaos.recomputed r WHERE NOT EXISTS (SELECT FROM streamext.view_def d WHERE d.view = to_regclass(r.name) AND d.mat = r.mat);
UPDATE chaos.now SET g = g + 1;
UPDATE chaos.recomputed SET g = n.g FROM chaos.now n WHERE NOT done;
SET streamext.wait_timeout = '60s';
SELECT format('CALL streamext.backfill(%L, %L::timestamptz, %L::timestamptz, force => true)', name, "from", "to") FROM chaos.recomputed WHERE NOT done \gexec
UPDATE chaos.recomputed SET done = true WHERE NOT done;
SQL
}

# What has been computed again since: for the oracle.  All that was begun has taken its place, or was given up.
# Lines of output are complaints, but for the numbers that begin with #.
sub apply_sql
{
	return <<'SQL';
SELECT 'a replacement that is not done: ' || view FROM streamext.view_def WHERE replaces IS NOT NULL;
BEGIN;
SELECT '#replaced ' || count(*) FROM chaos.replaced r JOIN streamext.view_def d ON d.view = to_regclass(r.name) WHERE d.mat <> r.old_mat;
SELECT '#backfill ' || count(*) FROM chaos.recomputed WHERE NOT noted;
SELECT '#repaired ' || count(*) FROM chaos.repaired WHERE NOT noted;
UPDATE chaos.repaired SET noted = true WHERE NOT noted;
WITH done AS (SELECT r.* FROM chaos.replaced r JOIN streamext.view_def d ON d.view = to_regclass(r.name) WHERE d.mat <> r.old_mat),
	-- of several the last one
	last AS (SELECT DISTINCT ON (name) * FROM done ORDER BY name, g DESC),
	sinks AS (UPDATE chaos.sink s SET changed_until = k.closed_until FROM last, streamext.sink k WHERE s.view = last.name AND k.target = to_regclass(s.target)),
	final AS (DELETE FROM chaos.final f USING last WHERE f.view = last.name)
UPDATE chaos.view v SET g = last.g, snap = NULL, variant = last.variant, stream = last.stream, rebuilt = true FROM last WHERE v.name = last.name;
DELETE FROM chaos.replaced;
DELETE FROM chaos.recomputed r WHERE NOT EXISTS (SELECT FROM streamext.view_def d WHERE d.view = to_regclass(r.name) AND d.mat = r.mat);
DELETE FROM chaos.repaired r WHERE NOT EXISTS (SELECT FROM streamext.view_def d WHERE d.view = to_regclass(r.name) AND d.mat = r.mat);
WITH new AS (SELECT DISTINCT name FROM chaos.recomputed WHERE NOT noted),
	sinks AS (UPDATE chaos.sink s SET changed_until = k.closed_until FROM new, streamext.sink k WHERE s.view = new.name AND k.target = to_regclass(s.target)),
	final AS (DELETE FROM chaos.final f USING new WHERE f.view = new.name)
UPDATE chaos.view v SET rebuilt = true FROM new WHERE v.name = new.name;
UPDATE chaos.recomputed SET noted = true WHERE NOT noted;
COMMIT;
SQL
}

1;
