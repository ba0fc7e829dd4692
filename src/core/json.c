/*
 * json.c
 *	  Strict JSON reading (RFC 8259) without C recursion, and writing.
 *
 * The whole document is checked for NUL and invalid UTF-8 before it is looked
 * at; after that the parser can treat bytes above 0x7f as opaque.
 */
#include "core/json.h"
#include "core/codec.h"

#include <string.h>

typedef struct Parser
{
	OvArena    *arena;
	const char *p;
	const char *end;
	const char *start;
	OvError    *err;
} Parser;

static OvCode
bad(Parser *ps, const char *what)
{
	return ov_fail(ps->err, OV_E_SYNTAX, "invalid JSON: %s at byte %zu", what,
				   (size_t) (ps->p - ps->start));
}

static void
skip_space(Parser *ps)
{
	while (ps->p < ps->end && strchr(" \t\n\r", *ps->p) != NULL)
		ps->p++;
}

static int
hex4(const char *s)
{
	int			v = 0;

	for (int i = 0; i < 4; i++)
	{
		char		c = s[i];

		v <<= 4;
		if (c >= '0' && c <= '9')
			v |= c - '0';
		else if (c >= 'a' && c <= 'f')
			v |= c - 'a' + 10;
		else if (c >= 'A' && c <= 'F')
			v |= c - 'A' + 10;
		else
			return -1;
	}
	return v;
}

static void
put_utf8(OvStr *out, uint32_t cp)
{
	if (cp < 0x80)
		ov_str_putc(out, (char) cp);
	else if (cp < 0x800)
	{
		ov_str_putc(out, (char) (0xc0 | cp >> 6));
		ov_str_putc(out, (char) (0x80 | (cp & 0x3f)));
	}
	else if (cp < 0x10000)
	{
		ov_str_putc(out, (char) (0xe0 | cp >> 12));
		ov_str_putc(out, (char) (0x80 | (cp >> 6 & 0x3f)));
		ov_str_putc(out, (char) (0x80 | (cp & 0x3f)));
	}
	else
	{
		ov_str_putc(out, (char) (0xf0 | cp >> 18));
		ov_str_putc(out, (char) (0x80 | (cp >> 12 & 0x3f)));
		ov_str_putc(out, (char) (0x80 | (cp >> 6 & 0x3f)));
		ov_str_putc(out, (char) (0x80 | (cp & 0x3f)));
	}
}

/* \uXXXX with surrogate pairs joined; NUL and lone surrogates refused */
static OvCode
parse_unicode_escape(Parser *ps, OvStr *out)
{
	int			hi;
	uint32_t	cp;

	if (ps->end - ps->p < 4 || (hi = hex4(ps->p)) < 0)
		return bad(ps, "bad \\u escape");
	ps->p += 4;
	cp = (uint32_t) hi;
	if (cp >= 0xd800 && cp <= 0xdbff)
	{
		int			lo;

		if (ps->end - ps->p < 6 || ps->p[0] != '\\' || ps->p[1] != 'u' ||
			(lo = hex4(ps->p + 2)) < 0xdc00 || lo > 0xdfff)
			return bad(ps, "lone surrogate");
		ps->p += 6;
		cp = 0x10000 + ((cp - 0xd800) << 10) + ((uint32_t) lo - 0xdc00);
	}
	else if (cp >= 0xdc00 && cp <= 0xdfff)
		return bad(ps, "lone surrogate");
	if (cp == 0)
		return bad(ps, "embedded NUL");
	put_utf8(out, cp);
	return OV_OK;
}

/* ps->p is behind the opening quote */
static OvCode
parse_string(Parser *ps, const char **str, size_t *len)
{
	static const char from[] = "\"\\/bfnrt";
	static const char to[] = "\"\\/\b\f\n\r\t";
	const char *plain = ps->p;
	OvStr		out;

	/* Most strings have no escape: copy once. */
	while (ps->p < ps->end && *ps->p != '"' && *ps->p != '\\' && (unsigned char) *ps->p >= 0x20)
		ps->p++;
	if (ps->p < ps->end && *ps->p == '"')
	{
		*len = (size_t) (ps->p - plain);
		*str = ov_arena_strndup(ps->arena, plain, *len);
		ps->p++;
		return OV_OK;
	}
	ov_str_init(&out, ps->arena);
	ov_str_add(&out, plain, (size_t) (ps->p - plain));
	while (ps->p < ps->end)
	{
		char		c = *ps->p++;
		const char *at;
		OvCode		rc;

		if (c == '"')
		{
			*str = out.data;
			*len = out.len;
			return OV_OK;
		}
		if ((unsigned char) c < 0x20)
			return bad(ps, "control character in string");
		if (c != '\\')
		{
			ov_str_putc(&out, c);
			continue;
		}
		if (ps->p >= ps->end)
			break;
		c = *ps->p++;
		if (c == 'u')
		{
			if ((rc = parse_unicode_escape(ps, &out)) != OV_OK)
				return rc;
		}
		else if ((at = strchr(from, c)) != NULL)
			ov_str_putc(&out, to[at - from]);
		else
			return bad(ps, "bad escape");
	}
	return bad(ps, "unterminated string");
}

static bool
is_digit(const Parser *ps)
{
	return ps->p < ps->end && *ps->p >= '0' && *ps->p <= '9';
}

static OvCode
parse_number(Parser *ps, OvJson *v)
{
	const char *start = ps->p;

	if (*ps->p == '-')
		ps->p++;
	if (!is_digit(ps))
		return bad(ps, "bad number");
	if (*ps->p == '0')
		ps->p++;
	else
		while (is_digit(ps))
			ps->p++;
	if (ps->p < ps->end && *ps->p == '.')
	{
		ps->p++;
		if (!is_digit(ps))
			return bad(ps, "bad number");
		while (is_digit(ps))
			ps->p++;
	}
	if (ps->p < ps->end && (*ps->p == 'e' || *ps->p == 'E'))
	{
		ps->p++;
		if (ps->p < ps->end && (*ps->p == '+' || *ps->p == '-'))
			ps->p++;
		if (!is_digit(ps))
			return bad(ps, "bad number");
		while (is_digit(ps))
			ps->p++;
	}
	v->type = OV_JSON_NUMBER;
	v->len = (size_t) (ps->p - start);
	v->str = ov_arena_strndup(ps->arena, start, v->len);
	return OV_OK;
}

static OvCode
parse_scalar(Parser *ps, OvJson *v)
{
	static const struct
	{
		const char *word;
		OvJsonType	type;
	}			words[] = {
		{"true", OV_JSON_TRUE}, {"false", OV_JSON_FALSE}, {"null", OV_JSON_NULL}
	};

	if (*ps->p == '"')
	{
		ps->p++;
		v->type = OV_JSON_STRING;
		return parse_string(ps, &v->str, &v->len);
	}
	if (*ps->p == '-' || (*ps->p >= '0' && *ps->p <= '9'))
		return parse_number(ps, v);
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
	{
		size_t		n = strlen(words[i].word);

		if ((size_t) (ps->end - ps->p) >= n && memcmp(ps->p, words[i].word, n) == 0)
		{
			ps->p += n;
			v->type = words[i].type;
			return OV_OK;
		}
	}
	return bad(ps, "unexpected character");
}

/*
 * One loop over values; open containers are on an explicit stack, so depth
 * costs no C stack.
 */
static OvCode
parse_document(Parser *ps, OvJson **root)
{
	OvJson	   *stack[OV_JSON_MAX_DEPTH];
	OvJson	   *last[OV_JSON_MAX_DEPTH];
	int			depth = 0;

	*root = NULL;
	for (;;)
	{
		OvJson	   *v = ov_arena_alloc(ps->arena, sizeof(OvJson));
		OvJson	   *parent = depth > 0 ? stack[depth - 1] : NULL;
		size_t		keylen;
		OvCode		rc;
		bool		opened = false;

		skip_space(ps);
		if (ps->p >= ps->end)
			return bad(ps, "unexpected end");
		if (parent != NULL && parent->type == OV_JSON_OBJECT)
		{
			if (*ps->p != '"')
				return bad(ps, "member name expected");
			ps->p++;
			if ((rc = parse_string(ps, &v->key, &keylen)) != OV_OK)
				return rc;
			skip_space(ps);
			if (ps->p >= ps->end || *ps->p != ':')
				return bad(ps, "colon expected");
			ps->p++;
			skip_space(ps);
			if (ps->p >= ps->end)
				return bad(ps, "unexpected end");
		}
		if (parent == NULL)
			*root = v;
		else
		{
			if (last[depth - 1] == NULL)
				parent->child = v;
			else
				last[depth - 1]->next = v;
			last[depth - 1] = v;
			parent->count++;
		}
		if (*ps->p == '{' || *ps->p == '[')
		{
			v->type = *ps->p == '{' ? OV_JSON_OBJECT : OV_JSON_ARRAY;
			ps->p++;
			if (depth == OV_JSON_MAX_DEPTH)
				return ov_fail(ps->err, OV_E_LIMIT, "invalid JSON: nested deeper than %d", OV_JSON_MAX_DEPTH);
			stack[depth] = v;
			last[depth++] = NULL;
			skip_space(ps);
			/* An empty container is closed below, like a full one. */
			opened = !(ps->p < ps->end && *ps->p == (v->type == OV_JSON_OBJECT ? '}' : ']'));
		}
		else if ((rc = parse_scalar(ps, v)) != OV_OK)
			return rc;
		if (opened)
			continue;

		/* Behind a value: close containers until a comma or the end. */
		for (;;)
		{
			skip_space(ps);
			if (depth == 0)
				return ps->p == ps->end ? OV_OK : bad(ps, "trailing characters");
			if (ps->p >= ps->end)
				return bad(ps, "unexpected end");
			if (*ps->p == ',' && stack[depth - 1]->count > 0)
			{
				ps->p++;
				break;
			}
			if (*ps->p != (stack[depth - 1]->type == OV_JSON_OBJECT ? '}' : ']'))
				return bad(ps, "comma or end of container expected");
			ps->p++;
			depth--;
		}
	}
}

OvCode
ov_json_parse(OvArena *arena, const char *text, size_t len, const OvJson **root, OvError *err)
{
	Parser		ps;
	OvJson	   *v;
	OvCode		rc;

	*root = NULL;
	if (len == 0)
		text = "";				/* may have been NULL */
	ps = (Parser) {arena, text, text + len, text, err};
	if (memchr(text, 0, len) != NULL)
		return ov_fail(err, OV_E_SYNTAX, "invalid JSON: embedded NUL");
	if (!ov_utf8_ok(text, len))
		return ov_fail(err, OV_E_SYNTAX, "invalid JSON: not UTF-8");
	if ((rc = parse_document(&ps, &v)) != OV_OK)
		return rc;
	if (ov_arena_failed(arena))
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	*root = v;
	return OV_OK;
}

const OvJson *
ov_json_get(const OvJson *object, const char *key)
{
	if (object == NULL || object->type != OV_JSON_OBJECT)
		return NULL;
	for (const OvJson *v = object->child; v != NULL; v = v->next)
		if (strcmp(v->key, key) == 0)
			return v;
	return NULL;
}

const OvJson *
ov_json_at(const OvJson *root, const char *pointer)
{
	const OvJson *v = root;

	while (v != NULL && *pointer == '/')
	{
		char		token[256];
		size_t		n = 0;

		for (pointer++; *pointer != '\0' && *pointer != '/' && n < sizeof(token) - 1; pointer++)
		{
			/* RFC 6901 section 4: ~1 is /, ~0 is ~ */
			if (pointer[0] == '~' && (pointer[1] == '0' || pointer[1] == '1'))
				token[n++] = *++pointer == '0' ? '~' : '/';
			else
				token[n++] = *pointer;
		}
		token[n] = '\0';
		if (v->type == OV_JSON_ARRAY)
		{
			long		index = 0;

			/* RFC 6901 section 4: no leading zeros */
			if (n == 0 || n > 6 || strspn(token, "0123456789") != n || (n > 1 && token[0] == '0'))
				return NULL;
			for (size_t i = 0; i < n; i++)
				index = index * 10 + (token[i] - '0');
			for (v = v->child; v != NULL && index > 0; index--)
				v = v->next;
		}
		else
			v = ov_json_get(v, token);
	}
	return *pointer == '\0' ? v : NULL;
}

bool
ov_json_unique(const OvJson *object, const char *const *keys, int nkeys)
{
	for (int i = 0; i < nkeys; i++)
	{
		int			seen = 0;

		for (const OvJson *v = object->child; v != NULL; v = v->next)
			if (strcmp(v->key, keys[i]) == 0 && ++seen > 1)
				return false;
	}
	return true;
}

const char *
ov_json_string(const OvJson *v)
{
	return v != NULL && v->type == OV_JSON_STRING ? v->str : NULL;
}

const char *
ov_json_get_string(const OvJson *object, const char *key)
{
	return ov_json_string(ov_json_get(object, key));
}

bool
ov_json_is_true(const OvJson *v)
{
	return v != NULL && v->type == OV_JSON_TRUE;
}

bool
ov_json_no_duplicates(const OvJson *v)
{
	if (v->type != OV_JSON_OBJECT && v->type != OV_JSON_ARRAY)
		return true;
	if (v->type == OV_JSON_OBJECT && v->count > OV_JSON_MAX_MEMBERS)
		return false;
	for (const OvJson *c = v->child; c != NULL; c = c->next)
	{
		if (!ov_json_no_duplicates(c))
			return false;
		for (const OvJson *d = v->type == OV_JSON_OBJECT ? c->next : NULL; d != NULL; d = d->next)
			if (strcmp(c->key, d->key) == 0)
				return false;
	}
	return true;
}

bool
ov_json_int64(const OvJson *v, bool allow_string, int64_t *out)
{
	const char *s;
	bool		negative = false;
	uint64_t	n = 0;
	bool		digits = false;

	if (v == NULL || !(v->type == OV_JSON_NUMBER || (allow_string && v->type == OV_JSON_STRING)))
		return false;
	s = v->str;
	/* Exponents are legal JSON but no sane count of seconds. */
	if (strpbrk(s, "eE") != NULL)
		return false;
	if (*s == '-' && v->type == OV_JSON_NUMBER)
	{
		negative = true;
		s++;
	}
	for (; *s >= '0' && *s <= '9'; s++)
	{
		digits = true;
		if (n > (INT64_MAX - 9) / 10)
			return false;
		n = n * 10 + (uint64_t) (*s - '0');
	}
	if (!digits)
		return false;
	if (*s == '.' && v->type == OV_JSON_NUMBER)
	{
		/* floor: -0.5 is -1 */
		if (negative && strspn(s + 1, "0") != strlen(s + 1))
			n++;
	}
	else if (*s != '\0')
		return false;
	*out = negative ? -(int64_t) n : (int64_t) n;
	return true;
}

void
ov_json_quote(OvStr *out, const char *s, size_t len)
{
	ov_str_putc(out, '"');
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) s[i];

		if (c == '"' || c == '\\')
		{
			ov_str_putc(out, '\\');
			ov_str_putc(out, (char) c);
		}
		else if (c < 0x20 || c == 0x7f)
			ov_str_printf(out, "\\u%04x", c);
		else
			ov_str_putc(out, (char) c);
	}
	ov_str_putc(out, '"');
}

/* Depth is bounded by the parser, so this may recurse. */
void
ov_json_write(OvStr *out, const OvJson *v)
{
	switch (v->type)
	{
		case OV_JSON_NULL:
			ov_str_puts(out, "null");
			break;
		case OV_JSON_FALSE:
			ov_str_puts(out, "false");
			break;
		case OV_JSON_TRUE:
			ov_str_puts(out, "true");
			break;
		case OV_JSON_NUMBER:
			ov_str_add(out, v->str, v->len);
			break;
		case OV_JSON_STRING:
			ov_json_quote(out, v->str, v->len);
			break;
		case OV_JSON_ARRAY:
		case OV_JSON_OBJECT:
			ov_str_putc(out, v->type == OV_JSON_OBJECT ? '{' : '[');
			for (const OvJson *c = v->child; c != NULL; c = c->next)
			{
				if (c != v->child)
					ov_str_putc(out, ',');
				if (v->type == OV_JSON_OBJECT)
				{
					ov_json_quote(out, c->key, strlen(c->key));
					ov_str_putc(out, ':');
				}
				ov_json_write(out, c);
			}
			ov_str_putc(out, v->type == OV_JSON_OBJECT ? '}' : ']');
			break;
	}
}
