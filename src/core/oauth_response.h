/*
 * oauth_response.h
 *	  What oauth_response.c and oauth_tokens.c share; nobody else includes this.
 */
#ifndef OV_OAUTH_RESPONSE_H
#define OV_OAUTH_RESPONSE_H

#include "core/provider_internal.h"

typedef struct OvReader
{
	OvArena    *arena;
	const OvProvider *provider;
	const OvJson *rules;		/* response, refresh.response merged in, or revocation */
	const OvHttpResponse *resp;
	const OvJson *root;			/* the token object less its secrets; NULL: the body is none */
	const OvJson *tokens;		/* as it came: for the tokens themselves, and nothing else */
	int64_t		now;
	bool		duplicate;		/* a member that was looked for stands twice */
	OvTokens   *out;
} OvReader;

/* Ends the reading: nothing is kept but the provider's error and Retry-After. */
extern void ov_conclude(OvReader *r, OvOutcome outcome, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));
/* A member of the object; notes when it stands there twice */
extern const OvJson *ov_lookup(OvReader *r, const char *pointer);
/* The same by the rules' pointer or the usual one; null counts as absent */
extern const OvJson *ov_response_field(OvReader *r, const char *section, const char *name, const char *otherwise);
/* A token, from the object as it came */
extern const OvJson *ov_response_token(OvReader *r, const char *name, const char *otherwise);
/* oauth_withhold.c: a copy in which secrets are null; the list ends with NULL */
extern const OvJson *ov_withhold(OvArena *arena, const OvJson *v, bool named, const char *const *secrets);
/* oauth_tokens.c: fills r->out from the object, or concludes that it is malformed */
extern void ov_read_tokens(OvReader *r, bool is_refresh);

#endif							/* OV_OAUTH_RESPONSE_H */
