# Faults.pm
#		Who is killed, and the server brought up again.
#
# Processes are found in /proc, as children of the postmaster, so that a kill needs no
# connection.  What was killed is remembered: any other death in the log is a failure.
package Chaos::Faults;

use strict;
use warnings;

use Exporter 'import';

use PostgreSQL::Test::Utils;
use StreamextTest qw(psql_anyway);
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(choose_fault strike bring_up children killed_pids);

my %killed;

# pids of which a death is no surprise, with the signal
sub killed_pids { return \%killed }

# children(NODE): pid => title, of the server's processes
sub children
{
	my ($node) = @_;
	my $parent = $node->{_pid} or return {};
	my %found;
	for my $file (glob('/proc/[0-9]*/stat'))
	{
		open(my $in, '<', $file) or next;
		my $line = <$in> // next;
		close $in;
		my ($pid, $ppid) = $line =~ /^(\d+) \(.*\) \S (\d+)/s or next;
		next unless $ppid == $parent;
		open($in, '<', "/proc/$pid/cmdline") or next;
		my $title = <$in> // '';
		close $in;
		$title =~ tr/\0/ /;
		$found{$pid} = $title;
	}
	return \%found;
}

# what => pattern of the title
my %victims = (
	consumer => qr/streamext consumer/,
	flusher => qr/streamext flusher/,
	builder => qr/streamext builder/,
	swapper => qr/streamext swapper/,
	helper => qr/streamext helper/,
	launcher => qr/streamext launcher/,
	alerter => qr/streamext alerter/,
	backend => qr/\[local\]/,
	checkpointer => qr/checkpointer/,
	walwriter => qr/walwriter/,
	autovacuum => qr/autovacuum worker/,
);

# choose_fault(RANDOM): { kind, victim, delay }
sub choose_fault
{
	my ($random) = @_;
	my $fault = $random->by_weight('kill postmaster' => 12, 'kill consumer' => 10, 'kill flusher' => 10, 'kill builder' => 6, 'kill swapper' => 6, 'kill helper' => 5,
		'kill backend' => 10, 'kill checkpointer' => 5, 'kill walwriter' => 2, 'kill launcher' => 3, 'kill alerter' => 3, 'kill autovacuum' => 2,
		'terminate consumer' => 6, 'terminate flusher' => 5, 'terminate builder' => 5, 'terminate swapper' => 3, 'terminate helper' => 5, 'terminate backend' => 4, 'terminate launcher' => 2, 'terminate alerter' => 3,
		'cancel consumer' => 3, 'cancel flusher' => 3, 'cancel builder' => 3, 'cancel swapper' => 2, 'cancel helper' => 2, 'cancel alerter' => 1,
		'stop consumer' => 4, 'stop flusher' => 4, 'stop builder' => 3, 'stop swapper' => 2, 'stop helper' => 3, 'stop alerter' => 1,
		'restart fast' => 4, 'restart immediate' => 3, 'none at all' => 10);
	my ($kind, $victim) = split / /, $fault, 2;
	return { kind => $kind, victim => $victim, delay => (20 + $random->pick(900)) / 1000, pause => (20 + $random->pick(600)) / 1000,
		again => $random->chance(15), choice => $random->pick(1000) };
}

# strike(NODE, FAULT): true if the server went down or will restart its processes
sub strike
{
	my ($node, $fault) = @_;
	return 0 if $fault->{kind} eq 'none';
	if ($fault->{kind} eq 'restart')
	{
		$killed{$_} = 'shutdown' for keys %{ children($node) };
		$node->stop($fault->{victim});
		return 1;
	}
	if ($fault->{victim} eq 'postmaster')
	{
		$fault->{pid} = $node->{_pid};
		$node->kill9;
		return 1;
	}

	my $pid;
	# a builder lives for a moment only: wait for the next
	my $end = time + ($fault->{victim} =~ /builder|swapper|helper|autovacuum/ ? 0.6 : 0);
	do
	{
		my $children = children($node);
		my @pids = sort { $a <=> $b } grep { $children->{$_} =~ $victims{ $fault->{victim} } } keys %$children;
		$pid = $pids[ $fault->{choice} % @pids ] if @pids;
		sleep 0.005 unless $pid;
	} until ($pid || time > $end);
	unless ($pid)
	{
		$fault->{missed} = 1;
		return 0;
	}
	$fault->{pid} = $pid;
	if ($fault->{kind} eq 'kill')
	{
		$killed{$pid} = 9;
		kill 'KILL', $pid;
		return 1;
	}
	if ($fault->{kind} eq 'stop')
	{
		kill 'STOP', $pid;
		sleep $fault->{pause};
		kill 'CONT', $pid;
		return 0;
	}
	$killed{$pid} = 15 if $fault->{kind} eq 'terminate';
	$killed{$pid} //= 2;
	kill $fault->{kind} eq 'terminate' ? 'TERM' : 'INT', $pid;
	return 0;
}

# bring_up(NODE, FAULT): the server runs and answers; false after a minute
sub bring_up
{
	my ($node, $fault) = @_;
	my $end = time + 90;
	my $down = $fault->{victim} eq 'postmaster' || $fault->{kind} eq 'restart';
	if ($fault->{victim} eq 'postmaster')
	{
		# what the server left must be gone before a new one may start
		while (kill(0, $fault->{pid})) { return 0 if time > $end; sleep 0.02 }
	}
	my $again = $down && $fault->{again};
	while ($down)
	{
		$node->{_pid} = undef;
		if ($again)
		{
			# once more, while it recovers
			$again = 0;
			if (fork_start($node, $fault->{pause} / 3)) { next }
		}
		last if $node->start(fail_ok => 1);
		return 0 if time > $end;
		sleep 0.1;
	}
	while (1)
	{
		return 1 if answers($node);
		return 0 if time > $end;
		sleep 0.03;
	}
}

# starts the server and kills it before it may be ready
sub fork_start
{
	my ($node, $after) = @_;
	system('pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-W', '-s', '-o', '--cluster-name=' . $node->name, 'start');
	# the file of the server killed before may still be there: only a process in this directory counts
	my $pid;
	my $end = time + 30;
	until ($pid)
	{
		return 0 if time > $end;
		sleep 0.01;
		open(my $in, '<', $node->data_dir . '/postmaster.pid') or next;
		my $line = <$in> // '';
		close $in;
		$pid = $1 if $line =~ /^(\d+)$/ && (readlink("/proc/$1/cwd") // '') eq $node->data_dir;
	}
	sleep $after;
	kill 'KILL', $pid;
	$end = time + 30;
	while (kill(0, $pid) && time < $end) { sleep 0.02 }
	return 1;
}

sub answers
{
	my ($node) = @_;
	my ($out, $err) = ('', '');
	my $status = psql_anyway($node, 'postgres', 'SELECT NOT pg_is_in_recovery()', stdout => \$out, stderr => \$err,
		on_error_die => 0, timeout => 30);
	return defined $status && $status == 0 && $out eq 't';
}

1;
