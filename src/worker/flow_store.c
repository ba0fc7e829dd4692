/*
 * flow_store.c
 *	  What a code brought: followed up, stored, told.
 *
 * Some providers give a long-lived token for the first one, and tell whose
 * account it is only when asked: these calls follow at once, each to a host that
 * the rules name, and only then is there a connection.  Until then the tokens
 * are in this process's memory and nowhere else.
 *
 * The tokens are stored and committed before the caller hears of them; tokens
 * that cannot be kept (another account than before, hosts that are not allowed,
 * a forged ID token) are queued for revocation.  Where a call in between has
 * failed, that is done only if the person had no connection before: at many
 * providers a revocation would end the older grant as well.
 */
#include "worker/flow.h"

#include <time.h>

#include "core/id_token.h"
#include "core/json.h"
#include "errors.h"

static OvQuery pause_connector = {
	"UPDATE oauth_vault.connector SET status = 'paused', status_reason = $2, status_since = $3"
	" WHERE connector_id IN (SELECT connector_id FROM oauth_vault.connector WHERE connector_id = $1"
	" AND status = 'active' AND secret_generation = $4 FOR NO KEY UPDATE SKIP LOCKED)", "utzl"
};

char *
ov_merge_values(OvArena *arena, const char *base, const char *more)
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

void
ov_exchange_trace(const OvExchange *x)
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
	for (int i = 0; i < x->nslots; i++)
	{
		const OvSlot *slot = &x->slots[i];
		OvTrace		beside = t;

		if (!slot->stored)
			continue;
		beside.connection_id = slot->g.connection_id;
		beside.account = slot->g.account;
		beside.scopes = slot->g.scopes;
		beside.nscopes = slot->g.nscopes;
		ov_trace(&beside);
	}
	if (x->paused_now)
	{
		t.event = "connector_paused";
		t.outcome = "failed";
		ov_trace(&t);
	}
}

/* ---- the answers, as they arrive: no ereport, no palloc ---- */

static void
read_tokens(OvExchange *x, const OvHttpResponse *resp)
{
	OvArena    *arena = x->job.arena;
	OvTokens   *t = &x->tokens;
	int64_t		now = (int64_t) time(NULL);

	ov_token_response(arena, x->provider, resp, false, now, t);
	if (t->outcome != OV_OUT_OK)
		return;
	x->first_token = t->access_token;
	x->subject = t->subject;
	if (t->id_token != NULL)
	{
		const char *sub = NULL;

		x->id_token_bad = ov_id_token_check(arena, t->id_token, x->provider, x->client_id, x->nonce, now, &sub,
											&x->id_error) != OV_OK;
		if (x->subject == NULL)
			x->subject = sub;
	}
	for (int i = 0; i < x->nslots; i++)
		ov_token_response(arena, x->slots[i].provider, resp, false, now, &x->slots[i].tokens);
}

/* What the lookup brought, among what the tokens did */
static void
take_found(OvExchange *x)
{
	OvTokens   *t = &x->tokens;
	const OvTokens *found = &x->found;

	if (found->captured != NULL)
		t->captured = t->captured != NULL ? ov_merge_values(x->job.arena, t->captured, found->captured) : found->captured;
	if (found->scopes != NULL)
	{
		t->scopes = found->scopes;
		t->nscopes = found->nscopes;
	}
	if (found->expires_at != 0)
		t->expires_at = found->expires_at;
}

void
ov_exchange_read(OvJob *job, const OvHttpResponse *resp)
{
	OvExchange *x = (OvExchange *) job;

	switch (x->step)
	{
		case OV_STEP_CODE:
			read_tokens(x, resp);
			break;
		case OV_STEP_LONG_LIVED:
			ov_post_exchange_response(job->arena, x->provider, resp, (int64_t) time(NULL), &x->tokens);
			break;
		case OV_STEP_LOOKUP:
			ov_lookup_response(job->arena, x->provider, x->tokens.access_token, resp, (int64_t) time(NULL), &x->found);
			if (x->found.outcome == OV_OUT_OK)
				take_found(x);
			break;
	}
}

/* ---- storing what the exchange brought ---- */

static bool
refuse_answer(OvExchange *x, TimestampTz now)
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
seal(OvExchange *x, OvGrant *g, const OvTokens *t)
{
	OvArena    *arena = x->job.arena;
	OvAad		aad = {.tenant = g->tenant, .user_id = g->user_id, .key_id = g->key_id,
	.token_generation = g->generation + 1};
	/* where the access token renews itself it is kept as both */
	const char *refresh = t->refresh_token == NULL && g->can_refresh && ov_provider_renews_itself(x->provider) ?
		t->access_token : t->refresh_token;
	OvCode		code;

	memcpy(aad.vault_id, x->vault_id, 16);
	memcpy(aad.connector_id, g->connector_id, 16);
	memcpy(aad.connection_id, g->connection_id, 16);
	memcpy(aad.hosts_digest, g->hosts_digest, 32);
	aad.purpose = OV_PURPOSE_ACCESS_TOKEN;
	code = ov_seal(arena, x->keys->access, &aad, t->access_token, &g->access, &g->access_len);
	aad.purpose = OV_PURPOSE_REFRESH_TOKEN;
	if (code == OV_OK)
		code = ov_seal(arena, x->keys->refresh, &aad, refresh, &g->refresh, &g->refresh_len);
	aad.purpose = OV_PURPOSE_ID_TOKEN;
	if (code == OV_OK)
		code = ov_seal(arena, x->keys->refresh, &aad, t->id_token, &g->id, &g->id_len);
	if (code != OV_OK)			/* tried again with the rest */
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("the tokens could not be sealed")));
}

/* Tokens that belong to no connection, under an id of their own. */
static void
revoke_new_tokens(OvExchange *x)
{
	ov_new_uuid(x->g.connection_id);
	x->g.generation = 0;
	if (x->tokens.access_token == NULL)
		x->tokens.access_token = x->first_token;
	seal(x, &x->g, &x->tokens);
	ov_grant_queue_revocation(&x->g);
}

/* The token of the code exchange, which got no long-lived one */
static void
revoke_short_lived(OvExchange *x)
{
	const char *const *hosts;
	int			n;

	if (ov_provider_hosts(x->job.arena, x->provider, &hosts, &n, x->g.hosts_digest, NULL) != OV_OK)
		return;
	x->g.metadata = x->metadata;
	revoke_new_tokens(x);
}

/* With what the answer brought, to which hosts may this grant's secrets go? */
static bool
settle_hosts(OvExchange *x)
{
	OvArena    *arena = x->job.arena;
	OvConnector *c = ov_connector_by_id(x->g.connector_id);
	const OvProvider *p;
	char	   *metadata = ov_merge_values(arena, x->metadata, x->tokens.captured);
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
	x->g.metadata = ov_shared_stamp(arena, c, metadata);
	if (x->subject == NULL)
		x->g.subject = x->subject = ov_provider_subject(arena, p);
	/* could it be renewed with what we have? */
	x->g.can_refresh = ov_refresh_request(arena, p, &x->client, x->tokens.refresh_token, x->tokens.access_token,
										  &unused, NULL) == OV_OK;
	return true;
}

/* What a call in between did not bring, and the connection cannot do without */
static bool
check_calls(OvExchange *x)
{
	const OvTokens *found = &x->found;

	if (x->step != OV_STEP_LOOKUP || found->outcome == OV_OUT_OK || !ov_provider_lookup_required(x->provider))
		return true;
	if (found->outcome == OV_OUT_TRANSIENT)
		return ov_refuse(&x->failure, "OV020", "the provider could not be asked whose account this is",
						 ov_detail("reason", found->reason, "provider_error", found->error, NULL),
						 "The code is used up: call oauth_begin again.");
	return ov_refuse(&x->failure, "OV034", "the provider does not say whose account this is",
					 ov_detail("reason", found->reason, "provider_error", found->error, NULL),
					 "Call oauth_begin again; if begin named an account, check that the person has granted it.");
}

/* Is nobody's older grant at stake when these tokens are revoked? */
static bool
first_connection(OvExchange *x)
{
	bool		locked;
	char	   *subject;

	return !ov_grant_find(&x->g, &locked, &subject);
}

/* A further token of the consent, in a connection beside the first: its account is named main/slot. */
static void
store_slot(OvExchange *x, OvSlot *slot, TimestampTz now)
{
	OvArena    *arena = x->job.arena;
	OvConnector *c = ov_connector_by_id(x->g.connector_id);
	OvGrant    *g = &slot->g;
	const OvProvider *p;
	OvHttpRequest unused;
	OvFailure	why;
	char	   *subject;
	bool		locked;
	bool		exists;

	slot->stored = false;
	if (slot->tokens.outcome != OV_OUT_OK)
		return;					/* not granted */
	*g = x->g;
	g->account = ov_arena_printf(arena, "%s/%s", x->g.account, slot->name);
	g->metadata = ov_merge_values(arena, slot->metadata, slot->tokens.captured);
	if (strlen(g->account) > 255 || c == NULL || g->metadata == NULL || !ov_provider_of(arena, c, g->metadata, &p, &why) ||
		!ov_hosts_check(arena, c, g->metadata, p, g->hosts_digest, &why))
		return;
	g->metadata = ov_shared_stamp(arena, c, (char *) g->metadata);
	g->can_refresh = ov_refresh_request(arena, p, &x->client, slot->tokens.refresh_token, slot->tokens.access_token,
										&unused, NULL) == OV_OK;
	g->expires_at = slot->tokens.expires_at;
	g->refresh_expires_at = slot->tokens.refresh_expires_at;
	g->token_type = slot->tokens.token_type;
	g->scopes = g->requested = slot->tokens.scopes;
	g->nscopes = g->nrequested = slot->tokens.scopes ? slot->tokens.nscopes : 0;
	g->subject = slot->tokens.subject;
	exists = ov_grant_find(g, &locked, &subject);
	/* another person's account: the label is taken */
	if (exists && subject != NULL && g->subject != NULL && strcmp(subject, g->subject) != 0)
		return;
	seal(x, g, &slot->tokens);
	slot->stored = ov_consent_install(g, exists, locked, now) == OV_STORED_INSTALLED;
	ov_revocations_supersede(g, arena, p, x->vault_id, x->keys, &slot->tokens, now);
}

static void
store_work(void *arg)
{
	OvExchange *x = arg;
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
		/* short-lived, and no other came of it */
		if (x->step == OV_STEP_LONG_LIVED && first_connection(x))
			revoke_short_lived(x);
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
	else if (!check_calls(x))
	{
		x->refused = true;
		x->to_revoke = first_connection(x);
	}
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
			seal(x, &x->g, &x->tokens);
			x->stored = ov_consent_install(g, exists, locked, now);
			ov_revocations_supersede(g, x->job.arena, x->provider, x->vault_id, x->keys, &x->tokens, now);
			for (int i = 0; i < x->nslots; i++)
				store_slot(x, &x->slots[i], now);
		}
	}
	if (x->to_revoke)
		revoke_new_tokens(x);
}

/* During an overlap of client secrets the old one may still be good. */
static bool
send_again(OvExchange *x)
{
	/* RFC 6749 section 5.2: a client that was not authenticated has not used the code */
	if (x->step != OV_STEP_CODE || x->tokens.outcome != OV_OUT_MISCONFIGURED || !x->has_again || x->sent_again)
		return false;
	x->sent_again = true;
	x->job.failures = 0;
	ov_job_send(&x->job, &x->again);
	return true;
}

/* Sends a call with the new token; false: it cannot be built, and *t says so. */
static bool
send_call(OvExchange *x, OvStep step, OvCode (*build) (OvArena *, const OvProvider *, const OvClient *, const char *,
													   OvHttpRequest *, OvError *), OvTokens *t)
{
	const char *token = x->tokens.access_token;
	OvHttpRequest req;
	OvError		err = {0};

	x->step = step;
	ov_job_sends(&x->job, token);
	ov_job_sends(&x->job, x->tokens.refresh_token);
	if (build(x->job.arena, x->provider, x->sent_again ? &x->previous : &x->client, token, &req, &err) != OV_OK ||
		ov_arena_failed(x->job.arena))
	{
		memset(t, 0, sizeof(*t));
		t->outcome = OV_OUT_MALFORMED;
		strlcpy(t->reason, err.message[0] ? err.message : "out of memory", sizeof(t->reason));
		return false;
	}
	x->job.failures = 0;
	ov_job_send(&x->job, &req);
	return true;
}

/* What has to be asked before there is a connection; false: nothing more */
static bool
send_next(OvExchange *x)
{
	if (x->tokens.outcome != OV_OUT_OK || x->id_token_bad)
		return false;
	if (x->step == OV_STEP_CODE && ov_provider_has_post_exchange(x->provider))
		return send_call(x, OV_STEP_LONG_LIVED, ov_post_exchange_request, &x->tokens);
	if (x->step != OV_STEP_LOOKUP && ov_provider_has_lookup(x->provider))
		return send_call(x, OV_STEP_LOOKUP, ov_lookup_request, &x->found);
	return false;
}

void
ov_flow_apply(OvJob *job)
{
	OvExchange *x = (OvExchange *) job;
	unsigned char buf[8192];
	OvMsg		answer;

	if (send_again(x) || send_next(x))
		return;
	if (ov_transact("store a new connection", store_work, x) != 0)
	{
		job->failures++;
		return;
	}
	job->done = true;
	dlist_delete(&x->exchanging);
	ov_exchange_trace(x);
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
