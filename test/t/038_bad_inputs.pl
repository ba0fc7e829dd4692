# What must not be taken, told, stored or sent: answers of a token endpoint and of
# an issuer, what a redirect brings, URLs, addresses, certificates and headers, each
# through SQL, with its class, its words, and what was there before still there.
#
# T: token endpoint, HTTP; J: its JSON; D: metadata; R: redirect; N: TLS and network;
# S: addresses; 2.7 and bare numbers: headers and requirements on requests.  Elsewhere,
# or not to be had through SQL:
#   D13  audience of client assertions: test_provider_requests.c; 010_providers
#   J29  answers of a token exchange: there is none
#   N02  a certificate that was revoked: no list is asked for, it is accepted
#   N03  renegotiation, early data: libcurl does neither, no call of ours asks for them
#   N10  a proxy that is down: there is no setting for one
#   R08  two completions of one flow at once: 031_flows
#   S19  an address that is allowed: all of this is on 127.0.0.1, which is not public
#   assertions: 96 more in 025_assertions; vault files: test_vaultfile.c
use strict;
use warnings;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP;
use MIME::Base64 qw(encode_base64 encode_base64url);
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $fault = ov_fault();
my $base = $fault->{issuer};
my %tls = map { $_ => ov_port() } qw(good old null-cipher expired early other-name no-name self-signed stranger sha1 rsa1024 constrained wildcard silent);
my @private = qw(10.11.12.13 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 100.100.100.200 0.0.0.0 0 192.0.2.1 198.18.0.1 224.0.0.1 255.255.255.255
	[::1] [::] [fd00:ec2::254] [fe80::1] [ff02::1] [2001:db8::1] [::ffff:169.254.169.254] [::ffff:10.0.0.1] [64:ff9b::a00:1] [2002:a00:1::1] [2001:0:a00:1::1]
	0x0a0b0c0d 168496141 012.013.014.015 10.722957);
my $environment = PostgreSQL::Test::Utils::tempdir();
my $node = do {
	# Nothing of the server's environment is believed (N09).
	local @ENV{qw(SSLKEYLOGFILE https_proxy HTTPS_PROXY ALL_PROXY SSL_CERT_FILE CURL_CA_BUNDLE NETRC)} =
	  ("$environment/keys", ('http://127.0.0.1:1') x 3, ("$environment/none.pem") x 3);
	ov_cluster('bad_inputs', hosts => ["localhost:$fault->{port}"]);
};
# more hosts than the tool takes at once
my $file = decode_json(slurp_file($node->{ov_vault}));
push @{ $file->{allowed_hosts} }, (map { "localhost:$_" } values %tls), @private, 'nowhere.invalid', 'localhost:1';
open my $fh, '>', $node->{ov_vault} or die $!;
print $fh encode_json($file);
close $fh;
$node->reload;
my $jwt = ov_assertion($node, 'ada', '--ttl', '3000');
my $mallory = ov_assertion($node, 'mallory', '--ttl', '3000');
sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub literal { my ($s) = @_; return defined $s ? "'" . $s =~ s/'/''/gr . "'" : 'NULL'; }

# attempt(): one statement as the application's role, its value or everything that is said of its error.
# state(): what a failure must leave alone.
superuser(<<'SQL');
CREATE FUNCTION attempt(sql text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE v text; s text; m text; d text; h text;
BEGIN
	PERFORM set_config('role', 'app', true);
	BEGIN
		EXECUTE sql INTO v;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS s = RETURNED_SQLSTATE, m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
	END;
	PERFORM set_config('role', 'none', true);
	RETURN jsonb_build_object('state', coalesce(s, '00000'), 'value', v, 'message', m, 'detail', d, 'hint', h);
END $$;
CREATE FUNCTION state() RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT md5((SELECT string_agg(row(connection_id, user_id, connector_id, account, status, token_generation, decision_epoch, provider_subject,
			scopes, expires_at, hosts_digest, key_id, metadata, access_token, refresh_token, id_token)::text, ' ' ORDER BY connection_id)
		FROM oauth_vault.connection))
		|| ' ' || (SELECT count(*) FROM oauth_vault.grant_inbox) || ' ' || (SELECT count(*) FROM oauth_vault.vault_key WHERE kind <> 'audit')
		|| ' ' || (SELECT count(*) FROM oauth_vault.connector) || ' ' || (SELECT count(*) FROM oauth_vault.provider_site)
$$;
SQL
sub attempt_sql { my ($sql) = @_; return 'attempt(' . literal($sql) . ')'; }

# One session for all of it: a JSON value a question
my ($in, $out, $err) = ('', '', '');
my $psql = IPC::Run::start([ 'psql', '-XAtq', '-U', 'postgres', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(300));
sub ask
{
	my ($sql) = @_;
	($out, $err) = ('', '');
	$in .= "$sql;\n\\echo ====\n";
	$psql->pump until $out =~ /^====$/m;
	die "$sql: $err" if $err =~ /ERROR/;
	my ($json) = $out =~ /^(.*)\n====/ms;
	return ($json // '') eq '' ? undef : JSON::PP->new->allow_nonref->decode($json);
}
sub attempt { my ($sql) = @_; return ask('SELECT ' . attempt_sql($sql)); }
sub script { my ($path, @answers) = @_; ov_control($fault, 'POST', '/script', { path => $path, answers => \@answers }); return; }
sub forget { ov_control($fault, 'POST', '/reset'); return; }
sub heard { return @{ ov_control($fault, 'GET', '/journal') }; }

# ---- what is counted and asked of each ----

my %class;				# SQLSTATE -> inputs
my $inputs = 0;
my %words = (
	OV002 => qr/^the assertion /, OV012 => qr/^there is no /, OV014 => qr/^(host ".*" is not allowed|secrets may not be sent to host ".*")$/,
	OV010 => qr/^the person has to consent again$/,
	OV020 => qr/^(the token could not be renewed now|the provider could not be reached to exchange the code|the metadata of issuer ".*" could not be fetched|providers cannot be reached: the CA certificates cannot be read)$/,
	OV022 => qr/^(the provider refuses the client of connector "\w+"|connector "\w+" is out of service|the code could not be exchanged|endpoint ".*" is not https)$/,
	OV030 => qr/^(the authorization flow is not valid|the code could not be exchanged|the callback is not what the provider sends)$/,
	OV031 => qr/^(the authorization was denied|the provider refused the authorization code)$/,
	OV032 => qr/^the authorization response comes from another issuer$/,
	OV034 => qr/^(the provider's answer makes no sense|the provider's ID token cannot be accepted|the metadata of issuer ".*" cannot be used)$/,
);
# The error itself: state, words that are ours, DETAIL one line of JSON, HINT a sentence
sub told
{
	my ($name, $r, $state, $why) = @_;
	$inputs++;
	$class{ $r->{state} }++;
	my @bad;
	push @bad, "state $r->{state}, not $state" if $r->{state} ne $state;
	my $all = join "\n", map { $_ // '' } @{$r}{qw(message detail hint)};
	if ($r->{state} =~ /^OV/)
	{
		my $d = eval { decode_json($r->{detail}) };
		push @bad, 'DETAIL is no line of JSON' if ref $d ne 'HASH' || $r->{detail} =~ /[^\x20-\x7e]/;
		push @bad, 'HINT is no sentence' if ($r->{hint} // '') !~ /^[A-Z].*\.$/s;
		push @bad, "unexpected words" if !defined $words{ $r->{state} } || ($r->{message} // '') !~ $words{ $r->{state} };
		push @bad, "not for this reason" if defined $why && $all !~ $why;
		# a provider's own words are in these members, and nowhere else
		my @theirs = grep { /hostile|javascript:/ } $r->{message}, $r->{hint}, map { /^(provider_error.*|reason)$/ ? () : $d->{$_} } keys %{ $d // {} };
		push @bad, 'words of the provider in ours' if @theirs;
		push @bad, 'a text that is not cut' if grep { !ref && length > 1000 } values %{ $d // {} };
	}
	elsif ($state ne '00000') { push @bad, 'not for this reason' if defined $why && $all !~ $why; }
	push @bad, 'a secret is told' if $all =~ /[ar]t-bad|c0de|secret-1/;
	is(join('; ', @bad), '', "$name: $state") or diag(encode_json($r));
	return;
}

# ---- a connector, and a connection that has to survive everything ----

my $issuer = "$base/op";
my %metadata = (issuer => $issuer, authorization_endpoint => "$base/op/authorize", token_endpoint => "$base/op/token", response_types_supported => ['code'],
	code_challenge_methods_supported => ['S256'], token_endpoint_auth_methods_supported => ['client_secret_basic'],
	authorization_response_iss_parameter_supported => JSON::PP::true);
sub connector { my ($name, $more) = @_; return "SELECT oauth_vault.oauth_create_connector('$name', 'oidc', 'client', 'secret-1', 'https://app.example/callback', $more)"; }
script('/.well-known/oauth-authorization-server/op', { body => \%metadata, repeat => -1 });
script('/.well-known/oauth-authorization-server/other', { body => { %metadata, map { $_ => $metadata{$_} =~ s{/op}{/other}r } qw(issuer authorization_endpoint token_endpoint) }, repeat => -1 });
superuser('GRANT oauth_vault_admin TO app; ' . join ';', map { connector($_, "scopes => ARRAY['files'], issuer => '$base/$_', refresh_policy => 'lazy'") } qw(op other));
script('/op/token', { body => { access_token => 'at-0', refresh_token => 'rt-0', token_type => 'Bearer', expires_in => 7200, scope => 'files' } });
sub begin { my ($connector, $account) = @_; return attempt("SELECT state FROM oauth_vault.oauth_begin('$connector', account => '$account', assertion => '$jwt')")->{value}; }
my $codes = 0;
sub complete_sql
{
	my ($state, %o) = @_;
	my $code = exists $o{code} ? $o{code} : 'c0de-' . ++$codes;
	my $iss = exists $o{iss} ? $o{iss} : $issuer;
	return "SELECT jsonb_build_object('status', status, 'scopes', scopes, 'ttl', CASE WHEN expires_at = 'infinity' THEN 'infinity'
		ELSE extract(epoch FROM expires_at - now())::text END) FROM oauth_vault.oauth_complete(" . literal($state) . ', ' . literal($code) . ', ' . literal($iss)
	  . ($o{params} ? ', params => ' . literal($o{params}) : '') . ', assertion => ' . literal($o{jwt} // $jwt) . ')';
}
is(attempt(complete_sql(begin('op', 'main')))->{state}, '00000', 'a connection');
my $token_sql = "SELECT oauth_vault.oauth_fresh_token('op', account => 'main', assertion => '$jwt')";
superuser('CREATE TABLE kept AS SELECT * FROM oauth_vault.connection');
my $columns = superuser(q{SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'oauth_vault.connection'::regclass AND attnum > 0 AND NOT attisdropped});
sub restore
{
	ask(qq{DELETE FROM oauth_vault.intent; UPDATE oauth_vault.connector SET status = 'active', status_reason = NULL, paused_by = NULL WHERE status = 'paused';
		UPDATE oauth_vault.connection c SET ($columns) = (SELECT $columns FROM kept k WHERE k.connection_id = c.connection_id)});
	return;
}
# As it was, and in use: the token that was there before
sub untouched
{
	my ($name, $before) = @_;
	is(ask("SELECT to_json(state() || ' ' || coalesce((" . attempt_sql($token_sql) . ") ->> 'value', 'no token'))"), "$before at-0", '... nothing is changed, and the token of before is served');
	return;
}
my $before = ask('SELECT to_json(state())');

# ---- the token endpoint's answers (2.1, 2.2) ----

my $JSON = 'application/json';
sub http { my ($body, %more) = @_; return { headers => { 'content-type' => $JSON }, bodyBase64 => encode_base64($body, ''), %more }; }
sub typed { my ($type, $body) = @_; return http($body, headers => { 'content-type' => $type }); }
# The connection ends after them, and says so where it is HTTP: otherwise it might be used again.
sub raw { my ($bytes, %more) = @_; return { rawBase64 => encode_base64($bytes =~ s{^(HTTP/1.1 (?!1)[^\r]*\r\n)}{$1Connection: close\r\n}r, ''), %more }; }
# What would be stored, if anything of it were
my $GOOD = '"access_token":"at-bad","refresh_token":"rt-bad","token_type":"Bearer","expires_in":7200';
my $good = "{$GOOD}";
sub with { my ($more) = @_; return http("{$GOOD,$more}"); }
sub token { my ($json) = @_; return http("{\"access_token\":$json,\"refresh_token\":\"rt-bad\",\"token_type\":\"Bearer\"}"); }
sub type { my ($json) = @_; return http('{"access_token":"at-bad"' . (defined $json ? ",\"token_type\":$json" : '') . '}'); }
sub expiry { my ($json) = @_; return http("{\"access_token\":\"at-bad\",\"token_type\":\"Bearer\",\"expires_in\":$json}"); }
sub failing { my ($status, $body, $headers) = @_; return http(ref $body ? encode_json($body) : $body, status => $status, headers => { 'content-type' => $JSON, %{ $headers // {} } }); }
my $head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
my $length = 'Content-Length: ' . length($good) . "\r\n";
my $gzip = pack 'H*', '1f8b08000000000000ffaad60200f89f1a2e02000000';

# name, answer, state of a consent; then what may be absent: the reason, and the state of a refresh
my @answers = (
	[ 'T01 no content type', raw("HTTP/1.1 200 OK\r\n$length\r\n$good"), 'OV034', qr/no content type/ ],
	(map { [ "T02 $_", typed($_, $good), 'OV034', qr/not JSON/ ] } qw(text/html text/plain application/jsonx application/json-seq)),
	[ 'T02 form', typed('application/x-www-form-urlencoded', 'access_token=at-bad&token_type=bearer'), 'OV034', qr/not JSON/ ],
	[ 'T04 Latin-1', typed('application/json; charset=iso-8859-1', "{$GOOD,\"x\":\"\xe9\"}"), 'OV034' ],
	[ 'T05 two content types', raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Type: text/html\r\n$length\r\n$good"), 'OV034' ],
	[ 'T05 two content types, in the other order', raw("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Type: application/json\r\n$length\r\n$good"), 'OV034' ],
	(map { [ "T06 status $_", failing($_, $good), 'OV034', qr/status $_/ ] } 201, 202, 206),
	[ 'T06 status 204', raw("HTTP/1.1 204 No Content\r\n\r\n"), 'OV034', qr/status 204/ ],
	(map { [ "T07 status $_", failing($_, $good, { location => "$base/elsewhere" }), 'OV034', qr/status $_/ ] } 301, 302, 303, 307, 308),
	[ 'T08 status 304', raw("HTTP/1.1 304 Not Modified\r\n\r\n"), 'OV034', qr/status 304/ ],
	[ 'T08 100 and no more', raw("HTTP/1.1 100 Continue\r\n\r\n"), 'OV020', qr/no answer/ ],
	[ 'T08 an upgrade', raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n$good"), 'OV020', qr/no answer/ ],
	[ 'T09 nothing', http(''), 'OV034', qr/empty/ ],
	[ 'T10 invalid_grant', failing(400, { error => 'invalid_grant' }), 'OV031', qr/"provider_error": ?"invalid_grant"/, 'OV010' ],
	(map { [ "T10 $_", failing(400, { error => $_ }), 'OV022', qr/"provider_error": ?"$_"/, 'OV022' ] } qw(invalid_client unauthorized_client unsupported_grant_type)),
	(map { [ "T10 $_", failing(400, { error => $_ }), 'OV031', qr/"provider_error": ?"$_"/ ] } qw(invalid_request invalid_scope access_denied something_else)),
	(map { [ "T10 $_", failing(400, { error => $_ }), 'OV020', qr/"provider_error": ?"$_"/ ] } qw(temporarily_unavailable server_error slow_down)),
	[ 'T11 HTML', http('<html>Bad hostile Request', status => 400, headers => { 'content-type' => 'text/html' }), 'OV034', qr/unparseable error response \(status 400\)/ ],
	[ 'T11 no error in it', failing(400, { message => 'no' }), 'OV034', qr/unparseable error response \(status 400\)/ ],
	[ 'T12 401', failing(401, '', { 'www-authenticate' => 'Basic realm="x"' }), 'OV022', undef, 'OV022' ],
	[ 'T12 401 without a challenge', failing(401, '{}'), 'OV022', undef, 'OV022' ],
	[ 'T12 401 with twenty challenges', failing(401, { error => 'invalid_client' }, { 'www-authenticate' => [ map { "Scheme$_ realm=\"x\", error=\"hostile\"" } 1 .. 20 ] }), 'OV022', undef, 'OV022' ],
	[ 'T12 401 with broken quotes', failing(401, { error => 'invalid_client' }, { 'www-authenticate' => 'Bearer realm="\\, error="' }), 'OV022', undef, 'OV022' ],
	[ 'T13 403 of a firewall', http('<html>hostile', status => 403, headers => { 'content-type' => 'text/html' }), 'OV034', qr/status 403/ ],
	(map { [ "T13 $_ with invalid_grant", failing($_, { error => 'invalid_grant' }), 'OV034', qr/"invalid_grant"|status $_/ ] } 403, 404, 405, 410),
	(map { [ "T14 429, Retry-After $_->[0]", failing(429, '', { 'retry-after' => $_->[0] }), 'OV020', qr/status 429/, 'OV020', $_->[1] ] }
		[ 5, [ 4, 7 ] ], [ 0, [ 0, 60 ] ], [ -1, [ 0, 60 ] ], [ '1e9', [ 0, 60 ] ], [ '99999999999999999999', [ 3000, 86401 ] ],
		[ 'Fri, 15 Jan 2100 08:00:10 GMT', [ 3000, 86401 ] ], [ 'Fri, 15 Jan 1999 08:00:10 GMT', [ 0, 60 ] ], [ 'soon', [ 0, 60 ] ]),
	[ 'T14 503, Retry-After 5', failing(503, '', { 'retry-after' => 5 }), 'OV020', qr/status 503/, 'OV020', [ 4, 7 ] ],
	(map { [ "T15 $_", failing($_, { error => 'invalid_grant' }), 'OV020' ] } 500, 502, 504),
	[ 'T16 a body shorter than said', raw("${head}Content-Length: 4000\r\n\r\n$good"), 'OV020', qr/no answer/ ],
	[ 'T16 a body longer than said', raw("${head}Content-Length: 20\r\n\r\n$good"), 'OV034' ],
	[ 'T16 a bad chunk', raw("${head}Transfer-Encoding: chunked\r\n\r\nzz\r\n$good\r\n0\r\n\r\n"), 'OV020', qr/no answer/ ],
	[ 'T16 chunks without an end', raw("${head}Transfer-Encoding: chunked\r\n\r\n" . sprintf("%x\r\n%s\r\n", length $good, $good)), 'OV020', qr/no answer/ ],
	[ 'T16 cut in the middle', http($good, drop => 'mid-body'), 'OV020', qr/no answer/ ],
	[ 'T17 256 KiB and one byte', { bodySize => 256 * 1024 + 1 }, 'OV020', qr/too large/ ],
	[ 'T17 50 MB', { bodySize => 50_000_000 }, 'OV020', qr/too large/ ],
	[ 'T17 10 GiB promised', raw("${head}Content-Length: 10737418240\r\n\r\n$good"), 'OV020', qr/too large/ ],
	[ 'T18 gzip unasked', http($gzip, headers => { 'content-type' => $JSON, 'content-encoding' => 'gzip' }), 'OV034' ],
	[ 'T18 brotli that is none', http("\x8b\x00\x80{}\x03", headers => { 'content-type' => $JSON, 'content-encoding' => 'br' }), 'OV034' ],
	[ 'T24 closed after the request', { drop => 'before' }, 'OV020', qr/no answer/ ],
	[ 'T24 not HTTP', raw("hostile\r\n\r\n"), 'OV020', qr/no answer/ ],

	(map { [ "J01 $_", http($_), 'OV034', qr/not a JSON object/ ] } 'null', '[]', '"x"', '5', 'true'),
	[ 'J01 white space', http("  \n"), 'OV034' ],
	(map { [ "J02 $_->[0]", http($_->[1]), 'OV034' ] } [ 'open', '{"' ], [ 'a comma', "{$GOOD,}" ], [ 'a comment', "{$GOOD/**/}" ], [ 'single quotes', "{'access_token':'at-bad'}" ],
		[ 'NaN', "{$GOOD,\"x\":NaN}" ], [ 'Infinity', "{$GOOD,\"x\":Infinity}" ], [ 'twice', "$good$good" ], [ 'something behind it', "${good}x" ], [ 'a byte order mark', "\xef\xbb\xbf$good" ]),
	[ 'J03 17 deep', with('"x":' . '[' x 16 . ']' x 16), 'OV034' ],
	[ 'J03 200,000 brackets', http('[' x 200_000), 'OV034' ],
	(map { [ "J04 $_->[0] twice", with($_->[1]), 'OV034', qr/twice/ ] } [ 'access_token', '"access_token":"at-bad"' ], [ 'access_token, escaped', '"access\u005ftoken":"at-bad"' ],
		[ 'refresh_token', '"refresh_token":"a"' ], [ 'expires_in', '"expires_in":1' ], [ 'scope', '"scope":"a","scope":"b"' ], [ 'token_type', '"token_type":"Bearer"' ]),
	[ 'J04 error twice', failing(400, '{"error":"invalid_grant","error":"invalid_client"}'), 'OV034' ],
	(map { [ "J06 $_->[0]", with("\"x\":\"$_->[1]\""), 'OV034' ] } [ '0xFF', "\xff" ], [ 'overlong', "\xc0\x80" ], [ 'a surrogate', "\xed\xa0\x80" ], [ 'cut', "\xe2\x82" ]),
	[ 'J06 in a token', token("\"at-bad\xff\""), 'OV034' ],
	[ 'J07 NUL', http("{$GOOD\0}"), 'OV034' ],
	[ 'J08 an escaped NUL', token('"at-bad\u0000b"'), 'OV034' ],
	[ 'J09 half a surrogate pair', with('"x":"\ud800"'), 'OV034' ],
	[ 'J09 a pair the wrong way round', with('"x":"\udc00\ud800"'), 'OV034' ],
	[ 'J10 a bare line break', with("\"x\":\"a\nb\""), 'OV034' ],
	(map { [ "J11 access_token $_", token($_), 'OV034', qr/access token/ ] } 'null', '5', 'true', '{}', '[]', '""'),
	[ 'J11 no access_token', http('{"token_type":"Bearer","refresh_token":"rt-bad"}'), 'OV034', qr/access token/ ],
	(map { [ "J12 access_token with $_->[0]", token($_->[1]), 'OV034', qr/access token/ ] } [ 'a space', '"at-bad b"' ], [ 'CR LF', '"at-bad\r\nX: y"' ], [ 'TAB', '"at-bad\tb"' ],
		[ 'DEL', '"at-bad\u007f"' ], [ 'letters beyond ASCII', "\"at-bad\xc3\xa9\"" ], [ 'more than 64 KiB', '"' . 'a' x 65537 . '"' ]),
	(map { [ 'J14 token_type ' . ($_ // 'missing'), type($_), 'OV034', qr/token type/ ] } undef, 'null', '1', '""', '"DPoP"', '"N_A"', '"mac"', '"Bearer "', '["Bearer"]'),
	[ 'J14 token_type with NUL', type('"bearer\u0000"'), 'OV034' ],
	(map { [ "J15 expires_in $_", expiry($_), 'OV034', qr/expiry/ ] } '-1', '-0.5', '1e3', '1e309', '9223372036854775808', '18446744073709551616', '"abc"', '" 3600"', '"0x10"', '"-5"', '""', 'true', '[]'),
	(map { [ "J16 refresh_token $_->[0]", http("{\"access_token\":\"at-bad\",\"token_type\":\"Bearer\",\"refresh_token\":$_->[1]}"), 'OV034', qr/refresh token/ ] }
		[ 'empty', '""' ], [ 'a number', '5' ], [ 'with a line break', '"rt-bad\n"' ], [ 'more than 64 KiB', '"' . 'a' x 65537 . '"' ]),
	(map { [ "J17 scope $_->[0]", with("\"scope\":$_->[1]"), 'OV034', qr/scope/ ] } [ 'an array', '["files"]' ], [ 'a number', '5' ], [ 'with a quote', '"a \u0022b"' ],
		[ 'with a backslash', '"a\\\\b"' ], [ 'with a line break', '"a\nb"' ], [ 'beyond ASCII', "\"\xc3\xa9\"" ], [ 'of 20,000 names', '"' . join(' ', map { "s$_" } 1 .. 20_000) . '"' ]),
	[ 'J18 error with 200', http('{"error":"bad_verification_code"}'), 'OV031', qr/bad_verification_code/ ],
	[ 'J18 invalid_grant with 200', http('{"error":"invalid_grant"}'), 'OV031', undef, 'OV010' ],
	[ 'J19 error and token', with('"error":"invalid_grant"'), 'OV034', qr/both an error and a token|invalid_grant/ ],
	(map { [ "J20 error $_->[0]", failing(400, "{\"error\":$_->[1]}"), 'OV034', qr/no usable code|\(status 400\)/ ] } [ 'a number', '400' ], [ 'empty', '""' ], [ 'an array', '["invalid_grant"]' ], [ '10 KiB', '"' . 'e' x 10240 . '"' ]),
	[ 'J20 an error with control characters', failing(400, '{"error":"hostile\u0022\\\\\u0007\r\n"}'), 'OV031', qr/hostile\\+x22\\+x5c\\+x07\\+x0d\\+x0a/ ],
	[ 'J21 a hostile description', failing(400, "{\"error\":\"invalid_grant\",\"error_description\":\"hostile\\r\\n2026 LOG: \\u001b[2J\\u0007\\u202e%s%n'); DROP TABLE x; -- <script>\"}"),
		'OV031', qr/hostile\\+x0d\\+x0a2026 LOG/, 'OV010' ],
	[ 'J21 a description of 200,000', failing(400, { error => 'invalid_grant', error_description => 'hostile' x 30_000 }), 'OV031', undef, 'OV010' ],
	[ 'J21 a description that is no UTF-8', failing(400, "{\"error\":\"invalid_grant\",\"error_description\":\"hostile\xff\"}"), 'OV034', qr/status 400/ ],
	(map { [ "J22 error_uri $_", failing(400, { error => 'invalid_grant', error_uri => $_ }), 'OV031', undef, 'OV010' ] } 'javascript:alert(1)', 'file:///etc/passwd', "https://x/\r\nX: hostile"),
	(map { [ "J23 id_token $_->[0]", with("\"id_token\":$_->[1]"), 'OV034', qr/id token/ ] } [ 'a number', '5' ], [ 'empty', '""' ], [ 'with a space', '"a b"' ]),
);

sub exchange
{
	my ($name, $answer, $state, $why, $account) = @_;
	forget();
	script('/op/token', $answer);
	my $flow = begin('op', $account // 'main');
	my $r = attempt(complete_sql($flow));
	told("$name, for a code", $r, $state, $why);
	my @sent = grep { $_->{path} eq '/op/token' } heard();
	is(scalar(grep { $_->{path} !~ m{^/op/(token|revoke)$} } heard()) . ' ' . scalar(@sent), '0 1', '... one request, and none elsewhere');
	return $r;
}
foreach my $case (@answers)
{
	my ($name, $answer, $state, $why, $refreshed, $wait) = @$case;
	exchange($name, $answer, $state, $why);
	# something that answers: eight silences in a row would pause the host
	attempt("SELECT oauth_vault.oauth_discover('$base/none')") if $state eq 'OV020';
	untouched($name, $before);
	restore();

	forget();
	script('/op/token', $answer);
	ask(q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute' WHERE account = 'main'});
	my $r = attempt($token_sql);
	told("$name, for a refresh", $r, $refreshed // 'OV020', ($refreshed // '') eq 'OV010' ? qr/invalid_grant/ : $state =~ /OV03[14]/ ? $why : undef);
	is(scalar(heard()), 1, '... one request');
	if ($wait)
	{
		my $s = ask('SELECT to_json(extract(epoch FROM ' . literal(decode_json($r->{detail})->{retry_at}) . '::timestamptz - now()))');
		ok($s >= $wait->[0] && $s <= $wait->[1], "... and another in $s s");
	}
	is(ask(q{SELECT to_json(c.token_generation = k.token_generation AND c.access_token = k.access_token AND c.refresh_token = k.refresh_token AND c.decision_epoch = k.decision_epoch)
		FROM oauth_vault.connection c JOIN kept k USING (connection_id)}), JSON::PP::true, '... and the grant is as it was') if ($refreshed // '') ne 'OV010';
	restore();
	attempt("SELECT oauth_vault.oauth_discover('$base/none')") if $state eq 'OV020';
	untouched($name, $before);
}

# An ID token that cannot be one, or is somebody else's: what came with it goes back to be revoked.
my %claims = (iss => $issuer, aud => 'client', sub => 'ada-1', iat => int time, exp => 600 + int time);
sub id_token { my ($header, $claims) = @_; return join '.', map { encode_base64url($_) } $header, encode_json({ %claims, %$claims }), 'a signature'; }
my @id_tokens = (
	[ 'of two parts', 'a.b' ], [ 'of five parts (JWE)', 'a.b.c.d.e' ], [ 'whose claims are no JSON', 'e30.bm8.eA' ], [ 'whose header is no JSON', 'bm8.e30.eA' ],
	[ 'with an unknown crit', id_token('{"alg":"RS256","crit":["x"],"x":1}', {}) ], [ 'with alg none', id_token('{"alg":"none"}', {}) ],
	[ 'with a header of 40 kB', id_token('{"alg":"RS256","x":"' . 'x' x 40_000 . '"}', {}) ], [ 'of another issuer', id_token('{"alg":"RS256"}', { iss => "$base/other" }) ],
	[ 'for another client', id_token('{"alg":"RS256"}', { aud => 'other' }) ], [ 'that has expired', id_token('{"alg":"RS256"}', { exp => -3600 + int time }) ],
	[ 'of another sign-in (R11)', id_token('{"alg":"RS256"}', { nonce => 'of-another' }) ]);
superuser("SELECT oauth_vault.oauth_alter_connector('op', scopes => ARRAY['openid', 'files'])");
foreach my $case (@id_tokens)
{
	my ($name, $jwt) = @$case;
	script('/op/revoke', { repeat => -1 });
	my $queued = ask('SELECT to_json(count(*)) FROM oauth_vault.revocation');
	exchange("J23 an ID token $name", http("{$GOOD,\"id_token\":\"$jwt\"}"), 'OV034', qr/ID token|id token/);
	untouched($name, $before);
	is(ask("SELECT to_json(count(*) - $queued) FROM oauth_vault.revocation"), 1, '... and its tokens wait to be revoked, sealed');
}
superuser("SELECT oauth_vault.oauth_alter_connector('op', scopes => ARRAY['files'])");

# Silence, drop by drop (T20): less patience, so that it does not take long
$node->append_conf('postgresql.conf', "oauth_vault.http_timeout = '400ms'\noauth_vault.connect_timeout = '300ms'");
$node->reload;
ok(ov_wait_for('the setting', sub { superuser('SHOW oauth_vault.http_timeout') eq '400ms' }), 'less patience');
foreach my $case ([ 'T20 silence', { delayMs => 3000 } ], [ 'T20 headers byte by byte', raw($head . $length, trickleMs => 40) ],
	[ 'T20 a body byte by byte', raw("$head$length\r\n$good", trickleMs => 5) ])
{
	my ($name, $answer) = @$case;
	exchange($name, $answer, 'OV020', qr/timeout/);
	untouched($name, $before);
	forget();
	script('/op/token', $answer);
	ask(q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute' WHERE account = 'main'});
	told("$name, for a refresh", attempt($token_sql), 'OV020', qr/timeout/);
	restore();
	attempt("SELECT oauth_vault.oauth_discover('$base/none')");
	untouched($name, $before);
}
my $silent = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', LocalPort => $tls{silent}) or die $!;
told('T20 a handshake that never ends', attempt("SELECT oauth_vault.oauth_discover('https://localhost:$tls{silent}')"), 'OV020', qr/timeout/);
$node->append_conf('postgresql.conf', "oauth_vault.http_timeout = '10s'\noauth_vault.connect_timeout = '5s'");
$node->reload;
ok(ov_wait_for('the setting', sub { superuser('SHOW oauth_vault.http_timeout') eq '10s' }), 'and as much as before');

# What only looks bad is taken.
my $n = 0;
foreach my $case (
	[ 'T03 capitals', typed('APPLICATION/JSON; charset=utf-8', $good) ], [ 'T03 spaces', typed("application/json \t;\t charset=utf-8", $good) ],
	[ 'T22 headers that are not ours', http($good, headers => { 'content-type' => $JSON, 'set-cookie' => 'a=b', 'alt-svc' => 'h3=":443"',
		'strict-transport-security' => 'max-age=1', 'clear-site-data' => '"*"', link => '<https://x/>; rel=preload' }) ],
	[ 'T25 no Cache-Control', http($good) ], [ 'J03 16 deep', with('"x":' . '[' x 15 . ']' x 15) ], [ 'J05 unknown members twice', with('"x":1,"x":2') ],
	[ 'J13 an unusual token', token('"at-bad|b:c~d"'), 'at-bad|b:c~d' ], [ 'J14 bearer', type('"bearer"') ], [ 'J14 BEARER', type('"BEARER"') ],
	[ 'J15 3600', expiry('3600'), undef, 3600 ], [ 'J15 "3600"', expiry('"3600"'), undef, 3600 ], [ 'J15 3600.9', expiry('3600.9'), undef, 3600 ], [ 'J15 2^31', expiry('2147483648'), undef, 315576000 ],
	[ 'J15 null', expiry('null'), undef, '' ], [ 'J15 missing', type('"Bearer"'), undef, '' ],
	[ 'J16 null', http('{"access_token":"at-bad","token_type":"Bearer","refresh_token":null}') ], [ 'J16 the same', http('{"access_token":"at-bad","token_type":"Bearer","refresh_token":"at-bad"}') ],
	[ 'J16 64 KiB', http('{"access_token":"at-bad","token_type":"Bearer","refresh_token":"' . 'r' x 65536 . '"}') ],
	[ 'J17 empty', with('"scope":""') ], [ 'J17 null', with('"scope":null') ], [ 'J17 twice the same', with('"scope":"files files"') ],
	[ 'J24 members that look like ours', with('"user":"mallory","connector":"other","tenant":"x","account":"y","connection_id":"z"') ],
	[ 'J26 another case', with('"Access_Token":"x","EXPIRES_IN":"x"') ])
{
	my ($name, $answer, $token, $ttl) = @$case;
	forget();
	script('/op/token', $answer);
	my $r = attempt(complete_sql(begin('op', 'ok-' . ++$n)));
	told($name, $r, '00000');
	is(attempt("SELECT oauth_vault.oauth_fresh_token('op', account => 'ok-$n', assertion => '$jwt')")->{value}, $token // 'at-bad', '... and the token is what it was');
	next if !defined $ttl;
	my $got = decode_json($r->{value} // '{}')->{ttl} // '';
	ok($ttl eq '' ? $got eq '' : abs($got - $ttl) < 60, "... expiry: " . ($ttl eq '' ? 'unknown' : $ttl)) or diag($got);
}
told('J26 access_token in another case alone', exchange('J26', http('{"Access_Token":"at-bad","token_type":"Bearer"}'), 'OV034', qr/access token/), 'OV034');
ask(q{DELETE FROM oauth_vault.connection WHERE account LIKE 'ok-%'});
untouched('all of these', $before);

# ---- what the redirect brings (2.4) ----

sub callback { my ($query, $who) = @_; return "SELECT oauth_vault.oauth_callback(" . literal("https://app.example/callback?$query") . ', assertion => ' . literal($who // $jwt) . ')'; }
my $escaped = $issuer =~ s{([:/])}{sprintf '%%%02X', ord $1}ger;
my $used = begin('op', 'main');
script('/op/token', { body => { access_token => 'at-0', refresh_token => 'rt-0', token_type => 'Bearer', expires_in => 7200, scope => 'files' } });
is(attempt(complete_sql($used))->{state}, '00000', 'a flow that is used');
my $expired = begin('op', 'main');
ask("UPDATE oauth_vault.flow SET expires_at = now() WHERE flow_id = (SELECT flow_id FROM oauth_vault.flow ORDER BY created_at DESC LIMIT 1)");
restore();
is(ask('SELECT to_json(state())'), $before, 'as before');
my $S = sub { begin('op', 'main') };			# a state that is good
my @same;						# one message, DETAIL and HINT for states that are not
foreach my $case (
	# name, what is called, state, reason; is it the message for all bad states?
	[ 'R01 no state', callback('code=c0de'), 'OV030', undef, 1 ], [ 'R01 an empty state', callback('code=c0de&state='), 'OV030', undef, 1 ],
	[ 'R01 an empty state, not in a URL', complete_sql(''), '22023', qr/state/ ], [ 'R01 NULL', complete_sql(undef), '22004', qr/state/ ],
	[ 'R01 10 KiB', complete_sql('s' x 10240), 'OV030', undef, 1 ], [ 'R01 no base64url', complete_sql('!"$%&/()=?'), 'OV030', undef, 1 ],
	[ 'R01 NUL', callback('code=c0de&state=a%00b'), 'OV030', undef, 1 ], [ 'R01 SQL', complete_sql("' OR true; DROP TABLE oauth_vault.flow; --"), 'OV030', undef, 1 ],
	[ 'R01 bad UTF-8', callback('code=c0de&state=%ff'), 'OV030', undef, 1 ],
	[ 'R02 unknown', complete_sql(encode_base64url('x' x 32)), 'OV030', undef, 1 ], [ 'R03 expired', complete_sql($expired), 'OV030', undef, 1 ],
	[ 'R04 used', complete_sql($used), 'OV030', undef, 1 ], [ 'R09 used, with the same code', complete_sql($used, code => 'c0de-1'), 'OV030', undef, 1 ],
	[ "R05 another person's", complete_sql($S->(), jwt => $mallory), 'OV030', undef, 1 ],
	[ "R06 another connector's, as this issuer's", complete_sql(begin('other', 'main')), 'OV032' ],
	[ 'R10 no code', callback('state=' . $S->() . "&iss=$escaped"), 'OV030' ], [ 'R10 an empty code', callback('code=&state=' . $S->() . "&iss=$escaped"), 'OV030' ],
	[ 'R10 an empty code, not in a URL', complete_sql($S->(), code => ''), '22023', qr/code/ ], [ 'R10 NULL', complete_sql($S->(), code => undef), '22004', qr/code/ ],
	[ 'R10 10 KiB', complete_sql($S->(), code => 'x' x 10240), 'OV030' ], [ 'R10 CR LF', complete_sql($S->(), code => "x\r\ny"), 'OV030' ],
	[ 'R10 NUL', callback('code=a%00b&state=' . $S->() . "&iss=$escaped"), 'OV030' ], [ 'R10 beyond ASCII', complete_sql($S->(), code => "\xc3\xa9"), 'OV030' ],
	(map { [ "R12 iss $_->[0]", complete_sql($S->(), iss => $_->[1]), 'OV032' ] } [ 'missing', undef ], [ 'of another', "$base/other" ], [ 'with a slash', "$issuer/" ],
		[ 'in capitals', $issuer =~ s/localhost/LOCALHOST/r ], [ 'with a port', "$issuer:443" ], [ 'encoded', $issuer =~ s/op$/%6fp/r ], [ 'encoded twice', $escaped ],
		[ 'with a space', " $issuer" ], [ 'of a letter that looks alike', $issuer =~ s/op$/\xd0\xbep/r ]),
	[ 'R13 access_denied', callback('error=access_denied&state=' . $S->() . "&iss=$escaped"), 'OV031', qr/access_denied/ ],
	[ 'R13 consent_required', callback('error=consent_required&state=' . $S->() . "&iss=$escaped"), 'OV031', qr/consent_required/ ],
	[ 'R13 an unknown error', callback('error=hostile&state=' . $S->() . "&iss=$escaped"), 'OV031' ],
	[ 'R13 error and code', callback('error=access_denied&code=c0de&state=' . $S->() . "&iss=$escaped"), 'OV031' ],
	[ 'R13 of another issuer', callback('error=hostile&state=' . $S->() . '&iss=https%3A%2F%2Fevil.example'), 'OV032' ],
	[ 'R14 a hostile description', callback('error=access_denied&error_description=hostile%0D%0A%1b%5B2J%07%E2%80%AE%25s%3Cscript%3E&state=' . $S->() . "&iss=$escaped"),
		'OV031', qr/hostile\\+x0d\\+x0a\\+x1b/ ],
	[ 'R14 a description of 7,000', callback('error=access_denied&error_description=' . 'hostile' x 1000 . '&state=' . $S->() . "&iss=$escaped"), 'OV031' ],
	[ 'R15 a token in the redirect', callback('access_token=at-bad&token_type=bearer&state=' . $S->() . "&iss=$escaped"), 'OV030' ],
	[ 'R15 a token beside the code', callback('code=c0de&access_token=at-bad&state=' . $S->() . "&iss=$escaped"), 'OV030' ],
	[ 'R15 a token among params', complete_sql($S->(), params => '{"access_token":"at-bad"}'), 'OV030' ],
	(map { [ "R17 $_ twice", callback("code=c0de&iss=$escaped&$_=x&$_=y" . ($_ eq 'state' ? '' : '&state=' . $S->())), 'OV030' ] } qw(code state iss other)),
	[ 'R17 Code', callback('Code=c0de&state=' . $S->() . "&iss=$escaped"), 'OV030' ], [ 'R17 State', callback('code=c0de&State=' . $S->() . "&iss=$escaped"), 'OV030' ],
	[ 'R17 a member of params that is a parameter', complete_sql($S->(), params => '{"code":"x"}'), '22023' ],
	[ 'R17 params that are no object', complete_sql($S->(), params => '[]'), '22023' ],
	[ 'a URL that is none', "SELECT oauth_vault.oauth_callback('https://app.example:x/?state=y', assertion => '$jwt')", '22023' ],
	[ 'a URL of 9 kB', callback('state=x&code=' . 'c' x 9_000), '22023', qr/url/ ],
	[ 'a query of 33 kB', "SELECT oauth_vault.oauth_callback('state=x&code=" . 'c' x 33_000 . "', assertion => '$jwt')", '22023', qr/url/ ],
  )
{
	my ($name, $sql, $state, $why, $same) = @$case;
	forget();
	my $r = attempt($sql);
	told($name, $r, $state, $why);
	push @same, join '|', map { $_ // '' } @{$r}{qw(message detail hint)} if $same;
	is(scalar(heard()), 0, '... no code is sent');
	untouched($name, $before);
}
cmp_ok(scalar(@same), '>', 10, 'states that are not good');
is(scalar(keys %{ { map { $_ => 1 } @same } }), 1, 'R02-R05 all are told the same') or diag(join "\n", @same);
# R05: burnt by whoever touched it
my $stolen = begin('op', 'main');
attempt(complete_sql($stolen, jwt => $mallory));
told("R05 one's own, after another has tried it", attempt(complete_sql($stolen)), 'OV030');
# R18: where a call stands
my ($flow) = begin('op', 'main');
forget();
script('/op/token', { body => { access_token => 'at-1', refresh_token => 'rt-1', token_type => 'Bearer', expires_in => 7200, scope => 'files' }, repeat => -1 });
my (undef, $said, $err18) = $node->psql('postgres', "BEGIN READ ONLY;\n" . complete_sql($flow) . ";\nSELECT 1/0;\n" . complete_sql($flow) . ";\nROLLBACK;\n"
	  . "SELECT (" . complete_sql($flow) . ");", on_error_stop => 0, extra_params => [ '-U', 'app', '-v', 'VERBOSITY=sqlstate' ]);
like($said, qr/"status": "active"/, 'R18 in a read-only transaction the exchange is a fact like any other');
is(join(' ', $err18 =~ /ERROR:\s+(\w+)/g), '22012 25P02 OV030', 'R18 in an aborted one it does not run, and a second time the flow is over');
$flow = begin('op', 'main');
(undef, undef, $err18) = $node->psql('postgres', "SELECT a.status FROM generate_series(1, 2) i, LATERAL oauth_vault.oauth_complete('$flow', 'c0de', '$issuer', assertion => CASE WHEN i > 0 THEN '$jwt' END) a;",
	on_error_stop => 0, extra_params => [ '-U', 'app', '-v', 'VERBOSITY=sqlstate' ]);
like($err18, qr/OV030/, 'R18 twice in one statement: once');
# R07, R20: whose flow it is, is who has proved to be its person: in another session, or an agent's begun by the person
my $agent = ov_assertion($node, 'ada', '--actor', 'an-agent');
$flow = attempt("SELECT state FROM oauth_vault.oauth_begin('op', account => 'main', assertion => '$agent')")->{value};
told('R07, R20 begun by an agent in one session, completed by the person in another', { %{ attempt(complete_sql($flow)) } }, '00000');
restore();
untouched('these', $before);

# ---- what an issuer publishes (2.3) ----

my $well_known = '/.well-known/oauth-authorization-server';
my $d = 0;
sub document { my ($path, %more) = @_; return { %metadata, (map { $_ => $metadata{$_} =~ s{/op}{$path}r } qw(issuer authorization_endpoint token_endpoint)), %more }; }
# Asked for, and made a connector of: what is told of the one, and what is left by either
sub published
{
	my ($name, $answer, $state, $why) = @_;
	my $path = '/d' . ++$d;
	$answer = $answer->($path) if ref $answer eq 'CODE';
	$answer = { body => $answer } unless exists $answer->{body} || exists $answer->{bodyBase64} || exists $answer->{bodySize} || exists $answer->{rawBase64} || exists $answer->{status};
	forget();
	script($_, { %$answer, repeat => -1 }) foreach "$well_known$path", "/.well-known/openid-configuration$path", "$path/.well-known/openid-configuration";
	told($name, attempt("SELECT oauth_vault.oauth_discover('$base$path')"), $state, $why);
	is(attempt(connector("d$d", "issuer => '$base$path'"))->{state}, $state, '... and no connector comes of it');
	is(scalar(grep { $_->{path} !~ m{^(/d\d+)?/\.well-known/} } heard()), 0, '... nothing else is asked');
	is(ask('SELECT to_json(state())'), $before, '... nothing is changed');
	return;
}
my @urls = ("http://localhost:$fault->{port}/token", '/token', '', "https://user:secret\@localhost:$fault->{port}/token", "$base/token#f", "$base/\r\nX: y", "$base/a b", "$base\\token",
	'https:\\\\host', '//host', "$base/" . 'x' x 8192, "https://h\x{f6}st.example/token", 'https://', 'https://localhost:99999/', 'javascript:alert(1)', 'data:text/html,x', 'file:///etc/passwd', 'ftp://localhost/');
published(@$_) foreach (
	(map { my $i = $_; [ "D01 the issuer as $i->[0]", sub { my ($p) = @_; document($p, issuer => $i->[1]->("$base$p")) }, 'OV034', qr/another issuer/ ] }
		[ 'with a slash', sub { "$_[0]/" } ], [ 'in capitals', sub { $_[0] =~ s/localhost/LOCALHOST/r } ], [ 'its scheme in capitals', sub { $_[0] =~ s/^https/HTTPS/r } ], [ 'with a port', sub { $_[0] =~ s/(:\d+)/:0$1/r } ],
		[ 'encoded', sub { $_[0] =~ s{/d}{/%64}r } ], [ 'by its address', sub { $_[0] =~ s/localhost/127.0.0.1/r } ], [ 'with a dot', sub { $_[0] =~ s/localhost/localhost./r } ], [ 'with letters that look alike', sub { $_[0] =~ s/d/\x{501}/r } ]),
	[ 'D02 the issuer of another provider', sub { document($_[0], issuer => 'https://accounts.google.com') }, 'OV034', qr/another issuer/ ],
	(map { my $u = $_; map { my $member = $_; [ "D03 $member " . (length $u > 60 ? '8 KiB' : $u =~ s/[^\x20-\x7e]/?/gr), sub { document($_[0], $member => $u) }, 'OV034', qr/$member/ ] }
		qw(token_endpoint authorization_endpoint) } @urls),
	[ 'D06 257 KiB', { bodySize => 257 * 1024 }, 'OV020', qr/too large/ ], [ 'D06 17 deep', sub { http(encode_json(document($_[0])) =~ s/}$/',"x":' . '[' x 16 . ']' x 16 . '}'/er) }, 'OV034', qr/deep|nest/ ],
	(map { my $m = $_; [ "D06 $m->[0] of a wrong type", sub { document($_[0], @$m) }, 'OV034', qr/$m->[0]/ ] } [ issuer => 5 ], [ token_endpoint => 5 ], [ revocation_endpoint => undef ], [ scopes_supported => 'a b' ],
		[ code_challenge_methods_supported => 'S256' ], [ grant_types_supported => [5] ], [ authorization_response_iss_parameter_supported => 'true' ], [ jwks_uri => [] ]),
	[ 'D06 the issuer twice', sub { http(encode_json(document($_[0])) =~ s/}$/,"issuer":"x"}/r) }, 'OV034', qr/twice/ ],
	[ 'D06 no token endpoint', sub { my $x = document($_[0]); delete $x->{token_endpoint}; $x }, 'OV034', qr/token_endpoint/ ],
	[ 'D06 an array', http('[]'), 'OV034' ], [ 'D06 a string', http('"x"'), 'OV034' ], [ 'D06 nothing', http(''), 'OV034' ], [ 'D06 a byte order mark', sub { http("\xef\xbb\xbf" . encode_json(document($_[0]))) }, 'OV034' ],
	[ 'D06 bad UTF-8', sub { http(encode_json(document($_[0])) =~ s/}$/,"x":"\xff"}/r) }, 'OV034' ],
	[ 'D06 HTML', sub { typed('text/html', encode_json(document($_[0]))) }, 'OV034', qr/content type/ ], [ 'D06 a JWT', sub { typed('application/jwt', encode_json(document($_[0]))) }, 'OV034', qr/content type/ ],
	(map { my $s = $_; [ "D06 status $s", sub { { status => $s, body => document($_[0]) } }, $s < 500 && $s != 429 && $s != 408 ? 'OV034' : 'OV020', qr/status $s/ ] } 201, 401, 403, 404, 408, 429, 500, 503),
	(map { [ "S15 a redirect ($_) to the address of a cloud's metadata", { status => $_, headers => { location => 'https://169.254.169.254/latest/' }, body => '' }, 'OV034', qr/status $_/ ] } 301, 302, 303, 307, 308),
	[ 'D08 unsigned client assertions', sub { document($_[0], token_endpoint_auth_signing_alg_values_supported => ['none']) }, 'OV034', qr/none/ ],
);
# D04, D05: what is an issuer's own business to publish, and not where a secret goes
foreach my $case ([ 'D04 the token endpoint at a private address', 'https://10.99.0.1/token' ], [ 'D04 at the address of a cloud\'s metadata', 'https://169.254.169.253/token' ],
	[ 'D05 the token endpoint at another domain', 'https://tokens.example/token' ])
{
	my ($name, $url) = @$case;
	my $path = '/d' . ++$d;
	script("$well_known$path", { body => document($path, token_endpoint => $url) , repeat => -1 });
	told($name, attempt(connector("d$d", "issuer => '$base$path', scopes => ARRAY['files']")), 'OV014', qr/host/);
	is(ask('SELECT to_json(state())'), $before, '... nothing is changed');
}
# D07, D08, D12: what it says of itself, taken at its word
sub made { my (%more) = @_; my $path = '/d' . ++$d; script("$well_known$path", { body => document($path, %more), repeat => -1 }); my $r = attempt(connector("d$d", "issuer => '$base$path', scopes => ARRAY['files']")); return ("d$d", $r, $path); }
sub url_of { my ($c) = @_; return attempt("SELECT authorization_url FROM oauth_vault.oauth_begin('$c', assertion => '$jwt')")->{value} // ''; }
my ($name, $r, $path) = made(code_challenge_methods_supported => undef, authorization_response_iss_parameter_supported => JSON::PP::false);
told('D07 null for challenge methods', $r, 'OV034', qr/code_challenge_methods/);
foreach my $methods ([], ['plain'])
{
	($name, $r) = made(code_challenge_methods_supported => $methods);
	told('D07 challenge methods ' . encode_json($methods), $r, '00000');
	unlike(url_of($name), qr/code_challenge_method=plain/, '... and never plain');
}
my %without = %metadata;
delete $metadata{code_challenge_methods_supported};
($name, $r) = made();
told('D07 no word of challenge methods', $r, '00000');
like(url_of($name), qr/code_challenge_method=S256/, '... S256 all the same');
%metadata = %without;
($name, $r) = made(token_endpoint_auth_methods_supported => ['tls_client_auth']);
told('D08 authentication that we do not have', $r, '00000');
forget();
told('D08 the same, when the code should be sent', attempt(complete_sql(attempt("SELECT state FROM oauth_vault.oauth_begin('$name', assertion => '$jwt')")->{value}, iss => "$base/d$d")), 'OV022', qr/no client authentication/);
is(scalar(heard()), 0, '... no code is sent');
($name, $r, $path) = made();
told('D12 a good one', $r, '00000');
$flow = attempt("SELECT state FROM oauth_vault.oauth_begin('$name', assertion => '$jwt')")->{value};
forget();
script("$well_known$path", { body => document($path, token_endpoint => "$base/elsewhere"), repeat => -1 });
script("$path/token", { body => { access_token => 'at-1', token_type => 'Bearer' } });
told('D12 changed between begin and complete', attempt(complete_sql($flow, iss => "$base$path")), '00000');
is(join(' ', map { $_->{path} } heard()), "$path/token", '... what was frozen holds, and nothing is fetched again');
# D14: an issuer that sends people to the honest one
($name, $r) = made(authorization_endpoint => "$base/op/authorize");
told('D14 the authorization endpoint of another issuer', $r, '00000');
forget();
told('D14 the answer of the other issuer', attempt(complete_sql(attempt("SELECT state FROM oauth_vault.oauth_begin('$name', assertion => '$jwt')")->{value})), 'OV032');
is(scalar(heard()), 0, '... no code is sent to whoever mixed them up');
superuser("DELETE FROM oauth_vault.connection WHERE connector_id IN (SELECT connector_id FROM oauth_vault.connector WHERE name ~ '^d'); DELETE FROM oauth_vault.connector WHERE name ~ '^d';
	DELETE FROM oauth_vault.vault_key WHERE kind = 'connector' AND connector_id NOT IN (SELECT connector_id FROM oauth_vault.connector)");
is(ask('SELECT to_json(state())'), $before, 'as before');

# ---- addresses (2.6) and TLS (2.5) ----

foreach my $host ((map { "$_:$fault->{port}" } qw(127.0.0.1 127.1 2130706433 0x7f000001 0177.0.0.1 [::ffff:127.0.0.1])),
	"localhost:22", 'localhost:25', 'localhost:6379', 'localhost')
{
	told("S01-S16 https://$host, which is not listed", attempt("SELECT oauth_vault.oauth_discover('https://$host')"), 'OV014', qr/host/);
}
foreach my $case ([ 'user information', "https://x\@localhost:$fault->{port}" ], [ 'digits of another script', "https://\xd9\xa1\xd9\xa2\xd9\xa7.0.0.1" ], [ 'an encoded NUL', "https://localhost%00:$fault->{port}" ],
	[ 'plain http', "http://localhost:$fault->{port}" ], [ 'a file', 'file:///etc/passwd' ], [ 'gopher', 'gopher://localhost/' ], [ 'a query', "$base?x=1" ], [ 'a fragment', "$base#x" ], [ 'nothing', '' ])
{
	told("S01-S12 $case->[0]", attempt('SELECT oauth_vault.oauth_discover(' . literal($case->[1]) . ')'), '22023', qr/issuer/);
}
told("S01-S12 $_, listed as a host", attempt("SELECT oauth_vault.oauth_discover('https://$_')"), 'OV020', qr/address not allowed|could not (connect|resolve)/) foreach @private;
told('S16 a port that is listed, and closed', attempt("SELECT oauth_vault.oauth_discover('https://localhost:1')"), 'OV020', qr/refused/);
told('N05 no such name', attempt("SELECT oauth_vault.oauth_discover('https://nowhere.invalid')"), 'OV020', qr/resolve|timeout/);
told('N04 plain http on a port of TLS', attempt("SELECT oauth_vault.oauth_discover('http://localhost:$tls{good}')"), '22023', qr/https/);

my $certs = PostgreSQL::Test::Utils::tempdir();
PostgreSQL::Test::Utils::system_or_bail("$ENV{OV_TREE}/test/idp/make-bad-certs.sh", $ca_dir, $certs);
append_to_file("$certs/ca.pem", slurp_file("$ca_dir/ca.pem") . slurp_file("$certs/constrained-ca.pem"));
$node->append_conf('postgresql.conf', "oauth_vault.ca_file = '$certs/ca.pem'");
$node->reload;
ok(ov_wait_for('the setting', sub { superuser('SHOW oauth_vault.ca_file') eq "$certs/ca.pem" }), 'the CA file');
my %server;
foreach my $kind (grep { $_ ne 'silent' } keys %tls)
{
	my @pair = -e "$certs/$kind.pem" ? ("$certs/$kind.pem", "$certs/$kind-key.pem") : ("$ca_dir/server.pem", "$ca_dir/server-key.pem");
	my @how = $kind eq 'old' ? ('-tls1_1', '-cipher', 'ALL:@SECLEVEL=0') : $kind eq 'null-cipher' ? ('-tls1_2', '-cipher', 'NULL:aNULL:@SECLEVEL=0') : ('-cipher', 'ALL:@SECLEVEL=0');
	my ($o, $e) = ('', '');
	my $s = { out => \$o, err => \$e };
	$s->{h} = IPC::Run::start([ 'openssl', 's_server', '-accept', "127.0.0.1:$tls{$kind}", '-cert', $pair[0], '-key', $pair[1], '-quiet', @how ], '<pipe', my $pipe = Symbol::gensym(), '>', \$o, '2>', \$e);
	$s->{in} = $pipe;
	$server{$kind} = $s;
}
foreach my $kind (sort keys %server)
{
	ok(ov_wait_for("the server \"$kind\"", sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $tls{$kind}) ? 1 : 0 }), "a server: $kind");
}
my %fault_of = (old => [ 'N01 TLS 1.1', qr/TLS: handshake/ ], 'null-cipher' => [ 'N01 no encryption', qr/TLS: handshake/ ], expired => [ 'N02 expired', qr/expired/ ], early => [ 'N02 not valid yet', qr/not yet valid/ ],
	'other-name' => [ 'N02 another host', qr/name does not match/ ], 'no-name' => [ 'N02 the name only as CN', qr/name does not match/ ], 'self-signed' => [ 'N02 self-signed', qr/self.signed/ ],
	stranger => [ 'N02 of an unknown authority', qr/unable to get local issuer/ ], sha1 => [ 'N02 signed with SHA-1', qr/TLS: .*(digest|weak|verify)/ ], rsa1024 => [ 'N02 RSA of 1024 bits', qr/TLS: .*(key|weak|verify)/ ],
	constrained => [ 'N02 outside the names its authority may certify', qr/permitted subtree/ ], wildcard => [ 'N02 a wildcard for everything', qr/name does not match/ ]);
foreach my $kind (sort keys %fault_of)
{
	told($fault_of{$kind}[0], attempt("SELECT oauth_vault.oauth_discover('https://localhost:$tls{$kind}')"), 'OV020', $fault_of{$kind}[1]);
}
# The proof that the others could have heard something
my $asking = IPC::Run::start([ 'psql', '-XAtq', '-U', 'app', '-d', $node->connstr('postgres'), '-c', "SET statement_timeout = '20s'; SELECT oauth_vault.oauth_discover('https://localhost:$tls{good}')" ],
	'<', \undef, '>', \my $o, '2>', \my $e);
ok(ov_wait_for('the request', sub { $server{good}{h}->pump_nb; ${ $server{good}{out} } =~ /^GET / }), 'a server with nothing wrong hears the request');
$server{good}{h}->kill_kill(grace => 1);
$asking->finish;
foreach my $kind (sort keys %fault_of)
{
	$server{$kind}{h}->pump_nb;
	is(${ $server{$kind}{out} }, '', "... and this one nothing: $kind");
	$server{$kind}{h}->kill_kill(grace => 1);
}
$node->append_conf('postgresql.conf', "oauth_vault.ca_file = '$certs/none.pem'");
$node->reload;
ok(ov_wait_for('the setting', sub { superuser('SHOW oauth_vault.ca_file') eq "$certs/none.pem" }), 'a CA file that is not there');
superuser(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
my $r8;
ok(ov_wait_for('the worker', sub { $r8 = attempt("SELECT oauth_vault.oauth_discover('$base/d1')"); ($r8->{hint} // '') =~ /ca_file/ }), 'is missed by a worker that starts') or diag(encode_json($r8));
told('N08 no CA file', $r8, 'OV020', qr/none\.pem/);
$node->append_conf('postgresql.conf', "oauth_vault.ca_file = '$ca_dir/ca.pem'");
$node->reload;
ok(ov_wait_for('the CA file', sub { attempt("SELECT oauth_vault.oauth_discover('$base/d1')")->{state} eq 'OV034' }), 'and is back');
ok(!-e "$environment/keys" || -s "$environment/keys" == 0, 'N09, N10 the environment\'s proxy and CA are not used, and no session key is written');

# ---- headers and lines (2.7), URLs, scopes, assertions ----

sub create { my (%o) = @_; return "SELECT oauth_vault.oauth_create_connector(" . join(', ', map { "$_ => $o{$_}" } sort keys %o) . ')'; }
my %whole = (name => "'h'", provider => "'oidc'", client_id => "'client'", client_secret => "'secret-1'", redirect_uri => "'https://app.example/callback'", issuer => literal("$base/op"), scopes => "ARRAY['files']");
sub rules { my ($patch) = @_; return "SELECT oauth_vault.oauth_set_provider('evil', " . literal(encode_json({ schema => 1, display_name => 'x', authorization => { url => "$base/auth" }, token => { url => "$base/token" }, %$patch })) . ')'; }
my $crlf = "E'x\\r\\nX-Evil: y'";
foreach my $case (
	(map { [ "2.7 CR LF in $_->[0]", create(%whole, $_->[0] => $_->[1]), '22023', qr/$_->[2]/ ] } [ client_id => $crlf, 'client_id' ], [ name => $crlf, 'name' ], [ redirect_uri => "E'https://app.example/\\r\\nX: y'", 'redirect_uri' ], [ scopes => "ARRAY[E'a\\r\\nb']", 'scope' ],
		[ max_scopes => "ARRAY[E'a\\nb']", 'scope' ]),
	(map { [ "2.7 the scope $_", create(%whole, scopes => 'ARRAY[' . literal($_) . ']'), '22023', qr/scope/ ] } 'a b', 'a"b', 'a\\b', "a\x7f", "\xc3\xa9"),
	(map { [ "2.7 rules with " . ($_->[0]), rules($_->[1]), '22023', qr/evil|rules|header|provider/ ] } [ 'CR LF in a header', { token => { url => "$base/token", headers => { 'X-A' => "a\r\nX-Evil: y" } } } ],
		[ 'CR LF in a header\'s name', { token => { url => "$base/token", headers => { "X-A\r\nX" => 'y' } } } ],
		(map { [ "the header $_", { token => { url => "$base/token", headers => { $_ => 'y' } } } ] } qw(Host Content-Length Transfer-Encoding Connection Proxy-Authorization Cookie DPoP)),
		[ 'response_type token (49)', { authorization => { url => "$base/auth", params => { response_type => 'token' } } } ], [ 'grant_type password (50)', { token => { url => "$base/token", params => { grant_type => 'password' } } } ],
		[ 'a parameter twice (9)', { authorization => { url => "$base/auth", params => { state => 'x' } } } ], [ 'an endpoint with a fragment', { token => { url => "$base/token#f" } } ],),
	(map { [ "51 the redirect URI $_", create(%whole, redirect_uri => literal($_)), '22023', qr/redirect_uri/ ] } '/cb', 'https://x.example/#a', 'http://x.example/cb', 'javascript:alert(1)', 'https://u:p@x.example/cb', ''),
	[ '53 a redirect URI that is not the connector\'s', "SELECT oauth_vault.oauth_begin('op', account => 'x', redirect_uri => 'https://evil.example/', assertion => '$jwt')", '22023', qr/redirect_uri/ ],
	[ '63 a scope beyond the ceiling', "SELECT oauth_vault.oauth_begin('op', account => 'x', scopes => ARRAY['a\"b'], assertion => '$jwt')", '22023', qr/scope/ ],
	[ 'params that are no object', "SELECT oauth_vault.oauth_begin('op', account => 'x', params => '[]', assertion => '$jwt')", '22023', qr/params/ ],
	(map { [ "an assertion: $_->[0]", "SELECT oauth_vault.oauth_fresh_token('op', assertion => " . literal($_->[1]) . ')', 'OV002' ] } [ 'no JWS', 'x' ], [ 'three parts of nothing', '..' ], [ 'none', encode_base64url('{"alg":"none"}') . '.' . encode_base64url('{"sub":"ada"}') . '.' ],
		[ 'one byte changed', $jwt =~ s/(.)$/$1 eq 'A' ? 'B' : 'A'/er ], [ '9 kB', 'a.' . 'b' x 9000 . '.c' ]),
	[ 'an assertion: empty', "SELECT oauth_vault.oauth_fresh_token('op', assertion => '')", '22023', qr/assertion/ ],
  )
{
	my ($name, $sql, $state, $why) = @$case;
	forget();
	script('/.well-known/oauth-authorization-server/op', { body => \%metadata, repeat => -1 });
	told($name, attempt($sql), $state, $why);
	untouched($name, $before);
}
# 1: an endpoint of the rules' own in http
is(attempt(rules({ token => { url => 'http://as.example/token' } }))->{state}, '00000', 'rules with an endpoint in http');
told('1 a connector of such rules', attempt(create(%whole, provider => "'evil'", issuer => 'NULL')), 'OV022', qr/http/);
attempt("SELECT oauth_vault.oauth_drop_provider('evil')");
untouched('such rules', $before);
# 67: what is the caller's own text in the URL stays text
my $url = attempt("SELECT authorization_url FROM oauth_vault.oauth_begin('op', account => 'x', login_hint => E'a\\r\\nX: y&scope=admin#', assertion => '$jwt')")->{value};
like($url, qr/login_hint=a%0D%0AX%3A(\+|%20)y%26scope%3Dadmin%23/, '67 a login_hint with a line is encoded');

# ---- the log, and the count ----

my $log = slurp_file($node->logfile);
unlike($log, qr/\e|\x07|\xe2\x80\xae/, 'no control sequence of theirs is in the log');
unlike($log =~ s/^.*STATEMENT:.*$//gmr, qr/^2026 LOG/m, 'and no line of theirs');
note("$inputs inputs: " . join(', ', map { "$_ $class{$_}" } sort keys %class));
cmp_ok($inputs, '>', 400, 'inputs tried');
$node->stop('fast');
done_testing();
