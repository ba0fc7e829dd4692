/*
 * provider_admin.c
 *	  A site's own providers, and its corrections of built-in ones.
 *
 * provider_site holds a merge patch over the built-in document of the same
 * name (RFC 7396), or a whole document.  It is accepted only if a provider can
 * be made of the result.  Where secrets may go is not decided here: hosts that
 * the built-in catalogue does not name must be in the vault file, which is
 * checked whenever a connector is made or used.
 */
#include "vault/vault.h"

#include "core/json.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#define MAX_NAME 63
#define MAX_RULES (256 * 1024)

PG_FUNCTION_INFO_V1(ov_set_provider);
PG_FUNCTION_INFO_V1(ov_drop_provider);
PG_FUNCTION_INFO_V1(ov_merge_patch);

/* The merged text, palloc'd; raises 22023. */
static char *
merged(const char *target, const char *patch)
{
	OvArena    *arena = ov_arena_new();
	const OvJson *t = NULL,
			   *p;
	OvStr		s;
	OvError		err = {0};
	OvCode		code = OV_OK;
	char	   *result = NULL;

	if (target != NULL)
		code = ov_json_parse(arena, target, strlen(target), &t, &err);
	if (code == OV_OK)
		code = ov_json_parse(arena, patch, strlen(patch), &p, &err);
	/* Members are looked up one by one, and nothing could interrupt it. */
	if (code == OV_OK && ((t != NULL && !ov_json_no_duplicates(t)) || !ov_json_no_duplicates(p)))
		code = ov_fail(&err, OV_E_LIMIT, "an object has more than %d members", OV_JSON_MAX_MEMBERS);
	if (code == OV_OK)
	{
		ov_str_init(&s, arena);
		ov_json_write(&s, ov_json_merge_patch(arena, t, p));
		if (ov_arena_failed(arena))
			code = ov_fail(&err, OV_E_NOMEM, "out of memory");
		else
			result = pstrdup(s.data);
	}
	ov_arena_free(arena);
	if (code != OV_OK)
		ov_raise(code == OV_E_NOMEM ? ERRCODE_OUT_OF_MEMORY : ERRCODE_INVALID_PARAMETER_VALUE,
				 psprintf("could not merge JSON documents: %s", err.message), NULL, NULL);
	return result;
}

static void
check_rules(OvCall *call, const char *text)
{
	OvArena    *arena = ov_call_arena(call);
	const OvJson *rules,
			   *none;
	const OvProvider *provider;
	OvError		err = {0};
	OvCode		code;

	code = ov_json_parse(arena, text, strlen(text), &rules, &err);
	if (code == OV_OK)
		code = ov_json_parse(arena, "{}", 2, &none, &err);
	if (code == OV_OK)
		code = ov_provider_load(arena, rules, NULL, none, &provider, &err);
	if (code != OV_OK)
		ov_raise(code == OV_E_NOMEM ? ERRCODE_OUT_OF_MEMORY : ERRCODE_INVALID_PARAMETER_VALUE, err.message,
				 err.detail[0] ? ov_detail("reason", err.detail, NULL) : NULL,
				 "providers/schema.json describes the rules; oauth_vault.oauth_providers shows examples.");
}

Datum
ov_set_provider(PG_FUNCTION_ARGS)
{
	static OvQuery upsert = {
		"INSERT INTO oauth_vault.provider_site (name, rules, changed_by) VALUES ($1, $2, $3)"
		" ON CONFLICT (name) DO UPDATE SET rules = excluded.rules, changed_at = now(), changed_by = excluded.changed_by",
		"tjt"
	};
	OvCall		call;
	OvEvent		event = {.event = "provider_set", .outcome = "ok"};
	char	   *name,
			   *patch,
			   *rules,
			   *builtin;
	Datum		args[3];

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	name = ov_arg_name(fcinfo, 0, "name", true, MAX_NAME);
	if (name[0] == '_' || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(name))
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"name\" is not a provider name", NULL,
				 "A name has a-z, 0-9 and _ and begins with a letter or a digit.");
	if (PG_ARGISNULL(1))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"rules\" must not be null", NULL, NULL);
	patch = ov_arg_json_object(fcinfo, 1, "rules");
	if (strlen(patch) > MAX_RULES)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"rules\" is too long", NULL, NULL);
	(void) ov_provider_rules(name, &rules, &builtin);
	check_rules(&call, merged(builtin, patch));

	args[0] = ov_text_datum(name);
	args[1] = ov_jsonb_datum(patch);
	args[2] = ov_text_datum(call.role);
	(void) ov_query(&upsert, OV_WRITE, args, NULL);
	event.reason = name;
	ov_audit(&call, &event);
	ov_wake_after_commit();
	ov_call_end(&call);
	PG_RETURN_VOID();
}

Datum
ov_drop_provider(PG_FUNCTION_ARGS)
{
	static OvQuery used = {
		"SELECT name FROM oauth_vault.connector WHERE provider = $1 AND status <> 'dropped' ORDER BY name LIMIT 20", "t"
	};
	static OvQuery remove = {"DELETE FROM oauth_vault.provider_site WHERE name = $1", "t"};
	OvCall		call;
	OvEvent		event = {.event = "provider_set", .outcome = "ok"};
	char	   *name,
			   *rules,
			   *builtin;
	Datum		arg;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	name = ov_arg_text(fcinfo, 0, "name", true);
	arg = ov_text_datum(name);
	(void) ov_provider_rules(name, &rules, &builtin);
	if (builtin == NULL && ov_query(&used, OV_READ, &arg, NULL) > 0)
	{
		int			n = (int) SPI_processed;
		char	  **connectors = palloc(sizeof(char *) * n);

		for (int i = 0; i < n; i++)
			connectors[i] = ov_text(i, 1);
		ov_raise(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST, psprintf("connectors use provider \"%s\"", name),
				 ov_detail("connectors", ov_array_json(connectors, n), NULL), "Drop them first.");
	}
	if (ov_query(&remove, OV_WRITE, &arg, NULL) == 0)
		ov_raise(ERRCODE_UNDEFINED_OBJECT, psprintf("this site has set no rules for provider \"%s\"", name), NULL,
				 builtin != NULL ? "It is built in and comes with the extension." :
				 "SELECT name, origin FROM oauth_vault.oauth_providers lists the catalogue.");
	event.reason = psprintf("%s: site rules removed", name);
	ov_audit(&call, &event);
	ov_wake_after_commit();
	ov_call_end(&call);
	PG_RETURN_VOID();
}

static char *
jsonb_text(Jsonb *j)
{
	return JsonbToCString(NULL, &j->root, VARSIZE(j));
}

/* RFC 7396; a pure function, also without preload */
Datum
ov_merge_patch(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(1))
	{
		if (PG_ARGISNULL(0))
			PG_RETURN_NULL();
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	}
	PG_RETURN_DATUM(ov_jsonb_datum(merged(PG_ARGISNULL(0) ? NULL : jsonb_text(PG_GETARG_JSONB_P(0)),
										  jsonb_text(PG_GETARG_JSONB_P(1)))));
}
