# A sealed value opens where it was sealed and nowhere else: every record of two
# people, two connectors and two generations moved by a superuser into every
# other column and row.  No token comes out, nothing reaches the provider.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 3600);
my $node = ov_cluster('moved', hosts => ["localhost:$idp->{port}"]);
my @people = qw(ada bob);
my @connectors = qw(demo other);
sub superuser { return $node->safe_psql('postgres', $_[0]); }
foreach my $name (@connectors)
{
	superuser(qq{SELECT oauth_vault.oauth_create_connector('$name', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}',
		refresh_policy => 'lazy')});
}
my %jwt = map { $_ => ov_assertion($node, $_, '--ttl', '3000') } @people;

# ---- two people x two connectors x two generations ----

# What every sealed column's additional data say.  One row a column and place;
# the test below compares it with the catalogue.
superuser(q{
	CREATE VIEW sealed AS
	SELECT c.user_id || '/' || n.name || ' ' || p.purpose || ' ' || c.token_generation AS name, 'connection.' || p.purpose AS place,
		p.purpose, c.tenant, c.user_id, c.connector_id, c.connection_id, c.hosts_digest, c.key_id, c.token_generation AS generation, p.record
	FROM oauth_vault.connection c JOIN oauth_vault.connector n USING (connector_id),
		LATERAL (VALUES ('access_token', c.access_token), ('refresh_token', c.refresh_token), ('id_token', c.id_token)) p (purpose, record)
	UNION ALL
	SELECT n.name || ' secret ' || p.generation, 'connector.' || p.place, 'client_secret', '', '', n.connector_id, NULL, NULL, n.key_id,
		p.generation, p.record
	FROM oauth_vault.connector n,
		LATERAL (VALUES ('client_secret', n.secret_generation, n.client_secret),
			('previous_secret', n.previous_generation, n.previous_secret)) p (place, generation, record)
	UNION ALL
	SELECT f.user_id || '/' || n.name || ' verifier', 'flow.verifier', 'pkce_verifier', f.tenant, f.user_id, f.connector_id, f.flow_id,
		f.hosts_digest, n.key_id, 0, f.verifier
	FROM oauth_vault.flow f JOIN oauth_vault.connector n USING (connector_id) WHERE f.consumed_at IS NULL;
	CREATE TABLE loot AS SELECT row_number() OVER () AS id, * FROM sealed WHERE false;});
sub collect
{
	superuser(q{INSERT INTO loot SELECT (SELECT count(*) FROM loot) + row_number() OVER (), s.* FROM sealed s
		WHERE record IS NOT NULL AND NOT EXISTS (SELECT FROM loot l WHERE l.record = s.record)});
}
foreach my $person (@people) { ov_connect($node, $person, $_) foreach @connectors; }
collect();
superuser(q{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'});
my %token;
foreach my $person (@people)
{
	$token{"$person/$_"} = ov_sql($node, $person, "SELECT oauth_vault.oauth_fresh_token('$_');") foreach @connectors;
}
superuser("SELECT oauth_vault.oauth_set_client_secret('$_', 'demo: secret/with+signs')") foreach @connectors;
my %state;
foreach my $person (@people)
{
	$state{"$person/$_"} = ov_sql($node, $person, "SELECT state FROM oauth_vault.oauth_begin('$_', account => 'second');") foreach @connectors;
}
collect();
ov_audit_sealed($node);
is(superuser(q{SELECT string_agg(DISTINCT generation::text, ' ' ORDER BY generation::text) FROM loot WHERE purpose = 'refresh_token'}), '1 2',
	'records of two generations');
is(superuser('SELECT count(*) FROM loot'), 4 * 3 * 2 + 2 * 2 + 4, 'each column of each, the old ones too');

# A new column for something sealed needs a place here.
is(superuser(q{
	SELECT string_agg(c.relname || '.' || a.attname, ' ' ORDER BY c.relname || '.' || a.attname COLLATE "C") FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
	WHERE c.relnamespace = 'oauth_vault'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
		AND a.atttypid = 'bytea'::regtype
		AND a.attname NOT IN ('hosts_digest', 'state_hash', 'superseded', 'token_fingerprint')
		AND c.relname || '.' || a.attname NOT IN (SELECT place FROM sealed)
		AND c.relname !~ '^audit'}),
	'grant_inbox.access_token grant_inbox.id_token grant_inbox.refresh_token revocation.access_token revocation.refresh_token vault_key.wrapped',
	'every sealed column has its place below');

# ---- every pair, with the true keys and other code ----

my $keys = superuser(q{SELECT json_agg(json_build_object('key_id', key_id, 'kind', kind, 'tenant', tenant, 'user_id', user_id,
	'connector_id', connector_id, 'wrapped', wrapped)) FROM oauth_vault.vault_key WHERE kind <> 'audit'});
my $places = superuser(q{SELECT json_agg(json_build_object('name', name, 'purpose', purpose, 'tenant', tenant, 'user_id', user_id,
	'connector_id', coalesce(connector_id::text, repeat('0', 32)), 'connection_id', coalesce(connection_id::text, repeat('0', 32)),
	'hosts_digest', coalesce(hosts_digest::text, repeat('0', 64)), 'key_id', key_id, 'generation', generation, 'record', record)) FROM loot});
my $vault_id = superuser('SELECT vault_id FROM oauth_vault.home');
my ($out, $err) = ('', '');
my $input = qq({"vault_id":"$vault_id","keys":$keys,"places":$places});
IPC::Run::run([ 'node', "$ENV{OV_TREE}/test/drivers/pairs.mjs", $node->{ov_vault} ], '<', \$input, '>', \$out, '2>', \$err) or die $err;
my $result = decode_json($out);
is($result->{places}, 32 + 4, 'records and places, wrapped keys among them');
is_deeply([ grep { $_->[0] ne $_->[1] } @{ $result->{opened} } ], [], "of $result->{pairs} pairs none opens in another's place");
is(scalar(grep { $_->[0] eq $_->[1] } @{ $result->{opened} }), 36, 'and each in its own');

# ---- every pair through the server ----

# A superuser moves a record into one place, somebody asks, all is put back.
superuser(q{
	CREATE TABLE outcome (target text, source text, sqlstate text, said text);
	CREATE FUNCTION ask(statement text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE answer text;
	BEGIN
		EXECUTE statement INTO answer;
		RETURN '00000 ' || coalesce(answer, '');
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE || ' ' || SQLERRM;
	END $$;
	CREATE PROCEDURE move(target text, tab text, col text, key text, val text, also text, statement text) LANGUAGE plpgsql AS $$
	DECLARE
		l	record;
		s	text;
	BEGIN
		EXECUTE format('CREATE TEMP TABLE kept AS SELECT * FROM oauth_vault.%I', tab);
		COMMIT;
		FOR l IN SELECT name, record FROM loot UNION ALL SELECT 'wrap ' || key_id, wrapped FROM oauth_vault.vault_key
			UNION ALL VALUES ('empty', ''::bytea), ('a byte', 'O'), ('cut', substring((SELECT record FROM loot LIMIT 1) FOR 104))
		LOOP
			EXECUTE format('SELECT %I::text = $1::text FROM oauth_vault.%I WHERE %I::text = $2', col, tab, key) INTO s USING l.record, val;
			CONTINUE WHEN s = 'true';
			EXECUTE format('UPDATE oauth_vault.%I SET %I = $1 %s WHERE %I::text = $2', tab, col, also, key) USING l.record, val;
			COMMIT;
			s := ask(statement);
			INSERT INTO outcome VALUES (target, l.name, left(s, 5), substr(s, 7));
			EXECUTE (SELECT format('UPDATE oauth_vault.%I t SET (%s) = (SELECT %s FROM kept k WHERE k.%I = t.%I) WHERE %I::text = $1', tab,
				string_agg(quote_ident(attname), ','), string_agg('k.' || quote_ident(attname), ','), key, key, key)
				FROM pg_attribute WHERE attrelid = ('oauth_vault.' || tab)::regclass AND attnum > 0 AND NOT attisdropped AND attname <> key)
				USING val;
			COMMIT;
		END LOOP;
		DROP TABLE kept;
	END $$;});
my $sources = 32 + 5 + 3;
my $script = '';
my $expired = ", expires_at = now() - interval ''1 minute''";
foreach my $person (@people)
{
	foreach my $connector (@connectors)
	{
		my $fresh = "SELECT oauth_vault.oauth_fresh_token(''$connector'', assertion => ''$jwt{$person}'')";
		my $connection = superuser("SELECT connection_id FROM sealed WHERE name = '$person/$connector access_token 2'");
		my $flow = superuser("SELECT connection_id FROM sealed WHERE name = '$person/$connector verifier'");
		my $complete = "SELECT connection_id FROM oauth_vault.oauth_complete(''@{[ $state{qq($person/$connector)} ]}'', ''code'', ''$idp->{issuer}'',"
		  . " assertion => ''$jwt{$person}'')";
		$script .= "CALL move('$person/$connector access_token', 'connection', 'access_token', 'connection_id', '$connection', '', '$fresh');\n"
		  . "CALL move('$person/$connector refresh_token', 'connection', 'refresh_token', 'connection_id', '$connection', '$expired', '$fresh');\n"
		  . "CALL move('$person/$connector verifier', 'flow', 'verifier', 'flow_id', '$flow', '', '$complete');\n";
	}
	# a session of its own has no key yet
	my $key = superuser("SELECT key_id FROM oauth_vault.vault_key WHERE user_id = '$person'");
	$script = "CALL move('$person key', 'vault_key', 'wrapped', 'key_id', '$key', '', 'SELECT oauth_vault.oauth_fresh_token(''demo'', assertion => ''$jwt{$person}'')');\n"
	  . $script;
}
foreach my $connector (@connectors)
{
	my $id = superuser("SELECT connector_id FROM oauth_vault.connector WHERE name = '$connector'");
	my $key = superuser("SELECT key_id FROM oauth_vault.connector WHERE name = '$connector'");
	$script .= "UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute';\n"
	  . "CALL move('$connector client_secret', 'connector', 'client_secret', 'connector_id', '$id', '', 'SELECT oauth_vault.oauth_fresh_token(''$connector'', assertion => ''$jwt{ada}'')');\n"
	  . "UPDATE oauth_vault.connection SET expires_at = now() + interval '1 hour';\n"
	  . "CALL move('$connector key', 'vault_key', 'wrapped', 'key_id', '$key', '', 'SELECT oauth_vault.oauth_set_client_secret(''$connector'', ''x'')');\n";
}
my %before = %{ ov_control($idp, 'GET', '/counters') };
my $rc;
($rc, $out, $err) = $node->psql('postgres', $script, on_error_stop => 1);
is($rc, 0, 'every record has been everywhere') or diag($err);
my @targets = split /\n/, superuser(q{SELECT target || '|' || count(*) || '|' || string_agg(DISTINCT sqlstate, ' ' ORDER BY sqlstate)
	FROM outcome GROUP BY target ORDER BY target});
my $tried = 0;
foreach my $line (@targets)
{
	my ($target, $n, $states) = split /\|/, $line;
	$tried += $n;
	my $own = $target =~ / key$/ ? 1 : $target =~ /client_secret|verifier|token/ ? 1 : 0;
	is($n, $sources - $own, "$target: every other record tried");
	is($states, $target =~ / key$/ ? 'OV040 OV041' : 'OV041', "$target: none opens");
}
is(scalar(@targets), 2 + 4 * 3 + 2 * 2, 'and every place');
is(superuser("SELECT count(*) FROM outcome WHERE sqlstate = '00000'"), '0', "no token came out of $tried moves");
is_deeply(ov_control($idp, 'GET', '/counters'), \%before, 'and no request left for the provider');

# Into the outbox of revocations, which sends tokens without anybody asking
superuser(q{
	INSERT INTO oauth_vault.revocation (connection_id, tenant, user_id, connector_id, key_id, token_generation, hosts_digest, metadata,
		access_token, refresh_token)
	SELECT c.connection_id, c.tenant, c.user_id, c.connector_id, c.key_id, c.token_generation, c.hosts_digest, c.metadata,
		CASE WHEN col = 'access_token' THEN l.record END, CASE WHEN col = 'refresh_token' THEN l.record END
	FROM oauth_vault.connection c JOIN oauth_vault.connector n ON n.connector_id = c.connector_id AND n.name = 'demo',
		loot l, unnest('{access_token,refresh_token}'::text[]) col
	WHERE NOT (l.purpose = col AND l.connection_id = c.connection_id AND l.generation = c.token_generation)});
superuser(q{SELECT oauth_vault.oauth_set_provider('slack', '{}')});		# wakes the worker when it commits
my $waiting = q{SELECT count(*) FROM oauth_vault.revocation WHERE attempts = 0};
is(superuser('SELECT count(*) FROM oauth_vault.revocation'), 2 * 2 * 31, 'every other record of each connection in the outbox');
ok(ov_wait_for('the outbox', sub { superuser($waiting) eq '0' }, 30), 'the worker has been through it');
is(superuser(q{SELECT count(*) FROM oauth_vault.revocation WHERE state = 'confirmed'}), '0', 'it sent none');
is(ov_control($idp, 'GET', '/counters')->{revocation}, 0, 'and the provider has seen none');
superuser(q{DELETE FROM oauth_vault.revocation});
foreach my $person (@people)
{
	is(ov_sql($node, $person, "SELECT oauth_vault.oauth_fresh_token('$_');"), $token{"$person/$_"}, "$person at $_ is as before") foreach @connectors;
}
# The same road with the right record, to know that it leads somewhere
ov_sql($node, 'bob', "SELECT provider_state FROM oauth_vault.oauth_revoke('demo');");
ok(ov_wait_for('a true revocation', sub { ov_control($idp, 'GET', '/counters')->{revocation} > 0 }, 20),
	'its own record does leave the outbox')
  or diag(superuser('SELECT state, attempts, next_attempt_at - now(), outcome, (SELECT status FROM oauth_vault.connector n WHERE n.connector_id = r.connector_id)
	FROM oauth_vault.revocation r'));
$node->stop('fast');
done_testing();
