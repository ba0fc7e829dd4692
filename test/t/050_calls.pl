# What has to be asked between a code and a connection, and what one code may
# bring: a long-lived token, whose account it is, tokens beside the first.
use strict;
use warnings;
use JSON::PP;
use OauthVault::Test;
use Test::More;

my $fault = ov_fault();
my $base = "https://localhost:$fault->{port}";
my $node = ov_cluster('calls', hosts => ["localhost:$fault->{port}"]);
my $redirect = 'https://app.example/callback';

sub script { my ($path, @answers) = @_; ov_control($fault, 'POST', '/script', { path => $path, answers => \@answers }); return; }
sub journal { my ($path) = @_; return grep { $_->{path} eq $path } @{ ov_control($fault, 'GET', '/journal') }; }
sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub literal { my ($s) = @_; $s =~ s/'/''/g; return "'$s'"; }

my %rules = (
	schema => 1, display_name => 'Own', client_auth => ['client_secret_post'], pkce => 'none',
	variables => { site => { pattern => '[0-9]{1,9}', source => [ 'begin', 'response' ] } },
	authorization => { url => "$base/authorize" },
	token => { url => "$base/token" },
	post_exchange => { url => "$base/long", method => 'GET', auth => 'none', format => 'query',
		params => { grant_type => 'own_exchange', client_secret => '{client_secret}', access_token => '{access_token}' } },
	lookup => { url => "$base/sites", method => 'GET', auth => 'bearer', format => 'none',
		select => { list => '/sites', where => [ { pointer => '/id', equals => '{site}' } ] }, capture => { site => '/id', site_name => '/name' } },
	refresh => { strategy => 'exchange', url => "$base/renew", method => 'GET', auth => 'none', format => 'query', min_age => 86400,
		params => { grant_type => 'own_refresh', access_token => '{access_token}' } },
	response => { token_type => 'optional' },
	subject => '{site}',
	revocation => { access_token => { url => "$base/revoke", auth => 'none' } },
	api => { base => "$base/api/{site}", hosts => ["localhost:$fault->{port}"] },
);
sub provider
{
	my ($name, %more) = @_;
	my %all = (%rules, %more);
	delete @all{ grep { !defined $all{$_} } keys %all };
	superuser('SELECT oauth_vault.oauth_set_provider(' . literal($name) . ', ' . literal(JSON::PP->new->canonical->encode(\%all)) . ')');
	superuser("SELECT oauth_vault.oauth_create_connector('$name', '$name', 'client', 'hush-hush-secret', '$redirect', scopes => '{}')");
	return;
}
sub begin
{
	my ($who, $name, $params) = @_;
	return ov_sql($node, $who, "SELECT state FROM oauth_vault.oauth_begin('$name', params => " . literal($params // '{}') . ');');
}
sub complete
{
	my ($who, $state) = @_;
	return "SELECT status, provider_subject, account FROM oauth_vault.oauth_complete('$state', 'c0de');";
}
my $short = { body => { access_token => 'short-lived-token', expires_in => 3600 } };
my $long = { body => { access_token => 'long-lived-token', expires_in => 5184000 } };
my $sites = { body => { sites => [ { id => 7, name => 'one' }, { id => 8, name => 'two', note => 'long-lived-token' } ] } };

# ---- three requests for a connection ----

provider('own');
script('/token', $short);
script('/long', $long);
script('/sites', $sites);
is(ov_sql($node, 'ada', complete('ada', begin('ada', 'own', '{"site": "8"}'))), 'active|8|', 'a code, a long-lived token and a site make a connection');
my ($exchange) = journal('/long');
is($exchange->{query}, 'grant_type=own_exchange&access_token=short-lived-token&client_secret=hush-hush-secret', 'the short-lived token is exchanged at once');
my ($lookup) = journal('/sites');
is($lookup->{headers}{authorization}, 'Bearer long-lived-token', 'and the long-lived one asks whose account it is');
is(ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('own');"), 'long-lived-token', 'it is the one that is kept');
is(superuser("SELECT metadata->>'site_name', expires_at > now() + interval '59 days' FROM oauth_vault.connection"), 'two|t', 'with its life, and the site that begin named');
like(ov_sql($node, 'ada', "SELECT api_base FROM oauth_vault.oauth_credential('own');"), qr{/api/8$}, 'where its API is');

# ---- renewed by itself ----

sub soon_over
{
	my ($age) = @_;
	superuser("UPDATE oauth_vault.connection SET issued_at = now() - interval '$age', expires_at = now() + interval '4 minutes', attempts = 0, refresh_at = NULL");
	return;
}
my $renew = "SELECT oauth_vault.oauth_fresh_token('own', min_ttl => '10 minutes');";
soon_over('1 hour');
my ($state) = ov_sql_fails($node, 'ada', $renew);
is($state, 'OV020', 'a token is not exchanged before it is a day old');
is(scalar journal('/renew'), 0, 'nothing is sent');
soon_over('2 days');
script('/renew', { body => { access_token => 'renewed-token', expires_in => 5184000 } });
is(ov_sql($node, 'ada', $renew), 'renewed-token', 'then it is');
my ($renewal) = journal('/renew');
is($renewal->{query}, 'grant_type=own_refresh&access_token=long-lived-token', 'for itself');
soon_over('2 days');
script('/renew', { body => { access_token => 'renewed-again', expires_in => 5184000 } });
is(ov_sql($node, 'ada', $renew), 'renewed-again', 'and again');
is((journal('/renew'))[-1]{query}, 'grant_type=own_refresh&access_token=renewed-token', 'by the newest');

# ---- a call that fails ----

my $revoked = scalar journal('/revoke');
script('/revoke', { body => {}, repeat => -1 });
script('/token', $short);
script('/long', { status => 400, body => { error => 'invalid_request' } });
my $text;
($state, $text) = ov_sql_fails($node, 'ben', complete('ben', begin('ben', 'own')));
is($state, 'OV031', 'no long-lived token: no connection');
unlike($text, qr/short-lived-token|hush-hush/, 'and no secret in the error');
ov_wait_for('the revocation', sub { journal('/revoke') == $revoked + 1 });
like((journal('/revoke'))[-1]{body}, qr/token=short-lived-token/, 'the short-lived one is revoked');

script('/token', $short);
script('/long', $long);
script('/sites', { status => 503, body => {} });
($state) = ov_sql_fails($node, 'ben', complete('ben', begin('ben', 'own')));
is($state, 'OV020', 'nobody says whose account it is: no connection');
ov_wait_for('the revocation', sub { journal('/revoke') == $revoked + 2 });
is(superuser("SELECT count(*) FROM oauth_vault.connection WHERE user_id = 'ben'"), 0, 'nothing is stored');

script('/token', $short);
script('/long', $long);
script('/sites', $sites);
($state) = ov_sql_fails($node, 'ben', complete('ben', begin('ben', 'own', '{"site": "9"}')));
is($state, 'OV034', 'a site that the person has not granted');
ov_wait_for('the revocation', sub { journal('/revoke') == $revoked + 3 });

# ada has a connection already: revoking the new tokens might end it as well.
script('/token', $short);
script('/long', $long);
script('/sites', { status => 503, body => {} });
($state) = ov_sql_fails($node, 'ada', complete('ada', begin('ada', 'own')));
is($state, 'OV020', 'a new consent that fails half-way');
is(ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('own');"), 'renewed-again', 'leaves the old connection alone');
is(superuser("SELECT count(*) FROM oauth_vault.revocation WHERE user_id = 'ada'"), 0, 'and revokes nothing');
is(superuser(q{SELECT count(*) FROM oauth_vault.connection c WHERE c::text ~ 'lived-token|hush-hush'}) . superuser(
	q{SELECT count(*) FROM oauth_vault.audit a WHERE a::text ~ 'lived-token|hush-hush'}), '00', 'no token is stored or told in clear');

# A lookup that a connection can do without
provider('easy', post_exchange => undef, lookup => { %{ $rules{lookup} }, required => JSON::PP::false }, subject => undef,
	variables => { site => { %{ $rules{variables}{site} }, default => '1' } });
script('/token', $short);
script('/sites', { status => 500, body => {} });
is(ov_sql($node, 'ada', complete('ada', begin('ada', 'easy'))), 'active||', 'a lookup that is not required is passed over');

# ---- hosts ----

foreach my $call (qw(post_exchange lookup))
{
	my %elsewhere = (%{ $rules{$call} }, url => 'https://elsewhere.example/x');
	superuser('SELECT oauth_vault.oauth_set_provider(' . literal($call) . ', ' . literal(JSON::PP->new->canonical->encode({ %rules, $call => \%elsewhere })) . ')');
	my ($rc, $out, $err) = $node->psql('postgres',
		"SELECT oauth_vault.oauth_create_connector('$call', '$call', 'client', 'hush-hush-secret', '$redirect')", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/OV014.*elsewhere\.example/s, "$call: no token goes to a host that is not allowed");
}

# ---- one consent, two tokens ----

provider('pair', post_exchange => undef, lookup => undef, refresh => {}, subject => '{/team}',
	variables => { kind => { pattern => 'bot|person|both', default => 'both' } },
	overlays => { kind => { person => { response => { fields => { access_token => '/person/access_token', refresh_token => '/person/refresh_token', scope => '/person/scope' } },
				refresh => { response => { fields => { access_token => '/access_token', refresh_token => '/refresh_token', scope => '/scope' } } }, subject => '{/person/id}' },
			both => { slots => { person => { kind => 'person' } } } } },
	api => { hosts => ["localhost:$fault->{port}"] });
script('/token', { body => { access_token => 'bot-token', refresh_token => 'bot-refresh', expires_in => 3600, scope => 'post', team => 'T1',
		person => { id => 'U1', access_token => 'person-token', refresh_token => 'person-refresh', scope => 'search' } } });
is(ov_sql($node, 'cleo', complete('cleo', begin('cleo', 'pair'))), 'active|T1|', 'one consent');
is(superuser("SELECT string_agg(account || ' ' || provider_subject || ' ' || scopes::text, ', ' ORDER BY account) FROM oauth_vault.connection WHERE user_id = 'cleo'"),
	' T1 {post}, /person U1 {search}', 'makes two connections');
is(ov_sql($node, 'cleo', "SELECT oauth_vault.oauth_fresh_token('pair', account => '');"), 'bot-token', 'the first');
is(ov_sql($node, 'cleo', "SELECT oauth_vault.oauth_fresh_token('pair', account => '/person');"), 'person-token', 'and the one beside it');
superuser("UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute', refresh_at = NULL WHERE user_id = 'cleo' AND account = '/person'");
script('/token', { body => { access_token => 'person-token-2', refresh_token => 'person-refresh-2', expires_in => 3600, scope => 'search' } });
is(ov_sql($node, 'cleo', "SELECT oauth_vault.oauth_fresh_token('pair', account => '/person');"), 'person-token-2', 'which has a chain of its own');
like((journal('/token'))[-1]{body}, qr/refresh_token=person-refresh&/, 'of its own refresh tokens');
is(superuser("SELECT count(*) FROM oauth_vault.audit WHERE user_id = 'cleo' AND event = 'connected'"), 2, 'both have their row in the audit trail');
script('/token', { body => { access_token => 'bot-token', refresh_token => 'bot-refresh', expires_in => 3600, scope => 'post', team => 'T1' } });
is(ov_sql($node, 'dora', complete('dora', begin('dora', 'pair'))), 'active|T1|', 'a consent that brings the first alone');
is(superuser("SELECT count(*) FROM oauth_vault.connection WHERE user_id = 'dora'"), 1, 'makes one connection');

$node->stop('fast');
done_testing();
