# What a connector may ask of those who read its tokens: an actor, a purpose,
# and a pace that counts across sessions; whoever reads faster is frozen.
use strict;
use warnings;
use JSON::PP qw(decode_json);
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 3600);
my $node = ov_cluster('agents', hosts => ["localhost:$idp->{port}"], conf => 'oauth_vault.max_actors = 16');
sub superuser { return $node->safe_psql('postgres', $_[0]) }
superuser(qq{CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin;
	CREATE ROLE security LOGIN IN ROLE oauth_vault_auditor});
superuser(qq{SELECT oauth_vault.oauth_create_connector('$_', 'oidc', 'demo', 'demo: secret/with+signs',
	'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
	issuer => '$idp->{issuer}')}) foreach qw(demo free);
sub dba { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'dba' ]) }
sub alter { return dba("SELECT oauth_vault.oauth_alter_connector('demo', $_[0])") }
ov_connect($node, @$_) foreach map { [ $_, 'demo' ], [ $_, 'free' ] } qw(ada bob);

my %jwt;
sub jwt { my ($user, $actor) = @_; return $jwt{"$user/" . ($actor // '')} //= ov_assertion($node, $user, defined $actor ? ('--actor', $actor) : ()) }
# 'ok', or [SQLSTATE, reason]
my $token = q{SELECT oauth_vault.oauth_fresh_token('demo', purpose => 'a test') IS NOT NULL};
sub answer
{
	my ($user, $actor, $sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "SELECT oauth_vault.oauth_identify('" . jwt($user, $actor) . "', session => true);\n" . ($sql // $token),
		extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ], on_error_stop => 1);
	return 'ok' if $rc == 0 && $out =~ /^t$/m;
	my ($state) = $err =~ /ERROR:\s+(\w{5}):/;
	my ($detail) = $err =~ /DETAIL:\s+(\{.*\})/;
	return join ' ', $state // "nothing: $out $err", $detail ? decode_json($detail)->{reason} // '' : ();
}

# ---- an actor ----

my $held = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ]);
$held->query_safe("SELECT oauth_vault.oauth_identify('" . jwt('ada') . "', session => true)");
like($held->query($token), qr/t/, 'a session that takes the short way') foreach 1 .. 3;
alter('require_actor => true');
$held->{stderr} = '';
$held->query($token);
like($held->{stderr}, qr/OV014/, 'is told at its next call that an actor is needed');
$held->quit;
is(answer('ada'), 'OV014 actor_required', 'a person alone');
is(answer('ada', 'bot'), 'ok', 'an agent for the person');
is(answer('ada', undef, q{SELECT (oauth_vault.oauth_credential('demo')).access_token IS NOT NULL}), 'OV014 actor_required', 'oauth_credential too');
is(answer('ada', undef, q{SELECT string_agg(concat_ws(' ', connector, error_state, error_detail ->> 'reason'), ',' ORDER BY connector COLLATE "C")
	= 'demo OV014 actor_required,free' FROM oauth_vault.oauth_fresh_tokens('{demo,free}')}), 'ok', 'and of many the one connector');

# ---- a purpose ----

alter('require_actor => false, require_purpose => true');
is(answer('ada'), 'ok', 'with a purpose, without an actor');
foreach my $blank ('NULL', q{''}, q{E' \t'})
{
	is(answer('ada', 'bot', "SELECT oauth_vault.oauth_fresh_token('demo', purpose => $blank) IS NOT NULL"), 'OV014 purpose_required', "purpose $blank");
}
my $many = q{SELECT error_state IS NOT DISTINCT FROM %s FROM oauth_vault.oauth_fresh_tokens('{demo}', purpose => %s)};
is(answer('ada', 'bot', sprintf $many, q{'OV014'}, 'NULL'), 'ok', 'oauth_fresh_tokens without one');
is(answer('ada', 'bot', sprintf $many, 'NULL', q{'a test'}), 'ok', 'and with one');
is(superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'token_access' AND outcome = 'denied' AND reason = 'OV014' AND connector = 'demo'}),
	8, 'each refusal is on the trail');
alter('require_purpose => false');
is(answer('ada', undef, q{SELECT oauth_vault.oauth_fresh_token('demo') IS NOT NULL}), 'ok', 'not asked for any more');

# ---- a pace ----

sub frozen { return dba(q{SELECT string_agg(concat_ws('/', connector, tenant, actor), ' ' ORDER BY actor) FROM oauth_vault.oauth_frozen_actors}) }
alter('max_reads_per_actor => 3');
is(answer('ada', 'fast'), 'ok', 'a read') foreach 1, 2;
is(answer('bob', 'fast'), 'ok', 'the third, for another person, in another session');
is(frozen(), '', 'nobody is frozen');
is(answer('ada', 'fast', "BEGIN READ ONLY; $token; ROLLBACK"), 'OV014 actor_frozen', 'the fourth is one too many, also in a READ ONLY transaction');
is(answer($_, 'fast'), 'OV014 actor_frozen', "frozen for $_") foreach qw(ada bob);
is(answer('ada', 'fast', q{SELECT (oauth_vault.oauth_credential('demo')).access_token IS NOT NULL}), 'OV014 actor_frozen', 'for oauth_credential');
is(answer('ada', 'fast', sprintf $many, q{'OV014'}, 'NULL'), 'ok', 'for oauth_fresh_tokens');
is(answer('ada', 'fast', q{SELECT oauth_vault.oauth_fresh_token('free') IS NOT NULL}), 'ok', 'not at another connector');
is(answer('ada', 'slow'), 'ok', 'another agent is not');
is(answer('ada'), 'ok', 'nor is a person alone') foreach 1 .. 5;
is(frozen(), 'demo//fast', 'an administrator sees who');
my $alert = q{SELECT severity || '/' || user_id || '/' || (actor ->> 'sub') || '/' || connector || '/' || reason
	FROM oauth_vault.oauth_report_security_events() WHERE event = 'actor_frozen'};
is($node->safe_psql('postgres', $alert, extra_params => [ '-U', 'security' ]), 'alert/ada/fast/demo/more than 3 reads in a minute',
	'and an auditor the one alert, although the caller rolled back');

is(dba(q{SELECT oauth_vault.oauth_unfreeze_actor('demo', 'fast', 'other')}), 'f', 'not that of another tenant');
is(dba(q{SELECT oauth_vault.oauth_unfreeze_actor('demo', 'fast')}), 't', 'lifted');
is(dba(q{SELECT oauth_vault.oauth_unfreeze_actor('demo', 'fast')}), 'f', 'once');
is(answer('ada', 'fast'), 'ok', 'it reads again');
is(superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'actor_unfrozen' AND reason = 'fast'}), 3, 'that too is on the trail');

# One session that asks again and again is counted each time
my $busy = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ]);
$busy->query_safe("SELECT oauth_vault.oauth_identify('" . jwt('ada', 'busy') . "', session => true)");
like($busy->query($token), qr/t/, 'a session reads') foreach 1 .. 3;
$busy->query($token);
like($busy->{stderr}, qr/OV014/, 'three times and no more');
$busy->quit;
is(dba(q{SELECT oauth_vault.oauth_unfreeze_actor('demo', 'busy')}), 't', 'frozen, and lifted');

# Time lifts it: not more of it than the setting says now
alter('max_reads_per_actor => 1');
answer('ada', 'fast') foreach 1, 2;
is(frozen(), 'demo//fast', 'frozen again');
superuser('ALTER SYSTEM SET oauth_vault.actor_freeze = 1');
superuser('SELECT pg_reload_conf()');
ok(ov_wait_for('the end of the freeze', sub { frozen() eq '' }, 60), 'and free after a while');

# More agents than there is room for: refused, and not let through uncounted
superuser('ALTER SYSTEM RESET oauth_vault.actor_freeze');
superuser('SELECT pg_reload_conf()');
my @answers = map { answer('ada', "agent$_") } 1 .. 17;
is($answers[0], 'ok', 'there is room for some');
is($answers[16], 'OV050 actors', 'and not for more');
alter('max_reads_per_actor => 0');
is(answer('ada', "agent$_"), 'ok', 'without a limit nobody is counted') foreach 17, 17;

$node->stop('fast');
done_testing();
