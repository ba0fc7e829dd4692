# Grants made elsewhere: a table of real tokens, handed over as operating.md says.
use strict;
use warnings;
use Digest::SHA qw(sha256);
use HTTP::Tiny;
use JSON::PP;
use MIME::Base64 qw(encode_base64 encode_base64url);
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 3600);
my $node = ov_cluster('import', hosts => ["localhost:$idp->{port}"]);
sub superuser { return $node->safe_psql('postgres', $_[0]) }
superuser(q{CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin;
	CREATE TABLE app_token (id bigint PRIMARY KEY, user_id text, access_token text, refresh_token text, expires_at timestamptz, scope text);
	GRANT SELECT ON app_token TO dba; GRANT CREATE ON SCHEMA public TO dba});
superuser(qq{SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
	'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
sub dba
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'dba', '-v', 'VERBOSITY=verbose' ], on_error_stop => 1);
	return $rc ? ($err =~ /ERROR:\s+(\w{5}):/)[0] : $out;
}

# What a backend did before: the code flow by itself, the tokens into its table
sub issued
{
	my ($user) = @_;
	my $verifier = 'v' x 64;
	my $scope = 'openid offline_access';
	my $url = "$idp->{issuer}/auth?" . HTTP::Tiny->new->www_form_urlencode({ client_id => 'demo', response_type => 'code',
		redirect_uri => 'https://app.example/callback', scope => $scope, state => 's' x 20, prompt => 'consent',
		code_challenge => encode_base64url(sha256($verifier)), code_challenge_method => 'S256' });
	my ($code) = ov_consent($url, $user) =~ /[?&]code=([^&]+)/;
	my $secret = encode_base64(join(':', map { s/([^A-Za-z0-9._~-])/sprintf '%%%02X', ord $1/ger } 'demo', 'demo: secret/with+signs'), '');
	my $r = HTTP::Tiny->new(SSL_options => { SSL_ca_file => "$OauthVault::Test::ca_dir/ca.pem" }, verify_SSL => 1)->post_form("$idp->{issuer}/token",
		{ grant_type => 'authorization_code', code => $code, redirect_uri => 'https://app.example/callback', code_verifier => $verifier },
		{ headers => { authorization => "Basic $secret" } });
	die "token endpoint: $r->{status} $r->{content}" unless $r->{success};
	return decode_json($r->{content});
}
my $id = 0;
my %token;
foreach my $user (qw(ada bob cyd))
{
	my $t = $token{$user} = issued($user);
	superuser(sprintf q{INSERT INTO app_token VALUES (%d, '%s', '%s', '%s', now() + interval '%d s', '%s')},
		++$id, $user, @$t{qw(access_token refresh_token expires_in scope)});
}
superuser(q{UPDATE app_token SET expires_at = now() - interval '1 hour' WHERE user_id = 'bob';
	INSERT INTO app_token SELECT 100 + i, 'many' || i, 'access-' || i, 'refresh-' || i, now() + interval '1 hour', 'openid' FROM generate_series(1, 2500) i;
	INSERT INTO app_token VALUES (9001, 'dan', 'with a' || chr(233), NULL, NULL, NULL), (9002, '', 'token', NULL, NULL, NULL), (9003, 'eve', 'token', NULL, NULL, 'a"b'),
		(9004, repeat('x', 256), 'token', NULL, NULL, NULL)});

# ---- as the document says, by an administrator who is nobody else ----

my ($way) = slurp_file("$ENV{OV_TREE}/doc/operating.md") =~ /^## Coming from a table of tokens.*?^```sql\n(.*?)^```/ms;
is(dba($way), '', 'the way of operating.md');
is(superuser(q{SELECT string_agg(concat_ws(' ', id, sqlstate, message), E'\n' ORDER BY id) FROM not_imported}), <<'END' =~ s/\n$//r, 'what could not be taken says why');
9001 22023 parameter "access_token" has a character that no token has
9002 22023 parameter "user_id" must not be empty
9003 22023 elements of parameter "scopes" must be scope tokens
9004 22023 "tenant", "user_id" or "account" is longer than 255 bytes
END
is(superuser(q{SELECT count(*), count(DISTINCT key_id) FROM oauth_vault.connection}), '2503|2503', 'everybody else is there, each with a key of their own');
is(superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'imported' AND outcome = 'ok' AND database_role = 'dba'}), 2503, 'with an audit row each');
my $before = superuser(q{SELECT md5(string_agg(c::text, '' ORDER BY connection_id)) FROM oauth_vault.connection c});
is(dba($way =~ s/^CREATE TABLE.*?\n//r), '', 'and once more');
is(superuser(q{SELECT md5(string_agg(c::text, '' ORDER BY connection_id)) FROM oauth_vault.connection c}), $before, 'changes nothing');

# ---- they are connections like any other ----

is(ov_sql($node, 'ada', q{SELECT oauth_vault.oauth_fresh_token('demo');}), $token{ada}{access_token}, 'the person has the token');
is((ov_sql_fails($node, 'mallory', q{SELECT oauth_vault.oauth_fresh_token('demo');}))[0], 'OV012', 'nobody else');
my $renewed = ov_sql($node, 'bob', q{SELECT oauth_vault.oauth_fresh_token('demo');});
ok($renewed =~ /\S/ && $renewed ne $token{bob}{access_token}, 'one that had expired is renewed at the provider');
like(ov_sql($node, 'bob', q{SELECT oauth_vault.oauth_report_rejected('demo', oauth_vault.oauth_fresh_token('demo'));}), qr/^refreshed/, 'again with the refresh token that came then');
ov_sql($node, 'cyd', q{SELECT local_state FROM oauth_vault.oauth_revoke('demo');});
ok(ov_wait_for('the revocation', sub { superuser(q{SELECT state FROM oauth_vault.revocation}) eq 'confirmed' }), 'and revoked there');
is(superuser(q{SELECT count(*) FROM oauth_vault.connection WHERE encode(access_token, 'escape') LIKE '%access-1%'}), 0, 'nothing is in plaintext');

# ---- one at a time ----

my $one = q{SELECT oauth_vault.oauth_import_connection('', '%s', '%s', %s, %s) IS NOT NULL};
is(dba(sprintf $one, 'fay', 'demo', 'NULL', q{'one'}), 't', 'one');
is(ov_sql($node, 'fay', q{SELECT oauth_vault.oauth_fresh_token('demo');}), 'one', 'is the person\'s');
is(dba(sprintf $one, 'fay', 'demo', q{'second'}, q{'two'}), 't', 'another account');
is(dba(sprintf $one, 'fay', 'demo', 'NULL', q{'three'}), '42710', 'a live one is not overwritten');
is(ov_sql($node, 'fay', q{SELECT oauth_vault.oauth_fresh_token('demo', account => '');}), 'one', 'nor changed');
is(dba(q{SELECT state FROM oauth_vault.oauth_offboard('gone')}) ne '', 1, 'somebody leaves');
is(dba(sprintf $one, 'gone', 'demo', 'NULL', q{'x'}), 'OV070', 'nothing is imported for somebody who has left');
is(dba(sprintf $one, 'gus', 'nowhere', 'NULL', q{'x'}), '42704', 'no such connector');
is(dba(sprintf $one, 'gus', 'demo', 'NULL', 'NULL'), '22004', 'no token');
is(dba(sprintf $one, 'gus', 'demo', 'NULL', q{''}), '22023', 'an empty one');
is(dba(sprintf $one, 'gus', 'demo', 'NULL', q{repeat('x', 16385)}), '22023', 'one too long');
is(dba('BEGIN; ' . sprintf($one, 'gus', 'demo', 'NULL', q{'x'}) . '; ROLLBACK'), 't', 'rolled back');
is(superuser(q{SELECT count(*) FROM oauth_vault.connection WHERE user_id = 'gus'}) . superuser(q{SELECT count(*) FROM oauth_vault.vault_key WHERE user_id = 'gus'}), '00',
	'nothing is there, no key either');
is(dba(q{SELECT * FROM oauth_vault.oauth_import_connections('demo', '{}')}), '22023', 'many: an array');
is(dba(q{SELECT * FROM oauth_vault.oauth_import_connections('demo', jsonb_build_array(1))}), '1||failed|22023|an element of parameter "rows" is not an object', 'of objects');
is(dba(q{SELECT outcome, sqlstate FROM oauth_vault.oauth_import_connections('demo', '[{"user_id": "hal", "access_token": "t", "expires": "soon"}, {"user_id": "hal", "access_token": 1},
	{"user_id": "hal", "access_token": "t", "expires_at": "soon"}, {"user_id": "hal"}, {"user_id": "hal", "access_token": "t"}, {"user_id": "hal", "access_token": "t"}]')}),
	"failed|22023\nfailed|22023\nfailed|22007\nfailed|22004\nimported|\nexists|", 'each with its own outcome');
is(dba(q{SELECT count(*) FROM oauth_vault.oauth_import_connections('demo', (SELECT jsonb_agg(1) FROM generate_series(1, 1001)))}), '22023', 'a thousand at most');
my ($rc, $out, $err) = $node->psql('postgres', sprintf($one, 'ivy', 'demo', 'NULL', q{'x'}), extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ]);
like($err, qr/42501/, 'only administrators import');

# Two at once make one key
my @sessions = map { $node->background_psql('postgres', extra_params => [ '-U', 'dba' ]) } 1, 2;
$sessions[0]->query_safe('BEGIN');
$sessions[0]->query_safe(sprintf $one, 'kim', 'demo', q{'a'}, q{'x'});
my $second = sprintf $one, 'kim', 'demo', q{'b'}, q{'y'};
$sessions[1]->{stdin} .= "$second;\n\\echo done\n";
$sessions[1]->{run}->pump_nb;
ok(ov_wait_for('the second to wait', sub { superuser(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'dba'}) eq '1' }), 'the second waits for the first');
$sessions[0]->query_safe('COMMIT');
$sessions[1]->{run}->pump until $sessions[1]->{stdout} =~ /done/;
is(superuser(q{SELECT count(*), count(DISTINCT key_id) FROM oauth_vault.connection WHERE user_id = 'kim'}), '2|1', 'two connections, one key');
is(ov_sql($node, 'kim', q{SELECT oauth_vault.oauth_fresh_token('demo', account => 'b');}), 'y', 'that opens both');
$_->quit foreach @sessions;

# What failed has left no token in the log
superuser(q{ALTER SYSTEM SET log_min_error_statement = 'error'; ALTER SYSTEM SET log_statement = 'all'; SELECT pg_reload_conf()});
dba(q{SELECT oauth_vault.oauth_import_connection('', 'lee', 'nowhere', '', 'canary-one')});
dba(q{SELECT count(*) FROM oauth_vault.oauth_import_connections('nowhere', '[{"user_id": "lee", "access_token": "canary-two"}]')});
unlike(slurp_file($node->logfile), qr/canary|access-42\b|refresh-42\b/, 'no token is in the log');
done_testing();
