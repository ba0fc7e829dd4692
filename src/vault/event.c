/*
 * event.c
 *	  Events: the trigger that writes them down, and what consumers call.
 *
 * The trigger runs in whatever transaction changes the row, a session's or the
 * network worker's, as the owner and without row security, whoever made the
 * change.  Its statement finds nothing by search_path.  It never touches NOTIFY,
 * with which a transaction could not be prepared: the network worker notifies.
 *
 * Consumers get at least once what is in oauth_vault.event, whose order is the
 * order in which the events became visible (worker/events.c).  An event is done
 * when its consumer says so, best in the transaction that acts on it.
 */
#include "vault/vault.h"

#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "worker/worker.h"

#define MAX_EVENTS 10000

PG_FUNCTION_INFO_V1(ov_note_event);
PG_FUNCTION_INFO_V1(ov_events);
PG_FUNCTION_INFO_V1(ov_events_done);

/* ---- writing down ---- */

static Datum
column(HeapTuple tuple, TupleDesc desc, const char *name, bool *isnull)
{
	int			n = SPI_fnumber(desc, name);

	if (n <= 0)
		elog(ERROR, "there is no column \"%s\"", name);
	return heap_getattr(tuple, n, desc, isnull);
}

static bool
has(HeapTuple tuple, TupleDesc desc, const char *name)
{
	bool		isnull;

	(void) column(tuple, desc, name, &isnull);
	return !isnull;
}

static bool
status_is(HeapTuple tuple, TupleDesc desc, const char *status)
{
	bool		isnull;
	Datum		d = column(tuple, desc, "status", &isnull);

	return !isnull && strcmp(TextDatumGetCString(d), status) == 0;
}

/* What has happened to a connection; NULL: nothing that has a name */
static const char *
connection_event(HeapTuple old, HeapTuple new, TupleDesc desc)
{
	static const struct
	{
		const char *status;
		const char *event;
	}			reached[] = {
		{"reauth_required", "reauth_required"},
		{"revoking", "revoked"},	/* here; the provider is told next */
		{"revoked", "revocation_settled"}
	};
	bool		isnull;

	/* A consent is stored by the network worker, an import by the administrator's session. */
	if (old == NULL)
		return MyBackendType == B_BG_WORKER ? "connected" : "imported";
	for (int i = 0; i < lengthof(reached); i++)
		if (status_is(new, desc, reached[i].status) && !status_is(old, desc, reached[i].status))
			return reached[i].event;
	if (!status_is(new, desc, "active") ||
		column(old, desc, "token_generation", &isnull) == column(new, desc, "token_generation", &isnull))
		return NULL;
	if (DatumGetTimestampTz(column(old, desc, "consented_at", &isnull)) !=
		DatumGetTimestampTz(column(new, desc, "consented_at", &isnull)))
		return "connected";
	return "refreshed";
}

static const char *
offboarding_event(HeapTuple old, HeapTuple new, TupleDesc desc)
{
	if (old == NULL)
		return "offboarded";
	return has(new, desc, "lifted_by") && !has(old, desc, "lifted_by") ? "onboarded" : "erased";
}

static void
insert(const Datum *args, const char *nulls)
{
	static OvQuery add = {
		"INSERT INTO oauth_vault.event_pending (event, tenant, user_id, connector_id, connection_id, account, status, reason)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", "tttuuttt"
	};
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(get_role_oid("oauth_vault_owner", false),
						   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	(void) ov_query(&add, OV_WRITE, args, nulls);
	SetUserIdAndSecContext(user, context);
}

Datum
ov_note_event(PG_FUNCTION_ARGS)
{
	/* an offboarding has no more than the first three and the last */
	static const char *const columns[] = {"tenant", "user_id", "connector_id", "connection_id", "account", "status", NULL};
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		connection;
	TupleDesc	desc;
	HeapTuple	old,
				new;
	const char *event;
	Datum		args[8] = {0};
	char		nulls[9] = "nnnnnnnn";
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "not called as a trigger");
	connection = strcmp(RelationGetRelationName(trigger->tg_relation), "connection") == 0;
	desc = RelationGetDescr(trigger->tg_relation);
	old = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_trigtuple : NULL;
	new = old ? trigger->tg_newtuple : trigger->tg_trigtuple;
	event = connection ? connection_event(old, new, desc) : offboarding_event(old, new, desc);
	if (event == NULL)
		return PointerGetDatum(NULL);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	args[0] = ov_text_datum(event);
	nulls[0] = ' ';
	for (int i = 0; i < (connection ? 6 : 3); i++)
	{
		args[i + 1] = column(new, desc, columns[i], &isnull);
		nulls[i + 1] = isnull ? 'n' : ' ';
	}
	args[7] = column(new, desc, connection ? "status_reason" : "reason", &isnull);
	nulls[7] = isnull ? 'n' : ' ';
	insert(args, nulls);
	SPI_finish();
	if (MyBackendType == B_BG_WORKER)
		ov_events_written = true;
	else
		ov_wake_after_commit();
	return PointerGetDatum(NULL);
}

/* ---- consumers ---- */

Datum
ov_events(PG_FUNCTION_ARGS)
{
	static OvQuery appear = {
		"INSERT INTO oauth_vault.event_consumer AS c (consumer) VALUES ($1) ON CONFLICT (consumer)"
		" DO UPDATE SET seen_at = now() WHERE c.seen_at < now() - interval '1 minute'", "t"
	};
	static OvQuery next = {
		"SELECT e.event_id, e.at, e.event, e.tenant, e.user_id,"
		" (SELECT split_part(n.name, ':', 1) FROM oauth_vault.connector n WHERE n.connector_id = e.connector_id),"
		" e.connection_id, e.account, e.status, e.reason FROM oauth_vault.event e"
		" WHERE e.event_id > (SELECT c.event_id FROM oauth_vault.event_consumer c WHERE c.consumer = $1)"
		" ORDER BY e.event_id LIMIT $2", "tl"
	};
	OvCall		call;
	Datum		args[2];
	uint64		n;

	InitMaterializedSRF(fcinfo, 0);
	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	args[0] = ov_text_datum(ov_arg_name(fcinfo, 0, "consumer", true, 255));
	if (PG_ARGISNULL(1))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"max\" must not be null", NULL, NULL);
	if (PG_GETARG_INT32(1) < 1 || PG_GETARG_INT32(1) > MAX_EVENTS)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE,
				 psprintf("parameter \"max\" must be between 1 and %d", MAX_EVENTS), NULL, NULL);
	args[1] = Int64GetDatum(PG_GETARG_INT32(1));
	PreventCommandIfReadOnly("oauth_events()");
	(void) ov_query(&appear, OV_WRITE, args, NULL);
	n = ov_query(&next, OV_READ, args, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		Datum		values[10];
		bool		nulls[10];

		for (int c = 0; c < lengthof(values); c++)
			values[c] = ov_datum(i, c + 1, &nulls[c]);
		ov_put_row(fcinfo, values, nulls);
	}
	ov_call_end(&call);
	return (Datum) 0;
}

Datum
ov_events_done(PG_FUNCTION_ARGS)
{
	static OvQuery lock = {
		"SELECT c.event_id, EXISTS (SELECT FROM oauth_vault.event e WHERE e.event_id = $2)"
		" FROM oauth_vault.event_consumer c WHERE c.consumer = $1 FOR NO KEY UPDATE OF c", "tl"
	};
	static OvQuery move = {
		"UPDATE oauth_vault.event_consumer SET event_id = $2, seen_at = now() WHERE consumer = $1", "tl"
	};
	OvCall		call;
	char	   *consumer;
	Datum		args[2];
	bool		moves;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	consumer = ov_arg_name(fcinfo, 0, "consumer", true, 255);
	if (PG_ARGISNULL(1))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"event_id\" must not be null", NULL, NULL);
	PreventCommandIfReadOnly("oauth_events_done()");
	args[0] = ov_text_datum(consumer);
	args[1] = PG_GETARG_DATUM(1);
	if (ov_query(&lock, OV_WRITE, args, NULL) == 0)
		ov_raise(ERRCODE_UNDEFINED_OBJECT, psprintf("consumer \"%s\" does not exist", consumer), NULL,
				 "The first call of oauth_events makes it.");
	moves = ov_int8(0, 1) < PG_GETARG_INT64(1);
	if (moves && !ov_bool(0, 2))
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"event_id\" is not the id of an event", NULL,
				 "Pass an event_id that oauth_events has returned.");
	if (moves)
		(void) ov_query(&move, OV_WRITE, args, NULL);
	ov_call_end(&call);
	PG_RETURN_BOOL(moves);
}
