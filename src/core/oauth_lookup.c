/*
 * oauth_lookup.c
 *	  What a provider tells of the account behind a new token, when asked.
 *
 * Some name the account, its site or its data centre in no token answer: one
 * authenticated call after the consent does (the rules' "lookup").  Its answer
 * is an object, or an array of accounts of which one is chosen; nothing of it is
 * read as a token, and all of it from the copy without secrets.
 */
#include "core/oauth_response.h"

#include "core/jwt.h"

#include <string.h>

/* What the access token says itself, where it is a JWT */
static const OvJson *
claim_of(OvReader *r, const char *token, const char *name)
{
	const OvJson *header,
			   *claims;

	if (token == NULL || ov_jwt_peek(r->arena, token, strlen(token), &header, &claims, NULL) != OV_OK)
		return NULL;
	return ov_json_get(claims, name);
}

/* What a condition wants: its value, or what its template or claim stands for; NULL: it does not apply */
static const OvJson *
wanted(OvReader *r, const char *token, const OvJson *condition)
{
	const OvJson *equals = ov_json_get(condition, "equals");
	OvValues	values = {.provider = r->provider};
	OvJson	   *v;
	char	   *text;

	if (equals == NULL)
		return claim_of(r, token, ov_json_get_string(condition, "claim"));
	if (equals->type != OV_JSON_STRING)
		return equals;
	if (ov_template_text(r->arena, &values, equals->str, &text, NULL) != OV_OK || text == NULL)
		return NULL;
	v = ov_arena_alloc(r->arena, sizeof(OvJson));
	v->type = OV_JSON_STRING;
	v->str = text;
	v->len = strlen(text);
	return v;
}

/* An account's number may be asked for as text. */
static bool
equal(const OvJson *v, const OvJson *want)
{
	if (v->type == OV_JSON_NUMBER && want->type == OV_JSON_STRING)
		return strcmp(v->str, want->str) == 0;
	return ov_same_scalar(v, want);
}

static bool
fits(OvReader *r, const char *token, const OvJson *element, const OvJson *conditions)
{
	for (const OvJson *c = conditions != NULL ? conditions->child : NULL; c != NULL; c = c->next)
	{
		const OvJson *want = wanted(r, token, c);
		const OvJson *v = ov_json_at(element, ov_json_get_string(c, "pointer"));

		if (want != NULL && (v == NULL || !equal(v, want)))
			return false;
	}
	return true;
}

/* The first element that all conditions fit */
static const OvJson *
choose(OvReader *r, const char *token, const OvJson *selection)
{
	const OvJson *list = ov_lookup(r, ov_json_get_string(selection, "list"));

	if (list == NULL || list->type != OV_JSON_ARRAY)
		return NULL;
	for (const OvJson *e = list->child; e != NULL; e = e->next)
		if (fits(r, token, e, ov_json_get(selection, "where")))
			return e;
	return NULL;
}

void
ov_lookup_response(OvArena *arena, const OvProvider *p, const char *access_token, const OvHttpResponse *resp,
				   int64_t now, OvTokens *out)
{
	const OvJson *selection = ov_json_get(p->lookup, "select");
	const char *scope = ov_json_get_string(p->lookup, "scope");
	const OvJson *v;
	OvReader	r;
	char		why[128];

	if (!ov_begin_reading(&r, arena, p, p->lookup, resp, now, out))
		return;
	if (!ov_take_body(&r, true, why, sizeof(why)) || resp->status != 200)
	{
		if (resp->status != 200)
			ov_conclude_status(&r, why);
		else
			ov_conclude(&r, OV_OUT_MALFORMED, "%s", why);
		return;
	}
	if (selection != NULL && (r.root = choose(&r, access_token, selection)) == NULL)
	{
		ov_conclude(&r, OV_OUT_MALFORMED, "the provider names no account that fits");
		return;
	}
	if (!ov_read_captured(&r))
		ov_conclude(&r, OV_OUT_MALFORMED, "the answer names something that the provider's rules do not allow");
	else if (ov_json_get(p->lookup, "expiry") != NULL && !ov_read_expiry(&r, "expiry", NULL, &out->expires_at))
		ov_conclude(&r, OV_OUT_MALFORMED, "the expiry in the answer is malformed");
	else if (scope != NULL && (v = ov_lookup(&r, scope)) != NULL && v->type != OV_JSON_NULL && !ov_read_scopes_at(&r, v))
		ov_conclude(&r, OV_OUT_MALFORMED, "the scope in the answer is malformed");
	else if (r.duplicate)
		ov_conclude(&r, OV_OUT_MALFORMED, "the answer has a member twice");
	else
		out->outcome = OV_OUT_OK;
	if (ov_arena_failed(arena))
		ov_conclude(&r, OV_OUT_TRANSIENT, "out of memory");
}
