/*
 * fuzz_provider.c
 *	  Rules of providers, as an administrator may write them: a request that can
 *	  carry a secret goes to a pinned host and nowhere else.
 *
 * Input: lines: variables, metadata, callback query (each may be empty); the
 * rest are the rules.
 */
#include "fuzz.h"

static const char *const *hosts;
static int	nhosts;

static bool
pinned(OvArena *arena, const char *s)
{
	OvUrl		url;
	OvError		err;
	const char *host;

	if (ov_url_parse(arena, s, &url, &err) != OV_OK)
		return false;
	host = strstr(url.origin, "://") + 3;
	for (int i = 0; i < nhosts; i++)
		if (strcmp(hosts[i], host) == 0)
			return true;
	return false;
}

static void
require_request(OvArena *arena, OvCode rc, const OvHttpRequest *req, const OvError *err)
{
	if (rc != OV_OK)
	{
		REQUIRE(err->message[0] != '\0');
		return;
	}
	if (!pinned(arena, req->url))
	{
		fprintf(stderr, "%s is not pinned\n", req->url);
		abort();
	}
	REQUIRE(req->method != NULL && is_visible(req->method));
	REQUIRE(req->nheaders >= 0 && req->nheaders <= (int) (sizeof(req->headers) / sizeof(req->headers[0])));
	for (int i = 0; i < req->nheaders; i++)
	{
		REQUIRE(strpbrk(req->headers[i], "\r\n") == NULL);
		REQUIRE(strchr(req->headers[i], ':') != NULL);
	}
	REQUIRE(req->body == NULL || strlen(req->body) == req->body_len);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const scopes[] = {"a", "b", "offline_access"};
	static const char *const secrets[] = {
		"hush", NULL,
		"{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}",
	};
	OvArena    *arena = ov_arena_new();
	const OvJson *rules,
			   *metadata = NULL,
			   *variables = NULL;
	const OvProvider *p;
	char	   *line[3];
	OvError		err = {0};
	OvCode		rc;

	for (int i = 0; i < 3; i++)
		line[i] = take(arena, &data, &size, '\n');
	(void) ov_json_parse(arena, line[0], strlen(line[0]), &variables, NULL);
	(void) ov_json_parse(arena, line[1], strlen(line[1]), &metadata, NULL);
	/* Only discovery makes metadata, and it checked their form. */
	if (metadata != NULL)
	{
		OvHttpResponse resp = {.status = 200,.sent = true,.content_type = "application/json",.body = line[1],.body_len = strlen(line[1])};
		const char *issuer = ov_json_get_string(metadata, "issuer");
		char	   *reduced;

		if (issuer == NULL || ov_discovery_response(arena, issuer, &resp, true, &reduced, &err) != OV_OK)
			metadata = NULL;
		else
			REQUIRE(ov_json_parse(arena, reduced, strlen(reduced), &metadata, &err) == OV_OK);
	}
	if (ov_json_parse(arena, (const char *) data, size, &rules, NULL) != OV_OK)
	{
		ov_arena_free(arena);
		return 0;
	}
	rc = ov_provider_load(arena, rules, metadata, variables, &p, &err);
	if (rc != OV_OK)
	{
		require_reason(rc, &err);
		REQUIRE(p == NULL);
	}
	else
	{
		unsigned char digest[32];

		hosts = NULL;
		nhosts = 0;
		/* Without hosts there is no digest to seal with: every caller stops here. */
		rc = ov_provider_hosts(arena, p, &hosts, &nhosts, digest, &err);
		if (rc != OV_OK)
		{
			require_reason(rc, &err);
			ov_arena_free(arena);
			return 0;
		}
		for (int s = 0; s < 3; s++)
		{
			const OvClient client = {"client id", secrets[s]};
			const OvBegin begin = {"client id", "https://app.example/cb?x=1", "st", "ch", "no", "ada@example.org", scopes, 3};
			OvHttpRequest req = {0};
			OvParam    *params = NULL;
			char	   *text;

			if (ov_authorization_url(arena, p, &begin, &text, &err) == OV_OK)
			{
				OvUrl		url;

				REQUIRE(ov_url_parse(arena, text, &url, &err) == OV_OK);
				REQUIRE(strpbrk(text, " \r\n") == NULL);
			}
			rc = ov_code_request(arena, p, &client, "co de", "https://app.example/cb", "verifier", &req, &err);
			require_request(arena, rc, &req, &err);
			memset(&req, 0, sizeof(req));
			rc = ov_refresh_request(arena, p, &client, "re&fresh", "ac=cess", &req, &err);
			require_request(arena, rc, &req, &err);
			memset(&req, 0, sizeof(req));
			rc = ov_revoke_request(arena, p, &client, "refresh_token", "re&fresh", &req, &err);
			require_request(arena, rc, &req, &err);
			memset(&req, 0, sizeof(req));
			rc = ov_revoke_request(arena, p, &client, "access_token", "access", &req, &err);
			require_request(arena, rc, &req, &err);
			memset(&req, 0, sizeof(req));
			rc = ov_post_exchange_request(arena, p, &client, "ac=cess", &req, &err);
			require_request(arena, rc, &req, &err);
			memset(&req, 0, sizeof(req));
			rc = ov_lookup_request(arena, p, &client, "ac=cess", &req, &err);
			require_request(arena, rc, &req, &err);
			if (ov_form_parse(arena, line[2], strlen(line[2]), &params, &err) == OV_OK)
			{
				(void) ov_callback_capture(arena, p, &client, params, &text, &err);
				(void) ov_callback_code(arena, p, params);
				(void) ov_check_iss(p, ov_param(params, "iss"), &err);
			}
			if (ov_api_credential(arena, p, "id", "access", "Bearer", &text, &err) == OV_OK)
			{
				const OvJson *v;
				const char *value;

				REQUIRE(ov_json_parse(arena, text, strlen(text), &v, &err) == OV_OK);
				value = ov_json_get_string(v, "header_value");
				REQUIRE(value == NULL || strpbrk(value, "\r\n") == NULL);
			}
		}
		(void) ov_provider_begin_params(p, variables, &err);
		for (int i = 0; i < 2; i++)
		{
			static const char good[] = "{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"expires_in\":5,\"refresh_token\":\"rt\",\"scope\":\"a b\"}";
			static const char bad[] = "{\"error\":\"invalid_grant\",\"error_description\":\"x\",\"ok\":false,\"data\":{\"id\":1}}";
			OvHttpResponse resp = {.status = i == 0 ? 200 : 400,.sent = true,.content_type = "application/json",
			.body = i == 0 ? good : bad,.body_len = strlen(i == 0 ? good : bad)};
			OvTokens	out;

			ov_token_response(arena, p, &resp, i == 1, NOW, &out);
			require_tokens(&out);
			ov_revoke_response(arena, p, &resp, &out);
			require_tokens(&out);
		}
	}
	ov_arena_free(arena);
	return 0;
}
