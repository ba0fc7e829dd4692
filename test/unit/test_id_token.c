/*
 * test_id_token.c
 *	  ID tokens from the token endpoint: OpenID Connect Core section 3.1.3.7.
 */
#include "core/codec.h"
#include "core/id_token.h"
#include "provider_fixture.h"
#include "tap.h"

#define NOW 1700000000
#define ISS "\"iss\":\"https://as.example/t1\""
#define AUD "\"aud\":\"client\""
#define SUB "\"sub\":\"ada\""
#define EXP "\"exp\":1700000600"
#define IAT "\"iat\":1700000000"
#define NONCE "\"nonce\":\"n-1\""
#define REST(aud) "{" ISS "," aud "," SUB "," EXP "," IAT "," NONCE "}"
#define TIMES(times) "{" ISS "," AUD "," SUB "," NONCE "," times "}"
#define WITH(claim) "{" ISS "," AUD "," SUB "," EXP "," IAT "," NONCE "," claim "}"
#define GOOD "{" ISS "," AUD "," SUB "," EXP "," IAT "," NONCE "}"
#define RS256 "{\"alg\":\"RS256\"}"

#define S51 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define S255 S51 S51 S51 S51 S51

static const OvProvider *exact;	/* with the issuer ISS */

static const char *
encode(const char *text)
{
	return ov_b64url(arena, text, strlen(text));
}

static const char *
token(const char *header, const char *claims)
{
	return ov_arena_printf(arena, "%s.%s.%s", encode(header), encode(claims), encode("a signature"));
}

static OvCode
check(const char *jwt, const OvProvider *provider, const char *nonce, const char **subject)
{
	OvError		why = {0};
	OvCode		rc = ov_id_token_check(arena, jwt, provider, "client", nonce, NOW, subject, &why);

	if ((rc == OV_OK) != (why.message[0] == '\0') || why.code != rc || (rc == OV_OK) != (*subject != NULL))
		diag("code %d with message \"%s\" and subject %s", (int) rc, why.message, *subject ? *subject : "NULL");
	return rc;
}

static void
claims(void)
{
	static const struct
	{
		const char *name,
				   *claims;
		OvCode		code;
	}			cases[] = {
		{"all there", GOOD, OV_OK},
		{"our audience in an array", REST("\"aud\":[\"client\"]"), OV_OK},
		{"several audiences and azp", REST("\"aud\":[\"api\",\"client\"],\"azp\":\"client\""), OV_OK},
		{"one audience and azp", REST(AUD ",\"azp\":\"client\""), OV_OK},
		{"claims nobody knows", WITH("\"act\":{\"sub\":\"x\"},\"roles\":[1,{}]"), OV_OK},
		{"expired within the leeway", TIMES("\"exp\":1699999941,\"iat\":1699999000"), OV_OK},
		{"issued a minute ahead", TIMES(EXP ",\"iat\":1700000060"), OV_OK},
		{"valid in a minute", WITH("\"nbf\":1700000060"), OV_OK},
		{"times with fractions", TIMES("\"exp\":1700000600.5,\"iat\":1699999999.9"), OV_OK},
		{"a subject of 255 bytes", "{" ISS "," AUD ",\"sub\":\"" S255 "\"," EXP "," IAT "," NONCE "}", OV_OK},
		{"another audience", REST("\"aud\":\"other\""), OV_E_DENIED},
		{"an audience that begins like ours", REST("\"aud\":\"client2\""), OV_E_DENIED},
		{"an audience that differs by case", REST("\"aud\":\"Client\""), OV_E_DENIED},
		{"other audiences", REST("\"aud\":[\"a\",\"b\"],\"azp\":\"client\""), OV_E_DENIED},
		{"no audience in an array", REST("\"aud\":[]"), OV_E_DENIED},
		{"no audience", "{" ISS "," SUB "," EXP "," IAT "," NONCE "}", OV_E_DENIED},
		{"several audiences and no azp", REST("\"aud\":[\"client\",\"api\"]"), OV_E_DENIED},
		{"several audiences and another azp", REST("\"aud\":[\"client\",\"api\"],\"azp\":\"api\""), OV_E_DENIED},
		{"one audience and another azp", REST(AUD ",\"azp\":\"api\""), OV_E_DENIED},
		{"azp that is no string", REST(AUD ",\"azp\":[\"client\"]"), OV_E_DENIED},
		{"azp null", REST(AUD ",\"azp\":null"), OV_E_DENIED},
		{"an audience that is a number", REST("\"aud\":[\"client\",5],\"azp\":\"client\""), OV_E_SYNTAX},
		{"an audience that is an object", REST("\"aud\":{\"client\":\"client\"}"), OV_E_SYNTAX},
		{"audience null", REST("\"aud\":null"), OV_E_SYNTAX},
		{"expired", TIMES("\"exp\":1699999940,\"iat\":1699999000"), OV_E_EXPIRED},
		{"expired long ago", TIMES("\"exp\":0,\"iat\":0"), OV_E_EXPIRED},
		{"a negative expiry", TIMES("\"exp\":-1,\"iat\":0"), OV_E_EXPIRED},
		{"no expiry", TIMES(IAT), OV_E_SYNTAX},
		{"an expiry that is a string", TIMES("\"exp\":\"1700000600\"," IAT), OV_E_SYNTAX},
		{"an expiry that overflows", TIMES("\"exp\":99999999999999999999," IAT), OV_E_SYNTAX},
		{"an expiry with an exponent", TIMES("\"exp\":1e300," IAT), OV_E_SYNTAX},
		{"expiry null", TIMES("\"exp\":null," IAT), OV_E_SYNTAX},
		{"no time of issue", TIMES(EXP), OV_E_SYNTAX},
		{"a time of issue that is a string", TIMES(EXP ",\"iat\":\"1700000000\""), OV_E_SYNTAX},
		{"issued in the future", TIMES(EXP ",\"iat\":1700000061"), OV_E_DENIED},
		{"not valid yet", WITH("\"nbf\":1700000061"), OV_E_DENIED},
		{"nbf that is a string", WITH("\"nbf\":\"0\""), OV_E_SYNTAX},
		{"no issuer", "{" AUD "," SUB "," EXP "," IAT "," NONCE "}", OV_E_SYNTAX},
		{"an issuer that is no string", "{\"iss\":[\"https://as.example/t1\"]," AUD "," SUB "," EXP "," IAT "," NONCE "}", OV_E_SYNTAX},
		{"an empty issuer", "{\"iss\":\"\"," AUD "," SUB "," EXP "," IAT "," NONCE "}", OV_E_SYNTAX},
		{"an issuer with a slash more", "{\"iss\":\"https://as.example/t1/\"," AUD "," SUB "," EXP "," IAT "," NONCE "}", OV_E_DENIED},
		{"no nonce", "{" ISS "," AUD "," SUB "," EXP "," IAT "}", OV_E_DENIED},
		{"another nonce", "{" ISS "," AUD "," SUB "," EXP "," IAT ",\"nonce\":\"n-2\"}", OV_E_DENIED},
		{"a nonce that is no string", "{" ISS "," AUD "," SUB "," EXP "," IAT ",\"nonce\":1}", OV_E_DENIED},
		{"no subject", "{" ISS "," AUD "," EXP "," IAT "," NONCE "}", OV_E_SYNTAX},
		{"an empty subject", "{" ISS "," AUD ",\"sub\":\"\"," EXP "," IAT "," NONCE "}", OV_E_SYNTAX},
		{"a subject that is a number", "{" ISS "," AUD ",\"sub\":5," EXP "," IAT "," NONCE "}", OV_E_SYNTAX},
		{"a subject of 256 bytes", "{" ISS "," AUD ",\"sub\":\"x" S255 "\"," EXP "," IAT "," NONCE "}", OV_E_SYNTAX},
		{"a subject with a NUL", "{" ISS "," AUD ",\"sub\":\"ada\\u0000\"," EXP "," IAT "," NONCE "}", OV_E_SYNTAX},
		{"the subject twice", WITH("\"sub\":\"eve\""), OV_E_SYNTAX},
		{"the subject twice, once escaped", WITH("\"\\u0073ub\":\"eve\""), OV_E_SYNTAX},
		{"the issuer twice", WITH(ISS), OV_E_SYNTAX},
		{"the audience twice", WITH(AUD), OV_E_SYNTAX},
		{"the expiry twice", WITH("\"exp\":1"), OV_E_SYNTAX},
		{"the time of issue twice", WITH(IAT), OV_E_SYNTAX},
		{"the nonce twice", WITH(NONCE), OV_E_SYNTAX},
		{"the authorized party twice", WITH("\"azp\":\"client\",\"azp\":\"api\""), OV_E_SYNTAX},
		{"an array", "[]", OV_E_SYNTAX},
		{"nothing", "", OV_E_SYNTAX},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const char *subject = "stale";

		is_int(check(token(RS256, cases[i].claims), exact, "n-1", &subject), cases[i].code,
			   "claims %s: %s", cases[i].code == OV_OK ? "accepted" : "refused", cases[i].name);
		ok((subject != NULL) == (cases[i].code == OV_OK), "with a subject only if accepted");
	}
}

static void
headers(void)
{
	static const struct
	{
		const char *header;
		OvCode		code;
	}			cases[] = {
		{RS256, OV_OK},
		{"{\"alg\":\"ES256\",\"kid\":\"k\",\"typ\":\"JWT\"}", OV_OK},
		{"{\"alg\":\"HS256\"}", OV_OK},
		{"{\"alg\":\"none\"}", OV_E_DENIED},
		{"{\"alg\":\"NONE\"}", OV_E_DENIED},
		{"{\"alg\":\"RS256\",\"crit\":[\"x\"],\"x\":1}", OV_E_DENIED},
		{"{\"alg\":\"RS256\",\"alg\":\"none\"}", OV_E_SYNTAX},
		{"{\"alg\":\"\"}", OV_E_SYNTAX},
		{"{\"alg\":null}", OV_E_SYNTAX},
		{"{\"alg\":[\"RS256\"]}", OV_E_SYNTAX},
		{"{}", OV_E_SYNTAX},
		{"[]", OV_E_SYNTAX},
		{"", OV_E_SYNTAX},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const char *subject;

		is_int(check(token(cases[i].header, GOOD), exact, "n-1", &subject), cases[i].code,
			   "header %s: %s", cases[i].code == OV_OK ? "accepted" : "refused", cases[i].header);
	}
}

static void
forms(void)
{
	const char *subject,
			   *good = token(RS256, GOOD);
	const char *h = encode(RS256),
			   *c = encode(GOOD);
	char	   *big = ov_arena_alloc(arena, 40000),
			   *groups = ov_arena_alloc(arena, 12001);

	is_int(check(good, exact, "n-1", &subject), OV_OK, "a good token is good");
	is_str(subject, "ada", "and names its subject");
	is_int(check(good, NULL, "n-1", &subject), OV_OK, "any issuer will do when none is asked for");
	is_int(check(good, exact, NULL, &subject), OV_OK, "any nonce when none was sent");
	is_int(check(token(RS256, "{" AUD "," SUB "," EXP "," IAT "}"), NULL, NULL, &subject), OV_E_SYNTAX,
		   "but an issuer there must be");
	is_int(check("", NULL, NULL, &subject), OV_E_SYNTAX, "nothing is no token");
	is_int(check("opaque", NULL, NULL, &subject), OV_E_SYNTAX, "nor is an opaque string");
	is_int(check(ov_arena_printf(arena, "%s.%s", h, c), NULL, NULL, &subject), OV_E_SYNTAX, "two parts");
	is_int(check(ov_arena_printf(arena, "%s.%s.", h, c), NULL, NULL, &subject), OV_E_DENIED, "an empty signature");
	is_int(check(ov_arena_printf(arena, "%s.%s.!", h, c), NULL, NULL, &subject), OV_E_SYNTAX, "a signature that is no base64url");
	is_int(check(ov_arena_printf(arena, "%s.k.i.c.t", h), NULL, NULL, &subject), OV_E_SYNTAX, "five parts, as of a JWE");
	memset(groups, 'g', 12000);
	is_int(check(token(RS256, ov_arena_printf(arena, "{" ISS "," AUD "," SUB "," EXP "," IAT ",\"groups\":[\"%s\"]}", groups)),
				 NULL, NULL, &subject), OV_OK, "a token of somebody in very many groups");
	memset(big, 'A', 39999);
	is_int(check(big, NULL, NULL, &subject), OV_E_LIMIT, "a token of 40 kB");
}

/* An issuer per tenant: a pattern, of the catalogue's own provider too */
static void
issuers(void)
{
	static const struct
	{
		const char *issuer;
		OvCode		code;
	}			cases[] = {
		{"https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", OV_OK},
		{"https://login.microsoftonline.com/common/v2.0", OV_E_DENIED},
		{"https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0/", OV_E_DENIED},
		{"https://login.microsoftonline.us/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", OV_E_DENIED},
		{"https://as.example/t1", OV_E_DENIED},
	};
	const OvProvider *by_pattern = load_catalogue("microsoft", NULL, NULL);
	const OvProvider *unknown = load("{" MINIMAL "}", NULL, NULL);
	const char *subject;

	is_str(ov_provider_issuer(by_pattern), NULL, "no issuer to compare with");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_int(check(token(RS256, ov_arena_printf(arena, "{\"iss\":\"%s\"," AUD "," SUB "," EXP "," IAT "}",
												   cases[i].issuer)), by_pattern, NULL, &subject), cases[i].code,
			   "of a tenant: %s", cases[i].issuer);
	is_int(check(token(RS256, GOOD), unknown, "n-1", &subject), OV_OK, "rules that know no issuer take any");
}

/* With a refresh: section 12.2 */
static void
renewed(void)
{
#define OF(iss, aud, sub) "{\"iss\":\"" iss "\",\"aud\":\"" aud "\",\"sub\":\"" sub "\"," EXP "," IAT "}"
#define T1 "https://as.example/t1"
	static const struct
	{
		const char *name,
				   *header,
				   *claims;
		OvCode		code;
		bool		foreign;
	}			cases[] = {
		{"the same person", RS256, OF(T1, "client", "ada"), OV_OK, false},
		{"a nonce, which it need not have", RS256, GOOD, OV_OK, false},
		{"another person", RS256, OF(T1, "client", "eve"), OV_E_DENIED, true},
		{"a person who differs by case", RS256, OF(T1, "client", "Ada"), OV_E_DENIED, true},
		{"a person who begins like ours", RS256, OF(T1, "client", "ada1"), OV_E_DENIED, true},
		{"another issuer", RS256, OF("https://as.example/t2", "client", "ada"), OV_E_DENIED, true},
		{"another client", RS256, OF(T1, "other", "ada"), OV_E_DENIED, true},
		{"issued to another client", RS256, WITH("\"azp\":\"api\""), OV_E_DENIED, true},
		{"another person, expired", RS256, "{" ISS "," AUD ",\"sub\":\"eve\",\"exp\":1," IAT "}", OV_E_DENIED, true},
		{"another person, unsigned by name", "{\"alg\":\"none\"}", OF(T1, "client", "eve"), OV_E_DENIED, true},
		{"the same person, unsigned by name", "{\"alg\":\"none\"}", GOOD, OV_E_DENIED, false},
		{"the same person, expired", RS256, TIMES("\"exp\":1," IAT), OV_E_EXPIRED, false},
		{"the same person, from the future", RS256, TIMES(EXP ",\"iat\":1700000061"), OV_E_DENIED, false},
		{"no person", RS256, "{" ISS "," AUD "," EXP "," IAT "}", OV_E_SYNTAX, false},
		{"two people", RS256, WITH("\"sub\":\"eve\""), OV_E_SYNTAX, false},
		{"no claims", RS256, "[]", OV_E_SYNTAX, false},
	};
	const OvProvider *named = load("{" MINIMAL ",'issuer':'https://as.example/t1','subject':'{/id}'}", NULL, NULL);
	const char *eve = token(RS256, OF(T1, "client", "eve"));
	bool		foreign;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		OvError		why = {0};

		foreign = !cases[i].foreign;
		is_int(ov_id_token_renewed(arena, token(cases[i].header, cases[i].claims), exact, "client", "ada", NOW, &foreign, &why),
			   cases[i].code, "with a refresh, %s: %s", cases[i].code == OV_OK ? "kept" : "not kept", cases[i].name);
		ok(foreign == cases[i].foreign, "and %s", cases[i].foreign ? "somebody else's" : "nobody else's");
	}
	is_int(ov_id_token_renewed(arena, eve, exact, "client", NULL, NOW, &foreign, NULL), OV_OK, "whoever, if nobody is pinned");
	is_int(ov_id_token_renewed(arena, eve, named, "client", "4711", NOW, &foreign, NULL), OV_OK,
		   "an account that the rules name is not compared with \"sub\"");
	is_int(ov_id_token_renewed(arena, eve, NULL, "client", "ada", NOW, &foreign, NULL), OV_E_DENIED, "without rules it is");
}

int
main(void)
{
	arena = ov_arena_new();
	exact = load("{" MINIMAL ",'issuer':'https://as.example/t1'}", NULL, NULL);
	claims();
	issuers();
	headers();
	forms();
	renewed();
	ov_arena_free(arena);
	return done_testing();
}
