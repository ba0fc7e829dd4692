/*
 * discovery.c
 *	  Authorization server metadata (RFC 8414, OpenID Connect Discovery 1.0).
 *
 * What comes out is safe to freeze into a connector: the issuer is the one
 * asked for, every endpoint obeys our URL policy, every member has its type,
 * and nothing is left in it that no code of ours reads.  Where the endpoints'
 * hosts may be is judged elsewhere (allowed hosts, address policy).
 */
#include "core/provider.h"

#include <string.h>
#include <strings.h>

typedef enum MemberType
{
	MEMBER_ISSUER, MEMBER_ENDPOINT, MEMBER_STRINGS, MEMBER_BOOL,
	MEMBER_ALGORITHMS			/* checked, not kept */
} MemberType;

/* RFC 8414 section 2, RFC 9207 section 3, OpenID Connect Discovery section 3 */
static const struct
{
	const char *name;
	MemberType	type;
	bool		required;
}			members[] = {
	{"issuer", MEMBER_ISSUER, true},
	{"authorization_endpoint", MEMBER_ENDPOINT, true},
	{"token_endpoint", MEMBER_ENDPOINT, true},
	{"revocation_endpoint", MEMBER_ENDPOINT, false},
	{"introspection_endpoint", MEMBER_ENDPOINT, false},
	{"userinfo_endpoint", MEMBER_ENDPOINT, false},
	{"jwks_uri", MEMBER_ENDPOINT, false},
	{"scopes_supported", MEMBER_STRINGS, false},
	{"response_types_supported", MEMBER_STRINGS, false},
	{"grant_types_supported", MEMBER_STRINGS, false},
	{"token_endpoint_auth_methods_supported", MEMBER_STRINGS, false},
	{"revocation_endpoint_auth_methods_supported", MEMBER_STRINGS, false},
	{"code_challenge_methods_supported", MEMBER_STRINGS, false},
	{"authorization_response_iss_parameter_supported", MEMBER_BOOL, false},
	{"token_endpoint_auth_signing_alg_values_supported", MEMBER_ALGORITHMS, false},
	{"revocation_endpoint_auth_signing_alg_values_supported", MEMBER_ALGORITHMS, false},
	{"introspection_endpoint_auth_signing_alg_values_supported", MEMBER_ALGORITHMS, false},
};

#define NMEMBERS ((int) (sizeof(members) / sizeof(members[0])))

/* https, or plain http to this machine when tests may */
static bool
scheme_allowed(const OvUrl *url, bool allow_http_loopback)
{
	return strcmp(url->scheme, "https") == 0 || (allow_http_loopback && url->loopback);
}

/* RFC 8414 section 2: https, no query, no fragment */
static OvCode
parse_issuer(OvArena *arena, const char *issuer, bool allow_http_loopback, OvUrl *url, OvError *err)
{
	OvCode		rc = ov_url_parse(arena, issuer, url, err);

	if (rc != OV_OK)
		return rc;
	if (!scheme_allowed(url, allow_http_loopback))
		return ov_fail(err, OV_E_DENIED, "issuer is not an https URL");
	if (url->query != NULL || url->fragment != NULL)
		return ov_fail(err, OV_E_DENIED, "issuer has a query or a fragment");
	return OV_OK;
}

OvCode
ov_discovery_urls(OvArena *arena, const char *issuer, bool allow_http_loopback,
				  char *urls[3], int *n, OvError *err)
{
	static const char oauth[] = "/.well-known/oauth-authorization-server";
	static const char oidc[] = "/.well-known/openid-configuration";
	OvUrl		url;
	OvCode		rc;
	char	   *path;
	size_t		len;

	*n = 0;
	if ((rc = parse_issuer(arena, issuer, allow_http_loopback, &url, err)) != OV_OK)
		return rc;
	/* RFC 8414 section 3.1: a terminating / is removed first */
	len = strlen(url.path);
	if (len > 0 && url.path[len - 1] == '/')
		len--;
	path = ov_arena_strndup(arena, url.path, len);
	urls[(*n)++] = ov_arena_printf(arena, "%s%s%s", url.origin, oauth, path);
	urls[(*n)++] = ov_arena_printf(arena, "%s%s%s", url.origin, oidc, path);
	/* OpenID Connect Discovery section 4; RFC 8414 section 5 calls it the older form */
	if (len > 0)
		urls[(*n)++] = ov_arena_printf(arena, "%s%s%s", url.origin, path, oidc);
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	return OV_OK;
}

/* application/json, whatever its parameters (RFC 8414 section 3.2, RFC 9110 section 8.3.1) */
static bool
is_json(const char *content_type)
{
	static const char json[] = "application/json";
	size_t		n = sizeof(json) - 1;

	if (content_type == NULL || strncasecmp(content_type, json, n) != 0)
		return false;
	content_type += n;
	content_type += strspn(content_type, " \t");
	return *content_type == '\0' || *content_type == ';';
}

static OvCode
check_endpoint(OvArena *arena, const char *name, const OvJson *v, bool allow_http_loopback, OvError *err)
{
	const char *s = ov_json_string(v);
	OvUrl		url;
	OvError		why = {0};

	if (s == NULL)
		return ov_fail(err, OV_E_SYNTAX, "metadata member \"%s\" is not a string", name);
	if (ov_url_parse(arena, s, &url, &why) != OV_OK)
		return ov_fail(err, OV_E_SYNTAX, "metadata member \"%s\": %s", name, why.message);
	if (!scheme_allowed(&url, allow_http_loopback))
		return ov_fail(err, OV_E_DENIED, "metadata member \"%s\" is not an https URL", name);
	/* RFC 6749 sections 3.1 and 3.2 */
	if (url.fragment != NULL)
		return ov_fail(err, OV_E_DENIED, "metadata member \"%s\" has a fragment", name);
	return OV_OK;
}

static OvCode
check_strings(const char *name, const OvJson *v, bool algorithms, OvError *err)
{
	if (v->type != OV_JSON_ARRAY)
		return ov_fail(err, OV_E_SYNTAX, "metadata member \"%s\" is not an array", name);
	for (const OvJson *e = v->child; e != NULL; e = e->next)
	{
		if (ov_json_string(e) == NULL)
			return ov_fail(err, OV_E_SYNTAX, "metadata member \"%s\" does not hold strings only", name);
		/* RFC 8414 section 2: the value "none" MUST NOT be used */
		if (algorithms && strcasecmp(e->str, "none") == 0)
			return ov_fail(err, OV_E_DENIED, "metadata member \"%s\" offers \"none\"", name);
	}
	return OV_OK;
}

static OvCode
check_member(OvArena *arena, int i, const OvJson *v, const char *issuer,
			 bool allow_http_loopback, OvError *err)
{
	const char *name = members[i].name;

	switch (members[i].type)
	{
		case MEMBER_ISSUER:
			/* RFC 8414 sections 3.3 and 4: code point by code point, no normalisation */
			if (ov_json_string(v) == NULL)
				return ov_fail(err, OV_E_SYNTAX, "metadata member \"%s\" is not a string", name);
			if (strcmp(v->str, issuer) != 0)
				return ov_fail(err, OV_E_DENIED, "metadata is for another issuer: \"%s\"",
							   ov_clean_text(arena, v->str, v->len));
			return OV_OK;
		case MEMBER_ENDPOINT:
			return check_endpoint(arena, name, v, allow_http_loopback, err);
		case MEMBER_STRINGS:
			return check_strings(name, v, false, err);
		case MEMBER_ALGORITHMS:
			return check_strings(name, v, true, err);
		case MEMBER_BOOL:
			if (v->type != OV_JSON_TRUE && v->type != OV_JSON_FALSE)
				return ov_fail(err, OV_E_SYNTAX, "metadata member \"%s\" is not a boolean", name);
			return OV_OK;
	}
	return ov_fail(err, OV_E_SYNTAX, "metadata member \"%s\" is unknown", name);
}

/*
 * OV_E_IO: no answer or a server's trouble, another time may do.  OV_E_NOTFOUND:
 * nothing is published here, the next URL may have it.  Everything else is final.
 */
static OvCode
check_answer(const OvHttpResponse *resp, OvError *err)
{
	if (resp->transport_error != NULL || resp->status == 0)
		return ov_fail(err, OV_E_IO, "no metadata: %s",
					   resp->transport_error != NULL ? resp->transport_error : "no answer");
	if (resp->status == 408 || resp->status == 429 || resp->status >= 500)
		return ov_fail(err, OV_E_IO, "no metadata: HTTP status %d", resp->status);
	/* RFC 8414 section 3.2: 200 alone is success, and redirects are not followed */
	if (resp->status != 200)
		return ov_fail(err, OV_E_NOTFOUND, "no metadata: HTTP status %d", resp->status);
	if (!is_json(resp->content_type))
		return ov_fail(err, OV_E_NOTFOUND, "no metadata: content type is not application/json");
	return OV_OK;
}

OvCode
ov_discovery_response(OvArena *arena, const char *issuer, const OvHttpResponse *resp,
					  bool allow_http_loopback, char **metadata, OvError *err)
{
	const char *names[NMEMBERS];
	const OvJson *doc;
	OvUrl		url;
	OvStr		out;
	OvCode		rc;

	*metadata = NULL;
	if ((rc = parse_issuer(arena, issuer, allow_http_loopback, &url, err)) != OV_OK ||
		(rc = check_answer(resp, err)) != OV_OK ||
		(rc = ov_json_parse(arena, resp->body, resp->body_len, &doc, err)) != OV_OK)
		return rc;
	if (doc->type != OV_JSON_OBJECT)
		return ov_fail(err, OV_E_SYNTAX, "metadata is not a JSON object");
	for (int i = 0; i < NMEMBERS; i++)
		names[i] = members[i].name;
	if (!ov_json_unique(doc, names, NMEMBERS))
		return ov_fail(err, OV_E_SYNTAX, "metadata names a member twice");

	ov_str_init(&out, arena);
	for (int i = 0; i < NMEMBERS; i++)
	{
		const OvJson *v = ov_json_get(doc, members[i].name);

		if (v == NULL)
		{
			if (members[i].required)
				return ov_fail(err, OV_E_SYNTAX, "metadata has no \"%s\"", members[i].name);
			continue;
		}
		if ((rc = check_member(arena, i, v, issuer, allow_http_loopback, err)) != OV_OK)
			return rc;
		if (members[i].type == MEMBER_ALGORITHMS)
			continue;
		ov_str_putc(&out, out.len == 0 ? '{' : ',');
		ov_json_quote(&out, v->key, strlen(v->key));
		ov_str_putc(&out, ':');
		ov_json_write(&out, v);
	}
	ov_str_putc(&out, '}');
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	*metadata = out.data;
	return OV_OK;
}
