# The identity sources that need no assertion: the role, and who the connection
# was authenticated as.
use strict;
use warnings;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);

sub cluster
{
	my ($source) = @_;
	my $node = ov_cluster($source, source => $source, hosts => ["localhost:$idp->{port}"]);
	$node->safe_psql('postgres', qq{
		SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
			'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}');
		CREATE ROLE alice LOGIN PASSWORD 'correct horse' IN ROLE oauth_vault_user;
		CREATE ROLE team NOLOGIN IN ROLE oauth_vault_user;
		GRANT team TO alice;});
	return $node;
}
# Statements in one session of a role, going on after errors
sub as
{
	my ($node, $role, $sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0,
		extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);
	return wantarray ? ($out, $err) : $out;
}
sub connect_as
{
	my ($node, $role, $before, $login) = @_;
	my $url = as($node, $role, "$before SELECT authorization_url FROM oauth_vault.oauth_begin('demo');");
	my $callback = ov_consent($url, $login);
	return as($node, $role, "$before SELECT provider_subject FROM oauth_vault.oauth_callback('$callback');");
}
my $who = 'SELECT user_id FROM oauth_vault.oauth_whoami();';
my $rows = 'SELECT count(*) FROM oauth_vault.oauth_connections;';

# ---- role ----

my $node = cluster('role');
is(connect_as($node, 'alice', '', 'alice-there'), 'alice-there', 'role: a role connects its account');
is(connect_as($node, 'alice', 'SET ROLE team;', 'team-there'), 'team-there', 'and the role it becomes another');
is(as($node, 'alice', "$who SET ROLE team; $who RESET ROLE; $who"), "alice\nteam\nalice", 'the person is the current role');
my $tokens = as($node, 'alice',
	"SELECT oauth_vault.oauth_fresh_token('demo'); SET ROLE team; SELECT oauth_vault.oauth_fresh_token('demo');");
my ($one, $two) = split /\n/, $tokens;
ok($one && $two && $one ne $two, 'each with a token of its own');
is(as($node, 'alice', "$rows SET ROLE team; $rows"), "1\n1", 'and rows of its own');
my ($out, $err) = as($node, 'alice', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => 'x');");
like($err, qr/OV002.*HINT/s, 'an assertion is refused, with a hint');
($out, $err) = as($node, 'alice', "SELECT oauth_vault.oauth_identify('x');");
like($err, qr/OV002/, 'as is binding one');

# Somebody's index expression, run by an administrator's maintenance.
$node->safe_psql('postgres', 'CREATE SCHEMA trap; GRANT CREATE, USAGE ON SCHEMA trap TO alice');
as($node, 'alice', q{
	CREATE FUNCTION trap.peek(integer) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
		'BEGIN RETURN oauth_vault.oauth_fresh_token(''demo''); EXCEPTION WHEN insufficient_privilege THEN RETURN ''refused''; END';
	CREATE TABLE trap.t AS SELECT 1 AS i;
	CREATE INDEX peek ON trap.t (trap.peek(i));});
# What the index holds is what the function returned then.
is(as($node, 'postgres', q{REINDEX INDEX trap.peek; SET enable_seqscan = off; SET enable_bitmapscan = off;
	SELECT i FROM trap.t WHERE trap.peek(i) = 'refused';}), '1', 'a security-restricted operation gets no token');
$node->stop('fast');

# ---- authenticated ----

$node = cluster('authenticated');
my $hba = slurp_file($node->data_dir . '/pg_hba.conf');
unlink $node->data_dir . '/pg_hba.conf';
append_to_file($node->data_dir . '/pg_hba.conf', "local all alice scram-sha-256\n$hba");
$node->reload;
$ENV{PGPASSWORD} = 'correct horse';
ok(ov_wait_for('pg_hba.conf', sub { (as($node, 'alice', $who) // '') eq 'alice' }, 10),
	'authenticated: the person is whom the connection was authenticated as');
is(as($node, 'alice', "SET ROLE team; $who"), 'alice', 'whatever the current role');
is(connect_as($node, 'alice', 'SET ROLE team;', 'alice-there'), 'alice-there', 'who connects an account');
isnt(as($node, 'alice', "SELECT oauth_vault.oauth_fresh_token('demo');"), '', 'and gets its token');
# Not even a superuser who becomes somebody else for the session
$node->safe_psql('postgres', 'ALTER ROLE alice SUPERUSER; CREATE ROLE bob LOGIN IN ROLE oauth_vault_user');
is(as($node, 'alice', "SET SESSION AUTHORIZATION bob; $who RESET SESSION AUTHORIZATION; SET ROLE bob; $who"), "alice\nalice",
	'whatever the session authorization');
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN IN ROLE oauth_vault_user') if $node->safe_psql('postgres',
	q{SELECT count(*) FROM pg_roles WHERE rolname = 'app'}) eq '0';
($out, $err) = as($node, 'app', $who);
like($err, qr/OV001.*HINT/s, 'a trusted connection was authenticated as nobody');
$node->stop('fast');
done_testing();
