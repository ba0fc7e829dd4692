# A copy of the database sends nothing until somebody claims it, however it was
# made: with the same vault file, in the same place, on the same timeline.
use strict;
use warnings;
use File::Copy ();
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $fault = ov_fault();
my $node = ov_cluster('original', init => { allows_streaming => 1 },
	hosts => [ "localhost:$idp->{port}", "localhost:$fault->{port}" ]);
my $state_dir = $node->{ov_vault} =~ s{/[^/]+$}{}r;

$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'eager')});
my $ada = ov_connect($node, 'ada', 'demo');
ov_connect($node, 'bob', 'demo');
ov_connect($node, 'eve', 'demo');

sub state_file { my @f = glob("$state_dir/oauth_vault-*.state"); return $f[0] // '' }
sub state_now { return eval { decode_json(slurp_file(state_file())) } // {} }
sub counter { my ($n) = @_; return $n->safe_psql('postgres', 'SELECT counter FROM oauth_vault.home') }
sub held { my ($n) = @_; return $n->safe_psql('postgres', q{SELECT concat_ws(': ', held, held_reason) FROM oauth_vault.oauth_status}) }
sub refused
{
	my ($n, $user, $sql, $name, $state) = @_;
	my ($got, $text) = ov_sql_fails($n, $user, $sql);
	is($got, $state // 'OV060', $name) or diag($text);
	return $text;
}
sub expire
{
	my ($n, $user) = @_;
	$n->safe_psql('postgres', qq{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute',
		refresh_at = now() - interval '1 minute' WHERE user_id = '$user'});
}
# A clone of the original's data directory: its own name, everything else as it was
sub clone
{
	my ($name, $backup, %opt) = @_;
	my $n = PostgreSQL::Test::Cluster->new($name);
	$n->init_from_backup($node, $backup, %{ $opt{init} // {} });
	$n->{ov_vault} = $node->{ov_vault};
	$n->append_conf('postgresql.conf', $opt{conf}) if $opt{conf};
	$n->start;
	return $n;
}

my $file = state_file();
ok($file, 'the vault\'s state file lies beside the vault file');
is((stat $file)[2] & 07777, 0600, 'mode 0600');
unlike(slurp_file($file), qr/demo|ada/, 'and holds nothing of the vault\'s content');
cmp_ok(state_now()->{counter}, '<=', counter($node), 'it is not ahead of the database');

# A consent under way comes along in the backup.
my $url = ov_sql($node, 'ada', q{SELECT authorization_url FROM oauth_vault.oauth_begin('demo', account => 'second');});
my $callback = ov_consent($url, 'ada') =~ s/'/''/gr;
$node->backup('live');
ok(ov_wait_for('the count of the last use', sub { state_now()->{counter} == counter($node) && counter($node) > 1 }, 20),
	'after the last use the counter goes up once more, and the file with it');

#
# The live database copied beside itself, CREATE DATABASE ... TEMPLATE, with all there is to send
#
$node->safe_psql('template1', 'CREATE DATABASE beside TEMPLATE postgres');
my $idle = ov_control($idp, 'GET', '/counters');
is($node->safe_psql('beside', q{WITH u AS (UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute',
	refresh_at = now() - interval '1 minute' RETURNING 1) SELECT count(*) FROM u}), '3', 'a copy of the live database, where refreshes are due');
$node->safe_psql('beside', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE backend_type = 'oauth_vault network worker' AND datname = current_database()});
ok(ov_wait_for('the hold', sub { $node->safe_psql('beside', q{SELECT held AND workers_running AND due = 3 FROM oauth_vault.oauth_status}) eq 't' }),
	'it is held, its worker is there, all three are still due');
# The worker has looked at its tables between two requests that it answered.
foreach (1 .. 2)
{
	ok(ov_wait_for('an answer', sub { (ov_sql_fails($node, 'bob', q{SELECT * FROM oauth_vault.oauth_begin('demo');}, dbname => 'beside'))[0] eq 'OV060' }), 'no begin there');
}
is_deeply(ov_control($idp, 'GET', '/counters'), $idle, 'and nothing has left it: the provider counts what it counted');
is($node->safe_psql('beside', q{SELECT (SELECT count(*) FROM oauth_vault.intent), (SELECT due FROM oauth_vault.oauth_status)}), '0|3', 'nothing was claimed');
$node->safe_psql('template1', 'DROP DATABASE beside');

#
# The clone of a base backup, with the same vault file and state file
#
my $clone = clone('clone', 'live');
my $log = sub { slurp_file($clone->logfile) };
ok(ov_wait_for('the hold', sub { held($clone) =~ /^t/ }), 'a clone beside the original is held');
like(held($clone), qr/held elsewhere: by database \d+ in "[^"]*original/, 'the reason names the one that goes on')
  or diag(held($clone));
like($log->(), qr/sends nothing from database "postgres": the vault is held elsewhere/, 'the log says so');

ov_control($fault, 'POST', '/reset');
my $before = ov_control($idp, 'GET', '/counters');
my $token = ov_sql($clone, 'ada', q{SELECT oauth_vault.oauth_fresh_token('demo');});
is($token, ov_sql($node, 'ada', q{SELECT oauth_vault.oauth_fresh_token('demo');}), 'a token that is alive can be read');
# everything there is to send: renewals that are due, an open intent, a revocation
expire($clone, $_) foreach qw(ada bob);
$clone->safe_psql('postgres', qq{INSERT INTO oauth_vault.intent (connection_id, token_generation, decision_epoch, started_at)
	SELECT connection_id, token_generation, decision_epoch, now() - interval '1 hour' FROM oauth_vault.connection WHERE user_id = 'bob'});
like(ov_sql($clone, 'eve', q{SELECT local_state, provider_state FROM oauth_vault.oauth_revoke('demo');}), qr/^revoking\|queued$/,
	'a decision is recorded');
refused($clone, 'ada', q{SELECT oauth_vault.oauth_fresh_token('demo');}, 'one that has expired cannot be renewed');
refused($clone, 'ada', q{SELECT oauth_vault.oauth_fresh_token('demo', min_ttl => '1 hour');}, 'nor for a longer life');
like(refused($clone, 'ada', q{SELECT * FROM oauth_vault.oauth_begin('demo');}, 'no begin'),
	qr/"reason":"the vault is held elsewhere/, 'DETAIL says why');
refused($clone, 'ada', qq{SELECT * FROM oauth_vault.oauth_callback('$callback');}, 'no complete');
is($clone->safe_psql('postgres', 'SELECT count(*) FROM oauth_vault.flow WHERE consumed_at IS NULL'), '1', 'which uses up no flow');
my (undef, undef, $err) = $clone->psql('postgres', "SELECT oauth_vault.oauth_discover('https://localhost:$fault->{port}')",
	extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/OV060/, 'no discovery');
# The worker has looked at all its tables between two requests that it answered.
$clone->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
foreach (1 .. 2)
{
	ov_wait_for('an answer', sub { (ov_sql_fails($clone, 'bob', q{SELECT * FROM oauth_vault.oauth_begin('demo');}))[0] eq 'OV060' });
}
is_deeply(ov_control($idp, 'GET', '/counters'), $before, 'nothing has left: no refresh, no code, no revocation');
is_deeply(ov_control($fault, 'GET', '/journal'), [], 'and no discovery');

expire($node, 'bob');
isnt(ov_sql($node, 'bob', q{SELECT oauth_vault.oauth_fresh_token('demo');}), '', 'the original goes on');

# The same clone where the state file is not: another machine
$clone->stop;
my $elsewhere = PostgreSQL::Test::Utils::tempdir();
$clone->append_conf('postgresql.conf', "oauth_vault.state_dir = '$elsewhere'");
$clone->start;
ok(ov_wait_for('the hold', sub { held($clone) =~ /^t: the state file is missing here: "\Q$elsewhere\E/ }),
	'on a machine without the state file a clone is held, although nothing else differs') or diag(held($clone));
is_deeply([ glob("$elsewhere/*") ], [], 'and writes none');
$before = ov_control($idp, 'GET', '/counters');
refused($clone, 'ada', q{SELECT * FROM oauth_vault.oauth_begin('demo');}, 'no begin there');

# Claimed there: that is the end of the hold, and what it had carried along is not sent.
$clone->safe_psql('postgres', 'SELECT oauth_vault.oauth_claim()');
is(held($clone), 'f', 'a claim ends the hold at once');
ok(ov_wait_for('a token', sub { (ov_sql_fails($clone, 'ada', q{SELECT oauth_vault.oauth_fresh_token('demo');}))[0] eq '00000' }),
	'and what is due is renewed');
is($clone->safe_psql('postgres', q{SELECT state, outcome FROM oauth_vault.revocation}), 'failed|discarded by oauth_claim',
	'the revocation that waited is discarded');
is(ov_control($idp, 'GET', '/counters')->{revocation}, $before->{revocation}, 'and was not sent');
like($clone->safe_psql('postgres', q{SELECT reason FROM oauth_vault.oauth_audit WHERE event = 'claimed'}),
	qr/state file is missing here.*outbox discarded/, 'the audit trail says what was claimed');
is(scalar(my @kept = glob("$elsewhere/*.state")), 1, 'it keeps a state file of its own now');

# Claimed beside the original: exactly one of them goes on.
$clone->stop;
$clone->append_conf('postgresql.conf', "oauth_vault.state_dir = ''");
$clone->start;
ok(ov_wait_for('the clone', sub { (ov_sql_fails($clone, 'bob', q{SELECT * FROM oauth_vault.oauth_begin('demo');}))[0] eq '00000' }),
	'a later claim takes the vault over') or diag(held($clone));
ok(ov_wait_for('the original', sub { (ov_sql_fails($node, 'bob', q{SELECT * FROM oauth_vault.oauth_begin('demo');}))[0] eq 'OV060' }),
	'and the one that held it before is held');
like(held($node), qr/claimed elsewhere/, 'which says by whom');
$clone->stop;
$node->safe_psql('postgres', 'SELECT oauth_vault.oauth_claim()');
ok(ov_wait_for('the original', sub { (ov_sql_fails($node, 'bob', q{SELECT * FROM oauth_vault.oauth_begin('demo');}))[0] eq '00000' }),
	'it can be claimed back') or diag(held($node));

#
# Restored in place
#
my $data = $node->data_dir;
ok(ov_wait_for('the count', sub { state_now()->{counter} == counter($node) }, 20), 'the file follows the database');
$node->stop;
system_or_bail('cp', '-a', $data, "$data.cold");
$node->start;
my $was = counter($node);
ok(ov_wait_for('an answer', sub { (ov_sql_fails($node, 'bob', q{SELECT * FROM oauth_vault.oauth_begin('demo');}))[0] eq '00000' }),
	'a restart changes nothing');
ok(ov_wait_for('the count', sub { state_now()->{counter} > $was }, 20), 'and the count goes on');
$node->stop('immediate');
system_or_bail('rm', '-rf', $data);
system_or_bail('mv', "$data.cold", $data);
$node->start;
ok(ov_wait_for('the hold', sub { held($node) =~ /^t: the database was restored: its home row counts \d+, the state file \d+$/ }),
	'a cold backup put back in place is held') or diag(held($node));
refused($node, 'ada', q{SELECT * FROM oauth_vault.oauth_begin('demo');}, 'no begin');
$node->restart;
ok(ov_wait_for('the hold', sub { held($node) =~ /^t: the database was restored/ }), 'also after another restart');
$node->safe_psql('postgres', 'SELECT oauth_vault.oauth_claim()');
is(held($node), 'f', 'until it is claimed');

# Point-in-time recovery in place ends on a new timeline.
$node->backup('pitr');
$node->stop;
system_or_bail('rm', '-rf', $data);
system_or_bail('cp', '-a', $node->backup_dir . '/pitr', $data);
$node->append_conf('postgresql.conf', q{port = } . $node->port . qq{
restore_command = 'false'
recovery_target = 'immediate'
recovery_target_action = 'promote'});
$node->append_conf('recovery.signal', '');
$node->start;
$node->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
ok(ov_wait_for('the hold', sub { held($node) =~ /^t: the server was restored or promoted: it is on timeline 2, the home row on 1/ }),
	'a point-in-time recovery in place is held') or diag(held($node));
like(slurp_file($node->logfile), qr/sends nothing from database "postgres": the server was restored/, 'the log says so');
refused($node, 'ada', q{SELECT * FROM oauth_vault.oauth_begin('demo');}, 'no begin');
$node->safe_psql('postgres', 'SELECT oauth_vault.oauth_claim()');
ok(ov_wait_for('a begin', sub { (ov_sql_fails($node, 'ada', q{SELECT * FROM oauth_vault.oauth_begin('demo');}))[0] eq '00000' }),
	'until it is claimed') or diag(held($node));

# A place where it must not be: the vault works, and the log says what it lacks.
$node->stop;
$node->append_conf('postgresql.conf', "oauth_vault.state_dir = '$data'");
$node->start;
ok(ov_wait_for('the hold', sub { held($node) =~ /^t: directory .* is below the data directory/ }), 'a state file below the data directory is refused');
$node->stop;
done_testing();
