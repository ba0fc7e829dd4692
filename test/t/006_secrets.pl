# No secret reaches the server log, WAL, heap, statistics views or a dump.
use strict;
use warnings;
use File::Find;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('secrets', hosts => ["localhost:$idp->{port}"], conf => <<'CONF');
log_statement = 'all'
log_min_duration_statement = 0
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_error_verbosity = verbose
shared_preload_libraries = 'oauth_vault, pg_stat_statements'
CONF
$node->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements');

# As README advises: values that are secrets travel as bound parameters.
my $secret = 'demo: secret/with+signs';
my @secrets = ($secret);
my $driver = sub {
	my ($user, $sql, @values) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/drivers/bound.mjs", $node->host, $node->port, $user, $sql, @values ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60)) or die $err;
	chomp $out;
	return $out;
};
$driver->('postgres', q{SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', $1,
	'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => $2, refresh_policy => 'lazy')},
	$secret, $idp->{issuer});
my $jwt = ov_assertion($node, 'ada');
push @secrets, $jwt;
my $url = $driver->('app', q{SELECT authorization_url FROM oauth_vault.oauth_begin('demo', assertion => $1)}, $jwt);
my $callback = ov_consent($url, 'ada');
push @secrets, $callback =~ /[?&]code=([^&]+)/;
push @secrets, $callback =~ /[?&]state=([^&]+)/;
$driver->('app', q{SELECT connection_id FROM oauth_vault.oauth_callback($1, assertion => $2)}, $callback, $jwt);
my $token = $driver->('app', q{SELECT oauth_vault.oauth_fresh_token('demo', assertion => $1)}, $jwt);
push @secrets, $token;
$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'});
push @secrets, $driver->('app', q{SELECT oauth_vault.oauth_fresh_token('demo', assertion => $1)}, $jwt);
is(scalar(grep { length > 10 } @secrets), 6, 'six secrets to look for') or diag(scalar @secrets);
push @secrets, @{ ov_control($idp, 'GET', '/secrets') };		# every token, code and verifier the server has seen
# Failures must not leak either.
eval { $driver->('app', q{SELECT oauth_vault.oauth_fresh_token('nothing', assertion => $1)}, $jwt) };
eval { $driver->('app', q{SELECT oauth_vault.oauth_callback($1, assertion => $2)}, $callback, $jwt) };
eval { $driver->('app', q{SELECT oauth_vault.oauth_report_rejected('demo', $1, assertion => $2)}, $token, $jwt) };

my $stats = $node->safe_psql('postgres', q{
	SELECT string_agg(query, E'\n') FROM pg_stat_activity;
	SELECT string_agg(query, E'\n') FROM pg_stat_statements;
	SELECT string_agg(a::text, E'\n') FROM oauth_vault.audit a});
my $dump = '';
IPC::Run::run([ 'pg_dump', '-d', $node->connstr('postgres') ], '>', \$dump);
like($dump, qr/CREATE EXTENSION/, 'a dump was taken');
$node->safe_psql('postgres', 'CHECKPOINT');
$node->stop('fast');

my %where = ('statistics and audit' => $stats, dump => $dump, log => slurp_file($node->logfile));
find({ no_chdir => 1, wanted => sub {
	return unless -f $_ && -s _ < 64 * 1024 * 1024;
	open my $fh, '<:raw', $_ or return;
	local $/;
	my $text = <$fh>;
	my $kind = m{/pg_wal/} ? 'WAL' : 'data directory';
	foreach my $s (grep { defined && length } @secrets)
	{
		push @{ $where{"found in $kind"} }, $_ if index($text, $s) >= 0;
	}
} }, $node->data_dir);
foreach my $place ('statistics and audit', 'dump', 'log')
{
	my @hits = grep { defined && length && index($where{$place}, $_) >= 0 } @secrets;
	is(scalar(@hits), 0, "no secret in $place") or diag(join "\n", map { substr($_, 0, 12) . '...' } @hits);
}
foreach my $kind ('WAL', 'data directory')
{
	is_deeply($where{"found in $kind"} // [], [], "no secret in $kind");
}
done_testing();
