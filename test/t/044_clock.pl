# The server's clock is set by a day, forward and back, while it runs and while it
# does not: neither a storm nor silence, and no token is served that may be dead.
use strict;
use warnings;
use List::Util qw(max);
use OauthVault::Test;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use Time::HiRes qw(time);

# A library that is preloaded into the server shifts its clock, the monotonic one excepted.
my $dir = PostgreSQL::Test::Utils::tempdir();
system('gcc', '-shared', '-fPIC', '-O1', '-Wall', '-Werror', '-o', "$dir/shift_clock.so", "$ENV{OV_TREE}/test/lib/shift_clock.c") == 0
  or die 'gcc';
open my $shift, '>', "$dir/shift" or die "$dir/shift: $!";
sub set_clock
{
	my ($seconds) = @_;
	syswrite $shift, pack('q', $seconds);
	sysseek $shift, 0, 0;
	return;
}
set_clock(0);

my $fault = ov_fault();
my $base = "https://localhost:$fault->{port}";
my $node = ov_cluster('clock', hosts => ["localhost:$fault->{port}"], conf => "log_min_messages = log\n");
sub at_that_time
{
	my ($what) = @_;
	local %ENV = (%ENV, LD_PRELOAD => "$dir/shift_clock.so", SHIFT_CLOCK => "$dir/shift");
	return $what->();
}
sub restart { $node->stop('fast'); at_that_time(sub { $node->start }); return; }
sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub app { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'app' ]); }
# Assertions are of the server's clock, too.
sub token
{
	my ($account) = @_;
	my $jwt = at_that_time(sub { ov_assertion($node, 'ada') });
	return app("SELECT oauth_vault.oauth_fresh_token('lab', '$account', assertion => '$jwt')");
}
sub tokens
{
	my ($n) = @_;
	ov_control($fault, 'POST', '/reset');
	ov_control($fault, 'POST', '/script', { path => '/token', answers => [ { repeat => -1, delayMs => 20, body => {
		access_token => "access-$n", token_type => 'Bearer', expires_in => 3600, refresh_token => 'refresh' } } ] });
	return;
}
sub requests { return [ grep { $_->{path} eq '/token' } @{ ov_control($fault, 'GET', '/journal') } ]; }
sub wait_for_log
{
	my ($like, $from) = @_;
	return ov_wait_for("$like in the log", sub { slurp_file($node->logfile, $from) =~ $like });
}
# The worker notices when it next goes round.
sub jump
{
	my ($offset, $like) = @_;
	my $from = -s $node->logfile;
	set_clock($offset);
	return ov_wait_for("$like in the log", sub {
		superuser(q{SELECT oauth_vault.oauth_alter_connector('lab')});
		slurp_file($node->logfile, $from) =~ $like });
}
sub connection { return superuser("SELECT $_[0] FROM oauth_vault.connection"); }

restart();
superuser(qq{SELECT oauth_vault.oauth_set_provider('lab', '{"schema": 1, "display_name": "Lab",
	"client_auth": ["client_secret_post"], "authorization": {"url": "$base/authorize"}, "token": {"url": "$base/token"},
	"refresh": {"rotates": "never"}}');
	SELECT oauth_vault.oauth_create_connector('lab', 'lab', 'client', 'secret', 'https://app.example/cb', refresh_policy => 'eager')});
tokens(1);
my $jwt = ov_assertion($node, 'ada');
app(qq{DO \$\$ DECLARE s text; BEGIN FOR i IN 1 .. 40 LOOP
	SELECT state INTO s FROM oauth_vault.oauth_begin('lab', account => 'a' || i, assertion => '$jwt');
	PERFORM oauth_vault.oauth_callback('https://app.example/cb?code=c' || i || '&state=' || s, assertion => '$jwt');
END LOOP; END \$\$});
my $before = time;
is(superuser('SELECT abs(extract(epoch FROM clock_timestamp()) - ' . $before . ') < 60'), 't', 'the clock is right');

# ---- a day forward ----

tokens(2);
ok(jump(86400, qr/clock has been set forward by 86\d\d\d seconds/), 'a clock that is set forward is noticed');
is(superuser('SELECT clock_timestamp() > to_timestamp(' . $before . q{) + interval '23 hours'}), 't', 'it was');
ok(ov_wait_for('all of them', sub { connection('count(*) FILTER (WHERE expires_at > clock_timestamp())') == 40 }),
	'what seems to have expired is renewed');
my @seen = @{ requests() };
is(scalar(@seen), 40, 'once each');
cmp_ok(max(map { $_->{inFlight} } @seen), '<=', 8, 'field failure 3.20: not all at once');
cmp_ok(max(map { $_->{inFlight} } @seen[ 0 .. 1 ]), '<=', 2, 'beginning with few');
is(token('a1'), 'access-2', 'and served');
is(superuser(q{SELECT abs(clock_off_seconds) BETWEEN 86000 AND 87000 FROM oauth_vault.oauth_status}), 't',
	'oauth_status says how far the clock is off what the provider says');
like(superuser(q{SELECT array_to_string(attention, ' ') FROM oauth_vault.oauth_status}), qr/administrator: this server's clock is 86\d\d\d seconds ahead/,
	'and that an administrator must act');
like(superuser(q{SELECT string_agg(item || ': ' || value, '; ') FROM oauth_vault.connection c, oauth_vault.oauth_explain(c.connection_id) WHERE account = 'a1'}),
	qr/server's clock is 86\d\d\d seconds ahead of that of localhost:$fault->{port}.*who_must_act: administrator/, 'so does oauth_explain');

# ---- and back ----

tokens(3);
ok(jump(0, qr/clock has been set back by 86\d\d\d seconds/), 'a clock that is set back is noticed');
is(token('a2'), 'access-3', 'a token of the future is not served: nobody knows how long it lives');
ok(ov_wait_for('all to be put right', sub { connection(q{count(*) FILTER (WHERE refresh_at > clock_timestamp() + interval '61 minutes')}) == 0 }),
	'no refresh is a day away any more');
is(connection(q{count(*) FILTER (WHERE refresh_at < clock_timestamp() + interval '11 minutes' AND issued_at > clock_timestamp() + interval '1 hour')}), 39,
	'those of the future come up within minutes');
cmp_ok(connection(q{max(refresh_at) - min(refresh_at) FROM (SELECT * FROM oauth_vault.connection WHERE issued_at > clock_timestamp() + interval '1 hour') x --}),
	'gt', '00:02:00', 'but not in the same moment');
cmp_ok(scalar(@{ requests() }), '<', 15, 'which is no storm');

# ---- back-off and queued revocations across a jump ----

superuser(q{UPDATE oauth_vault.connection SET attempts = 3, issued_at = now(), expires_at = now() - interval '1 minute',
	refresh_at = now() + interval '1 day' WHERE account = 'a3'});
is(token('a3'), 'access-3', 'a back-off that would last a day is not believed');

# ---- set back while nobody looks ----

tokens(4);
ok(jump(86400, qr/set forward/), 'forward once more');
ok(ov_wait_for('all of them', sub { connection('count(*) FILTER (WHERE expires_at > clock_timestamp())') == 40 }), 'and all renewed');
tokens(5);
set_clock(0);
my $from = -s $node->logfile;
restart();
ok(wait_for_log(qr/audit trail has rows of the future/, $from), 'a clock that was set back while the server was down is noticed by the audit trail');
ok(ov_wait_for('all to be put right', sub { connection(q{count(*) FILTER (WHERE refresh_at > clock_timestamp() + interval '61 minutes')}) == 0 }),
	'and nothing is a day away');
is(token('a4'), 'access-5', 'and served anew');
$node->stop('fast');
done_testing();
