# storage.pl: what full cycles of refreshes do to the table they are stored in: how
# many updates are heap-only, how table and indexes grow, what autovacuum does.
#
# Environment: BENCH_CONNECTIONS (20000), BENCH_CYCLES (20), BENCH_LIFE (20): seconds
# that a token lives; each connection is renewed after about four fifths of them.
#
# Nothing is moved by hand: tokens are short-lived, policy eager, and the network
# worker renews them as they fall due.  autovacuum looks every five seconds, because
# a cycle here takes seconds and not an hour.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Bench;
use OauthVault::Test;
use Test::More;
use Time::HiRes qw(time);

my $connections = $ENV{BENCH_CONNECTIONS} || 20_000;
my $cycles = $ENV{BENCH_CYCLES} || 20;
my $life = $ENV{BENCH_LIFE} || 20;

bench_ca();
my $e = endpoint(delay => 0);
my $node = ov_cluster('storage', hosts => ["localhost:$e->{port}"], conf => <<'CONF');
shared_buffers = 1GB
max_wal_size = 8GB
checkpoint_timeout = 1h
jit = off
log_statement = none
autovacuum_naptime = 5s
oauth_vault.max_host_connections = 50
CONF
sub superuser { return $node->safe_psql('postgres', $_[0]); }
connector($node, "lives$life", $e);
my $began = time;
connect_people($node, 1, $connections, "lives$life");
note(sprintf 'seeded %d connections in %.0f s', $connections, time - $began);
superuser('VACUUM ANALYZE oauth_vault.connection; SELECT pg_stat_reset()');

sub state_of
{
	my @v = split /\|/, superuser(q{
		SELECT (SELECT sum(token_generation) FROM oauth_vault.connection), n_tup_upd, n_tup_hot_upd, n_dead_tup, autovacuum_count,
			pg_relation_size('oauth_vault.connection') / 1048576.0, pg_indexes_size('oauth_vault.connection') / 1048576.0,
			pg_relation_size('oauth_vault.connection_due') / 1048576.0,
			coalesce((SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'oauth_vault.connection'::regclass AND reltoastrelid <> 0), 0) / 1048576.0
		FROM pg_stat_user_tables WHERE relid = 'oauth_vault.connection'::regclass});
	my %s;
	@s{qw(generations updates hot dead vacuums table indexes due toast)} = @v;
	return \%s;
}
my $start = state_of();
my @at = $start;
my $wal = superuser('SELECT pg_current_wal_lsn()');
my $first = time;
foreach my $cycle (1 .. $cycles)
{
	my $wanted = $start->{generations} + $cycle * $connections;
	ov_wait_for("cycle $cycle", sub { superuser('SELECT sum(token_generation) FROM oauth_vault.connection') >= $wanted }, 10 * $life) or die 'too slow';
	push @at, state_of();
}
my $seconds = time - $first;
my $refreshes = $at[-1]{generations} - $start->{generations};
my $bytes = superuser("SELECT pg_current_wal_lsn() - '$wal'");

note('| cycle | updates of a refresh | heap-only | dead rows | autovacuums | table MB | indexes MB | of these due MB | TOAST MB |');
note('|---:|---:|---:|---:|---:|---:|---:|---:|---:|');
foreach my $cycle (grep { $_ == 0 || $_ == 1 || $_ % 5 == 0 } 0 .. $cycles)
{
	my $s = $at[$cycle];
	my $done = $s->{generations} - $start->{generations};
	note(sprintf '| %d | %s | %s | %d | %d | %.1f | %.1f | %.1f | %.1f |', $cycle,
		$done ? sprintf('%.2f', $s->{updates} / $done) : '', $s->{updates} ? sprintf('%.2f', $s->{hot} / $s->{updates}) : '',
		@$s{qw(dead vacuums table indexes due toast)});
}
note(sprintf '%d refreshes in %.0f s; %.0f bytes of WAL each', $refreshes, $seconds, $bytes / $refreshes);
is(superuser(q{SELECT count(*) FROM oauth_vault.connection WHERE status <> 'active'}), 0, 'no grant was lost');
cmp_ok($at[-1]{vacuums}, '>', 0, 'autovacuum has been there');
$node->stop('fast');
done_testing();
