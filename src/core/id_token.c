/*
 * id_token.c
 *	  Judging an ID token's claims (OpenID Connect Core 1.0 sections 3.1.3.7 and 12.2).
 *
 * The token came straight from the token endpoint, so TLS names its author and
 * the signature is not checked (item 6).  Its claims are: a token made for
 * somebody else, another flow or another time says nothing about this person.
 * Error texts name claims and never repeat their values.
 */
#include "core/id_token.h"
#include "core/codec.h"
#include "core/jwt.h"

#include <string.h>
#include <strings.h>

#define LEEWAY 60				/* seconds that two clocks may differ */
#define MAX_SUBJECT 255			/* section 2, "sub" */

/* RFC 7515 sections 4.1.1 and 4.1.11 */
static OvCode
check_header(const OvJson *header, OvError *err)
{
	const char *alg = ov_json_get_string(header, "alg");

	if (alg == NULL || *alg == '\0')
		return ov_fail(err, OV_E_SYNTAX, "ID token does not name its algorithm");
	/* Item 6 lets a direct answer be unsigned; a profile that never asks for that refuses it. */
	if (strcasecmp(alg, "none") == 0)
		return ov_fail(err, OV_E_DENIED, "ID token is unsigned");
	if (ov_json_get(header, "crit") != NULL)
		return ov_fail(err, OV_E_DENIED, "ID token has a critical extension");
	return OV_OK;
}

/* Items 3 to 5: we are an audience, and the party it was issued to if it says so */
static OvCode
check_audience(const OvJson *claims, const char *client_id, OvError *err)
{
	const OvJson *aud = ov_json_get(claims, "aud"),
			   *azp = ov_json_get(claims, "azp");
	const OvJson *first = aud != NULL && aud->type == OV_JSON_ARRAY ? aud->child : aud;
	int			count = 0;
	bool		ours = false;

	for (const OvJson *a = first; a != NULL; a = aud->type == OV_JSON_ARRAY ? a->next : NULL)
	{
		if (ov_json_string(a) == NULL)
			return ov_fail(err, OV_E_SYNTAX, "ID token has a malformed \"aud\"");
		ours = ours || strcmp(a->str, client_id) == 0;
		count++;
	}
	if (!ours)
		return ov_fail(err, OV_E_DENIED, "ID token is for another client");
	if (azp == NULL && count > 1)
		return ov_fail(err, OV_E_DENIED, "ID token has several audiences and no \"azp\"");
	if (azp != NULL && (ov_json_string(azp) == NULL || strcmp(azp->str, client_id) != 0))
		return ov_fail(err, OV_E_DENIED, "ID token was issued to another client");
	return OV_OK;
}

/* Items 9 and 10; nbf is RFC 7519 section 4.1.5 */
static OvCode
check_times(const OvJson *claims, int64_t now, OvError *err)
{
	const OvJson *nbf = ov_json_get(claims, "nbf");
	int64_t		exp,
				iat,
				start;

	if (!ov_json_int64(ov_json_get(claims, "exp"), false, &exp))
		return ov_fail(err, OV_E_SYNTAX, "ID token has no valid \"exp\"");
	if (!ov_json_int64(ov_json_get(claims, "iat"), false, &iat))
		return ov_fail(err, OV_E_SYNTAX, "ID token has no valid \"iat\"");
	if (exp <= now - LEEWAY)
		return ov_fail(err, OV_E_EXPIRED, "ID token has expired");
	if (iat > now + LEEWAY)
		return ov_fail(err, OV_E_DENIED, "ID token was issued in the future");
	if (nbf == NULL)
		return OV_OK;
	if (!ov_json_int64(nbf, false, &start))
		return ov_fail(err, OV_E_SYNTAX, "ID token has no valid \"nbf\"");
	if (start > now + LEEWAY)
		return ov_fail(err, OV_E_DENIED, "ID token is not valid yet");
	return OV_OK;
}

/* Three parts, of which the first two are objects; *is_signed: the third is not empty */
static OvCode
open_token(OvArena *arena, const char *jwt, const OvJson **header, const OvJson **claims, bool *is_signed, OvError *err)
{
	const char *dot;
	unsigned char *signature;
	size_t		len;
	OvError		why = {0};
	/* Refuses a claim that is there twice, so that nobody can read another value than we do. */
	OvCode		rc = ov_jwt_peek(arena, jwt, strlen(jwt), header, claims, &why);

	if (rc == OV_E_LIMIT)
		return ov_fail(err, rc, "ID token is too long");
	if (rc != OV_OK)
		return ov_fail(err, rc, "ID token is malformed");
	dot = strrchr(jwt, '.');
	if (ov_b64url_decode(arena, dot + 1, strlen(dot + 1), &signature, &len) != OV_OK)
		return ov_fail(err, OV_E_SYNTAX, "ID token is malformed");
	*is_signed = len > 0;
	return OV_OK;
}

/* Whose it is: from whom, for whom, about whom.  OV_E_DENIED: somebody else's. */
static OvCode
check_parties(const OvJson *claims, const OvProvider *provider, const char *client_id, const char **subject, OvError *err)
{
	/* Item 2: as given, no normalisation; an issuer per tenant is known by a pattern only */
	const char *iss = ov_json_get_string(claims, "iss"),
			   *sub = ov_json_get_string(claims, "sub");
	OvError		why = {0};
	OvCode		rc;

	if (iss == NULL || *iss == '\0')
		return ov_fail(err, OV_E_SYNTAX, "ID token has no valid \"iss\"");
	if (provider != NULL && (rc = ov_check_iss(provider, iss, &why)) != OV_OK)
		return ov_fail(err, rc, "%s", rc == OV_E_DENIED ? "ID token is from another issuer" : why.message);
	if ((rc = check_audience(claims, client_id, err)) != OV_OK)
		return rc;
	if (sub == NULL || *sub == '\0' || strlen(sub) > MAX_SUBJECT)
		return ov_fail(err, OV_E_SYNTAX, "ID token has no valid \"sub\"");
	*subject = sub;
	return OV_OK;
}

static OvCode
check_form(const OvJson *header, const OvJson *claims, bool is_signed, int64_t now, OvError *err)
{
	OvCode		rc = check_header(header, err);

	if (rc != OV_OK)
		return rc;
	if (!is_signed)
		return ov_fail(err, OV_E_DENIED, "ID token is unsigned");
	return check_times(claims, now, err);
}

OvCode
ov_id_token_check(OvArena *arena, const char *jwt, const OvProvider *provider, const char *client_id,
				  const char *nonce, int64_t now, const char **subject, OvError *err)
{
	const OvJson *header,
			   *claims;
	const char *sub,
			   *got;
	bool		is_signed;
	OvCode		rc;

	*subject = NULL;
	if ((rc = open_token(arena, jwt, &header, &claims, &is_signed, err)) != OV_OK ||
		(rc = check_parties(claims, provider, client_id, &sub, err)) != OV_OK ||
		(rc = check_form(header, claims, is_signed, now, err)) != OV_OK)
		return rc;

	/* Item 11 */
	got = ov_json_get_string(claims, "nonce");
	if (nonce != NULL && (got == NULL || strcmp(got, nonce) != 0))
		return ov_fail(err, OV_E_DENIED, "ID token is not of this flow: its nonce differs");
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	*subject = sub;
	return OV_OK;
}

/*
 * Section 12.2.  The parties come first: that a token is stale or oddly made
 * does not excuse it from being about somebody else.  Its nonce, which it should
 * not have, is not looked at: that of the consent is forgotten by now.
 */
OvCode
ov_id_token_renewed(OvArena *arena, const char *jwt, const OvProvider *provider, const char *client_id,
					const char *pinned, int64_t now, bool *foreign, OvError *err)
{
	const OvJson *header,
			   *claims;
	const char *sub;
	bool		is_signed;
	OvCode		rc;

	*foreign = false;
	if ((rc = open_token(arena, jwt, &header, &claims, &is_signed, err)) != OV_OK)
		return rc;
	rc = check_parties(claims, provider, client_id, &sub, err);
	if (rc == OV_OK && pinned != NULL && strcmp(sub, pinned) != 0 &&
		(provider == NULL || !ov_provider_names_subject(provider)))
		rc = ov_fail(err, OV_E_DENIED, "ID token is about another person");
	*foreign = rc == OV_E_DENIED;
	if (rc != OV_OK)
		return rc;
	return check_form(header, claims, is_signed, now, err);
}
