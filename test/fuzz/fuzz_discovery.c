/*
 * fuzz_discovery.c
 *	  Metadata documents, and what rules make of those that pass.
 *
 * Input: flags (1 byte), an issuer up to a line feed (none: the seeds' own), the body.
 */
#include "fuzz.h"

static bool
is_loopback_http(const char *s)
{
	OvUrl		url;
	OvArena    *arena = ov_arena_new();
	OvError		err;
	bool		is = ov_url_parse(arena, s, &url, &err) == OV_OK && strcmp(url.scheme, "http") == 0 && url.loopback;

	ov_arena_free(arena);
	return is;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const endpoints[] = {"authorization_endpoint", "token_endpoint", "revocation_endpoint", "introspection_endpoint"};
	OvArena    *arena;
	OvHttpResponse resp = {.status = 200, .sent = true, .content_type = "application/json"};
	const char *issuer;
	char	   *urls[3],
			   *metadata;
	int			n;
	bool		http;
	OvError		err = {0};
	OvCode		rc;

	if (size < 1)
		return 0;
	http = data[0] & 1;
	data++;
	size--;
	arena = ov_arena_new();
	issuer = take(arena, &data, &size, '\n');
	if (issuer[0] == '\0')
		issuer = "https://as.example";
	if (ov_discovery_urls(arena, issuer, http, urls, &n, &err) == OV_OK)
	{
		REQUIRE(n >= 1 && n <= 3);
		for (int i = 0; i < n; i++)
		{
			OvUrl		a,
						b;

			REQUIRE(ov_url_parse(arena, issuer, &a, &err) == OV_OK && ov_url_parse(arena, urls[i], &b, &err) == OV_OK);
			REQUIRE(strcmp(a.origin, b.origin) == 0);
		}
	}
	resp.body = (const char *) data;
	resp.body_len = size;
	rc = ov_discovery_response(arena, issuer, &resp, http, &metadata, &err);
	if (rc != OV_OK)
		require_reason(rc, &err);
	else
	{
		const OvJson *v,
				   *rules;
		const OvProvider *p;
		static const char least[] = "{\"schema\":1,\"display_name\":\"x\"}";

		REQUIRE(ov_json_parse(arena, metadata, strlen(metadata), &v, &err) == OV_OK && v->type == OV_JSON_OBJECT);
		/* RFC 8414 section 3.3: identical, not equivalent */
		REQUIRE(strcmp(ov_json_get_string(v, "issuer"), issuer) == 0);
		for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++)
		{
			const char *url = ov_json_get_string(v, endpoints[i]);

			if (url != NULL)
				REQUIRE(strncmp(url, "https://", 8) == 0 || strncmp(url, "HTTPS://", 8) == 0 || strncasecmp(url, "https://", 8) == 0 ||
						(http && is_loopback_http(url)));
		}
		REQUIRE(ov_json_parse(arena, least, strlen(least), &rules, &err) == OV_OK);
		rc = ov_provider_load(arena, rules, v, NULL, &p, &err);
		if (rc == OV_OK)
		{
			const char *const *hosts;
			unsigned char digest[32];
			int			nhosts;

			(void) ov_provider_hosts(arena, p, &hosts, &nhosts, digest, &err);
			REQUIRE(ov_provider_issuer(p) == NULL || strcmp(ov_provider_issuer(p), issuer) == 0);
		}
	}
	ov_arena_free(arena);
	return 0;
}
