/*
 * test_discovery.c
 *	  Authorization server metadata: where it is looked for and what is refused.
 */
#include "core/provider.h"
#include "tap.h"

#define ISSUER "https://as.example/t1"
#define ISS "\"issuer\":\"" ISSUER "\""
#define AUTHZ "\"authorization_endpoint\":\"https://as.example/t1/authorize\""
#define TOKEN "\"token_endpoint\":\"https://as.example/t1/token\""
#define WITH(member) "{" ISS "," AUTHZ "," TOKEN "," member "}"
#define TOKEN_AT(url) "{" ISS "," AUTHZ ",\"token_endpoint\":\"" url "\"}"
#define MINIMAL "{" ISS "," AUTHZ "," TOKEN "}"

static OvArena *arena;

static void
where(void)
{
	static const struct
	{
		const char *issuer,
				   *urls[3];
	}			cases[] = {
		{"https://as.example", {
			"https://as.example/.well-known/oauth-authorization-server",
			"https://as.example/.well-known/openid-configuration"}},
		{"https://as.example/", {
			"https://as.example/.well-known/oauth-authorization-server",
			"https://as.example/.well-known/openid-configuration"}},
		{"https://as.example/t1", {
			"https://as.example/.well-known/oauth-authorization-server/t1",
			"https://as.example/.well-known/openid-configuration/t1",
			"https://as.example/t1/.well-known/openid-configuration"}},
		{"https://as.example/t1/", {
			"https://as.example/.well-known/oauth-authorization-server/t1",
			"https://as.example/.well-known/openid-configuration/t1",
			"https://as.example/t1/.well-known/openid-configuration"}},
		{"https://as.example:8443/a/b%20c", {
			"https://as.example:8443/.well-known/oauth-authorization-server/a/b%20c",
			"https://as.example:8443/.well-known/openid-configuration/a/b%20c",
			"https://as.example:8443/a/b%20c/.well-known/openid-configuration"}},
		{"https://[2001:db8::1]:8443/t", {
			"https://[2001:db8::1]:8443/.well-known/oauth-authorization-server/t",
			"https://[2001:db8::1]:8443/.well-known/openid-configuration/t",
			"https://[2001:db8::1]:8443/t/.well-known/openid-configuration"}},
	};
	static const struct
	{
		const char *issuer;
		OvCode		code;
	}			refused[] = {
		{"http://as.example", OV_E_DENIED},
		{"http://localhost:9000", OV_E_DENIED},
		{"https://as.example?x=1", OV_E_DENIED},
		{"https://as.example?", OV_E_DENIED},
		{"https://as.example/t1?x=1", OV_E_DENIED},
		{"https://as.example#f", OV_E_DENIED},
		{"https://as.example/#", OV_E_DENIED},
		{"https://user@as.example", OV_E_SYNTAX},
		{"https://as.example\\@evil.example", OV_E_SYNTAX},
		{"https://", OV_E_SYNTAX},
		{"as.example", OV_E_SYNTAX},
		{"//as.example", OV_E_SYNTAX},
		{"ftp://as.example", OV_E_SYNTAX},
		{"javascript:alert(1)", OV_E_SYNTAX},
		{"https://as.example/a b", OV_E_SYNTAX},
		{"https://as.example/\r\nX: y", OV_E_SYNTAX},
		{"https://\xc3\xa9.example", OV_E_SYNTAX},
		{"", OV_E_SYNTAX},
	};
	char	   *urls[3];
	int			n;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		int			want = cases[i].urls[2] != NULL ? 3 : 2;

		is_int(ov_discovery_urls(arena, cases[i].issuer, false, urls, &n, NULL), OV_OK, "%s has places to look", cases[i].issuer);
		if (!is_int(n, want, "%d of them", want))
			continue;
		for (int k = 0; k < n; k++)
			is_str(urls[k], cases[i].urls[k], "%s, place %d", cases[i].issuer, k + 1);
	}
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
	{
		OvError		err = {0};

		is_int(ov_discovery_urls(arena, refused[i].issuer, false, urls, &n, &err), refused[i].code, "refused: \"%s\"", refused[i].issuer);
		ok(n == 0 && err.message[0] != '\0', "with a reason and no place");
	}
	is_int(ov_discovery_urls(arena, "http://127.0.0.1:9000", true, urls, &n, NULL), OV_OK, "plain http on loopback, when tests may");
	is_str(urls[0], "http://127.0.0.1:9000/.well-known/oauth-authorization-server", "is looked for there");
	is_int(ov_discovery_urls(arena, "http://as.example", true, urls, &n, NULL), OV_E_DENIED, "but nowhere else");
	is_int(ov_discovery_urls(arena, "http://127.0.0.1.evil.example", true, urls, &n, NULL), OV_E_DENIED, "nor where it only looks like it");
}

static OvCode
respond(const char *issuer, int status, const char *type, const char *body, bool loopback, char **metadata)
{
	size_t		len = strlen(body);
	char	   *exact = malloc(len ? len : 1);
	OvHttpResponse resp = {.status = status, .sent = true, .content_type = type, .body = exact, .body_len = len};
	OvError		err = {0};
	OvCode		rc;

	memcpy(exact, body, len);
	rc = ov_discovery_response(arena, issuer, &resp, loopback, metadata, &err);
	if ((rc == OV_OK) != (err.message[0] == '\0') || (rc == OV_OK) != (*metadata != NULL))
		diag("code %d with message \"%s\" and metadata %s", (int) rc, err.message, *metadata ? *metadata : "NULL");
	free(exact);
	return rc;
}

static void
answers(void)
{
	static const struct
	{
		int			status;
		const char *type;
		OvCode		code;
	}			cases[] = {
		{200, "application/json", OV_OK},
		{200, "application/json; charset=utf-8", OV_OK},
		{200, "Application/JSON ;charset=UTF-8", OV_OK},
		{200, NULL, OV_E_NOTFOUND},
		{200, "", OV_E_NOTFOUND},
		{200, "text/html", OV_E_NOTFOUND},
		{200, "text/html; application/json", OV_E_NOTFOUND},
		{200, "application/jsonp", OV_E_NOTFOUND},
		{200, "application/json+x", OV_E_NOTFOUND},
		{200, "application/jwt", OV_E_NOTFOUND},
		{201, "application/json", OV_E_NOTFOUND},
		{204, "application/json", OV_E_NOTFOUND},
		{301, "application/json", OV_E_NOTFOUND},
		{302, "application/json", OV_E_NOTFOUND},
		{307, "application/json", OV_E_NOTFOUND},
		{401, "application/json", OV_E_NOTFOUND},
		{404, "application/json", OV_E_NOTFOUND},
		{408, "application/json", OV_E_IO},
		{429, "application/json", OV_E_IO},
		{500, "application/json", OV_E_IO},
		{503, "application/json", OV_E_IO},
		{0, NULL, OV_E_IO},
	};
	OvHttpResponse broken = {.status = 200, .transport_error = "connection reset", .content_type = "application/json",
	.body = MINIMAL, .body_len = sizeof(MINIMAL) - 1};
	char	   *metadata;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_int(respond(ISSUER, cases[i].status, cases[i].type, MINIMAL, false, &metadata), cases[i].code,
			   "status %d with content type %s", cases[i].status, cases[i].type ? cases[i].type : "none");
	is_int(ov_discovery_response(arena, ISSUER, &broken, false, &metadata, NULL), OV_E_IO, "an answer cut short");
}

static void
documents(void)
{
	static const struct
	{
		const char *name,
				   *body;
		OvCode		code;
	}			cases[] = {
		{"the least", MINIMAL, OV_OK},
		{"unknown members, deep ones too", WITH("\"x\":[[[[[[[[[[[[[[1]]]]]]]]]]]]]],\"y\":null"), OV_OK},
		{"an unknown member twice", WITH("\"x\":1,\"x\":2"), OV_OK},
		{"a member spelled with another case", WITH("\"Token_Endpoint\":5"), OV_OK},
		{"signed metadata, ignored", WITH("\"signed_metadata\":\"a.b.c\""), OV_OK},
		{"an endpoint with a query", TOKEN_AT("https://as.example/t?tenant=1"), OV_OK},
		{"an endpoint on another host", TOKEN_AT("https://tokens.example/"), OV_OK},
		{"empty lists", WITH("\"code_challenge_methods_supported\":[]"), OV_OK},
		{"public clients", WITH("\"token_endpoint_auth_methods_supported\":[\"none\"]"), OV_OK},
		{"client assertions", WITH("\"token_endpoint_auth_signing_alg_values_supported\":[\"ES256\"]"), OV_OK},
		{"an array", "[]", OV_E_SYNTAX},
		{"a string", "\"x\"", OV_E_SYNTAX},
		{"null", "null", OV_E_SYNTAX},
		{"nothing", "", OV_E_SYNTAX},
		{"HTML", "<html>", OV_E_SYNTAX},
		{"something behind it", MINIMAL "x", OV_E_SYNTAX},
		{"a byte order mark", "\xef\xbb\xbf" MINIMAL, OV_E_SYNTAX},
		{"bad UTF-8", WITH("\"x\":\"\xff\""), OV_E_SYNTAX},
		{"too deep", WITH("\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]"), OV_E_LIMIT},
		{"no issuer", "{" AUTHZ "," TOKEN "}", OV_E_SYNTAX},
		{"no authorization endpoint", "{" ISS "," TOKEN "}", OV_E_SYNTAX},
		{"no token endpoint", "{" ISS "," AUTHZ "}", OV_E_SYNTAX},
		{"the issuer twice", WITH(ISS), OV_E_SYNTAX},
		{"the token endpoint twice", WITH("\"token_endpoint\":\"https://evil.example/\""), OV_E_SYNTAX},
		{"the token endpoint twice, once escaped", WITH("\"\\u0074oken_endpoint\":\"https://evil.example/\""), OV_E_SYNTAX},
		{"an issuer that is a number", "{\"issuer\":5," AUTHZ "," TOKEN "}", OV_E_SYNTAX},
		{"an endpoint that is a number", "{" ISS "," AUTHZ ",\"token_endpoint\":5}", OV_E_SYNTAX},
		{"an endpoint that is null", WITH("\"revocation_endpoint\":null"), OV_E_SYNTAX},
		{"scopes in a string", WITH("\"scopes_supported\":\"a b\""), OV_E_SYNTAX},
		{"challenge methods in a string", WITH("\"code_challenge_methods_supported\":\"S256\""), OV_E_SYNTAX},
		{"a list of numbers", WITH("\"grant_types_supported\":[\"authorization_code\",5]"), OV_E_SYNTAX},
		{"a list that is null", WITH("\"scopes_supported\":null"), OV_E_SYNTAX},
		{"a boolean in a string", WITH("\"authorization_response_iss_parameter_supported\":\"true\""), OV_E_SYNTAX},
		{"unsigned client assertions", WITH("\"token_endpoint_auth_signing_alg_values_supported\":[\"ES256\",\"none\"]"), OV_E_DENIED},
		{"unsigned client assertions at revocation", WITH("\"revocation_endpoint_auth_signing_alg_values_supported\":[\"None\"]"), OV_E_DENIED},
		{"algorithms in a string", WITH("\"token_endpoint_auth_signing_alg_values_supported\":\"ES256\""), OV_E_SYNTAX},
		{"a plain http endpoint", TOKEN_AT("http://as.example/t1/token"), OV_E_DENIED},
		{"a plain http endpoint on loopback", TOKEN_AT("http://localhost/token"), OV_E_DENIED},
		{"an endpoint with a fragment", TOKEN_AT("https://as.example/t#f"), OV_E_DENIED},
		{"an endpoint with user information", TOKEN_AT("https://u:p@as.example/t"), OV_E_SYNTAX},
		{"a relative endpoint", TOKEN_AT("/token"), OV_E_SYNTAX},
		{"an endpoint without a scheme", TOKEN_AT("//as.example/token"), OV_E_SYNTAX},
		{"an empty endpoint", TOKEN_AT(""), OV_E_SYNTAX},
		{"an endpoint with backslashes", TOKEN_AT("https:\\\\\\\\as.example"), OV_E_SYNTAX},
		{"an endpoint with a line break", TOKEN_AT("https://as.example/\\r\\nX: y"), OV_E_SYNTAX},
		{"an endpoint with a space", TOKEN_AT("https://as.example/a b"), OV_E_SYNTAX},
		{"an endpoint that is no ASCII", TOKEN_AT("https://\xc3\xa9.example/"), OV_E_SYNTAX},
		{"a script as authorization endpoint", "{" ISS "," TOKEN ",\"authorization_endpoint\":\"javascript:alert(1)\"}", OV_E_SYNTAX},
		{"data as authorization endpoint", "{" ISS "," TOKEN ",\"authorization_endpoint\":\"data:text/html,x\"}", OV_E_SYNTAX},
		{"a file as jwks_uri", WITH("\"jwks_uri\":\"file:///etc/passwd\""), OV_E_SYNTAX},
		{"plain http for userinfo", WITH("\"userinfo_endpoint\":\"http://as.example/me\""), OV_E_DENIED},
		{"plain http for introspection", WITH("\"introspection_endpoint\":\"http://as.example/i\""), OV_E_DENIED},
	};
	char	   *metadata;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_int(respond(ISSUER, 200, "application/json", cases[i].body, false, &metadata), cases[i].code,
			   "a document %s: %s", cases[i].code == OV_OK ? "accepted" : "refused", cases[i].name);
	is_int(respond(ISSUER, 200, "application/json", TOKEN_AT("http://localhost:9000/token"), true, &metadata), OV_OK,
		   "plain http on loopback, when tests may");
	is_int(respond(ISSUER, 200, "application/json", TOKEN_AT("http://as.example/token"), true, &metadata), OV_E_DENIED,
		   "but nowhere else");
	is_int(respond("https://as.example?x", 200, "application/json", MINIMAL, false, &metadata), OV_E_DENIED,
		   "an issuer that is none is refused here too");
}

/* RFC 8414 section 4: nothing is normalised before issuers are compared */
static void
issuers(void)
{
	static const char *const others[] = {
		"https://as.example/t1/", "https://as.example/T1", "https://AS.example/t1", "HTTPS://as.example/t1",
		"https://as.example:443/t1", "https://as.example/%74%31", "https://as.example/./t1", "https://as.example",
		"https://evil.example/t1", " https://as.example/t1", "https://as.example/t1\\u00e9", "",
	};
	char	   *metadata;
	OvError		err;
	OvHttpResponse resp = {.status = 200, .content_type = "application/json"};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		is_int(respond(ISSUER, 200, "application/json",
					   ov_arena_printf(arena, "{\"issuer\":\"%s\"," AUTHZ "," TOKEN "}", others[i]), false, &metadata),
			   OV_E_DENIED, "not the issuer: \"%s\"", others[i]);
	is_int(respond("https://AS.example/t1", 200, "application/json", MINIMAL, false, &metadata), OV_E_DENIED,
		   "nor the other way round");
	resp.body = "{\"issuer\":\"https://x/\\u001b[2J\\n\"," AUTHZ "," TOKEN "}";
	resp.body_len = strlen(resp.body);
	ov_discovery_response(arena, ISSUER, &resp, false, &metadata, &err);
	is_str(err.message, "metadata is for another issuer: \"https://x/\\x1b[2J\\x0a\"", "what a server says is cleaned before it is repeated");
}

/* Only what we read is kept, in our order, whatever the server's */
static void
reduction(void)
{
	char	   *metadata;

	respond(ISSUER, 200, "application/json",
			"{ \"x\" : {\"token_endpoint\": 1}, \"code_challenge_methods_supported\" : [ \"S256\", \"plain\" ] ,\n" TOKEN ","
			"\"authorization_response_iss_parameter_supported\": true, \"token_endpoint_auth_signing_alg_values_supported\":[\"ES256\"],"
			"\"revocation_endpoint\":\"https:\\/\\/as.example\\/r\",\"jwks_uri\":\"https://as.example/j\"," AUTHZ ","
			"\"introspection_endpoint\":\"https://as.example/i\",\"userinfo_endpoint\":\"https://as.example/u\","
			"\"scopes_supported\":[\"openid\",\"say \\\"hi\\\"\"],\"response_types_supported\":[\"code\",\"code id_token\"],"
			"\"grant_types_supported\":[\"refresh_token\"],\"token_endpoint_auth_methods_supported\":[\"client_secret_basic\"],"
			"\"revocation_endpoint_auth_methods_supported\":[\"none\"]," ISS "}", false, &metadata);
	is_str(metadata, "{" ISS "," AUTHZ "," TOKEN ",\"revocation_endpoint\":\"https://as.example/r\","
		   "\"introspection_endpoint\":\"https://as.example/i\",\"userinfo_endpoint\":\"https://as.example/u\","
		   "\"jwks_uri\":\"https://as.example/j\",\"scopes_supported\":[\"openid\",\"say \\\"hi\\\"\"],"
		   "\"response_types_supported\":[\"code\",\"code id_token\"],\"grant_types_supported\":[\"refresh_token\"],"
		   "\"token_endpoint_auth_methods_supported\":[\"client_secret_basic\"],"
		   "\"revocation_endpoint_auth_methods_supported\":[\"none\"],\"code_challenge_methods_supported\":[\"S256\",\"plain\"],"
		   "\"authorization_response_iss_parameter_supported\":true}", "a document is reduced to what is used");
}

int
main(void)
{
	arena = ov_arena_new();
	where();
	answers();
	documents();
	issuers();
	reduction();
	ov_arena_free(arena);
	return done_testing();
}
