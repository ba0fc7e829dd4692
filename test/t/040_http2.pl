# HTTP/2, where the server offers it: refreshes share a connection, none is sent
# twice, and the limit of a host counts requests, not connections.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $people = 40;
my $at_once = 20;
my $server = ov_h2(DELAY_MS => 300);
my $node = ov_cluster('http2', hosts => ["localhost:$server->{port}"],
	conf => "oauth_vault.max_host_connections = $at_once\noauth_vault.max_concurrency = 200");
sub superuser { return $node->safe_psql('postgres', $_[0]); }

superuser(qq{
	SELECT oauth_vault.oauth_set_provider('h2', '{"schema": 1, "display_name": "HTTP/2", "pkce": "S256",
		"client_auth": ["client_secret_post"], "authorization": {"url": "$server->{issuer}/authorize"},
		"token": {"url": "$server->{issuer}/token"}, "refresh": {"rotates": "always"}}');
	SELECT oauth_vault.oauth_create_connector(name, 'h2', name, 'a-secret', 'https://app.example/callback',
		scopes => ARRAY['read'], refresh_policy => 'eager') FROM unnest(ARRAY['demo', 'tick']) name});
ov_connect_code($node, "person$_", 'demo') foreach 1 .. $people;
# One that is always due again soon, so that the worker keeps looking at what is
ov_connect_code($node, 'clock', 'tick');

sub refresh_all
{
	my ($new_worker) = @_;
	ov_control($server, 'POST', '/reset');
	my $generation = superuser(q{SELECT max(token_generation) FROM oauth_vault.connection WHERE user_id <> 'clock'});
	superuser(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'})
		if $new_worker;
	superuser(q{UPDATE oauth_vault.connection SET refresh_at = now() + interval '3 seconds' WHERE user_id <> 'clock'});
	ov_wait_for('the refreshes', sub {
		superuser("SELECT count(*) FROM oauth_vault.connection WHERE token_generation <= $generation AND user_id <> 'clock'") eq '0' }, 60)
		or die 'not all were refreshed';
	return ov_control($server, 'GET', '/counts');
}

my $c = refresh_all(1);
is($c->{refreshes}, $people, 'each connection is refreshed once');
is_deeply($c->{versions}, { '2.0' => $people }, 'over HTTP/2');
is($c->{connections}, 1, 'on one connection');
cmp_ok($c->{peak}, '>', 4, 'several at a time');
cmp_ok($c->{peak}, '<=', $at_once, 'but no more than the host may get');
is(superuser(q{SELECT count(*) FROM oauth_vault.connection WHERE status <> 'active'}), 0, 'and all are alive');

# The server wants no more streams on that connection: those under way end there.
$c = refresh_all(0);
is($c->{connections}, 0, 'the connection is kept for the next time');
ov_control($server, 'POST', '/goaway');
$c = refresh_all(0);
is($c->{refreshes}, $people, 'after GOAWAY each is sent once');
is($c->{connections}, 1, 'on a new connection');
is(superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'refresh_failed'}), 0, 'and none has failed');

$node->stop('fast');
done_testing();
