# What integrations with particular providers are known to fall into, each a test
# named after it, against their simulators (test/sim/traps.mjs).
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $sim = ov_sim();
my $node = ov_sim_cluster($sim, 'traps');
ov_sim_claims($sim, $node, 'traps.mjs', 'ada', 'ben');
$node->stop('fast');
done_testing();
