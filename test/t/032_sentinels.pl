# Marked secrets go through every function that takes one, as literals and as
# bound parameters, in calls that succeed and calls that fail.  Afterwards they
# are looked for, as they are and in base64 and hex, in all that the server has
# written and in the memory of its idle processes.
use strict;
use warnings;
use File::Find;
use JSON::PP;
use MIME::Base64;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $mem_kb = `prlimit --memlock --output SOFT --noheadings --raw 2>/dev/null` // '';
chomp $mem_kb;
my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('sentinels', hosts => ["localhost:$idp->{port}"], init => { allows_streaming => 'logical' },
	conf => <<'CONF');
shared_preload_libraries = 'auto_explain, oauth_vault, pg_stat_statements'
logging_collector = on
log_destination = 'stderr,csvlog,jsonlog'
log_min_messages = debug2
log_min_error_statement = debug5
log_error_verbosity = verbose
log_statement = all
log_duration = on
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
debug_print_parse = on
debug_print_rewritten = on
debug_print_plan = on
log_temp_files = 0
log_lock_waits = on
auto_explain.log_min_duration = 0
auto_explain.log_verbose = on
auto_explain.log_analyze = on
auto_explain.log_nested_statements = on
track_activity_query_size = 16384
pg_stat_statements.track = all
pg_stat_statements.track_utility = off
work_mem = '64kB'
oauth_vault.allow_core_dumps = on
CONF
$node->safe_psql('postgres', q{CREATE EXTENSION pg_stat_statements;
	CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');
	SELECT pg_create_logical_replication_slot('text', 'test_decoding'), pg_create_logical_replication_slot('binary', 'pgoutput')});

# ---- sessions ----

# One statement; without values as it is.  Returns the answer.
my %driver;
sub connect_to
{
	my ($cluster) = @_;
	%driver = (in => '', out => '', err => '');
	$driver{h} = IPC::Run::start([ 'node', "$ENV{OV_TREE}/test/drivers/lines.mjs", $cluster->host, $cluster->port ],
		'<', \$driver{in}, '>', \$driver{out}, '2>', \$driver{err}, IPC::Run::timeout(600));
}
sub disconnect { $driver{h}->finish; }
sub ask
{
	my ($session, $text, @values) = @_;
	my $user = $session =~ /^(\w+)/ ? $1 : die;
	$driver{in} .= encode_json({ session => $session, user => $user, text => $text, @values ? (values => \@values) : () }) . "\n";
	until ($driver{out} =~ /\n/)
	{
		die "the driver has ended: $driver{err}" unless $driver{h}->pumpable;
		$driver{h}->pump;
	}
	(my $line, $driver{out}) = split /\n/, $driver{out}, 2;
	return decode_json($line);
}
connect_to($node);
sub answer
{
	my $r = ask(@_);
	fail("$_[1]: $r->{error}") if defined $r->{error};
	return $r->{rows}[0][0];
}

# ---- what must never be seen ----

my (%secret, %own);				# by value: what it is; %own: what a session itself has sent or been given
my $marks = 0;
sub mark
{
	my ($what) = @_;
	my $value = sprintf 'sentinel-%s-%04d-Zq7xWv', $what, ++$marks;
	$secret{$value} = $own{$value} = $what;
	return $value;
}
# Which of the secrets are in the files?
my ($patterns, %form) = (PostgreSQL::Test::Utils::tempdir() . '/patterns');
sub prepare_search
{
	foreach my $value (keys %secret)
	{
		$form{$_} = $value foreach ov_forms($value);
	}
	open my $fh, '>', $patterns or die $!;
	print $fh map { "$_\n" } keys %form;
	close $fh;
}
sub values_in
{
	my (@files) = @_;
	my ($o, %hits) = ('');
	local $ENV{LC_ALL} = 'C';
	IPC::Run::run([ 'grep', '-aohFf', $patterns, '--', @files ], '>', \$o) or $? >> 8 == 1 or die 'grep failed';
	$hits{ $form{$_} }++ foreach split /\n/, $o;
	return keys %hits;
}
sub seen { return map { "$secret{$_}: " . substr($_, 0, 26) . "..." } sort(values_in(@_)); }
sub text_file
{
	my ($text) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/text';
	open my $fh, '>:raw', $file or die $!;
	print $fh $text;
	close $fh;
	return $file;
}
sub nothing_in
{
	my ($place, $text) = @_;
	my @hits = seen(text_file($text));
	is_deeply(\@hits, [], "no secret in $place");
}

# ---- success, as literals and bound ----

my $client_secret = 'demo: secret/with+signs';
$secret{$client_secret} = 'client secret';
answer('postgres', q{SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', $1, 'https://app.example/callback',
	scopes => ARRAY['openid', 'offline_access'], issuer => $2, refresh_policy => 'lazy')}, $client_secret, $idp->{issuer});
answer('postgres', "SELECT oauth_vault.oauth_create_connector('literal', 'oidc', 'demo', '" . mark('client_secret') .
	"', 'https://app.example/callback', issuer => '$idp->{issuer}')");
answer('postgres', "SELECT oauth_vault.oauth_set_client_secret('literal', '" . mark('client_secret') . "')");
answer('postgres', 'SELECT oauth_vault.oauth_set_client_secret($1, $2)', 'literal', mark('client_secret'));

# Grants from elsewhere: alone, in rows, and in rows of which one is refused
my $import = sub {
	return encode_json([ map { { user_id => $_, access_token => mark('imported'), refresh_token => mark('imported') } } @_ ]);
};
answer('postgres', q{SELECT oauth_vault.oauth_import_connection('', 'henry', 'demo', '', $1, $2)}, mark('imported'), mark('imported'));
answer('postgres', "SELECT oauth_vault.oauth_import_connection('', 'ines', 'demo', '', '" . mark('imported') . "', '" . mark('imported') . "')");
answer('postgres', q{SELECT string_agg(outcome, ' ') FROM oauth_vault.oauth_import_connections('demo', $1)}, $import->(qw(jo henry)));
answer('postgres', "SELECT string_agg(outcome, ' ') FROM oauth_vault.oauth_import_connections('demo', '" . $import->('kai', '') . "')");

sub assertion
{
	my $jwt = ov_assertion($node, @_);
	$secret{$jwt} = $own{$jwt} = 'assertion';
	# its signature alone would be enough to know it by
	$secret{$1} = $own{$1} = 'signature of an assertion' if $jwt =~ /\.([^.]+)$/;
	return $jwt;
}
my %jwt = map { $_ => assertion($_) } qw(ada grace);
my ($token, %callback);
foreach my $who (qw(ada grace))
{
	# ada binds, grace writes literals
	my $bound = $who eq 'ada';
	my $run = sub {
		my ($text, @values) = @_;
		$text =~ s/\$(\d)/"'" . $values[$1 - 1] =~ s{'}{''}gr . "'"/ge unless $bound;
		return answer("app $who", $text, $bound ? @values : ());
	};
	my $url = $run->('SELECT authorization_url FROM oauth_vault.oauth_begin($1, assertion => $2)', 'demo', $jwt{$who});
	$callback{$who} = ov_consent($url, $who);
	$secret{$1} = $own{$1} = 'code' if $callback{$who} =~ /[?&]code=([^&]+)/;
	$secret{$1} = $own{$1} = 'state' if $callback{$who} =~ /[?&]state=([^&]+)/;
	$run->('SELECT connection_id FROM oauth_vault.oauth_callback($1, $2)', $callback{$who}, $jwt{$who});
	$token = $run->(q{SELECT oauth_vault.oauth_fresh_token('demo', assertion => $1)}, $jwt{$who});
	$secret{$token} = $own{$token} = 'access token';
	$node->safe_psql('postgres', q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'});
	$token = $run->(q{SELECT access_token FROM oauth_vault.oauth_credential('demo', assertion => $1)}, $jwt{$who});
	$secret{$token} = $own{$token} = 'access token';
	is($run->(q{SELECT oauth_vault.oauth_report_rejected('demo', $1, 429, assertion => $2)}, $token, $jwt{$who}),
		'rate_limited', "$who: from consent to a reported token, " . ($bound ? 'bound' : 'literal'));
	$run->(q{SELECT user_id FROM oauth_vault.oauth_whoami($1)}, $jwt{$who});
	$run->(q{SELECT oauth_vault.oauth_set_my_limit('demo', NULL, $1)}, $jwt{$who});
	answer("app $who", 'BEGIN');
	$run->(q{SELECT oauth_vault.oauth_identify($1)}, $jwt{$who});
	answer("app $who", 'COMMIT');
	# PostgREST's way, in a transaction
	answer("app $who", 'BEGIN');
	$run->(q{SELECT set_config('request.headers', $1, true)}, qq({"authorization":"Bearer $jwt{$who}"}));
	answer("app $who", 'SELECT oauth_vault.oauth_identify_request()');
	is(answer("app $who", 'SELECT user_id FROM oauth_vault.oauth_whoami()'), $who, "$who by request.headers");
	answer("app $who", 'COMMIT');
}
my $jwt = $jwt{grace};

# More tokens than work_mem holds stay in memory all the same.
is(answer('app spill', q{SELECT count(access_token) FROM oauth_vault.oauth_fresh_tokens(
	array_fill('demo'::text, ARRAY[1000]), assertion => $1)}, $jwt), '1000', 'a thousand tokens in one call');
answer('app spill', 'SELECT 1 FROM oauth_vault.oauth_connections LIMIT 1');
# What a caller's own statement does with a token is its own business.
answer('app sorts', q{WITH t AS MATERIALIZED (SELECT oauth_vault.oauth_fresh_token('demo', assertion => $1) AS token)
	SELECT count(*) FROM (SELECT token || g FROM t, generate_series(1, 20000) g ORDER BY 1 OFFSET 0) s}, $jwt);

# ---- the whole life of a grant: completed, refreshed, rekeyed, revoked ----

$jwt{carol} = assertion('carol');
my %got = ov_consent(answer('app carol', 'SELECT authorization_url FROM oauth_vault.oauth_begin($1, assertion => $2)', 'demo', $jwt{carol}),
	'carol') =~ /[?&](\w+)=([^&]+)/g;
$got{iss} =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
$secret{ $got{$_} } = $own{ $got{$_} } = $_ foreach qw(code state);
is(answer('app carol', "SELECT status FROM oauth_vault.oauth_complete('$got{state}', '$got{code}', '$got{iss}', assertion => '$jwt{carol}')"),
	'active', 'a flow is completed');
is(answer('postgres', q{SELECT oauth_vault.oauth_refresh(connection_id) FROM oauth_vault.connection WHERE user_id = 'carol'}),
	'refreshed', 'its grant refreshed');
$token = answer('app carol', q{SELECT oauth_vault.oauth_fresh_token('demo', assertion => $1)}, $jwt{carol});
$secret{$token} = $own{$token} = 'access token';
answer('postgres', q{SELECT state FROM oauth_vault.oauth_rotate_keys('rekey')});
ok(ov_wait_for('rekey', sub { $node->safe_psql('postgres', q{SELECT state FROM oauth_vault.oauth_key_rotation ORDER BY rotation_id DESC LIMIT 1}) eq 'done' }),
	'all records sealed with new keys');
is(answer('app carol', q{SELECT oauth_vault.oauth_fresh_token('demo', assertion => $1)}, $jwt{carol}), $token, 'which open');
my $revoke = "SELECT local_state || ' ' || provider_state FROM oauth_vault.oauth_revoke('demo', assertion => '$jwt{carol}')";
ok(ov_wait_for('revocation', sub { answer('app carol', $revoke) eq 'revoked confirmed' }), 'and the grant revoked, as the provider confirms');

# ---- failure: every function that takes a secret, in every way of writing a call ----

my $functions = decode_json($node->safe_psql('postgres', q{
	SELECT json_agg(json_build_object('name', proname, 'names', proargnames[1:pronargs], 'required', pronargs - pronargdefaults,
		'types', ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes) WITH ORDINALITY a(t, n) ORDER BY n),
		'admin', has_function_privilege('oauth_vault_admin', oid, 'execute')) ORDER BY proname)
	FROM pg_proc WHERE pronamespace = 'oauth_vault'::regnamespace AND pronargs > 0}));
my %takes = map { $_ => 1 } qw(assertion client_secret token code state url access_token refresh_token rows);
my %sample = ('text' => "'demo'", 'text[]' => 'NULL', 'jsonb' => "'{}'", 'uuid' => "'00000000-0000-0000-0000-000000000000'",
	'boolean' => 'true', 'integer' => '401', 'interval' => "'1 second'", 'timestamp with time zone' => 'now()');
my ($nfunctions, @leaky) = (0);
foreach my $f (@$functions)
{
	my @secret_args = grep { $takes{$_} } @{ $f->{names} };
	next unless @secret_args;
	$nfunctions++;
	my $user = $f->{admin} ? 'postgres' : 'app';
	# {n}: where the n-th secret goes
	my @args;
	foreach my $i (0 .. $#{ $f->{names} })
	{
		my $name = $f->{names}[$i];
		my ($n) = grep { $secret_args[$_] eq $name } 0 .. $#secret_args;
		push @args, defined $n ? "$name => {$n}" : "$name => $sample{ $f->{types}[$i] }"
		  if defined $n || $i < $f->{required};
	}
	my $args = join ', ', @args;
	my $literal = sub { my $s = shift; $s =~ s/\{(\d+)\}/"'" . mark($secret_args[$1]) . "'"/ge; $s };
	my $bound = sub {
		my ($session, $s) = @_;
		$s =~ s/\{(\d+)\}/'$' . ($1 + 1)/ge;
		return ask($session, $s, map { mark($_) } @secret_args);
	};
	my $upper = uc $f->{name};
	foreach my $text ("SELECT * FROM oauth_vault.$f->{name}($args)",
		qq{select * from "oauth_vault" . "$f->{name}"\n ($args) x},
		"SELECT * FROM OAUTH_VAULT./* here */$upper ($args)",
		"SELECT 1 / 0, (SELECT count(*) FROM oauth_vault.$f->{name}($args))",
		"SELECT * FROM oauth_vault.$f->{name}($args) AND nonsense FROM",
		"SELECT no_such_column FROM oauth_vault.$f->{name}($args)",
		"EXPLAIN (VERBOSE) SELECT * FROM oauth_vault.$f->{name}($args)")
	{
		ask("$user failures", $literal->($text));
		$bound->("$user failures", $text);
	}
	ask("$user failures", $_) foreach map { $literal->($_) } (
		"DO \$x\$ BEGIN PERFORM * FROM oauth_vault.$f->{name}($args); END \$x\$",
		"DO 'BEGIN PERFORM oauth_vault.$f->{name}(\"" . mark('broken') . "\"); END'",
		"SELECT oauth_vault.$f->{name}('" . mark('unterminated'),
		"SELECT oauth_vault.$f->{name}(" . mark('unquoted') . ")",
		"SELECT oauth_vault.no_such(), oauth_vault.$f->{name}('" . mark('wrong_arguments') . "', 1, 2, 3)",
		"PREPARE p AS SELECT * FROM oauth_vault.$f->{name}($args); EXECUTE p; DEALLOCATE p");
	my $n = 0;
	my $parameters = $args =~ s/\{(\d+)\}/'$' . ($1 + 1)/ger;
	my $values = join ', ', map { "{$_}" } 0 .. $#secret_args;
	ask("$user failures", "PREPARE \"My Call\" AS SELECT * FROM oauth_vault.$f->{name}($parameters)");
	ask("$user failures", $literal->("EXECUTE \"My Call\"($values)"));
	ask("$user failures", $literal->("EXPLAIN (VERBOSE) execute /* x */ \"My Call\" ($values)"));
	ask("$user failures", $literal->("EXECUTE \"My Call\"($values); DEALLOCATE \"My Call\""));
	ask("$user failures", 'DEALLOCATE ALL');
	ask("$user failures", $literal->("EXECUTE \"My Call\"($values)"));
}
cmp_ok($nfunctions, '>=', 15, "$nfunctions functions take secrets");
# Codes and states that are somebody else's, used, or of nobody
ask('app failures', q{SELECT oauth_vault.oauth_callback($1, $2)}, $callback{ada}, $jwt);
ask('app failures', "SELECT oauth_vault.oauth_callback('$callback{ada}', '$jwt')");
# What a function has given, in the error of another
is(ask('app failures', qq{SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')::int})->{code}, '22P02', 'a token is no number');
is(ask('app failures', q{SELECT oauth_vault.oauth_fresh_token('demo', assertion => $1)::int}, $jwt)->{code}, '22P02', 'nor bound');
like(ask('app failures', qq{SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')::int})->{error},
	qr/invalid input syntax for type integer: ".{20,}"/, 'the client is told all of it');
ask('app failures', qq{DO \$\$ BEGIN RAISE WARNING 'a token: %', oauth_vault.oauth_fresh_token('demo', assertion => '$jwt'); END \$\$});
ask('app failures', qq{SELECT U&"oauth_vault"."oauth\\005ffresh_token"('demo', assertion => '$jwt') / 0});
answer('app failures', 'BEGIN');
answer('app failures', "DECLARE c CURSOR FOR SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt')");
answer('app failures', 'FETCH c');
answer('app failures', 'COMMIT');
# A wrapper does not name us: its calls are known from our call on.
$node->safe_psql('postgres', q{
	CREATE FUNCTION get_it(how text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN oauth_vault.oauth_fresh_token('demo', assertion => how); END $$;
	CREATE ROLE wrapped LOGIN IN ROLE oauth_vault_user; ALTER ROLE wrapped SET log_statement = 'none'; ALTER ROLE wrapped SET debug_print_parse = off;
	ALTER ROLE wrapped SET debug_print_rewritten = off; ALTER ROLE wrapped SET debug_print_plan = off;
	GRANT EXECUTE ON FUNCTION get_it TO wrapped});
answer('wrapped', "SELECT get_it('$jwt')");
is(ask('wrapped', "SELECT 1 / (length(get_it('$jwt')) - length(get_it('$jwt')))")->{code}, '22012', 'an error after our call');

# ---- where to look ----

$secret{$_} //= 'known to the provider' foreach @{ ov_control($idp, 'GET', '/secrets') };
delete $secret{$_} foreach grep { length($_) < 12 } keys %secret;
prepare_search();
cmp_ok(scalar(keys %secret), '>', 300, scalar(keys %secret) . ' secrets to look for');
is(scalar(seen(text_file("x$client_secret y" . encode_base64("$jwt{ada}!", '') . 'z' . unpack('H*', $token)))), 3,
	'the search finds what is there');
is(scalar(seen(text_file('nothing'))), 0, 'and nothing else');

nothing_in('pg_stat_activity', $node->safe_psql('postgres', 'SELECT string_agg(query, chr(10)) FROM pg_stat_activity'));
nothing_in('pg_stat_statements', $node->safe_psql('postgres', 'SELECT string_agg(query, chr(10)) FROM pg_stat_statements'));
nothing_in('the audit trail', $node->safe_psql('postgres', q{SELECT string_agg(a::text, chr(10)) FROM oauth_vault.audit a}));
nothing_in('test_decoding', $node->safe_psql('postgres', q{SELECT string_agg(data, chr(10)) FROM pg_logical_slot_peek_changes('text', NULL, NULL)}));
my $decoded = pack 'H*', $node->safe_psql('postgres', q{SELECT string_agg(encode(data, 'hex'), '') FROM
	pg_logical_slot_peek_binary_changes('binary', NULL, NULL, 'proto_version', '1', 'publication_names', 'everything')});
like($decoded, qr/grace/, 'changes have been decoded');
nothing_in('pgoutput', $decoded);
my $dump = '';
IPC::Run::run([ 'pg_dumpall', '-d', $node->connstr('postgres') ], '>', \$dump) or die 'pg_dumpall failed';
like($dump, qr/COPY oauth_vault\.connection /, 'a dump has the connections');
nothing_in('a dump', $dump);

# ---- memory ----

# What may be read of a process by its own user, in a file; undef if nothing.
# shared: also what it shares with the others.
no warnings 'portable';
sub memory
{
	my ($pid, $shared) = @_;
	open my $mem, '<:raw', "/proc/$pid/mem" or return undef;
	open my $maps, '<', "/proc/$pid/maps" or return undef;
	my $text = '';
	while (<$maps>)
	{
		my ($from, $to, $kind) = /^(\w+)-(\w+) rw.(.)/ or next;
		next if $kind eq 's' && !$shared;
		sysseek($mem, hex $from, 0) or next;
		my $left = hex($to) - hex($from);
		while ($left > 0)
		{
			my $n = sysread($mem, my $part, $left > 1 << 20 ? 1 << 20 : $left) or last;
			$text .= $part;
			$left -= $n;
		}
	}
	my $file = PostgreSQL::Test::Utils::tempdir() . '/memory';
	open my $fh, '>:raw', $file or die $!;
	print $fh $text;
	close $fh;
	return $file;
}
# Processes by title, whether or not they have a database
sub process
{
	my ($node, $title) = @_;
	my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my $pid;
	# a worker of a database comes once its launcher has heard of the extension
	ov_wait_for($title, sub {
		($pid) = map { /^\s*(\d+) .*\Q$title\E/ ? $1 : () } split /\n/, `ps -o pid=,args= --ppid $postmaster`;
		return $pid;
	}, 30) or die "no process \"$title\"";
	return $pid;
}
# All sessions are idle; what they posted has been worked off.
ok(ov_wait_for('idle workers', sub { $node->safe_psql('postgres',
	q{SELECT count(*) FROM oauth_vault.intent}) eq '0' }, 20), 'the workers are idle');
my %process = map { $_ => process($node, "oauth_vault $_") } ('key worker', 'network worker', 'audit writer', 'launcher');
$process{'process that has never called us'} = answer('postgres bystander', 'SELECT pg_backend_pid()');
foreach my $who (sort keys %process)
{
	my $file = memory($process{$who}, $who eq 'key worker');
	my @hits = seen($file);
	cmp_ok(-s $file, '>', 1_000_000, "the memory of the $who can be read");
	is_deeply(\@hits, [], "no secret in it" . ($who eq 'key worker' ? ', nor in shared memory' : '')) or diag(join "\n", @hits);
}
# A session has what it has sent and received, and nothing that is others'.
my @held = values_in(memory(answer('app ada', 'SELECT pg_backend_pid()')));
my @others = grep { !$own{$_} || $_ eq $jwt{grace} } @held;
is_deeply([ map { $secret{$_} } @others ], [], 'a session has no refresh token, client secret or verifier, and nothing of another person');
ok(scalar(grep { $_ eq $jwt{ada} } @held), 'but its own assertion it has');
answer('app ada', 'DISCARD ALL');

# As a debugger saves it
SKIP:
{
	skip 'gcore is not installed', 2 unless grep { -x "$_/gcore" } split /:/, $ENV{PATH};
	foreach my $who ('key worker', 'network worker')
	{
		my $core = PostgreSQL::Test::Utils::tempdir() . '/core';
		my ($o, $e) = ('', '');
		IPC::Run::run([ 'gcore', '-o', $core, $process{$who} ], '<', \undef, '>', \$o, '2>', \$e, IPC::Run::timeout(300));
		my $file = "$core.$process{$who}";
		my @hits = -e $file ? seen($file) : ("$o$e");
		is_deeply(\@hits, [], "no secret in a core of the $who");
		unlink $file;
	}
}

# ---- files ----

my $backup = PostgreSQL::Test::Utils::tempdir() . '/backup';
IPC::Run::run([ 'pg_basebackup', '-D', $backup, '-X', 'stream', '-c', 'fast', '--no-sync', '-d', $node->connstr('postgres') ]) or die 'pg_basebackup failed';
disconnect();
$node->stop('fast');
foreach my $top ([ 'the data directory' => $node->data_dir ], [ 'a base backup' => $backup ])
{
	my %files;
	find({ no_chdir => 1, wanted => sub {
		return unless -f $_;
		my $kind = m{/log/.*\.(\w+)$} ? "log ($1)" : m{/pg_wal/} ? 'WAL' : m{/pgsql_tmp} ? 'temporary files' : m{/pg_stat} ? 'statistics' : 'heap and the rest';
		push @{ $files{$kind} }, $_;
	} }, $top->[1]);
	# the logs are those of the server
	delete @files{ grep { /^log/ } keys %files } if $top->[0] eq 'a base backup';
	is(scalar(grep { /^log/ } keys %files), 3, 'three kinds of log') unless $top->[0] eq 'a base backup';
	foreach my $kind (sort keys %files)
	{
		is_deeply([ seen(@{ $files{$kind} }) ], [], "no secret in $top->[0]: $kind");
	}
}
my $log = join '', map { slurp_file($_) } glob($node->data_dir . '/log/*.log');
my $json = join '', map { slurp_file($_) } glob($node->data_dir . '/log/*.json');
like($json, qr/"application_name":"app spill"/, 'the call with a thousand tokens is in the log');
unlike($json, qr/temporary file: [^\n]*"application_name":"app spill"|"application_name":"app spill"[^\n]*temporary file: /,
	'and wrote no temporary file');
like($json, qr/temporary file: [^\n]*"application_name":"app sorts"|"application_name":"app sorts"[^\n]*temporary file: /,
	'a statement that sorts tokens does');
like($log, qr/<hidden: calls oauth_fresh_token>/, 'hidden statements are logged as such');
like($log, qr/duration: [\d.]+ ms  <statement hidden: calls oauth_fresh_token>/, 'with their duration');
like($log, qr/SELECT oauth_vault\.oauth_set_client_secret\(\$1, \$2\)/, 'a text with nothing but parameters is shown');
like($log, qr/ERROR:  22012: division by zero/, 'errors without values are as they are');
like($log, qr/ERROR:  OV002: the assertion is not valid/, 'and so are ours');
like($log, qr/statement: SELECT 1 FROM oauth_vault\.oauth_connections/, 'other statements are logged as ever');
unlike($log, qr/could not lock its memory/, 'memory is locked') if $mem_kb eq 'unlimited' || ($mem_kb =~ /^\d+$/ && $mem_kb > 4 << 20);

# ---- as it is without allow_core_dumps; and where memory cannot be locked ----

system('prlimit', '--memlock=0:0', '--pid', $$) == 0 or die 'prlimit failed';
my $closed = ov_cluster('closed', hosts => ["localhost:$idp->{port}"], conf => <<'CONF');
shared_preload_libraries = 'oauth_vault, pg_stat_statements'
log_statement = all
CONF
$closed->safe_psql('postgres', q{CREATE EXTENSION pg_stat_statements;
	CREATE FUNCTION who(how text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN (oauth_vault.oauth_whoami(how)).user_id; END $$});
my $closed_jwt = ov_assertion($closed, 'ada');
connect_to($closed);
my %pid = (bystander => answer('postgres', 'SELECT pg_backend_pid()'), session => answer('app', 'SELECT pg_backend_pid()'));
ok(memory($pid{session}), 'a session can be traced before it calls us');
answer('app', 'SELECT user_id FROM oauth_vault.oauth_whoami($1)', $closed_jwt);
$pid{$_} = process($closed, "oauth_vault $_") foreach ('key worker', 'network worker');
foreach my $who ('session', 'key worker', 'network worker')
{
	is(memory($pid{$who}), undef, "the memory of the $who is closed to the server's own user");
}
ok(memory($pid{bystander}), 'that of a session that never called us is not');
# What succeeds, as doc/security.md says
answer('app', 'SELECT who($1)', $closed_jwt);
ask('app', q{DO $$ BEGIN PERFORM oauth_vault.oauth_whoami('in-a-do-block'); EXCEPTION WHEN OTHERS THEN NULL; END $$});
like($closed->safe_psql('postgres', 'SELECT string_agg(query, chr(10)) FROM pg_stat_statements'), qr/in-a-do-block/,
	'pg_stat_statements keeps the text of a DO block with track_utility');
disconnect();
$closed->stop('fast');
my $closed_log = slurp_file($closed->logfile);
like($closed_log, qr/execute <unnamed>: SELECT who\(\$1\)\n.*parameters: \$1 = '\Q$closed_jwt\E'/i,
	'a wrapper whose name does not tell is logged before it calls us');
unlike($closed_log, qr/in-a-do-block/, 'a DO block that names us is not');
foreach my $who ('key worker', 'network worker')
{
	like($closed_log, qr/the oauth_vault $who could not lock its memory for secrets: .*\n.*DETAIL.*swap.*\n.*HINT.*LimitMEMLOCK/,
		"the $who says that it cannot lock its memory");
}
done_testing();
