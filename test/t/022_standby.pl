# Standbys: functions send people to the primary; a promoted peer goes on by
# itself, with what the primary had under way in doubt; any other is held.
use strict;
use warnings;
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $primary = ov_cluster('primary', init => { allows_streaming => 1 }, hosts => ["localhost:$idp->{port}"]);
$primary->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_set_provider('oidc', '{"refresh": {"retry_in_doubt": false}}');
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
my $ada = ov_connect($primary, 'ada', 'demo');
ov_connect($primary, 'bob', 'demo');
my $instance = decode_json(slurp_file($primary->{ov_vault}))->{instance};
$primary->backup('base');

# A standby; its vault file is the primary's with these members changed, in a
# directory of its own, as on another machine.
sub standby
{
	my ($name, %change) = @_;
	my $n = PostgreSQL::Test::Cluster->new($name);
	my $file = PostgreSQL::Test::Utils::tempdir() . '/vault.json';
	my $vault = decode_json(slurp_file($primary->{ov_vault}));
	$vault->{$_} = $change{$_} foreach keys %change;
	PostgreSQL::Test::Utils::append_to_file($file, encode_json($vault));
	chmod 0600, $file;
	$n->init_from_backup($primary, 'base', has_streaming => 1);
	$n->append_conf('postgresql.conf', "oauth_vault.vault_file = '$file'");
	system_or_bail('cp', "$primary->{ov_vault}.signing-key.json", "$file.signing-key.json");
	$n->{ov_vault} = $file;
	$n->start;
	return $n;
}
sub begins { my ($n) = @_; return (ov_sql_fails($n, 'ada', q{SELECT * FROM oauth_vault.oauth_begin('demo');}))[0] }
sub held { my ($n) = @_; return $n->safe_psql('postgres', q{SELECT concat_ws(': ', held, held_reason) FROM oauth_vault.oauth_status}) }

my $peer = standby('peer', instance => 'node-b', peers => [ $instance, 'node-b' ]);
my $stranger = standby('stranger', instance => 'node-c');
my $twin = standby('twin');

# On a hot standby
$primary->wait_for_catchup($peer);
foreach my $sql (q{oauth_vault.oauth_fresh_token('demo')}, q{oauth_vault.oauth_begin('demo')},
	q{oauth_vault.oauth_complete('s', 'c')}, q{oauth_vault.oauth_revoke('demo')},
	q{oauth_vault.oauth_claim()}, q{oauth_vault.oauth_discover('https://x.example')}, q{oauth_vault.vault_held()})
{
	my ($rc, $out, $err) = $peer->psql('postgres', "SELECT $sql", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/25006:.*standby.*HINT:.*primary/s, "on a standby $sql says where to go");
}

# Held: another vault file, and the very same one
my $before = ov_control($idp, 'GET', '/counters');
my $due = q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute', refresh_at = now() - interval '1 minute'};
foreach my $case ([ $stranger, qr/^t: the vault file is of another instance/ ],
	[ $twin, qr/^t: the server was restored or promoted: it is on timeline 2, the home row on 1/ ])
{
	my ($n, $why) = @$case;
	$n->promote;
	like(held($n), $why, $n->name . ' is held after its promotion');
	$n->safe_psql('postgres', $due);
	is(begins($n), 'OV060', 'no begin');
	is((ov_sql_fails($n, 'ada', q{SELECT oauth_vault.oauth_fresh_token('demo');}))[0], 'OV060', 'no refresh');
	like(slurp_file($n->logfile), qr/sends nothing from database "postgres"/, 'the log says so');
	$n->stop;
}
is_deeply(ov_control($idp, 'GET', '/counters'), $before, 'nothing has left them');
is(begins($primary), '00000', 'the primary goes on');

# The primary dies in the middle of a refresh.
ov_control($idp, 'POST', '/behavior', { delayMs => 3000 });
$primary->safe_psql('postgres', "$due WHERE user_id = 'ada'");
my $jwt = ov_assertion($primary, 'ada');
my ($out, $err) = ('', '');
my $h = IPC::Run::start([ 'psql', '-XAtq', '-U', 'app', '-d', $primary->connstr('postgres'),
		'-c', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')" ],
	'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
ok(ov_wait_for('the claim', sub { $peer->safe_psql('postgres', 'SELECT count(*) FROM oauth_vault.intent WHERE NOT in_doubt') eq '1' }),
	'a refresh is under way');
$primary->stop('immediate');
eval { $h->finish };
ov_control($idp, 'POST', '/behavior', { delayMs => 0 });

$peer->promote;
ok(ov_wait_for('the takeover', sub { $peer->safe_psql('postgres', 'SELECT instance, timeline FROM oauth_vault.home') eq 'node-b|2' }),
	'a promoted peer takes the vault over by itself');
is(held($peer), 'f', 'it is not held');
like(slurp_file($peer->logfile), qr/goes on in database "postgres", promoted: instance "node-b" takes over from its peer "\Q$instance\E"/,
	'the log says so');
ok(ov_wait_for('the audit row', sub {
	$peer->safe_psql('postgres', q{SELECT outcome, reason FROM oauth_vault.oauth_audit WHERE event = 'claimed'}) =~
	  /^ok\|promoted: instance "node-b"/ }), 'so does the audit trail');
my $ada_now = '';
ok(ov_wait_for('an end of the doubt', sub {
	# one statement: the end and its intent go in one commit
	(my $left, $ada_now) = split /\|/, $peer->safe_psql('postgres', qq{SELECT (SELECT count(*) FROM oauth_vault.intent),
		status, status_reason FROM oauth_vault.connection WHERE connection_id = '$ada'}), 2;
	return $ada_now ne 'active|' || $left eq '0' }),
	'the refresh that the primary had under way comes to an end') or diag($ada_now);
is($ada_now, 'reauth_required|refresh_outcome_unknown', 'in doubt, and not sent again where the provider\'s rule forbids it');
$peer->safe_psql('postgres', "$due WHERE user_id = 'bob'");
is((ov_sql_fails($peer, 'bob', q{SELECT oauth_vault.oauth_fresh_token('demo');}))[0], '00000', 'others are renewed');
is(begins($peer), '00000', 'and people can connect');
is((glob(($peer->{ov_vault} =~ s{/[^/]+$}{}r) . '/*.state'))[0] ne '', 1, 'with a state file of its own');
$peer->restart;
is(begins($peer), '00000', 'also after a restart');

# A peer that was not promoted is a clone.
$peer->stop;
my $vault = decode_json(slurp_file($peer->{ov_vault}));
$vault->{peers} = ['node-b'];
$vault->{instance} = 'node-d';
truncate $peer->{ov_vault}, 0;
PostgreSQL::Test::Utils::append_to_file($peer->{ov_vault}, encode_json($vault));
$peer->start;
ok(ov_wait_for('the hold', sub { held($peer) =~ /^t: the vault file is a peer's, and this server has not been promoted/ }),
	'a peer\'s vault file alone makes no takeover') or diag(held($peer));
is(begins($peer), 'OV060', 'it is held');
$peer->stop;
done_testing();
