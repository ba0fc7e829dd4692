/*
 * flow_complete.c
 *	  The code exchange: from the callback to a stored connection.
 *
 * The flow is consumed, whatever comes of it, and that is committed before
 * anything is sent: a code leaves once.  The exception is an overlap of client
 * secrets: a server that did not accept the new one has not looked at the code,
 * which then goes once more with the secret before it.  Whose flow it is, whether
 * it has ended and which issuer answers is judged before an error= is believed.
 * The answer's tokens are stored and committed before the caller hears of them;
 * tokens that cannot be kept (another account than before, hosts that are not
 * allowed, a forged ID token) are queued for revocation.
 *
 * The person's keys are in hand before the code leaves, so that storing asks
 * nobody and waits for no lock.
 */
#include "worker/flow.h"

#include <openssl/crypto.h>
#include <time.h>

#include "core/codec.h"
#include "core/id_token.h"
#include "core/json.h"
#include "errors.h"
#include "utils/memutils.h"

static OvQuery find_flow = {
	"SELECT flow_id, tenant, user_id, connector_id, account, redirect_uri, requested_scopes, params::text, return_to,"
	" verifier, nonce, hosts_digest, expires_at, consumed_at IS NOT NULL, created_at FROM oauth_vault.flow WHERE state_hash = $1"
	" FOR UPDATE SKIP LOCKED", "b"
};
static OvQuery consume_flow = {
	"UPDATE oauth_vault.flow SET consumed_at = $2 WHERE flow_id = $1", "uz"
};

/* ---- complete ---- */

typedef struct Exchange
{
	OvJob		job;
	OvTicket	ticket;
	OvCaller   *caller;
	OvGrant		g;				/* strings in the job's context or arena */
	unsigned char vault_id[16];
	OvUserKeys *keys;
	const OvProvider *provider;
	OvClient	client;
	const char *client_id;
	const char *nonce;
	const char *metadata;		/* params and what the callback brought */
	const char *return_to;
	TimestampTz begun;			/* the flow */
	dlist_node	exchanging;
	OvHttpRequest req;
	OvHttpRequest again;		/* the same with the previous client secret */
	bool		has_again;
	bool		sent_again;

	/* the answer */
	OvTokens	tokens;
	bool		id_token_bad;
	OvError		id_error;
	const char *subject;

	/* what became of it */
	bool		refused;
	OvFailure	failure;
	OvStored	stored;
	bool		to_revoke;		/* the tokens cannot be kept */
	bool		pause;			/* the client was refused */
	bool		paused_now;
	int64		secret_generation;
} Exchange;

static dlist_head exchanges = DLIST_STATIC_INIT(exchanges);

typedef struct Complete			/* the transaction before the code leaves */
{
	const OvMsg *m;
	Exchange   *x;
	TimestampTz now;
	bool		send;
} Complete;

static OvQuery pause_connector = {
	"UPDATE oauth_vault.connector SET status = 'paused', status_reason = $2, status_since = $3"
	" WHERE connector_id IN (SELECT connector_id FROM oauth_vault.connector WHERE connector_id = $1"
	" AND status = 'active' AND secret_generation = $4 FOR NO KEY UPDATE SKIP LOCKED)", "utzl"
};

/* One message for a state that is unknown, has ended, was used, or is somebody else's. */
static bool
refuse_flow(OvFailure *f)
{
	return ov_refuse(f, "OV030", "the authorization flow is not valid",
					 "{\"reason\":\"unknown, expired, used or of another person\"}",
					 "Call oauth_begin again and send the person to the new URL.");
}

typedef struct Flow
{
	unsigned char id[16];
	char	   *redirect_uri;
	char	   *params;
	const unsigned char *verifier;
	size_t		verifier_len;
	unsigned char hosts_digest[32];
} Flow;

static char *
keep(Exchange *x, const char *s)
{
	return s ? MemoryContextStrdup(x->job.context, s) : NULL;
}

/* Finds and consumes the flow. */
static bool
take_flow(Complete *c, Flow *flow)
{
	Exchange   *x = c->x;
	char	   *state = ov_field(x->job.arena, c->m, OV_TAG_STATE);
	unsigned char hash[32];
	OvArgs		a = {0};
	const unsigned char *digest;
	size_t		len;
	char	  **scopes;
	int			n;
	bool		usable;

	if (state == NULL)
		return refuse_flow(&x->failure);
	ov_sha256(state, strlen(state), hash);
	ov_arg_bytes(&a, hash, 32);
	if (ov_run(&find_flow, OV_WRITE, &a) == 0)
		return refuse_flow(&x->failure);
	memcpy(flow->id, ov_uuid(0, 1), 16);
	x->g.tenant = keep(x, ov_text(0, 2));
	x->g.user_id = keep(x, ov_text(0, 3));
	memcpy(x->g.connector_id, ov_uuid(0, 4), 16);
	x->g.account = keep(x, ov_text(0, 5));
	flow->redirect_uri = ov_text(0, 6);
	scopes = ov_text_array(0, 7, &n);
	x->g.requested = MemoryContextAlloc(x->job.context, sizeof(char *) * (n + 1));
	x->g.nrequested = n;
	for (int i = 0; i < n; i++)
		((const char **) x->g.requested)[i] = keep(x, scopes[i]);
	flow->params = ov_text(0, 8);
	x->return_to = keep(x, ov_text(0, 9));
	flow->verifier = ov_bytea(0, 10, &flow->verifier_len);
	x->nonce = keep(x, ov_text(0, 11));
	digest = ov_bytea(0, 12, &len);
	if (len == 32)
		memcpy(flow->hosts_digest, digest, 32);
	x->begun = ov_time(0, 15);
	usable = !ov_bool(0, 14) && ov_time(0, 13) > c->now && x->caller->user_id != NULL &&
		strcmp(x->g.user_id, x->caller->user_id) == 0 && strcmp(x->g.tenant, x->caller->tenant) == 0;
	/* Also burnt when somebody else touches it. */
	if (!ov_bool(0, 14))
	{
		OvArgs		b = {0};

		ov_arg_uuid(&b, flow->id);
		ov_arg_time(&b, c->now);
		(void) ov_run(&consume_flow, OV_WRITE, &b);
	}
	if (!usable)
		return refuse_flow(&x->failure);
	/* begun before the person was offboarded, who may be back by now */
	return !ov_offboarded(x->g.tenant, x->g.user_id, x->begun, &x->failure);
}

/* All the callback's parameters, in their order if the whole query is known. */
static bool
callback_params(Exchange *x, const OvMsg *m, OvParam **params)
{
	OvArena    *arena = x->job.arena;
	char	   *query = ov_field(arena, m, OV_TAG_QUERY);
	char	   *extra = ov_field(arena, m, OV_TAG_PARAMS);
	static const struct
	{
		const char *name;
		OvTag		tag;
	}			named[] = {{"code", OV_TAG_CODE}, {"state", OV_TAG_STATE}, {"iss", OV_TAG_ISS}};
	const OvJson *json;
	OvParam    *head = NULL;
	OvParam   **end = &head;
	OvError		err = {0};

	if (query != NULL)
	{
		if (ov_form_parse(arena, query, strlen(query), params, &err) == OV_OK)
			return true;
		return refuse_flow(&x->failure);
	}
	for (int i = 0; i < lengthof(named); i++)
	{
		char	   *value = ov_field(arena, m, named[i].tag);

		if (value == NULL)
			continue;
		*end = ov_arena_alloc(arena, sizeof(OvParam));
		(*end)->name = named[i].name;
		(*end)->value = value;
		end = &(*end)->next;
	}
	if (extra != NULL && ov_json_parse(arena, extra, strlen(extra), &json, NULL) == OV_OK)
		for (const OvJson *e = json->child; e != NULL; e = e->next)
		{
			if (e->type != OV_JSON_STRING && e->type != OV_JSON_NUMBER)
				continue;
			*end = ov_arena_alloc(arena, sizeof(OvParam));
			(*end)->name = e->key;
			(*end)->value = e->str;
			end = &(*end)->next;
		}
	*params = head;
	return true;
}

/* RFC 6749 section 4.1.2.1 */
static bool
check_error(Exchange *x, const OvMsg *m)
{
	OvArena    *arena = x->job.arena;
	char	   *error = ov_field(arena, m, OV_TAG_ERROR);
	char	   *text = ov_field(arena, m, OV_TAG_ERROR_DESCRIPTION);

	if (error == NULL)
		return true;
	return ov_refuse(&x->failure, "OV031", "the authorization was denied",
					 ov_detail("provider_error", ov_clean_text(arena, error, strlen(error)),
							   "provider_error_description", text ? ov_clean_text(arena, text, strlen(text)) : NULL, NULL),
					 "Call oauth_begin again if the person wants to try once more.");
}

static char *
merge(OvArena *arena, const char *base, const char *more)
{
	const OvJson *a,
			   *b;
	OvStr		s;

	if (more == NULL)
		return ov_arena_strdup(arena, base);
	if (ov_json_parse(arena, base, strlen(base), &a, NULL) != OV_OK ||
		ov_json_parse(arena, more, strlen(more), &b, NULL) != OV_OK)
		return NULL;
	ov_str_init(&s, arena);
	ov_json_write(&s, ov_json_merge_patch(arena, a, b));
	return s.data;
}

static bool
open_verifier(Exchange *x, const OvConnector *c, const Flow *flow, const char **verifier)
{
	unsigned char key[OV_KEY_LEN];
	OvAad		aad = {.tenant = x->g.tenant, .user_id = x->g.user_id, .purpose = OV_PURPOSE_PKCE_VERIFIER,
	.key_id = c->key_id};
	bool		ok;

	*verifier = NULL;
	if (flow->verifier == NULL)
		return true;
	if (!ov_connector_key(x->vault_id, c, key, &x->failure))
		return false;
	memcpy(aad.vault_id, x->vault_id, 16);
	memcpy(aad.connector_id, c->id, 16);
	memcpy(aad.connection_id, flow->id, 16);
	memcpy(aad.hosts_digest, flow->hosts_digest, 32);
	ok = ov_open(x->job.arena, key, &aad, flow->verifier, flow->verifier_len, verifier, &x->failure);
	OPENSSL_cleanse(key, sizeof(key));
	return ok;
}

/* What the callback brought for the rules: false if it is not from the provider. */
static bool
capture(Exchange *x, const OvClient *previous, const OvParam *params, char **captured)
{
	OvArena    *arena = x->job.arena;
	OvError		err = {0};

	if (ov_callback_capture(arena, x->provider, &x->client, params, captured, &err) == OV_OK)
		return true;
	/* during an overlap it may still be signed with the secret before */
	if (previous->client_secret != NULL &&
		ov_callback_capture(arena, x->provider, previous, params, captured, &err) == OV_OK)
		return true;
	return ov_refuse(&x->failure, "OV030", "the callback is not what the provider sends",
					 ov_detail("reason", err.message, NULL),
					 "Pass the callback on as it came (oauth_callback), or call oauth_begin again.");
}

/* From the consumed flow to the request. */
static bool
build_exchange(Complete *c, const Flow *flow, const OvHome *home)
{
	Exchange   *x = c->x;
	OvArena    *arena = x->job.arena;
	OvFailure  *f = &x->failure;
	OvConnector *connector = ov_usable_connector(ov_connector_by_id(x->g.connector_id), f);
	OvClient	previous = {0};
	OvParam    *params;
	OvError		err = {0};
	unsigned char digest[32];
	char	   *captured;
	const char *code;
	const char *verifier;

	if (connector == NULL || !ov_provider_of(arena, connector, flow->params, &x->provider, f))
		return false;
	x->g.connector = keep(x, connector->name);
	x->g.policy = keep(x, connector->policy);
	x->client_id = keep(x, connector->client_id);
	x->secret_generation = connector->secret_generation;
	memcpy(x->vault_id, home->vault_id, 16);
	/* RFC 9207 section 2.4: before anything else of the answer is believed */
	if (ov_check_iss(x->provider, ov_field(arena, c->m, OV_TAG_ISS), &err) != OV_OK)
		return ov_refuse(f, "OV032", "the authorization response comes from another issuer",
						 ov_detail("reason", err.message, NULL),
						 "Do not use this callback. Call oauth_begin again.");
	if (!check_error(x, c->m) || !ov_hosts_check(arena, connector, flow->params, x->provider, digest, f))
		return false;
	/* The rules have changed since: this is not what the person was sent to. */
	if (memcmp(digest, flow->hosts_digest, 32) != 0)
		return refuse_flow(f);
	if (!ov_client(arena, x->vault_id, connector, false, &x->client, f) ||
		!ov_client(arena, x->vault_id, connector, true, &previous, f) ||
		!callback_params(x, c->m, &params) || !capture(x, &previous, params, &captured))
		return false;
	code = ov_callback_code(arena, x->provider, params);
	if (code == NULL)
		return refuse_flow(f);
	x->metadata = merge(arena, flow->params, captured);
	if (x->metadata == NULL)
		return refuse_flow(f);
	/* What the callback brought may say to which host the code goes. */
	if (!ov_provider_of(arena, connector, x->metadata, &x->provider, f) ||
		!ov_hosts_check(arena, connector, x->metadata, x->provider, digest, f) ||
		!open_verifier(x, connector, flow, &verifier))
		return false;
	x->keys = ov_arena_alloc(arena, sizeof(OvUserKeys));
	if (!ov_user_keys_since(x->vault_id, x->g.tenant, x->g.user_id, ov_first_key(x->g.tenant, x->g.user_id),
							&x->g.key_id, x->keys, f) || !ov_engine_ready(f))
		return false;
	x->job.key_id = x->g.key_id;
	ov_job_sends(&x->job, code);
	ov_job_sends(&x->job, verifier);
	ov_job_sends(&x->job, x->client.client_secret);
	ov_job_sends(&x->job, previous.client_secret);
	if (ov_code_request(arena, x->provider, &x->client, code, flow->redirect_uri, verifier, &x->req, &err) != OV_OK ||
		ov_arena_failed(arena))
		return ov_refuse(f, err.code == OV_E_SYNTAX ? "OV030" : "OV022", "the code could not be exchanged",
						 ov_detail("reason", err.message[0] ? err.message : "out of memory", NULL),
						 err.code == OV_E_SYNTAX ? "Call oauth_begin again." :
						 "An administrator must correct the connector's client authentication or its provider's rules; then call oauth_begin again.");
	x->has_again = previous.client_secret != NULL &&
		ov_code_request(arena, x->provider, &previous, code, flow->redirect_uri, verifier, &x->again, &err) == OV_OK;
	return true;
}

static void
complete_work(void *arg)
{
	Complete   *c = arg;
	Flow		flow = {{0}};
	OvHome		home;

	/* A held copy uses up no flow: it may be claimed in time. */
	c->send = ov_home_or_refuse(&home, &c->x->failure) && take_flow(c, &flow) && build_exchange(c, &flow, &home);
}

static void
trace_exchange(const Exchange *x)
{
	OvTrace		t = {
		.event = x->refused ? "flow_failed" : "connected", .outcome = x->refused ? "failed" : "ok",
		.caller = x->caller, .tenant = x->caller->tenant, .user_id = x->caller->user_id,
		.connector = x->g.connector, .account = x->g.account
	};

	if (x->refused)
	{
		t.reason = x->failure.message;
		t.detail = x->failure.detail[0] ? x->failure.detail : NULL;
		t.scopes = x->g.requested;
		t.nscopes = x->g.nrequested;
	}
	else
	{
		t.connection_id = x->g.connection_id;
		t.scopes = x->g.nscopes >= 0 ? x->g.scopes : x->g.requested;
		t.nscopes = x->g.nscopes >= 0 ? x->g.nscopes : x->g.nrequested;
	}
	ov_trace(&t);
	if (x->paused_now)
	{
		t.event = "connector_paused";
		t.outcome = "failed";
		ov_trace(&t);
	}
}

bool
ov_flow_exchanging(const char *tenant, const char *user_id, const unsigned char *connector_id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &exchanges)
	{
		const OvGrant *g = &dlist_container(Exchange, exchanging, iter.cur)->g;

		if ((tenant == NULL || strcmp(g->tenant, tenant) == 0) && (user_id == NULL || strcmp(g->user_id, user_id) == 0) &&
			(connector_id == NULL || memcmp(g->connector_id, connector_id, 16) == 0))
			return true;
	}
	return false;
}

static void read_exchange(OvJob *job, const OvHttpResponse *resp);

void
ov_flow_complete(const OvTicket *ticket, const OvMsg *m)
{
	Exchange   *x = ov_job_new(OV_JOB_EXCHANGE, sizeof(Exchange), read_exchange);
	Complete	c = {.m = m, .x = x, .now = GetCurrentTimestamp()};
	int			state;

	dlist_push_tail(&exchanges, &x->exchanging);
	x->ticket = *ticket;
	x->caller = ov_caller_read(m, x->job.context);
	if (x->caller->tenant == NULL)
		x->caller->tenant = "";
	state = ov_transact("complete a flow", complete_work, &c);
	if (state == 0 && c.send)
	{
		ov_job_send(&x->job, &x->req);
		return;
	}
	if (state != 0)
		ov_refuse_database(&x->failure, state);
	x->refused = true;
	trace_exchange(x);
	ov_answer_failure(ticket, &x->failure);
	dlist_delete(&x->exchanging);
	ov_job_free(&x->job);
}

/* The answer, as it arrives: no ereport, no palloc. */
static void
read_exchange(OvJob *job, const OvHttpResponse *resp)
{
	Exchange   *x = (Exchange *) job;
	OvTokens   *t = &x->tokens;

	ov_token_response(job->arena, x->provider, resp, false, (int64_t) time(NULL), t);
	if (t->outcome != OV_OUT_OK)
		return;
	x->subject = t->subject;
	if (t->id_token != NULL)
	{
		const char *sub = NULL;

		x->id_token_bad = ov_id_token_check(job->arena, t->id_token, x->provider, x->client_id, x->nonce,
											(int64_t) time(NULL), &sub, &x->id_error) != OV_OK;
		if (x->subject == NULL)
			x->subject = sub;
	}
}

/* ---- storing what the exchange brought ---- */

static bool
refuse_answer(Exchange *x, TimestampTz now)
{
	const OvTokens *t = &x->tokens;
	char	   *detail = ov_detail("reason", t->reason[0] ? t->reason : NULL, "provider_error", t->error,
								   "provider_error_description", t->error_description, NULL);

	switch (t->outcome)
	{
		case OV_OUT_OK:
			break;
		case OV_OUT_TRANSIENT:
			return ov_refuse(&x->failure, "OV020", "the provider could not be reached to exchange the code", detail,
							 strstr(t->reason, "certificate") ?
							 "The code is used up: call oauth_begin again. If the provider's certificate is of a private CA, name it in \"oauth_vault.ca_file\"." :
							 "The code is used up: call oauth_begin again.");
		case OV_OUT_MISCONFIGURED:
			x->pause = true;
			return ov_refuse(&x->failure, "OV022", psprintf("the provider refuses the client of connector \"%s\"", x->g.connector),
							 detail, "An administrator must correct the client id or secret; then call oauth_begin again.");
		case OV_OUT_DEAD:
		case OV_OUT_DENIED:
			return ov_refuse(&x->failure, "OV031", "the provider refused the authorization code", detail,
							 "Call oauth_begin again.");
		case OV_OUT_MALFORMED:
		case OV_OUT_UNSUPPORTED:
			return ov_refuse(&x->failure, "OV034", "the provider's answer makes no sense", detail,
							 "Call oauth_begin again; if it stays so, an administrator should check the provider's rules.");
	}
	return true;
}

static void
seal(Exchange *x)
{
	OvArena    *arena = x->job.arena;
	OvGrant    *g = &x->g;
	OvAad		aad = {.tenant = g->tenant, .user_id = g->user_id, .key_id = g->key_id,
	.token_generation = g->generation + 1};
	OvCode		code;

	memcpy(aad.vault_id, x->vault_id, 16);
	memcpy(aad.connector_id, g->connector_id, 16);
	memcpy(aad.connection_id, g->connection_id, 16);
	memcpy(aad.hosts_digest, g->hosts_digest, 32);
	aad.purpose = OV_PURPOSE_ACCESS_TOKEN;
	code = ov_seal(arena, x->keys->access, &aad, x->tokens.access_token, &g->access, &g->access_len);
	aad.purpose = OV_PURPOSE_REFRESH_TOKEN;
	if (code == OV_OK)
		code = ov_seal(arena, x->keys->refresh, &aad, x->tokens.refresh_token, &g->refresh, &g->refresh_len);
	aad.purpose = OV_PURPOSE_ID_TOKEN;
	if (code == OV_OK)
		code = ov_seal(arena, x->keys->refresh, &aad, x->tokens.id_token, &g->id, &g->id_len);
	if (code != OV_OK)			/* tried again with the rest */
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("the tokens could not be sealed")));
}

/* Tokens that belong to no connection, under an id of their own. */
static void
revoke_new_tokens(Exchange *x)
{
	ov_new_uuid(x->g.connection_id);
	x->g.generation = 0;
	seal(x);
	ov_grant_queue_revocation(&x->g);
}

/* With what the answer brought, to which hosts may this grant's secrets go? */
static bool
settle_hosts(Exchange *x)
{
	OvArena    *arena = x->job.arena;
	OvConnector *c = ov_connector_by_id(x->g.connector_id);
	const OvProvider *p;
	char	   *metadata = merge(arena, x->metadata, x->tokens.captured);
	OvHttpRequest unused;

	/* retired while the provider thought about it */
	if (c != NULL && strcmp(c->status, "retired") == 0)
		(void) ov_usable_connector(c, &x->failure);
	if (c == NULL || x->failure.sqlstate[0] != '\0' || metadata == NULL ||
		!ov_provider_of(arena, c, metadata, &p, &x->failure) ||
		!ov_hosts_check(arena, c, metadata, p, x->g.hosts_digest, &x->failure))
	{
		/* where they came from they may go back to, to be revoked */
		const char *const *hosts;
		int			n;

		if (ov_provider_hosts(arena, x->provider, &hosts, &n, x->g.hosts_digest, NULL) != OV_OK)
			memset(x->g.hosts_digest, 0, 32);
		x->g.metadata = x->metadata;
		if (x->failure.sqlstate[0] == '\0')
			(void) ov_refuse(&x->failure, "OV034", "the provider's answer makes no sense",
							 "{\"reason\":\"captured values\"}", "Call oauth_begin again.");
		return false;
	}
	x->g.metadata = metadata;
	/* could it be renewed with what we have? */
	x->g.can_refresh = ov_refresh_request(arena, p, &x->client, x->tokens.refresh_token, x->tokens.access_token,
										  &unused, NULL) == OV_OK;
	return true;
}

static void
store_work(void *arg)
{
	Exchange   *x = arg;
	OvGrant    *g = &x->g;
	TimestampTz now = GetCurrentTimestamp();
	char	   *subject;
	bool		locked;
	bool		exists;

	x->refused = x->to_revoke = x->pause = x->paused_now = false;
	memset(&x->failure, 0, sizeof(x->failure));
	if (!refuse_answer(x, now))
	{
		x->refused = true;
		if (x->pause)
		{
			OvArgs		a = {0};

			ov_arg_uuid(&a, g->connector_id);
			ov_arg_str(&a, x->tokens.error ? x->tokens.error : "the client was refused");
			ov_arg_time(&a, now);
			ov_arg_int8(&a, x->secret_generation);
			x->paused_now = ov_run(&pause_connector, OV_WRITE, &a) > 0;
		}
		return;
	}
	g->expires_at = x->tokens.expires_at;
	g->refresh_expires_at = x->tokens.refresh_expires_at;
	g->token_type = x->tokens.token_type;
	g->scopes = x->tokens.scopes;
	g->nscopes = x->tokens.scopes ? x->tokens.nscopes : -1;
	g->subject = x->subject;
	g->used = true;
	/* whoever offboards the person or the connector comes before this, or sees what it stores */
	ov_person_hold(g->tenant, g->user_id);
	ov_connector_hold(g->connector_id);
	if (!settle_hosts(x))
		x->refused = x->to_revoke = true;
	else if (ov_offboarded(g->tenant, g->user_id, x->begun, &x->failure))
		x->refused = x->to_revoke = true;
	else if (x->id_token_bad)
	{
		(void) ov_refuse(&x->failure, "OV034", "the provider's ID token cannot be accepted",
						 ov_detail("reason", x->id_error.message, NULL), "Call oauth_begin again.");
		x->refused = x->to_revoke = true;
	}
	else
	{
		exists = ov_grant_find(g, &locked, &subject);
		if (exists && subject != NULL && x->subject != NULL && strcmp(subject, x->subject) != 0)
		{
			(void) ov_refuse(&x->failure, "OV033", "this is another account at the provider than before",
							 "{\"reason\":\"subject changed\"}",
							 "Log in at the provider as before, or connect it beside with another label: account => ...");
			x->refused = x->to_revoke = true;
		}
		else
		{
			seal(x);
			x->stored = ov_consent_install(g, exists, locked, now);
			ov_revocations_supersede(g, x->job.arena, x->provider, x->vault_id, x->keys, &x->tokens, now);
		}
	}
	if (x->to_revoke)
		revoke_new_tokens(x);
}

/* During an overlap of client secrets the old one may still be good. */
static bool
send_again(Exchange *x)
{
	/* RFC 6749 section 5.2: a client that was not authenticated has not used the code */
	if (x->tokens.outcome != OV_OUT_MISCONFIGURED || !x->has_again || x->sent_again)
		return false;
	x->sent_again = true;
	x->job.failures = 0;
	ov_job_send(&x->job, &x->again);
	return true;
}

void
ov_flow_apply(OvJob *job)
{
	Exchange   *x = (Exchange *) job;
	unsigned char buf[8192];
	OvMsg		answer;

	if (send_again(x))
		return;
	if (ov_transact("store a new connection", store_work, x) != 0)
	{
		job->failures++;
		return;
	}
	job->done = true;
	dlist_delete(&x->exchanging);
	trace_exchange(x);
	if (x->refused)
		ov_answer_failure(&x->ticket, &x->failure);
	else if (x->stored == OV_STORED_LOCKED)
		ov_slot_answer_error(&x->ticket, "OV021", "the connection is locked by this or another transaction",
							 "{\"reason\":\"row locked by another transaction\"}",
							 "The new consent is kept, and takes effect when that transaction ends.");
	else
	{
		ov_msg_init(&answer, buf, sizeof(buf));
		ov_msg_put(&answer, OV_TAG_CONNECTION_ID, x->g.connection_id, 16);
		ov_msg_put_str(&answer, OV_TAG_RETURN_TO, x->return_to);
		ov_slot_answer(&x->ticket, &answer);
	}
}
