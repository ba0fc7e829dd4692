/*
 * test_jwt.c
 *	  JWT assertions: the RFCs' vectors, and every way to get around a key.
 *
 * Includes the code, to reach the signature check below the claims: the
 * payload of RFC 8037 appendix A.4 is not JSON.
 */
#include "core/jwt.c"
#include "tap.h"

/* RFC 7515 appendix A.2.1 */
#define RSA_N "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
#define RSA_D "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ"
#define RSA_PUBLIC "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"}"
#define RFC_PAYLOAD "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
#define RS256_JWS "eyJhbGciOiJSUzI1NiJ9." RFC_PAYLOAD ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"

/* RFC 7515 appendix A.3.1 */
#define EC_XY "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\""
#define EC_PUBLIC "{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "}"
#define EC_PRIVATE "{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY ",\"d\":\"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI\"}"
#define ES256_JWS "eyJhbGciOiJFUzI1NiJ9." RFC_PAYLOAD ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"

/* RFC 8037 appendices A.1, A.3 and A.4 */
#define ED_X "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#define ED_PUBLIC "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "\"}"
#define ED_PRIVATE "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\",\"x\":\"" ED_X "\"}"
#define ED_THUMBPRINT "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
#define ED_JWS "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"

static OvArena *arena;

static const OvJson *
json(const char *text)
{
	const OvJson *v = NULL;

	ov_json_parse(arena, text, strlen(text), &v, NULL);
	return v;
}

/* The set of these keys, or NULL; *code says why */
static OvJwks *
jwks(const char *keys, OvCode *code)
{
	OvJwks	   *set;
	OvCode		rc = ov_jwks_parse(json(ov_arena_printf(arena, "{\"keys\":[%s]}", keys)), &set, NULL);

	if (code != NULL)
		*code = rc;
	return set;
}

static OvCode
verify_n(const char *jwt, size_t len, const OvJwks *keys)
{
	const OvJson *header,
			   *claims;
	char	   *exact = malloc(len ? len : 1);
	OvError		err = {0};
	OvCode		rc;

	memcpy(exact, jwt, len);
	rc = ov_jwt_verify(arena, exact, len, keys, &header, &claims, &err);
	if ((rc == OV_OK) != (err.message[0] == '\0'))
		diag("code %d with message \"%s\"", (int) rc, err.message);
	free(exact);
	return rc;
}

static OvCode
verify(const char *jwt, const OvJwks *keys)
{
	return verify_n(jwt, strlen(jwt), keys);
}

static const char *
encode(const char *text)
{
	return ov_b64url(arena, text, strlen(text));
}

/* A token with any header and claims, rightly signed by the Ed25519 key */
static const char *
signed_with(const char *header, const char *claims)
{
	const char *input = ov_arena_printf(arena, "%s.%s", encode(header), encode(claims));
	unsigned char sig[64];
	size_t		siglen = sizeof(sig);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	Key			key;

	import_key(arena, json(ED_PRIVATE), true, &key, NULL);
	EVP_DigestSignInit(ctx, NULL, NULL, NULL, key.pkey);
	EVP_DigestSign(ctx, sig, &siglen, (const unsigned char *) input, strlen(input));
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key.pkey);
	return ov_arena_printf(arena, "%s.%s", input, ov_b64url(arena, sig, siglen));
}

static void
known_answers(void)
{
	OvJwks	   *rsa = jwks(RSA_PUBLIC, NULL),
			   *ec = jwks(EC_PUBLIC, NULL),
			   *ed = jwks(ED_PUBLIC, NULL),
			   *all = jwks(ED_PUBLIC "," EC_PUBLIC "," RSA_PUBLIC, NULL);
	const OvJson *header,
			   *claims;
	unsigned char *sig;
	size_t		siglen;
	const char *dot = strrchr(ED_JWS, '.');
	char	   *jws;

	is_int(verify(RS256_JWS, rsa), OV_OK, "RFC 7515 appendix A.2 verifies");
	is_int(verify(ES256_JWS, ec), OV_OK, "RFC 7515 appendix A.3 verifies");
	is_int(ov_jwt_verify(arena, ES256_JWS, strlen(ES256_JWS), all, &header, &claims, NULL), OV_OK, "and in a set with other keys");
	is_str(ov_json_get_string(claims, "iss"), "joe", "its claims are handed out");
	is_str(ov_json_get_string(header, "alg"), "ES256", "and its header");
	is_int(verify(RS256_JWS, ec), OV_E_AUTH, "RS256 does not verify with a P-256 key");
	is_int(verify(ES256_JWS, rsa), OV_E_AUTH, "nor ES256 with an RSA key");
	is_int(verify(ES256_JWS, ed), OV_E_AUTH, "nor ES256 with an Ed25519 key");

	ov_b64url_decode(arena, dot + 1, strlen(dot + 1), &sig, &siglen);
	ok(verify_signature(&ed->keys[0], false, sig, siglen, ED_JWS, (size_t) (dot - ED_JWS)), "RFC 8037 appendix A.5 verifies");
	sig[0] ^= 1;
	ok(!verify_signature(&ed->keys[0], false, sig, siglen, ED_JWS, (size_t) (dot - ED_JWS)), "and not with a bit changed");
	is_int(verify(ED_JWS, ed), OV_E_SYNTAX, "its payload is no claims set");
	is_int(ov_jwt_sign(arena, json(ED_PRIVATE), NULL, "Example of Ed25519 signing", &jws, NULL), OV_OK, "RFC 8037 appendix A.4 signs");
	is_str(jws, ED_JWS, "to the RFC's own JWS");
	is_str(ed25519_thumbprint(arena, ED_X), ED_THUMBPRINT, "the RFC 7638 thumbprint of RFC 8037 appendix A.3");
	ov_jwks_free(rsa);
	ov_jwks_free(ec);
	ov_jwks_free(ed);
	ov_jwks_free(all);
	ov_jwks_free(NULL);
}

static void
signing(void)
{
	static const struct
	{
		const char *alg,
				   *private,
				   *public;
	}			keys[] = {
		{"EdDSA", ED_PRIVATE, ED_PUBLIC},
		{"ES256", EC_PRIVATE, EC_PUBLIC},
		{"RS256", "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\",\"d\":\"" RSA_D "\"}", RSA_PUBLIC},
		{"PS256", "{\"kty\":\"RSA\",\"alg\":\"PS256\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\",\"d\":\"" RSA_D "\"}",
		"{\"kty\":\"RSA\",\"alg\":\"PS256\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"}"},
	};
	const OvJson *header,
			   *claims;
	char	   *jwt,
			   *private_jwk,
			   *public_jwk;
	OvJwks	   *set;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
	{
		int			changed = 0,
					refused = 0;

		set = jwks(keys[i].public, NULL);
		is_int(ov_jwt_sign(arena, json(keys[i].private), "\"typ\":\"JWT\"", "{\"sub\":\"ada\"}", &jwt, NULL), OV_OK, "%s signs", keys[i].alg);
		is_int(ov_jwt_verify(arena, jwt, strlen(jwt), set, &header, &claims, NULL), OV_OK, "%s verifies", keys[i].alg);
		is_str(ov_json_get_string(header, "alg"), keys[i].alg, "%s is what the header says", keys[i].alg);
		is_str(ov_json_get_string(header, "typ"), "JWT", "with the member asked for");
		for (char *c = jwt; *c != '\0'; c++)
		{
			char		was = *c;

			if (was == '.')
				continue;
			*c = was == 'A' ? 'B' : 'A';
			changed++;
			refused += verify(jwt, set) != OV_OK;
			*c = was;
		}
		is_int(refused, changed, "%s does not verify with any character changed", keys[i].alg);
		for (refused = 0, changed = 0; jwt[changed] != '\0'; changed++)
			refused += verify_n(jwt, (size_t) changed, set) != OV_OK;
		is_int(refused, changed, "nor cut short at any length");
		ov_jwks_free(set);
	}
	is_int(ov_jwk_generate(arena, &private_jwk, &public_jwk, NULL), OV_OK, "a key is generated");
	ok(ov_json_get(json(public_jwk), "d") == NULL, "its public half holds nothing private");
	is_str(ov_json_get_string(json(public_jwk), "kid"), ed25519_thumbprint(arena, ov_json_get_string(json(public_jwk), "x")),
		   "its kid is the thumbprint");
	ov_jwt_sign(arena, json(private_jwk), NULL, "{\"sub\":\"ada\"}", &jwt, NULL);
	set = jwks(public_jwk, NULL);
	is_int(verify(jwt, set), OV_OK, "what it signs verifies");
	ov_jwks_free(set);
	set = jwks(ED_PUBLIC, NULL);
	is_int(verify(jwt, set), OV_E_AUTH, "and not with another key");
	ov_jwks_free(set);
	ok(ov_jwt_sign(arena, json("{\"kty\":\"oct\",\"k\":\"AAAA\"}"), NULL, "{}", &jwt, NULL) != OV_OK, "a symmetric key does not sign");
	ok(ov_jwt_sign(arena, json(ED_PUBLIC), NULL, "{}", &jwt, NULL) != OV_OK &&
	   ov_jwt_sign(arena, json(EC_PUBLIC), NULL, "{}", &jwt, NULL) != OV_OK &&
	   ov_jwt_sign(arena, json(RSA_PUBLIC), NULL, "{}", &jwt, NULL) != OV_OK, "nor does a public one");
}

static void
headers(void)
{
	static const struct
	{
		const char *name,
				   *header,
				   *claims;
		OvCode		code;
	}			cases[] = {
		{"EdDSA", "{\"alg\":\"EdDSA\"}", "{\"sub\":\"ada\"}", OV_OK},
		{"with typ JWT", "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}", "{}", OV_OK},
		{"with typ jwt", "{\"alg\":\"EdDSA\",\"typ\":\"jwt\"}", "{}", OV_OK},
		{"with typ at+jwt", "{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"}", "{}", OV_OK},
		{"with a member nobody knows", "{\"alg\":\"EdDSA\",\"x\":{\"y\":[1]}}", "{}", OV_OK},
		{"with any kid, the key having none", "{\"alg\":\"EdDSA\",\"kid\":\"../../etc/passwd\"}", "{}", OV_OK},
		{"alg none", "{\"alg\":\"none\"}", "{}", OV_E_DENIED},
		{"alg None", "{\"alg\":\"None\"}", "{}", OV_E_DENIED},
		{"alg HS256", "{\"alg\":\"HS256\"}", "{}", OV_E_DENIED},
		{"alg RS512", "{\"alg\":\"RS512\"}", "{}", OV_E_DENIED},
		{"alg ES384", "{\"alg\":\"ES384\"}", "{}", OV_E_DENIED},
		{"alg eddsa", "{\"alg\":\"eddsa\"}", "{}", OV_E_DENIED},
		{"alg EdDSA with a space", "{\"alg\":\"EdDSA \"}", "{}", OV_E_DENIED},
		{"alg empty", "{\"alg\":\"\"}", "{}", OV_E_DENIED},
		{"no alg", "{}", "{}", OV_E_DENIED},
		{"alg null", "{\"alg\":null}", "{}", OV_E_DENIED},
		{"alg in an array", "{\"alg\":[\"EdDSA\"]}", "{}", OV_E_DENIED},
		{"alg of another key type", "{\"alg\":\"ES256\"}", "{}", OV_E_AUTH},
		{"alg twice", "{\"alg\":\"EdDSA\",\"alg\":\"EdDSA\"}", "{}", OV_E_SYNTAX},
		{"alg twice, once escaped", "{\"alg\":\"EdDSA\",\"\\u0061lg\":\"none\"}", "{}", OV_E_SYNTAX},
		{"an unknown member twice", "{\"alg\":\"EdDSA\",\"x\":1,\"x\":2}", "{}", OV_E_SYNTAX},
		{"crit", "{\"alg\":\"EdDSA\",\"crit\":[\"exp\"],\"exp\":1}", "{}", OV_E_DENIED},
		{"crit, empty", "{\"alg\":\"EdDSA\",\"crit\":[]}", "{}", OV_E_DENIED},
		{"crit, null", "{\"alg\":\"EdDSA\",\"crit\":null}", "{}", OV_E_DENIED},
		{"b64", "{\"alg\":\"EdDSA\",\"b64\":true}", "{}", OV_E_DENIED},
		{"jku", "{\"alg\":\"EdDSA\",\"jku\":\"https://evil.example/jwks\"}", "{}", OV_E_DENIED},
		{"jwk", "{\"alg\":\"EdDSA\",\"jwk\":" ED_PUBLIC "}", "{}", OV_E_DENIED},
		{"x5u", "{\"alg\":\"EdDSA\",\"x5u\":\"https://evil.example/c\"}", "{}", OV_E_DENIED},
		{"x5c", "{\"alg\":\"EdDSA\",\"x5c\":[]}", "{}", OV_E_DENIED},
		{"zip", "{\"alg\":\"EdDSA\",\"zip\":\"DEF\"}", "{}", OV_E_DENIED},
		{"typ of a security event", "{\"alg\":\"EdDSA\",\"typ\":\"secevent+jwt\"}", "{}", OV_E_DENIED},
		{"typ of a DPoP proof", "{\"alg\":\"EdDSA\",\"typ\":\"dpop+jwt\"}", "{}", OV_E_DENIED},
		{"typ that is no string", "{\"alg\":\"EdDSA\",\"typ\":5}", "{}", OV_E_DENIED},
		{"kid that is no string", "{\"alg\":\"EdDSA\",\"kid\":5}", "{}", OV_E_SYNTAX},
		{"kid null", "{\"alg\":\"EdDSA\",\"kid\":null}", "{}", OV_E_SYNTAX},
		{"a header that is an array", "[]", "{}", OV_E_SYNTAX},
		{"a header that is a string", "\"EdDSA\"", "{}", OV_E_SYNTAX},
		{"a header that is empty", "", "{}", OV_E_SYNTAX},
		{"a header with a trailing comma", "{\"alg\":\"EdDSA\",}", "{}", OV_E_SYNTAX},
		{"a header behind a byte order mark", "\xef\xbb\xbf{\"alg\":\"EdDSA\"}", "{}", OV_E_SYNTAX},
		{"claims that are an array", "{\"alg\":\"EdDSA\"}", "[]", OV_E_SYNTAX},
		{"claims that are empty", "{\"alg\":\"EdDSA\"}", "", OV_E_SYNTAX},
		{"claims with bad UTF-8", "{\"alg\":\"EdDSA\"}", "{\"sub\":\"\xff\"}", OV_E_SYNTAX},
		{"claims with a NUL", "{\"alg\":\"EdDSA\"}", "{\"sub\":\"ada\\u0000x\"}", OV_E_SYNTAX},
		{"a claim twice", "{\"alg\":\"EdDSA\"}", "{\"sub\":\"ada\",\"sub\":\"eve\"}", OV_E_SYNTAX},
		{"a claim of one's own twice", "{\"alg\":\"EdDSA\"}", "{\"tid\":\"a\",\"tid\":\"b\"}", OV_E_SYNTAX},
		{"a claim twice inside act", "{\"alg\":\"EdDSA\"}", "{\"act\":{\"sub\":\"a\",\"sub\":\"b\"}}", OV_E_SYNTAX},
	};
	OvJwks	   *set = jwks(ED_PUBLIC, NULL);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_int(verify(signed_with(cases[i].header, cases[i].claims), set), cases[i].code, "a token %s: %s",
			   cases[i].code == OV_OK ? "accepted" : "refused", cases[i].name);
	ov_jwks_free(set);
}

/* The public key as an HMAC secret: RFC 8725 section 2.1 */
static void
confusion(void)
{
	static const char *const secrets[] = {ED_PUBLIC, ED_X, ""};
	OvJwks	   *set = jwks(ED_PUBLIC, NULL);
	const char *input = ov_arena_printf(arena, "%s.%s", encode("{\"alg\":\"HS256\"}"), encode("{}"));
	unsigned char mac[32];

	for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++)
	{
		ov_hmac_sha256(secrets[i], strlen(secrets[i]), input, strlen(input), mac);
		is_int(verify(ov_arena_printf(arena, "%s.%s", input, ov_b64url(arena, mac, 32)), set), OV_E_DENIED,
			   "an HMAC under the public key is no signature, %zu", i);
	}
	is_int(verify(ov_arena_printf(arena, "%s.%s.", encode("{\"alg\":\"none\"}"), encode("{}")), set), OV_E_DENIED,
		   "an unsigned token is refused");
	is_int(verify(ov_arena_printf(arena, "%s.%s.", encode("{\"alg\":\"EdDSA\"}"), encode("{}")), set), OV_E_AUTH,
		   "so is an empty signature");
	ov_jwks_free(set);
}

static void
forms(void)
{
	OvJwks	   *set = jwks(ED_PUBLIC, NULL);
	const char *good = signed_with("{\"alg\":\"EdDSA\"}", "{\"sub\":\"ada\"}");
	char	   *big = ov_arena_alloc(arena, 9000);
	const char *fits = NULL;

	is_int(verify("", set), OV_E_SYNTAX, "nothing is no token");
	is_int(verify(".", set), OV_E_SYNTAX, "nor is a dot");
	is_int(verify("..", set), OV_E_SYNTAX, "nor are two");
	is_int(verify("a.b.c", set), OV_E_SYNTAX, "nor three letters");
	is_int(verify(ov_arena_printf(arena, "%s.x", good), set), OV_E_SYNTAX, "four parts");
	is_int(verify(ov_arena_printf(arena, "%s.x.y", good), set), OV_E_SYNTAX, "five parts, as of a JWE");
	is_int(verify(ov_arena_printf(arena, "%s=", good), set), OV_E_SYNTAX, "padding");
	is_int(verify(ov_arena_printf(arena, "%s\n", good), set), OV_E_SYNTAX, "a line feed at the end");
	is_int(verify(ov_arena_printf(arena, " %s", good), set), OV_E_SYNTAX, "a space before");
	is_int(verify(ov_arena_printf(arena, "Bearer %s", good), set), OV_E_SYNTAX, "a scheme before");
	is_int(verify_n(good, strlen(good) + 1, set), OV_E_SYNTAX, "a NUL at the end");
	is_int(verify(ov_arena_printf(arena, "%sAA", good), set), OV_E_AUTH, "a signature that is longer");
	is_int(verify("{\"payload\":\"e30\",\"protected\":\"e30\",\"signature\":\"\"}", set), OV_E_SYNTAX, "the JSON serialization");
	memset(big, 'A', 8999);
	is_int(verify(big, set), OV_E_LIMIT, "more than 8 KiB");
	for (int n = 5900; n < 6100; n++)
	{
		const char *jwt = signed_with("{\"alg\":\"EdDSA\"}", ov_arena_printf(arena, "{\"x\":\"%0*d\"}", n, 0));

		if (strlen(jwt) <= MAX_JWT)
			fits = jwt;
	}
	ok(fits != NULL && strlen(fits) >= MAX_JWT - 2 && verify(fits, set) == OV_OK, "8 KiB are accepted");
	ov_jwks_free(set);
}

static void
key_ids(void)
{
	OvJwks	   *set = jwks("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"one\",\"x\":\"" ED_X "\"}", NULL);

	is_int(verify(signed_with("{\"alg\":\"EdDSA\",\"kid\":\"one\"}", "{}"), set), OV_OK, "the key the token names");
	is_int(verify(signed_with("{\"alg\":\"EdDSA\",\"kid\":\"two\"}", "{}"), set), OV_E_AUTH, "a key there is not");
	is_int(verify(signed_with("{\"alg\":\"EdDSA\",\"kid\":\"\"}", "{}"), set), OV_E_AUTH, "the empty key id");
	is_int(verify(signed_with("{\"alg\":\"EdDSA\"}", "{}"), set), OV_OK, "no key named: each is tried");
	ov_jwks_free(set);
	set = jwks("{\"kty\":\"RSA\",\"alg\":\"PS256\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"}", NULL);
	is_int(verify(RS256_JWS, set), OV_E_AUTH, "a key for PS256 does not verify RS256");
	ov_jwks_free(set);
	set = jwks("{\"kty\":\"RSA\",\"alg\":\"RSA-OAEP-256\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"}", NULL);
	is_int(verify(RS256_JWS, set), OV_E_AUTH, "a key for encryption verifies nothing");
	ov_jwks_free(set);
}

static void
key_sets(void)
{
	static const struct
	{
		const char *name,
				   *keys;
		int			count;		/* usable ones; 0: the set is refused */
		OvCode		code;
	}			cases[] = {
		{"one of each type", ED_PUBLIC "," EC_PUBLIC "," RSA_PUBLIC, 3, OV_OK},
		{"use sig", "{\"use\":\"sig\",\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"}", 1, OV_OK},
		{"a key for encryption beside one for signatures", "{\"use\":\"enc\",\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"}," ED_PUBLIC, 1, OV_OK},
		{"a key type nobody knows beside a good one", "{\"kty\":\"AKP\",\"alg\":\"ML-DSA-44\",\"pub\":\"AA\"}," ED_PUBLIC, 1, OV_OK},
		{"another curve beside a good one", "{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"AA\",\"y\":\"AA\"}," ED_PUBLIC, 1, OV_OK},
		{"X25519 alone", "{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"" ED_X "\"}", 0, OV_E_DENIED},
		{"only a key for encryption", "{\"use\":\"enc\",\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "\"}", 0, OV_E_DENIED},
		{"no key", "", 0, OV_E_SYNTAX},
		{"a string for a key", "\"x\"", 0, OV_E_SYNTAX},
		{"a key without its type", "{\"x\":\"" ED_X "\"}", 0, OV_E_SYNTAX},
		{"a symmetric key", "{\"kty\":\"oct\",\"k\":\"AAAA\"}," ED_PUBLIC, 0, OV_E_DENIED},
		{"a private Ed25519 key", ED_PRIVATE, 0, OV_E_DENIED},
		{"a private P-256 key", EC_PRIVATE, 0, OV_E_DENIED},
		{"a private RSA key", "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\",\"d\":\"AA\"}", 0, OV_E_DENIED},
		{"an Ed25519 key of 31 bytes", "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}", 0, OV_E_SYNTAX},
		{"an Ed25519 key without x", "{\"kty\":\"OKP\",\"crv\":\"Ed25519\"}", 0, OV_E_SYNTAX},
		{"a point that is not on the curve", "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a1\"}", 0, OV_E_SYNTAX},
		{"a point not on the curve, well encoded", "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a4\"}", 0, OV_E_SYNTAX},
		{"a P-256 key without y", "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"}", 0, OV_E_SYNTAX},
		{"RSA of less than 2048 bits", "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"v_______________________________________________________________________________________________________________________________________________________________________________________________________________________8\"}", 0, OV_E_SYNTAX},
		{"RSA with e = 1", "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQ\"}", 0, OV_E_SYNTAX},
		{"RSA with e = 2", "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"Ag\"}", 0, OV_E_SYNTAX},
		{"RSA with e of 2048 bits", "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"" RSA_N "\"}", 0, OV_E_SYNTAX},
		{"RSA with padding in n", "{\"kty\":\"RSA\",\"n\":\"" RSA_N "==\",\"e\":\"AQAB\"}", 0, OV_E_SYNTAX},
		{"RSA without e", "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\"}", 0, OV_E_SYNTAX},
		{"a bad key behind a good one", ED_PUBLIC ",{\"kty\":\"RSA\"}", 0, OV_E_SYNTAX},
	};
	OvJwks	   *set;
	OvStr		many;
	OvCode		code;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		set = jwks(cases[i].keys, &code);
		ok(code == cases[i].code && (set ? ov_jwks_count(set) : 0) == cases[i].count, "key set %s: %s",
		   cases[i].count ? "accepted" : "refused", cases[i].name);
		ov_jwks_free(set);
	}
	is_int(ov_jwks_parse(json("{}"), &set, NULL), OV_E_SYNTAX, "key set refused: no keys member");
	is_int(ov_jwks_parse(json("{\"keys\":{}}"), &set, NULL), OV_E_SYNTAX, "key set refused: keys is an object");
	is_int(ov_jwks_parse(json("[]"), &set, NULL), OV_E_SYNTAX, "key set refused: an array");
	for (int n = MAX_KEYS; n <= MAX_KEYS + 1; n++)
	{
		ov_str_init(&many, arena);
		for (int i = 0; i < n; i++)
			ov_str_printf(&many, "%s%s", i ? "," : "", ED_PUBLIC);
		set = jwks(many.data, NULL);
		ok((set != NULL) == (n <= MAX_KEYS), "a set of %d keys", n);
		ov_jwks_free(set);
	}
}

/* ES256 with r or s zero, or above the order, must fail and not crash. */
static void
degenerate_signatures(void)
{
	OvJwks	   *set = jwks(EC_PUBLIC, NULL);
	const char *input = ov_arena_printf(arena, "%s.%s", encode("{\"alg\":\"ES256\"}"), encode("{}"));
	unsigned char sig[65];
	const unsigned char fills[] = {0x00, 0xff, 0x80};

	for (size_t f = 0; f < sizeof(fills); f++)
	{
		memset(sig, fills[f], sizeof(sig));
		for (size_t n = 0; n <= sizeof(sig); n += n == 0 ? 32 : n == 32 ? 31 : 1)
			is_int(verify(ov_arena_printf(arena, "%s.%s", input, ov_b64url(arena, sig, n)), set), OV_E_AUTH,
				   "a P-256 signature of %zu bytes %02x is none", n, fills[f]);
	}
	ov_jwks_free(set);
}

int
main(void)
{
	arena = ov_arena_new();
	known_answers();
	signing();
	headers();
	confusion();
	forms();
	key_ids();
	key_sets();
	degenerate_signatures();
	ov_arena_free(arena);
	return done_testing();
}
