/*
 * key_worker.c
 *	  The one process that holds the platform keyring.
 *
 * Shared memory only: no database, no transaction, no network.  The vault file
 * is read after fork and again on SIGHUP; a file that cannot be read leaves
 * the ring that is there in force.  The process is not dumpable, so neither a
 * core file nor ptrace of the same user shows the ring.
 *
 * A file that lacks a platform key which some database still needs is not taken
 * over either: what that key wraps would be lost with the ring.
 *
 * What it releases, and to whom:
 *	 access subkey of one person   a backend, with that person's proof (RELEASE)
 *	 whole user and connector keys network workers only, by registered PID
 *	 MACs of audit heads           audit writers only, by registered PID
 *	 sealed records, wrapped keys  anybody who asks: they open nothing
 *	 whether a head's MAC is good  anybody who asks
 *
 * Every answer is built in one static buffer that is cleansed after each use.
 */
#include "worker/references.h"
#include "worker/shmem.h"
#include "worker/worker.h"

#include <openssl/crypto.h>
#include <time.h>

#include "conceal.h"
#include "core/chain.h"
#include "core/codec.h"
#include "core/keysource.h"
#include "core/vaultfile.h"
#include "errors.h"
#include "guc.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define RETRY_MS 10000			/* look again for a vault file that was not there */
#define MAX_SINGLE_USE 8192
#define SINGLE_USE_AHEAD 2		/* seconds that a clock of an issuer of these may be ahead of ours */

static OvVaultFile *vault;
static unsigned char request_buf[OV_MESSAGE_MAX];
static unsigned char reply_buf[OV_MESSAGE_MAX];

/*
 * Single-use assertions seen, until they expire (RFC 7519 section 4.1.7).  What
 * was used before this process began is not in it: an assertion that may have
 * been issued by then is refused.
 */
static int64 remembering_since;
static struct
{
	unsigned char digest[32];	/* of issuer and jti; all zero: free */
	int64		expires_at;
	int			pid;			/* who used it: only that backend may have the key released */
}			used[MAX_SINGLE_USE];

/* A key command is left when the server stops: nobody waits for it then. */
static bool
shall_stop(void)
{
	return ProcDiePending || !PostmasterIsAlive();
}

static OvCode
run_key_command(const OvJson *argv, int timeout_ms, unsigned char key[OV_KEY_LEN], OvError *err)
{
	return ov_key_from_command(argv, timeout_ms, shall_stop, key, err);
}

/*
 * Would this file lose a key that some database needs?  Then the ring that is
 * there stays, and with it everything else that the file before it said.
 */
static bool
loses_key(const OvVaultFile *loaded)
{
	OvReference lost;
	Oid			database;
	char		now[OV_KEY_FINGERPRINT_LEN + 1];

	if (vault == NULL || !ov_reference_lost(vault, loaded, &lost, &database))
		return false;
	/* of a database that was restored we may know the version only */
	if (lost.fingerprint[0] == '\0')
		(void) ov_vaultfile_fingerprint(vault, lost.version, lost.fingerprint);
	ereport(LOG,
			(errmsg("did not take over the vault file \"%s\": the database with OID %u still needs platform key version %d, fingerprint %s",
					ov_guc_vault_file, database, lost.version, lost.fingerprint),
			 ov_vaultfile_fingerprint(loaded, lost.version, now) ?
			 errdetail("The file's version %d has fingerprint %s.", lost.version, now) :
			 errdetail("The file does not hold this version, or holds it as retired."),
			 errhint("The keyring read before stays in force until the server stops. Put the version back "
					 "(oauth-vault-keyring retire --undo) or call oauth_rotate_keys('rewrap') in that database, then reload.")));
	return true;
}

static void
load_vault(void)
{
	OvVaultFile *loaded = NULL;
	OvArena    *arena;
	OvError		err = {0};

	if (ov_guc_vault_file == NULL || ov_guc_vault_file[0] == '\0')
	{
		if (vault == NULL)
			ov_settings_publish(NULL, "\"oauth_vault.vault_file\" is not set");
		return;
	}
	if (ov_vaultfile_load(ov_guc_vault_file, DataDir, &loaded, &err) != OV_OK)
	{
		ereport(LOG,
				(errmsg("could not load the vault file \"%s\": %s", ov_guc_vault_file, err.message),
				 err.detail[0] ? errdetail("%s", err.detail) : 0,
				 vault ? errhint("The keyring read before stays in force.") :
				 errhint("Until this is put right, functions answer OV040; nothing is marked broken.")));
		if (vault == NULL)
			ov_settings_publish(NULL, err.message);
		return;
	}
	if (loses_key(loaded))
	{
		ov_vaultfile_free(loaded);
		return;
	}
	ov_vaultfile_free(vault);
	vault = loaded;
	arena = ov_arena_new();
	{
		char	   *public = ov_vaultfile_public(arena, vault);
		char		active[OV_KEY_FINGERPRINT_LEN + 1];

		ov_settings_publish(ov_arena_failed(arena) ? NULL : public, "out of memory");
		(void) ov_vaultfile_fingerprint(vault, ov_vaultfile_active_version(vault), active);
		ereport(LOG,
				(errmsg("oauth_vault keyring loaded: active version %d, fingerprint %s",
						ov_vaultfile_active_version(vault), active)));
	}
	ov_arena_free(arena);
}

/* ---- reading a request ---- */

static char *
field(OvArena *arena, const OvMsg *m, OvTag tag)
{
	const void *data;
	size_t		len;

	return ov_msg_get(m, tag, &data, &len) ? ov_arena_strndup(arena, data, len) : NULL;
}

static void
fixed(const OvMsg *m, OvTag tag, void *out, size_t size)
{
	const void *data;
	size_t		len;

	memset(out, 0, size);
	if (ov_msg_get(m, tag, &data, &len) && len == size)
		memcpy(out, data, size);
}

/* AAD of the wrap of the key that the request speaks of */
static bool
wrap_aad(OvArena *arena, const OvMsg *m, OvAad *aad, bool *connector)
{
	char	   *kind = field(arena, m, OV_TAG_KIND);

	memset(aad, 0, sizeof(*aad));
	fixed(m, OV_TAG_VAULT_ID, aad->vault_id, 16);
	aad->token_generation = ov_msg_get_i64(m, OV_TAG_KEY_ID, 0);
	*connector = kind != NULL && strcmp(kind, OV_KIND_CONNECTOR) == 0;
	if (*connector)
	{
		aad->purpose = OV_PURPOSE_CONNECTOR_KEY;
		fixed(m, OV_TAG_CONNECTOR_ID, aad->connector_id, 16);
	}
	else if (kind != NULL && strcmp(kind, OV_KIND_USER) == 0)
	{
		aad->purpose = OV_PURPOSE_USER_KEY;
		aad->tenant = field(arena, m, OV_TAG_TENANT);
		aad->user_id = field(arena, m, OV_TAG_USER);
		if (aad->user_id == NULL || aad->user_id[0] == '\0')
			return false;
	}
	else
		return false;
	return aad->token_generation != 0;
}

/* The same for an audit key, which nobody is given */
static bool
audit_aad(OvArena *arena, const OvMsg *m, OvAad *aad)
{
	char	   *kind = field(arena, m, OV_TAG_KIND);

	memset(aad, 0, sizeof(*aad));
	fixed(m, OV_TAG_VAULT_ID, aad->vault_id, 16);
	aad->token_generation = ov_msg_get_i64(m, OV_TAG_KEY_ID, 0);
	aad->purpose = OV_PURPOSE_AUDIT_KEY;
	return kind != NULL && strcmp(kind, OV_KIND_AUDIT) == 0 && aad->token_generation != 0;
}

static void
refuse(const OvTicket *t, const char *state, const char *message, const char *detail, const char *hint)
{
	ov_slot_answer_error(t, state, message, detail, hint);
}

static void
refuse_crypto(const OvTicket *t, OvCode code, const OvError *err)
{
	if (code == OV_E_NOTFOUND || code == OV_E_AUTH)
		refuse(t, "OV040", "the vault file does not hold the key that this record is sealed under",
			   code == OV_E_NOTFOUND ? "{\"reason\":\"platform key version not in the vault file\"}" :
			   "{\"reason\":\"platform key does not match\"}",
			   "Restore the vault file that this database was used with; nothing has been changed.");
	else
		refuse(t, "OV041", "the key of a record could not be opened", ov_detail("reason", err->message, NULL),
			   "The wrapped key was changed, or belongs to another row; nothing has been marked broken.");
}

/* Unwrap the key of the request; answers the error itself. */
static bool
open_key(const OvTicket *t, OvArena *arena, const OvMsg *m, bool *connector, unsigned char key[OV_KEY_LEN])
{
	OvAad		aad;
	OvError		err = {0};
	const void *wrapped;
	size_t		len;
	OvCode		code;

	if (!wrap_aad(arena, m, &aad, connector) || !ov_msg_get(m, OV_TAG_WRAPPED, &wrapped, &len))
	{
		refuse(t, "XX000", "malformed request to the key worker", NULL, NULL);
		return false;
	}
	code = ov_vaultfile_unwrap(vault, &aad, wrapped, len, key, &err);
	if (code == OV_OK)
		return true;
	refuse_crypto(t, code, &err);
	return false;
}

static void
put_keys(OvMsg *reply, bool connector, const unsigned char key[OV_KEY_LEN])
{
	unsigned char sub[OV_KEY_LEN];

	if (connector)
	{
		ov_msg_put(reply, OV_TAG_KEY, key, OV_KEY_LEN);
		return;
	}
	ov_subkey(key, OV_LABEL_ACCESS, sub);
	ov_msg_put(reply, OV_TAG_ACCESS_KEY, sub, OV_KEY_LEN);
	ov_subkey(key, OV_LABEL_REFRESH, sub);
	ov_msg_put(reply, OV_TAG_REFRESH_KEY, sub, OV_KEY_LEN);
	OPENSSL_cleanse(sub, sizeof(sub));
}

static bool
is_network_worker(const OvTicket *t)
{
	return ov_is_worker_pid(OV_WORKER_NETWORK, t->requester_pid);
}

/* ---- the operations ---- */

/*
 * Records the use of a single-use assertion; with release, looks whether this
 * backend has used it.  NULL, or why not.
 */
static const char *
use_once(const OvIdentity *id, int pid, bool release)
{
	int64		now = time(NULL);
	unsigned char digest[32];
	OvArena    *arena = ov_arena_new();
	char	   *text = ov_arena_printf(arena, "%zu:%s %s", strlen(id->issuer), id->issuer, id->jti ? id->jti : "");
	int			vacant = -1;
	bool		fresh = true;

	ov_sha256(text, strlen(text), digest);
	ov_arena_free(arena);
	if (id->jti == NULL)
		return "an assertion that may be used once needs a jti";
	for (int i = 0; i < MAX_SINGLE_USE; i++)
	{
		if (used[i].expires_at < now)
			vacant = vacant < 0 ? i : vacant;
		else if (memcmp(used[i].digest, digest, 32) == 0)
		{
			if (release && used[i].pid == pid)
				return NULL;
			fresh = false;
		}
	}
	if (!fresh)
		return "the assertion may be used once and was used before";
	if (release)
		return "the assertion may be used once and its use is not remembered";
	if (id->issued_at == 0)
		return "an assertion that may be used once needs an iat";
	/* so that none that was used before the memory began can bear a later time */
	if (id->issued_at > now + SINGLE_USE_AHEAD)
		return "an assertion that may be used once was issued in the future";
	if (id->issued_at <= remembering_since + SINGLE_USE_AHEAD)
		return "the assertion may be used once and was issued before the memory of uses began";
	if (vacant < 0)
		return "too many assertions that may be used once are remembered until they expire";
	memcpy(used[vacant].digest, digest, 32);
	used[vacant].expires_at = id->expires_at + 300;
	used[vacant].pid = pid;
	return NULL;
}

/* Verifies the assertion of a request; answers the error itself. */
static bool
verify(const OvTicket *t, OvArena *arena, const OvMsg *m, bool release, OvIdentity *id)
{
	const void *jwt;
	size_t		len;
	OvError		err = {0};
	OvCode		code;
	OvStr		detail;
	const char *not_once = NULL;

	if (!ov_msg_get(m, OV_TAG_ASSERTION, &jwt, &len))
	{
		refuse(t, "OV001", "no assertion was given", "{\"reason\":\"no assertion\"}",
			   "Call oauth_identify(assertion) first, or pass it in the call.");
		return false;
	}
	code = ov_vaultfile_verify(arena, vault, jwt, len, time(NULL), id, &err);
	if (code == OV_OK && id->single_use)
		not_once = use_once(id, t->requester_pid, release);
	if (not_once)
	{
		code = OV_E_DENIED;
		snprintf(err.message, sizeof(err.message), "%s", not_once);
	}
	if (code == OV_OK)
		return true;
	ov_str_init(&detail, arena);
	ov_str_puts(&detail, "{\"reason\":");
	ov_json_quote(&detail, err.message, strlen(err.message));
	ov_str_puts(&detail, "}");
	refuse(t, "OV002", "the assertion is not valid", detail.data,
		   code == OV_E_EXPIRED ? "Mint a new assertion: this one has expired or is not valid yet." :
		   not_once ? "Mint a new assertion for each use, short-lived: a use is remembered until its assertion expires." :
		   "Check issuer, audience, key and claims against the vault file.");
	return false;
}

static void
op_verify(const OvTicket *t, OvArena *arena, const OvMsg *m, OvMsg *reply)
{
	OvIdentity	id;

	if (ov_vaultfile_source(vault) != OV_ID_ASSERTION)
	{
		refuse(t, "OV002", "this vault does not take assertions",
			   "{\"reason\":\"identity source is not assertion\"}",
			   "The vault file's identity source says how a session is identified.");
		return;
	}
	if (!verify(t, arena, m, false, &id))
		return;
	ov_msg_put_str(reply, OV_TAG_TENANT, id.tenant);
	ov_msg_put_str(reply, OV_TAG_USER, id.user_id);
	ov_msg_put_str(reply, OV_TAG_ACTOR, id.actor);
	ov_msg_put_str(reply, OV_TAG_ISSUER, id.issuer);
	ov_msg_put_str(reply, OV_TAG_JTI, id.jti);
	ov_msg_put_i64(reply, OV_TAG_EXPIRES, id.expires_at);
	ov_msg_put_i64(reply, OV_TAG_GOOD_UNTIL, id.good_until);
	ov_msg_put_i64(reply, OV_TAG_SINGLE_USE, id.single_use);
	ov_slot_answer(t, reply);
}

static void
op_release(const OvTicket *t, OvArena *arena, const OvMsg *m, OvMsg *reply)
{
	unsigned char key[OV_KEY_LEN];
	unsigned char sub[OV_KEY_LEN];
	bool		connector;
	const char *tenant = field(arena, m, OV_TAG_TENANT);
	const char *user = field(arena, m, OV_TAG_USER);

	if (ov_vaultfile_source(vault) == OV_ID_ASSERTION)
	{
		OvIdentity	id;

		if (!verify(t, arena, m, true, &id))
			return;
		if (user == NULL || strcmp(user, id.user_id) != 0 || strcmp(tenant ? tenant : "", id.tenant) != 0)
		{
			refuse(t, "OV002", "the assertion speaks for somebody else", "{\"reason\":\"subject or tenant is another\"}",
				   "Pass the assertion of the person whose connection is used.");
			return;
		}
	}
	if (!open_key(t, arena, m, &connector, key))
		return;
	if (connector)
		refuse(t, "42501", "a connector key is not released to sessions", NULL, NULL);
	else
	{
		ov_subkey(key, OV_LABEL_ACCESS, sub);
		ov_msg_put(reply, OV_TAG_ACCESS_KEY, sub, OV_KEY_LEN);
		ov_slot_answer(t, reply);
		OPENSSL_cleanse(sub, sizeof(sub));
	}
	OPENSSL_cleanse(key, sizeof(key));
}

static void
put_version(OvMsg *reply)
{
	char		fingerprint[OV_KEY_FINGERPRINT_LEN + 1];

	(void) ov_vaultfile_fingerprint(vault, ov_vaultfile_active_version(vault), fingerprint);
	ov_msg_put_i64(reply, OV_TAG_VERSION, ov_vaultfile_active_version(vault));
	ov_msg_put_str(reply, OV_TAG_KEY_FINGERPRINT, fingerprint);
}

static void
op_key_new(const OvTicket *t, OvArena *arena, const OvMsg *m, OvMsg *reply)
{
	unsigned char key[OV_KEY_LEN];
	unsigned char wrapped[OV_KEY_LEN + OV_RECORD_OVERHEAD];
	size_t		len = sizeof(wrapped);
	bool		connector;
	bool		audit;
	OvAad		aad;
	OvError		err = {0};
	OvCode		code;

	audit = audit_aad(arena, m, &aad);
	if (!audit && !wrap_aad(arena, m, &aad, &connector))
	{
		refuse(t, "XX000", "malformed request to the key worker", NULL, NULL);
		return;
	}
	code = ov_random(key, sizeof(key));
	if (code == OV_OK)
		code = ov_vaultfile_wrap(vault, ov_vaultfile_active_version(vault), &aad, key, wrapped, &len, &err);
	if (code != OV_OK)
		refuse_crypto(t, code, &err);
	else
	{
		ov_msg_put(reply, OV_TAG_WRAPPED, wrapped, len);
		put_version(reply);
		if (!audit && is_network_worker(t))
			put_keys(reply, connector, key);
		ov_slot_answer(t, reply);
	}
	OPENSSL_cleanse(key, sizeof(key));
}

static void
op_key_open(const OvTicket *t, OvArena *arena, const OvMsg *m, OvMsg *reply)
{
	unsigned char key[OV_KEY_LEN];
	bool		connector;

	if (!is_network_worker(t))
	{
		refuse(t, "42501", "keys are opened for the network worker only", NULL, NULL);
		return;
	}
	if (!open_key(t, arena, m, &connector, key))
		return;
	put_keys(reply, connector, key);
	ov_slot_answer(t, reply);
	OPENSSL_cleanse(key, sizeof(key));
}

/* The same key under the active version; audit keys too. */
static void
op_rewrap(const OvTicket *t, OvArena *arena, const OvMsg *m, OvMsg *reply)
{
	unsigned char key[OV_KEY_LEN];
	unsigned char wrapped[OV_KEY_LEN + OV_RECORD_OVERHEAD];
	const void *old;
	size_t		len;
	bool		connector;
	OvAad		aad;
	OvError		err = {0};
	OvCode		code;

	if (!is_network_worker(t))
	{
		refuse(t, "42501", "keys are wrapped anew for the network worker only", NULL, NULL);
		return;
	}
	if (!(audit_aad(arena, m, &aad) || wrap_aad(arena, m, &aad, &connector)) ||
		!ov_msg_get(m, OV_TAG_WRAPPED, &old, &len))
	{
		refuse(t, "XX000", "malformed request to the key worker", NULL, NULL);
		return;
	}
	code = ov_vaultfile_unwrap(vault, &aad, old, len, key, &err);
	if (code == OV_OK)
		code = ov_vaultfile_wrap(vault, ov_vaultfile_active_version(vault), &aad, key, wrapped, &len, &err);
	OPENSSL_cleanse(key, sizeof(key));
	if (code != OV_OK)
	{
		refuse_crypto(t, code, &err);
		return;
	}
	ov_msg_put(reply, OV_TAG_WRAPPED, wrapped, len);
	put_version(reply);
	ov_slot_answer(t, reply);
}

/* Many at a time: a batch of refreshes needs as many people's keys. */
static void
op_keys_open(const OvTicket *t, OvArena *arena, const OvMsg *m, OvMsg *reply)
{
	const void *item;
	size_t		len;

	if (!is_network_worker(t))
	{
		refuse(t, "42501", "keys are opened for the network worker only", NULL, NULL);
		return;
	}
	for (size_t at = 0; ov_msg_next(m, &at, OV_TAG_ITEM, &item, &len);)
	{
		unsigned char key[OV_KEY_LEN];
		unsigned char buf[128];
		OvMsg		request,
					answer;
		const void *wrapped;
		size_t		wrapped_len;
		bool		connector;
		OvAad		aad;

		ov_msg_read(&request, item, len);
		ov_msg_init(&answer, buf, sizeof(buf));
		if (wrap_aad(arena, &request, &aad, &connector) &&
			ov_msg_get(&request, OV_TAG_WRAPPED, &wrapped, &wrapped_len) &&
			ov_vaultfile_unwrap(vault, &aad, wrapped, wrapped_len, key, NULL) == OV_OK)
			put_keys(&answer, connector, key);
		ov_msg_put(reply, OV_TAG_ITEM, buf, answer.len);
		OPENSSL_cleanse(key, sizeof(key));
		OPENSSL_cleanse(buf, sizeof(buf));
	}
	ov_slot_answer(t, reply);
}

static void
op_seal(const OvTicket *t, OvArena *arena, const OvMsg *m, OvMsg *reply)
{
	unsigned char key[OV_KEY_LEN];
	unsigned char sub[OV_KEY_LEN];
	unsigned char *record;
	char	   *purpose = field(arena, m, OV_TAG_PURPOSE);
	const void *plain;
	size_t		len,
				out;
	bool		connector;
	OvAad		aad = {0};
	OvError		err = {0};
	OvCode		code;

	if (purpose == NULL || !ov_purpose_parse(purpose, &aad.purpose) || !ov_msg_get(m, OV_TAG_PLAIN, &plain, &len))
	{
		refuse(t, "XX000", "malformed request to the key worker", NULL, NULL);
		return;
	}
	if (!open_key(t, arena, m, &connector, key))
		return;
	if (connector)
		memcpy(sub, key, sizeof(sub));
	else
		ov_subkey(key, aad.purpose == OV_PURPOSE_ACCESS_TOKEN ? OV_LABEL_ACCESS : OV_LABEL_REFRESH, sub);
	fixed(m, OV_TAG_VAULT_ID, aad.vault_id, 16);
	fixed(m, OV_TAG_CONNECTOR_ID, aad.connector_id, 16);
	fixed(m, OV_TAG_CONNECTION_ID, aad.connection_id, 16);
	fixed(m, OV_TAG_HOSTS_DIGEST, aad.hosts_digest, 32);
	if (!connector || aad.purpose == OV_PURPOSE_PKCE_VERIFIER)
	{
		aad.tenant = field(arena, m, OV_TAG_TENANT);
		aad.user_id = field(arena, m, OV_TAG_USER);
	}
	aad.key_id = ov_msg_get_i64(m, OV_TAG_KEY_ID, 0);
	aad.token_generation = ov_msg_get_i64(m, OV_TAG_GENERATION, 0);
	record = ov_arena_alloc(arena, len + OV_RECORD_OVERHEAD);
	code = ov_arena_failed(arena) ? OV_E_NOMEM : ov_record_seal(sub, &aad, plain, len, record, &out, &err);
	if (code != OV_OK)
		refuse_crypto(t, code, &err);
	else
	{
		ov_msg_put(reply, OV_TAG_RECORD, record, out);
		ov_slot_answer(t, reply);
	}
	OPENSSL_cleanse(key, sizeof(key));
	OPENSSL_cleanse(sub, sizeof(sub));
}

/* The audit key of the request; answers the error itself. */
static bool
open_audit_key(const OvTicket *t, OvArena *arena, const OvMsg *m, unsigned char key[OV_KEY_LEN])
{
	OvAad		aad;
	OvError		err = {0};
	const void *wrapped;
	size_t		len;
	OvCode		code;

	if (!audit_aad(arena, m, &aad) || !ov_msg_get(m, OV_TAG_WRAPPED, &wrapped, &len))
	{
		refuse(t, "XX000", "malformed request to the key worker", NULL, NULL);
		return false;
	}
	code = ov_vaultfile_unwrap(vault, &aad, wrapped, len, key, &err);
	if (code != OV_OK)
		refuse_crypto(t, code, &err);
	return code == OV_OK;
}

static void
op_mac(const OvTicket *t, OvArena *arena, const OvMsg *m, OvMsg *reply)
{
	unsigned char key[OV_KEY_LEN];
	unsigned char mac[OV_HASH_LEN];
	const void *data;
	size_t		len;

	if (!ov_is_worker_pid(OV_WORKER_AUDIT, t->requester_pid))
	{
		refuse(t, "42501", "heads of the audit trail are signed for the audit writer only", NULL, NULL);
		return;
	}
	if (!ov_msg_get(m, OV_TAG_PLAIN, &data, &len))
	{
		refuse(t, "XX000", "malformed request to the key worker", NULL, NULL);
		return;
	}
	if (!open_audit_key(t, arena, m, key))
		return;
	ov_chain_mac(key, sizeof(key), data, len, mac);
	OPENSSL_cleanse(key, sizeof(key));
	ov_msg_put(reply, OV_TAG_MAC, mac, sizeof(mac));
	ov_slot_answer(t, reply);
}

static void
op_mac_check(const OvTicket *t, OvArena *arena, const OvMsg *m, OvMsg *reply)
{
	unsigned char key[OV_KEY_LEN];
	unsigned char good[1024];
	const void *item;
	size_t		len;
	size_t		n = 0;

	if (!open_audit_key(t, arena, m, key))
		return;
	for (size_t at = 0; n < sizeof(good) && ov_msg_next(m, &at, OV_TAG_ITEM, &item, &len);)
	{
		unsigned char mac[OV_HASH_LEN];

		if (len >= OV_HASH_LEN)
			ov_chain_mac(key, sizeof(key), (const char *) item + OV_HASH_LEN, len - OV_HASH_LEN, mac);
		good[n++] = len >= OV_HASH_LEN && CRYPTO_memcmp(mac, item, OV_HASH_LEN) == 0;
		/* what is right is not told to whoever asks with what is wrong */
		OPENSSL_cleanse(mac, sizeof(mac));
	}
	OPENSSL_cleanse(key, sizeof(key));
	ov_msg_put(reply, OV_TAG_RESULT, good, n);
	ov_slot_answer(t, reply);
}

static void
serve(const OvTicket *t, const OvMsg *m)
{
	OvArena    *arena;
	OvMsg		reply;

	if (vault == NULL)
	{
		char	   *reason;

		(void) ov_settings(&reason);
		refuse(t, "OV040", "the vault is sealed: the key worker has no keyring",
			   ov_detail("reason", reason ? reason : "not loaded", NULL),
			   psprintf("Set \"oauth_vault.vault_file\" to a readable vault file and reload: %s.", reason ? reason : "not loaded"));
		return;
	}
	arena = ov_arena_new();
	ov_msg_init(&reply, reply_buf, sizeof(reply_buf));
	switch (t->op)
	{
		case OV_OP_VERIFY:
			op_verify(t, arena, m, &reply);
			break;
		case OV_OP_RELEASE:
			op_release(t, arena, m, &reply);
			break;
		case OV_OP_KEY_NEW:
			op_key_new(t, arena, m, &reply);
			break;
		case OV_OP_KEY_OPEN:
			op_key_open(t, arena, m, &reply);
			break;
		case OV_OP_KEYS_OPEN:
			op_keys_open(t, arena, m, &reply);
			break;
		case OV_OP_SEAL:
			op_seal(t, arena, m, &reply);
			break;
		case OV_OP_REWRAP:
			op_rewrap(t, arena, m, &reply);
			break;
		case OV_OP_MAC:
			op_mac(t, arena, m, &reply);
			break;
		case OV_OP_MAC_CHECK:
			op_mac_check(t, arena, m, &reply);
			break;
		default:
			refuse(t, "XX000", "the key worker does not know this request", NULL, NULL);
	}
	OPENSSL_cleanse(reply_buf, reply.len);
	ov_arena_free(arena);
}

static void
drop_vault(int code, Datum arg)
{
	ov_vaultfile_free(vault);
	vault = NULL;
	OPENSSL_cleanse(request_buf, sizeof(request_buf));
	OPENSSL_cleanse(reply_buf, sizeof(reply_buf));
}

void
ov_key_worker_main(Datum arg)
{
	MemoryContext context;

	ov_worker_signals();
	ov_conceal_pages(request_buf, sizeof(request_buf));
	ov_conceal_pages(reply_buf, sizeof(reply_buf));
	ov_conceal_worker("key worker");
	before_shmem_exit(drop_vault, (Datum) 0);
	ov_vaultfile_command = run_key_command;
	ov_worker_register(OV_WORKER_KEY, InvalidOid);
	pgstat_report_appname("oauth_vault key worker");
	context = AllocSetContextCreate(TopMemoryContext, "oauth_vault key worker", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	remembering_since = time(NULL);
	ConfigReloadPending = true;	/* one SIGHUP may have been lost before */

	for (;;)
	{
		OvTicket	ticket;
		OvMsg		request;

		CHECK_FOR_INTERRUPTS();
		if (ov_worker_reload())
			load_vault();
		while (ov_slot_take(OV_WORKER_KEY, &ticket, &request, request_buf))
		{
			serve(&ticket, &request);
			OPENSSL_cleanse(request_buf, request.len);
			MemoryContextReset(context);
			CHECK_FOR_INTERRUPTS();
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 vault ? 60000 : RETRY_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (vault == NULL)
			load_vault();
	}
}
