# The provider is down for an hour while grants are revoked: nothing is lost,
# however often it is tried; Retry-After is honoured; a silent host costs no
# attempts; afterwards the queue drains and every outcome is on record.  Time is
# moved in the rows, not waited for.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP;
use OauthVault::Test;
use Test::More;

my $people = 30;
my $idp = ov_idp(ACCESS_TOKEN_TTL => 3600);
my $node = ov_cluster('outage', hosts => ["localhost:$idp->{port}"], conf => "oauth_vault.http_timeout = '1s'");
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub app { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'app' ]); }
sub behave { return ov_control($idp, 'POST', '/behavior', {@_}); }
sub outbox { return superuser(q{SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n
	FROM oauth_vault.revocation GROUP BY state) s}); }
# Any committed decision has the worker look.
sub wake { superuser("SELECT oauth_vault.oauth_alter_connector('demo', refresh_policy => 'lazy')"); return; }
sub let_pass { superuser(qq{UPDATE oauth_vault.revocation SET requested_at = requested_at - interval '$_[0]',
	next_attempt_at = now() WHERE state = 'queued'}); wake(); return; }
# Until each has been tried so often; one whose answer was under way comes up again.
# A host that answers 503 again and again is paused; a reload ends that, as time would.
sub outlast_pause { superuser('SELECT pg_reload_conf()'); return; }
sub tried { my ($n) = @_; return ov_wait_for("attempt $n", sub {
	return 1 if superuser("SELECT count(*) FROM oauth_vault.revocation WHERE state = 'queued' AND attempts < $n") eq '0';
	superuser("UPDATE oauth_vault.revocation SET next_attempt_at = now() WHERE state = 'queued' AND attempts < $n
		AND next_attempt_at > now() + interval '100 seconds'");
	outlast_pause();
	wake();
	return 0; }); }
sub attempts { return superuser("SELECT min(attempts) FROM oauth_vault.revocation WHERE state = 'queued'"); }

my @people = map { "person-$_" } 1 .. $people;
my %jwt = map { $_ => ov_assertion($node, $_, '--ttl', '1200') } @people;
my @urls = split /\n/, app(join '', map { "SELECT authorization_url FROM oauth_vault.oauth_begin('demo', assertion => '$jwt{$_}');\n" } @people);
my ($out, $err);
{
	local $ENV{CA} = "$ca_dir/ca.pem";
	my $in = encode_json([ map { [ $urls[$_], $people[$_] ] } 0 .. $#people ]);
	IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/drivers/consent.mjs", '--many' ], '<', \$in, '>', \$out, '2>', \$err,
		IPC::Run::timeout(60)) or die "consent: $err";
}
my @callbacks = split /\n/, $out =~ s/'/''/gr;
app(join '', map { "SELECT status FROM oauth_vault.oauth_callback('$callbacks[$_]', assertion => '$jwt{$people[$_]}');\n" } 0 .. $#people);
my @tokens = split /\n/, app(join '', map { "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt{$_}');\n" } @people);
is(scalar(@tokens), $people, "$people people have tokens");

# ---- busy for an hour, and asked more often than any refusal would be ----

behave(revocationStatus => 503);
is(superuser("SELECT connections FROM oauth_vault.oauth_revoke_connections(connector => 'demo', reason => 'outage')"), $people, 'all are revoked');
is((ov_sql_fails($node, $people[0], "SELECT oauth_vault.oauth_fresh_token('demo');"))[0], 'OV010', 'here at once');
tried(1);
# ten more in the rows alone: a host that is out of order is not asked so often
superuser(q{UPDATE oauth_vault.revocation SET attempts = attempts + 10});
let_pass('1 hour');
tried(12);
# one that met the pause has its attempt back
ok(attempts() >= 11, 'after an hour each has been tried eleven times and more');
is(outbox(), "queued $people", 'none has been given up');
is(superuser('SELECT count(*) FROM oauth_vault.revocation WHERE refresh_token IS NULL'), 0, 'each still has what it needs');
is(ov_sql($node, $people[0], 'SELECT status, provider_state FROM oauth_vault.oauth_connections;'), 'revoking|queued', 'people see how it stands');
behave(revocationStatus => 429, retryAfter => 300);
my $most = 'SELECT max(attempts) FROM oauth_vault.revocation';
my $tried = superuser($most);
outlast_pause();
let_pass('5 minutes');
ov_wait_for('another attempt', sub { superuser($most) > $tried });
ok(ov_wait_for('all to be put off', sub { superuser(qq{SELECT count(*) FROM oauth_vault.revocation
	WHERE next_attempt_at > now() + interval '4 minutes'}) eq $people }), 'Retry-After is honoured');

# ---- silent: a pause of the host costs no attempts ----

superuser('UPDATE oauth_vault.revocation SET attempts = (SELECT max(attempts) FROM oauth_vault.revocation)');
$tried = attempts();
$idp->{h}->signal('STOP');
outlast_pause();
let_pass('5 minutes');
# Those under way find it out; what waited behind them has not been sent.
ok(ov_wait_for('the silence', sub { superuser(qq{SELECT count(*) FILTER (WHERE attempts > $tried) >= 8
	AND (SELECT state || in_flight || waiting FROM oauth_vault.oauth_hosts) = 'paused00'
	FROM oauth_vault.revocation}) eq 't' }), 'the host falls silent');
my $sum = superuser('SELECT sum(attempts) FROM oauth_vault.revocation');
let_pass('5 minutes');
ok(ov_wait_for('the pause', sub { superuser('SELECT count(*) FROM oauth_vault.revocation WHERE next_attempt_at <= now()') eq '0' }), 'all wait for it');
cmp_ok(superuser('SELECT sum(attempts) FROM oauth_vault.revocation') - $sum, '<=', 2, 'and that is not counted, but for the one that looks whether it is back');
superuser(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
$idp->{h}->signal('CONT');
is(outbox(), "queued $people", 'nor does a worker that ends lose any');

# ---- it is back ----

behave(revocationStatus => 0, retryAfter => undef);
ok(ov_wait_for('the new worker', sub { superuser(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'}) eq '1' }), 'the worker is back');
ok(ov_wait_for('the drain', sub { let_pass('1 second') if outbox() =~ /queued/; outbox() eq "confirmed $people" }, 40), 'the queue drains');
is(superuser('SELECT count(*), count(access_token), count(refresh_token), count(settled_at), count(seen_at) FROM oauth_vault.revocation'),
	"$people|0|0|$people|$people", 'every outcome is recorded, no ciphertext is left');
is(superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'revocation_settled' AND reason LIKE 'confirmed%'}), $people, 'in the trail, too');
is(superuser("SELECT count(*) FROM oauth_vault.connection WHERE status = 'revoked'"), $people, 'and every connection has ended');
my $http = HTTP::Tiny->new(timeout => 20, verify_SSL => 1, SSL_options => { SSL_ca_file => "$ca_dir/ca.pem" });
my %answers;
$answers{ $http->get("$idp->{issuer}/me", { headers => { authorization => "Bearer $_" } })->{status} }++ foreach @tokens;
is_deeply(\%answers, { 401 => $people }, 'the provider takes none of the tokens');

# ---- it never comes back ----

behave(revocationStatus => 503);
my $who = 'person-31';
ov_connect($node, $who, 'demo');
ov_sql($node, $who, "SELECT oauth_vault.oauth_revoke('demo');");
foreach my $step (1 .. 11)
{
	tried($step);
	let_pass($step == 11 ? '8 days' : '5 minutes');
}
ok(ov_wait_for('the end', sub { outbox() eq "confirmed $people, failed 1" }), 'after a week it is given up');
like(ov_sql($node, $who, 'SELECT provider_state, provider_outcome, residual_until > now() FROM oauth_vault.oauth_connections;'),
	qr/^failed\|.*temporarily_unavailable.*\|t$/, 'with the reason, and until when the token may live');
$node->stop('fast');
done_testing();
