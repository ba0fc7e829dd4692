/*
 * xact.c
 *	  What every worker does alike: signals, connecting, its transactions.
 *
 * Settings are pinned for the process, above ALTER DATABASE/ROLE ... SET,
 * because a worker's commits are the product's promises.  A worker becomes
 * oauth_vault_owner inside each transaction: the role exists only as long as
 * the extension does, and the name may be restored with another oid.
 */
#include "compat.h"
#include "worker/shmem.h"
#include "worker/worker.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/extension.h"
#include "debug_point.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

void
ov_worker_signals(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

bool
ov_worker_reload(void)
{
	if (!ConfigReloadPending)
		return false;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	return true;
}

/* How often somebody has wanted to know by now; makes the entry that is to say so. */
static uint32
times_asked(void)
{
	OvDatabase *db;
	uint32		asked;

	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	db = ov_database_entry(MyDatabaseId, true);
	asked = db != NULL ? db->asked : 0;
	LWLockRelease(ov_shared->lock);
	return asked;
}

/* What was seen is news unless CREATE EXTENSION has been committed since. */
static void
record_presence(OvPresence presence, uint32 asked)
{
	OvDatabase *db;
	bool		news = false;

	LWLockAcquire(ov_shared->lock, LW_EXCLUSIVE);
	db = ov_database_entry(MyDatabaseId, false);
	if (db != NULL && db->asked == asked)
	{
		news = db->presence != presence;
		db->presence = presence;
	}
	LWLockRelease(ov_shared->lock);
	/* the launcher has started one worker to find out, and owes the others */
	if (news)
		ov_worker_wake(OV_WORKER_LAUNCHER, InvalidOid);
}

bool
ov_extension_present(void)
{
	bool		present;
	uint32		asked = times_asked();

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	OV_POINT("looks for the extension");
	present = OidIsValid(get_extension_oid("oauth_vault", true)) &&
		OidIsValid(get_role_oid("oauth_vault_owner", true));
	CommitTransactionCommand();
	OV_POINT("has looked for the extension");
	record_presence(present ? OV_EXT_PRESENT : OV_EXT_ABSENT, asked);
	return present;
}

bool
ov_database_unknown(void)
{
	OvDatabase *db;
	bool		unknown;

	LWLockAcquire(ov_shared->lock, LW_SHARED);
	db = ov_database_entry(MyDatabaseId, false);
	unknown = db == NULL || db->presence == OV_EXT_UNKNOWN;
	LWLockRelease(ov_shared->lock);
	return unknown;
}

static void
pin(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

bool
ov_worker_connect(Oid database)
{
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	pin("search_path", "pg_catalog, pg_temp");
	pin("default_transaction_isolation", "read committed");
	pin("default_transaction_read_only", "off");
	pin("default_transaction_deferrable", "off");
	pin("synchronous_commit",
		synchronous_commit == SYNCHRONOUS_COMMIT_REMOTE_APPLY ? "remote_apply" : "on");
	pin("session_replication_role", "origin");
	pin("statement_timeout", "0");
	if (OV_HAS_TRANSACTION_TIMEOUT)
		pin("transaction_timeout", "0");
	pin("idle_in_transaction_session_timeout", "0");
	pin("lock_timeout", "1000");
	pin("jit", "off");
	pin("row_security", "on");
	return ov_extension_present();
}

void
ov_xact_begin(void)
{
	Oid			owner;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	owner = get_role_oid("oauth_vault_owner", true);
	if (!OidIsValid(owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("role \"oauth_vault_owner\" does not exist")));
	SetUserIdAndSecContext(owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
ov_xact_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	/* The user id must be the session's own outside a transaction. */
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, 0);
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

void
ov_xact_abort(void)
{
	/* Restores the user id, ends SPI and releases whatever was held. */
	AbortCurrentTransaction();
	pgstat_report_stat(false);
}

int
ov_xact_fail(const char *doing)
{
	ErrorData  *error;
	int			state;

	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	FlushErrorState();
	state = error->sqlerrcode;
	ov_xact_abort();
	ereport(LOG,
			(errcode(state),
			 errmsg("could not %s: %s", doing, error->message),
			 errhidestmt(true), errhidecontext(true)));
	FreeErrorData(error);
	return state;
}
