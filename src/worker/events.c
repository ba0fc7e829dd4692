/*
 * events.c
 *	  Events on their way to consumers: their place, the notification, the end.
 *
 * An event is written to event_pending by the transaction that makes it happen.
 * Ids are given before commits, so that a reader who goes by them would pass
 * over one that commits late.  Here committed ones are moved to event, in one
 * transaction at a time, by this one process: there a higher id has become
 * visible later.  Two events of one connection keep their order, as the row was
 * locked between them.  Counted on from the last event and the consumers'
 * positions, so that no sequence can be set back.
 *
 * The notification follows in a transaction of its own: it only says "look", and
 * that it cannot be queued must not hold up the events.  It is sent when the
 * last event is not the one of the last notification, and at our start.
 *
 * A session's commit wakes us (vault/event.c); our own transactions say so in
 * ov_events_written; a prepared transaction is found by the clock.
 */
#include "guc.h"
#include "worker/network.h"
#include "worker/worker.h"

#define BATCH 1000
#define CLOCK_MS 10000
#define SWEEP_CLOCK_MS 60000
#define MORE_MS 100				/* between pages of what is old */

bool		ov_events_written;

static int64 notified;			/* the last event that listeners have been told of */
static TimestampTz swept_at;

static OvQuery place = {
	"WITH gone AS (DELETE FROM oauth_vault.event_pending WHERE pending_id IN (SELECT pending_id"
	"   FROM oauth_vault.event_pending ORDER BY pending_id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING *),"
	" placed AS (INSERT INTO oauth_vault.event"
	"   (event_id, at, event, tenant, user_id, connector_id, connection_id, account, status, reason)"
	"  SELECT greatest((SELECT max(event_id) FROM oauth_vault.event), (SELECT max(event_id) FROM oauth_vault.event_consumer), 0)"
	"   + row_number() OVER (ORDER BY pending_id, at),"
	"   at, event, tenant, user_id, connector_id, connection_id, account, status, reason FROM gone RETURNING event_id)"
	" SELECT count(*), greatest(max(event_id), (SELECT max(event_id) FROM oauth_vault.event)) FROM placed", "l"
};
static OvQuery notify = {
	"SELECT pg_notify('oauth_vault', '{\"last_event_id\":' || $1 || '}')", "l"
};
/* $1: older ones go; $2: a page.  Who has not come since then holds nothing, and begins anew. */
static OvQuery forget_consumers = {
	"DELETE FROM oauth_vault.event_consumer WHERE consumer IN (SELECT consumer FROM oauth_vault.event_consumer"
	" WHERE seen_at < $1 FOR UPDATE SKIP LOCKED)", "z"
};
static OvQuery forget_events = {
	"DELETE FROM oauth_vault.event WHERE event_id IN (SELECT e.event_id FROM oauth_vault.event e"
	" WHERE e.event_id IN (SELECT p.event_id FROM oauth_vault.event p ORDER BY p.event_id LIMIT $2)"
	" AND e.at < $1 AND NOT EXISTS (SELECT FROM oauth_vault.event_consumer c WHERE c.event_id < e.event_id)"
	" FOR UPDATE SKIP LOCKED)", "zl"
};

typedef struct Placing
{
	int64		n;
	int64		last;
} Placing;

static void
place_work(void *arg)
{
	Placing    *p = arg;
	OvArgs		a = {0};

	ov_arg_int8(&a, BATCH);
	(void) ov_run(&place, OV_WRITE, &a);
	p->n = ov_int8(0, 1);
	p->last = ov_int8(0, 2);
}

static void
notify_work(void *arg)
{
	OvArgs		a = {0};

	ov_arg_int8(&a, *(int64 *) arg);
	(void) ov_run(&notify, OV_WRITE, &a);
}

typedef struct Sweep
{
	TimestampTz now;
	bool		full;			/* there may be more */
} Sweep;

static void
sweep_work(void *arg)
{
	OvArgs		a = {0};
	Sweep	   *p = arg;

	ov_arg_time(&a, p->now - (int64) ov_guc_event_retention_days * USECS_PER_DAY);
	(void) ov_run(&forget_consumers, OV_WRITE, &a);
	ov_arg_int8(&a, BATCH);
	p->full = ov_run(&forget_events, OV_WRITE, &a) == BATCH;
}

void
ov_events_tick(TimestampTz now)
{
	static Sweep s;
	Placing		p = {0};

	if (ov_transact("give events their place", place_work, &p) == 0 &&
		p.last > notified && ov_transact("notify of events", notify_work, &p.last) == 0)
		notified = p.last;
	if (s.full || now >= TimestampTzPlusMilliseconds(swept_at, SWEEP_CLOCK_MS) || now < swept_at)
	{
		s = (Sweep) {.now = now};
		(void) ov_transact("remove events that are old", sweep_work, &s);
		swept_at = now;
	}
	ov_tick_at(OV_TICK_EVENTS, TimestampTzPlusMilliseconds(now, p.n == BATCH ? 0 : s.full ? MORE_MS : CLOCK_MS));
}
