/*
 * person_lock.c
 *	  A lock on a person or tenant, whether or not there is any row yet.
 *
 * A consent that is being stored may insert the person's first connection.
 * Offboarding that has looked before must not commit after: the one holds the
 * lock shared from its look at the offboardings to its commit, the other
 * exclusively from before its look at the connections to its commit.
 *
 * An advisory lock of a class that no SQL function can take, so that nobody
 * else's locks get in the way.
 */
#include "person_lock.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"

#define OUR_CLASS 0x4f56		/* SQL's are 1 and 2 */

static LockAcquireResult
acquire(const char *tenant, const char *user_id, LOCKMODE mode, bool wait)
{
	char	   *name = psprintf("%zu:%s%s%s", strlen(tenant), tenant, user_id ? " " : "", user_id ? user_id : "");
	uint64		hash = hash_bytes_extended((const unsigned char *) name, strlen(name), 0);
	LOCKTAG		tag;

	pfree(name);
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, OUR_CLASS);
	return LockAcquire(&tag, mode, false, !wait);
}

void
ov_person_exclude(const char *tenant, const char *user_id)
{
	(void) acquire(tenant, user_id, ExclusiveLock, true);
}

bool
ov_person_share(const char *tenant, const char *user_id)
{
	return acquire(tenant, NULL, ShareLock, false) != LOCKACQUIRE_NOT_AVAIL &&
		acquire(tenant, user_id, ShareLock, false) != LOCKACQUIRE_NOT_AVAIL;
}
