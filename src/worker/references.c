/*
 * references.c
 *	  See references.h.
 *
 * Nothing here waits or raises: the lists are fixed arrays.  A database with
 * more than OV_MAX_REFERENCES keys (a vault file holds 64) tells the first.
 */
#include "worker/references.h"
#include "worker/shmem.h"

#include "miscadmin.h"

static void
add(OvDatabase *db, const OvReference *ref)
{
	for (int i = 0; i < db->nreferences; i++)
		if (db->references[i].version == ref->version &&
			strcmp(db->references[i].fingerprint, ref->fingerprint) == 0)
			return;
	if (db->nreferences < OV_MAX_REFERENCES)
		db->references[db->nreferences++] = *ref;
}

void
ov_reference_note(int version, const char *fingerprint)
{
	OvReference ref = {.version = version};
	OvDatabase *db;

	strlcpy(ref.fingerprint, fingerprint ? fingerprint : "", sizeof(ref.fingerprint));
	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	db = ov_database_entry(MyDatabaseId, false);
	if (db != NULL)
		add(db, &ref);
	LWLockRelease(ov_shared->lock);
}

void
ov_references_publish(const OvReference *list, int n, bool whole)
{
	OvDatabase *db;

	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	db = ov_database_entry(MyDatabaseId, false);
	if (db != NULL)
	{
		if (whole)
			db->nreferences = 0;
		for (int i = 0; i < n; i++)
			add(db, &list[i]);
	}
	LWLockRelease(ov_shared->lock);
}

bool
ov_reference_lost(const OvVaultFile *before, const OvVaultFile *after, OvReference *lost, Oid *database)
{
	bool		found = false;

	LWLockAcquire(ov_shared->lock, LW_SHARED);
	for (int i = 0; i < ov_shared->ndatabases && !found; i++)
	{
		const OvDatabase *db = &ov_shared->database[i];

		if (!OidIsValid(db->oid) || db->presence != OV_EXT_PRESENT)
			continue;
		for (int k = 0; k < db->nreferences && !found; k++)
		{
			const OvReference *ref = &db->references[k];

			if (!ov_vaultfile_has(before, ref->version, ref->fingerprint) ||
				ov_vaultfile_has(after, ref->version, ref->fingerprint))
				continue;
			*lost = *ref;
			*database = db->oid;
			found = true;
		}
	}
	LWLockRelease(ov_shared->lock);
	return found;
}
