/*
 * flow_begin.c
 *	  A pending authorization flow: made, committed, answered with its URL.
 *
 * begin makes state, PKCE verifier and nonce, and seals the verifier under the
 * connector's key.  The state is kept as its SHA-256 only.  Only this worker
 * writes flow rows; flows that have ended are swept away here.
 */
#include "worker/flow.h"

#include <openssl/crypto.h>

#include "core/codec.h"
#include "core/json.h"
#include "errors.h"

#define FLOW_LIFE_MS (10 * 60 * 1000)
#define MAX_PENDING 100			/* flows of one person */
#define SWEEP_MS 60000

static OvQuery count_pending = {
	"SELECT count(*) FROM oauth_vault.flow WHERE tenant = $1 AND user_id = $2 AND consumed_at IS NULL AND expires_at > $3",
	"ttz"
};
static OvQuery insert_flow = {
	"INSERT INTO oauth_vault.flow (flow_id, state_hash, tenant, user_id, actor, connector_id, account, redirect_uri,"
	" requested_scopes, params, return_to, issuer, verifier, nonce, hosts_digest, created_at, expires_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
	"ubttj" "uttaj" "ttbtb" "zz"
};
static OvQuery sweep_flows = {
	"DELETE FROM oauth_vault.flow WHERE flow_id IN (SELECT flow_id FROM oauth_vault.flow WHERE expires_at < $1"
	" ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED)", "z"
};

/* ---- shared with flow_complete.c ---- */

char *
ov_field(OvArena *arena, const OvMsg *m, OvTag tag)
{
	const void *data;
	size_t		len;

	return ov_msg_get(m, tag, &data, &len) ? ov_arena_strndup(arena, data, len) : NULL;
}

OvConnector *
ov_usable_connector(OvConnector *c, OvFailure *f)
{
	if (c == NULL)
		(void) ov_refuse(f, "OV012", "there is no such connector",
						 "{\"reason\":\"unknown_connector\"}",
						 "If it was created in a transaction that is still open, commit that transaction first.");
	else if (strcmp(c->status, "active") != 0)
		(void) ov_refuse(f, "OV022", psprintf("connector \"%s\" is out of service", c->name),
						 ov_detail("reason", c->status_reason ? c->status_reason : c->status, "connector", c->name, NULL),
						 "An administrator must put the connector right.");
	else
		return c;
	return NULL;
}

bool
ov_provider_of(OvArena *arena, const OvConnector *c, const char *extra, const OvProvider **provider, OvFailure *f)
{
	OvError		err = {0};

	if (ov_connector_provider(arena, c, extra, provider, &err) == OV_OK)
		return true;
	return ov_refuse(f, "OV022", psprintf("the rules of connector \"%s\" cannot be used: %s", c->name, err.message),
					 ov_detail("reason", err.message, "connector", c->name, NULL),
					 "An administrator must correct the connector, its parameters or its provider's rules.");
}

/* ---- begin ---- */

typedef struct Begin
{
	const OvMsg *m;
	OvArena    *arena;
	OvCaller   *caller;
	TimestampTz now;
	bool		ok;
	OvFailure	failure;
	char	   *connector;
	char	   *account;
	const char **scopes;
	int			nscopes;
	char	   *url;			/* these in the arena */
	char	   *state;
	TimestampTz expires_at;
} Begin;

static bool
has(char **list, int n, const char *item)
{
	for (int i = 0; i < n; i++)
		if (strcmp(list[i], item) == 0)
			return true;
	return false;
}

static bool
check_params(OvArena *arena, const OvProvider *p, const char *params, OvFailure *f)
{
	const OvJson *json;
	OvError		err = {0};

	if (ov_json_parse(arena, params, strlen(params), &json, &err) == OV_OK &&
		ov_provider_begin_params(p, json, &err) == OV_OK)
		return true;
	return ov_refuse(f, err.code == OV_E_DENIED ? "OV014" : "22023", "parameter \"params\" cannot be used",
					 ov_detail("reason", err.message, NULL),
					 "The provider's entry in oauth_providers says which parameters oauth_begin takes, and with which values.");
}

/* Seals the verifier for this flow. */
static bool
seal_verifier(Begin *b, const OvHome *home, const OvConnector *c, const unsigned char flow_id[16],
			  const unsigned char digest[32], const char *verifier, const unsigned char **record, size_t *len)
{
	unsigned char key[OV_KEY_LEN];
	OvAad		aad = {.tenant = b->caller->tenant, .user_id = b->caller->user_id,
	.purpose = OV_PURPOSE_PKCE_VERIFIER, .key_id = c->key_id};
	OvCode		code;

	*record = NULL;
	*len = 0;
	if (verifier == NULL)
		return true;
	if (!ov_connector_key(home->vault_id, c, key, &b->failure))
		return false;
	memcpy(aad.vault_id, home->vault_id, 16);
	memcpy(aad.connector_id, c->id, 16);
	memcpy(aad.connection_id, flow_id, 16);
	memcpy(aad.hosts_digest, digest, 32);
	code = ov_seal(b->arena, key, &aad, verifier, record, len);
	OPENSSL_cleanse(key, sizeof(key));
	return code == OV_OK || ov_refuse(&b->failure, "OV041", "the code verifier could not be sealed",
									   "{\"reason\":\"encryption failed\"}",
									   "Nothing was stored: call oauth_begin again, and look at the server's memory if it goes on.");
}

static void
insert(Begin *b, const OvConnector *c, const OvProvider *p, const unsigned char flow_id[16],
	   const unsigned char digest[32], const char *uri, const char *params, const unsigned char *verifier,
	   size_t len, const char *nonce)
{
	unsigned char hash[32];
	OvArgs		a = {0};

	ov_sha256(b->state, strlen(b->state), hash);
	ov_arg_uuid(&a, flow_id);
	ov_arg_bytes(&a, hash, 32);
	ov_arg_str(&a, b->caller->tenant);
	ov_arg_str(&a, b->caller->user_id);
	ov_arg_json(&a, b->caller->actor);
	ov_arg_uuid(&a, c->id);
	ov_arg_str(&a, b->account);
	ov_arg_str(&a, uri);
	ov_arg_texts(&a, b->scopes, b->nscopes);
	ov_arg_json(&a, params);
	ov_arg_str(&a, ov_field(b->arena, b->m, OV_TAG_RETURN_TO));
	ov_arg_str(&a, ov_provider_issuer(p));
	ov_arg_bytes(&a, verifier, len);
	ov_arg_str(&a, nonce);
	ov_arg_bytes(&a, digest, 32);
	ov_arg_time(&a, b->now);
	ov_arg_time(&a, b->expires_at);
	ov_connector_hold(c->id);
	(void) ov_run(&insert_flow, OV_WRITE, &a);
}

static bool
too_many(Begin *b)
{
	OvArgs		a = {0};

	ov_arg_str(&a, b->caller->tenant);
	ov_arg_str(&a, b->caller->user_id);
	ov_arg_time(&a, b->now);
	(void) ov_run(&count_pending, OV_READ, &a);
	if (ov_int8(0, 1) < MAX_PENDING)
		return false;
	(void) ov_refuse(&b->failure, "OV050", "too many authorization flows are pending",
					 "{\"reason\":\"pending flows\"}", "Complete some, or wait: each ends after ten minutes.");
	return true;
}

static void
begin_work(void *arg)
{
	Begin	   *b = arg;
	OvArena    *arena = b->arena;
	OvFailure  *f = &b->failure;
	OvConnector *c = ov_usable_connector(ov_connector_by_name(b->connector), f);
	char	   *params = ov_field(arena, b->m, OV_TAG_PARAMS);
	char	   *uri = ov_field(arena, b->m, OV_TAG_REDIRECT_URI);
	const OvProvider *p;
	OvBegin		begin = {0};
	OvHome		home;
	OvError		err = {0};
	unsigned char digest[32];
	unsigned char flow_id[16];
	const unsigned char *sealed;
	size_t		len;
	char	   *verifier = NULL;

	if (params == NULL)
		params = "{}";
	if (c == NULL || !ov_home_or_refuse(&home, f) || ov_offboarded(b->caller->tenant, b->caller->user_id, b->now, f) ||
		!ov_provider_of(arena, c, params, &p, f) || !check_params(arena, p, params, f) ||
		!ov_hosts_check(arena, c, params, p, digest, f) || too_many(b))
		return;
	/* RFC 9700 section 2.1: exact string matching */
	if (uri == NULL || !has(c->redirect_uris, c->nredirect_uris, uri))
	{
		(void) ov_refuse(f, "22023", "parameter \"redirect_uri\" is not one of the connector's", NULL,
						 "It must equal one of the connector's redirect URIs, character by character.");
		return;
	}
	ov_new_uuid(flow_id);
	b->state = ov_random_token(arena, 32);
	/* RFC 7636 section 4.1 */
	if (ov_provider_uses_pkce(p))
	{
		verifier = ov_random_token(arena, 32);
		begin.code_challenge = ov_pkce_s256(arena, verifier);
	}
	for (int i = 0; i < b->nscopes; i++)
		if (strcmp(b->scopes[i], "openid") == 0)
			begin.nonce = ov_random_token(arena, 16);
	begin.client_id = c->client_id;
	begin.redirect_uri = uri;
	begin.state = b->state;
	begin.login_hint = ov_field(arena, b->m, OV_TAG_LOGIN_HINT);
	begin.scopes = b->scopes;
	begin.nscopes = b->nscopes;
	if (b->state == NULL || ov_arena_failed(arena) || (ov_provider_uses_pkce(p) && verifier == NULL))
	{
		(void) ov_refuse(f, "53200", "out of memory", NULL, NULL);
		return;
	}
	if (ov_authorization_url(arena, p, &begin, &b->url, &err) != OV_OK)
	{
		(void) ov_refuse(f, err.code == OV_E_DENIED || err.code == OV_E_SYNTAX ? "22023" : "OV022",
						 "the authorization URL could not be built", ov_detail("reason", err.message, NULL),
						 "Check the scopes and parameters, and the connector's.");
		return;
	}
	if (!seal_verifier(b, &home, c, flow_id, digest, verifier, &sealed, &len))
		return;
	insert(b, c, p, flow_id, digest, uri, params, sealed, len, begin.nonce);
	b->ok = true;
}

static void
trace_begin(const Begin *b)
{
	OvTrace		t = {
		.event = "flow_begun", .outcome = b->ok ? "ok" : "failed", .caller = b->caller,
		.tenant = b->caller->tenant, .user_id = b->caller->user_id, .connector = b->connector,
		.account = b->account, .scopes = b->scopes, .nscopes = b->nscopes,
		.reason = b->ok ? NULL : b->failure.message
	};

	ov_trace(&t);
}

void
ov_flow_begin(const OvTicket *ticket, const OvMsg *m)
{
	Begin		b = {.m = m, .now = GetCurrentTimestamp()};
	const void *data;
	size_t		len;
	int			state;
	OvMsg		answer;
	unsigned char *buf;

	b.arena = ov_arena_new();
	b.caller = ov_caller_read(m, ov_round);
	if (b.caller->tenant == NULL)
		b.caller->tenant = "";
	b.connector = ov_field(b.arena, m, OV_TAG_CONNECTOR);
	b.account = ov_field(b.arena, m, OV_TAG_ACCOUNT);
	if (b.account == NULL)
		b.account = "";
	while (ov_msg_get_nth(m, OV_TAG_SCOPE, b.nscopes, &data, &len))
		b.nscopes++;
	b.scopes = ov_arena_alloc(b.arena, sizeof(char *) * (b.nscopes + 1));
	for (int i = 0; i < b.nscopes; i++)
	{
		(void) ov_msg_get_nth(m, OV_TAG_SCOPE, i, &data, &len);
		b.scopes[i] = ov_arena_strndup(b.arena, data, len);
	}
	b.expires_at = TimestampTzPlusMilliseconds(b.now, FLOW_LIFE_MS);
	if (b.connector == NULL || b.caller->user_id == NULL)
	{
		ov_slot_answer_error(ticket, "XX000", "malformed request to the network worker", NULL, NULL);
		ov_arena_free(b.arena);
		return;
	}
	state = ov_transact("begin a flow", begin_work, &b);
	if (state != 0)
	{
		b.ok = false;
		ov_refuse_database(&b.failure, state);
	}
	trace_begin(&b);
	if (!b.ok)
		ov_answer_failure(ticket, &b.failure);
	else
	{
		size_t		size = strlen(b.url) + 256;

		buf = ov_arena_alloc(b.arena, size);
		ov_msg_init(&answer, buf, size);
		ov_msg_put_str(&answer, OV_TAG_URL, b.url);
		ov_msg_put_str(&answer, OV_TAG_STATE, b.state);
		ov_msg_put_i64(&answer, OV_TAG_EXPIRES, b.expires_at);
		ov_slot_answer(ticket, &answer);
	}
	ov_arena_free(b.arena);
}

/* ---- sweeping ---- */

static void
sweep_work(void *arg)
{
	Datum		before = TimestampTzGetDatum(*(TimestampTz *) arg);

	(void) ov_query(&sweep_flows, OV_WRITE, &before, NULL);
}

void
ov_flow_sweep_tick(TimestampTz now)
{
	(void) ov_transact("remove flows that have ended", sweep_work, &now);
	ov_tick_at(OV_TICK_SWEEP, TimestampTzPlusMilliseconds(now, SWEEP_MS));
}
