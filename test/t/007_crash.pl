# Workers killed and servers crashed come back by themselves; connections live on.
use strict;
use warnings;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('crash', hosts => ["localhost:$idp->{port}"], conf => "restart_after_crash = on\n");
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
ov_connect($node, 'ada', 'demo');

sub token_works
{
	my ($name) = @_;
	my $ok = ov_wait_for($name, sub {
		my ($state, $text) = eval { ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');") };
		return defined $state && $state eq '00000';
	}, 60);
	ok($ok, $name);
}
sub expire
{
	ov_wait_for('server', sub { (eval { $node->psql('postgres',
		q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'}) } // 1) == 0 }, 60);
}
# The key worker uses no database, so pg_stat_activity does not know it: its
# title among the postmaster's children does.
sub worker_pid
{
	my ($kind) = @_;
	my $pid = '';
	ov_wait_for($kind, sub {
		my ($postmaster) = (eval { slurp_file($node->data_dir . '/postmaster.pid') } // '') =~ /^(\d+)/;
		return 0 unless $postmaster;
		foreach my $line (split /\n/, `ps -o pid=,args= --ppid $postmaster`)
		{
			($pid) = $line =~ /^\s*(\d+)/ and return 1 if $line =~ /oauth_vault $kind/;
		}
		return 0;
	}, 60);
	return $pid;
}

token_works('at rest');
foreach my $kind ('key worker', 'network worker', 'audit writer', 'launcher')
{
	my $pid = worker_pid($kind);
	kill 'TERM', $pid;
	ov_wait_for('its end', sub { !kill 0, $pid });
	expire();
	token_works("after the $kind was terminated");
	isnt(worker_pid($kind), $pid, 'it was started again');

	kill 'KILL', worker_pid($kind);
	expire();
	token_works("after the $kind was killed (the cluster restarts)");
}

# Killed between the server's rotation and our commit: the answer is one of two.
ov_control($idp, 'POST', '/behavior', { delayMs => 2000 });
expire();
my $jwt = ov_assertion($node, 'ada');
my ($out, $err) = ('', '');
my $h = IPC::Run::start([ 'psql', '-XAtq', '-U', 'app', '-d', $node->connstr('postgres'),
		'-c', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')" ],
	'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
ov_wait_for('a claim', sub { ($node->safe_psql('postgres', 'SELECT count(*) FROM oauth_vault.intent')) > 0 });
kill 'KILL', worker_pid('network worker');
eval { $h->finish };
ov_control($idp, 'POST', '/behavior', { delayMs => 0 });
my ($final, $why);
ok(ov_wait_for('a definite answer', sub {
	(my $state, $why) = eval { ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');") };
	$final = defined $state ? $state : '';
	return $final eq '00000' || $final eq 'OV010';
}, 60), 'after a kill in the middle of a refresh there is a token or a reason') or diag($final);
like($why, qr/"reason":\s?"refresh_outcome_unknown"/, 'and the reason is the lost answer') if $final eq 'OV010';

$node->stop('immediate');
$node->start;
my ($state, $text) = ('', '');
ok(ov_wait_for('after an immediate stop', sub {
	($state, $text) = eval { ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');") };
	return defined $state && ($state eq '00000' || $state eq 'OV010');
}, 60), 'and after a server crash the same answer');
is($state, $final, 'no other than before the crash');
like($text, qr/"reason":\s?"refresh_outcome_unknown"/, 'with the same reason in DETAIL') if $state eq 'OV010';
$node->stop('fast');
done_testing();
