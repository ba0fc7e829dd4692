/*
 * token.c
 *	  oauth_fresh_token, oauth_credential, oauth_fresh_tokens: a live token or
 *	  a precise reason.
 *
 * A token that lives long enough is opened here, with the access subkey that
 * was released to this session; only one past its life makes the caller wait
 * for the network worker.  What the worker stores is read with the latest
 * snapshot.  Nothing of the caller's transaction is written, no row is locked.
 *
 * No token without its audit row: the row is appended (and, with "durable",
 * committed) before the token leaves these functions; if it cannot be, the
 * opened token is cleansed.
 */
#include "vault/vault.h"

#include <openssl/crypto.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "core/json.h"
#include "funcapi.h"
#include "guc.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#define DEFAULT_MIN_TTL (5 * USECS_PER_SEC)
#define MAX_CONNECTORS 1000		/* of one oauth_fresh_tokens */
#define MAX_PURPOSE 1000		/* bytes; it goes into the audit row */
#define REFRESH_ATTEMPTS 3

PG_FUNCTION_INFO_V1(ov_fresh_token);
PG_FUNCTION_INFO_V1(ov_credential);
PG_FUNCTION_INFO_V1(ov_fresh_tokens);

/* What the caller asked for */
typedef struct Want
{
	char	   *connector;
	char	   *account;		/* NULL: the only one */
	char	  **scopes;
	int			nscopes;
	bool		has_min_ttl;
	int64		min_ttl;		/* us */
} Want;

/* ---- how long a token lives ---- */

typedef enum Life
{
	LIFE_LONG,					/* long enough */
	LIFE_SHORT,					/* alive, but for less than was asked */
	LIFE_OVER
} Life;

static int64
lifetime(const OvConnection *c)
{
	return c->expires_at > c->issued_at ? c->expires_at - c->issued_at : 0;
}

static bool
endless(const OvConnection *c)
{
	return c->expires_at == 0 || c->expires_at == DT_NOEND;
}

/*
 * A min_ttl that no token of this connection can have counts as nine tenths of
 * its lifetime: otherwise each call would cost a refresh.
 */
static Life
life_of(const OvConnection *c, const Want *want)
{
	int64		left = 0;
	int64		need;

	if (endless(c))
		return LIFE_LONG;
	left = c->expires_at - GetCurrentTimestamp();
	if (left <= 0 || (c->can_refresh && c->issued_at > GetCurrentTimestamp() + OV_FUTURE_US))
		return LIFE_OVER;
	if (!want->has_min_ttl)
		need = Min(DEFAULT_MIN_TTL, lifetime(c) / 10);
	else
		need = lifetime(c) > 0 ? Min(want->min_ttl, lifetime(c) / 10 * 9) : want->min_ttl;
	return left > need ? LIFE_LONG : LIFE_SHORT;
}

static int64
arg_min_ttl(FunctionCallInfo fcinfo, int n)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz then = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now),
															   PG_GETARG_DATUM(n)));

	if (then < now)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"min_ttl\" must not be negative", NULL, NULL);
	return then - now;
}

/* ---- refreshing ---- */

static void
build_refresh(OvCall *call, const OvConnection *c)
{
	OvMsg	   *m = ov_request();

	ov_request_person(m, call);
	ov_msg_put(m, OV_TAG_CONNECTION_ID, c->id, 16);
	ov_msg_put_i64(m, OV_TAG_GENERATION, c->generation);
}

/* Near its end, and the worker has no date with it before that: keep-alive comes too late for us */
static bool
may_need_renewal(const OvConnection *c)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		lead = Min(ov_guc_refresh_lead * USECS_PER_SEC, lifetime(c) / 5);

	return !endless(c) && c->can_refresh && c->expires_at - now <= lead &&
		(c->refresh_at <= now || c->refresh_at > c->expires_at);
}

/*
 * A good token near its end that nobody is going to renew (policy "lazy", or
 * "recent" and long unused): served, and renewed behind it.  Once a second for
 * one generation is enough for this session; the worker joins the rest.
 */
static void
refresh_behind(OvCall *call, const OvConnection *c)
{
	static unsigned char last_id[16];
	static int64 last_generation;
	static TimestampTz last_at;
	TimestampTz now = GetCurrentTimestamp();

	if (!may_need_renewal(c) || c->held || strcmp(c->connector_status, "active") != 0)
		return;
	if (c->refresh_at != 0 && c->refresh_at <= c->expires_at && strcmp(c->policy, "lazy") != 0)
		return;
	if (memcmp(last_id, c->id, 16) == 0 && last_generation == c->generation && now - last_at < USECS_PER_SEC)
		return;
	memcpy(last_id, c->id, 16);
	last_generation = c->generation;
	last_at = now;
	build_refresh(call, c);
	ov_post_request(OV_WORKER_NETWORK, OV_OP_REFRESH);
}

pg_noreturn static void
ended(const OvConnection *c, const char *reason)
{
	ov_raise(ERRCODE_OV_REAUTHORIZATION_REQUIRED, "the person has to consent again",
			 ov_detail("reason", reason,
					   "since", ov_time_text(endless(c) ? c->since : Min(c->expires_at, GetCurrentTimestamp())),
					   "expires_at", ov_time_text(c->expires_at), NULL),
			 "Call oauth_begin for this connector and account and let the person consent.");
}

/* The token is past its life and must not be renewed now: why? */
static void
check_renewable(OvCall *call, const OvConnection *c)
{
	if (c->held)
	{
		unsigned char subkey[OV_KEY_LEN];

		/* A vault file that is of another vault altogether is the better reason. */
		if (c->wrapped != NULL)
			ov_access_subkey(call, c, subkey);
		OPENSSL_cleanse(subkey, sizeof(subkey));
		ov_raise(ERRCODE_OV_VAULT_HELD, "this copy of the database has not been claimed",
				 ov_detail("reason", c->held_why, NULL),
				 "Nothing is sent to providers from a copy: use the original, or have an administrator call oauth_claim.");
	}
	if (strcmp(c->connector_status, "active") != 0)
		ov_raise(ERRCODE_OV_CONNECTOR_MISCONFIGURED, "the connector is out of service",
				 ov_detail("reason", c->connector_reason ? c->connector_reason : c->connector_status, NULL),
				 "An administrator must put the connector right; the connection itself is kept.");
	if (!c->can_refresh)
		ended(c, "expired_no_refresh_token");
}

/* The connection with a token that lives as long as was asked. */
static OvConnection *
with_live_token(OvCall *call, OvConnection *c, const Want *want)
{
	for (int attempt = 1;; attempt++)
	{
		Life		life = life_of(c, want);
		int64		before = c->generation;

		ov_connection_usable(c);
		if (life == LIFE_LONG)
			return c;
		if (life == LIFE_OVER)
			check_renewable(call, c);
		else if (c->held || strcmp(c->connector_status, "active") != 0)
			return c;			/* alive, and nothing may be sent */
		else if (!c->can_refresh && want->has_min_ttl)
			ended(c, "expires_before_min_ttl");
		else if (!c->can_refresh)
			return c;

		if (attempt > REFRESH_ATTEMPTS && life != LIFE_OVER)
			return c;
		if (attempt > REFRESH_ATTEMPTS)
			ov_raise(ERRCODE_OV_PROVIDER_UNAVAILABLE, "the provider gives tokens that have expired already",
					 ov_detail("reason", "expired on arrival", NULL),
					 "Compare the clocks of this server and the provider.");
		build_refresh(call, c);
		if (life == LIFE_OVER || want->has_min_ttl)
		{
			(void) ov_send(OV_WORKER_NETWORK, OV_OP_REFRESH);
			ov_done_with_answer();
		}
		else if (!ov_send_quietly(OV_WORKER_NETWORK, OV_OP_REFRESH))
		{
			/* What is left of it still serves; if nothing is, the reason comes out next. */
			if (life_of(c, want) != LIFE_OVER)
				return c;
			continue;
		}
		c = ov_connection_reload(call, c);
		/* As long-lived as the provider makes them, or as the worker left it. */
		if (life_of(c, want) != LIFE_OVER && (c->generation != before || !want->has_min_ttl))
		{
			ov_connection_usable(c);
			return c;
		}
	}
}

static void
check_scopes(const OvConnection *c, const Want *want)
{
	char	  **missing = palloc0(sizeof(char *) * (want->nscopes + 1));
	int			n = 0;

	for (int i = 0; i < want->nscopes; i++)
		if (!ov_array_has(c->scopes, c->nscopes, want->scopes[i]))
			missing[n++] = want->scopes[i];
	if (n > 0)
		ov_raise(ERRCODE_OV_INSUFFICIENT_SCOPE, "the person has not granted these scopes",
				 ov_detail("missing_scopes", ov_array_json(missing, n), NULL),
				 "Call oauth_begin with scopes => the missing ones and let the person consent.");
}

/* ---- the story ---- */

/* The connection, with a token that may be given out */
static OvConnection *
find(OvCall *call, const Want *want, OvEvent *event)
{
	OvConnection *c;

	event->connector = want->connector;
	event->account = want->account;
	event->scopes = want->scopes;
	event->nscopes = want->nscopes;

	c = ov_connection(call, want->connector, want->account);
	event->account = c->account;
	event->connection_id = c->id;
	ov_connection_usable(c);
	check_scopes(c, want);
	ov_check_agent(call, c, event);
	c = with_live_token(call, c, want);
	ov_hot_remember(c);
	refresh_behind(call, c);
	if (want->scopes == NULL)
	{
		event->scopes = c->scopes;
		event->nscopes = c->nscopes;
	}
	return c;
}

/* The token, once its audit row stands */
static text *
audited(OvCall *call, OvEvent *event, text *token, const unsigned char fingerprint[OV_FINGERPRINT_LEN])
{
	event->fingerprint = fingerprint;
	PG_TRY();
	{
		ov_audit(call, event);
	}
	PG_CATCH();
	{
		ov_cleanse_text(token);
		PG_RE_THROW();
	}
	PG_END_TRY();
	event->fingerprint = NULL;
	return token;
}

static text *
hand_out(OvCall *call, const OvConnection *c, OvEvent *event)
{
	unsigned char fingerprint[OV_FINGERPRINT_LEN];
	text	   *token = ov_open_access_token(call, c, fingerprint);

	return audited(call, event, token, fingerprint);
}

/* (connector, account, scopes, min_ttl, purpose, assertion) */
static void
read_arguments(FunctionCallInfo fcinfo, Want *want, OvEvent *event)
{
	memset(want, 0, sizeof(*want));
	want->connector = ov_arg_name(fcinfo, 0, "connector", true, 255);
	event->connector = want->connector;
	want->account = ov_arg_name(fcinfo, 1, "account", false, 255);
	want->scopes = ov_arg_text_array(fcinfo, 2, "scopes", &want->nscopes);
	want->has_min_ttl = !PG_ARGISNULL(3);
	if (want->has_min_ttl)
		want->min_ttl = arg_min_ttl(fcinfo, 3);
	event->purpose = ov_arg_name(fcinfo, 4, "purpose", false, MAX_PURPOSE);
}

static Datum
fresh_token(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	Want		want;

	read_arguments(fcinfo, &want, event);
	return PointerGetDatum(hand_out(call, find(call, &want, event), event));
}

/*
 * The same for the case that happens all the time: somebody known, a token with
 * enough life in it, a key at hand.  NULL: the long way has to be taken.
 */
static text *
hot_token(FunctionCallInfo fcinfo)
{
	OvCall		call = {.caller = CurrentMemoryContext};
	OvEvent		event = {.event = "token_access", .outcome = "ok"};
	Want		want;
	OvConnection c;
	unsigned char fingerprint[OV_FINGERPRINT_LEN];
	text	   *volatile token = NULL;

	if (!ov_call_possible() || PG_ARGISNULL(0) || (call.person = ov_call_person_at_hand(fcinfo, 5)) == NULL)
		return NULL;
	read_arguments(fcinfo, &want, &event);
	if (!ov_hot_connection(call.person, want.connector, want.account, &c) ||
		life_of(&c, &want) != LIFE_LONG || may_need_renewal(&c))
		return NULL;
	for (int i = 0; i < want.nscopes; i++)
		if (!ov_array_has(c.scopes, c.nscopes, want.scopes[i]))
			return NULL;
	call.role = GetUserNameFromId(GetUserId(), false);
	event.account = c.account;
	event.connection_id = c.id;
	event.scopes = want.scopes ? want.scopes : c.scopes;
	event.nscopes = want.scopes ? want.nscopes : c.nscopes;
	if ((token = ov_open_with_cached_key(&call, &c, fingerprint)) == NULL)
		return NULL;
	PG_TRY();
	{
		token = audited(&call, &event, token, fingerprint);
	}
	PG_CATCH();
	{
		ov_audit_denial(&call, &event, geterrcode());
		PG_RE_THROW();
	}
	PG_END_TRY();
	return token;
}

Datum
ov_fresh_token(PG_FUNCTION_ARGS)
{
	text	   *token = hot_token(fcinfo);

	if (token != NULL)
		PG_RETURN_TEXT_P(token);
	return ov_person_call(fcinfo, "token_access", 5, fresh_token);
}

/* ---- oauth_credential ---- */

pg_noreturn static void
broken_rules(const OvError *err)
{
	ov_raise(err->code == OV_E_DENIED ? ERRCODE_OV_POLICY_DENIED : ERRCODE_OV_CONNECTOR_MISCONFIGURED,
			 "the connector's provider rules cannot be used",
			 ov_detail("reason", err->message, NULL), "An administrator must put the connector right.");
}

/*
 * The provider's rules as they apply to this grant.  A caller sends the token
 * where they say, so the hosts must be those that the person consented to.
 */
static const OvProvider *
provider_of(OvArena *arena, const OvConnection *c, const char **client_id)
{
	OvConnector *connector = ov_connector_by_id(c->connector_id);
	const OvProvider *provider;
	const char *const *hosts;
	int			nhosts;
	unsigned char digest[32];
	OvError		err = {0};
	OvCode		code;

	if (connector == NULL)
		ov_no_connection("unknown_connector");
	*client_id = connector->client_id;
	code = ov_connector_provider(arena, connector, c->metadata, &provider, &err);
	if (code == OV_OK)
		code = ov_provider_hosts(arena, provider, &hosts, &nhosts, digest, &err);
	if (code == OV_OK && memcmp(digest, c->hosts_digest, sizeof(digest)) != 0)
		ended(c, "hosts_changed");
	if (code == OV_OK)
		code = ov_hosts_permitted(arena, connector, c->metadata, provider, &err);
	if (code != OV_OK)
		broken_rules(&err);
	return provider;
}

/* How to send the token: {header_name, header_value, api_base, headers} */
static const OvJson *
api_credential(OvArena *arena, const OvProvider *provider, const char *client_id, const OvConnection *c, const text *token)
{
	OvError		err = {0};
	char	   *json_text;
	const OvJson *json = NULL;
	OvCode		code;

	code = ov_api_credential(arena, provider, client_id,
							 ov_arena_strndup(arena, VARDATA_ANY(token), VARSIZE_ANY_EXHDR(token)), c->token_type, &json_text, &err);
	if (code == OV_OK)
		code = ov_json_parse(arena, json_text, strlen(json_text), &json, &err);
	if (code == OV_OK && ov_arena_failed(arena))
		code = ov_fail(&err, OV_E_NOMEM, "out of memory");
	if (code != OV_OK)
		broken_rules(&err);
	return json;
}

static Datum
text_member(const OvJson *json, const char *key, bool *isnull)
{
	const char *s = ov_json_get_string(json, key);

	*isnull = s == NULL;
	return ov_text_datum(s);
}

/* The one row; of the copies of the token only the row and the caller's text are left. */
static Datum
credential_row(OvCall *call, FunctionCallInfo fcinfo, const OvConnection *c, const OvProvider *provider,
			   const char *client_id, text *token)
{
	OvArena    *arena = ov_call_arena(call);
	const OvJson *json = api_credential(arena, provider, client_id, c, token);
	const OvJson *headers;
	OvStr		s;
	Datum		values[8];
	bool		nulls[8] = {false};
	Datum		row;

	values[0] = PointerGetDatum(token);
	values[1] = ov_text_datum(c->token_type);
	values[2] = text_member(json, "header_name", &nulls[2]);
	values[3] = text_member(json, "header_value", &nulls[3]);
	values[4] = text_member(json, "api_base", &nulls[4]);
	headers = ov_json_get(json, "headers");
	ov_str_init(&s, arena);
	if (headers != NULL && headers->type == OV_JSON_OBJECT)
		ov_json_write(&s, headers);
	else
		ov_str_puts(&s, "{}");
	values[5] = ov_jsonb_datum(s.data);
	nulls[6] = c->expires_at == 0;
	values[6] = TimestampTzGetDatum(c->expires_at);
	values[7] = ov_text_array_datum((const char *const *) c->scopes, c->nscopes);
	row = ov_row(call, fcinfo, values, nulls);
	if (!nulls[3])
		ov_cleanse_text(DatumGetTextPP(values[3]));
	/* a rule may put the token into one of these too */
	ov_cleanse_text((text *) DatumGetPointer(values[5]));
	return row;
}

static Datum
credential(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	OvArena    *arena = ov_call_arena(call);
	Want		want;
	OvConnection *c;
	const OvProvider *provider;
	const char *client_id;
	text	   *token;
	volatile Datum row = (Datum) 0;

	read_arguments(fcinfo, &want, event);
	c = find(call, &want, event);
	provider = provider_of(arena, c, &client_id);
	token = hand_out(call, c, event);
	PG_TRY();
	{
		row = credential_row(call, fcinfo, c, provider, client_id, token);
	}
	PG_FINALLY();
	{
		ov_cleanse_text(token);
	}
	PG_END_TRY();
	return row;
}

Datum
ov_credential(PG_FUNCTION_ARGS)
{
	return ov_person_call(fcinfo, "token_access", 5, credential);
}

/* ---- oauth_fresh_tokens ---- */

/*
 * A tuplestore that stays in memory: tokens do not belong into a temporary
 * file, however small work_mem is.
 */
static void
begin_result(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old;

	InitMaterializedSRF(fcinfo, 0);
	old = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	tuplestore_end(rsinfo->setResult);
	rsinfo->setResult = tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0,
											  false, 1024 * 1024);
	MemoryContextSwitchTo(old);
}

static Datum
detail_of(const ErrorData *error, bool *isnull)
{
	OvArena    *arena = ov_arena_new();
	const OvJson *json;

	*isnull = error->detail == NULL ||
		ov_json_parse(arena, error->detail, strlen(error->detail), &json, NULL) != OV_OK;
	ov_arena_free(arena);
	return *isnull ? (Datum) 0 : ov_jsonb_datum(error->detail);
}

/* Is this an answer about one connector, as against one about the whole call? */
static bool
about_connector(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_TO_CATEGORY(ERRCODE_OV_NO_CONNECTION) &&
		sqlstate != ERRCODE_OV_IDENTITY_REQUIRED && sqlstate != ERRCODE_OV_IDENTITY_INVALID;
}

/* One row: a token, or the error instead of raising it. */
static void
put_token(OvCall *call, ReturnSetInfo *rsinfo, const Want *want, const char *purpose)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	OvEvent		event = {.event = "token_access", .outcome = "ok", .purpose = purpose};
	OvConnection *c = NULL;
	text	   *volatile token = NULL;
	ErrorData  *volatile error = NULL;
	Datum		values[6] = {0};
	bool		nulls[6] = {false, true, true, true, true, true};

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		c = find(call, want, &event);
		token = hand_out(call, c, &event);
		values[0] = ov_text_datum(want->connector);
		values[1] = ov_text_datum(c->account);
		values[2] = PointerGetDatum(token);
		values[3] = TimestampTzGetDatum(c->expires_at);
		nulls[1] = nulls[2] = false;
		nulls[3] = c->expires_at == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		ov_cleanse_text(token);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (token != NULL)
			ov_cleanse_text(token);
		error = CopyErrorData();
		FlushErrorState();
		ov_audit_denial(call, &event, error->sqlerrcode);
		RollbackAndReleaseCurrentSubTransaction();
		if (!about_connector(error->sqlerrcode))
		{
			MemoryContextSwitchTo(context);
			CurrentResourceOwner = owner;
			ReThrowError(error);
		}
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error == NULL)
		return;
	values[0] = ov_text_datum(want->connector);
	nulls[1] = want->account == NULL;
	values[1] = ov_text_datum(want->account);
	nulls[2] = nulls[3] = true;
	nulls[4] = false;
	values[4] = ov_text_datum(unpack_sql_state(error->sqlerrcode));
	values[5] = detail_of(error, &nulls[5]);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	FreeErrorData(error);
}

static Datum
fresh_tokens(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Want		want = {0};
	int			n;
	char	  **connectors = ov_arg_text_array(fcinfo, 0, "connectors", &n);
	char	   *purpose;

	if (connectors == NULL)
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"connectors\" must not be null", NULL, NULL);
	if (n > MAX_CONNECTORS)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"connectors\" has too many elements",
				 NULL, psprintf("At most %d are answered in one call.", MAX_CONNECTORS));
	want.has_min_ttl = !PG_ARGISNULL(1);
	if (want.has_min_ttl)
		want.min_ttl = arg_min_ttl(fcinfo, 1);
	purpose = ov_arg_name(fcinfo, 2, "purpose", false, MAX_PURPOSE);

	for (int i = 0; i < n; i++)
	{
		OvConnection **list;
		int			accounts;

		CHECK_FOR_INTERRUPTS();
		want.connector = connectors[i];
		want.account = NULL;
		list = ov_live_connections(call, want.connector, NULL, &accounts);
		if (accounts == 0)
			put_token(call, rsinfo, &want, purpose);
		for (int k = 0; k < accounts; k++)
		{
			want.account = list[k]->account;
			put_token(call, rsinfo, &want, purpose);
		}
	}
	return (Datum) 0;
}

Datum
ov_fresh_tokens(PG_FUNCTION_ARGS)
{
	begin_result(fcinfo);
	return ov_person_call(fcinfo, "token_access", 3, fresh_tokens);
}
