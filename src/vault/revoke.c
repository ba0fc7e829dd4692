/*
 * revoke.c
 *	  Ending connections: oauth_revoke for a person, oauth_revoke_connection and
 *	  oauth_revoke_connections for administrators.  Decisions of the caller's
 *	  transaction.
 *
 * With this transaction's commit a connection has no tokens any more; its
 * sealed records have moved, as they were, to a revocation row, which the
 * network worker takes to the provider after the commit.  A refresh under way
 * sees another decision_epoch and installs nothing.  Rolled back, nothing has
 * happened.
 *
 * Rows are locked first, with the latest snapshot, and moved in statements that
 * take a newer one: what a refresh committed before the lock moves along.
 * Workers never wait for these locks.
 */
#include "vault/vault.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define CHUNK 1000				/* connections in one statement */
#define MAX_REASON 1000

PG_FUNCTION_INFO_V1(ov_revoke);
PG_FUNCTION_INFO_V1(ov_revoke_connection);
PG_FUNCTION_INFO_V1(ov_revoke_connections);

#define IS_LIVE "c.status NOT IN ('revoking', 'revoked')"
#define FOUND "SELECT c.connection_id, c.tenant, c.user_id FROM oauth_vault.connection c WHERE "
#define IN_ORDER " ORDER BY c.tenant, c.user_id, c.connection_id FOR UPDATE"
#define FITS \
	IS_LIVE " AND ($1 IS NULL OR c.tenant = $1) AND ($2 IS NULL OR c.user_id = $2)" \
	" AND ($3 IS NULL OR c.connector_id = $3) AND ($4 IS NULL OR c.scopes && $4)" \
	" AND ($5 IS NULL OR coalesce(c.last_used_at, c.consented_at) < $5) AND ($6 IS NULL OR c.consented_at < $6)"

static OvQuery lock_one = {
	FOUND "c.connection_id = $1 AND " IS_LIVE " FOR UPDATE", "u"
};
static OvQuery lock_person = {
	FOUND "c.tenant = $1 AND c.user_id = $2 AND " IS_LIVE IN_ORDER, "tt"
};
static OvQuery lock_fitting = {FOUND FITS IN_ORDER, "ttuazz"};
static OvQuery count_fitting = {
	"SELECT count(*), count(DISTINCT (c.tenant, c.user_id)) FROM oauth_vault.connection c WHERE " FITS, "ttuazz"
};
static OvQuery queue = {
	"INSERT INTO oauth_vault.revocation (connection_id, tenant, user_id, connector_id, key_id, token_generation,"
	" hosts_digest, metadata, access_token, refresh_token, offboarding_id)"
	" SELECT connection_id, tenant, user_id, connector_id, key_id, token_generation, hosts_digest, metadata,"
	" access_token, refresh_token, $2 FROM oauth_vault.connection WHERE connection_id = ANY ($1::uuid[])", "al"
};
static OvQuery end_rows = {
	"UPDATE oauth_vault.connection c SET status = 'revoking', status_reason = $2, status_detail = NULL,"
	" status_since = now(), decision_epoch = decision_epoch + 1, refresh_at = NULL, attempts = 0,"
	" superseded = NULL, access_token = NULL, refresh_token = NULL, id_token = NULL"
	" FROM oauth_vault.connector n WHERE n.connector_id = c.connector_id AND c.connection_id = ANY ($1::uuid[])"
	" RETURNING c.connection_id, split_part(n.name, ':', 1), c.account, c.tenant, c.user_id", "at"
};
static OvQuery outcome = {
	"SELECT c.status, (SELECT r.state FROM oauth_vault.revocation r WHERE r.connection_id = c.connection_id"
	" ORDER BY r.revocation_id DESC LIMIT 1)"
	" FROM oauth_vault.connection c WHERE c.connection_id = $1", "u"
};

/* ---- ending what has been locked ---- */

static void
remember(OvEnding *e, uint64 row)
{
	OvEnded    *it;

	if (e->nended == e->size)
	{
		e->size = e->size ? e->size * 2 : 16;
		e->ended = e->ended ? repalloc_huge(e->ended, e->size * sizeof(OvEnded)) : palloc(e->size * sizeof(OvEnded));
	}
	it = &e->ended[e->nended++];
	memcpy(it->id, ov_uuid(row, 1), 16);
	it->connector = ov_text(row, 2);
	it->account = ov_text(row, 3);
	it->tenant = ov_text(row, 4);
	it->user_id = ov_text(row, 5);
}

static void
end_chunk(OvEnding *e, const char **ids, int n)
{
	Datum		args[2];
	char		nulls[] = "  ";
	uint64		rows;

	CHECK_FOR_INTERRUPTS();
	args[0] = ov_text_array_datum(ids, n);
	args[1] = Int64GetDatum(e->offboarding_id);
	if (e->offboarding_id == 0)
		nulls[1] = 'n';
	(void) ov_query(&queue, OV_WRITE, args, nulls);
	args[1] = ov_text_datum(e->why);
	rows = ov_query(&end_rows, OV_WRITE, args, NULL);
	for (uint64 i = 0; i < rows; i++)
		remember(e, i);
	SPI_freetuptable(SPI_tuptable);
}

/* The connections of the last result, which are locked */
static void
end_locked(OvEnding *e, uint64 n)
{
	const char **ids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(char *) * (n + 1));
	char	   *tenant = NULL;
	char	   *user = NULL;

	e->nended = 0;
	e->people = 0;
	for (uint64 i = 0; i < n; i++)
	{
		char	   *t = ov_text(i, 2);
		char	   *u = ov_text(i, 3);

		ids[i] = ov_uuid_text(ov_uuid(i, 1));
		if (tenant == NULL || strcmp(t, tenant) != 0 || strcmp(u, user) != 0)
			e->people++;
		tenant = t;
		user = u;
	}
	SPI_freetuptable(SPI_tuptable);
	for (uint64 i = 0; i < n; i += CHUNK)
		end_chunk(e, &ids[i], (int) Min(CHUNK, n - i));
	if (n > 0)
		ov_wake_after_commit();
}

static void
fitting_args(const OvEnding *e, Datum args[6], char nulls[7])
{
	memset(nulls, ' ', 6);
	nulls[6] = '\0';
	args[0] = ov_text_datum(e->tenant);
	args[1] = ov_text_datum(e->user_id);
	args[2] = e->connector_id ? ov_uuid_datum(e->connector_id) : OV_NULL;
	args[3] = e->scopes ? ov_text_array_datum((const char *const *) e->scopes, e->nscopes) : OV_NULL;
	args[4] = TimestampTzGetDatum(e->unused_since);
	args[5] = TimestampTzGetDatum(e->consented_before);
	nulls[0] = e->tenant ? ' ' : 'n';
	nulls[1] = e->user_id ? ' ' : 'n';
	nulls[2] = e->connector_id ? ' ' : 'n';
	nulls[3] = e->scopes ? ' ' : 'n';
	nulls[4] = e->unused_since ? ' ' : 'n';
	nulls[5] = e->consented_before ? ' ' : 'n';
}

void
ov_end_connections(OvEnding *e)
{
	Datum		args[6];
	char		nulls[7];
	bool		of_person = e->tenant && e->user_id && !e->connector_id && !e->scopes &&
		!e->unused_since && !e->consented_before;

	if (e->one != NULL)
	{
		args[0] = ov_uuid_datum(e->one);
		end_locked(e, ov_query(&lock_one, OV_WRITE, args, NULL));
		return;
	}
	fitting_args(e, args, nulls);
	/* of one person it is an index scan, whatever the planner thinks of the rest */
	end_locked(e, ov_query(of_person ? &lock_person : &lock_fitting, OV_WRITE, args, of_person ? NULL : nulls));
}

/* One row for each connection; with "durable" all are committed when this returns. */
void
ov_audit_ended(OvCall *call, const OvEnding *e)
{
	for (int64 i = 0; i < e->nended; i++)
	{
		OvEvent		event = {
			.event = "revocation_requested", .outcome = "ok", .connector = e->ended[i].connector,
			.connection_id = e->ended[i].id, .account = e->ended[i].account, .tenant = e->ended[i].tenant,
			.user_id = e->ended[i].user_id, .reason = e->reason ? e->reason : e->why
		};

		ov_audit_append_event(call, &event);
	}
	ov_audit_settle();
}

/* ---- a person's own ---- */

typedef struct Revoking
{
	const char *connector;
	const char *account;
	OvConnection *c;
	OvEnding	ending;
} Revoking;

static void
revoke_own(OvCall *call, void *arg)
{
	Revoking   *r = arg;

	r->c = ov_connection(call, r->connector, r->account);
	r->ending = (OvEnding) {.one = r->c->id, .why = "revoked_by_person"};
	/* somebody may have been faster while we wait for the lock: then none is left */
	ov_end_connections(&r->ending);
}

/* local_state and provider_state of a connection, the first of them at values[0] */
static void
read_outcome(const unsigned char id[16], Datum *values)
{
	Datum		arg = ov_uuid_datum(id);

	if (ov_query(&outcome, OV_READ, &arg, NULL) == 0)
		ov_no_connection("no_connection");
	values[0] = ov_text_datum(ov_text(0, 1));
	/* a connection that was imported as revoked has nothing to send */
	values[1] = ov_text_datum(ov_null(0, 2) ? "unsupported" : ov_text(0, 2));
}

static Datum
revoke_by_person(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	Revoking	r = {0};
	Datum		values[3];
	bool		nulls[3] = {false};

	r.connector = ov_arg_name(fcinfo, 0, "connector", true, 255);
	r.account = ov_arg_name(fcinfo, 1, "account", false, 255);
	event->connector = r.connector;
	event->account = r.account;
	PreventCommandIfReadOnly("oauth_revoke()");
	ov_decide(revoke_own, call, &r);
	event->account = r.c->account;
	event->connection_id = r.c->id;
	if (r.ending.nended > 0)
		ov_audit(call, event);
	values[0] = ov_uuid_datum(r.c->id);
	read_outcome(r.c->id, &values[1]);
	return ov_row(call, fcinfo, values, nulls);
}

Datum
ov_revoke(PG_FUNCTION_ARGS)
{
	return ov_person_call(fcinfo, "revocation_requested", 2, revoke_by_person);
}

/* ---- administrators ---- */

static void
end_step(OvCall *call, void *arg)
{
	ov_end_connections(arg);
}

Datum
ov_revoke_connection(PG_FUNCTION_ARGS)
{
	OvCall		call;
	OvEnding	e = {.why = "revoked_by_administrator"};
	Datum		values[2];
	bool		nulls[2] = {false};
	Datum		row;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	PreventCommandIfReadOnly("oauth_revoke_connection()");
	if (PG_ARGISNULL(0))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"connection_id\" must not be null", NULL, NULL);
	e.one = PG_GETARG_UUID_P(0)->data;
	e.reason = ov_arg_name(fcinfo, 1, "reason", false, MAX_REASON);
	ov_decide(end_step, &call, &e);
	ov_audit_ended(&call, &e);
	read_outcome(e.one, values);
	row = ov_row(&call, fcinfo, values, nulls);
	ov_call_end(&call);
	PG_RETURN_DATUM(row);
}

static TimestampTz
ago(FunctionCallInfo fcinfo, int n, const char *name)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz then;

	if (PG_ARGISNULL(n))
		return 0;
	then = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(now), PG_GETARG_DATUM(n)));
	if (then > now)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, psprintf("parameter \"%s\" must not be negative", name), NULL, NULL);
	return then;
}

Datum
ov_revoke_connections(PG_FUNCTION_ARGS)
{
	OvCall		call;
	OvEnding	e = {.why = "revoked_by_administrator"};
	char	   *connector;
	bool		dry;
	Datum		args[6];
	char		isnull[7];
	Datum		values[2];
	bool		nulls[2] = {false};
	Datum		row;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	e.tenant = ov_arg_name(fcinfo, 0, "tenant", false, 255);
	e.user_id = ov_arg_name(fcinfo, 1, "user_id", false, 255);
	connector = ov_arg_name(fcinfo, 2, "connector", false, 255);
	e.scopes = ov_arg_text_array(fcinfo, 3, "scopes", &e.nscopes);
	e.unused_since = ago(fcinfo, 4, "unused_for");
	e.consented_before = PG_ARGISNULL(5) ? 0 : PG_GETARG_TIMESTAMPTZ(5);
	e.reason = ov_arg_name(fcinfo, 6, "reason", false, MAX_REASON);
	if (PG_ARGISNULL(7))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"dry_run\" must not be null", NULL, NULL);
	dry = PG_GETARG_BOOL(7);
	if (!e.tenant && !e.user_id && !connector && !e.scopes && !e.unused_since && !e.consented_before)
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "no condition says which connections are meant", NULL,
				 "Give at least one of tenant, user_id, connector, scopes, unused_for and consented_before; consented_before => now() means all.");
	/* the same user_id may be another person in another tenant */
	if (e.user_id != NULL && e.tenant == NULL)
		e.tenant = "";
	if (connector != NULL)
	{
		OvConnector *c = ov_connector_by_name(connector);

		if (c == NULL)
			ov_raise(ERRCODE_UNDEFINED_OBJECT, psprintf("connector \"%s\" does not exist", connector), NULL,
					 "SELECT name FROM oauth_vault.oauth_connectors lists them.");
		e.connector_id = c->id;
	}
	if (dry)
	{
		fitting_args(&e, args, isnull);
		(void) ov_query(&count_fitting, OV_READ, args, isnull);
		values[0] = Int64GetDatum(ov_int8(0, 1));
		values[1] = Int64GetDatum(ov_int8(0, 2));
	}
	else
	{
		PreventCommandIfReadOnly("oauth_revoke_connections()");
		ov_decide(end_step, &call, &e);
		ov_audit_ended(&call, &e);
		values[0] = Int64GetDatum(e.nended);
		values[1] = Int64GetDatum(e.people);
	}
	row = ov_row(&call, fcinfo, values, nulls);
	ov_call_end(&call);
	PG_RETURN_DATUM(row);
}
