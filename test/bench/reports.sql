-- How long an auditor's reports take on a million audit rows.  In a throwaway
-- database with the extension (make try), as a superuser:
--	psql -X -f test/bench/reports.sql
-- 100,000 connections of 50,000 people at 10 connectors, 1,000,000 audit rows
-- over 81 days, 5,000 revocations.  The records are sealed with nothing: no
-- report opens one.
\set ON_ERROR_STOP on
INSERT INTO oauth_vault.connector (connector_id, name, provider, client_id, key_id, redirect_uris, max_scopes)
 SELECT md5('c'||i)::uuid, 'c'||i, 'oidc', 'x', i, '{https://app.example/cb}', '{read,write,admin}' FROM generate_series(1,10) i;
INSERT INTO oauth_vault.connection (connection_id, tenant, user_id, connector_id, status, key_id, token_generation, hosts_digest, requested_scopes, scopes, provider_subject, access_token, refresh_token)
 SELECT md5('k'||i)::uuid, 't'||i%20, 'u'||i/2, md5('c'||(i%10+1))::uuid, CASE WHEN i%20=0 THEN 'revoked' ELSE 'active' END, i, 1, '', '{read,write}', '{read,write}', 's'||i,
  'OVR'::bytea||'\x0101'::bytea||decode(repeat('ab', 900),'hex'), 'OVR'::bytea||'\x0101'::bytea||decode(repeat('cd', 100),'hex') FROM generate_series(1,100000) i;
INSERT INTO oauth_vault.revocation (connection_id, tenant, user_id, connector_id, key_id, token_generation, hosts_digest, state, requested_at, settled_at)
 SELECT connection_id, tenant, user_id, connector_id, key_id, 1, '', 'confirmed', now() - i * interval '10 seconds', now() - i * interval '10 seconds' + interval '1 second'
 FROM (SELECT *, row_number() OVER () AS i FROM oauth_vault.connection WHERE status = 'revoked') x;
INSERT INTO oauth_vault.audit (audit_id, at, event, outcome, tenant, user_id, actor, purpose, connector, connection_id, account, scopes, database_role, session_user_name, application_name, assertion_jti, token_fingerprint, reason)
 SELECT g, now() - (1000000 - g) * interval '7 seconds', (ARRAY['token_access','token_access','token_access','token_access','token_access','token_access','refreshed','flow_begun','connected','token_access'])[g%10+1],
  CASE WHEN g%100=0 THEN 'denied' ELSE 'ok' END, 't'||k%20, 'u'||k/2, jsonb_build_object('sub','agent-'||g%5), 'purpose '||g%7, 'c'||(k%10+1), md5('k'||k)::uuid, '',
  CASE WHEN g%2=0 THEN '{read}'::text[] ELSE '{read,write}' END, 'app','app','books', md5('j'||g), decode(md5('f'||g),'hex'), CASE WHEN g%100=0 THEN 'OV014' END
  FROM (SELECT g, (g::bigint*7919)%100000+1 AS k FROM generate_series(1,1000000) g) x;
VACUUM ANALYZE;
\pset format unaligned
\pset tuples_only on
SET ROLE oauth_vault_auditor;
\timing on
SELECT 'access, a day', count(*) FROM oauth_vault.oauth_report_access(now() - interval '1 day');
SELECT 'access', count(*) FROM oauth_vault.oauth_report_access();
SELECT 'provisioning', count(*) FROM oauth_vault.oauth_report_provisioning();
SELECT 'deprovisioning', count(*) FROM oauth_vault.oauth_report_deprovisioning();
SELECT 'timing', count(*) FROM oauth_vault.oauth_report_timing();
SELECT 'scopes, a day', count(*) FROM oauth_vault.oauth_report_scopes(now() - interval '1 day');
SELECT 'scopes', count(*) FROM oauth_vault.oauth_report_scopes();
SELECT 'security events, a day', count(*) FROM oauth_vault.oauth_report_security_events(now() - interval '1 day');
SELECT 'security events', count(*) FROM oauth_vault.oauth_report_security_events();
SELECT 'privileges', count(*) FROM oauth_vault.oauth_report_privileges();
SELECT 'crypto', count(*) FROM oauth_vault.oauth_report_crypto();
SELECT 'configuration', count(*) FROM oauth_vault.oauth_report_configuration();
SELECT 'one person', count(*) FROM oauth_vault.oauth_report_person('u10', 't0');
SELECT 'review, a day', count(*) FROM oauth_vault.oauth_review(now() - interval '1 day');
SELECT 'review', count(*) FROM oauth_vault.oauth_review();
