# A person's session: identity and transactions, tokens, scopes, rejections,
# revocation and bad parameters, as the application sees them.
use strict;
use warnings;
use JSON::PP;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('sessions', hosts => ["localhost:$idp->{port}"],
	conf => "max_prepared_transactions = 2\noauth_vault.audit = durable\n");
foreach my $name (qw(demo other))
{
	$node->safe_psql('postgres', qq{
		SELECT oauth_vault.oauth_create_connector('$name', 'oidc', 'demo', 'demo: secret/with+signs',
			'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
			max_scopes => ARRAY['openid', 'offline_access', 'email', 'api:read'],
			issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
}
ov_connect($node, 'ada', 'demo');

# Statements as role app, going on after errors; everything psql printed.
sub session
{
	my ($sql, %opt) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0,
		extra_params => [ '-U', $opt{role} // 'app', '-v', 'VERBOSITY=verbose' ]);
	return wantarray ? ($out, $err) : $out;
}
sub fresh { return ov_sql($node, $_[0], "SELECT oauth_vault.oauth_fresh_token('$_[1]');"); }
sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub counter { return ov_control($idp, 'GET', '/counters')->{ $_[0] } // 0; }
sub detail { my ($text) = $_[0] =~ /^DETAIL:\s+(\{.*\})$/m; return $text ? decode_json($text) : {}; }
sub shell_sql { return q{\! psql -X -q -U postgres -d '} . $node->connstr('postgres') . qq{' -c "$_[0]"\n}; }

my $ada = ov_assertion($node, 'ada', '--ttl', '3000');
my $bob = ov_assertion($node, 'bob', '--ttl', '3000');
my $agent = ov_assertion($node, 'ada', '--ttl', '3000', '--actor', 'helper');
my $who = q{SELECT 'who=' || user_id FROM oauth_vault.oauth_whoami();};

# ---- identity and transactions ----

my ($out, $err) = session(qq{
	BEGIN; SELECT oauth_vault.oauth_identify('$ada'); SAVEPOINT s;
	SELECT oauth_vault.oauth_identify('$bob'); $who ROLLBACK TO s; $who COMMIT;});
like($out, qr/who=bob/, 'a savepoint may have an identity of its own');
like($err, qr/OV001/, 'rolling back to before it leaves none, not the earlier one');

($out, $err) = session(qq{
	BEGIN; SAVEPOINT s; SELECT oauth_vault.oauth_identify('$ada'); RELEASE s; SAVEPOINT t;
	SELECT oauth_vault.oauth_fresh_token('nothing'); ROLLBACK TO t; $who COMMIT;});
like($out, qr/who=ada/, 'an identity from a released savepoint stays, whatever fails later');

($out, $err) = session(qq{
	BEGIN; SELECT oauth_vault.oauth_identify('$ada'); SAVEPOINT s;
	SELECT oauth_vault.oauth_identify('not.a.jwt'); ROLLBACK TO s; $who COMMIT;});
like($err, qr/OV002.*OV001/s, 'a failed assertion leaves no identity, not the earlier one');

($out, $err) = session(qq{
	SELECT oauth_vault.oauth_identify('$ada', session => true);
	SELECT oauth_vault.oauth_fresh_token('demo', assertion => 'not.a.jwt') IS NULL;});
like($err, qr/OV002/, 'a bad assertion in a call does not fall back to the session');

($out, $err) = session(qq{
	BEGIN; SELECT oauth_vault.oauth_identify('$ada', session => true); PREPARE TRANSACTION 'p'; $who
	ROLLBACK PREPARED 'p';});
like($err, qr/OV001/, 'PREPARE TRANSACTION clears the identity');

($out, $err) = session(qq{
	BEGIN; SELECT oauth_vault.oauth_identify('$ada', session => true); ROLLBACK; $who});
like($err, qr/OV001/, 'a session identity goes with the transaction that bound it');

($out, $err) = session(qq{SELECT oauth_vault.oauth_identify('$ada');});
like($err, qr/WARNING:\s+25P01/, 'oauth_identify alone, outside a transaction, warns');
($out, $err) = session(qq{SELECT * FROM oauth_vault.oauth_identify('$ada');});
like($err, qr/WARNING:\s+25P01/, 'as a FROM item too');
foreach my $use (
	qq{BEGIN; SELECT oauth_vault.oauth_identify('$ada'); COMMIT;},
	qq{SELECT oauth_vault.oauth_identify('$ada', session => true);},
	qq{SELECT oauth_vault.oauth_identify('$ada'), oauth_vault.oauth_fresh_token('demo') IS NULL;},
	qq{DO \$\$ BEGIN PERFORM oauth_vault.oauth_identify('$ada'); PERFORM oauth_vault.oauth_fresh_token('demo'); END \$\$;})
{
	($out, $err) = session($use);
	is($err, '', 'no warning where the identity is of use: ' . substr($use =~ s/$ada/.../r, 0, 50));
}

($out, $err) = session(qq{
	SELECT oauth_vault.oauth_identify('$ada', session => true);
	DO \$\$ BEGIN
		PERFORM oauth_vault.oauth_fresh_token('nothing');
	EXCEPTION WHEN SQLSTATE 'OV012' THEN
		RAISE NOTICE 'rows=%', (SELECT count(*) FROM oauth_vault.oauth_connections);
	END \$\$;});
like($err, qr/rows=1/, 'after a caught error the views still show the own rows');

# ---- isolation levels, READ ONLY, rollback ----

foreach my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
{
	ov_connect($node, 'ada', 'other');
	my $moved = ov_sql($node, 'ada',
		"SELECT count(*) FROM oauth_vault.oauth_connections \\g /dev/null\n"
		  . shell_sql("UPDATE oauth_vault.connection SET last_used_at = now()")
		  . "SELECT local_state FROM oauth_vault.oauth_revoke('other');",
		begin_mode => "ISOLATION LEVEL $level");
	is($moved, 'revoking', "$level: revoking works although the row has moved since the snapshot");
}
ov_connect($node, 'ada', 'other');
my ($state, $text) = ov_sql_fails($node, 'ada', "SELECT * FROM oauth_vault.oauth_revoke('other');", begin_mode => 'READ ONLY');
is($state, '25006', 'a READ ONLY transaction decides nothing');
like($text, qr/cannot execute oauth_revoke\(\)/, 'and the message names the function');
isnt(ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('other');", begin_mode => 'ISOLATION LEVEL SERIALIZABLE READ ONLY'),
	'', 'but gets tokens');

my $token = fresh('ada', 'other');
ok(ov_wait_for('revocations of before', sub {
	superuser(q{SELECT count(*) FROM oauth_vault.revocation WHERE state = 'queued'}) eq '0' }, 20),
	'what was revoked before is settled');
my $revocations = counter('revocation');
ov_sql($node, 'ada', "SELECT * FROM oauth_vault.oauth_revoke('other');", end => 'ROLLBACK;');
is(fresh('ada', 'other'), $token, 'a revocation that was rolled back has not happened');
ov_sql($node, 'ada', "SAVEPOINT s; SELECT * FROM oauth_vault.oauth_revoke('other'); ROLLBACK TO s;");
is(fresh('ada', 'other'), $token, 'nor one in a savepoint that was rolled back');
is(superuser('SELECT count(*) FROM oauth_vault.revocation') + 0,
	superuser(q{SELECT count(*) FROM oauth_vault.revocation WHERE state <> 'queued'}) + 0, 'nothing is queued');
is(counter('revocation'), $revocations, 'and the provider heard nothing');
is(ov_sql($node, 'ada', "SAVEPOINT s; SELECT local_state FROM oauth_vault.oauth_revoke('other'); RELEASE s;"),
	'revoking', 'one in a savepoint that was released counts');
ok(ov_wait_for('the provider', sub { counter('revocation') > $revocations }, 10),
	'and reaches the provider without waiting for a clock');
ok(ov_wait_for('settled', sub { ov_sql($node, 'ada',
	"SELECT local_state || ' ' || provider_state FROM oauth_vault.oauth_revoke('other');") eq 'revoked confirmed' }, 20),
	'revoking again returns the same row, as it is now');
is(ov_sql($node, 'ada', "SELECT count(DISTINCT connection_id) FROM (SELECT connection_id FROM oauth_vault.oauth_revoke('other')
	UNION ALL SELECT connection_id FROM oauth_vault.oauth_revoke('other')) r;"), '1', 'each time');
($state, $text) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('other');");
is($state, 'OV010', 'a revoked connection gives no token');
is(detail($text)->{reason}, 'revoked', 'with the reason');

# ---- how long a token lives ----

my $refreshes = counter('refresh_token');
$token = fresh('ada', 'demo');
is(ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo', min_ttl => '5 min');"), $token,
	'a token that lives longer than min_ttl is served as it is');
is(counter('refresh_token'), $refreshes, 'without asking the provider');
superuser(q{UPDATE oauth_vault.connection SET expires_at = now() + interval '4 min', issued_at = now() - interval '6 min' WHERE status = 'active'});
my $longer = ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo', min_ttl => '5 min');");
isnt($longer, $token, 'one that lives shorter is renewed first');
my $again = ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo', min_ttl => '1 day');");
is($again, $longer, 'a min_ttl that no token can have does not refresh at each call');

# Lazy: near its end a token is served at once, and renewed behind it.
superuser(q{UPDATE oauth_vault.connection SET expires_at = now() + interval '60 s', issued_at = now() - interval '540 s'
	WHERE status = 'active'});
$refreshes = counter('refresh_token');
is(fresh('ada', 'demo'), $again, 'a token near its end is served at once');
ok(ov_wait_for('a refresh', sub { counter('refresh_token') > $refreshes }, 10), 'and renewed behind it');
ok(ov_wait_for('the new token', sub { fresh('ada', 'demo') ne $again }, 10), 'so that the next call has the new one');

superuser(q{UPDATE oauth_vault.connection SET refresh_token = NULL, expires_at = now() - interval '1 s' WHERE status = 'active'});
($state, $text) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
is($state, 'OV010', 'past its life and without a refresh token: consent again');
is(detail($text)->{reason}, 'expired_no_refresh_token', 'with the reason');
like(detail($text)->{since}, qr/^\d{4}-\d\d-\d\dT/, 'and since when');
ov_connect($node, 'ada', 'demo');

# A connector out of service.
$token = fresh('ada', 'demo');
superuser(q{SELECT oauth_vault.oauth_alter_connector('demo', status => 'paused', reason => 'maintenance')});
is(fresh('ada', 'demo'), $token, 'a live token is served while the connector is paused');
superuser(q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 s' WHERE status = 'active'});
($state, $text) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
is($state, 'OV022', 'an expired one is not');
superuser(q{SELECT oauth_vault.oauth_alter_connector('demo', status => 'active')});
isnt(fresh('ada', 'demo'), $token, 'active again, it is renewed');

# The session's own lock is in the worker's way: an answer, not a dead-lock.
my ($rc, $locked_out, $locked_err) = $node->psql('postgres', qq{
	SET oauth_vault.wait_timeout = '5s';
	BEGIN; UPDATE oauth_vault.connection SET expires_at = now() - interval '1 s' WHERE status = 'active';
	SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$ada'); COMMIT;},
	extra_params => [ '-v', 'VERBOSITY=verbose' ], on_error_stop => 1);
like($locked_err, qr/OV021/, 'a session that has locked the row itself gets OV021');

# ---- credential and several at once ----

ov_connect($node, 'ada', 'other');
my $credential = decode_json(ov_sql($node, 'ada', "SELECT row_to_json(c) FROM oauth_vault.oauth_credential('other') c;"));
is($credential->{header_name}, 'Authorization', 'a credential says which header');
is($credential->{header_value}, "$credential->{token_type} $credential->{access_token}", 'what it holds');
is($credential->{access_token}, fresh('ada', 'other'), 'with the token');
is(ref $credential->{headers}, 'HASH', 'and what else to send');
ok((grep { $_ eq 'openid' } @{ $credential->{scopes} }), 'scopes too');

my $rows = decode_json(ov_sql($node, 'ada', q{
	SELECT json_agg(t) FROM oauth_vault.oauth_fresh_tokens(ARRAY['demo', 'other', 'nothing']) t;}));
is_deeply([ map { $_->{connector} } @$rows ], [ qw(demo other nothing) ], 'several tokens: a row for each connector');
ok($rows->[0]{access_token} && $rows->[1]{access_token}, 'with the tokens there are');
is($rows->[2]{error_state}, 'OV012', 'and an error state');
is($rows->[2]{error_detail}{reason}, 'no_connection', 'with its detail');
is(superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'token_access' AND outcome = 'denied'
	AND connector = 'nothing' AND user_id = 'ada'}) > 0 ? 'yes' : 'no', 'yes', 'the denial is in the audit trail');
($state) = ov_sql_fails($node, 'ada', "SELECT * FROM oauth_vault.oauth_fresh_tokens(ARRAY['demo'], assertion => 'x');");
is($state, 'OV002', 'a bad assertion is still raised');

# ---- several accounts ----

my $url = ov_sql($node, 'ada', "SELECT authorization_url FROM oauth_vault.oauth_begin('other', account => 'work');");
my $callback = ov_consent($url, 'ada-at-work');
is(ov_sql($node, 'ada', "SELECT account || ' ' || status FROM oauth_vault.oauth_callback('$callback');"), 'work active',
	'a second account under a label');
($state, $text) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('other');");
is($state, 'OV013', 'without the label it is ambiguous');
is_deeply(detail($text)->{accounts}, [ '', 'work' ], 'the labels are named');
isnt(ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('other', account => 'work');"), '', 'with it there is a token');
is(ov_sql($node, 'ada', "SELECT count(*) FROM oauth_vault.oauth_fresh_tokens(ARRAY['other']) WHERE access_token IS NOT NULL;"),
	'2', 'the bulk call has a row for each account');
($state) = ov_sql_fails($node, 'ada', "SELECT * FROM oauth_vault.oauth_begin('other');");
is($state, 'OV013', 'a new consent must say which one');

# ---- scopes ----

my $scopes_of = sub { my ($u) = @_; my ($s) = $u =~ /[?&]scope=([^&]*)/; return join ' ', sort split /[+ ]|%20/, ($s // '') =~ s/%3A/:/gr; };
is($scopes_of->(ov_sql($node, 'bob', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo');")),
	'offline_access openid', 'the defaults are asked for');
($state, $text) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo', scopes => ARRAY['openid', 'email']);");
is($state, 'OV011', 'a scope that was not granted is refused');
is_deeply(detail($text)->{missing_scopes}, ['email'], 'and named');
$url = ov_sql($node, 'ada', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo', scopes => ARRAY['email']);");
is($scopes_of->($url), 'email offline_access openid', 'incremental consent asks for what was granted before too');
$callback = ov_consent($url, 'ada');
my $id = superuser(q{SELECT connection_id FROM oauth_vault.connection JOIN oauth_vault.connector USING (connector_id)
	WHERE user_id = 'ada' AND name = 'demo' AND connection.status = 'active'});
is(ov_sql($node, 'ada', "SELECT connection_id FROM oauth_vault.oauth_callback('$callback');"), $id,
	'the connection keeps its id');
isnt(ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo', scopes => ARRAY['email']);"), '', 'and has the scope');

($state, $text) = ov_sql_fails($node, 'ada', "SELECT * FROM oauth_vault.oauth_begin('demo', scopes => ARRAY['api:write', 'email']);");
is($state, 'OV014', "a scope above the connector's ceiling is refused");
is_deeply(detail($text)->{denied_scopes}, ['api:write'], 'and named');
superuser(q{SELECT oauth_vault.oauth_set_scope_policy('demo', '', NULL, ARRAY['openid', 'offline_access'], ARRAY['openid'])});
($state) = ov_sql_fails($node, 'bob', "SELECT * FROM oauth_vault.oauth_begin('demo', scopes => ARRAY['email']);");
is($state, 'OV014', "as is one outside the tenant's policy");
is($scopes_of->(ov_sql($node, 'bob', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo');")), 'openid',
	"the policy's defaults come first");
superuser(q{SELECT oauth_vault.oauth_set_scope_policy('demo', '', 'bob', ARRAY['openid', 'offline_access', 'email'], NULL)});
is($scopes_of->(ov_sql($node, 'bob', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo', scopes => ARRAY['email']);")),
	'email', "a person's policy stands in for the tenant's");

($out, $err) = session(qq{SELECT oauth_vault.oauth_set_my_limit('other', ARRAY['openid', 'offline_access'], assertion => '$agent');});
is($err, '', 'an agent may set a limit where there is none');
foreach my $wider ("ARRAY['openid', 'offline_access', 'email']", 'NULL')
{
	($out, $err) = session(qq{SELECT oauth_vault.oauth_set_my_limit('other', $wider, assertion => '$agent');});
	like($err, qr/OV014/, "but not raise it to $wider");
}
($state) = ov_sql_fails($node, 'ada', "SELECT * FROM oauth_vault.oauth_begin('other', account => 'work', scopes => ARRAY['email']);");
is($state, 'OV014', 'the limit binds');
ov_sql($node, 'ada', "SELECT oauth_vault.oauth_set_my_limit('other', NULL);");
is($scopes_of->(ov_sql($node, 'ada',
	"SELECT authorization_url FROM oauth_vault.oauth_begin('other', account => 'new', scopes => ARRAY['email']);")),
	'email', 'until the person removes it');

# ---- callbacks ----

$url = ov_sql($node, 'bob', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo', return_to => '/here');");
$callback = ov_consent($url, 'bob');
($state) = ov_sql_fails($node, 'bob', "SELECT * FROM oauth_vault.oauth_callback('$callback&state=x');");
is($state, 'OV030', 'a repeated parameter is refused');
my ($query) = $callback =~ /\?(.*)/;
is(ov_sql($node, 'bob', "SELECT status || ' ' || return_to FROM oauth_vault.oauth_callback('$query');"), 'active /here',
	'a bare query string will do');
($state) = ov_sql_fails($node, 'bob', "SELECT * FROM oauth_vault.oauth_callback('$query');");
is($state, 'OV030', 'once');
$url = ov_sql($node, 'carol', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo');");
$callback = ov_consent($url, 'carol', '--deny');
($state, $text) = ov_sql_fails($node, 'carol', "SELECT * FROM oauth_vault.oauth_callback('$callback');");
is($state, 'OV031', 'a refused consent');
$url = ov_sql($node, 'carol', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo');");
$callback = ov_consent($url, 'carol');
my %got = $callback =~ /[?&](\w+)=([^&]+)/g;
$got{iss} =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
is(ov_sql($node, 'carol', "SELECT provider_subject FROM oauth_vault.oauth_complete('$got{state}', '$got{code}', '$got{iss}');"),
	'carol', 'oauth_complete takes the same apart');

# ---- rejected tokens ----

my $report = sub { my ($t, $more) = @_; return ov_sql($node, 'carol', "SELECT oauth_vault.oauth_report_rejected('demo', '$t'" . ($more // '') . ');'); };
$token = fresh('carol', 'demo');
is($report->('made up'), 'unknown_token', 'a token that never was');
is($report->($token, ', 403'), 'insufficient_scope', 'field failure 3.19: a token that is not enough: status 403');
is($report->($token, ", 401, 'insufficient_scope'"), 'insufficient_scope', 'or the error by name');
is($report->($token, ', 429'), 'rate_limited', 'a busy API says nothing about the token');
is(fresh('carol', 'demo'), $token, 'none of this has changed the token');
is($report->($token), 'refreshed', 'field failure 3.19: a current token that is refused is renewed');
my $new = fresh('carol', 'demo');
isnt($new, $token, 'there is a new one');
is($report->($token), 'superseded', 'the old one is now superseded');
is($report->($new), 'reauth_required', 'a token straight from a forced refresh that is refused too: consent again');
($state, $text) = ov_sql_fails($node, 'carol', "SELECT oauth_vault.oauth_fresh_token('demo');");
is($state, 'OV010', 'so there is none');
is(detail($text)->{reason}, 'rejected_by_provider', 'with the reason');
is(ov_sql($node, 'carol', 'SELECT prompts_pending FROM oauth_vault.oauth_whoami();'), '1', 'and a prompt is pending');
is($scopes_of->(ov_sql($node, 'carol', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo');")),
	'openid', 'renewal asks for what was asked before');
is(superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'rejection_reported' AND user_id = 'carol'
	AND outcome = 'ok'}), '7', 'each report is in the audit trail');

# ---- bad parameters ----

foreach my $case (
	[ "oauth_fresh_token(NULL)", '22004', 'connector' ],
	[ "oauth_fresh_token('')", '22023', 'connector' ],
	[ "oauth_fresh_token('demo', min_ttl => '-1 s')", '22023', 'min_ttl' ],
	[ "oauth_fresh_token('demo', scopes => ARRAY[NULL])", '22004', 'scopes' ],
	[ "oauth_fresh_token('demo', scopes => ARRAY[''])", '22023', 'scopes' ],
	[ "oauth_fresh_token('demo', purpose => repeat('x', 2000))", '22023', 'purpose' ],
	[ "oauth_fresh_token('demo', assertion => '')", '22023', 'assertion' ],
	[ "oauth_credential(NULL)", '22004', 'connector' ],
	[ "oauth_fresh_tokens(NULL)", '22004', 'connectors' ],
	[ "oauth_fresh_tokens(ARRAY['demo', NULL])", '22004', 'connectors' ],
	[ "oauth_begin(NULL)", '22004', 'connector' ],
	[ "oauth_begin('demo', scopes => ARRAY['two words'])", '22023', 'scopes' ],
	[ "oauth_begin('demo', account => repeat('x', 256))", '22023', 'account' ],
	[ "oauth_begin('demo', redirect_uri => 'https://elsewhere.example/')", '22023', 'redirect_uri' ],
	[ "oauth_begin('demo', params => '[]')", '22023', 'params' ],
	[ "oauth_complete(NULL, 'x')", '22004', 'state' ],
	[ "oauth_complete('x', NULL)", '22004', 'code' ],
	[ "oauth_complete('', 'x')", '22023', 'state' ],
	[ "oauth_callback(NULL)", '22004', 'url' ],
	[ "oauth_callback('')", '22023', 'url' ],
	[ "oauth_report_rejected('demo', NULL)", '22004', 'token' ],
	[ "oauth_report_rejected('demo', 'x', NULL)", '22004', 'http_status' ],
	[ "oauth_report_rejected('demo', 'x', 200)", '22023', 'http_status' ],
	[ "oauth_revoke(NULL)", '22004', 'connector' ],
	[ "oauth_set_my_limit(NULL, NULL)", '22004', 'connector' ],
	[ "oauth_identify(NULL)", '22004', 'assertion' ],
	[ "oauth_identify('')", '22023', 'assertion' ],
	[ "oauth_identify('x', NULL)", '22004', 'session' ])
{
	my ($call, $wanted, $named) = @$case;
	my ($got, $message) = ov_sql_fails($node, 'bob', "SELECT * FROM oauth_vault.$call;");
	is($got, $wanted, "$call: $wanted");
	like($message, qr/"$named"/, "which names $named");
}
foreach my $call ("oauth_begin('nothing')", "oauth_set_my_limit('nothing', NULL)")
{
	my ($got, $message) = ov_sql_fails($node, 'bob', "SELECT * FROM oauth_vault.$call;");
	is($got, 'OV012', "$call: OV012");
	is(detail($message)->{reason}, 'unknown_connector', 'with the reason');
}
$node->stop('fast');
done_testing();
