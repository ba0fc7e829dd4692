-- Row security by itself: with the filters of the views and functions out of
-- the way, a person sees own rows and nobody sees anything without being one.
CREATE ROLE regress_ov_ada IN ROLE oauth_vault_user;
CREATE ROLE regress_ov_mallory IN ROLE oauth_vault_user;

SELECT c.oid::regclass AS forced FROM pg_class c
	WHERE c.relnamespace = 'oauth_vault'::regnamespace AND relrowsecurity AND relforcerowsecurity ORDER BY c.oid::regclass::text COLLATE "C";

BEGIN;
SELECT nextval('oauth_vault.vault_key_id') > 0;
INSERT INTO oauth_vault.vault_key (key_id, kind, tenant, user_id, connector_id, platform_version, wrapped) VALUES
	(-1, 'connector', '', '', '00000000-0000-4000-8000-000000000001', 1, ''),
	(-2, 'user', '', 'regress_ov_ada', NULL, 1, ''),
	(-3, 'user', '', 'regress_ov_mallory', NULL, 1, ''),
	(-4, 'user', 'acme', 'regress_ov_ada', NULL, 1, '');
INSERT INTO oauth_vault.connector (connector_id, name, provider, client_id, key_id, redirect_uris) VALUES
	('00000000-0000-4000-8000-000000000001', 'rls', 'oidc', 'x', -1, '{https://app.example/cb}');
INSERT INTO oauth_vault.scope_policy (connector_id, tenant, user_id, allowed, own_limit)
	SELECT '00000000-0000-4000-8000-000000000001', t, u, '{read}', l
	FROM (VALUES ('', NULL, false), ('acme', NULL, false), ('', 'regress_ov_ada', false), ('', 'regress_ov_ada', true),
		('', 'regress_ov_mallory', true)) v (t, u, l);
INSERT INTO oauth_vault.connection (connection_id, tenant, user_id, connector_id, status, status_reason, key_id, token_generation, hosts_digest)
	SELECT md5(t || u || s)::uuid, t, u, '00000000-0000-4000-8000-000000000001', s, 'test', -2, 1, ''
	FROM (VALUES ('', 'regress_ov_ada', 'revoked'), ('', 'regress_ov_ada', 'reauth_required'), ('', 'regress_ov_mallory', 'reauth_required'),
		('acme', 'regress_ov_ada', 'reauth_required')) v (t, u, s);
INSERT INTO oauth_vault.flow (flow_id, state_hash, tenant, user_id, connector_id, redirect_uri, hosts_digest, expires_at)
	SELECT connection_id, connection_id::text::bytea, tenant, user_id, connector_id, '', '', now() FROM oauth_vault.connection;
INSERT INTO oauth_vault.intent (connection_id, token_generation, decision_epoch)
	SELECT connection_id, 1, 0 FROM oauth_vault.connection;
INSERT INTO oauth_vault.grant_inbox (connection_id, token_generation, decision_epoch, outcome)
	SELECT connection_id, 1, 0, 'ok' FROM oauth_vault.connection;
INSERT INTO oauth_vault.revocation (connection_id, tenant, user_id, connector_id, key_id, token_generation, hosts_digest, state)
	SELECT connection_id, tenant, user_id, connector_id, key_id, 1, '', 'confirmed' FROM oauth_vault.connection;
INSERT INTO oauth_vault.audit (audit_id, at, event, outcome, tenant, user_id)
	SELECT -row_number() OVER (), now(), 'test', 'ok', tenant, user_id FROM oauth_vault.connection;
INSERT INTO oauth_vault.audit (audit_id, at, event, outcome) VALUES (-99, now(), 'test of an administrator', 'ok');

GRANT SELECT ON ALL TABLES IN SCHEMA oauth_vault TO regress_ov_ada, regress_ov_mallory;
GRANT INSERT, UPDATE, DELETE ON oauth_vault.connection, oauth_vault.scope_policy, oauth_vault.audit, oauth_vault.vault_key TO regress_ov_mallory;

CREATE TEMP VIEW seen WITH (security_invoker = true) AS
	SELECT 'connection' AS "table", count(*), array_agg(DISTINCT tenant || '/' || user_id) AS of FROM oauth_vault.connection
	UNION ALL SELECT 'flow', count(*), array_agg(DISTINCT tenant || '/' || user_id) FROM oauth_vault.flow
	UNION ALL SELECT 'intent', count(*), NULL FROM oauth_vault.intent
	UNION ALL SELECT 'grant_inbox', count(*), NULL FROM oauth_vault.grant_inbox
	UNION ALL SELECT 'revocation', count(*), array_agg(DISTINCT tenant || '/' || user_id) FROM oauth_vault.revocation
	UNION ALL SELECT 'audit', count(*), array_agg(DISTINCT tenant || '/' || user_id) FROM oauth_vault.audit WHERE event LIKE 'test%'
	UNION ALL SELECT 'scope_policy', count(*), array_agg(DISTINCT tenant || '/' || coalesce(user_id, '*')) FROM oauth_vault.scope_policy
	UNION ALL SELECT 'user keys', count(*), array_agg(DISTINCT tenant || '/' || user_id) FROM oauth_vault.vault_key WHERE kind = 'user';
GRANT SELECT ON seen TO PUBLIC;

SET LOCAL ROLE regress_ov_ada;
SELECT * FROM seen;
SELECT connector, status, provider_state FROM oauth_vault.oauth_connections ORDER BY status;
SELECT connector, reason, who_must_act, message FROM oauth_vault.oauth_reauth_prompts;
SELECT count(*) FROM oauth_vault.oauth_my_access WHERE event = 'test';
SELECT prompts_pending FROM oauth_vault.oauth_whoami();
SET LOCAL ROLE regress_ov_mallory;
SELECT * FROM seen;
-- writing: own rows and own limits
WITH u AS (UPDATE oauth_vault.connection SET status_reason = 'mine' RETURNING user_id) SELECT * FROM u;
WITH d AS (DELETE FROM oauth_vault.audit RETURNING 1) SELECT count(*) FROM d;
WITH u AS (UPDATE oauth_vault.vault_key SET wrapped = 'x' RETURNING 1) SELECT count(*) FROM u;
WITH d AS (DELETE FROM oauth_vault.scope_policy RETURNING user_id, own_limit) SELECT * FROM d;
SAVEPOINT s;
INSERT INTO oauth_vault.scope_policy (connector_id, tenant, user_id, allowed, own_limit)
	VALUES ('00000000-0000-4000-8000-000000000001', '', 'regress_ov_mallory', '{all}', false);
ROLLBACK TO s;
UPDATE oauth_vault.connection SET user_id = 'regress_ov_ada' WHERE user_id = 'regress_ov_mallory';
ROLLBACK TO s;
-- the owner is bound as everybody is
SET LOCAL ROLE oauth_vault_owner;
SELECT * FROM (SELECT count(*) FROM oauth_vault.connection) c, (SELECT count(*) FROM oauth_vault.vault_key WHERE kind = 'user') k,
	(SELECT count(*) FROM oauth_vault.audit) a;
-- an auditor reads the whole trail and nothing else
SET LOCAL ROLE oauth_vault_auditor;
SELECT count(*), count(user_id) FROM oauth_vault.oauth_audit WHERE event LIKE 'test%';
SELECT count(*) FROM oauth_vault.connection;
ROLLBACK;

-- The views' filters are what an index serves
BEGIN;
SET LOCAL enable_seqscan = off;
DO $$
DECLARE
	line	text;
	served	boolean := false;
BEGIN
	FOR line IN EXPLAIN SELECT * FROM oauth_vault.oauth_connections
	LOOP
		served := served OR line ~ 'Index Cond: .*tenant = \$[0-9].*user_id = \$[0-9]|Index Cond: .*tenant = \(InitPlan.*user_id = \(InitPlan';
	END LOOP;
	RAISE NOTICE 'served by an index: %', served;
END
$$;
ROLLBACK;
DROP ROLE regress_ov_ada, regress_ov_mallory;
