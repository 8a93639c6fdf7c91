# FuzzQuery.pm
#		Random queries over a random stream: mostly such as a continuous view can keep.
#
# make_query(STREAM) returns { sql, refuse }.  In sql the stream is called __S__, so that the
# same query can be run over another table with the same columns.  refuse is set where one thing
# was put in that cannot be kept; such a query must be refused cleanly, or be exact.
#
# An expression avoids run-time errors: a row that raises one goes to the dead letters, and
# then view and query differ rightly.  What stands over keys, minima and maxima uses only the value
# and not its looks where a type has several for one value (1.0 and 1.00).
package FuzzQuery;

use strict;
use warnings;

use Exporter 'import';
use FuzzData;

our @EXPORT = qw(make_query);

# what the expressions of a query can use: class => [ references ]
my $scope;
my $stream;
my $correlated;		# a sub-select may be put in

sub column
{
	my ($class) = @_;
	my $list = $scope->{$class};
	return $list && @$list ? one_of(@$list) : undef;
}

my %constant = (
	i => sub { rnd(14) - 4 },
	n => sub { '(' . (rnd(100) / 4) . ')::numeric' },
	f => sub { '(' . (rnd(64) / 4) . ')::float8' },
	t => sub { quoted(one_of('a', 'x', 'apple', '', 'é%', 'b_')) . '::text' },
	b => sub { one_of('true', 'false', 'NULL::bool') },
	d => sub { "date '2026-01-0" . (1 + rnd(8)) . "'" },
	ts => sub { "timestamp '2026-01-0" . (1 + rnd(8)) . " 11:00'" },
	tz => sub { "timestamptz '2026-01-0" . (1 + rnd(8)) . " 11:00+00'" },
	iv => sub { "interval '" . one_of('1 day', '2 hours', '1 month', '-7 minutes') . "'" },
	ai => sub { "'{1,2}'::int[]" },
	at => sub { "'{a,b}'::text[]" },
	j => sub { qq('{"a": 2}'::jsonb) },
	u => sub { "'00000000-0000-4000-8000-000000000001'::uuid" },
	by => sub { "'\\x00ff'::bytea" },
	e => sub { "'medium'::fz_size" },
	r => sub { "'[1,4)'::int4range" },
);

my %make;
%make = (
	i => [
		sub { my ($d) = @_; '(' . gen('i', $d) . '::int8 + ' . gen('i', $d) . ')' },
		sub { my ($d) = @_; '(' . gen('i', $d) . '::int8 - ' . gen('i', $d) . ')' },
		sub { my ($d) = @_; '((' . gen('i', $d) . ' % 1000) * (' . gen('i', $d) . '::int8 % 1000))' },
		sub { my ($d) = @_; '(' . gen('i', $d) . '::int8 / nullif(' . gen('i', $d) . ', 0))' },
		sub { my ($d) = @_; '(' . gen('i', $d) . '::int8 % ' . (2 + rnd(6)) . ')' },
		sub { my ($d) = @_; 'abs(' . gen('i', $d) . '::int8)' },
		sub { my ($d) = @_; '(- ' . gen('i', $d) . '::int8)' },
		sub { my ($d) = @_; 'length(' . gen('t', $d) . ')' },
		sub { my ($d) = @_; '(' . gen('b', $d) . ')::int' },
		sub { my ($d) = @_; 'cardinality(' . gen(one_of('ai', 'at'), $d) . ')' },
		sub { my ($d) = @_; 'octet_length(' . gen('by', $d) . ')' },
		sub { my ($d) = @_; 'fz_double(' . gen('i', $d) . ' % 100000)' },
		sub { my ($d) = @_; 'greatest(' . gen('i', $d) . '::int8, ' . gen('i', $d) . ', 3)' },
		sub { my ($d) = @_; 'strpos(' . gen('t', $d) . ", 'a')" },
		sub { my ($d) = @_; 'ascii(' . gen('t', $d) . ')' },
		sub { my ($d) = @_; 'lower(' . gen('r', $d) . ')' },
		sub { my ($d) = @_; 'hashtext(' . gen('t', $d) . ')' },
		sub { my ($d) = @_; 'streamext.tumble((' . gen('i', $d) . ')::int8, ' . (2 + rnd(9)) . '::int8)' },
	],
	n => [
		sub { my ($d) = @_; '(' . gen('i', $d) . ')::numeric' },
		sub { my ($d) = @_; '(' . gen('n', $d) . one_of(' + ', ' - ', ' * ') . gen('n', $d) . ')' },
		sub { my ($d) = @_; 'round(' . gen('n', $d) . ', ' . rnd(3) . ')' },
		sub { my ($d) = @_; one_of('floor', 'ceil', 'abs', 'sign') . '(' . gen('n', $d) . ')' },
		sub { my ($d) = @_; '(' . gen('n', $d) . ' / nullif(' . gen('n', $d) . ', 0))' },
		sub { my ($d) = @_; 'extract(' . one_of('year', 'month', 'day', 'dow', 'epoch') . ' FROM ' . gen('ts', $d) . ')' },
		sub { my ($d) = @_; 'extract(' . one_of('year', 'hour', 'week', 'epoch') . ' FROM ' . gen('tz', $d) . ')' },
	],
	f => [
		sub { my ($d) = @_; '(' . gen('f', $d) . one_of(' + ', ' - ') . gen('f', $d) . ')' },
		sub { my ($d) = @_; '(' . gen('f', $d) . ' * 0.5::float8)' },
		sub { my ($d) = @_; '(' . gen('i', $d) . ' % 4096)::float8' },
		sub { my ($d) = @_; 'floor(' . gen('f', $d) . ')' },
	],
	t => [
		sub { my ($d) = @_; one_of('lower', 'upper', 'md5', 'trim', 'reverse', 'initcap') . '(' . gen('t', $d) . ')' },
		sub { my ($d) = @_; one_of('left', 'right') . '(' . gen('t', $d) . ', ' . rnd(5) . ')' },
		sub { my ($d) = @_; '(' . gen('t', $d) . " || '-" . rnd(3) . "')" },
		sub { my ($d) = @_; '(' . gen('i', $d) . ')::text' },
		sub { my ($d) = @_; '(' . gen('b', $d) . ')::text' },
		sub { my ($d) = @_; 'substring(' . gen('t', $d) . ' from ' . (1 + rnd(3)) . ' for 2)' },
		sub { my ($d) = @_; 'replace(' . gen('t', $d) . ", 'a', 'Z')" },
		sub { my ($d) = @_; "concat_ws('/', " . gen('i', $d) . ', ' . gen('i', $d) . ')' },
		sub { my ($d) = @_; "to_char(" . gen('ts', $d) . ", 'YYYY-MM')" },
		sub { my ($d) = @_; '(' . gen('d', $d) . ')::text' },
		sub { my ($d) = @_; '(' . gen('tz', $d) . ')::text' },
		sub { my ($d) = @_; '(' . gen('j', $d) . " ->> 'a')" },
		sub { my ($d) = @_; 'encode(' . gen('by', $d) . ", 'hex')" },
		sub { my ($d) = @_; '(' . gen('at', $d) . ')[1]' },
		sub { my ($d) = @_; "format('%s<%s>', " . gen('i', $d) . ', ' . gen('i', $d) . ')' },
		sub { my ($d) = @_; 'fz_label(' . gen('t', $d) . ')' },
		sub { my ($d) = @_; 'lpad(' . gen('t', $d) . ", 3, '*')" },
		sub { my ($d) = @_; "regexp_replace(" . gen('t', $d) . ", '[aeiou]', '_', 'g')" },
		sub { my ($d) = @_; my $w = column('w'); $w ? one_of("left($w, 3)", "md5($w)") : gen('t', $d) },
		sub { my ($d) = @_; my $h = column('ip'); $h ? "host($h)" : gen('t', $d) },
		sub { my ($d) = @_; my $c = column('c'); $c ? "($c).t" : gen('t', $d) },
		sub { my ($d) = @_; my $c = column('bp'); $c ? "($c)::text" : gen('t', $d) },
	],
	b => [
		sub { my ($d) = @_; my $c = one_of('i', 'n', 'f', 'd', 'ts', 'tz', 'iv', 'u', 'by', 'e', 'r'); '(' . gen($c, $d) . one_of(' < ', ' = ', ' >= ', ' <> ') . gen($c, $d) . ')' },
		sub { my ($d) = @_; '(' . gen('i', $d) . one_of(' < ', ' > ', ' <= ', ' = ') . gen('i', 0) . ')' },
		sub { my ($d) = @_; '(' . gen('t', $d) . one_of(' < ', ' = ', ' >= ', ' <> ') . $constant{t}->() . ')' },
		sub { my ($d) = @_; '(' . gen('t', $d) . ' ' . one_of('LIKE', 'ILIKE', '~', 'NOT LIKE') . " 'a%')" },
		sub { my ($d) = @_; '(' . gen('b', $d) . one_of(' AND ', ' OR ') . gen('b', $d) . ')' },
		sub { my ($d) = @_; '(NOT ' . gen('b', $d) . ')' },
		sub { my ($d) = @_; '(' . gen(one_of('i', 't', 'n', 'd'), $d) . one_of(' IS NULL', ' IS NOT NULL') . ')' },
		sub { my ($d) = @_; '(' . gen('i', $d) . ' BETWEEN -2 AND ' . rnd(9) . ')' },
		sub { my ($d) = @_; '(' . gen('i', $d) . ' IN (1, 2, ' . rnd(9) . '))' },
		sub { my ($d) = @_; '(' . gen('i', $d) . '::int = ANY (' . gen('ai', $d) . '))' },
		sub { my ($d) = @_; '(' . gen('i', $d) . ' IS ' . one_of('', 'NOT ') . 'DISTINCT FROM ' . gen('i', $d) . ')' },
		sub { my ($d) = @_; '(' . gen('ai', $d) . one_of(' @> ', ' && ') . "'{1}'::int[])" },
		sub { my ($d) = @_; '(' . gen('r', $d) . ' @> ' . rnd(6) . ')' },
		sub { my ($d) = @_; '(' . gen('j', $d) . one_of(" ? 'a'", q( @> '{"a": 1}'), " IS NULL") . ')' },
		sub { my ($d) = @_; '((' . gen('i', $d) . ', ' . gen('i', $d) . ') > (1, ' . rnd(5) . '))' },
		sub { my ($d) = @_; my $c = column('nd'); $c ? "($c = 'one')" : gen('b', $d) },
		sub { my ($d) = @_; my $c = column('w'); $c ? "($c > 'b')" : gen('b', $d) },
		sub { my ($d) = @_; my $c = column('c'); $c ? "(($c).n > 1)" : gen('b', $d) },
	],
	d => [
		sub { my ($d) = @_; '(' . gen('ts', $d) . ')::date' },
		sub { my ($d) = @_; '(' . gen('tz', $d) . ')::date' },
		sub { my ($d) = @_; '(' . gen('d', $d) . ' + ' . rnd(9) . ')' },
		sub { my ($d) = @_; '(' . gen('d', $d) . ' + (' . gen('i', 0) . ' % 100)::int)' },
		sub { my ($d) = @_; "streamext.tumble(" . gen('d', $d) . ", interval '" . one_of('7 days', '1 month', '2 days') . "')" },
	],
	ts => [
		sub { my ($d) = @_; '(' . gen('d', $d) . ')::timestamp' },
		sub { my ($d) = @_; '(' . gen('ts', $d) . one_of(' + ', ' - ') . gen('iv', $d) . ')' },
		sub { my ($d) = @_; "date_trunc('" . one_of('hour', 'day', 'month', 'week') . "', " . gen('ts', $d) . ')' },
		sub { my ($d) = @_; "date_bin('" . one_of('15 minutes', '2 days') . "', " . gen('ts', $d) . ", timestamp '2001-01-01')" },
		sub { my ($d) = @_; '(' . gen('tz', $d) . " AT TIME ZONE '" . one_of('UTC', 'Europe/Berlin', 'Asia/Kolkata') . "')" },
		sub { my ($d) = @_; "streamext.tumble(" . gen('ts', $d) . ", interval '" . one_of('1 hour', '1 month', '10 days') . "')" },
	],
	tz => [
		sub { my ($d) = @_; '(' . gen('tz', $d) . one_of(' + ', ' - ') . gen('iv', $d) . ')' },
		sub { my ($d) = @_; "date_trunc('" . one_of('hour', 'day', 'month', 'year') . "', " . gen('tz', $d) . ')' },
		sub { my ($d) = @_; "date_trunc('day', " . gen('tz', $d) . ", 'America/New_York')" },
		sub { my ($d) = @_; "streamext.tumble(" . gen('tz', $d) . ", interval '" . one_of('5 minutes', '1 hour', '7 days') . "'"
			  . one_of('', '', ", 'Europe/Berlin'", ", timestamptz '2026-01-01 00:01+00'") . ')' },
		sub { my ($d) = @_; "streamext.window_end(streamext.tumble(" . gen('tz', $d) . ", interval '1 hour'), interval '1 hour')" },
		sub { my ($d) = @_; '(' . gen('ts', $d) . " AT TIME ZONE 'Europe/Berlin')" },
		sub { my ($d) = @_; '(' . gen('ts', $d) . ')::timestamptz' },
	],
	iv => [
		sub { my ($d) = @_; '(' . gen('iv', $d) . ' + ' . gen('iv', $d) . ')' },
		sub { my ($d) = @_; '(' . gen('iv', $d) . ' * 2)' },
		sub { my ($d) = @_; '((' . gen('i', $d) . " % 1000) * interval '1 minute')" },
	],
	u => [ sub { my ($d) = @_; 'md5(' . gen('t', $d) . ')::uuid' } ],
	j => [
		sub { my ($d) = @_; "jsonb_build_object('a', " . gen('i', $d) . ", 'b', " . gen('t', $d) . ')' },
		sub { my ($d) = @_; 'to_jsonb(' . gen(one_of('i', 'b', 'ai'), $d) . ')' },
		sub { my ($d) = @_; '(' . gen('j', $d) . " -> 'b')" },
		sub { my ($d) = @_; '(' . gen('j', $d) . " #> '{b,0}')" },
	],
	by => [
		sub { my ($d) = @_; 'convert_to(' . gen('t', $d) . ", 'UTF8')" },
		sub { my ($d) = @_; '(' . gen('by', $d) . " || '\\x01'::bytea)" },
	],
	ai => [
		sub { my ($d) = @_; 'ARRAY[(' . gen('i', $d) . ' % 10000)::int, ' . rnd(4) . ']' },
		sub { my ($d) = @_; 'array_remove(ARRAY[1, ' . rnd(3) . "], 1)" },
	],
	at => [
		sub { my ($d) = @_; 'string_to_array(' . gen('t', $d) . ", 'a')" },
		sub { my ($d) = @_; 'ARRAY[' . gen('t', $d) . ", 'x']" },
	],
	e => [],
	r => [ sub { my ($d) = @_; 'int4range(0, abs(' . gen('i', $d) . ' % 50)::int)' } ],
);

# a sub-select over a lookup
my @subselects = (
	[ 'i', sub { '(SELECT max(y.weight) FROM pairs y WHERE y.k = ' . gen('i', 0) . ')' } ],
	[ 'i', sub { '(SELECT count(*) FROM pairs y WHERE y.k > ' . gen('i', 0) . ' AND y.code IS NOT NULL)' } ],
	[ 't', sub { '(SELECT y.name FROM look y WHERE y.k = ' . gen('i', 0) . ')' } ],
	[ 'n', sub { '(SELECT sum(y.n) FROM look y WHERE y.k <= ' . gen('i', 0) . ')' } ],
	[ 'b', sub { one_of('', 'NOT ') . 'EXISTS (SELECT FROM pairs y WHERE y.k = ' . gen('i', 0) . " AND y.weight > " . rnd(15) . ')' } ],
	[ 'b', sub { '(' . gen('i', 0) . one_of(' IN ', ' NOT IN ') . '(SELECT y.k FROM look y WHERE y.n > ' . rnd(5) . '))' } ],
	[ 'b', sub { '(' . gen('t', 0) . ' = ANY (ARRAY(SELECT y.code COLLATE "C" FROM pairs y)))' } ],
	[ 'ai', sub { 'ARRAY(SELECT y.k FROM pairs y WHERE y.weight = ' . gen('i', 0) . ' ORDER BY y.k)' } ],
);

# gen(CLASS, DEPTH): an expression of that class
sub gen
{
	my ($class, $depth) = @_;
	my $col = column($class);
	if ($depth <= 0)
	{
		return $col if defined $col && chance(80);
		return $constant{$class} ? $constant{$class}->() : $col // 'NULL';
	}
	return $col if defined $col && chance(35);
	if ($correlated && chance(5))
	{
		my @fit = grep { $_->[0] eq $class } @subselects;
		return one_of(@fit)->[1]->() if @fit;
	}
	if ($constant{$class} && chance(12))
	{
		my $d = $depth - 2;
		# two columns may have two collations
		my $collate = $class eq 't' ? ' COLLATE "C"' : '';
		return one_of(
			sub { '(CASE WHEN ' . gen('b', $d) . ' THEN ' . gen($class, $d) . ' ELSE ' . gen($class, $d) . ' END)' . $collate },
			sub { 'CASE WHEN ' . gen('b', $d) . ' THEN ' . gen($class, $d) . ' END' },
			sub { 'coalesce(' . gen($class, $d) . ', ' . $constant{$class}->() . ')' },
			sub { 'nullif(' . gen($class, $d) . ', ' . $constant{$class}->() . ')' })->();
	}
	my $list = $make{$class};
	return one_of(@$list)->($depth - 1) if $list && @$list;
	return gen($class, 0);
}

# classes of which a key can be made, those that are likely first
my @key_classes = ('i', 'i', 't', 't', 'b', 'd', 'ts', 'tz', 'e', 'u', 'n', 'ip', 'r', 'ai', 'at', 'by', 'iv', 'c', 'nd', 'bp',
	'tm', 'mac', 'j', 'f', 'oid', 'ch', 'nm', 'lsn', 'x8', 'm8', 'mr', 'tr');
my @minmax = ('i', 'n', 'f', 't', 'd', 'ts', 'tz', 'iv', 'e', 'ip', 'ai', 'at', 'bp', 'mo', 'tm', 'w', 'nd', 'oid', 'lsn');

# sometimes more than the class says: the class whose expressions exist here
sub some_class
{
	for (1 .. 20)
	{
		my $class = one_of(@_);
		return $class if $make{$class} && @{ $make{$class} } || $scope->{$class} && @{ $scope->{$class} };
	}
	return 'i';
}

# an aggregate call: (sql, class of result, safe: its value can be used further)
sub aggregate
{
	my $d = 1 + rnd(2);
	my ($sql, $class) = @{ one_of(
		sub { [ 'count(*)', 'i' ] },
		sub { [ 'count(*)', 'i' ] },
		sub { [ 'count(' . gen(some_class(@key_classes), $d) . ')', 'i' ] },
		sub { [ 'sum(' . gen('i', $d) . ')', 'i8' ] },
		sub { [ 'sum(' . gen('n', $d) . ')', 'N' ] },
		sub { [ 'sum(' . gen('f', $d) . ')', 'F' ] },
		sub { [ 'sum(' . gen('iv', $d) . ')', '' ] },
		sub { [ 'avg(' . gen('i', $d) . ')', 'N' ] },
		sub { [ 'avg(' . gen(one_of('n', 'f', 'iv'), $d) . ')', '' ] },
		sub { my $c = some_class(@minmax); [ one_of('min', 'max') . '(' . gen($c, $d) . ')', $c =~ /^(i|b|d|ts|tz|e)$/ ? $c : '' ] },
		sub { my $c = some_class(@minmax); [ one_of('min', 'max') . '(' . gen($c, $d) . ')', $c =~ /^(i|b|d|ts|tz|e)$/ ? $c : '' ] },
		sub { [ one_of('bool_and', 'bool_or', 'every') . '(' . gen('b', $d) . ')', 'b' ] },
		sub { [ one_of('bit_and', 'bit_or', 'bit_xor') . '(' . gen('i', $d) . '::int8)', 'i' ] },
		sub { my $c = column('bit'); [ $c ? one_of('bit_and', 'bit_or') . "($c)" : 'count(*)', '' ] },
		sub { my $c = column('mo'); [ $c ? "sum($c)" : 'count(*)', '' ] },
		sub { [ one_of('stddev', 'variance', 'var_pop', 'stddev_pop', 'var_samp', 'stddev_samp') . '(' . gen(one_of('i', 'n', 'f'), $d) . ')', '' ] },
		sub { [ one_of('corr', 'covar_pop', 'covar_samp', 'regr_slope', 'regr_r2', 'regr_count', 'regr_intercept', 'regr_avgx', 'regr_sxx', 'regr_sxy')
			  . '(' . gen('f', 0) . ', ' . gen('f', 0) . ')', '' ] },
		sub { [ 'fz_sum(' . gen('i', $d) . ')', 'i' ] },
		sub { [ 'fz_nulls(' . gen(some_class('i', 't', 'n', 'ai', 'c', 'j', 'w'), $d) . ')', '' ] },
		sub { my $c = some_class('i', 't', 'd'); [ 'fz_three(' . gen($c, $d) . ($c eq 't' ? ' COLLATE "C"' : '') . ')', '' ] },
		sub { [ 'fz_mean((' . gen('i', 0) . ')::numeric, (' . gen('i', 0) . ')::numeric)', '' ] },
		sub { [ 'fz_longest((' . gen('t', $d) . ') COLLATE "C")', '' ] },
		sub { [ 'fz_var(' . gen('n', $d) . ')', '' ] },
		sub { [ 'fz_avg((' . gen('i', 0) . ' % 10000)::int)', '' ] },
		sub { [ 'range_intersect_agg(' . gen('r', $d) . ')', '' ] },
	)->() };
	$sql .= ' FILTER (WHERE ' . gen('b', 1 + rnd(2)) . ')' if chance(20);
	return ($sql, $class);
}

# an expression over aggregates (and keys), or one alone
sub over_aggregates
{
	my ($keys) = @_;
	my ($a, $class) = aggregate();
	return ($a, $class) if chance(60);
	if ($class eq 'i' || $class eq 'i8')
	{
		my ($b, $other) = aggregate();
		return ("($a % 1000 + 1)", 'i') if chance(30);
		return ("coalesce($a, 0)", 'i') if chance(20);
		return ("round(($a)::numeric / nullif($b, 0), 3)", 'N') if $other =~ /^i/ && chance(40);
		return ("CASE WHEN $a > 3 THEN 'many' WHEN $b IS NULL THEN 'none' ELSE 'few' END", 't') if chance(50);
		return ("($a)::text || '!'", 't') if $class eq 'i';
	}
	return ("round($a, 2)", 'N') if $class eq 'N' && chance(60);
	return ("($a IS NULL)", 'b') if chance(30);
	return ("(NOT $a)", 'b') if $class eq 'b';
	return ("($a + interval '1 day')", $class) if $class eq 'tz' || $class eq 'ts';
	return ("coalesce($a, NULL)", $class);
}

# FROM: sets the scope; returns the text
sub make_from
{
	my $s = one_of('__S__', '__S__ AS t', '__S__ t');
	my $a = $s eq '__S__' ? '__S__' : 't';
	my %add;
	my $from;

	$scope = {};
	for my $c (@{ $stream->{cols} })
	{
		push @{ $scope->{ $TYPES{ $c->{type} }{class} } }, "$a.$c->{name}";
	}
	my $shape = rnd(26);
	if ($shape < 9)
	{
		$from = $s;
	}
	elsif ($shape == 9)
	{
		$from = "$s JOIN look l ON l.k = $a.k";
		%add = (i => ['l.k'], t => ['l.name'], n => ['l.n'], d => ['l.d'], at => ['l.tags']);
	}
	elsif ($shape == 10)
	{
		$from = "$s LEFT JOIN look l USING (k)";
		%add = (i => ['k'], t => ['l.name'], n => ['l.n'], d => ['l.d']);
	}
	elsif ($shape == 11)
	{
		$from = "$s LEFT JOIN pairs p ON p.k = $a.k AND p.weight > " . rnd(9);
		%add = (i => [ 'p.weight', 'p.k' ], t => ['p.code'], tz => ['p.t']);
	}
	elsif ($shape == 12)
	{
		$from = "look l RIGHT JOIN $s ON l.k = $a.k";
		%add = (t => ['l.name'], n => ['l.n']);
	}
	elsif ($shape == 13)
	{
		$from = "$s, look l";
		%add = (t => ['l.name'], i => ['l.k'], where => ["l.k = $a.k"]);
	}
	elsif ($shape == 14)
	{
		$from = "$s JOIN look l USING (k) LEFT JOIN pairs p USING (k)";
		%add = (i => [ 'k', 'p.weight' ], t => [ 'l.name', 'p.code' ], n => ['l.n']);
	}
	elsif ($shape == 15)
	{
		$from = "$s LEFT JOIN (SELECT k AS pk, count(*) AS n, max(code) AS code FROM pairs GROUP BY k HAVING count(*) > 1) x ON x.pk = $a.k";
		%add = (i => ['x.n'], t => ['x.code']);
	}
	elsif ($shape == 16)
	{
		$from = "$s JOIN plain x ON x.k = $a.k";
		%add = (i => ['x.n'], t => ['x.code']);
	}
	elsif ($shape == 17)
	{
		$from = "$s CROSS JOIN (VALUES (1, 'one'), (2, 'two')) AS x(i, w)";
		%add = (i => ['x.i'], t => ['x.w']);
	}
	elsif ($shape == 18)
	{
		$from = "$s, LATERAL (SELECT p.code, p.weight FROM pairs p WHERE p.k = $a.k ORDER BY p.weight DESC LIMIT 1) x";
		%add = (i => ['x.weight'], t => ['x.code']);
	}
	elsif ($shape == 19)
	{
		$from = "$s LEFT JOIN LATERAL generate_series(1, ($a.k % 3)::int) g ON true";
		%add = (i => ['g']);
	}
	elsif ($shape == 20)
	{
		my ($class) = grep { $scope->{$_} } ('ai', 'at');
		if ($class)
		{
			$from = "$s, unnest($scope->{$class}[0])" . (chance(50) ? ' WITH ORDINALITY AS g(el, no)' : ' AS g(el)');
			%add = ($class eq 'ai' ? 'i' : 't' => ['g.el']);
		}
		else
		{
			$from = $s;
		}
	}
	elsif ($shape == 21)
	{
		# the stream in a sub-select that passes rows through
		my @cols = map { "$_->{name} AS $_->{name}" } @{ $stream->{cols} };
		my $inner = 'SELECT ' . join(', ', @cols) . ', k::int8 % 3 AS third FROM __S__ WHERE ' . (chance(50) ? 'k IS NOT NULL' : 'true');
		$from = "($inner) $a" if $a eq 't';
		$from //= "($inner) t";
		$scope = {};
		push @{ $scope->{ $TYPES{ $_->{type} }{class} } }, "t.$_->{name}" for @{ $stream->{cols} };
		%add = (i => ['t.third']);
	}
	elsif ($shape == 22)
	{
		# in WITH, and a lookup in WITH
		my @cols = map { "$_->{name}" } @{ $stream->{cols} };
		$scope = {};
		push @{ $scope->{ $TYPES{ $_->{type} }{class} } }, "t.$_->{name}" for @{ $stream->{cols} };
		$add{with} = 'WITH t AS (SELECT ' . join(', ', @cols) . ' FROM __S__), m AS (SELECT k AS mk, max(weight) AS w FROM pairs GROUP BY k) ';
		$from = 't LEFT JOIN m ON m.mk = t.k';
		$add{i} = ['m.w'];
	}
	elsif ($shape == 23)
	{
		$from = "$s NATURAL LEFT JOIN (SELECT k, name AS look_name FROM look) l";
		%add = (t => ['look_name']);
	}
	elsif ($shape == 24)
	{
		$from = "(pairs p JOIN look l ON l.k = p.k) JOIN $s ON $a.k = p.k";
		%add = (t => [ 'l.name', 'p.code' ], i => ['p.weight']);
	}
	else
	{
		$from = "ONLY $s" if $stream->{kind} eq 'plain';
		$from //= $s;
	}
	my $extra = delete $add{where};
	my $with = delete $add{with} // '';
	for my $class (sort keys %add)
	{
		push @{ $scope->{$class} }, @{ $add{$class} };
		# likely to be used
		push @{ $scope->{$class} }, @{ $add{$class} } if chance(50);
	}
	return ($from, $with, $extra ? @$extra : ());
}

sub where_clause
{
	my (@conditions) = @_;
	push @conditions, gen('b', 1 + rnd(3)) if chance(45);
	return @conditions ? ' WHERE ' . join(' AND ', @conditions) : '';
}

# make_query(STREAM, wild => 1): wild ones may be refused
sub make_query
{
	my ($table, %options) = @_;
	$stream = $table;
	$correlated = 1;
	my ($from, $with, @conditions) = make_from();
	my $where = where_clause(@conditions);
	my $depth = 1 + rnd(3);
	my ($sql, $refuse, @outputs);

	if (chance(22))
	{
		# append
		my @items;
		if (chance(8) && $from !~ /LATERAL|JOIN|,|WITH/i && $with eq '')
		{
			@items = ('*');
		}
		else
		{
			for my $i (1 .. 1 + rnd(6))
			{
				my $class = some_class(@key_classes, 'w', 'w', 'tv', 'mo', 'bit', 'vb');
				push @items, gen($class, $depth) . " AS o$i";
				push @outputs, [ "o$i", $class ];
			}
		}
		$sql = 'SELECT ' . join(', ', @items) . " FROM $from$where";
		$sql .= ' ORDER BY 1' if chance(5);
	}
	else
	{
		my (@items, @group);
		my $nkeys = chance(12) ? 0 : 1 + rnd(3);
		my $n = 0;
		for my $i (1 .. $nkeys)
		{
			my $class = some_class(@key_classes);
			my $key = gen($class, $class =~ /^(i|t|d|ts|tz|b|n)$/ ? $depth : 0);
			$key = column($class) // $key if $key !~ /[a-z]/;
			# a constant is no key, a bare number would be an ordinal
			next if $key !~ /\w\.\w|\bk\b|\.\"|look_name|\bg\b/;
			my $how = rnd(10);
			if ($how < 5)
			{
				push @items, "$key AS g$i";
				push @group, $key;
				$n++;
			}
			elsif ($how < 7)
			{
				push @items, "$key AS g$i";
				push @group, scalar(@items);
			}
			elsif ($how < 9)
			{
				push @items, "$key AS g$i";
				push @group, "g$i";
			}
			else
			{
				# a key that is not put out
				push @group, $key;
				next;
			}
			push @outputs, [ "g$i", $class ];
			if ($class eq 'i' && chance(10))
			{
				push @items, "($key % 7) AS h$i";
			}
			elsif ($class =~ /^(i|t|d)$/ && chance(8))
			{
				push @items, "($key IS NULL) AS h$i";
			}
		}
		my $naggs = @group && chance(8) ? 0 : 1 + rnd(5);
		for my $i (1 .. $naggs)
		{
			my ($a, $class) = over_aggregates();
			push @items, "$a AS a$i";
			push @outputs, [ "a$i", 'i' ] if $class eq 'i';
		}
		@items = ('count(*) AS a1') unless @items;
		$sql = 'SELECT ' . join(', ', @items) . " FROM $from$where";
		$sql .= ' GROUP BY ' . join(', ', @group) if @group;
		if ($naggs > 0 && chance(15))
		{
			my ($a, $class) = aggregate();
			$sql .= ' HAVING ' . ($class =~ /^[iN]/ ? "$a > " . rnd(5) : $class eq 'b' ? $a : 'count(*) > ' . rnd(4));
		}
		$sql .= ' ORDER BY 1' if chance(5);
	}
	if ($options{wild} && chance(100))
	{
		($sql, $refuse) = spoil($sql, $from);
	}
	return { sql => "$with$sql", refuse => $refuse, outputs => \@outputs };
}

# one thing that a continuous view cannot keep (some of it is accepted with certain queries)
sub spoil
{
	my ($sql, $from) = @_;
	my $k = column('i') // '1';
	return @{ one_of(
		sub { [ $sql =~ s/^SELECT /SELECT DISTINCT /r, 'distinct' ] },
		sub { [ "$sql LIMIT 3", 'limit' ] },
		sub { [ $sql =~ s/^SELECT /SELECT now(), /r, 'now' ] },
		sub { [ $sql =~ s/^SELECT /SELECT random(), /r, 'random' ] },
		sub { [ "SELECT count(DISTINCT $k) AS n FROM $from", 'count distinct' ] },
		sub { [ "SELECT string_agg($k\::text, ',' ORDER BY $k) AS n FROM $from", 'ordered aggregate' ] },
		sub { [ "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY $k) AS n FROM $from", 'ordered set' ] },
		sub { [ "SELECT $k AS a, row_number() OVER (ORDER BY $k) FROM $from", 'window' ] },
		sub { [ "SELECT $k AS a, count(*) FROM $from GROUP BY ROLLUP ($k)", 'rollup' ] },
		sub { [ "($sql) UNION ALL ($sql)", 'union' ] },
		sub { [ "SELECT count(*) FROM __S__ a JOIN __S__ b USING (k)", 'self join' ] },
		sub { [ "SELECT l.name, count(*) FROM look l LEFT JOIN __S__ s ON s.k = l.k GROUP BY 1", 'nullable side' ] },
		sub { [ "SELECT l.name, count(*) FROM look l FULL JOIN __S__ s ON s.k = l.k GROUP BY 1", 'full join' ] },
		sub { [ "SELECT n, count(*) FROM (SELECT k, count(*) AS n FROM __S__ GROUP BY k) x GROUP BY n", 'nested aggregate' ] },
		sub { [ "SELECT k FROM __S__ TABLESAMPLE BERNOULLI (10)", 'sample' ] },
		sub { [ "SELECT k FROM __S__ FOR UPDATE", 'for update' ] },
		sub { [ "SELECT ctid, k FROM __S__", 'system column' ] },
		sub { [ "SELECT k, (SELECT max(k) FROM __S__) FROM __S__", 'in a sub-select' ] },
		sub { [ "SELECT json_agg(k) FROM __S__", 'no combine function' ] },
		sub { [ "SELECT xmlagg(xmlelement(name a, k)) FROM __S__", 'no combine function' ] },
		sub { [ "SELECT mode() WITHIN GROUP (ORDER BY k) FROM __S__", 'ordered set' ] },
		sub { [ "WITH RECURSIVE r AS (SELECT k FROM __S__ UNION ALL SELECT k - 1 FROM r WHERE k > 0) SELECT * FROM r", 'recursive' ] },
		sub { [ "SELECT current_user, k FROM __S__", 'user' ] },
		sub { [ "SELECT k FROM __S__ WHERE at > CURRENT_DATE", 'current date' ] },
		sub { [ "SELECT pg_sleep(0), k FROM __S__", 'volatile' ] },
		sub { [ "SELECT nextval('streamext.view_id_seq'), k FROM __S__", 'volatile' ] },
		sub { [ "SELECT k, v FROM __S__ GROUP BY k", 'not grouped' ] },
		sub { [ "SELECT generate_series(1, 2) AS g, count(*) FROM __S__ GROUP BY 1", 'set in keys' ] },
		sub { [ "SELECT unnest(ARRAY[k, 1]) AS u FROM __S__", 'set returning' ] },
		sub { [ "SELECT __S__ FROM __S__", 'whole row' ] },
		sub { [ "SELECT count(*) FROM __S__ GROUP BY ()", 'empty set' ] },
		sub { [ "SELECT k FROM __S__ EXCEPT SELECT k FROM look", 'except' ] },
		sub { [ "SELECT 1 AS a", 'no table' ] },
		sub { [ "VALUES (1), (2)", 'values' ] },
		sub { [ "SELECT FROM __S__", 'no columns' ] },
		sub { [ "SELECT count(*) FROM look", 'a table without a stream' ] },
		sub { [ "SELECT relname FROM pg_class", 'catalog' ] },
		sub { [ "SELECT * FROM streamext.views", 'our own' ] },
	)->() };
}

1;
