# README's "First connection in two minutes", followed literally and timed: with
# `make try` in one terminal and psql in another.  Then the minting snippets.
use strict;
use warnings;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $tree = $ENV{OV_TREE} or die "OV_TREE is not set; run through make check";
my $readme = slurp_file("$tree/README.md");
my ($section) = $readme =~ /^## First connection in two minutes\n(.*?)^Your own Google/ms;
my @blocks = $section =~ /^```\w+\n(.*?)^```/gms;
is(scalar(@blocks), 3, 'the section has three blocks');

# The first terminal
my $start = time;
my ($said, $log) = ('', '');
my $try = IPC::Run::start([ 'bash', "$tree/examples/try.sh" ], '<pipe', my $enter = Symbol::gensym(),
	'>', \$said, '2>', \$log, IPC::Run::timeout(100));
until ($said =~ /Enter or Ctrl-C/)
{
	$try->pump_nb;
	die "try.sh ended early: $said\n$log" unless $try->pumpable;
	usleep(20_000);
}
my ($line) = $said =~ /^\s+(\. \S+)$/m;
ok($line, 'make try prints the line to paste');

# The second; the block goes to the command's standard input
my $dir = PostgreSQL::Test::Utils::tempdir();
sub terminal
{
	my ($command, $input) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'bash', '-c', "cd '$tree' && $line && $command" ], '<', \$input, '>', \$out, '2>', \$err,
		IPC::Run::timeout(100));
	is($?, 0, "runs: $command") or diag($err);
	return $out;
}
my $psql = 'psql -X -v ON_ERROR_STOP=1';
terminal($psql, $blocks[0]);
like(terminal('bash -e', $blocks[1]), qr/^[\w-]+\.[\w-]+\.[\w-]+$/, 'the tool prints an assertion');
my $out = terminal("$psql -U app", $blocks[2]);
like($out, qr{^https://localhost:\d+/auth\?}m, 'a consent URL');
like($out, qr/\| active +\|/, 'the connection is live');
my ($token) = $out =~ /oauth_fresh_token.*\n-+\n +(\S+)\n/;
cmp_ok(length($token // ''), '>', 20, 'a token');
cmp_ok(time - $start, '<', 120, 'in under two minutes');

# The minting snippets, run as they stand.
my ($vault) = terminal('printf %s "$VAULT"') =~ /(.+)/;
foreach my $snippet ([ 'js', 'mjs', 'node' ], [ 'python', 'py', '/usr/bin/python3' ],
	[ 'go', 'go', "GO111MODULE=off GOCACHE='$dir/go' go run" ])
{
	my ($language, $suffix, $command) = @$snippet;
	my ($code) = $readme =~ /^```$language\n(.*?)^```/ms;
	$code =~ s{/etc/oauth_vault/vault\.json}{$vault}g;
	append_to_file("$dir/mint.$suffix", $code);
	my $minted = terminal("$command '$dir/mint.$suffix'") =~ s/\s//gr;
	is(terminal("$psql -At -U app", "SELECT user_id || ' ' || (actor->>'sub') FROM oauth_vault.oauth_whoami(assertion => '$minted');"),
		"ada my-agent\n", "the $language snippet mints a valid assertion");
}

# Standard input closes, and everything ends.
my $data = "$ENV{WORK}/try/postmaster.pid";
ok(-e $data, 'the cluster ran');
close $enter;
$try->finish;
is($try->result(0), 0, 'make try ends when its standard input does');
ok(!-e $data, 'and its cluster with it');
done_testing();
