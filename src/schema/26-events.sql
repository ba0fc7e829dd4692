/*
 * Events: one row for each transition of a connection and each step of an
 * offboarding, in the transaction that makes it, so that there is an event
 * exactly if it has happened.  Triggers write them to event_pending; when they
 * are committed, the network worker moves them to event (src/worker/events.c),
 * where they get their place: whoever reads on from a place has missed nothing,
 * however long a transaction has taken to commit.  Never a token.
 */
CREATE TABLE oauth_vault.event_pending (
	pending_id			bigint GENERATED ALWAYS AS IDENTITY,
	at					timestamptz NOT NULL DEFAULT clock_timestamp(),
	event				text NOT NULL,
	tenant				text COLLATE "C",	-- NULL: a connector's
	user_id				text COLLATE "C",	-- NULL: a tenant's or a connector's
	connector_id		uuid,
	connection_id		uuid,
	account				text COLLATE "C",
	status				text,
	reason				text,
	PRIMARY KEY (pending_id, at)	-- a sequence that somebody has set back must not fail a refresh
);
CREATE TABLE oauth_vault.event (
	event_id			bigint PRIMARY KEY,		-- its one writer counts
	at					timestamptz NOT NULL,
	event				text NOT NULL,
	tenant				text COLLATE "C",
	user_id				text COLLATE "C",
	connector_id		uuid,
	connection_id		uuid,
	account				text COLLATE "C",
	status				text,
	reason				text
);
CREATE TABLE oauth_vault.event_consumer (
	consumer			text COLLATE "C" PRIMARY KEY,
	event_id			bigint NOT NULL DEFAULT 0,	-- up to here everything is done
	created_at			timestamptz NOT NULL DEFAULT now(),
	seen_at				timestamptz NOT NULL DEFAULT now()	-- to the minute
);
COMMENT ON TABLE oauth_vault.event_pending IS 'Events that have not got their place yet';
COMMENT ON TABLE oauth_vault.event IS 'What has happened to connections, in order';
COMMENT ON TABLE oauth_vault.event_consumer IS 'Who reads events, and how far they have come';

/* Written by nobody but the trigger, the network worker and the functions below (30-security.sql) */
ALTER TABLE oauth_vault.event_pending ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person ON oauth_vault.event_pending FOR SELECT
	USING (oauth_vault.row_visible(tenant, user_id));
COMMENT ON POLICY person ON oauth_vault.event_pending IS 'Own rows, to read';
ALTER TABLE oauth_vault.event ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY person ON oauth_vault.event FOR SELECT
	USING (oauth_vault.row_visible(tenant, user_id));
COMMENT ON POLICY person ON oauth_vault.event IS 'Own rows, to read';
ALTER TABLE oauth_vault.event_consumer ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY readable ON oauth_vault.event_consumer FOR SELECT USING (true);
COMMENT ON POLICY readable ON oauth_vault.event_consumer IS 'To read, for whoever may';

CREATE FUNCTION oauth_vault.note_event() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'ov_note_event';
REVOKE ALL ON FUNCTION oauth_vault.note_event() FROM PUBLIC;
COMMENT ON FUNCTION oauth_vault.note_event() IS
	'internal: writes down what has happened to the row';

/*
 * By row, as the condition keeps out nearly every change without a copy of the
 * row.  A restore puts rows back beside their events, and a subscriber gets both:
 * inserts count when we make them, and nothing ENABLEs these triggers ALWAYS.
 */
CREATE TRIGGER note_insert AFTER INSERT ON oauth_vault.connection
	FOR EACH ROW WHEN (CURRENT_USER = 'oauth_vault_owner') EXECUTE FUNCTION oauth_vault.note_event();
CREATE TRIGGER note_update AFTER UPDATE OF status, token_generation ON oauth_vault.connection
	FOR EACH ROW WHEN (OLD.status <> NEW.status OR OLD.token_generation <> NEW.token_generation)
	EXECUTE FUNCTION oauth_vault.note_event();
CREATE TRIGGER note_insert AFTER INSERT ON oauth_vault.offboarding
	FOR EACH ROW WHEN (CURRENT_USER = 'oauth_vault_owner') EXECUTE FUNCTION oauth_vault.note_event();
CREATE TRIGGER note_update AFTER UPDATE OF completed_at, lifted_by ON oauth_vault.offboarding
	FOR EACH ROW WHEN ((OLD.completed_at IS NULL AND NEW.completed_at IS NOT NULL)
		OR (OLD.lifted_by IS NULL AND NEW.lifted_by IS NOT NULL))
	EXECUTE FUNCTION oauth_vault.note_event();

CREATE FUNCTION oauth_vault.oauth_events(consumer text, max integer DEFAULT 100)
	RETURNS TABLE (event_id bigint, at timestamptz, event text, tenant text, user_id text, connector text,
		connection_id uuid, account text, status text, reason text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'ov_events';
REVOKE ALL ON FUNCTION oauth_vault.oauth_events(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_events(text, integer) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_events(text, integer) IS
	'What has happened since the event that the consumer has told to be done; the same again until then';

CREATE FUNCTION oauth_vault.oauth_events_done(consumer text, event_id bigint) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ov_events_done';
REVOKE ALL ON FUNCTION oauth_vault.oauth_events_done(text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oauth_vault.oauth_events_done(text, bigint) TO oauth_vault_admin;
COMMENT ON FUNCTION oauth_vault.oauth_events_done(text, bigint) IS
	'The consumer has dealt with this event and those before it; false if it had said so before';

SELECT pg_catalog.pg_extension_config_dump('oauth_vault.event_pending', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.event_pending_pending_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.event', '');
SELECT pg_catalog.pg_extension_config_dump('oauth_vault.event_consumer', '');
