/*
 * provider_language.c
 *	  The language of provider rules, and whether a document is of it.
 *
 * The language is the tables below, and providers/schema.json for people: a
 * member that no table names is refused, so that a misspelt rule cannot be
 * silently no rule.  In a document that ov_rules_check() accepts every member
 * has the type its table says, templates name known variables, pointers and
 * patterns are well-formed; nobody checks that again.
 */
#include "core/provider_internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- the language ---- */

typedef enum Kind
{
	KIND_TEXT,					/* a string */
	KIND_FLAG,
	KIND_COUNT,					/* an integer from 0 to ten years of seconds */
	KIND_SCALAR,				/* string, number or boolean */
	KIND_NAME,					/* of a parameter, a header or a variable */
	KIND_ENUM,
	KIND_POINTER,				/* RFC 6901 */
	KIND_PATTERN,
	KIND_TEMPLATE,
	KIND_URL,					/* a template */
	KIND_LIST,
	KIND_MAP,					/* an object with names of the writer's choice */
	KIND_OBJECT,
	KIND_ANY					/* an object, checked once it is merged */
} Kind;

typedef struct Shape Shape;

typedef struct Member
{
	const char *name;
	const Shape *shape;
	bool		required;
} Member;

struct Shape
{
	Kind		kind;
	int			use;			/* TEMPLATE, URL; COUNT: from here on */
	const char *const *names;	/* ENUM */
	const Member *members;		/* OBJECT */
	const Shape *of;			/* LIST, MAP */
};

#define ENUM(name, ...) \
	static const char *const name##_names[] = {__VA_ARGS__, NULL}; \
	static const Shape name = {.kind = KIND_ENUM, .names = name##_names}
#define OBJECT(name, ...) \
	static const Member name##_members[] = {__VA_ARGS__, {NULL, NULL, false}}; \
	static const Shape name = {.kind = KIND_OBJECT, .members = name##_members}
#define LIST(name, element) static const Shape name = {.kind = KIND_LIST, .of = &(element)}
#define MAP(name, element) static const Shape name = {.kind = KIND_MAP, .of = &(element)}

static const Shape text = {.kind = KIND_TEXT};
static const Shape flag = {.kind = KIND_FLAG};
static const Shape count = {.kind = KIND_COUNT};
static const Shape scalar = {.kind = KIND_SCALAR};
static const Shape name = {.kind = KIND_NAME};
static const Shape pointer = {.kind = KIND_POINTER};
static const Shape pattern = {.kind = KIND_PATTERN};
static const Shape any = {.kind = KIND_ANY};
static const Shape url = {.kind = KIND_URL, .use = TEMPLATE_URL};
static const Shape host = {.kind = KIND_TEMPLATE, .use = TEMPLATE_URL};
static const Shape begin_template = {.kind = KIND_TEMPLATE, .use = TEMPLATE_URL};
static const Shape request_template = {.kind = KIND_TEMPLATE, .use = TEMPLATE_REQUEST};
static const Shape api_template = {.kind = KIND_TEMPLATE, .use = TEMPLATE_API};
static const Shape subject = {.kind = KIND_TEMPLATE, .use = TEMPLATE_SUBJECT};

LIST(texts, text);
LIST(counts, count);
LIST(scalars, scalar);
MAP(map_of_text, text);
MAP(map_of_pointers, pointer);
MAP(begin_params, begin_template);
MAP(request_params, request_template);
MAP(api_headers, api_template);

ENUM(confidence, "high", "medium", "low");
OBJECT(basis, {"date", &text, true}, {"confidence", &confidence, true}, {"sources", &texts, true},
	   {"uncertain", &texts, false});
OBJECT(change, {"date", &text, true}, {"change", &text, true});
LIST(changes, change);

ENUM(source, "connector", "begin", "callback", "response");
LIST(sources, source);
OBJECT(variable, {"pattern", &pattern, true}, {"default", &text, false}, {"source", &sources, false},
	   {"path", &flag, false}, {"description", &text, false});
MAP(variables, variable);
MAP(overlay, any);
MAP(overlays, overlay);

ENUM(client_auth, "client_secret_basic", "client_secret_basic_raw", "client_secret_post", "private_key_jwt", "none");
LIST(client_auths, client_auth);
ENUM(audience, "issuer", "token_endpoint");
ENUM(pkce, "S256", "required", "none");

/* An empty new name drops the parameter. */
OBJECT(authorization_rename, {"response_type", &text, false}, {"client_id", &text, false},
	   {"redirect_uri", &text, false}, {"scope", &text, false}, {"login_hint", &text, false}, {"nonce", &text, false});
MAP(prefixes, text);
OBJECT(scope_request, {"separator", &text, false}, {"send", &flag, false}, {"secondary", &prefixes, false});
MAP(scope_params, begin_params);
ENUM(encoding, "form", "percent");
OBJECT(authorization, {"url", &url, false}, {"encoding", &encoding, false}, {"params", &begin_params, false}, {"with_scope", &scope_params, false},
	   {"rename", &authorization_rename, false}, {"scope", &scope_request, false});

OBJECT(callback_field, {"param", &name, true}, {"required", &flag, false});
MAP(callback_fields, callback_field);
ENUM(signature, "sorted_query_hmac");
OBJECT(callback, {"code", &name, false}, {"code_strip", &text, false}, {"capture", &callback_fields, false},
	   {"signature", &signature, false});

ENUM(method, "POST", "GET", "PUT", "DELETE");
ENUM(format, "form", "json", "query", "none");
ENUM(auth, "client", "client_secret_basic", "client_secret_basic_raw", "client_secret_post", "client_secret_user",
	 "private_key_jwt", "client_id", "none", "bearer", "api");
OBJECT(request_rename, {"grant_type", &text, false}, {"client_id", &text, false}, {"client_secret", &text, false},
	   {"code", &text, false}, {"redirect_uri", &text, false}, {"code_verifier", &text, false},
	   {"refresh_token", &text, false}, {"token", &text, false}, {"token_type_hint", &text, false});
#define REQUEST \
	{"url", &url, false}, {"method", &method, false}, {"auth", &auth, false}, {"format", &format, false}, \
	{"params", &request_params, false}, {"rename", &request_rename, false}, {"headers", &request_params, false}
OBJECT(request, REQUEST);
ENUM(token_grant, "authorization_code", "client_credentials");
OBJECT(token, REQUEST, {"grant", &token_grant, false});

ENUM(response_format, "json", "form");
LIST(response_formats, response_format);
OBJECT(fields, {"access_token", &pointer, false}, {"refresh_token", &pointer, false}, {"id_token", &pointer, false},
	   {"token_type", &pointer, false}, {"scope", &pointer, false});
ENUM(presence, "required", "optional");
OBJECT(scope_response, {"separators", &text, false}, {"array", &flag, false}, {"implies", &map_of_text, false},
	   {"with_refresh_token", &texts, false}, {"secondary", &prefixes, false}, {"otherwise", &begin_template, false});
ENUM(expiry_kind, "seconds", "epoch", "iso8601", "jwt", "issued", "default", "never");
ENUM(unit, "s", "ms");
ENUM(zero, "never");
ENUM(expiry_from, "answer", "consent");
OBJECT(expiry, {"kind", &expiry_kind, true}, {"field", &pointer, false}, {"seconds", &count, false},
	   {"unit", &unit, false}, {"zero", &zero, false}, {"from", &expiry_from, false}, {"cap", &flag, false});
LIST(expiries, expiry);
OBJECT(success, {"pointer", &pointer, true}, {"equals", &scalar, true});
OBJECT(error_fields, {"code", &pointer, false}, {"description", &pointer, false});
ENUM(outcome, "ok", "dead", "transient", "malformed", "misconfigured", "denied", "unsupported");
OBJECT(error, {"status", &counts, false}, {"pointer", &pointer, false}, {"value", &scalars, false},
	   {"pattern", &pattern, false}, {"outcome", &outcome, true}, {"reason", &text, false});
LIST(errors, error);
OBJECT(response, {"formats", &response_formats, false}, {"path", &pointer, false}, {"path_optional", &flag, false},
	   {"fields", &fields, false},
	   {"token_type", &presence, false}, {"token_types", &texts, false}, {"scope", &scope_response, false},
	   {"expiry", &expiries, false}, {"refresh_expiry", &expiries, false}, {"capture", &map_of_pointers, false},
	   {"success", &success, false}, {"error", &error_fields, false}, {"errors", &errors, false});

ENUM(strategy, "standard", "exchange", "client_credentials", "none");
ENUM(rotates, "always", "sometimes", "never");
OBJECT(refresh, REQUEST, {"strategy", &strategy, false}, {"rotates", &rotates, false}, {"grace", &count, false},
	   {"retry_in_doubt", &flag, false}, {"min_age", &count, false}, {"shared_key", &begin_template, false},
	   {"response", &response, false});

/* Calls between the code exchange and the connection */
OBJECT(post_exchange, REQUEST, {"response", &response, false});
OBJECT(condition, {"pointer", &pointer, true}, {"equals", &scalar, false}, {"claim", &text, false});
LIST(conditions, condition);
OBJECT(selection, {"list", &pointer, true}, {"where", &conditions, false});
OBJECT(lookup, REQUEST, {"select", &selection, false}, {"capture", &map_of_pointers, false}, {"scope", &pointer, false},
	   {"expiry", &expiries, false}, {"required", &flag, false});
MAP(slot, text);
MAP(slots, slot);

ENUM(ends, "token", "grant", "person");
OBJECT(revocation, {"refresh_token", &request, false}, {"access_token", &request, false}, {"status", &counts, false},
	   {"success", &success, false}, {"error", &error_fields, false}, {"errors", &errors, false},
	   {"ends", &ends, false}, {"effect", &text, false}, {"absent", &text, false});

OBJECT(header, {"name", &name, true}, {"value", &api_template, true});
LIST(hosts, host);
OBJECT(api, {"base", &url, false}, {"header", &header, false}, {"headers", &api_headers, false},
	   {"hosts", &hosts, false});

ENUM(scope_class, "read", "write", "personal", "admin");
OBJECT(scope, {"name", &text, true}, {"purpose", &text, true}, {"class", &scope_class, true}, {"default", &flag, false});
LIST(scopes, scope);

static const Shape positive = {.kind = KIND_COUNT, .use = 1};
OBJECT(rate_limit, {"requests", &positive, true}, {"seconds", &positive, true});

OBJECT(document, {"schema", &count, true}, {"display_name", &text, true}, {"basis", &basis, false},
	   {"notes", &texts, false}, {"policy", &changes, false}, {"variables", &variables, false},
	   {"overlays", &overlays, false}, {"issuer", &url, false}, {"issuer_pattern", &pattern, false},
	   {"iss_required", &flag, false}, {"client_auth", &client_auths, false}, {"assertion_audience", &audience, false},
	   {"pkce", &pkce, false}, {"authorization", &authorization, false}, {"callback", &callback, false},
	   {"token", &token, false}, {"post_exchange", &post_exchange, false}, {"lookup", &lookup, false},
	   {"refresh", &refresh, false}, {"response", &response, false}, {"slots", &slots, false},
	   {"subject", &subject, false}, {"revocation", &revocation, false}, {"api", &api, false},
	   {"scopes", &scopes, false}, {"rate_limit", &rate_limit, false});

/* ---- checking a document against it ---- */

typedef struct Checker
{
	const OvJson *variables;
	OvError    *err;
} Checker;

static OvCode check(Checker *c, const Shape *shape, const OvJson *v, const char *path);

static OvCode
bad(Checker *c, const char *path, const char *why)
{
	return ov_fail(c->err, OV_E_CONFIG, "invalid provider rules: %s %s", path[0] != '\0' ? path : "the document", why);
}

static bool
good_name(const char *s, const char *more)
{
	size_t		n = strlen(s);

	if (n == 0 || n > 100)
		return false;
	for (; *s != '\0'; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || strchr(more, *s) != NULL))
			return false;
	return true;
}

static OvCode
check_object(Checker *c, const Shape *shape, const OvJson *v, const char *path)
{
	OvCode		code;

	for (const OvJson *m = v->child; m != NULL; m = m->next)
	{
		const Member *known = shape->members;
		char		below[160];

		while (known->name != NULL && strcmp(known->name, m->key) != 0)
			known++;
		snprintf(below, sizeof(below), "%s%s\"%.60s\"", path, path[0] != '\0' ? "." : "", m->key);
		if (known->name == NULL)
			return bad(c, below, "is not part of the language");
		if ((code = check(c, known->shape, m, below)) != OV_OK)
			return code;
	}
	for (const Member *m = shape->members; m->name != NULL; m++)
		if (m->required && ov_json_get(v, m->name) == NULL)
			return ov_fail(c->err, OV_E_CONFIG, "invalid provider rules: %s has no \"%s\"",
						   path[0] != '\0' ? path : "the document", m->name);
	return OV_OK;
}

static OvCode
check_elements(Checker *c, const Shape *shape, const OvJson *v, const char *path)
{
	int			i = 0;
	OvCode		code;

	for (const OvJson *e = v->child; e != NULL; e = e->next)
	{
		char		below[160];

		if (shape->kind == KIND_MAP)
			snprintf(below, sizeof(below), "%s.\"%.60s\"", path, e->key);
		else
			snprintf(below, sizeof(below), "%s[%d]", path, i++);
		if (shape->kind == KIND_MAP && e->key[0] == '\0')
			return bad(c, path, "has a member without a name");
		if ((code = check(c, shape->of, e, below)) != OV_OK)
			return code;
	}
	return OV_OK;
}

static OvCode
check_text(Checker *c, const Shape *shape, const OvJson *v, const char *path)
{
	const char *const *n = shape->names;
	bool		match;

	if (v->type != OV_JSON_STRING)
		return bad(c, path, "is not a string");
	switch (shape->kind)
	{
		case KIND_ENUM:
			while (*n != NULL && strcmp(*n, v->str) != 0)
				n++;
			return *n != NULL ? OV_OK : bad(c, path, "is none of the words that may stand there");
		case KIND_NAME:
			return good_name(v->str, "_-.") ? OV_OK : bad(c, path, "is not a name");
		case KIND_POINTER:
			if (v->str[0] != '/' && v->str[0] != '\0')
				return bad(c, path, "is not a JSON pointer");
			return v->len < 200 ? OV_OK : bad(c, path, "is too long");
		case KIND_PATTERN:
			return ov_pattern_match(v->str, NULL, &match, c->err);
		case KIND_URL:
			if (strncmp(v->str, "https://", 8) != 0 && strncmp(v->str, "http://", 7) != 0 && v->str[0] != '{')
				return bad(c, path, "is not an absolute URL");
			if (strchr(v->str, '#') != NULL)
				return bad(c, path, "has a fragment");
			return ov_template_check(c->variables, v->str, shape->use, c->err);
		case KIND_TEMPLATE:
			return ov_template_check(c->variables, v->str, shape->use, c->err);
		default:
			return OV_OK;
	}
}

static OvCode
check(Checker *c, const Shape *shape, const OvJson *v, const char *path)
{
	int64_t		n;

	switch (shape->kind)
	{
		case KIND_FLAG:
			return v->type == OV_JSON_TRUE || v->type == OV_JSON_FALSE ? OV_OK : bad(c, path, "is not true or false");
		case KIND_COUNT:
			if (!ov_json_int64(v, false, &n) || strchr(v->str, '.') != NULL || n < shape->use || n > 315576000)
				return bad(c, path, "is not a whole number in range");
			return OV_OK;
		case KIND_SCALAR:
			return v->type != OV_JSON_OBJECT && v->type != OV_JSON_ARRAY && v->type != OV_JSON_NULL ?
				OV_OK : bad(c, path, "is not a string, a number or a boolean");
		case KIND_LIST:
			return v->type == OV_JSON_ARRAY ? check_elements(c, shape, v, path) : bad(c, path, "is not an array");
		case KIND_MAP:
			return v->type == OV_JSON_OBJECT ? check_elements(c, shape, v, path) : bad(c, path, "is not an object");
		case KIND_OBJECT:
			return v->type == OV_JSON_OBJECT ? check_object(c, shape, v, path) : bad(c, path, "is not an object");
		case KIND_ANY:
			return v->type == OV_JSON_OBJECT ? OV_OK : bad(c, path, "is not an object");
		default:
			return check_text(c, shape, v, path);
	}
}

/* ---- what the tables cannot say ---- */

/* Kept with a grant under this name, and not by rules */
#define SHARED_KEY "shared_key"

static bool
is_builtin(const char *s)
{
	/* a template that may only use builtins */
	OvJson		none = {.type = OV_JSON_OBJECT};
	char		brace[128];

	snprintf(brace, sizeof(brace), "{%.100s}", s);
	return ov_template_check(&none, brace, TEMPLATE_REQUEST, NULL) == OV_OK ||
		ov_template_check(&none, brace, TEMPLATE_API, NULL) == OV_OK;
}

static OvCode
check_variables(Checker *c, const OvJson *rules)
{
	OvCode		code;

	for (const OvJson *v = c->variables != NULL ? c->variables->child : NULL; v != NULL; v = v->next)
	{
		const char *value = ov_json_get_string(v, "default");

		if (!good_name(v->key, "_") || is_builtin(v->key) || strcmp(v->key, SHARED_KEY) == 0)
			return bad(c, v->key, "cannot name a variable");
		if (value != NULL && (code = ov_variable_check(v, v->key, value, c->err)) != OV_OK)
			return code;
	}
	for (const OvJson *o = ov_json_get(rules, "overlays") != NULL ? ov_json_get(rules, "overlays")->child : NULL;
		 o != NULL; o = o->next)
	{
		const OvJson *v = ov_json_get(c->variables, o->key);

		if (v == NULL)
			return bad(c, o->key, "selects an overlay, but is not a variable");
		for (const OvJson *value = o->child; value != NULL; value = value->next)
			if ((code = ov_variable_check(v, o->key, value->key, c->err)) != OV_OK)
				return code;
	}
	return OV_OK;
}

/* What is captured under a variable's name must be a source that the variable has. */
static OvCode
check_capture(Checker *c, const OvJson *capture, const char *from)
{
	for (const OvJson *m = capture != NULL ? capture->child : NULL; m != NULL; m = m->next)
	{
		const OvJson *v = ov_json_get(c->variables, m->key);

		if (!good_name(m->key, "_") || is_builtin(m->key) || strcmp(m->key, SHARED_KEY) == 0)
			return bad(c, m->key, "cannot be the name of something captured");
		if (v != NULL && !ov_variable_has_source(v, from))
			return bad(c, m->key, "is captured, but its variable does not have that source");
	}
	return OV_OK;
}

/* RFC 6749 sections 3.1 and 3.2: no parameter twice.  standard ends with NULL. */
static OvCode
check_params(Checker *c, const OvJson *params, const OvJson *rename, const char *const *standard)
{
	for (const OvJson *p = params != NULL ? params->child : NULL; p != NULL; p = p->next)
		for (const char *const *s = standard; s != NULL && *s != NULL; s++)
			if (strcmp(ov_rule_text(rename, *s, *s), p->key) == 0)
				return bad(c, p->key, "cannot be an extra parameter");
	return OV_OK;
}

/* What authentication puts among the parameters */
static const char *const client_standard[] = {
	"client_id", "client_secret", "client_assertion", "client_assertion_type", NULL
};

static bool
auth_in_params(const char *auth)
{
	return strcmp(auth, "client") == 0 || strcmp(auth, "client_secret_post") == 0 ||
		strcmp(auth, "client_id") == 0 || strcmp(auth, "private_key_jwt") == 0;
}

/* RFC 9110, RFC 9112: what is ours or libcurl's to say of a request */
static bool
header_is_ours(const char *name)
{
	static const char *const ours[] = {
		"connection", "content-length", "content-type", "cookie", "dpop", "expect", "host", "keep-alive", "te", "trailer",
		"transfer-encoding", "upgrade"
	};

	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (strcasecmp(name, ours[i]) == 0)
			return true;
	return strncasecmp(name, "proxy-", 6) == 0;
}

static OvCode
check_headers(Checker *c, const OvJson *headers)
{
	for (const OvJson *h = headers != NULL ? headers->child : NULL; h != NULL; h = h->next)
	{
		if (!good_name(h->key, "-"))
			return bad(c, h->key, "is not a header name");
		if (header_is_ours(h->key))
			return bad(c, h->key, "is not a header for rules to set");
		for (const char *v = h->str; *v != '\0'; v++)
			if ((unsigned char) *v < 0x20 || *v == 0x7f)
				return bad(c, h->key, "has a control character in its value");
	}
	return OV_OK;
}

/* fallback: the section whose authentication this one inherits, or NULL */
static OvCode
check_request(Checker *c, const OvJson *section, const OvJson *fallback, const char *const *standard)
{
	const char *auth = ov_rule_text(section, "auth", ov_rule_text(fallback, "auth", "client"));
	OvCode		code;

	if (section == NULL)
		return OV_OK;
	if ((code = check_headers(c, ov_json_get(section, "headers"))) != OV_OK)
		return code;
	code = check_params(c, ov_json_get(section, "params"), ov_json_get(section, "rename"), standard);
	if (code == OV_OK && auth_in_params(auth))
		code = check_params(c, ov_json_get(section, "params"), ov_json_get(section, "rename"), client_standard);
	return code;
}

static OvCode
check_expiry(Checker *c, const OvJson *section, const char *list)
{
	const OvJson *rules = ov_json_get(section, list);

	for (const OvJson *e = rules != NULL ? rules->child : NULL; e != NULL; e = e->next)
	{
		const char *kind = ov_json_get_string(e, "kind");
		bool		field = strcmp(kind, "seconds") == 0 || strcmp(kind, "epoch") == 0 ||
			strcmp(kind, "iso8601") == 0 || strcmp(kind, "issued") == 0;
		bool		seconds = strcmp(kind, "issued") == 0 || strcmp(kind, "default") == 0;

		if (field != (ov_json_get(e, "field") != NULL) || seconds != (ov_json_get(e, "seconds") != NULL))
			return bad(c, list, "has an entry without what its kind needs, or with what it does not");
	}
	return OV_OK;
}

/* tokens: are these the answers that bring tokens?  No error can be a success there. */
static OvCode
check_response(Checker *c, const OvJson *r, bool tokens)
{
	OvCode		code;

	if (r == NULL)
		return OV_OK;
	if ((code = check_expiry(c, r, "expiry")) != OV_OK || (code = check_expiry(c, r, "refresh_expiry")) != OV_OK)
		return code;
	for (const OvJson *e = ov_json_get(r, "errors") != NULL ? ov_json_get(r, "errors")->child : NULL; e != NULL; e = e->next)
	{
		if ((ov_json_get(e, "value") != NULL || ov_json_get(e, "pattern") != NULL) && ov_json_get(e, "pointer") == NULL)
			return bad(c, "errors", "has an entry that compares nothing");
		if (tokens && strcmp(ov_json_get_string(e, "outcome"), "ok") == 0)
			return bad(c, "errors", "has an entry that makes an error a success");
		/* it is shown in errors, views and the trail */
		for (const char *w = ov_rule_text(e, "reason", "x"); *w != '\0'; w++)
			if (*w < 0x20 || *w > 0x7e)
				return bad(c, "errors", "has a reason that is not printable ASCII");
	}
	return check_capture(c, ov_json_get(r, "capture"), "response");
}

/* The strings of a lookup's conditions are templates of variables. */
static OvCode
check_lookup(Checker *c, const OvJson *lookup)
{
	const OvJson *where = ov_json_get(ov_json_get(lookup, "select"), "where");
	OvCode		code;

	if (lookup == NULL)
		return OV_OK;
	if (ov_json_get(lookup, "url") == NULL)
		return bad(c, "lookup", "has no \"url\"");
	for (const OvJson *w = where != NULL ? where->child : NULL; w != NULL; w = w->next)
	{
		const char *equals = ov_json_get_string(w, "equals");

		if ((ov_json_get(w, "equals") != NULL) == (ov_json_get(w, "claim") != NULL))
			return bad(c, "lookup", "has a condition with both or neither of \"equals\" and \"claim\"");
		if (equals != NULL && (code = ov_template_check(c->variables, equals, TEMPLATE_URL, c->err)) != OV_OK)
			return code;
	}
	if ((code = check_request(c, lookup, NULL, NULL)) != OV_OK ||
		(code = check_expiry(c, lookup, "expiry")) != OV_OK)
		return code;
	return check_capture(c, ov_json_get(lookup, "capture"), "response");
}

/* A slot sets variables that the rules have, to values that they allow. */
static OvCode
check_slots(Checker *c, const OvJson *slots)
{
	OvCode		code;

	for (const OvJson *slot = slots != NULL ? slots->child : NULL; slot != NULL; slot = slot->next)
	{
		if (!good_name(slot->key, "_-"))
			return bad(c, slot->key, "cannot be the name of a slot");
		for (const OvJson *m = slot->child; m != NULL; m = m->next)
		{
			const OvJson *v = ov_json_get(c->variables, m->key);

			if (v == NULL)
				return bad(c, m->key, "is set by a slot, but is not a variable");
			if ((code = ov_variable_check(v, m->key, m->str, c->err)) != OV_OK)
				return code;
		}
	}
	return OV_OK;
}

/* What is asked between the code exchange and the connection, and what one consent brings beside */
static OvCode
check_calls(Checker *c, const OvJson *rules)
{
	const OvJson *post = ov_json_get(rules, "post_exchange");
	OvCode		code;

	if ((code = check_request(c, post, NULL, NULL)) != OV_OK ||
		(code = check_response(c, ov_json_get(post, "response"), true)) != OV_OK ||
		(code = check_lookup(c, ov_json_get(rules, "lookup"))) != OV_OK)
		return code;
	return check_slots(c, ov_json_get(rules, "slots"));
}

static const char *const authorization_standard[] = {
	"response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method", "nonce",
	"login_hint", "request", "request_uri", NULL
};
static const char *const token_standard[] = {"grant_type", "code", "redirect_uri", "code_verifier", NULL};
static const char *const refresh_standard[] = {"grant_type", "refresh_token", NULL};
static const char *const revoke_standard[] = {"token", "token_type_hint", NULL};

OvCode
ov_rules_check(const OvJson *rules, OvError *err)
{
	Checker		c = {ov_json_get(rules, "variables"), err};
	const OvJson *a,
			   *refresh_rules,
			   *revoke;
	int64_t		version;
	bool		exchange;
	OvCode		code;

	if ((code = check(&c, &document, rules, "")) != OV_OK)
		return code;
	if (!ov_json_int64(ov_json_get(rules, "schema"), false, &version) || version != OV_RULES_VERSION)
		return ov_fail(err, OV_E_CONFIG, "invalid provider rules: \"schema\" is not %d", OV_RULES_VERSION);
	if (ov_json_get(rules, "issuer") != NULL && ov_json_get(rules, "issuer_pattern") != NULL)
		return bad(&c, "\"issuer_pattern\"", "stands beside \"issuer\"");
	if ((code = check_variables(&c, rules)) != OV_OK)
		return code;
	a = ov_json_get(rules, "authorization");
	code = check_params(&c, ov_json_get(a, "params"), ov_json_get(a, "rename"), authorization_standard);
	for (const OvJson *s = ov_json_get(a, "with_scope") != NULL ? ov_json_get(a, "with_scope")->child : NULL;
		 s != NULL && code == OV_OK; s = s->next)
		code = check_params(&c, s, ov_json_get(a, "rename"), authorization_standard);
	if (code == OV_OK)
		code = check_capture(&c, ov_json_get(ov_json_get(rules, "callback"), "capture"), "callback");
	if (code == OV_OK)
		code = check_request(&c, ov_json_get(rules, "token"), NULL, token_standard);
	refresh_rules = ov_json_get(rules, "refresh");
	exchange = strcmp(ov_rule_text(refresh_rules, "strategy", "standard"), "exchange") == 0;
	if (code == OV_OK)
		code = check_request(&c, refresh_rules, ov_json_get(rules, "token"), exchange ? NULL : refresh_standard);
	if (code == OV_OK)
		code = check_calls(&c, rules);
	revoke = ov_json_get(rules, "revocation");
	if (code == OV_OK)
		code = check_request(&c, ov_json_get(revoke, "refresh_token"), NULL, revoke_standard);
	if (code == OV_OK)
		code = check_request(&c, ov_json_get(revoke, "access_token"), NULL, revoke_standard);
	if (code == OV_OK)
		code = check_response(&c, ov_json_get(rules, "response"), true);
	if (code == OV_OK)
		code = check_response(&c, ov_json_get(refresh_rules, "response"), true);
	if (code == OV_OK)
		code = check_response(&c, revoke, false);
	return code;
}
