# What somebody on call asks at night: which figures are there, why is this
# connection in the state it is, and does it work if I try now?  Four incidents of a
# night; the fifth, a wrong clock, is in 044_clock.
use strict;
use warnings;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('oncall', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin;
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
my $ada = ov_connect($node, 'ada', 'demo');
my $bob = ov_connect($node, 'bob', 'demo');

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub dba { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'dba' ]); }
sub behave { return ov_control($idp, 'POST', '/behavior', {@_}); }
sub metric
{
	my ($name, $labels) = @_;
	return dba(qq{SELECT value FROM oauth_vault.oauth_metrics WHERE name = '$name' AND labels = '} . ($labels // '{}') . "'");
}
sub why
{
	my ($id, $item) = @_;
	return dba("SELECT value FROM oauth_vault.oauth_explain('$id') WHERE item = '$item'");
}
sub events { return metric('oauth_vault_events_total', qq({"event": "$_[0]", "outcome": "$_[1]"})) || 0; }

# ---- figures ----

is(metric('oauth_vault_connections', '{"connector": "demo", "status": "active"}'), 2, 'connections by connector and status');
is(metric('oauth_vault_worker_up', qq({"worker": "$_"})), 1, "the $_ worker is up") foreach qw(launcher key network audit);
is(events('connected', 'ok'), 2, 'counters come from shared memory');
is(events('reauth_required', 'failed'), 0, 'none of these yet');
is(metric('oauth_vault_held'), 0, 'not held');
cmp_ok(metric('oauth_vault_worker_heartbeat_age_seconds'), '<', 61, 'the worker is alive');
is(superuser(q{SELECT count(*) FROM oauth_vault.oauth_metrics WHERE name !~ '^oauth_vault_[a-z_]+$'
	OR type NOT IN ('gauge', 'counter') OR (type = 'counter') <> (name ~ '_total$')
	OR value IS NULL OR value = 'NaN' OR help = '' OR jsonb_typeof(labels) <> 'object'}), 0, 'names and types are those of OpenMetrics');
is(superuser(q{SELECT count(*) - count(DISTINCT (name, labels)) FROM oauth_vault.oauth_metrics}), 0, 'each series is there once');
is(superuser(q{SELECT count(*) FROM (SELECT name FROM oauth_vault.oauth_metrics GROUP BY name
	HAVING count(DISTINCT (type, help)) > 1) x}), 0, 'with one type and one help per name');

# The text is what a strict reader of OpenMetrics accepts, and says the same.
ov_wait_for('the event of the audit key, a series of its own', sub { superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'audit_key_created'}) == 1 });
my $text = dba('SELECT oauth_vault.oauth_metrics_text()');
like($text, qr/^# TYPE oauth_vault_events counter\n# HELP oauth_vault_events [^\n]+\n(?:oauth_vault_events_total\{[^\n]+\n)*oauth_vault_events_total\{event="connected",outcome="ok"\} 2$/m,
	'a family has its TYPE and HELP');
like($text, qr/^# UNIT oauth_vault_worker_heartbeat_age_seconds seconds$/m, 'and its UNIT');
like($text, qr/\n# EOF\n?\z/, 'and the text its end');
my ($series, $complaint) = ('', '');
IPC::Run::run([ 'python3', '-c', 'import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as f
print(sum(len(m.samples) for m in f(sys.stdin.read())))' ], '<', \$text, '>', \$series, '2>', \$complaint);
is($complaint, '', 'a parser has nothing to say against it');
is($series + 0, superuser('SELECT count(*) FROM oauth_vault.oauth_metrics'), 'and finds every series');

# ---- now ----

my $before = metric('oauth_vault_provider_requests_total', '{"result": "answered"}');
my $generation = why($ada, 'token_generation');
is(dba("SELECT oauth_vault.oauth_refresh('$ada')"), 'refreshed', 'a refresh on demand says what came of it');
is(why($ada, 'token_generation'), $generation + 1, 'there is a new token');
is(metric('oauth_vault_provider_requests_total', '{"result": "answered"}'), $before + 1, 'for one request');
is(superuser(q{SELECT database_role FROM oauth_vault.audit WHERE event = 'refreshed' AND user_id = 'ada'}), 'dba',
	'the audit trail has the role that asked');
like(why($ada, 'summary'), qr/^live; renewed when somebody asks: .*lazy/, 'a lazy connection waits to be asked');

# ---- the provider is busy ----

behave(failNext => 1, failStatus => 503, retryAfter => 300);
like(dba("SELECT oauth_vault.oauth_refresh('$ada')"), qr/^OV020: .*"retry_at"/, 'a failure is told, with the next attempt');
like(why($ada, 'summary'), qr/^the last 1 attempts have failed: .*; tried again at /, 'and explained');
is(why($ada, 'failed_attempts'), 1, 'with its count');
is(metric('oauth_vault_connections_failing', '{"connector": "demo"}'), 1, 'and shows in the figures');
is(events('refresh_failed', 'failed'), 1, 'as a counter too');
is(dba("SELECT oauth_vault.oauth_refresh('$ada')"), 'refreshed', 'asked for again, the back-off does not count');
is(why($ada, 'failed_attempts'), '', 'and all is well');

# A refresh that was asked for here is not the one that a rejection forces.
is(superuser(qq{SELECT forced_at IS NULL FROM oauth_vault.connection WHERE connection_id = '$ada'}), 't',
	'an API that refuses the new token is still given the benefit of the doubt');

# ---- the grant is dead ----

ov_control($idp, 'POST', '/revoke-grant', { sub => 'bob' });
like(dba("SELECT oauth_vault.oauth_refresh('$bob')"), qr/^OV010: /, 'a dead grant is told');
like(why($bob, 'summary'), qr/^the person has to consent again: invalid_grant/, 'and explained');
is(metric('oauth_vault_connections', '{"connector": "demo", "status": "reauth_required"}'), 1, 'and counted');

is(why($bob, 'who_must_act'), 'person', 'one person must act');
like(why($bob, 'what_to_do'), qr/oauth_begin/, 'and how');
like(dba(q{SELECT array_to_string(attention, ' | ') FROM oauth_vault.oauth_status}), qr/^persons: 1 connections need a new consent/, 'which is all there is');

# ---- the provider is down ----

behave(failNext => 8, failStatus => 503);
dba("SELECT oauth_vault.oauth_refresh('$ada')") foreach 1 .. 8;
like(why($ada, 'summary'), qr/^the provider's host localhost:$idp->{port} is out of order: 8 failures in a row, .*; tried again at /, 'a provider that is down is the reason');
is(why($ada, 'who_must_act'), 'provider', 'nobody here must act');
like(why($ada, 'what_to_do'), qr/^wait/, 'but wait');
like(why($ada, 'host'), qr/^localhost:$idp->{port}: (paused|probing) until /, 'the host is named');
like(dba(q{SELECT array_to_string(attention, ' | ') FROM oauth_vault.oauth_status}), qr/provider: hosts out of order, .*localhost:$idp->{port} \(8 failures/, 'oauth_status says so');
like((ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_report_rejected('demo', oauth_vault.oauth_fresh_token('demo'));"))[1],
	qr/OV020: .*"retry_at"/s, 'nothing is sent for anybody');
is(dba("SELECT oauth_vault.oauth_refresh('$ada')"), 'refreshed', 'but for whoever wants to know whether it works again');
is(why($ada, 'who_must_act'), 'nobody', 'then all goes on');

# ---- the client secret has expired ----

dba("SELECT oauth_vault.oauth_set_client_secret('demo', 'one that has expired', keep_previous => false)");
like(dba("SELECT oauth_vault.oauth_refresh('$ada')"), qr/^OV022: .*invalid_client/, 'a refused client is told');
like(why($ada, 'summary'), qr/^rests until an administrator puts the connector right: invalid_client/, 'and explained');
is(why($ada, 'who_must_act'), 'administrator', 'an administrator must act');
like(why($ada, 'what_to_do'), qr/oauth_set_client_secret/, 'and how');
like(dba(q{SELECT array_to_string(attention, ' | ') FROM oauth_vault.oauth_status}), qr/administrator: connectors rest .*demo \(invalid_client\)/, 'oauth_status says so');
dba("SELECT oauth_vault.oauth_set_client_secret('demo', 'demo: secret/with+signs', keep_previous => false)");
is(dba("SELECT oauth_vault.oauth_refresh('$ada')"), 'refreshed', 'put right, it works at once');

# ---- a worker is dead, and nobody starts it ----

my $launcher = superuser(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'oauth_vault launcher'});
kill 'STOP', $launcher;
superuser(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
ov_wait_for('its end', sub { metric('oauth_vault_worker_up', '{"worker": "network"}') eq '0' });
like(why($ada, 'summary'), qr/^nothing happens: the network worker is not running/, 'a dead worker is the reason');
is(why($ada, 'who_must_act'), 'administrator', 'an administrator must act');
like(why($ada, 'what_to_do'), qr/server's log/, 'and where to look');
like(dba(q{SELECT array_to_string(attention, ' | ') FROM oauth_vault.oauth_status}), qr/administrator: not all workers are running/, 'oauth_status says so');
kill 'CONT', $launcher;
ok(ov_wait_for('the next worker', sub { metric('oauth_vault_worker_up', '{"worker": "network"}') eq '1' }), 'until it is back');

# ---- the connector rests; somebody revokes ----

dba("SELECT oauth_vault.oauth_alter_connector('demo', status => 'paused', reason => 'night shift')");
like(why($ada, 'summary'), qr/administrator.*night shift/, 'a paused connector is the reason');
like(dba("SELECT oauth_vault.oauth_refresh('$ada')"), qr/^OV022: /, 'and nothing is sent');
dba("SELECT oauth_vault.oauth_alter_connector('demo', status => 'active')");
ov_sql($node, 'ada', "SELECT oauth_vault.oauth_revoke('demo');");
ov_wait_for('revocation', sub { why($ada, 'status') eq 'revoked' });
like(why($ada, 'summary'), qr/^ended on .*confirmed$/, 'the end and what the provider said');
like(why($ada, 'revocation'), qr/^confirmed after 1 attempts/, 'and the outbox');

# ---- nothing secret, and nothing for others ----

foreach my $secret (split /\n/, superuser(q{SELECT encode(substring(access_token from 20 for 24), 'hex') FROM oauth_vault.connection
	WHERE access_token IS NOT NULL}))
{
	unlike(dba("SELECT string_agg(value, ' ') FROM oauth_vault.oauth_explain('$bob')"), qr/$secret/, 'nothing sealed is shown');
}
my ($rc, $out, $err) = $node->psql('postgres', "SELECT oauth_vault.oauth_explain('$ada')", extra_params => [ '-U', 'app' ]);
like($err, qr/permission denied/, 'a person may not ask');
($rc, $out, $err) = $node->psql('postgres', "SELECT oauth_vault.oauth_refresh('$ada')", extra_params => [ '-U', 'app' ]);
like($err, qr/permission denied/, 'nor refresh by id');
($rc, $out, $err) = $node->psql('postgres', q{\set VERBOSITY verbose
	SELECT oauth_vault.oauth_refresh('00000000-0000-0000-0000-000000000000')}, extra_params => [ '-U', 'dba' ]);
like($err, qr/OV012/, 'of a connection that is not there, nothing');

# ---- the worker is started anew; counters go on ----

my $starts = metric('oauth_vault_network_worker_starts_total');
my $connected = events('connected', 'ok');
superuser(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
ov_wait_for('the next worker', sub { metric('oauth_vault_network_worker_starts_total') > $starts });
is(events('connected', 'ok'), $connected, 'counters survive the worker');

$node->stop('fast');
done_testing();
