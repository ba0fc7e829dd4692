# With a provider that accepts and never answers, everything else stays quick.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use Test::More;
use Time::HiRes qw(time);

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('hanging', hosts => ["localhost:$idp->{port}"],
	conf => "oauth_vault.http_timeout = '60s'\noauth_vault.wait_timeout = '60s'\n");

sub prepare
{
	my ($db) = @_;
	$node->safe_psql($db, qq{
		SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
			'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
			issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
	my $url = ov_sql($node, 'ada', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo');", dbname => $db);
	my $callback = ov_consent($url, 'ada');
	ov_sql($node, 'ada', "SELECT connection_id FROM oauth_vault.oauth_callback('$callback');", dbname => $db);
}

# A session that waits for a refresh the provider will not answer.
sub waiting_session
{
	my ($db) = @_;
	$node->safe_psql($db, q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'});
	my $jwt = ov_assertion($node, 'ada');
	my ($out, $err) = ('', '');
	my $h = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-U', 'app', '-d', $node->connstr($db),
			'-c', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')" ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(90));
	my $pid;
	ov_wait_for('a waiting session and its claim', sub {
		$pid = $node->safe_psql('postgres', qq{SELECT pid FROM pg_stat_activity
			WHERE usename = 'app' AND state = 'active' AND query LIKE '%oauth_fresh_token%' AND datname = '$db'});
		$pid ne '' && ($node->safe_psql($db, 'SELECT count(*) FROM oauth_vault.intent')) > 0;
	}) or die 'no session waits for the provider';
	return { h => $h, pid => $pid, err => \$err };
}

# The end of such a session; one that does not end dies with the timeout.
sub ends
{
	my ($s, $name, $how) = @_;
	$s->{h}->finish;
	isnt($s->{h}->result(0), 0, "$name: the session fails");
	like(${ $s->{err} }, $how, "$name: and says why");
}
my $terminated = qr/57P01|server closed the connection|connection to server was lost/;

$node->safe_psql('postgres', "ALTER SYSTEM SET log_min_messages = 'info'");
prepare('postgres');
ov_control($idp, 'POST', '/behavior', { delayMs => 3_600_000 });

my $s = waiting_session('postgres');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity
	WHERE backend_type LIKE 'oauth_vault%' AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL OR xact_start IS NOT NULL)
	AND datname IS NOT NULL}),
	0, 'field failure 3.30: no worker holds a transaction or xmin while the provider hangs');
my $workers = q{SELECT string_agg(backend_type, ', ' ORDER BY backend_type) FROM pg_stat_activity
	WHERE backend_type LIKE 'oauth_vault%' AND datname = 'postgres'};
is($node->safe_psql('postgres', $workers), 'oauth_vault audit writer, oauth_vault network worker',
	'and it is there to be seen: a network worker and an audit writer');

my $t = time;
$node->safe_psql('postgres', "SELECT pg_cancel_backend($s->{pid})");
ends($s, 'cancelled', qr/57014/);
cmp_ok(time - $t, '<', 1, 'cancelling the caller takes under a second');

$s = waiting_session('postgres');
$t = time;
$node->safe_psql('postgres', "SELECT pg_terminate_backend($s->{pid})");
ends($s, 'terminated', $terminated);
cmp_ok(time - $t, '<', 1, 'terminating the caller takes under a second');

$s = waiting_session('postgres');
my $worker = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity
	WHERE backend_type = 'oauth_vault network worker' AND datname = 'postgres'});
$t = time;
$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
ok(ov_wait_for('the end of the network worker', sub { !kill 0, $worker }, 10), 'the network worker ends');
cmp_ok(time - $t, '<', 1, 'terminating the network worker takes under a second with a request in flight');
ok(ov_wait_for('another network worker', sub {
	$node->safe_psql('postgres', $workers) eq 'oauth_vault audit writer, oauth_vault network worker' }), 'and it comes back');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($s->{pid})");
$s->{h}->finish;
# that refresh is in doubt now: begin anew
ov_control($idp, 'POST', '/behavior', { delayMs => 0 });
$node->safe_psql('postgres', 'DROP EXTENSION oauth_vault CASCADE');
$node->safe_psql('postgres', 'CREATE EXTENSION oauth_vault');
prepare('postgres');

ov_control($idp, 'POST', '/behavior', { delayMs => 0 });
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION oauth_vault');
prepare('other');
ov_control($idp, 'POST', '/behavior', { delayMs => 3_600_000 });
$s = waiting_session('other');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($s->{pid})");
ends($s, 'terminated before the DROP', $terminated);
$t = time;
$node->safe_psql('postgres', 'DROP DATABASE other');
cmp_ok(time - $t, '<', 1, 'DROP DATABASE takes under a second with a request in flight');

$s = waiting_session('postgres');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($s->{pid})");
ends($s, 'terminated before the DROP', $terminated);
$t = time;
$node->safe_psql('postgres', 'DROP EXTENSION oauth_vault CASCADE');
cmp_ok(time - $t, '<', 1, 'field failure 3.30: DROP EXTENSION takes under a second with a request in flight');

ov_control($idp, 'POST', '/behavior', { delayMs => 0 });
$node->safe_psql('postgres', 'CREATE EXTENSION oauth_vault');
prepare('postgres');
ov_control($idp, 'POST', '/behavior', { delayMs => 3_600_000 });
$s = waiting_session('postgres');
$t = time;
$node->stop('fast');
my $took = time - $t;
cmp_ok($took, '<', 1, 'a fast stop takes under a second with a request in flight');
note(sprintf 'a fast stop took %.2f s', $took);
ends($s, 'stopped', $terminated);
done_testing();
