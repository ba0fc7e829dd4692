/*
 * What this script has made, kept so that it can be compared with what is there:
 * functions, views, tables, row security, rights, roles, the built-in catalogue.
 * Written by the script's last statement.  Whoever can change what it guards can
 * change the manifest as well: it shows what was done without thought of it, and
 * what came with a restore.  It is not dumped: each installation writes its own.
 */
CREATE TABLE oauth_vault.manifest (
	object				text COLLATE "C",
	field				text COLLATE "C",
	value				text COLLATE "C" NOT NULL,
	PRIMARY KEY (object, field)
);
COMMENT ON TABLE oauth_vault.manifest IS 'What the install script has made, for oauth_selfcheck';
ALTER TABLE oauth_vault.manifest ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY readable ON oauth_vault.manifest FOR SELECT USING (true);
COMMENT ON POLICY readable ON oauth_vault.manifest IS 'To read, for whoever may';

/* Rights but the owner's, in an order of their own: a GRANT again is no difference */
CREATE FUNCTION oauth_vault.rights(acl aclitem[], owner oid) RETURNS text
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce(string_agg(concat(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END, ' ', a.privilege_type,
			CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END), ', ' ORDER BY a.grantee = 0, pg_get_userbyid(a.grantee), a.privilege_type), '')
	FROM aclexplode(acl) a WHERE a.grantee OPERATOR(pg_catalog.<>) owner
$$;
REVOKE ALL ON FUNCTION oauth_vault.rights(aclitem[], oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.rights(aclitem[], oid) TO oauth_vault_admin, oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.rights(aclitem[], oid) IS
	'Who else than its owner may do what with an object';

CREATE FUNCTION oauth_vault.catalogue_state() RETURNS TABLE (object text, field text, value text)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
	WITH rel AS (
		SELECT c.*, CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' ELSE 'table' END AS kind
		FROM pg_catalog.pg_class c WHERE c.relnamespace = 'oauth_vault'::regnamespace AND NOT c.relispartition
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class p ON p.oid = x.indrelid WHERE x.indexrelid = c.oid AND p.relispartition)),
	everything AS (
		SELECT concat('schema ', n.nspname) AS object, v.field, v.value
		FROM pg_catalog.pg_namespace n, LATERAL (VALUES ('owner', pg_get_userbyid(n.nspowner)::text), ('rights', oauth_vault.rights(n.nspacl, n.nspowner))) v (field, value)
		WHERE n.nspname = 'oauth_vault'
		UNION ALL
		SELECT concat('role ', r.rolname), v.field, v.value
		FROM pg_catalog.pg_roles r, LATERAL (VALUES
			('attributes', concat_ws(' ', CASE WHEN r.rolcanlogin THEN 'LOGIN' END, CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
				CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END)),
			('member of', coalesce((SELECT string_agg(pg_get_userbyid(m.roleid), ', ' ORDER BY pg_get_userbyid(m.roleid)) FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid), '')),
			('members', CASE r.rolname WHEN 'oauth_vault_owner' THEN
				coalesce((SELECT string_agg(pg_get_userbyid(m.member), ', ' ORDER BY pg_get_userbyid(m.member)) FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid), '') END)) v (field, value)
		WHERE r.rolname IN ('oauth_vault_owner', 'oauth_vault_user', 'oauth_vault_admin', 'oauth_vault_auditor')
		UNION ALL
		SELECT concat('function ', p.proname, '(', pg_get_function_identity_arguments(p.oid), ')'), v.field, v.value
		FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang, LATERAL (VALUES
			('owner', pg_get_userbyid(p.proowner)::text),
			('rights', CASE WHEN p.proacl IS NULL THEN 'PUBLIC EXECUTE' ELSE oauth_vault.rights(p.proacl, p.proowner) END),
			('body', concat_ws(' ', l.lanname, p.probin, p.prosrc, pg_get_function_sqlbody(p.oid))),
			('attributes', concat_ws(' ', p.prokind, p.provolatile, p.proparallel, p.proisstrict, p.prosecdef, p.proleakproof, p.proretset, p.prorettype::regtype)),
			('settings', coalesce(array_to_string(p.proconfig, ', '), ''))) v (field, value)
		WHERE p.pronamespace = 'oauth_vault'::regnamespace
		UNION ALL
		SELECT concat(c.kind, ' ', c.relname), v.field, v.value
		FROM rel c, LATERAL (VALUES
			('owner', pg_get_userbyid(c.relowner)::text), ('rights', oauth_vault.rights(c.relacl, c.relowner)),
			('row security', CASE WHEN c.relkind IN ('r', 'p') THEN concat_ws(' ', CASE WHEN c.relrowsecurity THEN 'on' ELSE 'off' END, CASE WHEN c.relforcerowsecurity THEN 'forced' END) END),
			('options', coalesce(array_to_string(c.reloptions, ', '), '')),
			('definition', CASE c.kind WHEN 'view' THEN pg_get_viewdef(c.oid) WHEN 'index' THEN pg_get_indexdef(c.oid) END)) v (field, value)
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I')
		UNION ALL
		SELECT concat('column ', c.relname, '.', a.attname), v.field, v.value
		FROM rel c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum,
			LATERAL (VALUES ('type', concat(format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' not null' END)),
				('rights', oauth_vault.rights(a.attacl, c.relowner)), ('definition', coalesce(pg_get_expr(d.adbin, c.oid), ''))) v (field, value)
		WHERE c.relkind IN ('r', 'p')
		UNION ALL
		SELECT concat('policy ', c.relname, '.', p.polname), v.field, v.value
		FROM rel c JOIN pg_catalog.pg_policy p ON p.polrelid = c.oid, LATERAL (VALUES
			('attributes', concat_ws(' ', p.polcmd, CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,
				(SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(r) END, ', ' ORDER BY r) FROM unnest(p.polroles) r))),
			('definition', concat('USING ', pg_get_expr(p.polqual, c.oid), ' WITH CHECK ', pg_get_expr(p.polwithcheck, c.oid)))) v (field, value)
		UNION ALL
		SELECT concat('trigger ', c.relname, '.', t.tgname), 'definition', concat(t.tgenabled, ' ', pg_get_triggerdef(t.oid))
		FROM rel c JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
		UNION ALL
		SELECT concat('triggers of constraints of ', c.relname), 'attributes', string_agg(DISTINCT t.tgenabled::text, ' ' ORDER BY t.tgenabled::text)
		FROM rel c JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid AND t.tgisinternal GROUP BY c.relname
		UNION ALL
		SELECT concat('rule ', c.relname, '.', r.rulename), 'definition', concat(r.ev_enabled, ' ', pg_get_ruledef(r.oid))
		FROM rel c JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid AND r.rulename <> '_RETURN'
		UNION ALL
		SELECT concat('constraint ', c.relname, '.', k.conname), 'definition', pg_get_constraintdef(k.oid)
		FROM rel c JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f', 'c', 'x')
		UNION ALL
		SELECT pg_describe_object(d.classid, d.objid, d.objsubid), 'attributes', 'is in the schema'
		FROM pg_catalog.pg_depend d
		WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = 'oauth_vault'::regnamespace
			AND d.classid NOT IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_extension'::regclass)
		UNION ALL
		SELECT 'extension oauth_vault', v.field, v.value
		FROM pg_catalog.pg_extension e, LATERAL (VALUES ('version', e.extversion), ('owner', pg_get_userbyid(e.extowner)::text)) v (field, value)
		WHERE e.extname = 'oauth_vault'
		UNION ALL
		SELECT 'PostgreSQL', 'version', (current_setting('server_version_num')::integer / 10000)::text)
	SELECT e.object, e.field, e.value FROM everything e WHERE e.value IS NOT NULL
$$;
REVOKE ALL ON FUNCTION oauth_vault.catalogue_state() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.catalogue_state() TO oauth_vault_admin, oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.catalogue_state() IS
	'What the catalogue says of the extension''s objects now, for oauth_selfcheck';

CREATE VIEW oauth_vault.present_state WITH (security_barrier = true) AS
	SELECT s.object, s.field, s.value FROM oauth_vault.catalogue_state() s
	UNION ALL
	SELECT 'provider ' || b.name, 'rules', encode(sha256(convert_to(b.rules::text, 'UTF8')), 'hex') FROM oauth_vault.provider_builtin b;
COMMENT ON VIEW oauth_vault.present_state IS
	'What there is, in the terms of the manifest';

/* Another major version writes definitions in other words: they are not compared then. */
CREATE VIEW oauth_vault.oauth_selfcheck WITH (security_barrier = true) AS
	SELECT coalesce(m.object, s.object) AS object,
		coalesce(m.field, s.field) AS field,
		m.value AS expected,
		s.value AS found
	FROM oauth_vault.manifest m
		FULL JOIN oauth_vault.present_state s ON s.object = m.object AND s.field = m.field
	WHERE m.value IS DISTINCT FROM s.value
		AND (m.value IS NULL OR s.value IS NULL OR coalesce(m.field, s.field) <> 'definition'
			OR EXISTS (SELECT FROM oauth_vault.manifest p WHERE p.object = 'PostgreSQL'
				AND p.value = (current_setting('server_version_num')::integer / 10000)::text));
COMMENT ON VIEW oauth_vault.oauth_selfcheck IS
	'What differs from what the install script has made: no row, if all is as it should be';
GRANT SELECT ON oauth_vault.oauth_selfcheck TO oauth_vault_admin, oauth_vault_auditor;
