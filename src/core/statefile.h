/*
 * statefile.h
 *	  What this machine remembers of a vault: who holds it, and how far it was.
 *
 * One small file per vault, outside the data directory, so that it does not go
 * back in time when the database does.  A database that is behind it has been
 * restored; one that lies elsewhere is a copy.
 *
 * "since" says which claim of the vault the file speaks of (claimed_at of the
 * home row).  A later claim is news and replaces the file; an earlier one is a
 * restored database.  Within one claim the counter must not go back.
 */
#ifndef OV_STATEFILE_H
#define OV_STATEFILE_H

#include "arena.h"

typedef struct OvState
{
	unsigned char vault_id[16];
	int64_t		since;			/* microseconds; of the claim */
	int64_t		counter;
	/* who holds the vault */
	uint64_t	system_identifier;
	uint32_t	timeline;
	uint32_t	database;		/* OID */
	char		directory[1024];	/* data directory, resolved */
	char		writer[48];		/* random, of the process that wrote the file */
} OvState;

/* Is dir (resolved into real, of PATH_MAX bytes) a place for state files:
 * absolute, and neither in the data directory nor in one of its tablespaces? */
extern OvCode ov_state_dir(const char *dir, const char *data_directory, char *real, OvError *err);

/* OV_E_NOTFOUND: there is no file.  Only a regular file of our own user is read. */
extern OvCode ov_state_load(const char *path, OvState *state, OvError *err);
/* Replaces the file as a whole and durably; mode 0600. */
extern OvCode ov_state_save(const char *path, const OvState *state, OvError *err);

/*
 * May `me` go on, given what the file says?  me->writer: who of us wrote the
 * file last, "" if this process has not yet.  false: why.
 */
extern bool ov_state_allows(const OvState *file, const OvState *me, char *why, size_t size);

#endif							/* OV_STATEFILE_H */
