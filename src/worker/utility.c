/*
 * utility.c
 *	  Utility statements that concern the workers and the session's identity.
 *
 * - CREATE, ALTER and DROP EXTENSION of ours: once committed, the launcher
 *	 looks at the database again.  (A prepared transaction loses this wake-up;
 *	 the launcher's own rescan finds it within a minute.)
 * - DROP and ALTER DATABASE, CREATE DATABASE ... TEMPLATE: fail while anybody
 *	 is connected, so our workers leave first and stay away (embargo) until
 *	 the statement has ended, however it ends.
 * - DISCARD ALL: the session's identity and cached keys go.
 */
#include "worker/shmem.h"
#include "worker/worker.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/timestamp.h"
#include "vault/vault.h"

#define LEAVE_MS 5000

static ProcessUtility_hook_type previous_utility_hook;
static bool look_at_commit;		/* at this database */
static bool poke_at_commit;		/* the launcher: there is a new database */

static void
look_again(Oid database)
{
	OvDatabase *db;

	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	db = ov_database_entry(database, true);
	if (db != NULL)
	{
		db->presence = OV_EXT_UNKNOWN;
		db->asked++;
	}
	LWLockRelease(ov_shared->lock);
	/* workers that are there check for themselves */
	ov_worker_wake(OV_WORKER_NETWORK, database);
	ov_worker_wake(OV_WORKER_AUDIT, database);
	ov_launcher_poke();
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && look_at_commit)
		look_again(MyDatabaseId);
	if (event == XACT_EVENT_COMMIT && poke_at_commit)
		ov_launcher_poke();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		look_at_commit = poke_at_commit = false;
}

static bool
anybody_there(Oid database)
{
	return ov_worker_alive(OV_WORKER_NETWORK, database) || ov_worker_alive(OV_WORKER_AUDIT, database);
}

void
ov_database_embargo(Oid database, bool on)
{
	OvDatabase *db;
	TimestampTz start = GetCurrentTimestamp();

	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	db = ov_database_entry(database, on);
	if (db != NULL)
	{
		db->embargo += on ? 1 : db->embargo > 0 ? -1 : 0;
		if (on)
		{
			if (db->network.pid != 0)
				kill(db->network.pid, SIGTERM);
			if (db->audit.pid != 0)
				kill(db->audit.pid, SIGTERM);
		}
		else
		{
			db->presence = OV_EXT_UNKNOWN;
			db->asked++;
		}
	}
	LWLockRelease(ov_shared->lock);
	if (!on)
	{
		ov_launcher_poke();
		return;
	}
	/* The statement itself says so if somebody is still there afterwards. */
	while (anybody_there(database) && !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), LEAVE_MS))
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* The database that this statement wants for itself, or InvalidOid */
static Oid
database_wanted(Node *stmt)
{
	const char *name = NULL;
	Oid			oid;
	ListCell   *lc;

	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) stmt)->dbname;
			break;
		case T_CreatedbStmt:
			foreach(lc, ((CreatedbStmt *) stmt)->options)
			{
				DefElem    *d = lfirst_node(DefElem, lc);

				if (strcmp(d->defname, "template") == 0 && d->arg != NULL)
					name = defGetString(d);
			}
			break;
		case T_AlterDatabaseStmt:
			foreach(lc, ((AlterDatabaseStmt *) stmt)->options)
				if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
					name = ((AlterDatabaseStmt *) stmt)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) stmt)->subname;
			break;
		default:
			break;
	}
	if (name == NULL || !IsTransactionState())
		return InvalidOid;
	oid = get_database_oid(name, true);
	/* Nobody may send our workers away with a statement that will be refused. */
	if (OidIsValid(oid) && !ov_owns_database(oid, GetUserId()))
		oid = InvalidOid;
	return oid;
}

static bool
concerns_extension(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreateExtensionStmt:
			return strcmp(((CreateExtensionStmt *) stmt)->extname, "oauth_vault") == 0;
		case T_AlterExtensionStmt:
			return strcmp(((AlterExtensionStmt *) stmt)->extname, "oauth_vault") == 0;
		case T_DropStmt:
			return ((DropStmt *) stmt)->removeType == OBJECT_EXTENSION ||
				((DropStmt *) stmt)->removeType == OBJECT_SCHEMA;
		case T_DropOwnedStmt:
			return true;
		default:
			return false;
	}
}

static void
lift_embargo(int code, Datum database)
{
	ov_database_embargo(DatumGetObjectId(database), false);
}

static void
utility_hook(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
			 ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	ProcessUtility_hook_type next = previous_utility_hook ? previous_utility_hook : standard_ProcessUtility;
	Node	   *stmt = pstmt->utilityStmt;
	bool		creates_database = IsA(stmt, CreatedbStmt);
	Oid			wanted = database_wanted(stmt);

	if (concerns_extension(stmt))
		look_at_commit = true;
	if (IsA(stmt, DiscardStmt) && ((DiscardStmt *) stmt)->target == DISCARD_ALL)
		ov_session_reset();
	if (!OidIsValid(wanted))
		next(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
	{
		/* also when the session is terminated in the middle */
		PG_ENSURE_ERROR_CLEANUP(lift_embargo, ObjectIdGetDatum(wanted));
		{
			ov_database_embargo(wanted, true);
			next(pstmt, query, read_only_tree, context, params, env, dest, qc);
		}
		PG_END_ENSURE_ERROR_CLEANUP(lift_embargo, ObjectIdGetDatum(wanted));
		lift_embargo(0, ObjectIdGetDatum(wanted));
	}
	if (creates_database)
		poke_at_commit = true;
}

void
ov_utility_hook_install(void)
{
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = utility_hook;
	RegisterXactCallback(xact_callback, NULL);
}
