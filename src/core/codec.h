/*
 * codec.h
 *	  base64url, hex, form and URL encoding, PKCE, random strings, SHA-256.
 */
#ifndef OV_CODEC_H
#define OV_CODEC_H

#include "arena.h"

extern char *ov_b64url(OvArena *arena, const void *data, size_t len);	/* no padding */
extern char *ov_b64(OvArena *arena, const void *data, size_t len);		/* RFC 4648 section 4 */
extern OvCode ov_b64url_decode(OvArena *arena, const char *s, size_t len,
							   unsigned char **out, size_t *outlen);
extern char *ov_hex(OvArena *arena, const void *data, size_t len);
extern OvCode ov_random(void *buf, size_t len);
extern char *ov_random_token(OvArena *arena, int nbytes);	/* base64url of nbytes */
extern void ov_sha256(const void *data, size_t len, unsigned char out[32]);
extern void ov_hmac_sha256(const void *key, size_t keylen, const void *data, size_t len,
						   unsigned char out[32]);
/* RFC 7636 section 4.2 */
extern char *ov_pkce_s256(OvArena *arena, const char *verifier);

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF; and no NUL */
extern bool ov_utf8_ok(const char *text, size_t len);

/* application/x-www-form-urlencoded (RFC 6749 appendix B): space becomes + */
extern void ov_form_encode(OvStr *out, const char *s);
extern void ov_form_pair(OvStr *out, const char *name, const char *value);	/* adds & as needed */
/* RFC 3986: everything but unreserved is %XX */
extern void ov_uri_encode(OvStr *out, const char *s);

typedef struct OvParam
{
	const char *name;
	const char *value;
	struct OvParam *next;
} OvParam;

/* Query string or form body to a list, in order; bad %XX, NUL or UTF-8: refused. */
extern OvCode ov_form_parse(OvArena *arena, const char *s, size_t len,
							OvParam **params, OvError *err);
extern const char *ov_param(const OvParam *params, const char *name);
extern int	ov_param_count(const OvParam *params, const char *name);

typedef struct OvUrl
{
	const char *scheme;			/* lower case */
	const char *host;			/* lower case; IPv6 without brackets */
	int			port;			/* filled from the scheme when absent */
	const char *path;			/* "" or starts with / */
	const char *query;			/* NULL if absent */
	const char *fragment;		/* NULL if absent */
	const char *origin;			/* scheme://host[:port] without a default port */
	bool		loopback;		/* localhost, 127/8 or ::1, by its spelling */
} OvUrl;

/* Absolute http(s) URL; userinfo, control characters, spaces, backslash,
 * non-ASCII, over 8 KiB: refused. */
extern OvCode ov_url_parse(OvArena *arena, const char *s, OvUrl *url, OvError *err);
/* s with name=value&... appended to its query, keeping what it has */
extern char *ov_url_with_query(OvArena *arena, const char *s, const char *query);
/* one RFC 6749 section 3.3 scope token? */
extern bool ov_scope_token_ok(const char *s);
/* Provider text made safe for DETAIL: %x20-21 / %x23-5B / %x5D-7E, rest \xNN, cut at 200 */
extern char *ov_clean_text(OvArena *arena, const char *s, size_t len);

#endif							/* OV_CODEC_H */
