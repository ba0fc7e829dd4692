# refresh.pl: how fast connections that fall due at once are refreshed, end to
# end with durable commits, against one bare curl_multi thread and, where it is
# installed, pg_net, at the same endpoint.
#
# Environment: BENCH_CONNECTIONS (10000) per endpoint, BENCH_ROUNDS (5),
# BENCH_PROFILE=1: perf record of the network worker, into $WORK/perf.data.
# Prints a table and writes doc/bench-refresh.svg.
#
# What is measured is the middle of the run of one server and one client on the
# same machine, interleaved: the extension, the bare client, pg_net, and again.
# The extension's time runs from the moment the connections are due to the
# commit of the last one's tokens, as the server noted it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Bench;
use IPC::Run ();
use OauthVault::Test;
use Plot qw(bars);
use POSIX ();
use Test::More;
use Time::HiRes qw(time usleep);

my $connections = $ENV{BENCH_CONNECTIONS} || 10_000;
my $rounds = $ENV{BENCH_ROUNDS} || 5;
my $tree = $ENV{OV_TREE};
my $has_pg_net = -e "$ENV{PGLIBDIR}/pg_net.so";
sub say_ { note(join '', @_); return; }

bench_ca();
my @endpoints = (
	endpoint(name => 'fast', delay => 0, in_flight => 50, pg_net => 1000, target => 0.70, net_target => 20),
	endpoint(name => 'slow', delay => 100, in_flight => 200, pg_net => 1000, target => 0.90, net_target => 8));

# ---- the server ----

my $node = ov_cluster('bench', hosts => [ map { "localhost:$_->{port}" } @endpoints ], conf => <<CONF);
@{[ $has_pg_net ? "shared_preload_libraries = 'oauth_vault, pg_net'" : '' ]}
synchronous_commit = on
full_page_writes = on
wal_level = replica
track_commit_timestamp = on
shared_buffers = 1GB
max_wal_size = 8GB
checkpoint_timeout = 1h
jit = off
log_statement = none
oauth_vault.max_concurrency = 600
CONF
sub superuser { return $node->safe_psql('postgres', $_[0]); }

connector($node, $_->{name}, $_) foreach @endpoints;
connector($node, 'tick', $endpoints[0]);

my $began = time;
connect_people($node, 1, $connections, map { $_->{name} } @endpoints);
# One that is always due again soon: the worker looks at what is due every second
# or two, and so learns in time of rows that we move in the table.
connect_people($node, 0, 0, 'tick');
say_ sprintf 'seeded 2 x %d connections of %d people in %.0f s', $connections, $connections, time - $began;
# Seeding need not be safe; what is measured is.
$node->append_conf('postgresql.conf', "fsync = on\n");
$node->reload;
superuser('VACUUM ANALYZE oauth_vault.connection');
superuser('CHECKPOINT');
is(superuser('SHOW fsync'), 'on', 'commits are durable');

# ---- runs ----

sub set_in_flight
{
	my ($n) = @_;
	$node->append_conf('postgresql.conf', "oauth_vault.max_host_connections = $n\n");
	$node->reload;
	return;
}

# Refreshes per second of connections that all fall due in one second to come
sub run_extension
{
	my ($e) = @_;
	my $connector = "(SELECT connector_id FROM oauth_vault.connector WHERE name = '$e->{name}')";
	my $due = make_due($node, $e->{name}, 4);
	usleep(4_000_000);
	ov_wait_for('the last refresh', sub {
		superuser(qq{SELECT count(*) FROM oauth_vault.connection WHERE refresh_at <= '$due'::timestamptz
			AND refresh_at > '$due'::timestamptz - interval '1 second' AND connector_id = $connector}) eq '0' }, 300)
		or die 'the refreshes did not end';
	my ($n, $seconds) = split /\|/, superuser(qq{SELECT count(*),
		extract(epoch FROM max(pg_xact_commit_timestamp(xmin)) - '$due'::timestamptz)
		FROM oauth_vault.connection WHERE connector_id = $connector AND issued_at > '$due'::timestamptz - interval '1 second'});
	die "refreshed $n of $connections" unless $n == $connections;
	return $n / $seconds;
}

sub run_client
{
	my ($e) = @_;
	my ($rate, $cpu) = bench_client($e, $e->{in_flight}, $connections);
	push @{ $e->{cpu} }, $cpu;
	return $rate;
}

# Without TLS, as its worker takes no CA from us; that is to its advantage.
sub run_pg_net
{
	my ($e) = @_;
	superuser('TRUNCATE net._http_response');
	my ($start) = superuser(qq{
		SELECT count(net.http_post('http://localhost:$e->{plain}/token', jsonb_build_object('refresh_token', repeat('x', 500))))
		FROM generate_series(1, $e->{pg_net}); SELECT clock_timestamp()}) =~ /^\d+\n(.+)/;
	ov_wait_for('pg_net', sub { superuser('SELECT count(*) FROM net._http_response') >= $e->{pg_net} }, 120) or die 'pg_net';
	my ($seconds, $bad) = split /\|/, superuser(qq{SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin)) - '$start'),
		count(*) FILTER (WHERE status_code IS DISTINCT FROM 200) FROM net._http_response});
	$e->{bad} += $bad;
	return $e->{pg_net} / $seconds;
}

superuser(q{CREATE EXTENSION pg_net}) if $has_pg_net;
my %run = (extension => \&run_extension, client => \&run_client, pg_net => \&run_pg_net);
my @kinds = ('extension', 'client', $has_pg_net ? 'pg_net' : ());
my $worker = superuser(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
my $cpu_of = sub {
	my @stat = split ' ', PostgreSQL::Test::Utils::slurp_file("/proc/$worker/stat") =~ s/^.*\) //sr;
	return ($stat[11] + $stat[12]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
};
foreach my $e (@endpoints)
{
	set_in_flight($e->{in_flight});
	run_extension($e);			# opens connections, prepares plans
	my $perf;
	$perf = IPC::Run::start([ 'perf', 'record', '-q', '-g', '-F', 999, '-p', $worker, '-o', "$ENV{WORK}/perf.$e->{name}" ])
		if $ENV{BENCH_PROFILE};
	foreach my $round (1 .. $rounds)
	{
		foreach my $kind (@kinds)
		{
			my $before = $cpu_of->();
			push @{ $e->{rate}{$kind} }, $run{$kind}->($e);
			push @{ $e->{worker_cpu} }, 1e6 * ($cpu_of->() - $before) / $connections if $kind eq 'extension';
		}
		say_ sprintf '%s round %d: %s', $e->{name}, $round,
			join ', ', map { sprintf '%s %.0f/s', $_, $e->{rate}{$_}[-1] } @kinds;
	}
	if ($perf) { $perf->signal('INT'); $perf->finish; }
}

# ---- what came of it ----

say_ '';
say_ sprintf '| endpoint | in flight | refreshes/s, committed | bare curl_multi/s | ratio (min-max) | target |%s',
	$has_pg_net ? ' pg_net/s | ratio | target |' : '';
say_ '|---|---:|---:|---:|---:|---:|', $has_pg_net ? '---:|---:|---:|' : '';
foreach my $e (@endpoints)
{
	my @ratios = sort { $a <=> $b } map { $e->{rate}{extension}[$_] / $e->{rate}{client}[$_] } 0 .. $rounds - 1;
	my @net = $has_pg_net ? map { $e->{rate}{extension}[$_] / $e->{rate}{pg_net}[$_] } 0 .. $rounds - 1 : ();
	say_ sprintf('| %d ms | %d | %.0f | %.0f | %.2f (%.2f-%.2f) | %.2f |', $e->{delay}, $e->{in_flight},
		median(@{ $e->{rate}{extension} }), median(@{ $e->{rate}{client} }), median(@ratios), $ratios[0], $ratios[-1], $e->{target}),
		$has_pg_net ? sprintf(' %.0f | %.0f | %d |', median(@{ $e->{rate}{pg_net} }), median(@net), $e->{net_target}) : '';
}
say_ '';
say_ sprintf '%s: CPU of the network worker %.0f us a refresh, of the bare client %.0f us a request%s', $_->{name},
	median(@{ $_->{worker_cpu} }), median(@{ $_->{cpu} }), $_->{bad} ? "; pg_net failed $_->{bad} requests" : ''
	foreach @endpoints;
say_ 'SKIP pg_net: not installed (PG_NET=DIRECTORY with pg_net.so, pg_net.control and pg_net--*.sql)' unless $has_pg_net;

bars("$tree/doc/bench-refresh.svg",
	title => 'Refreshes a second, committed to disk', unit => '/s, medians; the axis is logarithmic',
	groups => [ map { my $e = $_; { label => "endpoint answers after $e->{delay} ms, $e->{in_flight} in flight",
		bars => [ map { { label => { extension => 'oauth_vault', client => 'bare curl_multi, nothing stored', pg_net => 'pg_net' }->{$_},
			value => median(@{ $e->{rate}{$_} }) } } @kinds ] } } @endpoints ]);

$node->stop('fast');
pass('benchmark');
done_testing();
