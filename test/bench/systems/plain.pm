package plain;
# test/bench/systems/plain.pm
#		PostgreSQL as it is: the baseline, and what other systems inherit from.
#
# A further system is a file like streamext.pm beside it, and its name in SYSTEMS.
use strict;
use warnings;

sub new
{
	my ($class) = @_;
	return bless {}, $class;
}

sub name
{
	return ref $_[0];
}

# lines for postgresql.conf
sub settings
{
	return '';
}

# statements in each new database
sub installation
{
	return ();
}

# titles of the processes that work for its views
sub workers
{
	return qr/parallel worker/;
}

# whether it keeps views
sub keeps_views
{
	return 0;
}

# the start of the window that holds a timestamptz
sub window
{
	my ($self, $column, $size) = @_;
	return "date_bin('$size', $column, '2000-01-01Z')";
}

# Makes a view and returns when it is kept up to date.  Options: event_time, hop.
sub create_view
{
	return;
}

sub drop_view
{
	return;
}

# create_result(SESSION, NAME, QUERY, KEYS): what a reader of the view reads; here a table with the rows as they are
sub create_result
{
	my ($self, $session, $name, $query, $keys) = @_;
	$session->ask("CREATE TABLE $name AS $query");
	$session->ask("CREATE UNIQUE INDEX ON $name ($keys)");
	$session->ask("VACUUM ANALYZE $name");
	return;
}

# waits until all that is committed is in the views
sub complete
{
	return;
}

# waits until all of it is stored
sub stored
{
	return;
}

# differences(SESSION, NAME, QUERY): in how many rows a view differs from its query, nothing being written
sub differences
{
	my ($self, $session, $name, $query) = @_;
	return $session->value("SELECT count(*) FROM ((TABLE $name EXCEPT ALL ($query)) UNION ALL (($query) EXCEPT ALL TABLE $name)) d");
}

1;
