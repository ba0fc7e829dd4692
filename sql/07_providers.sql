-- The catalogue, and what a site may change in it.
CREATE FUNCTION pg_temp.try(sql text, OUT state text, OUT message text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	state := '00000';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
END
$$;
SET ROLE regress_ov_admin;
SELECT count(*) > 0 AS some, bool_and(origin = 'built-in') AS builtin, bool_and(rules ->> 'display_name' <> '') AS named
	FROM oauth_vault.oauth_providers;

-- Every built-in provider can be loaded
SELECT name, t.* FROM oauth_vault.oauth_providers, LATERAL pg_temp.try(format('SELECT oauth_vault.oauth_set_provider(%L, ''{}'')', name)) t
	WHERE t.state <> '00000' ORDER BY name;
SELECT bool_and(t.state = '00000') AS dropped
	FROM oauth_vault.oauth_providers, LATERAL pg_temp.try(format('SELECT oauth_vault.oauth_drop_provider(%L)', name)) t;

-- and be a connector's, but for those that are nobody's without an issuer
SELECT name, t.* FROM oauth_vault.oauth_providers, LATERAL pg_temp.try(format(
		'SELECT oauth_vault.oauth_create_connector(%L, %L, ''client'', ''secret'', ''https://app.example/cb'')', 'try-' || name, name)) t
	WHERE t.state <> '00000' ORDER BY name COLLATE "C";
SELECT count(oauth_vault.oauth_drop_connector(name)) > 0 AS dropped FROM oauth_vault.oauth_connectors WHERE name LIKE 'try-%';

-- A correction of a built-in one, and one of the site's own
SELECT oauth_vault.oauth_set_provider('google', '{"display_name": "Our Google", "policy": null}');
SELECT oauth_vault.oauth_set_provider('regress_own', '{"schema": 1, "display_name": "Own",
	"authorization": {"url": "https://own.example/authorize"}, "token": {"url": "https://own.example/token"}}');
SELECT name, origin, rules ->> 'display_name' AS display_name, rules ? 'token' AS complete, changed_by
	FROM oauth_vault.oauth_providers WHERE origin <> 'built-in' ORDER BY name COLLATE "C";

-- Rules that make no provider
SELECT t.* FROM (VALUES
	(1, 'regress_bad', '{}'),
	(2, 'regress_bad', '{"schema": 1, "display_name": "Bad", "colour": "red"}'),
	(3, 'regress_bad', '{"schema": 1, "display_name": "Bad", "token": {"url": "ftp://bad.example"}}'),
	(4, 'google', '{"token": null, "display_name": null}')
	) c (n, name, rules), LATERAL pg_temp.try(format('SELECT oauth_vault.oauth_set_provider(%L, %L)', name, rules)) t ORDER BY n;

-- A host of nobody's list gets no secret, whoever says so in SQL
SELECT oauth_vault.oauth_create_connector('own', 'regress_own', 'x', 'y', 'https://app.example/cb');
SELECT count(*) FROM oauth_vault.oauth_connectors WHERE name = 'own';
-- nor is it asked about itself
SELECT t.* FROM pg_temp.try($$SELECT oauth_vault.oauth_discover('https://idp.example')$$) t;
SELECT t.* FROM pg_temp.try($$SELECT oauth_vault.oauth_create_connector('own', 'oidc', 'x', 'y', 'https://app.example/cb',
	issuer => 'https://idp.example')$$) t;

SELECT oauth_vault.oauth_drop_provider('google');
SELECT oauth_vault.oauth_drop_provider('google');
SELECT oauth_vault.oauth_drop_provider('regress_own');
SELECT oauth_vault.oauth_drop_provider('regress_own');
SELECT count(*) FROM oauth_vault.oauth_providers WHERE origin <> 'built-in';
RESET ROLE;
SELECT outcome, connector, reason FROM oauth_vault.oauth_audit
	WHERE event = 'connector_created' AND outcome <> 'ok' ORDER BY audit_id;
