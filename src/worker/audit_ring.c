/*
 * audit_ring.c
 *	  Rows on their way to the audit writer: one byte ring per database.
 *
 * Appending takes the ring's lock for the time of a copy; nothing of the
 * caller's transaction is touched, so READ ONLY, aborting and old-snapshot
 * transactions can append.  A row stays in the ring until its commit: tail
 * moves after it, so a writer that dies reads the same rows again.
 */
#include "worker/shmem.h"

#include "debug_point.h"
#include "errors.h"
#include "pgstat.h"
#include "utils/timestamp.h"
#include "worker/audit_ring.h"

#define FULL_WAIT_MS 5000
#define WRITER_WAIT_MS 5000
#define COMMIT_WAIT_MS 15000
#define TROUBLE_WAIT_MS 1500	/* when the writer says that it cannot write */

static OvDatabase *my_entry;

static OvDatabase *
entry(void)
{
	if (my_entry == NULL || my_entry->oid != MyDatabaseId)
	{
		LWLockAcquire(ov_shared->lock, LW_SHARED);
		my_entry = ov_database_entry(MyDatabaseId, false);
		LWLockRelease(ov_shared->lock);
	}
	return my_entry;
}

static unsigned char *
ring_of(const OvDatabase *db)
{
	return ov_rings + (Size) (db - ov_shared->database) * ov_shared->ring_size;
}

static void
copy_in(OvDatabase *db, uint64 at, const void *data, uint32 len)
{
	uint32		size = ov_shared->ring_size;
	uint32		offset = at % size;
	uint32		first = Min(len, size - offset);

	memcpy(ring_of(db) + offset, data, first);
	memcpy(ring_of(db), (const char *) data + first, len - first);
}

static void
copy_out(OvDatabase *db, uint64 at, void *data, uint32 len)
{
	uint32		size = ov_shared->ring_size;
	uint32		offset = at % size;
	uint32		first = Min(len, size - offset);

	memcpy(data, ring_of(db) + offset, first);
	memcpy((char *) data + first, ring_of(db), len - first);
}

/* Under the ring's lock: one more row of this kind. */
static void
count(OvDatabase *db, const OvMsg *row)
{
	const void *event;
	const void *outcome;
	size_t		event_len,
				outcome_len;
	OvEventCount *e = db->events;
	OvEventCount *end = e + OV_EVENT_KINDS - 1;

	if (!ov_msg_get(row, OV_TAG_EVENT, &event, &event_len) || event_len >= sizeof(e->event) ||
		!ov_msg_get(row, OV_TAG_OUTCOME, &outcome, &outcome_len) || outcome_len >= sizeof(e->outcome))
		return;
	while (e < end && e->n > 0 &&
		   !(strlen(e->event) == event_len && memcmp(e->event, event, event_len) == 0 &&
			 strlen(e->outcome) == outcome_len && memcmp(e->outcome, outcome, outcome_len) == 0))
		e++;
	if (e->n++ > 0)
		return;
	memcpy(e->event, e < end ? event : "other", e < end ? event_len : 5);
	memcpy(e->outcome, e < end ? outcome : "", e < end ? outcome_len : 0);
}

/*
 * Without the registry's lock, which every call of every session would take: a
 * latch of somebody who has taken over the seat, or left it, is harmless, and
 * whoever waits wakes the writer again.
 */
static void
wake_writer(OvDatabase *db)
{
	volatile OvSeat *seat = &db->audit;

	if (seat->pid != 0)
		SetLatch(OV_PROC_LATCH(seat->procno));
}

/* Returns the position after the row, 0 if there is no room or the entry is no longer ours. */
static uint64
append(OvDatabase *db, const OvMsg *row)
{
	uint32		len = row->len;
	uint64		head;
	uint64		end = 0;

	LWLockAcquire(db->ring_lock, LW_EXCLUSIVE);
	head = pg_atomic_read_u64(&db->head);
	/* an entry changes hands under this lock */
	if (db->oid == MyDatabaseId && head + sizeof(len) + len - pg_atomic_read_u64(&db->tail) <= ov_shared->ring_size)
	{
		copy_in(db, head, &len, sizeof(len));
		copy_in(db, head + sizeof(len), row->data, len);
		end = head + sizeof(len) + len;
		pg_atomic_write_u64(&db->head, end);
		count(db, row);
	}
	LWLockRelease(db->ring_lock);
	OV_POINT("audit append");
	if (end != 0)
		wake_writer(db);
	return end;
}

pg_noreturn static void
unavailable(const char *reason)
{
	ov_raise(ERRCODE_OV_AUDIT_UNAVAILABLE, "the audit row could not be written",
			 ov_detail("reason", reason, NULL),
			 "No token is given without its audit row. See the server log; try again.");
}

/* The writer has failed at its last try, and goes on trying: raises when that has lasted. */
static void
mind_trouble(OvDatabase *db, TimestampTz start)
{
	uint32		state = pg_atomic_read_u32(&db->trouble);

	if (state != 0 && TimestampDifferenceExceeds(start, GetCurrentTimestamp(), TROUBLE_WAIT_MS))
		unavailable(psprintf("the audit writer cannot write: SQLSTATE %s", unpack_sql_state((int) state)));
}

uint64
ov_audit_append(const OvMsg *row)
{
	OvDatabase *db = entry();
	TimestampTz start = GetCurrentTimestamp();
	uint64		end;

	if (row->overflow || sizeof(uint32) + row->len > ov_shared->ring_size)
		unavailable("row too long");
	if (db == NULL)
		unavailable("no audit writer for this database yet");
	/* "batched" waits for nothing else: what is not being written must not be queued */
	while (pg_atomic_read_u32(&db->trouble) != 0 && db->oid == MyDatabaseId)
	{
		mind_trouble(db, start);
		(void) ConditionVariableTimedSleep(&db->moved, 100, PG_WAIT_EXTENSION);
	}
	while ((end = append(db, row)) == 0)
	{
		if (db->oid != MyDatabaseId)
		{
			if ((db = entry()) == NULL)
				unavailable("no audit writer for this database any more");
			continue;
		}
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), FULL_WAIT_MS))
			unavailable("queue full");
		if (!ov_worker_alive(OV_WORKER_AUDIT, MyDatabaseId))
			ov_launcher_poke();
		(void) ConditionVariableTimedSleep(&db->moved, 100, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return end;
}

bool
ov_audit_try_append(const OvMsg *row)
{
	OvDatabase *db = entry();

	return db != NULL && !row->overflow && append(db, row) != 0;
}

void
ov_audit_tell_log(const OvMsg *m)
{
	char	   *event = ov_msg_str(m, OV_TAG_EVENT);
	char	   *user = ov_msg_str(m, OV_TAG_USER);
	char	   *reason = ov_msg_str(m, OV_TAG_REASON);

	ereport(LOG,
			(errcode(ERRCODE_OV_AUDIT_UNAVAILABLE),
			 errmsg("no room for an audit row: event %s, user %s, reason %s",
					event ? event : "-", user ? user : "-", reason ? reason : "-"),
			 errhint("The audit writer does not keep up; raise \"oauth_vault.audit_ring_size\"."),
			 errhidestmt(true), errhidecontext(true)));
}

uint64
ov_audit_head(void)
{
	OvDatabase *db = entry();

	return db == NULL ? 0 : pg_atomic_read_u64(&db->head);
}

void
ov_audit_wait(uint64 position)
{
	OvDatabase *db = entry();
	TimestampTz start = GetCurrentTimestamp();

	if (db == NULL)
		unavailable("no audit writer for this database yet");
	if (pg_atomic_read_u64(&db->tail) >= position)
		return;
	ConditionVariablePrepareToSleep(&db->moved);
	while (pg_atomic_read_u64(&db->tail) < position)
	{
		TimestampTz now;

		if (db->oid != MyDatabaseId)
			unavailable("no audit writer for this database any more");
		mind_trouble(db, start);
		if (!ConditionVariableTimedSleep(&db->moved, 200, PG_WAIT_EXTENSION))
			continue;
		now = GetCurrentTimestamp();
		if (!ov_worker_alive(OV_WORKER_AUDIT, MyDatabaseId))
		{
			ov_launcher_poke();
			if (TimestampDifferenceExceeds(start, now, WRITER_WAIT_MS))
				unavailable("the audit writer is not running");
		}
		else
			ov_worker_wake(OV_WORKER_AUDIT, MyDatabaseId);
		if (TimestampDifferenceExceeds(start, now, COMMIT_WAIT_MS))
			unavailable("the audit writer does not get on");
	}
	ConditionVariableCancelSleep();
}

/* ---- the audit writer's side ---- */

uint32
ov_audit_peek(uint64 *at, void *buf)
{
	OvDatabase *db = entry();
	uint32		len;

	if (*at == 0)
		*at = pg_atomic_read_u64(&db->tail);
	if (*at >= pg_atomic_read_u64(&db->head))
		return 0;
	pg_read_barrier();
	copy_out(db, *at, &len, sizeof(len));
	copy_out(db, *at + sizeof(len), buf, len);
	*at += sizeof(len) + len;
	return len;
}

void
ov_audit_committed(uint64 position)
{
	OvDatabase *db = entry();

	pg_atomic_write_u64(&db->tail, position);
	ConditionVariableBroadcast(&db->moved);
}

void
ov_audit_trouble(int state)
{
	OvDatabase *db = entry();

	if (db == NULL || pg_atomic_read_u32(&db->trouble) == (uint32) state)
		return;
	pg_atomic_write_u32(&db->trouble, (uint32) state);
	ConditionVariableBroadcast(&db->moved);
}

/* ---- the trail's end ---- */

void
ov_audit_end_publish(Oid trail, int64 id, const unsigned char hash[32])
{
	OvDatabase *db = entry();

	LWLockAcquire(db->ring_lock, LW_EXCLUSIVE);
	if (db->trail != trail)
		db->sealed_id = 0;
	db->trail = trail;
	db->end_id = id;
	memcpy(db->end_hash, hash, sizeof(db->end_hash));
	LWLockRelease(db->ring_lock);
}

void
ov_audit_sealed_publish(int64 id)
{
	OvDatabase *db = entry();

	LWLockAcquire(db->ring_lock, LW_EXCLUSIVE);
	db->sealed_id = id;
	LWLockRelease(db->ring_lock);
}

bool
ov_audit_end_known(Oid trail, int64 *id, unsigned char hash[32], int64 *sealed)
{
	OvDatabase *db = entry();
	bool		known = false;

	if (db == NULL)
		return false;
	LWLockAcquire(db->ring_lock, LW_SHARED);
	if (db->oid == MyDatabaseId && OidIsValid(trail) && db->trail == trail)
	{
		known = true;
		*id = db->end_id;
		if (sealed != NULL)
			*sealed = db->sealed_id;
		memcpy(hash, db->end_hash, sizeof(db->end_hash));
	}
	LWLockRelease(db->ring_lock);
	return known;
}
