/*
 * test_provider_pattern.c
 *	  Patterns of rule variables.
 */
#include "core/provider_internal.h"
#include "provider_fixture.h"

static void
matches(void)
{
	static const struct
	{
		const char *pattern,
				   *yes,
				   *no;
	}			cases[] = {
		{"abc", "abc", "abcd"},
		{"abc", "abc", "xabc"},
		{"abc", "abc", ""},
		{"a|bc", "bc", "ac"},
		{"a|bc|def", "def", "de"},
		{"(a|b)c", "bc", "c"},
		{"a?b", "b", "aab"},
		{"a?b", "ab", "a"},
		{"a*", "", "b"},
		{"a*b", "aaab", "aaa"},
		{"a+", "aaa", ""},
		{"(ab)+", "abab", "aba"},
		{"[a-c]+", "cab", "cad"},
		{"[^a-c]+", "xyz", "xya"},
		{"[a-]+", "a-a", "b"},
		{"[-a]+", "-a-", "b"},
		{"[.]+", "..", "a"},
		{"[\\]a]+", "a]", "\\"},
		{"[\\^a]+", "^a", "b"},
		{"[a\\-c]", "-", "b"},
		{"a{3}", "aaa", "aaaa"},
		{"a{3}", "aaa", "aa"},
		{"a{2,3}", "aa", "a"},
		{"a{2,3}", "aaa", "aaaa"},
		{"a{2,}", "aaaaa", "a"},
		{"a{0,2}b", "b", "aaab"},
		{"(a{2}){2}", "aaaa", "aaa"},
		{"a.c", "a/c", "ac"},
		{"a\\.c", "a.c", "abc"},
		{"(a|b|)c", "c", "ab"},
		{"(x+x+)+y", "xxxxxxxxxxy", "xxxxxxxxxx"},
		{"(a*)*b", "aaab", "aaa"},
		{"()*", "", "a"},
		{"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "9188040d-6c67-4c5b-b112-36a304b66dad",
		"9188040d-6c67-4c5b-b112-36a304b66da"},
		{"[a-z0-9][a-z0-9-]{0,62}\\.myshopify\\.com", "a-b.myshopify.com", "a.myshopify.com.evil.example"},
		{"[a-z0-9][a-z0-9-]{0,62}\\.myshopify\\.com", "a.myshopify.com", "evil.example/a.myshopify.com"},
		{"[a-z]+", "ab", "ab\n"},
		{".*", "a b", "a\nb"},
		{".*", "~", "\x7f"},
		{".*", "a", "\xc3\xa9"},
		{"[^a]+", "b", "\xc3\xa9"},
	};
	bool		match;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		ok(ov_pattern_match(cases[i].pattern, cases[i].yes, &match, &err) == OV_OK && match,
		   "%s matches case %zu", cases[i].pattern, i);
		ok(ov_pattern_match(cases[i].pattern, cases[i].no, &match, &err) == OV_OK && !match,
		   "%s does not match the other of case %zu", cases[i].pattern, i);
	}
}

static void
refused(void)
{
	static const char *const patterns[] = {
		"", "(", "(a", ")", "a)", "[", "[a", "[]", "[^]", "[a\\", "*", "+a", "?", "a**", "a|*", "{2}", "a{", "a{}", "a{,2}",
		"a{2", "a{3,2}", "a{0}", "a{0,0}", "a{256}", "a{1,2,3}", "a{x}", "}", "]", "^a", "a$", "\\", "\\d", "\\n", "\\1", "a\n",
		"\xc3\xa9", "((a{200}){200}){200}", "(((((((((((((((((a)))))))))))))))))"
	};
	char		longer[1200];
	bool		match = true;

	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
	{
		OvCode		code = ov_pattern_match(patterns[i], "a", &match, &err);

		ok((code == OV_E_SYNTAX || code == OV_E_LIMIT) && !match, "refused: case %zu", i);
	}
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	is_int(ov_pattern_match(longer, "a", &match, &err), OV_E_LIMIT, "a pattern over 1024 bytes");
}

/* A pattern that backtracking would not survive */
static void
bounded(void)
{
	char		value[256];
	bool		match;

	memset(value, 'a', 255);
	value[255] = '\0';
	ok(ov_pattern_match("(a|aa|a+|a*)*(a|aa)*b", value, &match, &err) == OV_OK && !match, "an evil pattern is harmless");
	ok(ov_pattern_match("((((((((((((((a?)?)?)?)?)?)?)?)?)?)?)?)?)?)?", "a", &match, &err) == OV_OK && match, "so is a nested one");
}

int
main(void)
{
	arena = ov_arena_new();
	matches();
	refused();
	bounded();
	ov_arena_free(arena);
	return done_testing();
}
