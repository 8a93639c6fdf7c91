package Probe;
# test/bench/Probe.pm
#		A session that commits a row, reads a view until the row is there, and does so again.
#
# All of it happens in one procedure in the server, so that no client's latency is measured; it reads without
# a pause until the row is visible.  Between rows it sleeps.
use strict;
use warnings;

use Server;

my $procedure = <<'SQL';
CREATE OR REPLACE PROCEDURE probe(pause float8, seconds float8, INOUT times float8[] DEFAULT '{}', INOUT latencies float8[] DEFAULT '{}')
LANGUAGE plpgsql AS $$
DECLARE
	ends timestamptz := clock_timestamp() + seconds * interval '1 second';
	inserted int := 0;
	seen int;
	committed timestamptz;
BEGIN
	WHILE clock_timestamp() < ends LOOP
		PERFORM pg_sleep(pause);
		INSERT INTO ev VALUES ('2026-06-01 00:00Z', '%2$s', 1, 1);
		COMMIT;
		committed := clock_timestamp();
		inserted := inserted + 1;
		LOOP
			SELECT n INTO seen FROM %1$s WHERE k = '%2$s' AND w = '2026-06-01 00:00Z';
			EXIT WHEN seen = inserted;
			IF seen > inserted OR clock_timestamp() > committed + interval '1 minute' THEN
				RAISE EXCEPTION '%% rows inserted, %% seen', inserted, seen;
			END IF;
		END LOOP;
		times := times || extract(epoch FROM committed)::float8;
		latencies := latencies || 1000 * extract(epoch FROM clock_timestamp() - committed)::float8;
	END LOOP;
END $$
SQL

my $probes = 0;

# begin(SERVER, VIEW, PAUSE, SECONDS): the view has k, w and n = count(*)
sub begin
{
	my ($class, $server, $view, $pause, $seconds) = @_;
	my $self = bless { session => Session->new($server, 'bench') }, $class;

	$self->{session}->ask(sprintf $procedure, $view, 'probe' . $probes++);
	$self->{session}->begin("CALL probe($pause, $seconds)");
	return $self;
}

# end(): waits for it; what it has measured: [ time of the commit (epoch), milliseconds until visible ], ...
sub end
{
	my ($self) = @_;
	my ($row) = $self->{session}->end;
	my ($times, $latencies) = map { [ split /,/, s/[{}]//gr ] } @$row;
	$self->{session}->close;
	return map { [ $times->[$_], $latencies->[$_] ] } 0 .. $#$times;
}

1;
