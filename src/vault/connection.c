/*
 * connection.c
 *	  Reading a person's connections, and opening their access tokens.
 *
 * Everything is read with the latest snapshot, so that what a worker has just
 * committed is seen in every isolation level.  Rows are filtered by tenant and
 * user here, and once more by row security: a forgotten filter shows nothing.
 *
 * Nobody is locked and nothing is written.  What is returned points into the
 * call's SPI memory and lives until ov_call_end().
 */
#include "vault/vault.h"

#include <openssl/crypto.h>

#define COLUMNS \
	"SELECT c.connection_id, c.connector_id, n.name, c.account, c.status, c.status_reason, c.status_since," \
	" c.key_id, k.wrapped, c.token_generation, c.hosts_digest, c.expires_at, c.issued_at, c.refresh_at," \
	" c.token_type, c.scopes, c.requested_scopes, c.metadata::text, c.provider_subject, c.access_token," \
	" c.refresh_token IS NOT NULL, c.superseded, n.status, n.status_reason, n.refresh_policy," \
	" n.require_actor, n.require_purpose, coalesce(n.max_reads_per_actor, 0)::int8" \
	" FROM oauth_vault.connection c JOIN oauth_vault.connector n ON n.connector_id = c.connector_id" \
	" LEFT JOIN oauth_vault.vault_key k ON k.key_id = c.key_id" \
	" WHERE c.tenant = $1 AND c.user_id = $2"

static OvQuery live = {
	COLUMNS " AND n.name = $3 AND ($4 IS NULL OR c.account = $4) AND c.status NOT IN ('revoking', 'revoked')"
	" ORDER BY c.account", "tttt"
};
static OvQuery past = {
	COLUMNS " AND n.name = $3 AND ($4 IS NULL OR c.account = $4) AND c.status IN ('revoking', 'revoked')"
	" ORDER BY c.status_since DESC, c.created_at DESC LIMIT 1", "tttt"
};
static OvQuery by_id = {COLUMNS " AND c.connection_id = $3", "ttu"};

static OvConnection *
fetch(uint64 row)
{
	OvConnection *c = palloc0(sizeof(OvConnection));
	const unsigned char *digest;
	size_t		len;

	memcpy(c->id, ov_uuid(row, 1), 16);
	memcpy(c->connector_id, ov_uuid(row, 2), 16);
	c->connector = ov_text(row, 3);
	c->account = ov_text(row, 4);
	c->status = ov_text(row, 5);
	c->reason = ov_text(row, 6);
	c->since = ov_time(row, 7);
	c->key_id = ov_int8(row, 8);
	c->wrapped = ov_bytea(row, 9, &c->wrapped_len);
	c->generation = ov_int8(row, 10);
	digest = ov_bytea(row, 11, &len);
	if (digest != NULL && len == sizeof(c->hosts_digest))
		memcpy(c->hosts_digest, digest, len);
	c->expires_at = ov_time(row, 12);
	c->issued_at = ov_time(row, 13);
	c->refresh_at = ov_time(row, 14);
	c->token_type = ov_text(row, 15);
	c->scopes = ov_text_array(row, 16, &c->nscopes);
	c->requested = ov_text_array(row, 17, &c->nrequested);
	c->metadata = ov_text(row, 18);
	c->provider_subject = ov_text(row, 19);
	c->access = ov_bytea(row, 20, &c->access_len);
	c->can_refresh = ov_bool(row, 21);
	c->superseded = ov_bytea(row, 22, &c->superseded_len);
	c->connector_status = ov_text(row, 23);
	c->connector_reason = ov_text(row, 24);
	c->policy = ov_text(row, 25);
	c->require_actor = ov_bool(row, 26);
	c->require_purpose = ov_bool(row, 27);
	c->max_reads_per_actor = (int32) ov_int8(row, 28);
	return c;
}

/* Which vault are we, and may it act?  Without a home row it may not. */
static void
place(OvConnection **list, int n)
{
	OvHome		home;
	bool		found;

	if (n == 0)
		return;
	found = ov_home(&home);
	for (int i = 0; i < n; i++)
	{
		memcpy(list[i]->vault_id, home.vault_id, 16);
		if (!found)
			list[i]->wrapped = NULL;	/* it opens for the vault's id alone */
		list[i]->held = !found || home.held || strcmp(list[i]->status, "held") == 0;
		list[i]->held_why = !found ? "the database has no home row" :
			pstrdup(home.held ? home.why : "the connection is held");
	}
}

static OvConnection **
search(OvQuery *q, OvCall *call, const char *connector, const char *account, int *n)
{
	Datum		args[4];
	uint64		count;
	OvConnection **list;

	args[0] = ov_text_datum(call->person->tenant);
	args[1] = ov_text_datum(call->person->user_id);
	args[2] = ov_text_datum(connector);
	args[3] = ov_text_datum(account);
	count = ov_query(q, OV_READ, args, account ? NULL : "   n");
	list = palloc0(sizeof(OvConnection *) * (count + 1));
	for (uint64 i = 0; i < count; i++)
		list[i] = fetch(i);
	*n = (int) count;
	place(list, *n);
	return list;
}

OvConnection **
ov_live_connections(OvCall *call, const char *connector, const char *account, int *n)
{
	return search(&live, call, connector, account, n);
}

OvConnection *
ov_connection(OvCall *call, const char *connector, const char *account)
{
	OvConnection **list;
	int			n;

	list = search(&live, call, connector, account, &n);
	if (n > 1)
		ov_ambiguous_account(list, n);
	if (n == 0)
	{
		ov_check_onboarded(call);
		list = search(&past, call, connector, account, &n);
	}
	if (n == 0)
		ov_no_connection("no_connection");
	return list[0];
}

OvConnection *
ov_connection_by_id(OvCall *call, const unsigned char id[16])
{
	Datum		args[3];
	OvConnection *c;

	args[0] = ov_text_datum(call->person->tenant);
	args[1] = ov_text_datum(call->person->user_id);
	args[2] = ov_uuid_datum(id);
	if (ov_query(&by_id, OV_READ, args, NULL) == 0)
		ov_no_connection("no_connection");
	c = fetch(0);
	place(&c, 1);
	return c;
}

OvConnection *
ov_connection_reload(OvCall *call, const OvConnection *c)
{
	return ov_connection_by_id(call, c->id);
}

void
ov_no_connection(const char *reason)
{
	if (strcmp(reason, "unknown_connector") == 0)
		ov_raise(ERRCODE_OV_NO_CONNECTION, "there is no such connector",
				 ov_detail("reason", reason, NULL),
				 "Check the connector's name; administrators see the names in oauth_connectors.");
	ov_raise(ERRCODE_OV_NO_CONNECTION, "there is no such connection",
			 ov_detail("reason", reason, NULL),
			 "Call oauth_begin and let the person consent; oauth_connections lists what is connected.");
}

void
ov_ambiguous_account(OvConnection **list, int n)
{
	char	  **labels = palloc(sizeof(char *) * n);

	for (int i = 0; i < n; i++)
		labels[i] = list[i]->account;
	ov_raise(ERRCODE_OV_AMBIGUOUS_ACCOUNT, "more than one account is connected",
			 ov_detail("accounts", ov_array_json(labels, n), NULL),
			 "Say which one: pass account => ... with one of the labels.");
}

void
ov_connection_usable(const OvConnection *c)
{
	const char *reason = NULL;

	if (strcmp(c->status, "reauth_required") == 0)
		reason = c->reason ? c->reason : "unknown";
	else if (strcmp(c->status, "revoking") == 0 || strcmp(c->status, "revoked") == 0)
		reason = "revoked";
	if (reason != NULL)
		ov_raise(ERRCODE_OV_REAUTHORIZATION_REQUIRED, "the person has to consent again",
				 ov_detail("reason", reason, "since", ov_time_text(c->since), NULL),
				 "Call oauth_begin for this connector and account and let the person consent.");
}

/*
 * The fingerprint of a token that has just been opened.  Two hashes over the
 * token cost as much as opening it, and most calls open the record that the one
 * before has opened: a record's salt is random and its tag authentic, so the
 * same salt and tag are the same token.
 */
static void
fingerprint_of(const OvConnection *c, const unsigned char subkey[OV_KEY_LEN], const char *token, size_t len,
			   unsigned char fingerprint[OV_FINGERPRINT_LEN])
{
	static struct
	{
		unsigned char id[48];	/* salt and tag */
		unsigned char fingerprint[OV_FINGERPRINT_LEN];
	}			known[32], *k;
	unsigned char id[48];

	memcpy(id, c->access + 13, 32);
	memcpy(id + 32, c->access + c->access_len - 16, 16);
	k = &known[id[0] % lengthof(known)];
	if (memcmp(k->id, id, sizeof(id)) != 0)
	{
		ov_token_fingerprint(subkey, token, len, k->fingerprint);
		memcpy(k->id, id, sizeof(id));
	}
	memcpy(fingerprint, k->fingerprint, OV_FINGERPRINT_LEN);
}

/* NULL if it does not open. The subkey is cleansed. */
static text *
open_with(OvCall *call, const OvConnection *c, unsigned char subkey[OV_KEY_LEN], unsigned char fingerprint[16], OvError *err)
{
	OvAad		aad = {
		.tenant = call->person->tenant,
		.user_id = call->person->user_id,
		.purpose = OV_PURPOSE_ACCESS_TOKEN,
		.key_id = c->key_id,
		.token_generation = c->generation
	};
	OvCode		code;
	size_t		len = 0;
	text	   *t;

	memcpy(aad.vault_id, c->vault_id, 16);
	memcpy(aad.connector_id, c->connector_id, 16);
	memcpy(aad.connection_id, c->id, 16);
	memcpy(aad.hosts_digest, c->hosts_digest, 32);

	/* one byte more: ov_record_open ends it with a NUL */
	t = MemoryContextAlloc(call->caller, VARHDRSZ + c->access_len - OV_RECORD_OVERHEAD + 1);
	code = ov_record_open(subkey, &aad, c->access, c->access_len, (unsigned char *) VARDATA(t), &len, err);
	if (code == OV_OK && fingerprint != NULL)
		fingerprint_of(c, subkey, VARDATA(t), len, fingerprint);
	OPENSSL_cleanse(subkey, OV_KEY_LEN);
	if (code != OV_OK)
	{
		OPENSSL_cleanse(VARDATA(t), c->access_len - OV_RECORD_OVERHEAD + 1);
		return NULL;
	}
	SET_VARSIZE(t, VARHDRSZ + len);
	return t;
}

text *
ov_open_with_cached_key(OvCall *call, const OvConnection *c, unsigned char fingerprint[16])
{
	unsigned char subkey[OV_KEY_LEN];
	OvError		err = {0};

	if (c->access_len < OV_RECORD_OVERHEAD ||
		!ov_access_subkey_cached(call->person, c->vault_id, c->key_id, subkey))
		return NULL;
	return open_with(call, c, subkey, fingerprint, &err);
}

text *
ov_open_access_token(OvCall *call, const OvConnection *c, unsigned char fingerprint[16])
{
	static const unsigned char unknown[16];
	unsigned char subkey[OV_KEY_LEN];
	OvError		err = {0};
	text	   *t;

	if (memcmp(c->vault_id, unknown, sizeof(unknown)) == 0)
		ov_raise(ERRCODE_OV_VAULT_HELD, "this database has no home row: it may be a copy that is being restored",
				 ov_detail("reason", c->held_why, NULL),
				 "Restore oauth_vault.home from the same backup: every sealed record names the vault that it identifies.");
	if (c->wrapped != NULL && c->wrapped_len == 0)
		ov_raise(ERRCODE_OV_DECRYPTION_FAILED, "the access token could not be opened",
				 ov_detail("reason", "its key has been destroyed", NULL),
				 "The row is older than that rotation of keys or offboarding: find out who put it back. The person can connect again.");
	if (c->access == NULL || c->access_len < OV_RECORD_OVERHEAD || c->wrapped == NULL)
		ov_raise(ERRCODE_OV_DECRYPTION_FAILED, "the access token could not be opened",
				 ov_detail("reason", c->wrapped == NULL ? "the person's key is missing" : "there is no record", NULL),
				 "Call oauth_begin and let the person consent again; an administrator should look for lost rows.");
	ov_access_subkey(call, c, subkey);
	t = open_with(call, c, subkey, fingerprint, &err);
	if (t == NULL)
		ov_raise(ERRCODE_OV_DECRYPTION_FAILED, "the access token could not be opened",
				 ov_detail("reason", err.message, NULL),
				 "The record was moved, changed or sealed under another key: an administrator must act.");
	return t;
}

void
ov_cleanse_text(text *t)
{
	OPENSSL_cleanse(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}
