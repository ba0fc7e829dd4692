/*
 * oauth_request.c
 *	  The requests of a grant's life: authorization URL, code exchange, refresh,
 *	  revocation, as the provider's rules shape them.
 *
 * Every request is a list of parameters first and takes its form (form, JSON,
 * query) last, so that renames, extras and the check that nothing stands twice
 * (RFC 6749 section 3.2) are the same for all.  Secrets are in the arena only.
 */
#include "core/provider_internal.h"

#include "core/jwt.h"

#include <string.h>
#include <strings.h>
#include <time.h>

#define ASSERTION_LIFE 60

typedef struct Pair
{
	const char *name;
	const char *value;
} Pair;

typedef struct Builder
{
	OvArena    *arena;
	const OvProvider *provider;
	const OvJson *section;		/* the rules of this request, or NULL */
	const OvJson *rename;
	OvValues	values;
	OvClient	client;			/* without the secret when that is a private key */
	const OvJson *key;			/* the private key, or NULL */
	Pair		pairs[48];
	int			npairs;
	OvHttpRequest *req;
	OvError    *err;
} Builder;

/* A parameter under the name that the rules give it; an empty value is no parameter. */
static OvCode
add(Builder *b, const char *name, const char *value)
{
	name = ov_rule_text(b->rename, name, name);
	if (value == NULL || value[0] == '\0' || name[0] == '\0')
		return OV_OK;
	for (int i = 0; i < b->npairs; i++)
		if (strcmp(b->pairs[i].name, name) == 0)
			return ov_fail(b->err, OV_E_CONFIG, "the provider's rules give parameter \"%s\" twice", name);
	if (b->npairs == (int) (sizeof(b->pairs) / sizeof(b->pairs[0])))
		return ov_fail(b->err, OV_E_LIMIT, "the provider's rules give too many parameters");
	b->pairs[b->npairs++] = (Pair) {name, value};
	return OV_OK;
}

/* Extra parameters; one whose placeholder has no value is left out. */
static OvCode
add_extras(Builder *b, const OvJson *params)
{
	const OvJson *rename = b->rename;
	OvCode		code = OV_OK;

	b->rename = NULL;
	for (const OvJson *p = params != NULL ? params->child : NULL; p != NULL && code == OV_OK; p = p->next)
	{
		char	   *value;

		code = ov_template_text(b->arena, &b->values, p->str, &value, b->err);
		if (code == OV_OK)
			code = add(b, p->key, value);
	}
	b->rename = rename;
	return code;
}

static char *
form(Builder *b)
{
	OvStr		s;

	ov_str_init(&s, b->arena);
	for (int i = 0; i < b->npairs; i++)
		ov_form_pair(&s, b->pairs[i].name, b->pairs[i].value);
	return s.data;
}

/* RFC 3986 section 2.1: for servers that read a + as itself */
static char *
percent_encoded(Builder *b)
{
	OvStr		s;

	ov_str_init(&s, b->arena);
	for (int i = 0; i < b->npairs; i++)
	{
		if (i > 0)
			ov_str_putc(&s, '&');
		ov_uri_encode(&s, b->pairs[i].name);
		ov_str_putc(&s, '=');
		ov_uri_encode(&s, b->pairs[i].value);
	}
	return s.data;
}

static char *
json(Builder *b)
{
	OvStr		s;

	ov_str_init(&s, b->arena);
	ov_str_putc(&s, '{');
	for (int i = 0; i < b->npairs; i++)
	{
		if (i > 0)
			ov_str_putc(&s, ',');
		ov_json_quote(&s, b->pairs[i].name, strlen(b->pairs[i].name));
		ov_str_putc(&s, ':');
		ov_json_quote(&s, b->pairs[i].value, strlen(b->pairs[i].value));
	}
	ov_str_putc(&s, '}');
	return s.data;
}

/* ---- authorization request ---- */

static bool
starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* The scopes of one parameter: those with its prefix, or those with nobody's */
static OvCode
join_scopes(Builder *b, const OvBegin *begin, const OvJson *secondary, const char *prefix, char **out)
{
	const char *separator = ov_rule_text(ov_json_get(b->section, "scope"), "separator", " ");
	OvStr		s;

	ov_str_init(&s, b->arena);
	for (int i = 0; i < begin->nscopes; i++)
	{
		const char *scope = begin->scopes[i];
		const char *owner = NULL;

		/* RFC 6749 section 3.3; the separator, where it is another, may not stand in a scope either */
		if (!ov_scope_token_ok(scope) || strstr(scope, separator) != NULL)
			return ov_fail(b->err, OV_E_SYNTAX, "scope \"%s\" is malformed", ov_clean_text(b->arena, scope, strlen(scope)));
		for (const OvJson *o = secondary != NULL ? secondary->child : NULL; o != NULL; o = o->next)
			if (starts_with(scope, o->str))
				owner = o->str;
		if (owner != prefix)
			continue;
		if (s.len > 0)
			ov_str_puts(&s, separator);
		ov_str_puts(&s, scope + (prefix != NULL ? strlen(prefix) : 0));
	}
	*out = s.data;
	return OV_OK;
}

static OvCode
add_scopes(Builder *b, const OvBegin *begin)
{
	const OvJson *rule = ov_json_get(b->section, "scope");
	const OvJson *secondary = ov_json_get(rule, "secondary");
	char	   *joined;
	OvCode		code;

	if ((code = join_scopes(b, begin, secondary, NULL, &joined)) != OV_OK || !ov_rule_flag(rule, "send", true) ||
		(code = add(b, "scope", joined)) != OV_OK)
		return code;
	for (const OvJson *o = secondary != NULL ? secondary->child : NULL; o != NULL && code == OV_OK; o = o->next)
		if ((code = join_scopes(b, begin, secondary, o->str, &joined)) == OV_OK)
			code = add(b, o->key, joined);
	return code;
}

static bool
has_scope(const OvBegin *begin, const char *scope)
{
	for (int i = 0; i < begin->nscopes; i++)
		if (strcmp(begin->scopes[i], scope) == 0)
			return true;
	return false;
}

/* RFC 6749 section 4.1.1, RFC 7636 section 4.3, OpenID Connect Core section 3.1.2.1 */
OvCode
ov_authorization_url(OvArena *arena, const OvProvider *p, const OvBegin *begin, char **url, OvError *err)
{
	OvClient	client = {begin->client_id, NULL};
	Builder		b = {
		.arena = arena, .provider = p, .section = p->authorization,
		.rename = ov_json_get(p->authorization, "rename"),
		.values = {.provider = p, .client = &client}, .err = err
	};
	const OvJson *with_scope = ov_json_get(p->authorization, "with_scope");
	const char *rule = ov_json_get_string(p->authorization, "url");
	char	   *endpoint;
	OvUrl		parsed;
	OvCode		code;

	*url = NULL;
	if (p->issuer_open)
		return ov_fail(err, OV_E_CONFIG, "a variable of the provider's issuer has no value");
	if (begin->state == NULL || begin->state[0] == '\0')
		return ov_fail(err, OV_E_CONFIG, "an authorization request without a state");
	if ((code = ov_url_parse(arena, begin->redirect_uri != NULL ? begin->redirect_uri : "", &parsed, err)) != OV_OK)
		return code;
	/* RFC 6749 section 3.1.2: absolute, without a fragment; https but on loopback */
	if (parsed.fragment != NULL || (strcmp(parsed.scheme, "https") != 0 && !parsed.loopback))
		return ov_fail(err, OV_E_DENIED, "the redirect URI is not https, or has a fragment");
	if (p->pkce && (begin->code_challenge == NULL || strlen(begin->code_challenge) != 43))
		return ov_fail(err, OV_E_CONFIG, "an authorization request without a code challenge");
	if (rule != NULL)
	{
		if ((code = ov_template_url(arena, &b.values, rule, &endpoint, err)) != OV_OK)
			return code;
	}
	else if (p->authorization_url != NULL)
		endpoint = ov_arena_strdup(arena, p->authorization_url);
	else
		return ov_fail(err, OV_E_CONFIG, "the provider has no authorization endpoint");

	if ((code = add(&b, "response_type", "code")) != OV_OK ||
		(code = add(&b, "client_id", begin->client_id)) != OV_OK ||
		(code = add(&b, "redirect_uri", begin->redirect_uri)) != OV_OK ||
		(code = add_scopes(&b, begin)) != OV_OK ||
		(code = add(&b, "state", begin->state)) != OV_OK)
		return code;
	if (p->pkce &&
		((code = add(&b, "code_challenge", begin->code_challenge)) != OV_OK ||
		 (code = add(&b, "code_challenge_method", "S256")) != OV_OK))
		return code;
	if ((code = add(&b, "nonce", begin->nonce)) != OV_OK ||
		(code = add(&b, "login_hint", begin->login_hint)) != OV_OK ||
		(code = add_extras(&b, ov_json_get(p->authorization, "params"))) != OV_OK)
		return code;
	for (const OvJson *s = with_scope != NULL ? with_scope->child : NULL; s != NULL; s = s->next)
		if (has_scope(begin, s->key) && (code = add_extras(&b, s)) != OV_OK)
			return code;
	*url = ov_url_with_query(arena, endpoint, strcmp(ov_rule_text(b.section, "encoding", "form"), "percent") == 0 ?
							 percent_encoded(&b) : form(&b));
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	/* what a browser gets is a URL that we would accept ourselves */
	return ov_check_endpoint(arena, *url, &parsed, err);
}

/* ---- requests to the provider ---- */

static OvCode
add_header(Builder *b, const char *name, const char *value)
{
	OvHttpRequest *req = b->req;

	/* RFC 9110 section 5.5: nothing that could end the line */
	for (const char *c = value; *c != '\0'; c++)
		if (*c < 0x20 || *c > 0x7e)
			return ov_fail(b->err, OV_E_DENIED, "header \"%s\" would have a value that cannot stand there", name);
	for (int i = 0; i < req->nheaders; i++)
		if (strncasecmp(req->headers[i], name, strlen(name)) == 0 && req->headers[i][strlen(name)] == ':')
			return ov_fail(b->err, OV_E_CONFIG, "the provider's rules give header \"%s\" twice", name);
	if (req->nheaders >= (int) (sizeof(req->headers) / sizeof(req->headers[0])) - 1)
		return ov_fail(b->err, OV_E_LIMIT, "the provider's rules give too many headers");
	req->headers[req->nheaders++] = ov_arena_printf(b->arena, "%s: %s", name, value);
	return OV_OK;
}

static OvCode
add_basic(Builder *b, const char *user, const char *password, bool encode)
{
	OvStr		s;

	ov_str_init(&s, b->arena);
	if (encode)
	{
		/* RFC 6749 section 2.3.1: both are form-encoded first */
		ov_form_encode(&s, user);
		ov_str_putc(&s, ':');
		ov_form_encode(&s, password);
	}
	else
	{
		if (strchr(user, ':') != NULL)
			return ov_fail(b->err, OV_E_CONFIG, "a client id with a colon cannot be sent unencoded");
		ov_str_puts(&s, user);
		ov_str_putc(&s, ':');
		ov_str_puts(&s, password);
	}
	return add_header(b, "Authorization", ov_arena_printf(b->arena, "Basic %s", ov_b64(b->arena, s.data, s.len)));
}

/* RFC 7523 section 3: issuer and subject are the client, the audience is the server alone */
static OvCode
add_assertion(Builder *b, const OvJson *key, const char *token_endpoint)
{
	const OvProvider *p = b->provider;
	const char *client_id = b->client.client_id;
	const char *audience = p->issuer;
	const char *rule = ov_json_get_string(p->rules, "assertion_audience");
	const char *jti = ov_random_token(b->arena, 16);
	int64_t		now = (int64_t) time(NULL);
	OvStr		claims;
	char	   *jwt;
	OvCode		code;

	if (audience == NULL || (rule != NULL && strcmp(rule, "token_endpoint") == 0))
		audience = token_endpoint;
	if (audience == NULL)
		return ov_fail(b->err, OV_E_CONFIG, "no audience is known for the client's assertion");
	if (jti == NULL)
		return ov_fail(b->err, OV_E_CRYPTO, "no random bytes");
	ov_str_init(&claims, b->arena);
	ov_str_puts(&claims, "{\"iss\":");
	ov_json_quote(&claims, client_id, strlen(client_id));
	ov_str_puts(&claims, ",\"sub\":");
	ov_json_quote(&claims, client_id, strlen(client_id));
	ov_str_puts(&claims, ",\"aud\":");
	ov_json_quote(&claims, audience, strlen(audience));
	ov_str_printf(&claims, ",\"jti\":\"%s\",\"iat\":%lld,\"exp\":%lld}", jti, (long long) now,
				  (long long) now + ASSERTION_LIFE);
	if ((code = ov_jwt_sign(b->arena, key, "\"typ\":\"JWT\"", claims.data, &jwt, b->err)) != OV_OK ||
		(code = add(b, "client_id", client_id)) != OV_OK ||
		(code = add(b, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")) != OV_OK)
		return code;
	return add(b, "client_assertion", jwt);
}

/* A client secret that is a private JWK stands for private_key_jwt. */
static const OvJson *
private_key(OvArena *arena, const char *secret)
{
	const OvJson *key;

	if (secret == NULL || secret[0] != '{' || ov_json_parse(arena, secret, strlen(secret), &key, NULL) != OV_OK)
		return NULL;
	return ov_json_get_string(key, "kty") != NULL ? key : NULL;
}

static bool
method_allowed(const OvProvider *p, const char *method)
{
	const OvJson *list = ov_json_get(p->rules, "client_auth");

	if (list == NULL)
		list = ov_json_get(p->metadata, "token_endpoint_auth_methods_supported");
	/* RFC 8414 section 2: client_secret_basic is the default */
	if (list == NULL)
		return strcmp(method, "client_secret_basic") == 0;
	for (const OvJson *m = list->child; m != NULL; m = m->next)
		if (strcmp(m->str, method) == 0)
			return true;
	return false;
}

/* The rules' first method that the kind of secret allows; from metadata, basic before post */
static const char *
secret_method(const OvProvider *p)
{
	const OvJson *list = ov_json_get(p->rules, "client_auth");

	for (const OvJson *m = list != NULL ? list->child : NULL; m != NULL; m = m->next)
		if (strncmp(m->str, "client_secret_", 14) == 0)
			return m->str;
	if (list != NULL)
		return NULL;
	return method_allowed(p, "client_secret_basic") ? "client_secret_basic" :
		method_allowed(p, "client_secret_post") ? "client_secret_post" : NULL;
}

/* RFC 6749 section 2.3: one method in a request.  token: what "bearer" and "api" authenticate with. */
static OvCode
authenticate(Builder *b, const char *token, const char *token_endpoint)
{
	const OvProvider *p = b->provider;
	const OvClient *client = &b->client;
	const OvJson *key = b->key;
	const char *method = ov_rule_text(b->section, "auth", "client");
	OvCode		code;

	if (strcmp(method, "none") == 0)
		return OV_OK;
	if (strcmp(method, "bearer") == 0)
		return add_header(b, "Authorization", ov_arena_printf(b->arena, "Bearer %s", token));
	if (strcmp(method, "api") == 0)
	{
		const OvJson *header = ov_json_get(p->api, "header");
		OvValues	values = {.provider = p, .access_token = token, .token_type = "Bearer"};
		char	   *value;

		code = ov_template_text(b->arena, &values, ov_rule_text(header, "value", "{token_type} {access_token}"), &value, b->err);
		if (code == OV_OK && value == NULL)
			code = ov_fail(b->err, OV_E_CONFIG, "the API's header has no value");
		return code != OV_OK ? code : add_header(b, ov_rule_text(header, "name", "Authorization"), value);
	}
	if (strcmp(method, "client") == 0)
	{
		/* RFC 6749 section 3.2.1: a public client names itself */
		if (key != NULL)
			method = method_allowed(p, "private_key_jwt") ? "private_key_jwt" : NULL;
		else if (client->client_secret != NULL)
			method = secret_method(p);
		else
			method = "client_id";
		if (method == NULL)
			return ov_fail(b->err, OV_E_CONFIG, "the provider accepts no client authentication for which there is a %s",
						   key != NULL ? "key" : "secret");
	}
	if (strcmp(method, "client_id") == 0)
		return add(b, "client_id", client->client_id);
	if (strcmp(method, "private_key_jwt") == 0)
		return key != NULL ? add_assertion(b, key, token_endpoint) :
			ov_fail(b->err, OV_E_CONFIG, "the provider wants the client's private key, and there is none");
	if (client->client_secret == NULL)
		return ov_fail(b->err, OV_E_CONFIG, "the provider wants a client secret, and there is none");
	if (strcmp(method, "client_secret_basic") == 0)
		return add_basic(b, client->client_id, client->client_secret, true);
	if (strcmp(method, "client_secret_basic_raw") == 0)
		return add_basic(b, client->client_id, client->client_secret, false);
	if (strcmp(method, "client_secret_user") == 0)
		return add_basic(b, client->client_secret, "", false);
	if ((code = add(b, "client_id", client->client_id)) != OV_OK)
		return code;
	return add(b, "client_secret", client->client_secret);
}

/* The endpoint: the section's own, or the metadata's */
static OvCode
endpoint_of(Builder *b, const OvJson *section, const char *from_metadata, const char *what, char **url)
{
	const char *rule = ov_rule_text(section, "url", NULL);

	if (rule != NULL)
		return ov_template_url(b->arena, &b->values, rule, url, b->err);
	if (from_metadata == NULL)
		return ov_fail(b->err, OV_E_CONFIG, "the provider has no %s endpoint", what);
	*url = ov_arena_strdup(b->arena, from_metadata);
	return OV_OK;
}

/* Extra headers, then the parameters in their form */
static OvCode
finish(Builder *b, const char *endpoint)
{
	const char *format = ov_rule_text(b->section, "format", "form");
	const OvJson *headers = ov_json_get(b->section, "headers");
	OvHttpRequest *req = b->req;
	bool		accept = false;
	OvCode		code;

	for (const OvJson *h = headers != NULL ? headers->child : NULL; h != NULL; h = h->next)
	{
		char	   *value;

		if ((code = ov_template_text(b->arena, &b->values, h->str, &value, b->err)) != OV_OK ||
			(value != NULL && (code = add_header(b, h->key, value)) != OV_OK))
			return code;
		accept = accept || strcasecmp(h->key, "Accept") == 0;
	}
	if (!accept && (code = add_header(b, "Accept", "application/json")) != OV_OK)
		return code;
	req->method = ov_rule_text(b->section, "method", "POST");
	req->url = endpoint;
	if (strcmp(format, "query") == 0)
		req->url = ov_url_with_query(b->arena, endpoint, form(b));
	else if (strcmp(format, "none") != 0)
	{
		bool		as_json = strcmp(format, "json") == 0;

		code = add_header(b, "Content-Type", as_json ? "application/json" : "application/x-www-form-urlencoded");
		if (code != OV_OK)
			return code;
		req->body = as_json ? json(b) : form(b);
		req->body_len = strlen(req->body);
	}
	return ov_arena_failed(b->arena) ? ov_fail(b->err, OV_E_NOMEM, "out of memory") : OV_OK;
}

static void
start(Builder *b, OvArena *arena, const OvProvider *p, const OvJson *section, const OvClient *client, OvHttpRequest *req,
	  OvError *err)
{
	const OvJson *limit = ov_json_get(p->rules, "rate_limit");
	int64_t		n;

	memset(b, 0, sizeof(*b));
	memset(req, 0, sizeof(*req));
	if (ov_json_int64(ov_json_get(limit, "requests"), false, &n))
		req->budget_requests = (int) n;
	if (ov_json_int64(ov_json_get(limit, "seconds"), false, &n))
		req->budget_seconds = (int) n;
	b->arena = arena;
	b->provider = p;
	b->section = section;
	b->rename = ov_json_get(section, "rename");
	b->client = *client;
	b->key = private_key(arena, client->client_secret);
	if (b->key != NULL)
		b->client.client_secret = NULL; /* no template may send it */
	b->values.provider = p;
	b->values.client = &b->client;
	b->req = req;
	b->err = err;
}

/* RFC 6749 appendix A.11: what came through the browser is visible characters and spaces, or no code */
static bool
code_ok(const char *code)
{
	size_t		n = code != NULL ? strlen(code) : 0;

	for (size_t i = 0; i < n; i++)
		if (code[i] < 0x20 || code[i] > 0x7e)
			return false;
	return n > 0 && n <= 4096;
}

/*
 * RFC 6749 section 4.1.3, RFC 7636 section 4.5; or section 4.4.2, where the
 * client's own grant gets the token for what the callback has named.
 */
OvCode
ov_code_request(OvArena *arena, const OvProvider *p, const OvClient *client, const char *code,
				const char *redirect_uri, const char *verifier, OvHttpRequest *req, OvError *err)
{
	Builder		b;
	char	   *url;
	OvCode		rc;

	start(&b, arena, p, p->token, client, req, err);
	if (!ov_provider_needs_code(p))
	{
		if ((rc = endpoint_of(&b, p->token, p->token_url, "token", &url)) != OV_OK ||
			(rc = add(&b, "grant_type", "client_credentials")) != OV_OK ||
			(rc = authenticate(&b, NULL, url)) != OV_OK ||
			(rc = add_extras(&b, ov_json_get(p->token, "params"))) != OV_OK)
			return rc;
		return finish(&b, url);
	}
	if (!code_ok(code))
		return ov_fail(err, OV_E_SYNTAX, "the authorization code is malformed");
	if (p->pkce && verifier == NULL)
		return ov_fail(err, OV_E_CONFIG, "a code exchange without a code verifier");
	b.values.code = code;
	b.values.redirect_uri = redirect_uri;
	b.values.code_verifier = p->pkce ? verifier : NULL;
	if ((rc = endpoint_of(&b, p->token, p->token_url, "token", &url)) != OV_OK ||
		(rc = add(&b, "grant_type", "authorization_code")) != OV_OK ||
		(rc = add(&b, "code", code)) != OV_OK ||
		(rc = add(&b, "redirect_uri", redirect_uri)) != OV_OK ||
		(rc = add(&b, "code_verifier", b.values.code_verifier)) != OV_OK ||
		(rc = authenticate(&b, NULL, url)) != OV_OK ||
		(rc = add_extras(&b, ov_json_get(p->token, "params"))) != OV_OK)
		return rc;
	return finish(&b, url);
}

/*
 * RFC 6749 section 6, or what the provider has instead: another grant with the
 * access token ("exchange") or with the client's own standing.
 */
OvCode
ov_refresh_request(OvArena *arena, const OvProvider *p, const OvClient *client, const char *refresh_token,
				   const char *access_token, OvHttpRequest *req, OvError *err)
{
	Builder		b;
	const char *strategy = ov_rule_text(p->refresh, "strategy", "standard");
	char	   *url;
	OvCode		rc;

	start(&b, arena, p, p->refresh, client, req, err);
	if (strcmp(strategy, "none") == 0)
		return ov_fail(err, OV_E_NOTFOUND, "the provider has no refresh");
	b.values.refresh_token = refresh_token;
	b.values.access_token = access_token;
	b.values.redirect_uri = p->redirect_uri;
	if ((rc = endpoint_of(&b, p->refresh, p->token_url, "token", &url)) != OV_OK)
		return rc;
	if (strcmp(strategy, "standard") == 0)
	{
		if (refresh_token == NULL || refresh_token[0] == '\0')
			return ov_fail(err, OV_E_NOTFOUND, "there is no refresh token");
		if ((rc = add(&b, "grant_type", "refresh_token")) != OV_OK ||
			(rc = add(&b, "refresh_token", refresh_token)) != OV_OK)
			return rc;
	}
	else if (strcmp(strategy, "client_credentials") == 0)
	{
		if ((rc = add(&b, "grant_type", "client_credentials")) != OV_OK)
			return rc;
	}
	else if (access_token == NULL || access_token[0] == '\0')
		return ov_fail(err, OV_E_NOTFOUND, "there is no access token to exchange");
	if ((rc = authenticate(&b, access_token, url)) != OV_OK ||
		(rc = add_extras(&b, ov_json_get(p->refresh, "params"))) != OV_OK)
		return rc;
	return finish(&b, url);
}

/* A call with a new access token, all of which the rules say */
static OvCode
call_request(OvArena *arena, const OvProvider *p, const OvJson *section, const char *what, const OvClient *client,
			 const char *access_token, OvHttpRequest *req, OvError *err)
{
	Builder		b;
	char	   *url;
	OvCode		rc;

	start(&b, arena, p, section, client, req, err);
	if (section == NULL)
		return ov_fail(err, OV_E_NOTFOUND, "the provider has no %s", what);
	b.values.access_token = access_token;
	if ((rc = endpoint_of(&b, section, p->token_url, what, &url)) != OV_OK ||
		(rc = authenticate(&b, access_token, url)) != OV_OK ||
		(rc = add_extras(&b, ov_json_get(section, "params"))) != OV_OK)
		return rc;
	return finish(&b, url);
}

OvCode
ov_post_exchange_request(OvArena *arena, const OvProvider *p, const OvClient *client, const char *access_token,
						 OvHttpRequest *req, OvError *err)
{
	return call_request(arena, p, p->post_exchange, "exchange of a short-lived token", client, access_token, req, err);
}

OvCode
ov_lookup_request(OvArena *arena, const OvProvider *p, const OvClient *client, const char *access_token,
				  OvHttpRequest *req, OvError *err)
{
	return call_request(arena, p, p->lookup, "lookup", client, access_token, req, err);
}

/* RFC 7009 section 2.1 */
OvCode
ov_revoke_request(OvArena *arena, const OvProvider *p, const OvClient *client, const char *kind, const char *token,
				  OvHttpRequest *req, OvError *err)
{
	const OvJson *section = p->revocation != NULL ? ov_json_get(p->revocation, kind) : NULL;
	Builder		b;
	char	   *url,
			   *token_url = NULL;
	OvCode		rc;

	start(&b, arena, p, section, client, req, err);
	if (!ov_provider_can_revoke(p) || (p->revocation != NULL && section == NULL))
		return ov_fail(err, OV_E_NOTFOUND, "the provider has no revocation for this kind of token");
	b.values.token = token;
	if ((rc = endpoint_of(&b, section, p->revocation_url, "revocation", &url)) != OV_OK)
		return rc;
	/* RFC 7523 has one audience for all endpoints: the token endpoint's, where no issuer is known */
	(void) endpoint_of(&b, p->token, p->token_url, "token", &token_url);
	if (strcmp(ov_rule_text(section, "format", "form"), "none") != 0)
	{
		if ((rc = add(&b, "token", token)) != OV_OK ||
			(rc = add(&b, "token_type_hint", kind)) != OV_OK)
			return rc;
	}
	if ((rc = authenticate(&b, token, token_url)) != OV_OK ||
		(rc = add_extras(&b, ov_json_get(section, "params"))) != OV_OK)
		return rc;
	return finish(&b, url);
}
