/*
 * fuzz.h
 *	  What the fuzzing harnesses share: an arena a run, claims, providers.
 *
 * A harness does more than not crash: it states what must hold whatever the
 * input is, with REQUIRE.  libFuzzer passes its input in a block of its own
 * size, so that a read past it is seen.
 */
#ifndef OV_FUZZ_H
#define OV_FUZZ_H

#include "core/provider.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW INT64_C(1800000000)

#define REQUIRE(cond) \
	do { \
		if (!(cond)) \
		{ \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond); \
			abort(); \
		} \
	} while (0)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A failure must say why, in one clean line. */
static inline void
require_reason(OvCode rc, const OvError *err)
{
	REQUIRE(rc != OV_OK && err->code == rc && err->message[0] != '\0');
}

/* The input up to the next byte sep, as a string of its own; *data moves behind it. */
static inline char *
take(OvArena *arena, const uint8_t **data, size_t *size, char sep)
{
	const uint8_t *at = *size > 0 ? memchr(*data, sep, *size) : NULL;
	size_t		n = at != NULL ? (size_t) (at - *data) : *size;
	char	   *s = ov_arena_strndup(arena, (const char *) *data, n);

	*data += at != NULL ? n + 1 : n;
	*size -= at != NULL ? n + 1 : n;
	return s;
}

static inline bool
is_visible(const char *s)
{
	for (; *s != '\0'; s++)
		if (*s < 0x21 || *s > 0x7e)
			return false;
	return true;
}

/* What may stand in DETAIL and in a log line */
static inline bool
is_clean(const char *s)
{
	for (; *s != '\0'; s++)
		if (*s < 0x20 || *s > 0x7e)
			return false;
	return true;
}

/* Providers of the catalogue, loaded once, each with the variables it needs;
 * and rules that use what no built-in provider does */
typedef struct FuzzProvider
{
	const char *name;			/* or the rules themselves */
	const char *variables;
	const OvProvider *p;
} FuzzProvider;

static FuzzProvider fuzz_providers[] = {
	{"oidc", NULL, NULL},
	{"google", NULL, NULL},
	{"microsoft", NULL, NULL},
	{"salesforce", NULL, NULL},
	{"slack", NULL, NULL},
	{"slack", "{\"token_kind\":\"user\"}", NULL},
	{"shopify", "{\"shop\":\"example.myshopify.com\"}", NULL},
	{"github_app_user", NULL, NULL},
	{"intuit_quickbooks", NULL, NULL},
	{"{\"schema\":1,\"display_name\":\"x\",\"client_auth\":[\"client_secret_basic_raw\"],"
		"\"token\":{\"url\":\"https://as.example/t\"},\"api\":{\"hosts\":[\"as.example\"]},\"subject\":\"{/id}/{/n}\","
		"\"response\":{\"formats\":[\"json\",\"form\"],\"token_type\":\"optional\","
		"\"scope\":{\"array\":true,\"separators\":\" ,\",\"secondary\":{\"/u/scope\":\"user:\"},\"implies\":{\"write\":\"read\"}},"
		"\"expiry\":[{\"kind\":\"iso8601\",\"field\":\"/at\"},{\"kind\":\"epoch\",\"field\":\"/exp\"},"
		"{\"kind\":\"issued\",\"field\":\"/iat\",\"unit\":\"ms\",\"seconds\":60}],\"refresh_expiry\":[{\"kind\":\"iso8601\",\"field\":\"/rat\"}],"
		"\"errors\":[{\"pointer\":\"/e\",\"pattern\":\"[a-c]{1,3}(x|y*)+\",\"outcome\":\"dead\",\"reason\":\"r\"}]}}", NULL, NULL},
	{"{\"schema\":1,\"display_name\":\"x\",\"token\":{\"url\":\"https://as.example/t\"},"
		"\"response\":{\"path\":\"/data/0\",\"path_optional\":true,\"expiry\":[{\"kind\":\"jwt\"},{\"kind\":\"never\"}],"
		"\"refresh_expiry\":[{\"kind\":\"seconds\",\"field\":\"/r\",\"from\":\"consent\"},{\"kind\":\"epoch\",\"field\":\"/hard\",\"cap\":true}],"
		"\"capture\":{\"a\":\"/a\",\"b\":\"/b/c\"}},"
		"\"post_exchange\":{\"url\":\"https://as.example/l\",\"response\":{\"path\":\"\"}},"
		"\"lookup\":{\"url\":\"https://as.example/me\",\"select\":{\"list\":\"\",\"where\":[{\"pointer\":\"/id\",\"claim\":\"sub\"}]},"
		"\"capture\":{\"n\":\"/n\"},\"scope\":\"/scope\",\"expiry\":[{\"kind\":\"seconds\",\"field\":\"/e\"}]}}", NULL, NULL},
};

#define FUZZ_PROVIDERS (sizeof(fuzz_providers) / sizeof(fuzz_providers[0]))

#define FUZZ_METADATA \
	"{\"issuer\":\"https://as.example\",\"authorization_endpoint\":\"https://as.example/authorize\"," \
	"\"token_endpoint\":\"https://as.example/token\",\"revocation_endpoint\":\"https://as.example/revoke\"," \
	"\"authorization_response_iss_parameter_supported\":true,\"code_challenge_methods_supported\":[\"S256\"]}"

static inline const OvProvider *
fuzz_provider(unsigned which)
{
	static OvArena *arena;		/* never freed: lives as long as the process */
	FuzzProvider *f = &fuzz_providers[which % FUZZ_PROVIDERS];

	if (arena == NULL)
		arena = ov_arena_new();
	if (f->p == NULL)
	{
		const OvJson *rules,
				   *metadata = NULL,
				   *variables = NULL;
		const char *text = f->name;
		size_t		len = strlen(text);
		OvError		err;

		if (text[0] != '{')
		{
			const char *tree = getenv("OV_TREE");
			char	   *path = ov_arena_printf(arena, "%s/providers/%s.json", tree != NULL ? tree : ".", f->name);
			char	   *read = ov_arena_alloc(arena, 65536);
			FILE	   *file = fopen(path, "r");

			if (file == NULL)
			{
				fprintf(stderr, "cannot read %s: OV_TREE must name the source tree\n", path);
				exit(2);
			}
			len = fread(read, 1, 65535, file);
			fclose(file);
			text = read;
		}
		REQUIRE(ov_json_parse(arena, text, len, &rules, &err) == OV_OK);
		if (strcmp(f->name, "oidc") == 0)
			REQUIRE(ov_json_parse(arena, FUZZ_METADATA, strlen(FUZZ_METADATA), &metadata, &err) == OV_OK);
		if (f->variables != NULL)
			REQUIRE(ov_json_parse(arena, f->variables, strlen(f->variables), &variables, &err) == OV_OK);
		if (ov_provider_load(arena, rules, metadata, variables, &f->p, &err) != OV_OK)
		{
			fprintf(stderr, "%.40s: %s\n", f->name, err.message);
			exit(2);
		}
	}
	return f->p;
}

/* What holds of every answer that was judged, good or bad */
static inline void
require_tokens(const OvTokens *t)
{
	if (t->outcome == OV_OUT_OK)
	{
		REQUIRE(t->access_token == NULL || (t->access_token[0] != '\0' && is_visible(t->access_token)));
		/* RFC 6749 appendix A.17 allows spaces in this one */
		REQUIRE(t->refresh_token == NULL || (t->refresh_token[0] != '\0' && is_clean(t->refresh_token)));
		REQUIRE(t->token_type == NULL || is_visible(t->token_type));
		REQUIRE(t->expires_at >= 0 && t->refresh_expires_at >= 0);
		for (int i = 0; i < t->nscopes; i++)
			REQUIRE(ov_scope_token_ok(t->scopes[i]));
		REQUIRE(t->subject == NULL || ov_utf8_ok(t->subject, strlen(t->subject)));
	}
	else
	{
		REQUIRE(t->access_token == NULL && t->refresh_token == NULL && t->id_token == NULL);
		REQUIRE(t->scopes == NULL && t->captured == NULL && t->subject == NULL);
		REQUIRE(t->reason[0] != '\0');
	}
	REQUIRE(t->retry_after >= -1 && t->retry_after <= 86400);
	REQUIRE(is_clean(t->reason));
	REQUIRE(t->error == NULL || is_clean(t->error));
	REQUIRE(t->error_description == NULL || is_clean(t->error_description));
}

#endif							/* OV_FUZZ_H */
