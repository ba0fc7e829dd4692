/*
 * provider.c
 *	  What a loaded provider says of itself: hosts, issuer, callback, API.
 */
#include "core/provider_internal.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* ---- hosts ---- */

typedef struct Hosts
{
	OvArena    *arena;
	const OvProvider *provider;
	const char **list;
	int			n;
	int			max;
} Hosts;

static OvCode
add_host(Hosts *h, const char *text, bool is_url, OvError *err)
{
	char	   *host;
	OvCode		code;

	if (text == NULL)
		return OV_OK;
	if (h->n == h->max)
		return ov_fail(err, OV_E_LIMIT, "the provider's rules name too many hosts");
	if ((code = ov_template_host(h->arena, h->provider, text, is_url, &host, err)) == OV_OK)
		h->list[h->n++] = host;
	return code;
}

static int
by_bytes(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/*
 * The authorization endpoint is not among them: no secret goes there.  Neither
 * is an API base that comes with the tokens: it is checked against api.hosts,
 * which are fixed before a grant is made, each time it is used.
 */
OvCode
ov_provider_hosts(OvArena *arena, const OvProvider *p, const char *const **hosts, int *nhosts,
				  unsigned char digest[32], OvError *err)
{
	const OvJson *api_hosts = ov_json_get(p->api, "hosts");
	const char *base = ov_json_get_string(p->api, "base");
	Hosts		h = {arena, p, NULL, 0, 10 + (api_hosts != NULL ? api_hosts->count : 0)};
	OvStr		lines;
	int			unique = 0;
	OvCode		code;

	h.list = ov_arena_alloc(arena, sizeof(char *) * (size_t) (h.max + 1));
	if ((code = add_host(&h, p->token_url, true, err)) != OV_OK ||
		(code = add_host(&h, ov_json_get_string(p->token, "url"), true, err)) != OV_OK ||
		(code = add_host(&h, ov_json_get_string(p->post_exchange, "url"), true, err)) != OV_OK ||
		(code = add_host(&h, ov_json_get_string(p->lookup, "url"), true, err)) != OV_OK ||
		(code = add_host(&h, ov_json_get_string(p->refresh, "url"), true, err)) != OV_OK ||
		(code = add_host(&h, ov_provider_can_revoke(p) ? p->revocation_url : NULL, true, err)) != OV_OK ||
		(code = add_host(&h, ov_json_get_string(ov_json_get(p->revocation, "refresh_token"), "url"), true, err)) != OV_OK ||
		(code = add_host(&h, ov_json_get_string(ov_json_get(p->revocation, "access_token"), "url"), true, err)) != OV_OK ||
		(code = add_host(&h, base != NULL && base[0] != '{' ? base : NULL, true, err)) != OV_OK)
		return code;
	for (const OvJson *e = api_hosts != NULL ? api_hosts->child : NULL; e != NULL; e = e->next)
		if ((code = add_host(&h, e->str, false, err)) != OV_OK)
			return code;

	qsort(h.list, (size_t) h.n, sizeof(char *), by_bytes);
	ov_str_init(&lines, arena);
	for (int i = 0; i < h.n; i++)
	{
		if (unique > 0 && strcmp(h.list[i], h.list[unique - 1]) == 0)
			continue;
		h.list[unique++] = h.list[i];
		if (unique > 1)
			ov_str_putc(&lines, '\n');
		ov_str_puts(&lines, h.list[unique - 1]);
	}
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	ov_sha256(lines.data, lines.len, digest);
	*hosts = h.list;
	*nhosts = unique;
	return OV_OK;
}

/* ---- what it can do ---- */

bool
ov_provider_uses_pkce(const OvProvider *p)
{
	return p->pkce;
}

bool
ov_provider_can_refresh(const OvProvider *p)
{
	return strcmp(ov_rule_text(p->refresh, "strategy", "standard"), "none") != 0;
}

bool
ov_provider_needs_code(const OvProvider *p)
{
	return strcmp(ov_rule_text(p->token, "grant", "authorization_code"), "authorization_code") == 0;
}

bool
ov_provider_has_post_exchange(const OvProvider *p)
{
	return p->post_exchange != NULL;
}

bool
ov_provider_has_lookup(const OvProvider *p)
{
	return p->lookup != NULL;
}

bool
ov_provider_lookup_required(const OvProvider *p)
{
	return p->lookup != NULL && ov_rule_flag(p->lookup, "required", true);
}

bool
ov_provider_renews_itself(const OvProvider *p)
{
	const char *strategy = ov_rule_text(p->refresh, "strategy", "standard");

	return strcmp(strategy, "exchange") == 0 || strcmp(strategy, "client_credentials") == 0;
}

bool
ov_provider_keeps_redirect_uri(const OvProvider *p)
{
	const OvJson *params = ov_json_get(p->refresh, "params");

	for (const OvJson *m = params != NULL ? params->child : NULL; m != NULL; m = m->next)
		if (strstr(m->str, "{redirect_uri}") != NULL)
			return true;
	return false;
}

int64_t
ov_provider_min_age(const OvProvider *p)
{
	int64_t		seconds = 0;

	(void) ov_json_int64(ov_json_get(p->refresh, "min_age"), false, &seconds);
	return seconds;
}

OvCode
ov_provider_shared_key(OvArena *arena, const OvProvider *p, char **key, OvError *err)
{
	const char *rule = ov_json_get_string(p->refresh, "shared_key");
	OvValues	values = {.provider = p};

	*key = NULL;
	return rule != NULL ? ov_template_text(arena, &values, rule, key, err) : OV_OK;
}

bool
ov_provider_names_subject(const OvProvider *p)
{
	return ov_json_get_string(p->rules, "subject") != NULL;
}

const char *
ov_provider_subject(OvArena *arena, const OvProvider *p)
{
	const char *rule = ov_json_get_string(p->rules, "subject");
	OvValues	values = {.provider = p};
	char	   *subject;

	if (rule == NULL || ov_template_text(arena, &values, rule, &subject, NULL) != OV_OK ||
		subject == NULL || strlen(subject) > OV_MAX_VARIABLE)
		return NULL;
	return subject;
}

const char *
ov_provider_slot(OvArena *arena, const OvProvider *p, int i, char **variables)
{
	const OvJson *slots = ov_json_get(p->rules, "slots");
	const OvJson *slot = slots != NULL ? slots->child : NULL;
	OvStr		s;

	for (; slot != NULL && i > 0; i--)
		slot = slot->next;
	if (slot == NULL)
		return NULL;
	ov_str_init(&s, arena);
	ov_json_write(&s, slot);
	*variables = s.data;
	return slot->key;
}

bool
ov_provider_can_revoke(const OvProvider *p)
{
	if (p->revocation == NULL)
		return p->revocation_url != NULL;
	if (ov_json_get(p->revocation, "absent") != NULL)
		return false;
	for (const OvJson *m = p->revocation->child; m != NULL; m = m->next)
		if (strcmp(m->key, "refresh_token") == 0 || strcmp(m->key, "access_token") == 0)
			if (p->revocation_url != NULL || ov_json_get(m, "url") != NULL)
				return true;
	return false;
}

OvRevocationEnds
ov_provider_revocation_ends(const OvProvider *p)
{
	const char *ends = ov_rule_text(p->revocation, "ends", "grant");

	return strcmp(ends, "person") == 0 ? OV_ENDS_PERSON : strcmp(ends, "token") == 0 ? OV_ENDS_TOKEN : OV_ENDS_GRANT;
}

/*
 * A refresh token that never changes or that is honoured again for a while can
 * be sent again without harm; one that is good for a single use cannot.
 */
bool
ov_provider_retry_in_doubt(const OvProvider *p)
{
	int64_t		grace = 0;

	if (ov_json_get(p->refresh, "retry_in_doubt") != NULL)
		return ov_rule_flag(p->refresh, "retry_in_doubt", false);
	(void) ov_json_int64(ov_json_get(p->refresh, "grace"), false, &grace);
	return grace > 0 || strcmp(ov_rule_text(p->refresh, "rotates", "sometimes"), "never") == 0;
}

const char *
ov_provider_issuer(const OvProvider *p)
{
	return p->issuer;
}

/* RFC 9207 section 2.4: simple string comparison; required once the server has promised it */
OvCode
ov_check_iss(const OvProvider *p, const char *iss, OvError *err)
{
	bool		match;
	OvCode		code;

	if (p->issuer_open)
		return ov_fail(err, OV_E_CONFIG, "a variable of the provider's issuer has no value");
	if (iss == NULL)
	{
		if (p->iss_required)
			return ov_fail(err, OV_E_DENIED, "the authorization response does not name its issuer");
		return OV_OK;
	}
	if (p->issuer != NULL)
	{
		if (strcmp(p->issuer, iss) != 0)
			return ov_fail(err, OV_E_DENIED, "the authorization response comes from another issuer");
		return OV_OK;
	}
	if (p->issuer_pattern == NULL)
		return OV_OK;			/* nothing to compare with */
	if ((code = ov_pattern_match(p->issuer_pattern, iss, &match, err)) != OV_OK)
		return code;
	if (!match)
		return ov_fail(err, OV_E_DENIED, "the authorization response comes from another issuer");
	return OV_OK;
}

OvCode
ov_provider_begin_params(const OvProvider *p, const OvJson *params, OvError *err)
{
	if (params == NULL)
		return OV_OK;
	if (params->type != OV_JSON_OBJECT || !ov_json_no_duplicates(params))
		return ov_fail(err, OV_E_SYNTAX, "the parameters are not a JSON object with every member once");
	for (const OvJson *m = params->child; m != NULL; m = m->next)
	{
		const Variable *v = ov_variable(p, m->key);
		OvCode		code;

		if (v == NULL || !ov_variable_has_source(v->rule, "begin"))
			return ov_fail(err, OV_E_DENIED, "parameter \"%.60s\" cannot be given here", m->key);
		if (m->type != OV_JSON_STRING)
			return ov_fail(err, OV_E_SYNTAX, "parameter \"%.60s\" is not a string", m->key);
		if ((code = ov_variable_check(v->rule, v->name, m->str, err)) != OV_OK)
			return code;
	}
	return OV_OK;
}

/* ---- callback ---- */

const char *
ov_callback_code(OvArena *arena, const OvProvider *p, const OvParam *params)
{
	const char *name = ov_rule_text(p->callback, "code", "code");
	/* whoever took the callback apart calls it a code, whatever the provider does */
	const char *code = ov_param(params, ov_param_count(params, name) > 0 ? name : "code");
	const char *strip = ov_json_get_string(p->callback, "code_strip");
	size_t		n,
				m;

	if (code == NULL)
		return NULL;
	n = strlen(code);
	m = strip != NULL ? strlen(strip) : 0;
	if (m > 0 && n > m && strcmp(code + n - m, strip) == 0)
		n -= m;
	return ov_arena_strndup(arena, code, n);
}

static int
by_name(const void *a, const void *b)
{
	return strcmp((*(const OvParam *const *) a)->name, (*(const OvParam *const *) b)->name);
}

/*
 * The named hook "sorted_query_hmac": hmac is the hexadecimal HMAC-SHA256, keyed
 * with the client secret, of all other parameters, sorted and form-encoded.
 */
static OvCode
check_sorted_query_hmac(OvArena *arena, const OvClient *client, const OvParam *params, OvError *err)
{
	const OvParam **sorted;
	const char *given = ov_param(params, "hmac");
	unsigned char mac[32];
	const char *want;
	OvStr		query;
	int			n = 0,
				i = 0;
	bool		same;

	if (given == NULL || ov_param_count(params, "hmac") != 1 || client->client_secret == NULL)
		return ov_fail(err, OV_E_AUTH, "the callback is not signed");
	for (const OvParam *p = params; p != NULL; p = p->next)
		n++;
	sorted = ov_arena_alloc(arena, sizeof(OvParam *) * (size_t) n);
	for (const OvParam *p = params; p != NULL; p = p->next)
		if (strcmp(p->name, "hmac") != 0 && strcmp(p->name, "signature") != 0)
			sorted[i++] = p;
	qsort(sorted, (size_t) i, sizeof(OvParam *), by_name);
	ov_str_init(&query, arena);
	for (n = 0; n < i; n++)
		ov_form_pair(&query, sorted[n]->name, sorted[n]->value);
	ov_hmac_sha256(client->client_secret, strlen(client->client_secret), query.data, query.len, mac);
	want = ov_hex(arena, mac, sizeof(mac));
	same = strlen(given) == 64 && CRYPTO_memcmp(given, want, 64) == 0;
	OPENSSL_cleanse(mac, sizeof(mac));
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	return same ? OV_OK : ov_fail(err, OV_E_AUTH, "the signature of the callback does not match");
}

OvCode
ov_callback_capture(OvArena *arena, const OvProvider *p, const OvClient *client, const OvParam *params,
					char **captured, OvError *err)
{
	const OvJson *capture = ov_json_get(p->callback, "capture");
	OvStr		out;
	OvCode		code;

	*captured = NULL;
	if (ov_json_get(p->callback, "signature") != NULL &&
		(code = check_sorted_query_hmac(arena, client, params, err)) != OV_OK)
		return code;
	ov_str_init(&out, arena);
	ov_str_putc(&out, '{');
	for (const OvJson *c = capture != NULL ? capture->child : NULL; c != NULL; c = c->next)
	{
		const char *param = ov_json_get_string(c, "param");
		const char *value = ov_param(params, param);
		const Variable *v = ov_variable(p, c->key);

		/* RFC 6749 section 3.1: a parameter stands once */
		if (ov_param_count(params, param) > 1)
			return ov_fail(err, OV_E_SYNTAX, "the callback has \"%s\" twice", param);
		if (value == NULL || value[0] == '\0')
		{
			if (ov_rule_flag(c, "required", false))
				return ov_fail(err, OV_E_SYNTAX, "the callback lacks \"%s\"", param);
			continue;
		}
		if (strlen(value) > OV_MAX_VARIABLE)
			return ov_fail(err, OV_E_LIMIT, "the callback's \"%s\" is too long", param);
		if (v != NULL)
		{
			if ((code = ov_variable_check(v->rule, v->name, value, err)) != OV_OK)
				return code;
			/* The answer must be about what was asked for. */
			if (ov_variable_has_source(v->rule, "begin") && v->value != NULL && strcmp(v->value, value) != 0)
				return ov_fail(err, OV_E_DENIED, "the callback's \"%s\" is not the one the flow began with", param);
		}
		if (out.len > 1)
			ov_str_putc(&out, ',');
		ov_json_quote(&out, c->key, strlen(c->key));
		ov_str_putc(&out, ':');
		ov_json_quote(&out, value, strlen(value));
	}
	ov_str_putc(&out, '}');
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	*captured = out.data;
	return OV_OK;
}

/* ---- API ---- */

/* Is host[:port] one of these, or below a *.domain among them? */
static bool
host_listed(const char *const *hosts, int n, const char *host)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(hosts[i], host) == 0)
			return true;
		if (strncmp(hosts[i], "*.", 2) == 0 && strlen(host) > strlen(hosts[i]) - 1 &&
			strcmp(host + strlen(host) - (strlen(hosts[i]) - 1), hosts[i] + 1) == 0)
			return true;
	}
	return false;
}

/* RFC 6750 section 5.3: a token goes to no host but those of its provider's rules. */
static OvCode
api_base(OvArena *arena, const OvProvider *p, const OvValues *values, char **base, OvError *err)
{
	const char *rule = ov_json_get_string(p->api, "base");
	const char *const *hosts;
	unsigned char digest[32];
	char	   *host;
	int			n;
	OvError		why;
	OvCode		code;

	*base = NULL;
	if (rule == NULL)
		return OV_OK;
	if ((code = ov_template_url(arena, values, rule, base, &why)) == OV_E_CONFIG)
		return OV_OK;			/* a variable that this grant does not have */
	if (code != OV_OK)
		return ov_fail(err, code, "%s", why.message);
	if ((code = ov_template_host(arena, p, *base, true, &host, err)) != OV_OK ||
		(code = ov_provider_hosts(arena, p, &hosts, &n, digest, err)) != OV_OK)
		return code;
	if (!host_listed(hosts, n, host))
		return ov_fail(err, OV_E_DENIED, "the API's host \"%s\" is none of the provider's hosts", host);
	return OV_OK;
}

static bool
header_safe(const char *value)
{
	for (; *value != '\0'; value++)
		if (*value < 0x20 || *value > 0x7e)
			return false;
	return true;
}

static void
member(OvStr *out, const char *key, const char *value)
{
	if (out->data[out->len - 1] != '{')
		ov_str_putc(out, ',');
	ov_json_quote(out, key, strlen(key));
	ov_str_putc(out, ':');
	if (value == NULL)
		ov_str_puts(out, "null");
	else
		ov_json_quote(out, value, strlen(value));
}

OvCode
ov_api_credential(OvArena *arena, const OvProvider *p, const char *client_id, const char *access_token,
				  const char *token_type, char **json, OvError *err)
{
	OvClient	client = {client_id, NULL};
	const OvJson *header = ov_json_get(p->api, "header");
	const OvJson *headers = ov_json_get(p->api, "headers");
	OvValues	values = {.provider = p, .client = &client, .access_token = access_token,
	.token_type = token_type != NULL ? token_type : "Bearer"};
	char	   *value,
			   *base;
	OvStr		out;
	OvCode		code;

	/* RFC 6750 section 2.1 */
	if ((code = ov_template_text(arena, &values, ov_rule_text(header, "value", "{token_type} {access_token}"), &value, err)) != OV_OK ||
		(code = api_base(arena, p, &values, &base, err)) != OV_OK)
		return code;
	if (value == NULL || !header_safe(value))
		return ov_fail(err, OV_E_DENIED, "the token cannot stand in a header");
	ov_str_init(&out, arena);
	ov_str_putc(&out, '{');
	member(&out, "header_name", ov_rule_text(header, "name", "Authorization"));
	member(&out, "header_value", value);
	member(&out, "api_base", base);
	ov_str_puts(&out, ",\"headers\":{");
	for (const OvJson *h = headers != NULL ? headers->child : NULL; h != NULL; h = h->next)
	{
		if ((code = ov_template_text(arena, &values, h->str, &value, err)) != OV_OK)
			return code;
		if (value != NULL && !header_safe(value))
			return ov_fail(err, OV_E_DENIED, "header \"%s\" has a value that cannot stand there", h->key);
		if (value != NULL)
			member(&out, h->key, value);
	}
	ov_str_puts(&out, "}}");
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	*json = out.data;
	return OV_OK;
}
