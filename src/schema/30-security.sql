/*
 * Row security, forced on every table that holds a person's rows.
 *
 * Sessions read and write as oauth_vault_owner, the owner, whom FORCE binds:
 * if a filter is ever forgotten, one person still sees nothing of another's.
 * Administrators' calls and workers run with SECURITY_NOFORCE_RLS (call.c,
 * xact.c).  Persons write connections, their revocations and their own limits;
 * everything else is a worker's, so that persons have policies for reading it.
 */
ALTER TABLE oauth_vault.connection ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person ON oauth_vault.connection
	USING (oauth_vault.row_visible(tenant, user_id))
	WITH CHECK (oauth_vault.row_visible(tenant, user_id));
COMMENT ON POLICY person ON oauth_vault.connection IS 'Own rows';

ALTER TABLE oauth_vault.revocation ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person ON oauth_vault.revocation
	USING (oauth_vault.row_visible(tenant, user_id))
	WITH CHECK (oauth_vault.row_visible(tenant, user_id));
COMMENT ON POLICY person ON oauth_vault.revocation IS 'Own rows';

ALTER TABLE oauth_vault.offboarding ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person ON oauth_vault.offboarding FOR SELECT
	USING (CASE WHEN user_id IS NULL THEN tenant = oauth_vault.session_tenant()
		ELSE oauth_vault.row_visible(tenant, user_id) END);
COMMENT ON POLICY person ON oauth_vault.offboarding IS 'Own rows and those of the whole tenant, to read';

ALTER TABLE oauth_vault.flow ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person ON oauth_vault.flow FOR SELECT
	USING (oauth_vault.row_visible(tenant, user_id));
COMMENT ON POLICY person ON oauth_vault.flow IS 'Own rows, to read';

ALTER TABLE oauth_vault.intent ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person ON oauth_vault.intent FOR SELECT
	USING (EXISTS (SELECT FROM oauth_vault.connection c WHERE c.connection_id = intent.connection_id));
COMMENT ON POLICY person ON oauth_vault.intent IS 'Those of own connections, to read';

ALTER TABLE oauth_vault.grant_inbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person ON oauth_vault.grant_inbox FOR SELECT
	USING (EXISTS (SELECT FROM oauth_vault.connection c WHERE c.connection_id = grant_inbox.connection_id));
COMMENT ON POLICY person ON oauth_vault.grant_inbox IS 'Those of own connections, to read';

ALTER TABLE oauth_vault.scope_policy ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person_reads ON oauth_vault.scope_policy FOR SELECT
	USING (CASE WHEN user_id IS NULL THEN tenant = oauth_vault.session_tenant()
		ELSE oauth_vault.row_visible(tenant, user_id) END);
COMMENT ON POLICY person_reads ON oauth_vault.scope_policy IS 'Own rows and those of the whole tenant, to read';
CREATE POLICY person_limits ON oauth_vault.scope_policy
	USING (own_limit AND oauth_vault.row_visible(tenant, user_id))
	WITH CHECK (own_limit AND oauth_vault.row_visible(tenant, user_id));
COMMENT ON POLICY person_limits ON oauth_vault.scope_policy IS 'The person''s own limits';

ALTER TABLE oauth_vault.vault_key ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person ON oauth_vault.vault_key FOR SELECT
	USING (kind <> 'user' OR oauth_vault.row_visible(tenant, user_id));
COMMENT ON POLICY person ON oauth_vault.vault_key IS 'The own wrapped key, to read; those of connectors belong to nobody';

ALTER TABLE oauth_vault.audit ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person ON oauth_vault.audit FOR SELECT
	USING (oauth_vault.row_visible(tenant, user_id));
COMMENT ON POLICY person ON oauth_vault.audit IS 'Own rows, to read';
CREATE POLICY auditor ON oauth_vault.audit FOR SELECT TO oauth_vault_auditor
	USING (true);
COMMENT ON POLICY auditor ON oauth_vault.audit IS 'Auditors read everything';
ALTER TABLE oauth_vault.audit_head ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY auditor ON oauth_vault.audit_head FOR SELECT TO oauth_vault_auditor
	USING (true);
COMMENT ON POLICY auditor ON oauth_vault.audit_head IS 'Auditors read everything';

/*
 * These hold nobody's rows.  Security on them is for whoever was given the
 * right to write every table (pg_write_all_data): what a connector is, where
 * its secrets go and which database this is, is changed through the functions
 * for administrators or by a superuser.  Forced, because a view that can be
 * written (oauth_connectors) writes as its owner.
 */
ALTER TABLE oauth_vault.home ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY readable ON oauth_vault.home FOR SELECT USING (true);
COMMENT ON POLICY readable ON oauth_vault.home IS 'To read, for whoever may';
ALTER TABLE oauth_vault.provider_builtin ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY readable ON oauth_vault.provider_builtin FOR SELECT USING (true);
COMMENT ON POLICY readable ON oauth_vault.provider_builtin IS 'To read, for whoever may';
ALTER TABLE oauth_vault.provider_site ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY readable ON oauth_vault.provider_site FOR SELECT USING (true);
COMMENT ON POLICY readable ON oauth_vault.provider_site IS 'To read, for whoever may';
ALTER TABLE oauth_vault.connector ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY readable ON oauth_vault.connector FOR SELECT USING (true);
COMMENT ON POLICY readable ON oauth_vault.connector IS 'To read, for whoever may';
ALTER TABLE oauth_vault.key_rotation ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY readable ON oauth_vault.key_rotation FOR SELECT USING (true);
COMMENT ON POLICY readable ON oauth_vault.key_rotation IS 'To read, for whoever may';

/* No sealed value ever enters the planner's statistics. */
ALTER TABLE oauth_vault.connection
	ALTER COLUMN access_token SET STATISTICS 0,
	ALTER COLUMN refresh_token SET STATISTICS 0,
	ALTER COLUMN id_token SET STATISTICS 0,
	ALTER COLUMN superseded SET STATISTICS 0;
ALTER TABLE oauth_vault.revocation
	ALTER COLUMN access_token SET STATISTICS 0,
	ALTER COLUMN refresh_token SET STATISTICS 0;
ALTER TABLE oauth_vault.grant_inbox
	ALTER COLUMN access_token SET STATISTICS 0,
	ALTER COLUMN refresh_token SET STATISTICS 0,
	ALTER COLUMN id_token SET STATISTICS 0;
ALTER TABLE oauth_vault.connector
	ALTER COLUMN client_secret SET STATISTICS 0,
	ALTER COLUMN previous_secret SET STATISTICS 0;
ALTER TABLE oauth_vault.flow
	ALTER COLUMN verifier SET STATISTICS 0;
ALTER TABLE oauth_vault.vault_key
	ALTER COLUMN wrapped SET STATISTICS 0;

/*
 * What pg_dump carries along: a site's data.  Not the built-in catalogue,
 * which comes with the extension's version, and not pending flows, which live
 * ten minutes.  The script itself puts no row into any of these.  The rows of
 * audit are in its partitions, which are no members and dumped as they are.
 */
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.home', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.vault_key', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.vault_key_id', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.key_rotation', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.key_rotation_rotation_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.provider_site', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.connector', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.scope_policy', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.connection', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.intent', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.grant_inbox', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.revocation', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.revocation_revocation_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.offboarding', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.offboarding_offboarding_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.audit_head', '');

/*
 * Everything belongs to oauth_vault_owner, the schema included.  Then rights
 * that ALTER DEFAULT PRIVILEGES gave to anybody else go: what is granted is
 * what these files say.
 */
DO $owner$
DECLARE
	thing	record;
	other	record;
BEGIN
	ALTER SCHEMA oauth_vault OWNER TO oauth_vault_owner;
	FOR thing IN
		SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
			c.oid::pg_catalog.regclass::pg_catalog.text AS name,
			c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend i
				WHERE i.classid = d.classid AND i.objid = c.oid AND i.deptype = 'i') AS follows
		FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid
		WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e'
			AND d.refobjid = (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname = 'oauth_vault')
		UNION ALL
		SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::pg_catalog.text, false
		FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.objid
		WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'
			AND d.refobjid = (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname = 'oauth_vault')
	LOOP
		/* the sequence of an identity column goes with its table */
		IF NOT thing.follows THEN
			EXECUTE pg_catalog.format('ALTER %s %s OWNER TO oauth_vault_owner', thing.kind, thing.name);
		END IF;
	END LOOP;

	FOR other IN
		SELECT DISTINCT CASE o.kind WHEN 'f' THEN 'FUNCTION' ELSE 'TABLE' END AS kind, o.name,
			CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
		FROM (
			SELECT 'r' AS kind, c.oid::pg_catalog.regclass::pg_catalog.text AS name, c.relacl AS acl
			FROM pg_catalog.pg_class c
			WHERE c.relnamespace = 'oauth_vault'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
			UNION ALL
			SELECT 'f', p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proacl
			FROM pg_catalog.pg_proc p
			WHERE p.pronamespace = 'oauth_vault'::pg_catalog.regnamespace) o,
			LATERAL pg_catalog.aclexplode(o.acl) a
		WHERE a.grantee NOT IN ('oauth_vault_owner'::pg_catalog.regrole, 'oauth_vault_user'::pg_catalog.regrole,
			'oauth_vault_admin'::pg_catalog.regrole, 'oauth_vault_auditor'::pg_catalog.regrole)
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', other.kind, other.name, other.grantee);
	END LOOP;

	/*
	 * pg_dump compares with the rights that were noted at the last GRANT,
	 * under the owner before: note them again, or every dump carries them.
	 */
	FOR other IN
		SELECT 'TABLE' AS kind, c.oid::pg_catalog.regclass::pg_catalog.text AS name
		FROM pg_catalog.pg_class c
		WHERE c.relnamespace = 'oauth_vault'::pg_catalog.regnamespace AND c.relacl IS NOT NULL
		UNION ALL
		SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::pg_catalog.text
		FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'oauth_vault'::pg_catalog.regnamespace
	LOOP
		EXECUTE pg_catalog.format('GRANT ALL ON %s %s TO oauth_vault_owner', other.kind, other.name);
	END LOOP;
END
$owner$;

GRANT USAGE ON SCHEMA oauth_vault TO oauth_vault_user, oauth_vault_admin, oauth_vault_auditor;
COMMENT ON SCHEMA oauth_vault IS 'per-user OAuth tokens (extension oauth_vault)';
