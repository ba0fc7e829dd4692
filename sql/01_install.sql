-- What CREATE EXTENSION leaves behind.
DO $$
BEGIN
	IF current_setting('shared_preload_libraries') !~ '\moauth_vault\M' THEN
		RAISE EXCEPTION 'these tests need a server with shared_preload_libraries = ''oauth_vault'''
			USING HINT = 'They also need oauth_vault.vault_file to name a vault file made with --source role.';
	END IF;
END
$$;
CREATE EXTENSION oauth_vault;
SELECT source FROM oauth_vault.oauth_whoami();
-- and nothing else
SELECT * FROM oauth_vault.oauth_selfcheck;

-- Members of the extension, to look at the rest through
CREATE VIEW public.members AS
	SELECT d.classid::regclass AS catalogue, d.objid AS oid,
		pg_describe_object(d.classid, d.objid, 0) AS object
	FROM pg_depend d
	WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'oauth_vault');
-- (to newer servers row types are members too)
SELECT catalogue, count(*) > 0 AS some FROM public.members
	WHERE catalogue <> 'pg_type'::regclass GROUP BY 1 ORDER BY catalogue::text;

-- Every object says what it is for
SELECT object FROM public.members m
	WHERE obj_description(m.oid, m.catalogue::text) IS NULL
		AND catalogue <> 'pg_type'::regclass
		AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.objid = m.oid AND i.deptype = 'i')
	ORDER BY 1;
SELECT p.polname, p.polrelid::regclass FROM pg_policy p
	WHERE obj_description(p.oid, 'pg_policy') IS NULL AND p.polrelid::regclass::text LIKE 'oauth_vault.%';
SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'oauth_vault';

SELECT obj_description('oauth_vault'::regnamespace, 'pg_namespace');
SELECT rolname FROM pg_roles WHERE rolname LIKE 'oauth\_vault\_%' AND shobj_description(oid, 'pg_authid') IS NULL;

-- Everything belongs to oauth_vault_owner, the schema included
SELECT object FROM public.members m
	WHERE CASE catalogue::text
		WHEN 'pg_class' THEN (SELECT relowner FROM pg_class c WHERE c.oid = m.oid)
		WHEN 'pg_proc' THEN (SELECT proowner FROM pg_proc p WHERE p.oid = m.oid)
		WHEN 'pg_type' THEN (SELECT typowner FROM pg_type t WHERE t.oid = m.oid)
	END IS DISTINCT FROM 'oauth_vault_owner'::regrole
	ORDER BY 1;
SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'oauth_vault';

-- Nothing is granted to PUBLIC
SELECT object FROM public.members m, LATERAL aclexplode(CASE catalogue::text
		WHEN 'pg_class' THEN (SELECT coalesce(relacl, acldefault('r', relowner)) FROM pg_class c WHERE c.oid = m.oid)
		WHEN 'pg_proc' THEN (SELECT coalesce(proacl, acldefault('f', proowner)) FROM pg_proc p WHERE p.oid = m.oid)
	END) a
	WHERE a.grantee = 0 ORDER BY 1;
SELECT a.grantee::regrole, a.privilege_type FROM pg_namespace n, LATERAL aclexplode(nspacl) a
	WHERE nspname = 'oauth_vault' AND a.grantee <> nspowner ORDER BY 1;

-- Every function is C, VOLATILE, PARALLEL UNSAFE and not STRICT, but for the pure one; an auditor's reports may be SQL
SELECT p.proname, l.lanname, p.provolatile, p.proparallel, p.proisstrict, p.prosecdef, p.proleakproof
	FROM public.members m JOIN pg_proc p ON p.oid = m.oid AND m.catalogue = 'pg_proc'::regclass
		JOIN pg_language l ON l.oid = p.prolang
	WHERE (l.lanname <> 'c' AND p.proname !~ '^(oauth_report|oauth_review|report)') OR p.provolatile <> 'v' OR p.proparallel <> 'u' OR p.proisstrict OR p.prosecdef
		OR p.proleakproof
	ORDER BY 1;

-- Every call of a person's session takes the assertion last
SELECT p.proname, p.proargnames[p.pronargs] FROM pg_proc p
	WHERE p.pronamespace = 'oauth_vault'::regnamespace
		AND has_function_privilege('oauth_vault_user', p.oid, 'EXECUTE')
		AND p.proname LIKE 'oauth\_%' AND p.proargnames[p.pronargs] IS DISTINCT FROM 'assertion'
	ORDER BY 1;

-- The roles
SELECT rolname, rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls
	FROM pg_roles WHERE rolname LIKE 'oauth\_vault\_%' ORDER BY 1;

-- No sealed column enters the planner's statistics
SELECT attrelid::regclass, attname FROM pg_attribute
	WHERE attrelid IN (SELECT oid FROM public.members WHERE catalogue = 'pg_class'::regclass)
		AND attname IN ('access_token', 'refresh_token', 'id_token', 'client_secret', 'previous_secret', 'verifier', 'wrapped', 'superseded')
		AND attstattarget IS DISTINCT FROM 0
	ORDER BY 1, 2;

-- What pg_dump takes along; every other table, and why not
SELECT c.oid::regclass AS not_dumped FROM pg_class c
	WHERE c.relnamespace = 'oauth_vault'::regnamespace AND c.relkind IN ('r', 'S')
		AND NOT c.oid = ANY ((SELECT extconfig FROM pg_extension WHERE extname = 'oauth_vault')::oid[])
	ORDER BY c.oid::regclass::text COLLATE "C";
SELECT w AS condition FROM pg_extension, unnest(extcondition) w WHERE extname = 'oauth_vault' AND w <> '';

-- The catalogue is there; nothing else has a row
SELECT count(*) > 0 AS catalogue FROM oauth_vault.provider_builtin;
SELECT (SELECT count(*) FROM oauth_vault.home) + (SELECT count(*) FROM oauth_vault.vault_key)
	+ (SELECT count(*) FROM oauth_vault.provider_site) + (SELECT count(*) FROM oauth_vault.connector)
	+ (SELECT count(*) FROM oauth_vault.connection) AS rows;

-- It cannot be loaded by hand, twice, or elsewhere
CREATE EXTENSION oauth_vault;
ALTER EXTENSION oauth_vault SET SCHEMA public;

DROP VIEW public.members;
