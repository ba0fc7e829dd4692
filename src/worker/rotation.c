/*
 * rotation.c
 *	  oauth_rotate_keys: keys wrapped anew, or replaced and their records sealed
 *	  anew, in small committed steps while everything else goes on.
 *
 * What is left to do is in the data, not here: rows of vault_key that are
 * wrapped with another platform key than the active one (rewrap), or that are
 * older than the rotation and not destroyed (rekey).  After a crash the
 * successor goes on where the data says.  key_rotation only tells people.
 *
 * Rows that somebody holds are passed over and come up again; nothing waits.
 * A rotation has ended when none is left and nobody has key rows under way
 * (ov_keys_settled), so that afterwards the old platform key can be retired.
 *
 * rekey changes neither token_generation nor decision_epoch of a connection:
 * no token is another one.  A record is bound to its key's id, and that changes
 * with it under the row's lock.  A refresh that is in flight meanwhile has
 * sealed, or will seal, under the key it began with: its connection is passed
 * over; should it be stored all the same, it brings its key id along (grant.c)
 * and comes up again here.  An old key is destroyed when no record and no job
 * needs it any more: connections, queued revocations, and results in
 * grant_inbox, which go into the connection first.  Whoever else seals under a
 * key in a transaction of his own locks its row FOR KEY SHARE until he has
 * committed.
 *
 * Consents under way have their verifier sealed anew with the connector.
 * Fingerprints of superseded access tokens are made with the old key, and go.
 */
#include "worker/refresh.h"

#include <openssl/crypto.h>

#include "access/xact.h"
#include "core/vaultfile.h"
#include "errors.h"
#include "guc.h"
#include "miscadmin.h"
#include "utils/resowner.h"

#define KEYS_MAX 50				/* of a step */
#define RECORDS_MAX 200			/* of one key, in a step */
#define LOCKED_PAUSE_MS 500
#define TROUBLE_PAUSE_MS 5000

static OvQuery running = {
	"SELECT rotation_id, mode, below_key_id, requested_by FROM oauth_vault.key_rotation WHERE state = 'running'", ""
};
static OvQuery progress = {
	"UPDATE oauth_vault.key_rotation SET keys_done = keys_done + $2, records_done = records_done + $3,"
	" waiting = coalesce($4, waiting), failed = coalesce($5, failed), last_error = $6, updated_at = now()"
	" WHERE rotation_id = $1", "lllllt"
};
static OvQuery finish_rotation = {
	"UPDATE oauth_vault.key_rotation SET state = $2, waiting = $3, failed = $3, last_error = $4, updated_at = now(),"
	" finished_at = now() WHERE rotation_id = $1 RETURNING mode, keys_done, records_done", "ltlt"
};

/* In the order of an index: what comes before the active platform key there, then what comes after it. */
#define TO_REWRAP(than) \
	" FROM oauth_vault.vault_key WHERE destroyed_at IS NULL" \
	" AND (platform_version, platform_fingerprint, key_id) > ($1, $2, $3)" \
	" AND (platform_version, platform_fingerprint) " than " ($4, $5)"
#define REWRAP_ORDER " ORDER BY platform_version, platform_fingerprint, key_id LIMIT $6 FOR NO KEY UPDATE SKIP LOCKED"
static OvQuery to_rewrap[2] = {
	{"SELECT " OV_KEY_COLUMNS TO_REWRAP("<") REWRAP_ORDER, "itlitl"},
	{"SELECT " OV_KEY_COLUMNS TO_REWRAP(">") REWRAP_ORDER, "itlitl"}
};
static OvQuery left_to_rewrap = {
	"SELECT (SELECT count(*) FROM (SELECT" TO_REWRAP("<") " LIMIT $6) b)"
	" + (SELECT count(*) FROM (SELECT" TO_REWRAP(">") " LIMIT $6) a)", "itlitl"
};

/* A rekey leaves audit keys what they are: they are wrapped anew. */
#define AUDIT_KEYS \
	" FROM oauth_vault.vault_key WHERE kind = 'audit' AND destroyed_at IS NULL" \
	" AND (platform_version, platform_fingerprint) <> ($1, $2)"
static OvQuery audit_keys = {
	"SELECT " OV_KEY_COLUMNS AUDIT_KEYS " ORDER BY key_id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED", "itl"
};
static OvQuery left_audit_keys = {"SELECT count(*)" AUDIT_KEYS, "it"};

#define TO_REKEY \
	" FROM oauth_vault.vault_key WHERE destroyed_at IS NULL AND kind IN ('user', 'connector') AND key_id > $1 AND key_id < $2"
static OvQuery to_rekey = {
	"SELECT " OV_KEY_COLUMNS TO_REKEY " ORDER BY key_id LIMIT $3", "lll"
};
static OvQuery left_to_rekey = {
	"SELECT count(*) FROM (SELECT" TO_REKEY " LIMIT $3) l", "lll"
};

#define HAS_TOKENS "(access_token IS NOT NULL OR refresh_token IS NOT NULL OR id_token IS NOT NULL)"
static OvQuery connections = {
	"SELECT connection_id, connector_id, hosts_digest, token_generation, access_token, refresh_token, id_token"
	" FROM oauth_vault.connection WHERE tenant = $1 AND user_id = $2 AND key_id = $3 AND " HAS_TOKENS
	" ORDER BY connection_id LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED", "ttll"
};
static OvQuery reseal_connection = {
	"UPDATE oauth_vault.connection SET key_id = $2, access_token = $3, refresh_token = $4, id_token = $5, superseded = NULL"
	" WHERE connection_id = $1", "ulbbb"
};
static OvQuery revocations = {
	"SELECT revocation_id, connection_id, connector_id, hosts_digest, token_generation, access_token, refresh_token"
	" FROM oauth_vault.revocation WHERE state = 'queued' AND tenant = $1 AND user_id = $2 AND key_id = $3"
	" AND (access_token IS NOT NULL OR refresh_token IS NOT NULL)"
	" ORDER BY revocation_id LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED", "ttll"
};
static OvQuery reseal_revocation = {
	"UPDATE oauth_vault.revocation SET key_id = $2, access_token = $3, refresh_token = $4 WHERE revocation_id = $1", "llbb"
};
static OvQuery destroy_user_key = {
	"UPDATE oauth_vault.vault_key SET wrapped = '', destroyed_at = now() WHERE key_id IN (SELECT key_id"
	" FROM oauth_vault.vault_key WHERE key_id = $1"
	"  AND NOT EXISTS (SELECT FROM oauth_vault.connection WHERE tenant = $2 AND user_id = $3 AND key_id = $1 AND " HAS_TOKENS ")"
	"  AND NOT EXISTS (SELECT FROM oauth_vault.revocation WHERE state = 'queued' AND key_id = $1"
	"   AND (access_token IS NOT NULL OR refresh_token IS NOT NULL))"
	"  AND NOT EXISTS (SELECT FROM oauth_vault.grant_inbox WHERE detail ->> 'key_id' = $1::text AND " HAS_TOKENS ")"
	" FOR UPDATE SKIP LOCKED)", "ltt"
};

static OvQuery connector = {
	"SELECT client_secret, previous_secret, secret_generation, coalesce(previous_generation, 0), key_id"
	" FROM oauth_vault.connector WHERE connector_id = $1 FOR NO KEY UPDATE SKIP LOCKED", "u"
};
static OvQuery connector_exists = {
	"SELECT FROM oauth_vault.connector WHERE connector_id = $1", "u"
};
#define PENDING \
	" FROM oauth_vault.flow WHERE connector_id = $1 AND verifier IS NOT NULL AND consumed_at IS NULL AND expires_at > now()"
static OvQuery flows = {
	"SELECT flow_id, tenant, user_id, hosts_digest, verifier" PENDING " FOR NO KEY UPDATE SKIP LOCKED", "u"
};
static OvQuery pending_flows = {"SELECT count(*)" PENDING, "u"};
static OvQuery reseal_flow = {
	"UPDATE oauth_vault.flow SET verifier = $2 WHERE flow_id = $1", "ub"
};
static OvQuery reseal_connector = {
	"UPDATE oauth_vault.connector SET key_id = $2, client_secret = $3, previous_secret = $4 WHERE connector_id = $1", "ulbb"
};
static OvQuery destroy_connector_key = {
	"UPDATE oauth_vault.vault_key SET wrapped = '', destroyed_at = now() WHERE key_id IN (SELECT key_id"
	" FROM oauth_vault.vault_key WHERE key_id = $1"
	"  AND NOT EXISTS (SELECT FROM oauth_vault.connector WHERE key_id = $1) FOR UPDATE SKIP LOCKED)", "l"
};

/* Where this pass over the keys stands.  Changed only after a step's commit. */
typedef struct Pass
{
	int64		rotation_id;
	int64		after;			/* the last key looked at */
	int			version;		/* rewrap: and what it was wrapped with */
	char		fingerprint[OV_KEY_FINGERPRINT_LEN + 1];
	int64		failed;			/* keys in this pass that do not open */
	char		error[256];		/* why the first of them does not */
} Pass;

static Pass pass;

typedef struct Step
{
	Pass		pass;			/* as it is after this step */
	bool		none;			/* there is no rotation */
	char	   *mode;
	bool		rekey;
	int64		below;
	OvHome		home;
	const OvSettings *settings;
	OvArena    *arena;
	int			limit;
	int			looked;			/* keys looked at */
	int			keys;			/* keys done */
	int			records;
	bool		stop;			/* the key worker does not answer: later */
	OvFailure	trouble;
	bool		again;			/* a key has records left: stay at it */
	int64		failed_key;		/* counted already */
	const char *ended;			/* done, failed */
	char	   *detail;			/* for the audit row */
	char	   *requested_by;
	int			pause_ms;
} Step;

/* ---- what does not open ---- */

/*
 * A failure is the row's (it does not open, now or later), or the moment's (the
 * key worker does not answer).  Returns false, so that a step ends.
 */
static bool
note_failure(Step *s, const OvKeyRow *key, const OvFailure *f)
{
	if (strcmp(f->sqlstate, "OV041") != 0 && strstr(f->detail, "platform key") == NULL)
	{
		s->stop = true;
		s->trouble = *f;
		return false;
	}
	if (s->failed_key == key->key_id)
		return false;
	s->failed_key = key->key_id;
	if (s->pass.failed++ == 0)
		snprintf(s->pass.error, sizeof(s->pass.error), "key " INT64_FORMAT ": %s", key->key_id, f->message);
	return false;
}

/* ---- rewrap ---- */

static void
rewrap_args(const Step *s, OvArgs *a, const Pass *from, int64 limit)
{
	ov_arg(a, Int32GetDatum(from->version), false);
	ov_arg_str(a, from->fingerprint);
	ov_arg_int8(a, from->after);
	ov_arg(a, Int32GetDatum(s->settings->active_version), false);
	ov_arg_str(a, s->settings->active_fingerprint);
	ov_arg_int8(a, limit);
}

/* Wraps the keys of the last result; stops at the first when the key worker does not answer. */
static void
rewrap_rows(Step *s, int n)
{
	OvKeyRow	keys[KEYS_MAX];

	for (int i = 0; i < n; i++)
		ov_key_row(i, 1, &keys[i]);
	for (int i = 0; i < n; i++)
	{
		OvFailure	f = {{0}};

		if (ov_key_rewrap(s->home.vault_id, &keys[i], true, &f))
			s->keys++;
		else
			(void) note_failure(s, &keys[i], &f);
		if (s->stop)
			return;
		s->looked++;
		s->pass.after = keys[i].key_id;
		s->pass.version = keys[i].platform_version;
		strlcpy(s->pass.fingerprint, keys[i].platform_fingerprint, sizeof(s->pass.fingerprint));
	}
}

static void
rewrap(Step *s)
{
	for (int i = 0; i < 2 && s->looked == 0 && !s->stop; i++)
	{
		OvArgs		a = {0};

		rewrap_args(s, &a, &s->pass, s->limit);
		rewrap_rows(s, (int) ov_run(&to_rewrap[i], OV_WRITE, &a));
	}
}

static void
rewrap_audit_keys(Step *s)
{
	Pass		before = s->pass;
	OvArgs		a = {0};

	ov_arg(&a, Int32GetDatum(s->settings->active_version), false);
	ov_arg_str(&a, s->settings->active_fingerprint);
	ov_arg_int8(&a, KEYS_MAX);
	rewrap_rows(s, (int) ov_run(&audit_keys, OV_WRITE, &a));
	s->pass.after = before.after;
	s->looked = 0;
}

/* ---- rekey: a person ---- */

typedef struct Person			/* one old key of a person, and the new one once it is needed */
{
	const OvKeyRow *key;
	OvUserKeys	old;
	OvUserKeys	new;
	int64		new_id;
	bool		has_keys;
} Person;

static bool
person_keys(Step *s, Person *p)
{
	OvFailure	f = {{0}};

	if (p->has_keys)
		return true;
	if (!ov_user_keys(s->home.vault_id, p->key->tenant, p->key->user_id, p->key->key_id, &p->old, &f) ||
		!ov_user_keys_since(s->home.vault_id, p->key->tenant, p->key->user_id, s->below, &p->new_id, &p->new, &f))
		return note_failure(s, p->key, &f);
	p->has_keys = true;
	return true;
}

/* The same text under the new key and the same binding but for the key's id.  NULL stays NULL. */
static bool
reseal(Step *s, const Person *p, OvAad *aad, OvPurpose purpose, const unsigned char *record, size_t len,
	   const unsigned char **new_record, size_t *new_len)
{
	bool		access = purpose == OV_PURPOSE_ACCESS_TOKEN;
	const char *plain;
	OvFailure	f = {{0}};

	aad->purpose = purpose;
	aad->key_id = p->key->key_id;
	if (!ov_open(s->arena, access ? p->old.access : p->old.refresh, aad, record, len, &plain, &f))
		return note_failure(s, p->key, &f);
	aad->key_id = p->new_id;
	if (ov_seal(s->arena, access ? p->new.access : p->new.refresh, aad, plain, new_record, new_len) != OV_OK)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("a record could not be sealed")));
	return true;
}

static OvAad
person_aad(const Step *s, const Person *p, const unsigned char *connector_id, const unsigned char *connection_id,
		   const unsigned char *digest, size_t digest_len, int64 generation)
{
	OvAad		aad = {.tenant = p->key->tenant, .user_id = p->key->user_id, .token_generation = generation};

	memcpy(aad.vault_id, s->home.vault_id, 16);
	memcpy(aad.connector_id, connector_id, 16);
	memcpy(aad.connection_id, connection_id, 16);
	if (digest_len == 32)
		memcpy(aad.hosts_digest, digest, 32);
	return aad;
}

static void
reseal_connections(Step *s, Person *p)
{
	OvArgs		a = {0};
	SPITupleTable *table;
	uint64		n;

	ov_arg_str(&a, p->key->tenant);
	ov_arg_str(&a, p->key->user_id);
	ov_arg_int8(&a, p->key->key_id);
	ov_arg_int8(&a, RECORDS_MAX);
	n = ov_run(&connections, OV_WRITE, &a);
	table = SPI_tuptable;
	s->again |= n == RECORDS_MAX;
	for (uint64 i = 0; i < n && !s->stop; i++)
	{
		const unsigned char *in[3],
				   *out[3],
				   *id,
				   *digest;
		size_t		in_len[3],
					out_len[3],
					digest_len;
		OvAad		aad;
		OvArgs		b = {0};

		if (i > 0)
			SPI_tuptable = table;
		id = ov_uuid(i, 1);
		/* its answer is under the old key, and will be stored in a moment */
		if (ov_refresh_running(id) != NULL)
			continue;
		digest = ov_bytea(i, 3, &digest_len);
		aad = person_aad(s, p, ov_uuid(i, 2), id, digest, digest_len, ov_int8(i, 4));
		for (int k = 0; k < 3; k++)
			in[k] = ov_bytea(i, 5 + k, &in_len[k]);
		if (!person_keys(s, p))
			return;
		if (!reseal(s, p, &aad, OV_PURPOSE_ACCESS_TOKEN, in[0], in_len[0], &out[0], &out_len[0]) ||
			!reseal(s, p, &aad, OV_PURPOSE_REFRESH_TOKEN, in[1], in_len[1], &out[1], &out_len[1]) ||
			!reseal(s, p, &aad, OV_PURPOSE_ID_TOKEN, in[2], in_len[2], &out[2], &out_len[2]))
			continue;			/* stays under the key it has */
		ov_arg_uuid(&b, id);
		ov_arg_int8(&b, p->new_id);
		for (int k = 0; k < 3; k++)
			ov_arg_bytes(&b, out[k], out_len[k]);
		(void) ov_run(&reseal_connection, OV_WRITE, &b);
		s->records++;
	}
}

static void
reseal_revocations(Step *s, Person *p)
{
	OvArgs		a = {0};
	SPITupleTable *table;
	uint64		n;

	ov_arg_str(&a, p->key->tenant);
	ov_arg_str(&a, p->key->user_id);
	ov_arg_int8(&a, p->key->key_id);
	ov_arg_int8(&a, RECORDS_MAX);
	n = ov_run(&revocations, OV_WRITE, &a);
	table = SPI_tuptable;
	s->again |= n == RECORDS_MAX;
	for (uint64 i = 0; i < n && !s->stop; i++)
	{
		const unsigned char *access,
				   *refresh,
				   *digest,
				   *new_access,
				   *new_refresh;
		size_t		access_len,
					refresh_len,
					digest_len,
					new_access_len,
					new_refresh_len;
		OvAad		aad;
		OvArgs		b = {0};

		if (i > 0)
			SPI_tuptable = table;
		digest = ov_bytea(i, 4, &digest_len);
		aad = person_aad(s, p, ov_uuid(i, 3), ov_uuid(i, 2), digest, digest_len, ov_int8(i, 5));
		ov_arg_int8(&b, ov_int8(i, 1));
		access = ov_bytea(i, 6, &access_len);
		refresh = ov_bytea(i, 7, &refresh_len);
		if (!person_keys(s, p))
			return;
		if (!reseal(s, p, &aad, OV_PURPOSE_ACCESS_TOKEN, access, access_len, &new_access, &new_access_len) ||
			!reseal(s, p, &aad, OV_PURPOSE_REFRESH_TOKEN, refresh, refresh_len, &new_refresh, &new_refresh_len))
			continue;
		ov_arg_int8(&b, p->new_id);
		ov_arg_bytes(&b, new_access, new_access_len);
		ov_arg_bytes(&b, new_refresh, new_refresh_len);
		(void) ov_run(&reseal_revocation, OV_WRITE, &b);
		s->records++;
	}
}

static void
rekey_person(Step *s, const OvKeyRow *key)
{
	Person		p = {.key = key};
	OvArgs		a = {0};

	reseal_connections(s, &p);
	if (!s->stop)
		reseal_revocations(s, &p);
	OPENSSL_cleanse(&p.old, sizeof(p.old));
	OPENSSL_cleanse(&p.new, sizeof(p.new));
	if (s->failed_key == key->key_id)
		s->again = false;		/* it keeps the key: do not stay at it */
	if (s->stop || s->again || ov_jobs_use_key(key->key_id))
		return;
	ov_arg_int8(&a, key->key_id);
	ov_arg_str(&a, key->tenant);
	ov_arg_str(&a, key->user_id);
	s->keys += (int) ov_run(&destroy_user_key, OV_WRITE, &a);
}

/* ---- rekey: a connector ---- */

typedef struct Client			/* its sealed secrets, and their keys */
{
	unsigned char old[OV_KEY_LEN];
	unsigned char new[OV_KEY_LEN];
	int64		new_id;
} Client;

static bool
reseal_client(Step *s, const OvKeyRow *key, const Client *c, OvAad *aad, const unsigned char *record, size_t len,
			  const unsigned char **new_record, size_t *new_len)
{
	const char *plain;
	OvFailure	f = {{0}};

	memcpy(aad->vault_id, s->home.vault_id, 16);
	memcpy(aad->connector_id, key->connector_id, 16);
	aad->key_id = key->key_id;
	if (!ov_open(s->arena, c->old, aad, record, len, &plain, &f))
		return note_failure(s, key, &f);
	aad->key_id = c->new_id;
	if (ov_seal(s->arena, c->new, aad, plain, new_record, new_len) != OV_OK)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("a record could not be sealed")));
	return true;
}

/* The verifiers of consents under way; false: one does not open, or somebody holds one. */
static bool
reseal_flows(Step *s, const OvKeyRow *key, const Client *c)
{
	Datum		id = ov_uuid_datum(key->connector_id);
	uint64		pending;
	uint64		n;
	SPITupleTable *table;

	(void) ov_query(&pending_flows, OV_READ, &id, NULL);
	pending = (uint64) ov_int8(0, 1);
	n = ov_query(&flows, OV_WRITE, &id, NULL);
	table = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		OvAad		aad = {.purpose = OV_PURPOSE_PKCE_VERIFIER};
		const unsigned char *digest,
				   *record,
				   *new_record;
		size_t		digest_len,
					len,
					new_len;
		OvArgs		a = {0};

		if (i > 0)
			SPI_tuptable = table;
		memcpy(aad.connection_id, ov_uuid(i, 1), 16);
		aad.tenant = ov_text(i, 2);
		aad.user_id = ov_text(i, 3);
		digest = ov_bytea(i, 4, &digest_len);
		if (digest_len == 32)
			memcpy(aad.hosts_digest, digest, 32);
		record = ov_bytea(i, 5, &len);
		if (!reseal_client(s, key, c, &aad, record, len, &new_record, &new_len))
			return false;
		ov_arg_uuid(&a, aad.connection_id);
		ov_arg_bytes(&a, new_record, new_len);
		(void) ov_run(&reseal_flow, OV_WRITE, &a);
		s->records++;
	}
	return n == pending;
}

/* Everything of the connector in one go: its row names one key.  false: none of it. */
static bool
reseal_secrets(Step *s, const OvKeyRow *key, Client *c)
{
	Datum		id = ov_uuid_datum(key->connector_id);
	const unsigned char *secret[2],
			   *new_secret[2];
	size_t		len[2],
				new_len[2];
	int64		generation[2];
	OvConnector row = {0};
	OvArgs		a = {0};
	OvFailure	f = {{0}};

	if (ov_query(&connector, OV_WRITE, &id, NULL) == 0)
		return ov_query(&connector_exists, OV_READ, &id, NULL) == 0;
	if (ov_int8(0, 5) != key->key_id)
		return true;
	for (int i = 0; i < 2; i++)
	{
		secret[i] = ov_bytea(0, 1 + i, &len[i]);
		generation[i] = ov_int8(0, 3 + i);
	}
	memcpy(row.id, key->connector_id, 16);
	row.key_id = key->key_id;
	row.wrapped = key->wrapped;
	row.wrapped_len = key->wrapped_len;
	if (!ov_connector_key(s->home.vault_id, &row, c->old, &f) ||
		!ov_connector_key_new(s->home.vault_id, key->connector_id, &c->new_id, c->new, &f))
		return note_failure(s, key, &f);
	for (int i = 0; i < 2; i++)
	{
		OvAad		aad = {.purpose = OV_PURPOSE_CLIENT_SECRET, .token_generation = generation[i]};

		if (!reseal_client(s, key, c, &aad, secret[i], len[i], &new_secret[i], &new_len[i]))
			return false;
		s->records += secret[i] != NULL;
	}
	if (!reseal_flows(s, key, c))
		return false;
	ov_arg_uuid(&a, key->connector_id);
	ov_arg_int8(&a, c->new_id);
	ov_arg_bytes(&a, new_secret[0], new_len[0]);
	ov_arg_bytes(&a, new_secret[1], new_len[1]);
	(void) ov_run(&reseal_connector, OV_WRITE, &a);
	return true;
}

static void
rekey_connector(Step *s, const OvKeyRow *key)
{
	Client		c = {{0}};
	Datum		id = Int64GetDatum(key->key_id);
	MemoryContext context = CurrentMemoryContext;
	int			records = s->records;
	bool		done;

	/* half a connector would be none: a savepoint for what was written of it */
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	done = reseal_secrets(s, key, &c);
	OPENSSL_cleanse(&c, sizeof(c));
	if (done)
	{
		ReleaseCurrentSubTransaction();
		s->keys += (int) ov_query(&destroy_connector_key, OV_WRITE, &id, NULL);
		return;
	}
	RollbackAndReleaseCurrentSubTransaction();
	s->records = records;
}

static void
rekey(Step *s)
{
	OvArgs		a = {0};
	OvKeyRow	keys[KEYS_MAX];
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int			n;

	ov_arg_int8(&a, s->pass.after);
	ov_arg_int8(&a, s->below);
	ov_arg_int8(&a, s->limit);
	n = (int) ov_run(&to_rekey, OV_READ, &a);
	for (int i = 0; i < n; i++)
		ov_key_row(i, 1, &keys[i]);
	for (int i = 0; i < n && !s->stop && !s->again; i++)
	{
		if (strcmp(keys[i].kind, OV_KIND_USER) == 0)
			rekey_person(s, &keys[i]);
		else
			rekey_connector(s, &keys[i]);
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (s->stop || s->again)
			break;
		s->looked++;
		s->pass.after = keys[i].key_id;
	}
}

/* ---- the end of a pass ---- */

static int64
left(Step *s)
{
	static const Pass start = {0};
	OvArgs		a = {0};
	OvArgs		b = {0};
	int64		n;
	/* enough to know whether all that is left is what does not open */
	int64		limit = s->pass.failed + 1000;

	if (!s->rekey)
	{
		rewrap_args(s, &a, &start, limit);
		(void) ov_run(&left_to_rewrap, OV_READ, &a);
		return ov_int8(0, 1);
	}
	ov_arg(&a, Int32GetDatum(s->settings->active_version), false);
	ov_arg_str(&a, s->settings->active_fingerprint);
	(void) ov_run(&left_audit_keys, OV_READ, &a);
	n = ov_int8(0, 1);
	ov_arg_int8(&b, 0);
	ov_arg_int8(&b, s->below);
	ov_arg_int8(&b, limit);
	(void) ov_run(&left_to_rekey, OV_READ, &b);
	return n + ov_int8(0, 1);
}

/* All keys have been looked at: is that all, or once more? */
static void
end_pass(Step *s)
{
	int64		rotation_id = s->pass.rotation_id;
	int64		n = left(s);
	OvArgs		a = {0};

	s->pause_ms = LOCKED_PAUSE_MS;
	if (n <= s->pass.failed && ov_keys_settled() && left(s) <= s->pass.failed)
	{
		s->ended = s->pass.failed == 0 ? "done" : "failed";
		ov_arg_int8(&a, s->pass.rotation_id);
		ov_arg_str(&a, s->ended);
		ov_arg_int8(&a, s->pass.failed);
		ov_arg_str(&a, s->pass.failed > 0 ? s->pass.error : NULL);
		(void) ov_run(&finish_rotation, OV_WRITE, &a);
		s->detail = MemoryContextStrdup(ov_round, ov_detail(
			"rotation_id", psprintf(INT64_FORMAT, s->pass.rotation_id), "keys", psprintf(INT64_FORMAT, ov_int8(0, 2)),
			"records", psprintf(INT64_FORMAT, ov_int8(0, 3)), "failed", psprintf(INT64_FORMAT, s->pass.failed), NULL));
		return;
	}
	ov_arg_int8(&a, s->pass.rotation_id);
	ov_arg_int8(&a, 0);
	ov_arg_int8(&a, 0);
	ov_arg_int8(&a, n);
	ov_arg_int8(&a, s->pass.failed);
	ov_arg_str(&a, s->pass.failed > 0 ? s->pass.error : NULL);
	(void) ov_run(&progress, OV_WRITE, &a);
	/* from the beginning, without what this pass has found */
	memset(&s->pass, 0, sizeof(s->pass));
	s->pass.rotation_id = rotation_id;
}

static void
note_progress(const Step *s)
{
	OvArgs		a = {0};

	ov_arg_int8(&a, s->pass.rotation_id);
	ov_arg_int8(&a, s->keys);
	ov_arg_int8(&a, s->records);
	ov_arg(&a, OV_NULL, true);
	ov_arg(&a, OV_NULL, true);
	ov_arg_str(&a, s->stop ? s->trouble.message : s->pass.failed > 0 ? s->pass.error : NULL);
	(void) ov_run(&progress, OV_WRITE, &a);
}

/* ---- a step ---- */

static void
step(void *arg)
{
	Step	   *s = arg;
	int64		id;

	if (ov_query(&running, OV_READ, NULL, NULL) == 0)
	{
		s->none = true;
		return;
	}
	id = ov_int8(0, 1);
	s->mode = MemoryContextStrdup(ov_round, ov_text(0, 2));
	s->rekey = strcmp(s->mode, "rekey") == 0;
	s->below = ov_int8(0, 3);
	s->requested_by = MemoryContextStrdup(ov_round, ov_text(0, 4));
	if (s->pass.rotation_id != id)
	{
		memset(&s->pass, 0, sizeof(s->pass));
		s->pass.rotation_id = id;
	}
	s->settings = ov_settings_or_null();
	if (s->settings == NULL || s->settings->active_version == 0)
		s->stop = !ov_refuse(&s->trouble, "OV040", "the vault is sealed", "{\"reason\":\"sealed\"}",
							 "Set \"oauth_vault.vault_file\" to a readable vault file and reload; the rotation goes on by itself.");
	else if (!ov_home(&s->home))
		s->stop = !ov_refuse(&s->trouble, "OV060", "the home row is missing", "{\"reason\":\"no home row\"}",
							 "Restore oauth_vault.home from the same backup: every sealed record names the vault that it identifies.");
	else
	{
		if (s->rekey && s->pass.after == 0)
			rewrap_audit_keys(s);	/* there are few */
		if (!s->rekey)
			rewrap(s);
		else if (!s->stop)
			rekey(s);
	}
	if (s->keys > 0 || s->records > 0 || s->stop || s->failed_key != 0)
		note_progress(s);
	if (!s->stop && !s->again && s->looked == 0)
		end_pass(s);
}

static void
trace(const Step *s)
{
	OvTrace		t = {
		.event = "keys_rotated", .outcome = strcmp(s->ended, "done") == 0 ? "ok" : "failed",
		.reason = psprintf("%s, asked for by %s", s->mode, s->requested_by), .detail = s->detail
	};

	ov_trace(&t);
	ereport(LOG,
			(errmsg("oauth_vault: rotation of keys (%s) has ended: %s", s->mode, s->ended),
			 s->pass.failed > 0 ? errdetail_internal("%s", s->pass.error) : 0));
}

void
ov_rotation_tick(TimestampTz now)
{
	Step		s = {.pass = pass};
	int			rate = ov_guc_rotation_rate;
	int			state;

	s.limit = Max(1, Min(KEYS_MAX, rate / 10));
	s.pause_ms = Max(1, s.limit * 1000 / rate);
	s.arena = ov_arena_new();
	state = ov_transact("rotate keys", step, &s);
	ov_arena_free(s.arena);
	if (state != 0)
	{
		ov_tick_at(OV_TICK_ROTATE, TimestampTzPlusMilliseconds(now, state == ERRCODE_LOCK_NOT_AVAILABLE ?
															   LOCKED_PAUSE_MS : TROUBLE_PAUSE_MS));
		return;
	}
	if (s.none)
		return;
	pass = s.pass;
	if (s.ended != NULL)
	{
		memset(&pass, 0, sizeof(pass));
		ov_keys_forget();
		trace(&s);
		ov_key_check_tick(now);	/* at once: somebody may be about to retire a version */
		return;
	}
	ov_tick_at(OV_TICK_ROTATE, TimestampTzPlusMilliseconds(now, s.stop ? TROUBLE_PAUSE_MS : s.pause_ms));
}
