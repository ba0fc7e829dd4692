# pg_upgrade from an older major keeps everything: connections, keys, the audit
# trail, rights.  The new cluster is held until it is claimed, and the old one
# from then on.  OV_OLD_BIN: the older server's programs (test/versions.sh).
use strict;
use warnings;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'there is no older PostgreSQL beside this one (make versions has it)' unless $ENV{OV_OLD_BIN};
my ($new_bin) = grep { -x "$_/postgres" } split /:/, $ENV{PATH};

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my @init = ('--locale=C', '--encoding=UTF8');
my $old = ov_cluster('old', hosts => ["localhost:$idp->{port}"], install_path => $ENV{OV_OLD_BIN} =~ s{/bin/?$}{}r,
	init => { extra => [@init] });
like($old->safe_psql('postgres', 'SHOW server_version'), qr/^15/, 'the old server');
$old->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'eager');
	SELECT oauth_vault.oauth_set_scope_policy('demo', '', NULL, ARRAY['openid', 'offline_access']);
	SELECT oauth_vault.oauth_set_provider('google', '{"display_name": "Our Google"}')});
ov_connect($old, $_, 'demo') foreach qw(ada bob eve);
my $fresh = q{SELECT oauth_vault.oauth_fresh_token('demo');};
my $token = ov_sql($old, 'ada', $fresh);

# Not sent yet: the provider does not answer
ov_control($idp, 'POST', '/behavior', { delayMs => 60000 });
ov_sql($old, 'eve', q{SELECT * FROM oauth_vault.oauth_revoke('demo');});
my @same = (
	q{SELECT string_agg(c::text, ' ' ORDER BY c::text) FROM oauth_vault.connection c WHERE user_id <> 'eve'},
	q{SELECT string_agg(k::text, ' ' ORDER BY key_id) FROM oauth_vault.vault_key k},
	q{SELECT string_agg(n::text, ' ') FROM oauth_vault.connector n},
	q{SELECT string_agg(p::text, ' ') FROM oauth_vault.scope_policy p},
	q{SELECT string_agg(p::text, ' ') FROM oauth_vault.provider_site p},
	q{SELECT string_agg(h::text, ' ') FROM oauth_vault.home h},
	q{SELECT string_agg(a::text, ' ' ORDER BY audit_id) FROM oauth_vault.audit a WHERE audit_id <= 8},
	q{SELECT count(*), min(state) FROM oauth_vault.revocation},
	q{SELECT last_value, is_called FROM oauth_vault.vault_key_id},
	q{SELECT extversion FROM pg_extension WHERE extname = 'oauth_vault'},
	q{SELECT string_agg(concat_ws(' ', relname, relkind, relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner)), E'\n' ORDER BY relname)
		FROM pg_class WHERE relnamespace = 'oauth_vault'::regnamespace AND relkind IN ('r', 'v', 'S')},
	q{SELECT string_agg(concat_ws(' ', c.relname, a.grantee::regrole, a.privilege_type), E'\n' ORDER BY c.relname, a.grantee::regrole::text, a.privilege_type)
		FROM pg_class c, LATERAL aclexplode(relacl) a
		WHERE relnamespace = 'oauth_vault'::regnamespace AND a.grantee::regrole::text <> 'oauth_vault_owner'},
	q{SELECT string_agg(concat_ws(' ', p.oid::regprocedure, pg_get_userbyid(proowner), proacl), E'\n' ORDER BY p.oid::regprocedure::text)
		FROM pg_proc p WHERE pronamespace = 'oauth_vault'::regnamespace},
	q{SELECT string_agg(concat_ws(' ', tablename, policyname, roles, cmd, qual, with_check), E'\n' ORDER BY tablename, policyname)
		FROM pg_policies WHERE schemaname = 'oauth_vault'});
$old->stop;
ov_control($idp, 'POST', '/behavior', { delayMs => 0 });
my $before = ov_control($idp, 'GET', '/counters');
# what the old server says, with nobody at work
$old->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$old->start;
my @was = map { $old->safe_psql('postgres', $_) } @same;
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
my $version = `"$new_bin/postgres" --version`;
push @init, '--no-data-checksums' if $version =~ / (\d+)/ && $1 >= 18;
$new->init(extra => [@init]);
my $conf = slurp_file($old->data_dir . '/postgresql.conf');
$new->append_conf('postgresql.conf', join('', map { "$_\n" } $conf =~ /^(oauth_vault\..*|max_worker_processes.*|fsync.*)$/mg)
	. "shared_preload_libraries = 'oauth_vault'\n");
chdir PostgreSQL::Test::Utils::tempdir() or die;
command_ok([ "$new_bin/pg_upgrade", '-b', $ENV{OV_OLD_BIN}, '-B', $new_bin, '-d', $old->data_dir, '-D', $new->data_dir,
	'-s', $new->host, '-p', $old->port, '-P', $new->port, '--no-sync' ], 'pg_upgrade');
$new->start;
$new->{ov_vault} = $old->{ov_vault};
is($new->safe_psql('postgres', 'SELECT held, held_reason FROM oauth_vault.oauth_status'), 't|the database cluster is another one',
	'the new cluster is held');
is((ov_sql_fails($new, 'ada', q{SELECT * FROM oauth_vault.oauth_begin('demo');}))[0], 'OV060', 'it begins nothing');
foreach my $i (0 .. $#same)
{
	is($new->safe_psql('postgres', $same[$i]), $was[$i], 'as before: ' . substr($same[$i] =~ s/\s+/ /gr, 0, 70));
}
is(ov_sql($new, 'ada', $fresh), $token, 'a token that is alive opens');
is_deeply(ov_control($idp, 'GET', '/counters'), $before, 'nothing has left');

# the attempt that the old server had made has a lease
$new->safe_psql('postgres', 'UPDATE oauth_vault.revocation SET next_attempt_at = now()');
$new->safe_psql('postgres', 'SELECT oauth_vault.oauth_claim(discard_outbox => false)');
ok(ov_wait_for('the revocation', sub { $new->safe_psql('postgres', 'SELECT state FROM oauth_vault.revocation') eq 'confirmed' }),
	'claimed with its outbox it sends what was waiting');
$new->safe_psql('postgres', q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute' WHERE user_id = 'bob'});
is((ov_sql_fails($new, 'bob', $fresh))[0], '00000', 'it renews');
ov_connect($new, 'cleo', 'demo');
is((ov_sql_fails($new, 'cleo', $fresh))[0], '00000', 'and people can connect');

$old->append_conf('postgresql.conf', "shared_preload_libraries = 'oauth_vault'");
$old->start;
ok(ov_wait_for('the hold', sub {
	$old->safe_psql('postgres', 'SELECT held_reason FROM oauth_vault.oauth_status') =~ /claimed elsewhere/ }),
	'the old cluster, started again, is held');
$old->stop;
$new->stop;
done_testing();
