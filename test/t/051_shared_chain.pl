# Connections that have one chain of refresh tokens: one request renews them all,
# and what ends one of them leaves the others alone (test/sim/shared.mjs).
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $sim = ov_sim();
my $node = ov_sim_cluster($sim, 'shared');
ov_sim_claims($sim, $node, 'shared.mjs', qw(ada ben cleo));
$node->stop('fast');
done_testing();
