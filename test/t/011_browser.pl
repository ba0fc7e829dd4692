# Consent given in a real browser.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('browser', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}')});
my $url = ov_sql($node, 'ada', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo');");
my ($out, $err) = ('', '');
$ENV{CA} = "$ca_dir/ca.pem";
ok(IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/drivers/consent-browser.mjs", $url, '--user', 'ada' ],
	'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(120)), 'a person logs in and consents in Chromium') or diag($err);
chomp $out;
like($out, qr{^https://app\.example/callback\?.*code=}, 'and is sent back with a code');
is(ov_sql($node, 'ada', "SELECT status FROM oauth_vault.oauth_callback('$out');"), 'active', 'the connection is live');
$node->stop('fast');
done_testing();
