# Somebody leaves: blocked in every session with that commit, revoked at the
# provider, then erased, keys and all; what is under way does not bring it back.
# The audit stays.  The same for a tenant and for a connector.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use Test::More;
use Time::HiRes qw(time);

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('leavers', hosts => ["localhost:$idp->{port}"]);
foreach my $name (qw(demo other))
{
	$node->safe_psql('postgres', qq{
		SELECT oauth_vault.oauth_create_connector('$name', 'oidc', 'demo', 'demo: secret/with+signs',
			'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
			issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
}
$node->safe_psql('postgres', 'CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin');

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub admin { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'dba' ]); }
sub fresh { return "SELECT oauth_vault.oauth_fresh_token('" . ($_[0] // 'demo') . "');"; }
sub behave { return ov_control($idp, 'POST', '/behavior', {@_}); }
sub revocations { return ov_control($idp, 'GET', '/counters')->{revocation} // 0; }
sub state { my ($who, $sql) = @_; return (ov_sql_fails($node, $who, $sql))[0]; }
sub offboarding { return superuser("SELECT $_[1] FROM oauth_vault.oauth_offboarding WHERE offboarding_id = $_[0]"); }
sub completed { my ($id) = @_; return ov_wait_for("offboarding $id", sub { offboarding($id, 'state') eq 'completed' }, 20); }
sub expire { superuser("UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute', refresh_at = NULL, attempts = 0 WHERE user_id = '$_[0]'"); return; }
sub live_keys { return superuser("SELECT count(*) FROM oauth_vault.vault_key WHERE user_id = '$_[0]' AND destroyed_at IS NULL"); }
sub sealed { return superuser(qq{SELECT (SELECT count(*) FROM oauth_vault.connection WHERE user_id = '$_[0]'
		AND (access_token IS NOT NULL OR refresh_token IS NOT NULL OR id_token IS NOT NULL OR superseded IS NOT NULL))
	+ (SELECT count(*) FROM oauth_vault.revocation WHERE user_id = '$_[0]' AND (access_token IS NOT NULL OR refresh_token IS NOT NULL))
	+ (SELECT count(*) FROM oauth_vault.flow WHERE user_id = '$_[0]') + (SELECT count(*) FROM oauth_vault.vault_key
		WHERE user_id = '$_[0]' AND wrapped <> '')}); }

# A session that goes on while we look elsewhere.
sub session
{
	my ($sql) = @_;
	my ($in, $out, $err) = ($sql, '', '');
	my $s = { in => \$in, out => \$out, err => \$err };
	$s->{h} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-U', 'app', '-d', $node->connstr('postgres') ],
		'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	return $s;
}
sub ask
{
	my ($s, $sql) = @_;
	my $mark = 'mark' . int(rand 1e9);
	my ($from, $wrong) = (length ${ $s->{out} }, length ${ $s->{err} });
	${ $s->{in} } .= "$sql\n\\echo $mark\n";
	$s->{h}->pump until ${ $s->{out} } =~ /^$mark\n/m;
	my $answer = substr(${ $s->{out} }, $from) =~ s/^$mark\n//mr;
	$answer =~ s/^\n//;
	my $error = substr(${ $s->{err} }, $wrong);
	return $error =~ /ERROR:\s+(\w{5})/ ? $1 : $answer;
}
sub end { my ($s) = @_; ${ $s->{in} } .= "\\q\n"; $s->{h}->finish; return; }
sub bound { my ($who, $begin) = @_; my $jwt = ov_assertion($node, $who);
	return session("SELECT oauth_vault.oauth_identify('$jwt', session => true);\n" . ($begin // '')); }

# ---- a person ----

ov_connect($node, $_, 'demo') foreach qw(ada bob);
ov_connect($node, 'ada', 'other');
ov_sql($node, 'ada', "SELECT oauth_vault.oauth_set_my_limit('demo', ARRAY['openid', 'offline_access']);");
my $cached = bound('ada');
like(ask($cached, fresh()), qr/^\S{20,}$/, 'a session has the key and the token');
my $old = bound('ada', "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;\nSELECT count(*) FROM pg_class;\n");
like(ask($old, fresh()), qr/\S{20,}$/, 'so has one with a snapshot of that time');
superuser(q{CREATE TABLE loot AS SELECT * FROM oauth_vault.connection WHERE user_id = 'ada'});
my $url = ov_sql($node, 'ada', "SELECT authorization_url FROM oauth_vault.oauth_begin('demo', account => 'second');");
my $callback = ov_consent($url, 'ada') =~ s/'/''/gr;

my ($rc, undef, $err) = $node->psql('postgres', "SELECT oauth_vault.oauth_offboard('ada')", extra_params => [ '-U', 'app' ]);
like($err, qr/permission denied/, 'only administrators offboard');
admin("BEGIN; SELECT oauth_vault.oauth_offboard('ada'); ROLLBACK");
like(ask($cached, fresh()), qr/^\S{20,}$/, 'rolled back, nothing has happened here');
is(revocations(), 0, 'or there');

my ($id, $what) = split /\|/, admin("SELECT offboarding_id, state || ' ' || connections FROM oauth_vault.oauth_offboard('ada', reason => 'left the company')"), 2;
is($what, 'revoking 2', 'both connections end with the commit');
is(ask($cached, fresh()), 'OV070', 'in the session that has the key');
is(ask($old, fresh()), 'OV070', 'in the one with the older snapshot');
is(state('ada', fresh('other')), 'OV070', 'in any other');
is(state('ada', "SELECT oauth_vault.oauth_begin('demo');"), 'OV070', 'nothing can be begun');
is(state('ada', "SELECT oauth_vault.oauth_callback('$callback');"), 'OV070', 'or completed');
is(state('ada', "SELECT oauth_vault.oauth_set_my_limit('demo', ARRAY['openid']);"), 'OV070', 'or decided');
is(ov_sql($node, 'ada', "SELECT error_state FROM oauth_vault.oauth_fresh_tokens(ARRAY['demo']);"), 'OV070', 'also among several');
is(state('bob', fresh()), '00000', 'nobody else is affected');
ok(completed($id), 'then it is completed');
is(offboarding($id, "queued || ' ' || confirmed || ' ' || failed || ' ' || completed_by || ' ' || keys_destroyed"), '0 2 0 outcomes 1',
	'with both confirmed by the provider, and the key destroyed');
is(revocations(), 4, 'refresh and access token of each');
is(sealed('ada'), 0, 'nothing sealed is left, nor the consent under way, nor the key');
is(offboarding($id, "enforced_at >= requested_at AND last_settled_at >= enforced_at AND completed_at >= last_settled_at"), 't',
	'and each step has its time');
is(superuser(q{SELECT string_agg(DISTINCT event, ' ' ORDER BY event) FROM oauth_vault.audit
	WHERE user_id = 'ada' AND (event LIKE 'offboard%' OR event LIKE 'revocation%' OR event = 'connected')}),
	'connected offboarded offboarding_requested revocation_requested revocation_settled', 'the audit trail is kept');
is(superuser(q{SELECT reason FROM oauth_vault.audit WHERE event = 'offboarding_requested' ORDER BY at DESC LIMIT 1}), 'left the company',
	'with the reason');
is(admin("SELECT offboarding_id, state, connections FROM oauth_vault.oauth_offboard('ada')"), "$id|completed|0", 'asking again changes nothing');

# Whoever puts the rows back has nothing that opens them.
superuser(q{DELETE FROM oauth_vault.connection WHERE user_id = 'ada'; INSERT INTO oauth_vault.connection SELECT * FROM loot});
is(ask($cached, fresh()), 'OV041', 'a row from before does not open in the session that had the key');
is(state('ada', fresh()), 'OV041', 'or in any other');
superuser(q{DELETE FROM oauth_vault.connection WHERE user_id = 'ada'; DROP TABLE loot});

is(admin("SELECT oauth_vault.oauth_onboard('ada')"), 't', 'she comes back');
is(admin("SELECT oauth_vault.oauth_onboard('ada')"), 'f', 'once');
is(state('ada', fresh()), 'OV012', 'and starts with nothing');
is(superuser(q{SELECT count(*) FROM oauth_vault.scope_policy WHERE user_id = 'ada'}), 0, 'not even her limit');
is(state('ada', "SELECT oauth_vault.oauth_callback('$callback');"), 'OV030', 'what she had begun before is over');
ov_connect($node, 'ada', 'demo');
is(state('ada', fresh()), '00000', 'she connects again');
is(superuser(q{SELECT count(*) FILTER (WHERE destroyed_at IS NULL) || ' ' || count(*) FROM oauth_vault.vault_key WHERE user_id = 'ada'}),
	'1 2', 'under a new key');

# ---- from a trigger, with a refresh and a consent under way ----

superuser(q{
	CREATE TABLE users (name text PRIMARY KEY);
	INSERT INTO users VALUES ('ada'), ('eve');
	CREATE FUNCTION leaves() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN PERFORM oauth_vault.oauth_offboard(OLD.name, reason => 'deleted'); RETURN OLD; END$$;
	CREATE TRIGGER leaves AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION leaves();
	GRANT ALL ON users TO dba});
ov_connect($node, 'eve', 'demo');
$url = ov_sql($node, 'eve', "SELECT authorization_url FROM oauth_vault.oauth_begin('other');");
$callback = ov_consent($url, 'eve') =~ s/'/''/gr;
expire('eve');
behave(delayMs => 1500);
my $before = revocations();
my $refreshing = bound('eve', fresh() . "\n");
my $completing = bound('eve', "SELECT oauth_vault.oauth_callback('$callback');\n");
ok(ov_wait_for('both under way', sub { $refreshing->{h}->pump_nb; $completing->{h}->pump_nb;
	superuser(q{SELECT (SELECT count(*) FROM oauth_vault.intent) || ' ' || (SELECT count(*) FROM oauth_vault.flow WHERE consumed_at IS NOT NULL AND user_id = 'eve')}) eq '1 2' }),
	'a refresh and a code are at the provider');
admin("DELETE FROM users WHERE name = 'eve'");
$id = superuser(q{SELECT max(offboarding_id) FROM oauth_vault.offboarding WHERE user_id = 'eve'});
end($refreshing);
end($completing);
behave(delayMs => 0);
like(${ $refreshing->{err} }, qr/OV01[02]|OV070/, 'the refresh brings no token') or diag("out: ${ $refreshing->{out} }", $refreshing->{h}->full_results);
like(${ $completing->{err} }, qr/OV070/, 'the consent is refused') or diag("out: ${ $completing->{out} }");
ok(completed($id), 'completed');
is(superuser(q{SELECT count(*) FROM oauth_vault.connection WHERE user_id = 'eve' AND status <> 'revoked'}), 0, 'nothing of hers lives on');
is(superuser(q{SELECT count(*), count(*) FILTER (WHERE state = 'confirmed') FROM oauth_vault.revocation WHERE user_id = 'eve'}), '3|3',
	'what both brought is revoked too');
is(live_keys('eve'), 0, 'and then the key is destroyed');

# ---- connecting again while an older revocation is queued ----

my $endpoint = qq({"url": "$idp->{issuer}/token/revocation"});
superuser(qq{SELECT oauth_vault.oauth_set_provider('oidc', '{"revocation": {"refresh_token": $endpoint, "access_token": $endpoint, "ends": "person"}}')});
ov_connect($node, 'joe', 'demo');
behave(revocationStatus => 503);
ov_sql($node, 'joe', "SELECT oauth_vault.oauth_revoke('demo');");
ok(ov_wait_for('an attempt', sub { superuser(q{SELECT attempts FROM oauth_vault.revocation WHERE user_id = 'joe'}) >= 1 }), 'a revocation is queued');
my $joe = ov_connect($node, 'joe', 'demo');
is(superuser(q{SELECT state, access_token IS NULL, refresh_token IS NULL FROM oauth_vault.revocation WHERE user_id = 'joe'}), 'superseded|t|t',
	'which would end the new grant, too: it is not sent');
$before = revocations();
behave(revocationStatus => 0);
superuser("SELECT oauth_vault.oauth_alter_connector('demo', refresh_policy => 'lazy')");
is(state('joe', fresh()), '00000', 'the new connection lives');
is(superuser(qq{SELECT string_agg(status, ' ' ORDER BY created_at) FROM oauth_vault.connection WHERE user_id = 'joe'}), 'revoked active', 'under an id of its own');
superuser("SELECT oauth_vault.oauth_drop_provider('oidc')");
ov_connect($node, 'jim', 'demo');
behave(revocationStatus => 503);
ov_sql($node, 'jim', "SELECT oauth_vault.oauth_revoke('demo');");
ov_connect($node, 'jim', 'demo');
behave(revocationStatus => 0);
superuser(q{UPDATE oauth_vault.revocation SET next_attempt_at = now() WHERE user_id = 'jim' AND next_attempt_at > now() + interval '1 second'});
superuser("SELECT oauth_vault.oauth_alter_connector('demo', refresh_policy => 'lazy')");
ok(ov_wait_for('the old revocation', sub { superuser(q{SELECT state FROM oauth_vault.revocation WHERE user_id = 'jim'}) eq 'confirmed' }),
	'where a revocation ends one grant, it is sent');
is(state('jim', fresh()), '00000', 'and the new one lives');

# ---- a provider that gives no answer ----

ov_connect($node, 'sam', 'demo');
superuser("SELECT oauth_vault.oauth_alter_connector('demo', status => 'paused')");
$id = admin("SELECT offboarding_id FROM oauth_vault.oauth_offboard('sam', deadline => '2 seconds')");
is(state('sam', fresh()), 'OV070', 'the block does not wait for the provider');
ok(completed($id), 'the deadline passes');
is(offboarding($id, "completed_by || ' ' || failed || ' ' || keys_destroyed"), 'deadline 1 1', 'and what could not be told is recorded');
is(sealed('sam'), 0, 'erased all the same');
superuser("SELECT oauth_vault.oauth_alter_connector('demo', status => 'active')");

# ---- administrators end connections ----

ov_connect($node, $_, 'demo') foreach qw(tim una);
my $tim = superuser(q{SELECT connection_id FROM oauth_vault.connection WHERE user_id = 'tim'});
is(admin("SELECT local_state FROM oauth_vault.oauth_revoke_connection('$tim', 'lost laptop')"), 'revoking', 'one connection');
is(state('tim', fresh()), 'OV010', 'is gone');
is((ov_sql_fails($node, 'tim', "SELECT oauth_vault.oauth_begin('demo');"))[0], '00000', 'while the person may connect again');
is(admin("SELECT connections, people FROM oauth_vault.oauth_revoke_connections(unused_for => '1 day', dry_run => true)"), '0|0', 'a condition that nobody fits');
is(admin("SELECT connections, people FROM oauth_vault.oauth_revoke_connections(tenant => '', scopes => ARRAY['openid'], user_id => 'una', dry_run => true)"), '1|1', 'one that somebody fits');
is(state('una', fresh()), '00000', 'a dry run ends nothing');
is(admin("SELECT connections, people FROM oauth_vault.oauth_revoke_connections(user_id => 'una', reason => 'asked for it')"), '1|1', 'the real one does');
is(state('una', fresh()), 'OV010', 'at once');
($rc, undef, $err) = $node->psql('postgres', 'SELECT oauth_vault.oauth_revoke_connections()', extra_params => [ '-U', 'dba', '-v', 'VERBOSITY=verbose' ]);
like($err, qr/22004/, 'without any condition it refuses');

# ---- a connector, then the tenant ----

ov_connect($node, $_, 'other') foreach qw(ada bob tim);
$id = admin("SELECT offboarding_id FROM oauth_vault.oauth_offboard_connector('other', 'the app leaves')");
is(state('bob', fresh('other')), 'OV010', 'a connector leaves: its tokens are gone');
is(state('bob', "SELECT oauth_vault.oauth_begin('other');"), 'OV022', 'and nobody connects it any more');
is(state('bob', fresh()), '00000', 'while another is not affected');
ok(completed($id), 'its grants are revoked');
is(offboarding($id, "connector || ' ' || connections || ' ' || confirmed || ' ' || keys_destroyed"), 'other 3 3 0', 'all of them; the keys are needed elsewhere');

$id = admin("SELECT offboarding_id FROM oauth_vault.oauth_offboard_tenant('', 'the end')");
is(state('bob', fresh()), 'OV070', 'a tenant leaves');
is(state('nobody-yet', "SELECT oauth_vault.oauth_begin('demo');"), 'OV070', 'with all its people, known or not');
ok(completed($id), 'all is revoked');
is(superuser(q{SELECT count(*) FROM oauth_vault.vault_key WHERE kind = 'user' AND destroyed_at IS NULL}), 0, 'and no key of a person is left');
is(admin("SELECT oauth_vault.oauth_onboard_tenant('')"), 't', 'the tenant is back');
ov_connect($node, 'bob', 'demo');
is(state('bob', fresh()), '00000', 'and bob connects again');
is(ov_control($idp, 'GET', '/counters')->{revocation} > $before, 1, 'the provider was told all along');
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/could not (?:work off|settle|store)/, 'no transaction of the worker has failed');
end($cached);
end($old);
$node->stop('fast');
done_testing();
