/*
 * launcher.c
 *	  Keeps the other workers running: the key worker by registration, two
 *	  workers in each database that has the extension.
 *
 * Connects to no database, so it never stands in the way of CREATE or DROP
 * DATABASE.  A database whose presence is unknown gets a network worker, which
 * looks for the extension, records what it found and leaves at once when there
 * is none: that is the probe.
 *
 * Restarting is the launcher's job, not the postmaster's (BGW_NEVER_RESTART):
 * a worker that ends is started again after a pause that grows while it keeps
 * ending.  Process-local state (pauses, handles) is lost with the launcher and
 * not needed by its successor: the registry says who is there.
 */
#include "worker/shmem.h"
#include "worker/worker.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define RESCAN_MS 60000
#define MIN_PAUSE_MS 200
#ifdef OV_DEBUG_POINTS
#define MAX_PAUSE_MS 400
#else
#define MAX_PAUSE_MS 30000
#endif

typedef struct Child			/* one worker of one database */
{
	Oid			database;
	OvWorkerKind kind;
	BackgroundWorkerHandle *handle; /* NULL: not started by us, or ended */
	TimestampTz started;
	TimestampTz not_before;
	int			pause_ms;
	struct Child *next;
} Child;

static Child *children;
static bool shortage_reported;

static void
define_static(const char *name, const char *function, int flags, BgWorkerStartTime when)
{
	BackgroundWorker w;

	memset(&w, 0, sizeof(w));
	snprintf(w.bgw_name, BGW_MAXLEN, "oauth_vault %s", name);
	snprintf(w.bgw_type, BGW_MAXLEN, "oauth_vault %s", name);
	w.bgw_flags = flags;
	w.bgw_start_time = when;
	w.bgw_restart_time = 1;
	snprintf(w.bgw_library_name, sizeof(w.bgw_library_name), "oauth_vault");
	snprintf(w.bgw_function_name, sizeof(w.bgw_function_name), "%s", function);
	RegisterBackgroundWorker(&w);
}

void
ov_workers_define(void)
{
	define_static("launcher", "ov_launcher_main",
				  BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION, BgWorkerStart_RecoveryFinished);
	define_static("key worker", "ov_key_worker_main",
				  BGWORKER_SHMEM_ACCESS, BgWorkerStart_ConsistentState);
}

static Child *
child_of(Oid database, OvWorkerKind kind)
{
	Child	   *c;

	for (c = children; c != NULL; c = c->next)
		if (c->database == database && c->kind == kind)
			return c;
	c = MemoryContextAllocZero(TopMemoryContext, sizeof(Child));
	c->database = database;
	c->kind = kind;
	c->pause_ms = MIN_PAUSE_MS;
	c->next = children;
	children = c;
	return c;
}

static void
start(Child *c)
{
	BackgroundWorker w;
	const char *what = c->kind == OV_WORKER_NETWORK ? "network worker" : "audit writer";

	memset(&w, 0, sizeof(w));
	snprintf(w.bgw_name, BGW_MAXLEN, "oauth_vault %s (database %u)", what, c->database);
	snprintf(w.bgw_type, BGW_MAXLEN, "oauth_vault %s", what);
	w.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	w.bgw_start_time = BgWorkerStart_RecoveryFinished;
	w.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(w.bgw_library_name, sizeof(w.bgw_library_name), "oauth_vault");
	snprintf(w.bgw_function_name, sizeof(w.bgw_function_name), "%s",
			 c->kind == OV_WORKER_NETWORK ? "ov_network_worker_main" : "ov_audit_writer_main");
	w.bgw_main_arg = ObjectIdGetDatum(c->database);
	w.bgw_notify_pid = MyProcPid;
	c->started = GetCurrentTimestamp();
	if (RegisterDynamicBackgroundWorker(&w, &c->handle))
	{
		shortage_reported = false;
		return;
	}
	c->handle = NULL;
	c->not_before = TimestampTzPlusMilliseconds(c->started, 5000);
	if (!shortage_reported)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start the oauth_vault %s for database %u: no free worker slot", what, c->database),
				 errhint("Raise \"max_worker_processes\": oauth_vault needs 2 workers, and 2 more for each database.")));
	shortage_reported = true;
}

/* Has the child we started ended?  Then it may start again after its pause. */
static bool
running(Child *c, TimestampTz now)
{
	pid_t		pid;

	if (c->handle == NULL)
		return false;
	if (GetBackgroundWorkerPid(c->handle, &pid) != BGWH_STOPPED)
		return true;
	pfree(c->handle);
	c->handle = NULL;
	/* one that lived for a while starts afresh */
	if (TimestampDifferenceExceeds(c->started, now, MAX_PAUSE_MS))
		c->pause_ms = MIN_PAUSE_MS;
	c->not_before = TimestampTzPlusMilliseconds(now, c->pause_ms);
	c->pause_ms = Min(c->pause_ms * 2, MAX_PAUSE_MS);
	return false;
}

/* Takes care of one worker; lowers *wait_ms to when it wants attention next. */
static void
tend(Oid database, OvWorkerKind kind, TimestampTz now, long *wait_ms)
{
	Child	   *c = child_of(database, kind);

	if (running(c, now) || ov_worker_alive(kind, database))
		return;
	if (c->not_before > now)
		*wait_ms = Min(*wait_ms, TimestampDifferenceMilliseconds(now, c->not_before) + 1);
	else
		start(c);
}

/* Databases that accept connections; the list is made in `into`. */
static List *
connectable_databases(MemoryContext into)
{
	List	   *list = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tup;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tup = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tup);

		if (form->datallowconn && !form->datistemplate && form->datconnlimit != -2)
		{
			MemoryContext old = MemoryContextSwitchTo(into);

			list = lappend_oid(list, form->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return list;
}

/*
 * Databases that a probe has found to be without the extension.  They need no
 * entry: CREATE EXTENSION makes one when it commits.  A probe that ended before
 * it had looked is not among them, and is sent again.
 */
static List *absent = NIL;

static void
remember_absent(Oid database)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	absent = list_append_unique_oid(absent, database);
	MemoryContextSwitchTo(old);
}

static void
forget_databases_not_in(List *databases)
{
	for (int i = 0; i < ov_shared->ndatabases; i++)
	{
		OvDatabase *db = &ov_shared->database[i];
		Oid			gone = InvalidOid;
		bool		without = false;

		LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
		if (OidIsValid(db->oid) && db->embargo == 0 && db->network.pid == 0 && db->audit.pid == 0 &&
			(db->presence == OV_EXT_ABSENT || !list_member_oid(databases, db->oid)))
		{
			gone = db->oid;
			without = db->presence == OV_EXT_ABSENT;
			/* nobody is in the middle of an append then */
			LWLockAcquire(db->ring_lock, LW_EXCLUSIVE);
			db->oid = InvalidOid;
			LWLockRelease(db->ring_lock);
		}
		LWLockRelease(ov_shared->lock);
		if (!OidIsValid(gone))
			continue;
		if (without)
			remember_absent(gone);
		ov_slot_forget_database(gone);
	}
}

void
ov_launcher_main(Datum arg)
{
	MemoryContext scan_context;

	ov_worker_signals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	ov_worker_register(OV_WORKER_LAUNCHER, InvalidOid);
	ConfigReloadPending = true;
	scan_context = AllocSetContextCreate(TopMemoryContext, "oauth_vault launcher", ALLOCSET_SMALL_SIZES);

	for (;;)
	{
		long		wait_ms = RESCAN_MS;
		TimestampTz now;
		List	   *databases;
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		(void) ov_worker_reload();
		MemoryContextReset(scan_context);
		databases = connectable_databases(scan_context);
		now = GetCurrentTimestamp();
		forget_databases_not_in(databases);
		foreach(lc, databases)
		{
			Oid			oid = lfirst_oid(lc);
			OvDatabase *db;
			OvPresence	presence = OV_EXT_UNKNOWN;
			bool		embargo = false;

			LWLockAcquire(ov_shared->lock, LW_SHARED);
			db = ov_database_entry(oid, false);
			if (db != NULL)
			{
				presence = db->presence;
				embargo = db->embargo > 0;
			}
			else if (list_member_oid(absent, oid))
				presence = OV_EXT_ABSENT;
			LWLockRelease(ov_shared->lock);
			if (presence == OV_EXT_ABSENT)
				child_of(oid, OV_WORKER_NETWORK)->pause_ms = MIN_PAUSE_MS;	/* a probe that did its work */
			if (embargo || presence == OV_EXT_ABSENT)
				continue;
			tend(oid, OV_WORKER_NETWORK, now, &wait_ms);
			if (presence == OV_EXT_PRESENT)
				tend(oid, OV_WORKER_AUDIT, now, &wait_ms);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
