-- Connectors: made, changed, paused, dropped; and what is refused.
CREATE FUNCTION pg_temp.try(sql text, OUT state text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	state := '00000';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
END
$$;
CREATE ROLE regress_ov_admin IN ROLE oauth_vault_admin;
SET ROLE regress_ov_admin;

SELECT oauth_vault.oauth_create_connector('google', 'google', 'client-1', 'secret-1', 'https://app.example/cb',
	ARRAY['openid', 'email'], ARRAY['openid', 'email', 'profile'],
	redirect_uris => ARRAY['https://app.example/other', 'https://app.example/cb', 'http://127.0.0.1:8080/cb']) IS NOT NULL AS created;
SELECT oauth_vault.oauth_create_connector('public.client_1', 'google', 'client-2', redirect_uri => 'http://localhost/cb') IS NOT NULL AS created;
\x on
SELECT name, provider, client_id, has_secret, has_previous_secret, redirect_uris, default_scopes, max_scopes, params, issuer,
	metadata, refresh_policy, status, created_by FROM oauth_vault.oauth_connectors ORDER BY name COLLATE "C";
\x off
-- the workers of a new database are there within moments
DO $$
BEGIN
	FOR i IN 1..3000 LOOP
		EXIT WHEN (SELECT workers_running FROM oauth_vault.oauth_status);
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
SELECT held, workers_running, connectors_paused, active, due, outbox_queued FROM oauth_vault.oauth_status;

-- Refused
\x on
SELECT t.* FROM (VALUES
	(1, $$oauth_create_connector('google', 'google', 'x', redirect_uri => 'https://app.example/cb')$$),
	(2, $$oauth_create_connector('x', 'no_such_provider', 'x', redirect_uri => 'https://app.example/cb')$$),
	(3, $$oauth_create_connector('x', 'oidc', 'x', redirect_uri => 'https://app.example/cb')$$),
	(4, $$oauth_alter_connector('nobody', status => 'paused')$$),
	(5, $$oauth_drop_connector('nobody')$$),
	(6, $$oauth_set_client_secret('nobody', 'x')$$),
	(7, $$oauth_set_scope_policy('nobody', '', NULL, ARRAY['a'])$$),
	(8, $$oauth_alter_connector('google', scopes => ARRAY['drive'])$$)
	) c (n, call), LATERAL pg_temp.try('SELECT oauth_vault.' || call) t ORDER BY n;
\x off

-- A provider that sends tokens to a host of an administrator's own choice
SELECT oauth_vault.oauth_set_provider('google', '{"token": {"url": "https://evil.example/token"}}');
SELECT t.* FROM pg_temp.try($$SELECT oauth_vault.oauth_create_connector('x', 'google', 'x', redirect_uri => 'https://app.example/cb')$$) t;
SELECT oauth_vault.oauth_drop_provider('google');

-- Changed: NULL leaves things as they are
SELECT oauth_vault.oauth_alter_connector('google', scopes => ARRAY['openid']);
SELECT oauth_vault.oauth_alter_connector('google', redirect_uri => 'https://app.example/other', refresh_policy => 'lazy');
SELECT client_id, redirect_uris, default_scopes, max_scopes, refresh_policy, status FROM oauth_vault.oauth_connectors WHERE name = 'google';
SELECT oauth_vault.oauth_alter_connector('google', require_actor => true, max_reads_per_actor => 60);
SELECT oauth_vault.oauth_alter_connector('google', require_purpose => true);
SELECT require_actor, require_purpose, max_reads_per_actor FROM oauth_vault.oauth_connectors WHERE name = 'google';
SELECT oauth_vault.oauth_alter_connector('google', require_actor => false, require_purpose => false, max_reads_per_actor => 0);
SELECT require_actor, require_purpose, max_reads_per_actor FROM oauth_vault.oauth_connectors WHERE name = 'google';
SELECT oauth_vault.oauth_alter_connector('google', status => 'paused', reason => 'the provider is being rude');
SELECT status, status_reason FROM oauth_vault.oauth_connectors WHERE name = 'google';
SELECT connectors_paused FROM oauth_vault.oauth_status;
SELECT oauth_vault.oauth_alter_connector('google', status => 'active');
SELECT status, status_reason FROM oauth_vault.oauth_connectors WHERE name = 'google';

-- Secrets: the one before stays for a while; a new one ends the network worker's pause, not an administrator's
SELECT oauth_vault.oauth_alter_connector('google', status => 'paused');
SELECT oauth_vault.oauth_set_client_secret('google', 'secret-2');
SELECT status, has_secret, has_previous_secret FROM oauth_vault.oauth_connectors WHERE name = 'google';
RESET ROLE;
UPDATE oauth_vault.connector SET status_reason = 'invalid_client', paused_by = NULL WHERE name = 'google';
SET ROLE regress_ov_admin;
SELECT oauth_vault.oauth_set_client_secret('google', 'secret-3', keep_previous => false);
SELECT status, has_secret, has_previous_secret FROM oauth_vault.oauth_connectors WHERE name = 'google';
RESET ROLE;
SELECT secret_generation, substr(client_secret, 1, 3), position('secret-3'::bytea IN client_secret) AS found
	FROM oauth_vault.connector WHERE name = 'google';
SELECT k.kind, k.platform_version, k.connector_id = c.connector_id AS its_own FROM oauth_vault.connector c JOIN oauth_vault.vault_key k USING (key_id)
	ORDER BY k.key_id;

-- All of it is the caller's transaction
BEGIN;
SET LOCAL ROLE regress_ov_admin;
SELECT oauth_vault.oauth_create_connector('gone', 'google', 'x', 'y', 'https://app.example/cb') IS NOT NULL AS created;
ROLLBACK;
SELECT count(*) FROM oauth_vault.connector WHERE name = 'gone';
SELECT count(*) FROM oauth_vault.vault_key WHERE kind = 'connector';

-- Dropped: not while somebody uses it; with history the row stays and the name goes
SET ROLE regress_ov_admin;
SELECT oauth_vault.oauth_drop_connector('public.client_1');
RESET ROLE;
SELECT count(*) FROM oauth_vault.vault_key WHERE kind = 'connector';
INSERT INTO oauth_vault.connection (tenant, user_id, connector_id, status, key_id, token_generation, hosts_digest)
	SELECT '', 'regress_ov_ada', connector_id, 'reauth_required', key_id, 1, '' FROM oauth_vault.connector WHERE name = 'google';
SET ROLE regress_ov_admin;
SELECT t.* FROM pg_temp.try($$SELECT oauth_vault.oauth_drop_connector('google')$$) t;
RESET ROLE;
UPDATE oauth_vault.connection SET status = 'revoked' WHERE user_id = 'regress_ov_ada';
SET ROLE regress_ov_admin;
SELECT oauth_vault.oauth_drop_connector('google');
SELECT count(*) FROM oauth_vault.oauth_connectors;
SELECT oauth_vault.oauth_create_connector('google', 'google', 'client-3', 'secret-1', 'https://app.example/cb') IS NOT NULL AS created;
RESET ROLE;
SELECT regexp_replace(name, '[0-9a-f-]{36}', '<id>') AS name, status FROM oauth_vault.connector ORDER BY status;
CREATE ROLE regress_ov_ada IN ROLE oauth_vault_user;
SET ROLE regress_ov_ada;
SELECT connector, status FROM oauth_vault.oauth_connections;
RESET ROLE;

-- What the trail says; a rolled back attempt is on it too
SELECT event, outcome, connector, scopes, database_role, session_user_name = session_user AS session, reason
	FROM oauth_vault.oauth_audit WHERE event LIKE 'connector\_%' OR event LIKE 'client\_%' ORDER BY audit_id;
-- and nowhere a secret
SELECT count(*) FROM oauth_vault.audit a WHERE a::text LIKE '%secret-_%';
DROP ROLE regress_ov_ada;
