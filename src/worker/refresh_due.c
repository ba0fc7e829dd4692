/*
 * refresh_due.c
 *	  Which connections to refresh without being asked: those that are due, and
 *	  those that a predecessor has left in doubt; and the departure of those that
 *	  had to wait for room at their host.
 *
 * Due connections are found by index from a cursor on: what was claimed moves
 * ahead of it, so that a scan does not wade through the index entries of
 * yesterday's refreshes that an old snapshot keeps.  Once a minute it starts
 * from the beginning, for rows that others have put behind it.
 */
#include "worker/refresh.h"

#include "errors.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#define BATCH_MAX 100
#define REWIND_MS 60000			/* the cursor starts over */
#define SEALED_PAUSE_MS 5000
#define HELD_PAUSE_MS 60000
#define SKIPPED_PAUSE_MS 1000
#define NEXT_PAUSE_MS 20

static bool recovered;
static TimestampTz others_before;	/* claims until then are not ours, as those from before our start */
static TimestampTz cursor;
static TimestampTz rewound;
static bool said_sealed;

static OvQuery mark_in_doubt = {
	"UPDATE oauth_vault.intent SET in_doubt = true WHERE connection_id IN (SELECT connection_id"
	" FROM oauth_vault.intent WHERE NOT in_doubt AND started_at < $1 FOR UPDATE SKIP LOCKED)", "z"
};
static OvQuery send_intent = {
	"UPDATE oauth_vault.intent SET tries = greatest(tries, 1), started_at = $2 WHERE connection_id IN"
	" (SELECT connection_id FROM oauth_vault.intent WHERE connection_id = $1 FOR UPDATE SKIP LOCKED)", "uz"
};
static OvQuery send_intents = {
	"UPDATE oauth_vault.intent SET tries = greatest(tries, 1), started_at = $2 WHERE connection_id IN"
	" (SELECT connection_id FROM oauth_vault.intent WHERE connection_id = ANY ($1) FOR UPDATE SKIP LOCKED)", "Uz"
};
static OvQuery intent_exists = {
	"SELECT 1 FROM oauth_vault.intent WHERE connection_id = $1 AND $2 IS NOT NULL", "uz"
};
static OvQuery open_intents = {
	"SELECT connection_id FROM oauth_vault.intent WHERE started_at < $2 ORDER BY started_at LIMIT $1", "lz"
};
static OvQuery due_rows = {
	"SELECT connection_id, refresh_at FROM oauth_vault.connection WHERE status = 'active' AND refresh_at >= $1"
	" ORDER BY refresh_at LIMIT $2", "zl"
};

/* ---- what a predecessor has left ---- */

typedef struct Open
{
	bool		held;
	OvFailure	why;
	OvWant	  **wants;
	int			n;
	int			max;
} Open;

static OvWant *
want_of(const unsigned char *id)
{
	OvWant	   *w = MemoryContextAllocZero(ov_round, sizeof(OvWant));

	memcpy(w->id, id, 16);
	return w;
}

static void
find_open(void *arg)
{
	Open	   *o = arg;
	/* Those of our own that are in doubt wait for their next attempt. */
	Datum		before = TimestampTzGetDatum(Max(MyStartTimestamp, others_before));
	Datum		args[2] = {Int64GetDatum(o->max), before};
	OvHome		home;
	uint64		n;

	/* no home row and no intents: a vault that has not been used yet */
	if (!ov_home(&home) && ov_query(&open_intents, OV_READ, args, NULL) == 0)
		return;
	if (!ov_home_or_refuse(&home, &o->why))
	{
		o->held = true;
		return;
	}
	(void) ov_query(&mark_in_doubt, OV_WRITE, &before, NULL);
	n = ov_query(&open_intents, OV_READ, args, NULL);
	for (uint64 i = 0; i < n && o->n < o->max; i++)
	{
		const unsigned char *id = ov_uuid(i, 1);

		if (ov_refresh_running(id) != NULL)
			continue;
		o->wants[o->n] = want_of(id);
		o->wants[o->n++]->recover = true;
	}
}

void
ov_refresh_recover_again(void)
{
	recovered = false;
	others_before = GetCurrentTimestamp();
}

void
ov_refresh_recover_tick(TimestampTz now)
{
	Open		o = {.max = BATCH_MAX};
	OvWant	   *wants[BATCH_MAX];
	bool		refused = false;

	if (recovered)
		return;
	o.wants = wants;
	o.max = Min(BATCH_MAX, Max(1, ov_jobs_room(true)));
	if (ov_transact("look for refreshes in doubt", find_open, &o) != 0)
	{
		ov_tick_at(OV_TICK_RECOVER, TimestampTzPlusMilliseconds(now, SKIPPED_PAUSE_MS));
		return;
	}
	if (o.held)
	{
		ov_tick_at(OV_TICK_RECOVER, TimestampTzPlusMilliseconds(now, HELD_PAUSE_MS));
		return;
	}
	ov_refresh_claim(wants, o.n);
	for (int i = 0; i < o.n; i++)
		refused |= wants[i]->verdict == OV_REFUSED && strcmp(wants[i]->failure.sqlstate, "OV012") != 0;
	if (o.n == 0)
	{
		recovered = true;
		ov_tick_at(OV_TICK_DUE, now);
	}
	else
		ov_tick_at(OV_TICK_RECOVER, TimestampTzPlusMilliseconds(now, refused ? SKIPPED_PAUSE_MS : NEXT_PAUSE_MS));
}

/* ---- what is due ---- */

typedef struct Due
{
	TimestampTz now;
	TimestampTz from;
	int			max;
	bool		held;
	OvFailure	why;
	OvWant	  **wants;
	int			n;
	TimestampTz last;			/* refresh_at of the last one looked at */
	TimestampTz next;			/* when the next one is due; 0: none */
	bool		more;
} Due;

static void
find_due(void *arg)
{
	Due		   *d = arg;
	Datum		args[2];
	OvHome		home;
	/* those in flight are still in the index */
	int			limit = d->max + ov_jobs_count() + 1;
	uint64		n;

	args[0] = TimestampTzGetDatum(d->from);
	args[1] = Int64GetDatum(limit);
	n = ov_query(&due_rows, OV_READ, args, NULL);
	d->more = n == limit;
	for (uint64 i = 0; i < n; i++)
	{
		const unsigned char *id = ov_uuid(i, 1);
		TimestampTz at = ov_time(i, 2);

		if (at > d->now)
		{
			d->next = at;
			d->more = false;
			break;
		}
		if (d->n == d->max)
		{
			d->more = true;
			break;
		}
		d->last = at;
		if (ov_refresh_running(id) != NULL)
			continue;
		d->wants[d->n] = want_of(id);
		d->wants[d->n++]->due = true;
	}
	if (d->n > 0 && !ov_home_or_refuse(&home, &d->why))
		d->held = true;
}

void
ov_refresh_due_tick(TimestampTz now)
{
	Due			d = {.now = now};
	OvWant	   *wants[BATCH_MAX];
	bool		sealed = false;
	bool		skipped = false;

	if (TimestampDifferenceExceeds(rewound, now, REWIND_MS))
	{
		cursor = 0;
		rewound = now;
	}
	d.max = Min(BATCH_MAX, ov_jobs_room(true));
	ov_tick_at(OV_TICK_DUE, TimestampTzPlusMilliseconds(now, REWIND_MS));
	if (d.max == 0)
		return;					/* looked at again when a job ends */
	d.from = cursor;
	d.wants = wants;
	if (ov_transact("look for refreshes that are due", find_due, &d) != 0)
	{
		ov_tick_at(OV_TICK_DUE, TimestampTzPlusMilliseconds(now, SKIPPED_PAUSE_MS));
		return;
	}
	if (d.held)
		return;
	ov_refresh_claim(wants, d.n);
	for (int i = 0; i < d.n; i++)
	{
		if (wants[i]->verdict != OV_REFUSED)
			continue;
		if (strcmp(wants[i]->failure.sqlstate, "OV040") == 0)
		{
			sealed = true;
			if (!said_sealed)
				ereport(LOG,
						(errmsg("oauth_vault renews no tokens: %s", wants[i]->failure.message),
						 wants[i]->failure.hint[0] ? errhint("%s", wants[i]->failure.hint) : 0));
			said_sealed = true;
		}
		else if (strncmp(wants[i]->failure.sqlstate, "OV02", 4) == 0 &&
				 strcmp(wants[i]->failure.sqlstate, "OV022") != 0)
			skipped = true;
	}
	if (sealed || skipped)
	{
		cursor = 0;
		ov_tick_at(OV_TICK_DUE,
				   TimestampTzPlusMilliseconds(now, sealed ? SEALED_PAUSE_MS : SKIPPED_PAUSE_MS));
		return;
	}
	said_sealed = false;
	if (d.last != 0)
		cursor = d.last;
	if (d.more)
		ov_tick_at(OV_TICK_DUE, now);
	else if (d.next != 0)
		ov_tick_at(OV_TICK_DUE, d.next);
}

/* ---- what waited for room at its host ---- */

typedef struct Departure
{
	OvJob	  **jobs;
	int			n;
} Departure;

/* In one statement; how many there were that nobody has locked. */
static uint64
depart_together(OvJob **refreshes, int n, TimestampTz now)
{
	const unsigned char **ids = palloc(sizeof(char *) * n);
	OvArgs		a = {0};

	for (int i = 0; i < n; i++)
		ids[i] = ((OvRefresh *) refreshes[i])->g.connection_id;
	ov_arg_uuids(&a, ids, n);
	ov_arg_time(&a, now);
	return ov_run(&send_intents, OV_WRITE, &a);
}

void
ov_refresh_note_departure(OvJob **jobs, int n)
{
	OvJob	  **refreshes = palloc(sizeof(OvJob *) * (n + 1));
	TimestampTz now = GetCurrentTimestamp();
	int			nrefreshes = 0;

	for (int i = 0; i < n; i++)
		if (jobs[i]->kind == OV_JOB_REFRESH)
			refreshes[nrefreshes++] = jobs[i];
	if (nrefreshes == 0 || depart_together(refreshes, nrefreshes, now) == nrefreshes)
		return;
	for (int i = 0; i < nrefreshes; i++)
	{
		OvArgs		a = {0};

		ov_arg_uuid(&a, ((OvRefresh *) refreshes[i])->g.connection_id);
		ov_arg_time(&a, now);
		/* One that is locked keeps all waiting; one that somebody has deleted does not. */
		if (ov_run(&send_intent, OV_WRITE, &a) == 0 && ov_run(&intent_exists, OV_READ, &a) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE), errmsg("an intent is locked by another transaction")));
	}
}

static void
depart_work(void *arg)
{
	Departure  *d = arg;

	ov_refresh_note_departure(d->jobs, d->n);
}

bool
ov_refresh_depart(OvJob **jobs, int n)
{
	Departure	d = {jobs, n};

	for (int i = 0; i < n; i++)
		if (jobs[i]->kind == OV_JOB_REFRESH)
			return ov_transact("send refreshes", depart_work, &d) == 0;
	return true;
}
