/*
 * provider_load.c
 *	  From a rule document, a metadata document and variables to a provider.
 *
 * After ov_provider_load() the rules are as ov_rules_check() wants them
 * (provider_language.c), and nothing of that is checked again.
 *
 * Overlays are merged (RFC 7396) for the variables that select them, each is
 * checked also when it is not selected.
 */
#include "core/provider_internal.h"

#include <string.h>

#define MAX_OVERLAYS 32

/* ---- loading ---- */

const char *
ov_rule_text(const OvJson *section, const char *key, const char *otherwise)
{
	const char *s = section != NULL ? ov_json_get_string(section, key) : NULL;

	return s != NULL ? s : otherwise;
}

bool
ov_rule_flag(const OvJson *section, const char *key, bool otherwise)
{
	const OvJson *v = section != NULL ? ov_json_get(section, key) : NULL;

	return v != NULL ? v->type == OV_JSON_TRUE : otherwise;
}

/* What the caller gives, checked, or the rule's default */
static OvCode
take_variables(OvArena *arena, OvProvider *p, const OvJson *given, OvError *err)
{
	const OvJson *declared = ov_json_get(p->rules, "variables");
	OvCode		code;

	if (given != NULL && given->type != OV_JSON_OBJECT)
		return ov_fail(err, OV_E_CONFIG, "the variables are not a JSON object");
	p->nvariables = 0;
	p->variables = ov_arena_alloc(arena, sizeof(Variable) * (size_t) (declared != NULL ? declared->count + 1 : 1));
	for (const OvJson *d = declared != NULL ? declared->child : NULL; d != NULL; d = d->next)
	{
		Variable   *v = &p->variables[p->nvariables++];
		const OvJson *g = ov_json_get(given, d->key);

		v->name = d->key;
		v->rule = d;
		v->value = ov_json_get_string(d, "default");
		if (g == NULL || g->type == OV_JSON_NULL)
			continue;
		if (g->type != OV_JSON_STRING)
			return ov_fail(err, OV_E_CONFIG, "the value of \"%s\" is not a string", d->key);
		if ((code = ov_variable_check(d, d->key, g->str, err)) != OV_OK)
			return code;
		v->value = g->len > 0 ? g->str : NULL;
	}
	return OV_OK;
}

static OvCode
apply_overlays(OvArena *arena, OvProvider *p, const OvJson *given, OvError *err)
{
	const OvJson *base = p->rules;
	const OvJson *all = ov_json_get(base, "overlays");
	const OvJson *result = base;
	int			n = 0;
	OvCode		code;

	for (const OvJson *selector = all != NULL ? all->child : NULL; selector != NULL; selector = selector->next)
	{
		const Variable *v = ov_variable(p, selector->key);

		for (const OvJson *o = selector->child; o != NULL; o = o->next)
		{
			/* each costs a check of the whole document */
			if (++n > MAX_OVERLAYS)
				return ov_fail(err, OV_E_LIMIT, "invalid provider rules: over %d overlays", MAX_OVERLAYS);
			if ((code = ov_rules_check(ov_json_merge_patch(arena, base, o), err)) != OV_OK)
				return code;
			if (v->value != NULL && strcmp(v->value, o->key) == 0)
				result = ov_json_merge_patch(arena, result, o);
		}
	}
	if (result == base)
		return OV_OK;
	p->rules = result;
	if ((code = ov_rules_check(result, err)) != OV_OK)
		return code;
	return take_variables(arena, p, given, err);	/* an overlay may change defaults */
}

/* RFC 8414 section 2: a member of the wrong type is an error, an unknown one is not. */
static OvCode
metadata_text(const OvJson *metadata, const char *key, const char **out, OvError *err)
{
	const OvJson *v = ov_json_get(metadata, key);

	*out = NULL;
	if (v == NULL || v->type == OV_JSON_NULL)
		return OV_OK;
	if (v->type != OV_JSON_STRING)
		return ov_fail(err, OV_E_CONFIG, "invalid server metadata: \"%s\" is not a string", key);
	*out = v->str;
	return OV_OK;
}

static OvCode
metadata_list(const OvJson *metadata, const char *key, const OvJson **out, OvError *err)
{
	const OvJson *v = ov_json_get(metadata, key);

	*out = NULL;
	if (v == NULL || v->type == OV_JSON_NULL)
		return OV_OK;
	if (v->type != OV_JSON_ARRAY)
		return ov_fail(err, OV_E_CONFIG, "invalid server metadata: \"%s\" is not an array", key);
	for (const OvJson *e = v->child; e != NULL; e = e->next)
		if (e->type != OV_JSON_STRING)
			return ov_fail(err, OV_E_CONFIG, "invalid server metadata: \"%s\" holds something else than strings", key);
	*out = v;
	return OV_OK;
}

/* A refresh is sent as a code is, where its own rules do not differ. */
static OvCode
take_refresh(OvArena *arena, OvProvider *p, OvError *err)
{
	static const char *const inherited[] = {"url", "method", "auth", "format", "rename", "headers"};
	OvJson	   *base = ov_arena_alloc(arena, sizeof(OvJson));
	OvJson	   *last = NULL;
	const OvJson *own = ov_json_get(p->rules, "refresh");

	base->type = OV_JSON_OBJECT;
	for (size_t i = 0; i < sizeof(inherited) / sizeof(inherited[0]); i++)
	{
		const OvJson *m = ov_json_get(p->token, inherited[i]);
		OvJson	   *copy;

		if (m == NULL)
			continue;
		copy = ov_arena_alloc(arena, sizeof(OvJson));
		*copy = *m;
		copy->next = NULL;
		if (last == NULL)
			base->child = copy;
		else
			last->next = copy;
		last = copy;
		base->count++;
	}
	p->refresh = own != NULL ? ov_json_merge_patch(arena, base, own) : base;
	return ov_arena_failed(arena) ? ov_fail(err, OV_E_NOMEM, "out of memory") : OV_OK;
}

/* An endpoint that the rules leave open, from the metadata */
static OvCode
take_endpoint(OvArena *arena, const OvProvider *p, const OvJson *section, const char *key, const char **out, OvError *err)
{
	OvUrl		parsed;
	OvCode		code;

	*out = NULL;
	if (ov_json_get(section, "url") != NULL)
		return OV_OK;
	if ((code = metadata_text(p->metadata, key, out, err)) != OV_OK || *out == NULL)
		return code;
	return ov_check_endpoint(arena, *out, &parsed, err);
}

static OvCode
take_issuer(OvArena *arena, OvProvider *p, OvError *err)
{
	const char *rule = ov_json_get_string(p->rules, "issuer");
	const char *stated;
	char	   *rendered = NULL;
	bool		match;
	OvValues	values = {.provider = p};
	OvCode		code;

	if ((code = metadata_text(p->metadata, "issuer", &stated, err)) != OV_OK)
		return code;
	p->issuer_pattern = ov_json_get_string(p->rules, "issuer_pattern");
	code = rule != NULL ? ov_template_url(arena, &values, rule, &rendered, err) : OV_OK;
	p->issuer_open = code == OV_E_CONFIG;
	if (code != OV_OK && code != OV_E_CONFIG)
		return code;
	p->issuer = rendered != NULL ? rendered : stated;
	if (stated == NULL)
		return OV_OK;
	/* RFC 8414 section 4: code point by code point */
	if (rendered != NULL && strcmp(rendered, stated) != 0)
		return ov_fail(err, OV_E_CONFIG, "the server metadata is of another issuer than the provider's rules");
	if (p->issuer_pattern != NULL)
	{
		if ((code = ov_pattern_match(p->issuer_pattern, stated, &match, err)) != OV_OK)
			return code;
		if (!match)
			return ov_fail(err, OV_E_CONFIG, "the server metadata is of another issuer than the provider's rules");
	}
	return OV_OK;
}

/* Always S256, unless rules or metadata say that the server cannot; never "plain" (RFC 7636 section 7.2). */
static OvCode
take_pkce(OvProvider *p, OvError *err)
{
	const char *rule = ov_json_get_string(p->rules, "pkce");
	const OvJson *methods;
	bool		listed = false;
	OvCode		code;

	if ((code = metadata_list(p->metadata, "code_challenge_methods_supported", &methods, err)) != OV_OK)
		return code;
	for (const OvJson *m = methods != NULL ? methods->child : NULL; m != NULL; m = m->next)
		listed = listed || strcmp(m->str, "S256") == 0;
	if (rule != NULL && strcmp(rule, "required") == 0 && methods != NULL && !listed)
		return ov_fail(err, OV_E_DENIED, "PKCE is required, but the server does not offer S256");
	p->pkce = rule != NULL ? strcmp(rule, "none") != 0 : methods == NULL || listed;
	return OV_OK;
}

OvCode
ov_provider_load(OvArena *arena, const OvJson *rules, const OvJson *metadata, const OvJson *given,
				 const OvProvider **out, OvError *err)
{
	OvProvider *p = ov_arena_alloc(arena, sizeof(OvProvider));
	const OvJson *patch,
			   *list;
	OvCode		code;

	*out = NULL;
	if (rules == NULL || rules->type != OV_JSON_OBJECT)
		return ov_fail(err, OV_E_CONFIG, "invalid provider rules: not a JSON object");
	if (!ov_json_no_duplicates(rules))
		return ov_fail(err, OV_E_CONFIG, "invalid provider rules: a member stands twice");
	if (metadata != NULL && metadata->type == OV_JSON_NULL)
		metadata = NULL;
	if (metadata != NULL && (metadata->type != OV_JSON_OBJECT || !ov_json_no_duplicates(metadata)))
		return ov_fail(err, OV_E_CONFIG, "invalid server metadata: not a JSON object with every member once");
	p->rules = rules;
	p->metadata = metadata;
	if ((code = ov_rules_check(rules, err)) != OV_OK ||
		(code = take_variables(arena, p, given, err)) != OV_OK ||
		(code = apply_overlays(arena, p, given, err)) != OV_OK)
		return code;

	p->authorization = ov_json_get(p->rules, "authorization");
	p->callback = ov_json_get(p->rules, "callback");
	p->token = ov_json_get(p->rules, "token");
	p->post_exchange = ov_json_get(p->rules, "post_exchange");
	p->lookup = ov_json_get(p->rules, "lookup");
	p->redirect_uri = ov_json_get_string(given, "redirect_uri");
	if ((code = take_refresh(arena, p, err)) != OV_OK)
		return code;
	p->revocation = ov_json_get(p->rules, "revocation");
	p->api = ov_json_get(p->rules, "api");
	p->response = p->refresh_response = p->post_response = ov_json_get(p->rules, "response");
	patch = ov_json_get(p->post_exchange, "response");
	if (patch != NULL)
		p->post_response = ov_json_merge_patch(arena, p->response, patch);
	patch = ov_json_get(p->refresh, "response");
	if (patch != NULL)
		p->refresh_response = ov_json_merge_patch(arena, p->response, patch);

	p->iss_required = ov_rule_flag(p->rules, "iss_required", false) ||
		ov_json_is_true(ov_json_get(metadata, "authorization_response_iss_parameter_supported"));
	if ((code = take_issuer(arena, p, err)) != OV_OK ||
		(code = take_pkce(p, err)) != OV_OK ||
		(code = metadata_list(metadata, "token_endpoint_auth_methods_supported", &list, err)) != OV_OK ||
		(code = take_endpoint(arena, p, p->authorization, "authorization_endpoint", &p->authorization_url, err)) != OV_OK ||
		(code = take_endpoint(arena, p, p->token, "token_endpoint", &p->token_url, err)) != OV_OK ||
		(code = take_endpoint(arena, p, NULL, "revocation_endpoint", &p->revocation_url, err)) != OV_OK)
		return code;
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	*out = p;
	return OV_OK;
}
