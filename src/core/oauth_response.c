/*
 * oauth_response.c
 *	  What a token or revocation endpoint's answer means.
 *
 * Fails closed: only HTTP 200 with a JSON object (or a form, where the rules
 * say so) that holds a usable access token is a success; everything else is
 * one outcome of the enum, and nothing of the answer is kept.  The provider's
 * rules are asked first, then RFC 6749 section 5.2, then the status.
 *
 * Provider text leaves here only through ov_clean_text(), and whatever is read
 * that is not a token from a copy without secrets (oauth_withhold.c).
 */
#include "core/oauth_response.h"

#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define MAX_RETRY_AFTER 86400

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

void
ov_conclude(OvReader *r, OvOutcome outcome, const char *fmt,...)
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
lookup_in(OvReader *r, const OvJson *v, const char *pointer)
{
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

const OvJson *
ov_lookup(OvReader *r, const char *pointer)
{
	return lookup_in(r, r->root, pointer);
}

/* A member of the answer; null counts as absent */
const OvJson *
ov_response_field(OvReader *r, const char *section, const char *name, const char *otherwise)
{
	const OvJson *v = ov_lookup(r, ov_rule_text(ov_json_get(r->rules, section), name, otherwise));

	return v != NULL && v->type != OV_JSON_NULL ? v : NULL;
}

const OvJson *
ov_response_token(OvReader *r, const char *name, const char *otherwise)
{
	const OvJson *v = lookup_in(r, r->tokens, ov_rule_text(ov_json_get(r->rules, "fields"), name, otherwise));

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
form_allowed(const OvReader *r)
{
	const OvJson *formats = ov_json_get(r->rules, "formats");

	for (const OvJson *f = formats != NULL ? formats->child : NULL; f != NULL; f = f->next)
		if (strcmp(f->str, "form") == 0)
			return true;
	return false;
}

/* A form body as an object of strings; a name that stands twice is refused */
static const OvJson *
form_object(OvReader *r)
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

/* The body's object, or array where that will do; NULL, with the reason, when there is none */
static const OvJson *
parse_body(OvReader *r, bool array, char *why, size_t size)
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
		else if (root->type != OV_JSON_OBJECT && !(array && root->type == OV_JSON_ARRAY))
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

/*
 * Takes the document: r->tokens for the tokens, r->root for everything else.
 * Which strings are secret is judged before anything of it is quoted.
 */
static void
take_document(OvReader *r, const OvJson *document)
{
	static const char *const names[] = {"access_token", "refresh_token", "id_token"};
	static const char *const usual[] = {"/access_token", "/refresh_token", "/id_token"};
	const char *path = ov_json_get_string(r->rules, "path");
	const char *secrets[3 + OV_MAX_SENT + 1];
	int			n = 0;

	r->root = r->tokens = document;
	if (document == NULL)
		return;
	if (path != NULL && (r->tokens = lookup_in(r, document, path)) == NULL)
		r->tokens = document;
	for (int i = 0; i < 3; i++)
	{
		const OvJson *v = ov_response_token(r, names[i], usual[i]);

		if (v != NULL && v->type == OV_JSON_STRING && v->len > 0)
			secrets[n++] = v->str;
	}
	for (int i = 0; i < OV_MAX_SENT; i++)
		if (r->resp->secrets[i] != NULL && r->resp->secrets[i][0] != '\0')
			secrets[n++] = r->resp->secrets[i];
	secrets[n] = NULL;
	r->root = ov_withhold(r->arena, document, false, secrets);
	r->duplicate = false;		/* noted again by whoever reads the member */
}

/* ---- Retry-After ---- */

int64_t
ov_answer_date(const OvHttpResponse *resp)
{
	return resp->date != NULL && strlen(resp->date) <= 40 ? (int64_t) curl_getdate(resp->date, NULL) : -1;
}

/* RFC 9110 section 10.2.3: seconds or a date; against the server's own clock where it tells it */
int64_t
ov_retry_after(const OvHttpResponse *resp, int64_t now)
{
	const char *s = resp->retry_after;
	int64_t		n = 0;
	int64_t		from;
	time_t		at;

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
	from = ov_answer_date(resp);
	n = (int64_t) at - (from != -1 ? from : now);
	return n < 0 ? 0 : n > MAX_RETRY_AFTER ? MAX_RETRY_AFTER : n;
}

/* ---- errors ---- */

bool
ov_same_scalar(const OvJson *a, const OvJson *b)
{
	return a->type == b->type &&
		((a->type != OV_JSON_STRING && a->type != OV_JSON_NUMBER) || strcmp(a->str, b->str) == 0);
}

static bool
entry_matches(OvReader *r, const OvJson *entry)
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
	v = ov_lookup(r, pointer);
	if (v == NULL || v->type == OV_JSON_NULL)
		return false;
	if (values == NULL && pattern == NULL)
		return true;
	for (const OvJson *want = values != NULL ? values->child : NULL; want != NULL; want = want->next)
		if (ov_same_scalar(v, want))
			return true;
	return pattern != NULL && (v->type == OV_JSON_STRING || v->type == OV_JSON_NUMBER) &&
		ov_pattern_match(pattern, v->str, &found, NULL) == OV_OK && found;
}

/* The rules' own errors, in order */
static const OvJson *
mapped_error(OvReader *r)
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
quote_error(OvReader *r)
{
	const OvJson *code = ov_response_field(r, "error", "code", "/error");
	const OvJson *text = ov_response_field(r, "error", "description", "/error_description");

	if (code != NULL && (code->type == OV_JSON_STRING || code->type == OV_JSON_NUMBER))
		r->out->error = ov_clean_text(r->arena, code->str, code->len);
	if (text != NULL && text->type == OV_JSON_STRING)
		r->out->error_description = ov_clean_text(r->arena, text->str, text->len);
}

static bool
conclude_mapped(OvReader *r)
{
	const OvJson *e = mapped_error(r);

	if (e == NULL)
		return false;
	ov_conclude(r, outcome_named(ov_json_get_string(e, "outcome")), "%.120s",
			 ov_rule_text(e, "reason", r->out->error != NULL ? r->out->error : "an error of the provider's own"));
	return true;
}

/* An error object, by its code: the rules have been asked already. */
static void
conclude_error(OvReader *r)
{
	const OvJson *code = ov_response_field(r, "error", "code", "/error");

	if (code == NULL || code->type != OV_JSON_STRING || code->len == 0 || code->len > 200 || r->duplicate)
	{
		ov_conclude(r, OV_OUT_MALFORMED, "the error in the answer has no usable code (status %d)", r->resp->status);
		return;
	}
	for (size_t i = 0; i < sizeof(standard_errors) / sizeof(standard_errors[0]); i++)
		if (strcmp(standard_errors[i].code, code->str) == 0)
		{
			ov_conclude(r, standard_errors[i].outcome, "%s", standard_errors[i].reason);
			return;
		}
	ov_conclude(r, OV_OUT_DENIED, "the provider refuses: %.80s", r->out->error);
}

/* Everything but a success, for both endpoints; status 200 does not come here. */
void
ov_conclude_status(OvReader *r, const char *why)
{
	int			status = r->resp->status;
	const OvJson *code;

	if (conclude_mapped(r))
		return;
	if (status == 408 || status == 429 || status >= 500)
	{
		ov_conclude(r, OV_OUT_TRANSIENT, "the provider answers with status %d", status);
		return;
	}
	/* RFC 6749 section 5.2: 400, or 401 for the client's authentication */
	code = r->root != NULL ? ov_response_field(r, "error", "code", "/error") : NULL;
	if ((status == 400 || status == 401) && code != NULL)
		conclude_error(r);
	else if (status == 401 && (r->root != NULL || r->resp->body_len == 0))
		ov_conclude(r, OV_OUT_MISCONFIGURED, "the provider does not accept the client's credentials (status 401)");
	else if (status == 400 || status == 401)
		ov_conclude(r, OV_OUT_MALFORMED, "unparseable error response (status %d): %.60s", status,
				 why[0] != '\0' ? why : "no error in it");
	else
		ov_conclude(r, OV_OUT_MALFORMED, "the provider answers with status %d", status);
}

/* Transport failures and answers that are cut short say nothing about the grant. */
bool
ov_begin_reading(OvReader *r, OvArena *arena, const OvProvider *p, const OvJson *rules, const OvHttpResponse *resp,
				 int64_t now, OvTokens *out)
{
	memset(out, 0, sizeof(*out));
	*r = (OvReader) {.arena = arena, .provider = p, .rules = rules, .resp = resp, .now = now, .out = out};
	out->retry_after = ov_retry_after(resp, now);
	if (resp->transport_error == NULL && resp->status != 0)
		return true;
	ov_conclude(r, OV_OUT_TRANSIENT, "no answer: %.100s",
			 resp->transport_error != NULL ?
			 ov_clean_text(arena, resp->transport_error, strlen(resp->transport_error)) : "unknown reason");
	return false;
}

bool
ov_take_body(OvReader *r, bool array, char *why, size_t size)
{
	take_document(r, parse_body(r, array, why, size));
	if (r->root != NULL)
		quote_error(r);
	return r->root != NULL;
}

/* The rules' predicate for bodies that say in themselves whether they are a success */
static bool
succeeded(OvReader *r)
{
	const OvJson *rule = ov_json_get(r->rules, "success");
	const OvJson *v;

	if (rule == NULL)
		return true;
	v = ov_lookup(r, ov_json_get_string(rule, "pointer"));
	return v != NULL && ov_same_scalar(v, ov_json_get(rule, "equals"));
}

/* An error beside the tokens; not a member that has just said that there is none */
static bool
has_error(OvReader *r)
{
	const char *success = ov_json_get_string(ov_json_get(r->rules, "success"), "pointer");
	const char *code = ov_rule_text(ov_json_get(r->rules, "error"), "code", "/error");

	return (success == NULL || strcmp(success, code) != 0) && ov_response_field(r, "error", "code", "/error") != NULL;
}

static void
token_response(OvArena *arena, const OvProvider *p, const OvJson *rules, const OvHttpResponse *resp, bool is_refresh,
			   int64_t now, OvTokens *out)
{
	OvReader		r;
	const OvJson *document;
	const char *path;
	char		why[128];

	if (!ov_begin_reading(&r, arena, p, rules, resp, now, out))
		return;
	r.refreshing = is_refresh;
	(void) ov_take_body(&r, false, why, sizeof(why));
	document = r.root;
	if (resp->status != 200)
	{
		ov_conclude_status(&r, why);
		return;
	}
	if (r.root == NULL)
	{
		ov_conclude(&r, OV_OUT_MALFORMED, "%s", why);
		return;
	}
	/* Some providers answer 200 to everything. */
	if (!succeeded(&r) || has_error(&r))
	{
		bool		token = ov_response_token(&r, "access_token", "/access_token") != NULL;

		if (token && succeeded(&r))
			ov_conclude(&r, OV_OUT_MALFORMED, "the answer has both an error and a token");
		else if (!conclude_mapped(&r))
			conclude_error(&r);
		return;
	}
	path = ov_json_get_string(r.rules, "path");
	if (path != NULL)
	{
		r.root = ov_lookup(&r, path);
		/* take_document() has looked for the tokens at the top then, too */
		if (r.root == NULL && ov_rule_flag(r.rules, "path_optional", false))
			r.root = document;
	}
	if (r.root == NULL || r.root->type != OV_JSON_OBJECT)
	{
		r.root = document;
		if (!conclude_mapped(&r))
			ov_conclude(&r, OV_OUT_MALFORMED, "the answer has no token object");
		return;
	}
	ov_read_tokens(&r);
	if (ov_arena_failed(arena))
		ov_conclude(&r, OV_OUT_TRANSIENT, "out of memory");
}

void
ov_token_response(OvArena *arena, const OvProvider *p, const OvHttpResponse *resp, bool is_refresh, int64_t now,
				  OvTokens *out)
{
	token_response(arena, p, is_refresh ? p->refresh_response : p->response, resp, is_refresh, now, out);
}

/* Both have come from ov_read_captured(). */
static const char *
merge_captured(OvArena *arena, const char *base, const char *more)
{
	const OvJson *a,
			   *b;
	OvStr		s;

	if (base == NULL || more == NULL || ov_json_parse(arena, base, strlen(base), &a, NULL) != OV_OK ||
		ov_json_parse(arena, more, strlen(more), &b, NULL) != OV_OK)
		return base != NULL ? base : more;
	ov_str_init(&s, arena);
	ov_json_write(&s, ov_json_merge_patch(arena, a, b));
	return s.data;
}

void
ov_post_exchange_response(OvArena *arena, const OvProvider *p, const OvHttpResponse *resp, int64_t now, OvTokens *out)
{
	OvTokens	first = *out;

	token_response(arena, p, p->post_response, resp, false, now, out);
	if (out->outcome != OV_OUT_OK)
		return;
	if (out->refresh_token == NULL)
	{
		out->refresh_token = first.refresh_token;
		out->refresh_expires_at = first.refresh_expires_at;
	}
	if (out->id_token == NULL)
		out->id_token = first.id_token;
	if (out->scopes == NULL)
	{
		out->scopes = first.scopes;
		out->nscopes = first.nscopes;
	}
	if (out->subject == NULL)
		out->subject = first.subject;
	out->captured = merge_captured(arena, first.captured, out->captured);
}

/*
 * RFC 7009 section 2.2: 200 means gone.  Some providers have other words for it,
 * and some say with 200 that they did not do it.
 */
void
ov_revoke_response(OvArena *arena, const OvProvider *p, const OvHttpResponse *resp, OvTokens *out)
{
	OvReader		r;
	const OvJson *statuses = ov_json_get(p->revocation, "status");
	bool		good;
	int64_t		n;
	char		why[128];

	if (!ov_begin_reading(&r, arena, p, p->revocation, resp, (int64_t) time(NULL), out))
		return;
	take_document(&r, parse_body(&r, false, why, sizeof(why)));
	good = statuses == NULL && resp->status == 200;
	for (const OvJson *s = statuses != NULL ? statuses->child : NULL; s != NULL && !good; s = s->next)
		good = ov_json_int64(s, false, &n) && n == resp->status;
	if (good && ov_json_get(p->revocation, "success") == NULL && (r.root == NULL || !has_error(&r)))
	{
		ov_conclude(&r, OV_OUT_OK, "revoked");
		return;
	}
	if (r.root != NULL)
		quote_error(&r);
	if (good && ov_json_get(p->revocation, "success") != NULL && r.root != NULL && succeeded(&r))
		ov_conclude(&r, OV_OUT_OK, "revoked");
	else if (!good)
		ov_conclude_status(&r, why);
	else if (r.root == NULL)
		ov_conclude(&r, OV_OUT_MALFORMED, "%s", why);
	else if (!conclude_mapped(&r))
		conclude_error(&r);
}
