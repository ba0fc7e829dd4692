/*
 * actors.c
 *	  See actors.h.
 *
 * A table of fixed size in shared memory: one entry per database, connector,
 * tenant and actor that has read of late.  The entries' lock is exclusive for
 * each read that is counted; nothing under it allocates, raises or waits.  The
 * key is a hash, as an actor's name may be long; what is shown of it is cut.
 *
 * The window slides: of the minute before, the part that still lies within the
 * last sixty seconds counts, as if its reads had come evenly.  An entry that
 * nobody has used for two minutes, and that is not frozen, makes room when there
 * is none.  With no room even so nobody is let through uncounted.
 *
 * A frozen actor is so until its time is over, an administrator lifts it, or
 * the server starts again.
 */
#include "worker/actors.h"

#include "core/codec.h"
#include "guc.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "worker/shmem.h"

#define KEY_LEN 32

typedef struct Entry
{
	unsigned char key[KEY_LEN];
	Oid			database;
	TimestampTz minute;			/* when the current window began */
	int32		now;			/* reads in it */
	int32		before;			/* and in the one before */
	OvFrozenActor frozen;		/* until 0: is not */
} Entry;

static HTAB *actors;

Size
ov_actors_size(void)
{
	return hash_estimate_size(ov_guc_max_actors, sizeof(Entry));
}

void
ov_actors_startup(void)
{
	HASHCTL		ctl = {.keysize = KEY_LEN, .entrysize = sizeof(Entry)};

	actors = ShmemInitHash("oauth_vault actors", ov_guc_max_actors, ov_guc_max_actors, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

/* Neither a tenant nor an actor has a NUL in it: one behind the tenant keeps them apart. */
static void
key_of(const unsigned char connector_id[16], const char *tenant, const char *actor, unsigned char key[KEY_LEN])
{
	size_t		ntenant = strlen(tenant) + 1,
				nactor = strlen(actor);
	size_t		len = sizeof(Oid) + 16 + ntenant + nactor;
	unsigned char *buf = palloc(len),
			   *p = buf;

	memcpy(p, &MyDatabaseId, sizeof(Oid));
	memcpy(p += sizeof(Oid), connector_id, 16);
	memcpy(p += 16, tenant, ntenant);
	memcpy(p += ntenant, actor, nactor);
	ov_sha256(buf, len, key);
	pfree(buf);
}

static bool
is_frozen(Entry *e, TimestampTz now)
{
	TimestampTz longest = now + (TimestampTz) ov_guc_actor_freeze * USECS_PER_SEC;

	if (e->frozen.until == 0)
		return false;
	/* the clock was set back, or the setting lowered: not for longer than that */
	if (e->frozen.until > longest)
		e->frozen.until = longest;
	if (e->frozen.until > now)
		return true;
	e->frozen.until = 0;
	return false;
}

static void
make_room(TimestampTz now)
{
	HASH_SEQ_STATUS all;
	Entry	   *e;

	hash_seq_init(&all, actors);
	while ((e = hash_seq_search(&all)) != NULL)
		if (!is_frozen(e, now) && (e->minute > now || now - e->minute > 2 * USECS_PER_MINUTE))
			(void) hash_search(actors, e->key, HASH_REMOVE, NULL);
}

static Entry *
entry_of(const unsigned char key[KEY_LEN], TimestampTz now)
{
	Entry	   *e = hash_search(actors, key, HASH_FIND, NULL);

	if (e != NULL)
		return e;
	if (hash_get_num_entries(actors) >= ov_guc_max_actors)
		make_room(now);
	if (hash_get_num_entries(actors) >= ov_guc_max_actors)
		return NULL;
	e = hash_search(actors, key, HASH_ENTER_NULL, NULL);
	if (e == NULL)
		return NULL;
	memset((char *) e + KEY_LEN, 0, sizeof(*e) - KEY_LEN);
	e->database = MyDatabaseId;
	e->minute = now;
	return e;
}

/* Counts the read; is it one too many? */
static bool
too_many(Entry *e, int32 limit, TimestampTz now)
{
	int64		passed = now - e->minute;

	if (passed < 0 || passed >= 2 * USECS_PER_MINUTE)
	{
		e->minute = now;
		e->before = e->now = 0;
		passed = 0;
	}
	else if (passed >= USECS_PER_MINUTE)
	{
		e->minute += USECS_PER_MINUTE;
		e->before = e->now;
		e->now = 0;
		passed -= USECS_PER_MINUTE;
	}
	if (e->now < PG_INT32_MAX)
		e->now++;
	return e->now + (int64) e->before * (USECS_PER_MINUTE - passed) / USECS_PER_MINUTE > limit;
}

OvActorState
ov_actor_reads(const unsigned char connector_id[16], const char *tenant, const char *actor,
			   int32 limit, TimestampTz *until)
{
	unsigned char key[KEY_LEN];
	TimestampTz now = GetCurrentTimestamp();
	size_t		shown = pg_mbcliplen(actor, strlen(actor), OV_ACTOR_SHOWN - 1);
	OvActorState state = OV_ACTOR_MAY;
	Entry	   *e;

	key_of(connector_id, tenant, actor, key);
	LWLockAcquire(ov_shared->actors_lock, LW_EXCLUSIVE);
	e = entry_of(key, now);
	if (e == NULL)
		state = OV_ACTOR_NO_ROOM;
	else if (is_frozen(e, now))
		state = OV_ACTOR_FROZEN;
	else if (too_many(e, limit, now))
	{
		state = OV_ACTOR_TOO_FAST;
		memcpy(e->frozen.connector_id, connector_id, 16);
		strlcpy(e->frozen.tenant, tenant, sizeof(e->frozen.tenant));
		strlcpy(e->frozen.actor, actor, shown + 1);
		e->frozen.since = now;
		e->frozen.until = now + (TimestampTz) ov_guc_actor_freeze * USECS_PER_SEC;
	}
	*until = e ? e->frozen.until : 0;
	LWLockRelease(ov_shared->actors_lock);
	return state;
}

bool
ov_actor_thaw(const unsigned char connector_id[16], const char *tenant, const char *actor)
{
	unsigned char key[KEY_LEN];
	TimestampTz now = GetCurrentTimestamp();
	Entry	   *e;
	bool		was;

	key_of(connector_id, tenant, actor, key);
	LWLockAcquire(ov_shared->actors_lock, LW_EXCLUSIVE);
	e = hash_search(actors, key, HASH_FIND, NULL);
	was = e != NULL && is_frozen(e, now);
	/* what it has read is forgotten with it: otherwise the next read would freeze it again */
	if (was)
		(void) hash_search(actors, key, HASH_REMOVE, NULL);
	LWLockRelease(ov_shared->actors_lock);
	return was;
}

OvFrozenActor *
ov_actors_frozen(int *n)
{
	OvFrozenActor *list = palloc(sizeof(OvFrozenActor) * ov_guc_max_actors);
	TimestampTz now = GetCurrentTimestamp();
	HASH_SEQ_STATUS all;
	Entry	   *e;

	*n = 0;
	LWLockAcquire(ov_shared->actors_lock, LW_EXCLUSIVE);
	hash_seq_init(&all, actors);
	while ((e = hash_seq_search(&all)) != NULL)
		if (e->database == MyDatabaseId && is_frozen(e, now))
			list[(*n)++] = e->frozen;
	LWLockRelease(ov_shared->actors_lock);
	return list;
}
