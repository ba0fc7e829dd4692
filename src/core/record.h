/*
 * record.h
 *	  Sealed records: key-committing AES-256-GCM with a per-record key.
 *
 * Layout, big-endian:
 *	  "OV" "R" | format u8 = 1 | suite u8 = 1 | key_id u64 | salt[32] |
 *	  commit[32] | iv[12] | ciphertext | tag[16]
 *
 * record_key = HMAC-SHA256(subkey, "ov1 key" || salt || 0x01)
 * commit	  = HMAC-SHA256(subkey, "ov1 commit" || salt || 0x01)
 * commit is compared in constant time before AES-256-GCM opens.
 *
 * AAD: each field as u32 length || bytes (integers 8 bytes, uuid 16), in the
 * order of OvAad below.
 */
#ifndef OV_RECORD_H
#define OV_RECORD_H

#include "arena.h"

#define OV_KEY_LEN 32
#define OV_RECORD_HEADER (3 + 1 + 1 + 8 + 32 + 32 + 12)
#define OV_RECORD_OVERHEAD (OV_RECORD_HEADER + 16)

typedef enum OvPurpose
{
	OV_PURPOSE_ACCESS_TOKEN, OV_PURPOSE_REFRESH_TOKEN, OV_PURPOSE_ID_TOKEN,
	OV_PURPOSE_CLIENT_SECRET, OV_PURPOSE_PKCE_VERIFIER, OV_PURPOSE_DPOP_KEY,
	OV_PURPOSE_USER_KEY, OV_PURPOSE_CONNECTOR_KEY, OV_PURPOSE_AUDIT_KEY
} OvPurpose;

typedef struct OvAad
{
	/* domain "oauth_vault" and format 1 are prepended by the code */
	unsigned char vault_id[16];
	const char *tenant;			/* NULL counts as "" */
	const char *user_id;
	unsigned char connector_id[16];		/* zeros where there is none */
	unsigned char connection_id[16];	/* zeros where there is none; a flow's id for pkce_verifier */
	OvPurpose	purpose;		/* written as its name, e.g. "access_token" */
	unsigned char hosts_digest[32];		/* zeros where there is none */
	uint64_t	key_id;
	uint64_t	token_generation;
} OvAad;

/* subkey = HMAC-SHA256(user key, label || 0x01); labels below */
#define OV_LABEL_ACCESS  "ov1 access subkey"
#define OV_LABEL_REFRESH "ov1 refresh subkey"
extern void ov_subkey(const unsigned char key[OV_KEY_LEN], const char *label,
					  unsigned char out[OV_KEY_LEN]);

/* out must hold len + OV_RECORD_OVERHEAD */
extern OvCode ov_record_seal(const unsigned char subkey[OV_KEY_LEN], const OvAad *aad,
							 const void *plain, size_t len,
							 unsigned char *out, size_t *outlen, OvError *err);
/* out must hold len - OV_RECORD_OVERHEAD + 1; a NUL is added, not counted */
extern OvCode ov_record_open(const unsigned char subkey[OV_KEY_LEN], const OvAad *aad,
							 const unsigned char *record, size_t len,
							 unsigned char *out, size_t *outlen, OvError *err);
/* for known-answer tests: salt and iv given */
extern OvCode ov_record_seal_with(const unsigned char subkey[OV_KEY_LEN], const OvAad *aad,
								  const unsigned char salt[32], const unsigned char iv[12],
								  const void *plain, size_t len,
								  unsigned char *out, size_t *outlen, OvError *err);
/* Which access token was it?  Keyed with the access subkey: tells nothing without it. */
#define OV_FINGERPRINT_LEN 16
extern void ov_token_fingerprint(const unsigned char subkey[OV_KEY_LEN], const char *token, size_t len,
								 unsigned char out[OV_FINGERPRINT_LEN]);
extern const char *ov_purpose_name(OvPurpose purpose);
extern bool ov_purpose_parse(const char *name, OvPurpose *purpose);
extern bool ov_record_key_id(const unsigned char *record, size_t len, uint64_t *key_id);

#endif							/* OV_RECORD_H */
