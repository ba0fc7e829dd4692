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

# What ends a session or a worker takes under a second.  A machine that stands still for a
# moment is not the product's fault, so a slow one is tried again, from the start, twice.
sub under_a_second
{
	my ($claim, $ready, $act) = @_;
	my $took;
	for my $try (1 .. 3)
	{
		my $s = $ready->();
		my $t = time;
		my $after = $act->($s);
		$took = time - $t;
		$after->($s) if $after;
		note(sprintf '%s: %.2f s', $claim, $took);
		last if $took < 1;
	}
	cmp_ok($took, '<', 1, "$claim takes under a second with a request in flight");
}

# A connection of ada's in this database, and a provider that hangs.
sub anew
{
	my ($db) = @_;
	ov_control($idp, 'POST', '/behavior', { delayMs => 0 });
	$node->safe_psql($db, 'DROP EXTENSION IF EXISTS oauth_vault CASCADE');
	$node->safe_psql($db, 'CREATE EXTENSION oauth_vault');
	prepare($db);
	ov_control($idp, 'POST', '/behavior', { delayMs => 3_600_000 });
	return;
}

sub terminate
{
	my ($s, $name) = @_;
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($s->{pid})");
	ends($s, $name, $terminated);
	return;
}

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


under_a_second('cancelling the caller', sub { my $first = $s; undef $s; $first // waiting_session('postgres') }, sub {
	my ($s) = @_;
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($s->{pid})");
	ends($s, 'cancelled', qr/57014/);
	return;
});

under_a_second('terminating the caller', sub { waiting_session('postgres') }, sub {
	terminate($_[0], 'terminated');
	return;
});

under_a_second('terminating the network worker', sub { waiting_session('postgres') }, sub {
	my $worker = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'oauth_vault network worker' AND datname = 'postgres'});
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
	ok(ov_wait_for('the end of the network worker', sub { !kill 0, $worker }, 10), 'the network worker ends');
	return sub {
		ok(ov_wait_for('another network worker', sub {
			$node->safe_psql('postgres', $workers) eq 'oauth_vault audit writer, oauth_vault network worker' }), 'and it comes back');
		ends($_[0], 'whose worker ended', qr/OV020/);
		# that refresh is in doubt now
		anew('postgres');
	};
});

under_a_second('DROP DATABASE', sub {
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	anew('other');
	terminate(waiting_session('other'), 'before DROP DATABASE');
}, sub {
	$node->safe_psql('postgres', 'DROP DATABASE other');
	return;
});

under_a_second('field failure 3.30: DROP EXTENSION', sub {
	anew('postgres');
	terminate(waiting_session('postgres'), 'before DROP EXTENSION');
}, sub {
	$node->safe_psql('postgres', 'DROP EXTENSION oauth_vault CASCADE');
	return;
});

my $stopped;
under_a_second('a fast stop', sub {
	$node->start if $stopped;
	anew('postgres');
	return waiting_session('postgres');
}, sub {
	$node->stop('fast');
	$stopped = 1;
	return sub { ends($_[0], 'stopped', $terminated) };
});
done_testing();
