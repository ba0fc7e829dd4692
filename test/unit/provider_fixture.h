/*
 * provider_fixture.h
 *	  What the tests of providers share: documents from text and from the catalogue.
 *
 * Text documents are written with ' for ".
 */
#ifndef OV_PROVIDER_FIXTURE_H
#define OV_PROVIDER_FIXTURE_H

#include "core/provider.h"
#include "tap.h"

#define MINIMAL "'schema':1,'display_name':'x'"
#define T(text) text, sizeof(text) - 1

static OvArena *arena;
static OvError err;

static inline const char *
double_quotes(const char *text)
{
	char	   *s = ov_arena_strdup(arena, text);

	for (char *c = s; *c != '\0'; c++)
		if (*c == '\'')
			*c = '"';
	return s;
}

static inline const OvJson *
json(const char *text)
{
	const OvJson *v;
	OvError		why;

	if (text == NULL)
		return NULL;
	text = double_quotes(text);
	if (ov_json_parse(arena, text, strlen(text), &v, &why) != OV_OK)
	{
		diag("%s in %s", why.message, text);
		exit(1);
	}
	return v;
}

static inline OvCode
try_load(const char *rules, const char *metadata, const char *variables, const OvProvider **p)
{
	memset(&err, 0, sizeof(err));
	return ov_provider_load(arena, json(rules), json(metadata), json(variables), p, &err);
}

static inline const OvProvider *
load(const char *rules, const char *metadata, const char *variables)
{
	const OvProvider *p;

	if (try_load(rules, metadata, variables, &p) != OV_OK)
	{
		diag("%s: %s", rules, err.message);
		exit(1);
	}
	return p;
}

/* A file of the catalogue, merged with a patch if there is one */
static inline const OvJson *
catalogue(const char *name, const char *patch)
{
	char		path[512];
	FILE	   *f;
	char	   *text = ov_arena_alloc(arena, 65536);
	size_t		n;
	const OvJson *v;
	OvError		why;

	snprintf(path, sizeof(path), "%s/providers/%s.json", getenv("OV_TREE"), name);
	if ((f = fopen(path, "r")) == NULL)
	{
		diag("cannot read %s", path);
		exit(1);
	}
	n = fread(text, 1, 65535, f);
	fclose(f);
	if (ov_json_parse(arena, text, n, &v, &why) != OV_OK)
	{
		diag("%s: %s", path, why.message);
		exit(1);
	}
	return patch != NULL ? ov_json_merge_patch(arena, v, json(patch)) : v;
}

static inline const OvProvider *
load_catalogue(const char *name, const char *metadata, const char *variables)
{
	const OvProvider *p;

	memset(&err, 0, sizeof(err));
	if (ov_provider_load(arena, catalogue(name, NULL), json(metadata), json(variables), &p, &err) != OV_OK)
	{
		diag("%s: %s", name, err.message);
		exit(1);
	}
	return p;
}

/* A request as text: "METHOD URL", its headers in order, an empty line, its body */
static inline const char *
request_text(const OvHttpRequest *req)
{
	OvStr		s;

	ov_str_init(&s, arena);
	ov_str_printf(&s, "%s %s\n", req->method, req->url);
	for (int i = 0; i < req->nheaders; i++)
		ov_str_printf(&s, "%s\n", req->headers[i]);
	if (req->body != NULL)
		ov_str_printf(&s, "\n%s", req->body);
	return s.data;
}

#endif							/* OV_PROVIDER_FIXTURE_H */
