/*
 * fuzz_error_response.c
 *	  Answers of a token endpoint that are none: every status, Retry-After, Date.
 *
 * Input: provider, flags, status / 2 (3 bytes), then lines: content type,
 * Retry-After, Date; then the body.
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
	resp.status = data[2] * 2 + (flags >> 7) + 100;
	data += 3;
	size -= 3;
	arena = ov_arena_new();
	resp.content_type = take(arena, &data, &size, '\n');
	resp.retry_after = take(arena, &data, &size, '\n');
	resp.date = take(arena, &data, &size, '\n');
	if (resp.content_type[0] == '\0')
		resp.content_type = flags & 1 ? NULL : "application/json";
	if (flags & 4)
		resp.retry_after = NULL;
	if (flags & 8)
		resp.date = NULL;
	if (flags & 16)
	{
		resp.status = 0;
		resp.transport_error = "connection reset";
		resp.sent = flags & 32;
	}
	resp.body = (const char *) data;
	resp.body_len = size;
	memset(&out, 0x5a, sizeof(out));
	ov_token_response(arena, fuzz_provider(which), &resp, flags & 2, NOW, &out);
	require_tokens(&out);
	REQUIRE(out.outcome != OV_OUT_OK || resp.status == 200);
	ov_arena_free(arena);
	return 0;
}
