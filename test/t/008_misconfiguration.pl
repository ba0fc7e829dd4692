# Without preload, vault file, right key, CA or a listening provider: the right
# SQLSTATE and a hint.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

sub fails
{
	my ($node, $sql, $user) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $user // 'app', '-v', 'VERBOSITY=verbose' ]);
	return $rc ? $err : "no error: $out";
}

my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->start;
$plain->safe_psql('postgres', 'CREATE EXTENSION oauth_vault; CREATE ROLE app LOGIN IN ROLE oauth_vault_user');
my $err = fails($plain, "SELECT oauth_vault.oauth_fresh_token('demo', assertion => 'x')");
like($err, qr/ERROR:  55000: oauth_vault is not loaded/, 'without preload: 55000');
like($err, qr/^HINT:.*"shared_preload_libraries"/m, 'and the hint names shared_preload_libraries');
$plain->stop;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('misconfigured', hosts => [ "localhost:$idp->{port}", 'localhost:20001' ]);
my $create = sub {
	my ($name, $issuer) = @_;
	return qq{SELECT oauth_vault.oauth_create_connector('$name', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$issuer', refresh_policy => 'lazy')};
};
$node->safe_psql('postgres', $create->('demo', $idp->{issuer}));
ov_connect($node, 'ada', 'demo');

$err = fails($node, $create->('nobody', 'https://localhost:20001'), 'postgres');
like($err, qr/ERROR:  OV020: /, 'a port nobody listens on: OV020');
like($err, qr/^HINT:.*Check that the issuer can be reached/m, 'and the hint asks whether the issuer can be reached');

my $jwt = ov_assertion($node, 'ada', '--ttl', '3000');
my $call = "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')";
$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'});
$node->append_conf('postgresql.conf', "oauth_vault.ca_file = '/nonexistent/ca.pem'");
$node->restart;
my $seen = '';
ok(ov_wait_for('the CA error', sub { $seen = fails($node, $call); $seen =~ /CA cert/ }, 30),
	'an unreadable CA file is a clear error') or diag($seen);
like($seen, qr/ERROR:  OV020: providers cannot be reached: the CA certificates cannot be read$/m, 'OV020, which names the CA');
like($seen, qr/^HINT:.*"oauth_vault\.ca_file"/m, 'and the hint names the setting');

sub vault_file
{
	my ($path) = @_;
	$node->append_conf('postgresql.conf', "oauth_vault.vault_file = '$path'");
	$node->restart;
}
my $good = $node->{ov_vault};
vault_file('/nonexistent/vault.json');
ok(ov_wait_for('sealed', sub { $seen = fails($node, $call); $seen =~ /OV040/ }, 20),
	'without a vault file: OV040') or diag($seen);
like($seen, qr/ERROR:  OV040: the vault is sealed/, 'sealed, it says');
like($seen, qr/^HINT:.*"oauth_vault\.vault_file"/m, 'and the hint names the setting');

my $other = PostgreSQL::Test::Utils::tempdir() . '/other.json';
PostgreSQL::Test::Utils::system_or_bail('oauth-vault-keyring', 'init', '--file', $other, '--vault', 'misconfigured',
	'--source', 'assertion', '--allow-network', '127.0.0.0/8', '--allow-host', "localhost:$idp->{port}");
vault_file($other);
my $save = $node->{ov_vault};
$node->{ov_vault} = $other;
my $jwt2 = ov_assertion($node, 'ada', '--ttl', '3000');
$node->{ov_vault} = $save;
ok(ov_wait_for('wrong key', sub {
	$seen = fails($node, "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt2')");
	$seen =~ /does not hold the key/ }, 20), 'with a wrong key there is a clear error') or diag($seen);
like($seen, qr/ERROR:  OV040: the vault file does not hold the key that this record is sealed under$/m, 'OV040');
like($seen, qr/^HINT:.*Restore the vault file that this database was used with/m, 'and the hint says what to restore');

vault_file($good);
$node->append_conf('postgresql.conf', "oauth_vault.ca_file = '$ca_dir/ca.pem'");
$node->restart;
ok(ov_wait_for('recovery', sub { $seen = fails($node, $call); $seen =~ /no error/ }, 30),
	'with everything put right the connection still works: nothing was marked broken') or diag($seen);
$node->stop('fast');
done_testing();
