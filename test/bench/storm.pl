# storm.pl: many connections fall due in the same second, while callers with live
# tokens go on asking.  How long it takes until the last is refreshed, what the
# callers notice of it, and what a server that enforces its budget says.
#
# Environment: BENCH_CONNECTIONS (100000), BENCH_BUDGET (0: none): refreshes a second
# that the endpoint allows and the provider's rules name; BENCH_DELAY_MS (100),
# BENCH_IN_FLIGHT (200), BENCH_CALLS (500): calls of oauth_fresh_token a second,
# BENCH_AUDIT (durable), BENCH_ROUNDS (1).
#
# The load is open loop: pgbench -R, so a call that had to wait counts from when it
# should have begun.  Calls at rest are those of as long a span before the storm.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Bench;
use IPC::Run ();
use List::Util qw(max min);
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $connections = $ENV{BENCH_CONNECTIONS} || 100_000;
my $budget = $ENV{BENCH_BUDGET} || 0;
my $delay = $ENV{BENCH_DELAY_MS} // 100;
my $in_flight = $ENV{BENCH_IN_FLIGHT} || 200;
my $calls = $ENV{BENCH_CALLS} || 500;
my $audit = $ENV{BENCH_AUDIT} || 'durable';
my $rounds = $ENV{BENCH_ROUNDS} || 1;
my $callers = 200;
my $lead = 18 + int($connections / 5000);

bench_ca();
my $e = endpoint(delay => $delay, $budget ? (budget => [ $budget, 1 ]) : ());
my $node = ov_cluster('storm', hosts => ["localhost:$e->{port}"], conf => <<CONF);
synchronous_commit = on
full_page_writes = on
track_commit_timestamp = on
shared_buffers = 1GB
max_wal_size = 8GB
checkpoint_timeout = 1h
jit = off
log_statement = none
oauth_vault.audit = $audit
oauth_vault.max_concurrency = @{[ min(10_000, max(600, 2 * $in_flight)) ]}
oauth_vault.max_host_connections = $in_flight
CONF
sub superuser { return $node->safe_psql('postgres', $_[0]); }

connector($node, 'storm', $e, $budget ? (rate_limit => { requests => $budget, seconds => 1 }) : ());
connector($node, $_, $e) foreach qw(live tick);
my $began = time;
connect_people($node, 1, $connections, 'storm');
connect_people($node, 1, $callers, 'live');
# One that is always due again soon: so the worker looks at what is due all the time.
connect_people($node, 0, 0, 'tick');
note(sprintf 'seeded %d connections of as many people in %.0f s', $connections, time - $began);
$node->append_conf('postgresql.conf', "fsync = on\n");
$node->reload;
superuser('VACUUM ANALYZE oauth_vault.connection');
is(superuser('SHOW fsync'), 'on', 'commits are durable');

# ---- callers ----

superuser('CREATE TABLE public.caller (n int PRIMARY KEY, jwt text); GRANT SELECT ON public.caller TO app');
sub new_assertions
{
	superuser('TRUNCATE public.caller; INSERT INTO public.caller VALUES '
		. join ',', map { my $p = $_; "(" . ($p->[0] =~ s/\D//gr) . ", '$p->[1]')" } assertions($node, 1, $callers));
	return;
}
my $dir = PostgreSQL::Test::Utils::tempdir();
my $script = "$dir/call.sql";
PostgreSQL::Test::Utils::append_to_file($script, "\\set n random(1, $callers)\n"
	. "SELECT length(oauth_vault.oauth_fresh_token('live', assertion => (SELECT jwt FROM public.caller WHERE n = :n)));\n");

sub start_calls
{
	my ($name, $seconds) = @_;
	my $c = { log => "$dir/$name", out => '', err => '' };
	$c->{h} = IPC::Run::start([ 'pgbench', '-n', '-M', 'prepared', '-c', 8, '-j', 1, '-R', $calls, '-T', $seconds, '-l',
			'--log-prefix', $c->{log}, '-f', $script, '-U', 'app', $node->connstr('postgres') ],
		'<', \undef, '>', \$c->{out}, '2>', \$c->{err});
	return $c;
}

# Milliseconds of the calls that ended between these moments
sub latencies
{
	my ($c, $from, $to) = @_;
	my @ms;
	foreach my $file (glob "$c->{log}.*")
	{
		# client, transaction, us from when it was due, script, seconds, us, us of lag
		foreach (split /\n/, slurp_file($file))
		{
			my @f = split;
			next if @f < 6;		# the last line of one that was stopped
			my $at = $f[4] + $f[5] / 1e6;
			push @ms, $f[2] / 1000 if $at >= $from && $at < $to;
		}
	}
	return @ms;
}

# ---- storms ----

my $most = 0;					# megabytes of the network worker's own
sub look_at_worker
{
	my $pid = superuser(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
	my ($anonymous) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;
	$most = max($most, $anonymous / 1024);
	return;
}

sub storm
{
	my ($round) = @_;
	new_assertions();
	my $due = make_due($node, 'storm', $lead);
	superuser('CHECKPOINT');
	my $at = superuser(qq{SELECT extract(epoch FROM '$due'::timestamptz)});
	die "not ready in time: raise the lead" if time > $at - 4;
	look_at_worker();
	my $before = $most;
	my $rest = min(20, $at - time - 1);
	counts($e);
	my $quiet = start_calls("rest$round", int($rest));
	$quiet->{h}->finish or die "calls: $quiet->{err}";
	my $calls_in_storm = start_calls("storm$round", 280);
	usleep(1e6 * max(0, $at - time));
	ov_wait_for('the last refresh', sub {
		look_at_worker();
		superuser(qq{SELECT count(*) FROM oauth_vault.connection JOIN oauth_vault.connector USING (connector_id)
			WHERE name = 'storm' AND issued_at < '$due'::timestamptz - interval '1 second'}) eq '0' }, 275)
		or die 'the refreshes did not end';
	kill INT => $calls_in_storm->{h}{KIDS}[0]{PID};
	$calls_in_storm->{h}->finish;
	my $end = superuser(q{SELECT extract(epoch FROM max(pg_xact_commit_timestamp(c.xmin)))
		FROM oauth_vault.connection c JOIN oauth_vault.connector USING (connector_id) WHERE name = 'storm'});
	my @calm = latencies($quiet, 0, $at);
	my @stormy = latencies($calls_in_storm, $at, $end);
	die 'no calls were measured' unless @calm && @stormy;
	my $seen = counts($e);
	return { seconds => $end - $at, calm => \@calm, stormy => \@stormy, rejected => $seen->{rejected}, peak => $seen->{peak},
		memory => $most - $before };
}

my @of = map { storm($_) } 1 .. $rounds;
# The bare client is no measure of thousands of connections: it opens them all at once.
my ($client) = bench_client($e, $in_flight, min($connections, 20_000)) unless $budget || $in_flight > 500;
my $seconds = median(map { $_->{seconds} } @of);
my $rejected = 0;
$rejected += $_->{rejected} foreach @of;

note('');
note('| due at once | seconds | refreshes/s | the endpoint\'s rate | calls/s, audit | p50 at rest | in the storm | p99 at rest | in the storm | ratio | 429 |');
note('|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|');
note(sprintf '| %d | %.1f | %.0f | %s | %d, %s | %.2f ms | %.2f ms | %.2f ms | %.2f ms | %.2f | %d |',
	$connections, $seconds, $connections / $seconds, $budget || ($client ? sprintf('%.0f', $client) : '-'), $calls, $audit,
	(map { my ($p) = $_; map { my ($k) = $_; median(map { percentile($p, @{ $_->{$k} }) } @of) } qw(calm stormy) } 0.5, 0.99),
	median(map { percentile(0.99, @{ $_->{stormy} }) / percentile(0.99, @{ $_->{calm} }) } @of), $rejected);
note(sprintf 'the endpoint had up to %d under way; the network worker grew by %.0f MB', max(map { $_->{peak} } @of), $of[0]{memory});
is(superuser(q{SELECT count(*) FROM oauth_vault.connection WHERE status <> 'active'}), '0', 'no grant is lost');
is($rejected, 0, 'the endpoint has sent nobody away') if $budget;
$node->stop('fast');
done_testing();
