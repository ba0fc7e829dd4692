# The short way of oauth_fresh_token (src/vault/hot.c) under attack: tables that
# are rebuilt, replaced or moved under it, identities that end in the middle,
# and what a session has cached of somebody who has left since.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 3600);
my $node = ov_cluster('attacked', hosts => ["localhost:$idp->{port}"], conf => 'max_prepared_transactions = 5');
sub superuser { return $node->safe_psql('postgres', $_[0]) }
superuser(qq{SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
	'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
my @people = qw(ada bob cyd dan);
my %id = map { $_ => ov_connect($node, $_, 'demo') } @people;
my %jwt = map { $_ => ov_assertion($node, $_, '--ttl', '3000') } @people;
my %token = map { $_ => ov_sql($node, $_, q{SELECT oauth_vault.oauth_fresh_token('demo');}) } @people;

my $fresh = q{SELECT oauth_vault.oauth_fresh_token('demo')};
sub session
{
	my ($user, $role) = @_;
	my $s = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', $role // 'app', '-v', 'VERBOSITY=verbose' ]);
	$s->query_safe("SELECT oauth_vault.oauth_identify('$jwt{$user}', session => true)") if $user;
	return $s;
}
# Whose token it is, or the SQLSTATE
sub whose
{
	my ($s, $sql) = @_;
	$s->{stderr} = '';
	my $out = $s->query($sql // $fresh);
	my ($state) = $s->{stderr} =~ /ERROR:\s+(\w{5}):/;
	$s->{stderr} = '';
	return $state if defined $state;
	foreach my $user (@people)
	{
		return $user if $out =~ /\Q$token{$user}\E/;
	}
	return "nothing: $out";
}
# Whatever comes of it
sub try_it { my ($s, $sql) = @_; $s->query($sql); $s->{stderr} = ''; return; }
# One that goes the short way
sub warm
{
	my ($user, $role) = @_;
	my $s = session($user, $role);
	whose($s) foreach 1, 2;
	return $s;
}

# ---- kept of somebody who has left ----

# A call that has read the person's key waits for the catalogue while the person is offboarded
my $late = session('dan');
is(whose($late), 'dan', 'served');
superuser(q{CREATE TABLE loot AS SELECT * FROM oauth_vault.connection WHERE user_id = 'dan'});
$late->query_safe('DISCARD ALL');
$late->query_safe("SELECT oauth_vault.oauth_identify('$jwt{dan}', session => true)");
my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE oauth_vault.provider_builtin IN ACCESS EXCLUSIVE MODE');
$late->{stdin} .= "SELECT access_token IS NOT NULL FROM oauth_vault.oauth_credential('demo');\n\\echo over\n";
$late->{run}->pump_nb;
ok(ov_wait_for('the call to wait', sub { superuser(q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'}) eq '1' }),
	'a call has read the key, and waits');
superuser(q{SELECT oauth_vault.oauth_offboard('dan')});
# the network worker waits for the catalogue as well: its statement, then
superuser(q{UPDATE oauth_vault.vault_key SET wrapped = '', destroyed_at = now() WHERE user_id = 'dan'});
$lock->query_safe('COMMIT');
$lock->quit;
$late->{run}->pump until $late->{stdout} =~ /over/;
note("the call in between: $late->{stdout}");
$late->{stdout} = '';
is(whose($late), 'OV070', 'then there is nothing');
superuser(q{DELETE FROM oauth_vault.connection WHERE user_id = 'dan'; INSERT INTO oauth_vault.connection SELECT * FROM loot});
is(whose($late), 'OV041', 'and whoever puts the row back does not find the key in that session') foreach 1, 2;
superuser(q{DELETE FROM oauth_vault.connection WHERE user_id = 'dan'; DROP TABLE loot});
$late->quit;

# ---- tables replaced ----

my $ada = warm('ada');
is(whose($ada), 'ada', 'served');
superuser(q{ALTER TABLE oauth_vault.connection RENAME TO connection_of_before;
	CREATE VIEW oauth_vault.connection AS SELECT * FROM oauth_vault.connection_of_before;
	ALTER VIEW oauth_vault.connection OWNER TO oauth_vault_owner});
is(whose($ada), 'ada', 'a view in the place of the table') foreach 1 .. 4;
superuser(q{DROP VIEW oauth_vault.connection; ALTER TABLE oauth_vault.connection_of_before RENAME TO connection});
is(whose($ada), 'ada', 'the table again') foreach 1, 2;
foreach my $key ('user_id, tenant, connector_id, account', 'account, user_id, connector_id, tenant', 'connector_id, tenant, user_id, account', 'tenant, user_id, connector_id, scopes')
{
	superuser(qq{ALTER INDEX oauth_vault.connection_live RENAME TO kept;
		CREATE UNIQUE INDEX connection_live ON oauth_vault.connection ($key) WHERE status NOT IN ('revoking', 'revoked')});
	is(whose($ada), 'ada', "an index on ($key)") foreach 1, 2;
	superuser(q{DROP INDEX oauth_vault.connection_live; ALTER INDEX oauth_vault.kept RENAME TO connection_live});
}
superuser(q{ALTER INDEX oauth_vault.connection_live RENAME TO kept; CREATE TABLE oauth_vault.connection_live (a int, b int, c int, d int)});
is(whose($ada), 'ada', 'a table in the place of the index') foreach 1, 2;
superuser(q{DROP TABLE oauth_vault.connection_live; CREATE TABLE other (a text COLLATE "C", b text COLLATE "C", c uuid, d text COLLATE "C");
	CREATE UNIQUE INDEX other_live ON other (a, b, c, d); ALTER TABLE other SET SCHEMA oauth_vault; ALTER INDEX oauth_vault.other_live RENAME TO connection_live});
is(whose($ada), 'ada', 'an index of another table') foreach 1, 2;
superuser(q{DROP TABLE oauth_vault.other; ALTER INDEX oauth_vault.kept RENAME TO connection_live});

# ---- rows moved by a superuser ----

my $bob = warm('bob');
superuser(q{CREATE TABLE kept AS SELECT * FROM oauth_vault.connection});
sub put_back { return superuser(q{DELETE FROM oauth_vault.connection; INSERT INTO oauth_vault.connection SELECT * FROM kept}) }
foreach my $move (
	[ 'another person\'s row', q{UPDATE oauth_vault.connection SET user_id = 'bob' WHERE user_id = 'ada'} ],
	[ 'with the own key id', q{UPDATE oauth_vault.connection SET user_id = 'bob', key_id = (SELECT key_id FROM kept WHERE user_id = 'bob') WHERE user_id = 'ada'} ],
	[ 'with the own connection id as well', q{UPDATE oauth_vault.connection SET user_id = 'bob', key_id = (SELECT key_id FROM kept WHERE user_id = 'bob'),
		connection_id = (SELECT connection_id FROM kept WHERE user_id = 'bob') WHERE user_id = 'ada'} ],
	[ 'with that person\'s key under the own name', q{UPDATE oauth_vault.connection SET user_id = 'bob' WHERE user_id = 'ada';
		UPDATE oauth_vault.vault_key SET user_id = 'bob', version = 2 WHERE user_id = 'ada'} ])
{
	whose($bob) foreach 1, 2;
	superuser(qq{CREATE TABLE keys AS SELECT * FROM oauth_vault.vault_key; DELETE FROM oauth_vault.connection WHERE user_id = 'bob'; $move->[1]});
	is(whose($bob), $move->[0] =~ /key under/ ? 'OV040' : 'OV041', "$move->[0] does not open");
	superuser(q{UPDATE oauth_vault.vault_key v SET user_id = k.user_id, version = k.version FROM keys k WHERE k.key_id = v.key_id; DROP TABLE keys});
	put_back();
	is(whose($bob), 'bob', 'the own row does again');
}
superuser(q{ALTER TABLE oauth_vault.connection DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY});
is(whose($bob), 'bob', 'without row security one person');
is(whose($bob, q{SELECT oauth_vault.oauth_fresh_token('demo', account => 'x')}), 'OV012', 'and nobody else');
superuser(q{ALTER TABLE oauth_vault.connection ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY});
is(whose($bob, q{CREATE TEMP TABLE connection AS SELECT 'ada' AS user_id; CREATE TEMP TABLE connection_live (a int);
	SET search_path = pg_temp, public; SELECT oauth_vault.oauth_fresh_token('demo')}), 'bob', 'temporary tables of these names are not looked at');
try_it($bob, 'DISCARD ALL');
is(whose($bob), 'OV001', 'nobody after DISCARD ALL');
$bob->quit;

# ---- when an identity ends ----

superuser(q{
	CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ DECLARE t text; BEGIN
		FOR i IN 1 .. 3 LOOP t := oauth_vault.oauth_fresh_token('demo'); IF i = 2 THEN COMMIT; END IF; END LOOP; END $$;
	CREATE FUNCTION in_a_block(jwt text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
		BEGIN PERFORM oauth_vault.oauth_identify(jwt); PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
		RETURN oauth_vault.oauth_fresh_token('demo'); END $$});
my $pooled = session(undef);
my $as = sub { return "SELECT oauth_vault.oauth_identify('$jwt{$_[0]}')" };
$pooled->query_safe('BEGIN; ' . $as->('ada'));
is(whose($pooled), 'ada', 'bound') foreach 1, 2;
$pooled->query_safe('SAVEPOINT s; ' . $as->('bob'));
is(whose($pooled), 'bob', 'another in a subtransaction') foreach 1, 2;
$pooled->query_safe('ROLLBACK TO s');
is(whose($pooled), 'OV001', 'nobody, when it is rolled back');
try_it($pooled, 'ROLLBACK');
foreach my $end (qw(COMMIT ROLLBACK), 'COMMIT AND CHAIN', q{PREPARE TRANSACTION 'p'})
{
	$pooled->query_safe('BEGIN; ' . $as->('ada'));
	is(whose($pooled), 'ada', "before $end") foreach 1, 2;
	$pooled->query_safe($end);
	is(whose($pooled), 'OV001', 'nobody behind it');
	try_it($pooled, 'ROLLBACK');
}
superuser(q{ROLLBACK PREPARED 'p'});
is(whose($pooled, "SELECT in_a_block('$jwt{ada}')"), 'OV001', 'nobody, behind a block that has failed') foreach 1, 2;
is(whose($pooled, $as->('ada') . '; CALL commits()'), 'OV001', 'nobody, in a procedure that has committed') foreach 1, 2;
$pooled->query_safe('BEGIN; ' . $as->('ada') . q{; DECLARE c CURSOR FOR SELECT oauth_vault.oauth_fresh_token('demo') FROM generate_series(1, 4);
	DECLARE h CURSOR WITH HOLD FOR SELECT oauth_vault.oauth_fresh_token('demo') FROM generate_series(1, 4)});
is(whose($pooled, 'FETCH 2 FROM c'), 'ada', 'a cursor of hers');
$pooled->query_safe($as->('bob'));
is(whose($pooled, 'FETCH 1 FROM c'), 'bob', 'asks anew for each row');
try_it($pooled, 'COMMIT');
is(whose($pooled, 'FETCH 1 FROM h'), 'bob', 'a held one has been read by whoever was bound at the commit');
is(whose($pooled, 'FETCH 1 FROM c'), '34000', 'and the other is gone');
$pooled->query_safe('DISCARD ALL');
is(whose($pooled, 'FETCH 1 FROM h'), '34000', 'the held one by DISCARD ALL');
$pooled->query_safe(q{PREPARE p AS SELECT oauth_vault.oauth_fresh_token('demo'); SET plan_cache_mode = force_generic_plan});
foreach my $user (qw(ada bob))
{
	$pooled->query_safe('BEGIN; ' . $as->($user));
	is(whose($pooled, 'EXECUTE p'), $user, "a prepared statement is $user\'s") foreach 1, 2;
	try_it($pooled, 'COMMIT');
	is(whose($pooled, 'EXECUTE p'), 'OV001', 'and nobody\'s afterwards');
}
$pooled->quit;

# Who has the role does not matter, and not having it does.
my $su = warm('ada', $node->safe_psql('postgres', 'SELECT current_user'));
superuser('CREATE ROLE stranger');
is(whose($su), 'ada', 'a superuser with her assertion');
is(whose($su, "SET ROLE app; $fresh"), 'ada', 'SET ROLE does not make her another');
is(whose($su, "SET ROLE stranger; $fresh"), '42501', 'nor does it get round EXECUTE');
is(whose($su, "RESET ROLE; SET SESSION AUTHORIZATION app; $fresh"), 'ada', 'SET SESSION AUTHORIZATION neither');
is(whose($su, "SET SESSION AUTHORIZATION stranger; $fresh"), '42501', 'nor around that');
$su->quit;

# In security-restricted operations and parallel workers
my $caught = warm('ada', $node->safe_psql('postgres', 'SELECT current_user'));
is(whose($caught, q{CREATE TABLE bait AS SELECT 1 AS a; CREATE FUNCTION f(int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
	$$ BEGIN RETURN md5(oauth_vault.oauth_fresh_token('demo')); END $$; CREATE INDEX ON bait (f(a))}), '42501', 'an index expression is refused');
is(whose($caught, q{CREATE MATERIALIZED VIEW m AS SELECT oauth_vault.oauth_fresh_token('demo')}), '42501', 'a materialized view too');
$caught->quit;

# ---- keys that change ----

my $cyd = warm('cyd');
foreach my $mode (qw(rewrap rekey))
{
	superuser("SELECT oauth_vault.oauth_rotate_keys('$mode')");
	my %seen;
	ok(ov_wait_for("the $mode", sub { $seen{ whose($cyd) }++;
		superuser(q{SELECT state FROM oauth_vault.oauth_key_rotation ORDER BY rotation_id DESC LIMIT 1}) eq 'done' }), "a $mode under way");
	is(join(' ', sort keys %seen), 'cyd', 'her token all along');
	is(whose($cyd), 'cyd', 'and afterwards') foreach 1, 2;
}
$cyd->quit;

# ---- tables that are rebuilt, many times, under many calls ----

my $stop = 0;
my @readers = map { my $user = $_; { user => $user, s => warm($user), answers => {} } } qw(ada bob cyd);
my @rebuilds = (
	'VACUUM FULL oauth_vault.connection', 'CLUSTER oauth_vault.connection USING connection_pkey', 'REINDEX TABLE oauth_vault.connection',
	'REINDEX INDEX CONCURRENTLY oauth_vault.connection_live', 'REINDEX TABLE CONCURRENTLY oauth_vault.connection',
	'BEGIN; TRUNCATE oauth_vault.connection CASCADE; ROLLBACK', 'BEGIN; DROP INDEX oauth_vault.connection_live; ROLLBACK',
	'BEGIN; ALTER TABLE oauth_vault.connection ADD COLUMN added text; ALTER TABLE oauth_vault.connection DROP COLUMN added; COMMIT',
	'BEGIN; UPDATE oauth_vault.connection SET account = account || 1; ROLLBACK', 'UPDATE oauth_vault.connection SET last_used_at = now()',
	'BEGIN; DELETE FROM oauth_vault.connection; INSERT INTO oauth_vault.connection SELECT * FROM kept_now; COMMIT', 'VACUUM oauth_vault.connection');
superuser('CREATE TABLE kept_now AS SELECT * FROM oauth_vault.connection');
my ($in, $out, $err) = ((join '', map { "$_;\n" } @rebuilds) x 3 . "\\echo rebuilt\n\\q\n", '', '');
my $rebuilding = IPC::Run::start([ 'psql', '-XAtq', '-U', 'postgres', '-d', $node->connstr('postgres') ],
	'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(120));
my $calls = 0;
until ($out =~ /rebuilt/ || $err ne '')
{
	foreach my $r (@readers)
	{
		$r->{answers}{ whose($r->{s}) }++;
		$calls++;
	}
	$rebuilding->pump_nb;
}
$rebuilding->finish;
is($err, '', 'tables rebuilt in ' . @rebuilds . " ways under $calls calls");
is(join(' ', sort keys %{ $_->{answers} }), $_->{user}, "$_->{user} has had the own token each time") foreach @readers;
$_->{s}->quit foreach @readers[ 1, 2 ];

# ---- the extension dropped under a session, and created again ----

$ada->quit;
$ada = $readers[0]{s};
superuser('DROP EXTENSION oauth_vault CASCADE; DROP SCHEMA IF EXISTS oauth_vault CASCADE');
like(whose($ada), qr/^(3F000|42883)$/, 'the extension dropped: no such function');
superuser(qq{CREATE EXTENSION oauth_vault; GRANT oauth_vault_user TO app;
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
	'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}', refresh_policy => 'lazy');
	SELECT oauth_vault.oauth_import_connection('', 'ada', 'demo', '', '$token{bob}')});
is(whose($ada), 'bob', 'created again: the row that is there now, and not the old one') foreach 1, 2, 3;
superuser(q{SET session_replication_role = replica; DELETE FROM oauth_vault.connection; INSERT INTO oauth_vault.connection SELECT * FROM kept;
	UPDATE oauth_vault.connection SET connector_id = (SELECT connector_id FROM oauth_vault.connector)});
like(whose($ada), qr/^OV04[01]$/, 'rows of the vault before do not open') foreach 1, 2;
$ada->quit;
$node->stop('fast');
done_testing();
