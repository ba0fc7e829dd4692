# Signed assertions against the live server: every way of being good, every
# attack, each with its SQLSTATE and reason, and with nobody left behind.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = ov_cluster('assertions');
my $now = time;
my ($app, $other, $vault) = ('https://app.example', 'https://other.example', 'vault:test');
my %who = (iss => $app, aud => $vault, sub => 'ada', iat => $now, exp => $now + 600);
my %acme = (iss => $other, aud => $vault, sub => 'ada', tid => 'acme', iat => $now, exp => $now + 600);

sub claims { my (%c) = (%who, @_); delete @c{ grep { !defined $c{$_} } keys %c }; return \%c; }
sub tenant { my (%c) = (%acme, @_); delete @c{ grep { !defined $c{$_} } keys %c }; return \%c; }
sub text { return JSON::PP->new->canonical->encode(claims(@_)); }
sub chain { my ($n) = @_; return { sub => "agent-$n", $n > 1 ? (act => chain($n - 1)) : () }; }

# ---- good ones: name, token, tenant, user ----

my @good = (
	[ 'EdDSA', { key => 'ed' } ],
	[ 'ES256', { key => 'ec' } ],
	[ 'RS256', { key => 'rsa', alg => 'RS256' } ],
	[ 'PS256 with the same key', { key => 'rsa', alg => 'PS256' } ],
	[ 'PS256 with a key for PS256 alone', { key => 'pss', alg => 'PS256' } ],
	[ 'without kid', { key => 'ec', header => { kid => undef } } ],
	[ 'without typ', { key => 'ed', header => { typ => undef } } ],
	[ 'typ in small letters', { key => 'ed', header => { typ => 'jwt' } } ],
	[ 'an access token in JWT form', { key => 'ed', header => { typ => 'at+jwt' } } ],
	[ 'audience in an array', { key => 'ed', claims => claims(aud => [ 'another', $vault ]) } ],
	[ 'expired within the leeway', { key => 'ed', claims => claims(exp => $now - 5) } ],
	[ 'not before, within the leeway', { key => 'ed', claims => claims(nbf => $now + 20) } ],
	[ 'issued in the future, within the leeway', { key => 'ed', claims => claims(iat => $now + 20) } ],
	[ 'without iat', { key => 'ed', claims => claims(iat => undef) } ],
	[ 'as long as max_age', { key => 'ed', claims => claims(exp => $now + 3600) } ],
	[ 'sub of 255 bytes', { key => 'ed', claims => claims(sub => 'u' x 255) }, '', 'u' x 255 ],
	[ 'sub with quotes and spaces', { key => 'ed', claims => claims(sub => q{o'ada; -- "x" }) }, '', q{o'ada; -- "x" } ],
	[ 'eight actors', { key => 'ed', claims => claims(act => chain(8)) } ],
	[ 'a tenant by claim', { key => 'foreign', claims => tenant() }, 'acme' ],
	[ 'another allowed tenant', { key => 'foreign', claims => tenant(tid => 'umbrella') }, 'umbrella' ],
	[ 'a fixed tenant, whatever a claim says', { key => 'ed', claims => claims(tid => 'acme', tenant => 'acme') } ],
);

# ---- bad ones: name, token, reason in DETAIL ----

my $signature = qr/signature does not match/;
my $algorithm = qr/algorithm is not allowed/;
my $issuer = qr/unknown issuer or for another audience/;
my $subject = qr/no usable subject/;
my @bad = (
	# signatures and algorithms (RFC 8725 sections 2.1, 3.1, 3.2)
	[ 'alg none', { key => 'ed', alg => 'none' }, $algorithm ],
	[ 'alg None', { key => 'ed', alg => 'none', header => { alg => 'None' } }, $algorithm ],
	[ 'alg none with a good signature', { key => 'ed', alg => 'none', sign => 'EdDSA' }, $algorithm ],
	[ 'no alg', { key => 'ed', header => { alg => undef } }, $algorithm ],
	[ 'alg is a number', { key => 'ed', header => { alg => 1 } }, $algorithm ],
	[ 'alg is an array', { key => 'ed', header => { alg => ['EdDSA'] } }, $algorithm ],
	[ 'alg in small letters', { key => 'ed', header => { alg => 'eddsa' } }, $algorithm ],
	[ 'HS256 with the Ed25519 public key', { key => 'ed', alg => 'HS256', hmac => 'x' }, $algorithm ],
	[ 'HS256 with its PEM', { key => 'ed', alg => 'HS256', hmac => 'pem' }, $algorithm ],
	[ 'HS256 with the RSA modulus', { key => 'rsa', alg => 'HS256', hmac => 'x' }, $algorithm ],
	[ 'HS256 with the RSA PEM', { key => 'rsa', alg => 'HS256', hmac => 'pem' }, $algorithm ],
	[ 'HMAC that calls itself RS256', { key => 'rsa', alg => 'RS256', sign => 'HS256', hmac => 'pem' }, $signature ],
	[ 'HMAC that calls itself EdDSA', { key => 'ed', sign => 'HS256', hmac => 'x' }, $signature ],
	[ 'RS256 that calls itself PS256', { key => 'rsa', alg => 'PS256', sign => 'RS256' }, $signature ],
	[ 'PS256 that calls itself RS256', { key => 'rsa', alg => 'RS256', sign => 'PS256' }, $signature ],
	[ 'RS256 with a key for PS256 alone', { key => 'pss', alg => 'RS256' }, $signature ],
	[ 'ES256 with the name of an RSA key', { key => 'ec', header => { kid => 'rsa' } }, $signature ],
	[ 'RS256 that calls itself ES256', { key => 'rsa', alg => 'ES256', sign => 'RS256' }, $signature ],
	[ 'RS384', { key => 'rsa', alg => 'RS384', sign => 'RS256' }, $algorithm ],
	[ 'ES256K', { key => 'ec', alg => 'ES256K', sign => 'ES256' }, $algorithm ],
	[ 'an ES256 signature in DER', { key => 'ec', cut => 'der' }, $signature ],
	[ 'no signature', { key => 'ed', cut => 'signature' }, $signature ],
	[ 'claims changed after signing', { key => 'ed', cut => 'payload' }, qr/claims are malformed|$signature/ ],
	[ 'padding behind the signature', { key => 'ed', cut => 'padding' }, qr/signature is malformed/ ],
	[ 'a fourth part', { key => 'ed', cut => 'fourth' }, qr/not a compact JWS/ ],
	[ 'a key nobody pinned', { key => 'stranger' }, $signature ],
	[ "a key nobody pinned, under a pinned one's name", { key => 'stranger', header => { kid => 'ed' } }, $signature ],
	[ "another issuer's key", { key => 'foreign' }, $signature ],
	[ "another issuer's key under this one's name", { key => 'foreign', header => { kid => 'ed' } }, $signature ],
	[ "another issuer's key with no name", { key => 'foreign', header => { kid => undef } }, $signature ],
	[ "this issuer's key for the other", { key => 'ed', claims => tenant() }, $signature ],
	[ 'a key for encryption', { key => 'enc' }, $signature ],
	[ 'a path for a kid', { key => 'stranger', header => { kid => '../../../../etc/passwd' } }, $signature ],
	[ 'SQL for a kid', { key => 'stranger', header => { kid => q{' OR 1=1 --} } }, $signature ],
	[ 'a kid that is a number', { key => 'ed', header => { kid => 1 } }, qr/header is malformed/ ],
	# headers that bring something along (RFC 7515 section 4.1, RFC 7797)
	(map { [ "$_->[0] in the header", { key => 'ed', header => { $_->[0] => $_->[1] } }, qr/header has \\?"$_->[0]/ ] } (
		[ crit => ['exp'] ], [ crit => [] ], [ crit => ['b64'] ], [ b64 => JSON::PP::false ], [ b64 => JSON::PP::true ],
		[ jku => 'https://evil.example/jwks.json' ], [ jwk => { kty => 'OKP' } ], [ x5u => 'https://evil.example/c.pem' ],
		[ x5c => ['MII='] ], [ zip => 'DEF' ])),
	[ 'typ of a DPoP proof', { key => 'ed', header => { typ => 'dpop+jwt' } }, qr/unexpected type/ ],
	[ 'typ of a logout token', { key => 'ed', header => { typ => 'logout+jwt' } }, qr/unexpected type/ ],
	[ 'typ of a security event', { key => 'ed', header => { typ => 'secevent+jwt' } }, qr/unexpected type/ ],
	[ 'typ is an array', { key => 'ed', header => { typ => ['JWT'] } }, qr/unexpected type/ ],
	[ 'alg twice', { key => 'ed', head => '{"alg":"EdDSA","alg":"none"}' }, qr/twice/ ],
	[ 'a header that is an array', { key => 'ed', head => '["EdDSA"]' }, qr/header is malformed/ ],
	[ 'a header that ends early', { key => 'ed', head => '{"alg":"EdDSA"' }, qr/header is malformed/ ],
	# size and form
	[ 'longer than 8 kB', { key => 'ed', claims => claims(pad => 'x' x 8192) }, qr/longer than 8192/ ],
	[ 'longer than a request slot', { key => 'ed', claims => claims(pad => 'x' x 100_000) }, qr/longer than 8192/ ],
	[ 'claims nested 40 deep', { key => 'ed', claims => claims(x => nested(40)) }, qr/claims are malformed/ ],
	[ 'claims that are an array', { key => 'ed', claims => '["ada"]' }, qr/claims are malformed/ ],
	[ 'claims with bad UTF-8', { key => 'ed', claims => text() =~ s/"ada"/"\\ud800"/r }, qr/claims are malformed/ ],
	[ 'sub twice', { key => 'ed', claims => text() =~ s/\}$/,"sub":"eve"}/r }, qr/twice/ ],
	[ 'exp twice', { key => 'ed', claims => text() =~ s/^\{/{"exp":1,/r }, qr/twice/ ],
	[ 'a duplicate further in', { key => 'ed', claims => text() =~ s/^\{/{"act":{"sub":"a","sub":"b"},/r }, qr/twice/ ],
	# who
	[ 'another issuer', { key => 'ed', claims => claims(iss => 'https://evil.example') }, $issuer ],
	[ 'an issuer with a slash', { key => 'ed', claims => claims(iss => "$app/") }, $issuer ],
	[ 'no issuer', { key => 'ed', claims => claims(iss => undef) }, $issuer ],
	[ 'an issuer in an array', { key => 'ed', claims => claims(iss => [$app]) }, $issuer ],
	[ 'another audience', { key => 'ed', claims => claims(aud => 'vault:prod') }, $issuer ],
	[ 'no audience', { key => 'ed', claims => claims(aud => undef) }, $issuer ],
	[ 'other audiences in an array', { key => 'ed', claims => claims(aud => [ 'a', 'b' ]) }, $issuer ],
	[ 'an array of audiences with an object', { key => 'ed', claims => claims(aud => [ $vault, {} ]) }, $issuer ],
	[ 'no sub', { key => 'ed', claims => claims(sub => undef) }, $subject ],
	[ 'an empty sub', { key => 'ed', claims => claims(sub => '') }, $subject ],
	[ 'sub of 256 bytes', { key => 'ed', claims => claims(sub => 'u' x 256) }, $subject ],
	[ 'sub with a NUL', { key => 'ed', claims => text() =~ s/"ada"/"ada\\u0000eve"/r }, qr/claims are malformed/ ],
	[ 'sub is a number', { key => 'ed', claims => claims(sub => 7) }, $subject ],
	[ 'sub is null', { key => 'ed', claims => text() =~ s/"ada"/null/r }, $subject ],
	[ 'sub is an array', { key => 'ed', claims => claims(sub => ['ada']) }, $subject ],
	[ 'a tenant that is not allowed', { key => 'foreign', claims => tenant(tid => 'initech') }, qr/tenant that its issuer may not/ ],
	[ "the other issuer's tenant", { key => 'foreign', claims => tenant(tid => '') }, qr/tenant that its issuer may not/ ],
	[ 'no tenant', { key => 'foreign', claims => tenant(tid => undef) }, qr/tenant that its issuer may not/ ],
	[ 'tenants in an array', { key => 'foreign', claims => tenant(tid => ['acme']) }, qr/tenant that its issuer may not/ ],
	[ 'nine actors', { key => 'ed', claims => claims(act => chain(9)) }, qr/more than 8 actors/ ],
	[ 'an actor that is a string', { key => 'ed', claims => claims(act => 'bot') }, qr/malformed \\?"act/ ],
	[ 'an actor without a name', { key => 'ed', claims => claims(act => {}) }, qr/actor without a usable subject/ ],
	[ 'an actor deep down without a name', { key => 'ed', claims => claims(act => { sub => 'a', act => { sub => '' } }) },
		qr/actor without a usable subject/ ],
	[ 'an actor of 3 kB', { key => 'ed', claims => claims(act => { sub => 'a', x => 'x' x 3000 }) }, qr/of more than 2048 bytes/ ],
	[ 'a jti that is a number', { key => 'ed', claims => claims(jti => 5) }, qr/malformed \\?"jti/ ],
	[ 'a jti of 256 bytes', { key => 'ed', claims => claims(jti => 'j' x 256) }, qr/malformed \\?"jti/ ],
	# when
	[ 'expired', { key => 'ed', claims => claims(exp => $now - 31) }, qr/has expired/ ],
	[ 'expired long ago', { key => 'ed', claims => claims(exp => 1) }, qr/has expired/ ],
	[ 'no expiry', { key => 'ed', claims => claims(exp => undef) }, qr/no expiry/ ],
	[ 'an expiry in a string', { key => 'ed', claims => claims(exp => $now + 600 . '') }, qr/no expiry/ ],
	[ 'not before, beyond the leeway', { key => 'ed', claims => claims(nbf => $now + 600, exp => $now + 900) }, qr/not valid yet/ ],
	[ 'issued in the future', { key => 'ed', claims => claims(iat => $now + 600, exp => $now + 900) }, qr/in the future/ ],
	[ 'issued long ago', { key => 'ed', claims => claims(iat => $now - 86400) }, qr/longer than the vault file allows/ ],
	[ 'longer than max_age', { key => 'ed', claims => claims(exp => $now + 3700) }, qr/longer than the vault file allows/ ],
	[ 'longer than max_age, without iat', { key => 'ed', claims => claims(exp => $now + 3700, iat => undef) },
		qr/longer than the vault file allows/ ],
	[ 'exp beyond all numbers', { key => 'ed', claims => text() =~ s/"exp":\d+/"exp":1e999/r }, qr/no expiry/ ],
);
# Not in the table: these depend on what came before.
my @special = (
	{ key => 'ed' },											# ada, for the rest
	{ key => 'once', claims => claims(iss => 'https://once.example', jti => 'first', sub => 'ada') },
	{ key => 'once', claims => claims(iss => 'https://once.example', jti => 'second', sub => 'ada') },
	{ key => 'once', claims => claims(iss => 'https://once.example', sub => 'ada') },
	{ key => 'ec' },											# withdrawn below
	{ key => 'stranger' },										# added below
	{ key => 'ed', claims => claims(exp => $now - 22) },		# lives for a few seconds
	{ key => 'once', claims => claims(iss => 'https://once.example', jti => 'fourth', sub => 'ada', iat => undef) },
	{ key => 'once', claims => claims(iss => 'https://once.example', jti => 'fifth', sub => 'ada', iat => $now - 60) },
	# for after a restart: one for every other second to come
	(map { { key => 'once', claims => claims(iss => 'https://once.example', jti => "later-$_", sub => 'ada', iat => $now + 2 * $_, exp => $now + 2 * $_ + 300) } } 1 .. 60),
);
# What may be used once must have been issued after the memory of uses began.
$_->{claims}{iat} = $now + 3 foreach grep { $_->{key} eq 'once' && $_->{claims}{iat} && $_->{claims}{iat} == $now } @special;

sub nested { my ($n) = @_; return $n ? [ nested($n - 1) ] : []; }

my @all = ((map { $_->[1] } @good, @bad), @special);
$_->{claims} //= claims() foreach @all;
my ($out, $err) = ('', '');
my $spec = encode_json({ keys => { ed => 'EdDSA', ec => 'ES256', rsa => 'RS256', pss => 'RS256', enc => 'EdDSA',
	foreign => 'EdDSA', stranger => 'EdDSA', once => 'EdDSA' }, tokens => \@all });
IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/drivers/mint.mjs" ], '<', \$spec, '>', \$out, '2>', \$err) or die $err;
my $minted = decode_json($out);
my %jwk = %{ $minted->{jwks} };
my @jwt = @{ $minted->{tokens} };
my @good_jwt = splice @jwt, 0, scalar @good;
my @bad_jwt = splice @jwt, 0, scalar @bad;
my ($ada, $first, $second, $no_jti, $withdrawn, $added, $short, $no_iat, $early, @later) = @jwt;
$jwk{pss}{alg} = 'PS256';
$jwk{enc}{use} = 'enc';

# ---- the vault file: three issuers beside the development one ----

sub vault_file
{
	my (@names) = @_;
	my $file = decode_json(slurp_file($node->{ov_vault}));
	$file->{identity}{leeway} = 30;
	$file->{identity}{issuers} = [
		{ issuer => $app, audience => $vault, tenant => '', jwks => { keys => [ @jwk{@names} ] } },
		{ issuer => $other, audience => $vault, tenant_claim => 'tid', tenants => [ 'acme', 'umbrella' ],
			jwks => { keys => [ $jwk{foreign} ] } },
		{ issuer => 'https://once.example', audience => $vault, tenant => 'once', single_use => JSON::PP::true,
			jwks => { keys => [ $jwk{once} ] } } ];
	return encode_json($file);
}
sub write_file
{
	my ($text) = @_;
	open my $fh, '>', $node->{ov_vault} or die $!;
	print $fh $text;
	close $fh;
}
# Waits until a superuser's statement is true, within a psql session
sub shell_until
{
	my ($sql) = @_;
	return q{\! until test "$(psql -XAtq -U postgres -d '} . $node->connstr('postgres') . qq{' -c "$sql" 2>/dev/null)" = t; do :; done\n};
}
sub session
{
	my ($sql, $role) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0,
		extra_params => [ '-U', $role // 'app', '-v', 'VERBOSITY=verbose' ]);
	return wantarray ? ($out, $err) : $out;
}
my $quote = sub { my ($s) = @_; return "'" . $s =~ s/'/''/gr . "'"; };

write_file(vault_file(qw(ed ec rsa pss enc)));
$node->reload;
ok(ov_wait_for('the new issuers', sub { (session("SELECT user_id FROM oauth_vault.oauth_whoami('$ada')") // '') eq 'ada' }, 20),
	'issuers and keys are read again without a restart');

# ---- every good one ----

my $script = '';
foreach my $i (0 .. $#good)
{
	my $jwt = $quote->($good_jwt[$i]);
	$script .= "BEGIN; SELECT oauth_vault.oauth_identify($jwt);\n"
	  . "SELECT 'bound=$i ' || tenant || '|' || user_id FROM oauth_vault.oauth_whoami(); COMMIT;\n"
	  . "SELECT 'given=$i ' || tenant || '|' || user_id FROM oauth_vault.oauth_whoami($jwt);\n";
}
($out, $err) = session($script);
foreach my $i (0 .. $#good)
{
	my ($name, undef, $tenant, $user) = @{ $good[$i] };
	my $want = ($tenant // '') . '|' . ($user // 'ada');
	ok($out =~ /^bound=$i \Q$want\E$/m && $out =~ /^given=$i \Q$want\E$/m, "good: $name");
}
is($err, '', 'and nothing to complain of');

# ---- every bad one: after a good one, for the session and for one call ----

$script = '';
foreach my $i (0 .. $#bad)
{
	my $jwt = $quote->($bad_jwt[$i]);
	$script .= "SELECT oauth_vault.oauth_identify('$ada', session => true);\n"
	  . "\\warn case=$i\n"
	  . "SELECT oauth_vault.oauth_identify($jwt, session => true);\n"
	  . "\\echo case=$i bind=:SQLSTATE\n"
	  . "SELECT * FROM oauth_vault.oauth_whoami();\n"
	  . "\\echo case=$i left=:SQLSTATE\n"
	  . "SELECT 'case=$i rows=' || (oauth_vault.session_user_id() IS NULL);\n"
	  . "SELECT oauth_vault.oauth_identify('$ada', session => true);\n"
	  . "SELECT oauth_vault.oauth_fresh_token('demo', assertion => $jwt);\n"
	  . "\\echo case=$i call=:SQLSTATE\n";
}
my ($said, $errors) = session($script);
my %errors = map { /^(\d+)\n(.*)/s ? ($1 => $2) : () } split /^case=/m, $errors;
foreach my $i (0 .. $#bad)
{
	my ($name, undef, $reason) = @{ $bad[$i] };
	my ($detail) = ($errors{$i} // '') =~ /^DETAIL:\s+(.*)$/m;
	my %got = $said =~ /^case=$i (\w+)=(\S+)$/mg;
	is_deeply(\%got, { bind => 'OV002', left => 'OV001', rows => 'true', call => 'OV002' }, "bad: $name");
	like($detail // '', $reason, '... and why');
	is(index($errors{$i} // '', substr($bad_jwt[$i], 0, 30)), -1, '... without repeating it');
}
# Made to fail: nothing signed at all
foreach my $junk ('not.a.jwt', '..', '.', 'x', 'a.b.c.d', "\x{1}.\x{2}.\x{3}", ' ' . $ada, "$ada ", "$ada\n", 'Bearer ' . $ada)
{
	my $jwt = $quote->($junk);
	($out) = session("SELECT oauth_vault.oauth_identify('$ada', session => true);
		SELECT oauth_vault.oauth_identify($jwt, session => true);\n\\echo bind=:SQLSTATE
		SELECT * FROM oauth_vault.oauth_whoami();\n\\echo left=:SQLSTATE");
	is($out, "\nbind=OV002\nleft=OV001", 'junk: ' . ($junk =~ s/\Q$ada\E/<assertion>/r =~ s/[^ -~]/?/gr));
}

# ---- single use ----

my $mine = 'SELECT user_id FROM oauth_vault.oauth_whoami();';
ok(ov_wait_for('a moment', sub { time > $now + 1 }), 'a while after the start');
is(session("SELECT user_id FROM oauth_vault.oauth_whoami('$first');"), 'ada', 'a single-use assertion serves once');
($out, $err) = session("SELECT user_id FROM oauth_vault.oauth_whoami('$first');");
like($err, qr/OV002.*used before/s, 'and not in another backend');
($out, $err) = session("BEGIN; SELECT oauth_vault.oauth_identify('$second'); $mine $mine COMMIT;
	BEGIN; SELECT oauth_vault.oauth_identify('$second'); $mine COMMIT;");
is($out =~ s/^\n//r, "ada\nada", 'bound once, it serves its transaction');
like($err, qr/OV002.*used before.*25P02/s, 'and no second one');
($out, $err) = session("SELECT user_id FROM oauth_vault.oauth_whoami('$no_jti');");
like($err, qr/OV002.*needs a \\"jti/s, 'without jti there is no single use');

($out, $err) = session("SELECT user_id FROM oauth_vault.oauth_whoami('$no_iat');");
like($err, qr/OV002.*needs an iat/s, 'nor without iat');
($out, $err) = session("SELECT user_id FROM oauth_vault.oauth_whoami('$early');");
like($err, qr/OV002.*before the memory of uses began/s, 'one that was issued before uses were remembered might have been used');
like($err, qr/HINT:  Mint a new assertion/, 'a new one is needed');
($out, $err) = session("SELECT user_id FROM oauth_vault.oauth_whoami('$later[-1]');");
like($err, qr/OV002.*issued in the future/s, 'nor may one come from a future that a restart would believe');
# The key worker ends, and its memory with it.
my ($worker) = map { /^(\d+)/ } grep { /key worker/ } map { my $c = eval { slurp_file("/proc/$_/cmdline") }; defined $c ? "$_ $c" : () }
  split ' ', slurp_file("/proc/$node->{_pid}/task/$node->{_pid}/children");
kill 'TERM', $worker;
ok(ov_wait_for('another key worker', sub { !kill(0, $worker) && session("SELECT user_id FROM oauth_vault.oauth_whoami('$ada');") eq 'ada' }), 'the key worker starts anew');
($out, $err) = session("SELECT user_id FROM oauth_vault.oauth_whoami('$first');");
like($err, qr/OV002.*before the memory of uses began/s, 'after its restart a used assertion is refused all the same');
my $next = int((time - $now) / 2) + 2;
ok(ov_wait_for('a newer assertion', sub { session("SELECT user_id FROM oauth_vault.oauth_whoami('$later[$next]');") eq 'ada' }, 15), 'and one that was issued since is taken');
($out, $err) = session("SELECT user_id FROM oauth_vault.oauth_whoami('$later[$next]');");
like($err, qr/OV002.*used before/s, 'once');

# ---- expiry, looked at in every call ----

my $deadline = $now - 22 + 30;
if (time < $deadline - 1)
{
	# time(2) may lag behind the clock by a tick
	($out, $err) = session("SELECT oauth_vault.oauth_identify('$short', session => true); $mine\n"
		. shell_until("SELECT extract(epoch FROM now()) > $deadline + 0.1")
		. "$mine $mine SELECT user_id FROM oauth_vault.oauth_whoami('$short');");
	like($out, qr/^ada$/m, 'an assertion that is about to expire serves');
	like($err, qr/OV002.*"expired".*OV001.*OV002.*has expired/s, 'expired: out of the binding and out of the cache');
}

# ---- keys withdrawn and added while sessions go on ----

sub put { my ($path, $text) = @_; open my $fh, '>', $path or die $!; print $fh $text; close $fh; return $path; }
my $with = put("$node->{ov_vault}.with", vault_file(qw(ed ec rsa pss enc)));
my $without = put("$node->{ov_vault}.without", vault_file(qw(ed stranger)));
# Another vault file, and a reload that has been taken in: the key "ec" answers as it should.
sub reload_to
{
	my ($path) = @_;
	my $psql = q{psql -XAtq -d '} . $node->connstr('postgres') . q{'};
	my $not = $path eq $without ? '!' : '';
	return qq{\\! cp $path $node->{ov_vault} && $psql -U postgres -c "SELECT pg_reload_conf()" >/dev/null }
	  . qq{&& until $not $psql -U app -c "SELECT oauth_vault.oauth_whoami('$withdrawn')" >/dev/null 2>&1; do :; done\n};
}
my $rows = "SELECT 'nobody=' || (oauth_vault.session_user_id() IS NULL);";
($out, $err) = session("SELECT oauth_vault.oauth_identify('$withdrawn', session => true); $mine\n" . reload_to($without)
	. "$mine\n\\echo first=:SQLSTATE\n$mine\n\\echo then=:SQLSTATE\n$rows\n"
	. "SELECT user_id FROM oauth_vault.oauth_whoami('$added');\n" . reload_to($with));
like($out, qr/^ada\nfirst=OV002\nthen=OV001\nnobody=true\nada$/m, 'a withdrawn key takes its bindings along; a new key serves at once');
($out, $err) = session("SELECT oauth_vault.oauth_identify('$withdrawn', session => true); $mine\n" . reload_to($without)
	. "$rows\n\\echo first=:SQLSTATE\n$rows\n" . reload_to($with));
like($out, qr/^ada\nfirst=OV002\nnobody=true$/m, 'a view says so too, once');
($out, $err) = session("SELECT oauth_vault.oauth_identify('$ada', session => true); $rows\n" . reload_to($without)
	. "$rows $mine\n" . reload_to($with) . "$mine");
is($out, "\nnobody=false\nnobody=false\nada\nada", 'a key that stays keeps its bindings');
my $third = $later[ int((time - $now) / 2) ];
($out, $err) = session("BEGIN; SELECT oauth_vault.oauth_identify('$third'); $mine\n" . reload_to($without)
	. "$mine ROLLBACK;\n" . reload_to($with));
like($err, qr/OV002.*settings that have changed/s, 'a single-use assertion cannot be verified again');

# A vault file that cannot be read changes nothing.
put($node->{ov_vault}, '{"keyring":');
$node->reload;
ok(ov_wait_for('the complaint', sub { slurp_file($node->logfile) =~ /could not load the vault file/ }, 10), 'a broken file is complained of');
is(session("SELECT user_id FROM oauth_vault.oauth_whoami('$ada');"), 'ada', 'and the keys read before stay in force');

# What was tried is in the trail.
is($node->safe_psql('postgres', q{SELECT count(*) > 100 FROM oauth_vault.audit WHERE event = 'identified' AND outcome = 'denied'}), 't',
	'refusals are audited');
note(scalar(@good) . ' good assertions, ' . scalar(@bad) . ' bad ones');
$node->stop('fast');
done_testing();
