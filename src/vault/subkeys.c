/*
 * subkeys.c
 *	  Access subkeys released to this session: a small cache, cleansed.
 *
 * A backend asks the key worker once per person and key; the worker verifies
 * the proof itself.  The cache is bounded (a pooled session serves many people
 * one after the other), keyed by person and key row, and cleansed on eviction,
 * at DISCARD ALL, at exit, and by the session's next call when somebody has been
 * offboarded anywhere or the vault file has changed.  Serving from it still needs an identity that
 * ov_person() accepts now.
 *
 * A call reads the wrapped key first and asks for it to be opened afterwards: if
 * anything was forgotten in between, the key may have been destroyed since.  The
 * call goes on with what it has read, but nothing is kept of it.
 */
#include "vault/vault.h"

#include <openssl/crypto.h>

#include "conceal.h"
#include "core/codec.h"

#define CACHE_SIZE 64

static struct
{
	int64		key_id;			/* 0: free */
	char		tenant[256];
	char		user_id[256];
	unsigned char vault_id[16];
	unsigned char subkey[OV_KEY_LEN];
	uint64		last_use;
}			cache[CACHE_SIZE];
static uint64 use_clock;
static uint32 generation;		/* of the settings: a reloaded keyring releases anew */
static uint32 recalled;
static uint64 forgotten;		/* how often */

void
ov_forget_subkeys(void)
{
	OPENSSL_cleanse(cache, sizeof(cache));
	forgotten++;
}

uint64
ov_subkeys_check(void)
{
	if (generation != ov_settings_generation() || recalled != ov_subkeys_recalled())
	{
		ov_forget_subkeys();
		generation = ov_settings_generation();
		recalled = ov_subkeys_recalled();
	}
	return forgotten;
}

/* The slot with this key, or -1 and in *vacant the one to use next */
static int
search(const OvPerson *person, const unsigned char vault_id[16], int64 key_id, int *vacant)
{
	ov_conceal_session();
	(void) ov_subkeys_check();
	*vacant = 0;
	for (int i = 0; i < CACHE_SIZE; i++)
	{
		if (cache[i].key_id == key_id && memcmp(cache[i].vault_id, vault_id, 16) == 0 &&
			strcmp(cache[i].user_id, person->user_id) == 0 && strcmp(cache[i].tenant, person->tenant) == 0)
		{
			cache[i].last_use = ++use_clock;
			return i;
		}
		if (cache[i].last_use < cache[*vacant].last_use)
			*vacant = i;
	}
	return -1;
}

bool
ov_access_subkey_cached(const OvPerson *person, const unsigned char vault_id[16], int64 key_id,
						unsigned char subkey[OV_KEY_LEN])
{
	int			vacant;
	int			i = search(person, vault_id, key_id, &vacant);

	if (i >= 0)
		memcpy(subkey, cache[i].subkey, OV_KEY_LEN);
	return i >= 0;
}

void
ov_access_subkey(const OvCall *call, const OvConnection *c, unsigned char subkey[OV_KEY_LEN])
{
	const OvPerson *person = call->person;
	int			slot;
	OvMsg	   *m;
	const void *key;
	size_t		keylen;
	int			cached = search(person, c->vault_id, c->key_id, &slot);

	if (cached >= 0)
	{
		memcpy(subkey, cache[cached].subkey, OV_KEY_LEN);
		return;
	}
	m = ov_request();
	ov_msg_put_str(m, OV_TAG_KIND, OV_KIND_USER);
	ov_msg_put_str(m, OV_TAG_ASSERTION, person->assertion);
	ov_msg_put_str(m, OV_TAG_TENANT, person->tenant);
	ov_msg_put_str(m, OV_TAG_USER, person->user_id);
	ov_msg_put_i64(m, OV_TAG_KEY_ID, c->key_id);
	ov_msg_put(m, OV_TAG_VAULT_ID, c->vault_id, 16);
	ov_msg_put(m, OV_TAG_WRAPPED, c->wrapped, c->wrapped_len);
	m = ov_send(OV_WORKER_KEY, OV_OP_RELEASE);
	if (!ov_msg_get(m, OV_TAG_ACCESS_KEY, &key, &keylen) || keylen != OV_KEY_LEN)
		elog(ERROR, "the key worker released no key");
	memcpy(subkey, key, OV_KEY_LEN);
	ov_done_with_answer();

	if (ov_subkeys_check() != call->subkeys_seen)
		return;
	OPENSSL_cleanse(&cache[slot], sizeof(cache[slot]));
	cache[slot].key_id = c->key_id;
	strlcpy(cache[slot].tenant, person->tenant, sizeof(cache[slot].tenant));
	strlcpy(cache[slot].user_id, person->user_id, sizeof(cache[slot].user_id));
	memcpy(cache[slot].vault_id, c->vault_id, 16);
	memcpy(cache[slot].subkey, subkey, OV_KEY_LEN);
	cache[slot].last_use = ++use_clock;
}
