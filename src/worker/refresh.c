/*
 * refresh.c
 *	  Claiming refreshes: what callers ask for, and what refresh_due.c finds.
 *
 * Single flight: a connection is under way (refresh_flight.c) from its claim until
 * its answer is stored; whoever asks meanwhile joins.  The claim is also a row,
 * intent, with both counters, committed before the request leaves; tries counts
 * how often it has.  One transaction claims a whole batch; if it fails, each is
 * tried alone.
 *
 * An intent found without a job is in doubt: a predecessor's, or of a request
 * whose answer was lost.  The same refresh token is sent once more where the
 * provider's rules allow that; otherwise the person has to consent again, for
 * the reason that the outcome is unknown.
 *
 * Connection rows are not locked here: an answer whose row somebody holds goes
 * to grant_inbox, and the next refresh starts by applying that.
 */
#include "worker/refresh.h"

#include <openssl/crypto.h>

#include "errors.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#define POSTPONE_MS (5 * 60 * 1000)
#define FORCED_EVERY_US (60 * USECS_PER_SEC)
#define PAUSED_SPREAD_US (5 * USECS_PER_SEC)
#define DOUBT_US (2 * USECS_PER_SEC)	/* before a refresh token is sent once more */

typedef struct Round
{
	OvWant	  **wants;
	int			n;
	TimestampTz now;
	OvHome		home;
	bool		may_send;
	OvFailure	why_not;
	OvLoadedRow *loaded;		/* what was read for all of them together */
	int			nloaded;
	OvConnector *connectors[32];
	unsigned char digests[32][32];	/* of the connectors */
	int			nconnectors;
} Round;

static OvWant *requests[256];
static int	nrequests;

static OvQuery read_intent = {
	"SELECT token_generation, decision_epoch, tries, started_at FROM oauth_vault.intent WHERE connection_id = $1", "u"
};
static OvQuery insert_intents = {
	"INSERT INTO oauth_vault.intent (connection_id, token_generation, decision_epoch, started_at, tries)"
	" SELECT i.id, i.generation, i.epoch, $5, i.tries::integer"
	" FROM unnest($1, $2, $3, $4) i (id, generation, epoch, tries)", "ULLLz"
};
static OvQuery retry_intent = {
	"UPDATE oauth_vault.intent SET in_doubt = true, tries = tries + 1, started_at = $2 WHERE connection_id IN"
	" (SELECT connection_id FROM oauth_vault.intent WHERE connection_id = $1 FOR UPDATE SKIP LOCKED)", "uz"
};
static OvQuery delete_intent = {
	"DELETE FROM oauth_vault.intent WHERE connection_id IN"
	" (SELECT connection_id FROM oauth_vault.intent WHERE connection_id = $1 FOR UPDATE SKIP LOCKED)", "u"
};
static OvQuery postpone = {
	"UPDATE oauth_vault.connection SET refresh_at = $2 WHERE connection_id IN (SELECT connection_id"
	" FROM oauth_vault.connection WHERE connection_id = $1 AND status = 'active' AND refresh_at IS NOT NULL"
	" FOR UPDATE SKIP LOCKED)", "uz"
};

/* ---- judging one want, in the round's transaction ---- */

static char *
keep_string(const char *s)
{
	return s ? MemoryContextStrdup(ov_round, s) : NULL;
}

static bool
is_person(const OvCaller *c, const char *tenant, const char *user_id)
{
	return c->user_id != NULL && strcmp(c->user_id, user_id) == 0 &&
		strcmp(c->tenant ? c->tenant : "", tenant) == 0;
}

static OvConnector *
connector_of(Round *r, const unsigned char id[16])
{
	OvConnector *c;

	for (int i = 0; i < r->nconnectors; i++)
		if (memcmp(r->connectors[i]->id, id, 16) == 0)
			return r->connectors[i];
	c = ov_connector_by_id(id);
	if (c != NULL && r->nconnectors < lengthof(r->connectors))
	{
		ov_connector_digest(c, r->digests[r->nconnectors]);
		r->connectors[r->nconnectors++] = c;
	}
	return c;
}

static const unsigned char *
connector_digest(const Round *r, const OvConnector *c)
{
	unsigned char *digest;

	for (int i = 0; i < r->nconnectors; i++)
		if (r->connectors[i] == c)
			return r->digests[i];
	digest = palloc(32);
	ov_connector_digest(c, digest);
	return digest;
}

static void
refuse(OvWant *w)
{
	w->verdict = OV_REFUSED;
}

static void
answer(OvWant *w, const char *result, int64 generation)
{
	w->verdict = OV_ANSWERED;
	w->result = result;
	w->new_generation = generation;
}

/* The grant is dead, and no request is needed to know it. */
static void
end(Round *r, OvWant *w, const OvRefreshRow *row, const OvConnector *c, const char *reason)
{
	switch (ov_grant_end(w->id, row->generation, row->epoch, reason, NULL, r->now))
	{
		case OV_STORED_INSTALLED:
			break;
		case OV_STORED_STALE:
			answer(w, "superseded", row->generation + 1);
			return;
		case OV_STORED_REVOKED:
			(void) ov_refuse_gone(&w->failure);
			refuse(w);
			return;
		case OV_STORED_LOCKED:
			(void) ov_refuse_locked(&w->failure);
			refuse(w);
			return;
	}
	(void) ov_refuse_dead(&w->failure, c ? c->name : NULL, reason, r->now, NULL);
	w->verdict = OV_ENDED;
	w->result = "reauth_required";
	w->new_generation = row->generation;
	w->trace = (OvTrace) {
		.event = "reauth_required", .outcome = "failed", .caller = w->caller,
		.tenant = keep_string(row->tenant), .user_id = keep_string(row->user_id),
		.connector = c ? keep_string(c->name) : NULL, .connection_id = w->id,
		.account = keep_string(row->account), .reason = keep_string(reason)
	};
}

static void
copy_scopes(OvRefresh *job, const OvRefreshRow *row)
{
	job->scopes = MemoryContextAlloc(job->job.context, sizeof(char *) * (row->nscopes + 1));
	job->nscopes = row->nscopes;
	for (int i = 0; i < row->nscopes; i++)
		job->scopes[i] = MemoryContextStrdup(job->job.context, row->scopes[i]);
}

static void
describe(OvRefresh *job, const OvWant *w, const OvRefreshRow *row, const OvConnector *c)
{
	MemoryContext context = job->job.context;
	OvGrant    *g = &job->g;

	memcpy(g->connection_id, w->id, 16);
	memcpy(g->connector_id, row->connector_id, 16);
	memcpy(g->hosts_digest, row->hosts_digest, 32);
	g->connector = MemoryContextStrdup(context, c->name);
	g->policy = MemoryContextStrdup(context, c->policy);
	g->tenant = MemoryContextStrdup(context, row->tenant);
	g->user_id = MemoryContextStrdup(context, row->user_id);
	g->account = MemoryContextStrdup(context, row->account);
	g->metadata = MemoryContextStrdup(context, row->metadata);
	job->subject = row->subject ? MemoryContextStrdup(context, row->subject) : NULL;
	g->key_id = job->job.key_id = row->key_id;
	g->generation = row->generation;
	g->epoch = row->epoch;
	g->forced = w->rejected;
	g->used = w->has_ticket;
	copy_scopes(job, row);
	job->secret_generation = c->secret_generation;
	job->caller = ov_caller_copy(w->caller, context);
}

static OvAad
aad_of(const Round *r, const OvWant *w, const OvRefreshRow *row, OvPurpose purpose)
{
	OvAad		aad = {.tenant = row->tenant, .user_id = row->user_id, .purpose = purpose,
	.key_id = row->key_id, .token_generation = row->generation};

	memcpy(aad.vault_id, r->home.vault_id, 16);
	memcpy(aad.connector_id, row->connector_id, 16);
	memcpy(aad.connection_id, w->id, 16);
	memcpy(aad.hosts_digest, row->hosts_digest, 32);
	return aad;
}

/* Opens what the request needs, and builds it.  false: *f; or *dead says why there is nothing to send. */
static bool
build(Round *r, const OvWant *w, const OvRefreshRow *row, const OvConnector *c, OvRefresh *job, const char **dead, OvFailure *f)
{
	OvArena    *arena = job->job.arena;
	OvRules    *rules;
	OvAad		aad;
	OvError		err = {0};
	OvCode		code;

	*dead = NULL;
	if (!ov_rules_use(&job->rules, r->home.vault_id, c, connector_digest(r, c), row->metadata, f))
		return false;
	rules = job->rules;
	/* A grant's hosts are those it was made with. */
	if (memcmp(rules->hosts_digest, row->hosts_digest, 32) != 0)
	{
		*dead = "hosts_changed";
		return false;
	}
	if (!ov_provider_can_refresh(rules->provider))
	{
		*dead = "expired_no_refresh_token";
		return false;
	}
	job->keys = ov_arena_alloc(arena, sizeof(OvUserKeys));
	memcpy(job->vault_id, r->home.vault_id, 16);
	if (!ov_user_keys(r->home.vault_id, row->tenant, row->user_id, row->key_id, job->keys, f))
		return false;
	aad = aad_of(r, w, row, OV_PURPOSE_REFRESH_TOKEN);
	if (!ov_open(arena, job->keys->refresh, &aad, row->refresh, row->refresh_len, &job->refresh_token, f))
		return false;
	aad = aad_of(r, w, row, OV_PURPOSE_ACCESS_TOKEN);
	if (!ov_open(arena, job->keys->access, &aad, row->access, row->access_len, &job->access_token, f))
		return false;
	if (job->access_token != NULL)
	{
		ov_token_fingerprint(job->keys->access, job->access_token, strlen(job->access_token), job->g.fingerprint);
		job->g.has_fingerprint = true;
	}
	ov_shared_claim(job, c, row->issued_at);
	if (!ov_rules_client(rules, r->home.vault_id, c, f))
		return false;
	ov_job_sends(&job->job, job->refresh_token);
	ov_job_sends(&job->job, job->access_token);
	ov_job_sends(&job->job, rules->client.client_secret);
	ov_job_sends(&job->job, rules->previous.client_secret);
	code = ov_refresh_request(arena, rules->provider, &rules->client, job->refresh_token, job->access_token, &job->req, &err);
	if (code == OV_OK && !ov_arena_failed(arena))
		return true;
	if (code == OV_E_NOTFOUND)
	{
		*dead = "expired_no_refresh_token";
		return false;
	}
	return ov_refuse(f, code == OV_OK || code == OV_E_NOMEM ? "OV020" : "OV022",
					 "the request to the provider could not be built",
					 ov_detail("reason", err.message[0] ? err.message : "out of memory", "connector", c->name, NULL),
					 "An administrator must correct the connector or its provider's rules.");
}

static void
release(OvJob *job)
{
	ov_rules_release(((OvRefresh *) job)->rules);
}

/* A job that will not be sent after all */
static void
drop(OvWant *w)
{
	if (w->job != NULL && w->verdict != OV_JOINED)
	{
		ov_refresh_forget(w->job);
		ov_job_free(&w->job->job);
	}
	w->job = NULL;
}

/* A token that the provider does not exchange yet.  One that an API has refused is tried all the same. */
static bool
too_young(const Round *r, OvWant *w, const OvRefreshRow *row, const OvRefresh *job)
{
	int64		min_age = ov_provider_min_age(job->rules->provider);
	TimestampTz ready = row->issued_at + min_age * USECS_PER_SEC;

	if (min_age == 0 || row->issued_at == 0 || ready <= r->now || w->rejected)
		return false;
	drop(w);
	w->retry_at = ready;
	(void) ov_refuse_later(&w->failure, "the token is too young to be exchanged for another", row->last_error, ready);
	refuse(w);
	return true;
}

/* Sends nothing yet: the claim must be committed first. */
static void
prepare(Round *r, OvWant *w, const OvRefreshRow *row, int tries)
{
	OvConnector *c = connector_of(r, row->connector_id);
	OvRefresh  *job;
	OvRefresh  *other;
	const char *dead;
	TimestampTz paused_until;
	OvArgs		a = {0};

	if (c == NULL || strcmp(c->status, "active") != 0)
	{
		(void) ov_refuse_paused(&w->failure, c ? c->name : "?", c ? c->status_reason : "dropped");
		refuse(w);
		return;
	}
	if (!r->may_send)
	{
		w->failure = r->why_not;
		refuse(w);
		return;
	}
	w->job = job = ov_job_new(OV_JOB_REFRESH, sizeof(OvRefresh), ov_refresh_read);
	describe(job, w, row, c);
	job->job.release = release;
	job->in_doubt = tries > 0;
	job->tries = tries + 1;
	if (!build(r, w, row, c, job, &dead, &w->failure))
	{
		drop(w);
		if (dead != NULL)
			end(r, w, row, c, w->rejected && strcmp(dead, "expired_no_refresh_token") == 0 ?
				"rejected_by_provider" : dead);
		else
			refuse(w);
		return;
	}
	if ((other = ov_shared_running(job)) != NULL)
	{
		drop(w);
		w->job = other;
		w->own_generation = row->generation;
		w->verdict = OV_JOINED;
		return;
	}
	if (too_young(r, w, row, job))
		return;
	if (tries > 0 && (tries >= OV_MAX_TRIES || !ov_provider_retry_in_doubt(job->rules->provider)))
	{
		drop(w);
		end(r, w, row, c, "refresh_outcome_unknown");
		if (w->verdict == OV_ENDED)
		{
			ov_arg_uuid(&a, w->id);
			(void) ov_run(&delete_intent, OV_WRITE, &a);
		}
		return;
	}
	job->job.urgent = w->has_ticket;
	job->job.probe = w->force;
	w->host = ov_host_reserve(&job->job, &job->req, &paused_until);
	if (paused_until != 0)
	{
		drop(w);
		w->retry_at = paused_until + ov_spread(w->id, PAUSED_SPREAD_US);	/* not all at once */
		(void) ov_refuse_later(&w->failure, OV_HOST_PAUSED, row->last_error, paused_until);
		refuse(w);
		return;
	}
	/* found again by the round's other wants, and dropped if it is rolled back */
	w->verdict = OV_STARTED;
	ov_refresh_remember(job);
	ov_arg_uuid(&a, w->id);
	if (tries > 0)
	{
		ov_arg_time(&a, r->now);
		if (ov_run(&retry_intent, OV_WRITE, &a) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE), errmsg("an intent is locked by another transaction")));
		return;
	}
	w->unclaimed = true;		/* insert_claims() does that for all */
}

/*
 * The claims of a round.  What waits for room at its host has not been sent:
 * tries is 0.
 */
static void
insert_claims(Round *r)
{
	Datum	   *columns[4];
	OvArgs		a = {0};
	int			n = 0;

	for (int i = 0; i < 4; i++)
		columns[i] = palloc(sizeof(Datum) * r->n);
	for (int i = 0; i < r->n; i++)
	{
		OvWant	   *w = r->wants[i];

		if (!w->unclaimed || w->verdict != OV_STARTED)
			continue;
		columns[0][n] = ov_uuid_datum(w->id);
		columns[1][n] = Int64GetDatum(w->job->g.generation);
		columns[2][n] = Int64GetDatum(w->job->g.epoch);
		columns[3][n++] = Int64GetDatum(w->job->job.reserved ? 1 : 0);
	}
	if (n == 0)
		return;
	for (int i = 0; i < 4; i++)
		ov_arg_array(&a, i == 0 ? 'u' : 'l', columns[i], NULL, n);
	ov_arg_time(&a, r->now);
	(void) ov_run(&insert_intents, OV_WRITE, &a);
}

/* An open intent of this connection, without a job: how often it was tried, and
 * when last; 0: there is none. */
static int
open_intent(const OvWant *w, const OvRefreshRow *row, TimestampTz *sent_at)
{
	Datum		id = ov_uuid_datum(w->id);

	if (ov_query(&read_intent, OV_READ, &id, NULL) == 0)
		return 0;
	if (row != NULL && ov_int8(0, 1) == row->generation && ov_int8(0, 2) == row->epoch &&
		strcmp(row->status, "active") == 0 && ov_int8(0, 3) > 0)
	{
		*sent_at = ov_time(0, 4);
		return (int) ov_int8(0, 3);
	}
	/* Never sent, or the row has moved on: whatever came of it matters no more. */
	(void) ov_query(&delete_intent, OV_WRITE, &id, NULL);
	return 0;
}

static bool
is_alive(const OvRefreshRow *row, TimestampTz now)
{
	return row->issued_at <= now + OV_FUTURE_US && (row->expires_at == 0 || row->expires_at > now);
}

/* What the row's status says; false: no refresh. */
static bool
check_status(OvWant *w, const OvRefreshRow *row)
{
	if (strcmp(row->status, "active") == 0)
		return true;
	if (strcmp(row->status, "reauth_required") == 0)
	{
		if (w->rejected)
			answer(w, "reauth_required", row->generation);
		else
		{
			(void) ov_refuse_dead(&w->failure, NULL, row->reason, row->since, NULL);
			refuse(w);
		}
		return false;
	}
	if (strcmp(row->status, "held") == 0)
		(void) ov_refuse(&w->failure, "OV060", "the connection is held", "{\"reason\":\"held\"}",
						 "An administrator calls oauth_claim() if this is the only copy in use.");
	else
		(void) ov_refuse_gone(&w->failure);
	refuse(w);
	return false;
}

/*
 * An API has refused the access token of this generation.  One forced refresh
 * is the benefit of the doubt; a token that came of one has had it.
 */
static bool
check_rejection(Round *r, OvWant *w, const OvRefreshRow *row)
{
	if (row->generation != w->generation)
	{
		answer(w, "superseded", row->generation);
		return false;
	}
	if ((w->error != NULL && strcmp(w->error, "invalid_grant") == 0) ||
		(row->forced_at != 0 && row->forced_at == row->issued_at))
	{
		end(r, w, row, connector_of(r, row->connector_id), "rejected_by_provider");
		return false;
	}
	if (row->forced_at > r->now - FORCED_EVERY_US && row->forced_at <= r->now)
	{
		answer(w, "rate_limited", row->generation);
		return false;
	}
	return true;
}

static void
consider(Round *r, OvWant *w)
{
	OvRefresh  *job = ov_refresh_running(w->id);
	OvRefreshRow			row;
	bool		ready;			/* nothing in the inbox, and no intent */
	int			tries;
	TimestampTz sent_at = 0;

	if (job != NULL)
	{
		if (w->caller != NULL && !is_person(w->caller, job->g.tenant, job->g.user_id))
		{
			(void) ov_refuse_gone(&w->failure);
			refuse(w);
			return;
		}
		w->job = job;
		w->verdict = OV_JOINED;
		return;
	}
	ready = ov_loaded_take(r->loaded, r->nloaded, w->id, &row);
	if (!ready && !ov_inbox_apply(w->id, r->now))
	{
		(void) ov_refuse_locked(&w->failure);
		refuse(w);
		return;
	}
	if ((!ready && !ov_refresh_load(w->id, &row)) || (w->caller != NULL && !is_person(w->caller, row.tenant, row.user_id)))
	{
		if (w->recover)
			(void) open_intent(w, NULL, &sent_at);
		(void) ov_refuse_gone(&w->failure);
		refuse(w);
		return;
	}
	tries = ready ? 0 : open_intent(w, &row, &sent_at);
	if (!check_status(w, &row))
		return;
	if (tries == 0)
	{
		if (w->recover)
			return;
		if (w->rejected && !check_rejection(r, w, &row))
			return;
		if (!w->rejected && !w->force && w->has_ticket && row.generation > w->generation && is_alive(&row, r->now))
		{
			answer(w, NULL, row.generation);
			return;
		}
		/* not any more: what waited in the inbox was that refresh, say */
		if (w->due && row.refresh_at > r->now)
			return;
	}
	/* The provider has just failed us: not before it is time again. */
	if (w->has_ticket && !w->force && row.attempts > 0 && row.refresh_at > r->now &&
		row.refresh_at <= r->now + OV_BACK_OFF_MAX_US)
	{
		(void) ov_refuse_later(&w->failure, "waiting for the next attempt", row.last_error, row.refresh_at);
		refuse(w);
		return;
	}
	/*
	 * The provider may still be at the request of a process that has ended: if
	 * ours were first, that one would look like a stolen token.
	 */
	if (tries > 0 && sent_at > r->now - DOUBT_US && sent_at <= r->now)
	{
		w->retry_at = sent_at + DOUBT_US;
		(void) ov_refuse_later(&w->failure, "the outcome of the last refresh is not known yet", row.last_error, w->retry_at);
		refuse(w);
		return;
	}
	prepare(r, w, &row, tries);
}

/* What all of them need, in one statement and one exchange with the key worker */
static void
read_ahead(Round *r)
{
	const unsigned char **ids = palloc(sizeof(unsigned char *) * r->n);
	OvKeyOwner *owners;

	for (int i = 0; i < r->n; i++)
		ids[i] = r->wants[i]->id;
	r->loaded = ov_refresh_load_many(ids, r->n, &r->nloaded);
	owners = palloc(sizeof(OvKeyOwner) * r->nloaded);
	for (int i = 0; i < r->nloaded; i++)
	{
		const OvRefreshRow *row = &r->loaded[i].row;

		owners[i] = (OvKeyOwner) {row->tenant, row->user_id, row->key_id};
	}
	ov_user_keys_prefetch(r->home.vault_id, owners, r->nloaded);
}

static void
claim_work(void *arg)
{
	Round	   *r = arg;

	r->may_send = ov_home_or_refuse(&r->home, &r->why_not) && ov_engine_ready(&r->why_not);
	r->nloaded = 0;
	if (r->may_send && r->n > 1)
		read_ahead(r);
	for (int i = 0; i < r->n; i++)
	{
		OvWant	   *w = r->wants[i];

		consider(r, w);
		/* A due row that cannot be claimed must not come up in each scan. */
		if (w->due && w->verdict == OV_REFUSED && strcmp(w->failure.sqlstate, "OV040") != 0 &&
			strcmp(w->failure.sqlstate, "OV021") != 0 && r->may_send)
		{
			OvArgs		a = {0};

			ov_arg_uuid(&a, w->id);
			ov_arg_time(&a, w->retry_at ? w->retry_at : TimestampTzPlusMilliseconds(r->now, POSTPONE_MS));
			(void) ov_run(&postpone, OV_WRITE, &a);
		}
	}
	insert_claims(r);
}

/* ---- a round ---- */

static void
conclude(OvWant *w)
{
	switch (w->verdict)
	{
		case OV_UNDECIDED:
			break;
		case OV_STARTED:
			ov_refresh_attach(w);
			ov_job_send(&w->job->job, &w->job->req);
			break;
		case OV_JOINED:
			ov_refresh_attach(w);
			break;
		case OV_ANSWERED:
			if (w->has_ticket)
				ov_answer_refreshed(&w->ticket, w->rejected, w->result, w->new_generation);
			break;
		case OV_ENDED:
			ov_trace(&w->trace);
			if (w->has_ticket && w->rejected)
				ov_answer_refreshed(&w->ticket, true, w->result, w->new_generation);
			else if (w->has_ticket)
				ov_answer_failure(&w->ticket, &w->failure);
			break;
		case OV_REFUSED:
			if (w->has_ticket)
				ov_answer_failure(&w->ticket, &w->failure);
			break;
	}
}

/* Claims and sends; every want of it has its verdict afterwards. */
void
ov_refresh_claim(OvWant **wants, int n)
{
	Round		r = {.wants = wants, .n = n, .now = GetCurrentTimestamp()};
	int			state;

	if (n == 0)
		return;
	state = ov_transact("claim refreshes", claim_work, &r);
	if (state == 0)
	{
		for (int i = 0; i < n; i++)
			conclude(wants[i]);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		drop(wants[i]);
		wants[i]->verdict = OV_UNDECIDED;
	}
	if (n > 1 && state != ERRCODE_LOCK_NOT_AVAILABLE)
	{
		for (int i = 0; i < n; i++)
			ov_refresh_claim(&wants[i], 1);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		ov_refuse_database(&wants[i]->failure, state);
		refuse(wants[i]);
		conclude(wants[i]);
	}
}

/* ---- what callers ask for ---- */

void
ov_refresh_request_add(const OvTicket *ticket, const OvMsg *m)
{
	OvWant	   *w = MemoryContextAllocZero(ov_round, sizeof(OvWant));
	const void *data;
	size_t		len;

	if (!ov_msg_get(m, OV_TAG_CONNECTION_ID, &data, &len) || len != 16)
	{
		ov_slot_answer_error(ticket, "XX000", "malformed request to the network worker", NULL, NULL);
		return;
	}
	memcpy(w->id, data, 16);
	w->has_ticket = true;
	w->ticket = *ticket;
	w->rejected = ticket->op == OV_OP_REJECTED;
	w->generation = ov_msg_get_i64(m, OV_TAG_GENERATION, 0);
	w->force = ov_msg_get_i64(m, OV_TAG_FORCE, 0) != 0;
	w->caller = ov_caller_read(m, ov_round);
	if (ov_msg_get(m, OV_TAG_ERROR, &data, &len))
	{
		w->error = MemoryContextAllocZero(ov_round, len + 1);
		memcpy(w->error, data, len);
	}
	requests[nrequests++] = w;
	if (nrequests == lengthof(requests))
		ov_refresh_requests_run();
}

void
ov_refresh_requests_run(void)
{
	int			n = nrequests;

	nrequests = 0;
	ov_refresh_claim(requests, n);
}
