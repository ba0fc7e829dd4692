/*
 * test_provider_requests.c
 *	  Requests as rules shape them: authorization URL, code exchange, refresh,
 *	  revocation, client authentication.
 */
#include "core/jwt.h"
#include "core/provider_internal.h"
#include "provider_fixture.h"

#define CHALLENGE "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
#define VERIFIER "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
#define REDIRECT "https://app.example/cb"
#define ENDPOINTS "'authorization':{'url':'https://as.example/a'},'token':{'url':'https://as.example/t'}"

static const OvClient client = {"id", "secret"};

static const char *
authorize(const OvProvider *p, const OvBegin *b)
{
	char	   *url;

	memset(&err, 0, sizeof(err));
	return ov_authorization_url(arena, p, b, &url, &err) == OV_OK ? url : NULL;
}

static const char *
code_request(const OvProvider *p, const OvClient *c, const char *code)
{
	OvHttpRequest req;

	memset(&err, 0, sizeof(err));
	return ov_code_request(arena, p, c, code, REDIRECT, VERIFIER, &req, &err) == OV_OK ? request_text(&req) : NULL;
}

static const char *
refresh_request(const OvProvider *p, const OvClient *c, const char *refresh, const char *access)
{
	OvHttpRequest req;

	memset(&err, 0, sizeof(err));
	return ov_refresh_request(arena, p, c, refresh, access, &req, &err) == OV_OK ? request_text(&req) : NULL;
}

static const char *
revoke_request(const OvProvider *p, const OvClient *c, const char *kind)
{
	OvHttpRequest req;

	memset(&err, 0, sizeof(err));
	return ov_revoke_request(arena, p, c, kind, "tok", &req, &err) == OV_OK ? request_text(&req) : NULL;
}

static void
authorization(void)
{
	static const char *const scopes[] = {"openid", "https://as.example/auth/x"};
	static const char *const quoted[] = {"a\"b"};
	static const char *const comma[] = {"a,b"};
	static const char *const mixed[] = {"a", "user:b", "c", "user:d"};
	const OvProvider *plain = load("{" MINIMAL "," ENDPOINTS "}", NULL, NULL);
	OvBegin		b = {
		.client_id = "id", .redirect_uri = REDIRECT, .state = "s", .code_challenge = CHALLENGE,
		.scopes = scopes, .nscopes = 2
	};

	is_str(authorize(plain, &b), "https://as.example/a?response_type=code&client_id=id&redirect_uri=https%3A%2F%2Fapp.example%2Fcb"
		   "&scope=openid+https%3A%2F%2Fas.example%2Fauth%2Fx&state=s&code_challenge=" CHALLENGE "&code_challenge_method=S256",
		   "RFC 6749 section 4.1.1 and RFC 7636 section 4.3");
	b.nonce = "n";
	b.login_hint = "\xc3\xa9 & =";
	b.nscopes = 0;
	is_str(authorize(plain, &b), "https://as.example/a?response_type=code&client_id=id&redirect_uri=https%3A%2F%2Fapp.example%2Fcb"
		   "&state=s&code_challenge=" CHALLENGE "&code_challenge_method=S256&nonce=n&login_hint=%C3%A9+%26+%3D",
		   "no empty parameter; what people give is encoded");
	b.nonce = b.login_hint = NULL;
	is_str(authorize(load("{" MINIMAL ",'pkce':'none','authorization':{'url':'https://as.example/a?tenant=x'}}", NULL, NULL), &b),
		   "https://as.example/a?tenant=x&response_type=code&client_id=id&redirect_uri=https%3A%2F%2Fapp.example%2Fcb&state=s",
		   "a query of the endpoint is kept; no PKCE where the rules say so");
	is_str(authorize(load("{" MINIMAL ",'pkce':'none'}", "{'authorization_endpoint':'https://m.example/a'}", NULL), &b),
		   "https://m.example/a?response_type=code&client_id=id&redirect_uri=https%3A%2F%2Fapp.example%2Fcb&state=s",
		   "the endpoint of the metadata");

	b.scopes = mixed;
	b.nscopes = 4;
	is_str(authorize(load("{" MINIMAL ",'pkce':'none','variables':{'p':{'pattern':'.*'},'q':{'pattern':'.*'}},"
						  "'authorization':{'url':'https://as.example/a','params':{'x':'{p}-1','y':'{q}'},'with_scope':{'c':{'z':'1'},'e':{'w':'1'}},"
						  "'rename':{'response_type':'','client_id':'key'},'scope':{'separator':',','secondary':{'user_scope':'user:'}}}}",
						  NULL, "{'p':'a b'}"), &b),
		   "https://as.example/a?key=id&redirect_uri=https%3A%2F%2Fapp.example%2Fcb&scope=a%2Cc&user_scope=b%2Cd&state=s&x=a+b-1&z=1",
		   "renames, extras, scopes of two kinds, and an extra that needs a scope");
	is_str(authorize(load("{" MINIMAL ",'pkce':'none','authorization':{'url':'https://as.example/a','scope':{'send':false}}}", NULL, NULL), &b),
		   "https://as.example/a?response_type=code&client_id=id&redirect_uri=https%3A%2F%2Fapp.example%2Fcb&state=s",
		   "no scope where the app has them");

	b.scopes = quoted;
	b.nscopes = 1;
	ok(authorize(plain, &b) == NULL, "a scope with a quote is refused");
	b.scopes = comma;
	ok(authorize(plain, &b) != NULL, "a comma is part of a scope");
	ok(authorize(load("{" MINIMAL ",'pkce':'none','authorization':{'url':'https://as.example/a','scope':{'separator':','}}}", NULL, NULL), &b) == NULL,
	   "but not where it separates");
	b.nscopes = 0;
	b.code_challenge = NULL;
	ok(authorize(plain, &b) == NULL, "no request without its code challenge");
	b.code_challenge = CHALLENGE;
	b.state = "";
	ok(authorize(plain, &b) == NULL, "or without a state");
	b.state = "s";
	ok(authorize(load("{" MINIMAL "}", NULL, NULL), &b) == NULL && strstr(err.message, "endpoint") != NULL, "or without an endpoint");
	b.redirect_uri = "https://app.example/cb#f";
	ok(authorize(plain, &b) == NULL, "a redirect URI with a fragment");
	b.redirect_uri = "http://app.example/cb";
	ok(authorize(plain, &b) == NULL, "or without TLS");
	b.redirect_uri = "/cb";
	ok(authorize(plain, &b) == NULL, "or relative");
	b.redirect_uri = "http://127.0.0.1:3000/cb";
	ok(authorize(plain, &b) != NULL, "loopback is fine (RFC 8252 section 7.3)");
}

#define HEAD "POST https://as.example/t\nAccept: application/json\nContent-Type: application/x-www-form-urlencoded\n"
#define CODE_BODY "grant_type=authorization_code&code=c&redirect_uri=https%3A%2F%2Fapp.example%2Fcb&code_verifier=" VERIFIER

static void
exchange(void)
{
	static const char *const bad[] = {"", "a\r\nb", "a\tb", "\xc3\xa9", "a\x7f"};
	const OvProvider *post = load("{" MINIMAL ",'client_auth':['client_secret_post']," ENDPOINTS "}", NULL, NULL);
	char		longer[5000];

	is_str(code_request(post, &client, "c"), HEAD "\n" CODE_BODY "&client_id=id&client_secret=secret", "RFC 6749 section 4.1.3");
	/* RFC 6749 appendix B */
	is_str(code_request(post, &(OvClient) {"id", " %&+\xc2\xa3\xe2\x82\xac"}, "c"),
		   HEAD "\n" CODE_BODY "&client_id=id&client_secret=+%25%26%2B%C2%A3%E2%82%AC", "RFC 6749 appendix B");
	is_str(code_request(post, &client, "4/0AX&x=y"),
		   HEAD "\ngrant_type=authorization_code&code=4%2F0AX%26x%3Dy&redirect_uri=https%3A%2F%2Fapp.example%2Fcb&code_verifier=" VERIFIER
		   "&client_id=id&client_secret=secret", "a code is data");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(code_request(post, &client, bad[i]) == NULL, "a malformed code is not sent: case %zu", i);
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	ok(code_request(post, &client, longer) == NULL, "nor a long one");
	ok(code_request(post, &client, NULL) == NULL, "nor none");
	ok(code_request(load("{" MINIMAL "}", NULL, NULL), &client, "c") == NULL, "no endpoint");

	is_str(code_request(load("{" MINIMAL ",'client_auth':['client_secret_post'],'pkce':'none','token':{'url':'https://as.example/t?v=1',"
							 "'rename':{'client_id':'app_id','grant_type':'','redirect_uri':''},'params':{'k':'{redirect_uri}','l':'{refresh_token}'},"
							 "'headers':{'accept':'text/x','X-Id':'{client_id}'}}}", NULL, NULL), &client, "c"),
		   "POST https://as.example/t?v=1\naccept: text/x\nX-Id: id\nContent-Type: application/x-www-form-urlencoded\n\n"
		   "code=c&app_id=id&client_secret=secret&k=https%3A%2F%2Fapp.example%2Fcb", "renames, extras, headers");
	is_str(code_request(load("{" MINIMAL ",'client_auth':['client_secret_post'],'pkce':'none','token':{'url':'https://as.example/t','format':'json'}}",
							 NULL, NULL), &(OvClient) {"id", "a\"b\n"}, "c"),
		   "POST https://as.example/t\nAccept: application/json\nContent-Type: application/json\n\n"
		   "{\"grant_type\":\"authorization_code\",\"code\":\"c\",\"redirect_uri\":\"https://app.example/cb\",\"client_id\":\"id\","
		   "\"client_secret\":\"a\\\"b\\u000a\"}", "JSON");
	is_str(code_request(load("{" MINIMAL ",'client_auth':['none'],'pkce':'none','token':{'url':'https://as.example/t?a=b','format':'query','method':'GET'}}",
							 NULL, NULL), &(OvClient) {"id", NULL}, "c"),
		   "GET https://as.example/t?a=b&grant_type=authorization_code&code=c&redirect_uri=https%3A%2F%2Fapp.example%2Fcb&client_id=id\n"
		   "Accept: application/json\n", "query");
	ok(code_request(load("{" MINIMAL ",'token':{'url':'https://as.example/t','headers':{'Authorization':'x'}}}", NULL, NULL), &client, "c") == NULL,
	   "no header twice");
	ok(code_request(load("{" MINIMAL ",'token':{'url':'https://as.example/t','auth':'none','headers':{'X':'{client_secret}'}}}", NULL, NULL),
					&(OvClient) {"id", "a\r\nY: z"}, "c") == NULL, "no header that ends its line");
}

static const char *
decoded_basic(const char *request)
{
	const char *b64 = request != NULL ? strstr(request, "Authorization: Basic ") : NULL;
	char		url_safe[1024];
	size_t		n;
	unsigned char *out;

	if (b64 == NULL)
		return NULL;
	b64 += strlen("Authorization: Basic ");
	n = strcspn(b64, "=\n");
	memcpy(url_safe, b64, n);
	for (size_t i = 0; i < n; i++)
		url_safe[i] = b64[i] == '+' ? '-' : b64[i] == '/' ? '_' : b64[i];
	return ov_b64url_decode(arena, url_safe, n, &out, &n) == OV_OK ? ov_arena_strndup(arena, (char *) out, n) : NULL;
}

static void
authentication(void)
{
	static const OvClient odd = {"client %&+-_.!~*'():", "client %&+-_.!~*'():"};
	static const OvClient public = {"id", NULL};
	static const char encoded[] = "client+%25%26%2B-_.%21~%2A%27%28%29%3A";
	const char *text;
	OvParam    *params;
	char	   *half;

	/* the example of RFC 6749 section 2.3.1 */
	text = code_request(load("{" MINIMAL "," ENDPOINTS "}", NULL, NULL), &(OvClient) {"s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw"}, "c");
	is_str(text, "POST https://as.example/t\nAuthorization: Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3\nAccept: application/json\n"
		   "Content-Type: application/x-www-form-urlencoded\n\n" CODE_BODY, "client_secret_basic is the default, and in the header alone");

	text = decoded_basic(code_request(load("{" MINIMAL "," ENDPOINTS "}", NULL, NULL), &odd, "c"));
	is_str(text, ov_arena_printf(arena, "%s:%s", encoded, encoded), "both halves are form-encoded");
	half = ov_arena_printf(arena, "x=%.*s", (int) strcspn(text, ":"), text);
	ok(strspn(half + 2, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789%+*._~-") == strlen(half + 2), "in these characters");
	ok(ov_form_parse(arena, half, strlen(half), &params, NULL) == OV_OK && strcmp(params->value, odd.client_id) == 0, "and decode again");
	is_str(decoded_basic(code_request(load("{" MINIMAL ",'client_auth':['client_secret_basic_raw']," ENDPOINTS "}", NULL, NULL),
									  &(OvClient) {"i d", "s:%"}, "c")), "i d:s:%", "raw where the rules say so");
	ok(code_request(load("{" MINIMAL ",'client_auth':['client_secret_basic_raw']," ENDPOINTS "}", NULL, NULL), &odd, "c") == NULL,
	   "but not with a colon in the id");
	is_str(decoded_basic(code_request(load("{" MINIMAL ",'token':{'url':'https://as.example/t','auth':'client_secret_user'}}", NULL, NULL), &client, "c")),
		   "secret:", "a secret as the user");

	is_str(code_request(load("{" MINIMAL "," ENDPOINTS "}", NULL, NULL), &public, "c"), HEAD "\n" CODE_BODY "&client_id=id",
		   "a public client names itself");
	ok(strstr(code_request(load("{" MINIMAL "," ENDPOINTS "}", "{'token_endpoint_auth_methods_supported':['client_secret_post','client_secret_basic']}", NULL),
						   &client, "c"), "Authorization: Basic") != NULL, "of the metadata's methods basic is first");
	ok(strstr(code_request(load("{" MINIMAL "," ENDPOINTS "}", "{'token_endpoint_auth_methods_supported':['tls_client_auth','client_secret_post']}", NULL),
						   &client, "c"), "&client_secret=secret") != NULL, "then post");
	ok(code_request(load("{" MINIMAL "," ENDPOINTS "}", "{'token_endpoint_auth_methods_supported':['tls_client_auth']}", NULL), &client, "c") == NULL &&
	   strstr(err.message, "no client authentication") != NULL, "then none at all");
	ok(strstr(code_request(load("{" MINIMAL ",'client_auth':['client_secret_post']," ENDPOINTS "}",
								"{'token_endpoint_auth_methods_supported':['client_secret_basic']}", NULL), &client, "c"),
			  "&client_secret=secret") != NULL, "the rules' methods win");
	ok(code_request(load("{" MINIMAL ",'client_auth':['none']," ENDPOINTS "}", NULL, NULL), &client, "c") == NULL, "a secret nobody wants");
	is_str(code_request(load("{" MINIMAL ",'token':{'url':'https://as.example/t','auth':'none'}}", NULL, NULL), &client, "c"), HEAD "\n" CODE_BODY,
		   "no authentication where the rules say so");
}

static void
assertions(void)
{
	static const char server[] = "{'issuer':'https://as.example','token_endpoint_auth_methods_supported':['client_secret_basic','private_key_jwt']}";
	char	   *private_jwk,
			   *public_jwk,
			   *previous = NULL;
	const OvJson *set,
			   *header,
			   *claims;
	OvJwks	   *keys;
	OvClient	signer = {"id", NULL};
	OvParam    *params;
	const char *text,
			   *jwt;
	int64_t		iat,
				exp;

	if (ov_jwk_generate(arena, &private_jwk, &public_jwk, &err) != OV_OK)
		exit(1);
	signer.client_secret = private_jwk;
	text = ov_arena_printf(arena, "{\"keys\":[%s]}", public_jwk);
	if (ov_json_parse(arena, text, strlen(text), &set, &err) != OV_OK || ov_jwks_parse(set, &keys, &err) != OV_OK)
		exit(1);
	for (int i = 0; i < 2; i++)
	{
		text = code_request(load("{" MINIMAL "," ENDPOINTS "}", server, NULL), &signer, "c");
		ok(text != NULL && strstr(text, "Authorization") == NULL, "a private key means private_key_jwt, alone");
		text = strstr(text, "\n\n") + 2;
		if (ov_form_parse(arena, text, strlen(text), &params, &err) != OV_OK)
			exit(1);
		is_str(ov_param(params, "client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "its type (RFC 7523 section 2.2)");
		is_int(ov_param_count(params, "client_assertion"), 1, "one assertion");
		is_str(ov_param(params, "client_id"), "id", "the client named");
		ok(ov_param(params, "client_secret") == NULL && strstr(text, "%22d%22") == NULL, "the key itself is not sent");
		jwt = ov_param(params, "client_assertion");
		ok(ov_jwt_verify(arena, jwt, strlen(jwt), keys, &header, &claims, &err) == OV_OK, "signed with the key");
		is_str(ov_json_get_string(claims, "iss"), "id", "iss");
		is_str(ov_json_get_string(claims, "sub"), "id", "sub");
		is_str(ov_json_get_string(claims, "aud"), "https://as.example", "aud: the issuer, a string");
		ok(ov_json_int64(ov_json_get(claims, "iat"), false, &iat) && ov_json_int64(ov_json_get(claims, "exp"), false, &exp) &&
		   exp - iat == 60, "good for a minute");
		ok(previous == NULL || strcmp(previous, ov_json_get_string(claims, "jti")) != 0, "once");
		previous = ov_arena_strdup(arena, ov_json_get_string(claims, "jti"));
	}
	text = code_request(load("{" MINIMAL ",'issuer':'https://as.example','assertion_audience':'token_endpoint','client_auth':['private_key_jwt'],"
							 ENDPOINTS "}", NULL, NULL), &signer, "c");
	text = strstr(text, "client_assertion=") + strlen("client_assertion=");
	ok(ov_jwt_peek(arena, text, strlen(text), &header, &claims, &err) == OV_OK, "another audience");
	is_str(ov_json_get_string(claims, "aud"), "https://as.example/t", "where the rules say so");
	ok(code_request(load("{" MINIMAL ",'client_auth':['client_secret_post']," ENDPOINTS "}", NULL, NULL), &signer, "c") == NULL,
	   "a private key is never sent as a secret");
	ok(code_request(load("{" MINIMAL ",'token':{'url':'https://as.example/t','auth':'client_secret_post'}}", NULL, NULL), &signer, "c") == NULL,
	   "not by a rule either");
	text = code_request(load("{" MINIMAL ",'token':{'url':'https://as.example/t','auth':'none','params':{'k':'{client_secret}'}}}", NULL, NULL), &signer, "c");
	ok(text != NULL && strstr(text, "k=") == NULL, "nor by a template");
	ov_jwks_free(keys);
}

static void
refresh(void)
{
	const OvProvider *post = load("{" MINIMAL ",'client_auth':['client_secret_post']," ENDPOINTS "}", NULL, NULL);

	is_str(refresh_request(post, &client, "r/1", "a"), HEAD "\ngrant_type=refresh_token&refresh_token=r%2F1&client_id=id&client_secret=secret",
		   "RFC 6749 section 6: authenticated like the code exchange");
	ok(refresh_request(post, &client, NULL, "a") == NULL, "no refresh without a refresh token");
	is_str(refresh_request(load("{" MINIMAL ",'client_auth':['client_secret_post'],'token':{'url':'https://as.example/t','format':'json',"
								"'headers':{'X-A':'1'},'params':{'not':'inherited'}},'refresh':{'url':'https://as.example/r','params':{'x':'{access_token}'}}}",
								NULL, NULL), &client, "r", "a"),
		   "POST https://as.example/r\nX-A: 1\nAccept: application/json\nContent-Type: application/json\n\n"
		   "{\"grant_type\":\"refresh_token\",\"refresh_token\":\"r\",\"client_id\":\"id\",\"client_secret\":\"secret\",\"x\":\"a\"}",
		   "an endpoint of its own, the form of the code exchange");
	is_str(refresh_request(load("{" MINIMAL ",'refresh':{'strategy':'exchange','url':'https://as.example/x','method':'GET','auth':'none','format':'query',"
								"'params':{'grant_type':'renew','access_token':'{access_token}'}}}", NULL, NULL), &client, NULL, "a/1"),
		   "GET https://as.example/x?grant_type=renew&access_token=a%2F1\nAccept: application/json\n", "the access token for a new one");
	ok(refresh_request(load("{" MINIMAL ",'refresh':{'strategy':'exchange','url':'https://as.example/x'}}", NULL, NULL), &client, "r", NULL) == NULL,
	   "but not without one");
	is_str(refresh_request(load("{" MINIMAL ",'client_auth':['client_secret_post'],'variables':{'i':{'pattern':'.*'}},'token':{'url':'https://as.example/t'},"
								"'refresh':{'strategy':'client_credentials','params':{'instance_id':'{i}'}}}", NULL, "{'i':'7'}"), &client, NULL, NULL),
		   HEAD "\ngrant_type=client_credentials&client_id=id&client_secret=secret&instance_id=7", "the client's own standing");
	ok(refresh_request(load("{" MINIMAL ",'refresh':{'strategy':'none'}," ENDPOINTS "}", NULL, NULL), &client, "r", "a") == NULL, "none at all");
}

static void
revocation(void)
{
	static const char server[] = "{'token_endpoint':'https://as.example/t','revocation_endpoint':'https://as.example/r'}";
	OvHttpRequest req;

	is_str(revoke_request(load("{" MINIMAL ",'client_auth':['client_secret_post']}", server, NULL), &client, "refresh_token"),
		   "POST https://as.example/r\nAccept: application/json\nContent-Type: application/x-www-form-urlencoded\n\n"
		   "token=tok&token_type_hint=refresh_token&client_id=id&client_secret=secret", "RFC 7009 section 2.1");
	ok(strstr(revoke_request(load("{" MINIMAL "}", server, NULL), &client, "access_token"), "token_type_hint=access_token") != NULL, "the other kind");
	ok(strstr(revoke_request(load("{" MINIMAL ",'revocation':{'access_token':{'rename':{'token_type_hint':''}}}}", server, NULL), &client, "access_token"),
			  "\n\ntoken=tok") != NULL, "the endpoint of the metadata with the rules' parameters");
	is_int(ov_revoke_request(arena, load("{" MINIMAL ",'revocation':{'access_token':{}}}", server, NULL), &client, "refresh_token", "tok", &req, &err),
		   OV_E_NOTFOUND, "no step for this kind");
	is_int(ov_revoke_request(arena, load("{" MINIMAL "," ENDPOINTS "}", NULL, NULL), &client, "refresh_token", "tok", &req, &err), OV_E_NOTFOUND,
		   "no endpoint");
	is_int(ov_revoke_request(arena, load("{" MINIMAL ",'revocation':{'absent':'x'}}", server, NULL), &client, "refresh_token", "tok", &req, &err),
		   OV_E_NOTFOUND, "none, by the rules");
	is_str(revoke_request(load("{" MINIMAL ",'revocation':{'access_token':{'url':'https://as.example/r','auth':'bearer','format':'none'}}}", NULL, NULL),
						  &client, "access_token"), "POST https://as.example/r\nAuthorization: Bearer tok\nAccept: application/json\n", "by the token itself");
	is_str(revoke_request(load("{" MINIMAL ",'api':{'header':{'name':'X-T','value':'t={access_token}'}},"
							   "'revocation':{'access_token':{'url':'https://as.example/{client_id}/r','auth':'api','format':'none','method':'DELETE'}}}",
							   NULL, NULL), &(OvClient) {"i/d", "s"}, "access_token"),
		   "DELETE https://as.example/i%2Fd/r\nX-T: t=tok\nAccept: application/json\n", "as an API call; the client in the path");
	is_str(revoke_request(load("{" MINIMAL ",'revocation':{'access_token':{'url':'https://as.example/r','auth':'none','format':'json',"
							   "'headers':{'Authorization':'Client {client_secret}'},'rename':{'token':'access_token','token_type_hint':''},"
							   "'params':{'client_id':'{client_id}'}}}}", NULL, NULL), &client, "access_token"),
		   "POST https://as.example/r\nAuthorization: Client secret\nAccept: application/json\nContent-Type: application/json\n\n"
		   "{\"access_token\":\"tok\",\"client_id\":\"id\"}", "with a header of its own");
}

int
main(void)
{
	arena = ov_arena_new();
	authorization();
	exchange();
	authentication();
	assertions();
	refresh();
	revocation();
	ov_arena_free(arena);
	return done_testing();
}
