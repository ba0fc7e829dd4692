/*
 * import.c
 *	  Grants that were made elsewhere: from a table of plaintext tokens, from
 *	  another vault.
 *
 * Everything happens in the administrator's transaction: rolled back, nothing
 * is there.  Only the sealing is asked of the key worker, so what goes in can no
 * more be read by the administrator than any other token.  The connector's row
 * is held against being dropped, the person's key against being rotated away,
 * the person against being offboarded meanwhile (person_lock.c).
 *
 * A grant that is there already is never touched: in one call that is an error,
 * in many it is an outcome, so that an import that was cut off is simply called
 * again.  Copies of the tokens live in the call's arena and are cleansed; what
 * the client sent is its own.
 */
#include "vault/vault.h"

#include <openssl/crypto.h>

#include "access/xact.h"
#include "conceal.h"
#include "core/codec.h"
#include "core/json.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "person_lock.h"
#include "redact.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "worker/network.h"

#define MAX_ID 255
#define MAX_TOKEN (16 * 1024)
#define MAX_METADATA (8 * 1024)
#define MAX_ROWS 1000

PG_FUNCTION_INFO_V1(ov_import_connection);
PG_FUNCTION_INFO_V1(ov_import_connections);

/* A grant as it is handed in */
typedef struct Import
{
	const char *tenant;
	const char *user_id;
	const char *account;
	const char *access;
	const char *refresh;		/* NULL: none */
	TimestampTz expires_at;		/* 0: unknown */
	char	  **scopes;
	int			nscopes;
	const char *metadata;		/* JSON object: what the provider's rules capture at a consent */
	const char *subject;		/* NULL: not known */
} Import;

/* Where it goes: looked up once for all rows of a call */
typedef struct Target
{
	OvHome		home;
	OvConnector *connector;
	const char *metadata;		/* that hosts_digest was computed with */
	unsigned char hosts_digest[32];
} Target;

static void
invalid(const char *name, const char *what, const char *hint)
{
	ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, psprintf("parameter \"%s\" %s", name, what), NULL, hint);
}

static void
find_target(OvCall *call, const char *name, Target *t)
{
	static OvQuery hold = {
		"SELECT 1 FROM oauth_vault.connector WHERE name = $1 AND status <> 'dropped' FOR KEY SHARE", "t"
	};
	Datum		arg = ov_text_datum(name);

	(void) ov_current_settings();	/* OV040 without a keyring */
	t->metadata = NULL;
	if (ov_query(&hold, OV_WRITE, &arg, NULL) == 0 || (t->connector = ov_connector_by_name(name)) == NULL)
		ov_raise(ERRCODE_UNDEFINED_OBJECT, psprintf("connector \"%s\" does not exist", name), NULL,
				 "Create it first: SELECT name FROM oauth_vault.oauth_connectors lists them.");
	if (!ov_home(&t->home))
		elog(ERROR, "there is a connector, but no home row");
	if (t->home.held)
		ov_raise(ERRCODE_OV_VAULT_HELD, "this copy of the database has not been claimed",
				 ov_detail("reason", t->home.why, NULL),
				 "Import into the original, or have an administrator call oauth_claim.");
}

/* The hosts that this grant's tokens may ever go to are fixed here, as at a consent. */
static void
bind_hosts(OvCall *call, Target *t, const char *metadata)
{
	OvArena    *arena = ov_call_arena(call);
	const OvProvider *provider;
	const char *const *hosts;
	int			nhosts;
	OvError		err = {0};
	OvCode		code;

	if (t->metadata != NULL && strcmp(t->metadata, metadata) == 0)
		return;
	code = ov_connector_provider(arena, t->connector, metadata, &provider, &err);
	if (code == OV_OK)
		code = ov_provider_hosts(arena, provider, &hosts, &nhosts, t->hosts_digest, &err);
	if (code == OV_OK)
		code = ov_hosts_permitted(arena, t->connector, metadata, provider, &err);
	if (code != OV_OK)
		ov_raise(code == OV_E_DENIED ? ERRCODE_OV_POLICY_DENIED : ERRCODE_OV_CONNECTOR_MISCONFIGURED,
				 "the connector's rules cannot be used with this grant",
				 ov_detail("reason", err.message, "connector", t->connector->name, NULL),
				 "Give in \"metadata\" what the provider's rules capture at a consent (a shop, a tenant, a realm).");
	t->metadata = pstrdup(metadata);
}

/* RFC 6749 appendix A.12 and A.17 */
static void
check_token(const char *token, const char *name)
{
	if (token[0] == '\0')
		invalid(name, "must not be empty", NULL);
	if (strlen(token) > MAX_TOKEN)
		invalid(name, "is too long", "Tokens have at most 16384 bytes.");
	for (const char *c = token; *c != '\0'; c++)
		if (*c < 0x20 || *c > 0x7e)
			invalid(name, "has a character that no token has", "A token is printable ASCII.");
}

static void
check(const Import *in)
{
	if (strlen(in->tenant) > MAX_ID || strlen(in->user_id) > MAX_ID || strlen(in->account) > MAX_ID)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "\"tenant\", \"user_id\" or \"account\" is longer than 255 bytes", NULL, NULL);
	if (in->user_id[0] == '\0')
		invalid("user_id", "must not be empty", "A grant belongs to a person: the \"sub\" of their assertions.");
	check_token(in->access, "access_token");
	if (in->refresh != NULL)
		check_token(in->refresh, "refresh_token");
	if (strlen(in->metadata) > MAX_METADATA)
		invalid("metadata", "is too long", NULL);
	ov_check_scopes(in->scopes, in->nscopes, "scopes");
}

/* false: there is a live connection of this name. */
static bool
import(OvCall *call, Target *t, const Import *in, unsigned char id[16])
{
	static OvQuery exists = {
		"SELECT 1 FROM oauth_vault.connection WHERE tenant = $1 AND user_id = $2 AND connector_id = $3 AND account = $4"
		" AND status NOT IN ('revoking', 'revoked')", "ttut"
	};
	static OvQuery insert = {
		"INSERT INTO oauth_vault.connection (connection_id, tenant, user_id, connector_id, account, status, key_id,"
		" token_generation, hosts_digest, expires_at, refresh_at, issued_at, requested_scopes, scopes, provider_subject,"
		" metadata, access_token, refresh_token)"
		" VALUES ($1, $2, $3, $4, $5, 'active', $6, 1, $7, $8, $9, $10, $11, $11, $12, $13, $14, $15) ON CONFLICT DO NOTHING",
		"uttutlbzzzatjbb"
	};
	TimestampTz now = GetCurrentTimestamp();
	OvSeal		s = {
		.owner = {.kind = OV_KIND_USER, .tenant = in->tenant, .user_id = in->user_id},
		.connector_id = t->connector->id,
		.connection_id = id,
		.hosts_digest = t->hosts_digest,
		.generation = 1
	};
	OvDue		due = {
		.policy = t->connector->policy,
		.connection_id = id,
		.issued_at = now,
		.expires_at = in->expires_at,
		.used_at = now,
		.can_refresh = in->refresh != NULL
	};
	TimestampTz refresh_at;
	Datum		args[15];
	char		nulls[16] = "               ";

	args[0] = ov_text_datum(in->tenant);
	args[1] = ov_text_datum(in->user_id);
	args[2] = ov_uuid_datum(t->connector->id);
	args[3] = ov_text_datum(in->account);
	if (ov_query(&exists, OV_READ, args, NULL) > 0)
		return false;
	if (!ov_person_share(in->tenant, in->user_id))
		ov_raise(ERRCODE_LOCK_NOT_AVAILABLE, "the person is being offboarded", NULL, "Try again when that has come to an end.");
	ov_check_person_onboarded(in->tenant, in->user_id);
	bind_hosts(call, t, in->metadata);
	ov_new_uuid(id);
	s.key_id = ov_person_key(&t->home, in->tenant, in->user_id, &s.wrapped, &s.wrapped_len);
	refresh_at = ov_due(&due, now);
	args[0] = ov_uuid_datum(id);
	args[1] = ov_text_datum(in->tenant);
	args[2] = ov_text_datum(in->user_id);
	args[3] = ov_uuid_datum(t->connector->id);
	args[4] = ov_text_datum(in->account);
	args[5] = Int64GetDatum(s.key_id);
	args[6] = ov_bytea_datum(t->hosts_digest, sizeof(t->hosts_digest));
	nulls[7] = in->expires_at == 0 ? 'n' : ' ';
	args[7] = TimestampTzGetDatum(in->expires_at);
	nulls[8] = refresh_at == 0 ? 'n' : ' ';
	args[8] = TimestampTzGetDatum(refresh_at);
	args[9] = TimestampTzGetDatum(now);
	args[10] = ov_text_array_datum((const char *const *) in->scopes, in->nscopes);
	nulls[11] = in->subject == NULL ? 'n' : ' ';
	args[11] = ov_text_datum(in->subject);
	args[12] = ov_jsonb_datum(in->metadata);
	args[13] = ov_have_sealed(&t->home, &s, OV_PURPOSE_ACCESS_TOKEN, in->access);
	nulls[14] = in->refresh == NULL ? 'n' : ' ';
	args[14] = in->refresh == NULL ? OV_NULL : ov_have_sealed(&t->home, &s, OV_PURPOSE_REFRESH_TOKEN, in->refresh);
	return ov_query(&insert, OV_WRITE, args, nulls) > 0;
}

static void
note(OvCall *call, const Target *t, const Import *in, const unsigned char id[16])
{
	OvEvent		event = {
		.event = "imported",
		.outcome = "ok",
		.tenant = in->tenant,
		.user_id = in->user_id,
		.connector = t->connector->name,
		.connection_id = id,
		.account = in->account,
		.scopes = in->scopes,
		.nscopes = in->nscopes
	};

	ov_audit_append_event(call, &event);
}

/* (tenant, user_id, connector, account, access_token, refresh_token, expires_at, scopes, metadata, provider_subject) */
Datum
ov_import_connection(PG_FUNCTION_ARGS)
{
	OvCall		call;
	Target		t;
	Import		in = {0};
	const char *connector;
	unsigned char id[16];
	Datum		result;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	in.tenant = ov_arg_text(fcinfo, 0, "tenant", false);
	if (in.tenant == NULL)
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"tenant\" must not be null", NULL,
				 "The tenant of a vault without tenants is ''.");
	in.user_id = ov_arg_text(fcinfo, 1, "user_id", true);
	connector = ov_arg_name(fcinfo, 2, "connector", true, MAX_ID);
	in.account = ov_arg_text(fcinfo, 3, "account", false);
	if (in.account == NULL)
		in.account = "";
	in.access = ov_arg_secret(&call, fcinfo, 4, "access_token", true);
	in.refresh = ov_arg_secret(&call, fcinfo, 5, "refresh_token", false);
	in.expires_at = PG_ARGISNULL(6) ? 0 : PG_GETARG_TIMESTAMPTZ(6);
	in.scopes = ov_arg_text_array(fcinfo, 7, "scopes", &in.nscopes);
	in.metadata = ov_arg_json_object(fcinfo, 8, "metadata");
	in.subject = ov_arg_name(fcinfo, 9, "provider_subject", false, MAX_ID);
	check(&in);
	find_target(&call, connector, &t);
	if (!import(&call, &t, &in, id))
		ov_raise(ERRCODE_DUPLICATE_OBJECT, "the person has a live connection of this name",
				 NULL, "Nothing was changed. Revoke it first, or give another \"account\".");
	note(&call, &t, &in, id);
	ov_audit_settle();
	ov_wake_after_commit();
	MemoryContextSwitchTo(call.caller);
	result = ov_uuid_datum(id);
	ov_call_end(&call);
	PG_RETURN_DATUM(result);
}

/* ---- many ---- */

static const char *
member(const OvJson *row, const char *key, bool *wrong)
{
	const OvJson *v = ov_json_get(row, key);

	if (v == NULL || v->type == OV_JSON_NULL)
		return NULL;
	if (v->type != OV_JSON_STRING)
		*wrong = true;
	return ov_json_string(v);
}

/* Reads one element; raises what is wrong with it. */
static void
read_element(OvCall *call, const OvJson *row, Import *in)
{
	static const char *const known[] = {
		"tenant", "user_id", "account", "access_token", "refresh_token", "expires_at", "scopes", "metadata", "provider_subject"
	};
	const OvJson *v;
	const char *expires;
	bool		wrong = false;

	memset(in, 0, sizeof(*in));
	if (row->type != OV_JSON_OBJECT)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "an element of parameter \"rows\" is not an object", NULL, NULL);
	for (const OvJson *m = row->child; m != NULL; m = m->next)
	{
		bool		is_known = false;

		for (int i = 0; i < lengthof(known); i++)
			is_known = is_known || strcmp(known[i], m->key) == 0;
		if (!is_known)
			ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "an element of parameter \"rows\" has a member that is not known", NULL,
					 "Members are tenant, user_id, account, access_token, refresh_token, expires_at, scopes, metadata and provider_subject.");
	}
	in->tenant = member(row, "tenant", &wrong);
	in->user_id = member(row, "user_id", &wrong);
	in->account = member(row, "account", &wrong);
	in->access = member(row, "access_token", &wrong);
	in->refresh = member(row, "refresh_token", &wrong);
	in->subject = member(row, "provider_subject", &wrong);
	expires = member(row, "expires_at", &wrong);
	v = ov_json_get(row, "scopes");
	if (v != NULL && v->type == OV_JSON_ARRAY)
	{
		in->scopes = palloc0(sizeof(char *) * (v->count + 1));
		for (const OvJson *s = v->child; s != NULL; s = s->next)
		{
			wrong = wrong || s->type != OV_JSON_STRING;
			if (!wrong)
				in->scopes[in->nscopes++] = pstrdup(ov_json_string(s));
		}
	}
	else
		wrong = wrong || (v != NULL && v->type != OV_JSON_NULL);
	in->metadata = "{}";
	v = ov_json_get(row, "metadata");
	if (v != NULL && v->type == OV_JSON_OBJECT)
	{
		OvStr		s;

		ov_str_init(&s, ov_call_arena(call));
		ov_json_write(&s, v);
		in->metadata = pstrdup(s.data);
	}
	else
		wrong = wrong || (v != NULL && v->type != OV_JSON_NULL);
	if (wrong)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "an element of parameter \"rows\" has a member of the wrong type", NULL,
				 "\"scopes\" is an array of text, \"metadata\" an object, everything else text.");
	if (in->tenant == NULL)
		in->tenant = "";
	if (in->account == NULL)
		in->account = "";
	if (in->user_id == NULL || in->access == NULL)
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "an element of parameter \"rows\" lacks \"user_id\" or \"access_token\"", NULL, NULL);
	if (expires != NULL)
		in->expires_at = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(expires),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	check(in);
}

/* (connector, rows) -> n, connection_id, outcome, sqlstate, message */
static void
import_element(OvCall *call, Target *t, const OvJson *row, int n, FunctionCallInfo fcinfo)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Import		in;
	unsigned char id[16];
	volatile bool done = false;
	ErrorData  *volatile error = NULL;
	Datum		values[5] = {Int32GetDatum(n)};
	bool		nulls[5] = {false, true, false, true, true};

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		read_element(call, row, &in);
		done = import(call, t, &in, id);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	/* what is wrong with one row is its outcome; everything else ends the call */
	if (error != NULL && error->sqlerrcode != ERRCODE_OV_CONNECTOR_MISCONFIGURED && error->sqlerrcode != ERRCODE_OV_POLICY_DENIED &&
		error->sqlerrcode != ERRCODE_OV_USER_OFFBOARDED && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE && ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
		ReThrowError(error);
	if (done)
		note(call, t, &in, id);
	values[2] = ov_text_datum(error != NULL ? "failed" : done ? "imported" : "exists");
	if (done)
	{
		values[1] = ov_uuid_datum(id);
		nulls[1] = false;
	}
	if (error != NULL)
	{
		values[3] = ov_text_datum(unpack_sql_state(error->sqlerrcode));
		values[4] = ov_text_datum(error->message);
		nulls[3] = nulls[4] = false;
		FreeErrorData(error);
	}
	ov_put_row(fcinfo, values, nulls);
}

Datum
ov_import_connections(PG_FUNCTION_ARGS)
{
	OvCall		call;
	Target		t;
	const char *connector;
	Jsonb	   *j;
	char	   *text;
	char	   *copy;
	const OvJson *rows;
	OvError		err = {0};
	OvCode		code;
	int			n = 0;

	InitMaterializedSRF(fcinfo, 0);
	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	connector = ov_arg_name(fcinfo, 0, "connector", true, MAX_ID);
	if (PG_ARGISNULL(1))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"rows\" must not be null", NULL, NULL);
	ov_secret_in_statement();
	ov_conceal_session();
	j = PG_GETARG_JSONB_P(1);
	if (!JB_ROOT_IS_ARRAY(j) || JB_ROOT_IS_SCALAR(j))
		invalid("rows", "must be a JSON array", "Each element is an object: {\"user_id\": ..., \"access_token\": ...}.");
	if (JB_ROOT_COUNT(j) > MAX_ROWS)
		invalid("rows", "has more than 1000 elements", "Call it again with the next ones, and commit in between.");
	text = JsonbToCString(NULL, &j->root, VARSIZE(j));
	copy = ov_arena_strndup(ov_call_arena(&call), text, strlen(text));
	OPENSSL_cleanse(text, strlen(text));
	code = copy == NULL ? OV_E_NOMEM : ov_json_parse(ov_call_arena(&call), copy, strlen(copy), &rows, &err);
	if (code != OV_OK)
		invalid("rows", psprintf("cannot be read: %s", err.message), NULL);
	find_target(&call, connector, &t);
	for (const OvJson *row = rows->child; row != NULL; row = row->next)
	{
		CHECK_FOR_INTERRUPTS();
		import_element(&call, &t, row, ++n, fcinfo);
	}
	ov_audit_settle();
	ov_wake_after_commit();
	ov_call_end(&call);
	return (Datum) 0;
}
