/*
 * shmem.c
 *	  Shared memory: request, layout, registry of workers, published settings.
 *
 * Lifecycle: sized in shmem_request_hook (the settings behind it are
 * PGC_POSTMASTER), initialised in shmem_startup_hook, also again after a crash
 * restart.  Only pids, proc numbers, atomics, locks and bytes live here.
 *
 * Payloads and rings may carry secrets and personal data: their pages are left
 * out of core dumps (MADV_DONTDUMP; every child inherits it).
 */
#include "worker/shmem.h"

#include <sys/mman.h>
#include <unistd.h>

#include "debug_point.h"
#include "guc.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "worker/actors.h"

OvShared   *ov_shared;
OvSlot	   *ov_slots;
unsigned char *ov_payloads;
unsigned char *ov_rings;
OvWorkerKind ov_my_worker_kind;
bool		ov_i_am_worker;

static Oid	my_worker_database;

static Size
page_size(void)
{
	long		n = sysconf(_SC_PAGESIZE);

	return n > 0 ? (Size) n : 4096;
}

static Size
shared_size(void)
{
	return offsetof(OvShared, database) + mul_size(ov_guc_max_databases, sizeof(OvDatabase));
}

static Size
slots_size(void)
{
	return mul_size(2 * (Size) ov_guc_request_slots, sizeof(OvSlot));
}

/* Payloads and rings, with room to start them on a page of their own. */
static Size
private_size(void)
{
	Size		size = mul_size(2 * (Size) ov_guc_request_slots, OV_MESSAGE_MAX);

	size = add_size(size, mul_size(ov_guc_max_databases, (Size) ov_guc_audit_ring_size * 1024));
	return add_size(size, 2 * page_size());
}

void
ov_shmem_request(void)
{
	RequestAddinShmemSpace(add_size(add_size(add_size(shared_size(), slots_size()), private_size()), ov_actors_size()));
	RequestNamedLWLockTranche("oauth_vault", 2 + ov_guc_max_databases);
}

void
ov_shmem_startup(void)
{
	bool		found_shared,
				found_slots,
				found_private;
	unsigned char *area;
	uintptr_t	page = page_size();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ov_shared = ShmemInitStruct("oauth_vault", shared_size(), &found_shared);
	ov_slots = ShmemInitStruct("oauth_vault slots", slots_size(), &found_slots);
	ov_actors_startup();
	area = ShmemInitStruct("oauth_vault payloads", private_size(), &found_private);
	area = (unsigned char *) (((uintptr_t) area + page - 1) / page * page);
	ov_payloads = area;
	ov_rings = area + 2 * (Size) ov_guc_request_slots * OV_MESSAGE_MAX;
	if (!found_shared)
	{
		LWLockPadded *locks = GetNamedLWLockTranche("oauth_vault");

		memset(ov_shared, 0, shared_size());
		ov_shared->lock = &locks[0].lock;
		ov_shared->actors_lock = &locks[1 + ov_guc_max_databases].lock;
		pg_atomic_init_u32(&ov_shared->recalled, 0);
		ov_shared->nslots = ov_guc_request_slots;
		ov_shared->ndatabases = ov_guc_max_databases;
		ov_shared->ring_size = (uint32) ov_guc_audit_ring_size * 1024;
		strlcpy(ov_shared->reason, "the key worker has not started yet", sizeof(ov_shared->reason));
		for (int i = 0; i < ov_guc_max_databases; i++)
		{
			OvDatabase *db = &ov_shared->database[i];

			db->ring_lock = &locks[1 + i].lock;
			pg_atomic_init_u64(&db->head, 0);
			pg_atomic_init_u64(&db->tail, 0);
			ConditionVariableInit(&db->moved);
			pg_atomic_init_u32(&db->trouble, 0);
			for (int f = 0; f < OV_NFIGURES; f++)
				pg_atomic_init_u64(&db->figures[f], 0);
		}
		memset(ov_slots, 0, slots_size());
		for (int i = 0; i < 2 * ov_guc_request_slots; i++)
			pg_atomic_init_u32(&ov_slots[i].state, OV_SLOT_FREE);
#ifdef MADV_DONTDUMP
		/* Refused under huge pages of another alignment: then core dumps are
		 * for the operator to limit, as the manual says. */
		(void) madvise(area, private_size() - 2 * page, MADV_DONTDUMP);
#endif
	}
	LWLockRelease(AddinShmemInitLock);
}

bool
ov_shmem_ready(void)
{
	return ov_shared != NULL;
}

OvDatabase *
ov_database_entry(Oid oid, bool create)
{
	OvDatabase *vacant = NULL;

	for (int i = 0; i < ov_shared->ndatabases; i++)
	{
		OvDatabase *db = &ov_shared->database[i];

		if (db->oid == oid)
			return db;
		if (db->oid == InvalidOid && vacant == NULL)
			vacant = db;
	}
	if (!create || vacant == NULL)
		return NULL;
	vacant->oid = oid;
	vacant->presence = OV_EXT_UNKNOWN;
	vacant->embargo = 0;
	vacant->held = false;
	vacant->nreferences = 0;
	pg_atomic_write_u64(&vacant->tail, pg_atomic_read_u64(&vacant->head));
	pg_atomic_write_u32(&vacant->trouble, 0);
	vacant->trail = InvalidOid;
	memset(vacant->events, 0, sizeof(vacant->events));
	vacant->nhosts = 0;
	for (int f = 0; f < OV_NFIGURES; f++)
		pg_atomic_write_u64(&vacant->figures[f], 0);
	return vacant;
}

OvSeat *
ov_seat(OvWorkerKind kind, Oid database)
{
	OvDatabase *db;

	switch (kind)
	{
		case OV_WORKER_LAUNCHER:
			return &ov_shared->launcher;
		case OV_WORKER_KEY:
			return &ov_shared->key;
		case OV_WORKER_NETWORK:
		case OV_WORKER_AUDIT:
			db = ov_database_entry(database, false);
			if (db == NULL)
				return NULL;
			return kind == OV_WORKER_NETWORK ? &db->network : &db->audit;
	}
	return NULL;
}

static void
unregister(int code, Datum arg)
{
	OvSeat	   *seat;
	bool		was_mine;

	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	seat = ov_seat(ov_my_worker_kind, my_worker_database);
	was_mine = seat != NULL && seat->pid == MyProcPid;
	if (was_mine)
	{
		seat->pid = 0;
		seat->incarnation++;
	}
	LWLockRelease(ov_shared->lock);
	/* What a worker has taken that sits where we wanted to is its own. */
	if (!was_mine)
		return;
	if (ov_my_worker_kind == OV_WORKER_KEY || ov_my_worker_kind == OV_WORKER_NETWORK)
		ov_slot_abandon_all(ov_my_worker_kind, my_worker_database);
}

void
ov_worker_register(OvWorkerKind kind, Oid database)
{
	OvSeat	   *seat;
	OvDatabase *db = NULL;

	ov_my_worker_kind = kind;
	my_worker_database = database;
	ov_i_am_worker = true;
	before_shmem_exit(unregister, (Datum) 0);
	OV_POINT("worker registers");

	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	if (OidIsValid(database))
		db = ov_database_entry(database, true);
	/* A statement wants the database for itself and did not see us come. */
	if (db != NULL && db->embargo > 0)
	{
		LWLockRelease(ov_shared->lock);
		proc_exit(0);
	}
	if (OidIsValid(database) && db == NULL)
	{
		LWLockRelease(ov_shared->lock);
		ereport(FATAL,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("more databases use oauth_vault than there is room for"),
				 errhint("Raise \"oauth_vault.max_databases\" and restart the server.")));
	}
	seat = ov_seat(kind, database);
	if (seat->pid != 0)
	{
		int			other = seat->pid;

		LWLockRelease(ov_shared->lock);
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another oauth_vault worker, PID %d, already does this work", other)));
	}
	seat->pid = MyProcPid;
	seat->procno = OV_MY_PROC_NUMBER;
	seat->incarnation++;
	LWLockRelease(ov_shared->lock);
	if (kind == OV_WORKER_KEY || kind == OV_WORKER_NETWORK)
		ov_slot_abandon_all(kind, database);
}

/* A copy of the seat; all zero when there is none. */
static OvSeat
seat_now(OvWorkerKind kind, Oid database)
{
	OvSeat		copy = {0};
	OvSeat	   *seat;

	LWLockAcquire(ov_shared->lock, LW_SHARED);
	seat = ov_seat(kind, database);
	if (seat != NULL)
		copy = *seat;
	LWLockRelease(ov_shared->lock);
	return copy;
}

bool
ov_worker_alive(OvWorkerKind kind, Oid database)
{
	return seat_now(kind, database).pid != 0;
}

uint32
ov_worker_incarnation(OvWorkerKind kind, Oid database)
{
	return seat_now(kind, database).incarnation;
}

/* A latch set for a process that has just left is harmless: the PGPROC stays. */
void
ov_worker_wake(OvWorkerKind kind, Oid database)
{
	OvSeat		seat = seat_now(kind, database);

	if (seat.pid != 0)
		SetLatch(OV_PROC_LATCH(seat.procno));
}

bool
ov_is_worker_pid(OvWorkerKind kind, int pid)
{
	bool		found = false;

	if (pid == 0)
		return false;
	LWLockAcquire(ov_shared->lock, LW_SHARED);
	if (kind == OV_WORKER_KEY)
		found = ov_shared->key.pid == pid;
	else if (kind == OV_WORKER_LAUNCHER)
		found = ov_shared->launcher.pid == pid;
	else
		for (int i = 0; i < ov_shared->ndatabases && !found; i++)
		{
			OvDatabase *db = &ov_shared->database[i];

			found = (kind == OV_WORKER_NETWORK ? db->network.pid : db->audit.pid) == pid;
		}
	LWLockRelease(ov_shared->lock);
	return found;
}

void
ov_launcher_poke(void)
{
	ov_worker_wake(OV_WORKER_LAUNCHER, InvalidOid);
}

void
ov_settings_publish(const char *json, const char *reason)
{
	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	if (json != NULL && strlen(json) >= OV_SETTINGS_MAX)
	{
		json = NULL;
		reason = "the vault file's public settings exceed 32 kB";
	}
	strlcpy(ov_shared->settings, json ? json : "", OV_SETTINGS_MAX);
	strlcpy(ov_shared->reason, reason ? reason : "", sizeof(ov_shared->reason));
	ov_shared->settings_generation++;
	LWLockRelease(ov_shared->lock);
}

char *
ov_settings(char **reason)
{
	char	   *json = NULL;

	if (reason)
		*reason = NULL;
	LWLockAcquire(ov_shared->lock, LW_SHARED);
	/* palloc may raise: the lock is released by the abort then. */
	if (ov_shared->settings[0] != '\0')
		json = pstrdup(ov_shared->settings);
	else if (reason)
		*reason = pstrdup(ov_shared->reason);
	LWLockRelease(ov_shared->lock);
	return json;
}

/* A plain read: a stale value is noticed at the next call. */
void
ov_subkeys_recall(void)
{
	(void) pg_atomic_fetch_add_u32(&ov_shared->recalled, 1);
}

uint32
ov_subkeys_recalled(void)
{
	return pg_atomic_read_u32(&ov_shared->recalled);
}

uint32
ov_settings_generation(void)
{
	return *(volatile uint32 *) &ov_shared->settings_generation;
}

/* ---- copies ---- */

void
ov_hold_publish(bool held, TimestampTz claim, TimestampTz floor, const char *why)
{
	OvDatabase *db;

	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	db = ov_database_entry(MyDatabaseId, false);
	if (db != NULL)
	{
		db->held = held;
		db->held_claim = claim;
		db->held_floor = floor;
		strlcpy(db->held_why, why, sizeof(db->held_why));
	}
	LWLockRelease(ov_shared->lock);
}

/* What the worker said of another claim is no longer so. */
bool
ov_hold_published(TimestampTz claim, char *why, size_t size)
{
	static OvDatabase *mine;	/* entries do not move, but are given away */
	bool		held;

	if (!ov_shmem_ready())
		return false;
	if (mine == NULL || mine->oid != MyDatabaseId)
	{
		LWLockAcquire(ov_shared->lock, LW_SHARED);
		mine = ov_database_entry(MyDatabaseId, false);
		LWLockRelease(ov_shared->lock);
	}
	/* unlocked: on the way of every call; a change is seen by the next one */
	if (mine == NULL || !mine->held)
		return false;
	LWLockAcquire(ov_shared->lock, LW_SHARED);
	held = mine->oid == MyDatabaseId && mine->held && mine->held_claim == claim;
	if (held)
		strlcpy(why, mine->held_why, size);
	LWLockRelease(ov_shared->lock);
	return held;
}

TimestampTz
ov_hold_floor(void)
{
	OvDatabase *db;
	TimestampTz floor = 0;

	LWLockAcquire(ov_shared->lock, LW_SHARED);
	db = ov_database_entry(MyDatabaseId, false);
	if (db != NULL)
		floor = db->held_floor;
	LWLockRelease(ov_shared->lock);
	return floor;
}
