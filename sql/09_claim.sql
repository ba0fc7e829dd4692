-- A copy of the database is held until somebody claims it.
CREATE ROLE regress_ov_ada IN ROLE oauth_vault_user;
SET ROLE regress_ov_admin;
SELECT oauth_vault.oauth_create_connector('claimed', 'google', 'client', 'secret', 'https://app.example/cb') IS NOT NULL AS created;
SELECT held, held_reason FROM oauth_vault.oauth_status;
-- nothing to claim: nothing is thrown away
SELECT oauth_vault.oauth_claim();
RESET ROLE;

-- What a copy looks like from inside
UPDATE oauth_vault.home SET database_oid = 1;
INSERT INTO oauth_vault.connection (connection_id, tenant, user_id, connector_id, status, account, key_id, token_generation, hosts_digest)
	SELECT md5(s)::uuid, '', 'regress_ov_ada', connector_id, s, s, key_id, 1, '' FROM oauth_vault.connector, unnest('{active,revoking}'::text[]) s
	WHERE name = 'claimed';
INSERT INTO oauth_vault.intent (connection_id, token_generation, decision_epoch) VALUES (md5('active')::uuid, 1, 0);
INSERT INTO oauth_vault.revocation (connection_id, tenant, user_id, connector_id, key_id, token_generation, hosts_digest, refresh_token)
	SELECT connection_id, tenant, user_id, connector_id, key_id, 1, '', 'sealed' FROM oauth_vault.connection WHERE status = 'revoking';
SET ROLE regress_ov_admin;
SELECT held, held_reason, active, outbox_queued FROM oauth_vault.oauth_status;
SET ROLE regress_ov_ada;
SELECT status, account, provider_state FROM oauth_vault.oauth_connections WHERE connector = 'claimed' ORDER BY account;
SELECT state FROM oauth_vault.oauth_begin('claimed');

-- Without the home row nobody knows which vault it is
SET ROLE regress_ov_admin;
BEGIN;
RESET ROLE;
DELETE FROM oauth_vault.home;
SET LOCAL ROLE regress_ov_admin;
SELECT held, held_reason FROM oauth_vault.oauth_status;
SELECT oauth_vault.oauth_claim();
ROLLBACK;

-- Kept: a decision of the administrator's transaction
SET ROLE regress_ov_admin;
BEGIN;
SELECT oauth_vault.oauth_claim(discard_outbox => false);
SELECT held, outbox_queued, in_doubt FROM oauth_vault.oauth_status;
ROLLBACK;
SELECT held FROM oauth_vault.oauth_status;

-- Discarded
BEGIN;
SELECT oauth_vault.oauth_claim();
SELECT held, held_reason, outbox_queued, outbox_failed, in_doubt FROM oauth_vault.oauth_status;
RESET ROLE;
SELECT status, account FROM oauth_vault.connection WHERE user_id = 'regress_ov_ada' AND account <> '' ORDER BY account;
SELECT state, outcome, refresh_token FROM oauth_vault.revocation;
SELECT h.database_oid = d.oid AS here FROM oauth_vault.home h, pg_database d WHERE d.datname = current_database();
DELETE FROM oauth_vault.revocation;
DELETE FROM oauth_vault.intent;
DELETE FROM oauth_vault.connection WHERE account <> '';
COMMIT;
SELECT event, outcome, reason FROM oauth_vault.oauth_audit WHERE event = 'claimed' ORDER BY audit_id;
DROP ROLE regress_ov_ada;
