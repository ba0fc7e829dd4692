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
	bool		refreshing;		/* not the first answer of a consent */
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
/* Begins to read an answer; false: there is none, and that is concluded */
extern bool ov_begin_reading(OvReader *r, OvArena *arena, const OvProvider *p, const OvJson *rules,
							 const OvHttpResponse *resp, int64_t now, OvTokens *out);
/* Takes the body's document; false: it is none, and why says so */
extern bool ov_take_body(OvReader *r, bool array, char *why, size_t size);
/* Everything but a success; status 200 does not come here */
extern void ov_conclude_status(OvReader *r, const char *why);
/* Does a member equal a rule's value? */
extern bool ov_same_scalar(const OvJson *a, const OvJson *b);
/* oauth_tokens.c: by the rules' lists and pointers; false: what stands there is malformed */
extern bool ov_read_expiry(OvReader *r, const char *list, const char *token, int64_t *out);
extern bool ov_read_captured(OvReader *r);
/* Scopes at this place of the answer, as response.scope has them written */
extern bool ov_read_scopes_at(OvReader *r, const OvJson *v);
/* oauth_tokens.c: fills r->out from the object, or concludes that it is malformed */
extern void ov_read_tokens(OvReader *r);

#endif							/* OV_OAUTH_RESPONSE_H */
