/*
 * fuzz_revocation.c
 *	  Answers of a revocation endpoint, under each provider's rules.
 *
 * Input: as in fuzz_error_response.c.
 */
#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	OvArena    *arena;
	OvHttpResponse resp = {.sent = true};
	OvTokens	out;
	unsigned	which,
				flags;

	if (size < 3)
		return 0;
	which = data[0];
	flags = data[1];
	resp.status = flags & 64 ? 200 : data[2] * 2 + (flags >> 7) + 100;
	data += 3;
	size -= 3;
	arena = ov_arena_new();
	resp.content_type = take(arena, &data, &size, '\n');
	resp.retry_after = take(arena, &data, &size, '\n');
	resp.date = take(arena, &data, &size, '\n');
	if (resp.content_type[0] == '\0')
		resp.content_type = flags & 1 ? NULL : "application/json";
	resp.body = (const char *) data;
	resp.body_len = size;
	memset(&out, 0x5a, sizeof(out));
	ov_revoke_response(arena, fuzz_provider(which), &resp, &out);
	require_tokens(&out);
	REQUIRE(out.access_token == NULL && out.refresh_token == NULL);
	ov_arena_free(arena);
	return 0;
}
