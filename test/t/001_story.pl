# The whole story against a certified authorization server over real TLS:
# connect, use, refresh ahead of expiry with rotation, revoke.
use strict;
use warnings;
use FindBin;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use MIME::Base64;
use OauthVault::Test;
use POSIX ();
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 6);
my $node = ov_cluster('story', hosts => ["localhost:$idp->{port}"],
	conf => "oauth_vault.refresh_lead = 3\n");

$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}')});

sub userinfo
{
	my ($token) = @_;
	my $r = HTTP::Tiny->new(verify_SSL => 1, SSL_options => { SSL_ca_file => "$ca_dir/ca.pem" },
		timeout => 10)->get("$idp->{issuer}/me", { headers => { authorization => "Bearer $token" } });
	return $r->{status} == 200 ? '200 ' . decode_json($r->{content})->{sub} : $r->{status};
}

# Which of all that the provider has issued to somebody is good for anything, as it says (RFC 7662)?
sub active_at_provider
{
	my ($who, $enough) = @_;
	my $http = HTTP::Tiny->new(verify_SSL => 1, SSL_options => { SSL_ca_file => "$ca_dir/ca.pem" }, timeout => 10);
	my $active = 0;
	foreach my $secret (reverse grep { !/^eyJ/ } @{ ov_control($idp, 'GET', '/secrets') })	# newest first; no ID tokens
	{
		my $r = $http->post_form("$idp->{issuer}/token/introspection", { token => $secret },
			{ headers => { authorization => 'Basic ' . encode_base64('demo:demo%3A+secret%2Fwith%2Bsigns', '') } });
		die "introspection: $r->{status} $r->{content}" unless $r->{status} == 200;
		my $said = decode_json($r->{content});
		$active++ if $said->{active} && ($said->{sub} // '') =~ /^(?:$who)$/;
		last if $enough && $active;
	}
	return $active;
}

# Do the same for several people at once, a process for each; who => what it returns
sub at_once
{
	my ($do, @who) = @_;
	my (%run, %result);
	foreach my $who (@who)
	{
		my ($out, $err) = ('', '');
		$run{$who} = { out => \$out, err => \$err };
		$run{$who}{h} = IPC::Run::start(sub {
			my $answer = eval { $do->($who) };
			POSIX::write(defined $answer ? 1 : 2, $_, length $_) for $answer // "$who: $@";
			POSIX::_exit(defined $answer ? 0 : 1);
		}, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(120));
	}
	foreach my $who (@who)
	{
		$run{$who}{h}->finish;
		diag(${ $run{$who}{err} }) if ${ $run{$who}{err} } ne '';
		$result{$who} = ${ $run{$who}{out} };
	}
	return %result;
}

my @people = qw(ada grace edsger);
my @crowd = map { "person$_" } 1 .. 5;
my %story = at_once(sub {
	my ($who) = @_;
	my $id = ov_connect($node, $who, 'demo');
	return "$id " . userinfo(ov_sql($node, $who, "SELECT oauth_vault.oauth_fresh_token('demo');"));
}, @people, @crowd);
my %id;
foreach my $who (@crowd)
{
	like($story{$who}, qr/^[0-9a-f-]{36} 200 $who$/, "$who, at the same time as others, gets a token of their own");
}
foreach my $who (@people)
{
	like($story{$who}, qr/ 200 $who$/, "$who, too");
	($id{$who}) = split ' ', $story{$who};
	like($id{$who}, qr/^[0-9a-f-]{36}$/, "$who connects an account");
	is(ov_sql($node, $who, "SELECT status || ' ' || connector FROM oauth_vault.oauth_connections;"),
		'active demo', "$who sees one live connection");
}

my %token;
foreach my $who (@people)
{
	$token{$who} = ov_sql($node, $who, "SELECT oauth_vault.oauth_fresh_token('demo');");
	is(userinfo($token{$who}), "200 $who", "the provider accepts the token of $who");
}
is(scalar(keys %{ { map { $_ => 1 } values %token } }), 3, 'three people, three tokens');

# Two rotations ahead of expiry, without anybody asking.
sub generations
{
	return $node->safe_psql('postgres', q{SET ROLE NONE;
		SELECT min(token_generation) FROM oauth_vault.connection WHERE status = 'active'});
}
my $first = generations();
ok(ov_wait_for('two background refreshes', sub { generations() >= $first + 2 }, 40),
	'the worker refreshes ahead of expiry, twice, by itself');
foreach my $who (@people)
{
	my $now = ov_sql($node, $who, "SELECT oauth_vault.oauth_fresh_token('demo');");
	isnt($now, $token{$who}, "$who has a new token");
	is(userinfo($now), "200 $who", "which the provider accepts");
	$token{$who} = $now;
}

cmp_ok(active_at_provider('ada', 1), '>', 0, 'the provider knows active tokens of ada');
is(ov_sql($node, 'ada', "SELECT local_state || ' ' || provider_state FROM oauth_vault.oauth_revoke('demo');"),
	'revoking queued', 'revoking is immediate here and queued for the provider');
my ($state) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
like($state, qr/^OV01[02]$/, 'no token after revocation');
ok(ov_wait_for('revocation at the provider', sub { userinfo($token{ada}) == 401 }, 20),
	'the provider refuses the revoked token');
ok(ov_wait_for('final state', sub {
	ov_sql($node, 'ada', "SELECT count(*) FROM oauth_vault.oauth_connections WHERE status = 'revoked';") eq '1' }),
	'the connection ends as revoked');
is(active_at_provider('ada'), 0, 'introspection finds nothing active of ada');
my %ended = at_once(sub {
	my ($who) = @_;
	my $answer = ov_sql($node, $who, "SELECT local_state || ' ' || provider_state FROM oauth_vault.oauth_revoke('demo');");
	ov_wait_for("revocation of $who", sub { ov_sql($node, $who,
		"SELECT count(*) FROM oauth_vault.oauth_connections WHERE status = 'revoked';") eq '1' });
	return $answer;
}, @crowd);
is($ended{$_}, 'revoking queued', "$_ revokes at the same time as others") foreach @crowd;
is(active_at_provider(join '|', 'ada', @crowd), 0, 'and nothing of them stays active');
# while they are looked at they may be rotated away
ok(ov_wait_for("grace's tokens", sub { active_at_provider('grace', 1) }), "somebody else's tokens are still active at the provider");
is(userinfo(ov_sql($node, 'grace', "SELECT oauth_vault.oauth_fresh_token('demo');")), '200 grace',
	"somebody else's grant is untouched");

my $events = $node->safe_psql('postgres', q{
	SELECT string_agg(DISTINCT event, ' ' ORDER BY event) FROM oauth_vault.audit WHERE user_id = 'ada'});
foreach my $event (qw(flow_begun connected token_access refreshed revocation_requested revocation_settled))
{
	like($events, qr/\b$event\b/, "the audit trail of ada has $event");
}

$node->stop('fast');
done_testing();
