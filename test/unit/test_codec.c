/*
 * test_codec.c
 *	  Encodings, hashes, PKCE, form bodies, URLs, scope tokens, cleaned text.
 */
#include "core/codec.h"
#include "tap.h"

#define T(text) text, sizeof(text) - 1

static OvArena *arena;

static void
base64(void)
{
	/* RFC 4648 section 10 */
	static const struct
	{
		const char *plain,
				   *b64,
				   *b64url;
	}			vectors[] = {
		{"", "", ""},
		{"f", "Zg==", "Zg"},
		{"fo", "Zm8=", "Zm8"},
		{"foo", "Zm9v", "Zm9v"},
		{"foob", "Zm9vYg==", "Zm9vYg"},
		{"fooba", "Zm9vYmE=", "Zm9vYmE"},
		{"foobar", "Zm9vYmFy", "Zm9vYmFy"},
		{"\xff\xef\xbe", "/+++", "_---"},
	};
	static const char *const refused[] = {
		"A", "AAAAA", "Zg==", "Zm8=", "Zm9v=", "=", "Zm9+", "Zm9/", "Zm 9", " Zm9", "Zm9\n", "Zm\r\n", "Zm9v.", "Zm\xc3\xa9",
		"Zh", "Zn", "Zm9", "AB", "AAB", "\x80\x80\x80\x80"
	};
	unsigned char all[256],
			   *out;
	size_t		len;
	bool		same = true;

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
	{
		size_t		n = strlen(vectors[i].plain);

		is_str(ov_b64(arena, vectors[i].plain, n), vectors[i].b64, "base64 of \"%s\"", i < 7 ? vectors[i].plain : "ffefbe");
		is_str(ov_b64url(arena, vectors[i].plain, n), vectors[i].b64url, "base64url of \"%s\"", i < 7 ? vectors[i].plain : "ffefbe");
		ok(ov_b64url_decode(arena, vectors[i].b64url, strlen(vectors[i].b64url), &out, &len) == OV_OK &&
		   len == n && memcmp(out, vectors[i].plain, n) == 0, "and back");
	}
	/* RFC 7515 appendix C */
	is_str(ov_b64url(arena, "\x03\xec\xff\xe0\xc1", 5), "A-z_4ME", "the octets of RFC 7515 appendix C");
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
	{
		char	   *exact = malloc(strlen(refused[i]));

		memcpy(exact, refused[i], strlen(refused[i]));
		ok(ov_b64url_decode(arena, exact, strlen(refused[i]), &out, &len) == OV_E_SYNTAX && len == 0,
		   "refused as base64url: case %zu", i);
		free(exact);
	}
	is_int(ov_b64url_decode(arena, T("Zm9v\0Zm9"), &out, &len), OV_E_SYNTAX, "refused as base64url: a NUL");
	for (size_t i = 0; i < 256; i++)
		all[i] = (unsigned char) (i * 7);
	for (size_t n = 0; n <= 256; n++)
	{
		char	   *s = ov_b64url(arena, all, n);

		same = same && ov_b64url_decode(arena, s, strlen(s), &out, &len) == OV_OK && len == n && memcmp(out, all, n) == 0;
	}
	ok(same, "every length up to 256 comes back");
	is_str(ov_hex(arena, "\x00\x7f\x80\xff", 4), "007f80ff", "hexadecimal");
	is_str(ov_hex(arena, "", 0), "", "hexadecimal of nothing");
}

static void
hashes(void)
{
	unsigned char out[32],
				key[20];

	/* FIPS 180-2 appendix B.1 */
	ov_sha256(T("abc"), out);
	is_str(ov_hex(arena, out, 32), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "SHA-256 of abc");
	ov_sha256("", 0, out);
	is_str(ov_hex(arena, out, 32), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "SHA-256 of nothing");
	/* RFC 4231 sections 4.2 and 4.3 */
	memset(key, 0x0b, sizeof(key));
	ov_hmac_sha256(key, sizeof(key), T("Hi There"), out);
	is_str(ov_hex(arena, out, 32), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", "HMAC-SHA-256, test case 1");
	ov_hmac_sha256(T("Jefe"), T("what do ya want for nothing?"), out);
	is_str(ov_hex(arena, out, 32), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", "HMAC-SHA-256, test case 2");
	/* RFC 7636 appendix B */
	is_str(ov_b64url(arena, "\x74\x18\xdf\xb4\x97\x99\xe0\x25\x4f\xfa\x60\x7d\xd8\xad\xbb\xba\x16\xd4\x25\x4d\x69\xd6\xbf\xf0\x5b\x58\x05\x58\x53\x84\x8d\x79", 32),
		   "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "the verifier of RFC 7636 appendix B");
	is_str(ov_pkce_s256(arena, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
		   "and its challenge");
	/* RFC 9449 section 7.1: ath is the same construction */
	is_str(ov_pkce_s256(arena, "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"), "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo",
		   "the access token hash of RFC 9449");
}

static void
randomness(void)
{
	char	   *a = ov_random_token(arena, 32),
			   *b = ov_random_token(arena, 32);

	is_int(strlen(a), 43, "32 random bytes are a verifier of 43 characters");
	ok(strspn(a, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == 43, "of unreserved characters");
	ok(strcmp(a, b) != 0, "and no two are the same");
	ok(ov_random_token(arena, 65) == NULL, "more than the buffer holds is refused");
}

static void
utf8(void)
{
	static const struct
	{
		const char *name,
				   *text;
		size_t		len;
		bool		ok;
	}			cases[] = {
		{"ASCII", T("abc\x7f"), true},
		{"nothing", T(""), true},
		{"NUL", T("a\0b"), false},
		{"U+0080", T("\xc2\x80"), true},
		{"U+07FF", T("\xdf\xbf"), true},
		{"U+0800", T("\xe0\xa0\x80"), true},
		{"U+D7FF", T("\xed\x9f\xbf"), true},
		{"U+D800", T("\xed\xa0\x80"), false},
		{"U+DFFF", T("\xed\xbf\xbf"), false},
		{"U+E000", T("\xee\x80\x80"), true},
		{"U+FFFF", T("\xef\xbf\xbf"), true},
		{"U+10000", T("\xf0\x90\x80\x80"), true},
		{"U+10FFFF", T("\xf4\x8f\xbf\xbf"), true},
		{"U+110000", T("\xf4\x90\x80\x80"), false},
		{"C0", T("\xc0\x80"), false},
		{"C1", T("\xc1\xbf"), false},
		{"overlong U+07FF", T("\xe0\x9f\xbf"), false},
		{"overlong U+FFFF", T("\xf0\x8f\xbf\xbf"), false},
		{"F5", T("\xf5\x80\x80\x80"), false},
		{"FE", T("\xfe"), false},
		{"a continuation byte", T("\xbf"), false},
		{"two bytes cut", T("\xc3"), false},
		{"three bytes cut", T("\xe2\x82"), false},
		{"four bytes cut", T("\xf0\x9f\x98"), false},
		{"a lead byte for a continuation", T("\xe2\x82\xc3"), false},
		{"ASCII for a continuation", T("\xe2\x82""a"), false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char	   *exact = malloc(cases[i].len + 1);

		memcpy(exact, cases[i].text, cases[i].len);
		exact = realloc(exact, cases[i].len > 0 ? cases[i].len : 1);
		ok(ov_utf8_ok(exact, cases[i].len) == cases[i].ok, "UTF-8 %s: %s", cases[i].ok ? "accepted" : "refused", cases[i].name);
		free(exact);
	}
}

static void
forms(void)
{
	static const struct
	{
		const char *name,
				   *body;
		size_t		len;
	}			refused[] = {
		{"a percent sign at the end", T("a=%")},
		{"one digit at the end", T("a=%4")},
		{"no hexadecimal digits", T("a=%zz")},
		{"a sign", T("a=%+1")},
		{"an escaped NUL", T("a=x%00y")},
		{"a raw NUL", T("a=x\0y")},
		{"a NUL in a name", T("a%00=1")},
		{"a bad name", T("%=1")},
		{"UTF-8 cut short", T("a=%e2%82")},
		{"UTF-8 cut by the next pair", T("a=%e2&b=%82%ac")},
		{"Latin-1", T("a=\xe9")},
		{"an overlong slash", T("a=%c0%af")},
		{"a bad pair behind a good one", T("a=1&b=%")},
	};
	OvParam    *p;
	OvError		err;
	OvStr		s;

	/* RFC 6749 appendix B: U+0020 U+0025 U+0026 U+002B U+00A3 U+20AC */
	ov_str_init(&s, arena);
	ov_form_encode(&s, " %&+\xc2\xa3\xe2\x82\xac");
	is_str(s.data, "+%25%26%2B%C2%A3%E2%82%AC", "form encoding of RFC 6749 appendix B");
	ov_form_parse(arena, T("v=+%25%26%2B%C2%A3%E2%82%AC"), &p, NULL);
	is_str(ov_param(p, "v"), " %&+\xc2\xa3\xe2\x82\xac", "and back");
	ov_str_init(&s, arena);
	ov_form_encode(&s, "AZaz09-._~!*'():/\r\n\"");
	is_str(s.data, "AZaz09-._~%21%2A%27%28%29%3A%2F%0D%0A%22", "all but unreserved characters are escaped");
	ov_str_init(&s, arena);
	ov_uri_encode(&s, "a b+c/\xc3\xa9");
	is_str(s.data, "a%20b%2Bc%2F%C3%A9", "in a URI a space is %%20");
	ov_str_init(&s, arena);
	ov_form_pair(&s, "grant type", "a&b");
	ov_form_pair(&s, "x", "");
	ov_form_pair(&s, "y", "=");
	is_str(s.data, "grant+type=a%26b&x=&y=%3D", "pairs are joined with &");

	is_int(ov_form_parse(arena, T("code=a%2Bb+c&&state=x&empty=&flag&code=2&=v&eq=a=b"), &p, &err), OV_OK, "a query string");
	is_str(ov_param(p, "code"), "a+b c", "the first of two values");
	is_int(ov_param_count(p, "code"), 2, "and how many there are");
	is_str(ov_param(p, "empty"), "", "an empty value");
	is_str(ov_param(p, "flag"), "", "a name without =");
	is_str(ov_param(p, ""), "v", "an empty name");
	is_str(ov_param(p, "eq"), "a=b", "= in a value");
	ok(ov_param(p, "Code") == NULL && ov_param_count(p, "none") == 0, "names differ by case");
	is_str(p->next->name, "state", "parameters stay in order");
	ok(ov_form_parse(arena, "", 0, &p, &err) == OV_OK && p == NULL, "an empty body has no parameters");
	ok(ov_form_parse(arena, "&&&", 3, &p, &err) == OV_OK && p == NULL, "nor have separators");
	is_int((ov_form_parse(arena, T("c%6fde=1&code=2"), &p, &err), ov_param_count(p, "code")), 2,
		   "an escaped name is the same name");
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
	{
		char	   *exact = malloc(refused[i].len);

		memcpy(exact, refused[i].body, refused[i].len);
		is_int(ov_form_parse(arena, exact, refused[i].len, &p, &err), OV_E_SYNTAX, "form body refused: %s", refused[i].name);
		free(exact);
	}
}

static void
urls(void)
{
	static const struct
	{
		const char *url,
				   *origin,
				   *host;
		int			port;
		const char *path,
				   *query,
				   *fragment;
		bool		loopback;
	}			accepted[] = {
		{"https://as.example", "https://as.example", "as.example", 443, "", NULL, NULL, false},
		{"https://as.example/", "https://as.example", "as.example", 443, "/", NULL, NULL, false},
		{"HTTPS://AS.Example:443/Path", "https://as.example", "as.example", 443, "/Path", NULL, NULL, false},
		{"https://as.example:8443/a?b=c&d#e", "https://as.example:8443", "as.example", 8443, "/a", "b=c&d", "e", false},
		{"https://as.example?b", "https://as.example", "as.example", 443, "", "b", NULL, false},
		{"https://as.example#", "https://as.example", "as.example", 443, "", NULL, "", false},
		{"https://as.example/?", "https://as.example", "as.example", 443, "/", "", NULL, false},
		{"https://as.example/a#b?c@d", "https://as.example", "as.example", 443, "/a", NULL, "b?c@d", false},
		{"https://as.example/@x:y", "https://as.example", "as.example", 443, "/@x:y", NULL, NULL, false},
		{"http://as.example:80", "http://as.example", "as.example", 80, "", NULL, NULL, false},
		{"http://as.example:443", "http://as.example:443", "as.example", 443, "", NULL, NULL, false},
		{"https://a_b.example", "https://a_b.example", "a_b.example", 443, "", NULL, NULL, false},
		{"https://xn--bcher-kva.example", "https://xn--bcher-kva.example", "xn--bcher-kva.example", 443, "", NULL, NULL, false},
		{"http://localhost:8080/cb", "http://localhost:8080", "localhost", 8080, "/cb", NULL, NULL, true},
		{"http://127.0.0.1", "http://127.0.0.1", "127.0.0.1", 80, "", NULL, NULL, true},
		{"http://127.255.255.254", "http://127.255.255.254", "127.255.255.254", 80, "", NULL, NULL, true},
		{"http://[::1]:8080/cb", "http://[::1]:8080", "::1", 8080, "/cb", NULL, NULL, true},
		{"https://[2001:DB8::1]", "https://[2001:db8::1]", "2001:db8::1", 443, "", NULL, NULL, false},
		{"https://[::ffff:10.0.0.1]", "https://[::ffff:10.0.0.1]", "::ffff:10.0.0.1", 443, "", NULL, NULL, false},
		{"http://10.0.0.1", "http://10.0.0.1", "10.0.0.1", 80, "", NULL, NULL, false},
		{"http://127.example.com", "http://127.example.com", "127.example.com", 80, "", NULL, NULL, false},
		{"http://127.0.0.1.example.com", "http://127.0.0.1.example.com", "127.0.0.1.example.com", 80, "", NULL, NULL, false},
		{"http://localhost.example.com", "http://localhost.example.com", "localhost.example.com", 80, "", NULL, NULL, false},
		{"http://notlocalhost", "http://notlocalhost", "notlocalhost", 80, "", NULL, NULL, false},
	};
	static const char *const refused[] = {
		"", "/", "/cb", "as.example", "//as.example", "https:", "https:/", "https://", "https:///path", "https://?q", "https://#f",
		"https:as.example", "https:\\\\as.example", "https://as.example\\@evil.example", "javascript:alert(1)", "data:text/html,x",
		"file:///etc/passwd", "ftp://as.example", "gopher://as.example", "httpss://as.example", "x https://as.example",
		"javascript://as.example/%0aalert(1)", "javascript:https://as.example", " https://as.example", "https://as.example ",
		"https://user@as.example", "https://user:pw@as.example", "https://@as.example", "https://as.example@evil.example",
		"https://as.example:@evil.example", "https://as.example/\r\nHost: x", "https://as.example/a b", "https://as.example/\t",
		"https://as.example/\x7f", "https://\xc3\xa9.example", "https://as.example/\xc3\xa9", "https://as.example/<", "https://as.example/\"",
		"https://as.example/{x}", "https://as.example/^", "https://as.example/`", "https://as.example/|",
		"https://as.example:", "https://as.example:/", "https://as.example:0", "https://as.example:65536", "https://as.example:99999",
		"https://as.example:123456", "https://as.example:-1", "https://as.example:+1", "https://as.example:4a3", "https://as.example:0x1bb",
		"https://as.example:443:443", "https://.example", "https://a..example", "https://-a.example", "https://a%2eexample",
		"https://as.example%00.evil.example", "https://as!example", "https://as,example", "https://::1", "https://[::1", "https://[]",
		"https://[::1]x", "https://[::1]:", "https://[::1].evil.example", "https://[::1%25eth0]", "https://[127.0.0.1]", "https://[:::1]",
		"https://[1]", "https://[g::1]", "https://[::1]]", "https://::1]",
	};
	OvUrl		u;
	OvError		err;
	char		longest[8300];

	for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++)
	{
		const char *url = accepted[i].url;

		if (!ok(ov_url_parse(arena, url, &u, &err) == OV_OK, "URL accepted: %s", url))
			continue;
		is_str(u.origin, accepted[i].origin, "its origin");
		is_str(u.host, accepted[i].host, "its host");
		is_int(u.port, accepted[i].port, "its port");
		is_str(u.path, accepted[i].path, "its path");
		is_str(u.query, accepted[i].query, "its query");
		is_str(u.fragment, accepted[i].fragment, "its fragment");
		is_int(u.loopback, accepted[i].loopback, "%s loopback", accepted[i].loopback ? "is" : "is not");
	}
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		is_int(ov_url_parse(arena, refused[i], &u, &err), OV_E_SYNTAX, "URL refused: %s", refused[i]);
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, T("https://as.example/"));
	longest[8193] = '\0';
	is_int(ov_url_parse(arena, longest, &u, &err), OV_E_SYNTAX, "URL refused: 8193 bytes");
	longest[8192] = '\0';
	is_int(ov_url_parse(arena, longest, &u, &err), OV_OK, "URL accepted: 8192 bytes");
	memcpy(longest, T("https://"));
	memset(longest + 8, 'a', 256);
	longest[8 + 256] = '\0';
	is_int(ov_url_parse(arena, longest, &u, &err), OV_E_SYNTAX, "URL refused: a host of 256 bytes");

	/* RFC 6749 section 3.1 */
	is_str(ov_url_with_query(arena, "https://as/a?tenant=x", "b=1"), "https://as/a?tenant=x&b=1", "a query is kept");
	is_str(ov_url_with_query(arena, "https://as/a", "b=1"), "https://as/a?b=1", "a query is begun");
	is_str(ov_url_with_query(arena, "https://as/a?", "b=1"), "https://as/a?b=1", "an empty query is filled");
	is_str(ov_url_with_query(arena, "https://as/a?x", ""), "https://as/a?x", "nothing is added");
}

static void
texts(void)
{
	char		many[400];

	/* RFC 6749 section 3.3 */
	ok(ov_scope_token_ok("https://www.googleapis.com/auth/drive") && ov_scope_token_ok("!") && ov_scope_token_ok("a~[]#"),
	   "scope tokens");
	ok(!ov_scope_token_ok("") && !ov_scope_token_ok("a b") && !ov_scope_token_ok("a\"b") && !ov_scope_token_ok("a\\b") &&
	   !ov_scope_token_ok("a\n") && !ov_scope_token_ok("a\x7f") && !ov_scope_token_ok("\xc3\xa9"), "no scope tokens");

	is_str(ov_clean_text(arena, T("plain text!")), "plain text!", "clean text stays");
	is_str(ov_clean_text(arena, T("a\r\n\x1b[2J\"\\\0\x7f\xe2\x80\xae%s%n")), "a\\x0d\\x0a\\x1b[2J\\x22\\x5c\\x00\\x7f\\xe2\\x80\\xae%s%n",
		   "every other byte is shown by number");
	memset(many, 'x', sizeof(many));
	is_int(strlen(ov_clean_text(arena, many, sizeof(many))), 200, "text is cut at 200");
	memset(many, '\n', sizeof(many));
	is_int(strlen(ov_clean_text(arena, many, sizeof(many))), 200, "also where each byte takes four");
	memset(many, 'x', 198);
	is_int(strlen(ov_clean_text(arena, many, sizeof(many))), 198, "and never inside an escape");
	is_str(ov_clean_text(arena, "", 0), "", "no text is none");
}

int
main(void)
{
	arena = ov_arena_new();
	base64();
	hashes();
	randomness();
	utf8();
	forms();
	urls();
	texts();
	ov_arena_free(arena);
	return done_testing();
}
