/*
 * key_check.c
 *	  Does the vault file hold the platform keys that this database needs?
 *
 * Looked at when the worker starts, at each reload, after a rotation, and once
 * a minute: which platform keys the rows of vault_key are wrapped with is
 * published in shared memory (references.h), and one that is missing is told to
 * the server log.  When the keyring is another one than before, one row of each
 * platform key is opened as well.  Nothing is marked broken: with the right file
 * everything works again.
 *
 * An index gives the distinct platform keys, and one row of each; the cost does
 * not follow the number of rows.
 */
#include "worker/network.h"

#include "catalog/namespace.h"
#include "commands/dbcommands.h"
#include "errors.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "worker/references.h"

#define AGAIN_MS 60000
#define SOON_MS 1000

static OvQuery first_of_each = {
	"WITH RECURSIVE k AS ("
	" (SELECT " OV_KEY_COLUMNS " FROM oauth_vault.vault_key WHERE destroyed_at IS NULL"
	"  ORDER BY platform_version, platform_fingerprint LIMIT 1)"
	" UNION ALL SELECT n.* FROM k, LATERAL (SELECT " OV_KEY_COLUMNS " FROM oauth_vault.vault_key v"
	"  WHERE v.destroyed_at IS NULL AND (v.platform_version, v.platform_fingerprint) > (k.platform_version, k.platform_fingerprint)"
	"  ORDER BY v.platform_version, v.platform_fingerprint LIMIT 1) n)"
	" SELECT " OV_KEY_COLUMNS " FROM k", ""
};

void
ov_key_row(uint64 row, int col, OvKeyRow *key)
{
	memset(key, 0, sizeof(*key));
	key->key_id = ov_int8(row, col);
	key->kind = ov_text(row, col + 1);
	key->tenant = ov_text(row, col + 2);
	key->user_id = ov_text(row, col + 3);
	key->has_connector = !ov_null(row, col + 4);
	if (key->has_connector)
		memcpy(key->connector_id, ov_uuid(row, col + 4), 16);
	key->platform_version = (int) ov_int8(row, col + 5);
	key->platform_fingerprint = ov_text(row, col + 6);
	key->wrapped = ov_bytea(row, col + 7, &key->wrapped_len);
}

bool
ov_keys_settled(void)
{
	Oid			schema = get_namespace_oid("oauth_vault", false);

	return ConditionalLockRelationOid(get_relname_relid("vault_key", schema), ShareLock);
}

typedef struct Look
{
	OvKeyRow	keys[OV_MAX_REFERENCES];
	int			n;
	bool		whole;
	bool		has_home;
	OvHome		home;
	const char *trouble[OV_MAX_REFERENCES];	/* NULL: it opens */
	bool		try_it;			/* the keyring is new to us */
	bool		unknown;		/* the key worker did not say */
	char	   *database;
} Look;

/* Why the ring does not open this row; NULL: it does. */
static const char *
judge(Look *l, const OvKeyRow *key)
{
	const OvSettings *s = ov_settings_or_null();
	const char *fingerprint = s ? ov_ring_fingerprint(s, key->platform_version) : NULL;
	OvFailure	f = {{0}};

	if (s == NULL)
	{
		l->unknown = true;		/* the key worker has said why */
		return NULL;
	}
	if (fingerprint == NULL)
		return "The vault file does not hold this version, or holds it as retired.";
	if (key->platform_fingerprint[0] != '\0' && strcmp(key->platform_fingerprint, fingerprint) != 0)
		return psprintf("The vault file's version %d has fingerprint %s.", key->platform_version, fingerprint);
	if (!l->try_it || !l->has_home || ov_key_rewrap(l->home.vault_id, key, false, &f))
		return NULL;
	if (strcmp(f.sqlstate, "OV041") == 0 || strstr(f.detail, "platform key") != NULL)
		return psprintf("Key " INT64_FORMAT " does not open with it: %s.", key->key_id, f.message);
	l->unknown = true;
	return NULL;
}

static void
look(void *arg)
{
	Look	   *l = arg;
	MemoryContext old;

	/* before the rows are read: what is not there then will not come */
	l->whole = ov_keys_settled();
	l->n = (int) Min(ov_query(&first_of_each, OV_READ, NULL, NULL), OV_MAX_REFERENCES);
	/* they outlive the transaction */
	old = MemoryContextSwitchTo(ov_round);
	for (int i = 0; i < l->n; i++)
	{
		OvKeyRow   *key = &l->keys[i];

		ov_key_row(i, 1, key);
		key->wrapped = memcpy(palloc(key->wrapped_len + 1), key->wrapped, key->wrapped_len);
	}
	l->database = get_database_name(MyDatabaseId);
	MemoryContextSwitchTo(old);
	l->has_home = ov_home(&l->home);
}

/* Said once for each reading of the vault file, and again when it is another key. */
static void
tell(const Look *l)
{
	static uint32 said_under;
	static int	said[OV_MAX_REFERENCES];
	static int	nsaid;

	if (said_under != ov_settings_generation())
		nsaid = 0;
	said_under = ov_settings_generation();
	for (int i = 0; i < l->n; i++)
	{
		bool		known = false;

		for (int k = 0; k < nsaid; k++)
			known |= said[k] == l->keys[i].platform_version;
		if (l->trouble[i] == NULL || known)
			continue;
		said[nsaid++] = l->keys[i].platform_version;
		ereport(LOG,
				(errmsg("oauth_vault cannot open keys of database \"%s\": they need platform key version %d, fingerprint %s",
						l->database, l->keys[i].platform_version,
						l->keys[i].platform_fingerprint[0] ? l->keys[i].platform_fingerprint : "not known"),
				 errdetail_internal("%s", l->trouble[i]),
				 errhint("Put the vault file that this database was used with in place and reload. "
						 "Until then functions answer OV040; nothing is marked broken.")));
	}
}

void
ov_key_check_tick(TimestampTz now)
{
	Look	   *l = palloc0(sizeof(Look));
	OvReference list[OV_MAX_REFERENCES];
	static uint32 tried;		/* settings under which all opened, or were told */

	memset(list, 0, sizeof(list));
	ov_tick_at(OV_TICK_KEYS, TimestampTzPlusMilliseconds(now, AGAIN_MS));
	if (ov_transact("look whether the vault file holds our keys", look, l) != 0)
	{
		ov_tick_at(OV_TICK_KEYS, TimestampTzPlusMilliseconds(now, SOON_MS));
		return;
	}
	for (int i = 0; i < l->n; i++)
	{
		list[i].version = l->keys[i].platform_version;
		strlcpy(list[i].fingerprint, l->keys[i].platform_fingerprint, sizeof(list[i].fingerprint));
	}
	ov_references_publish(list, l->n, l->whole);
	/* outside the transaction: nobody is kept from vault_key while the key worker is busy */
	l->try_it = tried != ov_settings_generation();
	for (int i = 0; i < l->n && !l->unknown; i++)
		l->trouble[i] = judge(l, &l->keys[i]);
	if (!l->unknown)
		tried = ov_settings_generation();
	tell(l);
	if (l->unknown || !l->whole)
		ov_tick_at(OV_TICK_KEYS, TimestampTzPlusMilliseconds(now, SOON_MS));
}
