# Consents that go wrong, each in its own way; what becomes of tokens that cannot
# be kept; a provider that is down when it should revoke; an audit trail that
# stands still.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP;
use MIME::Base64 qw(decode_base64 encode_base64url);
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $fault = ov_fault();
my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $base = "https://localhost:$fault->{port}";
my $node = ov_cluster('flows', hosts => [ map { "localhost:$_->{port}" } $fault, $idp ],
	conf => 'oauth_vault.audit_ring_size = 64');
my $issuer = "$base/op";

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub script { my ($path, @answers) = @_; ov_control($fault, 'POST', '/script', { path => $path, answers => \@answers }); return; }
sub journal { return grep { $_->{path} eq $_[0] } @{ ov_control($fault, 'GET', '/journal') }; }
sub forget { ov_control($fault, 'POST', '/reset'); return; }
sub connection { return superuser("SELECT $_[1] FROM oauth_vault.connection WHERE user_id = '$_[0]' ORDER BY created_at DESC LIMIT 1"); }
sub revocation { return superuser("SELECT $_[1] FROM oauth_vault.revocation WHERE user_id = '$_[0]' ORDER BY revocation_id DESC LIMIT 1"); }
sub fresh { my ($who, $connector) = @_; return ov_sql_fails($node, $who, "SELECT oauth_vault.oauth_fresh_token('" . ($connector // 'op') . "');"); }
sub expire { superuser("UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute', refresh_at = NULL WHERE user_id = '$_[0]'"); return; }
# Has the worker look at its tables: any committed decision does.
sub wake { superuser("SELECT oauth_vault.oauth_alter_connector('op', status => 'active')"); return; }

# A session that goes on while we look elsewhere.
sub session
{
	my ($sql, @args) = @_;
	my ($in, $out, $err) = ($sql, '', '');
	my $s = { in => \$in, out => \$out, err => \$err };
	$s->{h} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', @args, '-d', $node->connstr('postgres') ],
		'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	return $s;
}
sub holding
{
	my ($who) = @_;
	my $s = session("BEGIN; SELECT 'held' FROM oauth_vault.connection WHERE connection_id = '"
		  . connection($who, 'connection_id') . "' FOR UPDATE;\n", '-U', 'postgres');
	$s->{h}->pump until ${ $s->{out} } =~ /held/;
	return $s;
}
sub let_go { my ($s) = @_; ${ $s->{in} } .= "COMMIT;\n\\q\n"; $s->{h}->finish; return; }

# The flow's state and nonce
sub begin
{
	my ($who, $connector) = @_;
	my $url = ov_sql($node, $who, "SELECT authorization_url FROM oauth_vault.oauth_begin('" . ($connector // 'op') . "');");
	return ($url =~ /[?&]state=([\w-]+)/, $url =~ /[?&]nonce=([\w-]+)/);
}
sub id_token
{
	my %claims = (iss => $issuer, aud => 'client', sub => 'ada-1', iat => time, exp => time + 600, @_);
	$claims{$_} = int $claims{$_} foreach qw(iat exp);
	return join '.', map { encode_base64url($_) } '{"alg":"RS256"}', encode_json(\%claims), 'a signature';
}
sub tokens
{
	my ($name, %more) = @_;
	return { access_token => "at-$name", refresh_token => "rt-$name", token_type => 'Bearer', expires_in => 3600, %more };
}
my $codes = 0;
sub complete_sql
{
	my ($state, %opt) = @_;
	my $code = $opt{code} // 'c0de-' . ++$codes;
	my $iss = $opt{iss} // "'$issuer'";
	return "SELECT status FROM oauth_vault.oauth_complete('$state', '$code', $iss);";
}
# A whole consent that brings these tokens; SQLSTATE and text
sub consent
{
	my ($who, $name, %claims) = @_;
	my ($state, $nonce) = begin($who);
	script('/op/token', { body => tokens($name, id_token => id_token(nonce => $nonce, %claims)) });
	return ov_sql_fails($node, $who, complete_sql($state));
}
# What was revoked, in order
sub revoked { return join ' ', map { $_->{body} =~ /token=([^&]*)/ } journal('/op/revoke'); }

script('/.well-known/openid-configuration/op', { body => {
	issuer => $issuer, authorization_endpoint => "$base/op/authorize", token_endpoint => "$base/op/token",
	revocation_endpoint => "$base/op/revoke", response_types_supported => ['code'],
	code_challenge_methods_supported => ['S256'], token_endpoint_auth_methods_supported => ['client_secret_basic'],
	authorization_response_iss_parameter_supported => JSON::PP::true } });
superuser(qq{
	SELECT oauth_vault.oauth_create_connector('op', 'oidc', 'client', 'secret-1', 'https://app.example/callback',
		scopes => ARRAY['openid', 'offline_access'], issuer => '$issuer', refresh_policy => 'lazy');
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs', 'https://app.example/callback',
		scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}', refresh_policy => 'lazy')});

# ---- another account at the provider ----

my ($state, $text);
my $id = ov_connect($node, 'ada', 'demo');
my $row = "SELECT md5(row(connection_id, status, token_generation, decision_epoch, provider_subject, access_token, refresh_token)::text)"
  . " FROM oauth_vault.connection WHERE connection_id = '$id'";
my $before = superuser($row);
my $url = ov_sql($node, 'ada', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo');");
($state, $text) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_callback('" . ov_consent($url, 'eve') . "');");
is($state, 'OV033', 'a consent with another account is refused') or diag($text);
is(superuser($row), $before, 'the connection is as it was');
ok(ov_wait_for('the revocation', sub { revocation('ada', 'state') eq 'confirmed' }), 'the tokens of the other account are revoked');
is(ov_control($idp, 'GET', '/counters')->{revocation}, 2, 'both of them');
expire('ada');
($state) = fresh('ada', 'demo');
is($state, '00000', 'and the old grant lives on');

script('/op/revoke', { repeat => -1 });
($state) = consent('bob', 'b1', sub => 'bob-1');
is($state, '00000', 'a first consent');
($state) = consent('bob', 'b2', sub => 'mallory');
is($state, 'OV033', 'then one of somebody else');
ok(ov_wait_for('both requests', sub { revoked() =~ /rt-b2 at-b2$/ }), 'the provider is told: refresh token, then access token')
  or diag(revoked());
is((fresh('bob'))[1], 'at-b1', 'the token is the old one');

# ---- ID tokens of somebody, something or somewhere else ----

foreach my $case ([ nonce => 'another' ], [ aud => 'other-client' ], [ iss => "$base/other" ], [ exp => time - 3600 ])
{
	my ($claim, $value) = @$case;
	my $name = "bad-$claim";
	($state, $text) = consent('cyd', $name, $claim => $value);
	is($state, 'OV034', "an ID token with another $claim is refused") or diag($text);
	ok(ov_wait_for('its revocation', sub { revoked() =~ /rt-$name at-$name$/ }), 'and what came with it revoked') or diag(revoked());
}
is(superuser("SELECT count(*) FROM oauth_vault.connection WHERE user_id = 'cyd'"), 0, 'no connection came of any');
is(superuser(q{SELECT count(*), count(access_token), count(refresh_token) FROM oauth_vault.revocation
	WHERE user_id = 'cyd' AND state = 'confirmed'}), '4|0|0', 'nor is a ciphertext left');

# An issuer per tenant
my $rules = "\$r\${\"token\": {\"url\": \"$base/ms/token\"}}\$r\$";
superuser(qq{SELECT oauth_vault.oauth_set_provider('microsoft', $rules);
	SELECT oauth_vault.oauth_create_connector('ms', 'microsoft', 'client', 'secret-1', 'https://app.example/callback',
		scopes => ARRAY['openid', 'offline_access'], params => '{"tenant": "organizations"}')});
my $tenant = '9188040d-6c67-4c5b-b112-36a304b66dad';
foreach my $case ([ "https://login.microsoftonline.com/$tenant/v2.0", '00000' ], [ 'https://login.microsoftonline.com/common/v2.0', 'OV034' ],
	[ "https://login.microsoftonline.example/$tenant/v2.0", 'OV034' ])
{
	my ($flow, $nonce) = begin('dee', 'ms');
	script('/ms/token', { body => tokens('ms', id_token => id_token(nonce => $nonce, iss => $case->[0])) });
	($state, $text) = ov_sql_fails($node, 'dee', complete_sql($flow, iss => 'NULL'));
	is($state, $case->[1], "an issuer known by its pattern: $case->[0]") or diag($text);
}

# ---- what the redirect brings ----

forget();
my ($flow) = begin('eve');
($state) = ov_sql_fails($node, 'eve', "SELECT oauth_vault.oauth_callback('https://app.example/callback?error=access_denied&state=$flow&iss=https%3A%2F%2Fevil.example');");
is($state, 'OV032', 'who answers is looked at before what it says');
($flow) = begin('eve');
($state) = ov_sql_fails($node, 'eve', "SELECT oauth_vault.oauth_callback('https://app.example/callback?error=access_denied&state=$flow');");
is($state, 'OV032', 'an issuer that promised to name itself must');
($flow) = begin('eve');
my $callback = 'https://app.example/callback?iss=' . $issuer =~ s/([:\/])/sprintf '%%%02X', ord $1/ger;
($state, $text) = ov_sql_fails($node, 'eve', "SELECT oauth_vault.oauth_callback('$callback&error=access_denied&error_description=no%0Athanks&state=$flow');");
is($state, 'OV031', 'the person said no');
like($text, qr/"provider_error":\s?"access_denied"/, 'as the provider puts it');
($state) = ov_sql_fails($node, 'eve', complete_sql($flow));
is($state, 'OV030', 'a flow that was denied is over');
($flow) = begin('eve');
foreach my $twice ("state=$flow", 'code=c1', 'iss=x', 'other=1')
{
	my $one = $twice =~ /^other/ ? "&$twice" : '';
	($state) = ov_sql_fails($node, 'eve', "SELECT oauth_vault.oauth_callback('$callback&code=c0&state=$flow$one&$twice');");
	is($state, 'OV030', "a parameter that is there twice: $twice");
}
is(scalar(journal('/op/token')), 0, 'no code has been sent');

# ---- one state, two callers ----

($flow, my $nonce) = begin('eve');
script('/op/token', { delayMs => 500, body => tokens('e1', id_token => id_token(nonce => $nonce, sub => 'eve-1')) });
my @both = map {
	my $jwt = ov_assertion($node, 'eve');
	session("SELECT status FROM oauth_vault.oauth_complete('$flow', 'c0de', '$issuer', assertion => '$jwt');\n\\q\n", '-U', 'app');
} 1, 2;
$_->{h}->finish foreach @both;
is(join(' ', sort map { ${ $_->{out} } =~ /active/ ? 'active' : ${ $_->{err} } =~ /(OV\d+)/ ? $1 : ${ $_->{err} } } @both),
	'OV030 active', 'of two completions of one flow, one wins');
is(scalar(journal('/op/token')), 1, 'and the code is sent once');

# ---- too late, and too many ----

($flow) = begin('eve');
superuser("UPDATE oauth_vault.flow SET expires_at = now() WHERE user_id = 'eve' AND consumed_at IS NULL");
($state) = ov_sql_fails($node, 'eve', complete_sql($flow));
is($state, 'OV030', 'a flow ends');
($state, $text) = ov_sql_fails($node, 'fay', q{SELECT count(state) FROM generate_series(1, 100) i, LATERAL oauth_vault.oauth_begin('op', login_hint => i::text);});
is("$state $text", '00000 100', 'a hundred flows may be pending');
($state) = ov_sql_fails($node, 'fay', q{SELECT oauth_vault.oauth_begin('op');});
is($state, 'OV050', 'and no more');
($state) = ov_sql_fails($node, 'eve', q{SELECT oauth_vault.oauth_begin('op');});
is($state, '00000', 'of each person');

# ---- the answer to a code is lost ----

forget();
($flow) = begin('gus');
script('/op/token', { drop => 'before', repeat => -1 });
($state, $text) = ov_sql_fails($node, 'gus', complete_sql($flow, code => 'lost'));
is($state, 'OV020', 'an answer that does not come') or diag($text);
like($text, qr/HINT:.*oauth_begin/, 'means another consent');
($state) = ov_sql_fails($node, 'gus', complete_sql($flow, code => 'lost'));
is($state, 'OV030', 'the flow is over');
superuser(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
is(scalar(journal('/op/token')), 1, 'the code was sent once');
forget();
script('/op/revoke', { repeat => -1 });
($state) = consent('gus', 'g1');
is($state, '00000', 'a new worker sends new codes');
is(scalar(grep { $_->{body} =~ /lost/ } journal('/op/token')), 0, 'and no old one');

# ---- somebody holds the row ----

($state) = consent('hal', 'h1');
my $generation = connection('hal', 'token_generation');
my $epoch = connection('hal', 'decision_epoch');
my $holder = holding('hal');
($state, $text) = consent('hal', 'h2');
is($state, 'OV021', 'a consent does not wait for a locked row');
like($text, qr/HINT:.*kept/, 'but is kept');
is(superuser(q{SELECT count(*), bool_or(position('at-h2'::bytea IN access_token) > 0) FROM oauth_vault.grant_inbox}), '1|f', 'sealed');
is((fresh('hal'))[1], 'at-h1', 'meanwhile the old token serves');
let_go($holder);
ok(ov_wait_for('the inbox', sub { superuser('SELECT count(*) FROM oauth_vault.grant_inbox') eq '0' }), 'applied when the lock goes');
is((fresh('hal'))[1], 'at-h2', 'then the new one');
is(connection('hal', "token_generation > $generation AND decision_epoch = $epoch + 1"), 't', 'with counters of its own');
expire('hal');
script('/op/token', { body => tokens('h3') });
is((fresh('hal'))[1], 'at-h3', 'and can be renewed');
like((journal('/op/token'))[-1]{body}, qr/refresh_token=rt-h2/, 'from the new consent');

# A refresh and two consents wait for the same row: the latest consent wins.
expire('hal');
$holder = holding('hal');
script('/op/token', { body => tokens('h4') });
($state) = fresh('hal');
is($state, 'OV021', 'a refresh waits in the inbox');
foreach my $name (qw(h5 h6))
{
	($state) = consent('hal', $name);
	is($state, 'OV021', "and consent $name behind it");
}
my $queued = superuser('SELECT count(*) FROM oauth_vault.revocation');
let_go($holder);
ok(ov_wait_for('the inbox', sub { superuser('SELECT count(*) FROM oauth_vault.grant_inbox') eq '0' }), 'all are applied');
is((fresh('hal'))[1], 'at-h6', 'in their order');
is(superuser('SELECT count(*) FROM oauth_vault.revocation'), $queued, 'and nothing of the grant is revoked');

# Revoked while its consent waits
$holder = holding('hal');
($state) = consent('hal', 'h7');
is($state, 'OV021', 'a consent waits');
${ $holder->{in} } .= "UPDATE oauth_vault.connection SET decision_epoch = decision_epoch + 1 WHERE user_id = 'hal';\n";
let_go($holder);
ok(ov_wait_for('the revocation', sub { revoked() =~ /rt-h7 at-h7$/ }), 'a decision meanwhile wins: the tokens of the consent are revoked')
  or diag(revoked());
is((fresh('hal'))[1], 'at-h6', 'and never installed');

# ---- revoked while a refresh is in flight ----

expire('hal');
script('/op/token', { delayMs => 700, body => tokens('h8') });
my $jwt = ov_assertion($node, 'hal');
my $waiting = session("SELECT oauth_vault.oauth_fresh_token('op', assertion => '$jwt');\n\\q\n", '-U', 'app');
ov_wait_for('the request', sub { $waiting->{h}->pump_nb; grep { $_->{body} =~ /refresh_token=rt-h6/ } journal('/op/token') });
ov_sql($node, 'hal', "SELECT oauth_vault.oauth_revoke('op');");
$waiting->{h}->finish;
like(${ $waiting->{err} }, qr/OV012/, 'a revocation wins over a refresh in flight');
is(${ $waiting->{out} }, '', 'which brings no token');
ok(ov_wait_for('four requests', sub { revoked() =~ /rt-h6 at-h6 rt-h8 at-h8$/ }), 'the tokens before and the new ones are revoked')
  or diag(revoked());
ok(ov_wait_for('the end', sub { connection('hal', 'status') eq 'revoked' }), 'and the connection is');
is(connection('hal', 'access_token IS NULL AND refresh_token IS NULL'), 't', 'without any token');

# ---- two client secrets ----

sub secrets { return join ' ', map { (decode_base64(($_->{headers}{authorization} // '') =~ s/^Basic //r) =~ /:(.*)/)[0] } @_; }
my $refused = { status => 401, body => { error => 'invalid_client' } };
forget();
superuser("SELECT oauth_vault.oauth_set_client_secret('op', 'secret-2')");
script('/op/token', $refused);
($state, $text) = consent('ida', 'i1');
is($state, '00000', 'during an overlap the provider may know the old secret only') or diag($text);
my @sent = journal('/op/token');
is(secrets(@sent), 'secret-2 secret-1', 'the new one is tried first');
is($sent[0]{body}, $sent[1]{body}, 'with the same code');
script('/op/revoke', $refused, {}, {});
ov_sql($node, 'ida', "SELECT oauth_vault.oauth_revoke('op');");
ok(ov_wait_for('the revocation', sub { revocation('ida', 'state') eq 'confirmed' }), 'so is a revocation');
is(secrets(journal('/op/revoke')), 'secret-2 secret-1 secret-1', 'in the same order');
is(revoked(), 'rt-i1 rt-i1 at-i1', 'token by token');
is(revocation('ida', 'attempts'), 1, 'in one attempt');
is(superuser("SELECT status FROM oauth_vault.connector WHERE name = 'op'"), 'active', 'no reason to pause');

($state) = consent('ida', 'i2');
is($state, '00000', 'the provider knows the new one');
script('/op/token', $refused, $refused);
($flow) = begin('jim');
($state) = ov_sql_fails($node, 'jim', complete_sql($flow));
is($state, 'OV022', 'both are refused');
is(superuser("SELECT status || ' ' || status_reason FROM oauth_vault.connector WHERE name = 'op'"), 'paused invalid_client',
	'now the connector rests');
ov_sql($node, 'ida', "SELECT oauth_vault.oauth_revoke('op');");
my $told = scalar(journal('/op/revoke'));
ok(ov_wait_for('the outbox', sub { revocation('ida', "next_attempt_at > now() + interval '30 s'") eq 't' }), 'a revocation waits');
is(revocation('ida', "state || ' ' || attempts"), 'queued 0', 'and counts nothing');
is(scalar(journal('/op/revoke')), $told, 'nothing is sent');
superuser("SELECT oauth_vault.oauth_set_client_secret('op', 'secret-3')");
is(superuser("SELECT status FROM oauth_vault.connector WHERE name = 'op'"), 'active', 'a new secret ends what the worker began');
script('/op/revoke', { repeat => -1 });
superuser("UPDATE oauth_vault.revocation SET next_attempt_at = now() WHERE state = 'queued'");
wake();
ok(ov_wait_for('the revocation', sub { revocation('ida', 'state') eq 'confirmed' }), 'and the revocation goes out');

superuser("SELECT oauth_vault.oauth_alter_connector('op', status => 'paused', reason => 'an audit')");
superuser("SELECT oauth_vault.oauth_set_client_secret('op', 'secret-1', keep_previous => false)");
is(superuser("SELECT status || ' ' || status_reason FROM oauth_vault.connector WHERE name = 'op'"), 'paused an audit',
	'but not what an administrator began');
superuser("SELECT oauth_vault.oauth_alter_connector('op', status => 'active')");
is(superuser("SELECT status, status_reason IS NULL, paused_by IS NULL FROM oauth_vault.connector WHERE name = 'op'"), 'active|t|t',
	'who ends it');
script('/op/token', $refused);
($flow) = begin('jim');
($state) = ov_sql_fails($node, 'jim', complete_sql($flow));
is($state, 'OV022', 'refused again');
superuser("SELECT oauth_vault.oauth_alter_connector('op', status => 'paused')");
superuser("SELECT oauth_vault.oauth_set_client_secret('op', 'secret-1', keep_previous => false)");
is(superuser("SELECT status || ' ' || status_reason FROM oauth_vault.connector WHERE name = 'op'"), 'paused paused by an administrator',
	'an administrator can take over what the worker began');
wake();

# ---- the provider is down when it should revoke ----

forget();
($state) = consent('kim', 'k1');
script('/op/revoke', { status => 503, headers => { 'retry-after' => '30' } }, { drop => 'before' }, {}, {});
ov_sql($node, 'kim', "SELECT oauth_vault.oauth_revoke('op');");
ok(ov_wait_for('503', sub { revocation('kim', "attempts = 1 AND next_attempt_at BETWEEN now() + interval '20 s' AND now() + interval '31 s'") eq 't' }),
	'Retry-After is honoured') or diag(revocation('kim', 'row(attempts, next_attempt_at - now())'));
is(revocation('kim', 'state, refresh_token IS NOT NULL, access_token IS NOT NULL'), 'queued|t|t', 'nothing is lost');
is(connection('kim', 'status'), 'revoking', 'or done');
superuser("UPDATE oauth_vault.revocation SET next_attempt_at = now() WHERE state = 'queued'");
wake();
ok(ov_wait_for('the drop', sub { revocation('kim', "attempts = 2 AND next_attempt_at < now() + interval '20 s'") eq 't' }),
	'an answer that does not come is no answer');
is(revocation('kim', 'state, refresh_token IS NOT NULL, access_token IS NOT NULL'), 'queued|t|t', 'nothing is lost');
superuser("UPDATE oauth_vault.revocation SET next_attempt_at = now() WHERE state = 'queued'");
wake();
ok(ov_wait_for('200', sub { revocation('kim', 'state') eq 'confirmed' }), 'until it says yes');
is(revocation('kim', 'attempts, outcome, refresh_token, access_token, settled_at IS NOT NULL'), '3|revoked at the provider|||t',
	'the outcome is recorded, and no ciphertext kept');
is(revoked(), 'rt-k1 rt-k1 rt-k1 at-k1', 'as many requests as it took');
is(connection('kim', 'status'), 'revoked', 'the connection has ended');

# Its row is held when the provider answers.
($state) = consent('lea', 'l1');
script('/op/revoke', { delayMs => 700 }, {});
ov_sql($node, 'lea', "SELECT oauth_vault.oauth_revoke('op');");
$holder = holding('lea');
ok(ov_wait_for('the answer', sub { revocation('lea', 'outcome IS NOT NULL') eq 't' }), 'the answer is kept at once');
is(revocation('lea', 'state, outcome, refresh_token, access_token'), 'queued|confirmed revoked at the provider||', 'without ciphertext');
is(connection('lea', 'status'), 'revoking', 'while the row is held');
let_go($holder);
ok(ov_wait_for('the end', sub { connection('lea', 'status') eq 'revoked' }), 'and settled when it is free');
is(revocation('lea', 'state, outcome'), 'confirmed|revoked at the provider', 'with its outcome');

# ---- the audit trail stands still ----

$node->append_conf('postgresql.conf', 'oauth_vault.audit = batched');
$node->reload;
($state) = consent('max', 'm1');
sub trail { return superuser("SELECT count(*) FROM oauth_vault.audit WHERE user_id = 'max' AND event = '$_[0]' AND outcome = 'ok'"); }
ok(ov_wait_for('the trail', sub { trail('connected') eq '1' }), 'rows come by and by');
my $writer = superuser(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'oauth_vault audit writer'});
kill 'STOP', $writer;
my (undef, $out, $err) = ov_as($node, 'max', "SELECT oauth_vault.oauth_fresh_token('op');\n" x 600);
my $given = () = $out =~ /^at-m1$/mg;
like($err, qr/OV042/, 'with the queue full no token is given');
cmp_ok($given, '>', 10, 'but before') or diag($err);
my $at_writer = trail('token_access');
$generation = connection('max', 'token_generation');
script('/op/token', { body => tokens('m2') });
expire('max');
($state, $text) = ov_sql_fails($node, 'max', "SET LOCAL statement_timeout = '1s'; SELECT oauth_vault.oauth_fresh_token('op');");
is($state, '57014', 'whoever does not want to wait for room may leave') or diag($text);
unlike($text, qr/at-m\d/, 'without a token');
ok(ov_wait_for('the refresh', sub { connection('max', "token_generation - $generation") eq '1' }), 'the worker goes on');
is(trail('token_access'), $at_writer, 'while nothing is written');
my $log = -s $node->logfile;
superuser(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
ok(ov_wait_for('the log', sub { slurp_file($node->logfile, $log) =~ /no room for an audit row: event refreshed, user max/ }),
	'a worker that has to end meanwhile tells the server log');
script('/op/token', { body => tokens('m3') });
expire('max');
ov_sql_fails($node, 'max', "SET LOCAL statement_timeout = '1s'; SELECT oauth_vault.oauth_fresh_token('op');");
ok(ov_wait_for('the refresh', sub { connection('max', "token_generation - $generation") eq '2' }), 'the next one goes on');
kill 'CONT', $writer;
ok(ov_wait_for('the trail', sub { trail('refreshed') eq '1' }), 'what the worker did is told when the writer goes on');
is(trail('token_access'), $given, 'and every token that was given, no more and no less');
is((fresh('max'))[1], 'at-m3', 'and tokens are given again');

$node->stop('fast');
done_testing();
