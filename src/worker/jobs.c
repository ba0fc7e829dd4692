/*
 * jobs.c
 *	  What the network worker has under way: how much, and room for how much more.
 *
 * A job is an exchange with a provider, whatever for, from its making to the
 * moment at which its answer is stored.  It has a memory context and an arena of
 * its own; the arena is cleansed with it.  Whoever found no room is called again
 * when there is some.  Process-local.
 */
#include "worker/host_queue.h"
#include "worker/network.h"

#include "guc.h"
#include "utils/memutils.h"

static dlist_head jobs = DLIST_STATIC_INIT(jobs);
static int	njobs;
static bool starved;			/* somebody was told that there is no room */
static bool hungry;				/* refreshes are due for which there is no room yet */

void *
ov_job_new(OvJobKind kind, Size size, void (*read) (OvJob *job, const OvHttpResponse *resp))
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "oauth_vault job", ALLOCSET_SMALL_SIZES);
	OvJob	   *job = MemoryContextAllocZero(context, size);

	job->kind = kind;
	job->context = context;
	job->read = read;
	job->arena = ov_arena_new();
	dlist_push_tail(&jobs, &job->all);
	njobs++;
	return job;
}

void
ov_job_free(OvJob *job)
{
	ov_host_release(job);
	if (job->release != NULL)
		job->release(job);
	dlist_delete(&job->all);
	njobs--;
	ov_arena_free(job->arena);
	MemoryContextDelete(job->context);
	if (hungry)
	{
		hungry = false;
		ov_tick_at(OV_TICK_DUE, GetCurrentTimestamp());
	}
	if (starved)
	{
		TimestampTz now = GetCurrentTimestamp();

		starved = false;
		ov_tick_at(OV_TICK_RECOVER, now);
		ov_tick_at(OV_TICK_DUE, now);
		ov_tick_at(OV_TICK_OUTBOX, now);
	}
}

void
ov_job_sends(OvJob *job, const char *secret)
{
	int			i = 0;

	if (secret == NULL)
		return;
	while (i < OV_MAX_SENT && job->secrets[i] != NULL && strcmp(job->secrets[i], secret) != 0)
		i++;
	if (i == OV_MAX_SENT)
		elog(ERROR, "a request carries more secrets than there is room to note");
	job->secrets[i] = secret;
}

int
ov_jobs_limit(bool background)
{
	return background ? Max(1, ov_guc_max_concurrency * 3 / 4) : ov_guc_max_concurrency;
}

int
ov_jobs_room(bool background)
{
	int			limit = ov_jobs_limit(background);

	if (njobs < limit)
		return limit - njobs;
	starved = true;
	return 0;
}

bool
ov_jobs_use_key(int64 key_id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &jobs)
		if (dlist_container(OvJob, all, iter.cur)->key_id == key_id)
			return true;
	return false;
}

void
ov_jobs_hungry(void)
{
	hungry = true;
}

int
ov_jobs_under_way(void)
{
	return njobs;
}

void
ov_jobs_leave(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &jobs)
	{
		OvJob	   *job = dlist_container(OvJob, all, iter.cur);

		if (job->release != NULL)
			job->release(job);
		ov_arena_free(job->arena);
		job->arena = NULL;
	}
}
