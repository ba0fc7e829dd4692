# The life of keys: platform keys added, activated and retired under a running
# server; keys wrapped anew and replaced beside refreshes and readers; what a
# crash interrupts goes on, and what is needed is not dropped.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('keys', hosts => ["localhost:$idp->{port}"], conf => "restart_after_crash = on\n");
my $vault = $node->{ov_vault};
my $create = sub {
	return qq{SELECT oauth_vault.oauth_create_connector('$_[0]', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy');};
};
sub one { return $node->safe_psql('postgres', $_[0]); }
sub keyring
{
	my ($command, @more) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ 'oauth-vault-keyring', $command, '--file', $vault, @more ], '>', \$out, '2>', \$err);
	ok($ok, join ' ', 'keyring', $command, @more) or diag($err);
	return $out;
}
# Reload and wait for what the server says to it.
sub reload
{
	my ($pattern, $name) = @_;
	my $offset = -s $node->logfile;
	$node->reload;
	ok(ov_wait_for($name, sub { substr(slurp_file($node->logfile), $offset) =~ $pattern }), $name);
	return substr(slurp_file($node->logfile), $offset);
}
# A version is gone once the network worker has seen that nothing needs it.
sub retired
{
	ok(ov_wait_for($_[0], sub {
		$node->reload;
		return one('SELECT count(*) FROM oauth_vault.oauth_platform_keys WHERE platform_version = 1') eq '0';
	}), $_[0]);
}
sub setting { $node->safe_psql('postgres', "ALTER SYSTEM SET $_[0]"); $node->reload; }
sub token
{
	my ($user) = @_;
	return ov_sql_fails($node, $user, "SELECT oauth_vault.oauth_fresh_token('demo');");
}
sub token_works
{
	my ($user, $name) = @_;
	my ($state, $token) = token($user);
	is($state, '00000', $name) or diag($token);
	return $token;
}
sub expire { one("UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute' WHERE user_id = '$_[0]'"); }
sub rotation { return one("SELECT $_[0] FROM oauth_vault.oauth_key_rotation ORDER BY rotation_id DESC LIMIT 1"); }
sub wait_done
{
	my ($name) = @_;
	ok(ov_wait_for($name, sub { (eval { rotation('state') } // '') =~ /done|failed/ }, 60), $name)
	  or diag(rotation("row_to_json(oauth_key_rotation)"));
	return rotation('state');
}
sub versions { return one("SELECT platform_versions::text || platform_versions_missing::text FROM oauth_vault.oauth_status"); }

# 60 connectors' keys and three persons'
one($create->('demo') . join '', map { $create->("extra$_") } 1 .. 59);
ov_connect($node, $_, 'demo') foreach qw(ada bob eve);
is(versions(), '{1}{}', 'all keys are wrapped with the first platform key');
ov_wait_for('the key of the audit trail', sub { one('SELECT count(*) FROM oauth_vault.audit_head') > 0 });
is(one('SELECT user_keys + connector_keys + audit_keys FROM oauth_vault.oauth_platform_keys WHERE loaded AND active'), 64, 'and counted');

# ---- a platform key that is needed is not dropped ----

keyring('add');
keyring('activate', '--version', 2);
reload(qr/keyring loaded: active version 2, fingerprint [0-9a-f]{16}/, 'the new platform key is taken over');
my ($first) = one('SELECT fingerprint FROM oauth_vault.oauth_platform_keys WHERE platform_version = 1');
keyring('retire', '--version', 1);
my $log = reload(qr/did not take over the vault file.*/, 'a vault file that lacks a key in use is not');
like($log, qr/still needs platform key version 1, fingerprint \Q$first\E.*HINT.*oauth_rotate_keys/s, 'and the log names it and what to do');
token_works('ada', 'everything goes on');
like(one('SELECT string_agg(loaded::text, \',\') FROM oauth_vault.oauth_platform_keys'), qr/^true,true$/, 'with both keys in the ring');
keyring('retire', '--version', 1, '--undo');
reload(qr/keyring loaded: active version 2/, 'put back, the file is taken over');

# ---- rewrap, interrupted ----

my $before = one('SELECT md5(string_agg(access_token::text || refresh_token, \'\' ORDER BY connection_id)) FROM oauth_vault.connection');
my $backup = one("SELECT encode(wrapped, 'hex') FROM oauth_vault.vault_key WHERE user_id = 'bob'");
setting('oauth_vault.rotation_rate = 10');
is(one(q{SELECT state || keys_total FROM oauth_vault.oauth_rotate_keys()}), 'running64', 'rewrap begins');
my ($rc, $out, $err) = $node->psql('postgres', "SELECT state FROM oauth_vault.oauth_rotate_keys('rewrap')");
like("$out $err", qr/^running.*NOTICE.*under way already/s, 'asked for again it is the same one');
($rc, $out, $err) = $node->psql('postgres', "SELECT * FROM oauth_vault.oauth_rotate_keys('rekey')", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/55006.*HINT/s, 'the other kind has to wait');
ok(ov_wait_for('some keys', sub { rotation('keys_done') >= 5 }), 'keys are wrapped one after the other');
my $pid = one("SELECT pid FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'");
kill 'KILL', $pid;
ok(ov_wait_for('the restart', sub {
	my $now = eval { one("SELECT pid FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'") } // '';
	return $now ne '' && $now ne $pid;
}), 'the server restarts after a kill -9');
cmp_ok(one('SELECT count(*) FROM oauth_vault.vault_key WHERE platform_version = 1'), '>', 20, 'in the middle of the rotation');
setting('oauth_vault.rotation_rate = 1000');
is(wait_done('rewrap ends'), 'done', 'resumed, it ends by itself');
is(rotation('keys_done'), 64, 'each key was counted once');
is(versions(), '{2}{}', 'and nothing needs the first platform key any more');
is(one('SELECT md5(string_agg(access_token::text || refresh_token, \'\' ORDER BY connection_id)) FROM oauth_vault.connection'), $before,
	'no record was touched');
token_works($_, "$_ has a token") foreach qw(ada bob eve);
ok(ov_wait_for('the audit row', sub {
	one("SELECT outcome || (detail ->> 'keys') FROM oauth_vault.oauth_audit WHERE event = 'keys_rotated'") eq 'ok64' }), 'the audit trail tells it');
keyring('retire', '--version', 1);
retired('now the first platform key can be retired');

# What a backup has of bob's key
my $bob = one("SELECT encode(wrapped, 'hex') FROM oauth_vault.vault_key WHERE user_id = 'bob'");
my $put = "UPDATE oauth_vault.vault_key SET wrapped = decode('%s', 'hex'), platform_version = %d, platform_fingerprint = '' WHERE user_id = 'bob'";
one(sprintf $put, $backup, 1);
is((token('bob'))[0], 'OV040', 'a row of an old backup does not open without the retired key');
keyring('retire', '--version', 1, '--undo');
reload(qr/keyring loaded: active version 2/, 'with the retired key back');
token_works('bob', 'it opens');
one(sprintf $put, $bob, 2);
keyring('retire', '--version', 1);
retired('and can be retired again');

# ---- rekey, beside a flow, a queued revocation, a held row, readers and refreshes ----

my $url = ov_sql($node, 'zoe', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo');");
one(q{INSERT INTO oauth_vault.revocation (connection_id, tenant, user_id, connector_id, key_id, token_generation, hosts_digest,
	metadata, access_token, refresh_token, next_attempt_at)
	SELECT gen_random_uuid(), tenant, user_id, connector_id, key_id, token_generation, hosts_digest, metadata, access_token,
		refresh_token, now() + interval '10 minutes' FROM oauth_vault.connection WHERE user_id = 'eve'});
# the row says of which connection it was: make that true for the record's binding
one(q{UPDATE oauth_vault.revocation r SET connection_id = c.connection_id FROM oauth_vault.connection c WHERE c.user_id = 'eve'});
my $old = one("SELECT key_id || ' ' || encode(access_token, 'hex') || ' ' || token_generation FROM oauth_vault.connection WHERE user_id = 'bob'");
my $held = '';
my $holder = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$held, '>', \my $held_out, '2>', \my $held_err,
	IPC::Run::timeout(60));
$held = "BEGIN; SELECT 'locked' FROM oauth_vault.connection WHERE user_id = 'eve' FOR UPDATE;\n";
$holder->pump until $held_out =~ /locked/;
my $script = PostgreSQL::Test::Utils::tempdir() . '/read.sql';
append_to_file($script, join '', map { "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '" . ov_assertion($node, $_) . "');\n" } qw(ada bob eve));
my ($bench_out, $bench_err) = ('', '');
my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '3', '-T', '5', '-f', $script, '-d', $node->connstr('postgres') ],
	'<', \undef, '>', \$bench_out, '2>', \$bench_err, IPC::Run::timeout(60));
# one refresh under way when it begins
ov_control($idp, 'POST', '/behavior', { delayMs => 1500 });
expire('bob');
my $jwt = ov_assertion($node, 'bob');
my ($late, $late_err) = ('', '');
my $refresh = IPC::Run::start([ 'psql', '-XAtq', '-U', 'app', '-d', $node->connstr('postgres'),
		'-c', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')" ],
	'<', \undef, '>', \$late, '2>', \$late_err, IPC::Run::timeout(60));
ok(ov_wait_for('a claim', sub { one('SELECT count(*) FROM oauth_vault.intent') > 0 }), 'a refresh is under way');
one("SELECT oauth_vault.oauth_rotate_keys('rekey')");
ok(ov_wait_for('what is held', sub { rotation('waiting') > 0 }), 'rekey passes over what is held or under way');
ok($refresh->finish, 'the refresh ends as it should') or diag($late_err);
chomp $late;
ov_control($idp, 'POST', '/behavior', { delayMs => 0 });
is(token_works('bob', 'bob has a token'), $late, 'the one that the refresh brought');
my $refused = '';
for (1 .. 8)
{
	expire('ada');
	my ($state, $text) = token('ada');
	$refused .= "$state $text\n" if $state ne '00000';
}
is($refused, '', 'refreshes succeed meanwhile');
ok(ov_wait_for('all but one', sub { rotation('waiting') == 1 }), 'all is done but the row that is held');
is(rotation('state'), 'running', 'which it comes back to');
$held = "COMMIT;\n\\q\n";
$holder->finish;
is(wait_done('rekey ends'), 'done', 'and does when it is free');
ok($bench->finish, 'readers never noticed') or diag($bench_err);
is(one('SELECT count(*) FROM oauth_vault.connection c JOIN oauth_vault.vault_key k USING (key_id) WHERE k.destroyed_at IS NOT NULL'), 0,
	'every connection is under a new key');
is(one("SELECT count(*) || ' ' || bool_and(destroyed_at IS NOT NULL AND wrapped = '') FROM oauth_vault.vault_key
	WHERE kind <> 'audit' AND key_id < (SELECT max(below_key_id) FROM oauth_vault.key_rotation)"), '63 true', 'the old keys are destroyed');
is(one("SELECT max(version) || ' ' || count(*) FROM oauth_vault.vault_key WHERE destroyed_at IS NULL AND kind = 'connector'"), '2 60',
	'connectors have second keys');
foreach my $user (qw(ada bob eve))
{
	token_works($user, "$user has a token");
	expire($user);
	token_works($user, "and another one: the refresh token opens, and the client secret");
}
my $callback = ov_consent($url, 'zoe');
like(ov_sql($node, 'zoe', "SELECT status FROM oauth_vault.oauth_callback('$callback');"), qr/active/, 'a consent begun before ends well');
one(q{UPDATE oauth_vault.revocation SET next_attempt_at = now()});
# a new worker looks at the outbox at once
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'");
ok(ov_wait_for('the revocation', sub { one('SELECT state FROM oauth_vault.revocation') eq 'confirmed' }), 'a revocation queued before opens and is sent');

my ($old_key, $old_record, $old_generation) = split / /, $old;
my $now = one("SELECT key_id || ' ' || encode(access_token, 'hex') || ' ' || token_generation FROM oauth_vault.connection WHERE user_id = 'bob'");
my $restore = "UPDATE oauth_vault.connection SET key_id = %d, access_token = decode('%s', 'hex'), token_generation = %d,
	expires_at = now() + interval '5 minutes' WHERE user_id = 'bob'";
one(sprintf $restore, $old_key, $old_record, $old_generation);
my ($state, $text) = token('bob');
is($state, 'OV041', 'a record from before the rekey does not open');
like($text, qr/destroyed.*HINT/s, 'because its key is destroyed');
one("UPDATE oauth_vault.vault_key SET wrapped = decode('$backup', 'hex'), platform_version = 1, destroyed_at = NULL WHERE key_id = $old_key");
is((token('bob'))[0], 'OV040', 'nor with its key from a backup, without the retired platform key');
one("UPDATE oauth_vault.vault_key SET wrapped = '', destroyed_at = now() WHERE key_id = $old_key");
one(sprintf $restore, split / /, $now);
token_works('bob', 'with its own row back there is a token');

# ---- a key that does not open, a key that is missing at a start ----

one(q{UPDATE oauth_vault.vault_key SET wrapped = overlay(wrapped placing '\x00' from 100) WHERE kind = 'user' AND user_id = 'zoe'});
keyring('add');
keyring('activate', '--version', 3);
reload(qr/keyring loaded: active version 3/, 'a third platform key');
one("SELECT oauth_vault.oauth_rotate_keys('rewrap')");
is(wait_done('rewrap ends'), 'failed', 'a key that does not open fails the rotation');
like(rotation("failed || ' ' || last_error"), qr/^1 key \d+:/, 'by name');
is(one('SELECT count(*) FROM oauth_vault.vault_key WHERE destroyed_at IS NULL AND platform_version = 2'), 1, 'and holds up no other');
one(q{DELETE FROM oauth_vault.connection WHERE user_id = 'zoe'; DELETE FROM oauth_vault.vault_key WHERE user_id = 'zoe'});

keyring('add');
keyring('activate', '--version', 4);
keyring('retire', '--version', 3);
my ($third) = one('SELECT fingerprint FROM oauth_vault.oauth_platform_keys WHERE platform_version = 3');
my $offset = -s $node->logfile;
$node->restart;
ok(ov_wait_for('the log', sub { substr(slurp_file($node->logfile), $offset) =~
	/cannot open keys of database "postgres": they need platform key version 3, fingerprint \Q$third\E.*HINT/s }),
	'a key that is missing at a start is named in the log, with its fingerprint');
is((token('ada'))[0], 'OV040', 'functions answer OV040');
is(versions(), '{3}{3}', 'the status shows it');
keyring('retire', '--version', 3, '--undo');
reload(qr/keyring loaded: active version 4/, 'put back');
token_works('ada', 'everything works again: nothing was marked broken');

# ---- a key from a command ----

my $program = PostgreSQL::Test::Utils::tempdir() . '/print-key';
append_to_file($program, "#!/bin/sh\necho n8n_JwH8Wfrq-eLGTAOJZWe2JrnWGWcVZOu8amhsjt4\n");
chmod 0700, $program;
keyring('add', '--key-command', $program);
keyring('activate', '--version', 5);
reload(qr/keyring loaded: active version 5/, 'a platform key from a command');
one("SELECT oauth_vault.oauth_rotate_keys('rewrap')");
is(wait_done('rewrap ends'), 'done', 'wraps all keys');
is(versions(), '{5}{}', 'and nothing else does');
append_to_file($program, "exit 1\n");
reload(qr/could not load the vault file.*exit status 1.*stays in force/s, 'a command that fails is told');
token_works('bob', 'and the keyring stays');
unlike(slurp_file($node->logfile), qr/n8n_JwH8Wfrq/, 'the key is in no log');
$node->stop('fast');
done_testing();
