# README's "First connection in two minutes", followed literally and timed.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $readme = slurp_file("$ENV{OV_TREE}/README.md");
my ($section) = $readme =~ /^## First connection in two minutes\n(.*?)^(?:The issuer's host)/ms;
my @blocks = $section =~ /```(\w+\n.*?)```/gs;
is(scalar(@blocks), 3, 'the section has three blocks');

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $start = time;
my $node = ov_cluster('readme', hosts => ["localhost:$idp->{port}"]);
my $fit = sub {
	my ($text) = @_;
	$text =~ s/^\w+\n//;
	$text =~ s/localhost:9443/localhost:$idp->{port}/g;
	$text =~ s{/etc/oauth_vault/vault\.json}{$node->{ov_vault}}g;
	return $text;
};
$node->safe_psql('postgres', $fit->($blocks[0]));
my ($jwt) = PostgreSQL::Test::Utils::run_command([ 'sh', '-c', $fit->($blocks[1]) ]);
like($jwt, qr/^[\w-]+\.[\w-]+\.[\w-]+$/, 'the tool prints an assertion');
my @sql = grep { /\S/ } split /;\s*\n/, $fit->($blocks[2]) =~ s/^--[^\n]*\n//gmr;
is(scalar(@sql), 3, 'three statements');
my $run = sub {
	my ($sql, %vars) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "$sql;",
		extra_params => [ '-U', 'app', map { ('-v', "$_=$vars{$_}") } keys %vars ]);
	is($rc, 0, 'runs: ' . substr($sql, 0, 60) =~ s/\n/ /gr) or diag($err);
	return $out;
};
my $url = $run->($sql[0], jwt => $jwt);
my $callback = ov_consent($url, 'ada');
like($run->($sql[1], jwt => $jwt, callback_url => $callback), qr/\|active\|/, 'the connection is live');
cmp_ok(length($run->($sql[2], jwt => $jwt)), '>', 20, 'a token');
cmp_ok(time - $start, '<', 120, 'in under two minutes');

# The minting snippets, run as they stand.
my ($node_snippet) = $readme =~ /```js\n(.*?)```/s;
my $file = PostgreSQL::Test::Utils::tempdir() . '/mint.mjs';
append_to_file($file, $node_snippet =~ s{/etc/oauth_vault/vault\.json}{$node->{ov_vault}}gr);
my ($minted) = PostgreSQL::Test::Utils::run_command([ 'node', $file ]);
is($node->safe_psql('postgres', "SELECT user_id || ' ' || (actor->>'sub') FROM oauth_vault.oauth_whoami(assertion => '$minted')",
	extra_params => [ '-U', 'app' ]), 'ada my-agent', 'the Node snippet mints a valid assertion');
SKIP:
{
	skip 'python3-jwt is not installed', 1 unless -e '/usr/lib/python3/dist-packages/jwt';
	my ($python) = $readme =~ /```python\n(.*?)```/s;
	my $py = PostgreSQL::Test::Utils::tempdir() . '/mint.py';
	append_to_file($py, $python =~ s{/etc/oauth_vault/vault\.json}{$node->{ov_vault}}gr);
	my ($token) = PostgreSQL::Test::Utils::run_command([ '/usr/bin/python3', $py ]);
	is($node->safe_psql('postgres', "SELECT user_id FROM oauth_vault.oauth_whoami(assertion => '$token')",
		extra_params => [ '-U', 'app' ]), 'ada', 'the Python snippet too');
}
$node->stop('fast');
done_testing();
