/*
 * scope.c
 *	  Which scopes a consent asks for, and who may say so.
 *
 * Least first: what the caller names, or what was asked before when a dead
 * connection is renewed, or the defaults.  Whatever it is must lie within the
 * connector's ceiling, the policy for the person (else for the tenant) and the
 * person's own limit.  Scopes that were granted already are asked for again,
 * so that consenting to more does not lose what there was.
 *
 * oauth_set_my_limit decides in the caller's transaction.
 */
#include "vault/vault.h"

#include "miscadmin.h"

PG_FUNCTION_INFO_V1(ov_set_my_limit);

static OvQuery read_policy = {
	"SELECT user_id IS NOT NULL, own_limit, allowed, default_scopes FROM oauth_vault.scope_policy"
	" WHERE connector_id = $1 AND tenant = $2 AND (user_id = $3 OR user_id IS NULL)", "utt"
};
static OvQuery write_limit = {
	"INSERT INTO oauth_vault.scope_policy (connector_id, tenant, user_id, allowed, own_limit)"
	" VALUES ($1, $2, $3, $4, true) ON CONFLICT (connector_id, tenant, user_id, own_limit)"
	" DO UPDATE SET allowed = excluded.allowed, changed_at = now()", "utta"
};
static OvQuery remove_limit = {
	"DELETE FROM oauth_vault.scope_policy"
	" WHERE connector_id = $1 AND tenant = $2 AND user_id = $3 AND own_limit", "utt"
};

typedef struct Scopes
{
	bool		set;
	char	  **items;
	int			n;
} Scopes;

typedef struct Policy
{
	Scopes		policy;			/* of the person, else of the tenant */
	Scopes		defaults;		/* of the same row */
	Scopes		limit;			/* the person's own */
} Policy;

static Scopes
list_at(uint64 row, int col)
{
	Scopes		l = {.set = !ov_null(row, col)};

	l.items = ov_text_array(row, col, &l.n);
	return l;
}

static void
policy_of(OvCall *call, const unsigned char connector_id[16], Policy *p)
{
	Datum		args[3];
	uint64		rows;
	bool		personal = false;

	memset(p, 0, sizeof(*p));
	args[0] = ov_uuid_datum(connector_id);
	args[1] = ov_text_datum(call->person->tenant);
	args[2] = ov_text_datum(call->person->user_id);
	rows = ov_query(&read_policy, OV_READ, args, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		of_person = ov_bool(i, 1);

		if (ov_bool(i, 2))
			p->limit = list_at(i, 3);
		else if (of_person || !personal)
		{
			personal = of_person;
			p->policy = list_at(i, 3);
			p->defaults = list_at(i, 4);
		}
	}
}

static bool
allows(const Scopes *l, const char *scope)
{
	return !l->set || ov_array_has(l->items, l->n, scope);
}

static bool
permitted(const OvConnector *connector, const Policy *p, const char *scope)
{
	return (!connector->has_max_scopes || ov_array_has(connector->max_scopes, connector->nmax_scopes, scope)) &&
		allows(&p->policy, scope) && allows(&p->limit, scope);
}

void
ov_check_scopes(char **scopes, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (!ov_scope_token_ok(scopes[i]))
			ov_raise(ERRCODE_INVALID_PARAMETER_VALUE,
					 psprintf("elements of parameter \"%s\" must be scope tokens", name), NULL,
					 "A scope is one word of printable ASCII without space, quote and backslash; pass several as several elements.");
}

static void
add(char **list, int *n, char *scope)
{
	if (!ov_array_has(list, *n, scope))
		list[(*n)++] = scope;
}

char **
ov_scopes_to_ask(OvCall *call, const OvConnector *connector, const OvConnection *existing,
				 char **asked, int nasked, int *n)
{
	Policy		policy;
	bool		renewal = asked == NULL && existing != NULL && strcmp(existing->status, "reauth_required") == 0;
	char	  **wanted = asked;
	int			nwanted = nasked;
	char	  **result,
			  **denied;
	int			ndenied = 0;

	ov_check_scopes(asked, nasked, "scopes");
	policy_of(call, connector->id, &policy);
	if (renewal)
	{
		wanted = existing->requested;
		nwanted = existing->nrequested;
	}
	else if (asked == NULL && policy.defaults.set)
	{
		wanted = policy.defaults.items;
		nwanted = policy.defaults.n;
	}
	else if (asked == NULL)
	{
		wanted = connector->default_scopes;
		nwanted = connector->ndefault_scopes;
	}

	result = palloc0(sizeof(char *) * (nwanted + (existing ? existing->nscopes : 0) + 1));
	denied = palloc0(sizeof(char *) * (nwanted + 1));
	*n = 0;
	for (int i = 0; i < nwanted; i++)
	{
		if (permitted(connector, &policy, wanted[i]))
			add(result, n, wanted[i]);
		else
			add(denied, &ndenied, wanted[i]);
	}
	/* A renewal asks for what policy still leaves of it, if there is any. */
	if (ndenied > 0 && (!renewal || *n == 0))
		ov_raise(ERRCODE_OV_POLICY_DENIED, "scopes are not allowed here",
				 ov_detail("reason", "scope", "denied_scopes", ov_array_json(denied, ndenied), NULL),
				 "Ask for less, or have an administrator change the connector's ceiling or the scope policy;"
				 " oauth_set_my_limit sets the person's own limit.");
	for (int i = 0; existing != NULL && i < existing->nscopes; i++)
		if (ov_scope_token_ok(existing->scopes[i]) && permitted(connector, &policy, existing->scopes[i]))
			add(result, n, existing->scopes[i]);
	return result;
}

/* ---- oauth_set_my_limit ---- */

typedef struct OwnLimit
{
	unsigned char connector_id[16];
	char	  **scopes;			/* NULL: none */
	int			n;
} OwnLimit;

/* An agent may tighten the limit of the person it acts for, never loosen it. */
static void
check_actor(const OvPerson *person, const Policy *policy, const OwnLimit *limit)
{
	bool		wider = false;

	if (person->actor == NULL || !policy->limit.set)
		return;
	if (limit->scopes == NULL)
		wider = true;
	for (int i = 0; i < limit->n; i++)
		if (!allows(&policy->limit, limit->scopes[i]))
			wider = true;
	if (wider)
		ov_raise(ERRCODE_OV_POLICY_DENIED, "an agent cannot raise the limit of the person it acts for",
				 ov_detail("reason", "actor", NULL),
				 "The person has to do this, with an assertion that names no actor.");
}

static void
set_limit(OvCall *call, void *arg)
{
	OwnLimit   *limit = arg;
	Policy		policy;
	Datum		args[4];

	policy_of(call, limit->connector_id, &policy);
	check_actor(call->person, &policy, limit);
	args[0] = ov_uuid_datum(limit->connector_id);
	args[1] = ov_text_datum(call->person->tenant);
	args[2] = ov_text_datum(call->person->user_id);
	if (limit->scopes == NULL)
		(void) ov_query(&remove_limit, OV_WRITE, args, NULL);
	else
	{
		args[3] = ov_text_array_datum((const char *const *) limit->scopes, limit->n);
		(void) ov_query(&write_limit, OV_WRITE, args, NULL);
	}
}

static Datum
set_my_limit(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	char	   *name = ov_arg_name(fcinfo, 0, "connector", true, 255);
	OwnLimit	limit;
	OvConnector *connector;

	event->connector = name;
	limit.scopes = ov_arg_text_array(fcinfo, 1, "scopes", &limit.n);
	ov_check_scopes(limit.scopes, limit.n, "scopes");
	event->scopes = limit.scopes;
	event->nscopes = limit.n;
	ov_check_onboarded(call);
	connector = ov_connector_by_name(name);
	if (connector == NULL)
		ov_no_connection("unknown_connector");
	memcpy(limit.connector_id, connector->id, 16);
	PreventCommandIfReadOnly("oauth_set_my_limit()");
	ov_decide(set_limit, call, &limit);
	event->reason = limit.scopes ? NULL : "limit removed";
	ov_audit(call, event);
	return (Datum) 0;
}

Datum
ov_set_my_limit(PG_FUNCTION_ARGS)
{
	(void) ov_person_call(fcinfo, "own_limit_set", 2, set_my_limit);
	PG_RETURN_VOID();
}
