-- Which role may do what: the catalogue against a table of decisions.  A new
-- function, view or table without a decision shows up as a difference.
-- A row in the audit trail, and so a partition
SELECT oauth_vault.oauth_set_provider('google', '{"display_name": "First"}');
SELECT oauth_vault.oauth_drop_provider('google');
CREATE TEMP TABLE decided (object text PRIMARY KEY, allowed text[] NOT NULL);
INSERT INTO decided VALUES
	('oauth_begin', '{user}'), ('oauth_callback', '{user}'), ('oauth_complete', '{user}'),
	('oauth_credential', '{user}'), ('oauth_fresh_token', '{user}'), ('oauth_fresh_tokens', '{user}'),
	('oauth_identify', '{user}'), ('oauth_identify_request', '{user}'), ('oauth_report_rejected', '{user}'),
	('oauth_revoke', '{user}'), ('oauth_set_my_limit', '{user}'), ('oauth_whoami', '{user}'),
	('oauth_unfreeze_actor', '{admin}'), ('oauth_frozen_actors', '{admin}'), ('frozen_actors', '{admin}'),
	('oauth_alter_connector', '{admin}'), ('oauth_claim', '{admin}'), ('oauth_create_connector', '{admin}'),
	('oauth_explain', '{admin}'), ('oauth_refresh', '{admin}'), ('oauth_metrics', '{admin}'), ('vault_metrics', '{admin}'),
	('oauth_revoke_connection', '{admin}'), ('oauth_revoke_connections', '{admin}'), ('oauth_offboard', '{admin}'),
	('oauth_offboard_tenant', '{admin}'), ('oauth_offboard_connector', '{admin}'), ('oauth_onboard', '{admin}'),
	('oauth_onboard_tenant', '{admin}'), ('offboardings', '{admin,auditor}'), ('oauth_offboarding', '{admin,auditor}'),
	('oauth_events', '{admin}'), ('oauth_events_done', '{admin}'), ('note_event', '{}'), ('event_pending', '{}'), ('event', '{}'),
	('event_consumer', '{}'), ('event_pending_pending_id_seq', '{}'),
	('offboarding', '{}'), ('offboarding_offboarding_id_seq', '{}'),
	('oauth_hosts', '{admin}'), ('vault_hosts', '{admin}'), ('oauth_metrics_text', '{admin}'),
	('oauth_discover', '{admin}'), ('oauth_drop_connector', '{admin}'), ('oauth_drop_provider', '{admin}'),
	('oauth_rotate_keys', '{admin}'), ('platform_keys', '{admin}'), ('oauth_platform_keys', '{admin}'),
	('oauth_key_rotation', '{admin}'), ('key_rotation', '{}'), ('key_rotation_rotation_id_seq', '{}'),
	('oauth_import_connection', '{admin}'), ('oauth_import_connections', '{admin}'),
	('oauth_set_client_secret', '{admin}'), ('oauth_set_provider', '{admin}'), ('oauth_set_scope_policy', '{admin}'),
	('oauth_selfcheck', '{admin,auditor}'), ('catalogue_state', '{admin,auditor}'), ('rights', '{admin,auditor}'),
	('present_state', '{}'), ('manifest', '{}'),
	('merge_patch', '{admin}'), ('vault_held', '{user,admin}'), ('vault_status', '{admin,auditor}'),
	('invalidate', '{}'), ('row_visible', '{user,admin,auditor}'), ('session_tenant', '{user,admin,auditor}'),
	('session_user_id', '{user,admin,auditor}'),
	('oauth_connections', '{user}'), ('oauth_reauth_prompts', '{user}'), ('oauth_my_access', '{user}'),
	('oauth_connectors', '{admin}'), ('oauth_providers', '{admin}'), ('oauth_status', '{admin}'),
	('oauth_audit_verify', '{auditor}'), ('oauth_audit', '{auditor}'), ('audit', '{auditor}'), ('oauth_audit_heads', '{auditor}'),
	('audit_head', '{auditor}'),
	('oauth_review', '{auditor}'), ('oauth_report_access', '{auditor}'), ('oauth_report_privileges', '{auditor}'),
	('oauth_report_provisioning', '{auditor}'), ('oauth_report_deprovisioning', '{auditor}'), ('oauth_report_timing', '{auditor}'),
	('oauth_report_scopes', '{auditor}'), ('oauth_report_crypto', '{auditor}'), ('oauth_report_configuration', '{auditor}'),
	('oauth_report_security_events', '{auditor}'), ('oauth_report_person', '{auditor}'), ('oauth_report_json', '{auditor}'),
	('report_connections', '{auditor}'), ('report_connectors', '{auditor}'), ('report_revocations', '{auditor}'),
	('report_policies', '{auditor}'), ('report_keys', '{auditor}'), ('report_sealed', '{auditor}'), ('report_vault', '{auditor}'),
	('report_grants', '{auditor}'),
	('connection', '{}'), ('connector', '{}'), ('flow', '{}'), ('grant_inbox', '{}'),
	('home', '{}'), ('intent', '{}'), ('provider_builtin', '{}'), ('provider_site', '{}'), ('revocation', '{}'),
	('revocation_revocation_id_seq', '{}'), ('scope_policy', '{}'), ('vault_key', '{}'), ('vault_key_id', '{}');

CREATE TEMP VIEW found AS
	SELECT o.object, ARRAY(SELECT w FROM unnest('{user,admin,auditor}'::text[]) w
		WHERE CASE o.kind
			WHEN 'f' THEN has_function_privilege('oauth_vault_' || w, o.oid, 'EXECUTE')
			WHEN 'S' THEN has_sequence_privilege('oauth_vault_' || w, o.oid, 'USAGE, SELECT, UPDATE')
			ELSE has_table_privilege('oauth_vault_' || w, o.oid, 'SELECT')
				OR has_any_column_privilege('oauth_vault_' || w, o.oid, 'SELECT')
		END) AS allowed
	FROM (SELECT proname AS object, oid, 'f'::"char" AS kind FROM pg_proc WHERE pronamespace = 'oauth_vault'::regnamespace
		UNION ALL
		SELECT relname, oid, relkind FROM pg_class
		WHERE relnamespace = 'oauth_vault'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT relispartition) o;
SELECT object, d.allowed AS decided, f.allowed AS found
	FROM decided d FULL JOIN found f USING (object)
	WHERE d.allowed IS DISTINCT FROM f.allowed ORDER BY object;

-- Nobody writes past the functions
SELECT w AS role, c.oid::regclass AS object FROM unnest('{user,admin,auditor}'::text[]) w, pg_class c
	WHERE c.relnamespace = 'oauth_vault'::regnamespace AND c.relkind IN ('r', 'p', 'v')
		AND (has_table_privilege('oauth_vault_' || w, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
			OR has_any_column_privilege('oauth_vault_' || w, c.oid, 'INSERT, UPDATE, REFERENCES'));
-- nor is there anything at a partition of the trail, by any name
SELECT w AS role, c.oid::regclass AS object FROM unnest('{user,admin,auditor}'::text[]) w, pg_class c
	WHERE c.relnamespace = 'oauth_vault'::regnamespace AND c.relispartition
		AND has_table_privilege('oauth_vault_' || w, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER');
SELECT w AS role FROM unnest('{user,admin,auditor}'::text[]) w
	WHERE has_schema_privilege('oauth_vault_' || w, 'oauth_vault', 'CREATE');

-- No view shows anything sealed
SELECT a.attrelid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
	WHERE c.relnamespace = 'oauth_vault'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
		AND a.atttypid = 'bytea'::regtype;
-- and each is a security barrier
SELECT oid::regclass, reloptions FROM pg_class
	WHERE relnamespace = 'oauth_vault'::regnamespace AND relkind = 'v'
		AND NOT coalesce(reloptions @> '{security_barrier=true}', false);

-- PostgreSQL's own roles: two read or write every table and sequence, the others nothing here
SELECT r.rolname, string_agg(DISTINCT o.what, ', ' ORDER BY o.what) AS may
	FROM pg_roles r, LATERAL (
		SELECT p || ' on ' || CASE c.relkind WHEN 'v' THEN 'views' ELSE 'tables' END FROM pg_class c,
			unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
			WHERE c.relnamespace = 'oauth_vault'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND has_table_privilege(r.oid, c.oid, p)
		UNION ALL
		SELECT p || ' on sequences' FROM pg_class c, unnest('{SELECT,USAGE,UPDATE}'::text[]) p
			WHERE c.relnamespace = 'oauth_vault'::regnamespace AND c.relkind = 'S' AND has_sequence_privilege(r.oid, c.oid, p)
		UNION ALL
		SELECT 'EXECUTE ' || p.proname FROM pg_proc p
			WHERE p.pronamespace = 'oauth_vault'::regnamespace AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
		UNION ALL
		SELECT p || ' on schema' FROM unnest('{USAGE,CREATE}'::text[]) p WHERE has_schema_privilege(r.oid, 'oauth_vault', p)) o (what)
	WHERE r.rolname ~ '^pg_' GROUP BY r.rolname ORDER BY r.rolname COLLATE "C";
-- What is nobody's row is out of their reach too, also through views
SELECT c.oid::regclass FROM pg_class c
	WHERE relnamespace = 'oauth_vault'::regnamespace AND relkind IN ('r', 'p')
		AND NOT (relrowsecurity AND relforcerowsecurity);
SELECT table_name FROM information_schema.views
	WHERE table_schema = 'oauth_vault' AND 'YES' IN (is_updatable, is_insertable_into) ORDER BY table_name;
BEGIN;
INSERT INTO oauth_vault.connector (name, provider, client_id, key_id, redirect_uris) VALUES ('kept', 'oidc', 'x', 0, '{https://app.example/cb}');
CREATE ROLE regress_ov_writer IN ROLE pg_write_all_data, pg_read_all_data;
SET LOCAL ROLE regress_ov_writer;
WITH u AS (UPDATE oauth_vault.connector SET metadata = '{"token_endpoint": "https://evil.example/"}' RETURNING 1) SELECT count(*) FROM u;
WITH u AS (UPDATE oauth_vault.oauth_connectors SET metadata = '{"token_endpoint": "https://evil.example/"}' RETURNING 1) SELECT count(*) FROM u;
WITH u AS (UPDATE oauth_vault.provider_builtin SET rules = '{}' RETURNING 1) SELECT count(*) FROM u;
WITH d AS (DELETE FROM oauth_vault.home RETURNING 1) SELECT count(*) FROM d;
SAVEPOINT s;
INSERT INTO oauth_vault.provider_site (name, rules) VALUES ('oidc', '{"token": {"url": "https://evil.example/"}}');
ROLLBACK TO s;
WITH d AS (DELETE FROM oauth_vault.oauth_audit RETURNING 1) SELECT count(*) FROM d;
DELETE FROM oauth_vault.oauth_my_access;
ROLLBACK TO s;
DELETE FROM oauth_vault.connection;
ROLLBACK TO s;
INSERT INTO oauth_vault.audit (audit_id, at, event, outcome, recorded_at, hash) VALUES (-1, now(), 'token_access', 'ok', now(), '');
ROLLBACK;

-- Granting one role is all that a backend needs; it gets nothing else by it
CREATE ROLE regress_ov_app IN ROLE oauth_vault_user;
SET ROLE regress_ov_app;
SELECT user_id, source FROM oauth_vault.oauth_whoami();
SELECT count(*) FROM oauth_vault.oauth_connections;
SELECT count(*) FROM oauth_vault.connection;
SELECT count(*) FROM oauth_vault.oauth_connectors;
SELECT count(*) FROM oauth_vault.oauth_audit;
SELECT oauth_vault.oauth_drop_connector('x');
RESET ROLE;
CREATE ROLE regress_ov_nobody;
SET ROLE regress_ov_nobody;
SELECT * FROM oauth_vault.oauth_whoami();
RESET ROLE;

-- Neither does reading everything read through row security
CREATE ROLE regress_ov_reader IN ROLE pg_read_all_data;
SET ROLE regress_ov_reader;
SELECT count(*) FROM oauth_vault.connection;
SELECT count(*) FROM oauth_vault.oauth_audit;
RESET ROLE;
DROP ROLE regress_ov_app, regress_ov_nobody, regress_ov_reader;
