# A dump restored into another cluster: everything is there, held until it is
# claimed; with the vault file its tokens work then, without it they do not
# open and say why.  Nothing leaves while a restore is still running.
use strict;
use warnings;
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my @hosts = ("localhost:$idp->{port}");
my $node = ov_cluster('source', hosts => \@hosts);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'eager')});
ov_connect($node, $_, 'demo') foreach qw(ada bob);
ov_audit_sealed($node);
my $ada_token = ov_sql($node, 'ada', q{SELECT oauth_vault.oauth_fresh_token('demo');});
my $work = PostgreSQL::Test::Utils::tempdir();
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$work/dump", 'postgres' ], 'pg_dump');
$node->command_ok([ 'pg_dumpall', '-g', '-f', "$work/roles.sql" ], 'pg_dumpall -g');

# Another server.  vault: the vault file it gets, in a directory of its own.
sub target
{
	my ($name, %opt) = @_;
	my $n = ov_cluster($name, hosts => \@hosts, no_extension => 1);
	if ($opt{keyring})
	{
		# the source's keyring, under an instance of its own
		my $vault = decode_json(slurp_file($node->{ov_vault}));
		$vault->{instance} = decode_json(slurp_file($n->{ov_vault}))->{instance};
		truncate $n->{ov_vault}, 0;
		append_to_file($n->{ov_vault}, encode_json($vault));
		system_or_bail('cp', "$node->{ov_vault}.signing-key.json", "$n->{ov_vault}.signing-key.json");
		$n->reload;
	}
	# the bootstrap superuser is there already
	my ($rc, undef, $err) = $n->psql('postgres', slurp_file("$work/roles.sql"), on_error_stop => 0);
	unlike($err =~ s/^.*role "\S+" already exists$//mr, qr/ERROR/, "$name: roles restored");
	return $n;
}
sub held { my ($n) = @_; return $n->safe_psql('postgres', q{SELECT concat_ws(': ', held, held_reason) FROM oauth_vault.oauth_status}) }
sub state_of { my ($n, $user, $sql) = @_; return (ov_sql_fails($n, $user, $sql))[0] }
my $fresh = q{SELECT oauth_vault.oauth_fresh_token('demo');};
my $before = ov_control($idp, 'GET', '/counters');

#
# With the keyring
#
my $here = target('with_keyring', keyring => 1);

# Everything but the home row, as in the middle of a restore; all tokens are due.
my ($list, $err) = ('', '');
IPC::Run::run([ 'pg_restore', '-l', "$work/dump" ], '>', \$list) or die;
my @home = grep { /TABLE DATA oauth_vault home / } split /\n/, $list;
is(scalar(@home), 1, 'the dump has the home row');
append_to_file("$work/rest", $list =~ s/^[^\n]*TABLE DATA oauth_vault home [^\n]*\n//mr);
append_to_file("$work/home", "$home[0]\n");
$here->command_ok([ 'pg_restore', '-e', '-d', 'postgres', '-L', "$work/rest", "$work/dump" ], 'pg_restore, all but the home row');
my $due = q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute', refresh_at = now() - interval '1 minute'};
$here->safe_psql('postgres', "$due WHERE user_id = 'bob'");
like(held($here), qr/^t: the home row is missing/, 'without its home row a database is held');
is(state_of($here, 'bob', $fresh), 'OV060', 'nothing is renewed');
is(state_of($here, 'ada', $fresh), 'OV060', 'nothing opens: it is not known yet which vault it is');
is(state_of($here, 'bob', q{SELECT * FROM oauth_vault.oauth_begin('demo');}), 'OV060', 'nothing is begun');
(undef, undef, $err) = $here->psql('postgres', "SELECT oauth_vault.oauth_discover('$idp->{issuer}')", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/OV060/, 'nothing is discovered');
(undef, undef, $err) = $here->psql('postgres', q{SELECT oauth_vault.oauth_create_connector('new', 'google', 'c', 's', 'https://app.example/cb')},
	extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/OV060.*HINT:.*Restore/s, 'and no new home row is made that would stand in the way');
$here->command_ok([ 'pg_restore', '-e', '-d', 'postgres', '-L', "$work/home", "$work/dump" ], 'pg_restore, the home row');
like(held($here), qr/^t: the database cluster is another one/, 'then it is held as the copy that it is');
is(state_of($here, 'bob', $fresh), 'OV060', 'nothing is renewed');
is_deeply(ov_control($idp, 'GET', '/counters'), $before, 'nothing has left');
is(ov_sql($here, 'ada', $fresh), $ada_token, 'a token that is alive opens');

# Whole
foreach my $what (
	q{SELECT string_agg(p::text, ' ' ORDER BY p::text) FROM pg_policies p WHERE schemaname = 'oauth_vault'},
	q{SELECT string_agg(concat_ws(' ', relname, relkind, relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner), relacl), E'\n' ORDER BY relname)
		FROM pg_class WHERE relnamespace = 'oauth_vault'::regnamespace AND relkind IN ('r', 'v', 'S')},
	q{SELECT string_agg(concat_ws(' ', proname, pg_get_userbyid(proowner), proacl), E'\n' ORDER BY oid::regprocedure::text)
		FROM pg_proc WHERE pronamespace = 'oauth_vault'::regnamespace},
	q{SELECT string_agg(k::text, ' ' ORDER BY key_id) FROM oauth_vault.vault_key k},
	q{SELECT string_agg(n::text, ' ') FROM oauth_vault.connector n},
	q{SELECT n::text FROM oauth_vault.connection n WHERE user_id = 'ada'},
	q{SELECT string_agg(r::text, ' ' ORDER BY r) FROM (SELECT concat_ws(' ', roleid::regrole, member::regrole) AS r FROM pg_auth_members WHERE roleid::regrole::text LIKE 'oauth%') x})
{
	is($here->safe_psql('postgres', $what), $node->safe_psql('postgres', $what), 'the same here and there: ' . substr($what, 0, 60));
}
is($here->safe_psql('postgres', q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'connected'}), '2', 'the audit trail has come along');

$node->stop;
$here->safe_psql('postgres', 'SELECT oauth_vault.oauth_claim()');
my $renewed;
ok(ov_wait_for('a token', sub { my $s; ($s, $renewed) = ov_sql_fails($here, 'bob', $fresh); $s eq '00000' }), 'once claimed, tokens are renewed')
  or diag($renewed);
ov_connect($here, 'cleo', 'demo');
is(state_of($here, 'cleo', $fresh), '00000', 'and people can connect');
$here->stop;

#
# Without: no vault file, and another one
#
my $there = target('without_keyring');
$there->command_ok([ 'pg_restore', '-e', '-d', 'postgres', "$work/dump" ], 'pg_restore');
my ($state, $text) = ov_sql_fails($there, 'ada', $fresh);
is($state, 'OV040', 'with another vault file a token does not open') or diag($text);
like($text, qr/"reason":"platform key (does not match|version not in the vault file)".*HINT:.*Restore the vault file/s, 'and says why');
$there->safe_psql('postgres', 'SELECT oauth_vault.oauth_claim()');
is(state_of($there, 'ada', $fresh), 'OV040', 'a claim does not change that');
$there->safe_psql('postgres', $due);
is(state_of($there, 'ada', $fresh), 'OV040', 'nor does it renew');
is($there->safe_psql('postgres', q{SELECT string_agg(DISTINCT status, ' ') FROM oauth_vault.connection}), 'active', 'nothing is marked broken');
my $jwt = ov_assertion($there, 'ada');
$there->append_conf('postgresql.conf', "oauth_vault.vault_file = ''");
$there->restart;
my (undef, undef, $none) = $there->psql('postgres', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')",
	extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ]);
like($none, qr/OV040.*vault_file.*HINT/s, 'without a vault file neither, which says so');
$there->stop;
done_testing();
