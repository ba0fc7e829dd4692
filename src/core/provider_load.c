/*
 * provider_load.c
 *	  From a rule document, a metadata document and variables to a provider.
 *
 * The language is the tables below, and providers/schema.json for people: a
 * member that no table names is refused, so that a misspelt rule cannot be
 * silently no rule.  After ov_provider_load() every member has the type its
 * table says, templates name known variables, pointers and patterns are
 * well-formed, and nothing of that is checked again.
 *
 * Overlays are merged (RFC 7396) for the variables that select them, each is
 * checked also when it is not selected.
 */
#include "core/provider_internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MAX_OVERLAYS 32

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
	   {"description", &text, false});
MAP(variables, variable);
MAP(overlay, any);
MAP(overlays, overlay);

ENUM(client_auth, "client_secret_basic", "client_secret_basic_raw", "client_secret_post", "private_key_jwt", "none");
LIST(client_auths, client_auth);
ENUM(audience, "issuer", "token_endpoint");
ENUM(pkce, "S256", "required", "none");

/* An empty new name drops the parameter. */
OBJECT(authorization_rename, {"response_type", &text, false}, {"client_id", &text, false}, {"scope", &text, false},
	   {"login_hint", &text, false}, {"nonce", &text, false});
MAP(prefixes, text);
OBJECT(scope_request, {"separator", &text, false}, {"send", &flag, false}, {"secondary", &prefixes, false});
MAP(scope_params, begin_params);
OBJECT(authorization, {"url", &url, false}, {"params", &begin_params, false}, {"with_scope", &scope_params, false},
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

ENUM(response_format, "json", "form");
LIST(response_formats, response_format);
OBJECT(fields, {"access_token", &pointer, false}, {"refresh_token", &pointer, false}, {"id_token", &pointer, false},
	   {"token_type", &pointer, false}, {"scope", &pointer, false});
ENUM(presence, "required", "optional");
OBJECT(scope_response, {"separators", &text, false}, {"array", &flag, false}, {"implies", &map_of_text, false},
	   {"with_refresh_token", &texts, false}, {"secondary", &prefixes, false});
ENUM(expiry_kind, "seconds", "epoch", "iso8601", "jwt", "issued", "default", "never");
ENUM(unit, "s", "ms");
ENUM(zero, "never");
OBJECT(expiry, {"kind", &expiry_kind, true}, {"field", &pointer, false}, {"seconds", &count, false},
	   {"unit", &unit, false}, {"zero", &zero, false});
LIST(expiries, expiry);
OBJECT(success, {"pointer", &pointer, true}, {"equals", &scalar, true});
OBJECT(error_fields, {"code", &pointer, false}, {"description", &pointer, false});
ENUM(outcome, "ok", "dead", "transient", "malformed", "misconfigured", "denied", "unsupported");
OBJECT(error, {"status", &counts, false}, {"pointer", &pointer, false}, {"value", &scalars, false},
	   {"pattern", &pattern, false}, {"outcome", &outcome, true}, {"reason", &text, false});
LIST(errors, error);
OBJECT(response, {"formats", &response_formats, false}, {"path", &pointer, false}, {"fields", &fields, false},
	   {"token_type", &presence, false}, {"token_types", &texts, false}, {"scope", &scope_response, false},
	   {"expiry", &expiries, false}, {"refresh_expiry", &expiries, false}, {"capture", &map_of_pointers, false},
	   {"success", &success, false}, {"error", &error_fields, false}, {"errors", &errors, false});

ENUM(strategy, "standard", "exchange", "client_credentials", "none");
ENUM(rotates, "always", "sometimes", "never");
OBJECT(refresh, REQUEST, {"strategy", &strategy, false}, {"rotates", &rotates, false}, {"grace", &count, false},
	   {"retry_in_doubt", &flag, false}, {"response", &response, false});

ENUM(ends, "token", "grant", "person");
OBJECT(revocation, {"refresh_token", &request, false}, {"access_token", &request, false}, {"status", &counts, false},
	   {"success", &success, false}, {"error", &error_fields, false}, {"errors", &errors, false},
	   {"ends", &ends, false}, {"effect", &text, false}, {"absent", &text, false});

LIST(hosts, host);
OBJECT(header, {"name", &name, true}, {"value", &api_template, true});
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
	   {"token", &request, false}, {"refresh", &refresh, false}, {"response", &response, false},
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

		if (!good_name(v->key, "_") || is_builtin(v->key))
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

		if (!good_name(m->key, "_") || is_builtin(m->key))
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

/* tokens: are these the answers that bring tokens?  No error can be a success there. */
static OvCode
check_response(Checker *c, const OvJson *r, bool tokens)
{
	static const char *const lists[] = {"expiry", "refresh_expiry"};

	if (r == NULL)
		return OV_OK;
	for (int i = 0; i < 2; i++)
		for (const OvJson *e = ov_json_get(r, lists[i]) != NULL ? ov_json_get(r, lists[i])->child : NULL; e != NULL; e = e->next)
		{
			const char *kind = ov_json_get_string(e, "kind");
			bool		field = strcmp(kind, "seconds") == 0 || strcmp(kind, "epoch") == 0 ||
				strcmp(kind, "iso8601") == 0 || strcmp(kind, "issued") == 0;
			bool		seconds = strcmp(kind, "issued") == 0 || strcmp(kind, "default") == 0;

			if (field != (ov_json_get(e, "field") != NULL) || seconds != (ov_json_get(e, "seconds") != NULL))
				return bad(c, lists[i], "has an entry without what its kind needs, or with what it does not");
		}
	for (const OvJson *e = ov_json_get(r, "errors") != NULL ? ov_json_get(r, "errors")->child : NULL; e != NULL; e = e->next)
	{
		if ((ov_json_get(e, "value") != NULL || ov_json_get(e, "pattern") != NULL) && ov_json_get(e, "pointer") == NULL)
			return bad(c, "errors", "has an entry that compares nothing");
		if (tokens && strcmp(ov_json_get_string(e, "outcome"), "ok") == 0)
			return bad(c, "errors", "has an entry that makes an error a success");
	}
	return check_capture(c, ov_json_get(r, "capture"), "response");
}

static const char *const authorization_standard[] = {
	"response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method", "nonce",
	"login_hint", "request", "request_uri", NULL
};
static const char *const token_standard[] = {"grant_type", "code", "redirect_uri", "code_verifier", NULL};
static const char *const refresh_standard[] = {"grant_type", "refresh_token", NULL};
static const char *const revoke_standard[] = {"token", "token_type_hint", NULL};

static OvCode
check_document(const OvJson *rules, OvError *err)
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
			if ((code = check_document(ov_json_merge_patch(arena, base, o), err)) != OV_OK)
				return code;
			if (v->value != NULL && strcmp(v->value, o->key) == 0)
				result = ov_json_merge_patch(arena, result, o);
		}
	}
	if (result == base)
		return OV_OK;
	p->rules = result;
	if ((code = check_document(result, err)) != OV_OK)
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
	if (rule != NULL && (code = ov_template_url(arena, &values, rule, &rendered, err)) != OV_OK)
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
	if ((code = check_document(rules, err)) != OV_OK ||
		(code = take_variables(arena, p, given, err)) != OV_OK ||
		(code = apply_overlays(arena, p, given, err)) != OV_OK)
		return code;

	p->authorization = ov_json_get(p->rules, "authorization");
	p->callback = ov_json_get(p->rules, "callback");
	p->token = ov_json_get(p->rules, "token");
	if ((code = take_refresh(arena, p, err)) != OV_OK)
		return code;
	p->revocation = ov_json_get(p->rules, "revocation");
	p->api = ov_json_get(p->rules, "api");
	p->response = p->refresh_response = ov_json_get(p->rules, "response");
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
