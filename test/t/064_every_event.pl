# Every public function that changes something leaves its event in the audit
# trail, under the role that called it.  Which functions there are is the
# catalogue's to say: one that this test does not know fails it.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('every_event', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', q{CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin; CREATE ROLE security LOGIN IN ROLE oauth_vault_auditor});
sub superuser { return $node->safe_psql('postgres', $_[0]); }

# What only reads
my %reads = map { $_ => 1 } qw(oauth_explain vault_metrics oauth_metrics_text vault_hosts vault_status vault_held
  platform_keys offboardings merge_patch row_visible session_tenant session_user_id catalogue_state rights oauth_review
  oauth_report_access oauth_report_privileges oauth_report_provisioning oauth_report_deprovisioning oauth_report_timing
  oauth_report_scopes oauth_report_crypto oauth_report_configuration oauth_report_security_events oauth_report_person
  oauth_report_json report_connections report_connectors report_revocations report_policies report_keys report_sealed
  report_vault report_grants frozen_actors);
# What notes only how far its consumer has read
my %position = map { $_ => 1 } qw(oauth_events oauth_events_done);
my %called;

# The next row of this event, written since; with `background`, by a worker of its own accord
my $seen = 0;
sub leaves
{
	my ($what, $event, $outcome, %with) = @_;
	my $condition = join ' AND ', "audit_id > $seen", "event = '$event'", "outcome = '$outcome'",
		map { ref $with{$_} ? "$_ ${ $with{$_} }" : "$_ = '$with{$_}'" } sort keys %with;
	ok(ov_wait_for("$event of $what", sub { superuser("SELECT count(*) FROM oauth_vault.audit WHERE $condition") > 0 }, 20),
		"$what: $event, $outcome") or diag(superuser("SELECT event, outcome, reason, database_role, user_id, detail
			FROM oauth_vault.audit WHERE audit_id > $seen ORDER BY audit_id"));
	return;
}
sub mark { $seen = superuser('SELECT coalesce(max(audit_id), 0) FROM oauth_vault.audit'); return; }
sub call
{
	my ($role, $function, $arguments, $event, $outcome, %with) = @_;
	mark();
	$called{$function}++;
	my (undef, $out) = $node->psql('postgres', "SELECT * FROM oauth_vault.$function($arguments)", extra_params => [ '-U', $role ]);
	leaves($function, $event, $outcome, database_role => $role, %with);
	return $out;
}
sub admin { return call('dba', @_); }
sub person
{
	my ($who, $function, $arguments, $event, $outcome, %with) = @_;
	return call('app', $function, "$arguments, assertion => '" . ov_assertion($node, $who) . "'", $event, $outcome, user_id => $who, %with);
}

# ---- providers and connectors ----

admin('oauth_set_provider', q{'google', '{"display_name": "First"}'}, 'provider_set', 'ok', reason => 'google');
admin('oauth_drop_provider', q{'google'}, 'provider_set', 'ok', reason => 'google: site rules removed');
admin('oauth_discover', "'$idp->{issuer}'", 'discovered', 'ok', "detail ->> 'issuer'" => $idp->{issuer});
admin('oauth_discover', q{'https://elsewhere.example'}, 'discovered', 'denied', reason => 'OV014', "detail ->> 'issuer'" => 'https://elsewhere.example');
admin('oauth_discover', "'$idp->{issuer}/nothing-here'", 'discovered', 'failed', reason => \q{ ~ '^OV'});
my $rest = "'oidc', 'demo', 'demo: secret/with+signs', 'https://app.example/callback', scopes => '{openid,offline_access}'";
admin('oauth_create_connector', "'$_', $rest, issuer => '$idp->{issuer}'", 'connector_created', 'ok', connector => $_) foreach qw(demo other third);
admin('oauth_create_connector', "'fourth', $rest, issuer => 'https://elsewhere.example'", 'connector_created', 'denied', connector => 'fourth', reason => 'OV014');
admin('oauth_alter_connector', q{'demo', status => 'paused', reason => 'at night'}, 'connector_paused', 'ok', reason => 'at night');
admin('oauth_alter_connector', q{'demo', status => 'active', refresh_policy => 'lazy'}, 'connector_altered', 'ok', connector => 'demo');
admin('oauth_set_client_secret', q{'demo', 'demo: secret/with+signs'}, 'client_secret_set', 'ok', connector => 'demo');
admin('oauth_set_scope_policy', q{'demo', '', allowed => '{openid,offline_access,email}'}, 'scope_policy_set', 'ok', connector => 'demo');
admin('oauth_unfreeze_actor', q{'demo', 'nobody'}, 'actor_unfrozen', 'ok', connector => 'demo', reason => 'nobody');
admin('oauth_drop_connector', q{'third'}, 'connector_dropped', 'ok', connector => 'third');
ok(ov_wait_for('the key', sub { superuser(q{SELECT count(*) FROM oauth_vault.audit a JOIN oauth_vault.vault_key k
	ON k.kind = 'audit' AND k.key_id = (a.detail ->> 'key_id')::bigint WHERE a.event = 'audit_key_created' AND a.outcome = 'ok'}) == 1 }),
	'the audit key has its event');

# ---- people ----

call('app', 'oauth_identify', q{''}, 'identified', 'denied', reason => \q{ IN ('22023', 'OV001', 'OV002')});
call('app', 'oauth_identify_request', '', 'identified', 'denied', reason => 'OV001');
call('app', 'oauth_whoami', q{'not.an.assertion'}, 'identified', 'denied', reason => 'OV002');
foreach my $who (qw(ada bob))
{
	my ($url) = split /\|/, person($who, 'oauth_begin', q{'demo'}, 'flow_begun', 'ok', connector => 'demo');
	my $callback = ov_consent($url, $who);
	my ($code, $state) = map { $callback =~ /[?&]$_=([^&]+)/ } qw(code state);
	person($who, 'oauth_complete', q{'no such state', 'no such code'}, 'flow_failed', 'failed', "detail ->> 'reason'" => \q{ LIKE 'unknown, %'});
	$who eq 'ada' ? person($who, 'oauth_callback', "'$callback'", 'connected', 'ok', connector => 'demo')
	  : person($who, 'oauth_complete', "'$state', '$code', iss => '$idp->{issuer}'", 'connected', 'ok', connector => 'demo');
}
my $token = person('ada', 'oauth_fresh_token', q{'demo'}, 'token_access', 'ok', connector => 'demo');
person('ada', 'oauth_credential', q{'demo'}, 'token_access', 'ok', connector => 'demo');
person('ada', 'oauth_fresh_tokens', q{'{demo}'}, 'token_access', 'ok', connector => 'demo');
person('ada', 'oauth_report_rejected', "'demo', '$token'", 'rejection_reported', 'ok', connector => 'demo');
person('ada', 'oauth_set_my_limit', q{'demo', '{openid,offline_access}'}, 'own_limit_set', 'ok', connector => 'demo');

# ---- connections ----

sub connection { return superuser("SELECT connection_id FROM oauth_vault.connection WHERE user_id = '$_[0]'"); }
my $bob = connection('bob');
admin('oauth_refresh', "'$bob'", 'refresh_requested', 'ok', user_id => 'bob', connector => 'demo', connection_id => $bob);
leaves('oauth_refresh', 'refreshed', 'ok', user_id => 'bob');
my $nobody = '00000000-0000-0000-0000-000000000000';
admin('oauth_refresh', "'$nobody'", 'refresh_requested', 'denied', reason => 'OV012', connection_id => $nobody);
ov_control($idp, 'POST', '/revoke-grant', { sub => 'bob' });
admin('oauth_refresh', "'$bob'", 'refresh_requested', 'denied', reason => 'OV010', user_id => 'bob');
person('ada', 'oauth_revoke', q{'demo'}, 'revocation_requested', 'ok', connector => 'demo');
leaves('oauth_revoke', 'revocation_settled', 'ok', user_id => 'ada', reason => \q{ ~ '^confirmed'});
admin('oauth_revoke_connection', "'$bob', reason => 'lost laptop'", 'revocation_requested', 'ok', user_id => 'bob', reason => 'lost laptop');
admin('oauth_import_connection', q{'', 'carl', 'demo', '', 'taken-over'}, 'imported', 'ok', user_id => 'carl');
admin('oauth_import_connections', q{'demo', '[{"user_id": "dora", "account": "", "access_token": "taken-over-too"}]'}, 'imported', 'ok', user_id => 'dora');
admin('oauth_revoke_connections', q{user_id => 'carl', reason => 'a mistake'}, 'revocation_requested', 'ok', user_id => 'carl', reason => 'a mistake');

# ---- leaving ----

admin('oauth_offboard', q{'dora', reason => 'left'}, 'offboarding_requested', 'ok', user_id => 'dora', reason => 'left');
leaves('oauth_offboard', 'offboarded', 'ok', user_id => 'dora');
admin('oauth_onboard', q{'dora'}, 'onboarded', 'ok', user_id => 'dora');
admin('oauth_offboard_tenant', q{'acme'}, 'offboarding_requested', 'ok', tenant => 'acme');
admin('oauth_onboard_tenant', q{'acme'}, 'onboarded', 'ok', tenant => 'acme');
admin('oauth_offboard_connector', q{'other'}, 'offboarding_requested', 'ok', connector => 'other');

# ---- keys, the trail, a copy ----

admin('oauth_rotate_keys', q{'rekey'}, 'key_rotation_requested', 'ok', reason => 'rekey');
leaves('oauth_rotate_keys', 'keys_rotated', 'ok');
like(call('security', 'oauth_audit_verify', '', 'audit_verified', 'ok'), qr/^t\|/, 'the trail of all this is whole');
superuser('UPDATE oauth_vault.home SET system_identifier = system_identifier + 1');
admin('oauth_claim', '', 'claimed', 'ok', reason => \q{ ~ 'outbox discarded$'});

# ---- the catalogue ----

my @public = split /\n/, superuser(q{SELECT DISTINCT p.proname FROM pg_proc p, unnest('{user,admin,auditor}'::text[]) w
	WHERE p.pronamespace = 'oauth_vault'::regnamespace AND has_function_privilege('oauth_vault_' || w, p.oid, 'EXECUTE') ORDER BY 1});
cmp_ok(scalar(@public), '>', 50, 'the public functions');
is_deeply([ grep { !$called{$_} && !$reads{$_} && !$position{$_} } @public ], [], 'each is known here, as one that changes or one that reads');
my %public = map { $_ => 1 } @public;
is_deeply([ grep { !$public{$_} } sort keys %called, keys %reads, keys %position ], [], 'and there are no others');

done_testing();
