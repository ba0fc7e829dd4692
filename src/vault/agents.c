/*
 * agents.c
 *	  What a connector asks of those who read tokens: an actor, a purpose, a pace.
 *
 * The actor is the outermost of the assertion's chain: those within say how it
 * came to act, and decide nothing (RFC 8693 section 4.1).  A tenant's agents are
 * counted apart from another tenant's of the same name.  A read is counted when
 * it is asked for, before a token is renewed for it: one that is frozen causes
 * no request.
 *
 * Freezing is a fact, not a decision: it is in shared memory (worker/actors.c),
 * in force at once, also for the reads of READ ONLY transactions, and stays when
 * the transaction is rolled back.  So does lifting it.
 */
#include "vault/vault.h"

#include "core/json.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "worker/actors.h"

#define MAX_ID 255
#define MAX_ACTOR 2048			/* an assertion has no longer one (core/vaultfile.c) */

PG_FUNCTION_INFO_V1(ov_frozen_actors);
PG_FUNCTION_INFO_V1(ov_unfreeze_actor);

bool
ov_asks_of_agents(const OvConnection *c)
{
	return c->require_actor || c->require_purpose || c->max_reads_per_actor > 0;
}

static bool
is_blank(const char *s)
{
	return s == NULL || s[strspn(s, " \t\r\n\f\v")] == '\0';
}

static void
check_pace(OvCall *call, const OvConnection *c, const OvEvent *event)
{
	OvArena    *arena = ov_call_arena(call);
	const char *text = call->person->actor;
	const OvJson *chain;
	const char *actor;
	TimestampTz until;
	OvEvent		frozen = *event;

	if (ov_json_parse(arena, text, strlen(text), &chain, NULL) != OV_OK ||
		(actor = ov_json_get_string(chain, "sub")) == NULL)
		elog(ERROR, "the actor of a verified assertion cannot be read");
	switch (ov_actor_reads(c->connector_id, call->person->tenant, actor, c->max_reads_per_actor, &until))
	{
		case OV_ACTOR_MAY:
			return;
		case OV_ACTOR_NO_ROOM:
			ov_raise(ERRCODE_OV_QUEUE_FULL, "too many actors read at a time",
					 ov_detail("reason", "actors", NULL),
					 "Try again in a minute, or raise \"oauth_vault.max_actors\".");
		case OV_ACTOR_TOO_FAST:
			frozen.event = "actor_frozen";
			frozen.outcome = "denied";
			frozen.reason = psprintf("more than %d reads in a minute", c->max_reads_per_actor);
			ov_audit_note(call, &frozen);
			break;
		case OV_ACTOR_FROZEN:
			break;
	}
	ov_raise(ERRCODE_OV_POLICY_DENIED, "this actor has read too often and is frozen",
			 ov_detail("reason", "actor_frozen", "connector", c->connector, "retry_at", ov_time_text(until), NULL),
			 "Wait until retry_at, or have an administrator look into it and call oauth_unfreeze_actor.");
}

void
ov_check_agent(OvCall *call, const OvConnection *c, const OvEvent *event)
{
	if (c->require_actor && call->person->actor == NULL)
		ov_raise(ERRCODE_OV_POLICY_DENIED, "this connector's tokens are for agents only",
				 ov_detail("reason", "actor_required", "connector", c->connector, NULL),
				 "Pass an assertion that names the actor (its claim \"act\").");
	if (c->require_purpose && is_blank(event->purpose))
		ov_raise(ERRCODE_OV_POLICY_DENIED, "this connector's tokens are given out for a purpose only",
				 ov_detail("reason", "purpose_required", "connector", c->connector, NULL),
				 "Pass purpose => ... and say what the token is for.");
	if (c->max_reads_per_actor > 0 && call->person->actor != NULL)
		check_pace(call, c, event);
}

/* ---- for administrators ---- */

Datum
ov_frozen_actors(PG_FUNCTION_ARGS)
{
	static OvQuery name_of = {"SELECT name FROM oauth_vault.connector WHERE connector_id = $1", "u"};
	OvCall		call;
	OvFrozenActor *list;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	list = ov_actors_frozen(&n);
	for (int i = 0; i < n; i++)
	{
		Datum		id = ov_uuid_datum(list[i].connector_id);
		Datum		values[5];
		bool		nulls[5] = {false};

		/* of a connector that has gone since */
		if (ov_query(&name_of, OV_READ, &id, NULL) == 0)
			continue;
		values[0] = ov_text_datum(ov_text(0, 1));
		values[1] = ov_text_datum(list[i].tenant);
		values[2] = ov_text_datum(list[i].actor);
		values[3] = TimestampTzGetDatum(list[i].since);
		values[4] = TimestampTzGetDatum(list[i].until);
		ov_put_row(fcinfo, values, nulls);
	}
	ov_call_end(&call);
	return (Datum) 0;
}

static Datum
unfreeze(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	OvConnector *c;
	char	   *name = ov_arg_text(fcinfo, 0, "connector", true);
	char	   *actor = ov_arg_name(fcinfo, 1, "actor", true, MAX_ACTOR);
	char	   *tenant = ov_arg_name(fcinfo, 2, "tenant", false, MAX_ID);

	if (tenant == NULL)
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"tenant\" must not be null", NULL,
				 "The tenant of a vault without tenants is ''.");
	event->connector = name;
	event->tenant = tenant;
	event->reason = actor;
	c = ov_connector_by_name(name);
	if (c == NULL)
		ov_raise(ERRCODE_UNDEFINED_OBJECT, psprintf("connector \"%s\" does not exist", name), NULL,
				 "SELECT name FROM oauth_vault.oauth_connectors lists them.");
	/* first the trail: if it cannot be written, nothing is lifted */
	ov_audit(call, event);
	return BoolGetDatum(ov_actor_thaw(c->id, tenant, actor));
}

Datum
ov_unfreeze_actor(PG_FUNCTION_ARGS)
{
	return ov_admin_call(fcinfo, "actor_unfrozen", unfreeze);
}
