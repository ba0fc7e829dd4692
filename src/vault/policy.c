/*
 * policy.c
 *	  Scope policies: what a tenant, or one person of it, may ask of a connector.
 *
 * A person's policy stands for the tenant's, it does not add to it; both, the
 * connector's ceiling and the person's own limit are applied by scope.c.  A
 * decision: part of the administrator's transaction.
 */
#include "vault/vault.h"

#define MAX_ID 255

PG_FUNCTION_INFO_V1(ov_set_scope_policy);

Datum
ov_set_scope_policy(PG_FUNCTION_ARGS)
{
	static OvQuery upsert = {
		"INSERT INTO oauth_vault.scope_policy (connector_id, tenant, user_id, allowed, default_scopes)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (connector_id, tenant, user_id, own_limit)"
		" DO UPDATE SET allowed = excluded.allowed, default_scopes = excluded.default_scopes, changed_at = now()",
		"uttaa"
	};
	static OvQuery remove = {
		"DELETE FROM oauth_vault.scope_policy WHERE connector_id = $1 AND tenant = $2"
		" AND user_id IS NOT DISTINCT FROM $3 AND NOT own_limit", "utt"
	};
	OvCall		call;
	OvConnector *c;
	OvEvent		event = {.event = "scope_policy_set", .outcome = "ok"};
	char	   *name,
			   *tenant,
			   *user;
	char	  **allowed,
			  **defaults;
	int			nallowed,
				ndefaults;
	Datum		args[5];
	char		nulls[6] = "     ";

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	name = ov_arg_text(fcinfo, 0, "connector", true);
	/* '' is the tenant of a vault without tenants */
	tenant = ov_arg_name(fcinfo, 1, "tenant", false, MAX_ID);
	if (tenant == NULL)
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"tenant\" must not be null", NULL,
				 "The tenant of a vault without tenants is ''.");
	user = ov_arg_name(fcinfo, 2, "user_id", false, MAX_ID);
	if (user != NULL && user[0] == '\0')
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"user_id\" must not be empty", NULL,
				 "NULL stands for everybody of the tenant.");
	allowed = ov_arg_text_array(fcinfo, 3, "allowed", &nallowed);
	ov_check_scopes(allowed, nallowed, "allowed");
	defaults = ov_arg_text_array(fcinfo, 4, "default_scopes", &ndefaults);
	ov_check_scopes(defaults, ndefaults, "default_scopes");
	if (defaults != NULL && allowed == NULL)
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"allowed\" must not be null when \"default_scopes\" is given",
				 NULL, NULL);
	for (int i = 0; i < ndefaults; i++)
		if (!ov_array_has(allowed, nallowed, defaults[i]))
			ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"default_scopes\" is not within \"allowed\"",
					 ov_detail("denied_scopes", ov_array_json(&defaults[i], 1), NULL), NULL);

	c = ov_connector_by_name(name);
	if (c == NULL)
		ov_raise(ERRCODE_UNDEFINED_OBJECT, psprintf("connector \"%s\" does not exist", name), NULL,
				 "SELECT name FROM oauth_vault.oauth_connectors lists them.");
	args[0] = ov_uuid_datum(c->id);
	args[1] = ov_text_datum(tenant);
	nulls[2] = user == NULL ? 'n' : ' ';
	args[2] = ov_text_datum(user);
	if (allowed == NULL)
		(void) ov_query(&remove, OV_WRITE, args, nulls);
	else
	{
		args[3] = ov_text_array_datum((const char *const *) allowed, nallowed);
		nulls[4] = defaults == NULL ? 'n' : ' ';
		args[4] = ov_text_array_datum((const char *const *) defaults, ndefaults);
		(void) ov_query(&upsert, OV_WRITE, args, nulls);
	}
	event.connector = c->name;
	event.tenant = tenant;
	event.user_id = user;
	event.scopes = allowed;
	event.nscopes = nallowed;
	event.reason = allowed == NULL ? "policy removed" : nallowed == 0 ? "nothing allowed" : NULL;
	ov_audit(&call, &event);
	ov_call_end(&call);
	PG_RETURN_VOID();
}
