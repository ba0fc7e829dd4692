/*
 * Functions.  What touches tokens or identity is C, VOLATILE and PARALLEL
 * UNSAFE (a worker commits while we wait, and we read past our snapshot), and
 * never STRICT: a NULL is an error that names the parameter, not a NULL token.
 */

/* ---- identity ---- */

CREATE FUNCTION oauth_vault.oauth_identify(assertion text, session boolean DEFAULT false) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_identify';
REVOKE ALL ON FUNCTION oauth_vault.oauth_identify(text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_identify(text, boolean) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_identify(text, boolean) IS
	'Verify a signed assertion and act for its subject: in this transaction, or with session => true until DISCARD ALL';

CREATE FUNCTION oauth_vault.oauth_identify_request() RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_identify_request';
REVOKE ALL ON FUNCTION oauth_vault.oauth_identify_request() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_identify_request() TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_identify_request() IS
	'oauth_identify with the bearer token of request.headers (PostgREST, Supabase)';

CREATE FUNCTION oauth_vault.oauth_whoami(assertion text DEFAULT NULL,
	OUT tenant text, OUT user_id text, OUT actor jsonb, OUT source text, OUT expires_at timestamptz,
	OUT prompts_pending integer)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_whoami';
REVOKE ALL ON FUNCTION oauth_vault.oauth_whoami(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_whoami(text) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_whoami(text) IS
	'Whom this session acts for, how that was proved and until when';

CREATE FUNCTION oauth_vault.row_visible(tenant text, user_id text) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_row_visible';
REVOKE ALL ON FUNCTION oauth_vault.row_visible(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.row_visible(text, text) TO oauth_vault_user, oauth_vault_admin, oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.row_visible(text, text) IS
	'Policy of row security: is this the session''s person?';

CREATE FUNCTION oauth_vault.session_tenant() RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_session_tenant';
REVOKE ALL ON FUNCTION oauth_vault.session_tenant() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.session_tenant() TO oauth_vault_user, oauth_vault_admin, oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.session_tenant() IS
	'Tenant of the session''s person, NULL without identity; lets the views use an index';

CREATE FUNCTION oauth_vault.session_user_id() RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_session_user_id';
REVOKE ALL ON FUNCTION oauth_vault.session_user_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.session_user_id() TO oauth_vault_user, oauth_vault_admin, oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.session_user_id() IS
	'User id of the session''s person, NULL without identity; lets the views use an index';

/* ---- a person's session ---- */

CREATE FUNCTION oauth_vault.oauth_begin(connector text, scopes text[] DEFAULT NULL, account text DEFAULT NULL,
	redirect_uri text DEFAULT NULL, login_hint text DEFAULT NULL, return_to text DEFAULT NULL,
	params jsonb DEFAULT '{}', assertion text DEFAULT NULL,
	OUT authorization_url text, OUT state text, OUT expires_at timestamptz)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_begin';
REVOKE ALL ON FUNCTION oauth_vault.oauth_begin(text, text[], text, text, text, text, jsonb, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_begin(text, text[], text, text, text, text, jsonb, text) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_begin(text, text[], text, text, text, text, jsonb, text) IS
	'Start connecting an account: the URL at which the person consents';

CREATE FUNCTION oauth_vault.oauth_complete(state text, code text, iss text DEFAULT NULL, params jsonb DEFAULT '{}',
	assertion text DEFAULT NULL,
	OUT connection_id uuid, OUT connector text, OUT account text, OUT provider_subject text, OUT status text,
	OUT scopes text[], OUT expires_at timestamptz, OUT return_to text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_complete';
REVOKE ALL ON FUNCTION oauth_vault.oauth_complete(text, text, text, jsonb, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_complete(text, text, text, jsonb, text) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_complete(text, text, text, jsonb, text) IS
	'Finish connecting an account with what the redirect brought';

CREATE FUNCTION oauth_vault.oauth_callback(url text, assertion text DEFAULT NULL,
	OUT connection_id uuid, OUT connector text, OUT account text, OUT provider_subject text, OUT status text,
	OUT scopes text[], OUT expires_at timestamptz, OUT return_to text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_callback';
REVOKE ALL ON FUNCTION oauth_vault.oauth_callback(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_callback(text, text) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_callback(text, text) IS
	'oauth_complete from the whole callback URL or its query string';

CREATE FUNCTION oauth_vault.oauth_fresh_token(connector text, account text DEFAULT NULL, scopes text[] DEFAULT NULL,
	min_ttl interval DEFAULT NULL, purpose text DEFAULT NULL, assertion text DEFAULT NULL) RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_fresh_token';
REVOKE ALL ON FUNCTION oauth_vault.oauth_fresh_token(text, text, text[], interval, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_fresh_token(text, text, text[], interval, text, text) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_fresh_token(text, text, text[], interval, text, text) IS
	'A live access token of the person''s account, or a precise error';

CREATE FUNCTION oauth_vault.oauth_credential(connector text, account text DEFAULT NULL, scopes text[] DEFAULT NULL,
	min_ttl interval DEFAULT NULL, purpose text DEFAULT NULL, assertion text DEFAULT NULL,
	OUT access_token text, OUT token_type text, OUT header_name text, OUT header_value text, OUT api_base text,
	OUT headers jsonb, OUT expires_at timestamptz, OUT scopes text[])
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_credential';
REVOKE ALL ON FUNCTION oauth_vault.oauth_credential(text, text, text[], interval, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_credential(text, text, text[], interval, text, text) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_credential(text, text, text[], interval, text, text) IS
	'oauth_fresh_token with everything a request to the provider''s API needs';

CREATE FUNCTION oauth_vault.oauth_fresh_tokens(connectors text[], min_ttl interval DEFAULT NULL,
	purpose text DEFAULT NULL, assertion text DEFAULT NULL)
	RETURNS TABLE (connector text, account text, access_token text, expires_at timestamptz, error_state text,
		error_detail jsonb)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_fresh_tokens';
REVOKE ALL ON FUNCTION oauth_vault.oauth_fresh_tokens(text[], interval, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_fresh_tokens(text[], interval, text, text) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_fresh_tokens(text[], interval, text, text) IS
	'Live access tokens of several connectors, an error per connector instead of raising it';

CREATE FUNCTION oauth_vault.oauth_report_rejected(connector text, token text, http_status integer DEFAULT 401,
	error text DEFAULT NULL, account text DEFAULT NULL, assertion text DEFAULT NULL) RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_report_rejected';
REVOKE ALL ON FUNCTION oauth_vault.oauth_report_rejected(text, text, integer, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_report_rejected(text, text, integer, text, text, text) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_report_rejected(text, text, integer, text, text, text) IS
	'An API refused this token: superseded, refreshed, reauth_required, insufficient_scope, unknown_token or rate_limited';

CREATE FUNCTION oauth_vault.oauth_revoke(connector text, account text DEFAULT NULL, assertion text DEFAULT NULL,
	OUT connection_id uuid, OUT local_state text, OUT provider_state text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_revoke';
REVOKE ALL ON FUNCTION oauth_vault.oauth_revoke(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_revoke(text, text, text) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_revoke(text, text, text) IS
	'End a connection: here with this transaction, at the provider once it has committed';

CREATE FUNCTION oauth_vault.oauth_set_my_limit(connector text, scopes text[], assertion text DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_set_my_limit';
REVOKE ALL ON FUNCTION oauth_vault.oauth_set_my_limit(text, text[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_set_my_limit(text, text[], text) TO oauth_vault_user;
COMMENT ON FUNCTION oauth_vault.oauth_set_my_limit(text, text[], text) IS
	'The person''s own ceiling of scopes at a connector; NULL removes it';

/* ---- administrators ---- */

CREATE FUNCTION oauth_vault.oauth_create_connector(name text, provider text, client_id text,
	client_secret text DEFAULT NULL, redirect_uri text DEFAULT NULL, scopes text[] DEFAULT NULL,
	max_scopes text[] DEFAULT NULL, params jsonb DEFAULT '{}', issuer text DEFAULT NULL,
	refresh_policy text DEFAULT 'recent', redirect_uris text[] DEFAULT NULL, require_actor boolean DEFAULT false,
	require_purpose boolean DEFAULT false, max_reads_per_actor integer DEFAULT NULL) RETURNS uuid
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_create_connector';
REVOKE ALL ON FUNCTION oauth_vault.oauth_create_connector(text, text, text, text, text, text[], text[], jsonb, text, text, text[],
	boolean, boolean, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_create_connector(text, text, text, text, text, text[], text[], jsonb, text, text, text[],
	boolean, boolean, integer) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_create_connector(text, text, text, text, text, text[], text[], jsonb, text, text, text[],
	boolean, boolean, integer) IS
	'Register our client at a provider, with the limits of what it may ask for';

CREATE FUNCTION oauth_vault.oauth_alter_connector(name text, client_id text DEFAULT NULL,
	redirect_uri text DEFAULT NULL, redirect_uris text[] DEFAULT NULL, scopes text[] DEFAULT NULL,
	max_scopes text[] DEFAULT NULL, params jsonb DEFAULT NULL, refresh_policy text DEFAULT NULL,
	status text DEFAULT NULL, reason text DEFAULT NULL, require_actor boolean DEFAULT NULL,
	require_purpose boolean DEFAULT NULL, max_reads_per_actor integer DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_alter_connector';
REVOKE ALL ON FUNCTION oauth_vault.oauth_alter_connector(text, text, text, text[], text[], text[], jsonb, text, text, text, boolean,
	boolean, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_alter_connector(text, text, text, text[], text[], text[], jsonb, text, text, text, boolean,
	boolean, integer) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_alter_connector(text, text, text, text[], text[], text[], jsonb, text, text, text, boolean,
	boolean, integer) IS
	'Change a connector, pause it or set it to work again; NULL leaves a setting as it is';

CREATE FUNCTION oauth_vault.oauth_drop_connector(name text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_drop_connector';
REVOKE ALL ON FUNCTION oauth_vault.oauth_drop_connector(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_drop_connector(text) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_drop_connector(text) IS
	'Remove a connector that has no live connections';

CREATE FUNCTION oauth_vault.oauth_set_client_secret(connector text, client_secret text,
	keep_previous boolean DEFAULT true) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_set_client_secret';
REVOKE ALL ON FUNCTION oauth_vault.oauth_set_client_secret(text, text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_set_client_secret(text, text, boolean) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_set_client_secret(text, text, boolean) IS
	'Replace a connector''s client secret; the one before is still tried unless keep_previous is false';

CREATE FUNCTION oauth_vault.oauth_set_scope_policy(connector text, tenant text, user_id text DEFAULT NULL,
	allowed text[] DEFAULT NULL, default_scopes text[] DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_set_scope_policy';
REVOKE ALL ON FUNCTION oauth_vault.oauth_set_scope_policy(text, text, text, text[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_set_scope_policy(text, text, text, text[], text[]) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_set_scope_policy(text, text, text, text[], text[]) IS
	'What a tenant, or one person of it, may ask of a connector; allowed NULL removes the policy';

CREATE FUNCTION oauth_vault.oauth_revoke_connection(connection_id uuid, reason text DEFAULT NULL,
	OUT local_state text, OUT provider_state text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_revoke_connection';
REVOKE ALL ON FUNCTION oauth_vault.oauth_revoke_connection(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_revoke_connection(uuid, text) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_revoke_connection(uuid, text) IS
	'End somebody''s connection: here with this transaction, at the provider once it has committed';

CREATE FUNCTION oauth_vault.oauth_revoke_connections(tenant text DEFAULT NULL, user_id text DEFAULT NULL,
	connector text DEFAULT NULL, scopes text[] DEFAULT NULL, unused_for interval DEFAULT NULL,
	consented_before timestamptz DEFAULT NULL, reason text DEFAULT NULL, dry_run boolean DEFAULT false,
	OUT connections bigint, OUT people bigint)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_revoke_connections';
REVOKE ALL ON FUNCTION oauth_vault.oauth_revoke_connections(text, text, text, text[], interval, timestamptz, text, boolean)
	FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_revoke_connections(text, text, text, text[], interval, timestamptz, text, boolean)
	TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_revoke_connections(text, text, text, text[], interval, timestamptz, text, boolean) IS
	'End all connections that fit every condition given; dry_run only counts them';

CREATE FUNCTION oauth_vault.oauth_offboard(user_id text, tenant text DEFAULT '', reason text DEFAULT NULL,
	deadline interval DEFAULT '7 days',
	OUT offboarding_id bigint, OUT state text, OUT connections bigint, OUT deadline_at timestamptz)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_offboard';
REVOKE ALL ON FUNCTION oauth_vault.oauth_offboard(text, text, text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_offboard(text, text, text, interval) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_offboard(text, text, text, interval) IS
	'A person leaves: blocked with this transaction, revoked at every provider, then erased';

CREATE FUNCTION oauth_vault.oauth_offboard_tenant(tenant text, reason text DEFAULT NULL,
	deadline interval DEFAULT '7 days',
	OUT offboarding_id bigint, OUT state text, OUT connections bigint, OUT deadline_at timestamptz)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_offboard_tenant';
REVOKE ALL ON FUNCTION oauth_vault.oauth_offboard_tenant(text, text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_offboard_tenant(text, text, interval) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_offboard_tenant(text, text, interval) IS
	'A whole tenant leaves: oauth_offboard for everybody of it, also for who has not connected anything yet';

CREATE FUNCTION oauth_vault.oauth_offboard_connector(connector text, reason text DEFAULT NULL,
	deadline interval DEFAULT '7 days',
	OUT offboarding_id bigint, OUT state text, OUT connections bigint, OUT deadline_at timestamptz)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_offboard_connector';
REVOKE ALL ON FUNCTION oauth_vault.oauth_offboard_connector(text, text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_offboard_connector(text, text, interval) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_offboard_connector(text, text, interval) IS
	'An app leaves, or its client is compromised: no new consents, and every grant is revoked';

CREATE FUNCTION oauth_vault.oauth_onboard(user_id text, tenant text DEFAULT '') RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_onboard';
REVOKE ALL ON FUNCTION oauth_vault.oauth_onboard(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_onboard(text, text) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_onboard(text, text) IS
	'A person is back, and starts with nothing; false: had not been offboarded';

CREATE FUNCTION oauth_vault.oauth_onboard_tenant(tenant text) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_onboard_tenant';
REVOKE ALL ON FUNCTION oauth_vault.oauth_onboard_tenant(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_onboard_tenant(text) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_onboard_tenant(text) IS
	'A tenant is back, and its people start with nothing; false: had not been offboarded';

CREATE FUNCTION oauth_vault.oauth_import_connection(tenant text, user_id text, connector text, account text,
	access_token text, refresh_token text DEFAULT NULL, expires_at timestamptz DEFAULT NULL, scopes text[] DEFAULT '{}',
	metadata jsonb DEFAULT '{}', provider_subject text DEFAULT NULL) RETURNS uuid
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_import_connection';
REVOKE ALL ON FUNCTION oauth_vault.oauth_import_connection(text, text, text, text, text, text, timestamptz, text[], jsonb, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_import_connection(text, text, text, text, text, text, timestamptz, text[], jsonb, text) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_import_connection(text, text, text, text, text, text, timestamptz, text[], jsonb, text) IS
	'Take over a grant that was made elsewhere; returns the connection''s id';

CREATE FUNCTION oauth_vault.oauth_import_connections(connector text, rows jsonb)
	RETURNS TABLE (n integer, connection_id uuid, outcome text, sqlstate text, message text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'ov_import_connections';
REVOKE ALL ON FUNCTION oauth_vault.oauth_import_connections(text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_import_connections(text, jsonb) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_import_connections(text, jsonb) IS
	'Take over up to 1000 grants that were made elsewhere, each with its outcome; what is there already stays';

CREATE FUNCTION oauth_vault.oauth_discover(issuer text) RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_discover';
REVOKE ALL ON FUNCTION oauth_vault.oauth_discover(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_discover(text) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_discover(text) IS
	'Metadata that an issuer publishes about itself (RFC 8414, OpenID Connect Discovery)';

CREATE FUNCTION oauth_vault.oauth_set_provider(name text, rules jsonb) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_set_provider';
REVOKE ALL ON FUNCTION oauth_vault.oauth_set_provider(text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_set_provider(text, jsonb) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_set_provider(text, jsonb) IS
	'Add a provider of this site, or correct a built-in one (RFC 7396 merge)';

CREATE FUNCTION oauth_vault.oauth_drop_provider(name text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_drop_provider';
REVOKE ALL ON FUNCTION oauth_vault.oauth_drop_provider(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_drop_provider(text) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_drop_provider(text) IS
	'Remove what oauth_set_provider set; a built-in provider is again as it came';

CREATE FUNCTION oauth_vault.oauth_claim(discard_outbox boolean DEFAULT true) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_claim';
REVOKE ALL ON FUNCTION oauth_vault.oauth_claim(boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_claim(boolean) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_claim(boolean) IS
	'This copy of the database is the one that goes on: end the hold';

CREATE FUNCTION oauth_vault.oauth_rotate_keys(mode text DEFAULT 'rewrap',
	OUT rotation_id bigint, OUT state text, OUT keys_total bigint)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_rotate_keys';
REVOKE ALL ON FUNCTION oauth_vault.oauth_rotate_keys(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_rotate_keys(text) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_rotate_keys(text) IS
	'Wrap all keys with the active platform key (rewrap), or replace them and seal every record anew (rekey)';

CREATE FUNCTION oauth_vault.oauth_explain(connection_id uuid) RETURNS TABLE (item text, value text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_explain';
REVOKE ALL ON FUNCTION oauth_vault.oauth_explain(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_explain(uuid) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_explain(uuid) IS
	'Why is this connection in the state it is, and what happens next?';

CREATE FUNCTION oauth_vault.oauth_refresh(connection_id uuid) RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_refresh_now';
REVOKE ALL ON FUNCTION oauth_vault.oauth_refresh(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_refresh(uuid) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_refresh(uuid) IS
	'Renew this connection''s token now: refreshed, or the error';

/* ---- auditors ---- */

CREATE FUNCTION oauth_vault.oauth_audit_verify(since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
	head text DEFAULT NULL, relation regclass DEFAULT NULL,
	OUT ok boolean, OUT problem text, OUT bad_id bigint, OUT explanation text, OUT rows bigint,
	OUT first_id bigint, OUT last_id bigint, OUT heads bigint, OUT sealed_id bigint, OUT unsealed bigint,
	OUT rows_per_second double precision)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_audit_verify';
REVOKE ALL ON FUNCTION oauth_vault.oauth_audit_verify(timestamptz, timestamptz, text, regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_audit_verify(timestamptz, timestamptz, text, regclass) TO oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.oauth_audit_verify(timestamptz, timestamptz, text, regclass) IS
	'Is the audit trail as it was written?  The first row or batch that is not, and why';

/* ---- agents ---- */

CREATE FUNCTION oauth_vault.oauth_unfreeze_actor(connector text, actor text, tenant text DEFAULT '') RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_unfreeze_actor';
REVOKE ALL ON FUNCTION oauth_vault.oauth_unfreeze_actor(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_unfreeze_actor(text, text, text) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_unfreeze_actor(text, text, text) IS
	'Lets an actor that has read too often read again; false: it was not frozen';

/* ---- behind the views ---- */

CREATE FUNCTION oauth_vault.frozen_actors()
	RETURNS TABLE (connector text, tenant text, actor text, frozen_at timestamptz, frozen_until timestamptz)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_frozen_actors';
REVOKE ALL ON FUNCTION oauth_vault.frozen_actors() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.frozen_actors() TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.frozen_actors() IS
	'What oauth_frozen_actors shows';

CREATE FUNCTION oauth_vault.platform_keys(
	OUT platform_version integer, OUT fingerprint text, OUT user_keys bigint, OUT connector_keys bigint,
	OUT audit_keys bigint, OUT loaded boolean, OUT active boolean) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_platform_keys';
REVOKE ALL ON FUNCTION oauth_vault.platform_keys() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.platform_keys() TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.platform_keys() IS
	'What oauth_platform_keys shows';

CREATE FUNCTION oauth_vault.vault_held() RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_vault_held';
REVOKE ALL ON FUNCTION oauth_vault.vault_held() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.vault_held() TO oauth_vault_user, oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.vault_held() IS
	'Is this database a copy that nobody has claimed?';

CREATE FUNCTION oauth_vault.vault_status(
	OUT held boolean, OUT held_reason text, OUT workers_running boolean, OUT active bigint, OUT reauth_required bigint,
	OUT revoking bigint, OUT revoked bigint, OUT connectors_paused bigint, OUT due bigint, OUT oldest_due timestamptz,
	OUT in_flight bigint, OUT in_doubt bigint, OUT inbox bigint, OUT outbox_queued bigint, OUT outbox_failed bigint,
	OUT flows_pending bigint, OUT roles_that_can_reach_keys text[], OUT next_due timestamptz,
	OUT worker_silent_seconds double precision)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_vault_status';
REVOKE ALL ON FUNCTION oauth_vault.vault_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.vault_status() TO oauth_vault_admin, oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.vault_status() IS
	'What oauth_status shows';

CREATE FUNCTION oauth_vault.offboardings()
	RETURNS TABLE (offboarding_id bigint, scope text, tenant text, user_id text, connector text, reason text,
		requested_at timestamptz, requested_by text, enforced_at timestamptz, deadline timestamptz, state text,
		connections bigint, queued bigint, confirmed bigint, unsupported bigint, failed bigint,
		residual_until timestamptz, last_settled_at timestamptz, completed_at timestamptz, completed_by text,
		keys_destroyed bigint, lifted_at timestamptz, lifted_by text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_offboardings';
REVOKE ALL ON FUNCTION oauth_vault.offboardings() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.offboardings() TO oauth_vault_admin, oauth_vault_auditor;
COMMENT ON FUNCTION oauth_vault.offboardings() IS
	'What oauth_offboarding shows';

CREATE FUNCTION oauth_vault.vault_hosts()
	RETURNS TABLE (host text, state text, in_flight integer, waiting integer, at_a_time integer, failures integer,
		paused_until timestamptz, budget_requests integer, budget_seconds integer, pauses bigint, clock_off_seconds bigint)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_vault_hosts';
REVOKE ALL ON FUNCTION oauth_vault.vault_hosts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.vault_hosts() TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.vault_hosts() IS
	'What oauth_hosts shows';

CREATE FUNCTION oauth_vault.vault_metrics()
	RETURNS TABLE (name text, type text, labels jsonb, value double precision, help text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_vault_metrics';
REVOKE ALL ON FUNCTION oauth_vault.vault_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.vault_metrics() TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.vault_metrics() IS
	'What oauth_metrics shows';

CREATE FUNCTION oauth_vault.merge_patch(target jsonb, patch jsonb) RETURNS jsonb
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'ov_merge_patch';
REVOKE ALL ON FUNCTION oauth_vault.merge_patch(jsonb, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.merge_patch(jsonb, jsonb) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.merge_patch(jsonb, jsonb) IS
	'JSON merge patch (RFC 7396)';
