/*
 * provider_template.c
 *	  Templates of the rules: {placeholder}s in URLs, parameters and headers.
 *
 * A variable reaches a URL only after its pattern matched, and then only as
 * what the place allows: letters, digits, dots and hyphens in the host, percent-
 * encoded in the path and the query.  So no value can add a host, a port, user
 * information, a path segment or a parameter.  A URL that begins with a
 * placeholder takes scheme and host from it: its variable must be an https URL.
 *
 * Secrets (codes, tokens, the client secret) have names of their own, which the
 * check refuses in URLs.
 */
#include "core/provider_internal.h"

#include <string.h>

typedef struct Part
{
	const char *literal;		/* up to the placeholder or the end */
	size_t		literal_len;
	char		name[128];		/* "": none, the text ends */
} Part;

/* Cut the next part off *text; false at the end or at a stray brace (*bad). */
static bool
next_part(const char **text, Part *part, bool *bad)
{
	const char *p = *text;
	const char *close;
	size_t		n;

	*bad = false;
	if (*p == '\0')
		return false;
	part->literal = p;
	part->literal_len = strcspn(p, "{}");
	part->name[0] = '\0';
	p += part->literal_len;
	if (*p == '}')
	{
		*bad = true;
		return false;
	}
	if (*p == '{')
	{
		close = strpbrk(p + 1, "{}");
		n = close != NULL ? (size_t) (close - p - 1) : 0;
		if (close == NULL || *close != '}' || n == 0 || n >= sizeof(part->name))
		{
			*bad = true;
			return false;
		}
		memcpy(part->name, p + 1, n);
		part->name[n] = '\0';
		p = close + 1;
	}
	*text = p;
	return true;
}

/* Which templates may say which name */
static const struct
{
	const char *name;
	int			uses;
}			builtins[] = {
	{"client_id", TEMPLATE_URL | TEMPLATE_REQUEST | TEMPLATE_API},
	{"client_secret", TEMPLATE_REQUEST},
	{"code", TEMPLATE_REQUEST},
	{"redirect_uri", TEMPLATE_REQUEST},
	{"code_verifier", TEMPLATE_REQUEST},
	{"refresh_token", TEMPLATE_REQUEST},
	{"token", TEMPLATE_REQUEST},
	{"access_token", TEMPLATE_REQUEST | TEMPLATE_API},
	{"token_type", TEMPLATE_API},
};

#define NBUILTINS (sizeof(builtins) / sizeof(builtins[0]))

OvCode
ov_template_check(const OvJson *variables, const char *text, TemplateUse use, OvError *err)
{
	const char *all = text;
	Part		part;
	bool		bad;

	while (next_part(&text, &part, &bad))
	{
		bool		found = part.name[0] == '\0' || ov_json_get(variables, part.name) != NULL ||
			(use == TEMPLATE_SUBJECT && part.name[0] == '/');

		for (size_t i = 0; i < NBUILTINS && !found; i++)
			found = strcmp(builtins[i].name, part.name) == 0 && (builtins[i].uses & use) != 0;
		if (!found)
			return ov_fail(err, OV_E_CONFIG, "placeholder \"%s\" is not a variable that may stand in \"%s\"",
						   part.name, all);
	}
	if (bad)
		return ov_fail(err, OV_E_CONFIG, "unbalanced brace in \"%s\"", all);
	return OV_OK;
}

const Variable *
ov_variable(const OvProvider *p, const char *name)
{
	for (int i = 0; i < p->nvariables; i++)
		if (strcmp(p->variables[i].name, name) == 0)
			return &p->variables[i];
	return NULL;
}

OvCode
ov_variable_check(const OvJson *rule, const char *name, const char *value, OvError *err)
{
	bool		match;
	OvCode		code;

	if (strlen(value) > OV_MAX_VARIABLE)
		return ov_fail(err, OV_E_DENIED, "the value of \"%s\" is too long", name);
	code = ov_pattern_match(ov_json_get_string(rule, "pattern"), value, &match, err);
	if (code == OV_OK && !match)
		return ov_fail(err, OV_E_DENIED, "the value of \"%s\" is not of the form that the provider's rules allow", name);
	return code;
}

bool
ov_variable_has_source(const OvJson *rule, const char *source)
{
	const OvJson *sources = ov_json_get(rule, "source");

	for (const OvJson *s = sources != NULL ? sources->child : NULL; s != NULL; s = s->next)
		if (strcmp(s->str, source) == 0)
			return true;
	return sources == NULL && strcmp(source, "connector") == 0;
}

/* A scalar of the response as text; NULL for null, objects and arrays */
static const char *
response_text(const OvJson *response, const char *pointer)
{
	const OvJson *v = response != NULL ? ov_json_at(response, pointer) : NULL;

	if (v == NULL)
		return NULL;
	switch (v->type)
	{
		case OV_JSON_STRING:
			return v->len > 0 ? v->str : NULL;
		case OV_JSON_NUMBER:
			return v->str;
		case OV_JSON_TRUE:
			return "true";
		case OV_JSON_FALSE:
			return "false";
		default:
			return NULL;
	}
}

/* A variable of the rules hides no builtin: the loader refuses its name. */
static const char *
value_of(const OvValues *v, const char *name)
{
	const Variable *var;

	if (name[0] == '/')
		return response_text(v->response, name);
	if ((var = ov_variable(v->provider, name)) != NULL)
		return var->value;
	if (strcmp(name, "client_id") == 0)
		return v->client != NULL ? v->client->client_id : NULL;
	if (strcmp(name, "client_secret") == 0)
		return v->client != NULL ? v->client->client_secret : NULL;
	if (strcmp(name, "code") == 0)
		return v->code;
	if (strcmp(name, "redirect_uri") == 0)
		return v->redirect_uri;
	if (strcmp(name, "code_verifier") == 0)
		return v->code_verifier;
	if (strcmp(name, "refresh_token") == 0)
		return v->refresh_token;
	if (strcmp(name, "access_token") == 0)
		return v->access_token;
	if (strcmp(name, "token") == 0)
		return v->token;
	if (strcmp(name, "token_type") == 0)
		return v->token_type;
	return NULL;
}

OvCode
ov_template_text(OvArena *arena, const OvValues *values, const char *text, char **out, OvError *err)
{
	OvStr		s;
	Part		part;
	bool		bad;

	ov_str_init(&s, arena);
	*out = NULL;
	while (next_part(&text, &part, &bad))
	{
		const char *value;

		ov_str_add(&s, part.literal, part.literal_len);
		if (part.name[0] == '\0')
			continue;
		if ((value = value_of(values, part.name)) == NULL)
			return OV_OK;
		ov_str_puts(&s, value);
	}
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	*out = s.data;
	return OV_OK;
}

static bool
host_characters(const char *value)
{
	return value[0] != '\0' && value[strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-")] == '\0';
}

/* A value of several segments, none of which can leave its place */
static OvCode
path_value(OvArena *arena, const char *name, const char *value, OvStr *out, OvError *err)
{
	for (const char *p = value;; p++)
	{
		size_t		n = strcspn(p, "/");
		const char *segment = ov_arena_strndup(arena, p, n);

		/* "." is unreserved, so that a segment of dots has to be caught here */
		if (n == 0 || strcmp(segment, ".") == 0 || strcmp(segment, "..") == 0)
			return ov_fail(err, OV_E_DENIED, "the value of \"%s\" cannot stand in a URL", name);
		ov_uri_encode(out, segment);
		p += n;
		if (*p == '\0')
			return OV_OK;
		ov_str_putc(out, '/');
	}
}

static bool
is_path(const OvProvider *p, const char *name)
{
	const Variable *v = ov_variable(p, name);

	return v != NULL && ov_rule_flag(v->rule, "path", false);
}

/* An endpoint: https, or http on loopback; no fragment (RFC 6749 sections 3.1 and 3.2) */
OvCode
ov_check_endpoint(OvArena *arena, const char *url, OvUrl *parsed, OvError *err)
{
	OvCode		code = ov_url_parse(arena, url, parsed, err);

	if (code != OV_OK)
		return code;
	if (strcmp(parsed->scheme, "https") != 0 && !parsed->loopback)
		return ov_fail(err, OV_E_DENIED, "endpoint \"%s\" is not https", url);
	if (parsed->fragment != NULL)
		return ov_fail(err, OV_E_SYNTAX, "endpoint \"%s\" has a fragment", url);
	return OV_OK;
}

/* A variable that stands for scheme and host: without a query, without a final slash */
static OvCode
base_url(OvArena *arena, const char *name, const char *value, OvStr *out, OvError *err)
{
	OvUrl		url;
	size_t		n = strlen(value);
	OvCode		code = ov_check_endpoint(arena, value, &url, err);

	if (code != OV_OK)
		return code;
	if (url.query != NULL)
		return ov_fail(err, OV_E_DENIED, "the value of \"%s\" has a query", name);
	while (n > 0 && value[n - 1] == '/')
		n--;
	ov_str_add(out, value, n);
	return OV_OK;
}

OvCode
ov_template_url(OvArena *arena, const OvValues *values, const char *text, char **url, OvError *err)
{
	OvStr		s;
	OvUrl		parsed;
	Part		part;
	bool		bad;
	bool		in_host = true;
	OvCode		code;

	ov_str_init(&s, arena);
	while (next_part(&text, &part, &bad))
	{
		const char *value;
		const char *host;

		ov_str_add(&s, part.literal, part.literal_len);
		if (in_host && (host = strstr(s.data, "://")) != NULL && host[3 + strcspn(host + 3, "/?")] != '\0')
			in_host = false;
		if (part.name[0] == '\0')
			continue;
		if ((value = value_of(values, part.name)) == NULL)
			return ov_fail(err, OV_E_CONFIG, "variable \"%s\" has no value", part.name);
		if (s.len == 0)
		{
			if ((code = base_url(arena, part.name, value, &s, err)) != OV_OK)
				return code;
			in_host = false;
		}
		else if (in_host)
		{
			if (!host_characters(value))
				return ov_fail(err, OV_E_DENIED, "the value of \"%s\" cannot stand in a host name", part.name);
			ov_str_puts(&s, value);
		}
		else if (is_path(values->provider, part.name) && strchr(s.data, '?') == NULL)
		{
			if ((code = path_value(arena, part.name, value, &s, err)) != OV_OK)
				return code;
		}
		else
		{
			/* "." is unreserved, so that a segment of dots has to be caught here */
			if (strcmp(value, ".") == 0 || strcmp(value, "..") == 0)
				return ov_fail(err, OV_E_DENIED, "the value of \"%s\" cannot stand in a URL", part.name);
			ov_uri_encode(&s, value);
		}
	}
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	if ((code = ov_check_endpoint(arena, s.data, &parsed, err)) != OV_OK)
		return code;
	*url = s.data;
	return OV_OK;
}

/* host[:port] without the default port of https; a port always beside http */
static char *
host_port(OvArena *arena, const OvUrl *url)
{
	const char *host = strchr(url->host, ':') != NULL ? ov_arena_printf(arena, "[%s]", url->host) : url->host;

	if (url->port == 443 && strcmp(url->scheme, "https") == 0)
		return ov_arena_strdup(arena, host);
	return ov_arena_printf(arena, "%s:%d", host, url->port);
}

OvCode
ov_template_host(OvArena *arena, const OvProvider *p, const char *text, bool is_url, char **host, OvError *err)
{
	OvValues	values = {.provider = p};
	OvUrl		url;
	OvStr		s;
	Part		part;
	const char *start = text;
	char	   *rendered;
	bool		bad;
	bool		open = false;
	OvCode		code;

	/* Only the host part counts: what follows may need a client. */
	if (is_url)
	{
		const char *authority = strstr(text, "://");

		/* what stands right behind a variable that holds an origin is part of its host */
		if (text[0] == '{')
			start = ov_arena_strndup(arena, text, strcspn(text, "/?#"));
		else if (authority != NULL)
			start = ov_arena_strndup(arena, text, (size_t) (authority + 3 - text) + strcspn(authority + 3, "/?#"));
	}
	for (const char *t = start; next_part(&t, &part, &bad);)
		open = open || (part.name[0] != '\0' && value_of(&values, part.name) == NULL);
	if (!open && is_url)
	{
		if ((code = ov_template_url(arena, &values, start, &rendered, err)) != OV_OK ||
			(code = ov_url_parse(arena, rendered, &url, err)) != OV_OK)
			return code;
		*host = host_port(arena, &url);
		return OV_OK;
	}
	ov_str_init(&s, arena);
	for (const char *t = start; next_part(&t, &part, &bad);)
	{
		const char *value = part.name[0] != '\0' ? value_of(&values, part.name) : NULL;

		ov_str_add(&s, part.literal, part.literal_len);
		if (value != NULL && !host_characters(value))
			return ov_fail(err, OV_E_DENIED, "the value of \"%s\" cannot stand in a host name", part.name);
		if (value != NULL)
			ov_str_puts(&s, value);
		else if (part.name[0] != '\0')
			ov_str_printf(&s, "{%s}", part.name);
	}
	for (char *c = s.data; *c != '\0' && !open; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c += 'a' - 'A';
	*host = s.data;
	if (is_url && strstr(s.data, "://") != NULL)
		*host = strstr(s.data, "://") + 3;
	return OV_OK;
}
