/*
 * test_provider_files.c
 *	  All files of providers/: each loads, in each of its environments, and builds
 *	  its requests; and what single providers do unlike all others.
 */
#include "core/provider_internal.h"
#include "provider_fixture.h"

#include <dirent.h>

#define CHALLENGE "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
#define VERIFIER "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
#define REDIRECT "https://app.example/cb"
#define NOW INT64_C(1800000000)

static const OvClient client = {"id", "secret"};
static OvTokens out;

/* What has to be given before a file can be used: by the administrator, at begin, by the callback */
static const struct
{
	const char *name;
	const char *variables;
}			needed[] = {
	{"amazon_sp_api", "{'application_id':'amzn1.sp.solution.1','selling_partner_id':'A1B2C3D4E5'}"},
	{"auth0", "{'domain':'acme.eu.auth0.com'}"},
	{"bigcommerce", "{'context':'stores/abc','granted':'store_v2_products_read_only'}"},
	{"clover", "{'merchant_id':'ABCDEFGHJKLMN'}"},
	{"cognito", "{'domain':'acme.auth.eu-west-1.amazoncognito.com','region':'eu-west-1','user_pool_id':'eu-west-1_AbC'}"},
	{"ebay", "{'ru_name':'Acme-Acme-App-abc'}"},
	{"intuit_quickbooks", "{'realmId':'42'}"},
	{"intuit_quickbooks_sandbox", "{'realmId':'42'}"},
	{"mailchimp", "{'dc':'us6'}"},
	{"netsuite", "{'account':'1234567-sb1'}"},
	{"okta", "{'domain':'acme.okta.com'}"},
	{"servicenow", "{'instance':'acme.service-now.com'}"},
	{"shopify", "{'shop':'acme.myshopify.com'}"},
	{"stripe_connect", "{'stripe_user_id':'acct_1'}"},
	{"wix", "{'instance_id':'00000000-0000-0000-0000-000000000000'}"},
	{"zendesk", "{'subdomain':'acme'}"},
};

static const char metadata[] = "{'issuer':'https://as.example','authorization_endpoint':'https://as.example/authorize',"
	"'token_endpoint':'https://as.example/token'}";

static const char *
given(const char *name)
{
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (strcmp(needed[i].name, name) == 0)
			return needed[i].variables;
	return "{}";
}

static const OvProvider *
provider(const char *name)
{
	return load_catalogue(name, NULL, given(name));
}

static const OvProvider *
provider_with(const char *name, const char *variables)
{
	const OvProvider *p;

	if (ov_provider_load(arena, catalogue(name, NULL), NULL, ov_json_merge_patch(arena, json(given(name)), json(variables)), &p, &err) != OV_OK)
	{
		diag("%s: %s", name, err.message);
		exit(1);
	}
	return p;
}

static const char *
authorize(const OvProvider *p, const char *scope)
{
	const char *scopes[2] = {scope, "other"};
	OvBegin		b = {
		.client_id = "id", .redirect_uri = REDIRECT, .state = "st", .code_challenge = CHALLENGE,
		.scopes = scopes, .nscopes = scope != NULL ? 2 : 0
	};
	char	   *url;

	memset(&err, 0, sizeof(err));
	return ov_authorization_url(arena, p, &b, &url, &err) == OV_OK ? url : err.message;
}

static const char *
exchange(const OvProvider *p)
{
	OvHttpRequest req;

	return ov_code_request(arena, p, &client, ov_provider_needs_code(p) ? "c" : NULL, REDIRECT,
						   ov_provider_uses_pkce(p) ? VERIFIER : NULL, &req, &err) == OV_OK ? request_text(&req) : err.message;
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

static OvHttpResponse
response(int status, const char *body)
{
	return (OvHttpResponse) {.status = status, .sent = true, .content_type = "application/json",
	.body = double_quotes(body), .body_len = strlen(body)};
}

static OvOutcome
answer(const OvProvider *p, bool is_refresh, int status, const char *body)
{
	OvHttpResponse resp = response(status, body);

	ov_token_response(arena, p, &resp, is_refresh, NOW, &out);
	return out.outcome;
}

static OvOutcome
revoked(const OvProvider *p, int status, const char *body)
{
	OvHttpResponse resp = response(status, body);

	ov_revoke_response(arena, p, &resp, &out);
	return out.outcome;
}

static OvOutcome
looked_up(const OvProvider *p, int status, const char *body)
{
	OvHttpResponse resp = response(status, body);

	ov_lookup_response(arena, p, NULL, &resp, NOW, &out);
	return out.outcome;
}

static bool
begins(const char *s, const char *with)
{
	if (strncmp(s, with, strlen(with)) == 0)
		return true;
	diag("%s", s);
	return false;
}

static bool
holds(const char *s, const char *part)
{
	if (strstr(s, part) != NULL)
		return true;
	diag("%s", s);
	return false;
}

/* ---- every file ---- */

static void
usable(const char *name, const char *environment, const OvProvider *p)
{
	const char *const *list;
	unsigned char digest[32];
	OvHttpRequest req;
	char	   *text;
	int			n = 0;

	ok(begins(authorize(p, NULL), "https://"), "%s%s: authorization", name, environment);
	ok(begins(exchange(p), "POST https://"), "%s%s: code exchange", name, environment);
	if (ov_provider_can_refresh(p))
		ok(strstr(refresh(p), "https://") != NULL, "%s%s: refresh", name, environment);
	if (ov_provider_has_post_exchange(p))
		ok(ov_post_exchange_request(arena, p, &client, "a", &req, &err) == OV_OK, "%s%s: long-lived token", name, environment);
	if (ov_provider_has_lookup(p))
		ok(ov_lookup_request(arena, p, &client, "a", &req, &err) == OV_OK, "%s%s: lookup", name, environment);
	if (ov_provider_can_revoke(p))
		ok(strcmp(revoke(p, "refresh_token"), "none") != 0 || strcmp(revoke(p, "access_token"), "none") != 0,
		   "%s%s: revocation", name, environment);
	ok(ov_provider_hosts(arena, p, &list, &n, digest, &err) == OV_OK && n > 0, "%s%s: hosts", name, environment);
	ok(ov_api_credential(arena, p, "id", "a", NULL, &text, &err) == OV_OK, "%s%s: API", name, environment);
}

static int
each(const struct dirent *e)
{
	size_t		n = strlen(e->d_name);

	return n > 5 && strcmp(e->d_name + n - 5, ".json") == 0 && strcmp(e->d_name, "schema.json") != 0;
}

static void
every_file(void)
{
	struct dirent **files;
	int			n = scandir(ov_arena_printf(arena, "%s/providers", getenv("OV_TREE")), &files, each, alphasort);

	ok(n >= 82, "%d files", n);
	for (int i = 0; i < n; i++)
	{
		const char *name = ov_arena_strndup(arena, files[i]->d_name, strlen(files[i]->d_name) - 5);
		const OvJson *document = catalogue(name, NULL);
		bool		by_issuer = ov_json_get(ov_json_get(document, "token"), "url") == NULL;
		const OvJson *overlays = ov_json_get(document, "overlays");

		usable(name, "", load_catalogue(name, by_issuer ? metadata : NULL, given(name)));
		for (const OvJson *o = overlays != NULL ? overlays->child : NULL; o != NULL; o = o->next)
			for (const OvJson *v = o->child; v != NULL; v = v->next)
				usable(name, ov_arena_printf(arena, " with %s=%s", o->key, v->key),
					   provider_with(name, ov_arena_printf(arena, "{'%s':'%s'}", o->key, v->key)));
		free(files[i]);
	}
	free(files);
}

/* ---- requests unlike the others' ---- */

static void
requests(void)
{
	const OvProvider *p = provider("ebay");

	/* a name stands for the redirect URI */
	ok(holds(authorize(p, "s"), "&redirect_uri=Acme-Acme-App-abc") && holds(exchange(p), "&redirect_uri=Acme-Acme-App-abc"),
	   "the redirect URI's name is sent in both requests");
	ok(strstr(authorize(p, "s"), "app.example") == NULL && strstr(exchange(p), "app.example") == NULL, "and the URI in neither");
	p = provider("cognito");
	ok(holds(authorize(p, "openid"), "scope=openid%20other&"), "spaces in the authorization request as %%20");
	p = provider("wix");
	ok(!ov_provider_needs_code(p), "an instance instead of a code");
	ok(holds(authorize(p, NULL), "?appId=id&redirectUrl=https%3A%2F%2Fapp.example%2Fcb&state=st"), "and its own names for all");
	ok(holds(exchange(p), "{\"grant_type\":\"client_credentials\",\"client_id\":\"id\",\"client_secret\":\"secret\","
			 "\"instance_id\":\"00000000-0000-0000-0000-000000000000\"}"), "the instance's token");
	is_str(refresh(p), exchange(p), "and the next one, the same way");
	p = provider("basecamp");
	ok(holds(exchange(p), "&type=web_server") && holds(refresh(p), "&type=refresh") && strstr(refresh(p), "grant_type") == NULL,
	   "type in place of grant_type");
	p = provider("clover");
	ok(holds(refresh(p), "POST https://api.clover.com/oauth/v2/refresh\n") && holds(refresh(p), "\n{\"grant_type\":\"refresh_token\",") == false,
	   "a refresh endpoint without a grant type");
	ok(holds(refresh(p), "\n{\"refresh_token\":\"r\",\"client_id\":\"id\"}"), "or a secret");
	p = provider("figma");
	ok(begins(refresh(p), "POST https://api.figma.com/v1/oauth/refresh\nAuthorization: Basic aWQ6c2VjcmV0\n") &&
	   holds(refresh(p), "\n\nrefresh_token=r"), "a refresh endpoint that takes the refresh token alone");
	p = provider("stripe_apps");
	ok(holds(exchange(p), "Authorization: Basic c2VjcmV0Og==\n") && strstr(exchange(p), "client_id") == NULL, "the secret key as the user of Basic");
	p = provider("stripe_connect");
	ok(holds(revoke(p, "access_token"), "Authorization: Bearer secret\n") && holds(revoke(p, "access_token"), "\n\nclient_id=id&stripe_user_id=acct_1"), "an account is disconnected by its id, without its token");
	p = provider("square");
	ok(holds(revoke(p, "access_token"), "Authorization: Client secret\n") && holds(revoke(p, "access_token"), "\"access_token\":\"tok\""),
	   "a revocation with the client's secret in a header of its own");
	p = provider("facebook");
	is_str(revoke(p, "access_token"), "DELETE https://graph.facebook.com/v22.0/me/permissions?access_token=tok\nAccept: application/json\n",
		   "a revocation with the token in the query");
	p = provider("instagram");
	ok(begins(refresh(p), "GET https://graph.instagram.com/refresh_access_token?grant_type=ig_refresh_token&access_token=a\n"),
	   "an exchange of the access token for the next one");
	is_int(ov_provider_min_age(p), 86400, "once it is a day old");
	p = provider("reddit");
	ok(holds(exchange(p), "User-Agent: postgresql:oauth_vault:v1\n"), "a User-Agent that names the platform");
	p = provider_with("gitlab", "{'redirect_uri':'" REDIRECT "'}");
	ok(ov_provider_keeps_redirect_uri(p) && holds(refresh(p), "&redirect_uri=https%3A%2F%2Fapp.example%2Fcb"), "a refresh repeats the redirect URI");
	ok(strstr(refresh(provider("gitlab")), "redirect_uri") == NULL, "where it is known");
	ok(!ov_provider_keeps_redirect_uri(provider("ebay")), "and only there");
	p = provider_with("zoho", "{'accounts_server':'https://accounts.zoho.eu'}");
	ok(begins(refresh(p), "POST https://accounts.zoho.eu/oauth/v2/token\n") &&
	   begins(revoke(p, "refresh_token"), "POST https://accounts.zoho.eu/oauth/v2/token/revoke?token=tok\n"), "the data centre that the callback named");
	is_int(ov_provider_load(arena, catalogue("zoho", NULL), NULL, json("{'accounts_server':'https://accounts.zoho.com.evil.example'}"), &p, &err),
		   OV_E_DENIED, "and no other host");
	{
		char	   *text;

		ok(ov_api_credential(arena, provider("bigcommerce"), "id", "a", NULL, &text, &err) == OV_OK &&
		   holds(text, "\"api_base\":\"https://api.bigcommerce.com/stores/abc\""), "a value of several segments");
		p = load("{" MINIMAL ",'variables':{'v':{'pattern':'.*','path':true}},'token':{'url':'https://as.example/{v}/t'}}", NULL, "{'v':'a/../b'}");
		ok(holds(exchange(p), "cannot stand in a URL"), "that leads nowhere else");
	}
	p = load_catalogue("cognito", NULL, "{'domain':'acme.auth.eu-west-1.amazoncognito.com'}");
	ok(holds(authorize(p, "openid"), "a variable of the provider's issuer has no value"), "nobody is sent to an issuer that is not known");
	is_int(ov_check_iss(p, NULL, &err), OV_E_CONFIG, "and no answer is taken from it");
	p = provider("okta");
	ok(begins(exchange(p), "POST https://acme.okta.com/oauth2/v1/token\n"), "an organisation's own authorization server");
	p = provider_with("okta", "{'auth_server':'default'}");
	ok(begins(exchange(p), "POST https://acme.okta.com/oauth2/default/v1/token\n"), "or a custom one");
	is_str(ov_provider_issuer(p), "https://acme.okta.com/oauth2/default", "with its issuer");
}

/* ---- answers unlike the others' ---- */

#define TOKEN "'access_token':'a','token_type':'bearer','refresh_token':'r'"

static void
dead_grants(void)
{
	static const struct
	{
		const char *name;
		int			status;
		const char *body;
		OvOutcome	outcome;
	}			spellings[] = {
		{"auth0", 403, "{'error':'invalid_grant','error_description':'Unknown or invalid refresh token.'}", OV_OUT_DEAD},
		{"atlassian", 403, "{'error':'unauthorized_client','error_description':'Unknown or invalid refresh token.'}", OV_OUT_DEAD},
		{"atlassian", 401, "{'error':'access_denied','error_description':'Unauthorized'}", OV_OUT_MISCONFIGURED},
		{"airtable", 409, "{'error':'conflict'}", OV_OUT_TRANSIENT},
		{"zoho", 200, "{'error':'invalid_code'}", OV_OUT_DEAD},
		{"zoho", 400, "{'error':'Access Denied','error_description':'You have made too many requests'}", OV_OUT_TRANSIENT},
		{"twitter_x", 400, "{'error':'invalid_request','error_description':'Value passed for the token was invalid.'}", OV_OUT_DEAD},
		{"twitter_x", 400, "{'error':'invalid_request','error_description':'Missing required parameter'}", OV_OUT_DENIED},
		{"reddit", 400, "{'message':'Bad Request','error':400}", OV_OUT_DEAD},
		{"reddit", 401, "{'message':'Unauthorized','error':401}", OV_OUT_MISCONFIGURED},
		{"zoom", 400, "{'reason':'Invalid Token!','error':'invalid_request'}", OV_OUT_DEAD},
		{"facebook", 400, "{'error':{'message':'Error validating access token','type':'OAuthException','code':190,'error_subcode':460}}", OV_OUT_DEAD},
		{"facebook", 400, "{'error':{'message':'Application request limit reached','type':'OAuthException','code':4}}", OV_OUT_TRANSIENT},
		{"instagram", 400, "{'error':{'message':'x','type':'OAuthException','code':190}}", OV_OUT_DEAD},
		{"twitch", 400, "{'status':400,'message':'Invalid refresh token'}", OV_OUT_DEAD},
		{"twitch", 403, "{'status':403,'message':'invalid client secret'}", OV_OUT_MISCONFIGURED},
		{"square", 401, "{'errors':[{'category':'AUTHENTICATION_ERROR','code':'ACCESS_TOKEN_REVOKED'}]}", OV_OUT_DEAD},
		{"square", 401, "{'type':'service.not_authorized','message':'Not Authorized'}", OV_OUT_MISCONFIGURED},
		{"paypal", 401, "{'error':'invalid_refresh_token'}", OV_OUT_DEAD},
		{"servicenow", 401, "{'error':'access_denied'}", OV_OUT_DEAD},
		{"hubspot", 400, "{'status':'BAD_REFRESH_TOKEN','message':'missing or invalid refresh token'}", OV_OUT_DEAD},
		{"pinterest", 401, "{'code':2,'message':'Authentication failed.'}", OV_OUT_MALFORMED},
		{"pinterest", 401, "{'code':283,'message':'Invalid refresh token'}", OV_OUT_DEAD},
		{"figma", 400, "{'status':400,'err':'Invalid refresh token'}", OV_OUT_DEAD},
		{"figma", 401, "{'status':401,'err':'Unauthorized'}", OV_OUT_MALFORMED},
		{"linkedin", 400, "{'error':'invalid_request','error_description':'The provided authorization grant or refresh token is invalid, expired or revoked'}", OV_OUT_DEAD},
		{"xero", 400, "{'error':'invalid_grant'}", OV_OUT_DEAD},
	};

	for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++)
		is_int(answer(provider(spellings[i].name), true, spellings[i].status, spellings[i].body), spellings[i].outcome,
			   "%s: %s", spellings[i].name, spellings[i].body);
}

static void
lifetimes(void)
{
	const OvProvider *p = provider("spotify");

	is_int(answer(p, false, 200, "{" TOKEN ",'expires_in':3600}"), OV_OUT_OK, "tokens of a consent");
	is_int(out.refresh_expires_at, NOW + 15552000, "end six months after it");
	is_int(answer(p, true, 200, "{" TOKEN ",'expires_in':3600}"), OV_OUT_OK, "a refresh");
	is_int(out.refresh_expires_at, 0, "does not extend that");
	p = provider("ebay");
	is_int(answer(p, true, 200, "{'access_token':'a','token_type':'User Access Token','expires_in':7200,'refresh_token_expires_in':1000}"), OV_OUT_OK,
		   "a type of token that is no Bearer's");
	is_int(out.refresh_expires_at, NOW + 1000, "what remains, where the answer says so");
	p = provider("mailchimp");
	is_int(answer(p, false, 200, "{'access_token':'a','expires_in':0,'scope':null}"), OV_OUT_OK, "a token that never expires");
	ok(out.expires_at == INT64_MAX, "0 means never");
	p = provider("keycloak");
	is_int(answer(load_catalogue("keycloak", metadata, NULL), false, 200, "{" TOKEN ",'expires_in':300,'refresh_expires_in':0}"), OV_OUT_OK, "an offline token");
	ok(out.refresh_expires_at == INT64_MAX, "never expires");
	p = provider("clover");
	is_int(answer(p, false, 200, "{'access_token':'a','refresh_token':'r','access_token_expiration':1800001800,'refresh_token_expiration':1802592000}"), OV_OUT_OK, "times in seconds");
	ok(out.expires_at == NOW + 1800 && out.refresh_expires_at == NOW + 2592000, "since 1970");
	p = provider("square");
	is_int(answer(p, false, 200, "{'access_token':'a','token_type':'bearer','refresh_token':'r','expires_at':'2027-02-14T08:00:00Z','merchant_id':'M'}"), OV_OUT_OK, "a time in words");
	is_int(out.expires_at, NOW + 30 * 86400, "is the time of expiry");
	p = provider("monday");
	is_int(answer(p, false, 200, "{'access_token':'eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE4MDAwMDA5MDB9.c2ln','refresh_token':'r'}"), OV_OUT_OK, "an access token that says itself");
	is_int(out.expires_at, NOW + 900, "when it expires");
	p = load("{" MINIMAL ",'response':{'refresh_expiry':[{'kind':'seconds','field':'/left'},{'kind':'default','seconds':500},"
			 "{'kind':'seconds','field':'/hard','cap':true}]}}", NULL, NULL);
	is_int(answer(p, true, 200, "{" TOKEN ",'left':1000,'hard':700}"), OV_OUT_OK, "a lifetime with a cap");
	is_int(out.refresh_expires_at, NOW + 700, "ends with the cap");
	is_int(answer(p, true, 200, "{" TOKEN ",'left':1000,'hard':7000}"), OV_OUT_OK, "a later cap");
	is_int(out.refresh_expires_at, NOW + 1000, "cuts nothing off");
	is_int(answer(p, true, 200, "{" TOKEN ",'hard':700}"), OV_OUT_OK, "the next entry");
	is_int(out.refresh_expires_at, NOW + 500, "where the first says nothing");
}

static void
shapes(void)
{
	const OvProvider *p = provider("instagram");

	is_int(answer(p, false, 200, "{'data':[{'access_token':'a','user_id':17,'permissions':'instagram_business_basic,instagram_business_manage_comments'}]}"),
		   OV_OUT_OK, "tokens in an array");
	ok(strcmp(out.access_token, "a") == 0 && out.nscopes == 2, "with its scopes");
	is_str(out.subject, "17", "and its person");
	is_int(answer(p, false, 200, "{'access_token':'a','user_id':17}"), OV_OUT_OK, "or at the top");
	is_str(out.access_token, "a", "with the token");
	{
		OvHttpResponse resp = response(200, "{'access_token':'long','expires_in':5184000}");

		ov_post_exchange_response(arena, p, &resp, NOW, &out);
		is_int(out.outcome, OV_OUT_OK, "the long-lived token");
		is_str(out.access_token, "long", "takes the short-lived one's place");
		is_str(out.subject, "17", "the person stays");
		ok(out.captured != NULL && strstr(out.captured, "\"user_id\":\"17\"") != NULL, "and what was kept");
		resp = response(400, "{'error':{'type':'OAuthException','code':190}}");
		ov_post_exchange_response(arena, p, &resp, NOW, &out);
		is_int(out.outcome, OV_OUT_DEAD, "an exchange that is refused");
		ok(out.access_token == NULL, "leaves no token");
	}
	p = provider("tiktok_business");
	is_int(answer(p, false, 200, "{'code':0,'message':'OK','data':{'access_token':'a','advertiser_ids':['7']}}"), OV_OUT_OK, "tokens below data");
	is_int(answer(p, false, 200, "{'code':40105,'message':'Access token is incorrect or has been revoked','data':{}}"), OV_OUT_DEAD, "an error with status 200");
	p = provider("twitch");
	is_int(answer(p, false, 200, "{" TOKEN ",'expires_in':1,'scope':['chat:read','user:read:email']}"), OV_OUT_OK, "scopes in an array");
	is_int(out.nscopes, 2, "are two");
	p = provider_with("strava", "{'granted':'read,activity:read'}");
	is_int(answer(p, false, 200, "{" TOKEN ",'expires_at':1800021600,'athlete':{'id':9}}"), OV_OUT_OK, "scopes in the callback alone");
	ok(out.nscopes == 2 && strcmp(out.scopes[1], "activity:read") == 0, "are those that count");
	is_int(revoked(provider("zoom"), 200, "{'status':'success'}"), OV_OUT_OK, "a revocation that says success");
	ok(revoked(provider("zoom"), 200, "{'status':'error'}") != OV_OUT_OK, "and one that does not");
	is_int(revoked(provider("facebook"), 200, "{'success':true}"), OV_OUT_OK, "a revocation in a body");
	is_int(revoked(provider("zendesk"), 204, ""), OV_OUT_OK, "a revocation without a body");
}

static void
lookups(void)
{
	static const char sites[] = "[{'id':'11111111-1111-1111-1111-111111111111','url':'https://one.example','name':'one'},"
		"{'id':'22222222-2222-2222-2222-222222222222','url':'https://two.example','name':'two'}]";
	const OvProvider *p = provider("atlassian");

	is_int(looked_up(p, 200, sites), OV_OUT_OK, "an array of sites");
	ok(holds(out.captured, "\"cloud_id\":\"11111111-1111-1111-1111-111111111111\""), "the first, if none is named");
	p = provider_with("atlassian", "{'cloud_id':'22222222-2222-2222-2222-222222222222'}");
	is_int(looked_up(p, 200, sites), OV_OUT_OK, "a site by its id");
	ok(holds(out.captured, "\"site_name\":\"two\""), "the one that begin named");
	p = provider_with("atlassian", "{'cloud_id':'33333333-3333-3333-3333-333333333333'}");
	ok(looked_up(p, 200, sites) != OV_OUT_OK, "a site that was not granted");
	ok(looked_up(p, 200, "[]") != OV_OUT_OK && looked_up(p, 200, "{}") != OV_OUT_OK, "no site at all");
	is_int(looked_up(p, 503, "{}"), OV_OUT_TRANSIENT, "a lookup that fails for now");
	p = provider("docusign");
	is_int(looked_up(p, 200, "{'accounts':[{'account_id':'a','is_default':false},"
					 "{'account_id':'0000aaaa-0000-0000-0000-000000000000','is_default':true,'base_uri':'https://na4.docusign.net'}]}"), OV_OUT_OK, "the default account");
	ok(holds(out.captured, "\"base_uri\":\"https://na4.docusign.net\""), "and where its API is");
	ok(looked_up(p, 200, "{'accounts':[{'account_id':'0000aaaa-0000-0000-0000-000000000000','is_default':true,'base_uri':'https://evil.example'}]}") != OV_OUT_OK,
	   "no API elsewhere");
	p = provider("xero");
	{
		/* {"authentication_event_id":"e2"} */
		OvHttpResponse resp = response(200, "[{'authEventId':'e1','tenantId':'11111111-1111-1111-1111-111111111111'},"
									   "{'authEventId':'e2','tenantId':'22222222-2222-2222-2222-222222222222'}]");

		ov_lookup_response(arena, p, "eyJhbGciOiJSUzI1NiJ9.eyJhdXRoZW50aWNhdGlvbl9ldmVudF9pZCI6ImUyIn0.c2ln", &resp, NOW, &out);
		ok(out.outcome == OV_OUT_OK && holds(out.captured, "22222222"), "the organisation of this consent, by a claim of the token");
		ov_lookup_response(arena, p, "opaque", &resp, NOW, &out);
		ok(out.outcome == OV_OUT_OK && holds(out.captured, "11111111"), "or the first, where the token says nothing");
	}
	p = provider("square");
	is_int(looked_up(p, 200, "{'scopes':['ORDERS_READ','PAYMENTS_READ'],'client_id':'id'}"), OV_OUT_OK, "the scopes of a token");
	is_int(out.nscopes, 2, "are two");
	/* nothing of an answer is read that could be a secret */
	p = load("{" MINIMAL ",'lookup':{'url':'https://api.example/me','capture':{'id':'/access_token','note':'/note'}}}", NULL, NULL);
	{
		OvHttpResponse resp = response(200, "{'access_token':'tok-1234567890','note':'it was sekret-token-value'}");

		resp.secrets[0] = "sekret-token-value";
		ov_lookup_response(arena, p, NULL, &resp, NOW, &out);
		is_str(out.captured, "{}", "a lookup captures no token, and nothing that quotes what was sent");
	}
}

int
main(void)
{
	arena = ov_arena_new();
	every_file();
	requests();
	dead_grants();
	lifetimes();
	shapes();
	lookups();
	ov_arena_free(arena);
	return done_testing();
}
