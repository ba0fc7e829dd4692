/*
 * test_provider.c
 *	  Loading rules: the language, variables, overlays, metadata; hosts, issuer,
 *	  callback, API.
 */
#include "core/provider_internal.h"
#include "provider_fixture.h"

#define TOKEN_RULE "'token':{'url':'https://as.example/token'}"

static void
refuses(const char *rules, const char *needle)
{
	const OvProvider *p;
	OvCode		code = try_load(rules, NULL, NULL, &p);

	if (!ok(code == OV_E_CONFIG || code == OV_E_SYNTAX || code == OV_E_DENIED || code == OV_E_LIMIT, "refused: %s", rules))
		return;
	ok(p == NULL && strstr(err.message, needle) != NULL, "naming %s", needle);
	if (strstr(err.message, needle) == NULL)
		diag("%s", err.message);
}

static void
language(void)
{
	ok(load("{" MINIMAL "}", NULL, NULL) != NULL, "the least document");
	refuses("[]", "not a JSON object");
	refuses("{}", "\"schema\"");
	refuses("{'schema':2,'display_name':'x'}", "\"schema\" is not 1");
	refuses("{'schema':1.0,'display_name':'x'}", "schema");
	refuses("{" MINIMAL ",'schema':1}", "twice");
	refuses("{" MINIMAL ",'tokens':{}}", "\"tokens\" is not part of the language");
	refuses("{" MINIMAL ",'token':{'uri':'https://as.example/'}}", "\"uri\" is not part of the language");
	refuses("{" MINIMAL ",'token':[]}", "is not an object");
	refuses("{" MINIMAL ",'token':{'url':'ftp://as.example/'}}", "is not an absolute URL");
	refuses("{" MINIMAL ",'token':{'url':'https://as.example/#f'}}", "fragment");
	refuses("{" MINIMAL ",'token':{'url':'https://{host}/'}}", "\"host\" is not a variable");
	refuses("{" MINIMAL ",'token':{'url':'https://as.example/{client_secret}'}}", "client_secret");
	refuses("{" MINIMAL ",'token':{'url':'https://as.example/{access_token}'}}", "access_token");
	refuses("{" MINIMAL ",'token':{'url':'https://as.example/{}'}}", "unbalanced");
	refuses("{" MINIMAL ",'token':{'url':'https://as.example/{a'}}", "unbalanced");
	refuses("{" MINIMAL ",'token':{'url':'https://as.example/a}'}}", "unbalanced");
	refuses("{" MINIMAL ",'token':{'method':'PATCH'}}", "none of the words");
	refuses("{" MINIMAL ",'token':{'format':'xml'}}", "none of the words");
	refuses("{" MINIMAL ",'token':{'params':{'scope':5}}}", "is not a string");
	refuses("{" MINIMAL ",'token':{'headers':{'Bad Name':'x'}}}", "header name");
	refuses("{" MINIMAL ",'token':{'headers':{'Host':'x'}}}", "not a header for rules");
	refuses("{" MINIMAL ",'refresh':{'headers':{'proxy-authorization':'x'}}}", "not a header for rules");
	refuses("{" MINIMAL ",'token':{'headers':{'X':'a\\r\\nY: z'}}}", "control character");
	refuses("{" MINIMAL ",'pkce':'plain'}", "none of the words");
	refuses("{" MINIMAL ",'iss_required':'yes'}", "true or false");
	refuses("{" MINIMAL ",'client_auth':['client_secret_jwt']}", "none of the words");
	refuses("{" MINIMAL ",'issuer':'https://as.example','issuer_pattern':'x'}", "beside");
	refuses("{" MINIMAL ",'refresh':{'grace':-1}}", "whole number");
	refuses("{" MINIMAL ",'refresh':{'grace':1.5}}", "whole number");
	refuses("{" MINIMAL ",'refresh':{'grace':'1'}}", "whole number");
	refuses("{" MINIMAL ",'rate_limit':{'requests':10}}", "\"seconds\"");
	refuses("{" MINIMAL ",'rate_limit':{'requests':0,'seconds':1}}", "whole number");
	refuses("{" MINIMAL ",'rate_limit':{'requests':10,'seconds':-1}}", "whole number");
	refuses("{" MINIMAL ",'response':{'path':'data'}}", "JSON pointer");
	refuses("{" MINIMAL ",'response':{'expiry':[{'kind':'seconds'}]}}", "kind");
	refuses("{" MINIMAL ",'response':{'expiry':[{'kind':'default'}]}}", "kind");
	refuses("{" MINIMAL ",'response':{'expiry':[{'kind':'never','field':'/x'}]}}", "kind");
	refuses("{" MINIMAL ",'response':{'errors':[{'outcome':'dead','value':['x']}]}}", "compares nothing");
	refuses("{" MINIMAL ",'response':{'errors':[{'outcome':'dead','pointer':'/x','pattern':'('}]}}", "pattern");
	refuses("{" MINIMAL ",'response':{'errors':[{'outcome':'ok','status':[400]}]}}", "a success");
	refuses("{" MINIMAL ",'response':{'errors':[{'outcome':'dead','status':[400],'reason':'a\x7f'}]}}", "printable");
	refuses("{" MINIMAL ",'refresh':{'response':{'errors':[{'outcome':'ok','status':[400]}]}}}", "a success");
	ok(load("{" MINIMAL ",'revocation':{'errors':[{'outcome':'ok','status':[400]}]}}", NULL, NULL) != NULL, "what is gone already is revoked");
	refuses("{" MINIMAL ",'response':{'success':{'pointer':'/ok'}}}", "\"equals\"");
	refuses("{" MINIMAL ",'response':{'capture':{'client_secret':'/x'}}}", "client_secret");
	refuses("{" MINIMAL ",'subject':'{client_id}'}", "client_id");
	refuses("{" MINIMAL ",'scopes':[{'name':'a','purpose':'b','class':'c'}]}", "none of the words");

	/* RFC 6749 sections 3.1 and 3.2: nothing twice */
	refuses("{" MINIMAL ",'authorization':{'params':{'state':'x'}}}", "state cannot be an extra parameter");
	refuses("{" MINIMAL ",'authorization':{'params':{'scope':'x'}}}", "scope cannot be an extra parameter");
	refuses("{" MINIMAL ",'authorization':{'params':{'client_id':'x'}}}", "client_id cannot be an extra parameter");
	refuses("{" MINIMAL ",'authorization':{'params':{'response_type':'token'}}}", "response_type");
	refuses("{" MINIMAL ",'authorization':{'params':{'code_challenge_method':'plain'}}}", "code_challenge_method");
	refuses("{" MINIMAL ",'authorization':{'with_scope':{'a':{'nonce':'x'}}}}", "nonce");
	refuses("{" MINIMAL ",'authorization':{'rename':{'client_id':'key'},'params':{'key':'x'}}}", "key");
	refuses("{" MINIMAL ",'authorization':{'rename':{'state':'x'}}}", "not part of the language");
	refuses("{" MINIMAL ",'token':{'params':{'grant_type':'password'}}}", "grant_type");
	refuses("{" MINIMAL ",'refresh':{'params':{'refresh_token':'x'}}}", "refresh_token");
	refuses("{" MINIMAL ",'token':{'params':{'client_id':'x'}}}", "client_id");
	refuses("{" MINIMAL ",'token':{'auth':'client_secret_post'},'refresh':{'params':{'client_secret':'x'}}}", "client_secret");
	refuses("{" MINIMAL ",'revocation':{'access_token':{'params':{'token':'x'}}}}", "token");
	ok(load("{" MINIMAL ",'token':{'auth':'none','params':{'client_id':'x'}}}", NULL, NULL) != NULL, "a client that is named otherwise");
	ok(load("{" MINIMAL ",'refresh':{'strategy':'exchange','params':{'grant_type':'x'}}}", NULL, NULL) != NULL,
	   "an exchange names its own grant");
	ok(load("{" MINIMAL ",'token':{'rename':{'grant_type':''},'params':{'grant_type':'x'}}}", NULL, NULL) != NULL,
	   "a dropped parameter's name is free");
}

static void
variables(void)
{
	static const char rules[] = "{" MINIMAL ",'variables':{"
		"'shop':{'pattern':'[a-z]+','source':['begin','callback']},"
		"'zone':{'pattern':'eu|us','default':'us'}},'token':{'url':'https://{shop}.{zone}.example/{shop}?z={zone}'}}";
	const OvProvider *p;
	OvValues	values = {0};
	char	   *url;

	refuses("{" MINIMAL ",'variables':{'a':{}}}", "\"pattern\"");
	refuses("{" MINIMAL ",'variables':{'a':{'pattern':'('}}}", "pattern");
	refuses("{" MINIMAL ",'variables':{'a b':{'pattern':'x'}}}", "cannot name a variable");
	refuses("{" MINIMAL ",'variables':{'client_id':{'pattern':'x'}}}", "cannot name a variable");
	refuses("{" MINIMAL ",'variables':{'refresh_token':{'pattern':'x'}}}", "cannot name a variable");
	refuses("{" MINIMAL ",'variables':{'token_type':{'pattern':'x'}}}", "cannot name a variable");
	refuses("{" MINIMAL ",'variables':{'a':{'pattern':'x','default':'y'}}}", "form");
	refuses("{" MINIMAL ",'variables':{'a':{'pattern':'x','source':['moon']}}}", "none of the words");
	refuses("{" MINIMAL ",'variables':{'a':{'pattern':'x'}},'response':{'capture':{'a':'/a'}}}", "source");
	refuses("{" MINIMAL ",'variables':{'a':{'pattern':'x'}},'callback':{'capture':{'a':{'param':'a'}}}}", "source");

	p = load(rules, NULL, "{'shop':'acme','unknown':'ignored'}");
	values.provider = p;
	ok(ov_template_url(arena, &values, ov_json_get_string(p->token, "url"), &url, &err) == OV_OK, "a URL");
	is_str(url, "https://acme.us.example/acme?z=us", "given and default values");
	p = load(rules, NULL, "{'shop':'acme','zone':'eu'}");
	values.provider = p;
	(void) ov_template_url(arena, &values, ov_json_get_string(p->token, "url"), &url, &err);
	is_str(url, "https://acme.eu.example/acme?z=eu", "a given value wins");
	p = load(rules, NULL, NULL);
	values.provider = p;
	is_int(ov_template_url(arena, &values, ov_json_get_string(p->token, "url"), &url, &err), OV_E_CONFIG, "a missing one is said");
	is_str(err.message, "variable \"shop\" has no value", "by name");

	is_int(try_load(rules, NULL, "{'shop':'a.evil'}", &p), OV_E_DENIED, "a value against its pattern");
	is_int(try_load(rules, NULL, "{'zone':'asia'}", &p), OV_E_DENIED, "another");
	ok(ov_variable(load("{" MINIMAL ",'variables':{'v':{'pattern':'.*','default':'x'}}}", NULL, "{'v':''}"), "v")->value == NULL,
	   "an empty value is none");
	is_int(try_load(rules, NULL, "{'shop':5}", &p), OV_E_CONFIG, "a value that is no string");
	is_int(try_load(rules, NULL, "[]", &p), OV_E_CONFIG, "variables that are no object");

	p = load(rules, NULL, NULL);
	is_int(ov_provider_begin_params(p, json("{'shop':'acme'}"), &err), OV_OK, "a person may give what the rules let a person give");
	is_int(ov_provider_begin_params(p, json("{'zone':'eu'}"), &err), OV_E_DENIED, "and not what is the administrator's");
	is_int(ov_provider_begin_params(p, json("{'nothing':'eu'}"), &err), OV_E_DENIED, "nor what is no variable");
	is_int(ov_provider_begin_params(p, json("{'shop':'A'}"), &err), OV_E_DENIED, "nor a malformed value");
	is_int(ov_provider_begin_params(p, json("{'shop':5}"), &err), OV_E_SYNTAX, "nor a number");
	is_int(ov_provider_begin_params(p, json("{'shop':'a','shop':'b'}"), &err), OV_E_SYNTAX, "nor one twice");
	is_int(ov_provider_begin_params(p, json("[]"), &err), OV_E_SYNTAX, "nor a list");
	is_int(ov_provider_begin_params(p, NULL, &err), OV_OK, "nothing is fine");
}

/* A pattern that lets everything through still cannot change the host. */
static void
injection(void)
{
	static const char *const evil[] = {
		"evil.example/", "evil.example/x", "evil.example?", "evil.example#", "a@evil.example", "user:pw@evil.example",
		"evil.example:8443", "evil.example\\x", "[::1]", "%2f", "a b", "evil.example/..", "a%00b", "a&b=c"
	};
	static const char rules[] = "{" MINIMAL ",'variables':{'v':{'pattern':'.*'}},'token':{'url':'%s'}}";
	const OvProvider *p;
	OvValues	values = {0};
	OvUrl		parsed;
	char		text[512];
	char	   *url;

	for (size_t i = 0; i < sizeof(evil) / sizeof(evil[0]); i++)
	{
		const char *variables = strchr(evil[i], '\\') != NULL ? "{'v':'evil.example\\\\x'}" :
			ov_arena_printf(arena, "{'v':'%s'}", evil[i]);

		snprintf(text, sizeof(text), rules, "https://{v}.as.example/token");
		p = load(text, NULL, variables);
		values.provider = p;
		ok(ov_template_url(arena, &values, ov_json_get_string(p->token, "url"), &url, &err) != OV_OK,
		   "not in a host: case %zu", i);
		snprintf(text, sizeof(text), rules, "https://as.example/{v}/token?a={v}");
		p = load(text, NULL, variables);
		values.provider = p;
		if (ov_template_url(arena, &values, ov_json_get_string(p->token, "url"), &url, &err) == OV_OK)
			ok(ov_url_parse(arena, url, &parsed, &err) == OV_OK && strcmp(parsed.host, "as.example") == 0 &&
			   parsed.port == 443 && parsed.fragment == NULL && strchr(parsed.query, '&') == NULL &&
			   strchr(strchr(parsed.path + 1, '/') + 1, '/') == NULL, "encoded in path and query: case %zu", i);
		else
			ok(false, "encoded in path and query: case %zu", i);
	}
	snprintf(text, sizeof(text), rules, "https://as.example/{v}/token");
	for (int i = 0; i < 2; i++)
	{
		p = load(text, NULL, i == 0 ? "{'v':'.'}" : "{'v':'..'}");
		values.provider = p;
		is_int(ov_template_url(arena, &values, ov_json_get_string(p->token, "url"), &url, &err), OV_E_DENIED, "no segment of dots");
	}
	snprintf(text, sizeof(text), rules, "{v}/token");
	p = load(text, NULL, "{'v':'https://as.example:8443/base/'}");
	values.provider = p;
	ok(ov_template_url(arena, &values, ov_json_get_string(p->token, "url"), &url, &err) == OV_OK, "a variable for the base");
	is_str(url, "https://as.example:8443/base/token", "with its path");
	for (int i = 0; i < 4; i++)
	{
		static const char *const bases[] = {
			"{'v':'http://as.example'}", "{'v':'https://as.example?x'}", "{'v':'https://u@as.example'}", "{'v':'javascript:alert(1)'}"
		};

		p = load(text, NULL, bases[i]);
		values.provider = p;
		ok(ov_template_url(arena, &values, ov_json_get_string(p->token, "url"), &url, &err) != OV_OK, "no base: %s", bases[i]);
	}
}

static void
overlays(void)
{
	static const char rules[] = "{" MINIMAL ",'variables':{'environment':{'pattern':'live|test','default':'live'},"
		"'h':{'pattern':'[a-z]+','default':'live'}},"
		"'overlays':{'environment':{'test':{'token':{'url':'https://{h}.test.example/token'},'variables':{'h':{'default':'t'}}}}},"
		"'token':{'url':'https://{h}.example/token','auth':'none'}}";
	const OvProvider *p = load(rules, NULL, NULL);

	is_str(ov_json_get_string(p->token, "url"), "https://{h}.example/token", "no overlay by default");
	p = load(rules, NULL, "{'environment':'test'}");
	is_str(ov_json_get_string(p->token, "url"), "https://{h}.test.example/token", "an overlay replaces");
	is_str(ov_json_get_string(p->token, "auth"), "none", "and leaves the rest");
	is_str(ov_variable(p, "h")->value, "t", "also a default");
	p = load(rules, NULL, "{'environment':'test','h':'x'}");
	is_str(ov_variable(p, "h")->value, "x", "which a given value beats");
	is_int(try_load(rules, NULL, "{'environment':'moon'}", &p), OV_E_DENIED, "an unknown environment");
	{
		OvStr		many;

		ov_str_init(&many, arena);
		ov_str_puts(&many, "{" MINIMAL ",'variables':{'n':{'pattern':'[0-9]+'}},'overlays':{'n':{");
		for (int i = 0; i < 33; i++)
			ov_str_printf(&many, "%s'%d':{}", i > 0 ? "," : "", i);
		ov_str_puts(&many, "}}}");
		is_int(try_load(many.data, NULL, NULL, &p), OV_E_LIMIT, "33 overlays");
	}
	refuses("{" MINIMAL ",'overlays':{'e':{'x':{}}}}", "not a variable");
	refuses("{" MINIMAL ",'variables':{'e':{'pattern':'x'}},'overlays':{'e':{'y':{}}}}", "form");
	refuses("{" MINIMAL ",'variables':{'e':{'pattern':'x'}},'overlays':{'e':{'x':{'bogus':1}}}}", "\"bogus\" is not part");
	refuses("{" MINIMAL ",'variables':{'e':{'pattern':'x'}},'overlays':{'e':{'x':5}}}", "is not an object");
}

/* RFC 7396 appendix A */
static void
merge_patch(void)
{
	static const struct
	{
		const char *target,
				   *patch,
				   *result;
	}			cases[] = {
		{"{'a':'b'}", "{'a':'c'}", "{'a':'c'}"},
		{"{'a':'b'}", "{'b':'c'}", "{'a':'b','b':'c'}"},
		{"{'a':'b'}", "{'a':null}", "{}"},
		{"{'a':'b','b':'c'}", "{'a':null}", "{'b':'c'}"},
		{"{'a':['b']}", "{'a':'c'}", "{'a':'c'}"},
		{"{'a':'c'}", "{'a':['b']}", "{'a':['b']}"},
		{"{'a':{'b':'c'}}", "{'a':{'b':'d','c':null}}", "{'a':{'b':'d'}}"},
		{"{'a':[{'b':'c'}]}", "{'a':[1]}", "{'a':[1]}"},
		{"['a','b']", "['c','d']", "['c','d']"},
		{"{'a':'b'}", "['c']", "['c']"},
		{"{'a':'foo'}", "null", "null"},
		{"{'a':'foo'}", "'bar'", "'bar'"},
		{"{'e':null}", "{'a':1}", "{'e':null,'a':1}"},
		{"[1,2]", "{'a':'b','c':null}", "{'a':'b'}"},
		{"{}", "{'a':{'bb':{'ccc':null}}}", "{'a':{'bb':{}}}"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		OvStr		s;

		ov_str_init(&s, arena);
		ov_json_write(&s, ov_json_merge_patch(arena, json(cases[i].target), json(cases[i].patch)));
		is_str(s.data, double_quotes(cases[i].result), "%s merged into %s", cases[i].patch, cases[i].target);
	}
}

static void
metadata(void)
{
	static const char server[] = "{'issuer':'https://as.example/t','authorization_endpoint':'https://as.example/a?x=1',"
		"'token_endpoint':'https://as.example/token','revocation_endpoint':'https://as.example/revoke'}";
	const OvProvider *p = load("{" MINIMAL "}", server, NULL);
	OvProvider const *q;

	is_str(ov_provider_issuer(p), "https://as.example/t", "the issuer of the metadata");
	ok(ov_provider_uses_pkce(p) && ov_provider_can_refresh(p) && ov_provider_can_revoke(p), "PKCE, refresh, revocation");
	p = load("{" MINIMAL "}", NULL, NULL);
	ok(ov_provider_issuer(p) == NULL && !ov_provider_can_revoke(p) && ov_provider_uses_pkce(p), "without metadata");
	p = load("{" MINIMAL ",'revocation':{'absent':'no'}}", server, NULL);
	ok(!ov_provider_can_revoke(p), "the rules' absence wins");

	ok(ov_provider_uses_pkce(load("{" MINIMAL "}", "{'code_challenge_methods_supported':['plain','S256']}", NULL)), "S256 among others");
	ok(!ov_provider_uses_pkce(load("{" MINIMAL "}", "{'code_challenge_methods_supported':['plain']}", NULL)), "never plain");
	ok(!ov_provider_uses_pkce(load("{" MINIMAL "}", "{'code_challenge_methods_supported':[]}", NULL)), "none offered, none sent");
	ok(ov_provider_uses_pkce(load("{" MINIMAL ",'pkce':'S256'}", "{'code_challenge_methods_supported':['plain']}", NULL)), "unless the rules say so");
	ok(!ov_provider_uses_pkce(load("{" MINIMAL ",'pkce':'none'}", NULL, NULL)), "or say no");
	is_int(try_load("{" MINIMAL ",'pkce':'required'}", "{'code_challenge_methods_supported':['plain']}", NULL, &q), OV_E_DENIED,
		   "required and not offered");
	ok(ov_provider_uses_pkce(load("{" MINIMAL ",'pkce':'required'}", NULL, NULL)), "required and nothing said");

	is_int(try_load("{" MINIMAL ",'issuer':'https://other.example'}", server, NULL, &q), OV_E_CONFIG, "metadata of another issuer");
	is_int(try_load("{" MINIMAL ",'issuer_pattern':'https://other.*'}", server, NULL, &q), OV_E_CONFIG, "or outside the pattern");
	is_str(ov_provider_issuer(load("{" MINIMAL ",'issuer_pattern':'https://as.*'}", server, NULL)), "https://as.example/t",
		   "metadata names the one of a pattern");
	is_int(try_load("{" MINIMAL "}", "{'token_endpoint':5}", NULL, &q), OV_E_CONFIG, "an endpoint that is no string");
	is_int(try_load("{" MINIMAL "}", "{'token_endpoint':'http://as.example/token'}", NULL, &q), OV_E_DENIED, "an endpoint without TLS");
	is_int(try_load("{" MINIMAL "}", "{'token_endpoint':'https://as.example/#f'}", NULL, &q), OV_E_SYNTAX, "an endpoint with a fragment");
	is_int(try_load("{" MINIMAL "}", "{'authorization_endpoint':'javascript:alert(1)'}", NULL, &q), OV_E_SYNTAX, "a script for the browser");
	is_int(try_load("{" MINIMAL "}", "{'code_challenge_methods_supported':'S256'}", NULL, &q), OV_E_CONFIG, "a list that is none");
	is_int(try_load("{" MINIMAL "}", "{'token_endpoint_auth_methods_supported':[5]}", NULL, &q), OV_E_CONFIG, "a list of numbers");
	is_int(try_load("{" MINIMAL "}", "{'issuer':'a','issuer':'b'}", NULL, &q), OV_E_CONFIG, "an issuer twice");
	ok(load("{" MINIMAL "}", "{'anything':{'else':[1,{'a':null}]},'token_endpoint':null}", NULL) != NULL, "unknown members are ignored");
}

static const char *
hosts_text(const OvProvider *p, unsigned char digest[32])
{
	const char *const *hosts;
	int			n;
	OvStr		s;

	if (ov_provider_hosts(arena, p, &hosts, &n, digest, &err) != OV_OK)
		return err.message;
	ov_str_init(&s, arena);
	for (int i = 0; i < n; i++)
		ov_str_printf(&s, "%s%s", i > 0 ? "\n" : "", hosts[i]);
	return s.data;
}

static void
hosts(void)
{
	static const char rules[] = "{" MINIMAL ",'variables':{'shop':{'pattern':'[a-zA-Z]+','source':['begin']}},"
		"'authorization':{'url':'https://browser.example/a'},"
		"'token':{'url':'https://{shop}.example/token/{client_id}'},'refresh':{'url':'https://z.example:8443/r'},"
		"'revocation':{'access_token':{'url':'https://a.example:443/r'},'refresh_token':{'url':'http://127.0.0.1:80/r'}},"
		"'api':{'hosts':['api.example','*.my.example','{shop}.api.example','a.example']}}";
	unsigned char digest[32],
				again[32],
				want[32];
	const char *lines;

	lines = hosts_text(load(rules, NULL, "{'shop':'Acme'}"), digest);
	is_str(lines, "*.my.example\n127.0.0.1:80\na.example\nacme.api.example\nacme.example\napi.example\nz.example:8443",
		   "every host a secret can go to, once, sorted");
	ov_sha256(lines, strlen(lines), want);
	ok(memcmp(digest, want, 32) == 0, "and the digest of these lines");
	is_str(hosts_text(load(rules, NULL, NULL), again),
		   "*.my.example\n127.0.0.1:80\na.example\napi.example\nz.example:8443\n{shop}.api.example\n{shop}.example",
		   "a host that is not known yet stands as its template");
	ok(memcmp(digest, again, 32) != 0, "with another digest");
	is_str(hosts_text(load("{" MINIMAL "}", "{'token_endpoint':'https://[2001:DB8::1]:9443/t',"
						   "'revocation_endpoint':'https://AS.example/r','authorization_endpoint':'https://b.example/'}", NULL), digest),
		   "[2001:db8::1]:9443\nas.example", "hosts of the metadata");
	is_str(hosts_text(load("{" MINIMAL ",'revocation':{'absent':'x'}}", "{'revocation_endpoint':'https://as.example/r'}", NULL), digest),
		   "", "not of an endpoint that the rules do without");
	/* a value that is an origin: what follows it up to the path belongs to the host */
	is_str(hosts_text(load("{" MINIMAL ",'variables':{'o':{'pattern':'https://as\\\\.example','source':['callback']}},"
						   "'token':{'url':'{o}/t'},'revocation':{'refresh_token':{'url':'{o}.attacker.example/r'}}}",
						   NULL, "{'o':'https://as.example'}"), digest),
		   "as.example\nas.example.attacker.example", "a name appended to an origin is another host");
	is_str(hosts_text(load("{" MINIMAL "}", NULL, NULL), digest), "", "none at all");
	ov_sha256("", 0, want);
	ok(memcmp(digest, want, 32) == 0, "and the digest of nothing");
	is_str(hosts_text(load("{" MINIMAL ",'api':{'base':'https://api.example/v1','hosts':['files.example']}}", NULL, NULL), digest),
		   "api.example\nfiles.example", "the API's base is one");
}

static void
issuers(void)
{
	const OvProvider *exact = load("{" MINIMAL ",'issuer':'https://as.example'}", NULL, NULL);
	const OvProvider *promised = load("{" MINIMAL "}",
									  "{'issuer':'https://as.example','authorization_response_iss_parameter_supported':true}", NULL);
	const OvProvider *form = load("{" MINIMAL ",'issuer_pattern':'https://as\\\\.example/[0-9a-f]{4}'}", NULL, NULL);
	const OvProvider *unknown = load("{" MINIMAL "}", NULL, NULL);
	static const char *const others[] = {
		"https://as.example/", "https://AS.example", "https://as.example:443", "http://as.example", "https://as.exampl%65",
		"https://as.example.evil", "", " https://as.example"
	};

	is_int(ov_check_iss(exact, "https://as.example", &err), OV_OK, "the issuer itself");
	is_int(ov_check_iss(exact, NULL, &err), OV_OK, "not sent, not promised");
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		is_int(ov_check_iss(exact, others[i], &err), OV_E_DENIED, "no normalisation: \"%s\"", others[i]);
	is_int(ov_check_iss(promised, "https://as.example", &err), OV_OK, "promised and sent");
	is_int(ov_check_iss(promised, NULL, &err), OV_E_DENIED, "promised and missing (RFC 9207 section 2.4)");
	is_int(ov_check_iss(load("{" MINIMAL ",'iss_required':true}", NULL, NULL), NULL, &err), OV_E_DENIED, "or required by the rules");
	is_int(ov_check_iss(form, "https://as.example/0af1", &err), OV_OK, "one of many issuers");
	is_int(ov_check_iss(form, "https://as.example/zzzz", &err), OV_E_DENIED, "none of them");
	is_int(ov_check_iss(unknown, "https://anything.example", &err), OV_OK, "nothing to compare with");
}

static OvCode
capture(const OvProvider *p, const char *secret, const char *query, char **captured)
{
	OvParam    *params;
	OvClient	client = {"id", secret};

	memset(&err, 0, sizeof(err));
	if (ov_form_parse(arena, query, strlen(query), &params, &err) != OV_OK)
		exit(1);
	return ov_callback_capture(arena, p, &client, params, captured, &err);
}

static void
callback(void)
{
	static const char rules[] = "{" MINIMAL ",'variables':{'realm':{'pattern':'[0-9]+','source':['callback']},"
		"'shop':{'pattern':'[a-z]+','source':['begin','callback']}},"
		"'callback':{'capture':{'realm':{'param':'realmId','required':true},'shop':{'param':'shop'},'note':{'param':'n'}}}}";
	const OvProvider *p = load(rules, NULL, "{'shop':'acme'}");
	const OvProvider *q;
	OvParam    *params;
	char	   *captured;

	ok(capture(p, NULL, "code=c&state=s&realmId=123&n=a%22b&x=y", &captured) == OV_OK, "a callback");
	is_str(captured, "{\"realm\":\"123\",\"note\":\"a\\\"b\"}", "gives what the rules keep");
	ok(capture(p, NULL, "realmId=1&shop=acme", &captured) == OV_OK, "the shop of the beginning");
	is_str(captured, "{\"realm\":\"1\",\"shop\":\"acme\"}", "is kept");
	is_int(capture(p, NULL, "realmId=1&shop=other", &captured), OV_E_DENIED, "another shop is not");
	ok(captured == NULL, "and leaves nothing");
	is_int(capture(p, NULL, "code=c", &captured), OV_E_SYNTAX, "a required one is missing");
	is_int(capture(p, NULL, "realmId=", &captured), OV_E_SYNTAX, "or empty");
	is_int(capture(p, NULL, "realmId=1&realmId=1", &captured), OV_E_SYNTAX, "or there twice");
	is_int(capture(p, NULL, "realmId=1x", &captured), OV_E_DENIED, "or malformed");
	is_int(capture(p, NULL, ov_arena_printf(arena, "realmId=1&n=%0300d", 1), &captured), OV_E_LIMIT, "or too long");
	ok(capture(load("{" MINIMAL "}", NULL, NULL), NULL, "a=b", &captured) == OV_OK, "nothing to keep");
	is_str(captured, "{}", "is an empty object");

	(void) ov_form_parse(arena, T("code=abc%23_&auth_code=zzz"), &params, &err);
	is_str(ov_callback_code(arena, p, params), "abc#_", "the code");
	q = load("{" MINIMAL ",'callback':{'code':'auth_code'}}", NULL, NULL);
	is_str(ov_callback_code(arena, q, params), "zzz", "the code under another name");
	q = load("{" MINIMAL ",'callback':{'code_strip':'#_'}}", NULL, NULL);
	is_str(ov_callback_code(arena, q, params), "abc", "the code without an ending");
	q = load("{" MINIMAL ",'callback':{'code':'nothing'}}", NULL, NULL);
	is_str(ov_callback_code(arena, q, params), "abc#_", "or under its usual name, from whoever took the callback apart");
	(void) ov_form_parse(arena, T("state=s"), &params, &err);
	ok(ov_callback_code(arena, q, params) == NULL, "no code");
}

/* The vector of the provider's documentation: its secret, its parameters, its hmac */
static void
signed_callback(void)
{
	static const char rules[] = "{" MINIMAL ",'callback':{'signature':'sorted_query_hmac'}}";
	static const char query[] = "code=0907a61c0c8d55e99db179b68161bc00&shop=some-shop.myshopify.com&state=0.6784241404160823"
		"&timestamp=1337178173";
	static const char hmac[] = "700e2dadb827fcc8609e9d5ce208b2e9cdaab9df07390d2cbca10d7c328fc4bf";
	const OvProvider *p = load(rules, NULL, NULL);
	char	   *captured;
	unsigned char mac[32];

	is_int(capture(p, "hush", ov_arena_printf(arena, "hmac=%s&%s", hmac, query), &captured), OV_OK, "a signed callback");
	is_int(capture(p, "hush", ov_arena_printf(arena,
		"timestamp=1337178173&state=0.6784241404160823&hmac=%s&shop=some-shop.myshopify.com&code=0907a61c0c8d55e99db179b68161bc00", hmac),
		&captured), OV_OK, "in any order");
	is_int(capture(p, "hushh", ov_arena_printf(arena, "hmac=%s&%s", hmac, query), &captured), OV_E_AUTH, "under another secret");
	is_int(capture(p, "hush", ov_arena_printf(arena, "hmac=%s&%s&x=y", hmac, query), &captured), OV_E_AUTH, "with more than was signed");
	is_int(capture(p, "hush", ov_arena_printf(arena, "hmac=%s&%s", "700e2dad", query), &captured), OV_E_AUTH, "a short signature");
	is_int(capture(p, "hush", ov_arena_printf(arena, "hmac=%.63s0&%s", hmac, query), &captured), OV_E_AUTH, "a signature that ends otherwise");
	is_int(capture(p, "hush", query, &captured), OV_E_AUTH, "no signature");
	is_int(capture(p, "hush", ov_arena_printf(arena, "hmac=%s&hmac=%s&%s", hmac, hmac, query), &captured), OV_E_AUTH, "two signatures");
	is_int(capture(p, NULL, ov_arena_printf(arena, "hmac=%s&%s", hmac, query), &captured), OV_E_AUTH, "no secret");
	ov_hmac_sha256("hush", 4, T("host=a%3D%3D&shop=a+b%26c"), mac);
	is_int(capture(p, "hush", ov_arena_printf(arena, "shop=a%%20b%%26c&host=a%%3D%%3D&hmac=%s", ov_hex(arena, mac, 32)), &captured),
		   OV_OK, "values are form-encoded again");
}

static void
retries(void)
{
	ok(!ov_provider_retry_in_doubt(load("{" MINIMAL "}", NULL, NULL)), "an unknown rotation: no second try");
	ok(!ov_provider_retry_in_doubt(load("{" MINIMAL ",'refresh':{'rotates':'always'}}", NULL, NULL)), "a certain one: none");
	ok(ov_provider_retry_in_doubt(load("{" MINIMAL ",'refresh':{'rotates':'never'}}", NULL, NULL)), "no rotation: a second try");
	ok(ov_provider_retry_in_doubt(load("{" MINIMAL ",'refresh':{'rotates':'always','grace':30}}", NULL, NULL)), "a grace: a second try");
	ok(!ov_provider_retry_in_doubt(load("{" MINIMAL ",'refresh':{'rotates':'never','retry_in_doubt':false}}", NULL, NULL)),
	   "the rules' word is the last");
	ok(!ov_provider_can_refresh(load("{" MINIMAL ",'refresh':{'strategy':'none'}}", NULL, NULL)), "no refresh");
}

static void
credential(void)
{
	static const char moving[] = "{" MINIMAL ",'variables':{'base':{'pattern':'https?://[a-z0-9.:-]+','source':['response']}},"
		"'api':{'base':'{base}','hosts':['*.my.example','one.example:8443']}}";
	char	   *out;

	ok(ov_api_credential(arena, load("{" MINIMAL "}", NULL, NULL), "id", "tok", NULL, &out, &err) == OV_OK, "a credential");
	is_str(out, "{\"header_name\":\"Authorization\",\"header_value\":\"Bearer tok\",\"api_base\":null,\"headers\":{}}", "as RFC 6750 has it");
	ok(ov_api_credential(arena, load("{" MINIMAL ",'variables':{'v':{'pattern':'.*'}},'api':{'base':'https://api.example/{v}',"
									 "'header':{'name':'X-Token','value':'Token {access_token}'},'headers':{'X-V':'{v}','X-W':'w'}}}",
									 NULL, "{'v':'a/b'}"), "id", "t\"k", "Bearer", &out, &err) == OV_OK, "another");
	is_str(out, "{\"header_name\":\"X-Token\",\"header_value\":\"Token t\\\"k\",\"api_base\":\"https://api.example/a%2Fb\","
		   "\"headers\":{\"X-V\":\"a/b\",\"X-W\":\"w\"}}", "as the rules have it");
	is_int(ov_api_credential(arena, load("{" MINIMAL "}", NULL, NULL), "id", "a\r\nX: y", "Bearer", &out, &err), OV_E_DENIED, "a token with a line break");
	is_int(ov_api_credential(arena, load("{" MINIMAL "}", NULL, NULL), "id", "\xc3\xa9", "Bearer", &out, &err), OV_E_DENIED, "or outside ASCII");

	ok(ov_api_credential(arena, load(moving, NULL, NULL), "id", "t", NULL, &out, &err) == OV_OK && strstr(out, "\"api_base\":null") != NULL,
	   "a base that did not come");
	ok(ov_api_credential(arena, load(moving, NULL, "{'base':'https://x.my.example'}"), "id", "t", NULL, &out, &err) == OV_OK, "below a listed domain");
	ok(ov_api_credential(arena, load(moving, NULL, "{'base':'https://one.example:8443'}"), "id", "t", NULL, &out, &err) == OV_OK, "a listed host");
	for (int i = 0; i < 6; i++)
	{
		static const char *const bases[] = {
			"{'base':'https://evil.example'}", "{'base':'https://my.example'}", "{'base':'https://evilmy.example'}",
			"{'base':'https://one.example'}", "{'base':'https://x.my.example:8443'}", "{'base':'http://x.my.example'}"
		};

		is_int(ov_api_credential(arena, load(moving, NULL, bases[i]), "id", "t", NULL, &out, &err), OV_E_DENIED, "not to %s", bases[i]);
	}
	for (int i = 0; i < 3; i++)
	{
		static const char *const wild[] = {"*", "*.", "*example"};

		is_int(ov_api_credential(arena, load(ov_arena_printf(arena, "{" MINIMAL ",'variables':{'base':{'pattern':'.*','source':['response']}},"
															 "'api':{'base':'{base}','hosts':['%s']}}", wild[i]), NULL, "{'base':'https://evil.example'}"),
								 "id", "t", NULL, &out, &err), OV_E_DENIED, "%s is no domain", wild[i]);
	}
}

/* The documents that providers/README.md shows */
static void
examples(void)
{
	FILE	   *f = fopen(ov_arena_printf(arena, "%s/providers/README.md", getenv("OV_TREE")), "r");
	char	   *text = ov_arena_alloc(arena, 65536);
	char	   *block = text;
	int			n = 0;

	if (f == NULL || fread(text, 1, 65535, f) == 0)
		exit(1);
	fclose(f);
	while ((block = strstr(block, "```json\n")) != NULL)
	{
		const OvJson *rules;
		const OvProvider *p;
		size_t		len;

		block += strlen("```json\n");
		len = (size_t) (strstr(block, "\n```") - block);
		memset(&err, 0, sizeof(err));
		ok(ov_json_parse(arena, block, len, &rules, &err) == OV_OK &&
		   ov_provider_load(arena, ov_json_merge_patch(arena, json("{" MINIMAL "}"), rules), NULL, NULL, &p, &err) == OV_OK,
		   "example %d is in the language", ++n);
		if (err.code != OV_OK)
			diag("%s", err.message);
	}
	ok(n >= 4, "there are examples");
}

int
main(void)
{
	arena = ov_arena_new();
	language();
	variables();
	injection();
	overlays();
	merge_patch();
	metadata();
	hosts();
	issuers();
	callback();
	signed_callback();
	retries();
	credential();
	examples();
	ov_arena_free(arena);
	return done_testing();
}
