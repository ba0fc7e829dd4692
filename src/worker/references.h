/*
 * references.h
 *	  Which platform keys a database's vault_key rows are wrapped with: told in
 *	  shared memory, so that the key worker does not drop one that is needed.
 *
 * Written by the database's network worker, which reads them off the table,
 * and by whoever has had a new key wrapped (which is not committed yet).
 * Guarded by ov_shared->lock.
 */
#ifndef OV_REFERENCES_H
#define OV_REFERENCES_H

#include "postgres.h"
#include "core/vaultfile.h"

#define OV_MAX_REFERENCES 64

typedef struct OvReference
{
	int32		version;
	char		fingerprint[OV_KEY_FINGERPRINT_LEN + 1];	/* "": not known */
} OvReference;

/* A new key of this database has been wrapped with it. */
extern void ov_reference_note(int version, const char *fingerprint);
/* What the table says.  whole: nothing that is not committed yet can be missing,
 * so that what was noted and is not in the list is forgotten. */
extern void ov_references_publish(const OvReference *list, int n, bool whole);
/* Key worker: the first reference that is in one ring and not in the other. */
extern bool ov_reference_lost(const OvVaultFile *before, const OvVaultFile *after,
							  OvReference *lost, Oid *database);

#endif							/* OV_REFERENCES_H */
