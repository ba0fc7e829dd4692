# What a caller prepares in the session or the database changes nothing: no
# temporary type, no schema, no operator of his runs with the owner's rights.
# And our functions refuse where code runs on behalf of somebody else.
use strict;
use warnings;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = ov_cluster('hygiene');
$node->safe_psql('postgres', q{
	SELECT oauth_vault.oauth_create_connector('demo', 'google', 'client', 'secret', 'https://app.example/cb');
	CREATE SCHEMA hostile;
	GRANT CREATE, USAGE ON SCHEMA hostile TO app;
	GRANT CREATE ON SCHEMA public TO app;
	CREATE ROLE maintainer SUPERUSER LOGIN;});
my $jwt = ov_assertion($node, 'ada');

sub as_app
{
	my ($sql, %opt) = @_;
	my ($rc, $out, $err) = $node->psql($opt{dbname} // 'postgres', $sql,
		extra_params => [ '-U', $opt{user} // 'app', '-v', 'VERBOSITY=verbose' ], on_error_stop => $opt{stop} // 0);
	return ($rc, $out, $err);
}

# Every function that a person may call, and a call of it that gets as far as it can
my @calls = split /\n/, $node->safe_psql('postgres', q{
	SELECT pg_catalog.format('oauth_vault.%I(%s)', p.proname, (
		SELECT pg_catalog.string_agg(CASE
				WHEN a.name IN ('connector') THEN $q$'demo'::pg_catalog.text$q$
				WHEN a.name = 'connectors' THEN $q$'{demo}'::pg_catalog.text[]$q$
				WHEN a.name IN ('session') THEN 'false'
				WHEN a.name IN ('state', 'code', 'token', 'url', 'tenant', 'user_id') THEN $q$'x'::pg_catalog.text$q$
				WHEN a.name = 'params' THEN $q$'{}'::pg_catalog.jsonb$q$
				WHEN a.name = 'http_status' THEN '401'
				WHEN a.name = 'assertion' THEN 'JWT'
				ELSE 'NULL' END, ', ' ORDER BY a.n)
		FROM pg_catalog.unnest(p.proargnames[1:p.pronargs]) WITH ORDINALITY a(name, n)))
	FROM pg_catalog.pg_proc p
	WHERE p.pronamespace = 'oauth_vault'::pg_catalog.regnamespace
		AND pg_catalog.has_function_privilege('oauth_vault_user', p.oid, 'EXECUTE')
	ORDER BY p.proname});
s/JWT/'$jwt'/ for @calls;
cmp_ok(scalar @calls, '>=', 15, 'there are functions to call: ' . scalar @calls);

#
# Temporary types and everything in search_path
#
# A domain's check is code of its owner that runs whenever something is cast to
# it, with the rights of whoever casts.
my $spies = '';
foreach my $type (qw(text int8 int4 bytea jsonb inet uuid timestamptz bool name))
{
	$spies .= "CREATE DOMAIN pg_temp.$type AS pg_catalog.$type CHECK (pg_temp.spy('$type'));\n";
	$spies .= "CREATE DOMAIN hostile.$type AS pg_catalog.$type CHECK (pg_temp.spy('$type'));\n";
}
my $prepare = qq{
	SET search_path = pg_catalog;
	CREATE FUNCTION pg_temp.spy(what pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql AS \$\$
		BEGIN RAISE WARNING 'the spy runs as %, for %', current_user, what; RETURN true; END \$\$;
	$spies
	CREATE FUNCTION hostile.now() RETURNS pg_catalog.timestamptz LANGUAGE plpgsql AS \$\$
		BEGIN PERFORM pg_temp.spy('now()'); RETURN pg_catalog.now(); END \$\$;
	CREATE FUNCTION hostile.same(a pg_catalog.text, b pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql AS \$\$
		BEGIN PERFORM pg_temp.spy('='); RETURN true; END \$\$;
	CREATE OPERATOR hostile.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = hostile.same);
	CREATE TEMP TABLE connection (connection_id pg_catalog.uuid, tenant pg_catalog.text, user_id pg_catalog.text);
	CREATE TEMP TABLE connector (name pg_catalog.text);
	SELECT 'spied: ' || 'x'::pg_temp.text;
	SET search_path = hostile, pg_temp, pg_catalog;
};
my $body = "BEGIN;\nSELECT oauth_vault.oauth_identify('$jwt', false);\n"
	. join("\n", map { "SAVEPOINT s; SELECT $_; ROLLBACK TO s;" } grep { !/identify/ } @calls)
	. "\nSELECT * FROM oauth_vault.oauth_connections; SELECT * FROM oauth_vault.oauth_reauth_prompts;"
	. "\nSELECT * FROM oauth_vault.oauth_my_access; COMMIT;";
my ($rc, $out, $err) = as_app("$prepare\n$body");
like($err, qr/the spy runs as app, for text/, 'the trap works where app springs it');
like($err, qr/ERROR:  OV012/, 'the calls were made');
unlike($err, qr/the spy runs as oauth_vault/, "no type, function or operator of the caller's runs as the owner")
	or diag($err);

# The same for administrators' calls, whose frame sees every row
($rc, $out, $err) = as_app("$prepare
	SELECT oauth_vault.oauth_create_connector('second', 'google', 'client', 'secret', 'https://app.example/cb');
	SELECT oauth_vault.oauth_alter_connector('second', client_id => 'c2');
	SELECT * FROM oauth_vault.oauth_connectors; SELECT * FROM oauth_vault.oauth_providers;
	SELECT * FROM oauth_vault.oauth_status; SELECT oauth_vault.oauth_drop_connector('second');", user => 'maintainer');
unlike($err, qr/the spy runs as oauth_vault/, "nor in an administrator's call") or diag($err);
$node->safe_psql('postgres', 'DROP SCHEMA hostile CASCADE');

#
# Security-restricted operations: what a table's owner has written into it runs
# inside the maintenance of somebody else, whose identity it must not use.
#
# probe(i) makes call i and says what came of it.  Views and functions that
# answer "nobody" instead of an error must do so.
my $probe = join "\n", map { "WHEN $_ THEN EXECUTE \$q\$SELECT r::pg_catalog.text FROM $calls[$_] r\$q\$ INTO got;" } 0 .. $#calls;
$node->safe_psql('postgres', qq{
	CREATE FUNCTION public.probe(i int) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS \$probe\$
	DECLARE got text; why text;
	BEGIN
		CASE i $probe
		ELSE
			EXECUTE 'SELECT count(*) FROM oauth_vault.oauth_connections' INTO got;
			IF got = '0' THEN got := NULL; END IF;
		END CASE;
		RAISE WARNING 'probe % : got %', i, coalesce(got, 'nothing');
		RETURN 'x';
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS why = MESSAGE_TEXT;
		RAISE WARNING 'probe % : % %', i, SQLSTATE, why;
		RETURN 'x';
	END \$probe\$;
	GRANT EXECUTE ON FUNCTION public.probe(int) TO app;
	GRANT oauth_vault_user TO maintainer;});
# ada has a connection, so that there is something to see
$node->safe_psql('postgres', q{
	INSERT INTO oauth_vault.connection (tenant, user_id, connector_id, status, key_id, token_generation, hosts_digest)
		SELECT '', 'ada', connector_id, 'active', 1, 1, '\x00' FROM oauth_vault.connector WHERE name = 'demo'});

my %why = map { $_ => 1 } (
	'42501 oauth_vault functions cannot run inside a security-restricted operation',
	'42501 an identity cannot be bound inside a security-restricted or parallel operation');

sub refused_everywhere
{
	my ($what, $sql) = @_;
	# bound for the session, as a maintenance job's pooled connection may be
	my ($rc, $out, $err) = as_app("SELECT oauth_vault.oauth_identify('$jwt', true);\n$sql", user => 'maintainer');
	my %came = $err =~ /WARNING:  01000: probe (\d+) : (.*)$/mg;
	is(scalar keys %came, @calls + 1, "$what: every call was made") or diag($err);
	my @wrong = map { "$calls[$_] " . ($came{$_} // 'nothing') } grep {
		my $call = $calls[$_] // 'oauth_connections';
		!$why{ $came{$_} // '' } && !($call =~ /session_tenant|session_user_id|oauth_connections/ && $came{$_} eq 'got nothing')
			&& !($call =~ /row_visible/ && $came{$_} =~ /got (?:f|false)$/) } sort { $a <=> $b } keys %came;
	is(join("\n", @wrong), '', "$what: and refused, or answered that nobody is there");
}

# without restriction the same probes reach somebody: the test can fail
my $last = @calls;
my ($whoami) = grep { $calls[$_] =~ /oauth_whoami/ } 0 .. $#calls;
($rc, $out, $err) = as_app("SELECT oauth_vault.oauth_identify('$jwt', true); SELECT public.probe(i) FROM (VALUES ($whoami), ($last)) v(i);",
	user => 'maintainer');
like($err, qr/probe $whoami : got \("",ada,/, 'outside, the identity is ada');
like($err, qr/probe $last : got 1$/m, 'who sees her connection');

$node->safe_psql('postgres', qq{
	CREATE TABLE public.bait (i int);
	ALTER TABLE public.bait OWNER TO app;});
as_app("INSERT INTO public.bait SELECT g FROM generate_series(0, $last) g; CREATE INDEX bait_probe ON public.bait (public.probe(i));");
as_app("CREATE MATERIALIZED VIEW public.bait_view AS SELECT public.probe(i) FROM public.bait WITH NO DATA;");
refused_everywhere('index expression (REINDEX)', 'REINDEX INDEX public.bait_probe;');
refused_everywhere('index expression (ANALYZE, as autovacuum does it)', 'ANALYZE public.bait;');
refused_everywhere('index expression (CLUSTER)', 'CLUSTER public.bait USING bait_probe;');
refused_everywhere('materialized view', 'REFRESH MATERIALIZED VIEW public.bait_view;');

# A materialized view of one's own connections would be a copy without row security.
($rc, $out, $err) = as_app("SELECT oauth_vault.oauth_identify('$jwt', true);
	CREATE MATERIALIZED VIEW public.copy AS SELECT * FROM oauth_vault.oauth_connections;
	SELECT 'copied: ' || count(*) FROM public.copy;");
like($out, qr/^copied: 0$/m, 'a materialized view of the own connections stays empty');

#
# Parallel mode: a function that claims to be safe cannot take ours along.
#
%why = map { $_ => 1 } ('25000 oauth_vault functions cannot run in a parallel operation',
	'42501 an identity cannot be bound inside a security-restricted or parallel operation');
my $force = $node->safe_psql('postgres', q{SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')});
$node->safe_psql('postgres', qq{
	CREATE FUNCTION public.parallel_probe(i int) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS \$probe\$
	DECLARE got text;
	BEGIN
		CASE i $probe END CASE;
		RETURN coalesce(got, 'nothing');
	END \$probe\$;});
($rc, $out, $err) = as_app("SELECT oauth_vault.oauth_identify('$jwt', true); SET $force = on;\n"
	. join("\n", map { "\\warn probe $_\nSELECT 'got ' || public.parallel_probe($_);" } 0 .. $#calls), user => 'maintainer');
my @wrong;
foreach my $i (0 .. $#calls)
{
	my ($got) = $err =~ /^probe $i\n(.*?)(?=^probe \d+$|\z)/ms;
	my $came = $got =~ /ERROR:  (\w{5}): (.*)/ ? "$1 $2" : 'an answer';
	next if $why{$came} && $got =~ /^parallel worker$/m;
	next if $came eq 'an answer' && $calls[$i] =~ /session_tenant|session_user_id|row_visible/;
	push @wrong, "$calls[$i]: $came";
}
is(join("\n", @wrong), '', 'a parallel worker refuses every call');
unlike($out, qr/got .*ada/, 'and knows nobody');

#
# The install script
#
sub in_new_database
{
	my ($name, $prepare) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name; GRANT CREATE ON DATABASE $name TO app");
	as_app($prepare->{as_app}, dbname => $name) if $prepare->{as_app};
	as_app($prepare->{first}, dbname => $name, user => 'maintainer', stop => 1) if $prepare->{first};
	as_app($prepare->{then_app}, dbname => $name) if $prepare->{then_app};
	my ($rc, $out, $err) = as_app(($prepare->{session} // '') . 'CREATE EXTENSION oauth_vault;', dbname => $name, user => 'maintainer', stop => 1);
	return ($rc, $err);
}

# An operator that fits the script's comparisons better than the system's own
my $trap = q{
	CREATE FUNCTION oauth_vault.trap(a oid, b regclass) RETURNS boolean LANGUAGE plpgsql AS
		'BEGIN RAISE WARNING ''trapped %'', current_user; RETURN false; END';
	CREATE OPERATOR oauth_vault.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = oauth_vault.trap);
	CREATE OPERATOR oauth_vault.<> (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = oauth_vault.trap);};
my $why;
($rc, $why) = in_new_database('trapped', { first => 'CREATE SCHEMA oauth_vault; GRANT USAGE, CREATE ON SCHEMA oauth_vault TO app;',
	then_app => $trap });
unlike($why, qr/trapped/, "a prepared operator does not run with the installer's rights");
isnt($rc, 0, 'and the schema is refused');
($rc, $why) = in_new_database('writable', { first => 'CREATE SCHEMA oauth_vault; GRANT CREATE ON SCHEMA oauth_vault TO app;' });
like($why, qr/schema "oauth_vault" exists and app may create objects in it.*REVOKE CREATE ON SCHEMA oauth_vault FROM app\./s,
	'so is one where somebody can put functions beside ours later');
($rc, $why) = in_new_database('writable_by_all', { first => 'CREATE SCHEMA oauth_vault; GRANT CREATE ON SCHEMA oauth_vault TO PUBLIC;' });
like($why, qr/exists and PUBLIC may create objects in it/, 'or everybody can');
($rc, $why) = in_new_database('squatted', { as_app => 'CREATE SCHEMA oauth_vault;' });
like($why, qr/schema "oauth_vault" exists and belongs to role "app"/, "or somebody else's");

# The installer's own search_path, and an event trigger that is generous
($rc, $why) = in_new_database('generous', { first => q{
	CREATE SCHEMA hostile;
	CREATE FUNCTION hostile.gen_random_uuid() RETURNS uuid LANGUAGE sql AS $$SELECT '00000000-0000-0000-0000-000000000000'::uuid$$;
	CREATE FUNCTION hostile.split_part(text, text, int) RETURNS text LANGUAGE sql AS $$SELECT 'hostile'$$;
	CREATE DOMAIN hostile.text AS pg_catalog.text;
	CREATE TABLE public.asked (tag text);
	CREATE FUNCTION public.generous() RETURNS event_trigger LANGUAGE plpgsql AS $$
	DECLARE r record;
	BEGIN
		FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type IN ('table', 'view') LOOP
			INSERT INTO public.asked VALUES (r.command_tag);
			IF r.command_tag LIKE 'CREATE %' THEN
				EXECUTE format('GRANT ALL ON %s TO PUBLIC', r.object_identity);
			END IF;
		END LOOP;
	END $$;
	CREATE EVENT TRIGGER generous ON ddl_command_end EXECUTE FUNCTION public.generous();},
	session => 'SET search_path = hostile, pg_catalog; CREATE TEMP TABLE connection (x int); CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb;' });
is($why, '', 'a hostile search_path, temporary objects and an event trigger do not keep it from installing') or diag($why);
is($node->safe_psql('generous', "SELECT count(*) > 0 FROM public.asked"), 't', 'the event trigger fired');
is($node->safe_psql('generous', q{SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a
	WHERE c.relnamespace = 'oauth_vault'::regnamespace AND a.grantee = 0}), '0', 'and what it gave away was taken back');
is($node->safe_psql('generous', q{SELECT DISTINCT refobjid::regclass FROM pg_depend
	WHERE classid = 'pg_class'::regclass AND objid = 'oauth_vault.connection'::regclass AND refclassid = 'pg_type'::regclass
		AND refobjid >= 16384}), '', 'no column has a type of somebody else');
is($node->safe_psql('generous', q{SELECT count(*) FROM pg_depend d JOIN pg_proc p ON p.oid = d.refobjid
	WHERE d.refclassid = 'pg_proc'::regclass AND p.pronamespace = 'hostile'::regnamespace}), '0', 'nothing depends on its functions');

$node->stop('fast');
done_testing();
