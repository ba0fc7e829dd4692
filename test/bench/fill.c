/*
 * fill.c
 *	  Keys and connections of many people, sealed as the extension seals them,
 *	  for COPY ... FROM PROGRAM ... (FORMAT binary).
 *
 * fill keys|connections VAULT_FILE VAULT_ID CONNECTOR_ID HOSTS_DIGEST FIRST_KEY FIRST LAST ACCESS_LEN REFRESH_LEN
 *
 * People are called "u<n>", tenant "".  Ids and digests in hex.  A person's key
 * is a function of the vault's id and n, so that both runs know it: good for a
 * benchmark and for nothing else.  Expires in ten hours, due in eight to nine.
 */
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/codec.h"
#include "core/record.h"
#include "core/vaultfile.h"

#define EPOCH_2000 INT64_C(946684800)

static unsigned char vault_id[16],
			connector_id[16],
			hosts_digest[32];

static void
fail(const char *what)
{
	fprintf(stderr, "fill: %s\n", what);
	exit(1);
}

static void
from_hex(const char *hex, unsigned char *out, size_t n)
{
	if (strlen(hex) != 2 * n)
		fail("an id has the wrong length");
	for (size_t i = 0; i < n; i++)
	{
		unsigned	v;

		if (sscanf(hex + 2 * i, "%2x", &v) != 1)
			fail("an id is not hex");
		out[i] = (unsigned char) v;
	}
}

/* ---- the binary COPY format ---- */

static void
put(const void *data, size_t n)
{
	if (n > 0 && fwrite(data, n, 1, stdout) != 1)
		exit(1);				/* nobody reads any more */
}

static void
put_int(uint64_t v, int bytes)
{
	unsigned char b[8];

	for (int i = 0; i < bytes; i++)
		b[i] = (unsigned char) (v >> (8 * (bytes - 1 - i)));
	put(b, (size_t) bytes);
}

static void
field(const void *data, size_t n)
{
	put_int(n, 4);
	put(data, n);
}

static void
field_text(const char *s)
{
	field(s, strlen(s));
}

static void
field_int(uint64_t v, int bytes)
{
	put_int((uint64_t) bytes, 4);
	put_int(v, bytes);
}

/* {"read"} */
static void
field_scopes(void)
{
	put_int(20 + 4 + 4, 4);
	put_int(1, 4);				/* dimensions */
	put_int(0, 4);				/* no nulls */
	put_int(25, 4);				/* text */
	put_int(1, 4);
	put_int(1, 4);
	field_text("read");
}

/* ---- people ---- */

static void
user_key(uint64_t n, unsigned char key[OV_KEY_LEN])
{
	unsigned char number[8];

	for (int i = 0; i < 8; i++)
		number[i] = (unsigned char) (n >> (8 * i));
	ov_hmac_sha256(vault_id, sizeof(vault_id), number, sizeof(number), key);
}

static void
connection_id(uint64_t n, unsigned char id[16])
{
	unsigned char digest[32];
	char		text[32];

	snprintf(text, sizeof(text), "connection %llu", (unsigned long long) n);
	ov_hmac_sha256(vault_id, sizeof(vault_id), text, strlen(text), digest);
	memcpy(id, digest, 16);
}

static void
field_token(OvPurpose purpose, const char *label, const unsigned char key[OV_KEY_LEN], OvAad *aad, size_t len)
{
	static unsigned char random[16384];
	static char token[16384];
	static unsigned char record[16384 + OV_RECORD_OVERHEAD];
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned char subkey[OV_KEY_LEN];
	size_t		sealed;

	if (RAND_bytes(random, (int) len) != 1)
		fail("no random bytes");
	for (size_t i = 0; i < len; i++)
		token[i] = digits[random[i] % 64];
	aad->purpose = purpose;
	ov_subkey(key, label, subkey);
	if (ov_record_seal(subkey, aad, token, len, record, &sealed, NULL) != OV_OK)
		fail("could not seal");
	field(record, sealed);
}

int
main(int argc, char **argv)
{
	OvVaultFile *vault;
	OvError		err = {0};
	int			version;
	char		fingerprint[OV_KEY_FINGERPRINT_LEN + 1];
	uint64_t	first_key,
				first,
				last;
	size_t		access_len,
				refresh_len;
	int64_t		now = ((int64_t) time(NULL) - EPOCH_2000) * 1000000;
	int			keys;

	if (argc != 11)
		fail("usage: fill keys|connections VAULT_FILE VAULT_ID CONNECTOR_ID HOSTS_DIGEST FIRST_KEY FIRST LAST ACCESS_LEN REFRESH_LEN");
	keys = strcmp(argv[1], "keys") == 0;
	if (ov_vaultfile_load(argv[2], NULL, &vault, &err) != OV_OK)
		fail(err.message);
	version = ov_vaultfile_active_version(vault);
	if (!ov_vaultfile_fingerprint(vault, version, fingerprint))
		fail("no active key");
	from_hex(argv[3], vault_id, 16);
	from_hex(argv[4], connector_id, 16);
	from_hex(argv[5], hosts_digest, 32);
	first_key = strtoull(argv[6], NULL, 10);
	first = strtoull(argv[7], NULL, 10);
	last = strtoull(argv[8], NULL, 10);
	access_len = strtoul(argv[9], NULL, 10);
	refresh_len = strtoul(argv[10], NULL, 10);
	if (access_len > 16384 || refresh_len > 16384)
		fail("tokens too long");

	put("PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
	for (uint64_t n = first; n <= last; n++)
	{
		char		user[32];
		unsigned char key[OV_KEY_LEN];
		OvAad		aad = {.user_id = user, .tenant = ""};
		unsigned char id[16];

		snprintf(user, sizeof(user), "u%llu", (unsigned long long) n);
		user_key(n, key);
		memcpy(aad.vault_id, vault_id, 16);
		if (keys)
		{
			/* key_id, kind, tenant, user_id, platform_version, platform_fingerprint, wrapped */
			unsigned char wrapped[OV_KEY_LEN + OV_RECORD_OVERHEAD];
			size_t		len;

			aad.purpose = OV_PURPOSE_USER_KEY;
			aad.token_generation = first_key + n - first;
			if (ov_vaultfile_wrap(vault, version, &aad, key, wrapped, &len, &err) != OV_OK)
				fail(err.message);
			put_int(7, 2);
			field_int(first_key + n - first, 8);
			field_text("user");
			field_text("");
			field_text(user);
			field_int((uint64_t) version, 4);
			field_text(fingerprint);
			field(wrapped, len);
			continue;
		}
		/* connection_id, user_id, tenant, connector_id, status, key_id, token_generation, hosts_digest, issued_at,
		 * expires_at, refresh_at, requested_scopes, scopes, access_token, refresh_token */
		connection_id(n, id);
		memcpy(aad.connector_id, connector_id, 16);
		memcpy(aad.connection_id, id, 16);
		memcpy(aad.hosts_digest, hosts_digest, 32);
		aad.key_id = first_key + n - first;
		aad.token_generation = 1;
		put_int(15, 2);
		field(id, 16);
		field_text(user);
		field_text("");
		field(connector_id, 16);
		field_text("active");
		field_int(aad.key_id, 8);
		field_int(1, 8);
		field(hosts_digest, 32);
		field_int((uint64_t) now, 8);
		field_int((uint64_t) (now + INT64_C(36000000000)), 8);
		field_int((uint64_t) (now + INT64_C(28800000000) + (int64_t) (n * 7919 % 3600) * 1000000), 8);
		field_scopes();
		field_scopes();
		field_token(OV_PURPOSE_ACCESS_TOKEN, OV_LABEL_ACCESS, key, &aad, access_len);
		field_token(OV_PURPOSE_REFRESH_TOKEN, OV_LABEL_REFRESH, key, &aad, refresh_len);
		OPENSSL_cleanse(key, sizeof(key));
	}
	put_int(0xffff, 2);
	ov_vaultfile_free(vault);
	return fflush(stdout) == 0 ? 0 : 1;
}
