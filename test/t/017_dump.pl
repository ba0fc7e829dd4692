# A dump carries a site's data and nothing of the extension's own; what is
# restored from it is held until somebody claims it.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $node = ov_cluster('dump', source => 'role');
$node->safe_psql('postgres', q{
	SELECT oauth_vault.oauth_create_connector('kept', 'google', 'client', 'secret', 'https://app.example/cb', ARRAY['openid']);
	SELECT oauth_vault.oauth_create_connector('dropped', 'google', 'client', 'secret', 'https://app.example/cb');
	SELECT oauth_vault.oauth_drop_connector('dropped');
	SELECT oauth_vault.oauth_set_scope_policy('kept', '', NULL, ARRAY['openid']);
	SELECT oauth_vault.oauth_set_provider('google', '{"display_name": "Our Google"}')});

ov_audit_sealed($node);

my $file = $node->backup_dir . '.sql';
$node->command_ok([ 'pg_dump', '-d', 'postgres', '-f', $file ], 'pg_dump');
my $dump = PostgreSQL::Test::Utils::slurp_file($file);
unlike($dump, qr/^(GRANT|REVOKE) .* ON (FUNCTION|TABLE|SEQUENCE) oauth_vault/m, 'rights come with the extension, not with the dump');
unlike($dump, qr/COPY oauth_vault\.(provider_builtin|flow)\b/, 'so does the catalogue; pending flows stay behind');

$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $file ], 'restore into a new database');
foreach my $what (
	q{SELECT string_agg(n::text, ' ') FROM oauth_vault.connector n},
	q{SELECT string_agg(k::text, ' ') FROM oauth_vault.vault_key k},
	q{SELECT string_agg(p::text, ' ') FROM oauth_vault.scope_policy p},
	q{SELECT string_agg(p::text, ' ') FROM oauth_vault.oauth_providers p WHERE name = 'google'},
	q{SELECT string_agg(h::text, ' ') FROM oauth_vault.home h},
	q{SELECT string_agg(a::text, ' ' ORDER BY audit_id) FROM oauth_vault.audit a WHERE audit_id <= 5},
	q{SELECT string_agg(h::text, ' ' ORDER BY last_id) FROM oauth_vault.audit_head h WHERE last_id <= 6},
	q{SELECT string_agg(concat_ws(' ', c.oid::regclass, relkind, relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner),
		pg_get_expr(relpartbound, c.oid)), E'\n' ORDER BY 1) FROM pg_class c WHERE relnamespace = 'oauth_vault'::regnamespace AND relname ~ '^audit'},
	q{SELECT last_value, is_called FROM oauth_vault.vault_key_id})
{
	is($node->safe_psql('restored', $what), $node->safe_psql('postgres', $what), "the same here and there: $what");
}

my $held = 'SELECT held FROM oauth_vault.oauth_status';
is($node->safe_psql('postgres', $held), 'f', 'the original goes on');
is($node->safe_psql('restored', $held), 't', 'the copy is held');
$node->safe_psql('restored', 'SELECT oauth_vault.oauth_claim()');
is($node->safe_psql('restored', $held), 'f', 'until it is claimed');
$node->safe_psql('restored', q{SELECT oauth_vault.oauth_set_client_secret('kept', 'another')});
is($node->safe_psql('restored', q{SELECT secret_generation FROM oauth_vault.connector}), '2',
	'its keys open with the same vault file');

# The same by copying files: CREATE DATABASE ... TEMPLATE
$node->safe_psql('postgres', 'CREATE DATABASE cloned TEMPLATE restored');
is($node->safe_psql('cloned', $held), 't', 'a cloned database is held as well');

$node->stop('fast');
done_testing();
