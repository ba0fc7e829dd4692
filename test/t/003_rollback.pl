# A caller's rollback cannot lose a rotated refresh token, whatever the isolation level.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('rollback', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
ov_connect($node, 'ada', 'demo');

sub expire
{
	$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'});
}

my %seen;
foreach my $mode ('', 'ISOLATION LEVEL REPEATABLE READ', 'ISOLATION LEVEL SERIALIZABLE', 'READ ONLY',
	'ISOLATION LEVEL SERIALIZABLE READ ONLY')
{
	my $name = $mode || 'READ COMMITTED';
	expire();
	# The snapshot is taken before the refresh: the token must be the new one all the same.
	my $token = ov_sql($node, 'ada',
		"SELECT count(*) FROM oauth_vault.oauth_connections \\g /dev/null\n"
		  . "SELECT oauth_vault.oauth_fresh_token('demo');",
		begin_mode => $mode, end => 'ROLLBACK;');
	ok(!$seen{$token}++, "$name: a new token although the caller rolls back");
	my $again = ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
	is($again, $token, "$name: it is the one that was stored");
}
expire();
ok(!$seen{ ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');") },
	'the rotated refresh token still works');
is($node->safe_psql('postgres', q{SELECT count(*) FROM oauth_vault.audit
	WHERE event = 'token_access' AND outcome = 'ok'}), scalar(keys %seen) * 2 + 1,
	'one audit row for each token returned, rollback or not');
is($node->safe_psql('postgres', 'SELECT count(*) FROM oauth_vault.intent'), 0, 'no claim is left open');
$node->stop('fast');
done_testing();
