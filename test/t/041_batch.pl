# Answers are stored together: one row that cannot be written, one that is locked
# and one that was revoked meanwhile keep none of the others from being stored.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use Test::More;

my $people = 24;
my $server = ov_h2(DELAY_MS => 2000);
my $node = ov_cluster('batch', hosts => ["localhost:$server->{port}"],
	conf => "oauth_vault.max_host_connections = 100\noauth_vault.max_concurrency = 200");
sub superuser { return $node->safe_psql('postgres', $_[0]); }

superuser(qq{
	SELECT oauth_vault.oauth_set_provider('h2', '{"schema": 1, "display_name": "HTTP/2", "pkce": "S256",
		"client_auth": ["client_secret_post"], "authorization": {"url": "$server->{issuer}/authorize"},
		"token": {"url": "$server->{issuer}/token"}, "refresh": {"rotates": "always"}}');
	SELECT oauth_vault.oauth_create_connector(name, 'h2', name, 'a-secret', 'https://app.example/callback',
		scopes => ARRAY['read'], refresh_policy => 'eager') FROM unnest(ARRAY['demo', 'tick']) name});
ov_connect_code($node, "person$_", 'demo') foreach 1 .. $people;
ov_connect_code($node, $_, 'demo') foreach qw(bad locked revoked);
# One that is always due again soon, so that the worker keeps looking at what is
ov_connect_code($node, 'clock', 'tick');

# A row that cannot be written; its answer is not lost for that.
superuser(q{
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE 'not this row'; END$$;
	CREATE TRIGGER refuse BEFORE UPDATE ON oauth_vault.connection FOR EACH ROW
		WHEN (NEW.user_id = 'bad' AND NEW.token_generation > OLD.token_generation) EXECUTE FUNCTION public.refuse()});
ov_control($server, 'POST', '/reset');
superuser(q{UPDATE oauth_vault.connection SET refresh_at = now() + interval '2 seconds' WHERE user_id <> 'clock'});
ok(ov_wait_for('all requests', sub { ov_control($server, 'GET', '/counts')->{refreshes} == $people + 3 }, 60),
	'all are under way');

my ($in, $out, $err) = ("BEGIN; SELECT 'held' FROM oauth_vault.connection WHERE user_id = 'locked' FOR UPDATE;\n", '', '');
my $holder = IPC::Run::start([ 'psql', '-XAtq', '-U', 'postgres', '-d', $node->connstr('postgres') ],
	'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
$holder->pump until $out =~ /held/;
ov_sql($node, 'revoked', "SELECT local_state FROM oauth_vault.oauth_revoke('demo');");

sub renewed { return superuser(qq{SELECT count(*) FROM oauth_vault.connection WHERE user_id LIKE '$_[0]' AND token_generation = 2}); }
ok(ov_wait_for('the others', sub { renewed('person%') == $people }, 30), 'all others are stored');
ok(ov_wait_for('the inbox', sub { superuser('SELECT count(*) FROM oauth_vault.grant_inbox') eq '1' }, 30),
	'what came for the locked row waits for it');
is(superuser(q{SELECT token_generation FROM oauth_vault.connection WHERE user_id = 'revoked'}), 1,
	'what came for the revoked grant is not installed');
cmp_ok(superuser(q{SELECT count(*) FROM oauth_vault.revocation WHERE user_id = 'revoked'}), '>=', 2,
	'but is to be revoked too');
is(renewed('bad'), 0, 'the row that cannot be written is not');
is(superuser(q{SELECT count(*) FROM oauth_vault.intent JOIN oauth_vault.connection USING (connection_id)
	WHERE user_id <> 'clock' AND user_id <> 'bad'}), 0, 'no other claim is open');

$in .= "COMMIT;\n\\q\n";
$holder->finish;
superuser('DROP TRIGGER refuse ON oauth_vault.connection');
ok(ov_wait_for('the last two', sub { renewed('bad') == 1 && renewed('locked') == 1 }, 30), 'both are stored once they can be');
my $tokens = ov_control($server, 'GET', '/counts')->{tokens};
is_deeply({ map { $_ => $tokens->{$_} } grep { $tokens->{$_} > 1 } keys %$tokens }, {}, 'no refresh token was sent twice');
is(ov_control($server, 'GET', '/counts')->{refreshes}, $people + 3, 'and nobody was refreshed twice')
  or diag(superuser(q{SELECT string_agg(concat_ws(' ', user_id, token_generation, status, refresh_at, issued_at), chr(10)) FROM oauth_vault.connection}));
like(ov_sql($node, $_, "SELECT oauth_vault.oauth_fresh_token('demo');"), qr/^access-\d+$/, "$_ has a token that opens")
	foreach qw(person1 person7 bad locked);
is(superuser(q{SELECT count(*) FROM oauth_vault.connection c JOIN oauth_vault.connection d
	ON c.connection_id < d.connection_id AND (c.access_token = d.access_token OR c.refresh_token = d.refresh_token)}), 0,
	'and nobody another one\'s');

$node->stop('fast');
done_testing();
