/*
 * flow.c
 *	  oauth_begin, oauth_complete, oauth_callback: how a person connects an
 *	  account.
 *
 * The session decides what may be asked for (scopes, redirect URI, account
 * label); the network worker makes and keeps the secrets of the flow, sends the
 * code and commits what comes back, before it answers.  A caller that rolls
 * back does not undo a consent: oauth_revoke does.
 *
 * code and state are secrets until they are used: they stay in the call's
 * arena and in the request, which are cleansed.
 */
#include "vault/vault.h"

#include "core/codec.h"
#include "core/json.h"
#include "utils/builtins.h"

#define MAX_ACCOUNT 255
#define MAX_TEXT 2048			/* of login_hint, return_to and the like */
#define MAX_CALLBACK (32 * 1024)

PG_FUNCTION_INFO_V1(ov_begin);
PG_FUNCTION_INFO_V1(ov_complete);
PG_FUNCTION_INFO_V1(ov_callback);

/* ---- oauth_begin ---- */

/*
 * The live connection that this consent renews or widens, or NULL for a new
 * one.  *account NULL becomes the only one's label, or the unnamed one.
 */
static OvConnection *
existing_connection(OvCall *call, const char *connector, char **account)
{
	int			n;
	OvConnection **list = ov_live_connections(call, connector, *account, &n);

	if (n > 1)
		ov_ambiguous_account(list, n);
	if (*account == NULL)
		*account = n == 1 ? list[0]->account : "";
	return n == 1 ? list[0] : NULL;
}

static char *
redirect_uri(const OvConnector *connector, char *asked)
{
	if (connector->nredirect_uris == 0)
		ov_raise(ERRCODE_OV_CONNECTOR_MISCONFIGURED, "the connector has no redirect URI",
				 ov_detail("reason", "no redirect URI", NULL),
				 "An administrator must set one with oauth_alter_connector.");
	if (asked == NULL)
		return connector->redirect_uris[0];
	/* RFC 9700 section 2.1: exact string matching */
	if (!ov_array_has(connector->redirect_uris, connector->nredirect_uris, asked))
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"redirect_uri\" is not one of the connector's",
				 NULL, "It must equal one of the connector's redirect URIs, character by character.");
	return asked;
}

/* Straight from the answer: no copy but the one that is cleansed below */
static Datum
secret_datum(const OvMsg *m, OvTag tag)
{
	const void *data;
	size_t		len;

	return ov_msg_get(m, tag, &data, &len) ? PointerGetDatum(cstring_to_text_with_len(data, len)) : OV_NULL;
}

static Datum
begin(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	char	   *name = ov_arg_name(fcinfo, 0, "connector", true, 255);
	int			nasked,
				n;
	char	  **asked = ov_arg_text_array(fcinfo, 1, "scopes", &nasked);
	char	   *account = ov_arg_name(fcinfo, 2, "account", false, MAX_ACCOUNT);
	char	   *uri = ov_arg_name(fcinfo, 3, "redirect_uri", false, MAX_TEXT);
	char	   *hint = ov_arg_name(fcinfo, 4, "login_hint", false, MAX_TEXT);
	char	   *return_to = ov_arg_name(fcinfo, 5, "return_to", false, MAX_TEXT);
	char	   *params = ov_arg_json_object(fcinfo, 6, "params");
	OvConnector *connector;
	OvConnection *existing;
	char	  **scopes;
	OvMsg	   *m;
	Datum		values[3];
	bool		nulls[3] = {false};
	Datum		row;

	event->connector = name;
	event->account = account;
	event->scopes = asked;
	event->nscopes = nasked;
	ov_check_onboarded(call);
	connector = ov_connector_by_name(name);
	if (connector == NULL)
		ov_no_connection("unknown_connector");
	existing = existing_connection(call, name, &account);
	scopes = ov_scopes_to_ask(call, connector, existing, asked, nasked, &n);
	uri = redirect_uri(connector, uri);

	m = ov_request();
	ov_request_person(m, call);
	ov_msg_put_str(m, OV_TAG_CONNECTOR, name);
	for (int i = 0; i < n; i++)
		ov_msg_put_str(m, OV_TAG_SCOPE, scopes[i]);
	ov_msg_put_str(m, OV_TAG_ACCOUNT, account);
	ov_msg_put_str(m, OV_TAG_REDIRECT_URI, uri);
	ov_msg_put_str(m, OV_TAG_LOGIN_HINT, hint);
	ov_msg_put_str(m, OV_TAG_RETURN_TO, return_to);
	ov_msg_put_str(m, OV_TAG_PARAMS, params);
	event->event = NULL;		/* from here on the worker keeps the trail */
	m = ov_send(OV_WORKER_NETWORK, OV_OP_BEGIN);
	values[0] = secret_datum(m, OV_TAG_URL);
	values[1] = secret_datum(m, OV_TAG_STATE);
	values[2] = TimestampTzGetDatum(ov_msg_get_i64(m, OV_TAG_EXPIRES, 0));
	ov_done_with_answer();
	if (values[0] == OV_NULL || values[1] == OV_NULL)
		elog(ERROR, "the network worker began no flow");
	ov_audit_settle();
	row = ov_row(call, fcinfo, values, nulls);
	/* the state is in both */
	ov_cleanse_text(DatumGetTextPP(values[0]));
	ov_cleanse_text(DatumGetTextPP(values[1]));
	return row;
}

Datum
ov_begin(PG_FUNCTION_ARGS)
{
	return ov_person_call(fcinfo, "flow_begun", 7, begin);
}

/* ---- oauth_complete and oauth_callback ---- */

/* What the redirect brought */
typedef struct Redirect
{
	const char *state;
	const char *code;
	const char *iss;
	const char *error;
	const char *error_description;
	const char *params;			/* the rest, a flat JSON object */
	const char *query;			/* as it came; NULL if unknown */
} Redirect;

/* The parameters that the flow itself is about */
static const char **
named(Redirect *r, const char *name)
{
	if (strcmp(name, "state") == 0)
		return &r->state;
	if (strcmp(name, "code") == 0)
		return &r->code;
	if (strcmp(name, "iss") == 0)
		return &r->iss;
	if (strcmp(name, "error") == 0)
		return &r->error;
	if (strcmp(name, "error_description") == 0)
		return &r->error_description;
	return NULL;
}

/* The same message as for a state that nobody has begun. */
pg_noreturn static void
invalid_flow(void)
{
	ov_raise(ERRCODE_OV_FLOW_INVALID, "the authorization flow is not valid",
			 ov_detail("reason", "unknown, expired, used or of another person", NULL),
			 "Call oauth_begin again and send the person to the new URL.");
}

/*
 * RFC 9700 section 2.1.2: a redirect that carries tokens answers a request that
 * is never made here.
 */
static void
refuse_token(const char *name)
{
	if (strcmp(name, "access_token") == 0 || strcmp(name, "refresh_token") == 0)
		invalid_flow();
}

static Datum
finish(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event, const Redirect *r)
{
	OvMsg	   *m = ov_request();
	const void *id = NULL;
	size_t		len = 0;
	unsigned char connection_id[16];
	char	   *return_to;
	OvConnection *c;
	Datum		values[8];
	bool		nulls[8] = {false};

	ov_request_person(m, call);
	ov_msg_put_str(m, OV_TAG_STATE, r->state);
	ov_msg_put_str(m, OV_TAG_CODE, r->code);
	ov_msg_put_str(m, OV_TAG_ISS, r->iss);
	ov_msg_put_str(m, OV_TAG_ERROR, r->error);
	ov_msg_put_str(m, OV_TAG_ERROR_DESCRIPTION, r->error_description);
	ov_msg_put_str(m, OV_TAG_PARAMS, r->params);
	ov_msg_put_str(m, OV_TAG_QUERY, r->query);
	event->event = NULL;		/* from here on the worker keeps the trail */
	m = ov_send(OV_WORKER_NETWORK, OV_OP_COMPLETE);
	if (!ov_msg_get(m, OV_TAG_CONNECTION_ID, &id, &len) || len != 16)
		elog(ERROR, "the network worker named no connection");
	memcpy(connection_id, id, 16);
	return_to = ov_msg_str(m, OV_TAG_RETURN_TO);
	ov_done_with_answer();
	ov_audit_settle();

	c = ov_connection_by_id(call, connection_id);
	values[0] = ov_uuid_datum(c->id);
	values[1] = ov_text_datum(c->connector);
	values[2] = ov_text_datum(c->account);
	nulls[3] = c->provider_subject == NULL;
	values[3] = ov_text_datum(c->provider_subject);
	values[4] = ov_text_datum(c->status);
	values[5] = ov_text_array_datum((const char *const *) c->scopes, c->nscopes);
	nulls[6] = c->expires_at == 0;
	values[6] = TimestampTzGetDatum(c->expires_at);
	nulls[7] = return_to == NULL;
	values[7] = ov_text_datum(return_to);
	return ov_row(call, fcinfo, values, nulls);
}

/* Moves error and error_description from params to where they belong. */
static const char *
take_errors(OvArena *arena, const char *params, Redirect *r)
{
	const OvJson *json;
	OvError		err = {0};
	OvStr		rest;
	bool		first = true;

	if (ov_json_parse(arena, params, strlen(params), &json, &err) != OV_OK)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"params\" cannot be used",
				 ov_detail("reason", err.message, NULL), NULL);
	ov_str_init(&rest, arena);
	ov_str_putc(&rest, '{');
	for (const OvJson *e = json->child; e != NULL; e = e->next)
	{
		const char **place = named(r, e->key);

		refuse_token(e->key);
		if (place == &r->state || place == &r->code || place == &r->iss)
			ov_raise(ERRCODE_INVALID_PARAMETER_VALUE,
					 "\"state\", \"code\" and \"iss\" are parameters of their own, not members of \"params\"", NULL, NULL);
		if (place != NULL && ov_json_string(e) != NULL)
		{
			*place = e->str;
			continue;
		}
		if (!first)
			ov_str_putc(&rest, ',');
		first = false;
		ov_json_quote(&rest, e->key, strlen(e->key));
		ov_str_putc(&rest, ':');
		ov_json_write(&rest, e);
	}
	ov_str_putc(&rest, '}');
	return rest.data;
}

static Datum
complete(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	Redirect	r = {0};

	r.params = take_errors(ov_call_arena(call), ov_arg_json_object(fcinfo, 3, "params"), &r);
	r.state = ov_arg_secret(call, fcinfo, 0, "state", true);
	/* A refused consent brings an error in place of a code. */
	r.code = ov_arg_secret(call, fcinfo, 1, "code", r.error == NULL);
	r.iss = ov_arg_name(fcinfo, 2, "iss", false, MAX_TEXT);
	if (r.code != NULL && r.code[0] == '\0')
		r.code = NULL;
	return finish(call, fcinfo, event, &r);
}

Datum
ov_complete(PG_FUNCTION_ARGS)
{
	return ov_person_call(fcinfo, "flow_failed", 4, complete);
}

/* The query of a callback URL, or the string itself when it is only a query. */
static const char *
query_of(OvArena *arena, const char *url)
{
	const char *mark;

	if (pg_strncasecmp(url, "http://", 7) == 0 || pg_strncasecmp(url, "https://", 8) == 0)
	{
		OvUrl		parsed;
		OvError		err = {0};

		if (ov_url_parse(arena, url, &parsed, &err) != OV_OK)
			ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"url\" is not a URL",
					 ov_detail("reason", err.message, NULL), NULL);
		return parsed.query ? parsed.query : "";
	}
	/* a private-use scheme (RFC 8252 section 7.1), a path, or a bare query */
	mark = strchr(url, '?');
	if (mark != NULL)
		url = mark + 1;
	else if (strstr(url, "://") != NULL)
		return "";
	return ov_arena_strndup(arena, url, strcspn(url, "#"));
}

static Datum
callback(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	OvArena    *arena = ov_call_arena(call);
	const char *url = ov_arg_secret(call, fcinfo, 0, "url", true);
	Redirect	r = {0};
	OvParam    *params;
	OvStr		rest;
	OvError		err = {0};
	bool		first = true;

	if (strlen(url) > MAX_CALLBACK)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE,
				 psprintf("parameter \"url\" must not be longer than %d bytes", MAX_CALLBACK), NULL, NULL);
	r.query = query_of(arena, url);
	if (ov_form_parse(arena, r.query, strlen(r.query), &params, &err) != OV_OK)
		invalid_flow();
	ov_str_init(&rest, arena);
	ov_str_putc(&rest, '{');
	for (const OvParam *p = params; p != NULL; p = p->next)
	{
		const char **place = named(&r, p->name);

		refuse_token(p->name);
		/* RFC 6749 section 3.1: parameters must not be included more than once */
		if (ov_param_count(params, p->name) > 1)
			invalid_flow();
		if (place != NULL)
		{
			*place = p->value;
			continue;
		}
		if (!first)
			ov_str_putc(&rest, ',');
		first = false;
		ov_json_quote(&rest, p->name, strlen(p->name));
		ov_str_putc(&rest, ':');
		ov_json_quote(&rest, p->value, strlen(p->value));
	}
	ov_str_putc(&rest, '}');
	r.params = rest.data;
	if (ov_arena_failed(arena))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	/* The code may have another name: the provider's rules tell (ov_callback_code). */
	if (r.state == NULL || r.state[0] == '\0')
		invalid_flow();
	return finish(call, fcinfo, event, &r);
}

Datum
ov_callback(PG_FUNCTION_ARGS)
{
	return ov_person_call(fcinfo, "flow_failed", 1, callback);
}
