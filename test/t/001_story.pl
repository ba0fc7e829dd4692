# The whole story against a certified authorization server over real TLS:
# connect, use, refresh ahead of expiry with rotation, revoke.
use strict;
use warnings;
use FindBin;
use HTTP::Tiny;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 6);
my $node = ov_cluster('story', hosts => ["localhost:$idp->{port}"],
	conf => "oauth_vault.refresh_lead = 3\n");

$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}')});

sub userinfo
{
	my ($token) = @_;
	my $r = HTTP::Tiny->new(verify_SSL => 1, SSL_options => { SSL_ca_file => "$ca_dir/ca.pem" },
		timeout => 10)->get("$idp->{issuer}/me", { headers => { authorization => "Bearer $token" } });
	return $r->{status};
}

my @people = qw(ada grace edsger);
my %id;
foreach my $who (@people)
{
	$id{$who} = ov_connect($node, $who, 'demo');
	like($id{$who}, qr/^[0-9a-f-]{36}$/, "$who connects an account");
	is(ov_sql($node, $who, "SELECT status || ' ' || connector FROM oauth_vault.oauth_connections;"),
		'active demo', "$who sees one live connection");
}

my %token;
foreach my $who (@people)
{
	$token{$who} = ov_sql($node, $who, "SELECT oauth_vault.oauth_fresh_token('demo');");
	is(userinfo($token{$who}), 200, "the provider accepts the token of $who");
}
is(scalar(keys %{ { map { $_ => 1 } values %token } }), 3, 'three people, three tokens');

# Two rotations ahead of expiry, without anybody asking.
sub generations
{
	return $node->safe_psql('postgres', q{SET ROLE NONE;
		SELECT min(token_generation) FROM oauth_vault.connection WHERE status = 'active'});
}
my $first = generations();
ok(ov_wait_for('two background refreshes', sub { generations() >= $first + 2 }, 40),
	'the worker refreshes ahead of expiry, twice, by itself');
foreach my $who (@people)
{
	my $now = ov_sql($node, $who, "SELECT oauth_vault.oauth_fresh_token('demo');");
	isnt($now, $token{$who}, "$who has a new token");
	is(userinfo($now), 200, "which the provider accepts");
	$token{$who} = $now;
}

is(ov_sql($node, 'ada', "SELECT local_state || ' ' || provider_state FROM oauth_vault.oauth_revoke('demo');"),
	'revoking queued', 'revoking is immediate here and queued for the provider');
my ($state) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
like($state, qr/^OV01[02]$/, 'no token after revocation');
ok(ov_wait_for('revocation at the provider', sub { userinfo($token{ada}) == 401 }, 20),
	'the provider refuses the revoked token');
ok(ov_wait_for('final state', sub {
	ov_sql($node, 'ada', "SELECT count(*) FROM oauth_vault.oauth_connections WHERE status = 'revoked';") eq '1' }),
	'the connection ends as revoked');
is(userinfo(ov_sql($node, 'grace', "SELECT oauth_vault.oauth_fresh_token('demo');")), 200,
	"somebody else's grant is untouched");

my $events = $node->safe_psql('postgres', q{
	SELECT string_agg(DISTINCT event, ' ' ORDER BY event) FROM oauth_vault.audit WHERE user_id = 'ada'});
foreach my $event (qw(flow_begun connected token_access refreshed))
{
	like($events, qr/\b$event\b/, "the audit trail of ada has $event");
}

$node->stop('fast');
done_testing();
