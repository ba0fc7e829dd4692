# Many people through few pooled connections at the same time: whatever a
# transaction did, and however it ended, the next one begins with no identity.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP;
use List::Util qw(sum);
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my @people = qw(ada grace edsger barbara donald frances);
my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('pool', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}')});
my %people;
foreach my $who (@people)
{
	ov_connect($node, $who, 'demo');
	$people{$who} = { assertion => ov_assertion($node, $who), token => ov_sql($node, $who, "SELECT oauth_vault.oauth_fresh_token('demo');") };
}
my $before = $node->safe_psql('postgres', q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'token_access' AND outcome = 'ok'});

# reset_query: what a pooler in transaction mode does not run, and once what it can be told to
sub pooled
{
	my ($seed, $reset) = @_;
	my $pool = ov_pgbouncer($node, default_pool_size => 4, server_reset_query => $reset, server_reset_query_always => $reset ? 1 : 0);
	plan skip_all => 'pgbouncer is not installed' unless $pool;
	my ($out, $err) = ('', '');
	my $in = encode_json({ host => $pool->{dir}, port => $pool->{port}, user => 'app', people => \%people, clients => 20, transactions => 20, seed => $seed });
	IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/drivers/pooled.mjs" ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(240))
	  or die "pooled.mjs: $err";
	$pool->{stop}->();
	return decode_json($out);
}

my %served;
foreach my $run ([ 1, '' ], [ 2, 'DISCARD ALL' ])
{
	my ($seed, $reset) = @$run;
	my $r = pooled($seed, $reset);
	my $n = sum values %{ $r->{counts} };
	my $with = $reset ? "with server_reset_query '$reset'" : 'without a reset query';
	is($n, 400, "$with: 400 transactions of 20 clients");
	is(scalar(keys %{ $r->{counts} }), 10, "$with: of every kind");
	is_deeply($r->{wrong}, [], "$with: nobody has seen anybody else");
	my $vanished = $r->{counts}{vanish};
	cmp_ok(scalar(keys %{ $r->{backends} }), '<=', 4 + $vanished, "$with: on four connections at a time");
	cmp_ok((sort { $b <=> $a } values %{ $r->{backends} })[0], '>=', 4, "$with: each for many people");
	$served{$_} += $r->{served}{$_} foreach keys %{ $r->{served} };
}
# The trail names the person whom each token was given to.
my %audited = map { split /\|/ } split /\n/, $node->safe_psql('postgres', qq{
	SELECT user_id, count(*) FROM (SELECT user_id FROM oauth_vault.audit WHERE event = 'token_access' AND outcome = 'ok'
		ORDER BY audit_id OFFSET $before) a GROUP BY 1});
is_deeply(\%audited, \%served, 'every token given out is in the audit trail, under its person');

# What session => true is for, and what it is not for: it outlives its transaction.
my $session = $node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_identify('$people{ada}{assertion}', session => true);
	SELECT user_id FROM oauth_vault.oauth_whoami();
	DISCARD ALL;
	SELECT count(*) FROM oauth_vault.oauth_connections}, extra_params => [ '-U', 'app' ]);
is($session, "\nada\n0", 'an identity of the session lasts until DISCARD ALL, so not behind a transaction pooler');
$node->stop('fast');
done_testing();
