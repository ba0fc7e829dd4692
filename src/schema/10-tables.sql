/*
 * Tables.  Everything is owned by oauth_vault_owner; row-level security is
 * forced on whatever holds a person's rows (30-security.sql).
 *
 * COLLATE "C": identities are compared byte for byte.
 */
CREATE TABLE oauth_vault.home (
	singleton			boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	vault_id			uuid NOT NULL,
	system_identifier	bigint NOT NULL,
	timeline			integer NOT NULL,
	database_oid		oid NOT NULL,
	instance			text NOT NULL,
	claimed_at			timestamptz NOT NULL DEFAULT now(),	-- first use, or the last claim: moves forward only
	counter				bigint NOT NULL DEFAULT 0	-- within this claim; the state file follows it (src/worker/home.c)
);

CREATE SEQUENCE oauth_vault.vault_key_id AS bigint;
CREATE TABLE oauth_vault.vault_key (
	key_id				bigint PRIMARY KEY,
	kind				text NOT NULL CHECK (kind IN ('user', 'connector', 'audit')),
	tenant				text COLLATE "C" NOT NULL DEFAULT '',
	user_id				text COLLATE "C" NOT NULL DEFAULT '',
	connector_id		uuid,
	version				integer NOT NULL DEFAULT 1,	-- of the key, per owner
	platform_version	integer NOT NULL,
	platform_fingerprint text COLLATE "C" NOT NULL DEFAULT '',	-- of the platform key; '': not known
	wrapped				bytea NOT NULL,		-- empty once destroyed
	created_at			timestamptz NOT NULL DEFAULT now(),
	destroyed_at		timestamptz
);
CREATE UNIQUE INDEX vault_key_user ON oauth_vault.vault_key (tenant, user_id, version) WHERE kind = 'user';
CREATE UNIQUE INDEX vault_key_connector ON oauth_vault.vault_key (connector_id, version) WHERE kind = 'connector';
/* What a rotation has left to do is found without wading through what it has done. */
CREATE INDEX vault_key_platform ON oauth_vault.vault_key (platform_version, platform_fingerprint, key_id) WHERE destroyed_at IS NULL;
CREATE INDEX vault_key_live ON oauth_vault.vault_key (key_id) WHERE destroyed_at IS NULL;
CREATE INDEX vault_key_audit ON oauth_vault.vault_key (key_id) WHERE kind = 'audit';

/* Rotations of keys: asked for by an administrator, worked on by the network worker. */
CREATE TABLE oauth_vault.key_rotation (
	rotation_id			bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	mode				text NOT NULL CHECK (mode IN ('rewrap', 'rekey')),
	state				text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed')),
	requested_at		timestamptz NOT NULL DEFAULT now(),
	requested_by		text NOT NULL,
	below_key_id		bigint NOT NULL,	-- rekey: keys with a lower id are old
	keys_total			bigint NOT NULL,
	keys_done			bigint NOT NULL DEFAULT 0,
	records_done		bigint NOT NULL DEFAULT 0,
	waiting				bigint NOT NULL DEFAULT 0,	-- keys left when all had been looked at
	failed				bigint NOT NULL DEFAULT 0,	-- of these, keys that do not open
	last_error			text,
	updated_at			timestamptz,
	finished_at			timestamptz
);
/* One at a time */
CREATE UNIQUE INDEX key_rotation_running ON oauth_vault.key_rotation ((true)) WHERE state = 'running';

CREATE TABLE oauth_vault.provider_builtin (
	name				text COLLATE "C" PRIMARY KEY,
	rules				jsonb NOT NULL
);
CREATE TABLE oauth_vault.provider_site (
	name				text COLLATE "C" PRIMARY KEY,
	rules				jsonb NOT NULL,		-- merged over the built-in document of the same name (RFC 7396)
	changed_at			timestamptz NOT NULL DEFAULT now(),
	changed_by			text NOT NULL DEFAULT session_user
);

CREATE TABLE oauth_vault.connector (
	connector_id		uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	name				text COLLATE "C" NOT NULL UNIQUE,
	provider			text COLLATE "C" NOT NULL,
	client_id			text NOT NULL,
	client_secret		bytea,				-- record, purpose client_secret, under the connector key
	previous_secret		bytea,				-- still tried during an overlap
	secret_generation	bigint NOT NULL DEFAULT 1,
	previous_generation	bigint,
	key_id				bigint NOT NULL,
	redirect_uris		text[] NOT NULL,	-- first one is the default
	default_scopes		text[] NOT NULL DEFAULT '{}',
	max_scopes			text[],				-- NULL: no ceiling beyond the provider's
	params				jsonb NOT NULL DEFAULT '{}',	-- values of the rules' {variables}
	issuer				text,
	metadata			jsonb,				-- frozen discovery document
	refresh_policy		text NOT NULL DEFAULT 'recent' CHECK (refresh_policy IN ('eager', 'recent', 'lazy')),
	require_actor		boolean NOT NULL DEFAULT false,	-- tokens only for an agent that the assertion names
	require_purpose		boolean NOT NULL DEFAULT false,	-- tokens only for a caller that says what for
	max_reads_per_actor	integer CHECK (max_reads_per_actor > 0),	-- in a minute; NULL: no limit
	status				text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'retired', 'dropped')),	-- retired: only revocations leave
	status_reason		text,
	status_since		timestamptz NOT NULL DEFAULT now(),
	paused_by			text,				-- the administrator; NULL: nobody, or the network worker
	created_at			timestamptz NOT NULL DEFAULT now(),
	created_by			text NOT NULL DEFAULT session_user
);

CREATE TABLE oauth_vault.scope_policy (
	connector_id		uuid NOT NULL REFERENCES oauth_vault.connector ON DELETE CASCADE,
	tenant				text COLLATE "C" NOT NULL,
	user_id				text COLLATE "C",	-- NULL: everybody of the tenant
	allowed				text[] NOT NULL,
	default_scopes		text[],
	own_limit			boolean NOT NULL DEFAULT false,	-- the person's own ceiling (oauth_set_my_limit)
	changed_at			timestamptz NOT NULL DEFAULT now(),
	UNIQUE NULLS NOT DISTINCT (connector_id, tenant, user_id, own_limit)
);

/* One pending authorization; written by the network worker only. */
CREATE TABLE oauth_vault.flow (
	flow_id				uuid PRIMARY KEY,
	state_hash			bytea NOT NULL UNIQUE,	-- SHA-256 of the state
	tenant				text COLLATE "C" NOT NULL,
	user_id				text COLLATE "C" NOT NULL,
	actor				jsonb,
	connector_id		uuid NOT NULL REFERENCES oauth_vault.connector ON DELETE CASCADE,
	account				text COLLATE "C" NOT NULL DEFAULT '',
	redirect_uri		text NOT NULL,
	requested_scopes	text[] NOT NULL DEFAULT '{}',
	params				jsonb NOT NULL DEFAULT '{}',
	return_to			text,
	issuer				text,
	verifier			bytea,				-- record, purpose pkce_verifier, under the connector key
	nonce				text,
	hosts_digest		bytea NOT NULL,
	created_at			timestamptz NOT NULL DEFAULT now(),
	expires_at			timestamptz NOT NULL,
	consumed_at			timestamptz			-- set and committed before the code is sent
);
CREATE INDEX flow_person ON oauth_vault.flow (tenant, user_id);
CREATE INDEX flow_expiry ON oauth_vault.flow (expires_at);

/* One person's grant at one connector. Token columns are written by the network worker only. */
CREATE TABLE oauth_vault.connection (
	connection_id		uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	tenant				text COLLATE "C" NOT NULL,
	user_id				text COLLATE "C" NOT NULL,
	connector_id		uuid NOT NULL REFERENCES oauth_vault.connector,
	account				text COLLATE "C" NOT NULL DEFAULT '',
	status				text NOT NULL CHECK (status IN ('active', 'reauth_required', 'revoking', 'revoked', 'held')),
	status_reason		text,
	status_detail		jsonb,
	status_since		timestamptz NOT NULL DEFAULT now(),
	key_id				bigint NOT NULL,
	token_generation	bigint NOT NULL,
	decision_epoch		bigint NOT NULL DEFAULT 0,
	hosts_digest		bytea NOT NULL,
	expires_at			timestamptz,		-- NULL unknown, infinity never
	refresh_at			timestamptz,		-- when the worker is to act next; NULL: not scheduled
	attempts			integer NOT NULL DEFAULT 0,
	issued_at			timestamptz NOT NULL DEFAULT now(),
	refresh_expires_at	timestamptz,
	refresh_extended_at	timestamptz,		-- when a refresh last moved that; NULL: since the consent it has not
	refresh_fixed		boolean NOT NULL DEFAULT false,	-- using the refresh token does not prolong its life
	last_error			text,
	token_type			text NOT NULL DEFAULT 'Bearer',
	requested_scopes	text[] NOT NULL DEFAULT '{}',
	scopes				text[] NOT NULL DEFAULT '{}',
	provider_subject	text,
	metadata			jsonb NOT NULL DEFAULT '{}',	-- captured fields, variables of the rules
	consented_at		timestamptz NOT NULL DEFAULT now(),
	last_used_at		timestamptz,
	created_at			timestamptz NOT NULL DEFAULT now(),
	forced_at			timestamptz,		-- last refresh that a rejection report forced
	superseded			bytea,				-- 16-byte fingerprints of the last access tokens replaced, oldest first
	access_token		bytea,
	refresh_token		bytea,
	id_token			bytea
) WITH (toast_tuple_target = 8160);		-- tokens do not compress, and a row is read and written whole
/* One live grant per person, connector and account; revoked ones stay as history. */
CREATE UNIQUE INDEX connection_live ON oauth_vault.connection (tenant, user_id, connector_id, account)
	WHERE status NOT IN ('revoking', 'revoked');
/* Connections with one chain of refresh tokens: few providers have that. */
CREATE INDEX connection_shared ON oauth_vault.connection (connector_id, (metadata ->> 'shared_key'))
	WHERE metadata ? 'shared_key' AND status = 'active';
CREATE INDEX connection_person ON oauth_vault.connection (tenant, user_id);
CREATE INDEX connection_due ON oauth_vault.connection (connector_id, refresh_at)
	WHERE status = 'active' AND refresh_at IS NOT NULL;

/* Claimed refreshes: committed before the request leaves. Network worker only. */
CREATE TABLE oauth_vault.intent (
	connection_id		uuid PRIMARY KEY,
	token_generation	bigint NOT NULL,
	decision_epoch		bigint NOT NULL,
	started_at			timestamptz NOT NULL DEFAULT now(),
	in_doubt			boolean NOT NULL DEFAULT false,
	tries				integer NOT NULL DEFAULT 1	-- times sent; 0: waits for room at its host
);

/* Results whose connection row was locked; insert-only, applied when the lock goes. */
CREATE TABLE oauth_vault.grant_inbox (
	inbox_id			bigint PRIMARY KEY,	-- in order of arrival; its one writer counts, as a sequence could be set back
	connection_id		uuid NOT NULL,
	token_generation	bigint NOT NULL,	-- of the intent, or of a consent to come; the sealed records are for the next one
	decision_epoch		bigint NOT NULL,
	outcome				text NOT NULL,
	detail				jsonb NOT NULL DEFAULT '{}',
	access_token		bytea,
	refresh_token		bytea,
	id_token			bytea,
	received_at			timestamptz NOT NULL DEFAULT now()
);

/* Outbox of provider revocations: inserted by the decision, worked off after its commit. */
CREATE TABLE oauth_vault.revocation (
	revocation_id		bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	connection_id		uuid NOT NULL,
	tenant				text COLLATE "C" NOT NULL,
	user_id				text COLLATE "C" NOT NULL,
	connector_id		uuid NOT NULL,
	key_id				bigint NOT NULL,
	token_generation	bigint NOT NULL,
	hosts_digest		bytea NOT NULL,
	metadata			jsonb NOT NULL DEFAULT '{}',
	access_token		bytea,				-- the connection's records, moved here as they were
	refresh_token		bytea,
	-- queued with an outcome: settled, and waits for its connection's row;
	-- superseded: not sent, because it would have ended a newer grant too
	state				text NOT NULL DEFAULT 'queued'
						CHECK (state IN ('queued', 'confirmed', 'unsupported', 'failed', 'superseded')),
	attempts			integer NOT NULL DEFAULT 0,
	next_attempt_at		timestamptz NOT NULL DEFAULT now(),
	outcome				text,
	residual_until		timestamptz,
	requested_at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	seen_at				timestamptz,		-- the network worker found it committed: in force since then at the latest
	settled_at			timestamptz,
	offboarding_id		bigint				-- the decision that it is part of
);
CREATE INDEX revocation_due ON oauth_vault.revocation (next_attempt_at) WHERE state = 'queued';
CREATE INDEX revocation_connection ON oauth_vault.revocation (connection_id);
CREATE INDEX revocation_person ON oauth_vault.revocation (tenant, user_id) WHERE state = 'queued';
CREATE INDEX revocation_connector ON oauth_vault.revocation (connector_id) WHERE state = 'queued';
CREATE INDEX revocation_offboarding ON oauth_vault.revocation (offboarding_id) WHERE offboarding_id IS NOT NULL;

/*
 * People, tenants and connectors that leave: decided by an administrator, in
 * force with that commit, completed by the network worker.
 */
CREATE TABLE oauth_vault.offboarding (
	offboarding_id		bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	scope				text NOT NULL CHECK (scope IN ('person', 'tenant', 'connector')),
	tenant				text COLLATE "C",	-- NULL: a connector's
	user_id				text COLLATE "C",	-- NULL: a tenant's or a connector's
	connector_id		uuid,
	reason				text,
	requested_at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	requested_by		text NOT NULL DEFAULT session_user,
	seen_at				timestamptz,		-- as in revocation
	deadline			timestamptz NOT NULL,	-- then the rest is erased, whatever providers have said
	connections			bigint NOT NULL DEFAULT 0,	-- live ones that it ended
	next_look_at		timestamptz NOT NULL DEFAULT now(),
	completed_at		timestamptz,		-- no ciphertext is left, and no key
	completed_by		text CHECK (completed_by IN ('outcomes', 'deadline')),
	keys_destroyed		bigint NOT NULL DEFAULT 0,
	lifted_at			timestamptz,		-- the person or tenant is back
	lifted_by			text,
	lifted_key_id		bigint				-- keys with a lower id are of the time before
);
/* One at a time, and what is asked before anybody connects anything */
CREATE UNIQUE INDEX offboarding_in_force ON oauth_vault.offboarding (tenant, user_id, connector_id) NULLS NOT DISTINCT
	WHERE lifted_at IS NULL;
CREATE INDEX offboarding_person ON oauth_vault.offboarding (tenant, user_id);
CREATE INDEX offboarding_due ON oauth_vault.offboarding (next_look_at) WHERE completed_at IS NULL;

/* Written by the audit writer only. */
/*
 * The trail.  Partitioned by recorded_at, the audit writer's clock, which never
 * goes back along audit_id: a partition is a piece of the chain.  Partitions
 * are made by the audit writer (src/worker/audit_partition.c), ahead of time.
 * They are no members of the extension, so that pg_dump carries them as tables
 * with their rows, and there is no index here but on each of them: a restored
 * partition, attached before it has its own, would be given another.
 */
CREATE TABLE oauth_vault.audit (
	audit_id			bigint NOT NULL,	-- without gaps
	at					timestamptz NOT NULL,	-- of the event
	event				text NOT NULL,
	outcome				text NOT NULL,
	tenant				text COLLATE "C",
	user_id				text COLLATE "C",
	actor				jsonb,
	purpose				text,
	connector			text COLLATE "C",
	connection_id		uuid,
	account				text COLLATE "C",
	scopes				text[],
	database_role		text,
	session_user_name	text,
	client_address		inet,
	application_name	text,
	assertion_jti		text,
	token_fingerprint	bytea,
	reason				text,
	detail				jsonb,
	recorded_at			timestamptz NOT NULL,	-- when it was written
	hash				bytea NOT NULL		-- SHA-256 of this row and of the hash before it (src/core/chain.h)
) PARTITION BY RANGE (recorded_at);

/*
 * Heads: what hash the chain had after a row, under a MAC whose key the key
 * worker keeps.  "batch": rows that have been added.  "retired": rows of a
 * partition that retention has taken away.  Written by the audit writer.
 */
CREATE TABLE oauth_vault.audit_head (
	kind				text NOT NULL CHECK (kind IN ('batch', 'retired')),
	first_id			bigint NOT NULL,
	last_id				bigint NOT NULL,
	previous_hash		bytea NOT NULL,		-- of the row before first_id
	hash				bytea NOT NULL,		-- of the row last_id
	made_at				timestamptz NOT NULL,
	system_identifier	bigint NOT NULL,	-- where it was made
	timeline			integer NOT NULL,
	database_oid		oid NOT NULL,
	partition			text,				-- retired: its name
	key_id				bigint NOT NULL,	-- of the audit key
	mac					bytea NOT NULL
);
CREATE INDEX audit_head_last ON oauth_vault.audit_head (last_id);

COMMENT ON TABLE oauth_vault.home IS 'Which cluster, database and instance this vault lives in: one row, made with the first sealed secret';
COMMENT ON SEQUENCE oauth_vault.vault_key_id IS 'Ids of keys, never given twice';
COMMENT ON TABLE oauth_vault.vault_key IS 'Keys of persons, connectors and the audit chain, each wrapped by the platform key';
COMMENT ON TABLE oauth_vault.key_rotation IS 'Rotations of keys, under way and past';
COMMENT ON TABLE oauth_vault.provider_builtin IS 'Rules of the providers that come with the extension';
COMMENT ON TABLE oauth_vault.provider_site IS 'This site''s providers and its corrections of built-in ones';
COMMENT ON TABLE oauth_vault.connector IS 'Our client registrations at providers';
COMMENT ON TABLE oauth_vault.scope_policy IS 'What a tenant or a person may ask of a connector';
COMMENT ON TABLE oauth_vault.flow IS 'Consents under way';
COMMENT ON TABLE oauth_vault.connection IS 'Grants: one person''s account at one connector, with its sealed tokens';
COMMENT ON TABLE oauth_vault.intent IS 'Refreshes claimed and not yet finished';
COMMENT ON TABLE oauth_vault.grant_inbox IS 'Results of refreshes that wait for a locked row';
COMMENT ON TABLE oauth_vault.revocation IS 'Revocations to send to providers, and what became of them';
COMMENT ON TABLE oauth_vault.offboarding IS 'People, tenants and connectors that have left, and how far their erasure has come';
COMMENT ON TABLE oauth_vault.audit IS 'The audit trail';
COMMENT ON TABLE oauth_vault.audit_head IS 'Hashes of the audit trail under a MAC, one for each batch of rows';
