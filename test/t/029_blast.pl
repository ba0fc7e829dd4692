# How far one stolen thing reaches: BLAST_USERS people with live grants (50; make
# blast takes 1000), the attacker has every row of the database besides, and
# gets one thing after the other.  Counted, never stated: whose tokens open, or
# are in what the attacker holds and is answered, in any of ov_forms.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use IPC::Run ();
use JSON::PP;
use MIME::Base64;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $n = $ENV{BLAST_USERS} || 50;
my $served = 10;				# people whom the backend with the stolen memory has served
my $provider = ov_fault();
# root reads any process; the server's own user reads those that may be dumped
my $node = ov_cluster('blast', hosts => ["localhost:$provider->{port}"], conf => "oauth_vault.allow_core_dumps = on\n");
sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub node_js
{
	my ($script, $spec, @args) = @_;
	my ($out, $err) = ('', '');
	my $in = ref $spec ? encode_json($spec) : $spec;
	IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/drivers/$script", @args ], '<', \$in, '>', \$out, '2>', \$err) or die $err;
	return decode_json($out);
}
sub as_app
{
	my ($sql, $role) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0, extra_params => [ '-U', $role // 'app', '-v', 'VERBOSITY=verbose' ]);
	return wantarray ? ($out, $err) : $out;
}

# ---- so many people, each with a grant ----

my @users = map { sprintf 'user%04d', $_ } 1 .. $n;
my $now = time;
my $minted = node_js('mint.mjs', { keys => { app => 'EdDSA' }, tokens => [ map { { key => 'app', claims => {
	iss => 'https://people.example', aud => 'blast-test', sub => $_, iat => $now, exp => $now + 3000 } } } @users ] });
my %jwt;
@jwt{@users} = @{ $minted->{tokens} };
my $file = decode_json(slurp_file($node->{ov_vault}));
push @{ $file->{identity}{issuers} }, { issuer => 'https://people.example', audience => 'blast-test', tenant => 'blast', jwks => { keys => [ $minted->{jwks}{app} ] } };
open my $fh, '>', $node->{ov_vault} or die $!;
print $fh encode_json($file);
close $fh;
$node->reload;
ok(ov_wait_for('the issuer', sub { (as_app("SELECT user_id FROM oauth_vault.oauth_whoami('$jwt{$users[0]}')") // '') eq $users[0] }, 20), 'an issuer');
superuser(q{SELECT oauth_vault.oauth_set_provider('blast', '} . encode_json({ schema => 1, display_name => 'Blast',
	authorization => { url => "$provider->{issuer}/authorize" }, token => { url => "$provider->{issuer}/token" } }) . q{');
	SELECT oauth_vault.oauth_create_connector('api', 'blast', 'client', 'secret', 'https://app.example/callback', scopes => '{read}', refresh_policy => 'lazy')});
my %refresh = map { sprintf('OVTK-at-%s-%016x', $_, rand(2**50)) => sprintf('OVTK-rt-%s-%016x', $_, rand(2**50)) } @users;	# by access token
ov_control($provider, 'POST', '/script', { path => '/token', answers => [ map { { body => { access_token => $_,
	refresh_token => $refresh{$_}, token_type => 'Bearer', expires_in => 7200, scope => 'read' } } } sort keys %refresh ] });
my $script = '';
$script .= "SELECT state FROM oauth_vault.oauth_begin('api', assertion => '$jwt{$_}')\\gset\n"
  . "SELECT status FROM oauth_vault.oauth_complete(:'state', 'code', assertion => '$jwt{$_}');\n" foreach @users;
my $started = time;
my ($out, $err) = as_app($script);
is(scalar(() = $out =~ /^active$/mg), $n, "$n people have connected (" . (time - $started) . ' s)') or diag substr($err, 0, 500);
my %token;
$script = join '', map { "SELECT '$_ ' || oauth_vault.oauth_fresh_token('api', assertion => '$jwt{$_}');\n" } @users;
%token = as_app($script) =~ /^(\S+) (OVTK-at-\S+)$/mg;
is(scalar(keys %token), $n, 'and each has a token');
my %whose = reverse %token;
is(scalar(keys %whose), $n, 'of their own');

# What a thief of the database has: every record with all that belongs to it.
my $vault_id = superuser('SELECT vault_id FROM oauth_vault.home');
my $rows = superuser(q{SELECT json_agg(json_build_object('user', user_id, 'purpose', p, 'tenant', tenant, 'user_id', user_id,
	'connector_id', connector_id, 'connection_id', connection_id, 'hosts_digest', hosts_digest, 'key_id', key_id, 'generation', token_generation,
	'record', CASE p WHEN 'access_token' THEN access_token ELSE refresh_token END))
	FROM oauth_vault.connection, unnest('{access_token,refresh_token}'::text[]) p});
my $records = decode_json($rows);
$_->{token} = $_->{purpose} eq 'access_token' ? $token{ $_->{user} } : $refresh{ $token{ $_->{user} } } foreach @$records;
# Of how many people an access token and a refresh token is in the text
sub reach
{
	my ($text) = @_;
	my $has = sub { my ($value) = @_; return scalar grep { index($text, $_) >= 0 } ov_forms($value); };
	return (scalar(grep { $has->($token{$_}) } @users), scalar(grep { $has->($refresh{ $token{$_} }) } @users));
}
is(join('/', reach(join ' ', unpack('H*', $token{ $users[0] }), $token{ $users[1] }, encode_base64($refresh{ $token{ $users[0] } }, ''))), '2/1', 'the count finds what is there');
my @figures;
sub figure { my ($what, $access, $refresh, $want, $name) = @_; push @figures, [ $what, $access, $refresh ]; is("$access/$refresh", $want, $name); }
sub count { my ($r, $what, $purpose) = @_; return scalar @{ $r->{$what}{$purpose} // [] }; }

# ---- nothing but the database ----

my $r = node_js('blast.mjs', { vault_id => $vault_id, records => $records, keys => [] });
figure('every row of the database', count($r, 'opened', 'access_token'), count($r, 'opened', 'refresh_token'), '0/0', 'the rows alone open nothing');

# ---- one access token ----

my ($victim, $attacker) = @users;
my $calls = join '', map { "SELECT oauth_vault.oauth_report_rejected('api', '$token{$victim}', assertion => '$jwt{$_}');\n" } grep { $_ ne $victim } @users;
($out, $err) = as_app("$calls SELECT oauth_vault.oauth_identify('$token{$victim}', session => true);\nSELECT oauth_vault.oauth_fresh_token('api');");
is(scalar(() = $out =~ /^unknown_token$/mg), $n - 1, 'one access token means nothing to anybody else');
like($err, qr/OV002.*OV001/s, 'and is no assertion');
my @held = reach("$token{$victim}\n$out\n$err");
$r = node_js('blast.mjs', { vault_id => $vault_id, records => $records, keys => [ sha256_hex($token{$victim}), unpack 'H*', substr $token{$victim}, 0, 32 ] });
is_deeply($r->{opened}, {}, 'nor a key of any record');
figure('one access token', @held, '1/0', 'it is one token');

# ---- one assertion, and the application's role by SQL injection while it is bound ----

my $attack = join "\n",
  "SELECT oauth_vault.oauth_identify('$jwt{$victim}', session => true);",
  "SELECT oauth_vault.oauth_fresh_token('api');",
  "SELECT access_token FROM oauth_vault.oauth_fresh_tokens(ARRAY['api', 'api', '%']);",
  (map { "SELECT oauth_vault.oauth_fresh_token('api', account => '$_');" } @users[ 1 .. 5 ], '%', "' OR true --"),
  'SELECT * FROM oauth_vault.oauth_connections; SELECT * FROM oauth_vault.oauth_my_access; SELECT * FROM oauth_vault.connection;',
  'SET ROLE oauth_vault_owner; SET SESSION AUTHORIZATION postgres; SET row_security = off;',
  "SET app.user_id = '$users[3]'; SET \"request.jwt.claims\" = '{\"sub\":\"$users[3]\"}';",
  "DO \$\$ BEGIN PERFORM oauth_vault.oauth_fresh_token('api'); PERFORM set_config('oauth_vault.user', '$users[3]', false); END \$\$;",
  "SELECT oauth_vault.oauth_credential('api'); SELECT * FROM pg_stat_activity; SELECT * FROM pg_prepared_statements;";
figure('one assertion', reach(join "\n", as_app($attack)), '1/0', "one assertion opens one person's token");
figure('SQL injection, nobody bound', reach(join "\n", as_app($attack =~ s/^.*?;\n//r)), '0/0', 'the role without an assertion opens nothing');
# In the middle of a person's transaction
($out, $err) = as_app("BEGIN; SELECT oauth_vault.oauth_identify('$jwt{$victim}');\n" . join("\n", map { "SAVEPOINT s; $_ ROLLBACK TO s;" } grep { !/identify/ } split /\n/, $attack) . "\nCOMMIT;");
figure("SQL injection, in one person's transaction", reach("$out\n$err"), '1/0', 'in the middle of a transaction it opens that person\'s');

# ---- one released subkey: the access subkey of one person ----

my $keys = superuser(q{SELECT json_agg(json_build_object('key_id', key_id, 'kind', kind, 'tenant', tenant, 'user_id', user_id,
	'connector_id', connector_id, 'wrapped', wrapped)) FROM oauth_vault.vault_key});
my $subkeys = node_js('subkeys.mjs', qq({"vault_id":"$vault_id","keys":$keys}), $node->{ov_vault});
$r = node_js('blast.mjs', { vault_id => $vault_id, records => $records, keys => [ $subkeys->{$victim}{access} ] });
is_deeply($r->{opened}, { access_token => [$victim] }, 'one subkey opens its person\'s access token');
figure('one released subkey', count($r, 'opened', 'access_token'), count($r, 'opened', 'refresh_token'), '1/0', 'and nothing else');

# ---- one backend's memory ----

my @served = @users[ 0 .. $served - 1 ];
my $wanted = encode_json({ vault_id => $vault_id, records => $records, pid => 0 });
my $spec = PostgreSQL::Test::Utils::tempdir() . '/blast.json';
append_to_file($spec, $wanted =~ s/"pid":0/"pid":__PID__/r);
($out) = as_app(join('', map { "SELECT oauth_vault.oauth_fresh_token('api', assertion => '$jwt{$_}') IS NOT NULL;\n" } @served)
	. "SELECT pg_backend_pid() AS pid \\gset\n\\setenv PID :pid\n\\! sed s/__PID__/\$PID/ $spec | node $ENV{OV_TREE}/test/drivers/blast.mjs\n");
my ($line) = $out =~ /^(\{.*\})$/m;
$r = decode_json($line);
SKIP:
{
	skip 'this system shows no process to another of its user', 5 unless $r->{readable};
	my %reach = map { $_ => 1 } map { @{ $r->{$_}{access_token} // [] } } qw(plain opened);
	is_deeply([ grep { my $u = $_; !grep { $_ eq $u } @served } sort keys %reach ], [], 'a backend\'s memory opens tokens of those it has served');
	cmp_ok(scalar(keys %reach), '<=', $served, 'and of no more');
	is_deeply([ sort keys %reach ], [ sort @served ], 'of all of them, while they are in its cache');
	note("memory read: $r->{bytes} bytes, $r->{candidates} candidate keys; plain: " . count($r, 'plain', 'access_token') . ', by keys: ' . count($r, 'opened', 'access_token'));
	is(count($r, 'plain', 'refresh_token'), 0, 'no refresh token as it is');
	figure("one backend's memory, having served $served", scalar(keys %reach), count($r, 'opened', 'refresh_token'), "$served/0", 'nor the key of one');
}
# After DISCARD ALL the keys are gone; a token that was returned may still lie where nothing has been written since
($out) = as_app(join('', map { "SELECT oauth_vault.oauth_fresh_token('api', assertion => '$jwt{$_}') IS NOT NULL;\n" } @served)
	. "DISCARD ALL;\nSELECT pg_backend_pid() AS pid \\gset\n\\setenv PID :pid\n\\! sed s/__PID__/\$PID/ $spec | node $ENV{OV_TREE}/test/drivers/blast.mjs\n");
($line) = $out =~ /^(\{.*\})$/m;
$r = decode_json($line);
SKIP:
{
	skip 'this system shows no process to another of its user', 3 unless $r->{readable};
	figure('the same after DISCARD ALL: keys', count($r, 'opened', 'access_token'), count($r, 'opened', 'refresh_token'), '0/0', 'DISCARD ALL leaves no key');
	# how many is chance
	my @left = @{ $r->{plain}{access_token} // [] };
	is_deeply([ grep { my $u = $_; !grep { $_ eq $u } @served } @left ], [], 'and no token of anybody whom it has not served');
	figure('the same after DISCARD ALL: tokens left in unused memory', scalar(@left), count($r, 'plain', 'refresh_token'), scalar(@left) . '/0', 'nor a refresh token');
}

# ---- what reaches everybody ----

$r = node_js('blast.mjs', { vault_id => $vault_id, records => $records, keys => [ map { ($_->{access}, $_->{refresh}) } grep { ref } values %$subkeys ] });
figure('the vault file and the rows', count($r, 'opened', 'access_token'), count($r, 'opened', 'refresh_token'), "$n/$n", 'the vault file opens everything: documented');
# whoever holds the signing key mints what was minted above, and asks as everybody
($out, $err) = as_app(join '', map { "SELECT * FROM oauth_vault.oauth_credential('api', assertion => '$_'); SELECT oauth_vault.oauth_fresh_token('api', assertion => '$_');\n"
	. "SELECT * FROM oauth_vault.connection; SELECT * FROM oauth_vault.oauth_connections;\n" } @jwt{@users});
figure('the key that signs assertions', reach("$out\n$err"), "$n/0", 'the signing key is everybody: the platform-wide secret that remains');

note(sprintf '%-60s %6s %8s', "of $n people", 'access', 'refresh');
note(sprintf '%-60s %6d %8d', @$_) foreach @figures;
$node->stop('fast');
done_testing();
