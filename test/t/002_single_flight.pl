# Fifty sessions at an expired token: one request at the server, fifty equal answers.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('single_flight', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
ov_connect($node, 'ada', 'demo');

# The token is past its life as far as the vault knows.
$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'});
my $before = ov_control($idp, 'GET', '/counters')->{refresh_token} // 0;

my $jwt = ov_assertion($node, 'ada');
# The server stands still until everybody waits.
$idp->{h}->signal('STOP');
my @sessions;
foreach my $i (1 .. 50)
{
	my ($out, $err) = ('', '');
	my $io = { out => \$out, err => \$err };
	$io->{h} = IPC::Run::start([ 'psql', '-XAtq', '-U', 'app', '-d', $node->connstr('postgres'),
			'-c', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')" ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	push @sessions, $io;
}
ok(ov_wait_for('fifty sessions at work', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity
	WHERE usename = 'app' AND state = 'active' AND query LIKE '%oauth_fresh_token%'}) == 50 }, 20),
	'fifty sessions wait for one answer');
$idp->{h}->signal('CONT');
my %answers;
foreach my $s (@sessions)
{
	$s->{h}->finish;
	diag(${ $s->{err} }) if ${ $s->{err} } ne '';
	$answers{ ${ $s->{out} } }++;
}
is(scalar(keys %answers), 1, 'all sessions got the same token');
is((values %answers)[0], 50, 'fifty of them');
is((ov_control($idp, 'GET', '/counters')->{refresh_token} // 0) - $before, 1,
	'field failure 3.1: one token request reached the server');
$node->stop('fast');
done_testing();
