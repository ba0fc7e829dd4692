/*
 * chain.c
 *	  See chain.h: the bytes are a contract, known answers are in the unit test.
 */
#include "core/chain.h"
#include "core/codec.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* Room for n more bytes, or NULL. */
static unsigned char *
room(OvCanon *c, size_t n)
{
	unsigned char *at;

	if (c->failed)
		return NULL;
	if (c->cap - c->len < n)
	{
		size_t		cap = (c->len + n) * 2 + 256;
		unsigned char *bigger = realloc(c->data, cap);

		if (bigger == NULL)
		{
			c->failed = true;
			return NULL;
		}
		c->data = bigger;
		c->cap = cap;
	}
	at = c->data + c->len;
	c->len += n;
	return at;
}

static void
begin(OvCanon *c, const char *magic)
{
	unsigned char *at;

	c->len = 0;
	c->failed = false;
	at = room(c, 4);
	if (at != NULL)
	{
		memcpy(at, magic, 3);
		at[3] = OV_CHAIN_VERSION;
	}
}

void
ov_canon_row(OvCanon *c, const unsigned char previous[OV_HASH_LEN])
{
	unsigned char *at;

	begin(c, "OVA");
	at = room(c, OV_HASH_LEN);
	if (at != NULL)
		memcpy(at, previous, OV_HASH_LEN);
}

void
ov_canon_head(OvCanon *c)
{
	begin(c, "OVH");
}

void
ov_canon_null(OvCanon *c)
{
	unsigned char *at = room(c, 1);

	if (at != NULL)
		*at = 0;
}

/* Tag and number; returns where what it announces begins. */
static unsigned char *
announce(OvCanon *c, unsigned char tag, uint32_t n, size_t follows)
{
	unsigned char *at = room(c, 5 + follows);

	if (at == NULL)
		return NULL;
	at[0] = tag;
	at[1] = (unsigned char) (n >> 24);
	at[2] = (unsigned char) (n >> 16);
	at[3] = (unsigned char) (n >> 8);
	at[4] = (unsigned char) n;
	return at + 5;
}

static void
put(OvCanon *c, unsigned char tag, const void *data, size_t len)
{
	unsigned char *at;

	if (len > UINT32_MAX)
	{
		c->failed = true;
		return;
	}
	at = announce(c, tag, (uint32_t) len, len);
	if (at != NULL && len > 0)
		memcpy(at, data, len);
}

void
ov_canon_bytes(OvCanon *c, const void *data, size_t len)
{
	put(c, 1, data, len);
}

void
ov_canon_int(OvCanon *c, int64_t v)
{
	unsigned char *at = announce(c, 1, 8, 8);
	uint64_t	u = (uint64_t) v;

	for (int i = 7; at != NULL && i >= 0; i--, u >>= 8)
		at[i] = (unsigned char) u;
}

void
ov_canon_list(OvCanon *c, uint32_t count)
{
	(void) announce(c, 2, count, 0);
}

void
ov_canon_odd(OvCanon *c, const void *data, size_t len)
{
	put(c, 3, data, len);
}

bool
ov_canon_hash(const OvCanon *c, unsigned char out[OV_HASH_LEN])
{
	if (c->failed)
		return false;
	ov_sha256(c->data, c->len, out);
	return true;
}

void
ov_canon_free(OvCanon *c)
{
	free(c->data);
	memset(c, 0, sizeof(*c));
}

void
ov_chain_mac(const unsigned char *key, size_t keylen, const void *data, size_t len, unsigned char out[OV_HASH_LEN])
{
	unsigned char sub[OV_HASH_LEN];
	unsigned char info[sizeof(OV_LABEL_HEAD)];

	/* HKDF-Expand of one block (RFC 5869 section 2.3), as for other subkeys */
	memcpy(info, OV_LABEL_HEAD, sizeof(info) - 1);
	info[sizeof(info) - 1] = 0x01;
	ov_hmac_sha256(key, keylen, info, sizeof(info), sub);
	ov_hmac_sha256(sub, sizeof(sub), data, len, out);
	OPENSSL_cleanse(sub, sizeof(sub));
}
