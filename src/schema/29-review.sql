/*
 * The five questions of an enterprise's security review, answered from the
 * catalogue and the data as they are now.
 *
 * pass: nothing that we can see speaks against it.  attention: something that
 * somebody has to judge.  fail: it is not so.  limits says what no verdict can
 * tell, whatever the verdict is.
 */
CREATE FUNCTION oauth_vault.oauth_review(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
	RETURNS TABLE (question integer, asked text, verdict text, answer text, findings text[], limits text, evidence jsonb)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $review$
DECLARE
	vault		jsonb := oauth_vault.report_vault();
	source		text := vault #>> '{settings,identity_source}';
	failures	text[];
	remarks		text[];
	impact		boolean := EXISTS (SELECT FROM pg_catalog.pg_proc p
					WHERE p.pronamespace = 'oauth_vault'::regnamespace AND p.proname = 'oauth_policy_impact');
	dead		bigint;
	paused		bigint;
	changed		bigint;
BEGIN
	/*
	 * 1. A connector is per user when people consent at an authorization
	 * endpoint and nothing in its rules takes a token for the client itself.
	 */
	question := 1;
	asked := 'Is there per-user OAuth for every connector?';
	WITH k AS (
		SELECT r.connector, r.rules IS NULL AS unknown, coalesce(
				coalesce(r.rules #>> '{authorization,url}', r.issuer_authorization) IS NOT NULL
				AND NOT jsonb_path_exists(r.rules, '$.**.strategy ? (@ == "client_credentials")'), false) AS per_user
		FROM oauth_vault.report_connectors() r),
	c AS (
		SELECT r.* FROM oauth_vault.report_connections() r WHERE r.status NOT IN ('revoking', 'revoked')),
	shared AS (
		SELECT c.connector, c.provider_subject, count(DISTINCT (c.tenant, c.user_id)) AS people FROM c
		WHERE c.provider_subject <> '' GROUP BY 1, 2 HAVING count(DISTINCT (c.tenant, c.user_id)) > 1)
	SELECT jsonb_build_object(
		'connectors', (SELECT count(*) FROM k), 'per_user', (SELECT count(*) FROM k WHERE k.per_user),
		'not_per_user', (SELECT coalesce(jsonb_agg(k.connector ORDER BY k.connector), '[]') FROM k WHERE NOT k.per_user AND NOT k.unknown),
		'provider_unknown', (SELECT coalesce(jsonb_agg(k.connector ORDER BY k.connector), '[]') FROM k WHERE k.unknown),
		'live_connections', (SELECT count(*) FROM c), 'people', (SELECT count(DISTINCT (c.tenant, c.user_id)) FROM c),
		'accounts_of_several_people', (SELECT count(*) FROM shared), 'identity_source', source)
		INTO evidence;
	failures := CASE WHEN evidence -> 'not_per_user' <> '[]'
		THEN ARRAY['connectors without per-user OAuth: ' || (evidence ->> 'not_per_user')] ELSE '{}' END;
	remarks := array_remove(ARRAY[
		CASE WHEN evidence -> 'connectors' = '0' THEN 'there is no connector' END,
		CASE WHEN evidence -> 'provider_unknown' <> '[]'
			THEN 'connectors whose provider is not in the catalogue: ' || (evidence ->> 'provider_unknown') END,
		CASE WHEN evidence -> 'accounts_of_several_people' <> '0'
			THEN (evidence ->> 'accounts_of_several_people') || ' accounts at providers are connected by more than one person' END,
		CASE WHEN source IS NULL THEN 'the vault is sealed: nobody is identified' END,
		CASE WHEN source = 'role' THEN 'a database role is a person: a role that several share is one person here' END], NULL);
	answer := format('%s of %s connectors: each person consents and has tokens of their own; %s people have %s live grants.',
		evidence ->> 'per_user', evidence ->> 'connectors', evidence ->> 'people', evidence ->> 'live_connections');
	limits := 'Whether an account that a person connected is theirs alone, only the provider knows.';
	verdict := CASE WHEN failures <> '{}' THEN 'fail' WHEN remarks <> '{}' THEN 'attention' ELSE 'pass' END;
	findings := failures || remarks;
	RETURN NEXT;

	/* 2. */
	question := 2;
	asked := 'How are tokens stored, and who can read them?';
	WITH s AS (
		SELECT sum(r.records) AS all, coalesce(sum(r.records) FILTER (WHERE r.format IS NULL OR r.format <> 1 OR r.suite <> 1), 0) AS bare
		FROM oauth_vault.report_sealed() r),
	p AS (
		SELECT r.* FROM oauth_vault.oauth_report_privileges() r),
	y AS (
		SELECT coalesce(jsonb_object_agg(r.item, r.value) FILTER (WHERE r.verdict IN ('fail', 'attention')), '{}') AS judged,
			coalesce(jsonb_agg(r.item) FILTER (WHERE r.verdict = 'fail'), '[]') AS fails
		FROM oauth_vault.oauth_report_crypto() r)
	SELECT jsonb_build_object(
		'records', coalesce(s.all, 0), 'not_sealed', s.bare,
		'differs_from_installation', (SELECT coalesce(jsonb_agg(x.object || ': ' || x.field ORDER BY x.object, x.field), '[]')
			FROM oauth_vault.oauth_selfcheck x WHERE x.object <> 'PostgreSQL'),
		'upgraded', EXISTS (SELECT FROM oauth_vault.oauth_selfcheck x WHERE x.object = 'PostgreSQL'),
		'superusers', (SELECT coalesce(jsonb_agg(DISTINCT p.role), '[]') FROM p WHERE p.power = 'SUPERUSER'),
		'superusers_with_our_roles', (SELECT coalesce(jsonb_agg(DISTINCT p.role), '[]') FROM p
			JOIN pg_catalog.pg_roles r ON r.rolname = p.role AND r.rolsuper WHERE p.power LIKE 'member of oauth\_vault\_%'),
		'can_reach_tokens', (SELECT coalesce(jsonb_agg(DISTINCT p.role), '[]') FROM p WHERE p.reaches_tokens),
		'added_roles_that_can_reach_tokens', (SELECT coalesce(jsonb_agg(DISTINCT p.role), '[]') FROM p
			JOIN pg_catalog.pg_roles r ON r.rolname = p.role AND r.oid <> 10 WHERE p.reaches_tokens),
		'vault_file', vault -> 'vault_file', 'identity_source', source,
		'crypto', y.judged, 'crypto_fails', y.fails,
		'configuration', (SELECT coalesce(jsonb_agg(x.name ORDER BY x.name), '[]') FROM oauth_vault.oauth_report_configuration() x
			WHERE x.verdict IN ('fail', 'attention') AND x.name LIKE 'oauth\_vault.%'))
		INTO evidence FROM s, y;
	failures := array_remove(ARRAY[
		CASE WHEN evidence -> 'not_sealed' <> '0' THEN (evidence ->> 'not_sealed') || ' values are not sealed' END,
		CASE WHEN evidence -> 'differs_from_installation' <> '[]'
			THEN 'differs from what was installed (oauth_selfcheck): ' || (evidence ->> 'differs_from_installation') END,
		CASE WHEN evidence -> 'superusers_with_our_roles' <> '[]'
			THEN 'superusers that hold a role of ours, so that an application or administrator works as superuser: '
				|| (evidence ->> 'superusers_with_our_roles') END,
		CASE WHEN evidence -> 'crypto_fails' <> '[]' THEN 'crypto posture: ' || (evidence ->> 'crypto_fails') END], NULL);
	remarks := array_remove(ARRAY[
		CASE WHEN evidence -> 'added_roles_that_can_reach_tokens' <> '[]'
			THEN 'roles beside the cluster''s first superuser that can reach tokens: ' || (evidence ->> 'added_roles_that_can_reach_tokens') END,
		CASE WHEN (evidence ->> 'upgraded')::boolean THEN 'PostgreSQL is of another version than at installation: definitions were not compared' END,
		CASE WHEN source = 'role' THEN 'whoever may take a role is that person' END,
		CASE WHEN evidence -> 'configuration' <> '[]' THEN 'settings: ' || (evidence ->> 'configuration') END], NULL);
	answer := format('%s values, each sealed with AES-256-GCM under a key of its person or connector; %s not sealed. '
		'An access token is read by a session that has proved to act for its person; a refresh token and a client secret by no session.',
		evidence ->> 'records', evidence ->> 'not_sealed');
	limits := format('No, not nobody: a superuser (%s) reads the vault file through the server, and with it everything; '
		'so does root, and whoever is in can_reach_tokens. A key that signs assertions opens the access tokens of its issuer''s people. '
		'Whoever can change our functions can change what they are compared with, or put everything back.',
		(SELECT string_agg(x, ', ') FROM jsonb_array_elements_text(evidence -> 'superusers') x));
	verdict := CASE WHEN failures <> '{}' THEN 'fail' WHEN remarks <> '{}' THEN 'attention' ELSE 'pass' END;
	findings := failures || remarks;
	RETURN NEXT;

	/* 3. */
	question := 3;
	asked := 'What happens at offboarding, and in what window?';
	WITH d AS (
		SELECT r.* FROM oauth_vault.oauth_report_deprovisioning(since, until) r)
	SELECT jsonb_build_object(
		'revocations', count(*), 'confirmed', count(*) FILTER (WHERE d.provider_state = 'confirmed'),
		'unsupported', count(*) FILTER (WHERE d.provider_state = 'unsupported'),
		'failed', count(*) FILTER (WHERE d.provider_state = 'failed'),
		'queued', count(*) FILTER (WHERE d.provider_state = 'queued'),
		'queued_over_an_hour', count(*) FILTER (WHERE d.provider_state = 'queued' AND d.requested_at < now() - interval '1 hour'),
		'over_a_minute_here', count(*) FILTER (WHERE d.to_enforcement > interval '1 minute'),
		'to_enforcement', jsonb_build_object(
			'p50', date_part('epoch', percentile_cont(0.5) WITHIN GROUP (ORDER BY d.to_enforcement)),
			'p95', date_part('epoch', percentile_cont(0.95) WITHIN GROUP (ORDER BY d.to_enforcement)),
			'max', date_part('epoch', max(d.to_enforcement))),
		'to_provider', jsonb_build_object(
			'p50', date_part('epoch', percentile_cont(0.5) WITHIN GROUP (ORDER BY d.to_provider) FILTER (WHERE d.provider_state = 'confirmed')),
			'p95', date_part('epoch', percentile_cont(0.95) WITHIN GROUP (ORDER BY d.to_provider) FILTER (WHERE d.provider_state = 'confirmed')),
			'max', date_part('epoch', max(d.to_provider) FILTER (WHERE d.provider_state = 'confirmed'))),
		'tokens_alive_at_providers_until', max(d.residual_until),
		'held', vault -> 'held', 'workers', vault -> 'workers')
		|| (SELECT jsonb_build_object('offboardings', count(*), 'erased', count(o.completed_at),
				'past_deadline', count(*) FILTER (WHERE o.completed_at IS NULL AND o.lifted_at IS NULL AND o.deadline < now()),
				'offboarding_to_enforcement', jsonb_build_object(
					'p50', date_part('epoch', percentile_cont(0.5) WITHIN GROUP (ORDER BY o.enforced_at - o.requested_at)),
					'p95', date_part('epoch', percentile_cont(0.95) WITHIN GROUP (ORDER BY o.enforced_at - o.requested_at)),
					'max', date_part('epoch', max(o.enforced_at - o.requested_at))))
			FROM oauth_vault.oauth_offboarding o
			WHERE o.requested_at >= coalesce(since, now() - interval '90 days') AND o.requested_at < coalesce(until, 'infinity'))
		INTO evidence FROM d;
	failures := array_remove(ARRAY[
		CASE WHEN evidence -> 'over_a_minute_here' <> '0'
			THEN (evidence ->> 'over_a_minute_here') || ' revocations after which a token was still given out for more than a minute' END,
		CASE WHEN evidence -> 'past_deadline' <> '0'
			THEN (evidence ->> 'past_deadline') || ' offboardings are past their deadline, and not erased' END,
		CASE WHEN NOT (vault #>> '{workers,network}')::boolean THEN 'the network worker does not run: no provider is told' END], NULL);
	remarks := array_remove(ARRAY[
		CASE WHEN evidence -> 'failed' <> '0' THEN (evidence ->> 'failed') || ' revocations failed at the provider' END,
		CASE WHEN evidence -> 'queued_over_an_hour' <> '0'
			THEN (evidence ->> 'queued_over_an_hour') || ' revocations have waited for more than an hour' END,
		CASE WHEN evidence -> 'unsupported' <> '0'
			THEN (evidence ->> 'unsupported') || ' revocations at providers that have none: access tokens live until they expire' END,
		CASE WHEN (vault ->> 'held')::boolean THEN 'this copy of the database is held: nothing is sent' END], NULL);
	answer := format('A revoked connection, and everything of a person who is offboarded, gives out no token from the commit on, in every '
		'session; providers are told by a queue that survives crashes. In this range: %s offboardings, %s of them erased; %s revocations, %s confirmed by providers; seconds from request to the last token here: '
		'p50 %s, p95 %s, longest %s.', evidence ->> 'offboardings', evidence ->> 'erased',
		evidence ->> 'revocations', evidence ->> 'confirmed',
		coalesce(evidence #>> '{to_enforcement,p50}', '-'), coalesce(evidence #>> '{to_enforcement,p95}', '-'),
		coalesce(evidence #>> '{to_enforcement,max}', '-'));
	limits := 'No: a token that was given out before the revocation is not taken back here. It lives until the provider confirms '
		'or it expires. The time from request to enforcement includes how long the caller''s transaction stayed open.';
	verdict := CASE WHEN failures <> '{}' THEN 'fail' WHEN remarks <> '{}' THEN 'attention' ELSE 'pass' END;
	findings := failures || remarks;
	RETURN NEXT;

	/* 4. */
	question := 4;
	asked := 'What scope does each connector have?';
	WITH s AS (
		SELECT r.* FROM oauth_vault.oauth_report_scopes(since, until) r),
	k AS (
		SELECT r.connector, r.provider, r.default_scopes, r.max_scopes,
			ARRAY(SELECT c ->> 'class' FROM jsonb_array_elements(r.rules -> 'scopes') c
				WHERE c ->> 'name' = ANY (coalesce(r.max_scopes, r.default_scopes)) AND c ->> 'class' IN ('write', 'admin')) AS strong
		FROM oauth_vault.report_connectors() r),
	n AS (
		SELECT s.connector, count(*) AS live, count(*) FILTER (WHERE s.unused <> '{}' AND s.narrowed_accesses > 0) AS with_unused,
			count(*) FILTER (WHERE s.not_requested <> '{}') AS wider, count(*) FILTER (WHERE s.beyond_limit <> '{}') AS beyond,
			sum(s.narrowed_accesses) AS narrowed, sum(s.whole_accesses) AS whole
		FROM s GROUP BY 1)
	SELECT jsonb_build_object(
		'connectors', coalesce(jsonb_object_agg(k.connector, jsonb_build_object('provider', k.provider,
			'default', k.default_scopes, 'ceiling', k.max_scopes, 'writes', k.strong <> '{}', 'live', coalesce(n.live, 0),
			'granted_more_than_requested', coalesce(n.wider, 0), 'granted_beyond_ceiling_or_policy', coalesce(n.beyond, 0),
			'with_scopes_never_named', coalesce(n.with_unused, 0), 'accesses_that_named_scopes', coalesce(n.narrowed, 0),
			'accesses_with_all_scopes', coalesce(n.whole, 0))), '{}'),
		'beyond', coalesce(sum(n.beyond), 0), 'wider', coalesce(sum(n.wider), 0), 'with_unused', coalesce(sum(n.with_unused), 0),
		'without_ceiling', coalesce(jsonb_agg(k.connector ORDER BY k.connector) FILTER (WHERE k.max_scopes IS NULL), '[]'),
		'policies', (SELECT count(*) FROM oauth_vault.report_policies() r WHERE NOT r.own_limit),
		'own_limits', (SELECT count(*) FROM oauth_vault.report_policies() r WHERE r.own_limit))
		INTO evidence FROM k LEFT JOIN n ON n.connector = k.connector;
	failures := CASE WHEN evidence -> 'beyond' <> '0'
		THEN ARRAY[(evidence ->> 'beyond') || ' live grants reach beyond the connector''s ceiling or a policy'] ELSE '{}' END;
	remarks := array_remove(ARRAY[
		CASE WHEN evidence -> 'without_ceiling' <> '[]' THEN 'connectors without a ceiling: ' || (evidence ->> 'without_ceiling') END,
		CASE WHEN evidence -> 'wider' <> '0' THEN (evidence ->> 'wider') || ' live grants are wider than what was requested' END,
		CASE WHEN evidence -> 'with_unused' <> '0'
			THEN (evidence ->> 'with_unused') || ' live grants have scopes that no caller has named in this range' END], NULL);
	answer := format('evidence has each connector with its default and its ceiling; %s policies and %s limits of persons narrow them further.',
		evidence ->> 'policies', evidence ->> 'own_limits');
	limits := 'What a caller does with a token is not seen here: used means named when the token was asked for. '
		'A call that names no scopes may use all of them.';
	verdict := CASE WHEN failures <> '{}' THEN 'fail' WHEN remarks <> '{}' THEN 'attention' ELSE 'pass' END;
	findings := failures || remarks;
	RETURN NEXT;

	/* 5. */
	question := 5;
	asked := 'How are policy changes of providers handled?';
	SELECT count(*) FILTER (WHERE a.event = 'reauth_required'), count(*) FILTER (WHERE a.event = 'connector_paused' AND a.outcome = 'failed'),
		count(*) FILTER (WHERE a.event = 'provider_set' AND a.outcome = 'ok')
		INTO dead, paused, changed
		FROM oauth_vault.oauth_audit a
		WHERE a.at >= coalesce(since, now() - interval '90 days') AND a.at < coalesce(until, 'infinity')
			AND a.event IN ('reauth_required', 'connector_paused', 'provider_set');
	WITH p AS (
		SELECT DISTINCT r.provider, r.rules, r.site_rules, r.site_changed_at, r.site_changed_by FROM oauth_vault.report_connectors() r)
	SELECT jsonb_build_object(
		'providers_in_use', count(*), 'known_changes', coalesce(jsonb_object_agg(p.provider, p.rules -> 'policy')
			FILTER (WHERE p.rules -> 'policy' IS NOT NULL), '{}'),
		'rules_checked', coalesce(jsonb_object_agg(p.provider, p.rules #> '{basis,date}') FILTER (WHERE p.rules #> '{basis,date}' IS NOT NULL), '{}'),
		'rules_over_a_year_old', coalesce(jsonb_agg(p.provider ORDER BY p.provider)
			FILTER (WHERE p.rules #>> '{basis,date}' < to_char(now() - interval '1 year', 'YYYY-MM-DD')), '[]'),
		'rules_without_date', coalesce(jsonb_agg(p.provider ORDER BY p.provider) FILTER (WHERE p.rules #> '{basis,date}' IS NULL), '[]'),
		'changed_by_site', coalesce(jsonb_object_agg(p.provider, jsonb_build_object('at', p.site_changed_at, 'by', p.site_changed_by))
			FILTER (WHERE p.site_rules), '{}'),
		'grants_that_died', dead, 'connectors_paused_by_refusal', paused, 'changes_of_rules', changed,
		'connectors_resting', (SELECT count(*) FROM oauth_vault.report_connectors() r WHERE r.status <> 'active'),
		'impact_function', impact)
		INTO evidence FROM p;
	remarks := array_remove(ARRAY[
		CASE WHEN NOT impact THEN 'there is no oauth_policy_impact: whom a change affects is asked by hand' END,
		CASE WHEN evidence -> 'rules_over_a_year_old' <> '[]' THEN 'rules last checked more than a year ago: ' || (evidence ->> 'rules_over_a_year_old') END,
		CASE WHEN evidence -> 'rules_without_date' <> '[]' THEN 'rules that do not say when they were checked: ' || (evidence ->> 'rules_without_date') END,
		CASE WHEN evidence -> 'connectors_resting' <> '0'
			THEN (evidence ->> 'connectors_resting') || ' connectors rest until an administrator acts' END], NULL);
	answer := format('A provider''s behaviour is data: dated rules, which an administrator changes without a release, with a row in the trail (%s in this range). '
		'A grant that a provider ends is marked at the first refusal and its person is asked again (%s); a provider that refuses our client '
		'pauses the connector and keeps the grants (%s).', changed, dead, paused);
	limits := 'A change that a provider makes without telling shows at the first refused request, not before.';
	verdict := CASE WHEN remarks <> '{}' THEN 'attention' ELSE 'pass' END;
	findings := remarks;
	RETURN NEXT;
END
$review$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_review(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_review(timestamptz, timestamptz) TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_review(timestamptz, timestamptz) IS
	'The five questions of an enterprise''s security review, answered from the catalogue and the data as they are now';
