# Behind PgBouncer's transaction pooling, two people alternate on one backend.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('pooled', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}')});
ov_connect($node, $_, 'demo') foreach qw(ada grace);

my $pool = ov_pgbouncer($node, default_pool_size => 1);
plan skip_all => 'pgbouncer is not installed' unless $pool;
my $ask = sub {
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XAtq', '-h', $pool->{dir}, '-p', $pool->{port}, '-U', 'app', '-d', 'postgres', '-c', $sql ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(20));
	chomp $out;
	return wantarray ? ($out, $err) : $out;
};
ok(ov_wait_for('pgbouncer', sub { ($ask->('SELECT 1') // '') eq '1' }, 20), 'pgbouncer answers');
my %token = map { $_ => $ask->("SELECT oauth_vault.oauth_fresh_token('demo', assertion => '" . ov_assertion($node, $_) . "')") } qw(ada grace);
isnt($token{ada}, $token{grace}, 'two people, two tokens, one backend');
foreach my $round (1 .. 5)
{
	foreach my $who (qw(ada grace))
	{
		my $jwt = ov_assertion($node, $who);
		is($ask->("BEGIN; SELECT oauth_vault.oauth_identify('$jwt') IS NULL; SELECT user_id FROM oauth_vault.oauth_whoami(); COMMIT") =~ s/.*\n//sr,
			$who, "round $round: $who is $who");
		my ($out, $err) = $ask->("SELECT count(*) FROM oauth_vault.oauth_connections");
		is($out, '0', 'and the next client starts with no identity');
	}
}
$pool->{stop}->();
$node->stop('fast');
done_testing();
