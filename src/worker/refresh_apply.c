/*
 * refresh_apply.c
 *	  What a provider's answer to a refresh means, stored and told.
 *
 * The answer is read and its tokens sealed as it arrives, in memory.  Then one
 * transaction for the batch deletes the intents and installs what came, or
 * notes what went wrong.  Only after its commit come the audit rows, and only
 * after those the callers' answers.
 *
 * An answer that cannot be stored stays with its job; the loop tries again.
 * Everything here runs with interrupts held and waits for no lock.
 */
#include "worker/refresh.h"

#include <time.h>

#include "core/id_token.h"
#include "core/json.h"
#include "debug_point.h"
#include "errors.h"

static OvQuery delete_intent = {
	"DELETE FROM oauth_vault.intent WHERE connection_id IN (SELECT connection_id FROM oauth_vault.intent"
	" WHERE connection_id = $1 AND token_generation = $2 FOR UPDATE SKIP LOCKED)", "ul"
};
static OvQuery delete_intents = {
	"DELETE FROM oauth_vault.intent WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM unnest($1, $2) i (id, generation)"
	" JOIN oauth_vault.intent t ON t.connection_id = i.id AND t.token_generation = i.generation"
	" FOR UPDATE OF t SKIP LOCKED))", "UL"
};
static OvQuery keep_doubt = {
	"UPDATE oauth_vault.intent SET in_doubt = true, tries = $3 WHERE connection_id IN (SELECT connection_id"
	" FROM oauth_vault.intent WHERE connection_id = $1 AND token_generation = $2 FOR UPDATE SKIP LOCKED)", "uli"
};
static OvQuery note_failure = {
	"UPDATE oauth_vault.connection SET attempts = $2, refresh_at = $3, last_error = $4,"
	" forced_at = CASE WHEN $5 THEN $6 ELSE forced_at END WHERE connection_id = $1", "uiztoz"
};
static OvQuery pause_connector = {
	"UPDATE oauth_vault.connector SET status = 'paused', status_reason = $2, status_since = $3"
	" WHERE connector_id IN (SELECT connector_id FROM oauth_vault.connector WHERE connector_id = $1"
	" AND status = 'active' AND secret_generation = $4 FOR NO KEY UPDATE SKIP LOCKED)", "utzl"
};

/* ---- failures in words ---- */

bool
ov_refuse_dead(OvFailure *f, const char *connector, const char *reason, TimestampTz since, const char *provider_error)
{
	return ov_refuse(f, "OV010", "the person has to consent again",
					 ov_detail("reason", reason, "since", ov_time_text(since),
							   "connector", connector, "provider_error", provider_error, NULL),
					 "Call oauth_begin for this connector and account and let the person consent.");
}

bool
ov_refuse_later(OvFailure *f, const char *reason, const char *provider_error, TimestampTz retry_at)
{
	return ov_refuse(f, "OV020", "the token could not be renewed now",
					 ov_detail("reason", reason, "provider_error", provider_error,
							   "retry_at", ov_time_text(retry_at), NULL),
					 reason && strstr(reason, "certificate") ?
					 "If the provider's certificate is of a private CA, name it in \"oauth_vault.ca_file\"." :
					 "Try again later: the connection is kept, and renewed as soon as the provider answers.");
}

bool
ov_refuse_paused(OvFailure *f, const char *connector, const char *reason)
{
	return ov_refuse(f, "OV022", psprintf("connector \"%s\" is out of service", connector),
					 ov_detail("reason", reason ? reason : "paused", "connector", connector, NULL),
					 "An administrator must put the connector right; the connection itself is kept.");
}

bool
ov_refuse_locked(OvFailure *f)
{
	return ov_refuse(f, "OV021", "the connection is locked by this or another transaction",
					 "{\"reason\":\"row locked by another transaction\"}",
					 "End the transaction that has locked it, and try again: what the provider answered is kept.");
}

bool
ov_refuse_gone(OvFailure *f)
{
	return ov_refuse(f, "OV012", "there is no such connection", "{\"reason\":\"no_connection\"}",
					 "Call oauth_begin and let the person consent; oauth_connections lists what is connected.");
}

void
ov_answer_refreshed(const OvTicket *ticket, bool rejected, const char *result, int64 generation)
{
	unsigned char buf[128];
	OvMsg		m;

	ov_msg_init(&m, buf, sizeof(buf));
	ov_msg_put_i64(&m, OV_TAG_GENERATION, generation);
	if (rejected)
		ov_msg_put_str(&m, OV_TAG_RESULT, result);
	ov_slot_answer(ticket, &m);
}

/* ---- reading, as it arrives: no ereport, no palloc ---- */

static OvCode
seal_grant(const OvRefresh *r, OvGrant *g, const OvUserKeys *keys)
{
	OvArena    *arena = r->job.arena;
	const OvTokens *t = &r->tokens;
	OvAad		aad = {.tenant = g->tenant, .user_id = g->user_id, .key_id = g->key_id,
	.token_generation = g->generation + 1};
	/* RFC 6749 section 6: without a new refresh token the old one stays good */
	const char *refresh = t->refresh_token ? t->refresh_token :
		ov_provider_renews_itself(r->rules->provider) ? t->access_token : r->refresh_token;
	OvCode		code;

	memcpy(aad.vault_id, r->vault_id, 16);
	memcpy(aad.connector_id, g->connector_id, 16);
	memcpy(aad.connection_id, g->connection_id, 16);
	memcpy(aad.hosts_digest, g->hosts_digest, 32);
	aad.purpose = OV_PURPOSE_ACCESS_TOKEN;
	code = ov_seal(arena, keys->access, &aad, t->access_token, &g->access, &g->access_len);
	aad.purpose = OV_PURPOSE_REFRESH_TOKEN;
	if (code == OV_OK)
		code = ov_seal(arena, keys->refresh, &aad, refresh, &g->refresh, &g->refresh_len);
	aad.purpose = OV_PURPOSE_ID_TOKEN;
	if (code == OV_OK)
		code = ov_seal(arena, keys->refresh, &aad, t->id_token, &g->id, &g->id_len);
	return code;
}

static bool
seal(OvRefresh *r)
{
	r->sealed = seal_grant(r, &r->g, r->keys) == OV_OK;
	for (int i = 0; i < r->nsiblings && r->sealed; i++)
		r->sealed = seal_grant(r, &r->siblings[i].g, r->siblings[i].keys) == OV_OK;
	return r->sealed;
}

/*
 * OpenID Connect Core section 12.2: an ID token that comes with a refresh has the
 * issuer, audience and subject of the first.  If not, the answer is somebody
 * else's, and so are its tokens: they are dropped, and not revoked, as they may
 * be in use where they belong.  One that is only unreadable or stale is dropped
 * alone: the server need not send one at all.
 */
static void
judge_id_token(OvRefresh *r, int64 now)
{
	OvTokens   *t = &r->tokens;

	/* a chain of several people may answer with the name of any */
	const char *pinned = r->is_shared ? NULL : r->subject;

	r->foreign = false;
	memset(&r->id_error, 0, sizeof(r->id_error));
	if (t->outcome != OV_OUT_OK || t->id_token == NULL ||
		ov_id_token_renewed(r->job.arena, t->id_token, r->rules->provider, r->rules->client.client_id, pinned, now,
							&r->foreign, &r->id_error) == OV_OK)
		return;
	t->id_token = NULL;
	if (r->foreign)
		t->outcome = OV_OUT_DEAD;
}

void
ov_refresh_read(OvJob *job, const OvHttpResponse *resp)
{
	OvRefresh  *r = (OvRefresh *) job;
	int64		now = (int64) time(NULL);

	r->unanswered = resp->sent && (resp->status == 0 || resp->transport_error != NULL);
	ov_token_response(job->arena, r->rules->provider, resp, true, now, &r->tokens);
	judge_id_token(r, now);
	if (r->tokens.outcome == OV_OUT_OK)
		(void) seal(r);
}

/* ---- storing ---- */

static const char *
reason_of(const OvRefresh *r)
{
	if (r->tokens.error != NULL && r->tokens.error[0] != '\0')
		return r->tokens.error;
	return r->tokens.reason[0] ? r->tokens.reason : "unknown";
}

/*
 * Captured values that would move the grant to other hosts are not taken over:
 * a grant's hosts are those it was made with.
 */
static const char *
new_metadata(const OvRefresh *r)
{
	OvArena    *arena;
	const OvJson *old,
			   *new;
	const OvProvider *provider;
	OvConnector *c;
	OvStr		s;
	const char *const *hosts;
	int			nhosts;
	unsigned char digest[32];
	char	   *result = NULL;

	if (r->tokens.captured == NULL || strcmp(r->tokens.captured, "{}") == 0)
		return NULL;
	arena = ov_arena_new();
	c = ov_connector_by_id(r->g.connector_id);
	if (c != NULL &&
		ov_json_parse(arena, r->g.metadata, strlen(r->g.metadata), &old, NULL) == OV_OK &&
		ov_json_parse(arena, r->tokens.captured, strlen(r->tokens.captured), &new, NULL) == OV_OK)
	{
		ov_str_init(&s, arena);
		ov_json_write(&s, ov_json_merge_patch(arena, old, new));
		if (ov_connector_provider(arena, c, s.data, &provider, NULL) == OV_OK &&
			ov_provider_hosts(arena, provider, &hosts, &nhosts, digest, NULL) == OV_OK &&
			memcmp(digest, r->g.hosts_digest, 32) == 0 && !ov_arena_failed(arena))
			result = pstrdup(s.data);
	}
	ov_arena_free(arena);
	return result;
}

static bool
same_scopes(const OvRefresh *r)
{
	if (r->tokens.nscopes != r->nscopes)
		return false;
	for (int i = 0; i < r->nscopes; i++)
		if (strcmp(r->tokens.scopes[i], r->scopes[i]) != 0)
			return false;
	return true;
}

/* What is to be installed */
static OvGrant *
grant_of(const OvRefresh *r)
{
	OvGrant    *g = palloc(sizeof(OvGrant));
	const OvTokens *t = &r->tokens;

	*g = r->g;
	g->metadata = new_metadata(r);
	g->same_metadata = g->metadata == NULL;
	if (g->same_metadata)
		g->metadata = r->g.metadata;
	g->can_refresh = true;		/* it just did */
	g->expires_at = t->expires_at;
	g->refresh_expires_at = t->refresh_expires_at;
	g->token_type = t->token_type;
	g->scopes = t->scopes;
	g->nscopes = t->scopes == NULL || same_scopes(r) ? -1 : t->nscopes;
	return g;
}

static void
installed(OvRefresh *r, OvStored stored)
{
	switch (stored)
	{
		case OV_STORED_INSTALLED:
		case OV_STORED_STALE:
			r->end = OV_END_FRESH;
			break;
		case OV_STORED_REVOKED:
			r->end = OV_END_GONE;
			break;
		case OV_STORED_LOCKED:
			r->end = OV_END_LOCKED;
			break;
	}
}

/* The grant is alive as far as we know; we come back. */
static void
later(OvRefresh *r, TimestampTz now)
{
	OvRow		row;
	OvLock		lock = ov_row_lock(r->g.connection_id, &row);
	int			attempts = row.attempts + 1;
	OvArgs		a = {0};

	r->reason = reason_of(r);
	r->retry_at = ov_retry_at(r->tokens.outcome, attempts, r->tokens.retry_after, now);
	if (r->end != OV_END_PAUSED)
		r->end = OV_END_LATER;
	if (lock == OV_LOCK_GONE || (lock == OV_LOCK_OURS && row.epoch != r->g.epoch))
		r->end = OV_END_GONE;
	else if (lock == OV_LOCK_OURS && row.generation != r->g.generation)
		r->end = OV_END_FRESH;
	else if (lock == OV_LOCK_OURS && strcmp(row.status, "active") == 0)
	{
		ov_arg_uuid(&a, r->g.connection_id);
		ov_arg(&a, Int32GetDatum(attempts), false);
		ov_arg_time(&a, r->retry_at);
		ov_arg_str(&a, r->reason);
		ov_arg(&a, BoolGetDatum(r->g.forced), false);
		ov_arg_time(&a, now);
		(void) ov_run(&note_failure, OV_WRITE, &a);
		ov_tick_at(OV_TICK_DUE, r->retry_at);
	}
}

static void
dead(OvRefresh *r, TimestampTz now)
{
	/* In doubt, what the provider refuses may be what it has rotated before, for an answer that was lost. */
	const char *reason = r->foreign ? "foreign_id_token" : r->in_doubt || r->unanswered ? "refresh_outcome_unknown" :
		r->tokens.error != NULL && r->tokens.error[0] != '\0' ? r->tokens.error : "grant_dead";

	r->reason = reason;
	switch (ov_grant_end(r->g.connection_id, r->g.generation, r->g.epoch, reason,
						 ov_detail("provider_error", r->tokens.error,
								   "provider_error_description", r->tokens.error_description,
								   "id_token", r->foreign ? r->id_error.message : NULL, NULL), now))
	{
		case OV_STORED_INSTALLED:
			r->end = OV_END_DEAD;
			break;
		case OV_STORED_STALE:
			r->end = OV_END_FRESH;
			break;
		case OV_STORED_REVOKED:
			r->end = OV_END_GONE;
			break;
		case OV_STORED_LOCKED:
			r->end = OV_END_LOCKED;
			break;
	}
}

/* The client is refused, not the grant: an administrator must act. */
static void
misconfigured(OvRefresh *r, TimestampTz now)
{
	OvArgs		a = {0};

	r->end = OV_END_PAUSED;
	ov_arg_uuid(&a, r->g.connector_id);
	ov_arg_str(&a, reason_of(r));
	ov_arg_time(&a, now);
	ov_arg_int8(&a, r->secret_generation);
	/* not if the secret has been replaced since: then it is tried with that */
	r->paused_now = ov_run(&pause_connector, OV_WRITE, &a) > 0;
	later(r, now);
}

static void
decide(OvRefresh *r, TimestampTz now)
{
	switch (r->tokens.outcome)
	{
		case OV_OUT_OK:
			break;				/* store_all() does them together */
		case OV_OUT_DEAD:
			dead(r, now);
			break;
		case OV_OUT_MISCONFIGURED:
			misconfigured(r, now);
			break;
		case OV_OUT_TRANSIENT:
		case OV_OUT_MALFORMED:
		case OV_OUT_DENIED:
		case OV_OUT_UNSUPPORTED:
			later(r, now);
			break;
	}
}

/*
 * The claim is closed, unless the refresh token may be used up and nobody knows.
 * An answer that decides nothing ("busy") leaves an earlier doubt as it was.
 * Neither that nor silence is a try: a provider that hangs for an hour must not
 * cost anybody the grant.  Only a crash is.
 */
static void
close_intent(const OvRefresh *r)
{
	OvArgs		a = {0};

	ov_arg_uuid(&a, r->g.connection_id);
	ov_arg_int8(&a, r->g.generation);
	if ((r->end == OV_END_LATER || r->end == OV_END_PAUSED) && (r->unanswered || r->in_doubt))
	{
		ov_arg(&a, Int32GetDatum(r->in_doubt ? r->tries - 1 : r->tries), false);
		(void) ov_run(&keep_doubt, OV_WRITE, &a);
	}
	else
		(void) ov_run(&delete_intent, OV_WRITE, &a);
}

/* Sent, and no answer: may the same refresh token be sent again? */
static bool
is_over(const OvRefresh *r)
{
	return r->unanswered && r->tokens.outcome == OV_OUT_TRANSIENT && !ov_provider_retry_in_doubt(r->rules->provider);
}

static void
store(OvRefresh *r, TimestampTz now)
{
	if (is_over(r))
		dead(r, now);
	else
		decide(r, now);
	close_intent(r);
}

/* The same tokens for another connection with the same chain */
static OvGrant *
grant_beside(const OvGrant *own, const OvSibling *s)
{
	OvGrant    *g = palloc(sizeof(OvGrant));

	*g = s->g;
	g->same_metadata = true;
	g->can_refresh = true;
	g->expires_at = own->expires_at;
	g->refresh_expires_at = own->refresh_expires_at;
	g->token_type = own->token_type;
	g->nscopes = -1;
	return g;
}

/* New tokens: in a few statements for all of them */
static void
store_tokens(OvRefresh **refreshes, int n, TimestampTz now)
{
	int			total = n;
	const OvGrant **grants;
	OvStored   *stored;
	const unsigned char **ids = palloc(sizeof(char *) * n);
	Datum	   *generations = palloc(sizeof(Datum) * n);
	OvArgs		a = {0};

	for (int i = 0; i < n; i++)
		total += refreshes[i]->nsiblings;
	grants = palloc(sizeof(OvGrant *) * total);
	stored = palloc(sizeof(OvStored) * total);
	total = n;
	for (int i = 0; i < n; i++)
	{
		grants[i] = grant_of(refreshes[i]);
		ids[i] = grants[i]->connection_id;
		generations[i] = Int64GetDatum(grants[i]->generation);
		for (int k = 0; k < refreshes[i]->nsiblings; k++)
			grants[total++] = grant_beside(grants[i], &refreshes[i]->siblings[k]);
	}
	ov_grants_install(grants, total, stored, now);
	total = n;
	for (int i = 0; i < n; i++)
	{
		installed(refreshes[i], stored[i]);
		for (int k = 0; k < refreshes[i]->nsiblings; k++)
			refreshes[i]->siblings[k].stored = stored[total++];
	}
	ov_arg_uuids(&a, ids, n);
	ov_arg_array(&a, 'l', generations, NULL, n);
	(void) ov_run(&delete_intents, OV_WRITE, &a);
}

/* ---- telling ---- */

static bool
scope_widened(const OvRefresh *r)
{
	for (int i = 0; r->tokens.scopes != NULL && i < r->tokens.nscopes; i++)
	{
		bool		known = false;

		for (int k = 0; k < r->nscopes && !known; k++)
			known = strcmp(r->tokens.scopes[i], r->scopes[k]) == 0;
		if (!known)
			return true;
	}
	return false;
}

static void
trace(const OvRefresh *r)
{
	OvTrace		t = {
		.caller = r->caller, .tenant = r->g.tenant, .user_id = r->g.user_id, .connector = r->g.connector,
		.connection_id = r->g.connection_id, .account = r->g.account, .event = "refreshed", .outcome = "ok"
	};

	if (r->tokens.outcome == OV_OUT_OK)
	{
		t.scopes = r->tokens.scopes ? r->tokens.scopes : (const char *const *) r->scopes;
		t.nscopes = r->tokens.scopes ? r->tokens.nscopes : r->nscopes;
		t.reason = r->end == OV_END_LOCKED ? "row locked: kept until it is free" :
			r->end == OV_END_GONE ? "decided otherwise meanwhile: queued for revocation" :
			scope_widened(r) ? "the provider granted scopes that were not there before" : NULL;
		if (r->id_error.message[0] != '\0')
			t.detail = ov_detail("id_token_not_kept", r->id_error.message, NULL);
	}
	else
	{
		t.event = r->end == OV_END_DEAD ? "reauth_required" : "refresh_failed";
		t.outcome = "failed";
		t.reason = r->reason ? r->reason : reason_of(r);
		t.detail = ov_detail("provider_error", r->tokens.error, "unanswered", r->unanswered ? "true" : NULL,
							 "id_token", r->foreign ? r->id_error.message : NULL, NULL);
	}
	ov_trace(&t);
	for (int i = 0; r->tokens.outcome == OV_OUT_OK && i < r->nsiblings; i++)
	{
		const OvSibling *s = &r->siblings[i];
		OvTrace		beside = {
			.event = "refreshed", .outcome = "ok", .tenant = s->g.tenant, .user_id = s->g.user_id,
			.connector = r->g.connector, .connection_id = s->g.connection_id, .account = s->g.account,
			.reason = "by another connection with the same chain"
		};

		if (s->stored == OV_STORED_INSTALLED || s->stored == OV_STORED_LOCKED)
			ov_trace(&beside);
	}
	if (r->paused_now)
	{
		t.event = "connector_paused";
		t.reason = reason_of(r);
		t.connection_id = NULL;
		t.account = NULL;
		ov_trace(&t);
	}
}

static void
answer(const OvRefresh *r, const OvWaiter *w)
{
	OvFailure	f;

	switch (r->end)
	{
		case OV_END_FRESH:
			ov_answer_refreshed(&w->ticket, w->rejected, "refreshed", w->generation + 1);
			return;
		case OV_END_DEAD:
			if (w->rejected)
			{
				ov_answer_refreshed(&w->ticket, true, "reauth_required", w->generation);
				return;
			}
			(void) ov_refuse_dead(&f, r->g.connector, r->reason, GetCurrentTimestamp(), r->tokens.error);
			break;
		case OV_END_LATER:
			(void) ov_refuse_later(&f, r->tokens.reason[0] ? r->tokens.reason : r->reason, r->tokens.error, r->retry_at);
			break;
		case OV_END_PAUSED:
			(void) ov_refuse_paused(&f, r->g.connector, reason_of(r));
			break;
		case OV_END_LOCKED:
			(void) ov_refuse_locked(&f);
			break;
		case OV_END_GONE:
			(void) ov_refuse_gone(&f);
			break;
	}
	ov_answer_failure(&w->ticket, &f);
}

static void
finish(OvRefresh *r)
{
	trace(r);
	OV_POINT("before answers");
	for (OvWaiter *w = r->waiters; w != NULL; w = w->next)
		answer(r, w);
	ov_refresh_forget(r);
	r->job.done = true;
}

/* ---- the batch ---- */

/* invalid_client with the new secret: during an overlap the old one may still be good. */
static bool
send_again(OvRefresh *r)
{
	OvHttpRequest req;

	if (r->tokens.outcome != OV_OUT_MISCONFIGURED || !r->rules->has_previous || r->on_previous)
		return false;
	r->on_previous = true;
	if (ov_refresh_request(r->job.arena, r->rules->provider, &r->rules->previous, r->refresh_token, r->access_token, &req,
						   NULL) != OV_OK)
		return false;
	r->job.failures = 0;
	ov_job_send(&r->job, &req);
	return true;
}

typedef struct Batch
{
	OvRefresh **refreshes;
	int			n;
	OvJob	  **leaving;		/* requests that leave when this is committed */
	int			nleaving;
	TimestampTz now;
} Batch;

static void
store_all(void *arg)
{
	Batch	   *b = arg;
	OvRefresh **renewed = palloc(sizeof(OvRefresh *) * b->n);
	int			nrenewed = 0;

	for (int i = 0; i < b->n; i++)
	{
		OvRefresh  *r = b->refreshes[i];

		r->end = OV_END_LATER;
		r->paused_now = false;
		if (r->tokens.outcome == OV_OUT_OK)
			renewed[nrenewed++] = r;
		else
			store(r, b->now);
	}
	if (nrenewed > 0)
		store_tokens(renewed, nrenewed, b->now);
	ov_refresh_note_departure(b->leaving, b->nleaving);
}

static bool
apply(OvRefresh **refreshes, int n, OvJob **leaving, int nleaving)
{
	Batch		b = {.refreshes = refreshes, .n = n, .leaving = leaving, .nleaving = nleaving,
	.now = GetCurrentTimestamp()};

	if (n == 0)
		return false;
	if (ov_transact("store refreshed tokens", store_all, &b) == 0)
	{
		for (int i = 0; i < n; i++)
			finish(refreshes[i]);
		return true;
	}
	if (n == 1 && nleaving == 0)
	{
		refreshes[0]->job.failures++;
		return false;
	}
	/* one bad row must not hold up the others */
	for (int i = 0; i < n; i++)
		(void) apply(&refreshes[i], 1, NULL, 0);
	return false;
}

bool
ov_refresh_apply(OvJob **jobs, int n, OvJob **leaving, int nleaving)
{
	OvRefresh **ready = palloc(sizeof(OvRefresh *) * n);
	int			nready = 0;

	for (int i = 0; i < n; i++)
	{
		OvRefresh  *r = (OvRefresh *) jobs[i];

		if (send_again(r))
			continue;
		/* Sealing fails for want of memory only: then it waits for its turn. */
		if (r->tokens.outcome == OV_OUT_OK && !r->sealed && !seal(r))
			r->job.failures++;
		else
			ready[nready++] = r;
	}
	return apply(ready, nready, leaving, nleaving);
}
