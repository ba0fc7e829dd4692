# Events: one for each transition, in the transaction that makes it; consumers
# get them all, in an order that no late commit falls out of, again until they
# are done; a notification says when to look; nothing in them is secret.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP qw(decode_json);
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('events', hosts => ["localhost:$idp->{port}"], conf => 'max_prepared_transactions = 5');
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy');
	CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin;
	CREATE ROLE security LOGIN IN ROLE oauth_vault_auditor});

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub admin { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'dba' ]); }
sub expire { superuser("UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute', refresh_at = NULL, attempts = 0 WHERE user_id = '$_[0]'"); return; }
sub fresh { return "SELECT oauth_vault.oauth_fresh_token('demo');"; }
sub events { my ($who, $columns) = @_; return admin("SELECT string_agg(concat_ws('/', " . ($columns // 'event') . "), ' ' ORDER BY event_id)
	FROM oauth_vault.oauth_events('test', 10000) WHERE user_id = '$who'"); }
sub reaches { my ($who, $list, $what) = @_;
	ov_wait_for($what, sub { events($who) eq $list }, 20);
	return is(events($who), $list, $what); }
# Everything that has been committed has its place.
sub settled { return ov_wait_for('places', sub { superuser('SELECT count(*) FROM oauth_vault.event_pending') eq '0' }, 20); }
sub session
{
	my ($user) = @_;
	my ($in, $out, $err) = ('', '', '');
	my $s = { in => \$in, out => \$out, err => \$err };
	$s->{h} = IPC::Run::start([ 'psql', '-XAtq', '-U', $user, '-d', $node->connstr('postgres') ],
		'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	return $s;
}
sub ask
{
	my ($s, $sql) = @_;
	my $mark = 'mark' . int(rand 1e9);
	my $from = length ${ $s->{out} };
	${ $s->{in} } .= "$sql\n\\echo $mark\n";
	$s->{h}->pump until ${ $s->{out} } =~ /^$mark\n/m;
	return substr(${ $s->{out} }, $from) =~ s/^$mark\n//mr;
}
sub end { my ($s) = @_; ${ $s->{in} } .= "\\q\n"; $s->{h}->finish; return; }

# ---- each transition, once ----

my $listener = session('app');
ask($listener, 'LISTEN oauth_vault;');
my $id = ov_connect($node, 'ada', 'demo');
reaches('ada', 'connected', 'a consent');
ok(ov_wait_for('the notification', sub { ask($listener, 'SELECT 1;'); ${ $listener->{out} } =~ /"oauth_vault" with payload/ }),
	'a notification arrives');
my ($payload) = ${ $listener->{out} } =~ /with payload "(\{.*?\})"/;
is_deeply([ keys %{ decode_json($payload) } ], ['last_event_id'], 'and says nothing but how far there is to look');
cmp_ok(decode_json($payload)->{last_event_id}, '>=', 1, 'which is somewhere');

expire('ada');
my $old = ov_sql($node, 'ada', fresh());
reaches('ada', 'connected refreshed', 'a refresh');
ov_connect($node, 'ada', 'demo');
reaches('ada', 'connected refreshed connected', 'a consent renewed');
ov_control($idp, 'POST', '/behavior', { failNext => 1, failStatus => 400, failBody => { error => 'invalid_grant' } });
expire('ada');
is((ov_sql_fails($node, 'ada', fresh()))[0], 'OV010', 'the provider refuses');
reaches('ada', 'connected refreshed connected reauth_required', 'the end of a grant');
superuser(q{UPDATE oauth_vault.connection SET last_used_at = now(), attempts = 3});
ov_connect($node, 'ada', 'demo');
reaches('ada', 'connected refreshed connected reauth_required connected', 'the consent that follows, and nothing for a change in between');

ov_sql($node, 'ada', "SELECT oauth_vault.oauth_revoke('demo');", end => 'ROLLBACK;');
ov_sql($node, 'ada', "SELECT oauth_vault.oauth_revoke('demo');");
reaches('ada', 'connected refreshed connected reauth_required connected revoked revocation_settled',
	'a revocation and its outcome, and nothing for one that was rolled back');
is(events('ada', q{tenant = '', connector, connection_id, account = '', status}) =~ s/ .*//r, "t/demo/$id/t/active", 'an event says whose and what');
like(events('ada', 'event, status, reason'), qr{reauth_required/reauth_required/invalid_grant}, 'and why');

ov_connect($node, 'bob', 'demo');
admin("BEGIN; SELECT oauth_vault.oauth_offboard('bob', reason => 'left'); ROLLBACK");
admin("SELECT oauth_vault.oauth_offboard('bob', reason => 'left'); SELECT oauth_vault.oauth_offboard('bob')");
ov_wait_for('the erasure', sub { events('bob') =~ /erased/ });
is(join(' ', sort split / /, events('bob')), 'connected erased offboarded revocation_settled revoked', 'a person leaves');
like(events('bob', 'event, reason'), qr{offboarded/left}, 'for a reason');
admin("SELECT oauth_vault.oauth_onboard('bob'); SELECT oauth_vault.oauth_onboard('bob')");
like(events('bob'), qr/erased onboarded$/, 'and comes back, once') if settled();
admin("SELECT oauth_vault.oauth_import_connection('', 'cy', 'demo', '', 'an access token', 'a refresh token', now() + interval '1 hour', '{openid}')");
reaches('cy', 'imported', 'an import');
settled();
is(superuser('SELECT count(*), count(DISTINCT event_id) FROM oauth_vault.event'), '14|14', 'no event but these');

# ---- the order is that of the commits ----

admin("SELECT oauth_vault.oauth_events('order', 1)");
my $last = superuser('SELECT max(event_id) FROM oauth_vault.event');
admin("SELECT oauth_vault.oauth_events_done('order', $last)");
ov_connect($node, $_, 'demo') foreach qw(dan eve);
my $late = session('postgres');
ask($late, q{BEGIN; UPDATE oauth_vault.connection SET status = 'reauth_required', status_reason = 'by hand' WHERE user_id = 'dan';});
superuser(q{UPDATE oauth_vault.connection SET status = 'reauth_required', status_reason = 'by hand' WHERE user_id = 'eve'});
reaches('eve', 'connected reauth_required', 'a session that nobody waits for');
my $seen = admin("SELECT max(event_id) FROM oauth_vault.oauth_events('order')");
admin("SELECT oauth_vault.oauth_events_done('order', $seen)");
is(admin("SELECT count(*) FROM oauth_vault.oauth_events('order')"), '0', 'the consumer has dealt with all there is');
ask($late, 'COMMIT;');
end($late);
ok(ov_wait_for('the late one', sub { admin("SELECT string_agg(user_id || ' ' || event, ',') FROM oauth_vault.oauth_events('order')") eq 'dan reauth_required' }),
	'what was written before and commits after is not passed over');

# ---- prepared transactions ----

superuser(q{BEGIN; UPDATE oauth_vault.connection SET status = 'active', token_generation = token_generation + 1 WHERE user_id = 'eve'; PREPARE TRANSACTION 'p'});
superuser(q{COMMIT PREPARED 'p'});
reaches('eve', 'connected reauth_required refreshed', 'one that was prepared is found by the clock');

# ---- a consumer that fails ----

my $first = admin("SELECT string_agg(event_id::text, ' ') FROM oauth_vault.oauth_events('worker', 3)");
is($first, '1 2 3', 'a new consumer begins at the first event that is kept');
is(admin("SELECT string_agg(event_id::text, ' ') FROM oauth_vault.oauth_events('worker', 3)"), $first, 'not done, they come again');
admin("BEGIN; SELECT oauth_vault.oauth_events_done('worker', 3); ROLLBACK");
is(admin("SELECT min(event_id) FROM oauth_vault.oauth_events('worker')"), '1', 'also when the work on them was rolled back');
is(admin("SELECT oauth_vault.oauth_events_done('worker', 2), oauth_vault.oauth_events_done('worker', 1)"), 't|f', 'done');
is(admin("SELECT min(event_id) FROM oauth_vault.oauth_events('worker')"), '3', 'it goes on behind');
is(admin("SELECT min(event_id) FROM oauth_vault.oauth_events('test')"), '1', 'and each for itself');
sub refused { my ($user, $sql) = @_; return ($node->psql('postgres', $sql, extra_params => [ '-U', $user, '-v', 'VERBOSITY=verbose' ]))[2] =~ /ERROR:\s+(\w{5})/ ? $1 : '00000'; }
is(refused('dba', "SELECT oauth_vault.oauth_events_done('worker', 1000000)"), '22023', 'nobody is done with what is to come');
is(refused('dba', "SELECT oauth_vault.oauth_events_done('nobody', 1)"), '42704', 'nor without having looked');
is(refused('dba', "SELECT oauth_vault.oauth_events('worker', 0)"), '22023', 'none are not asked for');
is(refused('dba', "BEGIN READ ONLY; SELECT oauth_vault.oauth_events('worker')"), '25006', 'a position is data');
foreach my $user (qw(app security))
{
	is(refused($user, "SELECT oauth_vault.oauth_events('spy')"), '42501', "$user reads no events");
	is(refused($user, 'SELECT FROM oauth_vault.event'), '42501', 'nor the table');
}

# ---- the example ----

my $example = "$ENV{OV_TREE}/examples/backend";
-e "$example/node_modules" or symlink("$ENV{OV_TREE}/test/idp/node_modules", "$example/node_modules") or die $!;
{
	my ($out, $err) = ('', '');
	my $count = superuser('SELECT count(*) FROM oauth_vault.event');
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGUSER => 'dba', PGDATABASE => 'postgres');
	my $h = IPC::Run::start([ qw(setpriv --pdeathsig KILL node), "$example/events.mjs", 'example' ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	delete local $ENV{PGUSER};
	ok(ov_wait_for('the backlog', sub { $h->pump_nb; ($out =~ tr/\n//) == $count }, 15), 'the example reads what there is') or diag($out, $err);
	admin("SELECT oauth_vault.oauth_revoke_connection(connection_id, 'a test') FROM (SELECT connection_id FROM oauth_vault.oauth_events('test', 1000)
		WHERE user_id = 'cy' AND event = 'imported') e");
	ok(ov_wait_for('the next', sub { $h->pump_nb; $out =~ /"event":"revoked".*"user_id":"cy"/ }, 15), 'and what comes') or diag($out, $err);
	ok(ov_wait_for('its position', sub { superuser("SELECT event_id FROM oauth_vault.event_consumer WHERE consumer = 'example'") > $count }, 15), 'and says so');
	$h->kill_kill(grace => 1);
	is($err, '', 'it had nothing to complain about');
}

# ---- dump and restore ----

settled();
my $file = $node->backup_dir . '.sql';
$node->command_ok([ 'pg_dump', '-d', 'postgres', '-f', $file ], 'pg_dump');
superuser('CREATE DATABASE restored TEMPLATE template0');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $file ], 'restore');
foreach my $what ('SELECT count(*) FROM oauth_vault.event_pending',		# first: they are moved to the next
	'SELECT string_agg(e::text, chr(10) ORDER BY event_id) FROM oauth_vault.event e',
	'SELECT string_agg(concat_ws(chr(32), consumer, event_id), chr(10) ORDER BY consumer) FROM oauth_vault.event_consumer')
{
	is($node->safe_psql('restored', $what), superuser($what), 'a restore makes no events and keeps positions: ' . substr($what, 0, 40));
}
$node->safe_psql('restored', 'SELECT oauth_vault.oauth_claim()');
my $end = superuser('SELECT max(event_id) FROM oauth_vault.event');
$node->safe_psql('restored', q{SELECT setval('oauth_vault.event_pending_pending_id_seq', 1, false);
	UPDATE oauth_vault.connection SET status = 'reauth_required' WHERE user_id = 'eve'});
ok(ov_wait_for('an event there', sub { $node->safe_psql('restored', q{SELECT max(event_id) FROM oauth_vault.event WHERE user_id = 'eve' AND event = 'reauth_required'}) == $end + 1 }, 20),
	'what comes is behind what was, also after somebody set the sequence back');

# ---- retention ----

$node->append_conf('postgresql.conf', 'oauth_vault.event_retention_days = 7');
$node->reload;
superuser(q{UPDATE oauth_vault.event SET at = at - interval '8 days';
	UPDATE oauth_vault.event_consumer SET seen_at = now() - interval '8 days' WHERE consumer <> 'worker'});
my $worker = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'oauth_vault network worker' AND datname = 'postgres'};
superuser("SELECT pg_terminate_backend(($worker))");	# its successor sweeps at once
ok(ov_wait_for('the sweep', sub { superuser('SELECT min(event_id) FROM oauth_vault.event') eq '3' }, 20),
	'old events go, but for those that a consumer is still to see');
is(superuser('SELECT string_agg(consumer, chr(32)) FROM oauth_vault.event_consumer'), 'worker', 'one that has not come for as long holds nothing');

# ---- nothing secret ----

my $all = superuser('SELECT string_agg(e::text, chr(10)) FROM oauth_vault.event e') . slurp_file($node->logfile);
my @secrets = ($old, 'an access token', 'a refresh token', 'demo: secret/with+signs');
is_deeply([ grep { my $s = $_; grep { index($all, $_) >= 0 } ov_forms($s) } @secrets ], [], 'no token in any event');
end($listener);
$node->stop('fast');
done_testing();
