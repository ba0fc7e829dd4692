/*
 * offboard.c
 *	  People, tenants and connectors that leave: oauth_offboard and the like, and
 *	  oauth_onboard for those who come back.
 *
 * Decisions of the caller's transaction.  With its commit the block is in force
 * in every session: no live connection is left, begin and complete look at the
 * offboarding row, a consent that is being stored is kept out by the person's
 * lock (person_lock.h), and sessions forget the subkeys that they were given.
 * What providers say, and the erasure, are the network worker's
 * (worker/offboarding.c).
 *
 * Asking again changes nothing and costs little, so that a trigger or a handler
 * of a directory may do so: it returns the offboarding that is in force.
 *
 * A connector that leaves is retired: nothing but revocations is sent for it.
 * Its row is locked FOR UPDATE, which a consent that is being stored excludes.
 */
#include "vault/vault.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "person_lock.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#define MAX_REASON 1000

PG_FUNCTION_INFO_V1(ov_offboard);
PG_FUNCTION_INFO_V1(ov_offboard_tenant);
PG_FUNCTION_INFO_V1(ov_offboard_connector);
PG_FUNCTION_INFO_V1(ov_onboard);
PG_FUNCTION_INFO_V1(ov_onboard_tenant);
PG_FUNCTION_INFO_V1(ov_offboardings);

#define SAME \
	" lifted_at IS NULL AND tenant IS NOT DISTINCT FROM $1 AND user_id IS NOT DISTINCT FROM $2" \
	" AND connector_id IS NOT DISTINCT FROM $3"

static OvQuery in_force = {
	"SELECT offboarding_id FROM oauth_vault.offboarding WHERE" SAME, "ttu"
};
static OvQuery insert = {
	"INSERT INTO oauth_vault.offboarding (scope, tenant, user_id, connector_id, reason, deadline)"
	" VALUES ($1, $2, $3, $4, $5, $6) RETURNING offboarding_id", "tttutz"
};
/* Also for stragglers: then there is something to complete again. */
static OvQuery add = {
	"UPDATE oauth_vault.offboarding SET connections = connections + $2, next_look_at = now(),"
	" completed_at = NULL, completed_by = NULL, deadline = greatest(deadline, $3) WHERE offboarding_id = $1", "llz"
};
static OvQuery result = {
	"SELECT CASE WHEN completed_at IS NULL THEN 'revoking' ELSE 'completed' END, deadline"
	" FROM oauth_vault.offboarding WHERE offboarding_id = $1", "l"
};
static OvQuery forget_limits = {
	"DELETE FROM oauth_vault.scope_policy WHERE own_limit AND tenant = $1 AND ($2 IS NULL OR user_id = $2)", "tt"
};
/* What was retired before and is retired again counts as another time. */
static OvQuery close_before = {
	"UPDATE oauth_vault.offboarding SET lifted_at = clock_timestamp() WHERE lifted_at IS NULL AND connector_id IN"
	" (SELECT connector_id FROM oauth_vault.connector WHERE connector_id = $1 AND status <> 'retired')", "u"
};
static OvQuery lock_connector = {
	"SELECT 1 FROM oauth_vault.connector WHERE connector_id = $1 FOR UPDATE", "u"
};
static OvQuery retire = {
	"UPDATE oauth_vault.connector SET status = 'retired', status_reason = coalesce($2, 'offboarded'), status_since = now(),"
	" paused_by = $3 WHERE connector_id = $1 AND status <> 'retired'", "utt"
};
static OvQuery lift = {
	"UPDATE oauth_vault.offboarding SET lifted_at = clock_timestamp(), lifted_by = session_user,"
	" lifted_key_id = nextval('oauth_vault.vault_key_id') WHERE" SAME, "ttu"
};

typedef struct Leaving
{
	const char *scope;
	const char *tenant;			/* NULL: a connector */
	const char *user_id;		/* NULL: everybody of the tenant */
	OvConnector *connector;
	const char *reason;
	TimestampTz deadline;
	int64		id;
	OvEnding	ending;
} Leaving;

static void
same_args(const Leaving *l, Datum args[3], char nulls[4])
{
	args[0] = ov_text_datum(l->tenant);
	args[1] = ov_text_datum(l->user_id);
	args[2] = l->connector ? ov_uuid_datum(l->connector->id) : OV_NULL;
	nulls[0] = l->tenant ? ' ' : 'n';
	nulls[1] = l->user_id ? ' ' : 'n';
	nulls[2] = l->connector ? ' ' : 'n';
	nulls[3] = '\0';
}

static int64
record(const Leaving *l)
{
	Datum		args[6];
	char		nulls[] = "      ";

	same_args(l, &args[1], &nulls[1]);
	args[0] = ov_text_datum(l->scope);
	args[4] = ov_text_datum(l->reason);
	nulls[4] = l->reason ? ' ' : 'n';
	args[5] = TimestampTzGetDatum(l->deadline);
	nulls[5] = ' ';
	(void) ov_query(&insert, OV_WRITE, args, nulls);
	return ov_int8(0, 1);
}

static void
shut_out(const OvCall *call, const Leaving *l)
{
	Datum		args[3];
	char		nulls[] = "   ";

	if (l->connector == NULL)
	{
		ov_person_exclude(l->tenant, l->user_id);
		args[0] = ov_text_datum(l->tenant);
		args[1] = ov_text_datum(l->user_id);
		nulls[1] = l->user_id ? ' ' : 'n';
		(void) ov_query(&forget_limits, OV_WRITE, args, nulls);
		return;
	}
	args[0] = ov_uuid_datum(l->connector->id);
	args[1] = ov_text_datum(l->reason);
	nulls[1] = l->reason ? ' ' : 'n';
	args[2] = ov_text_datum(call->role);
	(void) ov_query(&lock_connector, OV_WRITE, args, NULL);
	(void) ov_query(&close_before, OV_WRITE, args, NULL);
	(void) ov_query(&retire, OV_WRITE, args, nulls);
}

static void
offboard(OvCall *call, void *arg)
{
	Leaving    *l = arg;
	Datum		args[3];
	char		nulls[4];
	bool		before;

	shut_out(call, l);
	same_args(l, args, nulls);
	before = ov_query(&in_force, OV_READ, args, nulls) > 0;
	l->id = before ? ov_int8(0, 1) : record(l);
	l->ending = (OvEnding) {
		.tenant = l->tenant, .user_id = l->user_id, .connector_id = l->connector ? l->connector->id : NULL,
		.offboarding_id = l->id, .reason = l->reason, .why = l->connector ? "connector_offboarded" : "offboarded"
	};
	ov_end_connections(&l->ending);
	if (!before || l->ending.nended > 0)
	{
		args[0] = Int64GetDatum(l->id);
		args[1] = Int64GetDatum(l->ending.nended);
		args[2] = TimestampTzGetDatum(l->deadline);
		(void) ov_query(&add, OV_WRITE, args, NULL);
		ov_wake_after_commit();
		ov_recall_after_commit();
	}
}

static Datum
decide(OvCall *call, FunctionCallInfo fcinfo, Leaving *l, const char *function)
{
	OvEvent		event = {.event = "offboarding_requested", .outcome = "ok", .tenant = l->tenant, .user_id = l->user_id,
	.connector = l->connector ? l->connector->name : NULL, .reason = l->reason};
	Datum		values[4];
	bool		nulls[4] = {false};

	PreventCommandIfReadOnly(function);
	ov_decide(offboard, call, l);
	ov_audit_append_event(call, &event);
	ov_audit_ended(call, &l->ending);
	values[0] = Int64GetDatum(l->id);
	(void) ov_query(&result, OV_READ, values, NULL);
	values[1] = ov_text_datum(ov_text(0, 1));
	values[2] = Int64GetDatum(l->ending.nended);
	values[3] = TimestampTzGetDatum(ov_time(0, 2));
	return ov_row(call, fcinfo, values, nulls);
}

/* ---- parameters ---- */

static const char *
arg_tenant(FunctionCallInfo fcinfo, int n)
{
	const char *tenant = ov_arg_name(fcinfo, n, "tenant", false, 255);

	if (tenant == NULL)
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"tenant\" must not be null", NULL,
				 "The tenant of a vault without tenants is ''.");
	return tenant;
}

static TimestampTz
arg_deadline(FunctionCallInfo fcinfo, int n)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz then;

	if (PG_ARGISNULL(n))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"deadline\" must not be null", NULL, NULL);
	then = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now), PG_GETARG_DATUM(n)));
	if (then < now)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"deadline\" must not be negative", NULL, NULL);
	return then;
}

/* ---- leaving ---- */

Datum
ov_offboard(PG_FUNCTION_ARGS)
{
	OvCall		call;
	Leaving		l = {.scope = "person"};
	Datum		row;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	l.user_id = ov_arg_name(fcinfo, 0, "user_id", true, 255);
	l.tenant = arg_tenant(fcinfo, 1);
	l.reason = ov_arg_name(fcinfo, 2, "reason", false, MAX_REASON);
	l.deadline = arg_deadline(fcinfo, 3);
	row = decide(&call, fcinfo, &l, "oauth_offboard()");
	ov_call_end(&call);
	PG_RETURN_DATUM(row);
}

Datum
ov_offboard_tenant(PG_FUNCTION_ARGS)
{
	OvCall		call;
	Leaving		l = {.scope = "tenant"};
	Datum		row;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	l.tenant = arg_tenant(fcinfo, 0);
	l.reason = ov_arg_name(fcinfo, 1, "reason", false, MAX_REASON);
	l.deadline = arg_deadline(fcinfo, 2);
	row = decide(&call, fcinfo, &l, "oauth_offboard_tenant()");
	ov_call_end(&call);
	PG_RETURN_DATUM(row);
}

Datum
ov_offboard_connector(PG_FUNCTION_ARGS)
{
	OvCall		call;
	Leaving		l = {.scope = "connector"};
	char	   *name;
	Datum		row;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	name = ov_arg_name(fcinfo, 0, "connector", true, 255);
	l.reason = ov_arg_name(fcinfo, 1, "reason", false, MAX_REASON);
	l.deadline = arg_deadline(fcinfo, 2);
	l.connector = ov_connector_by_name(name);
	if (l.connector == NULL)
		ov_raise(ERRCODE_UNDEFINED_OBJECT, psprintf("connector \"%s\" does not exist", name), NULL,
				 "SELECT name FROM oauth_vault.oauth_connectors lists them.");
	row = decide(&call, fcinfo, &l, "oauth_offboard_connector()");
	ov_call_end(&call);
	PG_RETURN_DATUM(row);
}

/* ---- coming back ---- */

static bool
come_back(OvCall *call, const Leaving *l, const char *function)
{
	OvEvent		event = {.event = "onboarded", .outcome = "ok", .tenant = l->tenant, .user_id = l->user_id};
	Datum		args[3];
	char		nulls[4];

	PreventCommandIfReadOnly(function);
	ov_person_exclude(l->tenant, l->user_id);
	same_args(l, args, nulls);
	if (ov_query(&lift, OV_WRITE, args, nulls) == 0)
		return false;
	ov_audit(call, &event);
	return true;
}

Datum
ov_onboard(PG_FUNCTION_ARGS)
{
	OvCall		call;
	Leaving		l = {0};
	bool		lifted;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	l.user_id = ov_arg_name(fcinfo, 0, "user_id", true, 255);
	l.tenant = arg_tenant(fcinfo, 1);
	lifted = come_back(&call, &l, "oauth_onboard()");
	ov_call_end(&call);
	PG_RETURN_BOOL(lifted);
}

Datum
ov_onboard_tenant(PG_FUNCTION_ARGS)
{
	OvCall		call;
	Leaving		l = {0};
	bool		lifted;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	l.tenant = arg_tenant(fcinfo, 0);
	lifted = come_back(&call, &l, "oauth_onboard_tenant()");
	ov_call_end(&call);
	PG_RETURN_BOOL(lifted);
}

/* ---- the person's own session ---- */

void
ov_check_onboarded(OvCall *call)
{
	ov_check_person_onboarded(call->person->tenant, call->person->user_id);
}

void
ov_check_person_onboarded(const char *tenant, const char *user_id)
{
	static OvQuery blocked = {
		"SELECT requested_at FROM oauth_vault.offboarding WHERE lifted_at IS NULL AND tenant = $1"
		" AND (user_id = $2 OR user_id IS NULL) LIMIT 1", "tt"
	};
	Datum		args[2];

	args[0] = ov_text_datum(tenant);
	args[1] = ov_text_datum(user_id);
	if (ov_query(&blocked, OV_READ, args, NULL) > 0)
		ov_raise(ERRCODE_OV_USER_OFFBOARDED, "the person has been offboarded",
				 ov_detail("reason", "offboarded", "since", ov_time_text(ov_time(0, 1)), NULL),
				 "Nothing can be used or connected; an administrator calls oauth_onboard when the person is back.");
}

/* ---- progress and proof ---- */

static OvQuery all = {
	"SELECT o.offboarding_id, o.scope, o.tenant, o.user_id,"
	" (SELECT split_part(n.name, ':', 1) FROM oauth_vault.connector n WHERE n.connector_id = o.connector_id),"
	" o.reason, o.requested_at, o.requested_by, o.seen_at, o.deadline,"
	" CASE WHEN o.completed_at IS NULL THEN 'revoking' ELSE 'completed' END, o.connections,"
	" r.queued, r.confirmed, r.unsupported, r.failed, r.residual_until, r.settled_at,"
	" o.completed_at, o.completed_by, o.keys_destroyed, o.lifted_at, o.lifted_by"
	" FROM oauth_vault.offboarding o, LATERAL (SELECT count(*) FILTER (WHERE state = 'queued') AS queued,"
	"  count(*) FILTER (WHERE state = 'confirmed') AS confirmed,"
	"  count(*) FILTER (WHERE state IN ('unsupported', 'superseded')) AS unsupported,"
	"  count(*) FILTER (WHERE state = 'failed') AS failed,"
	"  max(residual_until) AS residual_until, max(settled_at) AS settled_at"
	"  FROM oauth_vault.revocation v WHERE v.offboarding_id = o.offboarding_id) r ORDER BY o.offboarding_id", ""
};

Datum
ov_offboardings(PG_FUNCTION_ARGS)
{
	OvCall		call;
	uint64		n;

	InitMaterializedSRF(fcinfo, 0);
	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	n = ov_query(&all, OV_READ, NULL, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		Datum		values[23];
		bool		nulls[23];

		for (int c = 0; c < lengthof(values); c++)
			values[c] = ov_datum(i, c + 1, &nulls[c]);
		ov_put_row(fcinfo, values, nulls);
	}
	ov_call_end(&call);
	return (Datum) 0;
}
