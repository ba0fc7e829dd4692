/*
 * host_queue.c
 *	  Requests on their way to the engine: how many at a time to one host, how
 *	  many in which time, and none while it is out of order.
 *
 * A host gets `window` requests at a time.  That begins small, after a start of
 * the worker and after an outage, and grows by one with each answer, up to
 * oauth_vault.max_host_connections; "too many requests" and "unavailable"
 * halve it.  Where the provider's rules name a budget (rate_limit), requests
 * leave spaced, so that no span of the budget's time sees more of them.  The
 * others wait here, where no timeout of theirs runs yet: those that somebody
 * waits for before those that were merely due.  A refresh that waits has an
 * intent that says "not sent" (tries = 0); before it leaves, that it leaves is
 * committed, for all that leave together.
 *
 * A circuit breaker: a host that has not answered, or answered 429 or 5xx,
 * BREAK_AFTER times in a row gets a pause, which grows and is no shorter than
 * its Retry-After.  Its waiting requests end at once as not sent, so that one
 * provider that is down neither fills the room for jobs nor makes each
 * connection wait for itself.  After the pause, or when an administrator asks
 * (oauth_refresh), one request goes first; an answer other than those ends the
 * pauses.
 *
 * Times are of the monotonic clock: setting the server's clock neither
 * prolongs a pause nor empties a budget.  Process-local; what sessions are
 * shown is a copy in shared memory (figures.h), from which a successor takes
 * pauses and spent budgets over.  They are forgotten with the server, pauses
 * also when the configuration changes: then the small beginning is what spares
 * the provider.
 */
#include "worker/host_queue.h"

#include <time.h>

#include "core/codec.h"
#include "guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "worker/figures.h"

#define BREAK_AFTER 8
#define PAUSE_MIN_US (2 * USECS_PER_SEC)
#define PAUSE_MAX_US (60 * USECS_PER_SEC)
#define RETRY_AFTER_MAX_S 3600	/* a host's Retry-After is honoured up to here */
#define WINDOW_START 2
#define AHEAD_US (2 * USECS_PER_SEC)	/* of a budget, so much may wait here */
#define HOSTS_KEPT 4096
#define RETRY_MS 50				/* when departures could not be committed */
#define PUBLISH_US 100000

typedef struct Line				/* those that wait, linked by next_waiting */
{
	OvJob	   *first;
	OvJob	   *last;
} Line;

struct OvHost
{
	char		name[OV_HOST_NAME]; /* hash key: host:port */
	int			active;
	int			window;			/* so many at a time, now */
	int			failures;		/* in a row: no answer, 429, 5xx */
	int64		pause_us;		/* of the last pause; 0: closed */
	int64		paused_until;
	int			requests,		/* the budget; 0: none */
				seconds;
	int64		spent_until;	/* when all that has left will have been earned back */
	int			nwaiting;
	Line		urgent;			/* somebody waits for these */
	Line		others;
	uint64		pauses;			/* since the worker's start */
	bool		told_time;
	int64		clock_off;		/* seconds that our clock is ahead of the host's */
	bool		kept;			/* somebody holds a pointer */
};

static HTAB *hosts;
static bool waiting;			/* does any host have some? */
static bool changed;			/* since it was published */
static bool changed_much;		/* and not only by counts */
static int64 published;

/* ---- budgets ---- */

/*
 * So that any half-open span of `seconds` sees at most `requests`: `burst` may
 * leave together, the others at an even distance.  A tenth is left for what the
 * network does to distances.
 */
static int
burst_of(const OvHost *h)
{
	return Max(1, h->requests / 20);
}

static int64
distance_of(const OvHost *h)
{
	return Max(1, h->seconds * USECS_PER_SEC / (h->requests - burst_of(h) + 1) * 11 / 10);
}

static int64
affordable_at(const OvHost *h)
{
	return h->requests == 0 ? 0 : h->spent_until - (burst_of(h) - 1) * distance_of(h);
}

static void
spend(OvHost *h, int64 now)
{
	if (h->requests > 0)
		h->spent_until = Max(h->spent_until, now) + distance_of(h);
}

static void
give_back(OvHost *h)
{
	if (h->requests > 0)
		h->spent_until -= distance_of(h);
}

/* ---- the hosts ---- */

static void
take_over(void)
{
	OvHostFigure *figures = palloc(sizeof(OvHostFigure) * OV_HOST_FIGURES);
	int			n = ov_hosts_figures(figures);

	for (int i = 0; i < n; i++)
	{
		bool		found;
		OvHost	   *h = hash_search(hosts, figures[i].name, HASH_ENTER, &found);

		if (found)
			continue;
		memset((char *) h + sizeof(h->name), 0, sizeof(*h) - sizeof(h->name));
		h->window = WINDOW_START;
		h->pause_us = figures[i].pause_us;
		h->paused_until = figures[i].paused_until;
		h->failures = figures[i].failures;
		h->requests = figures[i].requests;
		h->seconds = figures[i].seconds;
		h->spent_until = figures[i].spent_until;
	}
	pfree(figures);
}

static bool
is_idle(const OvHost *h, int64 now)
{
	return h->active == 0 && h->nwaiting == 0 && h->pause_us == 0 && h->spent_until <= now && !h->kept;
}

/* Some providers have a host for each customer. */
static void
forget_idle(void)
{
	HASH_SEQ_STATUS all;
	OvHost	   *h;
	int64		now = ov_monotonic();

	hash_seq_init(&all, hosts);
	while ((h = hash_seq_search(&all)) != NULL)
		if (is_idle(h, now))
			(void) hash_search(hosts, h->name, HASH_REMOVE, NULL);
}

static OvHost *
host_of(OvJob *job, const OvHttpRequest *req)
{
	char		key[OV_HOST_NAME] = "";
	OvUrl		parsed;
	OvHost	   *h;
	bool		found;

	if (hosts == NULL)
	{
		HASHCTL		ctl = {.keysize = OV_HOST_NAME, .entrysize = sizeof(OvHost), .hcxt = TopMemoryContext};

		hosts = hash_create("oauth_vault hosts", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		take_over();
	}
	else if (hash_get_num_entries(hosts) >= HOSTS_KEPT)
		forget_idle();
	/* what is no URL is the engine's to refuse */
	if (ov_url_parse(job->arena, req->url, &parsed, NULL) == OV_OK)
		snprintf(key, sizeof(key), "%s:%d", parsed.host, parsed.port);
	h = hash_search(hosts, key, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) h + sizeof(h->name), 0, sizeof(*h) - sizeof(h->name));
		h->window = WINDOW_START;
	}
	h->requests = req->budget_seconds > 0 ? req->budget_requests : 0;
	h->seconds = req->budget_seconds;
	return h;
}

static bool
is_paused(const OvHost *h, int64 now)
{
	return h->pause_us > 0 && h->paused_until > now;
}

static int
width(const OvHost *h)
{
	return Min(h->window, ov_guc_max_host_connections);
}

/* May one more request go to this host now? */
static bool
has_room(const OvHost *h, int64 now)
{
	if (h->pause_us > 0)
		return h->active == 0 && h->paused_until <= now;
	return h->active < width(h) && affordable_at(h) <= now;
}

static void
reserve(OvHost *h, OvJob *job, int64 now)
{
	job->host = h;
	job->reserved = true;
	h->active++;
	spend(h, now);
	changed = true;
}

void
ov_host_release(OvJob *job)
{
	if (job->reserved)
		job->host->active--;
	job->reserved = false;
	job->host = NULL;
	changed = true;
}

static TimestampTz
at_clock(int64 then, int64 now)
{
	return GetCurrentTimestamp() + Max(then - now, 0);
}

OvHost *
ov_host_reserve(OvJob *job, const OvHttpRequest *req, TimestampTz *paused_until)
{
	int64		now = ov_monotonic();
	OvHost	   *h = host_of(job, req);

	if (job->probe && is_paused(h, now) && h->active == 0)
		h->paused_until = now;
	*paused_until = is_paused(h, now) ? at_clock(h->paused_until, now) : 0;
	if (*paused_until == 0 && has_room(h, now) && (job->urgent ? h->urgent.first == NULL : h->nwaiting == 0))
		reserve(h, job, now);
	return h;
}

void
ov_host_keep(OvHost *h)
{
	h->kept = true;
}

int
ov_host_appetite(OvHost *h, TimestampTz *paused_until)
{
	int64		now = ov_monotonic();
	int			n;

	*paused_until = is_paused(h, now) ? at_clock(h->paused_until, now) : 0;
	if (*paused_until != 0)
		return 0;
	/* one goes first, and the others when it has come back */
	if (h->pause_us > 0)
		return h->active + h->nwaiting > 0 ? 0 : 1;
	/* as many again as are on their way, so that none of its places is ever empty */
	n = 2 * width(h);
	if (h->requests > 0)
		n = Min(n, Max(1, (int) (AHEAD_US / distance_of(h))));
	return n - h->active - h->nwaiting;
}

/* ---- those that wait ---- */

static void
append(Line *line, OvJob *job)
{
	job->next_waiting = NULL;
	if (line->first == NULL)
		line->first = job;
	else
		line->last->next_waiting = job;
	line->last = job;
}

static void
prepend(Line *line, OvJob *job)
{
	job->next_waiting = line->first;
	if (line->first == NULL)
		line->last = job;
	line->first = job;
}

static void
take_out(Line *line, OvJob *job)
{
	OvJob	   *before = NULL;

	for (OvJob *j = line->first; j != job; j = j->next_waiting)
		before = j;
	if (before == NULL)
		line->first = job->next_waiting;
	else
		before->next_waiting = job->next_waiting;
	if (line->last == job)
		line->last = before;
	job->next_waiting = NULL;
}

static Line *
line_of(OvHost *h, const OvJob *job)
{
	return job->urgent ? &h->urgent : &h->others;
}

static void
enqueue(OvHost *h, OvJob *job)
{
	job->host = h;
	append(line_of(h, job), job);
	h->nwaiting++;
	waiting = changed = true;
}

static OvJob *
dequeue(OvHost *h)
{
	Line	   *line = h->urgent.first != NULL ? &h->urgent : &h->others;
	OvJob	   *job = line->first;

	line->first = job->next_waiting;
	job->next_waiting = NULL;
	h->nwaiting--;
	changed = true;
	return job;
}

static void
put_back(OvJob *job)
{
	OvHost	   *h = job->host;

	ov_host_release(job);
	give_back(h);
	job->host = h;
	prepend(line_of(h, job), job);
	h->nwaiting++;
	waiting = true;
}

void
ov_host_hurry(OvJob *job)
{
	if (job->urgent)
		return;
	if (job->host != NULL && !job->reserved)
	{
		take_out(&job->host->others, job);
		append(&job->host->urgent, job);
	}
	job->urgent = true;
}

void
ov_job_send(OvJob *job, const OvHttpRequest *req)
{
	TimestampTz paused_until = 0;
	OvHost	   *h = NULL;

	job->waiting = *req;
	if (!job->reserved)
		h = ov_host_reserve(job, req, &paused_until);
	if (job->reserved)
		ov_engine_send(job, &job->waiting);
	else if (paused_until != 0)
		ov_engine_fail(job, OV_HOST_PAUSED);
	else
		enqueue(h, job);
}

/* ---- answers ---- */

static void
pause_host(OvHost *h, const OvHttpResponse *resp)
{
	int64		asked = resp->transport_error == NULL ? ov_retry_after(resp, (int64) time(NULL)) : -1;

	h->pause_us = Min(Max(h->pause_us * 2, PAUSE_MIN_US), PAUSE_MAX_US);
	h->paused_until = ov_monotonic() + Max(h->pause_us, Min(asked, RETRY_AFTER_MAX_S) * USECS_PER_SEC);
	h->window = 1;
	h->pauses++;
	changed_much = true;
}

void
ov_host_answered(OvJob *job, const OvHttpResponse *resp)
{
	OvHost	   *h = job->host;
	bool		answered = resp->transport_error == NULL && resp->status != 0;

	if (h == NULL)
		return;
	ov_host_release(job);
	if (answered && ov_answer_date(resp) > 0)
	{
		h->told_time = true;
		h->clock_off = (int64) time(NULL) - ov_answer_date(resp);
	}
	if (answered && resp->status != 429 && resp->status < 500)
	{
		changed_much = changed_much || h->pause_us > 0;
		h->failures = 0;
		h->pause_us = 0;
		h->window = Min(h->window + 1, ov_guc_max_host_connections);
		return;
	}
	if (answered)
		h->window = Max(h->window / 2, 1);
	/* Those that were under way when the pause began say nothing new. */
	if (++h->failures >= BREAK_AFTER && !is_paused(h, ov_monotonic()))
		pause_host(h, resp);
}

/* ---- departures ---- */

/*
 * Takes up to OV_DEPART_MAX that have room now; ends those of paused hosts.
 * *next: when a budget or the end of a pause lets the next one go.
 */
static int
take_ready(OvJob **ready, int64 now, int64 *next)
{
	HASH_SEQ_STATUS all;
	OvHost	   *h;
	int			n = 0;

	waiting = false;
	*next = PG_INT64_MAX;
	hash_seq_init(&all, hosts);
	while ((h = hash_seq_search(&all)) != NULL)
	{
		while (h->nwaiting > 0 && is_paused(h, now))
		{
			OvJob	   *job = dequeue(h);

			job->host = NULL;
			ov_engine_fail(job, OV_HOST_PAUSED);
		}
		while (h->nwaiting > 0 && n < OV_DEPART_MAX && has_room(h, now))
		{
			ready[n] = dequeue(h);
			reserve(h, ready[n++], now);
		}
		if (h->nwaiting == 0)
			continue;
		waiting = true;
		if (h->pause_us == 0 && h->active < width(h))
			*next = Min(*next, affordable_at(h));
	}
	return n;
}

int
ov_hosts_take(OvJob **ready)
{
	int64		now = ov_monotonic();
	int64		next;
	int			n;

	if (!waiting)
		return 0;
	n = take_ready(ready, now, &next);
	if (n == OV_DEPART_MAX)
		ov_tick_at(OV_TICK_DISPATCH, GetCurrentTimestamp());
	else if (next != PG_INT64_MAX)
		ov_tick_at(OV_TICK_DISPATCH, at_clock(next, now));
	return n;
}

void
ov_hosts_send(OvJob **ready, int n, bool departed)
{
	if (!departed)
	{
		for (int i = n - 1; i >= 0; i--)
			put_back(ready[i]);
		ov_tick_at(OV_TICK_DISPATCH, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_MS));
		return;
	}
	for (int i = 0; i < n; i++)
		ov_engine_send(ready[i], &ready[i]->waiting);
}

void
ov_hosts_dispatch(void)
{
	OvJob	   *ready[OV_DEPART_MAX];
	int			n = ov_hosts_take(ready);

	if (n > 0)
		ov_hosts_send(ready, n, ov_refresh_depart(ready, n));
}

void
ov_hosts_forgive(void)
{
	HASH_SEQ_STATUS all;
	OvHost	   *h;

	if (hosts == NULL)
		return;
	hash_seq_init(&all, hosts);
	while ((h = hash_seq_search(&all)) != NULL)
	{
		h->failures = 0;
		h->pause_us = 0;
	}
	changed_much = true;
}

void
ov_hosts_start_slowly(void)
{
	HASH_SEQ_STATUS all;
	OvHost	   *h;

	if (hosts == NULL)
		return;
	hash_seq_init(&all, hosts);
	while ((h = hash_seq_search(&all)) != NULL)
		h->window = Min(h->window, WINDOW_START);
}

/* ---- for sessions to see ---- */

static OvHostFigure
figure_of(const OvHost *h)
{
	OvHostFigure f = {
		.active = h->active, .waiting = h->nwaiting, .window = width(h), .failures = h->failures,
		.pause_us = h->pause_us, .paused_until = h->paused_until, .requests = h->requests, .seconds = h->seconds,
		.spent_until = h->spent_until, .pauses = h->pauses, .told_time = h->told_time, .clock_off = h->clock_off
	};

	memcpy(f.name, h->name, sizeof(f.name));
	return f;
}

void
ov_hosts_leave(void)
{
	changed_much = true;
	ov_hosts_publish();
}

/* Those out of order first, then those at work, then the others, while there is room. */
void
ov_hosts_publish(void)
{
	static OvHostFigure figures[OV_HOST_FIGURES];
	HASH_SEQ_STATUS all;
	OvHost	   *h;
	int64		now;
	int			n = 0;

	if (hosts == NULL || !(changed || changed_much))
		return;
	now = ov_monotonic();
	if (!changed_much && published + PUBLISH_US > now)
	{
		ov_tick_at(OV_TICK_DISPATCH, at_clock(published + PUBLISH_US, now));
		return;
	}
	for (int rank = 0; rank < 3; rank++)
	{
		hash_seq_init(&all, hosts);
		while ((h = hash_seq_search(&all)) != NULL)
		{
			int			its = h->pause_us > 0 ? 0 : h->active + h->nwaiting + h->failures > 0 || h->spent_until > now ? 1 : 2;

			if (its == rank && n < OV_HOST_FIGURES)
				figures[n++] = figure_of(h);
		}
	}
	ov_hosts_figures_set(figures, n);
	published = now;
	changed = changed_much = false;
}
