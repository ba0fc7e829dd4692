/*
 * connector.c
 *	  Connectors: our client registrations at providers, and their secrets.
 *
 * All of it happens in the administrator's own transaction; only discovery and
 * the sealing of a client secret are asked of workers, and both leave nothing
 * behind when the transaction is rolled back.  The secret itself goes from the
 * parameter to the key worker and comes back as a record.
 *
 * A connector's row is locked before anything is decided from it.  It outlives
 * its name as long as history or a queued revocation refers to it: dropped, it
 * is called "name:dropped:<id>", and a connector's name has no colon.
 */
#include "vault/vault.h"

#include "core/codec.h"
#include "core/json.h"
#include "utils/builtins.h"

#define MAX_NAME 63
#define MAX_CLIENT_ID 1024
#define MAX_SECRET (16 * 1024)
#define MAX_URL 2048
#define MAX_REASON 500

PG_FUNCTION_INFO_V1(ov_create_connector);
PG_FUNCTION_INFO_V1(ov_alter_connector);
PG_FUNCTION_INFO_V1(ov_drop_connector);
PG_FUNCTION_INFO_V1(ov_set_client_secret);
PG_FUNCTION_INFO_V1(ov_discover);

/* ---- parameters ---- */

static void
invalid(const char *name, const char *what, const char *hint)
{
	ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, psprintf("parameter \"%s\" %s", name, what), NULL, hint);
}

static void
check_name(const char *name)
{
	bool		ok = strlen(name) <= MAX_NAME && strchr("._-", name[0]) == NULL;

	for (const char *c = name; *c != '\0'; c++)
		ok = ok && strchr("abcdefghijklmnopqrstuvwxyz0123456789._-", *c) != NULL;
	if (!ok)
		invalid("name", "is not a connector name",
				"A name has 1 to 63 characters: a-z, 0-9, _, . and -, beginning with a letter or a digit.");
}

/* RFC 6749 appendix A.1 */
static void
check_client_id(const char *client_id)
{
	for (const char *c = client_id; *c != '\0'; c++)
		if (*c < 0x20 || *c > 0x7e)
			invalid("client_id", "has a character that no client id has", "A client id is printable ASCII.");
}

/* RFC 6749 section 3.1.2 and RFC 9700 section 2.6: absolute, no fragment, TLS but for loopback */
static void
check_redirect_uri(OvCall *call, const char *uri, const char *name)
{
	OvUrl		url;
	OvError		err = {0};

	if (strlen(uri) > MAX_URL)
		invalid(name, "is too long", NULL);
	if (ov_url_parse(ov_call_arena(call), uri, &url, &err) != OV_OK)
		invalid(name, psprintf("is not an absolute URL: %s", err.message), NULL);
	if (url.fragment != NULL)
		invalid(name, "must not have a fragment", NULL);
	if (strcmp(url.scheme, "https") != 0 && !url.loopback)
		invalid(name, "must be an https URL", "Plain http is for loopback addresses only.");
}

/*
 * redirect_uri, the default, and redirect_uris, all of them: one list with the
 * default first.  before: what an existing connector has.
 */
static char **
redirect_list(OvCall *call, FunctionCallInfo fcinfo, int one, int many, char **before, int nbefore, int *n)
{
	char	   *first = ov_arg_name(fcinfo, one, "redirect_uri", false, MAX_URL);
	int			nrest;
	char	  **rest = ov_arg_text_array(fcinfo, many, "redirect_uris", &nrest);
	char	  **list;

	if (first != NULL)
		check_redirect_uri(call, first, "redirect_uri");
	for (int i = 0; i < nrest; i++)
		check_redirect_uri(call, rest[i], "redirect_uris");
	if (rest == NULL)
	{
		rest = before;
		nrest = nbefore;
	}
	list = palloc(sizeof(char *) * (nrest + 1));
	*n = 0;
	if (first != NULL)
		list[(*n)++] = first;
	for (int i = 0; i < nrest; i++)
		if (!ov_array_has(list, *n, rest[i]))
			list[(*n)++] = rest[i];
	if (*n == 0)
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"redirect_uri\" must not be null", NULL,
				 "Give the URL that you registered at the provider for the consent to come back to.");
	return list;
}

/* The defaults must be within the ceiling. */
static void
check_ceiling(char **scopes, int n, bool has_max, char **max, int nmax)
{
	char	  **outside = palloc(sizeof(char *) * (n + 1));
	int			noutside = 0;

	for (int i = 0; has_max && i < n; i++)
		if (!ov_array_has(max, nmax, scopes[i]))
			outside[noutside++] = scopes[i];
	if (noutside > 0)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"scopes\" is not within \"max_scopes\"",
				 ov_detail("denied_scopes", ov_array_json(outside, noutside), NULL), NULL);
}

/* Variables are text; the provider's rules check each value. */
static char *
params_object(OvCall *call, FunctionCallInfo fcinfo, int n)
{
	char	   *text = ov_arg_json_object(fcinfo, n, "params");
	const OvJson *json;
	OvError		err = {0};

	if (ov_json_parse(ov_call_arena(call), text, strlen(text), &json, &err) != OV_OK)
		invalid("params", psprintf("cannot be read: %s", err.message), NULL);
	for (const OvJson *m = json->child; m != NULL; m = m->next)
		if (m->type != OV_JSON_STRING)
			invalid("params", psprintf("must hold text only, but \"%s\" is something else", m->key), NULL);
	return text;
}

static char *
refresh_policy(FunctionCallInfo fcinfo, int n, bool required)
{
	char	   *policy = ov_arg_text(fcinfo, n, "refresh_policy", required);

	if (policy != NULL && strcmp(policy, "eager") != 0 && strcmp(policy, "recent") != 0 && strcmp(policy, "lazy") != 0)
		invalid("refresh_policy", "must be eager, recent or lazy", NULL);
	return policy;
}

/* require_actor, require_purpose, max_reads_per_actor, from n on; NULL leaves what there is, 0 is no limit. */
static void
read_agent_rules(FunctionCallInfo fcinfo, int n, OvConnector *c)
{
	if (!PG_ARGISNULL(n))
		c->require_actor = PG_GETARG_BOOL(n);
	if (!PG_ARGISNULL(n + 1))
		c->require_purpose = PG_GETARG_BOOL(n + 1);
	if (PG_ARGISNULL(n + 2))
		return;
	c->max_reads_per_actor = PG_GETARG_INT32(n + 2);
	if (c->max_reads_per_actor < 0)
		invalid("max_reads_per_actor", "must not be negative", "0 is no limit.");
}

/* ---- what workers are asked for ---- */

static char *
discover(OvCall *call, const char *issuer)
{
	OvMsg	   *m = ov_request();
	char	   *metadata;

	ov_request_person(m, call);
	ov_msg_put_str(m, OV_TAG_ISSUER, issuer);
	metadata = ov_msg_str(ov_send(OV_WORKER_NETWORK, OV_OP_DISCOVER), OV_TAG_METADATA);
	ov_done_with_answer();
	if (metadata == NULL)
		ov_raise(ERRCODE_OV_INVALID_RESPONSE, "the issuer's metadata is empty",
				 ov_detail("reason", "no metadata", "issuer", issuer, NULL),
				 "Check what the issuer serves below its URL at /.well-known/openid-configuration.");
	return metadata;
}

static Datum
sealed_secret(const OvHome *home, const OvConnector *c, const char *secret, int64 generation)
{
	static const unsigned char none[32];
	OvSeal		s = {
		.owner = {.kind = OV_KIND_CONNECTOR, .connector_id = c->id},
		.key_id = c->key_id,
		.wrapped = c->wrapped,
		.wrapped_len = c->wrapped_len,
		.connector_id = c->id,
		.connection_id = none,
		.hosts_digest = none,
		.generation = generation
	};

	return ov_have_sealed(home, &s, OV_PURPOSE_CLIENT_SECRET, secret);
}

/* ---- checks of the whole ---- */

static char *
client_secret(OvCall *call, FunctionCallInfo fcinfo, int n, bool required)
{
	char	   *secret = ov_arg_secret(call, fcinfo, n, "client_secret", required);

	if (secret != NULL && secret[0] == '\0')
		invalid("client_secret", "must not be empty", "Leave it out for a public client.");
	if (secret != NULL && strlen(secret) > MAX_SECRET)
		invalid("client_secret", "is too long", NULL);
	return secret;
}

static OvConnector *
locked_connector(const char *name)
{
	static OvQuery lock = {
		"SELECT connector_id FROM oauth_vault.connector WHERE name = $1 AND status <> 'dropped' FOR UPDATE", "t"
	};
	Datum		arg = ov_text_datum(name);
	OvConnector *c = ov_query(&lock, OV_WRITE, &arg, NULL) == 0 ? NULL : ov_connector_by_name(name);

	if (c == NULL)
		ov_raise(ERRCODE_UNDEFINED_OBJECT, psprintf("connector \"%s\" does not exist", name), NULL,
				 "SELECT name FROM oauth_vault.oauth_connectors lists them.");
	return c;
}

/* Can a provider be made of it, and may our secrets go where it says? */
static void
check_provider(OvCall *call, OvConnector *c)
{
	const OvProvider *provider;
	const char *const *hosts;
	int			nhosts;
	unsigned char digest[32];
	OvArena    *arena = ov_call_arena(call);
	OvError		err = {0};
	OvCode		code;

	(void) ov_current_settings();	/* allowed_hosts; OV040 without */
	code = ov_connector_provider(arena, c, NULL, &provider, &err);
	if (code == OV_OK)
		code = ov_provider_hosts(arena, provider, &hosts, &nhosts, digest, &err);
	if (code == OV_OK && nhosts == 0)
		code = ov_fail(&err, OV_E_CONFIG, "provider \"%s\" names no token endpoint", c->provider);
	if (code == OV_OK && (code = ov_hosts_permitted(arena, c, NULL, provider, &err)) == OV_E_DENIED)
		ov_raise(ERRCODE_OV_POLICY_DENIED, err.message, ov_detail("reason", "host", "host", err.detail, NULL),
				 "Hosts that receive secrets come from the built-in catalogue or from \"allowed_hosts\" in the vault file.");
	if (code == OV_E_NOMEM)
		ov_raise(ERRCODE_OUT_OF_MEMORY, "out of memory", NULL, NULL);
	if (code != OV_OK)
		ov_raise(ERRCODE_OV_CONNECTOR_MISCONFIGURED, err.message,
				 ov_detail("reason", err.detail[0] ? err.detail : "provider rules", "provider", c->provider, NULL),
				 c->issuer != NULL ? "The provider's rules, \"params\" and the issuer's metadata do not make a whole." :
				 "Check \"params\"; a provider without endpoints of its own needs \"issuer\".");
}

/* ---- SQL ---- */

static Datum
create_connector(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	static OvQuery exists = {"SELECT FROM oauth_vault.connector WHERE name = $1", "t"};
	static OvQuery insert = {
		"INSERT INTO oauth_vault.connector (connector_id, name, provider, client_id, client_secret, key_id, redirect_uris,"
		" default_scopes, max_scopes, params, issuer, metadata, refresh_policy, created_by, require_actor, require_purpose,"
		" max_reads_per_actor)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, nullif($17, 0)) ON CONFLICT (name) DO NOTHING",
		"utttblaaajtjttooi"
	};
	OvConnector c = {0};
	OvHome		home;
	char	   *secret;
	Datum		args[17];
	char		nulls[18] = "                 ";
	Datum		id;

	c.name = ov_arg_text(fcinfo, 0, "name", true);
	check_name(c.name);
	event->connector = c.name;
	c.provider = ov_arg_text(fcinfo, 1, "provider", true);
	c.client_id = ov_arg_name(fcinfo, 2, "client_id", true, MAX_CLIENT_ID);
	check_client_id(c.client_id);
	secret = client_secret(call, fcinfo, 3, false);
	c.redirect_uris = redirect_list(call, fcinfo, 4, 10, NULL, 0, &c.nredirect_uris);
	c.default_scopes = ov_arg_text_array(fcinfo, 5, "scopes", &c.ndefault_scopes);
	ov_check_scopes(c.default_scopes, c.ndefault_scopes, "scopes");
	c.max_scopes = ov_arg_text_array(fcinfo, 6, "max_scopes", &c.nmax_scopes);
	ov_check_scopes(c.max_scopes, c.nmax_scopes, "max_scopes");
	c.has_max_scopes = c.max_scopes != NULL;
	check_ceiling(c.default_scopes, c.ndefault_scopes, c.has_max_scopes, c.max_scopes, c.nmax_scopes);
	c.params = params_object(call, fcinfo, 7);
	c.issuer = ov_arg_name(fcinfo, 8, "issuer", false, MAX_URL);
	if (c.issuer != NULL && c.issuer[0] == '\0')
		invalid("issuer", "must not be empty", NULL);
	c.policy = refresh_policy(fcinfo, 9, true);
	read_agent_rules(fcinfo, 11, &c);

	args[0] = ov_text_datum(c.name);
	if (ov_query(&exists, OV_READ, args, NULL) > 0)
		ov_raise(ERRCODE_DUPLICATE_OBJECT, psprintf("connector \"%s\" already exists", c.name), NULL,
				 "Use oauth_alter_connector to change it, or take another name.");
	if (!ov_provider_rules(c.provider, &c.rules, &c.builtin_rules))
		ov_raise(ERRCODE_OV_CONNECTOR_MISCONFIGURED, psprintf("provider \"%s\" is not in the catalogue", c.provider),
				 ov_detail("reason", "unknown provider", "provider", c.provider, NULL),
				 "SELECT name FROM oauth_vault.oauth_providers lists the catalogue; \"oidc\" is any issuer that publishes its metadata.");
	if (c.issuer != NULL)
		c.metadata = discover(call, c.issuer);
	check_provider(call, &c);

	ov_home_claim(&home);
	ov_new_uuid(c.id);
	c.key_id = ov_have_new_key(&home, &(OvSealOwner) {.kind = OV_KIND_CONNECTOR, .connector_id = c.id}, &c.wrapped, &c.wrapped_len);
	args[0] = ov_uuid_datum(c.id);
	args[1] = ov_text_datum(c.name);
	args[2] = ov_text_datum(c.provider);
	args[3] = ov_text_datum(c.client_id);
	nulls[4] = secret == NULL ? 'n' : ' ';
	args[4] = secret == NULL ? OV_NULL : sealed_secret(&home, &c, secret, 1);
	args[5] = Int64GetDatum(c.key_id);
	args[6] = ov_text_array_datum((const char *const *) c.redirect_uris, c.nredirect_uris);
	args[7] = ov_text_array_datum((const char *const *) c.default_scopes, c.ndefault_scopes);
	nulls[8] = c.has_max_scopes ? ' ' : 'n';
	args[8] = ov_text_array_datum((const char *const *) c.max_scopes, c.nmax_scopes);
	args[9] = ov_jsonb_datum(c.params);
	nulls[10] = c.issuer == NULL ? 'n' : ' ';
	args[10] = ov_text_datum(c.issuer);
	nulls[11] = c.metadata == NULL ? 'n' : ' ';
	args[11] = ov_jsonb_datum(c.metadata);
	args[12] = ov_text_datum(c.policy);
	args[13] = ov_text_datum(call->role);
	args[14] = BoolGetDatum(c.require_actor);
	args[15] = BoolGetDatum(c.require_purpose);
	args[16] = Int32GetDatum(c.max_reads_per_actor);
	if (ov_query(&insert, OV_WRITE, args, nulls) == 0)
		ov_raise(ERRCODE_DUPLICATE_OBJECT, psprintf("connector \"%s\" already exists", c.name), NULL,
				 "Somebody has created it just now; use oauth_alter_connector to change it.");

	event->scopes = c.default_scopes;
	event->nscopes = c.ndefault_scopes;
	event->reason = c.provider;
	ov_audit(call, event);
	MemoryContextSwitchTo(call->caller);
	id = ov_uuid_datum(c.id);
	PG_RETURN_DATUM(id);
}

Datum
ov_create_connector(PG_FUNCTION_ARGS)
{
	return ov_admin_call(fcinfo, "connector_created", create_connector);
}

/* An administrator's pause is theirs: it also takes over one of the network worker's. */
static void
set_status(OvConnector *c, char *status, char *reason, const char *role, OvEvent *event)
{
	if (strcmp(status, "active") == 0)
	{
		c->status_reason = NULL;
		c->paused_by = NULL;
		c->status = status;
		return;
	}
	if (c->paused_by == NULL)
		event->event = "connector_paused";
	if (reason != NULL || c->paused_by == NULL)
		c->status_reason = reason ? reason : "paused by an administrator";
	c->paused_by = role;
	c->status = status;
}

static Datum
alter_connector(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	static OvQuery update = {
		"UPDATE oauth_vault.connector SET client_id = $2, redirect_uris = $3, default_scopes = $4, max_scopes = $5,"
		" params = $6, refresh_policy = $7, status = $8, status_reason = $9, paused_by = $10,"
		" status_since = CASE WHEN status = $8 THEN status_since ELSE now() END,"
		" require_actor = $11, require_purpose = $12, max_reads_per_actor = nullif($13, 0)"
		" WHERE connector_id = $1", "utaaajttttooi"
	};
	OvConnector *c;
	char	   *name,
			   *client_id,
			   *policy,
			   *status,
			   *reason;
	char	  **list;
	int			n;
	Datum		args[13];
	char		nulls[14] = "             ";

	event->connector = name = ov_arg_text(fcinfo, 0, "name", true);
	client_id = ov_arg_name(fcinfo, 1, "client_id", false, MAX_CLIENT_ID);
	if (client_id != NULL && client_id[0] == '\0')
		invalid("client_id", "must not be empty", NULL);
	if (client_id != NULL)
		check_client_id(client_id);
	policy = refresh_policy(fcinfo, 7, false);
	status = ov_arg_text(fcinfo, 8, "status", false);
	if (status != NULL && strcmp(status, "active") != 0 && strcmp(status, "paused") != 0)
		invalid("status", "must be active or paused", "Use oauth_drop_connector to remove a connector.");
	reason = ov_arg_name(fcinfo, 9, "reason", false, MAX_REASON);

	c = locked_connector(name);
	c->redirect_uris = redirect_list(call, fcinfo, 2, 3, c->redirect_uris, c->nredirect_uris, &c->nredirect_uris);
	if ((list = ov_arg_text_array(fcinfo, 4, "scopes", &n)) != NULL)
	{
		ov_check_scopes(list, n, "scopes");
		c->default_scopes = list;
		c->ndefault_scopes = n;
	}
	if ((list = ov_arg_text_array(fcinfo, 5, "max_scopes", &n)) != NULL)
	{
		ov_check_scopes(list, n, "max_scopes");
		c->max_scopes = list;
		c->nmax_scopes = n;
		c->has_max_scopes = true;
	}
	check_ceiling(c->default_scopes, c->ndefault_scopes, c->has_max_scopes, c->max_scopes, c->nmax_scopes);
	if (!PG_ARGISNULL(6))
	{
		c->params = params_object(call, fcinfo, 6);
		check_provider(call, c);
	}
	read_agent_rules(fcinfo, 10, c);
	if (status != NULL)
		set_status(c, status, reason, call->role, event);
	args[0] = ov_uuid_datum(c->id);
	args[1] = ov_text_datum(client_id ? client_id : c->client_id);
	args[2] = ov_text_array_datum((const char *const *) c->redirect_uris, c->nredirect_uris);
	args[3] = ov_text_array_datum((const char *const *) c->default_scopes, c->ndefault_scopes);
	nulls[4] = c->has_max_scopes ? ' ' : 'n';
	args[4] = ov_text_array_datum((const char *const *) c->max_scopes, c->nmax_scopes);
	args[5] = ov_jsonb_datum(c->params);
	args[6] = ov_text_datum(policy ? policy : c->policy);
	args[7] = ov_text_datum(c->status);
	nulls[8] = c->status_reason == NULL ? 'n' : ' ';
	args[8] = ov_text_datum(c->status_reason);
	nulls[9] = c->paused_by == NULL ? 'n' : ' ';
	args[9] = ov_text_datum(c->paused_by);
	args[10] = BoolGetDatum(c->require_actor);
	args[11] = BoolGetDatum(c->require_purpose);
	args[12] = Int32GetDatum(c->max_reads_per_actor);
	(void) ov_query(&update, OV_WRITE, args, nulls);

	event->scopes = c->default_scopes;
	event->nscopes = c->ndefault_scopes;
	event->reason = reason;
	ov_audit(call, event);
	ov_wake_after_commit();
	PG_RETURN_VOID();
}

Datum
ov_alter_connector(PG_FUNCTION_ARGS)
{
	return ov_admin_call(fcinfo, "connector_altered", alter_connector);
}

Datum
ov_drop_connector(PG_FUNCTION_ARGS)
{
	static OvQuery references = {
		"SELECT (SELECT count(*) FROM oauth_vault.connection WHERE connector_id = $1 AND status NOT IN ('revoking', 'revoked')),"
		" EXISTS (SELECT FROM oauth_vault.connection WHERE connector_id = $1)"
		" OR EXISTS (SELECT FROM oauth_vault.revocation WHERE connector_id = $1)", "u"
	};
	static OvQuery mark = {
		"UPDATE oauth_vault.connector SET status = 'dropped', status_since = now(), status_reason = NULL,"
		" name = name || ':dropped:' || connector_id WHERE connector_id = $1", "u"
	};
	static OvQuery remove = {
		"WITH gone AS (DELETE FROM oauth_vault.connector WHERE connector_id = $1 RETURNING key_id)"
		" DELETE FROM oauth_vault.vault_key k USING gone WHERE k.kind = 'connector' AND k.connector_id = $1", "u"
	};
	OvCall		call;
	OvConnector *c;
	OvEvent		event = {.event = "connector_dropped", .outcome = "ok"};
	int64		live;
	Datum		id;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	c = locked_connector(ov_arg_text(fcinfo, 0, "name", true));
	id = ov_uuid_datum(c->id);
	(void) ov_query(&references, OV_READ, &id, NULL);
	live = ov_int8(0, 1);
	if (live > 0)
		ov_raise(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
				 psprintf("connector \"%s\" has live connections", c->name),
				 ov_detail("live_connections", psprintf(INT64_FORMAT, live), NULL),
				 "Revoke them first; oauth_alter_connector(name, status => 'paused') stops it meanwhile.");
	(void) ov_query(ov_bool(0, 2) ? &mark : &remove, OV_WRITE, &id, NULL);
	event.connector = c->name;
	ov_audit(&call, &event);
	ov_wake_after_commit();
	ov_call_end(&call);
	PG_RETURN_VOID();
}

Datum
ov_set_client_secret(PG_FUNCTION_ARGS)
{
	static OvQuery update = {
		"UPDATE oauth_vault.connector SET"
		" previous_secret = CASE WHEN $4 THEN client_secret END,"
		" previous_generation = CASE WHEN $4 AND client_secret IS NOT NULL THEN secret_generation END,"
		" client_secret = $2, secret_generation = $3,"
		/* what the network worker has paused, the provider refusing the secret, works again */
		" status_since = CASE WHEN status = 'active' OR paused_by IS NOT NULL THEN status_since ELSE now() END,"
		" status = CASE WHEN paused_by IS NULL THEN 'active' ELSE status END,"
		" status_reason = CASE WHEN paused_by IS NOT NULL THEN status_reason END"
		" WHERE connector_id = $1", "ublo"
	};
	OvCall		call;
	OvConnector *c;
	OvHome		home;
	OvEvent		event = {.event = "client_secret_set", .outcome = "ok"};
	char	   *secret;
	Datum		args[4];

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	if (PG_ARGISNULL(2))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"keep_previous\" must not be null", NULL, NULL);
	secret = client_secret(&call, fcinfo, 1, true);
	c = locked_connector(ov_arg_text(fcinfo, 0, "connector", true));
	if (!ov_home(&home))
		elog(ERROR, "there is a connector, but no home row");
	args[0] = ov_uuid_datum(c->id);
	args[1] = sealed_secret(&home, c, secret, c->secret_generation + 1);
	args[2] = Int64GetDatum(c->secret_generation + 1);
	args[3] = BoolGetDatum(PG_GETARG_BOOL(2));
	(void) ov_query(&update, OV_WRITE, args, NULL);
	event.connector = c->name;
	event.reason = PG_GETARG_BOOL(2) ? "previous secret kept" : "previous secret discarded";
	ov_audit(&call, &event);
	ov_wake_after_commit();
	ov_call_end(&call);
	PG_RETURN_VOID();
}

static Datum
discover_now(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	char	   *issuer = ov_arg_name(fcinfo, 0, "issuer", true, MAX_URL);
	char	   *metadata;

	event->detail = ov_detail("issuer", issuer, NULL);
	metadata = discover(call, issuer);
	ov_audit(call, event);
	MemoryContextSwitchTo(call->caller);
	return ov_jsonb_datum(metadata);
}

Datum
ov_discover(PG_FUNCTION_ARGS)
{
	return ov_admin_call(fcinfo, "discovered", discover_now);
}
