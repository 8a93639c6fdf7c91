package Server;
# test/bench/Server.pm
#		A cluster of its own for one system, sessions and pgbench on it, and what its processes use.
#
# Processor time comes from /proc.  Sums are of all processes of the server, so nothing that a system does is
# overlooked: workers are the processes whose title the system names, and what has ended (pgbench's backends)
# is in the postmaster's account.
use strict;
use warnings;

use POSIX ();
use Time::HiRes qw(sleep time);

my $ports = 5432;

# The same for all systems.  Checkpoints and autovacuum would come where they like: workloads begin with a
# CHECKPOINT, and VACUUM what they read.
my $settings = <<'CONF';
listen_addresses = ''
shared_buffers = '1GB'
max_wal_size = '16GB'
min_wal_size = '4GB'
checkpoint_timeout = '1h'
autovacuum = off
max_worker_processes = 24
timezone = 'UTC'
CONF

sub new
{
	my ($class, $system) = @_;
	my $temp = $ENV{SX_TEMP};
	my $self = bless { system => $system, port => $ports++, data => "$temp/" . $system->name }, $class;

	command("initdb -D $self->{data} -A trust -U postgres -N -E UTF8 --locale=C");
	open(my $conf, '>>', "$self->{data}/postgresql.conf") or die $!;
	print $conf $settings, "unix_socket_directories = '$temp'\nport = $self->{port}\n", $system->settings;
	close $conf;
	command("pg_ctl -D $self->{data} -l $self->{data}.log -w -t 60 start", "$self->{data}.log");
	open(my $pid, '<', "$self->{data}/postmaster.pid") or die $!;
	chomp($self->{postmaster} = <$pid>);
	return $self;
}

sub system
{
	return $_[0]{system};
}

sub stop
{
	my ($self) = @_;
	command("pg_ctl -D $self->{data} -w -t 60 -m fast stop");
	return;
}

# command(LINE [, LOG]): runs it or dies with what it said
sub command
{
	my ($line, @logs) = @_;
	my $out = "$ENV{SX_TEMP}/command.out";
	return if CORE::system("$line >$out 2>&1 </dev/null") == 0;
	CORE::system('tail', '-n', '20', $out, @logs);
	die "failed: $line\n";
}

# A new database, with what the system needs there; a session.  There is but one: others would take their part of
# the machine.
sub database
{
	my ($self) = @_;
	$self->drop_database('CREATE DATABASE bench');
	my $session = Session->new($self, 'bench');
	$session->ask($_) for $self->{system}->installation;
	return $session;
}

sub drop_database
{
	my ($self, @and) = @_;
	my $session = Session->new($self, 'postgres');
	$session->ask($_) for 'DROP DATABASE IF EXISTS bench WITH (FORCE)', @and;
	$session->close;
	return;
}

# pgbench(SCRIPT or undef for its own, OPTIONS): tps, transactions, and latencies (average, ms)
sub pgbench
{
	my ($self, $script, @options) = @_;
	my $load = $self->load($script, @options);
	return $load->finish;
}

# the same, without waiting: finish() does
sub load
{
	return Load->new(@_);
}

# The server's processes: pid => title
sub processes
{
	my ($self) = @_;
	my %titles;

	for my $pid (map { m{^/proc/(\d+)/} } glob '/proc/[0-9]*/stat')
	{
		my $stat = slurp("/proc/$pid/stat") // next;
		next unless $stat =~ /^\d+ \(.*\) \S (\d+) /s && $1 == $self->{postmaster};
		($titles{$pid} = slurp("/proc/$pid/cmdline") // '') =~ tr/\0/ /;
	}
	return %titles;
}

# Processor seconds so far: of workers, of backends, and of the processes that every server has.
sub cpu
{
	my ($self) = @_;
	my %titles = $self->processes;
	my %used = (workers => 0, backends => 0, others => 0);

	for my $pid (keys %titles)
	{
		my ($nanoseconds) = (slurp("/proc/$pid/schedstat") // next) =~ /^(\d+)/;
		my $kind = $titles{$pid} =~ $self->{system}->workers ? 'workers' : $titles{$pid} =~ /\[local\]/ ? 'backends' : 'others';
		$used{$kind} += $nanoseconds / 1e9;
	}
	my @stat = split ' ', (slurp("/proc/$self->{postmaster}/stat") =~ s/.*\) //sr);
	$used{backends} += ($stat[13] + $stat[14]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
	return %used;
}

# Memory of each worker, in MB: what it has mapped, without the shared memory of the server (its buffers)
sub memory
{
	my ($self) = @_;
	my %titles = $self->processes;
	my %memory;

	for my $pid (grep { $titles{$_} =~ $self->{system}->workers } keys %titles)
	{
		my ($rss, $name) = (0, '');
		for (split /\n/, slurp("/proc/$pid/smaps") // next)
		{
			$name = $1 // '' if /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)/;
			$rss += $1 / 1024 if $name !~ m{^/dev/zero|^/SYSV} && /^Rss: +(\d+)/;
		}
		my ($title) = $titles{$pid} =~ /^postgres: (\S+ \w+)/;
		$memory{"$title $pid"} = $rss;
	}
	return %memory;
}

sub slurp
{
	my ($file) = @_;
	open(my $in, '<', $file) or return undef;
	local $/;
	return scalar <$in>;
}

# A psql to talk to.
package Session;
use strict;
use warnings;
use IPC::Open2;

my $sessions = 0;

sub new
{
	my ($class, $server, $database) = @_;
	my $self = bless { server => $server, database => $database }, $class;

	$self->{errors} = "$ENV{SX_TEMP}/psql" . $sessions++ . '.err';
	$self->{pid} = open2($self->{out}, $self->{in}, "exec psql -XAtq -F '\t' -v ON_ERROR_STOP=1 -h $ENV{SX_TEMP} -p $server->{port} -U postgres "
		. "-d $database 2>$self->{errors}");
	$self->{in}->autoflush(1);
	$self->ask("SET client_min_messages = warning; SET statement_timeout = '10min'");
	return $self;
}

sub server
{
	return $_[0]{server};
}

sub system
{
	return $_[0]{server}{system};
}

# begin(STATEMENTS): sends them
sub begin
{
	my ($self, $query) = @_;
	print { $self->{in} } "$query;\n\\echo ==end==\n";
	return;
}

# end(): waits for what begin() sent; its rows, each an array
sub end
{
	my ($self) = @_;
	my @rows;
	while (my $line = readline $self->{out})
	{
		chomp $line;
		return @rows if $line eq '==end==';
		push @rows, [ split /\t/, $line, -1 ];
	}
	my $errors = Server::slurp($self->{errors}) // '';
	$errors =~ s/\s*\n\s*/ /g;
	die "$errors\n";
}

sub ask
{
	my ($self, $query) = @_;
	$self->begin($query);
	return $self->end;
}

# the first column of the first row
sub value
{
	my ($self, $query) = @_;
	my @rows = $self->ask($query);
	return @rows ? $rows[0][0] : undef;
}

sub close
{
	my ($self) = @_;
	close $self->{in};
	close $self->{out};
	waitpid $self->{pid}, 0;
	return;
}

# A pgbench that runs.
package Load;
use strict;
use warnings;

my $scripts = 0;

sub new
{
	my ($class, $server, $script, @options) = @_;
	my $self = bless { out => "$ENV{SX_TEMP}/pgbench" }, $class;
	my @script;

	if (defined $script)
	{
		my $file = "$ENV{SX_TEMP}/script" . $scripts++ . '.sql';
		open(my $out, '>', $file) or die $!;
		print $out $script;
		CORE::close $out;
		@script = ('-f', $file);
	}
	$self->{pid} = open($self->{pipe}, '-|', "exec pgbench -n -h $ENV{SX_TEMP} -p $server->{port} -U postgres @options @script bench 2>&1")
	  or die "could not run pgbench: $!\n";
	return $self;
}

sub finish
{
	my ($self) = @_;
	my $out = join '', readline $self->{pipe};
	CORE::close($self->{pipe}) or die "pgbench failed:\n$out\n";
	my ($transactions) = $out =~ /^number of transactions actually processed: (\d+)/m;
	my ($tps) = $out =~ /^tps = ([\d.]+)/m;
	my ($latency) = $out =~ /^latency average = ([\d.]+) ms/m;
	die "pgbench said:\n$out\n" unless $transactions;
	return { transactions => $transactions, tps => $tps, latency => $latency };
}

1;
