# A refresh that is answered with somebody else's ID token (OpenID Connect Core
# section 12.2): none of it is kept, the grant ends, auditors are alerted.  An ID
# token that is only stale or unreadable costs nothing but itself.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP;
use MIME::Base64 qw(encode_base64url);
use OauthVault::Test;
use Test::More;

my $fault = ov_fault();
my $base = "https://localhost:$fault->{port}";
my $node = ov_cluster('foreign', hosts => ["localhost:$fault->{port}"]);
my $jwt = ov_assertion($node, 'ada', '--ttl', '3600');
my $n = 0;

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub call
{
	my ($sql) = @_;
	my (undef, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /ERROR:\s+(\w{5}): / ? ($1, $err) : ('00000', $out);
}
sub id_token
{
	my (%claims) = @_;
	my %all = (iss => $base, aud => 'client', sub => 'ada-1', iat => int time, exp => 600 + int time, %claims);
	return join '.', map { encode_base64url($_) } '{"alg":"RS256"}', encode_json(\%all), 'a signature';
}
# The next answer, and no other
sub answer
{
	my ($id_token, $path) = @_;
	$n++;
	ov_control($fault, 'POST', '/reset');
	ov_control($fault, 'POST', '/script', { path => $path // '/token', answers => [ { body => { access_token => "access-$n",
					refresh_token => "refresh-$n", token_type => 'Bearer', expires_in => 3600, $id_token ? (id_token => $id_token) : () } } ] });
	return;
}
sub requests { return scalar @{ ov_control($fault, 'GET', '/journal') }; }
sub consent
{
	my ($account, $connector) = @_;
	return call(qq{DO \$\$ DECLARE s text; BEGIN
		SELECT state INTO s FROM oauth_vault.oauth_begin('@{[ $connector // 'lab' ]}', account => '$account', assertion => '$jwt');
		PERFORM oauth_vault.oauth_callback('https://app.example/cb?code=c&state=' || s, assertion => '$jwt');
	END \$\$});
}
sub column { my ($account, $what) = @_; return superuser("SELECT $what FROM oauth_vault.connection WHERE account = '$account'"); }
sub expire { my ($account) = @_; superuser("UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute' WHERE account = '$account'"); return; }
sub fresh { my ($account, $connector) = @_; return "SELECT oauth_vault.oauth_fresh_token('" . ($connector // 'lab') . "', '$account', assertion => '$jwt')"; }
my $tokens = 'md5(row(token_generation, access_token, refresh_token, id_token)::text)';

my %rules = (schema => 1, display_name => 'Lab', client_auth => ['client_secret_post'], issuer => $base,
	authorization => { url => "$base/authorize" }, token => { url => "$base/token" }, refresh => { rotates => 'sometimes' },
	revocation => { refresh_token => { url => "$base/revoke" } });
my %named = (%rules, token => { url => "$base/named" }, subject => '{/account}');
my %rules_of = (lab => \%rules, named => \%named);
superuser(join ';', map { "SELECT oauth_vault.oauth_set_provider('$_', '" . encode_json($rules_of{$_}) . "');
	SELECT oauth_vault.oauth_create_connector('$_', '$_', 'client', 'secret', 'https://app.example/cb', refresh_policy => 'lazy')" } sort keys %rules_of);

# ---- its own ----

answer(id_token());
is((consent('own'))[0], '00000', 'a connection with an ID token');
is(column('own', 'provider_subject'), 'ada-1', 'its subject is pinned');
answer(id_token());
expire('own');
is((call(fresh('own')))[1], "access-$n", 'a refresh with an ID token of the same person brings a token');
is(column('own', 'id_token IS NOT NULL'), 't', 'and the ID token is kept');
answer(undef);
expire('own');
is((call(fresh('own')))[1], "access-$n", 'so does one without an ID token');

foreach my $case ([ 'stale', id_token(exp => 1), 'has expired' ], [ 'unreadable', 'a.b.c.d.e', 'is malformed' ],
	[ 'about nobody', id_token(sub => ''), 'no valid' ])
{
	my ($what, $token, $why) = @$case;
	answer($token);
	expire('own');
	my ($state, $text) = call(fresh('own'));
	is("$state $text", "00000 access-$n", "an ID token that is $what does not cost the grant");
	is(column('own', 'id_token IS NULL'), 't', '... is not kept');
	ok(ov_wait_for('the audit row', sub { superuser(qq{SELECT count(*) FROM oauth_vault.oauth_audit WHERE event = 'refreshed' AND detail ->> 'id_token_not_kept' LIKE '%$why%'}) == 1 }),
		'... and the trail says why');
}

# ---- somebody else's ----

foreach my $case ([ 'of another person', { sub => 'eve-1' }, 'about another person' ], [ 'of another issuer', { iss => "$base/other" }, 'from another issuer' ],
	[ 'for another client', { aud => 'other' }, 'for another client' ], [ 'of another person, and stale', { sub => 'eve-2', exp => 1 }, 'about another person' ])
{
	my ($what, $claims, $why) = @$case;
	my $account = "a$n";
	answer(id_token());
	consent($account);
	my $before = column($account, $tokens);
	answer(id_token(%$claims));
	expire($account);
	my ($state, $text) = call(fresh($account));
	is($state, 'OV010', "an ID token $what: the person has to consent again");
	like($text, qr/"reason":\s?"foreign_id_token"/, '... for this reason');
	unlike($text, qr/access-|refresh-|eve-/, '... and neither token nor name is told');
	is(column($account, 'status'), 'reauth_required', '... the grant has ended');
	is(column($account, $tokens), $before, '... and nothing that came is stored');
	like(column($account, 'status_detail'), qr/$why/, '... with what was wrong');
	is(requests(), 1, '... one request: what came is not revoked, it may be in use where it belongs');
	is((call(fresh($account)))[0], 'OV010', '... and it stays so');
	is(requests(), 1, '... without another request');
}
is(superuser('SELECT count(*) FROM oauth_vault.revocation'), 0, 'nothing waits to be revoked');
ok(ov_wait_for('four alerts', sub {
	superuser(q{SELECT count(*) FROM oauth_vault.oauth_report_security_events() WHERE severity = 'alert' AND event = 'reauth_required' AND reason = 'foreign_id_token'}) == 4 }),
	'auditors see an alert for each');
is(superuser(q{SELECT count(*) FROM oauth_vault.oauth_audit WHERE reason = 'foreign_id_token' AND detail ->> 'id_token' LIKE 'ID token is %'}), 4, 'the trail says what was wrong');

# ---- what becomes of the connection ----

my $account = superuser(q{SELECT min(account) FROM oauth_vault.connection WHERE status = 'reauth_required'});
answer(id_token(sub => 'eve-1'));
is((consent($account))[0], 'OV033', 'that other person cannot take its place by a consent either');
answer(id_token());
is((consent($account))[0], '00000', 'its own person can');
is((call(fresh($account)))[1], "access-$n", 'and it goes on');

# An API's rejection asks for the same
answer(id_token(sub => 'eve-1'));
is((call("SELECT oauth_vault.oauth_report_rejected('lab', 'access-@{[ $n - 1 ]}', 401, assertion => '$jwt')"))[1], 'reauth_required',
	'a refresh after a rejection is judged alike');

# Its row is locked meanwhile: the news waits
answer(id_token());
consent('locked');
answer(id_token(sub => 'eve-1'));
expire('locked');
my ($in, $out, $err) = ('', '', '');
my $holder = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
$in .= "BEGIN; SELECT 'held' FROM oauth_vault.connection WHERE account = 'locked' FOR UPDATE;\n";
$holder->pump until $out =~ /held/;
is((call(fresh('locked')))[0], 'OV021', 'while somebody holds the row');
is(column('locked', 'status'), 'active', 'it is as it was');
$in .= "ROLLBACK;\n\\q\n";
$holder->finish;
ok(ov_wait_for('the news', sub { column('locked', 'status') eq 'reauth_required' }), 'then the grant ends all the same');
is(column('locked', 'status_reason'), 'foreign_id_token', 'for that reason');

# ---- with nothing to compare ----

superuser("SELECT oauth_vault.oauth_import_connection('', 'ada', 'lab', 'imported', 'access-i', 'refresh-i', now() - interval '1 minute')");
answer(id_token(sub => 'whoever'));
is((call(fresh('imported')))[1], "access-$n", 'a grant whose person is not known takes any');
answer(id_token(aud => 'other'));
expire('imported');
is((call(fresh('imported')))[0], 'OV010', 'but not what is for another client');

# The rules say what names an account: that is not "sub".
superuser(q{SELECT oauth_vault.oauth_import_connection('', 'ada', 'named', 'numbered', 'access-j', 'refresh-j', now() - interval '1 minute',
	provider_subject => '4711')});
answer(id_token(), '/named');
is((call(fresh('numbered', 'named')))[1], "access-$n", 'an account that the rules name otherwise is not compared with it');

is(superuser(q{SELECT count(*) FROM oauth_vault.audit a WHERE a::text ~ '(access|refresh)-[0-9]|eve-'}), 0, 'no token and no other person in the trail');
done_testing();
