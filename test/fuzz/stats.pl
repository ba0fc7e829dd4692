# stats.pl HARNESS LOG: one line of what a run of libFuzzer did.
use strict;
use warnings;

my ($name, $log) = @ARGV;
open my $in, '<', $log or die "$log: $!\n";
my ($cov, $ft, $corpus, %stat) = (0, 0, 0);
while (<$in>)
{
	($cov, $ft, $corpus) = ($1, $2, $3) if /cov: (\d+) ft: (\d+) corp: (\d+)/;
	$stat{$1} = $2 if /^stat::(\w+):\s+(\d+)/;
}
die "$log says nothing about executions\n" unless $stat{number_of_executed_units};
printf "%-16s %10d executions, %5d edges, %6d features, %5d inputs kept, %4d MB\n",
	$name, $stat{number_of_executed_units}, $cov, $ft, $corpus, $stat{peak_rss_mb};
