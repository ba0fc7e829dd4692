/*
 * worker_keys.c
 *	  The network worker's keys: asked of the key worker, kept for a while.
 *
 * A bounded cache of people's subkeys and connector keys, by key row; cleansed
 * on eviction, when the vault file's settings change, and at exit.
 *
 * Asking waits for the key worker, interruptibly and briefly, in the middle of
 * a transaction that has sent nothing yet.  A job that has been sent holds its
 * own copies in its arena, so that storing an answer asks nobody.  While the
 * key worker does not answer, further questions fail at once for a moment: a
 * batch of claims must not wait once for each.
 */
#include "worker/network.h"

#include <openssl/crypto.h>

#include "conceal.h"
#include "errors.h"
#include "worker/references.h"

#define CACHE_SIZE 512			/* more than two batches of refreshes */
#define ASK_MS 3000
#define DOWN_MS 500

typedef struct Cached
{
	int64		key_id;			/* 0: free */
	unsigned char vault_id[16];
	unsigned char owner[32];	/* whose it is: tenant and user, or connector */
	OvUserKeys	keys;			/* a connector's is in .access */
	uint64		last_use;
} Cached;

static Cached cache[CACHE_SIZE];
static uint64 uses;
static uint32 generation;		/* of the settings the cache was filled under */
static TimestampTz down_until;
static unsigned char ask_buf[48 * 1024];
static unsigned char reply_buf[OV_MESSAGE_MAX];

static OvQuery wrapped_key = {
	"SELECT wrapped FROM oauth_vault.vault_key WHERE key_id = $1", "l"
};
static OvQuery wrapped_keys = {
	"SELECT key_id, wrapped FROM oauth_vault.vault_key WHERE key_id = ANY ($1)", "L"
};
static OvQuery current_key = {
	"SELECT key_id, wrapped FROM oauth_vault.vault_key WHERE kind = 'user' AND tenant = $1 AND user_id = $2"
	" AND destroyed_at IS NULL ORDER BY version DESC LIMIT 1", "tt"
};
static OvQuery next_key_id = {
	"SELECT nextval('oauth_vault.vault_key_id')", ""
};
static OvQuery insert_key = {
	"INSERT INTO oauth_vault.vault_key (key_id, kind, tenant, user_id, platform_version, platform_fingerprint, wrapped,"
	" version) SELECT $1, 'user', $2, $3, $4, $5, $6, coalesce(max(version), 0) + 1 FROM oauth_vault.vault_key"
	" WHERE kind = 'user' AND tenant = $2 AND user_id = $3", "lttitb"
};
static OvQuery insert_connector_key = {
	"INSERT INTO oauth_vault.vault_key (key_id, kind, connector_id, platform_version, platform_fingerprint, wrapped,"
	" version) SELECT $1, 'connector', $2, $3, $4, $5, coalesce(max(version), 0) + 1 FROM oauth_vault.vault_key"
	" WHERE kind = 'connector' AND connector_id = $2", "luitb"
};
static OvQuery rewrap_key = {
	"UPDATE oauth_vault.vault_key SET wrapped = $2, platform_version = $3, platform_fingerprint = $4 WHERE key_id = $1", "lbit"
};

void
ov_keys_conceal(void)
{
	ov_conceal_pages(cache, sizeof(cache));
	ov_conceal_pages(reply_buf, sizeof(reply_buf));
}

void
ov_keys_forget(void)
{
	OPENSSL_cleanse(cache, sizeof(cache));
	OPENSSL_cleanse(reply_buf, sizeof(reply_buf));
}

void
ov_keys_drop(int64 key_id)
{
	for (int i = 0; i < CACHE_SIZE; i++)
		if (cache[i].key_id == key_id)
			OPENSSL_cleanse(&cache[i], sizeof(cache[i]));
}

static void
owner_digest(const char *tenant, const char *user_id, unsigned char out[32])
{
	char	   *text = psprintf("u %zu:%s %s", strlen(tenant), tenant, user_id);

	ov_sha256(text, strlen(text), out);
	pfree(text);
}

static void
connector_digest(const unsigned char connector_id[16], unsigned char out[32])
{
	unsigned char text[18] = "c ";

	memcpy(text + 2, connector_id, 16);
	ov_sha256(text, sizeof(text), out);
}

/* The entry of this key, or NULL and in *vacant where it may go. */
static Cached *
look_up(const unsigned char vault_id[16], int64 key_id, const unsigned char owner[32], Cached **vacant)
{
	if (generation != ov_settings_generation())
	{
		OPENSSL_cleanse(cache, sizeof(cache));
		generation = ov_settings_generation();
	}
	*vacant = &cache[0];
	for (int i = 0; i < CACHE_SIZE; i++)
	{
		Cached	   *e = &cache[i];

		if (e->key_id == key_id && memcmp(e->vault_id, vault_id, 16) == 0 && memcmp(e->owner, owner, 32) == 0)
		{
			e->last_use = ++uses;
			return e;
		}
		if (e->last_use < (*vacant)->last_use)
			*vacant = e;
	}
	return NULL;
}

static void
remember(Cached *e, const unsigned char vault_id[16], int64 key_id, const unsigned char owner[32],
		 const OvUserKeys *keys)
{
	OPENSSL_cleanse(e, sizeof(*e));
	e->key_id = key_id;
	memcpy(e->vault_id, vault_id, 16);
	memcpy(e->owner, owner, 32);
	e->keys = *keys;
	e->last_use = ++uses;
}

static bool
sealed(OvFailure *f, const char *reason)
{
	return ov_refuse(f, "OV040", "the vault is sealed: the key worker does not answer",
					 ov_detail("reason", reason, NULL),
					 "Try again; if it stays so, see the server log and \"oauth_vault.vault_file\".");
}

/* Sends m; the answer is in *reply until the next question. */
static bool
ask(OvOp op, OvMsg *m, OvMsg *reply, OvFailure *f)
{
	bool		ok;

	if (down_until > GetCurrentTimestamp())
	{
		OPENSSL_cleanse(m->data, m->len);
		return sealed(f, "the key worker does not answer");
	}
	ov_msg_init(reply, reply_buf, sizeof(reply_buf));
	ok = ov_ask_quietly(OV_WORKER_KEY, op, m, reply, ASK_MS);
	/* the wait may have swallowed a wake-up that was meant for the loop */
	SetLatch(MyLatch);
	if (ok)
		return true;
	{
		char	   *state = ov_msg_str(reply, OV_TAG_SQLSTATE);
		char	   *message = ov_msg_str(reply, OV_TAG_MESSAGE);

		if (!ov_worker_alive(OV_WORKER_KEY, InvalidOid))
			down_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DOWN_MS);
		return ov_refuse(f, state ? state : "OV040", message ? message : "the key worker does not answer",
						 ov_msg_str(reply, OV_TAG_DETAIL), ov_msg_str(reply, OV_TAG_HINT));
	}
}

static bool
take_key(const OvMsg *reply, OvTag tag, unsigned char out[OV_KEY_LEN])
{
	const void *data;
	size_t		len;

	if (!ov_msg_get(reply, tag, &data, &len) || len != OV_KEY_LEN)
		return false;
	memcpy(out, data, OV_KEY_LEN);
	return true;
}

static void
put_question(OvMsg *m, const char *kind, const unsigned char vault_id[16], int64 key_id)
{
	ov_msg_put_str(m, OV_TAG_KIND, kind);
	ov_msg_put(m, OV_TAG_VAULT_ID, vault_id, 16);
	ov_msg_put_i64(m, OV_TAG_KEY_ID, key_id);
}

static void
begin_question(OvMsg *m, const char *kind, const unsigned char vault_id[16], int64 key_id)
{
	ov_msg_init(m, ask_buf, sizeof(ask_buf));
	put_question(m, kind, vault_id, key_id);
}

/* The two subkeys out of an answer, which is cleansed. */
static bool
take_user_keys(OvMsg *reply, OvUserKeys *keys, OvFailure *f)
{
	bool		ok = take_key(reply, OV_TAG_ACCESS_KEY, keys->access) &&
		take_key(reply, OV_TAG_REFRESH_KEY, keys->refresh);

	OPENSSL_cleanse(reply_buf, reply->len);
	return ok || sealed(f, "the key worker released no key");
}

static bool
open_user_keys(const unsigned char vault_id[16], const char *tenant, const char *user_id, int64 key_id,
			   const unsigned char *wrapped, size_t len, OvUserKeys *keys, OvFailure *f)
{
	unsigned char owner[32];
	Cached	   *vacant;
	Cached	   *e;
	OvMsg		m,
				reply;

	owner_digest(tenant, user_id, owner);
	e = look_up(vault_id, key_id, owner, &vacant);
	if (e != NULL)
	{
		*keys = e->keys;
		return true;
	}
	begin_question(&m, OV_KIND_USER, vault_id, key_id);
	ov_msg_put_str(&m, OV_TAG_TENANT, tenant);
	ov_msg_put_str(&m, OV_TAG_USER, user_id);
	ov_msg_put(&m, OV_TAG_WRAPPED, wrapped, len);
	if (!ask(OV_OP_KEY_OPEN, &m, &reply, f) || !take_user_keys(&reply, keys, f))
		return false;
	remember(vacant, vault_id, key_id, owner, keys);
	return true;
}

bool
ov_user_keys(const unsigned char vault_id[16], const char *tenant, const char *user_id, int64 key_id,
			 OvUserKeys *keys, OvFailure *f)
{
	unsigned char owner[32];
	Cached	   *vacant;
	Cached	   *e;
	Datum		arg = Int64GetDatum(key_id);
	const unsigned char *wrapped;
	size_t		len;

	owner_digest(tenant, user_id, owner);
	e = look_up(vault_id, key_id, owner, &vacant);
	if (e != NULL)
	{
		*keys = e->keys;
		return true;
	}
	if (ov_query(&wrapped_key, OV_READ, &arg, NULL) == 0)
		return ov_refuse(f, "OV041", "the key of a record is missing", "{\"reason\":\"no such key row\"}",
						 "Restore oauth_vault.vault_key together with the rows that it belongs to. The person can connect again.");
	wrapped = ov_bytea(0, 1, &len);
	if (len == 0)
		return ov_refuse(f, "OV041", "the key of a record has been destroyed",
						 "{\"reason\":\"its key has been destroyed\"}",
						 "The row is older than that rotation of keys or offboarding: find out who put it back. The person can connect again.");
	return open_user_keys(vault_id, tenant, user_id, key_id, wrapped, len, keys, f);
}

/* By which platform key the key of this answer is wrapped */
static void
put_platform(OvArgs *a, const OvMsg *reply)
{
	int			version = (int) ov_msg_get_i64(reply, OV_TAG_VERSION, 0);
	char	   *fingerprint = ov_msg_str(reply, OV_TAG_KEY_FINGERPRINT);

	ov_arg(a, Int32GetDatum(version), false);
	ov_arg_str(a, fingerprint ? fingerprint : "");
	ov_reference_note(version, fingerprint);
}

/* ---- those of a batch, in one exchange ---- */

#define MAX_ITEMS 128
#define ITEM_MAX 1024			/* of a question; tenant and user have up to 255 bytes each */

typedef struct KeyItem
{
	int64		key_id;
	unsigned char owner[32];
} KeyItem;

static void
ask_items(const unsigned char vault_id[16], OvMsg *m, const KeyItem *items, int n)
{
	OvMsg		reply,
				one;
	OvFailure	f;
	const void *data;
	size_t		len;
	size_t		at = 0;

	if (n == 0 || !ask(OV_OP_KEYS_OPEN, m, &reply, &f))
		return;
	for (int i = 0; i < n && ov_msg_next(&reply, &at, OV_TAG_ITEM, &data, &len); i++)
	{
		OvUserKeys	keys;
		Cached	   *vacant;

		ov_msg_read(&one, data, len);
		if (take_key(&one, OV_TAG_ACCESS_KEY, keys.access) && take_key(&one, OV_TAG_REFRESH_KEY, keys.refresh) &&
			look_up(vault_id, items[i].key_id, items[i].owner, &vacant) == NULL)
			remember(vacant, vault_id, items[i].key_id, items[i].owner, &keys);
		OPENSSL_cleanse(&keys, sizeof(keys));
	}
	OPENSSL_cleanse(reply_buf, reply.len);
}

/* One more question in the message; false: there is no room, or the row has no key. */
static bool
put_item(OvMsg *m, const unsigned char vault_id[16], const OvKeyOwner *o, uint64 row)
{
	unsigned char buf[ITEM_MAX];
	OvMsg		question;
	size_t		len;
	const unsigned char *wrapped = ov_bytea(row, 2, &len);

	ov_msg_init(&question, buf, sizeof(buf));
	put_question(&question, OV_KIND_USER, vault_id, o->key_id);
	ov_msg_put_str(&question, OV_TAG_TENANT, o->tenant);
	ov_msg_put_str(&question, OV_TAG_USER, o->user_id);
	ov_msg_put(&question, OV_TAG_WRAPPED, wrapped, len);
	if (question.overflow || len == 0)
		return false;
	ov_msg_put(m, OV_TAG_ITEM, question.data, question.len);
	return true;
}

/*
 * Fetches the keys of these people that are not in the cache yet.  Whatever goes
 * wrong is found out when a key is needed.
 */
void
ov_user_keys_prefetch(const unsigned char vault_id[16], const OvKeyOwner *owners, int n)
{
	const OvKeyOwner **missing = palloc(sizeof(OvKeyOwner *) * n);
	unsigned char (*digests)[32] = palloc(32 * (Size) n);
	Datum	   *ids = palloc(sizeof(Datum) * n);
	KeyItem		items[MAX_ITEMS];
	int			nmissing = 0,
				nitems = 0;
	OvArgs		a = {0};
	OvMsg		m;
	uint64		rows;

	for (int i = 0; i < n; i++)
	{
		Cached	   *vacant;

		owner_digest(owners[i].tenant, owners[i].user_id, digests[nmissing]);
		if (look_up(vault_id, owners[i].key_id, digests[nmissing], &vacant) != NULL)
			continue;
		ids[nmissing] = Int64GetDatum(owners[i].key_id);
		missing[nmissing++] = &owners[i];
	}
	if (nmissing == 0)
		return;
	ov_arg_array(&a, 'l', ids, NULL, nmissing);
	rows = ov_run(&wrapped_keys, OV_READ, &a);
	ov_msg_init(&m, ask_buf, sizeof(ask_buf));
	for (uint64 row = 0; row < rows; row++)
	{
		int64		key_id = ov_int8(row, 1);
		int			i = 0;

		while (i < nmissing && missing[i]->key_id != key_id)
			i++;
		if (i == nmissing || !put_item(&m, vault_id, missing[i], row))
			continue;
		items[nitems].key_id = key_id;
		memcpy(items[nitems++].owner, digests[i], 32);
		if (nitems < MAX_ITEMS && m.cap - m.len > ITEM_MAX + 16)
			continue;
		ask_items(vault_id, &m, items, nitems);
		nitems = 0;
		ov_msg_init(&m, ask_buf, sizeof(ask_buf));
	}
	ask_items(vault_id, &m, items, nitems);
}

static bool
make_user_key(const unsigned char vault_id[16], const char *tenant, const char *user_id, int64 *key_id,
			  OvUserKeys *keys, OvFailure *f)
{
	OvMsg		m,
				reply;
	OvArgs		a = {0};
	const void *wrapped;
	size_t		len;

	(void) ov_query(&next_key_id, OV_WRITE, NULL, NULL);
	*key_id = ov_int8(0, 1);
	begin_question(&m, OV_KIND_USER, vault_id, *key_id);
	ov_msg_put_str(&m, OV_TAG_TENANT, tenant);
	ov_msg_put_str(&m, OV_TAG_USER, user_id);
	if (!ask(OV_OP_KEY_NEW, &m, &reply, f))
		return false;
	if (!ov_msg_get(&reply, OV_TAG_WRAPPED, &wrapped, &len))
	{
		OPENSSL_cleanse(reply_buf, reply.len);
		return sealed(f, "the key worker made no key");
	}
	ov_arg_int8(&a, *key_id);
	ov_arg_str(&a, tenant);
	ov_arg_str(&a, user_id);
	put_platform(&a, &reply);
	ov_arg_bytes(&a, wrapped, len);
	if (!take_user_keys(&reply, keys, f))
		return false;
	(void) ov_run(&insert_key, OV_WRITE, &a);
	/* not cached: the row may yet be rolled back, and its number used no more */
	return true;
}

bool
ov_user_keys_current(const unsigned char vault_id[16], const char *tenant, const char *user_id, int64 *key_id,
					 OvUserKeys *keys, OvFailure *f)
{
	Datum		args[2];
	const unsigned char *wrapped;
	size_t		len;

	args[0] = ov_text_datum(tenant);
	args[1] = ov_text_datum(user_id);
	if (ov_query(&current_key, OV_READ, args, NULL) == 0)
		return make_user_key(vault_id, tenant, user_id, key_id, keys, f);
	*key_id = ov_int8(0, 1);
	wrapped = ov_bytea(0, 2, &len);
	return open_user_keys(vault_id, tenant, user_id, *key_id, wrapped, len, keys, f);
}

bool
ov_user_keys_since(const unsigned char vault_id[16], const char *tenant, const char *user_id, int64 since,
				   int64 *key_id, OvUserKeys *keys, OvFailure *f)
{
	Datum		args[2];
	const unsigned char *wrapped;
	size_t		len;

	args[0] = ov_text_datum(tenant);
	args[1] = ov_text_datum(user_id);
	if (ov_query(&current_key, OV_READ, args, NULL) == 0 || ov_int8(0, 1) < since)
		return make_user_key(vault_id, tenant, user_id, key_id, keys, f);
	*key_id = ov_int8(0, 1);
	wrapped = ov_bytea(0, 2, &len);
	return open_user_keys(vault_id, tenant, user_id, *key_id, wrapped, len, keys, f);
}

bool
ov_connector_key_new(const unsigned char vault_id[16], const unsigned char connector_id[16], int64 *key_id,
					 unsigned char key[OV_KEY_LEN], OvFailure *f)
{
	OvMsg		m,
				reply;
	OvArgs		a = {0};
	const void *wrapped;
	size_t		len;
	bool		ok;

	(void) ov_query(&next_key_id, OV_WRITE, NULL, NULL);
	*key_id = ov_int8(0, 1);
	begin_question(&m, OV_KIND_CONNECTOR, vault_id, *key_id);
	ov_msg_put(&m, OV_TAG_CONNECTOR_ID, connector_id, 16);
	if (!ask(OV_OP_KEY_NEW, &m, &reply, f))
		return false;
	ok = ov_msg_get(&reply, OV_TAG_WRAPPED, &wrapped, &len) && take_key(&reply, OV_TAG_KEY, key);
	if (ok)
	{
		ov_arg_int8(&a, *key_id);
		ov_arg_uuid(&a, connector_id);
		put_platform(&a, &reply);
		ov_arg_bytes(&a, wrapped, len);
	}
	OPENSSL_cleanse(reply_buf, reply.len);
	if (!ok)
		return sealed(f, "the key worker made no key");
	(void) ov_run(&insert_connector_key, OV_WRITE, &a);
	return true;
}

bool
ov_key_rewrap(const unsigned char vault_id[16], const OvKeyRow *row, bool store, OvFailure *f)
{
	OvMsg		m,
				reply;
	OvArgs		a = {0};
	const void *wrapped;
	size_t		len;

	begin_question(&m, row->kind, vault_id, row->key_id);
	ov_msg_put_str(&m, OV_TAG_TENANT, row->tenant);
	ov_msg_put_str(&m, OV_TAG_USER, row->user_id);
	if (row->has_connector)
		ov_msg_put(&m, OV_TAG_CONNECTOR_ID, row->connector_id, 16);
	ov_msg_put(&m, OV_TAG_WRAPPED, row->wrapped, row->wrapped_len);
	if (!ask(OV_OP_REWRAP, &m, &reply, f))
		return false;
	if (!ov_msg_get(&reply, OV_TAG_WRAPPED, &wrapped, &len))
		return sealed(f, "the key worker wrapped no key");
	if (!store)
		return true;
	ov_arg_int8(&a, row->key_id);
	ov_arg_bytes(&a, wrapped, len);
	put_platform(&a, &reply);
	(void) ov_run(&rewrap_key, OV_WRITE, &a);
	return true;
}

bool
ov_connector_key(const unsigned char vault_id[16], const OvConnector *c, unsigned char key[OV_KEY_LEN], OvFailure *f)
{
	unsigned char owner[32];
	Cached	   *vacant;
	Cached	   *e;
	OvMsg		m,
				reply;
	OvUserKeys	keys = {0};
	bool		ok;

	connector_digest(c->id, owner);
	e = look_up(vault_id, c->key_id, owner, &vacant);
	if (e != NULL)
	{
		memcpy(key, e->keys.access, OV_KEY_LEN);
		return true;
	}
	begin_question(&m, OV_KIND_CONNECTOR, vault_id, c->key_id);
	ov_msg_put(&m, OV_TAG_CONNECTOR_ID, c->id, 16);
	ov_msg_put(&m, OV_TAG_WRAPPED, c->wrapped, c->wrapped_len);
	if (!ask(OV_OP_KEY_OPEN, &m, &reply, f))
		return false;
	ok = take_key(&reply, OV_TAG_KEY, keys.access);
	OPENSSL_cleanse(reply_buf, reply.len);
	if (!ok)
		return sealed(f, "the key worker released no key");
	memcpy(key, keys.access, OV_KEY_LEN);
	remember(vacant, vault_id, c->key_id, owner, &keys);
	OPENSSL_cleanse(&keys, sizeof(keys));
	return true;
}

bool
ov_open(OvArena *arena, const unsigned char key[OV_KEY_LEN], const OvAad *aad, const unsigned char *record,
		size_t len, const char **plain, OvFailure *f)
{
	unsigned char *out;
	size_t		outlen;
	OvError		err = {0};

	*plain = NULL;
	if (record == NULL)
		return true;
	if (len >= OV_RECORD_OVERHEAD)
	{
		out = ov_arena_alloc(arena, len - OV_RECORD_OVERHEAD + 1);
		if (!ov_arena_failed(arena) && ov_record_open(key, aad, record, len, out, &outlen, &err) == OV_OK &&
			memchr(out, '\0', outlen) == NULL)
		{
			*plain = (const char *) out;
			return true;
		}
	}
	return ov_refuse(f, "OV041", psprintf("the %s could not be decrypted", ov_purpose_name(aad->purpose)),
					 ov_detail("reason", err.message[0] ? err.message : "malformed record", NULL),
					 "The record or its row was changed, or its key is another one; nothing has been marked broken.");
}

OvCode
ov_seal(OvArena *arena, const unsigned char key[OV_KEY_LEN], const OvAad *aad, const char *plain,
		const unsigned char **record, size_t *len)
{
	unsigned char *out;

	*record = NULL;
	*len = 0;
	if (plain == NULL)
		return OV_OK;
	out = ov_arena_alloc(arena, strlen(plain) + OV_RECORD_OVERHEAD);
	if (ov_arena_failed(arena))
		return OV_E_NOMEM;
	*record = out;
	return ov_record_seal(key, aad, plain, strlen(plain), out, len, NULL);
}

bool
ov_client(OvArena *arena, const unsigned char vault_id[16], const OvConnector *c, bool previous,
		  OvClient *client, OvFailure *f)
{
	unsigned char key[OV_KEY_LEN];
	OvAad		aad = {0};
	bool		ok;

	client->client_id = ov_arena_strdup(arena, c->client_id);
	client->client_secret = NULL;
	if ((previous ? c->previous_secret : c->secret) == NULL)
		return true;
	memcpy(aad.vault_id, vault_id, 16);
	memcpy(aad.connector_id, c->id, 16);
	aad.purpose = OV_PURPOSE_CLIENT_SECRET;
	aad.key_id = c->key_id;
	aad.token_generation = previous ? c->previous_generation : c->secret_generation;
	if (!ov_connector_key(vault_id, c, key, f))
		return false;
	ok = ov_open(arena, key, &aad, previous ? c->previous_secret : c->secret,
				 previous ? c->previous_len : c->secret_len, &client->client_secret, f);
	OPENSSL_cleanse(key, sizeof(key));
	return ok;
}
