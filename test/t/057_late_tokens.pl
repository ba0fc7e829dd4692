# No call that starts after a revocation or an offboarding has committed brings a
# token, in any isolation level, directly or through a pooler.  A slice of make
# campaign-revoke: REVOCATIONS (200) of them, SEED.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $revocations = $ENV{REVOCATIONS} // 200;
my $seed = $ENV{SEED} // 1;
my $people = 4;

my $idp = ov_port();
my $node = ov_cluster('late', hosts => ["localhost:$idp"], conf => "log_statement = none\noauth_vault.audit = batched");
my $base = "https://localhost:$idp/strict";
$node->safe_psql('postgres', qq{
	CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin;
	SELECT oauth_vault.oauth_set_provider('strict', '{"schema": 1, "display_name": "strict", "issuer": "$base",
		"authorization": {"url": "$base/authorize"}, "token": {"url": "$base/token"}, "refresh": {"rotates": "always"},
		"revocation": {"refresh_token": {"url": "$base/revoke"}, "access_token": {"url": "$base/revoke"}}}');
	SELECT oauth_vault.oauth_create_connector('strict', 'strict', 'client', 'secret', 'https://app.example/callback',
		refresh_policy => 'lazy')});

my $pool = ov_pgbouncer($node, default_pool_size => 6);
plan skip_all => 'pgbouncer is not installed' unless $pool;
my ($out, $err) = ('', '');
my $in = encode_json({ direct => { host => $node->host, port => $node->port }, pooled => { host => $pool->{dir}, port => $pool->{port} },
	idp => $idp, revocations => $revocations, people => $people, seed => $seed, ca => $ca_dir,
	assertions => [ map { ov_assertion($node, "person-$_", '--ttl', '3600') } 0 .. $people - 1 ] });
my $started = time;
IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/drivers/late.mjs" ], '<', \$in, '>', \$out, '2>', \$err) or die "late.mjs: $err";
my $took = time - $started;
$pool->{stop}->();
my $r = decode_json($out);
my $done = $r->{revocations} + $r->{offboardings};

is($done, $revocations, 'as many revocations and offboardings as were asked for');
is(scalar @{ $r->{late} }, 0, 'no call that was sent after the commit brought a token');
is(scalar @{ $r->{unexpected} }, 0, 'and nothing else happened that should not');
diag($_) foreach map { my @some = @$_; splice @some, 5 if @some > 5; @some } @$r{qw(late unexpected)};
ok($r->{tokens} > $done, 'before it, tokens were served');
ok($r->{calls} > $r->{tokens} + $done, 'and afterwards calls were refused');
is(join(' ', keys %{ $r->{states} }), 'confirmed', 'the provider has confirmed every one');
is($r->{alive}, 0, 'and knows no grant that lives');
is($node->safe_psql('postgres', 'SELECT count(*) FROM oauth_vault.offboarding WHERE completed_at IS NULL'), 0, 'every erasure is complete');
is($node->safe_psql('postgres', q{SELECT count(*) FROM oauth_vault.vault_key k WHERE kind = 'user' AND destroyed_at IS NULL
	AND key_id < (SELECT max(lifted_key_id) FROM oauth_vault.offboarding o WHERE o.user_id = k.user_id)}), 0, 'no key from before one is left');
note(sprintf '%d revocations, %d offboardings, %d rolled back in %d s, seed %d: %d calls, %d tokens, %d late',
	@$r{qw(revocations offboardings rolledBack)}, $took, $seed, @$r{qw(calls tokens)}, scalar @{ $r->{late} });
foreach my $what (qw(windows confirmations erasures))
{
	note(sprintf '%s in ms: p50 %.1f, p95 %.1f, max %.1f', $what, @{ $r->{$what} }{qw(p50 p95 max)}) if $r->{$what};
}
$node->stop('fast');
done_testing();
