/*
 * flow_complete.c
 *	  The code exchange: from the callback to the request.
 *
 * The flow is consumed, whatever comes of it, and that is committed before
 * anything is sent: a code leaves once.  The exception is an overlap of client
 * secrets: a server that did not accept the new one has not looked at the code,
 * which then goes once more with the secret before it.  Whose flow it is, whether
 * it has ended and which issuer answers is judged before an error= is believed.
 *
 * The person's keys are in hand before the code leaves, so that storing asks
 * nobody and waits for no lock.
 */
#include "worker/flow.h"

#include <openssl/crypto.h>

#include "core/codec.h"
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

static dlist_head exchanges = DLIST_STATIC_INIT(exchanges);

typedef struct Complete			/* the transaction before the code leaves */
{
	const OvMsg *m;
	OvExchange   *x;
	TimestampTz now;
	bool		send;
} Complete;

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
keep(OvExchange *x, const char *s)
{
	return s ? MemoryContextStrdup(x->job.context, s) : NULL;
}

/* Finds and consumes the flow. */
static bool
take_flow(Complete *c, Flow *flow)
{
	OvExchange   *x = c->x;
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
callback_params(OvExchange *x, const OvMsg *m, OvParam **params)
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
check_error(OvExchange *x, const OvMsg *m)
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

static bool
open_verifier(OvExchange *x, const OvConnector *c, const Flow *flow, const char **verifier)
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
capture(OvExchange *x, const OvClient *previous, const OvParam *params, char **captured)
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

/* Rules of the further tokens that this consent may bring */
static bool
take_slots(OvExchange *x, const OvConnector *connector)
{
	OvArena    *arena = x->job.arena;
	unsigned char digest[32];

	for (x->nslots = 0; x->nslots < OV_MAX_SLOTS; x->nslots++)
	{
		OvSlot	   *slot = &x->slots[x->nslots];
		char	   *variables;

		slot->name = ov_provider_slot(arena, x->provider, x->nslots, &variables);
		if (slot->name == NULL)
			break;
		slot->metadata = ov_merge_values(arena, x->metadata, variables);
		if (slot->metadata == NULL || !ov_provider_of(arena, connector, slot->metadata, &slot->provider, &x->failure) ||
			!ov_hosts_check(arena, connector, slot->metadata, slot->provider, digest, &x->failure))
			return false;
	}
	return true;
}

/* From the consumed flow to the request. */
static bool
build_exchange(Complete *c, const Flow *flow, const OvHome *home)
{
	OvExchange   *x = c->x;
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
	if (code == NULL && ov_provider_needs_code(x->provider))
		return refuse_flow(f);
	x->metadata = ov_merge_values(arena, flow->params, captured);
	if (x->metadata != NULL && ov_provider_keeps_redirect_uri(x->provider))
		x->metadata = ov_merge_values(arena, x->metadata, ov_detail("redirect_uri", flow->redirect_uri, NULL));
	if (x->metadata == NULL)
		return refuse_flow(f);
	/* What the callback brought may say to which host the code goes. */
	if (!ov_provider_of(arena, connector, x->metadata, &x->provider, f) ||
		!ov_hosts_check(arena, connector, x->metadata, x->provider, digest, f) ||
		!open_verifier(x, connector, flow, &verifier))
		return false;
	if (!take_slots(x, connector))
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
						 "Call oauth_begin again.");
	x->previous = previous;
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

bool
ov_flow_exchanging(const char *tenant, const char *user_id, const unsigned char *connector_id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &exchanges)
	{
		const OvGrant *g = &dlist_container(OvExchange, exchanging, iter.cur)->g;

		if ((tenant == NULL || strcmp(g->tenant, tenant) == 0) && (user_id == NULL || strcmp(g->user_id, user_id) == 0) &&
			(connector_id == NULL || memcmp(g->connector_id, connector_id, 16) == 0))
			return true;
	}
	return false;
}

void
ov_flow_complete(const OvTicket *ticket, const OvMsg *m)
{
	OvExchange   *x = ov_job_new(OV_JOB_EXCHANGE, sizeof(OvExchange), ov_exchange_read);
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
	ov_exchange_trace(x);
	ov_answer_failure(ticket, &x->failure);
	dlist_delete(&x->exchanging);
	ov_job_free(&x->job);
}
