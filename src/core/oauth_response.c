/*
 * oauth_response.c
 *	  What a token or revocation endpoint's answer means.
 *
 * Fails closed: only HTTP 200 with a JSON object (or a form, where the rules
 * say so) that holds a usable access token is a success; everything else is
 * one outcome of the enum, and nothing of the answer is kept.  The provider's
 * rules are asked first, then RFC 6749 section 5.2, then the status.
 *
 * Provider text leaves here only through ov_clean_text().
 */
#include "core/provider_internal.h"

#include "core/jwt.h"

#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define TEN_YEARS ((int64_t) 315576000)
#define MAX_RETRY_AFTER 86400
#define MAX_SCOPES 1000

typedef struct Reader
{
	OvArena    *arena;
	const OvProvider *provider;
	const OvJson *rules;		/* response, refresh.response merged in, or revocation */
	const OvHttpResponse *resp;
	const OvJson *root;			/* the token object; NULL: the body is none */
	int64_t		now;
	bool		duplicate;		/* a member that was looked for stands twice */
	OvTokens   *out;
} Reader;

static const struct
{
	const char *name;
	OvOutcome	outcome;
}			outcomes[] = {
	{"ok", OV_OUT_OK},
	{"dead", OV_OUT_DEAD},
	{"transient", OV_OUT_TRANSIENT},
	{"malformed", OV_OUT_MALFORMED},
	{"misconfigured", OV_OUT_MISCONFIGURED},
	{"denied", OV_OUT_DENIED},
	{"unsupported", OV_OUT_UNSUPPORTED},
};

/* RFC 6749 section 5.2, RFC 7009 section 2.2.1; and 4.1.2.1, whose codes some endpoints borrow */
static const struct
{
	const char *code;
	OvOutcome	outcome;
	const char *reason;
}			standard_errors[] = {
	{"invalid_grant", OV_OUT_DEAD, "the grant is invalid, expired or revoked"},
	{"invalid_client", OV_OUT_MISCONFIGURED, "the provider does not accept the client's credentials"},
	{"unauthorized_client", OV_OUT_MISCONFIGURED, "the client may not use this grant"},
	{"unsupported_grant_type", OV_OUT_MISCONFIGURED, "the provider does not support this grant"},
	{"invalid_request", OV_OUT_DENIED, "the provider calls the request invalid"},
	{"invalid_scope", OV_OUT_DENIED, "the provider refuses the scopes"},
	{"access_denied", OV_OUT_DENIED, "the provider denies access"},
	{"temporarily_unavailable", OV_OUT_TRANSIENT, "the provider is temporarily unavailable"},
	{"server_error", OV_OUT_TRANSIENT, "the provider failed"},
	{"slow_down", OV_OUT_TRANSIENT, "the provider asks for fewer requests"},
	{"unsupported_token_type", OV_OUT_UNSUPPORTED, "the provider does not revoke this kind of token"},
};

static void __attribute__((format(printf, 3, 4)))
conclude(Reader *r, OvOutcome outcome, const char *fmt,...)
{
	OvTokens   *out = r->out;
	int64_t		retry_after = out->retry_after;
	const char *error = out->error,
			   *description = out->error_description;
	va_list		args;

	/* nothing of an answer that failed is kept */
	memset(out, 0, sizeof(*out));
	out->outcome = outcome;
	out->error = error;
	out->error_description = description;
	out->retry_after = retry_after;
	va_start(args, fmt);
	vsnprintf(out->reason, sizeof(out->reason), fmt, args);
	va_end(args);
}

/* ---- reading members ---- */

/* RFC 7493 section 2.3: what we read must not stand twice. */
static const OvJson *
lookup(Reader *r, const char *pointer)
{
	const OvJson *v = r->root;
	char		step[256];

	while (v != NULL && *pointer == '/')
	{
		size_t		n = 1 + strcspn(pointer + 1, "/");
		const OvJson *next;

		if (n >= sizeof(step))
			return NULL;
		memcpy(step, pointer, n);
		step[n] = '\0';
		next = ov_json_at(v, step);
		if (next != NULL && v->type == OV_JSON_OBJECT && !ov_json_unique(v, &next->key, 1))
			r->duplicate = true;
		v = next;
		pointer += n;
	}
	return v;
}

/* A member of the answer; null counts as absent */
static const OvJson *
field(Reader *r, const char *section, const char *name, const char *otherwise)
{
	const OvJson *v = lookup(r, ov_rule_text(ov_json_get(r->rules, section), name, otherwise));

	return v != NULL && v->type != OV_JSON_NULL ? v : NULL;
}

/* ---- media type and body ---- */

static bool
media_type_is(const char *content_type, const char *want)
{
	size_t		n = strcspn(content_type, "; \t");

	/* RFC 9110 section 8.3.1: case-insensitive, parameters after a semicolon */
	return n == strlen(want) && strncasecmp(content_type, want, n) == 0 &&
		(content_type[n + strspn(content_type + n, " \t")] == '\0' ||
		 content_type[n + strspn(content_type + n, " \t")] == ';');
}

static bool
form_allowed(const Reader *r)
{
	const OvJson *formats = ov_json_get(r->rules, "formats");

	for (const OvJson *f = formats != NULL ? formats->child : NULL; f != NULL; f = f->next)
		if (strcmp(f->str, "form") == 0)
			return true;
	return false;
}

/* A form body as an object of strings; a name that stands twice is refused */
static const OvJson *
form_object(Reader *r)
{
	OvParam    *params;
	OvJson	   *object,
			   *last = NULL;

	if (ov_form_parse(r->arena, r->resp->body, r->resp->body_len, &params, NULL) != OV_OK || params == NULL)
		return NULL;
	object = ov_arena_alloc(r->arena, sizeof(OvJson));
	object->type = OV_JSON_OBJECT;
	for (const OvParam *p = params; p != NULL; p = p->next)
	{
		OvJson	   *m = ov_arena_alloc(r->arena, sizeof(OvJson));

		m->type = OV_JSON_STRING;
		m->key = p->name;
		m->str = p->value;
		m->len = strlen(p->value);
		if (last == NULL)
			object->child = m;
		else
			last->next = m;
		last = m;
		object->count++;
	}
	return object;
}

/* The body's object; NULL, with the reason, when there is none */
static const OvJson *
parse_body(Reader *r, char *why, size_t size)
{
	const OvHttpResponse *resp = r->resp;
	const OvJson *root;
	OvError		err;

	why[0] = '\0';
	if (resp->content_type == NULL || resp->content_type[0] == '\0')
		snprintf(why, size, "the answer has no content type");
	else if (resp->body == NULL || resp->body_len == 0)
		snprintf(why, size, "the answer is empty");
	else if (media_type_is(resp->content_type, "application/json"))
	{
		if (ov_json_parse(r->arena, resp->body, resp->body_len, &root, &err) != OV_OK)
			snprintf(why, size, "%.100s", err.message);
		else if (root->type != OV_JSON_OBJECT)
			snprintf(why, size, "the answer is not a JSON object");
		else
			return root;
	}
	else if (form_allowed(r) && media_type_is(resp->content_type, "application/x-www-form-urlencoded"))
	{
		if ((root = form_object(r)) != NULL)
			return root;
		snprintf(why, size, "the answer is a malformed form");
	}
	else
		snprintf(why, size, "the answer is not JSON");
	return NULL;
}

/* ---- Retry-After ---- */

/* RFC 9110 section 10.2.3: seconds or a date; against the server's own clock where it tells it */
static int64_t
retry_after(const OvHttpResponse *resp, int64_t now)
{
	const char *s = resp->retry_after;
	int64_t		n = 0;
	time_t		at,
				from;

	if (s == NULL || s[0] == '\0')
		return -1;
	if (s[strspn(s, "0123456789")] == '\0')
	{
		for (; *s != '\0' && n < MAX_RETRY_AFTER; s++)
			n = n * 10 + (*s - '0');
		return n > MAX_RETRY_AFTER ? MAX_RETRY_AFTER : n;
	}
	/* a date begins with the day's name; curl_getdate() would take much else */
	if (strlen(s) > 40 || strchr("MTWFS", s[0]) == NULL || (at = curl_getdate(s, NULL)) == (time_t) -1)
		return -1;
	from = resp->date != NULL && strlen(resp->date) <= 40 ? curl_getdate(resp->date, NULL) : (time_t) -1;
	n = (int64_t) at - (from != (time_t) -1 ? (int64_t) from : now);
	return n < 0 ? 0 : n > MAX_RETRY_AFTER ? MAX_RETRY_AFTER : n;
}

/* ---- errors ---- */

static bool
same_scalar(const OvJson *a, const OvJson *b)
{
	return a->type == b->type &&
		((a->type != OV_JSON_STRING && a->type != OV_JSON_NUMBER) || strcmp(a->str, b->str) == 0);
}

static bool
entry_matches(Reader *r, const OvJson *entry)
{
	const OvJson *statuses = ov_json_get(entry, "status");
	const OvJson *values = ov_json_get(entry, "value");
	const char *pattern = ov_json_get_string(entry, "pattern");
	const char *pointer = ov_json_get_string(entry, "pointer");
	const OvJson *v;
	bool		found = statuses == NULL;
	int64_t		n;

	for (const OvJson *s = statuses != NULL ? statuses->child : NULL; s != NULL && !found; s = s->next)
		found = ov_json_int64(s, false, &n) && n == r->resp->status;
	if (!found || pointer == NULL)
		return found;
	v = lookup(r, pointer);
	if (v == NULL || v->type == OV_JSON_NULL)
		return false;
	if (values == NULL && pattern == NULL)
		return true;
	for (const OvJson *want = values != NULL ? values->child : NULL; want != NULL; want = want->next)
		if (same_scalar(v, want))
			return true;
	return pattern != NULL && (v->type == OV_JSON_STRING || v->type == OV_JSON_NUMBER) &&
		ov_pattern_match(pattern, v->str, &found, NULL) == OV_OK && found;
}

/* The rules' own errors, in order */
static const OvJson *
mapped_error(Reader *r)
{
	const OvJson *errors = ov_json_get(r->rules, "errors");

	for (const OvJson *e = errors != NULL ? errors->child : NULL; e != NULL; e = e->next)
		if (entry_matches(r, e))
			return e;
	return NULL;
}

static OvOutcome
outcome_named(const char *name)
{
	for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++)
		if (strcmp(outcomes[i].name, name) == 0)
			return outcomes[i].outcome;
	return OV_OUT_MALFORMED;
}

/* The provider's code and words, cleaned, for whoever reads DETAIL */
static void
quote_error(Reader *r)
{
	const OvJson *code = field(r, "error", "code", "/error");
	const OvJson *text = field(r, "error", "description", "/error_description");

	if (code != NULL && (code->type == OV_JSON_STRING || code->type == OV_JSON_NUMBER))
		r->out->error = ov_clean_text(r->arena, code->str, code->len);
	if (text != NULL && text->type == OV_JSON_STRING)
		r->out->error_description = ov_clean_text(r->arena, text->str, text->len);
}

static bool
conclude_mapped(Reader *r)
{
	const OvJson *e = mapped_error(r);

	if (e == NULL)
		return false;
	conclude(r, outcome_named(ov_json_get_string(e, "outcome")), "%.120s",
			 ov_rule_text(e, "reason", r->out->error != NULL ? r->out->error : "an error of the provider's own"));
	return true;
}

/* An error object, by its code: the rules have been asked already. */
static void
conclude_error(Reader *r)
{
	const OvJson *code = field(r, "error", "code", "/error");

	if (code == NULL || code->type != OV_JSON_STRING || code->len == 0 || code->len > 200 || r->duplicate)
	{
		conclude(r, OV_OUT_MALFORMED, "the error in the answer has no usable code (status %d)", r->resp->status);
		return;
	}
	for (size_t i = 0; i < sizeof(standard_errors) / sizeof(standard_errors[0]); i++)
		if (strcmp(standard_errors[i].code, code->str) == 0)
		{
			conclude(r, standard_errors[i].outcome, "%s", standard_errors[i].reason);
			return;
		}
	conclude(r, OV_OUT_DENIED, "the provider refuses: %.80s", r->out->error);
}

/* Everything but a success, for both endpoints; status 200 does not come here. */
static void
conclude_status(Reader *r, const char *why)
{
	int			status = r->resp->status;
	const OvJson *code;

	if (conclude_mapped(r))
		return;
	if (status == 408 || status == 429 || status >= 500)
	{
		conclude(r, OV_OUT_TRANSIENT, "the provider answers with status %d", status);
		return;
	}
	/* RFC 6749 section 5.2: 400, or 401 for the client's authentication */
	code = r->root != NULL ? field(r, "error", "code", "/error") : NULL;
	if ((status == 400 || status == 401) && code != NULL)
		conclude_error(r);
	else if (status == 401 && (r->root != NULL || r->resp->body_len == 0))
		conclude(r, OV_OUT_MISCONFIGURED, "the provider does not accept the client's credentials (status 401)");
	else if (status == 400 || status == 401)
		conclude(r, OV_OUT_MALFORMED, "unparseable error response (status %d): %.60s", status,
				 why[0] != '\0' ? why : "no error in it");
	else
		conclude(r, OV_OUT_MALFORMED, "the provider answers with status %d", status);
}

/* ---- times ---- */

static int64_t
clamp_seconds(int64_t n)
{
	return n < 0 ? 0 : n > TEN_YEARS ? TEN_YEARS : n;
}

/* Days from 1970-01-01 of the proleptic Gregorian calendar */
static int64_t
days_from_civil(int64_t y, int m, int d)
{
	int64_t		era,
				yoe,
				doy;

	y -= m <= 2;
	era = y / 400;
	yoe = y - era * 400;
	doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

/* RFC 3339: date, T, time, optional fraction, Z or offset */
static bool
parse_timestamp(const char *s, int64_t *out)
{
	int			y,
				mo,
				d,
				h,
				mi,
				sec,
				n = 0,
				oh = 0,
				om = 0;
	char		sign = '+';

	if (strspn(s, "0123456789-:.TtZz+ ") != strlen(s) || strlen(s) > 40 ||
		sscanf(s, "%4d-%2d-%2d%*1[Tt ]%2d:%2d:%2d%n", &y, &mo, &d, &h, &mi, &sec, &n) != 6 || n == 0)
		return false;
	s += n;
	if (*s == '.')
		s += 1 + strspn(s + 1, "0123456789");
	if (*s == '+' || *s == '-')
	{
		sign = *s;
		n = 0;
		if (sscanf(s + 1, "%2d:%2d%n", &oh, &om, &n) != 2 || s[1 + n] != '\0')
			return false;
	}
	else if ((*s != 'Z' && *s != 'z') || s[1] != '\0')
		return false;
	if (y < 1970 || mo < 1 || mo > 12 || d < 1 || d > 31 || h < 0 || h > 23 || mi < 0 || mi > 59 || sec < 0 || sec > 60 ||
		oh < 0 || oh > 23 || om < 0 || om > 59)
		return false;
	*out = days_from_civil(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec -
		(sign == '-' ? -1 : 1) * (oh * 3600 + om * 60);
	return true;
}

static int64_t
jwt_expiry(Reader *r, const char *token)
{
	const OvJson *header,
			   *claims;
	int64_t		exp;

	if (token == NULL || ov_jwt_peek(r->arena, token, strlen(token), &header, &claims, NULL) != OV_OK ||
		!ov_json_int64(ov_json_get(claims, "exp"), false, &exp))
		return 0;
	return exp;
}

/*
 * The first rule that says anything wins.  False: a member that a rule reads
 * is not what it must be, and the answer with it.
 */
static bool
read_expiry(Reader *r, const char *list, const char *token, int64_t *out)
{
	static const OvJson kind_text = {.type = OV_JSON_STRING, .key = "kind", .str = "seconds", .len = 7};
	OvJson		field_text = {.type = OV_JSON_STRING, .key = "field", .str = "/expires_in", .len = 11};
	OvJson		standard = {.type = OV_JSON_OBJECT, .child = &field_text, .count = 2};
	const OvJson *rules = ov_json_get(r->rules, list);
	const OvJson *e = rules != NULL ? rules->child : strcmp(list, "expiry") == 0 ? &standard : NULL;

	field_text.next = (OvJson *) &kind_text;
	*out = 0;
	for (; e != NULL; e = e->next)
	{
		const char *kind = ov_json_get_string(e, "kind");
		const char *pointer = ov_json_get_string(e, "field");
		const OvJson *v = pointer != NULL ? lookup(r, pointer) : NULL;
		int64_t		n,
					seconds = 0;

		(void) ov_json_int64(ov_json_get(e, "seconds"), false, &seconds);
		if (strcmp(kind, "never") == 0)
			*out = INT64_MAX;
		else if (strcmp(kind, "default") == 0)
			*out = r->now + seconds;
		else if (strcmp(kind, "jwt") == 0)
			*out = jwt_expiry(r, token);
		else if (v == NULL || v->type == OV_JSON_NULL)
			continue;
		else if (strcmp(kind, "iso8601") == 0)
		{
			if (v->type != OV_JSON_STRING || !parse_timestamp(v->str, out))
				return false;
		}
		else if (!ov_json_int64(v, true, &n) || n < 0)
			return false;
		else if (n == 0 && ov_json_get(e, "zero") != NULL)
			*out = INT64_MAX;
		else if (strcmp(kind, "seconds") == 0)
			*out = r->now + clamp_seconds(n);
		else
		{
			if (strcmp(ov_rule_text(e, "unit", "s"), "ms") == 0)
				n /= 1000;
			*out = n > r->now + TEN_YEARS ? r->now + TEN_YEARS : n + seconds;
		}
		if (*out != 0)
		{
			if (*out != INT64_MAX && *out > r->now + TEN_YEARS)
				*out = r->now + TEN_YEARS;
			return true;
		}
	}
	return true;
}

/* ---- scopes ---- */

typedef struct ScopeList
{
	OvArena    *arena;
	const char **list;
	int			n;
	bool		bad;
} ScopeList;

static void
add_scope(ScopeList *s, const char *prefix, const char *token, size_t len)
{
	const char *scope = ov_arena_printf(s->arena, "%s%.*s", prefix, (int) len, token);

	if (!ov_scope_token_ok(scope))
	{
		s->bad = true;
		return;
	}
	for (int i = 0; i < s->n; i++)
		if (strcmp(s->list[i], scope) == 0)
			return;
	if (s->n == MAX_SCOPES)
		s->bad = true;
	else
		s->list[s->n++] = scope;
}

static void
split_scopes(ScopeList *s, const char *prefix, const char *text, const char *separators)
{
	while (*text != '\0')
	{
		size_t		n = strcspn(text, separators);

		if (n > 0)
			add_scope(s, prefix, text, n);
		text += n + (text[n] != '\0' ? 1 : 0);
	}
}

/* RFC 6749 section 3.3; an array or another separator only where the rules say so */
static void
read_scope_member(Reader *r, ScopeList *s, const OvJson *rule, const char *prefix, const OvJson *v)
{
	if (v->type == OV_JSON_STRING)
		split_scopes(s, prefix, v->str, ov_rule_text(rule, "separators", " "));
	else if (v->type == OV_JSON_ARRAY && ov_rule_flag(rule, "array", false))
	{
		for (const OvJson *e = v->child; e != NULL; e = e->next)
		{
			if (e->type == OV_JSON_STRING)
				add_scope(s, prefix, e->str, e->len);
			else
				s->bad = true;
		}
	}
	else
		s->bad = true;
	(void) r;
}

static bool
read_scopes(Reader *r)
{
	const OvJson *rule = ov_json_get(r->rules, "scope");
	const OvJson *secondary = ov_json_get(rule, "secondary");
	const OvJson *implies = ov_json_get(rule, "implies");
	const OvJson *with_refresh = ov_json_get(rule, "with_refresh_token");
	const OvJson *v = field(r, "fields", "scope", "/scope");
	ScopeList	s = {.arena = r->arena};
	bool		said = v != NULL;
	int			n;

	s.list = ov_arena_alloc(r->arena, sizeof(char *) * MAX_SCOPES);
	if (v != NULL)
		read_scope_member(r, &s, rule, "", v);
	for (const OvJson *m = secondary != NULL ? secondary->child : NULL; m != NULL; m = m->next)
	{
		v = lookup(r, m->key);
		if (v == NULL || v->type == OV_JSON_NULL)
			continue;
		said = true;
		read_scope_member(r, &s, rule, m->str, v);
	}
	if (!said)
		return true;
	/* What a granted scope says under another name, or includes */
	n = s.n;
	for (const OvJson *m = implies != NULL ? implies->child : NULL; m != NULL; m = m->next)
		for (int i = 0; i < n; i++)
			if (strncmp(s.list[i], m->key, strlen(m->key)) == 0 &&
				strlen(m->str) + strlen(s.list[i]) > strlen(m->key))
				add_scope(&s, m->str, s.list[i] + strlen(m->key), strlen(s.list[i]) - strlen(m->key));
	for (const OvJson *m = with_refresh != NULL ? with_refresh->child : NULL; m != NULL && r->out->refresh_token != NULL;
		 m = m->next)
		add_scope(&s, "", m->str, m->len);
	r->out->scopes = s.list;
	r->out->nscopes = s.n;
	return !s.bad;
}

/* ---- the tokens ---- */

/* RFC 6749 appendix A.12 and A.17; no space in what is to stand in a header (RFC 6750 section 2.1) */
static bool
token_ok(const OvJson *v, char lowest)
{
	if (v->type != OV_JSON_STRING || v->len == 0 || v->len > OV_MAX_TOKEN)
		return false;
	for (const char *c = v->str; *c != '\0'; c++)
		if (*c < lowest || *c > 0x7e)
			return false;
	return true;
}

/* RFC 6749 section 7.1: a token of a type that we do not know must not be used */
static bool
read_token_type(Reader *r)
{
	const OvJson *v = field(r, "fields", "token_type", "/token_type");
	const OvJson *more = ov_json_get(r->rules, "token_types");
	bool		known;

	if (v == NULL)
		known = strcmp(ov_rule_text(r->rules, "token_type", "required"), "optional") == 0;
	else
		known = v->type == OV_JSON_STRING && strcasecmp(v->str, "Bearer") == 0;
	for (const OvJson *m = more != NULL ? more->child : NULL; m != NULL && v != NULL && !known; m = m->next)
		known = v->type == OV_JSON_STRING && strcasecmp(v->str, m->str) == 0;
	r->out->token_type = "Bearer";
	return known;
}

/* What the rules keep of the answer, as text; false when a variable's pattern refuses it */
static bool
read_captured(Reader *r)
{
	const OvJson *capture = ov_json_get(r->rules, "capture");
	OvStr		s;

	if (capture == NULL)
		return true;
	ov_str_init(&s, r->arena);
	ov_str_putc(&s, '{');
	for (const OvJson *c = capture->child; c != NULL; c = c->next)
	{
		const OvJson *v = lookup(r, c->str);
		const Variable *var = ov_variable(r->provider, c->key);
		const char *text;

		if (v == NULL || v->type == OV_JSON_NULL || v->type == OV_JSON_OBJECT || v->type == OV_JSON_ARRAY)
			continue;
		text = v->type == OV_JSON_TRUE ? "true" : v->type == OV_JSON_FALSE ? "false" : v->str;
		if (var != NULL)
		{
			if (ov_variable_check(var->rule, var->name, text, NULL) != OV_OK)
				return false;
		}
		else if (strlen(text) > OV_MAX_VARIABLE)
			continue;			/* worth keeping, not worth failing for */
		if (s.len > 1)
			ov_str_putc(&s, ',');
		ov_json_quote(&s, c->key, strlen(c->key));
		ov_str_putc(&s, ':');
		ov_json_quote(&s, text, strlen(text));
	}
	ov_str_putc(&s, '}');
	r->out->captured = s.data;
	return true;
}

static void
read_subject(Reader *r)
{
	const char *rule = ov_json_get_string(r->provider->rules, "subject");
	OvValues	values = {.provider = r->provider, .response = r->root};
	char	   *subject;

	if (rule != NULL && ov_template_text(r->arena, &values, rule, &subject, NULL) == OV_OK && subject != NULL &&
		strlen(subject) <= OV_MAX_VARIABLE)
		r->out->subject = subject;
}

/* RFC 6749 section 5.1 */
static void
read_tokens(Reader *r, bool is_refresh)
{
	OvTokens   *out = r->out;
	const OvJson *access = field(r, "fields", "access_token", "/access_token");
	const OvJson *refresh = field(r, "fields", "refresh_token", "/refresh_token");
	const OvJson *id = field(r, "fields", "id_token", "/id_token");

	if (access == NULL || !token_ok(access, 0x21))
		conclude(r, OV_OUT_MALFORMED, "the answer has no usable access token");
	else if (refresh != NULL && !token_ok(refresh, 0x20))
		conclude(r, OV_OUT_MALFORMED, "the refresh token in the answer is malformed");
	else if (id != NULL && !token_ok(id, 0x21))
		conclude(r, OV_OUT_MALFORMED, "the id token in the answer is malformed");
	else if (!read_token_type(r))
		conclude(r, OV_OUT_MALFORMED, "the answer has no token type that is known");
	else
	{
		out->access_token = access->str;
		out->refresh_token = refresh != NULL ? refresh->str : NULL;
		out->id_token = id != NULL ? id->str : NULL;
		if (!read_expiry(r, "expiry", access->str, &out->expires_at) ||
			!read_expiry(r, "refresh_expiry", out->refresh_token, &out->refresh_expires_at))
			conclude(r, OV_OUT_MALFORMED, "the expiry in the answer is malformed");
		else if (!read_scopes(r))
			conclude(r, OV_OUT_MALFORMED, "the scope in the answer is malformed");
		else if (!read_captured(r))
			conclude(r, OV_OUT_MALFORMED, "the answer names something that the provider's rules do not allow");
		else
		{
			/* a lifetime in the rules is that of a token that did come */
			if (out->refresh_token == NULL && !is_refresh)
				out->refresh_expires_at = 0;
			read_subject(r);
			out->outcome = OV_OUT_OK;
		}
	}
	if (r->duplicate)
		conclude(r, OV_OUT_MALFORMED, "the answer has a member twice");
}

static void
begin_reading(Reader *r, OvArena *arena, const OvProvider *p, const OvJson *rules, const OvHttpResponse *resp,
			  int64_t now, OvTokens *out)
{
	memset(out, 0, sizeof(*out));
	*r = (Reader) {.arena = arena, .provider = p, .rules = rules, .resp = resp, .now = now, .out = out};
	out->retry_after = retry_after(resp, now);
}

/* Transport failures and answers that are cut short say nothing about the grant. */
static bool
no_answer(Reader *r)
{
	if (r->resp->transport_error == NULL && r->resp->status != 0)
		return false;
	conclude(r, OV_OUT_TRANSIENT, "no answer: %.100s",
			 r->resp->transport_error != NULL ?
			 ov_clean_text(r->arena, r->resp->transport_error, strlen(r->resp->transport_error)) : "unknown reason");
	return true;
}

/* The rules' predicate for bodies that say in themselves whether they are a success */
static bool
succeeded(Reader *r)
{
	const OvJson *rule = ov_json_get(r->rules, "success");
	const OvJson *v;

	if (rule == NULL)
		return true;
	v = lookup(r, ov_json_get_string(rule, "pointer"));
	return v != NULL && same_scalar(v, ov_json_get(rule, "equals"));
}

void
ov_token_response(OvArena *arena, const OvProvider *p, const OvHttpResponse *resp, bool is_refresh, int64_t now,
				  OvTokens *out)
{
	Reader		r;
	const OvJson *document;
	const char *path;
	char		why[128];

	begin_reading(&r, arena, p, is_refresh ? p->refresh_response : p->response, resp, now, out);
	if (no_answer(&r))
		return;
	document = r.root = parse_body(&r, why, sizeof(why));
	if (r.root != NULL)
		quote_error(&r);
	if (resp->status != 200)
	{
		conclude_status(&r, why);
		return;
	}
	if (r.root == NULL)
	{
		conclude(&r, OV_OUT_MALFORMED, "%s", why);
		return;
	}
	/* Some providers answer 200 to everything. */
	if (!succeeded(&r) || field(&r, "error", "code", "/error") != NULL)
	{
		bool		token = field(&r, "fields", "access_token", "/access_token") != NULL;

		if (token && succeeded(&r))
			conclude(&r, OV_OUT_MALFORMED, "the answer has both an error and a token");
		else if (!conclude_mapped(&r))
			conclude_error(&r);
		return;
	}
	path = ov_json_get_string(r.rules, "path");
	if (path != NULL && ((r.root = lookup(&r, path)) == NULL || r.root->type != OV_JSON_OBJECT))
	{
		r.root = document;
		if (!conclude_mapped(&r))
			conclude(&r, OV_OUT_MALFORMED, "the answer has no token object");
		return;
	}
	read_tokens(&r, is_refresh);
	if (ov_arena_failed(arena))
		conclude(&r, OV_OUT_TRANSIENT, "out of memory");
}

/* RFC 7009 section 2.2: 200 means gone, whatever the body; some providers have other words for it. */
void
ov_revoke_response(OvArena *arena, const OvProvider *p, const OvHttpResponse *resp, OvTokens *out)
{
	Reader		r;
	const OvJson *statuses = ov_json_get(p->revocation, "status");
	bool		good;
	int64_t		n;
	char		why[128];

	begin_reading(&r, arena, p, p->revocation, resp, (int64_t) time(NULL), out);
	if (no_answer(&r))
		return;
	r.root = parse_body(&r, why, sizeof(why));
	good = statuses == NULL && resp->status == 200;
	for (const OvJson *s = statuses != NULL ? statuses->child : NULL; s != NULL && !good; s = s->next)
		good = ov_json_int64(s, false, &n) && n == resp->status;
	if (good && ov_json_get(p->revocation, "success") == NULL)
	{
		conclude(&r, OV_OUT_OK, "revoked");
		return;
	}
	if (r.root != NULL)
		quote_error(&r);
	if (good && r.root != NULL && succeeded(&r))
		conclude(&r, OV_OUT_OK, "revoked");
	else if (!good)
		conclude_status(&r, why);
	else if (r.root == NULL)
		conclude(&r, OV_OUT_MALFORMED, "%s", why);
	else if (!conclude_mapped(&r))
		conclude_error(&r);
}
