# The short way of oauth_fresh_token (src/vault/hot.c): what sessions remember
# is forgotten when it changes, and it answers what the long way answers.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 3600);
my $node = ov_cluster('hot', hosts => ["localhost:$idp->{port}"]);
sub superuser { return $node->safe_psql('postgres', $_[0]) }
superuser(qq{SELECT oauth_vault.oauth_create_connector('$_', 'oidc', 'demo', 'demo: secret/with+signs',
	'https://app.example/callback', scopes => ARRAY['openid', 'offline_access', 'email'],
	issuer => '$idp->{issuer}')}) foreach qw(demo other);
my %id = map { $_ => ov_connect($node, $_, 'demo') } qw(ada bob cyd dan eve);

# A session of one person's, for as long as the test likes
sub session
{
	my ($user) = @_;
	my $s = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ]);
	$s->query_safe("SELECT oauth_vault.oauth_identify('" . ov_assertion($node, $user) . "', session => true)");
	return $s;
}
# 'ok', or the SQLSTATE
sub answer
{
	my ($s, $sql) = @_;
	$s->{stderr} = '';
	my $out = $s->query($sql // q{SELECT oauth_vault.oauth_fresh_token('demo') IS NOT NULL});
	my ($state) = $s->{stderr} =~ /ERROR:\s+(\w{5}):/;
	$s->{stderr} = '';
	return $state // ($out =~ /t\s*\z/ ? 'ok' : "nothing: $out");
}
# The tables that a call has touched, as its locks tell
my $touched = q{SELECT string_agg(DISTINCT relation::regclass::text, ' ' ORDER BY relation::regclass::text)
	FROM pg_locks WHERE pid = pg_backend_pid() AND relation::regclass::text LIKE 'oauth_vault.%'};
sub tables
{
	my ($s, $call, $begin) = @_;
	$s->query_safe($begin // 'BEGIN');
	answer($s, $call);
	my $tables = $s->query_safe($touched);
	$s->query('COMMIT');
	return $tables;
}

my $short = 'oauth_vault.connection oauth_vault.connection_live';
my $ada = session('ada');
like(tables($ada), qr/oauth_vault\.connector\b/, 'the first call of a session goes the long way');
is(tables($ada), $short, 'the second the short one');
is(tables($ada, q{SELECT oauth_vault.oauth_fresh_token('demo', scopes => ARRAY['openid'], min_ttl => '1 min', purpose => 'a test') IS NOT NULL}),
	$short, 'with all parameters too');
is(tables($ada, q{SELECT oauth_vault.oauth_fresh_token('demo', account => '') IS NOT NULL}), $short, 'and the account by name');

# The same row in the audit trail, the same token
my $rows = q{SELECT DISTINCT event, outcome, tenant, user_id, actor, purpose, connector, connection_id, account, scopes, database_role,
	session_user_name, client_address, application_name, assertion_jti, token_fingerprint, reason, detail FROM oauth_vault.audit
	WHERE user_id = 'ada' AND event = 'token_access' AND purpose = 'twice'};
my $token = q{SELECT md5(oauth_vault.oauth_fresh_token('demo', purpose => 'twice'))};
$ada->query_safe('DISCARD ALL');
$ada->query_safe("SELECT oauth_vault.oauth_identify('" . ov_assertion($node, 'ada') . "', session => true)");
superuser(q{UPDATE oauth_vault.connector SET name = name});
is(scalar(my @ways = map { $ada->query_safe($token) } 1, 2), 2, 'both ways');
is($ways[0], $ways[1], 'give the same token');
is(scalar(split /\n/, superuser($rows)), 1, 'and leave the same audit row');
is(superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE purpose = 'twice'}), 2, 'each its own');

# ---- what changes elsewhere ----

sub forgets
{
	my ($what, $sql, $state) = @_;
	my $s = session('bob');
	is(answer($s), 'ok', 'served') foreach 1, 2;
	superuser($sql);
	is(answer($s), $state, "$what: $state at the next call");
	$s->quit;
	return;
}
superuser(q{CREATE TABLE kept AS SELECT * FROM oauth_vault.vault_key});
my $key_of_bob = q{(SELECT key_id FROM oauth_vault.connection WHERE user_id = 'bob')};
forgets('a destroyed key', qq{UPDATE oauth_vault.vault_key SET wrapped = '', destroyed_at = now() WHERE key_id = $key_of_bob}, 'OV041');
superuser(qq{UPDATE oauth_vault.vault_key v SET wrapped = k.wrapped, destroyed_at = NULL FROM kept k WHERE k.key_id = v.key_id AND v.key_id = $key_of_bob});
forgets('a key that is gone', qq{DELETE FROM oauth_vault.vault_key WHERE key_id = $key_of_bob}, 'OV041');
superuser(qq{INSERT INTO oauth_vault.vault_key SELECT * FROM kept WHERE key_id = $key_of_bob});
forgets('a connector with another name', q{UPDATE oauth_vault.connector SET name = 'renamed' WHERE name = 'demo'}, 'OV012');
superuser(q{UPDATE oauth_vault.connector SET name = 'demo' WHERE name = 'renamed'});
forgets('another connector under the name', q{BEGIN; UPDATE oauth_vault.connector SET name = 'tmp' WHERE name = 'demo';
	UPDATE oauth_vault.connector SET name = 'demo' WHERE name = 'other'; UPDATE oauth_vault.connector SET name = 'other' WHERE name = 'tmp'; COMMIT}, 'OV012');
superuser(q{BEGIN; UPDATE oauth_vault.connector SET name = 'tmp' WHERE name = 'demo';
	UPDATE oauth_vault.connector SET name = 'demo' WHERE name = 'other'; UPDATE oauth_vault.connector SET name = 'other' WHERE name = 'tmp'; COMMIT});
superuser(q{CREATE TABLE home_kept AS SELECT * FROM oauth_vault.home});
forgets('a vault without its home row', q{DELETE FROM oauth_vault.home}, 'OV060');
superuser(q{INSERT INTO oauth_vault.home SELECT * FROM home_kept});
forgets('with triggers off', qq{SET session_replication_role = replica;
	UPDATE oauth_vault.vault_key SET wrapped = '', destroyed_at = now() WHERE key_id = $key_of_bob}, 'OV041');
superuser(qq{UPDATE oauth_vault.vault_key v SET wrapped = k.wrapped, destroyed_at = NULL FROM kept k WHERE k.key_id = v.key_id AND v.key_id = $key_of_bob});
forgets('a record moved from another row', q{UPDATE oauth_vault.connection SET access_token =
	(SELECT access_token FROM oauth_vault.connection WHERE user_id = 'cyd') WHERE user_id = 'bob'}, 'OV041');

# A table under another oid, as after dropping the extension and creating it again, is found
is(answer($ada), 'ok', 'a session that remembers');
superuser(q{REINDEX TABLE oauth_vault.connection; VACUUM FULL oauth_vault.connection; ALTER TABLE oauth_vault.connection ADD COLUMN site text});
is(answer($ada), 'ok', 'finds a rebuilt table, with one more column') foreach 1, 2;
is(tables($ada), $short, 'by the short way again');

# ---- decisions ----

my $cyd = session('cyd');
answer($cyd) foreach 1, 2;
my $older = 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class';
is(tables($cyd, undef, $older), $short, 'short in an older snapshot');
$cyd->query_safe($older);
ov_sql($node, 'cyd', q{SELECT * FROM oauth_vault.oauth_revoke('demo');});
is(answer($cyd), 'OV010', 'revoked elsewhere: nothing even in an older snapshot');
$cyd->query('ROLLBACK');

my $dan = session('dan');
answer($dan) foreach 1, 2;
is(answer($dan, q{SELECT (SELECT local_state FROM oauth_vault.oauth_revoke('demo')) = 'x', oauth_vault.oauth_fresh_token('demo') IS NOT NULL}),
	'OV010', 'revoked in the same statement: nothing');
is(answer($dan), 'ok', 'the statement failed, and with it the revocation');
$dan->query_safe('BEGIN');
$dan->query_safe(q{SELECT local_state FROM oauth_vault.oauth_revoke('demo')});
is(answer($dan), 'OV010', 'revoked in this transaction: nothing');
$dan->query('ROLLBACK');
is(answer($dan), 'ok', 'rolled back: served');

# ---- who ----

my $eve = session('eve');
answer($eve) foreach 1, 2;
is(answer($eve, 'DISCARD ALL; SELECT oauth_vault.oauth_fresh_token(\'demo\') IS NOT NULL'), 'OV001', 'after DISCARD ALL nobody');
my ($of_eve, $of_ada) = map { ov_assertion($node, $_) } qw(eve ada);
my $as = sub { return qq{SELECT md5(oauth_vault.oauth_fresh_token('demo', assertion => '$_[0]'))} };
my @eves = map { $eve->query_safe($as->($of_eve)) } 1, 2;
my @adas = map { $eve->query_safe($as->($of_ada)) } 1, 2;
is($eves[0], $eves[1], 'one person');
is($adas[0], $adas[1], 'another in the same session');
isnt($eves[0], $adas[0], 'each with the own token');
is($adas[0], $ada->query_safe(q{SELECT md5(oauth_vault.oauth_fresh_token('demo'))}), 'and no other');
my $url = ov_sql($node, 'eve', q{SELECT authorization_url FROM oauth_vault.oauth_begin('demo', account => 'second');});
my $callback = ov_consent($url, 'eve') =~ s/'/''/gr;
ov_sql($node, 'eve', "SELECT connection_id FROM oauth_vault.oauth_callback('$callback');");
is(answer($eve, qq{SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$of_eve') IS NOT NULL}), 'OV013', 'a second account has to be named');
is(answer($eve, qq{SELECT oauth_vault.oauth_fresh_token('demo', account => 'second', assertion => '$of_eve') IS NOT NULL}), 'ok', 'and is served');
is(answer($eve, qq{SELECT oauth_vault.oauth_fresh_token('demo', account => '', scopes => ARRAY['calendar'], assertion => '$of_eve') IS NOT NULL}), 'OV011',
	'a scope that was not granted');
is(answer($eve, qq{SELECT oauth_vault.oauth_fresh_token(NULL, assertion => '$of_eve') IS NOT NULL}), '22004', 'no connector');

$_->quit foreach $ada, $cyd, $dan, $eve;
done_testing();
