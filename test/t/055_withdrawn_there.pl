# A person withdraws consent at the authorization server itself: the next refresh
# makes exactly one attempt, the person is asked to connect again, ninety-nine
# others notice nothing.  How long it takes is measured, and bounded by the
# life of the access token.  Then the rule about invalid_grant, to the letter.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP;
use OauthVault::Test;
use Test::More;
use Time::HiRes qw(time);

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('withdrawn', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access', 'email'],
		issuer => '$idp->{issuer}', refresh_policy => 'eager')});

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub refreshes { return ov_control($idp, 'GET', '/counters')->{refresh_token} // 0; }
sub requests { my $c = ov_control($idp, 'GET', '/counters'); return ($c->{refresh_token} // 0) + ($c->{authorization_code} // 0); }
sub fresh { return "SELECT oauth_vault.oauth_fresh_token('demo');"; }
sub of { return superuser("SELECT $_[1] FROM oauth_vault.connection WHERE user_id = '$_[0]'"); }
# A new network worker looks for what is due.
sub look { superuser(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker'}); return; }
sub prompts { return ov_sql($node, $_[0], q{SELECT connector || ' ' || state || ' ' || reason || ' ' || who_must_act || ' ' || array_to_string(scopes, ',')
	|| ' ' || (now() - since < '1 minute') FROM oauth_vault.oauth_reauth_prompts;}); }

# ---- a hundred people ----

my $id = ov_connect($node, 'ada', 'demo');
ov_connect($node, $_, 'demo') foreach qw(bob cyd);
my @others = map { "person-$_" } 1 .. 97;
my ($urls, $callbacks, $err) = ('', '');
my %jwt = map { $_ => ov_assertion($node, $_, '--ttl', '1200') } qw(ada bob cyd);
foreach my $who (@others)
{
	$jwt{$who} = ov_assertion($node, $who, '--ttl', '1200');
	$urls .= "SELECT authorization_url FROM oauth_vault.oauth_begin('demo', assertion => '$jwt{$who}');\n";
}
my @urls = split /\n/, $node->safe_psql('postgres', $urls, extra_params => [ '-U', 'app' ]);
my @callbacks;
{
	local $ENV{CA} = "$ca_dir/ca.pem";
	my $in = encode_json([ map { [ $urls[$_], $others[$_] ] } 0 .. $#others ]);
	IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/drivers/consent.mjs", '--many' ], '<', \$in, '>', \my $out, '2>', \$err,
		IPC::Run::timeout(60)) or die "consent: $err";
	@callbacks = split /\n/, $out;
}
$callbacks .= "SELECT status FROM oauth_vault.oauth_callback('" . ($callbacks[$_] =~ s/'/''/gr) . "', assertion => '$jwt{$others[$_]}');\n" foreach 0 .. $#others;
$node->safe_psql('postgres', $callbacks, extra_params => [ '-U', 'app' ]);
is(superuser(q{SELECT count(*) FROM oauth_vault.connection WHERE status = 'active'}), 100, 'a hundred people are connected');

# ---- she withdraws there ----

my $token = ov_sql($node, 'ada', fresh());
ov_control($idp, 'POST', '/revoke-grant', { sub => 'ada' });
my $withdrawn = time;
is(ov_sql($node, 'ada', fresh()), $token, 'nobody tells us: until the next refresh the token is served');
my $before = refreshes();
# What is left of the access token's life is the bound; a tenth of it is spent here.
superuser(q{UPDATE oauth_vault.connection SET issued_at = now() - interval '599 seconds', expires_at = now() + interval '1 second',
	refresh_at = now() + interval '1 second'});
look();
ok(ov_wait_for('the refresh', sub { of('ada', 'status') eq 'reauth_required' }, 20), 'the next refresh finds out');
my $window = time - $withdrawn;
is(of('ada', "status_reason || ' ' || (refresh_at IS NULL)"), 'invalid_grant true', 'for that reason, and nothing is scheduled any more');
ok(ov_wait_for('the others', sub { superuser(q{SELECT count(*) FROM oauth_vault.connection WHERE status = 'active' AND token_generation >= 2}) eq '99' }, 30),
	'ninety-nine others have been renewed');
my ($state, $text) = ov_sql_fails($node, 'ada', fresh());
is($state, 'OV010', 'nobody gets a token of hers');
like($text, qr/"reason":\s?"invalid_grant"/, 'and is told why');
is(prompts('ada'), 'demo reauth_required invalid_grant person openid,offline_access,email true', 'her next session has the prompt');
is(ov_sql($node, 'ada', 'SELECT prompts_pending FROM oauth_vault.oauth_whoami();'), 1, 'counted where she is greeted');
is(prompts('bob'), '', 'nobody else has one');
is(ov_sql($node, 'bob', fresh()) ne '', 1, 'and gets a token');
is(refreshes() - $before, 100, 'one attempt each, hers among them');
ov_sql_fails($node, 'ada', fresh()) foreach 1 .. 3;
is(refreshes() - $before, 100, 'and no other, whoever asks');
is(superuser(qq{SELECT count(*) FROM oauth_vault.audit WHERE connection_id = '$id' AND event = 'reauth_required'}), 1, 'one row in the trail');
my $recorded = superuser(qq{SELECT extract(epoch FROM at) FROM oauth_vault.audit WHERE connection_id = '$id' AND event = 'reauth_required'}) - $withdrawn;
note(sprintf 'from the withdrawal there to the end here: %.2f s; the bound is the life of the access token', $window);
ok($recorded > 0 && $recorded <= $window + 0.1, 'the trail has the time');

# She connects again: the same connection, the same scopes.
my $url = ov_sql($node, 'ada', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo');");
like($url, qr/[?&]scope=openid(?:%20|\+)offline_access(?:%20|\+)email(?:&|$)/, 'she is asked for what she had granted');
is(ov_connect($node, 'ada', 'demo'), $id, 'and keeps her connection');
is(prompts('ada'), '', 'without a prompt');

# ---- the rule ----
# An API answers 401 with invalid_grant: the connection requires re-authorization,
# zero further token requests at the provider, a prompt at the next session,
# others are not affected.

$token = ov_sql($node, 'bob', fresh());
$before = requests();
is(ov_sql($node, 'bob', "SELECT oauth_vault.oauth_report_rejected('demo', '$token', 401, 'invalid_grant');"), 'reauth_required',
	'an API answers 401 with invalid_grant: the connection requires re-authorization');
is((ov_sql_fails($node, 'bob', fresh()))[0], 'OV010', 'at once');
is(ov_sql($node, 'bob', "SELECT oauth_vault.oauth_report_rejected('demo', '$token', 401, 'invalid_grant');"), 'reauth_required', 'however often it is said');
is(prompts('bob'), 'demo reauth_required rejected_by_provider person openid,offline_access,email true', 'his next session has the prompt');
superuser(q{UPDATE oauth_vault.connection SET refresh_at = now() WHERE user_id = 'bob'});
look();
my $other = ov_sql($node, 'cyd', fresh());
ok($other ne '', 'others get their tokens');
is(superuser(q{SELECT count(*) FROM oauth_vault.connection WHERE status = 'active'}), 99, 'and are not affected');
is(requests(), $before, 'zero further token requests have reached the provider');

# A bare 401 is worth one refresh, a token of that refresh none.
$before = requests();
is(ov_sql($node, 'cyd', "SELECT oauth_vault.oauth_report_rejected('demo', '$other');"), 'refreshed', 'a bare 401 is worth one refresh');
is(ov_sql($node, 'cyd', "SELECT oauth_vault.oauth_report_rejected('demo', '$other');"), 'superseded', 'the token before it has been replaced');
is(ov_sql($node, 'cyd', "SELECT oauth_vault.oauth_report_rejected('demo', 'never heard of');"), 'unknown_token', 'a token of nobody is unknown');
my $again = ov_sql($node, 'cyd', fresh());
is(ov_sql($node, 'cyd', "SELECT oauth_vault.oauth_report_rejected('demo', '$again', 403);"), 'insufficient_scope', '403 is about scopes');
is(ov_sql($node, 'cyd', "SELECT oauth_vault.oauth_report_rejected('demo', '$again', 429);"), 'rate_limited', '429 about the API');
is(ov_sql($node, 'cyd', "SELECT oauth_vault.oauth_report_rejected('demo', '$again');"), 'reauth_required', 'a second rejection ends the benefit of the doubt');
is(requests() - $before, 1, 'one request for all of that');

# ---- before the end ----

my $me = 'person-1';
is(prompts($me), '', 'no prompt while a refresh token has long to live');
superuser("UPDATE oauth_vault.connection SET refresh_expires_at = now() + interval '6 days', consented_at = now() - interval '59 days' WHERE user_id = '$me'");
like(ov_sql($node, $me, 'SELECT state, reason, who_must_act, ends_at > now() FROM oauth_vault.oauth_reauth_prompts;'),
	qr/^expiring\|refresh_token_expiring\|person\|t$/, 'in its last tenth the person is asked ahead of time');
is(ov_sql($node, $me, fresh()) ne '', 1, 'while tokens are still served');
superuser("UPDATE oauth_vault.connection SET refresh_extended_at = now() WHERE user_id = '$me'");
is(prompts($me), '', 'not if each refresh extends it');
superuser("UPDATE oauth_vault.connection SET refresh_token = NULL, expires_at = now() - interval '1 minute', refresh_at = NULL WHERE user_id = '$me'");
like(ov_sql($node, $me, 'SELECT state, reason FROM oauth_vault.oauth_reauth_prompts;'), qr/^expired\|expired_no_refresh_token$/,
	'a token that has ended without a refresh token asks, too');
$node->stop('fast');
done_testing();
