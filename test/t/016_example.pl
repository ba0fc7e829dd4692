# examples/backend connects a person end to end over HTTP.
use strict;
use warnings;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('example', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}')});

my $example = "$ENV{OV_TREE}/examples/backend";
# the packages that the example asks for are the test servers' too
-e "$example/node_modules" or symlink("$ENV{OV_TREE}/test/idp/node_modules", "$example/node_modules") or die $!;
my $port = ov_port();
my ($out, $err) = ('', '');
local %ENV = (%ENV, PORT => $port, PUBLIC_URL => 'https://app.example', USERINFO_URL => "$idp->{issuer}/me",
	SIGNING_KEY => "$node->{ov_vault}.signing-key.json", NODE_EXTRA_CA_CERTS => "$ca_dir/ca.pem",
	PGHOST => $node->host, PGPORT => $node->port, PGUSER => 'app', PGDATABASE => 'postgres');
my $h = IPC::Run::start([ qw(setpriv --pdeathsig KILL node), "$example/server.mjs" ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(120));
ov_wait_for('the backend', sub { $h->pump_nb; $out =~ /^listening/ }) or die $err;

my $http = HTTP::Tiny->new(max_redirect => 0, timeout => 30);
my $ask = sub {
	my ($path, $cookie) = @_;
	return $http->get("http://127.0.0.1:$port$path", { headers => { $cookie ? (cookie => $cookie) : () } });
};
my $login = sub { return $ask->("/login?user=$_[0]")->{headers}{'set-cookie'} =~ s/;.*//r };

is($ask->('/connect/demo')->{status}, 401, 'nobody connects without logging in');
my $ada = $login->('ada');
my $r = $ask->('/connect/demo', $ada);
is($r->{status}, 303, 'connecting redirects to the provider');
my $callback = ov_consent($r->{headers}{location}, 'ada');
my ($query) = $callback =~ /(\?.*)/;

is($ask->("/callback$query", $login->('mallory'))->{status}, 400, 'another session cannot complete the flow');
$r = $ask->("/callback$query", $ada);
is($r->{status}, 400, 'which burns it');

$callback = ov_consent($ask->('/connect/demo', $ada)->{headers}{location}, 'ada');
($query) = $callback =~ /(\?.*)/;
$r = $ask->("/callback$query", $ada);
is("$r->{status} $r->{headers}{location}", '303 /userinfo/demo', 'the callback leads back to where it began');
$r = $ask->('/userinfo/demo', $ada);
is($r->{status}, 200, 'the API is called');
is(decode_json($r->{content})->{sub}, 'ada', 'as the person');
is($ask->('/userinfo/demo', $login->('mallory'))->{status}, 404, 'somebody else has no connection');
is(decode_json($ask->('/disconnect/demo', $ada)->{content})->{local_state}, 'revoking', 'disconnecting revokes');
like($ask->('/userinfo/demo', $ada)->{status}, qr/^4(04|09)$/, 'and there is no token any more');
is($err, '', 'the backend had nothing to complain about');
$h->kill_kill(grace => 3);
$node->stop('fast');
done_testing();
