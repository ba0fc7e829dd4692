/*
 * jwt.h
 *	  JWT assertions (RFC 7519, 7515, 8725): verification against pinned keys,
 *	  and signing for the development key and private_key_jwt.
 *
 * Algorithms EdDSA (Ed25519), ES256, RS256, PS256 only; the key's own type
 * decides, the header must agree.  "none", HS*, crit, b64, x5u, jku, jwk in
 * the header: refused.  8 KiB at most.  Peeking takes 32 KiB.
 */
#ifndef OV_JWT_H
#define OV_JWT_H

#include "json.h"

typedef struct OvJwks OvJwks;	/* parsed RFC 7517 set; OpenSSL keys inside */

extern OvCode ov_jwks_parse(const OvJson *jwks, OvJwks **out, OvError *err);
extern void ov_jwks_free(OvJwks *jwks);
extern int	ov_jwks_count(const OvJwks *jwks);

/* Checks form, algorithm and signature; claims are the caller's to judge. */
extern OvCode ov_jwt_verify(OvArena *arena, const char *jwt, size_t len, const OvJwks *keys,
							const OvJson **header, const OvJson **claims, OvError *err);
/* Payload without any check, to pick the issuer whose keys to use. */
extern OvCode ov_jwt_peek(OvArena *arena, const char *jwt, size_t len,
						  const OvJson **header, const OvJson **claims, OvError *err);
/* private_jwk: an OKP Ed25519, EC P-256 or RSA private JWK; returns compact JWS */
extern OvCode ov_jwt_sign(OvArena *arena, const OvJson *private_jwk, const char *header_extra,
						  const char *claims_json, char **jwt, OvError *err);
/* A new Ed25519 key: private JWK and its public JWK (with kid = RFC 7638 thumbprint) */
extern OvCode ov_jwk_generate(OvArena *arena, char **private_jwk, char **public_jwk, OvError *err);

#endif							/* OV_JWT_H */
