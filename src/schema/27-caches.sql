/*
 * What sessions remember of these tables is forgotten by every one of them when
 * a row that matters changes (src/vault/hot.c).  ALWAYS, so that replication
 * and restores count too; switching a trigger off is an invalidation by itself.
 */
CREATE FUNCTION oauth_vault.invalidate() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'ov_invalidate';
REVOKE ALL ON FUNCTION oauth_vault.invalidate() FROM PUBLIC;
COMMENT ON FUNCTION oauth_vault.invalidate() IS
	'internal: every session forgets what it remembers of the table';

CREATE TRIGGER invalidate AFTER UPDATE OR DELETE OR TRUNCATE ON oauth_vault.connector
	FOR EACH STATEMENT EXECUTE FUNCTION oauth_vault.invalidate();
ALTER TABLE oauth_vault.connector ENABLE ALWAYS TRIGGER invalidate;

/* The counter in the home row moves all the time, and nobody remembers it. */
CREATE TRIGGER invalidate AFTER UPDATE ON oauth_vault.home
	FOR EACH ROW WHEN (OLD.vault_id IS DISTINCT FROM NEW.vault_id) EXECUTE FUNCTION oauth_vault.invalidate();
ALTER TABLE oauth_vault.home ENABLE ALWAYS TRIGGER invalidate;
CREATE TRIGGER invalidate_all AFTER DELETE OR TRUNCATE ON oauth_vault.home
	FOR EACH STATEMENT EXECUTE FUNCTION oauth_vault.invalidate();
ALTER TABLE oauth_vault.home ENABLE ALWAYS TRIGGER invalidate_all;

/* Wrapping a key anew leaves it the same key; destroying it does not. */
CREATE TRIGGER invalidate AFTER UPDATE ON oauth_vault.vault_key
	FOR EACH ROW WHEN (NEW.destroyed_at IS NOT NULL OR NEW.wrapped = '' OR OLD.key_id <> NEW.key_id)
	EXECUTE FUNCTION oauth_vault.invalidate();
ALTER TABLE oauth_vault.vault_key ENABLE ALWAYS TRIGGER invalidate;
CREATE TRIGGER invalidate_all AFTER DELETE OR TRUNCATE ON oauth_vault.vault_key
	FOR EACH STATEMENT EXECUTE FUNCTION oauth_vault.invalidate();
ALTER TABLE oauth_vault.vault_key ENABLE ALWAYS TRIGGER invalidate_all;
