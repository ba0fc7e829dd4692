/*
 * revocation.c
 *	  The outbox: telling providers that a grant has ended.
 *
 * Rows are inserted by the decision (oauth_revoke and the like), with the
 * connection's sealed records, and seen here once that is committed.  An
 * attempt is counted, and the next one's time set, before the request leaves;
 * sent twice, a revocation does no harm (RFC 7009 section 2.2).  The refresh
 * token goes first: most providers end the whole grant with it.  During an
 * overlap of client secrets, what the provider refuses with the new one goes
 * again with the one before.  Nothing is sent, and nothing counted, while the
 * connector is paused, while the host is silent, and while a new consent of the
 * same person is being stored.
 *
 * A provider that is down costs nothing but time: what it has given no verdict
 * on is tried for a week.  Other refusals are tried ten times.
 *
 * A connection is one grant, and a new consent another.  Where the rules say that
 * a revocation ends all of the person's grants, or where the provider has given
 * out the same token again, what was queued for the older one is not sent any
 * more: superseded.
 *
 * A settled row keeps what happened and loses its ciphertexts.  Then the
 * connection becomes revoked; if somebody holds its row, the revocation stays
 * queued, without tokens, until that can be written too.
 */
#include "worker/network.h"

#include "common/pg_prng.h"
#include "errors.h"
#include "guc.h"
#include "utils/memutils.h"

#define BATCH_MAX 50
#define MAX_ATTEMPTS 10			/* with a verdict that may yet change */
#define GIVE_UP_US (7 * USECS_PER_DAY)	/* without any */
#define RESCAN_MS 60000
#define LEASE_MS 60000			/* an attempt that we do not hear of again */
#define PAUSED_MS 60000			/* until we look again whether the connector works */
#define FINISH_MS 1000
#define EXCHANGE_MS 1000		/* until we look again whether a consent has been stored */

typedef struct Revocation
{
	OvJob		job;
	int64		id;
	unsigned char connection_id[16];
	const char *tenant,
			   *user_id,
			   *connector;
	const OvProvider *provider;
	OvHttpRequest req[2];
	OvHttpRequest again[2];		/* the same with the previous client secret */
	bool		has_again[2];
	bool		on_previous;
	OvPurpose	kind[2];		/* of token, by request */
	int			nreq;
	int			sent;			/* requests whose answer is here */
	int			attempts;
	TimestampTz requested_at;
	TimestampTz residual_until; /* the access token's own end */

	OvTokens	tokens;			/* of the last answer */
	bool		not_sent;		/* the host is paused */
	bool		confirmed;		/* one of the requests succeeded */
	bool		access_lives;	/* until its own end, for all that the provider says */

	/* as stored */
	const char *state;
	const char *outcome;
	bool		settled;
} Revocation;

typedef struct Round			/* some rows, in one transaction */
{
	TimestampTz now;
	const int64 *ids;
	int			n;
	bool		held;
	OvHome		home;
	OvFailure	failure;
	Revocation *jobs[BATCH_MAX];
	int			njobs;
	OvTrace		settled[BATCH_MAX];	/* without a request */
	int			nsettled;
} Round;

static int	under_way;			/* revocations that have been sent, or wait for their host */

static OvQuery due = {
	"SELECT revocation_id, next_attempt_at FROM oauth_vault.revocation WHERE state = 'queued'"
	" ORDER BY next_attempt_at LIMIT $1", "l"
};
static OvQuery load = {
	"SELECT r.connection_id, r.tenant, r.user_id, r.connector_id, r.key_id, r.token_generation, r.hosts_digest,"
	" r.metadata::text, r.access_token, r.refresh_token, r.attempts, r.outcome,"
	" coalesce(r.residual_until, (SELECT c.expires_at FROM oauth_vault.connection c WHERE c.connection_id = r.connection_id)),"
	" r.residual_until, r.requested_at"
	" FROM oauth_vault.revocation r WHERE r.revocation_id = $1 AND r.state = 'queued' FOR UPDATE OF r SKIP LOCKED", "l"
};
static OvQuery lease = {
	"UPDATE oauth_vault.revocation SET attempts = attempts + 1, next_attempt_at = $2,"
	" seen_at = coalesce(seen_at, clock_timestamp()) WHERE revocation_id = $1", "lz"
};
static OvQuery again = {
	"UPDATE oauth_vault.revocation SET next_attempt_at = $2, outcome = NULL, attempts = attempts - $3,"
	" seen_at = coalesce(seen_at, clock_timestamp()) WHERE revocation_id IN"
	" (SELECT revocation_id FROM oauth_vault.revocation WHERE revocation_id = $1 AND state = 'queued'"
	" FOR UPDATE SKIP LOCKED)", "lzi"
};
/* outcome of a queued row: "state reason", settled but for its connection */
static OvQuery settle = {
	"UPDATE oauth_vault.revocation SET state = CASE WHEN $2 THEN $3 ELSE 'queued' END,"
	" outcome = CASE WHEN $2 THEN $4 ELSE $3 || ' ' || $4 END,"
	" settled_at = CASE WHEN $2 THEN $5 END, next_attempt_at = $6, residual_until = $7,"
	" seen_at = coalesce(seen_at, clock_timestamp()),"
	" access_token = NULL, refresh_token = NULL WHERE revocation_id IN"
	" (SELECT revocation_id FROM oauth_vault.revocation WHERE revocation_id = $1 AND state = 'queued'"
	" FOR UPDATE SKIP LOCKED)", "lottzzz"
};
static OvQuery other_queued = {
	"SELECT 1 FROM oauth_vault.revocation WHERE connection_id = $1 AND state = 'queued' AND revocation_id <> $2", "ul"
};
static OvQuery end_connection = {
	"UPDATE oauth_vault.connection SET status = 'revoked', status_since = $2 WHERE connection_id = $1", "uz"
};

/* Not now.  uncounted: the attempt that was counted beforehand has not been made. */
static void
put_off(int64 id, TimestampTz until, bool uncounted)
{
	OvArgs		a = {0};

	ov_arg_int8(&a, id);
	ov_arg_time(&a, until);
	ov_arg(&a, Int32GetDatum(uncounted ? 1 : 0), false);
	(void) ov_run(&again, OV_WRITE, &a);
	ov_tick_at(OV_TICK_OUTBOX, until);
}

/* ---- settling ---- */

/* The connection is revoked once nothing of it is queued; false: its row is locked. */
static bool
finish_connection(const unsigned char connection_id[16], int64 id, TimestampTz now)
{
	OvArgs		a = {0};
	OvArgs		b = {0};
	OvRow		row;

	switch (ov_row_lock(connection_id, &row))
	{
		case OV_LOCK_GONE:
			return true;
		case OV_LOCK_THEIRS:
			return false;
		case OV_LOCK_OURS:
			break;
	}
	if (strcmp(row.status, "revoking") != 0)
		return true;
	ov_arg_uuid(&a, connection_id);
	ov_arg_int8(&a, id);
	if (ov_run(&other_queued, OV_READ, &a) > 0)
		return true;
	ov_arg_uuid(&b, connection_id);
	ov_arg_time(&b, now);
	(void) ov_run(&end_connection, OV_WRITE, &b);
	return true;
}

/* false: somebody else has settled it */
static bool
settle_row(int64 id, const unsigned char connection_id[16], const char *state, const char *outcome,
		   TimestampTz residual_until, TimestampTz now)
{
	OvArgs		a = {0};
	bool		finished = finish_connection(connection_id, id, now);
	TimestampTz next = TimestampTzPlusMilliseconds(now, FINISH_MS);

	ov_arg_int8(&a, id);
	ov_arg(&a, BoolGetDatum(finished), false);
	ov_arg_str(&a, state);
	ov_arg_str(&a, outcome);
	ov_arg_time(&a, now);
	ov_arg_time(&a, next);
	ov_arg_time(&a, residual_until);
	if (!finished)
		ov_tick_at(OV_TICK_OUTBOX, next);
	return ov_run(&settle, OV_WRITE, &a) > 0;
}

static char *
keep(MemoryContext context, const char *s)
{
	return s ? MemoryContextStrdup(context, s) : NULL;
}

static OvTrace
trace_of(const char *state, const char *outcome, const char *tenant, const char *user_id, const char *connector,
		 const unsigned char *connection_id, TimestampTz residual_until)
{
	return (OvTrace) {
		.event = "revocation_settled", .outcome = strcmp(state, "failed") == 0 ? "failed" : "ok",
		.tenant = tenant, .user_id = user_id, .connector = connector, .connection_id = connection_id,
		.reason = psprintf("%s: %s", state, outcome),
		.detail = residual_until != 0 ? ov_detail("residual_until", ov_time_text(residual_until), NULL) : NULL
	};
}

/* ---- reading an answer, as it arrives ---- */

static void
read_revocation(OvJob *job, const OvHttpResponse *resp)
{
	Revocation *r = (Revocation *) job;

	/* it waited for its host, which has fallen silent meanwhile */
	r->not_sent = resp->transport_error != NULL && strcmp(resp->transport_error, OV_HOST_PAUSED) == 0;
	ov_revoke_response(job->arena, r->provider, resp, &r->tokens);
	r->sent++;
}

/* ---- what is due ---- */

typedef struct Record
{
	unsigned char connection_id[16];
	unsigned char connector_id[16];
	unsigned char hosts_digest[32];
	char	   *tenant,
			   *user_id,
			   *metadata,
			   *outcome;
	int64		key_id,
				generation;
	const unsigned char *access,
			   *refresh;
	size_t		access_len,
				refresh_len;
	int			attempts;
	TimestampTz residual_until;
	TimestampTz stored_residual;
	TimestampTz requested_at;
} Record;

static bool
load_record(int64 id, Record *rec)
{
	Datum		arg = Int64GetDatum(id);
	const unsigned char *digest;
	size_t		len;

	if (ov_query(&load, OV_WRITE, &arg, NULL) == 0)
		return false;
	memset(rec, 0, sizeof(*rec));
	memcpy(rec->connection_id, ov_uuid(0, 1), 16);
	rec->tenant = ov_text(0, 2);
	rec->user_id = ov_text(0, 3);
	memcpy(rec->connector_id, ov_uuid(0, 4), 16);
	rec->key_id = ov_int8(0, 5);
	rec->generation = ov_int8(0, 6);
	digest = ov_bytea(0, 7, &len);
	if (len == 32)
		memcpy(rec->hosts_digest, digest, 32);
	rec->metadata = ov_text(0, 8);
	rec->access = ov_bytea(0, 9, &rec->access_len);
	rec->refresh = ov_bytea(0, 10, &rec->refresh_len);
	rec->attempts = (int) ov_int8(0, 11);
	rec->outcome = ov_text(0, 12);
	rec->residual_until = ov_time(0, 13);
	rec->stored_residual = ov_time(0, 14);
	rec->requested_at = ov_time(0, 15);
	return true;
}

static bool
add_request(const Round *s, Revocation *r, const Record *rec, const OvClient *client, const OvClient *previous,
			const OvUserKeys *keys, OvPurpose purpose, OvFailure *f)
{
	bool		refresh = purpose == OV_PURPOSE_REFRESH_TOKEN;
	OvArena    *arena = r->job.arena;
	OvAad		aad = {.tenant = rec->tenant, .user_id = rec->user_id, .purpose = purpose, .key_id = rec->key_id,
	.token_generation = rec->generation};
	const char *hint = refresh ? "refresh_token" : "access_token";
	const char *token;
	OvError		err = {0};
	OvCode		code;

	memcpy(aad.vault_id, s->home.vault_id, 16);
	memcpy(aad.connector_id, rec->connector_id, 16);
	memcpy(aad.connection_id, rec->connection_id, 16);
	memcpy(aad.hosts_digest, rec->hosts_digest, 32);
	if (!ov_open(arena, refresh ? keys->refresh : keys->access, &aad, refresh ? rec->refresh : rec->access,
				 refresh ? rec->refresh_len : rec->access_len, &token, f))
		return false;
	if (token == NULL)
		return true;
	ov_job_sends(&r->job, token);
	ov_job_sends(&r->job, client->client_secret);
	ov_job_sends(&r->job, previous->client_secret);
	code = ov_revoke_request(arena, r->provider, client, hint, token, &r->req[r->nreq], &err);
	if (code == OV_E_NOTFOUND)
		return true;
	if (code != OV_OK)
		return ov_refuse(f, "OV022", err.message, ov_detail("reason", err.message, "connector", r->connector, NULL),
						 "An administrator must correct the connector or its provider's rules.");
	r->kind[r->nreq] = purpose;
	r->has_again[r->nreq] = previous->client_secret != NULL &&
		ov_revoke_request(arena, r->provider, previous, hint, token, &r->again[r->nreq], &err) == OV_OK;
	r->nreq++;
	return true;
}

/* The requests for a row.  false: *f; none at all: unsupported. */
static bool
build(const Round *s, Revocation *r, const Record *rec, OvConnector *c, OvFailure *f)
{
	OvArena    *arena = r->job.arena;
	OvClient	client = {0};
	OvClient	previous = {0};
	OvUserKeys *keys = ov_arena_alloc(arena, sizeof(OvUserKeys));
	unsigned char digest[32];
	OvError		err = {0};

	if (ov_connector_provider(arena, c, rec->metadata, &r->provider, &err) != OV_OK)
		return ov_refuse(f, "OV022", err.message, ov_detail("reason", err.message, "connector", r->connector, NULL),
						 "An administrator must correct the connector or its provider's rules.");
	/* Tokens that others live by are not revoked: theirs would be. */
	if (!ov_provider_can_revoke(r->provider) || ov_shared_in_use(arena, c, rec->metadata, rec->connection_id))
		return true;
	if (!ov_hosts_check(arena, c, rec->metadata, r->provider, digest, f))
		return false;
	if (memcmp(digest, rec->hosts_digest, 32) != 0)
		return ov_refuse(f, "OV014", "the provider's hosts have changed: its tokens are not sent to others",
						 ov_detail("reason", "host", "connector", r->connector, NULL),
						 "Revoke the grant at the provider, or restore the hosts that it was made with.");
	return ov_user_keys(s->home.vault_id, rec->tenant, rec->user_id, rec->key_id, keys, f) &&
		ov_client(arena, s->home.vault_id, c, false, &client, f) &&
		ov_client(arena, s->home.vault_id, c, true, &previous, f) &&
		/* RFC 7009 section 2.1: revoking the refresh token should end the access tokens too */
		add_request(s, r, rec, &client, &previous, keys, OV_PURPOSE_REFRESH_TOKEN, f) &&
		add_request(s, r, rec, &client, &previous, keys, OV_PURPOSE_ACCESS_TOKEN, f);
}

static void
settle_now(Round *s, int64 id, const Record *rec, const OvConnector *c, const char *state, const char *outcome)
{
	unsigned char *connection_id = MemoryContextAlloc(ov_round, 16);

	(void) settle_row(id, rec->connection_id, state, outcome, rec->residual_until, s->now);
	memcpy(connection_id, rec->connection_id, 16);
	s->settled[s->nsettled] = trace_of(state, outcome, keep(ov_round, rec->tenant), keep(ov_round, rec->user_id),
									   c ? keep(ov_round, c->name) : NULL, connection_id, rec->residual_until);
	s->settled[s->nsettled].reason = keep(ov_round, s->settled[s->nsettled].reason);
	s->settled[s->nsettled].detail = keep(ov_round, s->settled[s->nsettled].detail);
	s->nsettled++;
}

/* Settled already, but for the connection, whose row was locked. */
static void
finish_settled(Round *s, int64 id, const Record *rec)
{
	char	   *space = strchr(rec->outcome, ' ');

	if (space != NULL)
		*space = '\0';
	(void) settle_row(id, rec->connection_id, rec->outcome, space ? space + 1 : "", rec->stored_residual, s->now);
}

static TimestampTz
next_attempt(int attempts, int64 retry_after, TimestampTz now)
{
	return ov_retry_at(OV_OUT_TRANSIENT, attempts * 2, retry_after, now);
}

/* After a host's pause one request goes first: the others need not come up with it. */
static int
spread_ms(void)
{
	return (int) pg_prng_uint64_range(&pg_global_prng_state, 100, 5000);
}

static void
start_row(Round *s, int64 id)
{
	Record		rec;
	OvConnector *c;
	Revocation *r;
	OvArgs		a = {0};
	OvFailure	f = {{0}};
	TimestampTz paused_until;

	if (!load_record(id, &rec))
		return;
	if (rec.outcome != NULL)
	{
		finish_settled(s, id, &rec);
		return;
	}
	c = ov_connector_by_id(rec.connector_id);
	if (c == NULL || (rec.access == NULL && rec.refresh == NULL))
	{
		settle_now(s, id, &rec, c, c ? "unsupported" : "failed", c ? "there was no token" : "the connector is gone");
		return;
	}
	ov_arg_int8(&a, id);
	/* whether it is superseded will be known in a moment */
	if (strcmp(c->status, "paused") == 0 || ov_flow_exchanging(rec.tenant, rec.user_id, rec.connector_id))
	{
		TimestampTz later = TimestampTzPlusMilliseconds(s->now, strcmp(c->status, "paused") == 0 ? PAUSED_MS : EXCHANGE_MS);

		put_off(id, later, false);
		return;
	}
	r = ov_job_new(OV_JOB_REVOKE, sizeof(Revocation), read_revocation);
	s->jobs[s->njobs++] = r;
	r->id = id;
	memcpy(r->connection_id, rec.connection_id, 16);
	r->tenant = keep(r->job.context, rec.tenant);
	r->user_id = keep(r->job.context, rec.user_id);
	r->connector = keep(r->job.context, c->name);
	r->attempts = rec.attempts + 1;
	r->residual_until = rec.residual_until;
	r->requested_at = rec.requested_at;
	if (!build(s, r, &rec, c, &f))
	{
		s->njobs--;
		ov_job_free(&r->job);
		/* sealed: nothing is wrong with the row, and no attempt was made */
		if (strcmp(f.sqlstate, "OV040") == 0)
		{
			put_off(id, TimestampTzPlusMilliseconds(s->now, 10000), false);
		}
		else if (rec.attempts + 1 >= MAX_ATTEMPTS)
			settle_now(s, id, &rec, c, "failed", f.message);
		else
		{
			ov_arg_time(&a, next_attempt(rec.attempts + 1, -1, s->now));
			(void) ov_run(&lease, OV_WRITE, &a);
		}
		return;
	}
	if (r->nreq == 0)
	{
		s->njobs--;
		ov_job_free(&r->job);
		settle_now(s, id, &rec, c, "unsupported", "the provider has no revocation endpoint");
		return;
	}
	(void) ov_host_reserve(&r->job, &r->req[0], &paused_until);
	if (paused_until != 0)
	{
		s->njobs--;
		ov_job_free(&r->job);
		put_off(id, TimestampTzPlusMilliseconds(paused_until, spread_ms()), false);
		return;
	}
	/* in front of a busy host, or one with a budget, it may wait for its turn */
	ov_arg_time(&a, TimestampTzPlusMilliseconds(s->now, (r->job.reserved ? 1 : 10) * LEASE_MS + 2 * (int64) r->nreq * 1000));
	(void) ov_run(&lease, OV_WRITE, &a);
}

static void
start_work(void *arg)
{
	Round	   *s = arg;

	if (!ov_home_or_refuse(&s->home, &s->failure) || !ov_engine_ready(&s->failure))
	{
		s->held = true;
		return;
	}
	for (int i = 0; i < s->n; i++)
		start_row(s, s->ids[i]);
}

static void
postpone_work(void *arg)
{
	put_off(*(int64 *) arg, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 10 * RESCAN_MS), false);
}

/* Sends what these rows ask for; false: nothing may be sent, or nothing can be read. */
static bool
start_rows(int64 *ids, int n, TimestampTz now)
{
	Round	   *s = palloc0(sizeof(Round));
	int			state;

	s->now = now;
	s->ids = ids;
	s->n = n;
	state = ov_transact("work off revocations", start_work, s);
	if (state == 0)
	{
		for (int i = 0; i < s->nsettled; i++)
			ov_trace(&s->settled[i]);
		for (int i = 0; i < s->njobs; i++)
		{
			under_way++;
			ov_job_send(&s->jobs[i]->job, &s->jobs[i]->req[0]);
		}
		return !s->held;
	}
	for (int i = 0; i < s->njobs; i++)
		ov_job_free(&s->jobs[i]->job);
	if (state == ERRCODE_LOCK_NOT_AVAILABLE)
		return false;
	/* One bad row must not hold up the others. */
	if (n == 1)
		return ov_transact("put off a revocation", postpone_work, ids) == 0;
	for (int i = 0; i < n; i++)
		if (!start_rows(&ids[i], 1, now))
			return false;
	return true;
}

typedef struct Due
{
	TimestampTz now;
	int			max;
	int64		ids[BATCH_MAX];
	int			n;
	TimestampTz next;			/* 0: none */
} Due;

static void
find_due(void *arg)
{
	Due		   *d = arg;
	Datum		max = Int64GetDatum(d->max + 1);
	uint64		n = ov_query(&due, OV_READ, &max, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		TimestampTz at = ov_time(i, 2);

		/* later than any back-off: the clock has been set back since */
		if ((at > d->now && at <= d->now + OV_BACK_OFF_MAX_US) || d->n == d->max)
		{
			d->next = Max(at, d->now);
			break;
		}
		d->ids[d->n++] = ov_int8(i, 1);
	}
}

void
ov_outbox_tick(TimestampTz now)
{
	/* however many grants are being revoked, refreshes have room */
	int			room = Max(ov_guc_max_concurrency / 2, 1) - under_way;
	Due			d = {.now = now, .max = Min(Min(BATCH_MAX, room), ov_jobs_room(true))};

	ov_tick_at(OV_TICK_OUTBOX, TimestampTzPlusMilliseconds(now, RESCAN_MS));
	if (room <= 0)
		return;					/* the next answer has us look again */
	if (d.max <= 0 || ov_transact("look for revocations", find_due, &d) != 0)
		ov_tick_at(OV_TICK_OUTBOX, TimestampTzPlusMilliseconds(now, FINISH_MS));
	else if (d.n > 0 && !start_rows(d.ids, d.n, now))
		ov_tick_at(OV_TICK_OUTBOX, TimestampTzPlusMilliseconds(now, 5 * FINISH_MS));
	else if (d.next != 0)
		ov_tick_at(OV_TICK_OUTBOX, d.next);
}

/* ---- storing answers ---- */

static void
store_one(Revocation *r, TimestampTz now)
{
	if (r->state != NULL)
		r->settled = settle_row(r->id, r->connection_id, r->state, r->outcome, r->access_lives ? r->residual_until : 0, now);
	else if (r->not_sent)
		put_off(r->id, TimestampTzPlusMilliseconds(now, spread_ms()), true);
	else
		put_off(r->id, next_attempt(r->attempts, r->tokens.retry_after, now), false);
}

static bool
give_up(const Revocation *r)
{
	return !r->not_sent && r->attempts >= MAX_ATTEMPTS &&
		(r->tokens.outcome != OV_OUT_TRANSIENT || GetCurrentTimestamp() - r->requested_at > GIVE_UP_US);
}

/* What the answers so far mean; state NULL: to be tried again. */
static void
judge(Revocation *r)
{
	bool		has_access = r->kind[r->nreq - 1] == OV_PURPOSE_ACCESS_TOKEN;

	r->state = r->outcome = NULL;
	switch (r->tokens.outcome)
	{
		case OV_OUT_OK:
		case OV_OUT_DEAD:		/* it was gone before */
			r->confirmed = true;
			break;
		case OV_OUT_UNSUPPORTED:
			/* RFC 7009 section 2.2.1: this kind of token cannot be revoked */
			break;
		case OV_OUT_TRANSIENT:
		case OV_OUT_MALFORMED:
		case OV_OUT_MISCONFIGURED:
		case OV_OUT_DENIED:
			r->access_lives = true;
			if (give_up(r))
			{
				r->state = "failed";
				r->outcome = r->tokens.error && r->tokens.error[0] ? r->tokens.error : r->tokens.reason;
			}
			return;
	}
	r->access_lives = !r->confirmed || (has_access && r->tokens.outcome == OV_OUT_UNSUPPORTED) ||
		(!has_access && ov_provider_revocation_ends(r->provider) == OV_ENDS_TOKEN);
	r->state = r->confirmed ? "confirmed" : "unsupported";
	r->outcome = !r->confirmed ? "the provider does not revoke this kind of token" :
		r->access_lives ? "the refresh token is revoked; the access token lives until it expires" :
		"revoked at the provider";
}

/* The client was refused: during an overlap of secrets the old one may still be good. */
static bool
send_again(Revocation *r)
{
	if (r->tokens.outcome != OV_OUT_MISCONFIGURED || r->on_previous || !r->has_again[r->sent - 1])
		return false;
	r->on_previous = true;
	r->sent--;
	r->job.failures = 0;
	ov_job_send(&r->job, &r->again[r->sent]);
	return true;
}

/* Judges an answer; true: the row can be written.  Else another request has left. */
static bool
is_ready(Revocation *r)
{
	if (send_again(r))
		return false;
	judge(r);
	/* The refresh token has been dealt with: now the access token. */
	if (r->state != NULL && strcmp(r->state, "failed") != 0 && r->sent < r->nreq)
	{
		r->job.failures = 0;
		ov_job_send(&r->job, r->on_previous ? &r->again[r->sent] : &r->req[r->sent]);
		return false;
	}
	return true;
}

typedef struct Batch
{
	Revocation **revocations;
	int			n;
} Batch;

static void
store_all(void *arg)
{
	Batch	   *b = arg;
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < b->n; i++)
		store_one(b->revocations[i], now);
}

static void
finish(Revocation *r)
{
	OvTrace		t;

	r->job.done = true;
	under_way--;
	ov_tick_at(OV_TICK_OUTBOX, GetCurrentTimestamp());
	/* an offboarding's deadline, or a second attempt after the lease, may have been first */
	if (r->state == NULL || !r->settled)
		return;
	t = trace_of(r->state, r->outcome, r->tenant, r->user_id, r->connector, r->connection_id,
				 r->access_lives ? r->residual_until : 0);
	ov_trace(&t);
}

static void
store(Revocation **revocations, int n)
{
	Batch		b = {.revocations = revocations, .n = n};

	if (n == 0)
		return;
	if (ov_transact("settle revocations", store_all, &b) == 0)
	{
		for (int i = 0; i < n; i++)
			finish(revocations[i]);
		return;
	}
	if (n == 1)
	{
		revocations[0]->job.failures++;
		return;
	}
	/* one bad row must not hold up the others */
	for (int i = 0; i < n; i++)
		store(&revocations[i], 1);
}

void
ov_revocation_apply(OvJob **jobs, int n)
{
	Revocation **ready = palloc(sizeof(Revocation *) * n);
	int			nready = 0;

	for (int i = 0; i < n; i++)
		if (is_ready((Revocation *) jobs[i]))
			ready[nready++] = (Revocation *) jobs[i];
	store(ready, nready);
}

/* ---- a new consent ---- */

static OvQuery older = {
	"SELECT r.revocation_id, r.connection_id, r.hosts_digest, r.key_id, r.token_generation, r.access_token, r.refresh_token,"
	/* of the same account at the provider, as far as anybody knows */
	" coalesce(c.provider_subject = $4, c.account = $5)"
	" FROM oauth_vault.revocation r JOIN oauth_vault.connection c USING (connection_id)"
	" WHERE r.state = 'queued' AND r.tenant = $1 AND r.user_id = $2 AND r.connector_id = $3 AND r.outcome IS NULL"
	" FOR UPDATE OF r SKIP LOCKED", "ttutt"
};

/* Is this record the token that has just been given out? */
static bool
is_same(OvArena *arena, const unsigned char key[OV_KEY_LEN], OvAad *aad, OvPurpose purpose,
		const unsigned char *record, size_t len, const char *token)
{
	const char *plain;
	OvFailure	f;

	aad->purpose = purpose;
	return token != NULL && ov_open(arena, key, aad, record, len, &plain, &f) && plain != NULL && strcmp(plain, token) == 0;
}

void
ov_revocations_supersede(const OvGrant *g, OvArena *arena, const OvProvider *p, const unsigned char vault_id[16],
						 const OvUserKeys *keys, const OvTokens *t, TimestampTz now)
{
	bool		all = ov_provider_can_revoke(p) && ov_provider_revocation_ends(p) == OV_ENDS_PERSON;
	OvArgs		a = {0};
	SPITupleTable *table;
	uint64		n;

	ov_arg_str(&a, g->tenant);
	ov_arg_str(&a, g->user_id);
	ov_arg_uuid(&a, g->connector_id);
	ov_arg_str(&a, g->subject);
	ov_arg_str(&a, g->account);
	n = ov_run(&older, OV_WRITE, &a);
	table = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		OvAad		aad = {.tenant = g->tenant, .user_id = g->user_id};
		const unsigned char *digest,
				   *access,
				   *refresh;
		size_t		digest_len,
					access_len,
					refresh_len;
		bool		same = false;

		SPI_tuptable = table;
		digest = ov_bytea(i, 3, &digest_len);
		access = ov_bytea(i, 6, &access_len);
		refresh = ov_bytea(i, 7, &refresh_len);
		aad.key_id = ov_int8(i, 4);
		aad.token_generation = ov_int8(i, 5);
		memcpy(aad.vault_id, vault_id, 16);
		memcpy(aad.connector_id, g->connector_id, 16);
		memcpy(aad.connection_id, ov_uuid(i, 2), 16);
		if (digest_len == 32)
			memcpy(aad.hosts_digest, digest, 32);
		/* storing asks nobody for other keys */
		if (aad.key_id == g->key_id)
			same = is_same(arena, keys->refresh, &aad, OV_PURPOSE_REFRESH_TOKEN, refresh, refresh_len, t->refresh_token) ||
				is_same(arena, keys->access, &aad, OV_PURPOSE_ACCESS_TOKEN, access, access_len, t->access_token);
		if (same || (all && ov_bool(i, 8)))
			(void) settle_row(ov_int8(i, 1), aad.connection_id, "superseded",
					   same ? "the provider has given out the same token again" :
					   "not sent: it would have ended the new grant too", 0, now);
	}
}
