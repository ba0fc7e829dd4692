/*
 * transact.c
 *	  The network worker's transactions, and failures on their way to a caller.
 *
 * A transaction of the network worker waits for no lock: its tables are locked
 * at its start, conditionally, so that it can run with interrupts held, and its
 * statements skip rows that somebody holds.  What fails is rolled back as a
 * whole; whoever called decides what to try again.
 */
#include "worker/network.h"
#include "worker/worker.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "debug_point.h"
#include "errors.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

bool		ov_tables_missed;

/* ---- failures ---- */

bool
ov_refuse(OvFailure *f, const char *sqlstate, const char *message, const char *detail, const char *hint)
{
	strlcpy(f->sqlstate, sqlstate, sizeof(f->sqlstate));
	strlcpy(f->message, message, sizeof(f->message));
	/* half a JSON document is none */
	strlcpy(f->detail, detail && strlen(detail) < sizeof(f->detail) ? detail : "", sizeof(f->detail));
	strlcpy(f->hint, hint ? hint : "", sizeof(f->hint));
	return false;
}

void
ov_answer_failure(const OvTicket *ticket, const OvFailure *f)
{
	ov_slot_answer_error(ticket, f->sqlstate, f->message, f->detail[0] ? f->detail : NULL,
						 f->hint[0] ? f->hint : NULL);
}

void
ov_refuse_database(OvFailure *f, int state)
{
	if (state == ERRCODE_LOCK_NOT_AVAILABLE)
		(void) ov_refuse(f, "OV021", "a table of oauth_vault is locked by another transaction",
						 "{\"reason\":\"table locked by another transaction\"}", "Try again.");
	else
		(void) ov_refuse(f, "OV020", "the network worker could not read or write its tables",
						 ov_detail("reason", "database error", "sqlstate", unpack_sql_state(state), NULL),
						 "See the server log; try again.");
}

/* ---- arguments ---- */

void
ov_arg_uuids(OvArgs *a, const unsigned char *const *ids, int n)
{
	Datum	   *items = palloc(sizeof(Datum) * (n + 1));

	for (int i = 0; i < n; i++)
		items[i] = ov_uuid_datum(ids[i]);
	ov_arg_array(a, 'u', items, NULL, n);
}

/* ---- transactions ---- */

/*
 * What our transactions read and write.  All are locked beforehand, without
 * waiting: later locks on them are granted at once, whoever is in the queue.
 */
static const char *const tables[] = {
	"home", "vault_key", "connector", "provider_builtin", "provider_site", "flow", "connection",
	"intent", "grant_inbox", "revocation", "key_rotation", "offboarding", "event_pending", "event", "event_consumer"
};

static void
lock_tables(void)
{
	Oid			schema = get_namespace_oid("oauth_vault", true);

	if (!OidIsValid(schema))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_SCHEMA), errmsg("schema \"oauth_vault\" does not exist")));
	for (int i = 0; i < lengthof(tables); i++)
	{
		Oid			oid = get_relname_relid(tables[i], schema);

		if (OidIsValid(oid) && !ConditionalLockRelationOid(oid, RowExclusiveLock))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("table \"oauth_vault.%s\" is locked by another transaction", tables[i])));
		if (!OidIsValid(oid) || !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(oid)))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("table \"oauth_vault.%s\" does not exist", tables[i])));
	}
}

static bool
is_gone(int state)
{
	return state == ERRCODE_UNDEFINED_TABLE || state == ERRCODE_UNDEFINED_SCHEMA ||
		state == ERRCODE_UNDEFINED_OBJECT || state == ERRCODE_UNDEFINED_COLUMN;
}

int
ov_transact(const char *doing, OvWork work, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	uint32		held = InterruptHoldoffCount;
	volatile int state = 0;

	pgstat_report_activity(STATE_RUNNING, doing);
	PG_TRY();
	{
		ov_xact_begin();
		lock_tables();
		work(arg);
		OV_POINT_OF("before commit: ", doing);
		ov_xact_commit();
		OV_POINT_OF("after commit: ", doing);
	}
	PG_CATCH();
	{
		InterruptHoldoffCount = held;	/* an error forgets it */
		state = geterrcode();
		if (state == ERRCODE_LOCK_NOT_AVAILABLE)
		{
			/* expected, and tried again: not worth a line each time */
			MemoryContextSwitchTo(context);
			FlushErrorState();
			ov_xact_abort();
		}
		else
			(void) ov_xact_fail(doing);
		if (state == 0)
			state = ERRCODE_INTERNAL_ERROR;
		if (is_gone(state))
			ov_tables_missed = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	ov_home_transaction_ended(state == 0);
	pgstat_report_activity(STATE_IDLE, NULL);
	return state;
}
