# An answer that is lost on its way: the refresh token may be used up.  It is sent
# once more where the provider's rules allow that, and otherwise never again; the
# reason that is given in the end is the true one.
use strict;
use warnings;
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('lost', hosts => ["localhost:$idp->{port}"]);
my $base = $idp->{issuer};
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('once_more', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$base', refresh_policy => 'lazy');
	SELECT oauth_vault.oauth_set_provider('strict', '{"schema": 1, "display_name": "Strict", "issuer": "$base",
		"authorization": {"url": "$base/auth", "with_scope": {"offline_access": {"prompt": "consent"}}},
		"token": {"url": "$base/token"}, "refresh": {"rotates": "always"}}');
	SELECT oauth_vault.oauth_create_connector('never_again', 'strict', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], refresh_policy => 'lazy')});

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub expire { superuser(q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute',
	refresh_at = NULL, attempts = 0}); return; }
sub again { superuser('UPDATE oauth_vault.connection SET refresh_at = now(), attempts = 0'); return; }
sub refreshes { return ov_control($idp, 'GET', '/counters')->{refresh_token} // 0; }
sub intent { return superuser(q{SELECT in_doubt || ' ' || tries FROM oauth_vault.intent}); }
sub behave { return ov_control($idp, 'POST', '/behavior', {@_}); }

# ---- where a second use is allowed ----

ov_connect($node, 'ada', 'once_more');
expire();
behave(dropAfterCommit => 1);
my $before = refreshes();
my ($state, $text) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('once_more');");
is($state, 'OV020', 'a lost answer is no verdict');
is(intent(), 'true 1', 'the claim stays open, in doubt');
($state) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('once_more');");
is($state, 'OV020', 'and is not hurried');
is(refreshes() - $before, 1, 'by whoever asks meanwhile');

behave(failNext => 1, failStatus => 503);
again();
ov_wait_for('the second try', sub { refreshes() - $before == 2 });
ov_wait_for('its answer', sub { superuser('SELECT attempts FROM oauth_vault.connection') eq '1' });
is(intent(), 'true 1', 'an answer that decides nothing is no try, and the doubt stays');

again();
ov_wait_for('the third request', sub { superuser('SELECT count(*) FROM oauth_vault.intent') eq '0' });
is(refreshes() - $before, 3, 'then it is sent once more');
($state, $text) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('once_more');");
is($state, 'OV010', 'the provider had replaced it');
like($text, qr/"reason":\s?"refresh_outcome_unknown"/, 'and the reason is the lost answer, not invalid_grant');

# ---- a provider that hangs ----

ov_connect($node, 'ada', 'once_more');
$node->append_conf('postgresql.conf', "oauth_vault.http_timeout = 300ms\n");
$node->reload;
behave(delayMs => 1500);
expire();
$before = refreshes();
($state) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('once_more');");
is($state, 'OV020', 'silence is no verdict');
foreach my $times (2 .. 3)
{
	ov_wait_for('its end', sub { superuser('SELECT attempts FROM oauth_vault.connection') > 0 });
	again();
	ov_wait_for('the next try', sub { refreshes() - $before == $times });
}
ov_wait_for('its end', sub { superuser('SELECT attempts FROM oauth_vault.connection') > 0 });
is(superuser('SELECT status FROM oauth_vault.connection'), 'active', 'not the third time, either');
behave(delayMs => 0);
$node->append_conf('postgresql.conf', "oauth_vault.http_timeout = 10s\n");
$node->reload;
ok(ov_wait_for('a token', sub {
	again();
	($state) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('once_more');");
	return $state eq '00000';
}), 'when it answers again, the grant is alive');
# the last try may have come when the token was there already, and be a refresh of its own
ok(ov_wait_for('no claim', sub { superuser('SELECT count(*) FROM oauth_vault.intent') eq '0' }), 'and the doubt is gone');

# ---- where it is not ----

superuser('DELETE FROM oauth_vault.connection');
ov_connect($node, 'bob', 'never_again');
expire();
behave(dropAfterCommit => 1);
$before = refreshes();
($state, $text) = ov_sql_fails($node, 'bob', "SELECT oauth_vault.oauth_fresh_token('never_again');");
is($state, 'OV010', 'a refresh token that is good once is not tried again');
like($text, qr/"reason":\s?"refresh_outcome_unknown"/, 'for the true reason');
($state) = ov_sql_fails($node, 'bob', "SELECT oauth_vault.oauth_fresh_token('never_again');");
is($state, 'OV010', 'and so it stays');
is(refreshes() - $before, 1, 'with one request, ever');
is(superuser('SELECT count(*) FROM oauth_vault.intent'), 0, 'no claim is left open');
is(superuser(q{SELECT reason FROM oauth_vault.audit WHERE event = 'reauth_required' AND user_id = 'bob'}),
	'refresh_outcome_unknown', 'the audit trail says so, too');

# ---- not sent at all ----

ov_connect($node, 'bob', 'never_again');
expire();
behave(failNext => 1, failStatus => 503);
($state) = ov_sql_fails($node, 'bob', "SELECT oauth_vault.oauth_fresh_token('never_again');");
is($state, 'OV020', 'an answer that decides nothing leaves no doubt');
is(superuser('SELECT count(*) FROM oauth_vault.intent'), 0, 'and no claim');
again();
($state) = ov_sql_fails($node, 'bob', "SELECT oauth_vault.oauth_fresh_token('never_again');");
ok(ov_wait_for('a token', sub {
	($state) = ov_sql_fails($node, 'bob', "SELECT oauth_vault.oauth_fresh_token('never_again');");
	return $state eq '00000';
}), 'the grant is alive');
$node->stop('fast');
done_testing();
