# Random.pm
#		Random numbers that can be had again: one stream per purpose.
#
# A stream is named by numbers (seed, round, writer), so what one writer does depends on
# nothing that another does, and a single round can be run again by itself.
package Chaos::Random;

use strict;
use warnings;

sub new
{
	my ($class, @names) = @_;
	my $state = 12345;
	for my $name (@names)
	{
		$state = ($state ^ ($name & 0x7fffffff)) & 0x7fffffff;
		$state = ($state * 1103515245 + 12345) % 2**31 for 1 .. 5;
	}
	return bless { state => $state }, $class;
}

# 0 .. n - 1
sub pick
{
	my ($self, $n) = @_;
	# the low bits of such a generator repeat soon: use the high ones
	$self->{state} = ($self->{state} * 1103515245 + 12345) % 2**31;
	return int($self->{state} / 2**31 * $n);
}

sub between
{
	my ($self, $low, $high) = @_;
	return $low + $self->pick($high - $low + 1);
}

sub chance
{
	my ($self, $percent) = @_;
	return $self->pick(100) < $percent;
}

sub one_of
{
	my ($self, @list) = @_;
	return $list[ $self->pick(scalar @list) ];
}

# by_weight(a => 3, b => 1): "a" three times of four
sub by_weight
{
	my ($self, @pairs) = @_;
	my $sum = 0;
	for (my $i = 1; $i < @pairs; $i += 2) { $sum += $pairs[$i] }
	my $at = $self->pick($sum);
	while (@pairs)
	{
		my ($name, $weight) = splice(@pairs, 0, 2);
		return $name if $at < $weight;
		$at -= $weight;
	}
	die "by_weight without a weight";
}

1;
