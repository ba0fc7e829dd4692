/*
 * actors.h
 *	  How often each agent reads tokens, counted across sessions; who is frozen.
 */
#ifndef OV_ACTORS_H
#define OV_ACTORS_H

#include "postgres.h"
#include "utils/timestamp.h"

#define OV_ACTOR_SHOWN 256

typedef enum OvActorState
{
	OV_ACTOR_MAY,
	OV_ACTOR_TOO_FAST,			/* and frozen from now on: said once */
	OV_ACTOR_FROZEN,
	OV_ACTOR_NO_ROOM			/* more actors at a time than are counted */
} OvActorState;

/* One of this database's frozen actors */
typedef struct OvFrozenActor
{
	unsigned char connector_id[16];
	char		tenant[OV_ACTOR_SHOWN];
	char		actor[OV_ACTOR_SHOWN];	/* cut */
	TimestampTz since;
	TimestampTz until;
} OvFrozenActor;

extern Size ov_actors_size(void);
/* Under AddinShmemInitLock */
extern void ov_actors_startup(void);

/*
 * One more read by this actor of this tenant.  limit: of a minute.  *until: when
 * a frozen one may read again.
 */
extern OvActorState ov_actor_reads(const unsigned char connector_id[16], const char *tenant, const char *actor,
								   int32 limit, TimestampTz *until);
/* False: was not frozen. */
extern bool ov_actor_thaw(const unsigned char connector_id[16], const char *tenant, const char *actor);
/* palloc'd */
extern OvFrozenActor *ov_actors_frozen(int *n);

#endif							/* OV_ACTORS_H */
