/*
 * refresh_schedule.c
 *	  When to renew a token, and when to try again.  Pure arithmetic.
 */
#include "worker/network.h"

#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "guc.h"

#define LEAD_DIVISOR 3			/* lead: at most this part of the token's life */
#define KEEP_ALIVE_DIVISOR 5	/* the same for a refresh token that dies of idleness */
#define TELLING_US (10 * USECS_PER_SEC)	/* from shorter intervals nothing can be told: lifetimes are in seconds */
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS (15 * 60 * 1000)
#define RETRY_SLOW_MS (60 * 1000)
#define RETRY_SLOW_MAX_MS (60 * 60 * 1000)
#define RETRY_AFTER_MAX_S 3600	/* a provider's Retry-After is honoured up to here */

/* 0 to 1, always the same for a connection: spreads what was issued together */
static double
jitter_of(const unsigned char id[16])
{
	return hash_bytes(id, 16) / 4294967296.0;
}

static bool
is_known(TimestampTz t)
{
	return t != 0 && t != DT_NOEND;
}

int64
ov_spread(const unsigned char connection_id[16], int64 us)
{
	return (int64) (jitter_of(connection_id) * us);
}

bool
ov_refresh_fixed(const OvRow *before, TimestampTz expires_at, TimestampTz now)
{
	int64		idle = now - before->issued_at;

	if (!is_known(expires_at) || !is_known(before->refresh_expires_at) || idle < TELLING_US)
		return before->refresh_fixed;
	return expires_at - before->refresh_expires_at < idle / 2;
}

/*
 * Before a refresh token dies of idleness.  One with a fixed life is not kept
 * by more and more use: its person is warned instead (oauth_reauth_prompts).
 */
static TimestampTz
keep_alive_at(const OvDue *d)
{
	int64		life = Max(d->refresh_expires_at - d->issued_at, 0);
	int64		lead = life / KEEP_ALIVE_DIVISOR;

	if (!is_known(d->refresh_expires_at) || d->refresh_fixed)
		return 0;
	return d->refresh_expires_at - lead + (int64) (jitter_of(d->connection_id) * (lead / 4));
}

/* Ahead of the access token's expiry, as the policy says */
static TimestampTz
renewal_at(const OvDue *d, TimestampTz now)
{
	int64		life = Max(d->expires_at - d->issued_at, 0);
	int64		lead = Min(ov_guc_refresh_lead * (int64) USECS_PER_SEC, life / LEAD_DIVISOR);

	if (!is_known(d->expires_at) || strcmp(d->policy, "lazy") == 0)
		return 0;
	if (strcmp(d->policy, "recent") == 0 &&
		d->used_at < now - ov_guc_recent_days * (int64) USECS_PER_DAY)
		return 0;
	return d->expires_at - lead + (int64) (jitter_of(d->connection_id) * (lead / 4));
}

TimestampTz
ov_due(const OvDue *d, TimestampTz now)
{
	TimestampTz due,
				keep;

	if (!d->can_refresh)
		return 0;
	due = renewal_at(d, now);
	keep = keep_alive_at(d);
	/* its own renewal may come in time anyway */
	if (keep != 0 && (due == 0 || keep < due))
		due = keep;
	/* a token that is born nearly dead must not make us hurry in circles */
	return due == 0 ? 0 : Max(due, TimestampTzPlusMilliseconds(now, 1000));
}

TimestampTz
ov_retry_at(OvOutcome outcome, int attempts, int64 retry_after, TimestampTz now)
{
	bool		slow = outcome != OV_OUT_TRANSIENT;
	int64		ms = slow ? RETRY_SLOW_MS : RETRY_MIN_MS;
	int64		max = slow ? RETRY_SLOW_MAX_MS : RETRY_MAX_MS;

	for (int i = 1; i < attempts && ms < max; i++)
		ms *= 2;
	ms = Min(ms, max);
	/* between half and all of it, so that many do not come back at once */
	ms = ms / 2 + (int64) (pg_prng_double(&pg_global_prng_state) * (ms / 2));
	if (retry_after > 0)
		ms = Max(ms, Min(retry_after, RETRY_AFTER_MAX_S) * 1000);
	return TimestampTzPlusMilliseconds(now, ms);
}
