-- Dropping and making it again; the roles stay, and are looked at each time.
DROP EXTENSION oauth_vault;
SELECT count(*) FROM pg_roles WHERE rolname LIKE 'oauth\_vault\_%';
SELECT nspname, nspowner::regrole FROM pg_namespace WHERE nspname = 'oauth_vault';
SELECT count(*) FROM pg_class WHERE relnamespace = 'oauth_vault'::regnamespace;

\set SHOW_CONTEXT never
-- A role that is more than what we would have made
BEGIN;
ALTER ROLE oauth_vault_user LOGIN;
CREATE EXTENSION oauth_vault;
ROLLBACK;
BEGIN;
ALTER ROLE oauth_vault_owner SUPERUSER;
CREATE EXTENSION oauth_vault;
ROLLBACK;
BEGIN;
ALTER ROLE oauth_vault_admin CREATEROLE;
CREATE EXTENSION oauth_vault;
ROLLBACK;
BEGIN;
ALTER ROLE oauth_vault_admin CREATEDB;
CREATE EXTENSION oauth_vault;
ROLLBACK;
BEGIN;
ALTER ROLE oauth_vault_auditor REPLICATION;
CREATE EXTENSION oauth_vault;
ROLLBACK;
BEGIN;
ALTER ROLE oauth_vault_owner BYPASSRLS;
CREATE EXTENSION oauth_vault;
ROLLBACK;
BEGIN;
CREATE ROLE regress_ov_member IN ROLE oauth_vault_owner;
CREATE EXTENSION oauth_vault;
ROLLBACK;
BEGIN;
GRANT oauth_vault_admin TO oauth_vault_user;
CREATE EXTENSION oauth_vault;
ROLLBACK;
BEGIN;
GRANT pg_read_all_data TO oauth_vault_auditor;
CREATE EXTENSION oauth_vault;
ROLLBACK;

-- A schema that somebody has prepared
BEGIN;
CREATE ROLE regress_ov_squatter;
ALTER SCHEMA oauth_vault OWNER TO regress_ov_squatter;
CREATE EXTENSION oauth_vault;
ROLLBACK;
BEGIN;
CREATE FUNCTION oauth_vault.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.now()';
CREATE EXTENSION oauth_vault;
ROLLBACK;

-- Default privileges of the site give nobody anything of ours
BEGIN;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_ov_admin;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO regress_ov_admin;
CREATE EXTENSION oauth_vault;
SELECT c.oid::regclass AS object, a.grantee::regrole FROM pg_class c, LATERAL aclexplode(relacl) a
	WHERE relnamespace = 'oauth_vault'::regnamespace AND a.grantee IN (0, 'regress_ov_admin'::regrole);
SELECT p.oid::regprocedure AS object, a.grantee::regrole FROM pg_proc p, LATERAL aclexplode(proacl) a
	WHERE pronamespace = 'oauth_vault'::regnamespace AND a.grantee IN (0, 'regress_ov_admin'::regrole);
ROLLBACK;

-- And it is whole again: with new workers, in the old schema or a new one
DROP SCHEMA oauth_vault;
CREATE EXTENSION oauth_vault;
SET ROLE regress_ov_admin;
SELECT oauth_vault.oauth_create_connector('again', 'google', 'client', 'secret', 'https://app.example/cb') IS NOT NULL AS created;
RESET ROLE;
SELECT event, connector FROM oauth_vault.oauth_audit;
DROP EXTENSION oauth_vault;
DROP SCHEMA oauth_vault;
DROP ROLE regress_ov_admin;
