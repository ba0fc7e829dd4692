/*
 * codec.c
 *	  Encodings, hashes, random strings, URLs and form bodies.
 */
#include "core/codec.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#define MAX_URL 8192

static char *
base64(OvArena *arena, const void *data, size_t len, const char *alphabet, bool pad)
{
	const unsigned char *in = data;
	char	   *out = ov_arena_alloc(arena, (len + 2) / 3 * 4 + 1);
	char	   *o = out;

	for (size_t i = 0; i < len; i += 3)
	{
		uint32_t	v = (uint32_t) in[i] << 16;
		size_t		have = len - i < 3 ? len - i : 3;

		if (have > 1)
			v |= (uint32_t) in[i + 1] << 8;
		if (have > 2)
			v |= in[i + 2];
		for (size_t k = 0; k < 4; k++)
		{
			if (k <= have)
				*o++ = alphabet[v >> (18 - 6 * k) & 63];
			else if (pad)
				*o++ = '=';
		}
	}
	*o = '\0';
	return out;
}

static const char b64url_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char b64_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *
ov_b64url(OvArena *arena, const void *data, size_t len)
{
	return base64(arena, data, len, b64url_alphabet, false);
}

char *
ov_b64(OvArena *arena, const void *data, size_t len)
{
	return base64(arena, data, len, b64_alphabet, true);
}

/* RFC 7515 appendix C: no padding, no other characters, no stray bits */
OvCode
ov_b64url_decode(OvArena *arena, const char *s, size_t len, unsigned char **out, size_t *outlen)
{
	unsigned char *o = ov_arena_alloc(arena, len / 4 * 3 + 3);
	uint32_t	v = 0;
	int			bits = 0;

	*out = o;
	*outlen = 0;
	if (len % 4 == 1)
		return OV_E_SYNTAX;
	for (size_t i = 0; i < len; i++)
	{
		const char *at = s[i] != '\0' ? strchr(b64url_alphabet, s[i]) : NULL;

		if (at == NULL)
			return OV_E_SYNTAX;
		v = v << 6 | (uint32_t) (at - b64url_alphabet);
		bits += 6;
		if (bits >= 8)
		{
			bits -= 8;
			*o++ = (unsigned char) (v >> bits);
		}
	}
	if (bits > 0 && (v & ((1u << bits) - 1)) != 0)
		return OV_E_SYNTAX;
	*outlen = (size_t) (o - *out);
	return OV_OK;
}

char *
ov_hex(OvArena *arena, const void *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *in = data;
	char	   *out = ov_arena_alloc(arena, len * 2 + 1);

	for (size_t i = 0; i < len; i++)
	{
		out[2 * i] = digits[in[i] >> 4];
		out[2 * i + 1] = digits[in[i] & 15];
	}
	return out;
}

OvCode
ov_random(void *buf, size_t len)
{
	return RAND_priv_bytes(buf, (int) len) == 1 ? OV_OK : OV_E_CRYPTO;
}

char *
ov_random_token(OvArena *arena, int nbytes)
{
	unsigned char raw[64];
	char	   *out;

	if (nbytes > (int) sizeof(raw) || ov_random(raw, (size_t) nbytes) != OV_OK)
		return NULL;
	out = ov_b64url(arena, raw, (size_t) nbytes);
	OPENSSL_cleanse(raw, sizeof(raw));
	return out;
}

/*
 * One context per process and algorithm, because OpenSSL's one-shot functions look
 * the algorithm up by name each time.  A digest that was not computed must not
 * become a key or pass a comparison.
 */
void
ov_sha256(const void *data, size_t len, unsigned char out[32])
{
	static _Thread_local EVP_MD_CTX *ctx = NULL;
	static _Thread_local EVP_MD *md = NULL;

	if (ctx == NULL)
	{
		md = EVP_MD_fetch(NULL, "SHA256", NULL);
		ctx = EVP_MD_CTX_new();
	}
	if (md == NULL || ctx == NULL || EVP_DigestInit_ex(ctx, md, NULL) != 1 ||
		EVP_DigestUpdate(ctx, data, len) != 1 || EVP_DigestFinal_ex(ctx, out, NULL) != 1)
		abort();
}

void
ov_hmac_sha256(const void *key, size_t keylen, const void *data, size_t len, unsigned char out[32])
{
	static const unsigned char no_key[32];
	static _Thread_local EVP_MAC_CTX *ctx = NULL;
	size_t		n;

	if (ctx == NULL)
	{
		OSSL_PARAM	params[2] = {OSSL_PARAM_construct_utf8_string("digest", "SHA256", 0), OSSL_PARAM_construct_end()};
		EVP_MAC    *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);

		ctx = EVP_MAC_CTX_new(mac);
		EVP_MAC_free(mac);
		if (ctx == NULL || EVP_MAC_init(ctx, no_key, sizeof(no_key), params) != 1)
			abort();
	}
	/* The last one replaces the key in the context. */
	if (EVP_MAC_init(ctx, key, keylen, NULL) != 1 || EVP_MAC_update(ctx, data, len) != 1 ||
		EVP_MAC_final(ctx, out, &n, 32) != 1 || EVP_MAC_init(ctx, no_key, sizeof(no_key), NULL) != 1)
		abort();
}

char *
ov_pkce_s256(OvArena *arena, const char *verifier)
{
	unsigned char digest[32];

	ov_sha256(verifier, strlen(verifier), digest);
	return ov_b64url(arena, digest, sizeof(digest));
}

bool
ov_utf8_ok(const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *) text;
	size_t		i = 0;

	while (i < len)
	{
		unsigned char c = s[i];
		int			n;
		uint32_t	cp;

		if (c == 0)
			return false;
		if (c < 0x80)
		{
			i++;
			continue;
		}
		if (c >= 0xc2 && c <= 0xdf)
			n = 1, cp = c & 0x1f;
		else if (c >= 0xe0 && c <= 0xef)
			n = 2, cp = c & 0x0f;
		else if (c >= 0xf0 && c <= 0xf4)
			n = 3, cp = c & 0x07;
		else
			return false;
		if (len - i <= (size_t) n)
			return false;
		for (int k = 1; k <= n; k++)
		{
			if ((s[i + k] & 0xc0) != 0x80)
				return false;
			cp = cp << 6 | (s[i + k] & 0x3f);
		}
		if ((n == 2 && cp < 0x800) || (n == 3 && cp < 0x10000) ||
			(cp >= 0xd800 && cp <= 0xdfff) || cp > 0x10ffff)
			return false;
		i += (size_t) n + 1;
	}
	return true;
}

static bool
unreserved(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
		c == '-' || c == '.' || c == '_' || c == '~';
}

static void
percent_encode(OvStr *out, const char *s, bool space_is_plus)
{
	for (;; s++)
	{
		const char *run = s;
		unsigned char c;

		while (unreserved((unsigned char) *s))
			s++;
		ov_str_add(out, run, (size_t) (s - run));
		c = (unsigned char) *s;
		if (c == '\0')
			return;
		if (c == ' ' && space_is_plus)
			ov_str_putc(out, '+');
		else
			ov_str_printf(out, "%%%02X", c);
	}
}

void
ov_form_encode(OvStr *out, const char *s)
{
	percent_encode(out, s, true);
}

void
ov_uri_encode(OvStr *out, const char *s)
{
	percent_encode(out, s, false);
}

void
ov_form_pair(OvStr *out, const char *name, const char *value)
{
	if (out->len > 0)
		ov_str_putc(out, '&');
	ov_form_encode(out, name);
	ov_str_putc(out, '=');
	ov_form_encode(out, value);
}

static int
hexval(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static char *
form_decode(OvArena *arena, const char *s, size_t len)
{
	char	   *out = ov_arena_alloc(arena, len + 1);
	size_t		n = 0;

	for (size_t i = 0; i < len; i++)
	{
		char		c = s[i];

		if (c == '+')
			c = ' ';
		else if (c == '%')
		{
			int			hi,
						lo;

			if (len - i < 3 || (hi = hexval(s[i + 1])) < 0 || (lo = hexval(s[i + 2])) < 0)
				return NULL;
			c = (char) (hi << 4 | lo);
			i += 2;
		}
		if (c == '\0')
			return NULL;
		out[n++] = c;
	}
	out[n] = '\0';
	return ov_utf8_ok(out, n) ? out : NULL;
}

OvCode
ov_form_parse(OvArena *arena, const char *s, size_t len, OvParam **params, OvError *err)
{
	OvParam   **tail = params;

	*params = NULL;
	while (len > 0)
	{
		const char *amp = memchr(s, '&', len);
		size_t		n = amp != NULL ? (size_t) (amp - s) : len;
		const char *eq = memchr(s, '=', n);
		size_t		namelen = eq != NULL ? (size_t) (eq - s) : n;
		OvParam    *p;

		if (n > 0)
		{
			p = ov_arena_alloc(arena, sizeof(OvParam));
			p->name = form_decode(arena, s, namelen);
			p->value = eq != NULL ? form_decode(arena, eq + 1, n - namelen - 1) : "";
			p->next = NULL;
			if (p->name == NULL || p->value == NULL)
				return ov_fail(err, OV_E_SYNTAX, "malformed form encoding");
			*tail = p;
			tail = &p->next;
		}
		s += n + (amp != NULL ? 1 : 0);
		len -= n + (amp != NULL ? 1 : 0);
	}
	return OV_OK;
}

const char *
ov_param(const OvParam *params, const char *name)
{
	for (; params != NULL; params = params->next)
		if (strcmp(params->name, name) == 0)
			return params->value;
	return NULL;
}

int
ov_param_count(const OvParam *params, const char *name)
{
	int			n = 0;

	for (; params != NULL; params = params->next)
		n += strcmp(params->name, name) == 0;
	return n;
}

static OvCode
bad_url(OvError *err, const char *why)
{
	return ov_fail(err, OV_E_SYNTAX, "invalid URL: %s", why);
}

static char *
lower(OvArena *arena, const char *s, size_t len)
{
	char	   *out = ov_arena_strndup(arena, s, len);

	for (char *c = out; *c != '\0'; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c += 'a' - 'A';
	return out;
}

static bool
host_ok(const char *host)
{
	size_t		n = strlen(host);

	return n > 0 && n <= 255 && host[0] != '.' && host[0] != '-' && strstr(host, "..") == NULL &&
		strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == n;
}

/* 127.example.com is a name like any other: only a whole address counts. */
static bool
is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, host, &v6) == 1)
		return IN6_IS_ADDR_LOOPBACK(&v6);
	return strcmp(host, "localhost") == 0;
}

OvCode
ov_url_parse(OvArena *arena, const char *s, OvUrl *url, OvError *err)
{
	const char *p,
			   *authority,
			   *end,
			   *colon;
	size_t		len = strlen(s);
	bool		v6 = false;
	int			default_port;

	memset(url, 0, sizeof(*url));
	if (len > MAX_URL)
		return bad_url(err, "too long");
	for (const char *c = s; *c != '\0'; c++)
		if ((unsigned char) *c <= 0x20 || (unsigned char) *c >= 0x7f || strchr("\\\"<>^`{|}", *c) != NULL)
			return bad_url(err, "forbidden character");
	p = strstr(s, "://");
	if (p == NULL)
		return bad_url(err, "not absolute");
	url->scheme = lower(arena, s, (size_t) (p - s));
	if (strcmp(url->scheme, "https") == 0)
		default_port = 443;
	else if (strcmp(url->scheme, "http") == 0)
		default_port = 80;
	else
		return bad_url(err, "scheme is neither https nor http");
	authority = p + 3;
	end = authority + strcspn(authority, "/?#");
	if (memchr(authority, '@', (size_t) (end - authority)) != NULL)
		return bad_url(err, "user information is not allowed");
	if (*authority == '[')
	{
		const char *close = memchr(authority, ']', (size_t) (end - authority));

		if (close == NULL)
			return bad_url(err, "unterminated IPv6 address");
		url->host = lower(arena, authority + 1, (size_t) (close - authority - 1));
		if (inet_pton(AF_INET6, url->host, &(struct in6_addr) {0}) != 1)
			return bad_url(err, "bad IPv6 address");
		v6 = true;
		colon = close + 1;
		if (colon != end && *colon != ':')
			return bad_url(err, "bad host");
		if (colon == end)
			colon = NULL;
	}
	else
	{
		colon = memchr(authority, ':', (size_t) (end - authority));
		url->host = lower(arena, authority, (size_t) ((colon ? colon : end) - authority));
		if (!host_ok(url->host))
			return bad_url(err, "bad host");
	}
	url->port = default_port;
	if (colon != NULL)
	{
		long		port = 0;
		const char *d = colon + 1;

		if (d == end || end - d > 5)
			return bad_url(err, "bad port");
		for (; d < end; d++)
		{
			if (*d < '0' || *d > '9')
				return bad_url(err, "bad port");
			port = port * 10 + (*d - '0');
		}
		if (port < 1 || port > 65535)
			return bad_url(err, "bad port");
		url->port = (int) port;
	}
	p = end + strcspn(end, "?#");
	url->path = ov_arena_strndup(arena, end, (size_t) (p - end));
	if (*p == '?')
	{
		const char *hash = p + strcspn(p, "#");

		url->query = ov_arena_strndup(arena, p + 1, (size_t) (hash - p - 1));
		p = hash;
	}
	if (*p == '#')
		url->fragment = ov_arena_strdup(arena, p + 1);
	url->loopback = is_loopback(url->host);
	if (url->port == default_port)
		url->origin = ov_arena_printf(arena, "%s://%s%s%s", url->scheme, v6 ? "[" : "", url->host, v6 ? "]" : "");
	else
		url->origin = ov_arena_printf(arena, "%s://%s%s%s:%d", url->scheme, v6 ? "[" : "", url->host,
									  v6 ? "]" : "", url->port);
	return OV_OK;
}

/* RFC 6749 section 3.1: a query component must be retained */
char *
ov_url_with_query(OvArena *arena, const char *s, const char *query)
{
	const char *mark = strchr(s, '?');

	if (*query == '\0')
		return ov_arena_strdup(arena, s);
	return ov_arena_printf(arena, "%s%s%s", s,
						   mark == NULL ? "?" : mark[1] == '\0' ? "" : "&", query);
}

bool
ov_scope_token_ok(const char *s)
{
	if (*s == '\0')
		return false;
	for (; *s != '\0'; s++)
	{
		unsigned char c = (unsigned char) *s;

		if (c < 0x21 || c > 0x7e || c == '"' || c == '\\')
			return false;
	}
	return true;
}

char *
ov_clean_text(OvArena *arena, const char *s, size_t len)
{
	OvStr		out;

	ov_str_init(&out, arena);
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) s[i];
		bool		plain = c >= 0x20 && c <= 0x7e && c != '"' && c != '\\';

		if (out.len + (plain ? 1 : 4) > 200)
			break;
		if (plain)
			ov_str_putc(&out, (char) c);
		else
			ov_str_printf(&out, "\\x%02x", c);
	}
	return out.data;
}
