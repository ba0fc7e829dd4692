# Two people: neither sees, uses, completes, revokes or detects anything of the other's.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('isolation', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}')});
ov_connect($node, 'ada', 'demo');

# mallory has no connection; every call answers as if nobody had one.
foreach my $call (
	"SELECT oauth_vault.oauth_fresh_token('demo');",
	"SELECT * FROM oauth_vault.oauth_credential('demo');",
	"SELECT * FROM oauth_vault.oauth_revoke('demo');")
{
	my ($state) = ov_sql_fails($node, 'mallory', $call);
	is($state, 'OV012', "somebody else's $call finds no connection");
}
is(ov_sql($node, 'mallory', "SELECT oauth_vault.oauth_report_rejected('demo', 'x');") , 'unknown_token',
	'reporting a made-up token says unknown_token');
my $adas = ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
is(ov_sql($node, 'mallory', "SELECT oauth_vault.oauth_report_rejected('demo', '$adas');"), 'unknown_token',
	"reporting another person's live token says the same");
$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET status = 'reauth_required', status_reason = 'invalid_grant'});
foreach my $view (qw(oauth_connections oauth_reauth_prompts oauth_my_access))
{
	# mallory's own refusals, above, are hers to see
	my $where = $view eq 'oauth_my_access' ? "WHERE event IN ('connected', 'token_access') AND outcome = 'ok'" : '';
	is(ov_sql($node, 'mallory', "SELECT count(*) FROM oauth_vault.$view $where;"), '0', "$view shows only own rows");
	cmp_ok(ov_sql($node, 'ada', "SELECT count(*) FROM oauth_vault.$view $where;"), '>', 0, 'and ada has some');
}
$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET status = 'active', status_reason = NULL});
is(ov_sql($node, 'mallory', "SELECT error_state FROM oauth_vault.oauth_fresh_tokens(ARRAY['demo']);"), 'OV012',
	'the bulk call answers per connector');

# What mallory sets or begins under ada's label is mallory's own.
$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET account = 'work'});
ov_sql($node, 'mallory', "SELECT oauth_vault.oauth_set_my_limit('demo', ARRAY['openid']);");
like(ov_sql($node, 'ada', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo', account => 'other');"),
	qr/[?&]scope=[^&]*offline_access/, "mallory's limit does not bind ada");
unlike(ov_sql($node, 'mallory', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo', account => 'work', scopes => ARRAY['openid']);"),
	qr/offline_access/, "beginning under the label of ada's account is a flow of mallory's own, within mallory's limit");
is(ov_sql($node, 'mallory', 'SELECT count(*) FROM oauth_vault.oauth_connections;'), '0', 'and gives no connection');
my ($taken) = ov_sql_fails($node, 'mallory', "SELECT oauth_vault.oauth_fresh_token('demo', account => 'work');");
is($taken, 'OV012', 'nor a token of the account with that label');
isnt(ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo', account => 'work');"), '', 'which is still ada\'s');
ov_sql($node, 'mallory', "SELECT oauth_vault.oauth_set_my_limit('demo', NULL);");
$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET account = ''});

# A flow begun by ada and completed by mallory is refused and burnt.
my $url = ov_sql($node, 'ada', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo', account => 'second');");
my $callback = ov_consent($url, 'ada');
my ($state, $theirs) = ov_sql_fails($node, 'mallory', "SELECT * FROM oauth_vault.oauth_callback('$callback');");
is($state, 'OV030', "completing somebody else's flow is refused");
my ($unknown, $made_up) = ov_sql_fails($node, 'mallory',
	"SELECT * FROM oauth_vault.oauth_complete('bm90aGluZ25vdGhpbmdub3RoaW5nbm90aGluZ25vdGg', 'code');");
is($unknown, 'OV030', 'as is a made-up state');
is((split /\n/, $theirs)[0], (split /\n/, $made_up)[0], 'with the same message');
($state) = ov_sql_fails($node, 'ada', "SELECT * FROM oauth_vault.oauth_callback('$callback');");
is($state, 'OV030', 'and the flow is burnt for its owner too');

# Without identity there is nothing.
my ($rc, $out, $err) = $node->psql('postgres', "SELECT oauth_vault.oauth_fresh_token('demo')",
	extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ]);
like($err, qr/OV001/, 'without identity: OV001');
is($node->safe_psql('postgres', 'SELECT count(*) FROM oauth_vault.oauth_connections', extra_params => [ '-U', 'app' ]),
	'0', 'and no rows');
($rc, $out, $err) = $node->psql('postgres', 'SELECT count(*) FROM oauth_vault.connection', extra_params => [ '-U', 'app' ]);
isnt($rc, 0, 'the table itself is out of reach');

# The identity ends with the transaction, and a failed assertion leaves none.
my $jwt = ov_assertion($node, 'ada');
($rc, $out, $err) = $node->psql('postgres', qq{
	BEGIN; SELECT oauth_vault.oauth_identify('$jwt'); COMMIT;
	SELECT count(*) FROM oauth_vault.oauth_connections;}, extra_params => [ '-U', 'app' ]);
like($out, qr/^0$/m, 'after COMMIT the identity is gone');
($rc, $out, $err) = $node->psql('postgres', qq{
	SELECT oauth_vault.oauth_identify('$jwt', session => true);
	SELECT oauth_vault.oauth_identify('not.a.jwt');
	SELECT 'rows=' || count(*) FROM oauth_vault.oauth_connections;},
	extra_params => [ '-U', 'app' ], on_error_stop => 0);
like($out, qr/^rows=0$/m, 'a failed assertion clears the earlier identity');
($rc, $out, $err) = $node->psql('postgres', qq{
	SELECT oauth_vault.oauth_identify('$jwt', session => true);
	SELECT 'rows=' || count(*) FROM oauth_vault.oauth_connections;
	DISCARD ALL;
	SELECT 'rows=' || count(*) FROM oauth_vault.oauth_connections;}, extra_params => [ '-U', 'app' ]);
like($out, qr/rows=1\nrows=0/, 'DISCARD ALL clears a session identity');
$node->stop('fast');
done_testing();
