/*
 * figures.c
 *	  See figures.h.
 *
 * Figures are atomics, written by one worker and read by anybody; the counts of
 * audit rows are guarded by the ring's lock, under which they are made, the
 * hosts by the registry's.
 */
#include "worker/figures.h"

#include <time.h>

#include "miscadmin.h"
#include "worker/shmem.h"

static OvDatabase *
entry(void)
{
	OvDatabase *db;

	if (!ov_shmem_ready())
		return NULL;
	LWLockAcquire(ov_shared->lock, LW_SHARED);
	db = ov_database_entry(MyDatabaseId, false);
	LWLockRelease(ov_shared->lock);
	return db;
}

/* The worker's own: it need not look again while it is registered. */
static OvDatabase *
my_entry(void)
{
	static OvDatabase *mine = NULL;

	if (mine == NULL || mine->oid != MyDatabaseId)
		mine = entry();
	return mine;
}

void
ov_figure_add(OvFigure f, uint64 n)
{
	OvDatabase *db = my_entry();

	if (db != NULL)
		pg_atomic_fetch_add_u64(&db->figures[f], n);
}

void
ov_figure_set(OvFigure f, uint64 n)
{
	OvDatabase *db = my_entry();

	if (db != NULL)
		pg_atomic_write_u64(&db->figures[f], n);
}

uint64
ov_figure(OvFigure f)
{
	OvDatabase *db = entry();

	return db != NULL ? pg_atomic_read_u64(&db->figures[f]) : 0;
}

int64
ov_monotonic(void)
{
	struct timespec t;

	(void) clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * USECS_PER_SEC + t.tv_nsec / 1000;
}

void
ov_hosts_figures_set(const OvHostFigure *figures, int n)
{
	OvDatabase *db = my_entry();

	if (db == NULL)
		return;
	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	memcpy(db->hosts, figures, sizeof(OvHostFigure) * n);
	db->nhosts = n;
	LWLockRelease(ov_shared->lock);
}

int
ov_hosts_figures(OvHostFigure *out)
{
	OvDatabase *db = entry();
	int			n;

	if (db == NULL)
		return 0;
	LWLockAcquire(ov_shared->lock, LW_SHARED);
	n = db->oid == MyDatabaseId ? db->nhosts : 0;
	memcpy(out, db->hosts, sizeof(OvHostFigure) * n);
	LWLockRelease(ov_shared->lock);
	return n;
}

int
ov_event_counts(OvEventCount *out)
{
	OvDatabase *db = entry();
	int			n = 0;

	if (db == NULL)
		return 0;
	LWLockAcquire(db->ring_lock, LW_SHARED);
	while (n < OV_EVENT_KINDS && db->events[n].n > 0)
	{
		out[n] = db->events[n];
		n++;
	}
	LWLockRelease(db->ring_lock);
	return n;
}

void
ov_slots_in_use(OvWorkerKind kind, int *waiting, int *taken, int *all)
{
	OvSlot	   *slots = ov_slots + (kind == OV_WORKER_KEY ? 0 : ov_shared->nslots);

	*waiting = *taken = 0;
	*all = ov_shared->nslots;
	for (int i = 0; i < ov_shared->nslots; i++)
		switch ((OvSlotState) pg_atomic_read_u32(&slots[i].state))
		{
			case OV_SLOT_POSTED:
				(*waiting)++;
				break;
			case OV_SLOT_TAKEN:
			case OV_SLOT_ABANDONED:
				(*taken)++;
				break;
			case OV_SLOT_FREE:
			case OV_SLOT_CLAIMED:
			case OV_SLOT_DONE:
				break;
		}
}

uint64
ov_audit_backlog(void)
{
	OvDatabase *db = entry();

	return db == NULL ? 0 : pg_atomic_read_u64(&db->head) - pg_atomic_read_u64(&db->tail);
}
