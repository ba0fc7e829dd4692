# Every provider of the catalogue goes its whole way against a simulator of its
# wire behaviour (test/sim), at its real host names: begin, callback, complete,
# the credential at its API, refresh, a grant that is gone in the provider's own
# words (one attempt), revocation or its recorded absence.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $sim = ov_sim();
my $node = ov_sim_cluster($sim, 'providers');
my @remarks = ov_sim_claims($sim, $node, 'drive.mjs', 'ada');
like($remarks[-1], qr/^\d+ of \d+ providers pass: \d+ as documented by example, \d+ as documented in prose, \d+ uncertain$/,
	'the split is told');
diag($remarks[-1]);
$node->stop('fast');
done_testing();
