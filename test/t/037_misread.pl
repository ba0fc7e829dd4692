# An administrator who points the rules' readings (errors, captured values,
# scopes, subject) at the tokens in an answer, and a provider that quotes what
# it was sent: no token and no code comes out in words.
use strict;
use warnings;
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $fault = ov_fault();
my $node = ov_cluster('misread', hosts => [ "localhost:$idp->{port}", "localhost:$fault->{port}" ]);
$node->safe_psql('postgres', qq{
	CREATE ROLE boss LOGIN IN ROLE oauth_vault_admin;
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
my $id = ov_connect($node, 'ada', 'demo');

sub boss
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'boss', '-v', 'VERBOSITY=verbose' ]);
	return "$out\n$err";
}
my @secrets = ();
# What an administrator, an auditor and the log can show, and the tables' texts
sub everything
{
	return join "\n", boss("SELECT oauth_vault.oauth_explain('$id'); SELECT e FROM oauth_vault.oauth_explain('$id') e;"),
	  $node->safe_psql('postgres', q{
		SELECT c::text FROM oauth_vault.connection c; SELECT a::text FROM oauth_vault.oauth_audit a;
		SELECT f::text FROM oauth_vault.flow f; SELECT r::text FROM oauth_vault.revocation r}),
	  slurp_file($node->logfile);
}

my @patches = (
	{ response => { success => { pointer => '/x', equals => JSON::PP::true },
			error => { code => '/refresh_token', description => '/access_token' } } },
	{ response => { success => { pointer => '/x', equals => JSON::PP::true },
			errors => [ { pointer => '/refresh_token', outcome => 'denied', reason => 'it is there' } ] } },
	{ response => { capture => { a => '/refresh_token', b => '/access_token', c => '/id_token' } } },
	{ response => { fields => { scope => '/refresh_token' } } },
	{ response => { fields => { refresh_token => '/scope' }, capture => { a => '/refresh_token' } } },
	{ response => { scope => { secondary => { '/refresh_token' => 'x:' } } } },
	{ subject => '{/refresh_token}' },
);
my $n = 0;
foreach my $patch (@patches)
{
	$n++;
	my $json = encode_json($patch) =~ s/'/''/gr;
	my $set = boss("SELECT 'set' FROM oauth_vault.oauth_set_provider('oidc', '$json')");
	my $refreshed = boss("SELECT oauth_vault.oauth_refresh('$id')");
	# a new consent reads the answer with these rules too
	eval { ov_connect($node, "person $n", 'demo') };
	boss("SELECT oauth_vault.oauth_drop_provider('oidc')");
	# Opaque tokens and the ID tokens; the ways to write a scope or a secret are not unguessable.
	my @issued = grep { length($_) >= 20 && $_ ne 'demo: secret/with+signs' } @{ ov_control($idp, 'GET', '/secrets') };
	cmp_ok(scalar(@issued), '>', 3, "rules $n: tokens were issued");
	my $shown = everything();
	# codes and states are literals of this test's own statements: the log shows those
	my @hits = grep { index($shown =~ s/^.*oauth_callback.*$//gmr, $_) >= 0 } @issued;
	is(scalar(@hits), 0, "rules $n: " . ($set =~ /^set/ ? 'taken' : 'refused') . ', and show no token')
	  or diag(join "\n", map { substr($_, 0, 16) } @hits);
	# what they broke is put right by a new consent
	ov_connect($node, 'ada', 'demo');
}

# A provider that quotes: code, client secret, refresh token.
my $base = $fault->{issuer};
my $secret = 'client-secret-to-be-quoted';
ov_control($fault, 'POST', '/script', { path => '/.well-known/oauth-authorization-server', answers => [ { repeat => -1, body => {
	issuer => $base, authorization_endpoint => "$base/authorize", token_endpoint => "$base/token", response_types_supported => ['code'],
	code_challenge_methods_supported => ['S256'] } } ] });
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('quoting', 'oidc', 'client', '$secret', 'https://app.example/callback',
		scopes => ARRAY['files'], issuer => '$base', refresh_policy => 'lazy')});
my $begin = sub { ov_sql($node, 'grace', "SELECT state FROM oauth_vault.oauth_begin('quoting');") };
my $complete = sub {
	my ($state) = @_;
	return ov_sql_fails($node, 'grace', "SELECT connection_id FROM oauth_vault.oauth_complete('$state', 'the-code-to-be-quoted');");
};
foreach my $status (400, 401)
{
	ov_control($fault, 'POST', '/script', { path => '/token', answers => [ { status => $status, body => {
		error => 'invalid_grant', error_description => "code the-code-to-be-quoted of $secret has expired" } } ] });
	my ($state, $text) = $complete->($begin->());
	is($state, 'OV031', "a refusal with status $status that quotes code and client secret");
	my ($detail) = $text =~ /^DETAIL:\s*(.*)$/m;
	unlike($detail, qr/to-be-quoted/, 'is told without them');
}
ov_control($fault, 'POST', '/script', { path => '/token', answers => [ { body => { access_token => 'access-to-be-quoted',
	token_type => 'Bearer', refresh_token => 'refresh-to-be-quoted', expires_in => 3600, scope => 'files' } },
	{ status => 400, body => { error => 'invalid_grant', error_description => 'refresh-to-be-quoted was used' } } ] });
my ($state, $connection) = $complete->($begin->());
is($state, '00000', 'a connection');
$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute' WHERE user_id = 'grace'});
my ($dead, $text) = ov_sql_fails($node, 'grace', "SELECT oauth_vault.oauth_fresh_token('quoting');");
is($dead, 'OV010', 'a dead grant whose refusal quotes the refresh token');
unlike($text, qr/refresh-to-be-quoted/, 'is told without it');
unlike($node->safe_psql('postgres', 'SELECT c::text FROM oauth_vault.connection c; SELECT a::text FROM oauth_vault.audit a'),
	qr/to-be-quoted/, 'and nothing of it is stored');
$node->stop('fast');
done_testing();
