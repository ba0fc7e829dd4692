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
$ada->quit;
$node->stop('fast');
done_testing();
