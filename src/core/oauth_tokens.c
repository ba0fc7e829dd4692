/*
 * oauth_tokens.c
 *	  The token object of a successful answer (RFC 6749 section 5.1): tokens,
 *	  expiry, scopes, and what the rules keep.
 *
 * All or nothing: one member that is not what it must be makes the whole answer
 * malformed, and no token of it is kept.
 */
#include "core/oauth_response.h"

#include "core/jwt.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define TEN_YEARS ((int64_t) 315576000)
#define MAX_SCOPES 1000

/* ---- times ---- */

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
jwt_expiry(OvReader *r, const char *token)
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
 * What one rule says: 0 in *out when nothing.  False: the member that it reads
 * is not what it must be, and the answer with it.
 */
static bool
apply_expiry(OvReader *r, const OvJson *rule, const char *kind, const char *pointer, const char *token, int64_t *out)
{
	const OvJson *v = pointer != NULL ? ov_lookup(r, pointer) : NULL;
	int64_t		n,
				seconds = 0;

	*out = 0;
	(void) ov_json_int64(ov_json_get(rule, "seconds"), false, &seconds);
	if (strcmp(kind, "never") == 0)
		*out = INT64_MAX;
	else if (strcmp(kind, "default") == 0)
		*out = r->now + seconds;
	else if (strcmp(kind, "jwt") == 0)
		*out = jwt_expiry(r, token);
	else if (v == NULL || v->type == OV_JSON_NULL)
		return true;
	else if (strcmp(kind, "iso8601") == 0)
		return v->type == OV_JSON_STRING && parse_timestamp(v->str, out);
	else if (!ov_json_int64(v, true, &n) || n < 0)
		return false;
	else if (n == 0 && ov_json_get(rule, "zero") != NULL)
		*out = INT64_MAX;
	else if (strcmp(kind, "seconds") == 0)
		*out = r->now + (n < TEN_YEARS ? n : TEN_YEARS);
	else
	{
		if (strcmp(ov_rule_text(rule, "unit", "s"), "ms") == 0)
			n /= 1000;
		*out = (n < r->now + TEN_YEARS ? n : r->now + TEN_YEARS) + seconds;
	}
	return true;
}

/*
 * The first rule that says anything wins, and no later than any cap; without
 * rules it is expires_in's.  What counts from the consent is said once.
 */
bool
ov_read_expiry(OvReader *r, const char *list, const char *token, int64_t *out)
{
	const OvJson *rules = ov_json_get(r->rules, list);
	int64_t		cap = 0;

	*out = 0;
	if (rules == NULL && strcmp(list, "expiry") == 0)
		return apply_expiry(r, NULL, "seconds", "/expires_in", token, out);
	for (const OvJson *e = rules != NULL ? rules->child : NULL; e != NULL; e = e->next)
	{
		bool		is_cap = ov_rule_flag(e, "cap", false);
		int64_t		at;

		if ((*out != 0 && !is_cap) || (r->refreshing && strcmp(ov_rule_text(e, "from", "answer"), "consent") == 0))
			continue;
		if (!apply_expiry(r, e, ov_json_get_string(e, "kind"), ov_json_get_string(e, "field"), token, &at))
			return false;
		if (!is_cap)
			*out = at;
		else if (at != 0 && (cap == 0 || at < cap))
			cap = at;
	}
	if (cap != 0 && (*out == 0 || *out > cap))
		*out = cap;
	if (*out != INT64_MAX && *out > r->now + TEN_YEARS)
		*out = r->now + TEN_YEARS;
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
	const char *scope;

	/* The answer has failed; it may have room for a hundred thousand more. */
	if (s->bad)
		return;
	scope = ov_arena_printf(s->arena, "%s%.*s", prefix, (int) len, token);
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
read_scope_member(ScopeList *s, const OvJson *rule, const char *prefix, const OvJson *v)
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
}

static bool
read_scopes(OvReader *r)
{
	const OvJson *rule = ov_json_get(r->rules, "scope");
	const OvJson *secondary = ov_json_get(rule, "secondary");
	const OvJson *implies = ov_json_get(rule, "implies");
	const OvJson *with_refresh = ov_json_get(rule, "with_refresh_token");
	const OvJson *v = ov_response_field(r, "fields", "scope", "/scope");
	const char *otherwise = ov_rule_text(rule, "otherwise", NULL);
	OvValues	values = {.provider = r->provider};
	ScopeList	s = {.arena = r->arena};
	bool		said = v != NULL;
	char	   *text;
	int			n;

	s.list = ov_arena_alloc(r->arena, sizeof(char *) * MAX_SCOPES);
	if (v != NULL)
		read_scope_member(&s, rule, "", v);
	for (const OvJson *m = secondary != NULL ? secondary->child : NULL; m != NULL; m = m->next)
	{
		v = ov_lookup(r, m->key);
		if (v == NULL || v->type == OV_JSON_NULL)
			continue;
		said = true;
		read_scope_member(&s, rule, m->str, v);
	}
	/* the answer does not say: what the callback did, for one */
	if (!said && otherwise != NULL && ov_template_text(r->arena, &values, otherwise, &text, NULL) == OV_OK && text != NULL)
	{
		said = true;
		split_scopes(&s, "", text, ov_rule_text(rule, "separators", " "));
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

bool
ov_read_scopes_at(OvReader *r, const OvJson *v)
{
	ScopeList	s = {.arena = r->arena};

	s.list = ov_arena_alloc(r->arena, sizeof(char *) * MAX_SCOPES);
	read_scope_member(&s, ov_json_get(r->provider->response, "scope"), "", v);
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
read_token_type(OvReader *r)
{
	const OvJson *v = ov_response_field(r, "fields", "token_type", "/token_type");
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
bool
ov_read_captured(OvReader *r)
{
	const OvJson *capture = ov_json_get(r->rules, "capture");
	OvStr		s;

	if (capture == NULL)
		return true;
	ov_str_init(&s, r->arena);
	ov_str_putc(&s, '{');
	for (const OvJson *c = capture->child; c != NULL; c = c->next)
	{
		const OvJson *v = ov_lookup(r, c->str);
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
read_subject(OvReader *r)
{
	const char *rule = ov_json_get_string(r->provider->rules, "subject");
	OvValues	values = {.provider = r->provider, .response = r->root};
	char	   *subject;

	if (rule != NULL && ov_template_text(r->arena, &values, rule, &subject, NULL) == OV_OK && subject != NULL &&
		strlen(subject) <= OV_MAX_VARIABLE)
		r->out->subject = subject;
}

/* RFC 6749 section 5.1 */
void
ov_read_tokens(OvReader *r)
{
	OvTokens   *out = r->out;
	const OvJson *access = ov_response_token(r, "access_token", "/access_token");
	const OvJson *refresh = ov_response_token(r, "refresh_token", "/refresh_token");
	const OvJson *id = ov_response_token(r, "id_token", "/id_token");

	if (access == NULL || !token_ok(access, 0x21))
		ov_conclude(r, OV_OUT_MALFORMED, "the answer has no usable access token");
	else if (refresh != NULL && !token_ok(refresh, 0x20))
		ov_conclude(r, OV_OUT_MALFORMED, "the refresh token in the answer is malformed");
	else if (id != NULL && !token_ok(id, 0x21))
		ov_conclude(r, OV_OUT_MALFORMED, "the id token in the answer is malformed");
	else if (!read_token_type(r))
		ov_conclude(r, OV_OUT_MALFORMED, "the answer has no token type that is known");
	else
	{
		out->access_token = access->str;
		out->refresh_token = refresh != NULL ? refresh->str : NULL;
		out->id_token = id != NULL ? id->str : NULL;
		if (!ov_read_expiry(r, "expiry", access->str, &out->expires_at) ||
			!ov_read_expiry(r, "refresh_expiry", out->refresh_token, &out->refresh_expires_at))
			ov_conclude(r, OV_OUT_MALFORMED, "the expiry in the answer is malformed");
		else if (!read_scopes(r))
			ov_conclude(r, OV_OUT_MALFORMED, "the scope in the answer is malformed");
		else if (!ov_read_captured(r))
			ov_conclude(r, OV_OUT_MALFORMED, "the answer names something that the provider's rules do not allow");
		else
		{
			/* a lifetime in the rules is that of a token that did come */
			if (out->refresh_token == NULL && !r->refreshing)
				out->refresh_expires_at = 0;
			read_subject(r);
			out->outcome = OV_OUT_OK;
		}
	}
	if (r->duplicate)
		ov_conclude(r, OV_OUT_MALFORMED, "the answer has a member twice");
}
