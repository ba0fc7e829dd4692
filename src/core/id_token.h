/*
 * id_token.h
 *	  OpenID Connect ID tokens, as they come with a token response.
 */
#ifndef OV_ID_TOKEN_H
#define OV_ID_TOKEN_H

#include "arena.h"
#include "provider.h"

/* Checks an ID token that the token endpoint itself sent over TLS.  provider
 * says whose it must be: its issuer, or one that its pattern fits; NULL: any
 * issuer.  nonce NULL: none was sent.  now in unix seconds.
 * *subject lives in the arena: 1 to 255 bytes.  OV_E_SYNTAX when it is no ID
 * token, OV_E_EXPIRED, OV_E_DENIED when a claim is not the one asked for. */
extern OvCode ov_id_token_check(OvArena *arena, const char *jwt, const OvProvider *provider,
								const char *client_id, const char *nonce, int64_t now,
								const char **subject, OvError *err);

/* The same for one that came with a refresh.  pinned: the subject of the grant;
 * NULL, or with rules that name accounts otherwise: any.  *foreign: it is from,
 * for or about somebody else, so that what came with it is not this grant's;
 * otherwise only the ID token itself is of no use.  Never OV_OK and foreign. */
extern OvCode ov_id_token_renewed(OvArena *arena, const char *jwt, const OvProvider *provider,
								  const char *client_id, const char *pinned, int64_t now,
								  bool *foreign, OvError *err);

#endif							/* OV_ID_TOKEN_H */
