/*
 * fuzz_token_response.c
 *	  Successful and other answers of a token endpoint, under each provider's rules.
 *
 * Input: provider and flags (2 bytes), a content type up to a line feed, the body.
 */
#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	OvArena    *arena;
	OvHttpResponse resp = {.status = 200, .sent = true};
	OvTokens	out;
	unsigned	which,
				flags;

	if (size < 2)
		return 0;
	which = data[0];
	flags = data[1];
	data += 2;
	size -= 2;
	arena = ov_arena_new();
	resp.content_type = flags & 1 ? take(arena, &data, &size, '\n') : "application/json";
	resp.body = (const char *) data;
	resp.body_len = size;
	memset(&out, 0x5a, sizeof(out));
	ov_token_response(arena, fuzz_provider(which), &resp, flags & 2, NOW, &out);
	require_tokens(&out);
	if (out.outcome == OV_OUT_OK)
	{
		char	   *json;
		const OvJson *v;
		OvError		err = {0};

		REQUIRE(out.access_token != NULL && out.token_type != NULL);
		if (out.captured != NULL)
			REQUIRE(ov_json_parse(arena, out.captured, strlen(out.captured), &v, &err) == OV_OK && v->type == OV_JSON_OBJECT);
		/* What a caller would be given with that token */
		if (ov_api_credential(arena, fuzz_provider(which), "client", out.access_token, out.token_type, &json, &err) == OV_OK)
			REQUIRE(ov_json_parse(arena, json, strlen(json), &v, &err) == OV_OK);
		else
			REQUIRE(err.message[0] != '\0');
	}
	/* The same answer to the calls that follow a code */
	ov_post_exchange_response(arena, fuzz_provider(which), &resp, NOW, &out);
	require_tokens(&out);
	if (ov_provider_has_lookup(fuzz_provider(which)))
	{
		const OvJson *v;
		OvError		err = {0};

		resp.secrets[0] = "e30.eyJzdWIiOiIxIn0.c2ln";
		ov_lookup_response(arena, fuzz_provider(which), resp.secrets[0], &resp, NOW, &out);
		REQUIRE(out.access_token == NULL && out.refresh_token == NULL && out.id_token == NULL);
		if (out.captured != NULL)
			REQUIRE(ov_json_parse(arena, out.captured, strlen(out.captured), &v, &err) == OV_OK &&
					strstr(out.captured, resp.secrets[0]) == NULL);
	}
	ov_arena_free(arena);
	return 0;
}
