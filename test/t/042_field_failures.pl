# What failed for others: each row of the table in doc/reliability.md that has no
# test elsewhere, and that each row has one.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use Time::HiRes qw(time);

my $fault = ov_fault();
my $base = "https://localhost:$fault->{port}";
my $node = ov_cluster('field', hosts => ["localhost:$fault->{port}"], conf => "oauth_vault.http_timeout = '4s'\n");
my $jwt = ov_assertion($node, 'ada', '--ttl', '3600');
my $n = 0;

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub app { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'app' ]); }
sub script { ov_control($fault, 'POST', '/script', { path => '/token', answers => [@_] }); return; }
# The next answers are these, and nothing else.
sub answers { ov_control($fault, 'POST', '/reset'); script(@_); return; }
sub tokens { my (%more) = @_; return { access_token => "access-$n", token_type => 'Bearer', expires_in => 3600, refresh_token => "refresh-$n", %more }; }
sub sent { return grep { /grant_type=refresh_token/ } map { $_->{body} } @{ ov_control($fault, 'GET', '/journal') }; }
# A connection of its own for each case: the account is the case's name.
sub connect_account
{
	my ($connector, $account, %more) = @_;
	$n++;
	answers({ body => tokens(%more) });
	app(qq{DO \$\$ DECLARE s text; BEGIN
		SELECT state INTO s FROM oauth_vault.oauth_begin('$connector', account => '$account', assertion => '$jwt');
		PERFORM oauth_vault.oauth_callback('https://app.example/cb?code=c&state=' || s, assertion => '$jwt');
	END \$\$});
	return;
}
sub column { my ($account, $what) = @_; return superuser("SELECT $what FROM oauth_vault.connection WHERE account = '$account'"); }
sub set { my ($account, $what) = @_; superuser("UPDATE oauth_vault.connection SET $what WHERE account = '$account'"); return; }
sub expire { set($_[0], q{expires_at = now() - interval '1 minute', refresh_at = NULL, attempts = 0}); return; }
# It must not take the answers of the next case.
sub rest { set($_[0], 'refresh_at = NULL'); return; }
sub fresh { my ($account, $connector) = @_; return "SELECT oauth_vault.oauth_fresh_token('" . ($connector // 'lab') . "', '$account', assertion => '$jwt')"; }
sub call
{
	my ($sql) = @_;
	my (undef, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /ERROR:\s+(\w{5}): / ? ($1, $err) : ('00000', $out);
}
sub session
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	return { out => \$out, h => IPC::Run::start([ 'psql', '-XAtq', '-U', 'app', '-d', $node->connstr('postgres'), '-c', $sql ],
			'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60)) };
}

superuser(qq{SELECT oauth_vault.oauth_set_provider('lab', '{"schema": 1, "display_name": "Lab", "client_auth": ["client_secret_post"],
	"authorization": {"url": "$base/authorize"}, "token": {"url": "$base/token"}, "refresh": {"rotates": "sometimes", "retry_in_doubt": true},
	"response": {"refresh_expiry": [{"kind": "seconds", "field": "/refresh_token_expires_in"}]}}');
	SELECT oauth_vault.oauth_create_connector('lab', 'lab', 'client', 'secret', 'https://app.example/cb', scopes => ARRAY['read', 'write'],
		refresh_policy => 'lazy');
	SELECT oauth_vault.oauth_create_connector('eager', 'lab', 'client', 'secret', 'https://app.example/cb', refresh_policy => 'eager')});

# ---- 2: the refresh never happens, and an expired token is served ----

connect_account('eager', 'f2', expires_in => 6);
$n++;
answers({ repeat => -1, body => tokens() });
ok(ov_wait_for('a refresh', sub { column('f2', 'token_generation') == 2 }, 8), 'field failure 3.2: an idle connection is renewed by itself, in time');
is(column('f2', 'issued_at < created_at + interval $$6 seconds$$'), 't', 'field failure 3.2: before its token has expired');
connect_account('lab', 'f2 dead');
expire('f2 dead');
answers({ status => 500, repeat => -1 });
my ($state, $text) = call(fresh('f2 dead'));
rest('f2 dead');
is($state, 'OV020', 'field failure 3.2: an expired token is not served, whatever the provider does');

# ---- 4: a race's loser, or a blip, marks a healthy grant dead ----

connect_account('lab', 'f4');
expire('f4');
answers({ delayMs => 1500, status => 400, body => { error => 'invalid_grant' } });
my $loser = session(fresh('f4'));
ov_wait_for('its request', sub { $loser->{h}->pump_nb; sent() == 1 });
$n++;
script({ body => tokens() });
app(qq{DO \$\$ DECLARE s text; BEGIN
	SELECT state INTO s FROM oauth_vault.oauth_begin('lab', account => 'f4', assertion => '$jwt');
	PERFORM oauth_vault.oauth_callback('https://app.example/cb?code=c&state=' || s, assertion => '$jwt');
END \$\$});
$loser->{h}->finish;
ov_wait_for('the end of it', sub { superuser('SELECT count(*) FROM oauth_vault.intent') eq '0' });
is(column('f4', 'status'), 'active', "field failure 3.4: a late invalid_grant does not undo somebody's success");
is((call(fresh('f4')))[1], "access-$n", 'field failure 3.4: whose token is served');

# ---- 5: the network, 5xx and 429 taken for a revocation ----

connect_account('lab', 'f5');
foreach my $case ([ 'a broken connection', { drop => 'before' } ], [ 'half an answer', { drop => 'mid-body', body => tokens() } ],
	[ '429', { status => 429, body => { error => 'invalid_grant' } } ], [ '503', { status => 503, body => { error => 'invalid_grant' } } ],
	[ 'a proxy\'s page', { status => 502, headers => { 'content-type' => 'text/html' }, body => '<h1>invalid_grant</h1>' } ])
{
	my ($what, $answer) = @$case;
	expire('f5');
	superuser('DELETE FROM oauth_vault.intent');
	answers($answer);
	($state) = call(fresh('f5'));
	rest('f5');
	is($state . ' ' . column('f5', 'status || (refresh_token IS NOT NULL)'), 'OV020 activetrue', "field failure 3.5: $what is no revocation");
}
superuser('DELETE FROM oauth_vault.intent');

# ---- 7: a grant dies, and nobody is told ----

connect_account('lab', 'f7');
expire('f7');
answers({ status => 400, body => { error => 'invalid_grant' } });
($state, $text) = call(fresh('f7'));
like($text, qr/OV010.*"since".*oauth_begin/s, 'field failure 3.7: the caller is told since when, and what to do');
is(app("SELECT reason || ' ' || who_must_act FROM oauth_vault.oauth_reauth_prompts" ), '', 'field failure 3.7: (not without identity)');
is(app("BEGIN; SELECT oauth_vault.oauth_identify('$jwt'); SELECT reason || ' ' || who_must_act FROM oauth_vault.oauth_reauth_prompts WHERE account = 'f7'; COMMIT")
	=~ s/^\s+//r, 'invalid_grant person', 'field failure 3.7: the person has a prompt');
ok(ov_wait_for('the audit row', sub { superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'reauth_required' AND account = 'f7'}) == 1 }),
	'field failure 3.7: the audit trail has it');
like(superuser(q{SELECT array_to_string(attention, ' ') FROM oauth_vault.oauth_status}), qr/persons: 1 connections need a new consent/,
	'field failure 3.7: and oauth_status');

# ---- 8: a lock lapses while the provider is slow ----

connect_account('lab', 'f8');
expire('f8');
my $its = "refresh-$n";
$n++;
answers({ delayMs => 3200, body => tokens() });
my @both = (session(fresh('f8')));
ov_wait_for('its request', sub { $both[0]->{h}->pump_nb; sent() == 1 });
my $t = time;
ov_wait_for('longer than any doubt lasts', sub { $both[0]->{h}->pump_nb; time - $t > 2.4 });
push @both, session(fresh('f8'));
$_->{h}->finish foreach @both;
is(join(' ', map { ${ $_->{out} } =~ s/\s//gr } @both), "access-$n access-$n", 'field failure 3.8: a second caller joins, however slow the provider');
is(scalar(grep { /$its(&|$)/ } sent()), 1, 'field failure 3.8: one request');

# ---- 14: expires_in is missing, or text ----

connect_account('lab', 'f14', expires_in => undef);
is(column('f14', 'expires_at IS NULL'), 't', 'field failure 3.14: without expires_in the expiry is unknown, not never');
connect_account('lab', 'f14 text', expires_in => '3600');
is(column('f14 text', q{expires_at BETWEEN now() + interval '59 minutes' AND now() + interval '61 minutes'}), 't', 'field failure 3.14: text is read');

# ---- 16: an error with status 200 ----

connect_account('lab', 'f16');
expire('f16');
answers({ status => 200, body => { error => 'invalid_grant', error_description => 'it is gone' } });
is((call(fresh('f16')))[0], 'OV010', 'field failure 3.16: an error with status 200 is one');

# ---- 21: the lead is longer than the life ----

connect_account('eager', 'f21', expires_in => 20);
is(column('f21', q{refresh_at - issued_at > interval '12 seconds' AND refresh_at < expires_at}), 't',
	'field failure 3.21: the lead is a part of the life, however short');
rest('f21');

# ---- 24, 25: what an answer leaves out, or adds ----

connect_account('lab', 'f25', scope => 'read write');
my $first = "refresh-$n";
foreach my $try (1, 2)
{
	expire('f25');
	$n++;
	answers({ body => tokens(refresh_token => undef, scope => $try == 1 ? 'read' : 'read admin') });
	call(fresh('f25'));
	like(join(' ', sent()), qr/refresh_token=$first(&|$)/, "field failure 3.25: without a new refresh token the old one stays ($try)");
}
is(superuser(q{SELECT string_agg(array_to_string(scopes, ','), ' ' ORDER BY audit_id) FROM oauth_vault.audit WHERE event = 'refreshed' AND account = 'f25'}),
	'read read,admin', 'field failure 3.24: what was granted is recorded, narrower or wider');
like(superuser(q{SELECT string_agg(reason, ' ') FROM oauth_vault.audit WHERE event = 'refreshed' AND account = 'f25'}), qr/scopes that were not there before/,
	'field failure 3.24: and what is wider is flagged');
unlike(join(' ', sent()), qr/scope=/, 'field failure 3.24: a refresh asks for no more than was granted');

# ---- 27: refresh tokens that are not used expire ----

connect_account('lab', 'f27', refresh_token_expires_in => 1000);
is(column('f27', q{refresh_at BETWEEN issued_at + interval '13 minutes' AND refresh_expires_at}), 't',
	'field failure 3.27: a refresh token that dies of idleness is used before, though the policy is lazy');
set('f27', q{issued_at = now() - interval '15 minutes', refresh_expires_at = now() + interval '100 seconds', refresh_at = now() + interval '1 second'});
$n++;
answers({ body => tokens(refresh_token_expires_in => 1000) });
superuser(q{SELECT oauth_vault.oauth_alter_connector('lab')});
ok(ov_wait_for('the refresh', sub { column('f27', 'token_generation') == 2 }), 'field failure 3.27: so it is');
is(column('f27', q{NOT refresh_fixed AND refresh_at > now() + interval '13 minutes'}), 't', 'field failure 3.27: and again in time');
connect_account('lab', 'f27 fixed', refresh_token_expires_in => 100);
set('f27 fixed', q{issued_at = now() - interval '15 minutes', consented_at = now() - interval '30 minutes',
	refresh_expires_at = now() + interval '100 seconds', refresh_at = now() + interval '1 second'});
$n++;
answers({ body => tokens(refresh_token_expires_in => 100) });
superuser(q{SELECT oauth_vault.oauth_alter_connector('lab')});
ok(ov_wait_for('the refresh', sub { column('f27 fixed', 'token_generation') == 2 }), 'field failure 3.27: one with a fixed life is tried');
is(column('f27 fixed', 'refresh_fixed AND refresh_at IS NULL'), 't', 'field failure 3.27: once, not in ever smaller circles');
is(app("BEGIN; SELECT oauth_vault.oauth_identify('$jwt'); SELECT reason || ' ' || message FROM oauth_vault.oauth_reauth_prompts WHERE account = 'f27 fixed'; COMMIT")
	=~ s/^\s+//r, 'refresh_token_expiring Please connect lab (f27 fixed) again: its access ends soon.',
	'field failure 3.27: its person is warned instead');
is(superuser(q{SELECT value FROM oauth_vault.oauth_metrics WHERE name = 'oauth_vault_connections_ending' AND labels = '{"connector": "lab"}'}), 1,
	'field failure 3.27: and it is counted');
set('f27', q{expires_at = now() + interval '1 second', issued_at = now() - interval '20 minutes'});
$n++;
answers({ body => tokens() });
call(fresh('f27'));
ok(ov_wait_for('a refresh', sub { column('f27', 'token_generation') == 3 }), 'field failure 3.27: keep-alive is not taken for a renewal of the access token');

# ---- 29: a refresh blocks the caller ----

connect_account('lab', 'f29');
set('f29', q{expires_at = now() + interval '40 seconds', issued_at = now() - interval '1 hour'});
answers({ delayMs => 2000, body => tokens(access_token => 'behind') });
$t = time;
is((call(fresh('f29')))[1], "access-$n", 'field failure 3.29: a token that still lives is served');
cmp_ok(time - $t, '<', 1, 'field failure 3.29: at once');
ok(ov_wait_for('the refresh', sub { (call(fresh('f29')))[1] eq 'behind' }), 'field failure 3.29: while it is renewed behind it');

# ---- each row has its test ----

my $table = slurp_file("$ENV{OV_TREE}/doc/reliability.md");
my $rows = 0;
while ($table =~ /^\| 3\.(\d+) \|[^|]*\| ([^|]*) \|$/gm)
{
	my ($row, $where) = ($1, $2);
	$rows++;
	foreach my $file ($where =~ /`(\d{3}_\w+)`/g)
	{
		like(slurp_file("$ENV{OV_TREE}/test/t/$file.pl"), qr/field failure 3\.$row\b/, "row 3.$row has its test in $file");
	}
	like($where, qr/`\d{3}_\w+`/, "row 3.$row names a test");
}
cmp_ok($rows, '>=', 20, 'the table is there');
$node->stop('fast');
done_testing();
