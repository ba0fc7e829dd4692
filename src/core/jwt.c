/*
 * jwt.c
 *	  Compact JWS verification and signing (RFC 7515, 7518, 7519, 8037, 8725).
 *
 * A key is imported once, with the one algorithm family its type allows; the
 * token's "alg" has to agree (RFC 8725 section 3.1).  Nothing in a header can
 * bring a key along or change how the signature is computed.
 */
#include "core/jwt.h"
#include "core/codec.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

#define MAX_JWT 8192			/* of an assertion */
#define MAX_PEEK (32 * 1024)	/* a provider's ID tokens can list hundreds of groups */
#define MAX_KEYS 64

typedef enum KeyType
{
	KEY_ED25519, KEY_P256, KEY_RSA
} KeyType;

typedef struct Key
{
	KeyType		type;
	char		kid[128];		/* "" if none */
	char		alg[16];		/* "" if the JWK does not say */
	EVP_PKEY   *pkey;
} Key;

struct OvJwks
{
	int			nkeys;
	Key			keys[MAX_KEYS];
};

static BIGNUM *
jwk_number(OvArena *arena, const OvJson *jwk, const char *name)
{
	const char *s = ov_json_get_string(jwk, name);
	unsigned char *raw;
	size_t		len;

	if (s == NULL || ov_b64url_decode(arena, s, strlen(s), &raw, &len) != OV_OK || len == 0)
		return NULL;
	return BN_bin2bn(raw, (int) len, NULL);
}

static bool
jwk_bytes(OvArena *arena, const OvJson *jwk, const char *name, size_t want, unsigned char **out)
{
	const char *s = ov_json_get_string(jwk, name);
	size_t		len;

	return s != NULL && ov_b64url_decode(arena, s, strlen(s), out, &len) == OV_OK && len == want;
}

static EVP_PKEY *
from_params(const char *type, OSSL_PARAM_BLD *bld, bool private)
{
	EVP_PKEY   *pkey = NULL;
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);

	if (ctx == NULL || params == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
		EVP_PKEY_fromdata(ctx, &pkey, private ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY, params) != 1)
		pkey = NULL;
	OSSL_PARAM_free(params);
	EVP_PKEY_CTX_free(ctx);
	return pkey;
}

/* RFC 7518 section 6.2 */
static EVP_PKEY *
import_p256(OvArena *arena, const OvJson *jwk, bool private)
{
	unsigned char *x,
			   *y,
				point[65];
	EVP_PKEY   *pkey = NULL;
	BIGNUM	   *d = NULL;
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();

	if (bld != NULL && jwk_bytes(arena, jwk, "x", 32, &x) && jwk_bytes(arena, jwk, "y", 32, &y) &&
		(!private || (d = jwk_number(arena, jwk, "d")) != NULL))
	{
		point[0] = 4;
		memcpy(point + 1, x, 32);
		memcpy(point + 33, y, 32);
		if (OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) == 1 &&
			OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, 65) == 1 &&
			(d == NULL || OSSL_PARAM_BLD_push_BN_pad(bld, OSSL_PKEY_PARAM_PRIV_KEY, d, 32) == 1))
			pkey = from_params("EC", bld, private);
	}
	BN_clear_free(d);
	OSSL_PARAM_BLD_free(bld);
	return pkey;
}

/* RFC 7518 section 6.3; under 2048 bits is refused (RFC 7518 section 3.3) */
static EVP_PKEY *
import_rsa(OvArena *arena, const OvJson *jwk, bool private)
{
	BIGNUM	   *n = jwk_number(arena, jwk, "n"),
			   *e = jwk_number(arena, jwk, "e"),
			   *d = private ? jwk_number(arena, jwk, "d") : NULL;
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	EVP_PKEY   *pkey = NULL;

	/* With e = 1 a signature is the padded digest itself: anyone's. */
	if (bld != NULL && n != NULL && e != NULL && BN_num_bits(n) >= 2048 && BN_num_bits(n) <= 8192 &&
		BN_is_odd(n) && BN_is_odd(e) && !BN_is_one(e) && BN_num_bits(e) <= 64 &&
		(!private || d != NULL) &&
		OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
		OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e) == 1 &&
		(d == NULL || OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_D, d) == 1))
		pkey = from_params("RSA", bld, private);
	BN_free(n);
	BN_free(e);
	BN_clear_free(d);
	OSSL_PARAM_BLD_free(bld);
	return pkey;
}

static OvCode
import_key(OvArena *arena, const OvJson *jwk, bool private, Key *key, OvError *err)
{
	const char *kty = ov_json_get_string(jwk, "kty"),
			   *crv = ov_json_get_string(jwk, "crv"),
			   *kid = ov_json_get_string(jwk, "kid"),
			   *alg = ov_json_get_string(jwk, "alg");
	unsigned char *raw;

	memset(key, 0, sizeof(*key));
	if (kid != NULL && strlen(kid) < sizeof(key->kid))
		memcpy(key->kid, kid, strlen(kid));
	if (alg != NULL && strlen(alg) < sizeof(key->alg))
		memcpy(key->alg, alg, strlen(alg));
	if (kty == NULL)
		return ov_fail(err, OV_E_SYNTAX, "JWK without \"kty\"");
	if (strcmp(kty, "OKP") == 0 && crv != NULL && strcmp(crv, "Ed25519") == 0)
	{
		key->type = KEY_ED25519;
		if (private ? jwk_bytes(arena, jwk, "d", 32, &raw) : jwk_bytes(arena, jwk, "x", 32, &raw))
			key->pkey = private ? EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, raw, 32)
				: EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw, 32);
	}
	else if (strcmp(kty, "EC") == 0 && crv != NULL && strcmp(crv, "P-256") == 0)
	{
		key->type = KEY_P256;
		key->pkey = import_p256(arena, jwk, private);
	}
	else if (strcmp(kty, "RSA") == 0)
	{
		key->type = KEY_RSA;
		key->pkey = import_rsa(arena, jwk, private);
	}
	else
		return ov_fail(err, OV_E_NOTFOUND, "key type is none of Ed25519, P-256 and RSA");
	if (key->pkey == NULL)
	{
		ERR_clear_error();
		return ov_fail(err, OV_E_SYNTAX, "malformed JWK");
	}
	return OV_OK;
}

void
ov_jwks_free(OvJwks *jwks)
{
	if (jwks == NULL)
		return;
	for (int i = 0; i < jwks->nkeys; i++)
		EVP_PKEY_free(jwks->keys[i].pkey);
	free(jwks);
}

OvCode
ov_jwks_parse(const OvJson *doc, OvJwks **out, OvError *err)
{
	const OvJson *keys = ov_json_get(doc, "keys");
	OvJwks	   *jwks;
	OvArena    *arena;
	OvCode		rc = OV_OK;

	*out = NULL;
	if (keys == NULL || keys->type != OV_JSON_ARRAY || keys->count == 0 || keys->count > MAX_KEYS)
		return ov_fail(err, OV_E_SYNTAX, "JWK set needs 1 to %d keys", MAX_KEYS);
	if ((jwks = calloc(1, sizeof(OvJwks))) == NULL)
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	arena = ov_arena_new();
	for (const OvJson *k = keys->child; k != NULL && rc == OV_OK; k = k->next)
	{
		const char *use = ov_json_get_string(k, "use");

		/* A private key has no business where only verification happens. */
		if (ov_json_get(k, "d") != NULL || ov_json_get(k, "k") != NULL)
			rc = ov_fail(err, OV_E_DENIED, "JWK set holds a private or symmetric key");
		else if (use != NULL && strcmp(use, "sig") != 0)
			continue;
		else if ((rc = import_key(arena, k, false, &jwks->keys[jwks->nkeys], err)) == OV_OK)
			jwks->nkeys++;
		else if (rc == OV_E_NOTFOUND)
			rc = OV_OK;			/* RFC 7517 section 5: ignore what is not understood */
	}
	ov_arena_free(arena);
	if (rc == OV_OK && jwks->nkeys == 0)
		rc = ov_fail(err, OV_E_DENIED, "JWK set has no Ed25519, P-256 or RSA key for signatures");
	if (rc != OV_OK)
	{
		ov_jwks_free(jwks);
		return rc;
	}
	*out = jwks;
	return OV_OK;
}

int
ov_jwks_count(const OvJwks *jwks)
{
	return jwks->nkeys;
}

/* The algorithms of RFC 7518 section 3.1 and RFC 8037 that a key type may use */
static const struct
{
	const char *alg;
	KeyType		type;
	bool		pss;
}			algorithms[] = {
	{"EdDSA", KEY_ED25519, false},
	{"ES256", KEY_P256, false},
	{"RS256", KEY_RSA, false},
	{"PS256", KEY_RSA, true},
};

/* ES256 signatures are r || s (RFC 7518 section 3.4); OpenSSL wants DER. */
static bool
es256_to_der(const unsigned char *raw, size_t len, unsigned char **der, int *derlen)
{
	ECDSA_SIG  *sig;
	BIGNUM	   *r,
			   *s;
	bool		ok = false;

	*der = NULL;
	if (len != 64 || (sig = ECDSA_SIG_new()) == NULL)
		return false;
	r = BN_bin2bn(raw, 32, NULL);
	s = BN_bin2bn(raw + 32, 32, NULL);
	if (r != NULL && s != NULL && ECDSA_SIG_set0(sig, r, s) == 1)
		ok = (*derlen = i2d_ECDSA_SIG(sig, der)) > 0;
	else
	{
		BN_free(r);
		BN_free(s);
	}
	ECDSA_SIG_free(sig);
	return ok;
}

static bool
set_pss(EVP_PKEY_CTX *ctx)
{
	return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
		EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
}

static bool
verify_signature(const Key *key, bool pss, const unsigned char *sig, size_t siglen,
				 const char *input, size_t len)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pctx;
	unsigned char *der = NULL;
	int			derlen = 0;
	bool		ok;

	ok = ctx != NULL &&
		(key->type != KEY_P256 || es256_to_der(sig, siglen, &der, &derlen)) &&
		EVP_DigestVerifyInit(ctx, &pctx, key->type == KEY_ED25519 ? NULL : EVP_sha256(), NULL, key->pkey) == 1 &&
		(!pss || set_pss(pctx)) &&
		EVP_DigestVerify(ctx, der ? der : sig, der ? (size_t) derlen : siglen,
						 (const unsigned char *) input, len) == 1;
	OPENSSL_free(der);
	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	return ok;
}

OvCode
ov_jwt_peek(OvArena *arena, const char *jwt, size_t len,
			const OvJson **header, const OvJson **claims, OvError *err)
{
	const char *dot1,
			   *dot2;
	unsigned char *raw;
	size_t		rawlen;

	*header = *claims = NULL;
	if (len > MAX_PEEK)
		return ov_fail(err, OV_E_LIMIT, "assertion is longer than %d bytes", MAX_PEEK);
	dot1 = len > 0 ? memchr(jwt, '.', len) : NULL;
	dot2 = dot1 != NULL ? memchr(dot1 + 1, '.', len - (size_t) (dot1 + 1 - jwt)) : NULL;
	if (dot2 == NULL || memchr(dot2 + 1, '.', len - (size_t) (dot2 + 1 - jwt)) != NULL)
		return ov_fail(err, OV_E_SYNTAX, "assertion is not a compact JWS");
	if (ov_b64url_decode(arena, jwt, (size_t) (dot1 - jwt), &raw, &rawlen) != OV_OK ||
		ov_json_parse(arena, (char *) raw, rawlen, header, NULL) != OV_OK ||
		(*header)->type != OV_JSON_OBJECT)
		return ov_fail(err, OV_E_SYNTAX, "assertion header is malformed");
	if (ov_b64url_decode(arena, dot1 + 1, (size_t) (dot2 - dot1 - 1), &raw, &rawlen) != OV_OK ||
		ov_json_parse(arena, (char *) raw, rawlen, claims, NULL) != OV_OK ||
		(*claims)->type != OV_JSON_OBJECT)
		return ov_fail(err, OV_E_SYNTAX, "assertion claims are malformed");
	/* RFC 7515 section 4, RFC 7519 section 4: names are unique; claims' names are the issuer's choice */
	if (!ov_json_no_duplicates(*header) || !ov_json_no_duplicates(*claims))
		return ov_fail(err, OV_E_SYNTAX, "assertion names a member twice");
	return OV_OK;
}

OvCode
ov_jwt_verify(OvArena *arena, const char *jwt, size_t len, const OvJwks *keys,
			  const OvJson **header, const OvJson **claims, OvError *err)
{
	/* RFC 7515 sections 4.1.2-4.1.6, 4.1.11 and RFC 7797: none of these is understood here */
	static const char *const refused[] = {"crit", "b64", "jku", "jwk", "x5u", "x5c", "zip"};
	const char *alg,
			   *kid,
			   *typ,
			   *dot2;
	unsigned char *sig;
	size_t		siglen;
	OvCode		rc;
	bool		known = false;

	*header = *claims = NULL;
	if (len > MAX_JWT)
		return ov_fail(err, OV_E_LIMIT, "assertion is longer than %d bytes", MAX_JWT);
	if ((rc = ov_jwt_peek(arena, jwt, len, header, claims, err)) != OV_OK)
		return rc;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (ov_json_get(*header, refused[i]) != NULL)
			return ov_fail(err, OV_E_DENIED, "assertion header has \"%s\"", refused[i]);
	typ = ov_json_get_string(*header, "typ");
	if (ov_json_get(*header, "typ") != NULL &&
		(typ == NULL || (strcasecmp(typ, "JWT") != 0 && strcasecmp(typ, "at+jwt") != 0)))
		return ov_fail(err, OV_E_DENIED, "assertion has an unexpected type");
	alg = ov_json_get_string(*header, "alg");
	kid = ov_json_get_string(*header, "kid");
	if (kid == NULL && ov_json_get(*header, "kid") != NULL)
		return ov_fail(err, OV_E_SYNTAX, "assertion header is malformed");
	dot2 = memrchr(jwt, '.', len);
	if (ov_b64url_decode(arena, dot2 + 1, len - (size_t) (dot2 + 1 - jwt), &sig, &siglen) != OV_OK)
		return ov_fail(err, OV_E_SYNTAX, "assertion signature is malformed");
	for (size_t a = 0; alg != NULL && a < sizeof(algorithms) / sizeof(algorithms[0]); a++)
	{
		if (strcmp(algorithms[a].alg, alg) != 0)
			continue;
		known = true;
		for (int i = 0; i < keys->nkeys; i++)
		{
			const Key  *key = &keys->keys[i];

			if (key->type != algorithms[a].type ||
				(key->alg[0] != '\0' && strcmp(key->alg, alg) != 0) ||
				(kid != NULL && key->kid[0] != '\0' && strcmp(key->kid, kid) != 0))
				continue;
			if (verify_signature(key, algorithms[a].pss, sig, siglen, jwt, (size_t) (dot2 - jwt)))
				return OV_OK;
		}
	}
	if (!known)
		return ov_fail(err, OV_E_DENIED, "assertion algorithm is not allowed");
	return ov_fail(err, OV_E_AUTH, "assertion signature does not match any pinned key");
}

OvCode
ov_jwt_sign(OvArena *arena, const OvJson *private_jwk, const char *header_extra,
			const char *claims_json, char **jwt, OvError *err)
{
	Key			key;
	OvStr		head;
	char	   *input;
	const char *alg,
			   *kid = ov_json_get_string(private_jwk, "kid");
	EVP_MD_CTX *ctx = NULL;
	EVP_PKEY_CTX *pctx;
	unsigned char sig[1024],
				raw[64];
	size_t		siglen = sizeof(sig);
	OvCode		rc;
	bool		ok,
				pss;

	if ((rc = import_key(arena, private_jwk, true, &key, err)) != OV_OK)
		return rc;
	pss = key.type == KEY_RSA && strcmp(key.alg, "PS256") == 0;
	alg = key.type == KEY_ED25519 ? "EdDSA" : key.type == KEY_P256 ? "ES256" : pss ? "PS256" : "RS256";
	ov_str_init(&head, arena);
	ov_str_printf(&head, "{\"alg\":\"%s\"", alg);
	if (kid != NULL)
	{
		ov_str_puts(&head, ",\"kid\":");
		ov_json_quote(&head, kid, strlen(kid));
	}
	if (header_extra != NULL)
		ov_str_printf(&head, ",%s", header_extra);
	ov_str_putc(&head, '}');
	input = ov_arena_printf(arena, "%s.%s", ov_b64url(arena, head.data, head.len),
							ov_b64url(arena, claims_json, strlen(claims_json)));
	ctx = EVP_MD_CTX_new();
	ok = ctx != NULL &&
		EVP_DigestSignInit(ctx, &pctx, key.type == KEY_ED25519 ? NULL : EVP_sha256(), NULL, key.pkey) == 1 &&
		(!pss || set_pss(pctx)) &&
		EVP_DigestSign(ctx, sig, &siglen, (unsigned char *) input, strlen(input)) == 1;
	if (ok && key.type == KEY_P256)
	{
		const unsigned char *p = sig;
		ECDSA_SIG  *es = d2i_ECDSA_SIG(NULL, &p, (long) siglen);

		ok = es != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(es), raw, 32) == 32 &&
			BN_bn2binpad(ECDSA_SIG_get0_s(es), raw + 32, 32) == 32;
		if (ok)
			memcpy(sig, raw, 64);
		siglen = 64;
		ECDSA_SIG_free(es);
	}
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key.pkey);
	ERR_clear_error();
	if (!ok)
		return ov_fail(err, OV_E_CRYPTO, "could not sign");
	*jwt = ov_arena_printf(arena, "%s.%s", input, ov_b64url(arena, sig, siglen));
	return OV_OK;
}

/* RFC 7638 section 3, RFC 8037 section 2: these members, in this order */
static char *
ed25519_thumbprint(OvArena *arena, const char *x)
{
	char	   *canonical = ov_arena_printf(arena, "{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"%s\"}", x);
	unsigned char digest[32];

	ov_sha256(canonical, strlen(canonical), digest);
	return ov_b64url(arena, digest, sizeof(digest));
}

OvCode
ov_jwk_generate(OvArena *arena, char **private_jwk, char **public_jwk, OvError *err)
{
	EVP_PKEY   *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	unsigned char pub[32],
				priv[32];
	size_t		publen = 32,
				privlen = 32;
	char	   *x,
			   *kid;

	if (pkey == NULL || EVP_PKEY_get_raw_public_key(pkey, pub, &publen) != 1 ||
		EVP_PKEY_get_raw_private_key(pkey, priv, &privlen) != 1)
	{
		EVP_PKEY_free(pkey);
		return ov_fail(err, OV_E_CRYPTO, "could not generate a key");
	}
	EVP_PKEY_free(pkey);
	x = ov_b64url(arena, pub, 32);
	kid = ed25519_thumbprint(arena, x);
	*public_jwk = ov_arena_printf(arena, "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"EdDSA\",\"use\":\"sig\",\"kid\":\"%s\",\"x\":\"%s\"}",
								  kid, x);
	*private_jwk = ov_arena_printf(arena, "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"EdDSA\",\"kid\":\"%s\",\"x\":\"%s\",\"d\":\"%s\"}",
								   kid, x, ov_b64url(arena, priv, 32));
	OPENSSL_cleanse(priv, sizeof(priv));
	return OV_OK;
}
