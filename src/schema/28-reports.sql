/*
 * Reports for an auditor.
 *
 * All run with the auditor's own rights.  The trail is read through the view
 * oauth_audit, whose policy shows auditors everything; everything else comes
 * from the functions of src/vault/report.c, which show everybody's rows
 * without anything sealed, and from PostgreSQL's own catalogue, which anybody
 * may read.  So a report shows nothing that its parts would not show, and
 * nobody has a right on a table by it.
 *
 * jit is off: compiling takes longer than all of a report on a day of the trail.
 *
 * since and until: the range [since, until).  NULL: 90 days ago, and no end.
 */

/* ---- what reports are made of ---- */

CREATE FUNCTION oauth_vault.report_connections()
	RETURNS TABLE (connection_id uuid, tenant text, user_id text, connector text, provider text, account text,
		status text, status_reason text, status_since timestamptz, requested_scopes text[], scopes text[],
		provider_subject text, consented_at timestamptz, created_at timestamptz, last_used_at timestamptz,
		expires_at timestamptz, key_id bigint)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_report_connections';
REVOKE ALL ON FUNCTION oauth_vault.report_connections() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.report_connections() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.report_connections() IS 'For reports: everybody''s connections, without tokens';

CREATE FUNCTION oauth_vault.report_connectors()
	RETURNS TABLE (connector_id uuid, connector text, provider text, status text, status_reason text,
		status_since timestamptz, default_scopes text[], max_scopes text[], params jsonb, issuer text,
		issuer_authorization text, has_secret boolean, created_at timestamptz, created_by text, rules jsonb,
		site_rules boolean, site_changed_at timestamptz, site_changed_by text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_report_connectors';
REVOKE ALL ON FUNCTION oauth_vault.report_connectors() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.report_connectors() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.report_connectors() IS 'For reports: connectors with the rules in force, without client secrets';

CREATE FUNCTION oauth_vault.report_revocations()
	RETURNS TABLE (revocation_id bigint, connection_id uuid, tenant text, user_id text, connector text, account text,
		state text, attempts integer, outcome text, requested_at timestamptz, settled_at timestamptz,
		residual_until timestamptz)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_report_revocations';
REVOKE ALL ON FUNCTION oauth_vault.report_revocations() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.report_revocations() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.report_revocations() IS 'For reports: revocations, without tokens';

CREATE FUNCTION oauth_vault.report_policies()
	RETURNS TABLE (connector text, tenant text, user_id text, own_limit boolean, allowed text[], default_scopes text[],
		changed_at timestamptz)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_report_policies';
REVOKE ALL ON FUNCTION oauth_vault.report_policies() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.report_policies() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.report_policies() IS 'For reports: what tenants and persons may ask of connectors';

CREATE FUNCTION oauth_vault.report_keys()
	RETURNS TABLE (kind text, platform_version integer, platform_fingerprint text, keys bigint, destroyed bigint,
		oldest timestamptz, newest timestamptz)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_report_keys';
REVOKE ALL ON FUNCTION oauth_vault.report_keys() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.report_keys() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.report_keys() IS 'For reports: how many keys there are, by kind and by what wraps them';

CREATE FUNCTION oauth_vault.report_sealed()
	RETURNS TABLE (place text, format integer, suite integer, records bigint)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_report_sealed';
REVOKE ALL ON FUNCTION oauth_vault.report_sealed() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.report_sealed() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.report_sealed() IS 'For reports: sealed records by place, format and suite; format NULL: not sealed';

CREATE FUNCTION oauth_vault.report_vault() RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_report_vault';
REVOKE ALL ON FUNCTION oauth_vault.report_vault() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.report_vault() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.report_vault() IS 'For reports: the vault file''s public part, its mode, workers, the last rotation';

/*
 * Rights on our objects, and whether they are those that the extension came
 * with: PostgreSQL keeps these in pg_init_privs.
 */
CREATE FUNCTION oauth_vault.report_grants()
	RETURNS TABLE (object text, grantee text, privilege text, grantable boolean, shipped boolean)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
	WITH ours AS (
		SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, c.oid, c.relname::text AS object, c.relowner AS owner,
			coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END, c.relowner)) AS acl,
			c.relispartition AS part
		FROM pg_catalog.pg_class c
		WHERE c.relnamespace = 'oauth_vault'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
		UNION ALL
		SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.proname || '()', p.proowner,
			coalesce(p.proacl, acldefault('f', p.proowner)), false
		FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'oauth_vault'::regnamespace
		UNION ALL
		SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, 'schema ' || n.nspname, n.nspowner,
			coalesce(n.nspacl, acldefault('n', n.nspowner)), false
		FROM pg_catalog.pg_namespace n WHERE n.nspname = 'oauth_vault'),
	given AS (
		SELECT o.object, o.owner, o.part, a.grantee, a.privilege_type, a.is_grantable, EXISTS (
				SELECT FROM pg_catalog.pg_init_privs i, LATERAL aclexplode(i.initprivs) s
				WHERE i.classoid = o.class AND i.objoid = o.oid AND i.objsubid = 0 AND s.grantee = a.grantee
					AND s.privilege_type = a.privilege_type AND s.is_grantable >= a.is_grantable) AS came
		FROM ours o, LATERAL aclexplode(o.acl) a
		UNION ALL
		SELECT c.relname || '.' || t.attname, c.relowner, false, a.grantee, a.privilege_type, a.is_grantable, false
		FROM pg_catalog.pg_class c
			JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND t.attacl IS NOT NULL AND NOT t.attisdropped,
			LATERAL aclexplode(t.attacl) a
		WHERE c.relnamespace = 'oauth_vault'::regnamespace)
	SELECT g.object, CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee)::text END, g.privilege_type,
		g.is_grantable,
		g.came OR (g.grantee = g.owner AND pg_get_userbyid(g.owner) = 'oauth_vault_owner')
			/* parts of the trail are made by a worker, long after the extension */
			OR (g.part AND g.privilege_type = 'SELECT' AND NOT g.is_grantable
				AND g.grantee = 'oauth_vault_auditor'::regrole)
	FROM given g
$report$;
REVOKE ALL ON FUNCTION oauth_vault.report_grants() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.report_grants() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.report_grants() IS 'For reports: rights on our objects, and whether the extension came with them';

/* ---- access ---- */

CREATE FUNCTION oauth_vault.oauth_report_access(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
	RETURNS TABLE (tenant text, user_id text, connector text, provider text, account text, provider_subject text,
		connection_id uuid, status text, scopes text[], granted_at timestamptz, ended_at timestamptz,
		accesses bigint, refused bigint, agents text[], purposes text[], last_access timestamptz)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
	WITH fine AS (
		SELECT a.connection_id, a.actor ->> 'sub' AS agent, a.purpose,
			count(*) FILTER (WHERE a.outcome = 'ok') AS accesses, count(*) FILTER (WHERE a.outcome <> 'ok') AS refused,
			max(a.at) FILTER (WHERE a.outcome = 'ok') AS last_access
		FROM oauth_vault.oauth_audit a
		WHERE a.at >= coalesce($1, now() - interval '90 days') AND a.at < coalesce($2, 'infinity')
			AND a.event = 'token_access' AND a.connection_id IS NOT NULL
		GROUP BY 1, 2, 3),
	used AS (
		SELECT f.connection_id, sum(f.accesses)::bigint AS accesses, sum(f.refused)::bigint AS refused,
			array_agg(DISTINCT f.agent ORDER BY f.agent) FILTER (WHERE f.agent IS NOT NULL) AS agents,
			array_agg(DISTINCT f.purpose ORDER BY f.purpose) FILTER (WHERE f.purpose IS NOT NULL) AS purposes,
			max(f.last_access) AS last_access
		FROM fine f GROUP BY 1),
	ended AS (
		SELECT v.connection_id, min(v.requested_at) AS at FROM oauth_vault.report_revocations() v GROUP BY 1)
	SELECT c.tenant, c.user_id, c.connector, c.provider, c.account, c.provider_subject, c.connection_id, c.status, c.scopes,
		c.created_at, x.ended_at, coalesce(u.accesses, 0), coalesce(u.refused, 0), coalesce(u.agents, '{}'),
		coalesce(u.purposes, '{}'), u.last_access
	FROM oauth_vault.report_connections() c
		LEFT JOIN used u ON u.connection_id = c.connection_id
		LEFT JOIN ended e ON e.connection_id = c.connection_id,
		LATERAL (SELECT CASE WHEN c.status IN ('revoking', 'revoked') THEN coalesce(e.at, c.status_since) END AS ended_at) x
	WHERE c.created_at < coalesce($2, 'infinity')
		AND coalesce(x.ended_at, 'infinity') >= coalesce($1, now() - interval '90 days')
	ORDER BY 1, 2, 3, 5, 10
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_access(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_access(timestamptz, timestamptz) TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_access(timestamptz, timestamptz) IS
	'Access inventory: grants that lived in the range, and which agents used them for what';

CREATE FUNCTION oauth_vault.oauth_report_privileges()
	RETURNS TABLE (role text, can_login boolean, power text, through text, shipped boolean, reaches_tokens boolean)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
	WITH RECURSIVE m AS (
		SELECT a.member, a.roleid, ARRAY[a.roleid] AS via FROM pg_catalog.pg_auth_members a
		UNION
		SELECT m.member, a.roleid, m.via || a.roleid FROM m JOIN pg_catalog.pg_auth_members a ON a.member = m.roleid
		WHERE a.roleid <> ALL (m.via)),
	power AS (
		SELECT r.oid, p.power, 'attribute' AS through, r.oid = 10 AND p.power = 'SUPERUSER' AS shipped
		FROM pg_catalog.pg_roles r, LATERAL (VALUES ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole),
			('BYPASSRLS', r.rolbypassrls), ('REPLICATION', r.rolreplication)) p (power, has)
		WHERE p.has AND (p.power = 'SUPERUSER' OR NOT r.rolsuper)
		UNION ALL
		SELECT m.member, 'member of ' || pg_get_userbyid(m.roleid),
			CASE WHEN cardinality(m.via) = 1 THEN 'directly'
				ELSE (SELECT string_agg(pg_get_userbyid(v.role)::text, ' > ' ORDER BY v.n)
					FROM unnest(m.via[:cardinality(m.via) - 1]) WITH ORDINALITY v (role, n)) END,
			false
		FROM m
		WHERE pg_get_userbyid(m.roleid) IN ('oauth_vault_user', 'oauth_vault_admin', 'oauth_vault_auditor', 'oauth_vault_owner',
			'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_read_all_data', 'pg_write_all_data',
			'pg_maintain') AND pg_get_userbyid(m.member) !~ '^pg_'
		UNION ALL
		SELECT d.datdba, 'owner of the database', 'ownership', true FROM pg_catalog.pg_database d
		WHERE d.datname = current_database()
		UNION ALL
		SELECT r.oid, g.privilege || ' on ' || g.object || CASE WHEN g.grantable THEN ' with grant option' ELSE '' END,
			'grant to ' || g.grantee, g.shipped
		FROM oauth_vault.report_grants() g LEFT JOIN pg_catalog.pg_roles r ON r.rolname = g.grantee
		WHERE g.grantee <> 'oauth_vault_owner'),
	reach AS (
		SELECT s.roles_that_can_reach_keys AS roles FROM oauth_vault.vault_status() s)
	SELECT coalesce(r.rolname, 'PUBLIC'), coalesce(r.rolcanlogin, true), p.power, p.through, p.shipped,
		coalesce(r.rolname = ANY (reach.roles), false)
	FROM power p CROSS JOIN reach LEFT JOIN pg_catalog.pg_roles r ON r.oid = p.oid
	ORDER BY 5, 6 DESC, 1, 3, 4
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_privileges() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_privileges() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_privileges() IS
	'Who can do what: attributes, memberships, rights on our objects, and who could reach tokens by them';

/* ---- coming and going ---- */

CREATE FUNCTION oauth_vault.oauth_report_provisioning(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
	RETURNS TABLE (tenant text, user_id text, connector text, account text, connection_id uuid, outcome text, reason text,
		begun_at timestamptz, ended_at timestamptz, took interval, scopes text[], actor jsonb, assertion_jti text,
		database_role text, client_address inet)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
	WITH e AS (
		SELECT a.*, max(a.at) FILTER (WHERE a.event = 'flow_begun' AND a.outcome = 'ok')
				OVER (PARTITION BY a.tenant, a.user_id, a.connector ORDER BY a.at, a.audit_id
					ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS begun_at
		FROM oauth_vault.oauth_audit a
		WHERE a.at >= coalesce($1, now() - interval '90 days') AND a.at < coalesce($2, 'infinity')
			AND a.event IN ('flow_begun', 'flow_failed', 'connected'))
	SELECT e.tenant, e.user_id, e.connector, e.account, e.connection_id, e.outcome, e.reason,
		e.begun_at, e.at, e.at - e.begun_at, e.scopes, e.actor, e.assertion_jti, e.database_role, e.client_address
	FROM e WHERE e.event <> 'flow_begun' OR e.outcome <> 'ok'
	ORDER BY e.at, e.audit_id
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_provisioning(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_provisioning(timestamptz, timestamptz) TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_provisioning(timestamptz, timestamptz) IS
	'Provisioning: each consent that ended in the range, from its beginning to the grant, refused ones too';

CREATE FUNCTION oauth_vault.oauth_report_deprovisioning(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
	RETURNS TABLE (tenant text, user_id text, connector text, account text, connection_id uuid, requested_at timestamptz,
		database_role text, actor jsonb, last_token_at timestamptz, to_enforcement interval, provider_state text,
		provider_outcome text, attempts integer, settled_at timestamptz, to_provider interval, residual_until timestamptz)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
	WITH v AS (
		SELECT r.* FROM oauth_vault.report_revocations() r
		WHERE r.requested_at >= coalesce($1, now() - interval '90 days') AND r.requested_at < coalesce($2, 'infinity')),
	a AS (
		SELECT a.connection_id, max(a.at) FILTER (WHERE a.event = 'token_access') AS last_token_at,
			(array_agg(a.database_role ORDER BY a.at DESC) FILTER (WHERE a.event <> 'token_access'))[1] AS database_role,
			(array_agg(a.actor ORDER BY a.at DESC) FILTER (WHERE a.event <> 'token_access'))[1] AS actor
		FROM oauth_vault.oauth_audit a JOIN v ON v.connection_id = a.connection_id
		WHERE a.at >= coalesce($1, now() - interval '90 days') - interval '1 day' AND a.outcome = 'ok'
			AND (a.event = 'revocation_requested' OR (a.event = 'token_access' AND a.at > v.requested_at))
		GROUP BY 1)
	SELECT v.tenant, v.user_id, v.connector, v.account, v.connection_id, v.requested_at, a.database_role, a.actor,
		a.last_token_at, coalesce(a.last_token_at - v.requested_at, interval '0'), v.state, v.outcome, v.attempts,
		v.settled_at, v.settled_at - v.requested_at, v.residual_until
	FROM v LEFT JOIN a ON a.connection_id = v.connection_id
	ORDER BY v.requested_at, v.revocation_id
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_deprovisioning(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_deprovisioning(timestamptz, timestamptz) TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_deprovisioning(timestamptz, timestamptz) IS
	'De-provisioning: each revocation of the range, the last token handed out after it, and what the provider said';

CREATE FUNCTION oauth_vault.oauth_report_timing(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
	RETURNS TABLE (measure text, n bigint, open bigint, p50 interval, p95 interval, longest interval)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
	WITH t AS (
		SELECT 1 AS n, 'consent: begun to granted' AS measure, p.took AS took, false AS open
		FROM oauth_vault.oauth_report_provisioning($1, $2) p WHERE p.outcome = 'ok' AND p.took IS NOT NULL
		UNION ALL
		SELECT x.n, x.measure, x.took, x.took IS NULL
		FROM oauth_vault.oauth_report_deprovisioning($1, $2) d, LATERAL (VALUES
			(2, 'revocation: requested to last token here', d.to_enforcement),
			(3, 'revocation: requested to the provider''s confirmation',
				CASE WHEN d.provider_state IN ('confirmed', 'queued') THEN d.to_provider END)) x (n, measure, took)
		WHERE x.n = 2 OR d.provider_state IN ('confirmed', 'queued'))
	SELECT t.measure, count(t.took), count(*) FILTER (WHERE t.open), percentile_cont(0.5) WITHIN GROUP (ORDER BY t.took),
		percentile_cont(0.95) WITHIN GROUP (ORDER BY t.took), max(t.took)
	FROM t GROUP BY t.n, t.measure ORDER BY t.n
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_timing(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_timing(timestamptz, timestamptz) TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_timing(timestamptz, timestamptz) IS
	'How long consents and revocations of the range took: median, 95th percentile, longest';

/* ---- scopes ---- */

CREATE FUNCTION oauth_vault.oauth_report_scopes(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
	RETURNS TABLE (tenant text, user_id text, connector text, account text, connection_id uuid, requested text[],
		granted text[], used text[], unused text[], not_requested text[], beyond_limit text[],
		narrowed_accesses bigint, whole_accesses bigint)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
	WITH c AS (
		SELECT r.* FROM oauth_vault.report_connections() r WHERE r.status NOT IN ('revoking', 'revoked')),
	/* a person's policy stands for the tenant's */
	p AS (
		SELECT r.connector, r.tenant, r.user_id, r.allowed FROM oauth_vault.report_policies() r WHERE NOT r.own_limit),
	asked AS (
		SELECT a.connection_id, a.scopes, count(*) AS n
		FROM oauth_vault.oauth_audit a
		WHERE a.at >= coalesce($1, now() - interval '90 days') AND a.at < coalesce($2, 'infinity')
			AND a.event = 'token_access' AND a.outcome = 'ok' AND a.connection_id IS NOT NULL
		GROUP BY 1, 2),
	/* A call that names no scopes leaves all of the token's in the trail: that says nothing of what it needs. */
	split AS (
		SELECT k.connection_id, k.scopes, k.n, NOT (coalesce(k.scopes, '{}') @> c.scopes) AS narrowed
		FROM asked k JOIN c ON c.connection_id = k.connection_id),
	used AS (
		SELECT s.connection_id, sum(s.n) FILTER (WHERE s.narrowed) AS narrowed, sum(s.n) FILTER (WHERE NOT s.narrowed) AS whole
		FROM split s GROUP BY 1),
	names AS (
		SELECT s.connection_id, array_agg(DISTINCT x.scope ORDER BY x.scope) AS scopes
		FROM split s, LATERAL unnest(s.scopes) x (scope) WHERE s.narrowed GROUP BY 1)
	SELECT c.tenant, c.user_id, c.connector, c.account, c.connection_id, c.requested_scopes, c.scopes,
		coalesce(n.scopes, '{}'),
		ARRAY(SELECT s FROM unnest(c.scopes) s WHERE s <> ALL (coalesce(n.scopes, '{}'))),
		ARRAY(SELECT s FROM unnest(c.scopes) s WHERE s <> ALL (c.requested_scopes)),
		ARRAY(SELECT s FROM unnest(c.scopes) s WHERE s <> ALL (k.max_scopes) OR s <> ALL (coalesce(p.allowed, q.allowed))),
		coalesce(u.narrowed, 0)::bigint, coalesce(u.whole, 0)::bigint
	FROM c
		LEFT JOIN used u ON u.connection_id = c.connection_id
		LEFT JOIN names n ON n.connection_id = c.connection_id
		LEFT JOIN oauth_vault.report_connectors() k ON k.connector = c.connector
		LEFT JOIN p ON p.connector = c.connector AND p.tenant = c.tenant AND p.user_id = c.user_id
		LEFT JOIN p q ON q.connector = c.connector AND q.tenant = c.tenant AND q.user_id IS NULL
	ORDER BY 1, 2, 3, 4
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_scopes(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_scopes(timestamptz, timestamptz) TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_scopes(timestamptz, timestamptz) IS
	'Least privilege: scopes requested, granted, and named when a token was asked for, of each live grant';

/* ---- cryptography and configuration ---- */

CREATE FUNCTION oauth_vault.oauth_report_crypto()
	RETURNS TABLE (item text, value text, verdict text, note text)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
	WITH v AS (
		SELECT r.doc, nullif(r.doc -> 'settings', 'null') AS settings, r.doc -> 'vault_file' AS file FROM oauth_vault.report_vault() r (doc)),
	ring AS (
		SELECT (k.doc ->> 'version')::integer AS version, k.doc ->> 'fingerprint' AS fingerprint,
			coalesce((k.doc ->> 'active')::boolean, false) AS active, coalesce((k.doc ->> 'retired')::boolean, false) AS retired,
			k.doc ->> 'source' AS source, CASE WHEN k.doc ->> 'created' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$'
				THEN (k.doc ->> 'created')::timestamptz END AS created
		FROM v, LATERAL jsonb_array_elements(v.settings -> 'versions') k (doc)),
	line AS (
		SELECT 1 AS n, 'vault' AS item,
			CASE WHEN v.settings IS NULL THEN 'sealed: ' || (v.doc ->> 'sealed_because') ELSE 'open' END AS value,
			CASE WHEN v.settings IS NULL THEN 'fail' ELSE 'pass' END AS verdict,
			'whether the key worker has the platform keys' AS note
		FROM v
		UNION ALL
		SELECT 2, 'records in ' || s.place, s.records || ' x ' || CASE WHEN s.format IS NULL THEN 'not sealed'
				WHEN s.format = 1 AND s.suite = 1 THEN 'AES-256-GCM, key per record by HMAC-SHA-256, key-committing'
				ELSE format('format %s, suite %s', s.format, s.suite) END,
			CASE WHEN s.format = 1 AND s.suite = 1 THEN 'pass' ELSE 'fail' END,
			'counted by what the first bytes of each value say; the table shows no more'
		FROM oauth_vault.report_sealed() s
		UNION ALL
		SELECT 3, format('%s keys under platform key %s', k.kind, k.platform_version),
			k.keys || ' live, oldest of ' || coalesce(k.oldest::date::text, '-') || '; ' || k.destroyed || ' destroyed',
			CASE WHEN k.keys = 0 THEN 'pass' WHEN r.version IS NULL OR r.retired THEN 'fail' WHEN NOT r.active THEN 'attention'
				ELSE 'pass' END,
			CASE WHEN k.keys > 0 AND (r.version IS NULL OR r.retired) THEN 'their platform key is not in the vault file: they do not open'
				WHEN k.keys > 0 AND NOT r.active THEN 'wrapped with a platform key that is no longer active: oauth_rotate_keys()'
				ELSE 'random 256-bit keys, each wrapped by a platform key' END
		FROM oauth_vault.report_keys() k
			LEFT JOIN ring r ON r.version = k.platform_version
				AND (k.platform_fingerprint IS NULL OR k.platform_fingerprint = r.fingerprint)
		UNION ALL
		SELECT 4, 'platform key ' || r.version,
			CASE WHEN r.retired THEN 'retired' ELSE concat_ws(', ', CASE WHEN r.active THEN 'active' END,
				CASE r.source WHEN 'key' THEN 'in the vault file' WHEN 'key_file' THEN 'in a file of its own'
					ELSE 'from a command' END, 'made ' || r.created::date) END,
			CASE WHEN r.active AND r.created < now() - interval '1 year' THEN 'attention'
				WHEN r.active AND r.created IS NULL THEN 'attention' ELSE 'pass' END,
			CASE WHEN r.active AND r.created IS NULL THEN 'the vault file does not say when it was made'
				WHEN r.active AND r.created < now() - interval '1 year' THEN 'older than a year'
				ELSE 'only the key worker holds it' END
		FROM ring r
		UNION ALL
		SELECT 5, 'last rotation of keys', CASE WHEN v.doc #>> '{last_rotation,mode}' IS NULL THEN 'none' ELSE
				concat_ws(' ', v.doc #>> '{last_rotation,mode}', v.doc #>> '{last_rotation,state}', 'asked for at',
				v.doc #>> '{last_rotation,requested_at}', 'by', v.doc #>> '{last_rotation,requested_by}') END,
			CASE v.doc #>> '{last_rotation,state}' WHEN 'failed' THEN 'attention' ELSE 'pass' END,
			'oauth_key_rotation has them all'
		FROM v
		UNION ALL
		SELECT 6, 'vault file', coalesce('mode ' || (v.file ->> 'mode') || ', owner ' || (v.file ->> 'owner'), 'not there'),
			CASE WHEN v.file ->> 'owner' = 'server' AND v.file ->> 'mode' IN ('0600', '0400') THEN 'pass'
				WHEN v.file ->> 'owner' = 'root' AND v.file ->> 'mode' IN ('0640', '0440') THEN 'pass' ELSE 'fail' END,
			'0600 of the server''s user, or 0640 of root; outside the data directory: the key worker refuses it otherwise'
		FROM v
		UNION ALL
		SELECT 7, 'identity', coalesce(v.settings ->> 'identity_source', 'unknown'),
			CASE v.settings ->> 'identity_source' WHEN 'role' THEN 'attention' WHEN 'assertion' THEN 'pass'
				WHEN 'authenticated' THEN 'pass' ELSE 'fail' END,
			CASE v.settings ->> 'identity_source' WHEN 'role' THEN 'a role''s name is the person: whoever may take the role is the person'
				ELSE jsonb_array_length(coalesce(v.settings -> 'issuers', '[]')) || ' issuers; EdDSA, ES256, RS256 and PS256 only' END
		FROM v
		UNION ALL
		SELECT 8, 'library', v.doc ->> 'openssl', 'info',
			CASE WHEN (v.doc ->> 'fips')::boolean THEN 'the FIPS provider is the default' ELSE 'not in FIPS mode' END
		FROM v
		UNION ALL
		SELECT 9, 'TLS to providers', CASE current_setting('oauth_vault.allow_insecure_loopback', true) WHEN 'on'
				THEN '1.2 or later, verified; but plain http to loopback addresses is allowed' ELSE '1.2 or later, always verified' END,
			CASE current_setting('oauth_vault.allow_insecure_loopback', true) WHEN 'on' THEN 'attention' ELSE 'pass' END,
			'no setting switches verification off'
		UNION ALL
		SELECT 10, 'TLS to clients', CASE current_setting('ssl') WHEN 'on' THEN v.doc ->> 'ssl_min_protocol_version' || ' or later' ELSE 'off' END,
			CASE WHEN current_setting('ssl') = 'off' THEN 'attention'
				WHEN v.doc ->> 'ssl_min_protocol_version' IN ('TLSv1.2', 'TLSv1.3') THEN 'pass' ELSE 'fail' END,
			'tokens and assertions travel on these connections; pg_hba.conf says whether TLS is required'
		FROM v)
	SELECT l.item, l.value, l.verdict, l.note FROM line l ORDER BY l.n, l.item
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_crypto() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_crypto() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_crypto() IS
	'Crypto posture: how each kind of record is sealed, where keys are, their ages and rotation, TLS';

CREATE FUNCTION oauth_vault.oauth_report_configuration()
	RETURNS TABLE (name text, setting text, recommended text, verdict text, source text, why text)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
	WITH advice AS (SELECT * FROM (VALUES
		(1, 'oauth_vault.audit', 'durable', '^durable$', 'attention', 'batched: a crash loses the rows of the last milliseconds'),
		(2, 'oauth_vault.allow_core_dumps', 'off', '^off$', 'fail', 'a core file of a worker holds keys'),
		(3, 'oauth_vault.allow_insecure_loopback', 'off', '^off$', 'attention', 'for tests'),
		(4, 'log_parameter_max_length', '0', '^0$', 'attention', 'bound parameters carry assertions and codes'),
		(5, 'log_parameter_max_length_on_error', '0', '^0$', 'attention', 'the same, with errors'),
		(6, 'ssl', 'on', '^on$', 'attention', 'tokens and assertions travel between backend and database'),
		(7, 'ssl_min_protocol_version', 'TLSv1.2', '^TLSv1[.][23]$', 'fail', 'older protocols are broken'),
		(8, 'password_encryption', 'scram-sha-256', '^scram-sha-256$', 'attention', 'md5 hashes can be replayed'),
		(9, 'row_security', 'on', '^on$', 'attention', 'our functions set it themselves'),
		(10, 'fsync', 'on', '^on$', 'fail', 'durable rows and rotated refresh tokens depend on it'),
		(11, 'full_page_writes', 'on', '^on$', 'fail', 'the same'),
		(12, 'data_checksums', 'on', '^on$', 'attention', 'finds damage that a disk does not tell'),
		(13, 'allow_system_table_mods', 'off', '^off$', 'fail', 'lets a superuser change what the catalogue says'),
		(14, 'log_connections', 'on', '^(on|.*(all|authentication|authorization).*)$', 'attention', 'who connected from where, beside our trail'),
		(15, 'debug_print_parse', 'off', '^off$', 'attention', 'writes constants of statements to the log'),
		(16, 'debug_print_rewritten', 'off', '^off$', 'attention', 'the same'),
		(17, 'debug_print_plan', 'off', '^off$', 'attention', 'the same'),
		(18, 'pg_stat_statements.track_utility', 'off', '^off$', 'attention', 'keeps the literals of DO blocks'),
		(19, 'max_worker_processes', NULL, NULL, NULL, '2, and 2 more for each database with the extension'),
		(20, 'wal_level', NULL, NULL, NULL, 'with logical, whoever may replicate reads sealed records')
		) x (n, name, recommended, pattern, severity, why)),
	/* this one PostgreSQL shows to few */
	setting AS (
		SELECT g.name, g.setting, g.source, g.short_desc FROM pg_catalog.pg_settings g WHERE g.name <> 'ssl_min_protocol_version'
		UNION ALL
		SELECT 'ssl_min_protocol_version', r.doc ->> 'ssl_min_protocol_version', NULL, NULL FROM oauth_vault.report_vault() r (doc))
	SELECT s.name, s.setting, a.recommended,
		CASE WHEN a.pattern IS NULL THEN 'info' WHEN s.setting ~ a.pattern THEN 'pass' ELSE coalesce(a.severity, 'info') END,
		s.source, coalesce(a.why, s.short_desc)
	FROM setting s LEFT JOIN advice a ON a.name = s.name
	WHERE a.name IS NOT NULL OR s.name LIKE 'oauth\_vault.%'
	ORDER BY a.n, s.name
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_configuration() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_configuration() TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_configuration() IS
	'Configuration baseline: our settings and those of the server that matter, against what is recommended';

/* ---- events ---- */

CREATE FUNCTION oauth_vault.oauth_report_security_events(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
	RETURNS TABLE (at timestamptz, severity text, meaning text, event text, outcome text, reason text, tenant text,
		user_id text, actor jsonb, connector text, connection_id uuid, database_role text, session_user_name text,
		client_address inet, application_name text, assertion_jti text, audit_id bigint)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
	WITH state AS (SELECT * FROM (VALUES
		('OV001', 'notice', 'nobody was identified'),
		('OV002', 'warning', 'an assertion that is forged, expired or not for us'),
		('OV014', 'warning', 'outside policy, or to a host that may not have secrets'),
		('OV030', 'warning', 'a state that is unknown, used, expired or another person''s'),
		('OV032', 'alert', 'an answer of another authorization server (mix-up)'),
		('OV033', 'alert', 'another provider account than before'),
		('OV034', 'warning', 'an answer of a provider that is not valid'),
		('OV040', 'alert', 'the vault is sealed'),
		('OV041', 'alert', 'a record does not open: moved, changed or under a wrong key'),
		('OV042', 'alert', 'the trail could not be written, so there was no token'),
		('OV050', 'notice', 'too many requests at once'),
		('OV060', 'warning', 'an unclaimed copy of the database'),
		('OV070', 'warning', 'somebody who has been offboarded'),
		('foreign_id_token', 'alert', 'a refresh was answered with somebody else''s ID token')
		) x (reason, severity, meaning)),
	change AS (SELECT * FROM (VALUES
		('connector_created', 'a connector was made'), ('connector_altered', 'a connector was changed'),
		('connector_dropped', 'a connector was removed'), ('connector_paused', 'a connector was paused'),
		('client_secret_set', 'a client secret was replaced'), ('scope_policy_set', 'a scope policy was set'),
		('provider_set', 'a provider''s rules were changed'),
		('offboarding_requested', 'somebody or something leaves'), ('offboarded', 'an offboarding is complete'),
		('onboarded', 'somebody is back'), ('actor_unfrozen', 'a frozen agent may read again'),
		('claimed', 'a copy of the database was claimed'),
		('audit_key_created', 'the trail is sealed with a new key'),
		('key_rotation_requested', 'a rotation of keys was asked for'), ('keys_rotated', 'a rotation of keys has ended')
		) x (event, meaning)),
	trouble AS (SELECT * FROM (VALUES
		('reauth_required', 'notice', 'a grant is dead'), ('connector_paused', 'warning', 'a provider refuses our client'),
		('revocation_settled', 'warning', 'a revocation did not reach the provider'),
		('keys_rotated', 'alert', 'keys do not open'),
		('actor_frozen', 'alert', 'an agent read more often than it may, and is frozen')
		) x (event, severity, meaning))
	SELECT a.at, coalesce(s.severity, t.severity, CASE WHEN a.outcome = 'ok' THEN 'change' ELSE 'notice' END),
		coalesce(s.meaning, t.meaning, c.meaning, 'refused'), a.event, a.outcome, a.reason, a.tenant, a.user_id, a.actor,
		a.connector, a.connection_id, a.database_role, a.session_user_name, a.client_address, a.application_name,
		a.assertion_jti, a.audit_id
	FROM oauth_vault.oauth_audit a
		LEFT JOIN state s ON s.reason = a.reason AND a.outcome <> 'ok'
		LEFT JOIN change c ON c.event = a.event AND a.outcome = 'ok'
		LEFT JOIN trouble t ON t.event = a.event AND a.outcome <> 'ok'
	WHERE a.at >= coalesce($1, now() - interval '90 days') AND a.at < coalesce($2, 'infinity')
		AND (c.event IS NOT NULL OR t.event IS NOT NULL OR s.reason IS NOT NULL OR a.outcome = 'denied')
	ORDER BY a.at, a.audit_id
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_security_events(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_security_events(timestamptz, timestamptz) TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_security_events(timestamptz, timestamptz) IS
	'Security events of the range: refusals, what went wrong, and what administrators changed';

CREATE FUNCTION oauth_vault.oauth_report_person(user_id text, tenant text DEFAULT '', since timestamptz DEFAULT NULL,
	until timestamptz DEFAULT NULL)
	RETURNS TABLE (at timestamptz, event text, outcome text, connector text, account text, connection_id uuid,
		agents jsonb, purpose text, scopes text[], database_role text, session_user_name text, client_address inet,
		application_name text, assertion_jti text, reason text, detail jsonb, audit_id bigint)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
DECLARE
	missing	text := CASE WHEN user_id IS NULL THEN 'user_id' WHEN tenant IS NULL THEN 'tenant' END;
BEGIN
	IF missing IS NOT NULL THEN
		RAISE EXCEPTION 'parameter "%" must not be null', missing USING ERRCODE = 'null_value_not_allowed';
	END IF;
	RETURN QUERY SELECT a.at, a.event, a.outcome, a.connector, a.account, a.connection_id,
		jsonb_path_query_array(a.actor, '$.**{0 to 8}.sub'), a.purpose, a.scopes, a.database_role, a.session_user_name,
		a.client_address, a.application_name, a.assertion_jti, a.reason, a.detail, a.audit_id
	FROM oauth_vault.oauth_audit a
	WHERE a.user_id = $1 AND a.tenant = $2
		AND a.at >= coalesce($3, '-infinity') AND a.at < coalesce($4, 'infinity')
	ORDER BY a.at, a.audit_id;
END
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_person(text, text, timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_person(text, text, timestamptz, timestamptz) TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_person(text, text, timestamptz, timestamptz) IS
	'One person''s trail, from the first row to the last: what was done, by which agent, for what, from where';

/* ---- export ---- */

CREATE FUNCTION oauth_vault.oauth_report_json(report text, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
	RETURNS SETOF text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $report$
BEGIN
	IF report IS NULL THEN
		RAISE EXCEPTION 'parameter "report" must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	CASE
		WHEN report IN ('access', 'provisioning', 'deprovisioning', 'timing', 'scopes', 'security_events') THEN
			RETURN QUERY EXECUTE format('SELECT to_jsonb(r)::text FROM oauth_vault.%I($1, $2) r', 'oauth_report_' || report)
				USING since, until;
		WHEN report IN ('privileges', 'crypto', 'configuration') THEN
			RETURN QUERY EXECUTE format('SELECT to_jsonb(r)::text FROM oauth_vault.%I() r', 'oauth_report_' || report);
		WHEN report = 'review' THEN
			RETURN QUERY SELECT to_jsonb(r)::text FROM oauth_vault.oauth_review(since, until) r;
		ELSE
			RAISE EXCEPTION 'there is no report "%"', report
				USING ERRCODE = 'invalid_parameter_value',
					HINT = 'access, privileges, provisioning, deprovisioning, timing, scopes, crypto, configuration, security_events or review';
	END CASE;
END
$report$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_json(text, timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_json(text, timestamptz, timestamptz) TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_report_json(text, timestamptz, timestamptz) IS
	'A report as JSON lines: one object for each row';
