/*
 * claim.c
 *	  Copies of the database: is this one held, and an administrator's claim.
 *
 * The home row says where the vault lives.  A copy carries the row along and
 * finds itself elsewhere: held, nothing leaves it (catalog.c compares, the
 * network worker obeys, and compares with the state file: worker/home.c).  A
 * claim moves the row here.  The vault id stays: it is in every record's
 * additional data.
 */
#include "vault/vault.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "worker/figures.h"

PG_FUNCTION_INFO_V1(ov_claim);
PG_FUNCTION_INFO_V1(ov_vault_held);
PG_FUNCTION_INFO_V1(ov_vault_status);

/*
 * Is this database held, and why?  With keys but without a home row it is one
 * that is being restored, or has been restored in part.
 */
static bool
held(OvHome *home, bool *missing)
{
	*missing = false;
	if (ov_home(home))
		return home->held;
	if (!ov_home_is_missing())
		return false;
	*missing = true;
	strlcpy(home->why, "the home row is missing", sizeof(home->why));
	return true;
}

/*
 * What the copy carried along is the original's to send: there it has been
 * sent, or will be.  Sent a second time from here, a refresh would burn the
 * original's grant.
 */
static void
discard(void)
{
	static OvQuery outbox = {
		"UPDATE oauth_vault.revocation SET state = 'failed', outcome = 'discarded by oauth_claim', settled_at = now(),"
		" access_token = NULL, refresh_token = NULL WHERE state = 'queued'", ""
	};
	static OvQuery settled = {
		"UPDATE oauth_vault.connection SET status = 'revoked', status_since = now() WHERE status = 'revoking'", ""
	};

	(void) ov_query(&outbox, OV_WRITE, NULL, NULL);
	(void) ov_query(&settled, OV_WRITE, NULL, NULL);
}

Datum
ov_claim(PG_FUNCTION_ARGS)
{
	static OvQuery lock = {"SELECT FROM oauth_vault.home FOR UPDATE", ""};
	/* claimed refreshes were not sent from here, whatever becomes of them */
	static OvQuery doubt = {"UPDATE oauth_vault.intent SET in_doubt = true WHERE NOT in_doubt", ""};
	/* Later than any claim before, wherever that was made: the state file tells them apart by it. */
	static OvQuery move = {
		"UPDATE oauth_vault.home SET system_identifier = $1, timeline = $2, database_oid = $3, instance = $4,"
		" claimed_at = greatest(clock_timestamp(), claimed_at + interval '1 microsecond',"
		" $5 + interval '1 microsecond'), counter = 0", "liOtz"
	};
	OvCall		call;
	OvHome		home;
	OvEvent		event = {.event = "claimed", .outcome = "ok"};
	Datum		args[5];
	TimestampTz floor;
	bool		drop,
				missing;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	if (PG_ARGISNULL(0))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"discard_outbox\" must not be null", NULL, NULL);
	drop = PG_GETARG_BOOL(0);
	args[3] = ov_text_datum(ov_current_settings()->instance);
	(void) ov_query(&lock, OV_WRITE, NULL, NULL);
	if (!held(&home, &missing))
	{
		/* Claimed twice, the queue of a vault in use would be thrown away. */
		ereport(NOTICE,
				(errmsg("this database's vault is not held: nothing to claim"),
				 errhidestmt(true), errhidecontext(true)));
		ov_call_end(&call);
		PG_RETURN_VOID();
	}
	if (missing)
		ov_raise(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "the vault's home row is missing",
				 ov_detail("reason", home.why, NULL),
				 "Restore oauth_vault.home from the same backup: every sealed record names the vault that it identifies.");
	args[0] = Int64GetDatum((int64) GetSystemIdentifier());
	args[1] = Int32GetDatum((int32) GetWALInsertionTimeLine());
	args[2] = ObjectIdGetDatum(MyDatabaseId);
	floor = ov_hold_floor();
	args[4] = TimestampTzGetDatum(floor);
	(void) ov_query(&move, OV_WRITE, args, floor == 0 ? "    n" : NULL);
	(void) ov_query(&doubt, OV_WRITE, NULL, NULL);
	if (drop)
		discard();
	event.reason = psprintf("%s; outbox %s", home.why, drop ? "discarded" : "kept");
	ov_audit(&call, &event);
	ereport(LOG,
			(errmsg("oauth_vault: role \"%s\" claims this copy of the vault: %s", call.role, event.reason),
			 errhidestmt(true), errhidecontext(true)));
	ov_wake_after_commit();
	ov_call_end(&call);
	PG_RETURN_VOID();
}

Datum
ov_vault_held(PG_FUNCTION_ARGS)
{
	OvCall		call;
	OvHome		home;
	bool		result,
				missing;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	result = held(&home, &missing);
	ov_call_end(&call);
	PG_RETURN_BOOL(result);
}

/*
 * The one row of oauth_status.  The roles are those that could read the vault
 * file as the server's operating system user, whatever else they are granted:
 * superusers, readers, writers and runners on the server's host (a file that
 * is written can be a library, or the vault file); who may write the catalogue
 * of hosts past row security; and, where a role's name is the identity, whoever
 * can make roles.
 */
Datum
ov_vault_status(PG_FUNCTION_ARGS)
{
	static OvQuery counts = {
		"WITH c AS (SELECT status, count(*) AS n FROM oauth_vault.connection GROUP BY status),"
		" d AS (SELECT coalesce(sum(x.n), 0)::int8 AS n, min(x.oldest) AS oldest, min(y.next) AS next FROM oauth_vault.connector k"
		"  CROSS JOIN LATERAL (SELECT count(*) AS n, min(refresh_at) AS oldest FROM oauth_vault.connection"
		"   WHERE connector_id = k.connector_id AND status = 'active' AND refresh_at <= statement_timestamp()) x"
		"  LEFT JOIN LATERAL (SELECT refresh_at AS next FROM oauth_vault.connection WHERE k.status = 'active'"
		"   AND connector_id = k.connector_id AND status = 'active' AND refresh_at > statement_timestamp()"
		"   ORDER BY refresh_at LIMIT 1) y ON true)"
		" SELECT (SELECT n FROM c WHERE status = 'active'), (SELECT n FROM c WHERE status = 'reauth_required'),"
		" (SELECT n FROM c WHERE status = 'revoking'), (SELECT n FROM c WHERE status = 'revoked'),"
		" (SELECT count(*) FROM oauth_vault.connector WHERE status = 'paused'),"
		" d.n, d.oldest,"
		" (SELECT count(*) FROM oauth_vault.intent WHERE NOT in_doubt), (SELECT count(*) FROM oauth_vault.intent WHERE in_doubt),"
		" (SELECT count(*) FROM oauth_vault.grant_inbox),"
		" (SELECT count(*) FROM oauth_vault.revocation WHERE state = 'queued'),"
		" (SELECT count(*) FROM oauth_vault.revocation WHERE state = 'failed'),"
		" (SELECT count(*) FROM oauth_vault.flow WHERE consumed_at IS NULL AND expires_at > clock_timestamp()),"
		" (SELECT coalesce(array_agg(r.rolname::text ORDER BY r.rolname), '{}') FROM pg_catalog.pg_roles r"
		"  WHERE r.rolname !~ '^pg_' AND (r.rolsuper OR (r.rolcreaterole AND $1)"
		"   OR pg_catalog.pg_has_role(r.oid, 'pg_read_server_files', 'MEMBER')"
		"   OR pg_catalog.pg_has_role(r.oid, 'pg_write_server_files', 'MEMBER')"
		"   OR pg_catalog.pg_has_role(r.oid, 'pg_execute_server_program', 'MEMBER')"
		"   OR ((r.rolname <> 'oauth_vault_owner' OR r.rolcanlogin) AND pg_catalog.pg_has_role(r.oid, 'oauth_vault_owner', 'MEMBER'))"
		"   OR (r.rolbypassrls AND pg_catalog.pg_has_role(r.oid, 'pg_write_all_data', 'MEMBER')))), d.next"
		" FROM d", "o"
	};
	enum
	{
		HELD, WHY, WORKERS, FIRST, DUE_SINCE = FIRST + 6, ROLES = FIRST + 13, NEXT, SILENT, COLUMNS
	};
	int64		beat = (int64) ov_figure(OV_FIG_BEAT);
	OvCall		call;
	OvHome		home;
	const OvSettings *settings = ov_shmem_ready() ? ov_settings_or_null() : NULL;
	Datum		arg;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {false};
	Datum		row;
	bool		is_held,
				missing;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	is_held = held(&home, &missing);
	values[HELD] = BoolGetDatum(is_held);
	nulls[WHY] = !is_held;
	values[WHY] = ov_text_datum(home.why);
	values[WORKERS] = BoolGetDatum(ov_worker_alive(OV_WORKER_KEY, InvalidOid) &&
								   ov_worker_alive(OV_WORKER_NETWORK, MyDatabaseId) &&
								   ov_worker_alive(OV_WORKER_AUDIT, MyDatabaseId));
	/* Before 16 a role with CREATEROLE may grant itself any other that is no superuser, the owner too. */
	arg = BoolGetDatum(PG_MAJORVERSION_NUM < 16 || (settings != NULL && settings->source == OV_SOURCE_ROLE));
	(void) ov_query(&counts, OV_READ, &arg, NULL);
	for (int i = FIRST; i < SILENT; i++)
	{
		values[i] = ov_datum(0, i - FIRST + 1, &nulls[i]);
		/* nobody has this status: 0 */
		if (nulls[i] && i != DUE_SINCE && i != ROLES && i != NEXT)
		{
			values[i] = Int64GetDatum(0);
			nulls[i] = false;
		}
	}
	nulls[SILENT] = beat == 0;
	values[SILENT] = Float8GetDatum((double) (ov_monotonic() - beat) / USECS_PER_SEC);
	row = ov_row(&call, fcinfo, values, nulls);
	ov_call_end(&call);
	PG_RETURN_DATUM(row);
}
