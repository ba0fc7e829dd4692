/*
 * refresh_due.c
 *	  Which connections to refresh without being asked: those that are due, and
 *	  those that a predecessor has left in doubt; and the departure of those that
 *	  had to wait for room at their host.
 *
 * Each connector is a line of its own, and lines are served in turn: a provider
 * with a hundred thousand due, or one that is down, does not keep the others
 * waiting.  A line gets what its host has use for (host_queue.c): nothing while
 * that is paused, one when it is tried again.  Within a line the order is that
 * of the due times; whoever asks for a token goes before all that.
 *
 * Due connections are found by index from the line's cursor on: what was claimed
 * moves ahead of it, so that a scan does not wade through the index entries of
 * yesterday's refreshes that an old snapshot keeps.  Once a minute it starts
 * from the beginning, for rows that others have put behind it.  Connectors that
 * rest are not looked at.
 */
#include "worker/refresh.h"

#include "errors.h"
#include "guc.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "worker/figures.h"

#define BATCH_MAX 100
#define REWIND_MS 60000			/* the cursor starts over */
#define SEALED_PAUSE_MS 5000
#define HELD_PAUSE_MS 60000
#define SKIPPED_PAUSE_MS 1000
#define NEXT_PAUSE_MS 20
#define MOST_MIN 8				/* rows read of a connector that had little due */
#define ASK_ALL_US USECS_PER_SEC

static bool recovered;
static TimestampTz others_before;	/* claims until then are not ours, as those from before our start */
static TimestampTz rewound;
static bool said_sealed;

static OvQuery mark_in_doubt = {
	"UPDATE oauth_vault.intent SET in_doubt = true WHERE connection_id IN (SELECT connection_id"
	" FROM oauth_vault.intent WHERE NOT in_doubt AND started_at NOT BETWEEN $1 AND clock_timestamp() FOR UPDATE SKIP LOCKED)", "z"
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
	"SELECT connection_id FROM oauth_vault.intent WHERE started_at NOT BETWEEN $2 AND clock_timestamp()"
	" ORDER BY started_at LIMIT $1", "lz"
};
/*
 * $1, $2, $3: connectors, their cursors, how many rows of each; $4: of those not
 * named.  The inner limit is for the planner, who cannot know the outer one.
 */
static OvQuery due_rows = {
	"SELECT n.connector_id, d.connection_id, d.refresh_at FROM oauth_vault.connector n"
	" LEFT JOIN unnest($1::uuid[], $2::timestamptz[], $3::integer[]) k (id, since, most) ON k.id = n.connector_id"
	" CROSS JOIN LATERAL (SELECT i.connection_id, i.refresh_at FROM (SELECT c.connection_id, c.refresh_at"
	"  FROM oauth_vault.connection c WHERE c.connector_id = n.connector_id AND c.status = 'active'"
	"  AND c.refresh_at >= coalesce(k.since, '-infinity') ORDER BY c.refresh_at LIMIT 2200) i"
	"  LIMIT coalesce(k.most, $4)) d WHERE n.status = 'active'", "aaal"
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

/* A connector, as the scan knows it */
typedef struct Source
{
	unsigned char id[16];		/* hash key */
	TimestampTz cursor;
	int			most;			/* rows to read at once: more while there are more */
	int			busy;			/* refreshes of it under way */
	int			appetite;		/* so many may be claimed for it */
	OvHost	   *host;			/* its refreshes go to; NULL: not known yet */
	bool		several;		/* and to others */
} Source;

typedef struct Row
{
	unsigned char id[16];
	TimestampTz at;
} Row;

typedef struct Offer			/* what one source has, in order */
{
	Source	   *source;
	Row		   *rows;
	int			n;
	int			taken;
} Offer;

typedef struct Due
{
	TimestampTz now;
	int			max;
	bool		held;
	OvFailure	why;
	OvWant	   *wants[BATCH_MAX];
	Source	   *of[BATCH_MAX];
	TimestampTz at[BATCH_MAX];
	int			n;
	TimestampTz next;			/* when the next one is due; 0: none */
	bool		more;
} Due;

static HTAB *sources;
static int64 asked_all;			/* when those were asked that we do not know */

static Source *
source_of(const unsigned char id[16], bool create)
{
	bool		found;
	Source	   *s;

	if (sources == NULL)
	{
		HASHCTL		ctl = {.keysize = 16, .entrysize = sizeof(Source), .hcxt = TopMemoryContext};

		sources = hash_create("oauth_vault connectors", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	s = hash_search(sources, id, create ? HASH_ENTER : HASH_FIND, &found);
	if (s != NULL && !found)
	{
		memset((char *) s + sizeof(s->id), 0, sizeof(*s) - sizeof(s->id));
		s->cursor = DT_NOBEGIN;
		s->most = MOST_MIN;
		s->appetite = BATCH_MAX;
	}
	return s;
}

static void
count_busy(const OvRefresh *r)
{
	Source	   *s = source_of(r->g.connector_id, true);

	s->busy++;
}

static void
rewind_all(void)
{
	HASH_SEQ_STATUS all;
	Source	   *s;

	if (sources == NULL)
		return;
	hash_seq_init(&all, sources);
	while ((s = hash_seq_search(&all)) != NULL)
		s->cursor = DT_NOBEGIN;
}

void
ov_refresh_look_anew(void)
{
	rewind_all();
	rewound = GetCurrentTimestamp();
	ov_tick_at(OV_TICK_DUE, rewound);
}

/*
 * How much each may claim: what its host has use for, and no connector so much
 * that nothing is left for the others.  One that wants little is not asked for
 * it each time a refresh ends.  false: nobody wants anything.
 */
static bool
take_orders(Due *d)
{
	int			room = ov_jobs_limit(true);
	int			most = Max(room * 3 / 4, Min(room, ov_guc_max_host_connections));
	HASH_SEQ_STATUS all;
	Source	   *s;
	bool		any = false;

	if (sources == NULL)
		return true;
	hash_seq_init(&all, sources);
	while ((s = hash_seq_search(&all)) != NULL)
		s->busy = 0;
	ov_refresh_each(count_busy);
	hash_seq_init(&all, sources);
	while ((s = hash_seq_search(&all)) != NULL)
	{
		TimestampTz paused_until = 0;
		int			wanted;

		s->appetite = Min(BATCH_MAX, most - s->busy);
		if (s->host != NULL && !s->several)
		{
			wanted = ov_host_appetite(s->host, &paused_until);
			/* a quarter of its places at least, unless it stands still */
			if (s->busy > 0 && wanted < Min(s->busy / 4, BATCH_MAX / 2))
				wanted = 0;
			s->appetite = Min(s->appetite, wanted);
		}
		if (paused_until != 0)
			d->next = d->next == 0 ? paused_until : Min(d->next, paused_until);
		else if (s->appetite <= 0)
			ov_jobs_hungry();
		s->appetite = Max(s->appetite, 0);
		any |= s->appetite > 0;
	}
	return any;
}

/* Where each goes on, and how many rows it is asked for: those under way are still in the index. */
static uint64
ask(void)
{
	int			n = sources == NULL ? 0 : hash_get_num_entries(sources);
	const char **columns[3];
	HASH_SEQ_STATUS all;
	Source	   *s;
	OvArgs		a = {0};
	int			k = 0;

	for (int i = 0; i < 3; i++)
		columns[i] = palloc(sizeof(char *) * (n + 1));
	if (n > 0)
	{
		hash_seq_init(&all, sources);
		while ((s = hash_seq_search(&all)) != NULL)
		{
			columns[0][k] = ov_uuid_text(s->id);
			columns[1][k] = s->cursor == DT_NOBEGIN ? "-infinity" : ov_time_text(s->cursor);
			columns[2][k++] = psprintf("%d", s->appetite == 0 ? 0 : Min(s->appetite, s->most) + s->busy + 1);
		}
	}
	for (int i = 0; i < 3; i++)
		ov_arg_texts(&a, columns[i], n);
	ov_arg_int8(&a, MOST_MIN);
	return ov_run(&due_rows, OV_READ, &a);
}

/* The answer, by source; *noffers: how many have any. */
static Offer *
read_offers(uint64 n, int *noffers)
{
	Offer	   *offers = palloc0(sizeof(Offer) * (n + 1));
	Row		   *rows = palloc(sizeof(Row) * (n + 1));

	*noffers = 0;
	for (uint64 i = 0; i < n; i++)
	{
		Source	   *s = source_of(ov_uuid(i, 1), true);

		if (*noffers == 0 || offers[*noffers - 1].source != s)
		{
			offers[*noffers].source = s;
			offers[(*noffers)++].rows = &rows[i];
		}
		memcpy(rows[i].id, ov_uuid(i, 2), 16);
		rows[i].at = ov_time(i, 3);
		offers[*noffers - 1].n++;
	}
	return offers;
}

/* One of this source's; false: it has no more, or has had its share. */
static bool
take_one(Due *d, Offer *o)
{
	Source	   *s = o->source;

	while (o->taken < o->n && s->appetite > 0)
	{
		const Row  *r = &o->rows[o->taken];

		if (r->at > d->now)
		{
			d->next = d->next == 0 ? r->at : Min(d->next, r->at);
			o->taken = o->n;
			s->most = MOST_MIN;
			return false;
		}
		o->taken++;
		if (ov_refresh_running(r->id) != NULL)
			continue;
		d->wants[d->n] = want_of(r->id);
		d->wants[d->n]->due = true;
		d->of[d->n] = s;
		d->at[d->n++] = r->at;
		s->appetite--;
		return true;
	}
	return false;
}

/* From each in turn, so that one that has much due does not go before all others. */
static void
deal(Due *d, Offer *offers, int noffers)
{
	bool		any = true;

	while (any && d->n < d->max)
	{
		any = false;
		for (int i = 0; i < noffers && d->n < d->max; i++)
			any |= take_one(d, &offers[i]);
	}
	for (int i = 0; i < noffers; i++)
	{
		Offer	   *o = &offers[i];
		bool		asked_for_more = o->n >= o->source->most;

		if (o->taken < o->n && o->rows[o->taken].at > d->now)
			d->next = d->next == 0 ? o->rows[o->taken].at : Min(d->next, o->rows[o->taken].at);
		else if (o->taken < o->n || (asked_for_more && o->rows[o->n - 1].at <= d->now))
		{
			if (o->source->appetite > 0)
				d->more = true;
			else
				ov_jobs_hungry();
			o->source->most = Min(o->source->most * 4, BATCH_MAX);
		}
	}
}

static void
find_due(void *arg)
{
	Due		   *d = arg;
	OvHome		home;
	Offer	   *offers;
	int			noffers;

	offers = read_offers(ask(), &noffers);
	deal(d, offers, noffers);
	if (d->n > 0 && !ov_home_or_refuse(&home, &d->why))
		d->held = true;
}

/* What the claims have told about where a connector's refreshes go */
static void
learn(const Due *d)
{
	for (int i = 0; i < d->n; i++)
	{
		Source	   *s = d->of[i];
		OvHost	   *h = d->wants[i]->host;

		if (h == NULL || h == s->host)
			continue;
		s->several |= s->host != NULL;
		s->host = h;
		ov_host_keep(h);
	}
}

/* What has been claimed lies behind the cursors. */
static void
go_on(const Due *d)
{
	for (int i = 0; i < d->n; i++)
		d->of[i]->cursor = Max(d->of[i]->cursor, d->at[i]);
}

void
ov_refresh_due_tick(TimestampTz now)
{
	Due			d = {.now = now};
	bool		sealed = false;
	bool		skipped = false;

	if (TimestampDifferenceExceeds(rewound, now, REWIND_MS))
	{
		rewind_all();
		rewound = now;
	}
	d.max = Min(BATCH_MAX, ov_jobs_room(true));
	ov_tick_at(OV_TICK_DUE, TimestampTzPlusMilliseconds(now, REWIND_MS));
	if (d.max == 0)
		return;					/* looked at again when a job ends */
	if (!take_orders(&d) && ov_monotonic() - asked_all < ASK_ALL_US)
	{
		/* those we do not know have just been asked */
		ov_tick_at(OV_TICK_DUE, d.next != 0 ? d.next : now + ASK_ALL_US);
		return;
	}
	asked_all = ov_monotonic();
	if (ov_transact("look for refreshes that are due", find_due, &d) != 0)
	{
		ov_tick_at(OV_TICK_DUE, TimestampTzPlusMilliseconds(now, SKIPPED_PAUSE_MS));
		return;
	}
	if (d.held)
		return;
	ov_refresh_claim(d.wants, d.n);
	learn(&d);
	for (int i = 0; i < d.n; i++)
	{
		const OvFailure *f = &d.wants[i]->failure;

		if (d.wants[i]->verdict != OV_REFUSED)
			continue;
		if (strcmp(f->sqlstate, "OV040") == 0)
		{
			sealed = true;
			if (!said_sealed)
				ereport(LOG,
						(errmsg("oauth_vault renews no tokens: %s", f->message),
						 f->hint[0] ? errhint("%s", f->hint) : 0));
			said_sealed = true;
		}
		/* what has been postponed is not overlooked */
		else if (strncmp(f->sqlstate, "OV02", 4) == 0 && strcmp(f->sqlstate, "OV022") != 0 && d.wants[i]->retry_at == 0)
			skipped = true;
		if (d.wants[i]->retry_at != 0)
			ov_tick_at(OV_TICK_DUE, d.wants[i]->retry_at);
	}
	if (sealed || skipped)
	{
		rewind_all();
		ov_tick_at(OV_TICK_DUE,
				   TimestampTzPlusMilliseconds(now, sealed ? SEALED_PAUSE_MS : SKIPPED_PAUSE_MS));
		return;
	}
	said_sealed = false;
	go_on(&d);
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
