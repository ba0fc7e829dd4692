/*
 * shmem.h
 *	  Layout of the shared memory, for the files in worker/ only.
 *
 * lock guards the registry, the settings and each database entry's fields.
 * Entries are found by scanning (there are few) and are reused when their
 * database has gone; whoever keeps an index checks the oid again.
 */
#ifndef OV_SHMEM_H
#define OV_SHMEM_H

#include "compat.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"
#include "worker/figures.h"
#include "worker/references.h"
#include "worker/slots.h"

#define OV_SETTINGS_MAX (32 * 1024)

/* Where a worker sits; pid 0: nobody. */
typedef struct OvSeat
{
	int			pid;
	int			procno;
	uint32		incarnation;	/* bumped by every register and unregister */
} OvSeat;

typedef enum OvPresence
{
	OV_EXT_UNKNOWN,				/* to be probed */
	OV_EXT_PRESENT,
	OV_EXT_ABSENT
} OvPresence;

typedef struct OvDatabase
{
	Oid			oid;			/* InvalidOid: free entry */
	OvPresence	presence;
	uint32		asked;			/* bumped whenever presence becomes unknown again */
	int			embargo;		/* statements that want our workers out */
	OvSeat		network;
	OvSeat		audit;
	int			nreferences;	/* platform keys that its keys are wrapped with (references.h) */
	OvReference references[OV_MAX_REFERENCES];

	/* What the network worker found out about this copy of the database */
	bool		held;
	TimestampTz held_claim;		/* claimed_at of the home row it looked at */
	TimestampTz held_floor;		/* a claim must be later than this */
	char		held_why[256];

	/* Audit ring: ring_lock guards head and the bytes between tail and head;
	 * tail belongs to the audit writer.  Positions count bytes for ever. */
	LWLock	   *ring_lock;
	pg_atomic_uint64 head;
	pg_atomic_uint64 tail;		/* everything before it is committed */
	ConditionVariable moved;	/* tail has moved, or trouble has ended */
	pg_atomic_uint32 trouble;	/* SQLSTATE for which the audit writer cannot write now; 0: none */

	/* The last row committed in this server's life; ring_lock */
	Oid			trail;			/* the table's OID; InvalidOid: none yet */
	int64		end_id;
	unsigned char end_hash[32];
	int64		sealed_id;		/* and the last row under a head */

	OvEventCount events[OV_EVENT_KINDS];	/* ring_lock; those in use come first */
	pg_atomic_uint64 figures[OV_NFIGURES];
	int			nhosts;
	OvHostFigure hosts[OV_HOST_FIGURES];
} OvDatabase;

typedef enum OvSlotState
{
	OV_SLOT_FREE, OV_SLOT_CLAIMED, OV_SLOT_POSTED, OV_SLOT_TAKEN, OV_SLOT_DONE, OV_SLOT_ABANDONED
} OvSlotState;

typedef struct OvSlot
{
	pg_atomic_uint32 state;
	uint32		generation;		/* bumped by each claim; written in CLAIMED */
	OvWorkerKind kind;
	OvOp		op;
	Oid			database;
	int			requester_pid;
	int			requester_procno;
	bool		detached;		/* nobody waits for the answer; written in CLAIMED */
	bool		failed;			/* the payload is an error answer; written in TAKEN */
	uint32		len;			/* of the payload */
} OvSlot;

typedef struct OvShared
{
	LWLock	   *lock;
	LWLock	   *actors_lock;	/* of the table in actors.c */
	OvSeat		launcher;
	OvSeat		key;
	uint32		settings_generation;
	pg_atomic_uint32 recalled;	/* how often sessions were to forget their subkeys */
	char		reason[512];	/* why there are no settings */
	char		settings[OV_SETTINGS_MAX];	/* "" : none */
	int			nslots;			/* per kind */
	int			ndatabases;
	uint32		ring_size;
	OvDatabase	database[FLEXIBLE_ARRAY_MEMBER];
} OvShared;

extern OvShared *ov_shared;
extern OvSlot *ov_slots;				/* 2 x nslots: key worker's, then network workers' */
extern unsigned char *ov_payloads;		/* OV_MESSAGE_MAX each, same order */
extern unsigned char *ov_rings;			/* ring_size each, one per database entry */

/* Entry of a database, or NULL; create: make one (NULL when all are taken).
 * The caller holds the lock (shared is enough without create). */
extern OvDatabase *ov_database_entry(Oid oid, bool create);
extern OvSeat *ov_seat(OvWorkerKind kind, Oid database);	/* the same */

#endif							/* OV_SHMEM_H */
