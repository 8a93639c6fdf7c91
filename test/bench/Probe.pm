package Probe;
# test/bench/Probe.pm
#		How long after its commit a row is visible in a view, to a session that reads until it is there.
#
# Another session commits, and sleeps, as one does that waits for its client: if it read right after its commit, it would
# keep the processor that the kernel may have chosen for the consumer, for as long as a time slice lasts.  The
# reader waits for the commit by a lock, so that it takes no processor before.  Both are procedures in the server, so
# that no client's latency is measured.
use strict;
use warnings;

use Server;

# Before it commits a row it has the lock of the next one.
my $writer = <<'SQL';
CREATE OR REPLACE PROCEDURE probe_write(probe int, pause float8, rows int, INOUT times float8[] DEFAULT '{}')
LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. rows LOOP
		PERFORM pg_sleep(pause);
		INSERT INTO ev VALUES ('2026-06-01 00:00Z', 'probe' || probe, 1, 1);
		PERFORM pg_advisory_lock(probe, i + 1);
		COMMIT;
		times := times || extract(epoch FROM clock_timestamp())::float8;
		PERFORM pg_advisory_unlock(probe, i);
	END LOOP;
END $$
SQL

my $reader = <<'SQL';
CREATE OR REPLACE PROCEDURE probe_read(probe int, rows int, INOUT times float8[] DEFAULT '{}')
LANGUAGE plpgsql AS $$
DECLARE
	seen int := 0;
BEGIN
	FOR i IN 1 .. rows LOOP
		PERFORM pg_advisory_lock_shared(probe, i);
		PERFORM pg_advisory_unlock_shared(probe, i);
		WHILE seen IS NULL OR seen < i LOOP
			SELECT n INTO seen FROM %s WHERE k = 'probe' || probe AND w = '2026-06-01 00:00Z';
		END LOOP;
		times := times || extract(epoch FROM clock_timestamp())::float8;
		COMMIT;
	END LOOP;
END $$
SQL

my $probes = 0;

# begin(SERVER, VIEW, PAUSE, SECONDS): the view has k, w and n = count(*)
sub begin
{
	my ($class, $server, $view, $pause, $seconds) = @_;
	my $self = bless { map { $_ => Session->new($server, 'bench') } qw(writer reader) }, $class;
	my $probe = ++$probes;
	my $rows = int($seconds / $pause);

	$self->{writer}->ask($writer);
	$self->{writer}->ask(sprintf $reader, $view);
	$self->{writer}->ask("SELECT pg_advisory_lock($probe, 1)");
	$self->{reader}->begin("CALL probe_read($probe, $rows)");
	$self->{writer}->begin("CALL probe_write($probe, $pause, $rows)");
	return $self;
}

# end(): waits for it; what it has measured: [ time of the commit (epoch), milliseconds until visible ], ...
sub end
{
	my ($self) = @_;
	my ($written, $seen) = map {
		my ($row) = $self->{$_}->end;
		$self->{$_}->close;
		[ split /,/, $row->[0] =~ s/[{}]//gr ];
	} qw(writer reader);
	return map { [ $written->[$_], 1000 * ($seen->[$_] - $written->[$_]) ] } 0 .. $#$written;
}

1;
