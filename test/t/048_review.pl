# The auditor's reports and the review tell the truth: what they count is what
# the tables hold, only auditors may ask, nothing secret is in them, and each
# thing that goes wrong, one by one, turns the verdict of its question.
use strict;
use warnings;
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('review', hosts => ["localhost:$idp->{port}"]);
sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub auditor { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'security' ]); }

superuser(qq{CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin; CREATE ROLE security LOGIN IN ROLE oauth_vault_auditor;
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		max_scopes => ARRAY['openid', 'offline_access', 'email'], issuer => '$idp->{issuer}')});
my $ada = ov_connect($node, 'ada', 'demo');
my $bob = ov_connect($node, 'bob', 'demo');
my $agent = ov_assertion($node, 'ada', '--actor', 'ledger-agent');
my $token = ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo', scopes => ARRAY['openid'], purpose => 'invoices');",
	assertion => $agent);
ov_sql($node, 'bob', "SELECT oauth_vault.oauth_fresh_token('demo');");
my ($state) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo', scopes => ARRAY['admin']);");
is($state, 'OV011', 'somebody asks for too much');
my $forged = substr($agent, 0, -20) . ('A' x 20);
($state) = ov_sql_fails($node, 'ada', 'SELECT 1;', assertion => $forged);
is($state, 'OV002', 'somebody forges an assertion');
ov_sql($node, 'bob', "SELECT oauth_vault.oauth_revoke('demo');");
ov_wait_for('the revocation', sub {
	superuser(q{SELECT count(*) FROM oauth_vault.oauth_audit WHERE event = 'revocation_settled'}) == 1 });

# ---- what the reports say ----

is(auditor(q{SELECT user_id, status, scopes @> '{openid}', accesses, refused, agents, purposes, ended_at IS NOT NULL
	FROM oauth_vault.oauth_report_access()}), "ada|active|t|1|1|{ledger-agent}|{invoices}|f\nbob|revoked|t|1|0|{}|{}|t",
	'access inventory: who holds what, and which agent used it for what');
is(auditor('SELECT count(*) FROM oauth_vault.oauth_report_access()'), superuser('SELECT count(*) FROM oauth_vault.connection'),
	'as many as there are');
is(auditor(q{SELECT count(*) FROM oauth_vault.oauth_report_access(now() + interval '1 hour')}), 1, 'what has ended is not in a later range');
is(auditor(q{SELECT count(*) FROM oauth_vault.oauth_report_access('-infinity', now() - interval '1 day')}), 0,
	'and what was not there yet is not in an earlier one');
is(auditor(q{SELECT role, power, through, reaches_tokens FROM oauth_vault.oauth_report_privileges() WHERE NOT shipped}),
	"app|member of oauth_vault_user|directly|f\ndba|member of oauth_vault_admin|directly|f\nsecurity|member of oauth_vault_auditor|directly|f",
	'privileged access: what was given away since the extension came');
is(auditor(q{SELECT count(*) FROM oauth_vault.oauth_report_privileges() WHERE power = 'SUPERUSER' AND reaches_tokens}), 1,
	'and the superuser, who can reach tokens');
is(auditor(q{SELECT user_id, outcome, took > interval '0' AND took < interval '1 minute', scopes @> '{openid}'
	FROM oauth_vault.oauth_report_provisioning()}), "ada|ok|t|t\nbob|ok|t|t", 'provisioning: each consent with its duration');
is(auditor(q{SELECT user_id, database_role, last_token_at, to_enforcement, provider_state, to_provider > interval '0'
	FROM oauth_vault.oauth_report_deprovisioning()}), 'bob|app||00:00:00|confirmed|t', 'de-provisioning: enforced at once, then confirmed');
is(auditor(q{SELECT measure, n, open, p50 <= p95 AND p95 <= longest FROM oauth_vault.oauth_report_timing()}),
	"consent: begun to granted|2|0|t\nrevocation: requested to last token here|1|0|t\n"
	. "revocation: requested to the provider's confirmation|1|0|t", 'how long it took: median, 95th percentile, longest');
is(auditor(q{SELECT user_id, used, unused, narrowed_accesses, whole_accesses, beyond_limit FROM oauth_vault.oauth_report_scopes()}),
	'ada|{openid}|{offline_access}|1|0|{}', 'least privilege: a scope that nobody has named shows');
is(auditor(q{SELECT severity, event, reason, user_id FROM oauth_vault.oauth_report_security_events() WHERE outcome = 'denied' ORDER BY reason}),
	"warning|identified|OV002|\nnotice|token_access|OV011|ada", 'security events: refusals');
is(auditor(q{SELECT severity, meaning FROM oauth_vault.oauth_report_security_events() WHERE event = 'connector_created'}),
	'change|a connector was made', 'and what administrators changed');
is(auditor(q{SELECT value FROM oauth_vault.oauth_report_crypto() WHERE item = 'records in connection.access_token'}),
	'1 x AES-256-GCM, key per record by HMAC-SHA-256, key-committing', 'crypto posture: records by what they are');
is(auditor(q{SELECT item, value FROM oauth_vault.oauth_report_crypto() WHERE item IN ('vault file', 'platform key 1') ORDER BY 1}),
	'platform key 1|active, in the vault file, made ' . superuser(q{SELECT (now() AT TIME ZONE 'UTC')::date})
	. "\nvault file|mode 0600, owner server", 'where keys are');
is(auditor(q{SELECT name, verdict FROM oauth_vault.oauth_report_configuration()
	WHERE name IN ('fsync', 'oauth_vault.audit', 'ssl_min_protocol_version') ORDER BY 1}),
	"fsync|fail\noauth_vault.audit|pass\nssl_min_protocol_version|pass", 'configuration: this cluster runs without fsync, and that is told');
is(auditor(q{SELECT string_agg(event, ' ' ORDER BY audit_id) FROM oauth_vault.oauth_report_person('ada')}),
	superuser(q{SELECT string_agg(event, ' ' ORDER BY audit_id) FROM oauth_vault.audit WHERE user_id = 'ada'}),
	'one person: the whole trail');
is(auditor(q{SELECT agents FROM oauth_vault.oauth_report_person('ada') WHERE event = 'token_access' AND outcome = 'ok'}), '["ledger-agent"]',
	'with the agent');

# ---- exports ----

my @reports = qw(access privileges provisioning deprovisioning timing scopes crypto configuration security_events review);
my $all = '';
foreach my $report (@reports)
{
	my $lines = auditor("SELECT oauth_vault.oauth_report_json('$report')");
	my @rows = map { decode_json($_) } split /\n/, $lines;
	ok(@rows > 0 && !grep({ ref ne 'HASH' } @rows), "$report: JSON lines");
	$all .= $lines;
	my $function = $report eq 'review' ? 'oauth_review' : "oauth_report_$report";
	my $csv = auditor("COPY (SELECT * FROM oauth_vault.$function()) TO STDOUT WITH (FORMAT csv, HEADER)");
	my ($header) = split /\n/, $csv;
	is_deeply([ sort split /,/, $header ], [ sort keys %{ $rows[0] } ], "$report: CSV has the same columns");
	$all .= $csv;
}
$all .= auditor("SELECT to_jsonb(r) FROM oauth_vault.oauth_report_person('ada') r");
my ($rc, $out, $err) = $node->psql('postgres', q{\set VERBOSITY verbose
	SELECT oauth_vault.oauth_report_json('person')}, extra_params => [ '-U', 'security' ]);
like($err, qr/22023: there is no report "person"/, 'a report that is not there is an error');

# ---- nothing secret, and nothing for others ----

my @secrets = ($token, 'demo: secret/with+signs', split /\n/, superuser(q{SELECT encode(substring(x FROM 14 FOR 24), 'hex') FROM (
	SELECT unnest(ARRAY[access_token, refresh_token]) FROM oauth_vault.connection UNION ALL SELECT wrapped FROM oauth_vault.vault_key
	UNION ALL SELECT client_secret FROM oauth_vault.connector) r (x) WHERE x IS NOT NULL}));
cmp_ok(scalar(@secrets), '>', 5, 'there are secrets to look for');
my @shown = grep { my $s = $_; grep { index($all, $_) >= 0 } ov_forms($s) } @secrets;
is_deeply(\@shown, [], 'no token, secret, key or sealed value is in any report');
my ($path) = $node->{ov_vault};
is(index($all, $path), -1, 'nor the place of the vault file');

my @functions = split /\n/, superuser(q{SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'oauth_vault'::regnamespace
	AND p.proname ~ '^(oauth_report_(?!rejected)|oauth_review$|report_)' ORDER BY 1});
cmp_ok(scalar(@functions), '>=', 20, 'there are functions for auditors');
is(superuser(join ' UNION ALL ', map { my $f = $_; map { "SELECT '$f $_' WHERE has_function_privilege('$_', '$f', 'EXECUTE')" }
	qw(app dba oauth_vault_user oauth_vault_admin pg_read_all_data pg_monitor) } @functions), '', 'that nobody else may call');
is(superuser(join ' UNION ALL ', map { "SELECT '$_' WHERE NOT has_function_privilege('security', '$_', 'EXECUTE')" } @functions), '',
	'and auditors may');
foreach my $sql ('SELECT count(*) FROM oauth_vault.connection', "SELECT oauth_vault.oauth_revoke('demo')",
	"SELECT oauth_vault.oauth_set_scope_policy('demo', '', NULL, ARRAY['openid'])", 'DELETE FROM oauth_vault.oauth_audit')
{
	($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'security' ]);
	like($err, qr/permission denied/, "an auditor may not: $sql");
}

# ---- the review ----

my %good = map { split /\|/ } split /\n/, auditor('SELECT question, verdict FROM oauth_vault.oauth_review()');
is_deeply([ sort keys %good ], [ 1 .. 5 ], 'five questions');
is($good{1}, 'pass', 'per-user OAuth for every connector');
is($good{2}, 'pass', 'tokens are sealed and out of reach')
  or diag(auditor('SELECT findings FROM oauth_vault.oauth_review() WHERE question = 2'));
isnt($good{$_}, 'fail', "question $_ does not fail") foreach 3, 4, 5;
is(auditor(q{SELECT evidence #>> '{connectors,demo,with_scopes_never_named}' FROM oauth_vault.oauth_review() WHERE question = 4}), 1,
	'a scope that nobody uses is counted');
foreach my $f ([ 5, 'oauth_policy_impact' ])
{
	my $there = superuser("SELECT count(*) > 0 FROM pg_proc WHERE pronamespace = 'oauth_vault'::regnamespace AND proname = '$f->[1]'");
	is(auditor("SELECT array_to_string(findings, ' ') !~ '$f->[1]' FROM oauth_vault.oauth_review() WHERE question = $f->[0]"), $there,
		"question $f->[0] says so when there is no $f->[1]");
}
is(auditor(q{SELECT count(*) FROM oauth_vault.oauth_review() WHERE limits = '' OR evidence = '{}' OR answer = '' OR asked = ''}), 0,
	'each with its answer, its evidence and its limits');
like(auditor('SELECT limits FROM oauth_vault.oauth_review() WHERE question = 2'), qr/superuser \(\w+\) reads the vault file/,
	'what a superuser can do is said whatever the verdict');

# Each in a transaction of its own that is rolled back: what is done, which
# question, and what its verdict becomes.
my @wrongs;
foreach my $table (split /\n/, superuser(q{SELECT c.oid::regclass FROM pg_class c
	WHERE relnamespace = 'oauth_vault'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1}))
{
	push @wrongs, [ "ALTER TABLE $table DISABLE ROW LEVEL SECURITY", 2, 'fail' ], [ "ALTER TABLE $table NO FORCE ROW LEVEL SECURITY", 2, 'fail' ];
}
foreach my $policy (split /\n/, superuser(q{SELECT format('POLICY %I ON %I.%I', policyname, schemaname, tablename)
	FROM pg_policies WHERE schemaname = 'oauth_vault' AND qual <> 'true' ORDER BY 1}))
{
	push @wrongs, [ "ALTER $policy USING (true)", 2, 'fail' ],
	  [ "ALTER $policy USING (oauth_vault.row_visible('', 'ada') OR true)", 2, 'fail' ];
}
push @wrongs, (
	[ 'CREATE POLICY all_of_it ON oauth_vault.connection FOR SELECT TO oauth_vault_admin USING (true)', 2, 'fail' ],
	[ 'GRANT SELECT ON oauth_vault.connection TO app', 2, 'fail' ],
	[ 'GRANT SELECT ON oauth_vault.connection TO oauth_vault_auditor', 2, 'fail' ],
	[ 'GRANT SELECT (access_token) ON oauth_vault.connection TO oauth_vault_admin', 2, 'fail' ],
	[ 'GRANT UPDATE ON oauth_vault.audit TO oauth_vault_auditor', 2, 'fail' ],
	[ 'GRANT SELECT ON oauth_vault.oauth_audit TO PUBLIC', 2, 'fail' ],
	[ 'GRANT EXECUTE ON FUNCTION oauth_vault.oauth_whoami(text) TO PUBLIC', 2, 'fail' ],
	[ 'GRANT EXECUTE ON FUNCTION oauth_vault.report_connections() TO oauth_vault_admin', 2, 'fail' ],
	[ 'GRANT oauth_vault_user TO app; GRANT SELECT ON oauth_vault.oauth_connections TO oauth_vault_user WITH GRANT OPTION', 2, 'fail' ],
	[ 'GRANT CREATE ON SCHEMA oauth_vault TO dba', 2, 'fail' ],
	[ 'GRANT UPDATE ON SEQUENCE oauth_vault.vault_key_id TO dba', 2, 'fail' ],
	[ 'ALTER VIEW oauth_vault.oauth_connections OWNER TO dba', 2, 'fail' ],
	[ 'ALTER FUNCTION oauth_vault.oauth_whoami(text) OWNER TO dba', 2, 'fail' ],
	[ q{CREATE OR REPLACE FUNCTION oauth_vault.oauth_whoami(assertion text DEFAULT NULL, OUT tenant text, OUT user_id text, OUT actor jsonb,
		OUT source text, OUT expires_at timestamptz, OUT prompts_pending integer) LANGUAGE sql AS
		$$SELECT '', 'ada', NULL::jsonb, 'x', now(), 0$$}, 2, 'fail' ],
	[ 'CREATE FUNCTION oauth_vault.oauth_fresh_token(text, text) RETURNS text LANGUAGE sql AS $$SELECT $2$$', 2, 'fail' ],
	[ 'CREATE VIEW oauth_vault.peek AS SELECT * FROM oauth_vault.connection', 2, 'fail' ],
	[ 'ALTER FUNCTION oauth_vault.oauth_whoami(text) SECURITY DEFINER', 2, 'fail' ],
	[ q{CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
		CREATE TRIGGER spy BEFORE UPDATE ON oauth_vault.connection FOR EACH ROW EXECUTE FUNCTION public.spy()}, 2, 'fail' ],
	[ 'ALTER TABLE oauth_vault.vault_key DISABLE TRIGGER invalidate', 2, 'fail' ],
	[ 'DROP TRIGGER invalidate ON oauth_vault.connector', 2, 'fail' ],
	[ q{UPDATE oauth_vault.provider_builtin SET rules = rules || '{"api": {"hosts": ["evil.example"]}}' WHERE name = 'oidc'}, 2, 'fail' ],
	[ 'CREATE RULE spy AS ON DELETE TO oauth_vault.audit DO INSTEAD NOTHING', 2, 'fail' ],
	[ q{UPDATE oauth_vault.connection SET access_token = 'a token that is not sealed' WHERE user_id = 'ada'}, 2, 'fail' ],
	[ 'CREATE ROLE backend SUPERUSER LOGIN IN ROLE oauth_vault_user', 2, 'fail' ],
	[ 'ALTER ROLE app SUPERUSER', 2, 'fail' ],
	[ 'CREATE ROLE team IN ROLE oauth_vault_admin; CREATE ROLE boss SUPERUSER LOGIN IN ROLE team', 2, 'fail' ],
	[ 'CREATE ROLE second SUPERUSER LOGIN', 2, 'attention' ],
	[ 'CREATE ROLE files LOGIN IN ROLE pg_read_server_files', 2, 'attention' ],
	[ 'GRANT oauth_vault_owner TO dba', 2, 'fail' ],
	[ 'CREATE ROLE past BYPASSRLS IN ROLE pg_write_all_data', 2, 'attention' ],
	[ q{SELECT oauth_vault.oauth_set_provider('machine', oauth_vault.merge_patch(
			(SELECT rules FROM oauth_vault.provider_builtin WHERE name = 'oidc'), '{"refresh": {"strategy": "client_credentials"}}'));
		SELECT oauth_vault.oauth_create_connector('service', 'machine', 'demo', 'x', 'https://app.example/callback', issuer => '} . $idp->{issuer} . q{')},
		1, 'fail' ],
	[ q{SELECT oauth_vault.oauth_set_provider('oidc', '{"refresh": {"strategy": "client_credentials"}}')}, 1, 'fail' ],
	[ q{UPDATE oauth_vault.connector SET metadata = metadata - 'authorization_endpoint'}, 1, 'fail' ],
	[ q{UPDATE oauth_vault.connector SET provider = 'gone'}, 1, 'attention' ],
	[ q{UPDATE oauth_vault.connection SET provider_subject = 'the company account', status = 'active'}, 1, 'attention' ],
	[ q{UPDATE oauth_vault.revocation SET requested_at = requested_at - interval '10 minutes'}, 3, 'fail' ],
	[ q{SELECT oauth_vault.oauth_offboard('ada'); UPDATE oauth_vault.offboarding SET deadline = now() - interval '1 hour'}, 3, 'fail' ],
	[ q{UPDATE oauth_vault.revocation SET state = 'failed'}, 3, 'attention' ],
	[ q{UPDATE oauth_vault.revocation SET state = 'queued', requested_at = now() - interval '2 hours',
		connection_id = gen_random_uuid()}, 3, 'attention' ],
	[ q{UPDATE oauth_vault.connection SET scopes = scopes || '{admin}' WHERE user_id = 'ada'}, 4, 'fail' ],
	[ q{SELECT oauth_vault.oauth_set_scope_policy('demo', '', NULL, ARRAY['openid'])}, 4, 'fail' ],
	[ q{SELECT oauth_vault.oauth_set_scope_policy('demo', '', 'ada', ARRAY['openid'])}, 4, 'fail' ],
	[ q{UPDATE oauth_vault.connector SET max_scopes = NULL}, 4, 'attention' ],
	[ q{SELECT oauth_vault.oauth_set_provider('oidc', '{"basis": {"date": "2020-01-01"}}')}, 5, 'attention' ]);

my %finding_before = map { split /\|/, $_, 2 } split /\n/, auditor('SELECT question, findings::text FROM oauth_vault.oauth_review()');
my $sql = '';
foreach my $i (0 .. $#wrongs)
{
	my ($what, $question) = @{ $wrongs[$i] };
	$sql .= "BEGIN;\n\\o /dev/null\n$what;\n\\o\nSET LOCAL ROLE security;\n"
	  . "SELECT '$i', verdict, findings::text FROM oauth_vault.oauth_review() WHERE question = $question;\nROLLBACK;\n";
}
my %became = map { /^(\d+)\|(\w+)\|(.*)$/ ? ($1 => [ $2, $3 ]) : () } split /\n/, superuser($sql);
foreach my $i (0 .. $#wrongs)
{
	my ($what, $question, $verdict) = @{ $wrongs[$i] };
	my $name = $what =~ s/\s+/ /gr;
	$name = substr($name, 0, 100) . '…' if length $name > 100;
	is($became{$i}[0], $verdict, "$name: question $question");
	isnt($became{$i}[1], $finding_before{$question}, 'and the findings say why');
}
cmp_ok(scalar(@wrongs), '>', 60, 'many ways to go wrong');
is_deeply({ map { split /\|/ } split /\n/, auditor('SELECT question, verdict FROM oauth_vault.oauth_review()') }, \%good,
	'all of it rolled back, the verdicts are as they were');

# Settings, which no transaction can change
$node->append_conf('postgresql.conf', "oauth_vault.audit = batched");
$node->reload;
ok(ov_wait_for('the setting', sub {
	auditor('SELECT verdict FROM oauth_vault.oauth_review() WHERE question = 2') eq 'attention' }), 'audit = batched needs attention');
chmod 0644, $node->{ov_vault};
is(auditor('SELECT verdict FROM oauth_vault.oauth_review() WHERE question = 2'), 'fail', 'a vault file that anybody may read fails');
chmod 0600, $node->{ov_vault};

$node->stop('fast');
done_testing();
