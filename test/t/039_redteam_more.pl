# The rest of the red-team list: WAL through SQL and by tool, debuggers, C code, forged
# scripts, changed objects and deleted evidence, each with the outcome that
# doc/security.md documents.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 3600);
my $node = ov_cluster('redteam_more', hosts => ["localhost:$idp->{port}"], conf => "wal_level = logical\nfull_page_writes = on\n");
sub superuser { return $node->safe_psql('postgres', $_[0]); }
superuser(qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}', refresh_policy => 'lazy');
	CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin; CREATE ROLE security LOGIN IN ROLE oauth_vault_auditor});
my $from = superuser('SELECT pg_current_wal_lsn()');
superuser('CHECKPOINT');
ov_connect($node, 'ada', 'demo');
my $token = ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
my $jwt = ov_assertion($node, 'ada', '--ttl', '3000');
superuser(q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'});
$token = ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
my @secrets = @{ ov_control($idp, 'GET', '/secrets') };
sub leaks { my ($text) = @_; return scalar grep { length $_ && index($text, $_) >= 0 } map { ov_forms($_) } @secrets, $token; }
cmp_ok(scalar(@secrets), '>=', 6, 'secrets to look for');
is(leaks("x $token y"), 1 + grep({ $_ eq $token } @secrets), 'and a look that finds them');

# ---- 1. WAL: the server's own eyes, and the tool's ----

superuser('CREATE EXTENSION pg_walinspect; SELECT pg_switch_wal()');
my $to = superuser('SELECT pg_current_wal_flush_lsn()');
my $records = superuser("SELECT count(*) || ' ' || string_agg(description || ' ' || coalesce(block_ref, ''), ' ') FROM pg_get_wal_records_info('$from', '$to')");
cmp_ok(($records =~ /^(\d+)/)[0], '>', 50, '1. pg_walinspect reads records');
is(leaks($records), 0, '1. and finds nothing but sealed ones');
SKIP:
{
	skip 'no pg_get_wal_block_info before 16', 2 if $node->pg_version < 16;
	my $blocks = superuser("SELECT string_agg(encode(coalesce(block_data, '') || coalesce(block_fpi_data, ''), 'hex'), '') FROM pg_get_wal_block_info('$from', '$to')");
	like($blocks, qr/4f5652/, '1. its blocks hold sealed records');
	is(leaks(pack('H*', $blocks) . $blocks), 0, '1. and nothing else of ours');
}
my ($out, $err) = ('', '');
IPC::Run::run([ 'pg_waldump', '-b', '-p', $node->data_dir . '/pg_wal', '-s', $from, '-e', $to ], '<', \undef, '>', \$out, '2>', \$err) or diag($err);
like($out, qr/INSERT/, '1. pg_waldump reads records');
is(leaks($out), 0, '1. and tells no secret');

# ---- 1., 11. a debugger, by the server's own user ----

my %pid;
foreach my $p (split ' ', slurp_file("/proc/$node->{_pid}/task/$node->{_pid}/children"))
{
	my $c = eval { slurp_file("/proc/$p/cmdline") } // '';
	$pid{$1} = $p if $c =~ /oauth_vault (key worker|network worker|audit writer|launcher)/;
}
my @session;
foreach my $who (0, 1)			# one that has served ada, and one that never called us
{
	my ($in, $o, $e) = ('', '', '');
	my $h = IPC::Run::start([ 'psql', '-XAtq', '-U', 'app', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$o, '2>', \$e, IPC::Run::timeout(120));
	$in .= ($who ? '' : "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt') IS NOT NULL;\n") . "SELECT 'pid=' || pg_backend_pid();\n";
	$h->pump until $o =~ /pid=(\d+)/;
	$pid{ $who ? 'other session' : 'session' } = $o =~ /pid=(\d+)/ ? $1 : 0;
	push @session, { h => $h, in => \$in, out => \$o };
}
SKIP:
{
	skip 'gdb is not installed', 10 unless grep { -x "$_/gdb" } split /:/, $ENV{PATH};
	my $attach = sub {
		my ($what) = @_;
		my ($o, $e) = ('', '');
		IPC::Run::run([ 'gdb', '-nx', '-batch', '-p', $pid{$what}, '-ex', 'info inferiors' ], '<', \undef, '>', \$o, '2>', \$e, IPC::Run::timeout(60));
		return "$o$e" =~ /Operation not permitted|ptrace: / ? 'refused' : "$o$e" =~ /process $pid{$what}\b/ ? 'attached' : "$o$e";
	};
	my $plain = $attach->('other session');
	skip 'nobody may trace anything here', 10 if $plain eq 'refused';
	is($plain, 'attached', '1. gdb attaches to a session that has never called us');
	is($attach->($_), 'refused', "1. and is refused by the kernel: $_") foreach 'key worker', 'network worker', 'session';
	foreach my $what ('key worker', 'network worker', 'session')
	{
		my $core = PostgreSQL::Test::Utils::tempdir() . '/core';
		my ($o, $e) = ('', '');
		IPC::Run::run([ 'gcore', '-o', $core, $pid{$what} ], '<', \undef, '>', \$o, '2>', \$e, IPC::Run::timeout(60));
		is(join(' ', glob "$core*"), '', "11. no core is taken: $what");
		ok(!open(my $mem, '<:raw', "/proc/$pid{$what}/mem"), "1. nor is its memory opened: $what");
	}
}

# ---- 1. C code, which a superuser loads ----

my $includes = `/usr/lib/postgresql/@{[ $ENV{PGVERSION} // 15 ]}/bin/pg_config --includedir-server`;
chomp $includes;
SKIP:
{
	skip 'no compiler, or no headers of the server', 6 unless -e "$includes/postgres.h" && grep { -x "$_/gcc" } split /:/, $ENV{PATH};
	my $library = PostgreSQL::Test::Utils::tempdir() . '/peek.so';
	PostgreSQL::Test::Utils::system_or_bail('gcc', '-shared', '-fPIC', '-O1', '-w', "-I$includes", '-o', $library, "$ENV{OV_TREE}/test/drivers/peek.c");
	superuser(qq{CREATE FUNCTION peek(text) RETURNS bigint LANGUAGE c AS '$library', 'peek'; CREATE FUNCTION peek_at(integer) RETURNS text LANGUAGE c AS '$library', 'peek_at';
		GRANT EXECUTE ON FUNCTION peek(text) TO app});
	my $backwards = reverse $token;
	my $look = "SELECT peek('$backwards') > 0";
	is($node->safe_psql('postgres', $look, extra_params => [ '-U', 'app' ]), 'f', '1. C code in a session that has asked for no token finds none');
	is($node->safe_psql('postgres', "SELECT oauth_vault.oauth_fresh_token('demo', assertion => '$jwt'); $look", extra_params => [ '-U', 'app' ]), "$token\nt",
		'1. SUCCEEDS: C code in a session that has been given a token finds it there');
	is(superuser($look), 'f', "1. in the superuser's own session there is nothing of others");
	foreach my $what ('key worker', 'network worker', 'session')
	{
		like(superuser("SELECT peek_at($pid{$what})"), qr/denied|permitted/i, "1. and it opens no memory of another's: $what");
	}
}
foreach my $s (@session) { ${ $s->{in} } .= "\\q\n"; $s->{h}->finish; }

# ---- 2., 4. what was changed is seen ----

sub differences { my ($sql) = @_; return superuser("BEGIN; $sql; SELECT string_agg(object || ' / ' || field, '; ' ORDER BY object, field) FROM oauth_vault.oauth_selfcheck; ROLLBACK"); }
is(differences('SELECT'), '', 'a self-check of an installation as it should be shows nothing');
is($node->safe_psql('postgres', 'SELECT count(*) FROM oauth_vault.oauth_selfcheck', extra_params => [ '-U', $_ ]), 0, "... to $_ as well") foreach qw(dba security);
my $fresh = 'oauth_vault.oauth_fresh_token(text, text, text[], interval, text, text)';
my $shown = 'function oauth_fresh_token(connector text, account text, scopes text[], min_ttl interval, purpose text, assertion text)';
foreach my $case (
	[ "CREATE OR REPLACE FUNCTION oauth_vault.oauth_fresh_token(connector text, account text DEFAULT NULL, scopes text[] DEFAULT NULL, min_ttl interval DEFAULT NULL, purpose text DEFAULT NULL, assertion text DEFAULT NULL)
		RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN ''x''; END'", qr{^\Q$shown\E / body$} ],
	[ "ALTER FUNCTION $fresh OWNER TO dba; GRANT CREATE ON SCHEMA oauth_vault TO dba", qr{\Q$shown\E / owner; schema oauth_vault / rights} ],
	[ "GRANT EXECUTE ON FUNCTION $fresh TO PUBLIC", qr{^\Q$shown\E / rights$} ], [ "REVOKE EXECUTE ON FUNCTION $fresh FROM oauth_vault_user", qr{^\Q$shown\E / rights$} ],
	[ "ALTER FUNCTION $fresh SECURITY DEFINER", qr{^\Q$shown\E / attributes$} ], [ "ALTER FUNCTION $fresh SET search_path = public", qr{^\Q$shown\E / settings$} ],
	[ "CREATE FUNCTION oauth_vault.oauth_fresh_token(connector text, assertion unknown) RETURNS text LANGUAGE sql AS 'SELECT 1'" =~ s/unknown/varchar/r, qr{function oauth_fresh_token\(connector text, assertion character varying\) / body} ],
	[ 'DROP POLICY person ON oauth_vault.connection', qr{policy connection\.person / attributes; policy connection\.person / definition} ],
	[ 'ALTER POLICY person ON oauth_vault.connection USING (true)', qr{^policy connection\.person / definition$} ], [ 'ALTER POLICY auditor ON oauth_vault.audit TO PUBLIC', qr{^policy audit\.auditor / attributes$} ],
	[ 'CREATE POLICY more ON oauth_vault.vault_key USING (true)', qr{policy vault_key\.more / } ],
	[ 'ALTER TABLE oauth_vault.connection DISABLE ROW LEVEL SECURITY', qr{^table connection / row security$} ], [ 'ALTER TABLE oauth_vault.audit NO FORCE ROW LEVEL SECURITY', qr{^table audit / row security$} ],
	[ 'GRANT SELECT ON oauth_vault.vault_key TO app', qr{^table vault_key / rights$} ], [ 'GRANT SELECT (access_token) ON oauth_vault.connection TO app', qr{^column connection\.access_token / rights$} ],
	[ 'ALTER TABLE oauth_vault.audit OWNER TO dba', qr{table audit / owner} ],
	[ q{CREATE OR REPLACE VIEW oauth_vault.oauth_audit WITH (security_barrier = true, security_invoker = true) AS SELECT * FROM oauth_vault.audit WHERE user_id <> 'mallory'}, qr{^view oauth_audit / definition$} ],
	[ 'ALTER VIEW oauth_vault.oauth_connections RESET (security_barrier)', qr{^view oauth_connections / options$} ],
	[ 'CREATE TRIGGER t BEFORE INSERT ON oauth_vault.audit FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()', qr{^trigger audit\.t / definition$} ],
	[ 'ALTER TABLE oauth_vault.connector DISABLE TRIGGER ALL', qr{connector.* / } ],
	[ 'CREATE RULE r AS ON INSERT TO oauth_vault.audit DO INSTEAD NOTHING', qr{^rule audit\.r / definition$} ], [ 'DROP INDEX oauth_vault.connection_live', qr{index connection_live / definition} ],
	[ q{ALTER TABLE oauth_vault.connection ALTER COLUMN metadata SET DEFAULT '{"x": 1}'}, qr{^column connection\.metadata / definition$} ], [ 'ALTER TABLE oauth_vault.connection ADD COLUMN plain text', qr{column connection\.plain / type} ],
	[ 'ALTER TABLE oauth_vault.connection DROP CONSTRAINT connection_status_check', qr{^constraint connection\.connection_status_check / definition$} ],
	[ 'ALTER ROLE oauth_vault_owner LOGIN', qr{^role oauth_vault_owner / attributes$} ], [ 'GRANT oauth_vault_owner TO dba', qr{^role oauth_vault_owner / members$} ], [ 'GRANT pg_read_server_files TO oauth_vault_user', qr{^role oauth_vault_user / member of$} ],
	[ 'CREATE OPERATOR oauth_vault.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)', qr{operator .* / attributes} ],
	[ q{INSERT INTO oauth_vault.provider_builtin VALUES ('evil', '{}')}, qr{^provider evil / rules$} ], [ q{UPDATE oauth_vault.provider_builtin SET rules = jsonb_set(rules, '{token,url}', '"https://evil.example/"') WHERE name = 'google'}, qr{^provider google / rules$} ],
  )
{
	my ($sql, $want) = @$case;
	like(differences($sql), $want, '2., 4. seen: ' . substr $sql =~ s/\s+/ /gr, 0, 70);
}
is(differences("GRANT EXECUTE ON FUNCTION $fresh TO PUBLIC; DELETE FROM oauth_vault.manifest; INSERT INTO oauth_vault.manifest SELECT * FROM oauth_vault.present_state"), '',
	'2. SUCCEEDS: a superuser who writes the manifest as well is not seen');
my ($rc, undef, $denied) = $node->psql('postgres', q{UPDATE oauth_vault.manifest SET value = 'x'}, extra_params => [ '-U', 'dba' ]);
like($denied, qr/permission denied/, '2. an administrator does not write it');
superuser('CREATE ROLE writer LOGIN IN ROLE pg_read_all_data, pg_write_all_data');
is($node->safe_psql('postgres', q{WITH u AS (UPDATE oauth_vault.manifest SET value = 'x' RETURNING 1) SELECT count(*) FROM u}, extra_params => [ '-U', 'writer' ]), 0, '2. nor does pg_write_all_data');
# oauth_status names the owner if it can log in
is(superuser(q{BEGIN; ALTER ROLE oauth_vault_owner LOGIN; SELECT 'oauth_vault_owner' = ANY (roles_that_can_reach_keys) FROM oauth_vault.oauth_status; ROLLBACK}), 't', 'oauth_status names the owner, if it has been given LOGIN');
is(superuser(q{SELECT 'oauth_vault_owner' = ANY (roles_that_can_reach_keys) FROM oauth_vault.oauth_status}), 'f', 'and not otherwise');

# ---- 3. a forged script, by whoever can write where scripts lie ----

chomp(my $share = `pg_config --sharedir`);
my $forged = "$share/extension/oauth_vault--1.0--9.9.sql";
SKIP:
{
	skip 'the scripts lie where this user does not write', 3 unless -w "$share/extension";
	superuser("COPY (SELECT 'GRANT SELECT ON oauth_vault.vault_key TO PUBLIC;') TO '$forged'");
	(undef, undef, $err) = $node->psql('postgres', q{ALTER EXTENSION oauth_vault UPDATE TO '9.9'}, extra_params => [ '-U', 'dba' ]);
	like($err, qr/must be owner/, '3. a forged script is not run by an administrator');
	is(superuser(q{BEGIN; ALTER EXTENSION oauth_vault UPDATE TO '9.9'; SELECT string_agg(object || ' / ' || field, '; ' ORDER BY object) FROM oauth_vault.oauth_selfcheck; ROLLBACK}),
		'extension oauth_vault / version; table vault_key / rights', '3. SUCCEEDS for a superuser, who writes and runs it; the self-check shows what it did');
	unlink $forged;
	ok(!-e $forged, 'gone again');
}

# ---- 5. evidence deleted ----

my $rows = superuser('SELECT count(*) FROM oauth_vault.audit');
superuser(q{DELETE FROM oauth_vault.audit WHERE event = 'token_access'});
cmp_ok(superuser('SELECT count(*) FROM oauth_vault.audit'), '<', $rows, '5. SUCCEEDS: a superuser deletes rows of the trail');
is($node->safe_psql('postgres', q{SELECT count(*) FROM oauth_vault.oauth_audit WHERE event = 'token_access'}, extra_params => [ '-U', 'security' ]), 0, '5. and the auditor does not find them');
is(superuser('SELECT count(*) FROM oauth_vault.oauth_selfcheck'), 0, '5. nor does the self-check: it looks at objects, not at rows');
$node->stop('fast');
done_testing();
