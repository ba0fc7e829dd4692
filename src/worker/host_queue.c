/*
 * host_queue.c
 *	  Requests on their way to the engine: how many at a time to one host.
 *
 * A host gets oauth_vault.max_host_connections requests at a time; the others
 * wait here, where no timeout of theirs runs yet.  A host that has not answered
 * BREAK_AFTER times in a row gets a pause, which grows: its waiting requests end
 * at once as not sent, so that one silent provider neither fills the room for
 * jobs nor makes each connection wait for itself.  After the pause one request
 * goes first; an answer, whatever it says, closes the breaker.
 *
 * Process-local; forgotten with the worker, and when the configuration changes.
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
may_send(const OvHost *h, TimestampTz now)
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
send_now(OvHost *h, OvJob *job)
{
	h->active++;
	ov_engine_send(job, &job->waiting);
}

void
ov_job_send(OvJob *job, const OvHttpRequest *req)
{
	TimestampTz now = GetCurrentTimestamp();
	OvHost	   *h = host_of(job, req->url);

	job->host = h;
	job->waiting = *req;
	if (is_paused(h, now))
	{
		job->host = NULL;
		ov_engine_fail(job, "the provider's host has not answered for a while");
		return;
	}
	if (h->first == NULL && may_send(h, now))
	{
		send_now(h, job);
		return;
	}
	job->next_waiting = NULL;
	if (h->first == NULL)
		h->first = job;
	else
		h->last->next_waiting = job;
	h->last = job;
	waiting = true;
}

void
ov_host_answered(OvJob *job, const OvHttpResponse *resp)
{
	OvHost	   *h = job->host;

	if (h == NULL)
		return;
	job->host = NULL;
	h->active--;
	if (resp->transport_error == NULL && resp->status != 0)
	{
		h->silent = 0;
		h->pause_ms = 0;
		return;
	}
	if (++h->silent < BREAK_AFTER)
		return;
	h->pause_ms = Min(Max(h->pause_ms * 2, PAUSE_MIN_MS), PAUSE_MAX_MS);
	h->paused_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), h->pause_ms);
}

static OvJob *
take(OvHost *h)
{
	OvJob	   *job = h->first;

	h->first = job->next_waiting;
	job->next_waiting = NULL;
	return job;
}

void
ov_hosts_dispatch(void)
{
	HASH_SEQ_STATUS all;
	OvHost	   *h;
	TimestampTz now;

	if (!waiting)
		return;
	now = GetCurrentTimestamp();
	waiting = false;
	hash_seq_init(&all, hosts);
	while ((h = hash_seq_search(&all)) != NULL)
	{
		while (h->first != NULL && is_paused(h, now))
		{
			OvJob	   *job = take(h);

			job->host = NULL;
			ov_engine_fail(job, "the provider's host has not answered for a while");
		}
		while (h->first != NULL && may_send(h, now))
			send_now(h, take(h));
		waiting = waiting || h->first != NULL;
	}
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
