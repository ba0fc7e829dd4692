# The story from node-postgres, psycopg 3 and pgx: bound and prepared statements,
# autocommit with the assertion in the call, pooled; error objects.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('drivers', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}')});
%ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGUSER => 'app', PGDATABASE => 'postgres',
	CONNECTOR => 'demo', CA => "$ca_dir/ca.pem", ISSUER => $idp->{issuer},
	CONSENT => "$ENV{OV_TREE}/test/drivers/consent.mjs",
	# Debian's Go packages are a GOPATH
	GO111MODULE => 'off', GOPATH => '/usr/share/gocode', GOCACHE => PostgreSQL::Test::Utils::tempdir());
foreach my $driver ([ 'node-postgres', 'node', "$ENV{OV_TREE}/test/drivers/story-node.mjs" ],
	[ 'psycopg 3', '/usr/bin/python3', "$ENV{OV_TREE}/test/drivers/story-psycopg.py" ],
	[ 'pgx', 'go', 'run', "$ENV{OV_TREE}/test/drivers/story-pgx.go" ])
{
	my ($name, @command) = @$driver;
	$ENV{PERSON} = $name =~ s/\W+/-/gr;
	$ENV{ASSERTION} = ov_assertion($node, $ENV{PERSON});
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(240));
	ok($ok && $out !~ /^not ok/m && $out =~ /^1\.\.[1-9]/m, "the story from $name");
	diag("$out\n$err") unless $ok && $out !~ /^not ok/m;
	note($out);
}
$node->stop('fast');
done_testing();
