# An administrator who wants tokens: connectors, overrides, providers of his
# own, params, issuer and API base, all pointed at a server of his.  It hears
# nothing.
use strict;
use warnings;
use JSON::PP;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $evil = ov_fault();			# his server, which answers everybody
my $second = ov_fault();		# another allowed one, for redirects and false metadata
my $node = ov_cluster('harvest', hosts => [ "localhost:$idp->{port}", "localhost:$second->{port}" ]);
my $at = "localhost:$evil->{port}";
my $url = "https://$at";
sub superuser { return $node->safe_psql('postgres', $_[0]); }
superuser('CREATE ROLE boss LOGIN IN ROLE oauth_vault_admin');
superuser(qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}', refresh_policy => 'lazy');});
ov_connect($node, 'ada', 'demo');
my $token = ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
superuser('CREATE TABLE kept AS SELECT connection_id, status, status_reason, status_detail, token_generation, access_token, refresh_token, expires_at,
	refresh_at, attempts, last_error, metadata FROM oauth_vault.connection');
my $jwt = ov_assertion($node, 'ada', '--ttl', '3000');

# What an administrator may do, as one; each statement's SQLSTATE.
sub boss
{
	my (@sql) = @_;
	my $script = join '', map { "$_;\n\\echo state=:SQLSTATE\n" } @sql;
	my (undef, $out, $err) = $node->psql('postgres', $script, on_error_stop => 0,
		extra_params => [ '-U', 'boss', '-v', 'VERBOSITY=verbose' ]);
	return ([ $out =~ /^state=(\w+)$/mg ], $err);
}
sub whole
{
	my ($where) = @_;
	return encode_json({ schema => 1, display_name => 'Mine', authorization => { url => "$where/auth" },
		token => { url => "$where/token" }, revocation => { refresh_token => { url => "$where/revoke" } },
		api => { base => "$where/api", hosts => [$where =~ s{^https://}{}r] } });
}
sub override { my ($name, $patch) = @_; return "SELECT oauth_vault.oauth_set_provider('$name', '" . encode_json($patch) =~ s/'/''/gr . "')"; }
sub connector
{
	my ($name, $provider, $more) = @_;
	return "SELECT oauth_vault.oauth_create_connector('$name', '$provider', 'x', 'the-secret-of-$name', 'https://app.example/callback', $more)";
}
sub literal { my ($v) = @_; return "'" . encode_json($v) =~ s/'/''/gr . "'"; }

# Every way in which something could leave, by everybody who could be made to
# do it: refresh, credential, consent, revocation.
my @said;
sub use_everything
{
	@said = ();
	my @connectors = grep { /\w/ } split /\n/, superuser(q{INSERT INTO oauth_vault.revocation (connection_id, tenant, user_id, connector_id, key_id, token_generation, hosts_digest,
			metadata, access_token, refresh_token)
		SELECT connection_id, tenant, user_id, connector_id, key_id, token_generation, hosts_digest, metadata, access_token, refresh_token
		FROM oauth_vault.connection;
		SELECT oauth_vault.oauth_set_provider('slack', '{}');	-- wakes the worker when it commits
		SELECT name FROM oauth_vault.connector WHERE status <> 'dropped' ORDER BY name});
	foreach my $c (@connectors)
	{
		my $sql = "\\set state none\n";
		$sql .= "SELECT api_base, headers FROM oauth_vault.oauth_credential('$c', assertion => '$jwt');\n\\echo credential=:SQLSTATE\n";
		$sql .= "SELECT oauth_vault.oauth_fresh_token('$c', min_ttl => '1 day', assertion => '$jwt') IS NOT NULL;\n\\echo refresh=:SQLSTATE\n";
		$sql .= "SELECT oauth_vault.oauth_report_rejected('$c', '$token', assertion => '$jwt');\n\\echo rejected=:SQLSTATE\n";
		$sql .= "SELECT state FROM oauth_vault.oauth_begin('$c', account => 'new', params => '{\"shop\":\"x.myshopify.com\"}', assertion => '$jwt')\\gset\n";
		$sql .= "SELECT state FROM oauth_vault.oauth_begin('$c', account => 'new', assertion => '$jwt')\\gset\n\\echo begin=:SQLSTATE\n";
		$sql .= "SELECT connection_id FROM oauth_vault.oauth_complete(:'state', 'a-code-from-the-browser', assertion => '$jwt');\n\\echo complete=:SQLSTATE\n";
		my (undef, $out) = $node->psql('postgres', $sql, on_error_stop => 0, extra_params => [ '-U', 'app' ]);
		push @said, "$c: $out";
	}
	ov_wait_for('the outbox', sub { superuser(q{SELECT count(*) FROM oauth_vault.revocation WHERE state = 'queued' AND attempts = 0}) eq '0' }, 20)
	  or diag superuser('SELECT state, attempts, outcome FROM oauth_vault.revocation');
}

# As if nothing had been tried
sub restore
{
	superuser(q{DELETE FROM oauth_vault.revocation; DELETE FROM oauth_vault.intent; DELETE FROM oauth_vault.flow;
		DELETE FROM oauth_vault.provider_site; DELETE FROM oauth_vault.connector WHERE name <> 'demo';
		UPDATE oauth_vault.connector SET params = '{}', status = 'active', status_reason = NULL;
		UPDATE oauth_vault.connection c SET status = k.status, status_reason = k.status_reason, status_detail = k.status_detail,
			token_generation = k.token_generation, access_token = k.access_token, refresh_token = k.refresh_token, expires_at = k.expires_at,
			refresh_at = k.refresh_at, attempts = k.attempts, last_error = k.last_error, metadata = k.metadata, forced_at = NULL
		FROM kept k WHERE k.connection_id = c.connection_id});
}
sub heard { my ($who) = @_; return @{ ov_control($who, 'GET', '/journal') }; }

ov_control($evil, 'POST', '/script', { path => $_, answers => [ { repeat => -1,
	body => { access_token => 'poisoned', refresh_token => 'poisoned', token_type => 'Bearer', expires_in => 3600 } } ] })
  foreach qw(/token /revoke);
ov_control($evil, 'POST', '/script', { path => '/.well-known/openid-configuration', answers => [ { repeat => -1, body => { issuer => $url,
	authorization_endpoint => "$url/auth", token_endpoint => "$url/token", revocation_endpoint => "$url/revoke", jwks_uri => "$url/jwks" } } ] });
# An allowed server whose metadata names his, and one that redirects to his
ov_control($second, 'POST', '/script', { path => '/.well-known/openid-configuration', answers => [ { repeat => -1, body => {
	issuer => $second->{issuer}, authorization_endpoint => "$second->{issuer}/auth", token_endpoint => "$url/token",
	revocation_endpoint => "$url/revoke", jwks_uri => "$second->{issuer}/jwks" } } ] });
ov_control($second, 'POST', '/script', { path => $_, answers => [ { repeat => -1, status => 307, headers => { location => "$url/token" } } ] })
  foreach qw(/token /revoke);

my $idp_hosts = "localhost:$idp->{port}";
my @ways = (
	[ 'a connector at his issuer', connector('his', 'oidc', "issuer => '$url'") ],
	[ 'discovery of his issuer', "SELECT oauth_vault.oauth_discover('$url')" ],
	[ 'an allowed issuer whose metadata names his server', connector('his', 'oidc', "issuer => '$second->{issuer}'") ],
	[ 'a provider of his own', override('mine', decode_json(whole($url))), connector('his', 'mine', "scopes => '{}'") ],
	[ 'a provider of his own, first at an allowed host', override('mine', decode_json(whole($idp->{issuer}))),
		connector('his', 'mine', "scopes => '{}'"), override('mine', decode_json(whole($url))) ],
	[ 'the token endpoint, overridden', override('oidc', { token => { url => "$url/token" } }) ],
	[ 'the refresh endpoint', override('oidc', { refresh => { url => "$url/token" } }) ],
	[ 'the revocation endpoint', override('oidc', { revocation => { refresh_token => { url => "$url/revoke" }, access_token => { url => "$url/revoke" } } }) ],
	[ 'all endpoints and his host among the API hosts', override('oidc', { token => { url => "$url/token" }, refresh => { url => "$url/token" },
		revocation => { refresh_token => { url => "$url/revoke" } }, api => { base => "$url/api", hosts => [$at] } }) ],
	[ 'the API base', override('oidc', { api => { base => "$url/api" } }) ],
	[ 'the API base by a variable', override('oidc', { variables => { base => { pattern => '.*', source => [ 'connector', 'begin' ] } }, api => { base => '{base}' } }),
		"SELECT oauth_vault.oauth_alter_connector('demo', params => '{\"base\":\"$url/api\"}')" ],
	[ 'API hosts alone', override('oidc', { api => { hosts => [$at] } }) ],
	[ 'API hosts with a wildcard', override('oidc', { api => { base => "$url/api", hosts => ['*'] } }) ],
	(map { [ "the token endpoint as $_", override('oidc', { token => { url => "$_/token" } }) ] } (
		"https://$idp_hosts\@$at", "https://$idp_hosts:x\@$at", "https://LOCALHOST:$evil->{port}", "https://localhost.:$evil->{port}",
		"https://127.0.0.1:$evil->{port}", "https://127.1:$evil->{port}", "https://2130706433:$evil->{port}", "https://0x7f000001:$evil->{port}",
		"https://[::ffff:127.0.0.1]:$evil->{port}", "http://$at", "https://$idp_hosts.evil.example",
		"https://$idp_hosts\\\@$at", "https://$idp_hosts%2f\@$at", "https://$idp_hosts?\@$at", "https://$at/$idp_hosts",
		"https://localhost:0$evil->{port}", "https://l%6fcalhost:$evil->{port}")),
	[ 'a variable for the host', override('oidc', { variables => { h => { pattern => '.*', source => [ 'connector', 'begin' ] } }, token => { url => 'https://{h}/token' } }),
		"SELECT oauth_vault.oauth_alter_connector('demo', params => '{\"h\":\"$at\"}')" ],
	[ 'a variable for the whole URL', override('oidc', { variables => { u => { pattern => '.*', source => [ 'connector', 'begin' ] } }, token => { url => '{u}' } }),
		"SELECT oauth_vault.oauth_alter_connector('demo', params => '{\"u\":\"$url/token\"}')" ],
	[ 'a variable for the port', override('oidc', { variables => { p => { pattern => '.*', default => "$evil->{port}" } }, token => { url => 'https://localhost:{p}/token' } }) ],
	[ "a built-in provider's host by params", connector('his', 'github_app_user', "params => '{\"host\":\"$at\"}'") ],
	[ "a built-in provider's host by params, its pattern overridden", override('github_app_user', { variables => { host => { pattern => '.*' }, api_host => { pattern => '.*' } } }),
		connector('his', 'github_app_user', "params => '{\"host\":\"$at\",\"api_host\":\"$at\"}'") ],
	[ 'the same by defaults', override('github_app_user', { variables => { host => { pattern => '.*', default => $at }, api_host => { pattern => '.*', default => $at } } }),
		connector('his', 'github_app_user', "params => '{}'") ],
	[ 'a shop that is his', connector('his', 'shopify', "params => '{\"shop\":\"$at\"}'") ],
	[ 'a shop that is his, the pattern overridden', override('shopify', { variables => { shop => { pattern => '.*' } } }),
		connector('his', 'shopify', "params => '{\"shop\":\"$at\"}'") ],
	[ 'an instance_url that is his', override('salesforce', { variables => { instance_url => { pattern => '.*', source => ['connector'] } } }),
		connector('his', 'salesforce', "params => '{\"instance_url\":\"$url\"}'") ],
	[ "a directory that leaves its host", connector('his', 'microsoft', "params => '{\"tenant\":\"x\@$at/\"}'") ],
	[ 'an allowed server that redirects to his', override('mine', decode_json(whole($second->{issuer}))), connector('his', 'mine', "scopes => '{}'") ],
	[ 'the connector dropped and made again', "SELECT oauth_vault.oauth_drop_connector('demo')", connector('demo', 'oidc', "issuer => '$url'") ],
	[ 'rules in capitals', "SELECT oauth_vault.oauth_set_provider('oidc', '{\"Token\":{\"url\":\"$url/token\"}}')" ],
	[ 'an overlay', override('oidc', { variables => { e => { pattern => 'a|b', default => 'b' } }, overlays => { e => { b => { token => { url => "$url/token" } } } } }) ],
	# not through the functions
	[ 'a write to the table', "UPDATE oauth_vault.connector SET metadata = '{}'" ],
	[ 'a write to the view', "UPDATE oauth_vault.oauth_connectors SET metadata = '{}'" ],
	[ 'the built-in catalogue', "UPDATE oauth_vault.provider_builtin SET rules = '{}'" ],
	[ 'a setting', "SET oauth_vault.allow_insecure_loopback = on", "SET oauth_vault.vault_file = '/tmp/x'", "SET oauth_vault.ca_file = '/tmp/x'" ],
);
my ($refused, $unused) = (0, 0);
foreach my $way (@ways)
{
	my ($name, @sql) = @$way;
	my ($states, $err) = boss(@sql);
	my $last = $states->[-1];
	my $taken = !grep { $_ ne '00000' } @$states;
	$taken ? $unused++ : $refused++;
	use_everything() if grep { $_ eq '00000' } @$states;
	is(scalar(heard($evil)), 0, "$name: " . ($taken ? 'accepted, and nothing goes there' : "refused ($last)"))
	  or diag(join "\n", map { "$_->{method} $_->{path} $_->{body}" } heard($evil));
	unlike(join("\n", @said), qr/:$evil->{port}/, '... and no caller is sent there with a token');
	ov_control($evil, 'POST', '/reset') if heard($evil);
	restore();
}
note(scalar(@ways) . " ways tried: $refused refused when set, $unused accepted and never used");
isnt($unused, 0, 'some get as far as the sending');

# After all that the person's token is what it was, and goes where it went.
is(ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');"), $token, 'the grant is untouched');
my @codes = grep { $_->{body} =~ /the-secret-of|a-code-from/ } heard($second);
isnt(scalar(@codes), 0, 'the server that redirects has been asked');

# A grant keeps to the hosts it was made for, even if the new one is allowed.
ov_control($second, 'POST', '/reset');
my ($states) = boss(override('oidc', { refresh => { url => "$second->{issuer}/token" }, revocation => { refresh_token => { url => "$second->{issuer}/revoke" } } }));
is($states->[-1], '00000', 'an override to another allowed host');
use_everything();
unlike(join('', map { $_->{body} } heard($second)), qr/refresh_token=|[?&]?token=/, 'tokens of older grants do not go there');
restore();

# The same server, once the vault file allows it: now it hears everything.
my $file = decode_json(PostgreSQL::Test::Utils::slurp_file($node->{ov_vault}));
push @{ $file->{allowed_hosts} }, $at;
open my $fh, '>', $node->{ov_vault} or die $!;
print $fh encode_json($file);
close $fh;
$node->reload;
ok(ov_wait_for('the vault file', sub { my ($s) = boss("SELECT oauth_vault.oauth_discover('$url')"); $s->[0] eq '00000' }, 20),
	'whoever writes the vault file decides');
boss(override('mine', decode_json(whole($url))), connector('his', 'mine', "scopes => '{}'"));
use_everything();
like(join('', map { $_->{body} . ($_->{headers}{authorization} // '') } heard($evil)), qr/a-code-from-the-browser/,
	'his server would have heard');
$node->stop('fast');
done_testing();
