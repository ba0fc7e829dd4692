# Attacks by roles and attributes, and the red-team list: each with the outcome
# that doc/security.md documents, those that succeed among them.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 3600);
my $node = ov_cluster('redteam', hosts => ["localhost:$idp->{port}"], conf => "wal_level = logical\n");
sub superuser { return $node->safe_psql('postgres', $_[0]); }
# Every statement's outcome in one session of a role: value or SQLSTATE
sub tries
{
	my ($n, $role, @sql) = @_;
	my $script = join '', map { "\\echo <<<\n$_;\n\\echo >>>:SQLSTATE\n" } @sql;
	my (undef, $out) = $n->psql('postgres', $script, on_error_stop => 0, extra_params => [ '-U', $role ]);
	my @results;
	while ($out =~ /<<<\n(.*?)>>>(\w+)/sg) { push @results, $2 eq '00000' ? $1 =~ s/\s+$//r : $2; }
	return @results;
}
superuser(qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
ov_connect($node, $_, 'demo') foreach qw(ada mallory);
my $token = ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
my @secrets = @{ ov_control($idp, 'GET', '/secrets') };
sub leaks { my ($text) = @_; return scalar grep { length $_ && index($text, $_) >= 0 } map { ov_forms($_) } @secrets, $token; }
my $vault = $node->{ov_vault};
my $data = $node->data_dir;
my $jwt = ov_assertion($node, 'ada', '--ttl', '3000');
my $mallory = ov_assertion($node, 'mallory', '--ttl', '3000');

# ---- roles and attributes ----

# rows: of connection, as this role sees them; write: those of a person, and of
# the connectors; call: a token without proof; file: how the vault file can be
# had ("" not at all)
my @matrix = (
	# role, how it is made, rows, write, connectors, call, file
	[ 'oauth_user', 'IN ROLE oauth_vault_user', '42501', '42501', '42501', 'OV001', '' ],
	[ 'oauth_admin', 'IN ROLE oauth_vault_admin', '42501', '42501', '42501', '42501', '' ],
	[ 'oauth_auditor', 'IN ROLE oauth_vault_auditor', '42501', '42501', '42501', '42501', '' ],
	[ 'all_three', 'IN ROLE oauth_vault_user, oauth_vault_admin, oauth_vault_auditor', '42501', '42501', '42501', 'OV001', '' ],
	[ 'reader', 'IN ROLE pg_read_all_data', '42501', '42501', '42501', '42501', '' ],
	[ 'writer', 'IN ROLE pg_write_all_data', '42501', '42501', '42501', '42501', '' ],
	[ 'reading_writer', 'IN ROLE pg_read_all_data, pg_write_all_data', '42501', '42501', '0', '42501', '' ],
	[ 'monitor', 'IN ROLE pg_monitor', '42501', '42501', '42501', '42501', '' ],
	[ 'signaller', 'IN ROLE pg_signal_backend', '42501', '42501', '42501', '42501', '' ],
	[ 'checkpointer', 'IN ROLE pg_checkpoint', '42501', '42501', '42501', '42501', '' ],
	[ 'role_maker', 'CREATEROLE', '42501', '42501', '42501', '42501', '' ],
	[ 'db_maker', 'CREATEDB', '42501', '42501', '42501', '42501', '' ],
	[ 'bypasser', 'BYPASSRLS', '42501', '42501', '42501', '42501', '' ],
	[ 'bypassing_reader', 'BYPASSRLS IN ROLE pg_read_all_data', '2', '42501', '42501', '42501', '' ],
	[ 'bypassing_writer', 'BYPASSRLS IN ROLE pg_read_all_data, pg_write_all_data', '2', '2', '1', '42501', '' ],
	[ 'replicator', 'REPLICATION', '42501', '42501', '42501', '42501', '' ],
	[ 'db_owner', '', '42501', '42501', '42501', '42501', '' ],
	[ 'schema_maker', '', '42501', '42501', '42501', '42501', '' ],
	[ 'file_reader', 'IN ROLE pg_read_server_files', '42501', '42501', '42501', '42501', 'pg_read_file COPY' ],
	[ 'file_writer', 'IN ROLE pg_write_server_files', '42501', '42501', '42501', '42501', 'write' ],
	[ 'program_runner', 'IN ROLE pg_execute_server_program', '42501', '42501', '42501', '42501', 'PROGRAM' ],
	[ 'root_of_all', 'SUPERUSER', '2', '2', '1', 'OV001', 'pg_read_file COPY PROGRAM write' ],
);
superuser(join '', map { "CREATE ROLE $_->[0] LOGIN $_->[1];" } @matrix);
superuser('ALTER DATABASE postgres OWNER TO db_owner; GRANT CREATE ON DATABASE postgres TO schema_maker; GRANT CREATE ON SCHEMA public TO schema_maker;
	GRANT EXECUTE ON FUNCTION pg_read_file(text) TO file_reader');
foreach my $m (@matrix)
{
	my ($role, undef, $rows, $write, $connectors, $call, $file) = @$m;
	my $scratch = "CREATE TEMP TABLE t (l text)";
	my @got = tries($node, $role,
		'SELECT count(*) FROM oauth_vault.connection',
		'BEGIN; WITH u AS (UPDATE oauth_vault.connection SET metadata = metadata RETURNING 1) SELECT count(*) FROM u',
		'ROLLBACK', 'BEGIN; WITH u AS (UPDATE oauth_vault.connector SET metadata = metadata RETURNING 1) SELECT count(*) FROM u',
		'ROLLBACK', "SELECT oauth_vault.oauth_fresh_token('demo')", $scratch,
		"SELECT pg_read_file('$vault') LIKE '%keyring%'", "COPY t FROM '$vault'", "COPY t FROM PROGRAM 'cat $vault'",
		"COPY (SELECT 'x') TO '$data/written_by_$role'",
		'SELECT * FROM oauth_vault.connection', 'SELECT * FROM oauth_vault.vault_key', 'SELECT * FROM oauth_vault.connector',
		'SELECT * FROM oauth_vault.flow', 'SELECT * FROM oauth_vault.audit', 'SELECT * FROM pg_stat_activity', 'SELECT * FROM pg_locks');
	my @ways = ('pg_read_file', 'COPY', 'PROGRAM', 'write');
	my $had = join ' ', map { $got[ 7 + $_ ] =~ /^\w{5}$/ && $got[ 7 + $_ ] ne '00000' ? () : $ways[$_] } 0 .. 3;
	is_deeply([ @got[ 0, 1, 3, 5 ], $had ], [ $rows, $write, $connectors, $call, $file ],
		"$role: " . ($file ? "can reach the vault file ($file)" : $rows eq '2' ? 'sealed rows' : 'nothing'));
	is(leaks(join "\n", @got), 0, '... and no plaintext in anything it can select');
}
is(superuser('SELECT roles_that_can_reach_keys::text FROM oauth_vault.oauth_status'), '{' . join(',', sort 'postgres',
	map { $_->[6] || $_->[4] eq '1' || ($_->[1] =~ /CREATEROLE/ && $node->pg_version < 16) ? $_->[0] : () } @matrix) . '}', 'oauth_status names exactly those');

# What the database's owner and whoever creates schemas and functions cannot do
my $forged = q{CREATE OR REPLACE FUNCTION oauth_vault.oauth_fresh_token(connector text, account text DEFAULT NULL, scopes text[] DEFAULT NULL,
	min_ttl interval DEFAULT NULL, purpose text DEFAULT NULL, assertion text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS
	'BEGIN INSERT INTO public.caught VALUES (assertion); RETURN ''x''; END'};
foreach my $role (qw(db_owner schema_maker role_maker bypassing_writer))
{
	my @got = tries($node, $role, $forged, 'ALTER EXTENSION oauth_vault UPDATE TO \'9.9\'', 'DROP POLICY person ON oauth_vault.connection',
		'ALTER TABLE oauth_vault.connection DISABLE ROW LEVEL SECURITY', 'ALTER FUNCTION oauth_vault.row_visible(text, text) OWNER TO CURRENT_USER',
		'CREATE TABLE oauth_vault.t (i int)', 'CREATE TRIGGER t AFTER INSERT ON oauth_vault.connection EXECUTE FUNCTION suppress_redundant_updates_trigger()',
		'CREATE PUBLICATION p FOR TABLE oauth_vault.connection', 'DELETE FROM oauth_vault.audit', 'TRUNCATE oauth_vault.audit');
	my @want = ('42501') x @got;
	$want[8] = '' if $role eq 'bypassing_writer';		# documented: may write rows, read no secret
	is_deeply(\@got, \@want, "$role changes neither functions nor policies nor the extension");
}
# A member of CREATEROLE may grant itself our roles (before PostgreSQL 16) and still has to prove who it is.
my @got = tries($node, 'role_maker', 'GRANT oauth_vault_user, oauth_vault_admin TO role_maker', "SELECT oauth_vault.oauth_fresh_token('demo')");
is($got[1], $node->pg_version >= 16 ? '42501' : 'OV001', 'CREATEROLE: still no token without an assertion');
# The owner is one of them, and the owner may replace what everybody calls; so are the roles that read
# the server's files, the vault file among them.  Attacks that succeed before 16, as documented.
my $taken = $node->pg_version < 16;
# What succeeds is rolled back; what is refused is tried outside a transaction, so that each statement gets its own answer.
my @takeover = (
	$forged,
	'DROP POLICY person ON oauth_vault.connection',
	'ALTER TABLE oauth_vault.audit NO FORCE ROW LEVEL SECURITY; WITH d AS (DELETE FROM oauth_vault.audit RETURNING 1) SELECT count(*) > 0 FROM d',
	q{ALTER TABLE oauth_vault.provider_builtin NO FORCE ROW LEVEL SECURITY; INSERT INTO oauth_vault.provider_builtin VALUES ('evil', '{}')});
@got = tries($node, 'role_maker', 'GRANT oauth_vault_owner TO role_maker', 'SET ROLE oauth_vault_owner', (map { ($taken ? "BEGIN; $_" : $_, 'ROLLBACK') } @takeover),
	'RESET ROLE', 'ALTER ROLE oauth_vault_owner LOGIN', 'GRANT pg_read_server_files TO role_maker', 'CREATE TEMP TABLE t (l text)', "COPY t FROM '$vault'",
	q{SELECT string_agg(l, '') LIKE '%keyring%' FROM t});
is_deeply([ @got[ 0, 1, 2, 4, 6, 8, 11, 12, 14, 15 ] ], $taken ? [ '', '', '', '', 't', '', '', '', '', 't' ] : [ ('42501') x 9, '' ],
	'CREATEROLE ' . ($taken ? 'SUCCEEDS in becoming the owner of all objects, and in reading the vault file' : 'becomes neither the owner nor a reader of files'))
  or diag(explain(\@got));
is(superuser(q{SELECT rolcanlogin FROM pg_roles WHERE rolname = 'oauth_vault_owner'}), $taken ? 't' : 'f', '... and lets the owner log in, or not');
superuser('ALTER ROLE oauth_vault_owner NOLOGIN; REVOKE oauth_vault_owner, pg_read_server_files FROM role_maker') if $taken;
is(superuser(q{BEGIN; CREATE ROLE owners_friend LOGIN; GRANT oauth_vault_owner TO owners_friend;
	SELECT 'owners_friend' = ANY (roles_that_can_reach_keys) FROM oauth_vault.oauth_status; ROLLBACK}), 't',
	'oauth_status names whoever is a member of the owner');

# Whoever writes all data moves sequences and locks tables: keys are numbered twice, calls wait.  That costs
# availability, and no key or token: the number that is there already is refused.
my $next = 'SELECT last_value, is_called FROM oauth_vault.vault_key_id';
my ($last, $called) = split /\|/, superuser($next);
@got = tries($node, 'writer', q{SELECT setval('oauth_vault.vault_key_id', 1, false)}, q{SELECT setval('oauth_vault.revocation_revocation_id_seq', 1, false)},
	q{SELECT setval('oauth_vault.key_rotation_rotation_id_seq', 1, false)},
	'BEGIN; LOCK TABLE oauth_vault.connection IN ACCESS EXCLUSIVE MODE NOWAIT', 'ROLLBACK');
is_deeply([ @got[ 0 .. 3 ] ], [ ('1') x 3, '' ], 'pg_write_all_data SUCCEEDS in setting sequences back and in locking tables');
my $had = superuser('SELECT string_agg(k::text, chr(10) ORDER BY key_id) FROM oauth_vault.vault_key k');
my $create = sub { return "SELECT oauth_vault.oauth_create_connector('$_[0]', 'google', 'client', 'secret', 'https://app.example/cb') IS NOT NULL" };
is((tries($node, 'postgres', $create->('numbered')))[0], '23505', '... a new key with a number that is taken is refused');
is(superuser('SELECT string_agg(k::text, chr(10) ORDER BY key_id) FROM oauth_vault.vault_key k'), $had, '... and replaces none');
is((tries($node, 'app', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')"))[0], $token, '... what is there can be used');
superuser("SELECT setval('oauth_vault.vault_key_id', $last, '$called')");
is((tries($node, 'postgres', $create->('numbered')))[0], 't', '... and set forward again, new ones are made');
superuser(q{SELECT oauth_vault.oauth_drop_connector('numbered')});
SKIP:
{
	skip 'no pg_maintain before 17', 2 if $node->pg_version < 17;
	superuser('CREATE ROLE maintainer LOGIN IN ROLE pg_maintain');
	@got = tries($node, 'maintainer', 'SELECT count(*) FROM oauth_vault.connection', 'DELETE FROM oauth_vault.audit',
		"SELECT setval('oauth_vault.vault_key_id', 1)", 'REINDEX TABLE oauth_vault.connection', 'GRANT USAGE ON SCHEMA oauth_vault TO maintainer');
	is_deeply(\@got, [ ('42501') x 5 ], 'pg_maintain: not even the schema');
	superuser('GRANT USAGE ON SCHEMA oauth_vault TO maintainer');
	@got = tries($node, 'maintainer', 'SELECT count(*) FROM oauth_vault.connection', 'DELETE FROM oauth_vault.audit',
		"SELECT setval('oauth_vault.vault_key_id', 1)", 'BEGIN; LOCK TABLE oauth_vault.connection IN ACCESS EXCLUSIVE MODE NOWAIT', 'ROLLBACK',
		'REINDEX TABLE oauth_vault.connection');
	is_deeply([ @got[ 0 .. 3, 5 ] ], [ ('42501') x 3, '', '' ], '... and with USAGE on it, SUCCEEDS in locking and rewriting tables, but reads and changes no row');
}

# ---- row security by itself, with assertions ----

my @tables = split /\n/, superuser(q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'oauth_vault'::regnamespace
	AND relkind IN ('r', 'p') AND NOT relispartition AND (oid IN (SELECT attrelid FROM pg_attribute WHERE attname = 'user_id'))});
superuser("GRANT SELECT ON $_ TO app") foreach @tables;
my $count = join ' UNION ALL ', map { my $kind = /vault_key/ ? "AND kind = 'user'" : ''; "SELECT user_id FROM $_ WHERE user_id IS NOT NULL $kind" } @tables;
cmp_ok(scalar(@tables), '>=', 6, 'tables with people in them');
@got = tries($node, 'app', "SELECT count(*) FROM ($count) x", "SELECT oauth_vault.oauth_identify('$jwt', session => true)",
	"SELECT string_agg(DISTINCT user_id, ' '), count(*) > 2 FROM ($count) x",
	"SELECT oauth_vault.oauth_identify('$mallory', session => true)", "SELECT string_agg(DISTINCT user_id, ' ') FROM ($count) x",
	'DISCARD ALL', "SELECT count(*) FROM ($count) x");
is_deeply([ @got[ 0, 2, 4, 6 ] ], [ '0', 'ada|t', 'mallory', '0' ], 'granted every table: nobody sees nothing, a person own rows');
superuser("REVOKE SELECT ON $_ FROM app") foreach @tables;

# ---- the list (doc/security.md, "Attacks tried") ----

# 1. superuser with SQL: sealed records from every relation, page and WAL record ...
my $everything = superuser(q{SELECT string_agg(format('SELECT string_agg(t::text, '' '') FROM %s t', oid::regclass), ' UNION ALL ') FROM pg_class
	WHERE relnamespace = 'oauth_vault'::regnamespace AND relkind IN ('r', 'p')});
is(leaks(superuser($everything)), 0, '1. every relation: nothing but sealed records');
superuser('CREATE EXTENSION pageinspect');
my $pages = superuser(q{SELECT string_agg(encode(get_raw_page(c.oid::regclass::text, b::int), 'escape'), '') FROM pg_class c,
	generate_series(0, greatest(pg_relation_size(c.oid) / 8192 - 1, -1)) b
	WHERE relnamespace = 'oauth_vault'::regnamespace AND relkind IN ('r', 'i')});
is(leaks($pages), 0, '1. pageinspect: nothing but sealed records');
# ... and the vault file, with which all of them open: documented
my $file = superuser("SELECT pg_read_file('$vault')");
my $rows = superuser(q{SELECT json_build_object('vault_id', (SELECT vault_id FROM oauth_vault.home),
	'keys', (SELECT json_agg(json_build_object('key_id', key_id, 'kind', kind, 'tenant', tenant, 'user_id', user_id, 'connector_id', connector_id,
		'wrapped', wrapped)) FROM oauth_vault.vault_key),
	'places', (SELECT json_agg(json_build_object('name', user_id || ' ' || p, 'purpose', p, 'tenant', tenant, 'user_id', user_id,
		'connector_id', connector_id, 'connection_id', connection_id, 'hosts_digest', hosts_digest, 'key_id', key_id,
		'generation', token_generation, 'record', CASE p WHEN 'access_token' THEN access_token ELSE refresh_token END))
		FROM oauth_vault.connection, unnest('{access_token,refresh_token}'::text[]) p))});
my $stolen = PostgreSQL::Test::Utils::tempdir() . '/stolen.json';
append_to_file($stolen, $file);
my ($out, $err) = ('', '');
IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/drivers/pairs.mjs", $stolen ], '<', \$rows, '>', \$out, '2>', \$err) or die $err;
is(scalar(grep { $_->[0] =~ /token/ } @{ decode_json($out)->{opened} }), 4, '1. SUCCEEDS: pg_read_file of the vault file and the rows open all tokens');
my $pid = superuser(q{SELECT pid FROM pg_stat_activity WHERE backend_type ~ 'oauth_vault key'}) || slurp_key_pid();
sub slurp_key_pid
{
	my ($p) = grep { ($_ // '') =~ /key worker/ } map { my $x = $_; my $c = eval { slurp_file("/proc/$x/cmdline") }; defined $c ? "$x $c" : () }
	  split ' ', slurp_file("/proc/$node->{_pid}/task/$node->{_pid}/children");
	return $p =~ /^(\d+)/ ? $1 : 0;
}
@got = tries($node, 'root_of_all', 'CREATE TEMP TABLE m (l text)', "COPY m FROM PROGRAM 'head -c 100 /proc/$pid/maps'", "COPY m FROM PROGRAM 'head -c 100 /proc/$pid/environ'");
is_deeply([ @got[ 1, 2 ] ], [ '38000', '38000' ], "1. the key worker's memory is out of reach of COPY PROGRAM");

# 2. a superuser replaces a function: SUCCEEDS
superuser('CREATE TABLE caught (assertion text); GRANT INSERT ON caught TO PUBLIC');
my $true = superuser(q{SELECT pg_get_functiondef('oauth_vault.oauth_fresh_token'::regproc)});
superuser($forged);
tries($node, 'app', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')");
is(superuser('SELECT count(*) FROM caught'), '1', '2. SUCCEEDS: a superuser who replaces a function catches what passes through it');
superuser($true);
is((tries($node, 'app', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')"))[0], $token, '... the true one back');

# 4. row security switched off by a superuser: the functions check by themselves
superuser("ALTER TABLE $_ DISABLE ROW LEVEL SECURITY") foreach @tables;
@got = tries($node, 'app', "SELECT oauth_vault.oauth_identify('$mallory', session => true)",
	'SELECT count(*), string_agg(DISTINCT provider_subject, \' \') FROM oauth_vault.oauth_connections',
	"SELECT oauth_vault.oauth_fresh_token('demo') = '$token'", "SELECT oauth_vault.oauth_report_rejected('demo', '$token')",
	'SELECT string_agg(DISTINCT user_id, \' \') FROM oauth_vault.oauth_whoami()',
	"SELECT oauth_vault.oauth_fresh_token('demo', account => 'of ada')");
is_deeply([ @got[ 1 .. 5 ] ], [ '1|mallory', 'f', 'unknown_token', 'mallory', 'OV012' ], '4. without row security: own rows still, by the filters and the keys');
superuser("ALTER TABLE $_ ENABLE ROW LEVEL SECURITY") foreach @tables;

# 5. the audit trail
@got = tries($node, 'all_three', 'DELETE FROM oauth_vault.audit', 'UPDATE oauth_vault.audit SET user_id = \'x\'', 'TRUNCATE oauth_vault.audit',
	'DELETE FROM oauth_vault.oauth_audit', 'INSERT INTO oauth_vault.audit (audit_id, at, event, outcome) VALUES (-1, now(), \'x\', \'ok\')');
is_deeply(\@got, [ ('42501') x 5 ], '5. none of our roles changes the trail');

# 7. every setting of ours, and of others who carry identities in settings
my @settings = split /\n/, superuser(q{SELECT name FROM pg_settings WHERE name LIKE 'oauth\_vault.%' ORDER BY name});
@got = tries($node, 'app', "SELECT oauth_vault.oauth_identify('$mallory', session => true)",
	(map { ("SET $_ = 'ada'", "SET $_ = 1", "SET $_ TO DEFAULT") } @settings), 'RESET ALL', "SET app.user_id = 'ada'", "SET request.jwt.claims = '{\"sub\":\"ada\"}'",
	"SET application_name = '$jwt'", 'SET ROLE oauth_vault_owner', 'SET SESSION AUTHORIZATION postgres', 'SET search_path = public',
	'SET row_security = off', 'SET session_replication_role = replica',
	'SELECT user_id FROM oauth_vault.oauth_whoami()', "SELECT oauth_vault.oauth_fresh_token('demo') = '$token'",
	"SET request.headers = '{\"authorization\":\"Bearer x.y.z\"}'", 'SELECT oauth_vault.oauth_identify_request()', 'SELECT user_id FROM oauth_vault.oauth_whoami()');
cmp_ok(scalar(@settings), '>', 5, '7. settings of ours');
is_deeply([ @got[ -5, -4, -2, -1 ] ], [ 'mallory', 'f', 'OV002', 'OV001' ], '7. no setting makes anybody somebody else');

# 8. a storm of signals
@got = tries($node, 'signaller', q{SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type ~ 'oauth_vault'});
like($got[0], qr/^(42501|0)$/, '8. pg_signal_backend does not reach the workers');
superuser(q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type ~ 'oauth_vault'}) foreach 1 .. 3;
ok(ov_wait_for('the workers', sub { (tries($node, 'app', "SELECT oauth_vault.oauth_fresh_token('demo', min_ttl => '2 hours', assertion => '$jwt') IS NOT NULL"))[0] eq 't' }, 40),
	"8. a superuser's storm: they come back, and the grant lives");
@secrets = @{ ov_control($idp, 'GET', '/secrets') };

# 9. logical decoding, by whoever may replicate
superuser(q{SELECT pg_create_logical_replication_slot('spy', 'test_decoding')});
superuser(q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'});
ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo') IS NOT NULL;");
@secrets = @{ ov_control($idp, 'GET', '/secrets') };
@got = tries($node, 'replicator', q{SELECT string_agg(data, ' ') FROM pg_logical_slot_get_changes('spy', NULL, NULL)});
like($got[0], qr/oauth_vault\.connection: UPDATE.*access_token\[bytea\]:'\\x4f5652/s, '9. logical decoding sees the refresh');
is(leaks($got[0]), 0, '9. and sealed records only');
superuser(q{SELECT pg_drop_replication_slot('spy')});

# 10., 12. plans and views of what goes on
@got = tries($node, 'app', "SELECT oauth_vault.oauth_identify('$jwt', session => true)",
	"EXPLAIN (ANALYZE, VERBOSE, BUFFERS) SELECT oauth_vault.oauth_fresh_token('demo')",
	'PREPARE p AS SELECT oauth_vault.oauth_fresh_token($1)', 'BEGIN; DECLARE c CURSOR FOR SELECT oauth_vault.oauth_fresh_token(\'demo\'); FETCH c',
	'SELECT * FROM pg_prepared_statements', 'SELECT * FROM pg_cursors', 'SELECT * FROM pg_locks', 'SELECT * FROM pg_stat_activity',
	'SELECT * FROM pg_listening_channels()', 'COMMIT');
is(leaks(join "\n", @got[ 1, 2, 4 .. 8 ]), 0, '10., 12. no secret in plans, prepared statements, cursors, locks, activity');
unlike(join("\n", @got[ 6, 7 ]), qr/\b(ada|mallory)\b/, '12. and nobody is named');
$node->stop('fast');

# ---- CREATEROLE where a role's name is the identity ----

$node = ov_cluster('names', source => 'role', hosts => ["localhost:$idp->{port}"]);
superuser(qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}');
	CREATE ROLE alice LOGIN IN ROLE oauth_vault_user; CREATE ROLE role_maker LOGIN CREATEROLE});
my ($url) = tries($node, 'alice', q{SELECT authorization_url FROM oauth_vault.oauth_begin('demo')});
my $callback = ov_consent($url, 'alice');
tries($node, 'alice', "SELECT oauth_vault.oauth_callback('$callback')");
my ($hers) = tries($node, 'alice', q{SELECT oauth_vault.oauth_fresh_token('demo')});
@got = tries($node, 'role_maker', 'GRANT alice TO role_maker', 'SET ROLE alice', q{SELECT oauth_vault.oauth_fresh_token('demo')});
is($got[2], $node->pg_version >= 16 ? '42501' : $hers, 'source role: CREATEROLE ' . ($node->pg_version >= 16 ? 'needs ADMIN on a role to be it' : 'SUCCEEDS in being anybody'));
@got = tries($node, 'postgres', 'SET ROLE alice', q{SELECT oauth_vault.oauth_fresh_token('demo')});
is($got[1], $hers, 'source role: a superuser SUCCEEDS in being anybody');
$node->stop('fast');
done_testing();
