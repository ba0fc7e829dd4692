\echo Use "CREATE EXTENSION oauth_vault" to load this file. \quit

/*
 * CREATE EXTENSION puts our schema first in search_path, and somebody may have
 * prepared it: until the second guard has looked, nothing in it may be found,
 * an operator least of all.  Ends with the script.
 */
SET LOCAL search_path = pg_catalog, pg_temp;

/*
 * Roles.  Cluster-wide, made if absent, never members of the extension: they
 * outlive DROP EXTENSION and may serve other databases.  A role that is there
 * already is taken only if it is what we would have made, because everything
 * below trusts them: the owner has no members, nobody logs in as any of them,
 * and none of them has a second way to get at data.
 */
DO $guard$
DECLARE
	wanted	text;
	there	record;
	wrong	text;
BEGIN
	FOREACH wanted IN ARRAY ARRAY['oauth_vault_owner', 'oauth_vault_user', 'oauth_vault_admin', 'oauth_vault_auditor']
	LOOP
		SELECT * INTO there FROM pg_catalog.pg_roles WHERE rolname = wanted;
		IF NOT FOUND THEN
			EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
			EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', wanted, CASE wanted
				WHEN 'oauth_vault_owner' THEN 'owns the objects of oauth_vault; has no members'
				WHEN 'oauth_vault_user' THEN 'may use one''s own connections'
				WHEN 'oauth_vault_admin' THEN 'may register connectors and set policies, but read no token'
				ELSE 'may read the audit trail' END);
			CONTINUE;
		END IF;
		wrong := CASE
			WHEN there.rolsuper THEN 'SUPERUSER'
			WHEN there.rolcanlogin THEN 'LOGIN'
			WHEN there.rolcreaterole THEN 'CREATEROLE'
			WHEN there.rolcreatedb THEN 'CREATEDB'
			WHEN there.rolreplication THEN 'REPLICATION'
			WHEN there.rolbypassrls THEN 'BYPASSRLS'
		END;
		IF wrong IS NOT NULL THEN
			RAISE EXCEPTION 'role "%" exists and has the attribute %', wanted, wrong
				USING ERRCODE = 'object_not_in_prerequisite_state',
					HINT = pg_catalog.format('Run ALTER ROLE %I NO%s, or drop the role.', wanted, wrong);
		END IF;
		SELECT pg_catalog.pg_get_userbyid(m.roleid) INTO wrong
			FROM pg_catalog.pg_auth_members m WHERE m.member = there.oid LIMIT 1;
		IF FOUND THEN
			RAISE EXCEPTION 'role "%" exists and is a member of role "%"', wanted, wrong
				USING ERRCODE = 'object_not_in_prerequisite_state',
					HINT = pg_catalog.format('Run REVOKE %I FROM %I.', wrong, wanted);
		END IF;
		IF wanted = 'oauth_vault_owner' THEN
			SELECT pg_catalog.pg_get_userbyid(m.member) INTO wrong
				FROM pg_catalog.pg_auth_members m WHERE m.roleid = there.oid LIMIT 1;
			IF FOUND THEN
				RAISE EXCEPTION 'role "%" exists and has the member "%"', wanted, wrong
					USING ERRCODE = 'object_not_in_prerequisite_state',
						HINT = pg_catalog.format('Run REVOKE %I FROM %I.', wanted, wrong);
			END IF;
		END IF;
	END LOOP;
END
$guard$;

/*
 * The schema may be there already (DROP EXTENSION leaves it, a restore makes
 * it first), but not with objects that somebody has prepared for us, nor where
 * somebody could add some: an overload of a function takes the caller's secret.
 */
DO $guard$
DECLARE
	schema	record;
	thing	text;
BEGIN
	SELECT n.oid, n.nspowner INTO STRICT schema FROM pg_catalog.pg_namespace n WHERE n.nspname = 'oauth_vault';
	IF NOT (SELECT r.rolsuper OR r.rolname = 'oauth_vault_owner' FROM pg_catalog.pg_roles r WHERE r.oid = schema.nspowner) THEN
		RAISE EXCEPTION 'schema "oauth_vault" exists and belongs to role "%"', pg_catalog.pg_get_userbyid(schema.nspowner)
			USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = 'Drop the schema, or run ALTER SCHEMA oauth_vault OWNER TO oauth_vault_owner.';
	END IF;
	SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END INTO thing
		FROM pg_catalog.pg_namespace n, LATERAL pg_catalog.aclexplode(n.nspacl) a
		WHERE n.oid = schema.oid AND a.privilege_type = 'CREATE'
			AND a.grantee NOT IN (n.nspowner, (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = 'oauth_vault_owner'))
		LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'schema "oauth_vault" exists and % may create objects in it', thing
			USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = pg_catalog.format('Run REVOKE CREATE ON SCHEMA oauth_vault FROM %s.', thing);
	END IF;
	SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) INTO thing
		FROM pg_catalog.pg_depend d
		WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = schema.oid
			AND d.classid NOT IN ('pg_catalog.pg_extension'::pg_catalog.regclass, 'pg_catalog.pg_default_acl'::pg_catalog.regclass)
		LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'schema "oauth_vault" exists and contains %', thing
			USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = 'The schema must be empty: move or drop what is in it.';
	END IF;
END
$guard$;
