/*
 * offboarding.c
 *	  After somebody has been offboarded: who is kept out, and the erasure.
 *
 * The decision (vault/offboard.c) has queued a revocation for every connection.
 * When none of them is queued any more, whatever their outcome, or when the
 * deadline has passed, what is left is erased: ciphertexts, pending consents,
 * and the keys of the person or of everybody of the tenant.  A key that a job in
 * flight will still seal under waits for that job: its tokens have to be revoked
 * too.  What is left to do is in the data; each step is a transaction, and a
 * successor goes on after a crash.  The row keeps what happened.
 *
 * A held copy erases nothing: it tells no provider anything either.
 *
 * Somebody who comes back gets a new key.  Keys below lifted_key_id are of the
 * time before, and are destroyed all the same.
 */
#include "worker/network.h"

#include "errors.h"
#include "person_lock.h"

#define BATCH 20				/* offboardings in one transaction */
#define STEP 500				/* rows of one kind in one transaction */
#define LOOK_MIN_MS 1000
#define LOOK_MAX_MS 60000
#define RESCAN_MS 60000

typedef struct Leaver
{
	int64		id;
	char	   *scope;
	char	   *tenant;
	char	   *user_id;
	bool		has_connector;
	unsigned char connector_id[16];
	char	   *connector;
	TimestampTz requested_at;
	TimestampTz deadline;
	bool		seen;
	int64		lifted_key_id;	/* 0: still out */
} Leaver;

typedef struct Look
{
	TimestampTz now;
	OvTrace		done[BATCH];
	int			ndone;
	bool		again;			/* there is more of a step than fits into one */
	bool		held;
	TimestampTz next;			/* 0: none */
} Look;

#define WHOSE(t) \
	"($1 IS NULL OR " t ".tenant = $1) AND ($2 IS NULL OR " t ".user_id = $2) AND ($3 IS NULL OR " t ".connector_id = $3)"

static OvQuery due = {
	"SELECT o.offboarding_id, o.scope, o.tenant, o.user_id, o.connector_id,"
	" (SELECT split_part(n.name, ':', 1) FROM oauth_vault.connector n WHERE n.connector_id = o.connector_id),"
	" o.requested_at, o.deadline, o.seen_at IS NOT NULL, coalesce(o.lifted_key_id, 0)"
	" FROM oauth_vault.offboarding o WHERE o.completed_at IS NULL AND o.next_look_at <= $1"
	" ORDER BY o.next_look_at LIMIT $2 FOR UPDATE OF o SKIP LOCKED", "zl"
};
static OvQuery next_due = {
	"SELECT min(next_look_at) FROM oauth_vault.offboarding WHERE completed_at IS NULL", ""
};
static OvQuery seen = {
	"UPDATE oauth_vault.offboarding SET seen_at = $2 WHERE offboarding_id = $1", "lz"
};
/* Is anything under way that belongs to the time before? */
static OvQuery unsettled = {
	"SELECT EXISTS (SELECT FROM oauth_vault.revocation r WHERE r.state = 'queued' AND " WHOSE("r") ")"
	" OR EXISTS (SELECT FROM oauth_vault.grant_inbox g JOIN oauth_vault.connection c USING (connection_id)"
	"  WHERE c.status IN ('revoking', 'revoked') AND " WHOSE("c") ")"
	" OR EXISTS (SELECT FROM oauth_vault.intent i JOIN oauth_vault.connection c USING (connection_id)"
	"  WHERE c.status IN ('revoking', 'revoked') AND " WHOSE("c") ")", "ttu"
};
static OvQuery give_up = {
	"WITH over AS (UPDATE oauth_vault.revocation SET state = 'failed', settled_at = $4, access_token = NULL, refresh_token = NULL,"
	"   outcome = 'no answer of the provider by the deadline of the offboarding' WHERE revocation_id IN"
	"   (SELECT r.revocation_id FROM oauth_vault.revocation r WHERE r.state = 'queued' AND " WHOSE("r")
	"    ORDER BY r.revocation_id LIMIT $5 FOR UPDATE SKIP LOCKED) RETURNING connection_id)"
	" UPDATE oauth_vault.connection SET status = 'revoked', status_since = $4 WHERE connection_id IN"
	"  (SELECT c.connection_id FROM oauth_vault.connection c WHERE c.connection_id IN (SELECT connection_id FROM over)"
	"   AND c.status = 'revoking' FOR UPDATE SKIP LOCKED)", "ttuzl"
};
static OvQuery drop_inbox = {
	"DELETE FROM oauth_vault.grant_inbox WHERE inbox_id IN (SELECT g.inbox_id FROM oauth_vault.grant_inbox g"
	" JOIN oauth_vault.connection c USING (connection_id) WHERE c.status IN ('revoking', 'revoked') AND " WHOSE("c") ")", "ttu"
};
static OvQuery drop_flows = {
	"DELETE FROM oauth_vault.flow WHERE flow_id IN (SELECT f.flow_id FROM oauth_vault.flow f WHERE f.created_at <= $4 AND "
	WHOSE("f") " LIMIT $5 FOR UPDATE SKIP LOCKED)", "ttuzl"
};
static OvQuery keys = {
	"SELECT key_id FROM oauth_vault.vault_key WHERE kind = 'user' AND tenant = $1 AND ($2 IS NULL OR user_id = $2)"
	" AND destroyed_at IS NULL AND ($3 = 0 OR key_id < $3) ORDER BY key_id LIMIT $4 FOR UPDATE SKIP LOCKED", "ttll"
};
static OvQuery keys_left = {
	"SELECT count(*) FROM (SELECT FROM oauth_vault.vault_key WHERE kind = 'user' AND tenant = $1"
	" AND ($2 IS NULL OR user_id = $2) AND destroyed_at IS NULL AND ($3 = 0 OR key_id < $3) LIMIT 1) k", "ttl"
};
static OvQuery destroy = {
	"UPDATE oauth_vault.vault_key SET wrapped = '', destroyed_at = $2 WHERE key_id = ANY ($1::bigint[])", "az"
};
static OvQuery note = {
	"UPDATE oauth_vault.offboarding SET keys_destroyed = keys_destroyed + $2, next_look_at = $3,"
	" completed_at = CASE WHEN $4 THEN $5 END, completed_by = CASE WHEN $4 THEN CASE WHEN EXISTS (SELECT"
	"  FROM oauth_vault.revocation r WHERE r.offboarding_id = $1 AND r.state = 'failed' AND r.settled_at >= deadline)"
	"  THEN 'deadline' ELSE 'outcomes' END END"
	" WHERE offboarding_id = $1 RETURNING completed_by, keys_destroyed, connections", "llzoz"
};

/* ---- who is kept out ---- */

bool
ov_offboarded(const char *tenant, const char *user_id, TimestampTz since, OvFailure *f)
{
	static OvQuery find = {
		"SELECT requested_at FROM oauth_vault.offboarding WHERE tenant = $1 AND (user_id = $2 OR user_id IS NULL)"
		" AND (lifted_at IS NULL OR lifted_at >= $3) ORDER BY requested_at LIMIT 1", "ttz"
	};
	OvArgs		a = {0};

	ov_arg_str(&a, tenant);
	ov_arg_str(&a, user_id);
	ov_arg_time(&a, since);
	if (ov_run(&find, OV_READ, &a) == 0)
		return false;
	(void) ov_refuse(f, "OV070", "the person has been offboarded",
					 ov_detail("reason", "offboarded", "since", ov_time_text(ov_time(0, 1)), NULL),
					 "Nothing can be used or connected; an administrator calls oauth_onboard when the person is back.");
	return true;
}

int64
ov_first_key(const char *tenant, const char *user_id)
{
	static OvQuery find = {
		"SELECT coalesce(max(lifted_key_id), 0) FROM oauth_vault.offboarding WHERE tenant = $1"
		" AND (user_id = $2 OR user_id IS NULL)", "tt"
	};
	OvArgs		a = {0};

	ov_arg_str(&a, tenant);
	ov_arg_str(&a, user_id);
	(void) ov_run(&find, OV_READ, &a);
	return ov_int8(0, 1);
}

void
ov_person_hold(const char *tenant, const char *user_id)
{
	if (!ov_person_share(tenant, user_id))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE), errmsg("somebody decides about the person at this moment")));
}

/* ---- erasing ---- */

static void
put_whose(OvArgs *a, const Leaver *l)
{
	ov_arg_str(a, l->tenant);
	ov_arg_str(a, l->user_id);
	ov_arg(a, l->has_connector ? ov_uuid_datum(l->connector_id) : OV_NULL, !l->has_connector);
}

static bool
is_unsettled(const Leaver *l)
{
	OvArgs		a = {0};

	put_whose(&a, l);
	(void) ov_run(&unsettled, OV_READ, &a);
	return ov_bool(0, 1);
}

/* The deadline: what providers have not said by now they need not say any more. */
static void
force(Look *s, const Leaver *l)
{
	OvArgs		a = {0};
	OvArgs		b = {0};

	put_whose(&a, l);
	put_whose(&b, l);
	ov_arg_time(&b, s->now);
	ov_arg_int8(&b, STEP);
	s->again |= ov_run(&give_up, OV_WRITE, &b) == STEP;
	(void) ov_run(&drop_inbox, OV_WRITE, &a);
}

static bool
drop_pending_flows(Look *s, const Leaver *l)
{
	OvArgs		a = {0};

	put_whose(&a, l);
	/* whoever is back may have begun anew */
	ov_arg_time(&a, l->lifted_key_id != 0 ? l->requested_at : s->now);
	ov_arg_int8(&a, STEP);
	return ov_run(&drop_flows, OV_WRITE, &a) < STEP;
}

/* Returns whether no key is left; *n are gone now. */
static bool
destroy_keys(Look *s, const Leaver *l, int *n)
{
	OvArgs		a = {0};
	OvArgs		b = {0};
	OvArgs		c = {0};
	const char **ids = palloc(sizeof(char *) * STEP);
	uint64		found;

	*n = 0;
	if (l->has_connector)
		return true;			/* its tokens were sealed under people's keys, which live on */
	ov_arg_str(&a, l->tenant);
	ov_arg_str(&a, l->user_id);
	ov_arg_int8(&a, l->lifted_key_id);
	b = a;
	ov_arg_int8(&b, STEP);
	found = ov_run(&keys, OV_WRITE, &b);
	s->again |= found == STEP;
	for (uint64 i = 0; i < found; i++)
	{
		if (ov_jobs_use_key(ov_int8(i, 1)))
			continue;
		ov_keys_drop(ov_int8(i, 1));
		ids[(*n)++] = psprintf(INT64_FORMAT, ov_int8(i, 1));
	}
	if (*n > 0)
	{
		ov_arg_texts(&c, ids, *n);
		ov_arg_time(&c, s->now);
		(void) ov_run(&destroy, OV_WRITE, &c);
		ov_subkeys_recall();
	}
	(void) ov_run(&keys_left, OV_READ, &a);
	return ov_int8(0, 1) == 0;
}

static TimestampTz
next_look(const Look *s, const Leaver *l)
{
	/* what was asked an hour ago need not be looked at each second */
	int64		ms = (s->now - l->requested_at) / 1000 / 10;
	TimestampTz at = TimestampTzPlusMilliseconds(s->now, Min(Max(ms, LOOK_MIN_MS), LOOK_MAX_MS));

	return l->deadline > s->now ? Min(at, l->deadline) : at;
}

static void
trace(Look *s, const Leaver *l, const char *by, int64 nkeys, int64 nconnections)
{
	MemoryContext old = MemoryContextSwitchTo(ov_round);

	s->done[s->ndone++] = (OvTrace) {
		.event = "offboarded", .outcome = "ok", .tenant = l->tenant ? pstrdup(l->tenant) : NULL,
		.user_id = l->user_id ? pstrdup(l->user_id) : NULL, .connector = l->connector ? pstrdup(l->connector) : NULL,
		.reason = strcmp(by, "deadline") == 0 ? "erased at the deadline" : "erased after the outcomes of all revocations",
		.detail = psprintf("{\"offboarding_id\":" INT64_FORMAT ",\"keys_destroyed\":" INT64_FORMAT ",\"connections\":" INT64_FORMAT "}",
						   l->id, nkeys, nconnections)
	};
	MemoryContextSwitchTo(old);
}

static void
look_at(Look *s, const Leaver *l)
{
	OvArgs		a = {0};
	OvArgs		b = {0};
	bool		complete = false;
	int			nkeys = 0;

	if (!l->seen)
	{
		ov_subkeys_recall();
		ov_arg_int8(&a, l->id);
		ov_arg_time(&a, s->now);
		(void) ov_run(&seen, OV_WRITE, &a);
	}
	if (l->deadline <= s->now)
		force(s, l);
	if (!is_unsettled(l) && !ov_flow_exchanging(l->tenant, l->user_id, l->has_connector ? l->connector_id : NULL))
		complete = drop_pending_flows(s, l) && destroy_keys(s, l, &nkeys);
	ov_arg_int8(&b, l->id);
	ov_arg_int8(&b, nkeys);
	ov_arg_time(&b, s->again ? s->now : next_look(s, l));
	ov_arg(&b, BoolGetDatum(complete), false);
	ov_arg_time(&b, s->now);
	(void) ov_run(&note, OV_WRITE, &b);
	if (complete)
		trace(s, l, ov_text(0, 1), ov_int8(0, 2), ov_int8(0, 3));
}

static void
look(void *arg)
{
	Look	   *s = arg;
	Leaver	   *list;
	OvArgs		a = {0};
	OvHome		home;
	OvFailure	f;
	uint64		n;

	s->ndone = 0;
	s->again = false;
	ov_arg_time(&a, s->now);
	ov_arg_int8(&a, BATCH);
	n = ov_run(&due, OV_WRITE, &a);
	list = palloc0(sizeof(Leaver) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		Leaver	   *l = &list[i];

		l->id = ov_int8(i, 1);
		l->scope = ov_text(i, 2);
		l->tenant = ov_text(i, 3);
		l->user_id = ov_text(i, 4);
		l->has_connector = !ov_null(i, 5);
		if (l->has_connector)
			memcpy(l->connector_id, ov_uuid(i, 5), 16);
		l->connector = ov_text(i, 6);
		l->requested_at = ov_time(i, 7);
		l->deadline = ov_time(i, 8);
		l->seen = ov_bool(i, 9);
		l->lifted_key_id = ov_int8(i, 10);
	}
	s->held = n > 0 && !ov_home_or_refuse(&home, &f);
	for (uint64 i = 0; i < n && !s->held; i++)
		look_at(s, &list[i]);
	(void) ov_run(&next_due, OV_READ, &(OvArgs) {0});
	s->next = ov_time(0, 1);
}

void
ov_offboarding_tick(TimestampTz now)
{
	Look		s = {.now = now};

	ov_tick_at(OV_TICK_OFFBOARD, TimestampTzPlusMilliseconds(now, RESCAN_MS));
	if (ov_transact("work off offboardings", look, &s) != 0)
	{
		ov_tick_at(OV_TICK_OFFBOARD, TimestampTzPlusMilliseconds(now, LOOK_MIN_MS));
		return;
	}
	for (int i = 0; i < s.ndone; i++)
		ov_trace(&s.done[i]);
	if (s.next != 0 && !s.held)
		ov_tick_at(OV_TICK_OFFBOARD, s.again ? now : Max(s.next, TimestampTzPlusMilliseconds(now, 100)));
}
