/*
 * fuzz_callback.c
 *	  Callback URLs, queries and forms; and that we and libcurl see the same host.
 *
 * Input: provider (1 byte), then a URL, or a bare query if it is none.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <curl/curl.h>

/* Who connects must read the same host out of a URL as who judges it. */
static void
compare_with_curl(const char *s, const OvUrl *url)
{
	CURLU	   *h = curl_url();
	char	   *host = NULL,
			   *port = NULL,
			   *scheme = NULL;
	struct in_addr v4;

	REQUIRE(h != NULL);
	/* What libcurl refuses reaches nobody. */
	if (curl_url_set(h, CURLUPART_URL, s, 0) == CURLUE_OK)
	{
		size_t		n;

		REQUIRE(curl_url_get(h, CURLUPART_HOST, &host, 0) == CURLUE_OK);
		REQUIRE(curl_url_get(h, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK);
		REQUIRE(curl_url_get(h, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK);
		REQUIRE(strcmp(scheme, url->scheme) == 0 && atoi(port) == url->port);
		n = strlen(host);
		if (host[0] == '[' && host[n - 1] == ']')
		{
			/* libcurl may write the address in another way */
			struct in6_addr a,
						b;

			host[n - 1] = '\0';
			REQUIRE(inet_pton(AF_INET6, host + 1, &a) == 1 && inet_pton(AF_INET6, url->host, &b) == 1);
			REQUIRE(memcmp(&a, &b, sizeof(a)) == 0);
		}
		else if (inet_pton(AF_INET, host, &v4) != 1)	/* numbers it writes as an address: judged at connect time */
			REQUIRE(strcasecmp(host, url->host) == 0);
	}
	curl_free(host);
	curl_free(port);
	curl_free(scheme);
	curl_url_cleanup(h);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	OvArena    *arena;
	const OvClient client = {"client", "hush"};
	const OvProvider *p;
	const char *text,
			   *query;
	size_t		len;
	OvUrl		url;
	OvParam    *params;
	OvError		err = {0};
	OvCode		rc;

	if (size < 1)
		return 0;
	p = fuzz_provider(data[0]);
	data++;
	size--;
	arena = ov_arena_new();
	text = ov_arena_strndup(arena, (const char *) data, size);
	query = (const char *) data;
	len = size;
	rc = ov_url_parse(arena, text, &url, &err);
	if (rc == OV_OK)
	{
		OvUrl		again;
		char	   *more;

		REQUIRE(strcmp(url.scheme, "https") == 0 || strcmp(url.scheme, "http") == 0);
		REQUIRE(url.host[0] != '\0' && url.port >= 1 && url.port <= 65535);
		REQUIRE(url.path[0] == '\0' || url.path[0] == '/');
		REQUIRE(ov_url_parse(arena, url.origin, &again, &err) == OV_OK);
		REQUIRE(strcmp(again.host, url.host) == 0 && again.port == url.port && strcmp(again.origin, url.origin) == 0);
		compare_with_curl(text, &url);
		more = ov_url_with_query(arena, text, "a=b");
		if (ov_url_parse(arena, more, &again, &err) == OV_OK)
			REQUIRE(strcmp(again.origin, url.origin) == 0);
		query = url.query != NULL ? url.query : "";
		len = strlen(query);
	}
	else
		require_reason(rc, &err);

	rc = ov_form_parse(arena, query, len, &params, &err);
	if (rc == OV_OK)
	{
		OvStr		form;
		OvParam    *again;
		char	   *captured;

		ov_str_init(&form, arena);
		for (OvParam *a = params; a != NULL; a = a->next)
		{
			REQUIRE(ov_utf8_ok(a->name, strlen(a->name)) && ov_utf8_ok(a->value, strlen(a->value)));
			REQUIRE(is_clean(ov_clean_text(arena, a->value, strlen(a->value))));
			ov_form_pair(&form, a->name, a->value);
		}
		REQUIRE(ov_form_parse(arena, form.data, form.len, &again, &err) == OV_OK);
		for (OvParam *a = params; a != NULL; a = a->next, again = again->next)
			REQUIRE(again != NULL && strcmp(a->name, again->name) == 0 && strcmp(a->value, again->value) == 0);
		REQUIRE(again == NULL);

		rc = ov_check_iss(p, ov_param(params, "iss"), &err);
		if (rc != OV_OK)
			require_reason(rc, &err);
		(void) ov_callback_code(arena, p, params);
		rc = ov_callback_capture(arena, p, &client, params, &captured, &err);
		if (rc == OV_OK)
		{
			const OvJson *v;

			REQUIRE(ov_json_parse(arena, captured, strlen(captured), &v, &err) == OV_OK && v->type == OV_JSON_OBJECT);
			for (v = v->child; v != NULL; v = v->next)
				REQUIRE(v->type == OV_JSON_STRING);
		}
		else
			require_reason(rc, &err);
	}
	else
		require_reason(rc, &err);
	ov_arena_free(arena);
	return 0;
}
