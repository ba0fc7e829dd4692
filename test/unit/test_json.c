/*
 * test_json.c
 *	  JSON: what is accepted, what is refused, and what comes out.
 */
#include "core/json.h"
#include "tap.h"

/* A literal with its length, for text with NUL in it */
#define T(text) text, sizeof(text) - 1

typedef struct Case
{
	const char *name;
	const char *text;
	size_t		len;
} Case;

static const Case accepted[] = {
	{"null", T("null")},
	{"true", T("true")},
	{"false", T("false")},
	{"zero", T("0")},
	{"minus zero", T("-0")},
	{"an integer", T("123")},
	{"a negative integer", T("-123")},
	{"a fraction", T("0.5")},
	{"an exponent", T("1e5")},
	{"an exponent with a sign", T("1E+5")},
	{"a negative exponent", T("1.25e-05")},
	{"a number larger than any type", T("1e400")},
	{"an integer of 40 digits", T("1234567890123456789012345678901234567890")},
	{"an empty string", T("\"\"")},
	{"a string at the top", T("\"x\"")},
	{"an empty object", T("{}")},
	{"an empty array", T("[]")},
	{"empty containers with space inside", T("[ { } , [ ] ]")},
	{"all four kinds of space", T(" \t\r\n[ \t\r\n1 \t\r\n, 2 ]\n")},
	{"an empty member name", T("{\"\":1}")},
	{"every escape", T("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\"")},
	{"an escaped control character", T("\"\\u001f\"")},
	{"a surrogate pair", T("\"\\ud83d\\ude00\"")},
	{"the last code point", T("\"\\udbff\\udfff\"")},
	{"a non-character", T("\"\\uffff\"")},
	{"DEL, which is not a control character of RFC 8259", T("\"\x7f\"")},
	{"raw UTF-8 of two, three and four bytes", T("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"")},
	{"U+2028 in a string", T("\"\xe2\x80\xa8\"")},
	{"a duplicate member: the caller decides", T("{\"a\":1,\"a\":2}")},
	{"16 arrays deep", T("[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]")},
	{"16 arrays deep with a value", T("[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]")},
	{"16 objects deep", T("{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}}}}}}}}}")},
	{"16 deep twice beside each other", T("[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]],[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]")},
};

static const Case refused[] = {
	{"nothing", T("")},
	{"only space", T(" \n")},
	{"a byte order mark", T("\xef\xbb\xbf{}")},
	{"a UTF-16 document", T("\xff\xfe{\0}\0")},
	{"two documents", T("{}{}")},
	{"a trailing word", T("{} x")},
	{"a trailing comma behind the document", T("[],")},
	{"a trailing closing bracket", T("[]]")},
	{"a trailing NUL", T("{}\0")},
	{"a NUL in a string", T("\"a\0b\"")},
	{"a NUL between values", T("[1,\0 2]")},
	{"an escaped NUL", T("\"a\\u0000b\"")},
	{"an escaped NUL in a member name", T("{\"a\\u0000b\":1}")},
	{"a form feed as space", T("[\f1]")},
	{"a vertical tab as space", T("[\v1]")},
	{"a no-break space", T("[\xc2\xa0""1]")},
	{"a line comment", T("[1] // x")},
	{"a block comment", T("/* x */ [1]")},
	{"single quotes", T("['x']")},
	{"a bare member name", T("{a:1}")},
	{"a number as member name", T("{1:1}")},
	{"a member without a colon", T("{\"a\" 1}")},
	{"a member with two colons", T("{\"a\"::1}")},
	{"a member without a value", T("{\"a\":}")},
	{"a member name alone", T("{\"a\"}")},
	{"a comma after the last member", T("{\"a\":1,}")},
	{"a comma before the first member", T("{,\"a\":1}")},
	{"a comma in an empty object", T("{,}")},
	{"a comma after the last element", T("[1,]")},
	{"a comma before the first element", T("[,1]")},
	{"a comma in an empty array", T("[,]")},
	{"two commas", T("[1,,2]")},
	{"no comma", T("[1 2]")},
	{"an array closed as an object", T("[1}")},
	{"an object closed as an array", T("{\"a\":1]")},
	{"a member in an array", T("[\"a\":1]")},
	{"an open array", T("[")},
	{"an open array after a comma", T("[1,")},
	{"an open object", T("{")},
	{"an open object after a colon", T("{\"a\":")},
	{"a closing bracket alone", T("]")},
	{"17 arrays deep", T("[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]")},
	{"17 deep with an object innermost", T("[[[[[[[[[[[[[[[[{}]]]]]]]]]]]]]]]]")},
	{"an open string", T("\"abc")},
	{"a quote alone", T("\"")},
	{"a string that ends in a backslash", T("\"abc\\")},
	{"a string whose end is escaped", T("\"abc\\\"")},
	{"a raw line feed in a string", T("\"a\nb\"")},
	{"a raw tab in a string", T("\"a\tb\"")},
	{"a raw control character behind an escape", T("\"\\n\x01\"")},
	{"an unknown escape", T("\"\\x41\"")},
	{"an escaped apostrophe", T("\"\\'\"")},
	{"an upper-case U escape", T("\"\\U0041\"")},
	{"a short escape", T("\"\\u12\"")},
	{"a short escape at the end", T("\"\\u12")},
	{"an escape that is not hexadecimal", T("\"\\u00g0\"")},
	{"a signed escape", T("\"\\u+041\"")},
	{"a lone high surrogate", T("\"\\ud800\"")},
	{"a lone high surrogate with text behind", T("\"\\ud800abcdef\"")},
	{"a lone high surrogate at the end", T("\"\\ud800")},
	{"a lone low surrogate", T("\"\\udc00\"")},
	{"a surrogate pair reversed", T("\"\\udc00\\ud800\"")},
	{"two high surrogates", T("\"\\ud800\\ud800\"")},
	{"a high surrogate and a plain escape", T("\"\\ud800\\u0041\"")},
	{"0xff", T("\"\xff\"")},
	{"a lone continuation byte", T("\"\x80\"")},
	{"an overlong NUL", T("\"\xc0\x80\"")},
	{"an overlong slash", T("\"\xc0\xaf\"")},
	{"an overlong three-byte form", T("\"\xe0\x80\xaf\"")},
	{"an overlong four-byte form", T("\"\xf0\x80\x80\xaf\"")},
	{"a surrogate in UTF-8", T("\"\xed\xa0\x80\"")},
	{"a code point above U+10FFFF", T("\"\xf4\x90\x80\x80\"")},
	{"a five-byte form", T("\"\xf8\x88\x80\x80\x80\"")},
	{"truncated UTF-8 before the quote", T("\"\xe2\x82\"")},
	{"truncated UTF-8 at the end", T("\"\xe2\x82")},
	{"bad UTF-8 in a member nobody reads", T("{\"a\":1,\"b\":\"\xc3\"}")},
	{"NaN", T("NaN")},
	{"Infinity", T("Infinity")},
	{"minus Infinity", T("-Infinity")},
	{"a minus alone", T("-")},
	{"a plus", T("+1")},
	{"a leading zero", T("01")},
	{"a leading zero behind a minus", T("-01")},
	{"two zeros", T("00")},
	{"a point first", T(".5")},
	{"a point last", T("5.")},
	{"a point before the exponent", T("5.e1")},
	{"two points", T("1.2.3")},
	{"an exponent without digits", T("1e")},
	{"an exponent with a sign only", T("1e+")},
	{"an exponent with a fraction", T("1e1.5")},
	{"hexadecimal", T("0x10")},
	{"a number with a letter behind", T("12a")},
	{"a number with a space inside", T("1 2")},
	{"a word in capitals", T("True")},
	{"a shortened word", T("nul")},
	{"a word with a letter behind", T("nulls")},
	{"undefined", T("undefined")},
};

static OvArena *arena;

static OvCode
parse(const char *text, size_t len, const OvJson **v, OvError *err)
{
	/* An exact copy, so that the sanitizer sees one byte too many */
	char	   *copy = malloc(len > 0 ? len : 1);
	OvCode		rc;

	memcpy(copy, text, len);
	rc = ov_json_parse(arena, copy, len, v, err);
	memset(copy, 'x', len);
	free(copy);
	return rc;
}

static const OvJson *
read_text(const char *text)
{
	const OvJson *v;

	return parse(text, strlen(text), &v, NULL) == OV_OK ? v : NULL;
}

static void
tables(void)
{
	const OvJson *v;
	OvError		err;

	for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++)
		ok(parse(accepted[i].text, accepted[i].len, &v, &err) == OV_OK && v != NULL,
		   "accepted: %s", accepted[i].name);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
	{
		memset(&err, 0, sizeof(err));
		ok(parse(refused[i].text, refused[i].len, &v, &err) != OV_OK && v == NULL && err.message[0] != '\0',
		   "refused: %s", refused[i].name);
	}
}

/* Every prefix of a document is refused, and none is read past its end. */
static void
truncation(void)
{
	static const char text[] = "{\"a\":[1,-2.5e3,true,{\"b\\u00e9\":\"\\ud83d\\ude00\xc3\xa9\"}],\"c\":null}";
	const OvJson *v;
	int			accepted_prefixes = 0;

	for (size_t n = 0; n < sizeof(text) - 1; n++)
		accepted_prefixes += parse(text, n, &v, NULL) == OV_OK;
	is_int(accepted_prefixes, 0, "no document cut short is accepted");
	is_int(parse(T(text), &v, NULL), OV_OK, "the whole one is");
}

static void
depth(void)
{
	enum
	{
		MANY = 1000000
	};
	char	   *text = malloc(MANY);
	const OvJson *v;
	OvError		err;

	memset(text, '[', MANY);
	is_int(ov_json_parse(arena, text, MANY, &v, &err), OV_E_LIMIT, "a million opening brackets are over the limit");
	is_str(err.message, "invalid JSON: nested deeper than 16", "and the message says which");
	for (int i = 0; i < MANY; i++)
		text[i] = "[],"[i == 0 ? 0 : i == MANY - 1 ? 1 : (i - 1) % 3];
	text[MANY - 2] = ']';
	is_int(ov_json_parse(arena, text, MANY, &v, &err), OV_OK, "a wide document is not a deep one");
	is_int(v->count, (MANY - 1) / 3, "and has its elements counted");
	free(text);
}

static void
values(void)
{
	const OvJson *v = read_text("{\"s\":\"a\\u00e9\\ud83d\\ude00\\\"\\\\\\/\\b\\f\\n\\r\\t\",\"n\":-12.50e+3,\"t\":true,\"f\":false,"
								"\"z\":null,\"a\":[1,\"two\",[3]],\"o\":{\"x/y\":{\"~\":[\"deep\"]}},\"\":\"empty\"}");

	is_str(ov_json_get_string(v, "s"), "a\xc3\xa9\xf0\x9f\x98\x80\"\\/\b\f\n\r\t", "escapes are decoded");
	is_str(ov_json_get(v, "n")->str, "-12.50e+3", "a number keeps its text");
	ok(ov_json_is_true(ov_json_get(v, "t")), "true is true");
	ok(!ov_json_is_true(ov_json_get(v, "f")) && !ov_json_is_true(ov_json_get(v, "n")) && !ov_json_is_true(NULL),
	   "nothing else is");
	ok(ov_json_get(v, "absent") == NULL && ov_json_get(NULL, "s") == NULL && ov_json_get(ov_json_get(v, "a"), "s") == NULL,
	   "a member that is not there is NULL");
	ok(ov_json_get_string(v, "n") == NULL && ov_json_get_string(v, "z") == NULL && ov_json_string(NULL) == NULL,
	   "what is not a string has no string");
	is_int(v->count, 8, "members are counted");
	is_str(v->child->key, "s", "members stay in order");
	is_str(ov_json_get(read_text("{\"access\\u005ftoken\":\"x\"}"), "access_token")->str, "x",
		   "an escaped member name is the same name");
	ok(ov_json_get(read_text("{\"Access_Token\":\"x\"}"), "access_token") == NULL, "member names differ by case");

	ok(ov_json_at(v, "") == v, "pointer: the root");
	is_str(ov_json_string(ov_json_at(v, "/a/1")), "two", "pointer: an element");
	is_str(ov_json_at(v, "/a/2/0")->str, "3", "pointer: an element of an element");
	is_str(ov_json_string(ov_json_at(v, "/o/x~1y/~0/0")), "deep", "pointer: ~1 and ~0");
	is_str(ov_json_string(ov_json_at(v, "/")), "empty", "pointer: the empty name");
	ok(ov_json_at(v, "/a/3") == NULL && ov_json_at(v, "/a/-") == NULL && ov_json_at(v, "/a/") == NULL &&
	   ov_json_at(v, "/a/01") == NULL && ov_json_at(v, "/a/99999999999999999999") == NULL && ov_json_at(v, "/a/+1") == NULL,
	   "pointer: no such element");
	ok(ov_json_at(v, "/s/x") == NULL && ov_json_at(v, "a") == NULL && ov_json_at(NULL, "/a") == NULL,
	   "pointer: nothing below a string, without a slash, or in nothing");
	ok(ov_json_at(v, ov_arena_printf(arena, "/%0300d", 0)) == NULL, "pointer: a name longer than any of ours");
}

static void
integers(void)
{
	static const struct
	{
		const char *text;
		bool		fits;
		int64_t		value;
		bool		as_string;	/* fits when digit strings are allowed */
	}			cases[] = {
		{"3600", true, 3600, true},
		{"0", true, 0, true},
		{"-0", true, 0, true},
		{"-1", true, -1, true},
		{"1.5", true, 1, true},
		{"1.0", true, 1, true},
		{"-1.5", true, -2, true},
		{"-1.0", true, -1, true},
		{"-0.5", true, -1, true},
		{"1795490058.999", true, 1795490058, true},
		{"2147483648", true, 2147483648, true},
		{"9007199254740993", true, 9007199254740993, true},
		{"9223372036854775799", true, 9223372036854775799, true},
		{"9223372036854775808", false, 0, false},
		{"18446744073709551616", false, 0, false},
		{"18446744073709555216", false, 0, false},
		{"1234567890123456789012345678901234567890", false, 0, false},
		{"1e3", false, 0, false},
		{"1.5e3", false, 0, false},
		{"1e309", false, 0, false},
		{"\"3600\"", false, 3600, true},
		{"\"0003600\"", false, 3600, true},
		{"\"\"", false, 0, false},
		{"\"abc\"", false, 0, false},
		{"\" 3600\"", false, 0, false},
		{"\"3600 \"", false, 0, false},
		{"\"+3600\"", false, 0, false},
		{"\"-1\"", false, 0, false},
		{"\"1.5\"", false, 0, false},
		{"\"0x10\"", false, 0, false},
		{"\"1e3\"", false, 0, false},
		{"\"99999999999999999999\"", false, 0, false},
		{"null", false, 0, false},
		{"true", false, 0, false},
		{"[]", false, 0, false},
		{"[1]", false, 0, false},
		{"{}", false, 0, false},
	};
	int64_t		n;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const OvJson *v = read_text(cases[i].text);

		n = 0;
		ok(ov_json_int64(v, false, &n) == cases[i].fits && (!cases[i].fits || n == cases[i].value),
		   "%s as an integer", cases[i].text);
		n = 0;
		ok(ov_json_int64(v, true, &n) == cases[i].as_string && (!cases[i].as_string || n == cases[i].value),
		   "%s as an integer or digit string", cases[i].text);
	}
	ok(!ov_json_int64(NULL, true, &n), "nothing is no integer");
}

static void
duplicates(void)
{
	static const char *const keys[] = {"a", "b"};
	const OvJson *twice = read_text("{\"a\":1,\"\\u0061\":2,\"c\":3}"),
			   *other = read_text("{\"a\":1,\"c\":2,\"c\":3}");
	OvStr		s;

	ok(!ov_json_unique(twice, keys, 2), "a member given twice is found, also when escaped");
	ok(ov_json_unique(other, keys, 2), "a duplicate nobody asked about does not matter");
	is_str(ov_json_get(twice, "a")->str, "1", "the first of two members counts");
	ok(!ov_json_no_duplicates(other), "any duplicate");
	ok(!ov_json_no_duplicates(read_text("[1,{\"x\":[{\"y\":1,\"z\":2,\"y\":3}]}]")), "any duplicate, however deep");
	ok(ov_json_no_duplicates(read_text("[{\"a\":1},{\"a\":1},[1,1],{\"b\":{\"a\":1},\"a\":2}]")),
	   "the same name in different objects is no duplicate");
	ok(ov_json_no_duplicates(read_text("5")), "a number has no duplicates");
	for (int n = OV_JSON_MAX_MEMBERS; n <= OV_JSON_MAX_MEMBERS + 1; n++)
	{
		ov_str_init(&s, arena);
		for (int i = 0; i < n; i++)
			ov_str_printf(&s, "%c\"%d\":0", i ? ',' : '{', i);
		ov_str_putc(&s, '}');
		ok(ov_json_no_duplicates(read_text(s.data)) == (n <= OV_JSON_MAX_MEMBERS), "%d members", n);
	}
}

static void
writing(void)
{
	static const char *const texts[] = {
		"{\"a\":[1,-2.5e3,true,false,null,{}],\"b\":{\"\\\"\":\"\\\\ / \\u0001 \\u007f \xc3\xa9\"},\"c\":[]}",
		"\"x\"", "[]", "{}", "-0.0", "null",
	};
	OvStr		s;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		ov_str_init(&s, arena);
		ov_json_write(&s, read_text(texts[i]));
		is_str(s.data, texts[i], "written as it was read: %s", texts[i]);
	}
	ov_str_init(&s, arena);
	ov_json_quote(&s, T("a\"b\\c\r\n\x1b\x7f</script>"));
	is_str(s.data, "\"a\\\"b\\\\c\\u000d\\u000a\\u001b\\u007f</script>\"", "quoting leaves no control character");
}

static void
messages(void)
{
	const OvJson *v;
	OvError		err;

	parse(T("{\"secret\":\"tok\",}"), &v, &err);
	is_str(err.message, "invalid JSON: member name expected at byte 16", "the message has a place and no content");
	is_int(err.code, OV_E_SYNTAX, "and its code");
	is_int(ov_json_parse(arena, NULL, 0, &v, &err), OV_E_SYNTAX, "no document at all is refused");
}

int
main(void)
{
	arena = ov_arena_new();
	tables();
	truncation();
	depth();
	values();
	integers();
	duplicates();
	writing();
	messages();
	ov_arena_free(arena);
	return done_testing();
}
