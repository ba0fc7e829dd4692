/*
 * refresh_flight.c
 *	  The refreshes under way, by connection, and who waits for them.
 *
 * One refresh a connection: it is entered when its claim has been decided on and
 * leaves when its answer is stored, or when the claim could not be committed.
 * Whoever asks meanwhile is attached to it.  Process-local.
 */
#include "worker/refresh.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#define WAITERS_MS 500			/* between looks at whether they still wait */

static HTAB *running;

typedef struct Running
{
	unsigned char id[16];		/* hash key */
	OvRefresh  *job;
} Running;

OvRefresh *
ov_refresh_running(const unsigned char id[16])
{
	Running    *r;

	if (running == NULL)
	{
		HASHCTL		ctl = {.keysize = 16, .entrysize = sizeof(Running), .hcxt = TopMemoryContext};

		running = hash_create("oauth_vault refreshes", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	r = hash_search(running, id, HASH_FIND, NULL);
	return r ? r->job : NULL;
}

void
ov_refresh_remember(OvRefresh *job)
{
	Running    *r = hash_search(running, job->g.connection_id, HASH_ENTER, NULL);

	r->job = job;
	ov_shared_remember(job);
}

void
ov_refresh_forget(OvRefresh *r)
{
	(void) hash_search(running, r->g.connection_id, HASH_REMOVE, NULL);
	ov_shared_forget(r);
}

void
ov_refresh_each(void (*count) (const OvRefresh *r))
{
	HASH_SEQ_STATUS all;
	Running    *r;

	if (running != NULL)
		hash_seq_init(&all, running);
	while (running != NULL && (r = hash_seq_search(&all)) != NULL)
		count(r->job);
}

void
ov_refresh_attach(OvWant *w)
{
	OvWaiter   *waiter;

	if (!w->has_ticket)
		return;
	if (!ov_slot_wanted(&w->ticket))
	{
		/* Nobody waits: the slot is free for others, the work goes on. */
		ov_answer_refreshed(&w->ticket, w->rejected, "refreshed", w->generation);
		return;
	}
	ov_tick_at(OV_TICK_WAITERS, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WAITERS_MS));
	waiter = MemoryContextAllocZero(w->job->job.context, sizeof(OvWaiter));
	waiter->ticket = w->ticket;
	waiter->rejected = w->rejected;
	waiter->generation = w->own_generation ? w->own_generation : w->job->g.generation;
	waiter->next = w->job->waiters;
	w->job->waiters = waiter;
	w->job->g.used = true;
	ov_host_hurry(&w->job->job);
	if (w->job->caller == NULL)
		w->job->caller = ov_caller_copy(w->caller, w->job->job.context);
}

/* Slots of callers that have left are given back: a hanging provider must not use them up. */
void
ov_refresh_waiters_tick(TimestampTz now)
{
	HASH_SEQ_STATUS all;
	Running    *r;
	bool		left = false;

	hash_seq_init(&all, running);
	while ((r = hash_seq_search(&all)) != NULL)
		for (OvWaiter **w = &r->job->waiters; *w != NULL;)
		{
			if (ov_slot_wanted(&(*w)->ticket))
			{
				w = &(*w)->next;
				left = true;
				continue;
			}
			ov_answer_refreshed(&(*w)->ticket, (*w)->rejected, "refreshed", r->job->g.generation);
			*w = (*w)->next;
		}
	if (left)
		ov_tick_at(OV_TICK_WAITERS, TimestampTzPlusMilliseconds(now, WAITERS_MS));
}
