/*
 * test_provider_responses.c
 *	  What answers mean: the tables of bad inputs, every outcome, rules.
 */
#include "core/provider_internal.h"
#include "provider_fixture.h"

#define NOW INT64_C(1800000000)
#define JSON "application/json"
#define GOOD "'access_token':'at','token_type':'Bearer'"

static OvTokens out;

static const char *
name_of(OvOutcome outcome)
{
	switch (outcome)
	{
		case OV_OUT_OK:
			return "ok";
		case OV_OUT_TRANSIENT:
			return "transient";
		case OV_OUT_MALFORMED:
			return "malformed";
		case OV_OUT_DEAD:
			return "dead";
		case OV_OUT_MISCONFIGURED:
			return "misconfigured";
		case OV_OUT_DENIED:
			return "denied";
		case OV_OUT_UNSUPPORTED:
			return "unsupported";
	}
	return "?";
}

/* The body stands in a block of its own size, so that a read past it is seen. */
static const char *
answer_bytes(const OvProvider *p, int status, const char *type, const char *body, size_t len, bool is_refresh)
{
	char	   *exact = malloc(len > 0 ? len : 1);
	OvHttpResponse resp = {.status = status, .sent = true, .content_type = type, .body = exact, .body_len = len};

	memcpy(exact, body, len);
	memset(&out, 0x5a, sizeof(out));
	ov_token_response(arena, p, &resp, is_refresh, NOW, &out);
	free(exact);
	if (out.outcome != OV_OUT_OK && (out.access_token != NULL || out.refresh_token != NULL || out.id_token != NULL ||
									 out.scopes != NULL || out.captured != NULL || out.subject != NULL || out.reason[0] == '\0'))
		return "a failure that keeps something, or has no reason";
	return name_of(out.outcome);
}

static const char *
answer(const OvProvider *p, int status, const char *type, const char *body)
{
	body = double_quotes(body);
	return answer_bytes(p, status, type, body, strlen(body), false);
}

/* Rules beside the least document, and members beside a good token */
static const char *
members(const char *rules, const char *more)
{
	return answer(load(ov_arena_printf(arena, "{" MINIMAL "%s%s}", rules[0] != '\0' ? "," : "", rules), NULL, NULL), 200, JSON,
				  ov_arena_printf(arena, "{" GOOD "%s%s}", more[0] != '\0' ? "," : "", more));
}

static const char *
scopes(void)
{
	OvStr		s;

	if (out.scopes == NULL)
		return "NULL";
	ov_str_init(&s, arena);
	for (int i = 0; i < out.nscopes; i++)
		ov_str_printf(&s, "%s%s", i > 0 ? " " : "", out.scopes[i]);
	return s.data;
}

static void
success(void)
{
	const OvProvider *p = load("{" MINIMAL "}", NULL, NULL);

	/* RFC 6749 section 5.1 */
	is_str(answer(p, 200, "application/json;charset=UTF-8", "{'access_token':'2YotnFZFEjr1zCsicMWpAA','token_type':'example',"
				  "'expires_in':3600,'refresh_token':'tGzv3JOkF0XG5Qx2TlKWIA','example_parameter':'example_value'}"), "malformed",
		   "RFC 6749's example has a token type that nobody knows");
	is_str(answer(p, 200, "application/json;charset=UTF-8", "{'access_token':'2YotnFZFEjr1zCsicMWpAA','token_type':'bearer',"
				  "'expires_in':3600,'refresh_token':'tGzv3JOkF0XG5Qx2TlKWIA','example_parameter':'example_value','id_token':'a.b.c','scope':'a b a'}"),
		   "ok", "the same with one that we know");
	is_str(out.access_token, "2YotnFZFEjr1zCsicMWpAA", "access token");
	is_str(out.refresh_token, "tGzv3JOkF0XG5Qx2TlKWIA", "refresh token");
	is_str(out.id_token, "a.b.c", "ID token");
	is_str(out.token_type, "Bearer", "token type in its own spelling");
	is_int(out.expires_at, NOW + 3600, "expiry");
	is_int(out.refresh_expires_at, 0, "nothing is known of the refresh token's");
	is_str(scopes(), "a b", "scopes, once each");
	ok(out.captured == NULL && out.subject == NULL && out.error == NULL && out.retry_after == -1, "and nothing else");
	is_str(answer(p, 200, JSON, "{" GOOD "}"), "ok", "the least");
	ok(out.refresh_token == NULL && out.scopes == NULL && out.expires_at == 0, "says no more than that");
	is_str(answer(p, 200, JSON, "{" GOOD ",'refresh_token':null,'scope':null,'expires_in':null,'id_token':null,'error':null}"), "ok",
		   "null is as if it were absent");
	ok(out.refresh_token == NULL && out.scopes == NULL && out.expires_at == 0, "in all of them");
	is_str(answer(p, 200, JSON, "{'Access_Token':'x'," GOOD ",'user':'x','x':{'y':[1,{'z':null}]},'x':1}"), "ok",
		   "unknown members are ignored, also twice (J05, J24, J26)");
}

/* The tables T and J of bad inputs */
static void
malformed(void)
{
	static const struct
	{
		const char *id;
		int			status;
		const char *type,
				   *body,
				   *want;
	}			cases[] = {
		{"T01", 200, NULL, "{" GOOD "}", "malformed"},
		{"T01 empty", 200, "", "{" GOOD "}", "malformed"},
		{"T02 html", 200, "text/html", "{" GOOD "}", "malformed"},
		{"T02 text", 200, "text/plain", "{" GOOD "}", "malformed"},
		{"T02 jsonx", 200, "application/jsonx", "{" GOOD "}", "malformed"},
		{"T02 json-seq", 200, "application/json-seq", "{" GOOD "}", "malformed"},
		{"T02 form", 200, "application/x-www-form-urlencoded", "access_token=at&token_type=bearer", "malformed"},
		{"T03", 200, "APPLICATION/JSON; charset=utf-8", "{" GOOD "}", "ok"},
		{"T03 spaces", 200, "application/json \t;\t charset=utf-8", "{" GOOD "}", "ok"},
		{"T04", 200, "application/json; charset=iso-8859-1", "{" GOOD ",'x':'\xe9'}", "malformed"},
		{"T05", 200, "application/json, text/html", "{" GOOD "}", "malformed"},
		{"T06 201", 201, JSON, "{" GOOD "}", "malformed"},
		{"T06 202", 202, JSON, "{" GOOD "}", "malformed"},
		{"T06 204", 204, NULL, "", "malformed"},
		{"T06 206", 206, JSON, "{" GOOD "}", "malformed"},
		{"T07 301", 301, JSON, "{" GOOD "}", "malformed"},
		{"T07 302", 302, "text/html", "", "malformed"},
		{"T07 307", 307, JSON, "{" GOOD "}", "malformed"},
		{"T07 308", 308, JSON, "{" GOOD "}", "malformed"},
		{"T08", 304, NULL, "", "malformed"},
		{"T08 101", 101, NULL, "", "malformed"},
		{"T09", 200, JSON, "", "malformed"},
		{"T10 invalid_grant", 400, JSON, "{'error':'invalid_grant'}", "dead"},
		{"T10 invalid_client", 401, JSON, "{'error':'invalid_client'}", "misconfigured"},
		{"T10 invalid_client 400", 400, JSON, "{'error':'invalid_client'}", "misconfigured"},
		{"T10 unauthorized_client", 400, JSON, "{'error':'unauthorized_client'}", "misconfigured"},
		{"T10 unsupported_grant_type", 400, JSON, "{'error':'unsupported_grant_type'}", "misconfigured"},
		{"T10 invalid_scope", 400, JSON, "{'error':'invalid_scope'}", "denied"},
		{"T10 invalid_request", 400, JSON, "{'error':'invalid_request'}", "denied"},
		{"T10 access_denied", 400, JSON, "{'error':'access_denied'}", "denied"},
		{"T10 temporarily_unavailable", 400, JSON, "{'error':'temporarily_unavailable'}", "transient"},
		{"T10 server_error", 400, JSON, "{'error':'server_error'}", "transient"},
		{"T10 unknown", 400, JSON, "{'error':'something_else'}", "denied"},
		{"T11", 400, "text/html", "<html>Bad Request", "malformed"},
		{"T11 no error", 400, JSON, "{'message':'no'}", "malformed"},
		{"T12", 401, JSON, "{}", "misconfigured"},
		{"T12 empty", 401, NULL, "", "misconfigured"},
		{"T12 html", 401, "text/html", "<html>", "malformed"},
		{"T13 403", 403, "text/html", "<html>", "malformed"},
		{"T13 403 invalid_grant", 403, JSON, "{'error':'invalid_grant'}", "malformed"},
		{"T13 404", 404, JSON, "{'error':'invalid_grant'}", "malformed"},
		{"T13 405", 405, NULL, "", "malformed"},
		{"T13 410", 410, NULL, "", "malformed"},
		{"T14 429", 429, JSON, "{'error':'invalid_grant'}", "transient"},
		{"T14 503", 503, "text/html", "<html>", "transient"},
		{"T15 500", 500, NULL, "", "transient"},
		{"T15 502", 502, JSON, "{'error':'invalid_grant'}", "transient"},
		{"T15 504", 504, NULL, "", "transient"},
		{"408", 408, NULL, "", "transient"},
		{"T18", 200, JSON, "\x1f\x8b\x08", "malformed"},

		{"J01 null", 200, JSON, "null", "malformed"},
		{"J01 array", 200, JSON, "[]", "malformed"},
		{"J01 string", 200, JSON, "'x'", "malformed"},
		{"J01 number", 200, JSON, "5", "malformed"},
		{"J01 true", 200, JSON, "true", "malformed"},
		{"J01 space", 200, JSON, "  ", "malformed"},
		{"J02 open", 200, JSON, "{'", "malformed"},
		{"J02 comma", 200, JSON, "{" GOOD ",}", "malformed"},
		{"J02 comment", 200, JSON, "{" GOOD "/**/}", "malformed"},
		{"J02 NaN", 200, JSON, "{" GOOD ",'x':NaN}", "malformed"},
		{"J02 two", 200, JSON, "{" GOOD "}{}", "malformed"},
		{"J02 trailing", 200, JSON, "{" GOOD "}x", "malformed"},
		{"J02 BOM", 200, JSON, "\xef\xbb\xbf{" GOOD "}", "malformed"},
		{"J03 16", 200, JSON, "{" GOOD ",'x':[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]}", "ok"},
		{"J03 17", 200, JSON, "{" GOOD ",'x':[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}", "malformed"},
		{"J04", 200, JSON, "{" GOOD ",'access_token':'b'}", "malformed"},
		{"J04 escaped", 200, JSON, "{" GOOD ",'access\\u005ftoken':'b'}", "malformed"},
		{"J04 refresh", 200, JSON, "{" GOOD ",'refresh_token':'a','refresh_token':'b'}", "malformed"},
		{"J04 expires_in", 200, JSON, "{" GOOD ",'expires_in':1,'expires_in':2}", "malformed"},
		{"J04 scope", 200, JSON, "{" GOOD ",'scope':'a','scope':'b'}", "malformed"},
		{"J04 token_type", 200, JSON, "{" GOOD ",'token_type':'Bearer'}", "malformed"},
		{"J04 error", 400, JSON, "{'error':'invalid_grant','error':'invalid_client'}", "malformed"},
		{"J05", 200, JSON, "{" GOOD ",'x':1,'x':2}", "ok"},
		{"J06", 200, JSON, "{" GOOD ",'x':'\xff'}", "malformed"},
		{"J06 overlong", 200, JSON, "{" GOOD ",'x':'\xc0\x80'}", "malformed"},
		{"J06 surrogate", 200, JSON, "{" GOOD ",'x':'\xed\xa0\x80'}", "malformed"},
		{"J08", 200, JSON, "{'access_token':'a\\u0000b','token_type':'Bearer'}", "malformed"},
		{"J09", 200, JSON, "{" GOOD ",'x':'\\ud800'}", "malformed"},
		{"J10", 200, JSON, "{" GOOD ",'x':'a\nb'}", "malformed"},
		{"J11 missing", 200, JSON, "{'token_type':'Bearer'}", "malformed"},
		{"J11 null", 200, JSON, "{'access_token':null,'token_type':'Bearer'}", "malformed"},
		{"J11 number", 200, JSON, "{'access_token':5,'token_type':'Bearer'}", "malformed"},
		{"J11 true", 200, JSON, "{'access_token':true,'token_type':'Bearer'}", "malformed"},
		{"J11 object", 200, JSON, "{'access_token':{},'token_type':'Bearer'}", "malformed"},
		{"J11 array", 200, JSON, "{'access_token':[],'token_type':'Bearer'}", "malformed"},
		{"J11 empty", 200, JSON, "{'access_token':'','token_type':'Bearer'}", "malformed"},
		{"J12 space", 200, JSON, "{'access_token':'a b','token_type':'Bearer'}", "malformed"},
		{"J12 CRLF", 200, JSON, "{'access_token':'a\\r\\nX: y','token_type':'Bearer'}", "malformed"},
		{"J12 TAB", 200, JSON, "{'access_token':'a\\tb','token_type':'Bearer'}", "malformed"},
		{"J12 DEL", 200, JSON, "{'access_token':'a\\u007fb','token_type':'Bearer'}", "malformed"},
		{"J12 non-ASCII", 200, JSON, "{'access_token':'a\xc3\xa9','token_type':'Bearer'}", "malformed"},
		{"J13", 200, JSON, "{'access_token':'a|b:c~d','token_type':'Bearer'}", "ok"},
		{"J14 missing", 200, JSON, "{'access_token':'a'}", "malformed"},
		{"J14 null", 200, JSON, "{'access_token':'a','token_type':null}", "malformed"},
		{"J14 number", 200, JSON, "{'access_token':'a','token_type':1}", "malformed"},
		{"J14 empty", 200, JSON, "{'access_token':'a','token_type':''}", "malformed"},
		{"J14 bearer", 200, JSON, "{'access_token':'a','token_type':'bEaReR'}", "ok"},
		{"J14 DPoP", 200, JSON, "{'access_token':'a','token_type':'DPoP'}", "malformed"},
		{"J14 N_A", 200, JSON, "{'access_token':'a','token_type':'N_A'}", "malformed"},
		{"J14 mac", 200, JSON, "{'access_token':'a','token_type':'mac'}", "malformed"},
		{"J14 space", 200, JSON, "{'access_token':'a','token_type':'Bearer '}", "malformed"},
		{"J15 -1", 200, JSON, "{" GOOD ",'expires_in':-1}", "malformed"},
		{"J15 -0.5", 200, JSON, "{" GOOD ",'expires_in':-0.5}", "malformed"},
		{"J15 1e3", 200, JSON, "{" GOOD ",'expires_in':1e3}", "malformed"},
		{"J15 1e309", 200, JSON, "{" GOOD ",'expires_in':1e309}", "malformed"},
		{"J15 2^63", 200, JSON, "{" GOOD ",'expires_in':9223372036854775808}", "malformed"},
		{"J15 2^64", 200, JSON, "{" GOOD ",'expires_in':18446744073709551616}", "malformed"},
		{"J15 abc", 200, JSON, "{" GOOD ",'expires_in':'abc'}", "malformed"},
		{"J15 space", 200, JSON, "{" GOOD ",'expires_in':' 3600'}", "malformed"},
		{"J15 0x10", 200, JSON, "{" GOOD ",'expires_in':'0x10'}", "malformed"},
		{"J15 minus", 200, JSON, "{" GOOD ",'expires_in':'-5'}", "malformed"},
		{"J15 empty", 200, JSON, "{" GOOD ",'expires_in':''}", "malformed"},
		{"J15 true", 200, JSON, "{" GOOD ",'expires_in':true}", "malformed"},
		{"J15 array", 200, JSON, "{" GOOD ",'expires_in':[]}", "malformed"},
		{"J16 empty", 200, JSON, "{" GOOD ",'refresh_token':''}", "malformed"},
		{"J16 number", 200, JSON, "{" GOOD ",'refresh_token':5}", "malformed"},
		{"J16 same", 200, JSON, "{" GOOD ",'refresh_token':'at'}", "ok"},
		{"J16 control", 200, JSON, "{" GOOD ",'refresh_token':'a\\nb'}", "malformed"},
		{"J16 space", 200, JSON, "{" GOOD ",'refresh_token':'a b'}", "ok"},
		{"J17 array", 200, JSON, "{" GOOD ",'scope':['a']}", "malformed"},
		{"J17 number", 200, JSON, "{" GOOD ",'scope':5}", "malformed"},
		{"J17 quote", 200, JSON, "{" GOOD ",'scope':'a \\u0022b'}", "malformed"},
		{"J17 backslash", 200, JSON, "{" GOOD ",'scope':'a\\\\b'}", "malformed"},
		{"J17 newline", 200, JSON, "{" GOOD ",'scope':'a\\nb'}", "malformed"},
		{"J18", 200, JSON, "{'error':'bad_verification_code'}", "denied"},
		{"J18 invalid_grant", 200, JSON, "{'error':'invalid_grant'}", "dead"},
		{"J19", 200, JSON, "{" GOOD ",'error':'invalid_grant'}", "malformed"},
		{"J19 object", 200, JSON, "{" GOOD ",'error':{}}", "malformed"},
		{"J20 number", 400, JSON, "{'error':400}", "malformed"},
		{"J20 empty", 400, JSON, "{'error':''}", "malformed"},
		{"J20 array", 400, JSON, "{'error':['invalid_grant']}", "malformed"},
		{"J20 200", 200, JSON, "{'error':5}", "malformed"},
		{"J23 id_token", 200, JSON, "{" GOOD ",'id_token':5}", "malformed"},
		{"J23 id_token empty", 200, JSON, "{" GOOD ",'id_token':''}", "malformed"},
		{"J23 id_token space", 200, JSON, "{" GOOD ",'id_token':'a b'}", "malformed"},
	};
	const OvProvider *p = load("{" MINIMAL "}", NULL, NULL);
	char	   *big = malloc(1 << 20);
	OvHttpResponse resp = {0};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_str(answer(p, cases[i].status, cases[i].type, cases[i].body), cases[i].want, "%s", cases[i].id);

	is_str(answer_bytes(p, 200, JSON, T("{\"access_token\":\"a\",\"token_type\":\"Bearer\"\0}"), false), "malformed", "J07 a NUL in the body");
	is_str(answer_bytes(p, 200, JSON, T("{\"access_token\":\"a\",\"token_type\":\"Bearer\",\"x\":\"\xe2\x82"), false), "malformed",
		   "J06 cut in a character");
	memset(big, '[', 1 << 20);
	is_str(answer_bytes(p, 200, JSON, big, 1 << 20, false), "malformed", "J03 a million brackets");
	memset(big, 'a', 1 << 20);
	big[70000] = '\0';
	is_str(members("", ov_arena_printf(arena, "'x':'%s'", big)), "ok", "a long member that nobody reads");
	is_str(answer(p, 200, JSON, ov_arena_printf(arena, "{'access_token':'%s','token_type':'Bearer'}", big)), "malformed", "J12 a token over 64 KiB");
	big[65536] = '\0';
	is_str(answer(p, 200, JSON, ov_arena_printf(arena, "{'access_token':'%s','refresh_token':'%s','token_type':'Bearer'}", big, big)), "ok",
		   "tokens of 64 KiB");
	is_str(answer(p, 400, JSON, ov_arena_printf(arena, "{'error':'%s'}", big)), "malformed", "J20 an error of 64 KiB");
	for (int i = 0; i < 65536; i += 2)
		big[i] = ' ';
	is_str(members("", ov_arena_printf(arena, "'scope':'%s'", big)), "ok", "the same scope ten thousand times");
	is_str(scopes(), "a", "is one");
	for (int i = 0; i < 65536; i++)
		big[i] = i % 4 == 3 ? ' ' : 'a' + (i % 4 == 0 ? i / 4 % 26 : i % 4 == 1 ? i / 104 % 26 : i / 2704 % 26);
	is_str(members("", ov_arena_printf(arena, "'scope':'%s'", big)), "malformed", "J17 over a thousand scopes");
	free(big);

	resp.transport_error = "could not \"connect\"\r\nto x";
	ov_token_response(arena, p, &resp, true, NOW, &out);
	is_str(name_of(out.outcome), "transient", "no answer");
	is_str(out.reason, "no answer: could not \\x22connect\\x22\\x0d\\x0ato x", "says why, cleaned");
	resp = (OvHttpResponse) {.status = 200, .content_type = JSON, .body = "{\"access_token\":\"a\",\"token_type\":\"Bearer\"}", .body_len = 41,
		.transport_error = "cut short"};
	ov_token_response(arena, p, &resp, true, NOW, &out);
	ok(out.outcome == OV_OUT_TRANSIENT && out.access_token == NULL, "T16 an answer cut short is never read");
}

static void
error_text(void)
{
	const OvProvider *p = load("{" MINIMAL "}", NULL, NULL);

	is_str(answer(p, 400, JSON, "{'error':'invalid_grant','error_description':'a\\r\\nb\\u001b[2J\\u202e%s%n\\u0022'}"), "dead", "a hostile description");
	is_str(out.error, "invalid_grant", "the code");
	is_str(out.error_description, "a\\x0d\\x0ab\\x1b[2J\\xe2\\x80\\xae%s%n\\x22", "the description, cleaned");
	is_str(answer(p, 400, JSON, "{'error':'we\\u0022ird\\n'}"), "denied", "a strange code");
	is_str(out.error, "we\\x22ird\\x0a", "cleaned too");
	ok(strchr(out.reason, '\n') == NULL && strchr(out.reason, '"') == NULL, "and in the reason");
	is_str(answer(p, 400, JSON, ov_arena_printf(arena, "{'error':'invalid_grant','error_description':'%0900d'}", 1)), "dead", "a long one");
	is_int((long long) strlen(out.error_description), 200, "is cut");
	is_str(answer(p, 400, JSON, "{'error':'invalid_grant','error_description':5}"), "dead", "a description that is none");
	ok(out.error_description == NULL, "is left out");
	is_str(answer(p, 500, JSON, "{'error':'server_error'}"), "transient", "a failing server");
	is_str(out.error, "server_error", "may say why");
}

static int64_t
retry_after(const char *value, const char *date)
{
	OvHttpResponse resp = {.status = 503, .retry_after = value, .date = date, .body = "", .sent = true};

	ov_token_response(arena, load("{" MINIMAL "}", NULL, NULL), &resp, true, NOW, &out);
	return out.retry_after;
}

static void
retry_afters(void)
{
	is_int(retry_after(NULL, NULL), -1, "no Retry-After");
	is_int(retry_after("", NULL), -1, "an empty one");
	is_int(retry_after("5", NULL), 5, "seconds");
	is_int(retry_after("0", NULL), 0, "zero");
	is_int(retry_after("-1", NULL), -1, "negative");
	is_int(retry_after("1e9", NULL), -1, "an exponent");
	is_int(retry_after("1.5", NULL), -1, "a fraction");
	is_int(retry_after("86401", NULL), 86400, "at most a day");
	is_int(retry_after("99999999999999999999", NULL), 86400, "also for what does not fit");
	is_int(retry_after("soon", NULL), -1, "a word");
	is_int(retry_after("Fri, 15 Jan 2027 08:00:10 GMT", NULL), 10, "a date, by our clock");
	is_int(retry_after("Fri, 15 Jan 2027 08:00:10 GMT", "Fri, 15 Jan 2027 08:00:05 GMT"), 5, "a date, by the server's clock");
	is_int(retry_after("Fri, 15 Jan 2027 07:00:00 GMT", NULL), 0, "a date in the past");
	is_int(retry_after("Fri, 15 Jan 2037 07:00:00 GMT", NULL), 86400, "a date far away");
	is_int(retry_after("Frixday, nonsense", NULL), -1, "no date");
	is_int(retry_after("20270115 08:00:10", NULL), -1, "no date of HTTP");
}

static void
expiries(void)
{
	static const char chain[] = "'response':{'expiry':[{'kind':'iso8601','field':'/expires_at'},{'kind':'epoch','field':'/exp'},"
		"{'kind':'jwt'},{'kind':'issued','field':'/issued_at','unit':'ms','seconds':7200},{'kind':'default','seconds':60}]}";

	is_str(members("", "'expires_in':0"), "ok", "expires_in 0");
	is_int(out.expires_at, NOW, "expires at once");
	(void) members("", "'expires_in':1.5");
	is_int(out.expires_at, NOW + 1, "a fraction is cut");
	(void) members("", "'expires_in':'3600'");
	is_int(out.expires_at, NOW + 3600, "a digit string");
	(void) members("", "'expires_in':2147483648");
	is_int(out.expires_at, NOW + 315576000, "at most ten years");
	(void) members("", "'expires_in':900000000000000000");
	is_int(out.expires_at, NOW + 315576000, "also for what is absurd");
	(void) members("", "'expires_in':9223372036854775799");
	is_int(out.expires_at, NOW + 315576000, "and for what would overflow");

	(void) members(chain, "'expires_at':'2027-01-15T09:00:00Z','exp':1800000001");
	is_int(out.expires_at, NOW + 3600, "a timestamp; the first rule wins");
	(void) members(chain, "'expires_at':'2027-01-15T10:30:00.123+01:30'");
	is_int(out.expires_at, NOW + 3600, "with fraction and offset");
	(void) members(chain, "'expires_at':'2027-01-15t07:00:00-02:00'");
	is_int(out.expires_at, NOW + 3600, "west of Greenwich");
	(void) members(chain, "'expires_at':'2028-02-29T00:00:00Z'");
	is_int(out.expires_at, INT64_C(1835395200), "a leap day");
	for (int i = 0; i < 9; i++)
	{
		static const char *const bad[] = {
			"'2027-01-15'", "'2027-01-15T09:00:00'", "'2027-13-15T09:00:00Z'", "'2027-01-15T25:00:00Z'", "'2027-01-15T09:00:00Zx'",
			"'soon'", "5", "''", "'2027-01-15T09:00:00+1'"
		};

		is_str(members(chain, ov_arena_printf(arena, "'expires_at':%s", bad[i])), "malformed", "no timestamp: %s", bad[i]);
	}
	(void) members(chain, "'exp':1800000001");
	is_int(out.expires_at, NOW + 1, "seconds since 1970");
	(void) members(chain, "'exp':1");
	is_int(out.expires_at, 1, "in the past");
	(void) members(chain, "'exp':99999999999");
	is_int(out.expires_at, NOW + 315576000, "far away");
	(void) members(chain, "'issued_at':'1800000000500'");
	is_int(out.expires_at, NOW + 7200, "a time of issue in milliseconds");
	(void) members(chain, "");
	is_int(out.expires_at, NOW + 60, "a default");
	(void) answer(load("{" MINIMAL ",'response':{'expiry':[{'kind':'jwt'}]}}", NULL, NULL), 200, JSON,
				  "{'token_type':'Bearer','access_token':'eyJhbGciOiJub25lIn0.eyJleHAiOjE4MDAwMDA5MDB9.x'}");
	is_int(out.expires_at, NOW + 900, "the token's own exp");
	(void) members("'response':{'expiry':[{'kind':'jwt'}]}", "");
	is_int(out.expires_at, 0, "where it has one");
	(void) members("'response':{'expiry':[{'kind':'seconds','field':'/expires_in','zero':'never'},{'kind':'never'}]}", "'expires_in':0");
	ok(out.expires_at == INT64_MAX, "0 that means never");
	(void) members("'response':{'expiry':[{'kind':'seconds','field':'/expires_in'},{'kind':'never'}]}", "");
	ok(out.expires_at == INT64_MAX, "never");
	is_str(members("'response':{'expiry':[{'kind':'epoch','field':'/exp'}]}", "'exp':-5"), "malformed", "before 1970");

	(void) members("'response':{'refresh_expiry':[{'kind':'seconds','field':'/r'},{'kind':'default','seconds':10}]}", "'refresh_token':'r','r':'90'");
	is_int(out.refresh_expires_at, NOW + 90, "the refresh token's expiry");
	(void) members("'response':{'refresh_expiry':[{'kind':'seconds','field':'/r'},{'kind':'default','seconds':10}]}", "'refresh_token':'r'");
	is_int(out.refresh_expires_at, NOW + 10, "or its default");
	(void) members("'response':{'refresh_expiry':[{'kind':'default','seconds':10}]}", "");
	is_int(out.refresh_expires_at, 0, "but not of one that did not come");
}

static void
scope_rules(void)
{
	is_str(members("", "'scope':''"), "ok", "an empty scope");
	is_str(scopes(), "", "is no scope, not an unknown one");
	(void) members("", "'scope':' a  b '");
	is_str(scopes(), "a b", "spaces around");
	(void) members("", "'scope':'a,b'");
	is_str(scopes(), "a,b", "a comma is part of a scope");
	(void) members("'response':{'scope':{'separators':', '}}", "'scope':'a, b,c d'");
	is_str(scopes(), "a b c d", "or separates, where the rules say so");
	is_str(members("'response':{'scope':{'array':true}}", "'scope':['a','b']"), "ok", "an array, where the rules say so");
	is_str(scopes(), "a b", "read");
	is_str(members("'response':{'scope':{'array':true}}", "'scope':['a',5]"), "malformed", "of strings");
	is_str(members("'response':{'scope':{'array':true}}", "'scope':['a b']"), "malformed", "each a scope");
	(void) members("'response':{'scope':{'implies':{'write_':'read_','https://x/email':'email','https://g/':''}}}",
				   "'scope':'write_a read_b https://x/email https://g/'");
	is_str(scopes(), "write_a read_b https://x/email https://g/ read_a email", "scopes that include others");
	(void) members("'response':{'scope':{'with_refresh_token':['offline']}}", "'scope':'a','refresh_token':'r'");
	is_str(scopes(), "a offline", "a scope that a refresh token proves");
	(void) members("'response':{'scope':{'with_refresh_token':['offline']}}", "'scope':'a'");
	is_str(scopes(), "a", "and only that");
	(void) members("'response':{'scope':{'secondary':{'/u/scope':'user:'}}}", "'scope':'a','u':{'scope':'b c'}");
	is_str(scopes(), "a user:b user:c", "scopes of a second kind");
	(void) members("'response':{'scope':{'secondary':{'/u/scope':'user:'}}}", "'u':{'scope':'b'}");
	is_str(scopes(), "user:b", "alone");
	(void) members("'response':{'fields':{'scope':'/granted'}}", "'scope':'a','granted':'b'");
	is_str(scopes(), "b", "elsewhere");
}

static void
rules(void)
{
	static const char wrapped[] = "{" MINIMAL ",'response':{'path':'/data','token_type':'optional','success':{'pointer':'/code','equals':0},"
		"'error':{'code':'/code','description':'/message'},'errors':[{'pointer':'/code','value':[40105],'outcome':'dead'}]}}";
	const OvProvider *p;

	p = load(wrapped, NULL, NULL);
	is_str(answer(p, 200, JSON, "{'code':40105,'message':'revoked'}"), "dead", "an error in the body, by its number");
	is_str(out.error, "40105", "named");
	is_str(out.error_description, "revoked", "and described");
	is_str(answer(p, 200, JSON, "{'code':1,'message':'x'}"), "malformed", "a number that no rule knows");
	is_str(answer(p, 200, JSON, "{'message':'x'}"), "malformed", "no predicate, no success");

	p = load("{" MINIMAL ",'response':{'path':'/data','token_type':'optional','success':{'pointer':'/ok','equals':true},'token_types':['bot'],"
			 "'errors':[{'pointer':'/error','value':['gone'],'outcome':'dead','reason':'it is gone'},{'pointer':'/error','pattern':'rate.*','outcome':'transient'}]}}",
			 NULL, NULL);
	is_str(answer(p, 200, JSON, "{'ok':true,'data':{'access_token':'x'}}"), "ok", "a token object below the document, no token type");
	is_str(answer(p, 200, JSON, "{'ok':true,'data':{'access_token':'x','token_type':'BOT'}}"), "ok", "a token type of its own");
	is_str(answer(p, 200, JSON, "{'ok':true,'data':{'access_token':'x','token_type':'mac'}}"), "malformed", "not any");
	is_str(answer(p, 200, JSON, "{'ok':true,'data':[]}"), "malformed", "no token object");
	is_str(answer(p, 200, JSON, "{'ok':true}"), "malformed", "none at all");
	is_str(answer(p, 200, JSON, "{'ok':'true','data':{'access_token':'x'}}"), "malformed", "a predicate of another type");
	is_str(answer(p, 200, JSON, "{'ok':true,'ok':false,'data':{'access_token':'x'}}"), "malformed", "a predicate twice");
	is_str(answer(p, 200, JSON, "{'ok':true,'data':{'access_token':'x'},'data':{'access_token':'y'}}"), "malformed", "a token object twice");
	is_str(answer(p, 200, JSON, "{'ok':false,'error':'gone'}"), "dead", "a mapped error");
	is_str(out.reason, "it is gone", "with its reason");
	is_str(answer(p, 200, JSON, "{'ok':false,'error':'ratelimited'}"), "transient", "a pattern");
	is_str(answer(p, 200, JSON, "{'ok':false,'error':'invalid_grant'}"), "dead", "the standard's own codes");
	is_str(answer(p, 200, JSON, "{'ok':false,'error':'else'}"), "denied", "the rest");
	is_str(answer(p, 429, JSON, "{'ok':false,'error':'gone'}"), "dead", "a rule comes before the status");

	p = load("{" MINIMAL ",'response':{'errors':[{'status':[403],'pointer':'/error','value':['invalid_grant'],'outcome':'dead'},"
			 "{'status':[402,423],'outcome':'transient'},{'status':[400],'pointer':'/suberror','outcome':'dead'}]}}", NULL, NULL);
	is_str(answer(p, 403, JSON, "{'error':'invalid_grant'}"), "dead", "a status of its own");
	is_str(answer(p, 403, JSON, "{'error':'x'}"), "malformed", "with the right code");
	is_str(answer(p, 423, "text/html", "locked"), "transient", "a status alone");
	is_str(answer(p, 400, JSON, "{'error':'x','suberror':'y'}"), "dead", "a member that is there");
	is_str(answer(p, 400, JSON, "{'error':'x','suberror':null}"), "denied", "null is not there");

	p = load("{" MINIMAL ",'response':{'formats':['json','form']}}", NULL, NULL);
	is_str(answer(p, 200, "application/x-www-form-urlencoded; charset=utf-8", "access_token=a%7Cb&scope=x+y&token_type=bearer&expires_in=60"), "ok",
		   "a form, where the rules say so");
	is_str(out.access_token, "a|b", "decoded");
	is_str(scopes(), "x y", "with scopes");
	is_int(out.expires_at, NOW + 60, "and expiry");
	is_str(answer(p, 200, "application/x-www-form-urlencoded", "error=invalid_grant"), "dead", "an error in a form");
	is_str(answer(p, 200, "application/x-www-form-urlencoded", "access_token=a&access_token=b&token_type=bearer"), "malformed", "a member twice");
	is_str(answer(p, 200, "application/x-www-form-urlencoded", "access_token=a%0d%0ab&token_type=bearer"), "malformed", "a line break in the token");
	is_str(answer(p, 200, "application/x-www-form-urlencoded", "access_token=%zz"), "malformed", "bad encoding");
	is_str(answer(p, 200, "application/x-www-form-urlencoded", ""), "malformed", "nothing");

	p = load("{" MINIMAL ",'response':{'fields':{'access_token':'/u/at','refresh_token':'/u/rt','token_type':'/u/type'}},"
			 "'refresh':{'response':{'fields':{'access_token':'/access_token','refresh_token':'/refresh_token','token_type':'/token_type'}}}}", NULL, NULL);
	is_str(answer(p, 200, JSON, "{" GOOD ",'u':{'at':'a','rt':'r','type':'bearer'}}"), "ok", "the other slot");
	is_str(out.access_token, "a", "is read");
	is_str(out.refresh_token, "r", "with its refresh token");
	is_str(answer(p, 200, JSON, "{" GOOD ",'u':{'at':'a','at':'b','type':'bearer'}}"), "malformed", "a member of it twice");
	is_str(answer_bytes(p, 200, JSON, T("{\"access_token\":\"x\",\"token_type\":\"bearer\"}"), true), "ok", "a refresh answers otherwise");
	is_str(out.access_token, "x", "and is read so");
}

static void
captures(void)
{
	static const char more[] = "'id':'https://x/1','team':{'id':'T1','n':5,'yes':true,'no':null,'list':[]}";

	is_str(members("'response':{'capture':{'a':'/team/id','b':'/team/n','c':'/team/yes','d':'/team/no','e':'/team/list','f':'/none'}}", more), "ok",
		   "captured members");
	is_str(out.captured, "{\"a\":\"T1\",\"b\":\"5\",\"c\":\"true\"}", "as text; what is no scalar is left out");
	is_str(members("'response':{'capture':{'a':'/x'}}", ov_arena_printf(arena, "'x':'%0400d'", 1)), "ok", "a long one");
	is_str(out.captured, "{}", "is left out");
	is_str(members("'variables':{'url':{'pattern':'https://[a-z]+\\\\.my\\\\.example','source':['response']}},'response':{'capture':{'url':'/url'}}",
				   "'url':'https://a.my.example'"), "ok", "a variable");
	is_str(out.captured, "{\"url\":\"https://a.my.example\"}", "that its pattern lets through");
	is_str(members("'variables':{'url':{'pattern':'https://[a-z]+\\\\.my\\\\.example','source':['response']}},'response':{'capture':{'url':'/url'}}",
				   "'url':'https://evil.example'"), "malformed", "and one that it does not");
	is_str(members("'response':{'capture':{'a':'/x'}}", "'x':1,'x':2"), "malformed", "a captured member twice");

	(void) members("'subject':'{/team/id}/{/team/n}'", more);
	is_str(out.subject, "T1/5", "a subject of two members");
	(void) members("'subject':'{/team/none}'", more);
	ok(out.subject == NULL, "that is not there");
	(void) answer(load("{" MINIMAL ",'variables':{'realm':{'pattern':'[0-9]+','source':['callback']}},'subject':'{realm}'}", NULL, "{'realm':'7'}"),
				  200, JSON, "{" GOOD "}");
	is_str(out.subject, "7", "a subject that the callback named");
}

static const char *
revoked(const char *rules, int status, const char *type, const char *body)
{
	OvHttpResponse resp = {.status = status, .sent = true, .content_type = type, .body = double_quotes(body), .body_len = strlen(body)};

	memset(&out, 0x5a, sizeof(out));
	ov_revoke_response(arena, load(ov_arena_printf(arena, "{" MINIMAL "%s%s}", rules[0] != '\0' ? "," : "", rules), NULL, NULL), &resp, &out);
	return name_of(out.outcome);
}

static void
revocations(void)
{
	static const char bodies[] = "'revocation':{'success':{'pointer':'/ok','equals':true},'errors':[{'pointer':'/error','value':['token_revoked'],'outcome':'ok'}]}";
	static const char statuses[] = "'revocation':{'status':[204],'errors':[{'status':[404],'outcome':'ok'}]}";
	OvHttpResponse resp = {.transport_error = "x"};

	is_str(revoked("", 200, NULL, ""), "ok", "RFC 7009 section 2.2: 200 means gone");
	is_str(revoked("", 200, "text/html", "<garbage"), "ok", "whatever the body");
	is_str(revoked("", 503, NULL, ""), "transient", "503 means still alive");
	is_str(revoked("", 429, NULL, ""), "transient", "429 too");
	is_str(revoked("", 400, JSON, "{'error':'unsupported_token_type'}"), "unsupported", "a kind that is not revoked");
	is_str(revoked("", 401, JSON, "{'error':'invalid_client'}"), "misconfigured", "a client that is not known");
	is_str(revoked("", 400, JSON, "{'error':'invalid_request'}"), "denied", "a refusal");
	is_str(revoked("", 204, NULL, ""), "malformed", "204 is not in the RFC");
	is_str(revoked("", 302, NULL, ""), "malformed", "a redirect");
	is_str(revoked("", 404, "text/html", "<html>"), "malformed", "no such page");
	ov_revoke_response(arena, load("{" MINIMAL "}", NULL, NULL), &resp, &out);
	is_str(name_of(out.outcome), "transient", "no answer");
	is_str(revoked(statuses, 204, NULL, ""), "ok", "a status of its own");
	is_str(revoked(statuses, 200, NULL, ""), "malformed", "and then no other");
	is_str(revoked(statuses, 404, NULL, ""), "ok", "gone already");
	is_str(revoked(bodies, 200, JSON, "{'ok':true}"), "ok", "a body that says so");
	is_str(revoked(bodies, 200, JSON, "{'ok':false,'error':'token_revoked'}"), "ok", "gone already, in the body");
	is_str(revoked(bodies, 200, JSON, "{'ok':false,'error':'not_allowed'}"), "denied", "a refusal in the body");
	is_str(revoked(bodies, 200, "text/html", "ok"), "malformed", "a body that says nothing");
	is_str(revoked(bodies, 500, JSON, "{'ok':true}"), "transient", "a status that says otherwise");
}

/* Does any text that leaves the reader hold this? */
static bool
quoted(const char *secret)
{
	const char *texts[] = {out.error, out.error_description, out.captured, out.subject, out.reason, out.token_type};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (texts[i] != NULL && strstr(texts[i], secret) != NULL)
			return true;
	for (int i = 0; out.scopes != NULL && i < out.nscopes; i++)
		if (strstr(out.scopes[i], secret) != NULL)
			return true;
	return false;
}

/* Whoever writes rules may not point them at a secret (oauth_withhold.c). */
static void
withheld(void)
{
#define ACCESS "access-0123456789"
#define REFRESH "refresh-0123456789"
	static const char *const rules[] = {
		"'response':{'success':{'pointer':'/x','equals':true},'error':{'code':'/refresh_token','description':'/access_token'}}",
		"'response':{'success':{'pointer':'/x','equals':true},'errors':[{'pointer':'/access_token','outcome':'dead'}]}",
		"'response':{'success':{'pointer':'/refresh_token','equals':'" REFRESH "'}}",
		"'response':{'success':{'pointer':'/x','equals':true},'errors':[{'pointer':'/refresh_token','pattern':'r.*','outcome':'dead'}]}",
		"'response':{'capture':{'a':'/refresh_token','b':'/copy','c':'/nested/refreshToken/0','d':'/link'}}",
		"'response':{'fields':{'scope':'/refresh_token'}}",
		"'response':{'scope':{'secondary':{'/refresh_token':'x:'}}}",
		"'response':{'fields':{'access_token':'/id','refresh_token':'/id'},'capture':{'a':'/access_token','b':'/refresh_token'}}",
		"'response':{'fields':{'access_token':'/id'},'capture':{'c':'/nested/refreshToken/0','d':'/client_secret_value'}}",
		"'subject':'{/refresh_token}'",
		"'subject':'{/copy}'",
	};
	static const char body[] = "{'access_token':'" ACCESS "','refresh_token':'" REFRESH "','token_type':'Bearer','id':'short-id',"
		"'copy':'" REFRESH "','link':'https://as.example/?t=" ACCESS "&x=1','nested':{'refreshToken':['" REFRESH "']},"
		"'client_secret_value':'" ACCESS "'}";
	const OvProvider *p;
	const char *text;
	OvHttpResponse resp = {.status = 400, .sent = true, .content_type = JSON, .secrets = {"c0de-that-was-sent", "verifier-that-was-sent"}};

	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
	{
		if (try_load(ov_arena_printf(arena, "{" MINIMAL ",%s}", rules[i]), NULL, NULL, &p) != OV_OK)
		{
			ok(true, "refused when loaded: %s", err.message);
			continue;
		}
		(void) answer(p, 200, JSON, body);
		ok(!quoted(ACCESS) && !quoted(REFRESH), "rules %zu read no token as something else", i);
		ok(out.access_token == NULL || strcmp(out.access_token, ACCESS) == 0 || strcmp(out.access_token, "short-id") == 0,
		   "and the token itself as before");
	}
	p = load("{" MINIMAL ",'response':{'refresh_expiry':[{'kind':'seconds','field':'/x_refresh_token_expires_in'},"
			 "{'kind':'iso8601','field':'/refresh_token_expires_at'}]}}", NULL, NULL);
	is_str(answer(p, 200, JSON, "{" GOOD ",'refresh_token':'" REFRESH "','x_refresh_token_expires_in':'8726400'}"), "ok", "a lifetime");
	is_int(out.refresh_expires_at, NOW + 8726400, "of a token is none");
	is_str(answer(p, 200, JSON, "{" GOOD ",'refresh_token':'" REFRESH "','refresh_token_expires_at':'2027-01-16T08:00:00+00:00'}"), "ok", "a time");
	ok(out.refresh_expires_at > 0, "neither");

	/* What was sent does not come back in words. */
	p = load("{" MINIMAL "}", NULL, NULL);
	text = double_quotes("{'error':'invalid_grant','error_description':'code c0de-that-was-sent has expired'}");
	resp.body = text;
	resp.body_len = strlen(text);
	ov_token_response(arena, p, &resp, false, NOW, &out);
	is_str(name_of(out.outcome), "dead", "an error that quotes the code");
	ok(!quoted("c0de-that-was-sent"), "is passed on without it");
	text = double_quotes("{'error':'verifier-that-was-sent'}");
	resp.body = text;
	resp.body_len = strlen(text);
	ov_token_response(arena, p, &resp, false, NOW, &out);
	ok(!quoted("verifier-that-was-sent"), "nor as the error's code");
	ov_revoke_response(arena, p, &resp, &out);
	ok(!quoted("verifier-that-was-sent"), "nor at the revocation endpoint");
	text = double_quotes("{'error':'invalid_grant','error_description':'the token is expired'}");
	resp.body = text;
	resp.body_len = strlen(text);
	ov_token_response(arena, p, &resp, false, NOW, &out);
	is_str(out.error_description, "the token is expired", "other words are");
}

int
main(void)
{
	arena = ov_arena_new();
	withheld();
	success();
	malformed();
	error_text();
	retry_afters();
	expiries();
	scope_rules();
	rules();
	captures();
	revocations();
	ov_arena_free(arena);
	return done_testing();
}
