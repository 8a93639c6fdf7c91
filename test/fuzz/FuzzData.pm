# FuzzData.pm
#		Random tables and random rows for the differential tests.
#
# A type has a class, by which FuzzQuery makes expressions, and a generator of literals.
# Values come from small sets, so that groups and joins meet, with now and then an extreme
# one.  Floats are small multiples of 1/4: sums of them do not depend on order.
#
# Every random decision comes from rnd(): a seed gives the same batch again.
package FuzzData;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(rnd_seed rnd chance one_of %TYPES make_setup make_lookups make_stream make_rows literal
  copy_value quoted other_names);

my $state = 1;

sub rnd_seed
{
	$state = ($_[0] * 2654435761 + 12345) % 2**32;
	rnd(2) for 1 .. 5;
	return;
}

# 0 .. n - 1
sub rnd
{
	my ($n) = @_;
	$state ^= ($state << 13) & 0xffffffff;
	$state ^= $state >> 17;
	$state ^= ($state << 5) & 0xffffffff;
	$state = 88172645 if $state == 0;
	return int($state / 2**32 * $n);
}

sub chance { return rnd(100) < $_[0]; }
sub one_of { return $_[ rnd(scalar @_) ]; }
sub quoted { my ($s) = @_; $s =~ s/'/''/g; return "'$s'"; }

# A name that needs quotes, now and then.
sub other_names
{
	my ($name) = @_;
	return $name unless chance(6);
	return '"' . one_of("$name x", "${name}é", "$name\"\"q", "${name}'s", "$name;--", "$name\\", uc $name) . '"';
}

sub wide
{
	my $n = 200 + rnd(700);
	return join '', map { sprintf '%08x', rnd(2**31) } 1 .. $n;
}

my @words = ('a', 'b', 'B', 'ab', 'Ab', 'apple', 'Äpfel', 'zebra', '', ' x', "it's", 'q"q', 'back\\slash', 'é', "two\nlines", '%', '{}', 'null', '10', '9');
my @instants = map { sprintf '2026-0%d-%02d %02d:%02d:00', @$_ } ([1, 1, 0, 0], [1, 1, 23, 59], [1, 2, 0, 0], [1, 5, 12, 30], [2, 28, 6, 1], [3, 1, 0, 0], [3, 29, 1, 30], [3, 29, 3, 30], [6, 30, 23, 59]);

# name => { sql, class, v: a literal's text }; amb: equal values may look different
our %TYPES = (
	int2 => { sql => 'int2', class => 'i', v => sub { chance(4) ? one_of(32767, -32768) : rnd(11) - 5 } },
	int4 => { sql => 'int4', class => 'i', v => sub { chance(4) ? one_of(2147483647, -2147483648) : rnd(20) - 8 } },
	int8 => { sql => 'int8', class => 'i', v => sub { chance(10) ? one_of(1000000007000, -999999999999) : rnd(30) - 10 } },
	posint => { sql => 'fz_posint', class => 'i', v => sub { rnd(9) } },
	dec => { sql => 'numeric(12,2)', class => 'n', v => sub { (rnd(2000) - 700) / 100 } },
	numeric => { sql => 'numeric', class => 'n', amb => 1, v => sub {
		chance(6) ? one_of('NaN', 'Infinity', '-Infinity', '1e20', '-0.000000000001')
		: one_of('0', '1', '1.0', '1.00', '-2.5', '3.14159', rnd(50), rnd(500) / 8) } },
	float8 => { sql => 'float8', class => 'f', amb => 1, v => sub {
		chance(3) ? one_of('NaN', 'Infinity', '-Infinity', '-0') : (rnd(256) - 100) / 4 } },
	float4 => { sql => 'float4', class => 'f', amb => 1, v => sub { (rnd(64) - 30) / 4 } },
	text => { sql => 'text', class => 't', v => sub { one_of(@words) } },
	textc => { sql => 'text COLLATE "C"', class => 't', v => sub { one_of(@words) } },
	texticu => { sql => 'text COLLATE "en-x-icu"', class => 't', v => sub { one_of(@words) } },
	varchar => { sql => 'varchar(12)', class => 't', v => sub { one_of(@words) } },
	code => { sql => 'fz_code', class => 't', v => sub { one_of('aa', 'bb', 'cc') } },
	bpchar => { sql => 'char(5)', class => 'bp', v => sub { one_of('a', 'b ', 'b', '', 'xyz') } },
	nocase => { sql => 'text COLLATE fz_nocase', class => 'nd', amb => 1, v => sub { one_of('One', 'one', 'ONE', 'two', 'Two', 'é', 'É') } },
	wide => { sql => 'text', class => 'w', v => sub { chance(30) ? wide() : one_of(@words) } },
	bool => { sql => 'bool', class => 'b', v => sub { one_of('t', 'f') } },
	date => { sql => 'date', class => 'd', v => sub { chance(1) ? one_of('infinity', '-infinity') : substr(one_of(@instants), 0, 10) } },
	time => { sql => 'time', class => 'tm', v => sub { substr(one_of(@instants), 11) } },
	timestamp => { sql => 'timestamp', class => 'ts', v => sub { chance(1) ? 'infinity' : one_of(@instants) } },
	timestamptz => { sql => 'timestamptz', class => 'tz', v => sub { one_of(@instants) . one_of('+00', '+02', '-05') } },
	interval => { sql => 'interval', class => 'iv', amb => 1, v => sub {
		one_of('1 day', '24 hours', '30 days', '1 mon', '-1 day', '00:00:07', '1 year 2 mons -3 days 04:05:06', rnd(100) . ' minutes') } },
	uuid => { sql => 'uuid', class => 'u', v => sub { sprintf '00000000-0000-4000-8000-%012d', rnd(7) } },
	jsonb => { sql => 'jsonb', class => 'j', amb => 1, v => sub {
		one_of('{"a": 1, "b": [1, 2]}', '{"a": 1.0}', '{"a": "x"}', '{}', '[]', '[1, 2, 3]', '"s"', '7', 'null', '{"b": {"a": null}}') } },
	bytea => { sql => 'bytea', class => 'by', v => sub { '\\x' . one_of('', '00', 'ff', '0102', 'deadbeef') } },
	ints => { sql => 'int[]', class => 'ai', v => sub { one_of('{}', '{1}', '{1,2}', '{2,NULL}', '{{1,2},{3,4}}', '[0:1]={5,6}') } },
	texts => { sql => 'text[]', class => 'at', v => sub { one_of('{}', '{a}', '{a,b}', '{"x y",NULL}', '{"",é}') } },
	enum => { sql => 'fz_size', class => 'e', v => sub { one_of('small', 'medium', 'large', 'huge') } },
	pair => { sql => 'fz_pair', class => 'c', v => sub { one_of('(1,a)', '(1,b)', '(2,)', '(,)', '(2,"x y")') } },
	range => { sql => 'int4range', class => 'r', v => sub { one_of('[1,5)', '[2,8]', 'empty', '(,3]', '[4,)', '(,)') } },
	tzrange => { sql => 'tstzrange', class => 'tr', v => sub { one_of('[2026-01-01 00:00+00,2026-02-01 00:00+00)', 'empty', '[2026-01-15 00:00+00,)') } },
	mrange => { sql => 'int4multirange', class => 'mr', v => sub { one_of('{}', '{[1,3)}', '{[1,3),[5,9)}') } },
	inet => { sql => 'inet', class => 'ip', v => sub { one_of('10.0.0.1', '10.0.0.1/8', '::1', '192.168.7.0/24', '2001:db8::/32') } },
	cidr => { sql => 'cidr', class => 'ip', v => sub { one_of('10.0.0.0/8', '10.1.0.0/16', '::/0') } },
	macaddr => { sql => 'macaddr', class => 'mac', v => sub { one_of('08:00:2b:01:02:03', '08:00:2b:01:02:04') } },
	bit => { sql => 'bit(4)', class => 'bit', v => sub { one_of('0101', '0110', '1111', '0000') } },
	varbit => { sql => 'varbit', class => 'vb', v => sub { one_of('', '0', '1', '0101') } },
	money => { sql => 'money', class => 'mo', v => sub { (rnd(1000) - 300) / 100 } },
	oid => { sql => 'oid', class => 'oid', v => sub { one_of(0, 1, 4294967295, rnd(100)) } },
	char => { sql => '"char"', class => 'ch', v => sub { one_of('a', 'b', 'Z') } },
	name => { sql => 'name', class => 'nm', v => sub { one_of('n1', 'N1', 'other name') } },
	lsn => { sql => 'pg_lsn', class => 'lsn', v => sub { one_of('0/0', '0/1', '1/A', 'FFFFFFFF/FFFFFFFF') } },
	xid8 => { sql => 'xid8', class => 'x8', v => sub { rnd(9) } },
	macaddr8 => { sql => 'macaddr8', class => 'm8', v => sub { one_of('08:00:2b:01:02:03:04:05', '00:00:00:00:00:00:00:00') } },
	tsvector => { sql => 'tsvector', class => 'tv', v => sub { one_of('a b', 'cat:1 dog:2', '') } },
);
my @type_names = sort keys %TYPES;

# types, domains, functions and aggregates, once per database
sub make_setup
{
	return <<'SQL';
CREATE DOMAIN fz_posint AS int CHECK (VALUE >= 0);
CREATE DOMAIN fz_code AS text CHECK (length(VALUE) < 10);
CREATE TYPE fz_size AS ENUM ('small', 'medium', 'large');
ALTER TYPE fz_size ADD VALUE 'huge' BEFORE 'small';
CREATE TYPE fz_pair AS (n int, t text);
CREATE COLLATION fz_nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE FUNCTION fz_double(int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION fz_label(text, int8 DEFAULT 7) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS 'BEGIN RETURN $1 || ''-'' || $2; END';
CREATE FUNCTION fz_step(bigint, int8) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 + coalesce($2 % 1000, 17); END';
CREATE AGGREGATE fz_sum(int8) (SFUNC = fz_step, STYPE = bigint, INITCOND = '0', COMBINEFUNC = int8pl, PARALLEL = SAFE);
CREATE FUNCTION fz_null_step(int, anyelement) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0) + ($2 IS NULL)::int';
CREATE FUNCTION fz_null_combine(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN $1 IS NOT NULL OR $2 IS NOT NULL THEN coalesce($1, 0) + coalesce($2, 0) END';
CREATE FUNCTION fz_null_final(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce($1::text, 'none') || ' nulls' $$;
CREATE AGGREGATE fz_nulls(anyelement) (SFUNC = fz_null_step, STYPE = int, COMBINEFUNC = fz_null_combine, FINALFUNC = fz_null_final);
CREATE FUNCTION fz_three_step(anyarray, anyelement) RETURNS anyarray LANGUAGE sql IMMUTABLE
	AS 'SELECT (ARRAY(SELECT x FROM unnest($1 || $2) x ORDER BY x))[1:3]';
CREATE FUNCTION fz_three_combine(anyarray, anyarray) RETURNS anyarray LANGUAGE sql IMMUTABLE
	AS 'SELECT (ARRAY(SELECT x FROM unnest($1 || $2) x ORDER BY x))[1:3]';
CREATE AGGREGATE fz_three(anyelement) (SFUNC = fz_three_step, STYPE = anyarray, INITCOND = '{}', COMBINEFUNC = fz_three_combine);
CREATE FUNCTION fz_mean_step(numeric[], numeric, numeric) RETURNS numeric[] LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ARRAY[$1[1] + $2 * $3, $1[2] + $3]';
CREATE FUNCTION fz_mean_combine(numeric[], numeric[]) RETURNS numeric[] LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ARRAY[$1[1] + $2[1], $1[2] + $2[2]]';
CREATE FUNCTION fz_mean_final(numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT AS 'SELECT round($1[1] / nullif($1[2], 0), 4)';
CREATE AGGREGATE fz_mean(numeric, numeric) (SFUNC = fz_mean_step, STYPE = numeric[], INITCOND = '{0,0}', COMBINEFUNC = fz_mean_combine, FINALFUNC = fz_mean_final);
CREATE FUNCTION fz_long_step(text, text) RETURNS text LANGUAGE sql IMMUTABLE STRICT
	AS 'SELECT CASE WHEN (length($1), $1 COLLATE "C") >= (length($2), $2 COLLATE "C") THEN $1 ELSE $2 END';
CREATE AGGREGATE fz_longest(text) (SFUNC = fz_long_step, STYPE = text, COMBINEFUNC = fz_long_step);
CREATE AGGREGATE fz_var(numeric) (SFUNC = numeric_accum, STYPE = internal, COMBINEFUNC = numeric_combine, SERIALFUNC = numeric_serialize,
	DESERIALFUNC = numeric_deserialize, FINALFUNC = numeric_var_samp);
CREATE AGGREGATE fz_avg(int) (SFUNC = int4_avg_accum, STYPE = int8[], INITCOND = '{0,0}', COMBINEFUNC = int4_avg_combine, FINALFUNC = int8_avg);
CREATE FUNCTION fz_close(a float8, b float8) RETURNS bool LANGUAGE sql IMMUTABLE AS
	$$ SELECT a IS NOT DISTINCT FROM b OR (a NOT IN ('NaN', 'Infinity', '-Infinity') AND b NOT IN ('NaN', 'Infinity', '-Infinity')
		AND abs(a - b) <= 1e-6 * greatest(1, abs(a), abs(b))) $$;
SQL
}

# two tables that views join, and a plain view; filled before any view is created
sub make_lookups
{
	my @sql;
	push @sql, 'CREATE TABLE look (k int4 PRIMARY KEY, name text, n numeric(10,2), d date, tags text[])';
	push @sql, "INSERT INTO look SELECT i, CASE WHEN i % 4 > 0 THEN 'name ' || i % 3 END, i * 1.25, date '2026-01-01' + i, ARRAY['t' || i % 2, 'u'] FROM generate_series(-2, "
	  . (2 + rnd(8)) . ') i';
	push @sql, 'CREATE TABLE pairs (k int4, code text, weight int8, t timestamptz)';
	push @sql, "INSERT INTO pairs SELECT i % 6, (ARRAY['a', 'b', 'Ab', 'apple', NULL])[i % 5 + 1], i, '2026-01-01 00:00+00'::timestamptz + i * interval '7 hours' FROM generate_series(1, "
	  . (5 + rnd(15)) . ') i';
	push @sql, 'CREATE INDEX ON pairs (k)' if chance(50);
	push @sql, 'CREATE VIEW plain AS SELECT k, count(*) AS n, min(code) AS code FROM pairs GROUP BY k';
	return @sql;
}

# make_stream(): { name, cols => [ { name, ref, type } ... ], ddl => [...], later => [...], key }
sub make_stream
{
	my (%options) = @_;
	my $t = { name => $options{name} // 's', ddl => [], added => [] };
	my @cols = ({ name => 'id', type => 'int8', extra => ' NOT NULL' }, { name => 'k', type => 'int4' },
		{ name => 'at', type => 'timestamptz', extra => ' NOT NULL' });
	my $n = 4 + rnd(7);
	for my $i (1 .. $n)
	{
		my $col = { name => other_names("c$i"), type => one_of(@type_names) };
		$col->{extra} = ' NOT NULL' if chance(8);
		$col->{extra} = ' DEFAULT ' . literal($col) if !$col->{extra} && chance(10);
		push @cols, $col;
	}
	if (chance(60))
	{
		$t->{event} = { name => 'et', type => one_of('event_tz', 'event_tz', 'event_ts', 'event_d', 'event_i'), extra => ' NOT NULL' };
		push @cols, $t->{event};
	}
	push @cols, { name => 'made', type => 'int8', made => '(k::int8 * 3 + 1)' } if chance(25);
	push @cols, { name => 'madet', type => 'text', made => "('<' || coalesce(k::text, '') || '>')" } if chance(10);
	# two columns of the sort that most aggregates take
	push @cols, { name => 'x', type => one_of('float8', 'numeric', 'dec') }, { name => 'v', type => one_of('int4', 'int8', 'int2') };

	my @order = @cols;
	if (chance(30))
	{
		# dropped columns
		splice @order, rnd(scalar @order), 0, { name => 'gone' . $_, type => one_of(@type_names), gone => 1 } for 1 .. 1 + rnd(2);
	}
	my $define = sub {
		my ($c) = @_;
		return "$c->{name} $TYPES{$c->{type}}{sql}"
		  . ($c->{made} ? " GENERATED ALWAYS AS $c->{made} STORED" : ($c->{extra} // ''));
	};
	my $kind = one_of('plain', 'plain', 'plain', 'list', 'range', 'hash', 'deep');
	my $by = { list => ' PARTITION BY LIST (k)', range => ' PARTITION BY RANGE (at)', hash => ' PARTITION BY HASH (id)',
		deep => ' PARTITION BY LIST (k)' }->{$kind} // '';
	my $with = ($kind eq 'plain' && chance(20)) ? ' WITH (fillfactor = 40)' : '';
	push @{ $t->{ddl} }, "CREATE TABLE $t->{name} (" . join(', ', map { $define->($_) } @order) . ")$by$with";
	push @{ $t->{ddl} }, "ALTER TABLE $t->{name} DROP COLUMN $_->{name}" for grep { $_->{gone} } @order;
	$t->{kind} = $kind;
	# a partition with its columns in another order
	my $other = sub {
		my ($name, $bounds) = @_;
		my @left = @cols;
		my @mixed;
		push @mixed, splice(@left, rnd(scalar @left), 1) while @left;
		return ("CREATE TABLE $name (" . join(', ', map { $define->($_) } @mixed) . ')',
			"ALTER TABLE $t->{name} ATTACH PARTITION $name $bounds");
	};
	if ($kind eq 'list' || $kind eq 'deep')
	{
		push @{ $t->{ddl} }, "CREATE TABLE $t->{name}_1 PARTITION OF $t->{name} FOR VALUES IN (0, 1, 2, NULL)";
		push @{ $t->{ddl} }, $kind eq 'list'
		  ? $other->("$t->{name}_2", 'FOR VALUES IN (3, 4, 5, 6)')
		  : ("CREATE TABLE $t->{name}_2 PARTITION OF $t->{name} FOR VALUES IN (3, 4, 5, 6) PARTITION BY RANGE (at)",
			"CREATE TABLE $t->{name}_21 PARTITION OF $t->{name}_2 FOR VALUES FROM (MINVALUE) TO ('2026-02-01 00:00+00')",
			"CREATE TABLE $t->{name}_22 PARTITION OF $t->{name}_2 FOR VALUES FROM ('2026-02-01 00:00+00') TO (MAXVALUE)");
		push @{ $t->{ddl} }, "CREATE TABLE $t->{name}_d PARTITION OF $t->{name} DEFAULT" if chance(90);
	}
	elsif ($kind eq 'range')
	{
		push @{ $t->{ddl} }, $other->("$t->{name}_1", "FOR VALUES FROM (MINVALUE) TO ('2026-01-03 00:00+00')");
		push @{ $t->{ddl} }, "CREATE TABLE $t->{name}_2 PARTITION OF $t->{name} FOR VALUES FROM ('2026-01-03 00:00+00') TO ('2026-03-05 00:00+00')";
		push @{ $t->{ddl} }, "CREATE TABLE $t->{name}_d PARTITION OF $t->{name} DEFAULT";
	}
	elsif ($kind eq 'hash')
	{
		push @{ $t->{ddl} }, "CREATE TABLE $t->{name}_$_ PARTITION OF $t->{name} FOR VALUES WITH (MODULUS 3, REMAINDER $_)" for 0 .. 2;
	}
	push @{ $t->{ddl} }, "ALTER TABLE $t->{name} ADD PRIMARY KEY (id" . ($kind eq 'range' ? ', at' : '') . ')'
	  if $kind !~ /list|deep/ && chance(60);
	push @{ $t->{ddl} }, "CREATE INDEX ON $t->{name} (k)" if chance(30);
	for my $c (@cols)
	{
		push @{ $t->{ddl} }, "ALTER TABLE $t->{name} ALTER $c->{name} SET STORAGE external"
		  if $c->{type} eq 'wide' && $kind eq 'plain' && chance(50);
	}
	$t->{cols} = \@cols;
	$t->{next_id} = 1;
	return $t;
}

# the text of a literal, or 'NULL'
sub literal
{
	my ($col) = @_;
	return 'NULL' if ($col->{extra} // '') !~ /NOT NULL/ && chance(12);
	return quoted($TYPES{ $col->{type} }{v}->());
}

# make_rows(TABLE, COUNT): rows as lists of SQL literals, for the columns that are not generated
sub make_rows
{
	my ($t, $count) = @_;
	my @rows;
	for (1 .. $count)
	{
		push @rows, [ map { $_->{name} eq 'id' ? quoted($t->{next_id}++) : $_->{name} eq 'k' ? (chance(8) ? 'NULL' : quoted(rnd(8))) : literal($_) }
			  grep { !$_->{made} } @{ $t->{cols} } ];
	}
	return @rows;
}

# a literal as a value of COPY ... (FORMAT csv, NULL '\N')
sub copy_value
{
	my ($literal) = @_;
	return '\N' if $literal eq 'NULL';
	$literal = substr($literal, 1, -1);
	$literal =~ s/''/'/g;
	$literal =~ s/"/""/g;
	return qq{"$literal"};
}

1;
