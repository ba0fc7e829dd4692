/*
 * vaultfile.h
 *	  The vault file: platform keyring, identity source, issuers, hosts.
 *
 * JSON, outside PGDATA, 0600 owned by the reader or 0640 root with the
 * reader's group.  Held in the key worker only (and in the oauth-vault-keyring
 * tool).  {
 *	 "vault": "name", "instance": "id", "peers": ["id"...],
 *	 "keyring": { "active": 1, "versions": [ {"version":1,"key":"<base64url 32 bytes>",
 *				   "created":"..."} ], "last": 1 },	   the highest version ever given
 *				   instead of "key": "key_file":"/path", or "key_command":["/program","argument"...]
 *				   with "timeout": seconds; "retired":"..." keeps a version out of the ring
 *	 "identity": { "source": "assertion|authenticated|role", "leeway": 30,
 *		"issuers": [ {"issuer": "...", "audience": "...", "tenant": "" |
 *			"tenant_claim": "tid", "tenants": ["a"], "subject_claim": "sub",
 *			"single_use": false, "max_age": 3600, "jwks": {"keys":[...]} } ] },
 *	 "allowed_hosts": ["idp.example:8443"],		  hosts a secret may go to, beside the built-in catalogue
 *	 "allowed_networks": ["127.0.0.0/8"]		  addresses exempt from the private-address refusal
 * }
 */
#ifndef OV_VAULTFILE_H
#define OV_VAULTFILE_H

#include "jwt.h"
#include "record.h"

typedef enum OvIdentitySource
{
	OV_ID_ASSERTION, OV_ID_AUTHENTICATED, OV_ID_ROLE
} OvIdentitySource;

typedef struct OvVaultFile OvVaultFile;

/* path checks (mode, owner, not below forbidden_dir which may be NULL), then parse */
extern OvCode ov_vaultfile_load(const char *path, const char *forbidden_dir,
								OvVaultFile **out, OvError *err);
extern void ov_vaultfile_free(OvVaultFile *vf);		/* cleanses */
extern OvIdentitySource ov_vaultfile_source(const OvVaultFile *vf);
/* {"vault":..,"instance":..,"peers":[],"identity_source":"assertion","active_version":1,
 *	"versions":[{"version":1,"fingerprint":"hex16","active":true,"source":"key","created":"..."}],"allowed_hosts":[],"allowed_networks":[],
 *	"issuers":[{"issuer":..,"audience":..,"keys":n}]}: nothing secret */
extern char *ov_vaultfile_public(OvArena *arena, const OvVaultFile *vf);
extern int	ov_vaultfile_active_version(const OvVaultFile *vf);

/* 8 bytes in hex: tells keys apart and nothing else.  false: the version is not in the ring. */
#define OV_KEY_FINGERPRINT_LEN 16
extern bool ov_vaultfile_fingerprint(const OvVaultFile *vf, int version, char out[OV_KEY_FINGERPRINT_LEN + 1]);
/* Is this key in the ring?  fingerprint "": any key of that version */
extern bool ov_vaultfile_has(const OvVaultFile *vf, int version, const char *fingerprint);

/* How "key_command" is run; NULL, as it is at first: not at all.  For the key
 * worker and the tool, never where a vault file of somebody else's is parsed. */
extern OvCode (*ov_vaultfile_command) (const OvJson *argv, int timeout_ms,
									   unsigned char key[OV_KEY_LEN], OvError *err);

/* Wrap and unwrap a vault_key with a platform version.  The wrap is a record
 * (record.h) whose key id is the platform version and whose AAD has purpose
 * user_key / connector_key / audit_key, tenant, user and, as token_generation,
 * the vault_key row's id. */
extern OvCode ov_vaultfile_wrap(const OvVaultFile *vf, int version, const OvAad *aad,
								const unsigned char key[OV_KEY_LEN],
								unsigned char *out, size_t *outlen, OvError *err);
/* OV_E_NOTFOUND: the version is not in the ring; OV_E_AUTH: wrong key or moved */
extern OvCode ov_vaultfile_unwrap(const OvVaultFile *vf, const OvAad *aad,
								  const unsigned char *wrapped, size_t len,
								  unsigned char key[OV_KEY_LEN], OvError *err);

typedef struct OvIdentity
{
	const char *tenant;
	const char *user_id;		/* sub, byte for byte, 1-255 bytes, no NUL */
	const char *actor;			/* "act" claim as JSON text, or NULL (RFC 8693 section 4.1): up to 8
								 * actors, each with a "sub", 2 kB */
	const char *issuer;
	const char *jti;			/* or NULL */
	int64_t		issued_at;		/* unix seconds; 0: the assertion does not say */
	int64_t		expires_at;		/* unix seconds, leeway not included */
	int64_t		good_until;		/* leeway included: the first moment at which it is refused */
	bool		single_use;
} OvIdentity;

/* RFC 7519 claims against the pinned issuers; now in unix seconds */
extern OvCode ov_vaultfile_verify(OvArena *arena, const OvVaultFile *vf, const char *jwt, size_t len,
								  int64_t now, OvIdentity *identity, OvError *err);

#endif							/* OV_VAULTFILE_H */
