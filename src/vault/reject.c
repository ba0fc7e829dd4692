/*
 * reject.c
 *	  oauth_report_rejected: an API refused a token; what became of it?
 *
 * The reported token is compared, in constant time, with the fingerprints of
 * the person's current token and of the last ones that it replaced; only a
 * current token is worth asking the provider about.  The answer for a token
 * that was never this person's is the same whether or not it is somebody
 * else's, and whether or not there is a connection.
 */
#include "vault/vault.h"

#include <openssl/crypto.h>

#define MAX_ERROR 255

PG_FUNCTION_INFO_V1(ov_report_rejected);

typedef enum Match
{
	MATCH_NONE, MATCH_SUPERSEDED, MATCH_CURRENT
} Match;

/* Which token of this connection is it?  Every comparison is made. */
static Match
match(OvCall *call, const OvConnection *c, const char *token, unsigned char fingerprint[OV_FINGERPRINT_LEN])
{
	unsigned char subkey[OV_KEY_LEN];
	unsigned char current[OV_FINGERPRINT_LEN];
	bool		superseded = false;

	if (c->wrapped == NULL)
		return MATCH_NONE;
	ov_access_subkey(call, c, subkey);
	ov_token_fingerprint(subkey, token, strlen(token), fingerprint);
	OPENSSL_cleanse(subkey, sizeof(subkey));
	for (size_t i = 0; i + OV_FINGERPRINT_LEN <= c->superseded_len; i += OV_FINGERPRINT_LEN)
		superseded |= CRYPTO_memcmp(c->superseded + i, fingerprint, OV_FINGERPRINT_LEN) == 0;
	if (c->access != NULL)
	{
		ov_cleanse_text(ov_open_access_token(call, c, current));
		if (CRYPTO_memcmp(current, fingerprint, OV_FINGERPRINT_LEN) == 0)
			return MATCH_CURRENT;
	}
	return superseded ? MATCH_SUPERSEDED : MATCH_NONE;
}

static char *
ask_worker(OvCall *call, const OvConnection *c, int http_status, const char *error)
{
	OvMsg	   *m = ov_request();
	char	   *result;

	ov_request_person(m, call);
	ov_msg_put(m, OV_TAG_CONNECTION_ID, c->id, 16);
	ov_msg_put_i64(m, OV_TAG_GENERATION, c->generation);
	ov_msg_put_i64(m, OV_TAG_HTTP_STATUS, http_status);
	ov_msg_put_str(m, OV_TAG_ERROR, error);
	m = ov_send(OV_WORKER_NETWORK, OV_OP_REJECTED);
	result = ov_msg_str(m, OV_TAG_RESULT);
	ov_done_with_answer();
	if (result == NULL)
		elog(ERROR, "the network worker gave no result");
	return result;
}

static char *
judge(OvCall *call, const OvConnection *c, Match found, int http_status, const char *error)
{
	if (found == MATCH_NONE)
		return "unknown_token";
	if (found == MATCH_SUPERSEDED)
		return "superseded";
	/* RFC 6750 section 3.1 */
	if (http_status == 403 || (error != NULL && strcmp(error, "insufficient_scope") == 0))
		return "insufficient_scope";
	/* the API is busy: nothing is wrong with the token */
	if (http_status == 429)
		return "rate_limited";
	if (strcmp(c->status, "reauth_required") == 0)
		return "reauth_required";
	return ask_worker(call, c, http_status, error);
}

static Datum
report_rejected(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	char	   *connector = ov_arg_name(fcinfo, 0, "connector", true, 255);
	char	   *token = ov_arg_secret(call, fcinfo, 1, "token", true);
	char	   *error = ov_arg_name(fcinfo, 3, "error", false, MAX_ERROR);
	char	   *account = ov_arg_name(fcinfo, 4, "account", false, 255);
	unsigned char fingerprint[OV_FINGERPRINT_LEN] = {0};
	int			http_status;
	OvConnection **list;
	OvConnection *c = NULL;
	Match		found = MATCH_NONE;
	int			n;
	char	   *result;

	if (PG_ARGISNULL(2))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"http_status\" must not be null", NULL, NULL);
	http_status = PG_GETARG_INT32(2);
	if (http_status < 400 || http_status > 499)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"http_status\" must be between 400 and 499", NULL,
				 "Other answers of an API say nothing about the token.");
	event->connector = connector;
	event->account = account;

	/* With several accounts the token itself says which one. */
	list = ov_live_connections(call, connector, account, &n);
	for (int i = 0; i < n && found != MATCH_CURRENT; i++)
	{
		unsigned char it[OV_FINGERPRINT_LEN];
		Match		m = match(call, list[i], token, it);

		if (m > found)
		{
			found = m;
			c = list[i];
			memcpy(fingerprint, it, sizeof(fingerprint));
		}
	}
	if (c != NULL)
	{
		event->account = c->account;
		event->connection_id = c->id;
	}
	result = judge(call, c, found, http_status, error);
	event->reason = result;
	event->fingerprint = c != NULL ? fingerprint : NULL;
	ov_audit(call, event);
	event->fingerprint = NULL;
	return ov_copy_text(call, result);
}

Datum
ov_report_rejected(PG_FUNCTION_ARGS)
{
	return ov_person_call(fcinfo, "rejection_reported", 5, report_rejected);
}
