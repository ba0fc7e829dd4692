/*
 * fuzz_id_token.c
 *	  ID tokens as a token endpoint sends them.
 *
 * Input: a mode byte, then (r) the token as it is or (anything else) header,
 * line feed, claims, line feed, signature, encoded here.
 */
#include "core/id_token.h"
#include "fuzz.h"

#include "core/jwt.h"

/* With a refresh: what a consent takes is nobody else's to its own subject, and foreign to any other. */
static void
check_renewed(OvArena *arena, const char *jwt, const char *subject)
{
	bool		foreign;
	OvError		err = {0};
	OvCode		rc = ov_id_token_renewed(arena, jwt, fuzz_provider(0), "client", "nobody at all", NOW, &foreign, &err);

	if (rc != OV_OK)
		require_reason(rc, &err);
	REQUIRE(!foreign || rc == OV_E_DENIED);
	if (subject == NULL)
		return;
	REQUIRE(foreign == (strcmp(subject, "nobody at all") != 0));
	REQUIRE(ov_id_token_renewed(arena, jwt, fuzz_provider(0), "client", subject, NOW, &foreign, &err) == OV_OK && !foreign);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	OvArena    *arena;
	const char *jwt,
			   *subject;
	char		mode;
	OvError		err = {0};
	OvCode		rc;

	if (size < 1)
		return 0;
	mode = (char) data[0];
	data++;
	size--;
	arena = ov_arena_new();
	if (mode == 'r')
		jwt = ov_arena_strndup(arena, (const char *) data, size);
	else
	{
		char	   *h = take(arena, &data, &size, '\n'),
				   *c = take(arena, &data, &size, '\n');

		jwt = ov_arena_printf(arena, "%s.%s.%s", ov_b64url(arena, h, strlen(h)), ov_b64url(arena, c, strlen(c)),
							  ov_b64url(arena, data, size));
	}
	rc = ov_id_token_check(arena, jwt, fuzz_provider(0), "client", "n-1", NOW, &subject, &err);
	if (rc != OV_OK)
	{
		require_reason(rc, &err);
		REQUIRE(subject == NULL);
	}
	else
	{
		const OvJson *header,
				   *claims;

		REQUIRE(strlen(subject) >= 1 && strlen(subject) <= 255);
		REQUIRE(ov_jwt_peek(arena, jwt, strlen(jwt), &header, &claims, &err) == OV_OK);
		REQUIRE(strcmp(ov_json_get_string(claims, "iss"), "https://as.example") == 0);
		REQUIRE(strcmp(ov_json_get_string(claims, "nonce"), "n-1") == 0);
	}
	/* Where less is known, more passes, never less. */
	if (rc == OV_OK)
		REQUIRE(ov_id_token_check(arena, jwt, NULL, "client", NULL, NOW, &subject, &err) == OV_OK);
	check_renewed(arena, jwt, rc == OV_OK ? subject : NULL);
	ov_arena_free(arena);
	return 0;
}
