package streamext;
# test/bench/systems/streamext.pm
#		This extension.
use strict;
use warnings;

use parent -norequire, 'plain';

sub settings
{
	return "shared_preload_libraries = 'streamext'\n";
}

sub installation
{
	return 'CREATE EXTENSION streamext';
}

sub workers
{
	return qr/^postgres: streamext /;
}

sub keeps_views
{
	return 1;
}

sub window
{
	my ($self, $column, $size) = @_;
	return "streamext.tumble($column, '$size')";
}

sub create_view
{
	my ($self, $session, $name, $query, %options) = @_;
	my $flush = $options{flush_interval} ? ", streamext.flush_interval = '$options{flush_interval}'" : '';
	$session->ask("CREATE MATERIALIZED VIEW $name WITH (streamext.continuous$flush) AS $query");
	$self->complete($session);
	return;
}

sub drop_view
{
	my ($self, $session, $name) = @_;
	$session->ask("DROP MATERIALIZED VIEW $name");
	return;
}

sub create_result
{
	my ($self, $session, $name, $query) = @_;
	$self->create_view($session, $name, $query);
	$self->stored($session);
	$session->ask("VACUUM ANALYZE");
	return;
}

sub complete
{
	my ($self, $session) = @_;
	die "views are not complete: " . ($session->value(
		"SELECT string_agg(concat_ws(' ', view, state, reason, last_error), '; ') FROM streamext.status") // '') . "\n"
	  unless $session->value("SELECT streamext.wait_for(NULL, '10min')") eq 't';
	return;
}

sub stored
{
	my ($self, $session) = @_;
	$session->ask('SELECT streamext.flush()');
	return;
}

1;
