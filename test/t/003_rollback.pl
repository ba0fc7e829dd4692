# A caller's rollback cannot lose a rotated refresh token, whatever the isolation
# level, nor can settings of the database that would spoil a worker's commit.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('rollback', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
ov_connect($node, 'ada', 'demo');

sub expire
{
	$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'});
}

my %seen;
foreach my $mode ('', 'ISOLATION LEVEL REPEATABLE READ', 'ISOLATION LEVEL SERIALIZABLE', 'READ ONLY',
	'ISOLATION LEVEL SERIALIZABLE READ ONLY')
{
	my $name = $mode || 'READ COMMITTED';
	expire();
	# The snapshot is taken before the refresh: the token must be the new one all the same.
	my $token = ov_sql($node, 'ada',
		"SELECT count(*) FROM oauth_vault.oauth_connections \\g /dev/null\n"
		  . "SELECT oauth_vault.oauth_fresh_token('demo');",
		begin_mode => $mode, end => 'ROLLBACK;');
	ok(!$seen{$token}++, "$name: a new token although the caller rolls back");
	my $again = ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
	is($again, $token, "field failure 3.9: $name: it is the one that was stored");
}
expire();
ok(!$seen{ ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');") },
	'the rotated refresh token still works');
is($node->safe_psql('postgres', q{SELECT count(*) FROM oauth_vault.audit
	WHERE event = 'token_access' AND outcome = 'ok'}), scalar(keys %seen) * 2 + 1,
	'one audit row for each token returned, rollback or not');
is($node->safe_psql('postgres', 'SELECT count(*) FROM oauth_vault.intent'), 0, 'no claim is left open');
# Settings of the database reach everybody who connects; the test overrides
# those that would end its own statements, the workers override all.
$ENV{PGOPTIONS} = '-c default_transaction_read_only=off -c statement_timeout=0';
my @hostile = ([ 'default_transaction_read_only', 'on' ], [ 'default_transaction_isolation', 'serializable' ],
	[ 'synchronous_commit', 'off' ], [ 'session_replication_role', 'replica' ],
	[ 'search_path', 'hostile, public' ], [ 'statement_timeout', '1ms' ]);
if ($node->safe_psql('postgres', q{SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'}))
{
	$ENV{PGOPTIONS} .= ' -c transaction_timeout=0';
	push @hostile, [ 'transaction_timeout', '1ms' ];
}
# what an unqualified name or operator would find first
$node->safe_psql('postgres', q{CREATE SCHEMA hostile;
	CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN RAISE ''hostile now()''; END'});
$node->safe_psql('postgres', "ALTER DATABASE postgres SET $_->[0] = '$_->[1]'") foreach @hostile;

my $workers = q{SELECT string_agg(pid::text, ' ' ORDER BY backend_type) FROM pg_stat_activity
	WHERE datname = 'postgres' AND backend_type IN ('oauth_vault network worker', 'oauth_vault audit writer')};
my $former = $node->safe_psql('postgres', $workers);
like($former, qr/^\d+ \d+$/, 'a network worker and an audit writer serve the database');
kill 'TERM', split ' ', $former;
ok(ov_wait_for('workers with the new settings', sub {
	my $now = $node->safe_psql('postgres', $workers);
	return $now =~ /^\d+ \d+$/ && !grep { " $former " =~ / $_ / } split ' ', $now;
}), 'both start anew under hostile settings');
foreach my $round (1 .. 3)
{
	expire();
	my ($state, $token) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
	is($state, '00000', "hostile settings, round $round: a refresh works") or diag($token);
	ok(!$seen{$token}++, 'with a new token');
	# the caller's own commit follows the database's synchronous_commit; the worker's does not
	$node->stop('immediate');
	$node->start;
	is(ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');"), $token, 'which a crash does not lose');
}
$node->stop('fast');
done_testing();
