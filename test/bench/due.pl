# due.pl: what it costs to find the connections that are due, by how many there
# are, and under an old snapshot that keeps yesterday's index entries.
#
# Environment: BENCH_SIZES ("10000 1000000"), BENCH_ROUNDS (15).
#
# Rows are inserted by a superuser: this is about an index, and no worker may
# touch them (the database is held: its home row says another instance).  Times
# are those of EXPLAIN ANALYZE: the statement the worker runs, warm, medians.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my @sizes = split ' ', $ENV{BENCH_SIZES} || '10000 1000000';
my $rounds = $ENV{BENCH_ROUNDS} || 15;
my $node = ov_cluster('due', conf => <<'CONF');
log_statement = none
shared_buffers = 2GB
max_wal_size = 8GB
checkpoint_timeout = 1h
jit = off
synchronous_commit = off
autovacuum_naptime = 5s
CONF
sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub median { my @s = sort { $a <=> $b } @_; return $s[$#s / 2]; }

superuser(q{
	SELECT oauth_vault.oauth_create_connector('due', 'google', 'client', 'secret', 'https://app.example/cb');
	UPDATE oauth_vault.home SET instance = 'elsewhere'});

# From a cursor on, as refresh_due.c does it
sub scan
{
	my ($from, $limit) = @_;
	return qq{SELECT n.connector_id, d.connection_id, d.refresh_at FROM oauth_vault.connector n
		LEFT JOIN unnest(ARRAY[(SELECT connector_id FROM oauth_vault.connector)], ARRAY['$from'::timestamptz], ARRAY[$limit]) k (id, since, most)
			ON k.id = n.connector_id
		CROSS JOIN LATERAL (SELECT i.connection_id, i.refresh_at FROM (SELECT c.connection_id, c.refresh_at FROM oauth_vault.connection c
			WHERE c.connector_id = n.connector_id AND c.status = 'active' AND c.refresh_at >= coalesce(k.since, '-infinity')
			ORDER BY c.refresh_at LIMIT 2200) i LIMIT coalesce(k.most, 8)) d WHERE n.status = 'active'};
}
sub timed
{
	my ($from, $limit) = @_;
	my $out = superuser(join '', map { 'EXPLAIN (ANALYZE, TIMING off) ' . scan($from, $limit) . ';' } 1 .. $rounds + 3);
	my @t = $out =~ /Execution Time: ([\d.]+) ms/g;
	return median(@t[ 3 .. $#t ]);
}

my %of;
foreach my $size (@sizes)
{
	# the same number due: the first thousand; all others in the hour after
	superuser(qq{
		TRUNCATE oauth_vault.connection CASCADE;
		INSERT INTO oauth_vault.connection (tenant, user_id, connector_id, status, key_id, token_generation, hosts_digest,
			expires_at, refresh_at, access_token, refresh_token)
		SELECT '', 'person' || i, (SELECT connector_id FROM oauth_vault.connector), 'active', 1, 1, decode(repeat('00', 32), 'hex'),
			now() + interval '1 hour',
			CASE WHEN i % ($size / 1000) = 0 THEN now() - i * interval '1 ms' ELSE now() + interval '1 minute' + (i::bigint * 7919 % $size) * interval '1 hour' / $size END,
			decode(repeat(md5(i::text), 40), 'hex'), decode(repeat(md5(i::text), 18), 'hex')
		FROM generate_series(1, $size) i});
	superuser('VACUUM ANALYZE oauth_vault.connection');
	my $index = superuser(q{SELECT pg_relation_size('oauth_vault.connection_due') / 1048576.0});
	$of{$size} = { tick => timed('-infinity', 100), thousand => timed('-infinity', 1000), idle => timed('now', 1), index => $index };
	note(sprintf '%9d connections: a tick of 100 %.2f ms, the next 1000 due %.2f ms, nothing due %.3f ms; index %.1f MB',
		$size, @{ $of{$size} }{qw(tick thousand idle index)});
}
my ($small, $large) = @of{ @sizes[ 0, -1 ] };
note(sprintf 'ratio %d to %d: tick %.2f, next 1000 %.2f, nothing due %.2f', $sizes[-1], $sizes[0],
	map { $large->{$_} / $small->{$_} } qw(tick thousand idle));

# An old snapshot, and three rounds in which the next 100,000 are renewed
my $old = $node->background_psql('postgres');
$old->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM oauth_vault.intent");
my $cursor = '-infinity';
foreach my $cycle (1 .. 3)
{
	my $next = superuser(qq{WITH done AS (UPDATE oauth_vault.connection c SET refresh_at = c.refresh_at + interval '2 hours',
		token_generation = token_generation + 1
		FROM (SELECT connection_id, refresh_at FROM oauth_vault.connection WHERE status = 'active' AND refresh_at >= '$cursor'
			ORDER BY refresh_at LIMIT 100000) d WHERE d.connection_id = c.connection_id RETURNING d.refresh_at) SELECT max(refresh_at) FROM done});
	my ($with, $without) = (timed($next, 1000), timed('-infinity', 1000));
	$cursor = $next;
	push @{ $of{with} }, $with;
	note(sprintf 'old snapshot, %d renewed: next 1000 from the cursor %.2f ms, from the beginning %.2f ms', $cycle * 100_000, $with, $without);
}
note(sprintf 'ratio under the old snapshot, from the cursor: %.2f', $of{with}[-1] / $large->{thousand});
$old->query_safe('COMMIT');
$old->quit;
cmp_ok($large->{tick} / $small->{tick}, '<', 5, 'a tick costs about the same');
cmp_ok($of{with}[-1] / $large->{thousand}, '<', 4, 'an old snapshot costs little');
$node->stop('fast');
done_testing();
