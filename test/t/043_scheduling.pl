# When refreshes leave: within the provider's budget, not at all while it is down,
# one at first when it comes back, and no provider's crowd before everybody else's.
use strict;
use warnings;
use List::Util qw(max min);
use OauthVault::Test;
use Test::More;
use Time::HiRes qw(time);

my %server = map { $_ => ov_fault() } qw(budget busy dead well);
my $node = ov_cluster('scheduling', hosts => [ map { "localhost:$_->{port}" } values %server ],
	conf => "oauth_vault.http_timeout = '2s'\noauth_vault.max_concurrency = 24\n");
my $jwt = ov_assertion($node, 'ada', '--ttl', '3600');

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub app { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'app' ]); }
sub script { my ($s, $path, @answers) = @_; return ov_control($server{$s}, 'POST', '/script', { path => $path, answers => \@answers }); }
sub tokens { my ($s, @more) = @_; return script($s, '/token', { repeat => -1, @more, body => {
	access_token => 'access', token_type => 'Bearer', expires_in => 3600, refresh_token => 'refresh' } }); }
sub journal { my ($s, $path) = @_; return [ grep { $_->{path} eq ($path // '/token') } @{ ov_control($server{$s}, 'GET', '/journal') } ]; }
sub reset_server { ov_control($server{ $_[0] }, 'POST', '/reset'); return; }
sub where { return "connector_id = (SELECT connector_id FROM oauth_vault.connector WHERE name = '$_[0]')"; }
sub count { my ($s, $what) = @_; return superuser('SELECT count(*) FROM oauth_vault.connection WHERE ' . where($s) . " AND $what"); }
sub host { my ($s, $column) = @_; return superuser("SELECT $column FROM oauth_vault.oauth_hosts WHERE host = 'localhost:$server{$s}->{port}'"); }
sub due { my ($s) = @_; superuser('UPDATE oauth_vault.connection SET refresh_at = now(), attempts = 0 WHERE ' . where($s)); wake_up(); return; }
sub wake_up { superuser(q{SELECT oauth_vault.oauth_alter_connector('budget')}); return; }
sub worker { return superuser(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'}); }

# One person with many accounts; the code is the fault server's to accept.
sub connect_many
{
	my ($s, $n, $rules) = @_;
	my $base = "https://localhost:$server{$s}->{port}";
	superuser(qq{SELECT oauth_vault.oauth_set_provider('$s', '{"schema": 1, "display_name": "$s",
		"client_auth": ["client_secret_post"], "authorization": {"url": "$base/authorize"}, "token": {"url": "$base/token"},
		"revocation": {"refresh_token": {"url": "$base/revoke"}}, "refresh": {"rotates": "never"}}');
		SELECT oauth_vault.oauth_create_connector('$s', '$s', 'client', 'secret', 'https://app.example/cb', refresh_policy => 'eager')});
	superuser("SELECT oauth_vault.oauth_set_provider('$s', '$rules')") if $rules;
	tokens($s);
	app(qq{DO \$\$ DECLARE s text; BEGIN FOR i IN 1 .. $n LOOP
		SELECT state INTO s FROM oauth_vault.oauth_begin('$s', account => 'a' || i, assertion => '$jwt');
		PERFORM oauth_vault.oauth_callback('https://app.example/cb?code=c' || i || '&state=' || s, assertion => '$jwt');
	END LOOP; END \$\$});
	reset_server($s);
	return;
}
# The most that any span of so many ms has seen
sub densest
{
	my ($ms, @at) = @_;
	return max(map { my $from = $_; scalar grep { $_ >= $from && $_ < $from + $ms } @at } @at);
}

# ---- the budget ----

connect_many('budget', 90);
superuser(q{SELECT oauth_vault.oauth_set_provider('budget', (SELECT rules || '{"rate_limit": {"requests": 60, "seconds": 3}}'
	FROM oauth_vault.oauth_providers WHERE name = 'budget'))});
tokens('budget', limit => { requests => 60, ms => 3000 });
due('budget');
ov_wait_for('the first', sub { @{ journal('budget') } > 4 });
is(host('budget', 'budget_requests || $$ in $$ || budget_seconds'), '60 in 3', 'the host is known to have a budget');
cmp_ok(count('budget', 'refresh_at < now()'), '>', 20, 'many wait');
my $t = time;
is(app("SELECT oauth_vault.oauth_fresh_token('budget', 'a90', assertion => '$jwt')"), 'access', 'who has a live token is served');
cmp_ok(time - $t, '<', 0.5, 'at once');
superuser('UPDATE oauth_vault.connection SET expires_at = now() - interval $$1 minute$$, refresh_at = now() + interval $$1 hour$$ WHERE '
	. where('budget') . q{ AND account = 'a89'});
$t = time;
app("SELECT oauth_vault.oauth_fresh_token('budget', 'a89', assertion => '$jwt')");
cmp_ok(time - $t, '<', 1, 'who needs a new one goes before those that are merely due');
cmp_ok(count('budget', 'refresh_at < now()'), '>', 5, 'which still wait');
my $pid = worker();
superuser("SELECT pg_terminate_backend($pid)");
ok(ov_wait_for('all of them', sub { count('budget', 'refresh_at < now()') == 0 && superuser('SELECT count(*) FROM oauth_vault.intent') == 0 }, 20),
	'all are renewed');
my @requests = @{ journal('budget') };
is(scalar(grep { $_->{status} == 429 } @requests), 0, 'field failure 3.20: the server that enforces the budget has refused none');
cmp_ok(densest(3000, map { $_->{at} } @requests), '<=', 60, 'though a worker ended on the way');
cmp_ok(max(map { $_->{at} } @requests) - min(map { $_->{at} } @requests), '<', 12000, 'and the budget was made use of');

# ---- out of order, and back ----

connect_many('busy', 30);
script('busy', '/token', { status => 503, headers => { 'retry-after' => '3' }, body => {}, repeat => -1 });
due('busy');
ok(ov_wait_for('a pause', sub { host('busy', 'state') eq 'paused' }), 'a host that is out of order is paused');
my $refused = @{ journal('busy') };
cmp_ok($refused, '<=', 10, 'after few requests');
is(host('busy', 'paused_until > now() + interval $$1 second$$'), 't', 'as long as it has asked for');
is(superuser(q{SELECT hosts_paused FROM oauth_vault.oauth_status}), 1, 'oauth_status counts it');
like(superuser(q{SELECT attention FROM oauth_vault.oauth_status}), qr/provider: hosts out of order.*localhost:$server{busy}->{port}/, 'and says who it is');
is(superuser(q{SELECT value FROM oauth_vault.oauth_metrics WHERE name = 'oauth_vault_host_paused'
	AND labels->>'host' LIKE '%:} . $server{busy}->{port} . q{'}), 1, 'oauth_metrics, too');
app("SELECT oauth_vault.oauth_revoke('busy', 'a30', assertion => '$jwt')");
script('busy', '/revoke', { repeat => -1 });
ov_wait_for('a look at the outbox', sub { superuser(q{SELECT count(*) FROM oauth_vault.revocation WHERE next_attempt_at > now() + interval '0.3 s'}) == 1 });
is(superuser('SELECT attempts FROM oauth_vault.revocation'), 0, 'a revocation that waits for it is no attempt');
reset_server('busy');
script('busy', '/revoke', { repeat => -1 });
tokens('busy', delayMs => 300);
$pid = worker();
superuser("SELECT pg_terminate_backend($pid)");
ov_wait_for('the next worker', sub { my $now = worker(); $now ne '' && $now ne $pid });
is(host('busy', 'state'), 'paused', 'the next worker knows of the pause');
ok(ov_wait_for('all of them', sub { count('busy', "refresh_at < now() + interval '1 minute' AND status = 'active'") == 0 }, 30), 'when it is over, all are renewed');
my @back = @{ journal('busy') };
is($back[0]->{inFlight}, 1, 'field failure 3.20: one goes first');
my @revoked = @{ journal('busy', '/revoke') };
my $first = min(map { $_->{at} } grep { defined } $back[0], $revoked[0]);
cmp_ok($back[1]->{at} - $first, '>=', $back[0]->{at} == $first ? 290 : 0, 'and the others after its answer');
cmp_ok($back[1]->{inFlight}, '<=', 2, 'few');
is(scalar(grep { $back[$_]->{inFlight} > $_ + 1 } 0 .. $#back), 0, 'and each answer makes room for one more');
cmp_ok(max(map { $_->{inFlight} } @back), '<=', 8, 'up to the limit');
ok(ov_wait_for('the revocation', sub { superuser(q{SELECT count(*) FROM oauth_vault.revocation WHERE state = 'confirmed'}) == 1 }), 'the revocation is told');
is(superuser('SELECT attempts FROM oauth_vault.revocation'), 1, 'in one attempt');
is(host('busy', 'state || failures'), 'ok0', 'all is well');

# ---- one provider's crowd ----

connect_many('dead', 60);
connect_many('well', 6);
script('dead', '/token', { delayMs => 60_000, repeat => -1 });
tokens('well');
superuser(q{UPDATE oauth_vault.connection SET refresh_at = CASE WHEN } . where('dead') . q{ THEN now() - interval '1 hour' ELSE now() END
	WHERE } . where('dead') . ' OR ' . where('well'));
wake_up();
ok(ov_wait_for('those of the other', sub { count('well', 'refresh_at < now()') == 0 }, 3), 'a provider that hangs does not keep another one waiting');
cmp_ok(count('dead', 'refresh_at < now()'), '>', 20, 'though its own were due long before');
cmp_ok(superuser('SELECT count(*) FROM oauth_vault.intent'), '<=', 18, 'and there are more of them than jobs');
ok(ov_wait_for('a pause', sub { host('dead', 'state') eq 'paused' }), 'until it is given up for a while');
my $untouched = superuser('SELECT count(*) FROM oauth_vault.connection WHERE ' . where('dead') . q{ AND refresh_at < now() - interval '30 minutes'});
cmp_ok($untouched, '>', 20, 'those that have not been tried are left as they are');

# A connector that rests is not written to either.
superuser(q{SELECT oauth_vault.oauth_alter_connector('well', status => 'paused')});
due('well');
my $before = superuser('SELECT string_agg(xmin::text, $$ $$ ORDER BY account) FROM oauth_vault.connection WHERE ' . where('well'));
my $looks = superuser('SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = $$connection_due$$');
ov_wait_for('some looks at what is due', sub {
	wake_up();
	superuser('SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = $$connection_due$$') > $looks + 10 }, 5);
is(superuser('SELECT string_agg(xmin::text, $$ $$ ORDER BY account) FROM oauth_vault.connection WHERE ' . where('well')), $before,
	'nor are those of a connector that rests');
superuser(q{SELECT oauth_vault.oauth_alter_connector('well', status => 'active')});
ok(ov_wait_for('those of the other', sub { count('well', 'refresh_at < now()') == 0 }, 10), 'which come up at once when it works again');
$node->stop('fast');
done_testing();
