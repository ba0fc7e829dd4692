/*
 * fuzz_json.c
 *	  JSON: what is read, written and read again is the same.
 */
#include "core/json.h"
#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	OvArena    *arena = ov_arena_new();
	const OvJson *v,
			   *again;
	OvError		err = {0};
	OvCode		rc = ov_json_parse(arena, (const char *) data, size, &v, &err);

	if (rc != OV_OK)
	{
		require_reason(rc, &err);
		REQUIRE(v == NULL);
	}
	else
	{
		OvStr		first,
					second;
		int64_t		n;

		ov_str_init(&first, arena);
		ov_json_write(&first, v);
		REQUIRE(ov_json_parse(arena, first.data, first.len, &again, &err) == OV_OK);
		ov_str_init(&second, arena);
		ov_json_write(&second, again);
		REQUIRE(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
		(void) ov_json_no_duplicates(v);
		(void) ov_json_int64(v, true, &n);
		(void) ov_json_at(v, "/a/0/~1~0");

		/* RFC 7396: a document patched onto nothing, and onto itself */
		REQUIRE(ov_json_merge_patch(arena, NULL, v) != NULL);
		(void) ov_json_merge_patch(arena, v, again);
		REQUIRE(!ov_arena_failed(arena));
	}
	ov_arena_free(arena);
	return 0;
}
