-- Scope policies of tenants and persons, and a person's own limit.
CREATE ROLE regress_ov_ada IN ROLE oauth_vault_user;
SET ROLE regress_ov_admin;
SELECT oauth_vault.oauth_create_connector('mail', 'google', 'client', 'secret', 'https://app.example/cb',
	ARRAY['openid'], ARRAY['openid', 'email', 'profile']) IS NOT NULL AS created;
SELECT oauth_vault.oauth_set_scope_policy('mail', '', NULL, ARRAY['openid', 'email'], ARRAY['openid']);
SELECT oauth_vault.oauth_set_scope_policy('mail', 'acme', NULL, ARRAY['openid']);
SELECT oauth_vault.oauth_set_scope_policy('mail', '', 'regress_ov_ada', '{}');
SELECT oauth_vault.oauth_set_scope_policy('mail', '', 'regress_ov_ada', ARRAY['openid', 'profile']);
SET ROLE regress_ov_ada;
SELECT oauth_vault.oauth_set_my_limit('mail', ARRAY['openid']);
RESET ROLE;
CREATE VIEW public.policies AS SELECT tenant, user_id, allowed, default_scopes, own_limit FROM oauth_vault.scope_policy
	ORDER BY tenant, user_id, own_limit;
SELECT * FROM public.policies;

-- allowed NULL takes a policy away, and only that one
SET ROLE regress_ov_admin;
SELECT oauth_vault.oauth_set_scope_policy('mail', '', 'regress_ov_ada');
SELECT oauth_vault.oauth_set_scope_policy('mail', 'acme');
RESET ROLE;
SELECT * FROM public.policies;

-- A person cannot raise what an administrator has set, only lower it
SET ROLE regress_ov_ada;
SELECT authorization_url FROM oauth_vault.oauth_begin('mail', ARRAY['openid', 'email']);
SELECT oauth_vault.oauth_set_my_limit('mail', NULL);
SELECT authorization_url FROM oauth_vault.oauth_begin('mail', ARRAY['openid', 'profile']);
SELECT authorization_url FROM oauth_vault.oauth_begin('mail', ARRAY['openid', 'drive']);
-- what is allowed is asked for, and the defaults if nothing is named
SELECT split_part(authorization_url, '?', 1) AS endpoint, substring(authorization_url FROM '[?&]scope=([^&]*)') AS scope,
	authorization_url LIKE '%state=' || state || '%' AS same_state, authorization_url LIKE '%code_challenge_method=S256%' AS pkce,
	expires_at > now() AND expires_at <= now() + interval '11 min' AS expires
	FROM oauth_vault.oauth_begin('mail', ARRAY['openid', 'email']);
SELECT substring(authorization_url FROM '[?&]scope=([^&]*)') AS scope FROM oauth_vault.oauth_begin('mail');
SET ROLE regress_ov_admin;
SELECT flows_pending FROM oauth_vault.oauth_status;
RESET ROLE;
SELECT * FROM public.policies;

-- Policies go with their connector
SELECT oauth_vault.oauth_drop_connector('mail');
SELECT * FROM public.policies;
DROP VIEW public.policies;
SELECT event, tenant, user_id, scopes, reason FROM oauth_vault.oauth_audit
	WHERE event IN ('scope_policy_set', 'own_limit_set') ORDER BY audit_id;
DROP ROLE regress_ov_ada;
