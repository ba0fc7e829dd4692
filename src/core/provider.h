/*
 * provider.h
 *	  Provider rules: what is different about an authorization server, as data.
 *
 * Rules come from providers/<name>.json (or a site's override) and are read
 * into an OvProvider that requests and responses are built and judged with.
 * Code here knows mechanisms, never companies.  providers/schema.json is the
 * written form of the language.
 */
#ifndef OV_PROVIDER_H
#define OV_PROVIDER_H

#include "codec.h"
#include "json.h"

typedef struct OvProvider OvProvider;

/* rules: the merged rule document; metadata: frozen RFC 8414 document or NULL
 * (fills what the rules leave open); variables: flat JSON object of strings
 * (connector params, begin params, captured values) for {name} placeholders,
 * each checked against the rule's pattern. */
extern OvCode ov_provider_load(OvArena *arena, const OvJson *rules, const OvJson *metadata,
							   const OvJson *variables, const OvProvider **out, OvError *err);

/* Every host[:port] a secret of this grant may be sent to (token, refresh,
 * revocation, introspection, API), sorted, unique; and its SHA-256 over the
 * lines joined with \n: the pinned hosts digest. */
extern OvCode ov_provider_hosts(OvArena *arena, const OvProvider *p, const char *const **hosts,
								int *nhosts, unsigned char digest[32], OvError *err);

/* Are these parameters a person may give at begin?  OV_E_DENIED names the one
 * whose variable only an administrator or the provider may set. */
extern OvCode ov_provider_begin_params(const OvProvider *p, const OvJson *params, OvError *err);

/* ---- requests ---- */
typedef struct OvClient
{
	const char *client_id;
	const char *client_secret;	/* NULL for public clients; a private JWK for private_key_jwt */
} OvClient;

typedef struct OvHttpRequest	/* what http.h sends */
{
	const char *method;
	const char *url;
	const char *body;			/* NULL if none */
	size_t		body_len;
	const char *headers[24];	/* "Name: value", NULL-terminated */
	int			nheaders;
	/* so many requests in so many seconds to its host, by the rules; 0: no budget */
	int			budget_requests,
				budget_seconds;
} OvHttpRequest;

typedef struct OvBegin
{
	const char *client_id, *redirect_uri, *state, *code_challenge, *nonce, *login_hint;
	const char *const *scopes;
	int			nscopes;
} OvBegin;

extern OvCode ov_authorization_url(OvArena *arena, const OvProvider *p, const OvBegin *b,
								   char **url, OvError *err);
extern bool ov_provider_uses_pkce(const OvProvider *p);
extern bool ov_provider_can_refresh(const OvProvider *p);
/* Does the code exchange need a code?  Not where a client's own grant stands in for it. */
extern bool ov_provider_needs_code(const OvProvider *p);
extern bool ov_provider_has_post_exchange(const OvProvider *p);
extern bool ov_provider_has_lookup(const OvProvider *p);
extern bool ov_provider_lookup_required(const OvProvider *p);
/* Is it by the access token, or by the client alone, that a token is renewed? */
extern bool ov_provider_renews_itself(const OvProvider *p);
/* Do refreshes repeat the redirect URI?  It is then kept as "redirect_uri" among the grant's variables. */
extern bool ov_provider_keeps_redirect_uri(const OvProvider *p);
/* Seconds before which a token is not exchanged for another */
extern int64_t ov_provider_min_age(const OvProvider *p);
/* Grants of one connector with the same key have one refresh chain; NULL: each has its own. */
extern OvCode ov_provider_shared_key(OvArena *arena, const OvProvider *p, char **key, OvError *err);
/* Do the rules say what names an account?  Otherwise it is "sub" of its ID tokens. */
extern bool ov_provider_names_subject(const OvProvider *p);
/* The subject, where the rules make it of variables alone; NULL if they do not */
extern const char *ov_provider_subject(OvArena *arena, const OvProvider *p);
/* The i-th further token that a consent brings: its name and the variables that select its rules, as
 * a flat JSON object; NULL: there is none. */
extern const char *ov_provider_slot(OvArena *arena, const OvProvider *p, int i, char **variables);
extern bool ov_provider_can_revoke(const OvProvider *p);
/* What a revocation ends */
typedef enum OvRevocationEnds
{
	OV_ENDS_TOKEN,				/* the token that is sent, and nothing else */
	OV_ENDS_GRANT,				/* with the refresh token its access tokens (RFC 7009 section 2.1) */
	OV_ENDS_PERSON				/* every grant of this person and client, later ones too */
} OvRevocationEnds;
extern OvRevocationEnds ov_provider_revocation_ends(const OvProvider *p);
extern bool ov_provider_retry_in_doubt(const OvProvider *p);	/* may the same refresh token be sent again after a crash? */
extern const char *ov_provider_issuer(const OvProvider *p);	/* NULL if unknown */
/* RFC 9207 section 2.4 */
extern OvCode ov_check_iss(const OvProvider *p, const char *iss, OvError *err);
/* verifies a signed callback (named hook) and collects the parameters to keep:
 * captured is a flat JSON object */
extern OvCode ov_callback_capture(OvArena *arena, const OvProvider *p, const OvClient *client,
								  const OvParam *params, char **captured, OvError *err);
/* the authorization code under the name that the provider gives it; NULL if none */
extern const char *ov_callback_code(OvArena *arena, const OvProvider *p, const OvParam *params);
/* code: NULL where ov_provider_needs_code() says so */
extern OvCode ov_code_request(OvArena *arena, const OvProvider *p, const OvClient *client,
							  const char *code, const char *redirect_uri, const char *verifier,
							  OvHttpRequest *req, OvError *err);
extern OvCode ov_refresh_request(OvArena *arena, const OvProvider *p, const OvClient *client,
								 const char *refresh_token, const char *access_token,
								 OvHttpRequest *req, OvError *err);
/* A short-lived token for a long-lived one, right after the code exchange */
extern OvCode ov_post_exchange_request(OvArena *arena, const OvProvider *p, const OvClient *client,
									   const char *access_token, OvHttpRequest *req, OvError *err);
/* What the provider tells of the account behind a new token */
extern OvCode ov_lookup_request(OvArena *arena, const OvProvider *p, const OvClient *client,
								const char *access_token, OvHttpRequest *req, OvError *err);
/* kind: "refresh_token" or "access_token"; OV_E_NOTFOUND when the rule has no such step */
extern OvCode ov_revoke_request(OvArena *arena, const OvProvider *p, const OvClient *client,
								const char *kind, const char *token, OvHttpRequest *req, OvError *err);

/* ---- responses ---- */
typedef enum OvOutcome
{
	OV_OUT_OK,					/* tokens read */
	OV_OUT_TRANSIENT,			/* try again: transport, 408, 429, 5xx */
	OV_OUT_MALFORMED,			/* bounded retry; the answer made no sense */
	OV_OUT_DEAD,				/* the grant is gone: invalid_grant and its spellings */
	OV_OUT_MISCONFIGURED,		/* invalid_client, unauthorized_client: administrator */
	OV_OUT_DENIED,				/* access_denied, invalid_scope and other refusals */
	OV_OUT_UNSUPPORTED			/* revocation: unsupported_token_type, no endpoint */
} OvOutcome;

typedef struct OvHttpResponse
{
	int			status;			/* 0: no HTTP answer */
	const char *transport_error;	/* NULL if an answer arrived whole */
	bool		sent;			/* may the server have acted on it? */
	const char *content_type;	/* NULL if none */
	const char *retry_after;	/* raw header or NULL */
	const char *date;			/* raw header or NULL */
	const char *body;
	size_t		body_len;
#define OV_MAX_SENT 8
	const char *secrets[OV_MAX_SENT];	/* sent in the request, NULL where none: never quoted from the answer */
} OvHttpResponse;

typedef struct OvTokens
{
	OvOutcome	outcome;
	const char *access_token, *refresh_token, *id_token, *token_type;	/* NULL if absent */
	const char *const *scopes;	/* NULL: the answer did not say */
	int			nscopes;
	int64_t		expires_at;		/* unix seconds; 0 unknown; INT64_MAX never */
	int64_t		refresh_expires_at;	/* 0 unknown; INT64_MAX never */
	const char *subject;		/* provider's subject by the rule, or NULL */
	const char *captured;		/* flat JSON object of captured fields, or NULL */
	/* on failure */
	const char *error;			/* provider's code, cleaned */
	const char *error_description;	/* cleaned and cut */
	int64_t		retry_after;	/* seconds, clamped 0..86400; -1 none */
	char		reason[128];	/* our words */
} OvTokens;

/* RFC 9110 section 6.6.1: the server's clock in unix seconds; -1: it did not say */
extern int64_t ov_answer_date(const OvHttpResponse *resp);
/* The header in seconds, clamped 0..86400; -1: none, or not to be read */
extern int64_t ov_retry_after(const OvHttpResponse *resp, int64_t now);
extern void ov_token_response(OvArena *arena, const OvProvider *p, const OvHttpResponse *resp,
							  bool is_refresh, int64_t now, OvTokens *out);
/* Fills in what the long-lived token's answer brought; out has the code exchange's. */
extern void ov_post_exchange_response(OvArena *arena, const OvProvider *p, const OvHttpResponse *resp,
									  int64_t now, OvTokens *out);
/* captured, scopes and expires_at alone, where the rules say so */
extern void ov_lookup_response(OvArena *arena, const OvProvider *p, const char *access_token,
							   const OvHttpResponse *resp, int64_t now, OvTokens *out);
extern void ov_revoke_response(OvArena *arena, const OvProvider *p, const OvHttpResponse *resp,
							   OvTokens *out);

/* API side: {"header_name":..,"header_value":..,"api_base":..,"headers":{..}} as JSON */
extern OvCode ov_api_credential(OvArena *arena, const OvProvider *p, const char *client_id,
								const char *access_token, const char *token_type, char **json, OvError *err);

/* ---- discovery (RFC 8414, OIDC Discovery) ---- */
/* URLs to try in order for an issuer */
extern OvCode ov_discovery_urls(OvArena *arena, const char *issuer, bool allow_http_loopback,
								char *urls[3], int *n, OvError *err);
/* Checks the document for the issuer (code point equality) and reduces it to
 * the members we use, as JSON text */
extern OvCode ov_discovery_response(OvArena *arena, const char *issuer, const OvHttpResponse *resp,
									bool allow_http_loopback, char **metadata, OvError *err);

#endif							/* OV_PROVIDER_H */
