# Every provider of the catalogue goes its whole way against a simulator of its
# wire behaviour (test/sim), at its real host names: begin, callback, complete,
# the credential at its API, refresh, a grant that is gone in the provider's own
# words (one attempt), revocation or its recorded absence.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use Test::More;

my $sim = ov_sim();
my $node = ov_sim_cluster($sim, 'providers');
my ($out, $err) = ('', '');
{
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, CA => "$ca_dir/ca.pem", PARTIAL => 1, PGUSER => $node->safe_psql('postgres', 'SELECT current_user'),
		ASSERTION => ov_assertion($node, 'ada'), SIM_PORT => $sim->{port}, SIM_CONTROL => $sim->{control});
	IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/sim/drive.mjs" ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(240))
	  or diag("the driver: $err");
}
my $claims = 0;
foreach my $line (split /\n/, $out)
{
	if ($line =~ /^(not )?ok \d+ - (.*)/) { ok(!$1, $2); $claims++; }
	elsif ($line =~ /^# found|^# last/) { diag($line); }
	elsif ($line =~ /^# (.*)/) { note($1); }
}
like($out, qr/^1\.\.$claims$/m, 'the driver came to its end') or diag($err);
is(${ $sim->{err} }, '', 'the simulators had no trouble of their own');
like($out, qr/^# \d+ of \d+ providers pass: \d+ as documented by example, \d+ as documented in prose, \d+ uncertain$/m, 'the split is told');
$node->stop('fast');
done_testing();
