-- Row security by itself: with the filters of the views and functions out of
-- the way, a person sees own rows and nobody sees anything without being one.
CREATE ROLE regress_ov_ada IN ROLE oauth_vault_user;
CREATE ROLE regress_ov_mallory IN ROLE oauth_vault_user;

SELECT c.oid::regclass AS forced FROM pg_class c
	WHERE c.relnamespace = 'oauth_vault'::regnamespace AND relrowsecurity AND relforcerowsecurity AND NOT relispartition ORDER BY c.oid::regclass::text COLLATE "C";

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
INSERT INTO oauth_vault.grant_inbox (inbox_id, connection_id, token_generation, decision_epoch, outcome)
	SELECT row_number() OVER (), connection_id, 1, 0, 'ok' FROM oauth_vault.connection;
INSERT INTO oauth_vault.revocation (connection_id, tenant, user_id, connector_id, key_id, token_generation, hosts_digest, state)
	SELECT connection_id, tenant, user_id, connector_id, key_id, 1, '', 'confirmed' FROM oauth_vault.connection;
INSERT INTO oauth_vault.offboarding (scope, tenant, user_id, connector_id, deadline, completed_at, lifted_at)
	SELECT s, t, u, c, now(), now(), now() FROM (VALUES ('person', '', 'regress_ov_ada', NULL), ('person', '', 'regress_ov_mallory', NULL),
		('person', 'acme', 'regress_ov_ada', NULL), ('tenant', '', NULL, NULL), ('tenant', 'acme', NULL, NULL),
		('connector', NULL, NULL, '00000000-0000-4000-8000-000000000001'::uuid)) v (s, t, u, c);
INSERT INTO oauth_vault.event_pending (event, tenant, user_id) SELECT 'test', tenant, user_id FROM oauth_vault.connection;
INSERT INTO oauth_vault.event (event_id, at, event, tenant, user_id) SELECT -row_number() OVER (), now(), 'test', tenant, user_id FROM oauth_vault.connection;
INSERT INTO oauth_vault.audit (audit_id, at, event, outcome, tenant, user_id, recorded_at, hash)
	SELECT -row_number() OVER (), now(), 'test', 'ok', tenant, user_id, now(), '' FROM oauth_vault.connection;
INSERT INTO oauth_vault.audit (audit_id, at, event, outcome, recorded_at, hash) VALUES (-99, now(), 'test of an administrator', 'ok', now(), '');
INSERT INTO oauth_vault.audit_head VALUES ('batch', 1, 1, '', '', now(), 0, 1, 0, NULL, 0, '');

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

-- The same from the catalogue, with exact numbers: a table that is new, a policy
-- that is gone or says too little or too much, security that is off or not
-- forced: each makes a difference.
CREATE FUNCTION pg_temp.own(t regclass) RETURNS text LANGUAGE sql AS $$
	SELECT CASE
		WHEN t IN ('oauth_vault.scope_policy'::regclass, 'oauth_vault.offboarding'::regclass) THEN 'tenant = %1$L AND coalesce(user_id, %2$L) = %2$L'
		WHEN t = 'oauth_vault.vault_key'::regclass THEN 'kind <> %3$L OR tenant = %1$L AND user_id = %2$L'
		WHEN bool_or(attname = 'user_id') THEN 'tenant = %1$L AND user_id = %2$L'
		WHEN bool_or(attname = 'connection_id') THEN
			'connection_id IN (SELECT connection_id FROM oauth_vault.connection WHERE tenant = %1$L AND user_id = %2$L)'
		ELSE 'nobody''s' END
	FROM pg_attribute WHERE attrelid = t AND attnum > 0 AND NOT attisdropped
$$;
CREATE FUNCTION pg_temp.wrong() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	r	record;
	who	text;
	own	bigint;
	n	bigint;
	mine bigint;
BEGIN
	FOR r IN SELECT c.oid::regclass AS t, format(pg_temp.own(c.oid), '', '%1$s', 'user') AS is_own,
			c.relname IN ('connection', 'revocation', 'scope_policy') AS writes
		FROM pg_class c WHERE relnamespace = 'oauth_vault'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1
	LOOP
		IF r.is_own = 'nobody''s' THEN
			FOREACH who IN ARRAY '{regress_ov_mallory,oauth_vault_owner}'::text[]
			LOOP
				BEGIN
					INSERT INTO oauth_vault.home SELECT true, connector_id, 0, 0, 0, '' FROM oauth_vault.connector LIMIT 1 ON CONFLICT DO NOTHING;
					INSERT INTO oauth_vault.provider_site VALUES ('some', '{}');
					INSERT INTO oauth_vault.key_rotation (mode, state, requested_by, below_key_id, keys_total) VALUES ('rekey', 'done', 'x', 1, 0);
					INSERT INTO oauth_vault.event_consumer (consumer) VALUES ('some');
					EXECUTE format('SELECT count(*) FROM %s', r.t) INTO own;
					EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', r.t, who);
					EXECUTE format('SET LOCAL ROLE %I', who);
					EXECUTE format('SELECT count(*) FROM %s', r.t) INTO mine;
					EXECUTE format('WITH d AS (DELETE FROM %s RETURNING 1) SELECT count(*) FROM d', r.t) INTO n;
					RAISE SQLSTATE 'P1234';
				EXCEPTION WHEN SQLSTATE 'P1234' THEN
					RESET ROLE;
				WHEN foreign_key_violation THEN		-- it may be deleted, but is needed
					n := -1;
				END;
				IF n <> 0 OR own = 0 OR mine <> (CASE WHEN r.t = 'oauth_vault.audit_head'::regclass THEN 0 ELSE own END) THEN
					RETURN NEXT format('%s sees %s rows of %s, which has %s, and deletes %s', who, mine, r.t, own, n);
				END IF;
			END LOOP;
			CONTINUE;
		END IF;
		FOREACH who IN ARRAY '{regress_ov_ada,regress_ov_mallory,oauth_vault_owner}'::text[]
		LOOP
			EXECUTE format('SELECT count(*) FROM %s WHERE %s', r.t, format(r.is_own, who)) INTO own;
			EXECUTE format('SET LOCAL ROLE %I', who);
			EXECUTE format('SELECT count(*), count(*) FILTER (WHERE %s) FROM %s', format(r.is_own, who), r.t) INTO n, mine;
			RESET ROLE;
			IF n <> own OR mine <> own THEN
				RETURN NEXT format('%s sees %s rows of %s, %s of them own; own are %s', who, n, r.t, mine, own);
			END IF;
		END LOOP;
		EXECUTE format('SELECT count(*) FROM %s WHERE %s %s', r.t, format(r.is_own, 'regress_ov_mallory'),
			CASE WHEN NOT r.writes THEN 'AND false' WHEN r.t = 'oauth_vault.scope_policy'::regclass THEN 'AND own_limit' ELSE '' END) INTO own;
		IF r.t = 'oauth_vault.vault_key'::regclass THEN
			own := 0;
		END IF;
		BEGIN
			EXECUTE format('GRANT DELETE ON %s TO regress_ov_mallory', r.t);
			SET LOCAL ROLE regress_ov_mallory;
			EXECUTE format('WITH d AS (DELETE FROM %s RETURNING 1) SELECT count(*) FROM d', r.t) INTO n;
			RAISE SQLSTATE 'P1234';
		EXCEPTION WHEN SQLSTATE 'P1234' THEN
			RESET ROLE;
		END;
		IF n <> own THEN
			RETURN NEXT format('regress_ov_mallory deletes %s rows of %s instead of %s', n, r.t, own);
		END IF;
	END LOOP;
	SELECT (SELECT count(*) FROM oauth_vault.audit) + 1000 * (SELECT count(*) FROM oauth_vault.audit_head) INTO own;
	SET LOCAL ROLE oauth_vault_auditor;
	SELECT (SELECT count(*) FROM oauth_vault.audit) + 1000 * (SELECT count(*) FROM oauth_vault.audit_head) INTO n;
	RESET ROLE;
	IF n <> own THEN
		RETURN NEXT format('an auditor sees %s rows of audit instead of %s', n, own);
	END IF;
END
$$;
SELECT * FROM pg_temp.wrong();
-- what is nobody's
SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'oauth_vault'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
	AND pg_temp.own(c.oid) = 'nobody''s' ORDER BY c.relname COLLATE "C";
-- is any of it looked at in vain?
DO $$
DECLARE
	broken	record;
	found	text;
	tried	integer := 0;
BEGIN
	FOR broken IN SELECT * FROM (
		SELECT format('DROP POLICY %I ON %s', polname, polrelid::regclass) AS how FROM pg_policy
			WHERE polrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'oauth_vault'::regnamespace)
		UNION ALL
		SELECT format('ALTER TABLE %s %s ROW LEVEL SECURITY', c.oid::regclass, w) FROM pg_class c, unnest('{DISABLE,NO FORCE}'::text[]) w
			WHERE relnamespace = 'oauth_vault'::regnamespace AND relrowsecurity AND NOT relispartition AND (w = 'DISABLE' OR relforcerowsecurity)
		UNION ALL
		SELECT format('CREATE POLICY leak ON %s USING (true)', c.oid::regclass) FROM pg_class c
			WHERE relnamespace = 'oauth_vault'::regnamespace AND relrowsecurity AND NOT relispartition) b ORDER BY how COLLATE "C"
	LOOP
		BEGIN
			EXECUTE broken.how;
			SELECT string_agg(w, '; ') INTO found FROM pg_temp.wrong() w;
			RAISE SQLSTATE 'P1235';
		EXCEPTION WHEN SQLSTATE 'P1235' THEN
			tried := tried + 1;
			IF found IS NULL THEN
				RAISE NOTICE 'not noticed: %', broken.how;
			END IF;
		END;
	END LOOP;
	RAISE NOTICE 'at least 30 ways to break it: %', tried >= 30;
END
$$;

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
