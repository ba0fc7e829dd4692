# What becomes of a refresh when the row is locked, the grant is dead, the client
# is refused, the provider is busy or silent, or somebody decides meanwhile.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use Test::More;
use Time::HiRes qw(time);

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('outcomes', hosts => ["localhost:$idp->{port}"]);
my $secret = 'demo: secret/with+signs';
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', '$secret',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
my %id = map { $_ => ov_connect($node, $_, 'demo') } qw(ada bob);

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub fresh { return "SELECT oauth_vault.oauth_fresh_token('demo');"; }
sub column { return superuser("SELECT $_[1] FROM oauth_vault.connection WHERE connection_id = '$id{$_[0]}'"); }
sub expire { superuser(qq{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute',
	refresh_at = NULL, attempts = 0 WHERE connection_id = '$id{$_[0]}'}); return; }
sub refreshes { return ov_control($idp, 'GET', '/counters')->{refresh_token} // 0; }
sub behave { return ov_control($idp, 'POST', '/behavior', {@_}); }

# A session that goes on while we look elsewhere.
sub session
{
	my ($sql, @args) = @_;
	my ($in, $out, $err) = ($sql, '', '');
	my $s = { in => \$in, out => \$out, err => \$err };
	$s->{h} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', @args, '-d', $node->connstr('postgres') ],
		'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	return $s;
}
sub holding
{
	my ($who) = @_;
	my $s = session("BEGIN; SELECT 'held' FROM oauth_vault.connection WHERE connection_id = '$id{$who}' FOR UPDATE;\n",
		'-U', 'postgres');
	$s->{h}->pump until ${ $s->{out} } =~ /held/;
	return $s;
}
sub end
{
	my ($s, $sql) = @_;
	${ $s->{in} } .= "$sql\n\\q\n";
	$s->{h}->finish;
	return;
}

# ---- somebody holds the row ----

expire('ada');
my $holder = holding('ada');
my $before = refreshes();
my ($state, $text) = ov_sql_fails($node, 'ada', fresh());
is($state, 'OV021', 'a locked row is not waited for');
like($text, qr/row locked by another transaction/, 'and the reason says so');
is(superuser('SELECT count(*) FROM oauth_vault.grant_inbox'), 1, 'what the provider answered is kept');
is(superuser('SELECT count(*) FROM oauth_vault.intent'), 0, 'and the claim is closed');
($state) = ov_sql_fails($node, 'ada', fresh());
is($state, 'OV021', 'as long as it is locked');
is(refreshes() - $before, 1, 'one request went out: the next one would start from a used refresh token');
end($holder, 'COMMIT;');
ov_wait_for('the inbox', sub { superuser('SELECT count(*) FROM oauth_vault.grant_inbox') eq '0' });
($state) = ov_sql_fails($node, 'ada', fresh());
is($state, '00000', 'applied when the lock goes');
is(refreshes() - $before, 1, 'without another request');
expire('ada');
($state) = ov_sql_fails($node, 'ada', fresh());
is($state, '00000', 'field failure 3.3: and the next refresh uses the rotated token');

# ---- revoked while the provider takes its time ----

my $connected = ov_connect($node, 'eve', 'demo');
$id{eve} = $connected;
expire('eve');
behave(delayMs => 1500);
my $jwt = ov_assertion($node, 'eve');
my $waiting = session("SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt');\n\\q\n", '-U', 'app');
ov_wait_for('a claim', sub { $waiting->{h}->pump_nb; superuser('SELECT count(*) FROM oauth_vault.intent') eq '1' });
ov_sql($node, 'eve', "SELECT oauth_vault.oauth_revoke('demo');");
$waiting->{h}->finish;
like(${ $waiting->{err} }, qr/OV01[02]/, 'a revocation wins over the refresh under way');
behave(delayMs => 0);
ov_wait_for('both revocations', sub { superuser(qq{SELECT count(*) FROM oauth_vault.revocation
	WHERE connection_id = '$connected' AND state = 'confirmed'}) eq '2' });
is(superuser(qq{SELECT count(*), count(access_token), count(refresh_token) FROM oauth_vault.revocation
	WHERE connection_id = '$connected' AND state = 'confirmed'}), '2|0|0',
	'the tokens that still came are revoked at the provider too, and gone here');
is(column('eve', 'status'), 'revoked', 'the connection ends as revoked');

# ---- the provider is busy, then silent ----

expire('ada');
behave(failNext => 1, failStatus => 503, retryAfter => 2);
($state, $text) = ov_sql_fails($node, 'ada', fresh());
is($state, 'OV020', '503 is retryable');
like($text, qr/retry_at/, 'with the next attempt in DETAIL');
is(column('ada', "status || ' ' || attempts"), 'active 1', 'and the connection stays alive');
$before = refreshes();
($state) = ov_sql_fails($node, 'ada', fresh());
is($state, 'OV020', 'before that time nothing is sent');
is(refreshes(), $before, 'indeed nothing');
ov_wait_for('the retry', sub { column('ada', 'attempts') eq '0' });
($state) = ov_sql_fails($node, 'ada', fresh());
is($state, '00000', 'the worker tries again by itself');

# ---- the worker is terminated in the middle ----

expire('ada');
behave(delayMs => 200);
my $generation = column('ada', 'token_generation');
$jwt = ov_assertion($node, 'ada');
$waiting = session("SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt');\n\\q\n", '-U', 'app');
ov_wait_for('a claim', sub { $waiting->{h}->pump_nb; superuser('SELECT count(*) FROM oauth_vault.intent WHERE tries = 1') eq '1' });
superuser(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
$waiting->{h}->finish;
like(${ $waiting->{out} }, qr/^\S{20,}$/, 'field failure 3.3: a terminated worker stores what is answered in a moment')
  or diag(${ $waiting->{err} });
is(column('ada', "status || ' ' || token_generation - $generation"), 'active 1', 'and the grant is not in doubt');
behave(delayMs => 0);

# ---- the client is refused ----

superuser("SELECT oauth_vault.oauth_set_client_secret('demo', 'a new one', keep_previous => true)");
expire('ada');
($state) = ov_sql_fails($node, 'ada', fresh());
is($state, '00000', 'field failure 3.26: while secrets overlap, the previous one is tried as well');
superuser("SELECT oauth_vault.oauth_set_client_secret('demo', 'a wrong one', keep_previous => false)");
expire('ada');
($state, $text) = ov_sql_fails($node, 'ada', fresh());
is($state, 'OV022', 'invalid_client is for an administrator');
is(superuser("SELECT status || ' ' || status_reason FROM oauth_vault.connector WHERE name = 'demo'"),
	'paused invalid_client', 'who finds the connector paused');
is(column('ada', 'status'), 'active', 'while connections stay alive');
superuser("SELECT oauth_vault.oauth_set_client_secret('demo', '$secret', keep_previous => false)");
superuser("SELECT oauth_vault.oauth_alter_connector('demo', status => 'active')");
expire('ada');
($state, $text) = ov_sql_fails($node, 'ada', fresh());
is($state, '00000', 'put right, it goes on') or diag($text);

# ---- the grant is dead ----

ov_control($idp, 'POST', '/revoke-grant', { sub => 'bob' });
expire('bob');
$before = refreshes();
($state, $text) = ov_sql_fails($node, 'bob', fresh());
is($state, 'OV010', 'invalid_grant ends the connection at once');
like($text, qr/"reason":\s?"invalid_grant"/, 'for that reason');
($state) = ov_sql_fails($node, 'bob', fresh());
is($state, 'OV010', 'and it stays so');
is(refreshes() - $before, 1, 'field failure 3.6: one attempt, ever');
is(column('bob', 'refresh_token IS NOT NULL'), 't', 'nothing is deleted');
$id{bob} = ov_connect($node, 'bob', 'demo');
($state) = ov_sql_fails($node, 'bob', fresh());
is($state, '00000', 'a new consent brings it back');
is(superuser(qq{SELECT count(*) FROM oauth_vault.connection WHERE user_id = 'bob'}), 1, 'in the same row');

# ---- a table is locked ----

expire('ada');
behave(delayMs => 1000);
$jwt = ov_assertion($node, 'ada');
$waiting = session("SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt');\n\\q\n", '-U', 'app');
ov_wait_for('a claim', sub { $waiting->{h}->pump_nb; superuser('SELECT count(*) FROM oauth_vault.intent') eq '1' });
$holder = session("BEGIN; LOCK oauth_vault.grant_inbox IN ACCESS EXCLUSIVE MODE; SELECT 'held';\n", '-U', 'postgres');
$holder->{h}->pump until ${ $holder->{out} } =~ /held/;
behave(delayMs => 0);
expire('bob');
($state, $text) = ov_sql_fails($node, 'bob', fresh());
is($state, 'OV021', 'while a table is locked, callers are told at once');
like($text, qr/table locked by another transaction/, 'and why');
my $pid = superuser(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'});
my $waits = 0;
my $until = time + 2;			# the provider answers in between
$waits += superuser(qq{SELECT count(*) FROM pg_locks WHERE pid = $pid AND NOT granted}) while time < $until;
is($waits, 0, 'the worker waits for no lock');
is(superuser('SELECT count(*) FROM oauth_vault.intent'), 1, 'and could not store the answer yet');
end($holder, 'COMMIT;');
$waiting->{h}->finish;
like(${ $waiting->{out} }, qr/^\S{20,}$/, 'and stores what came when the lock goes') or diag(${ $waiting->{err} });
is(superuser('SELECT count(*) FROM oauth_vault.intent'), 0, 'no claim is left open');

my $events = superuser(q{SELECT string_agg(DISTINCT event || '/' || outcome, ' ') FROM oauth_vault.audit});
like($events, qr{\Q$_\E}, "the audit trail has $_")
  foreach qw(connected/ok refreshed/ok refresh_failed/failed reauth_required/failed connector_paused/failed revocation_settled/ok);
$node->stop('fast');
done_testing();
