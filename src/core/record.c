/*
 * record.c
 *	  Sealing and opening of records; the format is in record.h.
 *
 * NIST SP 800-38D bounds random IVs to 2^32 uses of a key; here each record
 * has a key of its own, derived with a 256-bit random salt, so the bound is
 * never near.  The commitment makes a record open under exactly one subkey
 * (AES-GCM alone is not key-committing).
 */
#include "core/record.h"
#include "core/codec.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <string.h>

static const char *const purpose_names[] = {
	[OV_PURPOSE_ACCESS_TOKEN] = "access_token",
	[OV_PURPOSE_REFRESH_TOKEN] = "refresh_token",
	[OV_PURPOSE_ID_TOKEN] = "id_token",
	[OV_PURPOSE_CLIENT_SECRET] = "client_secret",
	[OV_PURPOSE_PKCE_VERIFIER] = "pkce_verifier",
	[OV_PURPOSE_DPOP_KEY] = "dpop_key",
	[OV_PURPOSE_USER_KEY] = "user_key",
	[OV_PURPOSE_CONNECTOR_KEY] = "connector_key",
	[OV_PURPOSE_AUDIT_KEY] = "audit_key",
};

/* Longest AAD: tenant and user of up to 255 bytes each, and fixed fields. */
#define AAD_MAX 1024

const char *
ov_purpose_name(OvPurpose purpose)
{
	return purpose_names[purpose];
}

bool
ov_purpose_parse(const char *name, OvPurpose *purpose)
{
	for (size_t i = 0; i < sizeof(purpose_names) / sizeof(purpose_names[0]); i++)
		if (strcmp(purpose_names[i], name) == 0)
		{
			*purpose = (OvPurpose) i;
			return true;
		}
	return false;
}

static void
put_be64(unsigned char *out, uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		out[i] = (unsigned char) v;
}

static bool
aad_field(unsigned char *buf, size_t *len, const void *data, size_t n)
{
	if (*len + 4 + n > AAD_MAX)
		return false;
	buf[(*len)++] = (unsigned char) (n >> 24);
	buf[(*len)++] = (unsigned char) (n >> 16);
	buf[(*len)++] = (unsigned char) (n >> 8);
	buf[(*len)++] = (unsigned char) n;
	if (n > 0)
		memcpy(buf + *len, data, n);
	*len += n;
	return true;
}

static bool
build_aad(const OvAad *aad, unsigned char *buf, size_t *len)
{
	static const char domain[] = "oauth_vault";
	const char *tenant = aad->tenant ? aad->tenant : "";
	const char *user = aad->user_id ? aad->user_id : "";
	unsigned char format[8],
				key_id[8],
				generation[8];

	put_be64(format, 1);
	put_be64(key_id, aad->key_id);
	put_be64(generation, aad->token_generation);
	*len = 0;
	return aad_field(buf, len, domain, sizeof(domain) - 1) &&
		aad_field(buf, len, format, 8) &&
		aad_field(buf, len, aad->vault_id, 16) &&
		aad_field(buf, len, tenant, strlen(tenant)) &&
		aad_field(buf, len, user, strlen(user)) &&
		aad_field(buf, len, aad->connector_id, 16) &&
		aad_field(buf, len, aad->connection_id, 16) &&
		aad_field(buf, len, purpose_names[aad->purpose], strlen(purpose_names[aad->purpose])) &&
		aad_field(buf, len, aad->hosts_digest, 32) &&
		aad_field(buf, len, key_id, 8) &&
		aad_field(buf, len, generation, 8);
}

/* HKDF-Expand of one block (RFC 5869 section 2.3): HMAC(key, info || 0x01) */
static void
expand(const unsigned char key[OV_KEY_LEN], const char *label, const unsigned char *salt, size_t saltlen,
	   unsigned char out[32])
{
	unsigned char info[96];
	size_t		n = strlen(label);

	memcpy(info, label, n);
	if (saltlen > 0)
		memcpy(info + n, salt, saltlen);
	info[n + saltlen] = 0x01;
	ov_hmac_sha256(key, OV_KEY_LEN, info, n + saltlen + 1, out);
}

void
ov_subkey(const unsigned char key[OV_KEY_LEN], const char *label, unsigned char out[OV_KEY_LEN])
{
	expand(key, label, NULL, 0, out);
}

void
ov_token_fingerprint(const unsigned char subkey[OV_KEY_LEN], const char *token, size_t len,
					 unsigned char out[OV_FINGERPRINT_LEN])
{
	static const char label[] = "ov1 fingerprint";
	unsigned char key[32];
	unsigned char mac[32];

	ov_hmac_sha256(subkey, OV_KEY_LEN, label, sizeof(label) - 1, key);
	ov_hmac_sha256(key, sizeof(key), token, len, mac);
	memcpy(out, mac, OV_FINGERPRINT_LEN);
	OPENSSL_cleanse(key, sizeof(key));
}

/* One context per process, re-keyed for each record: a new one costs more than the record. */
static EVP_CIPHER_CTX *
cipher_ctx(void)
{
	static _Thread_local EVP_CIPHER_CTX *ctx = NULL;

	if (ctx == NULL)
		ctx = EVP_CIPHER_CTX_new();
	return ctx;
}

/* Fetched once; EVP_aes_256_gcm() has it looked up for each record. */
static const EVP_CIPHER *
cipher(void)
{
	static _Thread_local EVP_CIPHER *aes = NULL;

	if (aes == NULL)
		aes = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	return aes;
}

OvCode
ov_record_seal_with(const unsigned char subkey[OV_KEY_LEN], const OvAad *aad,
					const unsigned char salt[32], const unsigned char iv[12],
					const void *plain, size_t len,
					unsigned char *out, size_t *outlen, OvError *err)
{
	unsigned char aadbuf[AAD_MAX];
	size_t		aadlen;
	unsigned char key[32];
	EVP_CIPHER_CTX *ctx = cipher_ctx();
	int			n;
	bool		ok;
	unsigned char *p = out;

	*outlen = 0;
	if (!build_aad(aad, aadbuf, &aadlen))
		return ov_fail(err, OV_E_LIMIT, "associated data too long");
	/* OpenSSL counts in int */
	if (len > INT_MAX)
		return ov_fail(err, OV_E_LIMIT, "too long to seal");
	memcpy(p, "OVR", 3);
	p[3] = 1;					/* format */
	p[4] = 1;					/* suite */
	put_be64(p + 5, aad->key_id);
	memcpy(p + 13, salt, 32);
	expand(subkey, "ov1 commit", salt, 32, p + 45);
	memcpy(p + 77, iv, 12);
	p += OV_RECORD_HEADER;
	expand(subkey, "ov1 key", salt, 32, key);
	ok = ctx != NULL && cipher() != NULL &&
		EVP_EncryptInit_ex(ctx, cipher(), NULL, key, iv) == 1 &&
		EVP_EncryptUpdate(ctx, NULL, &n, aadbuf, (int) aadlen) == 1 &&
		(len == 0 || EVP_EncryptUpdate(ctx, p, &n, plain, (int) len) == 1) &&
		EVP_EncryptFinal_ex(ctx, p + len, &n) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, 16, p + len) == 1;
	OPENSSL_cleanse(key, sizeof(key));
	if (ctx != NULL)
		EVP_CIPHER_CTX_reset(ctx);	/* cleanses the key schedule */
	if (!ok)
	{
		ERR_clear_error();
		OPENSSL_cleanse(out, len + OV_RECORD_OVERHEAD);
		return ov_fail(err, OV_E_CRYPTO, "could not seal a record");
	}
	*outlen = len + OV_RECORD_OVERHEAD;
	return OV_OK;
}

OvCode
ov_record_seal(const unsigned char subkey[OV_KEY_LEN], const OvAad *aad,
			   const void *plain, size_t len, unsigned char *out, size_t *outlen, OvError *err)
{
	unsigned char random[44];

	if (ov_random(random, sizeof(random)) != OV_OK)
		return ov_fail(err, OV_E_CRYPTO, "no random bytes");
	return ov_record_seal_with(subkey, aad, random, random + 32, plain, len, out, outlen, err);
}

bool
ov_record_key_id(const unsigned char *record, size_t len, uint64_t *key_id)
{
	if (len < OV_RECORD_OVERHEAD || memcmp(record, "OVR\1\1", 5) != 0)
		return false;
	*key_id = 0;
	for (int i = 0; i < 8; i++)
		*key_id = *key_id << 8 | record[5 + i];
	return true;
}

OvCode
ov_record_open(const unsigned char subkey[OV_KEY_LEN], const OvAad *aad,
			   const unsigned char *record, size_t len,
			   unsigned char *out, size_t *outlen, OvError *err)
{
	unsigned char aadbuf[AAD_MAX];
	size_t		aadlen;
	unsigned char key[32],
				commit[32];
	const unsigned char *salt = record + 13;
	EVP_CIPHER_CTX *ctx = cipher_ctx();
	uint64_t	key_id;
	size_t		plainlen;
	int			n;
	bool		ok;

	*outlen = 0;
	if (len > INT_MAX || !ov_record_key_id(record, len, &key_id))
		return ov_fail(err, OV_E_SYNTAX, "not a sealed record");
	if (key_id != aad->key_id)
		return ov_fail(err, OV_E_AUTH, "record was sealed under another key");
	if (!build_aad(aad, aadbuf, &aadlen))
		return ov_fail(err, OV_E_LIMIT, "associated data too long");
	expand(subkey, "ov1 commit", salt, 32, commit);
	if (CRYPTO_memcmp(commit, record + 45, 32) != 0)
		return ov_fail(err, OV_E_AUTH, "record does not belong to this key");
	expand(subkey, "ov1 key", salt, 32, key);
	plainlen = len - OV_RECORD_OVERHEAD;
	ok = ctx != NULL && cipher() != NULL &&
		EVP_DecryptInit_ex(ctx, cipher(), NULL, key, record + 77) == 1 &&
		EVP_DecryptUpdate(ctx, NULL, &n, aadbuf, (int) aadlen) == 1 &&
		(plainlen == 0 ||
		 EVP_DecryptUpdate(ctx, out, &n, record + OV_RECORD_HEADER, (int) plainlen) == 1) &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, 16,
							(void *) (record + OV_RECORD_HEADER + plainlen)) == 1 &&
		EVP_DecryptFinal_ex(ctx, out + plainlen, &n) == 1;
	OPENSSL_cleanse(key, sizeof(key));
	if (ctx != NULL)
		EVP_CIPHER_CTX_reset(ctx);
	if (!ok)
	{
		/* What GCM wrote before the tag failed is unauthenticated. */
		OPENSSL_cleanse(out, plainlen);
		ERR_clear_error();
		return ov_fail(err, OV_E_AUTH, "record does not open: it was altered or moved");
	}
	out[plainlen] = '\0';
	*outlen = plainlen;
	return OV_OK;
}
