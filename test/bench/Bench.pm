# Bench: what the benchmarks share: the token endpoint, connectors at it, and people
# who connect by oauth_begin and oauth_complete, as anybody does.
package Bench;

use strict;
use warnings;
use Exporter 'import';
use FindBin;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use OauthVault::Test;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(assertions bench_ca bench_client connect_people connector counts endpoint median percentile make_due);

my $bin = "$ENV{WORK}/bench";
my $ca = "$ENV{WORK}/tmp/ca";
my $user = 'person';

sub median { my @s = sort { $a <=> $b } @_; return @s % 2 ? $s[$#s / 2] : ($s[@s / 2 - 1] + $s[@s / 2]) / 2; }

sub percentile
{
	my ($p, @values) = @_;
	my @s = sort { $a <=> $b } @values;
	return $s[ POSIX::fmin($#s, int(@s * $p)) ];
}

sub bench_ca
{
	$OauthVault::Test::ca_dir = $ca;
	system("$ENV{OV_TREE}/test/idp/make-ca.sh", $ca) == 0 or die 'could not make a CA';
	return $ca;
}

# endpoint(name =>, delay =>, budget => [requests, seconds]): starts one
sub endpoint
{
	my $e = {@_};
	my $out = '';
	$e->{port} = ov_port();
	$e->{plain} = ov_port();
	$e->{h} = IPC::Run::start([ "$bin/endpoint", $e->{port}, $e->{plain}, $e->{delay}, "$ca/server.pem", "$ca/server-key.pem",
			@{ $e->{budget} // [] } ],
		'<pipe', $e->{in} = Symbol::gensym(), '>', \$out);
	$e->{h}->pump until $out =~ /ready/;
	$e->{url} = "https://localhost:$e->{port}/token";
	return $e;
}

# What the endpoint has seen since the last call
sub counts
{
	my ($e) = @_;
	my $http = HTTP::Tiny->new(timeout => 60);
	my $r = $http->get("http://localhost:$e->{plain}/counts");
	die "counts: $r->{status}" unless $r->{success};
	die 'reset' unless $http->post("http://localhost:$e->{plain}/reset")->{success};
	return decode_json($r->{content});
}

# connector(node, name, endpoint, rules...): its provider has these rules besides
sub connector
{
	my ($node, $name, $e, %rules) = @_;
	my $rules = encode_json({
		schema => 1, display_name => 'Benchmark', client_auth => ['client_secret_post'], pkce => 'S256',
		authorization => { url => "https://localhost:$e->{port}/authorize" },
		token => { url => "https://localhost:$e->{port}/token" },
		refresh => { rotates => 'always' }, %rules });
	$node->safe_psql('postgres', qq{
		SELECT oauth_vault.oauth_set_provider('bench_$name', '$rules');
		SELECT oauth_vault.oauth_create_connector('$name', 'bench_$name', '$name', 'a-secret-of-some-length',
			'https://app.example/callback', scopes => ARRAY['read'], refresh_policy => 'eager')});
	return;
}

# [user, assertion] of these people, good for five minutes
sub assertions
{
	my ($node, $from, $to) = @_;
	my $out = '';
	IPC::Run::run([ 'node', "$FindBin::Bin/assertions.mjs", "$node->{ov_vault}.signing-key.json", $user, $from, $to ],
		'>', \$out) or die 'assertions';
	return map { [ split /\t/ ] } split /\n/, $out;
}

sub _connect_some
{
	my ($node, $from, $to, @connectors) = @_;
	my @people = assertions($node, $from, $to);
	my @sessions;
	foreach my $i (0 .. 15)
	{
		my $file = PostgreSQL::Test::Utils::tempdir() . '/connect.sql';
		my $sql = '';
		for (my $k = $i; $k < @people; $k += 16)
		{
			my ($who, $jwt) = @{ $people[$k] };
			$sql .= join '', map { "SELECT c.status FROM oauth_vault.oauth_begin('$_', assertion => '$jwt') b,"
				. " oauth_vault.oauth_complete(b.state, 'a-code', assertion => '$jwt') c;\n" } @connectors;
		}
		PostgreSQL::Test::Utils::append_to_file($file, $sql);
		my $s = { out => '', err => '' };
		$s->{h} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-U', 'app', '-d', $node->connstr('postgres'), '-f', $file ],
			'<', \undef, '>', \$s->{out}, '2>', \$s->{err});
		push @sessions, $s;
	}
	foreach my $s (@sessions)
	{
		$s->{h}->finish or die "connecting failed: $s->{err}";
	}
	return;
}

sub connect_people
{
	my ($node, $from, $to, @connectors) = @_;
	for (my $at = $from; $at <= $to; $at += 1000)
	{
		_connect_some($node, $at, POSIX::fmin($at + 999, $to), @connectors);
	}
	return;
}

# All connections of this connector fall due, microseconds apart, at the moment returned.
sub make_due
{
	my ($node, $name, $seconds) = @_;
	my $due = $node->safe_psql('postgres', qq{SELECT clock_timestamp() + interval '$seconds seconds'});
	$node->safe_psql('postgres', qq{UPDATE oauth_vault.connection c SET refresh_at = '$due'::timestamptz - n * interval '1 microsecond'
		FROM (SELECT connection_id, row_number() OVER () - 1 AS n FROM oauth_vault.connection
			JOIN oauth_vault.connector USING (connector_id) WHERE name = '$name') o WHERE o.connection_id = c.connection_id});
	return $due;
}

# One bare curl_multi thread at this endpoint: requests a second, and CPU microseconds of each
sub bench_client
{
	my ($e, $in_flight, $requests) = @_;
	my $out = '';
	IPC::Run::run([ "$bin/client", $e->{url}, "$ca/ca.pem", $in_flight, $requests ], '>', \$out) or die 'client failed';
	my ($n, $seconds, $cpu) = split ' ', $out;
	return ($n / $seconds, 1e6 * $cpu / $n);
}

1;
