/*
 * Views.  A person's views belong to oauth_vault_owner, whom row security
 * binds (30-security.sql), and filter by the session's person once more: that
 * comparison is what an index serves, the policy is what holds if it is wrong.
 * Adding a column is a minor change, renaming one a major.
 */

CREATE VIEW oauth_vault.oauth_connections WITH (security_barrier = true) AS
	SELECT c.connection_id,
		split_part(n.name, ':', 1) AS connector,	-- a dropped connector's name has a suffix
		n.provider,
		c.account,
		CASE
			WHEN c.status IN ('active', 'reauth_required') AND (SELECT oauth_vault.vault_held()) THEN 'held'
			WHEN c.status = 'active' AND i.connection_id IS NOT NULL THEN 'refreshing'
			ELSE c.status
		END AS status,
		c.status_reason,
		c.status_since,
		c.provider_subject,
		c.scopes,
		c.requested_scopes,
		c.expires_at,
		c.refresh_expires_at,
		c.last_used_at,
		c.consented_at,
		c.created_at,
		r.state AS provider_state,
		r.settled_at AS provider_settled_at,
		c.metadata,
		r.outcome AS provider_outcome,
		r.residual_until
	FROM oauth_vault.connection c
		JOIN oauth_vault.connector n USING (connector_id)
		LEFT JOIN oauth_vault.intent i USING (connection_id)
		LEFT JOIN LATERAL (
			SELECT v.state, v.settled_at, v.outcome, v.residual_until
			FROM oauth_vault.revocation v
			WHERE v.connection_id = c.connection_id AND c.status IN ('revoking', 'revoked')
			ORDER BY v.revocation_id DESC
			LIMIT 1) r ON true
	WHERE c.tenant = (SELECT oauth_vault.session_tenant())
		AND c.user_id = (SELECT oauth_vault.session_user_id());
COMMENT ON VIEW oauth_vault.oauth_connections IS
	'The person''s own connections, live and past, without anything secret';
GRANT SELECT ON oauth_vault.oauth_connections TO oauth_vault_user;

/*
 * Whatever needs somebody, and early: a refresh token in the last tenth of its
 * life, at most a week before its end.  A refresh that extended it began that
 * life anew.
 */
CREATE VIEW oauth_vault.oauth_reauth_prompts WITH (security_barrier = true) AS
	SELECT c.connection_id,
		split_part(n.name, ':', 1) AS connector,
		c.account,
		CASE p.state
			WHEN 'reauth_required' THEN c.status_reason
			WHEN 'connector_paused' THEN coalesce(n.status_reason, 'connector paused')
			WHEN 'expired' THEN 'expired_no_refresh_token'
			ELSE 'refresh_token_expiring'
		END AS reason,
		CASE p.state
			WHEN 'reauth_required' THEN c.status_since
			WHEN 'connector_paused' THEN n.status_since
			WHEN 'expired' THEN c.expires_at
			ELSE p.warn_at
		END AS since,
		CASE WHEN n.status = 'active' THEN 'person' ELSE 'administrator' END AS who_must_act,
		c.requested_scopes AS scopes,
		CASE
			WHEN n.status <> 'active' THEN
				format('The connection to %s rests until an administrator has put the connector right.', p.label)
			WHEN p.state = 'expiring' THEN
				format('Please connect %s again: its access ends soon.', p.label)
			ELSE
				format('Please connect %s again: its access has ended.', p.label)
		END AS message,
		p.state,
		CASE WHEN p.state = 'expiring' THEN c.refresh_expires_at END AS ends_at
	FROM oauth_vault.connection c
		JOIN oauth_vault.connector n USING (connector_id),
		LATERAL (SELECT CASE WHEN isfinite(c.refresh_expires_at) THEN c.refresh_expires_at
			- least((c.refresh_expires_at - coalesce(c.refresh_extended_at, c.consented_at)) / 10, interval '7 days')
			END AS warn_at) w,
		LATERAL (SELECT w.warn_at,
			split_part(n.name, ':', 1) || CASE WHEN c.account = '' THEN '' ELSE ' (' || c.account || ')' END AS label,
			CASE
				WHEN c.status = 'reauth_required' THEN 'reauth_required'
				WHEN c.status <> 'active' THEN NULL
				WHEN n.status <> 'active' THEN 'connector_paused'
				WHEN c.refresh_token IS NULL AND c.expires_at <= statement_timestamp() THEN 'expired'
				WHEN c.refresh_token IS NOT NULL AND w.warn_at <= statement_timestamp() THEN 'expiring'
			END AS state) p
	WHERE c.tenant = (SELECT oauth_vault.session_tenant())
		AND c.user_id = (SELECT oauth_vault.session_user_id())
		AND p.state IS NOT NULL;
COMMENT ON VIEW oauth_vault.oauth_reauth_prompts IS
	'The person''s connections that somebody must act on, and who';
GRANT SELECT ON oauth_vault.oauth_reauth_prompts TO oauth_vault_user;

CREATE VIEW oauth_vault.oauth_my_access WITH (security_barrier = true) AS
	SELECT a.at,
		a.event,
		a.outcome,
		a.connector,
		a.account,
		a.actor,
		a.purpose,
		a.application_name,
		a.client_address,
		a.reason
	FROM oauth_vault.audit a
	WHERE a.tenant = (SELECT oauth_vault.session_tenant())
		AND a.user_id = (SELECT oauth_vault.session_user_id());
COMMENT ON VIEW oauth_vault.oauth_my_access IS
	'Who used the person''s accounts, when and what for';
GRANT SELECT ON oauth_vault.oauth_my_access TO oauth_vault_user;

CREATE VIEW oauth_vault.oauth_connectors WITH (security_barrier = true) AS
	SELECT n.connector_id,
		n.name,
		n.provider,
		n.client_id,
		n.client_secret IS NOT NULL AS has_secret,
		n.previous_secret IS NOT NULL AS has_previous_secret,
		n.redirect_uris,
		n.default_scopes,
		n.max_scopes,
		n.params,
		n.issuer,
		n.metadata,
		n.refresh_policy,
		n.require_actor,
		n.require_purpose,
		n.max_reads_per_actor,
		n.status,
		n.status_reason,
		n.status_since,
		n.created_at,
		n.created_by
	FROM oauth_vault.connector n
	WHERE n.status <> 'dropped';
COMMENT ON VIEW oauth_vault.oauth_connectors IS
	'Connectors and their limits, without client secrets';
GRANT SELECT ON oauth_vault.oauth_connectors TO oauth_vault_admin;

CREATE VIEW oauth_vault.oauth_frozen_actors WITH (security_barrier = true) AS
	SELECT f.connector,
		f.tenant,
		f.actor,
		f.frozen_at,
		f.frozen_until
	FROM oauth_vault.frozen_actors() f;
COMMENT ON VIEW oauth_vault.oauth_frozen_actors IS
	'Actors that have read more often than their connector lets them, and get no tokens for a while';
GRANT SELECT ON oauth_vault.oauth_frozen_actors TO oauth_vault_admin;

CREATE VIEW oauth_vault.oauth_providers WITH (security_barrier = true) AS
	SELECT coalesce(b.name, s.name) AS name,
		CASE WHEN s.name IS NULL THEN 'built-in' WHEN b.name IS NULL THEN 'site' ELSE 'built-in, changed by site' END AS origin,
		CASE
			WHEN s.name IS NULL THEN b.rules
			WHEN b.name IS NULL THEN s.rules
			ELSE oauth_vault.merge_patch(b.rules, s.rules)
		END AS rules,
		s.changed_at,
		s.changed_by
	FROM oauth_vault.provider_builtin b
		FULL JOIN oauth_vault.provider_site s ON s.name = b.name;
COMMENT ON VIEW oauth_vault.oauth_providers IS
	'The catalogue of providers with this site''s additions and corrections';
GRANT SELECT ON oauth_vault.oauth_providers TO oauth_vault_admin;

CREATE VIEW oauth_vault.oauth_status WITH (security_barrier = true) AS
	SELECT s.held,
		s.held_reason,
		s.workers_running,
		s.active,
		s.reauth_required,
		s.revoking,
		s.revoked,
		s.connectors_paused,
		s.due,
		s.oldest_due,
		s.in_flight,
		s.in_doubt,
		s.inbox,
		s.outbox_queued,
		s.outbox_failed,
		s.flows_pending,
		s.roles_that_can_reach_keys,
		k.versions AS platform_versions,
		k.missing AS platform_versions_missing,
		s.next_due,
		h.waiting AS requests_waiting,
		h.paused AS hosts_paused,
		h.clock_off AS clock_off_seconds,
		s.worker_silent_seconds,
		array_remove(ARRAY[
			CASE WHEN s.held THEN format('administrator: this copy is held (%s): oauth_claim(), if it is the only one in use', s.held_reason) END,
			CASE WHEN NOT s.workers_running THEN
				'administrator: not all workers are running: look for oauth_vault in the server log, and at max_worker_processes' END,
			CASE WHEN s.workers_running AND s.worker_silent_seconds > 180 THEN
				format('administrator: the network worker has not been heard of for %s seconds', s.worker_silent_seconds::bigint) END,
			CASE WHEN cardinality(k.missing) > 0 THEN
				format('administrator: the vault file lacks platform key versions %s', k.missing::text) END,
			CASE WHEN abs(h.clock_off) > 60 THEN
				format('administrator: this server''s clock is %s seconds %s that of every provider asked', abs(h.clock_off),
					CASE WHEN h.clock_off > 0 THEN 'ahead of' ELSE 'behind' END) END,
			CASE WHEN n.paused IS NOT NULL THEN format('administrator: connectors rest until somebody puts them right: %s', n.paused) END,
			CASE WHEN h.paused > 0 THEN format('provider: hosts out of order, tried again by themselves: %s', h.names) END,
			CASE WHEN s.outbox_failed > 0 THEN
				format('administrator: %s revocations were given up: end these grants at the provider', s.outbox_failed) END,
			CASE WHEN s.reauth_required > 0 THEN
				format('persons: %s connections need a new consent (oauth_begin)', s.reauth_required) END], NULL) AS attention
	FROM oauth_vault.vault_status() s,
		LATERAL (SELECT coalesce(sum(v.waiting), 0)::bigint AS waiting, count(*) FILTER (WHERE v.state <> 'ok') AS paused,
			string_agg(format('%s (%s failures, next at %s)', v.host, v.failures, v.paused_until), ', ' ORDER BY v.host)
				FILTER (WHERE v.state <> 'ok') AS names,
			(array_agg(v.clock_off_seconds ORDER BY abs(v.clock_off_seconds)))[1] AS clock_off
			FROM oauth_vault.vault_hosts() v) h,
		LATERAL (SELECT string_agg(format('%s (%s)', c.name, coalesce(c.status_reason, c.status)), ', ' ORDER BY c.name) AS paused
			FROM oauth_vault.connector c WHERE c.status = 'paused') n,
		LATERAL (SELECT coalesce(array_agg(p.platform_version ORDER BY p.platform_version), '{}') AS versions,
			coalesce(array_agg(p.platform_version ORDER BY p.platform_version) FILTER (WHERE NOT p.loaded), '{}') AS missing
			FROM oauth_vault.platform_keys() p WHERE p.user_keys + p.connector_keys + p.audit_keys > 0) k;
COMMENT ON VIEW oauth_vault.oauth_status IS
	'This database''s vault in one row: counts, what waits, what needs attention and whose, and which roles could reach the platform key through the server''s files';
GRANT SELECT ON oauth_vault.oauth_status TO oauth_vault_admin;

CREATE VIEW oauth_vault.oauth_hosts WITH (security_barrier = true) AS
	SELECT h.host,
		h.state,
		h.in_flight,
		h.waiting,
		h.at_a_time,
		h.failures,
		h.paused_until,
		h.budget_requests,
		h.budget_seconds,
		h.pauses,
		h.clock_off_seconds
	FROM oauth_vault.vault_hosts() h;
COMMENT ON VIEW oauth_vault.oauth_hosts IS
	'Hosts of providers as the network worker sees them: at work, waiting, out of order, budgets';
GRANT SELECT ON oauth_vault.oauth_hosts TO oauth_vault_admin;

CREATE VIEW oauth_vault.oauth_platform_keys WITH (security_barrier = true) AS
	SELECT k.platform_version,
		k.fingerprint,
		k.user_keys,
		k.connector_keys,
		k.audit_keys,
		k.loaded,
		k.active
	FROM oauth_vault.platform_keys() k;
COMMENT ON VIEW oauth_vault.oauth_platform_keys IS
	'Platform keys: those in the vault file, and those that keys of this database are wrapped with';
GRANT SELECT ON oauth_vault.oauth_platform_keys TO oauth_vault_admin;

CREATE VIEW oauth_vault.oauth_key_rotation WITH (security_barrier = true) AS
	SELECT r.rotation_id,
		r.mode,
		r.state,
		r.requested_at,
		r.requested_by,
		r.keys_total,
		r.keys_done,
		r.records_done,
		r.waiting,
		r.failed,
		r.last_error,
		r.updated_at,
		r.finished_at
	FROM oauth_vault.key_rotation r
	OFFSET 0;	-- not to be written through
COMMENT ON VIEW oauth_vault.oauth_key_rotation IS
	'Rotations of keys: how far the one under way has come, and those before it';
GRANT SELECT ON oauth_vault.oauth_key_rotation TO oauth_vault_admin;

CREATE VIEW oauth_vault.oauth_offboarding WITH (security_barrier = true) AS
	SELECT o.offboarding_id,
		o.scope,
		o.tenant,
		o.user_id,
		o.connector,
		o.reason,
		o.requested_at,
		o.requested_by,
		o.enforced_at,
		o.deadline,
		o.state,
		o.connections,
		o.queued,
		o.confirmed,
		o.unsupported,
		o.failed,
		o.residual_until,
		o.last_settled_at,
		o.completed_at,
		o.completed_by,
		o.keys_destroyed,
		o.lifted_at,
		o.lifted_by
	FROM oauth_vault.offboardings() o;
COMMENT ON VIEW oauth_vault.oauth_offboarding IS
	'Who and what has left: how far the revocations have come, and the proof of the erasure';
GRANT SELECT ON oauth_vault.oauth_offboarding TO oauth_vault_admin, oauth_vault_auditor;

CREATE VIEW oauth_vault.oauth_metrics WITH (security_barrier = true) AS
	SELECT m.name,
		m.type,
		m.labels,
		m.value,
		m.help
	FROM oauth_vault.vault_metrics() m;
COMMENT ON VIEW oauth_vault.oauth_metrics IS
	'Figures for monitoring, in the terms of OpenMetrics';
GRANT SELECT ON oauth_vault.oauth_metrics TO oauth_vault_admin;

/* OpenMetrics 1.0: a family's samples stand together, after its TYPE, UNIT and HELP. */
CREATE FUNCTION oauth_vault.oauth_metrics_text() RETURNS text
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
	SELECT coalesce(string_agg(f.lines, '' ORDER BY f.family), '') || E'# EOF\n'
	FROM (
		SELECT m.family,
			format(E'# TYPE %s %s\n', m.family, min(m.type))
				|| coalesce('# UNIT ' || m.family || ' ' || substring(m.family FROM '_(seconds|bytes)$') || E'\n', '')
				|| format(E'# HELP %s %s\n', m.family, replace(replace(replace(min(m.help), '\', '\\'), E'\n', '\n'), '"', '\"'))
				|| string_agg(m.name || coalesce('{' || l.labels || '}', '') || ' ' || m.value || E'\n', '' ORDER BY m.labels::text) AS lines
		FROM (SELECT CASE WHEN x.type = 'counter' THEN regexp_replace(x.name, '_total$', '') ELSE x.name END AS family, x.*
				FROM oauth_vault.oauth_metrics x) m
			CROSS JOIN LATERAL (
				SELECT string_agg(e.key || '="' || replace(replace(replace(e.value, '\', '\\'), E'\n', '\n'), '"', '\"') || '"', ','
					ORDER BY e.key) AS labels
				FROM jsonb_each_text(m.labels) e) l
		GROUP BY m.family) f
	$$;
REVOKE ALL ON FUNCTION oauth_vault.oauth_metrics_text() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_metrics_text() TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_metrics_text() IS
	'oauth_metrics in the text format of OpenMetrics, for a scraper';

/*
 * The auditor's view reads with the auditor's rights, so that a policy can
 * tell auditors from everybody else.
 */
CREATE VIEW oauth_vault.oauth_audit WITH (security_barrier = true, security_invoker = true) AS
	SELECT a.audit_id,
		a.at,
		a.event,
		a.outcome,
		a.tenant,
		a.user_id,
		a.actor,
		a.purpose,
		a.connector,
		a.connection_id,
		a.account,
		a.scopes,
		a.database_role,
		a.session_user_name,
		a.client_address,
		a.application_name,
		a.assertion_jti,
		a.token_fingerprint,
		a.reason,
		a.detail,
		a.recorded_at,
		a.hash
	FROM oauth_vault.audit a;
COMMENT ON VIEW oauth_vault.oauth_audit IS
	'The audit trail: every access and every change, denials too';
GRANT SELECT ON oauth_vault.oauth_audit TO oauth_vault_auditor;
GRANT SELECT ON oauth_vault.audit TO oauth_vault_auditor;

CREATE VIEW oauth_vault.oauth_audit_heads WITH (security_barrier = true, security_invoker = true) AS
	SELECT h.kind,
		h.first_id,
		h.last_id,
		h.made_at,
		h.last_id || ':' || encode(h.hash, 'hex') AS head,
		h.system_identifier,
		h.timeline,
		h.database_oid,
		h.partition,
		h.key_id
	FROM oauth_vault.audit_head h;
COMMENT ON VIEW oauth_vault.oauth_audit_heads IS
	'The audit trail''s signed heads, as the server log has them: keep some elsewhere and give them to oauth_audit_verify';
GRANT SELECT ON oauth_vault.oauth_audit_heads TO oauth_vault_auditor;
GRANT SELECT ON oauth_vault.audit_head TO oauth_vault_auditor;
