/*
 * test_provider_catalogue.c
 *	  Eight files of providers/, request by request and answer by answer, as the
 *	  provider's documentation has them.
 */
#include "core/provider_internal.h"
#include "provider_fixture.h"

#define CHALLENGE "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
#define VERIFIER "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
#define REDIRECT "https://app.example/cb"
#define ENCODED "https%3A%2F%2Fapp.example%2Fcb"
#define PKCE "&code_challenge=" CHALLENGE "&code_challenge_method=S256"
#define BASIC "Authorization: Basic aWQ6c2VjcmV0\n"	/* id:secret */
#define ACCEPT "Accept: application/json\n"
#define FORM "Content-Type: application/x-www-form-urlencoded\n\n"
#define AS_JSON "Content-Type: application/json\n\n"
#define CODE_FORM "grant_type=authorization_code&code=c&redirect_uri=" ENCODED
#define REFRESH_FORM "grant_type=refresh_token&refresh_token=r"
#define POSTED "&client_id=id&client_secret=secret"
#define NOW INT64_C(1800000000)

static const OvClient client = {"id", "secret"};
static OvTokens out;

static const char *
authorize(const OvProvider *p, const char *scope1, const char *scope2, const char *login_hint)
{
	const char *scopes[2] = {scope1, scope2};
	OvBegin		b = {
		.client_id = "id", .redirect_uri = REDIRECT, .state = "st", .code_challenge = CHALLENGE,
		.login_hint = login_hint, .scopes = scopes, .nscopes = scope2 != NULL ? 2 : scope1 != NULL ? 1 : 0
	};
	char	   *url;

	memset(&err, 0, sizeof(err));
	return ov_authorization_url(arena, p, &b, &url, &err) == OV_OK ? url : err.message;
}

static const char *
exchange(const OvProvider *p)
{
	OvHttpRequest req;

	return ov_code_request(arena, p, &client, "c", REDIRECT, ov_provider_uses_pkce(p) ? VERIFIER : NULL, &req, &err) == OV_OK ?
		request_text(&req) : err.message;
}

static const char *
refresh(const OvProvider *p)
{
	OvHttpRequest req;

	return ov_refresh_request(arena, p, &client, "r", "a", &req, &err) == OV_OK ? request_text(&req) : err.message;
}

static const char *
revoke(const OvProvider *p, const char *kind)
{
	OvHttpRequest req;

	return ov_revoke_request(arena, p, &client, kind, "tok", &req, &err) == OV_OK ? request_text(&req) : "none";
}

static OvOutcome
answer(const OvProvider *p, bool is_refresh, int status, const char *body)
{
	OvHttpResponse resp = {.status = status, .sent = true, .content_type = "application/json", .body = double_quotes(body), .body_len = strlen(body)};

	ov_token_response(arena, p, &resp, is_refresh, NOW, &out);
	return out.outcome;
}

static OvOutcome
revoked(const OvProvider *p, int status, const char *body)
{
	OvHttpResponse resp = {.status = status, .sent = true, .content_type = "application/json", .body = double_quotes(body), .body_len = strlen(body)};

	ov_revoke_response(arena, p, &resp, &out);
	return out.outcome;
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

static const char *
hosts(const OvProvider *p)
{
	const char *const *list;
	unsigned char digest[32];
	int			n;
	OvStr		s;

	if (ov_provider_hosts(arena, p, &list, &n, digest, &err) != OV_OK)
		return err.message;
	ov_str_init(&s, arena);
	for (int i = 0; i < n; i++)
		ov_str_printf(&s, "%s%s", i > 0 ? " " : "", list[i]);
	return s.data;
}

static const char *
credential(const OvProvider *p)
{
	char	   *text;

	return ov_api_credential(arena, p, "id", "a", "Bearer", &text, &err) == OV_OK ? text : err.message;
}

static void
oidc(void)
{
	static const char server[] = "{'issuer':'https://as.example/','authorization_endpoint':'https://as.example/authorize',"
		"'token_endpoint':'https://as.example/token/','revocation_endpoint':'https://as.example/revoke',"
		"'token_endpoint_auth_methods_supported':['client_secret_basic','client_secret_post'],"
		"'code_challenge_methods_supported':['S256'],'authorization_response_iss_parameter_supported':true}";
	const OvProvider *p = load_catalogue("oidc", server, NULL);

	is_str(authorize(p, "openid", "offline_access", "ada@example.org"), "https://as.example/authorize?response_type=code&client_id=id"
		   "&redirect_uri=" ENCODED "&scope=openid+offline_access&state=st" PKCE "&login_hint=ada%40example.org&prompt=consent",
		   "oidc: authorization, with consent for offline_access (OpenID Connect Core section 11)");
	ok(strstr(authorize(p, "openid", NULL, NULL), "prompt") == NULL, "oidc: and not without it");
	is_str(exchange(p), "POST https://as.example/token/\n" BASIC ACCEPT FORM CODE_FORM "&code_verifier=" VERIFIER, "oidc: code exchange");
	is_str(refresh(p), "POST https://as.example/token/\n" BASIC ACCEPT FORM REFRESH_FORM, "oidc: refresh");
	is_str(revoke(p, "refresh_token"), "POST https://as.example/revoke\n" BASIC ACCEPT FORM "token=tok&token_type_hint=refresh_token", "oidc: revocation");
	is_str(revoke(p, "access_token"), "POST https://as.example/revoke\n" BASIC ACCEPT FORM "token=tok&token_type_hint=access_token", "oidc: of the access token");
	is_str(hosts(p), "as.example", "oidc: hosts");
	is_str(ov_provider_issuer(p), "https://as.example/", "oidc: issuer");
	ok(ov_check_iss(p, NULL, &err) == OV_E_DENIED && ov_check_iss(p, "https://as.example/", &err) == OV_OK, "oidc: iss is required where it is promised");
	ok(ov_provider_retry_in_doubt(p), "oidc: one more try in doubt");
	p = load_catalogue("oidc", NULL, NULL);
	is_str(hosts(p), "", "oidc: no hosts of its own");
	is_str(authorize(p, "openid", NULL, NULL), "the provider has no authorization endpoint", "oidc: nothing without metadata");
}

static void
google(void)
{
	const OvProvider *p = load_catalogue("google", NULL, NULL);

	is_str(authorize(p, "openid", "https://www.googleapis.com/auth/calendar.readonly", "ada@example.org"),
		   "https://accounts.google.com/o/oauth2/v2/auth?response_type=code&client_id=id&redirect_uri=" ENCODED
		   "&scope=openid+https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcalendar.readonly&state=st" PKCE
		   "&login_hint=ada%40example.org&access_type=offline&prompt=consent", "google: authorization");
	is_str(exchange(p), "POST https://oauth2.googleapis.com/token\n" ACCEPT FORM CODE_FORM "&code_verifier=" VERIFIER POSTED, "google: code exchange");
	is_str(refresh(p), "POST https://oauth2.googleapis.com/token\n" ACCEPT FORM REFRESH_FORM POSTED, "google: refresh");
	is_str(revoke(p, "refresh_token"), "POST https://oauth2.googleapis.com/revoke\n" ACCEPT FORM "token=tok", "google: revocation");
	is_str(revoke(p, "access_token"), "POST https://oauth2.googleapis.com/revoke\n" ACCEPT FORM "token=tok", "google: of the access token");
	is_int(answer(p, false, 200, "{'access_token':'ya29.x','expires_in':3599,'refresh_token':'1//x','token_type':'Bearer',"
				  "'scope':'openid https://www.googleapis.com/auth/userinfo.email','id_token':'a.b.c','refresh_token_expires_in':604799}"),
		   OV_OUT_OK, "google: tokens");
	is_str(scopes(), "openid https://www.googleapis.com/auth/userinfo.email email", "google: scopes, also by their short names");
	is_int(out.refresh_expires_at, NOW + 604799, "google: a grant for a time");
	is_int(answer(p, true, 200, "{'access_token':'ya29.y','expires_in':3599,'token_type':'Bearer','scope':'openid'}"), OV_OUT_OK, "google: refreshed");
	ok(out.refresh_token == NULL && out.refresh_expires_at == 0, "google: without a new refresh token");
	is_int(answer(p, true, 400, "{'error':'invalid_grant','error_description':'Token has been expired or revoked.'}"), OV_OUT_DEAD, "google: dead");
	is_int(answer(p, true, 400, "{'error':'invalid_grant','error_subtype':'invalid_rapt'}"), OV_OUT_DEAD, "google: dead by a policy");
	is_int(answer(p, true, 400, "{'error':'admin_policy_enforced'}"), OV_OUT_DENIED, "google: not allowed");
	is_int(revoked(p, 200, "{}"), OV_OUT_OK, "google: revoked");
	is_int(revoked(p, 400, "{'error':'invalid_token'}"), OV_OUT_OK, "google: revoked already");
	is_int(revoked(p, 503, "{}"), OV_OUT_TRANSIENT, "google: not yet");
	ok(ov_provider_retry_in_doubt(p), "google: a refresh token never changes");
	is_str(ov_provider_issuer(p), "https://accounts.google.com", "google: issuer");
	ok(strncmp(hosts(p), "analyticsdata.googleapis.com gmail.googleapis.com oauth2.googleapis.com ", 70) == 0, "google: hosts");
	is_str(credential(p), "{\"header_name\":\"Authorization\",\"header_value\":\"Bearer a\",\"api_base\":null,\"headers\":{}}", "google: API");
}

static void
microsoft(void)
{
	const OvProvider *p = load_catalogue("microsoft", NULL, NULL);
	static const char guid[] = "9188040d-6c67-4c5b-b112-36a304b66dad";
	const OvProvider *q;

	is_str(authorize(p, "User.Read", "offline_access", NULL),
		   "https://login.microsoftonline.com/common/oauth2/v2.0/authorize?response_type=code&client_id=id&redirect_uri=" ENCODED
		   "&scope=User.Read+offline_access&state=st" PKCE "&response_mode=query", "microsoft: authorization");
	is_str(exchange(p), "POST https://login.microsoftonline.com/common/oauth2/v2.0/token\n" ACCEPT FORM CODE_FORM "&code_verifier=" VERIFIER POSTED,
		   "microsoft: code exchange");
	p = load_catalogue("microsoft", NULL, ov_arena_printf(arena, "{'tenant':'%s'}", guid));
	is_str(refresh(p), ov_arena_printf(arena, "POST https://login.microsoftonline.com/%s/oauth2/v2.0/token\n" ACCEPT FORM REFRESH_FORM POSTED, guid),
		   "microsoft: refresh in a tenant");
	is_str(revoke(p, "refresh_token"), "none", "microsoft: no revocation");
	ok(!ov_provider_can_revoke(p) && ov_provider_retry_in_doubt(p), "microsoft: which it says; a used refresh token stays good");
	is_int(answer(p, false, 200, "{'token_type':'Bearer','scope':'profile openid https://graph.microsoft.com/User.Read','expires_in':4263,"
				  "'ext_expires_in':4263,'access_token':'eyJ.x','refresh_token':'0.AX','id_token':'a.b.c'}"), OV_OUT_OK, "microsoft: tokens");
	is_str(scopes(), "profile openid https://graph.microsoft.com/User.Read User.Read offline_access", "microsoft: scopes");
	is_int(out.refresh_expires_at, NOW + 7776000, "microsoft: 90 days");
	is_int(answer(p, true, 400, "{'error':'invalid_grant','error_codes':[50173],'suberror':'bad_token'}"), OV_OUT_DEAD, "microsoft: dead");
	is_int(answer(p, true, 400, "{'error':'interaction_required','error_codes':[50076]}"), OV_OUT_DEAD, "microsoft: a person has to sign in");
	is_int(answer(p, true, 401, "{'error':'invalid_client','error_codes':[7000222]}"), OV_OUT_MISCONFIGURED, "microsoft: an expired secret");
	is_int(answer(p, true, 400, "{'error':'temporarily_unavailable'}"), OV_OUT_TRANSIENT, "microsoft: later");
	ok(ov_provider_issuer(p) == NULL && ov_check_iss(p, "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", &err) == OV_OK &&
	   ov_check_iss(p, "https://login.microsoftonline.com/common/v2.0", &err) == OV_E_DENIED &&
	   ov_check_iss(p, "https://login.microsoftonline.us/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", &err) == OV_E_DENIED, "microsoft: an issuer per tenant");
	is_str(hosts(p), "graph.microsoft.com login.microsoftonline.com outlook.office.com", "microsoft: hosts");
	q = load_catalogue("microsoft", NULL, "{'environment':'us_gov','tenant':'contoso.onmicrosoft.us'}");
	is_str(hosts(q), "dod-graph.microsoft.us graph.microsoft.us login.microsoftonline.us", "microsoft: another cloud");
	ok(strncmp(refresh(q), "POST https://login.microsoftonline.us/contoso.onmicrosoft.us/oauth2/v2.0/token\n", 78) == 0, "microsoft: with its endpoint");
	is_str(hosts(load_catalogue("microsoft", NULL, "{'environment':'china'}")), "login.partner.microsoftonline.cn microsoftgraph.chinacloudapi.cn",
		   "microsoft: and a third");
	is_int(ov_provider_load(arena, catalogue("microsoft", NULL), NULL, json("{'tenant':'a/b'}"), &q, &err), OV_E_DENIED, "microsoft: no tenant with a slash");
	is_int(ov_provider_begin_params(p, json("{'tenant':'common'}"), &err), OV_E_DENIED, "microsoft: the tenant is the administrator's");
}

static void
intuit_quickbooks(void)
{
	const OvProvider *p = load_catalogue("intuit_quickbooks", NULL, NULL);
	OvParam    *params;
	char	   *captured;

	is_str(authorize(p, "com.intuit.quickbooks.accounting", NULL, "ada"),
		   "https://appcenter.intuit.com/connect/oauth2?response_type=code&client_id=id&redirect_uri=" ENCODED
		   "&scope=com.intuit.quickbooks.accounting&state=st" PKCE, "intuit_quickbooks: authorization");
	ok(ov_form_parse(arena, T("code=AB11&state=st&realmId=4620816365178132610"), &params, &err) == OV_OK &&
	   ov_callback_capture(arena, p, &client, params, &captured, &err) == OV_OK, "intuit_quickbooks: callback");
	is_str(captured, "{\"realmId\":\"4620816365178132610\"}", "intuit_quickbooks: names the company");
	ok(ov_form_parse(arena, T("code=AB11&state=st"), &params, &err) == OV_OK &&
	   ov_callback_capture(arena, p, &client, params, &captured, &err) == OV_E_SYNTAX, "intuit_quickbooks: and must");
	is_str(exchange(p), "POST https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer\n" BASIC
		   "x-include-refresh-token-hard-expires-in: true\n" ACCEPT FORM CODE_FORM "&code_verifier=" VERIFIER, "intuit_quickbooks: code exchange");
	is_str(refresh(p), "POST https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer\n" BASIC
		   "x-include-refresh-token-hard-expires-in: true\n" ACCEPT FORM REFRESH_FORM, "intuit_quickbooks: refresh");
	is_str(revoke(p, "refresh_token"), "POST https://developer.api.intuit.com/v2/oauth2/tokens/revoke\n" BASIC ACCEPT AS_JSON "{\"token\":\"tok\"}",
		   "intuit_quickbooks: revocation");
	is_str(revoke(p, "access_token"), "none", "intuit_quickbooks: which ends the access token too");
	p = load_catalogue("intuit_quickbooks", NULL, captured != NULL ? captured : "{'realmId':'4620816365178132610'}");
	is_int(answer(p, false, 200, "{'token_type':'bearer','expires_in':3600,'refresh_token':'AB117','x_refresh_token_expires_in':8726400,"
				  "'access_token':'eyJ.x','x_refresh_token_hard_expires_in':157680000}"), OV_OUT_OK, "intuit_quickbooks: tokens");
	ok(out.scopes == NULL && out.expires_at == NOW + 3600 && out.refresh_expires_at == NOW + 8726400, "intuit_quickbooks: expiries; no scopes");
	is_str(out.subject, "4620816365178132610", "intuit_quickbooks: the company is who this is");
	is_str(out.captured, "{\"refresh_token_hard_expires_in\":\"157680000\"}", "intuit_quickbooks: the absolute end is kept");
	is_int(answer(p, true, 400, "{'error':'invalid_grant','error_description':'Incorrect or invalid refresh token'}"), OV_OUT_DEAD, "intuit_quickbooks: dead");
	is_int(answer(p, true, 401, "{'error':'invalid_client'}"), OV_OUT_MISCONFIGURED, "intuit_quickbooks: wrong keys");
	is_int(revoked(p, 200, ""), OV_OUT_OK, "intuit_quickbooks: revoked");
	is_str(hosts(p), "accounts.platform.intuit.com developer.api.intuit.com oauth.platform.intuit.com quickbooks.api.intuit.com", "intuit_quickbooks: hosts");
	is_str(credential(p), "{\"header_name\":\"Authorization\",\"header_value\":\"Bearer a\","
		   "\"api_base\":\"https://quickbooks.api.intuit.com/v3/company/4620816365178132610\",\"headers\":{}}", "intuit_quickbooks: API");
	p = load_catalogue("intuit_quickbooks", NULL, "{'environment':'sandbox','realmId':'1'}");
	is_str(credential(p), "{\"header_name\":\"Authorization\",\"header_value\":\"Bearer a\","
		   "\"api_base\":\"https://sandbox-quickbooks.api.intuit.com/v3/company/1\",\"headers\":{}}", "intuit_quickbooks: the sandbox");
}

static void
shopify(void)
{
	static const char signed_query[] = "code=0907a61c0c8d55e99db179b68161bc00&shop=some-shop.myshopify.com&state=0.6784241404160823"
		"&timestamp=1337178173&hmac=700e2dadb827fcc8609e9d5ce208b2e9cdaab9df07390d2cbca10d7c328fc4bf";
	const OvProvider *p = load_catalogue("shopify", NULL, "{'shop':'some-shop.myshopify.com'}");
	const OvClient hush = {"id", "hush"};
	const OvProvider *q;
	OvParam    *params;
	char	   *captured;

	is_str(authorize(p, "read_products", "write_orders", "ada"),
		   "https://some-shop.myshopify.com/admin/oauth/authorize?client_id=id&redirect_uri=" ENCODED
		   "&scope=read_products%2Cwrite_orders&state=st" PKCE, "shopify: authorization");
	if (ov_form_parse(arena, T(signed_query), &params, &err) != OV_OK)
		exit(1);
	is_int(ov_callback_capture(arena, p, &hush, params, &captured, &err), OV_OK, "shopify: a signed callback");
	is_str(captured, "{\"shop\":\"some-shop.myshopify.com\"}", "shopify: names the shop");
	is_int(ov_callback_capture(arena, p, &client, params, &captured, &err), OV_E_AUTH, "shopify: signed with another secret");
	q = load_catalogue("shopify", NULL, "{'shop':'other.myshopify.com'}");
	is_int(ov_callback_capture(arena, q, &hush, params, &captured, &err), OV_E_DENIED, "shopify: of another shop");
	is_str(exchange(p), "POST https://some-shop.myshopify.com/admin/oauth/access_token\n" ACCEPT AS_JSON
		   "{\"code\":\"c\",\"code_verifier\":\"" VERIFIER "\",\"client_id\":\"id\",\"client_secret\":\"secret\",\"expiring\":\"1\"}", "shopify: code exchange");
	is_str(refresh(p), "POST https://some-shop.myshopify.com/admin/oauth/access_token\n" ACCEPT AS_JSON
		   "{\"grant_type\":\"refresh_token\",\"refresh_token\":\"r\",\"client_id\":\"id\",\"client_secret\":\"secret\"}", "shopify: refresh");
	is_str(revoke(p, "access_token"), "DELETE https://some-shop.myshopify.com/admin/api_permissions/current.json\nX-Shopify-Access-Token: tok\n" ACCEPT,
		   "shopify: revocation");
	is_str(revoke(p, "refresh_token"), "none", "shopify: by the access token alone");
	is_int(answer(p, false, 200, "{'access_token':'shpat_x','scope':'read_products,write_orders','expires_in':3600,'refresh_token':'shprt_x',"
				  "'refresh_token_expires_in':7776000}"), OV_OUT_OK, "shopify: tokens without a type");
	is_str(scopes(), "read_products write_orders read_orders", "shopify: write includes read");
	ok(out.expires_at == NOW + 3600 && out.refresh_expires_at == NOW + 7776000, "shopify: expiries");
	is_str(out.subject, "some-shop.myshopify.com", "shopify: the shop is who this is");
	is_int(answer(p, true, 400, "{'error':'invalid_grant'}"), OV_OUT_DEAD, "shopify: dead");
	is_int(answer(p, true, 423, "{'errors':'locked'}"), OV_OUT_TRANSIENT, "shopify: a locked shop");
	is_int(answer(p, true, 401, "{'error':'invalid_client'}"), OV_OUT_MISCONFIGURED, "shopify: a wrong secret");
	is_int(answer(p, true, 401, "{'errors':'unknown'}"), OV_OUT_MALFORMED, "shopify: one shop's 401 does not stop the others");
	is_int(revoked(p, 200, "{}"), OV_OUT_OK, "shopify: revoked");
	is_int(revoked(p, 401, "{'errors':'[API] Invalid API key or access token'}"), OV_OUT_OK, "shopify: not installed any more");
	is_str(hosts(p), "some-shop.myshopify.com", "shopify: one host");
	is_str(hosts(load_catalogue("shopify", NULL, NULL)), "{shop}", "shopify: not known yet");
	is_str(credential(p), "{\"header_name\":\"X-Shopify-Access-Token\",\"header_value\":\"a\",\"api_base\":\"https://some-shop.myshopify.com/admin/api\","
		   "\"headers\":{}}", "shopify: API");
	is_int(ov_provider_begin_params(p, json("{'shop':'x.myshopify.com'}"), &err), OV_OK, "shopify: a person names the shop");
	for (int i = 0; i < 6; i++)
	{
		static const char *const evil[] = {
			"evil.example", "x.myshopify.com.evil.example", "x.myshopify.com/", "evil.example/x.myshopify.com", "-x.myshopify.com", "X.myshopify.com"
		};

		is_int(ov_provider_begin_params(p, json(ov_arena_printf(arena, "{'shop':'%s'}", evil[i])), &err), OV_E_DENIED, "shopify: not %s", evil[i]);
	}
	is_str(authorize(load_catalogue("shopify", NULL, NULL), NULL, NULL, NULL), "variable \"shop\" has no value", "shopify: and must");
	q = load_catalogue("shopify", NULL, "{'shop':'a.myshopify.com','tokens':'permanent'}");
	is_str(exchange(q), "POST https://a.myshopify.com/admin/oauth/access_token\n" ACCEPT AS_JSON
		   "{\"code\":\"c\",\"code_verifier\":\"" VERIFIER "\",\"client_id\":\"id\",\"client_secret\":\"secret\"}", "shopify: permanent tokens");
	ok(answer(q, false, 200, "{'access_token':'shpat_x','scope':'read_products'}") == OV_OUT_OK && out.expires_at == INT64_MAX &&
	   !ov_provider_can_refresh(q), "shopify: never expire");
}

static void
slack(void)
{
	static const char tokens[] = "{'ok':true,'access_token':'xoxe.xoxb-1','token_type':'bot','scope':'team:read,chat:write','bot_user_id':'U0','app_id':'A1',"
		"'expires_in':43200,'refresh_token':'xoxe-1','team':{'name':'Team','id':'T9AB'},'enterprise':null,"
		"'authed_user':{'id':'U1','scope':'search:read','access_token':'xoxe.xoxp-1','token_type':'user','expires_in':43100,'refresh_token':'xoxe-2'}}";
	const OvProvider *p = load_catalogue("slack", NULL, "{'team':'T9AB'}");
	const OvProvider *u = load_catalogue("slack", NULL, "{'token_kind':'user'}");

	is_str(authorize(p, "team:read", "chat:write", NULL), "https://slack.com/oauth/v2/authorize?client_id=id&redirect_uri=" ENCODED
		   "&scope=team%3Aread%2Cchat%3Awrite&state=st&team=T9AB", "slack: authorization");
	is_str(authorize(u, "search:read", NULL, NULL), "https://slack.com/oauth/v2/authorize?client_id=id&redirect_uri=" ENCODED
		   "&user_scope=search%3Aread&state=st", "slack: for a person's token");
	is_str(exchange(p), "POST https://slack.com/api/oauth.v2.access\n" ACCEPT FORM CODE_FORM POSTED, "slack: code exchange");
	is_str(refresh(p), "POST https://slack.com/api/oauth.v2.access\n" ACCEPT FORM REFRESH_FORM POSTED, "slack: refresh");
	is_str(revoke(p, "access_token"), "POST https://slack.com/api/auth.revoke\nAuthorization: Bearer tok\n" ACCEPT, "slack: revocation");
	is_str(revoke(p, "refresh_token"), "none", "slack: by the access token alone");
	is_int(answer(p, false, 200, tokens), OV_OUT_OK, "slack: tokens");
	is_str(out.access_token, "xoxe.xoxb-1", "slack: the bot's");
	is_str(out.refresh_token, "xoxe-1", "slack: with its refresh token");
	is_str(scopes(), "team:read chat:write", "slack: its scopes");
	is_int(out.expires_at, NOW + 43200, "slack: its expiry");
	is_str(out.subject, "T9AB", "slack: the workspace is who this is");
	is_str(out.captured, "{\"team_id\":\"T9AB\",\"team_name\":\"Team\",\"authed_user_id\":\"U1\",\"bot_user_id\":\"U0\",\"app_id\":\"A1\"}", "slack: what is kept");
	is_int(answer(u, false, 200, tokens), OV_OUT_OK, "slack: the same answer");
	is_str(out.access_token, "xoxe.xoxp-1", "slack: for the person's token");
	is_str(out.refresh_token, "xoxe-2", "slack: its refresh token");
	is_str(scopes(), "search:read", "slack: its scopes");
	is_int(out.expires_at, NOW + 43100, "slack: its expiry");
	is_str(out.subject, "T9AB/U1", "slack: person and workspace");
	is_int(answer(u, true, 200, "{'ok':true,'access_token':'xoxe.xoxp-2','token_type':'user','scope':'search:read','expires_in':43200,'refresh_token':'xoxe-3',"
				  "'team':{'id':'T9AB'},'authed_user':{'id':'U1'}}"), OV_OUT_OK, "slack: a refresh answers flat");
	is_str(out.access_token, "xoxe.xoxp-2", "slack: and is read so");
	ok(answer(p, false, 200, "{'ok':true,'access_token':'xoxb-1','token_type':'bot','scope':'team:read','team':{'id':'T9AB'}}") == OV_OUT_OK &&
	   out.expires_at == INT64_MAX, "slack: without rotation a token never expires");
	is_int(answer(p, true, 200, "{'ok':false,'error':'invalid_refresh_token'}"), OV_OUT_DEAD, "slack: dead, with status 200");
	is_int(answer(p, true, 200, "{'ok':false,'error':'token_revoked'}"), OV_OUT_DEAD, "slack: revoked");
	is_int(answer(p, false, 200, "{'ok':false,'error':'bad_client_secret'}"), OV_OUT_MISCONFIGURED, "slack: a wrong secret");
	is_int(answer(p, true, 200, "{'ok':false,'error':'ratelimited'}"), OV_OUT_TRANSIENT, "slack: too fast");
	is_int(answer(p, true, 429, "{'ok':false,'error':'ratelimited'}"), OV_OUT_TRANSIENT, "slack: with its status");
	is_int(revoked(p, 200, "{'ok':true,'revoked':true}"), OV_OUT_OK, "slack: revocation done");
	is_int(revoked(p, 200, "{'ok':false,'error':'token_revoked'}"), OV_OUT_OK, "slack: done already");
	is_int(revoked(p, 200, "{'ok':false,'error':'internal_error'}"), OV_OUT_TRANSIENT, "slack: not done");
	ok(ov_provider_retry_in_doubt(p) && !ov_provider_uses_pkce(p), "slack: one more try in doubt; no PKCE");
	is_str(hosts(p), "files.slack.com slack.com", "slack: hosts");
}

static void
github_app_user(void)
{
	const OvProvider *p = load_catalogue("github_app_user", NULL, NULL);
	const OvProvider *q;
	OvParam    *params;
	char	   *captured;

	is_str(authorize(p, "repo", NULL, "ada"), "https://github.com/login/oauth/authorize?response_type=code&client_id=id&redirect_uri=" ENCODED
		   "&state=st" PKCE "&login=ada", "github_app_user: authorization, no scopes");
	is_str(exchange(p), "POST https://github.com/login/oauth/access_token\n" ACCEPT FORM CODE_FORM "&code_verifier=" VERIFIER POSTED,
		   "github_app_user: code exchange");
	is_str(refresh(p), "POST https://github.com/login/oauth/access_token\n" ACCEPT FORM REFRESH_FORM POSTED, "github_app_user: refresh");
	is_str(revoke(p, "access_token"), "DELETE https://api.github.com/applications/id/token\n" BASIC "Accept: application/vnd.github+json\n"
		   "X-GitHub-Api-Version: 2022-11-28\n" AS_JSON "{\"access_token\":\"tok\"}", "github_app_user: revocation");
	ok(ov_form_parse(arena, T("code=c&state=st&installation_id=42&setup_action=install"), &params, &err) == OV_OK &&
	   ov_callback_capture(arena, p, &client, params, &captured, &err) == OV_OK, "github_app_user: callback");
	is_str(captured, "{\"installation_id\":\"42\"}", "github_app_user: names the installation");
	is_int(answer(p, false, 200, "{'access_token':'ghu_x','expires_in':28800,'refresh_token':'ghr_x','refresh_token_expires_in':15897600,"
				  "'token_type':'bearer','scope':''}"), OV_OUT_OK, "github_app_user: tokens");
	ok(out.nscopes == 0 && out.scopes != NULL && out.expires_at == NOW + 28800 && out.refresh_expires_at == NOW + 15897600,
	   "github_app_user: no scopes; expiries");
	ok(answer(p, false, 200, "{'access_token':'ghu_x','token_type':'bearer','scope':''}") == OV_OUT_OK && out.expires_at == INT64_MAX,
	   "github_app_user: an app without expiry");
	is_int(answer(p, true, 200, "{'error':'bad_refresh_token','error_description':'The refresh token passed is incorrect or expired.'}"), OV_OUT_DEAD,
		   "github_app_user: dead, with status 200");
	is_int(answer(p, false, 200, "{'error':'bad_verification_code'}"), OV_OUT_DEAD, "github_app_user: a used code");
	is_int(answer(p, false, 200, "{'error':'incorrect_client_credentials'}"), OV_OUT_MISCONFIGURED, "github_app_user: a wrong secret");
	is_int(revoked(p, 204, ""), OV_OUT_OK, "github_app_user: revocation done");
	is_int(revoked(p, 404, "{'message':'Not Found'}"), OV_OUT_OK, "github_app_user: done already");
	ok(ov_provider_retry_in_doubt(p), "github_app_user: one more try in doubt");
	is_str(hosts(p), "api.github.com github.com uploads.github.com", "github_app_user: hosts");
	is_str(credential(p), "{\"header_name\":\"Authorization\",\"header_value\":\"Bearer a\",\"api_base\":\"https://api.github.com\","
		   "\"headers\":{\"X-GitHub-Api-Version\":\"2022-11-28\"}}", "github_app_user: API");
	is_int(ov_provider_load(arena, catalogue("github_app_user", NULL), NULL, json("{'host':'github.evil.example'}"), &q, &err), OV_E_DENIED,
		   "github_app_user: no foreign host");
	is_int(ov_provider_load(arena, catalogue("github_app_user", NULL), NULL, json("{'host':'octo.ghe.com','api_host':'api.octo.ghe.com'}"), &q, &err), OV_OK,
		   "github_app_user: an enterprise's own");
	is_int(ov_provider_load(arena, catalogue("github_app_user", NULL), NULL, json("{'api_host':'api.github.com.evil'}"), &q, &err), OV_E_DENIED,
		   "github_app_user: no foreign API");
}

static void
salesforce(void)
{
	const OvProvider *p = load_catalogue("salesforce", NULL, NULL);
	const OvProvider *q;

	is_str(authorize(p, "api", "refresh_token", "ada"), "https://login.salesforce.com/services/oauth2/authorize?response_type=code&client_id=id"
		   "&redirect_uri=" ENCODED "&scope=api+refresh_token&state=st" PKCE "&login_hint=ada", "salesforce: authorization");
	is_str(exchange(p), "POST https://login.salesforce.com/services/oauth2/token\n" ACCEPT FORM CODE_FORM "&code_verifier=" VERIFIER POSTED,
		   "salesforce: code exchange");
	is_str(refresh(p), "POST https://login.salesforce.com/services/oauth2/token\n" ACCEPT FORM REFRESH_FORM POSTED, "salesforce: refresh");
	is_str(revoke(p, "refresh_token"), "POST https://login.salesforce.com/services/oauth2/revoke\n" ACCEPT FORM "token=tok", "salesforce: revocation");
	is_int(answer(p, false, 200, "{'access_token':'00D!x','refresh_token':'5Aep','signature':'s','scope':'refresh_token api','instance_url':'https://acme.my.salesforce.com',"
				  "'id':'https://login.salesforce.com/id/00D/005','token_type':'Bearer','issued_at':'1799999990000'}"), OV_OUT_OK, "salesforce: tokens");
	is_int(out.expires_at, NOW - 10 + 7200, "salesforce: two hours from issue");
	is_str(out.subject, "https://login.salesforce.com/id/00D/005", "salesforce: who this is");
	is_str(out.captured, "{\"instance_url\":\"https://acme.my.salesforce.com\",\"identity_url\":\"https://login.salesforce.com/id/00D/005\"}",
		   "salesforce: what is kept");
	p = load_catalogue("salesforce", NULL, out.captured);
	is_str(credential(p), "{\"header_name\":\"Authorization\",\"header_value\":\"Bearer a\",\"api_base\":\"https://acme.my.salesforce.com\",\"headers\":{}}",
		   "salesforce: API where the answer said");
	is_str(hosts(p), "*.salesforce.com login.salesforce.com", "salesforce: hosts do not depend on the answer");
	is_str(hosts(p), hosts(load_catalogue("salesforce", NULL, NULL)), "salesforce: at any time");
	is_int(answer(p, false, 200, "{'access_token':'a','token_type':'Bearer','instance_url':'https://evil.example'}"), OV_OUT_MALFORMED,
		   "salesforce: an API elsewhere is refused");
	is_int(answer(p, true, 200, "{'access_token':'00D!y','instance_url':'https://acme.my.salesforce.com','id':'https://login.salesforce.com/id/00D/005',"
				  "'token_type':'Bearer','issued_at':'1800000000000','signature':'s'}"), OV_OUT_OK, "salesforce: refreshed");
	ok(out.refresh_token == NULL && out.scopes == NULL, "salesforce: without refresh token and scope");
	is_int(answer(p, true, 400, "{'error':'invalid_grant','error_description':'expired access/refresh token'}"), OV_OUT_DEAD, "salesforce: dead");
	is_int(answer(p, true, 400, "{'error':'inactive_user'}"), OV_OUT_DEAD, "salesforce: an inactive person");
	is_int(answer(p, true, 400, "{'error':'invalid_client_id'}"), OV_OUT_MISCONFIGURED, "salesforce: an unknown client");
	is_int(answer(p, true, 403, "{'error':'rate_limit_exceeded'}"), OV_OUT_TRANSIENT, "salesforce: too fast");
	is_int(revoked(p, 200, ""), OV_OUT_OK, "salesforce: revoked");
	is_int(revoked(p, 400, "{'error':'invalid_token','error_description':'invalid token'}"), OV_OUT_OK, "salesforce: revoked already");
	q = load_catalogue("salesforce", NULL, "{'environment':'sandbox'}");
	ok(strncmp(refresh(q), "POST https://test.salesforce.com/services/oauth2/token\n", 55) == 0, "salesforce: sandboxes sign in elsewhere");
	is_str(ov_provider_issuer(q), "https://test.salesforce.com", "salesforce: with their issuer");
	q = load_catalogue("salesforce", NULL, "{'login_host':'acme--uat.sandbox.my.salesforce.com'}");
	ok(strncmp(refresh(q), "POST https://acme--uat.sandbox.my.salesforce.com/services/oauth2/token\n", 71) == 0, "salesforce: a domain of its own");
	is_int(ov_provider_load(arena, catalogue("salesforce", NULL), NULL, json("{'login_host':'login.salesforce.com.evil.example'}"), &q, &err), OV_E_DENIED,
		   "salesforce: no foreign host");
}

/* A site's rules over a built-in document, as a test server needs them */
static void
site_rules(void)
{
	const OvProvider *p;

	is_int(ov_provider_load(arena, catalogue("google", "{'token':{'url':'https://localhost:20001/token'},'revocation':{'refresh_token':"
											 "{'url':'https://localhost:20001/revoke'},'access_token':{'url':'https://localhost:20001/revoke'}},'api':null}"),
							NULL, NULL, &p, &err), OV_OK, "a site's own endpoints");
	is_str(hosts(p), "localhost:20001", "are hosts that the vault file has to name");
	is_str(refresh(p), "POST https://localhost:20001/token\n" ACCEPT FORM REFRESH_FORM POSTED, "in the provider's own manner");
}

int
main(void)
{
	arena = ov_arena_new();
	oidc();
	google();
	microsoft();
	intuit_quickbooks();
	shopify();
	slack();
	github_app_user();
	salesforce();
	site_rules();
	ov_arena_free(arena);
	return done_testing();
}
