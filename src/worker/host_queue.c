/*
 * host_queue.c
 *	  Requests on their way to the engine: how many at a time to one host.
 *
 * A host gets oauth_vault.max_host_connections requests at a time; the others
 * wait here, where no timeout of theirs runs yet.  A refresh that waits has an
 * intent that says "not sent" (tries = 0); before it leaves, that it leaves is
 * committed, for all that leave together.
 *
 * A host that has not answered BREAK_AFTER times in a row gets a pause, which
 * grows: its waiting requests end at once as not sent, so that one silent
 * provider neither fills the room for jobs nor makes each connection wait for
 * itself.  After the pause one request goes first; an answer, whatever it says,
 * ends the pauses.
 *
 * Process-local; forgotten with the worker, pauses also when the configuration
 * changes.
 */
#include "worker/host_queue.h"

#include "core/codec.h"
#include "guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define HOST_MAX 264			/* host and port */
#define BREAK_AFTER 8
#define PAUSE_MIN_MS 2000
#define PAUSE_MAX_MS 60000
#define RETRY_MS 50				/* when departures could not be committed */

struct OvHost
{
	char		name[HOST_MAX]; /* hash key */
	int			active;
	int			silent;			/* requests in a row without an answer */
	int			pause_ms;		/* of the last pause; 0: closed */
	TimestampTz paused_until;
	OvJob	   *first;			/* waiting, linked by next_waiting */
	OvJob	   *last;
};

static HTAB *hosts;
static bool waiting;			/* does any host have some? */

static OvHost *
host_of(OvJob *job, const char *url)
{
	char		key[HOST_MAX] = "";
	OvUrl		parsed;
	OvHost	   *h;
	bool		found;

	if (hosts == NULL)
	{
		HASHCTL		ctl = {.keysize = HOST_MAX, .entrysize = sizeof(OvHost), .hcxt = TopMemoryContext};

		hosts = hash_create("oauth_vault hosts", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	/* what is no URL is the engine's to refuse */
	if (ov_url_parse(job->arena, url, &parsed, NULL) == OV_OK)
		snprintf(key, sizeof(key), "%s:%d", parsed.host, parsed.port);
	h = hash_search(hosts, key, HASH_ENTER, &found);
	if (!found)
		memset((char *) h + sizeof(h->name), 0, sizeof(*h) - sizeof(h->name));
	return h;
}

/* May one more request go to this host now? */
static bool
has_room(const OvHost *h, TimestampTz now)
{
	if (h->pause_ms > 0)
		return h->active == 0 && h->paused_until <= now;
	return h->active < ov_guc_max_host_connections;
}

static bool
is_paused(const OvHost *h, TimestampTz now)
{
	return h->pause_ms > 0 && h->paused_until > now;
}

static void
reserve(OvHost *h, OvJob *job)
{
	job->host = h;
	job->reserved = true;
	h->active++;
}

void
ov_host_release(OvJob *job)
{
	if (job->reserved)
		job->host->active--;
	job->reserved = false;
	job->host = NULL;
}

bool
ov_host_reserve(OvJob *job, const char *url, TimestampTz *paused_until)
{
	TimestampTz now = GetCurrentTimestamp();
	OvHost	   *h = host_of(job, url);

	*paused_until = is_paused(h, now) ? h->paused_until : 0;
	if (*paused_until == 0 && h->first == NULL && has_room(h, now))
		reserve(h, job);
	return job->reserved;
}

static void
enqueue(OvHost *h, OvJob *job)
{
	job->host = h;
	job->next_waiting = NULL;
	if (h->first == NULL)
		h->first = job;
	else
		h->last->next_waiting = job;
	h->last = job;
	waiting = true;
}

void
ov_job_send(OvJob *job, const OvHttpRequest *req)
{
	TimestampTz paused_until = 0;

	job->waiting = *req;
	if (job->reserved || ov_host_reserve(job, req->url, &paused_until))
		ov_engine_send(job, &job->waiting);
	else if (paused_until != 0)
		ov_engine_fail(job, OV_HOST_PAUSED);
	else
		enqueue(host_of(job, req->url), job);
}

void
ov_host_answered(OvJob *job, const OvHttpResponse *resp)
{
	OvHost	   *h = job->host;

	if (h == NULL)
		return;
	ov_host_release(job);
	if (resp->transport_error == NULL && resp->status != 0)
	{
		h->silent = 0;
		h->pause_ms = 0;
		return;
	}
	/* Those that were under way when the pause began say nothing new. */
	if (++h->silent < BREAK_AFTER || is_paused(h, GetCurrentTimestamp()))
		return;
	h->pause_ms = Min(Max(h->pause_ms * 2, PAUSE_MIN_MS), PAUSE_MAX_MS);
	h->paused_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), h->pause_ms);
}

static OvJob *
dequeue(OvHost *h)
{
	OvJob	   *job = h->first;

	h->first = job->next_waiting;
	job->next_waiting = NULL;
	return job;
}

static void
put_back(OvJob *job)
{
	OvHost	   *h = job->host;

	ov_host_release(job);
	job->host = h;
	job->next_waiting = h->first;
	if (h->first == NULL)
		h->last = job;
	h->first = job;
	waiting = true;
}

/* Takes up to OV_DEPART_MAX that have room now; ends those of paused hosts. */
static int
take_ready(OvJob **ready)
{
	HASH_SEQ_STATUS all;
	OvHost	   *h;
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;

	waiting = false;
	hash_seq_init(&all, hosts);
	while ((h = hash_seq_search(&all)) != NULL)
	{
		while (h->first != NULL && is_paused(h, now))
		{
			OvJob	   *job = dequeue(h);

			job->host = NULL;
			ov_engine_fail(job, OV_HOST_PAUSED);
		}
		while (h->first != NULL && n < OV_DEPART_MAX && has_room(h, now))
		{
			ready[n] = dequeue(h);
			reserve(h, ready[n++]);
		}
		waiting = waiting || h->first != NULL;
	}
	return n;
}

int
ov_hosts_take(OvJob **ready)
{
	return waiting ? take_ready(ready) : 0;
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
	if (n == OV_DEPART_MAX)
		ov_tick_at(OV_TICK_DISPATCH, GetCurrentTimestamp());
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
		h->silent = h->pause_ms = 0;
}
