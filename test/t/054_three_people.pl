# Three people on one connector, each with scopes of their own: the consent URL
# proves it (test/sim/people.mjs).
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $sim = ov_sim();
my $node = ov_sim_cluster($sim, 'people');
ov_sim_claims($sim, $node, 'people.mjs', qw(reader stocker clerk));
$node->stop('fast');
done_testing();
