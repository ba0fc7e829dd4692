# Each built-in provider goes its whole way: begin, callback, complete, fresh,
# refresh, revoke, against a server that answers in that provider's own shape.
# A site's rules re-point the endpoints, and nothing else: the server's journal
# shows what the real ones would have been sent.
use strict;
use warnings;
use Digest::SHA qw(hmac_sha256_hex sha256);
use JSON::PP;
use MIME::Base64 qw(encode_base64url);
use OauthVault::Test;
use Test::More;

my $fault = ov_fault();
my $base = "https://localhost:$fault->{port}";
my $node = ov_cluster('providers', hosts => ["localhost:$fault->{port}"]);

my $secret = 'secret: 100%';
my $basic = 'Basic Y2xpZW50OnNlY3JldCUzQSsxMDAlMjU=';	# client:secret%3A+100%25
my $posted = 'client_id=client&client_secret=secret%3A+100%25';
my $redirect = 'https://app.example/callback';
my $sent_redirect = 'redirect_uri=https%3A%2F%2Fapp.example%2Fcallback';
my $form = 'application/x-www-form-urlencoded';

# VERIFIER stands for the flow's own code verifier; ENDPOINT for $base/<name>.
my %providers = (
	oidc => {
		issuer => "$base/oidc",
		discovery => {
			'/.well-known/openid-configuration/oidc' => {
				issuer => "$base/oidc", authorization_endpoint => "$base/oidc/authorize",
				token_endpoint => "$base/oidc/token", revocation_endpoint => "$base/oidc/revoke",
				response_types_supported => ['code'], code_challenge_methods_supported => ['S256'],
				token_endpoint_auth_methods_supported => [ 'client_secret_post', 'client_secret_basic' ],
				authorization_response_iss_parameter_supported => JSON::PP::true,
			},
		},
		scopes => [qw(files offline_access)],
		url => "$base/oidc/authorize?response_type=code&client_id=client&$sent_redirect&scope=files+offline_access"
		  . '&state=STATE&code_challenge=CHALLENGE&code_challenge_method=S256&prompt=consent',
		callback => 'code=c0de&iss=' . "$base/oidc" =~ s/([:\/])/sprintf '%%%02X', ord $1/ger,
		token_path => '/oidc/token',
		tokens => { access_token => 'at-1', token_type => 'Bearer', expires_in => 3600, refresh_token => 'rt-1',
			scope => 'files offline_access' },
		exchange => { authorization => $basic, 'content-type' => $form,
			body => "grant_type=authorization_code&code=c0de&$sent_redirect&code_verifier=VERIFIER" },
		refreshed => { access_token => 'at-2', token_type => 'bearer', expires_in => '3600', refresh_token => 'rt-2' },
		refresh => { authorization => $basic, body => 'grant_type=refresh_token&refresh_token=rt-1' },
		revoke_path => '/oidc/revoke',
		revoke => [
			{ method => 'POST', authorization => $basic, body => 'token=rt-2&token_type_hint=refresh_token' },
			{ method => 'POST', authorization => $basic, body => 'token=at-2&token_type_hint=access_token' },
		],
		scopes_granted => '{files,offline_access}',
		dead => { status => 400, body => { error => 'invalid_grant' } },
	},
	google => {
		rules => { token => { url => 'ENDPOINT/token' },
			revocation => { refresh_token => { url => 'ENDPOINT/revoke' }, access_token => { url => 'ENDPOINT/revoke' } } },
		scopes => ['https://www.googleapis.com/auth/calendar.readonly'],
		url => "https://accounts.google.com/o/oauth2/v2/auth?response_type=code&client_id=client&$sent_redirect"
		  . '&scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcalendar.readonly&state=STATE&code_challenge=CHALLENGE'
		  . '&code_challenge_method=S256&prompt=consent&access_type=offline',
		callback => 'code=4%2F0AX4&scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcalendar.readonly',
		token_path => '/google/token',
		tokens => { access_token => 'ya29.1', token_type => 'Bearer', expires_in => 3599, refresh_token => '1//rt',
			scope => 'https://www.googleapis.com/auth/calendar.readonly' },
		exchange => { 'content-type' => $form,
			body => "grant_type=authorization_code&code=4%2F0AX4&$sent_redirect&code_verifier=VERIFIER&$posted" },
		refreshed => { access_token => 'ya29.2', token_type => 'Bearer', expires_in => 3599,
			scope => 'https://www.googleapis.com/auth/calendar.readonly' },
		refresh => { body => "grant_type=refresh_token&refresh_token=1%2F%2Frt&$posted" },
		revoke_path => '/google/revoke',
		revoke => [ { method => 'POST', body => 'token=1%2F%2Frt' }, { method => 'POST', body => 'token=ya29.2' } ],
		revoke_answers => [ { body => {} }, { status => 400, body => { error => 'invalid_token' } } ],
		scopes_granted => '{https://www.googleapis.com/auth/calendar.readonly}',
		dead => { status => 400, body => { error => 'invalid_grant', error_description => 'Token has been expired or revoked.' } },
	},
	microsoft => {
		rules => { token => { url => 'ENDPOINT/{tenant}/token' } },
		params => { tenant => 'organizations' },
		scopes => [qw(User.Read offline_access)],
		url => "https://login.microsoftonline.com/organizations/oauth2/v2.0/authorize?response_type=code&client_id=client&$sent_redirect"
		  . '&scope=User.Read+offline_access&state=STATE&code_challenge=CHALLENGE&code_challenge_method=S256&response_mode=query',
		callback => 'code=0.AXYA&session_state=5e6f',
		token_path => '/microsoft/organizations/token',
		tokens => { access_token => 'eyJ.1', token_type => 'Bearer', expires_in => 4263, ext_expires_in => 4263,
			refresh_token => '0.AR1', scope => 'https://graph.microsoft.com/User.Read' },
		exchange => { 'content-type' => $form,
			body => "grant_type=authorization_code&code=0.AXYA&$sent_redirect&code_verifier=VERIFIER&$posted" },
		refreshed => { access_token => 'eyJ.2', token_type => 'Bearer', expires_in => 4000, refresh_token => '0.AR2',
			scope => 'https://graph.microsoft.com/User.Read' },
		refresh => { body => "grant_type=refresh_token&refresh_token=0.AR1&$posted" },
		revoke => [],
		scopes_granted => '{https://graph.microsoft.com/User.Read,User.Read,offline_access}',
		api_base => 'https://graph.microsoft.com',
		dead => { status => 400, body => { error => 'interaction_required', error_codes => [50076] } },
	},
	intuit_quickbooks => {
		rules => { token => { url => 'ENDPOINT/tokens/bearer' },
			revocation => { refresh_token => { url => 'ENDPOINT/tokens/revoke' } } },
		params => { environment => 'sandbox' },
		scopes => ['com.intuit.quickbooks.accounting'],
		url => "https://appcenter.intuit.com/connect/oauth2?response_type=code&client_id=client&$sent_redirect"
		  . '&scope=com.intuit.quickbooks.accounting&state=STATE&code_challenge=CHALLENGE&code_challenge_method=S256',
		callback => 'code=AB11&realmId=4620816365178132610',
		token_path => '/intuit_quickbooks/tokens/bearer',
		tokens => { access_token => 'eyJ.a', token_type => 'bearer', expires_in => 3600, refresh_token => 'AB1',
			x_refresh_token_expires_in => 8726400, x_refresh_token_hard_expires_in => 157680000 },
		exchange => { authorization => $basic, 'content-type' => $form, 'x-include-refresh-token-hard-expires-in' => 'true',
			body => "grant_type=authorization_code&code=AB11&$sent_redirect&code_verifier=VERIFIER" },
		refreshed => { access_token => 'eyJ.b', token_type => 'bearer', expires_in => 3600, refresh_token => 'AB2',
			x_refresh_token_expires_in => 8726400 },
		refresh => { authorization => $basic, 'x-include-refresh-token-hard-expires-in' => 'true',
			body => 'grant_type=refresh_token&refresh_token=AB1' },
		revoke_path => '/intuit_quickbooks/tokens/revoke',
		revoke => [ { method => 'POST', authorization => $basic, 'content-type' => 'application/json', body => '{"token":"AB2"}' } ],
		scopes_granted => '{com.intuit.quickbooks.accounting}',
		subject => '4620816365178132610',
		api_base => 'https://sandbox-quickbooks.api.intuit.com/v3/company/4620816365178132610',
		dead => { status => 400, body => { error => 'invalid_grant', error_description => 'Incorrect or invalid refresh token' } },
	},
	shopify => {
		rules => { token => { url => 'ENDPOINT/access_token' }, revocation => { access_token => { url => 'ENDPOINT/current.json' } } },
		begin_params => { shop => 'some-shop.myshopify.com' },
		scopes => [qw(read_products write_orders)],
		url => "https://some-shop.myshopify.com/admin/oauth/authorize?client_id=client&$sent_redirect"
		  . '&scope=read_products%2Cwrite_orders&state=STATE&code_challenge=CHALLENGE&code_challenge_method=S256',
		callback => 'code=0907a61c&host=c29tZQ&shop=some-shop.myshopify.com&timestamp=1337178173',
		signed => 1,
		token_path => '/shopify/access_token',
		tokens => { access_token => 'shpat_1', scope => 'read_products,write_orders', expires_in => 3600, refresh_token => 'shprt_1',
			refresh_token_expires_in => 7776000 },
		exchange => { 'content-type' => 'application/json', body => '{"code":"0907a61c","code_verifier":"VERIFIER",'
			  . '"client_id":"client","client_secret":"secret: 100%","expiring":"1"}' },
		refreshed => { access_token => 'shpat_2', scope => 'read_products,write_orders', expires_in => 3600, refresh_token => 'shprt_2',
			refresh_token_expires_in => 7776000 },
		refresh => { 'content-type' => 'application/json', body => '{"grant_type":"refresh_token","refresh_token":"shprt_1",'
			  . '"client_id":"client","client_secret":"secret: 100%"}' },
		revoke_path => '/shopify/current.json',
		revoke => [ { method => 'DELETE', 'x-shopify-access-token' => 'shpat_2', authorization => undef, body => '' } ],
		scopes_granted => '{read_products,write_orders,read_orders}',
		subject => 'some-shop.myshopify.com',
		header => 'X-Shopify-Access-Token: shpat_1',
		api_base => 'https://some-shop.myshopify.com/admin/api',
		dead => { status => 400, body => { error => 'invalid_grant' } },
	},
	slack => {
		rules => { token => { url => 'ENDPOINT/oauth.v2.access' }, revocation => { access_token => { url => 'ENDPOINT/auth.revoke' } } },
		scopes => [qw(team:read chat:write)],
		url => "https://slack.com/oauth/v2/authorize?client_id=client&$sent_redirect&scope=team%3Aread%2Cchat%3Awrite&state=STATE",
		callback => 'code=123.456',
		token_path => '/slack/oauth.v2.access',
		tokens => { ok => JSON::PP::true, access_token => 'xoxb-1', token_type => 'bot', scope => 'team:read,chat:write', bot_user_id => 'U0',
			app_id => 'A1', expires_in => 43200, refresh_token => 'xoxe-1', team => { id => 'T01', name => 'Team' }, enterprise => undef,
			authed_user => { id => 'U1' } },
		exchange => { 'content-type' => $form, body => "grant_type=authorization_code&code=123.456&$sent_redirect&$posted" },
		refreshed => { ok => JSON::PP::true, access_token => 'xoxb-2', token_type => 'bot', scope => 'team:read,chat:write', expires_in => 43200,
			refresh_token => 'xoxe-2', team => { id => 'T01', name => 'Team' } },
		refresh => { body => "grant_type=refresh_token&refresh_token=xoxe-1&$posted" },
		revoke_path => '/slack/auth.revoke',
		revoke => [ { method => 'POST', authorization => 'Bearer xoxb-2', body => '' } ],
		revoke_answers => [ { body => { ok => JSON::PP::true, revoked => JSON::PP::true } } ],
		scopes_granted => '{team:read,chat:write}',
		subject => 'T01',
		api_base => 'https://slack.com/api',
		dead => { status => 200, body => { ok => JSON::PP::false, error => 'invalid_refresh_token' } },
	},
	github_app_user => {
		rules => { token => { url => 'ENDPOINT/access_token' },
			revocation => { access_token => { url => 'ENDPOINT/applications/{client_id}/token' } } },
		scopes => [],
		url => "https://github.com/login/oauth/authorize?response_type=code&client_id=client&$sent_redirect"
		  . '&state=STATE&code_challenge=CHALLENGE&code_challenge_method=S256',
		callback => 'code=a1b2&installation_id=42&setup_action=install',
		token_path => '/github_app_user/access_token',
		tokens => { access_token => 'ghu_1', token_type => 'bearer', scope => '', expires_in => 28800, refresh_token => 'ghr_1',
			refresh_token_expires_in => 15897600 },
		exchange => { 'content-type' => $form, accept => 'application/json',
			body => "grant_type=authorization_code&code=a1b2&$sent_redirect&code_verifier=VERIFIER&$posted" },
		refreshed => { access_token => 'ghu_2', token_type => 'bearer', scope => '', expires_in => 28800, refresh_token => 'ghr_2',
			refresh_token_expires_in => 15897600 },
		refresh => { accept => 'application/json', body => "grant_type=refresh_token&refresh_token=ghr_1&$posted" },
		revoke_path => '/github_app_user/applications/client/token',
		revoke => [ { method => 'DELETE', authorization => $basic, 'content-type' => 'application/json',
				'x-github-api-version' => '2022-11-28', body => '{"access_token":"ghu_2"}' } ],
		revoke_answers => [ { status => 204 } ],
		scopes_granted => '{}',
		api_base => 'https://api.github.com',
		headers => '{"X-GitHub-Api-Version": "2022-11-28"}',
		dead => { status => 200, body => { error => 'bad_refresh_token',
				error_description => 'The refresh token passed is incorrect or expired.' } },
	},
	salesforce => {
		rules => { token => { url => 'ENDPOINT/token' },
			revocation => { refresh_token => { url => 'ENDPOINT/revoke' }, access_token => { url => 'ENDPOINT/revoke' } } },
		params => { environment => 'sandbox' },
		scopes => [qw(api refresh_token)],
		url => "https://test.salesforce.com/services/oauth2/authorize?response_type=code&client_id=client&$sent_redirect"
		  . '&scope=api+refresh_token&state=STATE&code_challenge=CHALLENGE&code_challenge_method=S256',
		callback => 'code=aPrx%3D%3D',
		token_path => '/salesforce/token',
		tokens => { access_token => '00D!1', token_type => 'Bearer', refresh_token => '5Aep', signature => 's', scope => 'refresh_token api',
			instance_url => 'https://acme--uat.sandbox.my.salesforce.com', id => 'https://test.salesforce.com/id/00D/005',
			issued_at => time . '000' },
		exchange => { 'content-type' => $form,
			body => "grant_type=authorization_code&code=aPrx%3D%3D&$sent_redirect&code_verifier=VERIFIER&$posted" },
		refreshed => { access_token => '00D!2', token_type => 'Bearer', signature => 's', id => 'https://test.salesforce.com/id/00D/005',
			instance_url => 'https://moved.my.salesforce.com', issued_at => time . '000' },
		refresh => { body => "grant_type=refresh_token&refresh_token=5Aep&$posted" },
		revoke_path => '/salesforce/revoke',
		revoke => [ { method => 'POST', authorization => undef, body => 'token=5Aep' }, { method => 'POST', body => 'token=00D%212' } ],
		scopes_granted => '{refresh_token,api}',
		subject => 'https://test.salesforce.com/id/00D/005',
		api_base => 'https://acme--uat.sandbox.my.salesforce.com',
		api_base_refreshed => 'https://moved.my.salesforce.com',
		dead => { status => 400, body => { error => 'invalid_grant', error_description => 'expired access/refresh token' } },
	},
);

sub script { my ($path, @answers) = @_; ov_control($fault, 'POST', '/script', { path => $path, answers => \@answers }); }

sub journal
{
	my ($path) = @_;
	return [] unless defined $path;
	return [ grep { $_->{path} eq $path } @{ ov_control($fault, 'GET', '/journal') } ];
}

sub literal { my ($s) = @_; $s =~ s/'/''/g; return "'$s'"; }
sub as_json { return literal(JSON::PP->new->canonical->encode($_[0])); }

# What a request must be: its body exactly, and the headers that are named
sub is_request
{
	my ($got, $want, $name) = @_;
	my %want = (method => 'POST', %$want);
	my $body = delete $want{body};
	my $method = delete $want{method};
	is($got->{method}, $method, "$name: method");
	is($got->{body}, $body, "$name: body");
	is($got->{query}, '', "$name: nothing in the query");
	is($got->{headers}{$_}, $want{$_}, "$name: $_") foreach sort keys %want;
	is($got->{headers}{authorization}, undef, "$name: no other authentication") unless exists $want{authorization};
}

sub expire
{
	my ($who) = @_;
	$node->safe_psql('postgres', qq{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute',
		refresh_at = NULL WHERE user_id = '$who'});
}

sub connect_account
{
	my ($name, $p, $who) = @_;
	my $params = as_json($p->{begin_params} // {});
	my ($url, $state) = split / /, ov_sql($node, $who,
		"SELECT authorization_url || ' ' || state FROM oauth_vault.oauth_begin('$name', params => $params);");
	script($p->{token_path}, { body => $p->{tokens} });
	my $query = "$p->{callback}&state=$state";
	if ($p->{signed})
	{
		my $signed = join '&', sort split /&/, $query;
		$query .= '&hmac=' . hmac_sha256_hex($signed, $secret);
	}
	my $row = ov_sql($node, $who, 'SELECT status, provider_subject, scopes, connection_id FROM oauth_vault.oauth_callback('
		  . literal("$redirect?$query") . ');');
	return ($url, $state, split /\|/, $row);
}

foreach my $name (sort keys %providers)
{
	my $p = $providers{$name};
	my $who = "person of $name";
	if ($p->{rules})
	{
		my $rules = as_json($p->{rules}) =~ s/ENDPOINT/$base\/$name/gr;
		$node->safe_psql('postgres', "SELECT oauth_vault.oauth_set_provider('$name', $rules)");
	}
	script($_, { body => $p->{discovery}{$_} }) foreach keys %{ $p->{discovery} // {} };
	my $scopes = @{ $p->{scopes} } ? 'ARRAY[' . join(',', map { literal($_) } @{ $p->{scopes} }) . ']' : q{'{}'};
	$node->safe_psql('postgres', qq{SELECT oauth_vault.oauth_create_connector('$name', '$name', 'client', '$secret', '$redirect',
		scopes => $scopes, params => } . as_json($p->{params} // {})
		  . ($p->{issuer} ? ", issuer => '$p->{issuer}'" : '') . ')');

	my ($url, $state, $status, $subject, $granted) = connect_account($name, $p, $who);
	my ($challenge) = $url =~ /code_challenge=([\w-]+)/;
	is($url, $p->{url} =~ s/STATE/$state/r =~ s/CHALLENGE/$challenge \/\/ 'none'/er, "$name: the authorization URL");
	is($status, 'active', "$name: connected");
	is($subject, $p->{subject} // '', "$name: who the provider says this is");
	is($granted, $p->{scopes_granted}, "$name: granted scopes");

	my @sent = @{ journal($p->{token_path}) };
	is(scalar(@sent), 1, "$name: the code is sent once");
	my ($verifier) = $sent[0]{body} =~ /code_verifier"?[=:]"?([\w-]+)/;
	is($verifier && encode_base64url(sha256($verifier)), $challenge, "$name: the verifier is that of the challenge");
	my %exchange = %{ $p->{exchange} };
	$exchange{body} =~ s/VERIFIER/$verifier/ if defined $verifier;
	is_request($sent[0], \%exchange, "$name: code exchange");

	is(ov_sql($node, $who, "SELECT oauth_vault.oauth_fresh_token('$name');"), $p->{tokens}{access_token}, "$name: the token");
	my ($header, $api_base, $headers) = split /\|/, ov_sql($node, $who,
		"SELECT header_name || ': ' || header_value, api_base, headers FROM oauth_vault.oauth_credential('$name');");
	is($header, $p->{header} // "Authorization: Bearer $p->{tokens}{access_token}", "$name: how an API takes it");
	is($api_base, $p->{api_base} // '', "$name: and where");
	is($headers, $p->{headers} // '{}', "$name: with which other headers");

	expire($who);
	script($p->{token_path}, { body => $p->{refreshed} });
	is(ov_sql($node, $who, "SELECT oauth_vault.oauth_fresh_token('$name');"), $p->{refreshed}{access_token}, "$name: refreshed");
	@sent = @{ journal($p->{token_path}) };
	is(scalar(@sent), 2, "$name: by one request");
	is_request($sent[1], $p->{refresh}, "$name: refresh");
	is(ov_sql($node, $who, "SELECT scopes FROM oauth_vault.oauth_credential('$name');"), $p->{scopes_granted}, "$name: the scopes are as before");
	is(ov_sql($node, $who, "SELECT api_base FROM oauth_vault.oauth_credential('$name');"), $p->{api_base_refreshed},
		"$name: the API has moved") if $p->{api_base_refreshed};

	my @revoke = @{ $p->{revoke} };
	script($p->{revoke_path}, @{ $p->{revoke_answers} // [ map { { body => '' } } @revoke ] }) if @revoke;
	ov_sql($node, $who, "SELECT local_state FROM oauth_vault.oauth_revoke('$name');");
	ok(ov_wait_for('the end', sub {
		ov_sql($node, $who, 'SELECT status FROM oauth_vault.oauth_connections;') eq 'revoked' }), "$name: revoked");
	@sent = @{ journal($p->{revoke_path}) };
	is(scalar(@sent), scalar(@revoke), "$name: by as many requests as it takes");
	is_request($sent[$_], $revoke[$_], "$name: revocation $_") foreach 0 .. $#revoke;
	is($node->safe_psql('postgres', qq{SELECT state FROM oauth_vault.revocation WHERE user_id = '$who'}),
		@revoke ? 'confirmed' : 'unsupported', "$name: and the provider confirms");

	# Its own word for a grant that is gone: believed at once, and asked only once.
	my $other = "other of $name";
	connect_account($name, $p, $other);
	expire($other);
	script($p->{token_path}, $p->{dead});
	my $before = @{ journal($p->{token_path}) };
	foreach my $try (1, 2)
	{
		my ($sqlstate, $text) = ov_sql_fails($node, $other, "SELECT oauth_vault.oauth_fresh_token('$name');");
		is($sqlstate, 'OV010', "$name: a dead grant, try $try") or diag($text);
	}
	is(scalar(@{ journal($p->{token_path}) }), $before + 1, "$name: one attempt");
	is(ov_sql($node, $other, 'SELECT status FROM oauth_vault.oauth_connections;'), 'reauth_required', "$name: consent is needed again");
}

# A callback that the provider did not sign, or about another shop, goes nowhere.
my $p = $providers{shopify};
foreach my $case ([ 'shop=some-shop.myshopify.com', 'wrong' ], [ 'shop=other-shop.myshopify.com', $secret ])
{
	my ($shop, $key) = @$case;
	my $sent = @{ journal($p->{token_path}) };
	my $state = ov_sql($node, 'mallory', q{SELECT state FROM oauth_vault.oauth_begin('shopify', params => '{"shop": "some-shop.myshopify.com"}');});
	my $query = join '&', sort ('code=x', $shop, "state=$state", 'timestamp=1');
	my ($sqlstate) = ov_sql_fails($node, 'mallory', 'SELECT oauth_vault.oauth_callback('
		  . literal("$redirect?$query&hmac=" . hmac_sha256_hex($query, $key)) . ');');
	is($sqlstate, 'OV030', "shopify: no callback with $shop under " . ($key eq $secret ? 'the' : 'another') . ' secret');
	is(scalar(@{ journal($p->{token_path}) }), $sent, 'shopify: and no code is sent');
}
my ($sqlstate) = ov_sql_fails($node, 'mallory', q{SELECT oauth_vault.oauth_begin('shopify', params => '{"shop": "evil.example"}');});
isnt($sqlstate, '00000', 'shopify: no flow with a foreign host');
($sqlstate) = ov_sql_fails($node, 'mallory', q{SELECT oauth_vault.oauth_begin('microsoft', params => '{"tenant": "common"}');});
is($sqlstate, 'OV014', 'microsoft: a person does not choose what is the administrator\'s');

# The code under a provider's own name for it
$node->safe_psql('postgres', q{SELECT oauth_vault.oauth_set_provider('google', merge) FROM (
	SELECT rules || '{"callback": {"code": "auth_code"}}' AS merge FROM oauth_vault.provider_site WHERE name = 'google') s});
$p = { %{ $providers{google} }, callback => 'auth_code=c0de' };
my (undef, undef, $status) = connect_account('google', $p, 'person of an alias');
is($status, 'active', 'a code by another name is taken');
like(journal($p->{token_path})->[-1]{body}, qr/(^|&)code=c0de(&|$)/, 'and sent under the standard one');

$node->stop('fast');
done_testing();
