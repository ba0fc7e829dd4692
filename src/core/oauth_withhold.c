/*
 * oauth_withhold.c
 *	  What of a provider's answer may be read for anything but its tokens.
 *
 * Rules say where an answer's scopes, subject, captured values and errors
 * stand, and a site's administrator writes rules: whoever may point a rule at
 * an answer must not be able to point it at a secret.  And providers quote
 * what they were sent.  So everything but the tokens themselves is read from a
 * copy in which these strings are null, which counts as absent:
 *
 * - what the rules take as tokens, and what was sent in the request, wherever
 *   it stands, also inside a longer string;
 * - long strings under a name that speaks of tokens or secrets, so that rules
 *   that take something else as the token do not lay the real one open.
 */
#include "core/oauth_response.h"

#include <string.h>
#include <strings.h>

#define MIN_SECRET 16			/* shorter strings under such a name are types and lifetimes */
#define MIN_CONTAINED 8			/* shorter secrets must be met whole: they would be met by chance */

static bool
contains_word(const char *name, const char *word)
{
	for (; *name != '\0'; name++)
		if (strncasecmp(name, word, strlen(word)) == 0)
			return true;
	return false;
}

static bool
secret_name(const char *name)
{
	static const char *const words[] = {"token", "secret", "assertion", "password", "jwt", "verifier", "credential"};

	for (size_t i = 0; name != NULL && i < sizeof(words) / sizeof(words[0]); i++)
		if (contains_word(name, words[i]))
			return true;
	return false;
}

static bool
token_name(const char *name)
{
	return name != NULL && (strcasecmp(name, "access_token") == 0 || strcasecmp(name, "refresh_token") == 0 ||
							strcasecmp(name, "id_token") == 0);
}

/* RFC 3339, as some lifetimes of tokens are told */
static bool
is_time(const OvJson *v)
{
	return v->len <= 40 && strchr(v->str, ':') != NULL && v->str[strspn(v->str, "0123456789-:.TtZz+ ")] == '\0';
}

static bool
is_secret(const OvJson *v, bool named, const char *const *secrets)
{
	if (token_name(v->key) || (named && v->len >= MIN_SECRET && !is_time(v)))
		return true;
	for (; *secrets != NULL; secrets++)
		if (strcmp(v->str, *secrets) == 0 || (strlen(*secrets) >= MIN_CONTAINED && strstr(v->str, *secrets) != NULL))
			return true;
	return false;
}

/* named: below a name that speaks of secrets.  Recursion is bounded by the parser's depth. */
const OvJson *
ov_withhold(OvArena *arena, const OvJson *v, bool named, const char *const *secrets)
{
	OvJson	   *copy = ov_arena_alloc(arena, sizeof(OvJson));
	OvJson	   *last = NULL;

	*copy = *v;
	copy->next = NULL;
	named = named || secret_name(v->key);
	if (v->type == OV_JSON_STRING && is_secret(v, named, secrets))
	{
		copy->type = OV_JSON_NULL;
		copy->str = NULL;
		copy->len = 0;
	}
	copy->child = NULL;
	for (const OvJson *c = v->child; c != NULL; c = c->next)
	{
		OvJson	   *m = (OvJson *) ov_withhold(arena, c, named, secrets);

		if (last == NULL)
			copy->child = m;
		else
			last->next = m;
		last = m;
	}
	return copy;
}
