/*
 * vaultfile.c
 *	  The vault file: who may read it, what is in it, what is done with it.
 *
 * Platform keys live in pages of their own: locked where allowed, left out of
 * core dumps, cleansed on free.  The text of the file and its parse tree are
 * cleansed as soon as the keys are taken out.
 */
#include "core/vaultfile.h"
#include "core/codec.h"
#include "core/keysource.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define COMMAND_TIMEOUT_S 10
#define MAX_FILE (1024 * 1024)
#define MAX_VERSIONS 64
#define MAX_ISSUERS 32
#define MAX_ACTORS 8			/* agents acting for agents for one person */
#define MAX_ACTOR_TEXT 2048		/* goes into every audit row */
#define MAX_TIME ((int64_t) 1 << 52)	/* of a claim: sums and differences stay in range */

typedef struct Version
{
	int			version;
	bool		active;
	bool		retired;		/* without its key */
	const char *source;			/* where its key comes from: a member of the document */
	char		created[24];	/* as the document says; '' when it does not */
	unsigned char key[OV_KEY_LEN];
} Version;

typedef struct Issuer
{
	const char *issuer;
	const char *audience;
	const char *tenant;			/* NULL: by claim */
	const char *tenant_claim;
	const OvJson *tenants;		/* array of allowed tenants */
	const char *subject_claim;
	bool		single_use;
	int64_t		max_age;
	OvJwks	   *keys;
} Issuer;

struct OvVaultFile
{
	OvArena    *arena;			/* everything but the keys; no secret */
	const char *vault;
	const char *instance;
	const OvJson *peers;
	const OvJson *allowed_hosts;
	const OvJson *allowed_networks;
	OvIdentitySource source;
	int64_t		leeway;
	int			nissuers;
	Issuer		issuers[MAX_ISSUERS];
	int			nversions;
	Version    *versions;		/* MAX_VERSIONS of them in their own mapping */
};

#define KEY_AREA (MAX_VERSIONS * sizeof(Version))

OvCode		(*ov_vaultfile_command) (const OvJson *argv, int timeout_ms, unsigned char key[OV_KEY_LEN], OvError *err);

/* One version's key: inline, in a file, or what a command prints.  Exactly one of them. */
static OvCode
load_key(OvArena *secret, const OvJson *v, const char *forbidden_dir, unsigned char key[OV_KEY_LEN], OvError *err)
{
	const char *text = ov_json_get_string(v, "key");
	const char *file = ov_json_get_string(v, "key_file");
	const OvJson *command = ov_json_get(v, "key_command");
	int64_t		timeout = COMMAND_TIMEOUT_S;

	if ((ov_json_get(v, "key") != NULL) + (ov_json_get(v, "key_file") != NULL) + (command != NULL) != 1)
		return ov_fail(err, OV_E_CONFIG, "vault file: a key version needs one of \"key\", \"key_file\" and \"key_command\"");
	if (text != NULL && ov_key_from_text(secret, text, strlen(text), key, NULL) == OV_OK &&
		strlen(text) == (OV_KEY_LEN * 4 + 2) / 3)
		return OV_OK;
	if (file != NULL && file[0] == '/')
		return ov_key_from_file(file, forbidden_dir, key, err);
	if (ov_json_get(v, "timeout") != NULL &&
		(!ov_json_int64(ov_json_get(v, "timeout"), false, &timeout) || timeout < 1 || timeout > 60))
		return ov_fail(err, OV_E_CONFIG, "vault file: \"timeout\" of a key command is not between 1 and 60 seconds");
	if (command == NULL || !ov_key_command_ok(command))
		return ov_fail(err, OV_E_CONFIG, "vault file: a key version is malformed");
	if (ov_vaultfile_command == NULL)
		return ov_fail(err, OV_E_DENIED, "vault file: key commands are not run here");
	return ov_vaultfile_command(command, (int) timeout * 1000, key, err);
}

static OvCode
load_keyring(OvVaultFile *vf, OvArena *secret, const OvJson *keyring, const char *forbidden_dir, OvError *err)
{
	const OvJson *versions = ov_json_get(keyring, "versions");
	int64_t		active;
	OvCode		rc;

	if (!ov_json_int64(ov_json_get(keyring, "active"), false, &active) ||
		versions == NULL || versions->type != OV_JSON_ARRAY ||
		versions->count == 0 || versions->count > MAX_VERSIONS)
		return ov_fail(err, OV_E_CONFIG, "vault file: \"keyring\" needs \"active\" and \"versions\"");
	for (const OvJson *v = versions->child; v != NULL; v = v->next)
	{
		Version    *slot = &vf->versions[vf->nversions];
		const OvJson *retired = ov_json_get(v, "retired");
		const char *created = ov_json_get_string(v, "created");
		int64_t		number;

		if (!ov_json_int64(ov_json_get(v, "version"), false, &number) || number < 1 || number > INT32_MAX ||
			(retired != NULL && ov_json_string(retired) == NULL))
			return ov_fail(err, OV_E_CONFIG, "vault file: a key version is malformed");
		for (int i = 0; i < vf->nversions; i++)
			if (vf->versions[i].version == number)
				return ov_fail(err, OV_E_CONFIG, "vault file: key version %d is given twice", (int) number);
		/* A retired version's key is only kept: neither read nor asked for. */
		if (retired == NULL && (rc = load_key(secret, v, forbidden_dir, slot->key, err)) != OV_OK)
			return rc;
		slot->version = (int) number;
		slot->retired = retired != NULL;
		slot->source = ov_json_get(v, "key") != NULL ? "key" : ov_json_get(v, "key_file") != NULL ? "key_file" : "key_command";
		if (created != NULL && strlen(created) < sizeof(slot->created))
			memcpy(slot->created, created, strlen(created) + 1);
		slot->active = number == active && !slot->retired;
		vf->nversions++;
	}
	if (ov_vaultfile_active_version(vf) == 0)
		return ov_fail(err, OV_E_CONFIG, "vault file: the active key version %d is not in the ring", (int) active);
	return OV_OK;
}

static bool
string_array(const OvJson *v)
{
	if (v == NULL)
		return true;
	if (v->type != OV_JSON_ARRAY)
		return false;
	for (const OvJson *c = v->child; c != NULL; c = c->next)
		if (c->type != OV_JSON_STRING)
			return false;
	return true;
}

static bool
array_has(const OvJson *array, const char *s)
{
	for (const OvJson *c = array ? array->child : NULL; c != NULL; c = c->next)
		if (strcmp(c->str, s) == 0)
			return true;
	return false;
}

static bool
may_yield(const Issuer *i, const char *tenant)
{
	return i->tenant != NULL ? strcmp(i->tenant, tenant) == 0 : array_has(i->tenants, tenant);
}

/* No two issuers may yield the same tenant: one could impersonate the other's people. */
static bool
tenants_overlap(const Issuer *a, const Issuer *b)
{
	if (a->tenant != NULL)
		return may_yield(b, a->tenant);
	for (const OvJson *t = a->tenants->child; t != NULL; t = t->next)
		if (may_yield(b, t->str))
			return true;
	return false;
}

/* A member of the wrong type must not pass for one that is absent. */
static bool
optional_string(const OvJson *doc, const char *name, const char **out)
{
	*out = ov_json_get_string(doc, name);
	return *out != NULL || ov_json_get(doc, name) == NULL;
}

static bool
optional_bool(const OvJson *doc, const char *name, bool *out)
{
	const OvJson *v = ov_json_get(doc, name);

	*out = ov_json_is_true(v);
	return v == NULL || v->type == OV_JSON_TRUE || v->type == OV_JSON_FALSE;
}

static OvCode
load_issuer(OvVaultFile *vf, const OvJson *doc, OvError *err)
{
	Issuer	   *i = &vf->issuers[vf->nissuers];
	const OvJson *jwks = ov_json_get(doc, "jwks");
	OvCode		rc;

	i->issuer = ov_json_get_string(doc, "issuer");
	i->audience = ov_json_get_string(doc, "audience");
	i->tenants = ov_json_get(doc, "tenants");
	if (!optional_string(doc, "tenant", &i->tenant) || !optional_string(doc, "tenant_claim", &i->tenant_claim) ||
		!optional_string(doc, "subject_claim", &i->subject_claim) || !optional_bool(doc, "single_use", &i->single_use))
		return ov_fail(err, OV_E_CONFIG, "vault file: a member of an issuer has the wrong type");
	i->max_age = 3600;
	if (ov_json_get(doc, "max_age") != NULL &&
		(!ov_json_int64(ov_json_get(doc, "max_age"), false, &i->max_age) || i->max_age < 1 || i->max_age > MAX_TIME))
		return ov_fail(err, OV_E_CONFIG, "vault file: \"max_age\" is not a number of seconds");
	if (i->issuer == NULL || i->audience == NULL || jwks == NULL)
		return ov_fail(err, OV_E_CONFIG, "vault file: an issuer needs \"issuer\", \"audience\" and \"jwks\"");
	if ((i->tenant != NULL) == (i->tenant_claim != NULL))
		return ov_fail(err, OV_E_CONFIG, "vault file: an issuer needs either \"tenant\" or \"tenant_claim\" with \"tenants\"");
	if (i->tenant_claim != NULL && (i->tenants == NULL || !string_array(i->tenants) || i->tenants->count == 0))
		return ov_fail(err, OV_E_CONFIG, "vault file: \"tenant_claim\" needs the list \"tenants\"");
	if ((rc = ov_jwks_parse(jwks, &i->keys, err)) != OV_OK)
		return rc;
	vf->nissuers++;
	for (int k = 0; k < vf->nissuers - 1; k++)
	{
		if (tenants_overlap(i, &vf->issuers[k]))
			return ov_fail(err, OV_E_CONFIG, "vault file: two issuers yield the same tenant");
		if (strcmp(i->issuer, vf->issuers[k].issuer) == 0 && strcmp(i->audience, vf->issuers[k].audience) == 0)
			return ov_fail(err, OV_E_CONFIG, "vault file: an issuer is given twice for one audience");
	}
	return OV_OK;
}

static OvCode
load_identity(OvVaultFile *vf, const OvJson *identity, OvError *err)
{
	static const struct
	{
		const char *name;
		OvIdentitySource source;
	}			sources[] = {
		{"assertion", OV_ID_ASSERTION}, {"authenticated", OV_ID_AUTHENTICATED}, {"role", OV_ID_ROLE}
	};
	const char *source = ov_json_get_string(identity, "source");
	const OvJson *issuers = ov_json_get(identity, "issuers");
	bool		found = false;
	OvCode		rc;

	for (size_t i = 0; source != NULL && i < sizeof(sources) / sizeof(sources[0]); i++)
		if (strcmp(sources[i].name, source) == 0)
		{
			vf->source = sources[i].source;
			found = true;
		}
	if (!found)
		return ov_fail(err, OV_E_CONFIG, "vault file: identity source is none of assertion, authenticated and role");
	vf->leeway = 30;
	if (ov_json_get(identity, "leeway") != NULL &&
		(!ov_json_int64(ov_json_get(identity, "leeway"), false, &vf->leeway) || vf->leeway < 0 || vf->leeway > 300))
		return ov_fail(err, OV_E_CONFIG, "vault file: \"leeway\" is not between 0 and 300");
	if (issuers != NULL && (issuers->type != OV_JSON_ARRAY || issuers->count > MAX_ISSUERS))
		return ov_fail(err, OV_E_CONFIG, "vault file: \"issuers\" is not an array of up to %d", MAX_ISSUERS);
	for (const OvJson *i = issuers ? issuers->child : NULL; i != NULL; i = i->next)
		if ((rc = load_issuer(vf, i, err)) != OV_OK)
			return rc;
	if (vf->source == OV_ID_ASSERTION && vf->nissuers == 0)
		return ov_fail(err, OV_E_CONFIG, "vault file: identity source assertion needs an issuer");
	return OV_OK;
}

/* A copy of the document without the keyring, so that no parse tree with keys stays. */
static OvCode
keep_public(OvVaultFile *vf, const OvJson *doc, const OvJson **kept, OvError *err)
{
	OvStr		s;

	ov_str_init(&s, vf->arena);
	ov_str_putc(&s, '{');
	for (const OvJson *v = doc->child; v != NULL; v = v->next)
	{
		if (strcmp(v->key, "keyring") == 0)
			continue;
		if (s.len > 1)
			ov_str_putc(&s, ',');
		ov_json_quote(&s, v->key, strlen(v->key));
		ov_str_putc(&s, ':');
		ov_json_write(&s, v);
	}
	ov_str_putc(&s, '}');
	return ov_json_parse(vf->arena, s.data, s.len, kept, err);
}

static OvCode
load_document(OvVaultFile *vf, OvArena *secret, const OvJson *doc, const char *forbidden_dir, OvError *err)
{
	const OvJson *public;
	OvCode		rc;

	if (doc->type != OV_JSON_OBJECT)
		return ov_fail(err, OV_E_CONFIG, "vault file is not a JSON object");
	if (!ov_json_no_duplicates(doc))
		return ov_fail(err, OV_E_CONFIG, "vault file names a member twice");
	if ((rc = load_keyring(vf, secret, ov_json_get(doc, "keyring"), forbidden_dir, err)) != OV_OK ||
		(rc = keep_public(vf, doc, &public, err)) != OV_OK ||
		(rc = load_identity(vf, ov_json_get(public, "identity"), err)) != OV_OK)
		return rc;
	vf->vault = ov_json_get_string(public, "vault");
	vf->instance = ov_json_get_string(public, "instance");
	vf->peers = ov_json_get(public, "peers");
	vf->allowed_hosts = ov_json_get(public, "allowed_hosts");
	vf->allowed_networks = ov_json_get(public, "allowed_networks");
	if (vf->vault == NULL || vf->instance == NULL)
		return ov_fail(err, OV_E_CONFIG, "vault file needs \"vault\" and \"instance\"");
	if (!string_array(vf->peers) || !string_array(vf->allowed_hosts) || !string_array(vf->allowed_networks))
		return ov_fail(err, OV_E_CONFIG, "vault file: peers, allowed_hosts and allowed_networks are arrays of strings");
	return OV_OK;
}

OvCode
ov_vaultfile_load(const char *path, const char *forbidden_dir, OvVaultFile **out, OvError *err)
{
	OvVaultFile *vf;
	OvArena    *secret;
	OvError		ignored;
	const OvJson *doc;
	char	   *text = NULL;
	size_t		len = 0;
	OvCode		rc;

	*out = NULL;
	if (err == NULL)
		err = &ignored;
	memset(err, 0, sizeof(*err));
	if ((vf = calloc(1, sizeof(OvVaultFile))) == NULL)
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	vf->arena = ov_arena_new();
	secret = ov_arena_new();
	vf->versions = mmap(NULL, KEY_AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vf->versions == MAP_FAILED)
	{
		vf->versions = NULL;
		rc = ov_fail(err, OV_E_NOMEM, "out of memory");
	}
	else
	{
		/* Locking needs RLIMIT_MEMLOCK; without it the pages may be swapped, no more. */
		(void) mlock(vf->versions, KEY_AREA);
		(void) madvise(vf->versions, KEY_AREA, MADV_DONTDUMP);
		if ((rc = ov_secret_file_read(path, forbidden_dir, "vault file", MAX_FILE, secret, &text, &len, err)) == OV_OK &&
			(rc = ov_json_parse(secret, text, len, &doc, err)) == OV_OK)
			rc = load_document(vf, secret, doc, forbidden_dir, err);
	}
	ov_arena_free(secret);
	if (rc != OV_OK)
	{
		ov_vaultfile_free(vf);
		return rc;
	}
	*out = vf;
	return OV_OK;
}

void
ov_vaultfile_free(OvVaultFile *vf)
{
	if (vf == NULL)
		return;
	for (int i = 0; i < vf->nissuers; i++)
		ov_jwks_free(vf->issuers[i].keys);
	if (vf->versions != NULL)
	{
		OPENSSL_cleanse(vf->versions, KEY_AREA);
		munmap(vf->versions, KEY_AREA);
	}
	ov_arena_free(vf->arena);
	free(vf);
}

OvIdentitySource
ov_vaultfile_source(const OvVaultFile *vf)
{
	return vf->source;
}

int
ov_vaultfile_active_version(const OvVaultFile *vf)
{
	for (int i = 0; i < vf->nversions; i++)
		if (vf->versions[i].active)
			return vf->versions[i].version;
	return 0;
}

static const Version *
find_version(const OvVaultFile *vf, uint64_t version)
{
	for (int i = 0; i < vf->nversions; i++)
		if ((uint64_t) vf->versions[i].version == version && !vf->versions[i].retired)
			return &vf->versions[i];
	return NULL;
}

/* An HMAC of a constant under the key tells keys apart and nothing else. */
static void
fingerprint_of(const Version *v, char out[OV_KEY_FINGERPRINT_LEN + 1])
{
	unsigned char mac[32];

	ov_hmac_sha256(v->key, OV_KEY_LEN, "ov1 fingerprint", 15, mac);
	for (int i = 0; i < OV_KEY_FINGERPRINT_LEN / 2; i++)
		snprintf(out + 2 * i, 3, "%02x", mac[i]);
}

bool
ov_vaultfile_fingerprint(const OvVaultFile *vf, int version, char out[OV_KEY_FINGERPRINT_LEN + 1])
{
	const Version *v = find_version(vf, (uint64_t) version);

	out[0] = '\0';
	if (v == NULL)
		return false;
	fingerprint_of(v, out);
	return true;
}

bool
ov_vaultfile_has(const OvVaultFile *vf, int version, const char *fingerprint)
{
	char		mine[OV_KEY_FINGERPRINT_LEN + 1];

	return ov_vaultfile_fingerprint(vf, version, mine) &&
		(fingerprint[0] == '\0' || strcmp(mine, fingerprint) == 0);
}

static void
put_array(OvStr *s, const char *name, const OvJson *array)
{
	ov_str_printf(s, ",\"%s\":", name);
	if (array == NULL)
		ov_str_puts(s, "[]");
	else
		ov_json_write(s, array);
}

char *
ov_vaultfile_public(OvArena *arena, const OvVaultFile *vf)
{
	static const char *const sources[] = {
		[OV_ID_ASSERTION] = "assertion", [OV_ID_AUTHENTICATED] = "authenticated", [OV_ID_ROLE] = "role"
	};
	OvStr		s;

	ov_str_init(&s, arena);
	ov_str_puts(&s, "{\"vault\":");
	ov_json_quote(&s, vf->vault, strlen(vf->vault));
	ov_str_puts(&s, ",\"instance\":");
	ov_json_quote(&s, vf->instance, strlen(vf->instance));
	ov_str_printf(&s, ",\"identity_source\":\"%s\",\"active_version\":%d,\"versions\":[",
				  sources[vf->source], ov_vaultfile_active_version(vf));
	for (int i = 0; i < vf->nversions; i++)
	{
		const Version *v = &vf->versions[i];
		char		fp[OV_KEY_FINGERPRINT_LEN + 1];

		if (v->retired)
		{
			ov_str_printf(&s, "%s{\"version\":%d,\"retired\":true}", i ? "," : "", v->version);
			continue;
		}
		fingerprint_of(v, fp);
		ov_str_printf(&s, "%s{\"version\":%d,\"fingerprint\":\"%s\",\"active\":%s,\"source\":\"%s\",\"created\":", i ? "," : "",
					  v->version, fp, v->active ? "true" : "false", v->source);
		ov_json_quote(&s, v->created, strlen(v->created));
		ov_str_putc(&s, '}');
	}
	ov_str_puts(&s, "],\"issuers\":[");
	for (int i = 0; i < vf->nissuers; i++)
	{
		ov_str_puts(&s, i ? ",{\"issuer\":" : "{\"issuer\":");
		ov_json_quote(&s, vf->issuers[i].issuer, strlen(vf->issuers[i].issuer));
		ov_str_puts(&s, ",\"audience\":");
		ov_json_quote(&s, vf->issuers[i].audience, strlen(vf->issuers[i].audience));
		ov_str_printf(&s, ",\"keys\":%d}", ov_jwks_count(vf->issuers[i].keys));
	}
	ov_str_putc(&s, ']');
	put_array(&s, "peers", vf->peers);
	put_array(&s, "allowed_hosts", vf->allowed_hosts);
	put_array(&s, "allowed_networks", vf->allowed_networks);
	ov_str_putc(&s, '}');
	return s.data;
}

OvCode
ov_vaultfile_wrap(const OvVaultFile *vf, int version, const OvAad *aad,
				  const unsigned char key[OV_KEY_LEN], unsigned char *out, size_t *outlen, OvError *err)
{
	const Version *v = find_version(vf, (uint64_t) version);
	OvAad		wrap = *aad;

	if (v == NULL)
		return ov_fail(err, OV_E_NOTFOUND, "platform key version %d is not in the keyring", version);
	wrap.key_id = (uint64_t) version;
	return ov_record_seal(v->key, &wrap, key, OV_KEY_LEN, out, outlen, err);
}

OvCode
ov_vaultfile_unwrap(const OvVaultFile *vf, const OvAad *aad, const unsigned char *wrapped, size_t len,
					unsigned char key[OV_KEY_LEN], OvError *err)
{
	OvAad		wrap = *aad;
	uint64_t	version;
	const Version *v;
	unsigned char plain[OV_KEY_LEN + 1];
	size_t		n;
	OvCode		rc;

	if (len != OV_KEY_LEN + OV_RECORD_OVERHEAD || !ov_record_key_id(wrapped, len, &version))
		return ov_fail(err, OV_E_SYNTAX, "not a wrapped key");
	if ((v = find_version(vf, version)) == NULL)
		return ov_fail(err, OV_E_NOTFOUND, "platform key version %llu is not in the keyring",
					   (unsigned long long) version);
	wrap.key_id = version;
	if ((rc = ov_record_open(v->key, &wrap, wrapped, len, plain, &n, err)) == OV_OK)
		memcpy(key, plain, OV_KEY_LEN);
	OPENSSL_cleanse(plain, sizeof(plain));
	return rc;
}

static bool
audience_ok(const OvJson *aud, const char *want)
{
	if (aud == NULL)
		return false;
	if (aud->type == OV_JSON_STRING)
		return strcmp(aud->str, want) == 0;
	return string_array(aud) && aud->type == OV_JSON_ARRAY && array_has(aud, want);
}

static bool
claim_time(const OvJson *claims, const char *name, int64_t *out)
{
	return ov_json_int64(ov_json_get(claims, name), false, out) && *out >= 0 && *out <= MAX_TIME;
}

static OvCode
check_times(const OvVaultFile *vf, const Issuer *issuer, const OvJson *claims, int64_t now,
			int64_t *issued_at, int64_t *expires_at, OvError *err)
{
	int64_t		nbf = now,
				iat = now;

	*issued_at = 0;
	/* RFC 7519 sections 4.1.4 to 4.1.6; "exp" is the first moment at which it is too late */
	if (!claim_time(claims, "exp", expires_at))
		return ov_fail(err, OV_E_DENIED, "assertion has no expiry");
	if (*expires_at <= now - vf->leeway)
		return ov_fail(err, OV_E_EXPIRED, "assertion has expired");
	if (ov_json_get(claims, "nbf") != NULL && (!claim_time(claims, "nbf", &nbf) || nbf > now + vf->leeway))
		return ov_fail(err, OV_E_DENIED, "assertion is not valid yet");
	if (ov_json_get(claims, "iat") != NULL && (!claim_time(claims, "iat", &iat) || iat > now + vf->leeway))
		return ov_fail(err, OV_E_DENIED, "assertion was issued in the future");
	if (ov_json_get(claims, "iat") != NULL)
		*issued_at = iat;
	if (*expires_at - iat > issuer->max_age + vf->leeway)
		return ov_fail(err, OV_E_DENIED, "assertion lives longer than the vault file allows");
	return OV_OK;
}

/*
 * RFC 8693 section 4.1: who acts, and for whom in turn.  The audit trail is to
 * name every one of them, so that each needs a subject.
 */
static OvCode
check_actors(OvArena *arena, const OvJson *act, const char **text, OvError *err)
{
	OvStr		s;
	int			depth = 0;

	for (const OvJson *a = act; a != NULL; a = ov_json_get(a, "act"))
	{
		const OvJson *sub;

		if (a->type != OV_JSON_OBJECT)
			return ov_fail(err, OV_E_DENIED, "assertion has a malformed \"act\"");
		if (++depth > MAX_ACTORS)
			return ov_fail(err, OV_E_DENIED, "assertion has more than %d actors", MAX_ACTORS);
		sub = ov_json_get(a, "sub");
		if (ov_json_string(sub) == NULL || sub->len < 1 || sub->len > 255)
			return ov_fail(err, OV_E_DENIED, "assertion has an actor without a usable subject");
	}
	ov_str_init(&s, arena);
	ov_json_write(&s, act);
	if (s.len > MAX_ACTOR_TEXT)
		return ov_fail(err, OV_E_LIMIT, "assertion has an \"act\" of more than %d bytes", MAX_ACTOR_TEXT);
	*text = s.data;
	return OV_OK;
}

OvCode
ov_vaultfile_verify(OvArena *arena, const OvVaultFile *vf, const char *jwt, size_t len,
					int64_t now, OvIdentity *identity, OvError *err)
{
	const OvJson *header,
			   *claims,
			   *v;
	const Issuer *issuer = NULL;
	const char *iss,
			   *tenant;
	OvCode		rc;

	memset(identity, 0, sizeof(*identity));
	if (vf->source != OV_ID_ASSERTION)
		return ov_fail(err, OV_E_DENIED, "the vault file does not use assertions");
	if ((rc = ov_jwt_peek(arena, jwt, len, &header, &claims, err)) != OV_OK)
		return rc;
	iss = ov_json_get_string(claims, "iss");
	for (int i = 0; i < vf->nissuers && iss != NULL; i++)
	{
		if (strcmp(vf->issuers[i].issuer, iss) != 0 || !audience_ok(ov_json_get(claims, "aud"), vf->issuers[i].audience))
			continue;
		if (issuer != NULL)
			return ov_fail(err, OV_E_DENIED, "assertion is for more than one audience of this vault");
		issuer = &vf->issuers[i];
	}
	if (issuer == NULL)
		return ov_fail(err, OV_E_DENIED, "assertion is from an unknown issuer or for another audience");
	if ((rc = ov_jwt_verify(arena, jwt, len, issuer->keys, &header, &claims, err)) != OV_OK ||
		(rc = check_times(vf, issuer, claims, now, &identity->issued_at, &identity->expires_at, err)) != OV_OK)
		return rc;
	v = ov_json_get(claims, issuer->subject_claim ? issuer->subject_claim : "sub");
	if (ov_json_string(v) == NULL || v->len < 1 || v->len > 255)
		return ov_fail(err, OV_E_DENIED, "assertion has no usable subject");
	identity->user_id = v->str;
	tenant = issuer->tenant;
	if (tenant == NULL)
	{
		tenant = ov_json_get_string(claims, issuer->tenant_claim);
		if (tenant == NULL || !array_has(issuer->tenants, tenant))
			return ov_fail(err, OV_E_DENIED, "assertion is for a tenant that its issuer may not speak for");
	}
	if (strlen(tenant) > 255)
		return ov_fail(err, OV_E_DENIED, "tenant is too long");
	identity->tenant = tenant;
	identity->issuer = issuer->issuer;
	if ((v = ov_json_get(claims, "jti")) != NULL &&
		((identity->jti = ov_json_string(v)) == NULL || v->len < 1 || v->len > 255))
		return ov_fail(err, OV_E_DENIED, "assertion has a malformed \"jti\"");
	if (issuer->single_use && identity->jti == NULL)
		return ov_fail(err, OV_E_DENIED, "assertion needs a \"jti\"");
	identity->single_use = issuer->single_use;
	identity->good_until = identity->expires_at + vf->leeway;
	if ((v = ov_json_get(claims, "act")) != NULL)
		return check_actors(arena, v, &identity->actor, err);
	return OV_OK;
}
